/* gguf - an untrusted model file turned into a checked directory
 *
 * gguf_head.c reads and checks each file's header; here they become one model. Keys and tensors are
 * found by hash tables whose seed is random, because the names are the file's: with a known seed
 * 65536 names of one slot would cost seconds. Names that occur twice and tensors that overlap are
 * refused (a reader that took the first and one that took the last would see two models).
 *
 * Split models (-00001-of-0000N) are one directory over several files; part 1 carries the metadata,
 * the others only split.* keys and tensors. All parts share one budget of metadata bytes. The
 * number in each part's name, its key split.no and the counts must agree, so that a set put
 * together from two downloads is found out.
 *
 * The files are never mapped; sizes, times and inodes are compared again after loading
 * (gguf_unchanged). Hostile cases that peers fell over are listed in tests/test_gguf.c. Invariants
 * GG-1, GG-2 stand in gguf.h. Next: model/arch.c. */
#include "model/gguf.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names to indices, open addressing. Items are structs that begin with their name. */
struct index {
    uint32_t *slot; /* [n_slot] item index + 1, owns */
    size_t n_slot;  /* power of two */
    uint64_t seed;
};

struct gguf {
    struct gguf_head *parts; /* [n_part], owns */
    size_t n_part;
    const struct gguf_kv *keys; /* [n_key], part 1's */
    size_t n_key;
    struct gguf_tensor *tensors; /* [n_tensor], all parts', owns */
    size_t n_tensor;
    struct index key_index;
    struct index tensor_index;
};

/* --- the index of names */

static struct view name_of(const void *items, size_t each, size_t i)
{
    return *(const struct view *)((const char *)items + i * each);
}

/* Index of the item called `name`, or SIZE_MAX. */
static size_t index_find(const struct index *x, const void *items, size_t each, struct view name)
{
    if (x->n_slot == 0) {
        return SIZE_MAX;
    }
    for (size_t at = hash_mix(name.p, name.n, x->seed);; at++) {
        const uint32_t i = x->slot[at & (x->n_slot - 1)];
        if (i == 0) {
            return SIZE_MAX;
        }
        if (view_eq(name_of(items, each, i - 1), name)) {
            return i - 1;
        }
    }
}

/* Indexes n items; a name that occurs twice is an error. */
static enum err index_open(struct index *x, const char *shown, const char *what, const void *items,
                           size_t each, size_t n)
{
    size_t n_slot = 16;
    while (n_slot < 2 * n) {
        n_slot *= 2;
    }
    x->slot = mem_alloc_array(n_slot, sizeof x->slot[0]);
    REQUIRE(x->slot != NULL, ERR_MEMORY, "%s: no memory for %zu names", shown, n);
    x->n_slot = n_slot;
    os_random(&x->seed, sizeof x->seed);
    for (size_t i = 0; i < n; i++) {
        const struct view name = name_of(items, each, i);
        size_t at = hash_mix(name.p, name.n, x->seed) & (n_slot - 1);
        while (x->slot[at] != 0) {
            REQUIRE(!view_eq(name_of(items, each, x->slot[at] - 1), name), ERR_INTEGRITY,
                    "%s: %s %.*s occurs twice (entries %u and %zu)", shown, what,
                    gguf_head_shown(name), name.p, x->slot[at] - 1, i);
            at = (at + 1) & (n_slot - 1);
        }
        x->slot[at] = (uint32_t)i + 1;
    }
    return ERR_OK;
}

/* --- overlaps */

