/* test_guess_engine - an answer is the same, to the last bit, however much of it was guessed (GU-1)
 *
 * Several requests of all kinds (greedy and drawn, with penalties, filters, log probabilities, stop
 * texts, several choices, up to the end of the context) are answered one by one without guesses, then
 * together with guesses: right ones, wrong ones, right up to some place, as many as there is room for,
 * those the engine makes itself, and those of a small model, a good one and a bad one; on several numbers of workers and cache types, with slow readers
 * and with neighbours who leave.
 *
 * Includes engine.c: the steps are made here, so that nothing depends on a clock. */
#include "engine/engine.c"
#include "engine/engine_open.c"
#include "engine/engine_step.c"

#include "model_tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define N_CTX    150
#define N_REQ    7
#define N_CHOICE 3

/* All that a reader sees of one choice. */
struct seen {
    int32_t id[N_CTX];
    float logprob[N_CTX];
    struct sample_bias top[N_CTX][2];
    int32_t n;
    char text[4096];
    size_t n_text;
    enum engine_finish finish;
};

struct seen_all {
    struct seen choice[N_CHOICE];
    int32_t n_generated;
    enum engine_finish finish;
};

enum way {
    WAY_NONE,
    WAY_RIGHT,
    WAY_WRONG,
    WAY_MIXED,
    WAY_OWN,
    WAY_DRAFT,
    WAY_BAD_DRAFT,
    WAY_COUNT
};

static struct model model;
static struct model small;
static struct engine *en;
static struct seen_all want[N_REQ];
static struct seen_all got[N_REQ];
static int32_t handle[N_REQ];
static uint64_t seed;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

/* Request i: prompts end before, at and behind the border of a page, some of them repeat
 * themselves. */
static void submit(int32_t i)
{
    static const int32_t n_prompt[N_REQ] = { 15, 16, 33, 70, 31, 140, 48 };
    int32_t prompt[N_CTX];
    struct engine_spec spec = plain_spec();
    struct sample_params *s = &spec.sample;
    for (int32_t k = 0; k < n_prompt[i]; k++) {
        prompt[k] = (k % 24 * 7 + i) % TINY_VOCAB;
    }
    s->seed = (uint64_t)i;
    s->temperature = i == 0 ? 0.0f : 0.3f;
    s->n_logprob = i % 2 == 0 ? 2 : i == 3 ? 0 : -1;
    spec.max_tokens = i == 3 || i == 5 ? 0 : 60; /* 0: to the end of the context */
    if (i == 2) {
        spec.n_choice = N_CHOICE;
    } else if (i == 4) {
        s->repeat_penalty = 1.3f;
        s->repeat_last_n = 20;
        s->frequency_penalty = 0.2f;
        s->presence_penalty = 0.1f;
        s->min_p = 0.05f;
    } else if (i == 6) {
        s->top_k = 8;
        s->top_p = 0.9f;
        spec.stops.n = 1;
        spec.stops.text[0] = VIEW("DE");
        s->n_bias = 2;
        s->bias[0] = (struct sample_bias){ 'D' - 'A', 8.1f };
        s->bias[1] = (struct sample_bias){ 'E' - 'A', 8.1f };
    }
    assert_int_equal(engine_submit(en, &spec, prompt, (size_t)n_prompt[i], &handle[i]), ERR_OK);
}

/* Adds what came for request i; false once it has ended. */
static bool read_all(int32_t i)
{
    static char text[ENGINE_TEXT_MAX];
    struct engine_event v;
    enum err err;
    while ((err = engine_next(en, handle[i], 0, &v, text)) == ERR_OK) {
        struct seen *c = &got[i].choice[v.choice];
        if (v.kind == ENGINE_END) {
            got[i].finish = v.finish;
            got[i].n_generated = v.n_generated;
            continue;
        }
        assert_true(c->n_text + v.n_text <= sizeof c->text);
        memcpy(c->text + c->n_text, text, v.n_text);
        c->n_text += v.n_text;
        if (v.kind == ENGINE_CHOICE_END) {
            c->finish = v.finish;
            continue;
        }
        c->id[c->n] = v.token;
        c->logprob[c->n] = v.logprob;
        memcpy(c->top[c->n++], v.top, sizeof c->top[0]);
    }
    return err == ERR_BUSY;
}

static int32_t request_of(int32_t i_job)
{
    int32_t i = 0;
    while (i < N_REQ && (handle[i] < 0 || (handle[i] & 0xFFFF) != i_job)) {
        i++;
    }
    assert_in_range(i, 0, N_REQ - 1);
    return i;
}

