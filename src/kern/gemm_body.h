/* gemm_body - products with packed weights (included by kern/gemm_*.c of vector sets)
 *
 * One lane is one output row, so a panel of 16 rows needs no horizontal sums. For each unit of 32
 * columns a decode step turns the packed bits into eight registers of codes (group g: 4 columns of
 * ROWS rows) and the scales into registers of floats; then each token of the tile takes eight
 * integer products with four activations broadcast from memory. The decode step is shared by up to
 * TOGETHER tokens of a tile; with many tokens a set may take two panels at once (gemm_pair.h). A
 * set whose registers hold fewer than 16 rows takes a panel in STEPS steps; step s has the rows
 * from ROWS * s.
 *
 * Codes are unsigned (value + offset), because the products want one unsigned side. The offset
 * comes off as offset * sum of the activations, where the integer sums start. All numbers are
 * integers below 2^24, so sub-scales can be multiplied in float, and the bits equal those of
 * gemm_ref.c.
 *
 * The decode steps of codebook types stand in gemm_books.h.
 *
 * The file that includes this defines before it: ROWS, TOGETHER, BYTE_OFFSET (what is still to come
 * off codes of 8 bits: 128, or 0 where `ready` has made them signed), the types `rows` (ROWS
 * floats) and `struct unit` (w, d, sub, min, dmin, m), and these words, of which each takes step s
 * of 16 rows:
 *   r_set(a)  r_load(p)  r_store(p, x)  r_add  r_mul
 *   r_broadcast(p)                      r_set(*p); a set may take it past its vector loads
 *   r_fma(x, y, z)  r_fnma(x, y, z)     x * y + z, z - x * y, rounded once
 *   r_halfs(p, s)  r_bfloats(p, s)      16-bit floats, widened exactly
 *   r_nibbles(p, s, shift)              (byte >> shift) & 15;  r_signed(p, s)  signed bytes
 *   r_power2(p, s)                      2^(e - 128) of bytes e, subnormals too
 *   r_e4m3(p, s)                        halves of unsigned E4M3 numbers, see quant_iq.c
 *   r_sixes(p, n, i)                    6-bit numbers i .. i + ROWS - 1 of n, as pack.c lays them
 *   nibbles, twos, bytes (p, s, w)      planes of 4, 2 and 8 bits into eight registers of codes
 *   add_bits(p, s, w, value)            value more where the plane of single bits has a one
 *   none()                              a register of codes 0
 *   trits(p, power, s)                  0..2: see quant_iq.c's trit, of bytes of 16 rows
 *   high_twos(p, s, w)                  16 times the codes of a plane of 2 bits
 *   look_up(w, table, offset)           table[code] + offset
 *   ready(u, max)                       last step of decoding; max: the greatest code, or less
 *                                       than 0: -max is the greatest level, with signs aside
 *   i_set(a)  i_float(x)                integer sums (isums): one number in all, as floats
 *   add_dot(&sum, u, max, g, a)         adds the products of group g with 4 activations
 *   dots(u, max, q, tile, t, g0, g1, n8, offset)
 *                                       sums over groups [g0, g1) for token t, as exact floats;
 *                                       they start at *n8 * offset / 8; q: the integers
 * A set may define FOLD_OFFSET, and for some types decode_NAME_folded: codes times sub-scales, plus
 * that offset where they have a sign; and PANELS as 2, with
 *   pair_dots(u[2], q, tile, t, g0, g1, n8, offset, to[2])      as dots, of two units */
#ifndef HEARTH_GEMM_BODY_H
#define HEARTH_GEMM_BODY_H

#include "kern/gemm.h"
#include "kern/gemm_act.h"
#include "kern/peak_body.h"

#define STEPS (LANES / ROWS)
#define AHEAD 8192 /* bytes between the block that is read and the one that is fetched */

#include "kern/gemm_panel.h"

/* --- decode steps: block, unit within the block, step -> registers ---------------------------- */

/* Offsets count bytes of 16 rows in the order of pack.c's table. A half-precision field takes 32, a
 * bit plane 64, two bits 128, four bits 256, so that for example a unit of Q5_K has its scales at
 * 0, bits at 24, codes at 88, and ends at 344. */

typedef void (*decode_fn)(const uint8_t *block, int j, int s, struct unit *u);

