/* model_tiny - a model and its engine without a thread, for tests (header only)
 *
 * Goes with engine.c included: the test makes the engine's steps itself, in turn, so that nothing
 * depends on a clock. */
#ifndef HEARTH_TESTS_MODEL_TINY_H
#define HEARTH_TESTS_MODEL_TINY_H

#include "gguf_tiny.h"

struct model {
    struct gguf *gguf;
    struct arch arch;
    struct weights weights;
    struct tok *tok;
    struct team *team;
    struct arena arena;
    struct stream *stream;     /* NULL: all weights are in memory */
    int fd;                    /* of a model made here; -1 else */
    const struct model *small; /* that guesses for it; NULL: none */
};

/* All but the weights' bytes. */
static inline enum err model_bind(struct model *m, const char *file, int32_t n_worker)
{
    *m = (struct model){ .fd = -1 };
    TRY(gguf_open(&m->gguf, file));
    TRY(arch_read(&m->arch, m->gguf));
    TRY(weights_bind(&m->weights, &m->arch, m->gguf));
    TRY(tok_open(&m->tok, m->gguf));
    return team_open(&m->team, n_worker);
}

/* file: NULL for one that is made here. */
static inline enum err model_open(struct model *m, const char *file, int32_t n_worker)
{
    char path[64];
    const int fd = file == NULL ? tiny_model(path) : -1;
    const enum err e = model_bind(m, file == NULL ? path : file, n_worker);
    m->fd = fd;
    TRY(e);
    return weights_load(&m->weights, m->gguf, &m->arena, m->team, NULL, NULL);
}

static inline void model_close(struct model *m)
{
    stream_close(m->stream);
    arena_close(&m->arena);
    team_close(m->team);
    tok_close(m->tok);
    weights_release(&m->weights);
    gguf_close(m->gguf);
    if (m->fd >= 0) {
        close(m->fd);
    }
}

/* One greedy answer that no token ends. */
static inline struct engine_spec plain_spec(void)
{
    struct engine_spec spec = { .n_choice = 1, .is_eos_ignored = true };
    spec.sample.top_p = spec.sample.typical_p = spec.sample.repeat_penalty = 1.0f;
    spec.sample.n_logprob = -1;
    return spec;
}

/* An engine that has checked itself and waits for steps. Close it with engine_close. */
static inline enum err engine_bare(struct engine **out, const struct model *m,
                                   const struct plan_config *c, struct plan *plan)
{
    struct plan_beside beside = { 0 };
    struct engine *e = mem_alloc(sizeof *e);
    *out = e;
    REQUIRE(e != NULL, ERR_MEMORY, "no memory for an engine");
    e->fd = -1;
    e->parts = (struct engine_parts){ .arch = &m->arch,
                                      .weights = &m->weights,
                                      .stream = m->stream,
                                      .tok = m->tok,
                                      .team = m->team,
                                      .kern = kern_get(cpu_best()) };
    e->config = *c;
    if (m->small != NULL) {
        e->parts.draft_arch = beside.draft_arch = &m->small->arch;
        e->parts.draft_weights = beside.draft_weights = &m->small->weights;
    }
    TRY(engine_request_bytes(c, &m->arch, m->tok, &beside.request_bytes));
    TRY(plan_make(plan, &m->arch, &m->weights, c, &beside));
    TRY(prepare(e, plan));
    return engine_check(e);
}

#endif
