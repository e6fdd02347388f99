/* db - the box's small durable state: SQLite behind a few functions
 *
 * Keys, the model store's index and usage are small, must survive a power cut and are read by
 * people with other tools: a case for SQLite and not for a format of our own. This file opens the
 * database with the settings that durability needs (WAL, synchronous=FULL), brings its schema up to
 * date step by step inside transactions, and wraps statements so that values are always bound,
 * never pasted.
 *
 * Reading has to work where nothing can be written: WAL wants a file for its shared memory, which a
 * full disk or a read-only one does not give. Then the memory is kept in the process, which locks
 * others out meanwhile, and at last the file is read as one that nobody changes.
 *
 * A database made by a newer version is refused, not guessed at.
 *
 * Next: num/quant.c. */
#include "base/db.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_MS     5000
#define WAL_WAIT_MS 5
#define URI_MAX     16384

struct db {
    sqlite3 *handle;
};

struct db_query {
    sqlite3_stmt *statement;
};

/* What the failure means for the user; NULL when SQLite's own words are the best there are. */
static const char *meaning(sqlite3 *h, int code)
{
    const int system = sqlite3_system_errno(h);
    if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT) {
        return "the file is damaged; move it, its -wal and its -shm away and a new one is made";
    }
    if (code == SQLITE_FULL || system == ENOSPC || system == EDQUOT) {
        return "the disk is full";
    }
    return code == SQLITE_READONLY || system == EROFS || system == EACCES ? "it is read-only here"
                                                                          : NULL;
}

static enum err failed(sqlite3 *h, const char *what)
{
    const int code = sqlite3_errcode(h);
    const enum err e = code == SQLITE_BUSY                               ? ERR_BUSY
                       : code == SQLITE_NOTADB || code == SQLITE_CORRUPT ? ERR_INTEGRITY
                       : code == SQLITE_NOMEM                            ? ERR_MEMORY
                                                                         : ERR_IO;
    const char *path = sqlite3_db_filename(h, "main");
    const char *why = meaning(h, code);
    return why != NULL
               ? err_set(e, "%s: %s (%s)", path != NULL ? path : "database", why, sqlite3_errmsg(h))
               : err_set(e, "%s: %s: %s", path != NULL ? path : "database", what,
                         sqlite3_errmsg(h));
}

enum err db_exec(struct db *d, const char *sql)
{
    return sqlite3_exec(d->handle, sql, NULL, NULL, NULL) == SQLITE_OK ? ERR_OK
                                                                       : failed(d->handle, sql);
}

static enum err read_version(struct db *d, int *version)
{
    struct db_query *q = NULL;
    bool has_row = false;
    TRY(db_query_open(&q, d, "PRAGMA user_version", "", NULL));
    const enum err e = db_query_next(q, &has_row);
    *version = has_row ? (int)db_int(q, 0) : 0;
    db_query_close(q);
    return e;
}

/* One step inside a transaction. The version is read there again: another process may have made
 * the step while this one waited for the lock. */
static enum err migrate_once(struct db *d, const char *const *steps, int version, int *have)
{
    TRY(read_version(d, have));
    if (*have >= version) {
        return ERR_OK;
    }
    char set[64];
    snprintf(set, sizeof set, "PRAGMA user_version = %d", *have + 1);
    TRY(db_exec(d, steps[*have]));
    TRY(db_exec(d, set));
    ++*have;
    return ERR_OK;
}

static enum err migrate(struct db *d, const char *path, const char *const *steps, int version)
{
    int have = 0;
    TRY(read_version(d, &have));
    while (have < version) {
        TRY(db_exec(d, "BEGIN IMMEDIATE"));
        enum err e = migrate_once(d, steps, version, &have);
        e = e == ERR_OK ? db_exec(d, "COMMIT") : e;
        if (e != ERR_OK) {
            (void)sqlite3_exec(d->handle, "ROLLBACK", NULL, NULL, NULL);
            return e;
        }
    }
    REQUIRE(have == version, ERR_UNSUPPORTED,
            "%s: made by a newer version (schema %d, this program knows %d)", path, have, version);
    return ERR_OK;
}

