/* test_pool - the memories of a box, over trees of files as real boxes have them (tests/trees), each with the sum that a person
 * would do by hand; and of this box */
#include "base/pool.h"

#include "base/claim.h"
#include "tree.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KB ((uint64_t)1024)

static const char *of_box = "memory available on this box, less a reserve";
static const char *of_cma = "memory available on this box, less free CMA and a reserve";
static const char *of_group = "the cgroup's memory limit";

static char none[64]; /* a folder of plans that is not there */

static struct pool read_tree(const char *name)
{
    struct pool p;
    char path[512];
    tree_path(path, name);
    pool_read(&p, path, none, NULL);
    return p;
}

/* 512 MB carved out of 128 GB. Of the 124518400 kB that the kernel calls available, 9355144 are lent by drivers; 1/64 of
 * 130988032 is more than 1 GiB, so 1048576 stay for the system; 6144 are here already. */
static void test_halo_512m(void **state)
{
    (void)state;
    const struct pool p = read_tree("halo-512m");
    assert_int_equal(p.host.total_bytes, 130988032 * KB);
    assert_int_equal(p.host.available_bytes, (124518400 - 9355144 - 1048576 + 6144) * KB);
    assert_int_equal(p.host.available_bytes, 114120824 * KB); /* 108.8 GiB, not 124.9 and not 128 */
    assert_string_equal(p.host.limit, of_cma);
    assert_false(p.host.is_ulimit);
    assert_int_equal(p.n_gpu, 1);
    assert_string_equal(p.gpu[0].name, "card1");
    assert_true(p.gpu[0].is_told && p.gpu[0].is_carved);
    assert_int_equal(p.gpu[0].total_bytes, 536870912);
    assert_int_equal(p.gpu[0].free_bytes, 536870912 - 171651072);
    /* GTT says 128 GiB, but ttm stops at 16373504 pages, which is half of the memory */
    assert_int_equal(p.gpu[0].map_bytes, (uint64_t)16373504 * 4096 - 26214400);
    assert_int_equal(p.host.locked_bytes, 8388608);
}

/* 96 GB carved out of 128: the host has the other 32, and the carve-out is no part of them. 1/64 of 31960776 kB are 511372416
 * bytes. */
static void test_halo_96g(void **state)
{
    (void)state;
    const struct pool p = read_tree("halo-96g");
    assert_int_equal(p.host.reserve_bytes, 511372416);
    assert_int_equal(p.host.available_bytes, 27705600 * KB - 511372416 + 6144 * KB);
    assert_int_equal(p.host.available_bytes, 27865453440); /* 26.0 GiB */
    assert_string_equal(p.host.limit, of_box);
    assert_int_equal(p.n_gpu, 1);
    assert_true(p.gpu[0].is_carved);
    assert_int_equal(p.gpu[0].total_bytes, 103079215104);
    assert_int_equal(p.gpu[0].free_bytes, 81515249664); /* 75.9 GiB */
    assert_int_equal(p.gpu[0].map_bytes, 16363954176 - 17731584);
    /* both pools and what the firmware keeps are no more than the box has */
    assert_true(p.host.total_bytes + p.gpu[0].total_bytes < (uint64_t)128 << 30);
}

/* The driver keeps 80 GiB that no process has: MemAvailable knows, MemTotal and the driver do not. NVIDIA tells no memory. */
static void test_gb10(void **state)
{
    (void)state;
    const struct pool p = read_tree("gb10");
    assert_int_equal(p.host.available_bytes, (40174336 - 69320 - 1048576 + 6144) * KB);
    assert_int_equal(p.host.available_bytes, 39062584 * KB); /* 37.3 of 128 GB */
    assert_string_equal(p.host.limit, of_cma);
    assert_true(p.host.locked_bytes == UINT64_MAX);
    assert_int_equal(p.n_gpu, 1);
    assert_false(p.gpu[0].is_told);
    assert_int_equal(p.gpu[0].total_bytes + p.gpu[0].free_bytes + p.gpu[0].map_bytes, 0);
}

