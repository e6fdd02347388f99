/* doctor_memory - findings about memory: who has it, and how the kernel deals with it
 *
 * Where a box has little memory available the reason is often one that no list of processes shows:
 * the firmware's carve-out, a driver, a pool of huge pages. Each has a row of its own.
 *
 * A carve-out is wrong as soon as it is a large part of the box, since all of hearth's work is the
 * processor's, and since programs that use the GPU of such a box reach the host's memory anyway, as
 * far as the kernel's ttm module lets them.
 *
 * Thresholds are shares of the box's memory, so that they mean the same on a Raspberry Pi and on a
 * server. Next: base/pool.c, docs/MEMORY.md. */
#include "base/figure.h"
#include "lib/doctor_impl.h"

#include <stdio.h>
#include <string.h>

#define GIB        ((uint64_t)1 << 30)
#define GPU_PAGE   4096 /* of boxes with amdgpu's graphics in the processor */
#define SWAPPY     10   /* swappiness above which idle programs are swapped for page cache */
#define WAITS_MUCH 5.0  /* percent of time */

/* --- who has it ---------------------------------------------------------------------------- */

static void put_processes(const struct facts_memory *m, struct finding *row)
{
    for (int i = 0; i < m->n_top; i++) {
        doctor_costs(row, "%s%s (%llu) %s",
                     i > 0 ? ", " : " The largest processes: ", m->top[i].name,
                     (unsigned long long)m->top[i].pid, doctor_size(m->top[i].bytes).text);
    }
    doctor_costs(row, "%s", m->n_top > 0 ? "." : "");
    doctor_type(row, "ps -eo rss,pid,args --sort=-rss | head");
}

/* Drivers hold so much that it matters. */
static bool is_lost(const struct facts *f)
{
    return f->memory.lost_bytes != FACTS_UNKNOWN &&
           f->memory.lost_bytes > f->pool.host.total_bytes / 16;
}

/* "17,23" */
static void put_pids(const struct claim_list *o, char *to, size_t room)
{
    size_t n = 0;
    to[0] = '\0';
    for (int i = 0; i < o->n && room - n > 24; i++) {
        n += (size_t)snprintf(to + n, room - n, "%s%llu", i > 0 ? "," : "",
                              (unsigned long long)o->one[i].pid);
    }
}

/* What hearth's own models have of what they planned: that is what the memory is for. */
static uint64_t held_by_hearth(const struct claim_list *o)
{
    uint64_t sum = 0;
    for (int i = 0; i < o->n; i++) {
        const struct cgroup_claim *c = &o->one[i];
        sum += c->own_bytes < c->plan_bytes ? c->own_bytes : c->plan_bytes;
    }
    return sum;
}

static void judge_available(const struct facts *f, struct doctor *d)
{
    const struct pool_host *h = &f->pool.host;
    if (h->is_hidden) {
        doctor_add(d, "memory", DOCTOR_UNKNOWN, "MemAvailable in /proc/meminfo cannot be read");
        return;
    }
    const uint64_t held = held_by_hearth(&f->memory.others);
    const uint64_t ours = held + h->other_bytes;
    const uint64_t left =
        (h->kernel_bytes > h->cma_bytes ? h->kernel_bytes - h->cma_bytes : 0) + held;
    char hearths[200] = "";
    if (ours > 0) {
        char pids[120];
        put_pids(&f->memory.others, pids, sizeof pids);
        snprintf(hearths, sizeof hearths, ", hearth%s%s%s has or planned %s",
                 pids[0] != '\0' ? " (" : "", pids, pids[0] != '\0' ? ")" : "",
                 doctor_size(ours).text);
    }
    const enum doctor_state state = left < h->total_bytes / 8   ? DOCTOR_WRONG
                                    : left < h->total_bytes / 2 ? DOCTOR_NOTE
                                                                : DOCTOR_OK;
    struct finding *row =
        doctor_add(d, "memory", state, "%s of %s may be planned%s",
                   doctor_size(h->available_bytes).text, doctor_size(h->total_bytes).text, hearths);
    if (state != DOCTOR_OK) {
        doctor_costs(row, "A model that takes more is refused, or what does not fit of it is read "
                          "from the disk for each token.");
        if (h->huge_bytes > h->total_bytes / 8) {
            doctor_costs(row, " Most is missing since %s lie in huge page pools: see there.",
                         doctor_size(h->huge_bytes).text);
        } else if (is_lost(f)) {
            doctor_costs(row, " Most is missing since drivers hold %s: see there.",
                         doctor_size(f->memory.lost_bytes).text);
        }
        put_processes(&f->memory, row);
    }
}

