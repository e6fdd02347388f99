/* test_ring - reads side by side: right bytes, order, errors, ends, files that change
 *
 * The same tests go over all ways to read that this machine allows: io_uring and threads past the
 * page cache, threads through it. What the kernel does not do on demand (reads that fail, come
 * short, come late or in another order, a queue that takes nothing) is done by os_hook, and by a
 * kind of the test's own, which a simulation drives for thousands of steps. */
#include "base/ring.h"

#include "base/mem.h"
#include "base/os.h"
#include "base/ring_kind.h"
#include "base/team.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define FILE_BYTES (9u * 1024 * 1024 + 1000) /* ends inside a block */
#define MEM_BYTES  (64u * 1024 * 1024)
#define FILL       0xA5

static char folder[] = "/tmp/test_ring-XXXXXX";
static char path[64];
static uint8_t *mem; /* [MEM_BYTES] */

static uint32_t rand_next(uint32_t *x)
{
    *x = *x * 1664525u + 1013904223u;
    return *x >> 8;
}

/* The file's byte at that place: no two blocks are alike. */
static uint8_t byte_of(uint64_t at)
{
    const uint64_t word = (at / 8 + 1) * 0x9E3779B97F4A7C15u;
    return (uint8_t)(word >> at % 8 * 8);
}

static uint8_t content[FILE_BYTES]; /* of the file */

/* Bytes of [at, at + n) that the file has. */
static size_t in_file(uint64_t at, size_t n)
{
    return FILE_BYTES - at < n ? (size_t)(FILE_BYTES - at) : n;
}

static bool is_right(const uint8_t *got, uint64_t at, size_t n)
{
    return memcmp(got, content + at, in_file(at, n)) == 0;
}

static bool is_filled(const uint8_t *p, size_t n)
{
    return p[0] == FILL && memcmp(p, p + 1, n - 1) == 0;
}

static void make_file(void)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, FILE_BYTES), FILE_BYTES);
    close(fd);
}

static int set_up(void **state)
{
    (void)state;
    mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED || mkdtemp(folder) == NULL) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/file", folder);
    for (uint64_t i = 0; i < FILE_BYTES; i++) {
        content[i] = byte_of(i);
    }
    make_file();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    munmap(mem, MEM_BYTES);
    return rmdir(folder);
}

/* --- over all ways to read -------------------------------------------------------------------- */

struct way {
    const struct ring_kind *kind;
    bool is_direct;
};

/* Opens by way i; NULL where this machine does not allow it. */
static struct ring *open_way(const struct way *w)
{
    struct ring *r = NULL;
    const enum err e = ring_open_as(&r, path, w->kind, w->is_direct);
    assert_true(e == ERR_OK || (e == ERR_UNSUPPORTED && (w->kind == ring_uring() || w->is_direct)));
    if (e == ERR_OK) {
        assert_string_equal(ring_how(r), w->kind->how);
        assert_true(ring_is_direct(r) == w->is_direct);
    }
    return r;
}

static void each_way(void (*fn)(const struct way *w, struct ring *r))
{
    const struct way ways[] = {
        { ring_uring(), true },
        { ring_pread(), true },
        { ring_uring(), false },
        { ring_pread(), false } /* this one works everywhere */
    };
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        const size_t used = mem_used_bytes();
        struct ring *r = open_way(&ways[i]);
        if (r != NULL) {
            memset(mem, FILL, MEM_BYTES);
            fn(&ways[i], r);
        } else {
            print_message("# left out: %s\n", err_text());
        }
        os_hook(NULL);
        assert_int_equal(mem_used_bytes(), used);
    }
}

#define BLOCKS ((FILE_BYTES + RING_ALIGN - 1) / RING_ALIGN)

