/* engine - the thread that answers requests, and the only face of the engine layer
 * (engine/engine.c)
 *
 * engine_open takes all memory the plan states and starts one thread, which is worker 0 of the
 * team. From then on it steps: take in, admit, compute, sample, give out. Callers talk to it
 * through a table of requests guarded by one lock; what they pass in is copied, what they get is
 * copied out.
 * EN-1  after engine_open the engine thread and the team allocate nothing.
 * EN-2  a request ends with exactly one event of kind END.
 * EN-3  a reader that does not read delays its own request only.
 * EN-4  of two steps in a row, one at least brings those forward who still want theirs. */
#ifndef HEARTH_ENGINE_H
#define HEARTH_ENGINE_H

#include "base/team.h"
#include "engine/emit.h"
#include "engine/plan.h"
#include "engine/sample.h"
#include "kern/kern.h"
#include "model/tok.h"

#include <stdbool.h>
#include <stdint.h>

#define ENGINE_CHOICE_MAX 8
#define ENGINE_TEXT_MAX   12288 /* bytes of one event's text */

enum engine_finish { /* from good to bad: a request's is the worst of its choices */
                     ENGINE_FINISH_NONE,
                     ENGINE_FINISH_STOP,
                     ENGINE_FINISH_LENGTH,
                     ENGINE_FINISH_CANCELLED,
                     ENGINE_FINISH_TIMEOUT,
                     ENGINE_FINISH_ERROR
};
enum engine_kind { ENGINE_TOKEN, ENGINE_CHOICE_END, ENGINE_END };

/* Copied on submission. */
struct engine_spec {
    struct sample_params sample;
    int32_t n_choice;
    int32_t max_tokens; /* per choice; 0 = what the context leaves */
    struct emit_stops stops;
    bool is_eos_ignored;
    bool shows_special;
    bool has_no_guesses; /* one token a step */
    uint64_t timeout_us; /* from submission; 0 = none */
    int32_t n_made_up;   /* for measuring: the prompt's first tokens, whose cache is made up */
};

struct engine_event {
    enum engine_kind kind;
    int32_t choice;
    int32_t token; /* -1: none */
    float logprob;
    int32_t n_top;
    struct sample_bias top[SAMPLE_TOP_MAX];
    size_t n_text;
    enum engine_finish finish;
    bool is_unread; /* ERROR: the weights' file could not be read or was changed: the log tells */
    int32_t n_prompt;
    int32_t n_generated;
    uint64_t queue_us;
    uint64_t prefill_us;
    uint64_t decode_us;
};

#define ENGINE_BATCH_BUCKETS 9
struct engine_stats {
    bool is_ready;         /* checked at the start */
    uint64_t heartbeat_us; /* os_now_us of the last sign of life */
    int32_t n_running;
    int32_t n_queued;
    uint64_t n_request;
    uint64_t n_done;
    uint64_t n_cancelled;
    uint64_t n_refused;
    uint64_t n_failed;
    uint64_t n_prompt_tok;
    uint64_t n_generated_tok;
    uint64_t n_step;
    uint64_t n_abandoned; /* steps that were not computed to their end */
    uint64_t n_guessed;   /* guessed tokens that were computed */
    uint64_t n_accepted;  /* of them: were the answer's next */
    uint64_t step_batch[ENGINE_BATCH_BUCKETS];
    uint64_t kv_pages;
    uint64_t kv_pages_used;
    uint64_t disk_read_bytes; /* of weights, until the last step that was whole */
    uint64_t disk_used_bytes; /* of these: were wanted */
};

struct engine;

/* What the engine borrows; all of it must outlive it. */
struct engine_parts {
    const struct arch *arch;
    const struct weights *weights;
    struct stream *stream;       /* of weights that do not stay; NULL: all do */
    const struct os_file *image; /* that they are mapped from; NULL: none, or stream looks at it */
    const struct tok *tok;
    struct team *team;
    const struct kern_table *kern;
    const struct arch *draft_arch; /* of a small model that guesses; NULL: none */
    const struct weights *draft_weights;
    const struct os_file *draft_image; /* likewise mapped; NULL: none */
};

/* Bytes that requests and queues will take, for the plan. ERR_LIMIT for a vocabulary with huge
 * pieces. */
enum err engine_request_bytes(const struct plan_config *c, const struct arch *a,
                              const struct tok *tok, uint64_t *out) MUST_USE;

/* Takes the planned memory, starts the thread, waits for its check: two tokens computed together
 * must give the bits that they give one after another, and finite scores (engine_open.c says
 * through which layers). ERR_FAILED, ERR_INTEGRITY when they do not. */
enum err engine_open(struct engine **out, const struct engine_parts *parts,
                     const struct plan *plan) MUST_USE;
void engine_close(struct engine *e); /* ends all requests; accepts NULL */

/* Copies everything. ERR_LIMIT (both numbers) when the prompt leaves no room for a token,
 * ERR_USAGE, ERR_BUSY when the queue is full. Any thread. */
enum err engine_submit(struct engine *e, const struct engine_spec *spec, const int32_t *prompt,
                       size_t n_prompt, int32_t *handle) MUST_USE;
/* Next event and its text (room for ENGINE_TEXT_MAX bytes). ERR_BUSY when none came in time,
 * ERR_NOT_FOUND after END. One thread per handle. */
enum err engine_next(struct engine *e, int32_t handle, uint64_t timeout_us,
                     struct engine_event *out, char *text) MUST_USE;
/* The request ends soon, with its END event; a handle that is gone is passed over. Any thread. */
void engine_cancel(struct engine *e, int32_t handle);
void engine_drop(struct engine *e, int32_t handle); /* cancels if needed; the handle is gone */
/* Polls readable after events of any request until engine_fd_clear; the engine's, who closes it. */
int engine_fd(const struct engine *e);
void engine_fd_clear(struct engine *e);
/* A consistent copy of the counters; takes the lock for the copy alone. Any thread. */
void engine_get_stats(struct engine *e, struct engine_stats *out);

#endif
