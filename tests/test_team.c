/* test_team - who computes what: each item once, whoever comes and however late (TE-1, TE-3)
 *
 * The .c is included for the counters of shares and the number of the job: their wrap-around would
 * take a day of computing, and which worker takes which chunk cannot be told from outside. */
#include "base/team.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#define N_ITEM_MAX 3000

static uint32_t rand_next(uint32_t *x)
{
    *x = *x * 1664525u + 1013904223u;
    return *x >> 8;
}

struct count {
    _Atomic int n_seen[N_ITEM_MAX];
    _Atomic int n_inside;
    _Atomic int n_odd; /* parts that begin elsewhere than they may */
    int grain;
    bool is_uneven; /* some parts take long, so that workers help each other */
};

static void count_part(void *arg, int from, int to)
{
    struct count *c = arg;
    atomic_fetch_add(&c->n_inside, 1);
    atomic_fetch_add(&c->n_odd, from % c->grain != 0 || from >= to);
    for (int i = from; i < to; i++) {
        atomic_fetch_add(&c->n_seen[i], 1);
        for (int k = 0; c->is_uneven && i % 97 == 0 && k < 300; k++) {
            cpu_pause();
        }
    }
    atomic_fetch_sub(&c->n_inside, 1);
}

/* One job; nobody is inside when it returns (TE-1), and each item was seen once (TE-3). */
static void check_job(struct team *t, int n_item, int grain, bool is_uneven)
{
    static struct count c;
    memset(&c, 0, sizeof c);
    c.grain = grain;
    c.is_uneven = is_uneven;
    team_share(t, count_part, &c, n_item, grain);
    assert_int_equal(atomic_load(&c.n_inside), 0);
    assert_int_equal(atomic_load(&c.n_odd), 0);
    for (int i = 0; i < n_item; i++) {
        assert_int_equal(atomic_load(&c.n_seen[i]), 1);
    }
}

static void test_each_once(void **state)
{
    (void)state;
    static const int sizes[] = { 1, 2, 3, 7, 64 }; /* more than there are cores: many come late */
    uint32_t x = 1;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        struct team *t = NULL;
        assert_int_equal(team_open(&t, sizes[k]), ERR_OK);
        for (int i = 0; i < 400; i++) {
            const int n_item = (int)(rand_next(&x) % N_ITEM_MAX) + 1;
            check_job(t, i % 10 == 0 ? i / 10 + 1 : n_item, (int)(rand_next(&x) % 90) + 1,
                      i % 3 == 0);
        }
        team_close(t);
    }
}

/* The number of the job goes round: counters of before must not count as taken after. */
static void test_wrap(void **state)
{
    (void)state;
    struct team *t = NULL;
    assert_int_equal(team_open(&t, 3), ERR_OK);
    check_job(t, 900, 10, false); /* job 1: all counters stand at their ends */
    assert_int_equal(t->i_share, 1);
    t->i_share = UINT32_MAX - 1;
    check_job(t, 20, 10, false); /* two chunks: a share stays as job 1 left it */
    check_job(t, 900, 10, false);
    assert_int_equal(t->i_share, 1);
    team_close(t);
}

/* Without threads: workers of a job take chunks in random order, some never come. */
static void test_shares(void **state)
{
    (void)state;
    struct share shares[5] = { 0 };
    uint32_t edges[6] = { [5] = EDGE_ALL };
    struct team t = { .n_worker = 5, .shares = shares, .edges = edges };
    uint32_t x = 3;
    for (int job = 1; job <= 300; job++) {
        t.i_share = (uint32_t)job;
        for (int i = 1; i < 5; i++) { /* shares of any size, some empty */
            edges[i] = edges[i - 1] + rand_next(&x) % (EDGE_ALL - edges[i - 1] + 1);
        }
        t.work.n_chunk = (int)(rand_next(&x) % 60) + 1;
        const int n_here = (int)(rand_next(&x) % 5) + 1;
        int n_seen[64] = { 0 };
        int last[5] = { -1, -1, -1, -1, -1 };
        int n = 0;
        while (n < t.work.n_chunk) {
            const int of =
                (int)(rand_next(&x) % (uint32_t)n_here == 0 ? rand_next(&x) % 5
                                                            : rand_next(&x) % (uint32_t)n_here);
            const int chunk = take_chunk(&t, of);
            if (chunk < 0) {
                continue;
            }
            assert_true(chunk < t.work.n_chunk && chunk > last[of]); /* neighbours, in order */
            assert_true((uint32_t)chunk < (uint64_t)t.work.n_chunk * edges[of + 1] / EDGE_ALL);
            last[of] = chunk;
            assert_int_equal(n_seen[chunk]++, 0);
            n++;
        }
        for (int i = 0; i < 5; i++) {
            assert_int_equal(take_chunk(&t, i), -1);
        }
    }
}

