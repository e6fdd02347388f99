/* test_chat_refusals - what a chat template says when it refuses or reaches a limit */
#include "base/mem.h"
#include "model/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Renders one message; the template must fail with `want` and a text that begins with `text`. */
static void fails(const char *source, struct view content, enum err want, const char *text)
{
    struct chat_template *t = NULL;
    struct js *messages = NULL;
    struct buf json;
    struct buf out;
    buf_init(&json, (size_t)64 << 20);
    buf_init(&out, CHAT_OUTPUT_MAX_BYTES);
    buf_add_str(&json, "[{\"role\": \"user\", \"content\": \"");
    buf_add_view(&json, content);
    buf_add_str(&json, "\"}]");
    assert_int_equal(js_parse(buf_view(&json), 8, &messages), ERR_OK);
    assert_int_equal(chat_open(&t, view_of(source)), ERR_OK);
    const struct chat_input in = { .messages = messages };
    assert_int_equal(chat_render(t, &in, &out, NULL), want);
    if (strncmp(err_text(), text, strlen(text)) != 0) {
        print_error("\"%s\" is wanted, found: %s\n", text, err_text());
        fail();
    }
    assert_int_equal(out.n, 0);
    chat_close(t);
    js_close(messages);
    buf_release(&json);
    buf_release(&out);
}

static void test_refusals(void **state)
{
    (void)state;
    fails("{{ raise_exception('no') }}", VIEW("hi"), ERR_USAGE,
          "the chat template refuses this conversation: no");
    fails("\n{{ 1 / 0 }}", VIEW("hi"), ERR_FAILED, "chat template line 2: division by zero");
}

static void test_limits(void **state)
{
    (void)state;
    fails("{% for i in range(1000000) %}{% for k in range(1000000) %}{% endfor %}{% endfor %}",
          VIEW("hi"), ERR_LIMIT, "chat template line 1: range of 1000000 elements, 100000 ");
    fails("{% for i in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}",
          VIEW("hi"), ERR_LIMIT, "chat template line 1: still running after 20000000 steps");
}

static void test_long_conversation(void **state)
{
    (void)state;
    const size_t n = (size_t)15 << 20;
    char *content = mem_alloc(n);
    assert_non_null(content);
    memset(content, 'a', n);
    fails("\n{% set c = messages[0].content %}"
          "{% for i in range(20) %}{% set x = c ~ i %}{% endfor %}",
          (struct view){ content, n }, ERR_LIMIT,
          "the conversation is too long for its chat template (line 2): ");
    assert_non_null(strstr(err_text(), " MB of memory are wanted, 96 MB are allowed"));
    mem_free(content);
}

/* JM-3: wherever memory ends, the run fails there, though smaller pieces could still be had. */
static void test_memory_ends(void **state)
{
    (void)state;
    struct chat_template *t = NULL;
    struct js *messages = NULL;
    struct buf out;
    assert_int_equal(js_parse(VIEW("[{\"role\": \"user\", \"content\": \"a,b\"}]"), 8, &messages),
                     ERR_OK);
    assert_int_equal(
        chat_open(&t, VIEW("{% macro tag(name, more=[]) %}<{{ name ~ more | join('-') }}>{{ caller "
                           "and caller() }}"
                           "{% endmacro %}{% set ns = namespace(n=0) %}{% for m in messages %}"
                           "{% set ns.n = ns.n + 1 %}{{ tag(m.role, more=m.content.split(',')) }}"
                           "{% call tag('x') %}y{% endcall %}{{ '%s' | format(m) }}"
                           "{{ m | tojson }}{{ [ns.n, m] | map('string') | list }}"
                           "{% set text %}{{ m.content | upper | replace('A', '&') }}{% endset %}"
                           "{{ text | trim | escape }}{% endfor %}{{ tag('end') }}")),
        ERR_OK);
    const struct chat_input in = { .messages = messages };
    enum err e = ERR_MEMORY;
    size_t room = 0;
    for (bool is_met = true; e != ERR_OK || is_met; room += 16) {
        assert_true(room < 100000);
        buf_init(&out, CHAT_OUTPUT_MAX_BYTES);
        (void)mem_fence(room);
        e = chat_render(t, &in, &out, NULL);
        is_met = mem_fence(SIZE_MAX);
        assert_true(e == ERR_OK || (e == ERR_MEMORY && is_met && out.n == 0));
        buf_release(&out);
    }
    assert_true(room > 4096);
    chat_close(t);
    js_close(messages);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_refusals),
                                        cmocka_unit_test(test_limits),
                                        cmocka_unit_test(test_memory_ends),
                                        cmocka_unit_test(test_long_conversation) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
