/* cmd_bench - `hearth bench`: speed of a model on this box
 *
 * Prompts are random tokens, answers are forced to go on, so the text does not matter. Prompt speed
 * is that of one prompt of --prefill tokens; answer speed that of --batch conversations of --decode
 * tokens each, which begin at --depth tokens of context. The memory bandwidth is measured in the
 * same run, because on shared machines it changes by the minute, and each figure is shown beside
 * its limit.
 *
 * Only the public library is used. Next: lib/hearth.c. */
#include "cmd/cmd_bench.h"

#include "base/mem.h"
#include "base/os.h"
#include "cmd/open.h"

#include <stdio.h>

#define BATCH_MAX 256

struct result {
    double prefill_tok_s, decode_tok_s;
};

static void fill_tokens(int32_t *ids, int64_t n, int32_t n_vocab, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1;
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = (int32_t)((x >> 8) % (uint32_t)n_vocab);
    }
}

/* Waits for the end of a request. */
static hearth_status drain(struct hearth_request *r, struct hearth_event *e)
{
    hearth_status s;
    do {
        s = hearth_next(r, 1000000, e);
    } while (s == HEARTH_BUSY || (s == HEARTH_OK && e->kind != HEARTH_EVENT_END));
    return s;
}

static hearth_status submit(struct open_model *m, const int32_t *ids, int64_t n, int64_t n_answer,
                            struct hearth_request **r)
{
    struct hearth_request_params p;
    hearth_request_init(&p);
    p.tokens = ids;
    p.n_token = (size_t)n;
    p.max_tokens = (int32_t)n_answer;
    p.temperature = 0.0f;
    p.ignore_eos = 1;
    return hearth_submit(m->model, &p, r);
}

static hearth_status bench_prefill(struct open_model *m, const struct conf *c, int32_t *ids,
                                   struct result *out)
{
    for (uint32_t i = 0; i < 3; i++) { /* the best of three */
        struct hearth_request *r = NULL;
        struct hearth_event e;
        fill_tokens(ids, c->prefill, m->info.n_vocab, i);
        hearth_status s = submit(m, ids, c->prefill, 1, &r);
        s = s == HEARTH_OK ? drain(r, &e) : s;
        if (s != HEARTH_OK) {
            hearth_request_close(r);
            return s;
        }
        const double rate =
            e.prefill_us > 0 ? 1e6 * (double)c->prefill / (double)e.prefill_us : 0.0;
        out->prefill_tok_s = rate > out->prefill_tok_s ? rate : out->prefill_tok_s;
        hearth_request_close(r);
    }
    return HEARTH_OK;
}

/* All conversations at once; the time counts from when the last one has its first token. */
static hearth_status bench_decode(struct open_model *m, const struct conf *c, int32_t *ids,
                                  struct result *out)
{
    struct hearth_request *r[BATCH_MAX] = { NULL };
    struct hearth_event e;
    const int64_t depth = c->depth > 0 ? c->depth : 8;
    hearth_status s = HEARTH_OK;
    uint64_t decode_us = 0;
    int64_t n_tok = 0;
    for (int64_t i = 0; i < c->batch && s == HEARTH_OK; i++) {
        fill_tokens(ids, depth, m->info.n_vocab, (uint32_t)i + 100);
        s = submit(m, ids, depth, c->decode, &r[i]);
    }
    struct hearth_stats before;
    for (;;) { /* until all prompts are done */
        hearth_model_get_stats(m->model, &before);
        if (s != HEARTH_OK || before.n_queued == 0) {
            break;
        }
        hearth_next(r[0], 1000, &e);
    }
    for (int64_t i = 0; i < c->batch && s == HEARTH_OK; i++) {
        s = drain(r[i], &e);
        decode_us = e.decode_us > decode_us ? e.decode_us : decode_us;
        n_tok += e.n_generated - 1;
    }
    for (int64_t i = 0; i < c->batch; i++) {
        hearth_request_close(r[i]);
    }
    out->decode_tok_s = decode_us > 0 ? 1e6 * (double)n_tok / (double)decode_us : 0.0;
    return s;
}

