/* store_show - list, show, rm and verify
 *
 * What the store holds and what a model file says about itself, for people and for scripts. The
 * JSON forms have the same facts as the text; their key "version" is 1 and would change with them.
 *
 * `show` is also the way to look at a file one does not trust: it reads the header only, through
 * the checked reader, prints nothing unescaped, and shortens what is long. Arrays are shown by
 * their type, length and first elements: a vocabulary of 260,000 words is nothing to print.
 *
 * `verify` reads every byte again: a disk that returns other bytes than were written is found here
 * and nowhere else. What there is no checksum of cannot be called sound, only readable.
 *
 * Next: cmd/main.c. */
#include "cmd/store_show.h"

#include "base/buf.h"
#include "base/js.h"
#include "base/os.h"
#include "cmd/known.h"
#include "cmd/progress.h"
#include "cmd/store.h"
#include "model/gguf.h"
#include "model/image.h"
#include "model/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define OUT_MAX    ((size_t)256 << 20)
#define SHOWN_TEXT 200 /* characters of a value in the text form */
#define SHOWN_JSON 8   /* elements of an array in the JSON form */
#define FAULT_MAX  (ERR_TEXT_MAX + STORE_NAME_MAX + 32)

/* --- small helpers */

static void date_of(int64_t time_s, char out[32])
{
    const time_t t = (time_t)time_s;
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        out[0] = '\0';
    }
}

/* "key":"text", with a comma in front unless it is the first of its object. */
static void put_field(struct buf *b, const char *key, struct view text)
{
    if (b->n > 0 && b->p[b->n - 1] != '{') {
        buf_add_char(b, ',');
    }
    js_put_string(b, view_of(key), false);
    buf_add_char(b, ':');
    js_put_string(b, text, false);
}

/* Text of one line for a terminal. */
static void put_plain(struct buf *b, const char *text)
{
    utf8_plain(b, view_of(text), SHOWN_TEXT, false);
}

/* What the index has may have been written by another program: null when it is no JSON. */
static void put_provenance(struct buf *b, const struct store_model *m)
{
    struct js *v = NULL;
    const enum err e = js_parse(buf_view(&m->provenance), 16, &v);
    buf_add_str(b, ",\"provenance\":");
    js_put_value(b, e == ERR_OK ? v : NULL);
    js_close(v);
}

/* The packed image, if there is one. why: it is not used, or NULL. */
static void put_image(struct buf *b, const struct store_model *m, const char *why)
{
    if (m->n_blob > m->n_file) {
        put_field(b, "image", view_of(m->files[m->n_file].digest));
        buf_printf(b, ",\"image_bytes\":%" PRIu64, m->files[m->n_file].bytes);
    }
    if (why != NULL) {
        put_field(b, "image_fault", view_of(why));
    }
}

static void text_fault(struct buf *b, const char *why)
{
    buf_printf(b, "%s%s\n", why != NULL ? ", not used: it " : "", why != NULL ? why : "");
}

static enum err print(struct buf *b)
{
    const enum err e = buf_check(b, "output");
    if (e == ERR_OK) {
        fwrite(b->p, 1, b->n, stdout);
    }
    buf_release(b);
    return e;
}

/* --- list */

static void list_json(struct buf *b, const struct store_model *m, const char *why)
{
    char date[32];
    date_of(m->time_s, date);
    buf_add_char(b, b->p[b->n - 1] == '[' ? '\n' : ',');
    buf_add_char(b, '{');
    put_field(b, "name", view_of(m->name));
    put_field(b, "digest", view_of(m->files[0].digest));
    buf_printf(b, ",\"bytes\":%" PRIu64 ",\"files\":%zu", m->bytes, m->n_file);
    put_field(b, "licence", view_of(m->licence));
    put_field(b, "source", view_of(m->source));
    put_field(b, "time", view_of(date));
    put_image(b, m, why);
    put_provenance(b, m);
    buf_add_str(b, "}\n");
}