static void bytes(const struct way *w, struct ring *r)
{
    (void)w;
    mem_freeze(true); /* aborts in checked builds */
    uint32_t x = 7;
    uint64_t last = 0;
    for (int k = 0; k < 16; k++) {
        uint64_t at[20], n[20];
        size_t to = 0;
        int n_read = 0;
        for (; n_read < 20 && to < MEM_BYTES / 2; n_read++) {
            const uint64_t i_block =
                n_read % 5 == 4 ? BLOCKS - 1 - rand_next(&x) % 3 : rand_next(&x) % BLOCKS;
            const uint64_t most = BLOCKS - i_block;
            const uint64_t n_block = 1 + rand_next(&x) % (k % 2 == 0 ? most : most < 9 ? most : 9);
            at[n_read] = i_block * RING_ALIGN;
            n[n_read] = n_block * RING_ALIGN;
            uint64_t ticket = 0;
            assert_int_equal(ring_start(r, at[n_read], mem + to, n[n_read], &ticket), ERR_OK);
            assert_true(ticket == last + 1);
            last = ticket;
            to += n[n_read] + RING_ALIGN; /* one that nobody may write */
        }
        const int asked = (int)(rand_next(&x) % (uint32_t)n_read);
        assert_int_equal(ring_wait(r, last - (uint64_t)asked), ERR_OK);
        to = 0;
        for (int i = 0; i < n_read; i++) {
            if (i == n_read - asked) { /* those before have been waited for */
                while (!ring_poll(r, last)) {
                }
            }
            assert_true(is_right(mem + to, at[i], n[i]));
            to += n[i];
            assert_true(is_filled(mem + to, RING_ALIGN));
            to += RING_ALIGN;
        }
        assert_int_equal(ring_wait(r, last), ERR_OK);
        assert_int_equal(ring_wait(r, 1), ERR_OK);
        memset(mem, FILL, to);
    }
    mem_freeze(false);
    ring_close(r);
}

static void test_bytes(void **state)
{
    (void)state;
    each_way(bytes);
}

static void usage(const struct way *w, struct ring *r)
{
    (void)w;
    uint64_t t = 99;
    assert_int_equal(ring_start(r, 1, mem, RING_ALIGN, &t), ERR_USAGE);
    assert_int_equal(ring_start(r, 0, mem + 8, RING_ALIGN, &t), ERR_USAGE);
    assert_int_equal(ring_start(r, 0, mem, 100, &t), ERR_USAGE);
    assert_int_equal(ring_start(r, 0, mem, 0, &t), ERR_USAGE);
    assert_int_equal(ring_start(r, BLOCKS * RING_ALIGN, mem, RING_ALIGN, &t), ERR_USAGE);
    assert_int_equal(ring_start(r, 0, mem, (BLOCKS + 1) * RING_ALIGN, &t), ERR_USAGE);
    assert_int_equal(ring_start(r, UINT64_MAX / RING_ALIGN * RING_ALIGN, mem, RING_ALIGN, &t),
                     ERR_USAGE);
    assert_int_equal(ring_start(r, RING_ALIGN, mem, SIZE_MAX / RING_ALIGN * RING_ALIGN, &t),
                     ERR_USAGE);
    assert_int_equal(t, 99);
    assert_int_equal(ring_wait(r, 1), ERR_USAGE);
    assert_int_equal(ring_wait(r, 0), ERR_OK);
    assert_true(ring_poll(r, 0));
    assert_int_equal(ring_start(r, 0, mem, BLOCKS * RING_ALIGN, &t), ERR_OK);
    assert_int_equal(t, 1);
    assert_int_equal(ring_wait(r, 1), ERR_OK);
    assert_true(is_right(mem, 0, FILE_BYTES));
    ring_close(r);
}

static void test_usage(void **state)
{
    (void)state;
    each_way(usage);
    ring_close(NULL);
    struct ring *r = NULL;
    assert_int_equal(ring_open(&r, "/nowhere/at/all"), ERR_NOT_FOUND);
    assert_int_equal(ring_open(&r, folder), ERR_IO);
    assert_null(r);
    assert_true(ring_bytes() > 100000 && ring_bytes() < 8u << 20);
}

/* --- what the hook makes of reads ------------------------------------------------------------- */

static _Atomic long n_seen; /* reads that the hook saw */

static long fails_at_5(uint64_t at, size_t n, long got)
{
    return at <= 5u << 20 && 5u << 20 < at + n ? -EIO : got;
}

static long is_short(uint64_t at, size_t n, long got)
{
    (void)at;
    const long i = atomic_fetch_add(&n_seen, 1);
    return i % 3 == 0 && n > RING_ALIGN ? got / 2 + 100 : i % 3 == 1 ? got : -EINTR;
}

static long stays_short(uint64_t at, size_t n, long got)
{
    (void)n;
    return at == 0 && atomic_fetch_add(&n_seen, 1) >= 0 ? 100 : got;
}

static long ends(uint64_t at, size_t n, long got)
{
    (void)n;
    return at == 4u << 20 ? 0 : got;
}

static uint64_t start(struct ring *r, uint64_t at, size_t n)
{
    uint64_t t = 0;
    assert_int_equal(ring_start(r, at, mem + at, n, &t), ERR_OK);
    return t;
}

