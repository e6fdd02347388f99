/* attn_ref - the cache layout and attention over one span: plain C, the normative form
 *
 * What every instruction set must equal bit for bit, one query, one position, one dimension at a
 * time. A page holds 16 positions of one kv head. K lies transposed (k[dim][16]), so that one load
 * gives a dimension of 16 positions and a score needs no horizontal sum; V lies row by row
 * (v[16][dim]), so that one load gives 16 dimensions of a position and a weighted sum needs none
 * either. Both chains are then plain: a score is one fma per dimension in index order, an output
 * element one fma per position in position order.
 *
 * A span (256 positions, 16 pages) yields maximum, sum of weights and weighted values; spans are
 * merged in index order with the online softmax of Milakov & Gimelshein 2018, the scheme behind
 * FlashAttention (Dao et al. 2022). Positions that a query may not see are skipped, never
 * multiplied by 0: their memory may hold anything.
 *
 * q8_0 pages: 32 numbers share a scale in half precision. The query is quantized like activations
 * (gemm_act.h), so that 32 products are an exact integer; the sum over blocks is a chain of fma.
 * For the values each weight is multiplied with the scale of its position's block, the products of
 * a span become 15-bit integers, and the sum over the span is an exact integer too. Within a page
 * the numbers lie as instructions for integer products want them: four dimensions of a key, two
 * positions of a value side by side.
 *
 * bf16 pages: everything is rounded to bf16, the weights too, and multiplied pair by pair, the odd
 * one of a pair first, which is the order of the instruction that multiplies pairs (attn_bf16.h).
 *
 * Rejected: merging within a span (running maximum), because then the result would depend on where
 * a tile of pages ends; scaling the query before the product, because the product with an integer
 * block would round twice.
 *
 * Speed: docs/SPEED.md, Kernels.
 *
 * Next: attn_body.h, the same for vectors; back/be_cpu.c, which hands out spans. */
#include "kern/attn.h"

#include "kern/vec.h"
#include "num/quant.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LANES 16
#define BLOCK 32 /* dimensions under one scale in q8_0 pages */

static int32_t blocks_of(int32_t hd)
{
    return (hd + BLOCK - 1) / BLOCK;
}

/* Scales of a q8_0 page follow its integers. */
static uint16_t *scales_of(uint8_t *page, int32_t hd)
{
    return (uint16_t *)(void *)(page + (size_t)blocks_of(hd) * BLOCK * KERN_PAGE);
}

/* --- writing --------------------------------------------------------------------------------- */

/* The greatest |x|, as bits: a NaN is greater than infinity, so it is not lost. */
static float greatest_abs(const float *x, int32_t n)
{
    uint32_t most = 0;
    for (int32_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        u &= 0x7FFFFFFF;
        most = u > most ? u : most;
    }
    float a;
    memcpy(&a, &most, sizeof a);
    return a;
}

/* One block: n <= 32 numbers into 32 integers; the rest becomes 0. Returns d = f16(amax / 127);
 * q = x / d to the nearest. A d of 0, infinity or NaN leaves q = 0. */
static uint16_t quantize_block(int8_t q[BLOCK], const float *x, int32_t n)
{
    const uint16_t d16 = quant_f32_to_f16(greatest_abs(x, n) / 127.0f);
    const float d = quant_f16_to_f32(d16);
    const bool is_usable = d > 0.0f && d < HUGE_VALF;
    for (int32_t i = 0; i < BLOCK; i++) {
        float v = is_usable && i < n ? x[i] / d : 0.0f;
        v = v > 127.0f ? 127.0f : v; /* where d was rounded down, or is a subnormal */
        v = v < -127.0f ? -127.0f : v;
        q[i] = (int8_t)lrintf(v);
    }
    return d16;
}

/* Where dimension d of a position lies in a q8_0 page. Keys are stored as q + 128. */
static int32_t k_at(int32_t d, int32_t slot)
{
    return (d / 4 * KERN_PAGE + slot) * 4 + d % 4;
}

