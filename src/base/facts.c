/* facts - what the kernel says of this box, as far as models care
 *
 * Small files of /proc and /sys, read one by one into numbers and words, and judged elsewhere
 * (lib/doctor.c). Memory, its pools and limits come from base/pool.c and base/cgroup.c, who waits
 * for it from base/psi.c, what other hearths planned from base/claim.c: nothing that these read is
 * read here in another way.
 *
 * All files lie below a root that tests choose, so that a box somebody has recorded is as good as
 * one that is here. Its files are outside data all the same: whatever they hold, each read is
 * bounded, and a number that cannot be one is unknown (FA-1).
 *
 * Lost memory: what MemTotal has beyond all that the kernel accounts for. A driver that takes pages
 * for itself, as NVIDIA's does on boxes with one memory, appears nowhere else. It is told only
 * where all large terms of the sum are there.
 *
 * Next: lib/doctor.c. */
#include "base/facts.h"

#include "base/cgroup.h"
#include "base/figure.h"
#include "base/os.h"

#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CPUS_MAX      4096
#define POLICIES_MAX  512
#define ZONES_MAX     64
#define TRIPS_MAX     12
#define HWMON_MAX     32
#define PROCESSES_MAX 8192
#define HOT_LEAST_MC  40000 /* a limit below is none */
#define HOT_MOST_MC   150000

/* --- reading ------------------------------------------------------------------------------- */

static uint64_t number(const char *root, const char *folder, const char *name)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s%s", root, folder);
    return os_number_in(path, name, NULL);
}

/* The first word of a file. */
static void word(const char *root, const char *name, char *to, size_t room)
{
    char path[OS_PATH_BYTES];
    char text[128];
    snprintf(path, sizeof path, "%s%s", root, name);
    (void)os_read_start(path, text, sizeof text);
    snprintf(to, room, "%.*s", (int)strcspn(text, " \t\n"), text);
}

static void chosen(const char *root, const char *name, char *to, size_t room)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s%s", root, name);
    (void)os_chosen(path, to, room);
}

static bool exists(const char *root, const char *name)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s%s", root, name);
    return os_exists(path);
}

/* Of a line of kB. */
static uint64_t kb_after(const char *root, const char *name, const char *key)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s%s", root, name);
    return figure_bytes(os_number_after(path, key), 1024);
}

static uint64_t meminfo(const char *root, const char *key)
{
    return kb_after(root, "/proc/meminfo", key);
}

/* How many processors a list such as "0-3,8,10-11" names; unknown when it is none. */
static uint64_t count_list(const char *text)
{
    uint64_t sum = 0;
    const char *p = text + strspn(text, " \t");
    while (*p >= '0' && *p <= '9' && sum <= CPUS_MAX) {
        char *end = NULL;
        const unsigned long long first = strtoull(p, &end, 10);
        unsigned long long last = first;
        if (*end == '-' && end[1] >= '0' && end[1] <= '9') {
            last = strtoull(end + 1, &end, 10);
        }
        if (last < first || last >= CPUS_MAX) {
            return FACTS_UNKNOWN;
        }
        sum += last - first + 1;
        p = end + (*end == ',');
    }
    return sum > 0 && sum <= CPUS_MAX && (*p == '\n' || *p == '\0') ? sum : FACTS_UNKNOWN;
}

static uint64_t count_in(const char *root, const char *name)
{
    char path[OS_PATH_BYTES];
    char text[2048];
    snprintf(path, sizeof path, "%s%s", root, name);
    (void)os_read_start(path, text, sizeof text);
    return count_list(text);
}

/* Text behind a key at the beginning of a line; NULL when there is none. */
static const char *behind(const char *text, const char *key)
{
    const size_t n = strlen(key);
    for (const char *line = text; line != NULL;) {
        if (strncmp(line, key, n) == 0) {
            return line + n;
        }
        const char *end = strchr(line, '\n');
        line = end != NULL ? end + 1 : NULL;
    }
    return NULL;
}

/* --- memory -------------------------------------------------------------------------------- */

