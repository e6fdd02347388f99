/* test_os - pages of 2 MB, caches and choices, which a tree of made files tells of, and the page cache
 *
 * Includes the .c: the functions that walk the tree take its top as a parameter, and the header has none. */
#include "base/os.c"

#include "base/mem.h"
#include "tree.h"

/* Both ways to count pages of 2 MB tell the same; how many there are is the kernel's choice. */
static void test_huge(void **state)
{
    (void)state;
    struct arena a;
    uint64_t scanned = 0;
    uint64_t n_read = 0;
    uint64_t told = 0;
    assert_int_equal(arena_open(&a, (size_t)9 << 20, true), ERR_OK);
    assert_int_equal(read_huge((uintptr_t)a.base, a.cap, &n_read), ERR_OK);
    if (scan_huge((uintptr_t)a.base, a.cap, &scanned)) {
        assert_int_equal(scanned, n_read);
    }
    assert_int_equal(os_huge_bytes(a.base, a.cap, &told), ERR_OK);
    assert_int_equal(told, n_read);
    const size_t each = (size_t)2 << 20; /* a page is counted in the part where it lies */
    const bool can_scan = scan_huge((uintptr_t)a.base, a.cap, &scanned);
    uint64_t sum = 0;
    for (size_t at = 0; at < a.cap && can_scan; at += each) {
        const size_t n = a.cap - at < each ? a.cap - at : each;
        assert_int_equal(os_huge_bytes(a.base + at, n, &told), ERR_OK);
        assert_true(told == 0 || told == n);
        sum += told;
    }
    assert_true(!can_scan || sum == scanned);
    arena_close(&a);
}

/* A processor of two parts with a cache each, a core without a third level, one that is off. */
static void test_caches(void **state)
{
    (void)state;
    put("cpu0/cache/index2/size", "1024K\n");
    put("cpu0/cache/index3/size", "32768K\n");
    put("cpu0/cache/index3/shared_cpu_list", "0,2\n");
    put("cpu2/cache/index3/size", "32768K\n");
    put("cpu2/cache/index3/shared_cpu_list", "0,2\n");
    put("cpu3/cache/index3/size", "16384K\n");
    put("cpu3/cache/index3/shared_cpu_list", "3-5\n");
    put("cpu6/cache/index2/size", "512K\n");
    put("cpu6/cache/index2/shared_cpu_list", "6\n");
    cpu_set_t all;
    cpu_set_t one;
    CPU_ZERO(&all);
    CPU_ZERO(&one);
    for (int i = 0; i < 8; i++) {
        CPU_SET(i, &all);
    }
    CPU_SET(2, &one); /* not the first that shares its cache */
    assert_int_equal(caches_below(top, &all), (32768 + 16384 + 512) * 1024);
    assert_int_equal(caches_below(top, &one), 32768 * 1024);
    assert_int_equal(caches_below("/tmp/gone", &all), 0);
    put("cpu6/cache/index2/size", "99999999K\n");
    assert_int_equal(caches_below(top, &all), (32768 + 16384) * 1024);
    assert_in_range(os_beyond_caches(1 << 20), 1 << 20, BEYOND_MAX_BYTES);
    assert_int_equal(os_beyond_caches(BEYOND_MAX_BYTES + 1), BEYOND_MAX_BYTES + 1);
}

static void test_chosen(void **state)
{
    (void)state;
    char path[128];
    char to[8];
    static const struct {
        const char *text;
        const char *word; /* "": none */
    } rows[] = { { "always [madvise] never\n", "madvise" },
                 { "[never]", "never" },
                 { "always madvise never\n", "" },
                 { "[]\n", "" },
                 { "[twolong8]\n", "" },
                 { "a [b\n]\n", "" },
                 { "", "" },
                 { "[a] [b]", "a" } };
    snprintf(path, sizeof path, "%s/chosen", top);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        put("chosen", rows[i].text);
        assert_int_equal(os_chosen(path, to, sizeof to), rows[i].word[0] != '\0');
        assert_string_equal(to, rows[i].word);
    }
    assert_false(os_chosen("/tmp/gone", to, sizeof to));
    assert_string_equal(to, "");
}

/* What was just written is there; what was forgotten is not, where the file system forgets. */
static void test_cached(void **state)
{
    (void)state;
    char path[128];
    struct os_file f;
    uint64_t n = 0;
    static char text[3 * 65536 + 100];
    memset(text, 'x', sizeof text - 1);
    put("cached", text);
    snprintf(path, sizeof path, "%s/cached", top);
    assert_int_equal(os_open(&f, path), ERR_OK);
    assert_true(os_cached_bytes(&f, 0, (size_t)f.size, &n));
    assert_int_equal(n, f.size);
    assert_true(os_cached_bytes(&f, 65536, 65536, &n));
    assert_int_equal(n, 65536);
    n = 7;
    assert_false(os_cached_bytes(&f, 0, (size_t)f.size + 1, &n)); /* beyond its end */
    assert_false(os_cached_bytes(&f, 1, 65536, &n));
    assert_int_equal(n, 7);
    os_read_drop(&f, 0, (size_t)f.size);
    assert_true(os_cached_bytes(&f, 0, (size_t)f.size, &n));
    assert_true(n == 0 || n == f.size);
    os_close(&f);
}

static void test_same(void **state)
{
    (void)state;
    char path[128];
    struct os_file f;
    put("same", "some text");
    snprintf(path, sizeof path, "%s/same", top);
    assert_int_equal(os_open(&f, path), ERR_OK);
    assert_true(os_is_same(&f));
    (void)err_set(ERR_USAGE, "of another");
    assert_int_equal(truncate(path, 4), 0);
    assert_false(os_is_same(&f));
    assert_string_equal(err_text(), "of another");
    assert_int_equal(os_same(&f, path), ERR_INTEGRITY);
    os_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_huge),   cmocka_unit_test(test_caches), cmocka_unit_test(test_chosen),
        cmocka_unit_test(test_cached), cmocka_unit_test(test_same),
    };
    return cmocka_run_group_tests(tests, tree_setup, tree_teardown);
}
