/* test_experts - who goes where, what is computed of it, and how much memory that takes
 *
 * The router's choice and weights against plain loops, with ties and odd numbers, on each instruction
 * set of this machine; the products of several experts against the kernel alone; sums in the order of
 * docs/NUMERICS.md; the workspace of any routing against what be_measure counts (BA-1). Then whole
 * models: experts in one tensor or apart are the same bytes, each in one range (WE-4); a packed image
 * too; a router that sends all tokens to the same experts takes what the plan says.
 *
 * Includes engine.c for an engine without a thread. */
#include "engine/engine.c"
#include "engine/engine_open.c"
#include "engine/engine_step.c"

#include "back/be_measure.h"
#include "base/cpu.h"
#include "checkkern.h"
#include "model/image.h"
#include "model_tiny.h"
#include "num/pack.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* --- routing ---------------------------------------------------------------------------------- */

#define TOKS_MOST    40
#define EXPERTS_MOST 130
#define USED_MOST    9

struct routing {
    struct back_route r;
    int32_t token[TOKS_MOST * USED_MOST];
    int32_t place[TOKS_MOST * USED_MOST];
    float weight[TOKS_MOST * USED_MOST];
};

static void routing_init(struct routing *o, int32_t n_expert, int32_t n_used, bool is_normed)
{
    o->r = (struct back_route){ .n_expert = n_expert,
                                .n_used = n_used,
                                .is_normed = is_normed,
                                .scale = is_normed ? 1.0f : 2.5f,
                                .token = o->token,
                                .place = o->place,
                                .weight = o->weight };
}

/* The expert of a place. */
static int32_t expert_of(const struct back_route *r, int32_t place)
{
    int32_t e = 0;
    while (r->first[e + 1] <= place) {
        e++;
    }
    return e;
}

/* How many go before e by the rule: greater ones, and equal ones with lower numbers. */
static int32_t rank_of(const float *l, int32_t n, int32_t e)
{
    int32_t rank = 0;
    for (int32_t i = 0; i < n; i++) {
        rank += l[i] > l[e] || (l[i] == l[e] && i < e);
    }
    return rank;
}

/* One token's weights, by plain loops over the kernels' exp. */
static void check_weights(const struct kern_table *k, const struct back_route *r, const float *l,
                          int32_t t)
{
    _Alignas(64) float p[(EXPERTS_MOST + 15) / 16 * 16];
    float most = l[0];
    float sum = 0.0f;
    for (int32_t e = 0; e < r->n_expert; e++) {
        most = l[e] > most ? l[e] : most;
    }
    const float all = k->exp_sum(p, l, most, r->n_expert);
    for (int32_t i = 0; i < r->n_used; i++) {
        sum += p[expert_of(r, r->place[t * r->n_used + i])];
    }
    for (int32_t i = 0; i < r->n_used; i++) {
        const float one = p[expert_of(r, r->place[t * r->n_used + i])];
        const float want = r->is_normed ? one / sum : one / all * r->scale;
        assert_memory_equal(&want, &r->weight[t * r->n_used + i], sizeof want);
    }
}

static void check_route(const struct kern_table *k, struct team *team, int32_t n_tok,
                        int32_t n_expert, int32_t n_used, bool is_normed)
{
    static _Alignas(64) float logits[TOKS_MOST * 144];
    static float was[TOKS_MOST * 144];
    struct checkkern_rand rand = { (uint64_t)(n_tok * 1000 + n_expert) };
    struct routing o;
    struct be_cpu cpu;
    struct arena step;
    const size_t ld = back_ld(n_expert);
    arena_open_counting(&step);
    be_cpu_init(&cpu, &step, team, k);
    routing_init(&o, n_expert, n_used, is_normed);
    for (size_t i = 0; i < (size_t)n_tok * ld; i++) { /* few values, so that many are equal */
        logits[i] = (float)(int32_t)(checkkern_float(&rand, CHECKKERN_PLAIN) * 4.0f) / 2.0f;
    }
    memcpy(was, logits, sizeof was);
    cpu.back.op->route(&cpu.back, &o.r, logits, n_tok);
    assert_int_equal(o.r.first[0], 0);
    assert_int_equal(o.r.first[n_expert], n_tok * n_used);
    for (int32_t t = 0; t < n_tok; t++) {
        const float *l = was + (size_t)t * ld;
        for (int32_t i = 0; i < n_used; i++) {
            const int32_t place = o.place[t * n_used + i];
            assert_int_equal(o.token[place], t);
            assert_true(i == 0 || place > o.place[t * n_used + i - 1]);
            assert_true(rank_of(l, n_expert, expert_of(&o.r, place)) < n_used);
        }
        check_weights(k, &o.r, l, t);
    }
    for (int32_t e = 0; e < n_expert; e++) {
        for (int32_t i = o.r.first[e] + 1; i < o.r.first[e + 1]; i++) {
            assert_true(o.token[i] > o.token[i - 1]);
        }
    }
}

