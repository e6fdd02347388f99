/* store - the models on this box: blobs named by their SHA-256 and an index
 *
 * A model is a name and one or more blobs. Blobs are named by their content, so two names for the
 * same bytes cost the disk once, a damaged file can be told from a sound one without asking
 * anybody, and nothing ever has to be written twice. A blob comes into being in the partial folder,
 * is hashed while it is written, synced and then renamed; so whatever has its final name is whole,
 * also after a power cut (ST-1). A model enters the index only when its files open as one.
 *
 * The index lies in SQLite: what a model is called, where it came from, under which licence, when.
 *
 * Split models need file names of a certain form beside each other, which blobs do not have. For
 * them a folder of symbolic links is kept in sets/; it can be made again at any time.
 *
 * Rejected: hard links to the user's file (who writes to it would change the store) and reading
 * other programs' caches in place (they may delete what we serve).
 *
 * Invariants ST-1 to ST-3 stand in store.h. Next: cmd/store_blob.c. */
#include "cmd/store.h"

#include "base/db.h"
#include "base/mem.h"
#include "base/os.h"
#include "cmd/known.h"
#include "cmd/store_look.h"
#include "model/gguf.h"
#include "model/image.h"
#include "model/weights.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROVENANCE_MAX 65536
#define RESUME_S       (7 * 24 * 3600)
#define LOCK_TRIES     50 /* who asks store_is_busy has the lock for a moment */
#define LOCK_WAIT_MS   10
#define ORPHAN         "orphan-"
#define STORE_IMAGE_AT 1000000 /* the image's number among a model's files, behind all parts */
#define IMAGES_OF      "i >= ? AND name IN (SELECT name FROM file WHERE digest = ?)"

struct store {
    struct db *db;
    char *root; /* owns; DATA/models */
    char *partial;
    int lock_fd;                /* -1 without */
    char refused[ERR_TEXT_MAX]; /* why nothing can be written here; "" when it can */
};

#define MODEL_COLUMNS "name, source, licence, time, provenance" /* as read_model takes them */
static const char *const schema[] = {
    "CREATE TABLE model (name TEXT PRIMARY KEY, source TEXT NOT NULL, licence TEXT NOT NULL,"
    " time INTEGER NOT NULL, provenance TEXT NOT NULL) STRICT;"
    "CREATE TABLE file (name TEXT NOT NULL REFERENCES model(name) ON DELETE CASCADE,"
    " i INTEGER NOT NULL, digest TEXT NOT NULL, bytes INTEGER NOT NULL, title TEXT NOT NULL,"
    " PRIMARY KEY (name, i)) STRICT;"
    "CREATE INDEX file_digest ON file(digest);",
};
#define SCHEMA_VERSION 1

/* --- open and close */

static char *join(const char *a, const char *b)
{
    struct buf text;
    buf_init(&text, OS_PATH_BYTES);
    buf_printf(&text, "%s/%s", a, b);
    char *out = text.is_full ? NULL : mem_strdup(text.p, text.n);
    buf_release(&text);
    return out;
}

/* An empty file is no index either: SQLite leaves one when it cannot fill it. */
static bool is_missing(const char *path)
{
    struct stat s;
    return stat(path, &s) != 0 ? errno == ENOENT : S_ISREG(s.st_mode) && s.st_size == 0;
}

/* Where they cannot be made there is still something to read, or nothing to be read. */
static enum err make_folders(struct store *st, const char *blobs)
{
    enum err e = os_make_dirs(blobs);
    e = e == ERR_OK ? os_make_dirs(st->partial) : e;
    if (e == ERR_IO) {
        char text[ERR_TEXT_MAX];
        snprintf(text, sizeof text, "%s", err_text());
        e = err_set(e, "%s; models are kept there: mend that, or " STORE_ELSEWHERE, text);
    }
    if (e == ERR_IO && (is_missing(blobs) || is_missing(st->partial))) {
        snprintf(st->refused, sizeof st->refused, "%s", err_text());
        return ERR_OK;
    }
    return e;
}

