/* test_bench - how `hearth bench` reads its requests, against an engine made of a few lines
 *
 * Includes cmd_bench.c and what it uses, since what they do with the library cannot be seen from
 * outside. The engine here makes a step when a reader waits, which gives every request with room in
 * its ring one event; it keeps requests queued for a while, and says so when it is asked beyond the
 * end. */
#include "cmd/cmd_bench.c"
#include "cmd/progress.c"
#include "cmd/trial.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define RING   8  /* unread events of a request that is not paused */
#define QUEUED 20 /* looks at the numbers during which something is queued */

struct hearth_request {
    int32_t n_made, n_read, n_token;
    bool is_open;
};

static struct world {
    struct hearth_request request[BATCH_MAX];
    int n_request;
    int n_look;
    int n_step;
    int n_paused; /* times that a request had to wait for its reader */
    int n_measure;
    int fits;
} world;

/* Tokens, the end of the choice, the end. */
static int32_t n_all(const struct hearth_request *r)
{
    return r->n_token + 2;
}

hearth_status hearth_submit(struct hearth_model *model, const struct hearth_request_params *p,
                            struct hearth_request **request)
{
    (void)model;
    *request = &world.request[world.n_request++];
    **request = (struct hearth_request){ .n_token = p->max_tokens, .is_open = true };
    return HEARTH_OK;
}

hearth_status hearth_next(struct hearth_request *r, uint64_t timeout_us, struct hearth_event *out)
{
    const bool waits = timeout_us > 0 && r->n_read == r->n_made;
    world.n_step += waits;
    for (int i = 0; i < world.n_request && waits; i++) {
        struct hearth_request *o = &world.request[i];
        const bool is_full = o->n_made - o->n_read == RING;
        world.n_paused += o->is_open && is_full && o->n_made < n_all(o);
        o->n_made += !is_full && o->n_made < n_all(o);
    }
    if (r->n_read == n_all(r)) {
        return HEARTH_NOT_FOUND;
    }
    if (r->n_read == r->n_made) {
        return HEARTH_BUSY;
    }
    r->n_read++;
    *out = (struct hearth_event){
        .kind = r->n_read == n_all(r)       ? HEARTH_EVENT_END
                : r->n_read == n_all(r) - 1 ? HEARTH_EVENT_CHOICE_END
                                            : HEARTH_EVENT_TOKEN,
        .n_generated = r->n_read == n_all(r) ? r->n_token : 0,
        .prefill_us = 1000,
        .decode_us = r->n_read == n_all(r) ? 1000000 : 0,
    };
    return HEARTH_OK;
}

void hearth_request_close(struct hearth_request *r)
{
    if (r != NULL) {
        r->is_open = false;
    }
}

void hearth_model_get_stats(const struct hearth_model *model, struct hearth_stats *out)
{
    (void)model;
    *out = (struct hearth_stats){ .n_queued = world.n_look++ < QUEUED,
                                  .disk_read_bytes = (uint64_t)world.n_step * 4000000,
                                  .disk_used_bytes = (uint64_t)world.n_step * 3000000 };
}

void hearth_request_init(struct hearth_request_params *p)
{
    *p = (struct hearth_request_params){ .size = sizeof *p };
}

hearth_status hearth_plan_make(struct hearth_box *box, const char *path,
                               const struct hearth_model_params *p, struct hearth_plan *out)
{
    (void)box;
    (void)path;
    (void)p;
    out->fits = world.fits;
    return HEARTH_OK;
}

hearth_status hearth_box_measure(struct hearth_box *box, struct hearth_limits *out)
{
    (void)box;
    (void)out;
    world.n_measure++;
    return HEARTH_OK;
}

hearth_status hearth_predict(struct hearth_box *box, const char *path,
                             const struct hearth_model_params *p, struct hearth_speed *at,
                             size_t n_at)
{
    (void)box;
    (void)path;
    (void)p;
    (void)at;
    (void)n_at;
    return HEARTH_MEMORY;
}

size_t hearth_box_kernels(const struct hearth_box *box, char *out, size_t n)
{
    (void)box;
    out[0] = '\0';
    return n;
}

void hearth_box_close(struct hearth_box *box)
{
    (void)box;
}