static void test_route(void **state)
{
    (void)state;
    struct team *team = NULL;
    assert_int_equal(team_open(&team, 3), ERR_OK);
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++) {
        for (int is_normed = 0; is_normed < 2 && cpu_can((enum cpu_isa)isa); is_normed++) {
            const struct kern_table *k = kern_get((enum cpu_isa)isa);
            check_route(k, team, 1, 8, 2, is_normed != 0);
            check_route(k, team, TOKS_MOST, 128, 8, is_normed != 0);
            check_route(k, team, TOKS_MOST, EXPERTS_MOST, USED_MOST, is_normed != 0);
            check_route(k, team, 7, 4, 4, is_normed != 0);
            check_route(k, team, 7, 1, 1, is_normed != 0);
        }
    }
    team_close(team);
}

/* The two of four experts that docs/NUMERICS.md names whatever the logits are. */
static void choose_two(const float *l, int32_t *ids)
{
    ids[0] = l[1] > l[0] ? 1 : 0;
    ids[1] = 1 - ids[0];
    for (int32_t e = 2; e < 4; e++) {
        if (l[e] > l[ids[1]]) {
            const bool is_first = l[e] > l[ids[0]];
            ids[1] = is_first ? ids[0] : e;
            ids[0] = is_first ? e : ids[0];
        }
    }
}

static void check_odd(struct back *b, const float *logits, bool is_normed)
{
    _Alignas(64) float l[16];
    struct routing o;
    int32_t ids[2];
    bool has_nan = false;
    routing_init(&o, 4, 2, is_normed);
    memcpy(l, logits, sizeof l);
    b->op->route(b, &o.r, l, 1);
    choose_two(logits, ids);
    assert_int_equal(o.r.first[4], 2);
    assert_int_equal(o.place[0], 0);
    assert_int_equal(o.place[1], 1);
    assert_int_equal(expert_of(&o.r, 0), ids[0] < ids[1] ? ids[0] : ids[1]);
    assert_int_equal(expert_of(&o.r, 1), ids[0] < ids[1] ? ids[1] : ids[0]);
    for (int32_t e = 0; e < 4; e++) {
        has_nan = has_nan || (isnan(logits[e]) && (!is_normed || e == ids[0] || e == ids[1]));
    }
    if (has_nan) {
        assert_true(isnan(o.weight[0]) && isnan(o.weight[1]));
    }
}

/* Whatever the numbers, each token gets as many different experts as it uses, the same everywhere. */
static void test_odd_logits(void **state)
{
    (void)state;
    const float odd[] = { NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1.0f };
    _Alignas(64) float logits[16] = { 0 };
    struct team *team = NULL;
    struct arena step;
    struct be_cpu cpu;
    assert_int_equal(team_open(&team, 1), ERR_OK);
    arena_open_counting(&step);
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++) {
        for (int32_t n = 0; n < 6 * 6 * 6 * 6 && cpu_can((enum cpu_isa)isa); n++) {
            be_cpu_init(&cpu, &step, team, kern_get((enum cpu_isa)isa));
            for (int32_t i = 0, rest = n; i < 4; i++, rest /= 6) {
                logits[i] = odd[rest % 6];
            }
            check_odd(&cpu.back, logits, true);
            check_odd(&cpu.back, logits, false);
        }
    }
    team_close(team);
}

