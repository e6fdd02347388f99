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
 * steps and of the large one's. A share that is too low ends them; it creeps back, so that one is
 * tried now and then.
 *
 * Leviathan et al. 2023, Chen et al. 2023 (speculative decoding). Next: engine.c. */
#include "engine/draft.h"

#include "base/os.h"

#include <assert.h>

#define CHANCE     0.6 /* of a guess before any was judged */
#define CHANCE_TOP 0.97

enum err draft_init(struct draft *d, const struct arch *a, const struct weights *w,
                    const struct plan_config *c, struct back *back, struct arena *context)
{
    d->step = back->step;
    d->chance = CHANCE;
    return plan_take(&d->x, a, w, c, back, context);
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

static float *forward(struct draft *d, int32_t n_run, int32_t n_tok)
{
    const struct decoder_step step = {
        .tokens = d->tokens, .pos = d->pos, .n_tok = n_tok, .runs = d->runs, .n_run = n_run
    };
    float *hidden = NULL;
    arena_rewind(d->step, 0);
    const enum err e = decoder_forward(&d->x.decoder, &step, &hidden);
    assert(e == ERR_OK); /* nobody abandons these */
    (void)e;
    return hidden;
}

bool draft_is_ready(const struct draft *d, const struct draft_text *t)
{
    return t->n - d->x.seqs[t->i_seq].n_tok <= PLAN_DRAFT_LAG;
}

bool draft_follow(struct draft *d, const struct draft_text *t)
{
    const int32_t n_tok = d->x.seqs[t->i_seq].n_tok;
    const int32_t left = t->n - 1 - n_tok;
    const int32_t n = left < PLAN_DRAFT_PIECE ? left : PLAN_DRAFT_PIECE;
    (void)forward(d, 1, add_run(d, 0, t, n_tok + n, 0));
    return draft_is_ready(d, t);
}

float *draft_scores(struct draft *d, const struct draft_text *t, int32_t n_text)
{
    const uint64_t begin = os_now_us();
    int32_t n_tok = 0;
    for (int32_t i = 0; i < n_text; i++) {
        n_tok = add_run(d, i, &t[i], t[i].n, n_tok);
        d->rows[i] = n_tok - 1;
    }
    float *logits = decoder_logits(&d->x.decoder, forward(d, n_text, n_tok), d->rows, n_text);
    const double us = (double)(os_now_us() - begin);
    d->us = d->us <= 0.0 ? us : d->us + ((us < 2.0 * d->us ? us : 2.0 * d->us) - d->us) / 8.0;
    return logits;
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

void draft_rest(struct draft *d)
{
    d->chance += d->chance < CHANCE ? (CHANCE - d->chance) / 1024.0 : 0.0;
}

int32_t draft_length(const struct draft *d, const struct guess_cost *c, int32_t n_seq, int32_t most,
                     int32_t n_row, double row_us)
{
    const double us = guess_us(c, n_row, row_us);
    double best = us > 0.0 ? GUESS_GAIN_MIN * n_row / us : 0.0;
    int32_t n_best = 0;
    double chance = 1.0;
    double n_tok = n_row;
    for (int32_t n = 1; n <= most && us > 0.0; n++) {
        chance *= d->chance;
        n_tok += chance * n_seq;
        const double rate = n_tok / (guess_us(c, n_row + n * n_seq, row_us) + n * d->us);
        if (rate > best) {
            best = rate;
            n_best = n;
        }
    }
    return n_best;
}
