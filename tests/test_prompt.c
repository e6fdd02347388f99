/* test_prompt - what a text takes while it becomes tokens is what the plan has for it
 *
 * The server counts PREP_SCRATCH_MAX for one item. Texts of the largest size, templates that copy
 * and tables made to be costly must stay below it, by the allocator's own count, or be refused with
 * a text that names the limit. */
#include "base/mem.h"
#include "gguf_tiny.h"
#include "hearth.h"
#include "serve/prep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define TREE_BYTES (PARAMS_TREE_MAX + PARAMS_TEXT_MAX) /* of JSON: not in the allocator's count */

static struct hearth_box *box;

static struct hearth_model *open_with(struct view template)
{
    char path[64];
    struct hearth_model *m = NULL;
    const int fd = tiny_model_with(path, template);
    if (hearth_model_open(box, path, NULL, &m) != HEARTH_OK) {
        print_error("%s\n", hearth_error());
        fail();
    }
    close(fd);
    return m;
}

/* A conversation of one message, n times this letter. */
static struct buf json_of(char letter, size_t n)
{
    struct buf json;
    buf_init(&json, n + 256);
    buf_add_str(&json, "{\"messages\": [{\"role\": \"user\", \"content\": \"");
    for (size_t i = 0; i < n; i++) {
        buf_add_char(&json, letter);
    }
    buf_add_str(&json, "\"}]}");
    assert_false(json.is_full);
    return json;
}

/* The peak of the process counts from `used`: what was before must not be above it. */
static void check_peak(size_t used, size_t max)
{
    if (mem_peak_bytes() > used + max) {
        print_error("%zu MiB were taken, the plan has %zu MiB\n", (mem_peak_bytes() - used) >> 20,
                    max >> 20);
        fail();
    }
}

static void test_largest(void **state)
{
    (void)state;
    static int32_t ids[4096];
    static const char letters[] = { ' ', 'A', 'a' };
    struct hearth_model *m = open_with(VIEW("{{ messages[0].content ~ messages[0].content[:9] }}"));
    for (size_t i = 0; i < sizeof letters; i++) {
        struct buf json = json_of(letters[i], PARAMS_TEXT_MAX - 64);
        const size_t used = mem_used_bytes();
        size_t n = 4096;
        assert_int_equal(hearth_chat_tokens(m, json.p, json.n, ids, &n), HEARTH_LIMIT);
        assert_true(n > PARAMS_TEXT_MAX - 64); /* of the whole text, which was not refused */
        check_peak(used, PREP_SCRATCH_MAX);
        n = 4096;
        assert_int_equal(hearth_tokenize(m, json.p, json.n, 0, ids, &n), HEARTH_LIMIT);
        assert_true(n > PARAMS_TEXT_MAX - 64);
        check_peak(used, PREP_SCRATCH_MAX);
        buf_release(&json);
    }
    hearth_model_close(m);
}

/* A template that makes much out of little, and one whose output is too much for the tokenizer. */
static void test_templates(void **state)
{
    (void)state;
    static int32_t ids[4096];
    static const struct {
        const char *source, *text;
    } cases[] = { { "{% set c = messages[0].content %}"
                    "{% for i in range(200) %}{% set x = c ~ i %}{% endfor %}",
                    "MB of memory are wanted, 96 MB are allowed" },
                  { "{% for i in range(7) %}{{ messages[0].content }}{% endfor %}",
                    "a conversation of 2097135 bytes as JSON takes more than 167.9 MiB while it "
                    "is prepared, the most that is allowed: shorten it, or take a model whose" } };
    struct buf json = json_of('A', PARAMS_TEXT_MAX - 64);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hearth_model *m = open_with(view_of(cases[i].source));
        const size_t used = mem_used_bytes();
        size_t n = 4096;
        assert_int_equal(hearth_chat_tokens(m, json.p, json.n, ids, &n), HEARTH_LIMIT);
        assert_int_equal(n, 4096);
        if (strstr(hearth_error(), cases[i].text) == NULL) {
            print_error("\"%s\" is wanted, found: %s\n", cases[i].text, hearth_error());
            fail();
        }
        check_peak(used, PREP_SCRATCH_MAX - TREE_BYTES);
        assert_int_equal(mem_used_bytes(), used);
        hearth_model_close(m);
    }
    buf_release(&json);
}

/* The most messages that a request may have, all short: a template of nested macros, as costly for
 * each as the costliest that models come with, needs no more than three quarters. */
