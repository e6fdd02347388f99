/* cmd_bench - `hearth bench`: speed of a model on this box
 *
 * Prompts are random tokens, answers are forced to go on, so the text does not matter. Both begin
 * at --depth tokens of context, whose cache is made up instead of computed. Prompt speed is that of
 * one prompt of --prefill tokens; answer speed that of --batch conversations. Their prompts are
 * computed one after the other, and answers that nobody reads wait; so nothing is read until the
 * last one begins, and then --decode tokens of that one are timed, during which all of them run.
 * The memory bandwidth is measured in the same run, because on shared machines it changes by the
 * minute, and each figure is shown beside its limit.
 *
 * Only the public library is used. Next: lib/hearth.c. */
#include "cmd/cmd_bench.h"

#include "base/buf.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/os.h"
#include "cmd/open.h"
#include "cmd/progress.h"
#include "cmd/trial.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define BATCH_MAX 256
#define PROMPTS   3  /* that are timed */
#define AHEAD     64 /* tokens that an answer which nobody reads may be ahead, at most */

struct result {
    double prefill_tok_s;
    double decode_tok_s;
    double disk_gb_s;      /* that was read of the model while answers were timed */
    double disk_step_mib;  /* for a token of each */
    double disk_used_part; /* of it: experts that were wanted, layers */
};

/* What was asked for and measured. */
struct bench {
    char kernels[4096];
    struct hearth_limits l;
    struct hearth_model_info info;
    struct hearth_plan plan;
    struct result r;
    struct result predicted; /* with the same limits; 0: it could not be */
    double disk_gb_s;        /* that the file was read at, for the prediction; 0: not */
    double least_read_gb_s;  /* of the memory, of the two times it was measured */
    bool has_limits;
    bool has_model;
};

static int64_t depth_of(const struct conf *c)
{
    return c->depth > 0 ? c->depth : 8; /* a conversation has a prompt */
}

/* Tokens of an answer: those that are timed, one before, and what it may be ahead of the last. */
static int64_t answer_of(const struct conf *c)
{
    return c->decode + 1 + (c->batch > 1 ? AHEAD : 0);
}

static hearth_status bench_prefill(struct open_model *m, const struct conf *c, int32_t *ids,
                                   struct result *out)
{
    struct progress bar;
    hearth_status s = HEARTH_OK;
    progress_begin_short(&bar, "prompts", 0);
    for (uint32_t i = 0; i < PROMPTS && s == HEARTH_OK; i++) { /* the best of them */
        struct hearth_request *r = NULL;
        struct hearth_event e = { 0 };
        trial_tokens(ids, c->depth + c->prefill, m->info.n_vocab, i);
        s = trial_submit(m->model, ids, c->depth + c->prefill, c->depth, 1, &r);
        s = s == HEARTH_OK ? trial_drain(r, &bar, (double)i / PROMPTS, &e) : s;
        const double rate =
            e.prefill_us > 0 ? 1e6 * (double)c->prefill / (double)e.prefill_us : 0.0;
        out->prefill_tok_s = rate > out->prefill_tok_s ? rate : out->prefill_tok_s;
        hearth_request_close(r);
    }
    progress_share(&bar, 1.0);
    return s;
}

/* Events of the other conversations, so that none of them waits. */
static void read_others(struct hearth_request **r, int64_t n)
{
    struct hearth_event e;
    for (int64_t i = 0; i < n; i++) {
        while (hearth_next(r[i], 0, &e) == HEARTH_OK) {
        }
    }
}

static struct hearth_stats stats_of(const struct hearth_model *m)
{
    struct hearth_stats s = { 0 };
    hearth_model_get_stats(m, &s);
    return s;
}

#define TOLD_EACH_US 100000 /* what the engine tells costs a file of /proc */

/* Waits for the end of the last conversation, while the others go on; n_most: tokens that all
 * of them will have made, at most. *first: what the engine told behind its first token. */
