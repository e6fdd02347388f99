/* http - requests and answers over HTTP/1.1
 *
 * libmicrohttpd parses; this file owns what is around it: when a connection sleeps, when its client
 * has left, and how long anything may take. The listening socket is http_listen's; whether a
 * request ends where all would say that it ends, http_frame decides. The library runs in external
 * mode: its epoll descriptor is one watch of our loop.
 *
 * A connection sleeps (is suspended) from the end of its request until there is something to send.
 * The library takes a sleeping descriptor out of its epoll set, and would not notice a client that
 * leaves. Therefore each descriptor has a second watch of ours, from the start of the connection to
 * its close callback:
 *   hang-up or error   the request ends at once;
 *   half-close alone   may be legal (the client only said that it will send no more): a request
 *                      without an answer yet ends; a stream sends an SSE comment, whose failure
 *                      comes back as an error and ends it; what is incomplete gets a second for
 *                      what is still on its way to the library.
 * The library's time-out knows inactivity only, so deadlines are ours, checked by http_run; what is
 * overdue gets 408 where nothing was sent yet, then shutdown(2), which the library sees as an end.
 *
 * Refusing early. A reply queued before the body makes the library close the connection, and a
 * close with unread bytes can destroy the refusal on its way. Small bodies are therefore read and
 * dropped before the reply; with others the connection lingers (http_linger).
 *
 * Chunks. The library takes LF alone for the end of a chunk's line, and shows nobody the line. What
 * comes behind a chunked body could have begun elsewhere for a proxy in front, so it is never read:
 * the answer to such a request is the last on its connection.
 *
 * Memory. A body's room is taken from the budget before it is read: so much as its length says, or,
 * for a chunked one, as it grows. Large ones leave a part of the budget to small ones and to
 * answers, so that a flood of uploads stops neither.
 *
 * Rejected: the library's own threads (a second place where state lives), its time-outs (above).
 *
 * Next: serve/api.c decides about requests. */
#include "serve/http.h"

#include "base/js.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "serve/http_frame.h"
#include "serve/http_linger.h"
#include "serve/http_listen.h"
#include "serve/refusal.h"

#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENT_RESERVE    32    /* connections beyond n_client_max before accepting stops */
#define CHECK_US          50000 /* deadlines are looked at this often */
#define STUCK_CHECKS      4 /* a body that stands still for so many while bytes of it are there */
#define LEFT_US           1000000 /* what a client that says no more has sent is read by then */
#define DISCARD_MAX_BYTES 65536   /* refused bodies up to this size are read before the reply */
#define WRITE_BYTES_PER_S 16384   /* slowest client that gets a long answer whole */
#define RUNS_MAX          8       /* turns of the library before others get theirs */
#define VALUE_MAX         400     /* bytes of a header value of ours */
#define BLOCK_BYTES       16384
#define SMALL_BODY_BYTES  65536 /* may take the last of the budget */

enum state { STATE_IDLE, STATE_HEAD, STATE_BODY, STATE_WORK, STATE_REPLY };

struct conn {
    struct loop_watch watch; /* first: the loop's handlers get it */
    struct http *http;
    struct conn *next, *prev;
    struct MHD_Connection *mhd;
    struct http_req *req; /* NULL between requests */
    enum state state;
    uint64_t start_us, deadline_us; /* deadline 0: none */
    bool is_suspended;
    bool is_half_closed;
    bool is_dead;        /* nothing more is wanted from it */
    bool lingers;        /* unread bytes are expected at its close */
    int n_stuck;         /* checks in a row with bytes to be read and none taken */
    const char *uri_end; /* of the request line, before the library decodes it */
    bool is_uri_bad;
};

struct header {
    const char *name;
    char value[VALUE_MAX];
};

struct http_req {
    struct conn *conn;
    const char *method, *path;
    struct buf body;
    size_t n_held;        /* bytes of the budget */
    bool is_body_refused; /* a reply exists before the body: the body is dropped */
    size_t n_dropped;
    size_t n_step;                 /* bytes of the body since its deadline was set */
    struct MHD_Response *response; /* made, not yet queued */
    int status;
    int n_header;
    struct header header[HTTP_HEADERS_MAX];
    bool is_stream, is_finished, wants_drained;
    struct buf out; /* bytes of the stream from out_at on wait */
    size_t out_at;
    bool has_ended; /* `end` was called (HT-1) */
    void *user;
    uint64_t begin_us;
    uint64_t extra_us; /* a long answer may take this much longer */
    bool is_last;      /* of its connection */
    char id[32];
};

