/* draft - a small model that guesses what a larger one will say (engine/draft.c)
 *
 * Its cache follows the larger one's: it holds tokens of the same sequences, as far as it has
 * computed them, and what turned out wrong is cut off both.
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
    double us;     /* of a step of guesses, measured; 0: not yet */
};

/* One sequence and its tokens. */
struct draft_text {
    int32_t i_seq;
    const int32_t *text;
    int32_t n;
};

/* Cache and tables from the context arena; w, a: the small model's. ERR_MEMORY, ERR_INTEGRITY. */
enum err draft_init(struct draft *d, const struct arch *a, const struct weights *w,
                    const struct plan_config *c, struct back *back, struct arena *context) MUST_USE;
/* Guesses can follow this text at once. */
bool draft_is_ready(const struct draft *d, const struct draft_text *t);
/* Computes one piece of what the cache lacks; true when it is ready then. */
bool draft_follow(struct draft *d, const struct draft_text *t);
/* Scores [n_text][back_ld(n_vocab)] of what follows each text, in the step arena until the next
 * call. n_text <= GUESS_MAX, each at most PLAN_DRAFT_LAG tokens ahead of the cache. */
float *draft_scores(struct draft *d, const struct draft_text *t, int32_t n_text);
/* Positions from n on are not what the sequence has (0: it has ended). */
void draft_cut(struct draft *d, int32_t i_seq, int32_t n);
/* Of guesses in a row n_right were right and, unless all were, one was wrong. */
void draft_judged(struct draft *d, int32_t n_guess, int32_t n_right);
/* A step in which it could have guessed, and guesses do not pay: the next try comes nearer. */
void draft_rest(struct draft *d);
/* How many guesses each of n_seq sequences should get, at most `most`, in a step that has n_row
 * rows without them; 0 where they do not pay. */
int32_t draft_length(const struct draft *d, const struct guess_cost *c, int32_t n_seq, int32_t most,
                     int32_t n_row, double row_us);

#endif
