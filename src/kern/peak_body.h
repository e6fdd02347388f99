/* peak_body - what the processor and its memory can do at most (included by kern/gemm_*.c)
 *
 * For `hearth bench --limits` and the percentages beside every figure: a loop of independent
 * multiply-adds that never leaves the registers, and a loop that reads memory once with prefetch.
 * The int8 peak differs by instruction set and stands in gemm_*.c. Percentages beside a figure are
 * only as good as these two, so both are measured in the same run as the figure. */
#ifndef HEARTH_PEAK_BODY_H
#define HEARTH_PEAK_BODY_H

#include "base/cpu.h"
#include "kern/lanes.h"

#include <stddef.h>

#define PEAK_CHAINS 12   /* enough independent sums to hide the latency of a multiply-add */
#define PEAK_AHEAD  1024 /* floats between the read and the prefetch */

static uint64_t peak_f32(uint32_t n, uint32_t *sink)
{
    lanes acc[PEAK_CHAINS];
    const lanes a = l_set(0.999f);
    const lanes b = l_set(0.001f);
    float start[PEAK_CHAINS * LANES]; /* all different: equal halves of lanes are computed once */
    for (int i = 0; i < PEAK_CHAINS * LANES; i++) {
        start[i] = (float)(*sink + (uint32_t)i);
    }
    _Pragma("GCC unroll 12") for (int i = 0; i < PEAK_CHAINS; i++)
    {
        acc[i] = l_load(start + (size_t)i * LANES);
    }
    for (uint32_t k = 0; k < n; k++) {
        _Pragma("GCC unroll 12") for (int i = 0; i < PEAK_CHAINS; i++)
        {
            acc[i] = l_fma(acc[i], a, b);
        }
    }
    _Pragma("GCC unroll 12") for (int i = 1; i < PEAK_CHAINS; i++)
    {
        acc[0] = l_add(acc[0], acc[i]);
    }
    *sink += l_sum(acc[0]) > 0.0f;
    return (uint64_t)n * PEAK_CHAINS * LANES * 2;
}

static bool peak_is_ahead; /* weights are asked for before they are read; set by peak_fill */

/* From what is read once to what is asked for: 0 where the processor does better alone. */
INLINE size_t peak_ahead(size_t usual)
{
    return peak_is_ahead ? usual : 0;
}

static uint32_t peak_read(const float *p, size_t n)
{
    const size_t ahead = peak_ahead(PEAK_AHEAD);
    lanes sum[4] = { l_set(0.0f), l_set(0.0f), l_set(0.0f), l_set(0.0f) };
    for (size_t i = 0; i < n; i += 4 * LANES) {
        _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++)
        {
            __builtin_prefetch(p + i + (size_t)k * LANES + ahead); /* beyond the end is harmless */
            sum[k] = l_add(sum[k], l_load(p + i + (size_t)k * LANES));
        }
    }
    return l_sum(l_add(l_add(sum[0], sum[1]), l_add(sum[2], sum[3]))) > 0.0f;
}

#if defined(__AVX512F__)
/* Written as its instruction alone: the rest of the file must not assume that there is one. */
static uint64_t peak_bf16(uint32_t n, uint32_t *sink)
{
    __m512 acc[16];
    const __m512i one = _mm512_set1_epi32(0x3f803f80);
    const __m512i w = _mm512_xor_si512(one, _mm512_set1_epi32((int)*sink & 1));
    _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++)
    {
        acc[i] = _mm512_setzero_ps();
    }
    for (uint32_t k = 0; k < n; k++) {
        _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++)
        {
            __asm__ volatile("vdpbf16ps %2, %1, %0" : "+v"(acc[i]) : "v"(w), "v"(one));
        }
    }
    _Pragma("GCC unroll 16") for (int i = 1; i < 16; i++)
    {
        acc[0] = _mm512_add_ps(acc[0], acc[i]);
    }
    *sink += _mm512_reduce_add_ps(acc[0]) > 0.0f;
    return (uint64_t)n * 16 * 32 * 2;
}
#endif

INLINE void peak_fill(struct kern_table *t)
{
#if defined(__AVX512F__)
    t->peak_bf16 = peak_bf16;
#endif
    peak_is_ahead = !cpu_get()->has_stream_prefetch;
    t->peak_f32 = peak_f32;
    t->read_all = peak_read;
}

#endif
