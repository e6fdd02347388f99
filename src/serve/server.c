/* server - the service: network, model and their life
 *
 * The port is bound first, so that a mistake shows at once; then the model is loaded on a thread of
 * its own while the loop already answers /healthz and tells everybody else to come again. When the
 * model is there, the loop makes its jobs and requests are taken.
 *
 * The end has three steps. Asked to stop, the service refuses new requests, still on its open port,
 * and answers that are under way may go on for the grace time. Then the port is closed, and whoever
 * still waits is told so, in the form that its client understands. A last short while lets the
 * bytes leave. A second server_stop skips the waiting.
 *
 * Once a second it looks whether others eat the memory (pressure.c), and whether a packed image is
 * still the one that was loaded.
 *
 * Rejected: loading before binding (a port in use would be found after minutes), one thread per
 * connection (their number is the client's choice), closing the port first (a balancer that probes
 * could not tell a service that ends from one that fell over).
 *
 * Next: cmd/cmd_serve.c. */
#include "serve/server.h"

#include "base/cell.h"
#include "base/event.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/psi.h"
#include "base/team.h"
#include "serve/api.h"
#include "serve/http.h"
#include "serve/job.h"
#include "serve/keys.h"
#include "serve/loop.h"
#include "serve/prep.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define HEADER_MAX_BYTES 32768 /* of all headers of a request, and the request line */
#define HEAD_US          10000000
#define BODY_US          60000000
#define STEP_US          10000000 /* a client that stands still holds the room of its body */
#define IDLE_US          75000000 /* longer than the idle time of common proxies */
#define WRITE_US         30000000
#define TICK_US          1000000
#define FLUSH_US         1000000 /* for the last bytes */
#define BUDGET_BODIES    4       /* what clients make the service hold, in largest bodies */
#define PREP_BODIES      3       /* the copies of a text while it is parsed */
#define OTHER_FILES      64      /* that the service has open beside its clients */
#define CLIENT_BYTES     98304   /* of a connection: buffer, request, job, small reply */

enum phase { PHASE_LOADING, PHASE_SERVING, PHASE_ENDING, PHASE_FLUSHING };

struct server {
    struct server_params params;
    struct loop *loop;
    struct loop_watch watch; /* of event_fd */
    int event_fd;            /* set by server_stop and by the loading thread */
    struct cell n_stop;      /* calls of server_stop */
    struct cell is_loaded;   /* model or load_error may be read */
    struct keys *keys;
    struct budget budget;
    struct api api;
    struct http *http;
    struct jobs *jobs;
    struct thread *loader;
    struct hearth_model *model; /* owner: the loading thread until is_loaded */
    enum err load_result;
    char load_error[ERR_TEXT_MAX];
    enum phase phase;
    uint64_t until_us; /* ENDING, FLUSHING */
    uint64_t watch_us; /* when memory and file are looked at again; 0: not yet at all */
    bool is_changed;   /* the file, when it was looked at last */
};

/* --- loading ---------------------------------------------------------------------------------- */

static void load(void *arg)
{
    struct server *s = arg;
    s->load_result = (enum err)hearth_model_open(s->params.box, s->params.model_path,
                                                 &s->params.model, &s->model);
    if (s->load_result != ERR_OK) {
        snprintf(s->load_error, sizeof s->load_error, "%s", hearth_error());
    }
    cell_set(&s->is_loaded, 1);
    event_set(s->event_fd);
}

/* The loading thread is through. */
static enum err take_model(struct server *s)
{
    thread_join(s->loader);
    s->loader = NULL;
    REQUIRE(s->load_result == ERR_OK, s->load_result, "%s", s->load_error);
    const int n_job_max = s->params.n_client_max;
    const struct jobs_parts parts = { s->loop, s->model, s->params.model_id, &s->api.metrics,
                                      &s->budget };
    TRY(jobs_open(&s->jobs, &parts, n_job_max));
    api_set_model(&s->api, s->model, s->jobs, &s->params.plan);
    s->phase = s->phase == PHASE_LOADING ? PHASE_SERVING : s->phase; /* it may be ending */
    if (s->params.report != NULL) {
        s->params.report(s->params.report_arg, s, 1);
    }
    return ERR_OK;
}

/* --- memory that others take ------------------------------------------------------------------ */

