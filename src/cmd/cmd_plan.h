/* cmd_plan - `hearth plan`: what a model takes on this box (cmd/cmd_plan.c) */
#ifndef HEARTH_CMD_PLAN_H
#define HEARTH_CMD_PLAN_H

#include "cmd/conf.h"

/* Returns the exit code: 4 when the model does not fit. */
int cmd_plan(const struct conf *c, const char *path);

#endif
