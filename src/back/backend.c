/* backend - workspace arithmetic shared by be_cpu and be_measure
 *
 * The dry run may only be trusted if it takes the same workspace as the real one, byte for byte. So
 * whatever an operation of be_cpu takes from the step arena is computed here, from the operation's
 * arguments alone, and both call it (BA-1).
 *
 * How attention is cut. A piece of work is one kv head of one run with up to KERN_QUERIES queries
 * that share its pages (tokens x heads of the group). In prefill there are plenty of such pieces
 * and each walks its spans itself. In decode there may be fewer pieces than workers, each as long
 * as the context: then every span becomes a piece of its own, its result is kept, and the results
 * are merged in span order. Both ways give the same bits, because a span is computed and merged
 * alike (docs/NUMERICS.md).
 *
 * Experts. How many tokens an expert gets is known only when the router has spoken, so the
 * workspace of their products is that of the worst routing, and be_cpu takes all of it
 * (back_experts_bytes).
 *
 * Next: be_cpu.c. */
#include "back/backend.h"

size_t back_matmul_bytes(const struct back_out *out, int32_t n_out, int32_t n_tok)
{
    size_t bytes = 0;
    bool has_kind[KERN_ACT_COUNT] = { false };
    for (int32_t i = 0; i < n_out; i++) {
        const enum kern_act_kind kind = kern_act_kind_for(out[i].w->type);
        if (!has_kind[kind]) {
            has_kind[kind] = true;
            bytes += mem_round(kern_act_bytes(kind, n_tok, out[i].w->n_col), 64);
        }
    }
    return bytes;
}

/* Of one expert with n_tok tokens. */
static size_t expert_bytes(const struct back_experts *p, int32_t n_tok)
{
    return back_matmul_bytes(p->expert[0].out, p->n_out, n_tok);
}

/* Tokens at one expert are prepared in tiles, of which the last may be filled up: for a token the
 * most that one of a tile may take. Whole tiles take no more than sixteen of a last one. */
size_t back_experts_bytes(const struct back_experts *p)
{
    size_t most = 0;
    for (int32_t n = 1; n <= KERN_TILE; n++) {
        const size_t each = (expert_bytes(p, n) + (size_t)n - 1) / (size_t)n;
        most = each > most ? each : most;
    }
    return mem_round((size_t)p->n_row_most * most, 64);
}

void back_route_evenly(struct back_route *r, int32_t n_tok)
{
    const int32_t n_place = n_tok * r->n_used;
    double unused = 1.0; /* share of the experts */
    for (int32_t t = 0; t < n_tok; t++) {
        unused *= 1.0 - (double)r->n_used / (double)r->n_expert;
    }
    int32_t n = (int32_t)((1.0 - unused) * (double)r->n_expert + 0.5);
    n = n < r->n_used ? r->n_used : n;
    n = n < n_place ? n : n_place;
    for (int32_t e = 0; e <= r->n_expert; e++) {
        const int64_t i = e < n ? e : n;
        r->first[e] = (int32_t)(i * n_place / n);
    }
}

#define TILES_PER_WORKER 4  /* fewer tiles than this a worker: share spans out */
#define SPANS_PER_WORKER 32 /* of one wave */

static size_t partial_bytes(const struct back_attend *p)
{
    return (size_t)KERN_QUERIES * (back_ld(p->kv.hd_v) + 2) * sizeof(float);
}

struct back_cut back_attend_cut(const struct back_attend *p, int32_t n_worker)
{
    struct back_cut cut = { 0 };
    const int32_t group = p->n_head / p->kv.n_kv;
    int32_t n_span_all = 0;
    for (int32_t i = 0; i < p->n_run; i++) {
        const struct back_run *r = &p->runs[i];
        const int32_t n_tile = (r->n_tok * group + KERN_QUERIES - 1) / KERN_QUERIES * p->kv.n_kv;
        cut.n_tile += n_tile;
        n_span_all += n_tile * ((r->pos0 + r->n_tok + KERN_SPAN - 1) / KERN_SPAN);
    }
    if (cut.n_tile < TILES_PER_WORKER * n_worker && n_span_all > cut.n_tile && n_worker > 1) {
        cut.is_by_span = true;
        cut.n_wave = SPANS_PER_WORKER * n_worker;
        cut.each_bytes = partial_bytes(p);
        cut.bytes = (size_t)(cut.n_tile + cut.n_wave) * cut.each_bytes;
    }
    return cut;
}

size_t back_attend_worst_bytes(const struct back_attend *p, int32_t n_worker)
{
    const int32_t n = n_worker > 1 ? (TILES_PER_WORKER + SPANS_PER_WORKER) * n_worker : 0;
    return (size_t)n * partial_bytes(p);
}
