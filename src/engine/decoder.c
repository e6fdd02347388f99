/* decoder - the forward pass of a text model
 *
 * Read it from the bottom: decoder_forward embeds the tokens, runs the layers, normalizes. A layer
 * is attention and a feed-forward part, one after the other or beside each other; each way is one
 * short function.
 * Every line that touches numbers is one operation of the table in back/backend.h, so this file is
 * also the list of what a backend must be able to do.
 *
 *     x = embed(tokens)
 *     for each layer:  x = x + attention(norm(x));  x = x + ffn(norm(x))
 *     logits = output . norm(x)
 *
 * Vaswani et al. 2017 (attention), Su et al. 2021 (rotary positions), Shazeer 2020 (gated
 * feed-forward parts), Ainslie et al. 2023 (grouped key heads). The recipe of a family
 * (model/arch.c) says where norms stand and which of the optional parts exist; absent tensors are
 * NULL and skipped.
 *
 * Buffers come from the step arena in stack order: what a layer takes it gives back. At each layer
 * border the engine shows that it lives and looks whether the step is still wanted.
 *
 * Next: engine/sched.c decides which tokens make up a step. */
#include "engine/decoder.h"

#include "base/os.h"

#include <assert.h>
#include <math.h>

static_assert(ARCH_EXPERT_MAX == BACK_EXPERT_MAX, "any layer may be routed");

#define WAIT_US 50000 /* for weights, between two looks whether it is still wanted */

/* What a layer's functions share. */
struct pass {
    struct decoder *d;
    const struct decoder_step *s;
    const struct arch *a;
    struct back *b;
    struct back_angles full;
    struct back_angles window;
    float *x;  /* [n_tok][ld], the residual stream */
    size_t ld; /* floats between its rows */
};

static struct back_norm norm_of(const struct arch *a, const struct weights_norm *n)
{
    return (struct back_norm){
        .is_layer = a->recipe->is_layer_norm, .eps = a->eps, .w = n->w.v, .b = n->b.v
    };
}

static bool has_norm(const struct weights_norm *n)
{
    return n->w.n > 0;
}

/* y = norm(x) over whole rows; y may be x. */
static void norm_rows(struct pass *p, float *y, const float *x, const struct weights_norm *n)
{
    const struct back_norm norm = norm_of(p->a, n);
    p->b->op->norm(p->b, y, x, p->ld, p->s->n_tok, 1, p->a->n_embd, &norm);
}

/* Queries or keys, normalized head by head or as a whole (always RMS). */
static void norm_heads(struct pass *p, float *x, int32_t n_head, const struct weights_vec *w)
{
    const bool is_whole = p->a->recipe->qk_norm == ARCH_QK_WHOLE;
    const struct back_norm norm = { .eps = p->a->eps, .w = w->v };
    const int32_t n = n_head * p->a->hd_k;
    p->b->op->norm(p->b, x, x, back_ld(n), p->s->n_tok, is_whole ? 1 : n_head,
                   is_whole ? n : p->a->hd_k, &norm);
}

/* Queries and keys get their positions here; values and layers without rotation have none. */
static void rotate(struct pass *p, const struct arch_layer *al, float *q, float *k)
{
    const struct arch *a = p->a;
    if (!al->has_rope) {
        return;
    }
    const struct back_angles *angles = al->is_window ? &p->window : &p->full;
    p->b->op->rope(p->b, q, back_ld(a->n_head * a->hd_k), p->s->n_tok, a->n_head, a->hd_k, angles);
    p->b->op->rope(p->b, k, back_ld(a->n_kv * a->hd_k), p->s->n_tok, a->n_kv, a->hd_k, angles);
}

/* Between operations, whose time may be long: the disk goes on. */
static void read_on(const struct pass *p)
{
    if (stream_depot(p->d->stream) != NULL) {
        depot_move(stream_depot(p->d->stream));
    }
}

static bool is_unwanted(const struct decoder *d, uint64_t now_us)
{
    return d->is_unwanted != NULL && d->is_unwanted(d->arg, now_us);
}

/* Waits for parts of a layer that are read from the disk, in pieces of time, so that whoever
 * watches the engine sees that it lives, and as long as somebody wants the step: a disk may take
 * for ever. */
