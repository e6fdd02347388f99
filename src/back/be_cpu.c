/* be_cpu - the backend that computes on the processor
 *
 * Each operation is a struct of arguments and a function that a worker runs on its share. There are
 * three shapes of sharing:
 *   - rows: tokens are handed out in chunks (norms, rotary, activation functions, sums);
 *   - panels and tokens: the 16-row panels of all weight matrices of one product form one line,
 *     which is gone through once for each block of tokens and handed out in chunks, so that q, k
 *     and v or gate and up meet at one barrier together;
 *   - attention: see backend.c for how it is cut.
 * A step that decodes one token runs rows on the caller alone: per layer the team meets five times
 * (q/k/v, attention, output, gate/up, down), and more often in attention where a long context is
 * cut into more pieces than its workspace holds; where there are experts, once more, for the
 * router. Many tokens meet 16 times (docs/decisions/0008-meetings.md), and twice more for each few
 * hundred of them that are computed at experts together.
 *
 * Whoever is through with its share of the chunks takes others', so a worker that the system takes
 * off its core delays only its own chunk. Which worker computes what differs from run to run; the
 * bits do not (BC-1).
 *
 * Rejected: one barrier per matrix, and static halves (a busy neighbour then halves the speed);
 * chunks of panels that take all tokens of a long prompt (each panel then reads all activations
 * from the third-level cache: docs/SPEED.md, products of prompts on Zen 5).
 *
 * Next: be_cpu_experts.c, which tokens go to which experts; kern/kern.h. */
#include "back/be_cpu.h"

#include "back/be_cpu_impl.h"
#include "num/fmath.h"
#include "num/pack.h"

#include <assert.h>
#include <string.h>

#define SERIAL_FLOATS 16384 /* elementwise work below this runs on the caller alone */

/* --- sharing by rows -------------------------------------------------------------------------- */

struct rows_job {
    be_cpu_rows_fn fn;
    const void *args;
    const struct kern_table *k;
};

static void rows_part(void *arg, int from, int to)
{
    const struct rows_job *j = arg;
    j->fn(j->args, j->k, from, to);
}

void be_cpu_rows(struct be_cpu *c, be_cpu_rows_fn fn, const void *args, int32_t n_row,
                 size_t n_float)
{
    if (n_row == 1 || (size_t)n_row * n_float < SERIAL_FLOATS) {
        fn(args, c->kern, 0, n_row);
        return;
    }
    const int32_t grain = (int32_t)(SERIAL_FLOATS / 4 / (n_float + 1)) + 1;
    struct rows_job job = { fn, args, c->kern };
    team_share(c->team, rows_part, &job, n_row, grain);
}

struct embed_args {
    float *y;
    const struct tensor *table;
    const int32_t *ids;
    void *scratch;
    float scale;
};

/* On the caller alone: one row a token is nothing beside the products. */
static void embed_rows(const struct embed_args *a, const struct kern_table *k, int32_t n_tok)
{
    const size_t ld = back_ld(a->table->n_col);
    for (int32_t t = 0; t < n_tok; t++) {
        float *y = a->y + (size_t)t * ld;
        pack_row_f32(a->table, a->ids[t], y, a->scratch);
        if (a->scale != 1.0f) {
            k->scale(y, a->scale, a->table->n_col);
        }
    }
}

static void cpu_embed(struct back *b, float *y, const struct tensor *table, const int32_t *ids,
                      int32_t n_tok, float scale)
{
    const size_t mark = arena_mark(b->step);
    size_t row = 0;
    const bool is_ok = quant_bytes(table->type, (uint64_t)table->n_col, &row);
    assert(is_ok);
    (void)is_ok;
    const struct embed_args a = { y, table, ids, arena_take(b->step, row), scale };
    embed_rows(&a, be_cpu_self(b)->kern, n_tok);
    arena_rewind(b->step, mark);
}

struct norm_args {
    float *y;
    const float *x;
    size_t ld;
    int32_t n_group;
    int32_t n;
    const struct back_norm *p;
};

static void norm_rows(const void *args, const struct kern_table *k, int32_t from, int32_t to)
{
    const struct norm_args *a = args;
    for (int32_t t = from; t < to; t++) {
        for (int32_t g = 0; g < a->n_group; g++) {
            const size_t at = (size_t)t * a->ld + (size_t)g * (size_t)a->n;
            if (a->p->is_layer) {
                k->norm_layer(a->y + at, a->x + at, a->p->w, a->p->b, a->p->eps, a->n);
            } else {
                k->norm_rms(a->y + at, a->x + at, a->p->w, a->p->eps, a->n);
            }
        }
    }
}

