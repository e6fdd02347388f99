/* cmd_doctor - `hearth doctor`: what is wrong with this box for running models
 *
 * Reads (base/facts.c, cmd/disk.c), has it judged (lib/doctor.c) and prints: a table of everything
 * that was looked at, then a paragraph for each finding that costs something, the wrong ones first,
 * each with what to type. The lines to type are for a shell as they stand, with what they do behind
 * a "#"; no setting is ever changed by the program itself, and nothing is made.
 *
 * Exit code 1 when something is wrong, for scripts that set up boxes; notes and what is unknown are
 * no failure, as no container would pass otherwise.
 *
 * Names of processes and files come from outside, so all texts are escaped on their way out.
 *
 * Next: lib/doctor.c. */
#include "cmd/cmd_doctor.h"

#include "base/js.h"
#include "cmd/disk.h"
#include "cmd/open.h"
#include "cmd/pools.h"
#include "cmd/progress.h"
#include "cmd/wrap.h"
#include "lib/doctor.h"

#include <stdio.h>
#include <string.h>

#define OUT_MAX    ((size_t)1 << 20)
#define WIDTH_MAX  110 /* longer lines are hard to read */
#define NAME_WIDTH 17  /* columns of the table */
#define FOUND_AT   (2 + NAME_WIDTH + 9)
#define TEXT_AT    9 /* behind "  costs: " */

/* Wrapped, as a terminal may get it. */
static void put_wrapped(struct buf *out, const char *text, size_t at, size_t width)
{
    struct buf plain;
    buf_init(&plain, 16384);
    utf8_plain(&plain, view_of(text), SIZE_MAX, false);
    wrap_put(out, buf_str(&plain), at, at, width);
    buf_release(&plain);
}

static void put_row(struct buf *out, const struct finding *f, size_t width)
{
    buf_printf(out, "  %-*s %-8s", NAME_WIDTH, f->name, doctor_state_name(f->state));
    put_wrapped(out, f->found, FOUND_AT, width);
}

/* What it costs and what to type: lines of a shell are never broken. */
static void put_finding(struct buf *out, const struct finding *f, size_t width)
{
    buf_printf(out, "\n%s: %s\n", doctor_state_name(f->state), f->name);
    buf_add_str(out, "  found: ");
    put_wrapped(out, f->found, TEXT_AT, width);
    buf_add_str(out, "  costs: ");
    put_wrapped(out, f->costs, TEXT_AT, width);
    for (int i = 0; i < DOCTOR_TYPES_MAX && f->type[i][0] != '\0'; i++) {
        buf_add_str(out, "  type:  ");
        utf8_plain(out, view_of(f->type[i]), SIZE_MAX, false);
        buf_add_char(out, '\n');
    }
}

static void put_text(struct buf *out, const struct facts *f, const struct doctor *d)
{
    static const enum doctor_state order[] = { DOCTOR_WRONG, DOCTOR_NOTE };
    const int columns = progress_columns(1, WRAP_WIDTH);
    const size_t width = columns < 40 ? 40 : columns > WIDTH_MAX ? WIDTH_MAX : (size_t)columns;
    bool is_of_box = false;
    for (int i = 0; i < d->n; i++) {
        put_row(out, &d->row[i], width);
    }
    for (size_t k = 0; k < sizeof order / sizeof order[0]; k++) {
        for (int i = 0; i < d->n; i++) {
            if (d->row[i].state == order[k]) {
                put_finding(out, &d->row[i], width);
                is_of_box = is_of_box || d->row[i].is_of_box;
            }
        }
    }
    if (is_of_box && f->container[0] != '\0') {
        buf_add_char(out, '\n');
        wrap_put(out,
                 "This is a container: settings of the kernel, and the container's own limits, are "
                 "changed on the box that it runs on.",
                 0, 0, width);
    }
    buf_printf(out, "\n%d wrong, %d to note, %d unknown, %d in order\n", d->n_of[DOCTOR_WRONG],
               d->n_of[DOCTOR_NOTE], d->n_of[DOCTOR_UNKNOWN], d->n_of[DOCTOR_OK]);
}

static void json_row(struct buf *out, const struct finding *f, bool is_first)
{
    buf_printf(out, "%s\n{\"name\": \"%s\", \"state\": \"%s\", \"found\": ", is_first ? "" : ",",
               f->name, doctor_state_name(f->state));
    js_put_string(out, view_of(f->found), false);
    buf_add_str(out, ", \"costs\": ");
    js_put_string(out, view_of(f->costs), false);
    buf_add_str(out, ", \"type\": [");
    for (int i = 0; i < DOCTOR_TYPES_MAX && f->type[i][0] != '\0'; i++) {
        buf_add_str(out, i > 0 ? ", " : "");
        js_put_string(out, view_of(f->type[i]), false);
    }
    buf_add_str(out, "]}");
}

static void put_json(struct buf *out, const struct facts *f, const struct doctor *d)
{
    buf_printf(out, "{\"version\": 1, \"wrong\": %d, \"notes\": %d, \"unknown\": %d, \"ok\": %d, ",
               d->n_of[DOCTOR_WRONG], d->n_of[DOCTOR_NOTE], d->n_of[DOCTOR_UNKNOWN],
               d->n_of[DOCTOR_OK]);
    pools_put_json(out, &f->pool);
    buf_add_str(out, ", \"disk_gb_s\": ");
    if (f->disk.gb_s > 0.0) {
        buf_printf(out, "%.3f", f->disk.gb_s);
    } else {
        buf_add_str(out, "null");
    }
    buf_add_str(out, ", \"checks\": [");
    for (int i = 0; i < d->n; i++) {
        json_row(out, &d->row[i], i == 0);
    }
    buf_add_str(out, "]}\n");
}

int cmd_doctor(const struct conf *c, const char *path)
{
    static struct facts f; /* large; owner: the main thread */
    static struct doctor d;
    struct buf out;
    facts_read(&f, "", NULL);
    const enum err e = disk_read(&f.disk, path);
    if (e != ERR_OK) {
        return open_fail((hearth_status)e);
    }
    doctor_judge(&f, &d);
    buf_init(&out, OUT_MAX);
    (c->is_json ? put_json : put_text)(&out, &f, &d);
    fputs(buf_str(&out), stdout);
    buf_release(&out);
    return d.n_of[DOCTOR_WRONG] > 0 ? (int)ERR_FAILED : 0;
}