static enum err enter(const struct decoder *d, int32_t i_layer, enum weights_part first,
                      enum weights_part last)
{
    const struct stream_parts parts = { i_layer, first, (int32_t)last + 1 };
    enum err e;
    while ((e = stream_enter(d->stream, &parts, WAIT_US)) == ERR_BUSY) {
        if (is_unwanted(d, os_now_us())) {
            return err_set(ERR_CANCELLED, "step abandoned while layer %d of %d was read", i_layer,
                           d->arch->n_layer);
        }
    }
    return e;
}

/* y = attention(h); y and h may be the same buffer. */
static enum err attention(struct pass *p, int32_t i_layer, float *y, const float *h)
{
    TRY(enter(p->d, i_layer, WEIGHTS_ATTN, WEIGHTS_ATTN));
    const struct arch *a = p->a;
    const struct weights_layer *l = &p->d->weights->layer[i_layer];
    const struct arch_layer *al = &a->layer[i_layer];
    const struct back_ops *op = p->b->op;
    const int32_t n_tok = p->s->n_tok;
    const size_t mark = arena_mark(p->b->step);
    float *q = back_take(p->b, n_tok, back_ld(a->n_head * a->hd_k));
    float *k = back_take(p->b, n_tok, back_ld(a->n_kv * a->hd_k));
    float *v = back_take(p->b, n_tok, back_ld(a->n_kv * a->hd_v));
    float *o = back_take(p->b, n_tok, back_ld(a->n_head * a->hd_v));

    const struct back_out qkv[] = { { &l->q, l->q_b.v, q },
                                    { &l->k, l->k_b.v, k },
                                    { &l->v, l->v_b.v, v } };
    op->matmul(p->b, qkv, 3, h, p->ld, n_tok);
    read_on(p);
    const enum arch_qk_norm qk = a->recipe->qk_norm;
    if (qk == ARCH_QK_HEAD || qk == ARCH_QK_WHOLE) {
        norm_heads(p, q, a->n_head, &l->q_norm);
        norm_heads(p, k, a->n_kv, &l->k_norm);
    }
    rotate(p, al, q, k);
    if (qk == ARCH_QK_HEAD_AFTER) {
        norm_heads(p, q, a->n_head, &l->q_norm);
        norm_heads(p, k, a->n_kv, &l->k_norm);
    }
    const struct back_attend attend = { .kv = kv_layer(p->d->kv, i_layer),
                                        .runs = p->s->runs,
                                        .n_run = p->s->n_run,
                                        .n_tok = n_tok,
                                        .n_head = a->n_head,
                                        .window = al->is_window ? a->window : 0,
                                        .scale = a->attn_scale,
                                        .sinks = l->sinks.v,
                                        .cap = a->cap_attn };
    op->kv_write(p->b, &attend, k, v); /* first: a token sees itself, and the others of its run */
    op->attend(p->b, &attend, o, q);
    read_on(p);
    const struct back_out out = { &l->o, l->o_b.v, y };
    op->matmul(p->b, &out, 1, o, back_ld(a->n_head * a->hd_v), n_tok);
    stream_leave(p->d->stream);
    arena_rewind(p->b->step, mark);
    return ERR_OK;
}

/* y = down(fn(gate . h) * (up . h)), or down(fn(up . h)); y may be h. */
static enum err dense(struct pass *p, int32_t i_layer, int32_t n_ff, float *y, const float *h)
{
    TRY(enter(p->d, i_layer, WEIGHTS_GATE, WEIGHTS_UP));
    const struct arch *a = p->a;
    const struct weights_layer *l = &p->d->weights->layer[i_layer];
    const struct back_ops *op = p->b->op;
    const int32_t n_tok = p->s->n_tok;
    const size_t ld = back_ld(n_ff);
    const size_t mark = arena_mark(p->b->step);
    float *up = back_take(p->b, n_tok, ld);
    float *mid = up;
    if (a->recipe->is_gated) {
        mid = back_take(p->b, n_tok, ld);
        const struct back_out both[] = { { &l->gate, l->gate_b.v, mid },
                                         { &l->up, l->up_b.v, up } };
        op->matmul_glu(p->b, a->recipe->fn, both, 2, h, p->ld, n_tok);
    } else {
        const struct back_out one = { &l->up, l->up_b.v, up };
        op->matmul_glu(p->b, a->recipe->fn, &one, 1, h, p->ld, n_tok);
    }
    stream_leave(p->d->stream);
    TRY(enter(p->d, i_layer, WEIGHTS_DOWN, WEIGHTS_DOWN));
    const struct back_out down = { &l->down, l->down_b.v, y };
    op->matmul(p->b, &down, 1, mid, ld, n_tok);
    stream_leave(p->d->stream);
    arena_rewind(p->b->step, mark);
    return ERR_OK;
}