static void list_text(struct buf *b, const struct store_model *m, const char *why)
{
    char date[32];
    char size[16];
    date_of(m->time_s, date);
    date[10] = '\0'; /* the day is enough */
    buf_printf(b, "%-32s %10s  ", m->name, progress_bytes(m->bytes, size));
    const size_t from = b->n;
    put_plain(b, m->licence);
    buf_printf(b, "%*s %s  ", b->n - from < 12 ? (int)(12 - (b->n - from)) : 0, "", date);
    put_plain(b, m->source);
    if (m->n_blob > m->n_file) {
        buf_printf(b, "  and a packed image, %s", progress_bytes(m->files[m->n_file].bytes, size));
    }
    text_fault(b, why);
}

/* The known names that the store does not have. */
static enum err list_known(struct store *st, struct buf *b, bool is_json)
{
    for (size_t i = 0; i < known_count(); i++) {
        const struct known *k = known_at(i);
        struct store_model m = { 0 };
        char size[16];
        const enum err e = store_find(st, k->name, &m);
        store_model_clear(&m);
        if (e != ERR_NOT_FOUND) {
            TRY(e);
            continue;
        }
        if (is_json) {
            buf_add_str(b, b->p[b->n - 1] == '[' ? "\n{" : ",{");
            put_field(b, "name", view_of(k->name));
            put_field(b, "digest", view_of(k->sha256));
            buf_printf(b, ",\"bytes\":%" PRIu64, k->bytes);
            put_field(b, "licence", view_of(k->licence));
            put_field(b, "licence_url", view_of(k->licence_url));
            buf_add_str(b, "}\n");
        } else {
            buf_printf(b, "%-32s %10s  %-12s not here; hearth pull %s\n", k->name,
                       progress_bytes(k->bytes, size), k->licence, k->name);
        }
    }
    return ERR_OK;
}

static enum err list_models(struct store *st, struct buf *b, bool is_json)
{
    bool found = true;
    char name[STORE_NAME_MAX] = "";
    while (found) {
        struct store_model m = { 0 };
        const enum err e = store_after(st, name, &m, &found);
        if (e == ERR_OK && found) {
            const char *why = NULL;
            memcpy(name, m.name, sizeof name);
            (void)store_has_image(st, &m, &why);
            (is_json ? list_json : list_text)(b, &m, why);
        }
        store_model_clear(&m);
        TRY(e);
    }
    return ERR_OK;
}

/* Halves of downloads; nothing when there are none. */
static void put_unfinished(const struct store *st, struct buf *b, bool is_json)
{
    uint64_t bytes = 0;
    char size[16];
    const size_t n = store_unfinished(st, &bytes);
    if (is_json) {
        buf_printf(b, ",\"unfinished\":{\"files\":%zu,\"bytes\":%" PRIu64 "}", n, bytes);
    } else if (n > 0) {
        buf_printf(b,
                   "unfinished: %zu file%s, %s, in %s; a pull of the same goes on with a download, "
                   "the next pull or rm removes what cannot go on or is older than a week\n",
                   n, n > 1 ? "s" : "", progress_bytes(bytes, size), store_partial(st));
    }
}

enum err store_cmd_list(bool is_json)
{
    struct store *st = NULL;
    struct buf b;
    TRY(store_open(&st));
    buf_init(&b, OUT_MAX);
    buf_add_str(&b, is_json ? "{\"version\":1,\"models\":[" : "");
    enum err e = list_models(st, &b, is_json);
    buf_add_str(&b, is_json ? "],\"known\":[" : "");
    e = e == ERR_OK ? list_known(st, &b, is_json) : e;
    buf_add_str(&b, is_json ? "]" : "");
    put_unfinished(st, &b, is_json);
    buf_add_str(&b, is_json ? "}\n" : "");
    store_close(st);
    if (e != ERR_OK) {
        buf_release(&b);
        return e;
    }
    return print(&b);
}

/* --- show */

struct count {
    uint64_t n_tensor;
    uint64_t n_elem;
    uint64_t bytes;
};

static uint64_t n_elem_of(const struct gguf_tensor *t)
{
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3]; /* checked by gguf_open */
}

static void count_types(const struct gguf *g, struct count types[QUANT_TYPE_COUNT],
                        struct count *all)
{
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        struct count *to[] = { &types[t->type], all };
        for (int k = 0; k < 2; k++) {
            to[k]->n_tensor++;
            to[k]->n_elem += n_elem_of(t);
            to[k]->bytes += t->bytes;
        }
    }
}

