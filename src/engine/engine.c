/* engine - the thread that answers requests
 *
 * One loop:
 *
 *     lock;  end what was cancelled or is late;  start what waits;  choose the next step;  unlock
 *     compute the step (decoder.c), sample (sample.c), turn ids into text (emit.c)
 *     lock;  give out events;  unlock
 *
 * A step has, of each answer, the token that is certain and perhaps some that are guessed to follow
 * (guess.c). Their scores are sampled in order, as if each had been a step of its own; with the
 * first token that is not the guessed one the rest is dropped, and its positions leave the cache.
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
 * Before the first request the engine checks itself: two tokens computed in one step must give
 * exactly the scores that they give one after another. A machine that miscomputes, or a kernel that
 * breaks the numeric contract, is found before it answers anybody.
 *
 * Next: lib/hearth.c is the public face of this. */
#include "engine/engine_int.h"

#include "base/event.h"
#include "base/os.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* --- events (holding the lock) ---------------------------------------------------------------- */

/* Tokens of each choice that one step may give out: for each there is room for their events and
 * texts and those of its end, then for the end of the request. */
static int32_t room_of(const struct engine *e, const struct job *j)
{
    const int32_t n_choice = j->spec.n_choice;
    const size_t each = (size_t)n_choice * emit_room_bytes(e->piece_max);
    const int32_t events = (RING - j->n_event - 2) / n_choice - 1;
    const int32_t texts = (int32_t)((e->text_room - j->text_used) / each) - 1;
    return events < texts ? events : texts;
}

static bool has_room(const struct engine *e, const struct job *j)
{
    return room_of(e, j) >= 1;
}

/* Appends an event and its text to the job's ring. */
static void give(struct engine *e, struct job *j, const struct engine_event *event,
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
static void tell(struct engine *e)
{
    if (e->has_news) {
        e->has_news = false;
        event_set(e->fd);
        lock_wake(e->lock);
    }
}

/* The sequence has n positions that are worth keeping; of the token behind them, the last, a small
 * model may know. */
static void cut(struct engine *e, int32_t i_seq, int32_t n)
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
        .n_prompt = j->n_prompt,
        .n_generated = j->n_generated,
        .queue_us = start - j->submit_us,
        .prefill_us = j->start_us > 0 ? first - start : 0,
        .decode_us = j->first_us > 0 ? j->last_us - j->first_us : 0,
    };
    give(e, j, &event, (struct view){ NULL, 0 });
    e->stats.kv_pages_used = (uint64_t)(e->x.kv.n_page - e->x.kv.n_free);
    e->stats.n_done += j->finish == ENGINE_FINISH_STOP || j->finish == ENGINE_FINISH_LENGTH;
    e->stats.n_cancelled +=
        j->finish == ENGINE_FINISH_CANCELLED || j->finish == ENGINE_FINISH_TIMEOUT;
    e->stats.n_failed += j->finish == ENGINE_FINISH_ERROR;
    j->state = j->is_dropped ? JOB_FREE : JOB_ENDED;
}

/* One choice is done: the rest of its text, its pages, its sequence. */
static void end_choice(struct engine *e, int32_t i_seq, enum engine_finish finish)
{
    const struct sched_seq *q = &e->sched.seq[i_seq];
    struct job *j = &e->jobs[q->i_req];
    struct view rest;
    emit_end(&e->slots[i_seq].emit, &rest);
    const struct engine_event event = {
        .kind = ENGINE_CHOICE_END, .choice = q->choice, .token = -1, .finish = finish
    };
    give(e, j, &event, rest);
    cut(e, i_seq, 0);
    sched_free(&e->sched, i_seq);
    j->finish = finish > j->finish ? finish : j->finish; /* the worst of all choices */
    if (--j->n_open == 0) {
        end_job(e, j);
    }
}

