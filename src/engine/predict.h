/* predict - how fast a model will answer on this box, before anything is loaded (engine/predict.c)
 *
 * The forward pass is run dry on be_time, which tries each kind of its operations.
 * PT-1  speeds are finite and above 0, or ERR_LIMIT says that they cannot be told. */
#ifndef HEARTH_PREDICT_H
#define HEARTH_PREDICT_H

#include "back/be_time.h"
#include "engine/plan.h"

/* What is asked for, and the answer. */
struct predict {
    int32_t n_prompt;     /* tokens of a prompt; 0: none */
    int32_t n_depth;      /* positions before it, and before the answers' tokens */
    int32_t n_parallel;   /* answers at once; 0: none */
    double disk_us;       /* what reading from the disk takes that one token wants */
    double piece_disk_us; /* and what many tokens do; as much, unless these are experts */
    double fly_us;        /* and what is read at once, when somebody looks; 0: it goes on alone */
    int32_t n_look;       /* experts that are computed between two looks */
    bool is_late;         /* where few are wanted, reads begin when they are: experts */
    double prefill_tok_s; /* 0: not asked for */
    double decode_tok_s;  /* of all answers together */
};

/* What n tokens of a step want of the disk, where one wants `one` and all together can want `all`,
 * in whatever unit: each chooses anew, and what two choose is read once. */
double predict_read(double one, double all, int32_t n);

/* Fills the answers of p[n_p]; c as for plan_make. Positions need not lie within the context. */
enum err predict_speed(const struct arch *a, const struct weights *w, const struct plan_config *c,
                       struct be_time *t, struct predict *p, size_t n_p) MUST_USE;

#endif
