/* test_public - what hearth.h says about arguments: NULL, sizes, keys, and outputs after a failure
 *
 * Answers and their content are tested by test_lib.py with a real model. */
#include "base/os.h"
#include "gguf_tiny.h"
#include "hearth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct hearth_box *box;
static struct hearth_model *model;
static char path[64];
static char room[64];
static int32_t ids[64];

static void check_said(hearth_status s, hearth_status want, const char *part)
{
    if (s != want || strstr(hearth_error(), part) == NULL) {
        print_error("status %d with \"%s\" is wanted, found %d: %s\n", (int)want, part, (int)s,
                    hearth_error());
        fail();
    }
}

#define IS_NULL(call) check_said((call), HEARTH_USAGE, "NULL")

/* Every function of the header that takes a pointer, in its order. */
static void test_null(void **state)
{
    (void)state;
    struct hearth_plan plan;
    struct hearth_limits limits;
    struct hearth_model *m = NULL;
    struct hearth_model_info info;
    struct hearth_request_params p;
    struct hearth_request *r = NULL;
    struct hearth_event event;
    struct hearth_stats stats;
    size_t n = 64;
    hearth_box_init(NULL);
    IS_NULL(hearth_box_open(NULL, NULL));
    hearth_box_close(NULL);
    IS_NULL(hearth_box_measure(NULL, &limits));
    IS_NULL(hearth_box_measure(box, NULL));
    assert_int_equal(hearth_box_kernels(NULL, room, sizeof room), 0);
    assert_int_equal(hearth_box_kernels(box, NULL, 1), 0);
    assert_true(hearth_box_kernels(box, NULL, 0) > 0);
    hearth_model_init(NULL);
    IS_NULL(hearth_plan_make(NULL, path, NULL, &plan));
    IS_NULL(hearth_plan_make(box, NULL, NULL, &plan));
    IS_NULL(hearth_plan_make(box, path, NULL, NULL));
    struct hearth_speed speed = { .n_parallel = 1 };
    IS_NULL(hearth_predict(NULL, path, NULL, &speed, 1));
    IS_NULL(hearth_predict(box, NULL, NULL, &speed, 1));
    IS_NULL(hearth_predict(box, path, NULL, NULL, 1));
    IS_NULL(hearth_model_open(NULL, path, NULL, &m));
    IS_NULL(hearth_model_open(box, NULL, NULL, &m));
    IS_NULL(hearth_model_open(box, path, NULL, NULL));
    hearth_model_close(NULL);
    hearth_model_get_info(NULL, &info);
    hearth_model_get_info(model, NULL);
    IS_NULL(hearth_tokenize(NULL, "A", 1, 0, ids, &n));
    IS_NULL(hearth_tokenize(model, NULL, 1, 0, ids, &n));
    IS_NULL(hearth_tokenize(model, "A", 1, 0, NULL, &n));
    IS_NULL(hearth_tokenize(model, "A", 1, 0, ids, NULL));
    IS_NULL(hearth_detokenize(NULL, ids, 1, 0, room, &n));
    IS_NULL(hearth_detokenize(model, NULL, 1, 0, room, &n));
    IS_NULL(hearth_detokenize(model, ids, 1, 0, NULL, &n));
    IS_NULL(hearth_detokenize(model, ids, 1, 0, room, NULL));
    IS_NULL(hearth_chat_text(NULL, "{}", 2, room, &n));
    IS_NULL(hearth_chat_text(model, NULL, 2, room, &n));
    IS_NULL(hearth_chat_text(model, "{}", 2, NULL, &n));
    IS_NULL(hearth_chat_text(model, "{}", 2, room, NULL));
    IS_NULL(hearth_chat_tokens(NULL, "{}", 2, ids, &n));
    IS_NULL(hearth_chat_tokens(model, NULL, 2, ids, &n));
    IS_NULL(hearth_chat_tokens(model, "{}", 2, NULL, &n));
    IS_NULL(hearth_chat_tokens(model, "{}", 2, ids, NULL));
    assert_int_equal(n, 64);
    hearth_request_init(NULL);
    hearth_request_init(&p);
    IS_NULL(hearth_submit(NULL, &p, &r));
    IS_NULL(hearth_submit(model, NULL, &r));
    IS_NULL(hearth_submit(model, &p, NULL));
    p.n_token = 1;
    IS_NULL(hearth_submit(model, &p, &r));
    p.tokens = ids;
    p.n_bias = 1;
    IS_NULL(hearth_submit(model, &p, &r));
    p.n_bias = 0;
    p.n_stop = 1;
    IS_NULL(hearth_submit(model, &p, &r));
    p.stop = (const char *const[]){ NULL };
    IS_NULL(hearth_submit(model, &p, &r));
    assert_null(r);
    IS_NULL(hearth_next(NULL, 0, &event));
    hearth_cancel(NULL);
    hearth_request_close(NULL);
    p.n_stop = 0;
    assert_int_equal(hearth_submit(model, &p, &r), HEARTH_OK);
    IS_NULL(hearth_next(r, 0, NULL));
    hearth_request_close(r);
    assert_int_equal(hearth_fd(NULL), -1);
    hearth_fd_clear(NULL);
    hearth_model_get_stats(NULL, &stats);
    hearth_model_get_stats(model, NULL);
}