/* Ends a whole request, wherever it is. */
static void end_all(struct engine *e, int32_t i_job, enum engine_finish finish)
{
    struct job *j = &e->jobs[i_job];
    int32_t freed[SCHED_SEQ_MAX];
    int32_t n_freed = 0;
    (void)sched_remove(&e->sched, i_job, freed, &n_freed);
    for (int32_t i = 0; i < n_freed; i++) {
        cut(e, freed[i], 0);
    }
    j->finish = finish;
    end_job(e, j);
}

/* --- a step ----------------------------------------------------------------------------------- */

/* Holding the lock, after every change of queue, sequences or pages. */
static void check_state(struct engine *e)
{
    if (ERR_IS_CHECKED) {
        sched_check(&e->sched);
        kv_check(&e->x.kv, e->x.seqs, e->config.n_parallel);
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
            end_all(e, i, ENGINE_FINISH_CANCELLED);
        } else if (now > deadline) {
            end_all(e, i, ENGINE_FINISH_TIMEOUT);
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
        const struct job *j = &e->jobs[e->sched.seq[p->i_seq].i_req];
        n_tok += p->n_tok;
        if (!j->is_cancelled && now <= deadline_of(j)) {
            is_wanted = true;
        } else if (p->n_tok > most_unwanted) {
            most_unwanted = p->n_tok;
        }
    }
    return !is_wanted || (!e->was_abandoned && 2 * most_unwanted > n_tok);
}

/* Between two layers of a step: a sign of life, and whoever waits and is late need not wait for the
 * step's end to hear of it. */
