/* cmd_serve - `hearth serve` (cmd/cmd_serve.c) */
#ifndef HEARTH_CMD_SERVE_H
#define HEARTH_CMD_SERVE_H

#include "cmd/conf.h"
#include "hearth.h"

/* The parameters with which it opens its model. */
void cmd_serve_params(const struct conf *c, struct hearth_model_params *out);
/* c->model: what the user named; path: its file. Returns the exit code. */
int cmd_serve(const struct conf *c, const char *path);

#endif
