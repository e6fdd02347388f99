/* tuned - the settings that `hearth tune` found best on this box
 *
 * The file is state, not configuration: the program made it and can make it again, nobody edits it.
 * There is one for each number of logical processors that may be used, so that a process bound to
 * some of them (taskset, a container) neither uses nor overwrites what holds for all; two sets of
 * the same size share one. It says for which processor and
 * version of hearth it holds; one that says something else is passed over with a note, since other
 * kernels have other best settings. A file that makes no sense is passed over in the same way: it
 * may never keep a model from starting (pieces of a prompt that do not fit become the usual ones,
 * hearth.h).
 *
 * Rejected: a profile per model. What is best depends on the box far more than on the model, and a
 * model that comes later should gain too.
 *
 * Next: cmd/cmd_tune.c measures, cmd/open.c uses it. */
#include "cmd/tuned.h"

#include "base/cpu.h"
#include "base/js.h"
#include "base/log.h"
#include "base/os.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX  4096
#define BATCH_MAX 8192

static enum err tuned_path(struct buf *path)
{
    TRY(os_dir(OS_DIR_STATE, path));
    buf_printf(path, "/tune-%d.json", cpu_get()->n_core);
    return ERR_OK;
}

static bool is_text(const struct js *v, const char *text)
{
    return view_eq(js_string(v), view_of(text));
}

/* Why it does not hold here; NULL: it does. */
static const char *why_not(const struct js *v)
{
    const int64_t n_thread = js_int(js_get(v, "threads"));
    const int64_t n_batch = js_int(js_get(v, "batch"));
    if (js_string(js_get(v, "version")).p == NULL || js_string(js_get(v, "processor")).p == NULL) {
        return "damaged";
    }
    if (!is_text(js_get(v, "version"), HEARTH_VERSION)) {
        return "of another version of hearth";
    }
    if (!is_text(js_get(v, "processor"), cpu_get()->name)) {
        return "of another processor";
    }
    const bool is_usable =
        n_thread >= 1 && n_thread <= cpu_get()->n_core && n_batch >= 1 && n_batch <= BATCH_MAX;
    return is_usable ? NULL : "damaged";
}

static struct tuned take(const struct js *v, const char *path)
{
    const char *why = why_not(v);
    if (why != NULL) {
        log_event(LOG_WARN, "tune",
                  "msg=\"the profile is %s and not used; run hearth tune again\" path=\"%s\"", why,
                  path);
        return (struct tuned){ 0 };
    }
    const int64_t n_thread = js_int(js_get(v, "threads"));
    const int64_t n_batch = js_int(js_get(v, "batch"));
    log_event(LOG_INFO, "tune", "msg=\"profile\" threads=%" PRId64 " batch=%" PRId64 " path=\"%s\"",
              n_thread, n_batch, path);
    return (struct tuned){ (int32_t)n_thread, (int32_t)n_batch };
}

struct tuned tuned_read(void)
{
    static struct tuned t;
    static bool is_read;
    if (is_read) {
        return t;
    }
    is_read = true;
    struct buf path;
    struct os_file f = { .fd = -1 };
    struct js *root = NULL;
    char text[FILE_MAX];
    buf_init(&path, FILE_MAX);
    if (tuned_path(&path) == ERR_OK && os_exists(buf_str(&path))) {
        const bool is_open = os_open(&f, buf_str(&path)) == ERR_OK;
        const size_t n = is_open && f.size < sizeof text ? (size_t)f.size : 0;
        if (n > 0 && os_read_at(&f, text, n, 0) == ERR_OK &&
            js_parse((struct view){ text, n }, 2, &root) != ERR_OK) {
            root = NULL;
        }
        t = take(root, buf_str(&path));
        js_close(root);
    }
    os_close(&f);
    buf_release(&path);
    return t;
}

enum err tuned_prepare(struct buf *path)
{
    struct stat s;
    char why[ERR_TEXT_MAX];
    TRY(os_dir(OS_DIR_STATE, path));
    enum err e = os_make_dirs(buf_str(path));
    e = e == ERR_OK ? os_can_make(buf_str(path)) : e;
    if (e != ERR_OK) {
        snprintf(why, sizeof why, "%s", err_text());
        return err_set(e,
                       "%s; tune stores its profile in %s: mend that, or use another folder: "
                       "export XDG_STATE_HOME=/A/FOLDER",
                       why, buf_str(path));
    }
    buf_reset(path);
    TRY(tuned_path(path));
    REQUIRE(stat(buf_str(path), &s) != 0 || S_ISREG(s.st_mode), ERR_IO,
            "%s: a profile cannot be stored there: it is no ordinary file; remove it",
            buf_str(path));
    return ERR_OK;
}

enum err tuned_write(const struct tuned *t, const char *path)
{
    struct buf text;
    buf_init(&text, FILE_MAX);
    buf_add_str(&text, "{\"version\": ");
    js_put_string(&text, view_of(HEARTH_VERSION), false);
    buf_add_str(&text, ", \"processor\": ");
    js_put_string(&text, view_of(cpu_get()->name), false);
    buf_printf(&text, ", \"threads\": %d, \"batch\": %d}\n", t->n_thread, t->n_batch);
    const enum err e = os_write_file(path, (struct view){ buf_str(&text), text.n });
    buf_release(&text);
    if (e != ERR_OK) {
        char why[ERR_TEXT_MAX];
        snprintf(why, sizeof why, "%s", err_text());
        return err_set(e, "%s; free some space, or set XDG_STATE_HOME to another folder", why);
    }
    return ERR_OK;
}
