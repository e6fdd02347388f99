/* test_tok_ugm - unigram vocabularies: SentencePiece's own answers, special tokens, hostile rules, long texts
 *
 * The golden files are written by tests/tools/mk_ugm_golden.py. */
#include "base/js.h"
#include "base/mem.h"
#include "gguf_write.h"
#include "model/tok.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define N_ID 4096

static int32_t ids[N_ID];

/* A file of tests/ugm, whether the test runs at the top of the tree or in the build folder. */
static struct buf load(const char *name)
{
    char path[512];
    struct buf b;
    buf_init(&b, (size_t)16 << 20);
    snprintf(path, sizeof path, "tests/ugm/%s", name);
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        const char *cut = strrchr(__FILE__, '/');
        snprintf(path, sizeof path, "%.*s/ugm/%s", cut != NULL ? (int)(cut - __FILE__) : 1,
                 cut != NULL ? __FILE__ : ".", name);
        f = fopen(path, "rb");
    }
    assert_non_null(f);
    char part[4096];
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) {
        buf_add(&b, part, n);
    }
    fclose(f);
    return b;
}

static enum err open_bytes(struct tok **t, struct view bytes)
{
    const int fd = memfd_create("model", MFD_CLOEXEC);
    char path[64];
    struct gguf *g = NULL;
    assert_true(fd >= 0 && write(fd, bytes.p, bytes.n) == (ssize_t)bytes.n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    enum err e = gguf_open(&g, path);
    e = e == ERR_OK ? tok_open(t, g) : e;
    gguf_close(g);
    close(fd);
    return e;
}

static struct tok *open_file(const char *name)
{
    struct tok *t = NULL;
    struct buf b = load(name);
    assert_int_equal(open_bytes(&t, buf_view(&b)), ERR_OK);
    buf_release(&b);
    return t;
}

static size_t bytes_of(const char *text, char *out)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t w = 0;
    size_t n = 0;
    int bits = 0;
    for (; *text != '\0' && *text != '='; text++) {
        w = w << 6 | (uint32_t)(strchr(alphabet, *text) - alphabet);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[n++] = (char)(w >> bits & 255);
        }
    }
    return n;
}

static void check_case(const struct tok *t, const struct js *c)
{
    char raw[256];
    struct view text = js_string(js_get(c, "text"));
    if (js_get(c, "b64") != NULL) {
        text = (struct view){ raw, bytes_of(js_string(js_get(c, "b64")).p, raw) };
    }
    const struct js *want = js_get(c, "ids");
    struct tok_list list = { ids, 0, N_ID };
    assert_int_equal(tok_encode(t, text, false, false, &list), ERR_OK);
    bool is_same = list.n == js_count(want);
    for (size_t i = 0; i < list.n && is_same; i++) {
        is_same = ids[i] == js_int(js_at(want, i));
    }
    if (!is_same) {
        print_error("text: %.*s\n", (int)text.n, text.p);
    }
    assert_true(is_same);
    if (js_get(c, "back") != NULL) {
        struct buf out;
        buf_init(&out, 1 << 16);
        assert_int_equal(tok_decode(t, ids, list.n, false, &out), ERR_OK);
        struct buf clean;
        buf_init(&clean, 1 << 16);
        utf8_clean(&clean, buf_view(&out));
        assert_true(view_eq(buf_view(&clean), js_string(js_get(c, "back"))));
        buf_release(&out);
        buf_release(&clean);
    }
    if (list.n > 0) { /* with too little room the number needed is told */
        struct tok_list few = { ids, 0, list.n - 1 };
        assert_int_equal(tok_encode(t, text, false, false, &few), ERR_LIMIT);
        assert_int_equal(few.n, list.n);
    }
}

static void check_golden(const char *model, const char *cases)
{
    struct tok *t = open_file(model);
    struct buf b = load(cases);
    int n = 0;
    for (size_t at = 0; at < b.n; n++) {
        const size_t end = view_find(buf_view(&b), VIEW("\n"), at);
        struct js *c = NULL;
        assert_int_equal(js_parse(view_part(buf_view(&b), at, end - at), 8, &c), ERR_OK);
        check_case(t, c);
        js_close(c);
        at = end + 1;
    }
    assert_true(n > 150);
    assert_string_equal(tok_kind(t), "ugm default");
    tok_close(t);
    buf_release(&b);
}

