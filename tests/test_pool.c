/* test_pool - memory that this process may have, over a tree of made files
 *
 * Includes the .c: the function that reads /proc/meminfo takes its path. */
#include "base/pool.c"

#include "base/buf.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char top[] = "/tmp/test_pool-XXXXXX";

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", top, name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    assert_int_equal(os_make_dirs(path), ERR_OK);
    *slash = '/';
    assert_int_equal(os_write_file(path, view_of(text)), ERR_OK);
}

static void test_this_box(void **state)
{
    (void)state;
    const char *name = NULL;
    const uint64_t n = pool_available(&name);
    assert_true(n > 0 && n <= os_number_after("/proc/meminfo", "MemTotal") * 1024 && name != NULL);
    assert_true(cgroup_cores("") >= 1);
}

static void test_hidden_meminfo(void **state)
{
    (void)state;
    char path[256];
    const char *name = NULL;
    put("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:    5000 kB\n");
    snprintf(path, sizeof path, "%s/proc/meminfo", top);
    assert_int_equal(box_memory(path, &name), 5000 * 1024);
    assert_string_equal(name, "memory available on this box");
    snprintf(path, sizeof path, "%s/proc/gone", top);
    const uint64_t n = box_memory(path, &name);
    assert_true(n > 0 && n <= os_number_after("/proc/meminfo", "MemTotal") * 1024);
    assert_non_null(strstr(name, "/proc/meminfo cannot be read"));
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(top) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", top);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_this_box),
        cmocka_unit_test(test_hidden_meminfo),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
