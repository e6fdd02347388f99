/* test_doctor - what `hearth doctor` finds: on recorded boxes (tests/trees) all that a person would find by hand, and nothing
 * else; on a made box, where one file after the other is changed, the finding that belongs to it */
#include "lib/doctor.h"

#include "base/claim.h"
#include "tree.h"

#include <sys/wait.h>
#include <unistd.h>

#define GIB ((uint64_t)1 << 30)

static struct facts facts;
static struct doctor doctor;

static const struct finding *row_of(const char *name)
{
    for (int i = 0; i < doctor.n; i++) {
        if (strcmp(doctor.row[i].name, name) == 0) {
            return &doctor.row[i];
        }
    }
    return NULL;
}

static void judge(const char *root)
{
    char none[64];
    snprintf(none, sizeof none, "%s/none", top);
    facts_read(&facts, root, none);
    doctor_judge(&facts, &doctor);
}

struct expected {
    const char *name;
    enum doctor_state state;
    const char *word;  /* in what was found */
    const char *typed; /* in a line to type, NULL: none is looked at */
};

static bool has_type(const struct finding *f, const char *word)
{
    bool has = false;
    for (int i = 0; i < DOCTOR_TYPES_MAX; i++) {
        has = has || strstr(f->type[i], word) != NULL;
    }
    return has;
}

static void check_row(const char *where, const struct expected *e)
{
    const struct finding *f = row_of(e->name);
    if (f == NULL || f->state != e->state || strstr(f->found, e->word) == NULL ||
        (e->typed != NULL && !has_type(f, e->typed))) {
        fail_msg("%s: %s: is %s, \"%s\", \"%s\"", where, e->name,
                 f != NULL ? doctor_state_name(f->state) : "not there", f != NULL ? f->found : "",
                 f != NULL ? f->type[0] : "");
    }
}

/* All rows that are not in order, and no others; "instructions" are not asked in a tree. */
static void check_tree(const char *tree, const struct expected *e, int n)
{
    char path[512];
    tree_path(path, tree);
    judge(path);
    for (int i = 0; i < n; i++) {
        check_row(tree, &e[i]);
    }
    check_row(tree, &(struct expected){ "instructions", DOCTOR_UNKNOWN, "not asked", NULL });
    int n_found = 0;
    for (int i = 0; i < doctor.n; i++) {
        n_found += doctor.row[i].state != DOCTOR_OK;
        assert_true(doctor.row[i].found[0] != '\0');
    }
    int n_expected = 1;
    for (int i = 0; i < n; i++) {
        n_expected += e[i].state != DOCTOR_OK;
    }
    if (n_found != n_expected) {
        for (int i = 0; i < doctor.n; i++) {
            print_message("%s: %s: %s\n", doctor.row[i].name,
                          doctor_state_name(doctor.row[i].state), doctor.row[i].found);
        }
        fail_msg("%s: %d rows are not in order, %d were expected", tree, n_found, n_expected);
    }
}

#define CHECK(tree, ...)                                                                           \
    do {                                                                                           \
        static const struct expected e_[] = { __VA_ARGS__ };                                       \
        check_tree(tree, e_, (int)(sizeof e_ / sizeof e_[0]));                                     \
    } while (0)

/* The carve-out is the least; ttm stops at half of the memory, whatever amdgpu.gttsize says: 117 of 124.9 GiB may be mapped,
 * which are 30670848 pages. 9 GiB of CMA are more than 1/32. */
static void test_halo_512m(void **state)
{
    (void)state;
    CHECK(
        "halo-512m", { "memory", DOCTOR_OK, "108.8 GiB of 124.9 GiB", NULL },
        { "GPU card1", DOCTOR_OK, "512 MiB of 125.4 GiB", NULL },
        { "GPU card1 maps", DOCTOR_NOTE, "up to 62.5 GiB of the host's 124.9 GiB (GTT 128.0 GiB",
          "options ttm pages_limit=30670848 | sudo tee /etc/modprobe.d/ttm.conf" },
        { "CMA", DOCTOR_NOTE, "8.9 GiB free", "cma=" },
        { "clock", DOCTOR_OK, "powersave of amd-pstate-epp, preference balance_performance", NULL },
        { "swap", DOCTOR_NOTE, "8.0 GiB, 0 MiB used, swappiness 60", "sysctl vm.swappiness=1" },
        { "heat", DOCTOR_UNKNOWN, "no temperature", NULL });
    assert_non_null(strstr(row_of("GPU card1 maps")->costs, "Nothing for hearth"));
    assert_non_null(strstr(row_of("GPU card1 maps")->costs, "amdgpu.gttsize"));
}

/* 96 of 126.5 GiB are set aside: the host has 30.5, and 26.0 for models. What the GPU may map beside that is no matter. */
static void test_halo_96g(void **state)
{
    (void)state;
    CHECK("halo-96g",
          { "GPU card1", DOCTOR_WRONG, "sets 96.0 GiB of 126.5 GiB aside", "--firmware-setup" },
          { "memory", DOCTOR_OK, "26.0 GiB of 30.5 GiB", NULL },
          { "swap", DOCTOR_NOTE, "8.0 GiB", NULL },
          { "held by drivers", DOCTOR_UNKNOWN, "does not tell", NULL },
          { "heat", DOCTOR_UNKNOWN, "no temperature", NULL });
    assert_non_null(
        strstr(row_of("GPU card1")->costs, "the other 30.5 GiB, and 26.0 GiB for models"));
    assert_null(row_of("GPU card1 maps"));
    assert_null(row_of("CMA"));
}