static int32_t v_at(int32_t d, int32_t slot)
{
    return d / BLOCK * BLOCK * KERN_PAGE + (slot / 2 * BLOCK + d % BLOCK) * 2 + slot % 2;
}

static void put_q8(uint8_t *page, bool is_k, int32_t hd, int32_t slot, const float *x)
{
    int8_t q[BLOCK];
    for (int32_t b = 0; b < blocks_of(hd); b++) {
        const int32_t n = hd - b * BLOCK < BLOCK ? hd - b * BLOCK : BLOCK;
        scales_of(page, hd)[b * KERN_PAGE + slot] = quantize_block(q, x + b * BLOCK, n);
        for (int32_t i = 0; i < BLOCK; i++) {
            const int32_t d = b * BLOCK + i;
            page[is_k ? k_at(d, slot) : v_at(d, slot)] = (uint8_t)(is_k ? q[i] + 128 : q[i]);
        }
    }
}

/* To the nearest bf16, widened again. Below 2^-50 it is 0, so that products are multiples of
 * 2^-114, and so are sums of them, rounded or not: nothing is ever subnormal. */
static float near_bf16(float x)
{
    return fabsf(x) < 0x1p-50f ? 0.0f : quant_bf16_to_f32(quant_f32_to_bf16(x));
}

/* bf16 pages: pairs of dimensions of a key, pairs of positions of a value. */
static int32_t k_at_bf16(int32_t d, int32_t slot)
{
    return (d / 2 * KERN_PAGE + slot) * 2 + d % 2;
}

static int32_t v_at_bf16(int32_t d, int32_t slot, int32_t hd)
{
    return (slot / 2 * hd + d) * 2 + slot % 2;
}

static void put_bf16(uint16_t *k_page, uint16_t *v_page, int32_t hd_k, int32_t hd_v, int32_t slot,
                     const float *k, const float *v)
{
    for (int32_t d = 0; d < hd_k + hd_k % 2; d++) {
        k_page[k_at_bf16(d, slot)] = d < hd_k ? quant_f32_to_bf16(near_bf16(k[d])) : 0;
    }
    for (int32_t d = 0; d < hd_v; d++) {
        v_page[v_at_bf16(d, slot, hd_v)] = quant_f32_to_bf16(near_bf16(v[d]));
    }
}

static void ref_kv_put(enum kern_kv kv, int32_t hd_k, int32_t hd_v, uint8_t *k_page,
                       uint8_t *v_page, int32_t slot, const float *k, const float *v)
{
    if (kv == KERN_KV_Q8_0) {
        put_q8(k_page, true, hd_k, slot, k);
        put_q8(v_page, false, hd_v, slot, v);
        return;
    }
    if (kv == KERN_KV_BF16) {
        put_bf16((uint16_t *)(void *)k_page, (uint16_t *)(void *)v_page, hd_k, hd_v, slot, k, v);
        return;
    }
    for (int32_t d = 0; d < hd_k; d++) {
        if (kv == KERN_KV_F16) {
            ((uint16_t *)(void *)k_page)[d * KERN_PAGE + slot] = quant_f32_to_f16(k[d]);
        } else {
            ((float *)(void *)k_page)[d * KERN_PAGE + slot] = k[d];
        }
    }
    for (int32_t d = 0; d < hd_v; d++) {
        if (kv == KERN_KV_F16) {
            ((uint16_t *)(void *)v_page)[slot * hd_v + d] = quant_f32_to_f16(v[d]);
        } else {
            ((float *)(void *)v_page)[slot * hd_v + d] = v[d];
        }
    }
}

/* --- one span -------------------------------------------------------------------------------- */

struct query8 { /* a query in blocks of 32 integers */
    int8_t q[KERN_HEAD_MAX];
    float d[KERN_HEAD_MAX / BLOCK];
};

