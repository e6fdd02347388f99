/* jinja_repr - values to text: str(), repr() and tojson (model/jinja_repr.c)
 *
 * Brackets and commas of a container carry its own mark, so data printed as a whole stays data. */
#ifndef HEARTH_JINJA_REPR_H
#define HEARTH_JINJA_REPR_H

#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_str.h"
#include "model/jinja_value.h"

#include <stdbool.h>
#include <stdint.h>

/* As Python's str() and repr(). NULL: m->err. */
const struct jstr *jrepr_str(struct jmem *m, struct jv v);
const struct jstr *jrepr_repr(struct jmem *m, struct jv v);
/* repr() with everything beyond ASCII escaped, as Python's ascii(). NULL: m->err. */
const struct jstr *jrepr_ascii(struct jmem *m, struct jv v);

struct jrepr_json {
    const struct jstr *indent;   /* text of one level, NULL: all on one line */
    const struct jstr *item_end; /* between elements */
    const struct jstr *key_end;  /* between key and value */
    bool is_sorted;              /* keys in order */
    bool is_ascii;               /* escape everything beyond ASCII */
};
/* As json.dumps(). NULL: m->err. */
const struct jstr *jrepr_json(struct jmem *m, struct jv v, const struct jrepr_json *how);

#endif
