/* metrics - what the service counts, as Prometheus reads it
 *
 * Two kinds of numbers meet in the text: those that the loop thread counts itself (requests by path
 * and status, times as clients see them) and those that the engine keeps (tokens, steps, batch
 * sizes, cache pages), read at the moment of the scrape. Nothing is smoothed or averaged: rates are
 * the reader's business.
 *
 * Labels come from fixed sets only (routes, status codes, reasons), never from a request, so that
 * the number of lines is bounded.
 *
 * Format: Prometheus text exposition 0.0.4.
 *
 * Next: serve/api.c serves it at /metrics. */
#include "serve/metrics.h"

#include "base/js.h"
#include "base/os.h"

#include <string.h>

static const struct kind {
    const char *name;
    const char *help;
    int n_edge;
    double edge_s[METRICS_BUCKETS];
} kinds[METRICS_TIMES] = {
    [METRICS_FIRST_TOKEN] = { "time_to_first_token_seconds",
                              "From the request's headers to its first token.",
                              16,
                              { 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1,
                                2.5, 5, 7.5, 10 } },
    [METRICS_PER_TOKEN] = { "inter_token_latency_seconds",
                            "Between two tokens of one choice.",
                            13,
                            { 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1,
                              2.5 } },
    [METRICS_REQUEST] = { "request_duration_seconds",
                          "From the request's headers to the end of its answer.",
                          14,
                          { 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24,
                            20.48, 40.96, 81.92 } },
    [METRICS_QUEUE] = { "queue_time_seconds",
                        "From the whole request to its turn in the engine, preparation included.",
                        14,
                        { 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48,
                          40.96, 81.92 } },
};

void metrics_time(struct metrics *m, enum metrics_time which, uint64_t us)
{
    struct metrics_histogram *h = &m->time[which];
    const double s = (double)us / 1e6;
    int i = 0;
    while (i < kinds[which].n_edge && s > kinds[which].edge_s[i]) {
        i++;
    }
    h->bucket[i]++;
    h->n++;
    h->sum_s += s;
}

void metrics_http(struct metrics *m, const char *path, int status)
{
    for (int i = 0; i < METRICS_PATHS; i++) {
        if (m->http[i].path != NULL && strcmp(m->http[i].path, path) != 0) {
            continue;
        }
        m->http[i].path = path;
        for (int k = 0; k < METRICS_CODES; k++) {
            if (m->http[i].code[k].status == status || m->http[i].code[k].n == 0) {
                m->http[i].code[k].status = status;
                m->http[i].code[k].n++;
                return;
            }
        }
        return;
    }
}

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP hearth_%s %s\n# TYPE hearth_%s %s\n", name, help, name, type);
}

static void counter(struct buf *out, const char *name, const char *help, uint64_t v)
{
    head(out, name, "counter", help);
    buf_printf(out, "hearth_%s %llu\n", name, (unsigned long long)v);
}

static void gauge(struct buf *out, const char *name, const char *help, double v)
{
    head(out, name, "gauge", help);
    buf_printf(out, "hearth_%s ", name);
    js_put_real(out, v);
    buf_add_char(out, '\n');
}

static void put_times(const struct metrics *m, struct buf *out)
{
    for (int i = 0; i < METRICS_TIMES; i++) {
        const struct kind *k = &kinds[i];
        const struct metrics_histogram *h = &m->time[i];
        uint64_t n = 0;
        head(out, k->name, "histogram", k->help);
        for (int b = 0; b < k->n_edge; b++) {
            n += h->bucket[b];
            buf_printf(out, "hearth_%s_bucket{le=\"%g\"} %llu\n", k->name, k->edge_s[b],
                       (unsigned long long)n);
        }
        buf_printf(out, "hearth_%s_bucket{le=\"+Inf\"} %llu\nhearth_%s_sum ", k->name,
                   (unsigned long long)h->n, k->name);
        js_put_real(out, h->sum_s);
        buf_printf(out, "\nhearth_%s_count %llu\n", k->name, (unsigned long long)h->n);
    }
}

