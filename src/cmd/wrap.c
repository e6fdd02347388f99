/* wrap - text broken into lines
 *
 * Help texts and findings are written as one long line and broken where they are shown. Columns are
 * counted as bytes: what is wrapped is the program's own text, which is ASCII.
 *
 * Next: cmd/conf.c. */
#include "cmd/wrap.h"

#include <stdbool.h>
#include <string.h>

void wrap_put(struct buf *out, const char *text, size_t at, size_t indent, size_t width)
{
    bool is_first = true;
    while (*text != '\0') {
        const size_t n = strcspn(text, " ");
        if (!is_first && at + 1 + n >= width) {
            buf_printf(out, "\n%*s", (int)indent, "");
            at = indent;
        } else if (!is_first) {
            buf_add_char(out, ' ');
            at++;
        }
        buf_add(out, text, n);
        at += n;
        text += n + strspn(text + n, " ");
        is_first = false;
    }
    buf_add_char(out, '\n');
}