/* Where no index can be made there is none: an empty one in memory serves those who read. */
static enum err open_index(struct store *st, const char *path)
{
    enum err e = st->refused[0] != '\0' && is_missing(path)
                     ? ERR_IO
                     : db_open(&st->db, path, schema, SCHEMA_VERSION);
    if (e == ERR_IO && is_missing(path)) {
        if (st->refused[0] == '\0') {
            snprintf(st->refused, sizeof st->refused, "%s", err_text());
        }
        e = db_open(&st->db, ":memory:", schema, SCHEMA_VERSION);
    }
    if (e == ERR_IO) {
        char text[ERR_TEXT_MAX];
        snprintf(text, sizeof text, "%s", err_text());
        e = err_set(e, "%s; mend that, or " STORE_ELSEWHERE, text);
    }
    return e == ERR_OK ? e
                       : err_at(e, "the index of the model store%s",
                                e == ERR_INTEGRITY ? " (the models' files are whole: pull them "
                                                     "again when it is made anew)"
                                                   : "");
}

static enum err open_in(struct store *st, const char *data)
{
    char *db_path = join(data, "hearth.db");
    st->root = join(data, "models");
    st->partial = st->root != NULL ? join(st->root, "partial") : NULL;
    char *blobs = st->root != NULL ? join(st->root, "blobs") : NULL;
    enum err e = db_path != NULL && st->partial != NULL && blobs != NULL
                     ? ERR_OK
                     : err_set(ERR_LIMIT, "%.64s...: the data folder's name is too long", data);
    e = e == ERR_OK ? make_folders(st, blobs) : e;
    e = e == ERR_OK ? open_index(st, db_path) : e;
    mem_free(db_path);
    mem_free(blobs);
    return e;
}

enum err store_open(struct store **out)
{
    struct buf data;
    buf_init(&data, OS_PATH_BYTES);
    enum err e = os_dir(OS_DIR_DATA, &data);
    struct store *st = mem_alloc(sizeof *st);
    if (st != NULL) {
        st->lock_fd = -1;
    } else {
        e = err_set(ERR_MEMORY, "no memory to open the model store");
    }
    e = e == ERR_OK ? open_in(st, buf_str(&data)) : e;
    buf_release(&data);
    if (e != ERR_OK) {
        store_close(st);
        return e;
    }
    *out = st;
    return ERR_OK;
}

static void clear_partial(struct store *st);

void store_close(struct store *st)
{
    if (st == NULL) {
        return;
    }
    if (st->lock_fd >= 0) {
        clear_partial(st);
        close(st->lock_fd);
    }
    db_close(st->db);
    mem_free(st->root);
    mem_free(st->partial);
    mem_free(st);
}

void store_walk_open(struct store_walk *w, const char *folder)
{
    w->folder = folder;
    w->dir = opendir(folder);
}

bool store_walk_next(struct store_walk *w)
{
    for (const struct dirent *x = NULL; w->dir != NULL && (x = readdir(w->dir)) != NULL;) {
        w->name = view_of(x->d_name);
        snprintf(w->path, sizeof w->path, "%s/%s", w->folder, x->d_name);
        if (!view_is(w->name, ".") && !view_is(w->name, "..") && lstat(w->path, &w->s) == 0) {
            return true;
        }
    }
    if (w->dir != NULL) {
        closedir(w->dir);
    }
    return false;
}

static void remove_below(const char *folder, int depth)
{
    struct store_walk w;
    if (depth < STORE_TREE_DEPTH) {
        store_walk_open(&w, folder);
        while (store_walk_next(&w)) {
            if (S_ISDIR(w.s.st_mode)) {
                remove_below(w.path, depth + 1);
            } else {
                unlink(w.path);
            }
        }
    }
    rmdir(folder);
}

void store_remove_tree(const char *folder)
{
    remove_below(folder, 0);
}

static uint64_t bytes_below(const char *folder, int depth)
{
    uint64_t n = 0;
    struct store_walk w;
    if (depth < STORE_TREE_DEPTH) {
        store_walk_open(&w, folder);
        while (store_walk_next(&w)) {
            n += S_ISDIR(w.s.st_mode)   ? bytes_below(w.path, depth + 1)
                 : S_ISREG(w.s.st_mode) ? (uint64_t)w.s.st_size
                                        : 0;
        }
    }
    return n;
}

uint64_t store_tree_bytes(const char *folder)
{
    return bytes_below(folder, 0);
}

/* The digest behind a prefix, or NULL when the name is not made so. It becomes part of the paths of
 * what is removed. */
static const char *digest_behind(const char *prefix, const char *name)
{
    const size_t n = strlen(prefix);
    const bool is_digest = strncmp(name, prefix, n) == 0 && strlen(name + n) == 64 &&
                           strspn(name + n, "0123456789abcdef") == 64;
    return is_digest ? name + n : NULL;
}

/* The digest of "sha256-HEX", or NULL. */
static const char *digest_of(const char *name)
{
    return digest_behind("sha256-", name);
}

