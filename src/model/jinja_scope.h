/* jinja_scope - what each name of a template means (model/jinja_scope.c)
 *
 * A scope is a static frame of variables: the template, the body, test and else part of a for loop,
 * a macro, and the blocks call, filter, set, with and generation. At run time each becomes an array
 * of slots with a link to the frame around it.
 * JC-1  after jscope_bind every name and parameter node has hops and slot: the value lives `hops`
 *       frames outward, at index slot < n_slot of that frame's scope.
 * JC-2  the targets of a for loop have the same slots in its body and in its test. */
#ifndef HEARTH_JINJA_SCOPE_H
#define HEARTH_JINJA_SCOPE_H

#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_parse.h"
#include "model/jinja_str.h"

#include <stdint.h>

enum jscope_load {
    JSCOPE_EMPTY,   /* assigned here first: undefined until then */
    JSCOPE_PARAM,   /* set by who enters the frame */
    JSCOPE_CONTEXT, /* taken from the variables given to the template */
    JSCOPE_OUTER,   /* copied from an outer frame, because it is assigned here later */
};

struct jscope_slot {
    enum jscope_load load;
    const struct jstr *name;
    uint16_t hops; /* of JSCOPE_OUTER */
    uint32_t from; /* slot there */
};

#define JSCOPE_NONE UINT32_MAX

struct jscope {
    struct jscope_slot *slot;
    uint32_t n_slot;
    uint32_t loop; /* slots of these special parameters, or JSCOPE_NONE */
    uint32_t caller;
    uint32_t varargs;
    uint32_t kwargs;
};

/* Binds all names of the tree; made in m. */
enum err jscope_bind(struct jparse_tree *tree, struct jmem *m) MUST_USE;

#endif
