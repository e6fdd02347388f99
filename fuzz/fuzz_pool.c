/* fuzz_pool - arbitrary bytes as the files below /proc and /sys that tell of memory and who waits for it, and as a plan of another
 * process
 *
 * The input is cut into files by fuzz_tree.h, but for its first byte, which chooses whether the last file is a living process's
 * plan. Whatever they say, the figures hold together (PO-1 as far as it can be seen from outside). */
#include "base/claim.h"
#include "base/pool.h"
#include "base/psi.h"
#include "fuzz_tree.h"
#include "serve/pressure.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

static const char *const names[] = {
    "proc/meminfo",
    "proc/self/cgroup",
    "proc/self/status",
    "proc/self/limits",
    "sys/fs/cgroup/memory.max",
    "sys/fs/cgroup/memory.current",
    "sys/fs/cgroup/memory.stat",
    "sys/fs/cgroup/memory/memory.limit_in_bytes",
    "sys/fs/cgroup/memory/memory.usage_in_bytes",
    "sys/class/drm/card1/device/vendor",
    "sys/class/drm/card1/device/mem_info_vram_total",
    "sys/class/drm/card1/device/mem_info_vram_used",
    "sys/class/drm/card1/device/mem_info_vram_vendor",
    "sys/class/drm/card1/device/mem_info_gtt_total",
    "sys/class/drm/card1/device/mem_info_gtt_used",
    "sys/module/ttm/parameters/pages_limit",
    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
    "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
    "sys/fs/cgroup/memory.high",
    "sys/fs/cgroup/memory.pressure",
    "proc/pressure/memory",
    "proc/7/cgroup",
    "claims/plan-1",
};
#define N_NAME (sizeof names / sizeof names[0])

static void check(const struct pool *p)
{
    const struct pool_host *h = &p->host;
    demand(h->limit != NULL && h->limit[0] != '\0', "what the limit is");
    demand(h->available_bytes <= h->total_bytes && h->available_bytes <= h->group_bytes,
           "no more than there is");
    demand(h->available_bytes <= h->kernel_bytes + h->held_bytes, "no more than the kernel gives");
    demand(p->n_gpu <= 1, "one card at most");
    for (int i = 0; i < p->n_gpu; i++) {
        const struct pool_gpu *g = &p->gpu[i];
        demand(g->free_bytes <= g->total_bytes, "no more free than there is");
        demand(g->map_bytes <= h->available_bytes, "no more mapped than the host has");
        demand(g->is_told || g->total_bytes == 0, "what is not told is nothing");
    }
}

/* Another process takes something away, or nothing. */
static void check_claim(void)
{
    const struct cgroup_held held = { 5000000, 1000000 };
    const struct cgroup_claim c = { 7, 9000000, 1000000, 2000000, 1000000, 500000 };
    const uint64_t alone = cgroup_memory(top, &held, NULL, 0, NULL);
    const uint64_t beside = cgroup_memory(top, &held, &c, 1, NULL);
    demand(beside <= alone || beside <= alone + c.ours_bytes, "a claim leaves no more");
    demand((alone == UINT64_MAX) == (beside == UINT64_MAX), "a claim is no limit");
}

static void check_scope(const struct psi_scope *s)
{
    demand(s->some_percent >= 0.0 && s->some_percent <= 100.0, "a share of the time");
    demand(s->full_percent >= 0.0 && s->full_percent <= 100.0, "another share of the time");
    demand(s->is_told || s->full_us == 0, "what is not told is nothing");
}

static void check_pressure(void)
{
    struct psi s;
    struct pressure p;
    psi_read(&s, top);
    check_scope(&s.box);
    check_scope(&s.group);
    demand(s.group.left_bytes <= s.group.limit_bytes, "no more left than the limit");
    pressure_begin(&p, (uint64_t)1 << 20, 0);
    for (uint64_t now_us = 0; now_us < 2 * PRESSURE_SETTLE_US; now_us += 1000000) {
        (void)pressure_step(&p, &s, now_us);
        demand(p.state != PRESSURE_SHEDDING || now_us >= PRESSURE_SETTLE_US, "not too early");
    }
    demand(memchr(p.text, '\0', sizeof p.text) != NULL, "a text that ends");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char claims[64];
    char path[256];
    int locked = -1;
    const size_t at = n > 0 ? 1 : 0;
    tree_put(names, N_NAME, true, bytes + at, n - at);
    snprintf(claims, sizeof claims, "%s/claims", top);
    snprintf(path, sizeof path, "%s/%s", top, names[N_NAME - 1]);
    if (n > 0 && (bytes[0] & 1) != 0 && os_exists(path)) {
        locked = open(path, O_RDONLY | O_CLOEXEC);
        demand(locked >= 0 && flock(locked, LOCK_EX) == 0, "a lock");
    }
    const struct fuzz_run run = fuzz_begin();
    struct pool p;
    pool_read(&p, top, claims, NULL);
    check(&p);
    check_claim();
    check_pressure();
    demand(locked >= 0 || p.host.other_bytes == 0, "a dead process has no plan");
    fuzz_end(run);
    if (locked >= 0) {
        close(locked);
    }
    return 0;
}
