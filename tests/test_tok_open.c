/* test_tok_open - vocabularies that would answer differently without a word are refused by name */
#include "base/hash.h"
#include "gguf_write.h"
#include "model/tok_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MARK "\xE2\x96\x81"
#define END  NULL

static void add_strings(struct gguf_write *w, const char *name, const char *const *strings)
{
    uint64_t n = 0;
    while (strings[n] != END) {
        n++;
    }
    gguf_write_array(w, name, GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++) {
        gguf_write_text(w, view_of(strings[i]));
    }
}

/* Opens a vocabulary; merges may be NULL: no such key. */
static enum err open_with(const char *model, const char *const *tokens, const char *const *merges)
{
    struct gguf_write w;
    struct gguf *g = NULL;
    struct tok *t = NULL;
    gguf_write_begin(&w);
    gguf_write_string(&w, "general.architecture", VIEW("test"));
    gguf_write_string(&w, "model", view_of(model));
    gguf_write_string(&w, "pre", VIEW("gpt-2"));
    add_strings(&w, "tokens", tokens);
    if (merges != NULL) {
        add_strings(&w, "merges", merges);
    }
    assert_int_equal(gguf_write_open(&w, &g), ERR_OK);
    const enum err e = tok_open(&t, g);
    tok_close(t);
    gguf_close(g);
    return e;
}

static void refuses(const char *model, const char *const *tokens, const char *const *merges,
                    const char *const *words)
{
    assert_int_equal(open_with(model, tokens, merges), ERR_INTEGRITY);
    for (size_t i = 0; words[i] != END; i++) {
        if (strstr(err_text(), words[i]) == NULL) {
            print_error("\"%s\" is not in: %s\n", words[i], err_text());
            fail();
        }
    }
}

#define LIST(...)                                                                                  \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, END                                                                           \
    }
#define NONE                                                                                       \
    (const char *const[])                                                                          \
    {                                                                                              \
        END                                                                                        \
    }

static void test_merges(void **state)
{
    (void)state;
    const char *const *tokens =
        LIST("a", "b", "c", "ab", "bc", "ca", "cb", "ba", "ac", "aa", "bb", "abc");
    assert_int_equal(open_with("gpt2", tokens, LIST("a b", "b c", "ab c")), ERR_OK);
    refuses("gpt2", tokens, NULL, LIST("tokenizer.ggml.merges", "is missing"));
    refuses("gpt2", tokens, NONE, LIST("tokenizer.ggml.merges", "is empty"));
    refuses("gpt2", tokens, LIST("a b", ""), LIST("tokenizer.ggml.merges, entry 1", "\"\""));
    refuses("gpt2", tokens, LIST("a b", "b c", "abc"), LIST("merges, entry 2", "\"abc\""));
    refuses("gpt2", tokens, LIST("a b", "b "), LIST("merges, entry 1", "\"b \""));
    refuses("gemma4", tokens, LIST("a b", "bc"), LIST("merges, entry 1", "\"bc\""));
    /* of another vocabulary: the parts, or what they make, are no tokens */
    refuses("gpt2", tokens, LIST("a b", "x y"), LIST("merges, entry 1", "\"x y\"", "1 of 2"));
    refuses("gpt2", tokens, LIST("abc c", "a b"), LIST("merges, entry 0", "\"abc c\"", "1 of 2"));
    /* one of ten: a vocabulary that was cut down */
    assert_int_equal(
        open_with("gpt2", tokens,
                  LIST("a b", "b c", "c a", "c b", "b a", "a c", "a a", "b b", "ab c", "abc a")),
        ERR_OK);
}

/* Of many merges some are looked at; where these are strange all are counted. They may stand
 * anywhere. */
static void test_many_merges(void **state)
{
    (void)state;
    enum { N = 30000 };
    static const char *merges[N + 1];
    merges[N] = END;
    const char *const *tokens = LIST("a", "b", "ab");
    for (int i = 0; i < N; i++) { /* 10.1 of a hundred, behind the others */
        merges[i] = i < N - 3031 ? "a b" : "x y";
    }
    refuses("gpt2", tokens, merges, LIST("merges, entry 26969", "3031 of 30000"));
    merges[N - 1] = merges[N - 2] = merges[N - 31] = "a b"; /* 3028 */
    refuses("gpt2", tokens, merges, LIST("merges, entry 26969", "3028 of 30000"));
    for (int i = 0; i < 28; i++) {
        merges[N - 3031 + i] = "a b"; /* as many as are allowed */
    }
    assert_int_equal(open_with("gpt2", tokens, merges), ERR_OK);
    for (int k = 2; k <= 9; k++) { /* one in k, at each place */
        for (int at = 0; at < k; at++) {
            for (int i = 0; i < N; i++) {
                merges[i] = i % k == at ? "x y" : "a b";
            }
            assert_int_equal(open_with("gpt2", tokens, merges), ERR_INTEGRITY);
        }
    }
}

