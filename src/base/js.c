/* js - JSON: parsed trees and a writer
 *
 * jansson parses; this file is the only one that knows it. What it adds:
 *   - a scan before parsing that limits depth, so that no text can exhaust the stack;
 *   - integers beyond 64 bits become reals instead of an error, and leave all others integers;
 *   - numbers are written in the shortest form that reads back to the same double. jansson 2.14
 *     writes 0.1 as 0.10000000000000001, which would change every prompt whose tool schema holds
 *     such a number.
 *
 * A node is jansson's own, seen through an opaque name; it lives as long as its root.
 *
 * Next: base/cpu.c. */
#include "base/js.h"

#include <errno.h>
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *node(const struct js *v)
{
    return (json_t *)(void *)(uintptr_t)v;
}

/* Deepest nesting of brackets outside strings. */
static size_t depth_of(struct view text)
{
    size_t depth = 0;
    size_t most = 0;
    bool is_string = false;
    for (size_t i = 0; i < text.n; i++) {
        const char c = text.p[i];
        if (is_string) {
            i += c == '\\';
            is_string = c != '"';
        } else if (c == '[' || c == '{') {
            depth++;
            most = depth > most ? depth : most;
        } else if (c == ']' || c == '}') {
            depth -= depth > 0;
        } else {
            is_string = c == '"';
        }
    }
    return most;
}

/* Whether a run of digits with at most a sign in front lies beyond 64 bits. */
static bool is_wide(struct view number)
{
    const bool is_negative = number.n > 0 && number.p[0] == '-';
    const struct view digits = view_from(number, is_negative);
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9') {
            return false;
        }
    }
    uint64_t v = 0;
    return digits.n > 18 && (!view_u64(digits, &v) || v > (uint64_t)INT64_MAX + is_negative);
}

/* A copy of the text in which integers beyond 64 bits end in ".0", so that jansson reads those, and
 * only those, as reals. (Its own flag for this turns every integer of the text into a real.) */
static void widen(struct view text, struct buf *out)
{
    size_t from = 0; /* of what is not yet copied */
    bool is_string = false;
    for (size_t i = 0; i < text.n; i++) {
        const char c = text.p[i];
        if (is_string) {
            i += c == '\\';
            is_string = c != '"';
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            size_t end = i + 1;
            while (end < text.n && memchr("0123456789+-.eE", text.p[end], 15) != NULL) {
                end++;
            }
            if (is_wide(view_part(text, i, end - i))) {
                buf_add_view(out, view_part(text, from, end - from));
                buf_add_str(out, ".0");
                from = end;
            }
            i = end - 1;
        } else {
            is_string = c == '"';
        }
    }
    buf_add_view(out, view_from(text, from));
}

enum err js_parse(struct view text, size_t depth_max, struct js **root)
{
    const size_t depth = depth_of(text);
    REQUIRE(depth <= depth_max, ERR_LIMIT, "JSON nested %zu deep; at most %zu levels are taken",
            depth, depth_max);
    json_error_t why;
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    const char *p = text.n > 0 ? text.p : "";
    errno = 0; /* jansson tells a lack of memory as many things, malloc as one */
    json_t *v = json_loadb(p, text.n, flags, &why);
    if (v == NULL && json_error_code(&why) == json_error_numeric_overflow) {
        struct buf wide; /* two bytes more for each integer of 19 or more */
        buf_init(&wide, text.n + text.n / 8 + 2);
        widen(text, &wide);
        const enum err e = buf_check(&wide, "JSON text with long integers");
        v = e == ERR_OK ? json_loadb(buf_str(&wide), wide.n, flags, &why) : NULL;
        buf_release(&wide);
        TRY(e);
    }
    REQUIRE(v != NULL || errno != ENOMEM, ERR_MEMORY, "no memory for %zu bytes of JSON", text.n);
    REQUIRE(v != NULL, ERR_USAGE, "JSON line %d column %d: %s", why.line, why.column, why.text);
    *root = (struct js *)(void *)v;
    return ERR_OK;
}