static void judge_lost(const struct facts *f, struct doctor *d)
{
    const uint64_t lost = f->memory.lost_bytes;
    bool has_nvidia = false;
    for (int i = 0; i < f->pool.n_gpu; i++) {
        has_nvidia = has_nvidia || !f->pool.gpu[i].is_told;
    }
    if (lost == FACTS_UNKNOWN) {
        doctor_add(d, "held by drivers", DOCTOR_UNKNOWN,
                   "the kernel does not tell all that it holds");
        return;
    }
    const bool is_much = is_lost(f);
    struct finding *row =
        doctor_add(d, "held by drivers", is_much ? DOCTOR_WRONG : DOCTOR_OK,
                   "%s that no process, cache or table has", doctor_size(lost).text);
    if (is_much) {
        doctor_costs(row, "A driver keeps them (a GPU's that shares the box's memory, or the "
                          "balloon of a virtual machine), and no model can have them before it "
                          "lets go. GPU drivers may keep them after their last program has ended.");
        doctor_type(row, has_nvidia ? "nvidia-smi  # which programs use the GPU: end them"
                                    : "sudo lsof /dev/dri/* /dev/kfd  # what uses a GPU: end it");
        doctor_type(row, "sudo reboot  # when nothing uses it and the memory does not come back");
        row->is_of_box = true;
    }
}

static void judge_pools(const struct facts *f, struct doctor *d)
{
    const struct pool_host *h = &f->pool.host;
    const enum doctor_state state = h->huge_bytes > h->total_bytes / 8    ? DOCTOR_WRONG
                                    : h->huge_bytes > h->total_bytes / 64 ? DOCTOR_NOTE
                                                                          : DOCTOR_OK;
    if (state == DOCTOR_OK) {
        doctor_add(d, "huge page pools", DOCTOR_OK, "%s idle in them",
                   h->huge_bytes == 0 ? "nothing lies" : doctor_size(h->huge_bytes).text);
        return;
    }
    struct finding *row = doctor_add(d, "huge page pools", state, "%s lie idle in them",
                                     doctor_size(h->huge_bytes).text);
    doctor_costs(row, "Only programs that ask for pages of a pool get any. hearth asks the kernel "
                      "for large pages of the common memory, so for models this is lost.");
    doctor_type(row, "echo 0 | sudo tee /sys/kernel/mm/hugepages/*/nr_hugepages  # what is in use "
                     "stays");
    doctor_type(row, "grep -rs hugepages /etc/sysctl.* /etc/default/grub /proc/cmdline  # who asks "
                     "for them at start");
    row->is_of_box = true;
}

static void judge_cma(const struct facts *f, struct doctor *d)
{
    const struct pool_host *h = &f->pool.host;
    if (h->cma_bytes <= h->total_bytes / 32) {
        return;
    }
    struct finding *row =
        doctor_add(d, "CMA", DOCTOR_NOTE, "%s free, but set aside for drivers (%s in all)",
                   doctor_size(h->cma_bytes).text, doctor_size(f->memory.cma_total_bytes).text);
    doctor_costs(row,
                 "Plans leave it out: the kernel lends it to programs, and a driver that wants "
                 "a buffer takes it back, which has ended programs with memory \"free\".");
    doctor_type(row, "grep -o '[a-z_]*cma=[^ ]*' /proc/cmdline  # what sets its size: lower it in "
                     "the boot loader");
    row->is_of_box = true;
}