/* 1/64 of 8245632 kB are 128838. */
static void test_pi(void **state)
{
    (void)state;
    const struct pool p = read_tree("pi-8g");
    assert_int_equal(p.host.available_bytes, (7414560 - 42016 - 128838 + 6144) * KB);
    assert_int_equal(p.host.available_bytes,
                     7249850 * KB); /* 6.9 GiB; the 200 MB of swap are not in it */
    assert_string_equal(p.host.limit, of_cma);
    assert_int_equal(p.n_gpu, 0);
}

/* 8 GiB, of which 1288490188 bytes are in use, of which 943718400 are page cache that can go: 8245162804 are left, and 6 MiB of
 * what is in use are ours. The 55 GiB that the box has do not matter. */
static void test_containers(void **state)
{
    (void)state;
    static const char *const names[] = { "container-v2", "container-v1" };
    for (int i = 0; i < 2; i++) {
        const struct pool p = read_tree(names[i]);
        assert_int_equal(p.host.total_bytes, 65755000 * KB);
        assert_int_equal(p.host.available_bytes, 8589934592 - (1288490188 - 943718400) + 6144 * KB);
        assert_int_equal(p.host.available_bytes, 8251454260);
        assert_string_equal(p.host.limit, of_group);
    }
}

/* A cgroup without a limit. 1/64 of 24684092 kB are 394945472 bytes. */
static void test_vm(void **state)
{
    (void)state;
    const struct pool p = read_tree("vm-24g");
    assert_true(p.host.group_bytes == UINT64_MAX);
    assert_int_equal(p.host.available_bytes, 23931428 * KB - 394945472 + 6144 * KB);
    assert_int_equal(p.host.available_bytes, 24117128256);
    assert_string_equal(p.host.limit, of_box);
}

/* 566 GiB, of which 527 lie in pools of huge pages: 11904 free ones of 2 MiB, less 153 that are promised, and 400 of 1 GiB. */
static void test_huge(void **state)
{
    (void)state;
    const struct pool p = read_tree("huge-566g");
    assert_int_equal(p.host.huge_bytes,
                     (uint64_t)(11904 - 153) * 2048 * KB + (uint64_t)400 * 1048576 * KB);
    assert_int_equal(p.host.available_bytes, (34258672 - 1048576 + 6144) * KB);
    assert_int_equal(p.host.available_bytes, 33216240 * KB); /* 31.7 GiB */
}

/* A card's memory is no part of the box's. */
static void test_card(void **state)
{
    (void)state;
    const struct pool p = read_tree("card-24g");
    assert_int_equal(p.n_gpu, 1);
    assert_true(p.gpu[0].is_told);
    assert_false(p.gpu[0].is_carved);
    assert_int_equal(p.gpu[0].free_bytes, 25753026560 - 1288490188);
    assert_int_equal(p.gpu[0].map_bytes, (uint64_t)8219375 * 4096 - 104857600);
}

/* AMD's own module has the say where it is loaded. */
static void test_amdttm(void **state)
{
    (void)state;
    char path[128];
    struct pool p;
    put("amd/proc/meminfo", "MemTotal: 33554432 kB\nMemAvailable: 31457280 kB\n");
    put("amd/sys/class/drm/card0/device/vendor", "0x1002");
    put("amd/sys/class/drm/card0/device/mem_info_vram_total", "536870912");
    put("amd/sys/class/drm/card0/device/mem_info_gtt_total", "17179869184");
    put("amd/sys/module/ttm/parameters/pages_limit", "4194304");
    put("amd/sys/module/amdttm/parameters/pages_limit", "2097152");
    snprintf(path, sizeof path, "%s/amd", top);
    pool_read(&p, path, none, NULL);
    assert_string_equal(p.gpu[0].ttm, "amdttm");
    assert_int_equal(p.gpu[0].gtt_bytes, (uint64_t)16 << 30);
    assert_int_equal(p.gpu[0].ttm_bytes, (uint64_t)8 << 30);
    assert_int_equal(p.gpu[0].map_bytes, (uint64_t)8 << 30);
}

