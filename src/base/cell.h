/* cell - one number that several threads read and write (header only)
 *
 * For flags, counters and heartbeats: a value that stands alone. cell_set publishes what the writer
 * did before it to a reader whose cell_get sees the value (release / acquire). */
#ifndef HEARTH_CELL_H
#define HEARTH_CELL_H

#include <stdatomic.h>
#include <stdint.h>

struct cell {
    _Atomic uint64_t v;
};

static inline uint64_t cell_get(const struct cell *c)
{
    return atomic_load_explicit(&c->v,
                                memory_order_acquire); /* orders reads after the writer's set */
}

static inline void cell_set(struct cell *c, uint64_t v)
{
    atomic_store_explicit(&c->v, v, memory_order_release); /* orders writes before it */
}

/* Returns what it was before. */
static inline uint64_t cell_add(struct cell *c, uint64_t v)
{
    return atomic_fetch_add_explicit(&c->v, v, memory_order_relaxed); /* a count orders nothing */
}

#endif