static void judge_others(const struct facts *f, struct doctor *d)
{
    const struct claim_list *o = &f->memory.others;
    char pids[120];
    if (o->bytes == 0 && o->n == 0) {
        doctor_add(d, "other hearths", DOCTOR_OK, "none has planned anything");
        return;
    }
    put_pids(o, pids, sizeof pids);
    const bool is_much = o->bytes > f->pool.host.total_bytes / 64;
    struct finding *row =
        doctor_add(d, "other hearths", is_much ? DOCTOR_NOTE : DOCTOR_OK,
                   "planned %s more than they hold by now", doctor_size(o->bytes).text);
    if (is_much) {
        doctor_costs(row, "That is kept for them although the kernel calls it available: they load "
                          "a model, or map a packed one, whose pages must stay.");
        if (o->n > 0) {
            doctor_type(row, "ps -fp %s", pids);
        } else {
            doctor_type(row, "pgrep -a hearth  # on the box: they cannot be seen from here");
        }
    }
}

/* --- GPUs ---------------------------------------------------------------------------------- */

/* What ttm may be allowed: all but what the host's own programs need. */
static uint64_t ttm_pages(uint64_t total)
{
    const uint64_t left = total / 16 > 2 * GIB ? total / 16 : 2 * GIB;
    return total > left ? (total - left) / GIB * (GIB / GPU_PAGE) : 0;
}

static void judge_map(const struct facts *f, const struct pool_gpu *g, struct doctor *d)
{
    const uint64_t total = f->pool.host.total_bytes;
    const uint64_t most =
        g->ttm_bytes > 0 && g->ttm_bytes < g->gtt_bytes ? g->ttm_bytes : g->gtt_bytes;
    const uint64_t pages = ttm_pages(total);
    char name[sizeof d->row[0].name];
    snprintf(name, sizeof name, "GPU %.8s maps", g->name);
    if (most == 0 || g->ttm_bytes == 0) {
        doctor_add(d, name, DOCTOR_UNKNOWN, "its limits (GTT, ttm) are not told");
        return;
    }
    const bool is_little = most < total / 4 * 3 && pages * GPU_PAGE > most;
    struct finding *row =
        doctor_add(d, name, is_little ? DOCTOR_NOTE : DOCTOR_OK,
                   "up to %s of the host's %s (GTT %s, %s.pages_limit %s)", doctor_size(most).text,
                   doctor_size(total).text, doctor_size(g->gtt_bytes).text, g->ttm,
                   doctor_size(g->ttm_bytes).text);
    if (is_little) {
        doctor_costs(row,
                     "Nothing for hearth, which computes on the processor. Programs that use "
                     "the GPU get no more than that: %s allows half of the memory unless it "
                     "is told otherwise%s.",
                     g->ttm,
                     g->gtt_bytes > g->ttm_bytes ? ", and amdgpu.gttsize alone does not change it"
                                                 : "");
        doctor_type(row,
                    "echo options %s pages_limit=%llu | sudo tee /etc/modprobe.d/%s.conf  # "
                    "%llu GiB, from the next start on",
                    g->ttm, (unsigned long long)pages, g->ttm,
                    (unsigned long long)(pages * GPU_PAGE / GIB));
        doctor_type(row, "sudo update-initramfs -u  # Fedora: sudo dracut --force");
        row->is_of_box = true;
    }
}

