/* lines - bounded lines from a descriptor
 *
 * getline(3) grows its buffer to whatever a line brings; here the maximum is given at birth and a
 * longer line is an error. Bytes are read in pieces; a line is given out as a view into the buffer,
 * and the rest moves to the front only when more must be read, so each byte is moved at most once
 * per read.
 *
 * The last line needs no newline. Zero bytes are ordinary bytes.
 *
 * Next: cmd/probe_*.c. */
#include "base/lines.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define PIECE 65536

void lines_init(struct lines *l, int fd, size_t line_max_bytes)
{
    *l = (struct lines){ .fd = fd };
    buf_init(&l->in, line_max_bytes + PIECE);
}

void lines_release(struct lines *l)
{
    buf_release(&l->in);
    *l = (struct lines){ .fd = -1 };
}

static enum err read_more(struct lines *l)
{
    char piece[PIECE];
    ssize_t n;
    do {
        n = read(l->fd, piece, sizeof piece);
    } while (n < 0 && errno == EINTR);
    REQUIRE(n >= 0, ERR_IO, "cannot read the input: %s", strerror(errno));
    if (n == 0) {
        l->is_end = true;
        return ERR_OK;
    }
    if (l->at > 0) {
        memmove(l->in.p, l->in.p + l->at, l->in.n - l->at);
        buf_cut(&l->in, l->in.n - l->at);
        l->at = 0;
    }
    buf_add(&l->in, piece, (size_t)n);
    return buf_check(&l->in, "input line");
}

enum err lines_next(struct lines *l, struct view *line, bool *has_line)
{
    size_t seen = l->at;
    for (;;) {
        const char *end = l->in.n > seen ? memchr(l->in.p + seen, '\n', l->in.n - seen) : NULL;
        if (end != NULL || (l->is_end && l->in.n > l->at)) {
            const size_t n = end != NULL ? (size_t)(end - l->in.p) : l->in.n;
            *line = (struct view){ l->in.p + l->at, n - l->at };
            *has_line = true;
            l->at = end != NULL ? n + 1 : n;
            return ERR_OK;
        }
        if (l->is_end) {
            *has_line = false;
            return ERR_OK;
        }
        seen = l->in.n - l->at; /* after read_more the rest begins at 0 */
        TRY(read_more(l));
        seen += l->at;
    }
}