/* --- products --------------------------------------------------------------------------------- */

#define N_EXPERT 5
#define ROWS     40 /* two panels and a half */
#define COLS     256
#define TOKS     60
#define LD       48

struct products {
    struct be_cpu cpu;
    struct arena data;
    struct arena step;
    struct team *team;
    struct tensor w[N_EXPERT][2];
    float bias[N_EXPERT][2][ROWS];
    float *x;       /* [TOKS][COLS] */
    float *y[2];    /* [TOKS * N_EXPERT][LD] */
    float *want;    /* [LD] */
    float *want_up; /* likewise */
    int32_t rows[TOKS * N_EXPERT];
};

static float *take_floats(struct arena *a, size_t n)
{
    float *p = arena_take(a, n * sizeof *p);
    assert_non_null(p);
    return p;
}

static void products_open(struct products *p, enum quant_type type, int n_worker)
{
    struct checkkern_rand r = { 7 };
    size_t row = 0;
    assert_int_equal(arena_open(&p->data, (size_t)16 << 20, false), ERR_OK);
    assert_int_equal(arena_open(&p->step, (size_t)16 << 20, false), ERR_OK);
    assert_int_equal(team_open(&p->team, n_worker), ERR_OK);
    assert_true(quant_bytes(type, COLS, &row));
    for (int e = 0; e < N_EXPERT * 2; e++) {
        struct tensor *w = &p->w[e / 2][e % 2];
        assert_true(pack_shape(type, ROWS, COLS, w));
        uint8_t *file = arena_take(&p->data, row * ROWS);
        uint8_t *packed = arena_take(&p->data, w->bytes);
        assert_non_null(packed);
        checkkern_rows(&r, type, file, (size_t)ROWS * COLS, false);
        pack_rows(w, packed, 0, file, ROWS);
        w->data = packed;
        for (int i = 0; i < ROWS; i++) {
            p->bias[e / 2][e % 2][i] = checkkern_float(&r, CHECKKERN_PLAIN);
        }
    }
    p->x = take_floats(&p->data, (size_t)TOKS * COLS);
    for (int32_t i = 0; i < TOKS * COLS; i++) {
        p->x[i] = checkkern_float(&r, CHECKKERN_PLAIN);
    }
    p->y[0] = take_floats(&p->data, (size_t)TOKS * N_EXPERT * LD);
    p->y[1] = take_floats(&p->data, (size_t)TOKS * N_EXPERT * LD);
    p->want = take_floats(&p->data, LD);
    p->want_up = take_floats(&p->data, LD);
    be_cpu_init(&p->cpu, &p->step, p->team, kern_get(cpu_best()));
}

static void products_close(struct products *p)
{
    team_close(p->team);
    arena_close(&p->step);
    arena_close(&p->data);
}

/* One row by the kernel alone. */
static void one_product(struct products *p, int32_t e, int i, int32_t row, float *y)
{
    const struct kern_table *k = p->cpu.kern;
    const struct tensor *w = &p->w[e][i];
    struct kern_act a = { kern_act_kind_for(w->type), 1, COLS, NULL };
    const size_t mark = arena_mark(&p->step);
    a.data = arena_take(&p->step, kern_act_bytes(a.kind, 1, COLS));
    k->act_prepare(&a, p->x + (size_t)row * COLS, COLS, 0, 1);
    k->matmul(w, (struct kern_part){ 0, tensor_panels(w), 0, 1 }, &a, y, LD);
    k->add(y, p->bias[e][i], ROWS);
    arena_rewind(&p->step, mark);
}

