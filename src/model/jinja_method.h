/* jinja_method - methods of text, dictionaries, lists and numbers (model/jinja_method.c) */
#ifndef HEARTH_JINJA_METHOD_H
#define HEARTH_JINJA_METHOD_H

#include "base/err.h"
#include "model/jinja_args.h"
#include "model/jinja_mem.h"
#include "model/jinja_value.h"

/* Calls a method that jget_attr found. ERR_UNSUPPORTED names one that is not implemented. */
enum err jmethod_call(struct jmem *m, const struct jv_method *method, const struct jargs *args,
                      struct jv *out) MUST_USE;

/* Texts of an iterable with a separator between; parts that are not text are an error here, and are
 * made text where is_any. */
enum err jmethod_join(struct jmem *m, const struct jstr *between, struct jv parts, bool is_any,
                      struct jv *out) MUST_USE;
/* s in the middle (side JSTR_BOTH), or padded at the named side, to `width` characters. NULL:
 * m->err. */
const struct jstr *jmethod_pad(struct jmem *m, const struct jstr *s, int64_t width,
                               const struct jstr *fill, enum jstr_side side);
/* Lines without (or with) their ends, as a list. */
enum err jmethod_lines(struct jmem *m, const struct jstr *s, bool with_ends,
                       struct jlist **out) MUST_USE;

#endif
