/* gemm_act - activations as the product kernels read them (header only, private to kern/)
 *
 * Tokens are taken in tiles of 16; the last one may be of 1, 2, 4 or 8 (gemm_tile) and is filled up
 * with zero tokens. Within a tile of T tokens, for each unit of 32 columns:
 *     int8  q[8][T][4]    group g of 4 columns, token t
 *     float d[T]          scale
 *     float a0[T], a1[T]  sums of the first and second 16 integers (exact)
 *     float m[T]          (a0 + a1) * d, for types with a constant
 *     int32 n8[3][T]      -8 a0, -8 a1 and their sum, where sums of codes with an offset start
 * so that one address with constant offsets reaches everything, and four columns of a token can be
 * broadcast by one instruction. Against float weights: float x[n_col][T].
 *
 * Include lanes.h (with its instruction set chosen) before this file. */
#ifndef HEARTH_GEMM_ACT_H
#define HEARTH_GEMM_ACT_H

#include "kern/kern.h"
#include "kern/lanes.h"

#include <stddef.h>

#define UNIT          32
#define TILE_MAX      16
#define UNITS_AT_ONCE 16 /* being prepared */

INLINE size_t unit_bytes(int32_t tile)
{
    return (size_t)tile * (UNIT + 7 * sizeof(float));
}

/* Tokens in tile i. 16 is what the registers of AVX-512 have room for; a smaller last tile spares
 * products with tokens that do not exist. */
INLINE int32_t gemm_tile(int32_t n_tok, int32_t i)
{
    const int32_t left = n_tok - i * TILE_MAX;
    return left <= 2 ? left : left <= 4 ? 4 : left <= 8 ? 8 : TILE_MAX;
}

INLINE int32_t gemm_tiles(int32_t n_tok)
{
    return (n_tok + TILE_MAX - 1) / TILE_MAX;
}

INLINE size_t gemm_tile_bytes(enum kern_act_kind kind, int32_t tile, int32_t n_col)
{
    return kind == KERN_ACT_I8 ? unit_bytes(tile) * (size_t)(n_col / UNIT)
                               : (size_t)tile * (size_t)n_col * sizeof(float);
}

/* Where tile i begins. */
INLINE uint8_t *gemm_tile_at(const struct kern_act *a, int32_t i)
{
    return a->data + (size_t)i * gemm_tile_bytes(a->kind, TILE_MAX, a->n_col);
}

/* Scales of n units of 32 floats from their greatest absolute values, and what to multiply with.
 * Not finite: the scale carries it and the integers are 0, so that the product is not finite
 * either. */
INLINE void unit_scales(const float *amax, int32_t n, float *d, float *inverse)
{
    const lanes zero = l_set(0.0f);
    const lanes tiny = l_set(0x1p-100f);
    const lanes most = l_set(HUGE_VALF);
    const lanes c = l_set(127.0f);
    for (int32_t i = 0; i < n; i += LANES) {
        const lanes m = l_load(amax + i);
        l_store(d + i, l_less(m, tiny, zero, l_less(m, most, l_div(m, c), m)));
        l_store(inverse + i, l_less(m, tiny, zero, l_less(m, most, l_div(c, m), zero)));
    }
}

/* One token's unit, by its factor: 32 floats to integers. */
INLINE void quantize_unit(const float *x, float inverse, int8_t q[UNIT])
{
    const lanes big = l_set(0x1.8p23f); /* adding it rounds to an integer, ties to even */
    for (int i = 0; i < UNIT; i += LANES) {
        const lanes t = l_add(l_mul(l_load(x + i), l_set(inverse)), big);
        const ilanes v = il_sub(l_bits(t), il_set(0x4B400000));
        /* |v| <= 127: x * (127 / amax) rounds to at most 127; factor 0: infinities and NaNs go */
        il_store_i8(q + i, il_and(v, il_set(-(inverse != 0.0f))));
    }
}

/* Token t of a tile's unit at `to`. */
INLINE void put_unit(uint8_t *to, int32_t tile, int32_t t, const int8_t q[UNIT], float scale)
{
    int32_t sum[2];
    l_sums_i8(q, sum);
    float *d = (float *)(void *)(to + UNIT * tile) + t;
    d[0] = scale;
    d[tile] = (float)sum[0];
    d[2 * tile] = (float)sum[1];
    d[3 * tile] = (float)(sum[0] + sum[1]) * scale;
    int32_t *n8 = (int32_t *)(void *)(d + 4 * tile);
    n8[0] = -8 * sum[0];
    n8[tile] = -8 * sum[1];
    n8[2 * tile] = n8[0] + n8[tile];
    for (int g = 0; g < 8; g++) {
        memcpy(to + (g * tile + t) * 4, q + 4 * g, 4);
    }
}

/* One tile; x[t] NULL: a token that only fills it up. Some units at a time, so that divisions are
 * made for 16 scales at once, and long after their operands were stored. */
INLINE void prepare_i8(uint8_t *to, int32_t tile, const float *const *x, int32_t n_col)
{
    float amax[UNITS_AT_ONCE * TILE_MAX] = { 0 };
    float scale[UNITS_AT_ONCE * TILE_MAX];
    float inverse[UNITS_AT_ONCE * TILE_MAX];
    for (int32_t u0 = 0; u0 < n_col / UNIT; u0 += UNITS_AT_ONCE) {
        const int32_t left = n_col / UNIT - u0;
        const int32_t n = left < UNITS_AT_ONCE ? left : UNITS_AT_ONCE;
        for (int32_t t = 0; t < tile && x[t] != NULL; t++) {
            for (int32_t u = 0; u < n; u++) {
                const float *from = x[t] + (size_t)(u0 + u) * UNIT;
                amax[u * tile + t] = l_amax(l_load(from), l_load(from + LANES));
            }
        }
        unit_scales(amax, n * tile, scale, inverse);
        for (int32_t u = 0; u < n; u++, to += unit_bytes(tile)) {
            for (int32_t t = 0; t < tile; t++) {
                int8_t q[UNIT] = { 0 };
                if (x[t] != NULL) {
                    quantize_unit(x[t] + (size_t)(u0 + u) * UNIT, inverse[u * tile + t], q);
                }
                put_unit(to, tile, t, q, scale[u * tile + t]);
            }
        }
    }
}

INLINE void prepare_f32(float *to, int32_t tile, const float *const *x, int32_t n_col)
{
    for (int32_t t = 0; t < tile; t++) {
        for (int32_t k = 0; k < n_col; k++) {
            to[(size_t)k * (size_t)tile + (size_t)t] = x[t] != NULL ? x[t][k] : 0.0f;
        }
    }
}

/* The act_prepare entry of the table, see kern.h. */
static void __attribute__((unused)) gemm_act_prepare(const struct kern_act *a, const float *x,
                                                     size_t ldx, int32_t tile0, int32_t tile1)
{
    for (int32_t i = tile0; i < tile1; i++) {
        const int32_t tile = gemm_tile(a->n_tok, i);
        const float *row[TILE_MAX];
        for (int32_t t = 0; t < tile; t++) {
            const int32_t tok = i * TILE_MAX + t;
            row[t] = tok < a->n_tok ? x + (size_t)tok * ldx : NULL;
        }
        uint8_t *to = gemm_tile_at(a, i);
        if (a->kind == KERN_ACT_I8) {
            prepare_i8(to, tile, row, a->n_col);
        } else {
            prepare_f32((float *)(void *)to, tile, row, a->n_col);
        }
    }
}

#endif