static bool at_border(void *arg, uint64_t now)
{
    struct engine *e = arg;
    cell_set(&e->heartbeat, now);
    lock_take(e->lock);
    if (now > e->late_us) {
        end_unwanted(e, now, false);
        tell(e);
    }
    const bool is_unwanted = e->n_piece > 0 && (e->is_closing || is_step_unwanted(e, now));
    lock_drop(e->lock);
    return is_unwanted;
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

/* Guesses that an answer has room for: in its reader's ring, its length and the context. */
static int32_t guesses_of(const struct engine *e, int32_t i_seq)
{
    const struct job *j = &e->jobs[e->sched.seq[i_seq].i_req];
    const int32_t n_answer = e->slots[i_seq].n_answer;
    const int32_t room = room_of(e, j) - 1;
    const int32_t left = e->config.n_ctx - j->n_prompt;
    const int32_t max =
        j->spec.max_tokens > 0 && j->spec.max_tokens < left ? j->spec.max_tokens : left;
    const int32_t most = max - n_answer - 1 < room ? max - n_answer - 1 : room;
    return j->spec.has_no_guesses || most < 0 ? 0 : most < GUESS_MAX ? most : GUESS_MAX;
}

/* Gives out the guesses of the next step. Beside a prompt there are none: arithmetic is its limit,
 * a row more is no cheaper than the prompt's own. */
static void guess(struct engine *e)
{
    bool has_prompt = false;
    e->n_bid = 0;
    for (int32_t i = 0; i < e->config.n_parallel; i++) {
        struct sched_seq *q = &e->sched.seq[i];
        has_prompt = has_prompt || q->state == SCHED_PREFILL;
        q->n_guess = 0;
        e->slots[i].is_drafted = false;
        if (q->state == SCHED_DECODE && !q->is_paused) {
            e->bids[e->n_bid++] = (struct guess_bid){ .guess = &e->slots[i].guess,
                                                      .most = guesses_of(e, i),
                                                      .i_seq = i };
        }
    }
    if (has_prompt) {
        e->n_bid = 0;
    }
    guess_share(&e->cost, e->bids, e->n_bid, e->sched.us_per_tok);
    for (int32_t i = 0; i < e->n_bid; i++) {
        const struct guess_bid *b = &e->bids[i];
        struct slot *slot = &e->slots[b->i_seq];
        e->sched.seq[b->i_seq].n_guess = b->n;
        guess_write(b->guess, slot->text, e->sched.seq[b->i_seq].n_prompt + slot->n_answer, b->n);
    }
}

/* Lays the step out; pages grow here. Returns the number of tokens. */
static int32_t lay_out(struct engine *e)
{
    int32_t n_tok = 0;
    for (int32_t i = 0; i < e->n_piece; i++) {
        const struct sched_piece *p = &e->pieces[i];
        const struct sched_seq *q = &e->sched.seq[p->i_seq];
        const struct slot *slot = &e->slots[p->i_seq];
        const bool is_there = kv_seq_grow(&e->x.kv, &e->x.seqs[p->i_seq], p->pos0 + p->n_tok);
        assert(is_there); /* every sequence has pages for n_ctx */
        (void)is_there;
        e->runs[i] = (struct back_run){
            .pages = e->x.seqs[p->i_seq].page, .tok0 = n_tok, .n_tok = p->n_tok, .pos0 = p->pos0
        };
        for (int32_t t = 0; t < p->n_tok; t++, n_tok++) {
            const int32_t at = p->pos0 + t;
            e->tokens[n_tok] =
                at < q->n_prompt ? e->jobs[q->i_req].prompt[at] : slot->answer[at - q->n_prompt];
            e->pos[n_tok] = at;
        }
    }
    return n_tok;
}

/* The further choices of a request read the pages of the first. */
static void share_prompt(struct engine *e, int32_t i_first)
{
    const struct sched_seq *first = &e->sched.seq[i_first];
    for (int32_t i = 0; i < e->config.n_parallel; i++) {
        if (e->sched.seq[i].state == SCHED_RESERVED && e->sched.seq[i].i_req == first->i_req) {
            kv_seq_share(&e->x.kv, &e->x.seqs[i], &e->x.seqs[i_first]);
        }
    }
}

/* Samples one token, n_ahead behind the answer's last; no lock held: spec, prompt and answer are
 * the engine's while the job runs. */
static bool choose(struct engine *e, int32_t i_seq, float *logits, int32_t n_ahead,
                   struct sample_output *out)
{
    const struct sched_seq *q = &e->sched.seq[i_seq];
    const struct job *j = &e->jobs[q->i_req];
    const struct slot *slot = &e->slots[i_seq];
    const struct sample_input in = {
        .params = &j->spec.sample,
        .logits = logits,
        .n_vocab = e->parts.arch->n_vocab,
        .prompt = j->prompt,
        .n_prompt = j->n_prompt,
        .answer = slot->answer,
        .n_answer = slot->n_answer + n_ahead,
        .choice = q->choice,
        .kern = e->parts.kern,
        .cands = e->cands,
        .raw = e->raw,
        .counts = e->counts,
        .banned = e->ends,
        .n_banned = j->spec.is_eos_ignored ? e->n_end : 0,
    };
    return sample_row(&in, out);
}

/* The small model's guess behind a text: what the same numbers draw from its scores. */
static int32_t draft_token(struct engine *e, int32_t i_seq, const float *logits, int32_t n_ahead)
{
    struct sample_output s;
    const int32_t n_vocab = e->parts.arch->n_vocab;
    const int32_t n_own = e->parts.draft_arch->n_vocab;
    for (int32_t i = 0; i < n_vocab; i++) {
        e->row[i] = i < n_own ? logits[i] : -INFINITY;
    }
    return choose(e, i_seq, e->row, n_ahead, &s) ? s.token : 0;
}

/* Those that may have guesses and got none. Returns their number, at most GUESS_MAX; *most: guesses
 * that each of them may have. */
static int32_t draft_bids(const struct engine *e, int32_t *picked, int32_t *n_row, int32_t *most)
{
    int32_t n = 0;
    int32_t left = GUESS_MAX;
    *most = GUESS_MAX;
    *n_row = e->n_bid;
    for (int32_t i = 0; i < e->n_bid; i++) {
        const struct guess_bid *b = &e->bids[i];
        *n_row += b->n;
        left -= b->n;
        if (b->n == 0 && b->most > 0 && n < GUESS_MAX) {
            picked[n++] = i;
            *most = b->most < *most ? b->most : *most;
        }
    }
    *most = n > 0 && left / n < *most ? left / n : *most;
    return n;
}

/* Lets the small model guess for answers that repeat nothing; called without the lock. One whose
 * text it does not know yet is left out while it reads a piece of that. */
static void draft(struct engine *e)
{
    struct draft_text texts[GUESS_MAX];
    int32_t picked[GUESS_MAX];
    int32_t n_row = 0;
    int32_t most = 0;
    int32_t n_text = 0;
    bool has_read = false;
    const double row_us = e->sched.us_per_tok;
    const int32_t n_bid = draft_bids(e, picked, &n_row, &most);
    const int32_t n = n_bid > 0 ? draft_length(&e->draft, &e->cost, n_bid, most, n_row, row_us) : 0;
    for (int32_t i = 0; i < n_bid && n > 0; i++) {
        const int32_t i_seq = e->bids[picked[i]].i_seq;
        const struct slot *slot = &e->slots[i_seq];
        const struct draft_text t = { i_seq, slot->text,
                                      e->sched.seq[i_seq].n_prompt + slot->n_answer };
        const bool is_ready =
            draft_is_ready(&e->draft, &t) || (!has_read && draft_follow(&e->draft, &t));
        has_read = has_read || !is_ready;
        if (is_ready) {
            e->bids[picked[i]].n = n;
            texts[n_text++] = t;
        }
    }
    for (int32_t k = 0; k < n && n_text > 0; k++) {
        const float *logits = draft_scores(&e->draft, texts, n_text);
        for (int32_t i = 0; i < n_text; i++) {
            struct slot *slot = &e->slots[texts[i].i_seq];
            slot->text[texts[i].n++] = draft_token(
                e, texts[i].i_seq, logits + (size_t)i * back_ld(e->parts.draft_arch->n_vocab), k);
        }
    }
    lock_take(e->lock);
    for (int32_t i = 0; i < n_text; i++) {
        e->sched.seq[texts[i].i_seq].n_guess = n;
        e->slots[texts[i].i_seq].is_drafted = true;
    }
    lock_drop(e->lock);
}

/* What a sampled token means for its choice: text, and perhaps the end. */
static void take_token(struct engine *e, int32_t i_seq, const struct sample_output *s)
{
    struct job *j = &e->jobs[e->sched.seq[i_seq].i_req];
    struct slot *slot = &e->slots[i_seq];
    j->last_us = os_now_us();
    j->first_us = j->first_us > 0 ? j->first_us : j->last_us;
    if (!j->spec.is_eos_ignored && tok_is_end(e->parts.tok, s->token)) {
        end_choice(e, i_seq, ENGINE_FINISH_STOP);
        return;
    }
    slot->answer[slot->n_answer++] = s->token;
    j->n_generated++;
    e->stats.n_generated_tok++;
    struct view text;
    const bool goes_on = emit_token(&slot->emit, e->parts.tok, &j->spec.stops, s->token,
                                    j->spec.shows_special, &text);
    struct engine_event event = { .kind = ENGINE_TOKEN,
                                  .choice = e->sched.seq[i_seq].choice,
                                  .token = s->token,
                                  .logprob = s->logprob,
                                  .n_top = s->n_top };
    memcpy(event.top, s->top, sizeof event.top);
    give(e, j, &event, text);
    const bool is_full = j->n_prompt + slot->n_answer >= e->config.n_ctx;
    if (!goes_on) {
        end_choice(e, i_seq, ENGINE_FINISH_STOP);
    } else if (is_full || (j->spec.max_tokens > 0 && slot->n_answer >= j->spec.max_tokens)) {
        end_choice(e, i_seq, ENGINE_FINISH_LENGTH);
    }
}

/* Samples the next token of a choice; false when it has ended. Called without the lock held; takes
 * it to give out. */
static bool take_row(struct engine *e, int32_t i_seq, float *logits)
{
    struct sample_output s;
    const bool is_chosen = choose(e, i_seq, logits, 0, &s);
    lock_take(e->lock);
    if (is_chosen) {
        take_token(e, i_seq, &s);
    } else {
        end_choice(e, i_seq, ENGINE_FINISH_ERROR);
    }
    lock_drop(e->lock);
    return e->sched.seq[i_seq].state != SCHED_FREE;
}

/* The scores behind a prompt serve all choices of its request. */
static void take_first(struct engine *e, int32_t i_seq, float *logits)
{
    const int32_t i_req = e->sched.seq[i_seq].i_req;
    const struct engine_spec *spec = &e->jobs[i_req].spec;
    const int32_t n_choice = spec->n_choice;
    const bool has_guesses = !spec->has_no_guesses;
    for (int32_t i = 0; i < e->config.n_parallel; i++) {
        const struct sched_seq *q = &e->sched.seq[i];
        struct slot *slot = &e->slots[i];
        if (q->state == SCHED_FREE || q->i_req != i_req) {
            continue;
        }
        if (n_choice > 1) {
            memcpy(e->row, logits, (size_t)e->parts.arch->n_vocab * sizeof logits[0]);
        }
        if (take_row(e, i, n_choice > 1 ? e->row : logits) && has_guesses) {
            guess_begin(&slot->guess, slot->text, q->n_prompt + slot->n_answer);
        }
    }
}

/* The scores behind an answer's certain token and its guesses: they count as long as what is
 * sampled is what was guessed (GU-1). */
static void take_next(struct engine *e, const struct sched_piece *p, float *logits)
{
    struct slot *slot = &e->slots[p->i_seq];
    const struct sched_seq *q = &e->sched.seq[p->i_seq];
    const bool has_guesses = !e->jobs[q->i_req].spec.has_no_guesses;
    int32_t n_right = 0;
    int32_t n_guess = 0; /* judged: an end leaves the rest open */
    bool goes_on = true;
    for (int32_t i = 0; i == n_right && i < p->n_tok && goes_on; i++) {
        const int32_t at = slot->n_answer;
        const int32_t guessed = slot->answer[at];
        goes_on = take_row(e, p->i_seq, logits + (size_t)i * back_ld(e->parts.arch->n_vocab));
        if (goes_on && has_guesses) {
            guess_next(&slot->guess, slot->text, q->n_prompt + slot->n_answer);
        }
        n_guess += goes_on && i + 1 < p->n_tok;
        n_right += goes_on && i + 1 < p->n_tok && slot->answer[at] == guessed;
    }
    lock_take(e->lock);
    e->stats.n_guessed += (uint64_t)p->n_tok - 1;
    e->stats.n_accepted += (uint64_t)n_right;
    if (goes_on) {
        sched_accept(&e->sched, p->i_seq, n_right);
        cut(e, p->i_seq, q->n_past);
    }
    lock_drop(e->lock);
    if (slot->is_drafted) {
        draft_judged(&e->draft, n_guess, n_right);
    }
}

/* Buckets by powers of two: 1, 2, 3..4, 5..8 decoding sequences, ... */
static void count_step(struct engine *e)
{
    int32_t n_decode = 0;
    for (int32_t i = 0; i < e->n_piece; i++) {
        const struct sched_piece *p = &e->pieces[i];
        const bool is_prompt = p->pos0 < e->sched.seq[p->i_seq].n_prompt;
        n_decode += !is_prompt;
        e->stats.n_prompt_tok += is_prompt ? (uint64_t)p->n_tok : 0;
    }
    e->stats.n_step++;
    if (n_decode > 0) {
        int bucket = 0;
        while (bucket < ENGINE_BATCH_BUCKETS - 1 && n_decode > 1 << bucket) {
            bucket++;
        }
        e->stats.step_batch[bucket]++;
    }
}

/* Starts the slots of choices whose prompt this step completes. */
static void start_slots(struct engine *e, int32_t i_req)
{
    const struct job *j = &e->jobs[i_req];
    for (int32_t i = 0; i < e->config.n_parallel; i++) {
        struct slot *slot = &e->slots[i];
        if (e->sched.seq[i].state != SCHED_FREE && e->sched.seq[i].i_req == i_req) {
            emit_start(&slot->emit);
            memcpy(slot->text, j->prompt, (size_t)j->n_prompt * sizeof slot->text[0]);
            slot->answer = slot->text + j->n_prompt;
            slot->n_answer = 0;
        }
    }
}

/* The step brought nothing: the cache is as before it. */
static void abandon_step(struct engine *e)
{
    lock_take(e->lock);
    for (int32_t i = 0; i < e->n_piece; i++) {
        const struct sched_piece *p = &e->pieces[i];
        cut(e, p->i_seq, p->pos0);
    }
    e->was_abandoned = true;
    e->stats.n_abandoned++;
    check_state(e);
    lock_drop(e->lock);
}

/* Prompts that begin with tokens which are not to be computed get a cache for them; their time
 * counts from then on. */
static void make_up(struct engine *e)
{
    for (int32_t i = 0; i < e->n_piece; i++) {
        const struct sched_piece *p = &e->pieces[i];
        struct job *j = &e->jobs[e->sched.seq[p->i_seq].i_req];
        if (j->spec.n_made_up > 0 && p->pos0 == j->spec.n_made_up) {
            kv_make_up(&e->x.kv, &e->x.seqs[p->i_seq], p->pos0, e->parts.kern);
            lock_take(e->lock);
            j->start_us = os_now_us();
            lock_drop(e->lock);
        }
    }
}

/* The step was computed in us microseconds: prompts that it completed begin to be answered. */
static void finish_step(struct engine *e, int32_t n_tok, uint64_t us)
{
    bool has_prompt = false;
    lock_take(e->lock);
    e->was_abandoned = false;
    count_step(e);
    for (int32_t i = 0; i < e->n_piece; i++) {
        const struct sched_piece *p = &e->pieces[i];
        const struct sched_seq *q = &e->sched.seq[p->i_seq];
        has_prompt = has_prompt || q->state == SCHED_PREFILL;
        if (q->state == SCHED_PREFILL && p->n_logit > 0) {
            start_slots(e, q->i_req);
            share_prompt(e, p->i_seq);
        }
    }
    sched_done(&e->sched, e->pieces, e->n_piece, us);
    if (!has_prompt) {
        guess_timed(&e->cost, n_tok, (double)us, e->sched.us_per_tok);
    }
    check_state(e);
    lock_drop(e->lock);
}

/* Computes a step that was laid out; called without the lock. */
static void run_step(struct engine *e, int32_t n_tok)
{
    make_up(e);
    const uint64_t begin = os_now_us();
    const struct sched_piece *pieces = e->pieces;
    const struct decoder_step step = {
        .tokens = e->tokens, .pos = e->pos, .n_tok = n_tok, .runs = e->runs, .n_run = e->n_piece
    };
    arena_rewind(&e->step, 0);
    float *hidden = NULL;
    if (decoder_forward(&e->x.decoder, &step, &hidden) != ERR_OK) {
        abandon_step(e);
        return;
    }
    int32_t n_row = 0;
    for (int32_t i = 0; i < e->n_piece; i++) {
        for (int32_t k = pieces[i].n_tok - pieces[i].n_logit; k < pieces[i].n_tok; k++) {
            e->rows[n_row++] = e->runs[i].tok0 + k;
        }
    }
    float *logits = n_row > 0 ? decoder_logits(&e->x.decoder, hidden, e->rows, n_row) : NULL;
    finish_step(e, n_tok, os_now_us() - begin);
    const size_t ld = back_ld(e->parts.arch->n_vocab);
    n_row = 0;
    for (int32_t i = 0; i < e->n_piece; i++) {
        if (pieces[i].n_logit > 0 && e->slots[pieces[i].i_seq].n_answer == 0) {
            take_first(e, pieces[i].i_seq, logits + (size_t)n_row * ld);
        } else if (pieces[i].n_logit > 0) {
            take_next(e, &pieces[i], logits + (size_t)n_row * ld);
        }
        n_row += pieces[i].n_logit;
    }
    lock_take(e->lock);
    tell(e);
    check_state(e);
    lock_drop(e->lock);
}

/* --- the check at start ----------------------------------------------------------------------- */

/* Scores after the last of n tokens of sequence 0, computed from `pos0` on; copied to `to`. */
static enum err check_step(struct engine *e, int32_t pos0, int32_t n, float *to)
{
    struct kv_seq *seq = &e->x.seqs[0];
    const bool is_there = kv_seq_grow(&e->x.kv, seq, pos0 + n);
    REQUIRE(is_there, ERR_FAILED, "check at start: no pages");
    for (int32_t i = 0; i < n; i++) {
        const int32_t bos = tok_bos(e->parts.tok);
        e->tokens[i] = pos0 + i == 0 && bos >= 0 ? bos : (pos0 + i + 7) % e->parts.arch->n_vocab;
        e->pos[i] = pos0 + i;
    }
    e->runs[0] = (struct back_run){ .pages = seq->page, .n_tok = n, .pos0 = pos0 };
    const struct decoder_step step = {
        .tokens = e->tokens, .pos = e->pos, .n_tok = n, .runs = e->runs, .n_run = 1
    };
    const int32_t row = n - 1;
    float *hidden = NULL;
    arena_rewind(&e->step, 0);
    TRY(decoder_forward(&e->x.decoder, &step, &hidden));
    const float *logits = decoder_logits(&e->x.decoder, hidden, &row, 1);
    memcpy(to, logits, (size_t)e->parts.arch->n_vocab * sizeof to[0]);
    return ERR_OK;
}

/* The second of two tokens in one step, and then alone: equal bits are the contract (DE-1), and
 * unequal ones mean that a processor, its memory or a kernel is broken. Each step reads all
 * weights, which is much of a start: two are enough. */
enum err engine_check(struct engine *e)
{
    const int32_t n_vocab = e->parts.arch->n_vocab;
    const int32_t n = e->config.n_ctx >= 2 && e->config.n_batch >= 2 ? 2 : 1;
    TRY(check_step(e, 0, n, e->row));
    kv_seq_cut(&e->x.kv, &e->x.seqs[0], n - 1);
    TRY(check_step(e, n - 1, 1, e->raw));
    kv_seq_cut(&e->x.kv, &e->x.seqs[0], 0);
    for (int32_t i = 0; i < n_vocab; i++) {
        REQUIRE(
            isfinite(e->row[i]), ERR_INTEGRITY,
            "check at start: the score of token %d is not a finite number; the weights are damaged",
            i);
    }
    REQUIRE(memcmp(e->row, e->raw, (size_t)n_vocab * sizeof e->row[0]) == 0, ERR_FAILED,
            "check at start: two tokens at once give other scores than one alone; this machine or "
            "build miscomputes");
    return ERR_OK;
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
    e->x.decoder.is_unwanted = at_border;
    e->x.decoder.arg = e;
    const enum err error = engine_check(e);
    finish_start(e, error);
    bool goes_on = error == ERR_OK;
    while (goes_on) {
        cell_set(&e->heartbeat, os_now_us());
        lock_take(e->lock);
        end_unwanted(e, os_now_us(), true);
        tell(e);
        goes_on = !e->is_closing;
        admit(e);
        guess(e);
        if (e->parts.draft_arch != NULL && goes_on) {
            lock_drop(e->lock);
            draft(e);
            lock_take(e->lock);
        }
        e->n_piece = goes_on ? sched_plan(&e->sched, e->pieces) : 0;
        const int32_t n_tok = lay_out(e);
        check_state(e);
        e->stats.kv_pages_used = (uint64_t)(e->x.kv.n_page - e->x.kv.n_free);
        if (e->n_piece == 0 && goes_on) {
            (void)lock_wait(e->lock, IDLE_US);
        }
        lock_drop(e->lock);
        if (e->n_piece > 0) {
            run_step(e, n_tok);
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
        end_all(e, (int32_t)(j - e->jobs), ENGINE_FINISH_CANCELLED);
        tell(e);
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
