/* be_time - the backend that tries each kind of operation and adds up its time (back/be_time.c)
 *
 * A forward pass that runs dry on it tells how long the pass would take on this box, without the
 * model: each operation is computed once for each shape, by be_cpu, on a few panels of made up
 * weights that stay in the caches; what it must read beside comes at the memory's speed.
 * Owner: the thread that plans (worker 0 of the team).
 * BM-1  room and number of tries are bounded; what lies beyond sets is_beyond and nothing else. */
#ifndef HEARTH_BE_TIME_H
#define HEARTH_BE_TIME_H

#include "back/be_cpu.h"

#define BE_TIME_ROOM  ((size_t)40 << 20) /* bytes of operands, and as many of results */
#define BE_TIME_TRIES 128                /* operations of different shape */
#define BE_TIME_KEY   20

struct be_time_try {
    int32_t key[BE_TIME_KEY];
    double us; /* with everything in the caches */
};

struct be_time {
    struct back back; /* first; its workspace only counts */
    struct be_cpu cpu;
    struct arena count;
    struct arena in;  /* operands, all bytes made up */
    struct arena out; /* results, and the workspace of cpu */
    size_t n_made;    /* bytes of `in` that are */
    double read_gb_s;
    double ops_us; /* about what the team multiplies in a microsecond: how much to try */
    double us;     /* of all operations since be_time_begin */
    /* Of a disk that goes on only when it is looked at, which is between two operations. */
    double fly_us;  /* in which it brings what it has been asked for at once; 0: there is none */
    int32_t n_look; /* experts that are computed before it is looked at again */
    double rest_us; /* that it rests, since be_time_begin */
    bool is_beyond;
    int32_t n_try;
    struct be_time_try tries[BE_TIME_TRIES];
};

/* Opens the arenas; be_time_release closes them. `t` must not move. read_gb_s: above 0, what the
 * team reads from memory. ERR_MEMORY. */
enum err be_time_init(struct be_time *t, struct team *team, const struct kern_table *kern,
                      double read_gb_s) MUST_USE;
void be_time_release(struct be_time *t); /* accepts a zeroed object */
/* From here on t->us counts anew. */
void be_time_begin(struct be_time *t);
/* Microseconds for choosing the most probable token in n_row rows of n_vocab scores. */
double be_time_choose_us(struct be_time *t, int32_t n_vocab, int32_t n_row);

#endif
