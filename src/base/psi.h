/* psi - whether programs wait for memory, and how much is left (base/psi.c)
 *
 * Of this box and of the cgroups of this process. `root` stands before /proc and /sys, "" for this
 * box. Safe from any thread; takes no memory. */
#ifndef HEARTH_PSI_H
#define HEARTH_PSI_H

#include <stdbool.h>
#include <stdint.h>

/* The box; or of the cgroups above this process the one with the least left of its limit. */
struct psi_scope {
    bool is_told;         /* the kernel tells how long programs waited */
    double some_percent;  /* of the last 10 s in which some program waited for memory */
    double full_percent;  /* in which all waited that had something to do */
    uint64_t full_us;     /* since the start of the box, or of the cgroup */
    uint64_t left_bytes;  /* that can be had: page cache counts as free. UINT64_MAX: not told */
    uint64_t limit_bytes; /* of how many. UINT64_MAX: no limit */
};

struct psi {
    struct psi_scope box;
    struct psi_scope group;
};

void psi_read(struct psi *out, const char *root);
/* What a text of the kernel's says; false, and *out is untouched, when it is none. */
bool psi_parse(const char *text, struct psi_scope *out);

#endif
