/* test_mem - the allocator's guard: blocks and arenas within what was granted, and not beyond */
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_blocks),
                                        cmocka_unit_test(test_arenas) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