/* A million equal merges: the first counts, and each of the others is found at once. Searched one
 * after the other they would take longer than a test may. */
static void test_equal_merges(void **state)
{
    (void)state;
    static const char *merges[(1 << 20) + 1];
    for (size_t i = 0; i < 1 << 20; i++) {
        merges[i] = "a b";
    }
    assert_int_equal(open_with("gpt2", LIST("a", "b", "ab"), merges), ERR_OK);
}

static void test_word_pieces(void **state)
{
    (void)state;
    assert_int_equal(open_with("bert", LIST("[SEP]", "[CLS]", "[UNK]", MARK "a"), NULL), ERR_OK);
    refuses("bert", LIST("[SEP]", "[CLS]", "[UNK]", "a"), NULL, LIST("tokens", "U+2581"));
    refuses("bert", LIST("[SEP]", "[CLS]", MARK "a"), NULL, LIST("[UNK]", "unknown_token_id"));
    refuses("bert", LIST("[SEP]", "[UNK]", MARK "a"), NULL, LIST("[CLS]", "cls_token_id"));
    refuses("bert", LIST("[CLS]", "[UNK]", MARK "a"), NULL, LIST("[SEP]", "seperator_token_id"));
}

/* A word of the most characters that is covered, each by as many pieces as it has bytes. */
static void test_byte_pieces(void **state)
{
    (void)state;
    enum { N_CHAR = 100 };
    struct gguf_write w;
    struct gguf *g = NULL;
    struct tok *t = NULL;
    char text[4 * N_CHAR];
    static int32_t ids[4 * N_CHAR];
    struct tok_list out = { .ids = ids, .cap = 4 * N_CHAR };
    gguf_write_begin(&w);
    gguf_write_string(&w, "model", VIEW("bert"));
    add_strings(&w, "tokens", LIST("[UNK]", "[CLS]", "[SEP]", MARK "\xF0", "\xF0", "\x90", "\xA8"));
    assert_int_equal(gguf_write_open(&w, &g), ERR_OK);
    assert_int_equal(tok_open(&t, g), ERR_OK);
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = "\xF0\x90\x90\xA8"[i % 4];
    }
    assert_int_equal(tok_encode(t, (struct view){ text, sizeof text }, false, false, &out), ERR_OK);
    assert_int_equal(out.n, sizeof text);
    const int32_t want[] = { 4, 5, 5, 6 };
    for (size_t i = 0; i < sizeof text; i++) {
        assert_int_equal(ids[i], i == 0 ? 3 : want[i % 4]);
    }
    tok_close(t);
    gguf_close(g);
}

/* The longest run of slots in use: what one look-up may cost. */
static size_t longest_run(const struct tok *t)
{
    size_t longest = 0;
    size_t run = 0;
    for (size_t i = 0; i < 2 * t->n_slot; i++) { /* twice round: a run may pass the end */
        run = t->by_piece[i % t->n_slot] != 0 ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest;
}

/* Pieces that all fall on one slot in one opening are spread in the next, with the same ids: the
 * seed is random, so whoever writes a file cannot know it. */
static void test_colliding_pieces(void **state)
{
    (void)state;
    enum { N = 1000, N_SLOT = 2048 };
    static char names[N][8];
    uint64_t seed = 0;
    size_t runs[2];
    for (int round = 0; round < 2; round++) {
        struct gguf_write w;
        struct gguf *g = NULL;
        struct tok *t = NULL;
        gguf_write_begin(&w);
        gguf_write_string(&w, "model", VIEW("llama"));
        gguf_write_array(&w, "tokens", GGUF_STRING, N);
        uint32_t k = 0;
        for (int i = 0; i < N; i++) {
            do {
                snprintf(names[i], sizeof names[i], "%07x", k++);
            } while (round == 1 && (hash_mix(names[i], 7, seed) & (N_SLOT - 1)) != 0);
            gguf_write_text(&w, (struct view){ names[i], 7 });
        }
        assert_int_equal(gguf_write_open(&w, &g), ERR_OK);
        assert_int_equal(tok_open(&t, g), ERR_OK);
        assert_int_equal(t->n_slot, N_SLOT);
        for (int32_t i = 0; i < N; i++) {
            assert_int_equal(tok_lookup(t, (struct view){ names[i], 7 }), i);
        }
        runs[round] = longest_run(t);
        seed = t->seed;
        tok_close(t);
        gguf_close(g);
    }
    assert_true(runs[0] < N / 4 && runs[1] < N / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),       cmocka_unit_test(test_many_merges),
        cmocka_unit_test(test_equal_merges), cmocka_unit_test(test_word_pieces),
        cmocka_unit_test(test_byte_pieces),  cmocka_unit_test(test_colliding_pieces)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
