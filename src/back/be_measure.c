/* be_measure - the backend that computes nothing
 *
 * The plan of hearth is not a model of the program but the program itself, run on this backend: the
 * forward pass asks for its buffers and calls its operations as ever, and here they are only
 * counted. Memory that the plan states is therefore the memory the run will take, to the byte.
 *
 * Traffic is what must come from main memory at least once a step: weights once per operation,
 * cache pages once per query tile. Activations are left out, they live in caches. Of experts as
 * many count as so many tokens are expected to use (back_route_evenly).
 *
 * Next: engine/plan.c turns the sums into a decision. */
#include "back/be_measure.h"

static struct be_measure *self(struct back *b)
{
    return (struct be_measure *)(void *)b;
}

/* As be_cpu: a row of the file as scratch; only the rows of the tokens are read. */
static void measure_embed(struct back *b, float *y, const struct tensor *table, const int32_t *ids,
                          int32_t n_tok, float scale)
{
    (void)y, (void)ids, (void)scale;
    const size_t mark = arena_mark(b->step);
    size_t row = 0;
    if (quant_bytes(table->type, (uint64_t)table->n_col, &row)) {
        arena_take(b->step, row);
        self(b)->weight_bytes += row * (size_t)n_tok;
    }
    arena_rewind(b->step, mark);
}

/* Operations on activations take no workspace and no memory traffic that counts: nothing to add. */
static void measure_norm(struct back *b, float *y, const float *x, size_t ld, int32_t n_tok,
                         int32_t n_group, int32_t n, const struct back_norm *p)
{
    (void)b, (void)y, (void)x, (void)ld, (void)n_tok, (void)n_group, (void)n, (void)p;
}

/* What must be read at least: every weight once, whatever the number of tokens. */
static void add_product(struct be_measure *m, const struct tensor *w, int32_t n_tok)
{
    m->weight_bytes += w->bytes;
    m->product_ops += 2 * (uint64_t)w->n_row * (uint64_t)w->n_col * (uint64_t)n_tok;
}

static void measure_matmul(struct back *b, const struct back_out *out, int32_t n_out,
                           const float *x, size_t ldx, int32_t n_tok)
{
    (void)x, (void)ldx;
    const size_t mark = arena_mark(b->step);
    arena_take(b->step, back_matmul_bytes(out, n_out, n_tok));
    arena_rewind(b->step, mark);
    for (int32_t i = 0; i < n_out; i++) {
        add_product(self(b), out[i].w, n_tok);
    }
}

static void measure_matmul_glu(struct back *b, enum kern_fn fn, const struct back_out *out,
                               int32_t n_out, const float *x, size_t ldx, int32_t n_tok)
{
    (void)fn;
    measure_matmul(b, out, n_out, x, ldx, n_tok);
}

static void measure_route(struct back *b, struct back_route *r, float *logits, int32_t n_tok)
{
    (void)b, (void)logits;
    back_route_evenly(r, n_tok);
}

static void measure_experts(struct back *b, const struct back_experts *p)
{
    const size_t mark = arena_mark(b->step);
    arena_take(b->step, back_experts_bytes(p));
    arena_rewind(b->step, mark);
    for (int32_t i = 0; i < p->n; i++) {
        for (int32_t k = 0; k < p->n_out; k++) {
            add_product(self(b), p->expert[i].out[k].w, p->expert[i].n_tok);
        }
    }
}

static void measure_add_experts(struct back *b, float *y, const float *out,
                                const struct back_route *r, int32_t place0, int32_t place1,
                                size_t ld, int32_t n_tok, int32_t n)
{
    (void)b, (void)y, (void)out, (void)r, (void)place0, (void)place1, (void)ld, (void)n_tok;
    (void)n;
}

static void measure_add_gated(struct back *b, float *x, const float *y, float *gate, size_t ld,
                              int32_t n_tok, int32_t n)
{
    (void)b, (void)x, (void)y, (void)gate, (void)ld, (void)n_tok, (void)n;
}

static void measure_angles(struct back *b, float *cos, float *sin, const int32_t *pos,
                           int32_t n_tok, const double *freq, int32_t n_half, double mscale)
{
    (void)b, (void)cos, (void)sin, (void)pos, (void)n_tok, (void)freq, (void)n_half, (void)mscale;
}

static void measure_rope(struct back *b, float *x, size_t ld, int32_t n_tok, int32_t n_head,
                         int32_t hd, const struct back_angles *angles)
{
    (void)b, (void)x, (void)ld, (void)n_tok, (void)n_head, (void)hd, (void)angles;
}

/* Of a page of all heads: k_page and v_page are those of one. */
static uint64_t slot_bytes(const struct back_kv *kv, uint64_t n_slot)
{
    return n_slot * (kv->k_page + kv->v_page) * (uint64_t)kv->n_kv / KERN_PAGE;
}

static void measure_kv_write(struct back *b, const struct back_attend *p, const float *k,
                             const float *v)
{
    (void)k, (void)v;
    self(b)->kv_bytes += slot_bytes(&p->kv, (uint64_t)p->n_tok);
}

static void measure_attend(struct back *b, const struct back_attend *p, float *y, const float *q)
{
    (void)y, (void)q;
    const size_t mark = arena_mark(b->step);
    arena_take(b->step, back_attend_worst_bytes(p, self(b)->n_worker));
    arena_rewind(b->step, mark);
    for (int32_t i = 0; i < p->n_run; i++) {
        const struct back_run *r = &p->runs[i];
        const uint64_t n_pos = (uint64_t)r->pos0 + (uint64_t)r->n_tok;
        const uint64_t seen =
            p->window > 0 && (uint64_t)p->window < n_pos ? (uint64_t)p->window : n_pos;
        self(b)->kv_bytes += slot_bytes(&p->kv, seen);
    }
}

static void measure_add(struct back *b, float *x, const float *y, float a, size_t ld, int32_t n_tok,
                        int32_t n)
{
    (void)b, (void)x, (void)y, (void)a, (void)ld, (void)n_tok, (void)n;
}

static void measure_scale(struct back *b, float *x, float a, float cap, size_t ld, int32_t n_tok,
                          int32_t n)
{
    (void)b, (void)x, (void)a, (void)cap, (void)ld, (void)n_tok, (void)n;
}

static void measure_gather(struct back *b, float *y, const float *x, const int32_t *rows,
                           int32_t n_row, size_t ld)
{
    (void)b, (void)y, (void)x, (void)rows, (void)n_row, (void)ld;
}

static const struct back_ops ops = {
    .embed = measure_embed,
    .norm = measure_norm,
    .matmul = measure_matmul,
    .matmul_glu = measure_matmul_glu,
    .angles = measure_angles,
    .rope = measure_rope,
    .kv_write = measure_kv_write,
    .attend = measure_attend,
    .add = measure_add,
    .scale = measure_scale,
    .route = measure_route,
    .experts = measure_experts,
    .add_experts = measure_add_experts,
    .add_gated = measure_add_gated,
    .gather = measure_gather,
};

void be_measure_init(struct be_measure *m, struct arena *step, int32_t n_worker)
{
    *m = (struct be_measure){ .back = { .op = &ops, .step = step }, .n_worker = n_worker };
}
