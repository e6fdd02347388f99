/* measure - the box's limits: how fast it multiplies, reads memory and the disk
 *
 * Each figure is the best of five runs and of a tenth of a second, by the kernels' own loops
 * (kern.h), with all threads and with one. Where the threads do not get their cores, since other
 * programs run or a cgroup grants a share only, they are looked at for longer, to find a moment
 * in which they do; how much of their time they got is told. What is read is several times the
 * caches of the box: a server's hold hundreds of megabytes, and reading these again and again tells
 * nothing of its memory.
 *
 * The disk's figure is no best but what came in a while: a model that is read from it is read all
 * the time. It is what base/ring.c reads of the file, past the page cache, and from no place twice:
 * a cache between here and the disk may have kept what was read. Reads begin one by one and more go
 * side by side as they end, so that a memory card of 20 MB/s is measured in three seconds with what
 * it can read in them, and a fast disk with a full queue: what came before that is not timed, where
 * the file is large enough. `hearth plan`, `hearth bench` and `hearth doctor` tell this one figure.
 *
 * Rejected for the disk: a temporary file where there is no model. It would be read from where the
 * disk has put it a moment ago, which is not where models lie, it wears the disk, and without a
 * model nothing waits for it. Giving up on a disk that does not answer: what is in flight writes to
 * our memory, and the kernel, which knows the disk, ends it with an error.
 *
 * Next: lib/hearth.c. */
#include "lib/measure.h"

#include "back/be_cpu.h"
#include "base/cell.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/pool.h"
#include "base/ring.h"
#include "base/team.h"

#include <assert.h>
#include <string.h>

#define MEASURE_BYTES  ((uint64_t)384 << 20)
#define MEASURE_LEAST  ((uint64_t)16 << 20)
#define MEASURE_CHUNKS 64   /* at least; each thread gets as many */
#define MEASURE_FLOATS 1024 /* what a chunk is a multiple of */
#define MEASURE_ROUNDS 10000
#define MEASURE_US     100000
#define MEASURE_BUSY   5   /* times as long where cores are shared */
#define MEASURE_SHARE  0.9 /* of the threads' time; less: they are */

#define DISK_PIECE  ((size_t)2 << 20) /* of a read */
#define DISK_PIECES 24                /* side by side at most */
#define DISK_BESIDE ((size_t)8 << 20) /* of memory that the ring and the kernel take */
#define DISK_FULL   96                /* reads with a full queue that are timed alone */
#define DISK_MOST   256               /* reads in all */
#define DISK_US     1500000           /* in which reads are started */

/* One measurement on the threads of the team. */
struct measure {
    struct team *team;
    int n_chunk;
    float *data;
    size_t n_each; /* floats per chunk */
    uint32_t (*read_all)(const float *p, size_t n);
    uint64_t (*peak)(uint32_t n, uint32_t *sink); /* NULL: reading */
    uint64_t wall_us;                             /* of all measurements */
    uint64_t cpu_us;
    struct cell ops;
    struct cell sink;
};

/* Pages of zeros may be one page to a hypervisor. */
static void fill_part(void *arg, int from, int to)
{
    const struct measure *m = arg;
    for (size_t i = (size_t)from * m->n_each; i < (size_t)to * m->n_each; i++) {
        m->data[i] = (float)(i * 2654435761u % 1048573u);
    }
}

static void measure_part(void *arg, int from, int to)
{
    struct measure *m = arg;
    uint32_t sink = 0;
    for (int i = from; i < to; i++) {
        if (m->peak == NULL) {
            sink |= m->read_all(m->data + (size_t)i * m->n_each, m->n_each);
            cell_add(&m->ops, m->n_each * sizeof(float));
        } else {
            cell_add(&m->ops, m->peak(MEASURE_ROUNDS, &sink));
        }
    }
    cell_add(&m->sink, sink);
}

/* Of the time that passed for all threads, what they got. */
static double share_of(const struct measure *m, uint64_t cpu_us, uint64_t wall_us)
{
    const double all = (double)wall_us * team_size(m->team);
    return all > (double)cpu_us ? (double)cpu_us / all : 1.0;
}

/* Best of short runs, in units of 10^9 per second; peak NULL: of reading. They go on for a while,
 * since a system may take dozens of milliseconds to give a new thread a core of its own. */
