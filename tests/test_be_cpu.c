/* test_be_cpu - operations of the CPU backend that no reference data of models sees by themselves
 *
 * Products, alone and joined by an activation function: the same bits as one call of the kernel,
 * the bias and the function one after the other, whoever computes which part. What operations leave
 * on a worker's stack is what the plan says (BC-2): a thread whose stack holds a pattern computes
 * the largest attention there is, on each instruction set that this machine has; the lowest byte
 * that changed tells how deep it went. */
#include "back/be_cpu.h"

#include "base/cpu.h"
#include "checkkern.h"
#include "kern/kern.h"
#include "num/pack.h"

#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define PATTERN 0xA5
#define N_TOK   600 /* three spans: partial results are merged */
#define N_PAGE  ((N_TOK + KERN_PAGE - 1) / KERN_PAGE)

#ifdef __SANITIZE_ADDRESS__
#define IS_SANITIZED true /* frames are padded */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED true
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED false
#endif

struct work {
    struct be_cpu cpu;
    struct back_attend attend;
    float *q, *y;
};

static void *compute(void *arg)
{
    struct work *w = arg;
    w->cpu.back.op->attend(&w->cpu.back, &w->attend, w->y, w->q);
    return NULL;
}

/* Bytes of its stack that the thread wrote to. */
static size_t depth_of(struct work *w)
{
    pthread_attr_t attr;
    pthread_t thread;
    uint8_t *stack = NULL;
    struct arena room;
    assert_int_equal(arena_open(&room, TEAM_STACK_BYTES, false), ERR_OK);
    stack = arena_take(&room, TEAM_STACK_BYTES);
    memset(stack, PATTERN, TEAM_STACK_BYTES);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, TEAM_STACK_BYTES), 0);
    assert_int_equal(pthread_create(&thread, &attr, compute, w), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
    size_t n_free = 0;
    while (n_free < TEAM_STACK_BYTES && stack[n_free] == PATTERN) {
        n_free++;
    }
    arena_close(&room);
    return TEAM_STACK_BYTES - n_free;
}

static void check_depth(enum cpu_isa isa, enum kern_kv kv)
{
    int32_t pages[N_PAGE];
    for (int32_t i = 0; i < N_PAGE; i++) {
        pages[i] = i;
    }
    const struct back_run run = { .pages = pages, .n_tok = 1, .pos0 = N_TOK - 1 };
    struct work w = { .attend = { .kv = { .kind = kv,
                                          .k_head = kern_kv_k_bytes(kv, KERN_HEAD_MAX),
                                          .v_head = kern_kv_v_bytes(kv, KERN_HEAD_MAX),
                                          .n_kv = 1,
                                          .hd_k = KERN_HEAD_MAX,
                                          .hd_v = KERN_HEAD_MAX },
                                  .runs = &run,
                                  .n_run = 1,
                                  .n_tok = 1,
                                  .n_head = KERN_QUERIES,
                                  .scale = 1.0f } };
    struct back_kv *c = &w.attend.kv;
    c->k_page = c->k_head;
    c->v_page = c->v_head;
    struct arena data;
    struct arena step;
    struct team *team = NULL;
    assert_int_equal(arena_open(&data, (size_t)16 << 20, false), ERR_OK);
    assert_int_equal(arena_open(&step, (size_t)4 << 20, false), ERR_OK);
    assert_int_equal(team_open(&team, 1), ERR_OK);
    c->k = arena_take(&data, c->k_page * N_PAGE);
    c->v = arena_take(&data, c->v_page * N_PAGE);
    w.q = arena_take(&data, sizeof(float) * KERN_QUERIES * KERN_HEAD_MAX);
    w.y = arena_take(&data, sizeof(float) * KERN_QUERIES * KERN_HEAD_MAX);
    assert_non_null(w.y);
    be_cpu_init(&w.cpu, &step, team, kern_get(isa));
    assert_false(
        back_attend_cut(&w.attend, 1).is_by_span); /* else partial results lie in the arena */
    const size_t depth = depth_of(&w);
    print_message("# %s %s: %zu bytes of stack\n", cpu_isa_name(isa), kern_kv_name(kv), depth);
    assert_true(depth >= BE_CPU_STACK_BYTES / 2);
    assert_true(IS_SANITIZED || depth <= BE_CPU_STACK_BYTES); /* BC-2 */
    team_close(team);
    arena_close(&step);
    arena_close(&data);
}

static void test_stack(void **state)
{
    (void)state;
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++) {
        for (int kv = 0; kv < KERN_KV_COUNT && cpu_can((enum cpu_isa)isa); kv++) {
            check_depth((enum cpu_isa)isa, (enum kern_kv)kv);
        }
    }
}

#define ROWS_GLU 328  /* 20 panels and a half */
#define COLS_GLU 4096 /* so many that TOKS_GLU tokens of floats fill more than a block */
#define TOKS_GLU 70
#define LD_GLU   336
#define N_OUT    2

