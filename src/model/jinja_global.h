/* jinja_global - the functions every template has (model/jinja_global.c) */
#ifndef HEARTH_JINJA_GLOBAL_H
#define HEARTH_JINJA_GLOBAL_H

#include "base/err.h"
#include "model/jinja_args.h"
#include "model/jinja_mem.h"
#include "model/jinja_value.h"

/* Puts range, dict, namespace, cycler, joiner, raise_exception and strftime_now into a dictionary.
 */
enum err jglobal_define(struct jmem *m, struct jdict *vars) MUST_USE;
/* Calls one of them. raise_exception gives ERR_USAGE with the template's text. */
enum err jglobal_call(struct jmem *m, struct jv func, const struct jargs *args,
                      struct jv *out) MUST_USE;

#endif
