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
    int how;
};

#define BOOK_TABLE(name, bits, n, levels) static _Alignas(64) uint8_t book_##name[1 << (bits)][n];
BOOKS(BOOK_TABLE)
#define BOOK_BITS(name, bits, n, levels) BITS_##name = (bits),
enum { BOOKS(BOOK_BITS) };
#define BOOK(name, how) ((struct book){ book_##name[0], BITS_##name, how })

static void books_fill(void){
#define BOOK_FILL(name, bits, n, levels)                                                           \
    for (int i = 0; i < 1 << (bits); i++) {                                                        \
        book_expand(quant_grid_##name[i], n, levels, book_##name[i]);                              \
    }
    BOOKS(BOOK_FILL)
}

/* Index number `at` of a plane at p, its bits from the eighth on at `high`. */
INLINE size_t index_at(struct book b, const uint8_t *p, const uint8_t *high, int at)
{
    size_t i = p[at];
    if (b.how & BOOK_FREE) {
        return i | (size_t)(high[at] & 8) << 5;
    }
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

/* Eight groups of 4 weights of quad q, indices in two planes at p: of even and of odd groups. */
INLINE void groups4(struct book b, const uint8_t *p, const uint8_t *high, int q, int8x16_t *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        uint32_t four[4];
        UNROLL for (int r = 0; r < 4; r++)
        {
            const int at = 16 * q + 4 * r + g / 2;
            const size_t i = index_at(b, p + 64 * (g % 2), high + 8 * (g % 2), at);
            memcpy(&four[r], b.entry + 4 * i, sizeof four[r]);
        }
        uint32x4_t x = vdupq_n_u32(four[0]);
        x = vsetq_lane_u32(four[1], x, 1);
        x = vsetq_lane_u32(four[2], x, 2);
        w[g] = vreinterpretq_s8_u32(vsetq_lane_u32(four[3], x, 3));
    }
}

/* Signs of quad q: byte 4 * row + G, a one for a minus; bits in the order of pack_iq.c. */
INLINE uint8x16_t signs8(const uint8_t *p, int q)
{
    return vld1q_u8(p + 16 * q);
}

/* The eighth is the parity of the others. */
INLINE uint8x16_t signs7(const uint8_t *p, int q)
{
    const uint8x16_t x = vbicq_u8(vld1q_u8(p + 16 * q), vdupq_n_u8(8));
    return vorrq_u8(x, vshlq_n_u8(vandq_u8(vcntq_u8(x), vdupq_n_u8(1)), 3));
}

/* The bytes of weights of group g whose signs are set. */
INLINE int8x16_t minus_of(uint8x16_t signs, int g)
{
    static const uint8_t rows4[16] = { 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12 };
    const uint8x16_t at = vaddq_u8(vld1q_u8(rows4), vdupq_n_u8((uint8_t)(g / 2)));
    const uint32x4_t bit = vdupq_n_u32(g % 2 == 0 ? 0x02012010 : 0x08048040);
    return vreinterpretq_s8_u8(vtstq_u8(vqtbl1q_u8(signs, at), vreinterpretq_u8_u32(bit)));
}

INLINE void set_signs(uint8x16_t signs, int8x16_t *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        const int8x16_t minus = minus_of(signs, g);
        w[g] = vsubq_s8(veorq_s8(w[g], minus), minus);
    }
}

/* IQ1: 2 less where a bit of a group of 8 is set, that of group G of row r at 4 r + G. */
INLINE void add_deltas(uint64_t mask, int q, int8x16_t *w)
{
    uint16_t bits[QUADS];
    memcpy(bits, &mask, sizeof bits);
    const uint8x16_t signs = bits_to_bytes((const uint8_t *)bits, q);
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = vaddq_s8(w[g], vandq_s8(minus_of(signs, g), vdupq_n_s8(-2)));
    }
}

/* 2 n + 1 of 4-bit numbers, that of row r at bit 4 r. */
INLINE void odds(uint64_t four, float32x4_t *to)
{
    const uint8x16_t x = vcombine_u8(vcreate_u8(four), vdup_n_u8(0));
    const uint8x16_t n = vzip1q_u8(vandq_u8(x, vdupq_n_u8(15)), vshrq_n_u8(x, 4));
    bytes_to_f(vaddq_u8(vaddq_u8(n, n), vdupq_n_u8(1)), to);
}