static int by_place(const void *a, const void *b)
{
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a;
    const struct gguf_tensor *y = *(const struct gguf_tensor *const *)b;
    if (x->i_file != y->i_file) {
        return x->i_file < y->i_file ? -1 : 1;
    }
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* In the order of their places each tensor must end before the next one begins. */
static enum err check_overlaps(const struct gguf *g)
{
    const struct gguf_tensor **sorted = mem_alloc_array(g->n_tensor + 1, sizeof sorted[0]);
    REQUIRE(sorted != NULL, ERR_MEMORY, "%s: no memory for %zu tensors", g->parts[0].shown,
            g->n_tensor);
    for (size_t i = 0; i < g->n_tensor; i++) {
        sorted[i] = &g->tensors[i];
    }
    qsort(sorted, g->n_tensor, sizeof sorted[0], by_place);
    enum err e = ERR_OK;
    for (size_t i = 1; i < g->n_tensor && e == ERR_OK; i++) {
        const struct gguf_tensor *x = sorted[i - 1];
        const struct gguf_tensor *y = sorted[i];
        if (x->i_file == y->i_file && x->offset + x->bytes > y->offset) {
            e = err_set(ERR_INTEGRITY, "%s: byte %llu: tensors %.*s and %.*s overlap",
                        g->parts[x->i_file].shown, (unsigned long long)y->offset,
                        gguf_head_shown(x->name), x->name.p, gguf_head_shown(y->name), y->name.p);
        }
    }
    mem_free(sorted);
    return e;
}

/* --- split models */

bool gguf_is_part(const char *path, uint64_t *i, uint64_t *n)
{
    const size_t len = strlen(path);
    const char *tail = len >= GGUF_SPLIT_TAIL ? path + len - GGUF_SPLIT_TAIL : "";
    uint64_t a = 0;
    uint64_t b = 0;
    if (tail[0] != '-' || memcmp(tail + 6, "-of-", 4) != 0 || strcmp(tail + 15, ".gguf") != 0 ||
        !view_u64((struct view){ tail + 1, 5 }, &a) ||
        !view_u64((struct view){ tail + 10, 5 }, &b)) {
        return false;
    }
    *i = a;
    *n = b;
    return true;
}

void gguf_part_tail(size_t i, size_t n, char tail[GGUF_SPLIT_TAIL + 1])
{
    snprintf(tail, GGUF_SPLIT_TAIL + 1, "-%05u-of-%05u.gguf", (unsigned)i % 100000u,
             (unsigned)n % 100000u);
}

/* What a part's keys say must agree with its place in the set. */
static enum err check_split(const struct gguf *g, size_t i, size_t n_part)
{
    const struct gguf_head *p = &g->parts[i];
    REQUIRE(n_part > 1 || p->split_count <= 1, ERR_INTEGRITY,
            "%s: key split.count: part %lld of %lld of a split model; its name must end in "
            "-%05lld-of-%05lld.gguf and the other parts must lie beside it",
            p->shown, (long long)p->split_no + 1, (long long)p->split_count,
            (long long)p->split_no + 1, (long long)p->split_count);
    if (n_part == 1) {
        return ERR_OK;
    }
    REQUIRE(p->split_no >= 0 && p->split_count >= 0, ERR_INTEGRITY,
            "%s: key %s is missing: not a part of a split model, though its name says so", p->shown,
            p->split_no < 0 ? "split.no" : "split.count");
    REQUIRE(p->split_count == (int64_t)n_part, ERR_INTEGRITY,
            "%s: key split.count: %lld, the name says %zu", p->shown, (long long)p->split_count,
            n_part);
    REQUIRE(p->split_no == (int64_t)i, ERR_INTEGRITY,
            "%s: key split.no: %lld, %zu is wanted in part %zu; the parts are in the wrong order",
            p->shown, (long long)p->split_no, i, i + 1);
    return ERR_OK;
}

/* Opens part after part; `name` has room for the path. */
static enum err open_parts(struct gguf *g, const char *path, size_t n_part, char *name)
{
    const size_t len = strlen(path);
    size_t budget_bytes = GGUF_META_MAX_BYTES;
    for (size_t i = 0; i < n_part; i++) {
        memcpy(name, path, len + 1);
        if (n_part > 1) {
            gguf_part_tail(i + 1, n_part, name + len - GGUF_SPLIT_TAIL);
        }
        g->n_part = i + 1;
        const enum err e = gguf_head_open(&g->parts[i], name, budget_bytes);
        if (e == ERR_NOT_FOUND && i > 0) {
            return err_at(e, "part %zu of %zu is missing", i + 1, n_part);
        }
        TRY(e);
        TRY(check_split(g, i, n_part));
        REQUIRE(n_part == 1 || !g->parts[i].is_image, ERR_INTEGRITY,
                "%s: a packed image is no part of a split model", g->parts[i].shown);
        budget_bytes -= g->parts[i].n_bytes;
    }
    return ERR_OK;
}

/* One list of all parts' tensors. */
static enum err join_parts(struct gguf *g)
{
    const struct gguf_head *first = &g->parts[0];
    size_t n = 0;
    for (size_t i = 0; i < g->n_part; i++) {
        n += g->parts[i].n_tensor;
    }
    REQUIRE(n <= GGUF_TENSOR_MAX, ERR_LIMIT, "%s: %zu tensors in all parts, at most %d",
            first->shown, n, GGUF_TENSOR_MAX);
    REQUIRE(first->split_count < 1 || first->split_tensors < 0 ||
                first->split_tensors == (int64_t)n,
            ERR_INTEGRITY, "%s: key split.tensors.count: %lld, the parts have %zu", first->shown,
            (long long)first->split_tensors, n);
    g->tensors = mem_alloc_array(n + 1, sizeof g->tensors[0]);
    REQUIRE(g->tensors != NULL, ERR_MEMORY, "%s: no memory for %zu tensors", first->shown, n);
    for (size_t i = 0; i < g->n_part; i++) {
        for (size_t k = 0; k < g->parts[i].n_tensor; k++) {
            g->tensors[g->n_tensor] = g->parts[i].tensors[k];
            g->tensors[g->n_tensor++].i_file = (int)i;
        }
    }
    g->keys = first->keys;
    g->n_key = first->n_key;
    return ERR_OK;
}

static enum err open_all(struct gguf *g, const char *path)
{
    uint64_t i_own = 1;
    uint64_t n_part = 1;
    const size_t len = strlen(path);
    const bool is_split = gguf_is_part(path, &i_own, &n_part);
    char shown[GGUF_SHOWN_MAX + 4];
    gguf_head_show_path(shown, path);
    REQUIRE(n_part >= 1 && n_part <= GGUF_SPLIT_MAX && i_own >= 1 && i_own <= n_part,
            ERR_UNSUPPORTED, "%s: the name says part %llu of %llu; at most %d parts are supported",
            shown, (unsigned long long)i_own, (unsigned long long)n_part, GGUF_SPLIT_MAX);
    REQUIRE(i_own == 1, ERR_USAGE,
            "%s: part %llu of a split model; give part 1, whose name ends in -00001%s", shown,
            (unsigned long long)i_own, is_split ? path + len - GGUF_SPLIT_TAIL + 6 : "");
    g->parts = mem_alloc_array((size_t)n_part, sizeof g->parts[0]);
    char *name = mem_alloc(len + 1);
    const enum err e = g->parts != NULL && name != NULL
                           ? open_parts(g, path, (size_t)n_part, name)
                           : err_set(ERR_MEMORY, "%s: no memory", shown);
    mem_free(name);
    TRY(e);
    TRY(join_parts(g));
    TRY(index_open(&g->key_index, shown, "key", g->keys, sizeof g->keys[0], g->n_key));
    TRY(index_open(&g->tensor_index, shown, "tensor", g->tensors, sizeof g->tensors[0],
                   g->n_tensor));
    return gguf_is_image(g) ? ERR_OK : check_overlaps(g);
}

enum err gguf_open(struct gguf **out, const char *path)
{
    struct gguf *g = mem_alloc(sizeof *g);
    REQUIRE(g != NULL, ERR_MEMORY, "no memory to open a model file");
    const enum err e = open_all(g, path);
    if (e != ERR_OK) {
        gguf_close(g);
        return e;
    }
    *out = g;
    return ERR_OK;
}

void gguf_close(struct gguf *g)
{
    if (g == NULL) {
        return;
    }
    for (size_t i = 0; i < g->n_part; i++) {
        gguf_head_close(&g->parts[i]);
    }
    mem_free(g->parts);
    mem_free(g->tensors);
    mem_free(g->key_index.slot);
    mem_free(g->tensor_index.slot);
    mem_free(g);
}

/* --- single values */

uint32_t gguf_version(const struct gguf *g)
{
    return g->parts[0].version;
}

uint64_t gguf_file_bytes(const struct gguf *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < g->n_part; i++) {
        n += g->parts[i].file.size;
    }
    return n;
}