static hearth_status drain_last(const struct hearth_model *m, struct hearth_request **r, int64_t n,
                                double n_most, struct hearth_event *e, struct hearth_stats *first)
{
    const uint64_t before = stats_of(m).n_generated_token;
    uint64_t told_us = os_now_us();
    struct progress bar;
    hearth_status s = HEARTH_BUSY;
    bool has_begun = false;
    progress_begin_short(&bar, "answers", 0);
    do {
        s = hearth_next(r[n - 1], 200000, e);
        if (s == HEARTH_OK && !has_begun) {
            *first = stats_of(m);
            has_begun = true;
        }
        read_others(r, has_begun ? n - 1 : 0);
        const uint64_t now_us = os_now_us();
        if (bar.is_terminal && now_us - told_us > TOLD_EACH_US) {
            told_us = now_us;
            progress_share(&bar,
                           fmin((double)(stats_of(m).n_generated_token - before) / n_most, 0.99));
        }
    } while (s == HEARTH_BUSY || (s == HEARTH_OK && e->kind != HEARTH_EVENT_END));
    progress_share(&bar, 1.0);
    return s;
}

static hearth_status bench_decode(struct open_model *m, const struct conf *c, int32_t *ids,
                                  struct result *out)
{
    struct hearth_request *r[BATCH_MAX] = { NULL };
    struct hearth_event e = { 0 };
    hearth_status s = HEARTH_OK;
    for (int64_t i = 0; i < c->batch && s == HEARTH_OK; i++) {
        trial_tokens(ids, depth_of(c), m->info.n_vocab, (uint32_t)i + 100);
        s = trial_submit(m->model, ids, depth_of(c), depth_of(c) - 1,
                         i < c->batch - 1 ? answer_of(c) : c->decode + 1, &r[i]);
    }
    const double n_most = (double)(c->batch * answer_of(c));
    struct hearth_stats first = { 0 };
    s = s == HEARTH_OK ? drain_last(m->model, r, c->batch, n_most, &e, &first) : s;
    const struct hearth_stats last = stats_of(m->model); /* at once: the others go on */
    if (s == HEARTH_OK && e.n_generated <= c->decode) {
        s = (hearth_status)err_set(ERR_FAILED, "the answer ended after %d tokens: %s",
                                   e.n_generated, e.error != NULL ? e.error : "no reason given");
    }
    for (int64_t i = 0; i < c->batch; i++) {
        hearth_request_close(r[i]);
    }
    out->decode_tok_s =
        e.decode_us > 0 ? 1e6 * (double)(c->batch * c->decode) / (double)e.decode_us : 0.0;
    const double read = (double)(last.disk_read_bytes - first.disk_read_bytes);
    out->disk_gb_s = e.decode_us > 0 ? read / 1e3 / (double)e.decode_us : 0.0;
    out->disk_step_mib = read / (1024.0 * 1024.0) / (double)c->decode;
    out->disk_used_part =
        read > 0.0 ? (double)(last.disk_used_bytes - first.disk_used_bytes) / read : 1.0;
    return s;
}

/* What the speeds mean against the limits. */
struct shares {
    double read_gb_s;
    double read_percent;
    const char *peak; /* that of the weights' arithmetic: "int8" or "float" */
    double peak_gop_s;
    double gop_s; /* of the prompt */
    double peak_percent;
    double answer_gop_s;
    double answer_peak_percent;
    bool in_caches; /* perhaps: the memory's speed then says little of answers */
};

/* Weights that are floats are multiplied as such. */
static bool is_float(const char *type)
{
    return strcmp(type, "F32") == 0 || strcmp(type, "F16") == 0 || strcmp(type, "BF16") == 0;
}

static struct shares shares_of(const struct conf *c, const struct bench *b)
{
    const uint64_t depth = (uint64_t)c->depth;
    const uint64_t window = b->plan.window > 0 ? b->plan.window - 1 : 0; /* without the token */
    const uint64_t seen = depth < window ? depth : window;
    const uint64_t each =
        (b->plan.token_kv_bytes - b->plan.window_kv_bytes) * depth + b->plan.window_kv_bytes * seen;
    const double kv_bytes = (double)each * (double)c->batch;
    const double token_ops = (double)b->plan.token_ops;
    const double answer_ops = token_ops + 2.0 * (double)b->info.n_vocab * (double)b->info.n_embd;
    const bool by_float = is_float(b->info.type);
    const double step_bytes = (double)b->plan.parallel_read_bytes + kv_bytes;
    struct shares v = { .peak = by_float ? "float" : "int8" };
    v.peak_gop_s = by_float ? b->l.all.f32_gflop_s : b->l.all.int8_gop_s;
    v.read_gb_s = b->r.decode_tok_s / (double)c->batch * step_bytes / 1e9;
    v.gop_s = b->r.prefill_tok_s * token_ops / 1e9;
    v.answer_gop_s = b->r.decode_tok_s * answer_ops / 1e9;
    v.read_percent = b->l.all.read_gb_s > 0.0 ? 100.0 * v.read_gb_s / b->l.all.read_gb_s : 0.0;
    v.peak_percent = v.peak_gop_s > 0.0 ? 100.0 * v.gop_s / v.peak_gop_s : 0.0;
    v.answer_peak_percent = v.peak_gop_s > 0.0 ? 100.0 * v.answer_gop_s / v.peak_gop_s : 0.0;
    v.in_caches = b->plan.step_read_bytes < TRIAL_SMALL || v.read_percent > 100.0;
    return v;
}

