/* engine - the thread that answers requests
 *
 * One loop:
 *
 *     lock;  end what was cancelled or is late;  start what waits;  choose the next step;  unlock
 *     compute the step, sample, turn ids into text (engine_step.c)
 *     lock;  give out events;  unlock
 *
 * Callers and the engine share a table of requests under one lock, which nobody holds while
 * computing. A request's memory (prompt, events, text) is its place in that table, made at start.
 * Events wait in a ring per request; a sequence whose ring has no room for what one step may bring
 * is left out of the next step (EN-3), so a slow reader slows down nothing but its own answer.
 *
 * A request that is cancelled or late leaves at once while it waits, else between two steps. When
 * nobody wants the running step any more, or not the one whose prompt is most of it, and its rest
 * takes long (a large piece of a prompt, a large model), the step is abandoned at a layer border
 * (decoder.c): its pages are cut back and the others' part is computed again, with the same bits.
 * Never twice in a row at their cost (EN-4).
 *
 * Next: engine_step.c, what a step is; lib/hearth.c is the public face of this. */
#include "engine/engine_int.h"

#include "base/event.h"
#include "base/os.h"

#include <assert.h>
#include <string.h>

/* --- events (holding the lock) ---------------------------------------------------------------- */

/* Tokens of each choice that one step may give out: for each there is room for their events and
 * texts and those of its end, then for the end of the request. */
int32_t engine_room(const struct engine *e, const struct job *j)
{
    const int32_t n_choice = j->spec.n_choice;
    const size_t each = (size_t)n_choice * emit_room_bytes(e->piece_max);
    const int32_t events = (RING - j->n_event - 2) / n_choice - 1;
    const int32_t texts = (int32_t)((e->text_room - j->text_used) / each) - 1;
    return events < texts ? events : texts;
}

static bool has_room(const struct engine *e, const struct job *j)
{
    return engine_room(e, j) >= 1;
}

/* Appends an event and its text to the job's ring. */
void engine_give(struct engine *e, struct job *j, const struct engine_event *event,
                 struct view text)
{
    if (j->n_event == RING || e->text_room - j->text_used < text.n) {
        (void)NEVER(true); /* has_room was asked before the step */
        return;
    }
    struct record *r = &j->ring[(j->ring_at + j->n_event++) % RING];
    r->event = *event;
    r->event.n_text = text.n;
    r->text_at = j->text_used;
    if (text.n > 0) {
        memcpy(j->text + j->text_used, text.p, text.n);
    }
    j->text_used += text.n;
    e->has_news = true;
}

/* Wakes the readers when events came since the last call. */
void engine_tell(struct engine *e)
{
    if (e->has_news) {
        e->has_news = false;
        event_set(e->fd);
        lock_wake(e->lock);
    }
}

/* The small model's cache is cut at the same place. */
void engine_cut(struct engine *e, int32_t i_seq, int32_t n)
{
    kv_seq_cut(&e->x.kv, &e->x.seqs[i_seq], n);
    if (e->parts.draft_arch != NULL) {
        draft_cut(&e->draft, i_seq, n);
    }
}

/* The last event of a request (EN-2), with its times; the place stays until the reader drops it. */
static void end_job(struct engine *e, struct job *j)
{
    const uint64_t now = os_now_us();
    const uint64_t start = j->start_us > 0 ? j->start_us : now;
    const uint64_t first = j->first_us > 0 ? j->first_us : now;
    const struct engine_event event = {
        .kind = ENGINE_END,
        .token = -1,
        .finish = j->finish,
        .is_unread = j->is_unread,
        .n_prompt = j->n_prompt,
        .n_generated = j->n_generated,
        .queue_us = start - j->submit_us,
        .prefill_us = j->start_us > 0 ? first - start : 0,
        .decode_us = j->first_us > 0 ? j->last_us - j->first_us : 0,
    };
    engine_give(e, j, &event, (struct view){ NULL, 0 });
    e->stats.kv_pages_used = (uint64_t)(e->x.kv.n_page - e->x.kv.n_free);
    e->stats.n_done += j->finish == ENGINE_FINISH_STOP || j->finish == ENGINE_FINISH_LENGTH;
    e->stats.n_cancelled +=
        j->finish == ENGINE_FINISH_CANCELLED || j->finish == ENGINE_FINISH_TIMEOUT;
    e->stats.n_failed += j->finish == ENGINE_FINISH_ERROR;
    j->state = j->is_dropped ? JOB_FREE : JOB_ENDED;
}

