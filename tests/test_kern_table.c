/* test_kern_table - the sizes that plans and backends ask the kernels' table for
 *
 * How many tiles of activations stay in a core's cache, against the layout that kern/gemm_act.h
 * states. */
#include "kern/kern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* What the panels of one tile of n_col columns read. */
static size_t read_bytes(enum kern_act_kind kind, int32_t n_col)
{
    const size_t per_col = kind == KERN_ACT_F32 ? sizeof(float) : 1;
    const size_t per_unit = kind == KERN_ACT_F32 ? 0 : 7 * sizeof(float);
    return KERN_TILE * ((size_t)n_col * per_col + (size_t)(n_col / 32) * per_unit);
}

static void test_at_once(void **state)
{
    (void)state;
    const size_t share = cpu_get()->l2_bytes / 2;
    for (int kind = 0; kind < KERN_ACT_COUNT; kind++) {
        int32_t last = INT32_MAX;
        for (int32_t n_col = 32; n_col <= 65536; n_col += 32) {
            const int32_t n = kern_act_tiles_at_once((enum kern_act_kind)kind, n_col);
            const size_t each = read_bytes((enum kern_act_kind)kind, n_col);
            assert_in_range(n, 1, last);
            assert_true(n == 1 || (size_t)n * each <= share);
            assert_true((size_t)(n + 1) * each > share);
            last = n;
        }
    }
    assert_true(kern_act_tiles_at_once(KERN_ACT_F32, 1) >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_at_once) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
