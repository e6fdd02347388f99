/* zip - members of a zip archive, read with bounds
 *
 * Wheels are zip archives. The end record is searched in the last 64 KB, the central directory is
 * read whole (it is small and bounded), and a member is inflated piece by piece into a sink, so
 * that memory does not depend on its size. The directory counts, not the headers in front of the
 * members: those are only used to find where the bytes begin.
 *
 * A member that unpacks to more or less than its entry says, or to another checksum, is an error
 * (ZI-1); so a small archive cannot fill a disk.
 *
 * Rejected: Python's zipfile in a child process (one more program to be there, and nobody to bound
 * it) and libzip (a dependency for 150 lines).
 *
 * Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3; deflate by zlib.
 * Next: cmd/store.c. */
#include "cmd/zip.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"

#include <string.h>
#include <zlib.h>

#define END_BYTES     22 /* of the end record without its comment */
#define ENTRY_BYTES   46 /* of a directory entry without its names */
#define LOCAL_BYTES   30
#define DIRECTORY_MAX ((size_t)16 << 20)
#define PIECE         ((size_t)256 << 10)

#define METHOD_STORED  0
#define METHOD_DEFLATE 8
#define FLAG_ENCRYPTED 1

struct member {
    struct view name;
    uint32_t crc;
    uint32_t packed;
    uint32_t bytes;
    uint32_t at; /* of the header in front of the bytes */
    uint16_t method;
    uint16_t flags;
};

struct zip {
    struct os_file file;
    char *path;             /* owns */
    char *directory;        /* owns */
    struct member *members; /* [n_member], owns */
    size_t n_member;
};

static uint16_t u16(const char *at)
{
    const unsigned char *p = (const unsigned char *)at;
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const char *at)
{
    return (uint32_t)u16(at) | (uint32_t)u16(at + 2) << 16;
}

/* Reads the end record: where the directory lies. */
static enum err find_directory(const struct zip *z, uint32_t *at, uint32_t *n_bytes, size_t *n)
{
    char tail[65535 + END_BYTES];
    const size_t n_tail = z->file.size < sizeof tail ? (size_t)z->file.size : sizeof tail;
    REQUIRE(n_tail >= END_BYTES && z->file.size < UINT32_MAX, ERR_INTEGRITY,
            "%s: %llu bytes: no zip archive of less than 4 GB", z->path,
            (unsigned long long)z->file.size);
    const uint64_t tail_at = z->file.size - n_tail;
    const enum err e = os_read_at(&z->file, tail, n_tail, tail_at);
    if (e != ERR_OK) {
        return err_at(e, "%s", z->path);
    }
    for (size_t i = n_tail - END_BYTES + 1; i-- > 0;) {
        if (memcmp(tail + i, "PK\5\6", 4) != 0 || i + END_BYTES + u16(tail + i + 20) != n_tail) {
            continue;
        }
        *n = u16(tail + i + 10);
        *n_bytes = u32(tail + i + 12);
        *at = u32(tail + i + 16);
        REQUIRE(*n_bytes <= DIRECTORY_MAX && (uint64_t)*at + *n_bytes <= tail_at + i &&
                    *n <= *n_bytes / ENTRY_BYTES,
                ERR_INTEGRITY, "%s: byte %llu: the archive's directory does not fit", z->path,
                (unsigned long long)(tail_at + i));
        return ERR_OK;
    }
    return err_set(ERR_INTEGRITY, "%s: not a zip archive, or its end is missing", z->path);
}

