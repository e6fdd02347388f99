/* db - the box's small durable state: SQLite behind a few functions (base/db.c, the only file that
 * knows SQLite). WAL, STRICT tables, synchronous=FULL. One connection belongs to one thread. */
#ifndef HEARTH_DB_H
#define HEARTH_DB_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct db;
struct db_query;

/* Opens or makes the file and brings its schema to `version` by running steps[i] for each version
 * the file lacks (steps[0] makes version 1). A newer file is ERR_UNSUPPORTED. */
enum err db_open(struct db **out, const char *path, const char *const *steps, int version) MUST_USE;
void db_close(struct db *d);                              /* accepts NULL */
enum err db_exec(struct db *d, const char *sql) MUST_USE; /* statements without results */

/* args: one letter per ? in sql: 's' struct view*, 'i' int64_t*, 'n' NULL.  Values are copied. */
enum err db_query_open(struct db_query **out, struct db *d, const char *sql, const char *args,
                       const void *const *values) MUST_USE;
/* Steps to the next row; *has_row false: there is none. */
enum err db_query_next(struct db_query *q, bool *has_row) MUST_USE;
int64_t db_int(struct db_query *q, int column);
struct view db_text(struct db_query *q, int column); /* borrowed until the next step */
void db_query_close(struct db_query *q);             /* accepts NULL */

#endif
