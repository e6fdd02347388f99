/* job - the life of a request that needs the model
 *
 *     body -> prep thread -> tokens -> engine -> events -> answer -> client
 *
 * A job is made when its body is complete, waits for the prep thread, is submitted, and is then
 * carried by two kinds of wake-ups: the engine has events, or the client took bytes. Events are
 * pulled only while the client keeps up: beyond HTTP_OUT_HIGH_BYTES they stay in the engine, which
 * then pauses that sequence alone.
 *
 * A client that leaves: its request ends (jobs_gone), and the engine's side is closed at once, or,
 * while the prep thread has the item, as soon as it comes back (JO-2).
 *
 * Anything that talks to the http side may end the request and thereby the job, so the job is taken
 * apart first, and the reply is the last thing done (finish).
 *
 * A stream with nothing to say for a while sends an SSE comment: proxies close silent connections.
 *
 * Next: serve/api.c, which decides what becomes a job. */
#include "serve/job.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "serve/answer.h"
#include "serve/prep.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define QUIET_US 15000000 /* a stream says something at least this often */

struct job {
    struct prep_item item; /* first: the prep thread gives it back */
    struct jobs *jobs;
    struct job *next;
    struct job *prev;
    struct http_req *http; /* NULL: the client left */
    bool is_in_prep;
    size_t n_held;                  /* bytes of the budget: for the body, then for the answer */
    struct hearth_request *request; /* NULL until submitted */
    struct answer answer;
    uint64_t begin_us;
    uint64_t sent_us;
    uint64_t prep_us;                     /* from the whole body to the engine */
    uint64_t token_us[HEARTH_CHOICE_MAX]; /* of the last token; 0: none yet */
};
static_assert(offsetof(struct job, item) == 0, "an item is its job");

struct jobs {
    struct jobs_parts parts;
    struct loop_watch engine_watch; /* each finds its jobs by container */
    struct loop_watch prep_watch;   /* likewise */
    struct prep *prep;
    struct job *first;
    int n;
    int n_max;
    int n_prep;
    struct buf out; /* what one wake-up of one job sends */
};

void job_refuse(struct http_req *r, const struct refusal *why)
{
    struct buf body;
    char text[32];
    buf_init(&body, (size_t)16 * ERR_TEXT_MAX);
    refusal_put(why, &body);
    log_event(LOG_INFO, "serve", "id=%s refused=%d code=%s", http_id(r), why->status,
              why->code != NULL ? why->code : "none");
    if (why->retry_ms > 0) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)(why->retry_ms + 999) / 1000);
        http_set_header(r, "Retry-After", text);
        snprintf(text, sizeof text, "%llu", (unsigned long long)why->retry_ms);
        http_set_header(r, "retry-after-ms", text);
    }
    if (why->is_final) {
        http_set_header(r, "x-should-retry", "false");
    }
    http_reply(r, why->status, "application/json", buf_view(&body));
    buf_release(&body);
}

/* --- the list --------------------------------------------------------------------------------- */

static void free_job(struct job *b)
{
    struct jobs *j = b->jobs;
    if (b->prev != NULL) {
        b->prev->next = b->next;
    } else {
        j->first = b->next;
    }
    if (b->next != NULL) {
        b->next->prev = b->prev;
    }
    j->n--;
    hearth_request_close(b->request);
    answer_release(&b->answer);
    prep_item_release(&b->item);
    budget_give(j->parts.budget, b->n_held);
    mem_free(b);
}

/* Takes the job apart and gives the request that is still to be answered, or NULL. */
static struct http_req *finish(struct job *b)
{
    struct http_req *r = b->http;
    if (r != NULL) {
        http_set_user(r, NULL);
    }
    free_job(b);
    return r;
}

static void refuse(struct job *b, const struct refusal *why)
{
    const struct refusal copy = *why;
    struct http_req *r = finish(b);
    if (r != NULL) {
        job_refuse(r, &copy);
    }
}

/* Ends an answer that cannot go on. */
static void break_off(struct job *b, const struct refusal *why)
{
    struct buf *out = &b->jobs->out;
    if (!b->answer.is_stream) {
        refuse(b, why);
        return;
    }
    buf_reset(out);
    answer_break(&b->answer, why, out);
    struct http_req *r = finish(b);
    if (http_write(r, buf_view(out))) {
        http_finish(r);
    } else {
        http_abort(r);
    }
}

/* --- from the engine -------------------------------------------------------------------------- */

