/* stream - weights that are read from the packed image whenever they are wanted (model/stream.c)
 *
 * For models larger than the memory. Vectors, the output matrix and as many parts of layers as the
 * plan allows stay; the others pass through a few slots, read ahead past the page cache while parts
 * before them are computed. Of the table of embeddings the rows of a step's tokens are read. Where
 * layers have experts, all else stays, and these have a depot.
 * Owner thread: the one that opens it, later the one of the forward pass.
 * LS-1  between stream_enter and stream_leave all slots of the parts that were entered are set.
 * LS-2  all memory is taken by stream_open: stream_bytes of the cut, ring_bytes, and tables of some
 *       bytes a part. */
#ifndef HEARTH_STREAM_H
#define HEARTH_STREAM_H

#include "model/depot.h"

/* What of the layers stays. All zero: all of it. */
struct stream_cut {
    int32_t n_layer;
    int32_t share;  /* of STREAM_SHARES: of the parts' bytes stays so much, evenly spread */
    int32_t n_read; /* parts that are read for each pass */
    int32_t n_slot; /* of these in memory at once */
    uint64_t stay_bytes;
    uint64_t slot_bytes;  /* of one */
    uint64_t pass_bytes;  /* read from the disk for a pass through all layers with one token */
    uint64_t piece_bytes; /* with many tokens */
    uint64_t rows_bytes;  /* room for rows of embeddings; 0: their table stays */
    /* Of layers with experts; then n_read and n_slot are 0. */
    int32_t n_expert;      /* that have room in memory; 0: there are none */
    uint64_t expert_bytes; /* room for one */
    uint64_t depot_bytes;  /* tables of the depot */
};
#define STREAM_SHARES 1024
bool stream_is_cut(const struct stream_cut *c); /* whether not all stays */

/* The cut that reads least, within one part, and takes at most most_bytes. false: there is none,
 * *out is untouched. n_used: experts of a token, of which those that have no room are read for it,
 * on average. */
bool stream_choose(const struct weights *w, int32_t n_layer, int32_t n_used, uint64_t most_bytes,
                   struct stream_cut *out);
/* The cut that takes least memory. false: all has to stay; *out is untouched. */
bool stream_choose_least(const struct weights *w, int32_t n_layer, int32_t n_used,
                         struct stream_cut *out);
uint64_t stream_bytes(const struct stream_cut *c);

struct stream;
/* Opens the image of g, whose weights are bound, and reads what stays. progress as in weights_load.
 * w and the file must outlive it; g need not. ERR_MEMORY, ERR_IO, ERR_INTEGRITY. */
enum err stream_open(struct stream **out, struct weights *w, const struct gguf *g,
                     const struct stream_cut *c, struct team *team,
                     void (*progress)(void *arg, double done), void *arg) MUST_USE;
void stream_close(struct stream *s); /* accepts NULL */

/* Parts of a layer that are used together: [first, end). */
struct stream_parts {
    int32_t i_layer;
    enum weights_part first;
    int32_t end; /* at most STREAM_TOGETHER behind it */
};
#define STREAM_TOGETHER 2

/* Waits until these parts are there, and goes on reading those behind them. Parts may be left out,
 * and a pass may end anywhere; reading ahead assumes that neither is so. What was entered before
 * has to be left. ERR_BUSY: they are not there yet, ask again, or end the pass. ERR_IO,
 * ERR_INTEGRITY (the file changed): the pass is over then, and another may be tried. s NULL: all
 * are there. */
enum err stream_enter(struct stream *s, const struct stream_parts *p, uint64_t timeout_us) MUST_USE;
void stream_leave(struct stream *s); /* what was entered */

/* A table that has the embeddings of n tokens, and where in it they are; until the next call. */
struct stream_rows {
    struct tensor table;
    const int32_t *ids; /* [n] */
    int32_t n;
};
/* The embeddings of tokens[n_tok], or of the first of them. Errors as of stream_enter. s NULL: all
 * of w's table. */
enum err stream_rows(struct stream *s, const struct weights *w, const int32_t *tokens,
                     int32_t n_tok, uint64_t timeout_us, struct stream_rows *out) MUST_USE;
struct depot *stream_depot(struct stream *s);      /* of experts; NULL: none, or s is NULL */
uint64_t stream_waited_us(const struct stream *s); /* for the disk so far; 0 for NULL */
/* What was read for passes so far, and of that: for what was wanted then. 0 for NULL. */
void stream_count(const struct stream *s, uint64_t *read_bytes, uint64_t *used_bytes);

#endif
