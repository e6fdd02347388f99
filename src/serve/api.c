/* api - which request gets which answer
 *
 * One table of routes. A request passes the same gates in the same order: known path, known method,
 * asked from here (below), key, room. All of that needs the headers only, so who is refused is
 * refused before the body is read. Small answers are made here; what needs the model becomes a job.
 *
 * Asked from here: a service on loopback without keys trusts whoever reaches it, and a browser on
 * the same machine can be made to reach it by any page it shows. Two things give such a page away:
 * a Host that is not this machine (a name that was re-bound to 127.0.0.1) and an Origin that is not
 * the Host. Both are refused. With keys neither matters, since the page has no key.
 *
 * Health: /healthz says that the loop runs. /readyz says that the engine computed its check at the
 * start, that the packed image which weights are mapped or read from is as it was then, that the
 * engine has shown life within HEARTBEAT_MAX_US, that others leave memory enough (pressure.c), and
 * that the service is not ending. Each is looked at anew, so that it is ready again when the cause
 * has gone.
 *
 * Next: serve/server.c puts the parts together. */
#include "serve/api.h"

#include "base/js.h"
#include "base/os.h"
#include "serve/page.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define HEARTBEAT_MAX_US 2000000
#define REPLY_MAX        ((size_t)1 << 20)
#define RETRY_SOON_S     1
#define RETRY_LATE_S     ((uint32_t)(PRESSURE_EASE_US / 1000000))
#define CHANGED                                                                                    \
    "the packed image of the model, or of its draft model, was changed while it is in use, so "    \
    "answers could be wrong: hearth verify tells whether it is damaged, hearth pull --pack makes " \
    "it again; then start the service again. When the file is as it was, its time too, requests "  \
    "are taken again"

/* --- small answers ---------------------------------------------------------------------------- */

static void reply_json(struct http_req *r, int status, const struct buf *body)
{
    http_set_header(r, "Cache-Control", "no-store");
    http_reply(r, status, "application/json", buf_view(body));
}

/* Why requests are not taken, and when to ask again. */
struct unready {
    const char *why; /* stays for this turn */
    uint32_t retry_s;
};

/* Whether requests are taken; *why (may be NULL) is filled. */
static bool takes_requests(const struct api *a, struct unready *why)
{
    struct hearth_stats s = { .size = sizeof s };
    struct unready u = { NULL, RETRY_SOON_S };
    if (a->is_stopping) {
        u.why = "the service is ending";
    } else if (a->model == NULL) {
        u.why = "the model is being loaded";
    } else {
        hearth_model_get_stats(a->model, &s);
        if (!s.is_ready) {
            u = (struct unready){ CHANGED, RETRY_LATE_S };
        } else if (s.heartbeat_age_us > HEARTBEAT_MAX_US) {
            u.why = "the engine shows no life";
        } else if (a->pressure.state == PRESSURE_SHEDDING) {
            u = (struct unready){ a->pressure.text, RETRY_LATE_S };
        }
    }
    if (why != NULL) {
        *why = u;
    }
    return u.why == NULL;
}

static void get_health(struct api *a, struct http_req *r)
{
    struct buf b;
    (void)a;
    buf_init(&b, REPLY_MAX);
    buf_add_str(&b, "{\"status\":\"ok\"}");
    reply_json(r, 200, &b);
    buf_release(&b);
}

static void get_ready(struct api *a, struct http_req *r)
{
    struct unready u;
    const bool is_ready = takes_requests(a, &u);
    char retry[16];
    struct buf b;
    buf_init(&b, REPLY_MAX);
    buf_printf(&b, "{\"status\":\"%s\",\"reason\":", is_ready ? "ready" : "not ready");
    if (is_ready) {
        buf_add_str(&b, "null}");
    } else {
        js_put_string(&b, view_of(u.why), false);
        buf_add_char(&b, '}');
        snprintf(retry, sizeof retry, "%u", u.retry_s);
        http_set_header(r, "Retry-After", retry);
    }
    reply_json(r, is_ready ? 200 : 503, &b);
    buf_release(&b);
}

static void get_version(struct api *a, struct http_req *r)
{
    struct buf b;
    (void)a;
    buf_init(&b, REPLY_MAX);
    buf_printf(&b, "{\"version\":\"%s\"}", hearth_version());
    reply_json(r, 200, &b);
    buf_release(&b);
}

