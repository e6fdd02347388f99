/* test_be_cpu - operations of the CPU backend that no reference data of models sees by themselves
 *
 * Products joined by an activation function: the same bits as the products and the function one
 * after the other, whoever computes which part. What operations leave on a worker's stack is what
 * the plan says (BC-2): a thread whose stack holds a pattern computes the largest attention there
 * is, on each instruction set that this machine has; the lowest byte that changed tells how deep it
 * went. */
#include "back/be_cpu.h"

#include "base/cpu.h"
#include "kern/kern.h"
#include "num/pack.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
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

#define ROWS_GLU 328 /* 20 panels and a half */
#define COLS_GLU 64
#define TOKS_GLU 70
#define LD_GLU   336

/* Weights, a bias and room for one product. */
static void make_out(struct back_out *o, struct tensor *w, struct arena *data, unsigned seed)
{
    float *rows = arena_take(data, sizeof(float) * ROWS_GLU * COLS_GLU);
    float *bias = arena_take(data, sizeof(float) * ROWS_GLU);
    assert_true(pack_shape(QUANT_F32, ROWS_GLU, COLS_GLU, w));
    uint8_t *packed = arena_take(data, w->bytes);
    o->y = arena_take(data, sizeof(float) * TOKS_GLU * LD_GLU);
    assert_non_null(o->y);
    for (unsigned i = 0; i < ROWS_GLU * COLS_GLU; i++) {
        rows[i] = (float)((i + seed) * 2654435761u % 2001u) / 1000.0f - 1.0f;
        bias[i / COLS_GLU] = rows[i];
    }
    pack_rows(w, packed, 0, (const uint8_t *)rows, ROWS_GLU);
    w->data = packed;
    o->w = w;
    o->bias = bias;
}

static void check_glu(struct back *b, const struct kern_table *k, const struct back_out *out,
                      int32_t n_out, int32_t n_tok)
{
    float x[TOKS_GLU * COLS_GLU];
    float want[TOKS_GLU * ROWS_GLU];
    for (int32_t i = 0; i < TOKS_GLU * COLS_GLU; i++) {
        x[i] = (float)(i * 37 % 1001) / 500.0f - 1.0f;
    }
    b->op->matmul(b, out, n_out, x, COLS_GLU, n_tok);
    for (int32_t t = 0; t < n_tok; t++) {
        k->glu(KERN_FN_SILU, want + (size_t)t * ROWS_GLU, out[0].y + (size_t)t * LD_GLU,
               n_out > 1 ? out[1].y + (size_t)t * LD_GLU : NULL, ROWS_GLU);
        memset(out[0].y + (size_t)t * LD_GLU, 0, LD_GLU * sizeof(float));
    }
    b->op->matmul_glu(b, KERN_FN_SILU, out, n_out, x, COLS_GLU, n_tok);
    for (int32_t t = 0; t < n_tok; t++) {
        assert_memory_equal(out[0].y + (size_t)t * LD_GLU, want + (size_t)t * ROWS_GLU,
                            ROWS_GLU * sizeof(float));
    }
}

static void test_glu(void **state)
{
    (void)state;
    const int32_t toks[] = { 1, 5, TOKS_GLU };
    const struct kern_table *k = kern_get(cpu_best());
    struct arena data;
    struct arena step;
    struct team *team = NULL;
    struct be_cpu cpu;
    struct back_out out[2];
    struct tensor w[2];
    assert_int_equal(arena_open(&data, (size_t)4 << 20, false), ERR_OK);
    assert_int_equal(arena_open(&step, (size_t)1 << 20, false), ERR_OK);
    assert_int_equal(team_open(&team, 3), ERR_OK);
    make_out(&out[0], &w[0], &data, 1);
    make_out(&out[1], &w[1], &data, 2);
    be_cpu_init(&cpu, &step, team, k);
    for (size_t i = 0; i < sizeof toks / sizeof toks[0]; i++) {
        check_glu(&cpu.back, k, out, 1, toks[i]);
        check_glu(&cpu.back, k, out, 2, toks[i]);
    }
    team_close(team);
    arena_close(&step);
    arena_close(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_glu), cmocka_unit_test(test_stack) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
