/* log - one line per event on standard error
 *
 * Lines are short, made in a buffer and written with one call, so that threads do not mix them.
 * Under systemd the journal reads the priority from the "<N>" in front; on a terminal that would be
 * noise, so it is written only when standard error is the journal's socket (JOURNAL_STREAM names
 * its device and inode).
 *
 * Next: base/hash.c. */
#include "base/log.h"

#include "base/cell.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct cell most = { LOG_WARN };

void log_level_set(enum log_level level)
{
    cell_set(&most, (uint64_t)level);
}

static int is_journal(void)
{
    const char *v = secure_getenv("JOURNAL_STREAM");
    struct stat st;
    unsigned long device = 0;
    unsigned long inode = 0;
    char *rest = NULL;
    if (v == NULL || fstat(STDERR_FILENO, &st) != 0) {
        return 0;
    }
    device = strtoul(v, &rest, 10);
    inode = *rest == ':' ? strtoul(rest + 1, NULL, 10) : 0;
    return st.st_dev == device && st.st_ino == inode;
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
                     is_journal() ? priorities[level] : "", names[level], module);
    va_list ap;
    va_start(ap, fmt);
    const int more = vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    va_end(ap);
    n = more < 0 ? n : n + more;
    n = n < (int)sizeof line - 1 ? n : (int)sizeof line - 2;
    line[n++] = '\n';
    const ssize_t written =
        write(STDERR_FILENO, line, (size_t)n); /* nowhere to report a failure to */
    (void)written;
}
