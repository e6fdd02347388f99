/* test_gguf - the model file reader against good, damaged and hostile files
 *
 * Files are built here byte by byte, so that each case can break exactly one field and the place
 * that the error names can be computed. A case that must fail says which code and which words the
 * error line has to contain; the words always include the file and the byte, key or tensor.
 *
 * Kinds of damage: those that crashed other readers (counts and lengths larger than the file,
 * products that overflow, empty files, odd alignment, unknown types, names that occur twice, hash
 * floods), truncation at every byte of a header, a file that shrinks while it is open, and split
 * sets that are incomplete, shuffled or mixed. */
#include "base/mem.h"
#include "base/os.h"
#include "model/gguf.h"
#include "tree.h"

#include <unistd.h>

#define ANY_BYTES ((size_t)512 * 1024 * 1024)

/* --- a builder of files */

static void u8(struct buf *b, unsigned v)
{
    const char c = (char)v;
    buf_add(b, &c, 1);
}

static void u32(struct buf *b, uint32_t v)
{
    for (int i = 0; i < 4; i++) {
        u8(b, v >> 8 * i & 255);
    }
}

static void u64(struct buf *b, uint64_t v)
{
    u32(b, (uint32_t)v);
    u32(b, (uint32_t)(v >> 32));
}

static void str(struct buf *b, const char *s)
{
    u64(b, strlen(s));
    buf_add_str(b, s);
}

static void f32(struct buf *b, float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    u32(b, u);
}

static void head(struct buf *b, uint32_t version, uint64_t n_tensor, uint64_t n_key)
{
    buf_init(b, ANY_BYTES);
    buf_add_str(b, "GGUF");
    u32(b, version);
    u64(b, n_tensor);
    u64(b, n_key);
}

static void key_u32(struct buf *b, const char *key, uint32_t v)
{
    str(b, key);
    u32(b, GGUF_U32);
    u32(b, v);
}

static void key_u16(struct buf *b, const char *key, unsigned v)
{
    str(b, key);
    u32(b, GGUF_U16);
    u8(b, v & 255);
    u8(b, v >> 8);
}

static void key_str(struct buf *b, const char *key, const char *v)
{
    str(b, key);
    u32(b, GGUF_STRING);
    str(b, v);
}

/* A matrix [d1][d0] of `type` at `offset` of the data. */
static void tensor(struct buf *b, const char *name, uint64_t d0, uint64_t d1, uint32_t type,
                   uint64_t offset)
{
    str(b, name);
    u32(b, 2);
    u64(b, d0);
    u64(b, d1);
    u32(b, type);
    u64(b, offset);
}

static void pad(struct buf *b, size_t align)
{
    while (b->n % align != 0) {
        u8(b, 0);
    }
}

static void zeros(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        u8(b, (unsigned)i & 127);
    }
}

static const char *path_of(const char *name)
{
    static char path[4][512];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", top, name);
    return path[i];
}

static const char *save(const char *name, struct buf *b)
{
    const char *path = path_of(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->p, 1, b->n, f), b->n);
    fclose(f);
    buf_release(b);
    return path;
}

/* Opening must fail with `code` and a line that contains the file's name and both texts. */
static void refused(const char *path, enum err code, const char *text, const char *text2)
{
    struct gguf *g = NULL;
    const size_t used = mem_used_bytes();
    const enum err e = gguf_open(&g, path);
    const char *base = strrchr(path, '/') + 1;
    if (e != code || strstr(err_text(), text) == NULL || strstr(err_text(), text2) == NULL ||
        strstr(err_text(), base) == NULL || strchr(err_text(), '\n') != NULL) {
        fail_msg("%s: wanted code %d and \"%s\", \"%s\", got %d \"%s\"", base, (int)code, text,
                 text2, (int)e, e == ERR_OK ? "" : err_text());
    }
    assert_null(g);
    assert_int_equal(mem_used_bytes(), used);
}

