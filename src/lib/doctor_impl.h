/* doctor_impl - what the files of the doctor share (header only, private to lib/doctor*) */
#ifndef HEARTH_DOCTOR_IMPL_H
#define HEARTH_DOCTOR_IMPL_H

#include "lib/doctor.h"

/* Adds a row; printf format for what was found. Returns it: it stays valid. */
struct finding *doctor_add(struct doctor *d, const char *name, enum doctor_state state,
                           const char *found, ...) __attribute__((format(printf, 4, 5)));
void doctor_costs(struct finding *f, const char *text, ...) __attribute__((format(printf, 2, 3)));
/* One more line; `is_of_box` too, when it changes the box and not this process. */
void doctor_type(struct finding *f, const char *text, ...) __attribute__((format(printf, 2, 3)));
/* A setting of the kernel: for now, and for each start. */
void doctor_type_sysctl(struct finding *f, const char *name, int value);

/* "108.8 GiB", "512 MiB"; lives as long as the expression that it stands in. */
struct doctor_size {
    char text[24];
};
struct doctor_size doctor_size(uint64_t bytes);

/* The checks: each adds one row for a thing, or none where a box has no such thing. */
void doctor_memory(const struct facts *f, struct doctor *d);
void doctor_cpu(const struct facts *f, struct doctor *d);
void doctor_disk(const struct facts *f, struct doctor *d);

#endif
