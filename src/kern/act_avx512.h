/* act_avx512 - activations of 16 tokens at once (included by gemm_avx512.c)
 *
 * What gemm_act.h does token by token, with the same bits, for a tile of 16 tokens that all exist:
 * 16 lanes are its tokens. The greatest value of each token's unit is found by folding 16 registers
 * into one, four times half of what is left:
 *
 *     16 registers, a token each      ->  8, of two tokens each  ->  4  ->  2  ->  1, a lane each
 *
 * so that scales, limits and sums of all tokens are one register. Integers are packed to bytes two
 * tokens at a time and brought into the order of the tile by shuffles of four and of 16 bytes; the
 * sums of a half are then four dot products with ones. Only units in which something stands out, or
 * is not finite, take the functions of gemm_act.h, and only for the tokens concerned.
 *
 * Token by token a unit takes 41 cycles (Zen 4, 2026-11), for 15 stores of four bytes and
 * reductions of its own; this way 18. */
#ifndef HEARTH_ACT_AVX512_H
#define HEARTH_ACT_AVX512_H

#include "kern/books_avx512.h"
#include "kern/gemm_act.h"

/* Of each token the greatest absolute value of 32 floats from column k on: four tokens to the four
 * parts of a register, then four registers to one. */
INLINE __m512 whole_amax(const float *const *x, size_t k)
{
    const __m512i no_sign = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i four[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m512i m[4];
        UNROLL for (int j = 0; j < 4; j++)
        {
            const float *from = x[4 * j + i] + k;
            const __m512i a = _mm512_and_si512(_mm512_loadu_si512(from), no_sign);
            const __m512i b = _mm512_and_si512(_mm512_loadu_si512(from + LANES), no_sign);
            m[j] = _mm512_max_epi32(a, b);
        }
        const __m512i low = _mm512_max_epi32(_mm512_shuffle_i32x4(m[0], m[1], 0x88),
                                             _mm512_shuffle_i32x4(m[0], m[1], 0xDD));
        const __m512i up = _mm512_max_epi32(_mm512_shuffle_i32x4(m[2], m[3], 0x88),
                                            _mm512_shuffle_i32x4(m[2], m[3], 0xDD));
        four[i] = _mm512_max_epi32(_mm512_shuffle_i32x4(low, up, 0x88),
                                   _mm512_shuffle_i32x4(low, up, 0xDD));
    }
    const __m512i low = _mm512_max_epi32(_mm512_unpacklo_epi32(four[0], four[1]),
                                         _mm512_unpackhi_epi32(four[0], four[1]));
    const __m512i up = _mm512_max_epi32(_mm512_unpacklo_epi32(four[2], four[3]),
                                        _mm512_unpackhi_epi32(four[2], four[3]));
    return _mm512_castsi512_ps(
        _mm512_max_epi32(_mm512_unpacklo_epi64(low, up), _mm512_unpackhi_epi64(low, up)));
}

/* The integers of a unit, and what else is known of tokens where something stands out. */
struct whole {
    __m512i q[8];         /* as the tile has them: group g of 16 tokens */
    float high[2][LANES]; /* sums of high parts in each half, unless all are 0 */
};

/* Token t's unit where it is not as usual: integers of both halves. */
INLINE void odd_token(const struct act_tile *p, int32_t u, int t, float scale, float inverse,
                      float amax, struct whole *w, __m512i v[2])
{
    const float *from = p->x[t] + (size_t)u * UNIT;
    struct act_unit unit = { .groups = 0 };
    if (inverse != 0.0f && amax > p->limit[t]) {
        int32_t high[2];
        split_unit(from, inverse, p->limit[t], &unit);
        put_high(side_at(p->to, p->n, p->n_col), p->n, p->n_col, t, u, &unit, scale);
        l_sums_i8(unit.h, high);
        w->high[0][t] = (float)high[0];
        w->high[1][t] = (float)high[1];
    } else {
        quantize_unit(from, inverse, unit.q);
    }
    v[0] = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)unit.q));
    v[1] = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(unit.q + LANES)));
}