INLINE void decode_q4_0(const uint8_t *b, int j, int s, struct unit *u)
{
    (void)j;
    u->d[0] = r_halfs(b, s);
    nibbles(b + 32, s, u->w);
}

INLINE void decode_q4_1(const uint8_t *b, int j, int s, struct unit *u)
{
    (void)j;
    u->d[0] = r_halfs(b, s);
    u->m = r_halfs(b + 32, s);
    nibbles(b + 64, s, u->w);
}

INLINE void decode_q5_0(const uint8_t *b, int j, int s, struct unit *u)
{
    (void)j;
    u->d[0] = r_halfs(b, s);
    nibbles(b + 96, s, u->w);
    add_bits(b + 32, s, u->w, 16);
}

INLINE void decode_q5_1(const uint8_t *b, int j, int s, struct unit *u)
{
    (void)j;
    u->d[0] = r_halfs(b, s);
    u->m = r_halfs(b + 32, s);
    nibbles(b + 128, s, u->w);
    add_bits(b + 64, s, u->w, 16);
}

INLINE void decode_q8_0(const uint8_t *b, int j, int s, struct unit *u)
{
    (void)j;
    u->d[0] = r_halfs(b, s);
    bytes(b + 32, s, u->w);
}

INLINE void decode_iq4_nl(const uint8_t *b, int j, int s, struct unit *u)
{
    decode_q4_0(b, j, s, u);
    look_up(u->w, quant_levels_iq4, (char)128);
}

INLINE void decode_mxfp4(const uint8_t *b, int j, int s, struct unit *u)
{
    (void)j;
    u->d[0] = r_power2(b, s);
    nibbles(b + 16, s, u->w);
    look_up(u->w, quant_levels_e2m1, 16);
}

INLINE void decode_q2_k(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 64 + 160 * j;
    u->d[0] = r_halfs(b, s);
    u->dmin = r_halfs(b + 32, s);
    UNROLL for (int h = 0; h < 2; h++)
    {
        u->sub[h] = r_nibbles(p + 16 * h, s, 0);
        u->min[h] = r_nibbles(p + 16 * h, s, 4);
    }
    twos(p + 32, s, u->w);
}

INLINE void decode_q3_k(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 216 * j;
    u->d[0] = r_halfs(b, s);
    UNROLL for (int h = 0; h < 2; h++)
    {
        u->sub[h] = r_add(r_sixes(p, 32, LANES * h + ROWS * s), r_set(-32.0f));
    }
    twos(p + 88, s, u->w);
    add_bits(p + 24, s, u->w, 4);
}

/* A unit's one sub-scale and minimum go into its scale and its constant. */
INLINE void decode_sixes(const uint8_t *b, const uint8_t *p, int s, struct unit *u)
{
    u->d[0] = r_mul(r_halfs(b, s), r_sixes(p, 32, ROWS * s));
    u->m = r_mul(r_halfs(b + 32, s), r_mul(r_sixes(p, 32, LANES + ROWS * s), r_set(-1.0f)));
}

INLINE void decode_q4_k(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 64 + 280 * j;
    decode_sixes(b, p, s, u);
    nibbles(p + 24, s, u->w);
}

INLINE void decode_q5_k(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 64 + 344 * j;
    decode_sixes(b, p, s, u);
    nibbles(p + 88, s, u->w);
    add_bits(p + 24, s, u->w, 16);
}

INLINE void decode_q6_k(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 416 * j;
    u->d[0] = r_halfs(b, s);
    u->sub[0] = r_signed(p, s);
    u->sub[1] = r_signed(p + 16, s);
    nibbles(p + 160, s, u->w);
    high_twos(p + 32, s, u->w);
}

INLINE void decode_iq4_xs(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 268 * j;
    u->d[0] = r_mul(r_halfs(b, s), r_add(r_sixes(p, 16, ROWS * s), r_set(-32.0f)));
    nibbles(p + 12, s, u->w);
    look_up(u->w, quant_levels_iq4, (char)128);
}

INLINE void decode_tq1_0(const uint8_t *b, int j, int s, struct unit *u)
{
    u->d[0] = r_halfs(b, s);
    UNROLL for (int g = 0; g < 8; g++)
    {
        u->w[g] = trits(b + 32 + 64 * trit_plane[j][g], trit_power[j][g], s);
    }
}