struct http {
    struct http_params params;
    struct http_calls calls;
    struct loop *loop;
    struct MHD_Daemon *daemon;
    struct loop_watch watch; /* the library's epoll descriptor */
    struct http_listen listener;
    bool is_quiesced;
    bool needs_run;
    struct conn *conns; /* newest first */
    int n_conn;
    uint64_t check_us;
    struct http_linger linger;
};

/* --- ends ------------------------------------------------------------------------------------- */

static void end_request(struct http_req *r, bool is_complete)
{
    if (!r->has_ended) {
        r->has_ended = true;
        const struct http_calls *c = &r->conn->http->calls;
        c->end(c->arg, r, is_complete);
    }
}

static void wake(struct conn *c)
{
    if (c->is_suspended) {
        c->is_suspended = false;
        MHD_resume_connection(c->mhd);
    }
    c->http->needs_run = true;
}

static void sleep_now(struct conn *c)
{
    if (!c->is_suspended) {
        c->is_suspended = true;
        MHD_suspend_connection(c->mhd);
    }
}

/* Gives a connection up: its request ends, the library is made to close it. */
static void kill_conn(struct conn *c)
{
    if (c->is_dead) {
        return;
    }
    c->is_dead = true;
    c->deadline_us = 0;
    if (c->req != NULL) {
        end_request(c->req, false);
    }
    if (c->watch.fd >= 0) {
        shutdown(c->watch.fd, c->lingers ? SHUT_WR : SHUT_RDWR);
    }
    wake(c);
}

/* A deadline for what the client has yet to send. */
static void wait_for(struct conn *c, uint64_t us)
{
    c->deadline_us = os_now_us() + (c->is_half_closed && us > LEFT_US ? LEFT_US : us);
}

/* The same for more of a body: it must go on, and end. */
static void wait_for_body(struct http_req *r)
{
    const struct http_params *p = &r->conn->http->params;
    const uint64_t spent_us = os_now_us() - r->begin_us;
    const uint64_t left_us = spent_us < p->body_us ? p->body_us - spent_us : 0;
    wait_for(r->conn, left_us < p->step_us ? left_us : p->step_us);
    r->n_step = 0;
}

static void make_id(char id[32])
{
    uint8_t random[12];
    os_random(random, sizeof random);
    int n = snprintf(id, 32, "req_");
    for (size_t i = 0; i < sizeof random; i++) {
        n += snprintf(id + n, (size_t)(32 - n), "%02x", random[i]);
    }
}

/* Answers by hand on a connection whose request is incomplete, where the library takes no reply,
 * and gives it up. Nothing was sent on it for this request, so the bytes are in their place. */
static void refuse_by_hand(struct conn *c, const char *reason, const struct refusal *why)
{
    char id[32];
    struct buf body;
    struct buf all;
    buf_init(&body, 4096);
    buf_init(&all, 8192);
    make_id(id);
    refusal_put(why, &body);
    buf_printf(&all,
               "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
               "Connection: close\r\nx-request-id: %s\r\n\r\n",
               why->status, reason, body.n, c->req != NULL ? c->req->id : id);
    buf_add_view(&all, buf_view(&body));
    if (c->watch.fd >= 0 && !all.is_full) {
        const ssize_t n = send(c->watch.fd, all.p, all.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)n; /* a client that cannot even take this gets nothing */
    }
    buf_release(&body);
    buf_release(&all);
    kill_conn(c);
}

/* --- watching clients ------------------------------------------------------------------------- */

