/* doctor - what is wrong with a box for running models (lib/doctor.c)
 *
 * From what the kernel says (base/facts.h) to findings for a person: what was found, what it costs,
 * what to type. A pure function; any thread.
 * DO-1  what is not known is DOCTOR_UNKNOWN, whatever it might be on most boxes.
 * DO-2  a finding that is DOCTOR_WRONG says what it costs and what to type. */
#ifndef HEARTH_DOCTOR_H
#define HEARTH_DOCTOR_H

#include "base/facts.h"

#define DOCTOR_ROWS_MAX  40
#define DOCTOR_TYPES_MAX 3

enum doctor_state {
    DOCTOR_OK,
    DOCTOR_NOTE,  /* costs something, and may be meant so */
    DOCTOR_WRONG, /* costs much, and can be put right */
    DOCTOR_UNKNOWN,
    DOCTOR_STATE_COUNT
};

/* Texts may hold names from outside (of processes, files): escape them for a terminal. */
struct finding {
    char name[24];
    enum doctor_state state;
    char found[200];
    char costs[440];                  /* "": nothing */
    char type[DOCTOR_TYPES_MAX][200]; /* for a shell, a comment behind "  # "; "": no more */
    bool is_of_box;                   /* to be typed outside of a container */
};

struct doctor {
    struct finding row[DOCTOR_ROWS_MAX];
    int n;
    int n_of[DOCTOR_STATE_COUNT]; /* rows in each state */
};

void doctor_judge(const struct facts *f, struct doctor *out);
const char *doctor_state_name(enum doctor_state s); /* "ok", "note", "wrong", "unknown" */

#endif
