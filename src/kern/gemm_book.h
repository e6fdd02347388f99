/* gemm_book - what the products of codebook types share (header only, private to kern/)
 *
 * pack_iq.c draws the panels. An index picks a group of 8 or 4 weights from a codebook of
 * num/quant_grid.c, whose entries hold a code of 2 or 3 bits for each weight. What a code stands
 * for are eight bytes here, indexed by three bits; types with codes of 2 bits have them twice.
 * IQ1's weight is 8 c - 8 +- 1 for a code c: the levels hold 8 c + 9, which is the greater one with
 * an offset of 16, and 2 comes off where a delta is negative.
 *
 * The including file (a set's words) keeps each codebook in the form that its look-up wants, filled
 * once with the table of kernels. Next: books_avx2.h. */
#ifndef HEARTH_GEMM_BOOK_H
#define HEARTH_GEMM_BOOK_H

#include "kern/lanes.h"
#include "num/quant_grid.h"

#include <string.h>

#define LEVELS_IQ1     0x2119110921191109u /* 9 17 25 */
#define LEVELS_IQ2     0x002B1908002B1908u /* 8 25 43 */
#define LEVELS_IQ3_XXS 0x3E342C241C140C04u /* 4 12 20 28 36 44 52 62 */
#define LEVELS_IQ3_S   0x0F0D0B0907050301u /* 1 3 5 ... 15 */

/* X(codebook, bits of an index, weights of a group, levels) */
#define BOOKS(X)                                                                                   \
    X(iq1s, 11, 8, LEVELS_IQ1)                                                                     \
    X(iq2xxs, 8, 8, LEVELS_IQ2)                                                                    \
    X(iq2xs, 9, 8, LEVELS_IQ2)                                                                     \
    X(iq2s, 10, 8, LEVELS_IQ2)                                                                     \
    X(iq3xxs, 8, 4, LEVELS_IQ3_XXS)                                                                \
    X(iq3s, 9, 4, LEVELS_IQ3_S)

#define EACH_FOUR 0x1111111111111111u

/* How a type uses a codebook. */
enum {
    BOOK_HALVED = 1, /* its halves of 16 columns have sub-scales of their own */
    BOOK_FREE = 2    /* bit 8 of an index is the free one of a byte of signs; `high` points there */
};

INLINE uint64_t u64_at(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* The bytes of an entry's levels, for sets that load whole groups of n weights. */
static void __attribute__((unused)) book_expand(uint16_t codes, int n, uint64_t levels, uint8_t *to)
{
    for (int k = 0; k < n; k++) {
        to[k] = (uint8_t)(levels >> 8 * (codes >> (n == 8 ? 2 : 3) * k & (n == 8 ? 3 : 7)));
    }
}

/* Two bits of each row to bits 4 r, 4 r + 1. */
INLINE uint64_t spread_twos(const uint8_t *p)
{
    uint32_t twos;
    memcpy(&twos, p, sizeof twos);
    uint64_t x = twos;
    x = (x | x << 16) & 0x0000FFFF0000FFFFu;
    x = (x | x << 8) & 0x00FF00FF00FF00FFu;
    x = (x | x << 4) & 0x0F0F0F0F0F0F0F0Fu;
    return (x | x << 2) & 3 * EACH_FOUR;
}

/* The two sub-scales of IQ1_M, see pack_iq.c. */
INLINE void fours_iq1_m(const uint8_t *p, uint64_t four[2])
{
    const uint64_t x = u64_at(p);
    four[0] = x & 7 * EACH_FOUR;
    four[1] = (x >> 3 & EACH_FOUR) | spread_twos(p + 8) << 1;
}

/* Places of trits of TQ1_0 (quant_iq.c): group g of unit j has digits of power 3^n in plane p. */
static const uint8_t trit_plane[8][8] = {
    { 0, 1, 2, 3, 4, 5, 6, 7 },     { 0, 1, 2, 3, 4, 5, 6, 7 },
    { 0, 1, 2, 3, 4, 5, 6, 7 },     { 0, 1, 2, 3, 4, 5, 6, 7 },
    { 0, 1, 2, 3, 4, 5, 6, 7 },     { 8, 9, 10, 11, 8, 9, 10, 11 },
    { 8, 9, 10, 11, 8, 9, 10, 11 }, { 8, 9, 10, 11, 12, 12, 12, 12 },
};
static const uint8_t trit_power[8][8] = {
    { 1, 1, 1, 1, 1, 1, 1, 1 },         { 3, 3, 3, 3, 3, 3, 3, 3 },
    { 9, 9, 9, 9, 9, 9, 9, 9 },         { 27, 27, 27, 27, 27, 27, 27, 27 },
    { 81, 81, 81, 81, 81, 81, 81, 81 }, { 1, 1, 1, 1, 3, 3, 3, 3 },
    { 9, 9, 9, 9, 27, 27, 27, 27 },     { 81, 81, 81, 81, 1, 3, 9, 27 },
};

#endif