/* 127600816 kB, less free, buffers, cached, anonymous, slab of both kinds, vmalloc and per-processor ones: 83914432 kB. */
static void test_gb10(void **state)
{
    (void)state;
    CHECK("gb10", { "held by drivers", DOCTOR_WRONG, "80.0 GiB", "nvidia-smi" },
          { "memory", DOCTOR_NOTE, "37.3 GiB of 121.7 GiB", "ps -eo" },
          { "GPU card1", DOCTOR_UNKNOWN, "does not tell", NULL },
          { "swap", DOCTOR_NOTE, "16.0 GiB", NULL }, { "heat", DOCTOR_UNKNOWN, "no temp", NULL });
    assert_int_equal(facts.memory.lost_bytes, (uint64_t)83914432 * 1024);
}

static void test_pi(void **state)
{
    (void)state;
    CHECK("pi-8g", { "memory", DOCTOR_OK, "6.9 GiB of 7.9 GiB", NULL },
          { "swap", DOCTOR_NOTE, "200 MiB", "vm.swappiness" },
          { "huge pages", DOCTOR_UNKNOWN, "no transparent huge pages", NULL },
          { "memory pressure", DOCTOR_UNKNOWN, "psi=1", NULL },
          { "processor load", DOCTOR_UNKNOWN, "psi=1", NULL }, { "heat", DOCTOR_OK, "57 C", NULL },
          { "power supply", DOCTOR_OK, "right", NULL },
          { "clock", DOCTOR_OK, "ondemand of cpufreq-dt", NULL },
          { "clock limit", DOCTOR_OK, "2.40 of 2.40 GHz", NULL });
}

/* Version 2: no swap for the container, and four of sixteen processors. */
static void test_containers(void **state)
{
    (void)state;
    CHECK("container-v2", { "box", DOCTOR_OK, "container, Linux 6.8", NULL },
          { "memory", DOCTOR_OK, "7.7 GiB of 62.7 GiB", NULL },
          { "cgroup memory", DOCTOR_NOTE, "limit 8.0 GiB of the box's 62.7 GiB, 7.7 GiB left",
            "docker update --memory 47g" },
          { "cores", DOCTOR_NOTE, "16 of 16 logical processors may be used, 4 granted",
            "docker update --cpus 16" },
          { "swap", DOCTOR_OK, "none for this cgroup", NULL },
          { "held by drivers", DOCTOR_UNKNOWN, "does not tell", NULL },
          { "clock", DOCTOR_UNKNOWN, "cpufreq", NULL }, { "heat", DOCTOR_UNKNOWN, "", NULL });
    CHECK("container-v1", { "box", DOCTOR_OK, "docker container", NULL },
          { "cgroup memory", DOCTOR_NOTE, "limit 8.0 GiB", "docker update" },
          { "cores", DOCTOR_OK, "16 of 16", NULL }, { "swap", DOCTOR_NOTE, "2.0 GiB", NULL },
          { "held by drivers", DOCTOR_UNKNOWN, "does not tell", NULL },
          { "clock", DOCTOR_UNKNOWN, "cpufreq", NULL }, { "heat", DOCTOR_UNKNOWN, "", NULL });
}

static void test_vm(void **state)
{
    (void)state;
    CHECK("vm-24g", { "box", DOCTOR_OK, "virtual machine, Linux 6.18.44", NULL },
          { "memory", DOCTOR_OK, "22.5 GiB of 23.5 GiB", NULL },
          { "swap", DOCTOR_OK, "none", NULL }, { "open files", DOCTOR_OK, "at most 20000", NULL },
          { "io_uring", DOCTOR_OK, "nothing forbids", NULL },
          { "clock", DOCTOR_UNKNOWN, "host decides", NULL },
          { "heat", DOCTOR_UNKNOWN, "host", NULL });
}

/* 31.7 of 565.6 GiB, since 423 lie idle in pools; Linux 5.4 has io_uring but cannot read with it. */
static void test_huge(void **state)
{
    (void)state;
    CHECK("huge-566g", { "memory", DOCTOR_WRONG, "31.7 GiB of 565.6 GiB", "ps -eo" },
          { "huge page pools", DOCTOR_WRONG, "423.0 GiB lie idle", "hugepages/*/nr_hugepages" },
          { "held by drivers", DOCTOR_OK, "3.0 GiB", NULL },
          { "memory nodes", DOCTOR_NOTE, "2; numa_balancing is on", "kernel.numa_balancing=0" },
          { "swap", DOCTOR_NOTE, "476.9 GiB", NULL },
          { "io_uring", DOCTOR_NOTE, "before 5.6", NULL },
          { "heat", DOCTOR_OK, "never throttled", NULL }, { "boost", DOCTOR_OK, "on", NULL });
}

static void test_card(void **state)
{
    (void)state;
    CHECK("card-24g", { "GPU card0", DOCTOR_OK, "24.0 GiB of its own", NULL },
          { "swap", DOCTOR_NOTE, "2.0 GiB", NULL },
          { "held by drivers", DOCTOR_UNKNOWN, "does not tell", NULL },
          { "heat", DOCTOR_UNKNOWN, "no temperature", NULL });
}

/* --- a made box ---------------------------------------------------------------------------- */

#define MEMINFO                                                                                    \
    "MemTotal: 33554432 kB\nMemFree: 30000000 kB\nMemAvailable: 31000000 kB\nCached: 1000000 kB\n" \
    "AnonPages: 1000000 kB\nKReclaimable: 500000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
