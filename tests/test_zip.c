/* test_zip - the archive reader against good, damaged and hostile archives
 *
 * The module belongs to the program and not to the library, so its source is included. Archives are
 * built here byte by byte; deflated members are made by zlib. What a wheel is checked for by its
 * checksum before it is unpacked is not assumed here: every field may lie. */
#include "../src/cmd/zip.c"

#include "tree.h"

static void put16(struct buf *b, unsigned v)
{
    buf_add_char(b, (char)(v & 255));
    buf_add_char(b, (char)(v >> 8 & 255));
}

static void put32(struct buf *b, uint32_t v)
{
    put16(b, v & 0xFFFF);
    put16(b, v >> 16);
}

/* What the archive says of its one member; tests change single fields. */
struct said {
    unsigned method, flags;
    uint32_t crc, packed, bytes, at;
};

static size_t deflated(const char *data, size_t n, char *out, size_t n_out)
{
    z_stream s = { 0 };
    assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    s.next_in = (unsigned char *)(uintptr_t)data;
    s.avail_in = (uInt)n;
    s.next_out = (unsigned char *)out;
    s.avail_out = (uInt)n_out;
    assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
    deflateEnd(&s);
    return n_out - s.avail_out;
}

/* An archive with the member "dir/m", whose packed bytes are given. */
static void build(struct buf *b, const struct said *s, const char *packed, size_t n)
{
    buf_init(b, (size_t)1 << 26);
    put32(b, 0x04034b50);
    put16(b, 20);
    put16(b, s->flags);
    put16(b, s->method);
    put32(b, 0);
    put32(b, s->crc);
    put32(b, s->packed);
    put32(b, s->bytes);
    put16(b, 5);
    put16(b, 3); /* extra bytes that the directory does not have */
    buf_add_str(b, "dir/mxyz");
    buf_add(b, packed, n);
    const size_t directory = b->n;
    put32(b, 0x02014b50);
    put32(b, 0);
    put16(b, s->flags);
    put16(b, s->method);
    put32(b, 0);
    put32(b, s->crc);
    put32(b, s->packed);
    put32(b, s->bytes);
    put16(b, 5);
    put32(b, 0);
    put32(b, 0);
    put32(b, 0);
    put32(b, s->at);
    buf_add_str(b, "dir/m");
    const size_t n_directory = b->n - directory;
    put32(b, 0x06054b50);
    put32(b, 0);
    put16(b, 1);
    put16(b, 1);
    put32(b, (uint32_t)n_directory);
    put32(b, (uint32_t)directory);
    put16(b, 7);
    buf_add_str(b, "comment");
}

static const char *save(struct buf *b)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/a.zip", top);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->p, 1, b->n, f), b->n);
    fclose(f);
    buf_release(b);
    return path;
}

static enum err to_buf(void *arg, const void *bytes, size_t n)
{
    struct buf *b = arg;
    buf_add(b, bytes, n);
    return buf_check(b, "the sink");
}

/* Opens and reads the member; the first failure. */
static enum err read_member(const char *path, struct buf *out)
{
    struct zip *z = NULL;
    uint64_t bytes = 0;
    TRY(zip_open(&z, path));
    const size_t i = zip_find(z, "dir/m", &bytes);
    enum err e = i == SIZE_MAX ? ERR_NOT_FOUND : zip_read(z, i, to_buf, out);
    zip_close(z);
    return e;
}

static struct said stored(const char *data, size_t n)
{
    return (struct said){ .crc = (uint32_t)crc32(0, (const unsigned char *)data, (uInt)n),
                          .packed = (uint32_t)n,
                          .bytes = (uint32_t)n };
}

static void expect(struct buf *archive, enum err code, const char *text)
{
    struct buf out;
    buf_init(&out, (size_t)1 << 20);
    const enum err e = read_member(save(archive), &out);
    if (e != code || (code != ERR_OK && strstr(err_text(), text) == NULL)) {
        fail_msg("wanted %d \"%s\", got %d \"%s\"", (int)code, text, (int)e, err_text());
    }
    buf_release(&out);
}

static void test_stored(void **state)
{
    (void)state;
    struct buf b;
    struct buf out;
    const struct said s = stored("hello zip", 9);
    build(&b, &s, "hello zip", 9);
    buf_init(&out, 100);
    assert_int_equal(read_member(save(&b), &out), ERR_OK);
    assert_string_equal(buf_str(&out), "hello zip");
    buf_release(&out);
    struct zip *z = NULL;
    uint64_t bytes = 0;
    build(&b, &s, "hello zip", 9);
    assert_int_equal(zip_open(&z, save(&b)), ERR_OK);
    assert_true(zip_find(z, "dir/m", &bytes) == 0 && bytes == 9);
    assert_true(zip_find(z, "dir", NULL) == SIZE_MAX && zip_find(z, "", NULL) == SIZE_MAX);
    zip_close(z);
    zip_close(NULL);
}