static void hook_end(long (*fn)(uint64_t at, size_t n, long got))
{
    const struct os_hooks hooks = { .read_end = fn };
    atomic_store(&n_seen, 0);
    os_hook(&hooks);
}

/* Nothing of what was started is written any more. */
static void expect_still(void)
{
    memset(mem, FILL, FILE_BYTES);
    for (int k = 0; k < 1000; k++) {
        sched_yield();
    }
    assert_true(is_filled(mem, FILE_BYTES));
}

static void expect_text(const char *a, const char *b)
{
    assert_non_null(strstr(err_text(), path));
    assert_non_null(strstr(err_text(), a));
    assert_non_null(strstr(err_text(), b));
}

static void errors(const struct way *w, struct ring *r)
{
    (void)w;
    const size_t mib = 1u << 20;
    hook_end(fails_at_5);
    for (int k = 0; k < 3; k++) { /* the ring is used on */
        const uint64_t first = start(r, 0, 4 * mib);
        const uint64_t bad = start(r, 4 * mib, 2 * mib);
        const uint64_t last = start(r, 6 * mib, 3 * mib);
        assert_int_equal(ring_wait(r, first), ERR_OK);
        assert_true(is_right(mem, 0, 4 * mib));
        assert_int_equal(ring_wait(r, k == 1 ? last : bad), ERR_IO);
        expect_text("2097152 bytes at 4194304", strerror(EIO));
        assert_true(ring_poll(r, bad) && ring_poll(r, last));
        err_set(ERR_FAILED, "another");
        assert_int_equal(ring_wait(r, last), ERR_IO); /* void, and the text is that of before */
        expect_text("2097152 bytes at 4194304", strerror(EIO));
        assert_int_equal(ring_wait(r, first), ERR_IO);
        const uint64_t anew = start(r, 6 * mib, 3 * mib);
        assert_true(anew == last + 1);
        assert_int_equal(ring_wait(r, anew), ERR_OK);
        assert_true(is_right(mem + 6 * mib, 6 * mib, 3 * mib));
        expect_still(); /* RI-1: what was on its way has ended before */
    }
    hook_end(is_short);
    assert_int_equal(ring_wait(r, start(r, 0, BLOCKS * RING_ALIGN)), ERR_OK);
    assert_true(is_right(mem, 0, FILE_BYTES));
    assert_true(atomic_load(&n_seen) > 10);
    hook_end(stays_short);
    assert_int_equal(ring_wait(r, start(r, 0, BLOCKS * RING_ALIGN)), ERR_IO);
    expect_text("at 0", "only 100 come");
    assert_true(atomic_load(&n_seen) < 100);
    hook_end(ends);
    assert_int_equal(ring_wait(r, start(r, 0, BLOCKS * RING_ALIGN)), ERR_INTEGRITY);
    expect_text("ends at byte 4194304", "more");
    start(r, 0, BLOCKS * RING_ALIGN); /* closing with an error that nobody asked for */
    ring_close(r);
    expect_still();
}

static void test_errors(void **state)
{
    (void)state;
    each_way(errors);
}

/* Polling alone comes to an end too, also of a ticket that failed. */
static void polled(const struct way *w, struct ring *r)
{
    (void)w;
    hook_end(fails_at_5);
    const uint64_t first = start(r, 0, 4u << 20);
    const uint64_t bad = start(r, 4u << 20, 2u << 20);
    while (!ring_poll(r, bad)) {
    }
    while (!ring_poll(r, first)) {
    }
    assert_int_equal(ring_wait(r, first), ERR_OK);
    assert_int_equal(ring_wait(r, bad), ERR_IO);
    ring_close(r);
}

static void test_polled(void **state)
{
    (void)state;
    each_way(polled);
}

/* --- files that change, and closing in the middle --------------------------------------------- */