static double measure_best(struct measure *m, uint64_t (*peak)(uint32_t n, uint32_t *sink))
{
    double best = 0.0;
    m->peak = peak;
    const uint64_t start = os_now_us();
    const uint64_t cpu_start = os_cpu_us();
    uint64_t wall_us = 0;
    uint64_t cpu_us = 0;
    uint64_t least_us = MEASURE_US;
    for (int i = 0; i < 5 || wall_us < least_us; i++) {
        cell_set(&m->ops, 0);
        const uint64_t begin = os_now_us();
        team_share(m->team, measure_part, m, m->n_chunk, 1);
        const double us = (double)(os_now_us() - begin);
        const double rate = us > 0.0 ? (double)cell_get(&m->ops) / us / 1e3 : 0.0;
        best = rate > best ? rate : best;
        wall_us = os_now_us() - start;
        cpu_us = os_cpu_us() - cpu_start;
        const bool is_shared =
            wall_us > MEASURE_US / 2 && share_of(m, cpu_us, wall_us) < MEASURE_SHARE;
        least_us = is_shared ? MEASURE_US * MEASURE_BUSY : MEASURE_US;
    }
    m->wall_us += wall_us;
    m->cpu_us += cpu_us;
    return best;
}

/* The figures of n_thread threads; only_read: what they read and what of their time they got. */
static enum err measure_rates(const struct kern_table *k, int n_thread, float *data, size_t n_float,
                              bool is_new, bool only_read, struct hearth_rates *out)
{
    struct measure m = { .data = data, .read_all = k->read_all };
    m.n_chunk = (MEASURE_CHUNKS + n_thread - 1) / n_thread * n_thread;
    m.n_each = n_float / (size_t)m.n_chunk / MEASURE_FLOATS * MEASURE_FLOATS;
    const bool has_bf16 = k->peak_bf16 != NULL && cpu_get()->has_avx512_bf16;
    TRY(team_open(&m.team, n_thread));
    if (is_new) {
        team_share(m.team, fill_part, &m, m.n_chunk, 1);
    }
    out->read_gb_s = measure_best(&m, NULL);
    if (!only_read) {
        out->int8_gop_s = measure_best(&m, k->peak_int8);
        out->f32_gflop_s = measure_best(&m, k->peak_f32);
        out->bf16_gflop_s = has_bf16 ? measure_best(&m, k->peak_bf16) : 0.0;
    }
    out->core_share = share_of(&m, m.cpu_us, m.wall_us);
    team_close(m.team);
    return ERR_OK;
}

/* How much to read: within what the owner allows and the box has. */
static enum err measure_size(int32_t n_thread, uint64_t most_bytes, struct hearth_limits *l)
{
    const char *from = NULL;
    uint64_t all = pool_available(&from);
    const uint64_t held = os_rss_bytes() + (uint64_t)n_thread * BE_CPU_STACK_BYTES + (1 << 20);
    if (most_bytes > 0 && most_bytes < all) {
        all = most_bytes;
        from = "the limit that was given";
    }
    REQUIRE(all >= held + MEASURE_LEAST, ERR_MEMORY,
            "measuring needs %llu MiB, %llu are available (%s): allow more",
            (unsigned long long)((held + MEASURE_LEAST) >> 20) + 1, (unsigned long long)all >> 20,
            from);
    const uint64_t half = (all - held) / 2; /* a large cache is no reason to take all there is */
    const uint64_t usable = half > MEASURE_BYTES ? half : all - held;
    l->wanted_bytes = os_beyond_caches(MEASURE_BYTES);
    l->read_bytes = usable < l->wanted_bytes ? usable >> 20 << 20 : l->wanted_bytes;
    return ERR_OK;
}

enum err measure_read(const struct kern_table *k, int32_t n_thread, uint64_t most_bytes,
                      double *gb_s, double *core_share)
{
    struct arena data = { 0 };
    struct hearth_rates rates = { 0 };
    struct hearth_limits l = { .n_thread = (uint64_t)n_thread };
    const char *from = NULL;
    const uint64_t half = pool_available(&from) / 2;
    TRY(measure_size(n_thread, most_bytes > 0 && most_bytes < half ? most_bytes : half, &l));
    const uint64_t far = os_beyond_caches(MEASURE_LEAST) / 2;
    REQUIRE(l.read_bytes >= far, ERR_MEMORY,
            "the memory's speed shows with %llu MiB, %llu are available: allow more",
            (unsigned long long)far >> 20, (unsigned long long)l.read_bytes >> 20);
    TRY(arena_open(&data, (size_t)l.read_bytes + 65536, false));
    const size_t n_float = (size_t)l.read_bytes / sizeof(float);
    const enum err e =
        measure_rates(k, n_thread, (float *)(void *)data.base, n_float, true, true, &rates);
    arena_close(&data);
    if (e == ERR_OK) {
        *gb_s = rates.read_gb_s;
        *core_share = rates.core_share;
    }
    return e;
}

