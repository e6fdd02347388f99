/* ring_uring - the pieces of a ring as entries of io_uring
 *
 * Each piece is one read that is handed to the kernel at once: with O_DIRECT it goes to the disk's
 * queue before the call returns, so that the disk works on while the owner computes, with no thread
 * of ours. What does not fit into the disk's queue waits in threads of the kernel, at most
 * IOWQ_THREADS.
 *
 * A call for each piece instead of one for all: 250 calls for half a gigabyte are nothing beside
 * what pinning its pages costs, and an entry that the kernel refuses is the last one in the queue
 * then. Such an entry is made one that does nothing, since entries cannot be taken back, and the
 * ring puts its piece again later.
 *
 * Rejected, as they gained nothing at 2 MiB a piece (docs/decisions/0010-streaming-reads.md):
 * registered buffers and files, a polling thread of the kernel, deferred completions.
 *
 * io_uring may be forbidden (seccomp in containers, kernel.io_uring_disabled) or too old for plain
 * reads (before 5.6): open finds out by reading once, and the ring takes threads instead.
 *
 * Next: base/ring_pread.c, the twin. */
#include "base/mem.h"
#include "base/ring_kind.h"

#include <errno.h>
#include <liburing.h>
#include <string.h>

#define IOWQ_THREADS 8
#define ID_NONE      UINT32_MAX          /* of an entry that does nothing */
#define WAIT_MAX_US  ((uint64_t)1 << 40) /* longer is without end */

struct uring {
    struct io_uring u;
    int fd; /* keeps */
};

static void uring_close(void *k)
{
    struct uring *r = k;
    io_uring_queue_exit(&r->u);
    mem_free(r);
}

static int uring_put(void *k, const struct ring_piece *p)
{
    struct uring *r = k;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->u);
    if (sqe == NULL) {
        (void)io_uring_submit(&r->u); /* entries that do nothing fill the queue */
        sqe = io_uring_get_sqe(&r->u);
    }
    if (sqe == NULL) {
        return -EBUSY;
    }
    io_uring_prep_read(sqe, r->fd, p->to, (unsigned)p->n, p->at);
    sqe->user_data = p->id;
    const int rc = io_uring_submit(&r->u);
    if (io_uring_sq_ready(&r->u) == 0) {
        return 0;
    }
    io_uring_prep_nop(sqe);
    sqe->user_data = ID_NONE;
    return rc < 0 ? rc : -EBUSY;
}

/* 0 and an entry that is over; or -errno, -EAGAIN: there is none. */
static int wait_entry(struct uring *r, struct io_uring_cqe **cqe, uint64_t timeout_us)
{
    const int rc = io_uring_peek_cqe(&r->u, cqe); /* what is over is seen whatever waiting says */
    if (rc != -EAGAIN || timeout_us == 0) {
        return rc;
    }
    struct __kernel_timespec ts = { .tv_sec = (long long)(timeout_us / 1000000),
                                    .tv_nsec = (long long)(timeout_us % 1000000 * 1000) };
    return io_uring_wait_cqe_timeout(&r->u, cqe, timeout_us < WAIT_MAX_US ? &ts : NULL);
}

static int uring_take(void *k, struct ring_end *out, uint64_t timeout_us)
{
    struct uring *r = k;
    for (;;) {
        struct io_uring_cqe *cqe = NULL;
        const int rc = wait_entry(r, &cqe, timeout_us);
        if (rc == -EAGAIN || rc == -EINTR || rc == -ETIME) {
            return 0;
        }
        if (rc != 0 || !ALWAYS(cqe != NULL)) {
            return rc != 0 ? rc : -EIO;
        }
        *out = (struct ring_end){ (uint32_t)cqe->user_data, cqe->res };
        io_uring_cqe_seen(&r->u, cqe);
        if (out->id != ID_NONE) {
            return 1;
        }
    }
}

/* Whether reads work: of no bytes, which needs no aligned memory. */
static int try_read(struct uring *r)
{
    const struct ring_piece nothing = { .id = 0 };
    struct ring_end end = { 0 };
    const int rc = uring_put(r, &nothing);
    const int n = rc == 0 ? uring_take(r, &end, UINT64_MAX) : rc;
    return n == 1 ? (int)end.got : n < 0 ? n : -EIO;
}

static enum err uring_open(void **out, const struct os_file *file)
{
    struct uring *r = mem_alloc(sizeof *r);
    REQUIRE(r != NULL, ERR_MEMORY, "no memory for io_uring");
    r->fd = file->fd;
    int rc = io_uring_queue_init(RING_PIECES, &r->u, 0);
    if (rc < 0) {
        mem_free(r);
        return err_set(ERR_UNSUPPORTED, "io_uring: %s", strerror(-rc));
    }
    unsigned most[2] = { IOWQ_THREADS, 0 };
    (void)io_uring_register_iowq_max_workers(&r->u, most); /* since 5.15 */
    rc = try_read(r);
    if (rc < 0) {
        uring_close(r);
        return err_set(ERR_UNSUPPORTED, "io_uring: cannot read: %s", strerror(-rc));
    }
    *out = r;
    return ERR_OK;
}

const struct ring_kind *ring_uring(void)
{
    static const struct ring_kind kind = { "io_uring", uring_open, uring_close, uring_put,
                                           uring_take };
    return &kind;
}
