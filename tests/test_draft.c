/* test_draft - a small model guesses only where that pays, and within the engine's promises: a sign
 * of life, deadlines and cancelling at every layer border
 *
 * That its guesses change no bit is tested by test_guess_engine.c.
 *
 * Includes engine.c: times are given here, and the steps made here, so that nothing depends on a
 * clock; the last test has a thread, for the sanitizers. */
#include "engine/engine.c"
#include "engine/engine_open.c"
#include "engine/engine_step.c"

#include "model_tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define N_CTX    900
#define N_PROMPT 200

static struct model model;
static struct model small;
static struct engine *en;
static int n_border;      /* of the small model, since the test began */
static int leave_at;      /* at this one: */
static int32_t leaver[2]; /* these are cancelled; -1: none */

/* Stands before the engine's own. */
static bool leave_at_border(void *arg, uint64_t now_us)
{
    for (int i = 0; i < 2 && n_border == leave_at; i++) {
        if (leaver[i] >= 0) {
            engine_cancel(en, leaver[i]);
        }
    }
    n_border++;
    return at_border(arg, now_us);
}

static int32_t submit(int32_t n_prompt, int32_t max_tokens, uint64_t timeout_us)
{
    static int32_t prompt[N_PROMPT];
    struct engine_spec spec = plain_spec();
    spec.max_tokens = max_tokens;
    spec.timeout_us = timeout_us;
    spec.sample.temperature = 1.0f;
    spec.sample.seed = (uint64_t)n_prompt;
    for (int32_t i = 0; i < n_prompt; i++) {
        prompt[i] = (i * 7 + n_prompt) % TINY_VOCAB;
    }
    int32_t handle = -1;
    assert_int_equal(engine_submit(en, &spec, prompt, (size_t)n_prompt, &handle), ERR_OK);
    return handle;
}

static void bare_open(int32_t n_parallel, uint32_t n_layer)
{
    const struct plan_config c = { .n_ctx = N_CTX,
                                   .n_parallel = n_parallel,
                                   .n_queue = 2,
                                   .n_batch = 256,
                                   .kv = KERN_KV_F16,
                                   .n_worker = 1 };
    struct plan plan;
    char path[64];
    const int fd = tiny_model_of(path, TINY_TEMPLATE, n_layer);
    n_border = 0;
    leaver[0] = leaver[1] = -1;
    assert_int_equal(model_open(&model, path, 1), ERR_OK);
    close(fd);
    assert_int_equal(model_open(&small, NULL, 1), ERR_OK);
    model.small = &small;
    assert_int_equal(engine_bare(&en, &model, &c, &plan), ERR_OK);
    watch(en);
    assert_true(en->draft.x.decoder.is_unwanted == at_border && en->draft.x.decoder.arg == en);
    en->draft.x.decoder.is_unwanted = leave_at_border;
}

static void bare_close(void)
{
    engine_close(en);
    model_close(&small);
    model_close(&model);
}

/* One whose weights are damaged is refused at the start, by name, before it guesses for anybody. */
static void test_damaged(void **state)
{
    (void)state;
    const struct plan_config c = {
        .n_ctx = 64, .n_parallel = 1, .n_queue = 1, .n_batch = 16, .n_worker = 1
    };
    struct plan plan;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(model_open(&model, NULL, 1), ERR_OK);
        assert_int_equal(model_open(&small, NULL, 1), ERR_OK);
        model.small = &small;
        const struct tensor *down = &small.weights.layer[1].down; /* not the first of its kind */
        if (i == 1) {
            memset(small.arena.base, 0xFF, small.weights.arena_bytes); /* no numbers */
        } else if (i == 2) {
            memset(small.arena.base + (down->data - small.arena.base), 0xFF, down->bytes);
        }
        assert_int_equal(engine_bare(&en, &model, &c, &plan), i > 0 ? ERR_INTEGRITY : ERR_OK);
        assert_true(i == 0 ||
                    strstr(err_text(), "of the draft model: the score of token 0") != NULL);
        assert_int_equal(en->draft.x.kv.n_free, en->draft.x.kv.n_page);
        bare_close();
    }
}

/* What the next round finds measured: steps of 1 ms whatever their size, a token that is read for
 * tok_us, and guesses in no time that are nearly always right. Nothing is known to repeat. */
static void set_costs(double tok_us)
{
    for (int i = 0; i < GUESS_SIZES; i++) {
        en->cost.shape[i] = 1.0;
    }
    en->cost.scale_us = 1000.0;
    en->sched.us_per_tok = 1e-3;
    en->draft.us = 1.0;
    en->draft.tok_us = tok_us;
    en->draft.chance = 0.9;
    for (int32_t i = 0; i < en->config.n_parallel; i++) {
        en->slots[i].guess.at = -1;
    }
}

