/* attn_body - the cache layout and attention over one span (included by kern/attn_*.c)
 *
 * The text of the attention kernels, the same for every instruction set; lanes.h gives the words.
 *
 * Scores: K lies transposed, so one load gives one dimension of 16 positions, and a score is one fma per
 * dimension in index order, 16 positions at a time. Up to TILE queries share each load. Weighted values: V lies
 * row by row, one load gives 16 dimensions of one position; a value is one fma per position in position order.
 * Positions that a query does not see are skipped, never multiplied by 0: their pages may hold anything.
 * Where the queries of a tile see different ranges, the common middle is computed together and the ends one
 * by one, which keeps the order of positions for each query.
 *
 * q8_0 pages: 32 products of int8 fit 24 bits, so summing them in float32 is exact in any order, and the
 * integer sum needs no integer instructions.
 *
 * After Dao et al. 2022 (FlashAttention) and Milakov & Gimelshein 2018 (online softmax), with the span as
 * the unit whose result is merged. Next: back/be_cpu.c. */
#ifndef HEARTH_ATTN_BODY_H
#define HEARTH_ATTN_BODY_H

#include "kern/lanes.h"

#include <assert.h>
#include <stddef.h>

#if defined(LANES_AVX512)
#define TILE 8 /* queries that share a load; their sums stay in registers */
#else
#define TILE 4
#endif
#define V_LANES 2 /* groups of 16 dimensions in registers at once */
#define UNROLL _Pragma("GCC unroll 16")
#define BLOCK 32 /* dimensions under one scale in q8_0 pages */

