/* books_neon - codebooks by loads of whole groups (included by gemm_neon_body.h)
 *
 * As in books_avx2.h: an entry is kept as the bytes of its levels, and each index costs one load.
 * The entries of four rows fill two registers; taking their even words apart from the odd ones
 * gives groups 2 G and 2 G + 1. Products are signed here, so signs are put into the levels.
 *
 * Rejected: tbl, which takes its table from four registers at most, so that 256 entries of 8 bytes
 * would need 32 look-ups of 64 bytes each. Its speed has not been measured on a board. */
#ifndef HEARTH_BOOKS_NEON_H
#define HEARTH_BOOKS_NEON_H

#include "kern/gemm_book.h"

struct book {
    const uint8_t *entry; /* 8 or 4 bytes each */
    int bits;
};

#define BOOK_TABLE(name, bits, n, levels) static _Alignas(64) uint8_t book_##name[1 << (bits)][n];
BOOKS(BOOK_TABLE)
#define BOOK(name, bits) ((struct book){ book_##name[0], bits })

static void books_fill(void){
#define BOOK_FILL(name, bits, n, levels)                                                           \
    for (int i = 0; i < 1 << (bits); i++) {                                                        \
        book_expand(quant_grid_##name[i], n, levels, book_##name[i]);                              \
    }
    BOOKS(BOOK_FILL)
}

/* Index number `at` of a plane at p, its bits from the eighth on in masks at `high`. */
INLINE size_t index_at(struct book b, const uint8_t *p, const uint8_t *high, int at)
{
    size_t i = p[at];
    UNROLL for (int bit = 8; bit < b.bits; bit++)
    {
        i |= (size_t)(high[8 * (bit - 8) + at / 8] >> at % 8 & 1) << bit;
    }
    return i;
}

/* Entries of 8 bytes of two rows, next to each other in a plane at distance 4. */
INLINE uint32x4_t two_rows(struct book b, const uint8_t *p, const uint8_t *high, int at)
{
    const uint8x8_t x = vld1_u8(b.entry + 8 * index_at(b, p, high, at));
    const uint8x8_t y = vld1_u8(b.entry + 8 * index_at(b, p, high, at + 4));
    return vreinterpretq_u32_u8(vcombine_u8(x, y));
}

/* Four groups of 8 weights of quad q, indices at p. */
INLINE void groups8(struct book b, const uint8_t *p, const uint8_t *high, int q, int8x16_t *w)
{
    UNROLL for (int g = 0; g < 4; g++)
    {
        const uint32x4_t x = two_rows(b, p, high, 16 * q + g);
        const uint32x4_t y = two_rows(b, p, high, 16 * q + 8 + g);
        w[2 * g] = vreinterpretq_s8_u32(vuzp1q_u32(x, y));
        w[2 * g + 1] = vreinterpretq_s8_u32(vuzp2q_u32(x, y));
    }
}

/* Eight groups of 4 weights of quad q, indices in two planes at p; places: see pack_iq.c. */
INLINE void groups4(struct book b, const uint8_t *p, const uint8_t *high, int q, int8x16_t *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        uint32_t four[4];
        UNROLL for (int r = 0; r < 4; r++)
        {
            const int at = 16 * q + 8 * (g / 2 % 2) + 2 * r + g % 2;
            const size_t i = index_at(b, p + 64 * (g / 4), high + 8 * (g / 4), at);
            memcpy(&four[r], b.entry + 4 * i, sizeof four[r]);
        }
        uint32x4_t x = vdupq_n_u32(four[0]);
        x = vsetq_lane_u32(four[1], x, 1);
        x = vsetq_lane_u32(four[2], x, 2);
        w[g] = vreinterpretq_s8_u32(vsetq_lane_u32(four[3], x, 3));
    }
}

/* Signs: mask[g], bit 4 * row + t. */
INLINE void set_signs(const uint64_t mask[8], int q, int8x16_t *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        const int8x16_t minus = vreinterpretq_s8_u8(bits_to_bytes((const uint8_t *)&mask[g], q));
        w[g] = vsubq_s8(veorq_s8(w[g], minus), minus);
    }
}

/* 2 n + 1 of 4-bit numbers, that of row r at bit 4 r. */
INLINE void odds(uint64_t four, float32x4_t *to)
{
    const uint8x16_t x = vcombine_u8(vcreate_u8(four), vdup_n_u8(0));
    const uint8x16_t n = vzip1q_u8(vandq_u8(x, vdupq_n_u8(15)), vshrq_n_u8(x, 4));
    bytes_to_f(vaddq_u8(vaddq_u8(n, n), vdupq_n_u8(1)), to);
}

/* d times a power of two: exact. */
INLINE void scaled(const uint8_t *b, float by, float32x4_t *d)
{
    load_h(b, d);
    UNROLL for (int q = 0; q < QUADS; q++)
    {
        d[q] = vmulq_n_f32(d[q], by);
    }
}

