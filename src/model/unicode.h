/* unicode - categories, case and normal forms of code points (model/unicode.c; the only file that
 * knows utf8proc). Pure functions, any thread. */
#ifndef HEARTH_UNICODE_H
#define HEARTH_UNICODE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* General categories (Unicode 15, section 4.5). */
enum unicode_category {
    UNICODE_CN,
    UNICODE_LU,
    UNICODE_LL,
    UNICODE_LT,
    UNICODE_LM,
    UNICODE_LO,
    UNICODE_MN,
    UNICODE_MC,
    UNICODE_ME,
    UNICODE_ND,
    UNICODE_NL,
    UNICODE_NO,
    UNICODE_PC,
    UNICODE_PD,
    UNICODE_PS,
    UNICODE_PE,
    UNICODE_PI,
    UNICODE_PF,
    UNICODE_PO,
    UNICODE_SM,
    UNICODE_SC,
    UNICODE_SK,
    UNICODE_SO,
    UNICODE_ZS,
    UNICODE_ZL,
    UNICODE_ZP,
    UNICODE_CC,
    UNICODE_CF,
    UNICODE_CS,
    UNICODE_CO,
};

/* General category; UNICODE_CN for what is not assigned or beyond U+10FFFF. Any thread. */
enum unicode_category unicode_category(uint32_t code);
bool unicode_is_space(uint32_t code);  /* White_Space, what \s matches */
uint32_t unicode_upper(uint32_t code); /* one-to-one mappings */
uint32_t unicode_lower(uint32_t code);
uint32_t unicode_title(uint32_t code);

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC };
/* Appends the normal form of well-formed UTF-8. ERR_USAGE when `text` is not, ERR_MEMORY. */
enum err unicode_normalize(enum unicode_form form, struct view text, struct buf *out) MUST_USE;

#endif