/* Cuts off what stands before column n, without the blanks at its end. */
static struct view cut(struct view *line, size_t n)
{
    struct view v = view_part(*line, 0, n);
    *line = view_from(*line, n);
    while (v.n > 0 && v.p[v.n - 1] == ' ') {
        v.n--;
    }
    return v;
}

/* The lines' two columns; of the levels that are "available" one object. */
static void json_kernels(struct buf *out, const char *text)
{
    bool in_levels = false;
    buf_add_str(out, ", \"kernels\": {");
    for (struct view rest = view_of(text); rest.n > 0;) {
        const size_t n = view_find(rest, VIEW("\n"), 0);
        struct view line = view_part(rest, 0, n);
        struct view name = cut(&line, 11);
        const bool is_level = view_eq(name, VIEW("available"));
        buf_add_str(out, in_levels && !is_level ? "}" : "");
        buf_add_str(out, rest.p != text ? ", " : "");
        buf_add_str(out, is_level && !in_levels ? "\"available\": {" : "");
        name = is_level ? cut(&line, 9) : name;
        js_put_string(out, name, false);
        buf_add_str(out, ": ");
        js_put_string(out, line, false);
        in_levels = is_level;
        rest = view_from(rest, n < rest.n ? n + 1 : rest.n);
    }
    buf_add_str(out, in_levels ? "}}" : "}");
}

static void json_rates(struct buf *out, const struct hearth_rates *r)
{
    buf_printf(out, ", \"read_gb_s\": %.2f, \"int8_gop_s\": %.1f, \"f32_gflop_s\": %.1f, ",
               r->read_gb_s, r->int8_gop_s, r->f32_gflop_s);
    if (r->bf16_gflop_s > 0.0) {
        buf_printf(out, "\"bf16_gflop_s\": %.1f", r->bf16_gflop_s);
    } else {
        buf_add_str(out, "\"bf16_gflop_s\": null"); /* no such instruction */
    }
    buf_printf(out, ", \"core_percent\": %.1f", 100.0 * r->core_share);
}

static void json_model(struct buf *out, const struct conf *c, const struct bench *b)
{
    const struct shares v = shares_of(c, b);
    buf_printf(out,
               ", \"model\": \"%s\", \"type\": \"%s\", \"piece\": %d, \"prefill\": %lld, "
               "\"decode\": %lld, "
               "\"depth\": %lld, \"batch\": %lld, \"prefill_tok_s\": %.2f, \"decode_tok_s\": %.2f, "
               "\"decode_read_gb_s\": %.2f, \"decode_read_percent\": %.1f, "
               "\"peak\": \"%s\", \"prefill_gop_s\": %.1f, \"prefill_peak_percent\": %.1f, "
               "\"decode_gop_s\": %.1f, \"decode_peak_percent\": %.1f, "
               "\"in_caches\": %s, \"step_disk_bytes\": %llu",
               b->info.arch, b->info.type, b->plan.n_batch, (long long)c->prefill,
               (long long)c->decode, (long long)c->depth, (long long)c->batch, b->r.prefill_tok_s,
               b->r.decode_tok_s, v.read_gb_s, v.read_percent,
               is_float(b->info.type) ? "f32" : "int8", v.gop_s, v.peak_percent, v.answer_gop_s,
               v.answer_peak_percent, v.in_caches ? "true" : "false",
               (unsigned long long)b->plan.step_disk_bytes);
    buf_printf(out, ", \"decode_disk_gb_s\": %.3f, \"decode_disk_used_percent\": %.1f",
               b->r.disk_gb_s, 100.0 * b->r.disk_used_part);
    buf_printf(out, ", \"least_read_gb_s\": %.2f, ", b->least_read_gb_s);
    if (b->predicted.decode_tok_s > 0.0) {
        buf_printf(out,
                   "\"predicted_prefill_tok_s\": %.2f, \"predicted_decode_tok_s\": %.2f, "
                   "\"disk_gb_s\": %.3f",
                   b->predicted.prefill_tok_s, b->predicted.decode_tok_s, b->disk_gb_s);
    } else {
        buf_add_str(out, "\"predicted_prefill_tok_s\": null, \"predicted_decode_tok_s\": null");
    }
}

