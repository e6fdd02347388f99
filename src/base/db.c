/* db - the box's small durable state: SQLite behind a few functions
 *
 * Keys, the model store's index and usage are small, must survive a power cut and are read by
 * people with other tools: a case for SQLite and not for a format of our own. This file opens the
 * database with the settings that durability needs (WAL, synchronous=FULL), brings its schema up to
 * date step by step inside transactions, and wraps statements so that values are always bound,
 * never pasted.
 *
 * A database made by a newer version is refused, not guessed at.
 *
 * Next: num/quant.c. */
#include "base/db.h"

#include "base/mem.h"

#include <sqlite3.h>
#include <stdio.h>

#define BUSY_MS 5000

struct db {
    sqlite3 *handle;
};

struct db_query {
    sqlite3_stmt *statement;
};

static enum err failed(sqlite3 *h, const char *what)
{
    return err_set(sqlite3_errcode(h) == SQLITE_BUSY ? ERR_BUSY : ERR_IO, "database: %s: %s", what,
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

static enum err migrate(struct db *d, const char *path, const char *const *steps, int version)
{
    int have = 0;
    TRY(read_version(d, &have));
    REQUIRE(have <= version, ERR_UNSUPPORTED,
            "%s: made by a newer version (schema %d, this program knows %d)", path, have, version);
    for (; have < version; have++) {
        char set[64];
        snprintf(set, sizeof set, "PRAGMA user_version = %d", have + 1);
        TRY(db_exec(d, "BEGIN IMMEDIATE"));
        enum err e = db_exec(d, steps[have]);
        e = e == ERR_OK ? db_exec(d, set) : e;
        if (e != ERR_OK) {
            (void)sqlite3_exec(d->handle, "ROLLBACK", NULL, NULL, NULL);
            return e;
        }
        TRY(db_exec(d, "COMMIT"));
    }
    return ERR_OK;
}

static enum err configure(struct db *d, const char *path, const char *const *steps, int version)
{
    sqlite3_busy_timeout(d->handle, BUSY_MS);
    TRY(db_exec(d, "PRAGMA journal_mode = WAL"));
    TRY(db_exec(d, "PRAGMA synchronous = FULL"));
    TRY(db_exec(d, "PRAGMA foreign_keys = ON"));
    return migrate(d, path, steps, version);
}

enum err db_open(struct db **out, const char *path, const char *const *steps, int version)
{
    struct db *d = mem_alloc(sizeof *d);
    REQUIRE(d != NULL, ERR_MEMORY, "%s: no memory", path);
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    enum err e = ERR_OK;
    if (sqlite3_open_v2(path, &d->handle, flags, NULL) != SQLITE_OK) {
        e = err_set(ERR_IO, "%s: cannot open: %s", path,
                    d->handle != NULL ? sqlite3_errmsg(d->handle) : "no memory");
    }
    e = e == ERR_OK ? configure(d, path, steps, version) : e;
    if (e != ERR_OK) {
        db_close(d);
        return e;
    }
    *out = d;
    return ERR_OK;
}

void db_close(struct db *d)
{
    if (d != NULL) {
        sqlite3_close(d->handle);
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
