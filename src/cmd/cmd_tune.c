/* cmd_tune - `hearth tune`: the best settings for this box
 *
 * Two things are chosen, neither of which changes a bit of an answer: the number of threads (a
 * second thread of a core, or slow cores, may do more harm than good) and how much of a prompt is
 * computed in one piece (large pieces use the weights longer, small ones stay in the caches). The
 * defaults are measured first, then other numbers of threads, then other pieces with the best
 * threads. Another setting must be clearly better, since times vary, also than the defaults
 * measured again at the end. A few tokens tell first how many can be measured in some seconds. What
 * does not fit into the minute is left out and said; so is, in silence, what does not fit into
 * memory. A model that reads little for a token may stay in the caches, and its best settings are
 * not those of others: they are shown and not stored.
 *
 * Rejected: prefetch distances and tiles: the processor, its caches and the shape decide those
 * (cpu.h, kern_line), and six other distances gained nothing (docs/SPEED.md).
 *
 * Only the public library is used. Next: cmd/tuned.c. */
#include "cmd/cmd_tune.h"

#include "base/cpu.h"
#include "base/js.h"
#include "base/os.h"
#include "base/topo.h"
#include "cmd/open.h"
#include "cmd/trial.h"
#include "cmd/tuned.h"

#include <math.h>
#include <stdio.h>

#define PROMPT    1024
#define ANSWER    24
#define PROBE     16 /* tokens of the prompt that tells how long the others take */
#define PROMPT_US 4000000
#define ANSWER_US 1500000
#define BUDGET_US 50000000
#define BETTER    1.03 /* of what is measured, to be taken for better */
#define TRIES     7

struct setting {
    struct tuned set;
    double prefill_tok_s;
    double decode_tok_s;
};

struct tune {
    const struct conf *conf;
    const char *path;
    struct setting all[TRIES]; /* the first: the defaults */
    int n;
    int best;
    int32_t n_prompt; /* tokens that are measured; 0: not known yet */
    int32_t n_answer;
    struct progress bar;
    uint64_t longest_us;
    double core_share; /* of the threads' time, that they got with the defaults */
    bool is_small;     /* the model: what is best for it says nothing of others */
    bool is_cut;       /* time was over before everything was tried */
};

static void show(void *arg, double done)
{
    struct tune *t = arg;
    (void)done; /* of loading */
    progress_share(&t->bar, t->n / (TRIES + 2.0));
}

static hearth_status answer(struct tune *t, struct hearth_model *m, const int32_t *ids, int32_t n,
                            int32_t n_answer, struct hearth_event *e)
{
    struct hearth_request *r = NULL;
    hearth_status s = trial_submit(m, ids, n, 0, n_answer, &r);
    s = s == HEARTH_OK ? trial_drain(r, &t->bar, t->n / (TRIES + 2.0), e) : s;
    hearth_request_close(r);
    return s;
}

static double rate(double n, uint64_t us)
{
    return us > 0 ? 1e6 * n / (double)us : 0.0;
}

/* How many tokens take at most so long, when n took us. */
static int32_t tok_within(uint64_t most_us, uint64_t us, int32_t n, int32_t least, int32_t most)
{
    const uint64_t fit = us > 0 ? most_us * (uint64_t)n / us : (uint64_t)most;
    return fit < (uint64_t)least ? least : fit < (uint64_t)most ? (int32_t)fit : most;
}

static hearth_status measure_once(struct tune *t, struct hearth_model *m, const int32_t *ids,
                                  int32_t n, int32_t n_answer, struct setting *r,
                                  struct hearth_event *e)
{
    const hearth_status s = answer(t, m, ids, n, n_answer, e);
    r->prefill_tok_s = fmax(r->prefill_tok_s, rate(n, e->prefill_us));
    r->decode_tok_s = fmax(r->decode_tok_s, rate(e->n_generated - 1, e->decode_us));
    return s;
}

