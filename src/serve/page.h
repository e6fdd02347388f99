/* page - the files of the web page (serve/page.c)
 *
 * All are part of the program; nothing is read from disk. Any thread. */
#ifndef HEARTH_PAGE_H
#define HEARTH_PAGE_H

#include "base/buf.h"

#include <stdbool.h>

struct page_file {
    const char *path; /* "/" is the page itself */
    const char *type;
    const char *etag; /* with quotes; weak, as both forms share it */
    struct view bytes;
    struct view gzip;  /* the same, compressed */
    bool is_immutable; /* its path changes with its content */
};

const struct page_file *page_find(const char *path); /* NULL: no such file */
const char *page_csp(void);                          /* Content-Security-Policy for all of them */

#endif
