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
    bool is_packing;      /* the command packs it first, which takes of the store's disk: */
    uint64_t store_bytes; /* 0: not packing, or it cannot be told */
    uint64_t store_free_bytes;
    char model[OS_PATH_BYTES]; /* as it is typed */
    char path[OS_PATH_BYTES];
};

/* Fills p as the command of c opens its model; is_tried: with all that has to fit beside it, which
 * a plan that is told may lack. */
typedef void nearest_params(const struct conf *c, bool is_tried, struct hearth_model_params *p);
/* Finds at most NEAREST_MAX plans for the model at `path`, of which c asks too much: p. Returns how
 * many. */
int nearest_find(struct hearth_box *box, const struct conf *c, const char *path,
                 const struct hearth_plan *p, nearest_params *fill,
                 struct nearest out[NEAREST_MAX]);
/* Predicts their speeds, for those of memory and disk in *known (disk 0: not known). */
void nearest_predict(struct hearth_box *box, const struct hearth_speed *known, struct nearest *all,
                     int n);
/* Adds the command line, for a shell; that which packs the model instead. */
void nearest_command(const struct nearest *n, struct buf *out);
/* Adds a list: commands, what each gives up and takes, and how fast that is where it is known. */
void nearest_put(const struct nearest *all, int n, struct buf *out);
/* Prints that list on standard error, behind the refusal of c, whose plan is p. */
void nearest_tell(struct hearth_box *box, const struct conf *c, const char *path,
                  const struct hearth_plan *p, nearest_params *fill);

#endif
