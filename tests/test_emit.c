/* test_emit - text that waits for the end of a character or of a stop text: nothing is lost, whatever the pieces are */
#include "engine/emit.h"
#include "gguf_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define BAD_BYTES 1500 /* of the piece that is no UTF-8 */

/* A vocabulary of </s>, <unk>, "a" and a piece of stray bytes. */
static struct tok *open_vocabulary(void)
{
    static char bad[BAD_BYTES + 1];
    memset(bad, 0x80, BAD_BYTES);
    const char *pieces[] = { "</s>", "<unk>", "a", bad };
    const int32_t types[] = { 3, 2, 1, 1 };
    const float scores[] = { 0.0f, 0.0f, -1.0f, -2.0f };
    struct gguf_write w;
    struct gguf *g = NULL;
    struct tok *t = NULL;
    gguf_write_begin(&w);
    gguf_write_string(&w, "general.architecture", VIEW("t5"));
    gguf_write_string(&w, "model", VIEW("t5"));
    gguf_write_array(&w, "tokens", GGUF_STRING, 4);
    for (int i = 0; i < 4; i++) {
        gguf_write_text(&w, view_of(pieces[i]));
    }
    gguf_write_array(&w, "scores", GGUF_F32, 4);
    buf_add(&w.out, scores, sizeof scores);
    gguf_write_array(&w, "token_type", GGUF_I32, 4);
    buf_add(&w.out, types, sizeof types);
    assert_int_equal(gguf_write_open(&w, &g), ERR_OK);
    assert_int_equal(tok_open(&t, g), ERR_OK);
    gguf_close(g);
    return t;
}

static void test_stray_bytes(void **state)
{
    (void)state;
    struct tok *t = open_vocabulary();
    struct emit e;
    struct view out;
    struct buf all;
    char stop[EMIT_STOP_BYTES];
    memset(stop, 'a', sizeof stop);
    const struct emit_stops stops = { .text = { { stop, sizeof stop } }, .n = 1 };
    buf_init(&all, 1 << 20);
    assert_int_equal(emit_init(&e, BAD_BYTES), ERR_OK);
    emit_start(&e);
    for (int i = 0; i < EMIT_STOP_BYTES - 1; i++) { /* all of it may be the stop text's beginning */
        assert_true(emit_token(&e, t, &stops, 2, false, &out));
        buf_add_view(&all, out);
    }
    assert_int_equal(all.n, 0);
    for (int i = 0; i < 2; i++) {
        assert_true(emit_token(&e, t, &stops, 3, false, &out));
        assert_true(out.n <= emit_room_bytes(BAD_BYTES));
        buf_add_view(&all, out);
    }
    assert_true(emit_token(&e, t, &stops, 2, false, &out));
    buf_add_view(&all, out);
    emit_end(&e, &out);
    buf_add_view(&all, out);
    assert_int_equal(all.n, EMIT_STOP_BYTES - 1 + 2 * 3 * BAD_BYTES + 1);
    assert_int_equal(all.p[all.n - 1], 'a');
    assert_memory_equal(all.p + EMIT_STOP_BYTES - 1, "\xEF\xBF\xBD", 3);
    emit_release(&e);
    buf_release(&all);
    tok_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_stray_bytes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
