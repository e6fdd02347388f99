/* jinja_op - the operators + - * / // % ** and signs on values of any type (model/jinja_op.c) */
#ifndef HEARTH_JINJA_OP_H
#define HEARTH_JINJA_OP_H

#include "base/err.h"
#include "model/jinja_lex.h"
#include "model/jinja_mem.h"
#include "model/jinja_value.h"

#include <stdbool.h>

/* a OP b as Python has it for these types; ERR_FAILED names a pair that does not go together. */
enum err jop_binary(struct jmem *m, enum jlex_type op, struct jv a, struct jv b,
                    struct jv *out) MUST_USE;
/* +v or -v of a number or truth value. */
enum err jop_sign(struct jmem *m, struct jv v, bool is_negative, struct jv *out) MUST_USE;
/* The texts of two values in a row; markup escapes what is not. */
const struct jstr *jop_concat(struct jmem *m, const struct jstr *a, const struct jstr *b);

#endif