static void test_short_messages(void **state)
{
    (void)state;
    static int32_t ids[1 << 19];
    struct buf json;
    struct hearth_model *m = open_with(
        VIEW("{% macro attr(v) %}{{ v | string | replace('&', '&amp;') | replace('\"', '&quot;') }}"
             "{% endmacro %}{% macro tag(name, attrs=[]) %}{{ '<' + name }}{% for a in attrs %}"
             "{{ ' ' + a[0] + '=\"' }}{{ attr(a[1]) }}{{ '\"' }}{% endfor %}{{ '>' }}{% endmacro %}"
             "{% macro text(t, state) %}{% set t = t | string %}{{ t }}{% endmacro %}"
             "{% macro content(c, state) %}{% if c is string %}{{ text(c, state) }}{% endif %}"
             "{% endmacro %}{% set state = namespace(n=0) %}{% for m in messages %}"
             "{% set attrs = [('role', m.role)] %}{% if not m.get('name') %}"
             "{% set attrs = attrs + [('n', loop.index)] %}{% endif %}{{ tag('m', attrs) }}"
             "{{ tag('t') }}{{ content(m.get('content'), state) }}{{ tag('/t') }}{{ tag('/m') }}"
             "{% set state.n = state.n + 1 %}{% endfor %}"));
    buf_init(&json, 1 << 20);
    for (int i = 0; i < 4096; i++) {
        buf_add_str(&json, i == 0 ? "{\"messages\": [" : ", ");
        buf_add_str(&json, i % 2 == 0 ? "{\"role\": \"user\", \"content\": \"a\"}"
                                      : "{\"role\": \"assistant\", \"content\": \"a\"}");
    }
    buf_add_str(&json, "]}");
    const size_t used = mem_used_bytes();
    size_t n = 1 << 19;
    if (hearth_chat_tokens(m, json.p, json.n, ids, &n) != HEARTH_OK) {
        print_error("%s\n", hearth_error());
        fail();
    }
    assert_true(mem_peak_bytes() > used + (size_t)4096 * 4096);
    check_peak(used, HEARTH_TEXT_BYTES(json.n) / 4 * 3);
    hearth_model_close(m);
    buf_release(&json);
}

/* Little text: `hearth run` counts no more for it than this. */
static void test_small(void **state)
{
    (void)state;
    static int32_t ids[4096];
    struct buf json = json_of('a', 20000);
    struct hearth_model *m =
        open_with(VIEW("{% set c = messages[0].content %}"
                       "{% for i in range(5000) %}{% set x = c ~ i %}{% endfor %}"));
    const size_t used = mem_used_bytes();
    size_t n = 4096;
    assert_int_equal(hearth_chat_tokens(m, json.p, json.n, ids, &n), HEARTH_LIMIT);
    assert_non_null(strstr(hearth_error(), "takes more than 24.0 MiB while it is prepared"));
    check_peak(used, HEARTH_TEXT_BYTES(json.n));
    hearth_model_close(m);
    buf_release(&json);
}

/* The parsed template is in the plan. */
static void test_tree(void **state)
{
    (void)state;
    uint64_t total[2] = { 0 };
    struct buf source;
    buf_init(&source, 1 << 20);
    for (int i = 0; i < 2; i++) {
        char path[64];
        struct hearth_plan plan;
        const int fd = tiny_model_with(path, i == 0 ? VIEW("{{ a }}") : buf_view(&source));
        assert_int_equal(hearth_plan_make(box, path, NULL, &plan), HEARTH_OK);
        close(fd);
        for (int32_t k = 0; k < plan.n_part; k++) {
            total[i] = strcmp(plan.part[k].name, "template") == 0 ? plan.part[k].bytes : total[i];
        }
        while (source.n < (1 << 20) - 5) {
            buf_add_str(&source, "{{a}}");
        }
    }
    assert_true(total[1] > total[0] + ((uint64_t)2 << 20));
    buf_release(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_short_messages),
                                        cmocka_unit_test(test_small), cmocka_unit_test(test_tree),
                                        cmocka_unit_test(test_templates),
                                        cmocka_unit_test(test_largest) };
    struct hearth_box_params p;
    hearth_box_init(&p);
    p.n_thread = 1;
    if (hearth_box_open(&p, &box) != HEARTH_OK) {
        return 1;
    }
    const int n_bad = cmocka_run_group_tests(tests, NULL, NULL);
    hearth_box_close(box);
    return n_bad;
}