enum err measure_limits(const struct kern_table *k, int32_t n_thread, uint64_t most_bytes,
                        struct hearth_limits *out)
{
    struct arena data = { 0 };
    struct hearth_limits l = { .n_thread = (uint64_t)n_thread };
    TRY(measure_size(n_thread, most_bytes, &l));
    const size_t bytes = (size_t)l.read_bytes;
    TRY(arena_open(&data, bytes + 65536, false)); /* the team touches it */
    float *floats = (float *)(void *)data.base;
    const size_t n_float = bytes / sizeof floats[0];
    enum err e = measure_rates(k, n_thread, floats, n_float, true, false, &l.all);
    l.one = l.all;
    if (e == ERR_OK && n_thread > 1) {
        e = measure_rates(k, 1, floats, n_float, false, false, &l.one);
    }
    if (e == ERR_OK) {
        *out = l;
    }
    arena_close(&data);
    return e;
}

/* Reads one after the other from piece `first` on, around the file's end, no piece twice, more and
 * more side by side, each into a part of the memory of its own. */
static enum err read_disk(struct ring *r, uint8_t *to, uint64_t first, struct measure_disk *out)
{
    const uint64_t n_piece = ring_file_bytes(r) / DISK_PIECE;
    const uint64_t n_most = n_piece < DISK_MOST ? n_piece : DISK_MOST;
    const uint64_t from_us = os_now_us();
    uint64_t n_started = 0;
    uint64_t n_ended = 0;
    uint64_t n_wide = 1;  /* that go side by side */
    uint64_t n_begun = 0; /* that had ended when all went side by side, and when that was */
    uint64_t full_us = from_us;
    bool goes_on = true;
    while (goes_on || n_ended < n_started) {
        while (goes_on && n_started - n_ended < n_wide) {
            uint64_t ticket = 0;
            TRY(ring_start(r, (first + n_started) % n_piece * DISK_PIECE,
                           to + n_started % DISK_PIECES * DISK_PIECE, DISK_PIECE, &ticket));
            goes_on = ++n_started < n_most;
        }
        TRY(ring_wait(r, ++n_ended)); /* the n-th read has the ticket n */
        goes_on = goes_on && os_now_us() - from_us < DISK_US;
        if (n_wide < DISK_PIECES && ++n_wide == DISK_PIECES) {
            n_begun = n_ended;
            full_us = os_now_us();
        }
    }
    const bool has_full = n_ended >= n_begun + DISK_FULL;
    const uint64_t n_timed = has_full ? n_ended - n_begun : n_ended;
    const uint64_t us = os_now_us() - (has_full ? full_us : from_us);
    out->read_bytes = n_ended * DISK_PIECE;
    out->gb_s = (double)(n_timed * DISK_PIECE) / 1e3 / (double)(us + 1);
    return ERR_OK;
}

/* In a small container the kernel would not refuse the memory but end the program. */
static enum err has_room(void)
{
    struct pool_host h;
    const uint64_t need = MEASURE_DISK_BYTES;
    static_assert(DISK_PIECES * DISK_PIECE + DISK_BESIDE <= MEASURE_DISK_BYTES, "what it takes");
    pool_read_host(&h, NULL);
    REQUIRE(h.available_bytes >= h.held_bytes + need, ERR_MEMORY,
            "reading takes %llu MiB, which are not there (%s)", (unsigned long long)need >> 20,
            h.limit);
    return ERR_OK;
}

enum err measure_disk(const char *path, struct measure_disk *out)
{
    struct arena to = { 0 };
    struct ring *r = NULL;
    struct measure_disk d = { 0 };
    uint64_t dice = 0;
    TRY(ring_open(&r, path));
    const uint64_t bytes = ring_file_bytes(r);
    enum err e = bytes < MEASURE_DISK_LEAST
                     ? err_set(ERR_UNSUPPORTED, "%s: too small to tell the disk's speed", path)
                     : has_room();
    e = e == ERR_OK ? arena_open(&to, DISK_PIECES * DISK_PIECE, true) : e;
    if (e == ERR_OK) {
        os_random(&dice, sizeof dice);
        d.is_direct = ring_is_direct(r);
        d.is_uring = strcmp(ring_how(r), "io_uring") == 0;
        e = read_disk(r, to.base, dice % (bytes / DISK_PIECE), &d);
    }
    ring_close(r);
    arena_close(&to);
    if (e == ERR_OK) {
        *out = d;
    }
    return e;
}
