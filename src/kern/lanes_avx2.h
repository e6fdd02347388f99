/* lanes_avx2 - the words of lanes.h: two 256-bit registers (header only, private to kern/)
 *
 * Included by lanes.h alone, which says what each word does. Lanes 0..7 are in the first register,
 * 8..15 in the second. The instructions are those of AVX-512 at half the width, with the same rules
 * for NaN and rounding. */
#ifndef HEARTH_LANES_AVX2_H
#define HEARTH_LANES_AVX2_H

#include "kern/lanes_x86.h"

typedef struct {
    __m256 a;
    __m256 b;
} lanes;
typedef struct {
    __m256i a;
    __m256i b;
} ilanes;

INLINE lanes l_set(float a)
{
    return (lanes){ _mm256_set1_ps(a), _mm256_set1_ps(a) };
}

INLINE lanes l_load(const float *p)
{
    return (lanes){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}

INLINE void l_store(float *p, lanes x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}

INLINE float l_sum(lanes x)
{
    return l_sum8(_mm256_add_ps(x.a, x.b));
}

INLINE float l_most(lanes x)
{
    return l_most8(_mm256_max_ps(x.a, x.b));
}

INLINE lanes l_add(lanes x, lanes y)
{
    return (lanes){ _mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b) };
}

INLINE lanes l_sub(lanes x, lanes y)
{
    return (lanes){ _mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b) };
}

INLINE lanes l_mul(lanes x, lanes y)
{
    return (lanes){ _mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b) };
}

INLINE lanes l_div(lanes x, lanes y)
{
    return (lanes){ _mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b) };
}

INLINE lanes l_max(lanes x, lanes y)
{
    return (lanes){ _mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b) };
}

INLINE lanes l_min(lanes x, lanes y)
{
    return (lanes){ _mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b) };
}

INLINE lanes l_fma(lanes x, lanes y, lanes z)
{
    return (lanes){ _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) };
}

INLINE lanes l_less(lanes a, lanes b, lanes x, lanes y)
{
    return (lanes){ _mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ)),
                    _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ)) };
}

INLINE lanes l_power2(lanes t)
{
    return (lanes){ _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t.a), 23)),
                    _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t.b), 23)) };
}

INLINE lanes l_load_f16(const uint16_t *p)
{
    return (lanes){ _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
                    _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8))) };
}

INLINE void l_store_f16(uint16_t *p, lanes x)
{
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}

INLINE __m256 l_widen8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

INLINE lanes l_load_i8(const int8_t *p)
{
    return (lanes){ l_widen8(p), l_widen8(p + 8) };
}

/* Even and odd elements of 16 floats. */
INLINE __m256 l_half(const float *p, const int odd)
{
    const __m256 x = _mm256_loadu_ps(p);
    const __m256 y = _mm256_loadu_ps(p + 8);
    const __m256 low = _mm256_permute2f128_ps(x, y, 0x20);
    const __m256 high = _mm256_permute2f128_ps(x, y, 0x31);
    return odd != 0 ? _mm256_shuffle_ps(low, high, 0xDD) : _mm256_shuffle_ps(low, high, 0x88);
}

INLINE void l_load2(const float *p, lanes *even, lanes *odd)
{
    /* shuffle_ps takes pairs within 128 bits, so the halves are brought there first */
    *even = (lanes){ l_half(p, 0), l_half(p + 16, 0) };
    *odd = (lanes){ l_half(p, 1), l_half(p + 16, 1) };
}

INLINE void l_zip8(float *p, __m256 even, __m256 odd)
{
    const __m256 low = _mm256_unpacklo_ps(even, odd);
    const __m256 high = _mm256_unpackhi_ps(even, odd);
    _mm256_storeu_ps(p, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(low, high, 0x31));
}

INLINE void l_store2(float *p, lanes even, lanes odd)
{
    l_zip8(p, even.a, odd.a);
    l_zip8(p + 16, even.b, odd.b);
}

/* Bits as integers: for the exact maximum of absolute values. */
INLINE ilanes l_bits(lanes x)
{
    return (ilanes){ _mm256_castps_si256(x.a), _mm256_castps_si256(x.b) };
}