/* One choice is done: the rest of its text, its pages, its sequence. */
void engine_end_choice(struct engine *e, int32_t i_seq, enum engine_finish finish)
{
    const struct sched_seq *q = &e->sched.seq[i_seq];
    struct job *j = &e->jobs[q->i_req];
    struct view rest;
    emit_end(&e->slots[i_seq].emit, &rest);
    const struct engine_event event = {
        .kind = ENGINE_CHOICE_END, .choice = q->choice, .token = -1, .finish = finish
    };
    engine_give(e, j, &event, rest);
    engine_cut(e, i_seq, 0);
    sched_free(&e->sched, i_seq);
    j->finish = finish > j->finish ? finish : j->finish; /* the worst of all choices */
    if (--j->n_open == 0) {
        end_job(e, j);
    }
}

void engine_end_job(struct engine *e, int32_t i_job, enum engine_finish finish)
{
    struct job *j = &e->jobs[i_job];
    int32_t freed[SCHED_SEQ_MAX];
    int32_t n_freed = 0;
    (void)sched_remove(&e->sched, i_job, freed, &n_freed);
    for (int32_t i = 0; i < n_freed; i++) {
        engine_cut(e, freed[i], 0);
    }
    j->finish = finish;
    end_job(e, j);
}

/* --- between steps ---------------------------------------------------------------------------- */

/* Holding the lock, after every change of queue, sequences or pages. */
void engine_check_state(struct engine *e)
{
    const int32_t n_seq = e->config.n_parallel;
    if (!ERR_IS_CHECKED) {
        return;
    }
    sched_check(&e->sched);
    kv_check(&e->x.kv, e->x.seqs, n_seq);
    if (e->parts.draft_arch == NULL) {
        return;
    }
    kv_check(&e->draft.x.kv, e->draft.x.seqs, n_seq);
    for (int32_t i = 0; i < n_seq; i++) {
        const struct sched_seq *q = &e->sched.seq[i];
        assert(e->draft.x.seqs[i].n_tok <= q->n_past + q->n_guess); /* DR-1 */
        (void)q;
    }
}

static uint64_t deadline_of(const struct job *j)
{
    const uint64_t left = UINT64_MAX - j->submit_us;
    return j->spec.timeout_us > 0 && j->spec.timeout_us < left ? j->submit_us + j->spec.timeout_us
                                                               : UINT64_MAX;
}

/* In the queue still: it holds no sequence, and can end at any time. */
static bool is_waiting(const struct job *j)
{
    return j->state == JOB_ACTIVE && j->start_us == 0;
}

/* Cancelled, late, or the engine closes. Those that run end between two steps alone, where every
 * sequence is in order. */
static void end_unwanted(struct engine *e, uint64_t now, bool is_between_steps)
{
    e->late_us = UINT64_MAX;
    for (int32_t i = 0; i < e->n_job; i++) {
        struct job *j = &e->jobs[i];
        if (j->state != JOB_ACTIVE || (!is_between_steps && !is_waiting(j))) {
            continue;
        }
        const uint64_t deadline = deadline_of(j);
        if (j->is_cancelled || e->is_closing) {
            engine_end_job(e, i, ENGINE_FINISH_CANCELLED);
        } else if (now > deadline) {
            engine_end_job(e, i, ENGINE_FINISH_TIMEOUT);
        } else if (is_waiting(j) && deadline < e->late_us) {
            e->late_us = deadline;
        }
    }
}

/* Nobody waits for the running step, or not the one whose prompt is most of it. The latter counts
 * for every other step only (EN-4). */
