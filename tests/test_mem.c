/* test_mem - the allocator's guard: blocks and arenas within what was granted, and not beyond */
#include "base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB ((size_t)1024)

static void test_blocks(void **state)
{
    (void)state;
    void *before = mem_alloc(100 * KIB);
    const size_t held = mem_held_bytes();
    void *own = mem_alloc(10 * KIB); /* taken before the grant, and part of it */
    mem_grant(64 * KIB, held);
    assert_true(mem_is_guarded());
    assert_null(mem_alloc(54 * KIB + 1));
    void *p = mem_alloc(54 * KIB);
    assert_non_null(p);
    assert_null(mem_alloc(1));
    assert_null(mem_realloc(p, 54 * KIB + 1));
    p = mem_realloc(p, 50 * KIB); /* gives 4 KiB back */
    assert_non_null(p);
    void *q = mem_alloc(4 * KIB);
    assert_non_null(q);
    mem_grant(8 * KIB, mem_held_bytes()); /* of another owner: grants add up */
    void *r = mem_alloc(8 * KIB);
    assert_non_null(r);
    assert_null(mem_alloc(1));
    mem_free(r);
    mem_ungrant(8 * KIB);
    assert_null(mem_alloc(1));
    mem_free(q);
    mem_free(p);
    mem_free(own);
    assert_int_equal(mem_held_bytes(), held);
    mem_ungrant(64 * KIB);
    assert_false(mem_is_guarded());
    p = mem_alloc(1000 * KIB);
    assert_non_null(p);
    mem_free(p);
    mem_free(before);
}

static void test_arenas(void **state)
{
    (void)state;
    const size_t held = mem_held_bytes();
    struct arena a = { 0 };
    struct arena b = { 0 };
    mem_grant(8192 * KIB, held);
    assert_int_equal(arena_open(&a, 8192 * KIB + 1, false), ERR_MEMORY);
    assert_int_equal(mem_held_bytes(), held); /* what was refused counts no more */
    assert_int_equal(arena_open(&a, 8188 * KIB - 1, true), ERR_OK);
    assert_int_equal(arena_open(&b, 4 * KIB + 1, false), ERR_MEMORY);
    assert_int_equal(arena_open(&b, 4 * KIB, false), ERR_OK);
    assert_null(mem_alloc(1));
    arena_close(&b);
    arena_close(&a);
    assert_int_equal(mem_held_bytes(), held);
    mem_ungrant(8192 * KIB);
    assert_int_equal(arena_open(&a, 8193 * KIB, false), ERR_OK);
    arena_close(&a);
    assert_int_equal(mem_held_bytes(), held);
}

static void *grant_and_end(void *arg)
{
    int *n_off = arg;
    for (int i = 0; i < 200000; i++) {
        mem_grant((size_t)1 << 40, 0);
        *n_off += !mem_is_guarded();
        mem_ungrant((size_t)1 << 40);
    }
    return NULL;
}

/* Whoever was granted memory is guarded until it gives that back, whatever others do. */
static void test_grants_of_two(void **state)
{
    (void)state;
    pthread_t other;
    int n_off[2] = { 0, 0 };
    assert_int_equal(pthread_create(&other, NULL, grant_and_end, &n_off[1]), 0);
    grant_and_end(&n_off[0]);
    pthread_join(other, NULL);
    assert_int_equal(n_off[0] + n_off[1], 0);
    assert_false(mem_is_guarded());
}

static void *give_back(void *arg)
{
    mem_free(arg);
    return NULL;
}

/* What others take and give back meanwhile is in no difference of a thread's own bytes. */
static void test_thread(void **state)
{
    (void)state;
    pthread_t other;
    void *early = mem_alloc(300 * KIB);
    const size_t before = mem_thread_bytes();
    const size_t all = mem_used_bytes();
    void *own = mem_alloc(5 * KIB);
    assert_int_equal(pthread_create(&other, NULL, give_back, early), 0);
    pthread_join(other, NULL);
    assert_int_equal(mem_thread_bytes() - before, 5 * KIB);
    assert_true(mem_used_bytes() < all);
    mem_free(own);
    assert_int_equal(mem_thread_bytes(), before);
}

static void on_bus(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)context;
    if (!mem_mend(info->si_addr)) {
        _exit(9);
    }
}

/* Of a file that is shortened zeros are read, and it counts as torn. */
static void test_torn(void **state)
{
    (void)state;
    const size_t n = ((size_t)5 << 20) + 4096;
    const struct sigaction mend = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };
    struct sigaction before;
    struct arena a;
    const int fd = memfd_create("torn", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, (off_t)n), 0);
    assert_int_equal(pwrite(fd, "abc", 3, 0), 3);
    assert_int_equal(sigaction(SIGBUS, &mend, &before), 0);
    assert_int_equal(arena_open_file(&a, fd, 0, n), ERR_OK);
    const volatile uint8_t *bytes = a.base;
    assert_int_equal(bytes[0], 'a');
    assert_false(mem_is_torn());
    assert_false(mem_mend(&a)); /* not of a file */
    assert_int_equal(ftruncate(fd, 0), 0);
    for (size_t i = 0; i < n; i += 4096) {
        assert_int_equal(bytes[i], 0);
    }
    assert_true(mem_is_torn());
    const uint8_t *gone = a.base;
    arena_close(&a);
    assert_false(mem_mend(gone));
    assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_blocks),
                                        cmocka_unit_test(test_arenas),
                                        cmocka_unit_test(test_grants_of_two),
                                        cmocka_unit_test(test_thread),
                                        cmocka_unit_test(test_torn) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
