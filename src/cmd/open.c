/* open - what the commands share: the box and the model that the options ask for
 *
 * An option that was not given is 0 or NULL in struct conf, and 0 or NULL lets the library choose:
 * so the options are copied, and no default stands here a second time. What `hearth tune` stored
 * (tuned.c) takes the place of the library's choice.
 *
 * Loading shows a bar on standard error when that is a terminal and loading takes long enough to be
 * noticed, and is wiped when it is full; otherwise it is silent. Errors have one form everywhere:
 * "hearth: " and the library's line; but that knows paths only, and a model of the store is said by
 * its name.
 *
 * Box and model are opened and closed as one because no command needs two of either.
 *
 * Next: cmd/cmd_run.c. */
#include "cmd/open.h"

#include "base/os.h"
#include "cmd/progress.h"
#include "cmd/tuned.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

hearth_status open_box(const struct conf *c, struct hearth_box **box)
{
    struct hearth_box_params p;
    const struct tuned t = tuned_read(); /* first, since it touches the text of errors */
    hearth_box_init(&p);
    p.n_thread = c->threads > 0 ? (int32_t)c->threads : t.n_thread;
    p.isa = c->isa;
    p.memory_bytes = (uint64_t)c->memory_mib << 20;
    return hearth_box_open(&p, box);
}

void open_params(const struct conf *c, struct hearth_model_params *p)
{
    hearth_model_init(p);
    p->n_ctx = (int32_t)c->ctx;
    p->n_parallel = (int32_t)c->parallel;
    p->n_batch = tuned_read().n_batch;
    p->kv = c->kv;
    p->draft = c->draft;
}

bool open_is_tuned(void)
{
    return tuned_read().n_batch > 0;
}

#define TENTH (1024.0 * 1024.0 / 10.0) /* of a MiB */

double open_mib_up(uint64_t bytes)
{
    return ceil((double)bytes / TENTH) / 10.0;
}

double open_mib_down(uint64_t bytes)
{
    return floor((double)bytes / TENTH) / 10.0;
}

void open_put_rate(struct buf *out, const char *before, double rate)
{
    buf_printf(out, "%s%.*f", before, rate < 10.0 ? 2 : rate < 100.0 ? 1 : 0, rate);
}

hearth_status open_fits(const struct conf *c, const struct hearth_plan *p, const char *advice)
{
    if (p->fits) {
        return HEARTH_OK;
    }
    return (hearth_status)err_set(
        ERR_MEMORY, "this needs %.1f MiB, %.1f MiB are available (%s): %schoose a smaller model%s",
        open_mib_up(p->total_bytes), open_mib_down(p->available_bytes), p->available_from,
        p->least_bytes < p->available_bytes ? advice : "",
        p->available_bytes == (uint64_t)c->memory_mib << 20 ? ", or a larger --memory" : "");
}

static void show_bar(void *arg, double done)
{
    progress_share(arg, done);
}

/* What run -v says of its memory, before it takes it; what is refused is told by the refusal. */
static void tell_memory(const struct conf *c, struct hearth_box *box, const char *path,
                        const struct hearth_model_params *p)
{
    struct hearth_plan plan = { .size = sizeof plan };
    if (c->command == CONF_RUN && c->is_verbose && !c->is_json &&
        hearth_plan_make(box, path, p, &plan) == HEARTH_OK && plan.fits) {
        fprintf(stderr,
                "[memory: %.1f MiB planned, %.1f of them for text; %.1f MiB available (%s)]\n",
                open_mib_up(plan.total_bytes), open_mib_up(p->extra_bytes),
                open_mib_down(plan.available_bytes), plan.available_from);
    }
}

hearth_status open_all(const struct conf *c, const char *path, uint64_t extra_bytes,
                       struct open_model *out)
{
    struct hearth_model_params p;
    struct progress bar;
    hearth_status s = open_box(c, &out->box);
    if (s != HEARTH_OK) {
        return s;
    }
    open_params(c, &p);
    p.extra_bytes = extra_bytes;
    p.progress = show_bar;
    p.progress_arg = &bar;
    tell_memory(c, out->box, path, &p);
    progress_begin_short(&bar, "loading", 0);
    s = hearth_model_open(out->box, path, &p, &out->model);
    progress_share(&bar, 1.0);
    if (s == HEARTH_OK) {
        hearth_model_get_info(out->model, &out->info);
    }
    return s;
}

void open_close(struct open_model *o)
{
    hearth_model_close(o->model);
    hearth_box_close(o->box);
    *o = (struct open_model){ 0 };
}

static struct named {
    const char *path; /* borrows */
    const char *name; /* borrows */
} named[2];           /* owner: the main thread */
static size_t n_named;

void open_name(const char *path, const char *name)
{
    if (n_named < sizeof named / sizeof named[0]) {
        named[n_named++] = (struct named){ path, name };
    }
}

/* Memory that was refused on the way may have been so by a limit that the box knows nothing of. */
static void add_limit(struct buf *line, int which, const char *of_what, const char *option)
{
    struct rlimit r;
    if (getrlimit(which, &r) == 0 && r.rlim_cur != RLIM_INFINITY) {
        buf_printf(line, " (this process may have %llu MiB of %s, which ulimit %s unlimited lifts)",
                   (unsigned long long)r.rlim_cur >> 20, of_what, option);
    }
}

/* How much of `text` is a path that has a name: as it is, or as a word for a shell. */
static size_t path_at(const char *text, const struct named *n)
{
    struct buf word;
    size_t len = strlen(n->path);
    if (text[0] == '\'') { /* paths are whole, so none begins so */
        buf_init(&word, (size_t)8 * OS_PATH_BYTES);
        buf_add_word(&word, n->path);
        len = strncmp(text, buf_str(&word), word.n) == 0 ? word.n : 0;
        buf_release(&word);
        return len;
    }
    return strncmp(text, n->path, len) == 0 ? len : 0;
}

int open_fail(hearth_status status)
{
    struct buf line; /* written at once */
    buf_init(&line, 65536);
    for (const char *text = hearth_error(); *text != '\0';) {
        size_t n = 0;
        size_t i = 0;
        while (i < n_named && (n = path_at(text, &named[i])) == 0) {
            i++;
        }
        if (n > 0) {
            buf_add_str(&line, named[i].name);
            text += n;
        } else {
            buf_add_char(&line, *text++);
        }
    }
    if (status == HEARTH_MEMORY && strstr(buf_str(&line), "ulimit") == NULL) {
        add_limit(&line, RLIMIT_AS, "addresses", "-v");
        add_limit(&line, RLIMIT_DATA, "data", "-d");
    }
    fprintf(stderr, "hearth: %s\n", buf_str(&line));
    buf_release(&line);
    return (int)status;
}