/* Parameters that one token uses; of what this program cannot run, all. */
static uint64_t active_of(const struct gguf *g, uint64_t n_param)
{
    struct arch a;
    struct weights w = { 0 };
    const bool is_bound = arch_read(&a, g) == ERR_OK && weights_bind(&w, &a, g) == ERR_OK;
    const uint64_t n = is_bound ? w.n_active : n_param;
    weights_release(&w);
    return n;
}

static void json_number(struct buf *b, const struct gguf_array *a, uint64_t i)
{
    int64_t v = 0;
    float f = 0.0f;
    if (a->type == GGUF_BOOL && gguf_array_int(a, i, &v)) {
        buf_add_str(b, v != 0 ? "true" : "false");
    } else if (gguf_array_int(a, i, &v)) {
        buf_printf(b, "%" PRId64, v);
    } else if (gguf_array_float(a, i, &f)) {
        js_put_real(b, (double)f);
    } else {
        buf_add_str(b, "null");
    }
}

static void json_array(struct buf *b, const struct gguf_array *a)
{
    struct gguf_string_iter it = { 0 };
    struct view s;
    buf_printf(b, "{\"n\":%" PRIu64 ",\"first\":[", a->n);
    for (uint64_t i = 0; i < a->n && i < SHOWN_JSON; i++) {
        buf_add_str(b, i > 0 ? "," : "");
        if (gguf_array_string(a, &it, &s)) {
            js_put_string(b, s, false);
        } else {
            json_number(b, a, i);
        }
    }
    buf_add_str(b, "]}");
}

/* The value of key i; numbers that JSON lacks (NaN, infinities) become null. */
static enum err json_value(const struct gguf *g, size_t i, const char *key, struct buf *b)
{
    enum gguf_type type;
    (void)gguf_key(g, i, &type);
    struct gguf_array a = { 0 };
    struct view s = { 0 };
    float f = 0.0f;
    if (type == GGUF_ARRAY) {
        TRY(gguf_array(g, key, &a, NULL));
        json_array(b, &a);
    } else if (type == GGUF_STRING) {
        TRY(gguf_string(g, key, &s, NULL));
        js_put_string(b, s, false);
    } else if (type == GGUF_F32 || type == GGUF_F64) {
        TRY(gguf_f32(g, key, &f, NULL));
        js_put_real(b, (double)f);
    } else {
        gguf_value_text(g, i, b);
    }
    return ERR_OK;
}

static enum err json_keys(const struct gguf *g, struct buf *b)
{
    buf_add_str(b, ",\"metadata\":{");
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        enum gguf_type type;
        const struct view key = gguf_key(g, i, &type);
        struct buf name;
        buf_init(&name, OUT_MAX);
        buf_add_view(&name, key);
        buf_add_str(b, i > 0 ? ",\n" : "\n");
        js_put_string(b, key, false);
        buf_add_char(b, ':');
        enum err e = ERR_OK;
        if (memchr(key.p, 0, key.n) != NULL) { /* cannot be asked for by name */
            buf_add_str(b, "null");
        } else {
            e = json_value(g, i, buf_str(&name), b);
        }
        buf_release(&name);
        TRY(e);
    }
    buf_add_str(b, "}");
    return ERR_OK;
}

static void json_tensors(const struct gguf *g, struct buf *b)
{
    buf_add_str(b, ",\"tensors\":[");
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        buf_add_str(b, i > 0 ? ",\n{" : "\n{");
        put_field(b, "name", t->name);
        put_field(b, "type", view_of(quant_get(t->type)->name));
        buf_add_str(b, ",\"shape\":[");
        for (uint32_t d = 0; d < t->n_dim; d++) {
            buf_printf(b, "%s%" PRIu64, d > 0 ? "," : "", t->dim[d]);
        }
        buf_printf(b, "],\"offset\":%" PRIu64 ",\"bytes\":%zu,\"file\":%d}", t->offset, t->bytes,
                   t->i_file);
    }
    buf_add_str(b, "]");
}