static void test_golden(void **state)
{
    (void)state;
    check_golden("plain.gguf", "plain.jsonl");
    check_golden("bytes.gguf", "bytes.jsonl");
    check_golden("bare.gguf", "bare.jsonl");
}

static void test_special(void **state)
{
    (void)state;
    struct tok *t = open_file("plain.gguf");
    const int32_t eos = tok_eos(t);
    struct tok_list list = { ids, 0, N_ID };
    assert_true(eos >= 0 && tok_is_end(t, eos) && tok_is_control(t, eos) && !tok_adds_bos(t));
    assert_int_equal(tok_encode(t, VIEW("a</s>b"), false, false, &list), ERR_OK);
    for (size_t i = 0; i < list.n; i++) {
        assert_false(tok_is_control(t, ids[i])); /* TO-1 */
    }
    list.n = 0;
    assert_int_equal(tok_encode(t, VIEW("a</s>b"), true, true, &list), ERR_OK);
    assert_int_equal(ids[list.n - 1], eos); /* the file asks for one at the end */
    size_t n_eos = 0;
    for (size_t i = 0; i < list.n; i++) {
        n_eos += ids[i] == eos;
    }
    assert_int_equal(n_eos, 2);
    /* marked text: the same characters count only where the template wrote them */
    uint8_t marks[6] = { 1, 1, 1, 1, 1, 1 };
    list.n = 0;
    assert_int_equal(tok_encode_marked(t, VIEW("a</s>b"), marks, &list), ERR_OK);
    const size_t n_trusted = list.n;
    marks[2] = 0;
    list.n = 0;
    assert_int_equal(tok_encode_marked(t, VIEW("a</s>b"), marks, &list), ERR_OK);
    assert_true(list.n > n_trusted);
    tok_close(t);
}

/* --- vocabularies made here -------------------------------------------------------------------- */

struct piece {
    const char *text;
    float score;
    int32_t type; /* 1 normal, 2 unknown, 3 control, 4 added, 5 unused */
};

static void put_vocabulary(struct gguf_write *w, const struct piece *p, uint32_t n, bool has_scores)
{
    gguf_write_begin(w);
    gguf_write_string(w, "general.architecture", VIEW("t5"));
    gguf_write_string(w, "model", VIEW("t5"));
    gguf_write_array(w, "tokens", GGUF_STRING, n);
    for (uint32_t i = 0; i < n; i++) {
        gguf_write_text(w, view_of(p[i].text));
    }
    if (has_scores) {
        gguf_write_array(w, "scores", GGUF_F32, n);
        for (uint32_t i = 0; i < n; i++) {
            buf_add(&w->out, &p[i].score, sizeof p[i].score);
        }
    }
    gguf_write_array(w, "token_type", GGUF_I32, n);
    for (uint32_t i = 0; i < n; i++) {
        buf_add(&w->out, &p[i].type, sizeof p[i].type);
    }
}

static enum err open_vocabulary(struct gguf_write *w, struct tok **t)
{
    struct gguf *g = NULL;
    enum err e = gguf_write_open(w, &g);
    e = e == ERR_OK ? tok_open(t, g) : e;
    gguf_close(g);
    return e;
}

static const struct piece small[] = {
    { "<pad>", 0.0f, 3 }, { "</s>", 0.0f, 3 }, { "<unk>", 0.0f, 2 }, { "a", -2.0f, 1 },
    { "b", -3.0f, 1 },    { "ab", -4.5f, 1 },  { "aba", -9.0f, 1 },  { "<x>", 0.0f, 4 },
    { "bb", -1.0f, 5 },   { "a", -0.5f, 1 },   { "\xC3", -0.1f, 1 }
};

static void expect(const struct tok *t, const char *text, const int32_t *want, size_t n)
{
    struct tok_list list = { ids, 0, N_ID };
    assert_int_equal(tok_encode(t, view_of(text), false, false, &list), ERR_OK);
    assert_int_equal(list.n, n);
    assert_memory_equal(ids, want, n * sizeof want[0]);
}