/* Experts with n[e] tokens each (0: left out), each row of a token that no rule gives. */
static void check_experts(struct products *p, const int32_t *n, bool has_fn)
{
    struct back_expert expert[N_EXPERT];
    struct back_experts all = {
        .expert = expert, .n_out = has_fn ? 2 : 1, .has_fn = has_fn, .fn = KERN_FN_SILU, .ldx = COLS
    };
    int32_t id[N_EXPERT];
    int32_t at = 0;
    for (int32_t e = 0; e < N_EXPERT; e++) {
        if (n[e] > 0) {
            struct back_expert *x = &expert[all.n];
            *x = (struct back_expert){ .x = p->x, .rows = p->rows + at, .n_tok = n[e] };
            for (int i = 0; i < 2; i++) {
                x->out[i] =
                    (struct back_out){ &p->w[e][i], p->bias[e][i], p->y[i] + (size_t)at * LD };
            }
            id[all.n++] = e;
        }
        for (int32_t i = 0; i < n[e]; i++) {
            p->rows[at++] = (i * 7 + e * 3) % TOKS;
        }
    }
    all.n_row_most = at;
    p->cpu.back.op->experts(&p->cpu.back, &all);
    at = 0;
    for (int32_t k = 0; k < all.n; k++) {
        for (int32_t i = 0; i < expert[k].n_tok; i++, at++) {
            one_product(p, id[k], 0, p->rows[at], p->want);
            if (has_fn) {
                one_product(p, id[k], 1, p->rows[at], p->want_up);
                p->cpu.kern->glu(KERN_FN_SILU, p->want, p->want, p->want_up, ROWS);
            }
            assert_memory_equal(p->want, p->y[0] + (size_t)at * LD, ROWS * sizeof(float));
        }
    }
}

static void test_products(void **state)
{
    (void)state;
    static const int32_t n[][N_EXPERT] = { { 1, 0, 0, 0, 0 },    { 1, 1, 1, 1, 1 },
                                           { 0, 3, 0, 17, 2 },   { 60, 0, 0, 0, 0 },
                                           { 33, 1, 60, 16, 9 }, { 5, 5, 5, 5, 5 } };
    static struct products p;
    for (int i = 0; i < 4; i++) {
        products_open(&p, i / 2 == 0 ? QUANT_Q4_K : QUANT_F32, i % 2 == 0 ? 1 : 3);
        for (size_t k = 0; k < sizeof n / sizeof n[0]; k++) {
            check_experts(&p, n[k], false);
            check_experts(&p, n[k], true);
        }
        products_close(&p);
    }
}

/* One token at all experts: its row is prepared once, and read by all of them. */
static void test_one_token(void **state)
{
    (void)state;
    static struct products p;
    products_open(&p, QUANT_Q4_K, 2);
    struct back_expert expert[N_EXPERT];
    const int32_t rows[] = { 11, 11, 12, 11, 12 };
    for (int32_t e = 0; e < N_EXPERT; e++) {
        expert[e] =
            (struct back_expert){ .out = { { &p.w[e][0], p.bias[e][0], p.y[0] + (size_t)e * LD } },
                                  .x = p.x,
                                  .rows = rows + e,
                                  .n_tok = 1 };
    }
    const struct back_experts all = {
        .expert = expert, .n = N_EXPERT, .n_out = 1, .ldx = COLS, .n_row_most = N_EXPERT
    };
    p.cpu.back.op->experts(&p.cpu.back, &all);
    for (int32_t e = 0; e < N_EXPERT; e++) {
        one_product(&p, e, 0, rows[e], p.want);
        assert_memory_equal(p.want, p.y[0] + (size_t)e * LD, ROWS * sizeof(float));
    }
    products_close(&p);
}

/* --- workspace -------------------------------------------------------------------------------- */

/* n tokens at experts in any way: the same peak as be_measure's for n_row_most tokens. */
static void check_peak(struct products *p, const int32_t *n_tok, int32_t n, int32_t n_row_most)
{
    struct back_expert expert[BACK_EXPERTS_AT_ONCE];
    struct arena count;
    struct be_measure m;
    int32_t at = 0;
    for (int32_t i = 0; i < n; i++) {
        expert[i] = (struct back_expert){
            .out = { { &p->w[i % N_EXPERT][0], NULL, p->y[0] + (size_t)at * LD },
                     { &p->w[i % N_EXPERT][1], NULL, p->y[1] + (size_t)at * LD } },
            .x = p->x,
            .n_tok = n_tok[i]
        };
        at += n_tok[i];
    }
    assert_true(at <= n_row_most);
    const struct back_experts all = { .expert = expert,
                                      .n = n,
                                      .n_out = 2,
                                      .has_fn = true,
                                      .fn = KERN_FN_SILU,
                                      .ldx = COLS,
                                      .n_row_most = n_row_most };
    p->step.peak = 0;
    p->cpu.back.op->experts(&p->cpu.back, &all);
    arena_open_counting(&count);
    be_measure_init(&m, &count, 3);
    m.back.op->experts(&m.back, &all);
    assert_int_equal(p->step.peak, count.peak);
}