/* A good file with all kinds of values and three tensors; the base of most cases. */
static void good(struct buf *b, uint32_t version)
{
    head(b, version, 3, 9);
    key_str(b, "general.architecture", "llama");
    key_u32(b, "llama.block_count", 7);
    str(b, "a.f32");
    u32(b, GGUF_F32);
    f32(b, 0.5f);
    str(b, "a.true");
    u32(b, GGUF_BOOL);
    u8(b, 1);
    str(b, "a.neg");
    u32(b, GGUF_I8);
    u8(b, 0xFE);
    str(b, "a.large");
    u32(b, GGUF_U64);
    u64(b, UINT64_MAX - 1);
    str(b, "a.strings");
    u32(b, GGUF_ARRAY);
    u32(b, GGUF_STRING);
    u64(b, 3);
    str(b, "one");
    str(b, "");
    str(b, "three");
    str(b, "a.ints");
    u32(b, GGUF_ARRAY);
    u32(b, GGUF_I16);
    u64(b, 2);
    u32(b, 0x0005FFFF);
    str(b, "a.floats");
    u32(b, GGUF_ARRAY);
    u32(b, GGUF_F32);
    u64(b, 2);
    f32(b, 1.5f);
    f32(b, -2.0f);
    tensor(b, "token_embd.weight", 32, 2, QUANT_Q4_0, 64);
    tensor(b, "output.weight", 4, 2, QUANT_F32, 0);
    str(b, "norm");
    u32(b, 1);
    u64(b, 5);
    u32(b, QUANT_F16);
    u64(b, 32);
    pad(b, 32);
    zeros(b, 64 + 36);
}

/* --- good files */

static void test_values(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct buf b;
        good(&b, version);
        const char *path = save("good.gguf", &b);
        struct gguf *g = NULL;
        assert_int_equal(gguf_open(&g, path), ERR_OK);
        assert_int_equal(gguf_version(g), version);
        assert_string_equal(gguf_path(g), path);
        assert_int_equal(gguf_n_key(g), 9);
        bool found = false;
        uint32_t v32 = 0;
        float f = 0.0f;
        bool t = false;
        struct view s = { 0 };
        assert_int_equal(gguf_u32(g, "llama.block_count", &v32, &found), ERR_OK);
        assert_true(found && v32 == 7);
        assert_int_equal(gguf_f32(g, "a.f32", &f, &found), ERR_OK);
        assert_true(f == 0.5f);
        assert_int_equal(gguf_bool(g, "a.true", &t, &found), ERR_OK);
        assert_true(t);
        assert_int_equal(gguf_string(g, "general.architecture", &s, &found), ERR_OK);
        assert_true(view_is(s, "llama"));
        v32 = 99;
        assert_int_equal(gguf_u32(g, "absent", &v32, &found), ERR_OK);
        assert_true(!found && v32 == 99);
        assert_true(gguf_has(g, "a.neg") && !gguf_has(g, "a.nega"));
        gguf_close(g);
    }
}

static void test_wrong_kinds(void **state)
{
    (void)state;
    struct buf b;
    good(&b, 3);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, save("good.gguf", &b)), ERR_OK);
    uint32_t v32 = 5;
    float f = 0.0f;
    bool t = false;
    struct view s = { 0 };
    struct gguf_array a;
    assert_int_equal(gguf_u32(g, "a.large", &v32, NULL), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "18446744073709551614"));
    assert_int_equal(gguf_u32(g, "a.neg", &v32, NULL), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "a.neg: -2"));
    assert_int_equal(gguf_u32(g, "a.true", &v32, NULL), ERR_INTEGRITY);
    assert_int_equal(gguf_f32(g, "llama.block_count", &f, NULL), ERR_INTEGRITY);
    assert_int_equal(gguf_bool(g, "llama.block_count", &t, NULL), ERR_INTEGRITY);
    assert_int_equal(gguf_string(g, "a.strings", &s, NULL), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "a string is wanted, the value is of type array"));
    assert_int_equal(gguf_array(g, "general.architecture", &a, NULL), ERR_INTEGRITY);
    assert_true(v32 == 5); /* outputs untouched */
    gguf_close(g);
}

