/* test_engine - how choices end their request, and what requests that leave do to the others
 *
 * Includes the .c: the functions that count ends and judge a running step need only the tables, no
 * model. */
#include "engine/engine.c"
#include "engine/engine_open.c"
#include "engine/engine_step.c"

#include "model_tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct engine e;
static struct job job;
static struct slot slots[2];
static struct kv_seq seqs[2];

/* The two choices of a request end so, in this order; returns what its END says. */
static enum engine_finish end_both(enum engine_finish first, enum engine_finish second)
{
    int32_t i_job;
    int32_t i_seq;
    e = (struct engine){ .jobs = &job, .slots = slots, .n_job = 1, .x = { .seqs = seqs } };
    job = (struct job){ .state = JOB_ACTIVE, .n_open = 2, .n_prompt = 1 };
    sched_init(&e.sched, 2, 1, 1);
    assert_true(sched_submit(&e.sched, 0, 2, 1) && sched_admit(&e.sched, &i_job, &i_seq));
    engine_end_choice(&e, 0, first);
    assert_int_equal(job.state, JOB_ACTIVE);
    engine_end_choice(&e, 1, second);
    assert_int_equal(job.state, JOB_ENDED);
    assert_int_equal(job.n_event, 3);
    assert_int_equal(job.ring[0].event.finish, first);
    assert_int_equal(job.ring[1].event.finish, second);
    assert_int_equal(job.ring[2].event.kind, ENGINE_END);
    return job.ring[2].event.finish;
}

static void test_worst_end(void **state)
{
    (void)state;
    assert_int_equal(end_both(ENGINE_FINISH_ERROR, ENGINE_FINISH_STOP), ENGINE_FINISH_ERROR);
    assert_true(e.stats.n_failed == 1 && e.stats.n_done == 0);
    assert_int_equal(end_both(ENGINE_FINISH_STOP, ENGINE_FINISH_ERROR), ENGINE_FINISH_ERROR);
    assert_true(e.stats.n_failed == 1 && e.stats.n_done == 0);
    assert_int_equal(end_both(ENGINE_FINISH_LENGTH, ENGINE_FINISH_STOP), ENGINE_FINISH_LENGTH);
    assert_true(e.stats.n_failed == 0 && e.stats.n_done == 1);
    assert_int_equal(end_both(ENGINE_FINISH_STOP, ENGINE_FINISH_STOP), ENGINE_FINISH_STOP);
}

/* --- requests that leave ---------------------------------------------------------------------- */

#define N_PROMPT 200

static struct model model;
static struct engine *en;
static int n_leave;    /* requests that come and go at each border from now on */
static bool is_queued; /* they are dropped while they wait; else while their step runs */
static int32_t guest = -1;

static int32_t submit(int32_t n_prompt, int32_t max_tokens, uint64_t timeout_us)
{
    static int32_t prompt[N_PROMPT];
    struct engine_spec spec = plain_spec();
    spec.max_tokens = max_tokens;
    spec.timeout_us = timeout_us;
    for (int32_t i = 0; i < n_prompt; i++) {
        prompt[i] = (i * 7 + n_prompt) % TINY_VOCAB;
    }
    int32_t handle = -1;
    assert_int_equal(engine_submit(en, &spec, prompt, (size_t)n_prompt, &handle), ERR_OK);
    return handle;
}

/* Stands before the engine's own: somebody hangs up in the middle of the step, and comes again. */
static bool leave_at_border(void *arg, uint64_t now_us)
{
    if (n_leave > 0) {
        n_leave--;
        if (!is_queued && guest >= 0) {
            engine_drop(en, guest);
        }
        guest = submit(N_PROMPT, 0, 0);
        if (is_queued) {
            engine_drop(en, guest);
        }
    }
    return at_border(arg, now_us);
}

/* One round of the engine's loop; false when there was nothing to do. */
static bool round_once(void)
{
    end_unwanted(en, os_now_us(), true);
    admit(en);
    en->n_piece = sched_plan(&en->sched, en->pieces);
    const int32_t n_tok = engine_step_lay_out(en);
    if (en->n_piece > 0) {
        engine_step_run(en, n_tok);
    }
    return en->n_piece > 0;
}