void js_close(struct js *root)
{
    json_decref(node(root));
}

enum js_type js_type(const struct js *v)
{
    if (v == NULL) {
        return JS_NULL;
    }
    switch (json_typeof(node(v))) {
    case JSON_OBJECT:
        return JS_OBJECT;
    case JSON_ARRAY:
        return JS_ARRAY;
    case JSON_STRING:
        return JS_STRING;
    case JSON_INTEGER:
        return JS_INT;
    case JSON_REAL:
        return JS_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return JS_BOOL;
    case JSON_NULL:
        break;
    }
    return JS_NULL;
}

bool js_bool(const struct js *v)
{
    return json_is_true(node(v));
}

int64_t js_int(const struct js *v)
{
    return json_integer_value(node(v));
}

double js_real(const struct js *v)
{
    return json_number_value(node(v));
}

struct view js_string(const struct js *v)
{
    if (!json_is_string(node(v))) {
        return (struct view){ NULL, 0 };
    }
    return (struct view){ json_string_value(node(v)), json_string_length(node(v)) };
}

size_t js_count(const struct js *v)
{
    return js_type(v) == JS_OBJECT ? json_object_size(node(v)) : json_array_size(node(v));
}

const struct js *js_at(const struct js *array, size_t i)
{
    return (const struct js *)(const void *)json_array_get(node(array), i);
}

const struct js *js_get(const struct js *object, const char *key)
{
    return (const struct js *)(const void *)json_object_get(node(object), key);
}

bool js_next(const struct js *object, struct js_iter *it)
{
    it->state = it->state == NULL ? json_object_iter(node(object))
                                  : json_object_iter_next(node(object), it->state);
    if (it->state == NULL) {
        return false;
    }
    it->key = view_of(json_object_iter_key(it->state));
    it->value = (const struct js *)(const void *)json_object_iter_value(it->state);
    return true;
}

/* --- writing ------------------------------------------------------------------------------- */

/* \uXXXX, beyond U+FFFF as two surrogates. */
static void put_escape(struct buf *b, uint32_t code)
{
    if (code >= 0x10000) {
        buf_printf(b, "\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10),
                   0xDC00 + ((code - 0x10000) & 0x3FF));
    } else {
        buf_printf(b, "\\u%04x", code);
    }
}

void js_put_string(struct buf *b, struct view text, bool ascii_only)
{
    buf_add_char(b, '"');
    size_t from = 0; /* of the stretch that needs no escape and is not yet added */
    for (size_t i = 0; i < text.n;) {
        uint32_t code = 0;
        int n = utf8_read(text.p + i, text.n - i, &code);
        const char *names = "\"\\\b\f\n\r\t";
        const char *hit = n == 1 && code != 0 ? strchr(names, (int)code) : NULL;
        const bool is_plain =
            n > 0 && hit == NULL && !err_is_hidden(code) && (code < 0x7F || !ascii_only);
        if (is_plain) {
            i += (size_t)n;
            continue;
        }
        buf_add(b, text.p + from, i - from);
        if (hit != NULL) {
            buf_add_char(b, '\\');
            buf_add_char(b, "\"\\bfnrt"[hit - names]);
        } else if (n == 0) {
            buf_add_str(b, ascii_only ? "\\ufffd" : "\xEF\xBF\xBD");
            n = (int)utf8_bad(text.p + i, text.n - i);
        } else {
            put_escape(b, code);
        }
        i += (size_t)n;
        from = i;
    }
    if (from < text.n) {
        buf_add(b, text.p + from, text.n - from);
    }
    buf_add_char(b, '"');
}

/* The next larger number of as many digits; when all are nines the result reads back to nothing
 * like it, which the caller's comparison finds. */
