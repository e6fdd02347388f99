/* gemm_neon_body - products with packed weights: NEON (included by kern/gemm_neon*.c)
 *
 * One lane is one output row; a panel's 16 rows are four quads of rows, one register each. For each
 * unit of 32 columns the scales of all rows are widened once; then, quad by quad, a decode step
 * turns the packed bits into eight registers of codes (group g: 4 columns of 4 rows), which serve
 * all tokens of the tile.
 *
 * The including file brings `sums`, the only step that differs between processors:
 *     s[t] += codes of groups [g0, g1) * activations of token t, t below n
 * with what it must know about the size of codes to keep 16-bit sums from overflowing (kind.run).
 * Each s[t] starts with one number in all lanes. PEAK_STEP is the instruction that multiplies and
 * PEAK_MACS the multiply-adds of one. The file may define TOGETHER, the tokens that share a decode
 * step, and GROUP, the columns of a group of its activations (gemm_act.h).
 *
 * Codes are signed bytes. Where the file's codes are unsigned (Q4_0, Q5_0, Q3_K, Q6_K) they are
 * used as they are with few tokens: what is to come off, offset * sum of the activations, is where
 * the integer sums start. With many it comes off the codes, once for all. All numbers are integers
 * below 2^24, and the bits equal those of gemm_ref.c.
 *
 * The decode steps of codebook types stand in books_neon.h.
 *
 * Define LANES_NEON and include lanes.h, gemm.h and gemm_act.h before this file. */
#ifndef HEARTH_GEMM_NEON_BODY_H
#define HEARTH_GEMM_NEON_BODY_H

#include "kern/lanes.h"

#define QUADS           4 /* of a panel's rows */
#define QUAD            (LANES / QUADS)
#define SUMS            16 /* registers of integer sums */
#define FLOATS_TOGETHER 8  /* tokens that share a float weight */
#ifndef TOGETHER
#define TOGETHER 8
#endif
#ifndef GROUP
#define GROUP 4
#endif
static_assert(GROUP == 4 || TOGETHER == TILE_MAX, "tile_at counts in groups of 4");

#include "kern/gemm_panel.h"

/* Scales of a unit of 16 rows. */
struct unit {
    float32x4_t d[2][QUADS];   /* of the halves (equal but for NVFP4; only [0] is set otherwise) */
    float32x4_t sub[2][QUADS]; /* integer sub-scales */
    float32x4_t min[2][QUADS]; /* integer minima */
    float32x4_t dmin[QUADS];
    float32x4_t m[QUADS];
};

/* What is constant for a type. */
struct kind {
    enum form form;
    float offset; /* of the codes above the values they stand for */
    int run;      /* groups whose products, one column each, stay below 2^15 in sum */
    int units;    /* per block */
    size_t block; /* bytes */
};

typedef void (*scales_fn)(const uint8_t *block, int j, struct unit *u);
typedef void (*codes_fn)(const uint8_t *block, int j, int q, int8x16_t *w); /* w[8] of quad q */

/* --- pieces of decode steps ------------------------------------------------------------------- */

INLINE void quads(lanes x, float32x4_t *to)
{
    to[0] = x.a;
    to[1] = x.b;
    to[2] = x.c;
    to[3] = x.d;
}

INLINE void load_h(const uint8_t *p, float32x4_t *to)
{
    quads(l_load_f16((const uint16_t *)(const void *)p), to);
}

INLINE void bytes_to_f(uint8x16_t b, float32x4_t *to)
{
    const uint16x8_t low = vmovl_u8(vget_low_u8(b));
    const uint16x8_t high = vmovl_high_u8(b);
    to[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(low)));
    to[1] = vcvtq_f32_u32(vmovl_high_u16(low));
    to[2] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(high)));
    to[3] = vcvtq_f32_u32(vmovl_high_u16(high));
}

/* Quad q of a plane of low nibbles at p. */
INLINE void nibbles(const uint8_t *p, int q, int8x16_t *w)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        const uint8x16_t v = vld1q_u8(p + 64 * i + 16 * q);
        w[2 * i] = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
        w[2 * i + 1] = vreinterpretq_s8_u8(vshrq_n_u8(v, 4));
    }
}

/* Quad q of a plane of two bits, moved up by `up` and joined with what w holds. */
INLINE void add_twos(const uint8_t *p, int q, int up, int8x16_t *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        const uint8x16_t v = vld1q_u8(p + g / 4 * 64 + 16 * q);
        const uint8x16_t two = vandq_u8(vshlq_u8(v, vdupq_n_s8((int8_t)(up - 2 * (g % 4)))),
                                        vdupq_n_u8((uint8_t)(3 << up)));
        w[g] = vorrq_s8(w[g], vreinterpretq_s8_u8(two));
    }
}