static void get_metrics(struct api *a, struct http_req *r)
{
    struct hearth_stats s = { .size = sizeof s };
    struct metrics_now now = { .model_id = a->model_id,
                               .n_client = http_n_client(a->http),
                               .is_ready = takes_requests(a, NULL) };
    struct buf b;
    buf_init(&b, REPLY_MAX);
    if (a->model != NULL) {
        hearth_model_get_stats(a->model, &s);
        s.n_queued += jobs_n_prep(a->jobs);
        now.pressure = &a->pressure;
        now.stats = &s;
        now.info = &a->info;
        now.plan = &a->plan;
    }
    metrics_put(&a->metrics, &now, &b);
    http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", buf_view(&b));
    buf_release(&b);
}

static void put_model(const struct api *a, struct buf *b)
{
    const struct hearth_model_info *i = &a->info;
    buf_add_str(b, "{\"id\":");
    js_put_string(b, view_of(a->model_id), false);
    buf_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"hearth\",\"meta\":{",
               (long long)a->since_s);
    buf_add_str(b, "\"name\":");
    js_put_string(b, view_of(i->name), false);
    buf_add_str(b, ",\"architecture\":");
    js_put_string(b, view_of(i->arch), false);
    buf_printf(b,
               ",\"type\":\"%s\",\"n_ctx\":%d,\"n_ctx_train\":%d,\"n_params\":%llu,\"size\":%llu,"
               "\"n_vocab\":%d,\"n_embd\":%d}}",
               i->type, i->n_ctx, i->n_ctx_train, (unsigned long long)i->n_param,
               (unsigned long long)i->file_bytes, i->n_vocab, i->n_embd);
}

static void get_models(struct api *a, struct http_req *r)
{
    struct buf b;
    buf_init(&b, REPLY_MAX);
    buf_add_str(&b, "{\"object\":\"list\",\"data\":[");
    if (a->model != NULL) {
        put_model(a, &b);
    }
    buf_add_str(&b, "]}");
    reply_json(r, 200, &b);
    buf_release(&b);
}

#define MODELS_PREFIX "/v1/models/"

static void get_model(struct api *a, struct http_req *r)
{
    const char *name = http_path(r) + strlen(MODELS_PREFIX);
    if (a->model == NULL || strcmp(name, a->model_id) != 0) {
        struct refusal why;
        (void)refusal_set(&why, 404, "model_not_found", "model",
                          "model \"%.100s\" is not served here; /v1/models lists what is", name);
        job_refuse(r, &why);
        return;
    }
    struct buf b;
    buf_init(&b, REPLY_MAX);
    put_model(a, &b);
    reply_json(r, 200, &b);
    buf_release(&b);
}

/* --- what becomes a job ----------------------------------------------------------------------- */

static void post_chat(struct api *a, struct http_req *r)
{
    jobs_start(a->jobs, r, PARAMS_CHAT);
}

static void post_completion(struct api *a, struct http_req *r)
{
    jobs_start(a->jobs, r, PARAMS_COMPLETION);
}

static void post_tokenize(struct api *a, struct http_req *r)
{
    jobs_start(a->jobs, r, PARAMS_TOKENIZE);
}

static void post_detokenize(struct api *a, struct http_req *r)
{
    jobs_start(a->jobs, r, PARAMS_DETOKENIZE);
}

/* --- routes ----------------------------------------------------------------------------------- */

static const struct route {
    const char *method;
    const char *path;
    void (*answer)(struct api *a, struct http_req *r);
    bool is_open;   /* needs no key */
    bool is_job;    /* needs the model */
    bool is_prefix; /* path is the beginning */
} routes[] = {
    { "GET", "/healthz", get_health, true, false, false },
    { "GET", "/livez", get_health, true, false, false },
    { "GET", "/readyz", get_ready, true, false, false },
    { "GET", "/health", get_ready, true, false, false },
    { "GET", "/metrics", get_metrics, false, false, false },
    { "GET", "/version", get_version, false, false, false },
    { "GET", "/v1/models", get_models, false, false, false },
    { "GET", MODELS_PREFIX, get_model, false, false, true },
    { "POST", "/v1/chat/completions", post_chat, false, true, false },
    { "POST", "/v1/completions", post_completion, false, true, false },
    { "POST", "/tokenize", post_tokenize, false, true, false },
    { "POST", "/detokenize", post_detokenize, false, true, false },
};
#define N_ROUTE (sizeof routes / sizeof routes[0])