/* A caller built against a smaller struct, which ends where its memory does. */
static void test_sizes(void **state)
{
    (void)state;
    const size_t page = 4096;
    char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(two != MAP_FAILED && mprotect(two + page, page, PROT_NONE) == 0);
    for (size_t n = sizeof n; n <= 48; n += 8) {
        void *p = two + page - n;
        struct hearth_box *b = NULL;
        struct hearth_plan plan;
        struct hearth_model *m = NULL;
        struct hearth_request *r = NULL;
        memcpy(p, &n, sizeof n);
        if (n < sizeof(struct hearth_box_params)) {
            check_said(hearth_box_open(p, &b), HEARTH_USAGE, "hearth_box_init");
        }
        check_said(hearth_plan_make(box, path, p, &plan), HEARTH_USAGE, "hearth_model_init");
        check_said(hearth_model_open(box, path, p, &m), HEARTH_USAGE, "hearth_model_init");
        check_said(hearth_submit(model, p, &r), HEARTH_USAGE, "hearth_request_init");
    }
    munmap(two, 2 * page);
}

static void test_keys(void **state)
{
    (void)state;
    static const char good[] = "{\"messages\": [{\"content\": \"A\"}], \"tools\": null, "
                               "\"add_generation_prompt\": null, \"template_vars\": null}";
    static const struct {
        const char *json, *part;
    } cases[] = {
        { "[]", "\"messages\"" },
        { "{}", "messages: " },
        { "{\"messages\": []}", "messages: " },
        { "{\"messages\": {}}", "messages: " },
        { "{\"messages\": [{}, 5]}", "messages[1]: " },
        { "{\"messages\": [{}], \"tools\": 5}", "tools: " },
        { "{\"messages\": [{}], \"add_generation_prompt\": \"x\"}", "add_generation_prompt: " },
        { "{\"messages\": [{}], \"template_vars\": []}", "template_vars: " },
        { "{\"messages\": [{}], \"template_vars\": {\"messages\": []}}", "template_vars: " },
        { "{\"messages\": [{}], \"stream\": true}", "\"stream\" is no key" },
    };
    size_t n = 64;
    assert_int_equal(hearth_chat_tokens(model, good, sizeof good - 1, ids, &n), HEARTH_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t n_json = strlen(cases[i].json);
        n = 64;
        check_said(hearth_chat_tokens(model, cases[i].json, n_json, ids, &n), HEARTH_USAGE,
                   cases[i].part);
        check_said(hearth_chat_text(model, cases[i].json, n_json, room, &n), HEARTH_USAGE,
                   cases[i].part);
        assert_int_equal(n, 64);
    }
}

/* LIMIT: the number needed where more room would help, else the number as it was. */
static void test_limits(void **state)
{
    (void)state;
    const size_t n_many = ((size_t)16 << 20) + 1;
    static const char chat[] = "{\"messages\": [{\"content\": \"AAAAAAAA\"}]}";
    char deep[400] = "{\"messages\": [{\"content\": ";
    memset(deep + strlen(deep), '[', 100);
    size_t n = 2;
    assert_int_equal(hearth_tokenize(model, "AAAAAAAA", 8, 0, ids, &n), HEARTH_LIMIT);
    assert_true(n >= 8);
    n = 2;
    assert_int_equal(hearth_chat_tokens(model, chat, sizeof chat - 1, ids, &n), HEARTH_LIMIT);
    assert_true(n >= 8);
    n = 2;
    assert_int_equal(hearth_chat_text(model, chat, sizeof chat - 1, room, &n), HEARTH_LIMIT);
    assert_true(n >= 8);
    n = 2;
    assert_int_equal(hearth_chat_tokens(model, deep, strlen(deep), ids, &n), HEARTH_LIMIT);
    assert_int_equal(hearth_chat_text(model, deep, strlen(deep), room, &n), HEARTH_LIMIT);
    int32_t *many = calloc(n_many, sizeof many[0]);
    assert_non_null(many);
    assert_int_equal(hearth_detokenize(model, many, n_many, 0, room, &n), HEARTH_LIMIT);
    assert_int_equal(n, 2);
    assert_int_equal(hearth_detokenize(model, many, 3, 0, room, &n), HEARTH_LIMIT);
    assert_int_equal(n, 3);
    free(many);
}