#define LIMITS "Max open files 1024 524288 files\nMax address space unlimited unlimited bytes\n"
#define CPU    "sys/devices/system/cpu/"
#define THP    "sys/kernel/mm/transparent_hugepage/"
#define ZONE   "sys/class/thermal/thermal_zone3/"

/* One in which all is in order. */
static const struct {
    const char *name;
    const char *text;
} box[] = {
    { "proc/meminfo", MEMINFO },
    { "proc/self/limits", LIMITS },
    { "proc/self/status", "Name:\thearth\nCpus_allowed_list:\t0-3,8-11\nVmRSS: 6144 kB\n" },
    { "proc/self/cgroup", "0::/a\n" },
    { "proc/swaps", "Filename Type Size Used Priority\n" },
    { "proc/sys/vm/swappiness", "60" },
    { "proc/sys/vm/overcommit_memory", "0" },
    { "proc/sys/vm/zone_reclaim_mode", "0" },
    { "proc/sys/kernel/numa_balancing", "0" },
    { "proc/sys/kernel/osrelease", "6.12.1" },
    { "proc/sys/kernel/io_uring_disabled", "0" },
    { "proc/pressure/memory", "some avg10=0.10 avg60=0.20 total=1\nfull avg10=0.00\n" },
    { "proc/pressure/cpu", "some avg10=1.10 avg60=0.20 total=1\nfull avg10=0.00\n" },
    { THP "enabled", "always [madvise] never\n" },
    { THP "defrag", "always defer defer+madvise [madvise] never\n" },
    { CPU "present", "0-11" },
    { CPU "online", "0-3,8-11" },
    { CPU "smt/active", "0" },
    { CPU "cpufreq/policy0/scaling_governor", "performance" },
    { CPU "cpufreq/policy0/scaling_driver", "acpi-cpufreq" },
    { CPU "cpufreq/policy0/scaling_max_freq", "4000000" },
    { CPU "cpufreq/policy0/cpuinfo_max_freq", "4000000" },
    { CPU "cpufreq/policy8/scaling_governor", "performance" },
    { CPU "cpufreq/policy8/scaling_max_freq", "2000000" },
    { CPU "cpufreq/policy8/cpuinfo_max_freq", "2000000" },
    { CPU "cpufreq/boost", "1" },
    { "sys/devices/system/node/online", "0" },
    { "sys/firmware/acpi/platform_profile", "performance" },
    { ZONE "type", "x86_pkg_temp" },
    { ZONE "temp", "60000" },
    { ZONE "trip_point_0_type", "active" },
    { ZONE "trip_point_0_temp", "50000" },
    { ZONE "trip_point_1_type", "passive" },
    { ZONE "trip_point_1_temp", "85000" },
    { "sys/class/thermal/thermal_zone0/type", "cpu-thermal" },
    { "sys/class/thermal/thermal_zone0/temp", "61000" },  /* nobody says how hot it may be */
    { "sys/class/thermal/thermal_zone1/type", "acpitz" }, /* the case, at its limit */
    { "sys/class/thermal/thermal_zone1/temp", "50000" },
    { "sys/class/thermal/thermal_zone1/trip_point_0_type", "passive" },
    { "sys/class/thermal/thermal_zone1/trip_point_0_temp", "50000" },
    { "sys/class/hwmon/hwmon2/name", "rpi_volt" },
    { "sys/class/hwmon/hwmon2/in0_lcrit_alarm", "0" },
};

static void put_box(void)
{
    for (size_t i = 0; i < sizeof box / sizeof box[0]; i++) {
        put(box[i].name, box[i].text);
    }
}

