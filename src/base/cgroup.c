/* cgroup - what the control groups of this process leave and grant
 *
 * /proc/self/cgroup has one line for each hierarchy, "id:controllers:path"; version 2 has id 0 and
 * no controllers. Within a container the path may lie outside what is mounted; then its own folder
 * does not exist here and the root of the mount holds the container's limit, so the walk from our
 * group to the root reads each folder that is there, and the least of them holds.
 *
 * In a container the memory of the box says nothing: taking it for one's own is how estimates end
 * in the OOM killer. Version 2 has two limits, memory.max, where it kills, and memory.high, above
 * which it makes whoever asks for memory wait, ever longer: nothing works there, so the lower one
 * counts.
 *
 * What a group leaves. Its use has the memory of all processes in it and below, and page cache,
 * pages of mapped files with it. The kernel has two lists of the latter, and drops what is on the
 * inactive one when memory is wanted, so those count as free. Mapped pages lie there, too, until
 * somebody looks for memory and finds them in use. So a process that holds n bytes of mapped pages
 * has n less the inactive ones in the use, if not more: that much is surely counted, and neither
 * promised twice nor refused for nothing. Code is taken as used: it is a few MB, which every plan
 * has, and often charged to whoever read it first, elsewhere.
 *
 * Others below the same folder (a sibling, a child) take from the same limit, whatever group they
 * are in: what they have planned and do not have yet goes off at each folder above them.
 *
 * Next: base/claim.c, which finds these others; base/pool.c, which compares this with the box. */
#include "base/cgroup.h"

#include "base/figure.h"
#include "base/os.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS_BYTES                                                                               \
    16384 /* of /proc/self/cgroup; a path that is cut is not there, its ancestors are */
#define STAT_BYTES 8192 /* of memory.stat */

/* One folder on the way from our group to the root of its hierarchy. */
struct level {
    const char *folder;
    const char *group; /* the part of it that /proc/PID/cgroup says */
    bool is_v2;
};
/* false: the walk ends here. */
typedef bool (*level_fn)(void *arg, const struct level *l);

/* --- the walk ------------------------------------------------------------------------------ */

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

/* Takes the next line off a text of /proc/PID/cgroup, in place. NULL: there is none; *group is NULL
 * when the line is not of this controller (version 2: of none). */
static char *next_line(char *line, const char *word, const char **group, bool *is_v2)
{
    char *end = strchr(line, '\n');
    if (end != NULL) {
        *end = '\0';
    }
    char *list = strchr(line, ':');
    char *path = list != NULL ? strchr(list + 1, ':') : NULL;
    *group = NULL;
    if (path != NULL && (path[1] == '/' || path[1] == '\0')) {
        *path++ = '\0';
        list++;
        *is_v2 = *list == '\0';
        *group = *is_v2 || has_word(list, word) ? path : NULL;
    }
    return end != NULL && end[1] != '\0' ? end + 1 : NULL;
}

/* The group's folder below `mount` and its ancestors up to `mount`. */
static bool walk_up(const char *mount, const char *group, bool is_v2, level_fn fn, void *arg)
{
    char folder[OS_PATH_BYTES - 128]; /* and a file in it */
    const size_t n_mount = strlen(mount);
    snprintf(folder, sizeof folder, "%s%s", mount, group);
    for (;;) {
        const struct level l = { folder, folder + n_mount, is_v2 };
        if (!fn(arg, &l)) {
            return false;
        }
        char *slash = strrchr(folder, '/');
        if (slash == NULL || strlen(folder) <= n_mount) {
            return true;
        }
        *slash = '\0';
    }
}

/* All folders above this process, of each hierarchy that knows the controller. Where both versions
 * are mounted, the second lies a folder deeper. */
static void walk_ours(const char *root, const char *word, level_fn fn, void *arg)
{
    char path[OS_PATH_BYTES];
    char text[GROUPS_BYTES];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    bool goes_on = true;
    char *line = os_read_start(path, text, sizeof text) > 0 ? text : NULL;
    while (line != NULL && goes_on) {
        const char *group = NULL;
        bool is_v2 = false;
        line = next_line(line, word, &group, &is_v2);
        if (group == NULL) {
            continue;
        }
        char mount[OS_PATH_BYTES / 2];
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s%s", root, is_v2 ? "" : "/",
                 is_v2 ? "" : word); /* "cpu" links to "cpu,cpuacct" and so on */
        goes_on = walk_up(mount, group, is_v2, fn, arg);
        if (is_v2 && goes_on) {
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/unified", root);
            goes_on = !os_exists(mount) || walk_up(mount, group, is_v2, fn, arg);
        }
    }
}

