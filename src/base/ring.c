/* ring - many large reads of one file in flight, past the page cache
 *
 * A model that is larger than memory is read again and again, from front to back. Through the page
 * cache that costs a copy of every byte, throws out what others keep there, and stops at each page
 * fault; one direct read after the other leaves the disk idle between them. Here the owner says
 * long before what it will need, and that is in flight while it computes.
 *
 * This file keeps the books: tickets, the pieces they are cut into, what came of each. Who reads is
 * a kind (base/ring_kind.h): io_uring where the kernel allows it, else threads. Tickets are cut in
 * their order and only as far as pieces are free, so the queue holds tickets and not pieces, and
 * nothing here grows. Nobody but the owner moves the queue on, at each of its calls; RING_PIECES
 * times RING_PIECE_BYTES, 512 MiB, are in flight before that matters.
 *
 * A piece that comes short is read on where it stopped, one that was interrupted once more. An
 * error is remembered with the lowest ticket that has it: those before it are read on, of those
 * after it nothing more is started. Whoever waits for the ticket or a later one gets the error, and
 * all tickets so far are void (RI-4): what of the file they brought is nobody's concern any more.
 * An owner that wants something else drops what is under way. What is in flight of void tickets is
 * read to its end all the same, before anything new begins (RI-1), but nobody waits for that: the
 * other reads of a disk that fails may take long, too. Cancelling was rejected: disks finish what
 * they have begun, and it needs a state more in each kind.
 *
 * A file that shrinks or changes is told by its size and mtime at each wait. Bytes of before and
 * after are never mixed without an error, as long as who writes does not set mtime back.
 *
 * Invariants RI-1 to RI-4 stand in ring.h. Next: base/ring_uring.c. */
#include "base/ring.h"

#include "base/mem.h"
#include "base/os.h"
#include "base/ring_kind.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TRIES_MAX 16         /* of a piece, one after the other without a byte */
#define DRAIN_US  1000       /* between two looks, where there is no waiting */
#define NO_TICKET UINT64_MAX /* in place of one that has an error */

/* What the kernel may hold of a piece: its request, and 16 bytes for each page of 4 KiB. */
#define KERNEL_PIECE_BYTES  (2048 + RING_PIECE_BYTES / 4096 * 16)
#define KERNEL_THREAD_BYTES (64 * 1024) /* of a thread that reads: both stacks, its task */

/* A ticket. */
struct want {
    uint64_t at;
    uint8_t *to;
    size_t n;
    size_t n_cut;  /* bytes that pieces were made of, from the front */
    size_t n_left; /* bytes that are not read yet */
};

struct flight {
    uint64_t ticket;
    struct ring_piece piece;
    int n_try; /* without a byte */
};

/* The error to be answered, of the lowest ticket that has one. */
struct fault {
    uint64_t ticket; /* NO_TICKET: none */
    uint64_t at;
    size_t n;
    long got; /* -errno, or bytes */
};

struct ring {
    struct os_file file;
    char *path; /* owns */
    bool is_direct;
    const struct ring_kind *kind;
    void *self;        /* owns: the kind's own */
    uint64_t n_ticket; /* given so far, the last one's number */
    uint64_t n_cut;    /* those up to here are cut; RI-3 */
    uint64_t n_whole;  /* those up to here have all their bytes, or are void; RI-2 */
    uint64_t n_void;   /* those up to here are void; RI-4 */
    struct fault fault;
    enum err void_err;
    char void_text[ERR_TEXT_MAX];
    struct want wants[RING_TICKETS];    /* a ticket's is [ticket % RING_TICKETS] */
    struct flight flights[RING_PIECES]; /* by the id of the piece */
    uint32_t idle[RING_PIECES];         /* ids that nobody uses */
    uint32_t again[RING_PIECES];        /* ids of pieces to be put once more */
    uint32_t n_idle;
    uint32_t n_again;
    uint32_t n_flying;
    uint32_t n_stale; /* of these, of void tickets */
    size_t fly_bytes;
    size_t most_bytes; /* then nothing more is put */
};

