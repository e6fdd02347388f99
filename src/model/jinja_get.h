/* jinja_get - a.b, a[b] and a[b:c:d] (model/jinja_get.c)
 *
 * JG-1  what a template can reach is data, the methods listed in jinja_get.c, and nothing else;
 * methods that change their object are not reachable. */
#ifndef HEARTH_JINJA_GET_H
#define HEARTH_JINJA_GET_H

#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_value.h"

#include <stdbool.h>

/* v.name: attributes first, then keys. Not there: the undefined value. v undefined: an error. */
enum err jget_attr(struct jmem *m, struct jv v, const struct jstr *name, struct jv *out) MUST_USE;
/* As Python's hasattr(): keys of dictionaries do not count. */
bool jget_has_attr(struct jv v, const struct jstr *name);
/* v[key]: keys and positions first, then attributes. */
enum err jget_item(struct jmem *m, struct jv v, struct jv key, struct jv *out) MUST_USE;
/* v[start:stop:step]; JV_NONE for parts not given. */
enum err jget_slice(struct jmem *m, struct jv v, const struct jv part[3], struct jv *out) MUST_USE;

/* The attribute path of filters ("a.b.0", or a number): item after item, with `otherwise` (unless
 * JV_MISSING) in place of what is not there. */
enum err jget_path(struct jmem *m, struct jv v, struct jv path, struct jv otherwise,
                   struct jv *out) MUST_USE;

#endif