/* Another process of hearth that begins to load 100 GiB. */
static void test_claimed(void **state)
{
    (void)state;
    int ready[2];
    int done[2];
    char folder[64];
    char path[512];
    char byte = 0;
    struct pool p;
    snprintf(folder, sizeof folder, "%s/claims", top);
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(done), 0);
    const pid_t child = fork();
    if (child == 0) {
        struct claim c = { 0 };
        const bool is_made = claim_open(&c, folder, (uint64_t)100 << 30, NULL) == ERR_OK;
        close(done[1]);
        _exit(is_made && write(ready[1], "y", 1) == 1 && read(done[0], &byte, 1) == 0 ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    tree_path(path, "halo-512m"); /* the other process is not in this tree: it holds nothing yet */
    pool_read(&p, path, folder, NULL);
    assert_int_equal(p.host.other_bytes, (uint64_t)100 << 30);
    /* 114120824 - 104857600 kB */
    assert_int_equal(p.host.available_bytes, 9263224 * KB);
    assert_string_equal(p.host.limit, "memory available on this box, less free CMA, what other "
                                      "hearth processes planned, and a reserve");
    /* GTT would allow 62 GiB, but the host has 8.8 */
    assert_int_equal(p.gpu[0].map_bytes, p.host.available_bytes);
    tree_path(path, "container-v2"); /* it is not in our container */
    pool_read(&p, path, folder, NULL);
    assert_int_equal(p.host.group_bytes, 8251454260);
    /* a container of 120 GiB on 512, in which both are: the other one holds 30 GiB of its 100 */
    char name[64];
    snprintf(path, sizeof path, "%s/box", top);
    put("box/proc/meminfo", "MemTotal:       536870912 kB\nMemAvailable:   536000000 kB\n");
    put("box/proc/self/cgroup", "0::/\n");
    put("box/sys/fs/cgroup/memory.max", "128849018880\n");
    put("box/sys/fs/cgroup/memory.current", "32212254720\n");
    snprintf(name, sizeof name, "box/proc/%d/cgroup", (int)child);
    put(name, "0::/\n");
    snprintf(name, sizeof name, "box/proc/%d/status", (int)child);
    put(name, "VmRSS:\t31457280 kB\n");
    pool_read(&p, path, folder, NULL);
    assert_int_equal(p.host.other_bytes, (uint64_t)70 << 30);
    assert_int_equal(p.host.available_bytes, (uint64_t)(120 - 30 - 70) << 30);
    assert_string_equal(p.host.limit, of_group);
    close(done[1]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    tree_path(path, "halo-512m");
    pool_read(&p, path, folder, NULL);
    assert_int_equal(p.host.available_bytes, 114120824 * KB);
    close(ready[0]);
    close(ready[1]);
    close(done[0]);
}

/* Of 8 GiB 6 are available, a mapped image of 2 among them; this process has 1 of its own. 1/64 is 128 MiB. */
static void test_own_files(void **state)
{
    (void)state;
    struct pool p;
    char path[512];
    snprintf(path, sizeof path, "%s/files", top);
    put("files/proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\n");
    put("files/proc/self/status", "VmRSS:\t3145728 kB\nRssAnon:\t1047552 kB\nRssFile:\t2097152 kB\n"
                                  "RssShmem:\t1024 kB\nVmExe:\t4096 kB\nVmLib:\t4096 kB\n");
    pool_read(&p, path, none, NULL);
    assert_int_equal(p.host.held_bytes, (uint64_t)1 << 30);
    assert_int_equal(p.host.available_bytes, (uint64_t)(6 * 1024 - 128 + 1024) << 20);
    /* in a group of 4 GiB, alone: all of it is ours, whatever lies where */
    put("files/proc/self/cgroup", "0::/\n");
    put("files/sys/fs/cgroup/memory.max", "4294967296\n");
    put("files/sys/fs/cgroup/memory.current", "3221225472\n"); /* 3072 MiB */
    put("files/sys/fs/cgroup/memory.stat", "inactive_file 2147483648\nactive_file 0\n");
    pool_read(&p, path, none, NULL);
    assert_int_equal(p.host.available_bytes, (uint64_t)4096 << 20);
    put("files/sys/fs/cgroup/memory.stat", "inactive_file 0\nactive_file 2147483648\n");
    pool_read(&p, path, none, NULL);
    assert_int_equal(p.host.available_bytes, (uint64_t)4096 << 20);
    assert_string_equal(p.host.limit, of_group);
}

/* 4096 MiB of addresses, of which 1024 are mapped and 160 stay apart; 100 of memory and 10 of code are in the plan already. */
static void test_limits(void **state)
{
    (void)state;
    struct pool p;
    char path[512];
    const struct claim_image image = { 1, 2, (uint64_t)500 << 20 };
    snprintf(path, sizeof path, "%s/limits", top);
    put("limits/proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 12582912 kB\n");
    put("limits/proc/self/status", "VmSize:\t1048576 kB\nVmData:\t524288 kB\nRssAnon:\t102400 kB\n"
                                   "VmExe:\t4096 kB\nVmLib:\t6144 kB\n");
    put("limits/proc/self/limits", "Max data size   unlimited   unlimited   bytes\n"
                                   "Max address space   4294967296   unlimited   bytes\n");
    pool_read(&p, path, none, NULL);
    assert_int_equal(p.host.available_bytes, (uint64_t)(4096 - 1024 - 160 + 110) << 20);
    assert_string_equal(p.host.limit, "the limit of addresses, which ulimit -v unlimited lifts");
    assert_true(p.host.is_ulimit);
    assert_true(p.host.data_bytes == UINT64_MAX);
    put("limits/proc/self/limits", "Max data size   2147483648   unlimited   bytes\n"
                                   "Max address space   4294967296   unlimited   bytes\n");
    pool_read(&p, path, none, NULL);
    assert_int_equal(p.host.available_bytes, (uint64_t)(2048 - 512 + 110) << 20);
    assert_string_equal(p.host.limit, "the limit of data, which ulimit -d unlimited lifts");
    pool_read(&p, path, none, &image); /* mapped, it is no data */
    assert_int_equal(p.host.data_bytes, (uint64_t)(2048 - 512 + 110 + 500) << 20);
    put("limits/proc/self/limits", "Max address space   1048576   unlimited   bytes\n");
    pool_read(&p, path, none, NULL);
    assert_int_equal(p.host.available_bytes, (uint64_t)110 << 20); /* what is here already */
}

static void test_this_box(void **state)
{
    (void)state;
    struct pool_host h;
    pool_read_host(&h, NULL);
    assert_int_equal(h.total_bytes, os_number_after("/proc/meminfo", "MemTotal") * KB);
    assert_true(h.available_bytes > 0 && h.available_bytes <= h.total_bytes && h.limit != NULL);
}

/* A box that hides /proc has free memory all the same. */
static void test_hidden(void **state)
{
    (void)state;
    struct pool p;
    pool_read(&p, top, none, NULL);
    assert_true(p.host.available_bytes <= p.host.total_bytes);
    assert_true(p.host.kernel_bytes > 0 && p.host.is_hidden);
    assert_non_null(strstr(p.host.limit, "/proc/meminfo cannot be read"));
}

static int setup(void **state)
{
    const int rc = tree_setup(state);
    snprintf(none, sizeof none, "%s/none", top);
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halo_512m),  cmocka_unit_test(test_halo_96g),
        cmocka_unit_test(test_gb10),       cmocka_unit_test(test_pi),
        cmocka_unit_test(test_containers), cmocka_unit_test(test_vm),
        cmocka_unit_test(test_huge),       cmocka_unit_test(test_card),
        cmocka_unit_test(test_amdttm),     cmocka_unit_test(test_claimed),
        cmocka_unit_test(test_own_files),  cmocka_unit_test(test_limits),
        cmocka_unit_test(test_this_box),   cmocka_unit_test(test_hidden),
    };
    return cmocka_run_group_tests(tests, setup, tree_teardown);
}
