/* test_sched - the scheduler on a virtual clock: hours of random traffic, every step checked (SC-1..SC-4)
 *
 * Beside it runs a cache, used as the engine uses it: pages grow with each step, choices share those of
 * their prompt, those of wrong guesses are cut off again, and whoever ends (answered, cancelled, late, or
 * at the end of the context) gives all back (KV-1..KV-4). A second cache follows as a small model's does,
 * and holds guesses that nobody has computed yet.
 *
 * Admission: requests ask for up to all of a context with up to eight choices. Whoever has started never
 * lacks a page, and whoever is first in the queue starts before those that run could have filled their
 * contexts once, whatever comes behind. */
#include "engine/kv.h"
#include "engine/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_REQ 64
#define N_CTX 2100 /* some prompts with their answers need more */

/* What a request still needs. */
struct want {
    bool is_there, has_started;
    int32_t n_choice, n_prompt, n_answer[8];
    uint64_t arrived, late_us; /* 0: may take any time */
};

struct world {
    struct sched s;
    struct want want[N_REQ];
    struct kv kv;
    struct kv_seq pages[SCHED_SEQ_MAX];
    struct kv small; /* the small model's */
    struct kv_seq small_pages[SCHED_SEQ_MAX];
    struct arena arena;
    uint64_t first; /* in the queue: its number of arrival, and since how many steps */
    uint64_t n_first;
    int32_t n_most; /* pages in use at once */
    uint64_t seed, n_arrived, last_started, n_done, n_cancelled, n_late, n_full, n_wrong, steps,
        now_us;
    uint64_t disk_us;  /* of each step, what reading weights takes */
    uint64_t n_shared; /* steps with tokens of several prompts */
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
    const uint32_t most = (uint32_t)w->s.n_seq < 8 ? (uint32_t)w->s.n_seq : 8;
    const int32_t n_choice =
        1 + (int32_t)random_below(w, random_below(w, 5) > 0 && most > 4 ? 4 : most);
    const int32_t n_prompt = random_below(w, 20) > 0 ? 1 + (int32_t)random_below(w, 2000)
                                                     : N_CTX - 1 - (int32_t)random_below(w, 50);
    if (!sched_submit(&w->s, i, n_choice, n_prompt)) {
        assert_true(w->s.n_queued >= w->s.n_queue_max);
        return;
    }
    *x = (struct want){
        .is_there = true, .n_choice = n_choice, .n_prompt = n_prompt, .arrived = ++w->n_arrived
    };
    if (random_below(w, 4) == 0) {
        x->late_us = w->now_us + 1 + random_below(w, 30000000);
    }
    for (int k = 0; k < n_choice; k++) {
        x->n_answer[k] = random_below(w, 20) > 0 ? 1 + (int32_t)random_below(w, 300) : N_CTX;
    }
}

/* Ends a request wherever it is: waiting, in its prompt, or answering. */
static void end_all(struct world *w, int32_t i)
{
    int32_t freed[SCHED_SEQ_MAX];
    int32_t n_freed = 0;
    assert_true(sched_remove(&w->s, i, freed, &n_freed));
    assert_true(n_freed <= w->want[i].n_choice);
    for (int32_t k = 0; k < n_freed; k++) {
        kv_seq_cut(&w->kv, &w->pages[freed[k]], 0);
        kv_seq_cut(&w->small, &w->small_pages[freed[k]], 0);
    }
    w->want[i].is_there = false;
}

static void cancel(struct world *w)
{
    const int32_t i = (int32_t)random_below(w, N_REQ);
    int32_t freed[SCHED_SEQ_MAX];
    int32_t n_freed = 0;
    if (w->want[i].is_there) {
        end_all(w, i);
        w->n_cancelled++;
    } else {
        assert_false(sched_remove(&w->s, i, freed, &n_freed));
    }
}

