/* test_predict - predicted speeds are numbers, follow the memory, and end where the room does
 *
 * No speed is asserted: those depend on the machine (bench/predict.py compares them with measured
 * ones). What was tried once is not tried again, so that here only the memory's part changes; it is
 * made so slow that it decides. */
#include "engine/predict.h"

#include "gguf_tiny.h"
#include "model/gguf.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define SLOW 1e-5 /* GB/s */

static struct {
    struct gguf *gguf;
    struct arch arch;
    struct weights weights;
    struct team *team;
    struct be_time time;
    struct plan_config config;
} m;

static int setup(void **state)
{
    (void)state;
    char path[64];
    const int fd = tiny_model(path);
    enum err e = gguf_open(&m.gguf, path);
    e = e == ERR_OK ? arch_read(&m.arch, m.gguf) : e;
    e = e == ERR_OK ? weights_bind(&m.weights, &m.arch, m.gguf) : e;
    e = e == ERR_OK ? team_open(&m.team, 2) : e;
    e = e == ERR_OK ? be_time_init(&m.time, m.team, kern_get(cpu_best()), SLOW) : e;
    m.config = (struct plan_config){
        .n_ctx = m.arch.n_ctx_train, .n_parallel = 4, .n_queue = 1, .n_batch = 64, .n_worker = 2
    };
    close(fd);
    return (int)e;
}

static int teardown(void **state)
{
    (void)state;
    be_time_release(&m.time);
    team_close(m.team);
    weights_release(&m.weights);
    gguf_close(m.gguf);
    return 0;
}

static struct predict ask(int32_t n_prompt, int32_t n_depth, int32_t n_parallel)
{
    struct predict p = { .n_prompt = n_prompt, .n_depth = n_depth, .n_parallel = n_parallel };
    const enum err e = predict_speed(&m.arch, &m.weights, &m.config, &m.time, &p, 1);
    if (e != ERR_OK) {
        print_error("%s\n", err_text());
    }
    assert_int_equal(e, ERR_OK);
    assert_true(isfinite(p.prefill_tok_s) && isfinite(p.decode_tok_s)); /* PT-1 */
    assert_true(n_prompt > 0 ? p.prefill_tok_s > 0.0 : p.prefill_tok_s == 0.0);
    assert_true(n_parallel > 0 ? p.decode_tok_s > 0.0 : p.decode_tok_s == 0.0);
    return p;
}

static void test_asked(void **state)
{
    (void)state;
    ask(1, 0, 0);
    ask(64, 0, 1);
    ask(65, 0, 0);
    ask(1000, 0, 0); /* pieces and a rest */
    ask(0, 0, 0);
    ask(0, 100, 4);
    ask(0, 0, 256);
    ask(64, ARCH_CTX_MAX, 1); /* not within the context */
}

/* Each by itself: memory, positions before, conversations. */
static void test_follows(void **state)
{
    (void)state;
    const struct predict few = ask(64, 16, 1);
    const struct predict deep = ask(64, 4096, 1);
    const struct predict deeper = ask(64, 8192, 1);
    assert_true(deep.decode_tok_s < few.decode_tok_s / 2.0);
    assert_true(deeper.decode_tok_s < deep.decode_tok_s / 1.5);
    assert_true(deep.prefill_tok_s < few.prefill_tok_s &&
                deeper.prefill_tok_s < deep.prefill_tok_s);
    const struct predict many = ask(0, 16, 4);
    assert_true(many.decode_tok_s > 2.0 * few.decode_tok_s); /* weights are read once for all */
    m.time.read_gb_s = 100.0 * SLOW;
    const struct predict faster = ask(64, 16, 1);
    m.time.read_gb_s = 200.0 * SLOW;
    const struct predict fastest = ask(64, 16, 1);
    m.time.read_gb_s = SLOW;
    assert_true(faster.decode_tok_s > 10.0 * few.decode_tok_s);
    assert_true(fastest.decode_tok_s > faster.decode_tok_s);
    assert_true(fastest.prefill_tok_s > faster.prefill_tok_s);
    assert_true(ask(64, 16, 1).decode_tok_s == few.decode_tok_s);
}

/* Scores belong to the last piece of a prompt: a larger vocabulary costs two pieces what it costs
 * one. */
static void test_scores(void **state)
{
    (void)state;
    const struct tensor output = m.weights.output;
    double us[2][2]; /* [pieces][vocabulary] */
    for (int i = 0; i < 2; i++) {
        us[0][i] = 64.0 / ask(64, 0, 0).prefill_tok_s;
        us[1][i] = 128.0 / ask(128, 0, 0).prefill_tok_s;
        m.weights.output.bytes += 1 << 20; /* of memory, which decides */
    }
    m.weights.output = output;
    const double more = us[0][1] - us[0][0];
    assert_true(more > 0.0);
    assert_true(fabs(us[1][1] - us[1][0] - more) < 0.01 * more);
}