/* Workers of given speeds compute jobs; returns how many of the last job's chunks were not of the
 * own share. Each takes its next chunk when its clock is the least. */
static int simulate(struct team *t, const uint32_t *cost, int n_job)
{
    int n_helped = 0;
    for (int job = 0; job < n_job; job++) {
        uint64_t clock[8] = { 0 };
        uint64_t n_done[8] = { 0 };
        bool is_through[8] = { false };
        t->i_share++;
        t->work.n_chunk = 128;
        n_helped = 0;
        for (int n_through = 0; n_through < t->n_worker;) {
            int w = -1;
            for (int i = 0; i < t->n_worker; i++) {
                w = !is_through[i] && (w < 0 || clock[i] < clock[w]) ? i : w;
            }
            int chunk = -1;
            for (int i = 0; i < t->n_worker && chunk < 0; i++) {
                chunk = take_chunk(t, (w + i) % t->n_worker);
                n_helped += i > 0 && chunk >= 0;
            }
            is_through[w] = chunk < 0;
            n_through += is_through[w];
            n_done[w] += !is_through[w];
            clock[w] += cost[w];
        }
        for (int i = 0; i < t->n_worker; i++) {
            atomic_fetch_add(&t->shares[i].n_done, n_done[i]);
        }
        tune(t);
    }
    return n_helped;
}

/* Two fast cores and two that take three times as long: their shares shrink until hardly anybody
 * needs help; with like cores nothing moves. */
static void test_speeds(void **state)
{
    (void)state;
    static const uint32_t hybrid[4] = { 10, 10, 30, 30 };
    static const uint32_t alike[4] = { 10, 10, 11, 10 };
    struct share shares[4] = { 0 };
    uint32_t edges[5] = { 0, EDGE_ALL / 4, EDGE_ALL / 2, EDGE_ALL / 4 * 3, EDGE_ALL };
    uint32_t speeds[4] = { EDGE_ALL / 4, EDGE_ALL / 4, EDGE_ALL / 4, EDGE_ALL / 4 };
    struct team t = { .n_worker = 4, .shares = shares, .edges = edges, .speeds = speeds };
    assert_in_range(simulate(&t, alike, 20), 0, 8);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(edges[i], EDGE_ALL / 4 * (uint32_t)i);
    }
    assert_in_range(simulate(&t, hybrid, 1), 24,
                    40); /* 64 of 128 were the slow ones', 32 suit them */
    assert_in_range(simulate(&t, hybrid, 20), 0, 8);
    assert_in_range(edges[2], EDGE_ALL / 100 * 70, EDGE_ALL / 100 * 80); /* three quarters */
    assert_in_range(simulate(&t, alike, 20), 0, 8);
    assert_int_equal(edges[2], EDGE_ALL / 2);
}

static void many_run(void *arg, int i_worker)
{
    _Atomic int *n = arg;
    atomic_fetch_add(&n[i_worker], 1);
}

/* team_run calls the caller once and each other worker at most once. */
static void test_run(void **state)
{
    (void)state;
    struct team *t = NULL;
    assert_int_equal(team_open(&t, 4), ERR_OK);
    for (int i = 0; i < 2000; i++) {
        _Atomic int n[4] = { 0 };
        team_run(t, many_run, n);
        assert_int_equal(n[0], 1);
        assert_true(n[1] <= 1 && n[2] <= 1 && n[3] <= 1);
    }
    team_close(t);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#define IS_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define IS_SANITIZED 0
#endif

#define NOT_LIMITED 77 /* by the kernel: an emulator takes limits of addresses for its own */

/* First of all tests: stacks of threads that ended are kept for the next ones. In a process that may have no more addresses: 0 when the stack is refused as memory. */
static int refused_stack(bool is_thread)
{
    struct team *t = NULL;
    struct thread *one = NULL;
    const uint64_t now = os_number_after("/proc/self/status", "VmSize") * 1024;
    const struct rlimit r = { now + TEAM_STACK_BYTES / 2, RLIM_INFINITY };
    if (setrlimit(RLIMIT_AS, &r) != 0) {
        return 1;
    }
    if (mmap(NULL, TEAM_STACK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) {
        return NOT_LIMITED;
    }
    const enum err e = is_thread ? thread_start(&one, "test", NULL, NULL) : team_open(&t, 2);
    const bool is_said = strstr(err_text(), "no memory for its stack of 512 KiB") != NULL;
    return e == ERR_MEMORY && is_said ? 0 : 2;
}

static void test_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        int status = 0;
        if (IS_SANITIZED) { /* they map what they want */
            skip();
        }
        const pid_t child = fork();
        if (child == 0) {
            _exit(refused_stack(i == 1));
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_LIMITED) {
            skip();
        }
        assert_int_equal(status, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused), cmocka_unit_test(test_each_once),
        cmocka_unit_test(test_wrap),    cmocka_unit_test(test_shares),
        cmocka_unit_test(test_speeds),  cmocka_unit_test(test_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
