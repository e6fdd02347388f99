/* ring_pread - threads that read the pieces of a ring
 *
 * The plain twin of base/ring_uring.c, for kernels and containers without io_uring and for file
 * systems that read through the page cache only. Eight threads take pieces from a list, read each
 * by one pread, and put what came of it into a queue to the owner. Both have room for all pieces of
 * a ring, so neither is ever full. On the disk it was measured with, eight reads in flight reach
 * what two hundred do (docs/decisions/0010-streaming-reads.md); more threads would only be more
 * stacks.
 *
 * A thread that has begun to read cannot be called back: closing waits for it. The ring has taken
 * all ends by then, so nobody reads any more.
 *
 * Next: base/ring.c. */
#include "base/mem.h"
#include "base/ring_kind.h"
#include "base/team.h"

#include <assert.h>

struct pool {
    const struct os_file *file; /* keeps */
    struct lock *lock;          /* of the list; woken when a piece comes, and at the end */
    struct queue *ends;         /* from the threads to the owner */
    struct ring_piece list[RING_PIECES];
    uint32_t i_list; /* the oldest */
    uint32_t n_list;
    bool is_closing;
    int n_thread;
    struct thread *threads[RING_THREADS];
};

/* The oldest piece; false when the pool closes. */
static bool next_piece(struct pool *p, struct ring_piece *out)
{
    lock_take(p->lock);
    while (p->n_list == 0 && !p->is_closing) {
        (void)lock_wait(p->lock, UINT64_MAX);
    }
    const bool is_there = p->n_list > 0;
    if (is_there) {
        *out = p->list[p->i_list];
        p->i_list = (p->i_list + 1) % RING_PIECES;
        p->n_list--;
    }
    lock_drop(p->lock);
    return is_there;
}

static void read_pieces(void *arg)
{
    struct pool *p = arg;
    mem_freeze(true);
    for (struct ring_piece x; next_piece(p, &x);) {
        const struct ring_end end = { x.id, os_read_some(p->file, x.to, x.n, x.at) };
        (void)ALWAYS(queue_push(p->ends, &end));
    }
}

static void pool_close(void *k)
{
    struct pool *p = k;
    if (p->lock != NULL) {
        lock_take(p->lock);
        p->is_closing = true;
        lock_wake(p->lock);
        lock_drop(p->lock);
    }
    for (int i = 0; i < p->n_thread; i++) {
        thread_join(p->threads[i]);
    }
    lock_close(p->lock);
    queue_close(p->ends);
    mem_free(p);
}

static enum err pool_fill(struct pool *p)
{
    TRY(lock_open(&p->lock));
    TRY(queue_open(&p->ends, RING_PIECES, sizeof(struct ring_end)));
    while (p->n_thread < RING_THREADS) {
        TRY(thread_start(&p->threads[p->n_thread], "read", read_pieces, p));
        p->n_thread++;
    }
    return ERR_OK;
}

static enum err pool_open(void **out, const struct os_file *file)
{
    struct pool *p = mem_alloc(sizeof *p);
    REQUIRE(p != NULL, ERR_MEMORY, "no memory for the list of threads that read");
    p->file = file;
    const enum err e = pool_fill(p);
    if (e != ERR_OK) {
        pool_close(p);
        return e;
    }
    *out = p;
    return ERR_OK;
}

static int pool_put(void *k, const struct ring_piece *piece)
{
    struct pool *p = k;
    lock_take(p->lock);
    p->list[(p->i_list + p->n_list++) % RING_PIECES] = *piece;
    lock_wake(p->lock);
    lock_drop(p->lock);
    return 0;
}

static int pool_take(void *k, struct ring_end *out, uint64_t timeout_us)
{
    struct pool *p = k;
    if (timeout_us > 0) {
        (void)queue_wait(p->ends, timeout_us);
    }
    return queue_pop(p->ends, out);
}

const struct ring_kind *ring_pread(void)
{
    static const struct ring_kind kind = { "pread by 8 threads", pool_open, pool_close, pool_put,
                                           pool_take };
    static_assert(RING_THREADS == 8, "as the text says");
    return &kind;
}
