/* test_cgroup - what cgroups leave and grant, over a tree of made files: versions 1 and 2, ancestors, containers, and processes beside
 * this one */
#include "base/cgroup.h"

#include "base/mem.h"
#include "tree.h"

/* Below the folder of groups. */
static void put_cg(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "sys/fs/cgroup/%s", name);
    put(path, text);
}

/* For a process in these groups that holds so much already. */
static uint64_t memory_beside(uint64_t held, const char *lines)
{
    const struct cgroup_held h = { .own_bytes = held };
    put("proc/self/cgroup", lines);
    return cgroup_memory(top, &h, NULL, 0, NULL);
}

static uint64_t memory(const char *lines)
{
    return memory_beside(0, lines);
}

static uint32_t granted(const char *lines)
{
    put("proc/self/cgroup", lines);
    return cgroup_cores(top);
}

static void test_memory_v2(void **state)
{
    (void)state;
    put_cg("a/memory.max", "1000000\n");
    put_cg("a/memory.current", "400000\n");
    put_cg("a/memory.stat", "anon 5\ninactive_file 100000\nactive_file 7\n");
    put_cg("a/b/memory.max", "900000\n");
    put_cg("a/b/memory.current", "150000\n");
    put_cg("a/free/memory.max", "max\n");
    put_cg("full/memory.max", "1000\n");
    put_cg("full/memory.current", "4000\n");
    assert_int_equal(memory("0::/a\n"), 700000);        /* page cache that can go is free */
    assert_int_equal(memory("0::/a/b\n"), 700000);      /* the ancestor leaves less */
    assert_int_equal(memory("0::/a/free\n"), 700000);   /* no limit of its own */
    assert_int_equal(memory("0::/a/b/gone\n"), 700000); /* a folder that is not here */
    assert_int_equal(memory("0::/full\n"), 0);
    assert_true(memory("0::/\n") == UINT64_MAX);
    put_cg("memory.max", "600000\n"); /* within a container the root has the limit */
    assert_int_equal(memory("0::/../outside\n"), 600000);
    assert_int_equal(memory("0::/a/b"), 600000); /* no newline at the end */
    put_cg("memory.max", "max\n");
}

/* What a process holds and what its groups leave is never more than their limits. */
static void test_memory_held(void **state)
{
    (void)state;
    put_cg("k/memory.max", "500000\n");
    put_cg("k/memory.current", "100000\n");
    put_cg("k/m/memory.max", "max\n");
    put_cg("memory/k/memory.limit_in_bytes", "300000\n");
    put_cg("memory/k/memory.usage_in_bytes", "100000\n");
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
    put_cg("memory/g/memory.limit_in_bytes", "500000\n");
    put_cg("memory/g/memory.usage_in_bytes", "200000\n");
    put_cg("memory/g/memory.stat", "inactive_file 1\ntotal_inactive_file 50000\n");
    put_cg("memory/memory.limit_in_bytes", "9223372036854771712\n");
    const char *lines = "9:name=systemd:/x\n4:hugetlb,memory:/g\n1:cpu,cpuacct:/\n0::/\n";
    assert_int_equal(memory(lines), 350000);
    assert_true(memory("4:memory:/\n") == UINT64_MAX);
    assert_true(memory("4:memoryx:/g\nnonsense\n5:\n\n") == UINT64_MAX);
}

static uint64_t swap(const char *lines)
{
    put("proc/self/cgroup", lines);
    return cgroup_swap(top);
}

