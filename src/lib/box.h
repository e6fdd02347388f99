/* box - what a box is, and what it takes where a model's parameters leave the choice (lib/box.c) */
#ifndef HEARTH_BOX_H
#define HEARTH_BOX_H

#include "base/cpu.h"
#include "base/err.h"
#include "engine/plan.h"
#include "hearth.h"

struct hearth_box {
    int32_t n_thread;
    enum cpu_isa isa;
    uint64_t memory_bytes;
};

#define BOX_BATCH 512 /* tokens of a prompt in one piece */
/* Where layers are read from the disk: a core multiplies some 50 tokens by a weight in the time
 * that a disk of 3 to 4 GB/s takes for it, whatever the model. */
#define BOX_BATCH_THREAD 64
#define BOX_BATCH_MOST   2048

/* hearth_plan_make; *host, if not NULL, gets the pool that gave what is available. */
hearth_status hearth_plan_read(struct hearth_box *box, const char *path,
                               const struct hearth_model_params *p, struct hearth_plan *out,
                               struct pool_host *host) MUST_USE;
/* Fills c from a model's parameters. ERR_USAGE, ERR_LIMIT; *c is for nothing then. */
enum err box_config(const struct hearth_box *box, const struct arch *a,
                    const struct hearth_model_params *p, struct plan_config *c) MUST_USE;

#endif
