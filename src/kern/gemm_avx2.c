/* gemm_avx2 - products with packed weights on AVX2
 *
 * Of the words of gemm_body.h, those that load are in words_avx2.h, and here those that multiply. A
 * product is vpmaddubsw of unsigned codes with four activations broadcast from memory: it adds two
 * products in 16 bits, which must not saturate. Activations lie in -127..127, so a code of at most
 * `max` gives at most 254 * max; as many groups as stay below 2^15 are added in 16 bits before
 * vpmaddwd widens them: eight for codes up to 15, four up to 31, three up to 43, two up to 63.
 *
 * Codes of 8 bits would saturate at once (255 * 254 > 32767). They are made signed, |w| <= 128 is
 * the unsigned side, and the sign of w moves to the activation (vpsignb): 128 * 254 = 32512 fits.
 * Activations are never -128, whose sign could not be turned.
 *
 * Integer sums stay in registers: the instructions of a group stand in one inline asm, because gcc
 * 12 turns a chain of additions into a tree, and runs out of registers for its leaves.
 *
 * Rejected for codes of 8 bits: two products of half the code each, twice the multiplications.
 *
 * Sources: num/quant.c for the formats, num/pack.c for the layout; Intel 64 and IA-32 Software
 * Developer's Manual, volume 2, for the instructions. Speed: docs/SPEED.md, Kernels.
 *
 * Next: gemm_avxvnni.c. */
#define BYTE_OFFSET 0.0f /* `ready` takes it off */
#include "kern/words_avx2.h"

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
        sum = _mm256_add_epi32(sum, sum_start(n8, offset));
    }
    return i_float(sum);
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