/* Quad q of a mask, as bytes of 0 or 255. */
INLINE uint8x16_t bits_to_bytes(const uint8_t *mask, int q)
{
    static const uint8_t spread[16] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1 };
    static const uint8_t place[16] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    const uint16_t *m = (const uint16_t *)(const void *)(mask + 2 * q);
    const uint8x16_t two = vreinterpretq_u8_u16(vld1q_dup_u16(m));
    return vtstq_u8(vqtbl1q_u8(two, vld1q_u8(spread)), vld1q_u8(place));
}

/* Adds `value` where a plane of single bits has a one. */
INLINE void add_bits(const uint8_t *masks, int q, uint8_t value, int8x16_t *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        const uint8x16_t add = vandq_u8(bits_to_bytes(masks + 8 * g, q), vdupq_n_u8(value));
        w[g] = vaddq_s8(w[g], vreinterpretq_s8_u8(add));
    }
}

/* Quad q of bytes of trits, see quant_iq.c: (x * power % 256) * 3 / 256. */
INLINE int8x16_t trits(const uint8_t *p, int power, int q)
{
    const uint8x16_t x = vmulq_u8(vld1q_u8(p + 16 * q), vdupq_n_u8((uint8_t)power));
    const uint8x8_t low = vshrn_n_u16(vmull_u8(vget_low_u8(x), vdup_n_u8(3)), 8);
    return vreinterpretq_s8_u8(vshrn_high_n_u16(low, vmull_high_u8(x, vdupq_n_u8(3)), 8));
}

/* tbl takes its 16 bytes from one register: a table of levels fits. */
INLINE void look_up(const int8_t table[16], int8x16_t *w)
{
    const int8x16_t t = vld1q_s8(table);
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = vqtbl1q_s8(t, vreinterpretq_u8_s8(w[g]));
    }
}

/* 16 6-bit numbers: their low nibbles, two in each of the lower 8 bytes, and two high bits, four in
 * each of the lower 4 bytes. */
INLINE uint8x16_t sixes(uint8x16_t low, uint8x16_t rests)
{
    static const uint8_t from[16] = { 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3 };
    static const int8_t down[16] = { 4, 2, 0, -2, 4, 2, 0, -2, 4, 2, 0, -2, 4, 2, 0, -2 };
    const uint8x16_t all = vzip1q_u8(vandq_u8(low, vdupq_n_u8(15)), vshrq_n_u8(low, 4));
    const uint8x16_t high = vshlq_u8(vqtbl1q_u8(rests, vld1q_u8(from)), vld1q_s8(down));
    return vorrq_u8(all, vandq_u8(high, vdupq_n_u8(48)));
}

/* 32 6-bit numbers in 24 bytes: the first and the second 16. */
INLINE void sixes2(const uint8_t *p, float32x4_t *first, float32x4_t *second)
{
    const uint8x16_t low = vld1q_u8(p);
    const uint8x16_t rests = vcombine_u8(vld1_u8(p + 16), vdup_n_u8(0));
    bytes_to_f(sixes(low, rests), first);
    bytes_to_f(sixes(vextq_u8(low, low, 8), vextq_u8(rests, rests, 4)), second);
}

INLINE void less_32(float32x4_t *x)
{
    UNROLL for (int q = 0; q < QUADS; q++)
    {
        x[q] = vsubq_f32(x[q], vdupq_n_f32(32.0f));
    }
}

#include "kern/books_neon.h"

/* --- scales of each type: block, unit within the block ---------------------------------------- */

/* Offsets count bytes of 16 rows in the order of pack.c's table, see gemm_body.h. */

INLINE void scales_d(const uint8_t *b, int j, struct unit *u)
{
    (void)j;
    load_h(b, u->d[0]);
}

INLINE void scales_d_m(const uint8_t *b, int j, struct unit *u)
{
    (void)j;
    load_h(b, u->d[0]);
    load_h(b + 32, u->m);
}

INLINE void scales_e(const uint8_t *b, int j, struct unit *u) /* 2^(e - 128), see quant_iq.c */
{
    (void)j;
    UNROLL for (int q = 0; q < QUADS; q++)
    {
        uint32_t four;
        memcpy(&four, b + 4 * q, sizeof four);
        const uint16x8_t two = vmovl_u8(vcreate_u8(four));
        const uint32x4_t e = vmovl_u16(vget_low_u16(two));
        const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
        const uint32x4_t small = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
        u->d[0][q] = vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), small, normal));
    }
}