static void test_workspace(void **state)
{
    (void)state;
    static struct products p;
    const enum quant_type types[] = { QUANT_Q4_K, QUANT_F32, QUANT_IQ2_XXS };
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
        struct checkkern_rand r = { k };
        products_open(&p, types[k], 3);
        for (int32_t each = 1; each <= TOKS; each++) { /* as many experts with `each` as fit */
            int32_t n_tok[BACK_EXPERTS_AT_ONCE];
            const int32_t n =
                TOKS / each < BACK_EXPERTS_AT_ONCE ? TOKS / each : BACK_EXPERTS_AT_ONCE;
            for (int32_t i = 0; i < n; i++) {
                n_tok[i] = each;
            }
            check_peak(&p, n_tok, n, n * each);
            check_peak(&p, n_tok, 1, TOKS);
        }
        for (int round = 0; round < 200; round++) {
            int32_t n_tok[BACK_EXPERTS_AT_ONCE];
            int32_t n = 0;
            for (int32_t left = TOKS; left > 0 && n < BACK_EXPERTS_AT_ONCE; n++) {
                n_tok[n] = 1 + checkkern_below(&r, left);
                left -= n_tok[n];
            }
            check_peak(&p, n_tok, n, TOKS);
        }
        products_close(&p);
    }
}

/* The made-up routing: as many places as there are, none empty before the last, no expert with more
 * tokens than there are. */
static void test_evenly(void **state)
{
    (void)state;
    static const int32_t of[][2] = { { 1, 1 }, { 8, 2 }, { 128, 8 }, { 512, 10 }, { 4, 4 } };
    for (size_t k = 0; k < sizeof of / sizeof of[0]; k++) {
        int32_t last = 0;
        for (int32_t n_tok = 1; n_tok < 700; n_tok += n_tok < 40 ? 1 : 37) {
            struct back_route r = { .n_expert = of[k][0], .n_used = of[k][1] };
            int32_t n = 0;
            back_route_evenly(&r, n_tok);
            assert_int_equal(r.first[r.n_expert], n_tok * r.n_used);
            for (int32_t e = 0; e < r.n_expert; e++) {
                const int32_t each = r.first[e + 1] - r.first[e];
                assert_true(each <= n_tok && (each > 0 || r.first[e] == n_tok * r.n_used));
                n += each > 0;
            }
            assert_true(n >= last && n >= r.n_used);
            assert_true(n_tok > 1 || n == r.n_used);
            last = n;
        }
        assert_int_equal(last, of[k][0]); /* hundreds of tokens use them all */
    }
}

/* --- sums ------------------------------------------------------------------------------------- */

