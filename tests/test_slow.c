/* test_slow - a step that waits for a slow disk shows that the engine lives, and can be left
 *
 * The engine over the real ring, and below that a disk and a clock which the test owns: reads come
 * one after the other, each takes as long as the test wants, fails or never comes, and time passes
 * only while somebody waits for the disk. So what is measured here is exact and takes no time.
 *
 * Models of some kilobytes, in packed images of which as little as can be stays in memory:
 * one whose layers' parts are slow, one whose experts are, one whose rows of embeddings are. Bits are
 * those of the whole model, whatever happened before.
 *
 * Includes engine.c for an engine without a thread, and ring.c to put the disk below ring_open. */
#define ring_open ring_open_kernel
#include "base/ring.c"
#undef ring_open
enum err ring_open(struct ring **out, const char *path);

#include "engine/engine.c"
#include "engine/engine_open.c"
#include "engine/engine_step.c"

#include "model/image.h"
#include "model_tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NO_TIME     UINT64_MAX
#define WAIT_US     50000 /* engine/decoder.c: a wait for weights, between two looks */
#define PATIENCE_US 200000000
#define N_PROMPT    200 /* more than there are rows of embeddings in one read (model/stream.c) */
#define N_ANSWER    3

/* --- the clock and the disk ------------------------------------------------------------------- */

static uint64_t clock_us;

static struct {
    struct ring_piece flying[RING_PIECES];
    uint64_t end_us[RING_PIECES];
    int n_flying;
    int fd;
    uint64_t slow_at; /* [slow_at, slow_end) of the file takes long */
    uint64_t slow_end;
    uint64_t slow_us; /* for each read, one after the other */
    uint64_t busy_us; /* until then */
    uint64_t dead_us; /* from then on nothing comes */
    int fail_in;      /* slow reads until one fails; 0: none */
    bool fails_last;  /* nothing comes behind that one */
    int n_slow;       /* so far */
} disk;

static struct engine *en;
static int32_t leaver; /* a request that is cancelled at leave_us */
static uint64_t leave_us;
static uint64_t patience_us; /* then a request has to be over, however slow the disk is */

static uint64_t now_us(void)
{
    return ++clock_us;
}

static void pass_time(uint64_t us)
{
    clock_us += us;
    assert_true(clock_us < patience_us);
    if (clock_us >= leave_us) {
        engine_cancel(en, leaver);
        leave_us = NO_TIME;
    }
}

static enum err disk_open(void **out, const struct os_file *file)
{
    disk.fd = file->fd;
    *out = &disk;
    return ERR_OK;
}

static void disk_close(void *k)
{
    (void)k;
    assert_int_equal(disk.n_flying, 0);
}

static int disk_put(void *k, const struct ring_piece *p)
{
    (void)k;
    const bool is_slow = p->at < disk.slow_end && p->at + p->n > disk.slow_at;
    disk.busy_us = disk.busy_us > clock_us ? disk.busy_us : clock_us;
    disk.busy_us += is_slow ? disk.slow_us : 0;
    disk.n_slow += is_slow;
    disk.end_us[disk.n_flying] = disk.busy_us;
    disk.flying[disk.n_flying++] = *p;
    return 0;
}

/* The read that ends first. */
static int first_end(void)
{
    int first = 0;
    for (int i = 1; i < disk.n_flying; i++) {
        first = disk.end_us[i] < disk.end_us[first] ? i : first;
    }
    return first;
}

static int disk_take(void *k, struct ring_end *out, uint64_t timeout_us)
{
    (void)k;
    const int i = first_end();
    const uint64_t end_us = disk.end_us[i] < disk.dead_us ? disk.end_us[i] : NO_TIME;
    if (end_us == NO_TIME || (end_us > clock_us && end_us - clock_us > timeout_us)) {
        assert_true(timeout_us < NO_TIME); /* nobody waits for ever */
        pass_time(timeout_us);
        return 0;
    }
    pass_time(end_us > clock_us ? end_us - clock_us : 0);
    const struct ring_piece p = disk.flying[i];
    const bool is_slow = p.at < disk.slow_end && p.at + p.n > disk.slow_at;
    const bool fails = is_slow && disk.fail_in > 0 && --disk.fail_in == 0;
    disk.dead_us = fails && disk.fails_last ? clock_us : disk.dead_us;
    disk.n_flying--;
    disk.flying[i] = disk.flying[disk.n_flying];
    disk.end_us[i] = disk.end_us[disk.n_flying];
    *out = (struct ring_end){ p.id, fails ? -EIO : (long)pread(disk.fd, p.to, p.n, (off_t)p.at) };
    return 1;
}