uint64_t gguf_meta_bytes(const struct gguf *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < g->n_part; i++) {
        n += g->parts[i].n_bytes;
    }
    return n;
}

struct view gguf_value(const struct gguf *g, size_t i)
{
    return (struct view){ (const char *)g->keys[i].value, g->keys[i].n };
}

const char *gguf_path(const struct gguf *g)
{
    return g->parts[0].path;
}

size_t gguf_n_part(const struct gguf *g)
{
    return g->n_part;
}

const char *gguf_part_path(const struct gguf *g, size_t i)
{
    return g->parts[i].path;
}

uint64_t gguf_part_bytes(const struct gguf *g, size_t i)
{
    return g->parts[i].file.size;
}

static const struct gguf_kv *find_key(const struct gguf *g, const char *key, bool *found)
{
    const size_t i = index_find(&g->key_index, g->keys, sizeof g->keys[0], view_of(key));
    if (found != NULL) {
        *found = i != SIZE_MAX;
    }
    return i == SIZE_MAX ? NULL : &g->keys[i];
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find_key(g, key, NULL) != NULL;
}

static enum err wrong_type(const struct gguf *g, const struct gguf_kv *k, const char *wanted)
{
    return err_set(ERR_INTEGRITY, "%s: byte %zu: key %.*s: %s is wanted, the value is of type %s",
                   g->parts[0].shown, (size_t)(k->value - g->parts[0].bytes),
                   gguf_head_shown(k->key), k->key.p, wanted, gguf_head_type_name(k->type));
}