static void print_json(const struct conf *c, const struct bench *b)
{
    struct buf out;
    buf_init(&out, 65536);
    buf_add_str(&out, "{\"version\": 1");
    if (c->is_kernels) {
        json_kernels(&out, b->kernels);
    }
    if (b->has_limits) {
        json_rates(&out, &b->l.all);
        buf_printf(&out,
                   ", \"threads\": %llu, \"tuned\": %s, \"read_bytes\": %llu, "
                   "\"wanted_bytes\": %llu, \"one_thread\": {\"threads\": 1",
                   (unsigned long long)b->l.n_thread, open_is_tuned() ? "true" : "false",
                   (unsigned long long)b->l.read_bytes, (unsigned long long)b->l.wanted_bytes);
        json_rates(&out, &b->l.one);
        buf_add_char(&out, '}');
    }
    if (b->has_model) {
        json_model(&out, c, b);
    }
    printf("%s}\n", buf_str(&out));
    buf_release(&out);
}

static void print_rate(const char *name, double one, double all, const char *unit)
{
    if (all > 0.0) {
        printf("%-12s %9.1f %11.1f  %s\n", name, one, all, unit);
    }
}

static void print_limits(const struct hearth_limits *l)
{
    printf("%-12s %9s %4llu %s\n", "limits of", "1 thread", (unsigned long long)l->n_thread,
           l->n_thread == 1 ? "thread" : "threads");
    print_rate("memory read", l->one.read_gb_s, l->all.read_gb_s, "GB/s");
    print_rate("int8 peak", l->one.int8_gop_s, l->all.int8_gop_s, "GOP/s");
    print_rate("float peak", l->one.f32_gflop_s, l->all.f32_gflop_s, "GFLOP/s");
    print_rate("bf16 peak", l->one.bf16_gflop_s, l->all.bf16_gflop_s, "GFLOP/s");
    printf("read: %llu MiB\n", (unsigned long long)l->read_bytes >> 20);
}

/* What may be wrong with the limits, or is not as one may think. */
static void print_remarks(const struct conf *c, const struct hearth_limits *l)
{
    if (l->read_bytes < l->wanted_bytes / 3 * 2) { /* then caches hold a good part */
        printf("caches may hold a part of the %llu MiB that could be read: memory alone may be "
               "slower, and shows with %llu MiB\n",
               (unsigned long long)l->read_bytes >> 20, (unsigned long long)l->wanted_bytes >> 20);
    }
    if (l->all.core_share < OPEN_SHARED) {
        printf(OPEN_SHARED_TEXT ";\nthe limits are those of the best moment and may not last\n",
               100.0 * l->all.core_share);
    }
    if (open_is_tuned() && c->threads == 0) {
        printf("%llu %s, as hearth tune chose; --threads N measures others\n",
               (unsigned long long)l->n_thread, l->n_thread == 1 ? "thread" : "threads");
    }
}

