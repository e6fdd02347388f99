/* vec_body - norms, activation functions, rotation, reductions (included by kern/vec_*.c)
 *
 * The text of the vector kernels, the same for every instruction set; lanes.h gives the words and
 * vec_ref.c the meaning: each function here is the one of that name there, sixteen elements at a
 * time. Where the scalar form branches, both sides are computed and one is chosen. The last part of
 * a vector whose length is no multiple of 16 goes through a small buffer, filled up with values
 * that leave the sums as they are; nothing beyond the length is read or written. */
#ifndef HEARTH_VEC_BODY_H
#define HEARTH_VEC_BODY_H

#include "kern/lanes.h"

/* --- elementary functions -------------------------------------------------------------------- */

INLINE lanes fn_silu(lanes x)
{
    return l_div(x, l_add(l_set(1.0f), l_exp(l_sub(l_set(0.0f), x))));
}

INLINE lanes fn_gelu_tanh(lanes x)
{
    const lanes zero = l_set(0.0f);
    const lanes c = l_min(l_set(20.0f), l_max(l_set(-20.0f), x));
    const lanes a_hi = l_set(0x1.988454p0f);
    const lanes a_lo = l_set(-0x1.857936p-25f);
    const lanes b_hi = l_set(0x1.2444F2p-4f);
    const lanes b_lo = l_set(0x1.49B16Ap-29f);
    const lanes s = l_mul(c, c);
    const lanes s_lo = l_fma(c, c, l_sub(zero, s));
    const lanes q = l_mul(b_hi, s);
    const lanes q_lo = l_fma(b_hi, s, l_sub(zero, q));
    const lanes h = l_add(a_hi, q);
    const lanes back = l_sub(h, a_hi);
    const lanes h_lo = l_add(l_sub(a_hi, l_sub(h, back)), l_sub(q, back));
    const lanes rest = l_add(l_fma(b_lo, s, a_lo), l_fma(b_hi, s_lo, q_lo));
    const lanes v = l_mul(c, h);
    const lanes v_lo = l_add(l_fma(c, h, l_sub(zero, v)), l_mul(c, l_add(h_lo, rest)));
    const lanes e = l_exp_tail(l_sub(zero, v), l_sub(zero, v_lo));
    return l_div(x, l_add(l_set(1.0f), e));
}

INLINE lanes fn_gelu_erf(lanes x)
{
    const lanes zero = l_set(0.0f);
    const lanes a = l_min(l_set(14.0f), l_less(x, zero, l_sub(zero, x), x));
    const lanes s = l_mul(a, a);
    lanes p = l_set(-0x1.112202p-17f);
    p = l_fma(p, s, l_set(0x1.E26C8Cp-14f));
    p = l_fma(p, s, l_set(-0x1.376EACp-10f));
    p = l_fma(p, s, l_set(0x1.46D558p-7f));
    p = l_fma(p, s, l_set(-0x1.105862p-4f));
    p = l_fma(p, s, l_set(0x1.988454p-2f));
    const lanes near = l_fma(x, p, l_set(0.5f));
    const lanes s_lo = l_fma(a, a, l_sub(zero, s));
    const lanes e = l_exp_tail(l_mul(s, l_set(-0.5f)), l_mul(s_lo, l_set(-0.5f)));
    const lanes t = l_div(l_set(3.0f), l_add(l_set(3.0f), a));
    lanes q = l_set(-0x1.4EF514p-6f);
    q = l_fma(q, t, l_set(0x1.FD3668p-4f));
    q = l_fma(q, t, l_set(-0x1.1560CAp-2f));
    q = l_fma(q, t, l_set(0x1.D52BEEp-3f));
    q = l_fma(q, t, l_set(-0x1.13A74Cp-4f));
    q = l_fma(q, t, l_set(0x1.082C9Cp-3f));
    q = l_fma(q, t, l_set(0x1.BEBD26p-4f));
    q = l_fma(q, t, l_set(0x1.1305C6p-3f));
    q = l_fma(q, t, l_set(0x1.102006p-3f));
    q = l_fma(q, t, l_set(0x1.0119E6p-18f));
    q = l_mul(e, q);
    const lanes far = l_less(x, zero, q, l_sub(l_set(1.0f), q));
    return l_mul(x, l_less(a, l_set(1.0f), near, far));
}

INLINE lanes fn_swiglu_clamped(lanes x)
{
    const lanes g = l_min(l_set(7.0f), x);
    return l_div(g, l_add(l_set(1.0f), l_exp(l_mul(g, l_set(-1.702f)))));
}

/* The other factor. */
INLINE lanes factor_of(enum kern_fn fn, lanes up)
{
    const bool is_clamped = fn == KERN_FN_SWIGLU_CLAMPED;
    const lanes u = l_min(l_set(7.0f), l_max(l_set(-7.0f), up));
    return is_clamped ? l_add(u, l_set(1.0f)) : up;
}