/* Halves of unsigned E4M3 numbers: as half precision the same bits have another bias. */
INLINE void e4m3(const uint8_t *p, float32x4_t *to)
{
    uint16_t half[LANES];
    const uint8x16_t b = vld1q_u8(p);
    const uint8x16_t is_nan = vceqq_u8(b, vdupq_n_u8(0x7F));
    const uint8x16_t x = vbicq_u8(vandq_u8(b, vdupq_n_u8(0x7F)), is_nan);
    vst1q_u16(half, vshll_n_u8(vget_low_u8(x), 7));
    vst1q_u16(half + 8, vshll_high_n_u8(x, 7));
    scaled((const uint8_t *)half, 0x1p7f, to);
}

INLINE void scales_nvfp4(const uint8_t *b, int j, struct unit *u)
{
    e4m3(b + 288 * j, u->d[0]);
    e4m3(b + 288 * j + 16, u->d[1]);
}

INLINE void scales_q2_k(const uint8_t *b, int j, struct unit *u)
{
    load_h(b, u->d[0]);
    load_h(b + 32, u->dmin);
    UNROLL for (int h = 0; h < 2; h++)
    {
        const uint8x16_t s = vld1q_u8(b + 64 + 160 * j + 16 * h);
        bytes_to_f(vandq_u8(s, vdupq_n_u8(15)), u->sub[h]);
        bytes_to_f(vshrq_n_u8(s, 4), u->min[h]);
    }
}

INLINE void scales_q3_k(const uint8_t *b, int j, struct unit *u)
{
    load_h(b, u->d[0]);
    sixes2(b + 32 + 216 * j, u->sub[0], u->sub[1]);
    less_32(u->sub[0]);
    less_32(u->sub[1]);
}

/* A unit's one sub-scale and minimum go into its scale and its constant. */
INLINE void scales_sixes(const uint8_t *b, const uint8_t *p, struct unit *u)
{
    float32x4_t sub[QUADS];
    float32x4_t min[QUADS];
    load_h(b, u->d[0]);
    load_h(b + 32, u->m);
    sixes2(p, sub, min);
    UNROLL for (int q = 0; q < QUADS; q++)
    {
        u->d[0][q] = vmulq_f32(u->d[0][q], sub[q]);
        u->m[q] = vmulq_f32(u->m[q], vnegq_f32(min[q]));
    }
}

INLINE void scales_q4_k(const uint8_t *b, int j, struct unit *u)
{
    scales_sixes(b, b + 64 + 280 * j, u);
}

INLINE void scales_q5_k(const uint8_t *b, int j, struct unit *u)
{
    scales_sixes(b, b + 64 + 344 * j, u);
}

INLINE void scales_q6_k(const uint8_t *b, int j, struct unit *u)
{
    load_h(b, u->d[0]);
    UNROLL for (int h = 0; h < 2; h++)
    {
        quads(l_load_i8((const int8_t *)(b + 32 + 416 * j + 16 * h)), u->sub[h]);
    }
}

INLINE void scales_iq4_xs(const uint8_t *b, int j, struct unit *u)
{
    const uint8_t *p = b + 32 + 268 * j;
    float32x4_t sub[QUADS];
    uint32_t rests;
    memcpy(&rests, p + 8, sizeof rests);
    load_h(b, u->d[0]);
    bytes_to_f(
        sixes(vcombine_u8(vld1_u8(p), vdup_n_u8(0)), vreinterpretq_u8_u32(vdupq_n_u32(rests))),
        sub);
    less_32(sub);
    UNROLL for (int q = 0; q < QUADS; q++)
    {
        u->d[0][q] = vmulq_f32(u->d[0][q], sub[q]);
    }
}

/* --- codes of each type ----------------------------------------------------------------------- */

INLINE void codes_q4_0(const uint8_t *b, int j, int q, int8x16_t *w)
{
    (void)j;
    nibbles(b + 32, q, w);
}

INLINE void codes_q4_1(const uint8_t *b, int j, int q, int8x16_t *w)
{
    (void)j;
    nibbles(b + 64, q, w);
}

INLINE void codes_q5_0(const uint8_t *b, int j, int q, int8x16_t *w)
{
    (void)j;
    nibbles(b + 96, q, w);
    add_bits(b + 32, q, 16, w);
}

