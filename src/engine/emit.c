/* emit - from token ids to text that may be shown
 *
 * Tokens do not respect characters, nor stop texts. So bytes pass two gates: the streaming
 * detokenizer lets whole characters through, and this file lets through what can no longer become
 * part of a stop text. After each token the longest end of the held bytes that is a beginning of
 * some stop text stays; everything before it is released.
 *
 * The search looks at the whole held text, which is short: at most one stop text's length plus the
 * last piece. A piece may be no UTF-8 at all (the vocabulary is read from a file), and each byte
 * that is no part of a character becomes U+FFFD, three bytes.
 *
 * Next: engine.c calls this after sampling. */
#include "engine/emit.h"

#include "base/mem.h"

#include <string.h>

#define PENDING_MAX 16 /* bytes of a character begun by earlier pieces: tok_stream.pending */

size_t emit_room_bytes(size_t piece_max)
{
    return EMIT_STOP_BYTES + 3 * (piece_max + PENDING_MAX);
}

enum err emit_init(struct emit *e, size_t piece_max)
{
    *e = (struct emit){ 0 };
    const size_t room = emit_room_bytes(piece_max);
    buf_init(&e->held, room);
    char *zeros = mem_alloc(room);
    REQUIRE(zeros != NULL, ERR_MEMORY, "no memory for %zu bytes of held text", room);
    buf_add(&e->held, zeros, room); /* takes the memory now, once */
    mem_free(zeros);
    TRY(buf_check(&e->held, "held text"));
    buf_reset(&e->held);
    return ERR_OK;
}

void emit_release(struct emit *e)
{
    buf_release(&e->held);
    *e = (struct emit){ 0 };
}

void emit_start(struct emit *e)
{
    e->stream = (struct tok_stream){ 0 };
    buf_reset(&e->held);
    e->n_ready = 0;
    e->is_stopped = false;
}

/* Forgets what the last call released. */
static void drop_ready(struct emit *e)
{
    if (e->n_ready > 0) {
        memmove(e->held.p, e->held.p + e->n_ready, e->held.n - e->n_ready);
        buf_cut(&e->held, e->held.n - e->n_ready);
        e->n_ready = 0;
    }
}

/* First position where some stop text begins, SIZE_MAX if none. The first in the text wins, not the
 * first in the list. */
static size_t find_stop(struct view held, const struct emit_stops *stops)
{
    size_t first = SIZE_MAX;
    for (int32_t i = 0; i < stops->n; i++) {
        const size_t at = view_find(held, stops->text[i], 0);
        first = at < first ? at : first;
    }
    return first;
}

/* Bytes at the end of `held` that could begin a stop text. With stop "</s>", "a <" holds back
 * "<". */
static size_t open_end(struct view held, const struct emit_stops *stops)
{
    size_t most = 0;
    for (int32_t i = 0; i < stops->n; i++) {
        const struct view s = stops->text[i];
        size_t n = s.n - 1 < held.n ? s.n - 1 : held.n;
        for (; n > most; n--) {
            if (memcmp(held.p + held.n - n, s.p, n) == 0) {
                most = n;
            }
        }
    }
    return most;
}

bool emit_token(struct emit *e, const struct tok *t, const struct emit_stops *stops, int32_t id,
                bool show_special, struct view *out)
{
    drop_ready(e);
    tok_stream_put(t, &e->stream, id, show_special, &e->held);
    const struct view held = buf_view(&e->held);
    const size_t stop = find_stop(held, stops);
    e->is_stopped = stop != SIZE_MAX;
    e->n_ready = e->is_stopped ? stop : held.n - open_end(held, stops);
    *out = view_part(held, 0, e->n_ready);
    return !e->is_stopped;
}

void emit_end(struct emit *e, struct view *out)
{
    drop_ready(e);
    if (e->is_stopped) {
        buf_reset(&e->held); /* the stop text and what came after it */
    } else {
        tok_stream_end(&e->stream, &e->held);
    }
    e->n_ready = e->held.n;
    *out = buf_view(&e->held);
}
