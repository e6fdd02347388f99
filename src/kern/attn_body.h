/* attn_body - the cache layout and attention over one span (included by kern/attn_*.c)
 *
 * The text of the attention kernels, the same for every instruction set; lanes.h gives the words
 * and attn_ref.c the meaning. What is added here is only who shares what:
 *
 *   - Queries are taken in tiles of up to TILE. A load of K (one dimension of 16 positions) serves
 *     all queries of the tile and, where the tile is small, several pages are walked side by side,
 *     so that there are always enough independent chains to fill the multipliers: queries times
 *     pages is about CHAINS. V likewise: queries times groups of 16 dimensions is about CHAINS.
 *   - A tile of 3 or 5..7 queries is filled up by repeating the last one; its results go nowhere.
 *   - Where the queries of a tile see different ranges, the common middle of the values is computed
 *     together and the ends query by query, which keeps each query's order of positions.
 *   - Decoding reads each page once, from memory. So the scores of a page prefetch its values, and
 *     the values prefetch the keys of the same page of the next span: half a span ahead.
 *
 * q8_0 pages: integers all the way, whose sums are exact in any order; each block of 32 dimensions
 * then joins in floats. Only positions are shared alike: a query that does not see a position has
 * weight 0 there, so the values need no ends of their own.
 *
 *     pages ->   p0    p1    p2    p3          one load of K: dimension d of 16 positions
 *     query 0    s     s     s     s
 *     query 1    s     s     s     s           TILE x pages running sums in registers
 *     ...
 *
 * Then WEIGHED rows at a time: scale, cap, hide, maximum, exp, sum (weigh), and the same picture
 * for V with groups of 16 dimensions in place of pages.
 *
 * Next: back/be_cpu.c. */
#ifndef HEARTH_ATTN_BODY_H
#define HEARTH_ATTN_BODY_H

#include "kern/attn_bf16.h"

#include <assert.h>

/* Of one number in a page of floats. */
INLINE size_t bytes_of(enum form form)
{
    return form == FORM_F16 ? 2 : 4;
}

/* Scales of a q8_0 page follow its integers. */
INLINE const uint16_t *scales_of(const uint8_t *page, int32_t hd)
{
    return (const uint16_t *)(const void *)(page + (size_t)blocks_of(hd) * BLOCK_PAGE);
}

/* --- quantizing ------------------------------------------------------------------------------ */

/* A block of up to 32 floats in registers, filled up with 0. */
struct block {
    lanes x[2];
    float amax; /* NaN if one is */
};

INLINE struct block load_block(const float *x, int32_t n)
{
    struct block b;
    b.x[0] = n > 0 ? l_load_at(x, 0, n, 0.0f) : l_set(0.0f);
    b.x[1] = n > LANES ? l_load_at(x, LANES, n, 0.0f) : l_set(0.0f);
    b.amax = l_amax(b.x[0], b.x[1]);
    return b;
}

/* A block of a page; returns its scale. */
INLINE uint16_t quantize_block(int8_t q[BLOCK], const float *x, int32_t n)
{
    const struct block b = load_block(x, n);
    const uint16_t d16 = quant_f32_to_f16(b.amax / 127.0f);
    const float d = quant_f16_to_f32(d16);
    const bool is_usable = d > 0.0f && d < HUGE_VALF;
    for (int i = 0; i < 2; i++) {
        const lanes t = is_usable ? l_div(b.x[i], l_set(d)) : l_set(0.0f);
        const lanes v = l_max(l_min(t, l_set(127.0f)), l_set(-127.0f));
        const lanes r = l_add(v, l_set(0x1.8p23f)); /* rounds to an integer, ties to even */
        il_store_i8(q + LANES * i, il_sub(l_bits(r), il_set(0x4B400000)));
    }
    return d16;
}

/* --- writing --------------------------------------------------------------------------------- */

/* Four dimensions side by side, as q + 128. */
static void put_k_q8(uint8_t *page, int32_t hd, int32_t slot, const float *x)
{
    uint16_t *scale = (uint16_t *)(void *)(page + (size_t)blocks_of(hd) * BLOCK_PAGE);
    for (int32_t b = 0; b < blocks_of(hd); b++) {
        int8_t q[BLOCK];
        scale[b * KERN_PAGE + slot] = quantize_block(q, x + b * BLOCK, hd - b * BLOCK);
        for (int32_t g = 0; g < BLOCK / 4; g++) {
            uint32_t four;
            memcpy(&four, q + 4 * g, sizeof four);
            four ^= 0x80808080u;
            memcpy(page + b * BLOCK_PAGE + (g * KERN_PAGE + slot) * 4, &four, sizeof four);
        }
    }
}

