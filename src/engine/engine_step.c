/* engine_step - one step of the engine: guesses, layout, computing, sampling
 *
 * A step has, of each answer, the token that is certain and perhaps some that are guessed to follow
 * (guess.c). Their scores are sampled in order, as if each had been a step of its own; with the
 * first token that is not the guessed one the rest is dropped, and its positions leave the cache.
 *
 *     guess      holding the lock: what the answers repeat; shared out over the step
 *     draft      without it: a small model guesses for those that repeat nothing (draft.c)
 *     lay_out    holding it, behind sched_plan: tokens and positions; pages grow
 *     run        without it: decoder.c computes, sample.c chooses, emit.c makes text, engine.c
 *                gives it out
 *
 * The lock is held for tables alone, never while computing.
 *
 * Next: engine.c, who calls these in turn; decoder.c. */
#include "engine/engine_int.h"

#include "base/log.h"
#include "base/os.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* --- from scores to a token ------------------------------------------------------------------- */

/* Samples one token, n_ahead behind the answer's last; no lock held: spec, prompt and answer are
 * the engine's while the job runs. */
static bool choose(struct engine *e, int32_t i_seq, float *logits, int32_t n_ahead, bool is_guess,
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
        .is_guess = is_guess,
    };
    return sample_row(&in, out);
}

/* --- guesses ---------------------------------------------------------------------------------- */

/* Tokens that an answer may still get, by its length and the context. */
static int32_t left_of(const struct engine *e, int32_t i_seq)
{
    const struct job *j = &e->jobs[e->sched.seq[i_seq].i_req];
    const int32_t left = e->config.n_ctx - j->n_prompt;
    const int32_t max =
        j->spec.max_tokens > 0 && j->spec.max_tokens < left ? j->spec.max_tokens : left;
    return max - e->slots[i_seq].n_answer;
}

/* Guesses that it has room for, in its reader's ring too; holding the lock. */
static int32_t guesses_of(const struct engine *e, int32_t i_seq)
{
    const struct job *j = &e->jobs[e->sched.seq[i_seq].i_req];
    const int32_t room = engine_room(e, j);
    const int32_t most = (left_of(e, i_seq) < room ? left_of(e, i_seq) : room) - 1;
    return j->spec.has_no_guesses || most < 0 ? 0 : most < GUESS_MAX ? most : GUESS_MAX;
}

/* What computing a row more takes: as one of a prompt; or where none was measured yet but steps
 * wait for the disk, half of what is computed in their time for each row they have. */
static double row_us(const struct engine *e)
{
    return e->sched.us_per_tok > 0.0 ? e->sched.us_per_tok : e->waited_row_us;
}

/* Gives out the guesses of the next step. Beside a prompt there are none: arithmetic is its limit,
 * a row more is no cheaper than the prompt's own. */
void engine_step_guess(struct engine *e)
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
    guess_share(&e->cost, e->bids, e->n_bid, row_us(e));
    for (int32_t i = 0; i < e->n_bid; i++) {
        const struct guess_bid *b = &e->bids[i];
        struct slot *slot = &e->slots[b->i_seq];
        e->sched.seq[b->i_seq].n_guess = b->n;
        guess_write(b->guess, slot->text, e->sched.seq[b->i_seq].n_prompt + slot->n_answer, b->n);
    }
}

/* --- guesses of a small model, without the lock ----------------------------------------------- */

/* The small model's guess behind a text: what the same numbers draw from its scores. */
static int32_t draft_token(struct engine *e, int32_t i_seq, float *logits, int32_t n_ahead)
{
    struct sample_output s;
    const int32_t n_vocab = e->parts.arch->n_vocab;
    const int32_t n_own = e->parts.draft_arch->n_vocab;
    for (int32_t i = 0; i < n_vocab && n_own < n_vocab; i++) {
        e->row[i] = i < n_own ? logits[i] : -INFINITY;
    }
    float *row = n_own < n_vocab ? e->row : logits;
    return choose(e, i_seq, row, n_ahead, true, &s) ? s.token : 0;
}