/* d times a power of two and the unit's sub-scale. */
INLINE void scaled_odds(const uint8_t *b, float by, uint64_t four, float32x4_t *d)
{
    float32x4_t sub[QUADS];
    scaled(b, by, d);
    odds(four, sub);
    UNROLL for (int q = 0; q < QUADS; q++)
    {
        d[q] = vmulq_f32(d[q], sub[q]);
    }
}

/* --- scales of each type: block, unit within the block ---------------------------------------- */

INLINE void scales_iq2_xxs(const uint8_t *b, int j, struct unit *u)
{
    uint64_t sign[8];
    scaled_odds(b, 0.125f, signs7(b + 32 + 128 * j, sign), u->d[0]);
}

INLINE void scales_iq2_xs(const uint8_t *b, int j, struct unit *u)
{
    scaled(b, 0.125f, u->d[0]);
    odds(u64_at(b + 32 + 144 * j), u->sub[0]);
    odds(u64_at(b + 40 + 144 * j), u->sub[1]);
}

INLINE void scales_iq2_s(const uint8_t *b, int j, struct unit *u)
{
    scaled(b, 0.125f, u->d[0]);
    odds(u64_at(b + 32 + 160 * j), u->sub[0]);
    odds(u64_at(b + 40 + 160 * j), u->sub[1]);
}

INLINE void scales_iq3_xxs(const uint8_t *b, int j, struct unit *u)
{
    uint64_t sign[8];
    scaled_odds(b, 0.25f, signs7(b + 32 + 192 * j, sign), u->d[0]);
}

INLINE void scales_iq3_s(const uint8_t *b, int j, struct unit *u)
{
    scaled_odds(b, 1.0f, u64_at(b + 32 + 216 * j), u->d[0]);
}

INLINE void scales_iq1_s(const uint8_t *b, int j, struct unit *u)
{
    scaled_odds(b, 0.125f, u64_at(b + 56 + 96 * j) & 7 * EACH_FOUR, u->d[0]);
}

INLINE void scales_iq1_m(const uint8_t *b, int j, struct unit *u)
{
    uint64_t four[2];
    scaled(b, 0.125f, u->d[0]);
    fours_iq1_m(b + 32 + 108 * j, four);
    odds(four[0], u->sub[0]);
    odds(four[1], u->sub[1]);
}

/* --- codes of each type ----------------------------------------------------------------------- */

INLINE void codes_iq2_xxs(const uint8_t *b, int j, int q, int8x16_t *w)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 128 * j;
    signs7(p, sign);
    groups8(BOOK(iq2xxs, 8), p + 64, NULL, q, w);
    set_signs(sign, q, w);
}

INLINE void codes_iq2_xs(const uint8_t *b, int j, int q, int8x16_t *w)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 144 * j;
    const uint64_t high = signs7(p + 16, sign);
    groups8(BOOK(iq2xs, 9), p + 80, (const uint8_t *)&high, q, w);
    set_signs(sign, q, w);
}

INLINE void codes_iq2_s(const uint8_t *b, int j, int q, int8x16_t *w)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 160 * j;
    memcpy(sign, p + 32, sizeof sign);
    groups8(BOOK(iq2s, 10), p + 96, p + 16, q, w);
    set_signs(sign, q, w);
}

INLINE void codes_iq3_xxs(const uint8_t *b, int j, int q, int8x16_t *w)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 192 * j;
    signs7(p, sign);
    groups4(BOOK(iq3xxs, 8), p + 64, p, q, w);
    set_signs(sign, q, w);
}

INLINE void codes_iq3_s(const uint8_t *b, int j, int q, int8x16_t *w)
{
    uint64_t sign[8];
    const uint8_t *p = b + 32 + 216 * j;
    memcpy(sign, p + 24, sizeof sign);
    groups4(BOOK(iq3s, 9), p + 88, p + 8, q, w);
    set_signs(sign, q, w);
}

INLINE void codes_iq1_s(const uint8_t *b, int j, int q, int8x16_t *w)
{
    uint64_t less[8];
    const uint8_t *p = b + 32 + 96 * j;
    deltas((u64_at(p + 24) >> 3 & EACH_FOUR) * 15, less);
    groups8(BOOK(iq1s, 11), p + 32, p, q, w);
    add_bits((const uint8_t *)less, q, (uint8_t)-2, w);
}

INLINE void codes_iq1_m(const uint8_t *b, int j, int q, int8x16_t *w)
{
    uint64_t less[8];
    const uint8_t *p = b + 32 + 108 * j;
    deltas(u64_at(p + 36), less);
    groups8(BOOK(iq1s, 11), p + 44, p + 12, q, w);
    add_bits((const uint8_t *)less, q, (uint8_t)-2, w);
}

#endif
