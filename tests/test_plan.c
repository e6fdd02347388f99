/* test_plan - what the engine takes is what the plan said, not more and hardly less
 *
 * test_plan [FOLDER NAME,NAME...] checks the models FOLDER/NAME.gguf; without arguments, one that is
 * made here. Each is opened for every cache type, several contexts, sizes of pieces, conversations
 * and workers, and answers as many requests as fit, with full pieces of a prompt beside all other
 * answers, to the end of the context.
 *
 * Includes engine.c: arenas and steps cannot be seen from outside, and the steps are made here, in
 * turn, so that their sizes depend on no clock. */
#include "engine/engine.c"
#include "engine/engine_open.c"
#include "engine/engine_step.c"

#include "back/be_measure.h"
#include "model_tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define MODELS_MAX 64
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            print_error(__VA_ARGS__);                                                              \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

static const char *folder; /* of the models that the command line names */

static uint64_t part_of(const struct plan *p, const char *name)
{
    for (int32_t i = 0; i < p->n_part; i++) {
        if (strcmp(p->part[i].name, name) == 0) {
            return p->part[i].bytes;
        }
    }
    return 0;
}

/* --- steps ------------------------------------------------------------------------------------ */

/* What be_measure takes for the step that is laid out (BA-1). */
static size_t dry_peak(const struct engine *e, int32_t n_run, int32_t n_tok, int32_t n_row)
{
    struct arena count;
    struct be_measure m;
    struct decoder d = e->x.decoder;
    const struct decoder_step step = { .n_tok = n_tok, .runs = e->runs, .n_run = n_run };
    float *hidden = NULL;
    arena_open_counting(&count);
    be_measure_init(&m, &count, e->config.n_worker);
    d.back = &m.back;
    assert_int_equal(decoder_forward(&d, &step, &hidden), ERR_OK);
    if (n_row > 0) {
        decoder_logits(&d, hidden, NULL, n_row);
    }
    return count.peak;
}

/* What the cut of attention may ask for less than its worst case (backend.h). */
static size_t cut_slack(const struct engine *e)
{
    const struct back_attend p = { .kv = kv_layer(&e->x.kv, 0) };
    return back_attend_worst_bytes(&p, e->config.n_worker);
}

/* As many guesses as a step can have, whatever they are worth. */
static void guess_all(struct engine *e)
{
    int32_t left = GUESS_MAX;
    for (int32_t i = 0; i < e->config.n_parallel; i++) {
        left = e->sched.seq[i].state == SCHED_PREFILL ? 0 : left;
    }
    for (int32_t i = 0; i < e->config.n_parallel; i++) {
        struct sched_seq *q = &e->sched.seq[i];
        const int32_t most = q->state == SCHED_DECODE && !q->is_paused ? guesses_of(e, i) : 0;
        q->n_guess = most < left ? most : left;
        left -= q->n_guess;
        for (int32_t k = 0; k < q->n_guess; k++) {
            e->slots[i].answer[e->slots[i].n_answer + k] = k % e->parts.arch->n_vocab;
        }
    }
}

/* One step as the engine's thread makes it, with the largest pieces; false when nothing is left. */
static bool step_once(struct engine *e, size_t *peak)
{
    e->sched.us_per_tok = 1e-3;
    admit(e);
    guess_all(e);
    e->n_piece = sched_plan(&e->sched, e->pieces);
    const int32_t n_tok = engine_step_lay_out(e);
    if (e->n_piece == 0) {
        return false;
    }
    int32_t n_row = 0;
    for (int32_t i = 0; i < e->n_piece; i++) {
        n_row += e->pieces[i].n_logit;
    }
    const size_t most = dry_peak(e, e->n_piece, n_tok, n_row);
    e->step.peak = 0;
    engine_step_run(e, n_tok);
    const size_t took = e->step.peak;
    CHECK(took <= most && took + cut_slack(e) >= most, /* BA-1 */
          "BA-1: a step of %d tokens, %d runs takes %zu bytes, be_measure counts %zu\n", n_tok,
          e->n_piece, took, most);
    *peak = took > *peak ? took : *peak;
    return true;
}