static void print_text(const struct conf *c, const struct bench *b)
{
    if (c->is_kernels) {
        fputs(b->kernels, stdout);
    }
    if (c->is_limits) {
        print_limits(&b->l);
    }
    if (b->has_limits) {
        print_remarks(c, &b->l);
    }
    if (!b->has_model) {
        return;
    }
    const struct shares v = shares_of(c, b);
    char size[64];
    printf("%s %s, %s\n", b->info.arch, b->info.type,
           progress_params(b->info.n_param, b->info.n_active, " parameters", size));
    printf("  prompt  %9.1f tok/s  %5lld tokens   %7.1f GOP/s, %.0f %% of the %s peak (%.0f), "
           "depth %lld\n",
           b->r.prefill_tok_s, (long long)c->prefill, v.gop_s, v.peak_percent, v.peak, v.peak_gop_s,
           (long long)c->depth);
    printf("  answer  %9.1f tok/s  %5lld at once   %7.1f GB/s, %.0f %% of memory bandwidth (%.1f), "
           "depth %lld\n",
           b->r.decode_tok_s, (long long)c->batch, v.read_gb_s, v.read_percent, b->l.all.read_gb_s,
           (long long)c->depth);
    if (b->plan.step_disk_bytes > 0) {
        printf("%44s %7.2f GB/s from the disk, %.1f MiB a step, %.0f %% of it wanted\n", "",
               b->r.disk_gb_s, b->r.disk_step_mib, 100.0 * b->r.disk_used_part);
    }
    if (c->batch > 1) {
        printf("%44s %7.1f GOP/s, %.0f %% of the %s peak\n", "", v.answer_gop_s,
               v.answer_peak_percent, v.peak);
    }
    if (b->predicted.decode_tok_s > 0.0) {
        printf("  predicted by hearth plan with these limits: prompt %.1f tok/s (%+.0f %%), answer "
               "%.1f "
               "(%+.0f %%)\n",
               b->predicted.prefill_tok_s,
               100.0 * (b->predicted.prefill_tok_s / b->r.prefill_tok_s - 1.0),
               b->predicted.decode_tok_s,
               100.0 * (b->predicted.decode_tok_s / b->r.decode_tok_s - 1.0));
    }
    if (v.read_percent > 100.0) {
        puts("  more than the bandwidth: part of the model stays in the caches, or the machine's "
             "memory was slower\n  while the limit was measured");
    } else if (v.in_caches) {
        puts("  so small a model may stay in the caches: memory's speed then says little of its "
             "answers");
    }
}

/* Tokens of the longest conversation that is measured: an answer of one follows the prompt. */
static int64_t longest(const struct conf *c)
{
    const int64_t answer = depth_of(c) + answer_of(c);
    const int64_t prompt = c->depth + c->prefill + 1;
    return prompt > answer ? prompt : answer;
}

static hearth_status bench_model(const struct conf *own, const char *path, struct bench *b)
{
    const int64_t need = longest(own);
    struct open_model m = { 0 };
    hearth_status s = open_all(own, path, 0, &m);
    int32_t *ids = mem_alloc_array((size_t)need, sizeof ids[0]);
    if (s == HEARTH_OK && ids == NULL) {
        s = (hearth_status)err_set(ERR_MEMORY, "no memory for %lld tokens", (long long)need);
    }
    s = s == HEARTH_OK ? bench_prefill(&m, own, ids, &b->r) : s;
    s = s == HEARTH_OK ? bench_decode(&m, own, ids, &b->r) : s;
    b->info = m.info;
    b->has_model = s == HEARTH_OK;
    mem_free(ids);
    open_close(&m);
    return s;
}

static struct hearth_rates better_rates(struct hearth_rates a, struct hearth_rates b)
{
    return (struct hearth_rates){ .read_gb_s = fmax(a.read_gb_s, b.read_gb_s),
                                  .int8_gop_s = fmax(a.int8_gop_s, b.int8_gop_s),
                                  .f32_gflop_s = fmax(a.f32_gflop_s, b.f32_gflop_s),
                                  .bf16_gflop_s = fmax(a.bf16_gflop_s, b.bf16_gflop_s),
                                  .core_share = fmin(a.core_share, b.core_share) };
}

/* The limits of before and after a model was measured: the better ones count, since a neighbour on
 * the machine lowers them, and a figure must not have more than its limit. */
static hearth_status measure_again(struct hearth_box *box, struct bench *b)
{
    struct hearth_limits *l = &b->l;
    struct hearth_limits now = { 0 };
    const hearth_status s = hearth_box_measure(box, &now);
    if (s == HEARTH_OK) {
        b->least_read_gb_s = fmin(l->all.read_gb_s, now.all.read_gb_s);
        l->all = better_rates(l->all, now.all);
        l->one = better_rates(l->one, now.one);
    }
    return s;
}

/* What `hearth plan` would say of this prompt and these answers, in the middle of which the context
 * is half of them longer; with the memory as it was measured. Whoever cannot be told, measures. */