/* The rule of activations: see quantize_unit in gemm_act.h. */
static void quantize_query(struct query8 *to, const float *q, int32_t hd)
{
    for (int32_t b = 0; b < blocks_of(hd); b++) {
        const int32_t n = hd - b * BLOCK < BLOCK ? hd - b * BLOCK : BLOCK;
        const float amax = greatest_abs(q + b * BLOCK, n);
        const bool is_usable = amax >= 0x1p-100f && amax < HUGE_VALF;
        const float inverse = is_usable ? 127.0f / amax : 0.0f;
        to->d[b] = is_usable ? amax / 127.0f : amax < 1.0f ? 0.0f : amax;
        for (int32_t i = b * BLOCK; i < b * BLOCK + n; i++) {
            to->q[i] = is_usable ? (int8_t)lrintf(q[i] * inverse) : 0;
        }
    }
}

/* Within a block integers, exact; from block to block a chain of fma with both scales. */
static float score_q8(const struct query8 *q, const uint8_t *page, int32_t hd, int32_t slot)
{
    const uint16_t *scale =
        (const uint16_t *)(const void *)(page + (size_t)blocks_of(hd) * BLOCK * KERN_PAGE) + slot;
    float acc = 0.0f;
    for (int32_t b = 0; b < blocks_of(hd); b++) {
        const int32_t end = (b + 1) * BLOCK < hd ? (b + 1) * BLOCK : hd;
        int32_t sum = 0; /* at most 32 * 127^2 < 2^24 */
        for (int32_t d = b * BLOCK; d < end; d++) {
            sum += q->q[d] * (page[k_at(d, slot)] - 128);
        }
        acc = fmaf((float)sum, q->d[b] * quant_f16_to_f32(scale[b * KERN_PAGE]), acc);
    }
    return acc;
}

static float score_float(const struct kern_attend *a, const float *q, const uint8_t *page,
                         int32_t slot)
{
    float acc = 0.0f;
    for (int32_t d = 0; d < a->hd_k; d++) {
        const int32_t at = d * KERN_PAGE + slot;
        const float k = a->kv == KERN_KV_F16
                            ? quant_f16_to_f32(((const uint16_t *)(const void *)page)[at])
                            : ((const float *)(const void *)page)[at];
        acc = fmaf(q[d], k, acc);
    }
    return acc;
}

/* Pair by pair, the odd dimension first. */
static float score_bf16(const float *q, const uint8_t *page, int32_t hd, int32_t slot)
{
    const uint16_t *k = (const uint16_t *)(const void *)page;
    float acc = 0.0f;
    for (int32_t d = 0; d < hd; d += 2) {
        if (d + 1 < hd) {
            acc = fmaf(near_bf16(q[d + 1]), quant_bf16_to_f32(k[k_at_bf16(d + 1, slot)]), acc);
        }
        acc = fmaf(near_bf16(q[d]), quant_bf16_to_f32(k[k_at_bf16(d, slot)]), acc);
    }
    return acc;
}

/* exp(x), x <= 0: 2^n times a polynomial in the rest of the exponent. Its degree is 4 (within
 * 2^-18) for f16 and q8_0 pages, 3 (within 2^-13) for bf16 pages, whose weights are rounded. */
static float weight_of(enum kern_kv kv, float x)
{
    if (kv == KERN_KV_F32) {
        return vec_ref_exp(x);
    }
    const float big = 0x1.8000FEp23f; /* 1.5 * 2^23 + 127: the sum's low bits are n + 127 */
    const float c = x < -88.0f ? -88.0f : x;
    const float t = fmaf(c, 0x1.715476p0f, big);
    const float f = fmaf(c, 0x1.715476p0f, big - t);
    float p;
    if (kv == KERN_KV_BF16) {
        p = 0x1.C3F760p-5f;
        p = fmaf(p, f, 0x1.F0DE1Ap-3f);
        p = fmaf(p, f, 0x1.62F31Ap-1f);
        p = fmaf(p, f, 0x1.FFF692p-1f);
    } else {
        p = 0x1.3997D6p-7f;
        p = fmaf(p, f, 0x1.CA1440p-5f);
        p = fmaf(p, f, 0x1.EC06DAp-3f);
        p = fmaf(p, f, 0x1.62E0DCp-1f);
        p = fmaf(p, f, 0x1.FFFFE8p-1f);
    }
    uint32_t u;
    memcpy(&u, &t, sizeof u);
    u <<= 23;
    float power;
    memcpy(&power, &u, sizeof power);
    return kv == KERN_KV_BF16 ? near_bf16(p * power) : p * power; /* n = -127 gives 0 */
}

