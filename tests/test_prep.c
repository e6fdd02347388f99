/* test_prep - who is prepared first
 *
 * The order alone: what preparing does is tested through the interface (test_api.py). */
#include "serve/prep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SECOND_US ((uint64_t)1000000)
#define BOOK      ((size_t)2 << 20)

static bool is_before(uint64_t a_us, size_t a_bytes, uint64_t b_us, size_t b_bytes)
{
    const struct prep_item a = { .came_us = a_us, .body = { .n = a_bytes } };
    const struct prep_item b = { .came_us = b_us, .body = { .n = b_bytes } };
    assert_false(prep_is_before(&a, &b) && prep_is_before(&b, &a));
    return prep_is_before(&a, &b);
}

static void test_short_first(void **state)
{
    (void)state;
    assert_true(is_before(SECOND_US, 100, 0, BOOK));
    assert_true(is_before(0, 100, SECOND_US, 100));
    assert_true(is_before(0, BOOK, 1, BOOK));
}

/* However many short ones come: from some time on none goes before the long one. */
static void test_nobody_waits_forever(void **state)
{
    (void)state;
    assert_true(is_before(0, BOOK, 60 * SECOND_US, 0));
    assert_true(is_before(0, 8 * BOOK, 600 * SECOND_US, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_first),
        cmocka_unit_test(test_nobody_waits_forever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
