/* test_disk - the speed of made-up disks, and what hearth doctor says of one that could not be read
 *
 * The files are included, so that memory and reads can be refused, and time be another; there is no
 * store. */
#include "base/mem.h"
#include "base/os.h"
#include "base/ring.h"
#include "cmd/store.h"
#include "tree.h"

#include <math.h>
#include <unistd.h>

static bool has_memory;
static enum err read_result;

/* A disk that reads one piece after the other. 0: the real one, in real time. */
static double made_up_mb_s;
static uint64_t latency_us;
static uint64_t now_us;
static uint64_t end_us[1024]; /* of the reads, by ticket */
static uint64_t n_read;

static uint64_t tell_time(void)
{
    return made_up_mb_s > 0.0 ? now_us : os_now_us();
}

static enum err open_arena(struct arena *a, size_t n, bool has_huge)
{
    return has_memory ? arena_open(a, n, has_huge) : err_set(ERR_MEMORY, "no memory for a test");
}

static enum err start(struct ring *r, uint64_t at, void *to, size_t n, uint64_t *ticket)
{
    if (!(made_up_mb_s > 0.0)) {
        return ring_start(r, at, to, n, ticket);
    }
    assert_true(at + n <= ring_file_bytes(r) && n_read + 1 < 1024);
    const uint64_t begin = end_us[n_read] > now_us ? end_us[n_read] : now_us + latency_us;
    end_us[++n_read] = begin + (uint64_t)((double)n / made_up_mb_s);
    *ticket = n_read;
    return ERR_OK;
}

static enum err wait_for(struct ring *r, uint64_t ticket)
{
    if (made_up_mb_s > 0.0) {
        now_us = end_us[ticket] > now_us ? end_us[ticket] : now_us;
        return ERR_OK;
    }
    TRY(ring_wait(r, ticket));
    return read_result == ERR_OK ? ERR_OK : err_set(read_result, "bad sector");
}

#define arena_open open_arena
#define ring_start start
#define ring_wait  wait_for
#define os_now_us  tell_time
#include "lib/measure.c"
#include "cmd/disk.c"

enum err store_open(struct store **out)
{
    (void)out;
    return err_set(ERR_IO, "no store in a test");
}

enum err store_after(struct store *st, const char *name, struct store_model *out, bool *found)
{
    (void)st;
    (void)name;
    (void)out;
    (void)found;
    return ERR_IO;
}

void store_blob_path(const struct store *st, const char *digest, struct buf *out)
{
    (void)st;
    (void)digest;
    (void)out;
}

const char *store_partial(const struct store *st)
{
    (void)st;
    return "";
}

void store_look(struct store_look *out)
{
    *out = (struct store_look){ .is_there = true };
}

bool store_room(const char *folder, uint64_t *bytes)
{
    (void)folder;
    (void)bytes;
    return false;
}

void store_model_clear(struct store_model *m)
{
    (void)m;
}

void store_close(struct store *st)
{
    (void)st;
}

/* A file of zeros that are nowhere. */
static void make_file(const char *name, uint64_t bytes, char *path, size_t room)
{
    put(name, "x");
    snprintf(path, room, "%s/%s", top, name);
    assert_int_equal(truncate(path, (off_t)bytes), 0);
}

/* Of a file that is just large enough. */
static void look_at(struct facts_disk *d, const char *name)
{
    char path[256];
    make_file(name, MEASURE_DISK_LEAST, path, sizeof path);
    assert_int_equal(disk_read(d, path), ERR_OK);
    assert_int_equal(d->file_bytes, MEASURE_DISK_LEAST);
}

static void test_read(void **state)
{
    (void)state;
    struct facts_disk d;
    has_memory = true;
    read_result = ERR_OK;
    look_at(&d, "a.gguf");
    assert_string_equal(d.file, "a.gguf");
    assert_true(d.gb_s > 0.0 && d.read_bytes == MEASURE_DISK_LEAST);
}

/* A read that failed is the disk's fault. */
static void test_broken(void **state)
{
    (void)state;
    struct facts_disk d;
    has_memory = true;
    read_result = ERR_IO;
    look_at(&d, "a.gguf");
    assert_string_equal(d.file, "a.gguf");
    assert_string_equal(d.why, "bad sector");
    assert_true(d.gb_s == 0.0);
}

/* Memory that is refused is not: nothing was measured. */
static void test_no_memory(void **state)
{
    (void)state;
    struct facts_disk d;
    read_result = ERR_OK;
    has_memory = false;
    look_at(&d, "a.gguf");
    assert_string_equal(d.file, "");
    assert_string_equal(d.why, "no memory for a test");
    has_memory = true;
    read_result = ERR_MEMORY;
    look_at(&d, "a.gguf");
    assert_string_equal(d.file, "");
}

/* From a memory card to several disks side by side: what it really reads, in three seconds, or in
 * the time of two reads. */
static void test_time(void **state)
{
    (void)state;
    static const double mb_s[] = { 0.2, 2.0, 20.0, 100.0, 500.0, 2500.0, 14000.0 };
    char path[256];
    has_memory = true;
    for (size_t i = 0; i < 2 * sizeof mb_s / sizeof mb_s[0]; i++) {
        struct measure_disk m;
        made_up_mb_s = mb_s[i / 2];
        latency_us = made_up_mb_s > 50.0 ? 100 : 5000;
        now_us = 1000;
        n_read = 0;
        memset(end_us, 0, sizeof end_us);
        make_file("a.gguf", (uint64_t)(i % 2 == 0 ? 20 : 3000) << 20, path, sizeof path);
        assert_int_equal(measure_disk(path, &m), ERR_OK);
        const double one_s = 2.097152 / made_up_mb_s;
        assert_true(((double)now_us - 1000.0) / 1e6 < fmax(3.2, 2.1 * one_s));
        assert_true(fabs(m.gb_s * 1e3 / made_up_mb_s - 1.0) < 0.03);
        assert_int_equal(m.read_bytes, n_read * DISK_PIECE);
    }
    made_up_mb_s = 0.0;
}

/* What is too small tells nothing, and is no fault. */
static void test_small(void **state)
{
    (void)state;
    struct measure_disk m = { .gb_s = 7.0 };
    char path[256];
    make_file("a.gguf", MEASURE_DISK_LEAST - 1, path, sizeof path);
    assert_int_equal(measure_disk(path, &m), ERR_UNSUPPORTED);
    assert_true(m.gb_s == 7.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),      cmocka_unit_test(test_broken),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_time),
        cmocka_unit_test(test_small),
    };
    return cmocka_run_group_tests(tests, tree_setup, tree_teardown);
}