/* MemFree has free CMA; Cached has Shmem; kernels before 4.20 know no KReclaimable. */
static uint64_t lost(const char *root)
{
    static const char *const others[] = { "Buffers",     "SwapCached", "SUnreclaim",
                                          "KernelStack", "PageTables", "SecPageTables",
                                          "VmallocUsed", "Percpu",     "Hugetlb" };
    const uint64_t total = meminfo(root, "MemTotal");
    const uint64_t large[] = { meminfo(root, "MemFree"), meminfo(root, "Cached"),
                               meminfo(root, "AnonPages") };
    uint64_t slab = meminfo(root, "KReclaimable");
    slab = slab != FACTS_UNKNOWN ? slab : meminfo(root, "SReclaimable");
    bool is_told = total != FACTS_UNKNOWN && slab != FACTS_UNKNOWN;
    uint64_t sum = figure_known(slab);
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++) {
        is_told = is_told && large[i] != FACTS_UNKNOWN;
        sum += figure_known(large[i]);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        sum += figure_known(meminfo(root, others[i]));
    }
    return !is_told ? FACTS_UNKNOWN : sum < total ? total - sum : 0;
}

/* Keeps the largest, which come first. */
static void add_process(struct facts_memory *m, const struct facts_process *p)
{
    int at = m->n_top;
    while (at > 0 && m->top[at - 1].bytes < p->bytes) {
        at--;
    }
    for (int i = FACTS_TOP - 1; i > at; i--) {
        m->top[i] = m->top[i - 1];
    }
    if (at < FACTS_TOP) {
        m->top[at] = *p;
        m->n_top += m->n_top < FACTS_TOP;
    }
}

static void read_process(struct facts_memory *m, const char *root, const char *pid)
{
    char name[64];
    char path[OS_PATH_BYTES];
    char text[256];
    struct facts_process p = { .pid = strtoull(pid, NULL, 10) };
    snprintf(name, sizeof name, "/proc/%.20s/status", pid);
    p.bytes = kb_after(root, name, "VmRSS");
    if (p.bytes == FACTS_UNKNOWN) {
        return; /* a thread of the kernel, or gone */
    }
    snprintf(path, sizeof path, "%s%s", root, name);
    (void)os_read_start(path, text, sizeof text);
    const char *own = behind(text, "Name:");
    own = own != NULL ? own + strspn(own, " \t") : "";
    snprintf(p.name, sizeof p.name, "%.*s", (int)strcspn(own, "\n"), own);
    add_process(m, &p);
}

static void read_processes(struct facts_memory *m, const char *root)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/proc", root);
    DIR *d = opendir(path);
    const struct dirent *e = d != NULL ? readdir(d) : NULL;
    for (int i = 0; i < PROCESSES_MAX && e != NULL; i++, e = readdir(d)) {
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9') {
            read_process(m, root, e->d_name);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
}

static void read_swap(struct facts_memory *m, const char *root)
{
    char path[OS_PATH_BYTES];
    char text[512];
    m->swap_bytes = meminfo(root, "SwapTotal");
    m->swap_free_bytes = meminfo(root, "SwapFree");
    m->swap_limit_bytes = cgroup_swap(root);
    m->swappiness = number(root, "/proc/sys/vm", "swappiness");
    snprintf(path, sizeof path, "%s/proc/swaps", root);
    (void)os_read_start(path, text, sizeof text);
    const char *first = strchr(text, '\n'); /* behind the names of the columns */
    first = first != NULL ? first + 1 : "";
    snprintf(m->swap_on, sizeof m->swap_on, "%.*s", (int)strcspn(first, " \t\n"), first);
}