static bool is_step_unwanted(const struct engine *e, uint64_t now)
{
    int32_t n_tok = 0;
    int32_t most_unwanted = 0;
    bool is_wanted = false;
    for (int32_t i = 0; i < e->n_piece; i++) {
        const struct sched_piece *p = &e->pieces[i];
        const struct sched_seq *q = &e->sched.seq[p->i_seq];
        const struct job *j = &e->jobs[q->i_req];
        n_tok += p->n_tok;
        if (!j->is_cancelled && now <= deadline_of(j)) {
            is_wanted = true;
        } else if (p->pos0 < q->n_prompt && p->n_tok > most_unwanted) {
            most_unwanted = p->n_tok;
        }
    }
    return !is_wanted || (!e->was_abandoned && 2 * most_unwanted > n_tok);
}

/* Between two layers of a step, and of what the small model computes before it: a sign of life, and
 * whoever waits and is late need not wait for the step's end to hear of it. */
static bool at_border(void *arg, uint64_t now)
{
    struct engine *e = arg;
    cell_set(&e->heartbeat, now);
    lock_take(e->lock);
    if (now > e->late_us) {
        end_unwanted(e, now, false);
        engine_tell(e);
    }
    const bool is_unwanted = e->n_piece > 0 && (e->is_closing || is_step_unwanted(e, now));
    lock_drop(e->lock);
    return is_unwanted;
}

static void watch(struct engine *e)
{
    e->x.decoder.is_unwanted = e->draft.x.decoder.is_unwanted = at_border;
    e->x.decoder.arg = e->draft.x.decoder.arg = e;
}

/* Starts what waits, and leaves out of the next step whose reader is slow (EN-3). */
static void admit(struct engine *e)
{
    int32_t i_job;
    int32_t i_seq;
    while (sched_admit(&e->sched, &i_job, &i_seq)) {
        e->jobs[i_job].start_us = os_now_us();
        e->sched.seq[i_seq].n_past = e->jobs[i_job].spec.n_made_up;
    }
    for (int32_t i = 0; i < e->config.n_parallel; i++) {
        struct sched_seq *q = &e->sched.seq[i];
        if (q->state == SCHED_DECODE || q->state == SCHED_PREFILL) {
            q->is_paused = !has_room(e, &e->jobs[q->i_req]);
        }
    }
}

/* --- the thread ------------------------------------------------------------------------------- */

/* Tells engine_open how the check went. */
static void finish_start(struct engine *e, enum err error)
{
    lock_take(e->lock);
    e->has_started = true;
    e->start_error = error;
    if (error != ERR_OK) {
        memcpy(e->start_text, err_text(), strlen(err_text()) + 1);
    }
    e->stats.is_ready = error == ERR_OK;
    lock_wake(e->lock);
    lock_drop(e->lock);
}

void engine_thread(void *arg)
{
    struct engine *e = arg;
    mem_freeze(true);
    team_sit(e->parts.team);
    watch(e);
    const enum err error = engine_check(e);
    finish_start(e, error);
    bool goes_on = error == ERR_OK;
    while (goes_on) {
        cell_set(&e->heartbeat, os_now_us());
        lock_take(e->lock);
        end_unwanted(e, os_now_us(), true);
        engine_tell(e);
        goes_on = !e->is_closing;
        admit(e);
        engine_step_guess(e);
        if (e->parts.draft_arch != NULL && goes_on) {
            lock_drop(e->lock);
            if (!engine_step_draft(e)) {
                continue;
            }
            lock_take(e->lock);
        }
        e->n_piece = goes_on ? sched_plan(&e->sched, e->pieces) : 0;
        const int32_t n_tok = engine_step_lay_out(e);
        engine_check_state(e);
        e->stats.kv_pages_used = (uint64_t)(e->x.kv.n_page - e->x.kv.n_free);
        if (e->n_piece == 0 && goes_on) {
            (void)lock_wait(e->lock, IDLE_US);
        }
        lock_drop(e->lock);
        if (e->n_piece > 0) {
            engine_step_run(e, n_tok);
        }
    }
    mem_freeze(false);
}

/* --- callers ---------------------------------------------------------------------------------- */