static enum err show_json(const struct gguf *g, const struct store_model *m, const char *why,
                          struct buf *b)
{
    struct count types[QUANT_TYPE_COUNT] = { 0 };
    struct count all = { 0 };
    bool is_first = true;
    count_types(g, types, &all);
    buf_add_str(b, "{\"version\":1");
    put_field(b, "path", view_of(gguf_path(g)));
    if (m->n_file > 0) {
        put_field(b, "name", view_of(m->name));
        put_field(b, "digest", view_of(m->files[0].digest));
        put_field(b, "licence", view_of(m->licence));
        put_field(b, "source", view_of(m->source));
        put_image(b, m, why);
        put_provenance(b, m);
    }
    buf_printf(b,
               ",\"gguf_version\":%u,\"bytes\":%" PRIu64 ",\"parameters\":%" PRIu64
               ",\"active_parameters\":%" PRIu64 ",\"types\":{",
               gguf_version(g), gguf_file_bytes(g), all.n_elem, active_of(g, all.n_elem));
    for (uint32_t t = 0; t < QUANT_TYPE_COUNT; t++) {
        if (types[t].n_tensor > 0) {
            buf_printf(b, "%s\"%s\":{\"tensors\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
                       is_first ? "" : ",", quant_get(t)->name, types[t].n_tensor, types[t].bytes);
            is_first = false;
        }
    }
    buf_add_str(b, "}");
    TRY(json_keys(g, b));
    json_tensors(g, b);
    buf_add_str(b, "}\n");
    return ERR_OK;
}

/* What opens a model: its file, of a name in the store one whose own name says nothing. */
static void text_path(const struct gguf *g, struct buf *b)
{
    buf_add_str(b, "file        ");
    utf8_plain(b, view_of(gguf_path(g)), SIZE_MAX, false);
    buf_add_char(b, '\n');
}

/* why: the image is not used, or NULL. */
static void text_origin(const struct gguf *g, const struct store_model *m, const char *why,
                        struct buf *b)
{
    char date[32];
    char size[16];
    date_of(m->time_s, date);
    buf_add_str(b, "licence     ");
    put_plain(b, m->licence);
    buf_add_str(b, "\nsource      ");
    put_plain(b, m->source);
    buf_printf(b, "\nstored      %s\n", date);
    text_path(g, b);
    for (size_t i = 0; i < m->n_file; i++) {
        buf_printf(b, "sha256      %s  ", m->files[i].digest);
        put_plain(b, m->files[i].title);
        buf_add_char(b, '\n');
    }
    if (m->n_blob > m->n_file) {
        const struct store_file *f = &m->files[m->n_file];
        buf_printf(b, "image       %s  %s", f->digest, progress_bytes(f->bytes, size));
        text_fault(b, why);
    }
}

static void show_text(const struct gguf *g, const struct store_model *m, const char *why,
                      struct buf *b)
{
    struct count types[QUANT_TYPE_COUNT] = { 0 };
    struct count all = { 0 };
    char size[64];
    count_types(g, types, &all);
    if (m->n_file > 0) {
        buf_printf(b, "name        %s\n", m->name);
    } else {
        text_path(g, b);
    }
    buf_printf(b, "format      %s version %u, %s\n",
               gguf_is_image(g) ? "packed image, directory of GGUF" : "GGUF", gguf_version(g),
               progress_bytes(gguf_file_bytes(g), size));
    if (m->n_file > 0) {
        text_origin(g, m, why, b);
    }
    buf_printf(b, "parameters  %s, in %zu tensors\n",
               progress_params(all.n_elem, active_of(g, all.n_elem), "", size), gguf_n_tensor(g));
    for (uint32_t t = 0; t < QUANT_TYPE_COUNT; t++) {
        if (types[t].n_tensor > 0) {
            buf_printf(b, "  %-9s %5" PRIu64 " tensors  %10s\n", quant_get(t)->name,
                       types[t].n_tensor, progress_bytes(types[t].bytes, size));
        }
    }
    buf_printf(b, "\n%zu keys\n", gguf_n_key(g));
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        enum gguf_type type;
        struct buf value;
        buf_init(&value, OUT_MAX);
        gguf_value_text(g, i, &value);
        buf_add_str(b, "  ");
        utf8_plain(b, gguf_key(g, i, &type), SHOWN_TEXT, false);
        buf_add_str(b, " = ");
        utf8_plain(b, buf_view(&value), SHOWN_TEXT, false);
        buf_add_char(b, '\n');
        buf_release(&value);
    }
    buf_printf(b, "\n%zu tensors\n", gguf_n_tensor(g));
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        buf_printf(b, "  %-8s", quant_get(t->type)->name);
        char shape[96];
        size_t n = 0;
        for (uint32_t d = 0; d < t->n_dim; d++) {
            n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%" PRIu64, d > 0 ? " x " : "",
                                  t->dim[d]);
        }
        buf_printf(b, " %-20s ", shape);
        utf8_plain(b, t->name, SHOWN_TEXT, false);
        buf_add_char(b, '\n');
    }
}

