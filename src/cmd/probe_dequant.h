/* probe_dequant - the `dequant` probe: blocks of one element type to float32 (cmd/probe_dequant.c)
 *
 * Form: tests/fixtures/PROBE.md. Works in pieces, bounded memory. Returns the exit code. */
#ifndef HEARTH_PROBE_DEQUANT_H
#define HEARTH_PROBE_DEQUANT_H

int probe_dequant(const char *type, const char *in_path, const char *out_path);

#endif
