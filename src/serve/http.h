/* http - requests and answers over HTTP/1.1 (serve/http.c; the only file that knows libmicrohttpd)
 *
 * Owner of everything: the loop thread; all calls and callbacks happen there.
 * HT-1  for each request that `head` was called with, `end` is called exactly once, and the request
 *       is gone after it.
 * HT-2  between `request` and the reply the connection is suspended: it costs nothing, and its
 *       client is watched. A client that leaves leads to `end` at once.
 * HT-3  every wait for a client has a deadline: for headers, for a body and for each
 *       HTTP_CONN_STEP_BYTES of it, for the next request, for an answer to be taken whole (more for
 *       a long one), and for some of a stream to be taken.
 * HT-4  bodies, streams and all but small replies are held only within the budget. */
#ifndef HEARTH_HTTP_H
#define HEARTH_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "serve/budget.h"
#include "serve/http_linger.h"
#include "serve/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http;
struct http_req;

/* Files that so many clients take at most: with new ones, and those that only linger. */
#define HTTP_CLIENT_RESERVE      32 /* connections beyond the most that are kept */
#define HTTP_FILES_MAX(n_client) ((n_client) + HTTP_CLIENT_RESERVE + HTTP_LINGER_MAX)

struct http_params {
    const char *host;   /* name or address to listen on */
    int port;           /* 0: any free one */
    bool allows_remote; /* addresses other than loopback may be bound */
    size_t header_max_bytes;
    size_t body_max_bytes;
    struct budget *budget; /* borrows */
    int n_client_max;  /* connections kept; beyond, the oldest idle one is closed for a new one */
    uint64_t head_us;  /* from connection or first byte to the end of the headers */
    uint64_t body_us;  /* for the body */
    uint64_t step_us;  /* for each HTTP_CONN_STEP_BYTES of it, or its rest */
    uint64_t idle_us;  /* between requests */
    uint64_t write_us; /* for a client to take its answer, or some of a stream */
};

struct http_calls {
    void *arg;
    /* The headers are here, the body is not: reply now to refuse. */
    void (*head)(void *arg, struct http_req *r);
    /* The whole request is here; reply now or later. Not called for what was refused. */
    void (*request)(void *arg, struct http_req *r);
    /* Before the reply its client said that it sends no more, or left: http_abort, unless the
     * answer may be a stream. */
    void (*half_closed)(void *arg, struct http_req *r);
    /* A stream's client took what was written: http_pending is low again. */
    void (*drained)(void *arg, struct http_req *r);
    /* The request is over; is_complete: its answer was handed to the kernel whole. */
    void (*end)(void *arg, struct http_req *r, bool is_complete);
};

/* Binds and listens. ERR_POLICY for a non-loopback address that is not allowed, ERR_IO. `calls` is
 * copied. */
enum err http_open(struct http **out, struct loop *loop, const struct http_params *p,
                   const struct http_calls *calls) MUST_USE;
void http_close(struct http *h); /* ends all requests; accepts NULL */
int http_port(const struct http *h);
bool http_is_remote(const struct http *h); /* bound to another address than loopback */
int http_n_client(const struct http *h);
int http_n_reply(const struct http *h); /* clients that have yet to take all of an answer */
/* Does what is due and returns the microseconds until it wants to be called again, at most. */
uint64_t http_run(struct http *h);
void http_quiesce(struct http *h); /* closes the port, and connections without a request */

/* --- a request; what these return is borrowed until `end` --------------------------------- */

const char *http_method(const struct http_req *r); /* "GET" also for HEAD */
const char *http_path(const struct http_req *r);   /* decoded, without query */
/* NULL: not there. "Host" is that of the target, where the target names one. */
const char *http_header(const struct http_req *r, const char *name);
/* Moves it into a fresh buf. What it holds of the budget is the caller's to give back. */
size_t http_take_body(struct http_req *r, struct buf *out);
const char *http_id(const struct http_req *r);    /* for the x-request-id header */
uint64_t http_begin_us(const struct http_req *r); /* when its headers were complete */
int http_status(const struct http_req *r);        /* of the reply; 0: none yet */
void http_set_user(struct http_req *r, void *user);
void *http_user(const struct http_req *r);

/* --- a reply; one http_reply or one http_stream per request -------------------------------- */

#define HTTP_REPLY_FREE_BYTES ((size_t)16 << 10) /* replies up to here need no budget */

/* Adds a header to the reply that follows; at most HTTP_HEADERS_MAX, name is kept (static text). */
#define HTTP_HEADERS_MAX 12
void http_set_header(struct http_req *r, const char *name, const char *value);
void http_reply(struct http_req *r, int status, const char *type, struct view body); /* copied */
void http_reply_static(struct http_req *r, int status, const char *type, struct view body);

/* Status 200 and a body of unknown length. */
void http_stream(struct http_req *r, const char *type);
/* False when HTTP_OUT_MAX_BYTES wait already, the budget is used up or the client is gone: end the
 * stream then. */
#define HTTP_OUT_MAX_BYTES  ((size_t)4 << 20)
#define HTTP_OUT_HIGH_BYTES ((size_t)64 << 10) /* stop producing here */
#define HTTP_OUT_LOW_BYTES  ((size_t)16 << 10) /* `drained` is called below */
bool http_write(struct http_req *r, struct view bytes);
size_t http_pending(const struct http_req *r); /* bytes written and not yet taken */
void http_finish(struct http_req *r);          /* after the last http_write */
void http_abort(struct http_req *r);           /* breaks the connection; `end` follows at once */

#endif