static void cpu_norm(struct back *b, float *y, const float *x, size_t ld, int32_t n_tok,
                     int32_t n_group, int32_t n, const struct back_norm *p)
{
    const struct norm_args a = { y, x, ld, n_group, n, p };
    be_cpu_rows(be_cpu_self(b), norm_rows, &a, n_tok, (size_t)n_group * (size_t)n);
}

struct angles_args {
    float *cos;
    float *sin;
    const int32_t *pos;
    const double *freq;
    int32_t n_half;
    double mscale;
};

/* In double, and from the position alone: the angle at position 100000 must not lose its fraction,
 * and a token's rotation must not depend on the chunk it came in. */
static void angles_rows(const void *args, const struct kern_table *k, int32_t from, int32_t to)
{
    (void)k;
    const struct angles_args *a = args;
    for (int32_t t = from; t < to; t++) {
        for (int32_t i = 0; i < a->n_half; i++) {
            double s;
            double c;
            fmath_sincos((double)a->pos[t] * a->freq[i], &s, &c);
            a->cos[(size_t)t * (size_t)a->n_half + (size_t)i] = (float)(c * a->mscale);
            a->sin[(size_t)t * (size_t)a->n_half + (size_t)i] = (float)(s * a->mscale);
        }
    }
}

static void cpu_angles(struct back *b, float *cos, float *sin, const int32_t *pos, int32_t n_tok,
                       const double *freq, int32_t n_half, double mscale)
{
    const struct angles_args a = { cos, sin, pos, freq, n_half, mscale };
    be_cpu_rows(be_cpu_self(b), angles_rows, &a, n_tok, (size_t)n_half * 32);
}

struct rope_args {
    float *x;
    size_t ld;
    int32_t n_head;
    int32_t hd;
    const struct back_angles *angles;
};

static void rope_rows(const void *args, const struct kern_table *k, int32_t from, int32_t to)
{
    const struct rope_args *a = args;
    const size_t n_half = (size_t)a->angles->n_rot / 2;
    for (int32_t t = from; t < to; t++) {
        k->rope(a->angles->kind, a->x + (size_t)t * a->ld, a->n_head, a->hd, a->angles->n_rot,
                a->angles->cos + (size_t)t * n_half, a->angles->sin + (size_t)t * n_half);
    }
}

static void cpu_rope(struct back *b, float *x, size_t ld, int32_t n_tok, int32_t n_head, int32_t hd,
                     const struct back_angles *angles)
{
    const struct rope_args a = { x, ld, n_head, hd, angles };
    be_cpu_rows(be_cpu_self(b), rope_rows, &a, n_tok, (size_t)n_head * (size_t)hd);
}

struct kv_args {
    const struct back_attend *p;
    const float *k;
    const float *v;
};

/* Rows here are (run, token) pairs in order. A token's K and V go to one slot of one page, head by
 * head, in the layout that attention reads (kern.h). */
static void kv_rows(const void *args, const struct kern_table *kt, int32_t from, int32_t to)
{
    const struct kv_args *a = args;
    const struct back_kv *kv = &a->p->kv;
    const size_t ldk = back_ld(kv->n_kv * kv->hd_k);
    const size_t ldv = back_ld(kv->n_kv * kv->hd_v);
    int32_t first = 0;
    for (int32_t i = 0; i < a->p->n_run; i++) {
        const struct back_run *r = &a->p->runs[i];
        for (int32_t t = 0; t < r->n_tok; t++) {
            if (first + t < from || first + t >= to) {
                continue;
            }
            const int32_t pos = r->pos0 + t;
            const size_t page = (size_t)r->pages[pos / KERN_PAGE];
            for (int32_t h = 0; h < kv->n_kv; h++) {
                kt->kv_put(kv->kind, kv->hd_k, kv->hd_v,
                           kv->k + page * kv->k_page + (size_t)h * kv->k_head,
                           kv->v + page * kv->v_page + (size_t)h * kv->v_head, pos % KERN_PAGE,
                           a->k + (size_t)(r->tok0 + t) * ldk + (size_t)h * (size_t)kv->hd_k,
                           a->v + (size_t)(r->tok0 + t) * ldv + (size_t)h * (size_t)kv->hd_v);
            }
        }
        first += r->n_tok;
    }
}

