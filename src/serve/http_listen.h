/* http_listen - the socket that clients connect to (serve/http_listen.c)
 *
 * Any thread; nothing is kept between calls. */
#ifndef HEARTH_HTTP_LISTEN_H
#define HEARTH_HTTP_LISTEN_H

#include "base/err.h"

#include <stdbool.h>

struct http_listen {
    int fd;    /* owns; -1: none */
    int spare; /* owns: a descriptor to give away when there is no other; -1: none */
    int port;
    bool is_remote; /* can be reached from outside this machine */
};

/* Binds host (name or address) and port (0: any free one) and listens, without blocking.
 * ERR_POLICY for an address other than loopback unless allows_remote, ERR_IO. */
enum err http_listen_open(struct http_listen *out, const char *host, int port,
                          bool allows_remote) MUST_USE;
void http_listen_close(struct http_listen *l);            /* accepts fd == -1 */
bool http_listen_has_client(const struct http_listen *l); /* one waits to be accepted */
/* Closes the connection of that client, without a descriptor for it. False: it could not. */
bool http_listen_drop(struct http_listen *l);

#endif
