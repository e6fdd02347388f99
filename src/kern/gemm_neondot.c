/* gemm_neondot - products with packed weights on NEON with dot products
 *
 * The text is gemm_neon_body.h; this file brings the step that multiplies: sdot adds four products
 * of bytes to each 32-bit lane, that is one group of 4 columns of 4 rows. The four activations of a
 * token are one lane of a register that holds those of four tokens (or of four groups, for a single
 * token), as gemm_act.h lays them out, so that one load serves four instructions.
 *
 * The instruction came with ARMv8.2 and is optional there: this table is a level of its own, chosen
 * only where the system reports it (base/cpu.c), and only this file is compiled for it. Its speed
 * has not been measured on a board (docs/SPEED.md, Kernels); the tests run it under an emulator.
 * Sources: num/quant.c for the formats, num/pack.c for the layout; Arm Architecture Reference
 * Manual for A-profile (SDOT).
 *
 * Next: gemm_neoni8mm.c. */
#define LANES_NEON
#include "kern/lanes.h"

#include "kern/gemm.h"
#include "kern/gemm_act.h"
#include "kern/peak_body.h"

#define UNROLL    _Pragma("GCC unroll 16")
#define PEAK_STEP "sdot %0.4s, %1.16b, %1.16b"
#define PEAK_MACS 16

/* The instruction takes the lane as a constant; after inlining one case is left. */
INLINE int32x4_t dot_lane(int32x4_t s, int8x16_t w, int8x16_t a, int lane)
{
    switch (lane) {
    case 0:
        return vdotq_laneq_s32(s, w, a, 0);
    case 1:
        return vdotq_laneq_s32(s, w, a, 1);
    case 2:
        return vdotq_laneq_s32(s, w, a, 2);
    default:
        return vdotq_laneq_s32(s, w, a, 3);
    }
}

INLINE void sums(const int8x16_t *w, int g0, int g1, int run, const uint8_t *a, int tile, int n,
                 int32x4_t *s)
{
    (void)run; /* lanes have 32 bits */
    UNROLL for (int g = g0; g < g1; g++)
    {
        UNROLL for (int t = 0; t < n; t++)
        {
            const int i = g * tile + t;
            const int8x16_t x = vld1q_s8((const int8_t *)a + i / 4 * 16);
            s[t] = dot_lane(s[t], w[g], x, i % 4);
        }
    }
}

#include "kern/gemm_neon_body.h"

void gemm_neondot_fill(struct kern_table *t)
{
    body_fill(t);
}