static void test_swap(void **state)
{
    (void)state;
    put_cg("s/memory.swap.max", "4096\n");
    put_cg("s/t/memory.swap.max", "max\n");
    put_cg("s/u/memory.swap.max", "0\n");
    put_cg("memory/s/memory.limit_in_bytes", "500000\n");
    put_cg("memory/s/memory.memsw.limit_in_bytes", "700000\n");
    put_cg("memory/u/memory.limit_in_bytes", "500000\n");
    put_cg("memory/u/memory.memsw.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(swap("0::/s/t\n"), 4096);
    assert_int_equal(swap("0::/s/u\n"), 0);
    assert_int_equal(swap("4:memory:/s\n"), 200000);
    assert_true(swap("4:memory:/u\n") == UINT64_MAX);
    assert_true(swap("0::/\n") == UINT64_MAX);
}

static void test_cores(void **state)
{
    (void)state;
    put_cg("c/cpu.max", "150000 100000\n");
    put_cg("c/d/cpu.max", "max 100000\n");
    put_cg("c/e/cpu.max", "20000 100000\n");
    put_cg("cpu/g/cpu.cfs_quota_us", "300000\n");
    put_cg("cpu/g/cpu.cfs_period_us", "100000\n");
    put_cg("cpu/h/cpu.cfs_quota_us", "-1\n");
    put_cg("cpu/h/cpu.cfs_period_us", "100000\n");
    assert_int_equal(granted("0::/c/d\n"), 2); /* rounded up */
    assert_int_equal(granted("0::/c/e\n"), 1);
    assert_int_equal(granted("3:cpu,cpuacct:/g\n0::/\n"), 3);
    assert_true(granted("3:cpu,cpuacct:/h\n0::/\n") == UINT32_MAX);
}

/* memory.high below memory.max is the limit, in an ancestor too, and is said by name. */
static void test_high(void **state)
{
    (void)state;
    const struct cgroup_held none = { 0 };
    const char *name = NULL;
    put_cg("h/memory.max", "900000\n");
    put_cg("h/memory.high", "600000\n");
    put_cg("h/memory.current", "100000\n");
    put_cg("h/i/memory.max", "800000\n");
    put_cg("h/i/memory.high", "max\n");
    put_cg("h/i/memory.current", "50000\n");
    put_cg("h/j/memory.max", "300000\n");
    put_cg("h/j/memory.high", "300000\n");
    put("proc/self/cgroup", "0::/h/i\n");
    assert_int_equal(cgroup_memory(top, &none, NULL, 0, &name), 500000);
    assert_non_null(strstr(name, "memory.high"));
    put("proc/self/cgroup", "0::/h/j\n");
    assert_int_equal(cgroup_memory(top, &none, NULL, 0, &name), 300000);
    assert_string_equal(name, "the cgroup's memory limit");
    put_cg("h/memory.high", "max\n");
    put("proc/self/cgroup", "0::/h\n");
    assert_int_equal(cgroup_memory(top, &none, NULL, 0, &name), 800000);
    put_cg("h/memory.max", "max\n"); /* high alone */
    put_cg("h/memory.high", "700000\n");
    assert_int_equal(cgroup_memory(top, &none, NULL, 0, &name), 600000);
    assert_non_null(strstr(name, "memory.high"));
}

static void put_group(const char *pid, const char *group, bool is_v1)
{
    char name[64];
    char line[64];
    snprintf(name, sizeof name, "proc/%s/cgroup", pid);
    snprintf(line, sizeof line, "%s:%s%s", is_v1 ? "5:memory" : "0:", group,
             is_v1 ? "\n0::/\n" : "\n");
    put(name, line);
}

static void remove_tree_of_77(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/proc/77/cgroup", top);
    assert_int_equal(remove(path), 0);
}

static uint64_t memory_with(const struct cgroup_held *held, const struct cgroup_claim *c, int n)
{
    return cgroup_memory(top, held, c, n, NULL);
}

/* 1000000 for the slice, in which 200000 are used; ours may have 900000, and holds 50000. */
static void test_others(void **state)
{
    (void)state;
    const struct cgroup_held held = { .own_bytes = 50000 };
    const struct cgroup_claim c[] = { { .pid = 77, .plan_bytes = 400000, .own_bytes = 100000 } };
    for (int v1 = 0; v1 < 2; v1++) {
        const char *of = v1 ? "memory/s" : "s";
        static const char *const files[2][2] = {
            { "memory.max", "memory.current" }, { "memory.limit_in_bytes", "memory.usage_in_bytes" }
        };
        char name[64];
        snprintf(name, sizeof name, "%s/%s", of, files[v1][0]);
        put_cg(name, "1000000\n");
        snprintf(name, sizeof name, "%s/%s", of, files[v1][1]);
        put_cg(name, "200000\n");
        snprintf(name, sizeof name, "%s/our/%s", of, files[v1][0]);
        put_cg(name, "900000\n");
        snprintf(name, sizeof name, "%s/our/%s", of, files[v1][1]);
        put_cg(name, "60000\n");
        put_group("self", "/s/our", v1 == 1);
        static const struct {
            const char *group;
            uint64_t available;
        } rows[] = {
            { "/s/our", 550000 },        /* 1000000 - 200000 + 50000 - 300000 */
            { "/s/our/below", 550000 },  /* within ours */
            { "/s/other", 550000 },      /* a sibling */
            { "/s/other/deep", 550000 }, /* and one below it */
            { "/s", 550000 },            /* in the ancestor itself */
            { "/s2", 850000 },           /* another slice, whose name begins the same */
            { "/", 850000 },             /* above the limit */
            { "/../s/our", 850000 },     /* outside what this namespace sees */
        };
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            put_group("77", rows[i].group, v1 == 1);
            assert_int_equal(memory_with(&held, c, 1), rows[i].available);
        }
    }
    /* what sits in our group and takes much leaves less of our own limit than of the slice's */
    const struct cgroup_claim much[] = { { .pid = 77, .plan_bytes = 950000 } };
    put("proc/self/cgroup", "0::/s/our\n");
    put("proc/77/cgroup", "0::/s/our\n");
    assert_int_equal(memory_with(&held, much, 1), 0);
    put("proc/77/cgroup", "0::/s/other\n");
    assert_int_equal(memory_with(&held, much, 1), 0); /* 1000000 - 200000 + 50000 - 950000 */
    remove_tree_of_77();
    assert_int_equal(memory_with(&held, c, 1), 850000); /* gone */
}

