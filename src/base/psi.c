/* psi - whether programs wait for memory, and how much is left
 *
 * The kernel tells how long programs stood still because memory was short ("pressure stall
 * information", Linux 4.20): waiting while it looks for pages to drop, or for a page to come back
 * that was dropped although it was in use. /proc/pressure/memory has that for the box, and
 * memory.pressure for each cgroup of version 2, whether or not it has a limit:
 *
 *     some avg10=1.25 avg60=0.40 avg300=0.09 total=184025
 *     full avg10=0.80 avg60=0.22 avg300=0.05 total=92011
 *
 * "some": at least one program waited; "full": all waited that had something to do, so nothing was
 * done. avg10 is a running average over 10 s, in percent; total are microseconds. (Documentation/
 * accounting/psi.rst; Johannes Weiner 2018.)
 *
 * That alone says nothing of what is left, and what is left says nothing of who waits: a box whose
 * memory is full and quiet is as it should be. So both are read together. Without the kernel's
 * figures (before 4.20, built or booted without) is_told is false.
 *
 * Rejected: a trigger (a threshold written into the file, which then wakes poll). It tells when
 * pressure begins but not that it ends, needs rights for windows other than 2 s, and no recorded
 * tree of files can have one. What is read once a second are two small files of the box, and of
 * each cgroup above this process five at most, each of them once; memory.stat costs the most, since
 * the kernel may have to sum it up over all cores.
 *
 * Next: serve/pressure.c, which decides. */
#include "base/psi.h"

#include "base/cgroup.h"
#include "base/figure.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 1024

/* Digits and perhaps a point and two more, whatever the locale says. */
static bool take_percent(const char *at, double *out)
{
    uint32_t whole = 0;
    uint32_t part = 0;
    uint32_t unit = 1;
    const char *p = at;
    while (*p >= '0' && *p <= '9' && p - at < 4) {
        whole = whole * 10 + (uint32_t)(*p++ - '0');
    }
    if (p == at || (*p >= '0' && *p <= '9')) {
        return false;
    }
    for (p += *p == '.'; *p >= '0' && *p <= '9' && unit < 100; p++) {
        part = part * 10 + (uint32_t)(*p - '0');
        unit *= 10;
    }
    const double percent = (double)whole + (double)part / (double)unit;
    *out = percent < 100.0 ? percent : 100.0;
    return true;
}

/* One line: avg10, and total if there is room for it. */
static bool take_line(const char *text, const char *word, double *percent, uint64_t *total_us)
{
    const char *line = strncmp(text, word, strlen(word)) == 0 ? text : NULL;
    for (const char *end = strchr(text, '\n'); line == NULL && end != NULL;
         end = strchr(end + 1, '\n')) {
        line = strncmp(end + 1, word, strlen(word)) == 0 ? end + 1 : NULL;
    }
    const char *avg = line != NULL ? strstr(line, "avg10=") : NULL;
    const char *total = line != NULL ? strstr(line, "total=") : NULL;
    const char *end = line != NULL ? strchr(line, '\n') : NULL;
    if (avg == NULL || (end != NULL && avg > end) || !take_percent(avg + 6, percent)) {
        return false;
    }
    const bool has_total = total != NULL && (end == NULL || total < end);
    *total_us = has_total ? strtoull(total + 6, NULL, 10) : 0;
    return true;
}

bool psi_parse(const char *text, struct psi_scope *out)
{
    struct psi_scope s = *out;
    uint64_t some_us = 0;
    if (!take_line(text, "some ", &s.some_percent, &some_us) ||
        !take_line(text, "full ", &s.full_percent, &s.full_us)) {
        return false;
    }
    s.is_told = true;
    *out = s;
    return true;
}

static uint64_t bytes_of(const char *meminfo, const char *key)
{
    return figure_bytes(os_number_of(meminfo, key), 1024);
}

void psi_read(struct psi *out, const char *root)
{
    char path[OS_PATH_BYTES];
    char text[TEXT_BYTES];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    (void)os_read_start(path, text, sizeof text); /* both stand in its first lines */
    *out = (struct psi){ .box = { .left_bytes = bytes_of(text, "MemAvailable"),
                                  .limit_bytes = bytes_of(text, "MemTotal") } };
    snprintf(path, sizeof path, "%s/proc/pressure/memory", root);
    if (os_read_start(path, text, sizeof text) > 0) {
        (void)psi_parse(text, &out->box);
    }
    if (cgroup_room(root, &out->group.left_bytes, &out->group.limit_bytes, text, sizeof text) > 0) {
        (void)psi_parse(text, &out->group);
    }
}
