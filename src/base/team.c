/* team - worker threads that run one function together, and what else needs more than one thread
 *
 * The team is built for steps of microseconds: a token of a small model calls team_run about 150
 * times, so waking a thread each time would cost more than the work. A worker waits for the next
 * job by spinning for some microseconds on a word and then sleeps on a futex; the caller waits for
 * the workers in the same way. Spinning longer was rejected: peers that only spin lose nine tenths
 * of their speed as soon as another process wants a core, and burn energy while idle.
 *
 * Nobody waits for a worker that has not come. The word holds a job number, a door and the number
 * of workers inside; a worker enters by counting itself in while the door is open. Work is taken in
 * chunks, so the caller can finish alone; it then shuts the door and waits only for those inside. A
 * worker whose core is busy with something else comes late, finds the door shut and waits for the
 * next job.
 *
 * Each worker has a share of the chunks with a counter of its own, and goes to the others' when its
 * own is used up. A counter that all shared was a cache line that went from core to core with each
 * chunk, and gave a worker other rows and weights every time; both cost most where cores have no
 * cache in common. A counter carries the number of its job: one with an old number counts as not
 * begun, so nobody has to reset the counters of workers that may not come. The sizes of shares
 * follow the speeds that were measured, where these differ by more than an eighth.
 *
 * Everything else here is a thin coat over POSIX threads: a bounded queue, a thread, a lock with a
 * condition on the monotonic clock. Locks and atomics exist nowhere above this layer.
 *
 * Invariants TE-1 to TE-3 stand in team.h. Next: base/db.c. */
#include "base/team.h"

#include "base/cell.h"
#include "base/cgroup.h"
#include "base/cpu.h"
#include "base/os.h"
#include "base/topo.h"

#include <errno.h>
#include <linux/futex.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPIN_US         60 /* most waits between two jobs of one token are shorter */
#define SPIN_CROWDED    50 /* rounds when there are more workers than cores: nearly none */
#define SPIN_ROUNDS_MAX 40000
#define LINE            64  /* bytes of a cache line: hot words do not share one */
#define LINE_PAIR       128 /* processors fetch lines in pairs */
#define EDGE_ALL        65536u
#define TUNE_JOBS       256 /* some milliseconds of a small model's answer */
#define CHUNKS_COUNTED  4   /* a worker: jobs of fewer chunks say nothing about speeds */

/* One word that some threads wait on until it changes. */
struct gate {
    _Atomic uint32_t word;
    _Atomic uint32_t n_sleeping;
    char pad[LINE - 2 * sizeof(uint32_t)]; /* the next word lies in another line */
};

/* Chunks of a worker's share that are taken: job number << 32 | the next one. */
struct share {
    _Atomic uint64_t word;
    _Atomic uint64_t n_done; /* chunks that its worker has computed, of all shares, since tune */
    char pad[LINE_PAIR - 2 * sizeof(uint64_t)];
};

/* What team_share works on. */
struct work {
    team_part_fn fn;
    void *arg;
    int n_item;
    int grain;
    int n_chunk;
};

struct team {
    struct gate go;   /* job number, workers inside, door */
    struct gate done; /* workers that have left, ever */
    uint32_t n_done;  /* its value when no job runs; owner: the caller */
    uint32_t i_share; /* number of team_share calls, never 0 in one; owner: the caller */
    team_fn fn;
    void *arg;
    struct work work;
    const struct topo *topo; /* workers are bound to its cores; NULL: left to the system */
    int n_worker;
    int spin_rounds;
    _Atomic bool is_closing; /* a worker that comes late from an old job reads it at any time */
    struct share *shares;    /* [n_worker], owns */
    uint32_t *edges;         /* [n_worker + 1], owns: where shares begin, in 1 / EDGE_ALL */
    uint32_t *speeds;        /* [n_worker], behind edges: chunks it does, in 1 / EDGE_ALL of all */
    pthread_t *threads;      /* [n_worker - 1], owns */
};

struct member {
    struct team *team;
    int i_worker;
};

