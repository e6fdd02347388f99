/* plan - what a model takes on this box, to the byte, before anything is loaded
 *
 * There is no second model of memory. The context arena is sized by running plan_take on an arena
 * that only counts, and the step arena by running the decoder itself on be_measure with the largest
 * steps that the scheduler can make: a whole piece of a prompt beside a token of every other
 * answer, and a token of every answer with all guesses. What the plan says is therefore what the
 * run takes.
 *
 * The remaining lines are measured (program and libraries: what is held before the model is opened,
 * and their code) or counted by their owners (tokenizer, template, requests). Loading needs read
 * buffers and the files' directories, which are given back before the cache is touched, so they
 * count only where they exceed it. What the kernel keeps for the process is no resident memory, but
 * a cgroup counts it: page tables follow from the sum, stacks of threads and the rest are known.
 *
 * Available is the least of the owner's limit and of what the host's pool gives (pool.c).
 *
 * Next: engine_open.c takes what was planned. */
#include "engine/plan.h"

#include "back/be_cpu.h"
#include "back/be_measure.h"
#include "base/pool.h"
#include "base/ring.h"
#include "base/team.h"
#include "engine/guess.h"

/* A page table has 8 bytes for each 4 KiB; x86 and ARM keep that also behind a page of 2 MB, which
 * may be split. Tables of higher levels are a 512th of that; each mapping may begin a page of its
 * own at two levels, and there are some eight. */
#define TABLES_SHARE       512
#define TABLES_APART_BYTES ((uint64_t)64 << 10)

#define CODE_LATER_BYTES ((size_t)1 << 20)  /* of the program, not yet read in: 0.7 MB are used */
#define KERNEL_BYTES     ((size_t)96 << 10) /* that the kernel has for a process: 40 are used */
#define KERNEL_THREAD    ((size_t)24 << 10) /* and for a thread: its stack is 16 of these */
#define THREADS_BESIDE   4                  /* the workers: engine, loader, log, preparation */

/* By how much what the process holds before the plan differs from start to start: pages of tables,
 * as addresses do, and the first pages of threads that may or may not have begun yet: up to 50 KiB
 * in a service on a busy box. What one start says must do for the next. */
#define NOISE_BYTES ((uint64_t)64 << 10)

/* Code comes into memory as it is used, in pieces that depend on addresses, which differ from start
 * to start: some 0.8 MB of the program's 7. All code that is mapped is more than what comes and
 * always the same, so that what `hearth plan` says is what the next start needs. */
void plan_program(struct plan_beside *out, int32_t n_worker)
{
    struct os_held h;
    os_trim_heap(); /* of an earlier plan */
    os_held(&h);
    const uint64_t later = h.file_bytes + CODE_LATER_BYTES;
    out->program_bytes = h.own_bytes + (later > h.code_bytes ? later : h.code_bytes) +
                         (uint64_t)n_worker * BE_CPU_STACK_BYTES;
    out->kernel_bytes =
        KERNEL_BYTES + h.table_bytes + (uint64_t)(n_worker + THREADS_BESIDE) * KERNEL_THREAD;
}

enum err plan_take(struct plan_context *x, const struct arch *a, const struct weights *w,
                   const struct plan_config *c, struct back *back, struct arena *context)
{
    const int64_t n_page = (int64_t)((c->n_ctx + KERN_PAGE - 1) / KERN_PAGE) * c->n_parallel;
    REQUIRE(n_page <= INT32_MAX, ERR_LIMIT, "%d conversations of %d tokens: too many pages",
            c->n_parallel, c->n_ctx);
    TRY(kv_init(&x->kv, a, c->kv, (int32_t)n_page, context));
    x->seqs = arena_take(context, (size_t)c->n_parallel * sizeof x->seqs[0]);
    REQUIRE(x->seqs != NULL, ERR_MEMORY, "page tables: the arena is too small");
    for (int32_t i = 0; i < c->n_parallel; i++) {
        struct kv_seq seq;
        TRY(kv_seq_init(&seq, c->n_ctx, context));
        if (!context->is_counting) {
            x->seqs[i] = seq;
        }
    }
    x->decoder = (struct decoder){ .arch = a, .weights = w, .kv = &x->kv, .back = back };
    return decoder_init(&x->decoder, c->n_ctx, context);
}

/* One dry step of n_prompt prompt tokens beside n_decode single ones, all at the end of their
 * contexts; a prompt's last token has scores, and of the others so many as are single. */