static void conn_ready(struct loop_watch *w, uint32_t events)
{
    struct conn *c = (struct conn *)(void *)w;
    if ((events & (LOOP_HUP | LOOP_ERR)) != 0) {
        kill_conn(c);
        return;
    }
    char first;
    if ((events & LOOP_IN) != 0 && c->state == STATE_IDLE &&
        recv(c->watch.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
        c->state = STATE_HEAD; /* unless the library has read it already */
        wait_for(c, c->http->params.head_us);
    }
    if ((events & LOOP_LEFT) == 0) {
        return;
    }
    c->is_half_closed = true;
    if (c->state == STATE_WORK) {
        kill_conn(c);
    } else if (c->state != STATE_REPLY) {
        wait_for(c, LEFT_US);
    } else if (c->req != NULL && c->req->is_stream && !c->req->is_finished) {
        (void)http_write(c->req, VIEW(":\n\n"));
    }
}

/* Who has to go for a new client: the oldest without a request; else the oldest that has not sent
 * its body or not taken its answer, since a few slow ones must not keep everybody out. */
static struct conn *least_wanted(const struct http *h)
{
    struct conn *idle = NULL;
    struct conn *slow = NULL;
    for (struct conn *c = h->conns; c != NULL; c = c->next) { /* the newest first */
        const bool is_idle = c->state == STATE_IDLE || c->state == STATE_HEAD;
        const bool is_slow =
            c->state == STATE_BODY || (c->state == STATE_REPLY && !c->req->is_stream);
        idle = is_idle && !c->is_dead ? c : idle;
        slow = is_slow && !c->is_dead ? c : slow;
    }
    return idle != NULL ? idle : slow;
}

static void conn_start(struct http *h, struct MHD_Connection *mhd, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (h->n_conn >= h->params.n_client_max) {
        struct conn *old = least_wanted(h);
        if (old != NULL) {
            kill_conn(old);
        }
    }
    struct conn *c = mem_alloc(sizeof *c);
    if (c == NULL || info == NULL) {
        mem_free(c);
        return; /* without a context the first request on it is refused */
    }
    *c = (struct conn){ .watch = { .fd = -1, .ready = conn_ready }, .http = h, .mhd = mhd };
    c->start_us = os_now_us();
    c->deadline_us = c->start_us + h->params.head_us;
    if (loop_add(h->loop, &c->watch, info->connect_fd, LOOP_IN | LOOP_LEFT, 1) != ERR_OK) {
        mem_free(c);
        return;
    }
    c->next = h->conns;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    h->conns = c;
    h->n_conn++;
    *context = c;
}

static void conn_end(struct http *h, struct conn *c)
{
    if (c->lingers && c->watch.fd >= 0) {
        http_linger_add(&h->linger, c->watch.fd, os_now_us());
    }
    loop_remove(h->loop, &c->watch);
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        h->conns = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    h->n_conn--;
    mem_free(c);
}

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *h = arg;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = NULL;
        conn_start(h, mhd, context);
    } else if (*context != NULL) {
        conn_end(h, *context);
        *context = NULL;
    }
}

/* --- requests --------------------------------------------------------------------------------- */

