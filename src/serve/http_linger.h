/* http_linger - sockets that are read empty before they are closed (serve/http_linger.c)
 *
 * Owner: the loop thread.
 * HL-1  at most HTTP_LINGER_MAX sockets, each for at most HTTP_LINGER_US and HTTP_LINGER_BYTES. */
#ifndef HEARTH_HTTP_LINGER_H
#define HEARTH_HTTP_LINGER_H

#include "serve/loop.h"

#include <stddef.h>
#include <stdint.h>

#define HTTP_LINGER_MAX   64
#define HTTP_LINGER_US    1000000
#define HTTP_LINGER_BYTES ((size_t)64 << 20)

struct http_linger {
    struct loop *loop; /* borrows */
    struct http_linger_one {
        struct loop_watch watch; /* first: the loop's handler gets it; fd -1: free */
        struct loop *loop;
        uint64_t until_us;
        size_t n_read;
    } one[HTTP_LINGER_MAX];
};

void http_linger_init(struct http_linger *l, struct loop *loop);
void http_linger_release(struct http_linger *l); /* closes all at once */
/* Says to the client that no more comes, and reads what it still sends. `fd` stays the caller's,
 * who closes it; a copy is kept. Without room nothing happens. */
void http_linger_add(struct http_linger *l, int fd, uint64_t now_us);
/* Closes what is overdue; returns when it wants to be called again, UINT64_MAX: never. */
uint64_t http_linger_run(struct http_linger *l, uint64_t now_us);

#endif