static void test_arrays(void **state)
{
    (void)state;
    struct buf b;
    good(&b, 3);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, save("good.gguf", &b)), ERR_OK);
    struct gguf_array a;
    assert_int_equal(gguf_array(g, "a.strings", &a, NULL), ERR_OK);
    struct gguf_string_iter it = { 0 };
    struct view s;
    assert_true(gguf_array_string(&a, &it, &s) && view_is(s, "one"));
    assert_true(gguf_array_string(&a, &it, &s) && s.n == 0);
    assert_true(gguf_array_string(&a, &it, &s) && view_is(s, "three"));
    assert_false(gguf_array_string(&a, &it, &s));
    int64_t v = 0;
    float f = 0.0f;
    assert_false(gguf_array_int(&a, 0, &v) || gguf_array_float(&a, 0, &f));
    assert_int_equal(gguf_array(g, "a.ints", &a, NULL), ERR_OK);
    assert_true(gguf_array_int(&a, 0, &v) && v == -1);
    assert_true(gguf_array_int(&a, 1, &v) && v == 5);
    assert_false(gguf_array_int(&a, 2, &v));
    assert_int_equal(gguf_array(g, "a.floats", &a, NULL), ERR_OK);
    assert_true(gguf_array_float(&a, 1, &f) && f == -2.0f);
    assert_false(gguf_array_float(&a, 2, &f) || gguf_array_int(&a, 0, &v));
    gguf_close(g);
}

static void test_tensors(void **state)
{
    (void)state;
    struct buf b;
    good(&b, 3);
    const char *path = save("good.gguf", &b);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, path), ERR_OK);
    assert_int_equal(gguf_n_tensor(g), 3);
    const struct gguf_tensor *t = gguf_tensor_find(g, "token_embd.weight");
    assert_non_null(t);
    assert_true(t == gguf_tensor_at(g, 0) && t->bytes == 36 && t->dim[0] == 32 && t->dim[1] == 2);
    assert_true(t->dim[2] == 1 && t->dim[3] == 1 && t->n_dim == 2 && t->type == QUANT_Q4_0);
    assert_true(t->offset + t->bytes == gguf_file_bytes(g));
    uint8_t bytes[36];
    assert_int_equal(gguf_read(g, t, 2, bytes, 34), ERR_OK);
    assert_true(bytes[0] == 66 && bytes[33] == 99);
    assert_int_equal(gguf_read(g, t, 3, bytes, 34), ERR_FAILED);
    assert_int_equal(gguf_read(g, t, SIZE_MAX, bytes, 2), ERR_FAILED);
    assert_null(gguf_tensor_find(g, "token_embd"));
    assert_int_equal(gguf_unchanged(g), ERR_OK);
    gguf_close(g);
}

static void test_listing(void **state)
{
    (void)state;
    struct buf b;
    good(&b, 3);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, save("good.gguf", &b)), ERR_OK);
    static const char *const texts[] = { "llama",
                                         "7",
                                         "0.5",
                                         "true",
                                         "-2",
                                         "18446744073709551614",
                                         "3 of string: \"one\" \"\" \"three\"",
                                         "2 of i16: -1 5",
                                         "2 of f32: 1.5 -2" };
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        struct buf text;
        buf_init(&text, 4096);
        enum gguf_type type;
        assert_true(gguf_key(g, i, &type).n > 0);
        gguf_value_text(g, i, &text);
        assert_string_equal(buf_str(&text), texts[i]);
        buf_release(&text);
    }
    gguf_close(g);
}

/* --- one broken field each */

static void test_head(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, ANY_BYTES);
    buf_add_str(&b, "");
    FILE *f = fopen(path_of("empty.gguf"), "wb");
    fclose(f);
    refused(path_of("empty.gguf"), ERR_INTEGRITY, "byte 0", "ends at 0");
    buf_release(&b);
    head(&b, 3, 0, 0);
    b.p[0] = 'X';
    refused(save("magic.gguf", &b), ERR_INTEGRITY, "not a GGUF file", "58 47 55 46");
    head(&b, 1, 0, 0);
    refused(save("v1.gguf", &b), ERR_UNSUPPORTED, "byte 4", "version 1");
    head(&b, 4, 0, 0);
    refused(save("v4.gguf", &b), ERR_UNSUPPORTED, "byte 4", "version 4");
    head(&b, 0, 0, 0);
    refused(save("v0.gguf", &b), ERR_UNSUPPORTED, "byte 4", "version 0");
    head(&b, 0x03000000, 0, 0);
    refused(save("big.gguf", &b), ERR_UNSUPPORTED, "byte 4", "big-endian");
    head(&b, 3, 0, 0);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, save("none.gguf", &b)), ERR_OK);
    assert_int_equal(gguf_n_tensor(g) + gguf_n_key(g), 0);
    assert_null(gguf_tensor_find(g, ""));
    gguf_close(g);
    refused(path_of("absent.gguf"), ERR_NOT_FOUND, "cannot open", "");
    refused(top, ERR_IO, "not a regular file", "");
}