static void on_completed(void *arg, struct MHD_Connection *mhd, void **context,
                         enum MHD_RequestTerminationCode code)
{
    (void)arg;
    (void)mhd;
    struct http_req *r = *context;
    if (r == NULL) {
        return;
    }
    struct conn *c = r->conn;
    end_request(r, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    if (r->response != NULL) {
        MHD_destroy_response(r->response);
    }
    buf_release(&r->body);
    buf_release(&r->out);
    budget_give(c->http->params.budget, r->n_held);
    mem_free(r);
    c->req = NULL;
    c->state = STATE_IDLE;
    wait_for(c, c->http->params.idle_us);
    *context = NULL;
    if (c->http->is_quiesced) {
        kill_conn(c);
    }
}

static enum MHD_Result take_header(void *arg, enum MHD_ValueKind kind, const char *key,
                                   size_t n_key, const char *value, size_t n_value)
{
    (void)kind;
    http_frame_header(arg, (struct view){ key, n_key },
                      (struct view){ value != NULL ? value : "", n_value });
    return MHD_YES;
}

/* The address as it came. A zero byte in it, plain or as %00, would end the path for us and not for
 * a proxy in front: one that lets only some paths pass could be deceived. A blank would end it for
 * others. */
static void *on_uri(void *arg, const char *uri, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct conn *c = info != NULL ? info->socket_context : NULL;
    (void)arg;
    if (c != NULL) {
        c->uri_end = uri + strlen(uri);
        c->is_uri_bad = strstr(uri, "%00") != NULL || strchr(uri, ' ') != NULL;
    }
    return NULL; /* the request's context until begin_request makes one */
}

/* *n_body: what the client announces, UINT64_MAX for a chunked body. The library leaves the request
 * line and the headers where they came in, from the method on (seen in 0.9.75). */
static bool check_framing(struct conn *c, const char *method, const char *version,
                          struct refusal *why, uint64_t *n_body)
{
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    const struct view line = view_of(version);
    const uintptr_t skip = (uintptr_t)line.p - (uintptr_t)method;
    struct http_frame f = { .version = line, .is_bad = c->is_uri_bad || c->uri_end + 1 != version };
    if (size != NULL && skip < size->header_size) {
        f.block = (struct view){ method, size->header_size };
        f.end = line.p + line.n;
    }
    (void)MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, take_header, &f);
    if (!http_frame_check(&f, c->http->params.body_max_bytes, n_body, why)) {
        return false;
    }
    if (f.n_host == 0 && !view_is(line, "HTTP/1.0")) {
        (void)refusal_set(why, 400, "invalid_request", NULL, "there is no Host header");
        return false;
    }
    return true;
}

static void refuse(struct http_req *r, const struct refusal *why)
{
    struct buf body;
    buf_init(&body, 4096);
    refusal_put(why, &body);
    http_reply(r, why->status, "application/json", buf_view(&body));
    buf_release(&body);
}

/* Makes what the request holds of the budget at least n bytes. */
static bool hold(struct http_req *r, size_t n, size_t leave)
{
    if (n > r->n_held && !budget_take(r->conn->http->params.budget, n - r->n_held, leave)) {
        return false;
    }
    r->n_held = n > r->n_held ? n : r->n_held;
    return true;
}

static bool hold_body(struct http_req *r, size_t n)
{
    return hold(r, n, n > SMALL_BODY_BYTES ? r->conn->http->params.budget->max / 4 : 0);
}

static void say_no_room(const struct http_req *r, struct refusal *why)
{
    const struct budget *b = r->conn->http->params.budget;
    (void)refusal_set(why, 503, "queue_full", NULL,
                      "requests and answers under way hold %zu of the %zu bytes that this service "
                      "keeps for them; try again later",
                      b->used, b->max);
}

static void refuse_room(struct http_req *r)
{
    struct refusal why;
    say_no_room(r, &why);
    http_set_header(r, "Retry-After", "1");
    refuse(r, &why);
}

static enum MHD_Result queue_response(struct http_req *r)
{
    struct conn *c = r->conn;
    struct MHD_Response *response = r->response;
    r->response = NULL;
    c->state = STATE_REPLY;
    c->lingers = c->lingers || r->is_last; /* its client may have sent more */
    c->deadline_us = os_now_us() + c->http->params.write_us + r->extra_us;
    const enum MHD_Result ok = MHD_queue_response(c->mhd, (unsigned)r->status, response);
    MHD_destroy_response(response);
    return ok;
}

/* First call: the headers. */
static enum MHD_Result begin_request(struct conn *c, const char *url, const char *method,
                                     const char *version, void **context)
{
    struct http *h = c->http;
    struct http_req *r = mem_alloc(sizeof *r);
    if (r == NULL || c->is_dead) {
        mem_free(r);
        return MHD_NO;
    }
    r->conn = c;
    r->method = strcmp(method, "HEAD") == 0 ? "GET" : method;
    r->path = url;
    r->begin_us = os_now_us();
    buf_init(&r->body, h->params.body_max_bytes);
    buf_init(&r->out, HTTP_OUT_MAX_BYTES);
    make_id(r->id);
    *context = r;
    c->req = r;
    c->state = STATE_BODY;
    wait_for_body(r);
    struct refusal why = { 0 };
    uint64_t n_body = 0;
    const bool is_framed = check_framing(c, method, version, &why, &n_body);
    r->is_last = n_body == UINT64_MAX;
    h->calls.head(h->calls.arg, r);
    if (!is_framed && r->response == NULL) {
        refuse(r, &why);
    }
    if (r->response == NULL && n_body <= h->params.body_max_bytes) {
        buf_init(&r->body, (size_t)n_body); /* no more comes, so no more is taken */
        if (!hold_body(r, (size_t)n_body)) {
            refuse_room(r);
        }
    }
    if (r->response == NULL) {
        return MHD_YES;
    }
    r->is_body_refused = true;
    const bool is_small = n_body <= DISCARD_MAX_BYTES && is_framed &&
                          MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "Expect") == NULL;
    if (is_small) {
        return MHD_YES; /* the body is read and dropped, then the reply goes out */
    }
    c->lingers = true;
    return queue_response(r);
}