static void tell_pressure(const struct pressure *p, enum pressure_state before)
{
    const bool is_worse = p->state > before;
    log_event(is_worse || before == PRESSURE_SHEDDING ? LOG_WARN : LOG_INFO, "serve",
              "msg=\"%s: %s\"",
              p->state == PRESSURE_SHEDDING ? "memory is short, new requests are refused"
              : before == PRESSURE_SHEDDING ? "memory is short no more, requests are taken again"
              : p->state == PRESSURE_WARNED ? "memory gets short"
                                            : "memory is short no more",
              p->text);
}

static void watch_memory(struct server *s, uint64_t now_us)
{
    struct pressure *p = &s->api.pressure;
    struct psi sample;
    psi_read(&sample, s->params.psi_root != NULL ? s->params.psi_root : "");
    if (s->watch_us == 0) {
        pressure_begin(p, s->params.plan.mapped_bytes, now_us);
        if (!sample.box.is_told) {
            log_event(LOG_WARN, "serve",
                      "msg=\"this kernel does not tell whether programs wait for memory "
                      "(/proc/pressure/memory): only MemAvailable is watched\"");
        }
    }
    const enum pressure_state before = p->state;
    if (pressure_step(p, &sample, now_us)) {
        tell_pressure(p, before);
        if (p->state == PRESSURE_SHEDDING) {
            os_trim_heap(); /* what was freed helps others more */
        }
    }
}

/* --- the file that weights are in ------------------------------------------------------------- */

static void watch_file(struct server *s)
{
    struct hearth_stats now = { .size = sizeof now };
    const char *draft = s->params.model.draft;
    hearth_model_get_stats(s->model, &now);
    if (!now.is_ready != s->is_changed) {
        s->is_changed = !now.is_ready;
        log_event(s->is_changed ? LOG_ERROR : LOG_WARN, "serve", "msg=\"%s%s%s: %s\"",
                  s->params.model_path, draft != NULL ? " or " : "", draft != NULL ? draft : "",
                  s->is_changed
                      ? "the packed image was changed while it is in use; requests are refused"
                      : "the packed image is as it was, requests are taken again");
    }
}

/* Once a second, from when the model is there. */
static void watch(struct server *s, uint64_t now_us)
{
    if (s->jobs != NULL && now_us >= s->watch_us) {
        watch_memory(s, now_us);
        watch_file(s);
        s->watch_us = now_us + TICK_US;
    }
}

/* --- ending ----------------------------------------------------------------------------------- */

static void begin_end(struct server *s, uint64_t now_us)
{
    log_event(LOG_INFO, "serve", "msg=\"ending\" running=%d", jobs_count(s->jobs));
    s->phase = PHASE_ENDING;
    s->until_us = now_us + s->params.grace_us;
    s->api.is_stopping = true;
}

static void begin_flush(struct server *s, uint64_t now_us)
{
    if (jobs_count(s->jobs) > 0) {
        struct refusal why;
        (void)refusal_set(&why, 503, "service_ending", NULL,
                          "the service is ending and the answer is not complete");
        why.retry_ms = 1000;
        log_event(LOG_WARN, "serve", "msg=\"answers were cut by the end of the service\" n=%d",
                  jobs_count(s->jobs));
        jobs_break(s->jobs, &why);
    }
    http_quiesce(s->http);
    s->phase = PHASE_FLUSHING;
    s->until_us = now_us + FLUSH_US;
}

/* One turn of the life; true when the service is over. */
static bool step(struct server *s, uint64_t now_us)
{
    const uint64_t n_stop = cell_get(&s->n_stop);
    if (n_stop > 0 && s->phase < PHASE_ENDING) {
        begin_end(s, now_us);
    }
    const bool is_busy = jobs_count(s->jobs) > 0 || http_n_reply(s->http) > 0;
    if (s->phase == PHASE_ENDING && (!is_busy || now_us >= s->until_us || n_stop > 1)) {
        begin_flush(s, now_us);
    }
    return s->phase == PHASE_FLUSHING && (http_n_client(s->http) == 0 || now_us >= s->until_us);
}

enum err server_run(struct server *s)
{
    for (;;) {
        if (s->loader != NULL && cell_get(&s->is_loaded) != 0) {
            TRY(take_model(s));
        }
        const uint64_t now_us = os_now_us();
        if (step(s, now_us)) {
            return ERR_OK;
        }
        if (s->jobs != NULL) {
            jobs_run(s->jobs, now_us);
        }
        watch(s, now_us);
        uint64_t wait_us = http_run(s->http);
        wait_us = wait_us < TICK_US ? wait_us : TICK_US;
        if (s->phase >= PHASE_ENDING && s->until_us > now_us && s->until_us - now_us < wait_us) {
            wait_us = s->until_us - now_us;
        }
        TRY(loop_wait(s->loop, wait_us));
    }
}

