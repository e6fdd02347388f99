/* cmd_plan - `hearth plan`: what a model takes on this box, and how fast it will be
 *
 * Prints the plan that opening the model would follow, line by line, against what the box and its
 * cgroup have left, as a table and as a bar with a letter for each line. Only the file's header is
 * read; nothing is loaded. The figures are those of the forward pass run dry, not estimates, and
 * opening the model follows them.
 *
 * Speeds are predicted from the memory's speed, the kernels and, if weights are read from the disk,
 * that of the file, all tried just now (hearth_predict), for a conversation that begins and one
 * that fills its context; a box on which other programs run is predicted as busy as it is. Where
 * there is no room to try anything, that is said instead.
 *
 * A model that does not fit is an answer and no failure: the plan is printed as a whole, with what
 * is missing and the nearest plans that fit (nearest.c), and only the exit code is that of
 * HEARTH_MEMORY, for scripts. Text and JSON print the same struct; "parts" add up to "total_bytes".
 *
 * The same model takes more as a chat, for its text, and as a service, for its clients: both plans
 * are told beside, since whoever plans wants to know, and decide nothing.
 *
 * Sums of what is printed are right as printed: parts are differences of rounded sums.
 *
 * All plans are made before anything is tried, since what that leaves in memory would count.
 *
 * Next: engine/plan.c. */
#include "cmd/cmd_plan.h"

#include "base/js.h"
#include "cmd/cmd_run.h"
#include "cmd/cmd_serve.h"
#include "cmd/nearest.h"
#include "cmd/open.h"
#include "cmd/pools.h"
#include "cmd/progress.h"
#include "lib/box.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MIB       (1024.0 * 1024.0)
#define BAR_CELLS 60
#define BAR_MOST  200
#define OUT_MAX   ((size_t)1 << 20)
#define EMPTY     0
#define FULL      1

/* Everything that is printed. */
struct report {
    const struct conf *conf;
    struct hearth_plan plan;
    struct hearth_plan chat;        /* the same as `hearth run` */
    struct hearth_plan serve;       /* and as a service */
    char letter[HEARTH_PLAN_PARTS]; /* of each part, in the bar */
    hearth_status speed_status;     /* OK: the speeds are told */
    char speed_fault[ERR_TEXT_MAX]; /* else why not */
    struct hearth_speed one[2];     /* one conversation, its context empty and full */
    struct hearth_speed all[2];     /* all that run at once */
    int n_near;
    struct nearest near[NEAREST_MAX];
    struct pool pool;
};

/* Each part's letter: one of its name, small or large, that no part before has. */
static void choose_letters(struct report *r)
{
    for (int32_t i = 0; i < r->plan.n_part; i++) {
        const char *name = r->plan.part[i].name;
        char c = '#';
        for (size_t k = 0; k < 2 * strlen(name) && c == '#'; k++) {
            const unsigned char own = (unsigned char)name[k / 2];
            const char x = (char)(k % 2 == 0 ? toupper(own) : own);
            c = isalpha(own) && memchr(r->letter, x, (size_t)i) == NULL ? x : c;
        }
        r->letter[i] = c;
    }
}

/* The parts in turn, what is free as dots; where all is more than there is, a mark at its end. */
static void put_bar(struct buf *out, const struct report *r, int n_cell)
{
    const struct hearth_plan *p = &r->plan;
    const uint64_t whole = p->fits ? p->available_bytes : p->total_bytes;
    char bar[BAR_MOST + 1];
    uint64_t sum = 0;
    int n = 0;
    for (int32_t i = 0; i < p->n_part; i++) {
        sum += p->part[i].bytes;
        const double end = whole > 0 ? floor((double)sum / (double)whole * n_cell + 0.5) : 0.0;
        while (n < n_cell && n < (int)end) {
            bar[n++] = r->letter[i];
        }
    }
    while (n < n_cell) {
        bar[n++] = '.';
    }
    bar[n] = '\0';
    buf_printf(out, "  [%s]\n", bar);
    if (!p->fits) {
        const double at = (double)p->available_bytes / (double)whole * n_cell;
        buf_printf(out, "   %*s^ available\n", (int)at < n_cell ? (int)at : n_cell - 1, "");
    }
}

