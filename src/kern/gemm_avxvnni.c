/* gemm_avxvnni - products with packed weights on AVX-VNNI
 *
 * For processors that have AVX-512's dot product in registers of 256 bits, but not AVX-512: Intel's
 * from Alder Lake on. Of the words of gemm_body.h, those that load are in words_avx2.h, and here
 * those that multiply. A product is vpdpbusd: in each of 8 lanes, four products of an unsigned code
 * with a signed activation are added to 32 bits. Nothing saturates on the way, so codes of all
 * widths are treated alike, and two instructions (four activations to all lanes, the product) do
 * what takes gemm_avx2.c three to five.
 *
 * Codes of 8 bits lie 128 above their values. Levels whose signs stand aside are brought to that
 * form once a unit, for all tokens.
 *
 * One inline asm for both instructions: the encoding without AVX-512 is asked for by name, and gcc
 * 12 spills the accumulators of the intrinsic.
 *
 * Sources: num/quant.c for the formats, num/pack.c for the layout; Intel 64 and IA-32 Software
 * Developer's Manual, volume 2, for the instructions. Speed: docs/SPEED.md.
 *
 * Next: gemm_avx512.c. */
#define BYTE_OFFSET 128.0f
#include "kern/words_avx2.h"

/* max is a constant, less than 0 where signs stand aside. */
INLINE void ready(struct unit *u, int max)
{
    if (max >= 0) {
        return;
    }
    UNROLL for (int g = 0; g < 8; g++)
    {
        const __m256i level = _mm256_sign_epi8(u->w[g], u->sign[g]);
        u->w[g] = _mm256_xor_si256(level, _mm256_set1_epi8((char)128));
    }
}

INLINE void dot(__m256i *sum, __m256i w, const void *a)
{
    __m256i q;
    __asm__("vpbroadcastd %3, %1\n\t%{vex%} vpdpbusd %1, %2, %0"
            : "+x"(*sum), "=&x"(q)
            : "x"(w), "m"(*(const int32_t *)a));
}

INLINE void add_dot(isums *sum, const struct unit *u, int max, int g, const int8_t *a)
{
    (void)max;
    dot(sum, u->w[g], a);
}

INLINE rows dots(const struct unit *u, int max, const uint8_t *a, int tile, int t, int g0, int g1,
                 const int32_t *n8, int offset)
{
    (void)max;
    isums sum = sum_start(n8, offset);
    UNROLL for (int g = g0; g < g1; g++)
    {
        dot(&sum, u->w[g], a + (g * tile + t) * 4);
    }
    return i_float(sum);
}

#include "kern/gemm_body.h"

static uint64_t gemm_avxvnni_peak_int8(uint32_t n, uint32_t *sink)
{
    __m256i acc[8];
    const __m256i a = _mm256_set1_epi8(3);
    UNROLL for (int i = 0; i < 8; i++)
    {
        acc[i] = _mm256_setzero_si256();
    }
    for (uint32_t k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < 8; i++)
        {
            __asm__ volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(acc[i]) : "x"(a));
        }
    }
    UNROLL for (int i = 0; i < 8; i++)
    {
        *sink += (uint32_t)_mm256_extract_epi32(acc[i], 0);
    }
    return (uint64_t)n * 8 * 32 * 2;
}

void gemm_avxvnni_fill(struct kern_table *t)
{
    body_fill(t);
    t->peak_int8 = gemm_avxvnni_peak_int8;
}
