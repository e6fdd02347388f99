/* cgroup - what the control groups of this process leave and grant (base/cgroup.c)
 *
 * Versions 1 and 2, all ancestors. `root` stands before /proc and /sys: "" for this box, else a
 * folder with a copy of what matters there. Safe from any thread. */
#ifndef HEARTH_CGROUP_H
#define HEARTH_CGROUP_H

#include <stdint.h>

/* Bytes that a process may have that holds so many of them already: at most the limits. UINT64_MAX:
 * no limit. */
uint64_t cgroup_memory(const char *root, uint64_t held_bytes);
/* Bytes of swap that a process may have, in use or not; UINT64_MAX: no limit. */
uint64_t cgroup_swap(const char *root);
/* Cores that are granted, rounded up; UINT32_MAX when unlimited. */
uint32_t cgroup_cores(const char *root);

#endif
