/* checkkern_gemm - products of every element type against the scalar entries
 *
 * For each type: matrices whose row counts leave every kind of rest, token counts from 1 up through
 * all tile widths, activations of all kinds, weights with ordinary and with arbitrary bits. Weights
 * end at a guard page and start at any even address; results end at one too. What is compared is
 * everything a call may write: all 16 lanes of each panel; what it may not write is looked at
 * afterwards.
 *
 * The preparation of activations is part of it: each table prepares its own, so that a difference
 * in rounding shows as a difference of products. Its memory ends at a guard page, too.
 *
 * Next: test_kern.c. */
#include "checkkern.h"

#include <stdio.h>
#include <string.h>

#define N_TOK_MAX  140
#define N_ROW_MAX  80
#define N_COL_MAX  1024
#define N_COL_WIDE 2048 /* from 1536 on some sets take two panels at once */
#define GAP        48   /* floats between rows of results that nobody may write */
#define LD         (N_ROW_MAX + GAP)
#define UNWRITTEN  12345.0f

struct gemm_run {
    const struct kern_table *ref, *t;
    uint64_t *hash;
    struct checkkern_rand rand;
    struct checkkern_rand cuts; /* of calls: a draw of its own, so that data stay as they were */
    struct checkkern_buf rows, weights, x, y[2], act;
    int n_bad;
};

/* --- weights --------------------------------------------------------------------------------- */

static void put_f16(uint8_t *p, struct checkkern_rand *r, bool is_wild)
{
    const float x = (checkkern_float(r, CHECKKERN_PLAIN) + 0.5f) * 0.02f;
    const uint16_t h = is_wild ? (uint16_t)checkkern_bits(r) : quant_f32_to_f16(x);
    memcpy(p, &h, sizeof h);
}

/* Gives the scales of a block of random bits ordinary values. */
static void tame_block(enum quant_type type, uint8_t *b, struct checkkern_rand *r)
{
    static const struct {
        uint8_t type, at[2], n;
    } scales[] = {
        { QUANT_Q4_0, { 0 }, 1 },    { QUANT_Q4_1, { 0, 2 }, 2 }, { QUANT_Q5_0, { 0 }, 1 },
        { QUANT_Q5_1, { 0, 2 }, 2 }, { QUANT_Q8_0, { 0 }, 1 },    { QUANT_Q2_K, { 80, 82 }, 2 },
        { QUANT_Q3_K, { 108 }, 1 },  { QUANT_Q4_K, { 0, 2 }, 2 }, { QUANT_Q5_K, { 0, 2 }, 2 },
        { QUANT_Q6_K, { 208 }, 1 },  { QUANT_IQ2_XXS, { 0 }, 1 }, { QUANT_IQ2_XS, { 0 }, 1 },
        { QUANT_IQ2_S, { 0 }, 1 },   { QUANT_IQ3_XXS, { 0 }, 1 }, { QUANT_IQ3_S, { 0 }, 1 },
        { QUANT_IQ1_S, { 0 }, 1 },   { QUANT_IQ4_NL, { 0 }, 1 },  { QUANT_IQ4_XS, { 0 }, 1 },
        { QUANT_TQ1_0, { 52 }, 1 },  { QUANT_TQ2_0, { 64 }, 1 },  { QUANT_Q1_0, { 0 }, 1 },
    };
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        for (int k = 0; k < scales[i].n && scales[i].type == type; k++) {
            put_f16(b + scales[i].at[k], r, false);
        }
    }
    if (type == QUANT_IQ1_M) { /* the scale lies in the top four bits of four words */
        b[49] = (uint8_t)((b[49] & 15) | 0x10);
        b[51] = (uint8_t)((b[51] & 15) | (checkkern_bits(r) & 0xF0));
        b[53] = (uint8_t)((b[53] & 15) | 0x40);
        b[55] = (uint8_t)((b[55] & 15) | 0x20);
    } else if (type == QUANT_MXFP4) {
        b[0] = (uint8_t)(118 + checkkern_below(r, 6));
    }
}