static void take_body(struct http_req *r, const char *bytes, size_t n)
{
    struct conn *c = r->conn;
    c->n_stuck = 0;
    r->n_step += n;
    if (r->n_step >= HTTP_STEP_BYTES) {
        wait_for_body(r);
    }
    if (r->is_body_refused) {
        r->n_dropped += n;
        if (r->n_dropped > DISCARD_MAX_BYTES) {
            kill_conn(c);
        }
        return;
    }
    size_t want = 2 * (r->body.n + n); /* a buf grows twofold at most */
    want = want < SMALL_BODY_BYTES ? SMALL_BODY_BYTES : want;
    struct refusal why;
    if (!hold_body(r, want < r->body.max ? want : r->body.max)) {
        say_no_room(r, &why);
        r->status = why.status;
        c->lingers = true;
        refuse_by_hand(c, "Service Unavailable", &why);
        return;
    }
    buf_add(&r->body, bytes, n);
    if (r->body.is_full && !c->is_dead) {
        (void)refusal_set(&why, 413, "body_too_large", NULL,
                          "the body has more than %zu bytes, which is the most that is taken",
                          r->body.max);
        r->status = why.status;
        c->lingers = true; /* on_access tells the library to close */
        refuse_by_hand(c, "Content Too Large", &why);
    }
}

static enum MHD_Result on_access(void *arg, struct MHD_Connection *mhd, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *n_upload, void **context)
{
    (void)arg;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct conn *c = info != NULL ? info->socket_context : NULL;
    struct http_req *r = *context;
    if (c == NULL) {
        return MHD_NO;
    }
    if (r == NULL) {
        return begin_request(c, url, method, version, context);
    }
    if (c->is_dead) {
        *n_upload = 0;
        return MHD_NO;
    }
    if (*n_upload > 0) {
        take_body(r, upload, *n_upload);
        *n_upload = 0;
        return c->is_dead ? MHD_NO : MHD_YES;
    }
    if (c->state == STATE_BODY && r->response == NULL) {
        c->state = STATE_WORK;
        c->deadline_us = 0;
        c->http->calls.request(c->http->calls.arg, r);
        if (c->is_half_closed && c->state == STATE_WORK && r->response == NULL) {
            kill_conn(c);
        }
    }
    if (c->is_dead) {
        return MHD_NO;
    }
    if (r->response != NULL) {
        return queue_response(r);
    }
    sleep_now(c);
    return MHD_YES;
}

const char *http_method(const struct http_req *r)
{
    return r->method;
}

const char *http_path(const struct http_req *r)
{
    return r->path;
}

const char *http_header(const struct http_req *r, const char *name)
{
    return MHD_lookup_connection_value(r->conn->mhd, MHD_HEADER_KIND, name);
}

struct view http_body(const struct http_req *r)
{
    return buf_view(&r->body);
}

size_t http_take_body(struct http_req *r, struct buf *out)
{
    const size_t n_held = r->n_held;
    *out = r->body;
    buf_init(&r->body, out->max);
    r->n_held = 0;
    return n_held;
}

const char *http_id(const struct http_req *r)
{
    return r->id;
}

uint64_t http_begin_us(const struct http_req *r)
{
    return r->begin_us;
}

int http_status(const struct http_req *r)
{
    return r->status;
}

void http_set_user(struct http_req *r, void *user)
{
    r->user = user;
}