static struct want *want_of(struct ring *r, uint64_t ticket)
{
    return &r->wants[ticket % RING_TICKETS];
}

/* RI-4: all tickets so far are void. */
static void make_void(struct ring *r, enum err why, const char *text)
{
    r->void_err = why;
    snprintf(r->void_text, sizeof r->void_text, "%s", text);
    while (r->n_again > 0) {
        r->idle[r->n_idle++] = r->again[--r->n_again];
    }
    r->fault.ticket = NO_TICKET;
    r->n_void = r->n_cut = r->n_whole = r->n_ticket;
    r->n_stale = r->n_flying;
}

static void ring_check(const struct ring *r)
{
    assert(r->n_idle + r->n_again + r->n_flying == RING_PIECES); /* RI-3 */
    assert(r->n_stale <= r->n_flying && (r->n_flying > 0 || r->fly_bytes == 0));
    assert(r->n_void <= r->n_whole && r->n_whole <= r->n_cut && r->n_cut <= r->n_ticket);
    assert(r->n_ticket - r->n_whole <= RING_TICKETS);
}

/* --- opening and closing ---------------------------------------------------------------------- */

size_t ring_bytes(void)
{
    return sizeof(struct ring) + RING_PIECES * (size_t)KERNEL_PIECE_BYTES +
           RING_THREADS * (size_t)KERNEL_THREAD_BYTES;
}

/* Whether direct reads work; some file systems say so only now. An empty file can be read. */
static enum err try_direct(const struct ring *r)
{
    uint8_t *two = mem_alloc((size_t)2 * RING_ALIGN);
    REQUIRE(two != NULL, ERR_MEMORY, "%s: no memory to read it", r->path);
    uint8_t *to = two + (RING_ALIGN - (uintptr_t)two % RING_ALIGN) % RING_ALIGN;
    const long got = os_read_some(&r->file, to, RING_ALIGN, 0);
    mem_free(two);
    REQUIRE(got != -EINVAL, ERR_UNSUPPORTED,
            "%s: its file system does not read past the page cache", r->path);
    return ERR_OK; /* another error is for who waits for that place */
}

static enum err open_file(struct ring *r, const char *path)
{
    r->path = mem_strdup(path, strlen(path));
    REQUIRE(r->path != NULL, ERR_MEMORY, "%s: no memory to read it", path);
    if (!r->is_direct) {
        return os_open(&r->file, path);
    }
    TRY(os_open_direct(&r->file, path));
    return try_direct(r);
}

enum err ring_open_as(struct ring **out, const char *path, const struct ring_kind *kind,
                      bool is_direct)
{
    REQUIRE(kind != NULL, ERR_UNSUPPORTED, "io_uring: this build has no liburing");
    struct ring *r = mem_alloc(sizeof *r);
    REQUIRE(r != NULL, ERR_MEMORY, "%s: no memory to read it", path);
    r->file.fd = -1;
    r->is_direct = is_direct;
    r->kind = kind;
    r->fault.ticket = NO_TICKET;
    r->most_bytes = SIZE_MAX;
    while (r->n_idle < RING_PIECES) {
        r->idle[r->n_idle] = RING_PIECES - 1 - r->n_idle;
        r->n_idle++;
    }
    enum err e = open_file(r, path);
    if (e == ERR_OK) {
        e = kind->open(&r->self, &r->file);
    }
    if (e != ERR_OK) {
        ring_close(r);
        return e;
    }
    *out = r;
    return ERR_OK;
}