void checkkern_rows(struct checkkern_rand *r, enum quant_type type, uint8_t *to, size_t n,
                    bool is_wild)
{
    const struct quant_info *q = quant_get(type);
    for (size_t i = 0; i < n / q->block; i++, to += q->bytes) {
        for (int k = 0; k < q->bytes; k++) {
            to[k] = (uint8_t)checkkern_bits(r);
        }
        if (q->unit == NULL) {
            const float x = checkkern_float(r, is_wild ? CHECKKERN_SPECIAL : CHECKKERN_PLAIN);
            uint32_t u;
            memcpy(&u, &x, sizeof u);
            const uint16_t h = type == QUANT_F16 ? quant_f32_to_f16(x) : (uint16_t)(u >> 16);
            memcpy(to, type == QUANT_F32 ? (const void *)&u : (const void *)&h, q->bytes);
        } else if (!is_wild) {
            tame_block(type, to, r);
        }
    }
}

/* --- one product by both tables -------------------------------------------------------------- */

struct shape {
    enum quant_type type;
    int32_t n_row, n_col, n_tok;
    enum checkkern_kind kind;
    bool is_wild;
    bool is_crowded; /* instead of kind: as many units as can be stand out of each row */
};

static struct tensor weights(struct gemm_run *c, const struct shape *s)
{
    struct tensor w;
    size_t row = 0;
    if (!pack_shape(s->type, s->n_row, s->n_col, &w) ||
        !quant_bytes(s->type, (uint64_t)s->n_col, &row)) {
        printf("# cannot pack %s\n", quant_get(s->type)->name);
        c->n_bad++;
        return (struct tensor){ 0 };
    }
    const size_t bytes = row * (size_t)s->n_row;
    uint8_t *rows = checkkern_end(&c->rows, bytes);
    checkkern_rows(&c->rand, s->type, rows, (size_t)s->n_col * (size_t)s->n_row, s->is_wild);
    uint8_t *data = checkkern_end(&c->weights, w.bytes);
    const int32_t first = s->n_row > 16 ? 16 : s->n_row;
    w.data = data;
    pack_rows(&w, data, 0, rows, first);
    if (first < s->n_row) {
        pack_rows(&w, data, first, rows + row * (size_t)first, s->n_row - first);
    }
    return w;
}

/* After a call for a part and nothing else: whether it left alone what lies outside. */
static bool is_inside(const struct shape *s, struct kern_part part, const float *y, size_t floats)
{
    const size_t from = (size_t)part.tile0 * KERN_TILE;
    const size_t to = (size_t)kern_tok_end(s->n_tok, part.tile1);
    for (size_t i = 0; i < floats; i++) {
        const size_t tok = i / LD;
        const size_t panel = i % LD / 16;
        if (y[i] != UNWRITTEN && (tok < from || tok >= to || panel < (size_t)part.panel0 ||
                                  panel >= (size_t)part.panel1)) {
            return false;
        }
    }
    return true;
}

/* Panels and tiles in more calls than one: what a call is given must not depend on the rest, and it
 * must do that and no more. */