static void end_late(struct world *w)
{
    for (int32_t i = 0; i < N_REQ; i++) {
        if (w->want[i].is_there && w->want[i].late_us > 0 && w->now_us > w->want[i].late_us) {
            end_all(w, i);
            w->n_late++;
        }
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
    kv_seq_cut(&w->kv, &w->pages[i_seq], 0);
    kv_seq_cut(&w->small, &w->small_pages[i_seq], 0);
    bool is_open = false;
    for (int32_t i = 0; i < w->s.n_seq; i++) {
        is_open = is_open || (w->s.seq[i].state != SCHED_FREE && w->s.seq[i].i_req == i_req);
    }
    if (!is_open) {
        w->want[i_req].is_there = false;
        w->n_done++;
    }
}

/* What a step needs of the cache: there is always room, because every sequence has its share. */
static void grow(struct world *w, const struct sched_piece *p)
{
    const struct sched_seq *q = &w->s.seq[p->i_seq];
    assert_true(p->pos0 + p->n_tok <= N_CTX);
    assert_int_equal(w->pages[p->i_seq].n_tok, p->pos0);
    assert_true(kv_seq_grow(&w->kv, &w->pages[p->i_seq], p->pos0 + p->n_tok));
    for (int32_t i = 0; i < w->s.n_seq && q->state == SCHED_PREFILL && p->n_logit > 0; i++) {
        if (w->s.seq[i].state == SCHED_RESERVED && w->s.seq[i].i_req == q->i_req) {
            kv_seq_share(&w->kv, &w->pages[i], &w->pages[p->i_seq]);
        }
    }
}

static void check_cache(struct world *w)
{
    for (int32_t i = 0; i < w->s.n_seq; i++) {
        assert_true(w->s.seq[i].state != SCHED_FREE ||
                    w->pages[i].n_tok + w->small_pages[i].n_tok == 0);
    }
    kv_check(&w->kv, w->pages, w->s.n_seq);
    kv_check(&w->small, w->small_pages, w->s.n_seq);
}

/* The small model reads what it lacks and guesses: before the step is computed, its cache is ahead. */
static void guess(struct world *w, int32_t i_seq)
{
    const struct sched_seq *q = &w->s.seq[i_seq];
    if (q->state == SCHED_DECODE && q->n_guess > 0 && random_below(w, 3) > 0) {
        assert_true(kv_seq_grow(&w->small, &w->small_pages[i_seq], q->n_past + q->n_guess));
    }
}

/* Those that run end, at the latest at the end of their contexts, so the first one waits no longer: each has a token in all but some
 * of the steps (its reader may be slow), and prompts are computed one after the other beside them. */
static void check_first(struct world *w)
{
    const struct sched_waiting *q = &w->s.queue[w->s.queue_at];
    const uint64_t first = w->s.n_queued > 0 ? w->want[q->i_req].arrived : 0;
    const int32_t least = SCHED_CHUNK_MIN < w->s.n_batch ? SCHED_CHUNK_MIN : w->s.n_batch;
    w->n_first = first == w->first ? w->n_first + 1 : 0;
    w->first = first;
    assert_true(first == 0 ||
                w->n_first <= 2 * N_CTX + (uint64_t)w->s.n_seq * (N_CTX / (uint64_t)least + 1));
}

/* Some of the guesses behind the certain tokens were right; the others leave the cache. */
static void accept(struct world *w, const struct sched_piece *pieces, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        const struct sched_seq *q = &w->s.seq[pieces[i].i_seq];
        const int32_t n_guess = pieces[i].n_tok - 1;
        if (pieces[i].pos0 >= q->n_prompt) {
            assert_int_equal(q->n_past, pieces[i].pos0 + 1);
            sched_accept(&w->s, pieces[i].i_seq, (int32_t)random_below(w, (uint32_t)n_guess + 1));
            w->n_wrong += pieces[i].pos0 + pieces[i].n_tok > q->n_past;
            kv_seq_cut(&w->kv, &w->pages[pieces[i].i_seq], q->n_past);
            kv_seq_cut(&w->small, &w->small_pages[pieces[i].i_seq], q->n_past);
        }
    }
}

