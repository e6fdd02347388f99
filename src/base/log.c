/* log - one line per event on standard error
 *
 * Lines are short, made in a buffer and written with one call, so that threads do not mix them.
 * Under systemd the journal reads the priority from the "<N>" in front; on a terminal that would be
 * noise, so it is written only when standard error is the journal's socket (JOURNAL_STREAM names
 * its device and inode).
 *
 * Next: base/hash.c. */
#include "base/log.h"

#include "base/buf.h"
#include "base/cell.h"
#include "base/os.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct cell most = { LOG_WARN };

void log_level_set(enum log_level level)
{
    cell_set(&most, (uint64_t)level);
}

void log_event(enum log_level level, const char *module, const char *fmt, ...)
{
    static const char *const names[] = { "error", "warn", "info", "debug" };
    static const char *const priorities[] = { "<3>", "<4>", "<6>", "<7>" };
    if ((uint64_t)level > cell_get(&most)) {
        return;
    }
    char line[1024];
    int n = snprintf(line, sizeof line, "%slevel=%s module=%s ",
                     os_stderr_is_journal() ? priorities[level] : "", names[level], module);
    va_list ap;
    va_start(ap, fmt);
    const int more = vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    va_end(ap);
    n = more < 0 ? n : n + more;
    n = n < (int)sizeof line - 1 ? n : (int)sizeof line - 2;
    for (int i = 0; i < n;) { /* a value from outside cannot begin a line of its own */
        uint32_t code = 0;
        const int len = utf8_read(line + i, (size_t)(n - i), &code);
        const int n_bad = len == 0 ? 1 : err_is_hidden(code) ? len : 0;
        memset(line + i, '?', (size_t)n_bad);
        i += len > 0 ? len : 1;
    }
    line[n++] = '\n';
    const ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written; /* nowhere to report a failure to */
}
