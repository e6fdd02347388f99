/* disk - the model store and the speed of its disk, tried just now
 *
 * The speed is that of lib/measure.c on the largest file of the store: what a model's start waits
 * for, and each token of a model that is larger than memory. Where there is no model nothing waits
 * for the disk, and nothing is measured. What other programs move meanwhile makes it slower, and is
 * told as the kernel counts it for that disk; file systems on more than one have no such count.
 *
 * A packed image that is gone is no loss but of what it was made for, and is said at each start; it
 * is looked at as then (store_has_image), and so are the sizes of all files.
 *
 * Next: lib/measure.c. */
#include "cmd/disk.h"

#include "base/figure.h"
#include "base/os.h"
#include "cmd/store.h"
#include "cmd/store_look.h"
#include "lib/measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define LOOK_US     500000 /* for the page cache */
#define LOOK_PIECE  ((size_t)1 << 30)
#define MODELS_MOST 10000

/* --- the store ----------------------------------------------------------------------------- */

/* What of a file the page cache holds. */
static void look(struct facts_disk *d, const char *path, uint64_t until_us)
{
    struct os_file f;
    bool is_told = os_open(&f, path) == ERR_OK;
    if (!is_told) {
        return;
    }
    for (uint64_t at = 0; at < f.size && is_told && os_now_us() < until_us; at += LOOK_PIECE) {
        const size_t n = f.size - at < LOOK_PIECE ? (size_t)(f.size - at) : LOOK_PIECE;
        uint64_t cached = 0;
        is_told = os_cached_bytes(&f, at, n, &cached);
        d->looked_bytes += is_told ? n : 0;
        d->cached_bytes += cached;
    }
    os_close(&f);
}

/* One model's files; the largest of all becomes the one that is read. */
static void add_model(struct facts_disk *d, const struct store *st, const struct store_model *m,
                      struct buf *largest, uint64_t until_us)
{
    const char *why = NULL;
    bool is_broken = !store_has_image(st, m, &why) && why != NULL;
    d->n_model++;
    for (size_t i = 0; i < m->n_blob; i++) {
        struct buf path;
        if (!store_has_blob(st, &m->files[i])) {
            why = i < m->n_file ? "" : why;
            is_broken = true;
            continue;
        }
        buf_init(&path, OS_PATH_BYTES);
        store_blob_path(st, m->files[i].digest, &path);
        d->bytes += m->files[i].bytes;
        look(d, buf_str(&path), until_us);
        if (m->files[i].bytes > d->file_bytes) {
            d->file_bytes = m->files[i].bytes;
            buf_reset(largest);
            buf_add_str(largest, buf_str(&path));
            snprintf(d->file, sizeof d->file, "%s", m->name);
        }
        buf_release(&path);
    }
    if (is_broken && d->n_broken++ == 0) {
        snprintf(d->broken, sizeof d->broken, "%s", m->name);
        snprintf(d->broken_why, sizeof d->broken_why, "%s", why);
    }
}

static enum err read_store(struct facts_disk *d, struct buf *largest)
{
    static struct store_look l; /* large; owner: the main thread */
    struct store *st = NULL;
    store_look(&l);
    d->is_missing = !l.is_there;
    snprintf(d->store, sizeof d->store, "%.*s", (int)sizeof d->store - 1, l.folder);
    snprintf(d->refused, sizeof d->refused, "%.*s", (int)sizeof d->refused - 1, l.refused);
    d->room_bytes = UINT64_MAX;
    (void)store_room(l.above, &d->room_bytes);
    REQUIRE(l.fault[0] == '\0', ERR_IO, "%s", l.fault);
    if (d->is_missing) {
        return ERR_OK;
    }
    TRY(store_open(&st));
    const uint64_t until_us = os_now_us() + LOOK_US;
    char name[STORE_NAME_MAX] = "";
    bool found = true;
    enum err e = ERR_OK;
    for (int i = 0; i < MODELS_MOST && found && e == ERR_OK; i++) {
        struct store_model m = { 0 };
        e = store_after(st, name, &m, &found);
        if (e == ERR_OK && found) {
            add_model(d, st, &m, largest, until_us);
            snprintf(name, sizeof name, "%s", m.name);
        }
        store_model_clear(&m);
    }
    store_close(st);
    return e;
}

/* --- speed --------------------------------------------------------------------------------- */

/* Bytes that the disk of a file has read and written; 0: not told. */
static uint64_t moved_bytes(const char *path)
{
    char name[128];
    char text[256];
    struct stat s;
    uint64_t n[7] = { 0 }; /* the third and the seventh are sectors */
    if (stat(path, &s) != 0) {
        return 0;
    }
    snprintf(name, sizeof name, "/sys/dev/block/%u:%u/partition", major(s.st_dev), minor(s.st_dev));
    const bool is_part = os_exists(name);
    snprintf(strrchr(name, '/'), 16, is_part ? "/../stat" : "/stat");
    char *at = text;
    text[os_read_start(name, text, sizeof text - 1)] = '\0';
    for (size_t i = 0; i < 7; i++) {
        n[i] = strtoull(at, &at, 10);
    }
    return (n[2] + n[6]) * 512;
}

/* Without a file when that could not even begin: then the disk is unknown, and not broken. */
static enum err measure(struct facts_disk *d, const char *path)
{
    struct os_file f;
    struct measure_disk m = { 0 };
    enum err e = os_open(&f, path);
    bool has_begun = e == ERR_OK;
    if (has_begun) {
        os_close(&f);
        const uint64_t before = moved_bytes(path);
        e = measure_disk(path, &m);
        d->other_bytes = figure_less(moved_bytes(path) - before, m.read_bytes);
        has_begun = e == ERR_OK || e == ERR_IO || e == ERR_INTEGRITY;
    }
    d->gb_s = m.gb_s;
    d->read_bytes = m.read_bytes;
    d->is_direct = m.is_direct;
    d->is_uring = m.is_uring;
    if (!has_begun) {
        d->file[0] = '\0';
    }
    return e;
}

/* The file that the user named takes the place of the store's. */
static enum err name_file(struct facts_disk *d, const char *path, struct buf *file)
{
    struct os_file f;
    TRY(os_open(&f, path));
    d->file_bytes = f.size;
    os_close(&f);
    const char *slash = strrchr(path, '/');
    snprintf(d->file, sizeof d->file, "%s", slash != NULL ? slash + 1 : path);
    buf_reset(file);
    buf_add_str(file, path);
    return ERR_OK;
}

enum err disk_read(struct facts_disk *d, const char *path)
{
    struct buf file;
    *d = (struct facts_disk){ .is_asked = true };
    buf_init(&file, OS_PATH_BYTES);
    if (read_store(d, &file) != ERR_OK) {
        snprintf(d->fault, sizeof d->fault, "%s", err_text());
    }
    const enum err e = path != NULL ? name_file(d, path, &file) : ERR_OK;
    if (e == ERR_OK && d->file_bytes < MEASURE_DISK_LEAST) {
        snprintf(d->why, sizeof d->why, "%s",
                 d->file_bytes > 0     ? "the file is too small to tell"
                 : d->fault[0] != '\0' ? "the model store cannot be opened"
                 : d->n_broken > 0     ? "the files of the model store are gone"
                                       : "there is no model in the store (hearth pull gets one)");
        d->file[0] = '\0';
    } else if (e == ERR_OK && measure(d, buf_str(&file)) != ERR_OK) {
        snprintf(d->why, sizeof d->why, "%s", err_text());
    }
    buf_release(&file);
    return e;
}