static void test_counts(void **state)
{
    (void)state;
    static const uint64_t bad[] = { 4, 65537, 1u << 31, UINT64_MAX / 33, UINT64_MAX };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf b;
        head(&b, 3, bad[i], 0);
        zeros(&b, 50);
        refused(save("tensors.gguf", &b), bad[i] > 65536 ? ERR_LIMIT : ERR_INTEGRITY, "byte 8",
                "tensors");
        head(&b, 3, 0, bad[i]);
        zeros(&b, 50);
        refused(save("keys.gguf", &b), bad[i] > 4096 ? ERR_LIMIT : ERR_INTEGRITY, "byte", "keys");
    }
}

static void test_strings(void **state)
{
    (void)state;
    struct buf b;
    head(&b, 3, 0, 1);
    u64(&b, 1u << 30);
    buf_add_str(&b, "key and more bytes");
    refused(save("key.gguf", &b), ERR_INTEGRITY, "byte 24", "1073741824 bytes");
    head(&b, 3, 0, 1);
    u64(&b, UINT64_MAX - 3);
    buf_add_str(&b, "key and more bytes");
    refused(save("key.gguf", &b), ERR_INTEGRITY, "byte 24", "18446744073709551612");
    head(&b, 3, 0, 1);
    str(&b, "");
    u32(&b, GGUF_U64);
    u64(&b, 1);
    refused(save("key.gguf", &b), ERR_INTEGRITY, "byte 32", "empty");
    head(&b, 3, 0, 1);
    str(&b, "k\xff");
    u32(&b, GGUF_U64);
    u64(&b, 1);
    refused(save("key.gguf", &b), ERR_INTEGRITY, "byte 32", "no UTF-8");
    head(&b, 3, 0, 1);
    u64(&b, 70000);
    zeros(&b, 80000);
    refused(save("key.gguf", &b), ERR_INTEGRITY, "byte 24", "at most 65535");
    head(&b, 3, 0, 1);
    str(&b, "some.text");
    u32(&b, GGUF_STRING);
    u64(&b, 17);
    buf_add_str(&b, "sixteen bytes...");
    refused(save("value.gguf", &b), ERR_INTEGRITY, "byte 45: some.text", "17 bytes");
}

static void test_values_bad(void **state)
{
    (void)state;
    struct buf b;
    head(&b, 3, 0, 1);
    str(&b, "the.key");
    u32(&b, 13);
    u64(&b, 0);
    refused(save("type.gguf", &b), ERR_INTEGRITY, "byte 39: key the.key", "value type 13");
    head(&b, 3, 0, 1);
    str(&b, "the.key");
    u32(&b, GGUF_BOOL);
    u8(&b, 2);
    refused(save("bool.gguf", &b), ERR_INTEGRITY, "byte 43: key the.key", "truth value of 2");
    head(&b, 3, 0, 1);
    str(&b, "the.key");
    u32(&b, GGUF_ARRAY);
    u32(&b, GGUF_ARRAY);
    u64(&b, 0);
    refused(save("nest.gguf", &b), ERR_UNSUPPORTED, "byte 43: key the.key", "arrays of arrays");
    head(&b, 3, 0, 1);
    str(&b, "the.key");
    u32(&b, GGUF_ARRAY);
    u32(&b, 77);
    u64(&b, 0);
    refused(save("elem.gguf", &b), ERR_INTEGRITY, "byte 43: key the.key", "value type 77");
    static const uint64_t counts[] = { 5, 1u << 30, UINT64_MAX / 4, UINT64_MAX };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (uint32_t type = GGUF_U32; type <= GGUF_STRING; type += GGUF_STRING - GGUF_U32) {
            head(&b, 3, 0, 1);
            str(&b, "the.key");
            u32(&b, GGUF_ARRAY);
            u32(&b, type);
            u64(&b, counts[i]);
            zeros(&b, 16);
            refused(save("count.gguf", &b), ERR_INTEGRITY, "byte 47: key the.key", "16 bytes left");
        }
    }
    head(&b, 3, 0, 1);
    str(&b, "the.key");
    u32(&b, GGUF_ARRAY);
    u32(&b, GGUF_BOOL);
    u64(&b, 3);
    u8(&b, 1);
    u8(&b, 0);
    u8(&b, 9);
    refused(save("bools.gguf", &b), ERR_INTEGRITY, "byte 57: key the.key", "truth value of 9");
}