INLINE lanes l_from_bits(ilanes x)
{
    return (lanes){ _mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b) };
}

INLINE ilanes il_set(int32_t a)
{
    return (ilanes){ _mm256_set1_epi32(a), _mm256_set1_epi32(a) };
}

INLINE ilanes il_and(ilanes x, ilanes y)
{
    return (ilanes){ _mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b) };
}

INLINE ilanes il_max(ilanes x, ilanes y)
{
    return (ilanes){ _mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b) };
}

INLINE ilanes il_sub(ilanes x, ilanes y)
{
    return (ilanes){ _mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b) };
}

INLINE int32_t il_most(ilanes x)
{
    const __m256i a = _mm256_max_epi32(x.a, x.b);
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
    return _mm_cvtsi128_si32(m);
}

INLINE void il_store_i8(int8_t *p, ilanes x)
{
    const __m128i a =
        _mm_packs_epi32(_mm256_castsi256_si128(x.a), _mm256_extracti128_si256(x.a, 1));
    const __m128i b =
        _mm_packs_epi32(_mm256_castsi256_si128(x.b), _mm256_extracti128_si256(x.b, 1));
    _mm_storeu_si128((void *)p, _mm_packs_epi16(a, b));
}

/* For attention's integers. */
INLINE ilanes il_load(const void *p)
{
    const __m256i *at = p;
    return (ilanes){ _mm256_loadu_si256(at), _mm256_loadu_si256(at + 1) };
}

INLINE ilanes il_left16(ilanes x)
{
    return (ilanes){ _mm256_slli_epi32(x.a, 16), _mm256_slli_epi32(x.b, 16) };
}

INLINE ilanes il_right16(ilanes x)
{
    return (ilanes){ _mm256_srli_epi32(x.a, 16), _mm256_srli_epi32(x.b, 16) };
}

INLINE ilanes il_add(ilanes x, ilanes y)
{
    return (ilanes){ _mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b) };
}

typedef struct {
    __m256i a;
    __m256i b;
} bytes4;
typedef struct {
    __m256i a;
    __m256i b;
} shorts2;

INLINE lanes l_from_int(ilanes x)
{
    return (lanes){ _mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b) };
}

INLINE void l_store_i16(int16_t *p, lanes x)
{
    const __m256i v = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
    _mm256_storeu_si256((void *)p, _mm256_permute4x64_epi64(v, 0xD8));
}

INLINE bytes4 f_load(const uint8_t *p)
{
    const __m256i offset = _mm256_set1_epi8((char)0x80);
    return (bytes4){ _mm256_xor_si256(_mm256_loadu_si256((const void *)p), offset),
                     _mm256_xor_si256(_mm256_loadu_si256((const void *)(p + 32)), offset) };
}

INLINE ilanes f_start(int32_t sum)
{
    (void)sum;
    return il_set(0);
}

/* |x| times y with the sign of x: two products stay below 2^15. */
INLINE __m256i f_dot_half(__m256i acc, __m256i x, __m256i y)
{
    const __m256i two = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(y, x));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
}

INLINE ilanes f_dot(ilanes acc, bytes4 x, const int8_t *y)
{
    int32_t four;
    memcpy(&four, y, sizeof four);
    const __m256i v = _mm256_set1_epi32(four);
    return (ilanes){ f_dot_half(acc.a, x.a, v), f_dot_half(acc.b, x.b, v) };
}

INLINE shorts2 t_load(const int8_t *p)
{
    return (shorts2){ _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)p)),
                      _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(p + 16))) };
}

INLINE ilanes t_dot(ilanes acc, shorts2 x, const int16_t *y)
{
    int32_t two;
    memcpy(&two, y, sizeof two);
    const __m256i v = _mm256_set1_epi32(two);
    return (ilanes){ _mm256_add_epi32(acc.a, _mm256_madd_epi16(x.a, v)),
                     _mm256_add_epi32(acc.b, _mm256_madd_epi16(x.b, v)) };
}

#endif