/* Two tokens of one page write different bytes of it, but of the same cache lines: worth handing
 * out in larger chunks only. */
static void cpu_kv_write(struct back *b, const struct back_attend *p, const float *k,
                         const float *v)
{
    const struct kv_args a = { p, k, v };
    be_cpu_rows(be_cpu_self(b), kv_rows, &a, p->n_tok,
                (size_t)p->kv.n_kv * (size_t)(p->kv.hd_k + p->kv.hd_v));
}

struct add_args {
    float *x;
    const float *y;
    float a;
    size_t ld;
    int32_t n;
};

static void add_rows(const void *args, const struct kern_table *k, int32_t from, int32_t to)
{
    const struct add_args *a = args;
    for (int32_t t = from; t < to; t++) {
        const size_t at = (size_t)t * a->ld;
        if (a->a == 1.0f) {
            k->add(a->x + at, a->y + at, a->n);
        } else {
            k->add_scaled(a->x + at, a->y + at, a->a, a->n);
        }
    }
}

static void cpu_add(struct back *b, float *x, const float *y, float a, size_t ld, int32_t n_tok,
                    int32_t n)
{
    const struct add_args args = { x, y, a, ld, n };
    be_cpu_rows(be_cpu_self(b), add_rows, &args, n_tok, (size_t)n);
}

struct scale_args {
    float *x;
    float a;
    float cap;
    size_t ld;
    int32_t n;
};

static void scale_rows(const void *args, const struct kern_table *k, int32_t from, int32_t to)
{
    const struct scale_args *a = args;
    for (int32_t t = from; t < to; t++) {
        float *x = a->x + (size_t)t * a->ld;
        if (a->a != 1.0f) {
            k->scale(x, a->a, a->n);
        }
        if (a->cap > 0.0f) {
            k->soft_cap(x, a->cap, a->n);
        }
    }
}

static void cpu_scale(struct back *b, float *x, float a, float cap, size_t ld, int32_t n_tok,
                      int32_t n)
{
    if (a == 1.0f && cap <= 0.0f) {
        return;
    }
    const struct scale_args args = { x, a, cap, ld, n };
    be_cpu_rows(be_cpu_self(b), scale_rows, &args, n_tok, (size_t)n * 4);
}