void *http_user(const struct http_req *r)
{
    return r->user;
}

/* --- replies ---------------------------------------------------------------------------------- */

void http_set_header(struct http_req *r, const char *name, const char *value)
{
    if (ALWAYS(r->n_header < HTTP_HEADERS_MAX && strlen(value) < VALUE_MAX)) {
        struct header *h = &r->header[r->n_header++];
        h->name = name;
        snprintf(h->value, sizeof h->value, "%s", value);
    }
}

static void give_response(struct http_req *r, int status, const char *type,
                          struct MHD_Response *response)
{
    struct conn *c = r->conn;
    if (response == NULL) {
        kill_conn(c);
        return;
    }
    bool ok = MHD_add_response_header(response, "x-request-id", r->id) == MHD_YES;
    ok = (type == NULL || MHD_add_response_header(response, "Content-Type", type) == MHD_YES) && ok;
    for (int i = 0; i < r->n_header; i++) {
        const struct header *h = &r->header[i];
        ok = MHD_add_response_header(response, h->name, h->value) == MHD_YES && ok;
    }
    r->response = response;
    r->status = status;
    if (c->http->is_quiesced || r->is_last) {
        ok = MHD_add_response_header(response, "Connection", "close") == MHD_YES && ok;
    }
    if (!ok) {
        log_event(LOG_ERROR, "http", "msg=\"a header was lost\" id=%s", r->id);
    }
    if (c->is_suspended) {
        wake(c);
    }
}

static void reply_buffer(struct http_req *r, int status, const char *type, struct view body,
                         enum MHD_ResponseMemoryMode mode)
{
    if (r->response != NULL || r->has_ended || NEVER(r->status != 0)) {
        return;
    }
    if (mode == MHD_RESPMEM_MUST_COPY && body.n > HTTP_REPLY_FREE_BYTES &&
        !hold(r, r->n_held + body.n, 0)) {
        refuse_room(r); /* which needs none */
        return;
    }
    void *bytes = (void *)(uintptr_t)(body.n > 0 ? body.p : "");
    r->extra_us = (uint64_t)body.n * 1000000 / WRITE_BYTES_PER_S;
    give_response(r, status, type, MHD_create_response_from_buffer(body.n, bytes, mode));
}

void http_reply(struct http_req *r, int status, const char *type, struct view body)
{
    reply_buffer(r, status, type, body, MHD_RESPMEM_MUST_COPY);
}

void http_reply_static(struct http_req *r, int status, const char *type, struct view body)
{
    reply_buffer(r, status, type, body, MHD_RESPMEM_PERSISTENT);
}

