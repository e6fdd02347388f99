/* probe_logits - the `logits` probe: raw scores of a model for given tokens (cmd/probe_logits.c)
 *
 * Cases as JSON Lines on standard input, answers on standard output, rows of float32 into out_path;
 * the form is that of tests/fixtures/PROBE.md. Errors are those of the model, of out_path, of
 * standard input and of memory; a case that cannot be done is answered. */
#ifndef HEARTH_PROBE_LOGITS_H
#define HEARTH_PROBE_LOGITS_H

#include "base/cpu.h"
#include "base/err.h"
#include "kern/kern.h"

#include <stdint.h>

struct probe_logits_params {
    const char *model_path;
    const char *out_path;
    enum kern_kv kv;
    enum cpu_isa isa;
    int32_t n_thread;
    int32_t n_beside; /* further copies of each case computed in the same batch, to show that it
                         changes no bit */
};

enum err probe_logits(const struct probe_logits_params *p) MUST_USE;

#endif