static void put_speed(struct buf *out, const struct report *r)
{
    const struct hearth_plan *p = &r->plan;
    if (r->speed_status != HEARTH_OK) {
        buf_printf(out, "Speed: not predicted: %s.\n", r->speed_fault);
        return;
    }
    open_put_rate(out, "Predicted: prompts ", r->one[EMPTY].prefill_tok_s);
    open_put_rate(out, " tok/s and answers ", r->one[EMPTY].decode_tok_s);
    open_put_rate(out, " at an empty context, ", r->one[FULL].prefill_tok_s);
    open_put_rate(out, " and ", r->one[FULL].decode_tok_s);
    buf_add_str(out, " at a full one");
    if (p->n_parallel > 1) {
        buf_printf(out, "; %d answers together", p->n_parallel);
        open_put_rate(out, " ", r->all[EMPTY].decode_tok_s);
        open_put_rate(out, " and ", r->all[FULL].decode_tok_s);
    }
    buf_printf(out, ".\nMade of: memory read at %.1f GB/s", r->one[EMPTY].read_gb_s);
    if (p->step_disk_bytes > 0) {
        buf_printf(out, ", the file at %.2f GB/s", r->one[EMPTY].disk_gb_s);
    }
    buf_printf(out, " and this model's operations tried on made up weights, %s just now.\n",
               p->step_disk_bytes > 0 ? "all" : "both");
    if (r->one[EMPTY].core_share < OPEN_SHARED) {
        buf_printf(out, "Just then " OPEN_SHARED_TEXT "; alone on an idle box it is faster.\n",
                   100.0 * r->one[EMPTY].core_share);
    }
}

static void put_near(struct buf *out, const struct report *r)
{
    const struct hearth_plan *p = &r->plan;
    if (r->n_near == 0) {
        buf_printf(out,
                   "No plan for this model fits: with a chat's text it takes more than %.1f MiB "
                   "with any context, %.1f MiB are available (%s).\n",
                   open_mib_up(r->chat.least_bytes), open_mib_down(p->available_bytes),
                   p->available_from);
        return;
    }
    buf_printf(out, "Nearest plans that %s, also as a chat:\n", p->fits ? "stay in memory" : "fit");
    nearest_put(r->near, r->n_near, out);
}

/* Of a plan that does not fit; as printed, sum less what there is. */
static double missing_mib(const struct hearth_plan *p)
{
    return open_mib_up(p->total_bytes) - open_mib_down(p->available_bytes);
}

/* What to lower, in words: also where nothing of it is enough by itself. */
static void put_advice(struct buf *out, const struct report *r)
{
    const struct hearth_plan *p = &r->plan;
    const char *kv = r->conf->kv;
    const bool has_small_kv = kv != NULL && strcmp(kv, "q8_0") == 0;
    const bool helps_context = p->least_bytes < p->available_bytes;
    buf_printf(out, "Choose %s%s%s%sa smaller model%s: %.1f MiB are missing.\n",
               helps_context ? "a smaller --ctx" : "",
               helps_context && p->n_parallel > 1 ? ", fewer at once" : "",
               helps_context && !has_small_kv ? ", --kv q8_0" : "", helps_context ? " or " : "",
               r->conf->draft != NULL ? " or no --draft" : "", missing_mib(p));
    put_near(out, r);
}

/* The same model as something else: v. more: what it is that takes more than p, said where both
 * are alike otherwise. lower: what would make it less, where it does not fit. */
static void put_other(struct buf *out, const struct hearth_plan *p, const struct hearth_plan *v,
                      const char *more, const char *lower)
{
    const double all = open_mib_up(v->total_bytes);
    const double own = open_mib_up(p->total_bytes);
    if (v->n_parallel == p->n_parallel && v->step_disk_bytes == p->step_disk_bytes && all > own) {
        buf_printf(out, " it takes %.1f MiB more, for %s,", all - own, more);
    } else {
        buf_add_str(out, " it takes");
    }
    buf_printf(out, " %.1f MiB in all: that ", all);
    if (v->fits) {
        buf_add_str(out, "fits");
    } else {
        buf_printf(out, "does not fit, %.1f MiB are missing", missing_mib(v));
    }
    if (v->step_disk_bytes > 0) {
        buf_printf(
            out,
            v->fits
                ? ", with %.1f MiB read from the disk for each step"
                : " even where %.1f MiB of weights are left on the disk, to be read for each step",
            (double)v->parallel_disk_bytes / MIB);
    }
    buf_printf(out, "%s%s.\n", p->fits && !v->fits ? "; lower " : "",
               p->fits && !v->fits ? lower : "");
}