/* Worked by hand: sums, unknown runs, unused pieces, of equal pieces the first, a piece that ends inside a character. */
static void test_by_hand(void **state)
{
    (void)state;
    struct gguf_write w;
    struct tok *t = NULL;
    put_vocabulary(&w, small, 11, true);
    assert_int_equal(open_vocabulary(&w, &t), ERR_OK);
    expect(t, "ab", (const int32_t[]){ 5 }, 1);     /* -4.5 beats -5 */
    expect(t, "aba", (const int32_t[]){ 5, 3 }, 2); /* -6.5 beats -7 and -9 */
    expect(t, "bb", (const int32_t[]){ 4, 4 }, 2);  /* unused pieces are not used */
    expect(t, "a??b?", (const int32_t[]){ 3, 2, 4, 2 }, 4);
    expect(t,
           "a\xC3\xA9"
           "a",
           (const int32_t[]){ 3, 2, 3 }, 3);
    expect(t, "a<x>b", (const int32_t[]){ 3, 7, 4 }, 3);
    expect(t, "a b", (const int32_t[]){ 3, 2, 4 }, 3);
    expect(t, "", NULL, 0);
    tok_close(t);
}

static void test_refusals(void **state)
{
    (void)state;
    struct gguf_write w;
    struct tok *t = NULL;
    struct piece bad[11];
    put_vocabulary(&w, small, 11, false);
    assert_int_equal(open_vocabulary(&w, &t), ERR_INTEGRITY);
    memcpy(bad, small, sizeof small);
    bad[4].score = NAN;
    put_vocabulary(&w, bad, 11, true);
    assert_int_equal(open_vocabulary(&w, &t), ERR_INTEGRITY);
    put_vocabulary(&w, small, 2, true); /* too short for the default unknown token */
    assert_int_equal(open_vocabulary(&w, &t), ERR_INTEGRITY);
    static const struct {
        uint32_t type;
        uint8_t bytes[16];
        uint64_t n;
    } rules[] = { { GGUF_I32, { 4, 0, 0, 0 }, 1 },
                  { GGUF_U8, { 4, 0, 0, 0 }, 4 },
                  { GGUF_U8, { 0, 0, 0, 0, 1, 2 }, 6 },
                  { GGUF_U8, { 255, 255, 255, 255, 0, 0 }, 6 },
                  { GGUF_U8, { 6, 0, 0, 0, 1, 2, 3, 4, 5, 6, 'a', 0 }, 12 },
                  { GGUF_U8, { 4, 0, 0, 0, 1, 2, 3, 4 }, 8 },
                  { GGUF_U8, { 4, 0, 0, 0, 1, 2, 3, 4, 0xC3, 0 }, 10 } };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        put_vocabulary(&w, small, 11, true);
        gguf_write_array(&w, "precompiled_charsmap", rules[i].type, rules[i].n);
        buf_add(&w.out, rules[i].bytes, rules[i].type == GGUF_I32 ? 4 : rules[i].n);
        assert_int_equal(open_vocabulary(&w, &t), ERR_INTEGRITY);
        assert_null(t);
    }
}

/* Rules that lead anywhere: whatever the table holds, ids stay in range and nothing is read outside (the sanitizers
 * watch). Every unit is a leaf, or points at itself, or is noise. */
