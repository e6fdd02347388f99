/* progress - how far long work has come, on standard error
 *
 * A person at a terminal wants to know three things: does it move, how fast, and when is it done. A
 * log file wants few lines. So a terminal gets a bar that is redrawn at most ten times a second,
 * and everything else one line for each tenth of the way (or every 50 MB where the size is not
 * known). Rates count only the bytes of this run, not those that an earlier one left behind.
 *
 * Rejected: colours and animations; they say nothing and break logs.
 *
 * Next: cmd/child.c. */
#include "cmd/progress.h"

#include "base/os.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REDRAW_US    100000
#define BAR_CELLS    24
#define UNKNOWN_STEP 50000000u /* bytes a line when the total is not known */
#define NOTICED_US   300000    /* of work that a person notices */

const char *progress_bytes(uint64_t n, char to[16])
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB" };
    double v = (double)n;
    int i = 0;
    while (v >= 999.95 && i < 5) {
        v /= 1000.0;
        i++;
    }
    snprintf(to, 16, i == 0 ? "%.0f %s" : "%.1f %s", v, units[i]);
    return to;
}

static const char *count_text(uint64_t n, char to[24])
{
    const bool is_billion = n >= 999950000;
    snprintf(to, 24, "%.1f %s", (double)n / (is_billion ? 1e9 : 1e6),
             is_billion ? "billion" : "million");
    return to;
}

const char *progress_params(uint64_t n, uint64_t n_active, const char *what, char to[64])
{
    char all[24];
    char some[24];
    const bool is_all = n_active == n;
    if (is_all) {
        snprintf(to, 64, "%s%s", count_text(n, all), what);
    } else {
        snprintf(to, 64, "%s%s, %s active", count_text(n, all), what, count_text(n_active, some));
    }
    return to;
}

void progress_begin(struct progress *p, const char *what, uint64_t total, uint64_t done)
{
    *p = (struct progress){ .total = total,
                            .begin = done,
                            .begin_us = os_now_us(),
                            .is_terminal = isatty(STDERR_FILENO) == 1 };
    snprintf(p->what, sizeof p->what, "%s", what);
    progress_set(p, done);
}

void progress_begin_short(struct progress *p, const char *what, uint64_t total)
{
    *p = (struct progress){ .total = total,
                            .begin_us = os_now_us(),
                            .is_terminal = isatty(STDERR_FILENO) == 1,
                            .is_short = true };
    snprintf(p->what, sizeof p->what, "%s", what);
}

int progress_columns(int fd, int otherwise)
{
    struct winsize w;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col : otherwise;
}

/* Takes the place of the line that was drawn before. A line that wraps could not be overwritten. */
static void draw(struct progress *p, const char *line, uint64_t now_us)
{
    fprintf(stderr, "\r%.*s\033[K", progress_columns(STDERR_FILENO, 80) - 1, line);
    fflush(stderr);
    p->is_drawn = true;
    p->shown_us = now_us;
}

static void fill(char bar[BAR_CELLS + 1], unsigned cells, char rest)
{
    for (unsigned i = 0; i < BAR_CELLS; i++) {
        bar[i] = i < cells ? '#' : rest;
    }
    bar[BAR_CELLS] = '\0';
}

static void draw_bar(struct progress *p, uint64_t done, uint64_t now_us)
{
    char bar[BAR_CELLS + 1];
    char have[16];
    char all[16];
    char unit[16];
    char speed[32] = "";
    char left[32] = "";
    const double seconds = (double)(now_us - p->begin_us) / 1e6;
    const double rate = seconds > 0.2 ? (double)(done - p->begin) / seconds : 0.0;
    fill(bar, p->total > 0 ? (unsigned)(done * BAR_CELLS / p->total) : 0, '-');
    if (rate > 0.0) {
        snprintf(speed, sizeof speed, "  %s/s", progress_bytes((uint64_t)rate, unit));
    }
    if (rate > 0.0 && p->total > done) {
        const unsigned s = (unsigned)((double)(p->total - done) / rate + 0.5);
        snprintf(left, sizeof left, "  %u:%02u left", s / 60, s % 60);
    }
    char line[256];
    if (p->total > 0) {
        snprintf(line, sizeof line, "%s [%s] %3u %%  %s of %s%s%s", p->what, bar,
                 (unsigned)(done * 100 / p->total), progress_bytes(done, have),
                 progress_bytes(p->total, all), speed, left);
    } else {
        snprintf(line, sizeof line, "%s  %s%s", p->what, progress_bytes(done, have), speed);
    }
    draw(p, line, now_us);
}

static void print_line(struct progress *p, uint64_t done)
{
    char have[16];
    char all[16];
    const uint64_t tenth = p->total > 0 ? done * 10 / p->total : done / UNKNOWN_STEP;
    if (tenth + 1 <= p->tenth) {
        return;
    }
    p->tenth = tenth + 1;
    if (p->total > 0) {
        fprintf(stderr, "%s: %u %% (%s of %s)\n", p->what, (unsigned)(tenth * 10),
                progress_bytes(done, have), progress_bytes(p->total, all));
    } else {
        fprintf(stderr, "%s: %s\n", p->what, progress_bytes(done, have));
    }
}

void progress_set(struct progress *p, uint64_t done)
{
    done = p->total > 0 && done > p->total ? p->total : done;
    p->begin = done < p->begin ? done : p->begin; /* it started again from the front */
    if (!p->is_terminal) {
        if (!p->is_short) {
            print_line(p, done);
        }
        return;
    }
    const uint64_t now_us = os_now_us();
    if (!p->is_drawn || now_us - p->shown_us >= REDRAW_US || done == p->total) {
        draw_bar(p, done, now_us);
    }
}

void progress_end(struct progress *p)
{
    if (p->is_drawn) {
        fputc('\n', stderr);
        p->is_drawn = false;
    }
}

void progress_share(struct progress *p, double done)
{
    const uint64_t now_us = os_now_us();
    if (done >= 1.0) {
        fputs(p->is_drawn ? "\r\033[K" : "", stderr);
        p->is_drawn = false;
    } else if (p->is_terminal && now_us - (p->is_drawn ? p->shown_us : p->begin_us) >=
                                     (p->is_drawn ? REDRAW_US : NOTICED_US)) {
        char bar[BAR_CELLS + 1];
        char line[128];
        fill(bar, (unsigned)(done * BAR_CELLS), ' ');
        snprintf(line, sizeof line, "%s [%s] %3d %%  %.0f s", p->what, bar, (int)(done * 100.0),
                 (double)(now_us - p->begin_us) / 1e6);
        draw(p, line, now_us);
    }
}