/* With one to four files changed. */
static const struct change {
    const char *name[4];
    const char *text[4];
    struct expected is;
} changes[] = {
    { { "proc/meminfo" },
      { "MemTotal: 33554432 kB\nMemAvailable: 15000000 kB\n" },
      { "memory", DOCTOR_NOTE, "GiB of 32.0 GiB", "ps -eo" } },
    { { "proc/meminfo" },
      { "MemTotal: 33554432 kB\nMemAvailable: 3000000 kB\n" },
      { "memory", DOCTOR_WRONG, "GiB of 32.0 GiB", "ps -eo" } },
    { { "proc/self/limits" },
      { "Max open files 64 256 files\n" },
      { "open files", DOCTOR_NOTE, "at most 256", "--max-clients 96" } },
    { { "proc/self/limits" },
      { "Max open files 64 64 files\n" },
      { "open files", DOCTOR_NOTE, "at most 64", "LimitNOFILE" } },
    { { "proc/self/limits" },
      { "Max open files 64 unlimited files\n" },
      { "open files", DOCTOR_OK, "no limit", NULL } },
    { { "proc/self/limits" }, { "" }, { "open files", DOCTOR_UNKNOWN, "cannot be read", NULL } },
    { { "proc/self/limits" }, { "" }, { "threads", DOCTOR_UNKNOWN, "cannot be read", NULL } },
    { { "proc/self/limits" },
      { "Max processes 23 400 processes\n" },
      { "threads", DOCTOR_WRONG, "a user may have 23 in all that runs (ulimit -u)",
        "ulimit -u 96" } },
    { { "proc/self/limits" },
      { "Max processes 24 400 processes\n" },
      { "threads", DOCTOR_OK, "as many as are needed, if the user runs little else", NULL } },
    { { "proc/self/limits", "proc/self/status" },
      { "Max processes 23 400 processes\n",
        "Name:\thearth\nUid:\t0\t0\nCpus_allowed_list:\t0-7\n" }, /* root is not held */
      { "threads", DOCTOR_OK, "no limit", NULL } },
    { { "sys/fs/cgroup/a/pids.max", "sys/fs/cgroup/a/pids.current" },
      { "40", "17" },
      { "threads", DOCTOR_WRONG, "23 may begin yet in the cgroup", "TasksMax=96" } },
    { { "sys/fs/cgroup/a/pids.max", "sys/fs/cgroup/a/pids.current", "run/.containerenv" },
      { "10", "17", "" },
      { "threads", DOCTOR_WRONG, "0 may begin yet in the cgroup", "--pids-limit 96" } },
    { { "sys/fs/cgroup/a/pids.max", "sys/fs/cgroup/a/pids.current" },
      { "max", "17" },
      { "threads", DOCTOR_OK, "no limit", NULL } },
    { { "proc/self/limits" }, { "" }, { "address space", DOCTOR_UNKNOWN, "cannot be read", NULL } },
    { { "proc/self/limits" },
      { LIMITS "Max data size 4294967296 4294967296 bytes\n" },
      { "address space", DOCTOR_WRONG, "the limit of data, ulimit -d, leaves 4.0 GiB",
        "ulimit -d unlimited" } },
    { { "proc/self/limits" },
      { "Max address space 8589934592 unlimited bytes\n" },
      { "address space", DOCTOR_WRONG, "addresses, ulimit -v, leaves 7.8 GiB",
        "ulimit -v unlimited" } },
    { { "proc/self/limits" },
      { "Max address space 85899345920 unlimited bytes\n" },
      { "address space", DOCTOR_OK, "more than there is memory", NULL } },
    { { "proc/self/status" },
      { "Name:\thearth\nCpus_allowed_list:\t0-1\n" },
      { "cores", DOCTOR_NOTE, "2 of 12", "taskset" } },
    { { "proc/self/status" }, { "Name:\thearth\n" }, { "cores", DOCTOR_UNKNOWN, "hidden", NULL } },
    { { "sys/fs/cgroup/a/cpu.max" },
      { "250000 100000" },
      { "cores", DOCTOR_NOTE, "3 granted", "CPUQuota=800%" } },
    { { CPU "present", CPU "online" },
      { "0-999999", "0-999999" },
      { "cores", DOCTOR_UNKNOWN, "hidden", NULL } },
    { { CPU "present", CPU "smt/control" },
      { "0-15", "off" },
      { "cores", DOCTOR_OK, "8 of 16 logical processors may be used, SMT is off", "" } },
    { { CPU "smt/control" }, /* not all are pairs */
      { "forceoff" },
      { "cores", DOCTOR_OK, "8 of 12", "" } },
    { { CPU "present", CPU "smt/control" }, /* more are off than that */
      { "0-16", "off" },
      { "cores", DOCTOR_NOTE, "8 of 17 logical processors may be used, some are off", "online" } },
    { { CPU "present", CPU "smt/control" },
      { "0-15", "on" },
      { "cores", DOCTOR_NOTE, "8 of 16 logical processors may be used, some are off", "online" } },
    { { CPU "smt/control", "proc/self/status" },
      { "off", "Name:\thearth\nCpus_allowed_list:\t0-1\n" },
      { "cores", DOCTOR_NOTE, "2 of 12 logical processors may be used, SMT is off", "taskset" } },
    { { CPU "online", CPU "present" }, { "0-3", "0-3" }, { "cores", DOCTOR_OK, "of 4", NULL } },
    { { "sys/fs/cgroup/a/memory.max" },
      { "8589934592" },
      { "cgroup memory", DOCTOR_NOTE, "limit 8.0 GiB of the box's 32.0 GiB", "MemoryMax=24G" } },
    { { "sys/fs/cgroup/a/memory.max" }, /* 23.5: the command would not lower it */
      { "25232932864" },
      { "cgroup memory", DOCTOR_NOTE, "limit 23.5 GiB of the box's 32.0 GiB", "MemoryMax=24G" } },
    { { "sys/fs/cgroup/a/memory.max" },
      { "32212254720" },
      { "cgroup memory", DOCTOR_OK, "limit 30.0 GiB of the box's 32.0 GiB, 30.0 GiB left", "" } },
    { { "sys/fs/cgroup/a/memory.max", "proc/meminfo" },
      { "2684354560", "MemTotal: 3145728 kB\nMemAvailable: 2900000 kB\n" },
      { "cgroup memory", DOCTOR_OK, "limit 2.5 GiB of the box's 3.0 GiB", "" } },
    { { "proc/sys/vm/overcommit_memory", "proc/meminfo" },
      { "2", MEMINFO "CommitLimit: 16777216 kB\nCommitted_AS: 8388608 kB\n" },
      { "overcommit", DOCTOR_WRONG, "8.0 GiB may still be promised", "vm.overcommit_memory=0" } },
    { { "proc/sys/vm/overcommit_memory", "proc/meminfo" },
      { "2", MEMINFO "CommitLimit: 67108864 kB\nCommitted_AS: 8388608 kB\n" },
      { "overcommit", DOCTOR_OK, "all that is available", NULL } },
    { { "proc/sys/vm/overcommit_memory" },
      { "x" },
      { "overcommit", DOCTOR_UNKNOWN, "not told", NULL } },
    { { THP "enabled" },
      { "always madvise [never]\n" },
      { "huge pages", DOCTOR_WRONG, "pages never", "echo madvise" } },
    { { THP "defrag" },
      { "always defer defer+madvise madvise [never]\n" },
      { "huge pages", DOCTOR_NOTE, "defrag never", THP "defrag" } },
    { { THP "defrag" },
      { "always [defer] defer+madvise madvise never\n" },
      { "huge pages", DOCTOR_NOTE, "defrag defer", THP "defrag" } },
    { { THP "enabled" }, { "nonsense" }, { "huge pages", DOCTOR_UNKNOWN, "hides", NULL } },
    { { "proc/pressure/memory" },
      { "some avg10=17.40 avg60=0.20\nfull avg10=0.00\n" },
      { "memory pressure", DOCTOR_NOTE, "programs waited for it 17 %", "ps" } },
    { { "proc/pressure/memory" },
      { "some avg10=x\n" },
      { "memory pressure", DOCTOR_UNKNOWN, "psi", NULL } },
    { { "sys/fs/cgroup/a/memory.pressure" },
      { "some avg10=30.00 avg60=0.20\nfull avg10=20.00\n" },
      { "memory pressure", DOCTOR_NOTE, "programs of this cgroup waited for it 30 %", "ps" } },
    { { "proc/pressure/cpu" },
      { "some avg10=60.10 avg60=0\nfull avg10=0.00\n" },
      { "processor load", DOCTOR_NOTE, "60 %", "top" } },
    { { "proc/pressure/cpu" }, { "" }, { "processor load", DOCTOR_UNKNOWN, "psi", NULL } },
    { { "sys/fs/cgroup/a/memory.high" },
      { "8589934592" },
      { "cgroup memory", DOCTOR_NOTE, "memory.high is 8.0 GiB of", "MemoryHigh=24G" } },
    { { "sys/fs/cgroup/a/memory.high", "run/.containerenv" },
      { "8589934592", "" },
      { "cgroup memory", DOCTOR_NOTE, "memory.high is 8.0 GiB of",
        "echo 24G | sudo tee /sys/fs/cgroup/GROUP/memory.high" } },
    { { CPU "cpufreq/policy8/scaling_governor" },
      { "powersave" },
      { "clock", DOCTOR_WRONG, "powersave", "echo performance" } },
    { { CPU "cpufreq/policy0/scaling_governor", CPU "cpufreq/policy8/scaling_governor" },
      { "schedutil", "powersave" },
      { "clock", DOCTOR_WRONG, "governor powersave", "echo performance" } },
    { { CPU "cpufreq/policy0/scaling_governor", CPU "cpufreq/policy8/scaling_governor" },
      { "ondemand", "userspace" },
      { "clock", DOCTOR_NOTE, "governor userspace", "performance" } },
    { { CPU "cpufreq/policy0/scaling_governor", CPU "cpufreq/policy8/scaling_governor" },
      { "powersave", "conservative" },
      { "clock", DOCTOR_WRONG, "governor powersave", "performance" } },
    { { CPU "cpufreq/policy0/scaling_governor" },
      { "conservative" },
      { "clock", DOCTOR_NOTE, "conservative of acpi-cpufreq", "performance" } },
    { { CPU "cpufreq/policy0/scaling_governor", CPU "cpufreq/policy0/scaling_driver",
        CPU "cpufreq/policy0/energy_performance_preference" },
      { "powersave", "intel_pstate", "power" },
      { "clock", DOCTOR_WRONG, "powersave of intel_pstate, preference power",
        "energy_performance_preference" } },
    { { CPU "cpufreq/policy0/scaling_governor", CPU "cpufreq/policy0/scaling_driver",
        CPU "cpufreq/policy0/energy_performance_preference" },
      { "powersave", "intel_pstate", "balance_power" },
      { "clock", DOCTOR_NOTE, "powersave of intel_pstate, preference balance_power",
        "energy_performance_preference" } },
    { { CPU "cpufreq/policy0/scaling_governor", CPU "cpufreq/policy0/scaling_driver",
        CPU "cpufreq/policy0/energy_performance_preference" },
      { "powersave", "intel_pstate", "balance_performance" },
      { "clock", DOCTOR_OK, "powersave of intel_pstate, preference balance_performance", NULL } },
    { { CPU "cpufreq/policy0/scaling_governor", CPU "cpufreq/policy0/scaling_driver",
        CPU "cpufreq/policy8/scaling_governor",
        CPU "cpufreq/policy8/energy_performance_preference" },
      { "powersave", "intel_pstate", "powersave", "power" }, /* of the second alone */
      { "clock", DOCTOR_WRONG, "intel_pstate, preference power", "balance_performance" } },
    { { CPU "cpufreq/policy0/scaling_driver", CPU "cpufreq/policy0/energy_performance_preference" },
      { "intel_pstate", "power" }, /* beside a governor that goes by none, and is faster */
      { "clock", DOCTOR_OK, "governor performance of intel_pstate", NULL } },
    { { CPU "cpufreq/policy8/scaling_max_freq" },
      { "1500000" },
      { "clock limit", DOCTOR_WRONG, "1.50 of 2.00 GHz", "scaling_max_freq" } },
    { { CPU "cpufreq/boost" }, { "0" }, { "boost", DOCTOR_WRONG, "off", "cpufreq/boost" } },
    { { CPU "intel_pstate/no_turbo" }, { "1" }, { "boost", DOCTOR_WRONG, "off", "no_turbo" } },
    { { "sys/firmware/acpi/platform_profile" },
      { "low-power" },
      { "power profile", DOCTOR_WRONG, "low-power", "performance" } },
    { { "sys/firmware/acpi/platform_profile" },
      { "quiet" },
      { "power profile", DOCTOR_NOTE, "quiet", "performance" } },
    { { ZONE "temp" }, { "85000" }, { "heat", DOCTOR_WRONG, "85 C, clocks fall at 85", "grep" } },
    { { ZONE "temp" }, { "84000" }, { "heat", DOCTOR_OK, "84 C", NULL } },
    { { ZONE "type", "sys/class/thermal/thermal_zone0/type" },
      { "iwlwifi_1", "BAT0" },
      { "heat", DOCTOR_UNKNOWN, "no temperature", NULL } },
    { { CPU "cpu0/thermal_throttle/package_throttle_count" },
      { "7" },
      { "heat", DOCTOR_NOTE, "throttled 7 times", NULL } },
    { { "sys/class/hwmon/hwmon2/in0_lcrit_alarm" },
      { "1" },
      { "power supply", DOCTOR_WRONG, "too low", "vcgencmd" } },
    { { "sys/devices/system/node/online", "proc/sys/vm/zone_reclaim_mode" },
      { "0-1", "1" },
      { "memory nodes", DOCTOR_WRONG, "2; zone_reclaim_mode is on", "zone_reclaim_mode=0" } },
    { { "proc/sys/vm/zone_reclaim_mode" }, { "1" }, { "memory nodes", DOCTOR_OK, "one", NULL } },
    { { "sys/devices/system/node/online" },
      { "3-1" },
      { "memory nodes", DOCTOR_UNKNOWN, "", NULL } },
    { { "proc/sys/kernel/io_uring_disabled" },
      { "2" },
      { "io_uring", DOCTOR_NOTE, "io_uring_disabled", "kernel.io_uring_disabled=0" } },
    { { "proc/sys/kernel/osrelease" },
      { "5.5.9" },
      { "io_uring", DOCTOR_NOTE, "before 5.6", NULL } },
    { { "proc/sys/kernel/osrelease" }, { "" }, { "io_uring", DOCTOR_UNKNOWN, "version", NULL } },
    { { "run/.containerenv" }, { "" }, { "box", DOCTOR_OK, "podman container, Linux", NULL } },
};