/* --- experts (Shazeer et al. 2017, Fedus et al. 2021) -------------------------------------------
 *
 *     weights, experts = the best of softmax(router . h)
 *     y = sum over a token's experts of  weight * ffn_expert(h), + ffn_shared(h)
 *
 * Tokens are computed expert by expert. Results are added in the order of the experts, whatever
 * else is in the step (DE-1): as many experts are computed together as have EXPERT_ROWS tokens or
 * those of the step, then their results are added, and the room is used again.
 *
 * Where some experts are on the disk, those that are in memory come first in what is computed
 * together; the others are read meanwhile (model/depot.c). Then the disk would rest until the next
 * layer's router has spoken: it is asked before, of the residual stream as it is by then. */

#define EXPERT_ROWS 256

/* What the experts of one layer share. */
struct expert_pass {
    struct back_route route;
    const struct weights_layer *l;
    const float *h;
    int32_t n_row; /* of the next three */
    float *gate;   /* [n_row][back_ld(n_ff_exp)] */
    float *up;     /* likewise */
    float *out;    /* [n_row][ld] */
    int32_t n;     /* experts that are computed together */
    int32_t id[BACK_EXPERTS_AT_ONCE];
};

static int32_t *take_ints(struct pass *p, int32_t n)
{
    return arena_take(p->b->step, (size_t)n * sizeof(int32_t));
}

static int32_t expert_toks(const struct back_route *r, int32_t e)
{
    return r->first[e + 1] - r->first[e];
}

/* From expert e on those that are wanted and whose tokens fit. Returns the next. */
static int32_t choose_together(struct expert_pass *x, int32_t e)
{
    const struct back_route *r = &x->route;
    const int32_t place0 = r->first[e];
    x->n = 0;
    while (e < r->n_expert && x->n < BACK_EXPERTS_AT_ONCE && r->first[e + 1] - place0 <= x->n_row) {
        if (expert_toks(r, e) > 0) {
            x->id[x->n++] = e;
        }
        e++;
    }
    return e;
}

/* Expert e's part of a vector of all. */
static const float *bias_of(const struct weights_vec *v, int32_t e, int32_t n)
{
    return v->v != NULL ? v->v + (size_t)e * (size_t)n : NULL;
}

/* out = down(fn(gate . h) * (up . h)) for experts id[n]; the first place of all that are computed
 * together is place0. */
static void compute_together(struct pass *p, const struct expert_pass *x, const int32_t *id,
                             int32_t n, int32_t place0)
{
    const struct arch *a = p->a;
    const struct back_route *r = &x->route;
    const size_t ld = back_ld(a->n_ff_exp);
    struct back_expert up[BACK_EXPERTS_AT_ONCE];
    struct back_expert down[BACK_EXPERTS_AT_ONCE];
    struct back_experts all = { .expert = up, .n = n, .n_row_most = x->n_row };
    for (int32_t i = 0; i < n; i++) {
        const int32_t e = id[i];
        const struct weights_layer *l = x->l;
        const struct weights_expert *w = &l->expert[e];
        const int32_t n_tok = expert_toks(r, e);
        const size_t row = (size_t)(r->first[e] - place0);
        float *gate = x->gate + row * ld;
        up[i] = (struct back_expert){
            .out = { { &w->gate, bias_of(&l->expert_gate_b, e, a->n_ff_exp), gate },
                     { &w->up, bias_of(&l->expert_up_b, e, a->n_ff_exp), x->up + row * ld } },
            .x = x->h,
            .rows = r->token + r->first[e],
            .n_tok = n_tok
        };
        down[i] = (struct back_expert){
            .out = { { &w->down, bias_of(&l->expert_down_b, e, a->n_embd), x->out + row * p->ld } },
            .x = gate,
            .n_tok = n_tok
        };
    }
    all.n_out = 2;
    all.has_fn = true;
    all.fn = a->recipe->fn;
    all.ldx = p->ld;
    p->b->op->experts(p->b, &all);
    all.expert = down;
    all.n_out = 1;
    all.has_fn = false;
    all.ldx = ld;
    p->b->op->experts(p->b, &all);
}

