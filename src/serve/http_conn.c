/* http_conn - connections of clients: watched, timed, given up
 *
 * A connection sleeps (is suspended) from the end of its request until there is something to send.
 * The library takes a sleeping descriptor out of its epoll set, and would not notice a client that
 * leaves. Therefore each descriptor has a second watch of ours, from the start of the connection to
 * its close callback:
 *   hang-up or error   the request ends at once;
 *   half-close alone   may be legal (the client only said that it will send no more): who makes the
 *                      answer decides; a stream sends an SSE comment, whose failure comes back as
 *                      an error and ends it; what is incomplete gets a second for what is still on
 *                      its way to the library.
 * The library's time-out knows inactivity only, so deadlines are ours, checked by http_conn_run;
 * what is overdue gets 408 where nothing was sent yet, then shutdown(2), which the library sees as
 * an end. It closes in its own turn, so a connection that is given up stays until then.
 *
 * A body has two deadlines: for all of it, and for each step, since a client that stands still
 * holds the room of its body.
 *
 * Rejected: the library's time-outs (above); a timer per connection (a walk through a few hundred
 * every 50 ms costs less than their upkeep).
 *
 * Next: serve/http.c. */
#include "serve/http_conn.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define CHECK_US     50000 /* deadlines are looked at this often */
#define NO_CHECK_US  1000000
#define STUCK_CHECKS 4       /* a body that stands still for so many while bytes of it are there */
#define LEFT_US      1000000 /* what a client that says no more has sent is read by then */

void http_conn_kill(struct http_conn *c)
{
    if (c->is_dead) {
        return;
    }
    c->is_dead = true;
    c->deadline_us = 0;
    c->all->gone(c);
    if (c->watch.fd >= 0) {
        shutdown(c->watch.fd, c->lingers ? SHUT_WR : SHUT_RDWR);
    }
    c->all->wake(c);
}

/* --- deadlines -------------------------------------------------------------------------------- */

void http_conn_wait(struct http_conn *c, uint64_t us)
{
    c->deadline_us = os_now_us() + (c->is_half_closed && us > LEFT_US ? LEFT_US : us);
}