/* Stands in for guess(): guesses that are right, wrong, or right up to some place. */
static void guess_so(enum way way)
{
    int32_t left = GUESS_MAX;
    for (int32_t i = 0; i < en->config.n_parallel; i++) {
        left = en->sched.seq[i].state == SCHED_PREFILL ? 0 : left; /* as guess() does */
    }
    for (int32_t i = 0; i < en->config.n_parallel; i++) {
        struct sched_seq *q = &en->sched.seq[i];
        struct slot *slot = &en->slots[i];
        q->n_guess = 0;
        if (q->state != SCHED_DECODE || q->is_paused) {
            continue;
        }
        const struct seen *w = &want[request_of(q->i_req)].choice[q->choice];
        const int32_t most = guesses_of(en, i) < left ? guesses_of(en, i) : left;
        const int32_t n = way == WAY_MIXED ? (int32_t)random_below((uint32_t)most + 1) : most;
        const int32_t n_right = way == WAY_RIGHT   ? n
                                : way == WAY_WRONG ? 0
                                                   : (int32_t)random_below((uint32_t)n + 1);
        for (int32_t k = 0; k < n; k++) {
            const int32_t at = slot->n_answer + k;
            const int32_t right = at < w->n ? w->id[at] : 0;
            slot->answer[at] = k < n_right ? right : (right + 1 + k) % TINY_VOCAB;
        }
        q->n_guess = n;
        left -= n;
    }
}

static void round_once(enum way way)
{
    end_unwanted(en, os_now_us(), true);
    admit(en);
    if (way >= WAY_OWN) { /* steps of all sizes cost the same: whatever may be right is computed */
        for (int i = 0; i < GUESS_SIZES; i++) {
            en->cost.shape[i] = 1.0;
        }
        en->cost.scale_us = 1000.0;
        en->sched.us_per_tok = 1e-3;
        engine_step_guess(en);
        if (way != WAY_OWN) {
            en->draft.us = 1.0;
            en->draft.tok_us = 1.0;
            en->draft.chance = 0.9;
            assert_true(engine_step_draft(en));
        }
    } else if (way != WAY_NONE) {
        guess_so(way);
    }
    en->n_piece = sched_plan(&en->sched, en->pieces);
    const int32_t n_tok = engine_step_lay_out(en);
    if (en->n_piece > 0) {
        engine_step_run(en, n_tok);
    }
    for (int32_t i = 0; i < en->config.n_parallel; i++) { /* the cache holds what was accepted */
        assert_int_equal(en->x.seqs[i].n_tok, en->sched.seq[i].n_past);
        if (way >= WAY_DRAFT) { /* DR-1 */
            assert_true(en->draft.x.seqs[i].n_tok <= en->sched.seq[i].n_past);
        }
    }
}

static void bare_open(enum way way, int32_t n_parallel, int32_t n_worker, enum kern_kv kv)
{
    const struct plan_config c = { .n_ctx = N_CTX,
                                   .n_parallel = n_parallel,
                                   .n_queue = N_REQ,
                                   .n_batch = 64,
                                   .kv = kv,
                                   .n_worker = n_worker };
    struct plan plan;
    memset(got, 0, sizeof got);
    memset(handle, -1, sizeof handle);
    assert_int_equal(model_open(&model, NULL, n_worker), ERR_OK);
    if (way >= WAY_DRAFT) {
        assert_int_equal(model_open(&small, NULL, 1), ERR_OK);
        model.small = &small;
    }
    for (int32_t i = 0; i < TINY_EMBD && way == WAY_BAD_DRAFT; i += 2) {
        float *w = (float *)(void *)(uintptr_t)&small.weights.output_norm.w.v[i];
        *w = -*w;
    }
    assert_int_equal(engine_bare(&en, &model, &c, &plan), ERR_OK);
    assert_int_equal(en->draft_context.peak, plan.draft_bytes); /* PL-1 */
}

static void bare_close(void)
{
    assert_int_equal(en->x.kv.n_free, en->x.kv.n_page);
    assert_int_equal(en->draft.x.kv.n_free, en->draft.x.kv.n_page);
    assert_true(en->step.peak <= en->step.cap);
    engine_close(en);
    if (model.small != NULL) {
        model_close(&small);
    }
    model_close(&model);
}

/* Each request by itself, a token a step. */
static void answer_plainly(enum kern_kv kv)
{
    bare_open(WAY_NONE, N_CHOICE, 1, kv);
    for (int32_t i = 0; i < N_REQ; i++) {
        submit(i);
        do {
            round_once(WAY_NONE);
        } while (read_all(i));
        engine_drop(en, handle[i]);
        handle[i] = -1;
    }
    assert_true(en->stats.n_guessed == 0 && en->stats.n_accepted == 0);
    bare_close();
    memcpy(want, got, sizeof want);
    assert_int_equal(want[6].finish, ENGINE_FINISH_STOP);
    assert_int_equal(want[5].choice[0].n, N_CTX - 140);
    assert_int_equal(want[3].choice[0].n, N_CTX - 70);
    assert_memory_not_equal(want[2].choice[0].id, want[2].choice[1].id, 60 * sizeof(int32_t));
}

