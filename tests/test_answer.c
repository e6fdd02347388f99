/* test_answer - how large an answer may become: each part, the whole body, and a stream's twin; and
 * how tokens are named
 *
 * Events as the engine gives them, without an engine. The file is included, so that tokens can have
 * texts without a model. */
#include "hearth.h"

#define hearth_detokenize give_piece
static hearth_status give_piece(const struct hearth_model *m, const int32_t *tok, size_t n_tok,
                                int flags, char *text, size_t *n);
#include "serve/answer.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define PART_MAX 1000 /* bytes of a part of a choice */

static const char *const pieces[] = { " a", "\xf0\x9f", "\xf0\x9e", " \\\xf0", "A", "A" };

static hearth_status give_piece(const struct hearth_model *m, const int32_t *tok, size_t n_tok,
                                int flags, char *text, size_t *n)
{
    (void)m;
    (void)flags;
    *n = 0;
    for (size_t i = 0; i < n_tok; i++) {
        memcpy(text + *n, pieces[tok[i]], strlen(pieces[tok[i]]));
        *n += strlen(pieces[tok[i]]);
    }
    return HEARTH_OK;
}

static void begin(struct answer *a, bool is_stream)
{
    struct params p = { .kind = PARAMS_CHAT, .is_stream = is_stream };
    p.request.n_choice = 1;
    answer_init(a, NULL, "model", &p, "req_1", PART_MAX);
}

static bool take_text(struct answer *a, const char *text, size_t n, struct buf *out)
{
    const struct hearth_event e = {
        .size = sizeof e, .kind = HEARTH_EVENT_TOKEN, .token = 1, .text = text, .n_text = n
    };
    return answer_take(a, &e, out);
}

static bool take_end(struct answer *a, struct buf *out)
{
    const struct hearth_event e = { .size = sizeof e, .kind = HEARTH_EVENT_END };
    return answer_take(a, &e, out);
}

/* Pieces of ten bytes until the answer is refused; how many were taken. */
static int fill(struct answer *a, int n, struct buf *out)
{
    for (int i = 0; i < n; i++) {
        if (!take_text(a, "0123456789", 10, out)) {
            return i;
        }
    }
    return n;
}

static void test_part(void **state)
{
    (void)state;
    struct answer a;
    struct buf out;
    buf_init(&out, 100000);
    begin(&a, false);
    assert_int_equal(fill(&a, 1000, &out), PART_MAX / 10);
    assert_int_equal(out.n, 0);
    answer_release(&a);
    buf_release(&out);
}

/* All parts have room, but not the body: its text is escaped. */
static void test_body(void **state)
{
    (void)state;
    char quotes[PART_MAX];
    memset(quotes, '"', sizeof quotes);
    for (size_t room = 100; room < 4000; room += 50) {
        struct answer a;
        struct buf out;
        struct js *root = NULL;
        buf_init(&out, room);
        begin(&a, false);
        assert_true(take_text(&a, quotes, sizeof quotes, &out));
        const bool fits = take_end(&a, &out);
        const bool is_whole = js_parse(buf_view(&out), 16, &root) == ERR_OK;
        assert_int_equal(fits, is_whole);
        assert_true(fits ? room > 2 * PART_MAX : room < 3 * PART_MAX);
        js_close(root);
        answer_release(&a);
        buf_release(&out);
    }
}

/* A stream keeps nothing, so that no answer is too large for it; only what the client does not take
 * in time fills its buffer. */
static void test_stream(void **state)
{
    (void)state;
    struct answer a;
    struct buf out;
    buf_init(&out, 4000);
    begin(&a, true);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(fill(&a, 1, &out), 1);
        assert_true(out.n > 0 && !out.is_full);
        buf_reset(&out);
    }
    assert_true(answer_bytes(&a) <= PART_MAX);
    assert_true(take_end(&a, &out));
    buf_reset(&out);
    assert_true(fill(&a, 1000, &out) < 40);
    answer_release(&a);
    buf_release(&out);
}

/* Parts of characters are told apart, and no key stands twice: the better of two equal ones stays.
 */
static void test_names(void **state)
{
    (void)state;
    static const char want[] =
        "\"logprobs\":{\"tokens\":[\"bytes:\\\\xf0\\\\x9f\",\" a\"],\"token_logprobs\":[-0.5,-4.0],"
        "\"top_logprobs\":[{\"bytes:\\\\xf0\\\\x9f\":-0.5,\"bytes:\\\\xf0\\\\x9e\":-1.0,"
        "\"bytes: \\\\x5c\\\\xf0\":-2.0,\"A\":-3.0,\" a\":-4.0},{}],\"text_offset\":[0,0]}";
    const struct hearth_bias top[] = { { 1, -0.5f }, { 2, -1.0f }, { 3, -2.0f },
                                       { 5, -3.0f }, { 4, -3.5f }, { 0, -4.0f } };
    const struct params p = { .kind = PARAMS_COMPLETION,
                              .has_logprobs = true,
                              .request.n_choice = 1 };
    struct hearth_event e = { .size = sizeof e,
                              .kind = HEARTH_EVENT_TOKEN,
                              .token = 1,
                              .logprob = -0.5f,
                              .top = top,
                              .n_top = sizeof top / sizeof top[0] };
    struct answer a;
    struct buf out;
    buf_init(&out, 4000);
    answer_init(&a, NULL, "model", &p, "req_1", PART_MAX);
    assert_true(answer_take(&a, &e, &out));
    e.token = 0;
    e.logprob = -4.0f;
    e.n_top = 0;
    assert_true(answer_take(&a, &e, &out));
    assert_true(take_end(&a, &out));
    if (strstr(buf_str(&out), want) == NULL) {
        print_error("%s\nis not in\n%s\n", want, buf_str(&out));
        fail();
    }
    answer_release(&a);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_part),
        cmocka_unit_test(test_body),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