/* io_uring past the cache, threads past the cache, threads through it. */
enum err ring_open(struct ring **out, const char *path)
{
    enum err e =
        ring_uring() != NULL ? ring_open_as(out, path, ring_uring(), true) : ERR_UNSUPPORTED;
    e = e == ERR_UNSUPPORTED ? ring_open_as(out, path, ring_pread(), true) : e;
    return e == ERR_UNSUPPORTED ? ring_open_as(out, path, ring_pread(), false) : e;
}

bool ring_is_direct(const struct ring *r)
{
    return r->is_direct;
}

uint64_t ring_file_bytes(const struct ring *r)
{
    return r->file.size;
}

const char *ring_how(const struct ring *r)
{
    return r->kind->how;
}

/* --- pieces ----------------------------------------------------------------------------------- */

static void remember(struct ring *r, uint64_t ticket, const struct ring_piece *p, long got)
{
    if (ticket < r->fault.ticket) {
        r->fault = (struct fault){ ticket, p->at, p->n, got };
    }
}

static int put(struct ring *r, uint32_t id)
{
    const int rc = r->kind->put(r->self, &r->flights[id].piece);
    r->n_flying += rc == 0;
    r->fly_bytes += rc == 0 ? r->flights[id].piece.n : 0;
    return rc;
}

/* Makes the next piece of the next ticket; it is neither idle nor in flight then. */
static uint32_t cut(struct ring *r)
{
    struct want *w = want_of(r, r->n_cut + 1);
    const uint32_t id = r->idle[--r->n_idle];
    const size_t n = w->n - w->n_cut < RING_PIECE_BYTES ? w->n - w->n_cut : RING_PIECE_BYTES;
    r->flights[id] = (struct flight){
        .ticket = r->n_cut + 1,
        .piece = { .at = w->at + w->n_cut, .to = w->to + w->n_cut, .n = n, .id = id },
    };
    w->n_cut += n;
    r->n_cut += w->n_cut == w->n;
    return id;
}

/* Puts what can be put, but nothing of a ticket that will be void, nor beside one that is void,
 * whose memory may be given to the next. When the kernel refuses a piece the next call tries again;
 * that is an error only if nothing is in flight that could make room. */
static void move_on(struct ring *r)
{
    int rc = 0;
    if (r->n_stale > 0) {
        return;
    }
    while (rc == 0 && r->n_again > 0) {
        const uint32_t id = r->again[r->n_again - 1];
        if (r->flights[id].ticket < r->fault.ticket) {
            rc = put(r, id);
        } else {
            r->idle[r->n_idle++] = id;
        }
        r->n_again -= rc == 0;
    }
    while (rc == 0 && r->n_idle > 0 && r->n_cut < r->n_ticket && r->n_cut + 1 < r->fault.ticket &&
           r->fly_bytes < r->most_bytes) {
        const uint32_t id = cut(r);
        rc = put(r, id);
        if (rc != 0) {
            r->again[r->n_again++] = id;
        }
    }
    for (uint32_t i = 0; rc != 0 && r->n_flying == 0 && i < r->n_again; i++) {
        const struct flight *f = &r->flights[r->again[i]];
        remember(r, f->ticket, &f->piece, rc);
    }
}

/* Bytes that a piece must bring: the file may end in it. */
static size_t due(const struct ring *r, const struct ring_piece *p)
{
    return r->file.size - p->at < p->n ? (size_t)(r->file.size - p->at) : p->n;
}