/* A round up to the point where the small model guesses. */
static bool draft_once(double tok_us)
{
    end_unwanted(en, os_now_us(), true);
    admit(en);
    set_costs(tok_us);
    engine_step_guess(en);
    return engine_step_draft(en);
}

static void step_once(void)
{
    en->n_piece = sched_plan(&en->sched, en->pieces);
    const int32_t n_tok = engine_step_lay_out(en);
    if (en->n_piece > 0) {
        engine_step_run(en, n_tok);
    }
}

static void round_once(double tok_us)
{
    assert_true(draft_once(tok_us));
    step_once();
}

/* Its tokens are added to ids[*n]; how it ended, or that it has not. */
static enum engine_finish read_all(int32_t handle, int32_t *ids, int *n)
{
    static char text[ENGINE_TEXT_MAX];
    struct engine_event event;
    enum engine_finish finish = ENGINE_FINISH_NONE;
    while (engine_next(en, handle, 0, &event, text) == ERR_OK) {
        if (event.kind == ENGINE_TOKEN) {
            ids[(*n)++] = event.token;
        }
        finish = event.finish;
    }
    return finish;
}

/* One that is always wrong is given up, but for a try now and then; one that is right again is used
 * again. */
static void test_off(void **state)
{
    (void)state;
    struct draft d = { .chance = 0.6, .us = 4000.0 };
    struct guess_cost cost = { .scale_us = 20000.0 };
    struct draft_step s = { .n_seq = 1, .most = GUESS_MAX, .n_row = 1, .row_us = 2000.0 };
    double saved_us = 0.0;
    int32_t n_tried = 0;
    for (int i = 0; i < 4; i++) {
        cost.shape[i] = 1.0 + 0.2 * i;
    }
    for (int i = 0; i < 1100; i++) {
        const int32_t n = draft_length(&d, &cost, &s, &saved_us);
        assert_in_range(n, 0, GUESS_MAX);
        assert_true(i > 0 || n > 0);
        assert_true(n > 0 ? saved_us > 0.0 : saved_us == 0.0);
        n_tried += i >= 100 && n > 0;
        if (n == 0) {
            draft_rest(&d);
        }
        for (int32_t k = 0; k < n; k++) {
            draft_timed(&d, 4000.0);
        }
        draft_judged(&d, n, 0);
    }
    assert_in_range(n_tried, 5, 40);
    while (d.chance < 0.9) {
        const int32_t n = draft_length(&d, &cost, &s, &saved_us);
        if (n == 0) {
            draft_rest(&d);
        }
        draft_judged(&d, n, n);
    }
    assert_true(draft_length(&d, &cost, &s, &saved_us) >= 3);
    assert_true(saved_us > 0.0 && saved_us < 20000.0);
    s = (struct draft_step){ .n_seq = 5, .most = 2, .n_row = 8, .row_us = 2000.0 };
    assert_true(draft_length(&d, &cost, &s, &saved_us) <= 2);
}

/* A prompt is read for an answer that is long enough to pay for it, not for a short one (GU-2). */
static void test_worth(void **state)
{
    (void)state;
    int32_t ids[200];
    int n = 0;
    bare_open(1, 2);
    int32_t handle = submit(N_PROMPT, 5, 0); /* saves less than 5 ms; reading takes 20 */
    while (read_all(handle, ids, &n) == ENGINE_FINISH_NONE) {
        round_once(100.0);
    }
    assert_int_equal(n, 5);
    assert_int_equal(n_border, 0);
    handle = submit(N_PROMPT, 200, 0);
    n = 0;
    while (read_all(handle, ids, &n) == ENGINE_FINISH_NONE) {
        assert_true(n > 20 || n_border == 0);
        round_once(100.0);
    }
    assert_int_equal(n, 200);
    assert_true(en->stats.n_guessed > 50);
    n_border = n = 0;
    handle = submit(N_PROMPT, 44, 0); /* where it would pay at last, too few are left */
    while (read_all(handle, ids, &n) == ENGINE_FINISH_NONE) {
        round_once(100.0);
    }
    assert_int_equal(n_border, 0);
    bare_close();
}

/* What it reads between two steps takes as long as others may wait for a token, by its measured
 * speed. */
static void test_piece(void **state)
{
    (void)state;
    static const struct {
        double tok_us;
        int32_t n_tok;
    } of[] = { { 0.0, 16 }, { 5000.0, 20 }, { 1e6, 16 }, { 1.0, N_PROMPT } };
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        bare_open(1, 2);
        (void)submit(N_PROMPT, 300, 0);
        round_once(0.0);
        assert_int_equal(en->slots[0].n_answer, 1);
        assert_int_equal(en->draft.x.seqs[0].n_tok, 0);
        set_costs(of[i].tok_us);
        const struct draft_text t = { .text = en->slots[0].text, .n = N_PROMPT + 1 };
        assert_int_equal(draft_follow(&en->draft, &t, SCHED_INTERVAL_US), ERR_OK);
        assert_int_equal(en->draft.x.seqs[0].n_tok, of[i].n_tok);
        assert_true(en->draft.tok_us > 0.0 && en->draft.tok_us < 1e6);
        bare_close();
    }
}