/* Two positions side by side. */
static void put_v_q8(uint8_t *page, int32_t hd, int32_t slot, const float *x)
{
    uint16_t *scale = (uint16_t *)(void *)(page + (size_t)blocks_of(hd) * BLOCK_PAGE);
    for (int32_t b = 0; b < blocks_of(hd); b++) {
        int8_t q[BLOCK];
        uint8_t *to = page + b * BLOCK_PAGE + slot / 2 * 2 * BLOCK + slot % 2;
        scale[b * KERN_PAGE + slot] = quantize_block(q, x + b * BLOCK, hd - b * BLOCK);
        for (int32_t i = 0; i < BLOCK; i++) {
            to[2 * i] = (uint8_t)q[i];
        }
    }
}

static void put_f16(uint16_t *to, size_t step, const float *from, int32_t n)
{
    for (int32_t i = 0; i < n; i += LANES) {
        const int32_t m = n - i < LANES ? n - i : LANES;
        uint16_t h[LANES];
        l_store_f16(h, l_load_at(from, i, n, 0.0f));
        for (int32_t k = 0; k < m; k++) {
            to[(size_t)(i + k) * step] = h[k];
        }
    }
}

static void attn_kv_put(enum kern_kv kv, int32_t hd_k, int32_t hd_v, uint8_t *k_page,
                        uint8_t *v_page, int32_t slot, const float *k, const float *v)
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
        put_k_q8(k_page, hd_k, slot, k);
        put_v_q8(v_page, hd_v, slot, v);
        break;
    case KERN_KV_BF16:
        put_pages_bf16(hd_k, hd_v, k_page, v_page, slot, k, v);
        break;
    case KERN_KV_COUNT:
        break;
    }
}

/* --- a tile's queries ------------------------------------------------------------------------- */

/* A query as floats; for q8_0 pages blocks of integers. */
static void load_query(enum form form, struct tile *t, int32_t i, const float *q)
{
    const int32_t hd = t->a->hd_k;
    if (form == FORM_BF16 || form == FORM_DOT) {
        load_query_bf16(form, t, i, q, hd);
        return;
    }
    if (form != FORM_Q8_0) {
        memcpy(t->q[i], q, (size_t)hd * sizeof q[0]);
        return;
    }
    static_assert(BLOCKS_MAX <= LANES, "a query's scales are made at once");
    float last[BLOCK] = { 0.0f }; /* block, filled up */
    const int32_t n_whole = hd / BLOCK;
    memcpy(last, q + n_whole * BLOCK, (size_t)(hd % BLOCK) * sizeof last[0]);
    float amax[LANES] = { 0.0f };
    float d[LANES];
    float inverse[LANES];
    for (int32_t b = 0; b < blocks_of(hd); b++) {
        const float *x = b < n_whole ? q + b * BLOCK : last;
        amax[b] = l_amax(l_load(x), l_load(x + LANES));
    }
    unit_scales(amax, amax, LANES, d, inverse);
    for (int32_t b = 0; b < blocks_of(hd); b++) {
        int32_t half[2];
        quantize_unit(b < n_whole ? q + b * BLOCK : last, inverse[b], t->i8.q[i] + b * BLOCK);
        l_sums_i8(t->i8.q[i] + b * BLOCK, half);
        t->i8.d[i][b] = d[b];
        t->i8.sum[i][b] = half[0] + half[1];
    }
}

/* --- scores ---------------------------------------------------------------------------------- */

INLINE lanes load_k(enum form form, const uint8_t *page, size_t d)
{
    const uint8_t *at = page + d * KERN_PAGE * bytes_of(form);
    return form == FORM_F16 ? l_load_f16((const uint16_t *)(const void *)at)
                            : l_load((const float *)(const void *)at);
}

/* Pages [page, page + p) for n queries into t->w, unscaled; form, n and p are constants. */
INLINE void score_pages(enum form form, struct tile *t, int n, int p, int32_t page)
{
    const struct kern_attend *a = t->a;
    const uint8_t *k[PAGES_MAX];
    const uint8_t *ahead[PAGES_MAX];
    UNROLL for (int j = 0; j < p; j++)
    {
        k[j] = a->k_page[page + j];
        ahead[j] = a->v_page[page + j];
    }
    lanes acc[TILE][PAGES_MAX];
    UNROLL for (int i = 0; i < n * p; i++)
    {
        acc[i / p][i % p] = l_set(0.0f);
    }
    for (int32_t d = 0; d < a->hd_k; d++) {
        lanes x[PAGES_MAX];
        UNROLL for (int j = 0; j < p; j++)
        {
            x[j] = load_k(form, k[j], (size_t)d);
            __builtin_prefetch(ahead[j] + (size_t)d * KERN_PAGE * bytes_of(form), 0, 2);
        }
        UNROLL for (int i = 0; i < n; i++)
        {
            const lanes q = l_set(t->q[i][d]);
            UNROLL for (int j = 0; j < p; j++)
            {
                acc[i][j] = l_fma(q, x[j], acc[i][j]);
            }
        }
    }
    UNROLL for (int i = 0; i < n * p; i++)
    {
        l_store(&t->w[i / p][(page + i % p) * KERN_PAGE], acc[i / p][i % p]);
    }
}