static void set_times(void)
{
    const struct timespec times[2] = { { 1000, 0 }, { 1000, 0 } };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void changes(const struct way *w, struct ring *r)
{
    /* replaced: what was opened is still there */
    char old[80];
    snprintf(old, sizeof old, "%s-old", path);
    assert_int_equal(rename(path, old), 0);
    assert_int_equal(ring_wait(r, start(r, 0, BLOCKS * RING_ALIGN)), ERR_OK);
    assert_true(is_right(mem, 0, FILE_BYTES));
    assert_int_equal(rename(old, path), 0);
    /* its time, but no byte */
    const uint64_t t = start(r, 0, BLOCKS * RING_ALIGN);
    set_times();
    assert_int_equal(ring_wait(r, t), ERR_INTEGRITY);
    expect_text("changed", "");
    assert_int_equal(ring_wait(r, start(r, 0, RING_ALIGN)), ERR_INTEGRITY);
    ring_close(r);
    expect_still();
    /* truncated: before and while it is read */
    r = open_way(w);
    assert_int_equal(truncate(path, 4u << 20), 0);
    assert_int_equal(ring_wait(r, start(r, 6u << 20, 2u << 20)), ERR_INTEGRITY);
    expect_text("changed", "");
    ring_close(r);
    make_file();
    r = open_way(w);
    const uint64_t u = start(r, 0, BLOCKS * RING_ALIGN);
    assert_int_equal(truncate(path, 4u << 20), 0);
    assert_int_equal(ring_wait(r, u), ERR_INTEGRITY);
    ring_close(r);
    expect_still();
    make_file();
    /* its size alone: somebody set the time back */
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    r = open_way(w);
    assert_int_equal(ring_wait(r, start(r, 0, BLOCKS * RING_ALIGN)), ERR_OK);
    assert_int_equal(truncate(path, FILE_BYTES + RING_ALIGN), 0);
    const struct timespec times[2] = { st.st_atim, st.st_mtim };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(ring_wait(r, start(r, 0, RING_ALIGN)), ERR_INTEGRITY);
    expect_text("changed", "");
    ring_close(r);
    make_file();
}

static void test_changes(void **state)
{
    (void)state;
    each_way(changes);
}

static void closed(const struct way *w, struct ring *r)
{
    for (int k = 0; k < 8; k++) {
        uint8_t *to =
            mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(to != MAP_FAILED);
        uint64_t t = 0;
        for (uint64_t i = 0; i < 4; i++) {
            assert_int_equal(ring_start(r, 0, to + i * (9u << 20), 9u << 20, &t), ERR_OK);
        }
        if (k % 2 == 1) {
            assert_int_equal(ring_wait(r, 1 + (uint64_t)k % 4), ERR_OK);
        }
        ring_close(r);
        assert_int_equal(munmap(to, MEM_BYTES), 0);
        memset(mem, FILL, FILE_BYTES); /* may lie where `to` lay in the next round */
        r = open_way(w);
    }
    ring_close(r);
}

static void test_closed(void **state)
{
    (void)state;
    each_way(closed);
}

static void direct_end(const struct way *w, struct ring *r)
{
    /* the last block alone, and a file of less than a block */
    assert_int_equal(ring_wait(r, start(r, (BLOCKS - 1) * RING_ALIGN, RING_ALIGN)), ERR_OK);
    assert_true(is_right(mem + (BLOCKS - 1) * RING_ALIGN, (BLOCKS - 1) * RING_ALIGN, RING_ALIGN));
    ring_close(r);
    char small[80];
    snprintf(small, sizeof small, "%s-small", path);
    assert_int_equal(os_write_file(small, view_of("few bytes")), ERR_OK);
    uint64_t t = 0;
    assert_int_equal(ring_open_as(&r, small, w->kind, w->is_direct), ERR_OK);
    assert_int_equal(ring_start(r, 0, mem, RING_ALIGN, &t), ERR_OK);
    assert_int_equal(ring_wait(r, t), ERR_OK);
    assert_memory_equal(mem, "few bytes", 9);
    ring_close(r);
    assert_int_equal(os_write_file(small, (struct view){ "", 0 }), ERR_OK);
    assert_int_equal(ring_open_as(&r, small, w->kind, w->is_direct), ERR_OK);
    assert_int_equal(ring_start(r, 0, mem, RING_ALIGN, &t), ERR_USAGE);
    ring_close(r);
    unlink(small);
}

static void test_end(void **state)
{
    (void)state;
    each_way(direct_end);
}

/* --- reads that come late --------------------------------------------------------------------- */

static struct lock *gate;
static bool is_open;

static long late_at_0(int fd, void *to, size_t n, uint64_t at)
{
    lock_take(gate);
    while (at == 0 && !is_open) {
        (void)lock_wait(gate, 1000000);
    }
    lock_drop(gate);
    atomic_fetch_add(&n_seen, 1);
    return pread(fd, to, n, (off_t)at);
}

static void open_gate(void)
{
    lock_take(gate);
    is_open = true;
    lock_wake(gate);
    lock_drop(gate);
}

/* RI-2, RI-3: nobody waits for the late one but who asks for it. */
static void test_late(void **state)
{
    (void)state;
    struct ring *r = NULL;
    assert_int_equal(ring_open_as(&r, path, ring_pread(), false), ERR_OK);
    assert_int_equal(lock_open(&gate), ERR_OK);
    is_open = false;
    atomic_store(&n_seen, 0);
    const struct os_hooks hooks = { .pread = late_at_0 };
    os_hook(&hooks);
    uint64_t t = 0;
    for (uint64_t i = 0; i < RING_TICKETS; i++) {
        t = start(r, i * RING_ALIGN, RING_ALIGN);
    }
    while (atomic_load(&n_seen) < RING_TICKETS - 1) { /* one thread is held, seven read the rest */
        assert_false(ring_poll(r, t));
    }
    assert_false(ring_poll(r, 1));
    assert_false(ring_poll(r, 2));
    assert_false(ring_has(r, 1) || ring_has(r, RING_TICKETS + 1));
    while (!ring_has(r, 2) || !ring_has(r, RING_TICKETS)) { /* whatever is before them */
        assert_false(ring_poll(r, 1));
    }
    const uint64_t some[] = { 1, RING_TICKETS };
    assert_int_equal(ring_wait_any(r, some, 1, 0), ERR_BUSY);
    assert_int_equal(ring_wait_any(r, some, 2, 0), ERR_OK);
    uint64_t more = 0;
    assert_int_equal(ring_start(r, 0, mem, RING_ALIGN, &more), ERR_BUSY);
    assert_int_equal(more, 0);
    open_gate();
    assert_int_equal(ring_wait(r, 1), ERR_OK);
    assert_int_equal(ring_wait(r, t), ERR_OK);
    assert_true(is_right(mem, 0, RING_TICKETS * RING_ALIGN));
    assert_int_equal(ring_start(r, 0, mem, RING_ALIGN, &more), ERR_OK);
    ring_close(r);
    os_hook(NULL);
    lock_close(gate);
}

/* --- what cannot be had ----------------------------------------------------------------------- */

/* Each allocation of ring_open refused in turn. */
static void test_no_memory(void **state)
{
    (void)state;
    const struct way ways[] = { { ring_uring(), true }, { ring_pread(), false } };
    for (size_t i = 0; i < 2; i++) {
        struct ring *r = open_way(&ways[i]);
        if (r == NULL) {
            continue;
        }
        ring_close(r);
        r = NULL;
        const size_t used = mem_used_bytes();
        for (size_t n = 0; r == NULL; n += n < 2000 ? 10 : 4001) {
            mem_fence(n);
            const enum err e = ring_open_as(&r, path, ways[i].kind, ways[i].is_direct);
            assert_true(mem_fence(SIZE_MAX) == (e != ERR_OK));
            assert_true(e == ERR_OK || e == ERR_MEMORY);
            assert_true(e == ERR_OK || mem_used_bytes() == used);
        }
        ring_close(r);
        assert_int_equal(mem_used_bytes(), used);
    }
}

static enum err read_all(struct ring *r)
{
    uint64_t t = 0;
    memset(mem, FILL, FILE_BYTES);
    TRY(ring_start(r, 0, mem, BLOCKS * RING_ALIGN, &t));
    TRY(ring_wait(r, t));
    return is_right(mem, 0, FILE_BYTES) ? ERR_OK : ERR_FAILED;
}

struct refused {
    bool is_possible; /* to forbid io_uring */
    bool is_direct;
    bool is_right;
    char how[80];
};

/* In a thread of its own, for which io_uring is forbidden as containers do. */
static void without_uring(void *arg)
{
    struct refused *out = arg;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = { 4, code };
    out->is_possible = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
    struct ring *r = NULL;
    if (ring_open(&r, path) == ERR_OK) {
        snprintf(out->how, sizeof out->how, "%s", ring_how(r));
        out->is_direct = ring_is_direct(r);
        out->is_right = read_all(r) == ERR_OK;
    }
    ring_close(r);
}

static void test_fallback(void **state)
{
    (void)state;
    struct ring *r = NULL;
    assert_int_equal(ring_open(&r, path), ERR_OK);
    const bool is_direct = ring_is_direct(r);
    print_message("# here: %s, %s\n", ring_how(r), is_direct ? "direct" : "through the cache");
    ring_close(r);
    struct refused got = { 0 };
    struct thread *t = NULL;
    assert_int_equal(thread_start(&t, "refused", without_uring, &got), ERR_OK);
    thread_join(t);
    assert_true(got.is_right);
    if (got.is_possible) {
        assert_string_equal(got.how, "pread by 8 threads");
        assert_true(got.is_direct == is_direct);
    }
}

/* In a thread of its own: from a moment on each second entry is refused, as for lack of memory. */
static void each_second_refused(void *arg)
{
    struct refused *out = arg;
    struct ring *r = NULL;
    if (ring_open_as(&r, path, ring_uring(), true) != ERR_OK) {
        return;
    }
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1), /* entries; 2 with the one refused before */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = { 6, code };
    out->is_possible = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
    enum err e = read_all(r); /* nothing is in flight that could make room */
    snprintf(out->how, sizeof out->how, "%s", e == ERR_IO ? strstr(err_text(), "at 0: ") : "");
    out->is_right = true;
    for (int k = 0; k < 150 && out->is_right; k++) { /* more in all than the queue has room for */
        e = read_all(r);
        e = e == ERR_IO ? read_all(r) : e;
        out->is_right = e == ERR_OK;
    }
    ring_close(r);
}

