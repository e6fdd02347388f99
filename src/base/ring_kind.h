/* ring_kind - what a ring reads with: the seam between its books (base/ring.c) and the kernel
 *
 * A kind takes pieces, reads them side by side and gives each back once, in any order. It knows
 * nothing of tickets, of short reads or of what an error means. Only a ring's owner calls it. */
#ifndef HEARTH_RING_KIND_H
#define HEARTH_RING_KIND_H

#include "base/os.h"
#include "base/ring.h"

struct ring_piece {
    uint64_t at;
    void *to;
    size_t n;    /* bytes */
    uint32_t id; /* below RING_PIECES; no two in flight have the same */
};

struct ring_end {
    uint32_t id;
    long got; /* bytes, or -errno */
};

struct ring_kind {
    const char *how; /* static text, see ring_how */
    /* Keeps `file`, which the ring closes after `close`. */
    enum err (*open)(void **out, const struct os_file *file) MUST_USE;
    void (*close)(void *k); /* nothing is in flight then */
    /* 0 and the piece is in flight; or -errno, and it is not. Never waits for the disk. */
    int (*put)(void *k, const struct ring_piece *p) MUST_USE;
    /* 1 and a piece that has ended; 0: none has in that time, or the wait was interrupted; -errno:
     * there was no waiting. Only with a piece in flight. */
    int (*take)(void *k, struct ring_end *out, uint64_t timeout_us) MUST_USE;
};

const struct ring_kind *ring_uring(void); /* NULL in a build without liburing */
const struct ring_kind *ring_pread(void);

/* ring_open by one kind only, through the page cache where `is_direct` is false: for tests and
 * comparisons. ERR_UNSUPPORTED where kind or file system are refused. */
enum err ring_open_as(struct ring **out, const char *path, const struct ring_kind *kind,
                      bool is_direct) MUST_USE;

#define RING_THREADS 8 /* that read by pread */

#endif