static const struct route *find_route(const char *path)
{
    for (size_t i = 0; i < N_ROUTE; i++) {
        const struct route *t = &routes[i];
        if (t->is_prefix ? strncmp(path, t->path, strlen(t->path)) == 0
                         : strcmp(path, t->path) == 0) {
            return t;
        }
    }
    return NULL;
}

static void reply_page(struct http_req *r, const struct page_file *f)
{
    const char *have = http_header(r, "If-None-Match");
    const bool is_same = have != NULL && strcmp(have, f->etag) == 0;
    const char *takes = http_header(r, "Accept-Encoding");
    const bool is_gzip = takes != NULL && strstr(takes, "gzip") != NULL &&
                         strstr(takes, "gzip;q=0") == NULL; /* a weight means: rather not */
    http_set_header(r, "Content-Security-Policy", page_csp());
    http_set_header(r, "Vary", "Accept-Encoding");
    http_set_header(r, "X-Content-Type-Options", "nosniff");
    http_set_header(r, "Referrer-Policy", "no-referrer");
    http_set_header(r, "ETag", f->etag);
    http_set_header(r, "Cache-Control",
                    f->is_immutable ? "public, max-age=31536000, immutable" : "no-cache");
    if (is_gzip && !is_same) {
        http_set_header(r, "Content-Encoding", "gzip");
    }
    http_reply_static(r, is_same ? 304 : 200, f->type,
                      is_same   ? (struct view){ NULL, 0 }
                      : is_gzip ? f->gzip
                                : f->bytes);
}

/* --- gates ------------------------------------------------------------------------------------ */

/* Whether "host[:port]" names this machine's loopback. */
static bool is_local(const char *host)
{
    const size_t n =
        host[0] == '[' ? strcspn(host, "]") + (strchr(host, ']') != NULL) : strcspn(host, ":");
    const struct view name = { host, n };
    const bool is_v4 = n >= 7 && strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") >= n;
    return is_v4 || view_is(name, "[::1]") || (n == 9 && strncasecmp(host, "localhost", 9) == 0);
}

static bool is_asked_from_here(const struct api *a, const struct http_req *r)
{
    const char *host = http_header(r, "Host");
    const char *origin = http_header(r, "Origin");
    if (keys_count(a->keys) > 0 || http_is_remote(a->http)) {
        return true;
    }
    if (host != NULL && !is_local(host)) {
        return false;
    }
    const char *from = origin != NULL ? strstr(origin, "://") : NULL;
    return origin == NULL || (from != NULL && host != NULL && strcasecmp(from + 3, host) == 0);
}

static bool has_key(const struct api *a, const struct http_req *r)
{
    const char *given = http_header(r, "Authorization");
    if (keys_count(a->keys) == 0) {
        return true;
    }
    if (given == NULL || strncasecmp(given, "Bearer ", 7) != 0) {
        return false;
    }
    given += 7;
    while (*given == ' ') {
        given++;
    }
    return keys_check(a->keys, view_of(given));
}

/* --queue bounds all that wait, in preparation too, beside those whom the engine takes at once. */
static enum err check_room(struct api *a, struct refusal *why)
{
    struct hearth_stats s = { .size = sizeof s };
    struct unready u;
    why->status = 0;
    if (a->is_stopping || a->jobs == NULL) {
        (void)takes_requests(a, &u);
        (void)refusal_set(why, 503, a->is_stopping ? "service_ending" : "not_ready", NULL, "%s",
                          u.why != NULL ? u.why : "starting");
        why->retry_ms = RETRY_SOON_S * 1000;
        return ERR_BUSY;
    }
    hearth_model_get_stats(a->model, &s);
    if (!s.is_ready) {
        (void)refusal_set(why, 503, "model_changed", NULL, "%s", CHANGED);
        why->retry_ms = RETRY_LATE_S * 1000;
        return ERR_BUSY;
    }
    if (a->pressure.state == PRESSURE_SHEDDING) {
        (void)refusal_set(why, 503, "memory_pressure", NULL,
                          "memory is short: %s; new requests are refused until that ends, those "
                          "under way go on; try again later",
                          a->pressure.text);
        why->retry_ms = PRESSURE_EASE_US / 1000;
        a->metrics.n_shed++;
        return ERR_BUSY;
    }
    const int n_wait = s.n_queued + jobs_n_prep(a->jobs);
    const int n_free = s.n_running < a->plan.n_parallel ? a->plan.n_parallel - s.n_running : 0;
    if (n_wait >= a->n_queue + n_free) {
        (void)refusal_set(why, 503, "queue_full", NULL,
                          "%d requests run and %d wait or are prepared: no more than %d are taken "
                          "together (--parallel %d and --queue %d); try again later",
                          s.n_running, n_wait, a->plan.n_parallel + a->n_queue, a->plan.n_parallel,
                          a->n_queue);
        why->retry_ms = 1000;
    }
    return why->status == 0 ? ERR_OK : ERR_BUSY;
}