/* The same of the free bits of a plane of signs. */
INLINE void free_odds(const uint8_t *p, float32x4_t *to)
{
    const int8x16_t by = vreinterpretq_s8_u32(vdupq_n_u32(0x00FFFEFD)); /* -3, -2, -1, 0 */
    uint8x16_t x[4];
    UNROLL for (int q = 0; q < 4; q++)
    {
        x[q] = vshlq_u8(vandq_u8(vld1q_u8(p + 16 * q), vdupq_n_u8(8)), by);
    }
    const uint8x16_t n = vpaddq_u8(vpaddq_u8(x[0], x[1]), vpaddq_u8(x[2], x[3]));
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
INLINE void scaled_by(const uint8_t *b, float by, const float32x4_t *sub, float32x4_t *d)
{
    scaled(b, by, d);
    UNROLL for (int q = 0; q < QUADS; q++)
    {
        d[q] = vmulq_f32(d[q], sub[q]);
    }
}

/* --- scales of each type: block, unit within the block ---------------------------------------- */

INLINE void scales_iq2_xxs(const uint8_t *b, int j, struct unit *u)
{
    float32x4_t sub[QUADS];
    free_odds(b + 32 + 128 * j, sub);
    scaled_by(b, 0.125f, sub, u->d[0]);
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
    float32x4_t sub[QUADS];
    free_odds(b + 32 + 192 * j, sub);
    scaled_by(b, 0.25f, sub, u->d[0]);
}

INLINE void scales_iq3_s(const uint8_t *b, int j, struct unit *u)
{
    float32x4_t sub[QUADS];
    odds(u64_at(b + 32 + 216 * j), sub);
    scaled_by(b, 1.0f, sub, u->d[0]);
}

INLINE void scales_iq1_s(const uint8_t *b, int j, struct unit *u)
{
    float32x4_t sub[QUADS];
    odds(u64_at(b + 56 + 96 * j) & 7 * EACH_FOUR, sub);
    scaled_by(b, 0.125f, sub, u->d[0]);
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
    const uint8_t *p = b + 32 + 128 * j;
    groups8(BOOK(iq2xxs, 0), p + 64, NULL, q, w);
    set_signs(signs7(p, q), w);
}

INLINE void codes_iq2_xs(const uint8_t *b, int j, int q, int8x16_t *w)
{
    const uint8_t *p = b + 32 + 144 * j;
    groups8(BOOK(iq2xs, BOOK_FREE), p + 80, p + 16, q, w);
    set_signs(signs7(p + 16, q), w);
}

INLINE void codes_iq2_s(const uint8_t *b, int j, int q, int8x16_t *w)
{
    const uint8_t *p = b + 32 + 160 * j;
    groups8(BOOK(iq2s, 0), p + 96, p + 16, q, w);
    set_signs(signs8(p + 32, q), w);
}

INLINE void codes_iq3_xxs(const uint8_t *b, int j, int q, int8x16_t *w)
{
    const uint8_t *p = b + 32 + 192 * j;
    groups4(BOOK(iq3xxs, 0), p + 64, p, q, w);
    set_signs(signs7(p, q), w);
}

INLINE void codes_iq3_s(const uint8_t *b, int j, int q, int8x16_t *w)
{
    const uint8_t *p = b + 32 + 216 * j;
    groups4(BOOK(iq3s, 0), p + 88, p + 8, q, w);
    set_signs(signs8(p + 24, q), w);
}

INLINE void codes_iq1_s(const uint8_t *b, int j, int q, int8x16_t *w)
{
    const uint8_t *p = b + 32 + 96 * j;
    groups8(BOOK(iq1s, 0), p + 32, p, q, w);
    add_deltas((u64_at(p + 24) >> 3 & EACH_FOUR) * 15, q, w);
}

INLINE void codes_iq1_m(const uint8_t *b, int j, int q, int8x16_t *w)
{
    const uint8_t *p = b + 32 + 108 * j;
    groups8(BOOK(iq1s, 0), p + 44, p + 12, q, w);
    add_deltas(u64_at(p + 36), q, w);
}

#endif