static void count_event(struct job *b, const struct hearth_event *e)
{
    struct metrics *m = b->jobs->parts.metrics;
    const uint64_t now_us = os_now_us();
    if (e->kind == HEARTH_EVENT_END) {
        metrics_time(m, METRICS_REQUEST, now_us - b->begin_us);
        metrics_time(m, METRICS_QUEUE, e->queue_us);
        m->n_finish[e->finish]++;
        m->n_broken += e->finish == HEARTH_FINISH_CANCELLED;
        log_event(LOG_INFO, "serve", "id=%s prompt=%d generated=%d ms=%.1f finish=%d", b->answer.id,
                  e->n_prompt, e->n_generated, (double)(now_us - b->begin_us) / 1e3,
                  (int)e->finish);
        return;
    }
    if (e->kind != HEARTH_EVENT_TOKEN || e->choice < 0 || e->choice >= HEARTH_CHOICE_MAX) {
        return;
    }
    uint64_t *last_us = &b->token_us[e->choice];
    if (*last_us == 0) {
        metrics_time(m, METRICS_FIRST_TOKEN, now_us - b->begin_us);
    } else {
        metrics_time(m, METRICS_PER_TOKEN, now_us - *last_us);
    }
    *last_us = now_us;
}

static void say_too_large(const struct job *b, struct refusal *why)
{
    (void)refusal_set(why, 500, "answer_too_large", NULL,
                      "the answer takes more than %zu bytes, which is the most that is kept for "
                      "one: ask for a stream",
                      b->jobs->parts.budget->max / JOB_ANSWER_PART);
}

static void fail_answer(const struct job *b, const struct hearth_event *e, struct refusal *why)
{
    const char *error = e->error != NULL ? e->error : "the engine failed";
    if (e->finish == HEARTH_FINISH_CANCELLED) {
        (void)refusal_set(why, 503, "cancelled", NULL, "the service ended this answer");
    } else {
        log_event(LOG_ERROR, "serve", "id=%s msg=\"%s: %s\"", b->answer.id, b->jobs->parts.model_id,
                  error);
        (void)refusal_set(why, 500, "engine_error", NULL, "%s", error);
    }
}

/* The last event came: the answer is complete, or will never be. */
static void end_answer(struct job *b, const struct hearth_event *e)
{
    struct buf *out = &b->jobs->out;
    const bool is_stream = b->answer.is_stream;
    struct refusal why = { 0 };
    if (e->finish == HEARTH_FINISH_CANCELLED || e->finish == HEARTH_FINISH_ERROR) {
        fail_answer(b, e, &why);
        if (is_stream) {
            answer_break(&b->answer, &why, out);
        }
    } else if (!answer_take(&b->answer, e, out)) {
        say_too_large(b, &why);
    }
    struct http_req *r = finish(b);
    if (r == NULL) {
        return;
    }
    if (!is_stream && why.status != 0) {
        job_refuse(r, &why);
    } else if (!is_stream) {
        http_reply(r, 200, "application/json", buf_view(out));
        const size_t max = out->max;
        buf_release(out); /* the next answer may be small */
        buf_init(out, max);
    } else if (http_write(r, buf_view(out))) {
        http_finish(r);
    } else {
        http_abort(r);
    }
}

/* Takes from the budget what the answer's texts hold by now. */
static bool hold_answer(struct job *b, struct refusal *why)
{
    struct budget *budget = b->jobs->parts.budget;
    const size_t n = answer_bytes(&b->answer);
    if (n > budget->max / JOB_ANSWER_PART) {
        say_too_large(b, why);
        return false;
    }
    if (n > b->n_held && !budget_take(budget, n - b->n_held, 0)) {
        (void)refusal_set(why, 503, "out_of_memory", NULL,
                          "requests and answers under way hold all of the %zu bytes that this "
                          "service keeps for them; try again later",
                          budget->max);
        why->retry_ms = 1000;
        return false;
    }
    b->n_held = n > b->n_held ? n : b->n_held;
    return true;
}