enum err gguf_u32(const struct gguf *g, const char *key, uint32_t *out, bool *found)
{
    const struct gguf_kv *k = find_key(g, key, found);
    int64_t v = 0;
    if (k == NULL) {
        return ERR_OK;
    }
    if (!gguf_head_int(k->type, k->value, &v)) {
        return wrong_type(g, k, "an integer");
    }
    const bool is_negative = v < 0 && k->type != GGUF_U64;
    REQUIRE(!is_negative && (uint64_t)v <= UINT32_MAX, ERR_INTEGRITY,
            "%s: byte %zu: key %.*s: %s%llu, a number in 0..%u is wanted", g->parts[0].shown,
            (size_t)(k->value - g->parts[0].bytes), gguf_head_shown(k->key), k->key.p,
            is_negative ? "-" : "", is_negative ? 0 - (unsigned long long)v : (unsigned long long)v,
            UINT32_MAX);
    *out = (uint32_t)v;
    return ERR_OK;
}

static double float_at(enum gguf_type type, const uint8_t *p)
{
    if (type == GGUF_F32) {
        const uint32_t u = gguf_head_u32(p);
        float f;
        memcpy(&f, &u, sizeof f);
        return (double)f;
    }
    const uint64_t u = gguf_head_u64(p);
    double f;
    memcpy(&f, &u, sizeof f);
    return f;
}

enum err gguf_f32(const struct gguf *g, const char *key, float *out, bool *found)
{
    const struct gguf_kv *k = find_key(g, key, found);
    if (k == NULL) {
        return ERR_OK;
    }
    if (k->type != GGUF_F32 && k->type != GGUF_F64) {
        return wrong_type(g, k, "a floating-point number");
    }
    *out = (float)float_at(k->type, k->value);
    return ERR_OK;
}

