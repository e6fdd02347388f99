/* disk - the model store and the speed of its disk, tried just now
 *
 * The speed is that of base/ring.c on a file that is there: what a model's start waits for, and
 * each token of a model that is larger than memory. Another part of the file is read each time, so
 * that no cache between here and the disk has seen it lately.
 *
 * Reads begin one by one and more go side by side as they end, so that a memory card of 20 MB/s is
 * measured in three seconds with what it can read in them, and a fast disk with a full queue: what
 * came before that is not timed.
 *
 * Rejected: a temporary file where there is no model. It would be read from where the disk has put
 * it a moment ago, which is not where models lie, it wears the disk, and without a model nothing
 * waits for it.
 *
 * Next: base/ring.c. */
#include "cmd/disk.h"

#include "base/mem.h"
#include "base/os.h"
#include "base/pool.h"
#include "base/ring.h"
#include "cmd/store.h"

#include <stdio.h>
#include <string.h>

#define PIECE       ((size_t)8 << 20) /* of a read */
#define BESIDE      ((size_t)8 << 20) /* of memory that the ring and the kernel take */
#define N_PIECE     8                 /* side by side at most */
#define FULL_LEAST  24                /* reads with a full queue that are timed alone */
#define READ_MOST   ((uint64_t)512 << 20)
#define READ_LEAST  (4 * (uint64_t)PIECE) /* a smaller file tells nothing */
#define TIME_US     1500000               /* in which reads are started */
#define LOOK_US     500000                /* for the page cache */
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
    d->n_model++;
    for (size_t i = 0; i < m->n_blob; i++) {
        struct buf path;
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
}

static enum err read_store(struct facts_disk *d, struct buf *largest)
{
    struct store *st = NULL;
    TRY(store_open(&st));
    const uint64_t until_us = os_now_us() + LOOK_US;
    char name[STORE_NAME_MAX] = "";
    bool found = true;
    enum err e = ERR_OK;
    snprintf(d->store, sizeof d->store, "%s", store_partial(st));
    char *slash = strrchr(d->store, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    d->room_bytes = UINT64_MAX;
    (void)store_room(d->store, &d->room_bytes);
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

/* Up to N_PIECE reads in flight, each into a part of the memory of its own. */
static enum err stream(struct facts_disk *d, struct ring *r, uint8_t *to, uint64_t at)
{
    const uint64_t most = d->file_bytes < READ_MOST ? d->file_bytes / PIECE * PIECE : READ_MOST;
    const uint64_t from_us = os_now_us();
    uint64_t n_started = 0;
    uint64_t n_ended = 0;
    uint64_t n_wide = 1;  /* that go side by side */
    uint64_t n_begun = 0; /* that had ended when all went side by side, and when that was */
    uint64_t full_us = from_us;
    bool goes_on = true;
    while (goes_on || n_ended < n_started) {
        while (goes_on && n_started - n_ended < n_wide) {
            uint64_t ticket = 0;
            TRY(ring_start(r, at + n_started * PIECE, to + n_started % N_PIECE * PIECE, PIECE,
                           &ticket));
            n_started++;
            goes_on = (n_started + 1) * PIECE <= most;
        }
        TRY(ring_wait(r, ++n_ended)); /* the n-th read has the ticket n */
        goes_on = goes_on && os_now_us() - from_us < TIME_US;
        if (n_wide < N_PIECE && ++n_wide == N_PIECE) {
            n_begun = n_ended;
            full_us = os_now_us();
        }
    }
    const bool has_full = n_ended >= n_begun + FULL_LEAST;
    const uint64_t n_timed = has_full ? n_ended - n_begun : n_ended;
    const uint64_t us = os_now_us() - (has_full ? full_us : from_us);
    d->read_bytes = n_ended * PIECE;
    d->gb_s = (double)(n_timed * PIECE) / 1e3 / (double)(us + 1);
    return ERR_OK;
}

/* In a small container the kernel would not refuse the memory but end the program. */
static enum err has_room(void)
{
    struct pool_host h;
    const uint64_t need = N_PIECE * PIECE + BESIDE;
    pool_read_host(&h, NULL);
    REQUIRE(h.available_bytes >= h.held_bytes + need, ERR_MEMORY,
            "reading takes %llu MiB, which are not there (%s)", (unsigned long long)need >> 20,
            h.limit);
    return ERR_OK;
}

/* Without a file when that could not even begin: then the disk is unknown, and not broken. */
static enum err measure(struct facts_disk *d, const char *path)
{
    struct ring *r = NULL;
    struct arena memory = { 0 };
    uint64_t dice = 0;
    enum err e = ring_open(&r, path);
    e = e == ERR_OK ? has_room() : e;
    e = e == ERR_OK ? arena_open(&memory, N_PIECE * PIECE, true) : e;
    const bool has_begun = e == ERR_OK;
    if (has_begun) {
        os_random(&dice, sizeof dice);
        const uint64_t n_piece = d->file_bytes / PIECE;
        const uint64_t n_most = READ_MOST / PIECE;
        const uint64_t n_place = n_piece > n_most ? n_piece - n_most + 1 : 1;
        e = stream(d, r, memory.base, dice % n_place * PIECE);
    }
    if (r != NULL) {
        d->is_direct = ring_is_direct(r);
        d->is_uring = strcmp(ring_how(r), "io_uring") == 0;
    }
    if (!has_begun || (e != ERR_OK && e != ERR_IO && e != ERR_INTEGRITY)) {
        d->file[0] = '\0';
    }
    ring_close(r);
    arena_close(&memory);
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
    if (e == ERR_OK && d->file_bytes < READ_LEAST) {
        snprintf(d->why, sizeof d->why, "%s",
                 d->file_bytes > 0     ? "the file is too small to tell"
                 : d->fault[0] != '\0' ? "the model store cannot be opened"
                                       : "there is no model in the store (hearth pull gets one)");
        d->file[0] = '\0';
    } else if (e == ERR_OK && measure(d, buf_str(&file)) != ERR_OK) {
        snprintf(d->why, sizeof d->why, "%s", err_text());
    }
    buf_release(&file);
    return e;
}