static float value_at(const struct kern_attend *a, const uint8_t *page, int32_t slot, int32_t d)
{
    if (a->kv == KERN_KV_F16) {
        return quant_f16_to_f32(((const uint16_t *)(const void *)page)[slot * a->hd_v + d]);
    }
    return ((const float *)(const void *)page)[slot * a->hd_v + d];
}

static void values_float(const struct kern_attend *a, int32_t i, int32_t lo, int32_t hi,
                         const float *w)
{
    for (int32_t d = 0; d < a->hd_v; d++) {
        float acc = 0.0f;
        for (int32_t p = lo; p < hi; p++) {
            acc = fmaf(w[p], value_at(a, a->v_page[p / KERN_PAGE], p % KERN_PAGE, d), acc);
        }
        a->acc[i][d] = acc;
    }
}

/* Pair by pair, the odd position first. */
static void values_bf16(const struct kern_attend *a, int32_t i, int32_t lo, int32_t hi,
                        const float *w)
{
    for (int32_t d = 0; d < a->hd_v; d++) {
        float acc = 0.0f;
        for (int32_t pair = lo / 2 * 2; pair < hi; pair += 2) {
            for (int32_t p = pair + 1; p >= pair; p--) {
                const uint16_t *v = (const uint16_t *)(const void *)a->v_page[p / KERN_PAGE];
                if (p >= lo && p < hi) {
                    const int32_t at = v_at_bf16(d, p % KERN_PAGE, a->hd_v);
                    acc = fmaf(w[p], quant_bf16_to_f32(v[at]), acc);
                }
            }
        }
        a->acc[i][d] = acc;
    }
}

/* Weight times scale as integers up to 32767, of the greatest such product; their sum of products
 * with the values stays below 256 * 32767 * 127 < 2^30. Numbers that are not finite reach the
 * result: 0 times the greatest of them. */
static void values_q8(const struct kern_attend *a, int32_t i, int32_t lo, int32_t hi,
                      const float *w)
{
    const int32_t n_block = blocks_of(a->hd_v);
    const uint16_t *scale[KERN_SPAN];
    float x[KERN_SPAN];
    for (int32_t p = lo; p < hi; p++) {
        const uint8_t *page = a->v_page[p / KERN_PAGE];
        scale[p] = (const uint16_t *)(const void *)(page + (size_t)n_block * BLOCK * KERN_PAGE) +
                   p % KERN_PAGE;
        float d[KERN_HEAD_MAX / BLOCK];
        for (int32_t b = 0; b < n_block; b++) {
            d[b] = quant_f16_to_f32(scale[p][b * KERN_PAGE]);
        }
        x[p] = w[p] * greatest_abs(d, n_block);
    }
    const float most = greatest_abs(x + lo, hi - lo);
    const bool is_usable = most >= 0x1p-100f && most < HUGE_VALF;
    const float inverse = is_usable ? 32767.0f / most : 0.0f;
    const float step = is_usable ? most / 32767.0f : most < 1.0f ? 0.0f : most;
    for (int32_t b = 0; b < n_block; b++) {
        const int32_t end = (b + 1) * BLOCK < a->hd_v ? (b + 1) * BLOCK : a->hd_v;
        int32_t u[KERN_SPAN];
        for (int32_t p = lo; p < hi; p++) {
            const float d = quant_f16_to_f32(scale[p][b * KERN_PAGE]);
            u[p] = is_usable ? (int32_t)lrintf(w[p] * inverse * d) : 0;
        }
        for (int32_t d = b * BLOCK; d < end; d++) {
            int32_t sum = 0;
            for (int32_t p = lo; p < hi; p++) {
                sum += u[p] * (int8_t)a->v_page[p / KERN_PAGE][v_at(d, p % KERN_PAGE)];
            }
            a->acc[i][d] = (float)sum * step;
        }
    }
}

