/* jinja_loop - the elements of a for loop and the object `loop` (model/jinja_loop.c) */
#ifndef HEARTH_JINJA_LOOP_H
#define HEARTH_JINJA_LOOP_H

#include "base/err.h"
#include "model/jinja_args.h"
#include "model/jinja_eval.h"
#include "model/jinja_expr.h"
#include "model/jinja_value.h"

#include <stdbool.h>
#include <stdint.h>

struct jloop {
    const struct jnode *node;
    struct jrun *run;
    struct jframe *up;   /* around the loop */
    struct jframe *test; /* of the condition, or NULL */
    struct jv source;
    struct jiter it;
    int64_t index0;
    int64_t depth0;
    struct jv before;
    struct jv current;
    struct jv after; /* looked ahead, or JV_MISSING */
    bool is_over;    /* looked ahead and found the end */
    int64_t length;  /* -1: not known yet */
    bool is_direct;  /* the length of the source is the length of the loop */
    const struct jlist *last_changed;
};

/* A loop over `source` in r->frame. */
enum err jloop_new(struct jrun *r, const struct jnode *n, struct jv source,
                   struct jloop **out) MUST_USE;
/* On to the next element that passes the condition; *has = false at the end. */
enum err jloop_step(struct jloop *loop, struct jv *out, bool *has) MUST_USE;
/* loop.name */
enum err jloop_attr(struct jrun *r, struct jv v, const struct jstr *name, struct jv *out) MUST_USE;
/* loop.cycle(...) and loop.changed(...) */
enum err jloop_call_method(struct jrun *r, const struct jv_method *method, const struct jargs *args,
                           struct jv *out) MUST_USE;

#endif