/* SQLite answers the pragma with the mode that it took: on a file system without shared memory that
 * is not WAL. It is durable all the same, but readers then wait for writers. */
static enum err use_wal_once(struct db *d, const char *path)
{
    struct db_query *q = NULL;
    bool has_row = false;
    TRY(db_query_open(&q, d, "PRAGMA journal_mode = WAL", "", NULL));
    const enum err e = db_query_next(q, &has_row);
    const struct view mode = has_row ? db_text(q, 0) : VIEW("wal");
    if (e == ERR_OK && !view_is(mode, "wal") && !view_is(mode, "memory")) {
        log_event(LOG_WARN, "db", "path=%s journal_mode=%.*s wanted=wal", path, (int)mode.n,
                  mode.p);
    }
    db_query_close(q);
    return e;
}

/* Several processes that create the file at the same moment stand in each other's way here, and for
 * this step SQLite does not wait by itself. */
static enum err use_wal(struct db *d, const char *path)
{
    enum err e = use_wal_once(d, path);
    for (int waited_ms = 0; e == ERR_BUSY && waited_ms < BUSY_MS; waited_ms += WAL_WAIT_MS) {
        (void)sqlite3_sleep(WAL_WAIT_MS);
        e = use_wal_once(d, path);
    }
    return e;
}

/* How a file is opened, from the wanted way to the last resort. */
enum way {
    WAY_SHARED,    /* WAL, with its shared memory in a file beside the database */
    WAY_EXCLUSIVE, /* shared memory in this process only: nothing has to be written for reading */
    WAY_IMMUTABLE, /* the medium is read-only, nobody changes the file */
    WAY_COUNT
};

static enum err configure(struct db *d, const char *path, const char *const *steps, int version,
                          enum way way)
{
    sqlite3_busy_timeout(d->handle, BUSY_MS);
    TRY(way == WAY_EXCLUSIVE ? db_exec(d, "PRAGMA locking_mode = EXCLUSIVE") : ERR_OK);
    TRY(way != WAY_IMMUTABLE ? use_wal(d, path) : ERR_OK);
    TRY(db_exec(d, "PRAGMA synchronous = FULL"));
    TRY(db_exec(d, "PRAGMA foreign_keys = ON"));
    return migrate(d, path, steps, version);
}

/* The file as a URI that SQLite takes for unchangeable. */
static enum err immutable_uri(const char *path, struct buf *uri)
{
    buf_add_str(uri, "file:");
    for (const char *c = path; *c != '\0'; c++) {
        if (strchr("%?#", *c) != NULL) {
            buf_printf(uri, "%%%02x", (unsigned char)*c);
        } else {
            buf_add_char(uri, *c);
        }
    }
    buf_add_str(uri, "?immutable=1");
    return buf_check(uri, "file name");
}

