/* trial - requests that are made to be timed (cmd/trial.c) */
#ifndef HEARTH_TRIAL_H
#define HEARTH_TRIAL_H

#include "cmd/progress.h"
#include "hearth.h"

#define TRIAL_SMALL ((uint64_t)32 << 20) /* bytes a token reads; many caches hold fewer */
#define TRIAL_BYTES ((uint64_t)2 << 20)  /* in the plan, for what measuring leaves in the heap */

/* From now on SIGINT ends the program as usual, but wipes a bar off first and says `line`: static,
 * with its end of line; NULL: it says nothing again. Owner: the main thread. */
void trial_interruptible(const char *line);

/* n tokens of a vocabulary of n_vocab; another seed, other tokens. */
void trial_tokens(int32_t *ids, int64_t n, int32_t n_vocab, uint32_t seed);

/* n tokens as a prompt, the first n_made_up of them only made up in the cache (hearth.h), and an
 * answer of n_answer. hearth_submit's errors. */
hearth_status trial_submit(struct hearth_model *m, const int32_t *ids, int64_t n, int64_t n_made_up,
                           int64_t n_answer, struct hearth_request **r);

/* Waits for the end of a request, which *e is then; the bar shows `done` meanwhile. */
hearth_status trial_drain(struct hearth_request *r, struct progress *bar, double done,
                          struct hearth_event *e);

#endif
