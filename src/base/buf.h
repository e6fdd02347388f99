/* buf - views of bytes and bounded growing buffers (base/buf.c)
 *
 * A view borrows bytes it does not own and need not end in 0. A buf owns its bytes, was given a
 * maximum at birth and never grows beyond it.
 * BU-1  n <= cap <= max (+1 byte, so that p[n] is always 0 once anything was added).
 * BU-2  after the first addition that did not fit, `is_full` stays true and later additions are
 *       refused, so that a sequence of calls needs only one check at its end. */
#ifndef HEARTH_BUF_H
#define HEARTH_BUF_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct view {
    const char *p; /* borrows; NULL only if n == 0 */
    size_t n;      /* bytes */
};

#define VIEW(lit) ((struct view){ "" lit, sizeof(lit) - 1 }) /* of a string literal */

struct view view_of(const char *zero_terminated); /* borrows */
bool view_eq(struct view a, struct view b);
bool view_is(struct view a, const char *zero_terminated); /* the whole of a */
bool view_starts(struct view a, struct view prefix);
bool view_ends(struct view a, struct view suffix);
struct view view_from(struct view a, size_t at);           /* a[at..], empty when at >= n */
struct view view_part(struct view a, size_t at, size_t n); /* a[at..at+n], cut at the end */
/* First position of `what` in `a` at or after `from`, or SIZE_MAX. */
size_t view_find(struct view a, struct view what, size_t from);
/* Whole view as a decimal number; false on sign, blank, overflow or anything else. */
bool view_u64(struct view a, uint64_t *out);

struct buf {
    char *p;           /* owns */
    size_t n;          /* bytes used */
    size_t cap;        /* bytes allocated */
    size_t max;        /* bytes allowed */
    bool is_full;      /* something did not fit (BU-2) */
    bool lacks_memory; /* it would have been allowed */
};

void buf_init(struct buf *b, size_t max_bytes); /* empty; takes no memory before it is used */
void buf_release(struct buf *b);                /* accepts a zeroed object */
void buf_reset(struct buf *b);                  /* n = 0, is_full = false, memory kept */
/* Additions never fail on the spot: what does not fit is dropped and buf_check tells. */
void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_add_view(struct buf *b, struct view v);
void buf_add_str(struct buf *b, const char *zero_terminated);
void buf_add_word(struct buf *b, const char *word); /* in quotes where a shell needs them */
void buf_add_char(struct buf *b, char c);
void buf_add_code(struct buf *b, uint32_t code_point); /* as UTF-8 */
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_cut(struct buf *b, size_t n); /* shortens to n bytes */
struct view buf_view(const struct buf *b);
/* The text, always 0-terminated; "" when nothing was added. Borrowed until the next change. */
const char *buf_str(const struct buf *b);
/* ERR_LIMIT with a text that names `what` and the maximum when something did not fit. */
enum err buf_check(const struct buf *b, const char *what) MUST_USE;

/* --- UTF-8 ------------------------------------------------------------------------------------ */

/* Length of the well-formed sequence at p[0..n), 1..4, and its code point; 0 if ill-formed or
 * cut. */
int utf8_read(const char *p, size_t n, uint32_t *code_point);
/* Bytes of the maximal ill-formed part at p (WHATWG rule; n > 0), at least 1. */
size_t utf8_bad(const char *p, size_t n);
/* Appends `v` with each maximal ill-formed part replaced by U+FFFD. */
void utf8_clean(struct buf *out, struct view v);
/* Appends `v` as a terminal may get it: ill-formed parts as above, what err_is_hidden names as \n,
 * \xNN or \uNNNN; with is_text newlines and tabs stay and carriage returns go. "..." stands for
 * what comes after n_max characters. */
void utf8_plain(struct buf *out, struct view v, size_t n_max, bool is_text);
bool utf8_valid(struct view v);
int utf8_put(uint32_t code_point, char out[4]); /* bytes written, 0 for no scalar value */

#endif
