/* pools - the memories of this box, as `hearth plan` shows them (cmd/pools.c) */
#ifndef HEARTH_POOLS_H
#define HEARTH_POOLS_H

#include "base/buf.h"
#include "base/pool.h"

/* A table; plan_bytes: what the plan takes, to say where else it would fit. */
void pools_put_text(struct buf *out, const struct pool *p, uint64_t plan_bytes);
/* Members of an object: "host": {...}, "gpus": [...]. */
void pools_put_json(struct buf *out, const struct pool *p);

#endif
