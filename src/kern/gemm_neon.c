/* gemm_neon - products with packed weights on NEON as every 64-bit ARM processor has it
 *
 * The text is gemm_neon_body.h; this file brings the step that multiplies. Without dot products, a
 * byte times a byte gives 16 bits (smull, smlal). A 16-bit lane takes one column of each group, for
 * as many groups as the type's codes leave room for (8 for codes up to 31: 8 * 31 * 127 < 2^15);
 * then neighbours are added into 32 bits. So the sums are exact, and a type
 * with small codes pays the widening once in 32 columns.
 *
 * Rejected: multiplying into 32 bits at once (sadalp after each smull), which doubles the
 * instructions of the 4-bit types.
 *
 * Boards such as the Raspberry Pi 4 (Cortex-A72) run this one. Its speed has not been measured on a
 * board (docs/SPEED.md, Kernels); the tests run it under an emulator. Sources: num/quant.c for the
 * formats, num/pack.c for the layout; Arm Architecture Reference Manual for A-profile (SMLAL).
 *
 * Next: gemm_neondot.c. */
#define LANES_NEON
#include "kern/lanes.h"

#include "kern/gemm.h"
#include "kern/gemm_act.h"
#include "kern/peak_body.h"

#define UNROLL    _Pragma("GCC unroll 16")
#define PEAK_STEP "smlal %0.8h, %1.8b, %1.8b"
#define PEAK_MACS 8

INLINE void sums(const int8x16_t *w, int g0, int g1, int run, const uint8_t *a, int tile, int n,
                 int32x4_t *s)
{
    UNROLL for (int r = g0; r < g1; r += run)
    {
        UNROLL for (int t = 0; t < n; t++)
        {
            int16x8_t low = vdupq_n_s16(0);
            int16x8_t high = vdupq_n_s16(0);
            const int end = r + run < g1 ? r + run : g1;
            UNROLL for (int g = r; g < end; g++)
            {
                const int32_t *four = (const int32_t *)(const void *)(a + (g * tile + t) * 4);
                const int8x16_t x = vreinterpretq_s8_s32(vld1q_dup_s32(four));
                low = vmlal_s8(low, vget_low_s8(w[g]), vget_low_s8(x));
                high = vmlal_high_s8(high, w[g], x);
            }
            s[t] = vaddq_s32(s[t], vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
        }
    }
}

#include "kern/gemm_neon_body.h"

void gemm_neon_fill(struct kern_table *t)
{
    body_fill(t);
}
