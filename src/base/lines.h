/* lines - bounded lines from a descriptor (base/lines.c)
 *
 * For the probes and for piped prompts: reads a stream line by line, keeps one buffer, and refuses
 * a line beyond its maximum instead of growing without end. Owner: one thread. */
#ifndef HEARTH_LINES_H
#define HEARTH_LINES_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

struct lines {
    int fd;        /* borrows */
    struct buf in; /* bytes read and not yet given out, from `at` on */
    size_t at;
    bool is_end;
};

/* Borrows the descriptor until lines_release. */
void lines_init(struct lines *l, int fd, size_t line_max_bytes);
void lines_release(struct lines *l); /* accepts a zeroed object */

/* Next line without its newline; *has_line is false at the end. The view is valid until the next
 * call. ERR_LIMIT for a line beyond the maximum, ERR_IO. */
enum err lines_next(struct lines *l, struct view *line, bool *has_line) MUST_USE;

#endif
