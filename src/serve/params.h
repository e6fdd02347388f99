/* params - the body of a request, checked and taken apart (serve/params.c)
 *
 * PM-1  a field is either understood, or known to change nothing, or refused: none is dropped
 *       silently. A member that is null counts as absent, whatever its name; an element of a list
 *       does not, and the values of template_vars are the template's.
 * PM-2  a params holds no pointer into the body. */
#ifndef HEARTH_PARAMS_H
#define HEARTH_PARAMS_H

#include "base/buf.h"
#include "base/err.h"
#include "hearth.h"
#include "serve/messages.h"
#include "serve/refusal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum params_kind { PARAMS_CHAT, PARAMS_COMPLETION, PARAMS_TOKENIZE, PARAMS_DETOKENIZE };

#define PARAMS_MODEL_BYTES 256
#define PARAMS_DEPTH_MAX   64                 /* nested arrays and objects */
#define PARAMS_TREE_MAX    ((size_t)32 << 20) /* bytes of a parsed body, without its texts */
#define PARAMS_TEXT_MAX    ((size_t)2 << 20)  /* of messages or a prompt: half a million tokens */

struct params {
    enum params_kind kind;
    char model[PARAMS_MODEL_BYTES];       /* "": none was named */
    struct hearth_request_params request; /* without tokens */
    bool is_stream;
    bool has_usage; /* usage at the end of a stream */
    bool has_logprobs;
    bool has_text;               /* it was given, if only as "" */
    struct messages_calls calls; /* CHAT */
    bool adds_special;           /* TOKENIZE, COMPLETION */
    bool parses_special;         /* likewise */
    struct buf text; /* CHAT: an object for hearth_chat_tokens; COMPLETION, TOKENIZE: the text */
    int32_t *ids;    /* owns: COMPLETION, DETOKENIZE given as token ids; NULL when given as text */
    size_t n_id;
    struct hearth_bias bias[HEARTH_BIAS_MAX];
    char stop_text[HEARTH_STOP_MAX][HEARTH_STOP_BYTES + 1];
    const char *stop[HEARTH_STOP_MAX];
};

/* Reads a body of one kind. On failure `why` is set, and p needs no release. Any thread. */
enum err params_read(struct params *p, enum params_kind kind, struct view body,
                     struct refusal *why) MUST_USE;
void params_release(struct params *p); /* accepts a zeroed object */

#endif