INLINE void decode_tq2_0(const uint8_t *b, int j, int s, struct unit *u)
{
    u->d[0] = r_halfs(b, s);
    twos(b + 32 + 128 * j, s, u->w);
}

INLINE void decode_nvfp4(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 288 * j;
    u->d[0] = r_e4m3(p, s);
    u->d[1] = r_e4m3(p + 16, s);
    nibbles(p + 32, s, u->w);
    look_up(u->w, quant_levels_e2m1, 16);
}

INLINE void decode_q1_0(const uint8_t *b, int j, int s, struct unit *u)
{
    u->d[0] = r_halfs(b, s);
    UNROLL for (int g = 0; g < 8; g++)
    {
        u->w[g] = none();
    }
    add_bits(b + 32 + 64 * j, s, u->w, 2);
}

#include "kern/gemm_books.h"

/* --- the product of one unit with one tile ---------------------------------------------------- */

/* What is known of a type at compile time. */
struct how {
    enum form form;
    int max;        /* the greatest code */
    float offset;   /* of codes, as `dots` leaves it */
    bool is_book;   /* of gemm_books.h */
    bool is_folded; /* sub-scales are in the codes */
    int units;      /* per block */
    size_t block;   /* bytes of 16 rows */
};

/* Whether the halves of a unit have sums of their own. */
INLINE bool has_halves(enum form form)
{
    return form == FORM_HALVED || form == FORM_SUB2 || form == FORM_SUB2_MIN;
}

/* gemm_act.h's n8 of token t, of half 0 or 1, or 2: both. */
INLINE const int32_t *eighths_at(const uint8_t *a, int tile, int t, int part)
{
    return (const int32_t *)(const void *)(a + UNIT * tile) + (4 + part) * tile + t;
}

/* Sum of weight * activation for token t as floats, over half 0 or 1, or 2: both. What is to come
 * off the codes is where the integers start: n8 times offset / 8. */
INLINE rows sum_of(const struct unit *u, const struct how *h, const uint8_t *a, int tile, int t,
                   int part)
{
    return dots(u, h->max, a, tile, t, part == 1 ? 4 : 0, part == 0 ? 4 : 8,
                eighths_at(a, tile, t, part), (int)h->offset);
}

/* The steps that one unit adds to the chain of token t, as docs/NUMERICS.md (Products) writes them,
 * from its sums (of the halves, or of both in s[0]) and its scale da. Behind the 32 * tile integers
 * of the unit: what gemm_act.h says, of the tile's tokens. */
INLINE rows step_of(const struct unit *u, const struct how *h, const uint8_t *a, int tile, int t,
                    const rows *s, rows da, rows acc)
{
    const enum form form = h->form;
    const float *d = (const float *)(const void *)(a + UNIT * tile);
    const rows a0 = r_set(d[tile + t]);
    const rows a1 = r_set(d[2 * tile + t]);
    const rows scale = r_mul(u->d[0], da);
    if (form == FORM_HALVED) {
        return r_fma(s[1], r_mul(u->d[1], da), r_fma(s[0], scale, acc));
    }
    if (form == FORM_SUB2 || form == FORM_SUB2_MIN) {
        acc = r_fma(r_fma(s[1], u->sub[1], r_mul(s[0], u->sub[0])), scale, acc);
    } else {
        acc = r_fma(s[0], scale, acc);
    }
    if (form == FORM_M) {
        acc = r_fma(u->m, r_set(d[3 * tile + t]), acc);
    } else if (form == FORM_SUB2_MIN || form == FORM_MIN) {
        const rows sum = r_fma(u->min[1], a1, r_mul(u->min[0], a0));
        acc = r_fnma(sum, r_mul(u->dmin, da), acc);
    }
    return acc;
}

/* Whether scales come by r_broadcast: on Zen 5 that takes Q4_0 from 5.5 to 5.1 cycles, and costs
 * Q3_K as much, whose decode step is long; of types with two sums none gains (docs/SPEED.md). */
INLINE bool spares_loads(const struct how *h, int tile)
{
    return tile >= 8 && !h->is_folded && (h->form == FORM_PLAIN || h->form == FORM_M);
}