static void judge_carved(const struct facts *f, const struct pool_gpu *g, struct doctor *d)
{
    const struct pool_host *h = &f->pool.host;
    const uint64_t all = figure_known(h->total_bytes) + g->total_bytes;
    const enum doctor_state state = g->total_bytes > all / 4 ? DOCTOR_WRONG
                                    : g->total_bytes > all / 16 && g->total_bytes > GIB
                                        ? DOCTOR_NOTE
                                        : DOCTOR_OK;
    char name[sizeof d->row[0].name];
    snprintf(name, sizeof name, "GPU %.8s", g->name);
    struct finding *row = doctor_add(d, name, state, "the firmware sets %s of %s aside for it",
                                     doctor_size(g->total_bytes).text, doctor_size(all).text);
    if (state == DOCTOR_OK) {
        judge_map(f, g, d);
        return;
    }
    doctor_costs(row,
                 "hearth computes on the processor, which cannot use these: it has the other "
                 "%s, and %s for models. With the smallest part set aside it would have "
                 "nearly all, and a GPU of this kind can use the host's memory all the same.",
                 doctor_size(h->total_bytes).text, doctor_size(h->available_bytes).text);
    doctor_type(row, "systemctl reboot --firmware-setup  # UMA frame buffer, or dedicated graphics "
                     "memory: 512 MB or the least");
    row->is_of_box = true;
}

static void judge_gpus(const struct facts *f, struct doctor *d)
{
    for (int i = 0; i < f->pool.n_gpu; i++) {
        const struct pool_gpu *g = &f->pool.gpu[i];
        char name[sizeof d->row[0].name];
        snprintf(name, sizeof name, "GPU %.8s", g->name);
        if (!g->is_told) {
            doctor_add(d, name, DOCTOR_UNKNOWN, "its driver does not tell its memory here");
        } else if (g->is_carved) {
            judge_carved(f, g, d);
        } else {
            doctor_add(d, name, DOCTOR_OK, "%s of its own; hearth computes on the processor",
                       doctor_size(g->total_bytes).text);
        }
    }
}

/* --- limits -------------------------------------------------------------------------------- */

static void judge_group(const struct facts *f, struct doctor *d)
{
    const struct pool_host *h = &f->pool.host;
    const uint64_t limit = f->memory.limit_bytes;
    const char *name = f->memory.limit_name;
    const bool is_high = name != NULL && strstr(name, "memory.high") != NULL;
    if (limit == UINT64_MAX || limit >= h->total_bytes) {
        doctor_add(d, "cgroup memory", DOCTOR_OK, "no limit below the box's memory");
        return;
    }
    const unsigned long long gib = /* what a limit should be at least */
        h->total_bytes / 4 * 3 / GIB > 0 ? h->total_bytes / 4 * 3 / GIB : 1;
    struct finding *row =
        doctor_add(d, "cgroup memory", limit < gib * GIB ? DOCTOR_NOTE : DOCTOR_OK,
                   "%s %s of the box's %s, %s left", is_high ? "memory.high is" : "limit",
                   doctor_size(limit).text, doctor_size(h->total_bytes).text,
                   doctor_size(h->group_bytes).text);
    if (row->state == DOCTOR_OK) {
        return;
    }
    doctor_costs(row, "A plan beyond what is left is refused, whatever the box has free.");
    if (f->container[0] != '\0' && is_high) {
        doctor_type(row,
                    "echo %lluG | sudo tee /sys/fs/cgroup/GROUP/memory.high  # GROUP, the "
                    "container's: systemd-cgls names it",
                    gib);
    } else if (f->container[0] != '\0') {
        doctor_type(row, "docker update --memory %llug --memory-swap %llug NAME  # podman likewise",
                    gib, gib);
    } else {
        doctor_type(row,
                    "sudo systemctl set-property NAME.service %s=%lluG  # NAME: see "
                    "/proc/self/cgroup",
                    is_high ? "MemoryHigh" : "MemoryMax", gib);
    }
    row->is_of_box = true;
}

