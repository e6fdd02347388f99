/* emit - from token ids to text that may be shown (engine/emit.c)
 *
 * One object per running answer. Holds back bytes that are half a character or could be the
 * beginning of a stop text. Takes its memory at emit_init and none later.
 * Owner thread: engine.
 * EM-1  what was given out never contains a stop text, nor a part of one that later completed. */
#ifndef HEARTH_EMIT_H
#define HEARTH_EMIT_H

#include "base/buf.h"
#include "model/tok.h"

#include <stdbool.h>

#define EMIT_STOP_MAX   16
#define EMIT_STOP_BYTES 256

struct emit_stops {
    struct view text[EMIT_STOP_MAX]; /* borrows; none is empty */
    int32_t n;
};

struct emit {
    struct tok_stream stream;
    struct buf held; /* bytes not yet given out, then the given-out ones are cut */
    size_t n_ready;  /* leading bytes of held that the last call released */
    bool is_stopped; /* a stop text was met */
};

/* Most bytes that are held at once, which is also the most that one call gives out. piece_max:
 * longest piece of the vocabulary, bytes. */
size_t emit_room_bytes(size_t piece_max);
/* Takes the memory for the longest piece of the vocabulary. Errors: ERR_MEMORY, ERR_LIMIT. */
enum err emit_init(struct emit *e, size_t piece_max) MUST_USE;
void emit_release(struct emit *e); /* accepts a zeroed object */
void emit_start(struct emit *e);   /* a new answer */

/* Feeds a token; *out is the text released by it, valid until the next call. false once a stop text
 * was met: the answer ends before it. */
bool emit_token(struct emit *e, const struct tok *t, const struct emit_stops *stops, int32_t id,
                bool show_special, struct view *out);
/* The answer ended otherwise: the rest. */
void emit_end(struct emit *e, struct view *out);

#endif