static void put_http(const struct metrics *m, struct buf *out)
{
    head(out, "http_requests_total", "counter", "Requests by route and status.");
    for (int i = 0; i < METRICS_PATHS && m->http[i].path != NULL; i++) {
        for (int k = 0; k < METRICS_CODES && m->http[i].code[k].n > 0; k++) {
            buf_printf(out, "hearth_http_requests_total{path=\"%s\",code=\"%d\"} %llu\n",
                       m->http[i].path, m->http[i].code[k].status,
                       (unsigned long long)m->http[i].code[k].n);
        }
    }
}

static void put_finish(const struct metrics *m, struct buf *out)
{
    static const char *const names[] = {
        "none", "stop", "length", "cancelled", "timeout", "error"
    };
    head(out, "answers_total", "counter",
         "Requests that the engine took, by the reason of their end; cancelled: the client left, "
         "or the service ended.");
    for (int i = 1; i <= HEARTH_FINISH_ERROR; i++) {
        buf_printf(out, "hearth_answers_total{reason=\"%s\"} %llu\n", names[i],
                   (unsigned long long)m->n_finish[i]);
    }
}

static void put_cancelled(const struct metrics *m, struct buf *out)
{
    const struct {
        const char *reason;
        uint64_t n;
    } rows[] = { { "client", m->n_client_gone },
                 { "timeout", m->n_finish[HEARTH_FINISH_TIMEOUT] },
                 { "service", m->n_broken } };
    head(out, "cancelled_total", "counter",
         "Requests under way that were given up: the client left, the answer took too long, or the "
         "service ended.");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        buf_printf(out, "hearth_cancelled_total{reason=\"%s\"} %llu\n", rows[i].reason,
                   (unsigned long long)rows[i].n);
    }
}

static void put_plan(const struct hearth_plan *p, struct buf *out)
{
    head(out, "model_memory_bytes", "gauge", "The parts of the memory plan.");
    for (int i = 0; i < p->n_part; i++) {
        buf_printf(out, "hearth_model_memory_bytes{kind=\"%s\"} %llu\n", p->part[i].name,
                   (unsigned long long)p->part[i].bytes);
    }
}

/* Decode steps by the number of conversations in them, a range of them to a line. */
static void put_batch(const struct hearth_stats *s, struct buf *out)
{
    head(out, "decode_steps_total", "counter",
         "Steps that generated, by conversations in the batch.");
    for (int i = 0; i < HEARTH_BATCH_BUCKETS; i++) {
        const int from = i > 0 ? (1 << (i - 1)) + 1 : 1;
        buf_printf(out, "hearth_decode_steps_total{batch=\"%d", from);
        if (i + 1 == HEARTH_BATCH_BUCKETS) {
            buf_add_char(out, '+');
        } else if (from < 1 << i) {
            buf_printf(out, "-%d", 1 << i);
        }
        buf_printf(out, "\"} %llu\n", (unsigned long long)s->step_batch[i]);
    }
}

static void put_engine(const struct hearth_stats *s, struct buf *out)
{
    gauge(out, "requests_running", "Requests being answered.", s->n_running);
    gauge(out, "requests_queued", "Requests that are prepared or wait for the engine.",
          s->n_queued);
    counter(out, "requests_total", "Requests given to the engine.", s->n_request);
    counter(out, "requests_done_total", "Requests answered to their end.", s->n_done);
    counter(out, "requests_cancelled_total", "Requests cancelled.", s->n_cancelled);
    counter(out, "requests_refused_total",
            "Requests that the engine refused: queue full, or not possible.", s->n_refused);
    counter(out, "requests_failed_total", "Requests that failed.", s->n_failed);
    counter(out, "prompt_tokens_total", "Prompt tokens computed.", s->n_prompt_token);
    counter(out, "generation_tokens_total", "Tokens generated.", s->n_generated_token);
    counter(out, "steps_total", "Steps of the engine.", s->n_step);
    counter(out, "steps_abandoned_total",
            "Steps not computed to their end: nobody wanted them any more.", s->n_step_abandoned);
    counter(out, "guessed_tokens_total", "Tokens computed ahead because they might come next.",
            s->n_guessed_token);
    counter(out, "accepted_tokens_total", "Tokens computed ahead that did come next.",
            s->n_accepted_token);
    put_batch(s, out);
    gauge(out, "kv_cache_usage_ratio", "Share of the cache's pages in use.",
          s->kv_pages > 0 ? (double)s->kv_pages_used / (double)s->kv_pages : 0.0);
    gauge(out, "kv_cache_pages", "Pages of the cache.", (double)s->kv_pages);
    gauge(out, "heartbeat_age_seconds", "Since the engine last showed life.",
          (double)s->heartbeat_age_us / 1e6);
    gauge(out, "memory_planned_bytes", "What the plan says this process takes.",
          (double)s->memory_planned_bytes);
    gauge(out, "memory_peak_bytes", "Most resident memory so far.", (double)s->rss_peak_bytes);
}