/* Rounds that take SPIN_US. A pause takes 4 ns on one processor and 50 on another, so it is
 * measured; the least of three counts, since being taken off the core only makes it longer. */
static int spin_rounds(void)
{
    const int n = 1000;
    uint64_t least_us = UINT64_MAX;
    for (int i = 0; i < 3; i++) {
        const uint64_t from_us = os_now_us();
        for (int k = 0; k < n; k++) {
            cpu_pause();
        }
        const uint64_t us = os_now_us() - from_us;
        least_us = us < least_us ? us : least_us;
    }
    const uint64_t rounds = (uint64_t)n * SPIN_US / (least_us > 0 ? least_us : 1);
    return rounds < SPIN_ROUNDS_MAX ? (int)rounds : SPIN_ROUNDS_MAX;
}

/* Waits until the word differs from `old`; returns the new value. */
static uint32_t gate_wait(struct gate *g, uint32_t old, int spin_rounds)
{
    uint32_t now;
    for (int i = 0; i < spin_rounds; i++) {
        /* acquire: what the setter wrote before opening is seen after */
        now = atomic_load_explicit(&g->word, memory_order_acquire);
        if (now != old) {
            return now;
        }
        cpu_pause();
    }
    /* seq_cst on both words: either the setter sees us sleeping, or we see its new word */
    atomic_fetch_add(&g->n_sleeping, 1);
    while ((now = atomic_load(&g->word)) == old) {
        syscall(SYS_futex, &g->word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    }
    atomic_fetch_sub(&g->n_sleeping, 1);
    return now;
}

static void gate_add(struct gate *g, uint32_t n)
{
    atomic_fetch_add(&g->word, n); /* seq_cst: see gate_wait */
    if (atomic_load(&g->n_sleeping) > 0) {
        syscall(SYS_futex, &g->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
}

/* The word `go`: job number << 16 | workers inside << 1 | door open. */
#define OPEN       1u
#define ONE_INSIDE 2u

static uint32_t n_inside(uint32_t word)
{
    return word >> 1 & 0x7FFFu;
}

static uint32_t job_of(uint32_t word)
{
    return word >> 16;
}

/* Makes the calling thread worker i. */
static void place(const struct team *t, int i_worker)
{
    if (t->topo != NULL) {
        topo_bind(t->topo, i_worker);
    }
}

static void *member_main(void *arg)
{
    const struct member m = *(struct member *)arg;
    struct team *t = m.team;
    mem_free(arg);
    mem_freeze(true); /* TE-2 */
    place(t, m.i_worker);
    uint32_t seen = 0; /* the word after which this worker has nothing to do */
    for (;;) {
        uint32_t word = gate_wait(&t->go, seen, t->spin_rounds);
        if (atomic_load_explicit(&t->is_closing, memory_order_relaxed)) { /* ordered by `go` */
            return NULL;
        }
        const bool is_new = job_of(word) != job_of(seen);
        seen = word;
        /* acquire: the job's function and argument; release pairs with the caller's exchange */
        if (is_new && (word & OPEN) != 0) {
            bool is_in = false;
            const uint32_t job = job_of(word);
            while (!is_in && (word & OPEN) != 0 && job_of(word) == job) {
                is_in = atomic_compare_exchange_weak(&t->go.word, &word, word + ONE_INSIDE);
            }
            seen = is_in ? word + ONE_INSIDE : word;
            if (is_in) {
                t->fn(t->arg, m.i_worker);
                gate_add(&t->done, 1);
            } else if (job_of(word) != job) {
                seen = word - (1u << 16); /* another job came meanwhile: look at it */
            }
        }
    }
}

static bool can_have_stack(void)
{
    void *at = mmap(NULL, TEAM_STACK_BYTES, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    return at != MAP_FAILED && munmap(at, TEAM_STACK_BYTES) == 0;
}

/* With the limits that there are, of which the kernel does not say which it was. */
static enum err no_more(const char *what)
{
    struct rlimit r = { RLIM_INFINITY, RLIM_INFINITY };
    const uint64_t left = cgroup_threads("");
    char user[64] = "";
    char group[64] = "";
    if (getrlimit(RLIMIT_NPROC, &r) == 0 && r.rlim_cur != RLIM_INFINITY) {
        snprintf(user, sizeof user, "ulimit -u allows this user %llu in all; ",
                 (unsigned long long)r.rlim_cur);
    }
    if (left != UINT64_MAX) {
        snprintf(group, sizeof group, "pids.max of the cgroup leaves %llu; ",
                 (unsigned long long)left);
    }
    return err_set(ERR_IO,
                   "cannot start %s: no more threads are allowed here: %s%sraise that, or give "
                   "fewer --threads",
                   what, user, group);
}

/* EAGAIN is the answer to both too little memory for a stack and too many threads: whether a stack
 * could be had tells them apart. What could be had now, but could not just before, is tried again.
 */
static enum err create(pthread_t *id, void *(*fn)(void *), void *arg, const char *what)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, TEAM_STACK_BYTES);
    int rc = pthread_create(id, &attr, fn, arg);
    if (rc == EAGAIN) {
        rc = can_have_stack() ? pthread_create(id, &attr, fn, arg) : ENOMEM;
    }
    pthread_attr_destroy(&attr);
    REQUIRE(rc != ENOMEM, ERR_MEMORY, "cannot start %s: no memory for its stack of %u KiB", what,
            TEAM_STACK_BYTES >> 10);
    if (rc == EAGAIN) {
        return no_more(what);
    }
    REQUIRE(rc == 0, ERR_IO, "cannot start %s: %s", what, strerror(rc));
    return ERR_OK;
}

static enum err start_members(struct team *t)
{
    enum err e = ERR_OK;
    int n = 1;
    for (; n < t->n_worker && e == ERR_OK; n++) {
        struct member *m = mem_alloc(sizeof *m);
        if (m == NULL) {
            e = err_set(ERR_MEMORY, "no memory for worker %d", n);
            break;
        }
        *m = (struct member){ t, n };
        char what[48];
        snprintf(what, sizeof what, "worker thread %d of %d", n, t->n_worker - 1);
        e = create(&t->threads[n - 1], member_main, m, what);
        if (e != ERR_OK) {
            mem_free(m);
            break;
        }
    }
    if (e != ERR_OK) {
        t->n_worker = n; /* those that run */
    }
    return e;
}

enum err team_open(struct team **out, int n_worker)
{
    REQUIRE(n_worker >= 1 && n_worker <= 1024, ERR_USAGE,
            "%d threads were asked for, 1..1024 are possible", n_worker);
    struct team *t = mem_alloc(sizeof *t);
    pthread_t *threads = mem_alloc_array((size_t)n_worker, sizeof threads[0]);
    struct share *shares = mem_alloc_array((size_t)n_worker, sizeof shares[0]);
    uint32_t *edges = mem_alloc_array(2 * (size_t)n_worker + 1, sizeof edges[0]);
    if (t == NULL || threads == NULL || shares == NULL || edges == NULL) {
        mem_free(t);
        mem_free(threads);
        mem_free(shares);
        mem_free(edges);
        return err_set(ERR_MEMORY, "no memory for %d workers", n_worker);
    }
    t->threads = threads;
    t->shares = shares;
    t->edges = edges;
    t->speeds = edges + n_worker + 1;
    for (uint32_t i = 0; i < (uint32_t)n_worker; i++) {
        t->edges[i] = EDGE_ALL * i / (uint32_t)n_worker;
        t->speeds[i] = EDGE_ALL / (uint32_t)n_worker;
    }
    t->edges[n_worker] = EDGE_ALL;
    t->n_worker = n_worker;
    /* read here, since a worker may not take the memory (TE-2) */
    t->topo = n_worker <= topo_get()->n_core ? topo_get() : NULL;
    /* spinning on a core that the others need helps nobody */
    t->spin_rounds = n_worker <= cpu_get()->n_core ? spin_rounds() : SPIN_CROWDED;
    const enum err e = start_members(t);
    if (e != ERR_OK) {
        team_close(t);
        return e;
    }
    *out = t;
    return ERR_OK;
}

void team_close(struct team *t)
{
    if (t == NULL) {
        return;
    }
    atomic_store_explicit(&t->is_closing, true, memory_order_relaxed); /* `go` orders it */
    gate_add(&t->go, 1u << 16);
    for (int i = 1; i < t->n_worker; i++) {
        pthread_join(t->threads[i - 1], NULL);
    }
    mem_free(t->threads);
    mem_free(t->shares);
    mem_free(t->edges);
    mem_free(t);
}

int team_size(const struct team *t)
{
    return t->n_worker;
}

void team_sit(const struct team *t)
{
    place(t, 0);
}

void team_run(struct team *t, team_fn fn, void *arg)
{
    if (t->n_worker == 1) {
        fn(arg, 0);
        return;
    }
    t->fn = fn;
    t->arg = arg;
    /* only this thread changes job numbers, and nobody is inside: a plain store would do, but for
     * sleepers */
    const uint32_t word = atomic_load_explicit(&t->go.word, memory_order_relaxed);
    const uint32_t job = (job_of(word) + 1) << 16;
    atomic_store(&t->go.word, job | OPEN);
    if (atomic_load(&t->go.n_sleeping) > 0) {
        syscall(SYS_futex, &t->go.word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
    fn(arg, 0);
    const uint32_t last = atomic_fetch_and(&t->go.word, ~OPEN); /* from here on nobody enters */
    const uint32_t target = t->n_done + n_inside(last);
    for (uint32_t now;
         (now = atomic_load_explicit(&t->done.word, memory_order_acquire)) != target;) {
        gate_wait(&t->done, now, t->spin_rounds);
    }
    t->n_done = target;
}

/* The next chunk of a worker's share; -1: none is left. Relaxed: only tickets, and team_run orders
 * what they stand for. */
static int take_chunk(struct team *t, int i_worker)
{
    const int64_t n = t->work.n_chunk;
    const uint32_t begin = (uint32_t)(n * t->edges[i_worker] / EDGE_ALL);
    const uint32_t end = (uint32_t)(n * t->edges[i_worker + 1] / EDGE_ALL);
    const uint64_t job = (uint64_t)t->i_share << 32;
    _Atomic uint64_t *word = &t->shares[i_worker].word;
    uint64_t was = atomic_load_explicit(word, memory_order_relaxed);
    for (;;) {
        const uint32_t at = was >> 32 == t->i_share ? (uint32_t)was : begin;
        if (at >= end) {
            return -1;
        }
        if (atomic_compare_exchange_weak_explicit(word, &was, job | (at + 1), memory_order_relaxed,
                                                  memory_order_relaxed)) {
            return (int)at;
        }
    }
}

static void share_worker(void *arg, int i_worker)
{
    struct team *t = arg;
    const struct work *w = &t->work;
    uint64_t n = 0;
    for (int i = 0; i < t->n_worker; i++) {
        const int of = (i_worker + i) % t->n_worker;
        for (int chunk; (chunk = take_chunk(t, of)) >= 0; n++) {
            const int from = chunk * w->grain;
            w->fn(w->arg, from, w->n_item - from < w->grain ? w->n_item : from + w->grain);
        }
    }
    if (w->n_chunk >= CHUNKS_COUNTED * t->n_worker) {
        atomic_fetch_add_explicit(&t->shares[i_worker].n_done, n, memory_order_relaxed);
    }
}

/* Shares for the speeds of workers, as they were of late: an efficiency core, or one that another
 * program uses too, begins with less. Small differences change nothing, so that workers keep what
 * lies in their caches. Between two jobs. */
static void tune(struct team *t)
{
    const uint32_t n = (uint32_t)t->n_worker;
    uint64_t all = 0;
    for (uint32_t i = 0; i < n; i++) {
        all += atomic_load_explicit(&t->shares[i].n_done, memory_order_relaxed);
    }
    if (all == 0) {
        return;
    }
    uint64_t sum = 0;
    bool is_even = true;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t done = atomic_load_explicit(&t->shares[i].n_done, memory_order_relaxed);
        atomic_store_explicit(&t->shares[i].n_done, 0, memory_order_relaxed);
        t->speeds[i] = (uint32_t)((t->speeds[i] + EDGE_ALL * done / all) / 2);
        const uint64_t off = (uint64_t)t->speeds[i] * n; /* EDGE_ALL when as fast as the others */
        is_even = is_even && off > EDGE_ALL / 8 * 7 && off < EDGE_ALL / 8 * 9;
        sum += t->speeds[i];
    }
    uint64_t before = 0;
    for (uint32_t i = 0; i < n; i++) {
        t->edges[i] = (uint32_t)(is_even ? EDGE_ALL * i / n : EDGE_ALL * before / sum);
        before += t->speeds[i];
    }
}

void team_share(struct team *t, team_part_fn fn, void *arg, int n_item, int grain)
{
    if (t->n_worker == 1 || n_item <= grain) {
        fn(arg, 0, n_item);
        return;
    }
    t->work = (struct work){ fn, arg, n_item, grain, (n_item - 1) / grain + 1 };
    if (t->i_share % TUNE_JOBS == 0) {
        tune(t);
    }
    if (++t->i_share == 0) { /* numbers begin anew: none of before may be taken for one of after */
        for (int i = 0; i < t->n_worker; i++) {
            atomic_store_explicit(&t->shares[i].word, 0, memory_order_relaxed);
        }
        t->i_share = 1;
    }
    team_run(t, share_worker, t);
}

/* --- memory ----------------------------------------------------------------------------------- */

#define TOUCH_BYTES ((size_t)8 << 20)

struct touch {
    const struct arena *arena;
    struct cell n_failed;
};

static void touch_part(void *arg, int from, int to)
{
    struct touch *t = arg;
    for (int i = from; i < to; i++) {
        const enum err e = arena_touch(t->arena, (size_t)i * TOUCH_BYTES, TOUCH_BYTES);
        cell_add(&t->n_failed, e != ERR_OK);
    }
}

enum err team_arena(struct team *t, struct arena *out, size_t n_bytes)
{
    struct touch touch = { .arena = out };
    TRY(arena_open(out, n_bytes, false));
    topo_spread(out->base, out->cap);
    team_share(t, touch_part, &touch, (int)(out->cap / TOUCH_BYTES) + 1, 1);
    return cell_get(&touch.n_failed) == 0 ? ERR_OK : arena_touch(out, 0, out->cap); /* says why */
}

/* --- threads and locks --------------------------------------------------------------------- */

struct thread {
    pthread_t id;
    void (*fn)(void *);
    void *arg;
    char name[16];
};

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    pthread_setname_np(pthread_self(), t->name);
    t->fn(t->arg);
    return NULL;
}

enum err thread_start(struct thread **out, const char *name, void (*fn)(void *), void *arg)
{
    struct thread *t = mem_alloc(sizeof *t);
    REQUIRE(t != NULL, ERR_MEMORY, "no memory for thread %s", name);
    t->fn = fn;
    t->arg = arg;
    snprintf(t->name, sizeof t->name, "%s", name);
    char what[32];
    snprintf(what, sizeof what, "thread %s", t->name);
    const enum err e = create(&t->id, thread_main, t, what);
    if (e != ERR_OK) {
        mem_free(t);
        return e;
    }
    *out = t;
    return ERR_OK;
}

void thread_join(struct thread *t)
{
    if (t != NULL) {
        pthread_join(t->id, NULL);
        mem_free(t);
    }
}

struct lock {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
};

enum err lock_open(struct lock **out)
{
    struct lock *l = mem_alloc(sizeof *l);
    REQUIRE(l != NULL, ERR_MEMORY, "no memory for a lock");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->cond, &attr);
    pthread_condattr_destroy(&attr);
    *out = l;
    return ERR_OK;
}

void lock_close(struct lock *l)
{
    if (l != NULL) {
        pthread_cond_destroy(&l->cond);
        pthread_mutex_destroy(&l->mutex);
        mem_free(l);
    }
}

void lock_take(struct lock *l)
{
    pthread_mutex_lock(&l->mutex);
}

void lock_drop(struct lock *l)
{
    pthread_mutex_unlock(&l->mutex);
}

/* The moment so long from now, at most a year: later would overflow time_t somewhere. The kernel's
 * clock, not os.h's: the kernel is who waits. */
static struct timespec moment_in(uint64_t timeout_us)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    const uint64_t most_us = 86400ull * 365 * 1000000;
    const uint64_t us = timeout_us < most_us ? timeout_us : most_us;
    const uint64_t ns = (uint64_t)at.tv_nsec + us % 1000000 * 1000;
    at.tv_sec += (time_t)(us / 1000000 + ns / 1000000000);
    at.tv_nsec = (long)(ns % 1000000000);
    return at;
}

