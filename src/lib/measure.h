/* measure - the box's limits: how fast it multiplies, reads memory and the disk (lib/measure.c) */
#ifndef HEARTH_MEASURE_H
#define HEARTH_MEASURE_H

#include "base/err.h"
#include "hearth.h"
#include "kern/kern.h"

#include <stdbool.h>
#include <stdint.h>

/* Fills *out with what k's kernels reach on n_thread threads and on one, in about a second.
 * most_bytes: of memory the process may use, 0: what is free. ERR_MEMORY, ERR_IO; *out is
 * untouched then. */
enum err measure_limits(const struct kern_table *k, int32_t n_thread, uint64_t most_bytes,
                        struct hearth_limits *out) MUST_USE;
/* The same for what n_thread threads read, alone, in a quarter of a second, with half of what is
 * free at most; *core_share: what they got of their time while they read. ERR_MEMORY also where
 * caches would hold it. */
enum err measure_read(const struct kern_table *k, int32_t n_thread, uint64_t most_bytes,
                      double *gb_s, double *core_share) MUST_USE;
/* What reading a file gave. */
struct measure_disk {
    double gb_s;
    uint64_t read_bytes;
    bool is_direct; /* past the page cache */
    bool is_uring;  /* else threads read */
};
/* Reads up to 512 MiB of the file at `path` as model/stream.c would, nothing twice. Takes up to
 * three seconds and as long as 2 MiB take, and MEASURE_DISK_BYTES of memory at most.
 * ERR_UNSUPPORTED: less than MEASURE_DISK_LEAST; ERR_MEMORY, and what reading gives; *out is
 * untouched then. */
#define MEASURE_DISK_BYTES ((uint64_t)56 << 20)
#define MEASURE_DISK_LEAST ((uint64_t)16 << 20)
enum err measure_disk(const char *path, struct measure_disk *out) MUST_USE;

#endif