/* Reads what there is; false once the request has ended. Its tokens are added to ids[*n]. */
static bool read_all(int32_t handle, int32_t *ids, int *n, enum engine_finish *finish)
{
    static char text[ENGINE_TEXT_MAX];
    struct engine_event event = { .token = -1 };
    enum err err;
    while ((err = engine_next(en, handle, 0, &event, text)) == ERR_OK) {
        if (event.kind == ENGINE_TOKEN) {
            ids[(*n)++] = event.token;
        }
        *finish = event.finish;
    }
    return err == ERR_BUSY;
}

static void bare_open(int32_t n_parallel)
{
    const struct plan_config c = { .n_ctx = 256,
                                   .n_parallel = n_parallel,
                                   .n_queue = 2,
                                   .n_batch = 64,
                                   .kv = KERN_KV_F16,
                                   .n_worker = 1 };
    struct plan plan;
    guest = -1;
    n_leave = 0;
    assert_int_equal(model_open(&model, NULL, 1), ERR_OK);
    assert_int_equal(engine_bare(&en, &model, &c, &plan), ERR_OK);
    en->x.decoder.is_unwanted = leave_at_border;
    en->x.decoder.arg = en;
    en->x.decoder.rest_us = 0; /* the steps of this model are short, and worth abandoning here */
}

static void bare_close(void)
{
    engine_close(en);
    model_close(&model);
}

/* Answers one request while others leave; the most steps that may be abandoned before it ends. */
static void check_answer(int32_t n_parallel, bool queued, uint64_t most)
{
    int32_t alone[32];
    int32_t beside[32];
    int n_alone = 0;
    int n_beside = 0;
    enum engine_finish finish = ENGINE_FINISH_NONE;
    bare_open(n_parallel);
    int32_t handle = submit(100, 20, 0);
    do {
        assert_true(round_once());
    } while (read_all(handle, alone, &n_alone, &finish));
    assert_int_equal(n_alone, 20);
    assert_int_equal(en->stats.n_abandoned, 0);

    handle = submit(100, 20, 0);
    n_leave = INT32_MAX;
    is_queued = queued;
    do {
        assert_true(round_once());
        assert_true(en->stats.n_abandoned <= most);
    } while (read_all(handle, beside, &n_beside, &finish));
    assert_int_equal(n_beside, n_alone);
    assert_memory_equal(beside, alone, sizeof alone[0] * (size_t)n_alone);
    assert_int_equal(finish, ENGINE_FINISH_LENGTH);
    assert_true(en->stats.n_cancelled > 20 && en->stats.n_refused == 0);
    n_leave = 0;
    bare_close();
}

/* Whoever leaves the queue takes no step from those who run, and leaves its place at once: two
 * places serve any number. */
static void test_leave_queue(void **state)
{
    (void)state;
    check_answer(1, true, 0);
}

/* EN-4: somebody who sends long prompts and hangs up while they are computed costs the others half
 * of the steps at most. */
static void test_leave_step(void **state)
{
    (void)state;
    check_answer(2, false, 30); /* of 22 steps, each once abandoned at most */
}

/* Guesses of an answer that is cancelled are no work which it takes from the others: their step is
 * computed to its end. */
static void test_leave_guesses(void **state)
{
    (void)state;
    bare_open(2);
    const int32_t leaver = submit(16, 60, 0);
    const int32_t other = submit(16, 60, 0);
    for (int i = 0; i < 3; i++) {
        assert_true(round_once());
    }
    en->sched.seq[en->sched.seq[0].i_req == (leaver & 0xFFFF) ? 0 : 1].n_guess = GUESS_MAX;
    en->n_piece = sched_plan(&en->sched, en->pieces);
    assert_int_equal(en->n_piece, 2);
    assert_int_equal(en->pieces[0].n_tok + en->pieces[1].n_tok, 2 + GUESS_MAX);
    engine_cancel(en, leaver);
    assert_false(at_border(en, os_now_us()));
    engine_cancel(en, other);
    assert_true(at_border(en, os_now_us()));
    bare_close();
}