/* Experts that some token wants, ascending, to id[ARCH_EXPERT_MAX]; returns their number. */
static int32_t wanted_by(const struct back_route *r, int32_t *id)
{
    int32_t n = 0;
    for (int32_t e = 0; e < r->n_expert; e++) {
        if (expert_toks(r, e) > 0) {
            id[n++] = e;
        }
    }
    return n;
}

static void take_route(struct pass *p, struct back_route *r)
{
    const struct arch *a = p->a;
    const int32_t n_place = p->s->n_tok * a->n_expert_used;
    *r = (struct back_route){ .n_expert = a->n_expert,
                              .n_used = a->n_expert_used,
                              .is_normed = a->is_route_normed,
                              .scale = a->expert_scale };
    r->token = take_ints(p, n_place);
    r->place = take_ints(p, n_place);
    r->weight = back_take(p->b, n_place, 1);
}

/* As wanted_by, the one that tokens weigh most first. */
static int32_t wanted_most(const struct back_route *r, int32_t n_tok, int32_t *id)
{
    float weight[ARCH_EXPERT_MAX] = { 0 };
    for (int32_t t = 0; t < n_tok; t++) {
        for (int32_t i = 0, e = 0; i < r->n_used; i++) {
            const int32_t at = t * r->n_used + i;
            while (r->first[e + 1] <= r->place[at]) {
                e++;
            }
            weight[e] += r->weight[at];
        }
    }
    const int32_t n = wanted_by(r, id);
    for (int32_t i = 1; i < n; i++) {
        const int32_t e = id[i];
        int32_t at = i;
        for (; at > 0 && weight[id[at - 1]] < weight[e]; at--) {
            id[at] = id[at - 1];
        }
        id[at] = e;
    }
    return n;
}

/* Tells what a layer's router would choose now. Its workspace is taken where there is no depot as
 * well: a dry run counts it. */
static void guess(struct pass *p, int32_t i_layer)
{
    struct depot *depot = stream_depot(p->d->stream);
    if (i_layer == p->a->n_layer || (p->s->only != NULL && !p->s->only[i_layer])) {
        return;
    }
    const struct weights_layer *l = &p->d->weights->layer[i_layer];
    const int32_t n_tok = p->s->n_tok;
    const size_t mark = arena_mark(p->b->step);
    float *h = back_take(p->b, n_tok, p->ld);
    float *logits = back_take(p->b, n_tok, back_ld(p->a->n_expert));
    struct back_route route;
    take_route(p, &route);
    const struct back_out out = { &l->router, l->router_b.v, logits };
    const size_t before = arena_mark(p->b->step);
    (void)arena_take(p->b->step, back_matmul_bytes(&out, 1, n_tok));
    arena_rewind(p->b->step, before);
    if (depot != NULL && depot_is_curious(depot, i_layer)) {
        int32_t id[ARCH_EXPERT_MAX];
        if (has_norm(&l->ffn_norm)) {
            norm_rows(p, h, p->x, &l->ffn_norm);
        }
        p->b->op->matmul(p->b, &out, 1, has_norm(&l->ffn_norm) ? h : p->x, p->ld, n_tok);
        p->b->op->route(p->b, &route, logits, n_tok);
        depot_guess(depot, i_layer, id, wanted_most(&route, n_tok, id));
    }
    arena_rewind(p->b->step, mark);
}

/* Waits for experts as for layers (enter): those that come first are the first in id[n]. It looks
 * before each wait, as a slow disk may bring each of many just in time. */
static enum err enter_some(const struct decoder *d, int32_t i_layer, int32_t *id, int32_t n,
                           int32_t *n_here)
{
    enum err e;
    do {
        if (is_unwanted(d, os_now_us())) {
            return err_set(ERR_CANCELLED, "step abandoned while experts of layer %d were read",
                           i_layer);
        }
        e = depot_enter(stream_depot(d->stream), i_layer, id, n, WAIT_US, n_here);
    } while (e == ERR_BUSY);
    return e;
}

