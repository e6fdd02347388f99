/* attn_bf16 - bf16 pages: pairs of numbers (header only, part of attn_body.h)
 *
 * Pages of half the bytes of floats, and on processors with AVX512_BF16 twice the speed of the
 * multiplier: vdpbf16ps multiplies two pairs of bf16 and adds both products to a float. By Intel's
 * manual (volume 2, VDPBF16PS) that is a fused multiply-add of the upper two, then one of the lower
 * two, each rounded to nearest even whatever MXCSR says, subnormal operands and results taken as 0.
 * So two words l_fma give the same bits where nothing is subnormal on the way. attn_ref.c says why
 * nothing is: numbers below 2^-50 are stored as 0. What the manual says is not taken on trust:
 * attn_avx512_dot_agrees tries it on this processor before the instruction is used.
 *
 *     a lane of K   k[2j][pos]    k[2j+1][pos]      a lane of V   v[2j][d]    v[2j+1][d]
 *     with          q[2j]         q[2j+1]           with          w[2j]       w[2j+1]
 *                   lower half    upper half, first               positions 2j and 2j+1
 *
 * A position that a query does not see has no part in the chain. Where a range begins or ends
 * within a pair, the other one is multiplied alone (value_single).
 *
 * Rejected: ARM's bfdot, which rounds differently. */
#ifndef HEARTH_ATTN_BF16_H
#define HEARTH_ATTN_BF16_H

#include "kern/attn_tile.h"

/* --- rounding -------------------------------------------------------------------------------- */

/* To the nearest bf16, widened again. */
INLINE lanes l_near_bf16(lanes x)
{
    const lanes a = l_from_bits(il_and(l_bits(x), il_set(0x7FFFFFFF)));
    const ilanes tie = il_and(il_right16(l_bits(x)), il_set(1));
    const ilanes up = il_add(l_bits(x), il_add(tie, il_set(0x7FFF)));
    const lanes near = l_from_bits(il_and(up, il_set((int32_t)0xFFFF0000)));
    const lanes rest = l_less(a, l_set(HUGE_VALF), near, l_add(x, x)); /* a NaN stays one */
    return l_less(a, l_set(0x1p-50f), l_set(0.0f), rest);
}

/* Stores n weights v of query i + j, positions pos .. pos + 15, rounded; v becomes the rounded. */
INLINE void store_weights_bf16(enum form form, struct tile *t, int32_t i, int n, int32_t pos,
                               lanes *v)
{
    UNROLL for (int j = 0; j < n; j++)
    {
#if defined(LANES_HAVE_DOT)
        if (form == FORM_DOT) {
            v[j] = l_store_weights(&t->pair.u[i + j][pos], v[j]);
            continue;
        }
#endif
        v[j] = l_near_bf16(v[j]);
        l_store(&t->w[i + j][pos], v[j]);
    }
    (void)form;
}

/* --- writing --------------------------------------------------------------------------------- */

/* n numbers: number i to place(i), which is at + i * step for even and odd i apart. */
static void put_bf16(uint16_t *to, size_t step, size_t step_odd, const float *from, int32_t n)
{
    for (int32_t i = 0; i < n; i += LANES) {
        float x[LANES];
        l_store(x, l_near_bf16(l_load_at(from, i, n, 0.0f)));
        for (int32_t k = 0; k < LANES && i + k < n; k++) {
            const size_t at = (size_t)(i + k);
            to[step_odd == 0 ? at * step : at / 2 * step + at % 2 * step_odd] =
                quant_f32_to_bf16(x[k]);
        }
    }
}

static void put_pages_bf16(int32_t hd_k, int32_t hd_v, uint8_t *k_page, uint8_t *v_page,
                           int32_t slot, const float *k, const float *v)
{
    uint16_t *to_k = (uint16_t *)(void *)k_page + 2 * slot;
    uint16_t *to_v = (uint16_t *)(void *)v_page + slot / 2 * 2 * hd_v + slot % 2;
    put_bf16(to_k, 2 * KERN_PAGE, 1, k, hd_k);
    if (hd_k % 2 != 0) {
        to_k[(size_t)(hd_k / 2) * 2 * KERN_PAGE + 1] = 0;
    }
    put_bf16(to_v, 2, 0, v, hd_v);
}

/* --- pairs ----------------------------------------------------------------------------------- */

struct pairs {
    ilanes both;
    lanes even; /* unused by FORM_DOT */
    lanes odd;
};

INLINE struct pairs pairs_of(enum form form, ilanes both)
{
    struct pairs x = { .both = both };
    if (form != FORM_DOT) {
        x.even = l_from_bits(il_left16(both));
        x.odd = l_from_bits(il_and(both, il_set((int32_t)0xFFFF0000)));
    }
    return x;
}

/* acc + x.odd * y.odd, then + x.even * y.even; y as floats or as a pair. */
INLINE lanes pairs_dot(enum form form, lanes acc, struct pairs x, const float *y,
                       const uint16_t *pair)
{
#if defined(LANES_HAVE_DOT)
    if (form == FORM_DOT) {
        return l_dot_bf16(acc, x.both, pair);
    }
#endif
    (void)form;
    (void)pair;
    return l_fma(x.even, l_set(y[0]), l_fma(x.odd, l_set(y[1]), acc));
}