/* A step that nobody wants any more is not computed to its end, however often that happens. */
static void test_leave_alone(void **state)
{
    (void)state;
    bare_open(1);
    for (int i = 0; i < 5; i++) {
        guest = submit(N_PROMPT, 0, 0);
        n_leave = 1;
        is_queued = false; /* drops the guest in its step; the next waits */
        assert_true(round_once());
        assert_int_equal(en->stats.n_abandoned, i + 1);
        engine_drop(en, guest);
        assert_false(round_once());
        assert_int_equal(en->x.kv.n_free, en->x.kv.n_page);
    }
    bare_close();
}

/* Who waits and is late hears of it while the step of others runs, and does not end it. */
static void test_late_in_queue(void **state)
{
    (void)state;
    int32_t ids[8];
    int n = 0;
    enum engine_finish finish = ENGINE_FINISH_NONE;
    bare_open(1);
    const int32_t first = submit(100, 1, 0);
    assert_true(round_once());
    const int32_t late = submit(10, 1, 1);
    while (os_now_us() <= en->late_us) {
    }
    assert_false(at_border(en, os_now_us()));
    assert_false(read_all(late, ids, &n, &finish));
    assert_int_equal(finish, ENGINE_FINISH_TIMEOUT);
    assert_true(read_all(first, ids, &n, &finish));
    assert_true(round_once());
    assert_false(read_all(first, ids, &n, &finish));
    assert_int_equal(finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(en->stats.n_abandoned, 0);
    bare_close();
}

/* Tokens whose cache is made up are not computed, and leave nothing to those who come later. */
static void test_made_up(void **state)
{
    (void)state;
    int32_t ids[2][8];
    int n[2] = { 0, 0 };
    int n_made_up = 0;
    enum engine_finish finish = ENGINE_FINISH_NONE;
    static int32_t prompt[100];
    struct engine_spec spec = plain_spec();
    bare_open(1);
    for (int i = 0; i < 3; i++) { /* before, the made-up one, after */
        int32_t other[8];
        spec.n_made_up = i == 1 ? 83 : 0;
        spec.max_tokens = 8;
        int32_t handle = -1;
        const uint64_t n_before = en->stats.n_prompt_tok;
        assert_int_equal(engine_submit(en, &spec, prompt, 100, &handle), ERR_OK);
        do {
            assert_true(round_once());
        } while (read_all(handle, i == 1 ? other : ids[i / 2], i == 1 ? &n_made_up : &n[i / 2],
                          &finish));
        assert_int_equal(en->stats.n_prompt_tok - n_before, 100 - spec.n_made_up);
    }
    assert_int_equal(n_made_up, 8);
    assert_int_equal(n[1], 8);
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    int32_t handle = -1;
    spec.n_made_up = 100;
    assert_int_equal(engine_submit(en, &spec, prompt, 100, &handle), ERR_USAGE);
    spec.n_made_up = -1;
    assert_int_equal(engine_submit(en, &spec, prompt, 100, &handle), ERR_USAGE);
    bare_close();
}

/* --- the check at start ----------------------------------------------------------------------- */

static const struct kern_table *sound;
static struct kern_table broken;
static int32_t broken_col; /* of matrices with so many columns */

/* One token alone comes out different. */
static void broken_matmul(const struct tensor *w, struct kern_part part, const struct kern_act *a,
                          float *y, size_t ldy)
{
    sound->matmul(w, part, a, y, ldy);
    if (a->n_tok == 1 && w->n_col == broken_col) {
        y[part.panel0 * TENSOR_PANEL_ROWS] *= 1.5f;
    }
}

/* A kernel that breaks the contract is found: in the second half of a layer, and in the first. */
static void test_check_kernels(void **state)
{
    (void)state;
    bare_open(1);
    assert_int_equal(engine_check(en), ERR_OK);
    sound = en->cpu.kern;
    broken = *sound;
    broken.matmul = broken_matmul;
    en->cpu.kern = &broken;
    assert_int_equal(engine_check(en), ERR_OK);
    const int32_t cols[] = { TINY_FF, TINY_EMBD };
    for (int i = 0; i < 2; i++) {
        broken_col = cols[i];
        assert_int_equal(engine_check(en), ERR_FAILED);
        assert_non_null(strstr(err_text(), "miscomputes"));
    }
    bare_close();
}

#define KEPT_MAX (TENSOR_PANEL_ROWS * TINY_FF * sizeof(float))

/* Turns the last panel of a matrix into NaNs, and back. */
static void swap_panel(const struct tensor *t, uint8_t kept[])
{
    uint8_t *last = model.arena.base + (t->data - model.arena.base) + t->bytes - t->stride;
    assert_true(t->stride <= KEPT_MAX);
    for (size_t i = 0; i < t->stride; i++) {
        const uint8_t b = last[i];
        last[i] = kept[i];
        kept[i] = b;
    }
}

/* Each row of the output matrix is looked at, the last one too. In a layer that was not computed
 * damage shows in the first answer, or at start to those who want all weights read. */
static void test_check_damage(void **state)
{
    (void)state;
    static uint8_t kept[KEPT_MAX];
    int32_t ids[4];
    int n = 0;
    enum engine_finish finish = ENGINE_FINISH_NONE;
    memset(kept, 0xFF, sizeof kept);
    bare_open(1);
    swap_panel(&model.weights.output, kept);
    assert_int_equal(engine_check(en), ERR_INTEGRITY);
    swap_panel(&model.weights.output, kept);
    assert_int_equal(engine_check(en), ERR_OK);
    swap_panel(&model.weights.layer[1].down, kept);
    en->config.checks_all = true;
    assert_int_equal(engine_check(en), ERR_INTEGRITY);
    en->config.checks_all = false;
    assert_int_equal(engine_check(en), ERR_OK);
    const int32_t handle = submit(3, 4, 0);
    do {
        assert_true(round_once());
    } while (read_all(handle, ids, &n, &finish));
    assert_int_equal(n, 0);
    assert_int_equal(finish, ENGINE_FINISH_ERROR);
    bare_close();
}

/* The first layer of each kind. Each layer but three differs from the first in one thing. */
static void test_check_layers(void **state)
{
    (void)state;
    static struct arch a;
    static struct weights_layer w_layer[19];
    static struct weights w = { .layer = w_layer };
    struct plan_context x = { .decoder = { .arch = &a, .weights = &w } };
    struct check c = { .x = &x };
    struct weights_layer *l = w_layer;
    a.n_layer = 19;
    l[1].q.type = l[2].k.type = l[3].v.type = l[4].o.type = QUANT_Q6_K;
    l[5].gate.n_row = l[6].up.n_row = 64;
    l[7].down.n_col = 64;
    l[8].q_b.n = l[9].k_b.n = l[10].v_b.n = l[11].o_b.n = 64;
    l[12].gate_b.n = l[13].up_b.n = l[14].down_b.n = 64;
    l[15].attn_norm.b.n = l[16].ffn_norm.b.n = 64;
    a.layer[17].is_window = true;
    a.layer[18].has_rope = true;
    choose_layers(&c);
    for (int i = 0; i < 19; i++) {
        assert_true(c.only[i]);
    }
    a.layer[18].has_rope = false; /* as the first */
    l[16].ffn_norm.b.n = 0;       /* as the first */
    l[15] = l[14];                /* as the one before */
    choose_layers(&c);
    for (int i = 0; i < 19; i++) {
        assert_int_equal(c.only[i], i != 15 && i != 16 && i != 18);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worst_end),     cmocka_unit_test(test_leave_queue),
        cmocka_unit_test(test_leave_step),    cmocka_unit_test(test_leave_alone),
        cmocka_unit_test(test_leave_guesses), cmocka_unit_test(test_late_in_queue),
        cmocka_unit_test(test_made_up),       cmocka_unit_test(test_check_kernels),
        cmocka_unit_test(test_check_damage),  cmocka_unit_test(test_check_layers)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
