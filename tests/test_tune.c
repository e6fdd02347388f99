/* test_tune - what `hearth tune` chooses, against a box whose speeds and clock the test owns
 *
 * Includes cmd_tune.c and what it uses: on a real box a speed that changes between two measurements
 * cannot be had when it is wanted. The box here has 4 cores of 2 logical processors each, so it is
 * tried with 4, 3, 2 and 8 threads (and one a fast core) and then with two other pieces. A world is a short table: a
 * setting, from which of its measurements on, and how fast it is then. */
#include "cmd/trial.c"

#include "base/cpu.h"
#include "base/topo.h"

static struct cpu_info box_cpu = { .n_core = 8 };
static int32_t box_fast = 4;
static uint64_t step_read_bytes = 1000000000; /* of the model */
static int32_t no_plan_batch;                 /* pieces for which not even a plan has memory */
#define cpu_get()      (&box_cpu)
#define topo_threads() 4
#define topo_fast()    box_fast
#include "cmd/cmd_tune.c"
#include "cmd/progress.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define USUAL_TOK_S 100.0 /* of what has no row */
#define FAST        1000.0
#define DEFAULTS    4, 512

struct speed {
    int32_t n_thread, n_batch;
    int first; /* measurement of this setting from which on the row holds; the last such row counts */
    double prefill_tok_s, decode_tok_s;
    hearth_status status; /* of opening it */
};

static struct world {
    const struct speed *rows;
    int n_row;
    uint64_t now_us;
    uint64_t cost_us; /* of loading a model */
    double times;     /* as fast as the rows say */
    int64_t n_prompt; /* of the last request */
    int32_t n_answer;
    int32_t n_thread, n_batch;
    int n_defaults; /* times that the defaults were opened */
    int n_open;
    int n_left_open;
    struct tuned stored;
    bool is_stored;
    struct speed now; /* of the model that is open */
} world;

static uint64_t world_now_us(void)
{
    return world.now_us;
}

static double cores_had = 4.0; /* of those that the threads of the defaults want */

static uint64_t world_cpu_us(void)
{
    return (uint64_t)((double)world.now_us * cores_had);
}

hearth_status hearth_box_open(const struct hearth_box_params *p, struct hearth_box **out)
{
    (void)out;
    world.n_thread = p->n_thread;
    return HEARTH_OK;
}

void hearth_box_init(struct hearth_box_params *p)
{
    *p = (struct hearth_box_params){ .size = sizeof *p };
}

void hearth_box_close(struct hearth_box *box)
{
    (void)box;
}

void hearth_model_init(struct hearth_model_params *p)
{
    *p = (struct hearth_model_params){ .size = sizeof *p };
}

hearth_status hearth_plan_make(struct hearth_box *box, const char *path,
                               const struct hearth_model_params *p, struct hearth_plan *out)
{
    (void)box;
    (void)path;
    out->n_batch = p->n_batch;
    if (world.n_open > 0 && p->n_batch == no_plan_batch) {
        world.now.status = HEARTH_MEMORY; /* nothing is open */
        return HEARTH_MEMORY;
    }
    out->n_ctx = p->n_ctx > 0 ? p->n_ctx : 4096;
    out->step_read_bytes = step_read_bytes;
    return HEARTH_OK;
}

hearth_status hearth_model_open(struct hearth_box *box, const char *path,
                                const struct hearth_model_params *p, struct hearth_model **out)
{
    (void)box;
    (void)path;
    (void)out;
    assert_int_equal(p->n_ctx, PROMPT + ANSWER + 1); /* memory for what is measured, no more */
    const int i_time = world.n_thread == 4 && p->n_batch == 512 ? world.n_defaults++ : 0;
    world.now = (struct speed){ .prefill_tok_s = USUAL_TOK_S, .decode_tok_s = USUAL_TOK_S };
    for (int i = 0; i < world.n_row; i++) {
        const struct speed *r = &world.rows[i];
        if (r->n_thread == world.n_thread && r->n_batch == p->n_batch && i_time >= r->first) {
            world.now = *r;
        }
    }
    world.now_us += world.cost_us;
    world.n_open++;
    world.n_left_open += world.now.status == HEARTH_OK;
    return world.now.status;
}

void hearth_model_close(struct hearth_model *m)
{
    (void)m;
    world.n_left_open -= world.now.status == HEARTH_OK;
}

void hearth_model_get_info(const struct hearth_model *m, struct hearth_model_info *out)
{
    (void)m;
    *out = (struct hearth_model_info){ .n_vocab = 100, .n_ctx = 4096 };
}

void hearth_request_init(struct hearth_request_params *p)
{
    *p = (struct hearth_request_params){ .size = sizeof *p };
}

hearth_status hearth_submit(struct hearth_model *m, const struct hearth_request_params *p,
                            struct hearth_request **out)
{
    (void)m;
    (void)out;
    world.n_prompt = (int64_t)p->n_token;
    world.n_answer = p->max_tokens;
    return HEARTH_OK;
}