INLINE int32_t blocks_of(int32_t hd)
{
    return (hd + BLOCK - 1) / BLOCK;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

static void put_f16(uint16_t *to, size_t step, const float *from, int32_t n)
{
    for (int32_t i = 0; i < n; i += LANES) {
        uint16_t h[LANES];
        const int32_t m = n - i < LANES ? n - i : LANES;
        l_store_f16(h, m == LANES ? l_load(from + i) : l_load_n(from + i, m, 0.0f));
        for (int32_t k = 0; k < m; k++) {
            to[(size_t)(i + k) * step] = h[k];
        }
    }
}

/* One block of up to 32: d = f16(amax / 127), q = nearest even of x / d. Not finite: d carries it, q = 0. */
static uint16_t quantize_block(int8_t *q, size_t step, const float *x, int32_t n)
{
    uint32_t amax = 0;
    for (int32_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        u &= 0x7FFFFFFF;
        amax = u > amax ? u : amax;
    }
    float a;
    memcpy(&a, &amax, sizeof a);
    const uint16_t d16 = quant_f32_to_f16(a / 127.0f);
    const float d = quant_f16_to_f32(d16);
    for (int32_t i = 0; i < n; i++) {
        float v = d > 0.0f && d < HUGE_VALF ? x[i] / d : 0.0f;
        v = v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v;
        q[(size_t)i * step] = (int8_t)lrintf(v);
    }
    return d16;
}

static void put_q8(uint8_t *k_page, size_t at, size_t step, int32_t hd, uint16_t *scales, size_t scale_step,
                   const float *x)
{
    int8_t *q = (int8_t *)k_page + at;
    for (int32_t b = 0; b < blocks_of(hd); b++) {
        const int32_t n = hd - b * BLOCK < BLOCK ? hd - b * BLOCK : BLOCK;
        scales[(size_t)b * scale_step] = quantize_block(q + (size_t)(b * BLOCK) * step, step, x + b * BLOCK, n);
    }
}

static uint16_t *scales_of(uint8_t *page, int32_t hd)
{
    return (uint16_t *)(void *)(page + (size_t)blocks_of(hd) * BLOCK * KERN_PAGE);
}

static void attn_kv_put(enum kern_kv kv, int32_t hd_k, int32_t hd_v, uint8_t *k_page, uint8_t *v_page, int32_t slot,
                        const float *k, const float *v)
{
    switch (kv) {
    case KERN_KV_F16:
        put_f16((uint16_t *)(void *)k_page + slot, KERN_PAGE, k, hd_k);
        put_f16((uint16_t *)(void *)v_page + slot * hd_v, 1, v, hd_v);
        break;
    case KERN_KV_F32:
        for (int32_t d = 0; d < hd_k; d++) {
            ((float *)(void *)k_page)[d * KERN_PAGE + slot] = k[d];
        }
        memcpy((float *)(void *)v_page + slot * hd_v, v, (size_t)hd_v * sizeof v[0]);
        break;
    case KERN_KV_Q8_0:
        put_q8(k_page, (size_t)slot, KERN_PAGE, hd_k, scales_of(k_page, hd_k) + slot, KERN_PAGE, k);
        put_q8(v_page, (size_t)(slot * blocks_of(hd_v) * BLOCK), 1, hd_v,
               scales_of(v_page, hd_v) + slot * blocks_of(hd_v), 1, v);
        break;
    case KERN_KV_COUNT:
        break;
    }
}

/* --- scores ---------------------------------------------------------------------------------------------------------- */

/* Queries of a tile, transposed: q[d][i]; for q8_0 pages as integers in float with scales. */
struct tile_q {
    _Alignas(64) float q[KERN_HEAD_MAX][TILE];
    float d[KERN_HEAD_MAX / BLOCK][TILE];
};

static void load_tile(struct tile_q *t, const struct kern_attend *a, int32_t i0, int32_t n)
{
    for (int32_t i = 0; i < TILE; i++) {
        const float *q = a->q[i0 + (i < n ? i : n - 1)]; /* empty places repeat the last query */
        if (a->kv != KERN_KV_Q8_0) {
            for (int32_t d = 0; d < a->hd_k; d++) {
                t->q[d][i] = q[d];
            }
            continue;
        }
        for (int32_t b = 0; b < blocks_of(a->hd_k); b++) {
            const int32_t m = a->hd_k - b * BLOCK < BLOCK ? a->hd_k - b * BLOCK : BLOCK;
            float amax = 0.0f;
            for (int32_t k = 0; k < m; k++) {
                const float x = fabsf(q[b * BLOCK + k]);
                amax = x > amax || x != x ? x : amax;
            }
            const float inverse = amax > 0x1p-100f && amax < HUGE_VALF ? 127.0f / amax : 0.0f;
            t->d[b][i] = amax / 127.0f;
            for (int32_t k = 0; k < m; k++) {
                const float v = inverse > 0.0f ? rintf(q[b * BLOCK + k] * inverse) : 0.0f;
                t->q[b * BLOCK + k][i] = v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v;
            }
        }
    }
}

INLINE lanes load_k(enum kern_kv kv, const uint8_t *page, int32_t d)
{
    switch (kv) {
    case KERN_KV_F16:
        return l_load_f16((const uint16_t *)(const void *)page + d * KERN_PAGE);
    case KERN_KV_F32:
        return l_load((const float *)(const void *)page + d * KERN_PAGE);
    default:
        return l_load_i8((const int8_t *)page + d * KERN_PAGE);
    }
}

/* Scores of one page for n queries (a constant) into s[i][16], unscaled. */
INLINE void page_scores(enum kern_kv kv, const uint8_t *page, int32_t hd, const struct tile_q *t, int n,
                        float (*s)[KERN_SPAN])
{
    lanes acc[TILE];
    UNROLL for (int i = 0; i < n; i++) {
        acc[i] = l_set(0.0f);
    }
    if (kv == KERN_KV_Q8_0) {
        const uint16_t *scales = (const uint16_t *)(const void *)(page + (size_t)blocks_of(hd) * BLOCK * KERN_PAGE);
        for (int32_t b = 0; b < blocks_of(hd); b++) {
            lanes part[TILE];
            UNROLL for (int i = 0; i < n; i++) {
                part[i] = l_set(0.0f);
            }
            const int32_t end = (b + 1) * BLOCK < hd ? (b + 1) * BLOCK : hd;
            for (int32_t d = b * BLOCK; d < end; d++) {
                const lanes k = load_k(kv, page, d);
                UNROLL for (int i = 0; i < n; i++) {
                    part[i] = l_fma(l_set(t->q[d][i]), k, part[i]);
                }
            }
            const lanes dk = l_load_f16(scales + b * KERN_PAGE);
            UNROLL for (int i = 0; i < n; i++) {
                acc[i] = l_fma(part[i], l_mul(l_set(t->d[b][i]), dk), acc[i]);
            }
        }
    } else {
        for (int32_t d = 0; d < hd; d++) {
            const lanes k = load_k(kv, page, d);
            UNROLL for (int i = 0; i < n; i++) {
                acc[i] = l_fma(l_set(t->q[d][i]), k, acc[i]);
            }
        }
    }
    UNROLL for (int i = 0; i < n; i++) {
        l_store(s[i], acc[i]);
    }
}

INLINE void tile_scores_n(enum kern_kv kv, const struct kern_attend *a, const struct tile_q *t, int n, int32_t page0,
                          int32_t page1, float (*s)[KERN_SPAN])
{
    for (int32_t p = page0; p < page1; p++) {
        if (p + 1 < page1) {
            __builtin_prefetch(a->k_page[p + 1]);
            __builtin_prefetch(a->k_page[p + 1] + 64);
        }
        page_scores(kv, a->k_page[p], a->hd_k, t, n, (float(*)[KERN_SPAN])(void *)&s[0][p * KERN_PAGE]);
    }
}

static void tile_scores(const struct kern_attend *a, const struct tile_q *t, int32_t n, int32_t page0, int32_t page1,
                        float (*s)[KERN_SPAN])
{
#define SCORES(kv)                                                                                                   \
    do {                                                                                                             \
        if (n == 1) {                                                                                                \
            tile_scores_n(kv, a, t, 1, page0, page1, s);                                                             \
        } else if (n <= TILE / 2) {                                                                                  \
            tile_scores_n(kv, a, t, TILE / 2, page0, page1, s);                                                      \
        } else {                                                                                                     \
            tile_scores_n(kv, a, t, TILE, page0, page1, s);                                                          \
        }                                                                                                            \
    } while (0)
    if (a->kv == KERN_KV_F16) {
        SCORES(KERN_KV_F16);
    } else if (a->kv == KERN_KV_Q8_0) {
        SCORES(KERN_KV_Q8_0);
    } else {
        SCORES(KERN_KV_F32);
    }
#undef SCORES
}

INLINE lanes attn_tanh(lanes x) /* as in vec_body.h: soft caps of scores */
{
    const lanes zero = l_set(0.0f);
    const lanes a = l_less(x, zero, l_sub(zero, x), x);
    const lanes s = l_mul(x, x);
    lanes p = l_set(-0x1.73c0e0p-8f);
    p = l_fma(p, s, l_set(0x1.51903ep-6f));
    p = l_fma(p, s, l_set(-0x1.b81e0cp-5f));
    p = l_fma(p, s, l_set(0x1.1105d0p-3f));
    p = l_fma(p, s, l_set(-0x1.555526p-2f));
    const lanes near = l_fma(l_mul(x, s), p, x);
    const lanes e = l_exp(l_add(a, a));
    lanes far = l_sub(l_set(1.0f), l_div(l_set(2.0f), l_add(e, l_set(1.0f))));
    far = l_less(x, zero, l_sub(zero, far), far);
    return l_less(a, l_set(0.625f), near, far);
}

/* Scales, caps and masks the scores of one query; then maximum, weights in place and their sum. */
static void weigh(const struct kern_attend *a, int32_t i, float *s, int32_t page0, int32_t page1)
{
    const int32_t lo = a->lo[i] - a->pos0;
    const int32_t hi = a->hi[i] - a->pos0;
    const lanes scale = l_set(a->scale);
    lanes m = l_set(-HUGE_VALF);
    for (int32_t p = page0; p < page1; p++) {
        float *at = s + p * KERN_PAGE;
        lanes v = l_mul(l_load(at), scale);
        if (a->cap > 0.0f) {
            v = l_mul(l_set(a->cap), attn_tanh(l_div(v, l_set(a->cap))));
        }
        l_store(at, v);
        if (p * KERN_PAGE < lo || (p + 1) * KERN_PAGE > hi) {
            for (int32_t k = 0; k < KERN_PAGE; k++) {
                const int32_t pos = p * KERN_PAGE + k;
                at[k] = pos >= lo && pos < hi ? at[k] : -HUGE_VALF;
            }
            v = l_load(at);
        }
        m = l_less(m, v, v, m);
    }
    float best[LANES];
    l_store(best, m);
    for (int k = 1; k < LANES; k++) {
        best[0] = best[k] > best[0] ? best[k] : best[0];
    }
    const lanes max = l_set(best[0]);
    lanes sum = l_set(0.0f);
    for (int32_t p = page0; p < page1; p++) {
        const lanes v = l_exp(l_sub(l_load(s + p * KERN_PAGE), max));
        l_store(s + p * KERN_PAGE, v);
        sum = l_add(sum, v);
    }
    a->m[i] = best[0];
    a->s[i] = l_sum(sum);
}

/* --- weighted values ------------------------------------------------------------------------------------------------------ */

INLINE lanes load_v(enum kern_kv kv, const uint8_t *page, int32_t hd, int32_t slot, int32_t d)
{
    const int32_t left = hd - d;
    if (kv == KERN_KV_F16) {
        const uint16_t *p = (const uint16_t *)(const void *)page + slot * hd + d;
        if (left >= LANES) {
            return l_load_f16(p);
        }
        uint16_t h[LANES] = { 0 };
        memcpy(h, p, (size_t)left * sizeof h[0]);
        return l_load_f16(h);
    }
    if (kv == KERN_KV_F32) {
        const float *p = (const float *)(const void *)page + slot * hd + d;
        return left >= LANES ? l_load(p) : l_load_n(p, left, 0.0f);
    }
    const int32_t n_block = blocks_of(hd);
    const uint16_t *scales = (const uint16_t *)(const void *)(page + (size_t)n_block * BLOCK * KERN_PAGE);
    const lanes scale = l_set(quant_f16_to_f32(scales[slot * n_block + d / BLOCK]));
    return l_mul(scale, l_load_i8((const int8_t *)page + slot * n_block * BLOCK + d));
}

/* acc[i][d..] += weight * v over positions [from, to) for n queries (a constant) and up to V_LANES groups. */
INLINE void values(enum kern_kv kv, const struct kern_attend *a, const float (*w)[KERN_SPAN], float *const *acc, int n,
                   int n_group, int32_t d, int32_t from, int32_t to)
{
    lanes sum[TILE][V_LANES];
    UNROLL for (int i = 0; i < n; i++) {
        UNROLL for (int g = 0; g < n_group; g++) {
            sum[i][g] = l_load(acc[i] + d + g * LANES);
        }
    }
    for (int32_t pos = from; pos < to; pos++) {
        lanes v[V_LANES];
        UNROLL for (int g = 0; g < n_group; g++) {
            v[g] = load_v(kv, a->v_page[pos / KERN_PAGE], a->hd_v, pos % KERN_PAGE, d + g * LANES);
        }
        UNROLL for (int i = 0; i < n; i++) {
            const lanes p = l_set(w[i][pos]);
            UNROLL for (int g = 0; g < n_group; g++) {
                sum[i][g] = l_fma(p, v[g], sum[i][g]);
            }
        }
    }
    UNROLL for (int i = 0; i < n; i++) {
        UNROLL for (int g = 0; g < n_group; g++) {
            l_store(acc[i] + d + g * LANES, sum[i][g]);
        }
    }
}

INLINE void values_kv(enum kern_kv kv, const struct kern_attend *a, const float (*w)[KERN_SPAN], float *const *acc, int n,
                      int32_t from, int32_t to)
{
    int32_t d = 0;
    for (; d + V_LANES * LANES <= a->hd_v; d += V_LANES * LANES) {
        values(kv, a, w, acc, n, V_LANES, d, from, to);
    }
    for (; d < a->hd_v; d += LANES) {
        values(kv, a, w, acc, n, 1, d, from, to);
    }
}

static void values_n(const struct kern_attend *a, const float (*w)[KERN_SPAN], float *const *acc, bool is_tile,
                     int32_t from, int32_t to)
{
    if (from >= to) {
        return;
    }
    if (a->kv == KERN_KV_F16) {
        if (is_tile) {
            values_kv(KERN_KV_F16, a, w, acc, TILE, from, to);
        } else {
            values_kv(KERN_KV_F16, a, w, acc, 1, from, to);
        }
    } else if (a->kv == KERN_KV_Q8_0) {
        if (is_tile) {
            values_kv(KERN_KV_Q8_0, a, w, acc, TILE, from, to);
        } else {
            values_kv(KERN_KV_Q8_0, a, w, acc, 1, from, to);
        }
    } else {
        values_kv(KERN_KV_F32, a, w, acc, 1, from, to);
    }
}

/* Sums for the n queries of a tile in local memory, then copied out. */
static void tile_values(const struct kern_attend *a, const float (*w)[KERN_SPAN], int32_t i0, int32_t n)
{
    _Alignas(64) float local[TILE][KERN_HEAD_MAX + LANES];
    float *acc[TILE];
    int32_t from = 0;
    int32_t to = KERN_SPAN;
    for (int32_t i = 0; i < TILE; i++) {
        acc[i] = local[i];
        memset(local[i], 0, ((size_t)a->hd_v + LANES) * sizeof local[i][0]);
    }
    for (int32_t i = 0; i < n; i++) {
        const int32_t lo = a->lo[i0 + i] - a->pos0;
        const int32_t hi = a->hi[i0 + i] - a->pos0;
        from = lo > from ? lo : from;
        to = hi < to ? hi : to;
    }
    const bool is_tile = n > 1 && a->kv != KERN_KV_F32 && to - from >= KERN_PAGE;
    for (int32_t i = 0; i < n; i++) { /* before the common part, or everything */
        const int32_t hi = a->hi[i0 + i] - a->pos0;
        values_n(a, w + i, &acc[i], false, a->lo[i0 + i] - a->pos0, is_tile ? from : hi);
    }
    if (is_tile) {
        values_n(a, w, acc, true, from, to);
        for (int32_t i = 0; i < n; i++) {
            values_n(a, w + i, &acc[i], false, to, a->hi[i0 + i] - a->pos0);
        }
    }
    for (int32_t i = 0; i < n; i++) {
        memcpy(a->acc[i0 + i], local[i], (size_t)a->hd_v * sizeof local[i][0]);
    }
}

static void attn_attend_span(const struct kern_attend *a)
{
    struct tile_q t;
    _Alignas(64) float s[TILE + 1][KERN_SPAN]; /* one spare, so that s[n] exists */
    assert(a->n_query >= 1 && a->n_query <= KERN_QUERIES && a->hd_k <= KERN_HEAD_MAX && a->hd_v <= KERN_HEAD_MAX);
    for (int32_t i0 = 0; i0 < a->n_query; i0 += TILE) {
        const int32_t n = a->n_query - i0 < TILE ? a->n_query - i0 : TILE;
        int32_t lo = KERN_SPAN;
        int32_t hi = 0;
        for (int32_t i = i0; i < i0 + n; i++) {
            lo = a->lo[i] - a->pos0 < lo ? a->lo[i] - a->pos0 : lo;
            hi = a->hi[i] - a->pos0 > hi ? a->hi[i] - a->pos0 : hi;
        }
        const int32_t page0 = lo / KERN_PAGE;
        const int32_t page1 = (hi + KERN_PAGE - 1) / KERN_PAGE;
        load_tile(&t, a, i0, n);
        tile_scores(a, &t, n, page0, page1, s);
        for (int32_t i = 0; i < n; i++) {
            weigh(a, i0 + i, s[i], page0, page1);
        }
        memset(s[n], 0, (size_t)(TILE - n) * sizeof s[0]); /* empty places of the tile weigh nothing */
        tile_values(a, (const float(*)[KERN_SPAN])s, i0, n);
    }
}

/* --- merging ---------------------------------------------------------------------------------------------------------------- */

static float exp_one(float x)
{
    float v[LANES];
    l_store(v, l_exp(l_set(x)));
    return v[0];
}

static void attn_attend_merge(float *m, float *s, float *acc, float m2, float s2, const float *acc2, int32_t hd_v)
{
    const float most = m2 > *m ? m2 : *m;
    const float a = exp_one(*m - most);
    const float b = exp_one(m2 - most);
    *m = most;
    *s = fmaf(*s, a, s2 * b);
    for (int32_t d = 0; d < hd_v; d += LANES) {
        const int32_t n = hd_v - d < LANES ? hd_v - d : LANES;
        const lanes x = n == LANES ? l_load(acc + d) : l_load_n(acc + d, n, 0.0f);
        const lanes y = n == LANES ? l_load(acc2 + d) : l_load_n(acc2 + d, n, 0.0f);
        l_store_n(acc + d, l_fma(x, l_set(a), l_mul(y, l_set(b))), n);
    }
}

static void attn_attend_finish(float *y, float m, float s, const float *acc, const float *sink, int32_t hd_v)
{
    float scale = 1.0f;
    if (sink != NULL) {
        const float most = *sink > m ? *sink : m;
        scale = exp_one(m - most);
        s = fmaf(s, scale, exp_one(*sink - most));
    }
    const lanes f = l_set(scale);
    const lanes d = l_set(s);
    for (int32_t i = 0; i < hd_v; i += LANES) {
        const int32_t n = hd_v - i < LANES ? hd_v - i : LANES;
        const lanes x = n == LANES ? l_load(acc + i) : l_load_n(acc + i, n, 0.0f);
        l_store_n(y + i, l_div(l_mul(x, f), d), n);
    }
}

INLINE void attn_fill(struct kern_table *t)
{
    t->kv_put = attn_kv_put;
    t->attend_span = attn_attend_span;
    t->attend_merge = attn_attend_merge;
    t->attend_finish = attn_attend_finish;
}

#endif