static void test_changes(void **state)
{
    (void)state;
    put_box();
    judge(top);
    for (int i = 0; i < doctor.n; i++) {
        const struct finding *f = &doctor.row[i];
        const bool is_other = strcmp(f->name, "instructions") == 0 || strcmp(f->name, "cores") == 0;
        if (!is_other && (f->state != DOCTOR_OK || f->costs[0] != '\0')) {
            fail_msg("%s: %s: %s", f->name, f->found, f->costs);
        }
    }
    check_row("box", &(struct expected){ "cores", DOCTOR_NOTE,
                                         "8 of 12 logical processors may be used, some are off",
                                         "cpu*/online" });
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        const struct change *c = &changes[i];
        char where[128];
        for (int k = 0; k < 4 && c->name[k] != NULL; k++) {
            put(c->name[k], c->text[k]);
        }
        judge(top);
        snprintf(where, sizeof where, "%s: %.40s", c->name[0], c->text[0]);
        check_row(where, &c->is);
        for (int k = 0; k < 4 && c->name[k] != NULL; k++) {
            char path[256];
            snprintf(path, sizeof path, "%s/%s", top, c->name[k]);
            assert_int_equal(unlink(path), 0);
        }
        put_box();
    }
}

static void test_swap(void **state)
{
    (void)state;
    put_box();
    put("proc/meminfo", "MemTotal: 33554432 kB\nMemAvailable: 31000000 kB\nSwapTotal: 8388608 "
                        "kB\nSwapFree: 4194304 kB\n");
    put("proc/swaps",
        "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition\t8388608\t0\t100\n");
    judge(top);
    check_row("zram",
              &(struct expected){ "swap", DOCTOR_NOTE, "8.0 GiB, 4.0 GiB used, swappiness 60",
                                  "vm.swappiness=1" });
    assert_non_null(strstr(row_of("swap")->costs, "zram"));
    put("proc/sys/vm/swappiness", "10");
    judge(top);
    check_row("swappiness 10", &(struct expected){ "swap", DOCTOR_OK, "8.0 GiB", NULL });
    put("proc/sys/vm/swappiness", "");
    judge(top);
    check_row("no swappiness", &(struct expected){ "swap", DOCTOR_UNKNOWN, "not told", NULL });
}

