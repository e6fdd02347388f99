/* page - the files of the web page
 *
 * The page lies in web/ as plain ES modules, one style sheet and one HTML file, and is part of the
 * program: tools/web.py writes page_data.h into the build folder, which names every file with its
 * type and the digest of its content, and the assembler takes the bytes in with .incbin. A string
 * or byte array in C would say the same, but costs the compiler a hundred times as long, and the
 * page a limit on its length. A change in web/ changes the digest in page_data.h, so this file is
 * compiled anew.
 *
 * Every file is there twice, as it is and gzipped; who serves it chooses. The two forms share a
 * weak ETag: they are the same file in another encoding.
 *
 * The library that reads markdown is the distribution's and may be missing; then libs.js says so to
 * the page, which shows answers as plain text.
 *
 * The Content-Security-Policy allows nothing but this origin's own files: no inline script or
 * style, no other host, no frame, and no text made HTML (trusted types).
 *
 * Next: web/app.js, tools/web.py, serve/api.c, which serves the files. */
#include "serve/page.h"

#include <page_data.h>
#include <string.h>

#define PART(i, file)                                                                              \
    "page_data_" #i ": .incbin \"" file "\"\n"                                                     \
    "page_data_" #i "_gz: .incbin \"" file ".gz\"\n"
__asm__(".pushsection .rodata\n" PAGE_PARTS(PART) ".popsection\n");

#define DECLARE(i, path, type, etag, n, n_gz, is_immutable)                                        \
    extern const char page_data_##i[] __attribute__((visibility("hidden")));                       \
    extern const char page_data_##i##_gz[] __attribute__((visibility("hidden")));
PAGE_ROWS(DECLARE)

#define ROW(i, path, type, etag, n, n_gz, is_immutable)                                            \
    { path, type, etag, { page_data_##i, n }, { page_data_##i##_gz, n_gz }, is_immutable },
static const struct page_file files[] = { PAGE_ROWS(ROW) };

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
           "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
           "require-trusted-types-for 'script'; trusted-types 'none'";
}