/* The store's row for a name; m stays empty for a file. *why: see store_has_image. */
static enum err find_row(const char *model, struct store_model *m, const char **why)
{
    struct store *st = NULL;
    if (store_is_file(model)) {
        return ERR_OK;
    }
    TRY(store_open(&st));
    const enum err e = store_find(st, model, m);
    if (e == ERR_OK) {
        (void)store_has_image(st, m, why);
    }
    store_close(st);
    return e;
}

enum err store_cmd_show(const char *model, const char *path, bool is_json)
{
    struct buf b;
    struct gguf *g = NULL;
    struct store_model m = { 0 };
    buf_init(&b, OUT_MAX);
    const char *why = NULL;
    enum err e = find_row(model, &m, &why);
    e = e == ERR_OK ? gguf_open(&g, path) : e;
    if (e == ERR_OK && is_json) {
        e = show_json(g, &m, why, &b);
    } else if (e == ERR_OK) {
        show_text(g, &m, why, &b);
    }
    store_model_clear(&m);
    gguf_close(g);
    if (e != ERR_OK) {
        buf_release(&b);
        return e;
    }
    return print(&b);
}

/* --- rm */

enum err store_cmd_rm(const char *model, bool is_json)
{
    struct store *st = NULL;
    uint64_t freed = 0;
    char size[16];
    TRY(store_open(&st));
    enum err e = store_lock(st);
    e = e == ERR_OK ? store_remove(st, model, &freed) : e;
    store_close(st);
    TRY(e);
    if (is_json) {
        printf("{\"version\":1,\"freed_bytes\":%" PRIu64 "}\n", freed);
    } else {
        printf("%s is gone, %s free again\n", model, progress_bytes(freed, size));
    }
    return ERR_OK;
}

/* --- verify */

enum state { STATE_OK, STATE_DAMAGED, STATE_BUSY, STATE_UNKNOWN, STATE_COUNT };

/* How they are called: as text, in JSON's "ok", and the name of what is said beside it. */
static const struct {
    const char *text;
    const char *ok;
    const char *why;
} states[STATE_COUNT] = {
    [STATE_OK] = { "ok", "true", NULL },
    [STATE_DAMAGED] = { "DAMAGED", "false", "fault" },
    [STATE_BUSY] = { "busy", "false", "busy" },
    [STATE_UNKNOWN] = { "unknown", "null", "unknown" }, /* nothing to compare with */
};

struct verdict {
    struct buf *json; /* NULL: text, printed at once */
    struct buf unnamed;
    struct buf unfinished;
    size_t n_file;
    size_t n_of[STATE_COUNT];
    size_t n_unnamed;
};

/* why: "" when it is sound. */
static void tell(struct verdict *v, const char *name, const struct store_file *f, enum state state,
                 const char *why)
{
    v->n_of[state]++;
    if (v->json != NULL) {
        buf_add_str(v->json, v->n_file > 0 ? ",\n{" : "\n{");
        put_field(v->json, "model", view_of(name));
        put_field(v->json, "digest", view_of(f->digest));
        buf_printf(v->json, ",\"bytes\":%" PRIu64 ",\"ok\":%s", f->bytes, states[state].ok);
        if (states[state].why != NULL) {
            put_field(v->json, states[state].why, view_of(why));
        }
        buf_add_char(v->json, '}');
    } else {
        struct buf line;
        buf_init(&line, OUT_MAX);
        buf_printf(&line, "%-7s ", states[state].text);
        utf8_plain(&line, view_of(name), SIZE_MAX, false);
        printf("%s  sha256-%s%s%s\n", buf_str(&line), f->digest, why[0] != '\0' ? "  " : "", why);
        fflush(stdout);
        buf_release(&line);
    }
    v->n_file++;
}