/* Moves events to the client while it keeps up. The job may be gone afterwards. */
static void pump(struct job *b)
{
    struct jobs *j = b->jobs;
    struct hearth_event e = { .size = sizeof e };
    const bool is_stream = b->answer.is_stream;
    buf_reset(&j->out);
    while (!is_stream || http_pending(b->http) + j->out.n < HTTP_OUT_HIGH_BYTES) {
        if (hearth_next(b->request, 0, &e) != HEARTH_OK) {
            break;
        }
        e.queue_us += b->prep_us; /* for the client all of it is waiting */
        count_event(b, &e);
        if (e.kind == HEARTH_EVENT_END) {
            end_answer(b, &e);
            return;
        }
        struct refusal why = { 0 };
        if (e.kind == HEARTH_EVENT_CHOICE_END && e.finish == HEARTH_FINISH_ERROR) {
            fail_answer(b, &e, &why); /* an answer with a hole is none: the other choices end too */
        } else if (!answer_take(&b->answer, &e, &j->out)) {
            say_too_large(b, &why);
        }
        if (why.status != 0 || !hold_answer(b, &why)) {
            j->parts.metrics->n_finish[HEARTH_FINISH_ERROR]++;
            break_off(b, &why);
            return;
        }
    }
    if (is_stream && j->out.n > 0) {
        b->sent_us = os_now_us();
        if (!http_write(b->http, buf_view(&j->out))) {
            http_abort(b->http);
        }
    }
}

static void engine_ready(struct loop_watch *w, uint32_t events)
{
    struct jobs *j = (struct jobs *)(void *)((char *)w - offsetof(struct jobs, engine_watch));
    (void)events;
    hearth_fd_clear(j->parts.model);
    for (struct job *b = j->first, *next = NULL; b != NULL; b = next) {
        next = b->next; /* pump ends no other job than its own */
        if (b->request != NULL && b->http != NULL) {
            pump(b);
        }
    }
}

/* --- from the prep thread --------------------------------------------------------------------- */

static void submit(struct job *b)
{
    struct hearth_request_params *p = &b->item.params.request;
    p->tokens = b->item.ids;
    p->n_token = b->item.n_id;
    b->prep_us = os_now_us() - b->item.came_us;
    const hearth_status s = hearth_submit(b->jobs->parts.model, p, &b->request);
    if (s != HEARTH_OK) {
        struct refusal why;
        /* the other limits were looked at before: what is left is more choices than --parallel */
        (void)refusal_from(&why, (enum err)s, s == HEARTH_LIMIT ? "n" : NULL);
        refuse(b, &why);
        return;
    }
    answer_init(&b->answer, b->jobs->parts.model, b->jobs->parts.model_id, &b->item.params,
                http_id(b->http), b->jobs->parts.budget->max / JOB_ANSWER_PART);
    prep_item_release(&b->item);
    prep_item_init(&b->item, b->item.kind);
    if (b->answer.is_stream) {
        http_set_header(b->http, "Cache-Control", "no-cache");
        http_set_header(b->http, "X-Accel-Buffering", "no"); /* nginx would collect the stream */
        b->sent_us = os_now_us();
        http_stream(b->http, "text/event-stream");
    }
}

static void take_prepared(struct job *b)
{
    struct jobs *j = b->jobs;
    b->is_in_prep = false;
    j->n_prep--;
    budget_give(j->parts.budget, b->n_held); /* the body is gone, or goes below */
    b->n_held = 0;
    if (b->http == NULL) {
        free_job(b);
    } else if (b->item.why.status != 0) {
        refuse(b, &b->item.why);
    } else if (b->item.kind == PARAMS_CHAT || b->item.kind == PARAMS_COMPLETION) {
        if (cell_get(&b->item.client) != PREP_CLIENT_WAITS && !b->item.params.is_stream) {
            http_abort(b->http);
        } else {
            submit(b);
        }
    } else {
        struct buf reply = b->item.reply;
        b->item.reply = (struct buf){ 0 };
        http_reply(finish(b), 200, "application/json", buf_view(&reply));
        buf_release(&reply);
    }
}

static void prep_ready(struct loop_watch *w, uint32_t events)
{
    struct jobs *j = (struct jobs *)(void *)((char *)w - offsetof(struct jobs, prep_watch));
    struct prep_item *i = NULL;
    (void)events;
    while ((i = prep_pop(j->prep)) != NULL) {
        take_prepared((struct job *)(void *)i);
    }
}

/* --- from the http side ----------------------------------------------------------------------- */

void jobs_start(struct jobs *j, struct http_req *r, enum params_kind kind)
{
    struct refusal why;
    struct job *b = j->n < j->n_max ? mem_alloc(sizeof *b) : NULL;
    if (b == NULL) {
        (void)refusal_set(&why, 503, "queue_full", NULL,
                          "%d requests are under way, which is the most this service takes", j->n);
        why.retry_ms = 1000;
        job_refuse(r, &why);
        return;
    }
    *b = (struct job){ .jobs = j, .http = r, .begin_us = http_begin_us(r), .next = j->first };
    prep_item_init(&b->item, kind);
    b->n_held = http_take_body(r, &b->item.body);
    if (j->first != NULL) {
        j->first->prev = b;
    }
    j->first = b;
    j->n++;
    http_set_user(r, b);
    b->item.came_us = os_now_us();
    b->is_in_prep = prep_push(j->prep, &b->item);
    j->n_prep += b->is_in_prep;
    if (NEVER(!b->is_in_prep)) { /* its queue has room for all jobs */
        (void)refusal_set(&why, 503, "queue_full", NULL, "too many requests are being prepared");
        refuse(b, &why);
    }
}