/* Positions [lo, hi) of the span, for query i. */
static void span_of_query(const struct kern_attend *a, int32_t i, int32_t lo, int32_t hi)
{
    float w[KERN_SPAN];
    struct query8 q8;
    if (a->kv == KERN_KV_Q8_0) {
        quantize_query(&q8, a->q[i], a->hd_k);
    }
    float m = -HUGE_VALF;
    for (int32_t p = lo; p < hi; p++) {
        const uint8_t *page = a->k_page[p / KERN_PAGE];
        const int32_t slot = p % KERN_PAGE;
        w[p] = a->kv == KERN_KV_Q8_0   ? score_q8(&q8, page, a->hd_k, slot)
               : a->kv == KERN_KV_BF16 ? score_bf16(a->q[i], page, a->hd_k, slot)
                                       : score_float(a, a->q[i], page, slot);
        w[p] = w[p] * a->scale;
        if (a->cap > 0.0f) {
            w[p] = a->cap * vec_ref_tanh(w[p] / a->cap);
        }
        m = w[p] > m ? w[p] : m;
    }
    m = m + 0.0f; /* +0, if it was -0 */
    float sum[LANES] = { 0.0f };
    for (int32_t p = lo; p < hi; p++) {
        w[p] = weight_of(a->kv, w[p] - m);
        sum[p % LANES] = sum[p % LANES] + w[p];
    }
    a->m[i] = m;
    a->s[i] = vec_ref_tree(sum);
    if (a->kv == KERN_KV_Q8_0) {
        values_q8(a, i, lo, hi, w);
    } else if (a->kv == KERN_KV_BF16) {
        values_bf16(a, i, lo, hi, w);
    } else {
        values_float(a, i, lo, hi, w);
    }
}

static void ref_attend_span(const struct kern_attend *a)
{
    assert(a->n_query >= 1 && a->n_query <= KERN_QUERIES);
    assert(a->hd_k <= KERN_HEAD_MAX && a->hd_v <= KERN_HEAD_MAX);
    for (int32_t i = 0; i < a->n_query; i++) {
        const int32_t lo = a->lo[i] > a->pos0 ? a->lo[i] - a->pos0 : 0;
        const int32_t hi = a->hi[i] - a->pos0 < KERN_SPAN ? a->hi[i] - a->pos0 : KERN_SPAN;
        assert(lo < hi);
        span_of_query(a, i, lo, hi);
    }
}

/* --- spans together -------------------------------------------------------------------------- */

/* Both parts are brought to the greater maximum: sum e^(x - m2) = e^(m - m2) * sum e^(x - m). */
static void ref_attend_merge(float *m, float *s, float *acc, float m2, float s2, const float *acc2,
                             int32_t hd_v)
{
    const float most = m2 > *m ? m2 : *m;
    const float a = vec_ref_exp(*m - most);
    const float b = vec_ref_exp(m2 - most);
    *m = most;
    *s = fmaf(*s, a, s2 * b);
    for (int32_t d = 0; d < hd_v; d++) {
        acc[d] = fmaf(acc[d], a, acc2[d] * b);
    }
}

/* A sink is one more score without a value (gpt-oss, OpenAI 2025). */
static void ref_attend_finish(float *y, float m, float s, const float *acc, const float *sink,
                              int32_t hd_v)
{
    float f = 1.0f;
    if (sink != NULL) {
        const float most = *sink > m ? *sink : m;
        f = vec_ref_exp(m - most);
        s = fmaf(s, f, vec_ref_exp(*sink - most));
    }
    for (int32_t d = 0; d < hd_v; d++) {
        y[d] = (acc[d] * f) / s;
    }
}

void attn_ref_fill(struct kern_table *t)
{
    t->kv_put = ref_kv_put;
    t->attend_span = ref_attend_span;
    t->attend_merge = ref_attend_merge;
    t->attend_finish = ref_attend_finish;
}
