/* lanes_avx512 - the words of lanes.h: one 512-bit register (header only, private to kern/)
 *
 * Included by lanes.h alone, which says what each word does. The instructions are the words, one
 * for one: vmaxps and vminps return their second operand when either is a NaN, vcvtph2ps and
 * vcvtps2ph widen exactly and round to nearest, and nothing flushes subnormals. */
#ifndef HEARTH_LANES_AVX512_H
#define HEARTH_LANES_AVX512_H

#include "kern/lanes_x86.h"

typedef struct {
    __m512 v;
} lanes;
typedef struct {
    __m512i v;
} ilanes;

INLINE lanes l_set(float a)
{
    return (lanes){ _mm512_set1_ps(a) };
}

INLINE lanes l_load(const float *p)
{
    return (lanes){ _mm512_loadu_ps(p) };
}

INLINE void l_store(float *p, lanes x)
{
    _mm512_storeu_ps(p, x.v);
}

INLINE float l_sum(lanes x)
{
    return l_sum8(_mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1)));
}

INLINE float l_most(lanes x)
{
    return l_most8(_mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1)));
}

INLINE lanes l_add(lanes x, lanes y)
{
    return (lanes){ _mm512_add_ps(x.v, y.v) };
}

INLINE lanes l_sub(lanes x, lanes y)
{
    return (lanes){ _mm512_sub_ps(x.v, y.v) };
}

INLINE lanes l_mul(lanes x, lanes y)
{
    return (lanes){ _mm512_mul_ps(x.v, y.v) };
}

INLINE lanes l_div(lanes x, lanes y)
{
    return (lanes){ _mm512_div_ps(x.v, y.v) };
}

INLINE lanes l_fma(lanes x, lanes y, lanes z)
{
    return (lanes){ _mm512_fmadd_ps(x.v, y.v, z.v) };
}

INLINE lanes l_max(lanes x, lanes y)
{
    return (lanes){ _mm512_max_ps(x.v, y.v) };
}

INLINE lanes l_min(lanes x, lanes y)
{
    return (lanes){ _mm512_min_ps(x.v, y.v) };
}

INLINE lanes l_less(lanes a, lanes b, lanes x, lanes y)
{
    const __mmask16 is_less = _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ);
    return (lanes){ _mm512_mask_blend_ps(is_less, y.v, x.v) };
}

INLINE lanes l_power2(lanes t)
{
    return (lanes){ _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t.v), 23)) };
}

INLINE lanes l_load_f16(const uint16_t *p)
{
    return (lanes){ _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)) };
}

INLINE void l_store_f16(uint16_t *p, lanes x)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}

INLINE lanes l_load_i8(const int8_t *p)
{
    return (lanes){ _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p))) };
}

INLINE void l_load2(const float *p, lanes *even, lanes *odd)
{
    const __m512i pick =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512 low = _mm512_loadu_ps(p);
    const __m512 high = _mm512_loadu_ps(p + LANES);
    even->v = _mm512_permutex2var_ps(low, pick, high);
    odd->v = _mm512_permutex2var_ps(low, _mm512_add_epi32(pick, _mm512_set1_epi32(1)), high);
}

INLINE void l_store2(float *p, lanes even, lanes odd)
{
    const __m512i pick = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    _mm512_storeu_ps(p, _mm512_permutex2var_ps(even.v, pick, odd.v));
    _mm512_storeu_ps(p + LANES, _mm512_permutex2var_ps(
                                    even.v, _mm512_add_epi32(pick, _mm512_set1_epi32(8)), odd.v));
}

/* Bits as integers: for the exact maximum of absolute values. */
INLINE ilanes l_bits(lanes x)
{
    return (ilanes){ _mm512_castps_si512(x.v) };
}

INLINE lanes l_from_bits(ilanes x)
{
    return (lanes){ _mm512_castsi512_ps(x.v) };
}

