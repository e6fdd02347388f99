/* talk - a conversation as `hearth run` keeps it (cmd/talk.c)
 *
 * Messages in the form that the chat template takes, and the same for reading. Owner: one thread.
 *
 * TK-1  user and assistant messages take turns; the system message, if any, stands before them. */
#ifndef HEARTH_TALK_H
#define HEARTH_TALK_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

#define TALK_MAX ((size_t)64 << 20) /* bytes of a conversation */

struct talk {
    struct buf system;   /* "" when there is none */
    struct buf messages; /* JSON objects, comma between */
    struct buf page;     /* Markdown */
};

enum talk_role { TALK_USER, TALK_ASSISTANT };

void talk_init(struct talk *t);
void talk_release(struct talk *t); /* accepts a zeroed object */
void talk_forget(struct talk *t);  /* all messages but the system's */

void talk_system(struct talk *t, struct view text); /* empty: none */
void talk_add(struct talk *t, enum talk_role role, struct view text);

/* How long the conversation is, and back to such a length. */
struct talk_mark {
    size_t messages;
    size_t page;
};
struct talk_mark talk_mark(const struct talk *t);
void talk_back(struct talk *t, struct talk_mark mark);

/* {"messages": [...]} as hearth_chat_tokens takes it, appended. ERR_LIMIT */
enum err talk_json(const struct talk *t, struct buf *out) MUST_USE;

/* Writes the conversation to a new file: JSON when the name ends in .json, else Markdown.
 * ERR_USAGE when the file exists. */
enum err talk_save(const struct talk *t, const char *path) MUST_USE;

#endif