static void judge_address(const struct facts *f, struct doctor *d)
{
    const struct pool_host *h = &f->pool.host;
    const uint64_t left = h->address_bytes < h->data_bytes ? h->address_bytes : h->data_bytes;
    const bool is_data = h->data_bytes < h->address_bytes;
    if (!f->has_limits) {
        doctor_add(d, "address space", DOCTOR_UNKNOWN, "/proc/self/limits cannot be read");
        return;
    }
    if (!h->is_ulimit) {
        doctor_add(d, "address space", DOCTOR_OK, "%s",
                   left == UINT64_MAX ? "no limit" : "limited to more than there is memory");
        return;
    }
    struct finding *row = doctor_add(d, "address space", DOCTOR_WRONG, "%s, ulimit -%c, leaves %s",
                                     is_data ? "the limit of data" : "the limit of addresses",
                                     is_data ? 'd' : 'v', doctor_size(left).text);
    doctor_costs(row,
                 "A model that takes more is refused, whatever memory is free. The limit counts "
                 "addresses and not memory, so it protects nobody: a cgroup's memory limit "
                 "does.");
    doctor_type(row, is_data ? "ulimit -d unlimited" : "ulimit -v unlimited");
    doctor_type(row, "sudo systemctl edit NAME.service  # for a service: %s=infinity",
                is_data ? "LimitDATA" : "LimitAS");
}

static void judge_locked(const struct facts *f, struct doctor *d)
{
    const uint64_t most = f->pool.host.locked_bytes;
    if (!f->has_limits) {
        doctor_add(d, "locked memory", DOCTOR_UNKNOWN, "/proc/self/limits cannot be read");
    } else {
        doctor_add(d, "locked memory", DOCTOR_OK, "%s may be locked; hearth locks nothing",
                   most == UINT64_MAX ? "all" : doctor_size(most).text);
    }
}

/* --- how the kernel deals with it ---------------------------------------------------------- */

static void judge_swap(const struct facts *f, struct doctor *d)
{
    const struct facts_memory *m = &f->memory;
    if (m->swap_bytes == FACTS_UNKNOWN) {
        doctor_add(d, "swap", DOCTOR_UNKNOWN, "/proc/meminfo does not tell it");
        return;
    }
    if (m->swap_bytes == 0 || m->swap_limit_bytes == 0) {
        doctor_add(d, "swap", DOCTOR_OK, "%s",
                   m->swap_bytes == 0 ? "none" : "none for this cgroup, whatever the box has");
        return;
    }
    const uint64_t used = figure_less(m->swap_bytes, m->swap_free_bytes);
    char swappiness[32] = "swappiness is not told";
    if (m->swappiness != FACTS_UNKNOWN) {
        snprintf(swappiness, sizeof swappiness, "swappiness %llu",
                 (unsigned long long)(m->swappiness < 1000 ? m->swappiness : 999));
    }
    const enum doctor_state state = m->swappiness == FACTS_UNKNOWN ? DOCTOR_UNKNOWN
                                    : m->swappiness > SWAPPY       ? DOCTOR_NOTE
                                                                   : DOCTOR_OK;
    struct finding *row =
        doctor_add(d, "swap", state, "%s, %s used, %s", doctor_size(m->swap_bytes).text,
                   doctor_size(used).text, swappiness);
    if (state == DOCTOR_NOTE) {
        doctor_costs(row,
                     "Weights that are not used for a while may be written to %s to make room "
                     "for files; the next answer waits until they are read back. Plans never "
                     "count on swap.",
                     strncmp(m->swap_on, "/dev/zram", 9) == 0 ? "compressed memory (zram)"
                                                              : "the swap disk");
        doctor_type_sysctl(row, "vm.swappiness", 1);
    }
}