/* A handle is place | generation << 16: an old one does not open the place's next request. */
static struct job *job_at(struct engine *e, int32_t handle)
{
    const int32_t i = handle & 0xFFFF;
    const uint32_t generation = (uint32_t)handle >> 16;
    if (handle < 0 || i >= e->n_job || e->jobs[i].state == JOB_FREE ||
        e->jobs[i].generation != generation) {
        return NULL;
    }
    return &e->jobs[i];
}

static enum err check_spec(const struct engine *e, const struct engine_spec *s,
                           const int32_t *prompt, size_t n_prompt)
{
    const struct plan_config *c = &e->config;
    REQUIRE(n_prompt > 0, ERR_USAGE, "the prompt is empty: at least one token is needed");
    REQUIRE(n_prompt < (size_t)c->n_ctx, ERR_LIMIT,
            "the prompt has %zu tokens; the context holds %d, and one is needed for the answer",
            n_prompt, c->n_ctx);
    REQUIRE(s->n_made_up >= 0 && (size_t)s->n_made_up < n_prompt, ERR_USAGE,
            "%d tokens of a prompt of %zu are not to be computed: one at least must be",
            s->n_made_up, n_prompt);
    REQUIRE(s->n_choice >= 1 && s->n_choice <= ENGINE_CHOICE_MAX, ERR_USAGE,
            "n is %d, must lie in 1..%d", s->n_choice, ENGINE_CHOICE_MAX);
    REQUIRE(s->n_choice <= c->n_parallel, ERR_LIMIT,
            "n is %d, but this service generates %d answers at once (--parallel)", s->n_choice,
            c->n_parallel);
    REQUIRE(s->max_tokens >= 0, ERR_USAGE, "max_tokens is %d, must be 1 or more", s->max_tokens);
    REQUIRE(s->stops.n >= 0 && s->stops.n <= EMIT_STOP_MAX, ERR_USAGE,
            "%d stop texts, at most %d are taken", s->stops.n, EMIT_STOP_MAX);
    for (int32_t i = 0; i < s->stops.n; i++) {
        REQUIRE(s->stops.text[i].n > 0 && s->stops.text[i].n <= EMIT_STOP_BYTES, ERR_USAGE,
                "stop text %d has %zu bytes, must have 1..%d", i, s->stops.text[i].n,
                EMIT_STOP_BYTES);
    }
    for (size_t i = 0; i < n_prompt; i++) {
        REQUIRE(prompt[i] >= 0 && prompt[i] < e->parts.arch->n_vocab, ERR_USAGE,
                "prompt token %zu is %d, the vocabulary has %d", i, prompt[i],
                e->parts.arch->n_vocab);
    }
    return sample_check(&s->sample, e->parts.arch->n_vocab);
}

static void fill_job(struct job *j, const struct engine_spec *spec, const int32_t *prompt,
                     size_t n_prompt)
{
    j->state = JOB_ACTIVE;
    j->generation = (j->generation + 1) & 0x7FFF;
    j->is_cancelled = false;
    j->is_dropped = false;
    j->is_unread = false;
    j->spec = *spec;
    for (int32_t i = 0; i < spec->stops.n; i++) {
        memcpy(j->stop_text[i], spec->stops.text[i].p, spec->stops.text[i].n);
        j->spec.stops.text[i].p = j->stop_text[i];
    }
    memcpy(j->prompt, prompt, n_prompt * sizeof prompt[0]);
    j->n_prompt = (int32_t)n_prompt;
    j->n_generated = 0;
    j->n_open = spec->n_choice;
    j->finish = ENGINE_FINISH_NONE;
    j->submit_us = os_now_us();
    j->start_us = j->first_us = j->last_us = 0;
    j->ring_at = j->n_event = 0;
    j->text_used = 0;
}