/* All that the headers decide; why->status stays 0 when the request may go on. */
static void check_head(struct api *a, struct http_req *r, struct refusal *why)
{
    const char *path = http_path(r);
    const struct route *t = find_route(path);
    const bool is_page = t == NULL && page_find(path) != NULL;
    const char *method = t != NULL ? t->method : "GET";
    if (!is_asked_from_here(a, r)) {
        (void)refusal_set(
            why, 403, "forbidden", NULL,
            "this service answers this machine's own pages only: Host and Origin must "
            "name it (or set API keys)");
    } else if (t == NULL && !is_page) {
        (void)refusal_set(why, 404, "not_found", NULL, "there is no %.100s here", path);
    } else if (strcmp(http_method(r), method) != 0) {
        http_set_header(r, "Allow",
                        t != NULL && strcmp(method, "POST") == 0 ? "POST" : "GET, HEAD");
        (void)refusal_set(why, 405, "method_not_allowed", NULL, "%.100s takes %s", path, method);
    } else if (t != NULL && !t->is_open && !has_key(a, r)) {
        http_set_header(r, "WWW-Authenticate", "Bearer");
        (void)refusal_set(why, 401, "invalid_api_key", NULL,
                          "a valid API key is needed: Authorization: Bearer KEY");
    } else if (t != NULL && t->is_job) {
        (void)check_room(a, why);
    }
}

static void on_head(void *arg, struct http_req *r)
{
    struct api *a = arg;
    struct refusal why = { 0 };
    check_head(a, r, &why);
    if (why.status != 0) {
        job_refuse(r, &why);
    }
}

static void on_request(void *arg, struct http_req *r)
{
    struct api *a = arg;
    const struct route *t = find_route(http_path(r));
    const struct page_file *f = t == NULL ? page_find(http_path(r)) : NULL;
    if (f != NULL) {
        reply_page(r, f);
        return;
    }
    struct refusal why = { 0 };
    if (t != NULL && t->is_job && check_room(a, &why) != ERR_OK) { /* it was there for the head */
        job_refuse(r, &why);
    } else if (t != NULL) {
        t->answer(a, r);
    }
}

static void on_half_closed(void *arg, struct http_req *r)
{
    struct api *a = arg;
    jobs_half_closed(a->jobs, r);
}

static void on_drained(void *arg, struct http_req *r)
{
    struct api *a = arg;
    if (a->jobs != NULL) {
        jobs_drained(a->jobs, r);
    }
}

static void on_end(void *arg, struct http_req *r, bool is_complete)
{
    struct api *a = arg;
    const struct route *t = find_route(http_path(r));
    const int status = http_status(r);
    (void)is_complete;
    metrics_http(&a->metrics, t != NULL ? t->path : "other", status != 0 ? status : 499);
    if (a->jobs != NULL) {
        jobs_gone(a->jobs, r);
    }
}

void api_calls(struct api *a, struct http_calls *out)
{
    *out = (struct http_calls){ .arg = a,
                                .head = on_head,
                                .request = on_request,
                                .half_closed = on_half_closed,
                                .drained = on_drained,
                                .end = on_end };
}

void api_set_model(struct api *a, struct hearth_model *model, struct jobs *jobs,
                   const struct hearth_plan *plan)
{
    a->model = model;
    a->jobs = jobs;
    a->since_s = os_wall_s();
    a->info.size = sizeof a->info;
    if (model != NULL) {
        hearth_model_get_info(model, &a->info);
        a->plan = *plan;
    }
}
