/* sched - which tokens the next step computes
 *
 * A step costs one pass over the weights, whatever its size up to a few tokens; so every running
 * answer gets its next token in each step, and a prompt is computed beside them in pieces. A long
 * prompt then delays the others' tokens by the time of one piece, not by the whole prompt. The
 * piece is as large as possible (n_batch) while nobody decodes, else what the measured speed allows
 * within SCHED_INTERVAL_US. How prompts are cut never changes a bit of an answer
 * (docs/NUMERICS.md), so the choice may depend on time.
 *
 * Where weights come from the disk, a step takes as long as reading them, and what is computed in
 * that time costs nothing: pieces beside answers are as large as that allows, and what the oldest
 * prompt leaves of it, others share. Where experts that are asked for have come to stay, steps
 * soon wait no more, and pieces are those of a model in memory. There prompts share what a step
 * has for nothing anyway, some SCHED_CHUNK_MIN tokens.
 *
 * Sequences are slots with a cache of their own, made at start; a request with several choices
 * takes several, and starts when all of them are free. The queue is strictly first come, first
 * served: a request that needs several sequences is not overtaken by small ones, and so never
 * starves.
 *
 * Rejected for this first version: priorities, deadlines and preemption.
 *
 * Invariants SC-1..SC-4 stand in sched.h; tests/test_sched.c simulates hours of traffic. Next:
 * engine.c. */
#include "engine/sched.h"

#include <assert.h>

void sched_init(struct sched *s, int32_t n_seq, int32_t n_queue_max, int32_t n_batch)
{
    assert(n_seq >= 1 && n_seq <= SCHED_SEQ_MAX && n_queue_max >= 1 &&
           n_queue_max <= SCHED_QUEUE_MAX);
    *s = (struct sched){ .n_seq = n_seq, .n_queue_max = n_queue_max, .n_batch = n_batch };
}

bool sched_submit(struct sched *s, int32_t i_req, int32_t n_choice, int32_t n_prompt)
{
    assert(n_choice >= 1 && n_choice <= s->n_seq && n_prompt >= 1);
    /* Those that will start at once do not wait, though the engine has not come to start them yet.
     */
    const int32_t n_starting = s->n_seq - sched_n_active(s);
    if (s->n_queued >= s->n_queue_max + n_starting || s->n_queued == SCHED_QUEUE_MAX) {
        return false;
    }
    s->queue[(s->queue_at + s->n_queued++) % SCHED_QUEUE_MAX] =
        (struct sched_waiting){ i_req, n_choice, n_prompt };
    return true;
}

/* Closes the gap, so that the order of arrival stays (SC-2). */
static bool remove_waiting(struct sched *s, int32_t i_req)
{
    int32_t to = 0;
    for (int32_t i = 0; i < s->n_queued; i++) {
        const struct sched_waiting w = s->queue[(s->queue_at + i) % SCHED_QUEUE_MAX];
        if (w.i_req != i_req) {
            s->queue[(s->queue_at + to++) % SCHED_QUEUE_MAX] = w;
        }
    }
    const bool was_there = to < s->n_queued;
    s->n_queued = to;
    return was_there;
}

bool sched_remove(struct sched *s, int32_t i_req, int32_t *freed, int32_t *n_freed)
{
    *n_freed = 0;
    if (remove_waiting(s, i_req)) {
        return true;
    }
    for (int32_t i = 0; i < s->n_seq; i++) {
        if (s->seq[i].state != SCHED_FREE && s->seq[i].i_req == i_req) {
            freed[(*n_freed)++] = i;
            sched_free(s, i);
        }
    }
    return *n_freed > 0;
}

void sched_free(struct sched *s, int32_t i_seq)
{
    assert(s->seq[i_seq].state != SCHED_FREE);
    s->seq[i_seq] = (struct sched_seq){ .state = SCHED_FREE };
}

/* Only the head of the queue is looked at: whoever does not fit yet holds up those behind (SC-2).
 * The first choice computes the prompt, the others wait for it and then share its pages. */
bool sched_admit(struct sched *s, int32_t *i_req, int32_t *i_seq)
{
    if (s->n_queued == 0) {
        return false;
    }
    const struct sched_waiting w = s->queue[s->queue_at];
    if (s->n_seq - sched_n_active(s) < w.n_choice) {
        return false;
    }
    s->queue_at = (s->queue_at + 1) % SCHED_QUEUE_MAX;
    s->n_queued--;
    s->n_arrived++;
    int32_t choice = 0;
    for (int32_t i = 0; i < s->n_seq && choice < w.n_choice; i++) {
        if (s->seq[i].state != SCHED_FREE) {
            continue;
        }
        s->seq[i] = (struct sched_seq){ .state = choice == 0 ? SCHED_PREFILL : SCHED_RESERVED,
                                        .i_req = w.i_req,
                                        .choice = choice,
                                        .n_prompt = w.n_prompt,
                                        .order = s->n_arrived };
        if (choice == 0) {
            *i_seq = i;
        }
        choice++;
    }
    *i_req = w.i_req;
    return true;
}

/* Tokens of prompts that are computed in so many microseconds. */
static int32_t tokens_in(const struct sched *s, double us)
{
    const double fits = s->us_per_tok > 0.0 ? us / s->us_per_tok : SCHED_CHUNK_MIN;
    const int32_t n = fits < (double)s->n_batch ? (int32_t)fits : s->n_batch;
    const int32_t least = SCHED_CHUNK_MIN < s->n_batch ? SCHED_CHUNK_MIN : s->n_batch;
    return n < least ? least : n;
}