/* SQLite does not say that a new file's folder cannot be written to. */
static const char *why_not_open(const char *path, const char *usual)
{
    char folder[OS_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    *(slash != NULL ? slash : folder) = '\0';
    return access(path, F_OK) != 0 && access(folder, W_OK) != 0 ? strerror(errno) : usual;
}

/* A write-ahead log with something in it is part of the database; the last resort would miss it. */
static bool has_log(const char *path)
{
    char wal[OS_PATH_BYTES];
    struct stat s;
    snprintf(wal, sizeof wal, "%s-wal", path);
    return stat(wal, &s) == 0 && s.st_size > 0;
}

static enum err open_way(struct db *d, const char *path, const char *const *steps, int version,
                         enum way way)
{
    struct buf uri;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    buf_init(&uri, URI_MAX);
    enum err e = ERR_OK;
    if (way == WAY_IMMUTABLE) {
        flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX;
        e = immutable_uri(path, &uri);
    } else {
        buf_add_str(&uri, path);
    }
    if (e == ERR_OK && sqlite3_open_v2(buf_str(&uri), &d->handle, flags, NULL) != SQLITE_OK) {
        e = d->handle != NULL ? err_set(ERR_IO, "%s: cannot be opened or made: %s", path,
                                        why_not_open(path, sqlite3_errmsg(d->handle)))
                              : err_set(ERR_MEMORY, "%s: no memory", path);
    }
    buf_release(&uri);
    return e == ERR_OK ? configure(d, path, steps, version, way) : e;
}

enum err db_open(struct db **out, const char *path, const char *const *steps, int version)
{
    struct db *d = mem_alloc(sizeof *d);
    char text[ERR_TEXT_MAX] = "";
    REQUIRE(d != NULL, ERR_MEMORY, "%s: no memory", path);
    enum err e = open_way(d, path, steps, version, WAY_SHARED);
    for (int way = WAY_EXCLUSIVE; way < WAY_COUNT && e == ERR_IO; way++) {
        if (text[0] == '\0') {
            snprintf(text, sizeof text, "%s", err_text());
        }
        if (way == WAY_IMMUTABLE && has_log(path)) {
            break;
        }
        sqlite3_close_v2(d->handle);
        d->handle = NULL;
        e = open_way(d, path, steps, version, (enum way)way);
    }
    if (e != ERR_OK) {
        db_close(d);
        return e == ERR_IO ? err_set(e, "%s", text) : e; /* the first failure tells most */
    }
    *out = d;
    return ERR_OK;
}

void db_close(struct db *d)
{
    if (d != NULL) {
        sqlite3_close_v2(d->handle); /* waits for forgotten statements instead of leaking */
        mem_free(d);
    }
}

static int bind(sqlite3_stmt *s, int i, char kind, const void *value)
{
    if (kind == 's') {
        const struct view *v = value;
        return sqlite3_bind_text64(s, i, v->p != NULL ? v->p : "", v->n, SQLITE_TRANSIENT,
                                   SQLITE_UTF8);
    }
    return kind == 'i' ? sqlite3_bind_int64(s, i, *(const int64_t *)value)
                       : sqlite3_bind_null(s, i);
}

enum err db_query_open(struct db_query **out, struct db *d, const char *sql, const char *args,
                       const void *const *values)
{
    struct db_query *q = mem_alloc(sizeof *q);
    REQUIRE(q != NULL, ERR_MEMORY, "database: no memory for a statement");
    enum err e = sqlite3_prepare_v2(d->handle, sql, -1, &q->statement, NULL) == SQLITE_OK
                     ? ERR_OK
                     : failed(d->handle, sql);
    const int n_wanted = sqlite3_bind_parameter_count(q->statement);
    if (e == ERR_OK && (size_t)n_wanted != strlen(args)) {
        e = err_set(ERR_FAILED, "database: %s: %d values wanted, %zu given", sql, n_wanted,
                    strlen(args));
    }
    for (int i = 0; args[i] != '\0' && e == ERR_OK; i++) {
        e = bind(q->statement, i + 1, args[i], values[i]) == SQLITE_OK ? ERR_OK
                                                                       : failed(d->handle, sql);
    }
    if (e != ERR_OK) {
        db_query_close(q);
        return e;
    }
    *out = q;
    return ERR_OK;
}

enum err db_query_next(struct db_query *q, bool *has_row)
{
    const int rc = sqlite3_step(q->statement);
    *has_row = rc == SQLITE_ROW;
    return rc == SQLITE_ROW || rc == SQLITE_DONE
               ? ERR_OK
               : failed(sqlite3_db_handle(q->statement), sqlite3_sql(q->statement));
}

int64_t db_int(struct db_query *q, int column)
{
    return sqlite3_column_int64(q->statement, column);
}

struct view db_text(struct db_query *q, int column)
{
    const unsigned char *p = sqlite3_column_text(q->statement, column);
    return (struct view){ (const char *)p,
                          p != NULL ? (size_t)sqlite3_column_bytes(q->statement, column) : 0 };
}

void db_query_close(struct db_query *q)
{
    if (q != NULL) {
        sqlite3_finalize(q->statement);
        mem_free(q);
    }
}