INLINE void codes_q5_1(const uint8_t *b, int j, int q, int8x16_t *w)
{
    (void)j;
    nibbles(b + 128, q, w);
    add_bits(b + 64, q, 16, w);
}

INLINE void codes_q8_0(const uint8_t *b, int j, int q, int8x16_t *w) /* stored as value + 128 */
{
    (void)j;
    UNROLL for (int g = 0; g < 8; g++)
    {
        const uint8x16_t v = vld1q_u8(b + 32 + 64 * g + 16 * q);
        w[g] = vreinterpretq_s8_u8(veorq_u8(v, vdupq_n_u8(128)));
    }
}

INLINE void codes_iq4_nl(const uint8_t *b, int j, int q, int8x16_t *w)
{
    codes_q4_0(b, j, q, w);
    look_up(quant_levels_iq4, w);
}

INLINE void codes_mxfp4(const uint8_t *b, int j, int q, int8x16_t *w)
{
    (void)j;
    nibbles(b + 16, q, w);
    look_up(quant_levels_e2m1, w);
}

INLINE void codes_zero(int8x16_t *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = vdupq_n_s8(0);
    }
}

INLINE void codes_q2_k(const uint8_t *b, int j, int q, int8x16_t *w)
{
    codes_zero(w);
    add_twos(b + 64 + 160 * j + 32, q, 0, w);
}

INLINE void codes_q3_k(const uint8_t *b, int j, int q, int8x16_t *w)
{
    const uint8_t *p = b + 32 + 216 * j;
    codes_zero(w);
    add_twos(p + 88, q, 0, w);
    add_bits(p + 24, q, 4, w);
}

INLINE void codes_q4_k(const uint8_t *b, int j, int q, int8x16_t *w)
{
    nibbles(b + 64 + 280 * j + 24, q, w);
}

INLINE void codes_q5_k(const uint8_t *b, int j, int q, int8x16_t *w)
{
    const uint8_t *p = b + 64 + 344 * j;
    nibbles(p + 88, q, w);
    add_bits(p + 24, q, 16, w);
}

INLINE void codes_q6_k(const uint8_t *b, int j, int q, int8x16_t *w)
{
    const uint8_t *p = b + 32 + 416 * j;
    nibbles(p + 160, q, w);
    add_twos(p + 32, q, 4, w);
}

INLINE void codes_iq4_xs(const uint8_t *b, int j, int q, int8x16_t *w)
{
    nibbles(b + 32 + 268 * j + 12, q, w);
    look_up(quant_levels_iq4, w);
}

INLINE void codes_tq1_0(const uint8_t *b, int j, int q, int8x16_t *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = trits(b + 32 + 64 * trit_plane[j][g], trit_power[j][g], q);
    }
}

INLINE void codes_tq2_0(const uint8_t *b, int j, int q, int8x16_t *w)
{
    codes_zero(w);
    add_twos(b + 32 + 128 * j, q, 0, w);
}

INLINE void codes_nvfp4(const uint8_t *b, int j, int q, int8x16_t *w)
{
    nibbles(b + 288 * j + 32, q, w);
    look_up(quant_levels_e2m1, w);
}

INLINE void codes_q1_0(const uint8_t *b, int j, int q, int8x16_t *w)
{
    codes_zero(w);
    add_bits(b + 32 + 64 * j, q, 2, w);
}

/* --- the product of one unit with one tile ---------------------------------------------------- */

/* The chain's steps of one unit for token t and quad q; d: the tile's scales and sums. */
INLINE float32x4_t token_step(const struct unit *u, const struct kind k, int q, const float *d,
                              int tile, int t, const int32x4_t s[2], float32x4_t acc)
{
    const float da = d[t];
    const float a0 = d[tile + t];
    const float a1 = d[2 * tile + t];
    const float32x4_t scale = vmulq_n_f32(u->d[0][q], da);
    if (k.form == FORM_HALVED) {
        acc = vfmaq_f32(acc, vcvtq_f32_s32(s[0]), scale);
        return vfmaq_f32(acc, vcvtq_f32_s32(s[1]), vmulq_n_f32(u->d[1][q], da));
    }
    if (k.form == FORM_SUB2 || k.form == FORM_SUB2_MIN) {
        const float32x4_t s0 = vmulq_f32(vcvtq_f32_s32(s[0]), u->sub[0][q]);
        acc = vfmaq_f32(acc, vfmaq_f32(s0, vcvtq_f32_s32(s[1]), u->sub[1][q]), scale);
    } else {
        acc = vfmaq_f32(acc, vcvtq_f32_s32(s[0]), scale);
    }
    if (k.form == FORM_M) {
        acc = vfmaq_f32(acc, u->m[q], vdupq_n_f32(d[3 * tile + t]));
    } else if (k.form == FORM_SUB2_MIN) {
        const float32x4_t sum = vfmaq_n_f32(vmulq_n_f32(u->min[0][q], a0), u->min[1][q], a1);
        acc = vfmsq_f32(acc, sum, vmulq_n_f32(u->dmin[q], da));
    }
    return acc;
}

