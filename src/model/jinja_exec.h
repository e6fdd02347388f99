/* jinja_exec - runs the tree of a template (model/jinja_exec.c) */
#ifndef HEARTH_JINJA_EXEC_H
#define HEARTH_JINJA_EXEC_H

#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_parse.h"
#include "model/jinja_value.h"

#include <stddef.h>

/* The text the template makes of these variables (texts as keys). m->line is where it stopped.
 * ERR_LIMIT when more than output_max bytes come out. */
enum err jexec(const struct jparse_tree *tree, struct jmem *m, struct jdict *vars,
               size_t output_max, const struct jstr **out) MUST_USE;

#endif