/* Larger than a piece, so that input and output run dry at different times. */
static void test_deflated(void **state)
{
    (void)state;
    const size_t n = 3 * PIECE + 17;
    char *data = malloc(n);
    char *packed = malloc(2 * n);
    for (size_t i = 0; i < n; i++) {
        data[i] = (char)(i * 2654435761u >> 13);
    }
    struct said s = stored(data, n);
    const size_t n_packed = deflated(data, n, packed, 2 * n);
    s.method = 8;
    s.packed = (uint32_t)n_packed;
    struct buf b;
    struct buf out;
    build(&b, &s, packed, n_packed);
    buf_init(&out, n);
    assert_int_equal(read_member(save(&b), &out), ERR_OK);
    assert_int_equal(out.n, n);
    assert_memory_equal(out.p, data, n);
    buf_release(&out);
    buf_init(&out, n - 1); /* the sink's failure is returned */
    build(&b, &s, packed, n_packed);
    assert_int_equal(read_member(save(&b), &out), ERR_LIMIT);
    buf_release(&out);
    struct said t = s; /* announces less than it gives: a bomb */
    t.bytes = 1000;
    build(&b, &t, packed, n_packed);
    expect(&b, ERR_INTEGRITY, "more than the 1000 bytes");
    t = s; /* and more */
    t.bytes++;
    build(&b, &t, packed, n_packed);
    buf_init(&out, 2 * n);
    assert_int_equal(read_member(save(&b), &out), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "damaged"));
    buf_release(&out);
    t = s; /* packed bytes end early */
    t.packed -= 5;
    build(&b, &t, packed, n_packed);
    buf_init(&out, 2 * n);
    assert_int_equal(read_member(save(&b), &out), ERR_INTEGRITY);
    buf_release(&out);
    packed[n_packed / 2] ^= 16;
    build(&b, &s, packed, n_packed);
    buf_init(&out, 2 * n);
    assert_int_equal(read_member(save(&b), &out), ERR_INTEGRITY);
    buf_release(&out);
    free(data);
    free(packed);
}

static void test_fields(void **state)
{
    (void)state;
    struct buf b;
    const struct said good = stored("hello zip", 9);
    struct said s = good;
    s.crc ^= 1;
    build(&b, &s, "hello zip", 9);
    expect(&b, ERR_INTEGRITY, "checksum");
    s = good;
    s.method = 12;
    build(&b, &s, "hello zip", 9);
    expect(&b, ERR_UNSUPPORTED, "method 12");
    s = good;
    s.flags = 1;
    build(&b, &s, "hello zip", 9);
    expect(&b, ERR_UNSUPPORTED, "encrypted");
    s = good;
    s.at = 0xFFFFFFF0u;
    build(&b, &s, "hello zip", 9);
    expect(&b, ERR_INTEGRITY, "begins behind the end");
    s = good;
    s.at = 3;
    build(&b, &s, "hello zip", 9);
    expect(&b, ERR_INTEGRITY, "byte 3: no member");
    s = good;
    s.packed = 0xFFFFFFFFu;
    build(&b, &s, "hello zip", 9);
    expect(&b, ERR_INTEGRITY, "no member dir/m of 4294967295 bytes");
    s = good;
    s.bytes = 8;
    build(&b, &s, "hello zip", 9);
    expect(&b, ERR_INTEGRITY, "more than the 8 bytes");
}

static void test_ends(void **state)
{
    (void)state;
    struct buf b;
    const struct said good = stored("hello zip", 9);
    build(&b, &good, "hello zip", 9);
    const size_t n = b.n;
    char *all = malloc(n);
    memcpy(all, b.p, n);
    buf_release(&b);
    for (size_t cut = 0; cut < n;
         cut++) { /* the end record counts its comment, so every cut shows */
        buf_init(&b, 4096);
        buf_add(&b, all, cut);
        buf_add_char(&b, 0);
        b.n = cut;
        expect(&b, ERR_INTEGRITY, "zip");
    }
    for (size_t i = n - 29; i < n - 7; i++) { /* each byte of the end record */
        for (int bit = 0; bit < 8; bit++) {
            buf_init(&b, 4096);
            buf_add(&b, all, n);
            b.p[i] = (char)(b.p[i] ^ 1 << bit);
            struct buf out;
            buf_init(&out, 4096);
            const enum err e = read_member(save(&b), &out);
            assert_true(e == ERR_OK ? strcmp(buf_str(&out), "hello zip") == 0
                                    : e == ERR_INTEGRITY || e == ERR_NOT_FOUND);
            buf_release(&out);
        }
    }
    free(all);
    assert_int_equal(read_member("/nowhere/a.zip", &b), ERR_NOT_FOUND);
}

static int teardown(void **state)
{
    return tree_teardown(state) != 0 || mem_used_bytes() != 0; /* nothing leaked either */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored),
        cmocka_unit_test(test_deflated),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, tree_setup, teardown);
}