static const struct ring_kind disk_kind = { "slow", disk_open, disk_close, disk_put, disk_take };

enum err ring_open(struct ring **out, const char *path)
{
    return ring_open_as(out, path, &disk_kind, false);
}

static void disk_is_fast(void)
{
    disk.slow_us = 0;
    disk.dead_us = NO_TIME;
    disk.fail_in = 0;
    disk.fails_last = false;
    for (int i = 0; i < disk.n_flying; i++) {
        disk.end_us[i] = clock_us;
    }
    disk.busy_us = clock_us;
}

/* --- models and their answers ----------------------------------------------------------------- */

struct kind {
    struct tiny tiny;
    bool has_slow_rows; /* else all but the table of embeddings is slow */
    uint64_t most_us;   /* between two signs of life */
    uint64_t read_us;   /* of a read, so that each wait ends in time */
};

static const struct kind kinds[] = {
    { .tiny = { .n_layer = 4 }, /* of a layer, between whose borders there are three waits */
      .most_us = 3 * WAIT_US,
      .read_us = 24000 },
    { .tiny = { .n_layer = 3, .n_expert = 32, .n_used = 12 },
      .most_us = WAIT_US,
      .read_us = 30000 },
    { .tiny = { .n_layer = 3, .n_expert = 32, .n_used = 20 }, /* most of them: all are read ahead */
      .most_us = WAIT_US,
      .read_us = 30000 },
    { .tiny = { .n_layer = 4, .n_vocab = 3000, .has_output = true },
      .has_slow_rows = true,
      .most_us = WAIT_US,
      .read_us = 700 },
};
#define N_KIND ((int)(sizeof kinds / sizeof kinds[0]))

/* In which each router says the same of what comes into the model. */
static const struct kind still = {
    .tiny = { .n_layer = 3, .n_expert = 32, .n_used = 4, .is_still = true }
};

struct answer {
    int32_t token[N_ANSWER];
    float logprob[N_ANSWER];
    int n;
    enum engine_finish finish;
    bool is_unread;
};

static struct model whole;
static struct model small;
static struct answer right;
static const struct kind *kind;
static uint64_t life_us; /* the last sign of it */
static uint64_t gap_us;  /* the longest time without one */

static void see_life(void)
{
    gap_us = clock_us - life_us > gap_us ? clock_us - life_us : gap_us;
    life_us = clock_us;
}

/* Stands before the engine's own. */
static bool look(void *arg, uint64_t now)
{
    see_life();
    return at_border(arg, now);
}

static int32_t submit(uint64_t timeout_us)
{
    static int32_t prompt[N_PROMPT];
    struct engine_spec spec = plain_spec();
    spec.max_tokens = N_ANSWER;
    spec.timeout_us = timeout_us;
    spec.sample.n_logprob = 0;
    for (int32_t i = 0; i < N_PROMPT; i++) {
        prompt[i] = i * 37 % small.arch.n_vocab;
    }
    int32_t handle = -1;
    assert_int_equal(engine_submit(en, &spec, prompt, N_PROMPT, &handle), ERR_OK);
    return handle;
}

/* One round of the engine's loop. */
static void round_once(void)
{
    life_us = clock_us;
    end_unwanted(en, os_now_us(), true);
    admit(en);
    en->n_piece = sched_plan(&en->sched, en->pieces);
    const int32_t n_tok = engine_step_lay_out(en);
    if (en->n_piece > 0) {
        engine_step_run(en, n_tok);
    }
    see_life();
}

