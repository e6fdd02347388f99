/* plan - what a model takes on this box, to the byte, before anything is loaded (engine/plan.c)
 *
 * The forward pass is run dry on be_measure with the largest steps the scheduler may make; the
 * caches and tables are sized by the code that later takes them. plan_make and plan_take call the
 * same functions, the first on counting arenas, so that they cannot drift apart (PL-1: after
 * engine_open each arena's `used` or `peak` is at most its line in the plan; weights and cache are
 * it exactly). */
#ifndef HEARTH_PLAN_H
#define HEARTH_PLAN_H

#include "base/pool.h"
#include "engine/decoder.h"
#include "engine/kv.h"
#include "model/stream.h"
#include "model/weights.h"

#include <stdbool.h>
#include <stdint.h>

struct plan_config {
    int32_t n_ctx;
    int32_t n_parallel;
    int32_t n_queue;
    int32_t n_batch;
    enum kern_kv kv;
    int32_t n_worker;
    bool checks_all;       /* see engine_open.c, the check at start */
    struct stream_cut cut; /* parts of layers that do not stay in memory */
};

/* Steps of a small model that guesses (draft.c), for which the plan has room: tokens of one text
 * that it does not know yet; of each text that it guesses for, tokens that are new to it. */
#define PLAN_DRAFT_PIECE 256
#define PLAN_DRAFT_LAG   2

#define PLAN_PARTS 16
struct plan_part {
    const char *name; /* static */
    uint64_t bytes;
};

struct plan {
    struct plan_config config;
    struct plan_part part[PLAN_PARTS];
    int32_t n_part;
    uint64_t total_bytes;
    uint64_t least_bytes; /* of the total, that no smaller context or fewer at once would save */
    uint64_t extra_bytes; /* of the total, what the caller has beside the model */
    uint64_t taken_bytes; /* by mem_alloc and arenas: not the kernel, of the program small things */
    uint64_t limit_bytes; /* the owner's; 0 = none */
    struct claim_image image;
    struct pool_host host; /* as it was read for what is available */
    uint64_t available_bytes;
    const char *available_from; /* static */
    bool is_own_limit;          /* the owner's or a ulimit, not the box's */
    bool fits;
    size_t context_bytes;         /* arena: cache, page tables, frequencies, request buffers */
    size_t draft_bytes;           /* arena: what the small model has of these */
    size_t step_bytes;            /* arena: workspace, of both models */
    uint64_t step_read_bytes;     /* to decode one token with an empty cache */
    uint64_t parallel_read_bytes; /* one for each of n_parallel; experts as expected */
    uint64_t tok_kv_bytes;
    uint64_t window_kv_bytes; /* of these in layers that see `window` positions only */
    uint64_t window;
    uint64_t tok_ops; /* of products, for a token of a prompt: all but the output matrix */
};

/* Bytes beside the model: what the caller holds already or will need. */
struct plan_beside {
    uint64_t program_bytes; /* before the model is opened: code, libraries, heap; stacks */
    uint64_t kernel_bytes;  /* that the kernel has for this process, without the plan's tables */
    uint64_t header_bytes;  /* of the files' directories, given back after loading */
    uint64_t table_bytes;   /* of the models: where which weights go */
    uint64_t tokenizer_bytes;
    uint64_t template_bytes;
    uint64_t request_bytes;        /* queues and buffers of the engine, per engine_request_bytes */
    uint64_t extra_bytes;          /* what the caller adds (server buffers) */
    uint64_t limit_bytes;          /* the owner's limit; 0 = none */
    struct claim_image image;      /* what the weights are mapped from; all 0: nothing */
    const struct arch *draft_arch; /* of a small model that guesses; NULL: none */
    const struct weights *draft_weights;
};

/* What the process has before a model is opened, and what the kernel has for it and its threads:
 * program_bytes and kernel_bytes. */
void plan_program(struct plan_beside *out, int32_t n_worker);

/* ERR_LIMIT when sizes overflow. A plan that does not fit is no error: see `fits`. */
enum err plan_make(struct plan *p, const struct arch *a, const struct weights *w,
                   const struct plan_config *c, const struct plan_beside *beside) MUST_USE;

/* Looks again at what is available, and whether the plan fits that, if other processes claimed
 * memory since it was made. */
void plan_look(struct plan *p);

/* Takes cache, sequences [n_parallel] and decoder from the context arena (counting or real). */
struct plan_context {
    struct kv kv;
    struct kv_seq *seqs; /* [n_parallel] */
    struct decoder decoder;
};
enum err plan_take(struct plan_context *x, const struct arch *a, const struct weights *w,
                   const struct plan_config *c, struct back *back, struct arena *context) MUST_USE;

#endif