static void read_memory(struct facts *f, const char *root, const char *claims)
{
    struct facts_memory *m = &f->memory;
    read_swap(m, root);
    m->lost_bytes = lost(root);
    m->cma_total_bytes = meminfo(root, "CmaTotal");
    const struct cgroup_held all = { .own_bytes = UINT64_MAX }; /* whoever holds so much has it */
    m->limit_bytes = cgroup_memory(root, &all, NULL, 0, &m->limit_name);
    m->overcommit = number(root, "/proc/sys/vm", "overcommit_memory");
    m->commit_bytes = meminfo(root, "CommitLimit");
    m->committed_bytes = meminfo(root, "Committed_AS");
    chosen(root, "/sys/kernel/mm/transparent_hugepage/enabled", m->huge, sizeof m->huge);
    chosen(root, "/sys/kernel/mm/transparent_hugepage/defrag", m->defrag, sizeof m->defrag);
    psi_read(&m->psi, root);
    claim_others(root, claims, NULL, &m->others);
    read_processes(m, root);
}

/* --- processor ----------------------------------------------------------------------------- */

/* How far cores may stay below their clock. */
static int slowness(const char *governor)
{
    return strcmp(governor, "powersave") == 0                                            ? 3
           : strcmp(governor, "conservative") == 0 || strcmp(governor, "userspace") == 0 ? 2
           : strcmp(governor, "performance") != 0                                        ? 1
                                                                                         : 0;
}

/* How much a preference holds the clock back; 0: none is told. */
static int thrift(const char *preference)
{
    return strcmp(preference, "power") == 0           ? 4
           : strcmp(preference, "balance_power") == 0 ? 3
           : strcmp(preference, "performance") == 0   ? 1
           : preference[0] != '\0'                    ? 2
                                                      : 0;
}

/* Of the cores that share a clock. */
static bool read_policy(struct facts_cpu *c, const char *root, int i)
{
    char folder[128];
    char name[160];
    char governor[sizeof c->governor];
    char preference[sizeof c->preference];
    snprintf(folder, sizeof folder, "/sys/devices/system/cpu/cpufreq/policy%d", i);
    snprintf(name, sizeof name, "%s/scaling_governor", folder);
    word(root, name, governor, sizeof governor);
    if (governor[0] == '\0') {
        return false;
    }
    if (c->governor[0] == '\0' || slowness(governor) > slowness(c->governor)) {
        memcpy(c->governor, governor, sizeof governor);
        snprintf(name, sizeof name, "%s/scaling_driver", folder);
        word(root, name, c->driver, sizeof c->driver);
        c->preference[0] = '\0'; /* it says something beside its own governor */
    }
    snprintf(name, sizeof name, "%s/energy_performance_preference", folder);
    word(root, name, preference, sizeof preference);
    if (strcmp(governor, c->governor) == 0 && thrift(preference) > thrift(c->preference)) {
        memcpy(c->preference, preference, sizeof preference);
    }
    const uint64_t may = number(root, folder, "scaling_max_freq");
    const uint64_t can = number(root, folder, "cpuinfo_max_freq");
    const bool is_told = may < UINT32_MAX && can < UINT32_MAX && may > 0 && can > 0;
    const bool is_first = c->clock_khz == FACTS_UNKNOWN;
    /* as shares: a core of another kind has another clock */
    if (is_told && (is_first || may * c->clock_max_khz < c->clock_khz * can)) {
        c->clock_khz = may;
        c->clock_max_khz = can;
    }
    return true;
}

static void read_clock(struct facts_cpu *c, const char *root)
{
    c->clock_khz = FACTS_UNKNOWN;
    c->clock_max_khz = FACTS_UNKNOWN;
    for (int i = 0; i < POLICIES_MAX; i++) {
        if (!read_policy(c, root, i) && i > 0 && c->governor[0] == '\0') {
            break; /* neither of the first two: there are none */
        }
    }
    c->boost = number(root, "/sys/devices/system/cpu/cpufreq", "boost");
    c->no_turbo = number(root, "/sys/devices/system/cpu/intel_pstate", "no_turbo");
    word(root, "/sys/firmware/acpi/platform_profile", c->profile, sizeof c->profile);
}

