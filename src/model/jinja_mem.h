/* jinja_mem - memory and budgets of one template run (model/jinja_mem.c)
 *
 * Everything the template interpreter makes comes from one arena per run (or per parsed template)
 * and goes with it; nothing is freed singly. The same object counts steps and depth.
 * JM-1  bytes taken never exceed bytes_max, steps steps_max, depth JMEM_DEPTH_MAX.
 * JM-2  work is paid for before it is done: a call that would break JM-1 changes nothing.
 * JM-3  after the first failure every call fails as it did: what takes two pieces may look at
 *       m->err once, behind both. */
#ifndef HEARTH_JINJA_MEM_H
#define HEARTH_JINJA_MEM_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Nested evaluations, blocks and macro calls together. Bounds the C stack: see jinja_eval.c. */
#define JMEM_DEPTH_MAX 500
/* Nested data that the template built out of itself; printing, comparing and hashing stop there. */
#define JMEM_NEST_MAX 128
/* Bytes that count as one step where a built-in walks over text. */
#define JMEM_STEP_BYTES 32

struct jmem_block; /* one piece from mem_alloc, linked to the one before */

struct jmem {
    struct jmem_block *blocks; /* owns */
    char *at;                  /* next free byte of the newest block */
    size_t left;               /* bytes free there */
    size_t used_bytes;         /* sum of all blocks */
    size_t bytes_max;
    uint64_t steps;
    uint64_t steps_max;
    int depth;
    bool is_full;  /* bytes_max was reached */
    enum err err;  /* of the last failure; its text is in err_text() */
    uint32_t line; /* of the template, where the run is */
    int64_t now_s; /* for strftime_now */
};

/* Budgets of one run; takes no memory before jmem_take. */
void jmem_init(struct jmem *m, size_t bytes_max, uint64_t steps_max);
void jmem_release(struct jmem *m); /* accepts a zeroed object */

/* Zeroed bytes, aligned to 8, alive until jmem_release. NULL with m->err and a text when
 * the budget is spent (ERR_LIMIT) or the system has nothing (ERR_MEMORY). n == 0 gives a valid
 * address. */
void *jmem_take(struct jmem *m, size_t n_bytes) MUST_USE;
void *jmem_take_array(struct jmem *m, size_t n, size_t each_bytes) MUST_USE;
/* Grows p[n_old] to n_new in place when it is the newest piece and there is room; else false. */
bool jmem_extend(struct jmem *m, const void *p, size_t n_old, size_t n_new);
/* Takes back what p[n_old] has behind n_new, untouched, when it is the newest piece. */
void jmem_cut(struct jmem *m, const void *p, size_t n_old, size_t n_new);

/* Pays for n steps, or for walking over n bytes. ERR_LIMIT when there are no more. */
enum err jmem_step(struct jmem *m, uint64_t n) MUST_USE;
enum err jmem_walk(struct jmem *m, size_t n_bytes) MUST_USE;

/* One level deeper; every success is matched by one jmem_leave. */
enum err jmem_enter(struct jmem *m) MUST_USE;
void jmem_leave(struct jmem *m);

/* Sets the text and m->err, returns the code: for functions that give NULL. */
#define JMEM_FAIL(m, code, ...) ((m)->err = err_set((code), __VA_ARGS__))

#endif
