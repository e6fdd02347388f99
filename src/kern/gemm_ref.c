/* gemm_ref - products with packed weights in plain C: the normative form
 *
 * For each row of a panel the file's blocks are rebuilt (pack_block_back), each unit of 32 weights
 * is taken in its integer form (quant.h), and one output element is one chain of fused
 * multiply-adds over the units in index order:
 *
 *     acc = fma(float(sub0 * S0 + sub1 * S1), d * d_a, acc)          S_h = sum of q * a over half h
 *     acc = fma(m, d_a * float(A0 + A1), acc)                        types with a constant
 *     acc = fma(-float(min0 * A0 + min1 * A1), dmin * d_a, acc)      types with integer minima
 *
 * Behind the units a token's high parts (gemm_act.h) take further steps, one for each group of four
 * columns that has some.
 *
 * (NVFP4, whose halves have scales of their own: two steps fma(float(S_h), d_h * d_a, acc).) Float
 * weights: one fma per column. Every other kernel must give these bits; docs/NUMERICS.md says the
 * same in words.
 *
 * It is slow on purpose: nothing here is arranged for speed (docs/SPEED.md, Kernels, says by how
 * much). Sources: num/quant.c for the formats, num/pack.c for the layout. Next: gemm_avx2.c. */
#define LANES_SCALAR
#include "kern/lanes.h"

#include "kern/gemm.h"
#include "kern/gemm_act.h"
#include "kern/peak_body.h"

#include <assert.h>

#define COLUMNS_AT_ONCE 512 /* of float weights */
#define BLOCK_BYTES_MAX 512

/* Tokens [from, to). */
struct toks {
    int32_t from;
    int32_t to;
};

/* Token `tok` of the prepared activations, unit u. */
struct act_read {
    int8_t q[UNIT];
    float d;
    float a0;
    float a1;
};

static struct act_read act_unit_at(const struct kern_act *a, int32_t tok, int32_t u)
{
    const int32_t tile = gemm_tile(a->n_tok, tok / KERN_TILE);
    const uint8_t *p = gemm_tile_at(a, tok / KERN_TILE) + (size_t)u * unit_bytes(tile);
    const int32_t t = tok % KERN_TILE;
    const float *d = (const float *)(const void *)(p + UNIT * tile);
    struct act_read r = { .d = d[t], .a0 = d[tile + t], .a1 = d[2 * tile + t] };
    for (int g = 0; g < 8; g++) {
        memcpy(r.q + 4 * g, p + (g * tile + t) * 4, 4);
    }
    return r;
}

/* The formulas of the essay, in this order. */
static float step(const struct quant_info *info, const struct quant_unit *w,
                  const struct act_read *a, float acc)
{
    int32_t s[2] = { 0, 0 };
    for (int k = 0; k < UNIT; k++) {
        s[k / 16] += w->q[k] * a->q[k];
    }
    if (info->is_halved) {
        acc = fmaf((float)s[0], w->d[0] * a->d, acc);
        return fmaf((float)s[1], w->d[1] * a->d, acc);
    }
    acc = fmaf((float)(w->sub[0] * s[0] + w->sub[1] * s[1]), w->d[0] * a->d, acc);
    if (info->has_m) {
        acc = fmaf(w->m, (a->a0 + a->a1) * a->d, acc);
    }
    if (info->has_min) {
        acc = fmaf(-((float)w->min[0] * a->a0 + (float)w->min[1] * a->a1), w->dmin * a->d, acc);
    }
    return acc;
}

/* The step of high parts of group g. */
static float step_high(const struct tensor *w, int32_t row, const struct act_high *high, int g,
                       float acc)
{
    uint8_t block[BLOCK_BYTES_MAX];
    struct quant_unit unit;
    const struct quant_info *info = quant_get(w->type);
    const int32_t n_unit = info->block / UNIT;
    pack_block_back(w, row, (size_t)(high->unit / n_unit), block);
    info->unit(block, (size_t)(high->unit % n_unit), &unit);
    int32_t s = 0;
    for (int k = 0; k < 4; k++) {
        s += unit.q[4 * g + k] * high->h[k];
    }
    return fmaf((float)(unit.sub[g / 4] * s), unit.d[g / 4] * high->d, acc);
}

static float row_high(const struct tensor *w, int32_t row, const struct kern_act *a, int32_t tok,
                      float acc)
{
    const int32_t tile = gemm_tile(a->n_tok, tok / KERN_TILE);
    const struct act_side *side = side_at(gemm_tile_at(a, tok / KERN_TILE), tile, a->n_col);
    for (int g = 0; g < 8; g++) {
        const struct act_high *high = high_at(side, g, tile, a->n_col);
        for (int32_t i = 0; i < side->n[g]; i++) {
            if (high[i].token == tok % KERN_TILE) {
                acc = step_high(w, row, &high[i], g, acc);
            }
        }
    }
    return acc;
}