/* The same with integers: the exact sum of a block joins the chain of blocks. */
INLINE void score_pages_q8(struct tile *t, int n, int p, int32_t page)
{
    const struct kern_attend *a = t->a;
    lanes sum[TILE][PAGES_MAX];
    UNROLL for (int i = 0; i < n * p; i++)
    {
        sum[i / p][i % p] = l_set(0.0f);
    }
    for (int32_t b = 0; b < blocks_of(a->hd_k); b++) {
        const size_t at = (size_t)b * BLOCK_PAGE;
        ilanes acc[TILE][PAGES_MAX];
        UNROLL for (int i = 0; i < n * p; i++)
        {
            acc[i / p][i % p] = f_start(t->i8.sum[i / p][b]);
        }
        for (int32_t g = 0; g < BLOCK / 4; g++) {
            bytes4 x[PAGES_MAX];
            UNROLL for (int j = 0; j < p; j++)
            {
                x[j] = f_load(a->k_page[page + j] + at + (size_t)g * 4 * KERN_PAGE);
                __builtin_prefetch(a->v_page[page + j] + at + (size_t)g * 4 * KERN_PAGE, 0, 2);
            }
            UNROLL for (int i = 0; i < n; i++)
            {
                UNROLL for (int j = 0; j < p; j++)
                {
                    acc[i][j] = f_dot(acc[i][j], x[j], &t->i8.q[i][b * BLOCK + 4 * g]);
                }
            }
        }
        UNROLL for (int j = 0; j < p; j++)
        {
            const lanes d = l_load_f16(scales_of(a->k_page[page + j], a->hd_k) + b * KERN_PAGE);
            __builtin_prefetch(scales_of(a->v_page[page + j], a->hd_v) + b * KERN_PAGE, 0, 2);
            UNROLL for (int i = 0; i < n; i++)
            {
                const lanes both = l_mul(l_set(t->i8.d[i][b]), d);
                sum[i][j] = l_fma(l_from_int(acc[i][j]), both, sum[i][j]);
            }
        }
    }
    UNROLL for (int i = 0; i < n * p; i++)
    {
        l_store(&t->w[i / p][(page + i % p) * KERN_PAGE], sum[i / p][i % p]);
    }
}

INLINE void score_some(enum form form, struct tile *t, int n, int p, int32_t page)
{
    if (form == FORM_Q8_0) {
        score_pages_q8(t, n, p, page);
    } else if (form == FORM_BF16 || form == FORM_DOT) {
        score_pages_bf16(form, t, n, p, page);
    } else {
        score_pages(form, t, n, p, page);
    }
}

/* As many pages side by side as make CHAINS chains, or half as many where each has two sums; then
 * the rest one by one. */
INLINE void score_n(enum form form, struct tile *t, int n)
{
    const int chains = form == FORM_Q8_0 && CHAINS > 2 * TILE - 1 ? CHAINS / 2 : CHAINS;
    const int p = chains / n < 1 ? 1 : chains / n > PAGES_MAX ? PAGES_MAX : chains / n;
    int32_t page = t->page0;
    for (; page + p <= t->page1; page += p) {
        score_some(form, t, n, p, page);
    }
    for (; page < t->page1; page++) {
        score_some(form, t, n, 1, page);
    }
}

/* From the bits of the greatest weight times scale of a position: one unit of u times one of V, and
 * its inverse, 0 where there is none. */
INLINE void set_step(struct tile *t, int32_t i, int32_t bits)
{
    float most;
    memcpy(&most, &bits, sizeof most);
    const bool is_usable = most >= 0x1p-100f && most < HUGE_VALF;
    t->i8.inverse[i] = is_usable ? 32767.0f / most : 0.0f;
    t->i8.step[i] = is_usable ? most / 32767.0f : most < 1.0f ? 0.0f : most;
}

/* Lanes of page p of the span that query i does not see become `fill`. */
INLINE lanes hide(const struct tile *t, int32_t i, int32_t p, lanes x, float fill)
{
    static const float lane[LANES] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    const lanes at = l_load(lane);
    const lanes lo = l_set((float)(t->lo[i] - p * KERN_PAGE));
    const lanes hi = l_set((float)(t->hi[i] - p * KERN_PAGE));
    return l_less(at, hi, l_less(at, lo, l_set(fill), x), l_set(fill));
}