/* What is in memory, then the others as they come. */
static enum err compute_chosen(struct pass *p, struct expert_pass *x, int32_t i_layer,
                               int32_t place0)
{
    struct depot *depot = stream_depot(p->d->stream);
    if (depot == NULL) {
        compute_together(p, x, x->id, x->n, place0);
        return ERR_OK;
    }
    int32_t n_here = 0;
    for (int32_t at = 0; at < x->n; at += n_here) {
        TRY(enter_some(p->d, i_layer, x->id + at, x->n - at, &n_here));
        compute_together(p, x, x->id + at, n_here, place0);
        depot_leave(depot, i_layer, x->id + at, n_here);
    }
    return ERR_OK;
}

/* y = y + shared(h), as a gate of its own weighs it. */
static enum err add_shared(struct pass *p, int32_t i_layer, float *y, const float *h, float *gate)
{
    const struct arch *a = p->a;
    const size_t mark = arena_mark(p->b->step);
    float *shared = back_take(p->b, p->s->n_tok, p->ld);
    TRY(dense(p, i_layer, a->n_ff_shared, shared, h));
    if (gate != NULL) {
        p->b->op->add_gated(p->b, y, shared, gate, p->ld, p->s->n_tok, a->n_embd);
    } else {
        p->b->op->add(p->b, y, shared, 1.0f, p->ld, p->s->n_tok, a->n_embd);
    }
    arena_rewind(p->b->step, mark);
    return ERR_OK;
}

/* y = experts(h); y is not h. */
static enum err experts(struct pass *p, int32_t i_layer, float *y, const float *h)
{
    const struct arch *a = p->a;
    const struct weights_layer *l = &p->d->weights->layer[i_layer];
    const struct back_ops *op = p->b->op;
    const int32_t n_tok = p->s->n_tok;
    const int32_t n_place = n_tok * a->n_expert_used;
    const int32_t n_most = n_tok > EXPERT_ROWS ? n_tok : EXPERT_ROWS;
    const size_t mark = arena_mark(p->b->step);
    struct expert_pass x = { .l = l, .h = h, .n_row = n_place < n_most ? n_place : n_most };
    const bool has_gate = a->n_ff_shared > 0 && a->recipe->has_shared_gate;
    float *logits = back_take(p->b, n_tok, back_ld(a->n_expert));
    float *gate = has_gate ? back_take(p->b, n_tok, back_ld(1)) : NULL;
    const struct back_out outs[] = { { &l->router, l->router_b.v, logits },
                                     { &l->shared_gate, NULL, gate } };
    take_route(p, &x.route);
    op->matmul(p->b, outs, has_gate ? 2 : 1, h, p->ld, n_tok);
    op->route(p->b, &x.route, logits, n_tok);
    if (stream_depot(p->d->stream) != NULL) {
        int32_t id[ARCH_EXPERT_MAX];
        const int32_t n = wanted_by(&x.route, id);
        depot_want(stream_depot(p->d->stream), i_layer, id, n);
    }
    guess(p, i_layer + 1);
    x.gate = back_take(p->b, x.n_row, back_ld(a->n_ff_exp));
    x.up = back_take(p->b, x.n_row, back_ld(a->n_ff_exp));
    x.out = back_take(p->b, x.n_row, p->ld);
    for (int32_t e = 0; e < a->n_expert && x.route.first[e] < n_place;) {
        const int32_t place0 = x.route.first[e];
        e = choose_together(&x, e);
        TRY(compute_chosen(p, &x, i_layer, place0));
        op->add_experts(p->b, y, x.out, &x.route, place0, x.route.first[e], p->ld, n_tok,
                        a->n_embd);
    }
    if (a->n_ff_shared > 0) {
        TRY(add_shared(p, i_layer, y, h, gate));
    }
    arena_rewind(p->b->step, mark);
    return ERR_OK;
}

/* --- a layer ---------------------------------------------------------------------------------- */

/* y may be h, unless there are experts. */
static enum err feed_forward(struct pass *p, int32_t i_layer, float *y, const float *h)
{
    return p->a->n_expert > 0 ? experts(p, i_layer, y, h) : dense(p, i_layer, p->a->n_ff, y, h);
}

/* x = x + a * y; a is 1 but for Granite. */
static void add_residual(struct pass *p, float *x, const float *y)
{
    p->b->op->add(p->b, x, y, p->a->residual_scale, p->ld, p->s->n_tok, p->a->n_embd);
}