/* A group of 1000000 with a mapped image of 600000, inactive or found in use. */
static void test_images(void **state)
{
    (void)state;
    const char *inactive = "inactive_file 600000\nactive_file 0\n";
    const char *active = "inactive_file 0\nactive_file 600000\n";
    put("proc/self/cgroup", "0::/m\n");
    put("proc/88/cgroup", "0::/m\n");
    put_cg("m/memory.max", "1000000\n");
    put_cg("m/memory.current", "700000\n"); /* the image, and 100000 of its process */
    const struct cgroup_held self = { .own_bytes = 100000, .image_bytes = 600000 };
    const struct cgroup_held none = { 0 };
    struct cgroup_claim other = {
        .pid = 88, .plan_bytes = 750000, .own_bytes = 100000, .file_bytes = 600000
    };
    for (int i = 0; i < 2; i++) {
        put_cg("m/memory.stat", i == 0 ? inactive : active);
        /* alone here: all of the limit is ours, and no more */
        assert_int_equal(memory_with(&self, NULL, 0), 1000000);
        /* another's: 750000 are planned, so 250000 are left, wherever its pages lie */
        assert_int_equal(memory_with(&none, &other, 1), 250000);
        /* the image is in our plan, too: beside us the other takes 150000 of its own */
        other.shared_bytes = other.ours_bytes = 600000;
        assert_int_equal(memory_with(&none, &other, 1), 850000);
        /* it is in a third one's claim: the other has no claim on it */
        other.ours_bytes = 0;
        assert_int_equal(memory_with(&none, &other, 1), i == 0 ? 850000 : 250000);
        other.shared_bytes = 0;
    }
    put_cg("m/memory.current", "900000\n"); /* 200000 of somebody else */
    put_cg("m/memory.stat", inactive);
    assert_int_equal(memory_with(&self, NULL, 0), 800000); /* not 1000000: pages count once */
}

