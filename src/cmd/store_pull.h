/* store_pull - bring models into the store (cmd/store_pull.c)
 *
 * Progress goes to standard error, what was stored to standard output. Owner: the main thread. */
#ifndef HEARTH_STORE_PULL_H
#define HEARTH_STORE_PULL_H

#include "base/err.h"

#include <stdbool.h>

/* what: a known name (cmd/known.h), a file, a folder with .gguf files, an https address, which may
 * end in #sha256=HEX to say what the file must be, or the name of a model in the store, which comes
 * from its source again. is_packed: a packed image is made, too; of a model in the store, nothing
 * but that; a damaged image is made again either way. name: what the model is called in the store,
 * NULL for a name made from the file's. Interrupted downloads go on where they ended. A model that
 * is there already is not fetched again. */
enum err store_cmd_pull(const char *what, const char *name, bool is_packed, bool is_json) MUST_USE;

#endif
