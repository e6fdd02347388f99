/* answer - events of the engine to what OpenAI's clients read (serve/answer.c)
 *
 * Owner: the loop thread.
 * AN-1  a stream's texts, put together, are the text of the same answer given whole. */
#ifndef HEARTH_ANSWER_H
#define HEARTH_ANSWER_H

#include "base/buf.h"
#include "hearth.h"
#include "serve/params.h"
#include "serve/refusal.h"

#include <stdbool.h>
#include <stdint.h>

struct answer_choice {
    struct buf text;
    struct buf entries; /* chat: log probabilities, one object per token */
    struct buf tokens;  /* completions: four lists, this the first */
    struct buf logprobs;
    struct buf tops;
    struct buf offsets;
    size_t n_char; /* characters so far */
    enum hearth_finish finish;
    bool has_begun;
};

struct answer {
    const struct hearth_model *model; /* for the texts of tokens; may be NULL without logprobs */
    const char *model_id;             /* borrows */
    bool is_chat;
    bool is_stream;
    bool has_usage;
    bool has_logprobs;
    int32_t n_choice;
    char id[48];
    int64_t created_s;
    struct answer_choice choice[HEARTH_CHOICE_MAX];
};

/* max_bytes: of each part of a choice. */
void answer_init(struct answer *a, const struct hearth_model *model, const char *model_id,
                 const struct params *p, const char *request_id, size_t max_bytes);
void answer_release(struct answer *a);       /* accepts a zeroed object */
size_t answer_bytes(const struct answer *a); /* allocated for its parts */

/* Takes one event; false when a part of its choice, or the body, has no room for it: the answer
 * cannot be given then. A stream appends to `out` what is to be sent now; else the body is appended
 * with the event of kind END. */
bool answer_take(struct answer *a, const struct hearth_event *e, struct buf *out) MUST_USE;
/* The end of a stream that cannot go on. */
void answer_break(const struct answer *a, const struct refusal *why, struct buf *out);

#endif
