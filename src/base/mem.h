/* mem - the only allocator of the tree (base/mem.c)
 *
 * Two kinds of memory:
 *  - small objects of the control plane (tokenizer tables, requests, JSON): mem_alloc / mem_free,
 *    counted, so that the plan can state and tests can check them;
 *  - arenas: one mapping, sized by the plan, filled front to back, released whole. Weights, KV
 *    pages and step workspace live in arenas.
 * ME-1  after mem_freeze(true) on a thread, mem_alloc and arena_open on that thread are a mistake
 *       of ours: abort in checked builds.
 * ME-2  an arena never grows and never moves; arena_take returns NULL when it is full.
 * ME-3  behind mem_fence(n) a thread never holds more than n bytes of mem_alloc, as they were asked
 *       for, beyond what it held when the fence was set. (A block that grows may be copied: large
 *       ones are not, the system moves their pages.)
 * ME-4  while there are grants, mem_alloc and arenas that are no files together hold no more than
 *       what was held before the first and all grants give: beyond that they refuse. */
#ifndef HEARTH_MEM_H
#define HEARTH_MEM_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Checked arithmetic for numbers from outside; false on overflow, *out untouched then. */
bool mem_mul(size_t a, size_t b, size_t *out) MUST_USE;
bool mem_add(size_t a, size_t b, size_t *out) MUST_USE;
/* x rounded up to a multiple of the power of two `to`; x must be below SIZE_MAX - to. */
size_t mem_round(size_t x, size_t to);

/* Zeroed memory, NULL when there is none (the caller says what it was for) or n == 0. */
void *mem_alloc(size_t n_bytes) __attribute__((malloc));
void *mem_alloc_array(size_t n, size_t each_bytes)
    __attribute__((malloc)); /* NULL on overflow too */
/* New bytes beyond the old size are not zeroed. On NULL the old block is still there. */
void *mem_realloc(void *p, size_t n_bytes) MUST_USE;
void mem_free(void *p);                    /* accepts NULL */
char *mem_strdup(const char *s, size_t n); /* n bytes and a final 0 */
size_t mem_used_bytes(void);               /* live bytes from mem_alloc in the whole process */
size_t mem_thread_bytes(void); /* that this thread took, less what it gave back: for differences */
size_t mem_peak_bytes(void);   /* most of these since start: tests hold bounds against it */

/* For this thread, until the next call: beyond n bytes mem_alloc gives NULL; SIZE_MAX: no fence.
 * Returns whether the fence that ends here refused anything. */
bool mem_fence(size_t n_bytes);

/* The guard (ME-4): n bytes may be held, beyond `before` if this is the first grant, which is what
 * mem_held_bytes said before its owner took anything. Any thread; mem_ungrant ends it. */
void mem_grant(size_t n_bytes, size_t before);
void mem_ungrant(size_t n_bytes);
bool mem_is_guarded(void);
size_t mem_held_bytes(void); /* live bytes from mem_alloc, and those of arenas that are no files */

void mem_freeze(bool is_frozen); /* this thread only */

struct arena {
    uint8_t *base;    /* owns the mapping; 64-byte aligned, 2 MB aligned when large */
    size_t cap;       /* bytes usable; 0 for a counting arena */
    size_t used;      /* bytes taken */
    size_t peak;      /* high-water mark of used */
    bool is_counting; /* no memory behind it: arena_take only counts (the dry run of the plan) */
    bool is_huge;     /* the kernel was asked for 2 MB pages */
    bool is_file;     /* pages of a file, read only */
    size_t mapped;    /* bytes of the mapping */
};

/* Maps `cap` bytes of zero pages. With `touch` every page is faulted in now, so that a later access
 * cannot fail for lack of memory. ERR_MEMORY with both numbers when the system refuses. */
enum err arena_open(struct arena *a, size_t cap_bytes, bool touch) MUST_USE;
/* Maps n bytes of an open file from `at` on, a multiple of 65536, read only and shared with the
 * page cache; all are taken. Where the file is shortened later, or cannot be read, its pages end
 * the process by SIGBUS unless a handler mends them. ERR_MEMORY. */
enum err arena_open_file(struct arena *a, int fd, uint64_t at, size_t n_bytes) MUST_USE;
/* For a handler of SIGBUS, on any thread: where at is in a file's arena, zero pages take the place
 * of those around it, and the file counts as torn. false: it is elsewhere. */
bool mem_mend(const void *at);
bool mem_is_torn(void); /* whether zeros may have been read in place of a file; for good */
void arena_open_counting(struct arena *a);
void arena_close(struct arena *a); /* accepts a zeroed object */
/* n bytes, 64-byte aligned; NULL when full. A counting arena returns an address that must not be
 * read or written (non-NULL). */
void *arena_take(struct arena *a, size_t n_bytes);
size_t arena_mark(const struct arena *a);
void arena_rewind(struct arena *a, size_t mark);
/* Faults in the pages of [at, at + n) of the arena; any thread. ERR_MEMORY when there are none, or
 * ERR_IO when a file's cannot be read. */
enum err arena_touch(const struct arena *a, size_t at, size_t n_bytes) MUST_USE;

#endif