/* Part by part, as the decoder adds: y = fma(w, out, y) in the order of the experts, from 0. */
static void test_sums(void **state)
{
    (void)state;
    static _Alignas(64) float logits[TOKS_MOST * 16];
    static _Alignas(64) float out[TOKS_MOST * 3][LD];
    static _Alignas(64) float y[TOKS_MOST][LD];
    struct checkkern_rand rand = { 3 };
    struct routing o;
    struct arena step;
    struct be_cpu cpu;
    struct team *team = NULL;
    assert_int_equal(team_open(&team, 2), ERR_OK);
    arena_open_counting(&step);
    be_cpu_init(&cpu, &step, team, kern_get(cpu_best()));
    routing_init(&o, 6, 3, true);
    for (size_t i = 0; i < sizeof logits / sizeof logits[0]; i++) {
        logits[i] = checkkern_float(&rand, CHECKKERN_PLAIN);
    }
    for (size_t i = 0; i < TOKS_MOST * 3 * LD; i++) {
        out[i / LD][i % LD] = checkkern_float(&rand, CHECKKERN_PLAIN);
    }
    cpu.back.op->route(&cpu.back, &o.r, logits, TOKS_MOST);
    memset(y, 0xFF, sizeof y);
    const int32_t cut[] = { 0, o.r.first[1], o.r.first[4], TOKS_MOST * 3 };
    for (int i = 0; i < 3; i++) {
        cpu.back.op->add_experts(&cpu.back, y[0], out[cut[i]], &o.r, cut[i], cut[i + 1], LD,
                                 TOKS_MOST, ROWS);
    }
    for (int32_t t = 0; t < TOKS_MOST; t++) {
        for (int32_t c = 0; c < ROWS; c++) {
            float want = 0.0f;
            for (int32_t i = 0; i < 3; i++) {
                want = fmaf(o.weight[t * 3 + i], out[o.place[t * 3 + i]][c], want);
            }
            assert_memory_equal(&want, &y[t][c], sizeof want);
        }
    }
    team_close(team);
}

static void test_gate(void **state)
{
    (void)state;
    const float gates[] = { 0.0f, 1.0f, -2.5f, 90.0f, -90.0f };
    static _Alignas(64) float gate[5][16];
    static _Alignas(64) float x[5][16];
    static _Alignas(64) float y[5][16];
    struct arena step;
    struct be_cpu cpu;
    struct team *team = NULL;
    assert_int_equal(team_open(&team, 1), ERR_OK);
    arena_open_counting(&step);
    be_cpu_init(&cpu, &step, team, kern_get(cpu_best()));
    for (int i = 0; i < 5 * 16; i++) {
        gate[i / 16][i % 16] = gates[i / 16];
        x[i / 16][i % 16] = 0.25f;
        y[i / 16][i % 16] = 3.0f;
    }
    cpu.back.op->add_gated(&cpu.back, x[0], y[0], gate[0], 16, 5, 16);
    for (int t = 0; t < 5; t++) {
        const double want = 0.25 + 3.0 / (1.0 + exp(-(double)gates[t]));
        assert_true(fabs((double)x[t][5] - want) < 1e-6);
    }
    team_close(team);
}

/* --- whole models ----------------------------------------------------------------------------- */

static const struct tiny merged = {
    .template = { TINY_TEXT, sizeof TINY_TEXT - 1 }, .n_layer = 3, .n_expert = 6, .n_used = 2
};

/* model_open of one that is made as `how` says. */
static void model_of(struct model *m, const struct tiny *how)
{
    char path[64];
    const int fd = tiny_model_as(path, how);
    const enum err e = model_open(m, path, 2);
    if (e != ERR_OK) {
        fail_msg("%s", err_text());
    }
    m->fd = fd;
}

/* WE-4 */
static void test_layouts(void **state)
{
    (void)state;
    struct model a;
    struct model b;
    struct tiny apart = merged;
    apart.is_apart = true;
    model_of(&a, &merged);
    model_of(&b, &apart);
    assert_int_equal(a.weights.arena_bytes, b.weights.arena_bytes);
    assert_memory_equal(a.arena.base, b.arena.base, a.weights.arena_bytes);
    assert_int_equal(a.weights.n_param, b.weights.n_param);
    for (int32_t i = 0; i < 3; i++) {
        const struct weights *w = &a.weights;
        assert_int_equal(weights_expert_load(w, i, 6), weights_layer_load(w, i + 1));
        for (int32_t e = 0; e < 6; e++) {
            const struct weights_expert *x = &w->layer[i].expert[e];
            const size_t load = weights_expert_load(w, i, e);
            assert_ptr_equal(w->loads[load].matrix, &x->gate);
            assert_ptr_equal(w->loads[load + 1].matrix, &x->up);
            assert_ptr_equal(w->loads[load + 2].matrix, &x->down);
            assert_ptr_equal(x->gate.data, a.arena.base + w->loads[load].at);
            assert_int_equal(weights_end(w, load + 2) - w->loads[load].at,
                             x->gate.bytes + x->up.bytes + x->down.bytes);
        }
    }
    model_close(&a);
    model_close(&b);
}

