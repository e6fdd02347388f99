/* cmd_plan - `hearth plan`: what a model takes on this box
 *
 * Prints the plan that opening the model would follow, line by line, against what the box and its
 * cgroup have left. Only the file's header is read; nothing is loaded. The figures are those of the
 * forward pass run dry, not estimates, and opening the model follows them.
 *
 * A model that does not fit is an answer and no failure: the plan is printed as a whole, with what
 * is missing, and only the exit code is that of HEARTH_MEMORY, for scripts. Text and JSON print the
 * same struct; "parts" add up to "total_bytes".
 *
 * The same model as a service takes more, for its clients: that is told beside, since whoever plans
 * wants to know both, and decides nothing.
 *
 * Rejected: values of the options with which it would fit. Which of context, cache type and number
 * of conversations to give up is the user's choice.
 *
 * Next: engine/plan.c. */
#include "cmd/cmd_plan.h"

#include "base/js.h"
#include "cmd/cmd_serve.h"
#include "cmd/open.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void print_text(const struct hearth_plan *p, uint64_t serve_bytes, bool has_small_kv,
                       bool has_draft)
{
    const double mib = 1024.0 * 1024.0;
    const uint64_t all = p->total_bytes + serve_bytes;
    printf("context %d tokens, %d at once, prompts in pieces of %d%s\n\n", p->n_ctx, p->n_parallel,
           p->n_batch, open_is_tuned() ? " (threads and pieces as hearth tune chose)" : "");
    for (int32_t i = 0; i < p->n_part; i++) {
        printf("  %-24s %10.1f MiB\n", p->part[i].name, (double)p->part[i].bytes / mib);
    }
    printf("  %-24s %10.1f MiB\n", "total", (double)p->total_bytes / mib);
    printf("  %-24s %10.1f MiB  (%s)\n", "available", (double)p->available_bytes / mib,
           p->available_from);
    printf("\n%s. One token reads %.1f MiB at an empty context and adds %.1f KiB of cache.\n",
           p->fits ? "It fits" : "It does not fit", (double)p->step_read_bytes / mib,
           (double)p->token_kv_bytes / 1024.0);
    if (p->step_disk_bytes > 0) {
        printf("Not all stays in memory: each step, of one token or of a piece of a prompt, reads "
               "%.1f MiB from the disk.\n",
               (double)p->step_disk_bytes / mib);
    }
    const bool helps_context = p->least_bytes < p->available_bytes;
    if (!p->fits) {
        printf("Choose %s%s%s%sa smaller model%s: %.1f MiB are missing.\n",
               helps_context ? "a smaller --ctx" : "",
               helps_context && p->n_parallel > 1 ? ", fewer at once" : "",
               helps_context && !has_small_kv ? ", --kv q8_0" : "", helps_context ? " or " : "",
               has_draft ? " or no --draft" : "",
               ceil((double)(p->total_bytes - p->available_bytes) / mib * 10.0) / 10.0);
    }
    printf("As a service (hearth serve --parallel %d --ctx %d) it takes %.1f MiB more for clients, "
           "%.1f MiB in all: that %s.\n",
           p->n_parallel, p->n_ctx, (double)serve_bytes / mib,
           ceil((double)all / mib * 10.0) / 10.0,
           all <= p->available_bytes ? "fits" : "does not fit");
}

static void print_json(const struct hearth_plan *p, uint64_t serve_bytes)
{
    const uint64_t all = p->total_bytes + serve_bytes;
    printf("{\"version\": 1, \"total_bytes\": %llu, \"least_bytes\": %llu, "
           "\"available_bytes\": %llu, \"available_from\": "
           "\"%s\", \"fits\": %s, \"serve_total_bytes\": %llu, \"serve_fits\": %s, "
           "\"ctx\": %d, \"parallel\": %d, \"batch\": %d, \"step_read_bytes\": %llu, "
           "\"token_kv_bytes\": %llu, \"window_kv_bytes\": %llu, \"window\": %llu, "
           "\"step_disk_bytes\": %llu, \"parts\": [",
           (unsigned long long)p->total_bytes, (unsigned long long)p->least_bytes,
           (unsigned long long)p->available_bytes, p->available_from, p->fits ? "true" : "false",
           (unsigned long long)all, all <= p->available_bytes ? "true" : "false", p->n_ctx,
           p->n_parallel, p->n_batch, (unsigned long long)p->step_read_bytes,
           (unsigned long long)p->token_kv_bytes, (unsigned long long)p->window_kv_bytes,
           (unsigned long long)p->window, (unsigned long long)p->step_disk_bytes);
    for (int32_t i = 0; i < p->n_part; i++) {
        printf("%s{\"name\": \"%s\", \"bytes\": %llu}", i > 0 ? ", " : "", p->part[i].name,
               (unsigned long long)p->part[i].bytes);
    }
    printf("]}\n");
}

int cmd_plan(const struct conf *c, const char *path)
{
    struct hearth_box *box = NULL;
    struct hearth_model_params p;
    struct hearth_plan plan = { 0 };
    hearth_status s = open_box(c, &box);
    open_params(c, &p);
    s = s == HEARTH_OK ? hearth_plan_make(box, path, &p, &plan) : s;
    hearth_box_close(box);
    if (s != HEARTH_OK) {
        return open_fail(s);
    }
    if (c->is_json) {
        print_json(&plan, cmd_serve_extra_bytes(c));
    } else {
        print_text(&plan, cmd_serve_extra_bytes(c), c->kv != NULL && strcmp(c->kv, "q8_0") == 0,
                   c->draft != NULL);
    }
    return plan.fits ? 0 : (int)HEARTH_MEMORY;
}
