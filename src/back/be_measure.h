/* be_measure - the backend that computes nothing (back/be_measure.c)
 *
 * Adds up the memory traffic of the operations it is given, and takes the same workspace as be_cpu
 * from a counting arena. Owner: the thread that plans. */
#ifndef HEARTH_BE_MEASURE_H
#define HEARTH_BE_MEASURE_H

#include "back/backend.h"

struct be_measure {
    struct back back;      /* first */
    int32_t n_worker;      /* of the team that will do the work: cuts depend on it */
    uint64_t weight_bytes; /* read */
    uint64_t kv_bytes;     /* read and written */
    uint64_t product_ops;  /* multiplications and additions of products with weights */
};

/* `step` must be a counting arena. */
void be_measure_init(struct be_measure *m, struct arena *step, int32_t n_worker);

#endif
