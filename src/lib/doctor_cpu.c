/* doctor_cpu - findings about cores: how many, how fast, and whether they may stay so
 *
 * An answer is limited by memory and a prompt by the multipliers, so a low clock costs prompts in
 * full and answers in part, and a core that may not be used costs prompts its share.
 *
 * Governors: "powersave" is the lowest clock with most drivers; with intel_pstate and
 * amd-pstate-epp it is the usual one, which follows the load, and what holds the clock back is the
 * preference beside it. Virtual machines have no clock of their own: theirs is unknown.
 *
 * Next: lib/doctor_disk.c. */
#include "lib/doctor_impl.h"

#include <stdio.h>
#include <string.h>

#define WAITS_MUCH   25.0 /* percent of time */
#define SERVE_BESIDE 16   /* of the engine, the loop, reading, the log, ... */
#define CLOCK_FOLDER "/sys/devices/system/cpu/cpufreq"

static bool is_one_of(const char *word, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(word, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void judge_cores(const struct facts *f, struct doctor *d)
{
    const struct facts_cpu *c = &f->cpu;
    const uint64_t box = c->n_present != FACTS_UNKNOWN ? c->n_present : c->n_online;
    if (box == FACTS_UNKNOWN || c->n_allowed == FACTS_UNKNOWN) {
        doctor_add(d, "cores", DOCTOR_UNKNOWN, "/sys/devices/system/cpu or /proc is hidden");
        return;
    }
    const bool is_less = c->n_online != FACTS_UNKNOWN && c->n_online < box;
    const bool is_single = is_less && c->is_smt_off && c->n_online >= box - c->n_online;
    const bool is_off = is_less && !is_single; /* one thread a core is as good */
    const bool is_bound = c->n_allowed < (is_less ? c->n_online : box);
    const bool is_granted = c->n_granted < c->n_allowed;
    char granted[48] = "";
    if (is_granted) {
        snprintf(granted, sizeof granted, ", %llu granted by the cgroup",
                 (unsigned long long)c->n_granted);
    }
    struct finding *row =
        doctor_add(d, "cores", is_off || is_bound || is_granted ? DOCTOR_NOTE : DOCTOR_OK,
                   "%llu of %llu logical processors may be used%s%s%s",
                   (unsigned long long)c->n_allowed, (unsigned long long)box, granted,
                   c->smt == 1 ? ", several a core"
                   : is_single ? ", SMT is off"
                               : "",
                   is_off ? ", some are off" : "");
    if (row->state == DOCTOR_OK) {
        return;
    }
    doctor_costs(row,
                 "Prompts are computed by those alone, one thread a core; answers need fewer.");
    if (is_off) {
        doctor_type(row, "echo 1 | sudo tee /sys/devices/system/cpu/cpu*/online");
    }
    if (is_bound) {
        doctor_type(row, "taskset -pc $$  # who binds: taskset, the service's CPUAffinity= or "
                         "AllowedCPUs=, or a container's --cpuset-cpus");
    }
    if (is_granted) {
        doctor_type(row,
                    f->container[0] != '\0'
                        ? "docker update --cpus %llu NAME  # podman likewise"
                        : "sudo systemctl set-property NAME.service CPUQuota=%llu00%%",
                    (unsigned long long)c->n_allowed);
    }
    row->is_of_box = true;
}

/* Of a service: one a core, and a few. */
static void judge_threads(const struct facts *f, struct doctor *d)
{
    const uint64_t allowed = f->cpu.n_allowed != FACTS_UNKNOWN ? f->cpu.n_allowed : 1;
    const uint64_t wanted = allowed + SERVE_BESIDE;
    const bool is_user = f->threads < wanted;
    const bool is_group = f->threads_left < wanted;
    if (!f->has_limits) {
        doctor_add(d, "threads", DOCTOR_UNKNOWN, "/proc/self/limits cannot be read");
        return;
    }
    if (!is_user && !is_group) {
        doctor_add(d, "threads", DOCTOR_OK, "%s",
                   f->threads == FACTS_UNKNOWN && f->threads_left == UINT64_MAX ? "no limit"
                   : f->threads == FACTS_UNKNOWN
                       ? "as many as are needed"
                       : "as many as are needed, if the user runs little else (ulimit -u)");
        return;
    }
    struct finding *row = doctor_add(d, "threads", DOCTOR_WRONG,
                                     is_user ? "a user may have %llu in all that runs (ulimit -u)"
                                             : "%llu may begin yet in the cgroup (pids.max)",
                                     (unsigned long long)(is_user ? f->threads : f->threads_left));
    doctor_costs(row,
                 "hearth serve takes up to %llu here, one for each processor and some beside: it "
                 "may not start. --threads N takes fewer.",
                 (unsigned long long)wanted);
    if (is_user) {
        doctor_type(row, "ulimit -u %llu", (unsigned long long)wanted * 4);
        doctor_type(row, "sudo systemctl edit NAME.service  # for a service: LimitNPROC=infinity");
    }
    if (is_group) {
        doctor_type(row,
                    f->container[0] != '\0'
                        ? "docker update --pids-limit %llu NAME  # podman likewise"
                        : "sudo systemctl set-property NAME.service TasksMax=%llu",
                    (unsigned long long)wanted * 4);
        row->is_of_box = true;
    }
}

static void judge_isa(const struct facts *f, struct doctor *d)
{
    const enum cpu_isa isa = f->cpu.isa;
    if (isa == CPU_ISA_COUNT) {
        doctor_add(d, "instructions", DOCTOR_UNKNOWN, "not asked");
        return;
    }
    struct finding *row =
        doctor_add(d, "instructions", isa == CPU_SCALAR ? DOCTOR_WRONG : DOCTOR_OK,
                   "kernels for %s", cpu_isa_name(isa));
    if (isa == CPU_SCALAR) {
        doctor_costs(row, "hearth finds no instructions for many numbers at once (AVX2 on x86): "
                          "every product is computed one number after the other. A virtual machine "
                          "often hides what the processor has.");
        doctor_type(row, "grep -o -w -m1 avx2 /proc/cpuinfo  # on the host: if it has it, give the "
                         "machine the CPU type \"host\" (QEMU: -cpu host)");
        row->is_of_box = true;
    }
}

static void type_all_cores(struct finding *row, const char *value, const char *name)
{
    doctor_type(row, "echo %s | sudo tee " CLOCK_FOLDER "/policy*/%s", value, name);
    doctor_type(row,
                "echo 'w " CLOCK_FOLDER "/policy*/%s - - - - %s' | sudo tee -a "
                "/etc/tmpfiles.d/hearth.conf  # for each start",
                name, value);
    row->is_of_box = true;
}

static void judge_governor(const struct facts *f, struct doctor *d)
{
    static const char *const drivers[] = { "intel_pstate", "amd-pstate-epp" };
    static const char *const lazy[] = { "conservative", "userspace" };
    const struct facts_cpu *c = &f->cpu;
    if (c->governor[0] == '\0') {
        doctor_add(d, "clock", DOCTOR_UNKNOWN, "%s",
                   f->is_virtual ? "the virtual machine's host decides" : "no cpufreq in /sys");
        return;
    }
    const bool is_saving = strcmp(c->governor, "powersave") == 0;
    const bool is_usual = is_saving && is_one_of(c->driver, drivers, 2);
    const bool is_low = is_usual && strcmp(c->preference, "power") == 0;
    const bool is_lower = is_usual && strcmp(c->preference, "balance_power") == 0;
    const enum doctor_state state = (is_saving && !is_usual) || is_low            ? DOCTOR_WRONG
                                    : is_lower || is_one_of(c->governor, lazy, 2) ? DOCTOR_NOTE
                                                                                  : DOCTOR_OK;
    struct finding *row = doctor_add(
        d, "clock", state, "governor %s%s%s%s%s", c->governor, c->driver[0] != '\0' ? " of " : "",
        c->driver, c->preference[0] != '\0' ? ", preference " : "", c->preference);
    if (state != DOCTOR_OK) {
        doctor_costs(row, "Cores stay below the clock that they could have: prompts are slower by "
                          "as much, answers by some of it.");
        type_all_cores(row, is_low || is_lower ? "balance_performance" : "performance",
                       is_low || is_lower ? "energy_performance_preference" : "scaling_governor");
    }
}

static void judge_cap(const struct facts *f, struct doctor *d)
{
    const struct facts_cpu *c = &f->cpu;
    if (c->clock_khz == FACTS_UNKNOWN) {
        return; /* "clock" says it */
    }
    const bool is_capped = c->clock_khz < c->clock_max_khz / 50 * 49;
    struct finding *row = doctor_add(d, "clock limit", is_capped ? DOCTOR_WRONG : DOCTOR_OK,
                                     "cores may reach %.2f of %.2f GHz", (double)c->clock_khz / 1e6,
                                     (double)c->clock_max_khz / 1e6);
    if (is_capped) {
        doctor_costs(row, "Somebody set a limit below what the cores can do: prompts are slower by "
                          "as much, answers by some of it.");
        doctor_type(row, "for p in " CLOCK_FOLDER "/policy*; do sudo cp $p/cpuinfo_max_freq "
                         "$p/scaling_max_freq; done");
        row->is_of_box = true;
    }
}

static void judge_boost(const struct facts *f, struct doctor *d)
{
    const struct facts_cpu *c = &f->cpu;
    const bool is_off = c->boost == 0 || c->no_turbo == 1;
    if (c->boost > 1 && c->no_turbo > 1) {
        return; /* this processor has none, or its host decides */
    }
    struct finding *row = doctor_add(d, "boost", is_off ? DOCTOR_WRONG : DOCTOR_OK, "%s",
                                     is_off ? "switched off" : "on");
    if (is_off) {
        doctor_costs(row, "Cores stay at their base clock: prompts and answers are slower.");
        doctor_type(row, c->boost == 0
                             ? "echo 1 | sudo tee " CLOCK_FOLDER "/boost"
                             : "echo 0 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo");
        row->is_of_box = true;
    }
}

static void judge_profile(const struct facts *f, struct doctor *d)
{
    static const char *const low[] = { "low-power", "quiet", "cool" };
    const char *profile = f->cpu.profile;
    if (profile[0] == '\0') {
        return; /* few boxes have them */
    }
    const bool is_low = is_one_of(profile, low, 3);
    struct finding *row = doctor_add(d, "power profile",
                                     strcmp(profile, "low-power") == 0 ? DOCTOR_WRONG
                                     : is_low                          ? DOCTOR_NOTE
                                                                       : DOCTOR_OK,
                                     "%s", profile);
    if (is_low) {
        doctor_costs(row, "The firmware gives the processor less power than it can take, so the "
                          "clock falls as soon as all cores compute.");
        doctor_type(row, "echo performance | sudo tee /sys/firmware/acpi/platform_profile");
        doctor_type(row, "cat /sys/firmware/acpi/platform_profile_choices  # if there is none of "
                         "that name");
        row->is_of_box = true;
    }
}

static void judge_heat(const struct facts *f, struct doctor *d)
{
    const struct facts_cpu *c = &f->cpu;
    const bool is_hot = c->heat_mc != FACTS_UNKNOWN && c->heat_mc >= c->heat_limit_mc;
    const bool was_hot = c->n_throttled > 0 && c->n_throttled != FACTS_UNKNOWN;
    if (c->heat_mc == FACTS_UNKNOWN && c->n_throttled == FACTS_UNKNOWN) {
        doctor_add(d, "heat", DOCTOR_UNKNOWN, "%s",
                   f->is_virtual ? "the host's, which is not told here" : "no temperature in /sys");
        return;
    }
    char now[64] = "its temperature is not told";
    if (c->heat_mc != FACTS_UNKNOWN) {
        snprintf(now, sizeof now, "%.0f C", (double)c->heat_mc / 1000.0);
    }
    if (c->heat_limit_mc != FACTS_UNKNOWN) {
        snprintf(now, sizeof now, "%.0f C, clocks fall at %.0f", (double)c->heat_mc / 1000.0,
                 (double)c->heat_limit_mc / 1000.0);
    }
    char times[64] = "";
    if (c->n_throttled == 0) {
        snprintf(times, sizeof times, "; never throttled since the start");
    } else if (was_hot) {
        snprintf(times, sizeof times, "; throttled %llu times since the start",
                 (unsigned long long)c->n_throttled);
    }
    struct finding *row = doctor_add(d, "heat",
                                     is_hot    ? DOCTOR_WRONG
                                     : was_hot ? DOCTOR_NOTE
                                               : DOCTOR_OK,
                                     "%s%s", now, times);
    if (is_hot || was_hot) {
        doctor_costs(row, "A processor that is too hot lowers its clock: long prompts and long "
                          "answers become slower while they last. Cooling is what helps: dust, "
                          "fans, a place with air.");
        doctor_type(row, "grep . /sys/class/thermal/thermal_zone*/temp  # while it computes");
    }
}

static void judge_power(const struct facts *f, struct doctor *d)
{
    if (f->cpu.undervoltage > 1) {
        return; /* only a Raspberry Pi tells */
    }
    const bool is_low = f->cpu.undervoltage == 1;
    struct finding *row = doctor_add(d, "power supply", is_low ? DOCTOR_WRONG : DOCTOR_OK, "%s",
                                     is_low ? "its voltage is too low" : "its voltage is right");
    if (is_low) {
        doctor_costs(row, "The board lowers its clock while the voltage is low, which it is when "
                          "all cores compute: use the maker's supply and a short cable.");
        doctor_type(row, "vcgencmd get_throttled  # 0x0 when all is right");
    }
}

static void judge_nodes(const struct facts *f, struct doctor *d)
{
    const struct facts_cpu *c = &f->cpu;
    if (c->n_node == FACTS_UNKNOWN) {
        doctor_add(d, "memory nodes", DOCTOR_UNKNOWN, "/sys/devices/system/node is not there");
        return;
    }
    if (c->n_node == 1) {
        doctor_add(d, "memory nodes", DOCTOR_OK, "one");
        return;
    }
    const bool is_near = c->zone_reclaim != 0 && c->zone_reclaim != FACTS_UNKNOWN;
    const bool is_moved = c->balancing != 0 && c->balancing != FACTS_UNKNOWN;
    struct finding *row = doctor_add(d, "memory nodes",
                                     is_near    ? DOCTOR_WRONG
                                     : is_moved ? DOCTOR_NOTE
                                                : DOCTOR_OK,
                                     "%llu%s%s", (unsigned long long)c->n_node,
                                     is_near ? "; zone_reclaim_mode is on" : "",
                                     is_moved ? "; numa_balancing is on" : "");
    if (is_near) {
        doctor_costs(row, "A core that finds its own node full throws out what files it has cached "
                          "there before it takes free memory of another node: models load slowly, "
                          "again and again.");
        doctor_type_sysctl(row, "vm.zone_reclaim_mode", 0);
    } else if (is_moved) {
        doctor_costs(row, "hearth lays weights on all nodes in turn; the kernel takes pages away "
                          "for a moment to see who reads them, and moves some, for nothing.");
        doctor_type_sysctl(row, "kernel.numa_balancing", 0);
    }
}

static void judge_load(const struct facts *f, struct doctor *d)
{
    const struct psi_scope *load = &f->cpu.load;
    if (!load->is_told) {
        doctor_add(d, "processor load", DOCTOR_UNKNOWN,
                   "not told (psi=1 on the kernel's command line)");
        return;
    }
    const bool is_much = load->some_percent >= WAITS_MUCH;
    struct finding *row =
        doctor_add(d, "processor load", is_much ? DOCTOR_NOTE : DOCTOR_OK,
                   "programs waited for a core %.0f %% of the last 10 s", load->some_percent);
    if (is_much) {
        doctor_costs(row,
                     "Other programs compute here. All threads of a model wait for the slowest "
                     "of them, so one busy core slows down all.");
        doctor_type(row, "top -b -n1 | head -15");
    }
}

void doctor_cpu(const struct facts *f, struct doctor *d)
{
    judge_cores(f, d);
    judge_threads(f, d);
    judge_isa(f, d);
    judge_governor(f, d);
    judge_cap(f, d);
    judge_boost(f, d);
    judge_profile(f, d);
    judge_heat(f, d);
    judge_power(f, d);
    judge_nodes(f, d);
    judge_load(f, d);
}
