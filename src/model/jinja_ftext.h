/* jinja_ftext - filters on text and numbers (model/jinja_ftext.c) */
#ifndef HEARTH_JINJA_FTEXT_H
#define HEARTH_JINJA_FTEXT_H

#include "base/err.h"
#include "model/jinja_args.h"
#include "model/jinja_value.h"

struct jfilter {
    const char *name;
    const char *spec; /* parameters behind the value, see jargs_bind; NULL: known, not supported */
    int n_required;
    enum err (*fn)(struct jcall *c, struct jv *out);
};

/* The filter of that name among those of this file, or NULL. */
const struct jfilter *jftext_find(const struct jstr *name);

#endif
