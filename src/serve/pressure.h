/* pressure - whether others eat the memory, and what follows (serve/pressure.c)
 *
 * A function of samples and times alone. Owner: the loop thread.
 * PS-1  requests are refused only after a sample with little memory left, and never before a
 *       warning that is PRESSURE_WARN_US old.
 * PS-2  once nothing presses for PRESSURE_EASE_US, requests are taken again. */
#ifndef HEARTH_PRESSURE_H
#define HEARTH_PRESSURE_H

#include "base/psi.h"

#include <stdbool.h>
#include <stdint.h>

#define PRESSURE_TEXT_BYTES 256
#define PRESSURE_WARN_US    2000000  /* from the warning on, at least, until requests are refused */
#define PRESSURE_EASE_US    10000000 /* without pressure, before a state is left */
#define PRESSURE_SETTLE_US  30000000 /* from the begin of the watch: loading presses by itself */

enum pressure_state { PRESSURE_CALM, PRESSURE_WARNED, PRESSURE_SHEDDING };

struct pressure {
    enum pressure_state state;
    uint64_t image_bytes;
    uint64_t begin_us;
    uint64_t warned_us; /* when the warning began */
    uint64_t hard_us;   /* of the last sample that keeps requests refused */
    uint64_t loud_us;   /* of the last one that keeps the warning */
    uint64_t n_warning; /* times */
    uint64_t n_shedding;
    bool is_group;                  /* what was short last: the cgroup's memory, not the box's */
    struct psi last;                /* what is left is beside the image */
    char text[PRESSURE_TEXT_BYTES]; /* of the last sample: what is short, with numbers */
};

/* image_bytes: of a file that the model is mapped from and cannot be without; 0: none. */
void pressure_begin(struct pressure *p, uint64_t image_bytes, uint64_t now_us);
/* Takes a sample, about one a second; true when the state changed. */
bool pressure_step(struct pressure *p, const struct psi *sample, uint64_t now_us);

#endif