/* Whether n queries from i on see all of page p. */
INLINE bool is_seen(const struct tile *t, int32_t i, int n, int32_t p)
{
    bool is_all = true;
    UNROLL for (int j = i; j < i + n; j++)
    {
        is_all = is_all && t->lo[j] <= p * KERN_PAGE && t->hi[j] >= (p + 1) * KERN_PAGE;
    }
    return is_all;
}

/* Scales and caps the scores of query i. */
static NOINLINE void cap_scores(struct tile *t, int32_t i)
{
    const lanes scale = l_set(t->a->scale);
    const lanes cap = l_set(t->a->cap);
    for (int32_t p = t->page0; p < t->page1; p++) {
        float *w = &t->w[i][p * KERN_PAGE];
        l_store(w, l_mul(cap, l_tanh(l_div(l_mul(l_load(w), scale), cap))));
    }
}

/* Weights of n queries from i on, positions pos .. pos + 15, from x = score - maximum. */
INLINE void weights_of(enum form form, struct tile *t, int32_t i, int n, int32_t pos, lanes *x)
{
    if (form == FORM_BF16 || form == FORM_DOT) {
        l_exp_weights(x, n, 3);
        store_weights_bf16(form, t, i, n, pos, x);
        return;
    }
    if (form == FORM_F32) {
        UNROLL for (int j = 0; j < n; j++)
        {
            x[j] = l_exp(x[j]);
        }
    } else {
        l_exp_weights(x, n, 4);
    }
    UNROLL for (int j = 0; j < n; j++)
    {
        l_store(&t->w[i + j][pos], x[j]);
    }
}

/* Of n queries from i on: scales and hides scores and finds the greatest, then makes them weights
 * and sums these. Side by side, since maximum and sum are chains. */
INLINE void weigh_some(enum form form, struct tile *t, int32_t i, int n)
{
    const struct kern_attend *a = t->a;
    const lanes scale = l_set(a->cap > 0.0f ? 1.0f : a->scale);
    lanes m[TILE];
    lanes sum[TILE];
    ilanes most[TILE]; /* as bits: a NaN is greater than all */
    UNROLL for (int j = 0; j < n; j++)
    {
        if (a->cap > 0.0f) {
            cap_scores(t, i + j);
        }
        m[j] = l_set(-HUGE_VALF);
        sum[j] = l_set(0.0f);
        most[j] = il_set(0);
    }
    for (int32_t p = t->page0; p < t->page1; p++) {
        const bool is_all = is_seen(t, i, n, p);
        UNROLL for (int j = 0; j < n; j++)
        {
            float *w = &t->w[i + j][p * KERN_PAGE];
            lanes v = l_mul(l_load(w), scale);
            v = is_all ? v : hide(t, i + j, p, v, -HUGE_VALF);
            l_store(w, v);
            m[j] = l_max(v, m[j]);
        }
    }
    UNROLL for (int j = 0; j < n; j++)
    {
        const float greatest = l_most(m[j]);
        a->m[t->i0 + i + j] = greatest;
        m[j] = l_set(greatest);
    }
    for (int32_t p = t->page0; p < t->page1; p++) {
        lanes v[TILE];
        UNROLL for (int j = 0; j < n; j++)
        {
            v[j] = l_sub(l_load(&t->w[i + j][p * KERN_PAGE]), m[j]);
        }
        weights_of(form, t, i, n, p * KERN_PAGE, v);
        UNROLL for (int j = 0; j < n; j++)
        {
            sum[j] = l_add(sum[j], v[j]);
            if (form == FORM_Q8_0) {
                v[j] = l_mul(v[j], l_load(&t->i8.v_most[p * KERN_PAGE]));
                /* what is hidden may have any scale */
                v[j] = is_seen(t, i + j, 1, p) ? v[j] : hide(t, i + j, p, v[j], 0.0f);
                most[j] = il_max(most[j], il_and(l_bits(v[j]), il_set(0x7FFFFFFF)));
            }
        }
    }
    UNROLL for (int j = 0; j < n; j++)
    {
        a->s[t->i0 + i + j] = l_sum(sum[j]);
        if (form == FORM_Q8_0) {
            set_step(t, i + j, il_most(most[j]));
        }
    }
}

INLINE void weigh(enum form form, struct tile *t)
{
    int32_t i = 0;
    for (; i + WEIGHED <= t->n; i += WEIGHED) {
        weigh_some(form, t, i, WEIGHED);
    }
    for (; i < t->n; i++) {
        weigh_some(form, t, i, 1);
    }
}

/* --- weighted values ------------------------------------------------------------------------- */

