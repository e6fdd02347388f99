/* be_cpu - the backend that computes on the processor (back/be_cpu.c)
 *
 * Splits each operation over the team and calls the kernels. Small operations run on the calling
 * thread alone: waking the others costs more than they would save.
 * BC-1  how work is split never changes a bit of the result (kern.h, KE-2).
 * BC-2  no operation takes more than BE_CPU_STACK_BYTES of a worker's stack. */
#ifndef HEARTH_BE_CPU_H
#define HEARTH_BE_CPU_H

#include "back/backend.h"
#include "base/team.h"

#define BE_CPU_STACK_BYTES (128u << 10) /* a line of the plan, per worker */

struct be_cpu {
    struct back back;              /* first */
    struct team *team;             /* borrows */
    const struct kern_table *kern; /* static */
};

/* `step` must have the room that be_measure counted. Owner: the engine thread (worker 0). */
void be_cpu_init(struct be_cpu *c, struct arena *step, struct team *team,
                 const struct kern_table *kern);

#endif
