/* jinja_test - what may stand behind `is` (model/jinja_test.c) */
#ifndef HEARTH_JINJA_TEST_H
#define HEARTH_JINJA_TEST_H

#include "base/err.h"
#include "model/jinja_args.h"
#include "model/jinja_mem.h"
#include "model/jinja_value.h"

#include <stdbool.h>

bool jtest_has(const struct jstr *name); /* whether there is such a test */
/* v is name(args). ERR_UNSUPPORTED names a test that there is not. */
enum err jtest_call(struct jmem *m, const struct jstr *name, struct jv v, const struct jargs *args,
                    bool *out) MUST_USE;

#endif
