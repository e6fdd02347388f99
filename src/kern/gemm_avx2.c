/* gemm_avx2 - products with packed weights on AVX2
 *
 * The words of gemm_body.h with registers of 8 rows, so a panel takes two steps. A product is
 * vpmaddubsw of unsigned codes with four activations broadcast from memory: it adds two products in
 * 16 bits, which must not saturate. Activations lie in -127..127, so a code of at most `max` gives
 * at most 254 * max; as many groups as stay below 2^15 are added in 16 bits before vpmaddwd widens
 * them: eight for codes up to 15, four up to 31, three up to 43, two up to 63.
 *
 * Codes of 8 bits would saturate at once (255 * 254 > 32767). They are made signed, |w| <= 128 is
 * the unsigned side, and the sign of w moves to the activation (vpsignb): 128 * 254 = 32512 fits.
 * Activations are never -128, whose sign could not be turned.
 *
 * The sums of 8 tokens and 8 registers of codes exceed the 16 registers, so the running float sums
 * live in memory: one load, folded into the fma, and one store per unit of 32 columns. The integer
 * sums stay in registers: the instructions of a group stand in one inline asm, because gcc 12 turns
 * a chain of additions into a tree, and runs out of registers for its leaves.
 *
 * Rejected for codes of 8 bits: two products of half the code each, twice the multiplications. The
 * dot products of AVX-VNNI are not used yet.
 *
 * Sources: num/quant.c for the formats, num/pack.c for the layout; Intel 64 and IA-32 Software
 * Developer's Manual, volume 2, for the instructions. Speed: docs/SPEED.md, Kernels.
 *
 * Next: gemm_avx512.c. */
#define LANES_AVX2
#include "kern/gemm_act.h"

#define UNROLL      _Pragma("GCC unroll 16")
#define ROWS        8
#define TOGETHER    8    /* tokens that share a decode step */
#define BYTE_OFFSET 0.0f /* `ready` takes it off */

typedef __m256 rows;
typedef __m256i isums;

/* A unit of 8 rows. With codes of 8 bits and with levels whose signs stand aside, `w` is the
 * unsigned side of the product and `sign` hands its sign on to the activations. */
