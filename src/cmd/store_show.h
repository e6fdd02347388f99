/* store_show - list, show, rm and verify (cmd/store_show.c)
 *
 * Results go to standard output, as text or as one JSON object. Owner: the main thread. */
#ifndef HEARTH_STORE_SHOW_H
#define HEARTH_STORE_SHOW_H

#include "base/err.h"

#include <stdbool.h>

/* The models in the store, and the known names that are not. */
enum err store_cmd_list(bool is_json) MUST_USE;
/* A model's origin, metadata, element types and tensors. model: a file or a name in the store;
 * path: its file, as store_resolve finds it. */
enum err store_cmd_show(const char *model, const char *path, bool is_json) MUST_USE;
/* Takes a model out of the store; says how much room that made. */
enum err store_cmd_rm(const char *model, bool is_json) MUST_USE;
/* Reads files again and compares their digests; NULL: all of the store, also what no model has and
 * what is unfinished. ERR_INTEGRITY after the last one when any was damaged, else ERR_BUSY when any
 * was being changed. A file outside the store gets its digest and its structure shown. */
enum err store_cmd_verify(const char *model, bool is_json) MUST_USE;

#endif