/* The least limit of a place from which on it lowers clocks. */
static uint64_t trip_of(const char *root, const char *folder)
{
    uint64_t least = FACTS_UNKNOWN;
    for (int i = 0; i < TRIPS_MAX; i++) {
        char name[160];
        char kind[16];
        snprintf(name, sizeof name, "%s/trip_point_%d_type", folder, i);
        word(root, name, kind, sizeof kind);
        if (strcmp(kind, "passive") == 0 || strcmp(kind, "hot") == 0) {
            snprintf(name, sizeof name, "trip_point_%d_temp", i);
            const uint64_t at = number(root, folder, name);
            least = at >= HOT_LEAST_MC && at < HOT_MOST_MC && at < least ? at : least;
        }
    }
    return least;
}

/* Places have the makers' names; a battery, a radio and the case are places, too. */
static bool is_of_processor(const char *root, const char *folder)
{
    static const char *const parts[] = { "x86_pkg_temp", "cpu", "soc", "core" };
    char name[160];
    char type[32];
    bool is_one = false;
    snprintf(name, sizeof name, "%s/type", folder);
    word(root, name, type, sizeof type);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        is_one = is_one || strstr(type, parts[i]) != NULL;
    }
    return is_one;
}

static void read_heat(struct facts_cpu *c, const char *root)
{
    c->heat_mc = FACTS_UNKNOWN;
    c->heat_limit_mc = FACTS_UNKNOWN;
    int64_t nearest = INT64_MAX;
    for (int i = 0; i < ZONES_MAX; i++) {
        char folder[128];
        snprintf(folder, sizeof folder, "/sys/class/thermal/thermal_zone%d", i);
        const bool is_ours = is_of_processor(root, folder);
        const uint64_t now = is_ours ? number(root, folder, "temp") : FACTS_UNKNOWN;
        const uint64_t limit = now < HOT_MOST_MC ? trip_of(root, folder) : FACTS_UNKNOWN;
        const int64_t left = (int64_t)(limit != FACTS_UNKNOWN ? limit : HOT_MOST_MC) - (int64_t)now;
        if (now < HOT_MOST_MC && left < nearest) {
            nearest = left;
            c->heat_mc = now;
            c->heat_limit_mc = limit;
        }
    }
    c->n_throttled =
        number(root, "/sys/devices/system/cpu/cpu0/thermal_throttle", "package_throttle_count");
    c->undervoltage = FACTS_UNKNOWN;
    for (int i = 0; i < HWMON_MAX && c->undervoltage == FACTS_UNKNOWN; i++) {
        char folder[64];
        char name[80];
        char who[16];
        snprintf(folder, sizeof folder, "/sys/class/hwmon/hwmon%d", i);
        snprintf(name, sizeof name, "%s/name", folder);
        word(root, name, who, sizeof who);
        if (strcmp(who, "rpi_volt") == 0) {
            c->undervoltage = number(root, folder, "in0_lcrit_alarm");
        }
    }
}

static void read_cpu(struct facts *f, const char *root)
{
    struct facts_cpu *c = &f->cpu;
    char path[OS_PATH_BYTES];
    char text[4096];
    const uint32_t granted = cgroup_cores(root);
    c->n_granted = granted != UINT32_MAX ? granted : FACTS_UNKNOWN;
    c->n_present = count_in(root, "/sys/devices/system/cpu/present");
    c->n_online = count_in(root, "/sys/devices/system/cpu/online");
    c->n_node = count_in(root, "/sys/devices/system/node/online");
    snprintf(path, sizeof path, "%s/proc/self/status", root);
    (void)os_read_start(path, text, sizeof text);
    const char *list = behind(text, "Cpus_allowed_list:");
    char line[2048];
    snprintf(line, sizeof line, "%.*s", list != NULL ? (int)strcspn(list, "\n") : 0,
             list != NULL ? list : "");
    c->n_allowed = count_list(line);
    c->zone_reclaim = number(root, "/proc/sys/vm", "zone_reclaim_mode");
    c->balancing = number(root, "/proc/sys/kernel", "numa_balancing");
    c->smt = number(root, "/sys/devices/system/cpu/smt", "active");
    word(root, "/sys/devices/system/cpu/smt/control", line, sizeof line);
    c->is_smt_off = strcmp(line, "off") == 0 || strcmp(line, "forceoff") == 0;
    snprintf(path, sizeof path, "%s/proc/pressure/cpu", root);
    (void)os_read_start(path, text, sizeof text);
    (void)psi_parse(text, &c->load);
    read_clock(c, root);
    read_heat(c, root);
    c->isa = root[0] == '\0' ? cpu_best() : CPU_ISA_COUNT;
}