void server_stop(struct server *s)
{
    cell_add(&s->n_stop, 1);
    event_set(s->event_fd);
}

static void event_ready(struct loop_watch *w, uint32_t events)
{
    (void)events;
    event_clear(w->fd); /* server_run looks at what changed */
}

/* --- opening ---------------------------------------------------------------------------------- */

uint64_t server_extra_bytes(const struct server_params *p)
{
    const uint64_t budget = BUDGET_BODIES * p->body_max_bytes;
    return budget + budget / JOB_ANSWER_PART /* an answer on its way from its parts to the reply */
           + PREP_BODIES * p->body_max_bytes + PREP_SCRATCH_MAX + PREP_DONE_MAX +
           (uint64_t)p->n_client_max * CLIENT_BYTES;
}

/* Connections that cannot be accepted would wait without a word. */
static enum err check_files(int n_client)
{
    const rlim_t wanted = (rlim_t)(HTTP_FILES_MAX(n_client) + OTHER_FILES);
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= wanted) {
        return ERR_OK;
    }
    REQUIRE(r.rlim_max >= wanted, ERR_LIMIT,
            "%d clients need %llu open files, and %llu are allowed here: raise the limit (ulimit "
            "-Hn), or lower --max-clients",
            n_client, (unsigned long long)wanted, (unsigned long long)r.rlim_max);
    r.rlim_cur = wanted;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &r) == 0, ERR_IO, "cannot raise the limit of open files: %s",
            strerror(errno));
    return ERR_OK;
}

static enum err open_parts(struct server *s)
{
    const struct server_params *p = &s->params;
    struct http_calls calls;
    TRY(check_files(p->n_client_max));
    if (p->key_file != NULL) {
        TRY(keys_open(&s->keys, p->key_file));
    }
    s->budget.max = BUDGET_BODIES * p->body_max_bytes;
    s->api.keys = s->keys;
    s->api.model_id = p->model_id;
    s->api.n_queue = p->model.n_queue;
    TRY(loop_open(&s->loop));
    TRY(event_open(&s->event_fd));
    s->watch = (struct loop_watch){ .fd = -1, .ready = event_ready };
    TRY(loop_add(s->loop, &s->watch, s->event_fd, LOOP_IN, 0));
    const struct http_params h = { .host = p->host,
                                   .port = p->port,
                                   .allows_remote = keys_count(s->keys) > 0,
                                   .header_max_bytes = HEADER_MAX_BYTES,
                                   .body_max_bytes = p->body_max_bytes,
                                   .budget = &s->budget,
                                   .n_client_max = p->n_client_max,
                                   .head_us = HEAD_US,
                                   .body_us = BODY_US,
                                   .step_us = STEP_US,
                                   .idle_us = IDLE_US,
                                   .write_us = WRITE_US };
    api_calls(&s->api, &calls);
    TRY(http_open(&s->http, s->loop, &h, &calls));
    s->api.http = s->http;
    if (p->report != NULL) {
        p->report(p->report_arg, s, 0);
    }
    return thread_start(&s->loader, "load", load, s);
}

enum err server_open(struct server **out, const struct server_params *p)
{
    struct server *s = mem_alloc(sizeof *s);
    REQUIRE(s != NULL, ERR_MEMORY, "no memory for a server");
    s->params = *p;
    s->event_fd = s->watch.fd = -1;
    const enum err e = open_parts(s);
    if (e != ERR_OK) {
        server_close(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

void server_close(struct server *s)
{
    if (s == NULL) {
        return;
    }
    s->api.is_stopping = true;
    http_close(s->http); /* ends all requests, which their jobs notice */
    s->http = NULL;
    jobs_close(s->jobs);
    thread_join(s->loader);
    hearth_model_close(s->model);
    if (s->loop != NULL) {
        loop_remove(s->loop, &s->watch);
    }
    loop_close(s->loop);
    event_close(s->event_fd);
    keys_close(s->keys);
    mem_free(s);
}

int server_port(const struct server *s)
{
    return http_port(s->http);
}

bool server_is_loading(const struct server *s)
{
    return s->loader != NULL;
}

const struct hearth_model *server_model(const struct server *s)
{
    return server_is_loading(s) ? NULL : s->model; /* it is the loading thread's until the join */
}