INLINE int at_most(int n, int most)
{
    return n < most ? n : most;
}

/* Whether offsets come off the codes themselves: for many tokens that is less than where the sums
 * of each start, and takes no registers. */
INLINE bool is_signed(int tile)
{
    return tile >= 8;
}

INLINE void codes_signed(const struct kind k, int8x16_t w[8])
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = vsubq_s8(w[g], vdupq_n_s8((int8_t)k.offset));
    }
}

/* Where the sums of a unit start: at what comes off the codes, n8 times offset / 8. part: half 0 or
 * 1, or 2: both. d: the tile's scales and sums, here and below from the first of n tokens on. */
INLINE void sums_start(const struct kind k, int part, int tile, const float *d, int n, int32x4_t *s)
{
    const int32_t *n8 = (const int32_t *)(const void *)(d + (4 + part) * tile);
    UNROLL for (int t = 0; t < n; t++)
    {
        s[t] =
            vdupq_n_s32(k.offset != 0.0f && !is_signed(tile) ? n8[t] / 8 * (int32_t)k.offset : 0);
    }
}

/* The two halves of a unit are summed apart only where a type scales them apart. */
INLINE bool is_split(const struct kind k)
{
    return k.form == FORM_HALVED || k.form == FORM_SUB2 || k.form == FORM_SUB2_MIN;
}

/* Quad q, whose codes are in w, of one unit for n tokens. */
INLINE void toks_step(const int8x16_t w[8], const struct kind k, int q, const struct unit *u,
                      const uint8_t *a, const float *d, int tile, int n, float32x4_t *acc)
{
    int32x4_t s[2][SUMS];
    sums_start(k, is_split(k) ? 0 : 2, tile, d, n, s[0]);
    sums(w, 0, is_split(k) ? 4 : 8, k.run, a, tile, n, s[0]);
    if (is_split(k)) {
        sums_start(k, 1, tile, d, n, s[1]);
        sums(w, 4, 8, k.run, a, tile, n, s[1]);
    }
    UNROLL for (int t = 0; t < n; t++)
    {
        const int32x4_t both[2] = { s[0][t], is_split(k) ? s[1][t] : s[0][t] };
        acc[t] = token_step(u, k, q, d, tile, t, both, acc[t]);
    }
}

/* Quad q of one unit: eight registers of codes and SUMS of integer sums are all that 32 registers
 * hold. */
INLINE void quad_step(codes_fn codes, const struct kind k, int q, int tile, const uint8_t *b, int j,
                      const struct unit *u, const uint8_t *a, float32x4_t acc[TOGETHER])
{
    const float *d = (const float *)(const void *)(a + UNIT * tile);
    const int together = at_most(tile, TOGETHER);
    const int n = at_most(together, is_split(k) ? SUMS / 2 : SUMS);
    int8x16_t w[8];
    codes(b, j, q, w);
    if (is_signed(tile)) {
        codes_signed(k, w);
    }
    UNROLL for (int t = 0; t < together; t += n)
    {
        toks_step(w, k, q, u, a + GROUP * t, d + t, tile, n, acc + t);
    }
}

/* With 16 tokens the quads are a loop of the program: unrolled, gcc keeps activations of one for
 * the next and puts sums on the stack instead. */
INLINE void unit_step(codes_fn codes, const struct kind k, int tile, const uint8_t *b, int j,
                      const struct unit *u, const uint8_t *a, float32x4_t acc[QUADS][TOGETHER])
{
    if (at_most(tile, TOGETHER) > 8) {
        _Pragma("GCC unroll 1") for (int q = 0; q < QUADS; q++)
        {
            quad_step(codes, k, q, tile, b, j, u, a, acc[q]);
        }
    } else {
        UNROLL for (int q = 0; q < QUADS; q++)
        {
            quad_step(codes, k, q, tile, b, j, u, a, acc[q]);
        }
    }
}