/* Reads a blob; fault is empty when it is sound. A failure with ERR_OK is one of its bytes. */
static enum err try_blob(struct store *st, const struct store_model *m, size_t i,
                         char fault[FAULT_MAX])
{
    char hex[65];
    fault[0] = '\0';
    const enum err e = store_hash_blob(st, &m->files[i], m->name, hex);
    const bool is_sound = e == ERR_OK && strcmp(hex, m->files[i].digest) == 0;
    if (e == ERR_OK && !is_sound) {
        (void)err_set(ERR_INTEGRITY, "its bytes have sha256 %s", hex);
    }
    if (!is_sound) {
        snprintf(fault, FAULT_MAX, "%s; run: hearth pull %s%s", err_text(),
                 i >= m->n_file ? "--pack " : "", m->name);
    }
    return e;
}

/* Whether the model still has its file i. */
static enum err has_file(struct store *st, const struct store_model *m, size_t i, bool *has)
{
    struct store_model now = { 0 };
    const enum err e = store_find(st, m->name, &now);
    *has = e == ERR_OK && strcmp(now.name, m->name) == 0 && i < now.n_blob &&
           strcmp(now.files[i].digest, m->files[i].digest) == 0;
    store_model_clear(&now);
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

/* A file that cannot be read may just have been replaced or removed: that is no damage. */
static enum err verify_blob(struct store *st, const struct store_model *m, size_t i,
                            struct verdict *v)
{
    char fault[FAULT_MAX];
    bool is_there = true;
    bool is_busy = false;
    if (try_blob(st, m, i, fault) != ERR_OK) {
        TRY(has_file(st, m, i, &is_there));
        if (is_there && try_blob(st, m, i, fault) != ERR_OK) {
            is_busy = store_is_busy(st);
        }
    }
    if (is_there) {
        tell(v, m->name, &m->files[i],
             is_busy            ? STATE_BUSY
             : fault[0] != '\0' ? STATE_DAMAGED
                                : STATE_OK,
             fault);
    }
    return ERR_OK;
}

static void tell_unnamed(void *arg, const struct store_file *f)
{
    struct verdict *v = arg;
    char size[16];
    if (v->json != NULL) {
        buf_add_str(&v->unnamed, v->n_unnamed > 0 ? ",\n{" : "\n{");
        put_field(&v->unnamed, "digest", view_of(f->digest));
        buf_printf(&v->unnamed, ",\"bytes\":%" PRIu64 "}", f->bytes);
    } else {
        buf_printf(&v->unnamed,
                   "unnamed sha256-%s  %s; no model has it: pull its model again, or hearth rm "
                   "sha256-%s\n",
                   f->digest, progress_bytes(f->bytes, size), f->digest);
    }
    v->n_unnamed++;
}

static enum err verify_store(const char *model, struct verdict *v)
{
    struct store *st = NULL;
    bool found = true;
    TRY(store_open(&st));
    enum err e = ERR_OK;
    char name[STORE_NAME_MAX] = "";
    while (e == ERR_OK && found) {
        struct store_model m = { 0 };
        e = model != NULL ? store_find(st, model, &m) : store_after(st, name, &m, &found);
        memcpy(name, m.name, sizeof name);
        for (size_t k = 0; e == ERR_OK && k < m.n_blob; k++) {
            e = verify_blob(st, &m, k, v);
        }
        store_model_clear(&m);
        found = found && model == NULL;
    }
    if (e == ERR_OK && model == NULL && !store_is_busy(st)) { /* else a pull has some, rightly */
        e = store_unnamed(st, tell_unnamed, v);
    }
    if (e == ERR_OK && model == NULL) {
        put_unfinished(st, &v->unfinished, v->json != NULL);
    }
    store_close(st);
    return e;
}

/* That it has another layout than this program's, another header, or too few bytes, is said. */
static enum err check_image(const struct gguf *g)
{
    struct arch arch;
    struct weights w;
    char layout[65];
    TRY(arch_read(&arch, g));
    TRY(weights_bind(&w, &arch, g));
    const enum err e = weights_layout(&w, layout);
    weights_release(&w);
    TRY(e);
    REQUIRE(image_begins(gguf_path(g), layout), ERR_INTEGRITY,
            "%s: the packed image has another header than it was written with; make it again: "
            "hearth pull --pack MODEL",
            gguf_path(g));
    return ERR_OK;
}

/* What a file has to be by its own name, as one of the store has; NULL: that says nothing. */
static const char *digest_in_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    const bool is_one = strncmp(name, "sha256-", 7) == 0 && strlen(name) == 7 + 64;
    return is_one ? name + 7 : NULL;
}

