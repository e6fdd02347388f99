/* words_avx2 - words of gemm_body.h that AVX2 and AVX-VNNI share (included by both)
 *
 * Registers of 8 rows, so a panel takes two steps. How codes are loaded and turned into bytes is
 * here; what multiplies them (`ready`, `add_dot`, `dots`) in gemm_avx2.c and gemm_avxvnni.c.
 *
 * The sums of 8 tokens and 8 registers of codes exceed the 16 registers, so the running float sums
 * live in memory: one load, folded into the fma, and one store per unit of 32 columns. */
#ifndef HEARTH_WORDS_AVX2_H
#define HEARTH_WORDS_AVX2_H

#define LANES_AVX2
#include "kern/gemm_act.h"

#define UNROLL   _Pragma("GCC unroll 16")
#define ROWS     8
#define TOGETHER 8 /* tokens that share a decode step */

typedef __m256 rows;
typedef __m256i isums;

/* A unit of 8 rows. Where signs stand aside, `w` is the unsigned side of the product, and `sign`
 * has bytes less than 0 for a minus, above 0 for a plus (or w = 0). */
struct unit {
    __m256i w[8];    /* codes: group g, byte 4 * row + t */
    __m256i sign[8]; /* of levels of codebooks, and what gemm_avx2.c makes */
    rows d[2];       /* scales of the halves (equal but for NVFP4) */
    rows sub[2];     /* integer sub-scales */
    rows min[2];     /* integer minima */
    rows dmin;
    rows m;
};

INLINE rows r_set(float a)
{
    return _mm256_set1_ps(a);
}

INLINE rows r_broadcast(const float *p)
{
    return r_set(*p);
}

INLINE rows r_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

INLINE void r_store(float *p, rows x)
{
    _mm256_storeu_ps(p, x);
}

INLINE rows r_add(rows x, rows y)
{
    return _mm256_add_ps(x, y);
}

INLINE rows r_mul(rows x, rows y)
{
    return _mm256_mul_ps(x, y);
}

INLINE rows r_fma(rows x, rows y, rows z)
{
    return _mm256_fmadd_ps(x, y, z);
}

INLINE rows r_fnma(rows x, rows y, rows z)
{
    return _mm256_fnmadd_ps(x, y, z);
}

INLINE rows r_halfs(const uint8_t *p, int s)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 2 * ROWS * s)));
}

INLINE rows r_bfloats(const uint8_t *p, int s)
{
    const __m128i h = _mm_loadu_si128((const void *)(p + 2 * ROWS * s));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE __m256i bytes_of(const uint8_t *p, int s)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p + ROWS * s)));
}

INLINE rows r_nibbles(const uint8_t *p, int s, int shift)
{
    const __m256i b = _mm256_srli_epi32(bytes_of(p, s), shift);
    return _mm256_cvtepi32_ps(_mm256_and_si256(b, _mm256_set1_epi32(15)));
}

INLINE rows r_signed(const uint8_t *p, int s)
{
    return l_widen8((const int8_t *)p + ROWS * s);
}

/* The float's own bits: exponents from 1 on, and two subnormals; see quant_iq.c. */
INLINE rows r_power2(const uint8_t *p, int s)
{
    const __m256i e = bytes_of(p, s);
    const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}

/* As half precision the same bits have another bias, so 2^7 and the halving. */
INLINE rows r_e4m3(const uint8_t *p, int s)
{
    const __m128i b = _mm_cvtepu8_epi16(_mm_loadl_epi64((const void *)(p + ROWS * s)));
    const __m128i is_nan = _mm_cmpeq_epi16(b, _mm_set1_epi16(0x7F));
    const __m128i half = _mm_slli_epi16(_mm_and_si128(b, _mm_set1_epi16(0x7F)), 7);
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_andnot_si128(is_nan, half)), _mm256_set1_ps(0x1p7f));
}

/* Eight nibbles are one 32-bit word: it goes to all lanes, and each shifts out its own. */
INLINE rows r_sixes(const uint8_t *p, int n, int i)
{
    int32_t low;
    int16_t high;
    memcpy(&low, p + i / 2, sizeof low);
    memcpy(&high, p + n / 2 + i / 4, sizeof high);
    const __m256i by4 = _mm256_set_epi32(28, 24, 20, 16, 12, 8, 4, 0);
    const __m256i by2 = _mm256_set_epi32(14, 12, 10, 8, 6, 4, 2, 0);
    const __m256i l = _mm256_srlv_epi32(_mm256_set1_epi32(low), by4);
    const __m256i h = _mm256_srlv_epi32(_mm256_set1_epi32(high), by2);
    const __m256i l4 = _mm256_and_si256(l, _mm256_set1_epi32(15));
    const __m256i h2 = _mm256_and_si256(h, _mm256_set1_epi32(3));
    return _mm256_cvtepi32_ps(_mm256_or_si256(l4, _mm256_slli_epi32(h2, 4)));
}