/* --- what kind of box it is ---------------------------------------------------------------- */

/* Within a container the root of the cgroups has a limit's file, which the root of a box has not;
 * others are told by what their maker leaves behind. */
static void read_container(struct facts *f, const char *root)
{
    static const struct {
        const char *mark;
        const char *name;
    } rows[] = { { "docker", "docker" },
                 { "kubepods", "kubernetes" },
                 { "libpod", "podman" },
                 { "lxc", "lxc" },
                 { "containerd", "containerd" } };
    char path[OS_PATH_BYTES];
    char text[4096];
    const char *found =
        exists(root, "/.dockerenv")          ? "docker"
        : exists(root, "/run/.containerenv") ? "podman"
        : exists(root, "/run/systemd/container") || exists(root, "/sys/fs/cgroup/memory.max")
            ? "container"
            : "";
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    (void)os_read_start(path, text, sizeof text);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && found[0] == '\0'; i++) {
        found = strstr(text, rows[i].mark) != NULL ? rows[i].name : "";
    }
    snprintf(f->container, sizeof f->container, "%s", found);
}

static void read_kind(struct facts *f, const char *root)
{
    char path[OS_PATH_BYTES];
    char text[8192];
    char maker[32];
    char *rest = NULL;
    read_container(f, root);
    snprintf(path, sizeof path, "%s/proc/cpuinfo", root);
    (void)os_read_start(path, text, sizeof text);
    word(root, "/sys/class/dmi/id/sys_vendor", maker, sizeof maker);
    f->is_virtual = strstr(text, " hypervisor") != NULL || strcmp(maker, "QEMU") == 0 ||
                    exists(root, "/sys/hypervisor/type");
    word(root, "/proc/sys/kernel/osrelease", f->kernel, sizeof f->kernel);
    const unsigned long major = strtoul(f->kernel, &rest, 10);
    const unsigned long minor = *rest == '.' ? strtoul(rest + 1, NULL, 10) : 0;
    f->kernel_major = major < 1000 ? (unsigned)major : 0;
    f->kernel_minor = minor < 1000 ? (unsigned)minor : 0;
}

/* The soft or the hard limit in a line of /proc/self/limits. */
static uint64_t limit_of(const char *text, const char *name, bool is_hard)
{
    const char *line = behind(text, name);
    for (int i = is_hard ? 0 : 1; i < 2 && line != NULL; i++) {
        line += strspn(line, " ");
        line += i == 0 ? strcspn(line, " \n") : 0;
    }
    return line != NULL && *line >= '0' && *line <= '9' ? strtoull(line, NULL, 10) : FACTS_UNKNOWN;
}

/* That of processes does not hold root. */
static void read_limits(struct facts *f, const char *root)
{
    char path[OS_PATH_BYTES];
    char text[4096];
    snprintf(path, sizeof path, "%s/proc/self/limits", root);
    f->has_limits = os_read_start(path, text, sizeof text) > 0;
    f->files = limit_of(text, "Max open files", true);
    f->threads = limit_of(text, "Max processes", false);
    f->threads_left = cgroup_threads(root);
    snprintf(path, sizeof path, "%s/proc/self/status", root);
    if (os_number_after(path, "Uid") == 0) {
        f->threads = FACTS_UNKNOWN;
    }
}

void facts_read(struct facts *f, const char *root, const char *claims)
{
    *f = (struct facts){ 0 };
    pool_read(&f->pool, root, claims, NULL);
    read_memory(f, root, claims);
    read_cpu(f, root);
    read_kind(f, root);
    read_limits(f, root);
    f->uring_off = number(root, "/proc/sys/kernel", "io_uring_disabled");
}