/* A file outside the store: nobody wrote down its checksum, unless it is of a known model or has it
 * in its name. */
static void tell_outside(struct verdict *v, const char *path, const struct store_file *f)
{
    const struct known *k = known_by_sha256(f->digest);
    const char *named = digest_in_name(path);
    if (k != NULL) {
        tell(v, k->name, f, STATE_OK, "");
    } else if (named == NULL) {
        tell(v, path, f, STATE_UNKNOWN, "could be read and parsed; no checksum of it is known");
    } else if (strcmp(named, f->digest) == 0) {
        tell(v, path, f, STATE_OK, "");
    } else {
        tell(v, path, f, STATE_DAMAGED, "its bytes have another sha256 than its name says");
    }
}

/* A model outside the store. Its structure is checked first: what is not whole gets no line. */
static enum err verify_file(const char *path, struct verdict *v)
{
    struct gguf *g = NULL;
    TRY(gguf_open(&g, path));
    enum err e = gguf_is_image(g) ? check_image(g) : ERR_OK;
    for (size_t i = 0; i < gguf_n_part(g) && e == ERR_OK; i++) {
        struct store_file f = { .bytes = gguf_part_bytes(g, i) };
        e = store_hash(gguf_part_path(g, i), NULL, f.digest);
        if (e == ERR_OK) {
            tell_outside(v, gguf_part_path(g, i), &f);
        }
    }
    gguf_close(g);
    return e;
}

enum err store_cmd_verify(const char *model, bool is_json)
{
    struct buf b;
    buf_init(&b, OUT_MAX);
    buf_add_str(&b, "{\"version\":1,\"files\":[");
    struct verdict v = { .json = is_json ? &b : NULL };
    buf_init(&v.unnamed, OUT_MAX);
    buf_init(&v.unfinished, OUT_MAX);
    const bool is_file = model != NULL && store_is_file(model);
    enum err e = is_file ? verify_file(model, &v) : verify_store(model, &v);
    buf_printf(&b, "],\"damaged\":%zu,\"busy\":%zu,\"unknown\":%zu,\"unnamed\":[",
               v.n_of[STATE_DAMAGED], v.n_of[STATE_BUSY], v.n_of[STATE_UNKNOWN]);
    buf_add_view(&b, buf_view(&v.unnamed));
    buf_add_str(&b, "]");
    buf_add_view(&b, buf_view(&v.unfinished));
    buf_add_str(&b, "}\n");
    if (e == ERR_OK && is_json) {
        e = print(&b);
    } else if (e == ERR_OK) {
        printf("%s%s", buf_str(&v.unnamed), buf_str(&v.unfinished));
    }
    buf_release(&b);
    buf_release(&v.unnamed);
    buf_release(&v.unfinished);
    TRY(e);
    REQUIRE(v.n_of[STATE_DAMAGED] == 0, ERR_INTEGRITY, "%zu of %zu files are damaged",
            v.n_of[STATE_DAMAGED], v.n_file);
    REQUIRE(v.n_of[STATE_BUSY] == 0, ERR_BUSY,
            "%zu of %zu files are being changed by another hearth; try again when it is done",
            v.n_of[STATE_BUSY], v.n_file);
    return ERR_OK;
}
