/* cmd_serve - `hearth serve`: the service on this box
 *
 * Opens the box, decides how many conversations fit at once when nobody said (eight, or half as
 * often as it takes until the plan fits) and then how long they may be (the default, or half ...,
 * which is said), and hands over to serve/server. Signals: SIGTERM and SIGINT end the service in
 * good order, a second one at once.
 *
 * Where even that does not fit, the nearest commands that do are told (nearest.c).
 *
 * What a person needs to know is printed on standard error: the address as soon as the port is
 * bound, and "ready" when the model answers. Standard output stays empty.
 *
 * Next: serve/server.c. */
#include "cmd/cmd_serve.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/os.h"
#include "cmd/nearest.h"
#include "cmd/open.h"
#include "serve/server.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PARALLEL_WISH 8
#define CTX_LEAST     512 /* tokens: below, hardly a conversation */

static struct server *running; /* for the signal handler */

static void on_signal(int sig)
{
    const int saved = errno;
    (void)sig;
    server_stop(running);
    errno = saved;
}

static void name_of(const char *model, char *out, size_t cap)
{
    const char *base = strrchr(model, '/');
    base = base != NULL ? base + 1 : model;
    size_t n = strlen(base);
    n = view_ends(view_of(base), VIEW(".gguf")) && n > 5 ? n - 5 : n;
    snprintf(out, cap, "%.*s", (int)(n < cap ? n : cap - 1), base);
}

/* One line on standard error; names come from outside, so it is made a clean one. */
static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)err_setv(ERR_OK, fmt, args);
    va_end(args);
    fprintf(stderr, "hearth: %s\n", err_text());
}

/* Fewer conversations at once, if with them nothing has to be read from the disk: that makes each
 * of them slower than waiting for its turn does. */
static void stay_in_memory(struct hearth_box *box, const char *path, struct hearth_model_params *p,
                           struct hearth_plan *plan)
{
    struct hearth_model_params fewer = *p;
    struct hearth_plan made = { .size = sizeof made, .step_disk_bytes = 1 };
    while (made.step_disk_bytes > 0 && fewer.n_parallel > 1) {
        fewer.n_parallel /= 2;
        if (hearth_plan_make(box, path, &fewer, &made) != HEARTH_OK) {
            return;
        }
    }
    if (made.step_disk_bytes == 0) {
        *p = fewer;
        *plan = made;
    }
}

/* The plan, with as many conversations as fit, up to the wish, and as long ones, unless a number is
 * given. What cannot be planned or does not fit is left to fail where all failures to load are
 * reported. */
static void make_plan(struct hearth_box *box, const char *path, struct hearth_model_params *p,
                      struct hearth_plan *plan)
{
    const bool has_parallel = p->n_parallel > 0;
    const bool has_ctx = p->n_ctx > 0;
    p->n_parallel = has_parallel ? p->n_parallel : PARALLEL_WISH;
    while (hearth_plan_make(box, path, p, plan) == HEARTH_OK && !plan->fits) {
        if (!has_parallel && p->n_parallel > 1) {
            p->n_parallel /= 2;
        } else if (!has_ctx && plan->n_ctx / 2 >= CTX_LEAST) {
            p->n_ctx = plan->n_ctx / 2;
        } else {
            return;
        }
    }
    if (plan->fits && plan->step_disk_bytes > 0 && !has_parallel) {
        stay_in_memory(box, path, p, plan);
    }
    if (plan->fits && !has_ctx && p->n_ctx > 0) {
        say("%d tokens of context, %d at once: more does not fit the %.1f MiB available (%s)",
            plan->n_ctx, plan->n_parallel, open_mib_down(plan->available_bytes),
            plan->available_from);
    }
}

struct report {
    const struct conf *c;
    const char *model_id;
    const struct hearth_plan *plan;
    uint64_t began_us;
};