static enum err dry_step(struct be_measure *m, struct plan_context *x, const struct plan_config *c,
                         int32_t n_prompt, int32_t n_decode)
{
    struct back_run runs[2]; /* runs of one shape may be told as one: only lengths matter here */
    int32_t n_run = 0;
    if (n_prompt > 0) {
        runs[n_run++] = (struct back_run){ .n_tok = n_prompt, .pos0 = c->n_ctx - n_prompt };
    }
    if (n_decode > 0) {
        runs[n_run++] =
            (struct back_run){ .tok0 = n_prompt, .n_tok = n_decode, .pos0 = c->n_ctx - n_decode };
    }
    const struct decoder_step step = { .n_tok = n_prompt + n_decode, .runs = runs, .n_run = n_run };
    const size_t mark = arena_mark(m->back.step);
    float *hidden = NULL;
    TRY(decoder_forward(&x->decoder, &step, &hidden));
    decoder_logits(&x->decoder, hidden, NULL, n_decode + (n_prompt > 0 ? 1 : 0));
    arena_rewind(m->back.step, mark);
    return ERR_OK;
}

static void add_part(struct plan *p, const char *name, uint64_t bytes)
{
    if (bytes > 0) {
        p->part[p->n_part++] = (struct plan_part){ name, bytes };
        p->total_bytes += bytes;
    }
}

/* The same for what does not depend on contexts. */
static void add_fixed(struct plan *p, const char *name, uint64_t bytes)
{
    add_part(p, name, bytes);
    p->least_bytes += bytes;
}

/* Last, as all other lines have page tables. Nothing where the caller knows of nothing. */
static void add_kernel(struct plan *p, uint64_t held)
{
    const uint64_t apart = held > 0 ? held + TABLES_APART_BYTES : 0;
    const uint64_t least = held > 0 ? apart + p->least_bytes / TABLES_SHARE : 0;
    add_part(p, "kernel: tables, stacks", held > 0 ? apart + p->total_bytes / TABLES_SHARE : 0);
    p->least_bytes += least;
}

/* A model on arenas that only count. Must not move: its parts point to each other. */
struct dry {
    struct arena context;
    struct arena step;
    struct be_measure m;
    struct plan_context x;
};

static enum err dry_open(struct dry *d, const struct arch *a, const struct weights *w,
                         const struct plan_config *c)
{
    arena_open_counting(&d->context);
    arena_open_counting(&d->step);
    be_measure_init(&d->m, &d->step, c->n_worker);
    return plan_take(&d->x, a, w, c, &d->m.back, &d->context);
}

static enum err measure(struct plan *p, const struct arch *a, const struct weights *w)
{
    const struct plan_config *c = &p->config;
    struct dry d = { 0 };
    TRY(dry_open(&d, a, w, c));
    p->context_bytes = d.context.peak;
    const int32_t n_prompt = c->n_batch < c->n_ctx ? c->n_batch : c->n_ctx;
    TRY(dry_step(&d.m, &d.x, c, n_prompt, c->n_parallel - 1));
    /* what guesses leave of a context: a prompt of one, the token before them and the one after */
    const int32_t n_beside = 3;
    const int64_t n_guess =
        c->n_ctx > n_beside ? (int64_t)c->n_parallel * (c->n_ctx - n_beside) : 0;
    const int32_t n_most = n_guess < GUESS_MAX ? (int32_t)n_guess : GUESS_MAX;
    TRY(dry_step(&d.m, &d.x, c, 0, c->n_parallel + n_most));
    p->step_bytes = d.step.peak;
    be_measure_init(&d.m, &d.step, c->n_worker);
    struct plan_config one = *c;
    one.n_ctx = 1;
    TRY(dry_step(&d.m, &d.x, &one, 0, 1));
    p->step_read_bytes = d.m.weight_bytes + d.m.kv_bytes;
    p->tok_ops = d.m.product_ops - 2 * (uint64_t)w->output.n_row * (uint64_t)w->output.n_col;
    be_measure_init(&d.m, &d.step, c->n_worker);
    one.n_ctx = c->n_parallel;
    TRY(dry_step(&d.m, &d.x, &one, 0, c->n_parallel));
    p->parallel_read_bytes = d.m.weight_bytes + d.m.kv_bytes;
    p->tok_kv_bytes = kv_tok_bytes(a, c->kv);
    for (int32_t i = 0; i < a->n_layer && a->window > 0; i++) {
        p->window_kv_bytes += a->layer[i].is_window ? p->tok_kv_bytes / (uint64_t)a->n_layer : 0;
    }
    p->window = (uint64_t)a->window;
    return ERR_OK;
}