static void test_names_twice(void **state)
{
    (void)state;
    struct buf b;
    head(&b, 3, 0, 3);
    key_u32(&b, "same", 1);
    key_u32(&b, "other", 1);
    key_u32(&b, "same", 1);
    refused(save("twice.gguf", &b), ERR_INTEGRITY, "key same", "occurs twice (entries 0 and 2)");
    head(&b, 3, 2, 0);
    tensor(&b, "same", 8, 1, QUANT_F32, 0);
    tensor(&b, "same", 8, 1, QUANT_F32, 32);
    pad(&b, 32);
    zeros(&b, 64);
    refused(save("twice.gguf", &b), ERR_INTEGRITY, "tensor same", "occurs twice");
}

static void test_alignment(void **state)
{
    (void)state;
    static const uint32_t bad[] = { 0, 1, 4, 24, 33, 3u << 20, 1u << 21, 0x80000000u };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf b;
        head(&b, 3, 0, 1);
        key_u32(&b, "general.alignment", bad[i]);
        refused(save("align.gguf", &b), ERR_INTEGRITY, "key general.alignment", "");
    }
    struct buf b;
    head(&b, 3, 0, 1);
    key_str(&b, "general.alignment", "32");
    refused(save("align.gguf", &b), ERR_INTEGRITY, "byte 53: key general.alignment",
            "of type string");
    for (uint32_t align = 8; align <= 1u << 20; align *= 2) {
        head(&b, 3, 2, 1);
        key_u32(&b, "general.alignment", align);
        tensor(&b, "x", 1, 1, QUANT_F32, 0);
        tensor(&b, "y", 1, 1, QUANT_F32, align);
        pad(&b, align);
        f32(&b, 1.25f);
        pad(&b, align);
        f32(&b, 2.5f);
        struct gguf *g = NULL;
        assert_int_equal(gguf_open(&g, save("align.gguf", &b)), ERR_OK);
        float v[2];
        assert_int_equal(gguf_read(g, gguf_tensor_at(g, 0), 0, &v[0], 4), ERR_OK);
        assert_int_equal(gguf_read(g, gguf_tensor_at(g, 1), 0, &v[1], 4), ERR_OK);
        assert_true(v[0] == 1.25f && v[1] == 2.5f);
        gguf_close(g);
    }
}

/* One tensor whose fields are given; the file has 64 bytes of data. */
static const char *one_tensor(uint64_t d0, uint64_t d1, uint32_t type, uint64_t offset)
{
    struct buf b;
    head(&b, 3, 1, 0);
    tensor(&b, "blk.0.w", d0, d1, type, offset);
    pad(&b, 32);
    zeros(&b, 64);
    return save("one.gguf", &b);
}

static void test_tensors_bad(void **state)
{
    (void)state;
    const char *const t = "tensor blk.0.w";
    /* the entry begins at 24: name 32..39, n_dim at 39, dims at 43 and 51, type at 59, offset at 63
     */
    refused(one_tensor(0, 1, QUANT_F32, 0), ERR_INTEGRITY, t, "byte 43: ");
    refused(one_tensor(1, 0, QUANT_F32, 0), ERR_INTEGRITY, t, "byte 51: ");
    refused(one_tensor(1ull << 32, 1ull << 32, QUANT_F32, 0), ERR_INTEGRITY, t, "overflows");
    refused(one_tensor(1ull << 62, 1, QUANT_F32, 0), ERR_INTEGRITY, t, "overflows");
    refused(one_tensor(UINT64_MAX, 1, QUANT_F32, 0), ERR_INTEGRITY, t, "overflows");
    refused(one_tensor(1ull << 31, 1ull << 31, QUANT_Q4_0, 0), ERR_INTEGRITY, t, "needs");
    refused(one_tensor(16, 1, 4, 0), ERR_UNSUPPORTED, t, "byte 59: ");
    refused(one_tensor(16, 1, 31, 0), ERR_UNSUPPORTED, t, "element type 31");
    refused(one_tensor(16, 1, 0xFFFFFFFF, 0), ERR_UNSUPPORTED, t, "element type 4294967295");
    refused(one_tensor(16, 1, QUANT_I32, 0), ERR_UNSUPPORTED, t, "I32 cannot hold weights");
    refused(one_tensor(16, 2, QUANT_Q4_0, 0), ERR_INTEGRITY, t, "rows of 16");
    refused(one_tensor(128, 1, QUANT_Q4_K, 0), ERR_INTEGRITY, t, "Q4_K blocks of 256");
    refused(one_tensor(1, 1, QUANT_F32, 4), ERR_INTEGRITY, t, "alignment 32");
    refused(one_tensor(1, 1, QUANT_F32, 64), ERR_INTEGRITY, t, "byte 63: ");
    refused(one_tensor(17, 1, QUANT_F32, 0), ERR_INTEGRITY, t, "needs 68 bytes at 0");
    refused(one_tensor(1, 1, QUANT_F32, UINT64_MAX - 31), ERR_INTEGRITY, t, "needs 4 bytes");
    refused(one_tensor(1, 1, QUANT_F32, 1ull << 63), ERR_INTEGRITY, t, "needs 4 bytes");
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, one_tensor(16, 1, QUANT_F32, 0)), ERR_OK);
    gguf_close(g);

    struct buf b;
    for (uint32_t n_dim = 0; n_dim < 9; n_dim += 5) {
        head(&b, 3, 1, 0);
        str(&b, "blk.0.w");
        u32(&b, n_dim);
        zeros(&b, 100);
        refused(save("dims.gguf", &b), ERR_INTEGRITY, "byte 39: tensor blk.0.w", "dimensions");
    }
    head(&b, 3, 1, 0);
    u64(&b, 257);
    zeros(&b, 400);
    refused(save("name.gguf", &b), ERR_INTEGRITY, "byte 24", "at most 256");
    head(&b, 3, 1, 0);
    tensor(&b, "\xC0\xAF", 1, 1, QUANT_F32, 0);
    zeros(&b, 64);
    refused(save("name.gguf", &b), ERR_INTEGRITY, "byte 32", "no UTF-8");
}

