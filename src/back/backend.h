/* backend - the operation table between a forward pass and whoever computes it (back/backend.c)
 *
 * A forward pass calls these operations and nothing else. be_cpu computes them; be_measure computes
 * nothing and adds up what they would cost, so that the plan is the forward pass run dry.
 *
 * Shapes: activations are rows of floats, row t at x + t * ld, ld = back_ld(n). Workspace comes
 * from `step`, an arena that the forward pass rewinds; under be_measure it only counts. An
 * operation may take workspace itself and gives it back before it returns. Operations cannot fail:
 * everything they need was checked when the model was bound.
 * Owner thread: engine.
 * BA-1  be_cpu's step->peak never exceeds be_measure's after the same calls. */
#ifndef HEARTH_BACKEND_H
#define HEARTH_BACKEND_H

#include "base/mem.h"
#include "kern/kern.h"
#include "num/tensor.h"

#include <stdbool.h>
#include <stdint.h>

/* Floats from one row to the next: kernels write whole groups of 16. */
static inline size_t back_ld(int32_t n)
{
    return ((size_t)n + 15) / 16 * 16;
}

struct back_norm {
    bool is_layer; /* LayerNorm, else RMS */
    float eps;
    const float *w; /* [n]; NULL = 1 and 0 */
    const float *b; /* likewise */
};

/* One product: y = W x + bias. */
struct back_out {
    const struct tensor *w;
    const float *bias; /* [n_row] or NULL */
    float *y;          /* rows back_ld(n_row) apart */
};

/* Which tokens go to which experts: filled by `route`. A *place* is one token at one of its
 * experts; places are numbered expert by expert, within an expert by token. */
#define BACK_EXPERT_MAX 512
struct back_route {
    int32_t n_expert;
    int32_t n_used; /* by each token */
    bool is_normed; /* a token's weights are divided by their sum */
    float scale;    /* multiplies them */
    int32_t *token; /* [n_tok * n_used] of each place; the caller's room, as the next two */
    int32_t *place; /* [n_tok][n_used] a token's places, ascending */
    float *weight;  /* [n_tok][n_used] of the same */
    int32_t first[BACK_EXPERT_MAX + 1]; /* expert e has places first[e] .. first[e + 1] */
};

/* One expert's products: y = W x + bias for some rows of x. */
struct back_expert {
    struct back_out out[2]; /* results lie in the order of the tokens */
    const float *x;
    const int32_t *rows; /* [n_tok] of x; NULL: 0, 1 ... */
    int32_t n_tok;       /* at least 1 */
};

/* Products of several experts, whose matrices have the same shapes and types. */
#define BACK_EXPERTS_AT_ONCE 64
struct back_experts {
    const struct back_expert *expert; /* [n] */
    int32_t n;                        /* 1..BACK_EXPERTS_AT_ONCE */
    int32_t n_out;
    bool has_fn; /* then out[0].y = fn(out[0].y) * out[1].y, as matmul_glu */
    enum kern_fn fn;
    size_t ldx;
    int32_t n_row_most; /* tokens of all of them, at most, whatever the routing; for workspace */
};

/* Rotary angles of a step: cos and sin rows [n_tok][n_rot/2], ld = n_rot/2. */
struct back_angles {
    const float *cos;
    const float *sin;
    int32_t n_rot;
    enum kern_rope kind;
};

/* One sequence's part of a step: n_tok tokens from row tok0, at positions pos0... */
struct back_run {
    const int32_t *pages; /* page of position p: pages[p / KERN_PAGE] */
    int32_t tok0;
    int32_t n_tok;
    int32_t pos0;
};

/* The cache of one layer. Page p of head h begins at k + p * k_page + h * k_head. */
struct back_kv {
    enum kern_kv kind;
    uint8_t *k;
    uint8_t *v;
    size_t k_page; /* bytes */
    size_t v_page; /* bytes */
    size_t k_head; /* bytes */
    size_t v_head; /* bytes */
    int32_t n_kv;
    int32_t hd_k;
    int32_t hd_v;
};

struct back_attend {
    struct back_kv kv;
    const struct back_run *runs;
    int32_t n_run;
    int32_t n_tok;
    int32_t n_head;
    int32_t window; /* positions seen, 0 = all */
    float scale;
    float cap;
    const float *sinks; /* [n_head] or NULL */
};

struct back;

