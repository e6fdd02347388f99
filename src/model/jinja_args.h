/* jinja_args - arguments of calls and their binding to parameters (model/jinja_args.c) */
#ifndef HEARTH_JINJA_ARGS_H
#define HEARTH_JINJA_ARGS_H

#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_value.h"

#include <stdbool.h>
#include <stddef.h>

struct jargs {
    const struct jlist *pos;   /* positional; never NULL */
    const struct jdict *named; /* keys are texts; never NULL */
};

#define JARGS_MAX 6

/* A call on its way into a built-in function, method, filter or test. */
struct jcall {
    struct jmem *m;
    const char *name;         /* for messages */
    struct jv self;           /* the object, or what stands before | or `is` */
    struct jargs args;        /* as given */
    struct jv arg[JARGS_MAX]; /* bound to the parameters; JV_MISSING: not given */
};

/* Binds c->args to the parameters named in `spec` ("width first blank"), of which the first
 * n_required must be there. "*" binds nothing: the function looks at c->args itself. */
enum err jargs_bind(struct jcall *c, const char *spec, int n_required) MUST_USE;

/* Argument i as what it must be; a missing one or none gives `otherwise`. */
enum err jargs_int(const struct jcall *c, int i, int64_t otherwise, int64_t *out) MUST_USE;
/* Text argument i; NULL when missing or none. */
enum err jargs_str(const struct jcall *c, int i, const struct jstr **out) MUST_USE;
bool jargs_true(const struct jcall *c, int i, bool otherwise);
bool jargs_has(const struct jcall *c, int i); /* given, and not none */

#endif
