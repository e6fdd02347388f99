/* wrap - text broken into lines (cmd/wrap.c) */
#ifndef HEARTH_WRAP_H
#define HEARTH_WRAP_H

#include "base/buf.h"

#include <stddef.h>

#define WRAP_WIDTH 80 /* columns of texts whose reader may be no terminal */

/* Adds text from column `at` on, broken at blanks so that lines stay below `width`; further lines
 * begin at `indent`. Ends the last one. */
void wrap_put(struct buf *out, const char *text, size_t at, size_t indent, size_t width);

#endif