static void step(struct world *w)
{
    struct sched_piece pieces[SCHED_SEQ_MAX + 1];
    for (int32_t i = 0; i < w->s.n_seq; i++) {
        struct sched_seq *q = &w->s.seq[i];
        const int32_t most = N_CTX - q->n_past - 1;
        const int32_t n_guess = (int32_t)random_below(w, 16);
        q->is_paused = q->state == SCHED_DECODE && random_below(w, 20) == 0;
        q->n_guess = q->state != SCHED_DECODE ? 0 : n_guess < most ? n_guess : most;
        q->n_guess = q->is_paused ? 0 : q->n_guess;
        guess(w, i);
    }
    const int32_t n = sched_plan(&w->s, pieces);
    int32_t n_prompt_tok = 0;
    int32_t n_prompt = 0;
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
        n_prompt += q->state == SCHED_PREFILL;
        assert_true(q->state == SCHED_PREFILL || pieces[i].n_tok == 1 + q->n_guess); /* SC-4 */
        assert_true(q->state == SCHED_PREFILL || pieces[i].n_logit == pieces[i].n_tok);
        grow(w, &pieces[i]);
    }
    assert_true(n_prompt_tok <= w->s.n_batch); /* SC-4 */
    const uint64_t computed_us = 500 + (uint64_t)n_prompt_tok * 40;
    const uint64_t us = computed_us > w->disk_us ? computed_us : w->disk_us;
    const uint64_t waited_us = us - computed_us;
    const int32_t n_used = w->kv.n_page - w->kv.n_free;
    w->n_most = n_used > w->n_most ? n_used : w->n_most;
    w->now_us += us;
    sched_done(&w->s, pieces, n, us, waited_us);
    accept(w, pieces, n);
    w->steps++;
    w->n_shared += n_prompt > 1;
    for (int32_t i = 0; i < w->s.n_seq; i++) {
        const struct sched_seq q = w->s.seq[i];
        if (q.state == SCHED_DECODE &&
            (q.n_past == N_CTX || q.n_past - q.n_prompt >= w->want[q.i_req].n_answer[q.choice])) {
            w->n_full += q.n_past == N_CTX;
            finish_choice(w, i);
        }
    }
    sched_check(&w->s); /* SC-1 */
    check_first(w);
    if (w->steps % 64 == 0) {
        check_cache(w);
    }
}

static void open_cache(struct world *w)
{
    const struct arch a = { .n_layer = 1, .n_head = 1, .n_kv = 1, .hd_k = 32, .hd_v = 32 };
    const int32_t n_page = w->s.n_seq * ((N_CTX + KERN_PAGE - 1) / KERN_PAGE);
    size_t bytes = 0;
    assert_true(kv_bytes(&a, KERN_KV_F16, n_page, &bytes));
    assert_int_equal(arena_open(&w->arena, 2 * (bytes + (size_t)w->s.n_seq * 4096), false), ERR_OK);
    assert_int_equal(kv_init(&w->kv, &a, KERN_KV_F16, n_page, &w->arena), ERR_OK);
    assert_int_equal(kv_init(&w->small, &a, KERN_KV_F16, n_page, &w->arena), ERR_OK);
    for (int32_t i = 0; i < w->s.n_seq; i++) {
        assert_int_equal(kv_seq_init(&w->pages[i], N_CTX, &w->arena), ERR_OK);
        assert_int_equal(kv_seq_init(&w->small_pages[i], N_CTX, &w->arena), ERR_OK);
    }
}

static void simulate(uint64_t seed, int32_t n_seq, int32_t n_queue, int32_t n_batch,
                     uint64_t disk_us)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    w.seed = seed;
    w.disk_us = disk_us;
    sched_init(&w.s, n_seq, n_queue, n_batch);
    open_cache(&w);
    while (w.now_us < 3600ull * 1000000) { /* an hour of its own time */
        if (random_below(&w, 8) == 0) {
            arrive(&w);
        }
        if (random_below(&w, 200) == 0) {
            cancel(&w);
        }
        end_late(&w);
        admit(&w);
        step(&w);
    }
    assert_true(w.n_done > 100 && w.n_cancelled > 10 && w.n_late > 10 && w.n_full > 10);
    assert_true(w.n_wrong > 1000 && (w.n_shared > 50 || n_seq == 1));
    for (int32_t i = 0; i < 1000000 && (w.s.n_queued > 0 || sched_n_active(&w.s) > 0);
         i++) { /* the rest ends */
        admit(&w);
        step(&w);
    }
    assert_int_equal(w.s.n_queued, 0);
    assert_int_equal(sched_n_active(&w.s), 0);
    assert_int_equal(w.kv.n_free, w.kv.n_page);
    assert_int_equal(w.small.n_free, w.small.n_page);
    assert_true(w.n_most > w.kv.n_page / 2); /* it was worth asking */
    arena_close(&w.arena);
}