hearth_status hearth_next(struct hearth_request *r, uint64_t timeout_us, struct hearth_event *out)
{
    (void)r;
    (void)timeout_us;
    *out = (struct hearth_event){ .kind = HEARTH_EVENT_END, .n_generated = world.n_answer };
    out->prefill_us =
        (uint64_t)(1e6 * (double)world.n_prompt / world.now.prefill_tok_s / world.times);
    out->decode_us = (uint64_t)(1e6 * (world.n_answer - 1) / world.now.decode_tok_s / world.times);
    world.now_us += out->prefill_us + out->decode_us;
    return HEARTH_OK;
}

void hearth_request_close(struct hearth_request *r)
{
    (void)r;
}

hearth_status open_fits(const struct conf *c, const struct hearth_plan *p, const char *advice)
{
    (void)c;
    (void)p;
    (void)advice;
    return HEARTH_OK;
}

int open_fail(hearth_status status)
{
    return (int)status;
}

enum err tuned_prepare(struct buf *path)
{
    buf_add_str(path, "a file");
    return ERR_OK;
}

enum err tuned_write(const struct tuned *t, const char *path)
{
    (void)path;
    world.stored = *t;
    world.is_stored = true;
    return ERR_OK;
}

/* Tunes in a world of those rows, so many times as fast; the exit code. */
static int tune_at(double times, const struct speed *rows, int n_row, uint64_t cost_us)
{
    const struct os_hooks hooks = { .now_us = world_now_us, .cpu_us = world_cpu_us };
    const struct conf c = { .is_json = true };
    os_hook(&hooks);
    world = (struct world){ .rows = rows, .n_row = n_row, .cost_us = cost_us, .times = times };
    const int code = cmd_tune(&c, "model");
    os_hook(NULL);
    assert_int_equal(world.n_left_open, 0);
    return code;
}

static int tune(const struct speed *rows, int n_row, uint64_t cost_us)
{
    return tune_at(FAST, rows, n_row, cost_us);
}

static void expect(int32_t n_thread, int32_t n_batch, int n_defaults)
{
    assert_true(world.is_stored);
    assert_int_equal(world.stored.n_thread, n_thread);
    assert_int_equal(world.stored.n_batch, n_batch);
    assert_int_equal(world.n_defaults, n_defaults);
}

/* Where nothing is clearly better the defaults stay, and are not measured again. */
static void test_defaults(void **state)
{
    (void)state;
    const struct speed rows[] = { { 3, 512, 0, 102.0, 102.0, HEARTH_OK },
                                  { 4, 1024, 0, 102.0, 300.0, HEARTH_OK } };
    assert_int_equal(tune(rows, 2, 1000), 0);
    expect(4, 512, 1);
    assert_int_equal(world.n_open, TRIES - 1);
    box_fast = 1; /* of the four cores: tried as well */
    const struct speed fast[] = { { 1, 512, 0, 150.0, 150.0, HEARTH_OK } };
    assert_int_equal(tune(fast, 1, 1000), 0);
    expect(1, 512, 2);
    assert_int_equal(world.n_open, TRIES + 1);
    box_fast = 4;
}

/* Slow boxes measure fewer tokens, keep to the minute, and still find what is better. */
static void test_slow(void **state)
{
    (void)state;
    const struct speed rows[] = { { 3, 512, 0, 150.0, 150.0, HEARTH_OK } };
    static const double times[] = { 1.0, 0.3, 0.1 };
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tune_at(times[i], rows, 1, 1000000), 0);
        expect(3, 512, 2);
        assert_in_range(world.now_us, 10000000, 60000000);
        assert_in_range(world.n_prompt, PROBE, PROMPT_US * times[i] / 10000.0);
    }
    assert_int_equal(tune_at(0.005, rows, 1, 1000000), 0); /* 0.5 tok/s: two settings at most */
    expect(4, 512, 1);
    assert_in_range(world.now_us, 32000000, 60000000);
    assert_int_equal(world.n_prompt, PROBE);
}

/* What is better stays so beside the defaults measured again: threads by prompts and answers,
 * pieces by prompts. */
static void test_confirmed(void **state)
{
    (void)state;
    const struct speed threads[] = { { 8, 512, 0, 150.0, 90.0, HEARTH_OK },
                                     { DEFAULTS, 1, 104.0, 104.0, HEARTH_OK } };
    assert_int_equal(tune(threads, 2, 1000), 0);
    expect(8, 512, 2);
    assert_int_equal(world.n_open, TRIES);
    const struct speed pieces[] = { { 4, 256, 0, 110.0, 10.0, HEARTH_OK },
                                    { DEFAULTS, 1, 104.0, 104.0, HEARTH_OK } };
    assert_int_equal(tune(pieces, 2, 1000), 0);
    expect(4, 256, 2);
}