static void test_hostile_rules(void **state)
{
    (void)state;
    static const char text[] =
        "the \xEF\xBC\xA1 \xE2\x80\xA6 e\xCC\x81 aaaaaaaaaaaa \xF0\x9F\x98\x80 \x01\xFF  x";
    struct buf file = load("plain.gguf");
    const size_t at = view_find(buf_view(&file), VIEW("precompiled_charsmap"), 0) + 20 + 16;
    uint32_t n_rule = 0; /* bytes of the table, which stand at `at` and before it */
    memcpy(&n_rule, file.p + at, sizeof n_rule);
    assert_true(n_rule > 1000 && at + n_rule <= file.n);
    uint64_t seed = 1;
    int n_open = 0;
    for (int round = 0; round < 400; round++) {
        struct buf copy;
        struct tok *t = NULL;
        buf_init(&copy, file.n);
        buf_add(&copy, file.p, file.n);
        for (int k = 0; k < 1 + round % 200; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            const size_t where = at + 4 + (size_t)(seed >> 33) % n_rule;
            const uint8_t noise = (uint8_t)(seed >> 25);
            const uint8_t flip = (uint8_t)(copy.p[where] ^ (1 << (seed >> 61)));
            copy.p[where] = (char)(round % 4 == 0 ? 0xFF : round % 4 == 1 ? noise : flip);
        }
        if (open_bytes(&t, buf_view(&copy)) == ERR_OK) {
            struct tok_list list = { ids, 0, N_ID };
            const enum err e = tok_encode(t, view_of(text), true, false, &list);
            assert_true(e == ERR_OK || e == ERR_LIMIT);
            for (size_t i = 0; i < list.n && i < N_ID; i++) {
                assert_true(ids[i] >= 0 && ids[i] < tok_n_vocab(t));
            }
            n_open++;
        }
        tok_close(t);
        buf_release(&copy);
    }
    assert_true(n_open > 100);
    buf_release(&file);
}

/* A rule that makes a character of itself and much more is stopped by a limit, not by the memory. */
static void test_growth(void **state)
{
    (void)state;
    uint32_t units[128] = { 0 };
    struct gguf_write w;
    struct tok *t = NULL;
    units[0] = 1u << 10;                       /* children at 1 ^ byte */
    units['a' ^ 1] = 1u << 10 | 1u << 8 | 'a'; /* its leaf at place ^ 1 */
    units['a' ^ 1 ^ 1] = 1u << 31;             /* replacement at 0 */
    put_vocabulary(&w, small, 11, true);
    const uint32_t n_table = sizeof units;
    gguf_write_array(&w, "precompiled_charsmap", GGUF_U8, 4 + sizeof units + 100001);
    buf_add(&w.out, &n_table, 4);
    buf_add(&w.out, units, sizeof units);
    for (int i = 0; i < 100000; i++) {
        buf_add_char(&w.out, 'b');
    }
    buf_add_char(&w.out, 0);
    assert_int_equal(open_vocabulary(&w, &t), ERR_OK);
    struct tok_list list = { ids, 0, N_ID };
    assert_int_equal(tok_encode(t, VIEW("xa"), false, false, &list), ERR_LIMIT);
    assert_int_equal(list.n, 0);
    assert_int_equal(tok_encode(t, VIEW("x"), false, false, &list), ERR_OK);
    tok_close(t);
}

static double seconds_for(const struct tok *t, const char *part, size_t n_byte)
{
    struct buf text;
    buf_init(&text, n_byte + 64);
    while (text.n < n_byte) {
        buf_add_str(&text, part);
    }
    struct tok_list list = { mem_alloc_array(text.n + 16, sizeof list.ids[0]), 0, text.n + 16 };
    const clock_t begin = clock();
    assert_int_equal(tok_encode(t, buf_view(&text), false, false, &list), ERR_OK);
    const double s = (double)(clock() - begin) / CLOCKS_PER_SEC;
    mem_free(list.ids);
    buf_release(&text);
    return s;
}

/* A text of a megabyte in every vocabulary; the bound on processor time is far above what it takes (some 0.1 s). */
static void test_long(void **state)
{
    (void)state;
    static const char *const files[] = { "plain.gguf", "bytes.gguf", "bare.gguf" };
    static const char *const parts[] = {
        "the license of this work ", "a",     " ",       "\xE2\x96\x81", "\xE6\x97\xA5\xE6\x9C\xAC",
        "\xF0\x9F\x98\x80",          "<sep>", "<extra_0"
    };
    for (size_t i = 0; i < 3; i++) {
        struct tok *t = open_file(files[i]);
        for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
            assert_true(seconds_for(t, parts[k], 1000000) < 20.0);
        }
        tok_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),        cmocka_unit_test(test_special),
        cmocka_unit_test(test_by_hand),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_hostile_rules), cmocka_unit_test(test_growth),
        cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