/* The library asks for bytes of a stream. */
static ssize_t read_stream(void *arg, uint64_t pos, char *to, size_t max)
{
    struct http_req *r = arg;
    struct conn *c = r->conn;
    (void)pos;
    if (c->is_dead) {
        /* Not END_WITH_ERROR: libmicrohttpd 0.9.75 then closes the connection but forgets to clean
         * it up while an older one stays. The socket is shut down, so the end cannot be sent, and
         * failing to send it is what closes the connection. */
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    const size_t n = http_pending(r) < max ? http_pending(r) : max;
    if (n > 0) {
        memcpy(to, r->out.p + r->out_at, n);
        r->out_at += n;
        c->deadline_us = os_now_us() + c->http->params.write_us;
        if (http_pending(r) == 0) {
            buf_reset(&r->out);
            r->out_at = 0;
        }
        return (ssize_t)n;
    }
    if (r->is_finished) {
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    c->deadline_us = 0; /* waiting for us, not for the client */
    sleep_now(c);
    return 0;
}

void http_stream(struct http_req *r, const char *type)
{
    if (r->response != NULL || r->has_ended || NEVER(r->status != 0)) {
        return;
    }
    r->is_stream = true;
    give_response(
        r, 200, type,
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_stream, r, NULL));
    if (r->conn->is_half_closed) {
        (void)http_write(r, VIEW(":\n\n"));
    }
}

bool http_write(struct http_req *r, struct view bytes)
{
    struct conn *c = r->conn;
    if (c->is_dead || r->has_ended) {
        return false;
    }
    if (r->out_at > HTTP_OUT_HIGH_BYTES) { /* moves what waits to the front now and then */
        const size_t n = http_pending(r);
        memmove(r->out.p, r->out.p + r->out_at, n);
        buf_cut(&r->out, n);
        r->out_at = 0;
    }
    buf_add_view(&r->out, bytes);
    r->wants_drained = r->wants_drained || http_pending(r) >= HTTP_OUT_HIGH_BYTES;
    if (c->is_suspended && c->state == STATE_REPLY) {
        wake(c);
        c->deadline_us = os_now_us() + c->http->params.write_us;
    }
    return !r->out.is_full && hold(r, r->out.cap, 0);
}

size_t http_pending(const struct http_req *r)
{
    return r->out.n - r->out_at;
}

void http_finish(struct http_req *r)
{
    r->is_finished = true;
    if (r->conn->is_suspended && r->conn->state == STATE_REPLY) {
        wake(r->conn);
    }
}

void http_abort(struct http_req *r)
{
    kill_conn(r->conn);
}

/* --- turns ------------------------------------------------------------------------------------ */

static void refuse_late(struct conn *c, int status, const char *reason, const char *text)
{
    struct refusal why;
    (void)refusal_set(&why, status, status == 408 ? "timeout" : "invalid_request", NULL, "%s",
                      text);
    if (c->req != NULL) {
        c->req->status = status;
    }
    refuse_by_hand(c, reason, &why);
}

static void overdue(struct conn *c)
{
    const struct http_params *p = &c->http->params;
    char text[120];
    if (c->state != STATE_BODY && c->state != STATE_HEAD) {
        kill_conn(c);
    } else if (c->is_half_closed) {
        refuse_late(c, 400, "Bad Request", "the connection ended within the request");
    } else {
        snprintf(text, sizeof text, "the headers did not arrive within %u s",
                 (unsigned)(p->head_us / 1000000));
        if (c->state == STATE_BODY) {
            snprintf(
                text, sizeof text,
                "the body did not arrive: %zu KiB in every %u s and all within %u s are wanted",
                HTTP_STEP_BYTES >> 10, (unsigned)(p->step_us / 1000000),
                (unsigned)(p->body_us / 1000000));
        }
        refuse_late(c, 408, "Request Timeout", text);
    }
}

/* The library waits for the end of a chunk's line, its buffer is full, and it asks to be called
 * again and again. */
static bool is_stuck(struct conn *c)
{
    int n_unread = 0;
    const bool stands =
        c->state == STATE_BODY && ioctl(c->watch.fd, FIONREAD, &n_unread) == 0 && n_unread > 0;
    c->n_stuck = stands ? c->n_stuck + 1 : 0;
    return c->n_stuck > STUCK_CHECKS;
}

static void check_deadlines(struct http *h, uint64_t now_us)
{
    h->check_us = now_us;
    for (struct conn *c = h->conns; c != NULL; c = c->next) {
        if (!c->is_dead && is_stuck(c)) {
            refuse_late(c, 400, "Bad Request", "the line before a chunk of the body has no end");
        } else if (c->deadline_us != 0 && now_us >= c->deadline_us && !c->is_dead) {
            overdue(c); /* frees nothing: the library closes it in its own turn */
        }
    }
}

static void call_drained(struct http *h)
{
    for (struct conn *c = h->conns; c != NULL; c = c->next) {
        struct http_req *r = c->req;
        if (r != NULL && r->wants_drained && !r->has_ended &&
            http_pending(r) <= HTTP_OUT_LOW_BYTES) {
            r->wants_drained = false;
            h->calls.drained(h->calls.arg, r);
        }
    }
}

uint64_t http_run(struct http *h)
{
    const uint64_t now_us = os_now_us();
    if (now_us - h->check_us >= CHECK_US) {
        check_deadlines(h, now_us);
    }
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;
    bool is_due = true;
    for (int i = 0; i < RUNS_MAX && is_due; i++) {
        h->needs_run = false;
        (void)MHD_run(h->daemon);
        call_drained(h);
        is_due = h->needs_run || (MHD_get_timeout(h->daemon, &wait_ms) == MHD_YES && wait_ms == 0);
    }
    const uint64_t linger_us = http_linger_run(&h->linger, now_us);
    const uint64_t wait_us = h->n_conn > 0 ? CHECK_US : 1000000;
    if (is_due || linger_us <= now_us) {
        return 0;
    }
    return linger_us - now_us < wait_us ? linger_us - now_us : wait_us;
}

static void daemon_ready(struct loop_watch *w, uint32_t events)
{
    (void)w; /* http_run does the work, once per turn of the loop */
    (void)events;
}

/* --- opening ---------------------------------------------------------------------------------- */

static void on_log(void *arg, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
static void on_log(void *arg, const char *fmt, va_list args)
{
    char line[512];
    (void)arg;
    vsnprintf(line, sizeof line, fmt, args);
    line[strcspn(line, "\r\n")] = '\0';
    log_event(LOG_DEBUG, "http", "msg=\"%s\"", line);
}

static enum err start_daemon(struct http *h)
{
    const struct http_params *p = &h->params;
    /* before 1.0 a strict one sees no more than we do; later it does */
    const int strictness = MHD_get_version()[0] == '0' ? 0 : 1;
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_access, h,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, h, MHD_OPTION_LISTEN_SOCKET, h->listener.fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)(p->n_client_max + CLIENT_RESERVE),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, p->header_max_bytes, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
        MHD_OPTION_STRICT_FOR_CLIENT, strictness, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_URI_LOG_CALLBACK, on_uri, h,
        MHD_OPTION_END);
    REQUIRE(h->daemon != NULL, ERR_IO, "cannot start the HTTP server (libmicrohttpd %s)",
            MHD_get_version());
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    REQUIRE(info != NULL && info->epoll_fd >= 0, ERR_UNSUPPORTED,
            "libmicrohttpd %s was built without epoll", MHD_get_version());
    h->watch = (struct loop_watch){ .fd = -1, .ready = daemon_ready };
    return loop_add(h->loop, &h->watch, info->epoll_fd, LOOP_IN, 0);
}

