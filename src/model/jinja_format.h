/* jinja_format - "..." % x and "...".format(x) (model/jinja_format.c) */
#ifndef HEARTH_JINJA_FORMAT_H
#define HEARTH_JINJA_FORMAT_H

#include "base/err.h"
#include "model/jinja_args.h"
#include "model/jinja_mem.h"
#include "model/jinja_str.h"
#include "model/jinja_value.h"

/* printf style; args: a tuple, a dictionary (for %(name)s), or one value. */
enum err jformat_percent(struct jmem *m, const struct jstr *fmt, struct jv args,
                         struct jv *out) MUST_USE;
/* str.format style: {} {0} {name.attr[item]!r:>10.2f}. */
enum err jformat_braces(struct jmem *m, const struct jstr *fmt, const struct jargs *args,
                        struct jv *out) MUST_USE;

#endif
