/* event - a descriptor that one thread sets and another one polls
 *
 * The server's loop waits for sockets and for the engine in one epoll call; the engine's side of
 * that is an eventfd. Setting it twice is as good as once, so the engine never waits for the
 * reader.
 *
 * Rejected: a pipe (can fill up, needs two descriptors).
 *
 * Next: engine/engine.c sets it when it has given out events. */
#include "base/event.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum err event_open(int *fd)
{
    const int made = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    REQUIRE(made >= 0, ERR_IO, "cannot make an event descriptor: %s", strerror(errno));
    *fd = made;
    return ERR_OK;
}

void event_close(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void event_set(int fd)
{
    const uint64_t one = 1;
    const ssize_t n =
        write(fd, &one, sizeof one); /* fails only when set 2^64 times: then it is set */
    (void)n;
}

void event_clear(int fd)
{
    uint64_t count;
    const ssize_t n = read(fd, &count, sizeof count); /* fails when not set: then it is clear */
    (void)n;
}