enum err http_open(struct http **out, struct loop *loop, const struct http_params *p,
                   const struct http_calls *calls)
{
    struct http *h = mem_alloc(sizeof *h);
    REQUIRE(h != NULL, ERR_MEMORY, "no memory for the HTTP server");
    h->params = *p;
    h->calls = *calls;
    h->loop = loop;
    h->listener.fd = h->watch.fd = -1;
    http_linger_init(&h->linger, loop);
    enum err e = http_listen_open(&h->listener, p->host, p->port, p->allows_remote);
    e = e == ERR_OK ? start_daemon(h) : e;
    if (e != ERR_OK) {
        http_close(h);
        return e;
    }
    *out = h;
    return ERR_OK;
}

void http_quiesce(struct http *h)
{
    if (h->is_quiesced) {
        return;
    }
    h->is_quiesced = true;
    (void)MHD_quiesce_daemon(h->daemon);
    http_listen_close(&h->listener);
    for (struct conn *c = h->conns; c != NULL; c = c->next) {
        if (c->req == NULL) {
            kill_conn(c);
        }
    }
}

void http_close(struct http *h)
{
    if (h == NULL) {
        return;
    }
    if (h->daemon != NULL) {
        for (struct conn *c = h->conns; c != NULL; c = c->next) {
            kill_conn(c);
        }
        loop_remove(h->loop, &h->watch);
        (void)MHD_run(h->daemon);
        if (!h->is_quiesced) {
            (void)MHD_quiesce_daemon(h->daemon);
        }
        MHD_stop_daemon(h->daemon);
    }
    http_linger_release(&h->linger);
    http_listen_close(&h->listener);
    mem_free(h);
}

int http_port(const struct http *h)
{
    return h->listener.port;
}

bool http_is_remote(const struct http *h)
{
    return h->listener.is_remote;
}

int http_n_client(const struct http *h)
{
    return h->n_conn;
}

int http_n_reply(const struct http *h)
{
    int n = 0;
    for (const struct conn *c = h->conns; c != NULL; c = c->next) {
        n += c->state == STATE_REPLY && !c->is_dead;
    }
    return n;
}
