/* decoder - the forward pass of a text model (engine/decoder.c)
 *
 * One function over the operation table, the same for every family; what differs is data (arch.h).
 * Runs on any backend: be_cpu computes, be_measure plans.
 * Owner thread: engine.
 * DE-1  a token's hidden state depends on the tokens before it in its sequence and on nothing else
 *       in the step: batch, chunks and threads never change a bit. */
#ifndef HEARTH_DECODER_H
#define HEARTH_DECODER_H

#include "back/backend.h"
#include "engine/kv.h"
#include "model/arch.h"
#include "model/stream.h"
#include "model/weights.h"

#define DECODER_REST_US 100000

struct decoder {
    const struct arch *arch;       /* borrows */
    const struct weights *weights; /* borrows */
    struct kv *kv;                 /* borrows */
    struct back *back;             /* borrows */
    struct stream *stream;         /* of weights that do not stay; NULL: all do; borrows */
    double *freq_full;             /* [n_rot/2] angular frequencies, in the arena */
    double *freq_window;           /* likewise */
    double mscale_full;
    double mscale_window;
    /* Asked at each layer border, and while one is waited for, on the thread that computes: is the
     * step no longer wanted? NULL: it always is wanted. */
    bool (*is_unwanted)(void *arg, uint64_t now_us);
    void *arg;
    uint64_t rest_us; /* what is left is computed all the same when it takes no longer;
                         DECODER_REST_US */
};

/* One step: tokens of one or several sequences, run by run, rows in the order of the runs. */
struct decoder_step {
    const int32_t *tokens; /* [n_tok] */
    const int32_t *pos;    /* [n_tok] absolute positions */
    int32_t n_tok;
    const struct back_run *runs; /* [n_run]; their pages must have room (kv_seq_grow) */
    int32_t n_run;
    const bool *only; /* [n_layer] the layers to compute, for the check at start; NULL: all */
};

/* The caller has set what d borrows. Takes the frequencies from the arena (counting arenas too).
 * n_ctx: longest context that will be used; families with two sets of rotary factors choose by it.
 * ERR_MEMORY, ERR_INTEGRITY (factors that make no sense). */
enum err decoder_init(struct decoder *d, int32_t n_ctx, struct arena *arena) MUST_USE;

/* Runs the layers. *hidden receives the last layer's output, normalized, [n_tok][back_ld(n_embd)],
 * in the step arena: valid until the caller rewinds it. ERR_CANCELLED when abandoned, and
 * stream_enter's errors: pages written by the step hold nothing useful then. */
enum err decoder_forward(struct decoder *d, const struct decoder_step *s, float **hidden) MUST_USE;

/* Logits [n_row][back_ld(n_vocab)] of the given rows of `hidden`, in the step arena. */
float *decoder_logits(struct decoder *d, const float *hidden, const int32_t *rows, int32_t n_row);

#endif