static enum err gather(void *arg, const uint8_t *bytes, size_t n)
{
    buf_add(arg, bytes, n);
    return buf_check(arg, "image");
}

static void check_image(const struct tiny *how)
{
    struct model m;
    struct model packed;
    struct buf image;
    char path[64];
    buf_init(&image, (size_t)16 << 20);
    model_of(&m, how);
    assert_int_equal(image_write(&m.weights, m.gguf, m.team, gather, &image), ERR_OK);
    const int fd = memfd_create("image", MFD_CLOEXEC);
    assert_true(fd >= 0 && write(fd, image.p, image.n) == (ssize_t)image.n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (model_open(&packed, path, 2) != ERR_OK) {
        fail_msg("%s", err_text());
    }
    packed.fd = fd;
    assert_true(gguf_is_image(packed.gguf));
    assert_memory_equal(packed.arena.base, m.arena.base, m.weights.arena_bytes);
    assert_int_equal(packed.weights.layer[2].expert[5].down.data - packed.arena.base,
                     m.weights.layer[2].expert[5].down.data - m.arena.base);
    model_close(&packed);
    model_close(&m);
    buf_release(&image);
}

static void test_image(void **state)
{
    (void)state;
    struct tiny apart = merged;
    apart.is_apart = true;
    check_image(&merged);
    check_image(&apart);
}

/* What a step of n tokens takes of an engine's workspace, and what was counted for it. */
static void check_room(struct engine *e, int32_t n)
{
    struct plan_context *x = &e->x;
    struct kv_seq *seq = &x->seqs[0];
    struct decoder dry = x->decoder;
    struct arena count;
    struct be_measure m;
    float *hidden = NULL;
    assert_true(kv_seq_grow(&x->kv, seq, n));
    for (int32_t i = 0; i < n; i++) {
        e->tokens[i] = i * 7 % TINY_VOCAB;
        e->pos[i] = i;
    }
    e->runs[0] = (struct back_run){ .pages = seq->page, .n_tok = n };
    const struct decoder_step step = {
        .tokens = e->tokens, .pos = e->pos, .n_tok = n, .runs = e->runs, .n_run = 1
    };
    arena_rewind(&e->step, 0);
    e->step.peak = 0;
    assert_int_equal(decoder_forward(&x->decoder, &step, &hidden), ERR_OK);
    arena_open_counting(&count);
    be_measure_init(&m, &count, e->config.n_worker);
    dry.back = &m.back;
    assert_int_equal(decoder_forward(&dry, &step, &hidden), ERR_OK);
    const struct back_attend p = { .kv = kv_layer(&x->kv, 0) };
    const size_t slack = back_attend_worst_bytes(&p, e->config.n_worker);
    assert_true(e->step.peak <= count.peak && e->step.peak + slack >= count.peak);
    kv_seq_cut(&x->kv, seq, 0);
}

/* BA-1, where all tokens want the same experts, and where they do not. */
static void test_pushed(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct tiny how = merged;
        struct model m;
        struct plan plan;
        struct engine *e;
        how.is_pushed = i % 2 == 1;
        how.n_used = i < 2 ? 2 : 6;
        const struct plan_config c = {
            .n_ctx = 512, .n_parallel = 1, .n_queue = 1, .n_batch = 512, .n_worker = 2
        };
        model_of(&m, &how);
        if (engine_bare(&e, &m, &c, &plan) != ERR_OK) {
            fail_msg("%s", err_text());
        }
        check_room(e, 1);
        check_room(e, 3);
        check_room(e, 100);
        check_room(e, 512);
        assert_true(e->step.peak <= plan.step_bytes);
        engine_close(e);
        model_close(&m);
    }
}