INLINE rows token_step(const struct unit *u, const struct how *h, const uint8_t *a, int tile, int t,
                       rows acc)
{
    const float *d = (const float *)(const void *)(a + UNIT * tile) + t;
    rows s[2];
    if (has_halves(h->form)) {
        s[0] = sum_of(u, h, a, tile, t, 0);
        s[1] = sum_of(u, h, a, tile, t, 1);
    } else {
        s[0] = sum_of(u, h, a, tile, t, 2);
    }
    return step_of(u, h, a, tile, t, s, spares_loads(h, tile) ? r_broadcast(d) : r_set(*d), acc);
}

INLINE void store_tile(const rows *acc, int together, int n, float *y, size_t ldy)
{
    UNROLL for (int t = 0; t < together; t++)
    {
        if (t < n) {
            r_store(y + (size_t)t * ldy, acc[t]);
        }
    }
}

/* Asks for the weights that come soon: for one token those `ahead`, to the first-level cache. With
 * more tokens that keeps the loads of their activations waiting, so the second level it is. */
INLINE void fetch_unit(const uint8_t *w, size_t n, int tile, size_t ahead)
{
    UNROLL for (size_t p = 0; p < n; p += 64)
    {
        if (tile == 1) {
            __builtin_prefetch(w + ahead + p);
        } else {
            __builtin_prefetch(w + AHEAD + p, 0, 2);
        }
    }
}

/* One panel times the first `most` tokens of a tile, as far as registers hold them, from the one
 * that `a` points to; n of them exist. Everything but the pointers is constant after inlining, so a
 * type costs a copy of this text for each number of tokens, and no branch. */
INLINE void panel_tile(decode_fn decode, const struct how *h, int tile, int most, const uint8_t *w,
                       int32_t n_block, const uint8_t *a, int n, float *y, size_t ldy)
{
    const size_t each = h->block / (size_t)h->units;
    const size_t ahead = tile == 1 ? peak_ahead(AHEAD) : 0;
    const int together = most < TOGETHER ? most : TOGETHER;
    rows acc[STEPS][TOGETHER];
    UNROLL for (int t = 0; t < STEPS * TOGETHER; t++)
    {
        acc[t / TOGETHER][t % TOGETHER] = r_set(0.0f);
    }
    for (int32_t i = 0; i < n_block; i++, w += h->block) {
        for (int j = 0; j < h->units; j++, a += unit_bytes(tile)) {
            fetch_unit(w + (size_t)j * each, each, tile, ahead);
            UNROLL for (int s = 0; s < STEPS; s++)
            {
                struct unit u;
                decode(w, j, s, &u);
                ready(&u, h->max);
                UNROLL for (int t = 0; t < together; t++)
                {
                    acc[s][t] = token_step(&u, h, a, tile, t, acc[s][t]);
                }
            }
        }
    }
    UNROLL for (int s = 0; s < STEPS; s++)
    {
        store_tile(acc[s], together, n, y + ROWS * s, ldy);
    }
}

/* The products of one group where all registers of codes may hold columns of it. */
INLINE void book_dot(isums *sum, const struct unit *u, const struct how *h, int g, const int8_t *a)
{
    int8_t all[UNIT] = { 0 };
    memcpy(all + 4 * g, a, 4);
    book_sort(h->form == FORM_SUB2, all);
    UNROLL for (int i = 0; i < 8; i++)
    {
        add_dot(sum, u, h->max, i, all + 4 * i);
    }
}

/* The steps of n high parts of group g (gemm_act.h), y: of the tile's first token. Of a unit only
 * that group is decoded, the compiler leaves the rest out. */
INLINE void high_group(decode_fn decode, const struct how *h, const uint8_t *w,
                       const struct act_high *high, int32_t n, int g, int s, float *y, size_t ldy)
{
    for (int32_t i = 0; i < n; i++) {
        const struct act_high *e = &high[i];
        float *to = y + (size_t)e->token * ldy + ROWS * s;
        struct unit u;
        decode(w + (size_t)(e->unit / h->units) * h->block, e->unit % h->units, s, &u);
        ready(&u, h->max);
        isums sum = i_set(-(int32_t)h->offset * e->sum);
        if (h->is_book) {
            book_dot(&sum, &u, h, g, e->h);
        } else {
            add_dot(&sum, &u, h->max, g, e->h);
        }
        rows x = i_float(sum);
        if (h->form == FORM_SUB2 || h->form == FORM_SUB2_MIN) {
            x = r_mul(x, u.sub[g / 4]);
        }
        const rows d = u.d[h->form == FORM_HALVED ? g / 4 : 0];
        r_store(to, r_fma(x, r_mul(d, r_set(e->d)), r_load(to)));
    }
}

