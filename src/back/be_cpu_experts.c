/* be_cpu_experts - who goes to which expert, and the sums of what comes back
 *
 * A step with experts is four operations: `route` chooses each token's experts and numbers the
 * places, `experts` multiplies (a product like any other: be_cpu.c), `add_experts` sums a token's
 * results, `add_gated` adds those of an expert that all tokens share. This file has all but the
 * products; all of it is shared out by rows.
 *
 * Choosing is insertion: of up to 512 logits a few are kept, most fall behind all that are there.
 * What is chosen is then put in the order of the experts' numbers, in which weights are summed and
 * results are added (docs/NUMERICS.md), so that neither depends on which expert is greatest.
 *
 * Rejected: a heap of those that are kept. Nearly all logits fall behind by one comparison, and
 * equal ones would not stay in the order of their numbers.
 *
 * Next: be_cpu.c; docs/decisions/0012-experts.md. */
#include "back/be_cpu_impl.h"

#include <string.h>

struct route_args {
    const struct back_route *r;
    float *logits;
};

/* The greatest logits first; a later one goes before an earlier only if it is greater. */
static void choose_experts(const float *logits, int32_t n_expert, int32_t *ids, int32_t n_used)
{
    int32_t n = 0;
    for (int32_t e = 0; e < n_expert; e++) {
        int32_t at = n;
        while (at > 0 && logits[e] > logits[ids[at - 1]]) {
            at--;
        }
        if (at < n_used) {
            n = n < n_used ? n + 1 : n;
            memmove(ids + at + 1, ids + at, (size_t)(n - 1 - at) * sizeof ids[0]);
            ids[at] = e;
        }
    }
}

static void sort_ids(int32_t *ids, int32_t n)
{
    for (int32_t i = 1; i < n; i++) {
        const int32_t id = ids[i];
        int32_t at = i;
        for (; at > 0 && ids[at - 1] > id; at--) {
            ids[at] = ids[at - 1];
        }
        ids[at] = id;
    }
}

/* Softmax over all experts; of those that are chosen, in the order of their numbers, either as it
 * is or divided by their sum. */
static void route_rows(const void *args, const struct kern_table *k, int32_t from, int32_t to)
{
    const struct route_args *a = args;
    const struct back_route *r = a->r;
    const int32_t n = r->n_used;
    for (int32_t t = from; t < to; t++) {
        float *l = a->logits + (size_t)t * back_ld(r->n_expert);
        int32_t *ids = r->place + (size_t)t * (size_t)n;
        float *weight = r->weight + (size_t)t * (size_t)n;
        choose_experts(l, r->n_expert, ids, n);
        const float sum_all = k->exp_sum(l, l, l[ids[0]], r->n_expert);
        sort_ids(ids, n);
        float sum = 0.0f;
        for (int32_t i = 0; i < n; i++) {
            sum = sum + l[ids[i]];
        }
        for (int32_t i = 0; i < n; i++) {
            weight[i] = l[ids[i]] / (r->is_normed ? sum : sum_all);
            weight[i] = r->scale != 1.0f ? weight[i] * r->scale : weight[i];
        }
    }
}

/* Tokens are chosen for side by side; numbering the places is counting, on the caller alone. */
void be_cpu_route(struct back *b, struct back_route *r, float *logits, int32_t n_tok)
{
    const struct route_args a = { r, logits };
    const int32_t n_place = n_tok * r->n_used;
    be_cpu_rows(be_cpu_self(b), route_rows, &a, n_tok, (size_t)r->n_expert * 8);
    memset(r->first, 0, sizeof r->first);
    for (int32_t i = 0; i < n_place; i++) {
        r->first[r->place[i] + 1]++;
    }
    for (int32_t e = 0; e < r->n_expert; e++) {
        r->first[e + 1] += r->first[e];
    }
    for (int32_t i = 0; i < n_place; i++) { /* first[e] is now where e's next token goes ... */
        const int32_t place = r->first[r->place[i]]++;
        r->token[place] = i / r->n_used;
        r->place[i] = place;
    }
    memmove(r->first + 1, r->first, (size_t)r->n_expert * sizeof r->first[0]); /* ... its end */
    r->first[0] = 0;
}

struct add_experts_args {
    float *y;
    const float *out;
    const struct back_route *r;
    int32_t place0;
    int32_t place1;
    size_t ld;
    int32_t n;
};

static void add_experts_rows(const void *args, const struct kern_table *k, int32_t from, int32_t to)
{
    const struct add_experts_args *a = args;
    for (int32_t t = from; t < to; t++) {
        float *y = a->y + (size_t)t * a->ld;
        if (a->place0 == 0) {
            memset(y, 0, (size_t)a->n * sizeof y[0]);
        }
        for (int32_t i = 0; i < a->r->n_used; i++) {
            const size_t at = (size_t)t * (size_t)a->r->n_used + (size_t)i;
            const int32_t place = a->r->place[at];
            if (place >= a->place0 && place < a->place1) {
                k->add_scaled(y, a->out + (size_t)(place - a->place0) * a->ld, a->r->weight[at],
                              a->n);
            }
        }
    }
}

void be_cpu_add_experts(struct back *b, float *y, const float *out, const struct back_route *r,
                        int32_t place0, int32_t place1, size_t ld, int32_t n_tok, int32_t n)
{
    const struct add_experts_args a = { y, out, r, place0, place1, ld, n };
    be_cpu_rows(be_cpu_self(b), add_experts_rows, &a, n_tok, (size_t)n);
}

struct add_gated_args {
    float *x;
    const float *y;
    float *gate;
    size_t ld;
    int32_t n;
};

/* sigmoid(g) = 1 / (1 + exp(-g)) */
static void add_gated_rows(const void *args, const struct kern_table *k, int32_t from, int32_t to)
{
    const struct add_gated_args *a = args;
    for (int32_t t = from; t < to; t++) {
        float *g = a->gate + (size_t)t * back_ld(1);
        g[0] = 0.0f - g[0];
        k->exp_sum(g, g, 0.0f, 1);
        const size_t at = (size_t)t * a->ld;
        k->add_scaled(a->x + at, a->y + at, 1.0f / (1.0f + g[0]), a->n);
    }
}

void be_cpu_add_gated(struct back *b, float *x, const float *y, float *gate, size_t ld,
                      int32_t n_tok, int32_t n)
{
    const struct add_gated_args a = { x, y, gate, ld, n };
    be_cpu_rows(be_cpu_self(b), add_gated_rows, &a, n_tok, (size_t)n);
}