/* Whether more than n models have the file. */
static enum err is_used(struct store *st, const char *digest, int64_t n, bool *used)
{
    struct db_query *q = NULL;
    const struct view v = view_of(digest);
    const void *args[] = { &v, &n };
    TRY(db_query_open(&q, st->db,
                      "SELECT 1 FROM file WHERE digest = ? GROUP BY name LIMIT 1 OFFSET ?", "si",
                      args));
    const enum err e = db_query_next(q, used);
    db_query_close(q);
    return e;
}

/* Notes that a file may soon be without a model: written before the step, in the partial folder. A
 * process that is killed there leaves them to whoever locks the store next (ST-3). */
void store_note_orphan(const struct store *st, const char *digest)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/" ORPHAN "%s", st->partial, digest);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) { /* without room for it the file is told by verify */
        close(fd);
    }
}

static void note_orphans(const struct store *st, const struct store_model *m)
{
    for (size_t i = 0; i < m->n_blob; i++) {
        store_note_orphan(st, m->files[i].digest);
    }
}

/* Removes a file that no model has, with the links of its set; whether the file is gone. */
static bool remove_unused(const struct store *st, const char *digest)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/sets/%s", st->root, digest);
    store_remove_tree(path);
    snprintf(path, sizeof path, "%s/blobs/sha256-%s", st->root, digest);
    return unlink(path) == 0;
}

/* Looks after one note: a file that no model has goes. */
static void clear_orphan(struct store *st, const char *digest, const char *note)
{
    bool used = true;
    if (is_used(st, digest, 0, &used) != ERR_OK) {
        return;
    }
    if (!used) {
        (void)remove_unused(st, digest);
    }
    unlink(note);
}

/* What was being written when its process was killed: a blob, or os_write_file's. */
static bool is_half_written(struct view name)
{
    return view_starts(name, VIEW(STORE_NEW)) || view_find(name, VIEW("." STORE_NEW), 0) < name.n;
}

/* What a pull or rm left that was killed. What can be resumed (downloads, whole wheels) has a week
 * for that. */
static void clear_partial(struct store *st)
{
    struct store_walk w;
    store_walk_open(&w, st->partial);
    while (store_walk_next(&w)) {
        const char *orphan = digest_behind(ORPHAN, w.name.p);
        if (S_ISDIR(w.s.st_mode)) {
            store_remove_tree(w.path);
        } else if (orphan != NULL) {
            clear_orphan(st, orphan, w.path);
        } else if (is_half_written(w.name) || view_ends(w.name, VIEW(".log")) ||
                   w.s.st_mtime < (time_t)os_wall_s() - RESUME_S) {
            unlink(w.path);
        }
    }
}

enum err store_lock(struct store *st)
{
    char path[OS_PATH_BYTES];
    REQUIRE(st->refused[0] == '\0', ERR_IO, "%s", st->refused);
    snprintf(path, sizeof path, "%s/lock", st->root);
    st->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(st->lock_fd >= 0, ERR_IO,
            "%s: %s; whoever changes the store needs it: mend that, or " STORE_ELSEWHERE, path,
            strerror(errno));
    bool is_ours = false;
    for (int i = 0; i < LOCK_TRIES && !is_ours; i++) {
        is_ours =
            flock(st->lock_fd, LOCK_EX | LOCK_NB) == 0 || (poll(NULL, 0, LOCK_WAIT_MS), false);
    }
    if (!is_ours) {
        close(st->lock_fd);
        st->lock_fd = -1;
        return err_set(ERR_BUSY,
                       "%s: another hearth is changing the model store; try again when it is done",
                       path);
    }
    clear_partial(st);
    return ERR_OK;
}

enum err store_check(const struct store *st)
{
    char path[OS_PATH_BYTES];
    const size_t n_data = strlen(st->root) - strlen("/models");
    snprintf(path, sizeof path, "%.*s/hearth.db", (int)n_data, st->root);
    TRY(store_look_file(path));
    snprintf(path, sizeof path, "%s/blobs", st->root);
    TRY(store_look_folder(path));
    return store_look_folder(st->partial);
}

bool store_is_busy(const struct store *st)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/lock", st->root);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const bool is_busy = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0) {
        close(fd);
    }
    return is_busy;
}

