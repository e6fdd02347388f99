/* measure - the box's limits: how fast it reads memory and multiplies (lib/measure.c) */
#ifndef HEARTH_MEASURE_H
#define HEARTH_MEASURE_H

#include "base/err.h"
#include "hearth.h"
#include "kern/kern.h"

/* Fills *out with what k's kernels reach on n_thread threads and on one, in about a second.
 * most_bytes: of memory the process may use, 0: what is free. ERR_MEMORY, ERR_IO; *out is
 * untouched then. */
enum err measure_limits(const struct kern_table *k, int32_t n_thread, uint64_t most_bytes,
                        struct hearth_limits *out) MUST_USE;
/* The same for what n_thread threads read, alone, in a quarter of a second, with half of what is
 * free at most; ERR_MEMORY also where caches would hold it. */
enum err measure_read(const struct kern_table *k, int32_t n_thread, uint64_t most_bytes,
                      double *gb_s) MUST_USE;
/* What reading the file at `path` past the page cache gives, as model/stream.c reads, in a third of
 * a second. Takes MEASURE_DISK_BYTES at most. ERR_UNSUPPORTED: too small to tell; ERR_MEMORY, and
 * what reading gives. */
#define MEASURE_DISK_BYTES ((uint64_t)64 << 20)
enum err measure_disk(const char *path, double *gb_s) MUST_USE;

#endif