INLINE lanes apply(enum kern_fn fn, lanes x)
{
    const lanes zero = l_set(0.0f);
    switch (fn) {
    case KERN_FN_SILU:
        return fn_silu(x);
    case KERN_FN_GELU_TANH:
        return fn_gelu_tanh(x);
    case KERN_FN_GELU_ERF:
        return fn_gelu_erf(x);
    case KERN_FN_RELU:
        return l_less(x, zero, zero, x);
    case KERN_FN_RELU_SQR:
        x = l_less(x, zero, zero, x);
        return l_mul(x, x);
    case KERN_FN_SWIGLU_CLAMPED:
        return fn_swiglu_clamped(x);
    case KERN_FN_COUNT:
        break;
    }
    return x;
}

/* --- sums ------------------------------------------------------------------------------------ */

static void vec_norm_rms(float *y, const float *x, const float *w, float eps, int32_t n)
{
    lanes ss = l_set(0.0f);
    for (int32_t i = 0; i < n; i += LANES) {
        const lanes v = l_load_at(x, i, n, 0.0f);
        ss = l_fma(v, v, ss);
    }
    const lanes r = l_set(1.0f / sqrtf(l_sum(ss) / (float)n + eps));
    for (int32_t i = 0; i < n; i += LANES) {
        lanes v = l_mul(l_load_at(x, i, n, 0.0f), r);
        v = w != NULL ? l_mul(v, l_load_at(w, i, n, 0.0f)) : v;
        l_store_at(y, v, i, n);
    }
}

static void vec_norm_layer(float *y, const float *x, const float *w, const float *b, float eps,
                           int32_t n)
{
    lanes s = l_set(0.0f);
    for (int32_t i = 0; i < n; i += LANES) {
        s = l_add(s, l_load_at(x, i, n, 0.0f));
    }
    const float mean = l_sum(s) / (float)n;
    const lanes m = l_set(mean);
    lanes ss = l_set(0.0f);
    for (int32_t i = 0; i < n; i += LANES) {
        const lanes d = l_sub(l_load_at(x, i, n, mean), m);
        ss = l_fma(d, d, ss);
    }
    const lanes r = l_set(1.0f / sqrtf(l_sum(ss) / (float)n + eps));
    for (int32_t i = 0; i < n; i += LANES) {
        lanes v = l_mul(l_sub(l_load_at(x, i, n, mean), m), r);
        v = w != NULL ? l_mul(v, l_load_at(w, i, n, 0.0f)) : v;
        v = b != NULL ? l_add(v, l_load_at(b, i, n, 0.0f)) : v;
        l_store_at(y, v, i, n);
    }
}

static float vec_exp_sum(float *y, const float *x, float max, int32_t n)
{
    const lanes m = l_set(max);
    lanes s = l_set(0.0f);
    for (int32_t i = 0; i < n; i += LANES) {
        lanes v = l_exp(l_sub(l_load_at(x, i, n, 0.0f), m));
        if (n - i < LANES) {
            float e[LANES];
            l_store(e, v);
            v = l_load_n(e, n - i, 0.0f); /* the places beyond the end add 0 */
        }
        s = l_add(s, v);
        if (y != NULL) {
            l_store_at(y, v, i, n);
        }
    }
    return l_sum(s);
}

/* --- element by element ---------------------------------------------------------------------- */

/* One loop per function: `fn` is a constant wherever this is inlined. */
INLINE void glu_loop(enum kern_fn fn, float *y, const float *gate, const float *up, int32_t n)
{
    for (int32_t i = 0; i < n; i += LANES) {
        lanes v = apply(fn, l_load_at(gate, i, n, 0.0f));
        v = up != NULL ? l_mul(v, factor_of(fn, l_load_at(up, i, n, 0.0f))) : v;
        l_store_at(y, v, i, n);
    }
}

static void vec_glu(enum kern_fn fn, float *y, const float *gate, const float *up, int32_t n)
{
    switch (fn) {
    case KERN_FN_SILU:
        glu_loop(KERN_FN_SILU, y, gate, up, n);
        break;
    case KERN_FN_GELU_TANH:
        glu_loop(KERN_FN_GELU_TANH, y, gate, up, n);
        break;
    case KERN_FN_GELU_ERF:
        glu_loop(KERN_FN_GELU_ERF, y, gate, up, n);
        break;
    case KERN_FN_RELU:
        glu_loop(KERN_FN_RELU, y, gate, up, n);
        break;
    case KERN_FN_RELU_SQR:
        glu_loop(KERN_FN_RELU_SQR, y, gate, up, n);
        break;
    case KERN_FN_SWIGLU_CLAMPED:
        glu_loop(KERN_FN_SWIGLU_CLAMPED, y, gate, up, n);
        break;
    case KERN_FN_COUNT:
        break;
    }
}

static void vec_add(float *y, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i += LANES) {
        l_store_at(y, l_add(l_load_at(y, i, n, 0.0f), l_load_at(x, i, n, 0.0f)), i, n);
    }
}