/* A step is as long as reading from the disk, if that takes longer than the rest. */
static void test_disk(void **state)
{
    (void)state;
    const struct predict without = ask(640, 16, 4);
    struct predict p = {
        .n_prompt = 640, .n_depth = 16, .n_parallel = 4, .disk_us = 1e-3, .piece_disk_us = 1e-3
    };
    assert_int_equal(predict_speed(&m.arch, &m.weights, &m.config, &m.time, &p, 1), ERR_OK);
    assert_true(p.prefill_tok_s == without.prefill_tok_s && p.decode_tok_s == without.decode_tok_s);
    p.disk_us = 1e12;
    p.piece_disk_us = 1e12;
    assert_int_equal(predict_speed(&m.arch, &m.weights, &m.config, &m.time, &p, 1), ERR_OK);
    assert_true(fabs(p.prefill_tok_s * 1e6 - 64.0) < 1e-3);
    assert_true(fabs(p.decode_tok_s * 1e6 - 4.0) < 1e-3);
    p.disk_us = 1e6; /* what four tokens want of 64e6 that all can */
    p.piece_disk_us = 64e6;
    p.is_late = true;
    const double all_us = 64e6 * (1.0 - pow(63.0 / 64.0, 4.0)); /* less than four of 1e6 */
    assert_int_equal(predict_speed(&m.arch, &m.weights, &m.config, &m.time, &p, 1), ERR_OK);
    assert_true(all_us < 3.95e6);
    assert_true(fabs(4e6 / p.decode_tok_s - 4e6 / without.decode_tok_s - all_us) < 1e3);
}

/* A step whose tokens want most of what can be wanted is read ahead, however many answers it has:
 * the longer of the two counts. */
static void test_read_ahead(void **state)
{
    (void)state;
    const struct predict without = ask(0, 16, 64);
    const double us = 64e6 / without.decode_tok_s;
    struct predict p = { .n_depth = 16, .n_parallel = 64, .is_late = true };
    p.piece_disk_us = us / 2.0;
    p.disk_us = us / 8.0;
    assert_int_equal(predict_speed(&m.arch, &m.weights, &m.config, &m.time, &p, 1), ERR_OK);
    assert_true(p.decode_tok_s == without.decode_tok_s);
    p.disk_us = us / 512.0; /* 0.22 of it */
    assert_int_equal(predict_speed(&m.arch, &m.weights, &m.config, &m.time, &p, 1), ERR_OK);
    assert_true(p.decode_tok_s < 0.95 * without.decode_tok_s);
}

/* A disk that goes on only when it is looked at rests behind what it has in flight: not at all
 * where that is plenty, all the time but half of it where an operation takes longer by far. */
static void test_rest(void **state)
{
    (void)state;
    const struct predict without = ask(64, 16, 0);
    const double us = 64e6 / without.prefill_tok_s;
    struct predict p = { .n_prompt = 64, .n_depth = 16, .disk_us = 10.0 * us };
    p.piece_disk_us = p.disk_us;
    p.fly_us = 1e9 * us;
    assert_int_equal(predict_speed(&m.arch, &m.weights, &m.config, &m.time, &p, 1), ERR_OK);
    assert_true(fabs(64e6 / p.prefill_tok_s / us - 10.0) < 1e-3);
    p.fly_us = 1e-9;
    assert_int_equal(predict_speed(&m.arch, &m.weights, &m.config, &m.time, &p, 1), ERR_OK);
    assert_true(fabs(64e6 / p.prefill_tok_s / us - 11.0) < 1e-2); /* one after the other */
}

/* Experts in parts, between which the disk is looked at. */
static void test_looks(void **state)
{
    (void)state;
    struct be_time *t = calloc(1, sizeof *t);
    struct tensor w;
    struct back_expert expert[8];
    assert_non_null(t);
    assert_int_equal(be_time_init(t, m.team, kern_get(cpu_best()), SLOW), ERR_OK);
    assert_true(pack_shape(QUANT_Q4_K, 64, 256, &w));
    for (int i = 0; i < 8; i++) {
        expert[i] = (struct back_expert){ .out = { { .w = &w } }, .n_tok = 1 };
    }
    const struct back_experts all = { .expert = expert, .n = 8, .n_out = 1 };
    double us[9] = { 0.0 };
    for (int n = 1; n <= 8; n *= 2) {
        be_time_begin(t);
        t->n_look = n;
        t->fly_us = 1e9;
        t->back.op->experts(&t->back, &all);
        us[n] = t->rest_us;
    }
    assert_true(us[1] > 0.0); /* of half as long parts, each rests a quarter as long */
    assert_true(fabs(us[2] / us[1] - 2.0) < 1e-6 && fabs(us[4] / us[1] - 4.0) < 1e-6);
    assert_true(fabs(us[8] / us[1] - 8.0) < 1e-6);
    be_time_release(t);
    free(t);
}

static void test_union(void **state)
{
    (void)state;
    assert_true(predict_read(0.0, 0.0, 5) == 0.0);
    assert_true(predict_read(7.0, 7.0, 5) == 7.0); /* layers: all tokens want the same */
    assert_true(fabs(predict_read(8.0, 128.0, 1) - 8.0) < 1e-9);
    assert_true(fabs(predict_read(8.0, 128.0, 8) - 51.62) < 0.01); /* of 64 that eight choose */
    assert_true(fabs(predict_read(8.0, 128.0, 512) - 128.0) < 1e-3);
}

