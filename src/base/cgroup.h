/* cgroup - what the control groups of this process leave and grant (base/cgroup.c)
 *
 * Versions 1 and 2, all ancestors. `root` stands before /proc and /sys: "" for this box, else a
 * folder with a copy of what matters there. Safe from any thread. */
#ifndef HEARTH_CGROUP_H
#define HEARTH_CGROUP_H

#include <stddef.h>
#include <stdint.h>

/* What this process has already of what it may have. */
struct cgroup_held {
    uint64_t own_bytes;   /* memory that no file stands behind, and code */
    uint64_t image_bytes; /* mapped pages of other files */
};
/* Another process, which will have so much in all. */
struct cgroup_claim {
    uint64_t pid;
    uint64_t plan_bytes;
    uint64_t own_bytes;    /* has: memory that no file stands behind */
    uint64_t file_bytes;   /* has: mapped pages of files */
    uint64_t shared_bytes; /* of plan and files: pages that are in another claim, or in our plan */
    uint64_t ours_bytes;   /* of these: in our plan */
};

/* Bytes that this process may have in all: the least that a group leaves beside what others in it
 * have and claim[n_claim] will have; at most its limit. UINT64_MAX: no limit; else *name (may be
 * NULL) gets static text that says which it is. */
uint64_t cgroup_memory(const char *root, const struct cgroup_held *held,
                       const struct cgroup_claim *claims, int n_claim, const char **name);
/* Of the group that has least left of its limit: bytes left, all page cache counted as free, the
 * limit, and its memory.pressure, as os_read_start. Both UINT64_MAX: no limit, and the pressure of
 * the nearest group that tells any. That of the box's root is the box's and told for no group. */
size_t cgroup_room(const char *root, uint64_t *left_bytes, uint64_t *limit_bytes, char *pressure,
                   size_t room);
/* Bytes of swap that a process may have, in use or not; UINT64_MAX: no limit. */
uint64_t cgroup_swap(const char *root);
/* Cores that are granted, rounded up; UINT32_MAX when unlimited. */
uint32_t cgroup_cores(const char *root);
/* Threads that may begin yet: the least that a group leaves; UINT64_MAX when unlimited. */
uint64_t cgroup_threads(const char *root);

#endif
