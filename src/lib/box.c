/* box - what a box is, and what it takes where a model's parameters leave the choice
 *
 * Parameters of the public library become the engine's here, for the plan, for opening a model and
 * for predicting its speed alike. What a default is stands in include/hearth.h beside the field.
 *
 * Rejected: defaults by the box's memory. The same command would then give other answers where a
 * context ends.
 *
 * Next: lib/hearth.c. */
#include "lib/box.h"

#include "engine/sched.h"

#define CTX_DEFAULT   4096
#define QUEUE_DEFAULT 64

enum err box_config(const struct hearth_box *box, const struct arch *a,
                    const struct hearth_model_params *p, struct plan_config *c)
{
    REQUIRE(p->n_ctx >= 0 && p->n_parallel >= 0 && p->n_queue >= 0 && p->n_batch >= 0, ERR_USAGE,
            "context, parallel, queue and batch must not be negative");
    REQUIRE(p->n_ctx <= ARCH_CTX_MAX, ERR_USAGE,
            "a context of %d tokens was asked for; %d are the most", p->n_ctx, ARCH_CTX_MAX);
    REQUIRE(p->n_batch <= 65536, ERR_USAGE,
            "a batch of %d tokens was asked for; 65536 are the most", p->n_batch);
    REQUIRE(p->n_ctx != 1, ERR_USAGE, "context is 1, must be 2 or more (0: the default)");
    REQUIRE(p->extra_bytes <= UINT64_MAX / 2, ERR_LIMIT, "extra_bytes is %llu, which no box has",
            (unsigned long long)p->extra_bytes);
    REQUIRE(p->n_parallel <= SCHED_SEQ_MAX && p->n_queue <= SCHED_QUEUE_MAX, ERR_USAGE,
            "parallel is %d and queue %d; they may be %d and %d at most", p->n_parallel, p->n_queue,
            SCHED_SEQ_MAX, SCHED_QUEUE_MAX);
    const int32_t n_default = a->n_ctx_train < CTX_DEFAULT ? a->n_ctx_train : CTX_DEFAULT;
    *c = (struct plan_config){
        .n_ctx = p->n_ctx > 0 ? p->n_ctx : n_default,
        .n_parallel = p->n_parallel > 0 ? p->n_parallel : 1,
        .n_queue = p->n_queue > 0 ? p->n_queue : QUEUE_DEFAULT,
        .n_batch = p->n_batch > 0 ? p->n_batch : BOX_BATCH,
        .kv = KERN_KV_F16,
        .n_worker = box->n_thread,
        .checks_all = p->checks_all != 0,
    };
    c->n_batch = c->n_batch < c->n_ctx ? c->n_batch : c->n_ctx;
    REQUIRE(p->kv == NULL || kern_kv_parse(p->kv, &c->kv), ERR_USAGE,
            "cache type \"%s\" is unknown (f16, bf16, q8_0, f32)", p->kv);
    REQUIRE(c->n_ctx <= a->n_ctx_train, ERR_LIMIT,
            "a context of %d tokens was asked for; this model was made for %d", c->n_ctx,
            a->n_ctx_train);
    return ERR_OK;
}
