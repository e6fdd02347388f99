/* test_cgroup - what cgroups leave and grant, over a tree of made files: versions 1 and 2, ancestors, containers
 *
 * Includes the .c: the functions that walk the tree take the text of /proc/self/cgroup. */
#include "base/cgroup.c"

#include "base/mem.h"
#include "tree.h"

static uint64_t least(const char *lines, const struct walk *w)
{
    char text[512];
    snprintf(text, sizeof text, "%s", lines);
    return least_of_all(text, w);
}

/* For a process that holds so much already. */
static uint64_t memory_beside(uint64_t held, const char *lines)
{
    const struct walk w = { top, "memory", memory_v2, memory_v1, held };
    return least(lines, &w);
}

static uint64_t memory(const char *lines)
{
    return memory_beside(0, lines);
}

static uint64_t granted(const char *lines)
{
    const struct walk w = { top, "cpu", cores_v2, cores_v1, 0 };
    return least(lines, &w);
}

static void test_memory_v2(void **state)
{
    (void)state;
    put("a/memory.max", "1000000\n");
    put("a/memory.current", "400000\n");
    put("a/memory.stat", "anon 5\ninactive_file 100000\nactive_file 7\n");
    put("a/b/memory.max", "900000\n");
    put("a/b/memory.current", "150000\n");
    put("a/free/memory.max", "max\n");
    put("full/memory.max", "1000\n");
    put("full/memory.current", "4000\n");
    assert_int_equal(memory("0::/a\n"), 700000);        /* page cache that can go is free */
    assert_int_equal(memory("0::/a/b\n"), 700000);      /* the ancestor leaves less */
    assert_int_equal(memory("0::/a/free\n"), 700000);   /* no limit of its own */
    assert_int_equal(memory("0::/a/b/gone\n"), 700000); /* a folder that is not here */
    assert_int_equal(memory("0::/full\n"), 0);
    assert_true(memory("0::/\n") == UINT64_MAX);
    put("memory.max", "600000\n"); /* within a container the root has the limit */
    assert_int_equal(memory("0::/../outside\n"), 600000);
    assert_int_equal(memory("0::/a/b"), 600000); /* no newline at the end */
    put("memory.max", "max\n");
}

/* What a process holds and what its groups leave is never more than their limits. */
static void test_memory_held(void **state)
{
    (void)state;
    put("k/memory.max", "500000\n");
    put("k/memory.current", "100000\n");
    put("k/m/memory.max", "max\n");
    put("memory/k/memory.limit_in_bytes", "300000\n");
    put("memory/k/memory.usage_in_bytes", "100000\n");
    assert_int_equal(memory_beside(90000, "0::/k/m\n"), 490000);
    assert_int_equal(memory_beside(190000, "0::/k/m\n"), 500000);
    assert_int_equal(memory_beside(UINT64_MAX, "0::/k/m\n"), 500000);
    assert_int_equal(memory_beside(190000, "4:memory:/k\n0::/\n"), 300000);
    assert_int_equal(memory_beside(90000, "0::/full\n"), 1000);
    assert_true(memory_beside(190000, "0::/\n") == UINT64_MAX);
}

static void test_memory_v1(void **state)
{
    (void)state;
    put("memory/g/memory.limit_in_bytes", "500000\n");
    put("memory/g/memory.usage_in_bytes", "200000\n");
    put("memory/g/memory.stat", "inactive_file 1\ntotal_inactive_file 50000\n");
    put("memory/memory.limit_in_bytes", "9223372036854771712\n");
    const char *lines = "9:name=systemd:/x\n4:hugetlb,memory:/g\n1:cpu,cpuacct:/\n0::/\n";
    assert_int_equal(memory(lines), 350000);
    assert_true(memory("4:memory:/\n") == UINT64_MAX);
    assert_true(memory("4:memoryx:/g\nnonsense\n5:\n\n") == UINT64_MAX);
}

static uint64_t swap(const char *lines)
{
    const struct walk w = { top, "memory", swap_v2, swap_v1, 0 };
    return least(lines, &w);
}

static void test_swap(void **state)
{
    (void)state;
    put("s/memory.swap.max", "4096\n");
    put("s/t/memory.swap.max", "max\n");
    put("s/u/memory.swap.max", "0\n");
    put("memory/s/memory.limit_in_bytes", "500000\n");
    put("memory/s/memory.memsw.limit_in_bytes", "700000\n");
    put("memory/u/memory.limit_in_bytes", "500000\n");
    put("memory/u/memory.memsw.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(swap("0::/s/t\n"), 4096);
    assert_int_equal(swap("0::/s/u\n"), 0);
    assert_int_equal(swap("4:memory:/s\n"), 200000);
    assert_true(swap("4:memory:/u\n") == UINT64_MAX);
    assert_true(swap("0::/\n") == UINT64_MAX);
}

static void test_cores(void **state)
{
    (void)state;
    put("c/cpu.max", "150000 100000\n");
    put("c/d/cpu.max", "max 100000\n");
    put("c/e/cpu.max", "20000 100000\n");
    put("cpu/g/cpu.cfs_quota_us", "300000\n");
    put("cpu/g/cpu.cfs_period_us", "100000\n");
    put("cpu/h/cpu.cfs_quota_us", "-1\n");
    put("cpu/h/cpu.cfs_period_us", "100000\n");
    assert_int_equal(granted("0::/c/d\n"), 2); /* rounded up */
    assert_int_equal(granted("0::/c/e\n"), 1);
    assert_int_equal(granted("3:cpu,cpuacct:/g\n0::/\n"), 3);
    assert_true(granted("3:cpu,cpuacct:/h\n0::/\n") == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_v2), cmocka_unit_test(test_memory_held),
        cmocka_unit_test(test_memory_v1), cmocka_unit_test(test_swap),
        cmocka_unit_test(test_cores),
    };
    return cmocka_run_group_tests(tests, tree_setup, tree_teardown);
}