INLINE lanes load_v(enum form form, const uint8_t *row, int32_t d, int32_t left)
{
    const uint8_t *at = row + (size_t)d * bytes_of(form);
    if (form == FORM_F32) {
        const float *p = (const float *)(const void *)at;
        return left >= LANES ? l_load(p) : l_load_n(p, left, 0.0f);
    }
    if (left >= LANES) {
        return l_load_f16((const uint16_t *)(const void *)at);
    }
    uint16_t h[LANES] = { 0 };
    memcpy(h, at, (size_t)left * sizeof h[0]);
    return l_load_f16(h);
}

/* Dimensions from d on, in g groups of 16 (of the last group `left` exist), for n queries; form, n
 * and g are constants, and `left` is 16 where g > 1. */
INLINE void value_groups(enum form form, const struct share *c, int n, int g, int32_t d,
                         int32_t left)
{
    const struct tile *t = c->t;
    const struct kern_attend *a = t->a;
    const size_t row = (size_t)a->hd_v * bytes_of(form);
    lanes acc[TILE][GROUPS_MAX];
    UNROLL for (int i = 0; i < n * g; i++)
    {
        acc[i / g][i % g] = l_load_at(t->acc[c->i0 + i / g] + d + i % g * LANES, 0, left, 0.0f);
    }
    for (int32_t page = c->from / KERN_PAGE; page * KERN_PAGE < c->to; page++) {
        const int32_t first = page * KERN_PAGE;
        const uint8_t *v = a->v_page[page];
        const uint8_t *ahead = (a->k_ahead != NULL ? a->k_ahead : a->k_page)[page];
        const int32_t end = c->to - first < KERN_PAGE ? c->to - first : KERN_PAGE;
        for (int32_t k = c->from > first ? c->from - first : 0; k < end; k++) {
            lanes x[GROUPS_MAX];
            UNROLL for (int j = 0; j < g; j++)
            {
                const int32_t dj = d + j * LANES;
                x[j] = load_v(form, v + (size_t)k * row, dj, left);
                __builtin_prefetch(ahead + (size_t)k * row + (size_t)dj * bytes_of(form), 0, 2);
            }
            UNROLL for (int i = 0; i < n; i++)
            {
                const lanes w = l_set(t->w[c->i0 + i][first + k]);
                UNROLL for (int j = 0; j < g; j++)
                {
                    acc[i][j] = l_fma(w, x[j], acc[i][j]);
                }
            }
        }
    }
    UNROLL for (int i = 0; i < n * g; i++)
    {
        l_store_at(t->acc[c->i0 + i / g] + d + i % g * LANES, acc[i / g][i % g], 0, left);
    }
}

INLINE void value_some(enum form form, const struct share *c, int n, int g, int32_t d, int32_t left)
{
    if (form == FORM_BF16 || form == FORM_DOT) {
        value_pairs(form, c, n, g, d, left);
    } else {
        value_groups(form, c, n, g, d, left);
    }
}

/* All dimensions: as many groups at once as there are registers for, then fewer. */
INLINE void value_n(enum form form, const struct share *c, int n)
{
    const int32_t hd = c->t->a->hd_v;
    int32_t d = 0;
    if (CHAINS / n >= 8) {
        for (; d + 8 * LANES <= hd; d += 8 * LANES) {
            value_some(form, c, n, 8, d, LANES);
        }
    }
    if (CHAINS / n >= 4) {
        for (; d + 4 * LANES <= hd; d += 4 * LANES) {
            value_some(form, c, n, 4, d, LANES);
        }
    }
    if (CHAINS / n >= 2) {
        for (; d + 2 * LANES <= hd; d += 2 * LANES) {
            value_some(form, c, n, 2, d, LANES);
        }
    }
    for (; d + LANES <= hd; d += LANES) {
        value_some(form, c, n, 1, d, LANES);
    }
    if (d < hd) {
        value_some(form, c, n, 1, d, hd - d);
    }
}

/* One query alone. */
INLINE void value_one(enum form form, const struct tile *t, int32_t i, int32_t from, int32_t to)
{
    if (form == FORM_Q8_0) { /* has no ends */
        return;
    }
    struct share c = { t, i, from, to };
    const bool has_pairs = form == FORM_BF16 || form == FORM_DOT;
    if (has_pairs && from < to && from % 2 != 0) {
        value_single(form, t, i, c.from++);
    }
    if (has_pairs) {
        c.to -= to % 2;
    }
    if (c.from < c.to) {
        value_n(form, &c, 1);
    }
    if (c.to < to && c.from <= c.to) {
        value_single(form, t, i, c.to);
    }
}

/* The queries of a prompt see ranges that differ by a position at the end, and with a window at the
 * beginning too: the middle is common.  lo..from | from..to (all together) | to..hi  */