/* Four registers, each with four groups of four tokens, to four groups of 16 tokens. */
INLINE void turn4(const __m512i x[4], __m512i *to)
{
    const __m512i a = _mm512_shuffle_i32x4(x[0], x[1], 0x44);
    const __m512i b = _mm512_shuffle_i32x4(x[0], x[1], 0xEE);
    const __m512i c = _mm512_shuffle_i32x4(x[2], x[3], 0x44);
    const __m512i d = _mm512_shuffle_i32x4(x[2], x[3], 0xEE);
    to[0] = _mm512_shuffle_i32x4(a, c, 0x88);
    to[1] = _mm512_shuffle_i32x4(a, c, 0xDD);
    to[2] = _mm512_shuffle_i32x4(b, d, 0x88);
    to[3] = _mm512_shuffle_i32x4(b, d, 0xDD);
}

/* Integers of unit u. odd: a bit for each token that is not as usual. */
INLINE void whole_integers(const struct act_tile *p, int32_t u, uint32_t odd, const float *amax,
                           const float *scale, const float *inverse, struct whole *w)
{
    __m512i first[4]; /* groups 0..3 of tokens 4 i .. 4 i + 3 */
    __m512i second[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m512 two[2]; /* of two tokens: (first, second, first, second) of group j at part j */
        UNROLL for (int k = 0; k < 2; k++)
        {
            __m512i v[2][2];
            UNROLL for (int j = 0; j < 2; j++)
            {
                const int t = 4 * i + 2 * k + j;
                const float *from = p->x[t] + (size_t)u * UNIT;
                const __m512 by = _mm512_set1_ps(inverse[t]);
                if (odd >> t & 1) {
                    odd_token(p, u, t, scale[t], inverse[t], amax[t], w, v[j]);
                } else {
                    v[j][0] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from), by));
                    v[j][1] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + LANES), by));
                }
            }
            two[k] = _mm512_castsi512_ps(_mm512_packs_epi16(_mm512_packs_epi32(v[0][0], v[0][1]),
                                                            _mm512_packs_epi32(v[1][0], v[1][1])));
        }
        first[i] = _mm512_castps_si512(_mm512_shuffle_ps(two[0], two[1], 0x88));
        second[i] = _mm512_castps_si512(_mm512_shuffle_ps(two[0], two[1], 0xDD));
    }
    turn4(first, w->q);
    turn4(second, w->q + 4);
}

/* What book_sort does, for 16 tokens: 4 x 4 bytes of each lane change rows and columns. */
INLINE void whole_sort(bool is_halved, __m512i q[8])
{
    __m512i r[8];
    UNROLL for (int h = 0; h < 2; h++)
    {
        const int32_t *at = book_order[is_halved] + 4 * h;
        const __m512i x[4] = { q[at[0]], q[at[1]], q[at[2]], q[at[3]] };
        const __m512i y[4] = { words(x[0], x[2], 0), words(x[1], x[3], 0), words(x[0], x[2], 1),
                               words(x[1], x[3], 1) };
        const __mmask64 odd = 0xAAAAAAAAAAAAAAAA;
        UNROLL for (int i = 0; i < 2; i++)
        {
            const __m512i a = y[2 * i];
            const __m512i b = y[2 * i + 1];
            r[4 * h + 2 * i] = _mm512_mask_blend_epi8(odd, a, _mm512_slli_epi16(b, 8));
            r[4 * h + 2 * i + 1] = _mm512_mask_blend_epi8(odd, _mm512_srli_epi16(a, 8), b);
        }
    }
    memcpy(q, r, sizeof r);
}

INLINE __m512i sum4(const __m512i *q)
{
    const __m512i one = _mm512_set1_epi8(1);
    __m512i s = _mm512_setzero_si512();
    UNROLL for (int g = 0; g < 4; g++)
    {
        s = _mm512_dpbusd_epi32(s, one, q[g]);
    }
    return s;
}

