/* guess - which tokens may come next, and whether to compute them at once (engine/guess.c)
 *
 * Pure logic: no clock, no model, no memory but what guess_init takes from an arena. A sequence's
 * tokens lie in an array of the caller's, prompt and answer in one piece.
 * Owner thread: engine.
 * GU-1  what is guessed changes speed alone: a guess counts when it equals the token that was
 *       sampled at its place, and is overwritten by it otherwise.
 * GU-2  a step has at most GUESS_MAX guesses, and none where measurements say that they cost more
 *       than they bring. */
#ifndef HEARTH_GUESS_H
#define HEARTH_GUESS_H

#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>

#define GUESS_MAX     15 /* of all sequences of a step: 16 rows of one keep all multipliers busy */
#define GUESS_CLASSES 6  /* by how many tokens before the guess agree */
/* Guesses must make so many more tokens per second: less is not worth the noise. */
#define GUESS_GAIN_MIN 1.05

/* What a sequence repeats, and how often guesses were right. */
struct guess {
    int32_t *head; /* [n_head] the last place whose pair of tokens hashes so; -1: none */
    int32_t *prev; /* [n_max] of each place: the one before it with the same hash */
    int32_t n_head;
    int32_t n_max;
    int32_t n;      /* places that are entered */
    int32_t at;     /* the next token will be the one that lies here; -1: who knows */
    int32_t n_same; /* tokens before both that agree; 0 after a token that was replaced */
    float n_right[GUESS_CLASSES]; /* of the last few dozen, recent ones count more */
    float n_all[GUESS_CLASSES];
};

/* Tables for sequences of up to n_max tokens (counting arenas too). ERR_MEMORY. */
enum err guess_init(struct guess *g, int32_t n_max, struct arena *arena) MUST_USE;
/* Begins a sequence: text[n] are its prompt and the first token of its answer, n <= n_max. */
void guess_begin(struct guess *g, const int32_t *text, int32_t n);
/* text[n - 1] was appended; it is compared with the guess, made or not. */
void guess_next(struct guess *g, const int32_t *text, int32_t n);
/* Writes k guesses behind text[n], which has room for them; k is 0 where there are none. */
void guess_write(const struct guess *g, int32_t *text, int32_t n, int32_t k);
/* How probably guess k (0: the first) is right if those before it are; 0: there is none. */
double guess_chance(const struct guess *g, int32_t k);

/* What steps of answers alone cost, by the rows in them: a common scale and a shape. */
#define GUESS_SIZES 40 /* 1, 2, 4, 8, then in eights */
struct guess_cost {
    double scale_us; /* 0: nothing measured */
    double shape[GUESS_SIZES];
};

/* A step of n_row rows took us. row_us: what a row of a prompt takes, 0 = unknown. */
void guess_timed(struct guess_cost *c, int32_t n_row, double us, double row_us);
/* What a step of n_row rows will take; 0 while nothing was measured. */
double guess_us(const struct guess_cost *c, int32_t n_row, double row_us);

/* One sequence of the next step. */
struct guess_bid {
    int32_t i_seq;
    const struct guess *guess;
    int32_t most;  /* guesses that it has room for */
    int32_t n;     /* guesses that it gets: written by guess_share */
    double chance; /* of the next one: for guess_share */
};

/* Gives out the guesses of a step in which each of bids[n_bid] has a row anyway: as many as make
 * most tokens per second. */
void guess_share(const struct guess_cost *c, struct guess_bid *bids, int32_t n_bid, double row_us);

#endif