size_t store_unfinished(const struct store *st, uint64_t *bytes)
{
    struct store_walk w;
    size_t n = 0;
    *bytes = 0;
    store_walk_open(&w, st->partial);
    while (store_walk_next(&w)) {
        const bool is_folder = S_ISDIR(w.s.st_mode);
        if (is_folder || view_ends(w.name, VIEW(".part")) || view_ends(w.name, VIEW(".whl")) ||
            is_half_written(w.name)) {
            n++;
            *bytes += is_folder ? store_tree_bytes(w.path) : (uint64_t)w.s.st_size;
        }
    }
    return n;
}

const char *store_partial(const struct store *st)
{
    return st->partial;
}

void store_model_clear(struct store_model *m)
{
    buf_release(&m->provenance);
    mem_free(m->files);
    *m = (struct store_model){ 0 };
}

bool store_name_is_good(const char *name)
{
    const size_t n = strlen(name);
    for (size_t i = 0; i < n; i++) {
        const char c = name[i];
        const bool is_plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_plain && (i == 0 || strchr("._-:", c) == NULL)) {
            return false;
        }
    }
    return n > 0 && n <= 100;
}

/* --- the index */

/* Copies a column into text[n]; what is too long is cut. */
static void copy_text(char *text, size_t n, struct view v)
{
    snprintf(text, n, "%.*s", (int)(v.n < n ? v.n : n), v.n > 0 ? v.p : "");
}

/* Names and digests become parts of paths and of what is shown. */
static enum err check_index(const struct store *st, bool is_good, const char *what,
                            const char *text)
{
    REQUIRE(
        is_good, ERR_INTEGRITY,
        "the index of the model store: \"%.100s\" is no %s; remove hearth.db beside %s and pull "
        "the models again",
        text, what, st->root);
    return ERR_OK;
}

static enum err read_files(struct store *st, struct store_model *m)
{
    struct db_query *q = NULL;
    const struct view name = view_of(m->name);
    const void *args[] = { &name };
    bool has_row = false;
    m->files = mem_alloc_array(STORE_PART_MAX + 1, sizeof m->files[0]);
    REQUIRE(m->files != NULL, ERR_MEMORY, "no memory to read the index");
    TRY(db_query_open(&q, st->db,
                      "SELECT digest, bytes, title, i FROM file WHERE name = ? ORDER BY i", "s",
                      args));
    enum err e = db_query_next(q, &has_row);
    while (e == ERR_OK && has_row && m->n_blob == m->n_file && m->n_blob <= STORE_PART_MAX) {
        const bool is_image = db_int(q, 3) >= STORE_IMAGE_AT;
        struct store_file *f = &m->files[m->n_blob++];
        m->n_file += !is_image;
        copy_text(f->digest, sizeof f->digest, db_text(q, 0));
        e = check_index(st, digest_behind("", f->digest) != NULL, "digest", f->digest);
        f->bytes = (uint64_t)db_int(q, 1);
        copy_text(f->title, sizeof f->title, db_text(q, 2));
        m->bytes += is_image ? 0 : f->bytes;
        e = e == ERR_OK ? db_query_next(q, &has_row) : e;
    }
    db_query_close(q);
    return e == ERR_OK ? check_index(st, m->n_file > 0, "model with files", m->name) : e;
}

/* The model of a query's first row. */
static enum err read_model(struct store *st, struct db_query *q, struct store_model *m, bool *found)
{
    TRY(db_query_next(q, found));
    if (!*found) {
        return ERR_OK;
    }
    copy_text(m->name, sizeof m->name, db_text(q, 0));
    TRY(check_index(st, store_name_is_good(m->name), "name", m->name));
    copy_text(m->source, sizeof m->source, db_text(q, 1));
    copy_text(m->licence, sizeof m->licence, db_text(q, 2));
    m->time_s = db_int(q, 3);
    buf_init(&m->provenance, PROVENANCE_MAX);
    buf_add_view(&m->provenance, db_text(q, 4));
    return read_files(st, m);
}

enum err store_after(struct store *st, const char *name, struct store_model *m, bool *found)
{
    struct db_query *q = NULL;
    const struct view v = view_of(name);
    const void *args[] = { &v };
    TRY(db_query_open(&q, st->db,
                      "SELECT " MODEL_COLUMNS " FROM model WHERE name > ?"
                      " ORDER BY name LIMIT 1",
                      "s", args));
    const enum err e = read_model(st, q, m, found);
    db_query_close(q);
    return e;
}