static void test_overlaps(void **state)
{
    (void)state;
    struct buf b;
    head(&b, 3, 3, 0);
    tensor(&b, "late", 8, 1, QUANT_F32, 64);
    tensor(&b, "first", 8, 2, QUANT_F32, 0);
    tensor(&b, "inside", 8, 1, QUANT_F32, 32);
    pad(&b, 32);
    zeros(&b, 96);
    refused(save("overlap.gguf", &b), ERR_INTEGRITY, "tensors first and inside overlap",
            "byte 192");
    head(&b, 3, 2, 0); /* the same place */
    tensor(&b, "a", 8, 1, QUANT_F32, 0);
    tensor(&b, "b", 8, 1, QUANT_F32, 0);
    pad(&b, 32);
    zeros(&b, 32);
    refused(save("overlap.gguf", &b), ERR_INTEGRITY, "overlap", "byte");
}

/* --- files that are cut or change */

static void test_truncated(void **state)
{
    (void)state;
    struct buf b;
    good(&b, 3);
    const size_t n = b.n;
    char *all = malloc(n);
    memcpy(all, b.p, n);
    buf_release(&b);
    for (size_t cut = 0; cut < n; cut++) { /* at every byte, in the header and in the data */
        buf_init(&b, ANY_BYTES);
        buf_add(&b, all, cut);
        u8(&b, 0);
        b.n = cut;
        refused(save("cut.gguf", &b), ERR_INTEGRITY, "", "");
    }
    free(all);
}

static void test_shrinks(void **state)
{
    (void)state;
    struct buf b;
    good(&b, 3);
    const size_t n = b.n;
    const char *path = save("shrinks.gguf", &b);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, path), ERR_OK);
    assert_int_equal(truncate(path, (off_t)n - 10), 0);
    uint8_t bytes[36];
    const struct gguf_tensor *t = gguf_tensor_at(g, 0);
    assert_int_equal(gguf_read(g, t, 0, bytes, 36), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "shrinks.gguf: tensor token_embd.weight"));
    assert_int_equal(gguf_unchanged(g), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "shrinks.gguf"));
    gguf_close(g);
}

/* pread that pretends the file ends at byte `visible`, as if cut between fstat and read. */
static uint64_t visible;
static long short_pread(int fd, void *to, size_t n, uint64_t at)
{
    if (at >= visible) {
        return 0;
    }
    return pread(fd, to, n < visible - at ? n : visible - at, (off_t)at);
}

