/* tree - a folder of made files in the place of /, and the recorded ones of tests/trees (header only, for tests with cmocka)
 *
 * One folder for each program, `top`, made by tree_setup and removed by tree_teardown. */
#ifndef HEARTH_TREE_H
#define HEARTH_TREE_H

#include "base/buf.h"
#include "base/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char top[] = "/tmp/hearth_tree-XXXXXX";

static inline int tree_setup(void **state)
{
    (void)state;
    return mkdtemp(top) != NULL ? 0 : -1;
}

static inline int tree_teardown(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", top);
    return system(command);
}

/* Writes a file below the folder; folders on the way to it are made. */
static inline void put(const char *name, const char *text)
{
    char path[256];
    const int n = snprintf(path, sizeof path, "%s/%s", top, name);
    assert_in_range(n, 1, sizeof path - 1);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    assert_int_equal(os_make_dirs(path), ERR_OK);
    *slash = '/';
    assert_int_equal(os_write_file(path, view_of(text)), ERR_OK);
}

/* Where a recorded tree lies: below the folder that the test runs in, else beside its source. */
static inline void tree_path(char path[512], const char *name)
{
    snprintf(path, 512, "tests/trees/%s", name);
    if (!os_exists(path)) {
        const char *cut = strrchr(__FILE__, '/');
        snprintf(path, 512, "%.*s/trees/%s", cut != NULL ? (int)(cut - __FILE__) : 1,
                 cut != NULL ? __FILE__ : ".", name);
    }
    assert_true(os_exists(path));
}

#endif
