/* tuned - the settings that `hearth tune` found best on this box (cmd/tuned.c)
 *
 * One small file in the XDG state folder. Only things that never change a bit of an answer. */
#ifndef HEARTH_TUNED_H
#define HEARTH_TUNED_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

struct tuned {
    int32_t n_thread; /* 0: the default */
    int32_t n_batch;  /* tokens of a prompt computed in one piece; 0: the default */
};

/* What is stored for this processor, version and number of cores; zeros without it, or when it is
 * of another box, which is logged. Reads the file once. Owner: the main thread. */
struct tuned tuned_read(void);
/* Where it is stored; makes the folder. Errors of the file system, before anything is measured. */
enum err tuned_prepare(struct buf *path) MUST_USE;
/* Stores it there. Errors of the file system. */
enum err tuned_write(const struct tuned *t, const char *path) MUST_USE;

#endif
