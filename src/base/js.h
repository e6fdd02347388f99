/* js - JSON: parsed trees and a writer (base/js.c; the only file that knows jansson)
 *
 * Reading is strict (RFC 8259, UTF-8 checked, duplicate keys refused, depth and size limited).
 * Objects keep the order of their keys: tool schemas go into prompts. Numbers are written in the
 * shortest form that reads back to the same double, as Python's repr() does. */
#ifndef HEARTH_JS_H
#define HEARTH_JS_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct js; /* a node; belongs to its root */

enum js_type { JS_NULL, JS_BOOL, JS_INT, JS_REAL, JS_STRING, JS_ARRAY, JS_OBJECT };

/* Parses one value. depth_max counts nested arrays and objects. The text names line and column. */
enum err js_parse(struct view text, size_t depth_max, struct js **root) MUST_USE;
void js_close(struct js *root); /* accepts NULL */

/* All readers accept NULL and wrong types: they give the neutral value. */
enum js_type js_type(const struct js *v); /* NULL counts as JS_NULL */
bool js_bool(const struct js *v);
int64_t js_int(const struct js *v);
double js_real(const struct js *v);        /* of JS_INT too */
struct view js_string(const struct js *v); /* borrows from the tree */
size_t js_count(const struct js *v);       /* elements or members */
const struct js *js_at(const struct js *array, size_t i);
const struct js *js_get(const struct js *object, const char *key);
struct js_iter {
    void *state; /* NULL to begin */
    struct view key;
    const struct js *value;
};
bool js_next(const struct js *object, struct js_iter *it); /* members in the file's order */

/* --- writing, straight into a buf ------------------------------------------------------------- */

/* With quotes. What must not reach a terminal (err_is_hidden) is escaped, what is no UTF-8 becomes
 * U+FFFD. */
void js_put_string(struct buf *b, struct view text, bool ascii_only);
void js_put_real(struct buf *b, double v);            /* shortest; NaN and infinities as null */
void js_put_value(struct buf *b, const struct js *v); /* compact */
/* Python's repr() of a double: 1.0, 1e+16, 1e-05, inf, nan. */
void js_put_repr(struct buf *b, double v);

#endif
