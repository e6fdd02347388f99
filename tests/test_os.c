/* test_os - what cgroups leave and grant, over a tree of made files: versions 1 and 2, ancestors, containers
 *
 * Includes the .c: the functions that walk the tree take its top as a parameter, and the header has none. */
#include "base/os.c"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static char top[] = "/tmp/test_os-XXXXXX";

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

/* Both ways to count pages of 2 MB tell the same; how many there are is the kernel's choice. */
static void test_huge(void **state)
{
    (void)state;
    struct arena a;
    uint64_t scanned = 0;
    uint64_t n_read = 0;
    uint64_t told = 0;
    assert_int_equal(arena_open(&a, (size_t)9 << 20, true), ERR_OK);
    assert_int_equal(read_huge((uintptr_t)a.base, a.cap, &n_read), ERR_OK);
    if (scan_huge((uintptr_t)a.base, a.cap, &scanned)) {
        assert_int_equal(scanned, n_read);
    }
    assert_int_equal(os_huge_bytes(a.base, a.cap, &told), ERR_OK);
    assert_int_equal(told, n_read);
    const size_t each = (size_t)2 << 20; /* a page is counted in the part where it lies */
    const bool can_scan = scan_huge((uintptr_t)a.base, a.cap, &scanned);
    uint64_t sum = 0;
    for (size_t at = 0; at < a.cap && can_scan; at += each) {
        const size_t n = a.cap - at < each ? a.cap - at : each;
        assert_int_equal(os_huge_bytes(a.base + at, n, &told), ERR_OK);
        assert_true(told == 0 || told == n);
        sum += told;
    }
    assert_true(!can_scan || sum == scanned);
    arena_close(&a);
}

/* A processor of two parts with a cache each, a core without a third level, one that is off. */
static void test_caches(void **state)
{
    (void)state;
    put("cpu0/cache/index2/size", "1024K\n");
    put("cpu0/cache/index3/size", "32768K\n");
    put("cpu0/cache/index3/shared_cpu_list", "0,2\n");
    put("cpu2/cache/index3/size", "32768K\n");
    put("cpu2/cache/index3/shared_cpu_list", "0,2\n");
    put("cpu3/cache/index3/size", "16384K\n");
    put("cpu3/cache/index3/shared_cpu_list", "3-5\n");
    put("cpu6/cache/index2/size", "512K\n");
    put("cpu6/cache/index2/shared_cpu_list", "6\n");
    cpu_set_t all;
    cpu_set_t one;
    CPU_ZERO(&all);
    CPU_ZERO(&one);
    for (int i = 0; i < 8; i++) {
        CPU_SET(i, &all);
    }
    CPU_SET(2, &one); /* not the first that shares its cache */
    assert_int_equal(caches_below(top, &all), (32768 + 16384 + 512) * 1024);
    assert_int_equal(caches_below(top, &one), 32768 * 1024);
    assert_int_equal(caches_below("/tmp/gone", &all), 0);
    put("cpu6/cache/index2/size", "99999999K\n");
    assert_int_equal(caches_below(top, &all), (32768 + 16384) * 1024);
    assert_in_range(os_beyond_caches(1 << 20), 1 << 20, BEYOND_MAX_BYTES);
    assert_int_equal(os_beyond_caches(BEYOND_MAX_BYTES + 1), BEYOND_MAX_BYTES + 1);
}

static void test_this_box(void **state)
{
    (void)state;
    const char *name = NULL;
    const uint64_t n = os_memory_available(&name);
    assert_true(n > 0 && n <= kb_after("/proc/meminfo", "MemTotal") && name != NULL);
    assert_true(os_cores_granted() >= 1);
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
    assert_true(n > 0 && n <= kb_after("/proc/meminfo", "MemTotal"));
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
        cmocka_unit_test(test_memory_v2), cmocka_unit_test(test_memory_held),
        cmocka_unit_test(test_memory_v1), cmocka_unit_test(test_cores),
        cmocka_unit_test(test_huge),      cmocka_unit_test(test_caches),
        cmocka_unit_test(test_this_box),  cmocka_unit_test(test_hidden_meminfo),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
