/* disk - the model store and the speed of its disk, tried just now (cmd/disk.c) */
#ifndef HEARTH_DISK_H
#define HEARTH_DISK_H

#include "base/facts.h"

/* Fills *d: looks at the store, and reads up to 512 MiB of `path` past the page cache, or of the
 * store's largest file when it is NULL. Writes nothing but the folders of a store that was not
 * there. Takes up to three seconds, as slow as the disk is, and 64 MiB of memory for as long. What
 * fails is told in *d, but for ERR_NOT_FOUND and ERR_IO when `path` cannot be opened. Owner: the
 * main thread. */
enum err disk_read(struct facts_disk *d, const char *path) MUST_USE;

#endif