INLINE void tile_values(enum form form, const struct form_fns *f, const struct tile *t, int n)
{
    struct share c = { t, 0, 0, KERN_SPAN };
    for (int32_t i = 0; i < t->n; i++) {
        c.from = t->lo[i] > c.from ? t->lo[i] : c.from;
        c.to = t->hi[i] < c.to ? t->hi[i] : c.to;
        memset(t->acc[i], 0, (size_t)t->a->hd_v * sizeof(float));
    }
    if (form == FORM_BF16 || form == FORM_DOT) { /* whole pairs */
        c.from += c.from % 2;
        c.to -= c.to % 2;
    }
    if (t->n == 1 || c.to - c.from < KERN_PAGE) {
        for (int32_t i = 0; i < t->n; i++) {
            f->value_one(t, i, t->lo[i], t->hi[i]);
        }
        return;
    }
    for (int32_t i = 0; i < t->n; i++) {
        f->value_one(t, i, t->lo[i], c.from);
    }
    value_n(form, &c, n);
    for (int32_t i = 0; i < t->n; i++) {
        f->value_one(t, i, c.to, t->hi[i]);
    }
}

/* The weights of query i as integers for block b of V: u = rne(w (32767 / most) d). */
static NOINLINE void weigh_block(struct tile *t, int32_t i, int32_t b)
{
    const float *d = t->i8.v_scale + b * KERN_SPAN;
    const bool is_usable = t->i8.inverse[i] != 0.0f;
    const lanes inverse = l_set(t->i8.inverse[i]);
    for (int32_t p = t->page0; p < t->page1; p++) {
        const lanes w = l_mul(l_load(&t->w[i][p * KERN_PAGE]), inverse);
        const lanes u = is_usable ? l_mul(w, l_load(d + p * KERN_PAGE)) : l_set(0.0f);
        l_store_i16(&t->i8.u[i][p * KERN_PAGE], is_seen(t, i, 1, p) ? u : hide(t, i, p, u, 0.0f));
    }
}

/* Dimensions [d, d + 16 g) of block b for n queries, `split` positions apart in sums of their own;
 * n, g and split are constants. */
INLINE void value_block(const struct tile *t, int32_t b, int32_t d, int n, int g, int split)
{
    const struct kern_attend *a = t->a;
    const size_t at = (size_t)b * BLOCK_PAGE + (size_t)d * 2;
    ilanes acc[TILE][2 * SPLIT_MAX];
    UNROLL for (int i = 0; i < n * g * split; i++)
    {
        acc[i / (g * split)][i % (g * split)] = il_set(0);
    }
    for (int32_t page = t->page0; page < t->page1; page++) {
        const int8_t *v = (const int8_t *)a->v_page[page] + at;
        const uint8_t *next = (a->k_ahead != NULL ? a->k_ahead : a->k_page)[page];
        const uint8_t *ahead = next + at;
        __builtin_prefetch(scales_of(next, a->hd_k) + b * KERN_PAGE, 0, 2);
        for (int32_t k = 0; k < KERN_PAGE; k += 2 * split) {
            UNROLL for (int s = 0; s < split; s++)
            {
                shorts2 x[2];
                __builtin_prefetch(ahead + (size_t)(k + 2 * s) * BLOCK, 0, 2);
                UNROLL for (int j = 0; j < g; j++)
                {
                    x[j] = t_load(v + (size_t)(k + 2 * s) * BLOCK + j * 2 * LANES);
                }
                UNROLL for (int i = 0; i < n; i++)
                {
                    UNROLL for (int j = 0; j < g; j++)
                    {
                        ilanes *to = &acc[i][s * g + j];
                        *to = t_dot(*to, x[j], &t->i8.u[i][page * KERN_PAGE + k + 2 * s]);
                    }
                }
            }
        }
    }
    UNROLL for (int i = 0; i < n; i++)
    {
        UNROLL for (int j = 0; j < g; j++)
        {
            ilanes sum = acc[i][j];
            UNROLL for (int s = 1; s < split; s++)
            {
                sum = il_add(sum, acc[i][s * g + j]);
            }
            const int32_t from = b * BLOCK + d + j * LANES;
            if (from < a->hd_v) {
                const lanes y = l_mul(l_from_int(sum), l_set(t->i8.step[i]));
                l_store_at(t->acc[i], y, from, a->hd_v);
            }
        }
    }
}

INLINE void value_block_n(const struct tile *t, int32_t b, int n)
{
    const int split = CHAINS / 2 / n < 1           ? 1
                      : CHAINS / 2 / n > SPLIT_MAX ? SPLIT_MAX
                                                   : CHAINS / 2 / n;
    if (CHAINS == 16) {
        value_block(t, b, 0, n, 2, split);
    } else {
        value_block(t, b, 0, n, 1, split);
        value_block(t, b, LANES, n, 1, split);
    }
}