/* Chooses what is measured with every setting. On a slow box the few tokens are that already. */
static hearth_status probe(struct tune *t, struct hearth_model *m, const int32_t *ids, int32_t most,
                           struct setting *r)
{
    const int32_t n = most < PROBE ? most : PROBE;
    struct hearth_event e = { 0 };
    struct setting first = *r;
    const hearth_status s = measure_once(t, m, ids, n, 2, &first, &e);
    t->n_prompt = tok_within(PROMPT_US, e.prefill_us, n, n, most);
    t->n_answer = tok_within(ANSWER_US, e.decode_us, 1, 2, ANSWER);
    *r = t->n_prompt == n && t->n_answer == 2 ? first : *r;
    return s;
}

/* The best of two, or one when that takes long; of the defaults also the share of the cores. */
static hearth_status measure_model(struct tune *t, struct hearth_model *m, struct setting *r)
{
    static int32_t ids[PROMPT];
    struct hearth_model_info info;
    hearth_model_get_info(m, &info);
    const int32_t most = info.n_ctx > PROMPT + ANSWER ? PROMPT : info.n_ctx / 2;
    trial_tokens(ids, most, info.n_vocab, 0);
    const uint64_t probe_begin = os_now_us();
    const uint64_t cpu_begin = os_cpu_us();
    hearth_status s = t->n_prompt > 0 ? HEARTH_OK : probe(t, m, ids, most, r);
    const bool is_done = r->prefill_tok_s > 0.0; /* by the probe */
    const uint64_t begin = os_now_us();
    for (int i = 0; i < 2 && !is_done && s == HEARTH_OK && os_now_us() - begin < 3000000; i++) {
        struct hearth_event e = { 0 };
        s = measure_once(t, m, ids, t->n_prompt, t->n_answer, r, &e);
    }
    const uint64_t all_us = (os_now_us() - probe_begin) * (uint64_t)r->set.n_thread;
    if (t->n == 0 && all_us > 0) {
        t->core_share = fmin((double)(os_cpu_us() - cpu_begin) / (double)all_us, 1.0);
    }
    return s;
}

/* Measures r->set; HEARTH_MEMORY where it does not fit. */
static hearth_status measure(struct tune *t, struct setting *r)
{
    struct hearth_box_params bp;
    struct hearth_model_params mp;
    struct hearth_plan plan = { .size = sizeof plan };
    struct hearth_box *box = NULL;
    struct hearth_model *m = NULL;
    hearth_box_init(&bp);
    bp.n_thread = r->set.n_thread;
    bp.memory_bytes = (uint64_t)t->conf->memory_mib << 20;
    hearth_model_init(&mp);
    mp.n_batch = r->set.n_batch;
    mp.extra_bytes = TRIAL_BYTES;
    mp.progress = show;
    mp.progress_arg = t;
    hearth_status s = hearth_box_open(&bp, &box);
    s = s == HEARTH_OK ? hearth_plan_make(box, t->path, &mp, &plan) : s;
    if (s == HEARTH_OK && plan.n_ctx > PROMPT + ANSWER + 1) { /* no more than is measured */
        mp.n_ctx = PROMPT + ANSWER + 1;
        s = hearth_plan_make(box, t->path, &mp, &plan);
    }
    s = s == HEARTH_OK ? open_fits(t->conf, &plan, "") : s;
    if (s == HEARTH_OK && plan.step_disk_bytes > 0) {
        s = (hearth_status)err_set(ERR_MEMORY,
                                   "%s: layers of it would be read from the disk, whose "
                                   "speed is no measure: choose a smaller model",
                                   t->path);
    }
    t->is_small = t->is_small || (s == HEARTH_OK && plan.step_read_bytes < TRIAL_SMALL);
    if (s == HEARTH_OK && plan.n_batch != mp.n_batch && plan.n_batch < plan.n_ctx) {
        s = HEARTH_MEMORY; /* the plan took smaller pieces */
    }
    s = s == HEARTH_OK ? hearth_model_open(box, t->path, &mp, &m) : s;
    s = s == HEARTH_OK ? measure_model(t, m, r) : s;
    hearth_model_close(m);
    hearth_box_close(box);
    return s;
}