/* A backend, matrices for it, and what the kernels alone make of them. */
struct products {
    struct be_cpu cpu;
    struct arena data, step;
    struct team *team;
    struct tensor w[N_OUT];
    struct back_out out[N_OUT];
    float *x;           /* [TOKS_GLU][COLS_GLU] */
    float *want[N_OUT]; /* [TOKS_GLU][LD_GLU] */
};

static float *take_floats(struct arena *a, size_t n)
{
    float *p = arena_take(a, n * sizeof *p);
    assert_non_null(p);
    return p;
}

/* Weights, a bias and room for one product. */
static void make_out(struct products *p, int i, enum quant_type type)
{
    struct checkkern_rand r = { (uint64_t)i + 1 };
    size_t row = 0;
    assert_true(quant_bytes(type, COLS_GLU, &row));
    assert_true(pack_shape(type, ROWS_GLU, COLS_GLU, &p->w[i]));
    uint8_t *rows = arena_take(&p->data, row * ROWS_GLU);
    uint8_t *packed = arena_take(&p->data, p->w[i].bytes);
    float *bias = take_floats(&p->data, ROWS_GLU);
    assert_non_null(packed);
    checkkern_rows(&r, type, rows, (size_t)ROWS_GLU * COLS_GLU, false);
    pack_rows(&p->w[i], packed, 0, rows, ROWS_GLU);
    for (int k = 0; k < ROWS_GLU; k++) {
        bias[k] = checkkern_float(&r, CHECKKERN_PLAIN);
    }
    p->w[i].data = packed;
    p->want[i] = take_floats(&p->data, (size_t)TOKS_GLU * LD_GLU);
    p->out[i] = (struct back_out){ &p->w[i], bias, take_floats(&p->data, TOKS_GLU * LD_GLU) };
}

static void products_open(struct products *p, enum quant_type first, enum quant_type second,
                          const struct kern_table *k, int n_worker)
{
    *p = (struct products){ .x = NULL };
    assert_int_equal(arena_open(&p->data, (size_t)64 << 20, false), ERR_OK);
    assert_int_equal(arena_open(&p->step, (size_t)8 << 20, false), ERR_OK);
    assert_int_equal(team_open(&p->team, n_worker), ERR_OK);
    make_out(p, 0, first);
    make_out(p, 1, second);
    p->x = take_floats(&p->data, (size_t)TOKS_GLU * COLS_GLU);
    for (int32_t i = 0; i < TOKS_GLU * COLS_GLU; i++) {
        p->x[i] = (float)(i * 37 % 1001) / 500.0f - 1.0f;
    }
    be_cpu_init(&p->cpu, &p->step, p->team, k);
}

static void products_close(struct products *p)
{
    team_close(p->team);
    arena_close(&p->step);
    arena_close(&p->data);
}

/* want[i] = x W[i] + bias, in one call of the kernel. */
static void products_want(struct products *p, int i, int32_t n_tok)
{
    const struct kern_table *k = p->cpu.kern;
    const struct tensor *w = &p->w[i];
    struct kern_act a = { kern_act_kind_for(w->type), n_tok, COLS_GLU, NULL };
    const size_t mark = arena_mark(&p->step);
    a.data = arena_take(&p->step, kern_act_bytes(a.kind, n_tok, COLS_GLU));
    assert_non_null(a.data);
    k->act_prepare(&a, p->x, COLS_GLU, 0, kern_act_tiles(n_tok));
    k->matmul(w, (struct kern_part){ 0, tensor_panels(w), 0, kern_act_tiles(n_tok) }, &a,
              p->want[i], LD_GLU);
    for (int32_t t = 0; t < n_tok; t++) {
        k->add(p->want[i] + (size_t)t * LD_GLU, p->out[i].bias, ROWS_GLU);
    }
    arena_rewind(&p->step, mark);
}

/* Nothing that is left of a result passes for one: all bits set are no number. */
static void products_erase(struct products *p)
{
    for (int i = 0; i < N_OUT; i++) {
        memset(p->out[i].y, 0xFF, (size_t)TOKS_GLU * LD_GLU * sizeof(float));
    }
}

static void check_result(const struct products *p, int i, int32_t n_tok)
{
    const float *y = p->out[i].y;
    for (int32_t t = 0; t < n_tok; t++) {
        assert_memory_equal(y + (size_t)t * LD_GLU, p->want[i] + (size_t)t * LD_GLU,
                            ROWS_GLU * sizeof(float));
    }
    for (size_t k = (size_t)n_tok * LD_GLU; k < (size_t)TOKS_GLU * LD_GLU; k++) {
        assert_memory_equal(y + k, "\xFF\xFF\xFF\xFF", sizeof(float));
    }
}

/* The first n_out products by themselves, then joined by an activation function. */
static void check_products(struct products *p, int32_t n_out, int32_t n_tok, bool has_glu)
{
    struct back *b = &p->cpu.back;
    products_erase(p);
    b->op->matmul(b, p->out, n_out, p->x, COLS_GLU, n_tok);
    for (int32_t i = 0; i < n_out; i++) {
        products_want(p, i, n_tok);
        check_result(p, i, n_tok);
    }
    if (!has_glu) {
        return;
    }
    products_erase(p);
    b->op->matmul_glu(b, KERN_FN_SILU, p->out, n_out, p->x, COLS_GLU, n_tok);
    for (int32_t t = 0; t < n_tok; t++) {
        float *want = p->want[0] + (size_t)t * LD_GLU;
        const float *up = n_out > 1 ? p->want[1] + (size_t)t * LD_GLU : NULL;
        p->cpu.kern->glu(KERN_FN_SILU, want, want, up, ROWS_GLU);
    }
    check_result(p, 0, n_tok);
}