INLINE void tile_values_q8(struct tile *t, int n)
{
    for (int32_t i = t->n; i < n; i++) {
        memset(t->i8.u[i], 0, sizeof t->i8.u[i]);
        t->i8.step[i] = 0.0f;
    }
    for (int32_t b = 0; b < blocks_of(t->a->hd_v); b++) {
        for (int32_t i = 0; i < t->n; i++) {
            weigh_block(t, i, b);
        }
        value_block_n(t, b, n);
    }
}

/* --- one span -------------------------------------------------------------------------------- */

/* Queries from i0 on and what they see, in positions of the span. */
INLINE void tile_init(struct tile *t, const struct kern_attend *a, enum form form, int32_t i0,
                      float *spare)
{
    t->a = a;
    t->i0 = i0;
    t->n = a->n_query - i0 < TILE ? a->n_query - i0 : TILE;
    t->n_full = t->n <= 2 ? t->n : t->n <= 4 ? 4 : TILE;
    int32_t lo = KERN_SPAN;
    int32_t hi = 0;
    for (int32_t i = 0; i < t->n_full; i++) {
        const int32_t from = i0 + (i < t->n ? i : t->n - 1);
        load_query(form, t, i, a->q[from]);
        t->acc[i] = i < t->n ? a->acc[from] : spare;
        t->lo[i] = a->lo[from] > a->pos0 ? a->lo[from] - a->pos0 : 0;
        t->hi[i] = a->hi[from] - a->pos0 < KERN_SPAN ? a->hi[from] - a->pos0 : KERN_SPAN;
        assert(t->lo[i] < t->hi[i]);
        lo = t->lo[i] < lo ? t->lo[i] : lo;
        hi = t->hi[i] > hi ? t->hi[i] : hi;
    }
    t->page0 = lo / KERN_PAGE;
    t->page1 = (hi + KERN_PAGE - 1) / KERN_PAGE;
}

/* Scales of V as floats, [block][position of the span], for the pages that some query sees; and the
 * greatest of each position. */
static void widen_scales(const struct kern_attend *a, float *to, float most[KERN_SPAN])
{
    int32_t lo = KERN_SPAN;
    int32_t hi = 0;
    for (int32_t i = 0; i < a->n_query; i++) {
        lo = a->lo[i] - a->pos0 < lo ? a->lo[i] - a->pos0 : lo;
        hi = a->hi[i] - a->pos0 > hi ? a->hi[i] - a->pos0 : hi;
    }
    lo = lo < 0 ? 0 : lo / KERN_PAGE * KERN_PAGE;
    hi = hi > KERN_SPAN ? KERN_SPAN : hi;
    for (int32_t p = lo; p < hi; p += KERN_PAGE) {
        const uint16_t *scale = scales_of(a->v_page[p / KERN_PAGE], a->hd_v);
        ilanes m = il_set(0);
        for (int32_t b = 0; b < blocks_of(a->hd_v); b++) {
            const lanes d = l_load_f16(scale + b * KERN_PAGE);
            l_store(to + b * KERN_SPAN + p, d);
            m = il_max(m, il_and(l_bits(d), il_set(0x7FFFFFFF)));
        }
        l_store(most + p, l_from_bits(m));
    }
}

/* Scores of all pages first, then weights, then values: the maximum must be known before the first
 * exp, and a span's scores (TILE rows of 256) fit the first-level cache. */
INLINE void tile_n(enum form form, const struct form_fns *f, struct tile *t, int n)
{
    score_n(form, t, n);
    if (form == FORM_Q8_0 && t->i0 == 0) { /* scores prefetched them; they serve all tiles */
        widen_scales(t->a, t->i8.v_scale, t->i8.v_most);
    }
    f->weigh(t);
    for (int32_t i = t->n; i < n; i++) { /* so that no place holds an accidental NaN */
        memset(t->w[i], 0, sizeof t->w[i]);
        if (form == FORM_DOT) {
            memset(t->pair.u[i], 0, sizeof t->pair.u[i]);
        }
    }
    if (form == FORM_Q8_0) {
        tile_values_q8(t, n);
    } else {
        tile_values(form, f, t, n);
    }
}

/* n_full becomes a constant, so that the sums stay in registers. */
INLINE void tile_form(enum form form, const struct form_fns *f, struct tile *t)
{
    switch (t->n_full) {
    case 1:
        tile_n(form, f, t, 1);
        break;
    case 2:
        tile_n(form, f, t, 2);
        break;
    case 4:
        tile_n(form, f, t, 4);
        break;
    default:
        tile_n(form, f, t, TILE);
        break;
    }
}