struct unit {
    __m256i w[8];    /* codes: group g, byte 4 * row + t; those of 8 bits: |w| */
    __m256i sign[8]; /* only then: bytes less than 0 for a minus, above 0 for a plus (or w = 0) */
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

/* max is a constant: types with smaller codes are left as they are. */
INLINE void ready(struct unit *u, int max)
{
    if (max < 255) {
        return;
    }
    UNROLL for (int g = 0; g < 8; g++)
    {
        u->sign[g] = _mm256_xor_si256(u->w[g], _mm256_set1_epi8((char)128));
        u->w[g] = _mm256_abs_epi8(u->sign[g]);
    }
}

/* Pairs of products of one group: the first, one more, and those of codes of 8 bits. */
INLINE __m256i pairs(__m256i w, const void *a)
{
    __m256i q;
    __asm__("vpbroadcastd %2, %0\n\tvpmaddubsw %0, %1, %0"
            : "=&x"(q)
            : "x"(w), "m"(*(const int32_t *)a));
    return q;
}

INLINE void add_pairs(__m256i *sum, __m256i w, const void *a)
{
    __m256i q;
    __asm__("vpbroadcastd %3, %1\n\tvpmaddubsw %1, %2, %1\n\tvpaddw %1, %0, %0"
            : "+x"(*sum), "=&x"(q)
            : "x"(w), "m"(*(const int32_t *)a));
}

INLINE __m256i signed_pairs(__m256i w, const __m256i *sign, const void *a)
{
    __m256i q;
    __asm__("vpbroadcastd %3, %0\n\tvpsignb %2, %0, %0\n\tvpmaddubsw %0, %1, %0"
            : "=&x"(q)
            : "x"(w), "m"(*sign), "m"(*(const int32_t *)a));
    return q;
}

INLINE void add_signed_pairs(__m256i *sum, __m256i w, const __m256i *sign, const void *a)
{
    __m256i q;
    __asm__("vpbroadcastd %4, %1\n\tvpsignb %3, %1, %1\n\tvpmaddubsw %1, %2, %1\n\t"
            "vpaddw %1, %0, %0"
            : "+x"(*sum), "=&x"(q)
            : "x"(w), "m"(*sign), "m"(*(const int32_t *)a));
}

/* Adds 16-bit sums to the 32-bit ones. */
INLINE void widen(__m256i *sum, __m256i s)
{
    __asm__("vpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0"
            : "+x"(*sum), "+x"(s)
            : "xm"(_mm256_set1_epi16(1)));
}

INLINE isums i_set(int32_t a)
{
    return _mm256_set1_epi32(a);
}

INLINE rows i_float(isums x)
{
    return _mm256_cvtepi32_ps(x);
}

INLINE void add_dot(isums *sum, const struct unit *u, int max, int g, const int8_t *a)
{
    const bool is_signed = max < 0 || max == 255;
    widen(sum, is_signed ? signed_pairs(u->w[g], &u->sign[g], a) : pairs(u->w[g], a));
}

/* `together` groups are added in 16 bits before they are widened: the essay counts them out. */
INLINE rows dots(const struct unit *u, int max, const uint8_t *a, int tile, int t, int g0, int g1,
                 const int32_t *n8, int offset)
{
    const int top = max < 0 ? -max : max;
    const int fit = INT16_MAX / (2 * 127 * top);
    const bool is_signed = max < 0 || max == 255;
    const int together = top == 255 ? 1 : fit < 8 ? fit : 8;
    __m256i sum = _mm256_setzero_si256();
    UNROLL for (int g = g0; g < g1; g += together)
    {
        const uint8_t *q = a + (g * tile + t) * 4;
        const int more = g1 - g < together ? g1 - g : together;
        __m256i s = is_signed ? signed_pairs(u->w[g], &u->sign[g], q) : pairs(u->w[g], q);
        UNROLL for (int i = 1; i < more; i++)
        {
            if (is_signed) {
                add_signed_pairs(&s, u->w[g + i], &u->sign[g + i], q + i * tile * 4);
            } else {
                add_pairs(&s, u->w[g + i], q + i * tile * 4);
            }
        }
        if (g == g0) {
            sum = _mm256_madd_epi16(s, _mm256_set1_epi16(1));
        } else {
            widen(&sum, s);
        }
    }
    if (offset != 0) {
        const __m256i at = _mm256_set1_epi32(*n8);
        const int shift = __builtin_ctz((unsigned)offset) - 3;
        sum = _mm256_add_epi32(sum, shift >= 0 ? _mm256_slli_epi32(at, shift)
                                               : _mm256_srai_epi32(at, -shift));
    }
    return _mm256_cvtepi32_ps(sum);
}

#include "kern/gemm_body.h"

static uint64_t gemm_avx2_peak_int8(uint32_t n, uint32_t *sink)
{
    __m256i acc[8];
    const __m256i w = _mm256_set1_epi8(3);
    const __m256i a = _mm256_set1_epi8(1);
    UNROLL for (int i = 0; i < 8; i++)
    {
        acc[i] = _mm256_setzero_si256();
    }
    for (uint32_t k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < 8; i++)
        {
            __m256i p;
            __asm__ volatile("vpmaddubsw %2, %1, %0" : "=x"(p) : "x"(w), "x"(a));
            acc[i] = _mm256_add_epi16(acc[i], p);
        }
    }
    UNROLL for (int i = 1; i < 8; i++)
    {
        acc[0] = _mm256_add_epi16(acc[0], acc[i]);
    }
    *sink += (uint32_t)_mm256_extract_epi16(acc[0], 0);
    return (uint64_t)n * 8 * 32 * 2;
}

void gemm_avx2_matmul(const struct tensor *w, struct kern_part part, const struct kern_act *a,
                      float *y, size_t ldy)
{
    panel_matmul(w, part, a, y, ldy);
}

void gemm_avx2_fill(struct kern_table *t)
{
    body_fill(t);
    t->peak_int8 = gemm_avx2_peak_int8;
}
