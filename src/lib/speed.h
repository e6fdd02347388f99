/* speed - what a model's speed will be, for the public library (lib/speed.c) */
#ifndef HEARTH_SPEED_H
#define HEARTH_SPEED_H

#include "lib/box.h"

/* Fills the answers of at[n_at] for the file at `path`, of which the header is read; where the
 * first's speed of memory, or of a disk that is read, is 0, it is measured and told. ERR_MEMORY: no
 * room to try anything. ERR_LIMIT, and what opening and reading give; at is untouched then. */
enum err speed_predict(const struct hearth_box *box, const char *path,
                       const struct hearth_model_params *p, struct hearth_speed *at,
                       size_t n_at) MUST_USE;

#endif