enum err gguf_bool(const struct gguf *g, const char *key, bool *out, bool *found)
{
    const struct gguf_kv *k = find_key(g, key, found);
    if (k == NULL) {
        return ERR_OK;
    }
    if (k->type != GGUF_BOOL) {
        return wrong_type(g, k, "true or false");
    }
    *out = k->value[0] != 0;
    return ERR_OK;
}

enum err gguf_string(const struct gguf *g, const char *key, struct view *out, bool *found)
{
    const struct gguf_kv *k = find_key(g, key, found);
    if (k == NULL) {
        return ERR_OK;
    }
    if (k->type != GGUF_STRING) {
        return wrong_type(g, k, "a string");
    }
    *out = (struct view){ (const char *)k->value + 8, k->n - 8 };
    return ERR_OK;
}

/* --- arrays */

static struct gguf_array array_of(const struct gguf_kv *k)
{
    return (struct gguf_array){ .type = (enum gguf_type)gguf_head_u32(k->value),
                                .n = gguf_head_u64(k->value + 4),
                                .bytes = k->value + 12 };
}

enum err gguf_array(const struct gguf *g, const char *key, struct gguf_array *out, bool *found)
{
    const struct gguf_kv *k = find_key(g, key, found);
    if (k == NULL) {
        return ERR_OK;
    }
    if (k->type != GGUF_ARRAY) {
        return wrong_type(g, k, "an array");
    }
    *out = array_of(k);
    return ERR_OK;
}

bool gguf_array_string(const struct gguf_array *a, struct gguf_string_iter *it, struct view *out)
{
    if (a->type != GGUF_STRING || it->i >= a->n) {
        return false;
    }
    const uint8_t *p = it->i == 0 ? a->bytes : it->at;
    *out = (struct view){ (const char *)p + 8, (size_t)gguf_head_u64(p) };
    it->at = p + 8 + out->n;
    it->i++;
    return true;
}

bool gguf_array_int(const struct gguf_array *a, uint64_t i, int64_t *out)
{
    if (i >= a->n || gguf_head_type_bytes(a->type) == 0) {
        return false;
    }
    const uint8_t *p = (const uint8_t *)a->bytes + i * gguf_head_type_bytes(a->type);
    int64_t v = 0;
    if (a->type == GGUF_BOOL) {
        v = p[0];
    } else if (!gguf_head_int(a->type, p, &v) || (a->type == GGUF_U64 && v < 0)) {
        return false;
    }
    *out = v;
    return true;
}

bool gguf_array_float(const struct gguf_array *a, uint64_t i, float *out)
{
    if (i >= a->n || (a->type != GGUF_F32 && a->type != GGUF_F64)) {
        return false;
    }
    const uint8_t *p = (const uint8_t *)a->bytes + i * gguf_head_type_bytes(a->type);
    *out = (float)float_at(a->type, p);
    return true;
}

/* --- listings */

size_t gguf_n_key(const struct gguf *g)
{
    return g->n_key;
}

struct view gguf_key(const struct gguf *g, size_t i, enum gguf_type *type)
{
    *type = g->keys[i].type;
    return g->keys[i].key;
}

static void scalar_text(enum gguf_type type, const uint8_t *p, struct buf *out)
{
    int64_t v = 0;
    if (type == GGUF_F32 || type == GGUF_F64) {
        buf_printf(out, "%g", float_at(type, p));
    } else if (type == GGUF_BOOL) {
        buf_add_str(out, p[0] != 0 ? "true" : "false");
    } else if (type == GGUF_U64) {
        buf_printf(out, "%llu", (unsigned long long)gguf_head_u64(p));
    } else if (gguf_head_int(type, p, &v)) {
        buf_printf(out, "%lld", (long long)v);
    }
}

/* At most max bytes of a text, cut between characters. */
static void text_part(struct view v, size_t max, struct buf *out)
{
    size_t n = v.n < max ? v.n : max;
    while (n > 0 && n < v.n && ((uint8_t)v.p[n] & 0xC0) == 0x80) {
        n--;
    }
    utf8_clean(out, view_part(v, 0, n));
    if (n < v.n) {
        buf_add_str(out, "...");
    }
}

