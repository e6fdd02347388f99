/* progress - how far long work has come, on standard error (cmd/progress.c)
 *
 * On a terminal a bar with rate and remaining time that overwrites itself; elsewhere one line per
 * tenth. Owner: one thread. */
#ifndef HEARTH_PROGRESS_H
#define HEARTH_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    char what[64];  /* shown in front */
    uint64_t total; /* bytes; 0 = not known */
    uint64_t begin; /* bytes that were there before this run */
    uint64_t begin_us;
    uint64_t shown_us; /* of the last bar */
    uint64_t tenth;    /* the last one printed + 1 */
    bool is_terminal;
    bool is_short;
    bool is_drawn;
};

void progress_begin(struct progress *p, const char *what, uint64_t total, uint64_t done);
/* The same for work of some seconds: a bar on a terminal, nothing elsewhere. */
void progress_begin_short(struct progress *p, const char *what, uint64_t total);
/* For such work, begun with total 0, of which only a share in 0..1 is known: a bar with the seconds
 * that it took, once a person notices them; 1 wipes it off. Cheap to call often. */
void progress_share(struct progress *p, double done);
void progress_set(struct progress *p, uint64_t done); /* cheap to call often */
void progress_end(struct progress *p);                /* leaves the cursor on a fresh line */

/* Columns of the terminal behind fd; `otherwise` where it is none. */
int progress_columns(int fd, int otherwise);

/* "98.4 MB" (decimal units, as disks and networks count); to[16]. */
const char *progress_bytes(uint64_t n, char to[16]);
/* "135.0 million", "30.5 billion, 3.3 billion active": those that a token uses, where it does not
 * use all; `what` stands behind the first; to[64]. */
const char *progress_params(uint64_t n, uint64_t n_active, const char *what, char to[64]);

#endif
