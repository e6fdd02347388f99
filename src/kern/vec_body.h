/* vec_body - norms, activation functions, rotation, reductions (included by kern/vec_*.c)
 *
 * The text of the vector kernels, the same for every instruction set; lanes.h gives the words. Sums run in 16
 * lanes (lane i takes elements i, i + 16, ...) and end in the fixed tree, so they do not depend on the width
 * of a register. The last part of a vector whose length is no multiple of 16 goes through a small buffer.
 *
 * Elementary functions: exp in lanes.h; tanh by a polynomial near 0 and by exp elsewhere; erf by a
 * polynomial up to 1 and erfc(z) = exp(-z^2) Q(2 / (2 + z)) beyond (after Cody 1969; coefficients fitted for
 * float). Measured errors stand in docs/NUMERICS.md. */
#ifndef HEARTH_VEC_BODY_H
#define HEARTH_VEC_BODY_H

#include "kern/lanes.h"

#include <stddef.h>

/* Calls with whole lanes and with the rest. */
#define FOR_LANES(i, n) for (int32_t i = 0; i < (n); i += LANES)

INLINE lanes load_at(const float *p, int32_t i, int32_t n, float fill)
{
    return n - i >= LANES ? l_load(p + i) : l_load_n(p + i, n - i, fill);
}

INLINE void store_at(float *p, lanes a, int32_t i, int32_t n)
{
    if (n - i >= LANES) {
        l_store(p + i, a);
    } else {
        l_store_n(p + i, a, n - i);
    }
}

static void vec_norm_rms(float *y, const float *x, const float *w, float eps, int32_t n)
{
    lanes ss = l_set(0.0f);
    FOR_LANES (i, n) {
        const lanes v = load_at(x, i, n, 0.0f);
        ss = l_fma(v, v, ss);
    }
    const lanes r = l_set(1.0f / sqrtf(l_sum(ss) / (float)n + eps));
    FOR_LANES (i, n) {
        lanes v = l_mul(load_at(x, i, n, 0.0f), r);
        v = w != NULL ? l_mul(v, load_at(w, i, n, 0.0f)) : v;
        store_at(y, v, i, n);
    }
}

static void vec_norm_layer(float *y, const float *x, const float *w, const float *b, float eps, int32_t n)
{
    lanes s = l_set(0.0f);
    FOR_LANES (i, n) {
        s = l_add(s, load_at(x, i, n, 0.0f));
    }
    const float mean = l_sum(s) / (float)n;
    const lanes m = l_set(mean);
    lanes ss = l_set(0.0f);
    FOR_LANES (i, n) {
        const lanes d = l_sub(load_at(x, i, n, mean), m);
        ss = l_fma(d, d, ss);
    }
    const lanes r = l_set(1.0f / sqrtf(l_sum(ss) / (float)n + eps));
    FOR_LANES (i, n) {
        lanes v = l_mul(l_sub(load_at(x, i, n, mean), m), r);
        v = w != NULL ? l_mul(v, load_at(w, i, n, 0.0f)) : v;
        v = b != NULL ? l_add(v, load_at(b, i, n, 0.0f)) : v;
        store_at(y, v, i, n);
    }
}

INLINE lanes sigmoid_times(lanes x, lanes minus_u)
{
    return l_div(x, l_add(l_set(1.0f), l_exp(minus_u)));
}

INLINE lanes fn_silu(lanes x)
{
    return sigmoid_times(x, l_sub(l_set(0.0f), x));
}

/* 0.5 x (1 + tanh u) = x / (1 + exp(-2 u)), u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation. */
INLINE lanes fn_gelu_tanh(lanes x)
{
    const lanes x2 = l_mul(x, x);
    const lanes inner = l_fma(l_mul(x2, l_set(0.044715f)), x, x);
    return sigmoid_times(x, l_mul(inner, l_set(-1.5957691216057308f)));
}

/* 0.5 x (1 + erf(x / sqrt 2)); for negative x through erfc, so that nothing cancels. */
INLINE lanes fn_gelu_erf(lanes x)
{
    const lanes zero = l_set(0.0f);
    const lanes one = l_set(1.0f);
    const lanes ax = l_less(x, zero, l_sub(zero, x), x);
    const lanes z = l_mul(ax, l_set(0.70710678118654752f));
    const lanes s = l_mul(z, z);
    lanes p = l_set(0x1.496b14p-14f); /* erf(z) / z in z^2, z < 1 */
    p = l_fma(p, s, l_set(-0x1.a3f75cp-11f));
    p = l_fma(p, s, l_set(0x1.5405c0p-8f));
    p = l_fma(p, s, l_set(-0x1.b7f910p-6f));
    p = l_fma(p, s, l_set(0x1.ce2cf8p-4f));
    p = l_fma(p, s, l_set(-0x1.81273ep-2f));
    p = l_fma(p, s, l_set(0x1.20dd74p+0f));
    const lanes erf = l_mul(z, p);
    const lanes t = l_sub(l_div(l_set(2.0f), l_add(l_set(2.0f), z)), l_set(0.3f));
    lanes q = l_set(-0x1.03cc0cp-4f); /* erfc(z) exp(z^2) in t, z >= 1 */
    q = l_fma(q, t, l_set(0x1.1fa76cp-3f));
    q = l_fma(q, t, l_set(-0x1.be179ap-8f));
    q = l_fma(q, t, l_set(-0x1.47cd5ap-3f));
    q = l_fma(q, t, l_set(-0x1.38c186p-4f));
    q = l_fma(q, t, l_set(0x1.c4524cp-3f));
    q = l_fma(q, t, l_set(0x1.04dd1cp-1f));
    q = l_fma(q, t, l_set(0x1.3c432ap-1f));
    q = l_fma(q, t, l_set(0x1.1479e8p-1f));
    q = l_fma(q, t, l_set(0x1.e4887ep-4f));
    const lanes rest = l_fma(z, z, l_sub(zero, s)); /* what z * z lost in rounding */
    const lanes e = l_mul(l_exp(l_sub(zero, s)), l_sub(one, rest));
    const lanes erfc = l_mul(e, q);
    const lanes is_far_pos = l_sub(l_set(2.0f), erfc);
    const lanes far = l_less(x, zero, erfc, is_far_pos);
    const lanes near = l_less(x, zero, l_sub(one, erf), l_add(one, erf));
    const lanes phi = l_less(z, one, near, far);
    return l_mul(l_mul(x, l_set(0.5f)), phi);
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
    case KERN_FN_COUNT:
        break;
    }
    return x;
}

