/* probe_tokens - the `tokenize` and `detokenize` probes (cmd/probe_tokens.c)
 *
 * JSON Lines in and out, form: tests/fixtures/PROBE.md. Return the exit code. */
#ifndef HEARTH_PROBE_TOKENS_H
#define HEARTH_PROBE_TOKENS_H

int probe_tokenize(const char *model_path);
int probe_detokenize(const char *model_path);

#endif