/* Answers that may have guesses and got none. Returns their number, at most GUESS_MAX. */
static int32_t draft_texts(const struct engine *e, struct draft_text *texts)
{
    int32_t n = 0;
    for (int32_t i = 0; i < e->n_bid && n < GUESS_MAX; i++) {
        const struct guess_bid *b = &e->bids[i];
        const struct slot *slot = &e->slots[b->i_seq];
        if (b->n == 0 && b->most > 0) {
            texts[n++] = (struct draft_text){ .i_seq = b->i_seq,
                                              .text = slot->text,
                                              .n = e->sched.seq[b->i_seq].n_prompt + slot->n_answer,
                                              .most = b->most };
        }
    }
    return n;
}

/* Guesses for texts[n_text], all of the same length, and microseconds saved by each token. */
static int32_t draft_size(const struct engine *e, const struct draft_text *texts, int32_t n_text,
                          double *saved_us)
{
    struct draft_step s = { .n_seq = n_text, .n_row = e->n_bid, .row_us = row_us(e) };
    int32_t left = GUESS_MAX;
    *saved_us = 0.0;
    for (int32_t i = 0; i < e->n_bid; i++) {
        s.n_row += e->bids[i].n;
        left -= e->bids[i].n;
    }
    s.most = n_text > 0 ? left / n_text : 0;
    for (int32_t i = 0; i < n_text; i++) {
        s.most = texts[i].most < s.most ? texts[i].most : s.most;
    }
    return draft_length(&e->draft, &e->cost, &s, saved_us);
}

/* Whom the small model computes for now. */
static void draft_for(struct engine *e, const struct draft_text *texts, int32_t n_text)
{
    for (int32_t i = 0; i < n_text; i++) {
        e->pieces[i] =
            (struct sched_piece){ .i_seq = texts[i].i_seq, .pos0 = texts[i].n, .n_tok = 1 };
    }
    e->n_piece = n_text;
}

/* The rest of an answer is taken to be as long as what it has: reading its text pays when so many
 * tokens save more than it costs. */
static bool is_worth_reading(const struct engine *e, const struct draft_text *t, double saved_us)
{
    const int32_t n_answer = e->slots[t->i_seq].n_answer;
    const int32_t left = left_of(e, t->i_seq);
    return saved_us * (left < n_answer ? left : n_answer) > draft_follow_us(&e->draft, t);
}

/* Reads pieces of texts that are not known yet, for no longer than others may wait for a token, and
 * keeps the texts that guesses can follow. Returns their number; -1: abandoned. */
static int32_t draft_read(struct engine *e, struct draft_text *texts, int32_t n_text,
                          double saved_us)
{
    int32_t n = 0;
    double left_us = SCHED_INTERVAL_US;
    for (int32_t i = 0; i < n_text; i++) {
        const struct draft_text t = texts[i];
        const uint64_t begin = os_now_us();
        if (draft_is_ready(&e->draft, &t)) {
            texts[n++] = t;
        } else if (!is_worth_reading(e, &t, saved_us)) {
            draft_rest(&e->draft);
        } else if (left_us > 0.0) {
            draft_for(e, &t, 1);
            if (draft_follow(&e->draft, &t, left_us) != ERR_OK) {
                return -1;
            }
            left_us -= (double)(os_now_us() - begin);
            texts[n] = t;
            n += draft_is_ready(&e->draft, &t);
        }
    }
    return n;
}

