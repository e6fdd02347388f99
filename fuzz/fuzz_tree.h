/* fuzz_tree - an input's bytes as files below a folder of its own (header only)
 *
 * Bytes 0xff part the files, in the order of their names; what is left out is not there. The folder
 * goes when the program ends. */
#ifndef HEARTH_FUZZ_TREE_H
#define HEARTH_FUZZ_TREE_H

#include "base/os.h"
#include "fuzz.h"

#include <string.h>

static char top[] = "/tmp/fuzz_tree-XXXXXX";

static inline void tree_remove(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", top);
    demand(system(command) == 0, "the tree is removed");
}

/* At the first call alone. */
static inline void tree_make(const char *const *names, size_t n_name)
{
    static bool is_made;
    if (is_made) {
        return;
    }
    is_made = true;
    demand(mkdtemp(top) != NULL, "a folder");
    atexit(tree_remove);
    for (size_t i = 0; i < n_name; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", top, names[i]);
        *strrchr(path, '/') = '\0';
        demand(os_make_dirs(path) == ERR_OK, path);
    }
}

/* In the place of what an input before has put; empty ones only if `has_empty`. */
static inline void tree_put(const char *const *names, size_t n_name, bool has_empty,
                            const uint8_t *bytes, size_t n)
{
    size_t at = 0;
    tree_make(names, n_name);
    for (size_t i = 0; i < n_name; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", top, names[i]);
        unlink(path);
        if (at > n) {
            continue;
        }
        const uint8_t *end = at < n ? memchr(bytes + at, 0xff, n - at) : NULL;
        const size_t size = end != NULL ? (size_t)(end - (bytes + at)) : n - at;
        if (size > 0 || has_empty) {
            FILE *f = fopen(path, "wb");
            demand(f != NULL && fwrite(bytes + at, 1, size, f) == size && fclose(f) == 0, path);
        }
        at += size + 1;
    }
}

#endif
