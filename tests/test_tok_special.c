/* test_tok_special - special tokens in a text: the longest that is allowed, however many there are */
#include "base/mem.h"
#include "gguf_write.h"
#include "model/tok_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define N_PLAIN   4  /* a, b, c, and cc, which the merge makes and no text here has */
#define N_SPECIAL 24 /* in each of the random sets */
#define N_TEXT    64

/* The plain ones, then n pieces of the types given (3 control, 4 added). */
static enum err try_kind(struct tok **t, const char *model, const struct view *pieces,
                         const int32_t *types, uint32_t n)
{
    static const char *const plain[N_PLAIN] = { "a", "b", "c", "cc" };
    struct gguf_write w;
    struct gguf *g = NULL;
    gguf_write_begin(&w);
    gguf_write_string(&w, "model", view_of(model));
    gguf_write_string(&w, "pre", VIEW("gpt-2"));
    gguf_write_array(&w, "tokens", GGUF_STRING, N_PLAIN + n);
    for (int i = 0; i < N_PLAIN; i++) {
        gguf_write_text(&w, view_of(plain[i]));
    }
    for (uint32_t i = 0; i < n; i++) {
        gguf_write_text(&w, pieces[i]);
    }
    gguf_write_array(&w, "token_type", GGUF_I32, N_PLAIN + n);
    for (uint32_t i = 0; i < N_PLAIN + n; i++) {
        const int32_t type = i < N_PLAIN ? 1 : types[i - N_PLAIN];
        buf_add(&w.out, &type, sizeof type);
    }
    gguf_write_array(&w, "merges", GGUF_STRING, 1);
    gguf_write_text(&w, VIEW("c c"));
    assert_int_equal(gguf_write_open(&w, &g), ERR_OK);
    const enum err e = tok_open(t, g);
    gguf_close(g);
    return e;
}

static struct tok *open_kind(const char *model, const struct view *pieces, const int32_t *types,
                             uint32_t n)
{
    struct tok *t = NULL;
    assert_int_equal(try_kind(&t, model, pieces, types, n), ERR_OK);
    return t;
}

static struct tok *open_specials(const struct view *pieces, const int32_t *types, uint32_t n)
{
    return open_kind("gpt2", pieces, types, n);
}

/* The plain twin of the search: all special tokens are tried. */
static int32_t special_at(const struct tok *t, struct view text, size_t at, bool parse,
                          const uint8_t *trusted)
{
    int32_t best = -1;
    for (int32_t id = N_PLAIN; id < t->n; id++) {
        const struct view p = tok_piece_of(t, id);
        bool is_allowed =
            p.n > 0 && view_starts(view_from(text, at), p) && (t->type[id] == TOK_USER || parse);
        for (size_t i = 0; i < p.n && is_allowed && t->type[id] == TOK_CONTROL; i++) {
            is_allowed = trusted == NULL || trusted[at + i] != 0;
        }
        if (is_allowed && (best < 0 || p.n > t->piece.n[best])) {
            best = id;
        }
    }
    return best;
}

static void check_text(const struct tok *t, struct view text, bool parse, const uint8_t *trusted)
{
    int32_t want[N_TEXT];
    int32_t ids[N_TEXT];
    struct tok_list out = { .ids = ids, .cap = N_TEXT };
    size_t n = 0;
    for (size_t at = 0; at < text.n; n++) {
        const int32_t id = special_at(t, text, at, parse, trusted);
        want[n] = id >= 0 ? id : text.p[at] - 'a';
        at += id >= 0 ? t->piece.n[id] : 1;
    }
    assert_int_equal(trusted != NULL ? tok_encode_marked(t, text, trusted, &out)
                                     : tok_encode(t, text, false, parse, &out),
                     ERR_OK);
    assert_int_equal(out.n, n);
    assert_memory_equal(ids, want, n * sizeof want[0]);
}

static uint32_t pick(uint32_t n)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

static void put_letters(char *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = "aab"[pick(3)];
    }
}

/* Sets of short pieces of two letters: many begin others, many stand there twice. Empty ones never
 * count. */
static void test_as_tried_one_by_one(void **state)
{
    (void)state;
    for (int k = 0; k < 2000; k++) {
        char letters[N_SPECIAL][6];
        struct view pieces[N_SPECIAL];
        int32_t types[N_SPECIAL];
        for (int i = 0; i < N_SPECIAL; i++) {
            put_letters(letters[i], sizeof letters[i]);
            pieces[i] = (struct view){ letters[i], pick(2 + (uint32_t)k % 6) };
            types[i] = (int32_t)(3 + pick(2));
        }
        struct tok *t = open_specials(pieces, types, 1 + pick(N_SPECIAL));
        for (int i = 0; i < 10; i++) {
            char text[N_TEXT];
            uint8_t trusted[N_TEXT];
            put_letters(text, sizeof text);
            for (int j = 0; j < N_TEXT; j++) {
                trusted[j] = pick(6) > 0;
            }
            const struct view v = { text, pick(N_TEXT + 1) };
            check_text(t, v, false, NULL);
            check_text(t, v, true, NULL);
            check_text(t, v, true, trusted);
        }
        tok_close(t);
    }
}

