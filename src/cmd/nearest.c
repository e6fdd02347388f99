/* nearest - plans that fit, next to one that does not
 *
 * Whoever asks for too much learns what can be had: each of context, cache type and number of
 * conversations is lowered by itself until the plan fits, with the others as they are; where none
 * does alone, together. Of other quantizations of the same model, in its folder or in the store,
 * the largest that fits is named, or failing that one with a smaller context. Each is a plan that
 * was made, not an estimate, and a command to type.
 *
 * A service is lowered likewise in what its clients may send, which takes most of a small one's
 * memory. What the command takes beside the model has to fit as well: of a plan, a chat's text.
 *
 * Where less than half of the context stays in memory, one that fits with layers of a packed model
 * read from the disk is named. A model that could be had so if it were packed is told last,
 * with the command that packs it, and with its speed, which says what it is worth.
 *
 * What fits has to fit with a little less than is available, since that changes from one moment to
 * the next. What is told is the plan that the command will make.
 *
 * Models are the same where name (but for types in it), family and all dimensions are: a fine-tuned
 * one that took the name of its parent is taken for it. At most FILES_MAX headers are read.
 *
 * Rejected: an order by what hurts least. It depends on what the model is for.
 *
 * Next: cmd/cmd_serve.c, cmd/cmd_run.c and cmd/cmd_plan.c, which tell them. */
#include "cmd/nearest.h"

#include "cmd/open.h"
#include "cmd/store.h"
#include "model/arch.h"
#include "model/gguf.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define FILES_MAX  64
#define STEP_LARGE 256 /* tokens to which contexts are cut, and small ones */
#define STEP_SMALL 16
#define NAME_BYTES 128
#define SLACK      ((uint64_t)1 << 20)
#define MIB        (1024.0 * 1024.0)

struct search {
    struct hearth_box *box;
    const struct conf *conf; /* asked for */
    const char *path;
    const struct hearth_plan *plan;
    nearest_params *fill;
    struct nearest *out;
    int n;
    bool may_read; /* from the disk, for each step */
};

/* Whether a model with these options fits, and stays in memory if it has to; only then *plan is its
 * plan. */
static bool try_plan(const struct search *s, const struct conf *c, const char *path,
                     struct hearth_plan *plan)
{
    struct hearth_model_params p;
    struct hearth_plan made = { .size = sizeof made };
    s->fill(c, true, &p);
    p.extra_bytes += SLACK + s->plan->available_bytes / 256;
    if (hearth_plan_make(s->box, path, &p, &made) != HEARTH_OK) {
        return false;
    }
    const bool fits = made.fits && (s->may_read || made.step_disk_bytes == 0);
    *plan = fits ? made : *plan;
    return fits;
}

/* The largest value of an option that fits, below `most` and a multiple of `step`, with its plan;
 * 0: none. */
