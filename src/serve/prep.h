/* prep - the thread that turns request bodies into tokens (serve/prep.c)
 *
 * Templates and tokenizers may need longer than a health check can wait, so the loop thread hands
 * bodies over and gets them back ready. An item is owned by the loop before prep_push and after
 * prep_pop, by the prep thread between.
 * Between the two, only `client` is the loop's: when nobody waits for the item any more, the thread
 * hands it back as it is.
 * PR-1  each item that was pushed is popped exactly once.
 * PR-2  of those that wait, the first by prep_is_before is next; what comes later than an item by
 *       more than its body counts never goes before it.
 * PR-3  items that are ready and not popped hold no more than PREP_DONE_MAX when the next one is
 *       begun. */
#ifndef HEARTH_PREP_H
#define HEARTH_PREP_H

#include "base/buf.h"
#include "base/cell.h"
#include "base/err.h"
#include "hearth.h"
#include "serve/params.h"
#include "serve/refusal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PREP_REPLY_MAX ((size_t)16 << 20)
/* What one item takes at most: rendering or tokenizing, the text itself with its tokens, or, while
 * it is rendered, its tree. */
#define PREP_SCRATCH_MAX (HEARTH_TEXT_BYTES(PARAMS_TEXT_MAX) + 8 * PARAMS_TEXT_MAX)

#define PREP_DONE_MAX ((size_t)1 << 20)

struct prep;

enum prep_client { PREP_CLIENT_WAITS, PREP_CLIENT_HALF_CLOSED, PREP_CLIENT_GONE };

struct prep_item {
    struct cell client; /* enum prep_client; no further stage is begun for one that left */
    enum params_kind kind;
    uint64_t came_us; /* in: when the body was whole */
    struct buf body;  /* in; owns */
    struct params params;
    int32_t *ids; /* out: the prompt, [n_id]; owns */
    size_t n_id;
    size_t n_room;      /* of ids; prep's own */
    struct buf reply;   /* out: the whole answer of TOKENIZE and DETOKENIZE; owns */
    struct refusal why; /* out: status is not 0 when the request is refused */
    size_t n_held;      /* bytes of what is out; prep's own */
};

/* model_id: the only name that requests may give; borrowed. n_max: items under way at most. */
enum err prep_open(struct prep **out, struct hearth_model *model, const char *model_id,
                   size_t n_max) MUST_USE;
void prep_close(struct prep *p);   /* waits for the thread; items still inside are forgotten */
int prep_fd(const struct prep *p); /* polls readable when an item may be popped; see prep_pop */
bool prep_push(struct prep *p, struct prep_item *item); /* false when full */
/* Whether a is prepared before b when both wait. Any thread, while their bodies stay. */
bool prep_is_before(const struct prep_item *a, const struct prep_item *b);
/* NULL when none is ready; the descriptor is quiet then. */
struct prep_item *prep_pop(struct prep *p);

void prep_item_init(struct prep_item *i, enum params_kind kind); /* body: to be set */
void prep_item_release(struct prep_item *i);

#endif
