/* draft - a small model that guesses what a larger one will say (engine/draft.c)
 *
 * Its cache follows the larger one's: it holds tokens of the same sequences, as far as it has
 * computed them, and what turned out wrong is cut off both. What it computes is never owed to
 * anybody: with x.decoder.is_unwanted set, as the larger one's is, it ends at any layer border.
 * Owner thread: engine.
 * DR-1  a position of its cache was computed from the token that the sequence has there, or is cut
 *       before the next step. */
#ifndef HEARTH_DRAFT_H
#define HEARTH_DRAFT_H

#include "engine/guess.h"
#include "engine/plan.h"

struct draft {
    struct plan_context x;
    struct arena *step; /* borrows: the engine's, between two of its steps */
    int32_t tokens[PLAN_DRAFT_PIECE];
    int32_t pos[PLAN_DRAFT_PIECE];
    struct back_run runs[GUESS_MAX];
    int32_t rows[GUESS_MAX];
    double chance; /* that a guess is right, measured */
    double us;     /* of a step of guesses and of choosing them, measured; 0: not yet */
    double tok_us; /* of a token of a text that it reads, measured; 0: not yet */
};

/* One sequence and its tokens. */
struct draft_text {
    int32_t i_seq;
    const int32_t *text;
    int32_t n;
    int32_t most; /* guesses that it has room for */
};

/* A step that may get guesses. */
struct draft_step {
    int32_t n_seq; /* that would get them */
    int32_t most;  /* for each */
    int32_t n_row; /* of the step without them */
    double row_us; /* what a row of a prompt takes, 0 = unknown */
};

/* Cache and tables from the context arena; w, a: the small model's. ERR_MEMORY, ERR_INTEGRITY. */
enum err draft_init(struct draft *d, const struct arch *a, const struct weights *w,
                    const struct plan_config *c, struct back *back, struct arena *context) MUST_USE;
/* Guesses can follow this text at once. */
bool draft_is_ready(const struct draft *d, const struct draft_text *t);
/* Microseconds that computing what the cache lacks will take; 0 while nothing was measured. */
double draft_follow_us(const struct draft *d, const struct draft_text *t);
/* Computes one piece of what the cache lacks, of about limit_us, and measures it. ERR_CANCELLED:
 * abandoned, the cache is as before. */
enum err draft_follow(struct draft *d, const struct draft_text *t, double limit_us) MUST_USE;
/* Scores [n_text][back_ld(n_vocab)] of what follows each text, in the step arena until the next
 * call; NULL: abandoned, the cache is as before. n_text <= GUESS_MAX, each at most PLAN_DRAFT_LAG
 * tokens ahead of the cache. */
float *draft_scores(struct draft *d, const struct draft_text *t, int32_t n_text);
/* Scores, and choosing from them, took us. */
void draft_timed(struct draft *d, double us);
/* Positions from n on are not what the sequence has (0: it has ended). */
void draft_cut(struct draft *d, int32_t i_seq, int32_t n);
/* Of guesses in a row n_right were right and, unless all were, one was wrong. */
void draft_judged(struct draft *d, int32_t n_guess, int32_t n_right);
/* A step in which it could have guessed, which does not pay: the next try comes nearer. */
void draft_rest(struct draft *d);
/* How many guesses each sequence of the step should get, 0 where they do not pay. *saved_us: what
 * that saves for each token which they will have, as expected now. */
int32_t draft_length(const struct draft *d, const struct guess_cost *c, const struct draft_step *s,
                     double *saved_us);

#endif
