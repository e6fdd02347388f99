/* http - requests and answers over HTTP/1.1
 *
 * libmicrohttpd parses; this file is what is around it, and the only one that knows it. The
 * listening socket is http_listen's; http_conn sees when a client has left, and gives up who is
 * overdue, by its own deadlines up to the end of a body and by those set here for answers; whether
 * a request ends where all would say that it ends, http_frame decides. The library runs in external
 * mode: its epoll descriptor is one watch of our loop, the listening socket another.
 *
 * A connection sleeps (is suspended) from the end of its request until there is something to send.
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
 * Rejected: the library's own threads (a second place where state lives); that it accepts (after a
 * shortage of descriptors it takes nobody until one of its connections ends, and that may be long).
 *
 * Next: serve/api.c decides about requests. */
#include "serve/http.h"

#include "base/js.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "serve/http_conn.h"
#include "serve/http_frame.h"
#include "serve/http_listen.h"
#include "serve/refusal.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define DISCARD_MAX_BYTES 65536    /* refused bodies up to this size are read before the reply */
#define WRITE_BYTES_PER_S 16384    /* slowest client that gets a long answer whole */
#define RUNS_MAX          8        /* turns of the library before others get theirs */
#define SHORT_LINE_US     60000000 /* from one line about descriptors to the next */
#define VALUE_MAX         400      /* bytes of a header value of ours */
#define SCHEME            "http://"
#define HOST_MAX          256 /* bytes of the host and port in a target */
#define BLOCK_BYTES       16384
#define SMALL_BODY_BYTES  65536 /* may take the last of the budget */

struct header {
    const char *name;
    char value[VALUE_MAX];
};

struct http_req {
    struct http_conn *conn;
    const char *method;
    const char *path;
    char host[HOST_MAX]; /* of a target that names one; else empty */
    struct buf body;
    size_t n_held;        /* bytes of the budget */
    bool is_body_refused; /* a reply exists before the body: the body is dropped */
    size_t n_dropped;
    struct MHD_Response *response; /* made, not yet queued */
    int n_header;
    struct header header[HTTP_HEADERS_MAX];
    bool is_stream;
    bool is_finished;
    bool wants_drained;
    struct buf out; /* bytes of the stream from out_at on wait */
    size_t out_at;
    bool has_ended; /* `end` was called (HT-1) */
    void *user;
    uint64_t extra_us; /* a long answer may take this much longer */
    bool is_last;      /* of its connection */
};

