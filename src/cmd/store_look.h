/* store_look - whether there is a model store, and whether pull could write (cmd/store_look.c) */
#ifndef HEARTH_STORE_LOOK_H
#define HEARTH_STORE_LOOK_H

#include "base/err.h"
#include "base/os.h"

#include <stdbool.h>

/* What helps whoever cannot write where the store is. */
#define STORE_ELSEWHERE "use another store: export XDG_DATA_HOME=/A/FOLDER"

struct store_look {
    bool is_there;              /* blobs and index; else a pull would make them */
    char folder[OS_PATH_BYTES]; /* of the models, there or not */
    char above[OS_PATH_BYTES];  /* the nearest folder that is there: that of the disk */
    char fault[ERR_TEXT_MAX];   /* why no command can use it; "": all can */
    char refused[ERR_TEXT_MAX]; /* why pull cannot write; "": it can */
};

/* Makes nothing, and leaves nothing behind. */
void store_look(struct store_look *out);

/* ERR_IO with path, reason and what to type, unless files can be made in the folder. */
enum err store_look_folder(const char *path) MUST_USE;
/* The same, unless a file can be written; that it is not there is good, too. */
enum err store_look_file(const char *path) MUST_USE;

#endif