static enum err refused(int32_t n_prompt, int32_t n_depth, int32_t n_parallel)
{
    struct predict p = { .n_prompt = n_prompt,
                         .n_depth = n_depth,
                         .n_parallel = n_parallel,
                         .prefill_tok_s = 7.0,
                         .decode_tok_s = 7.0 };
    const enum err e = predict_speed(&m.arch, &m.weights, &m.config, &m.time, &p, 1);
    assert_true(p.prefill_tok_s == 7.0 && p.decode_tok_s == 7.0);
    return e;
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(refused(-1, 0, 0), ERR_USAGE);
    assert_int_equal(refused(ARCH_CTX_MAX + 1, 0, 0), ERR_USAGE);
    assert_int_equal(refused(0, -1, 1), ERR_USAGE);
    assert_int_equal(refused(0, 0, -1), ERR_USAGE);
    assert_int_equal(refused(0, 0, 257), ERR_LIMIT);
    m.time.read_gb_s = 0.0; /* nothing is divided by it unseen */
    assert_int_equal(refused(64, 0, 0), ERR_LIMIT);
    assert_int_equal(refused(0, 0, 1), ERR_LIMIT);
    m.time.read_gb_s = SLOW;
}

/* One product on a backend of its own. */
static void multiply(struct be_time *t, const struct tensor *w, int32_t n_tok)
{
    const struct back_out out = { .w = w };
    t->back.op->matmul(&t->back, &out, 1, NULL, back_ld(w->n_col), n_tok);
}

static void test_all_types(void **state)
{
    (void)state;
    struct be_time *t = calloc(1, sizeof *t);
    assert_non_null(t);
    assert_int_equal(be_time_init(t, m.team, kern_get(cpu_best()), 1e6), ERR_OK);
    for (uint32_t type = 0; type < QUANT_TYPE_COUNT; type++) {
        struct tensor w;
        if (pack_shape(type, 4096, 256, &w)) {
            be_time_begin(t);
            multiply(t, &w, 1);
            const double one = t->us;
            multiply(t, &w, 40);
            assert_true(one > 0.0 && isfinite(t->us) && t->us > one && !t->is_beyond);
        }
    }
    be_time_release(t);
    free(t);
}

/* Eight of Mixtral's experts with a piece of 1,024 tokens: fewer are tried than 40 MiB hold. */
static void test_large_experts(void **state)
{
    (void)state;
    struct be_time *t = calloc(1, sizeof *t);
    struct tensor w;
    struct back_expert expert[8];
    double us[2];
    assert_non_null(t);
    assert_int_equal(be_time_init(t, m.team, kern_get(cpu_best()), 1e6), ERR_OK);
    assert_true(pack_shape(QUANT_Q4_K, 4096, 14336, &w));
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 8; i++) {
            expert[i] = (struct back_expert){ .out = { { .w = &w } }, .n_tok = 256 << k };
        }
        const struct back_experts all = { .expert = expert, .n = 8, .n_out = 1 };
        be_time_begin(t);
        t->back.op->experts(&t->back, &all);
        assert_false(t->is_beyond);
        us[k] = t->us;
    }
    assert_true(us[0] > 0.0 && us[1] > 0.0);
    be_time_release(t);
    free(t);
}

/* BM-1: what a file may state, but no room holds; and more shapes than are tried. */
static void test_bounds(void **state)
{
    (void)state;
    struct be_time *t = calloc(1, sizeof *t);
    struct tensor w;
    assert_non_null(t);
    assert_int_equal(be_time_init(t, m.team, kern_get(cpu_best()), 1.0), ERR_OK);
    assert_true(pack_shape(QUANT_F32, 64, 1 << 18, &w));
    multiply(t, &w, 256);
    assert_true(t->is_beyond);
    t->is_beyond = false;
    for (int32_t i = 1; i < BE_TIME_TRIES; i++) {
        assert_true(pack_shape(QUANT_F32, 16 * i, 32, &w));
        multiply(t, &w, 1);
        assert_false(t->is_beyond);
    }
    assert_true(pack_shape(QUANT_F32, 16 * BE_TIME_TRIES, 32, &w));
    multiply(t, &w, 1);
    assert_true(t->is_beyond && t->n_try == BE_TIME_TRIES);
    t->is_beyond = false;
    assert_true(pack_shape(QUANT_F32, 16, 32, &w)); /* known */
    multiply(t, &w, 1);
    assert_false(t->is_beyond);
    be_time_release(t);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asked),         cmocka_unit_test(test_follows),
        cmocka_unit_test(test_scores),        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_read_ahead),    cmocka_unit_test(test_rest),
        cmocka_unit_test(test_looks),         cmocka_unit_test(test_union),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_all_types),
        cmocka_unit_test(test_large_experts), cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
