/* child - another program, run with a pipe from its standard output (cmd/child.c)
 *
 * No shell is involved. Standard input is empty; standard error goes to a file, so that its last
 * line can be quoted when the program fails. */
#ifndef HEARTH_CHILD_H
#define HEARTH_CHILD_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>

struct child {
    pid_t pid;      /* 0 when none runs */
    int out;        /* read end of its standard output; -1 when closed */
    char *err_path; /* owns; file with its standard error */
};

/* argv[0] is looked up in PATH unless it has a slash; argv ends with NULL. temp_dir (may be NULL)
 * becomes the child's TMPDIR. ERR_NOT_FOUND when there is no such program. */
enum err child_start(struct child *c, const char *const *argv, const char *temp_dir,
                     const char *err_path) MUST_USE;
/* Waits up to timeout_ms for output or the end; true when the output has ended. Output is dropped.
 */
bool child_is_done(struct child *c, int timeout_ms);
/* Waits for the end, closes everything, removes the error file. *exit_code: 0..255, or 128 +
 * signal. The last line of its standard error is added to last_line (may be NULL). */
void child_finish(struct child *c, int *exit_code, struct buf *last_line);

#endif