static void predict(struct hearth_box *box, const struct conf *c, const char *path,
                    const struct hearth_model_params *p, struct bench *b)
{
    struct hearth_model_params own = *p;
    struct hearth_speed at[2] = { { .n_prompt = (int32_t)c->prefill,
                                    .n_depth = (int32_t)c->depth,
                                    .read_gb_s = b->l.all.read_gb_s,
                                    .step_disk_bytes = b->plan.step_disk_bytes,
                                    .piece_disk_bytes = b->plan.piece_disk_bytes },
                                  { .n_parallel = (int32_t)c->batch,
                                    .n_depth = (int32_t)(depth_of(c) + c->decode / 2),
                                    .step_disk_bytes = b->plan.step_disk_bytes,
                                    .piece_disk_bytes = b->plan.piece_disk_bytes } };
    own.n_batch = b->plan.n_batch;
    if (hearth_predict(box, path, &own, at, 2) == HEARTH_OK) {
        b->predicted = (struct result){ .prefill_tok_s = at[0].prefill_tok_s,
                                        .decode_tok_s = at[1].decode_tok_s };
        b->disk_gb_s = at[0].disk_gb_s;
    }
}

/* Plans with *p, whose context the other options make where --ctx does not, or is too small, which
 * is refused. A failure that a usual context does not have is theirs, and is told with their names.
 */
static hearth_status plan_for(struct hearth_box *box, const struct conf *c, const char *path,
                              struct hearth_model_params *p, struct hearth_plan *out)
{
    char text[ERR_TEXT_MAX];
    struct hearth_plan usual = { .size = sizeof usual };
    const int64_t need = longest(c);
    const hearth_status s = hearth_plan_make(box, path, p, out);
    if (s == HEARTH_OK && c->ctx > 0 && c->ctx < need) {
        return (hearth_status)err_set(
            ERR_USAGE,
            "--ctx %lld is too little for --depth %lld, --prefill %lld, --decode %lld and --batch "
            "%lld: give %lld or more, or leave it out",
            (long long)c->ctx, (long long)c->depth, (long long)c->prefill, (long long)c->decode,
            (long long)c->batch, (long long)need);
    }
    if (s == HEARTH_OK) {
        return open_fits(c, out,
                         c->ctx > need ? "lower --ctx or --batch, or "
                                       : "lower --depth, --prefill, --decode or --batch, or ");
    }
    if (c->ctx >= need) {
        return s;
    }
    snprintf(text, sizeof text, "%s", err_text());
    p->n_ctx = 0;
    if (hearth_plan_make(box, path, p, &usual) != HEARTH_OK) {
        return (hearth_status)err_set((enum err)s, "%s", text);
    }
    return (hearth_status)err_set(
        (enum err)s,
        "%s: lower --depth (%lld), --prefill (%lld), --decode (%lld) or --batch (%lld)", text,
        (long long)c->depth, (long long)c->prefill, (long long)c->decode, (long long)c->batch);
}

int cmd_bench(const struct conf *c, const char *path)
{
    struct hearth_box *box = NULL;
    struct bench b = { .plan = { .size = sizeof b.plan } };
    struct conf own = *c;
    struct hearth_model_params p;
    own.ctx = c->ctx > longest(c) ? c->ctx : longest(c);
    own.parallel = c->batch;
    open_params(&own, &p);
    p.extra_bytes = TRIAL_BYTES;
    if (path == NULL && !c->is_kernels && !c->is_limits) {
        return open_fail(
            (hearth_status)err_set(ERR_USAGE, "bench needs a MODEL, --kernels or --limits"));
    }
    trial_interruptible("hearth: interrupted\n");
    hearth_status s = open_box(c, &box);
    if (s == HEARTH_OK && c->is_kernels) {
        hearth_box_kernels(box, b.kernels, sizeof b.kernels);
    }
    if (s == HEARTH_OK && path != NULL) { /* refused before anything is measured */
        s = plan_for(box, c, path, &p, &b.plan);
    }
    if (s == HEARTH_OK && (c->is_limits || path != NULL)) {
        s = hearth_box_measure(box, &b.l);
        b.has_limits = s == HEARTH_OK;
    }
    s = s == HEARTH_OK && path != NULL ? bench_model(&own, path, &b) : s;
    s = s == HEARTH_OK && b.has_model ? measure_again(box, &b) : s;
    if (s == HEARTH_OK && b.has_model) {
        predict(box, c, path, &p, &b);
    }
    hearth_box_close(box);
    if (s != HEARTH_OK) {
        return open_fail(s);
    }
    if (c->is_json) {
        print_json(c, &b);
    } else {
        print_text(c, &b);
    }
    return 0;
}