/* Tried one after the other, special tokens this many would take longer than a test may (TO-3). */
static void test_many(void **state)
{
    (void)state;
    enum { N = 1 << 17, N_BYTE = 1 << 20 };
    char(*names)[12] = malloc(N * sizeof names[0]);
    struct view *pieces = malloc(N * sizeof pieces[0]);
    int32_t *types = malloc(N * sizeof types[0]);
    char *text = malloc(N_BYTE);
    int32_t *ids = malloc(N_BYTE * sizeof ids[0]);
    assert_true(names != NULL && pieces != NULL && types != NULL && text != NULL && ids != NULL);
    for (int i = 0; i < N; i++) {
        pieces[i] = (struct view){ names[i], (size_t)snprintf(names[i], 12, "a<%d>", i) };
        types[i] = 3 + i % 2;
    }
    struct tok *t = open_specials(pieces, types, N);
    memset(text, 'a', N_BYTE);
    memcpy(text + N_BYTE - 10, "<99999>a<7", 10);
    struct tok_list out = { .ids = ids, .cap = N_BYTE };
    assert_int_equal(tok_encode(t, (struct view){ text, N_BYTE }, false, true, &out), ERR_OK);
    assert_int_equal(out.n, N_BYTE - 11 + 2); /* "<" and "7" are in no piece and give none */
    assert_int_equal(ids[N_BYTE - 11], N_PLAIN + 99999);
    assert_int_equal(ids[N_BYTE - 10], 0);
    tok_close(t);
    free(names);
    free(pieces);
    free(types);
    free(text);
    free(ids);
}

/* Control tokens whose piece is what a text is cut into anyway: a letter, a byte, a word and a part
 * of it. None may come of a text (TO-1), whatever the kind. */
static void test_control_as_piece(void **state)
{
    (void)state;
    static const char *const kinds[] = { "gpt2", "gemma4", "llama", "bert" };
    static const char spaced_dd[] = { '\xE2', '\x96', '\x81', 'd', 'd', '\0' };
    static const char *const names[] = {
        "d", "<0x65>", spaced_dd, "dd", "[UNK]", "[CLS]", "[SEP]"
    };
    enum { N = sizeof names / sizeof names[0] };
    struct view pieces[N];
    int32_t types[N];
    for (int i = 0; i < N; i++) {
        pieces[i] = view_of(names[i]);
        types[i] = i == 4 ? 2 : 3;
    }
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        int32_t ids[N_TEXT];
        struct tok_list out = { .ids = ids, .cap = N_TEXT };
        struct tok *t = open_kind(kinds[k], pieces, types, N);
        assert_int_equal(tok_encode(t, VIEW("d e dd ade cc add dada"), false, false, &out), ERR_OK);
        for (size_t i = 0; i < out.n; i++) {
            assert_false(tok_is_control(t, ids[i]));
        }
        tok_close(t);
    }
}

/* What special tokens take is bounded: a file of 60 MB of them took 1 GB to open. */
static void test_too_many_bytes(void **state)
{
    (void)state;
    enum { N = 2400 };
    static char text[TOK_PIECE_MAX + N];
    static struct view pieces[N];
    static int32_t types[N];
    memset(text, 'x', sizeof text);
    for (int i = 0; i < N; i++) {
        pieces[i] = (struct view){ text + i, TOK_PIECE_MAX };
        types[i] = 3;
    }
    struct tok *t = NULL;
    const size_t used = mem_used_bytes();
    assert_int_equal(try_kind(&t, "gpt2", pieces, types, N), ERR_LIMIT);
    assert_non_null(strstr(err_text(), "8601600 bytes"));
    assert_null(t);
    assert_int_equal(mem_used_bytes(), used);
}

/* With too little memory a text fails, or gives what it gives with enough. */
static void test_scarce_memory(void **state)
{
    (void)state;
    static const char *const kinds[] = { "gpt2", "llama", "bert" };
    const struct view pieces[] = { VIEW("[UNK]"), VIEW("[CLS]"), VIEW("[SEP]"),
                                   VIEW("\xE2\x96\x81"
                                        "a") };
    const int32_t types[] = { 3, 3, 3, 1 };
    const struct view text = VIEW("a b c a b c abc cab a, b; (c) aaaa bbbb cccc a a a a a a b");
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct tok *t = open_kind(kinds[k], pieces, types, 4);
        int32_t want[256];
        int32_t ids[256];
        struct tok_list all = { .ids = want, .cap = 256 };
        assert_int_equal(tok_encode(t, text, true, false, &all), ERR_OK);
        int n_failed = 0;
        enum err e = ERR_FAILED;
        for (size_t room = 1; e != ERR_OK || mem_fence(SIZE_MAX); room++) {
            struct tok_list out = { .ids = ids, .cap = 256 };
            (void)mem_fence(room);
            e = tok_encode(t, text, true, false, &out);
            if (e == ERR_OK) {
                assert_int_equal(out.n, all.n);
                assert_memory_equal(ids, want, all.n * sizeof want[0]);
            }
            n_failed += e != ERR_OK;
        }
        assert_true(n_failed > 10);
        tok_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_as_tried_one_by_one),
                                        cmocka_unit_test(test_many),
                                        cmocka_unit_test(test_control_as_piece),
                                        cmocka_unit_test(test_too_many_bytes),
                                        cmocka_unit_test(test_scarce_memory) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
