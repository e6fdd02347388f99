/* http_listen - the socket that clients connect to
 *
 * A service without keys answers whoever reaches it, so an address that others can reach is refused
 * unless the caller says that it has keys. The test is made on the address that is about to be
 * bound, not on the text of the option: a name in /etc/hosts, "0" or an IPv6 form of any kind end
 * here as the same few bytes. What is not plainly loopback counts as remote, IPv4 addresses mapped
 * into IPv6 included.
 *
 * A name may have several addresses. The first that can be bound is taken; one that is forbidden
 * ends the search, since a name that sometimes means this machine alone and sometimes all the world
 * is a mistake worth a message.
 *
 * The send buffer of the socket is small and inherited by every connection: what waits for a slow
 * client should wait with us, where it is counted, and a stream that is stopped should not have
 * megabytes on the way.
 *
 * Without a free descriptor no client can be accepted, not even to be turned away. So there is one
 * in reserve.
 *
 * Next: serve/http.c accepts on it. */
#include "serve/http_listen.h"

#include "base/buf.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG           256
#define SEND_BUFFER_BYTES (64 << 10)

/* 127.0.0.0/8 and ::1; nothing else, also not what is mapped. */
static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, a, sizeof v4);
        return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
    }
    if (a->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, a, sizeof v6);
        return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
    }
    return false;
}

/* Takes what accept(2) takes: a descriptor, and a file of the system. */
static int any_descriptor(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void give_back(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static enum err port_of(int fd, int *port)
{
    struct sockaddr_storage bound;
    socklen_t n = sizeof bound;
    char text[16] = "";
    uint64_t number = 0;
    REQUIRE(getsockname(fd, (struct sockaddr *)&bound, &n) == 0, ERR_IO,
            "cannot read the socket's address: %s", strerror(errno));
    (void)getnameinfo((struct sockaddr *)&bound, n, NULL, 0, text, sizeof text, NI_NUMERICSERV);
    REQUIRE(view_u64(view_of(text), &number), ERR_IO, "the socket has no port");
    *port = (int)number;
    return ERR_OK;
}

static enum err bind_to(struct http_listen *l, const struct addrinfo *a, const char *host, int port)
{
    const int yes = 1;
    const int send_bytes = SEND_BUFFER_BYTES;
    l->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    REQUIRE(l->fd >= 0, ERR_IO, "cannot make a socket: %s", strerror(errno));
    (void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    (void)setsockopt(l->fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes);
    (void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    REQUIRE(bind(l->fd, a->ai_addr, a->ai_addrlen) == 0 && listen(l->fd, BACKLOG) == 0, ERR_IO,
            "cannot listen on %s port %d: %s", host, port, strerror(errno));
    return port_of(l->fd, &l->port);
}

enum err http_listen_open(struct http_listen *out, const char *host, int port, bool allows_remote)
{
    struct addrinfo *found = NULL;
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    const int e = getaddrinfo(host, service, &hints, &found);
    REQUIRE(e != EAI_MEMORY, ERR_MEMORY, "no memory to look up host %s", host);
    REQUIRE(e == 0, ERR_IO, "host %s is not known here: %s", host, gai_strerror(e));
    enum err result = ERR_IO;
    for (const struct addrinfo *a = found; a != NULL && result == ERR_IO; a = a->ai_next) {
        struct http_listen l = { .fd = -1, .spare = -1, .is_remote = !is_loopback(a->ai_addr) };
        if (l.is_remote && !allows_remote) {
            result = err_set(ERR_POLICY,
                             "host %s can be reached from outside this machine, and no API keys "
                             "are set: give --api-key-file, or listen on 127.0.0.1",
                             host);
        } else {
            result = bind_to(&l, a, host, port);
        }
        if (result == ERR_OK) {
            l.spare = any_descriptor();
            *out = l;
        } else {
            http_listen_close(&l);
        }
    }
    freeaddrinfo(found);
    return result;
}

void http_listen_close(struct http_listen *l)
{
    give_back(&l->fd);
    give_back(&l->spare);
}

bool http_listen_has_client(const struct http_listen *l)
{
    struct pollfd p = { .fd = l->fd, .events = POLLIN };
    return poll(&p, 1, 0) == 1;
}

bool http_listen_drop(struct http_listen *l)
{
    give_back(&l->spare);
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
    const bool is_done = fd >= 0;
    give_back(&fd);
    l->spare = any_descriptor();
    return is_done;
}