/* x += attn(norm(x)); x += ffn(norm(x)), with norms before, after, or both. */
static enum err layer_serial(struct pass *p, int32_t i_layer, float *x, float *h)
{
    const struct weights_layer *l = &p->d->weights->layer[i_layer];
    const float *in = x;
    if (has_norm(&l->attn_norm)) {
        norm_rows(p, h, x, &l->attn_norm);
        in = h;
    }
    TRY(attention(p, i_layer, h, in));
    if (has_norm(&l->attn_post_norm)) {
        norm_rows(p, h, h, &l->attn_post_norm);
    }
    add_residual(p, x, h);
    in = x;
    if (has_norm(&l->ffn_norm)) {
        norm_rows(p, h, x, &l->ffn_norm);
        in = h;
    }
    const size_t mark = arena_mark(p->b->step);
    float *y = p->a->n_expert > 0 ? back_take(p->b, p->s->n_tok, p->ld) : h;
    TRY(feed_forward(p, i_layer, y, in));
    if (has_norm(&l->ffn_post_norm)) {
        norm_rows(p, y, y, &l->ffn_post_norm);
    }
    add_residual(p, x, y);
    arena_rewind(p->b->step, mark);
    return ERR_OK;
}

/* x += attn(norm1(x)) + ffn(norm2(x)); without a second norm the first serves both. */
static enum err layer_parallel(struct pass *p, int32_t i_layer, float *x, float *h)
{
    const struct weights_layer *l = &p->d->weights->layer[i_layer];
    const size_t mark = arena_mark(p->b->step);
    float *from_attn = back_take(p->b, p->s->n_tok, p->ld);
    norm_rows(p, h, x, &l->attn_norm);
    TRY(attention(p, i_layer, from_attn, h));
    if (has_norm(&l->ffn_norm)) {
        norm_rows(p, h, x, &l->ffn_norm);
    }
    float *y = p->a->n_expert > 0 ? back_take(p->b, p->s->n_tok, p->ld) : h;
    TRY(feed_forward(p, i_layer, y, h));
    add_residual(p, x, from_attn);
    add_residual(p, x, y);
    arena_rewind(p->b->step, mark);
    return ERR_OK;
}

/* Angles of one kind of layer for all tokens of the step. */
static struct back_angles angles_of(struct pass *p, const double *freq, double mscale)
{
    const int32_t n_half = p->a->n_rot / 2;
    float *cos = back_take(p->b, p->s->n_tok, (size_t)n_half);
    float *sin = back_take(p->b, p->s->n_tok, (size_t)n_half);
    p->b->op->angles(p->b, cos, sin, p->s->pos, p->s->n_tok, freq, n_half, mscale);
    return (struct back_angles){
        .cos = cos, .sin = sin, .n_rot = p->a->n_rot, .kind = p->a->recipe->rope
    };
}

/* The step is no longer wanted, and the layers that are left, at the pace of those that are done,
 * take too long to be worth it. */
static bool is_abandoned(const struct decoder *d, int32_t i_layer, uint64_t begin_us)
{
    const uint64_t now = os_now_us();
    const uint64_t n_left = (uint64_t)(d->arch->n_layer - i_layer);
    return is_unwanted(d, now) && (now - begin_us) * n_left >= d->rest_us * (uint64_t)i_layer;
}

/* As enter, for the embeddings of some tokens; before each wait, as a prompt has many of them. */
static enum err take_rows(const struct decoder *d, const int32_t *tokens, int32_t n_tok,
                          struct stream_rows *out)
{
    enum err e;
    do {
        if (is_unwanted(d, os_now_us())) {
            return err_set(ERR_CANCELLED, "step abandoned while embeddings were read");
        }
        e = stream_rows(d->stream, d->weights, tokens, n_tok, WAIT_US, out);
    } while (e == ERR_BUSY);
    return e;
}

/* x = rows of the table, which may be on the disk. */
static enum err embed(struct pass *p, float *x)
{
    struct stream_rows rows;
    for (int32_t at = 0; at < p->s->n_tok; at += rows.n) {
        const int32_t *tokens = p->s->tokens != NULL ? p->s->tokens + at : NULL; /* a dry run */
        TRY(take_rows(p->d, tokens, p->s->n_tok - at, &rows));
        p->b->op->embed(p->b, x + (size_t)at * p->ld, &rows.table, rows.ids, rows.n,
                        p->a->embd_scale);
    }
    return ERR_OK;
}

/* x is the residual stream, h the place of whatever is added to it next: the only two buffers that
 * live through all layers. */
