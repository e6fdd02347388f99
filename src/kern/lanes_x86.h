/* lanes_x86 - words that AVX2 and AVX-512 share (see lanes.h) */
#ifndef HEARTH_LANES_X86_H
#define HEARTH_LANES_X86_H

#include <immintrin.h>

/* The rest of the fixed tree. */
INLINE float l_sum8(__m256 x)
{
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

INLINE float l_most8(__m256 x)
{
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two))) + 0.0f;
}

/* The distance of two rows of bytes is a sum: of 8 bytes at a time, moved up by 128. (16 at a time,
 * as they were stored: a wider load would wait for the stores.) */
INLINE void l_sums_i8(const int8_t *p, int32_t sum[2])
{
    for (int h = 0; h < 2; h++) {
        const __m128i v = _mm_loadu_si128((const void *)(p + LANES * h));
        const __m128i s = _mm_sad_epu8(_mm_xor_si128(v, _mm_set1_epi8(-128)), _mm_setzero_si128());
        sum[h] = _mm_cvtsi128_si32(_mm_add_epi64(s, _mm_unpackhi_epi64(s, s))) - LANES * 128;
    }
}

#endif