/* Tokens of a prompt beside n_decode answers. */
static int32_t chunk_size(const struct sched *s, int32_t n_decode)
{
    if (n_decode == 0) {
        return s->n_batch;
    }
    const double us = s->pass_us > SCHED_INTERVAL_US ? s->pass_us : SCHED_INTERVAL_US;
    return tokens_in(s, us);
}

/* The unfinished prompt that came first behind `order`; -1: there is none. */
static int32_t prompt_after(const struct sched *s, uint64_t order)
{
    int32_t first = -1;
    for (int32_t i = 0; i < s->n_seq; i++) {
        const struct sched_seq *q = &s->seq[i];
        if (q->state == SCHED_PREFILL && q->order > order &&
            (first < 0 || q->order < s->seq[first].order)) {
            first = i;
        }
    }
    return first;
}

/* A piece of the oldest prompt. Two prompts at once would both finish later than the first would
 * alone, and no answer would begin sooner; so others come along only in what costs nothing. */
static int32_t plan_prompts(const struct sched *s, struct sched_piece *pieces, int32_t n)
{
    const int32_t n_free = tokens_in(s, s->pass_us);
    int32_t most = chunk_size(s, n);
    int32_t n_all = 0;
    int32_t i = prompt_after(s, 0);
    while (i >= 0 && n_all < most) {
        const struct sched_seq *q = &s->seq[i];
        const int32_t left = q->n_prompt - q->n_past;
        const int32_t n_tok = left < most - n_all ? left : most - n_all;
        pieces[n++] = (struct sched_piece){
            .i_seq = i, .pos0 = q->n_past, .n_tok = n_tok, .n_logit = n_tok == left ? 1 : 0
        };
        n_all += n_tok;
        most = most < n_free ? most : n_free;
        i = prompt_after(s, q->order);
    }
    return n;
}

int32_t sched_plan(const struct sched *s, struct sched_piece *pieces)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_seq; i++) {
        const struct sched_seq *q = &s->seq[i];
        if (q->state == SCHED_DECODE && !q->is_paused) {
            const int32_t n_tok = 1 + q->n_guess;
            pieces[n++] = (struct sched_piece){
                .i_seq = i, .pos0 = q->n_past, .n_tok = n_tok, .n_logit = n_tok
            };
        }
    }
    return plan_prompts(s, pieces, n);
}

static double average(double so_far, double now)
{
    return so_far > 0.0 ? 0.75 * so_far + 0.25 * now : now;
}

/* What a step with so many tokens of prompts tells of those to come. Few tokens measure the answers
 * beside them. */
static void learn(struct sched *s, int32_t n_prompt, double us, double waited_us)
{
    if (n_prompt >= SCHED_CHUNK_MIN) {
        s->us_per_tok = average(s->us_per_tok, (us - waited_us) / n_prompt);
    }
    const bool has_waited = waited_us > 0.0 && waited_us >= SCHED_WAITS * us;
    if (has_waited || us < s->pass_us) { /* without waits a pass takes no longer than the step */
        s->pass_us = average(s->pass_us, us);
    }
}

void sched_done(struct sched *s, const struct sched_piece *pieces, int32_t n_piece, uint64_t us,
                uint64_t waited_us)
{
    int32_t n_prompt = 0;
    for (int32_t i = 0; i < n_piece; i++) {
        struct sched_seq *q = &s->seq[pieces[i].i_seq];
        if (q->state != SCHED_PREFILL) {
            q->n_past++;
            continue;
        }
        q->n_past += pieces[i].n_tok;
        n_prompt += pieces[i].n_tok;
        if (q->n_past < q->n_prompt) {
            continue;
        }
        q->state = SCHED_DECODE;
        for (int32_t k = 0; k < s->n_seq; k++) {
            if (s->seq[k].state == SCHED_RESERVED && s->seq[k].i_req == q->i_req) {
                s->seq[k].state = SCHED_DECODE;
                s->seq[k].n_past = q->n_past;
            }
        }
    }
    learn(s, n_prompt, (double)us, (double)waited_us);
}

void sched_accept(struct sched *s, int32_t i_seq, int32_t n_right)
{
    assert(s->seq[i_seq].state == SCHED_DECODE && n_right <= s->seq[i_seq].n_guess);
    s->seq[i_seq].n_past += n_right;
}

int32_t sched_n_active(const struct sched *s)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_seq; i++) {
        n += s->seq[i].state != SCHED_FREE;
    }
    return n;
}

/* A request counts at the first of its sequences. */
int32_t sched_n_running(const struct sched *s)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_seq; i++) {
        bool is_first = s->seq[i].state != SCHED_FREE;
        for (int32_t k = 0; k < i && is_first; k++) {
            is_first = s->seq[k].state == SCHED_FREE || s->seq[k].i_req != s->seq[i].i_req;
        }
        n += is_first;
    }
    return n;
}

void sched_check(const struct sched *s)
{
    for (int32_t i = 0; i < s->n_seq; i++) {
        const struct sched_seq *q = &s->seq[i];
        assert(q->state == SCHED_FREE || (q->n_past >= 0 && q->n_prompt > 0));
        assert(q->state != SCHED_PREFILL || q->n_past < q->n_prompt);
        for (int32_t k = 0; k < i && q->state != SCHED_FREE; k++) {
            assert(s->seq[k].state == SCHED_FREE || s->seq[k].i_req != q->i_req ||
                   s->seq[k].choice != q->choice); /* SC-1 */
        }
    }
    (void)s;
}
