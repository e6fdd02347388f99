/* test_disk - what hearth doctor says of a disk that could not be read, or not even tried
 *
 * The file is included, so that memory and reads can be refused; there is no store. */
#include "base/mem.h"
#include "base/ring.h"
#include "cmd/store.h"
#include "tree.h"

#include <unistd.h>

static bool has_memory;
static enum err read_result;

static enum err open_arena(struct arena *a, size_t n, bool has_huge)
{
    return has_memory ? arena_open(a, n, has_huge) : err_set(ERR_MEMORY, "no memory for a test");
}

static enum err wait_for(struct ring *r, uint64_t ticket)
{
    TRY(ring_wait(r, ticket));
    return read_result == ERR_OK ? ERR_OK : err_set(read_result, "bad sector");
}

#define arena_open open_arena
#define ring_wait  wait_for
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

/* Of a file of 32 MiB. */
static void look_at(struct facts_disk *d, const char *name)
{
    char path[256];
    put(name, "x");
    snprintf(path, sizeof path, "%s/%s", top, name);
    assert_int_equal(truncate(path, (off_t)READ_LEAST), 0);
    assert_int_equal(disk_read(d, path), ERR_OK);
    assert_int_equal(d->file_bytes, READ_LEAST);
}

static void test_read(void **state)
{
    (void)state;
    struct facts_disk d;
    has_memory = true;
    read_result = ERR_OK;
    look_at(&d, "a.gguf");
    assert_string_equal(d.file, "a.gguf");
    assert_true(d.gb_s > 0.0 && d.read_bytes == READ_LEAST);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, tree_setup, tree_teardown);
}
