/* cmd_tune - `hearth tune`: the best settings for this box (cmd/cmd_tune.c) */
#ifndef HEARTH_CMD_TUNE_H
#define HEARTH_CMD_TUNE_H

#include "cmd/conf.h"

/* Returns the exit code. */
int cmd_tune(const struct conf *c, const char *path);

#endif