static void put_parts(struct buf *out, const struct report *r)
{
    const struct hearth_plan *p = &r->plan;
    uint64_t sum = 0;
    double before = 0.0;
    for (int32_t i = 0; i < p->n_part; i++) {
        sum += p->part[i].bytes;
        const double now = i + 1 < p->n_part ? floor((double)sum / MIB * 10.0 + 0.5) / 10.0
                                             : open_mib_up(p->total_bytes);
        buf_printf(out, "  %c %-24s %10.1f MiB\n", r->letter[i], p->part[i].name, now - before);
        before = now;
    }
}

static void put_text(struct buf *out, const struct report *r)
{
    const struct hearth_plan *p = &r->plan;
    const struct hearth_plan *v = &r->serve;
    const int width = progress_columns(1, BAR_CELLS + 4) - 4;
    buf_printf(out, "context %d tokens, %d at once, prompts in pieces of %d%s\n\n", p->n_ctx,
               p->n_parallel, p->n_batch,
               open_is_tuned() ? " (threads and pieces as hearth tune chose)" : "");
    put_parts(out, r);
    buf_printf(out, "    %-24s %10.1f MiB\n", "total", open_mib_up(p->total_bytes));
    buf_printf(out, "    %-24s %10.1f MiB  (%s)\n", "available", open_mib_down(p->available_bytes),
               p->available_from);
    put_bar(out, r, width < 10 ? 10 : width < BAR_MOST ? width : BAR_MOST);
    buf_printf(out,
               "\n%s. One token reads %.1f MiB at an empty context and adds %.1f KiB of cache.\n",
               p->fits ? "It fits" : "It does not fit", (double)p->step_read_bytes / MIB,
               (double)p->token_kv_bytes / 1024.0);
    if (p->n_kept > 0) {
        buf_printf(out,
                   "%d of %d experts have room in memory; a token of an answer reads some %.1f MiB "
                   "of others from the disk, ",
                   p->n_kept, p->n_expert, (double)p->step_disk_bytes / MIB);
        if (p->n_parallel > 1) {
            buf_printf(out, "one of each of %d at once %.1f MiB, ", p->n_parallel,
                       (double)p->parallel_disk_bytes / MIB);
        }
        buf_printf(out, "a piece of a prompt %.1f MiB.\n", (double)p->piece_disk_bytes / MIB);
    } else if (p->step_disk_bytes > 0) {
        buf_printf(out,
                   "Not all stays in memory: each step, of one token or of a piece of a prompt, "
                   "reads %.1f MiB from the disk.\n",
                   (double)p->step_disk_bytes / MIB);
    }
    put_speed(out, r);
    if (!p->fits) {
        put_advice(out, r);
    } else if (r->n_near > 0) {
        put_near(out, r);
    }
    buf_printf(out, "As a chat (hearth run --ctx %d)", p->n_ctx);
    put_other(out, p, &r->chat, "its text", "--ctx");
    buf_printf(out, "As a service (hearth serve --parallel %d --ctx %d)", v->n_parallel, v->n_ctx);
    put_other(out, p, v, "clients", "--max-body, --max-clients, --parallel or --ctx");
    pools_put_text(out, &r->pool, p->total_bytes);
}

static void json_speeds(struct buf *out, const char *name, const struct hearth_speed *one,
                        const struct hearth_speed *all)
{
    buf_printf(out,
               "\"%s\": {\"depth\": %d, \"prefill_tok_s\": %.2f, \"decode_tok_s\": %.2f, "
               "\"decode_all_tok_s\": %.2f}",
               name, one->n_depth, one->prefill_tok_s, one->decode_tok_s, all->decode_tok_s);
}

