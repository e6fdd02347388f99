/* messages - the messages of a chat, checked and written for the template (serve/messages.c) */
#ifndef HEARTH_MESSAGES_H
#define HEARTH_MESSAGES_H

#include "base/buf.h"
#include "base/err.h"
#include "base/js.h"
#include "serve/refusal.h"

#define MESSAGES_MAX         4096 /* of a conversation */
#define MESSAGES_PLACE_BYTES 32

/* Tool calls by what stands beside them, which may be all that a template shows. */
enum messages_beside { MESSAGES_NOTHING, MESSAGES_EMPTY, MESSAGES_TEXT, MESSAGES_BESIDE };

struct messages_calls {
    char place[MESSAGES_BESIDE][MESSAGES_PLACE_BYTES]; /* of the first message with such, or "" */
};

/* Appends {"messages": [...] to `out`, without the closing brace. `list` is an array; `calls` comes
 * zeroed. Any thread. */
enum err messages_put(const struct js *list, struct buf *out, struct messages_calls *calls,
                      struct refusal *why) MUST_USE;

#endif