static void test_traffic(void **state)
{
    (void)state;
    simulate(1, 1, 1, 512, 0);
    simulate(2, 2, 8, 64, 0);
    simulate(3, 4, 40, 512, 0);
    simulate(4, 16, 64, 128, 0);
    simulate(5, 16, 64, 512, 15000);
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
    assert_int_equal(p[0].n_logit, 1);
    sched_done(&s, p, 1, 100000, 0); /* 1 ms a token */
    assert_int_equal(sched_plan(&s, p), 2);
    assert_int_equal(p[0].n_tok, 1);
    assert_int_equal(p[1].n_tok, SCHED_INTERVAL_US / 1000); /* what fits the interval */
    assert_int_equal(p[1].n_logit, 0);
}

/* What a step has for nothing goes to the prompts that wait, in their order. */
static void test_prompts_share(void **state)
{
    (void)state;
    static struct sched s;
    static const int32_t lengths[] = { 5, 5, 100, 1000 };
    struct sched_piece p[SCHED_SEQ_MAX + 1];
    int32_t i_req;
    int32_t i_seq;
    sched_init(&s, 4, 4, 512);
    for (int32_t i = 0; i < 4; i++) {
        assert_true(sched_submit(&s, i, 1, lengths[i]) && sched_admit(&s, &i_req, &i_seq));
    }
    assert_int_equal(sched_plan(&s, p), 3);
    for (int32_t i = 0; i < 3; i++) {
        assert_int_equal(p[i].i_seq, i);
        assert_int_equal(p[i].n_tok, i < 2 ? 5 : SCHED_CHUNK_MIN - 10);
        assert_int_equal(p[i].n_logit, i < 2 ? 1 : 0);
    }
    sched_done(&s, p, 3, 1000000, 1000000 - 16 * 2000); /* 2 ms a token, 1 s a pass */
    assert_int_equal(sched_plan(&s, p), 4);
    assert_true(p[0].n_tok == 1 && p[1].n_tok == 1);
    assert_int_equal(p[2].n_tok, 100 - 6);
    assert_int_equal(p[2].n_logit, 1);
    assert_int_equal(p[3].n_tok, 500 - 94); /* 500 are computed while the disk reads */
    assert_int_equal(p[3].n_logit, 0);
    sched_done(&s, p, 4, 1100000, 1000); /* the disk does not hold it up: a pass is no longer */
    assert_true(s.pass_us == 1000000.0);
}

/* The disk is wanted at first and not any more: pieces beside answers are those of the interval. */
static void test_warm(void **state)
{
    (void)state;
    static struct sched s;
    struct sched_piece p[SCHED_SEQ_MAX + 1];
    int32_t i_req;
    int32_t i_seq;
    sched_init(&s, 2, 4, 512);
    assert_true(sched_submit(&s, 0, 1, 100) && sched_admit(&s, &i_req, &i_seq));
    assert_int_equal(sched_plan(&s, p), 1);
    sched_done(&s, p, 1, 1000000, 900000); /* 1 ms a token, 1 s a pass */
    for (int32_t i = 0; i < 40; i++) {
        assert_int_equal(sched_plan(&s, p), 1);
        sched_done(&s, p, 1, 50000, i < 10 ? 5000 : 0);
    }
    assert_true(sched_submit(&s, 1, 1, 4000) && sched_admit(&s, &i_req, &i_seq));
    assert_int_equal(sched_plan(&s, p), 2);
    assert_int_equal(p[1].n_tok, SCHED_INTERVAL_US / 1000);
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
    sched_done(&s, p, 1, 1000, 0);
    assert_int_equal(sched_plan(&s, p), 3);
    assert_int_equal(sched_n_running(&s), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traffic),
        cmocka_unit_test(test_piece_beside_answers),
        cmocka_unit_test(test_prompts_share),
        cmocka_unit_test(test_warm),
        cmocka_unit_test(test_choices_start_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
