/* jinja_str - text values of templates: UTF-8 with the origin of every byte (model/jinja_str.c)
 *
 * Positions and lengths that templates see count characters (code points), as in Python; functions
 * here say `char` for those and `byte` or nothing for bytes.
 * JS-1  the bytes are well-formed UTF-8.
 * JS-2  n_char is the number of code points of p[0..n).
 * JS-3  a text never changes once made; parts share the bytes of the whole.
 * JS-4  mark[i] is 1 when byte i was written by the template, 0 when it came from data: CH-2 of
 * chat.h holds by it. */
#ifndef HEARTH_JINJA_STR_H
#define HEARTH_JINJA_STR_H

#include "base/buf.h"
#include "base/err.h"
#include "model/jinja_mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jstr {
    const char *p;
    const uint8_t *mark; /* n marks, or NULL: all bytes are as is_trusted says */
    size_t n;
    size_t n_char;
    bool is_trusted;
    bool is_markup; /* result of the filters safe and escape; see jinja_num.c, "+" */
};

/* A text over bytes that live as long as m (JS-1 is the caller's promise). NULL: m->err. */
const struct jstr *jstr_over(struct jmem *m, struct view bytes, bool is_trusted);
/* A text of a copy of the bytes. NULL: m->err. */
const struct jstr *jstr_copy(struct jmem *m, struct view bytes, bool is_trusted);
/* The bytes [at, at + n) of s, which must fall on characters; keeps is_markup. NULL: m->err. */
const struct jstr *jstr_part(struct jmem *m, const struct jstr *s, size_t at, size_t n);
/* s as a plain or as a markup text; s itself when nothing changes. NULL: m->err. */
const struct jstr *jstr_as(struct jmem *m, const struct jstr *s, bool is_markup);

struct view jstr_view(const struct jstr *s); /* borrows */
bool jstr_is(const struct jstr *s, const char *zero_terminated);
bool jstr_eq(const struct jstr *a, const struct jstr *b);
/* Below, equal or above zero; the order of bytes is the order of code points. */
int jstr_cmp(const struct jstr *a, const struct jstr *b);
bool jstr_trust_at(const struct jstr *s, size_t at);
/* Byte where character i starts; n when i >= n_char. */
size_t jstr_byte_of(const struct jstr *s, size_t i_char);
/* Characters in the first `at` bytes. */
size_t jstr_char_of(const struct jstr *s, size_t at);
/* The character at byte `at` (at < n) and its length in bytes. */
uint32_t jstr_read(const struct jstr *s, size_t at, size_t *n_bytes);
/* Byte where the character before byte `at` (0 < at <= n) starts. */
size_t jstr_before(const struct jstr *s, size_t at);

/* First or last occurrence within bytes [from, to) of s; *at = SIZE_MAX when there is none. */
enum err jstr_find(struct jmem *m, const struct jstr *s, const struct jstr *what, size_t from,
                   size_t to, size_t *at) MUST_USE;
enum err jstr_rfind(struct jmem *m, const struct jstr *s, const struct jstr *what, size_t from,
                    size_t to, size_t *at) MUST_USE;

/* White space as str.isspace() and \s of Python have it; ends of lines as str.splitlines(). */
bool jstr_is_space(uint32_t code_point);
bool jstr_is_line_end(uint32_t code_point);

enum jstr_side { JSTR_LEFT = 1, JSTR_RIGHT = 2, JSTR_BOTH = 3 };
/* Without the characters of `chars` (NULL: white space) at the named sides. NULL: m->err. */
const struct jstr *jstr_strip(struct jmem *m, const struct jstr *s, const struct jstr *chars,
                              enum jstr_side side);
/* Up to n_max (SIZE_MAX: all) occurrences replaced. NULL: m->err. */
const struct jstr *jstr_replace(struct jmem *m, const struct jstr *s, const struct jstr *old,
                                const struct jstr *by, size_t n_max);
/* & < > ' " as HTML wants them; the result is markup. NULL: m->err. */
const struct jstr *jstr_escape(struct jmem *m, const struct jstr *s);

/* --- building --------------------------------------------------------------------------------- */

/* A text that grows in the arena. After the first addition that failed the rest do nothing and
 * jstr_end gives NULL, so that a sequence of calls needs one check at its end. */
struct jstr_out {
    struct jmem *m;
    char *p;
    uint8_t *mark; /* NULL while all bytes so far have the same mark */
    size_t n;
    size_t cap;
    bool is_trusted; /* the mark of all bytes while mark is NULL */
    bool is_failed;
};

void jstr_begin(struct jstr_out *o, struct jmem *m);     /* empty */
void jstr_add(struct jstr_out *o, const struct jstr *s); /* NULL: the maker failed, so does o */
void jstr_add_part(struct jstr_out *o, const struct jstr *s, size_t at, size_t n);
void jstr_add_view(struct jstr_out *o, struct view bytes, bool is_trusted);
void jstr_add_str(struct jstr_out *o, const char *zero_terminated, bool is_trusted);
void jstr_add_code(struct jstr_out *o, uint32_t code_point, bool is_trusted);
void jstr_add_repeat(struct jstr_out *o, const struct jstr *s, size_t n_times);
const struct jstr *jstr_end(struct jstr_out *o, bool is_markup); /* NULL: m->err */

#endif