static void test_refused(void **state)
{
    (void)state;
    struct refused got = { .is_right = true };
    struct thread *t = NULL;
    assert_int_equal(thread_start(&t, "refused", each_second_refused, &got), ERR_OK);
    thread_join(t);
    assert_true(got.is_right);
    if (got.is_possible) {
        assert_non_null(strstr(got.how, strerror(EAGAIN)));
    }
}

static long not_direct(int fd, void *to, size_t n, uint64_t at)
{
    if ((fcntl(fd, F_GETFL) & O_DIRECT) != 0) {
        errno = EINVAL;
        return -1;
    }
    return pread(fd, to, n, (off_t)at);
}

/* A file system that opens with O_DIRECT, but does not read so. */
static void test_not_direct(void **state)
{
    (void)state;
    const struct os_hooks hooks = { .pread = not_direct };
    os_hook(&hooks);
    struct ring *r = NULL;
    assert_int_equal(ring_open(&r, path), ERR_OK);
    assert_false(ring_is_direct(r));
    assert_int_equal(ring_wait(r, start(r, 0, BLOCKS * RING_ALIGN)), ERR_OK);
    assert_true(is_right(mem, 0, FILE_BYTES));
    ring_close(r);
    os_hook(NULL);
}

/* --- simulation ------------------------------------------------------------------------------- */