INLINE void store_tile(float32x4_t acc[QUADS][TOGETHER], int together, int n, float *y, size_t ldy)
{
    UNROLL for (int t = 0; t < together; t++)
    {
        if (t < n) {
            l_store(y + (size_t)t * ldy, (lanes){ acc[0][t], acc[1][t], acc[2][t], acc[3][t] });
        }
    }
}

INLINE void zero_tile(float32x4_t acc[QUADS][TOGETHER], int together)
{
    UNROLL for (int t = 0; t < together; t++)
    {
        UNROLL for (int q = 0; q < QUADS; q++)
        {
            acc[q][t] = vdupq_n_f32(0.0f);
        }
    }
}

/* --- one panel -------------------------------------------------------------------------------- */

/* Tokens of a tile that are taken together: where their activations and results are. */
struct tile {
    const uint8_t *a;
    float *y;
    int size; /* of the tile that they are part of */
    int n;    /* tokens from this one on */
};

INLINE struct tile tile_at(const struct product *p, int32_t panel, int32_t tok)
{
    return (struct tile){
        .a = gemm_tile_at(p->a, tok / TILE_MAX) + 4 * (tok % TILE_MAX),
        .y = p->y + (size_t)tok * p->ldy + (size_t)panel * LANES,
        .size = gemm_tile(p->a->n_tok, tok / TILE_MAX),
        .n = p->a->n_tok - tok,
    };
}

/* Everything but the pointers is constant after inlining. */
INLINE void panel_tile(scales_fn scales, codes_fn codes, const struct kind k, int size,
                       const struct product *p, int32_t panel, const struct tile t)
{
    float32x4_t acc[QUADS][TOGETHER];
    const uint8_t *w = p->w->data + (size_t)panel * p->w->stride;
    const uint8_t *a = t.a;
    const int32_t n_block = p->w->n_col / (UNIT * k.units);
    zero_tile(acc, at_most(size, TOGETHER));
    for (int32_t block = 0; block < n_block; block++, w += k.block) {
        for (int j = 0; j < k.units; j++, a += unit_bytes(size)) {
            struct unit u;
            scales(w, j, &u);
            unit_step(codes, k, size, w, j, &u, a, acc);
        }
    }
    store_tile(acc, at_most(size, TOGETHER), t.n, t.y, p->ldy);
}

INLINE void panel_run(scales_fn scales, codes_fn codes, const struct kind k,
                      const struct product *p, int32_t panel)
{
    for (int32_t tok = p->part.tile0 * TILE_MAX; tok < p->tok_end; tok += TOGETHER) {
        const struct tile t = tile_at(p, panel, tok);
        switch (t.size) {
        case 16:
            panel_tile(scales, codes, k, 16, p, panel, t);
            break;
        case 8:
            panel_tile(scales, codes, k, 8, p, panel, t);
            break;
        case 4:
            panel_tile(scales, codes, k, 4, p, panel, t);
            break;
        case 2:
            panel_tile(scales, codes, k, 2, p, panel, t);
            break;
        default:
            panel_tile(scales, codes, k, 1, p, panel, t);
            break;
        }
    }
}

/* The steps of one high part of group g (gemm_act.h), y: of the tile's first token. */
INLINE void high_step(scales_fn scales, codes_fn codes, const struct kind k, const uint8_t *w,
                      const struct act_high *high, int g, float *y, size_t ldy)
{
    const uint8_t *b = w + (size_t)(high->unit / k.units) * k.block;
    struct unit u;
    scales(b, high->unit % k.units, &u);
    for (int q = 0; q < QUADS; q++) {
        float *to = y + (size_t)high->token * ldy + QUAD * q;
        int8x16_t c[8];
        int32x4_t s = vdupq_n_s32(-(int32_t)k.offset * high->sum);
        codes(b, high->unit % k.units, q, c);
        sums(c + g, 0, 1, 1, (const uint8_t *)high->h, 1, 1, &s);
        float32x4_t x = vcvtq_f32_s32(s);
        if (k.form == FORM_SUB2 || k.form == FORM_SUB2_MIN) {
            x = vmulq_f32(x, u.sub[g / 4][q]);
        }
        const float32x4_t d = u.d[k.form == FORM_HALVED ? g / 4 : 0][q];
        vst1q_f32(to, vfmaq_f32(vld1q_f32(to), x, vmulq_n_f32(d, high->d)));
    }
}