/* By its whole name, or by the part before the colon when that fits one model only. */
static enum err find(struct store *st, const char *name, struct store_model *m, bool *found)
{
    struct db_query *q = NULL;
    const struct view v = view_of(name);
    const void *args[] = { &v, &v, &v };
    if (!store_name_is_good(name)) {
        *found = false;
        return ERR_OK;
    }
    TRY(db_query_open(&q, st->db,
                      "SELECT " MODEL_COLUMNS " FROM model WHERE name = ?"
                      " OR (substr(name, 1, instr(name, ':') - 1) = ? AND 1 = (SELECT count(*) FROM"
                      " model WHERE substr(name, 1, instr(name, ':') - 1) = ?))"
                      " ORDER BY length(name) LIMIT 1",
                      "sss", args));
    const enum err e = read_model(st, q, m, found);
    db_query_close(q);
    return e;
}

enum err store_find(struct store *st, const char *name, struct store_model *m)
{
    bool found = false;
    TRY(find(st, name, m, &found));
    REQUIRE(found || known_find(name) == NULL, ERR_NOT_FOUND,
            "model %s is not in the store yet; run: hearth pull %s", name, name);
    const struct known *near = known_near(name);
    struct stat s;
    const char *what = stat(name, &s) != 0  ? "neither a file nor a model"
                       : S_ISDIR(s.st_mode) ? "a folder and no model"
                                            : "a file and no model";
    REQUIRE(found, ERR_NOT_FOUND, "\"%.100s\" is %s in the store; %s%s%s", name, what,
            near != NULL ? "did you mean " : "hearth list shows what there is",
            near != NULL ? near->name : "", near != NULL ? "?" : "");
    return ERR_OK;
}

/* Runs a statement whose arguments are bound. */
static enum err run(struct store *st, const char *sql, const char *kinds, const void *const *args)
{
    struct db_query *q = NULL;
    bool has_row = false;
    TRY(db_query_open(&q, st->db, sql, kinds, args));
    const enum err e = db_query_next(q, &has_row);
    db_query_close(q);
    return e;
}

static enum err put_rows(struct store *st, const struct store_model *m)
{
    const struct view name = view_of(m->name);
    const struct view source = view_of(m->source);
    const struct view licence = view_of(m->licence);
    const struct view provenance = buf_view(&m->provenance);
    const void *key[] = { &name };
    const void *row[] = { &name, &source, &licence, &m->time_s, &provenance };
    TRY(run(st, "DELETE FROM model WHERE name = ?", "s", key));
    TRY(run(st, "INSERT INTO model VALUES (?, ?, ?, ?, ?)", "sssis", row));
    for (size_t i = 0; i < m->n_blob; i++) {
        const struct view digest = view_of(m->files[i].digest);
        const struct view title = view_of(m->files[i].title);
        const int64_t at = i < m->n_file ? (int64_t)i : STORE_IMAGE_AT;
        const int64_t bytes = (int64_t)m->files[i].bytes;
        const void *file[] = { &name, &at, &digest, &bytes, &title };
        TRY(run(st, "INSERT INTO file VALUES (?, ?, ?, ?, ?)", "sisis", file));
    }
    return ERR_OK;
}

static enum err in_transaction(struct store *st, enum err e)
{
    if (e == ERR_OK) {
        return db_exec(st->db, "COMMIT");
    }
    char text[ERR_TEXT_MAX]; /* the roll-back may fail in its own words */
    snprintf(text, sizeof text, "%s", err_text());
    const enum err undone = db_exec(st->db, "ROLLBACK");
    (void)undone;
    return err_set(e, "%s", text);
}

static void set_folder(const struct store *st, const char *digest, struct buf *out)
{
    buf_printf(out, "%s/sets/%s", st->root, digest);
}

/* The name of part i in a set. */
static void set_name(const struct store *st, const struct store_model *m, size_t i, struct buf *out)
{
    char tail[GGUF_SPLIT_TAIL + 1];
    gguf_part_tail(i + 1, m->n_file, tail);
    set_folder(st, m->files[0].digest, out);
    buf_printf(out, "/model%s", tail);
}

static void remove_set(const struct store *st, const struct store_model *m)
{
    struct buf path;
    buf_init(&path, OS_PATH_BYTES);
    for (size_t i = 0; i < m->n_file; i++) {
        buf_reset(&path);
        set_name(st, m, i, &path);
        unlink(buf_str(&path));
    }
    buf_reset(&path);
    set_folder(st, m->files[0].digest, &path);
    rmdir(buf_str(&path));
    buf_release(&path);
}

