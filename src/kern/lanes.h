/* lanes - sixteen float lanes, the same on every instruction set (header only, private to kern/)
 *
 * The vector kernels are written once, in vec_body.h and attn_body.h, against this vocabulary; an
 * instruction set is a choice of these few functions: one 512-bit register, two 256-bit ones, four 128-bit
 * ones, or an array in plain C. Every function does the same IEEE operation in each lane, so equal bits need
 * no argument beyond this page. Include it with one of LANES_SCALAR, LANES_AVX2, LANES_AVX512, LANES_NEON
 * defined.
 *
 * Not used: approximate reciprocals, flush to zero, fused operations that another set lacks. */
#ifndef HEARTH_LANES_H
#define HEARTH_LANES_H

#include "num/quant.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define INLINE static inline __attribute__((always_inline, unused))

#if defined(LANES_AVX512)
#include <immintrin.h>
typedef struct {
    __m512 v;
} lanes;
typedef struct {
    __m512i v;
} ilanes;
INLINE lanes l_set(float a) { return (lanes){ _mm512_set1_ps(a) }; }
INLINE lanes l_load(const float *p) { return (lanes){ _mm512_loadu_ps(p) }; }
INLINE void l_store(float *p, lanes a) { _mm512_storeu_ps(p, a.v); }
INLINE lanes l_add(lanes a, lanes b) { return (lanes){ _mm512_add_ps(a.v, b.v) }; }
INLINE lanes l_sub(lanes a, lanes b) { return (lanes){ _mm512_sub_ps(a.v, b.v) }; }
INLINE lanes l_mul(lanes a, lanes b) { return (lanes){ _mm512_mul_ps(a.v, b.v) }; }
INLINE lanes l_div(lanes a, lanes b) { return (lanes){ _mm512_div_ps(a.v, b.v) }; }
INLINE lanes l_fma(lanes a, lanes b, lanes c) { return (lanes){ _mm512_fmadd_ps(a.v, b.v, c.v) }; }
INLINE lanes l_load_f16(const uint16_t *p) { return (lanes){ _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)) }; }
INLINE void l_store_f16(uint16_t *p, lanes a) { _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(a.v, 0)); }
INLINE lanes l_load_i8(const int8_t *p) { return (lanes){ _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p))) }; }
INLINE ilanes l_bits(lanes a) { return (ilanes){ _mm512_castps_si512(a.v) }; }
INLINE lanes l_from_bits(ilanes a) { return (lanes){ _mm512_castsi512_ps(a.v) }; }
INLINE ilanes il_set(int32_t a) { return (ilanes){ _mm512_set1_epi32(a) }; }
INLINE ilanes il_add(ilanes a, ilanes b) { return (ilanes){ _mm512_add_epi32(a.v, b.v) }; }
INLINE ilanes il_and(ilanes a, ilanes b) { return (ilanes){ _mm512_and_si512(a.v, b.v) }; }
INLINE ilanes il_or(ilanes a, ilanes b) { return (ilanes){ _mm512_or_si512(a.v, b.v) }; }
INLINE ilanes il_shl23(ilanes a) { return (ilanes){ _mm512_slli_epi32(a.v, 23) }; }
INLINE ilanes il_max(ilanes a, ilanes b) { return (ilanes){ _mm512_max_epi32(a.v, b.v) }; }
/* a < b ? x : y, false on NaN */
INLINE lanes l_less(lanes a, lanes b, lanes x, lanes y) { return (lanes){ _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v) }; }
#elif defined(LANES_AVX2)
#include <immintrin.h>
typedef struct {
    __m256 a, b;
} lanes;
typedef struct {
    __m256i a, b;
} ilanes;
INLINE lanes l_set(float x) { return (lanes){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
INLINE lanes l_load(const float *p) { return (lanes){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
INLINE void l_store(float *p, lanes x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
INLINE lanes l_add(lanes x, lanes y) { return (lanes){ _mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b) }; }
INLINE lanes l_sub(lanes x, lanes y) { return (lanes){ _mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b) }; }
INLINE lanes l_mul(lanes x, lanes y) { return (lanes){ _mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b) }; }
INLINE lanes l_div(lanes x, lanes y) { return (lanes){ _mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b) }; }
INLINE lanes l_fma(lanes x, lanes y, lanes z) { return (lanes){ _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) }; }
INLINE lanes l_load_f16(const uint16_t *p) { return (lanes){ _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8))) }; }
INLINE void l_store_f16(uint16_t *p, lanes x) { _mm_storeu_si128((void *)p, _mm256_cvtps_ph(x.a, 0)); _mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(x.b, 0)); }
INLINE lanes l_load_i8(const int8_t *p) { return (lanes){ _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p))), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p + 8)))) }; }
INLINE ilanes l_bits(lanes x) { return (ilanes){ _mm256_castps_si256(x.a), _mm256_castps_si256(x.b) }; }
INLINE lanes l_from_bits(ilanes x) { return (lanes){ _mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b) }; }
INLINE ilanes il_set(int32_t x) { return (ilanes){ _mm256_set1_epi32(x), _mm256_set1_epi32(x) }; }
INLINE ilanes il_add(ilanes x, ilanes y) { return (ilanes){ _mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b) }; }
INLINE ilanes il_and(ilanes x, ilanes y) { return (ilanes){ _mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b) }; }
INLINE ilanes il_or(ilanes x, ilanes y) { return (ilanes){ _mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b) }; }
INLINE ilanes il_shl23(ilanes x) { return (ilanes){ _mm256_slli_epi32(x.a, 23), _mm256_slli_epi32(x.b, 23) }; }
INLINE ilanes il_max(ilanes x, ilanes y) { return (ilanes){ _mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b) }; }
INLINE lanes l_less(lanes a, lanes b, lanes x, lanes y) { return (lanes){ _mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ)), _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ)) }; }
#elif defined(LANES_NEON)
#include <arm_neon.h>
typedef struct {
    float32x4_t v[4];
} lanes;
typedef struct {
    int32x4_t v[4];
} ilanes;
#define EACH(T, e) T r; for (int i = 0; i < 4; i++) { r.v[i] = (e); } return r
INLINE lanes l_set(float a) { EACH(lanes, vdupq_n_f32(a)); }
INLINE lanes l_load(const float *p) { EACH(lanes, vld1q_f32(p + 4 * i)); }
INLINE void l_store(float *p, lanes a) { for (int i = 0; i < 4; i++) { vst1q_f32(p + 4 * i, a.v[i]); } }
INLINE lanes l_add(lanes a, lanes b) { EACH(lanes, vaddq_f32(a.v[i], b.v[i])); }
INLINE lanes l_sub(lanes a, lanes b) { EACH(lanes, vsubq_f32(a.v[i], b.v[i])); }
INLINE lanes l_mul(lanes a, lanes b) { EACH(lanes, vmulq_f32(a.v[i], b.v[i])); }
INLINE lanes l_div(lanes a, lanes b) { EACH(lanes, vdivq_f32(a.v[i], b.v[i])); }
INLINE lanes l_fma(lanes a, lanes b, lanes c) { EACH(lanes, vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
INLINE lanes l_load_f16(const uint16_t *p) { EACH(lanes, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)))); }
INLINE void l_store_f16(uint16_t *p, lanes a) { for (int i = 0; i < 4; i++) { vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i]))); } }
INLINE lanes l_load_i8(const int8_t *p)
{
    lanes r;
    for (int i = 0; i < 2; i++) {
        const int16x8_t w = vmovl_s8(vld1_s8(p + 8 * i));
        r.v[2 * i] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(w)));
        r.v[2 * i + 1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(w)));
    }
    return r;
}
INLINE ilanes l_bits(lanes a) { EACH(ilanes, vreinterpretq_s32_f32(a.v[i])); }
INLINE lanes l_from_bits(ilanes a) { EACH(lanes, vreinterpretq_f32_s32(a.v[i])); }
INLINE ilanes il_set(int32_t a) { EACH(ilanes, vdupq_n_s32(a)); }
INLINE ilanes il_add(ilanes a, ilanes b) { EACH(ilanes, vaddq_s32(a.v[i], b.v[i])); }
INLINE ilanes il_and(ilanes a, ilanes b) { EACH(ilanes, vandq_s32(a.v[i], b.v[i])); }
INLINE ilanes il_or(ilanes a, ilanes b) { EACH(ilanes, vorrq_s32(a.v[i], b.v[i])); }
INLINE ilanes il_shl23(ilanes a) { EACH(ilanes, vshlq_n_s32(a.v[i], 23)); }
INLINE ilanes il_max(ilanes a, ilanes b) { EACH(ilanes, vmaxq_s32(a.v[i], b.v[i])); }
INLINE lanes l_less(lanes a, lanes b, lanes x, lanes y) { EACH(lanes, vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i])); }
#undef EACH
#else /* plain C: the normative form */
typedef struct {
    float v[LANES];
} lanes;
typedef struct {
    int32_t v[LANES];
} ilanes;
#define EACH(T, e) T r; for (int i = 0; i < LANES; i++) { r.v[i] = (e); } return r
INLINE lanes l_set(float a) { EACH(lanes, a); }
INLINE lanes l_load(const float *p) { EACH(lanes, p[i]); }
INLINE void l_store(float *p, lanes a) { memcpy(p, a.v, sizeof a.v); }
INLINE lanes l_add(lanes a, lanes b) { EACH(lanes, a.v[i] + b.v[i]); }
INLINE lanes l_sub(lanes a, lanes b) { EACH(lanes, a.v[i] - b.v[i]); }
INLINE lanes l_mul(lanes a, lanes b) { EACH(lanes, a.v[i] * b.v[i]); }
INLINE lanes l_div(lanes a, lanes b) { EACH(lanes, a.v[i] / b.v[i]); }
INLINE lanes l_fma(lanes a, lanes b, lanes c) { EACH(lanes, fmaf(a.v[i], b.v[i], c.v[i])); }
INLINE lanes l_load_f16(const uint16_t *p) { EACH(lanes, quant_f16_to_f32(p[i])); }
INLINE void l_store_f16(uint16_t *p, lanes a) { for (int i = 0; i < LANES; i++) { p[i] = quant_f32_to_f16(a.v[i]); } }
INLINE lanes l_load_i8(const int8_t *p) { EACH(lanes, (float)p[i]); }
INLINE ilanes l_bits(lanes a) { ilanes r; memcpy(r.v, a.v, sizeof r.v); return r; }
INLINE lanes l_from_bits(ilanes a) { lanes r; memcpy(r.v, a.v, sizeof r.v); return r; }
INLINE ilanes il_set(int32_t a) { EACH(ilanes, a); }
INLINE ilanes il_add(ilanes a, ilanes b) { EACH(ilanes, (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i])); }
INLINE ilanes il_and(ilanes a, ilanes b) { EACH(ilanes, a.v[i] & b.v[i]); }
INLINE ilanes il_or(ilanes a, ilanes b) { EACH(ilanes, a.v[i] | b.v[i]); }
INLINE ilanes il_shl23(ilanes a) { EACH(ilanes, (int32_t)((uint32_t)a.v[i] << 23)); }
INLINE ilanes il_max(ilanes a, ilanes b) { EACH(ilanes, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
INLINE lanes l_less(lanes a, lanes b, lanes x, lanes y) { EACH(lanes, a.v[i] < b.v[i] ? x.v[i] : y.v[i]); }
#undef EACH
#endif

/* --- built from the above: one text for all ----------------------------------------------------------------------- */

/* The fixed tree: 8 + 8, 4 + 4, 2 + 2, 1 + 1. */
INLINE float l_sum(lanes a)
{
    float v[LANES];
    l_store(v, a);
    for (int n = LANES / 2; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) {
            v[i] = v[i] + v[i + n];
        }
    }
    return v[0];
}

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

/* The greater one; b where either is NaN (a must not be). */
INLINE lanes l_max(lanes a, lanes b) { return l_less(b, a, a, b); }

/* exp(x): x = n ln 2 + r, |r| <= 0.3466; polynomial of degree 6 (Cody & Waite reduction, coefficients fitted
 * by Remez exchange to (exp(r) - 1 - r) / r^2); 0 below -87.3, infinity above 88.7; NaN stays. */
INLINE lanes l_exp(lanes x)
{
    const lanes low = l_set(-87.3f);
    const lanes high = l_set(88.7f);
    const lanes big = l_set(0x1.8p23f);
    lanes c = l_less(x, low, low, x); /* keep n in range; the ends are set below */
    c = l_less(high, c, high, c);
    const lanes t = l_fma(c, l_set(0x1.715476p0f), big);
    const lanes n = l_sub(t, big);
    lanes r = l_fma(n, l_set(-0x1.62e400p-1f), c);
    r = l_fma(n, l_set(-0x1.7f7d1cp-20f), r);
    lanes p = l_set(0x1.6a21acp-10f);
    p = l_fma(p, r, l_set(0x1.123b6ap-7f));
    p = l_fma(p, r, l_set(0x1.5558fap-5f));
    p = l_fma(p, r, l_set(0x1.555490p-3f));
    p = l_fma(p, r, l_set(0x1.fffffcp-2f));
    p = l_fma(l_mul(r, r), p, r);
    p = l_add(p, l_set(1.0f));
    /* times 2^n by adding to the exponent: t's low bits hold n */
    const ilanes e = il_shl23(il_add(l_bits(t), il_set(-0x4B400000)));
    lanes y = l_from_bits(il_add(l_bits(p), e));
    y = l_less(x, low, l_set(0.0f), y);
    y = l_less(high, x, l_set(HUGE_VALF), y);
    return l_less(x, l_set(HUGE_VALF), y, l_less(l_set(0.0f), x, y, x)); /* NaN compares false twice */
}

#endif
