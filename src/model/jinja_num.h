/* jinja_num - numbers of templates: their text, Python's rounding and parsing (model/jinja_num.c)
 */
#ifndef HEARTH_JINJA_NUM_H
#define HEARTH_JINJA_NUM_H

#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_str.h"
#include "model/jinja_value.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JNUM_TEXT_MAX 40
/* repr() of a float: 1.0, 1e+16, 1e-05, inf, nan. */
void jnum_repr(double v, char out[JNUM_TEXT_MAX]);

/* int(text, base) and float(text): blanks around and single _ between digits are fine. *ok = false
 * when it is no number. ERR_UNSUPPORTED for integers beyond 64 bits. Base 0 or 2..36. */
enum err jnum_parse_int(struct jmem *m, const struct jstr *s, int base, bool *ok,
                        int64_t *out) MUST_USE;
bool jnum_parse_float(const struct jstr *s, double *out);

/* int(v) of a float: towards zero. Errors for nan, inf and beyond 64 bits. */
enum err jnum_to_int(struct jmem *m, double v, int64_t *out) MUST_USE;
/* round(v, digits): ties to even, exact in decimal; digits may be negative. */
double jnum_round(double v, int64_t digits);
enum err jnum_round_int(struct jmem *m, int64_t v, int64_t digits, int64_t *out) MUST_USE;

#define JNUM_PRECISION_MAX 1000000
/* A float as the types e f g E F G % of format() print it, without sign handling ("-" only); with
 * `is_alt` the point always stands. NULL: m->err. Precision is bounded by memory. */
const char *jnum_print(struct jmem *m, double v, char type, int64_t precision, bool is_alt);
/* |v| in base 2, 8, 10 or 16 without prefix, into `out`; returns the length. */
#define JNUM_DIGITS_MAX 68
size_t jnum_digits(int64_t v, int base, bool is_upper, char out[JNUM_DIGITS_MAX]);

enum err jnum_beyond(struct jmem *m) MUST_USE; /* "beyond 64 bits" */
/* a OP b for numbers (int, float, bool); op: enum jlex_type of + - * / // % **. */
enum err jnum_binary(struct jmem *m, int op, struct jv a, struct jv b, struct jv *out) MUST_USE;

#endif
