/* test_sched - the scheduler on a virtual clock: hours of random traffic, every step checked (SC-1..SC-4) */
#include "engine/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_REQ 64

/* What a request still needs. */
struct want {
    bool is_there, has_started;
    int32_t n_choice, n_prompt, n_answer[8];
    uint64_t arrived;
};

struct world {
    struct sched s;
    struct want want[N_REQ];
    uint64_t seed, n_arrived, last_started, n_done, n_cancelled, steps, now_us;
};

static uint32_t random_below(struct world *w, uint32_t n)
{
    w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->seed >> 33) % n;
}

static void arrive(struct world *w)
{
    int32_t i = 0;
    while (i < N_REQ && w->want[i].is_there) {
        i++;
    }
    if (i == N_REQ) {
        return;
    }
    struct want *x = &w->want[i];
    const int32_t n_choice =
        1 + (int32_t)random_below(w, (uint32_t)w->s.n_seq < 4 ? (uint32_t)w->s.n_seq : 4);
    const int32_t n_prompt = 1 + (int32_t)random_below(w, 2000);
    if (!sched_submit(&w->s, i, n_choice, n_prompt)) {
        assert_true(w->s.n_queued >= w->s.n_queue_max);
        return;
    }
    *x = (struct want){
        .is_there = true, .n_choice = n_choice, .n_prompt = n_prompt, .arrived = ++w->n_arrived
    };
    for (int k = 0; k < n_choice; k++) {
        x->n_answer[k] = 1 + (int32_t)random_below(w, 300);
    }
}

static void cancel(struct world *w)
{
    const int32_t i = (int32_t)random_below(w, N_REQ);
    int32_t freed[SCHED_SEQ_MAX];
    int32_t n_freed = 0;
    if (w->want[i].is_there) {
        assert_true(sched_remove(&w->s, i, freed, &n_freed));
        assert_true(n_freed <= w->want[i].n_choice);
        w->want[i].is_there = false;
        w->n_cancelled++;
    } else {
        assert_false(sched_remove(&w->s, i, freed, &n_freed));
    }
}

static void admit(struct world *w)
{
    int32_t i_req;
    int32_t i_seq;
    while (sched_admit(&w->s, &i_req, &i_seq)) {
        assert_true(w->want[i_req].is_there && !w->want[i_req].has_started);
        assert_true(w->want[i_req].arrived > w->last_started); /* SC-2 */
        w->last_started = w->want[i_req].arrived;
        w->want[i_req].has_started = true;
        assert_int_equal(w->s.seq[i_seq].state, SCHED_PREFILL);
    }
}

static void finish_choice(struct world *w, int32_t i_seq)
{
    const int32_t i_req = w->s.seq[i_seq].i_req;
    sched_free(&w->s, i_seq);
    bool is_open = false;
    for (int32_t i = 0; i < w->s.n_seq; i++) {
        is_open = is_open || (w->s.seq[i].state != SCHED_FREE && w->s.seq[i].i_req == i_req);
    }
    if (!is_open) {
        w->want[i_req].is_there = false;
        w->n_done++;
    }
}

static void step(struct world *w)
{
    struct sched_piece pieces[SCHED_SEQ_MAX + 1];
    for (int32_t i = 0; i < w->s.n_seq; i++) {
        w->s.seq[i].is_paused = w->s.seq[i].state == SCHED_DECODE && random_below(w, 20) == 0;
    }
    const int32_t n = sched_plan(&w->s, pieces);
    int32_t n_prompt_tok = 0;
    bool can_move = false;
    for (int32_t i = 0; i < w->s.n_seq; i++) {
        can_move = can_move || w->s.seq[i].state == SCHED_PREFILL ||
                   (w->s.seq[i].state == SCHED_DECODE && !w->s.seq[i].is_paused);
    }
    assert_true((n > 0) == can_move); /* SC-3 */
    for (int32_t i = 0; i < n; i++) {
        const struct sched_seq *q = &w->s.seq[pieces[i].i_seq];
        assert_int_equal(pieces[i].pos0, q->n_past);
        assert_true(pieces[i].n_tok >= 1);
        n_prompt_tok += q->state == SCHED_PREFILL ? pieces[i].n_tok : 0;
        assert_true(q->state == SCHED_PREFILL || pieces[i].n_tok == 1); /* SC-4 */
    }
    assert_true(n_prompt_tok <= w->s.n_batch); /* SC-4 */
    const uint64_t us = 500 + (uint64_t)n_prompt_tok * 40;
    w->now_us += us;
    sched_done(&w->s, pieces, n, us);
    w->steps++;
    for (int32_t i = 0; i < w->s.n_seq; i++) {
        const struct sched_seq q = w->s.seq[i];
        if (q.state == SCHED_DECODE &&
            q.n_past - q.n_prompt >= w->want[q.i_req].n_answer[q.choice]) {
            finish_choice(w, i);
        }
    }
    sched_check(&w->s); /* SC-1 */
}

