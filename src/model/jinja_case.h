/* jinja_case - upper and lower case and kinds of characters, as Python's str has them
 * (model/jinja_case.c) */
#ifndef HEARTH_JINJA_CASE_H
#define HEARTH_JINJA_CASE_H

#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_str.h"

#include <stdbool.h>
#include <stdint.h>

bool jcase_is_alnum(uint32_t code_point);     /* str.isalnum() of one character */
bool jcase_is_printable(uint32_t code_point); /* str.isprintable(), which repr() asks */

enum jcase_map {
    JCASE_UPPER,
    JCASE_LOWER,
    JCASE_TITLE,      /* each run of letters begins in title case */
    JCASE_CAPITALIZE, /* only the first character */
    JCASE_SWAP,
    JCASE_FOLD,
};
/* The text with its characters mapped; one may become up to three. NULL: m->err. */
const struct jstr *jcase_map(struct jmem *m, const struct jstr *s, enum jcase_map how);

/* The question str.isNAME() answers, NAME without "is"; false for a name that there is not. */
bool jcase_is(const struct jstr *s, struct view name);

#endif