static void test_shrinks_while_opening(void **state)
{
    (void)state;
    struct buf b;
    good(&b, 3);
    const size_t n = b.n;
    const char *path = save("shrinking.gguf", &b);
    const struct os_hooks hooks = { .pread = short_pread };
    os_hook(&hooks);
    for (visible = 0; visible < n; visible += 13) {
        refused(path, ERR_INTEGRITY, "changed while it was read", "");
    }
    os_hook(NULL);
}

/* --- bounded memory and time */

static void test_metadata_budget(void **state)
{
    (void)state;
    struct buf b; /* a sparse file of 1 TB whose only value claims 128 MB */
    head(&b, 3, 0, 1);
    str(&b, "big");
    u32(&b, GGUF_ARRAY);
    u32(&b, GGUF_U8);
    u64(&b, 128u << 20);
    const char *path = save("sparse.gguf", &b);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0);
    const size_t used = mem_used_bytes();
    refused(path, ERR_LIMIT, "big needs 134217728 bytes", "larger than 64 MB");
    assert_int_equal(mem_used_bytes(), used);
    head(&b, 3, 0, 1); /* and one made of eight million empty strings */
    str(&b, "big");
    u32(&b, GGUF_ARRAY);
    u32(&b, GGUF_STRING);
    u64(&b, 16u << 20);
    path = save("sparse.gguf", &b);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0);
    refused(path, ERR_LIMIT, "big needs 8 bytes", "larger than 64 MB");
    assert_true(mem_peak_bytes() < (size_t)160 << 20);
}

static void test_many_names(void **state)
{
    (void)state;
    struct buf b;
    head(&b, 3, 20000, 0);
    for (unsigned i = 0; i < 20000; i++) {
        char name[32];
        snprintf(name, sizeof name, "t.%u", i);
        tensor(&b, name, 8, 1, QUANT_F32, (19999 - (uint64_t)i) * 32); /* last one first */
    }
    pad(&b, 32);
    const size_t data_at = b.n;
    const char *path = save("many.gguf", &b);
    assert_int_equal(truncate(path, (off_t)(data_at + 20000 * 32)), 0);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, path), ERR_OK);
    for (unsigned i = 0; i < 20000; i += 777) {
        char name[32];
        snprintf(name, sizeof name, "t.%u", i);
        assert_true(gguf_tensor_find(g, name) == gguf_tensor_at(g, i));
    }
    gguf_close(g);
}

/* --- split models */

/* Part i (from 0) of n; keys may lie about themselves. */
static void part(const char *name, unsigned no, unsigned count, unsigned n_tensor_said)
{
    struct buf b;
    char tensor_name[16];
    snprintf(tensor_name, sizeof tensor_name, "t%u", no);
    head(&b, 3, 1, 4);
    key_str(&b, "general.name", no == 0 ? "first" : "not the first");
    key_u16(&b, "split.no", no);
    key_u16(&b, "split.count", count);
    key_u32(&b, "split.tensors.count", n_tensor_said);
    tensor(&b, tensor_name, 8, 1, QUANT_F32, 0);
    pad(&b, 32);
    for (int i = 0; i < 8; i++) {
        f32(&b, (float)no + 0.5f);
    }
    (void)save(name, &b);
}

static void remove_parts(void)
{
    unlink(path_of("m-00001-of-00003.gguf"));
    unlink(path_of("m-00002-of-00003.gguf"));
    unlink(path_of("m-00003-of-00003.gguf"));
}

static void test_split_complete(void **state)
{
    (void)state;
    remove_parts();
    part("m-00001-of-00003.gguf", 0, 3, 3);
    part("m-00002-of-00003.gguf", 1, 3, 3);
    part("m-00003-of-00003.gguf", 2, 3, 3);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, path_of("m-00001-of-00003.gguf")), ERR_OK);
    assert_int_equal(gguf_n_tensor(g), 3);
    struct view name = { 0 };
    assert_int_equal(gguf_string(g, "general.name", &name, NULL), ERR_OK);
    assert_true(view_is(name, "first"));
    uint64_t bytes = 0;
    for (unsigned i = 0; i < 3; i++) {
        char tensor_name[16];
        snprintf(tensor_name, sizeof tensor_name, "t%u", i);
        const struct gguf_tensor *t = gguf_tensor_find(g, tensor_name);
        float v[8];
        assert_non_null(t);
        assert_int_equal(t->i_file, i);
        assert_int_equal(gguf_read(g, t, 0, v, sizeof v), ERR_OK);
        assert_true(v[0] == (float)i + 0.5f && v[7] == v[0]);
        bytes += t->offset + t->bytes;
    }
    assert_true(bytes == gguf_file_bytes(g));
    gguf_close(g);
    refused(path_of("m-00002-of-00003.gguf"), ERR_USAGE, "part 2", "give part 1");
}

