/* loop - one thread waiting for many descriptors
 *
 * A thin cover over epoll: the server's sockets, the engine's event descriptor, the prep thread's
 * and the signals' meet here. Work is called straight from the wait; handlers must not block.
 *
 * The trap of such loops is an event that was fetched together with others and whose owner is gone
 * when its turn comes, because an earlier handler of the same batch closed it. The batch is
 * therefore kept where loop_remove can reach it: it strikes out what is left for that watch (LO-1).
 *
 * Rejected: poll(2) with an array rebuilt at each turn (hundreds of clients), a general event
 * library (a dependency for a hundred lines).
 *
 * Next: serve/http.c, its main user. */
#include "serve/loop.h"

#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static_assert((int)LOOP_IN == (int)EPOLLIN && (int)LOOP_ERR == (int)EPOLLERR &&
                  (int)LOOP_HUP == (int)EPOLLHUP && (int)LOOP_LEFT == (int)EPOLLRDHUP,
              "events of the loop are the kernel's");

#define BATCH 64

struct loop {
    int fd;
    struct epoll_event batch[BATCH]; /* fetched, not yet handed out: [at, n) */
    int at;
    int n;
};

enum err loop_open(struct loop **out)
{
    struct loop *l = mem_alloc(sizeof *l);
    REQUIRE(l != NULL, ERR_MEMORY, "no memory for an event loop");
    l->fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->fd < 0) {
        mem_free(l);
        return err_set(ERR_IO, "cannot make an event loop: %s", strerror(errno));
    }
    *out = l;
    return ERR_OK;
}

void loop_close(struct loop *l)
{
    if (l != NULL) {
        close(l->fd);
        mem_free(l);
    }
}

enum err loop_add(struct loop *l, struct loop_watch *w, int fd, uint32_t events, int is_edge)
{
    struct epoll_event e = { .events = events | (is_edge ? (uint32_t)EPOLLET : 0),
                             .data = { .ptr = w } };
    REQUIRE(epoll_ctl(l->fd, EPOLL_CTL_ADD, fd, &e) == 0, ERR_IO, "cannot watch a descriptor: %s",
            strerror(errno));
    w->fd = fd;
    return ERR_OK;
}

void loop_remove(struct loop *l, struct loop_watch *w)
{
    if (w->fd < 0) {
        return;
    }
    (void)epoll_ctl(l->fd, EPOLL_CTL_DEL, w->fd, NULL);
    w->fd = -1;
    for (int i = l->at; i < l->n; i++) {
        if (l->batch[i].data.ptr == w) {
            l->batch[i].data.ptr = NULL;
        }
    }
}

enum err loop_wait(struct loop *l, uint64_t timeout_us)
{
    const uint64_t ms = (timeout_us + 999) / 1000;
    const int n = epoll_wait(l->fd, l->batch, BATCH, ms > 60000 ? 60000 : (int)ms);
    REQUIRE(n >= 0 || errno == EINTR, ERR_IO, "cannot wait for events: %s", strerror(errno));
    l->n = n > 0 ? n : 0;
    for (l->at = 0; l->at < l->n;) {
        const struct epoll_event e = l->batch[l->at++];
        struct loop_watch *w = e.data.ptr;
        if (w != NULL) {
            w->ready(w, e.events);
        }
    }
    l->n = l->at = 0;
    return ERR_OK;
}