static bool wait_until(struct lock *l, const struct timespec *moment)
{
    return pthread_cond_timedwait(&l->cond, &l->mutex, moment) != ETIMEDOUT;
}

bool lock_wait(struct lock *l, uint64_t timeout_us)
{
    const struct timespec moment = moment_in(timeout_us);
    return wait_until(l, &moment);
}

void lock_wake(struct lock *l)
{
    pthread_cond_broadcast(&l->cond);
}

/* --- queue ------------------------------------------------------------------------------------ */

struct queue {
    struct lock *lock;
    uint8_t *ring; /* [n_max][each_bytes], owns */
    size_t n_max;
    size_t each_bytes;
    size_t at;
    size_t n;
    bool is_woken;
};

enum err queue_open(struct queue **out, size_t n_max, size_t each_bytes)
{
    struct queue *q = mem_alloc(sizeof *q);
    uint8_t *ring = mem_alloc_array(n_max, each_bytes);
    if (q == NULL || ring == NULL || lock_open(&q->lock) != ERR_OK) {
        mem_free(q);
        mem_free(ring);
        return err_set(ERR_MEMORY, "no memory for a queue of %zu", n_max);
    }
    q->ring = ring;
    q->n_max = n_max;
    q->each_bytes = each_bytes;
    *out = q;
    return ERR_OK;
}

