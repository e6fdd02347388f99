/* vec_ref - norms, activation functions, rotation, reductions: plain C, the normative form
 *
 * What every instruction set must equal bit for bit, written one element at a time so that it can
 * be read. Two ideas carry it:
 *
 *   - A sum over a vector runs in 16 lanes: element i goes to lane i mod 16, and the lanes meet in
 *     a fixed tree. Sixteen is the width of the widest register, and narrower ones emulate it by
 *     using several; so the order of additions, and with it the result, never depends on the
 *     processor.
 *   - Elementary functions are our own: argument reduction, a polynomial in a fixed sequence of
 *     fused multiply-adds, IEEE divisions. The C library's differ between versions.
 *
 * exp: x = n ln 2 + r (Cody & Waite 1980: ln 2 in two parts), a polynomial of degree 6 for e^r,
 * multiplied by 2^n built from its bits. The two GELU forms and SiLU are brought into a shape in
 * which nothing cancels, and where an exponent is large, its rounding error is carried along in a
 * second float (Dekker 1971): e^-40 off by half a unit in its exponent's last place is off by 20 of
 * its own. Coefficients are minimax fits (Lawson's weighted least squares) rounded one after the
 * other, lowest order first; errors found by tests/test_numerics.c stand in docs/NUMERICS.md.
 *
 * RMS norm: Zhang & Sennrich 2019; LayerNorm: Ba et al. 2016; rotary positions: Su et al. 2021;
 * gated units: Shazeer 2020; GELU: Hendrycks & Gimpel 2016; soft cap: Bello et al. 2016. Speed:
 * docs/SPEED.md, Kernels.
 *
 * Comparisons are written so that a NaN takes the branch that keeps it.
 *
 * Next: vec_body.h, the same for vectors; attn_ref.c. */
#include "kern/vec.h"

#include <math.h>
#include <string.h>

#define LANES 16

/* --- elementary functions -------------------------------------------------------------------- */

/* The float whose bits are those of t, shifted left by 23: the low byte becomes the exponent. */
static float power2(float t)
{
    uint32_t u;
    memcpy(&u, &t, sizeof u);
    u <<= 23;
    memcpy(&t, &u, sizeof t);
    return t;
}

float vec_ref_exp_tail(float x, float tail)
{
    /* Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits; the 127 beside it is
     * the exponent's bias, so that these bits become 2^n: 0 for n = -127, infinity for n = 128. */
    const float big = 0x1.8000FEp23f;
    float c = -88.0f > x ? -88.0f : x;
    c = 89.0f < c ? 89.0f : c;
    const float t = fmaf(c, 0x1.715476p0f, big);
    const float n = t - big;
    float r = fmaf(n, -0x1.62E400p-1f, c); /* exact: 15 bits times 8 */
    r = fmaf(n, -0x1.7F7D1Cp-20f, r) + tail;
    float p = 0x1.6A3FB6p-10f; /* (e^r - 1 - r) / r^2 for |r| <= 0.3475 */
    p = fmaf(p, r, 0x1.1239E0p-7f);
    p = fmaf(p, r, 0x1.5558BEp-5f);
    p = fmaf(p, r, 0x1.555492p-3f);
    p = fmaf(p, r, 0x1.FFFFFCp-2f);
    p = fmaf(r * r, p, r);
    return (p + 1.0f) * power2(t);
}

float vec_ref_exp(float x)
{
    return vec_ref_exp_tail(x, 0.0f);
}

/* Odd polynomial near 0, elsewhere 1 - 2 / (e^2|x| + 1). */
float vec_ref_tanh(float x)
{
    const float a = x < 0.0f ? 0.0f - x : x;
    if (a < 0.625f) {
        const float s = x * x;
        float p = -0x1.696B24p-8f; /* (tanh(x) / x - 1) / x^2 in x^2 */
        p = fmaf(p, s, 0x1.4F5D8Ap-6f);
        p = fmaf(p, s, -0x1.B7CFB8p-5f);
        p = fmaf(p, s, 0x1.1103F0p-3f);
        p = fmaf(p, s, -0x1.555524p-2f);
        return fmaf(x * s, p, x);
    }
    const float far = 1.0f - 2.0f / (vec_ref_exp(a + a) + 1.0f);
    return x < 0.0f ? 0.0f - far : far;
}

/* Far below 0, e^-x becomes infinite and the quotient -0, as it should. */
static float silu(float x)
{
    return x / (1.0f + vec_ref_exp(0.0f - x));
}

/* 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3). With 2u = x (A + B
 * x^2) the exponent is computed in two floats, product by product; beyond |x| = 20 the result is x
 * or -0 whatever its value. */