/* The high parts of a panel's tokens, behind its units: its weights are in the cache now. */
INLINE void high_run(scales_fn scales, codes_fn codes, const struct kind k, const struct product *p,
                     int32_t panel)
{
    const uint8_t *w = p->w->data + (size_t)panel * p->w->stride;
    for (int32_t i = p->part.tile0; i < p->part.tile1; i++) {
        const int32_t tile = gemm_tile(p->a->n_tok, i);
        const struct act_side *side = side_at(gemm_tile_at(p->a, i), tile, p->w->n_col);
        float *y = p->y + (size_t)i * TILE_MAX * p->ldy + (size_t)panel * LANES;
        for (int g = 0; g < 8; g++) {
            const struct act_high *high = high_at(side, g, tile, p->w->n_col);
            for (int32_t e = 0; e < side->n[g]; e++) {
                high_step(scales, codes, k, w, &high[e], g, y, p->ldy);
            }
        }
    }
}

/* Codes up to 31 leave room for 8 groups, up to 43 for 6, up to 63 for 4, up to 128 for 2. */
#define PANEL(name, scales, form, offset, run, units, block)                                       \
    static __attribute__((noinline)) void high_##name(const struct product *p, int32_t panel)      \
    {                                                                                              \
        high_run(scales, codes_##name, (struct kind){ form, offset, run, units, block }, p,        \
                 panel);                                                                           \
    }                                                                                              \
    static void panel_##name(const struct product *p, int32_t panel)                               \
    {                                                                                              \
        panel_run(scales, codes_##name, (struct kind){ form, offset, run, units, block }, p,       \
                  panel);                                                                          \
        high_##name(p, panel);                                                                     \
    }
PANEL(q4_0, scales_d, FORM_PLAIN, 8.0f, 8, 1, 16 * 18)
PANEL(q4_1, scales_d_m, FORM_M, 0.0f, 8, 1, 16 * 20)
PANEL(q5_0, scales_d, FORM_PLAIN, 16.0f, 8, 1, 16 * 22)
PANEL(q5_1, scales_d_m, FORM_M, 0.0f, 8, 1, 16 * 24)
PANEL(q8_0, scales_d, FORM_PLAIN, 0.0f, 2, 1, 16 * 34)
PANEL(iq4_nl, scales_d, FORM_PLAIN, 0.0f, 2, 1, 16 * 18)
PANEL(mxfp4, scales_e, FORM_PLAIN, 0.0f, 8, 1, 16 * 17)
PANEL(q2_k, scales_q2_k, FORM_SUB2_MIN, 0.0f, 8, 8, 16 * 84)
PANEL(q3_k, scales_q3_k, FORM_SUB2, 4.0f, 8, 8, 16 * 110)
PANEL(q4_k, scales_q4_k, FORM_M, 0.0f, 8, 8, 16 * 144)
PANEL(q5_k, scales_q5_k, FORM_M, 0.0f, 8, 8, 16 * 176)
PANEL(q6_k, scales_q6_k, FORM_SUB2, 32.0f, 4, 8, 16 * 210)
PANEL(iq4_xs, scales_iq4_xs, FORM_PLAIN, 0.0f, 2, 8, 16 * 136)
PANEL(tq1_0, scales_d, FORM_PLAIN, 1.0f, 8, 8, 16 * 54)
PANEL(tq2_0, scales_d, FORM_PLAIN, 1.0f, 8, 8, 16 * 66)
PANEL(nvfp4, scales_nvfp4, FORM_HALVED, 0.0f, 8, 2, 16 * 36)
PANEL(q1_0, scales_d, FORM_PLAIN, 1.0f, 8, 4, 16 * 18)
PANEL(iq1_s, scales_iq1_s, FORM_PLAIN, 16.0f, 8, 8, 16 * 50)
PANEL(iq1_m, scales_iq1_m, FORM_SUB2, 16.0f, 8, 8, 16 * 56)
PANEL(iq2_xxs, scales_iq2_xxs, FORM_PLAIN, 0.0f, 6, 8, 16 * 66)
PANEL(iq2_xs, scales_iq2_xs, FORM_SUB2, 0.0f, 6, 8, 16 * 74)
PANEL(iq2_s, scales_iq2_s, FORM_SUB2, 0.0f, 6, 8, 16 * 82)
PANEL(iq3_xxs, scales_iq3_xxs, FORM_PLAIN, 0.0f, 4, 8, 16 * 98)
PANEL(iq3_s, scales_iq3_s, FORM_PLAIN, 0.0f, 8, 8, 16 * 110)

