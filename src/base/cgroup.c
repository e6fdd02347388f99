/* cgroup - what the control groups of this process leave and grant
 *
 * /proc/self/cgroup has one line for each hierarchy, "id:controllers:path"; version 2 has id 0 and
 * no controllers. Within a container the path may lie outside what is mounted; then its own folder
 * does not exist here and the root of the mount holds the container's limit, so the walk from our
 * group to the root reads each folder that is there, and the least of them holds.
 *
 * In a container the memory of the box says nothing: taking it for one's own is how estimates end
 * in the OOM killer.
 *
 * Next: base/pool.c, which compares this with what the box has. */
#include "base/cgroup.h"

#include "base/os.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS_BYTES                                                                               \
    16384 /* of /proc/self/cgroup; a path that is cut is not there, its ancestors are */

/* What one folder leaves or grants; UINT64_MAX when it sets no limit. held: bytes of memory that
 * this process has already. */
typedef uint64_t (*group_fn)(const char *folder, uint64_t held);

/* What is looked for, and where. */
struct walk {
    const char *top;  /* of the mounted tree */
    const char *word; /* version 1: name of the controller */
    group_fn v2;
    group_fn v1;
    uint64_t held;
};

/* Limit less use, and what is held already; page cache that the kernel can drop at once counts as
 * free. Pages of files that a process holds may be charged to another group: all together is never
 * more than the limit. */
static uint64_t memory_of(const char *folder, const char *limit_file, const char *usage_file,
                          uint64_t held)
{
    const uint64_t limit = os_number_in(folder, limit_file, NULL);
    if (limit > UINT64_MAX / 4) {
        return UINT64_MAX;
    }
    const uint64_t usage = os_number_in(folder, usage_file, NULL);
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    /* the use counts the groups below; version 1 has a line of its own for the same sum */
    uint64_t cache = os_number_after(path, "total_inactive_file");
    cache = cache == UINT64_MAX ? os_number_after(path, "inactive_file") : cache;
    cache = cache == UINT64_MAX ? 0 : cache;
    const uint64_t used = usage == UINT64_MAX || usage < cache ? 0 : usage - cache;
    const uint64_t left = used < limit ? limit - used : 0;
    return held < limit - left ? left + held : limit;
}

static uint64_t memory_v2(const char *folder, uint64_t held)
{
    return memory_of(folder, "memory.max", "memory.current", held);
}

static uint64_t memory_v1(const char *folder, uint64_t held)
{
    return memory_of(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", held);
}

static uint64_t swap_v2(const char *folder, uint64_t held)
{
    (void)held;
    return os_number_in(folder, "memory.swap.max", NULL);
}

/* Version 1 limits memory and swap together. */
static uint64_t swap_v1(const char *folder, uint64_t held)
{
    (void)held;
    const uint64_t both = os_number_in(folder, "memory.memsw.limit_in_bytes", NULL);
    const uint64_t memory = os_number_in(folder, "memory.limit_in_bytes", NULL);
    return both > UINT64_MAX / 4 ? UINT64_MAX : memory < both ? both - memory : 0;
}

/* Rounded up: a share of a core still needs one thread. */
static uint64_t cores(uint64_t quota, uint64_t period)
{
    const bool is_limited = quota != UINT64_MAX && period != UINT64_MAX && period > 0;
    return is_limited ? quota / period + (quota % period > 0) : UINT64_MAX;
}

static uint64_t cores_v2(const char *folder, uint64_t held)
{
    (void)held;
    uint64_t period = 0;
    const uint64_t quota = os_number_in(folder, "cpu.max", &period);
    return cores(quota, period);
}

static uint64_t cores_v1(const char *folder, uint64_t held)
{
    (void)held;
    return cores(os_number_in(folder, "cpu.cfs_quota_us", NULL), /* "-1": unlimited */
                 os_number_in(folder, "cpu.cfs_period_us", NULL));
}

/* The least of fn over the group's folder below `root` and its ancestors up to `root`. */
static uint64_t least_of(group_fn fn, const char *root, const char *group, uint64_t held)
{
    char folder[OS_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s%s", root, group);
    uint64_t least = UINT64_MAX;
    for (;;) {
        const uint64_t v = fn(folder, held);
        least = v < least ? v : least;
        char *slash = strrchr(folder, '/');
        if (slash == NULL || strlen(folder) <= strlen(root)) {
            return least;
        }
        *slash = '\0';
    }
}

/* Whether a comma-separated list has the word. */
static bool has_word(const char *list, const char *word)
{
    const size_t n = strlen(word);
    for (const char *p = list; p != NULL; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, word, n) == 0 && (p[n] == ',' || p[n] == '\0')) {
            return true;
        }
    }
    return false;
}

/* One line of /proc/self/cgroup, taken apart in place. */
static uint64_t least_of_line(char *line, const struct walk *w)
{
    char *list = strchr(line, ':');
    char *group = list != NULL ? strchr(list + 1, ':') : NULL;
    if (group == NULL) {
        return UINT64_MAX;
    }
    *list++ = '\0';
    *group++ = '\0';
    if (*list == '\0') {
        return least_of(w->v2, w->top, group, w->held);
    }
    if (!has_word(list, w->word)) {
        return UINT64_MAX;
    }
    char root[OS_PATH_BYTES];
    snprintf(root, sizeof root, "%s/%s", w->top,
             w->word); /* "cpu" links to "cpu,cpuacct" and so on */
    return least_of(w->v1, root, group, w->held);
}

/* The least over all hierarchies that the text of /proc/self/cgroup (changed here) names. */
static uint64_t least_of_all(char *text, const struct walk *w)
{
    uint64_t least = UINT64_MAX;
    for (char *line = text; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        const uint64_t v = least_of_line(line, w);
        least = v < least ? v : least;
        line = end != NULL ? end + 1 : NULL;
    }
    return least;
}

/* The least over the groups of this process. */
static uint64_t least_of_ours(const char *root, const char *word, group_fn v2, group_fn v1,
                              uint64_t held)
{
    char path[OS_PATH_BYTES];
    char top[OS_PATH_BYTES / 2];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    snprintf(top, sizeof top, "%s/sys/fs/cgroup", root);
    const struct walk w = { top, word, v2, v1, held };
    char text[GROUPS_BYTES];
    const size_t n = os_read_start(path, text, sizeof text);
    return n > 0 ? least_of_all(text, &w) : UINT64_MAX;
}

uint64_t cgroup_memory(const char *root, uint64_t held_bytes)
{
    return least_of_ours(root, "memory", memory_v2, memory_v1, held_bytes);
}

uint64_t cgroup_swap(const char *root)
{
    return least_of_ours(root, "memory", swap_v2, swap_v1, 0);
}

uint32_t cgroup_cores(const char *root)
{
    const uint64_t n = least_of_ours(root, "cpu", cores_v2, cores_v1, 0);
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}
