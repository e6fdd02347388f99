/* loop - one thread waiting for many descriptors (serve/loop.c)
 *
 * Owner: the thread that calls loop_wait. A watch is embedded in what it is about and stays its
 * owner's; nothing is allocated per watch.
 * LO-1  a watch that was removed is never called again, also when its event was already fetched. */
#ifndef HEARTH_LOOP_H
#define HEARTH_LOOP_H

#include "base/err.h"

#include <stdint.h>

/* What the kernel may report; the values are those of epoll. */
enum {
    LOOP_IN = 0x001,   /* something can be read */
    LOOP_ERR = 0x008,  /* always reported */
    LOOP_HUP = 0x010,  /* always reported: both directions are closed */
    LOOP_LEFT = 0x2000 /* the other side will send no more */
};

struct loop;

struct loop_watch {
    int fd; /* -1 while not watched */
    void (*ready)(struct loop_watch *w, uint32_t events);
};

enum err loop_open(struct loop **out) MUST_USE;
void loop_close(struct loop *l); /* accepts NULL; watches need not be removed before */

/* Watches fd for `events`. With is_edge each change is reported once, else a condition is reported
 * as long as it holds. ERR_IO when the kernel has no room. */
enum err loop_add(struct loop *l, struct loop_watch *w, int fd, uint32_t events,
                  int is_edge) MUST_USE;
void loop_remove(struct loop *l, struct loop_watch *w); /* accepts what is not watched */

/* Calls `ready` of all watches that have something, after waiting at most timeout_us for the first.
 */
enum err loop_wait(struct loop *l, uint64_t timeout_us) MUST_USE;

#endif