static void submit(struct engine *e, int32_t n_prompt, int32_t max_tokens, int32_t *handle)
{
    static int32_t prompt[4096];
    struct engine_spec spec = plain_spec();
    spec.max_tokens = max_tokens;
    assert_in_range(n_prompt, 1, 4096);
    for (int32_t i = 0; i < n_prompt; i++) {
        prompt[i] = i % e->parts.arch->n_vocab;
    }
    const enum err err = engine_submit(e, &spec, prompt, (size_t)n_prompt, handle);
    CHECK(err == ERR_OK, "%s\n", err_text());
}

/* Steps until all conversations have ended, then the most workspace that one took, if it is more. */
static void answer_to_end(struct engine *e, int32_t *handle, size_t *peak)
{
    static char text[ENGINE_TEXT_MAX];
    struct engine_event event;
    const int32_t n = e->config.n_parallel;
    while (step_once(e, peak)) {
        for (int32_t i = 0; i < n; i++) {
            while (engine_next(e, handle[i], 0, &event, text) == ERR_OK) {
            }
        }
    }
    for (int32_t i = 0; i < n; i++) {
        engine_drop(e, handle[i]);
    }
}

/* Conversations that begin one after the other and end where the context does; the last prompt is
 * of whole pieces. Then short ones, all with room for guesses. Returns the most workspace that a
 * step took. */
static size_t answer_all(struct engine *e)
{
    const struct plan_config *c = &e->config;
    int32_t handle[SCHED_SEQ_MAX];
    size_t peak = 0;
    const int32_t n_step = c->n_parallel * (c->n_ctx / c->n_batch + 1) + 2;
    for (int32_t i = 0; i < c->n_parallel - 1; i++) {
        submit(e, c->n_ctx > n_step + 1 ? c->n_ctx - n_step : 1, 0, &handle[i]);
    }
    submit(e, c->n_batch == c->n_ctx ? c->n_ctx - 1 : (c->n_ctx - 1) / c->n_batch * c->n_batch, 0,
           &handle[c->n_parallel - 1]);
    answer_to_end(e, handle, &peak);
    for (int32_t i = 0; i < c->n_parallel; i++) {
        submit(e, 1, GUESS_MAX + 4 * c->n_parallel, &handle[i]);
    }
    answer_to_end(e, handle, &peak);
    assert_int_equal(e->stats.n_done, 2 * c->n_parallel);
    return peak;
}

/* PL-1, for one way to open the model. */
static void check_config(const struct model *m, const struct plan_config *c)
{
    struct plan plan;
    struct engine *e;
    CHECK(engine_bare(&e, m, c, &plan) == ERR_OK, "%s\n", err_text());
    const size_t peak = answer_all(e);
    print_message("# kv %d ctx %d batch %d at once %d workers %d: %zu of %zu\n", (int)c->kv,
                  c->n_ctx, c->n_batch, c->n_parallel, c->n_worker, peak,
                  (size_t)part_of(&plan, "workspace"));
    assert_int_equal(m->arena.peak, part_of(&plan, "weights"));
    assert_int_equal(e->context.peak, part_of(&plan, "cache") + part_of(&plan, "tables"));
    const size_t held = (size_t)c->n_parallel * emit_room_bytes(e->piece_max);
    assert_int_equal(e->requests.peak + held, part_of(&plan, "requests"));
    assert_true(e->requests.cap < e->requests.peak + 4096); /* in whole pages */
    const size_t line = part_of(&plan, "workspace");
    /* a prompt leaves room for one token: where a piece is as long as the context, one is missing */
    const size_t slack = cut_slack(e) + (c->n_batch == c->n_ctx ? line / (size_t)c->n_batch : 0);
    CHECK(peak <= line && peak + slack >= line,
          "steps took %zu bytes at most, the plan has %zu, %zu may be missing\n", peak, line,
          slack);
    engine_close(e);
}