/* The high parts of a panel's tokens, behind its units: its weights are in the cache now. */
INLINE void high_run(decode_fn decode, struct how h, const struct product *p, int32_t panel)
{
    const uint8_t *w = p->w->data + (size_t)panel * p->w->stride;
    for (int32_t i = p->part.tile0; i < p->part.tile1; i++) {
        const int32_t tile = gemm_tile(p->a->n_tok, i);
        const struct act_side *side = side_at(gemm_tile_at(p->a, i), tile, p->w->n_col);
        float *y = p->y + (size_t)i * TILE_MAX * p->ldy + (size_t)panel * LANES;
        UNROLL for (int g = 0; g < 8; g++)
        {
            UNROLL for (int s = 0; s < STEPS; s++)
            {
                high_group(decode, &h, w, high_at(side, g, tile, p->w->n_col), side->n[g], g, s, y,
                           p->ldy);
            }
        }
    }
}

/* A tile that n tokens fill up to three quarters. Where a tile is taken in halves nothing is one:
 * the empty half is spared anyway. */
INLINE bool is_part(int tile, int n)
{
    return TOGETHER == TILE_MAX && tile > 2 && n <= tile / 4 * 3;
}

/* The product with such a tile. In a function of its own, so that the loops for whole tiles are
 * compiled as if there were no others. */
typedef void (*part_fn)(const uint8_t *w, int32_t n_block, const uint8_t *a, int n, float *y,
                        size_t ldy);

/* One panel times the part's tokens from `tok` on. `many`, with its own decode step: for tiles of 8
 * tokens and more. */
INLINE void panel_run(decode_fn decode, struct how h, decode_fn decode_many, struct how many,
                      part_fn part, const struct product *p, int32_t panel, int32_t tok)
{
    const uint8_t *w = p->w->data + (size_t)panel * p->w->stride;
    const int32_t n_block = p->w->n_col / (UNIT * h.units);
    for (; tok < p->tok_end; tok += TOGETHER) {
        const int32_t tile = gemm_tile(p->a->n_tok, tok / TILE_MAX);
        const uint8_t *a = gemm_tile_at(p->a, tok / TILE_MAX) + 4 * (tok % TILE_MAX);
        const int n = p->a->n_tok - tok;
        float *y = p->y + (size_t)tok * p->ldy + (size_t)panel * LANES;
        if (is_part(tile, n)) {
            part(w, n_block, a, n, y, p->ldy);
        } else if (tile == 16) {
            panel_tile(decode_many, &many, 16, 16, w, n_block, a, n, y, p->ldy);
        } else if (tile == 8) {
            panel_tile(decode_many, &many, 8, 8, w, n_block, a, n, y, p->ldy);
        } else if (tile == 4) {
            panel_tile(decode, &h, 4, 4, w, n_block, a, n, y, p->ldy);
        } else if (tile == 2) {
            panel_tile(decode, &h, 2, 2, w, n_block, a, n, y, p->ldy);
        } else {
            panel_tile(decode, &h, 1, 1, w, n_block, a, n, y, p->ldy);
        }
    }
}

#if PANELS > 1
#include "kern/gemm_pair.h"
#else
/* Of a set that takes one panel at once: no token is done. */
INLINE int32_t pair_run(decode_fn decode, struct how h, const struct product *p, int32_t panel)
{
    (void)decode;
    (void)h;
    (void)panel;
    return p->part.tile0 * TILE_MAX;
}
#endif

/* name, what it needs beyond d, greatest code, offset of the codes, units and bytes of a block */
#define PANEL(name, form, max, offset, units, block)                                               \
    PANEL_AS(, name, HOW(form, max, offset, false, units, block), decode_##name,                   \
             HOW(form, max, offset, false, units, block))
#define PANEL_BOOK(name, form, max, offset, block)                                                 \
    PANEL_AS(BOOK_TARGET, name, HOW(form, max, offset, true, 8, block), decode_##name,             \
             HOW(form, max, offset, true, 8, block))
/* form, greatest code and offset for tiles of up to 4 tokens, and with sub-scales in the codes */
#define PANEL_FOLDED(name, form, max, offset, form_many, max_many, offset_many, block)             \
    PANEL_AS(, name, HOW(form, max, offset, false, 8, block), decode_##name##_folded,              \
             ((struct how){ form_many, max_many, offset_many, false, true, 8, block }))