/* While it computes the engine is alive, and who waits and is late hears of it. */
static void test_alive(void **state)
{
    (void)state;
    int32_t ids[8];
    int n = 0;
    bare_open(1, 2);
    (void)submit(N_PROMPT, 300, 0);
    round_once(1.0);
    const int32_t late = submit(10, 1, 1);
    while (os_now_us() <= en->late_us) {
    }
    admit(en);
    set_costs(1.0);
    engine_step_guess(en);
    cell_set(&en->heartbeat, 0);
    assert_true(engine_step_draft(en));
    assert_true(n_border > 0 && cell_get(&en->heartbeat) > 0);
    assert_int_equal(read_all(late, ids, &n), ENGINE_FINISH_TIMEOUT);
    bare_close();
}

/* Two answers, whose small model is left at one of its borders, by both or by the first; returns the
 * borders of the round. ids: what the other got. */
static int leave(int at, bool by_both, int32_t ids[40])
{
    int32_t gone[40];
    int n = 0;
    int n_gone = 0;
    bare_open(2, 2);
    leave_at = INT32_MAX;
    leaver[0] = submit(14, 40, 0); /* too short to change what is known of speed */
    const int32_t other = submit(10, 40, 0);
    leaver[1] = by_both ? other : -1;
    round_once(1e9);
    round_once(1e9); /* nothing is read yet */
    assert_int_equal(n_border, 0);
    leave_at = at;
    const bool goes_on = draft_once(1.0);
    const int n_all = n_border;
    const bool has_left = at < n_all;
    assert_true(goes_on || has_left);
    assert_true(!goes_on || !has_left || !by_both);
    for (int32_t i = 0; i < 2; i++) { /* DR-1 */
        const struct sched_seq *q = &en->sched.seq[i];
        assert_true(en->draft.x.seqs[i].n_tok <= q->n_past + q->n_guess);
    }
    engine_check_state(en);
    if (goes_on) {
        step_once();
    }
    for (int i = 0; i < 60; i++) {
        round_once(1.0);
    }
    assert_int_equal(read_all(leaver[0], gone, &n_gone),
                     has_left ? ENGINE_FINISH_CANCELLED : ENGINE_FINISH_LENGTH);
    assert_int_equal(read_all(other, ids, &n),
                     has_left && by_both ? ENGINE_FINISH_CANCELLED : ENGINE_FINISH_LENGTH);
    assert_true(n == 40 || (has_left && by_both));
    assert_int_equal(en->draft.x.kv.n_free, en->draft.x.kv.n_page);
    bare_close();
    return n_all;
}

/* Whoever leaves while it computes is not waited for, and costs the others no bit. */
static void test_leave(void **state)
{
    (void)state;
    int32_t want[40];
    int32_t ids[40];
    const int n_border_all = leave(INT32_MAX, false, want);
    assert_in_range(n_border_all, 8, 100);
    for (int at = 0; at < n_border_all; at++) {
        assert_true(leave(at, true, ids) <= at + 1);
        (void)leave(at, false, ids);
        assert_memory_equal(ids, want, sizeof want);
    }
}

/* With a thread: who guesses is cancelled, and at last closed, in the middle. */
static void test_thread(void **state)
{
    (void)state;
    static int32_t ids[N_CTX];
    struct engine_stats s;
    bare_open(2, 40);
    en->draft.chance = 0.97;
    en->draft.tok_us = 1e-3; /* it guesses as soon as a step was measured */
    assert_int_equal(thread_start(&en->thread, "engine", engine_thread, en), ERR_OK);
    engine_get_stats(en, &s);
    for (int i = 0; i < 20; i++) {
        const uint64_t n_before = s.n_guessed + s.n_done;
        const int32_t handle = submit(20, 0, 0);
        int n = 0;
        do {
            (void)read_all(handle, ids, &n);
            engine_get_stats(en, &s);
        } while (s.n_guessed + s.n_done == n_before);
        engine_drop(en, handle);
    }
    (void)submit(20, 0, 0);
    lock_take(en->lock);
    en->is_closing = true;
    lock_wake(en->lock);
    lock_drop(en->lock);
    thread_join(en->thread);
    en->thread = NULL;
    assert_true(en->draft.us > 0.0); /* it did guess */
    bare_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_off),     cmocka_unit_test(test_worth), cmocka_unit_test(test_piece),
        cmocka_unit_test(test_damaged), cmocka_unit_test(test_alive), cmocka_unit_test(test_leave),
        cmocka_unit_test(test_thread)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
