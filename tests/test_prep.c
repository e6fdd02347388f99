/* test_prep - who is prepared first, and how much lies ready
 *
 * What preparing does is tested through the interface (test_api.py). */
#include "base/cell.h"
#include "base/os.h"
#include "base/team.h"
#include "gguf_tiny.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* What the thread does just before the loop takes bytes off; and how often that wakes it. The .c is included for that. */
static uint64_t late_bytes;
static int n_wake;

static void before_add(struct cell *c)
{
    if (late_bytes > 0) {
        (void)(cell_add)(c, late_bytes);
        late_bytes = 0;
    }
}

#define cell_add(c, v) (before_add(c), (cell_add)(c, v))
#define queue_wake(q)  (n_wake++, (queue_wake)(q))
#include "serve/prep.c"
#undef cell_add

#define SECOND_US ((uint64_t)1000000)
#define BOOK      ((size_t)2 << 20)

static bool is_before(uint64_t a_us, size_t a_bytes, uint64_t b_us, size_t b_bytes)
{
    const struct prep_item a = { .came_us = a_us, .body = { .n = a_bytes } };
    const struct prep_item b = { .came_us = b_us, .body = { .n = b_bytes } };
    assert_false(prep_is_before(&a, &b) && prep_is_before(&b, &a));
    return prep_is_before(&a, &b);
}

static void test_short_first(void **state)
{
    (void)state;
    assert_true(is_before(SECOND_US, 100, 0, BOOK));
    assert_true(is_before(0, 100, SECOND_US, 100));
    assert_true(is_before(0, BOOK, 1, BOOK));
}

/* However many short ones come: from some time on none goes before the long one. */
static void test_nobody_waits_forever(void **state)
{
    (void)state;
    assert_true(is_before(0, BOOK, 60 * SECOND_US, 0));
    assert_true(is_before(0, 8 * BOOK, 600 * SECOND_US, 0));
}

/* PR-3: while nobody takes what is ready, one large thing is made and no second one. The work done here meanwhile is that of all. */
static void test_ready_is_bounded(void **state)
{
    enum { N = 4, BYTES = 400000 };
    static char text[BYTES + 64];
    static struct prep_item items[N];
    static int32_t ids[BYTES + 64];
    struct hearth_model_params p;
    struct hearth_box *box = NULL;
    struct hearth_model *m = NULL;
    struct prep *prep = NULL;
    char path[64];
    (void)state;
    const int fd = tiny_model(path);
    assert_int_equal(hearth_box_open(NULL, &box), HEARTH_OK);
    hearth_model_init(&p);
    p.n_ctx = 64;
    p.n_queue = 1;
    assert_int_equal(hearth_model_open(box, path, &p, &m), HEARTH_OK);
    assert_int_equal(prep_open(&prep, m, "tiny", N), ERR_OK);
    memset(text, 'A', BYTES);
    for (int i = 0; i < N; i++) {
        prep_item_init(&items[i], PARAMS_TOKENIZE);
        buf_init(&items[i].body, (size_t)1 << 20);
        buf_printf(&items[i].body, "{\"content\":\"%.*s\"}", BYTES, text);
        assert_true(prep_push(prep, &items[i]));
    }
    for (int i = 0; i < N; i++) {
        struct pollfd ready = { prep_fd(prep), POLLIN, 0 };
        assert_int_equal(poll(&ready, 1, 60000), 1);
        for (int k = 0; k < N; k++) {
            size_t n = BYTES + 64;
            assert_int_equal(hearth_tokenize(m, text, BYTES, 0, ids, &n), HEARTH_OK);
        }
        struct prep_item *done = prep_pop(prep);
        assert_non_null(done);
        assert_int_equal(done->why.status, 0);
        assert_true(done->n_held > PREP_DONE_MAX && done->reply.n > BYTES);
        assert_null(prep_pop(prep));
        prep_item_release(done);
    }
    prep_close(prep);
    hearth_model_close(m);
    hearth_box_close(box);
    close(fd);
}

/* The thread ends an item, finds that all is full and waits, while the loop takes what was ready before: that wakes it. */
static void test_wake(void **state)
{
    (void)state;
    struct prep p = { .fd = -1 };
    struct prep_item item = { .n_held = PREP_DONE_MAX / 10 * 9 };
    struct prep_item *one = &item;
    assert_int_equal(queue_open(&p.in, 1, sizeof one), ERR_OK);
    assert_int_equal(queue_open(&p.done, 1, sizeof one), ERR_OK);
    for (int is_late = 0; is_late < 2; is_late++) {
        assert_true(queue_push(p.done, &one));
        cell_set(&p.done_bytes, item.n_held);
        late_bytes = is_late ? PREP_DONE_MAX / 10 * 3 : 0;
        n_wake = 0;
        assert_ptr_equal(prep_pop(&p), one);
        assert_int_equal(n_wake, is_late);
    }
    queue_close(p.in);
    queue_close(p.done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_first),
        cmocka_unit_test(test_nobody_waits_forever),
        cmocka_unit_test(test_ready_is_bounded),
        cmocka_unit_test(test_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
