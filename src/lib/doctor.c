/* doctor - what is wrong with a box for running models
 *
 * Many boxes run models at a fraction of what they could, for want of a setting that its owner
 * never heard of: memory set aside in the firmware, pools of huge pages that nobody uses, a clock
 * that stays low. Each check looks at a few facts and adds a row; those that cost something say
 * what, and what to type.
 *
 * "Wrong" is what costs much and is hardly meant so; a note is what costs something or may be
 * meant, such as a container's limit. Costs are told as what happens, without a figure unless it
 * was measured on this box just now: a factor from another box would be believed. Settings that do
 * not matter to a program that reads memory and multiplies have no row: mitigations against
 * leaking processors, for example, cost at system calls, and a token makes few.
 *
 * Judging is apart from reading (base/facts.c), so that recorded boxes are tests, and from printing
 * (cmd/cmd_doctor.c).
 *
 * Next: lib/doctor_memory.c, doctor_cpu.c, doctor_disk.c. */
#include "lib/doctor.h"

#include "lib/doctor_impl.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct finding *doctor_add(struct doctor *d, const char *name, enum doctor_state state,
                           const char *found, ...)
{
    assert(d->n < DOCTOR_ROWS_MAX);
    struct finding *f = &d->row[d->n++];
    va_list ap;
    va_start(ap, found);
    vsnprintf(f->found, sizeof f->found, found, ap);
    va_end(ap);
    snprintf(f->name, sizeof f->name, "%s", name);
    f->state = state;
    return f;
}

void doctor_costs(struct finding *f, const char *text, ...)
{
    va_list ap;
    const size_t n = strlen(f->costs);
    va_start(ap, text);
    vsnprintf(f->costs + n, sizeof f->costs - n, text, ap);
    va_end(ap);
}

void doctor_type(struct finding *f, const char *text, ...)
{
    int i = 0;
    while (i + 1 < DOCTOR_TYPES_MAX && f->type[i][0] != '\0') {
        i++;
    }
    va_list ap;
    va_start(ap, text);
    vsnprintf(f->type[i], sizeof f->type[i], text, ap);
    va_end(ap);
}

void doctor_type_sysctl(struct finding *f, const char *name, int value)
{
    doctor_type(f, "sudo sysctl %s=%d", name, value);
    doctor_type(f, "echo %s=%d | sudo tee -a /etc/sysctl.d/60-hearth.conf  # for each start", name,
                value);
    f->is_of_box = true;
}

struct doctor_size doctor_size(uint64_t bytes)
{
    struct doctor_size s;
    const double mib = (double)bytes / 1048576.0;
    if (bytes == UINT64_MAX) {
        snprintf(s.text, sizeof s.text, "an unknown size");
    } else if (mib < 1000.0) {
        snprintf(s.text, sizeof s.text, "%.0f MiB", mib);
    } else {
        snprintf(s.text, sizeof s.text, "%.1f GiB", mib / 1024.0);
    }
    return s;
}

const char *doctor_state_name(enum doctor_state s)
{
    static const char *const names[] = { "ok", "note", "wrong", "unknown" };
    return names[s];
}

static void judge_kind(const struct facts *f, struct doctor *d)
{
    doctor_add(d, "box", DOCTOR_OK, "%s%s%s%sLinux %s", f->container,
               f->container[0] == '\0' || strcmp(f->container, "container") == 0 ? ""
                                                                                 : " container",
               f->container[0] == '\0' ? ""
               : f->is_virtual         ? " in a "
                                       : ", ",
               f->is_virtual ? "virtual machine, " : "",
               f->kernel[0] != '\0' ? f->kernel : "of a version that is not told");
}

void doctor_judge(const struct facts *f, struct doctor *out)
{
    *out = (struct doctor){ 0 };
    judge_kind(f, out);
    doctor_memory(f, out);
    doctor_cpu(f, out);
    doctor_disk(f, out);
    for (int i = 0; i < out->n; i++) {
        const struct finding *row = &out->row[i];
        out->n_of[row->state]++;
        assert(row->state != DOCTOR_WRONG || (row->costs[0] != '\0' && row->type[0][0] != '\0'));
    }
}