/* A row beyond n_row is padding of the last panel; its outputs are 0. */
static void row_units(const struct tensor *w, int32_t row, struct toks of, const struct kern_act *a,
                      float *y, size_t ldy)
{
    uint8_t block[BLOCK_BYTES_MAX];
    const struct quant_info *info = quant_get(w->type);
    assert(info->bytes <= sizeof block);
    const int32_t n_unit = info->block / UNIT; /* per block */
    for (int32_t t = of.from; t < of.to; t++) {
        y[(size_t)t * ldy + (size_t)row] = 0.0f;
    }
    for (int32_t u = 0; u < w->n_col / UNIT && row < w->n_row; u++) {
        struct quant_unit unit;
        if (u % n_unit == 0) {
            pack_block_back(w, row, (size_t)(u / n_unit), block);
        }
        info->unit(block, (size_t)(u % n_unit), &unit);
        for (int32_t t = of.from; t < of.to; t++) {
            const struct act_read act = act_unit_at(a, t, u);
            float *acc = &y[(size_t)t * ldy + (size_t)row];
            *acc = step(info, &unit, &act, *acc);
        }
    }
    for (int32_t t = of.from; t < of.to && row < w->n_row; t++) {
        float *to = &y[(size_t)t * ldy + (size_t)row];
        *to = row_high(w, row, a, t, *to);
    }
}

/* Columns of a float panel as floats. */
static void float_columns(const struct tensor *w, const uint8_t *panel, int32_t k0, int32_t n,
                          float (*out)[LANES])
{
    quant_get(w->type)->decode(panel + (size_t)k0 * LANES * quant_get(w->type)->bytes, out[0],
                               (size_t)n * LANES);
}

/* Float weights: the chain of an output runs over the columns, whatever pieces they are decoded
 * in. */
static void panel_floats(const struct tensor *w, int32_t panel, struct toks of,
                         const struct kern_act *a, float *y, size_t ldy)
{
    float columns[COLUMNS_AT_ONCE][LANES];
    for (int32_t t = of.from; t < of.to; t++) {
        memset(y + (size_t)t * ldy + (size_t)panel * LANES, 0, LANES * sizeof y[0]);
    }
    for (int32_t k0 = 0; k0 < w->n_col; k0 += COLUMNS_AT_ONCE) {
        const int32_t n = w->n_col - k0 < COLUMNS_AT_ONCE ? w->n_col - k0 : COLUMNS_AT_ONCE;
        float_columns(w, w->data + (size_t)panel * w->stride, k0, n, columns);
        for (int32_t t = of.from; t < of.to; t++) {
            const size_t tile = (size_t)gemm_tile(a->n_tok, t / KERN_TILE);
            const float *x = (const float *)(const void *)gemm_tile_at(a, t / KERN_TILE);
            float *acc = y + (size_t)t * ldy + (size_t)panel * LANES;
            for (int32_t k = 0; k < n; k++) {
                const float v = x[(size_t)(k0 + k) * tile + (size_t)(t % KERN_TILE)];
                for (int r = 0; r < LANES; r++) {
                    acc[r] = fmaf(columns[k][r], v, acc[r]);
                }
            }
        }
    }
}

static void gemm_ref_matmul(const struct tensor *w, struct kern_part part, const struct kern_act *a,
                            float *y, size_t ldy)
{
    const struct toks of = { part.tile0 * KERN_TILE, kern_tok_end(a->n_tok, part.tile1) };
    for (int32_t p = part.panel0; p < part.panel1; p++) {
        if (a->kind == KERN_ACT_F32) {
            panel_floats(w, p, of, a, y, ldy);
            continue;
        }
        for (int32_t r = p * LANES; r < (p + 1) * LANES; r++) {
            row_units(w, r, of, a, y, ldy);
        }
    }
}

static uint64_t gemm_ref_peak_int8(uint32_t n, uint32_t *sink)
{
    uint32_t acc[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    for (uint32_t k = 0; k < n; k++) {
        for (uint32_t i = 0; i < 8; i++) {
            acc[i] += (acc[i] & 127) * (k & 127);
        }
    }
    for (int i = 0; i < 8; i++) {
        *sink += acc[i];
    }
    return (uint64_t)n * 16;
}

void gemm_ref_fill(struct kern_table *t)
{
    peak_fill(t);
    t->peak_int8 = gemm_ref_peak_int8;
    t->act_prepare = gemm_act_prepare;
    t->matmul = gemm_ref_matmul;
}