static void vec_add_scaled(float *y, const float *x, float a, int32_t n)
{
    const lanes s = l_set(a);
    for (int32_t i = 0; i < n; i += LANES) {
        l_store_at(y, l_fma(s, l_load_at(x, i, n, 0.0f), l_load_at(y, i, n, 0.0f)), i, n);
    }
}

static void vec_mul(float *y, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i += LANES) {
        l_store_at(y, l_mul(l_load_at(y, i, n, 0.0f), l_load_at(x, i, n, 0.0f)), i, n);
    }
}

static void vec_scale(float *y, float a, int32_t n)
{
    const lanes s = l_set(a);
    for (int32_t i = 0; i < n; i += LANES) {
        l_store_at(y, l_mul(l_load_at(y, i, n, 0.0f), s), i, n);
    }
}

static void vec_soft_cap(float *y, float cap, int32_t n)
{
    const lanes c = l_set(cap);
    for (int32_t i = 0; i < n; i += LANES) {
        l_store_at(y, l_mul(c, l_tanh(l_div(l_load_at(y, i, n, 0.0f), c))), i, n);
    }
}

/* (a, b) := (a cos - b sin, a sin + b cos) */
INLINE void rotate(lanes *a, lanes *b, lanes cos, lanes sin)
{
    const lanes a0 = *a;
    *a = l_fma(a0, cos, l_sub(l_set(-0.0f), l_mul(*b, sin)));
    *b = l_fma(a0, sin, l_mul(*b, cos));
}

/* Pairs [i, half), fewer than 16, of one head; the partner of x[at] is x[at + step]. */
static void rope_rest(float *x, int32_t i, int32_t half, bool is_pairs, const float *cos,
                      const float *sin)
{
    for (; i < half; i++) {
        float *x0 = x + (is_pairs ? 2 * i : i);
        float *x1 = x0 + (is_pairs ? 1 : half);
        const float a = *x0;
        const float b = *x1;
        *x0 = fmaf(a, cos[i], -(b * sin[i]));
        *x1 = fmaf(a, sin[i], b * cos[i]);
    }
}

static void vec_rope(enum kern_rope kind, float *x, int32_t n_head, int32_t hd, int32_t n_rot,
                     const float *cos, const float *sin)
{
    const int32_t half = n_rot / 2;
    const bool is_pairs = kind == KERN_ROPE_PAIRS;
    for (int32_t h = 0; h < n_head; h++, x += hd) {
        int32_t i = 0;
        for (; half - i >= LANES; i += LANES) {
            lanes a;
            lanes b;
            if (is_pairs) {
                l_load2(x + 2 * i, &a, &b);
            } else {
                a = l_load(x + i);
                b = l_load(x + half + i);
            }
            rotate(&a, &b, l_load(cos + i), l_load(sin + i));
            if (is_pairs) {
                l_store2(x + 2 * i, a, b);
            } else {
                l_store(x + i, a);
                l_store(x + half + i, b);
            }
        }
        rope_rest(x, i, half, is_pairs, cos, sin);
    }
}

/* --- greatest element ------------------------------------------------------------------------ */

static float vec_max(const float *x, int32_t n)
{
    lanes m = l_set(-HUGE_VALF);
    for (int32_t i = 0; i < n; i += LANES) {
        m = l_max(l_load_at(x, i, n, -HUGE_VALF), m);
    }
    return l_most(m);
}

#define ARGMAX_PART 1024 /* elements whose maximum is taken at once; small enough to look again */

static int32_t first_equal(const float *x, int32_t from, int32_t to, float value)
{
    for (int32_t i = from; i < to; i++) {
        if (x[i] == value) {
            return i;
        }
    }
    return 0;
}

/* The part that holds the greatest element is remembered and searched again. */
static int32_t vec_argmax(const float *x, int32_t n)
{
    float best = -HUGE_VALF;
    int32_t at = -1;
    for (int32_t i = 0; i < n; i += ARGMAX_PART) {
        const float m = vec_max(x + i, n - i < ARGMAX_PART ? n - i : ARGMAX_PART);
        if (m > best) {
            best = m;
            at = i;
        }
    }
    if (at < 0) { /* nothing above -infinity */
        return first_equal(x, 0, n, -HUGE_VALF);
    }
    return first_equal(x, at, n, best);
}

INLINE void vec_fill(struct kern_table *t)
{
    t->norm_rms = vec_norm_rms;
    t->norm_layer = vec_norm_layer;
    t->glu = vec_glu;
    t->add = vec_add;
    t->add_scaled = vec_add_scaled;
    t->mul = vec_mul;
    t->scale = vec_scale;
    t->soft_cap = vec_soft_cap;
    t->rope = vec_rope;
    t->argmax = vec_argmax;
    t->max = vec_max;
    t->exp_sum = vec_exp_sum;
}

#endif