/* The body must go on, and end. */
static void wait_for_body(struct http_conn *c)
{
    const struct http_conns *a = c->all;
    const uint64_t spent_us = os_now_us() - c->begin_us;
    const uint64_t left_us = spent_us < a->body_us ? a->body_us - spent_us : 0;
    http_conn_wait(c, left_us < a->step_us ? left_us : a->step_us);
    c->n_step = 0;
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

void http_conn_begin(struct http_conn *c)
{
    c->state = HTTP_CONN_BODY;
    c->begin_us = os_now_us();
    c->status = 0;
    make_id(c->id);
    wait_for_body(c);
}

void http_conn_body(struct http_conn *c, size_t n)
{
    c->n_stuck = 0;
    c->n_step += n;
    if (c->n_step >= HTTP_CONN_STEP_BYTES) {
        wait_for_body(c);
    }
}

void http_conn_refuse(struct http_conn *c, const char *reason, const struct refusal *why)
{
    struct buf body;
    struct buf all;
    buf_init(&body, 4096);
    buf_init(&all, 8192);
    if (c->state < HTTP_CONN_BODY) { /* no request has begun: its id is its own */
        make_id(c->id);
    }
    c->status = why->status;
    refusal_put(why, &body);
    buf_printf(&all,
               "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
               "Connection: close\r\nx-request-id: %s\r\n\r\n",
               why->status, reason, body.n, c->id);
    buf_add_view(&all, buf_view(&body));
    if (c->watch.fd >= 0 && !all.is_full) {
        const ssize_t n = send(c->watch.fd, all.p, all.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)n; /* a client that cannot even take this gets nothing */
    }
    buf_release(&body);
    buf_release(&all);
    http_conn_kill(c);
}

static void refuse_late(struct http_conn *c, int status, const char *reason, const char *text)
{
    struct refusal why;
    (void)refusal_set(&why, status, status == 408 ? "timeout" : "invalid_request", NULL, "%s",
                      text);
    http_conn_refuse(c, reason, &why);
}

static void overdue(struct http_conn *c)
{
    const struct http_conns *a = c->all;
    char text[120];
    if (c->state != HTTP_CONN_BODY && c->state != HTTP_CONN_HEAD) {
        http_conn_kill(c);
    } else if (c->is_half_closed) {
        refuse_late(c, 400, "Bad Request", "the connection ended within the request");
    } else {
        snprintf(text, sizeof text, "the headers did not arrive within %u s",
                 (unsigned)(a->head_us / 1000000));
        if (c->state == HTTP_CONN_BODY) {
            snprintf(
                text, sizeof text,
                "the body did not arrive: %zu KiB in every %u s and all within %u s are wanted",
                HTTP_CONN_STEP_BYTES >> 10, (unsigned)(a->step_us / 1000000),
                (unsigned)(a->body_us / 1000000));
        }
        refuse_late(c, 408, "Request Timeout", text);
    }
}

/* The library waits for the end of a chunk's line, its buffer is full, and it asks to be called
 * again and again. */
static bool is_stuck(struct http_conn *c)
{
    int n_unread = 0;
    const bool stands =
        c->state == HTTP_CONN_BODY && ioctl(c->watch.fd, FIONREAD, &n_unread) == 0 && n_unread > 0;
    c->n_stuck = stands ? c->n_stuck + 1 : 0;
    return c->n_stuck > STUCK_CHECKS;
}

static void check(struct http_conn *c, uint64_t now_us)
{
    if (!c->is_dead && is_stuck(c)) {
        refuse_late(c, 400, "Bad Request", "the line before a chunk of the body has no end");
    } else if (c->deadline_us != 0 && now_us >= c->deadline_us && !c->is_dead) {
        overdue(c);
    }
}

uint64_t http_conn_run(struct http_conns *a, uint64_t now_us)
{
    if (now_us - a->checked_us >= CHECK_US) {
        a->checked_us = now_us;
        for (struct http_conn *c = a->first; c != NULL; c = c->next) {
            check(c, now_us);
        }
    }
    const uint64_t linger_us = http_linger_run(&a->linger, now_us);
    const uint64_t wait_us = a->n > 0 ? CHECK_US : NO_CHECK_US;
    if (linger_us <= now_us) {
        return 0;
    }
    return linger_us - now_us < wait_us ? linger_us - now_us : wait_us;
}

/* --- watching --------------------------------------------------------------------------------- */

static void ready(struct loop_watch *w, uint32_t events)
{
    struct http_conn *c = (struct http_conn *)(void *)w;
    if ((events & (LOOP_HUP | LOOP_ERR)) != 0) {
        http_conn_kill(c);
        return;
    }
    char first;
    if ((events & LOOP_IN) != 0 && c->state == HTTP_CONN_IDLE &&
        recv(c->watch.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
        c->state = HTTP_CONN_HEAD; /* unless the library has read it already */
        http_conn_wait(c, c->all->head_us);
    }
    if ((events & LOOP_LEFT) == 0) {
        return;
    }
    c->is_half_closed = true;
    if (c->state < HTTP_CONN_WORK) {
        http_conn_wait(c, LEFT_US);
    } else if (c->state != HTTP_CONN_REPLY) {
        c->all->half_closed(c);
    }
}

/* --- the list --------------------------------------------------------------------------------- */

/* Who has to go for a new client: the oldest without a request; else the oldest that has not sent
 * its body or not taken its answer, since a few slow ones must not keep everybody out. */
static struct http_conn *least_wanted(const struct http_conns *a)
{
    struct http_conn *idle = NULL;
    struct http_conn *slow = NULL;
    for (struct http_conn *c = a->first; c != NULL; c = c->next) { /* the newest first */
        const bool is_idle = c->state == HTTP_CONN_IDLE || c->state == HTTP_CONN_HEAD;
        const bool is_slow = c->state == HTTP_CONN_BODY || c->state == HTTP_CONN_REPLY;
        idle = is_idle && !c->is_dead ? c : idle;
        slow = is_slow && !c->is_dead ? c : slow;
    }
    return idle != NULL ? idle : slow;
}

bool http_conn_make_room(struct http_conns *a)
{
    struct http_conn *old = least_wanted(a);
    if (old != NULL) {
        http_conn_kill(old);
    }
    return old != NULL;
}

struct http_conn *http_conn_open(struct http_conns *a, int fd)
{
    if (a->n >= a->n_max) {
        (void)http_conn_make_room(a);
    }
    struct http_conn *c = mem_alloc(sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    *c = (struct http_conn){ .watch = { .fd = -1, .ready = ready }, .all = a, .next = a->first };
    if (loop_add(a->loop, &c->watch, fd, LOOP_IN | LOOP_LEFT, 1) != ERR_OK) {
        mem_free(c);
        return NULL;
    }
    http_conn_wait(c, a->head_us);
    if (c->next != NULL) {
        c->next->prev = c;
    }
    a->first = c;
    a->n++;
    return c;
}

void http_conn_close(struct http_conn *c)
{
    struct http_conns *a = c->all;
    if (c->lingers && c->watch.fd >= 0) {
        http_linger_add(&a->linger, c->watch.fd, os_now_us());
    }
    loop_remove(a->loop, &c->watch);
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        a->first = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    a->n--;
    mem_free(c);
}
