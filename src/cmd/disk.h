/* disk - the model store and the speed of its disk, tried just now (cmd/disk.c) */
#ifndef HEARTH_DISK_H
#define HEARTH_DISK_H

#include "base/facts.h"

/* Fills *d: looks at the store, and measures the speed of `path`, or of the store's largest file
 * when it is NULL (lib/measure.h: time and memory). Writes nothing. What fails is told in *d, but
 * for ERR_NOT_FOUND and ERR_IO when `path` cannot be opened. Owner: the main thread. */
enum err disk_read(struct facts_disk *d, const char *path) MUST_USE;

#endif
