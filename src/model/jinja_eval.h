/* jinja_eval - values of expressions, and the frames they live in (model/jinja_eval.c) */
#ifndef HEARTH_JINJA_EVAL_H
#define HEARTH_JINJA_EVAL_H

#include "base/err.h"
#include "model/jinja_args.h"
#include "model/jinja_expr.h"
#include "model/jinja_mem.h"
#include "model/jinja_scope.h"
#include "model/jinja_value.h"

#include <stddef.h>

/* The variables of a scope at run time (jinja_scope.h). */
struct jframe {
    struct jframe *up;
    struct jv slot[];
};

enum jeval_flow { JEVAL_FLOW_ON, JEVAL_FLOW_BREAK, JEVAL_FLOW_CONTINUE };

struct jrun;
/* What macros and loops do; set by jinja_exec.c, which stands above this file. */
struct jeval_objects {
    enum err (*call)(struct jrun *r, struct jv object, const struct jargs *args, struct jv *out);
    enum err (*attr)(struct jrun *r, struct jv object, const struct jstr *name, struct jv *out);
};

/* One run of one template. Owner: the thread that runs it. */
struct jrun {
    struct jmem *m;
    struct jdict *vars;     /* variables given to the template */
    struct jframe *frame;   /* the innermost one */
    struct jstr_out *sink;  /* where output goes now */
    struct jv filter_input; /* of the filter or set block around */
    enum jeval_flow flow;   /* break or continue on their way out */
    size_t output_max;      /* bytes */
    const struct jeval_objects *objects;
};

/* The value of an expression. */
enum err jeval(struct jrun *r, const struct jnode *n, struct jv *out) MUST_USE;
/* The arguments of a call, from left to right. */
enum err jeval_args(struct jrun *r, const struct jnode *kids, struct jargs *out) MUST_USE;
enum err jeval_call(struct jrun *r, struct jv f, const struct jargs *args, struct jv *out) MUST_USE;
/* Assigns to a target; tuples are unpacked. */
enum err jeval_assign(struct jrun *r, const struct jnode *target, struct jv v) MUST_USE;

/* A frame for a scope, its slots loaded (jeval_load_frame); `up` is the frame around it. */
enum err jeval_new_frame(struct jrun *r, const struct jscope *scope, struct jframe *up,
                         struct jframe **out) MUST_USE;
/* Gives the slots of a frame (but parameters) what they start with. */
enum err jeval_load_frame(struct jrun *r, const struct jscope *scope, struct jframe *f) MUST_USE;

#endif