/* --- float weights ---------------------------------------------------------------------------- */

INLINE float32x4_t load_weight(enum quant_type type, const uint8_t *p)
{
    const uint16_t *h = (const uint16_t *)(const void *)p;
    if (type == QUANT_F32) {
        return vld1q_f32((const float *)(const void *)p);
    }
    return type == QUANT_F16 ? l_widen_f16(h) : vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(h), 16));
}

/* Quads [q0, q0 + n_quad) of one panel; all four at once leave no registers for a tile of 8. */
INLINE void float_quads(enum quant_type type, int size, int q0, int n_quad, const uint8_t *w,
                        int32_t n_col, const float *x, float32x4_t acc[QUADS][TOGETHER])
{
    const size_t each = type == QUANT_F32 ? 4 : 2;
    const int together = at_most(size, FLOATS_TOGETHER);
    float32x4_t sum[QUADS][TOGETHER];
    zero_tile(sum, together);
    for (int32_t k = 0; k < n_col; k++, w += LANES * each, x += size) {
        UNROLL for (int q = 0; q < n_quad; q++)
        {
            const float32x4_t v = load_weight(type, w + (size_t)(QUAD * (q0 + q)) * each);
            UNROLL for (int t = 0; t < together; t++)
            {
                sum[q][t] = vfmaq_n_f32(sum[q][t], v, x[t]);
            }
        }
    }
    UNROLL for (int q = 0; q < n_quad; q++)
    {
        UNROLL for (int t = 0; t < together; t++)
        {
            acc[q0 + q][t] = sum[q][t];
        }
    }
}

INLINE void float_tile(enum quant_type type, int size, const struct product *p, int32_t panel,
                       const struct tile t)
{
    float32x4_t acc[QUADS][TOGETHER];
    const uint8_t *w = p->w->data + (size_t)panel * p->w->stride;
    const float *x = (const float *)(const void *)t.a;
    const int n_quad = size >= 8 ? 2 : 4;
    UNROLL for (int q = 0; q < QUADS; q += n_quad)
    {
        float_quads(type, size, q, n_quad, w, p->w->n_col, x, acc);
    }
    store_tile(acc, at_most(size, FLOATS_TOGETHER), t.n, t.y, p->ldy);
}

INLINE void float_panel(enum quant_type type, const struct product *p, int32_t panel)
{
    for (int32_t tok = p->part.tile0 * TILE_MAX; tok < p->tok_end; tok += FLOATS_TOGETHER) {
        const struct tile t = tile_at(p, panel, tok);
        switch (t.size) {
        case 16:
            float_tile(type, 16, p, panel, t);
            break;
        case 8:
            float_tile(type, 8, p, panel, t);
            break;
        case 4:
            float_tile(type, 4, p, panel, t);
            break;
        case 2:
            float_tile(type, 2, p, panel, t);
            break;
        default:
            float_tile(type, 1, p, panel, t);
            break;
        }
    }
}

static void panel_f32(const struct product *p, int32_t panel)
{
    float_panel(QUANT_F32, p, panel);
}

static void panel_f16(const struct product *p, int32_t panel)
{
    float_panel(QUANT_F16, p, panel);
}

static void panel_bf16(const struct product *p, int32_t panel)
{
    float_panel(QUANT_BF16, p, panel);
}

/* --- the entries ------------------------------------------------------------------------------ */

static void act_prepare(const struct kern_act *a, const float *x, size_t ldx, int32_t tile0,
                        int32_t tile1)
{
    gemm_act_prepare_as((struct act_how){ GROUP, NULL, NULL }, a, x, ldx, tile0, tile1);
}

static uint64_t peak_int8(uint32_t n, uint32_t *sink)
{
    int32x4_t acc[16];
    const int8x16_t a = vdupq_n_s8(3);
    UNROLL for (int i = 0; i < 16; i++)
    {
        acc[i] = vdupq_n_s32(0);
    }
    for (uint32_t k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < 16; i++)
        {
            __asm__ volatile(PEAK_STEP : "+w"(acc[i]) : "w"(a));
        }
    }
    UNROLL for (int i = 0; i < 16; i++)
    {
        *sink += (uint32_t)vaddvq_s32(acc[i]);
    }
    return (uint64_t)n * 16 * PEAK_MACS * 2;
}

INLINE void body_fill(struct kern_table *t)
{
    peak_fill(t);
    books_fill();
    t->peak_int8 = peak_int8;
    t->act_prepare = act_prepare;
    t->matmul = panel_matmul;
}

#endif