#define FORM_FNS(name, form)                                                                       \
    static NOINLINE void weigh_##name(struct tile *t)                                              \
    {                                                                                              \
        weigh(form, t);                                                                            \
    }                                                                                              \
    static NOINLINE void one_##name(const struct tile *t, int32_t i, int32_t from, int32_t to)     \
    {                                                                                              \
        value_one(form, t, i, from, to);                                                           \
    }                                                                                              \
    static NOINLINE void tile_##name(struct tile *t)                                               \
    {                                                                                              \
        static const struct form_fns f = { weigh_##name, one_##name };                             \
        tile_form(form, &f, t);                                                                    \
    }

FORM_FNS(f16, FORM_F16)
FORM_FNS(q8_0, FORM_Q8_0)
FORM_FNS(f32, FORM_F32)
FORM_FNS(bf16, FORM_BF16)

INLINE void attend_span(const struct kern_attend *a, enum form bf16,
                        void (*tile_bf16_fn)(struct tile *))
{
    static void (*const fns[KERN_KV_COUNT])(struct tile *) = { [KERN_KV_F16] = tile_f16,
                                                               [KERN_KV_Q8_0] = tile_q8_0,
                                                               [KERN_KV_F32] = tile_f32,
                                                               [KERN_KV_BF16] = tile_bf16 };
    static const enum form forms[KERN_KV_COUNT] = { [KERN_KV_F16] = FORM_F16,
                                                    [KERN_KV_Q8_0] = FORM_Q8_0,
                                                    [KERN_KV_F32] = FORM_F32,
                                                    [KERN_KV_BF16] = FORM_BF16 };
    struct tile t;
    float spare[KERN_HEAD_MAX];
    float v_scale[KERN_SPAN * BLOCKS_MAX];
    float v_most[KERN_SPAN];
    assert(a->n_query >= 1 && a->n_query <= KERN_QUERIES);
    assert(a->hd_k <= KERN_HEAD_MAX && a->hd_v <= KERN_HEAD_MAX);
    assert((unsigned)a->kv < KERN_KV_COUNT);
    if (a->kv == KERN_KV_Q8_0) {
        t.i8.v_scale = v_scale;
        t.i8.v_most = v_most;
    }
    memset(spare, 0, sizeof spare);
    for (int32_t i0 = 0; i0 < a->n_query; i0 += TILE) {
        const bool is_bf16 = a->kv == KERN_KV_BF16;
        tile_init(&t, a, is_bf16 ? bf16 : forms[a->kv], i0, spare);
        (is_bf16 ? tile_bf16_fn : fns[a->kv])(&t);
    }
}

static void attn_attend_span(const struct kern_attend *a)
{
    attend_span(a, FORM_BF16, tile_bf16);
}

#if defined(LANES_HAVE_DOT)
FORM_FNS(dot, FORM_DOT)

/* The same where the processor has AVX512_BF16. */
static void attn_attend_span_dot(const struct kern_attend *a)
{
    attend_span(a, FORM_DOT, tile_dot);
}
#endif

/* --- spans together -------------------------------------------------------------------------- */

/* exp of two numbers at once, with the bits that every lane has. */
INLINE void exp_two(float x, float y, float *exp_x, float *exp_y)
{
    float v[LANES] = { x, y };
    l_store(v, l_exp(l_load(v)));
    *exp_x = v[0];
    *exp_y = v[1];
}

static void attn_attend_merge(float *m, float *s, float *acc, float m2, float s2, const float *acc2,
                              int32_t hd_v)
{
    const float most = m2 > *m ? m2 : *m;
    float a;
    float b;
    exp_two(*m - most, m2 - most, &a, &b);
    *m = most;
    *s = fmaf(*s, a, s2 * b);
    const lanes av = l_set(a);
    const lanes bv = l_set(b);
    for (int32_t d = 0; d < hd_v; d += LANES) {
        const lanes x = l_load_at(acc, d, hd_v, 0.0f);
        const lanes y = l_load_at(acc2, d, hd_v, 0.0f);
        l_store_at(acc, l_fma(x, av, l_mul(y, bv)), d, hd_v);
    }
}

static void attn_attend_finish(float *y, float m, float s, const float *acc, const float *sink,
                               int32_t hd_v)
{
    float f = 1.0f;
    if (sink != NULL) {
        const float most = *sink > m ? *sink : m;
        float g;
        exp_two(m - most, *sink - most, &f, &g);
        s = fmaf(s, f, g);
    }
    const lanes fv = l_set(f);
    const lanes sv = l_set(s);
    for (int32_t d = 0; d < hd_v; d += LANES) {
        l_store_at(y, l_div(l_mul(l_load_at(acc, d, hd_v, 0.0f), fv), sv), d, hd_v);
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
