/* http_conn - connections of clients: watched, timed, given up (serve/http_conn.c)
 *
 * Owner: the loop thread. The library behind a connection is known to serve/http.c alone.
 * HC-1  a connection is in the list from http_conn_open to http_conn_close, and watched all along.
 * HC-2  one that is given up (is_dead) comes back to no other state: `gone` and `wake` were called
 *       for it, and it is closed as soon as the library closes it. */
#ifndef HEARTH_HTTP_CONN_H
#define HEARTH_HTTP_CONN_H

#include "serve/http_linger.h"
#include "serve/loop.h"
#include "serve/refusal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A body brings so much, or its rest, within step_us. */
#define HTTP_CONN_STEP_BYTES ((size_t)64 << 10)

/* Without a request; with a part of one's headers; of its body; with all of it; with an answer. */
enum http_conn_state {
    HTTP_CONN_IDLE,
    HTTP_CONN_HEAD,
    HTTP_CONN_BODY,
    HTTP_CONN_WORK,
    HTTP_CONN_REPLY,
    HTTP_CONN_STREAM
};

struct http_conn {
    struct loop_watch watch; /* first: the loop's handlers get it */
    struct http_conns *all;
    struct http_conn *next;
    struct http_conn *prev;
    enum http_conn_state state;
    uint64_t deadline_us; /* 0: none */
    bool is_half_closed;
    bool is_dead; /* nothing more is wanted from it */
    bool lingers; /* unread bytes are expected at its close */
    int n_stuck;  /* checks in a row with bytes to be read and none taken */

    /* Of its request. */
    char id[32];
    int status;        /* of the answer; 0: none yet */
    uint64_t begin_us; /* when its headers were complete */
    size_t n_step;     /* bytes of the body since its deadline was set */

    /* For serve/http.c alone. */
    struct http *http;
    struct MHD_Connection *mhd;
    struct http_req *req; /* NULL between requests */
    bool is_suspended;
    const char *uri_end; /* of the request line, before the library decodes it */
    bool is_uri_bad;
    size_t n_uri_host; /* of a target "http://HOST..."; 0: it names none */
};

struct http_conns {
    struct loop *loop;                 /* borrows */
    int n_max;                         /* beyond, one is given up for a new one */
    uint64_t head_us;                  /* from connection or first byte to the end of the headers */
    uint64_t body_us;                  /* for the body */
    uint64_t step_us;                  /* for each HTTP_CONN_STEP_BYTES of it, or its rest */
    void (*gone)(struct http_conn *c); /* its request, if there is one, ends */
    void (*wake)(struct http_conn *c); /* the library has to look at it */
    void (*half_closed)(struct http_conn *c); /* in WORK, STREAM: its client says no more */
    struct http_conn *first;                  /* newest first */
    int n;
    uint64_t checked_us;
    struct http_linger linger;
};

/* For a socket that stays the caller's. NULL: no memory or no watch, and nothing is kept. */
struct http_conn *http_conn_open(struct http_conns *all, int fd);
/* Gives up the one that is wanted least, for a new one. False: there is none. */
bool http_conn_make_room(struct http_conns *all);
void http_conn_close(struct http_conn *c); /* its socket is read empty first, where it lingers */
/* Gives it up: its request ends, the library is made to close it. */
void http_conn_kill(struct http_conn *c);
/* Gives it up with an answer, where the library takes none. Nothing was sent for its request. */
void http_conn_refuse(struct http_conn *c, const char *reason, const struct refusal *why);

void http_conn_begin(struct http_conn *c);             /* the headers of a request are complete */
void http_conn_wait(struct http_conn *c, uint64_t us); /* a deadline for what is yet to be sent */
void http_conn_body(struct http_conn *c, size_t n);    /* more of the body came */
/* Refuses and gives up what is overdue; frees nothing. Returns the microseconds until it wants to
 * be called again, at most. */
uint64_t http_conn_run(struct http_conns *all, uint64_t now_us);

#endif