static void product(struct gemm_run *c, const struct kern_table *k, const struct tensor *w,
                    const struct shape *s, const float *x, float *y)
{
    const size_t floats = (size_t)(s->n_tok - 1) * LD + (size_t)tensor_panels(w) * 16;
    struct kern_act a = { kern_act_kind_for(s->type), s->n_tok, s->n_col, NULL };
    const size_t bytes = kern_act_bytes(a.kind, a.n_tok, a.n_col);
    a.data = (uint8_t *)checkkern_end(&c->act, (bytes + 63) / 64 * 64);
    memset(a.data, 0xA5, bytes);
    const int32_t tiles = kern_act_tiles(a.n_tok);
    const int32_t half = tiles / 2;
    k->act_prepare(&a, x, (size_t)s->n_col, half, tiles);
    k->act_prepare(&a, x, (size_t)s->n_col, 0, half);
    const int32_t panels = tensor_panels(w);
    const int32_t p0 = checkkern_below(&c->rand, panels + 1);
    const int32_t p1 = p0 + checkkern_below(&c->cuts, panels - p0 + 1);
    const int32_t t0 = checkkern_below(&c->cuts, tiles + 1);
    const int32_t t1 = t0 + checkkern_below(&c->cuts, tiles - t0 + 1);
    for (size_t i = 0; i < floats; i++) {
        y[i] = UNWRITTEN;
    }
    const struct kern_part middle = { p0, p1, t0, t1 };
    k->matmul(w, middle, &a, y, LD);
    if (!is_inside(s, middle, y, floats)) {
        printf("# %s: matmul %s, %d columns, %d tokens: panels %d to %d, tiles %d to %d: writes "
               "beyond them\n",
               k->name, quant_get(s->type)->name, s->n_col, s->n_tok, p0, p1, t0, t1);
        c->n_bad++;
    }
    k->matmul(w, (struct kern_part){ p1, panels, t0, t1 }, &a, y, LD);
    k->matmul(w, (struct kern_part){ 0, panels, t1, tiles }, &a, y, LD);
    k->matmul(w, (struct kern_part){ 0, p0, t0, t1 }, &a, y, LD);
    k->matmul(w, (struct kern_part){ 0, panels, 0, t0 }, &a, y, LD);
}

/* Less than a third of the units, each with the last of its groups. */
static const float *crowd(struct gemm_run *c, const struct shape *s)
{
    const int32_t n_unit = s->n_col / 32;
    float *x = checkkern_end(&c->x, (size_t)s->n_tok * (size_t)s->n_col * sizeof x[0]);
    for (int32_t i = 0; i < s->n_tok * s->n_col; i++) {
        const bool is_out = i % s->n_col / 32 < (n_unit - 1) / 3 && i % 32 >= 28;
        x[i] = is_out ? 1.0f : 0x1p-12f;
    }
    return x;
}

static void check_product(struct gemm_run *c, const struct shape *s)
{
    char text[128];
    const struct tensor w = weights(c, s);
    if (w.data == NULL) {
        return;
    }
    const float *x = s->is_crowded
                         ? crowd(c, s)
                         : checkkern_floats(&c->x, &c->rand, s->kind, s->n_tok * s->n_col);
    const int32_t n_lane = tensor_panels(&w) * 16;
    const size_t floats = (size_t)(s->n_tok - 1) * LD + (size_t)n_lane;
    float *y[2];
    for (int i = 0; i < 2; i++) {
        y[i] = (float *)checkkern_end(&c->y[i], floats * sizeof(float));
    }
    for (int i = 0; i < 2; i++) {
        product(c, i == 0 ? c->ref : c->t, &w, s, x, y[i]);
    }
    snprintf(text, sizeof text, "%s: matmul %s, %d rows, %d columns, %d tokens, kind %d%s",
             c->t->name, quant_get(s->type)->name, s->n_row, s->n_col, s->n_tok, (int)s->kind,
             s->is_wild ? ", any bits" : "");
    bool is_good = true;
    for (int32_t t = 0; t < s->n_tok; t++) {
        const size_t at = (size_t)t * LD;
        is_good = checkkern_same(text, y[0] + at, y[1] + at, (size_t)n_lane, c->hash) && is_good;
        for (int32_t i = n_lane; i < LD && t + 1 < s->n_tok; i++) {
            if (y[1][at + (size_t)i] != UNWRITTEN) {
                printf("# %s: writes beyond its rows\n", text);
                is_good = false;
                break;
            }
        }
    }
    c->n_bad += !is_good;
}