/* One loop per function, so that the choice is made once. */
INLINE void glu_loop(enum kern_fn fn, float *y, const float *gate, const float *up, int32_t n)
{
    FOR_LANES (i, n) {
        lanes v = apply(fn, load_at(gate, i, n, 0.0f));
        v = up != NULL ? l_mul(v, load_at(up, i, n, 0.0f)) : v;
        store_at(y, v, i, n);
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
    default:
        glu_loop(fn, y, gate, up, n);
        break;
    }
}

static void vec_add(float *y, const float *x, int32_t n)
{
    FOR_LANES (i, n) {
        store_at(y, l_add(load_at(y, i, n, 0.0f), load_at(x, i, n, 0.0f)), i, n);
    }
}

static void vec_add_scaled(float *y, const float *x, float a, int32_t n)
{
    const lanes s = l_set(a);
    FOR_LANES (i, n) {
        store_at(y, l_fma(s, load_at(x, i, n, 0.0f), load_at(y, i, n, 0.0f)), i, n);
    }
}

static void vec_mul(float *y, const float *x, int32_t n)
{
    FOR_LANES (i, n) {
        store_at(y, l_mul(load_at(y, i, n, 0.0f), load_at(x, i, n, 0.0f)), i, n);
    }
}

static void vec_scale(float *y, float a, int32_t n)
{
    const lanes s = l_set(a);
    FOR_LANES (i, n) {
        store_at(y, l_mul(load_at(y, i, n, 0.0f), s), i, n);
    }
}

INLINE lanes l_tanh(lanes x)
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

static void vec_soft_cap(float *y, float cap, int32_t n)
{
    const lanes c = l_set(cap);
    FOR_LANES (i, n) {
        store_at(y, l_mul(c, l_tanh(l_div(load_at(y, i, n, 0.0f), c))), i, n);
    }
}

/* x0' = x0 c - x1 s, x1' = x0 s + x1 c, each as fma(x0, ., +-(x1 * .)). */
static void rope_pair(float *x0, float *x1, float c, float s)
{
    const float a = *x0;
    const float b = *x1;
    *x0 = fmaf(a, c, -(b * s));
    *x1 = fmaf(a, s, b * c);
}

static void vec_rope(enum kern_rope kind, float *x, int32_t n_head, int32_t hd, int32_t n_rot, const float *cos,
                     const float *sin)
{
    const int32_t half = n_rot / 2;
    for (int32_t h = 0; h < n_head; h++, x += hd) {
        int32_t i = 0;
        if (kind == KERN_ROPE_HALVES) {
            for (; half - i >= LANES; i += LANES) {
                const lanes c = l_load(cos + i);
                const lanes s = l_load(sin + i);
                const lanes a = l_load(x + i);
                const lanes b = l_load(x + half + i);
                const lanes minus = l_sub(l_set(-0.0f), l_mul(b, s));
                l_store(x + i, l_fma(a, c, minus));
                l_store(x + half + i, l_fma(a, s, l_mul(b, c)));
            }
            for (; i < half; i++) {
                rope_pair(x + i, x + half + i, cos[i], sin[i]);
            }
        } else {
            for (; i < half; i++) {
                rope_pair(x + 2 * i, x + 2 * i + 1, cos[i], sin[i]);
            }
        }
    }
}

/* Greatest element; -inf when all are NaN. */
static float vec_max(const float *x, int32_t n)
{
    lanes m = l_set(-HUGE_VALF);
    FOR_LANES (i, n) {
        const lanes v = load_at(x, i, n, -HUGE_VALF);
        m = l_less(m, v, v, m);
    }
    float best[LANES];
    l_store(best, m);
    for (int i = 1; i < LANES; i++) {
        best[0] = best[i] > best[0] ? best[i] : best[0];
    }
    return best[0];
}

static int32_t vec_argmax(const float *x, int32_t n)
{
    const float best = vec_max(x, n);
    for (int32_t i = 0; i < n; i++) {
        if (x[i] == best) {
            return i;
        }
    }
    return 0; /* all NaN: the caller looks at the score */
}

static float vec_exp_sum(float *y, const float *x, float max, int32_t n)
{
    const lanes m = l_set(max);
    lanes s = l_set(0.0f);
    FOR_LANES (i, n) {
        lanes v = l_exp(l_sub(load_at(x, i, n, -HUGE_VALF), m));
        s = l_add(s, v);
        if (y != NULL) {
            store_at(y, v, i, n);
        }
    }
    return l_sum(s);
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