/* Writes n guesses behind each text; false: abandoned, there are none. */
static bool draft_write(struct engine *e, struct draft_text *texts, int32_t n_text, int32_t n)
{
    draft_for(e, texts, n_text);
    for (int32_t k = 0; k < n; k++) {
        const uint64_t begin = os_now_us();
        float *logits = draft_scores(&e->draft, texts, n_text);
        for (int32_t i = 0; i < n_text && logits == NULL; i++) {
            draft_cut(&e->draft, texts[i].i_seq, e->sched.seq[texts[i].i_seq].n_past); /* DR-1 */
        }
        if (logits == NULL) {
            return false;
        }
        for (int32_t i = 0; i < n_text; i++) {
            e->slots[texts[i].i_seq].text[texts[i].n++] = draft_token(
                e, texts[i].i_seq, logits + (size_t)i * back_ld(e->parts.draft_arch->n_vocab), k);
        }
        draft_timed(&e->draft, (double)(os_now_us() - begin));
    }
    lock_take(e->lock);
    for (int32_t i = 0; i < n_text; i++) {
        e->sched.seq[texts[i].i_seq].n_guess = n;
        e->slots[texts[i].i_seq].is_drafted = true;
    }
    lock_drop(e->lock);
    return true;
}

/* Lets the small model guess for answers that repeat nothing. Whose text it does not know yet is
 * left out while it reads that. */
bool engine_step_draft(struct engine *e)
{
    struct draft_text texts[GUESS_MAX];
    double saved_us = 0.0;
    int32_t n_text = draft_texts(e, texts);
    if (n_text > 0 && draft_size(e, texts, n_text, &saved_us) == 0) {
        draft_rest(&e->draft);
        return true;
    }
    n_text = draft_read(e, texts, n_text, saved_us);
    const int32_t n = n_text > 0 ? draft_size(e, texts, n_text, &saved_us) : 0;
    return n_text >= 0 && (n == 0 || draft_write(e, texts, n_text, n));
}

/* --- layout ----------------------------------------------------------------------------------- */

/* Lays the step out; pages grow here. Returns the number of tokens. */
int32_t engine_step_lay_out(struct engine *e)
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

/* --- what was sampled ------------------------------------------------------------------------- */

/* What a sampled token means for its choice: text, and perhaps the end. */
static void take_token(struct engine *e, int32_t i_seq, const struct sample_output *s)
{
    struct job *j = &e->jobs[e->sched.seq[i_seq].i_req];
    struct slot *slot = &e->slots[i_seq];
    j->last_us = os_now_us();
    j->first_us = j->first_us > 0 ? j->first_us : j->last_us;
    if (!j->spec.is_eos_ignored && tok_is_end(e->parts.tok, s->token)) {
        engine_end_choice(e, i_seq, ENGINE_FINISH_STOP);
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
    engine_give(e, j, &event, text);
    const bool is_full = j->n_prompt + slot->n_answer >= e->config.n_ctx;
    if (!goes_on) {
        engine_end_choice(e, i_seq, ENGINE_FINISH_STOP);
    } else if (is_full || (j->spec.max_tokens > 0 && slot->n_answer >= j->spec.max_tokens)) {
        engine_end_choice(e, i_seq, ENGINE_FINISH_LENGTH);
    }
}

/* Samples the next token of a choice; false when it has ended. Called without the lock held; takes
 * it to give out. */
static bool take_row(struct engine *e, int32_t i_seq, float *logits)
{
    struct sample_output s;
    const bool is_chosen = choose(e, i_seq, logits, 0, false, &s);
    lock_take(e->lock);
    if (is_chosen) {
        take_token(e, i_seq, &s);
    } else {
        engine_end_choice(e, i_seq, ENGINE_FINISH_ERROR);
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
        engine_cut(e, p->i_seq, q->n_past);
    }
    lock_drop(e->lock);
    if (slot->is_drafted) {
        draft_judged(&e->draft, n_guess, n_right);
    }
}

/* --- computing -------------------------------------------------------------------------------- */

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
        engine_cut(e, p->i_seq, p->pos0);
    }
    e->was_abandoned = true;
    e->stats.n_abandoned++;
    engine_check_state(e);
    lock_drop(e->lock);
}

/* The disk failed: the requests of the step end, and the service goes on. Others may be luckier,
 * but not as long as the file is another one, for which whoever owns it looks (lib/hearth.c). */