INLINE __m256i plane(const uint8_t *p, int s)
{
    return _mm256_loadu_si256((const void *)(p + 4 * ROWS * s));
}

INLINE void nibbles(const uint8_t *p, int s, __m256i *w)
{
    const __m256i low = _mm256_set1_epi8(15);
    UNROLL for (int j = 0; j < 4; j++)
    {
        const __m256i v = plane(p + 64 * j, s);
        w[2 * j] = _mm256_and_si256(v, low);
        w[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
    }
}

INLINE void twos(const uint8_t *p, int s, __m256i *w)
{
    const __m256i low = _mm256_set1_epi8(3);
    UNROLL for (int g = 0; g < 8; g++)
    {
        const __m256i v = plane(p + g / 4 * 64, s);
        w[g] = _mm256_and_si256(_mm256_srli_epi16(v, 2 * (g % 4)), low);
    }
}

INLINE void high_twos(const uint8_t *p, int s, __m256i *w)
{
    __m256i high[8];
    twos(p, s, high);
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = _mm256_or_si256(w[g], _mm256_slli_epi16(high[g], 4));
    }
}

INLINE void bytes(const uint8_t *p, int s, __m256i *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = plane(p + 64 * g, s);
    }
}

/* Bit i of four bytes to byte i, as 0 or -1: each byte gets the byte that holds its bit, then only
 * that bit. */
INLINE __m256i bits_to_bytes(const uint8_t *p)
{
    const __m256i spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202,
                                             0x0101010101010101, 0x0000000000000000);
    const __m256i one = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    int32_t m;
    memcpy(&m, p, sizeof m);
    const __m256i bit = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(m), spread), one);
    return _mm256_cmpeq_epi8(bit, one);
}

INLINE void add_bits(const uint8_t *p, int s, __m256i *w, char value)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        const __m256i is_set = bits_to_bytes(p + 8 * g + ROWS / 2 * s);
        w[g] = _mm256_add_epi8(w[g], _mm256_and_si256(is_set, _mm256_set1_epi8(value)));
    }
}

INLINE __m256i none(void)
{
    return _mm256_setzero_si256();
}

/* Odd and even bytes apart, since there is no product of bytes: (x * power % 256) * 3 / 256. */
INLINE __m256i trits(const uint8_t *p, int power, int s)
{
    const __m256i x = plane(p, s);
    const __m256i three = _mm256_set1_epi16(3);
    const __m256i low = _mm256_mullo_epi16(x, _mm256_set1_epi16((short)(power << 8)));
    const __m256i up = _mm256_mullo_epi16(_mm256_and_si256(x, _mm256_set1_epi16((short)0xFF00)),
                                          _mm256_set1_epi16((short)power));
    return _mm256_or_si256(_mm256_mulhi_epu16(low, three),
                           _mm256_slli_epi16(_mm256_mulhi_epu16(up, three), 8));
}

INLINE void look_up(__m256i *w, const int8_t table[16], char offset)
{
    const __m128i t = _mm_add_epi8(_mm_loadu_si128((const void *)table), _mm_set1_epi8(offset));
    const __m256i all = _mm256_broadcastsi128_si256(t);
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = _mm256_shuffle_epi8(all, w[g]);
    }
}

#include "kern/books_avx2.h"

INLINE isums i_set(int32_t a)
{
    return _mm256_set1_epi32(a);
}

INLINE rows i_float(isums x)
{
    return _mm256_cvtepi32_ps(x);
}

/* n8 * offset / 8: offset is a power of two, n8 a multiple of 8, so that a shift to the right is
 * exact. */
INLINE isums sum_start(const int32_t *n8, int offset)
{
    const int shift = offset != 0 ? __builtin_ctz((unsigned)offset) - 3 : 0;
    const isums at = offset != 0 ? i_set(*n8) : none();
    return shift >= 0 ? _mm256_slli_epi32(at, shift) : _mm256_srai_epi32(at, -shift);
}

#endif