enum err engine_submit(struct engine *e, const struct engine_spec *spec, const int32_t *prompt,
                       size_t n_prompt, int32_t *handle)
{
    enum err err = check_spec(e, spec, prompt, n_prompt);
    lock_take(e->lock);
    int32_t i = 0;
    while (i < e->n_job && e->jobs[i].state != JOB_FREE) {
        i++;
    }
    if (err == ERR_OK && (i == e->n_job || e->is_closing ||
                          !sched_submit(&e->sched, i, spec->n_choice, (int32_t)n_prompt))) {
        err = err_set(ERR_BUSY,
                      "%d requests run or wait; room is for %d at once and %d in the queue: try "
                      "again later",
                      sched_n_running(&e->sched) + e->sched.n_queued, e->config.n_parallel,
                      e->config.n_queue);
    }
    e->stats.n_request++;
    if (err == ERR_OK) {
        fill_job(&e->jobs[i], spec, prompt, n_prompt);
        const uint64_t deadline = deadline_of(&e->jobs[i]);
        e->late_us = deadline < e->late_us ? deadline : e->late_us;
        *handle = i | (int32_t)(e->jobs[i].generation << 16);
        lock_wake(e->lock);
    } else {
        e->stats.n_refused++;
    }
    lock_drop(e->lock);
    return err;
}

/* Takes the oldest event out of the ring; the ring must not be empty. */
static void pop_event(struct engine *e, struct job *j, struct engine_event *out, char *text)
{
    const struct record *r = &j->ring[j->ring_at];
    *out = r->event;
    memcpy(text, j->text + r->text_at, r->event.n_text);
    const bool was_full = !has_room(e, j);
    j->ring_at = (j->ring_at + 1) % RING;
    if (--j->n_event == 0) {
        j->text_used = 0;
    }
    if (was_full && has_room(e, j)) {
        lock_wake(e->lock); /* the engine may have paused this answer */
    }
}

enum err engine_next(struct engine *e, int32_t handle, uint64_t timeout_us,
                     struct engine_event *out, char *text)
{
    const uint64_t from = os_now_us();
    const uint64_t until = timeout_us < UINT64_MAX - from ? from + timeout_us : UINT64_MAX;
    enum err err = ERR_OK;
    lock_take(e->lock);
    for (;;) {
        struct job *j = job_at(e, handle);
        const uint64_t now = os_now_us();
        if (j == NULL || (j->state == JOB_ENDED && j->n_event == 0)) {
            err = err_set(ERR_NOT_FOUND, "this request has ended and all its events were read");
        } else if (j->n_event > 0) {
            pop_event(e, j, out, text);
        } else if (timeout_us == 0 || now >= until) {
            err = err_set(ERR_BUSY, "no event yet");
        } else {
            (void)lock_wait(e->lock, until - now);
            continue;
        }
        break;
    }
    lock_drop(e->lock);
    return err;
}

static void cancel_locked(struct engine *e, struct job *j)
{
    j->is_cancelled = true;
    if (is_waiting(j)) {
        engine_end_job(e, (int32_t)(j - e->jobs), ENGINE_FINISH_CANCELLED);
        engine_tell(e);
    } else {
        lock_wake(e->lock);
    }
}

void engine_cancel(struct engine *e, int32_t handle)
{
    lock_take(e->lock);
    struct job *j = job_at(e, handle);
    if (j != NULL && j->state == JOB_ACTIVE) {
        cancel_locked(e, j);
    }
    lock_drop(e->lock);
}

void engine_drop(struct engine *e, int32_t handle)
{
    lock_take(e->lock);
    struct job *j = job_at(e, handle);
    if (j != NULL && j->state == JOB_ACTIVE) {
        j->is_dropped = true;
        j->ring_at = j->n_event = 0; /* nobody will read them; makes room for the end */
        j->text_used = 0;
        cancel_locked(e, j);
    } else if (j != NULL) {
        j->state = JOB_FREE;
    }
    lock_drop(e->lock);
}

int engine_fd(const struct engine *e)
{
    return e->fd;
}

void engine_fd_clear(struct engine *e)
{
    event_clear(e->fd);
}

void engine_get_stats(struct engine *e, struct engine_stats *out)
{
    lock_take(e->lock);
    *out = e->stats;
    out->heartbeat_us = cell_get(&e->heartbeat);
    out->n_running = sched_n_running(&e->sched);
    out->n_queued = e->sched.n_queued;
    out->kv_pages = (uint64_t)e->x.kv.n_page;
    lock_drop(e->lock);
}