/* The three largest of four, the largest first; a thread of the kernel has no VmRSS. */
static void test_processes(void **state)
{
    (void)state;
    put_box();
    put("proc/7/status", "Name:\tkworker\n");
    put("proc/10/status", "Name:\tsmall\nVmRSS:\t 1000 kB\n");
    put("proc/11/status", "Name:\tlarge one\nVmRSS:\t 20000000 kB\n");
    put("proc/12/status", "Name:\tmiddle\nVmRSS:\t 3000 kB\n");
    put("proc/13/status", "Name:\tother\nVmRSS:\t 2000 kB\n");
    put("proc/meminfo", "MemTotal: 33554432 kB\nMemAvailable: 9000000 kB\n");
    judge(top);
    assert_int_equal(facts.memory.n_top, 3);
    assert_string_equal(facts.memory.top[1].name, "middle");
    assert_string_equal(facts.memory.top[2].name, "other");
    check_row("processes", &(struct expected){ "memory", DOCTOR_NOTE, "of 32.0 GiB", "ps" });
    assert_non_null(strstr(row_of("memory")->costs,
                           "large one (11) 19.1 GiB, middle (12) 3 MiB, other (13) 2 MiB."));
    put_box();
}

/* AMD's own module takes the place of the kernel's. */
static void test_amdttm(void **state)
{
    (void)state;
    put_box();
    put("sys/class/drm/card0/device/vendor", "0x1002");
    put("sys/class/drm/card0/device/mem_info_vram_total", "536870912");
    put("sys/class/drm/card0/device/mem_info_gtt_total", "17179869184");
    put("sys/module/ttm/parameters/pages_limit", "8388608");
    put("sys/module/amdttm/parameters/pages_limit", "4194304");
    judge(top);
    assert_int_equal(facts.pool.gpu[0].ttm_bytes, 16 * GIB);
    assert_int_equal(facts.pool.gpu[0].gtt_bytes, 16 * GIB);
    check_row("amdttm",
              &(struct expected){
                  "GPU card0 maps", DOCTOR_NOTE, "amdttm.pages_limit 16.0 GiB",
                  "options amdttm pages_limit=7864320 | sudo tee /etc/modprobe.d/amdttm.conf" });
}