static void ask(uint64_t timeout_us, struct answer *out)
{
    static char text[ENGINE_TEXT_MAX];
    struct engine_event event = { .kind = ENGINE_TOKEN };
    const int32_t handle = leaver = submit(timeout_us);
    memset(out, 0, sizeof *out);
    patience_us = clock_us + PATIENCE_US;
    for (enum err e = ERR_BUSY; e != ERR_NOT_FOUND; e = engine_next(en, handle, 0, &event, text)) {
        if (e == ERR_BUSY) {
            round_once();
        } else if (event.kind == ENGINE_TOKEN) {
            assert_in_range(out->n, 0, N_ANSWER - 1);
            out->token[out->n] = event.token;
            out->logprob[out->n++] = event.logprob;
        }
        out->finish = event.finish;
        out->is_unread = event.is_unread;
    }
    engine_drop(en, handle);
}

/* The answer of the whole model, with all its bits. */
static void expect_right(void)
{
    struct answer got;
    ask(0, &got);
    assert_int_equal(got.finish, ENGINE_FINISH_LENGTH);
    assert_memory_equal(&got, &right, sizeof got);
}

static enum err keep(void *arg, const uint8_t *bytes, size_t n)
{
    return write(*(int *)arg, bytes, n) == (ssize_t)n ? ERR_OK : err_set(ERR_IO, "memfd");
}

static void bare_open(struct model *m, struct plan_config *c)
{
    struct plan plan;
    assert_int_equal(engine_bare(&en, m, c, &plan), ERR_OK);
}

static void open_kind(const struct kind *k)
{
    struct plan_config c = { .n_ctx = 256,
                             .n_parallel = 1,
                             .n_queue = 2,
                             .n_batch = 256,
                             .kv = KERN_KV_F16,
                             .n_worker = 1 };
    const struct os_hooks hooks = { .now_us = now_us };
    char path[64];
    kind = k;
    leave_us = patience_us = NO_TIME;
    memset(&disk, 0, sizeof disk);
    disk_is_fast();
    os_hook(&hooks);
    const int fd = tiny_model_as(path, &k->tiny);
    assert_int_equal(model_open(&whole, path, 1), ERR_OK);
    whole.fd = fd;
    int image = memfd_create("image", MFD_CLOEXEC);
    assert_int_equal(image_write(&whole.weights, whole.gguf, whole.team, keep, &image), ERR_OK);
    snprintf(path, sizeof path, "/proc/self/fd/%d", image);
    assert_int_equal(model_bind(&small, path, 1), ERR_OK);
    small.fd = image;
    bare_open(&whole, &c);
    ask(0, &right);
    assert_int_equal(right.n, N_ANSWER);
    engine_close(en);
    assert_true(
        stream_choose_least(&small.weights, small.arch.n_layer, small.arch.n_expert_used, &c.cut));
    assert_int_equal(
        stream_open(&small.stream, &small.weights, small.gguf, &c.cut, small.team, NULL, NULL),
        ERR_OK);
    const uint64_t table_end = gguf_image_at(small.gguf) + small.weights.embd.bytes;
    assert_true((c.cut.rows_bytes > 0) == k->has_slow_rows);
    disk.slow_at = k->has_slow_rows ? 0 : table_end;
    disk.slow_end = k->has_slow_rows ? table_end : NO_TIME;
    bare_open(&small, &c);
    en->x.decoder.is_unwanted = look;
    en->x.decoder.arg = en;
    en->x.decoder.rest_us = 0;
    expect_right();
    gap_us = 0;
}

/* While all that follows. */
static void disk_is_slow(uint64_t read_us)
{
    disk.slow_us = read_us;
    disk.n_slow = 0;
}

static void close_kind(void)
{
    disk_is_fast();
    engine_close(en);
    model_close(&small);
    model_close(&whole);
    os_hook(NULL);
}

static void each_kind(void (*fn)(void))
{
    for (int i = 0; i < N_KIND; i++) {
        open_kind(&kinds[i]);
        fn();
        close_kind();
    }
}

/* Some calls of the clock are no time without a sign of life. */
#define expect_within(us, most_us) assert_in_range(us, 0, (most_us) + 500)

/* --- tests ------------------------------------------------------------------------------------ */

