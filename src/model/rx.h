/* rx - the small regular expressions of pre-tokenizers (model/rx.c)
 *
 * What these patterns use: literals, \s \S \d \p{..} \P{..}, sets with ranges and negation,
 * alternatives, greedy ? * + {n,m}, groups (?:...) and (?i:...), the look-aheads (?!x) and (?=x) of
 * one character, and $. Alternatives are tried in order, the first that matches wins (as in Perl).
 * Repeats apply to single characters and to optional groups. Immutable after opening, any
 * thread. */
#ifndef HEARTH_RX_H
#define HEARTH_RX_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Text as code points with what sets ask about, made once per text. */
struct rx_char {
    uint32_t code;
    uint32_t at;   /* byte offset */
    uint32_t bits; /* 1 << category; bit 31: white space */
};

struct rx;

/* ERR_UNSUPPORTED names the part of the pattern that is not understood. */
enum err rx_open(struct rx **out, const char *pattern) MUST_USE;
void rx_close(struct rx *r); /* accepts NULL */

/* Characters matched at c[at] (of c[0..n)), 0 = no match or an empty one. */
size_t rx_match(const struct rx *r, const struct rx_char *c, size_t n, size_t at);

/* Fills c (room for text.n + 1) from well-formed UTF-8; returns the number of characters. c[n].at =
 * text.n. */
size_t rx_chars(struct view text, struct rx_char *c);

#endif
