/* test_cpu - what base/cpu.c found out about the processor, against what the system says
 *
 * The second-level cache: the system lists each processor's caches as files, where it knows them. */
#include "base/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define CPUS_MAX   1024
#define CACHES_MAX 8

/* What the system says of cache `i_cache` of processor `i_cpu`: 0 where it is no second level. */
static size_t second_level(int i_cpu, int i_cache)
{
    static const char *const names[] = { "level", "size" };
    size_t value[2] = { 0, 0 };
    for (int i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/%s", i_cpu,
                 i_cache, names[i]);
        FILE *f = fopen(path, "re");
        if (f == NULL || fscanf(f, "%zu", &value[i]) != 1) {
            value[i] = 0;
        }
        if (f != NULL) {
            fclose(f);
        }
    }
    return value[0] == 2 ? value[1] << 10 : 0; /* "1024K" */
}

static void test_l2(void **state)
{
    (void)state;
    const size_t found = cpu_get()->l2_bytes;
    assert_in_range(found, 1, CPU_L2_MAX_BYTES);
    bool is_known = false;
    bool is_one = false;
    for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
        for (int i = 0; i < CACHES_MAX; i++) {
            const size_t bytes = second_level(cpu, i);
            is_known = is_known || bytes != 0;
            is_one = is_one || bytes == found || (bytes > found && found == CPU_L2_MAX_BYTES);
        }
    }
#if defined(__x86_64__)
    assert_true(is_one || !is_known);
#else
    assert_int_equal(found, CPU_L2_ASSUMED_BYTES);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_l2) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