static int64_t largest(const struct search *s, struct conf *c, const char *path, int64_t *option,
                       int64_t most, int64_t step, struct hearth_plan *plan)
{
    int64_t fits = 0;
    int64_t too_many = (most + step - 1) / step; /* steps */
    while (too_many - fits > 1) {
        const int64_t middle = fits + (too_many - fits) / 2;
        *option = middle * step;
        if (try_plan(s, c, path, plan)) {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    *option = fits * step;
    return fits * step;
}

static void add(struct search *s, const char *change, const struct conf *c, const char *model,
                const char *path, const struct hearth_plan *plan)
{
    struct hearth_model_params p;
    struct hearth_plan told = { .size = sizeof told };
    s->fill(c, false, &p);
    if (s->may_read && plan->step_disk_bytes == 0) {
        return; /* told already, or another command's to tell */
    }
    if (s->n < NEAREST_MAX && strlen(model) < OS_PATH_BYTES && strlen(path) < OS_PATH_BYTES) {
        struct nearest *n = &s->out[s->n++];
        *n = (struct nearest){ .change = change, .conf = *c, .plan = *plan };
        if (plan->packed_bytes == 0 && hearth_plan_make(s->box, path, &p, &told) == HEARTH_OK &&
            told.fits) {
            n->plan = told; /* without what was left free */
        }
        snprintf(n->model, sizeof n->model, "%s", model);
        snprintf(n->path, sizeof n->path, "%s", path);
        n->conf.model = n->model;
    }
}

/* The largest context that fits with the other options of c. */
static bool add_context(struct search *s, const char *change, struct conf c, const char *model,
                        const char *path)
{
    struct hearth_plan plan;
    const int64_t most = s->plan->n_ctx;
    const int64_t step = most > 4 * STEP_LARGE ? STEP_LARGE : STEP_SMALL;
    const bool is_found =
        largest(s, &c, path, &c.ctx, most, step, &plan) > 0 ||
        (step == STEP_LARGE && largest(s, &c, path, &c.ctx, STEP_LARGE, STEP_SMALL, &plan) > 0);
    if (is_found) {
        add(s, change, &c, model, path, &plan);
    }
    return is_found;
}

/* --- the same model in other types --- */

struct model_id {
    struct arch arch;
    char name[NAME_BYTES];
    uint64_t bytes;
};

/* "Q4_0", "IQ2_XXS", "Q4_K_M", "F16": some names end so. */
static bool is_type(struct view word)
{
    size_t i = word.n > 2 && (word.p[0] == 'I' || word.p[0] == 'T') ? 1 : 0;
    const bool is_quant =
        word.n > i + 1 && word.p[i] == 'Q' && isdigit((unsigned char)word.p[i + 1]);
    return is_quant || view_is(word, "F16") || view_is(word, "BF16") || view_is(word, "F32") ||
           view_is(word, "MXFP4") || view_is(word, "NVFP4");
}

/* The words of a model's name, without types. */
static void bare_name(struct view name, char out[NAME_BYTES])
{
    size_t n = 0;
    for (size_t at = 0; at < name.n;) {
        size_t end = at;
        while (end < name.n && memchr(" ,-.:/", name.p[end], 6) == NULL) {
            end++;
        }
        const struct view word = view_part(name, at, end - at);
        for (size_t i = 0; i < word.n && !is_type(word) && n + 2 < NAME_BYTES; i++) {
            out[n++] = word.p[i];
        }
        at = end + 1;
    }
    out[n] = '\0';
}

static bool read_id(const char *path, struct model_id *id)
{
    struct gguf *g = NULL;
    struct view name = { NULL, 0 };
    bool found = false;
    enum err e = gguf_open(&g, path);
    e = e == ERR_OK ? arch_read(&id->arch, g) : e;
    e = e == ERR_OK ? gguf_string(g, "general.name", &name, &found) : e;
    if (e == ERR_OK) {
        bare_name(found ? name : (struct view){ "", 0 }, id->name);
        id->bytes = gguf_file_bytes(g);
    }
    gguf_close(g);
    return e == ERR_OK;
}

static bool is_same(const struct model_id *a, const struct model_id *b)
{
    const struct arch *x = &a->arch;
    const struct arch *y = &b->arch;
    return x->recipe == y->recipe && strcmp(a->name, b->name) == 0 && x->n_layer == y->n_layer &&
           x->n_embd == y->n_embd && x->n_ff == y->n_ff && x->n_head == y->n_head &&
           x->n_kv == y->n_kv && x->hd_k == y->hd_k && x->n_vocab == y->n_vocab;
}

/* The best of the others so far: the largest that fits as a whole, else the smallest. */
struct other {
    struct model_id own;
    bool has_one;
    bool has_plan;
    uint64_t bytes;
    struct hearth_plan plan;
    char model[OS_PATH_BYTES];
    char path[OS_PATH_BYTES];
};

static void look_at(const struct search *s, struct other *o, const char *model, const char *path)
{
    static struct model_id id; /* large; owner: the main thread */
    struct hearth_plan plan = { 0 };
    if (!read_id(path, &id) || !is_same(&id, &o->own) || id.bytes > o->own.bytes / 64 * 63) {
        return;
    }
    const bool fits = try_plan(s, s->conf, path, &plan);
    const bool is_better = fits ? !o->has_plan || id.bytes > o->bytes
                                : !o->has_plan && (!o->has_one || id.bytes < o->bytes);
    if (is_better) {
        o->has_one = true;
        o->has_plan = fits;
        o->bytes = id.bytes;
        o->plan = plan;
        snprintf(o->model, sizeof o->model, "%s", model);
        snprintf(o->path, sizeof o->path, "%s", path);
    }
}

static void look_in_folder(const struct search *s, struct other *o)
{
    static struct store_walk w; /* large; owner: the main thread */
    char folder[OS_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s", s->path);
    char *slash = strrchr(folder, '/');
    const char *name = slash != NULL ? slash + 1 : s->path;
    const size_t n_before = slash != NULL ? (size_t)(name - folder) : 0;
    if (slash != NULL) {
        slash[slash == folder] = '\0';
    }
    store_walk_open(&w, slash != NULL ? folder : ".");
    int n_file = 0;
    while (store_walk_next(&w)) { /* to the end, which closes it */
        char path[OS_PATH_BYTES];
        if (!view_ends(w.name, VIEW(".gguf")) || view_is(w.name, s->path + n_before) ||
            n_file++ >= FILES_MAX) {
            continue;
        }
        const int n = snprintf(path, sizeof path, "%.*s%.*s", (int)n_before, s->path, (int)w.name.n,
                               w.name.p);
        if (n > 0 && (size_t)n < sizeof path) {
            look_at(s, o, path, path);
        }
    }
}

static void look_in_store(const struct search *s, struct other *o)
{
    struct store *st = NULL;
    struct store_model m = { 0 };
    char name[STORE_NAME_MAX] = "";
    bool found = store_open(&st) == ERR_OK;
    for (int i = 0; i < FILES_MAX && found; i++) {
        struct buf path;
        found = store_after(st, name, &m, &found) == ERR_OK && found;
        buf_init(&path, OS_PATH_BYTES);
        if (found && store_path(st, &m, &path) == ERR_OK && strcmp(buf_str(&path), s->path) != 0) {
            look_at(s, o, m.name, buf_str(&path));
        }
        snprintf(name, sizeof name, "%s", m.name);
        buf_release(&path);
        store_model_clear(&m);
    }
    store_close(st);
}

static void add_other(struct search *s)
{
    static struct other o; /* large; owner: the main thread */
    o = (struct other){ 0 };
    if (!read_id(s->path, &o.own)) {
        return;
    }
    if (store_is_file(s->conf->model)) {
        look_in_folder(s, &o);
    }
    look_in_store(s, &o);
    if (o.has_plan) {
        add(s, "a smaller quantization", s->conf, o.model, o.path, &o.plan);
    } else if (o.has_one) {
        add_context(s, "a smaller quantization, less context", *s->conf, o.model, o.path);
    }
}

/* --- packed --- */

/* What the store is called by, for a model that is not in it: the file's name without its end. */
static void store_name(const char *path, char out[STORE_NAME_MAX])
{
    const char *slash = strrchr(path, '/');
    struct view name = view_of(slash != NULL ? slash + 1 : path);
    name.n -= view_ends(name, VIEW(".gguf")) ? 5 : 0;
    snprintf(out, STORE_NAME_MAX, "%.*s", (int)(name.n < 100 ? name.n : 100), name.p);
    if (!store_name_is_good(out)) {
        snprintf(out, STORE_NAME_MAX, "packed");
    }
}

/* The plan of the same file packed. That is about as large; a file that is not in the store is
 * copied there as well. */
static void add_packed(struct search *s)
{
    static struct model_id id; /* large; owner: the main thread */
    struct hearth_plan plan = { .size = sizeof plan };
    struct hearth_model_params p;
    struct store *st = NULL;
    s->fill(s->conf, true, &p);
    if (s->plan->packed_bytes == 0 || s->n == NEAREST_MAX || !read_id(s->path, &id) ||
        hearth_plan_make(s->box, s->path, &p, &plan) != HEARTH_OK || plan.packed_bytes == 0) {
        return;
    }
    plan = *s->plan;
    plan.total_bytes = plan.packed_bytes;
    plan.step_disk_bytes = plan.packed_disk_bytes;
    plan.piece_disk_bytes = plan.packed_piece_bytes;
    plan.parallel_disk_bytes = plan.packed_parallel_bytes;
    add(s, "packed, with layers that do not fit read from the disk", s->conf, s->conf->model,
        s->path, &plan);
    struct nearest *n = &s->out[s->n - 1];
    n->is_packing = true;
    if (store_open(&st) == ERR_OK && store_room(store_partial(st), &n->store_free_bytes)) {
        n->store_bytes = id.bytes * (store_is_file(s->conf->model) ? 2 : 1);
    }
    store_close(st);
}

/* --- all of it --- */

/* Smaller requests; where these are not enough, of fewer clients. */
static void add_clients(struct search *s, struct conf c)
{
    struct hearth_plan plan;
    if (largest(s, &c, s->path, &c.max_body_mib, c.max_body_mib, 1, &plan) > 0) {
        add(s, "smaller requests", &c, s->conf->model, s->path, &plan);
        return;
    }
    c.max_body_mib = 1;
    if (largest(s, &c, s->path, &c.max_clients, c.max_clients, 1, &plan) > 0) {
        add(s, "smaller requests, fewer clients", &c, s->conf->model, s->path, &plan);
    }
}

int nearest_find(struct hearth_box *box, const struct conf *c, const char *path,
                 const struct hearth_plan *p, nearest_params *fill, struct nearest out[NEAREST_MAX])
{
    struct search s = { box, c, path, p, fill, out, 0, false };
    struct hearth_plan plan;
    struct conf own = *c;
    const bool has_small_kv = c->kv != NULL && strcmp(c->kv, "q8_0") == 0;
    own.kv = "q8_0";
    const bool fits_kv = !has_small_kv && try_plan(&s, &own, path, &plan);
    if (fits_kv) {
        add(&s, "a smaller cache type", &own, c->model, path, &plan);
    }
    const bool fits_context = add_context(&s, "less context", *c, c->model, path);
    if (!fits_kv && !has_small_kv) {
        own.ctx = c->ctx;
        add_context(&s, "a smaller cache type, less context", own, c->model, path);
    }
    own = *c;
    if (p->n_parallel > 1 && largest(&s, &own, path, &own.parallel, p->n_parallel, 1, &plan) > 0) {
        add(&s, "fewer at once", &own, c->model, path, &plan);
    } else if (p->n_parallel > 1 && !fits_context) {
        own.parallel = 1;
        own.kv = "q8_0";
        add_context(&s, "one at a time, a smaller cache type, less context", own, c->model, path);
    }
    own = *c;
    own.draft = NULL;
    if (c->draft != NULL && try_plan(&s, &own, path, &plan)) {
        add(&s, "no draft model", &own, c->model, path, &plan);
    }
    if (c->command == CONF_SERVE) {
        add_clients(&s, *c);
    }
    add_other(&s);
    add_packed(&s);
    int64_t most = 0; /* context that stays in memory */
    for (int i = 0; i < s.n; i++) {
        most = out[i].plan.n_ctx > most ? out[i].plan.n_ctx : most;
    }
    if (most < p->n_ctx / 2 && !p->fits) {
        s.may_read = true;
        add_context(&s, "less context, the rest read from the disk", *c, c->model, path);
        if (c->command == CONF_SERVE) {
            add_clients(&s, *c);
        }
    }
    return s.n;
}

static bool is_alike(const struct nearest *a, const struct nearest *b)
{
    const char *x = a->conf.kv != NULL ? a->conf.kv : "f16";
    const char *y = b->conf.kv != NULL ? b->conf.kv : "f16";
    return strcmp(a->path, b->path) == 0 && strcmp(x, y) == 0 && a->plan.n_batch == b->plan.n_batch;
}

void nearest_predict(struct hearth_box *box, const struct hearth_speed *known, struct nearest *all,
                     int n)
{
    for (int i = 0; i < n; i++) {
        struct hearth_speed at[2 * NEAREST_MAX];
        struct nearest *of[NEAREST_MAX];
        struct hearth_model_params p;
        size_t n_of = 0;
        for (int j = i; j < n && all[i].decode_tok_s <= 0.0; j++) {
            const struct hearth_plan *plan = &all[j].plan;
            if (is_alike(&all[i], &all[j])) {
                at[2 * n_of] = (struct hearth_speed){ .n_prompt = plan->n_batch,
                                                      .n_parallel = plan->n_parallel,
                                                      .read_gb_s = known->read_gb_s,
                                                      .disk_gb_s = known->disk_gb_s,
                                                      .step_disk_bytes = plan->step_disk_bytes,
                                                      .piece_disk_bytes = plan->piece_disk_bytes };
                at[2 * n_of + 1] = at[2 * n_of];
                at[2 * n_of + 1].n_prompt = 0;
                at[2 * n_of + 1].n_depth = plan->n_ctx - 1;
                of[n_of++] = &all[j];
            }
        }
        open_params(&all[i].conf, &p);
        p.n_batch = all[i].plan.n_batch;
        p.n_ctx = all[i].plan.n_ctx;
        if (n_of > 0 && hearth_predict(box, all[i].path, &p, at, 2 * n_of) == HEARTH_OK) {
            for (size_t k = 0; k < n_of; k++) {
                of[k]->prefill_tok_s = at[2 * k].prefill_tok_s;
                of[k]->decode_tok_s = at[2 * k].decode_tok_s;
                of[k]->full_decode_tok_s = at[2 * k + 1].decode_tok_s;
            }
        }
    }
}

void nearest_command(const struct nearest *n, struct buf *out)
{
    char name[STORE_NAME_MAX];
    if (!n->is_packing) {
        conf_line(&n->conf, out);
        return;
    }
    buf_add_str(out, n->model[0] == '-' ? "hearth pull --pack ./" : "hearth pull --pack ");
    buf_add_word(out, n->model);
    if (store_is_file(n->model)) {
        store_name(n->model, name);
        buf_printf(out, " --name %s", name);
    }
}

void nearest_put(const struct nearest *all, int n, struct buf *out)
{
    for (const struct nearest *x = all; x < all + n; x++) {
        buf_add_str(out, "  ");
        nearest_command(x, out);
        buf_printf(out, "\n      %s: %.1f MiB", x->change, open_mib_up(x->plan.total_bytes));
        if (x->plan.step_disk_bytes > 0) {
            buf_printf(out, ", %.1f read for each step", (double)x->plan.parallel_disk_bytes / MIB);
        }
        if (x->decode_tok_s > 0.0) {
            open_put_rate(out, ", prompts ", x->prefill_tok_s);
            open_put_rate(out, " tok/s, answers ", x->decode_tok_s);
            open_put_rate(out, ", ", x->full_decode_tok_s);
            buf_add_str(out, " at a full context");
        }
        if (x->store_bytes > x->store_free_bytes) {
            buf_printf(out,
                       "; but that takes %.1f MiB on the disk of the store, which has %.1f left",
                       (double)x->store_bytes / MIB, (double)x->store_free_bytes / MIB);
        }
        buf_add_char(out, '\n');
    }
}

void nearest_tell(struct hearth_box *box, const struct conf *c, const char *path,
                  const struct hearth_plan *p, nearest_params *fill)
{
    static struct nearest near[NEAREST_MAX]; /* large; owner: the main thread */
    struct buf out;
    const int n = nearest_find(box, c, path, p, fill, near);
    buf_init(&out, (size_t)4 * NEAREST_MAX * OS_PATH_BYTES);
    nearest_put(near, n, &out);
    if (n > 0) {
        fprintf(stderr, "hearth: nearest commands that fit:\n%s", buf_str(&out));
    }
    buf_release(&out);
}
