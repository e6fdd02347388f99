/* messages - the messages of a chat, checked and written for the template (serve/messages.c) */
#ifndef HEARTH_MESSAGES_H
#define HEARTH_MESSAGES_H

#include "base/buf.h"
#include "base/err.h"
#include "base/js.h"
#include "serve/refusal.h"

#define MESSAGES_MAX         4096 /* of a conversation */
#define MESSAGES_PLACE_BYTES 32

/* Appends {"messages": [...] to `out`, without the closing brace. `list` is an array; `call` comes
 * as "" and becomes the place of the first message with tool calls and no content. Any thread. */
enum err messages_put(const struct js *list, struct buf *out, char call[MESSAGES_PLACE_BYTES],
                      struct refusal *why) MUST_USE;

#endif