/* What a read brought that is over. */
static void settle(struct ring *r, const struct ring_end *end)
{
    struct flight *f = &r->flights[end->id];
    struct ring_piece *p = &f->piece;
    const long got = os_read_end(p->at, p->n, end->got);
    r->n_flying--;
    r->fly_bytes -= p->n;
    if (f->ticket <= r->n_void) {
        r->n_stale--;
        r->idle[r->n_idle++] = end->id;
        return;
    }
    if (got >= 0 && (size_t)got >= due(r, p)) {
        struct want *w = want_of(r, f->ticket);
        w->n_left -= p->n;
        if (!r->is_direct) {
            os_read_drop(&r->file, p->at, p->n);
        }
        r->idle[r->n_idle++] = end->id;
        return;
    }
    /* what is not whole blocks is read once more */
    const size_t n_more = got > 0 ? (size_t)got / RING_ALIGN * RING_ALIGN : 0;
    f->n_try = n_more > 0 ? 0 : f->n_try + 1;
    want_of(r, f->ticket)->n_left -= n_more;
    p->at += n_more;
    p->to = (uint8_t *)p->to + n_more;
    p->n -= n_more;
    const bool may_go_on = got > 0 || got == -EINTR || got == -EAGAIN;
    if (may_go_on && f->n_try < TRIES_MAX) {
        r->again[r->n_again++] = end->id;
        return;
    }
    remember(r, f->ticket, p, got);
    r->idle[r->n_idle++] = end->id;
}

/* Takes what has ended, and waits that long if nothing has. When the kernel does not let us wait,
 * nothing that is open will be whole. */
static void take(struct ring *r, uint64_t timeout_us)
{
    struct ring_end end;
    int rc = 1;
    while (rc > 0 && r->n_flying > 0) {
        rc = r->kind->take(r->self, &end, timeout_us);
        if (rc > 0) {
            settle(r, &end);
        }
        timeout_us = 0;
    }
    if (rc < 0 && r->n_whole < r->n_ticket) {
        const struct want *w = want_of(r, r->n_whole + 1);
        remember(r, r->n_whole + 1, &(struct ring_piece){ .at = w->at, .n = w->n }, rc);
    }
    while (r->n_whole < r->n_ticket && want_of(r, r->n_whole + 1)->n_left == 0) {
        r->n_whole++;
    }
    move_on(r);
    ring_check(r);
}

/* Waits until nothing is in flight, and starts nothing. It ends as reads do, also where the kernel
 * does not let us wait for them. */
static void drain(struct ring *r)
{
    struct ring_end end;
    while (r->n_flying > 0) {
        const int rc = r->kind->take(r->self, &end, UINT64_MAX);
        if (rc > 0) {
            r->n_flying--;
            r->fly_bytes -= r->flights[end.id].piece.n;
            r->idle[r->n_idle++] = end.id;
        } else if (rc < 0) {
            os_sleep_us(DRAIN_US);
        }
    }
}

void ring_close(struct ring *r)
{
    if (r != NULL) {
        drain(r);
        if (r->self != NULL) {
            r->kind->close(r->self);
        }
        os_close(&r->file);
        mem_free(r->path);
        mem_free(r);
    }
}

/* --- tickets ---------------------------------------------------------------------------------- */

enum err ring_start(struct ring *r, uint64_t at, void *to, size_t n, uint64_t *ticket)
{
    const uint64_t size = r->file.size;
    const uint64_t room = at < size ? (size - at + RING_ALIGN - 1) / RING_ALIGN * RING_ALIGN : 0;
    REQUIRE(at % RING_ALIGN == 0 && n % RING_ALIGN == 0 && (uintptr_t)to % RING_ALIGN == 0,
            ERR_USAGE, "%s: %zu bytes at %llu are no blocks of %d bytes", r->path, n,
            (unsigned long long)at, RING_ALIGN);
    REQUIRE(n > 0 && n <= room, ERR_USAGE, "%s: %zu bytes at %llu were asked for, it has %llu",
            r->path, n, (unsigned long long)at, (unsigned long long)size);
    REQUIRE(r->n_ticket - r->n_whole < RING_TICKETS, ERR_BUSY,
            "%s: %d reads are under way or wait, more are not possible", r->path, RING_TICKETS);
    r->n_ticket++;
    *want_of(r, r->n_ticket) = (struct want){ .at = at, .to = to, .n = n, .n_left = n };
    *ticket = r->n_ticket;
    take(r, 0);
    return ERR_OK;
}