/* One line a scope; those that the kernel does not tell are left out. */
static void put_scopes(const struct psi *p, bool is_stall, struct buf *out)
{
    const struct psi_scope *scopes[] = { &p->box, &p->group };
    static const char *const names[] = { "box", "cgroup" };
    for (int i = 0; i < 2; i++) {
        const struct psi_scope *s = scopes[i];
        if (is_stall && s->is_told) {
            buf_printf(out, "hearth_memory_pressure_ratio{of=\"%s\",kind=\"some\"} ", names[i]);
            js_put_real(out, s->some_percent / 100.0);
            buf_printf(out, "\nhearth_memory_pressure_ratio{of=\"%s\",kind=\"full\"} ", names[i]);
            js_put_real(out, s->full_percent / 100.0);
            buf_add_char(out, '\n');
        } else if (!is_stall && s->left_bytes != UINT64_MAX) {
            buf_printf(out, "hearth_memory_left_bytes{of=\"%s\"} %llu\n", names[i],
                       (unsigned long long)s->left_bytes);
        }
    }
}

static void put_pressure(const struct metrics *m, const struct pressure *p, struct buf *out)
{
    gauge(out, "memory_pressure_state",
          "Whether others eat the memory: 0 no, 1 warned, 2 new requests are refused.",
          (double)p->state);
    head(out, "memory_pressure_ratio", "gauge",
         "Share of the last 10 s in which some or all programs stood still, waiting for memory.");
    put_scopes(&p->last, true, out);
    head(out, "memory_left_bytes", "gauge",
         "Memory that can be had; page cache counts as free, but for a mapped model's.");
    put_scopes(&p->last, false, out);
    counter(out, "memory_warnings_total", "Times that memory got short.", p->n_warning);
    counter(out, "memory_sheddings_total", "Times that new requests were refused for it.",
            p->n_shedding);
    counter(out, "requests_shed_total", "Requests refused since memory was short.", m->n_shed);
}

void metrics_put(const struct metrics *m, const struct metrics_now *now, struct buf *out)
{
    head(out, "build_info", "gauge", "The program.");
    buf_printf(out, "hearth_build_info{version=\"%s\"} 1\n", hearth_version());
    if (now->info != NULL) {
        head(out, "model_info", "gauge", "The model that is served.");
        buf_add_str(out, "hearth_model_info{model=");
        js_put_string(out, view_of(now->model_id), false);
        buf_printf(out, ",type=\"%s\"} 1\n", now->info->type);
    }
    gauge(out, "ready", "1 when requests are taken (as /readyz).", now->is_ready);
    gauge(out, "http_connections", "Open connections.", now->n_client);
    gauge(out, "memory_resident_bytes", "Resident memory now.", (double)os_rss_bytes());
    put_http(m, out);
    put_finish(m, out);
    put_cancelled(m, out);
    put_times(m, out);
    if (now->pressure != NULL) {
        put_pressure(m, now->pressure, out);
    }
    if (now->stats != NULL) {
        put_engine(now->stats, out);
        put_plan(now->plan, out);
    }
}
