/* gemm_books - decode steps of the codebook types (included by gemm_body.h)
 *
 * As in gemm_body.h: block, unit within the block, step -> registers. The words are those of
 * gemm_body.h and of books_*.h:
 *   signs7(p, s)  signs8(p, s)          a plane of signs; signs7: the eighth is the others' parity
 *   deltas(mask, s)                     the same from one bit of each group of 8: IQ1's deltas
 *   groups8(book, p, high, signs, s, u) weights of four groups of 8, low bits of their indices at
 *                                       p, their other bits at `high`
 *   groups4(book, p, high, signs, s, u) the same of eight groups of 4
 *   r_odds(four, s)                     2 n + 1 of 4-bit numbers n, that of row r at bit 4 r
 *   r_free4(p, s)                       4 times that, of those in the free bits of a plane of signs
 *   book_sort(is_halved, q)             a unit's activations to the order of these columns
 * A type with signs has `-max` in its row of the table: the greatest level, signs aside. */
#ifndef HEARTH_GEMM_BOOKS_H
#define HEARTH_GEMM_BOOKS_H

#include "kern/gemm_book.h"

/* d times a power of two: exact. */
INLINE rows scaled(const uint8_t *b, float by, int s)
{
    return r_mul(r_halfs(b, s), r_set(by));
}

INLINE BOOK_TARGET void decode_iq2_xxs(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 128 * j;
    u->d[0] = r_mul(scaled(b, 0.03125f, s), r_free4(p, s));
    groups8(BOOK(iq2xxs, 0), p + 64, NULL, signs7(p, s), s, u);
}

INLINE BOOK_TARGET void decode_iq2_xs(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 144 * j;
    u->d[0] = scaled(b, 0.125f, s);
    u->sub[0] = r_odds(u64_at(p), s);
    u->sub[1] = r_odds(u64_at(p + 8), s);
    groups8(BOOK(iq2xs, BOOK_HALVED | BOOK_FREE), p + 80, p + 16, signs7(p + 16, s), s, u);
}

INLINE BOOK_TARGET void decode_iq2_s(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 160 * j;
    u->d[0] = scaled(b, 0.125f, s);
    u->sub[0] = r_odds(u64_at(p), s);
    u->sub[1] = r_odds(u64_at(p + 8), s);
    groups8(BOOK(iq2s, BOOK_HALVED), p + 96, p + 16, signs8(p + 32, s), s, u);
}

INLINE BOOK_TARGET void decode_iq3_xxs(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 192 * j;
    u->d[0] = r_mul(scaled(b, 0.0625f, s), r_free4(p, s));
    groups4(BOOK(iq3xxs, 0), p + 64, p, signs7(p, s), s, u);
}

INLINE BOOK_TARGET void decode_iq3_s(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 216 * j;
    u->d[0] = r_mul(r_halfs(b, s), r_odds(u64_at(p), s));
    groups4(BOOK(iq3s, 0), p + 88, p + 8, signs8(p + 24, s), s, u);
}

INLINE BOOK_TARGET void decode_iq1_s(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 96 * j;
    const uint64_t four = u64_at(p + 24);
    u->d[0] = r_mul(scaled(b, 0.125f, s), r_odds(four & 7 * EACH_FOUR, s));
    groups8(BOOK(iq1s, 0), p + 32, p, deltas((four >> 3 & EACH_FOUR) * 15, s), s, u);
}

INLINE BOOK_TARGET void decode_iq1_m(const uint8_t *b, int j, int s, struct unit *u)
{
    uint64_t four[2];
    const uint8_t *p = b + 32 + 108 * j;
    fours_iq1_m(p, four);
    u->d[0] = scaled(b, 0.125f, s);
    u->sub[0] = r_odds(four[0], s);
    u->sub[1] = r_odds(four[1], s);
    groups8(BOOK(iq1s, BOOK_HALVED), p + 44, p + 12, deltas(u64_at(p + 36), s), s, u);
}

#endif
