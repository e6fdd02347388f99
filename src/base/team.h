/* team - worker threads that run one function together, and bounded queues (base/team.c)
 *
 * The caller of team_run is worker 0; the others wait for a job by spinning for some microseconds
 * and then sleeping on a futex. A worker whose core is busy elsewhere is not waited for.
 * TE-1  team_run returns after every worker that entered fn has left it; none touches arg later.
 * TE-2  workers allocate nothing.
 * TE-3  team_share computes each item exactly once, whoever comes and however late. */
#ifndef HEARTH_TEAM_H
#define HEARTH_TEAM_H

#include "base/err.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct team;

#define TEAM_STACK_BYTES (512u * 1024u) /* per thread; stands in the plan */

/* Starts n_worker - 1 threads, 1..1024 workers: the caller is the first. ERR_USAGE, ERR_MEMORY
 * (for a stack, too), ERR_IO (no more threads are allowed); none is left then. */
enum err team_open(struct team **out, int n_worker) MUST_USE;
void team_close(struct team *t); /* joins the workers; accepts NULL */
int team_size(const struct team *t);
/* The calling thread will run as worker 0 from now on: goes where that belongs (base/topo.h). */
void team_sit(const struct team *t);

/* Runs fn(arg, 0) on the caller and fn(arg, i) on those workers that come before the caller is
 * through: fn must take its work from a common place and be complete when the caller alone ran it.
 * One caller thread at a time. */
typedef void (*team_fn)(void *arg, int i_worker);
void team_run(struct team *t, team_fn fn, void *arg);

/* Runs fn(arg, from, to) on parts that together are [0, n_item), each once, cut at multiples of
 * `grain`, by team_run: each worker begins with a share of neighbours, the same every time for the
 * same n_item and grain while speeds stay, then helps the others. */
typedef void (*team_part_fn)(void *arg, int from, int to);
void team_share(struct team *t, team_part_fn fn, void *arg, int n_item, int grain);

/* Opens an arena whose pages come from all memory nodes in turn, since a cache fills from its
 * begin, and are faulted in by all workers: on a large box one core needs seconds. ERR_MEMORY; the
 * caller closes it, also then. */
enum err team_arena(struct team *t, struct arena *out, size_t n_bytes) MUST_USE;

/* --- a bounded queue of fixed-size messages, many writers, one reader ---------------------- */

struct queue;
/* Room for n_max messages of each_bytes. ERR_MEMORY. Push from any thread, pop from one. */
enum err queue_open(struct queue **out, size_t n_max, size_t each_bytes) MUST_USE;
void queue_close(struct queue *q);                     /* accepts NULL */
bool queue_push(struct queue *q, const void *msg);     /* false when full */
bool queue_pop(struct queue *q, void *msg);            /* false when empty */
bool queue_wait(struct queue *q, uint64_t timeout_us); /* true when something is there */
void queue_wake(struct queue *q);                      /* ends a queue_wait early */

/* --- the other things that need more than one thread --------------------------------------- */

struct thread;
/* Runs fn(arg) on a thread of its own; `name` (15 bytes) is what ps and debuggers show. ERR_MEMORY,
 * ERR_IO. Must be joined. */
enum err thread_start(struct thread **out, const char *name, void (*fn)(void *),
                      void *arg) MUST_USE;
void thread_join(struct thread *t); /* accepts NULL */

struct lock; /* a mutex with one condition */
enum err lock_open(struct lock **out) MUST_USE;
void lock_close(struct lock *l);
void lock_take(struct lock *l);
void lock_drop(struct lock *l);
bool lock_wait(struct lock *l, uint64_t timeout_us); /* holding it; false on time-out */
void lock_wake(struct lock *l);                      /* wakes all waiters */

#endif