static void simulate(uint64_t seed, int32_t n_seq, int32_t n_queue, int32_t n_batch)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    w.seed = seed;
    sched_init(&w.s, n_seq, n_queue, n_batch);
    while (w.now_us < 3600ull * 1000000) { /* an hour of its own time */
        if (random_below(&w, 8) == 0) {
            arrive(&w);
        }
        if (random_below(&w, 200) == 0) {
            cancel(&w);
        }
        admit(&w);
        step(&w);
    }
    assert_true(w.n_done > 100 && w.n_cancelled > 10);
    for (int32_t i = 0; i < 1000000 && (w.s.n_queued > 0 || sched_n_active(&w.s) > 0);
         i++) { /* the rest ends */
        admit(&w);
        step(&w);
    }
    assert_int_equal(w.s.n_queued, 0);
    assert_int_equal(sched_n_active(&w.s), 0);
}

static void test_traffic(void **state)
{
    (void)state;
    simulate(1, 1, 1, 512);
    simulate(2, 2, 8, 64);
    simulate(3, 4, 40, 512);
    simulate(4, 16, 64, 128);
}

static void test_piece_beside_answers(void **state)
{
    (void)state;
    static struct sched s;
    struct sched_piece p[SCHED_SEQ_MAX + 1];
    int32_t i_req;
    int32_t i_seq;
    sched_init(&s, 2, 4, 512);
    assert_true(sched_submit(&s, 0, 1, 100));
    assert_true(sched_submit(&s, 1, 1, 4000));
    assert_true(sched_admit(&s, &i_req, &i_seq) && sched_admit(&s, &i_req, &i_seq));
    assert_int_equal(sched_plan(&s, p), 1); /* the older prompt alone, all of it */
    assert_int_equal(p[0].n_tok, 100);
    assert_true(p[0].has_logits);
    sched_done(&s, p, 1, 100000); /* 1 ms a token */
    assert_int_equal(sched_plan(&s, p), 2);
    assert_int_equal(p[0].n_tok, 1);
    assert_int_equal(p[1].n_tok, SCHED_INTERVAL_US / 1000); /* what fits the interval */
    assert_false(p[1].has_logits);
}

static void test_choices_start_together(void **state)
{
    (void)state;
    static struct sched s;
    struct sched_piece p[SCHED_SEQ_MAX + 1];
    int32_t i_req;
    int32_t i_seq;
    sched_init(&s, 3, 4, 512);
    assert_true(sched_submit(&s, 0, 1, 10));
    assert_true(sched_submit(&s, 1, 3, 10));
    assert_true(sched_submit(&s, 2, 1, 10));
    assert_true(sched_admit(&s, &i_req, &i_seq));
    assert_false(sched_admit(&s, &i_req, &i_seq)); /* three are not free, and nobody overtakes */
    sched_free(&s, i_seq);
    assert_true(sched_admit(&s, &i_req, &i_seq));
    assert_int_equal(i_req, 1);
    assert_int_equal(sched_plan(&s, p), 1); /* the prompt is computed once */
    sched_done(&s, p, 1, 1000);
    assert_int_equal(sched_plan(&s, p), 3);
    assert_int_equal(sched_n_running(&s), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traffic),
        cmocka_unit_test(test_piece_beside_answers),
        cmocka_unit_test(test_choices_start_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
