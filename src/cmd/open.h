/* open - what the commands share: the box and the model that the options ask for (cmd/open.c)
 *
 * Owner: the main thread. Errors are the library's, with its text in hearth_error(). */
#ifndef HEARTH_OPEN_H
#define HEARTH_OPEN_H

#include "base/buf.h"
#include "cmd/conf.h"
#include "hearth.h"

/* owner: the main thread; each member NULL or open */
struct open_model {
    struct hearth_box *box;
    struct hearth_model *model;
    struct hearth_model_info info;
};

/* Opens the box of --threads, --isa and --memory; the caller closes it with hearth_box_close.
 * HEARTH_USAGE, HEARTH_UNSUPPORTED, HEARTH_MEMORY; *box is left as it was then. */
hearth_status open_box(const struct conf *c, struct hearth_box **box) MUST_USE;

/* Fills p from --ctx, --parallel and --kv; texts are borrowed from c. Cannot fail. */
void open_params(const struct conf *c, struct hearth_model_params *p);

/* Whether what no option says is as `hearth tune` chose it. */
bool open_is_tuned(void);

/* MiB in tenths as they are told: what is needed goes up and what there is goes down, so that what
 * does not fit never reads as if it did, and sums of what is shown add up. */
double open_mib_up(uint64_t bytes);
double open_mib_down(uint64_t bytes);
void open_put_rate(struct buf *out, const char *before, double rate); /* three digits or so */

/* Of the threads' time on the cores; less: something took part, which is said. */
#define OPEN_SHARED 0.8
#define OPEN_SHARED_TEXT                                                                           \
    "the threads got %.0f %% of their time on the cores: there are fewer cores, other programs "   \
    "ran, or a quota (cgroup) grants a share"

/* HEARTH_MEMORY, with both numbers and `advice`, unless a plan fits; `advice` is left out where
 * only a smaller model would do. */
hearth_status open_fits(const struct conf *c, const struct hearth_plan *p,
                        const char *advice) MUST_USE;

/* Opens both, with a progress bar on a terminal, and fills out->info; run -v tells the plan. `path`
 * is that of a file; the plan has extra_bytes for what the command takes beside the model.
 * `out` comes zeroed, and goes to open_close in any case. Errors of open_box and
 * hearth_model_open. */
hearth_status open_all(const struct conf *c, const char *path, uint64_t extra_bytes,
                       struct open_model *out) MUST_USE;
void open_close(struct open_model *o); /* accepts a zeroed object */

/* open_fail says `name` where an error says `path`. For the model and a draft model; both texts
 * must stay while the command runs. */
void open_name(const char *path, const char *name);
/* Prints the last error in the program's form and returns the exit code for it. */
int open_fail(hearth_status status) MUST_USE;

#endif