static void report(void *arg, struct server *s, int is_ready)
{
    const struct report *r = arg;
    const char *host = r->c->host;
    const bool is_v6 = strchr(host, ':') != NULL;
    if (!is_ready) {
        running = s;
        say("http://%s%s%s:%d/ loading %s", is_v6 ? "[" : "", host, is_v6 ? "]" : "",
            server_port(s), r->model_id);
        return;
    }
    struct hearth_model_info info = { .size = sizeof info };
    hearth_model_get_info(server_model(s), &info);
    say("ready after %.2f s: %s, %s, %d tokens of context, %d at once; %.1f of %.1f MiB planned",
        (double)(os_now_us() - r->began_us) / 1e6, r->model_id, info.type, info.n_ctx,
        r->plan->n_parallel, open_mib_up(r->plan->total_bytes),
        open_mib_down(r->plan->available_bytes));
}

void cmd_serve_params(const struct conf *c, struct hearth_model_params *out)
{
    const struct server_params p = { .n_client_max = (int)c->max_clients,
                                     .body_max_bytes = (uint64_t)c->max_body_mib << 20 };
    open_params(c, out);
    out->n_queue = (int32_t)c->queue;
    out->extra_bytes = server_extra_bytes(&p);
    out->checks_all = 1; /* ready: a token went through all layers */
}

static void fill_near(const struct conf *c, bool is_tried, struct hearth_model_params *p)
{
    (void)is_tried;
    cmd_serve_params(c, p);
}

/* What would fit, behind the refusal of a plan that was made as small as nobody forbade. */
static void tell_nearest(struct hearth_box *box, const struct conf *c, const char *path,
                         const struct hearth_plan *plan)
{
    struct conf least = *c;
    least.ctx = plan->n_ctx;
    least.parallel = plan->n_parallel;
    nearest_tell(box, &least, path, plan, fill_near);
}

/* Closes the box. */
static int serve(const struct conf *c, const char *path, struct hearth_box *box)
{
    char model_id[128];
    name_of(c->model, model_id, sizeof model_id);
    struct report r = { c, model_id, NULL, os_now_us() };
    struct server_params p = { .host = c->host,
                               .port = (int)c->port,
                               .key_file = c->key_file,
                               .model_path = path,
                               .model_id = model_id,
                               .box = box,
                               .n_client_max = (int)c->max_clients,
                               .body_max_bytes = (uint64_t)c->max_body_mib << 20,
                               .grace_us = (uint64_t)c->grace_s * 1000000,
                               .report = report,
                               .report_arg = &r };
    const struct sigaction act = { .sa_handler = on_signal };
    cmd_serve_params(c, &p.model);
    make_plan(box, path, &p.model, &p.plan);
    r.plan = &p.plan;
    sigset_t both;
    sigset_t before;
    sigemptyset(&both);
    sigaddset(&both, SIGTERM);
    sigaddset(&both, SIGINT);
    sigprocmask(SIG_BLOCK, &both, &before); /* until `running` is set */
    struct server *s = NULL;
    enum err e = server_open(&s, &p);
    if (e == ERR_OK) {
        sigaction(SIGTERM, &act, NULL);
        sigaction(SIGINT, &act, NULL);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (e != ERR_OK) {
        hearth_box_close(box);
        return open_fail((hearth_status)e);
    }
    e = server_run(s);
    if (e == ERR_MEMORY && !p.plan.fits) {
        e = err_at(e,
                   "with %.1f MiB for clients (--max-body %lld, --max-clients %lld; lower values "
                   "need less)",
                   open_mib_up(p.model.extra_bytes), (long long)c->max_body_mib,
                   (long long)c->max_clients);
    }
    const int code = e == ERR_OK ? 0 : open_fail((hearth_status)e);
    if (server_is_loading(s)) {
        _exit(code); /* that thread uses what would be freed on the way out of main */
    }
    const struct sigaction usual = { .sa_handler = SIG_DFL };
    sigaction(SIGTERM, &usual, NULL);
    sigaction(SIGINT, &usual, NULL);
    server_close(s);
    if (e == ERR_MEMORY && !p.plan.fits) {
        tell_nearest(box, c, path, &p.plan);
    }
    hearth_box_close(box);
    return code;
}

int cmd_serve(const struct conf *c, const char *path)
{
    struct hearth_box *box = NULL;
    const hearth_status s = open_box(c, &box);
    if (s != HEARTH_OK) {
        return open_fail(s);
    }
    return serve(c, path, box);
}