static float gelu_tanh(float x)
{
    float c = -20.0f > x ? -20.0f : x;
    c = 20.0f < c ? 20.0f : c;
    const float a_hi = 0x1.988454p0f; /* A = 2 sqrt(2 / pi) = 1.5957691216... */
    const float a_lo = -0x1.857936p-25f;
    const float b_hi = 0x1.2444F2p-4f; /* B = 0.044715 A */
    const float b_lo = 0x1.49B16Ap-29f;
    const float s = c * c;
    const float s_lo = fmaf(c, c, -s);
    const float q = b_hi * s;
    const float q_lo = fmaf(b_hi, s, -q);
    const float h = a_hi + q;
    const float back = h - a_hi;
    const float h_lo = (a_hi - (h - back)) + (q - back);
    const float rest = fmaf(b_lo, s, a_lo) + fmaf(b_hi, s_lo, q_lo);
    const float v = c * h;
    const float v_lo = fmaf(c, h, -v) + c * (h_lo + rest);
    return x / (1.0f + vec_ref_exp_tail(0.0f - v, 0.0f - v_lo));
}

/* x Phi(x), Phi the normal distribution function. Below |x| = 1 an odd polynomial about 1/2;
 * beyond, Phi(-a) = e^(-a^2 / 2) Q(3 / (3 + a)), after Cody 1969, with a^2 in two floats. */
static float gelu_erf(float x)
{
    const float abs = x < 0.0f ? 0.0f - x : x;
    const float a = 14.0f < abs ? 14.0f : abs;
    const float s = a * a;
    if (a < 1.0f) {
        float p = -0x1.112202p-17f; /* (Phi(x) - 1/2) / x in x^2 */
        p = fmaf(p, s, 0x1.E26C8Cp-14f);
        p = fmaf(p, s, -0x1.376EACp-10f);
        p = fmaf(p, s, 0x1.46D5580p-7f);
        p = fmaf(p, s, -0x1.105862p-4f);
        p = fmaf(p, s, 0x1.988454p-2f);
        return x * fmaf(x, p, 0.5f);
    }
    const float s_lo = fmaf(a, a, 0.0f - s);
    const float e = vec_ref_exp_tail(s * -0.5f, s_lo * -0.5f);
    const float t = 3.0f / (3.0f + a);
    float q = -0x1.4EF514p-6f;
    q = fmaf(q, t, 0x1.FD3668p-4f);
    q = fmaf(q, t, -0x1.1560CAp-2f);
    q = fmaf(q, t, 0x1.D52BEEp-3f);
    q = fmaf(q, t, -0x1.13A74Cp-4f);
    q = fmaf(q, t, 0x1.082C9Cp-3f);
    q = fmaf(q, t, 0x1.BEBD26p-4f);
    q = fmaf(q, t, 0x1.1305C6p-3f);
    q = fmaf(q, t, 0x1.102006p-3f);
    q = fmaf(q, t, 0x1.0119E6p-18f);
    q = e * q;
    return x * (x < 0.0f ? q : 1.0f - q);
}

static float swiglu_clamped(float x)
{
    const float g = 7.0f < x ? 7.0f : x;
    return g / (1.0f + vec_ref_exp(g * -1.702f));
}

/* The other factor. */
static float factor_of(enum kern_fn fn, float up)
{
    if (fn != KERN_FN_SWIGLU_CLAMPED) {
        return up;
    }
    const float least = -7.0f > up ? -7.0f : up;
    return (7.0f < least ? 7.0f : least) + 1.0f;
}

float vec_ref_fn(enum kern_fn fn, float x)
{
    switch (fn) {
    case KERN_FN_SILU:
        return silu(x);
    case KERN_FN_GELU_TANH:
        return gelu_tanh(x);
    case KERN_FN_GELU_ERF:
        return gelu_erf(x);
    case KERN_FN_RELU:
        return x < 0.0f ? 0.0f : x;
    case KERN_FN_RELU_SQR:
        return x < 0.0f ? 0.0f : x * x;
    case KERN_FN_SWIGLU_CLAMPED:
        return swiglu_clamped(x);
    case KERN_FN_COUNT:
        break;
    }
    return x;
}

/* --- sums ------------------------------------------------------------------------------------ */

float vec_ref_tree(float lane[LANES])
{
    for (int n = LANES / 2; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) {
            lane[i] = lane[i] + lane[i + n];
        }
    }
    return lane[0];
}

/* y = x / sqrt(mean(x^2) + eps) * w. The root and the quotient are the only operations that are
 * not additions or products; both are exact to the last bit in IEEE 754, so they may be used. */
static void ref_norm_rms(float *y, const float *x, const float *w, float eps, int32_t n)
{
    float lane[LANES] = { 0.0f };
    for (int32_t i = 0; i < n; i++) {
        lane[i % LANES] = fmaf(x[i], x[i], lane[i % LANES]);
    }
    const float r = 1.0f / sqrtf(vec_ref_tree(lane) / (float)n + eps);
    for (int32_t i = 0; i < n; i++) {
        y[i] = w != NULL ? (x[i] * r) * w[i] : x[i] * r;
    }
}