/* Reads that come just before a wait is over, and reads that take many waits. */
static void signs(void)
{
    const uint64_t reads_us[] = { kind->read_us, WAIT_US - 1000, 7 * WAIT_US };
    for (size_t i = 0; i < sizeof reads_us / sizeof reads_us[0]; i++) {
        const uint64_t begin_us = clock_us;
        disk_is_slow(reads_us[i]);
        expect_right();
        assert_true(disk.n_slow > 15);
        assert_true(clock_us - begin_us > 5 * reads_us[i]);
        expect_within(gap_us, kind->most_us);
    }
}

static void test_signs(void **state)
{
    (void)state;
    each_kind(signs);
}

/* Whenever somebody leaves: the step ends soon, and the next one is whole. */
static void leave(void)
{
    const int n_try = 40;
    struct answer got;
    int n_left = 0;
    disk_is_slow(kind->read_us);
    const uint64_t begin_us = clock_us;
    expect_right();
    const uint64_t all_us = clock_us - begin_us;
    for (int i = 0; i < n_try; i++) {
        const uint64_t n_before = en->stats.n_abandoned;
        const uint64_t end_us = clock_us + all_us * (uint64_t)i / (uint64_t)n_try;
        leave_us = end_us;
        ask(0, &got);
        expect_within(clock_us > end_us ? clock_us - end_us : 0, kind->most_us);
        n_left += got.finish == ENGINE_FINISH_CANCELLED;
        assert_true(got.finish == ENGINE_FINISH_CANCELLED || got.finish == ENGINE_FINISH_LENGTH);
        assert_in_range(en->stats.n_abandoned - n_before, 0, 1);
        leave_us = NO_TIME;
        expect_right();
    }
    assert_in_range(n_left, n_try * 3 / 4, n_try);
    assert_in_range(en->stats.n_abandoned, n_left / 2, n_left);
    expect_within(gap_us, kind->most_us);
}

static void test_leave(void **state)
{
    (void)state;
    each_kind(leave);
}

/* From some moment on the disk does not answer: who waits hears of it in time, and whoever comes
 * later too. When it answers again, all is well. */
static void dead(void)
{
    struct answer got;
    for (uint64_t i = 0; i < 12; i++) {
        disk_is_slow(kind->read_us);
        disk.dead_us = clock_us + i * 10000;
        for (int k = 0; k < 3; k++) {
            const uint64_t end_us = clock_us + 3000000;
            ask(3000000, &got);
            assert_int_equal(got.finish, ENGINE_FINISH_TIMEOUT);
            assert_in_range(clock_us, end_us, end_us + kind->most_us + 500);
        }
        expect_within(gap_us, kind->most_us);
        disk_is_fast();
        expect_right();
    }
}

static void test_dead(void **state)
{
    (void)state;
    each_kind(dead);
}

/* A read that fails ends its request alone, and at once, even if no other read ends any more. */
static void errors(void)
{
    struct answer got;
    for (int i = 1; i <= 16; i++) {
        const uint64_t begin_us = clock_us;
        disk_is_slow(kind->read_us);
        disk.fail_in = (i + 1) / 2;
        disk.fails_last = i % 2 == 0;
        ask(0, &got);
        assert_int_equal(got.finish, ENGINE_FINISH_ERROR);
        assert_true(got.is_unread);
        assert_int_equal(got.n, 0);
        assert_int_equal(en->stats.n_failed, i);
        expect_within(clock_us - begin_us, 9 * kind->read_us + kind->most_us);
        if (disk.fails_last) {
            ask(1000000, &got);
            assert_int_equal(got.finish, ENGINE_FINISH_TIMEOUT);
            disk_is_fast();
        }
        expect_right();
    }
    expect_within(gap_us, kind->most_us);
}

static void test_errors(void **state)
{
    (void)state;
    each_kind(errors);
}

/* What routers are asked too early is what they are asked later. */
static void test_guesses(void **state)
{
    (void)state;
    open_kind(&still);
    const struct depot_count *count = depot_count(stream_depot(small.stream));
    const uint64_t before = count->n_guess;
    expect_right();
    assert_true(count->n_guess - before >= (N_ANSWER - 1) * 3 * 4);
    assert_int_equal(count->n_right, count->n_guess);
    close_kind();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signs),  cmocka_unit_test(test_leave),   cmocka_unit_test(test_dead),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_guesses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