static enum err read_entries(struct zip *z, uint32_t at, uint32_t n_bytes, size_t n)
{
    size_t p = 0;
    for (; z->n_member < n; z->n_member++) {
        const char *d = z->directory + p;
        REQUIRE(n_bytes - p >= ENTRY_BYTES && memcmp(d, "PK\1\2", 4) == 0, ERR_INTEGRITY,
                "%s: byte %zu: no directory entry", z->path, at + p);
        const size_t whole = (size_t)ENTRY_BYTES + u16(d + 28) + u16(d + 30) + u16(d + 32);
        REQUIRE(whole <= n_bytes - p, ERR_INTEGRITY, "%s: byte %zu: a directory entry is cut",
                z->path, at + p);
        z->members[z->n_member] = (struct member){ .name = { d + ENTRY_BYTES, u16(d + 28) },
                                                   .flags = u16(d + 8),
                                                   .method = u16(d + 10),
                                                   .crc = u32(d + 16),
                                                   .packed = u32(d + 20),
                                                   .bytes = u32(d + 24),
                                                   .at = u32(d + 42) };
        p += whole;
    }
    return ERR_OK;
}

static enum err read_directory(struct zip *z)
{
    uint32_t at = 0;
    uint32_t n_bytes = 0;
    size_t n = 0;
    TRY(find_directory(z, &at, &n_bytes, &n));
    z->directory = mem_alloc((size_t)n_bytes + 1);
    z->members = mem_alloc_array(n + 1, sizeof z->members[0]);
    REQUIRE(z->directory != NULL && z->members != NULL, ERR_MEMORY, "%s: no memory", z->path);
    const enum err e = os_read_at(&z->file, z->directory, n_bytes, at);
    if (e != ERR_OK) {
        return err_at(e, "%s", z->path);
    }
    return read_entries(z, at, n_bytes, n);
}

enum err zip_open(struct zip **out, const char *path)
{
    struct zip *z = mem_alloc(sizeof *z);
    REQUIRE(z != NULL, ERR_MEMORY, "%s: no memory", path);
    z->file.fd = -1;
    z->path = mem_strdup(path, strlen(path));
    enum err e =
        z->path != NULL ? os_open(&z->file, path) : err_set(ERR_MEMORY, "%s: no memory", path);
    e = e == ERR_OK ? read_directory(z) : e;
    if (e != ERR_OK) {
        zip_close(z);
        return e;
    }
    *out = z;
    return ERR_OK;
}

void zip_close(struct zip *z)
{
    if (z == NULL) {
        return;
    }
    os_close(&z->file);
    mem_free(z->path);
    mem_free(z->directory);
    mem_free(z->members);
    mem_free(z);
}

size_t zip_find(const struct zip *z, const char *name, uint64_t *bytes)
{
    for (size_t i = 0; i < z->n_member; i++) {
        if (view_is(z->members[i].name, name)) {
            if (bytes != NULL) {
                *bytes = z->members[i].bytes;
            }
            return i;
        }
    }
    return SIZE_MAX;
}

/* A member on its way into the sink. */
struct reading {
    const struct zip *z;
    const struct member *m;
    uint64_t at;     /* next packed byte in the file */
    uint32_t left;   /* packed bytes not yet read */
    uint64_t n_done; /* unpacked bytes */
    uint32_t crc;
    zip_sink_fn sink;
    void *arg;
    unsigned char in[PIECE];
    unsigned char out[PIECE];
};

static enum err give(struct reading *r, const unsigned char *bytes, size_t n)
{
    REQUIRE(n <= r->m->bytes - r->n_done, ERR_INTEGRITY,
            "%s: member %.*s: unpacks to more than the %u bytes it announces", r->z->path,
            (int)r->m->name.n, r->m->name.p, r->m->bytes);
    r->n_done += n;
    r->crc = (uint32_t)crc32(r->crc, bytes, (uInt)n);
    return r->sink(r->arg, bytes, n);
}

static enum err fill(struct reading *r, size_t *n)
{
    *n = r->left < PIECE ? r->left : PIECE;
    const enum err e = os_read_at(&r->z->file, r->in, *n, r->at);
    if (e != ERR_OK) {
        return err_at(e, "%s", r->z->path);
    }
    r->at += *n;
    r->left -= (uint32_t)*n;
    return ERR_OK;
}

