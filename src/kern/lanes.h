/* lanes - sixteen float lanes, the same on every instruction set (header only, private to kern/)
 *
 * The vector kernels are written once, in vec_body.h and attn_body.h, against this vocabulary. An
 * instruction set is a choice of a few words: lanes_avx512.h (one register), lanes_avx2.h (two),
 * lanes_neon.h (four), lanes_c.h (an array). Every word does the same IEEE operation in each lane,
 * so equal bits need no argument beyond those four pages. The scalar kernels (vec_ref.c,
 * attn_ref.c) are written apart, element by element, and do not use these words.
 *
 * Include it with one of LANES_SCALAR, LANES_AVX2, LANES_AVX512, LANES_NEON defined.
 *
 * The words (lanes in, lanes out, unless another type is named):
 *   l_set(a)  l_load(p)  l_store(p, x)  l_add  l_sub  l_mul  l_div
 *   l_fma(x, y, z)         x * y + z, rounded once
 *   l_max(x, y)            x > y ? x : y, so a NaN in either gives y
 *   l_min(x, y)            x < y ? x : y, so a NaN in either gives y
 *   l_less(a, b, x, y)     a < b ? x : y
 *   l_power2(t)            the float whose bits are those of t, shifted left by 23
 *   l_sum(x)               all lanes, in the fixed tree: 8 + 8, 4 + 4, 2 + 2, 1 + 1
 *   l_most(x)              the greatest lane, none of which is a NaN; a zero is +0
 *   l_load_f16, l_store_f16, l_load_i8        16 elements, widened exactly, rounded to nearest
 *   l_load2(p, &x, &y), l_store2(p, x, y)     32 floats, even ones in x, odd ones in y
 *   l_bits(x), l_from_bits(i)                 the bits as integers of 32 bits, and back
 *   il_set(a)  il_and  il_max  il_sub         on integers, lane by lane
 *   il_most(i)                                of all lanes; il_store_i8(p, i): as bytes, -128..127
 *   l_sums_i8(p, sum)                         of 16 and 16 bytes
 * For attention, not in lanes_c.h, with four bytes (bytes4) or two shorts (shorts2) in each lane:
 *   il_load(p)  il_add  il_left16, il_right16(i)       shifts, with zeros from both sides
 *   l_from_int(i) to the nearest float                 l_store_i16(p, x)  to the nearest short
 *   f_load(p)  64 bytes q + 128      f_dot(i, f, y)  i + the sum of q * y[0..3], for i that began
 *   t_load(p)  32 bytes, widened     t_dot(i, t, y)  i + t * y[0..1]       at f_start(sum of all y)
 *
 * Not used: approximate reciprocals, flush to zero, operations that another set lacks. */
#ifndef HEARTH_LANES_H
#define HEARTH_LANES_H

#include "num/quant.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES  16
#define INLINE static inline __attribute__((always_inline, unused))

#if defined(LANES_AVX512)
#include "kern/lanes_avx512.h"
#elif defined(LANES_AVX2)
#include "kern/lanes_avx2.h"
#elif defined(LANES_NEON)
#include "kern/lanes_neon.h"
#else
#include "kern/lanes_c.h"
#endif

/* --- built from the words: one text for all -------------------------------------------------- */

/* Elements [0, n) of p, n <= 16, the other lanes `fill`. */
INLINE lanes l_load_n(const float *p, int32_t n, float fill)
{
    float v[LANES];
    for (int32_t i = 0; i < LANES; i++) {
        v[i] = i < n ? p[i] : fill;
    }
    return l_load(v);
}

INLINE void l_store_n(float *p, lanes a, int32_t n)
{
    float v[LANES];
    l_store(v, a);
    memcpy(p, v, (size_t)n * sizeof v[0]);
}

/* Elements [i, min(i + 16, n)) of p, and back. */
INLINE lanes l_load_at(const float *p, int32_t i, int32_t n, float fill)
{
    return n - i >= LANES ? l_load(p + i) : l_load_n(p + i, n - i, fill);
}

INLINE void l_store_at(float *p, lanes a, int32_t i, int32_t n)
{
    if (n - i >= LANES) {
        l_store(p + i, a);
    } else {
        l_store_n(p + i, a, n - i);
    }
}

/* The greatest absolute value of both; NaN if one is. */
INLINE float l_amax(lanes x, lanes y)
{
    const ilanes no_sign = il_set(0x7FFFFFFF);
    const int32_t most = il_most(il_max(il_and(l_bits(x), no_sign), il_and(l_bits(y), no_sign)));
    float amax;
    memcpy(&amax, &most, sizeof amax);
    return amax;
}

/* exp, in two steps: x = n ln 2 + r; and the polynomial in r times 2^n. See vec_ref_exp, which is
 * step by step the same. */
INLINE lanes l_exp_reduce(lanes x, lanes *t)
{
    const lanes big = l_set(0x1.8000FEp23f);
    const lanes c = l_min(l_set(89.0f), l_max(l_set(-88.0f), x));
    *t = l_fma(c, l_set(0x1.715476p0f), big);
    const lanes n = l_sub(*t, big);
    const lanes r = l_fma(n, l_set(-0x1.62E400p-1f), c);
    return l_fma(n, l_set(-0x1.7F7D1Cp-20f), r);
}

INLINE lanes l_exp_finish(lanes r, lanes t)
{
    lanes p = l_set(0x1.6A3FB6p-10f);
    p = l_fma(p, r, l_set(0x1.1239E0p-7f));
    p = l_fma(p, r, l_set(0x1.5558BEp-5f));
    p = l_fma(p, r, l_set(0x1.555492p-3f));
    p = l_fma(p, r, l_set(0x1.FFFFFCp-2f));
    p = l_fma(l_mul(r, r), p, r);
    return l_mul(l_add(p, l_set(1.0f)), l_power2(t));
}

INLINE lanes l_exp(lanes x)
{
    lanes t;
    const lanes r = l_exp_reduce(x, &t);
    return l_exp_finish(r, t);
}

/* exp(x + tail), |tail| far below |x| */
INLINE lanes l_exp_tail(lanes x, lanes tail)
{
    lanes t;
    const lanes r = l_exp_reduce(x, &t);
    return l_exp_finish(l_add(r, tail), t);
}

/* tanh, as vec_ref_tanh. */
INLINE lanes l_tanh(lanes x)
{
    const lanes zero = l_set(0.0f);
    const lanes a = l_less(x, zero, l_sub(zero, x), x);
    const lanes s = l_mul(x, x);
    lanes p = l_set(-0x1.696B24p-8f);
    p = l_fma(p, s, l_set(0x1.4F5D8Ap-6f));
    p = l_fma(p, s, l_set(-0x1.B7CFB8p-5f));
    p = l_fma(p, s, l_set(0x1.1103F0p-3f));
    p = l_fma(p, s, l_set(-0x1.555524p-2f));
    const lanes near = l_fma(l_mul(x, s), p, x);
    const lanes e = l_exp(l_add(a, a));
    lanes far = l_sub(l_set(1.0f), l_div(l_set(2.0f), l_add(e, l_set(1.0f))));
    far = l_less(x, zero, l_sub(zero, far), far);
    return l_less(a, l_set(0.625f), near, far);
}

#endif