/* Removes the files of m that no more than n_user models have. */
static enum err sweep(struct store *st, const struct store_model *m, int64_t n_user,
                      uint64_t *freed_bytes)
{
    struct buf path;
    buf_init(&path, OS_PATH_BYTES);
    enum err e = ERR_OK;
    for (size_t i = 0; i < m->n_blob && e == ERR_OK; i++) {
        bool used = false;
        e = is_used(st, m->files[i].digest, n_user, &used);
        if (e == ERR_OK && !used) {
            buf_reset(&path);
            store_blob_path(st, m->files[i].digest, &path);
            if (i == 0 && m->n_file > 1) {
                remove_set(st, m);
            }
            if (unlink(buf_str(&path)) == 0) {
                *freed_bytes += m->files[i].bytes;
            } else if (errno != ENOENT) {
                e = err_set(ERR_IO, "%s: cannot remove: %s", buf_str(&path), strerror(errno));
            }
        }
    }
    buf_release(&path);
    return e;
}

/* Links with the names that gguf_open looks for; made anew when one is missing. */
static enum err make_set(const struct store *st, const struct store_model *m)
{
    struct buf path;
    struct buf target;
    buf_init(&path, OS_PATH_BYTES);
    buf_init(&target, OS_PATH_BYTES);
    set_folder(st, m->files[0].digest, &path);
    enum err e = os_make_dirs(buf_str(&path));
    for (size_t i = 0; i < m->n_file && e == ERR_OK; i++) {
        buf_reset(&path);
        buf_reset(&target);
        set_name(st, m, i, &path);
        buf_printf(&target, "../../blobs/sha256-%s", m->files[i].digest);
        if (symlink(buf_str(&target), buf_str(&path)) != 0 && errno != EEXIST) {
            e = err_set(ERR_IO, "%s: cannot make a link: %s", buf_str(&path), strerror(errno));
        }
    }
    buf_release(&path);
    buf_release(&target);
    return e;
}

/* The model must open; its licence is taken from the file when nobody said another. */
static enum err check_model(struct store *st, struct store_model *m)
{
    struct buf path;
    struct gguf *g = NULL;
    struct view licence = VIEW("unknown");
    buf_init(&path, OS_PATH_BYTES);
    enum err e = ERR_OK;
    if (m->n_file > 1) {
        e = make_set(st, m);
        set_name(st, m, 0, &path);
    } else {
        store_blob_path(st, m->files[0].digest, &path);
    }
    e = e == ERR_OK ? gguf_open(&g, buf_str(&path)) : e;
    if (e == ERR_OK && m->licence[0] == '\0') {
        e = gguf_string(g, "general.license", &licence, NULL);
        struct buf plain;
        buf_init(&plain, sizeof m->licence - 1);
        utf8_plain(&plain, licence, SIZE_MAX, false);
        copy_text(m->licence, sizeof m->licence, buf_view(&plain));
        buf_release(&plain);
    }
    gguf_close(g);
    buf_release(&path);
    return e;
}

static bool has_same_files(const struct store_model *a, const struct store_model *b)
{
    bool is_same = a->n_file == b->n_file;
    for (size_t i = 0; is_same && i < a->n_file; i++) {
        is_same = strcmp(a->files[i].digest, b->files[i].digest) == 0;
    }
    return is_same;
}

enum err store_check_name(struct store *st, const struct store_model *m)
{
    struct store_model old = { 0 };
    bool has_old = false;
    const struct known *k = known_find(m->name);
    REQUIRE(k == NULL || strcmp(k->sha256, m->files[0].digest) == 0, ERR_USAGE,
            "%s is the name of a known model with other contents; give another one with --name",
            m->name);
    enum err e = find(st, m->name, &old, &has_old);
    if (e == ERR_OK && has_old && strcmp(old.name, m->name) == 0 &&
        strcmp(old.source, m->source) != 0 && !has_same_files(&old, m)) {
        e = err_set(ERR_USAGE,
                    "%s: another model has this name (it came from %.300s); give another one with "
                    "--name, or run first: hearth rm %s",
                    m->name, old.source, m->name);
    }
    store_model_clear(&old);
    return e;
}

