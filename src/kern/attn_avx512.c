/* attn_avx512 - the cache layout and attention over one span: AVX-512
 *
 * The text is attn_body.h, the words are lanes.h; this file only chooses the instruction set. See
 * there for how queries, pages and dimensions share loads, and attn_ref.c for what is computed, in
 * which order, and where it comes from. Speed: docs/SPEED.md, Kernels.
 *
 * One text for all sets was chosen over a file of intrinsics for each: equal bits then follow from
 * the words alone, and the tile sizes, the only thing that differs, are two constants of the body.
 * The one exception is the dot product of bf16, which this file tries before it is used.
 *
 * Next: kern/kern_table.c. */
#include "kern/attn.h"

#define LANES_AVX512
#include "kern/attn_body.h"

#define TRIALS 4096

/* Numbers as pages hold them: 0, 2^-50 to 2^50, now and then infinity or NaN. */
static uint16_t trial_bf16(uint32_t bits)
{
    const uint32_t exponent = 127 - 50 + (bits >> 8) % 101;
    const uint32_t special = bits >> 20 & 127;
    const uint32_t magnitude = special == 0   ? 0
                               : special == 1 ? 0x7F80
                               : special == 2 ? 0x7FC0
                                              : exponent << 7 | (bits & 0x7F);
    return (uint16_t)((bits >> 16 & 0x8000) | magnitude);
}

bool attn_avx512_dot_agrees(void)
{
    uint32_t state = 1;
    for (int trial = 0; trial < TRIALS / LANES; trial++) {
        uint16_t x[2 * LANES];
        uint16_t y[2];
        uint16_t rounded[LANES];
        float acc[LANES];
        float got[LANES];
        for (int i = 0; i < 2 * LANES + 2; i++) {
            state = state * 1664525 + 1013904223;
            *(i < 2 * LANES ? &x[i] : &y[i - 2 * LANES]) = trial_bf16(state);
        }
        for (int i = 0; i < LANES; i++) { /* a sum as it can be: a product and a smaller one */
            const float product = quant_bf16_to_f32(x[i]) * quant_bf16_to_f32(y[0]);
            acc[i] = fmaf(product, 0x1p-9f, product);
        }
        l_store(got, l_dot_bf16(l_load(acc), il_load(x), y));
        l_store_bf16(rounded, l_load(acc));
        for (int i = 0; i < LANES; i++) {
            const float odd =
                fmaf(quant_bf16_to_f32(x[2 * i + 1]), quant_bf16_to_f32(y[1]), acc[i]);
            const float want = fmaf(quant_bf16_to_f32(x[2 * i]), quant_bf16_to_f32(y[0]), odd);
            const bool is_nan = want != want;
            if (is_nan ? got[i] == got[i] : memcmp(&got[i], &want, sizeof want) != 0) {
                return false;
            }
            if (acc[i] == acc[i] && rounded[i] != quant_f32_to_bf16(acc[i])) {
                return false;
            }
        }
    }
    return true;
}

void attn_avx512_fill(struct kern_table *t, bool has_dot)
{
    attn_fill(t);
    if (has_dot) {
        t->attend_span = attn_attend_span_dot;
    }
}