/* All together. leaver: a request that is cancelled in the middle; -1: none. */
static void answer_ahead(enum way way, int32_t n_parallel, int32_t n_worker, enum kern_kv kv,
                         int32_t leaver)
{
    bool is_open = true;
    bare_open(way, n_parallel, n_worker, kv);
    for (int32_t i = 0; i < N_REQ; i++) {
        submit(i);
    }
    for (int32_t round = 0; is_open; round++) {
        assert_true(round < 3000);
        round_once(way);
        is_open = false;
        if (leaver >= 0 && got[leaver].choice[0].n > 10) {
            engine_cancel(en, handle[leaver]);
        }
        for (int32_t i = 0; i < N_REQ; i++) { /* one reads seldom */
            is_open |= (i == 4 && round % 16 > 0) || read_all(i);
        }
    }
    for (int32_t i = 0; i < N_REQ; i++) {
        if (i == leaver) {
            assert_int_equal(got[i].finish, ENGINE_FINISH_CANCELLED);
            assert_memory_equal(got[i].choice[0].id, want[i].choice[0].id,
                                (size_t)got[i].choice[0].n * sizeof(int32_t));
        } else if (memcmp(&got[i], &want[i], sizeof got[i]) != 0) {
            print_error("request %d differs: way %d, %d at once, %d workers, kv %d\n", i, (int)way,
                        n_parallel, n_worker, (int)kv);
            fail();
        }
        engine_drop(en, handle[i]);
    }
    assert_true(way == WAY_OWN || en->stats.n_guessed > 100);
    assert_true(way != WAY_DRAFT || 2 * en->stats.n_accepted > en->stats.n_guessed);
    assert_true(way != WAY_RIGHT || 4 * en->stats.n_accepted > 3 * en->stats.n_guessed);
    assert_true(way != WAY_WRONG || en->stats.n_accepted == 0);
    assert_true(way != WAY_MIXED || en->stats.n_accepted > 50);
    bare_close();
}

static void test_same(void **state)
{
    (void)state;
    for (int kv = 0; kv < 3; kv++) {
        answer_plainly((enum kern_kv)kv);
        for (int way = WAY_NONE + 1; way < WAY_COUNT; way++) {
            answer_ahead((enum way)way, 3, 1 + way % 3, (enum kern_kv)kv, -1);
            answer_ahead((enum way)way, 7, 1, (enum kern_kv)kv, 3);
        }
    }
}

/* Guesses of its own are made, and a greedy loop is computed in long steps. */
static void test_own(void **state)
{
    (void)state;
    answer_plainly(KERN_KV_F16);
    bare_open(WAY_OWN, 1, 1, KERN_KV_F16);
    submit(0);
    do {
        round_once(WAY_OWN);
    } while (read_all(0));
    assert_memory_equal(&got[0], &want[0], sizeof got[0]);
    assert_true(en->stats.n_accepted > 30 && en->stats.n_step < 20);
    engine_drop(en, handle[0]);
    bare_close();
}

/* A small model that is the same as the large one is always right, however the answer is drawn. */
static void test_draft(void **state)
{
    (void)state;
    for (int32_t i = 0; i < N_REQ - 1; i++) { /* the last is stopped in the middle of guesses */
        bare_open(WAY_DRAFT, N_CHOICE, 1, KERN_KV_F16);
        submit(i);
        en->jobs[handle[i] & 0xFFFF].spec.sample.n_logprob = -1;
        do {
            round_once(WAY_DRAFT);
            for (int32_t k = 0; k < N_CHOICE; k++) { /* no guesses out of the text */
                en->slots[k].guess.at = -1;
            }
        } while (read_all(i));
        assert_true(en->stats.n_guessed > 5 && en->stats.n_accepted == en->stats.n_guessed);
        engine_drop(en, handle[i]);
        bare_close();
    }
}

/* Who asks for none gets none. */
static void test_none(void **state)
{
    (void)state;
    int32_t n_step = 0;
    bare_open(WAY_OWN, 1, 1, KERN_KV_F16);
    submit(0);
    en->jobs[0].spec.has_no_guesses = true;
    do {
        round_once(WAY_OWN);
        n_step++;
    } while (read_all(0));
    assert_true(n_step == 60 && en->stats.n_guessed == 0);
    engine_drop(en, handle[0]);
    bare_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_same), cmocka_unit_test(test_own),
                                        cmocka_unit_test(test_draft), cmocka_unit_test(test_none) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