/* Rows and tokens for which AVX-512 takes two panels at once: parts with lone panels, 1 to 8 whole tiles
 * and a rest. These came later: the stored hashes are without them. */
static void check_wide(struct gemm_run *c, enum quant_type type, int32_t per_k)
{
    static const int32_t wide[][2] = {
        { 33, 32 }, { 79, 47 }, { 48, 80 }, { 80, 131 }, { 64, 31 }
    };
    const int32_t least = (1536 + per_k - 1) / per_k;
    uint64_t aside = 0;
    uint64_t *const stored = c->hash;
    c->hash = stored != NULL ? &aside : NULL;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        const struct shape s = { .type = type,
                                 .n_row = wide[i][0],
                                 .n_col = per_k * (least + (int32_t)(i % 2)),
                                 .n_tok = wide[i][1],
                                 .kind = i % 2 == 0 ? CHECKKERN_OUTLIERS : CHECKKERN_PLAIN,
                                 .is_wild = i == 1 };
        check_product(c, &s);
    }
    c->hash = stored;
}

static void check_type(struct gemm_run *c, enum quant_type type)
{
    static const int32_t rows[] = { 1, 16, 33, 15, 48, 64, 79 };
    static const int32_t many[] = { 47, 63, 64, 65, 96, 131 };
    const int32_t block = quant_get(type)->block;
    const int32_t per_k = block < 32 ? 37 : block; /* floats: any number of columns */
    for (int32_t n = 1; n <= 40; n++) {
        const int32_t col = per_k * (1 + checkkern_below(&c->rand, 512 / per_k + 1));
        const struct shape s = { .type = type,
                                 .n_row = rows[n % 7],
                                 .n_col = col,
                                 .n_tok = n,
                                 .kind = n % 5 == 4   ? (enum checkkern_kind)(n / 5 % 4)
                                         : n % 2 == 1 ? CHECKKERN_OUTLIERS
                                                      : CHECKKERN_PLAIN,
                                 .is_wild = n % 6 == 5 };
        check_product(c, &s);
    }
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) {
        const struct shape s = { .type = type,
                                 .n_row = rows[i],
                                 .n_col = per_k * (1 + checkkern_below(&c->rand, 600 / per_k + 1)),
                                 .n_tok = many[i],
                                 .kind = i % 2 == 0 ? CHECKKERN_OUTLIERS : CHECKKERN_PLAIN };
        check_product(c, &s);
    }
    if (type == QUANT_Q8_0) { /* the room is the same for all of them */
        const struct shape s = {
            .type = type, .n_row = 16, .n_col = N_COL_MAX, .n_tok = 129, .is_crowded = true
        };
        check_product(c, &s);
    }
    if (c->t->isa == CPU_AVX512) {
        check_wide(c, type, per_k);
    }
}

int checkkern_gemm(const struct kern_table *ref, const struct kern_table *t, enum quant_type type,
                   uint64_t *hash)
{
    struct gemm_run c = { .ref = ref, .t = t, .hash = hash, .rand = { 20261124 }, .cuts = { 7 } };
    checkkern_open(&c.rows, (size_t)N_ROW_MAX * N_COL_WIDE * 4);
    checkkern_open(&c.weights, (size_t)N_ROW_MAX * N_COL_WIDE * 4);
    checkkern_open(&c.x, (size_t)N_TOK_MAX * N_COL_WIDE * 4);
    checkkern_open(&c.act, kern_act_bytes(KERN_ACT_F32, N_TOK_MAX, N_COL_WIDE) + 64);
    for (int i = 0; i < 2; i++) {
        checkkern_open(&c.y[i], (size_t)N_TOK_MAX * LD * 4);
    }
    check_type(&c, type);
    checkkern_close(&c.rows);
    checkkern_close(&c.weights);
    checkkern_close(&c.x);
    checkkern_close(&c.act);
    for (int i = 0; i < 2; i++) {
        checkkern_close(&c.y[i]);
    }
    return c.n_bad;
}
