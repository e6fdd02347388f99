/* event - a descriptor that one thread sets and another one polls (base/event.c) */
#ifndef HEARTH_EVENT_H
#define HEARTH_EVENT_H

#include "base/err.h"

enum err event_open(int *fd) MUST_USE; /* gives a descriptor */
void event_close(int fd);              /* accepts -1 */
void event_set(int fd);                /* polls readable from now on; any thread, never blocks */
void event_clear(int fd);

#endif