static void fail_step(struct engine *e, enum err why)
{
    log_event(LOG_ERROR, "engine", "msg=\"%s; the requests that were computed end%s%s\"",
              err_text(), why == ERR_INTEGRITY ? ", and so will all others" : "",
              why == ERR_INTEGRITY && !mem_is_torn() ? ", until the file is as it was" : "");
    lock_take(e->lock);
    for (int32_t i = 0; i < e->n_piece; i++) {
        const struct sched_seq *q = &e->sched.seq[e->pieces[i].i_seq];
        if (q->state != SCHED_FREE) {
            e->jobs[q->i_req].is_unread = true;
            engine_end_job(e, q->i_req, ENGINE_FINISH_ERROR);
        }
    }
    e->was_abandoned = false;
    engine_tell(e);
    engine_check_state(e);
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

/* The step was computed in us microseconds, of which the disk was waited for in waited_us: prompts
 * that it completed begin to be answered. */
static void finish_step(struct engine *e, int32_t n_tok, uint64_t us, uint64_t waited_us)
{
    bool has_prompt = false;
    lock_take(e->lock);
    e->was_abandoned = false;
    count_step(e);
    stream_count(e->parts.stream, &e->stats.disk_read_bytes, &e->stats.disk_used_bytes);
    for (int32_t i = 0; i < e->n_piece; i++) {
        const struct sched_piece *p = &e->pieces[i];
        const struct sched_seq *q = &e->sched.seq[p->i_seq];
        has_prompt = has_prompt || q->state == SCHED_PREFILL;
        if (q->state == SCHED_PREFILL && p->n_logit > 0) {
            start_slots(e, q->i_req);
            share_prompt(e, p->i_seq);
        }
    }
    sched_done(&e->sched, e->pieces, e->n_piece, us, waited_us);
    if (!has_prompt) {
        e->waited_row_us = waited_us > 0 ? (double)(us - waited_us) / 2.0 / n_tok : 0.0;
        guess_timed(&e->cost, n_tok, (double)us, row_us(e));
    }
    engine_check_state(e);
    lock_drop(e->lock);
}

/* Of a small model too: its guesses change no answer, but whoever writes to its file may cut it. */
static enum err are_same(const struct engine_parts *p)
{
    REQUIRE(!mem_is_torn(), ERR_INTEGRITY,
            "a packed image was shortened, or cannot be read any more: hearth verify tells what is "
            "damaged, then start again");
    TRY(p->image != NULL ? os_same(p->image, "the packed image") : ERR_OK);
    return p->draft_image != NULL ? os_same(p->draft_image, "the packed image of the draft model")
                                  : ERR_OK;
}

/* Computes a step that was laid out; called without the lock. */
void engine_step_run(struct engine *e, int32_t n_tok)
{
    make_up(e);
    const uint64_t begin = os_now_us();
    const uint64_t waited_us = stream_waited_us(e->parts.stream);
    const struct sched_piece *pieces = e->pieces;
    const struct decoder_step step = {
        .tokens = e->tokens, .pos = e->pos, .n_tok = n_tok, .runs = e->runs, .n_run = e->n_piece
    };
    arena_rewind(&e->step, 0);
    float *hidden = NULL;
    const enum err err = decoder_forward(&e->x.decoder, &step, &hidden);
    if (err != ERR_OK) {
        if (err == ERR_CANCELLED) {
            abandon_step(e);
        } else {
            fail_step(e, err);
        }
        return;
    }
    int32_t n_row = 0;
    for (int32_t i = 0; i < e->n_piece; i++) {
        for (int32_t k = pieces[i].n_tok - pieces[i].n_logit; k < pieces[i].n_tok; k++) {
            e->rows[n_row++] = e->runs[i].tok0 + k;
        }
    }
    float *logits = n_row > 0 ? decoder_logits(&e->x.decoder, hidden, e->rows, n_row) : NULL;
    if (are_same(&e->parts) != ERR_OK) {
        fail_step(e, ERR_INTEGRITY); /* what was computed may be of other weights */
        return;
    }
    finish_step(e, n_tok, os_now_us() - begin, stream_waited_us(e->parts.stream) - waited_us);
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
    engine_tell(e);
    engine_check_state(e);
    lock_drop(e->lock);
}
