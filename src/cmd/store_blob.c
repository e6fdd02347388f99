/* store_blob - files of the store: read, written, named by their SHA-256
 *
 * A file is hashed while it is written into the partial folder, synced, and only then renamed to
 * its digest, so what has such a name is whole (ST-1). From before the rename on a note says that
 * the file may be without a model (ST-3); the index ends that.
 *
 * Rejected: hashing after writing, which would read every file twice.
 *
 * Next: cmd/store_pull.c. */
#include "cmd/store.h"

#include "base/hash.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PIECE ((size_t)1 << 20)

enum err store_hash(const char *path, struct progress *p, char hex[65])
{
    struct os_file f = { .fd = -1 };
    struct hash_sha256 *h = NULL;
    TRY(os_open(&f, path));
    char *piece = mem_alloc(PIECE);
    enum err e = piece != NULL ? hash_sha256_open(&h)
                               : err_set(ERR_MEMORY, "%s: no memory to read it", path);
    for (uint64_t at = 0; at < f.size && e == ERR_OK; at += PIECE) {
        const size_t n = f.size - at < PIECE ? (size_t)(f.size - at) : PIECE;
        e = os_read_at(&f, piece, n, at);
        if (e != ERR_OK) {
            e = err_at(e, "%s", path);
            break;
        }
        hash_sha256_add(h, piece, n);
        if (p != NULL) {
            progress_set(p, at + n);
        }
    }
    e = e == ERR_OK ? os_unchanged(&f, path) : e;
    hash_sha256_close(h, e == ERR_OK ? hex : NULL);
    mem_free(piece);
    os_close(&f);
    return e;
}

enum err store_hash_blob(const struct store *st, const struct store_file *f, const char *shown,
                         char hex[65])
{
    struct buf path;
    struct progress bar;
    buf_init(&path, OS_PATH_BYTES);
    store_blob_path(st, f->digest, &path);
    progress_begin_short(&bar, shown, f->bytes);
    const enum err e = store_hash(buf_str(&path), &bar, hex);
    progress_end(&bar);
    buf_release(&path);
    return e;
}

bool store_is_sound(const struct store *st, const struct store_file *f)
{
    char hex[65];
    return store_has_blob(st, f) && store_hash_blob(st, f, "checking", hex) == ERR_OK &&
           strcmp(hex, f->digest) == 0;
}

bool store_room(const char *folder, uint64_t *bytes)
{
    struct statvfs v;
    const bool is_told = statvfs(folder, &v) == 0;
    *bytes = is_told ? (uint64_t)v.f_bavail * v.f_frsize : *bytes;
    return is_told;
}

static enum err check_room(const char *folder, uint64_t bytes)
{
    uint64_t room = UINT64_MAX; /* when the file system does not say, writing will tell */
    (void)store_room(folder, &room);
    REQUIRE(bytes <= room, ERR_IO, "%s: %llu bytes are needed, the disk has %llu left", folder,
            (unsigned long long)bytes, (unsigned long long)room);
    return ERR_OK;
}

enum err store_begin(struct store_writer *w, struct store *st, uint64_t bytes)
{
    *w = (struct store_writer){ .st = st, .fd = -1 };
    TRY(store_check(st));
    TRY(check_room(store_partial(st), bytes));
    snprintf(w->path, sizeof w->path, "%s/" STORE_NEW "%ld", store_partial(st), (long)getpid());
    TRY(hash_sha256_open(&w->hash));
    w->fd = open(w->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (w->fd < 0) {
        const int saved = errno;
        store_drop(w);
        return err_set(ERR_IO, "%s: cannot create: %s", store_partial(st), strerror(saved));
    }
    return ERR_OK;
}

enum err store_write(struct store_writer *w, const void *bytes, size_t n)
{
    const char *p = bytes;
    hash_sha256_add(w->hash, bytes, n);
    w->n += n;
    while (n > 0) {
        const ssize_t got = write(w->fd, p, n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        REQUIRE(got > 0, ERR_IO, "%s: cannot write after %llu bytes: %s", w->path,
                (unsigned long long)(w->n - n), strerror(errno));
        p += got;
        n -= (size_t)got;
    }
    return ERR_OK;
}

void store_drop(struct store_writer *w)
{
    hash_sha256_close(w->hash, NULL);
    w->hash = NULL;
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->path);
    }
    w->fd = -1;
}

/* Before a file takes the place of a damaged one: whatever was made of that goes. */
static enum err replace(struct store *st, const struct store_file *f)
{
    struct buf path;
    buf_init(&path, OS_PATH_BYTES);
    store_blob_path(st, f->digest, &path);
    const bool is_damaged = os_exists(buf_str(&path)) && !store_is_sound(st, f);
    buf_release(&path);
    if (!is_damaged) {
        return ERR_OK;
    }
    fprintf(stderr, "hearth: sha256-%s in the store is damaged; it is replaced\n", f->digest);
    return store_drop_images(st, f->digest);
}

/* A whole, synced file gets its final name. */
static enum err keep(struct store *st, const char *path, const struct store_file *f)
{
    struct buf to;
    buf_init(&to, OS_PATH_BYTES);
    store_blob_path(st, f->digest, &to);
    enum err e = buf_check(&to, "blob path");
    store_note_orphan(st, f->digest);
    if (e == ERR_OK && (chmod(path, 0400) != 0 || rename(path, buf_str(&to)) != 0)) {
        e = err_set(ERR_IO, "%s: cannot rename to %s: %s", path, buf_str(&to), strerror(errno));
    }
    if (e == ERR_OK) {
        char *slash = strrchr(to.p, '/');
        *slash = '\0';
        const int fd = open(to.p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) != 0) {
            e = err_set(ERR_IO, "%s: cannot sync: %s", to.p, strerror(errno));
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    buf_release(&to);
    return e;
}

static enum err check_digest(const char *what, const char *want, const char *got)
{
    REQUIRE(want == NULL || strcmp(want, got) == 0, ERR_INTEGRITY,
            "%s: wrong checksum: sha256 %s, wanted %s; nothing was kept", what, got, want);
    return ERR_OK;
}

enum err store_finish(struct store_writer *w, const char *want, struct store_file *f)
{
    hash_sha256_close(w->hash, f->digest);
    w->hash = NULL;
    f->bytes = w->n;
    enum err e = check_digest(f->title, want, f->digest);
    if (e == ERR_OK && fsync(w->fd) != 0) {
        e = err_set(ERR_IO, "%s: cannot sync: %s", w->path, strerror(errno));
    }
    e = e == ERR_OK && !w->is_image ? replace(w->st, f) : e;
    e = e == ERR_OK ? keep(w->st, w->path, f) : e;
    if (e == ERR_OK) {
        close(w->fd);
        w->fd = -1;
    }
    store_drop(w);
    return e;
}

enum err store_adopt(struct store *st, const char *path, const char *want, struct progress *p,
                     struct store_file *f)
{
    struct stat s;
    TRY(store_hash(path, p, f->digest));
    enum err e = check_digest(f->title, want, f->digest);
    if (e != ERR_OK) {
        unlink(path); /* what is wrong now is wrong next time */
        return e;
    }
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &s) != 0 || fsync(fd) != 0) {
        e = err_set(ERR_IO, "%s: cannot sync: %s", path, strerror(errno));
    } else {
        f->bytes = (uint64_t)s.st_size;
    }
    if (fd >= 0) {
        close(fd);
    }
    e = e == ERR_OK ? replace(st, f) : e;
    return e == ERR_OK ? keep(st, path, f) : e;
}
