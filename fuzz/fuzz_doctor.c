/* fuzz_doctor - arbitrary bytes as the files below /proc and /sys that `hearth doctor` reads, and what is made of them
 *
 * The input is cut into files by fuzz_tree.h. Whatever they say, each finding is whole: a text, and for what is wrong its cost and
 * what to type (DO-2). The memory's own files are fuzz_pool's; some are here too. */
#include "fuzz_tree.h"
#include "lib/doctor.h"

#include <string.h>

#define CPU "sys/devices/system/cpu/"

static const char *const names[] = {
    "proc/meminfo",
    "proc/self/cgroup",
    "proc/self/status",
    "proc/self/limits",
    "proc/swaps",
    "proc/17/status",
    "proc/cpuinfo",
    "proc/pressure/memory",
    "proc/pressure/cpu",
    "proc/sys/vm/swappiness",
    "proc/sys/vm/overcommit_memory",
    "proc/sys/vm/zone_reclaim_mode",
    "proc/sys/kernel/numa_balancing",
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/io_uring_disabled",
    "sys/kernel/mm/transparent_hugepage/enabled",
    "sys/kernel/mm/transparent_hugepage/defrag",
    CPU "present",
    CPU "online",
    CPU "smt/active",
    CPU "cpufreq/policy0/scaling_governor",
    CPU "cpufreq/policy0/scaling_driver",
    CPU "cpufreq/policy0/energy_performance_preference",
    CPU "cpufreq/policy0/scaling_max_freq",
    CPU "cpufreq/policy0/cpuinfo_max_freq",
    CPU "cpufreq/boost",
    CPU "intel_pstate/no_turbo",
    CPU "cpu0/thermal_throttle/package_throttle_count",
    "sys/devices/system/node/online",
    "sys/firmware/acpi/platform_profile",
    "sys/class/thermal/thermal_zone0/temp",
    "sys/class/thermal/thermal_zone0/trip_point_0_type",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp",
    "sys/class/hwmon/hwmon0/name",
    "sys/class/hwmon/hwmon0/in0_lcrit_alarm",
    "sys/class/dmi/id/sys_vendor",
    "sys/fs/cgroup/memory.max",
    "sys/fs/cgroup/memory.current",
    "sys/fs/cgroup/memory.swap.max",
    "sys/fs/cgroup/cpu.max",
    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
    "sys/class/drm/card1/device/vendor",
    "sys/class/drm/card1/device/mem_info_vram_total",
    "sys/class/drm/card1/device/mem_info_gtt_total",
    "sys/module/amdttm/parameters/pages_limit",
};
#define N_NAME (sizeof names / sizeof names[0])

static bool is_text(const char *text, size_t room)
{
    return memchr(text, '\0', room) != NULL;
}

static void check(const struct doctor *d)
{
    int n = 0;
    for (int i = 0; i < d->n; i++) {
        const struct finding *f = &d->row[i];
        demand(f->state < DOCTOR_STATE_COUNT, "a state");
        demand(f->name[0] != '\0' && f->found[0] != '\0', "a name and what was found");
        demand(is_text(f->name, sizeof f->name) && is_text(f->found, sizeof f->found) &&
                   is_text(f->costs, sizeof f->costs) && is_text(f->type[0], sizeof f->type[0]),
               "texts that end");
        demand(f->state != DOCTOR_WRONG || (f->costs[0] != '\0' && f->type[0][0] != '\0'),
               "what is wrong has its cost and its remedy");
        demand(f->state != DOCTOR_UNKNOWN || f->costs[0] == '\0', "what is unknown costs nothing");
    }
    for (int i = 0; i < DOCTOR_STATE_COUNT; i++) {
        n += d->n_of[i];
    }
    demand(n == d->n && n > 10, "each row counts once");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct facts facts;
    static struct doctor doctor;
    char none[64];
    tree_put(names, N_NAME, false, bytes, n);
    snprintf(none, sizeof none, "%s/none", top);
    const struct fuzz_run run = fuzz_begin();
    facts_read(&facts, top, none);
    doctor_judge(&facts, &doctor);
    check(&doctor);
    fuzz_end(run);
    return 0;
}