/* Prompts alone judge pieces; both count for threads. */
static double worth(const struct setting *r, bool is_by_prompt)
{
    return is_by_prompt ? r->prefill_tok_s : sqrt(r->prefill_tok_s * r->decode_tok_s);
}

/* For n more settings. */
static bool has_time(const struct tune *t, uint64_t n)
{
    return os_now_us() - t->bar.begin_us + n * t->longest_us <= BUDGET_US;
}

/* Measures one more setting; it becomes the best when it is clearly better. */
static hearth_status try_one(struct tune *t, struct tuned set, bool is_by_prompt)
{
    const uint64_t begin = os_now_us();
    if (t->n > 0 && !has_time(t, 2)) { /* what is better is worth nothing unconfirmed */
        t->is_cut = true;
        return HEARTH_OK;
    }
    struct setting *r = &t->all[t->n];
    *r = (struct setting){ .set = set };
    const hearth_status s = measure(t, r);
    const uint64_t us = os_now_us() - begin;
    t->longest_us = us > t->longest_us ? us : t->longest_us;
    if (s == HEARTH_OK) {
        t->n++;
        const double least = BETTER * worth(&t->all[t->best], is_by_prompt);
        t->best = t->n > 1 && worth(r, is_by_prompt) > least ? t->n - 1 : t->best;
    }
    return s == HEARTH_MEMORY && t->n > 0 ? HEARTH_OK : s;
}

/* Threads to try beside the usual n: one for each of the fastest cores, one less, which leaves a
 * core to the others, half, and all logical processors. At most 4; returns how many. */
static int other_threads(int32_t n, int32_t n_logical, int32_t n_fast, int32_t out[4])
{
    const int32_t all[] = { n_fast, n - 1, n / 2, n_logical };
    int n_out = 0;
    for (int i = 0; i < 4; i++) {
        bool is_new = all[i] > 0 && all[i] != n;
        for (int k = 0; k < i; k++) {
            is_new = is_new && all[k] != all[i];
        }
        if (is_new) {
            out[n_out++] = all[i];
        }
    }
    return n_out;
}

/* The defaults once more, after all others: what else ran on the box when they were measured may be
 * gone, and a neighbour that came and went must not decide how models run from now on. What cannot
 * be confirmed, for lack of time or memory, is not taken. */
static hearth_status confirm(struct tune *t)
{
    struct setting *first = &t->all[0];
    struct setting again = { .set = first->set };
    const struct setting *best = &t->all[t->best];
    if (t->best == 0) {
        return HEARTH_OK;
    }
    const bool has = has_time(t, 1);
    t->is_cut = t->is_cut || !has;
    const hearth_status s = has ? measure(t, &again) : HEARTH_MEMORY;
    if (s != HEARTH_OK) {
        t->best = 0;
        return s == HEARTH_MEMORY ? HEARTH_OK : s;
    }
    first->prefill_tok_s = fmax(first->prefill_tok_s, again.prefill_tok_s);
    first->decode_tok_s = fmax(first->decode_tok_s, again.decode_tok_s);
    const bool is_by_prompt = best->set.n_thread == first->set.n_thread;
    if (worth(best, is_by_prompt) <= BETTER * worth(first, is_by_prompt)) {
        t->best = 0;
    }
    return HEARTH_OK;
}

static hearth_status try_all(struct tune *t)
{
    static const int32_t pieces[] = { 256, 1024 };
    const int32_t n_usual = topo_threads();
    int32_t other[4];
    const int n_other = other_threads(n_usual, cpu_get()->n_core, topo_fast(), other);
    hearth_status s = try_one(t, (struct tuned){ n_usual, 512 }, false);
    for (int i = 0; i < n_other && s == HEARTH_OK; i++) {
        s = try_one(t, (struct tuned){ other[i], 512 }, false);
    }
    const int32_t n_thread = t->all[t->best].set.n_thread;
    for (int i = 0; i < 2 && s == HEARTH_OK; i++) {
        if (t->n_prompt > (pieces[i] < 512 ? pieces[i] : 512)) { /* else no other pieces than now */
            s = try_one(t, (struct tuned){ n_thread, pieces[i] }, true);
        }
    }
    return s == HEARTH_OK ? confirm(t) : s;
}