/* Traffic and work of one token are those of the experts it uses. */
static void test_active(void **state)
{
    (void)state;
    struct model m;
    struct plan plan;
    struct tiny all = merged;
    struct plan plan_all;
    const struct plan_beside beside = { 0 };
    const struct plan_config c = {
        .n_ctx = 64, .n_parallel = 1, .n_queue = 1, .n_batch = 64, .n_worker = 2
    };
    const uint64_t one = 3 * TINY_EMBD * TINY_FF;
    model_of(&m, &merged);
    assert_int_equal(plan_make(&plan, &m.arch, &m.weights, &c, &beside), ERR_OK);
    model_close(&m);
    all.n_used = 6;
    model_of(&m, &all);
    assert_int_equal(plan_make(&plan_all, &m.arch, &m.weights, &c, &beside), ERR_OK);
    model_close(&m);
    assert_int_equal(plan_all.tok_ops - plan.tok_ops, 3 * 4 * one * 2);
    assert_int_equal(plan_all.step_read_bytes - plan.step_read_bytes, 3 * 4 * one * sizeof(float));
    assert_int_equal(plan_all.step_bytes >= plan.step_bytes, 1);
    assert_int_equal(plan.parallel_read_bytes, plan.step_read_bytes);
}

/* Of more answers at once those experts that are expected: 6 (1 - (2/3)^4) = 4.8 of six. */
static void test_active_together(void **state)
{
    (void)state;
    struct model m;
    struct plan plan;
    const struct plan_beside beside = { 0 };
    const struct plan_config c = {
        .n_ctx = 64, .n_parallel = 4, .n_queue = 1, .n_batch = 64, .n_worker = 2
    };
    model_of(&m, &merged);
    assert_int_equal(plan_make(&plan, &m.arch, &m.weights, &c, &beside), ERR_OK);
    model_close(&m);
    const uint64_t experts = 3 * 3 * (3 * TINY_EMBD * TINY_FF) * sizeof(float);
    const uint64_t rows = 3 * (TINY_EMBD * sizeof(float) + 2 * plan.tok_kv_bytes); /* of 3 more */
    assert_int_equal(plan.parallel_read_bytes - plan.step_read_bytes, experts + rows);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void check_refused(const struct tiny *how, enum err want, const char *text)
{
    struct model m;
    char path[64];
    const int fd = tiny_model_as(path, how);
    const enum err e = model_open(&m, path, 1);
    m.fd = fd;
    if (e != want || strstr(err_text(), text) == NULL) {
        fail_msg("%d: %s", (int)e, err_text());
    }
    model_close(&m);
}

static void test_refusals(void **state)
{
    (void)state;
    struct tiny bad = merged;
    bad.n_used = 7;
    check_refused(&bad, ERR_INTEGRITY, "llama.expert_used_count: the value is 7");
    bad.n_used = 0;
    check_refused(&bad, ERR_INTEGRITY, "llama.expert_used_count: the value is 0");
    bad = merged;
    bad.n_expert = ARCH_EXPERT_MAX + 1;
    bad.is_hollow = true;
    check_refused(&bad, ERR_INTEGRITY, "llama.expert_count: the value is 513");
    bad.n_expert = 200;
    bad.n_layer = 400;
    check_refused(&bad, ERR_LIMIT, "400 layers with 200 experts");
    bad = merged;
    bad.n_told = 5;
    check_refused(&bad, ERR_INTEGRITY,
                  "ffn_gate_inp.weight: shape 64 x 6 x 1, expected 64 x 5 x 1");
    bad.is_apart = true;
    bad.n_told = 7;
    check_refused(&bad, ERR_INTEGRITY,
                  "ffn_gate_inp.weight: shape 64 x 6 x 1, expected 64 x 7 x 1");
    bad = merged;
    bad.n_odd = 1;
    check_refused(&bad, ERR_INTEGRITY,
                  "ffn_gate_exps.weight: shape 64 x 96 x 7, expected 64 x 96 x 6");
    bad.is_apart = true;
    check_refused(&bad, ERR_UNSUPPORTED, "ffn_gate.6.weight has no place");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route),
        cmocka_unit_test(test_odd_logits),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_one_token),
        cmocka_unit_test(test_workspace),
        cmocka_unit_test(test_evenly),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_gate),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_image),
        cmocka_unit_test(test_pushed),
        cmocka_unit_test(test_active),
        cmocka_unit_test(test_active_together),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