static void test_model(void **state)
{
    static const struct {
        int32_t n_ctx, n_batch, n_parallel, n_worker;
    } shapes[] = { { 40, 40, 1, 1 },  { 300, 32, 1, 1 }, { 300, 64, 3, 1 }, { 70, 16, 7, 1 },
                   { 300, 64, 1, 3 }, { 300, 32, 7, 3 }, { 2, 2, 3, 2 } };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct model m;
        char path[4096];
        snprintf(path, sizeof path, "%s/%s.gguf", folder, (const char *)*state);
        CHECK(model_open(&m, folder == NULL ? NULL : path, shapes[i].n_worker) == ERR_OK,
              "%s: %s\n", (const char *)*state, err_text());
        for (int kv = 0; kv < 3; kv++) {
            const int32_t n_ctx =
                shapes[i].n_ctx < m.arch.n_ctx_train ? shapes[i].n_ctx : m.arch.n_ctx_train;
            const struct plan_config c = { .n_ctx = n_ctx,
                                           .n_parallel = shapes[i].n_parallel,
                                           .n_queue = 2,
                                           .n_batch = shapes[i].n_batch,
                                           .kv = (enum kern_kv)kv,
                                           .n_worker = shapes[i].n_worker };
            check_config(&m, &c);
        }
        model_close(&m);
    }
}

/* What many threads take while loading, beyond what comes into its place, is a line of its own. */
static void test_loading(void **state)
{
    struct model m;
    (void)state;
    CHECK(model_open(&m, NULL, 1) == ERR_OK, "%s\n", err_text());
    for (int32_t n_worker = 1; n_worker <= 256; n_worker *= 256) {
        m.weights.scratch_bytes = n_worker == 1 ? 16 : (size_t)1 << 20; /* rows of the file */
        const struct plan_config c = {
            .n_ctx = 32, .n_parallel = 1, .n_queue = 1, .n_batch = 32, .n_worker = n_worker
        };
        const struct plan_beside beside = { .request_bytes = 12345 };
        struct plan p;
        assert_int_equal(plan_make(&p, &m.arch, &m.weights, &c, &beside), ERR_OK);
        const uint64_t loading = (uint64_t)n_worker * m.weights.scratch_bytes;
        const uint64_t later = part_of(&p, "cache") + part_of(&p, "tables") +
                               part_of(&p, "workspace") + part_of(&p, "requests");
        const uint64_t extra = part_of(&p, "loading, given back");
        assert_true(n_worker == 1 ? extra == 0 : extra > 0);
        assert_int_equal(loading > later ? loading : later, later + extra);
        assert_int_equal(p.total_bytes, part_of(&p, "weights") + later + extra);
    }
    model_close(&m);
}

/* By hand: three heads of 64 numbers in f16. A position has 3 * (128 + 128) = 768 bytes of K and V.
 */
static void test_cache_traffic(void **state)
{
    struct arena count;
    struct be_measure m;
    const struct back_run runs[] = { { .n_tok = 2, .pos0 = 98 }, { .n_tok = 1, .pos0 = 9 } };
    struct back_attend a = { .kv = { .kind = KERN_KV_F16,
                                     .k_page = 2048,
                                     .v_page = 2048,
                                     .n_kv = 3,
                                     .hd_k = 64,
                                     .hd_v = 64 },
                             .runs = runs,
                             .n_run = 2,
                             .n_tok = 3,
                             .n_head = 6 };
    (void)state;
    assert_int_equal(kern_kv_k_bytes(KERN_KV_F16, 64), 2048);
    arena_open_counting(&count);
    be_measure_init(&m, &count, 1);
    m.back.op->kv_write(&m.back, &a, NULL, NULL);
    assert_int_equal(m.kv_bytes, 3 * 768);
    m.back.op->attend(&m.back, &a, NULL, NULL);
    assert_int_equal(m.kv_bytes, (3 + 100 + 10) * 768);
    a.window = 16;
    m.back.op->attend(&m.back, &a, NULL, NULL);
    assert_int_equal(m.kv_bytes, (3 + 100 + 10 + 16 + 10) * 768);
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[MODELS_MAX] = { { "made here", test_model, NULL, NULL, "made here" },
                                            { "loading", test_loading, NULL, NULL, "made here" },
                                            { "cache traffic", test_cache_traffic, NULL, NULL,
                                              "made here" } };
    size_t n = argc == 3 ? 0 : 3;
    folder = argc == 3 ? argv[1] : NULL;
    for (char *name = argc == 3 ? strtok(argv[2], ",") : NULL; name != NULL && n < MODELS_MAX;
         name = strtok(NULL, ",")) {
        tests[n++] = (struct CMUnitTest){ name, test_model, NULL, NULL, name };
    }
    const int n_bad = _cmocka_run_group_tests("plan", tests, n, NULL, NULL);
    printf("%zu passed, %d failed\n", n - (size_t)n_bad, n_bad);
    return n_bad;
}