/* Of a process in these groups. */
static void check_room(const char *lines, uint64_t left, uint64_t limit, const char *pressure)
{
    uint64_t is_left = 0;
    uint64_t is_limit = 0;
    char text[64];
    put("proc/self/cgroup", lines);
    const size_t n = cgroup_room(top, &is_left, &is_limit, text, sizeof text);
    assert_int_equal(is_left, left);
    assert_int_equal(is_limit, limit);
    assert_string_equal(text, pressure);
    assert_int_equal(n, strlen(pressure));
}

/* The group that has least left of its limit, and its own pressure; all page cache counts as free. */
static void test_room(void **state)
{
    (void)state;
    put_cg("r/memory.max", "1000000\n");
    put_cg("r/memory.current", "980000\n");
    put_cg("r/memory.stat", "inactive_file 30000\nactive_file 20000\n");
    put_cg("r/memory.pressure", "above");
    put_cg("r/q/memory.max", "100000\n");
    put_cg("r/q/memory.current", "50000\n");
    put_cg("r/q/memory.pressure", "own");
    check_room("0::/r/q\n", 70000, 1000000, "above");
    put_cg("r/q/memory.current", "99000\n");
    check_room("0::/r/q\n", 1000, 100000, "own");
    put_cg("r/s/memory.max", "100000\n"); /* tells none */
    put_cg("r/s/memory.current", "99000\n");
    check_room("0::/r/s\n", 1000, 100000, "");
}

/* Version 1 has the limit and tells nothing: what a hierarchy of version 2 beside it tells is not of that limit. */
static void test_room_v1(void **state)
{
    (void)state;
    put_cg("memory/v/memory.limit_in_bytes", "100000\n");
    put_cg("memory/v/memory.usage_in_bytes", "99000\n");
    put_cg("unified/v/memory.pressure", "beside");
    put_cg("unified/memory.pressure", "of the box");
    check_room("4:memory:/v\n0::/v\n", 1000, 100000, "");
    check_room("0::/v\n4:memory:/v\n", 1000, 100000, "");
    check_room("4:memory:/\n0::/v\n", UINT64_MAX, UINT64_MAX, "beside"); /* no limit */
}

/* No limit: the nearest group that tells any, but the box's root, which has no limits, is none. */
static void test_room_unlimited(void **state)
{
    (void)state;
    char path[128];
    put_cg("p/memory.pressure", "parent");
    put_cg("p/q/memory.pressure", "own");
    put_cg("memory.pressure", "of the root");
    put_cg("memory.max", "max\n"); /* a container's root */
    check_room("0::/p/q\n", UINT64_MAX, UINT64_MAX, "own");
    check_room("0::/p/gone/away\n", UINT64_MAX, UINT64_MAX, "parent");
    check_room("0::/\n", UINT64_MAX, UINT64_MAX, "of the root");
    snprintf(path, sizeof path, "%s/sys/fs/cgroup/memory.max", top);
    assert_int_equal(remove(path), 0);
    check_room("0::/\n", UINT64_MAX, UINT64_MAX, "");
    check_room("0::/gone\n", UINT64_MAX, UINT64_MAX, "");
    check_room("4:memory:/p\n", UINT64_MAX, UINT64_MAX, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_v2),      cmocka_unit_test(test_memory_held),
        cmocka_unit_test(test_memory_v1),      cmocka_unit_test(test_swap),
        cmocka_unit_test(test_cores),          cmocka_unit_test(test_high),
        cmocka_unit_test(test_others),         cmocka_unit_test(test_images),
        cmocka_unit_test(test_room),           cmocka_unit_test(test_room_v1),
        cmocka_unit_test(test_room_unlimited),
    };
    return cmocka_run_group_tests(tests, tree_setup, tree_teardown);
}
