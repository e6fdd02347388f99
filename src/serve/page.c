/* page - the files of the web page
 *
 * A table of what is served beside the API. Until the page itself is here, `/` says where the API
 * is.
 *
 * Next: serve/api.c serves them. */
#include "serve/page.h"

#include <string.h>

static const struct page_file files[] = {
    { "/", "text/plain; charset=utf-8", "\"0\"",
      { "hearth: the API is at /v1/chat/completions\n", 43 }, false },
};

const struct page_file *page_find(const char *path)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (strcmp(files[i].path, path) == 0) {
            return &files[i];
        }
    }
    return NULL;
}

const char *page_csp(void)
{
    return "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
           "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
}