/* Two passes, because mean(x^2) - mean(x)^2 cancels where the mean is large beside the spread. */
static void ref_norm_layer(float *y, const float *x, const float *w, const float *b, float eps,
                           int32_t n)
{
    float lane[LANES] = { 0.0f };
    for (int32_t i = 0; i < n; i++) {
        lane[i % LANES] = lane[i % LANES] + x[i];
    }
    const float mean = vec_ref_tree(lane) / (float)n;
    float square[LANES] = { 0.0f };
    for (int32_t i = 0; i < n; i++) {
        const float d = x[i] - mean;
        square[i % LANES] = fmaf(d, d, square[i % LANES]);
    }
    const float r = 1.0f / sqrtf(vec_ref_tree(square) / (float)n + eps);
    for (int32_t i = 0; i < n; i++) {
        const float v = (x[i] - mean) * r;
        const float vw = w != NULL ? v * w[i] : v;
        y[i] = b != NULL ? vw + b[i] : vw;
    }
}

/* The numerator and denominator of softmax; `max` keeps every exponent at or below 0. */
static float ref_exp_sum(float *y, const float *x, float max, int32_t n)
{
    float lane[LANES] = { 0.0f };
    for (int32_t i = 0; i < n; i++) {
        const float e = vec_ref_exp(x[i] - max);
        lane[i % LANES] = lane[i % LANES] + e;
        if (y != NULL) {
            y[i] = e;
        }
    }
    return vec_ref_tree(lane);
}

/* --- element by element ---------------------------------------------------------------------- */

static void ref_glu(enum kern_fn fn, float *y, const float *gate, const float *up, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        const float v = vec_ref_fn(fn, gate[i]);
        y[i] = up != NULL ? v * factor_of(fn, up[i]) : v;
    }
}

static void ref_add(float *y, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = y[i] + x[i];
    }
}

static void ref_add_scaled(float *y, const float *x, float a, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = fmaf(a, x[i], y[i]);
    }
}

static void ref_mul(float *y, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = y[i] * x[i];
    }
}

static void ref_scale(float *y, float a, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = y[i] * a;
    }
}

static void ref_soft_cap(float *y, float cap, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = cap * vec_ref_tanh(y[i] / cap);
    }
}

/* Each pair (a, b) is a point of the plane, turned by the angle that its position has there. The
 * rest of a head beyond n_rot keeps its values (partial rotation, as GPT-NeoX has it). */
static void ref_rope(enum kern_rope kind, float *x, int32_t n_head, int32_t hd, int32_t n_rot,
                     const float *cos, const float *sin)
{
    const int32_t half = n_rot / 2;
    for (int32_t h = 0; h < n_head; h++) {
        for (int32_t i = 0; i < half; i++) {
            float *x0 = x + (size_t)h * hd + (kind == KERN_ROPE_PAIRS ? 2 * i : i);
            float *x1 = x0 + (kind == KERN_ROPE_PAIRS ? 1 : half);
            const float a = *x0;
            const float b = *x1;
            *x0 = fmaf(a, cos[i], -(b * sin[i]));
            *x1 = fmaf(a, sin[i], b * cos[i]);
        }
    }
}

/* --- greatest element ------------------------------------------------------------------------ */

/* NaN never wins. Of -0 and +0, which are equal, +0 is returned. */
static float ref_max(const float *x, int32_t n)
{
    float best = -HUGE_VALF;
    for (int32_t i = 0; i < n; i++) {
        best = x[i] > best ? x[i] : best;
    }
    return best + 0.0f;
}

/* Greedy decoding. A NaN compares false and so never becomes the best. */
static int32_t ref_argmax(const float *x, int32_t n)
{
    int32_t at = 0;
    float best = -HUGE_VALF;
    bool is_found = false;
    for (int32_t i = 0; i < n; i++) {
        if (x[i] > best || (!is_found && x[i] == best)) {
            best = x[i];
            at = i;
            is_found = true;
        }
    }
    return at; /* 0 when all are NaN: the caller looks at the score */
}

void vec_ref_fill(struct kern_table *t)
{
    t->norm_rms = ref_norm_rms;
    t->norm_layer = ref_norm_layer;
    t->glu = ref_glu;
    t->add = ref_add;
    t->add_scaled = ref_add_scaled;
    t->mul = ref_mul;
    t->scale = ref_scale;
    t->soft_cap = ref_soft_cap;
    t->rope = ref_rope;
    t->argmax = ref_argmax;
    t->max = ref_max;
    t->exp_sum = ref_exp_sum;
}
