/* once - a function that runs once in the life of the process (header only)
 *
 * For tables that are made at first use and never change afterwards. Whoever comes while another
 * thread makes them waits; what the function wrote is seen by all who return from once_run. */
#ifndef HEARTH_ONCE_H
#define HEARTH_ONCE_H

#include <pthread.h>

struct once {
    pthread_once_t state;
};

#define ONCE_INIT { PTHREAD_ONCE_INIT }

static inline void once_run(struct once *o, void (*fn)(void))
{
    pthread_once(&o->state, fn);
}

#endif