static void json_near(struct buf *out, const struct report *r)
{
    buf_add_str(out, ", \"nearest\": [");
    for (int i = 0; i < r->n_near; i++) {
        const struct nearest *n = &r->near[i];
        struct buf line;
        buf_init(&line, OUT_MAX);
        nearest_command(n, &line);
        buf_printf(out, "%s{\"change\": \"%s\", \"command\": ", i > 0 ? ", " : "", n->change);
        js_put_string(out, buf_view(&line), false);
        buf_add_str(out, ", \"model\": ");
        js_put_string(out, view_of(n->model), false);
        buf_printf(out,
                   ", \"ctx\": %d, \"parallel\": %d, \"kv\": \"%s\", \"total_bytes\": %llu, "
                   "\"step_disk_bytes\": %llu, \"store_bytes\": %llu, \"store_free_bytes\": %llu",
                   n->plan.n_ctx, n->plan.n_parallel, n->conf.kv != NULL ? n->conf.kv : "f16",
                   (unsigned long long)n->plan.total_bytes,
                   (unsigned long long)n->plan.step_disk_bytes, (unsigned long long)n->store_bytes,
                   (unsigned long long)n->store_free_bytes);
        if (n->decode_tok_s > 0.0) {
            buf_printf(out,
                       ", \"prefill_tok_s\": %.2f, \"decode_all_tok_s\": %.2f, "
                       "\"full_decode_all_tok_s\": %.2f}",
                       n->prefill_tok_s, n->decode_tok_s, n->full_decode_tok_s);
        } else {
            buf_add_str(out, ", \"prefill_tok_s\": null, \"decode_all_tok_s\": null, "
                             "\"full_decode_all_tok_s\": null}");
        }
        buf_release(&line);
    }
    buf_add_char(out, ']');
}

static void put_json(struct buf *out, const struct report *r)
{
    const struct hearth_plan *p = &r->plan;
    const struct hearth_plan *v = &r->serve;
    buf_printf(out,
               "{\"version\": 1, \"total_bytes\": %llu, \"least_bytes\": %llu, "
               "\"available_bytes\": %llu, \"available_from\": "
               "\"%s\", \"fits\": %s, \"run_total_bytes\": %llu, \"run_fits\": %s, "
               "\"serve_total_bytes\": %llu, \"serve_fits\": %s, "
               "\"serve_step_disk_bytes\": %llu, "
               "\"ctx\": %d, \"parallel\": %d, \"batch\": %d, \"step_read_bytes\": %llu, "
               "\"token_kv_bytes\": %llu, \"window_kv_bytes\": %llu, \"window\": %llu, "
               "\"step_disk_bytes\": %llu, \"parallel_disk_bytes\": %llu, "
               "\"piece_disk_bytes\": %llu, \"experts\": %d, "
               "\"experts_kept\": %d, \"parts\": [",
               (unsigned long long)p->total_bytes, (unsigned long long)p->least_bytes,
               (unsigned long long)p->available_bytes, p->available_from,
               p->fits ? "true" : "false", (unsigned long long)r->chat.total_bytes,
               r->chat.fits ? "true" : "false", (unsigned long long)v->total_bytes,
               v->fits ? "true" : "false", (unsigned long long)v->step_disk_bytes, p->n_ctx,
               p->n_parallel, p->n_batch, (unsigned long long)p->step_read_bytes,
               (unsigned long long)p->token_kv_bytes, (unsigned long long)p->window_kv_bytes,
               (unsigned long long)p->window, (unsigned long long)p->step_disk_bytes,
               (unsigned long long)p->parallel_disk_bytes, (unsigned long long)p->piece_disk_bytes,
               p->n_expert, p->n_kept);
    for (int32_t i = 0; i < p->n_part; i++) {
        buf_printf(out, "%s{\"name\": \"%s\", \"bytes\": %llu}", i > 0 ? ", " : "", p->part[i].name,
                   (unsigned long long)p->part[i].bytes);
    }
    buf_add_str(out, "], ");
    pools_put_json(out, &r->pool);
    buf_add_str(out, ", \"speed\": ");
    if (r->speed_status == HEARTH_OK) {
        buf_printf(out, "{\"read_gb_s\": %.2f, \"disk_gb_s\": ", r->one[EMPTY].read_gb_s);
        if (p->step_disk_bytes > 0) {
            buf_printf(out, "%.3f, ", r->one[EMPTY].disk_gb_s);
        } else {
            buf_add_str(out, "null, ");
        }
        buf_printf(out, "\"core_percent\": %.1f, ", 100.0 * r->one[EMPTY].core_share);
        json_speeds(out, "empty", &r->one[EMPTY], &r->all[EMPTY]);
        buf_add_str(out, ", ");
        json_speeds(out, "full", &r->one[FULL], &r->all[FULL]);
        buf_add_char(out, '}');
    } else {
        buf_add_str(out, "null, \"speed_fault\": ");
        js_put_string(out, view_of(r->speed_fault), false);
    }
    if (!p->fits || p->step_disk_bytes > 0) {
        json_near(out, r);
    }
    buf_add_str(out, "}\n");
}

