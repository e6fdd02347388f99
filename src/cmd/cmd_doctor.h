/* cmd_doctor - `hearth doctor`: what is wrong with this box (cmd/cmd_doctor.c) */
#ifndef HEARTH_CMD_DOCTOR_H
#define HEARTH_CMD_DOCTOR_H

#include "cmd/conf.h"

/* path: a model's file, whose disk is measured; NULL: the store's largest. Prints; returns the exit
 * code: 1 when something is wrong. */
int cmd_doctor(const struct conf *c, const char *path);

#endif