static enum err read_stored(struct reading *r)
{
    while (r->left > 0) {
        size_t n = 0;
        TRY(fill(r, &n));
        TRY(give(r, r->in, n));
    }
    return ERR_OK;
}

static enum err inflate_all(struct reading *r, z_stream *s)
{
    int rc = Z_OK;
    while (rc != Z_STREAM_END) {
        if (s->avail_in == 0 && r->left > 0) {
            size_t n = 0;
            TRY(fill(r, &n));
            s->next_in = r->in;
            s->avail_in = (uInt)n;
        }
        s->next_out = r->out;
        s->avail_out = PIECE;
        rc = inflate(s, Z_NO_FLUSH);
        const size_t n_out = PIECE - s->avail_out;
        REQUIRE((rc == Z_OK && (n_out > 0 || s->avail_in > 0 || r->left > 0)) || rc == Z_STREAM_END,
                ERR_INTEGRITY, "%s: member %.*s: damaged near byte %llu", r->z->path,
                (int)r->m->name.n, r->m->name.p, (unsigned long long)(r->at - s->avail_in));
        TRY(give(r, r->out, n_out));
    }
    return ERR_OK;
}

static enum err read_deflated(struct reading *r)
{
    z_stream s = { 0 };
    REQUIRE(inflateInit2(&s, -MAX_WBITS) == Z_OK, ERR_MEMORY, "no memory to unpack %s", r->z->path);
    const enum err e = inflate_all(r, &s);
    inflateEnd(&s);
    return e;
}

/* Where the member's bytes begin: behind a header with names of its own. */
static enum err find_bytes(struct reading *r)
{
    char local[LOCAL_BYTES];
    const struct zip *z = r->z;
    REQUIRE(r->m->at + (uint64_t)LOCAL_BYTES <= z->file.size, ERR_INTEGRITY,
            "%s: member %.*s: begins behind the end", z->path, (int)r->m->name.n, r->m->name.p);
    const enum err e = os_read_at(&z->file, local, LOCAL_BYTES, r->m->at);
    if (e != ERR_OK) {
        return err_at(e, "%s", z->path);
    }
    r->at = (uint64_t)r->m->at + LOCAL_BYTES + u16(local + 26) + u16(local + 28);
    REQUIRE(memcmp(local, "PK\3\4", 4) == 0 && r->at + r->m->packed <= z->file.size, ERR_INTEGRITY,
            "%s: byte %u: no member %.*s of %u bytes", z->path, r->m->at, (int)r->m->name.n,
            r->m->name.p, r->m->packed);
    return ERR_OK;
}

enum err zip_read(const struct zip *z, size_t i, zip_sink_fn sink, void *arg)
{
    const struct member *m = &z->members[i];
    const int n_name = (int)m->name.n;
    REQUIRE((m->flags & FLAG_ENCRYPTED) == 0 &&
                (m->method == METHOD_STORED || m->method == METHOD_DEFLATE),
            ERR_UNSUPPORTED, "%s: member %.*s: packed by method %u%s", z->path, n_name, m->name.p,
            m->method, (m->flags & FLAG_ENCRYPTED) != 0 ? ", encrypted" : "");
    struct reading *r = mem_alloc(sizeof *r);
    REQUIRE(r != NULL, ERR_MEMORY, "%s: no memory to unpack", z->path);
    r->z = z;
    r->m = m;
    r->left = m->packed;
    r->sink = sink;
    r->arg = arg;
    enum err e = find_bytes(r);
    if (e == ERR_OK) {
        e = m->method == METHOD_STORED ? read_stored(r) : read_deflated(r);
    }
    if (e == ERR_OK && (r->n_done != m->bytes || r->crc != m->crc)) {
        e = err_set(ERR_INTEGRITY,
                    "%s: member %.*s: damaged: %llu of %u bytes, checksum %08x, "
                    "wanted %08x",
                    z->path, n_name, m->name.p, (unsigned long long)r->n_done, m->bytes, r->crc,
                    m->crc);
    }
    mem_free(r);
    return e;
}
