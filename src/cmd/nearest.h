/* nearest - plans that fit, next to one that does not (cmd/nearest.c)
 *
 * Owner: the main thread. Errors end a search and are no failure: fewer plans are found. */
#ifndef HEARTH_NEAREST_H
#define HEARTH_NEAREST_H

#include "base/buf.h"
#include "base/os.h"
#include "cmd/conf.h"
#include "hearth.h"

#define NEAREST_MAX 8

/* Must not move: conf points into it. */
struct nearest {
    const char *change; /* static: what is given up */
    struct conf conf;   /* the options that fit */
    struct hearth_plan plan;
    double prefill_tok_s; /* at an empty context; 0: not predicted */
    double decode_tok_s;  /* of all answers, likewise */
    double full_decode_tok_s;
    char model[OS_PATH_BYTES]; /* as it is typed */
    char path[OS_PATH_BYTES];
};

/* Finds at most NEAREST_MAX plans for the model at `path`, of which c asks too much: p. Returns how
 * many. */
int nearest_find(struct hearth_box *box, const struct conf *c, const char *path,
                 const struct hearth_plan *p, struct nearest out[NEAREST_MAX]);
/* Predicts their speeds, for read_gb_s of memory. */
void nearest_predict(struct hearth_box *box, double read_gb_s, struct nearest *all, int n);
/* Adds the command line that shows the plan, for a shell. */
void nearest_command(const struct nearest *n, struct buf *out);

#endif