static void judge_overcommit(const struct facts *f, struct doctor *d)
{
    const struct facts_memory *m = &f->memory;
    if (m->overcommit > 2) {
        doctor_add(d, "overcommit", DOCTOR_UNKNOWN, "/proc/sys/vm/overcommit_memory is not told");
        return;
    }
    const uint64_t left =
        figure_less(figure_known(m->commit_bytes), figure_known(m->committed_bytes));
    if (m->overcommit < 2 || left >= f->pool.host.available_bytes) {
        doctor_add(d, "overcommit", DOCTOR_OK, "overcommit_memory %llu%s",
                   (unsigned long long)m->overcommit,
                   m->overcommit < 2 ? "" : ", and all that is available may be promised");
        return;
    }
    struct finding *row =
        doctor_add(d, "overcommit", DOCTOR_WRONG,
                   "overcommit_memory 2: %s may still be promised, %s are there",
                   doctor_size(left).text, doctor_size(f->pool.host.available_bytes).text);
    doctor_costs(row, "The kernel refuses memory that is there, since other programs were promised "
                      "some that they do not use. A model that was planned fails while it is "
                      "loaded.");
    doctor_type_sysctl(row, "vm.overcommit_memory", 0);
}

static void judge_huge_pages(const struct facts *f, struct doctor *d)
{
    const struct facts_memory *m = &f->memory;
    static const char *const file = "/sys/kernel/mm/transparent_hugepage";
    if (m->huge[0] == '\0') {
        doctor_add(d, "huge pages", DOCTOR_UNKNOWN,
                   "this kernel has no transparent huge pages, or hides them");
        return;
    }
    const bool is_off = strcmp(m->huge, "never") == 0;
    const bool is_lazy = strcmp(m->defrag, "never") == 0 || strcmp(m->defrag, "defer") == 0;
    struct finding *row = doctor_add(d, "huge pages",
                                     is_off    ? DOCTOR_WRONG
                                     : is_lazy ? DOCTOR_NOTE
                                               : DOCTOR_OK,
                                     "transparent huge pages %s, defrag %s", m->huge,
                                     m->defrag[0] != '\0' ? m->defrag : "is not told");
    const char *name = is_off ? "enabled" : "defrag";
    if (is_off || is_lazy) {
        doctor_costs(row, is_off
                              ? "Weights lie in pages of 4 KiB instead of 2 MiB: the processor "
                                "looks up 512 times as many of them for each token, loading "
                                "takes longer, and so does reading a model from the disk."
                              : "Where memory is in small pieces the kernel does not join them "
                                "for a model: parts of the weights get pages of 4 KiB, and which "
                                "differs from start to start.");
        doctor_type(row, "echo madvise | sudo tee %s/%s", file, name);
        doctor_type(row,
                    "echo 'w %s/%s - - - - madvise' | sudo tee -a /etc/tmpfiles.d/hearth.conf  "
                    "# for each start",
                    file, name);
        row->is_of_box = true;
    }
}

static void judge_waiting(const struct facts *f, struct doctor *d)
{
    const struct psi *p = &f->memory.psi;
    const bool is_group = p->group.is_told && p->group.some_percent > p->box.some_percent;
    const double percent = is_group ? p->group.some_percent : p->box.some_percent;
    if (!p->box.is_told && !p->group.is_told) {
        doctor_add(d, "memory pressure", DOCTOR_UNKNOWN,
                   "not told (psi=1 on the kernel's command line)");
        return;
    }
    const bool is_much = percent >= WAITS_MUCH;
    struct finding *row = doctor_add(d, "memory pressure", is_much ? DOCTOR_NOTE : DOCTOR_OK,
                                     "programs%s waited for it %.0f %% of the last 10 s",
                                     is_group ? " of this cgroup" : "", percent);
    if (is_much) {
        doctor_costs(row,
                     "Programs here read back what they were made to give up, and answers wait "
                     "with them; hearth serve takes nothing new when it gets worse.");
        put_processes(&f->memory, row);
    }
}

void doctor_memory(const struct facts *f, struct doctor *d)
{
    judge_available(f, d);
    judge_lost(f, d);
    judge_gpus(f, d);
    judge_cma(f, d);
    judge_pools(f, d);
    judge_others(f, d);
    judge_group(f, d);
    judge_address(f, d);
    judge_locked(f, d);
    judge_swap(f, d);
    judge_overcommit(f, d);
    judge_huge_pages(f, d);
    judge_waiting(f, d);
}