INLINE ilanes il_set(int32_t a)
{
    return (ilanes){ _mm512_set1_epi32(a) };
}

INLINE ilanes il_and(ilanes x, ilanes y)
{
    return (ilanes){ _mm512_and_si512(x.v, y.v) };
}

INLINE ilanes il_max(ilanes x, ilanes y)
{
    return (ilanes){ _mm512_max_epi32(x.v, y.v) };
}

INLINE ilanes il_sub(ilanes x, ilanes y)
{
    return (ilanes){ _mm512_sub_epi32(x.v, y.v) };
}

INLINE int32_t il_most(ilanes x)
{
    return _mm512_reduce_max_epi32(x.v);
}

INLINE void il_store_i8(int8_t *p, ilanes x)
{
    _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(x.v));
}

/* For attention's integers. */
INLINE ilanes il_load(const void *p)
{
    return (ilanes){ _mm512_loadu_si512(p) };
}

INLINE ilanes il_left16(ilanes x)
{
    return (ilanes){ _mm512_slli_epi32(x.v, 16) };
}

INLINE ilanes il_right16(ilanes x)
{
    return (ilanes){ _mm512_srli_epi32(x.v, 16) };
}

INLINE ilanes il_add(ilanes x, ilanes y)
{
    return (ilanes){ _mm512_add_epi32(x.v, y.v) };
}

typedef struct {
    __m512i v;
} bytes4;
typedef struct {
    __m512i v;
} shorts2;

INLINE lanes l_from_int(ilanes x)
{
    return (lanes){ _mm512_cvtepi32_ps(x.v) };
}

INLINE void l_store_i16(int16_t *p, lanes x)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x.v)));
}

INLINE bytes4 f_load(const uint8_t *p)
{
    return (bytes4){ _mm512_loadu_si512(p) };
}

INLINE ilanes f_start(int32_t sum)
{
    return (ilanes){ _mm512_set1_epi32(-128 * sum) };
}

/* Four bytes in all lanes: one load, whatever number of dot products takes it. */
INLINE __m512i l_four_bytes(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* In asm, here and below: gcc 12 moves the sums of the plain intrinsic between registers. */
INLINE ilanes f_dot(ilanes acc, bytes4 x, const int8_t *y)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(x.v), "v"(l_four_bytes(y)));
    return acc;
}

/* Of AVX-512 alone, and only where the processor has AVX512_BF16: see attn_bf16.h. In asm, because
 * the rest of the file must not assume that it has. */
#define LANES_HAVE_DOT

INLINE lanes l_dot_bf16(lanes acc, ilanes x, const uint16_t *y)
{
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc.v) : "v"(x.v), "v"(l_four_bytes(y)));
    return acc;
}

INLINE void l_store_bf16(uint16_t *p, lanes x)
{
    __m256i y;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(y) : "v"(x.v));
    _mm256_storeu_si256((void *)p, y);
}

/* The same, with 0 for what is below 2^-50; returns what was stored. */
INLINE lanes l_store_weights(uint16_t *p, lanes x)
{
    const __mmask16 is_kept = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(0x1p-50f), _CMP_NLT_UQ);
    const __m512i upper = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7,
                                           0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
    __m256i y;
    __asm__("vcvtneps2bf16 %1, %0%{%2%}%{z%}" : "=v"(y) : "v"(x.v), "Yk"(is_kept));
    _mm256_storeu_si256((void *)p, y);
    return (lanes){ _mm512_castsi512_ps(
        _mm512_maskz_permutexvar_epi16(0xAAAAAAAA, upper, _mm512_castsi256_si512(y))) };
}

INLINE shorts2 t_load(const int8_t *p)
{
    return (shorts2){ _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)p)) };
}

INLINE ilanes t_dot(ilanes acc, shorts2 x, const int16_t *y)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc.v) : "v"(x.v), "v"(l_four_bytes(y)));
    return acc;
}

#endif