static void bump(char *text)
{
    char *p = text + strcspn(text, "e");
    while (p-- > text) {
        if (*p == '9') {
            *p = '0';
        } else if (*p >= '0' && *p < '9') {
            ++*p;
            return;
        }
    }
}

/* Fewest significant digits that read back to v > 0: digits without dot, and the decimal exponent
 * of 0.d1d2d3... Fifteen digits survive the way through a normal double, so if they read back, the
 * shortest form is theirs without the final zeros. What reads back to a power of two reaches twice
 * as far above it as below: there the nearest decimal may miss while the next one above hits. The
 * decimal point is whatever the locale has; only digits are taken. */
static void shortest(double v, char digits[20], int *exponent)
{
    char text[40];
    for (int n = v < DBL_MIN ? 1 : 15; n <= 17; n++) {
        snprintf(text, sizeof text, "%.*e", n - 1, v);
        if (strtod(text, NULL) == v) {
            break;
        }
        bump(text);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    int k = 0;
    const char *p = text;
    for (; *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9') {
            digits[k++] = *p;
        }
    }
    while (k > 1 && digits[k - 1] == '0') {
        k--;
    }
    digits[k] = '\0';
    *exponent = (int)strtol(p + 1, NULL, 10) + 1;
}

/* d1d2...dn * 10^(e - n) in Python's form. */
void js_put_repr(struct buf *b, double v)
{
    if (isnan(v)) {
        buf_add_str(b, "nan");
        return;
    }
    if (signbit(v)) {
        buf_add_char(b, '-');
        v = -v;
    }
    if (isinf(v)) {
        buf_add_str(b, "inf");
        return;
    }
    char d[20];
    int e;
    shortest(v, d, &e);
    const int n = (int)strlen(d);
    if (v == 0.0) {
        buf_add_str(b, "0.0");
    } else if (e > 16 || e < -3) { /* Python's rule: exponent form from 1e16 on and below 1e-4 */
        buf_printf(b, n > 1 ? "%c.%s" : "%c%s", d[0], d + 1);
        buf_printf(b, "e%c%02d", e - 1 < 0 ? '-' : '+', e - 1 < 0 ? 1 - e : e - 1);
    } else if (e <= 0) {
        buf_printf(b, "0.%.*s%s", -e, "000", d);
    } else if (n <= e) {
        buf_printf(b, "%s%.*s.0", d, e - n, "0000000000000000");
    } else {
        buf_printf(b, "%.*s.%s", e, d, d + e);
    }
}

void js_put_real(struct buf *b, double v)
{
    if (!isfinite(v)) {
        buf_add_str(b, "null");
        return;
    }
    js_put_repr(b, v);
}

/* Recursion is bounded by the depth that js_parse allowed. */
void js_put_value(struct buf *b, const struct js *v)
{
    switch (js_type(v)) {
    case JS_NULL:
        buf_add_str(b, "null");
        break;
    case JS_BOOL:
        buf_add_str(b, js_bool(v) ? "true" : "false");
        break;
    case JS_INT:
        buf_printf(b, "%lld", (long long)js_int(v));
        break;
    case JS_REAL:
        js_put_real(b, js_real(v));
        break;
    case JS_STRING:
        js_put_string(b, js_string(v), false);
        break;
    case JS_ARRAY:
        buf_add_char(b, '[');
        for (size_t i = 0; i < js_count(v); i++) {
            buf_add_str(b, i > 0 ? "," : "");
            js_put_value(b, js_at(v, i));
        }
        buf_add_char(b, ']');
        break;
    case JS_OBJECT: {
        struct js_iter it = { 0 };
        bool is_first = true;
        buf_add_char(b, '{');
        while (js_next(v, &it)) {
            buf_add_str(b, is_first ? "" : ",");
            is_first = false;
            js_put_string(b, it.key, false);
            buf_add_char(b, ':');
            js_put_value(b, it.value);
        }
        buf_add_char(b, '}');
        break;
    }
    }
}
