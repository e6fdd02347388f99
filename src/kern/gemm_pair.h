/* gemm_pair - two panels times many tokens (included by gemm_body.h for sets with room for it)
 *
 * Of the 32 registers of AVX-512, 16 hold a tile's sums in gemm_body.h, so that a decode step is
 * shared by 16 tokens, and each token loads its activations for 16 rows. With more tokens the sums
 * wait in the first-level cache instead, and registers hold the codes of two panels:
 *
 *     for each unit of 32 columns
 *         struct unit u[2] = what is decoded of it, of both panels
 *         for each token of up to PAIR_TILES tiles
 *             8 times: load 4 activations, a product with each panel
 *             sums[token][2 panels][16 rows] += what step_of says
 *
 * So a unit is decoded once for up to 64 tokens, and an activation loaded once for 32 rows. Steps
 * and their order are those of panel_tile, and so are the bits. A panel without a neighbour is left
 * to panel_tile.
 *
 * One tile alone is slower this way: its weights come from memory, and where two streams are
 * decoded at once, their products wait. Figures: docs/SPEED.md, two panels at once. */
#ifndef HEARTH_GEMM_PAIR_H
#define HEARTH_GEMM_PAIR_H

#include "kern/gemm_act.h"

static_assert(PANELS == 2, "two units in registers");

#define PAIR_TILES   4    /* at once: their sums take 8 kB of the first-level cache */
#define PAIR_COL_MIN 1536 /* with fewer columns putting sums there and away again costs too much */

struct pair {
    const struct product *p;
    const uint8_t *w[2];
    int32_t n_tok;            /* of whole tiles */
    const uint8_t *a;         /* activations of the first */
    float *y;                 /* results of the first, for the first row */
    float (*sums)[2 * LANES]; /* [n_tok] */
};

/* The step of one token; a: of its tile's unit. */
INLINE void pair_step(const struct unit *u, const struct how *h, const uint8_t *a, int t,
                      float *sums)
{
    const int tile = TILE_MAX;
    const rows da = r_set(((const float *)(const void *)(a + UNIT * tile))[t]);
    rows s[2][2]; /* [half][panel] */
    if (has_halves(h->form)) {
        pair_dots(u, a, tile, t, 0, 4, eighths_at(a, tile, t, 0), (int)h->offset, s[0]);
        pair_dots(u, a, tile, t, 4, 8, eighths_at(a, tile, t, 1), (int)h->offset, s[1]);
    } else {
        pair_dots(u, a, tile, t, 0, 8, eighths_at(a, tile, t, 2), (int)h->offset, s[0]);
    }
    UNROLL for (int i = 0; i < 2; i++)
    {
        const rows halves[2] = { s[0][i], s[1][i] };
        float *sum = sums + LANES * i;
        r_store(sum, step_of(&u[i], h, a, tile, t, halves, da, r_load(sum)));
    }
}

/* Asks for the weights that come AHEAD of those at `at`: at a panel's end, of the next pair. */
INLINE void pair_fetch(const struct pair *k, size_t at, size_t each)
{
    const size_t stride = k->p->w->stride;
    const size_t ahead = at + AHEAD + (at + AHEAD < stride ? 0 : stride);
    UNROLL for (size_t b = 0; b < each; b += 64)
    {
        __builtin_prefetch(k->w[0] + ahead + b, 0, 2);
        __builtin_prefetch(k->w[1] + ahead + b, 0, 2);
    }
}

INLINE void pair_units(decode_fn decode, const struct how *h, const struct pair *k)
{
    const struct kern_act *act = k->p->a;
    const size_t each = h->block / (size_t)h->units;
    const size_t stride = gemm_tile_bytes(act->kind, TILE_MAX, act->n_col);
    const int32_t n_unit = act->n_col / UNIT;
    const uint8_t *unit = k->a;
    int32_t fetched = 0; /* results that were asked for */
    memset(k->sums, 0, (size_t)k->n_tok * sizeof *k->sums);
    for (int32_t i = 0; i < n_unit; i++, unit += unit_bytes(TILE_MAX)) {
        const size_t at = (size_t)i * each;
        const int j = i % h->units;
        struct unit u[2];
        pair_fetch(k, at, each);
        decode(k->w[0] + at - (size_t)j * each, j, 0, &u[0]);
        ready(&u[0], h->max);
        decode(k->w[1] + at - (size_t)j * each, j, 0, &u[1]);
        ready(&u[1], h->max);
        for (; fetched * n_unit < (i + 1) * k->n_tok; fetched++) {
            __builtin_prefetch(k->y + (size_t)fetched * k->p->ldy, 1, 3);
            __builtin_prefetch(k->y + (size_t)fetched * k->p->ldy + LANES, 1, 3);
        }
        const uint8_t *a = unit;
        for (int32_t t0 = 0; t0 < k->n_tok; t0 += TILE_MAX, a += stride) {
            for (int t = 0; t < TILE_MAX; t++) {
                pair_step(u, h, a, t, k->sums[t0 + t]);
            }
        }
    }
}

/* The part's whole tiles, if that pays, times panels `panel` and the next. Returns the first token
 * that is left. */
INLINE int32_t pair_run(decode_fn decode, struct how h, const struct product *p, int32_t panel)
{
    _Alignas(64) float sums[PAIR_TILES * TILE_MAX][2 * LANES];
    const uint8_t *w = p->w->data + (size_t)panel * p->w->stride;
    const int32_t tile0 = p->part.tile0;
    const int32_t n_tile = p->tok_end / TILE_MAX - tile0; /* whole ones */
    if (n_tile < KERN_PAIR_TOKS / TILE_MAX || p->w->n_col < PAIR_COL_MIN ||
        panel + 1 >= p->part.panel1) {
        return tile0 * TILE_MAX;
    }
    const int32_t n_pass = (n_tile + PAIR_TILES - 1) / PAIR_TILES; /* of nearly equal numbers */
    for (int32_t i = 0; i < n_pass; i++) {
        const int32_t t0 = tile0 + i * n_tile / n_pass;
        const int32_t t1 = tile0 + (i + 1) * n_tile / n_pass;
        const struct pair k = {
            .p = p,
            .w = { w, w + p->w->stride },
            .n_tok = (t1 - t0) * TILE_MAX,
            .a = gemm_tile_at(p->a, t0),
            .y = p->y + (size_t)t0 * TILE_MAX * p->ldy + (size_t)panel * LANES,
            .sums = sums,
        };
        pair_units(decode, &h, &k);
        for (int32_t t = 0; t < k.n_tok; t++) {
            memcpy(k.y + (size_t)t * p->ldy, sums[t], sizeof sums[t]);
        }
    }
    return (tile0 + n_tile) * TILE_MAX;
}

#endif