/* Unit u, whose greatest values wait where its scales will be. */
INLINE void whole_unit(const struct act_tile *p, int32_t u, uint32_t odd)
{
    uint8_t *to = p->to + (size_t)u * unit_bytes(TILE_MAX);
    float *d = (float *)(void *)(to + UNIT * TILE_MAX);
    int32_t *n8 = (int32_t *)(void *)(d + 4 * LANES);
    struct whole w;
    float amax[LANES];
    float rest[LANES];
    float scale[LANES];
    float inverse[LANES];
    r_store(amax, r_load(d));
    r_store(rest, r_load(d));
    if (odd != 0) {
        memset(w.high, 0, sizeof w.high);
        for (int t = 0; t < TILE_MAX; t++) {
            if (amax[t] > p->limit[t] && amax[t] < HUGE_VALF) {
                rest[t] = rest_amax(p->x[t] + (size_t)u * UNIT, p->limit[t], amax[t]);
            }
        }
    }
    unit_scales(amax, rest, LANES, scale, inverse);
    whole_integers(p, u, odd, amax, scale, inverse, &w);
    const __m512i s0 = sum4(w.q);
    const __m512i s1 = sum4(w.q + 4);
    rows a0 = _mm512_cvtepi32_ps(s0);
    rows a1 = _mm512_cvtepi32_ps(s1);
    if (odd != 0) {
        a0 = r_fma(r_load(w.high[0]), r_set(HIGH), a0);
        a1 = r_fma(r_load(w.high[1]), r_set(HIGH), a1);
    }
    r_store(d, r_load(scale));
    r_store(d + LANES, a0);
    r_store(d + 2 * LANES, a1);
    r_store(d + 3 * LANES, r_mul(r_add(a0, a1), r_load(scale)));
    const __m512i e0 = _mm512_slli_epi32(_mm512_sub_epi32(none(), s0), 3);
    const __m512i e1 = _mm512_slli_epi32(_mm512_sub_epi32(none(), s1), 3);
    _mm512_storeu_si512(n8, e0);
    _mm512_storeu_si512(n8 + LANES, e1);
    _mm512_storeu_si512(n8 + 2 * LANES, _mm512_add_epi32(e0, e1));
    if (p->order != NULL && p->kind != KERN_ACT_I8) {
        whole_sort(p->kind == KERN_ACT_BOOK_HALVED, w.q);
    }
    UNROLL for (int g = 0; g < 8; g++)
    {
        _mm512_storeu_si512(to + 64 * g, w.q[g]);
    }
}

static __attribute__((noinline)) void whole_odd(const struct act_tile *p, int32_t u, uint32_t odd)
{
    whole_unit(p, u, odd);
}

/* A tile of 16 tokens that all exist. */
static void act_whole(struct act_tile *p)
{
    const int32_t n_unit = p->n_col / UNIT;
    rows sum = r_set(0.0f);
    for (int32_t u = 0; u < n_unit; u++) {
        const rows amax = whole_amax(p->x, (size_t)u * UNIT);
        uint8_t *to = p->to + (size_t)u * unit_bytes(TILE_MAX) + UNIT * TILE_MAX;
        r_store((float *)(void *)to, amax);
        sum = r_add(sum, amax);
    }
    const rows limit = r_mul(r_set(STAND_OUT), _mm512_div_ps(sum, r_set((float)n_unit)));
    r_store(p->limit, limit);
    *side_at(p->to, p->n, p->n_col) = (struct act_side){ .n = { 0 } };
    for (int32_t u = 0; u < n_unit; u++) {
        const uint8_t *at = p->to + (size_t)u * unit_bytes(TILE_MAX) + UNIT * TILE_MAX;
        const rows amax = r_load((const float *)(const void *)at);
        const uint32_t usual = _mm512_cmp_ps_mask(amax, limit, _CMP_LE_OQ) &
                               _mm512_cmp_ps_mask(amax, r_set(HUGE_VALF), _CMP_LT_OQ);
        if (usual == 0xFFFF) {
            whole_unit(p, u, 0);
        } else {
            whole_odd(p, u, usual ^ 0xFFFF);
        }
    }
}

#endif
