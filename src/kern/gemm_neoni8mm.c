/* gemm_neoni8mm - products with packed weights on NEON with matrix multiplication of bytes
 *
 * The text is gemm_neon_body.h; this file brings the step that multiplies: smmla takes 8 columns of
 * two rows and of two tokens and adds all four sums of products, twice the work of sdot:
 *
 *     up  += 8 columns of rows 0, 1  x  8 columns of tokens t, t + 1
 *     low += 8 columns of rows 2, 3  x  8 columns of tokens t, t + 1
 *
 * A panel has groups of 4 columns of four rows; two neighbours zipped are 8 columns of rows 0, 1
 * and 2, 3, once for all tokens of the tile. Activations are prepared in groups of 8 columns
 * (gemm_act.h), so that a load is two tokens' and serves both instructions. Behind a unit, up and
 * low are turned into a register of four rows for each token, in which the chain goes on as in
 * gemm_neondot.c. All integer sums are exact, so the bits are those of gemm_ref.c.
 *
 * A tile takes four fifths of gemm_neondot.c's instructions, most of them for scales, which every
 * row and token has for itself (docs/SPEED.md). The whole tile shares a decode step: 16 registers
 * of sums, and of each quad's codes two at a time. For a single token half of each smmla would be
 * idle: it takes sdot, which the extension implies; with one token groups of 4 and 8 columns lie
 * alike.
 *
 * The extension (FEAT_I8MM) is optional from ARMv8.2 and part of ARMv8.6: Neoverse V1 and N2,
 * Cortex-A710, Apple M2 and later. A level of its own as gemm_neondot.c's. Its speed has not been
 * measured on a board; the tests run it under an emulator. Sources: num/quant.c for the formats,
 * num/pack.c for the layout; Arm Architecture Reference Manual for A-profile (SMMLA).
 *
 * Next: kern/kern_table.c. */
#define LANES_NEON
#include "kern/lanes.h"

#include "kern/gemm.h"
#include "kern/gemm_act.h"
#include "kern/peak_body.h"

#define UNROLL    _Pragma("GCC unroll 16")
#define PEAK_STEP "smmla %0.4s, %1.16b, %1.16b"
#define PEAK_MACS 32
#define TOGETHER  TILE_MAX
#define GROUP     8 /* columns of activations that lie together */

/* One token, whose groups of 4 columns lie one behind the other. */
INLINE int32x4_t sums_single(const int8x16_t *w, int g0, int g1, const uint8_t *a, int32x4_t s)
{
    UNROLL for (int g = g0; g < g1; g++)
    {
        const int32_t *four = (const int32_t *)(const void *)(a + 4 * g);
        s = vdotq_s32(s, w[g], vreinterpretq_s8_s32(vld1q_dup_s32(four)));
    }
    return s;
}

INLINE void sums(const int8x16_t *w, int g0, int g1, int run, const uint8_t *a, int tile, int n,
                 int32x4_t *s)
{
    int32x4_t up[TOGETHER / 2];
    int32x4_t low[TOGETHER / 2];
    (void)run; /* lanes have 32 bits */
    if (tile == 1) {
        s[0] = sums_single(w, g0, g1, a, s[0]);
        return;
    }
    UNROLL for (int i = 0; i < n / 2; i++)
    {
        up[i] = vzip1q_s32(s[2 * i], s[2 * i + 1]);
        low[i] = up[i];
    }
    UNROLL for (int g = g0; g < g1; g += 2)
    {
        const int32x4_t x = vreinterpretq_s32_s8(w[g]);
        const int32x4_t y = vreinterpretq_s32_s8(w[g + 1]);
        const int8x16_t rows01 = vreinterpretq_s8_s32(vzip1q_s32(x, y));
        const int8x16_t rows23 = vreinterpretq_s8_s32(vzip2q_s32(x, y));
        UNROLL for (int i = 0; i < n / 2; i++)
        {
            const int8x16_t two = vld1q_s8((const int8_t *)a + 4 * g * tile + 16 * i);
            up[i] = vmmlaq_s32(up[i], rows01, two);
            low[i] = vmmlaq_s32(low[i], rows23, two);
        }
    }
    UNROLL for (int i = 0; i < n / 2; i++)
    {
        s[2 * i] = vuzp1q_s32(up[i], low[i]);
        s[2 * i + 1] = vuzp2q_s32(up[i], low[i]);
    }
}

#include "kern/gemm_neon_body.h"

void gemm_neoni8mm_fill(struct kern_table *t)
{
    body_fill(t);
}