/* Whether a process is in this group or below it. */
static bool is_below(const char *root, uint64_t pid, const struct level *l)
{
    char path[OS_PATH_BYTES];
    char text[GROUPS_BYTES];
    size_t n = strlen(l->group);
    n -= n > 0 && l->group[n - 1] == '/' ? 1 : 0;
    snprintf(path, sizeof path, "%s/proc/%llu/cgroup", root, (unsigned long long)pid);
    char *line = os_read_start(path, text, sizeof text) > 0 ? text : NULL;
    while (line != NULL) {
        const char *group = NULL;
        bool is_v2 = false;
        line = next_line(line, "memory", &group, &is_v2);
        if (group != NULL && is_v2 == l->is_v2) { /* "/../x": outside what we see */
            return strncmp(group, "/..", 3) != 0 && strncmp(group, l->group, n) == 0 &&
                   (group[n] == '/' || group[n] == '\0');
        }
    }
    return false;
}

/* --- memory -------------------------------------------------------------------------------- */

/* Of one folder. */
struct use {
    uint64_t limit; /* UINT64_MAX: none */
    uint64_t used;  /* page cache included */
    uint64_t inactive;
    uint64_t active;
    const char *name;
};

/* The use counts the groups below; version 1 has lines of their own for the same sums of cache. */
static uint64_t cache_of(const char *stat, const char *total, const char *own)
{
    const uint64_t n = os_number_of(stat, total);
    return figure_known(n != UINT64_MAX ? n : os_number_of(stat, own));
}

static struct use read_use(const struct level *l)
{
    const uint64_t max =
        os_number_in(l->folder, l->is_v2 ? "memory.max" : "memory.limit_in_bytes", NULL);
    const uint64_t high = l->is_v2 ? os_number_in(l->folder, "memory.high", NULL) : UINT64_MAX;
    struct use u = { .limit = high < max ? high : max,
                     .name = high < max ? "the cgroup's memory.high, above which programs wait"
                                        : "the cgroup's memory limit" };
    if (u.limit > UINT64_MAX / 4) {
        u.limit = UINT64_MAX;
        return u;
    }
    char path[OS_PATH_BYTES];
    char stat[STAT_BYTES];
    u.used = figure_known(
        os_number_in(l->folder, l->is_v2 ? "memory.current" : "memory.usage_in_bytes", NULL));
    snprintf(path, sizeof path, "%s/memory.stat", l->folder);
    (void)os_read_start(path, stat, sizeof stat); /* once: the kernel may sum up over all cores */
    u.inactive = cache_of(stat, "total_inactive_file", "inactive_file");
    u.active = cache_of(stat, "total_active_file", "active_file");
    u.inactive = u.inactive < u.used ? u.inactive : u.used; /* it was read at another moment */
    return u;
}

struct memory {
    const char *root;
    const struct cgroup_held *held;
    const struct cgroup_claim *claims;
    int n_claim;
    uint64_t least;
    const char *name;
};

/* What one will take of what the folder leaves. Pages that we share with it are no claim of its
 * own; those of them that are in the use are ours, too. */
static uint64_t claimed(const struct cgroup_claim *c, const struct use *u, uint64_t *ours)
{
    *ours = figure_less(c->ours_bytes < c->file_bytes ? c->ours_bytes : c->file_bytes, u->inactive);
    return figure_less(figure_less(c->plan_bytes, c->shared_bytes),
                       c->own_bytes +
                           figure_less(figure_less(c->file_bytes, c->shared_bytes), u->inactive));
}

static bool memory_at(void *arg, const struct level *l)
{
    struct memory *m = arg;
    const struct use u = read_use(l);
    if (u.limit == UINT64_MAX) {
        return true;
    }
    uint64_t may = figure_less(u.limit, u.used - u.inactive);
    uint64_t images = figure_less(m->held->image_bytes, u.inactive);
    uint64_t others = 0;
    for (int i = 0; i < m->n_claim; i++) {
        uint64_t ours = 0;
        if (is_below(m->root, m->claims[i].pid, l)) {
            others += claimed(&m->claims[i], &u, &ours);
            images = ours > images ? ours : images;
        }
    }
    const uint64_t held = m->held->own_bytes + images;
    may = held < u.limit - may ? may + held : u.limit;
    may = figure_less(may, others);
    if (may < m->least) {
        m->least = may;
        m->name = u.name;
    }
    return true;
}

uint64_t cgroup_memory(const char *root, const struct cgroup_held *held,
                       const struct cgroup_claim *claims, int n_claim, const char **name)
{
    struct memory m = { root, held, claims, n_claim, UINT64_MAX, NULL };
    walk_ours(root, "memory", memory_at, &m);
    if (name != NULL && m.name != NULL) {
        *name = m.name;
    }
    return m.least;
}

