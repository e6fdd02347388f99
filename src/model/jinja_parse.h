/* jinja_parse - a template's text to its tree (model/jinja_parse.c) */
#ifndef HEARTH_JINJA_PARSE_H
#define HEARTH_JINJA_PARSE_H

#include "base/buf.h"
#include "base/err.h"
#include "model/jinja_expr.h"
#include "model/jinja_mem.h"
#include "model/jinja_str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jscope; /* jinja_scope.h */

struct jparse_tree {
    struct jnode *body;
    uint32_t n_sym;          /* different names */
    const struct jstr **sym; /* [n_sym] their texts */
    struct jscope *root;     /* set by jscope_bind */
};

/* Parses into m. Errors name the line: ERR_INTEGRITY for bad syntax, ERR_UNSUPPORTED for tags that
 * are not part of the subset, ERR_LIMIT. */
enum err jparse(struct jparse_tree *out, struct jmem *m, struct view source) MUST_USE;

#endif