/* A query, rounded; an odd last dimension has 0 beside it. */
INLINE void load_query_bf16(enum form form, struct tile *t, int32_t i, const float *q, int32_t hd)
{
    for (int32_t d = 0; d < hd; d += LANES) {
        const lanes x = l_near_bf16(l_load_at(q, d, hd, 0.0f));
#if defined(LANES_HAVE_DOT)
        if (form == FORM_DOT) {
            l_store_bf16(&t->pair.q[i][d], x);
            continue;
        }
#endif
        l_store(&t->q[i][d], x);
    }
    (void)form;
}

/* Pages [page, page + p) for n queries into t->w, unscaled; form, n and p are constants. */
INLINE void score_pages_bf16(enum form form, struct tile *t, int n, int p, int32_t page)
{
    const struct kern_attend *a = t->a;
    lanes acc[TILE][PAGES_MAX];
    UNROLL for (int i = 0; i < n * p; i++)
    {
        acc[i / p][i % p] = l_set(0.0f);
    }
    for (int32_t d = 0; d < a->hd_k; d += 2) {
        const size_t at = (size_t)d * KERN_PAGE * 2;
        struct pairs x[PAGES_MAX];
        UNROLL for (int j = 0; j < p; j++)
        {
            x[j] = pairs_of(form, il_load(a->k_page[page + j] + at));
            __builtin_prefetch(a->v_page[page + j] + at, 0, 2);
        }
        UNROLL for (int i = 0; i < n; i++)
        {
            UNROLL for (int j = 0; j < p; j++)
            {
                acc[i][j] = pairs_dot(form, acc[i][j], x[j], &t->q[i][d], &t->pair.q[i][d]);
            }
        }
    }
    UNROLL for (int i = 0; i < n * p; i++)
    {
        l_store(&t->w[i / p][(page + i % p) * KERN_PAGE], acc[i / p][i % p]);
    }
}

INLINE ilanes load_pair(const uint8_t *at, int32_t left)
{
    if (left >= LANES) {
        return il_load(at);
    }
    uint32_t x[LANES] = { 0 };
    memcpy(x, at, (size_t)left * sizeof x[0]);
    return il_load(x);
}

/* As value_groups, for ranges of whole pairs. */
INLINE void value_pairs(enum form form, const struct share *c, int n, int g, int32_t d,
                        int32_t left)
{
    const struct tile *t = c->t;
    const struct kern_attend *a = t->a;
    const size_t row = (size_t)a->hd_v * 4;
    lanes acc[TILE][GROUPS_MAX];
    UNROLL for (int i = 0; i < n * g; i++)
    {
        acc[i / g][i % g] = l_load_at(t->acc[c->i0 + i / g] + d + i % g * LANES, 0, left, 0.0f);
    }
    for (int32_t page = c->from / KERN_PAGE; page * KERN_PAGE < c->to; page++) {
        const int32_t first = page * KERN_PAGE;
        const uint8_t *v = a->v_page[page] + (size_t)d * 4;
        const uint8_t *ahead = (a->k_ahead != NULL ? a->k_ahead : a->k_page)[page] + (size_t)d * 4;
        const int32_t end = c->to - first < KERN_PAGE ? c->to - first : KERN_PAGE;
        for (int32_t k = c->from > first ? c->from - first : 0; k < end; k += 2) {
            struct pairs x[GROUPS_MAX];
            UNROLL for (int j = 0; j < g; j++)
            {
                const size_t at = (size_t)(k / 2) * row + (size_t)(j * LANES) * 4;
                x[j] = pairs_of(form, load_pair(v + at, left));
                __builtin_prefetch(ahead + at, 0, 2);
            }
            UNROLL for (int i = 0; i < n; i++)
            {
                UNROLL for (int j = 0; j < g; j++)
                {
                    acc[i][j] = pairs_dot(form, acc[i][j], x[j], &t->w[c->i0 + i][first + k],
                                          &t->pair.u[c->i0 + i][first + k]);
                }
            }
        }
    }
    UNROLL for (int i = 0; i < n * g; i++)
    {
        l_store_at(t->acc[c->i0 + i / g] + d + i % g * LANES, acc[i / g][i % g], 0, left);
    }
}

/* One position of a pair for query i. */
static void value_single(enum form form, const struct tile *t, int32_t i, int32_t pos)
{
    const struct kern_attend *a = t->a;
    const uint8_t *row = a->v_page[pos / KERN_PAGE] + (size_t)(pos % KERN_PAGE / 2 * a->hd_v) * 4;
    const lanes w = l_set(form == FORM_DOT ? quant_bf16_to_f32(t->pair.u[i][pos]) : t->w[i][pos]);
    for (int32_t d = 0; d < a->hd_v; d += LANES) {
        const struct pairs x = pairs_of(FORM_BF16, load_pair(row + (size_t)d * 4, a->hd_v - d));
        const lanes before = l_load_at(t->acc[i], d, a->hd_v, 0.0f);
        l_store_at(t->acc[i], l_fma(w, pos % 2 != 0 ? x.odd : x.even, before), d, a->hd_v);
    }
}

#endif
