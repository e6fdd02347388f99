/* hearth_int - what the files of the public library share (header only, private to lib/) */
#ifndef HEARTH_HEARTH_INT_H
#define HEARTH_HEARTH_INT_H

#include "base/claim.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/team.h"
#include "engine/engine.h"
#include "hearth.h"
#include "model/chat.h"
#include "model/gguf.h"
#include "model/stream.h"
#include "model/tok.h"
#include "model/weights.h"

/* A model that guesses for another one. */
struct small {
    struct gguf *gguf; /* closed once loaded */
    struct arch arch;
    struct weights weights;
    struct arena arena;
    struct os_file image; /* that weights are mapped from: must stay as it is */
    bool has_image;
};

struct hearth_model {
    struct gguf *gguf; /* closed once loaded */
    struct arch arch;
    struct weights weights;
    struct tok *tok;
    struct chat_template *chat;
    bool has_own_template;
    uint64_t packed_bytes; /* about, of a plan that fits with layers read from the disk, which need
                            * a packed image; 0: this is none such */
    uint64_t packed_disk_bytes;     /* read for each step then */
    uint64_t packed_piece_bytes;    /* and for a piece of a prompt */
    uint64_t packed_parallel_bytes; /* and for a token of each of n_parallel */
    struct arena arena;             /* the weights */
    struct stream *stream;          /* of weights that do not stay; NULL: all do */
    struct os_file image;           /* that weights are mapped or read from: must stay as it is */
    bool has_image;
    struct small *small; /* that guesses; NULL: none */
    struct team *team;
    struct engine *engine;
    struct plan plan;
    size_t held_before; /* by all others when this model was begun */
    size_t granted;     /* by the guard (ME-4); 0: there is none */
    struct claim claim; /* tells other processes of the plan */
    struct hearth_model_info info;
};

/* Whether what is needed was not given; says so. */
static inline bool hearth_is_missing(const void *p, const char *what)
{
    if (p == NULL) {
        (void)err_set(ERR_USAGE, "%s is NULL", what);
    }
    return p == NULL;
}

#endif
