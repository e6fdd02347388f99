/* probe_tokens - the `tokenize` and `detokenize` probes (cmd/probe_tokens.c)
 *
 * JSON Lines in and out, form: tests/fixtures/PROBE.md. Errors are those of the model and of
 * standard input; a case that cannot be done is answered. */
#ifndef HEARTH_PROBE_TOKENS_H
#define HEARTH_PROBE_TOKENS_H

#include "base/err.h"

enum err probe_tokenize(const char *model_path) MUST_USE;
enum err probe_detokenize(const char *model_path) MUST_USE;

#endif