/* A failure leaves outputs alone and tells two numbers that differ. */
static void test_memory(void **state)
{
    (void)state;
    struct hearth_box_params p;
    struct hearth_box *small = NULL;
    struct hearth_limits limits;
    struct hearth_limits before;
    struct hearth_plan plan;
    struct hearth_model *m = NULL;
    double need = 0.0;
    double have = 0.0;
    hearth_box_init(&p);
    p.n_thread = 1;
    p.memory_bytes = 1 << 20;
    assert_int_equal(hearth_box_open(&p, &small), HEARTH_OK);
    memset(&limits, 0x55, sizeof limits);
    before = limits;
    assert_int_equal(hearth_box_measure(small, &limits), HEARTH_MEMORY);
    assert_memory_equal(&limits, &before, sizeof limits);
    const struct hearth_speed none = { .n_prompt = 8, .n_parallel = 1, .read_gb_s = 1.0 };
    struct hearth_speed speed = none;
    check_said(hearth_predict(small, path, NULL, &speed, 1), HEARTH_MEMORY, "allow more");
    assert_memory_equal(&speed, &none, sizeof speed);
    check_said(hearth_predict(box, path, NULL, &speed, 0), HEARTH_USAGE, "1 to 64");
    assert_int_equal(hearth_predict(box, path, NULL, &speed, 1), HEARTH_OK);
    assert_true(speed.prefill_tok_s > 0.0 && speed.decode_tok_s > 0.0 && speed.read_gb_s == 1.0);
    assert_int_equal(hearth_plan_make(small, path, NULL, &plan), HEARTH_OK);
    struct hearth_model_params one;
    hearth_model_init(&one);
    one.n_ctx = 1;
    check_said(hearth_plan_make(small, path, &one, &plan), HEARTH_USAGE, "context is 1");
    check_said(hearth_model_open(small, path, &one, &m), HEARTH_USAGE, "context is 1");
    hearth_box_close(small);
    p.memory_bytes = plan.total_bytes - 80000; /* more than starts differ by */
    assert_int_equal(hearth_box_open(&p, &small), HEARTH_OK);
    check_said(hearth_model_open(small, path, NULL, &m), HEARTH_MEMORY, "available");
    assert_int_equal(sscanf(hearth_error(),
                            "the model needs %lf MiB with a context of %*d tokens "
                            "for 1 at once, %lf",
                            &need, &have),
                     2);
    assert_true(need > have);
    assert_null(m);
    hearth_box_close(small);
}

/* A file for one token: planning refuses it as opening does, and names what the file says. */
static void test_context_of_one(void **state)
{
    (void)state;
    static char bytes[4096];
    char path_one[64];
    struct hearth_plan plan;
    struct hearth_model *m = NULL;
    const struct view key = VIEW("llama.context_length");
    const int fd = tiny_model_with(path_one, VIEW("{{ a }}"));
    assert_int_equal(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
    const char *at = memmem(bytes, sizeof bytes, key.p, key.n);
    assert_non_null(at);
    assert_int_equal(pwrite(fd, &(uint32_t){ 1 }, 4, at - bytes + (off_t)key.n + 4), 4);
    check_said(hearth_plan_make(box, path_one, NULL, &plan), HEARTH_INTEGRITY,
               "llama.context_length: the value is 1, must lie in 2..");
    check_said(hearth_model_open(box, path_one, NULL, &m), HEARTH_INTEGRITY,
               "llama.context_length: the value is 1, must lie in 2..");
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null),           cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_keys),           cmocka_unit_test(test_limits),
        cmocka_unit_test(test_context_of_one), cmocka_unit_test(test_memory)
    };
    struct hearth_box_params p;
    const int fd = tiny_model(path);
    hearth_box_init(&p);
    p.n_thread = 1;
    if (hearth_box_open(&p, &box) != HEARTH_OK ||
        hearth_model_open(box, path, NULL, &model) != HEARTH_OK) {
        print_error("%s\n", hearth_error());
        return 1;
    }
    const int n_bad = cmocka_run_group_tests(tests, NULL, NULL);
    hearth_model_close(model);
    hearth_box_close(box);
    close(fd);
    return n_bad;
}