enum err store_put(struct store *st, struct store_model *m)
{
    char text[ERR_TEXT_MAX];
    struct store_model old = { 0 };
    bool has_old = false;
    uint64_t freed = 0;
    enum err e = store_check_name(st, m);
    e = e == ERR_OK ? check_model(st, m) : e;
    if (e != ERR_OK) {
        snprintf(text, sizeof text, "%s", err_text());
        const enum err swept = sweep(st, m, 0, &freed);
        (void)swept; /* the first failure is the one to tell */
        return err_set(e, "%s", text);
    }
    e = find(st, m->name, &old, &has_old);
    has_old = has_old && strcmp(old.name, m->name) == 0;
    if (e == ERR_OK && has_old && m->n_blob == m->n_file && old.n_blob > old.n_file &&
        has_same_files(&old, m)) {
        m->files[m->n_blob++] = old.files[old.n_file];
    }
    if (e == ERR_OK) {
        note_orphans(st, &old);
        e = db_exec(st->db, "BEGIN IMMEDIATE");
        e = e == ERR_OK ? in_transaction(st, put_rows(st, m)) : e;
    }
    e = e == ERR_OK && has_old ? sweep(st, &old, 0, &freed) : e;
    store_model_clear(&old);
    return e;
}

enum err store_drop_images(struct store *st, const char *digest)
{
    struct db_query *q = NULL;
    const struct view v = view_of(digest);
    const int64_t at = STORE_IMAGE_AT;
    const void *args[] = { &at, &v };
    bool has_row = false;
    TRY(db_query_open(&q, st->db, "SELECT name, digest FROM file WHERE " IMAGES_OF, "is", args));
    enum err e = db_query_next(q, &has_row);
    while (e == ERR_OK && has_row) {
        char text[STORE_NAME_MAX];
        copy_text(text, sizeof text, db_text(q, 1));
        store_note_orphan(st, text); /* store_close removes it */
        copy_text(text, sizeof text, db_text(q, 0));
        fprintf(stderr,
                "hearth: the packed image of %s may have been made of it and goes; make it again: "
                "hearth pull --pack %s\n",
                text, text);
        e = db_query_next(q, &has_row);
    }
    db_query_close(q);
    return e == ERR_OK ? run(st, "DELETE FROM file WHERE " IMAGES_OF, "is", args) : e;
}

