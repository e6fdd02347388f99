/* http_linger - sockets that are read empty before they are closed
 *
 * When a request is refused before its body was read, the answer is written and the connection
 * closed. Closing a socket with unread bytes makes the kernel send a reset, and a reset lets the
 * other side throw away what it has received and not yet read: the client of a large upload would
 * see "connection reset" in place of the refusal. The cure is old: say that no more comes
 * (shutdown), go on reading for a moment, close when the client closes.
 *
 * The HTTP library closes by itself, so a copy of the descriptor (dup) carries on here. The moment
 * is bounded three ways (HL-1), because who is refused may also be hostile; without a free place
 * the socket is simply closed, and the client may miss the text.
 *
 * Next: serve/http.c. */
#include "serve/http_linger.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define READS_MAX 16 /* of one socket before others get their turn */

static void end(struct http_linger_one *o)
{
    const int fd = o->watch.fd;
    loop_remove(o->loop, &o->watch);
    close(fd);
}

static void ready(struct loop_watch *w, uint32_t events)
{
    struct http_linger_one *o = (struct http_linger_one *)(void *)w;
    char sink[16384];
    (void)events;
    for (int i = 0; i < READS_MAX; i++) {
        const ssize_t n = recv(w->fd, sink, sizeof sink, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        o->n_read += n > 0 ? (size_t)n : 0;
        if (n <= 0 || o->n_read > HTTP_LINGER_BYTES) {
            end(o);
            return;
        }
    }
}

void http_linger_init(struct http_linger *l, struct loop *loop)
{
    l->loop = loop;
    for (int i = 0; i < HTTP_LINGER_MAX; i++) {
        l->one[i] = (struct http_linger_one){ .watch = { .fd = -1, .ready = ready }, .loop = loop };
    }
}

void http_linger_release(struct http_linger *l)
{
    for (int i = 0; i < HTTP_LINGER_MAX; i++) {
        if (l->one[i].watch.fd >= 0) {
            end(&l->one[i]);
        }
    }
}

void http_linger_add(struct http_linger *l, int fd, uint64_t now_us)
{
    int i = 0;
    while (i < HTTP_LINGER_MAX && l->one[i].watch.fd >= 0) {
        i++;
    }
    const int copy = i < HTTP_LINGER_MAX ? dup(fd) : -1;
    if (copy < 0) {
        return;
    }
    l->one[i].until_us = now_us + HTTP_LINGER_US;
    l->one[i].n_read = 0;
    (void)shutdown(copy, SHUT_WR);
    if (loop_add(l->loop, &l->one[i].watch, copy, LOOP_IN, 0) != ERR_OK) {
        close(copy);
    }
}

uint64_t http_linger_run(struct http_linger *l, uint64_t now_us)
{
    uint64_t next_us = UINT64_MAX;
    for (int i = 0; i < HTTP_LINGER_MAX; i++) {
        struct http_linger_one *o = &l->one[i];
        if (o->watch.fd >= 0 && now_us >= o->until_us) {
            end(o);
        } else if (o->watch.fd >= 0 && o->until_us < next_us) {
            next_us = o->until_us;
        }
    }
    return next_us;
}