/* A neighbour was there while the defaults were measured first, and nobody gains by its leaving. */
static void test_not_confirmed(void **state)
{
    (void)state;
    const struct speed threads[] = { { 3, 512, 0, 110.0, 110.0, HEARTH_OK },
                                     { DEFAULTS, 1, 109.0, 109.0, HEARTH_OK } };
    assert_int_equal(tune(threads, 2, 1000), 0);
    expect(4, 512, 2);
    const struct speed pieces[] = { { 4, 1024, 0, 110.0, 110.0, HEARTH_OK },
                                    { DEFAULTS, 1, 109.0, 50.0, HEARTH_OK } };
    assert_int_equal(tune(pieces, 2, 1000), 0);
    expect(4, 512, 2);
    for (int i = 0; i < 2; i++) { /* the better of both counts, of prompts and of answers */
        const struct speed slower[] = { { DEFAULTS, 0, 108.0, 108.0, HEARTH_OK },
                                        { 3, 512, 0, 111.5, 111.5, HEARTH_OK },
                                        { DEFAULTS, 1, i > 0 ? 90.0 : 109.0, i > 0 ? 109.0 : 90.0,
                                          HEARTH_OK } };
        assert_int_equal(tune(slower, 3, 1000), 0);
        expect(4, 512, 2);
    }
}

/* Of a model in the caches nothing is stored. */
static void test_small(void **state)
{
    (void)state;
    const struct speed rows[] = { { 1, 512, 0, 150.0, 150.0, HEARTH_OK } };
    step_read_bytes = TRIAL_SMALL - 1;
    assert_int_equal(tune(rows, 1, 1000), 0);
    assert_false(world.is_stored);
    step_read_bytes = TRIAL_SMALL;
    assert_int_equal(tune(rows, 1, 1000), 0);
    assert_true(world.is_stored);
    no_plan_batch = 1024; /* says nothing of the model */
    assert_int_equal(tune(rows, 1, 1000), 0);
    assert_true(world.is_stored);
    no_plan_batch = 0;
}

/* How much of the cores the threads had, is that of the defaults, by the probe or by what follows. */
static void test_share(void **state)
{
    (void)state;
    const double shares[] = { 0.5, 0.79, 0.81, 1.0 };
    const struct os_hooks hooks = { .now_us = world_now_us, .cpu_us = world_cpu_us };
    const struct conf c = { 0 };
    os_hook(&hooks);
    for (int i = 0; i < 8; i++) {
        struct tune t = { .conf = &c, .path = "model" };
        cores_had = 4.0 * shares[i / 2];
        world = (struct world){ .cost_us = 1000, .times = i % 2 ? FAST : 0.005 };
        assert_int_equal(try_one(&t, (struct tuned){ DEFAULTS }, false), HEARTH_OK);
        assert_true(fabs(t.core_share - shares[i / 2]) < 0.01);
        assert_int_equal(t.core_share < OPEN_SHARED, i / 2 < 2);
    }
    cores_had = 4.0;
    os_hook(NULL);
}

/* What cannot be confirmed is not tried, for lack of time, or not taken, for lack of memory. */
static void test_cannot_confirm(void **state)
{
    (void)state;
    const struct speed rows[] = { { 2, 512, 0, 200.0, 200.0, HEARTH_OK },
                                  { DEFAULTS, 1, USUAL_TOK_S, USUAL_TOK_S, HEARTH_MEMORY } };
    const uint64_t some_us = 500000; /* what is computed takes less */
    assert_int_equal(tune(rows, 1, BUDGET_US / 4 - some_us), 0);
    expect(2, 512, 2); /* the third of three, and time to confirm it */
    assert_int_equal(world.n_open, 4);
    assert_int_equal(tune(rows, 1, BUDGET_US / 4 + some_us), 0);
    expect(4, 512, 1); /* what could not be confirmed is not tried */
    assert_int_equal(world.n_open, 2);
    assert_int_equal(tune(rows, 2, 1000), 0);
    expect(4, 512, 2);
}

/* Any other failure while it is confirmed is one of the command, and nothing is stored. */
static void test_fails(void **state)
{
    (void)state;
    const struct speed rows[] = { { 2, 512, 0, 200.0, 200.0, HEARTH_OK },
                                  { DEFAULTS, 1, USUAL_TOK_S, USUAL_TOK_S, HEARTH_IO } };
    assert_int_equal(tune(rows, 2, 1000), HEARTH_IO);
    assert_int_equal(world.n_defaults, 2);
    assert_false(world.is_stored);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_confirmed),
        cmocka_unit_test(test_not_confirmed), cmocka_unit_test(test_small),
        cmocka_unit_test(test_share),         cmocka_unit_test(test_cannot_confirm),
        cmocka_unit_test(test_fails),         cmocka_unit_test(test_slow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
