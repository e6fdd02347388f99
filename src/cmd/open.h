/* open - what the commands share: the box and the model that the options ask for (cmd/open.c) */
#ifndef HEARTH_OPEN_H
#define HEARTH_OPEN_H

#include "cmd/conf.h"
#include "hearth.h"

struct open_model {
    struct hearth_box *box;
    struct hearth_model *model;
    struct hearth_model_info info;
};

/* Box parameters and model parameters from the options. */
hearth_status open_box(const struct conf *c, struct hearth_box **box);
void open_params(const struct conf *c, struct hearth_model_params *p);
/* Opens both, with a progress bar on a terminal. The path is that of a file or of a model in the
 * store. */
hearth_status open_all(const struct conf *c, const char *path, struct open_model *out);
void open_close(struct open_model *o); /* accepts a zeroed object */

/* Prints the last error in the program's form and returns the exit code for it. */
int open_fail(hearth_status status);

#endif