/* Facts beside a process of hearth that planned so much and has a part of it. */
static void judge_beside(uint64_t plan_bytes, const char *rss, int *pid)
{
    char folder[64];
    char name[64];
    int ready[2];
    int done[2];
    char byte = 0;
    snprintf(folder, sizeof folder, "%s/claims", top);
    assert_int_equal(pipe(ready) + pipe(done), 0);
    const pid_t child = fork();
    if (child == 0) {
        struct claim c = { 0 };
        const bool is_made = claim_open(&c, folder, plan_bytes, NULL) == ERR_OK;
        close(done[1]);
        _exit(is_made && write(ready[1], "y", 1) == 1 && read(done[0], &byte, 1) == 0 ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    snprintf(name, sizeof name, "proc/%d/status", (int)child);
    put(name, rss);
    facts_read(&facts, top, folder);
    doctor_judge(&facts, &doctor);
    close(done[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(ready[0]);
    close(ready[1]);
    close(done[0]);
    *pid = (int)child;
}

/* A process that planned 20 GiB and has 2 of them. */
static void test_others(void **state)
{
    (void)state;
    char name[64];
    int pid = 0;
    put_box();
    judge_beside(20 * GIB, "Name:\thearth\nVmRSS:\t2097152 kB\n", &pid);
    snprintf(name, sizeof name, "ps -fp %d", pid);
    check_row("others", &(struct expected){ "other hearths", DOCTOR_NOTE,
                                            "planned 18.0 GiB more than", name });
}

/* One that has nearly all of the box, as it is meant to; and beside it another program that has half. */
static void test_full_of_hearth(void **state)
{
    (void)state;
    const char *rss = "Name:\thearth\nRssAnon:\t27262976 kB\nRssShmem:\t0 kB\n"; /* 26 GiB */
    char found[64];
    int pid = 0;
    put_box();
    put("proc/meminfo", "MemTotal: 33554432 kB\nMemAvailable: 2097152 kB\n");
    judge_beside(27 * GIB, rss, &pid);
    snprintf(found, sizeof found, "hearth (%d) has or planned 27.0 GiB", pid);
    check_row("full", &(struct expected){ "memory", DOCTOR_OK, found, "" });
    put("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 2097152 kB\n");
    judge_beside(27 * GIB, rss, &pid); /* 28 of 64 GiB are models' */
    check_row("half", &(struct expected){ "memory", DOCTOR_NOTE, "planned 27.0 GiB", "ps -eo" });
    put("proc/meminfo", "MemTotal: 33554432 kB\nMemAvailable: 2097152 kB\n");
    judge_beside(27 * GIB, "Name:\thearth\nRssAnon:\t0 kB\nRssShmem:\t0 kB\n", &pid);
    check_row("not held", &(struct expected){ "memory", DOCTOR_WRONG, "planned 27.0 GiB", "ps" });
    put_box();
}

/* What cmd/disk.c measures. */
static void test_disk(void **state)
{
    (void)state;
    put_box();
    judge(top);
    assert_null(row_of("disk")); /* a tree has none */
    facts.disk = (struct facts_disk){ .is_asked = true,
                                      .room_bytes = 100 * GIB,
                                      .n_model = 2,
                                      .bytes = 8 * GIB,
                                      .looked_bytes = 8 * GIB,
                                      .cached_bytes = 2 * GIB,
                                      .file = "llama",
                                      .file_bytes = 5 * GIB,
                                      .read_bytes = GIB / 2,
                                      .gb_s = 2.5,
                                      .is_direct = true,
                                      .is_uring = true,
                                      .store = "/store" };
    doctor_judge(&facts, &doctor);
    check_row("disk", &(struct expected){ "disk", DOCTOR_OK, "2.50 GB/s (512 MiB of llama", NULL });
    check_row("disk", &(struct expected){ "io_uring", DOCTOR_OK, "works", NULL });
    check_row("disk", &(struct expected){ "page cache", DOCTOR_OK, "2.0 GiB of 8.0 GiB", NULL });
    check_row("disk", &(struct expected){ "model store", DOCTOR_OK,
                                          "2 models, 8.0 GiB; 100.0 GiB free at /store", NULL });
    facts.disk.other_bytes = GIB;
    doctor_judge(&facts, &doctor);
    check_row("busy",
              &(struct expected){ "disk", DOCTOR_OK, "programs moved 1.0 GiB there", NULL });
    snprintf(facts.disk.broken, sizeof facts.disk.broken, "llama");
    snprintf(facts.disk.broken_why, sizeof facts.disk.broken_why, "is missing");
    facts.disk.n_broken = 2;
    doctor_judge(&facts, &doctor);
    check_row("image gone", &(struct expected){ "model store", DOCTOR_WRONG,
                                                "8.0 GiB; the packed image of llama is missing",
                                                "hearth pull --pack llama" });
    assert_non_null(strstr(row_of("model store")->type[1], "more: 1"));
    facts.disk.broken_why[0] = '\0';
    doctor_judge(&facts, &doctor);
    check_row("file gone", &(struct expected){ "model store", DOCTOR_WRONG, "llama lacks a file",
                                               "hearth pull llama" });
    facts.disk.n_broken = 0;
    facts.disk.gb_s = 0.1;
    facts.disk.is_uring = false;
    facts.disk.room_bytes = GIB / 2;
    facts.disk.looked_bytes = 0;
    doctor_judge(&facts, &doctor);
    check_row("slow", &(struct expected){ "disk", DOCTOR_NOTE, "0.10 GB/s", "XDG_DATA_HOME" });
    assert_non_null(
        strstr(row_of("disk")->costs, "takes 54 s")); /* 5368709120 bytes at 1e8 a second */
    check_row("slow", &(struct expected){ "io_uring", DOCTOR_NOTE, "refused here", NULL });
    check_row("slow",
              &(struct expected){ "model store", DOCTOR_NOTE, "512 MiB free", "hearth rm" });
    check_row("slow", &(struct expected){ "page cache", DOCTOR_UNKNOWN, "another user's", NULL });
    facts.disk.is_direct = false;
    doctor_judge(&facts, &doctor);
    check_row("cached", &(struct expected){ "io_uring", DOCTOR_OK, "nothing forbids", NULL });
    check_row("cached", &(struct expected){ "disk", DOCTOR_NOTE, "not past it", "XDG_DATA_HOME" });
    facts.disk.gb_s = 0.0;
    snprintf(facts.disk.why, sizeof facts.disk.why, "Input/output error");
    doctor_judge(&facts, &doctor);
    check_row("broken",
              &(struct expected){ "disk", DOCTOR_WRONG, "llama cannot be read", "hearth verify" });
    facts.disk.file[0] = '\0';
    doctor_judge(&facts, &doctor);
    check_row("none", &(struct expected){ "disk", DOCTOR_UNKNOWN, "not measured: Input", NULL });
    snprintf(facts.disk.refused, sizeof facts.disk.refused, "/store: Read-only file system");
    doctor_judge(&facts, &doctor);
    check_row("models, read only",
              &(struct expected){ "model store", DOCTOR_NOTE, "2 models at /store, which cannot",
                                  "export XDG_DATA_HOME" });
    facts.disk.n_model = 0;
    doctor_judge(&facts, &doctor);
    check_row("read only", &(struct expected){ "model store", DOCTOR_WRONG, "0 models at /store",
                                               "export XDG_DATA_HOME" });
    assert_non_null(strstr(row_of("model store")->costs, "Read-only"));
    facts.disk.is_missing = true;
    doctor_judge(&facts, &doctor);
    check_row("none, read only", &(struct expected){ "model store", DOCTOR_WRONG,
                                                     "not there yet, and cannot be made: /store",
                                                     "export XDG_DATA_HOME" });
    facts.disk.refused[0] = '\0';
    doctor_judge(&facts, &doctor);
    check_row("none",
              &(struct expected){ "model store", DOCTOR_NOTE, "not there yet: /store, 512 MiB",
                                  "export XDG_DATA_HOME" });
    facts.disk.room_bytes = 0;
    doctor_judge(&facts, &doctor);
    check_row("none, no room", &(struct expected){ "model store", DOCTOR_WRONG, "0 MiB free",
                                                   "export XDG_DATA_HOME" });
    snprintf(facts.disk.fault, sizeof facts.disk.fault, "damaged index");
    doctor_judge(&facts, &doctor);
    check_row("fault",
              &(struct expected){ "model store", DOCTOR_WRONG, "cannot be opened", "hearth list" });
}

/* What was not asked for in a tree. */
static void test_instructions(void **state)
{
    (void)state;
    put_box();
    judge(top);
    facts.cpu.isa = CPU_SCALAR;
    doctor_judge(&facts, &doctor);
    check_row("scalar", &(struct expected){ "instructions", DOCTOR_WRONG, "scalar", "avx2" });
    facts.cpu.isa = CPU_AVX2;
    doctor_judge(&facts, &doctor);
    check_row("avx2", &(struct expected){ "instructions", DOCTOR_OK, "avx2", NULL });
}

/* A folder with nothing in it: nothing is known, and nothing is wrong. */
static void test_hidden(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "%s/empty", top);
    judge(path);
    assert_int_equal(doctor.n_of[DOCTOR_WRONG], 0);
    assert_int_equal(doctor.n_of[DOCTOR_NOTE], 0);
    assert_true(doctor.n_of[DOCTOR_UNKNOWN] >= 12);
    check_row("hidden", &(struct expected){ "memory", DOCTOR_UNKNOWN, "cannot be read", NULL });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halo_512m),      cmocka_unit_test(test_halo_96g),
        cmocka_unit_test(test_gb10),           cmocka_unit_test(test_pi),
        cmocka_unit_test(test_containers),     cmocka_unit_test(test_vm),
        cmocka_unit_test(test_huge),           cmocka_unit_test(test_card),
        cmocka_unit_test(test_changes),        cmocka_unit_test(test_swap),
        cmocka_unit_test(test_processes),      cmocka_unit_test(test_amdttm),
        cmocka_unit_test(test_others),         cmocka_unit_test(test_disk),
        cmocka_unit_test(test_instructions),   cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_full_of_hearth),
    };
    return cmocka_run_group_tests(tests, tree_setup, tree_teardown);
}