static void cpu_gather(struct back *b, float *y, const float *x, const int32_t *rows, int32_t n_row,
                       size_t ld)
{
    (void)b;
    for (int32_t i = 0; i < n_row; i++) {
        memcpy(y + (size_t)i * ld, x + (size_t)rows[i] * ld, ld * sizeof(float));
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* The row behind panel `panel` - 1. */
static int32_t rows_until(const struct tensor *w, int32_t panel)
{
    const int32_t r = panel * TENSOR_PANEL_ROWS;
    return r < w->n_row ? r : w->n_row;
}

/* All products of one input: the panels of  | q | k | v |  are one line (struct kern_line). With an
 * activation function a place of the line is the same panel of both matrices, so that their results
 * are joined in the cache of the core that computed them. Many tokens are cut into blocks whose
 * activations stay in that cache; the line is gone through once a block, which reads the weights
 * once a block, too; few tokens are one block. A chunk is a run of places and may reach over
 * borders of matrices and blocks. */
struct matmul_job {
    const struct back_out *out;
    const float *x;
    const int32_t *rows; /* of x; NULL: 0, 1 ... */
    size_t ldx;
    int32_t n_out;
    int32_t n_tok;
    struct kern_line line;
    bool is_glu;
    enum kern_fn fn;
    const struct kern_table *k;
    struct kern_act act[KERN_ACT_COUNT];
    int32_t tile0; /* in the line of all tiles that are prepared for all jobs */
    int32_t n_tile;
    int32_t place0; /* in the line of all places */
};

/* Several of them (experts), whose lines form one. */
struct matmul_jobs {
    struct matmul_job *job;
    int32_t n;
};

/* A part of the product of one matrix. A bias comes after the chain, never as its start: y = acc +
 * bias (docs/NUMERICS.md). */
static void multiply(const struct matmul_job *j, const struct back_out *o, struct kern_part p)
{
    const size_t ld = back_ld(o->w->n_row);
    const int32_t r0 = p.panel0 * TENSOR_PANEL_ROWS;
    const int32_t r1 = rows_until(o->w, p.panel1);
    j->k->matmul(o->w, p, &j->act[kern_act_kind_for(o->w->type)], o->y, ld);
    const int32_t end = kern_tok_end(j->n_tok, p.tile1);
    for (int32_t t = p.tile0 * KERN_TILE; t < end && o->bias != NULL; t++) {
        j->k->add(o->y + (size_t)t * ld + r0, o->bias + r0, r1 - r0);
    }
}

/* Panels of the line that all matrices of the job form. */
static void line_part(const struct matmul_job *j, struct kern_part p)
{
    int32_t first = 0;
    for (int32_t i = 0; i < j->n_out; i++) {
        const int32_t n = tensor_panels(j->out[i].w);
        const int32_t p0 = p.panel0 > first ? p.panel0 - first : 0;
        const int32_t p1 = p.panel1 - first < n ? p.panel1 - first : n;
        if (p0 < p1) {
            multiply(j, &j->out[i], (struct kern_part){ p0, p1, p.tile0, p.tile1 });
        }
        first += n;
    }
}

/* The same panels of each matrix of the job. */
static void glu_part(const struct matmul_job *j, struct kern_part p)
{
    const struct back_out *o = j->out;
    const size_t ld = back_ld(o->w->n_row);
    const int32_t r0 = p.panel0 * TENSOR_PANEL_ROWS;
    const int32_t n = rows_until(o->w, p.panel1) - r0;
    for (int32_t i = 0; i < j->n_out; i++) {
        multiply(j, &o[i], p);
    }
    const int32_t end = kern_tok_end(j->n_tok, p.tile1);
    for (int32_t t = p.tile0 * KERN_TILE; t < end; t++) {
        const size_t at = (size_t)t * ld + (size_t)r0;
        j->k->glu(j->fn, o->y + at, o->y + at, j->n_out > 1 ? o[1].y + at : NULL, n);
    }
}

/* Places [from, to) of the line of all jobs. */
static void matmul_part(void *arg, int from, int to)
{
    const struct matmul_jobs *all = arg;
    for (int32_t i = 0; i < all->n; i++) {
        const struct matmul_job *j = &all->job[i];
        int32_t at = from > j->place0 ? from - j->place0 : 0;
        const int32_t end = to - j->place0 < j->line.n_place ? to - j->place0 : j->line.n_place;
        struct kern_part p;
        while (kern_line_next(&j->line, &at, end, &p)) {
            (j->is_glu ? glu_part : line_part)(j, p);
        }
    }
}

/* Tiles [from, to) of the line of all jobs, in each form that is wanted. */
static void prepare_tiles(const void *args, const struct kern_table *k, int32_t from, int32_t to)
{
    const struct matmul_jobs *all = args;
    for (int32_t i = 0; i < all->n; i++) {
        const struct matmul_job *j = &all->job[i];
        const int32_t t0 = from > j->tile0 ? from - j->tile0 : 0;
        const int32_t t1 = to - j->tile0 < j->n_tile ? to - j->tile0 : j->n_tile;
        for (int kind = 0; kind < KERN_ACT_COUNT && t0 < t1; kind++) {
            if (j->act[kind].data != NULL) {
                k->act_prepare(&j->act[kind], j->x, j->ldx, t0, t1);
            }
        }
    }
}

/* Of a job's only token. */
static int32_t row_of(const struct matmul_job *j)
{
    return j->rows != NULL ? j->rows[0] : 0;
}

/* A job before this one whose activations are the same, prepared in the same forms: one token's
 * experts all read the same row. */
static const struct matmul_job *same_input(const struct matmul_jobs *all, int32_t i)
{
    const struct matmul_job *j = &all->job[i];
    for (int32_t k = 0; k < i && j->n_tok == 1; k++) {
        const struct matmul_job *o = &all->job[k];
        if (o->n_tok == 1 && o->x == j->x && row_of(o) == row_of(j)) {
            return o;
        }
    }
    return NULL;
}

/* Room for a job's activations, and its line. */
static void job_take(struct be_cpu *c, struct matmul_jobs *all, int32_t i)
{
    struct matmul_job *j = &all->job[i];
    const struct matmul_job *same = same_input(all, i);
    int32_t n_panel = 0;
    int32_t at_once = kern_act_tiles(j->n_tok);
    j->k = c->kern;
    j->n_tile = same == NULL ? at_once : 0;
    for (int32_t o = 0; o < j->n_out; o++) {
        const struct tensor *w = j->out[o].w;
        const enum kern_act_kind kind = kern_act_kind_for(w->type);
        struct kern_act *act = &j->act[kind];
        if (same != NULL) {
            *act = same->act[kind];
        } else if (act->data == NULL) {
            *act = (struct kern_act){ kind, j->n_tok, w->n_col, NULL, j->rows };
            act->data = arena_take(c->back.step, kern_act_bytes(kind, j->n_tok, w->n_col));
        }
        assert(act->data != NULL); /* there was room; jobs with one input have the same types */
        const int32_t most = kern_act_tiles_at_once(kind, w->n_col);
        at_once = most < at_once ? most : at_once;
        n_panel = j->is_glu ? tensor_panels(w) : n_panel + tensor_panels(w);
    }
    j->line = kern_line_of(n_panel, j->n_tok, at_once, team_size(c->team));
}

/* Two meetings, or one for few tokens: activations, then places. Jobs begin at whole pairs of
 * panels. */
static void run_jobs(struct be_cpu *c, struct matmul_jobs *all)
{
    const size_t mark = arena_mark(c->back.step);
    int32_t n_tile = 0;
    int32_t n_tok = 0;
    int32_t most = 0; /* tokens of a job */
    int32_t n_place = 0;
    for (int32_t i = 0; i < all->n; i++) {
        struct matmul_job *j = &all->job[i];
        job_take(c, all, i);
        j->tile0 = n_tile;
        j->place0 = (n_place + KERN_PANELS - 1) / KERN_PANELS * KERN_PANELS;
        n_tile += j->n_tile;
        n_tok += j->n_tile > 0 ? j->n_tok : 0;
        most = j->n_tok > most ? j->n_tok : most;
        n_place = j->place0 + j->line.n_place;
    }
    be_cpu_rows(c, prepare_tiles, all, n_tile,
                (size_t)all->job[0].out[0].w->n_col * ((size_t)n_tok / (size_t)n_tile));
    team_share(c->team, matmul_part, all, n_place,
               kern_line_grain(n_place, most, team_size(c->team)));
    arena_rewind(c->back.step, mark);
}

static void matmul_run(struct be_cpu *c, struct matmul_job j)
{
    run_jobs(c, &(struct matmul_jobs){ &j, 1 });
}

static void cpu_matmul(struct back *b, const struct back_out *out, int32_t n_out, const float *x,
                       size_t ldx, int32_t n_tok)
{
    matmul_run(
        be_cpu_self(b),
        (struct matmul_job){ .out = out, .n_out = n_out, .x = x, .ldx = ldx, .n_tok = n_tok });
}

static void cpu_matmul_glu(struct back *b, enum kern_fn fn, const struct back_out *out,
                           int32_t n_out, const float *x, size_t ldx, int32_t n_tok)
{
    matmul_run(be_cpu_self(b), (struct matmul_job){ .out = out,
                                                    .n_out = n_out,
                                                    .x = x,
                                                    .ldx = ldx,
                                                    .n_tok = n_tok,
                                                    .is_glu = true,
                                                    .fn = fn });
}

/* The products of all in one line. The workspace is what any routing may need, so that what a step
 * takes does not depend on the tokens (backend.c). */
static void cpu_experts(struct back *b, const struct back_experts *p)
{
    struct matmul_job job[BACK_EXPERTS_AT_ONCE];
    struct matmul_jobs all = { job, p->n };
    const size_t mark = arena_mark(b->step);
    const void *most = arena_take(b->step, back_experts_bytes(p));
    assert(most != NULL && p->n <= BACK_EXPERTS_AT_ONCE);
    (void)most;
    arena_rewind(b->step, mark);
    for (int32_t i = 0; i < p->n; i++) {
        const struct back_expert *e = &p->expert[i];
        job[i] = (struct matmul_job){ .out = e->out,
                                      .n_out = p->n_out,
                                      .x = e->x,
                                      .rows = e->rows,
                                      .ldx = p->ldx,
                                      .n_tok = e->n_tok,
                                      .is_glu = p->has_fn,
                                      .fn = p->fn };
    }
    run_jobs(be_cpu_self(b), &all);
}

/* --- attention -------------------------------------------------------------------------------- */

/* Running or partial result of one tile. */
struct partial {
    float m[KERN_QUERIES];
    float s[KERN_QUERIES];
    float acc[]; /* [KERN_QUERIES][ld] */
};

/* One tile: queries [q0, q0 + n_query) of a run's n_tok * group queries, token by token, for kv
 * head h. */
struct tile {
    const struct back_run *run;
    int32_t h;
    int32_t q0;
    int32_t n_query;
    int32_t span0; /* spans that any of its queries sees */
    int32_t span1; /* likewise */
};

struct attend_job {
    const struct kern_table *k;
    const struct back_attend *p;
    const float *q;
    float *y;
    size_t ldq;
    size_t ldy;
    size_t ldv;
    int32_t group;
    int32_t n_tile;
    /* by span: the wave's items are spans first_span.. of the line of all (tile, span) pairs */
    int32_t first_item;
    struct partial *wave;
    size_t each_bytes;
};

/* Tile i of the step: run by run, within a run head by head, within a head 16 queries at a time.
 * A query is (token, head of the group), so that queries of one tile share the pages of one kv
 * head. */
static struct tile tile_at(const struct attend_job *j, int32_t i_tile)
{
    struct tile t = { 0 };
    for (int32_t i = 0; i < j->p->n_run; i++) {
        const struct back_run *r = &j->p->runs[i];
        const int32_t n_query = r->n_tok * j->group;
        const int32_t per_head = (n_query + KERN_QUERIES - 1) / KERN_QUERIES;
        const int32_t n = per_head * j->p->kv.n_kv;
        if (i_tile < n) {
            t.run = r;
            t.h = i_tile / per_head;
            t.q0 = i_tile % per_head * KERN_QUERIES;
            t.n_query = n_query - t.q0 < KERN_QUERIES ? n_query - t.q0 : KERN_QUERIES;
            break;
        }
        i_tile -= n;
    }
    const int32_t pos_first = t.run->pos0 + t.q0 / j->group;
    const int32_t pos_last = t.run->pos0 + (t.q0 + t.n_query - 1) / j->group;
    const int32_t lo =
        j->p->window > 0 && pos_first + 1 > j->p->window ? pos_first + 1 - j->p->window : 0;
    t.span0 = lo / KERN_SPAN;
    t.span1 = pos_last / KERN_SPAN + 1;
    return t;
}

/* What attend_span needs beside the tile; on the worker's stack. */
struct span_call {
    const float *q[KERN_QUERIES];
    const uint8_t *k_page[KERN_SPAN_PAGES];
    const uint8_t *v_page[KERN_SPAN_PAGES];
    const uint8_t *k_ahead[KERN_SPAN_PAGES];
    int32_t lo[KERN_QUERIES];
    int32_t hi[KERN_QUERIES];
    int32_t index[KERN_QUERIES]; /* of the call's queries within the tile */
    float m[KERN_QUERIES];
    float s[KERN_QUERIES];
    float *acc[KERN_QUERIES];
};

/* Computes one span for the queries of the tile that see part of it; the others get s = 0. */
static void span_compute(const struct attend_job *j, const struct tile *t, int32_t i_span,
                         struct partial *out)
{
    struct span_call c;
    const struct back_kv *kv = &j->p->kv;
    const int32_t pos0 = i_span * KERN_SPAN;
    const int32_t pos_end = t->run->pos0 + (t->q0 + t->n_query - 1) / j->group + 1;
    int32_t hi_max = 0;
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_query; i++) {
        const int32_t pos = t->run->pos0 + (t->q0 + i) / j->group;
        const int32_t lo = j->p->window > 0 && pos + 1 > j->p->window ? pos + 1 - j->p->window : 0;
        out->s[i] = 0.0f;
        if (pos < pos0 || lo >= pos0 + KERN_SPAN) {
            continue;
        }
        const int32_t tok = t->run->tok0 + (t->q0 + i) / j->group;
        const int32_t head = t->h * j->group + (t->q0 + i) % j->group;
        c.q[n] = j->q + (size_t)tok * j->ldq + (size_t)head * (size_t)kv->hd_k;
        c.lo[n] = lo > pos0 ? lo : pos0;
        c.hi[n] = pos + 1 < pos0 + KERN_SPAN ? pos + 1 : pos0 + KERN_SPAN;
        c.acc[n] = out->acc + (size_t)i * j->ldv;
        c.index[n] = i;
        hi_max = c.hi[n] > hi_max ? c.hi[n] : hi_max;
        n++;
    }
    if (n == 0) {
        return;
    }
    for (int32_t i = 0; i < KERN_SPAN_PAGES; i++) {
        const bool is_seen = pos0 + i * KERN_PAGE < hi_max;
        const size_t page = is_seen ? (size_t)t->run->pages[pos0 / KERN_PAGE + i] : 0;
        const int32_t next = pos0 + KERN_SPAN + i * KERN_PAGE;
        const size_t ahead = next < pos_end ? (size_t)t->run->pages[next / KERN_PAGE] : page;
        c.k_page[i] = kv->k + page * kv->k_page + (size_t)t->h * kv->k_head;
        c.v_page[i] = kv->v + page * kv->v_page + (size_t)t->h * kv->v_head;
        c.k_ahead[i] = kv->k + ahead * kv->k_page + (size_t)t->h * kv->k_head;
    }
    const struct kern_attend a = { .kv = kv->kind,
                                   .hd_k = kv->hd_k,
                                   .hd_v = kv->hd_v,
                                   .n_query = n,
                                   .q = c.q,
                                   .k_page = c.k_page,
                                   .v_page = c.v_page,
                                   .k_ahead = c.k_ahead,
                                   .pos0 = pos0,
                                   .lo = c.lo,
                                   .hi = c.hi,
                                   .scale = j->p->scale,
                                   .cap = j->p->cap,
                                   .m = c.m,
                                   .s = c.s,
                                   .acc = c.acc };
    j->k->attend_span(&a);
    for (int32_t i = 0; i < n; i++) {
        out->m[c.index[i]] = c.m[i];
        out->s[c.index[i]] = c.s[i];
    }
}

/* sum := sum merged with part. Query by query; a query that saw nothing of a span skips it. */
static void partial_merge(const struct attend_job *j, int32_t n_query, struct partial *sum,
                          const struct partial *part)
{
    for (int32_t i = 0; i < n_query; i++) {
        float *acc = sum->acc + (size_t)i * j->ldv;
        const float *acc2 = part->acc + (size_t)i * j->ldv;
        if (part->s[i] == 0.0f) {
            continue;
        }
        if (sum->s[i] == 0.0f) {
            sum->m[i] = part->m[i];
            sum->s[i] = part->s[i];
            memcpy(acc, acc2, (size_t)j->p->kv.hd_v * sizeof acc[0]);
        } else {
            j->k->attend_merge(&sum->m[i], &sum->s[i], acc, part->m[i], part->s[i], acc2,
                               j->p->kv.hd_v);
        }
    }
}

static void tile_finish(const struct attend_job *j, const struct tile *t, const struct partial *sum)
{
    for (int32_t i = 0; i < t->n_query; i++) {
        const int32_t tok = t->run->tok0 + (t->q0 + i) / j->group;
        const int32_t head = t->h * j->group + (t->q0 + i) % j->group;
        float *y = j->y + (size_t)tok * j->ldy + (size_t)head * (size_t)j->p->kv.hd_v;
        const float *sink = j->p->sinks != NULL ? &j->p->sinks[head] : NULL;
        j->k->attend_finish(y, sum->m[i], sum->s[i], sum->acc + (size_t)i * j->ldv, sink,
                            j->p->kv.hd_v);
    }
}

/* Room for two partial results on a worker's stack (TEAM_STACK_BYTES). */
union partial_room {
    struct partial p;
    float room[2 * KERN_QUERIES + KERN_QUERIES * KERN_HEAD_MAX];
};

/* Whole tiles: spans in order, each merged as it comes. */
static void tile_part(void *arg, int from, int to)
{
    const struct attend_job *j = arg;
    _Alignas(64) union partial_room sum;
    _Alignas(64) union partial_room part;
    for (int i = from; i < to; i++) {
        const struct tile t = tile_at(j, i);
        span_compute(j, &t, t.span0, &sum.p);
        for (int32_t s = t.span0 + 1; s < t.span1; s++) {
            span_compute(j, &t, s, &part.p);
            partial_merge(j, t.n_query, &sum.p, &part.p);
        }
        tile_finish(j, &t, &sum.p);
    }
}

/* Item i of the line of all (tile, span) pairs, tile by tile. */
static struct tile item_at(const struct attend_job *j, int32_t item, int32_t *i_tile,
                           int32_t *i_span)
{
    for (int32_t i = 0; i < j->n_tile; i++) {
        const struct tile t = tile_at(j, i);
        if (item < t.span1 - t.span0) {
            *i_tile = i;
            *i_span = t.span0 + item;
            return t;
        }
        item -= t.span1 - t.span0;
    }
    assert(false); /* callers stay below the number of items */
    *i_tile = 0;
    *i_span = 0;
    return tile_at(j, 0);
}

static struct partial *partial_at(struct partial *first, size_t each_bytes, int32_t i)
{
    return (struct partial *)(void *)((uint8_t *)first + (size_t)i * each_bytes);
}

static void span_part(void *arg, int from, int to)
{
    const struct attend_job *j = arg;
    for (int i = from; i < to; i++) {
        int32_t i_tile;
        int32_t i_span;
        const struct tile t = item_at(j, j->first_item + i, &i_tile, &i_span);
        span_compute(j, &t, i_span, partial_at(j->wave, j->each_bytes, i));
    }
}

/* Waves bound the memory: n_wave partial results are kept, then merged into the tiles' running ones
 * in the order of the line, which for each tile is the order of its spans. */
static void attend_by_span(struct be_cpu *c, struct attend_job *j, const struct back_cut *cut)
{
    struct partial *sums = arena_take(c->back.step, cut->bytes);
    assert(sums != NULL);
    j->each_bytes = cut->each_bytes;
    j->wave = partial_at(sums, cut->each_bytes, cut->n_tile);
    int32_t n_all = 0;
    for (int32_t i = 0; i < j->n_tile; i++) {
        const struct tile t = tile_at(j, i);
        memset(partial_at(sums, j->each_bytes, i)->s, 0, sizeof sums->s);
        n_all += t.span1 - t.span0;
    }
    for (j->first_item = 0; j->first_item < n_all; j->first_item += cut->n_wave) {
        const int32_t left = n_all - j->first_item;
        const int32_t n_item = left < cut->n_wave ? left : cut->n_wave;
        team_share(c->team, span_part, j, n_item, 1);
        for (int32_t i = 0; i < n_item; i++) {
            int32_t i_tile;
            int32_t i_span;
            const struct tile t = item_at(j, j->first_item + i, &i_tile, &i_span);
            partial_merge(j, t.n_query, partial_at(sums, j->each_bytes, i_tile),
                          partial_at(j->wave, j->each_bytes, i));
        }
    }
    for (int32_t i = 0; i < j->n_tile; i++) {
        const struct tile t = tile_at(j, i);
        tile_finish(j, &t, partial_at(sums, j->each_bytes, i));
    }
}

static void cpu_attend(struct back *b, const struct back_attend *p, float *y, const float *q)
{
    struct be_cpu *c = be_cpu_self(b);
    const size_t mark = arena_mark(b->step);
    const struct back_cut cut = back_attend_cut(p, team_size(c->team));
    struct attend_job j = { .k = c->kern,
                            .p = p,
                            .q = q,
                            .y = y,
                            .ldq = back_ld(p->n_head * p->kv.hd_k),
                            .ldy = back_ld(p->n_head * p->kv.hd_v),
                            .ldv = back_ld(p->kv.hd_v),
                            .group = p->n_head / p->kv.n_kv,
                            .n_tile = cut.n_tile };
    if (cut.is_by_span) {
        attend_by_span(c, &j, &cut);
    } else {
        team_share(c->team, tile_part, &j, cut.n_tile, 1);
    }
    arena_rewind(b->step, mark);
}

static const struct back_ops ops = {
    .embed = cpu_embed,
    .norm = cpu_norm,
    .matmul = cpu_matmul,
    .matmul_glu = cpu_matmul_glu,
    .angles = cpu_angles,
    .rope = cpu_rope,
    .kv_write = cpu_kv_write,
    .attend = cpu_attend,
    .add = cpu_add,
    .scale = cpu_scale,
    .route = be_cpu_route,
    .experts = cpu_experts,
    .add_experts = be_cpu_add_experts,
    .add_gated = be_cpu_add_gated,
    .gather = cpu_gather,
};

void be_cpu_init(struct be_cpu *c, struct arena *step, struct team *team,
                 const struct kern_table *kern)
{
    *c = (struct be_cpu){ .back = { .op = &ops, .step = step }, .team = team, .kern = kern };
}