enum err store_unnamed(struct store *st, store_unnamed_fn *fn, void *arg)
{
    struct buf path;
    struct stat s;
    buf_init(&path, OS_PATH_BYTES);
    buf_printf(&path, "%s/blobs", st->root);
    DIR *d = opendir(buf_str(&path));
    enum err e = d != NULL || errno == ENOENT
                     ? ERR_OK
                     : err_set(ERR_IO, "%s: %s", buf_str(&path), strerror(errno));
    for (const struct dirent *x = NULL; d != NULL && e == ERR_OK && (x = readdir(d)) != NULL;) {
        const char *digest = digest_of(x->d_name);
        bool used = true;
        e = digest != NULL ? is_used(st, digest, 0, &used) : ERR_OK;
        if (e == ERR_OK && !used && fstatat(dirfd(d), x->d_name, &s, 0) == 0) {
            struct store_file f = { .bytes = (uint64_t)s.st_size };
            copy_text(f.digest, sizeof f.digest, view_of(digest));
            fn(arg, &f);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    buf_release(&path);
    return e;
}

/* A blob that no model has goes by its own name. */
static enum err remove_blob(struct store *st, const char *name, uint64_t *freed_bytes)
{
    char path[OS_PATH_BYTES];
    struct stat s;
    bool used = false;
    TRY(is_used(st, digest_of(name), 0, &used));
    REQUIRE(!used, ERR_USAGE, "%s: a model has this file; hearth show MODEL lists its files", name);
    snprintf(path, sizeof path, "%s/blobs/%s", st->root, name);
    REQUIRE(stat(path, &s) == 0, ERR_NOT_FOUND, "%s: no such file in the store", name);
    REQUIRE(remove_unused(st, digest_of(name)), ERR_IO, "%s: cannot remove: %s", name,
            strerror(errno));
    *freed_bytes = (uint64_t)s.st_size;
    return ERR_OK;
}

/* A model of which nothing could be removed stays; e is why, and its text stays, too. */
static enum err put_back(struct store *st, const struct store_model *m, enum err e)
{
    char text[ERR_TEXT_MAX];
    snprintf(text, sizeof text, "%s", err_text());
    enum err back = db_exec(st->db, "BEGIN IMMEDIATE");
    back = back == ERR_OK ? in_transaction(st, put_rows(st, m)) : back;
    return err_set(e, "%s; %s", text, back == ERR_OK ? "the model stays" : "pull the model again");
}

enum err store_remove(struct store *st, const char *name, uint64_t *freed_bytes)
{
    struct store_model m = { 0 };
    if (digest_of(name) != NULL) {
        return remove_blob(st, name, freed_bytes);
    }
    enum err e = store_find(st, name, &m);
    if (e == ERR_OK) {
        const struct view v = view_of(m.name);
        const void *args[] = { &v };
        const char *sql = "DELETE FROM model WHERE name = ?";
        note_orphans(st, &m);
        e = run(st, sql, "s", args);
        if (e == ERR_IO && sweep(st, &m, 1, freed_bytes) == ERR_OK && *freed_bytes > 0) {
            e = run(st, sql, "s", args); /* the disk was full: the files made room for this */
        }
    }
    if (e == ERR_OK) {
        e = sweep(st, &m, 0, freed_bytes);
        e = e != ERR_OK && *freed_bytes == 0 ? put_back(st, &m, e) : e;
    }
    store_model_clear(&m);
    return e;
}

/* --- names to paths */

enum err store_path(struct store *st, const struct store_model *m, struct buf *path)
{
    for (size_t i = 0; i < m->n_file; i++) {
        REQUIRE(store_has_blob(st, &m->files[i]), ERR_INTEGRITY,
                "model %s: file sha256-%s is missing or has another size; run: hearth pull %s",
                m->name, m->files[i].digest, m->name);
    }
    if (m->n_file > 1) {
        TRY(make_set(st, m));
        set_name(st, m, 0, path);
    } else {
        store_blob_path(st, m->files[0].digest, path);
    }
    return buf_check(path, "model path");
}

bool store_has_image(const struct store *st, const struct store_model *m, const char **why)
{
    char layout[65];
    struct buf path;
    const struct store_file *f = &m->files[m->n_file];
    *why = NULL;
    if (m->n_blob == m->n_file) {
        return false;
    }
    buf_init(&path, OS_PATH_BYTES);
    store_blob_path(st, f->digest, &path);
    if (weights_generation(layout) != ERR_OK || strncmp(f->title, layout, 64) != 0 ||
        f->title[64] != '.') {
        *why = "was made for another version of hearth";
    } else if (!store_has_blob(st, f)) {
        *why = "is missing or has another size";
    } else if (!image_begins(buf_str(&path), f->title + 65)) {
        *why = "cannot be read or has another header than it was written with";
    }
    buf_release(&path);
    return *why == NULL;
}

/* The image, when there is one to be used, else the GGUF file. */
static enum err resolve_name(struct store *st, const char *model, bool has_use, struct buf *path)
{
    struct store_model m = { 0 };
    const char *why = NULL;
    enum err e = store_find(st, model, &m);
    if (e != ERR_OK) {
        store_model_clear(&m);
        return e;
    }
    if (has_use && store_has_image(st, &m, &why)) {
        store_blob_path(st, m.files[m.n_file].digest, path);
        e = buf_check(path, "model path");
    } else {
        e = store_path(st, &m, path);
    }
    if (why != NULL) {
        fprintf(stderr,
                "hearth: the packed image of %s %s, the GGUF file is read instead; make it "
                "again: hearth pull --pack %s\n",
                m.name, why, m.name);
    }
    store_model_clear(&m);
    return e;
}

bool store_is_file(const char *model)
{
    struct stat s;
    return stat(model, &s) == 0 && !S_ISDIR(s.st_mode);
}

enum err store_resolve(const char *model, bool has_use, struct buf *path)
{
    struct stat s;
    const int why = stat(model, &s) == 0 ? 0 : errno;
    if (why == 0 && !S_ISDIR(s.st_mode)) {
        buf_add_str(path, model);
        return buf_check(path, "model path");
    }
    REQUIRE(why == 0 || why == ENOENT || why == ENOTDIR || why == ENAMETOOLONG, ERR_IO,
            "%.200s: %s", model, strerror(why));
    REQUIRE(store_name_is_good(model) && !view_ends(view_of(model), VIEW(".gguf")), ERR_NOT_FOUND,
            "%.200s: %s", model,
            why == 0 ? "is a folder; give the model file in it" : "no such file");
    struct store *st = NULL;
    TRY(store_open(&st));
    const enum err e = resolve_name(st, model, has_use, path);
    store_close(st);
    return e;
}

/* --- blobs */

void store_blob_path(const struct store *st, const char *digest, struct buf *out)
{
    buf_printf(out, "%s/blobs/sha256-%s", st->root, digest);
}

bool store_has_blob(const struct store *st, const struct store_file *f)
{
    struct buf path;
    struct stat s;
    buf_init(&path, OS_PATH_BYTES);
    store_blob_path(st, f->digest, &path);
    const bool is_there =
        stat(buf_str(&path), &s) == 0 && S_ISREG(s.st_mode) && (uint64_t)s.st_size == f->bytes;
    buf_release(&path);
    return is_there;
}
