/* cmd_bench - `hearth bench`: speed of a model on this box (cmd/cmd_bench.c) */
#ifndef HEARTH_CMD_BENCH_H
#define HEARTH_CMD_BENCH_H

#include "cmd/conf.h"

/* path may be NULL with --kernels or --limits. Returns the exit code. */
int cmd_bench(const struct conf *c, const char *path);

#endif