static void test_split_broken(void **state)
{
    (void)state;
    const char *first = "m-00001-of-00003.gguf";
    remove_parts();
    part(first, 0, 3, 3);
    part("m-00003-of-00003.gguf", 2, 3, 3);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, path_of(first)), ERR_NOT_FOUND);
    assert_non_null(strstr(err_text(), "part 2 of 3 is missing"));
    assert_non_null(strstr(err_text(), "m-00002-of-00003.gguf"));
    part("m-00002-of-00003.gguf", 2, 3, 3); /* wrong order */
    part("m-00003-of-00003.gguf", 1, 3, 3);
    assert_int_equal(gguf_open(&g, path_of(first)), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "m-00002-of-00003.gguf: key split.no: 2"));
    part("m-00002-of-00003.gguf", 1, 3, 3);
    part("m-00003-of-00003.gguf", 2, 4, 3); /* of another set */
    assert_int_equal(gguf_open(&g, path_of(first)), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "m-00003-of-00003.gguf: key split.count: 4"));
    part("m-00003-of-00003.gguf", 2, 3, 3);
    part(first, 0, 3, 4); /* a tensor got lost */
    assert_int_equal(gguf_open(&g, path_of(first)), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "split.tensors.count: 4, the parts have 3"));
    struct buf b; /* a file that is no part at all */
    good(&b, 3);
    (void)save("m-00002-of-00003.gguf", &b);
    part(first, 0, 3, 3);
    assert_int_equal(gguf_open(&g, path_of(first)), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "m-00002-of-00003.gguf: key split.no is missing"));
    part("renamed.gguf", 1, 3, 3);
    refused(path_of("renamed.gguf"), ERR_INTEGRITY, "part 2 of 3", "-00002-of-00003.gguf");
    refused(path_of("m-00000-of-00003.gguf"), ERR_UNSUPPORTED, "part 0 of 3", "");
    refused(path_of("m-00001-of-99999.gguf"), ERR_UNSUPPORTED, "of 99999", "at most 512");
    assert_null(g);
}

static void test_split_same_name(void **state)
{
    (void)state;
    remove_parts();
    struct buf b;
    for (unsigned i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "m-0000%u-of-00003.gguf", i + 1);
        head(&b, 3, 1, 2);
        key_u16(&b, "split.no", i);
        key_u16(&b, "split.count", 3);
        tensor(&b, "same", 8, 1, QUANT_F32, 0);
        pad(&b, 32);
        zeros(&b, 32);
        (void)save(name, &b);
    }
    refused(path_of("m-00001-of-00003.gguf"), ERR_INTEGRITY, "tensor same", "occurs twice");
}

/* Long names and paths must not push the reason out of the error line. */
static void test_long_names(void **state)
{
    (void)state;
    char name[256 + 1];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    struct buf b;
    head(&b, 3, 1, 0);
    tensor(&b, name, 16, 1, 99, 0);
    zeros(&b, 64);
    char file[200];
    memset(file, 'f', sizeof file - 1);
    memcpy(file + sizeof file - 6, ".gguf", 6);
    const char *path = save(file, &b);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, path), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "element type 99 is not known"));
    assert_non_null(strstr(err_text(), "ffff.gguf: byte 308: tensor nnnn"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),          cmocka_unit_test(test_wrong_kinds),
        cmocka_unit_test(test_arrays),          cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_listing),         cmocka_unit_test(test_head),
        cmocka_unit_test(test_counts),          cmocka_unit_test(test_strings),
        cmocka_unit_test(test_values_bad),      cmocka_unit_test(test_names_twice),
        cmocka_unit_test(test_alignment),       cmocka_unit_test(test_tensors_bad),
        cmocka_unit_test(test_overlaps),        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_shrinks),         cmocka_unit_test(test_shrinks_while_opening),
        cmocka_unit_test(test_metadata_budget), cmocka_unit_test(test_many_names),
        cmocka_unit_test(test_split_complete),  cmocka_unit_test(test_split_broken),
        cmocka_unit_test(test_split_same_name), cmocka_unit_test(test_long_names),
    };
    return cmocka_run_group_tests(tests, tree_setup, tree_teardown);
}