enum err decoder_forward(struct decoder *d, const struct decoder_step *s, float **hidden)
{
    const struct arch *a = d->arch;
    const struct back_ops *op = d->back->op;
    struct pass p = { .d = d, .s = s, .a = a, .b = d->back, .ld = back_ld(a->n_embd) };
    const uint64_t begin_us = os_now_us();
    float *x = back_take(d->back, s->n_tok, p.ld);
    float *h = back_take(d->back, s->n_tok, p.ld);
    p.x = x;
    TRY(embed(&p, x));
    if (a->recipe->has_positions) {
        op->embed(d->back, h, &d->weights->position, s->pos, s->n_tok, 1.0f);
        op->add(d->back, x, h, 1.0f, p.ld, s->n_tok, a->n_embd);
    }
    if (stream_depot(d->stream) != NULL) {
        depot_begin(stream_depot(d->stream), s->n_tok * a->n_expert_used >= 2 * a->n_expert);
        guess(&p, 0);
    }
    if (a->recipe->has_rope) {
        p.full = angles_of(&p, d->freq_full, d->mscale_full);
        p.window = a->window > 0 ? angles_of(&p, d->freq_window, d->mscale_window) : p.full;
    }
    for (int32_t i = 0; i < a->n_layer; i++) {
        if (is_abandoned(d, i, begin_us)) {
            return err_set(ERR_CANCELLED, "step abandoned at layer %d of %d", i, a->n_layer);
        }
        if (s->only != NULL && !s->only[i]) {
            continue;
        }
        if (a->join == ARCH_JOIN_SERIAL) {
            TRY(layer_serial(&p, i, x, h));
        } else {
            TRY(layer_parallel(&p, i, x, h));
        }
    }
    norm_rows(&p, x, x, &d->weights->output_norm);
    *hidden = x;
    return ERR_OK;
}

/* Only the rows that somebody will sample from: the output matrix is the largest of most models. */
float *decoder_logits(struct decoder *d, const float *hidden, const int32_t *rows, int32_t n_row)
{
    const struct arch *a = d->arch;
    const size_t ld = back_ld(a->n_embd);
    float *picked = back_take(d->back, n_row, ld);
    float *logits = back_take(d->back, n_row, back_ld(a->n_vocab));
    d->back->op->gather(d->back, picked, hidden, rows, n_row, ld);
    const struct back_out out = { &d->weights->output, d->weights->output_b.v, logits };
    d->back->op->matmul(d->back, &out, 1, picked, ld, n_row);
    d->back->op->scale(d->back, logits, a->logit_scale, a->cap_final, back_ld(a->n_vocab), n_row,
                       a->n_vocab);
    return logits;
}

/* Frequencies are checked here, since the file's factors divide them: an infinite angle would reach
 * fmath_sincos, whose arguments are bounded. */
enum err decoder_init(struct decoder *d, int32_t n_ctx, struct arena *arena)
{
    const struct arch *a = d->arch;
    const struct weights *w = d->weights;
    d->rest_us = DECODER_REST_US;
    const size_t bytes = (size_t)a->n_rot / 2 * sizeof(double);
    d->freq_full = arena_take(arena, bytes);
    d->freq_window = arena_take(arena, bytes);
    REQUIRE(d->freq_full != NULL && d->freq_window != NULL, ERR_MEMORY,
            "rotary frequencies: the arena is too small");
    if (arena->is_counting || !a->recipe->has_rope) {
        return ERR_OK;
    }
    const struct weights_vec *factors = &w->rope_factors;
    if (w->rope_factors_long.n > 0) {
        factors = n_ctx > a->rope_orig_ctx ? &w->rope_factors_long : &w->rope_factors_short;
    }
    arch_rope_freqs(a, false, factors->v, d->freq_full, &d->mscale_full);
    arch_rope_freqs(a, true, factors->v, d->freq_window, &d->mscale_window);
    for (int32_t i = 0; i < a->n_rot / 2; i++) {
        REQUIRE(isfinite(d->freq_full[i]) && isfinite(d->freq_window[i]) &&
                    fabs(d->freq_full[i]) < 1e6 && fabs(d->freq_window[i]) < 1e6,
                ERR_INTEGRITY, "rotary frequency %d is %g: the file's rope factors make no sense",
                i, d->freq_full[i]);
    }
    return ERR_OK;
}