#define HOW(form, max, offset, is_book, units, block)                                              \
    ((struct how){ form, max, offset, is_book, false, units, block })
#define PANEL_AS(target, name, how, decode_many, many)                                             \
    static target                                                                                  \
        __attribute__((noinline)) void high_##name(const struct product *p, int32_t panel)         \
    {                                                                                              \
        high_run(decode_##name, how, p, panel);                                                    \
    }                                                                                              \
    static target __attribute__((noinline)) void part_##name(                                      \
        const uint8_t *w, int32_t n_block, const uint8_t *a, int n, float *y, size_t ldy)          \
    {                                                                                              \
        if (n > 6) {                                                                               \
            panel_tile(decode_many, &many, 16, 12, w, n_block, a, n, y, ldy);                      \
        } else if (n > 3) {                                                                        \
            panel_tile(decode_many, &many, 8, 6, w, n_block, a, n, y, ldy);                        \
        } else {                                                                                   \
            panel_tile(decode_##name, &how, 4, 3, w, n_block, a, n, y, ldy);                       \
        }                                                                                          \
    }                                                                                              \
    static target void panel_##name(const struct product *p, int32_t panel)                        \
    {                                                                                              \
        const int32_t tok = pair_run(decode_many, many, p, panel);                                 \
        for (int32_t i = panel; i < panel + PANELS && i < p->part.panel1; i++) {                   \
            panel_run(decode_##name, how, decode_many, many, part_##name, p, i, tok);              \
            high_##name(p, i);                                                                     \
        }                                                                                          \
    }
PANEL(q4_0, FORM_PLAIN, 15, 8.0f, 1, 16 * 18)
PANEL(q4_1, FORM_M, 15, 0.0f, 1, 16 * 20)
PANEL(q5_0, FORM_PLAIN, 31, 16.0f, 1, 16 * 22)
PANEL(q5_1, FORM_M, 31, 0.0f, 1, 16 * 24)
PANEL(q8_0, FORM_PLAIN, 255, BYTE_OFFSET, 1, 16 * 34)
PANEL(iq4_nl, FORM_PLAIN, 255, BYTE_OFFSET, 1, 16 * 18)
PANEL(mxfp4, FORM_PLAIN, 28, 16.0f, 1, 16 * 17)
#ifdef FOLD_OFFSET
PANEL_FOLDED(q2_k, FORM_SUB2_MIN, 3, 0.0f, FORM_MIN, 45, 0.0f, 16 * 84)
PANEL_FOLDED(q3_k, FORM_SUB2, 7, 4.0f, FORM_PLAIN, 252, FOLD_OFFSET, 16 * 110)
#else
PANEL(q2_k, FORM_SUB2_MIN, 3, 0.0f, 8, 16 * 84)
PANEL(q3_k, FORM_SUB2, 7, 4.0f, 8, 16 * 110)
#endif
PANEL(q4_k, FORM_M, 15, 0.0f, 8, 16 * 144)
PANEL(q5_k, FORM_M, 31, 0.0f, 8, 16 * 176)
PANEL(q6_k, FORM_SUB2, 63, 32.0f, 8, 16 * 210)
PANEL(iq4_xs, FORM_PLAIN, 255, BYTE_OFFSET, 8, 16 * 136)
PANEL(tq1_0, FORM_PLAIN, 2, 1.0f, 8, 16 * 54)
PANEL(tq2_0, FORM_PLAIN, 3, 1.0f, 8, 16 * 66)
PANEL(nvfp4, FORM_HALVED, 28, 16.0f, 2, 16 * 36)
PANEL(q1_0, FORM_PLAIN, 2, 1.0f, 4, 16 * 18)
PANEL_BOOK(iq1_s, FORM_PLAIN, 25, 16.0f, 16 * 50)
PANEL_BOOK(iq1_m, FORM_SUB2, 25, 16.0f, 16 * 56)
PANEL_BOOK(iq2_xxs, FORM_PLAIN, -43, BYTE_OFFSET, 16 * 66)
PANEL_BOOK(iq2_xs, FORM_SUB2, -43, BYTE_OFFSET, 16 * 74)
PANEL_BOOK(iq2_s, FORM_SUB2, -43, BYTE_OFFSET, 16 * 82)
PANEL_BOOK(iq3_xxs, FORM_PLAIN, -62, BYTE_OFFSET, 16 * 98)
PANEL_BOOK(iq3_s, FORM_PLAIN, -15, BYTE_OFFSET, 16 * 110)

/* --- float weights ---------------------------------------------------------------------------- */

INLINE rows load_weight(enum quant_type type, const uint8_t *p, int s)
{
    if (type == QUANT_F32) {
        return r_load((const float *)(const void *)p + ROWS * s);
    }
    return type == QUANT_F16 ? r_halfs(p, s) : r_bfloats(p, s);
}

/* TOGETHER sums at once: as many steps as the tile leaves room for. */
INLINE void float_tile(enum quant_type type, size_t each, int tile, const uint8_t *w, int32_t n_col,
                       const float *x, int n, float *y, size_t ldy)
{
    const int together = tile < TOGETHER ? tile : TOGETHER;
    const int steps = together * STEPS <= 8 ? STEPS : 1;
    for (int s0 = 0; s0 < STEPS; s0 += steps) {
        rows acc[STEPS][TOGETHER];
        UNROLL for (int t = 0; t < steps * TOGETHER; t++)
        {
            acc[t / TOGETHER][t % TOGETHER] = r_set(0.0f);
        }
        const uint8_t *from = w;
        const float *xk = x;
        for (int32_t k = 0; k < n_col; k++, from += LANES * each, xk += tile) {
            __builtin_prefetch(from + AHEAD);
            UNROLL for (int s = 0; s < steps; s++)
            {
                const rows v = load_weight(type, from, s0 + s);
                UNROLL for (int t = 0; t < together; t++)
                {
                    acc[s][t] = r_fma(v, r_set(xk[t]), acc[s][t]);
                }
            }
        }
        UNROLL for (int s = 0; s < steps; s++)
        {
            store_tile(acc[s], together, n, y + ROWS * (s0 + s), ldy);
        }
    }
}

/* Memory-bound for few tokens, and for many limited by one fma per weight and token: no rearranging
 * of columns would help, and the chain must stay in column order. */
INLINE void float_panel(enum quant_type type, size_t each, const struct product *p, int32_t panel)
{
    const uint8_t *w = p->w->data + (size_t)panel * p->w->stride;
    for (int32_t tok = p->part.tile0 * TILE_MAX; tok < p->tok_end; tok += TOGETHER) {
        const int32_t tile = gemm_tile(p->a->n_tok, tok / TILE_MAX);
        const float *x =
            (const float *)(const void *)gemm_tile_at(p->a, tok / TILE_MAX) + tok % TILE_MAX;
        const int n = p->a->n_tok - tok;
        float *y = p->y + (size_t)tok * p->ldy + (size_t)panel * LANES;
        if (tile == 16) {
            float_tile(type, each, 16, w, p->w->n_col, x, n, y, p->ldy);
        } else if (tile == 8) {
            float_tile(type, each, 8, w, p->w->n_col, x, n, y, p->ldy);
        } else if (tile == 4) {
            float_tile(type, each, 4, w, p->w->n_col, x, n, y, p->ldy);
        } else if (tile == 2) {
            float_tile(type, each, 2, w, p->w->n_col, x, n, y, p->ldy);
        } else {
            float_tile(type, each, 1, w, p->w->n_col, x, n, y, p->ldy);
        }
    }
}

INLINE void float_panels(enum quant_type type, size_t each, const struct product *p, int32_t panel)
{
    for (int32_t i = panel; i < panel + PANELS && i < p->part.panel1; i++) {
        float_panel(type, each, p, i);
    }
}

static void panel_f32(const struct product *p, int32_t panel)
{
    float_panels(QUANT_F32, 4, p, panel);
}

static void panel_f16(const struct product *p, int32_t panel)
{
    float_panels(QUANT_F16, 2, p, panel);
}

static void panel_bf16(const struct product *p, int32_t panel)
{
    float_panels(QUANT_BF16, 2, p, panel);
}

/* --- the entry -------------------------------------------------------------------------------- */

INLINE void body_fill(struct kern_table *t)
{
    peak_fill(t);
    books_fill();
    t->act_prepare = gemm_act_prepare;
    t->matmul = panel_matmul;
}

#endif