/* The text of what was remembered, or that the file has changed, which is why then. */
static enum err answer(struct ring *r)
{
    TRY(os_same(&r->file, r->path));
    const struct fault *f = &r->fault;
    const unsigned long long at = f->at;
    REQUIRE(f->got != 0, ERR_INTEGRITY, "%s: it ends at byte %llu, where %zu more are wanted",
            r->path, at, f->n);
    REQUIRE(f->got < 0, ERR_IO, "%s: reading %zu bytes at %llu: only %ld come", r->path, f->n, at,
            f->got);
    return err_set(ERR_IO, "%s: reading %zu bytes at %llu: %s", r->path, f->n, at,
                   strerror((int)-f->got));
}

/* RI-4 */
static enum err give_up(struct ring *r, enum err why)
{
    make_void(r, why, err_text());
    return why;
}

void ring_drop(struct ring *r)
{
    make_void(r, ERR_CANCELLED, "the read was dropped");
}

bool ring_has(const struct ring *r, uint64_t ticket)
{
    return ticket > r->n_void && ticket <= r->n_ticket &&
           (ticket <= r->n_whole || r->wants[ticket % RING_TICKETS].n_left == 0);
}

/* What somebody waits for: one of tickets[n], or tickets[0] and all before it. */
struct goal {
    const uint64_t *tickets;
    int n;
    bool is_in_order;
};

static bool is_met(const struct ring *r, const struct goal *g)
{
    int i = 0;
    if (g->is_in_order) {
        return g->tickets[0] <= r->n_whole;
    }
    while (i < g->n && !ring_has(r, g->tickets[i])) {
        i++;
    }
    return i < g->n;
}

static enum err wait_until(struct ring *r, const struct goal *g, uint64_t timeout_us)
{
    for (int i = 0; i < g->n; i++) {
        REQUIRE(g->tickets[i] > r->n_void, r->void_err, "%s", r->void_text);
    }
    const uint64_t last = g->is_in_order ? g->tickets[0] : NO_TICKET - 1;
    const uint64_t now = os_now_us();
    const uint64_t end = timeout_us < UINT64_MAX - now ? now + timeout_us : UINT64_MAX;
    take(r, 0);
    while (!is_met(r, g) && r->fault.ticket > last) {
        const uint64_t begin = os_now_us();
        REQUIRE(begin < end, ERR_BUSY, "%s: the read is not over yet", r->path);
        take(r, end - begin);
    }
    const enum err e = is_met(r, g) ? os_same(&r->file, r->path) : answer(r);
    return e != ERR_OK ? give_up(r, e) : ERR_OK;
}

enum err ring_wait(struct ring *r, uint64_t ticket)
{
    return ring_wait_for(r, ticket, UINT64_MAX);
}

enum err ring_wait_for(struct ring *r, uint64_t ticket, uint64_t timeout_us)
{
    const struct goal g = { &ticket, 1, true };
    REQUIRE(ticket <= r->n_ticket, ERR_USAGE, "%s: read %llu was waited for, %llu were started",
            r->path, (unsigned long long)ticket, (unsigned long long)r->n_ticket);
    return ticket == 0 ? ERR_OK : wait_until(r, &g, timeout_us);
}

enum err ring_wait_any(struct ring *r, const uint64_t *tickets, int n, uint64_t timeout_us)
{
    return wait_until(r, &(struct goal){ tickets, n, false }, timeout_us);
}

enum err ring_same(struct ring *r)
{
    const enum err e = os_same(&r->file, r->path);
    return e != ERR_OK ? give_up(r, e) : ERR_OK;
}

void ring_narrow(struct ring *r, size_t most_bytes)
{
    r->most_bytes = most_bytes;
}

bool ring_poll(struct ring *r, uint64_t ticket)
{
    take(r, 0);
    return ticket <= r->n_whole || ticket > r->n_ticket || ticket >= r->fault.ticket;
}