/* A kind whose pieces end when and how the dice say. */
static struct {
    struct ring_piece flying[RING_PIECES];
    uint32_t n_flying;
    uint32_t x;
    bool is_wild;     /* faults happen */
    bool is_slow;     /* reads do not end as fast as they are started */
    int n_refuse;     /* puts that are refused from now on */
    uint64_t n_waits; /* calls that may block */
    uint64_t n_fatal; /* faults since the last error that no ring may hide */
    uint64_t n_refused, n_short, n_failed, n_all, n_deaf; /* what happened at all */
    bool is_dropped[RING_PIECES];                         /* by id: of a ticket that was dropped */
} sim;

static bool dice(uint32_t one_in)
{
    return rand_next(&sim.x) % one_in == 0;
}

static enum err sim_open(void **out, const struct os_file *file)
{
    (void)file;
    *out = &sim;
    return ERR_OK;
}

static void sim_close(void *k)
{
    (void)k;
    assert_int_equal(sim.n_flying, 0);
}

static int sim_put(void *k, const struct ring_piece *p)
{
    (void)k;
    assert_true(sim.n_flying < RING_PIECES); /* RI-3 */
    assert_true(p->n > 0 && p->n <= RING_PIECE_BYTES && p->n % RING_ALIGN == 0);
    assert_true(p->at % RING_ALIGN == 0 && p->id < RING_PIECES);
    for (uint32_t i = 0; i < sim.n_flying; i++) {
        const uint8_t *to = sim.flying[i].to;
        assert_true(sim.flying[i].id != p->id);
        assert_true((uint8_t *)p->to >= to + sim.flying[i].n || (uint8_t *)p->to + p->n <= to);
    }
    if (sim.is_wild && dice(200)) {
        sim.n_refuse = (int)(rand_next(&sim.x) % 5);
    }
    if (sim.n_refuse > 0) {
        sim.n_refuse--;
        sim.n_refused++;
        sim.n_fatal += sim.n_flying == 0; /* nothing could make room */
        return -EAGAIN;
    }
    sim.flying[sim.n_flying++] = *p;
    sim.is_dropped[p->id] = false;
    return 0;
}

/* What a read brings that goes wrong. */
static long wrong(size_t n)
{
    switch (rand_next(&sim.x) % 12) {
    case 0:
        sim.n_fatal++;
        sim.n_failed++;
        return -EIO;
    case 1:
        sim.n_fatal++;
        sim.n_failed++;
        return 0;
    case 2:
        return -EINTR;
    default:
        sim.n_short++;
        return 1 + (long)(rand_next(&sim.x) % n);
    }
}

