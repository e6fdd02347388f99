/* budget - bytes that all clients together may make the service hold (header only)
 *
 * Bodies, answers and streams are as large as clients make them, so that many could fill the memory
 * although each is bounded. Whoever keeps such bytes takes them here first, and what does not fit
 * is refused. The plan counts `max` (server_extra_bytes).
 *
 * Owner: the loop thread.
 * BG-1  used <= max; what was taken is given back once. */
#ifndef HEARTH_BUDGET_H
#define HEARTH_BUDGET_H

#include <stdbool.h>
#include <stddef.h>

struct budget {
    size_t max;  /* bytes */
    size_t used; /* bytes */
};

/* n bytes, unless fewer than `leave` bytes were free afterwards. */
static inline bool budget_take(struct budget *b, size_t n, size_t leave)
{
    const size_t n_free = b->max - b->used;
    if (n > n_free || n_free - n < leave) {
        return false;
    }
    b->used += n;
    return true;
}

static inline void budget_give(struct budget *b, size_t n)
{
    b->used -= n;
}

#endif