struct http {
    struct loop_watch door; /* first, for its handler; the listening socket */
    struct http_params params;
    struct http_calls calls;
    struct loop *loop;
    struct MHD_Daemon *daemon;
    struct loop_watch watch; /* the library's epoll descriptor */
    struct http_listen listener;
    bool may_wait; /* a client, to be accepted */
    bool is_quiesced;
    bool needs_run;
    uint64_t short_us; /* when a line said that descriptors are short; 0: never */
    struct http_conns conns;
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

static void gone(struct http_conn *c)
{
    if (c->req != NULL) {
        end_request(c->req, false);
    }
}

static void half_closed(struct http_conn *c)
{
    struct http_req *r = c->req;
    if (c->state == HTTP_CONN_WORK && r->response == NULL) {
        c->http->calls.half_closed(c->http->calls.arg, r);
    } else if (r->is_stream && !r->is_finished) {
        (void)http_write(r, VIEW(":\n\n")); /* its failure comes back as an error */
    }
}

static void wake(struct http_conn *c)
{
    if (c->is_suspended) {
        c->is_suspended = false;
        MHD_resume_connection(c->mhd);
    }
    c->http->needs_run = true;
}

static void sleep_now(struct http_conn *c)
{
    if (!c->is_suspended) {
        c->is_suspended = true;
        MHD_suspend_connection(c->mhd);
    }
}

static void conn_start(struct http *h, struct MHD_Connection *mhd, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct http_conn *c = info != NULL ? http_conn_open(&h->conns, info->connect_fd) : NULL;
    if (c != NULL) {
        c->http = h;
        c->mhd = mhd;
    }
    *context = c; /* without one the first request on it is refused */
}

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *h = arg;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        conn_start(h, mhd, context);
    } else if (*context != NULL) {
        http_conn_close(*context);
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
    struct http_conn *c = r->conn;
    end_request(r, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    if (r->response != NULL) {
        MHD_destroy_response(r->response);
    }
    buf_release(&r->body);
    buf_release(&r->out);
    budget_give(c->http->params.budget, r->n_held);
    mem_free(r);
    c->req = NULL;
    c->state = HTTP_CONN_IDLE;
    http_conn_wait(c, c->http->params.idle_us);
    *context = NULL;
    if (c->http->is_quiesced) {
        http_conn_kill(c);
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

/* A target may be absolute (RFC 9112, section 3.2.2); its host is then read before the library
 * decodes it, and may have nothing in it that is written in two ways. */
static void take_host(struct http_conn *c, const char *host)
{
    const size_t n = strcspn(host, "/?");
    const size_t n_good = strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "0123456789.-_:[]");
    if (n == 0 || n_good != n || n >= HOST_MAX) {
        c->is_uri_bad = true;
    } else {
        c->n_uri_host = n;
    }
}

/* The address as it came. A zero byte in it, plain or as %00, would end the path for us and not for
 * a proxy in front: one that lets only some paths pass could be deceived. A blank would end it for
 * others. */
static void *on_uri(void *arg, const char *uri, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_conn *c = info != NULL ? info->socket_context : NULL;
    (void)arg;
    if (c != NULL) {
        c->uri_end = uri + strlen(uri);
        c->is_uri_bad = strstr(uri, "%00") != NULL || strchr(uri, ' ') != NULL;
        c->n_uri_host = 0;
        if (strncasecmp(uri, SCHEME, strlen(SCHEME)) == 0) {
            take_host(c, uri + strlen(SCHEME));
        }
    }
    return NULL; /* the request's context until begin_request makes one */
}

/* Before 1.0 a strict library sees no more than we do; later it does. */
static bool is_lenient(void)
{
    return MHD_get_version()[0] == '0';
}

/* *n_body: what the client announces, UINT64_MAX for a chunked body. The library leaves the request
 * line and the headers where they came in, from the method on, before 1.0 (seen in 0.9.75). */
static bool check_framing(struct http_conn *c, const char *method, const char *version,
                          struct refusal *why, uint64_t *n_body)
{
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    const struct view line = view_of(version);
    const uintptr_t skip = (uintptr_t)line.p - (uintptr_t)method;
    struct http_frame f = { .version = line, .is_bad = c->is_uri_bad || c->uri_end + 1 != version };
    if (is_lenient() && size != NULL && skip < size->header_size) {
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
    struct http_conn *c = r->conn;
    struct MHD_Response *response = r->response;
    r->response = NULL;
    c->state = r->is_stream ? HTTP_CONN_STREAM : HTTP_CONN_REPLY;
    c->lingers = c->lingers || r->is_last; /* its client may have sent more */
    c->deadline_us = os_now_us() + c->http->params.write_us + r->extra_us;
    const enum MHD_Result ok = MHD_queue_response(c->mhd, (unsigned)c->status, response);
    MHD_destroy_response(response);
    return ok;
}

/* First call: the headers. */
static enum MHD_Result begin_request(struct http_conn *c, const char *url, const char *method,
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
    if (c->n_uri_host > 0) {
        url += strlen(SCHEME);
        snprintf(r->host, sizeof r->host, "%.*s", (int)c->n_uri_host, url);
        r->path = url[c->n_uri_host] != '\0' ? url + c->n_uri_host : "/";
    }
    buf_init(&r->body, h->params.body_max_bytes);
    buf_init(&r->out, HTTP_OUT_MAX_BYTES);
    *context = r;
    c->req = r;
    http_conn_begin(c);
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
    struct http_conn *c = r->conn;
    http_conn_body(c, n);
    if (r->is_body_refused) {
        r->n_dropped += n;
        if (r->n_dropped > DISCARD_MAX_BYTES) {
            http_conn_kill(c);
        }
        return;
    }
    size_t want = 2 * (r->body.n + n); /* a buf grows twofold at most */
    want = want < SMALL_BODY_BYTES ? SMALL_BODY_BYTES : want;
    struct refusal why;
    if (!hold_body(r, want < r->body.max ? want : r->body.max)) {
        say_no_room(r, &why);
        c->lingers = true;
        http_conn_refuse(c, "Service Unavailable", &why);
        return;
    }
    buf_add(&r->body, bytes, n);
    if (r->body.is_full && !c->is_dead) {
        (void)refusal_set(&why, 413, "body_too_large", NULL,
                          "the body has more than %zu bytes, which is the most that is taken",
                          r->body.max);
        c->lingers = true; /* on_access tells the library to close */
        http_conn_refuse(c, "Content Too Large", &why);
    }
}

static enum MHD_Result on_access(void *arg, struct MHD_Connection *mhd, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *n_upload, void **context)
{
    (void)arg;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_conn *c = info != NULL ? info->socket_context : NULL;
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
    if (c->state == HTTP_CONN_BODY && r->response == NULL) {
        c->state = HTTP_CONN_WORK;
        c->deadline_us = 0;
        c->http->calls.request(c->http->calls.arg, r);
        if (c->is_half_closed && c->state == HTTP_CONN_WORK && r->response == NULL) {
            half_closed(c);
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
    if (r->host[0] != '\0' && strcasecmp(name, "Host") == 0) {
        return r->host;
    }
    return MHD_lookup_connection_value(r->conn->mhd, MHD_HEADER_KIND, name);
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
    return r->conn->id;
}

uint64_t http_begin_us(const struct http_req *r)
{
    return r->conn->begin_us;
}

int http_status(const struct http_req *r)
{
    return r->conn->status;
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
    struct http_conn *c = r->conn;
    if (response == NULL) {
        http_conn_kill(c);
        return;
    }
    bool ok = MHD_add_response_header(response, "x-request-id", r->conn->id) == MHD_YES;
    ok = (type == NULL || MHD_add_response_header(response, "Content-Type", type) == MHD_YES) && ok;
    for (int i = 0; i < r->n_header; i++) {
        const struct header *h = &r->header[i];
        ok = MHD_add_response_header(response, h->name, h->value) == MHD_YES && ok;
    }
    r->response = response;
    r->conn->status = status;
    if (c->http->is_quiesced || r->is_last) {
        ok = MHD_add_response_header(response, "Connection", "close") == MHD_YES && ok;
    }
    if (!ok) {
        log_event(LOG_ERROR, "http", "msg=\"a header was lost\" id=%s", r->conn->id);
    }
    if (c->is_suspended) {
        wake(c);
    }
}

static void reply_buffer(struct http_req *r, int status, const char *type, struct view body,
                         enum MHD_ResponseMemoryMode mode)
{
    if (r->response != NULL || r->has_ended || NEVER(r->conn->status != 0)) {
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
    struct http_conn *c = r->conn;
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
        c->deadline_us = os_now_us() + c->http->params.write_us;
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    c->deadline_us = 0; /* waiting for us, not for the client */
    sleep_now(c);
    return 0;
}

void http_stream(struct http_req *r, const char *type)
{
    if (r->response != NULL || r->has_ended || NEVER(r->conn->status != 0)) {
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
    struct http_conn *c = r->conn;
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
    if (c->is_suspended && c->state == HTTP_CONN_STREAM) {
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
    if (r->conn->is_suspended && r->conn->state == HTTP_CONN_STREAM) {
        wake(r->conn);
    }
}

void http_abort(struct http_req *r)
{
    http_conn_kill(r->conn);
}

/* --- turns ------------------------------------------------------------------------------------ */

static void call_drained(struct http *h)
{
    for (struct http_conn *c = h->conns.first; c != NULL; c = c->next) {
        struct http_req *r = c->req;
        if (r != NULL && r->wants_drained && !r->has_ended &&
            http_pending(r) <= HTTP_OUT_LOW_BYTES) {
            r->wants_drained = false;
            h->calls.drained(h->calls.arg, r);
        }
    }
}

/* There is no descriptor for the client that waits. */
static void make_room(struct http *h)
{
    for (const struct http_conn *c = h->conns.first; c != NULL; c = c->next) {
        if (c->is_dead) {
            return; /* its descriptor comes back soon */
        }
    }
    const uint64_t now_us = os_now_us();
    if (h->short_us == 0 || now_us - h->short_us >= SHORT_LINE_US) {
        h->short_us = now_us;
        log_event(LOG_WARN, "http",
                  "msg=\"no descriptor is left for a new client: the oldest idle one is closed, "
                  "else the oldest that still sends its body or does not take its answer, else "
                  "the new one; raise the limit of open files (ulimit -n) or lower "
                  "--max-clients\" clients=%d",
                  h->conns.n);
    }
    if (!http_conn_make_room(&h->conns) && http_listen_drop(&h->listener)) {
        h->needs_run = true;
    }
}

/* Once in a turn, and last: the loop tells http_conn what came before the library reads it. */
static void accept_one(struct http *h)
{
    struct sockaddr_storage from = { 0 };
    socklen_t n = sizeof from;
    if (!h->may_wait || h->conns.n >= h->params.n_client_max + HTTP_CLIENT_RESERVE) {
        return;
    }
    const int fd =
        accept4(h->listener.fd, (struct sockaddr *)&from, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        (void)MHD_add_connection(h->daemon, fd, (struct sockaddr *)&from, n); /* or closes fd */
        h->needs_run = true;
    } else if (errno == EMFILE || errno == ENFILE) { /* also when nobody waits */
        h->may_wait = http_listen_has_client(&h->listener);
        if (h->may_wait) {
            make_room(h);
        }
    } else {
        h->needs_run = h->needs_run || errno == ECONNABORTED; /* others may stand behind that one */
        h->may_wait = errno != EAGAIN;
    }
}

uint64_t http_run(struct http *h)
{
    const uint64_t wait_us = http_conn_run(&h->conns, os_now_us());
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;
    bool is_due = true;
    for (int i = 0; i < RUNS_MAX && is_due; i++) {
        h->needs_run = false;
        (void)MHD_run(h->daemon);
        call_drained(h);
        is_due = h->needs_run || (MHD_get_timeout(h->daemon, &wait_ms) == MHD_YES && wait_ms == 0);
    }
    accept_one(h);
    return is_due || h->needs_run ? 0 : wait_us;
}

static void daemon_ready(struct loop_watch *w, uint32_t events)
{
    (void)w; /* http_run does the work, once per turn of the loop */
    (void)events;
}

static void door_ready(struct loop_watch *w, uint32_t events)
{
    struct http *h = (struct http *)(void *)w;
    (void)events;
    h->may_wait = true;
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
    errno = 0;
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG, 0,
        NULL, NULL, on_access, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, h,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)(p->n_client_max + HTTP_CLIENT_RESERVE),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, p->header_max_bytes, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
        MHD_OPTION_STRICT_FOR_CLIENT, is_lenient() ? 0 : 1, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_URI_LOG_CALLBACK,
        on_uri, h, MHD_OPTION_END);
    REQUIRE(h->daemon != NULL || errno != ENOMEM, ERR_MEMORY, "no memory for the HTTP server");
    REQUIRE(h->daemon != NULL, ERR_IO, "cannot start the HTTP server (libmicrohttpd %s)",
            MHD_get_version());
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    REQUIRE(info != NULL && info->epoll_fd >= 0, ERR_UNSUPPORTED,
            "libmicrohttpd %s was built without epoll", MHD_get_version());
    TRY(loop_add(h->loop, &h->watch, info->epoll_fd, LOOP_IN, 0));
    return loop_add(h->loop, &h->door, h->listener.fd, LOOP_IN, 1);
}

enum err http_open(struct http **out, struct loop *loop, const struct http_params *p,
                   const struct http_calls *calls)
{
    struct http *h = mem_alloc(sizeof *h);
    REQUIRE(h != NULL, ERR_MEMORY, "no memory for the HTTP server");
    h->params = *p;
    h->calls = *calls;
    h->loop = loop;
    h->listener.fd = h->listener.spare = -1;
    h->watch = (struct loop_watch){ .fd = -1, .ready = daemon_ready };
    h->door = (struct loop_watch){ .fd = -1, .ready = door_ready };
    h->conns = (struct http_conns){ .loop = loop,
                                    .n_max = p->n_client_max,
                                    .head_us = p->head_us,
                                    .body_us = p->body_us,
                                    .step_us = p->step_us,
                                    .gone = gone,
                                    .wake = wake,
                                    .half_closed = half_closed };
    http_linger_init(&h->conns.linger, loop);
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
    h->may_wait = false;
    loop_remove(h->loop, &h->door);
    http_listen_close(&h->listener);
    for (struct http_conn *c = h->conns.first; c != NULL; c = c->next) {
        if (c->req == NULL) {
            http_conn_kill(c);
        }
    }
}

void http_close(struct http *h)
{
    if (h == NULL) {
        return;
    }
    if (h->daemon != NULL) {
        for (struct http_conn *c = h->conns.first; c != NULL; c = c->next) {
            http_conn_kill(c);
        }
        loop_remove(h->loop, &h->watch);
        loop_remove(h->loop, &h->door);
        (void)MHD_run(h->daemon);
        MHD_stop_daemon(h->daemon);
    }
    http_linger_release(&h->conns.linger);
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
    return h->conns.n;
}

int http_n_reply(const struct http *h)
{
    int n = 0;
    for (const struct http_conn *c = h->conns.first; c != NULL; c = c->next) {
        n += c->state >= HTTP_CONN_REPLY && !c->is_dead;
    }
    return n;
}