static int sim_take(void *k, struct ring_end *out, uint64_t timeout_us)
{
    (void)k;
    assert_true(sim.n_flying > 0);
    sim.n_waits += timeout_us > 0;
    if (timeout_us == 0 ? (sim.is_slow ? !dice(8) : dice(2)) : dice(10)) {
        return 0;
    }
    if (timeout_us > 0 && sim.is_wild && dice(1000)) {
        sim.n_deaf++;
        sim.n_fatal++;
        return -EBADF;
    }
    const uint32_t i = rand_next(&sim.x) % sim.n_flying;
    const struct ring_piece p = sim.flying[i];
    sim.flying[i] = sim.flying[--sim.n_flying];
    long got = (long)in_file(p.at, p.n);
    if (sim.is_wild && !sim.is_dropped[p.id] && dice(50)) {
        got = wrong((size_t)got);
    }
    if (got > 0) {
        memcpy(p.to, content + p.at, (size_t)got);
    }
    sim.n_all++;
    *out = (struct ring_end){ p.id, got };
    return 1;
}

static const struct ring_kind sim_kind = { "dice", sim_open, sim_close, sim_put, sim_take };

struct sim_want {
    uint64_t at;
    uint8_t *to;
    size_t n;
};

struct sim_run {
    struct ring *r;
    struct sim_want wants[2 * RING_TICKETS]; /* [ticket % (2 * RING_TICKETS)] */
    uint64_t n_ticket;
    uint64_t n_answered; /* up to here their memory is free */
    size_t to;           /* memory is given in a circle */
    uint64_t n_error, n_busy, n_drop, n_any;
};

static void sim_start(struct sim_run *s)
{
    const size_t i_block = rand_next(&sim.x) % BLOCKS;
    const size_t most = BLOCKS - i_block;
    size_t n_block = 1 + rand_next(&sim.x) % (dice(100) ? 1500 : 4);
    n_block = n_block < most ? n_block : most;
    const size_t n = n_block * RING_ALIGN;
    s->to = s->to + n > MEM_BYTES ? 0 : s->to;
    struct sim_want *oldest = &s->wants[(s->n_answered + 1) % (2 * RING_TICKETS)];
    if (s->n_answered < s->n_ticket && oldest->to >= mem + s->to && oldest->to < mem + s->to + n) {
        return; /* no memory is free */
    }
    uint64_t t = 0;
    const uint64_t n_waits = sim.n_waits;
    const enum err e = ring_start(s->r, i_block * RING_ALIGN, mem + s->to, n, &t);
    assert_true(sim.n_waits == n_waits); /* never blocks */
    if (e == ERR_BUSY) {
        s->n_busy++;
        return;
    }
    assert_int_equal(e, ERR_OK);
    assert_true(t == s->n_ticket + 1);
    s->n_ticket = t;
    s->wants[t % (2 * RING_TICKETS)] = (struct sim_want){ i_block * RING_ALIGN, mem + s->to, n };
    s->to += n;
}

/* All tickets are: what is in flight of them is read to its end. */
static void sim_void(struct sim_run *s)
{
    for (uint32_t i = 0; i < sim.n_flying; i++) {
        sim.is_dropped[sim.flying[i].id] = true;
    }
    s->n_answered = s->n_ticket;
    sim.n_fatal = 0;
}

static void sim_drop(struct sim_run *s)
{
    const uint64_t n_waits = sim.n_waits;
    ring_drop(s->r);
    assert_int_equal(ring_wait(s->r, s->n_ticket), ERR_CANCELLED); /* RI-4 */
    assert_true(sim.n_waits == n_waits);                           /* never blocks */
    sim_void(s);
    s->n_drop++;
}

/* Some of the open tickets up to t, and t; one of them comes, or there is an error. */
static enum err sim_any(struct sim_run *s, uint64_t t)
{
    uint64_t some[4] = { t };
    int n = 1;
    while (n < 4) {
        some[n++] = s->n_answered + 1 + rand_next(&sim.x) % (t - s->n_answered);
    }
    TRY(ring_wait_any(s->r, some, n, UINT64_MAX));
    int n_here = 0;
    for (int i = 0; i < n; i++) {
        const struct sim_want *w = &s->wants[some[i] % (2 * RING_TICKETS)];
        n_here += ring_has(s->r, some[i]);
        assert_true(!ring_has(s->r, some[i]) || is_right(w->to, w->at, w->n));
    }
    assert_in_range(n_here, 1, n);
    s->n_any++;
    return ERR_OK;
}

