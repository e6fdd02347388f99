/* sched - which tokens the next step computes (engine/sched.c)
 *
 * Pure logic on numbers and a clock given by the caller: no memory but its tables, no threads, no
 * model. First come, first served: requests wait in one queue; as many run at once as there are
 * sequences; each step decodes one token of every running sequence, and what is guessed to follow
 * it, and computes a piece of the oldest unfinished prompt, and of others as far as they cost
 * nothing. Owner: whoever holds the engine's lock.
 * SC-1  a sequence is free, or belongs to exactly one request.
 * SC-2  requests start in the order of their arrival.
 * SC-3  a step has at least one token whenever some sequence can make progress.
 * SC-4  a step has at most n_batch tokens of prompts, and of each decoding sequence one and its
 *       guesses. */
#ifndef HEARTH_SCHED_H
#define HEARTH_SCHED_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define SCHED_SEQ_MAX   256
#define SCHED_QUEUE_MAX 4096
/* Target for the time between two tokens of a running answer while a prompt is computed beside
 * it. */
#define SCHED_INTERVAL_US 100000
/* Fewest prompt tokens in a step: below it a step reads all weights for next to nothing. */
#define SCHED_CHUNK_MIN 16
/* A step waits for the disk, and not now and then, when it did so for this share of its time. */
#define SCHED_WAITS 0.25

enum sched_state {
    SCHED_FREE,
    SCHED_PREFILL,
    SCHED_RESERVED, /* a further choice of a request, until its prompt is computed */
    SCHED_DECODE,
};

struct sched_seq {
    enum sched_state state;
    int32_t i_req; /* the request */
    int32_t choice;
    int32_t n_past;  /* positions computed */
    int32_t n_guess; /* tokens to compute behind the certain one; the caller's, as is_paused */
    int32_t n_prompt;
    uint64_t order; /* of arrival */
    bool is_paused; /* its reader is slow: no token this step */
};

struct sched_waiting {
    int32_t i_req;
    int32_t n_choice;
    int32_t n_prompt;
};

struct sched {
    int32_t n_seq;
    int32_t n_queue_max;
    int32_t n_batch;
    struct sched_seq seq[SCHED_SEQ_MAX];
    struct sched_waiting queue[SCHED_QUEUE_MAX]; /* ring */
    int32_t queue_at;
    int32_t n_queued;
    uint64_t n_arrived;
    double us_per_tok; /* of prompt tokens, running average; 0 = not measured yet */
    double pass_us;    /* of a step whatever is in it, where weights come from the disk; or 0 */
};

/* One sequence's part of a step. */
struct sched_piece {
    int32_t i_seq;
    int32_t pos0;
    int32_t n_tok;
    int32_t n_logit; /* scores of so many of them are wanted, the last ones */
};

/* Empty queue, free sequences. 1 <= n_seq <= SCHED_SEQ_MAX, 1 <= n_queue_max <= SCHED_QUEUE_MAX;
 * n_batch: most prompt tokens in a step. */
void sched_init(struct sched *s, int32_t n_seq, int32_t n_queue_max, int32_t n_batch);

/* false when the queue is full. n_choice <= n_seq. */
bool sched_submit(struct sched *s, int32_t i_req, int32_t n_choice, int32_t n_prompt) MUST_USE;
/* Takes a request out of queue and sequences; true when it was there. freed[n_freed] lists the
 * sequences that it held ([SCHED_SEQ_MAX] of room). */
bool sched_remove(struct sched *s, int32_t i_req, int32_t *freed, int32_t *n_freed);
/* Frees one sequence (its choice has ended). */
void sched_free(struct sched *s, int32_t i_seq);

/* Starts waiting requests while sequences are free; true when one was started, with its first
 * sequence (choice 0). Call until false. */
bool sched_admit(struct sched *s, int32_t *i_req, int32_t *i_seq);

/* The next step into pieces[SCHED_SEQ_MAX + 1]; returns their number, decoding sequences first. */
int32_t sched_plan(const struct sched *s, struct sched_piece *pieces);
/* The step was computed in us microseconds, of which the disk was waited for in waited_us.
 * Sequences whose prompt is complete now decode; reserved ones of the same request do too. Of an
 * answer the certain token counts; guesses: sched_accept. */
void sched_done(struct sched *s, const struct sched_piece *pieces, int32_t n_piece, uint64_t us,
                uint64_t waited_us);

/* n_right guesses of the last step were right. */
void sched_accept(struct sched *s, int32_t i_seq, int32_t n_right);

int32_t sched_n_running(const struct sched *s); /* requests that hold a sequence */
int32_t sched_n_active(const struct sched *s);  /* sequences that are not free */
void sched_check(const struct sched *s);        /* asserts SC-1 */

#endif