static void print_try(const char *name, const struct setting *r, bool is_json)
{
    if (is_json) {
        printf("\"%s\": {\"threads\": %d, \"batch\": %d, \"prefill_tok_s\": %.2f, "
               "\"decode_tok_s\": %.2f}, ",
               name, r->set.n_thread, r->set.n_batch, r->prefill_tok_s, r->decode_tok_s);
    } else {
        printf("%-8s %3d %-8s prompts in pieces of %4d: prompt %8.1f tok/s, answer %7.1f "
               "tok/s\n",
               name, r->set.n_thread, r->set.n_thread == 1 ? "thread," : "threads,", r->set.n_batch,
               r->prefill_tok_s, r->decode_tok_s);
    }
}

static void print_end(const struct tune *t, const char *where)
{
    printf("%d settings were tried%s\n", t->n,
           t->is_cut ? "; the others did not fit into a minute: take a smaller model" : "");
    if (t->is_small) {
        puts("not stored: so small a model may stay in the caches, and what is best for it is not "
             "for others;\ntake one of which a token reads 32 MiB or more (hearth plan tells)");
    } else if (where != NULL) {
        printf("stored in %s; run, serve, plan and bench use it\n", where);
    }
}

static void print_end_json(const struct tune *t, const char *where)
{
    struct buf out;
    buf_init(&out, 65536);
    buf_printf(&out, "\"tried\": %d, \"cut\": %s, \"core_percent\": %.1f, \"stored\": ", t->n,
               t->is_cut ? "true" : "false", 100.0 * t->core_share);
    if (where == NULL) {
        buf_add_str(&out, "null");
    } else {
        js_put_string(&out, view_of(where), false);
    }
    printf("%s}\n", buf_str(&out));
    buf_release(&out);
}

/* Pieces of prompts say nothing of answers: what was measured twice is one figure. */
static void show_one_answer(struct tune *t)
{
    struct setting *first = &t->all[0];
    struct setting *best = &t->all[t->best];
    if (first->set.n_thread == best->set.n_thread) {
        const double most = fmax(first->decode_tok_s, best->decode_tok_s);
        first->decode_tok_s = best->decode_tok_s = most;
    }
}

/* Prints what was found in any case, then stores it. */
static hearth_status finish(struct tune *t, const char *where)
{
    const bool is_busy = t->core_share < OPEN_SHARED;
    hearth_status s = HEARTH_OK;
    trial_interruptible(NULL); /* what is said would no longer be true */
    if (is_busy && !t->is_small) {
        s = (hearth_status)err_set(
            ERR_BUSY, "not stored: " OPEN_SHARED_TEXT "; tune again when the box is idle",
            100.0 * t->core_share);
    } else if (!t->is_small) {
        s = (hearth_status)tuned_write(&t->all[t->best].set, where);
    }
    show_one_answer(t);
    const char *stored = s == HEARTH_OK && !t->is_small ? where : NULL;
    fputs(t->conf->is_json ? "{\"version\": 1, " : "", stdout);
    print_try(t->conf->is_json ? "before" : "defaults", &t->all[0], t->conf->is_json);
    print_try(t->conf->is_json ? "after" : "best", &t->all[t->best], t->conf->is_json);
    if (t->conf->is_json) {
        print_end_json(t, stored);
    } else {
        print_end(t, stored);
    }
    return s;
}

int cmd_tune(const struct conf *c, const char *path)
{
    struct tune t = { .conf = c, .path = path, .core_share = 1.0 };
    struct buf where;
    trial_interruptible("hearth: interrupted, nothing was stored\n");
    progress_begin_short(&t.bar, "tuning", 0);
    buf_init(&where, 4096);
    hearth_status s = (hearth_status)tuned_prepare(&where);
    s = s == HEARTH_OK ? try_all(&t) : s;
    progress_share(&t.bar, 1.0);
    s = s == HEARTH_OK ? finish(&t, buf_str(&where)) : s;
    buf_release(&where);
    return s == HEARTH_OK ? 0 : open_fail(s);
}