hearth_status open_box(const struct conf *c, struct hearth_box **box)
{
    (void)c;
    (void)box;
    return HEARTH_OK;
}

void open_params(const struct conf *c, struct hearth_model_params *p)
{
    (void)c;
    (void)p;
}

hearth_status open_all(const struct conf *c, const char *path, uint64_t extra_bytes,
                       struct open_model *out)
{
    (void)extra_bytes;
    (void)c;
    (void)path;
    (void)out;
    return HEARTH_MEMORY;
}

void open_close(struct open_model *o)
{
    (void)o;
}

bool open_is_tuned(void)
{
    return false;
}

hearth_status open_fits(const struct conf *c, const struct hearth_plan *p, const char *advice)
{
    (void)c;
    (void)advice;
    return p->fits ? HEARTH_OK : HEARTH_MEMORY;
}

int open_fail(hearth_status status)
{
    return (int)status;
}

static void bench(int64_t n_batch, int64_t n_decode)
{
    const struct conf c = { .prefill = 4, .decode = n_decode, .batch = n_batch };
    struct open_model m = { .info = { .n_vocab = 100 } };
    int32_t ids[16];
    struct result r = { 0 };
    world = (struct world){ 0 };
    assert_int_equal(bench_prefill(&m, &c, ids, &r), HEARTH_OK);
    assert_true(r.prefill_tok_s > 3999.0 && r.prefill_tok_s < 4001.0);
    world = (struct world){ 0 };
    assert_int_equal(bench_decode(&m, &c, ids, &r), HEARTH_OK);
    const double wanted = (double)(n_batch * n_decode); /* in one second */
    assert_true(r.decode_tok_s > wanted - 0.1 && r.decode_tok_s < wanted + 0.1);
    const double read = 4.0 * (double)(n_decode + 2); /* the ends are events of their own */
    assert_true(r.disk_gb_s > read / 1e3 - 1e-9 && r.disk_gb_s < read / 1e3 + 1e-9);
    assert_true(r.disk_step_mib > 3.81 && r.disk_used_part > 0.7499 && r.disk_used_part < 0.7501);
    assert_int_equal(world.n_paused, 0);
    for (int i = 0; i < world.n_request; i++) {
        assert_false(world.request[i].is_open);
    }
}

/* The first answer may be over while the last still waits in the queue. */
static void test_short_answers(void **state)
{
    (void)state;
    bench(3, 1);
    bench(3, 2);
    bench(7, 3);
}

/* An answer that nobody reads is paused, and would be measured so. */
static void test_long_answers(void **state)
{
    (void)state;
    bench(1, 1000);
    bench(3, 500);
    bench(7, 100);
}

/* What does not fit is refused before the limits are measured, which takes a second. */
static void test_refused(void **state)
{
    (void)state;
    const struct conf c = { .prefill = 4, .decode = 4, .batch = 1, .is_limits = true };
    world = (struct world){ .fits = 0 };
    assert_int_equal(cmd_bench(&c, "model"), HEARTH_MEMORY);
    assert_int_equal(world.n_measure, 0);
    world = (struct world){ .fits = 1 };
    assert_int_equal(cmd_bench(&c, "model"), HEARTH_MEMORY);
    assert_int_equal(world.n_measure, 1);
    assert_int_equal(cmd_bench(&c, NULL), 0);
    assert_int_equal(world.n_measure, 2);
}

/* What a step of all conversations reads counts, and not what one of them does. */
static void test_shares(void **state)
{
    (void)state;
    const struct conf c = { .batch = 4, .depth = 100 };
    struct bench b = { .plan = { .step_read_bytes = 2000000000,
                                 .parallel_read_bytes = 5000000000,
                                 .token_kv_bytes = 1000000 },
                       .r = { .decode_tok_s = 8.0 } };
    b.l.all.read_gb_s = 20.0;
    const struct shares v = shares_of(&c, &b);
    assert_true(v.read_gb_s > 10.79 && v.read_gb_s < 10.81); /* two steps a second */
    assert_true(v.read_percent > 53.9 && v.read_percent < 54.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_answers),
        cmocka_unit_test(test_long_answers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
