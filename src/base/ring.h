/* ring - many large reads of one file in flight, past the page cache (base/ring.c)
 *
 * A read is cut into pieces that go side by side; what does not fit waits in a bounded queue and is
 * started by the owner's next call, whichever that is. ring_open takes all memory; later calls
 * allocate nothing. Owner: one thread, which blocks in ring_wait, ring_wait_for, ring_wait_any and
 * ring_close alone.
 * RI-1  only what is in flight writes to memory, and nothing is in flight of a ticket that was
 *       waited for and is whole, nor after ring_close. Of void ones nothing is once a later one is
 *       whole.
 * RI-2  tickets are answered in order: one is whole when its bytes and those of all before are;
 *       but for ring_has and ring_wait_any, which look at its own bytes.
 * RI-3  at most RING_PIECES pieces are in flight and at most RING_TICKETS tickets are open.
 * RI-4  an error makes void all tickets started until it was returned, and none started later. */
#ifndef HEARTH_RING_H
#define HEARTH_RING_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring;

#define RING_ALIGN       4096 /* of places, lengths and memory */
#define RING_TICKETS     1024 /* open at a time */
#define RING_PIECES      256  /* in flight at a time */
#define RING_PIECE_BYTES (2u << 20)

/* Opens path for reading past the page cache (O_DIRECT). Where the file system refuses that it is
 * read through the cache, which is told to drop what was read: ring_is_direct is false then.
 * ERR_NOT_FOUND, ERR_LIMIT, ERR_IO, ERR_MEMORY. Keeps a copy of path. */
enum err ring_open(struct ring **out, const char *path) MUST_USE;
void ring_close(struct ring *r); /* waits for what is in flight, drops the queue; accepts NULL */
bool ring_is_direct(const struct ring *r);
uint64_t ring_file_bytes(const struct ring *r);
const char *ring_how(const struct ring *r); /* static text: "io_uring", "pread by 8 threads" */
/* The most that a ring takes, its threads and the kernel's part included; none is file data. */
size_t ring_bytes(void);

/* Starts reading [at, at + n) to `to`, all multiples of RING_ALIGN, n > 0; the file may end inside
 * the last RING_ALIGN bytes, and what lies behind its end is undefined then. The memory should be
 * touched. *ticket grows by one with each call; the first is 1. Never waits for the disk.
 * ERR_USAGE (not aligned, or beyond the file), ERR_BUSY (RING_TICKETS are open). */
enum err ring_start(struct ring *r, uint64_t at, void *to, size_t n, uint64_t *ticket) MUST_USE;

/* Waits until that read is whole, and all before it. ERR_IO with path, place and reason;
 * ERR_INTEGRITY when the file is shorter, or its size or mtime changed since it was opened;
 * ERR_USAGE for a ticket that was never given; 0 is always whole. After an error all tickets so far
 * are void, as after ring_drop (waiting for one gives the same error), and the ring can be used
 * on. */
enum err ring_wait(struct ring *r, uint64_t ticket) MUST_USE;
/* The same, but ERR_BUSY when it takes longer: all is as before then. */
enum err ring_wait_for(struct ring *r, uint64_t ticket, uint64_t timeout_us) MUST_USE;
/* Makes all tickets so far void (ERR_CANCELLED for who waits for one). What is in flight goes on
 * and may still write; reads that are started later begin when it is over. Waits for nothing. */
void ring_drop(struct ring *r);
/* Whether ring_wait would return at once; also moves the queue on. */
bool ring_poll(struct ring *r, uint64_t ticket);

/* For an owner who takes what comes first. Whether that ticket has all its bytes, whatever is of
 * those before it; false: it is open, or void. Looks at nothing but the books. */
bool ring_has(const struct ring *r, uint64_t ticket);
/* Waits until one of tickets[n], n > 0, has all its bytes. Errors as of ring_wait_for, also when
 * the read that failed is another one. */
enum err ring_wait_any(struct ring *r, const uint64_t *tickets, int n,
                       uint64_t timeout_us) MUST_USE;
/* ERR_INTEGRITY when the file is no longer what was opened: what is here (ring_has) is to be used
 * only if it still is. Then as after any error. */
enum err ring_same(struct ring *r) MUST_USE;
/* From here on nothing is started while so many bytes are in flight: a disk serves all that it has
 * side by side, so with many in flight the first comes hardly sooner than the last. */
void ring_narrow(struct ring *r, size_t most_bytes);

#endif