/* One tile, two, three; more tokens than a block has, of types whose blocks differ. */
static void test_products(void **state)
{
    (void)state;
    const int32_t toks[] = { 1, 5, 17, 48, TOKS_GLU };
    const enum quant_type types[] = { QUANT_F32, QUANT_Q4_0 };
    assert_true(kern_act_tiles_at_once(KERN_ACT_F32, COLS_GLU) < kern_act_tiles(TOKS_GLU));
    for (size_t i = 0; i < 4; i++) {
        struct products p;
        const enum quant_type type = types[i / 2];
        products_open(&p, type, type, kern_get(cpu_best()), i % 2 == 0 ? 1 : 3);
        for (size_t k = 0; k < sizeof toks / sizeof toks[0]; k++) {
            check_products(&p, 1, toks[k], true);
            check_products(&p, 2, toks[k], true);
        }
        products_close(&p);
    }
}

/* Two forms of the same input in one line. */
static void test_kinds(void **state)
{
    (void)state;
    struct products p;
    products_open(&p, QUANT_Q4_0, QUANT_F32, kern_get(cpu_best()), 3);
    check_products(&p, 2, 48, false);
    check_products(&p, 2, TOKS_GLU, false);
    products_close(&p);
}

/* What the kernel was asked for: instead of computing it takes notes. */
static struct {
    _Atomic int n_seen[N_OUT][LD_GLU / 16][(TOKS_GLU + KERN_TILE - 1) / KERN_TILE];
    _Atomic int n_part;
    _Atomic int n_lone; /* parts with a panel that has no other, but for those that end a matrix */
    _Atomic int least_tiles;
    _Atomic int most_tiles;
    const struct tensor *w;
} notes;

static void note(const struct tensor *w, struct kern_part p, const struct kern_act *a, float *y,
                 size_t ldy)
{
    (void)y, (void)ldy;
    const int n = p.tile1 - p.tile0;
    assert(0 <= p.panel0 && p.panel0 < p.panel1 && p.panel1 <= tensor_panels(w));
    assert(0 <= p.tile0 && p.tile0 < p.tile1 && p.tile1 <= kern_act_tiles(a->n_tok));
    for (int32_t i = p.panel0; i < p.panel1; i++) {
        for (int32_t t = p.tile0; t < p.tile1; t++) {
            notes.n_seen[w - notes.w][i][t]++;
        }
    }
    for (int was = notes.least_tiles; n < was;) {
        (void)atomic_compare_exchange_weak(&notes.least_tiles, &was, n);
    }
    for (int was = notes.most_tiles; n > was;) {
        (void)atomic_compare_exchange_weak(&notes.most_tiles, &was, n);
    }
    notes.n_lone += (p.panel1 - p.panel0) % KERN_PANELS != 0 && p.panel1 < tensor_panels(w);
    notes.n_part++;
}

static void take_notes(struct products *p, int32_t n_out, int32_t n_tok)
{
    struct back *b = &p->cpu.back;
    memset(&notes, 0, sizeof notes);
    notes.w = p->w;
    notes.least_tiles = INT32_MAX;
    b->op->matmul(b, p->out, n_out, p->x, COLS_GLU, n_tok);
    for (int32_t i = 0; i < n_out; i++) {
        for (int32_t panel = 0; panel < tensor_panels(&p->w[i]); panel++) {
            for (int32_t t = 0; t < kern_act_tiles(n_tok); t++) {
                assert_int_equal(notes.n_seen[i][panel][t], 1);
            }
        }
    }
}

/* Up to 64 tokens the weights are read once; beyond, a block has no more tiles than the greater of
 * two forms allows. Panels of one matrix stay in pairs, over the borders of blocks, too. */
static void test_blocks(void **state)
{
    (void)state;
    struct products p;
    struct kern_table k = *kern_get(cpu_best());
    const int32_t at_once = kern_act_tiles_at_once(KERN_ACT_F32, COLS_GLU);
    k.matmul = note;
    products_open(&p, QUANT_Q4_0, QUANT_F32, &k, 3);
    take_notes(&p, 2, TOKS_GLU);
    assert_true(notes.most_tiles <= at_once);
    assert_true(notes.n_part > 6);
    take_notes(&p, 1, TOKS_GLU);
    assert_int_equal(notes.n_lone, 0);
    for (int32_t n_tok = 1; n_tok <= 64; n_tok += 21) {
        take_notes(&p, 2, n_tok);
        assert_int_equal(notes.least_tiles, kern_act_tiles(n_tok));
    }
    products_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_products),
                                        cmocka_unit_test(test_kinds), cmocka_unit_test(test_blocks),
                                        cmocka_unit_test(test_stack) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