/* The small model computes pieces of prompts, and guesses for some sequences at once. */
static enum err measure_draft(struct plan *p, const struct arch *a, const struct weights *w)
{
    const struct plan_config *c = &p->config;
    struct dry d = { 0 };
    TRY(dry_open(&d, a, w, c));
    p->draft_bytes = d.context.peak;
    const int32_t n_seq = c->n_parallel < GUESS_MAX ? c->n_parallel : GUESS_MAX;
    TRY(dry_step(&d.m, &d.x, c, c->n_ctx < PLAN_DRAFT_PIECE ? c->n_ctx : PLAN_DRAFT_PIECE, 0));
    TRY(dry_step(&d.m, &d.x, c, 0, PLAN_DRAFT_LAG * n_seq));
    p->step_bytes = d.step.peak > p->step_bytes ? d.step.peak : p->step_bytes;
    return ERR_OK;
}

/* What the host's pool gives: always, or only when other processes claimed more of it since. */
static void look(struct plan *p, bool is_first)
{
    struct pool_host h;
    pool_read_host(&h, &p->image);
    if (is_first || h.other_bytes > p->host.other_bytes) {
        const bool is_less = p->limit_bytes > 0 && p->limit_bytes < h.available_bytes;
        p->host = h;
        p->is_own_limit = is_less || h.is_ulimit;
        p->available_bytes = is_less ? p->limit_bytes : h.available_bytes;
        p->available_from = is_less ? "the limit that was given" : h.limit;
        p->fits = p->total_bytes <= p->available_bytes + NOISE_BYTES;
    }
}

void plan_look(struct plan *p)
{
    look(p, false);
}

enum err plan_make(struct plan *p, const struct arch *a, const struct weights *w,
                   const struct plan_config *c, const struct plan_beside *beside)
{
    struct plan t = { .config = *c, .extra_bytes = beside->extra_bytes };
    size_t kv = 0;
    const int64_t n_page = (int64_t)((c->n_ctx + KERN_PAGE - 1) / KERN_PAGE) * c->n_parallel;
    REQUIRE(n_page <= INT32_MAX && kv_bytes(a, c->kv, (int32_t)n_page, &kv), ERR_LIMIT,
            "%d conversations of %d tokens: the cache's size overflows", c->n_parallel, c->n_ctx);
    TRY(measure(&t, a, w));
    if (beside->draft_arch != NULL) {
        TRY(measure_draft(&t, beside->draft_arch, beside->draft_weights));
        add_fixed(&t, "draft weights", beside->draft_weights->arena_bytes);
        add_part(&t, "draft cache", t.draft_bytes);
    }
    if (stream_is_cut(&c->cut)) {
        const uint64_t experts = (uint64_t)c->cut.n_expert * c->cut.expert_bytes;
        add_fixed(&t, "weights that stay", c->cut.stay_bytes);
        add_fixed(&t, "experts with room", experts);
        add_fixed(&t, "weights on their way", stream_bytes(&c->cut) - c->cut.stay_bytes - experts);
        add_fixed(&t, "reading", ring_bytes());
    } else {
        add_fixed(&t, "weights", w->arena_bytes);
    }
    add_part(&t, "cache", kv);
    add_part(&t, "tables", beside->table_bytes + (t.context_bytes > kv ? t.context_bytes - kv : 0));
    t.least_bytes += beside->table_bytes;
    add_part(&t, "workspace", t.step_bytes);
    add_fixed(&t, "tokenizer", beside->tokenizer_bytes);
    add_fixed(&t, "template", beside->template_bytes);
    add_part(&t, "requests", beside->request_bytes);
    add_fixed(&t, "program and libraries", beside->program_bytes);
    add_fixed(&t, "server", beside->extra_bytes);
    const size_t draft_scratch =
        beside->draft_arch != NULL ? beside->draft_weights->scratch_bytes : 0;
    const size_t scratch = w->scratch_bytes > draft_scratch ? w->scratch_bytes : draft_scratch;
    const uint64_t loading = (uint64_t)c->n_worker * scratch + beside->header_bytes;
    const uint64_t later = t.context_bytes + t.draft_bytes + t.step_bytes + beside->request_bytes;
    add_part(&t, "loading, given back", loading > later ? loading - later : 0);
    t.least_bytes += loading;
    t.taken_bytes = t.total_bytes - beside->program_bytes + CODE_LATER_BYTES;
    add_kernel(&t, beside->kernel_bytes);
    t.limit_bytes = beside->limit_bytes;
    if (!stream_is_cut(&c->cut)) { /* what is read in pieces is not mapped */
        t.image = beside->image;
    }
    look(&t, true);
    *p = t;
    return ERR_OK;
}
