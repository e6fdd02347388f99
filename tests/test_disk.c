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
static bool has_read[2048]; /* by place */

/* Where time is made up: what each look at the clock takes, and what opening takes, in which no
 * thread is on a core. */
static uint64_t step_us;
static uint64_t open_us;
static uint64_t idle_us;
static int n_core;

static uint64_t tell_time(void)
{
    now_us += step_us;
    return made_up_mb_s > 0.0 ? now_us : os_now_us();
}

static uint64_t tell_cpu(void)
{
    return (now_us - idle_us) * (uint64_t)n_core;
}

static uint64_t tell_caches(uint64_t least)
{
    return least;
}

static enum err open_arena(struct arena *a, size_t n, bool has_huge)
{
    now_us += open_us;
    idle_us += open_us;
    return has_memory ? arena_open(a, n, has_huge) : err_set(ERR_MEMORY, "no memory for a test");
}

static enum err start(struct ring *r, uint64_t at, void *to, size_t n, uint64_t *ticket)
{
    if (!(made_up_mb_s > 0.0)) {
        return ring_start(r, at, to, n, ticket);
    }
    assert_true(at + n <= ring_file_bytes(r) && n_read + 1 < 1024);
    assert_true(at % n == 0 && !has_read[at / n]);
    has_read[at / n] = true;
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

#define arena_open       open_arena
#define ring_start       start
#define ring_wait        wait_for
#define os_now_us        tell_time
#define os_cpu_us        tell_cpu
#define os_beyond_caches tell_caches
#include "lib/measure.c"
#include "lib/speed.c"
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

/* From a memory card to several disks side by side: what it really reads, no place twice, in three
 * seconds and a read. Of a small file all is timed: with what the first reads wait for the disk. */
static void test_time(void **state)
{
    (void)state;
    static const double mb_s[] = { 0.2, 1.45, 2.0, 20.0, 100.0, 500.0, 2500.0, 14000.0 };
    char path[256];
    has_memory = true;
    for (size_t i = 0; i < 2 * sizeof mb_s / sizeof mb_s[0]; i++) {
        struct measure_disk m;
        made_up_mb_s = mb_s[i / 2];
        latency_us = made_up_mb_s > 50.0 ? 100 : 5000;
        now_us = 1000;
        n_read = 0;
        memset(end_us, 0, sizeof end_us);
        memset(has_read, 0, sizeof has_read);
        const uint64_t mib = i % 2 == 0 ? 20 : 3000;
        make_file("a.gguf", mib << 20, path, sizeof path);
        assert_int_equal(measure_disk(path, &m), ERR_OK);
        const double one_s = 2.097152 / made_up_mb_s;
        assert_true(((double)now_us - 1000.0) / 1e6 < 3.05 + one_s);
        const double all_us = (double)m.read_bytes / made_up_mb_s;
        const double late_us = mib == 20 ? 2.0 * (double)latency_us : 0.0;
        const double want_mb_s = made_up_mb_s * all_us / (all_us + late_us);
        assert_true(fabs(m.gb_s * 1e3 / want_mb_s - 1.0) < 0.03);
        assert_int_equal(m.read_bytes, n_read * DISK_PIECE);
    }
    made_up_mb_s = 0.0;
}

/* What the threads got of their time is told of reading alone: not of what one thread does before. */
static void test_share(void **state)
{
    (void)state;
    const struct hearth_speed at = { .n_prompt = 1 };
    const struct hearth_box box = { .isa = CPU_SCALAR,
                                    .n_thread = 2,
                                    .memory_bytes = os_rss_bytes() + ((uint64_t)64 << 20) };
    double read_gb_s = 0.0;
    double disk_gb_s = 0.0;
    double share = 0.0;
    has_memory = true;
    made_up_mb_s = 1.0;
    step_us = 1000;
    open_us = 1000000;
    for (n_core = 1; n_core <= 2; n_core++) {
        read_gb_s = 0.0;
        assert_int_equal(measure_speeds(&box, "", &at, 1, &read_gb_s, &disk_gb_s, &share), ERR_OK);
        assert_true(read_gb_s > 0.0 && fabs(share - n_core / 2.0) < 0.02);
    }
    made_up_mb_s = 0.0;
    step_us = 0;
    open_us = 0;
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
        cmocka_unit_test(test_small),     cmocka_unit_test(test_share),
    };
    return cmocka_run_group_tests(tests, tree_setup, tree_teardown);
}