static void sim_wait(struct sim_run *s, uint64_t t)
{
    const bool is_polled = dice(2) && ring_poll(s->r, t);
    ring_narrow(s->r, dice(2) ? SIZE_MAX : 1 + (size_t)dice(16) * RING_ALIGN);
    const bool is_asked = dice(4);
    const uint64_t n_before = sim.n_waits;
    const enum err asked = is_asked ? ring_wait_for(s->r, t, 0) : ERR_OK;
    assert_true(sim.n_waits == n_before); /* nor where there is an error */
    assert_true(asked != ERR_BUSY || !is_polled);
    const bool is_any = dice(4);
    const uint64_t n_waits = sim.n_waits;
    const enum err e = is_any ? sim_any(s, t) : ring_wait(s->r, t);
    assert_true(!is_polled || sim.n_waits == n_waits);
    assert_true(is_any || t < s->n_ticket || (e != ERR_OK) == (sim.n_fatal > 0));
    if (e == ERR_OK && is_any) {
        return;
    }
    if (e == ERR_OK) {
        for (; s->n_answered < t; s->n_answered++) {
            const struct sim_want *w = &s->wants[(s->n_answered + 1) % (2 * RING_TICKETS)];
            assert_true(is_right(w->to, w->at, w->n));
            memset(w->to, FILL, w->n);
        }
        return;
    }
    assert_true(e == ERR_IO || e == ERR_INTEGRITY);
    assert_true(sim.n_fatal > 0);
    assert_int_equal(ring_wait(s->r, s->n_ticket), e); /* RI-4 */
    assert_int_equal(ring_wait(s->r, 1), e);
    sim_void(s);
    s->n_error++;
    assert_true(ring_poll(s->r, s->n_ticket));
}

static void sim_run(uint32_t seed, bool is_wild, int n_step)
{
    static struct sim_run s;
    memset(&s, 0, sizeof s);
    memset(&sim, 0, sizeof sim);
    sim.x = seed;
    assert_int_equal(ring_open_as(&s.r, path, &sim_kind, false), ERR_OK);
    for (int k = 0; k < n_step; k++) {
        sim.is_slow = k / 2000 % 2 == 1;
        sim.is_wild = is_wild && k / 4000 % 2 == 1; /* without faults the queue gets full */
        if (dice(3000)) {
            ring_close(s.r);
            assert_int_equal(ring_open_as(&s.r, path, &sim_kind, false), ERR_OK);
            s.n_ticket = s.n_answered = 0;
            sim.n_fatal = 0;
        } else if (dice(sim.is_slow ? 6000 : 900) && s.n_ticket > 0) {
            sim_drop(&s);
        } else if (!dice(sim.is_slow ? 2000 : 3)) {
            sim_start(&s);
        } else if (s.n_answered < s.n_ticket) {
            const uint64_t n_open = s.n_ticket - s.n_answered;
            sim_wait(&s, s.n_answered + 1 + rand_next(&sim.x) % n_open);
        }
    }
    if (s.n_answered < s.n_ticket) {
        sim_wait(&s, s.n_ticket);
    }
    ring_close(s.r);
    print_message("# %d steps: %llu reads, %llu short, %llu failed, %llu refused; %llu errors, "
                  "%llu times busy\n",
                  n_step, (unsigned long long)sim.n_all, (unsigned long long)sim.n_short,
                  (unsigned long long)sim.n_failed, (unsigned long long)sim.n_refused,
                  (unsigned long long)s.n_error, (unsigned long long)s.n_busy);
    assert_true(!is_wild || (sim.n_short > 50 && sim.n_failed > 10 && sim.n_refused > 10));
    assert_true(s.n_busy > 0 && s.n_drop > 0 && s.n_any > 100);
    assert_true(is_wild == (s.n_error > 5));
}

static void test_simulation(void **state)
{
    (void)state;
    sim_run(1, false, 8000);
    for (uint32_t seed = 2; seed < 6; seed++) {
        sim_run(seed, true, 30000);
    }
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(test_bytes),      cmocka_unit_test(test_usage),
        cmocka_unit_test(test_errors),     cmocka_unit_test(test_polled),
        cmocka_unit_test(test_changes),    cmocka_unit_test(test_closed),
        cmocka_unit_test(test_end),        cmocka_unit_test(test_late),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_not_direct), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_simulation),
    };
    return cmocka_run_group_tests(all, set_up, tear_down);
}
