/* cmd_run - `hearth run`: chat in the terminal, or one answer (cmd/cmd_run.c) */
#ifndef HEARTH_CMD_RUN_H
#define HEARTH_CMD_RUN_H

#include "cmd/conf.h"

#include <stdint.h>

/* What a chat takes beside the model, with these options. */
uint64_t cmd_run_extra_bytes(const struct conf *c);
/* Returns the exit code. */
int cmd_run(const struct conf *c, const char *path);

#endif