void jobs_half_closed(struct jobs *j, struct http_req *r)
{
    (void)j;
    struct job *b = http_user(r);
    const bool may_stream =
        b != NULL && b->item.kind != PARAMS_TOKENIZE && b->item.kind != PARAMS_DETOKENIZE;
    if (may_stream && b->is_in_prep) { /* whether it is for a stream is known later */
        cell_set(&b->item.client, PREP_CLIENT_HALF_CLOSED);
    } else {
        http_abort(r);
    }
}

void jobs_drained(struct jobs *j, struct http_req *r)
{
    (void)j;
    struct job *b = http_user(r);
    if (b != NULL && b->request != NULL) {
        pump(b);
    }
}

void jobs_gone(struct jobs *j, struct http_req *r)
{
    struct job *b = http_user(r);
    if (b == NULL) {
        return;
    }
    j->parts.metrics->n_client_gone++;
    j->parts.metrics->n_finish[HEARTH_FINISH_CANCELLED] += b->request != NULL;
    http_set_user(r, NULL);
    b->http = NULL;
    cell_set(&b->item.client, PREP_CLIENT_GONE);
    if (!b->is_in_prep) {
        free_job(b);
    }
}

void jobs_run(struct jobs *j, uint64_t now_us)
{
    for (struct job *b = j->first, *next = NULL; b != NULL; b = next) {
        next = b->next;
        if (b->http != NULL && b->answer.is_stream && now_us > b->sent_us + QUIET_US) {
            b->sent_us = now_us;
            if (!http_write(b->http, VIEW(":\n\n"))) {
                http_abort(b->http);
            }
        }
    }
}

void jobs_break(struct jobs *j, const struct refusal *why)
{
    for (struct job *b = j->first, *next = NULL; b != NULL; b = next) {
        next = b->next;
        j->parts.metrics->n_broken += b->http != NULL;
        j->parts.metrics->n_finish[HEARTH_FINISH_CANCELLED] += b->request != NULL;
        if (b->is_in_prep) { /* answered now; the prep thread gives the rest back */
            struct http_req *r = b->http;
            b->http = NULL;
            cell_set(&b->item.client, PREP_CLIENT_GONE);
            if (r != NULL) {
                http_set_user(r, NULL);
                job_refuse(r, why);
            }
            continue;
        }
        break_off(b, why);
    }
}

/* --- opening ---------------------------------------------------------------------------------- */

enum err jobs_open(struct jobs **out, const struct jobs_parts *p, int n_max)
{
    struct jobs *j = mem_alloc(sizeof *j);
    REQUIRE(j != NULL, ERR_MEMORY, "no memory for requests");
    *j = (struct jobs){ .parts = *p,
                        .engine_watch = { .fd = -1, .ready = engine_ready },
                        .prep_watch = { .fd = -1, .ready = prep_ready },
                        .n_max = n_max };
    buf_init(&j->out, p->budget->max / JOB_ANSWER_PART);
    enum err e = prep_open(&j->prep, p->model, p->model_id, (size_t)n_max);
    e = e == ERR_OK ? loop_add(p->loop, &j->engine_watch, hearth_fd(p->model), LOOP_IN, 0) : e;
    e = e == ERR_OK ? loop_add(p->loop, &j->prep_watch, prep_fd(j->prep), LOOP_IN, 0) : e;
    if (e != ERR_OK) {
        jobs_close(j);
        return e;
    }
    *out = j;
    return ERR_OK;
}

void jobs_close(struct jobs *j)
{
    if (j == NULL) {
        return;
    }
    loop_remove(j->parts.loop, &j->engine_watch);
    loop_remove(j->parts.loop, &j->prep_watch);
    prep_close(j->prep); /* first: it may still be at work on an item */
    while (j->first != NULL) {
        free_job(j->first);
    }
    buf_release(&j->out);
    mem_free(j);
}

int jobs_count(const struct jobs *j)
{
    return j != NULL ? j->n : 0;
}

int jobs_n_prep(const struct jobs *j)
{
    return j != NULL ? j->n_prep : 0;
}