static void print_result(const struct conf *c, const struct open_model *m,
                         const struct hearth_plan *plan, const struct hearth_limits *l,
                         const struct result *r)
{
    const double per_tok =
        (double)plan->step_read_bytes + (double)plan->token_kv_bytes * (double)c->depth;
    const double read = r->decode_tok_s / (double)c->batch * per_tok / 1e9;
    const double gop = r->prefill_tok_s * 2.0 * (double)m->info.n_param / 1e9;
    const double read_share = l->read_gb_s > 0.0 ? 100.0 * read / l->read_gb_s : 0.0;
    const double int8_share = l->int8_gop_s > 0.0 ? 100.0 * gop / l->int8_gop_s : 0.0;
    if (c->is_json) {
        printf("{\"version\": 1, \"model\": \"%s\", \"type\": \"%s\", \"prefill\": %lld, "
               "\"decode\": %lld, \"depth\": %lld, "
               "\"batch\": %lld, \"prefill_tok_s\": %.2f, \"decode_tok_s\": %.2f, \"read_gb_s\": "
               "%.2f, \"int8_gop_s\": %.1f, "
               "\"f32_gflop_s\": %.1f, \"decode_read_gb_s\": %.2f, \"decode_read_percent\": %.1f, "
               "\"prefill_gop_s\": %.1f, "
               "\"prefill_int8_percent\": %.1f}\n",
               m->info.arch, m->info.type, (long long)c->prefill, (long long)c->decode,
               (long long)c->depth, (long long)c->batch, r->prefill_tok_s, r->decode_tok_s,
               l->read_gb_s, l->int8_gop_s, l->f32_gflop_s, read, read_share, gop, int8_share);
        return;
    }
    printf("%s %s, %.1f million parameters\n", m->info.arch, m->info.type,
           (double)m->info.n_param / 1e6);
    printf("  prompt  %9.1f tok/s  %5lld tokens   %7.1f GOP/s, %.0f %% of the int8 peak (%.0f)\n",
           r->prefill_tok_s, (long long)c->prefill, gop, int8_share, l->int8_gop_s);
    printf("  answer  %9.1f tok/s  %5lld at once   %7.1f GB/s, %.0f %% of memory bandwidth (%.1f), "
           "depth %lld\n",
           r->decode_tok_s, (long long)c->batch, read, read_share, l->read_gb_s,
           (long long)c->depth);
}

static hearth_status bench_model(const struct conf *c, const char *path,
                                 const struct hearth_limits *l)
{
    struct conf own = *c;
    const int64_t depth = c->depth > 0 ? c->depth : 8;
    const int64_t need =
        (c->prefill + 1 > depth + c->decode ? c->prefill + 1 : depth + c->decode) + 1;
    own.ctx = c->ctx > 0 ? c->ctx : need;
    own.parallel = c->batch;
    struct open_model m = { 0 };
    struct hearth_plan plan = { 0 };
    struct hearth_model_params p;
    struct result r = { 0 };
    hearth_status s = open_all(&own, path, &m);
    int32_t *ids = mem_alloc_array((size_t)need, sizeof ids[0]);
    if (s == HEARTH_OK && ids == NULL) {
        s = HEARTH_MEMORY;
    }
    open_params(&own, &p);
    s = s == HEARTH_OK ? hearth_plan_make(m.box, path, &p, &plan) : s;
    s = s == HEARTH_OK ? bench_prefill(&m, &own, ids, &r) : s;
    s = s == HEARTH_OK ? bench_decode(&m, &own, ids, &r) : s;
    if (s == HEARTH_OK) {
        print_result(&own, &m, &plan, l, &r);
    }
    mem_free(ids);
    open_close(&m);
    return s;
}

static void print_kernels(const struct hearth_box *box)
{
    char text[4096];
    hearth_box_kernels(box, text, sizeof text);
    fputs(text, stdout);
}

int cmd_bench(const struct conf *c, const char *path)
{
    struct hearth_box *box = NULL;
    struct hearth_limits l = { 0 };
    hearth_status s = open_box(c, &box);
    if (s == HEARTH_OK && c->is_kernels) {
        print_kernels(box);
    }
    if (s == HEARTH_OK && (c->is_limits || path != NULL)) {
        s = hearth_box_measure(box, &l);
    }
    if (s == HEARTH_OK && c->is_limits) {
        printf("memory read  %8.1f GB/s\nint8 peak    %8.1f GOP/s\nfloat peak   %8.1f GFLOP/s\n",
               l.read_gb_s, l.int8_gop_s, l.f32_gflop_s);
    }
    if (s == HEARTH_OK && path == NULL && !c->is_kernels && !c->is_limits) {
        fprintf(stderr, "hearth: bench needs a MODEL, --kernels or --limits\n");
        hearth_box_close(box);
        return (int)HEARTH_USAGE;
    }
    hearth_box_close(box);
    s = s == HEARTH_OK && path != NULL ? bench_model(c, path, &l) : s;
    return s == HEARTH_OK ? 0 : open_fail(s);
}
