/* pool - memory that this process may have
 *
 * Memory that may still be taken is the least of what the kernel thinks is available and what each
 * cgroup from ours up to the root leaves.
 *
 * Next: engine/plan.c. */
#include "base/pool.h"

#include "base/cgroup.h"
#include "base/os.h"

#include <stddef.h>
#include <sys/sysinfo.h>

/* What the kernel thinks can be taken. Where /proc is hidden (a sandbox): what is wholly free, as
 * the kernel tells that without a file. It is less, as no page cache counts, but no invented 0. */
static uint64_t box_memory(const char *meminfo, const char **name)
{
    const uint64_t kb = os_number_after(meminfo, "MemAvailable");
    struct sysinfo s = { 0 };
    if (kb != UINT64_MAX) {
        *name = "memory available on this box";
        return kb * 1024;
    }
    *name = "free memory only: MemAvailable in /proc/meminfo cannot be read";
    return sysinfo(&s) == 0 ? (uint64_t)s.freeram * s.mem_unit : 0;
}

uint64_t pool_available(const char **limit_name)
{
    const char *name = NULL;
    const uint64_t held = os_rss_bytes();
    const uint64_t box = box_memory("/proc/meminfo", &name) + held;
    const uint64_t group = cgroup_memory("", held);
    if (limit_name != NULL) {
        *limit_name = group < box ? "the cgroup's memory limit" : name;
    }
    return group < box ? group : box;
}