/* The folder that is judged; without any limit the nearest one that tells pressure. */
struct room {
    uint64_t left;
    uint64_t limit;
    char folder[OS_PATH_BYTES - 128];
};

/* The root of a box has the box's pressure; that of a container has limits. */
static bool has_pressure(const struct level *l)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/memory.pressure", l->folder);
    const bool is_root = l->group[0] == '\0' || strcmp(l->group, "/") == 0;
    bool is_told = os_exists(path);
    if (is_told && is_root) {
        snprintf(path, sizeof path, "%s/memory.max", l->folder);
        is_told = os_exists(path);
    }
    return is_told;
}

static bool room_at(void *arg, const struct level *l)
{
    struct room *r = arg;
    const struct use u = read_use(l);
    const uint64_t left = figure_less(u.limit, figure_less(u.used, u.inactive + u.active));
    const bool is_least = r->limit == UINT64_MAX ||
                          (double)left / (double)u.limit < (double)r->left / (double)r->limit;
    if (u.limit != UINT64_MAX && u.limit > 0 && is_least) {
        r->left = left;
        r->limit = u.limit;
        snprintf(r->folder, sizeof r->folder, "%s", l->folder);
    } else if (r->folder[0] == '\0' && has_pressure(l)) {
        snprintf(r->folder, sizeof r->folder, "%s", l->folder);
    }
    return true;
}

size_t cgroup_room(const char *root, uint64_t *left_bytes, uint64_t *limit_bytes, char *pressure,
                   size_t room)
{
    struct room r = { UINT64_MAX, UINT64_MAX, "" };
    char path[OS_PATH_BYTES];
    walk_ours(root, "memory", room_at, &r);
    *left_bytes = r.left;
    *limit_bytes = r.limit;
    pressure[0] = '\0';
    snprintf(path, sizeof path, "%s/memory.pressure", r.folder);
    return r.folder[0] != '\0' ? os_read_start(path, pressure, room) : 0;
}

/* --- swap ----------------------------------------------------------------------------------- */

/* Version 1 limits memory and swap together. */
static bool swap_at(void *arg, const struct level *l)
{
    uint64_t *least = arg;
    uint64_t swap = UINT64_MAX;
    if (l->is_v2) {
        swap = os_number_in(l->folder, "memory.swap.max", NULL);
    } else {
        const uint64_t both = os_number_in(l->folder, "memory.memsw.limit_in_bytes", NULL);
        const uint64_t memory = os_number_in(l->folder, "memory.limit_in_bytes", NULL);
        swap = both > UINT64_MAX / 4 ? UINT64_MAX : memory < both ? both - memory : 0;
    }
    *least = swap < *least ? swap : *least;
    return true;
}

uint64_t cgroup_swap(const char *root)
{
    uint64_t n = UINT64_MAX;
    walk_ours(root, "memory", swap_at, &n);
    return n;
}

/* --- cores ---------------------------------------------------------------------------------- */

/* Rounded up: a share of a core still needs one thread. */
static uint64_t cores(uint64_t quota, uint64_t period)
{
    const bool is_limited = quota != UINT64_MAX && period != UINT64_MAX && period > 0;
    return is_limited ? quota / period + (quota % period > 0) : UINT64_MAX;
}

static bool cores_at(void *arg, const struct level *l)
{
    uint64_t *least = arg;
    uint64_t period = 0;
    uint64_t quota = UINT64_MAX;
    if (l->is_v2) {
        quota = os_number_in(l->folder, "cpu.max", &period);
    } else { /* "-1": unlimited */
        quota = os_number_in(l->folder, "cpu.cfs_quota_us", NULL);
        period = os_number_in(l->folder, "cpu.cfs_period_us", NULL);
    }
    const uint64_t n = cores(quota, period);
    *least = n < *least ? n : *least;
    return true;
}

uint32_t cgroup_cores(const char *root)
{
    uint64_t n = UINT64_MAX;
    walk_ours(root, "cpu", cores_at, &n);
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

/* --- threads -------------------------------------------------------------------------------- */

static bool threads_at(void *arg, const struct level *l)
{
    uint64_t *least = arg;
    const uint64_t most = os_number_in(l->folder, "pids.max", NULL);
    const uint64_t now = os_number_in(l->folder, "pids.current", NULL);
    if (most != UINT64_MAX) {
        const uint64_t left = now == UINT64_MAX ? most : now < most ? most - now : 0;
        *least = left < *least ? left : *least;
    }
    return true;
}

uint64_t cgroup_threads(const char *root)
{
    uint64_t n = UINT64_MAX;
    walk_ours(root, "pids", threads_at, &n);
    return n;
}