void gguf_value_text(const struct gguf *g, size_t i, struct buf *out)
{
    const struct gguf_kv *k = &g->keys[i];
    if (k->type == GGUF_STRING) {
        text_part((struct view){ (const char *)k->value + 8, k->n - 8 }, 2000, out);
        return;
    }
    if (k->type != GGUF_ARRAY) {
        scalar_text(k->type, k->value, out);
        return;
    }
    const struct gguf_array a = array_of(k);
    struct gguf_string_iter it = { 0 };
    struct view s;
    buf_printf(out, "%llu of %s:", (unsigned long long)a.n, gguf_head_type_name(a.type));
    for (uint64_t e = 0; e < a.n && e < 4; e++) {
        buf_add_char(out, ' ');
        if (gguf_array_string(&a, &it, &s)) {
            buf_add_char(out, '"');
            text_part(s, 40, out);
            buf_add_char(out, '"');
        } else {
            scalar_text(a.type, (const uint8_t *)a.bytes + e * gguf_head_type_bytes(a.type), out);
        }
    }
    if (a.n > 4) {
        buf_add_str(out, " ...");
    }
}

/* --- tensors */

size_t gguf_n_tensor(const struct gguf *g)
{
    return g->n_tensor;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i)
{
    return &g->tensors[i];
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
    const size_t i = index_find(&g->tensor_index, g->tensors, sizeof g->tensors[0], view_of(name));
    return i == SIZE_MAX ? NULL : &g->tensors[i];
}

enum err gguf_read(const struct gguf *g, const struct gguf_tensor *t, size_t at, void *to, size_t n)
{
    const struct gguf_head *p = &g->parts[t->i_file];
    const int len = gguf_head_shown(t->name);
    REQUIRE(!p->is_image, ERR_FAILED, "%s: tensor %.*s: a packed image has no bytes of it",
            p->shown, len, t->name.p);
    REQUIRE(at <= t->bytes && n <= t->bytes - at, ERR_FAILED,
            "%s: tensor %.*s: bytes %zu..%zu lie beyond its end at %zu", p->shown, len, t->name.p,
            at, at + n, t->bytes);
    const enum err e = os_read_at(&p->file, to, n, t->offset + at);
    return e == ERR_OK ? e : err_at(e, "%s: tensor %.*s", p->shown, len, t->name.p);
}

bool gguf_is_image(const struct gguf *g)
{
    return g->parts[0].is_image;
}

uint64_t gguf_image_bytes(const struct gguf *g)
{
    const struct gguf_head *p = &g->parts[0];
    return p->is_image && p->file.size > p->data_at ? p->file.size - p->data_at : 0;
}

enum err gguf_image_read(const struct gguf *g, uint64_t at, void *to, size_t n)
{
    const struct gguf_head *p = &g->parts[0];
    REQUIRE(at <= gguf_image_bytes(g) && n <= gguf_image_bytes(g) - at, ERR_FAILED,
            "%s: bytes %llu..%llu lie beyond the packed image's end", p->shown,
            (unsigned long long)at, (unsigned long long)(at + n));
    const enum err e = os_read_at(&p->file, to, n, p->data_at + at);
    return e == ERR_OK ? e : err_at(e, "%s", p->shown);
}

uint64_t gguf_image_at(const struct gguf *g)
{
    return g->parts[0].data_at;
}

const char *gguf_image_path(const struct gguf *g)
{
    return g->parts[0].path;
}

enum err gguf_map(const struct gguf *g, struct arena *a)
{
    const struct gguf_head *p = &g->parts[0];
    const enum err e = arena_open_file(a, p->file.fd, p->data_at, (size_t)gguf_image_bytes(g));
    return e == ERR_OK ? e : err_at(e, "%s", p->shown);
}

enum err gguf_unchanged(const struct gguf *g)
{
    for (size_t i = 0; i < g->n_part; i++) {
        TRY(os_unchanged(&g->parts[i].file, g->parts[i].path));
    }
    return ERR_OK;
}
