/* draft - a small model that guesses what a larger one will say
 *
 * Where a sequence repeats nothing (guess.c), a model of the same vocabulary and a fraction of the
 * size can guess: it computes token after token, each from its own guess before, and the larger
 * model looks at all of them in one step. As with every guess, they count when they are what is
 * sampled.
 *
 * The small model has a cache of its own, with as many sequences. It is not kept up with every
 * step: before it guesses for a sequence it computes what its cache lacks, a prompt in pieces, one
 * between two steps of the engine. What it computed from guesses that were wrong is cut off
 * (DR-1); the right ones stay.
 *
 * Guesses of one step have one length for all sequences that get them, the one that makes most
 * tokens per second by the measured share of right ones, the measured time of the small model's
 * steps (with choosing tokens from their scores) and of the large one's. A share that is too low
 * ends them; it creeps back, so that one is tried now and then.
 *
 * Reading a prompt pays only for an answer that is long enough, and how long it will be nobody
 * knows. So a text is read once the tokens that its answer has already would have paid for that
 * (engine_step.c): what is read in vain never costs more than the answer took without it.
 *
 * Leviathan et al. 2023, Chen et al. 2023 (speculative decoding). Next: engine_step.c. */
#include "engine/draft.h"

#include "base/os.h"

#include <assert.h>

#define CHANCE     0.6 /* of a guess before any was judged */
#define CHANCE_TOP 0.97
#define PIECE_MIN  16 /* tokens: shorter pieces read all weights for next to nothing */

enum err draft_init(struct draft *d, const struct arch *a, const struct weights *w,
                    const struct plan_config *c, struct back *back, struct arena *context)
{
    d->step = back->step;
    d->chance = CHANCE;
    TRY(plan_take(&d->x, a, w, c, back, context));
    d->x.decoder.rest_us = 0; /* the rest of what nobody wants is never worth it */
    return ERR_OK;
}

/* Lays out tokens [from, to) of a text as run i of a step that has n_tok tokens so far. */
static int32_t add_run(struct draft *d, int32_t i, const struct draft_text *t, int32_t to,
                       int32_t n_tok)
{
    struct kv_seq *seq = &d->x.seqs[t->i_seq];
    const int32_t from = seq->n_tok;
    const bool is_there = kv_seq_grow(&d->x.kv, seq, to);
    assert(is_there && from < to); /* every sequence has pages for n_ctx */
    (void)is_there;
    d->runs[i] =
        (struct back_run){ .pages = seq->page, .tok0 = n_tok, .n_tok = to - from, .pos0 = from };
    for (int32_t at = from; at < to; at++, n_tok++) {
        const int32_t token = t->text[at]; /* vocabularies may be padded differently at their end */
        d->tokens[n_tok] = token < d->x.decoder.arch->n_vocab ? token : 0;
        d->pos[n_tok] = at;
    }
    return n_tok;
}

/* NULL: abandoned, and cut off. */
static float *forward(struct draft *d, const struct draft_text *t, int32_t n_run, int32_t n_tok)
{
    const struct decoder_step step = {
        .tokens = d->tokens, .pos = d->pos, .n_tok = n_tok, .runs = d->runs, .n_run = n_run
    };
    float *hidden = NULL;
    arena_rewind(d->step, 0);
    if (decoder_forward(&d->x.decoder, &step, &hidden) != ERR_OK) {
        for (int32_t i = 0; i < n_run; i++) {
            draft_cut(d, t[i].i_seq, d->runs[i].pos0);
        }
        return NULL;
    }
    return hidden;
}

/* Tokens that it can read before guesses can follow. */
static int32_t lag_of(const struct draft *d, const struct draft_text *t)
{
    return t->n - 1 - d->x.seqs[t->i_seq].n_tok;
}

bool draft_is_ready(const struct draft *d, const struct draft_text *t)
{
    return lag_of(d, t) < PLAN_DRAFT_LAG;
}

double draft_follow_us(const struct draft *d, const struct draft_text *t)
{
    const double us = lag_of(d, t) * d->tok_us;
    return us > d->us ? us : d->us; /* few tokens take as long as one */
}

enum err draft_follow(struct draft *d, const struct draft_text *t, double limit_us)
{
    const int32_t left = lag_of(d, t);
    const double fits = d->tok_us > 0.0 ? limit_us / d->tok_us : PIECE_MIN;
    const int32_t most = fits > PLAN_DRAFT_PIECE ? PLAN_DRAFT_PIECE
                         : fits > PIECE_MIN      ? (int32_t)fits
                                                 : PIECE_MIN;
    const int32_t n = left < most ? left : most;
    const uint64_t begin = os_now_us();
    if (forward(d, t, 1, add_run(d, 0, t, d->x.seqs[t->i_seq].n_tok + n, 0)) == NULL) {
        return ERR_CANCELLED;
    }
    if (n >= PIECE_MIN) {
        const double now = (double)(os_now_us() - begin) / n;
        d->tok_us = d->tok_us > 0.0 ? 0.75 * d->tok_us + 0.25 * now : now;
    }
    return ERR_OK;
}

float *draft_scores(struct draft *d, const struct draft_text *t, int32_t n_text)
{
    int32_t n_tok = 0;
    for (int32_t i = 0; i < n_text; i++) {
        n_tok = add_run(d, i, &t[i], t[i].n, n_tok);
        d->rows[i] = n_tok - 1;
    }
    const float *hidden = forward(d, t, n_text, n_tok);
    return hidden != NULL ? decoder_logits(&d->x.decoder, hidden, d->rows, n_text) : NULL;
}

void draft_timed(struct draft *d, double us)
{
    d->us = d->us <= 0.0 ? us : d->us + ((us < 2.0 * d->us ? us : 2.0 * d->us) - d->us) / 8.0;
}

void draft_cut(struct draft *d, int32_t i_seq, int32_t n)
{
    kv_seq_cut(&d->x.kv, &d->x.seqs[i_seq], n);
}

void draft_judged(struct draft *d, int32_t n_guess, int32_t n_right)
{
    for (int32_t i = 0; i < n_right; i++) {
        d->chance += (CHANCE_TOP - d->chance) / 32.0;
    }
    if (n_right < n_guess) {
        d->chance -= d->chance / 32.0;
    }
}

/* What was measured long ago, perhaps while the box was busy, is believed less and less. */
void draft_rest(struct draft *d)
{
    d->chance += d->chance < CHANCE ? (CHANCE - d->chance) / 1024.0 : 0.0;
    d->us -= d->us / 1024.0;
    d->tok_us -= d->tok_us / 1024.0;
}

int32_t draft_length(const struct draft *d, const struct guess_cost *c, const struct draft_step *s,
                     double *saved_us)
{
    const double us = guess_us(c, s->n_row, s->row_us);
    double best = us > 0.0 ? GUESS_GAIN_MIN * s->n_row / us : 0.0;
    int32_t n_best = 0;
    double chance = 1.0;
    double n_tok = s->n_row;
    *saved_us = 0.0;
    for (int32_t n = 1; n <= s->most && us > 0.0; n++) {
        chance *= d->chance;
        n_tok += chance * s->n_seq;
        const double all_us = guess_us(c, s->n_row + n * s->n_seq, s->row_us) + n * d->us;
        if (n_tok / all_us > best) {
            best = n_tok / all_us;
            n_best = n;
            *saved_us = (us * n_tok / s->n_row - all_us) / (n_tok - s->n_row + s->n_seq);
        }
    }
    return n_best;
}