struct back_ops {
    /* y[t] = row ids[t] of the table, times scale */
    void (*embed)(struct back *b, float *y, const struct tensor *table, const int32_t *ids,
                  int32_t n_tok, float scale);
    /* Each of n_group parts of n floats of each row is normalized by itself. y may be x; rows of
     * both are ld floats apart. */
    void (*norm)(struct back *b, float *y, const float *x, size_t ld, int32_t n_tok,
                 int32_t n_group, int32_t n, const struct back_norm *p);
    /* All products with the same input x[n_tok][ldx]. */
    void (*matmul)(struct back *b, const struct back_out *out, int32_t n_out, const float *x,
                   size_t ldx, int32_t n_tok);
    /* As matmul, and then  out[0].y = fn(out[0].y) * out[1].y,  without the factor where n_out is
     * 1. Both matrices have the same shape; out[1].y is only room. */
    void (*matmul_glu)(struct back *b, enum kern_fn fn, const struct back_out *out, int32_t n_out,
                       const float *x, size_t ldx, int32_t n_tok);
    /* cos and sin of pos[t] * freq[i], times mscale */
    void (*angles)(struct back *b, float *cos, float *sin, const int32_t *pos, int32_t n_tok,
                   const double *freq, int32_t n_half, double mscale);
    /* Rotates the first n_rot of each of n_head heads of hd floats, in place; rows ld apart. */
    void (*rope)(struct back *b, float *x, size_t ld, int32_t n_tok, int32_t n_head, int32_t hd,
                 const struct back_angles *angles);
    /* k rows [n_kv * hd_k], v rows [n_kv * hd_v] into the pages of the runs */
    void (*kv_write)(struct back *b, const struct back_attend *p, const float *k, const float *v);
    /* y[t][n_head * hd_v] from q[t][n_head * hd_k] and the cache */
    void (*attend)(struct back *b, const struct back_attend *p, float *y, const float *q);
    /* x = x + a * y */
    void (*add)(struct back *b, float *x, const float *y, float a, size_t ld, int32_t n_tok,
                int32_t n);
    /* x = cap(x * a); cap 0 = none */
    void (*scale)(struct back *b, float *x, float a, float cap, size_t ld, int32_t n_tok,
                  int32_t n);
    /* The n_used experts of each token that have the greatest logits[n_tok][back_ld(n_expert)],
     * equal ones by lower number, and their weights; with NaN as docs/NUMERICS.md says, and weights
     * that are none. The logits are overwritten. */
    void (*route)(struct back *b, struct back_route *r, float *logits, int32_t n_tok);
    /* All products of some experts. */
    void (*experts)(struct back *b, const struct back_experts *p);
    /* y[t] = y[t] + weight * out[place - place0], a token's places in [place0, place1) one after
     * the other; where place0 is 0, y begins as 0. y may not be out. */
    void (*add_experts)(struct back *b, float *y, const float *out, const struct back_route *r,
                        int32_t place0, int32_t place1, size_t ld, int32_t n_tok, int32_t n);
    /* x[t] = x[t] + sigmoid(gate[t][0]) * y[t]; rows of gate are back_ld(1) apart and are
     * overwritten */
    void (*add_gated)(struct back *b, float *x, const float *y, float *gate, size_t ld,
                      int32_t n_tok, int32_t n);
    /* y[i] = x[rows[i]] */
    void (*gather)(struct back *b, float *y, const float *x, const int32_t *rows, int32_t n_row,
                   size_t ld);
};

/* Common part of every backend object; a backend embeds it as its first member. */
struct back {
    const struct back_ops *op;
    struct arena *step; /* workspace of the current step; borrows */
};

/* Room for n_tok rows of ld floats in the step arena, 64-byte aligned; the caller rewinds it. */
static inline float *back_take(struct back *b, int32_t n_tok, size_t ld)
{
    return arena_take(b->step, (size_t)n_tok * ld * sizeof(float));
}

/* --- workspace that the CPU needs inside operations: one truth for be_cpu and be_measure ------ */

/* matmul: the prepared activations of each kind that its weights ask for. */
size_t back_matmul_bytes(const struct back_out *out, int32_t n_out, int32_t n_tok);

/* experts: the same for however many tokens go to each expert. */
size_t back_experts_bytes(const struct back_experts *p);
/* For backends that compute nothing: as many experts as n_tok tokens are expected to use when each
 * takes n_used at random, the first ones, with as many places each. Sets r->first alone. */
void back_route_evenly(struct back_route *r, int32_t n_tok);

/* attend: how the work is cut, and the partial results when spans are shared out. */
struct back_cut {
    int32_t n_tile;    /* (run, kv head, up to KERN_QUERIES queries): the pieces of work */
    bool is_by_span;   /* pieces are single spans, computed in waves and merged in order */
    int32_t n_wave;    /* spans computed between two merges */
    size_t each_bytes; /* of one partial result */
    size_t bytes;      /* of all workspace: a running result a tile, a partial one a wave's span */
};
/* How be_cpu cuts this call; depends on the arguments alone, so be_measure knows it too. */
struct back_cut back_attend_cut(const struct back_attend *p, int32_t n_worker);
/* The most that back_attend_cut asks for, whatever the step. */
size_t back_attend_worst_bytes(const struct back_attend *p, int32_t n_worker);

#endif