/* A piece of a prompt and an answer's token, where the context begins and where it ends. */
static void predict(struct hearth_box *box, const char *path, struct hearth_model_params *p,
                    struct report *r)
{
    const struct hearth_plan *plan = &r->plan;
    struct hearth_speed at[4];
    for (int i = 0; i < 2; i++) {
        const bool is_full = i == FULL;
        at[i] = (struct hearth_speed){ .n_prompt = plan->n_batch,
                                       .n_depth = is_full ? plan->n_ctx - plan->n_batch : 0,
                                       .n_parallel = 1,
                                       .step_disk_bytes = plan->step_disk_bytes,
                                       .piece_disk_bytes = plan->piece_disk_bytes };
        at[2 + i] = (struct hearth_speed){ .n_depth = is_full ? plan->n_ctx - 1 : 0,
                                           .n_parallel = plan->n_parallel,
                                           .step_disk_bytes = plan->step_disk_bytes,
                                           .piece_disk_bytes = plan->piece_disk_bytes };
    }
    p->n_ctx = plan->n_ctx;
    p->n_batch = plan->n_batch;
    r->speed_status = hearth_predict(box, path, p, at, 4);
    snprintf(r->speed_fault, sizeof r->speed_fault, "%s",
             r->speed_status != HEARTH_OK ? hearth_error() : "");
    memcpy(r->one, at, sizeof r->one);
    memcpy(r->all, at + 2, sizeof r->all);
    if (r->speed_status == HEARTH_OK) {
        nearest_predict(box, &at[0], r->near, r->n_near);
    }
}

/* As `hearth run` would plan it, and `hearth serve`, for conversations of the same length. */
static hearth_status plan_others(struct hearth_box *box, const char *path, struct report *r)
{
    struct hearth_model_params p;
    open_params(r->conf, &p);
    p.n_ctx = r->plan.n_ctx;
    p.n_parallel = 1;
    p.extra_bytes = cmd_run_extra_bytes(r->conf);
    const hearth_status s = hearth_plan_make(box, path, &p, &r->chat);
    cmd_serve_params(r->conf, &p);
    p.n_ctx = r->plan.n_ctx;
    p.n_parallel = r->plan.n_parallel;
    return s == HEARTH_OK ? hearth_plan_make(box, path, &p, &r->serve) : s;
}

/* What is nearest has to run as a chat, too, and is told without. */
static void fill_near(const struct conf *c, bool is_tried, struct hearth_model_params *p)
{
    open_params(c, p);
    p->extra_bytes = is_tried ? cmd_run_extra_bytes(c) : 0;
}

int cmd_plan(const struct conf *c, const char *path)
{
    static struct report r; /* large; owner: the main thread */
    struct hearth_box *box = NULL;
    struct hearth_model_params p;
    struct buf out;
    r = (struct report){ .conf = c };
    hearth_status s = open_box(c, &box);
    open_params(c, &p);
    s = s == HEARTH_OK ? hearth_plan_read(box, path, &p, &r.plan, &r.pool.host) : s;
    s = s == HEARTH_OK ? plan_others(box, path, &r) : s;
    if (s != HEARTH_OK) {
        hearth_box_close(box);
        return open_fail(s);
    }
    pool_read_gpus(&r.pool, NULL);
    if (!r.plan.fits || r.plan.step_disk_bytes > 0) {
        r.n_near = nearest_find(box, c, path, &r.plan, fill_near, r.near);
    }
    predict(box, path, &p, &r);
    hearth_box_close(box);
    choose_letters(&r);
    buf_init(&out, OUT_MAX);
    (c->is_json ? put_json : put_text)(&out, &r);
    fputs(buf_str(&out), stdout);
    buf_release(&out);
    return r.plan.fits ? 0 : (int)HEARTH_MEMORY;
}
