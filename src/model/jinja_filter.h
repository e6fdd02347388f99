/* jinja_filter - filters by name, and those that work on sequences (model/jinja_filter.c) */
#ifndef HEARTH_JINJA_FILTER_H
#define HEARTH_JINJA_FILTER_H

#include "base/err.h"
#include "model/jinja_args.h"
#include "model/jinja_mem.h"
#include "model/jinja_value.h"

#include <stdbool.h>

bool jfilter_has(const struct jstr *name); /* whether there is such a filter */
/* v | name(args). ERR_UNSUPPORTED names a filter that there is not. */
enum err jfilter_call(struct jmem *m, const struct jstr *name, struct jv v,
                      const struct jargs *args, struct jv *out) MUST_USE;

#endif
