/* gemm_books - decode steps of the codebook types (included by gemm_body.h)
 *
 * As in gemm_body.h: block, unit within the block, step -> registers. The words are those of
 * gemm_body.h and of books_*.h:
 *   groups8(book, p, high, s, is_signed, w)
 *                       levels of four groups of 8 weights, low bits of their indices at p, masks
 *                       of their other bits at `high`; is_signed: signs will follow
 *   groups4(book, p, high, s, w)        the same of eight groups of 4 weights, with signs
 *   set_signs(mask, s, u)               the signs of levels
 *   r_odds(four, s)                     2 n + 1 of 4-bit numbers n, that of row r at bit 4 r
 * A type with signs has `-max` in its row of the table: the greatest level, signs aside. */
#ifndef HEARTH_GEMM_BOOKS_H
#define HEARTH_GEMM_BOOKS_H

#include "kern/gemm_book.h"

/* d times a power of two (exact), and times the sub-scale of a unit that has one. */
INLINE BOOK_TARGET rows scale_of(const uint8_t *b, float by, uint64_t four, int s)
{
    return r_mul(r_mul(r_halfs(b, s), r_set(by)), r_odds(four, s));
}

INLINE BOOK_TARGET void decode_iq2_xxs(const uint8_t *b, int j, int s, struct unit *u)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 128 * j;
    u->d[0] = scale_of(b, 0.125f, signs7(p, sign), s);
    groups8(BOOK(iq2xxs, 8, LEVELS_IQ2), p + 64, NULL, s, true, u->w);
    set_signs(sign, s, u);
}

INLINE BOOK_TARGET void decode_iq2_xs(const uint8_t *b, int j, int s, struct unit *u)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 144 * j;
    const uint64_t high = signs7(p + 16, sign);
    u->d[0] = r_mul(r_halfs(b, s), r_set(0.125f));
    u->sub[0] = r_odds(u64_at(p), s);
    u->sub[1] = r_odds(u64_at(p + 8), s);
    groups8(BOOK(iq2xs, 9, LEVELS_IQ2), p + 80, (const uint8_t *)&high, s, true, u->w);
    set_signs(sign, s, u);
}

INLINE BOOK_TARGET void decode_iq2_s(const uint8_t *b, int j, int s, struct unit *u)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 160 * j;
    memcpy(sign, p + 32, sizeof sign);
    u->d[0] = r_mul(r_halfs(b, s), r_set(0.125f));
    u->sub[0] = r_odds(u64_at(p), s);
    u->sub[1] = r_odds(u64_at(p + 8), s);
    groups8(BOOK(iq2s, 10, LEVELS_IQ2), p + 96, p + 16, s, true, u->w);
    set_signs(sign, s, u);
}

INLINE BOOK_TARGET void decode_iq3_xxs(const uint8_t *b, int j, int s, struct unit *u)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 192 * j;
    u->d[0] = scale_of(b, 0.25f, signs7(p, sign), s);
    groups4(BOOK(iq3xxs, 8, LEVELS_IQ3_XXS), p + 64, p, s, u->w);
    set_signs(sign, s, u);
}

INLINE BOOK_TARGET void decode_iq3_s(const uint8_t *b, int j, int s, struct unit *u)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 216 * j;
    memcpy(sign, p + 24, sizeof sign);
    u->d[0] = scale_of(b, 1.0f, u64_at(p), s);
    groups4(BOOK(iq3s, 9, LEVELS_IQ3_S), p + 88, p + 8, s, u->w);
    set_signs(sign, s, u);
}

INLINE BOOK_TARGET void decode_iq1_s(const uint8_t *b, int j, int s, struct unit *u)
{
    uint64_t less[8];
    const uint8_t *p = b + 32 + 96 * j;
    const uint64_t four = u64_at(p + 24);
    u->d[0] = scale_of(b, 0.125f, four & 7 * EACH_FOUR, s);
    deltas((four >> 3 & EACH_FOUR) * 15, less);
    groups8(BOOK(iq1s, 11, LEVELS_IQ1), p + 32, p, s, false, u->w);
    add_bits((const uint8_t *)less, s, u->w, -2);
}

INLINE BOOK_TARGET void decode_iq1_m(const uint8_t *b, int j, int s, struct unit *u)
{
    uint64_t less[8];
    uint64_t four[2];
    const uint8_t *p = b + 32 + 108 * j;
    fours_iq1_m(p, four);
    u->d[0] = r_mul(r_halfs(b, s), r_set(0.125f));
    u->sub[0] = r_odds(four[0], s);
    u->sub[1] = r_odds(four[1], s);
    deltas(u64_at(p + 36), less);
    groups8(BOOK(iq1s, 11, LEVELS_IQ1), p + 44, p + 12, s, false, u->w);
    add_bits((const uint8_t *)less, s, u->w, -2);
}

#endif