void queue_close(struct queue *q)
{
    if (q != NULL) {
        lock_close(q->lock);
        mem_free(q->ring);
        mem_free(q);
    }
}

bool queue_push(struct queue *q, const void *msg)
{
    lock_take(q->lock);
    const bool has_room = q->n < q->n_max;
    if (has_room) {
        memcpy(q->ring + (q->at + q->n++) % q->n_max * q->each_bytes, msg, q->each_bytes);
        lock_wake(q->lock);
    }
    lock_drop(q->lock);
    return has_room;
}

bool queue_pop(struct queue *q, void *msg)
{
    lock_take(q->lock);
    const bool is_there = q->n > 0;
    if (is_there) {
        memcpy(msg, q->ring + q->at * q->each_bytes, q->each_bytes);
        q->at = (q->at + 1) % q->n_max;
        q->n--;
    }
    lock_drop(q->lock);
    return is_there;
}

bool queue_wait(struct queue *q, uint64_t timeout_us)
{
    lock_take(q->lock);
    const struct timespec moment = moment_in(timeout_us);
    bool goes_on = true;
    while (q->n == 0 && !q->is_woken && goes_on) {
        goes_on = wait_until(q->lock, &moment);
    }
    q->is_woken = false;
    const bool is_there = q->n > 0;
    lock_drop(q->lock);
    return is_there;
}

void queue_wake(struct queue *q)
{
    lock_take(q->lock);
    q->is_woken = true;
    lock_wake(q->lock);
    lock_drop(q->lock);
}
