/* gguf - an untrusted model file turned into a checked directory
 *
 * A GGUF file is a header, a list of keys with typed values, a list of tensors (name, shape, type,
 * offset) and, from an aligned position on, the tensors' bytes. Everything before the data is read
 * into one growing buffer by bounded reads and walked with a cursor that knows how many bytes the
 * file has left; a count that claims more than could possibly follow is refused before anything is
 * allocated for it. Values are not copied: keys and strings are views into that buffer.
 *
 * The file is never mapped. A mapped file that shrinks ends the process by SIGBUS; a read that
 * comes back short is an error with a name. Sizes, times and inodes are compared again after
 * loading.
 *
 * Split models (-00001-of-0000N) are one directory over several files; part 1 carries the metadata,
 * the others only tensors.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Hostile cases that peers fell
 * over are listed in tests/test_gguf.c. Invariants GG-1, GG-2 stand in gguf.h. Next: model/arch.c.
 */
#include "model/gguf.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE          ((size_t)1 << 20) /* bytes read at once */
#define ALIGN_DEFAULT  32
#define ALIGN_MAX      ((uint32_t)1 << 20)
#define NAME_MAX_BYTES 256

struct kv {
    struct view key;
    enum gguf_type type;
    const uint8_t *value; /* of a string: its length field; of an array: its type field */
    size_t n;             /* bytes of the value */
};

/* One file's header bytes, read as far as the cursor needs them. */
struct part {
    struct os_file file;
    char *path;     /* owns */
    uint8_t *bytes; /* owns; [n_read] */
    size_t n_read, cap;
    uint64_t data_at; /* where tensor bytes begin */
};

struct gguf {
    struct part *parts; /* [n_part], owns */
    size_t n_part;
    uint32_t version;
    struct kv *keys; /* [n_key], owns */
    size_t n_key;
    struct gguf_tensor *tensors; /* [n_tensor], owns */
    size_t n_tensor;
    uint32_t *by_name; /* hash table of tensor index + 1, owns */
    size_t n_slot;     /* power of two */
};

/* --- cursor
 * --------------------------------------------------------------------------------------------------
 */

struct cursor {
    struct part *part;
    size_t at;
};

/* Makes bytes [at, at + n) available. Pointers into part->bytes are invalid after it, so values are
 * kept as offsets until the header is complete. */
static enum err need(struct cursor *c, size_t n, const char *what)
{
    struct part *p = c->part;
    REQUIRE(n <= p->file.size && c->at <= p->file.size - n, ERR_INTEGRITY,
            "%s: byte %zu: %s needs %zu bytes, the file ends after %llu", p->path, c->at, what, n,
            (unsigned long long)p->file.size);
    const size_t end = c->at + n;
    REQUIRE(end <= GGUF_META_MAX_BYTES, ERR_LIMIT,
            "%s: byte %zu: %s: the metadata is larger than %u MB", p->path, c->at, what,
            GGUF_META_MAX_BYTES >> 20);
    if (end <= p->n_read) {
        return ERR_OK;
    }
    size_t upto = (end + PIECE - 1) / PIECE * PIECE;
    upto = upto < p->file.size ? upto : (size_t)p->file.size;
    if (upto > p->cap) {
        const size_t cap = upto > 2 * p->cap ? upto : 2 * p->cap;
        uint8_t *bytes = mem_realloc(p->bytes, cap);
        REQUIRE(bytes != NULL, ERR_MEMORY, "%s: no memory for %zu bytes of metadata", p->path, cap);
        p->bytes = bytes;
        p->cap = cap;
    }
    const enum err e = os_read_at(&p->file, p->bytes + p->n_read, upto - p->n_read, p->n_read);
    if (e != ERR_OK) {
        return err_at(e, "%s", p->path);
    }
    p->n_read = upto;
    return ERR_OK;
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t u64_at(const uint8_t *p)
{
    return (uint64_t)u32_at(p) | (uint64_t)u32_at(p + 4) << 32;
}

static enum err read_u32(struct cursor *c, const char *what, uint32_t *out)
{
    TRY(need(c, 4, what));
    *out = u32_at(c->part->bytes + c->at);
    c->at += 4;
    return ERR_OK;
}

static enum err read_u64(struct cursor *c, const char *what, uint64_t *out)
{
    TRY(need(c, 8, what));
    *out = u64_at(c->part->bytes + c->at);
    c->at += 8;
    return ERR_OK;
}

/* A length and that many bytes; *at is where the bytes begin. */
static enum err read_string(struct cursor *c, const char *what, size_t max, size_t *at, size_t *n)
{
    uint64_t len = 0;
    TRY(read_u64(c, what, &len));
    REQUIRE(len <= max, ERR_INTEGRITY,
            "%s: byte %zu: %s: a string of %llu bytes, at most %zu are possible", c->part->path,
            c->at - 8, what, (unsigned long long)len, max);
    TRY(need(c, (size_t)len, what));
    *at = c->at;
    *n = (size_t)len;
    c->at += (size_t)len;
    return ERR_OK;
}

static size_t type_bytes(uint32_t type)
{
    static const uint8_t bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type < sizeof bytes ? bytes[type] : 0;
}

/* --- keys
 * ------------------------------------------------------------------------------------------------------
 */

static enum err skip_strings(struct cursor *c, uint64_t n, const char *what)
{
    for (uint64_t i = 0; i < n; i++) {
        size_t at;
        size_t len;
        TRY(read_string(c, what, GGUF_META_MAX_BYTES, &at, &len));
    }
    return ERR_OK;
}

static enum err skip_array(struct cursor *c, const char *what)
{
    uint32_t type = 0;
    uint64_t n = 0;
    TRY(read_u32(c, what, &type));
    TRY(read_u64(c, what, &n));
    const size_t each = type == GGUF_STRING ? 8 : type_bytes(type);
    REQUIRE(each > 0, ERR_INTEGRITY, "%s: byte %zu: key %s: array of type %u%s", c->part->path,
            c->at - 12, what, type,
            type == GGUF_ARRAY ? " (arrays of arrays are not supported)" : "");
    const uint64_t left = c->part->file.size - c->at;
    REQUIRE(n <= left / each, ERR_INTEGRITY,
            "%s: byte %zu: key %s: %llu elements, the file has %llu bytes left", c->part->path,
            c->at - 8, what, (unsigned long long)n, (unsigned long long)left);
    if (type == GGUF_STRING) {
        return skip_strings(c, n, what);
    }
    TRY(need(c, (size_t)n * each, what));
    c->at += (size_t)n * each;
    return ERR_OK;
}

static enum err skip_value(struct cursor *c, uint32_t type, const char *what)
{
    if (type == GGUF_ARRAY) {
        return skip_array(c, what);
    }
    if (type == GGUF_STRING) {
        size_t at;
        size_t n;
        return read_string(c, what, GGUF_META_MAX_BYTES, &at, &n);
    }
    REQUIRE(type_bytes(type) > 0, ERR_INTEGRITY,
            "%s: byte %zu: key %s has the unknown value type %u", c->part->path, c->at - 4, what,
            type);
    TRY(need(c, type_bytes(type), what));
    c->at += type_bytes(type);
    return ERR_OK;
}

/* Offsets while reading, views after: need() may move the bytes. */
struct raw_key {
    size_t key_at, key_n, value_at, value_n;
    uint32_t type;
};

static enum err read_key(struct cursor *c, struct raw_key *k)
{
    char name[NAME_MAX_BYTES + 1];
    TRY(read_string(c, "a key", 65535, &k->key_at, &k->key_n));
    const struct view key = { (const char *)c->part->bytes + k->key_at, k->key_n };
    REQUIRE(k->key_n > 0 && utf8_valid(key), ERR_INTEGRITY, "%s: byte %zu: a key that is %s",
            c->part->path, k->key_at, k->key_n > 0 ? "no UTF-8" : "empty");
    snprintf(name, sizeof name, "%.*s", (int)(key.n < NAME_MAX_BYTES ? key.n : NAME_MAX_BYTES),
             key.p);
    TRY(read_u32(c, name, &k->type));
    k->value_at = c->at;
    TRY(skip_value(c, k->type, name));
    k->value_n = c->at - k->value_at;
    return ERR_OK;
}

static const struct kv *find_key(const struct gguf *g, const char *key)
{
    for (size_t i = 0; i < g->n_key; i++) {
        if (view_is(g->keys[i].key, key)) {
            return &g->keys[i];
        }
    }
    return NULL;
}

static int by_key(const void *a, const void *b)
{
    const struct view x = (*(const struct kv *const *)a)->key;
    const struct view y = (*(const struct kv *const *)b)->key;
    const int d = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
    return d != 0 ? d : (x.n > y.n) - (x.n < y.n);
}

static enum err check_key_names(const struct gguf *g)
{
    const struct kv **sorted = mem_alloc_array(g->n_key + 1, sizeof sorted[0]);
    REQUIRE(sorted != NULL, ERR_MEMORY, "%s: no memory for %zu keys", g->parts[0].path, g->n_key);
    for (size_t i = 0; i < g->n_key; i++) {
        sorted[i] = &g->keys[i];
    }
    qsort(sorted, g->n_key, sizeof sorted[0], by_key);
    enum err e = ERR_OK;
    for (size_t i = 1; i < g->n_key && e == ERR_OK; i++) {
        if (view_eq(sorted[i - 1]->key, sorted[i]->key)) {
            e = err_set(ERR_INTEGRITY, "%s: key %.*s occurs twice", g->parts[0].path,
                        (int)(sorted[i]->key.n & 255), sorted[i]->key.p);
        }
    }
    mem_free(sorted);
    return e;
}

/* --- tensors
 * ----------------------------------------------------------------------------------------------------
 */

struct raw_tensor {
    size_t name_at, name_n;
    struct gguf_tensor t;
};

static enum err read_tensor(struct cursor *c, struct raw_tensor *r)
{
    const char *path = c->part->path;
    char name[NAME_MAX_BYTES + 1];
    TRY(read_string(c, "a tensor's name", NAME_MAX_BYTES, &r->name_at, &r->name_n));
    const struct view v = { (const char *)c->part->bytes + r->name_at, r->name_n };
    REQUIRE(r->name_n > 0 && utf8_valid(v), ERR_INTEGRITY, "%s: byte %zu: a tensor name that is %s",
            path, r->name_at, r->name_n > 0 ? "no UTF-8" : "empty");
    snprintf(name, sizeof name, "%.*s", (int)v.n, v.p);
    TRY(read_u32(c, name, &r->t.n_dim));
    REQUIRE(r->t.n_dim >= 1 && r->t.n_dim <= GGUF_DIM_MAX, ERR_INTEGRITY,
            "%s: byte %zu: tensor %s: %u dimensions, 1..%d are possible", path, c->at - 4, name,
            r->t.n_dim, GGUF_DIM_MAX);
    uint64_t n_elem = 1;
    for (uint32_t i = 0; i < GGUF_DIM_MAX; i++) {
        r->t.dim[i] = 1;
        if (i < r->t.n_dim) {
            TRY(read_u64(c, name, &r->t.dim[i]));
        }
        REQUIRE(r->t.dim[i] > 0 && !__builtin_mul_overflow(n_elem, r->t.dim[i], &n_elem),
                ERR_INTEGRITY,
                "%s: byte %zu: tensor %s: dimension %u is %llu: the size is zero or overflows",
                path, c->at - 8, name, i, (unsigned long long)r->t.dim[i]);
    }
    TRY(read_u32(c, name, &r->t.type));
    TRY(read_u64(c, name, &r->t.offset));
    const struct quant_info *q = quant_get(r->t.type);
    REQUIRE(q->block > 0, ERR_UNSUPPORTED, "%s: byte %zu: tensor %s: element type %u is unknown",
            path, c->at - 12, name, r->t.type);
    REQUIRE(r->t.dim[0] % q->block == 0, ERR_INTEGRITY,
            "%s: tensor %s: rows of %llu do not divide into blocks of %s (%u)", path, name,
            (unsigned long long)r->t.dim[0], q->name, q->block);
    REQUIRE(quant_bytes(r->t.type, n_elem, &r->t.bytes), ERR_INTEGRITY,
            "%s: tensor %s: its size overflows", path, name);
    return ERR_OK;
}

static enum err check_range(const struct part *p, struct gguf_tensor *t, uint32_t align)
{
    REQUIRE(t->offset % align == 0, ERR_INTEGRITY,
            "%s: tensor %.*s: offset %llu is not aligned to %u", p->path, (int)t->name.n, t->name.p,
            (unsigned long long)t->offset, align);
    const uint64_t room = p->file.size > p->data_at ? p->file.size - p->data_at : 0;
    REQUIRE(t->bytes <= room && t->offset <= room - t->bytes, ERR_INTEGRITY,
            "%s: tensor %.*s: needs %zu bytes at %llu of the data, which has %llu; download the "
            "file again",
            p->path, (int)t->name.n, t->name.p, t->bytes, (unsigned long long)t->offset,
            (unsigned long long)room);
    t->offset += p->data_at;
    return ERR_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a;
    const struct gguf_tensor *y = *(const struct gguf_tensor *const *)b;
    if (x->i_file != y->i_file) {
        return x->i_file < y->i_file ? -1 : 1;
    }
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static enum err check_overlaps(const struct gguf *g)
{
    const struct gguf_tensor **sorted = mem_alloc_array(g->n_tensor + 1, sizeof sorted[0]);
    REQUIRE(sorted != NULL, ERR_MEMORY, "%s: no memory for %zu tensors", g->parts[0].path,
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
            e = err_set(ERR_INTEGRITY, "%s: tensors %.*s and %.*s overlap",
                        g->parts[x->i_file].path, (int)x->name.n, x->name.p, (int)y->name.n,
                        y->name.p);
        }
    }
    mem_free(sorted);
    return e;
}

static enum err index_names(struct gguf *g)
{
    g->n_slot = 16;
    while (g->n_slot < 2 * g->n_tensor) {
        g->n_slot *= 2;
    }
    g->by_name = mem_alloc_array(g->n_slot, sizeof g->by_name[0]);
    REQUIRE(g->by_name != NULL, ERR_MEMORY, "%s: no memory for %zu names", g->parts[0].path,
            g->n_tensor);
    for (size_t i = 0; i < g->n_tensor; i++) {
        const struct view name = g->tensors[i].name;
        size_t at = hash_mix(name.p, name.n, 0) & (g->n_slot - 1);
        while (g->by_name[at] != 0) {
            REQUIRE(!view_eq(g->tensors[g->by_name[at] - 1].name, name), ERR_INTEGRITY,
                    "%s: tensor %.*s occurs twice", g->parts[g->tensors[i].i_file].path,
                    (int)name.n, name.p);
            at = (at + 1) & (g->n_slot - 1);
        }
        g->by_name[at] = (uint32_t)i + 1;
    }
    return ERR_OK;
}

/* --- a file
 * ------------------------------------------------------------------------------------------------------
 */

static enum err read_head(struct cursor *c, uint32_t *version, uint64_t *n_tensor, uint64_t *n_key)
{
    const struct part *p = c->part;
    TRY(need(c, 8, "the header"));
    REQUIRE(memcmp(p->bytes, "GGUF", 4) == 0, ERR_INTEGRITY,
            "%s: not a GGUF file (it begins with %02x %02x %02x %02x)", p->path, p->bytes[0],
            p->bytes[1], p->bytes[2], p->bytes[3]);
    c->at = 4;
    TRY(read_u32(c, "the version", version));
    REQUIRE((*version & 0xFFFF) != 0, ERR_UNSUPPORTED,
            "%s: a big-endian GGUF file; convert it to little-endian", p->path);
    REQUIRE(*version == 2 || *version == 3, ERR_UNSUPPORTED,
            "%s: GGUF version %u; versions 2 and 3 are supported", p->path, *version);
    TRY(read_u64(c, "the tensor count", n_tensor));
    TRY(read_u64(c, "the key count", n_key));
    REQUIRE(*n_tensor <= GGUF_TENSOR_MAX, ERR_INTEGRITY,
            "%s: byte 8: %llu tensors, at most %d are possible", p->path,
            (unsigned long long)*n_tensor, GGUF_TENSOR_MAX);
    REQUIRE(*n_key <= GGUF_KEY_MAX, ERR_INTEGRITY,
            "%s: byte 16: %llu keys, at most %d are possible", p->path, (unsigned long long)*n_key,
            GGUF_KEY_MAX);
    /* the shortest tensor entry takes 33 bytes, the shortest key 13 */
    REQUIRE(*n_tensor * 33 + *n_key * 13 <= p->file.size, ERR_INTEGRITY,
            "%s: %llu tensors and %llu keys do not fit a file of %llu bytes", p->path,
            (unsigned long long)*n_tensor, (unsigned long long)*n_key,
            (unsigned long long)p->file.size);
    return ERR_OK;
}

static enum err keep_keys(struct gguf *g, const struct part *p, const struct raw_key *raw, size_t n)
{
    g->keys = mem_alloc_array(n + 1, sizeof g->keys[0]);
    REQUIRE(g->keys != NULL, ERR_MEMORY, "%s: no memory for %zu keys", p->path, n);
    for (size_t i = 0; i < n; i++) {
        g->keys[i] = (struct kv){ .key = { (const char *)p->bytes + raw[i].key_at, raw[i].key_n },
                                  .type = (enum gguf_type)raw[i].type,
                                  .value = p->bytes + raw[i].value_at,
                                  .n = raw[i].value_n };
    }
    g->n_key = n;
    return check_key_names(g);
}

static enum err keep_tensors(struct gguf *g, size_t i_part, const struct raw_tensor *raw, size_t n,
                             uint32_t align)
{
    const struct part *p = &g->parts[i_part];
    REQUIRE(g->n_tensor + n <= GGUF_TENSOR_MAX, ERR_INTEGRITY,
            "%s: more than %d tensors in all parts", p->path, GGUF_TENSOR_MAX);
    struct gguf_tensor *all = mem_realloc(g->tensors, (g->n_tensor + n + 1) * sizeof all[0]);
    REQUIRE(all != NULL, ERR_MEMORY, "%s: no memory for %zu tensors", p->path, n);
    g->tensors = all;
    for (size_t i = 0; i < n; i++) {
        struct gguf_tensor *t = &g->tensors[g->n_tensor];
        *t = raw[i].t;
        t->name = (struct view){ (const char *)p->bytes + raw[i].name_at, raw[i].name_n };
        t->i_file = (int)i_part;
        TRY(check_range(p, t, align));
        g->n_tensor++;
    }
    return ERR_OK;
}

static enum err read_lists(struct gguf *g, size_t i_part, struct cursor *c, struct raw_key *keys,
                           size_t n_key, struct raw_tensor *tensors, size_t n_tensor)
{
    struct part *p = &g->parts[i_part];
    uint32_t align = ALIGN_DEFAULT;
    for (size_t i = 0; i < n_key; i++) {
        TRY(read_key(c, &keys[i]));
        const struct view key = { (const char *)p->bytes + keys[i].key_at, keys[i].key_n };
        if (view_is(key, "general.alignment") && keys[i].type == GGUF_U32) {
            align = u32_at(p->bytes + keys[i].value_at);
        }
    }
    REQUIRE(align >= 8 && align <= ALIGN_MAX && (align & (align - 1)) == 0, ERR_INTEGRITY,
            "%s: general.alignment is %u, must be a power of two in 8..%u", p->path, align,
            ALIGN_MAX);
    for (size_t i = 0; i < n_tensor; i++) {
        TRY(read_tensor(c, &tensors[i]));
    }
    p->data_at = ((uint64_t)c->at + align - 1) / align * align;
    if (i_part == 0) {
        TRY(keep_keys(g, p, keys, n_key));
    }
    return keep_tensors(g, i_part, tensors, n_tensor, align);
}

static enum err read_part(struct gguf *g, size_t i_part, const char *path)
{
    struct part *p = &g->parts[i_part];
    p->path = mem_strdup(path, strlen(path));
    REQUIRE(p->path != NULL, ERR_MEMORY, "%s: no memory", path);
    TRY(os_open(&p->file, path));
    struct cursor c = { .part = p };
    uint64_t n_tensor = 0;
    uint64_t n_key = 0;
    uint32_t version = 0;
    TRY(read_head(&c, &version, &n_tensor, &n_key));
    if (i_part == 0) {
        g->version = version;
    }
    struct raw_key *keys = mem_alloc_array((size_t)n_key + 1, sizeof keys[0]);
    struct raw_tensor *tensors = mem_alloc_array((size_t)n_tensor + 1, sizeof tensors[0]);
    enum err e = keys != NULL && tensors != NULL
                     ? ERR_OK
                     : err_set(ERR_MEMORY, "%s: no memory for its lists", path);
    e = e == ERR_OK ? read_lists(g, i_part, &c, keys, (size_t)n_key, tensors, (size_t)n_tensor) : e;
    mem_free(keys);
    mem_free(tensors);
    return e;
}

/* --- split models
 * -------------------------------------------------------------------------------------------------
 */

#define SPLIT_TAIL 20 /* "-00001-of-00002.gguf" */

/* Part number and count from a name; false when it is no part's name. */
static bool parse_split(const char *path, uint32_t *i, uint32_t *n)
{
    const size_t len = strlen(path);
    if (len < SPLIT_TAIL) {
        return false;
    }
    const char *tail = path + len - SPLIT_TAIL;
    uint64_t a = 0;
    uint64_t b = 0;
    if (tail[0] != '-' || memcmp(tail + 6, "-of-", 4) != 0 || strcmp(tail + 15, ".gguf") != 0 ||
        !view_u64((struct view){ tail + 1, 5 }, &a) ||
        !view_u64((struct view){ tail + 10, 5 }, &b)) {
        return false;
    }
    *i = (uint32_t)a;
    *n = (uint32_t)b;
    return true;
}

static enum err read_parts(struct gguf *g, const char *path)
{
    uint32_t i_own = 1;
    uint32_t n_part = 1;
    const bool is_split = parse_split(path, &i_own, &n_part);
    REQUIRE(!is_split || (n_part >= 1 && n_part <= GGUF_SPLIT_MAX), ERR_UNSUPPORTED,
            "%s: %u parts, at most %d are supported", path, n_part, GGUF_SPLIT_MAX);
    if (is_split && i_own != 1) {
        return err_set(ERR_USAGE,
                       "%s: part %u of a split model; give part 1 (%.*s-00001-of-%05u.gguf)", path,
                       i_own, (int)(strlen(path) - SPLIT_TAIL), path, n_part);
    }
    g->parts = mem_alloc_array(n_part, sizeof g->parts[0]);
    char *name = mem_alloc(strlen(path) + 32);
    enum err e =
        g->parts != NULL && name != NULL ? ERR_OK : err_set(ERR_MEMORY, "%s: no memory", path);
    for (uint32_t i = 0; i < n_part && e == ERR_OK; i++) {
        g->parts[i].file.fd = -1;
        g->n_part = i + 1;
        if (is_split) {
            snprintf(name, strlen(path) + 32, "%.*s-%05u-of-%05u.gguf",
                     (int)(strlen(path) - SPLIT_TAIL), path, i + 1, n_part);
        } else {
            memcpy(name, path, strlen(path) + 1);
        }
        e = read_part(g, i, name);
    }
    mem_free(name);
    TRY(e);
    uint32_t n_said = n_part;
    TRY(gguf_u32(g, "split.count", &n_said, NULL));
    REQUIRE(n_said == n_part || n_said == 0, ERR_INTEGRITY,
            "%s: split.count is %u, the name says %u", path, n_said, n_part);
    return ERR_OK;
}

enum err gguf_open(struct gguf **out, const char *path)
{
    struct gguf *g = mem_alloc(sizeof *g);
    REQUIRE(g != NULL, ERR_MEMORY, "%s: no memory", path);
    enum err e = read_parts(g, path);
    e = e == ERR_OK ? index_names(g) : e;
    e = e == ERR_OK ? check_overlaps(g) : e;
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
        os_close(&g->parts[i].file);
        mem_free(g->parts[i].path);
        mem_free(g->parts[i].bytes);
    }
    mem_free(g->parts);
    mem_free(g->keys);
    mem_free(g->tensors);
    mem_free(g->by_name);
    mem_free(g);
}

/* --- access
 * ---------------------------------------------------------------------------------------------------------
 */

uint32_t gguf_version(const struct gguf *g)
{
    return g->version;
}

uint64_t gguf_file_bytes(const struct gguf *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < g->n_part; i++) {
        n += g->parts[i].file.size;
    }
    return n;
}

const char *gguf_path(const struct gguf *g)
{
    return g->parts[0].path;
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find_key(g, key) != NULL;
}

static enum err wrong_type(const struct gguf *g, const char *key, const char *wanted)
{
    return err_set(ERR_INTEGRITY, "%s: key %s: %s is wanted, the value has type %d", gguf_path(g),
                   key, wanted, (int)find_key(g, key)->type);
}

/* Integer value of kind `type` at p; false when it is no integer. */
static bool int_at(enum gguf_type type, const uint8_t *p, int64_t *out)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_BOOL:
        *out = p[0];
        return true;
    case GGUF_I8:
        *out = (int8_t)p[0];
        return true;
    case GGUF_U16:
        *out = p[0] | p[1] << 8;
        return true;
    case GGUF_I16:
        *out = (int16_t)(p[0] | p[1] << 8);
        return true;
    case GGUF_U32:
        *out = u32_at(p);
        return true;
    case GGUF_I32:
        *out = (int32_t)u32_at(p);
        return true;
    case GGUF_U64:
    case GGUF_I64:
        *out = (int64_t)u64_at(p);
        return type == GGUF_I64 || *out >= 0;
    default:
        return false;
    }
}

enum err gguf_u64(const struct gguf *g, const char *key, uint64_t *out, bool *found)
{
    const struct kv *k = find_key(g, key);
    if (found != NULL) {
        *found = k != NULL;
    }
    if (k == NULL) {
        return ERR_OK;
    }
    int64_t v = 0;
    if (k->type == GGUF_BOOL || !int_at(k->type, k->value, &v)) {
        return wrong_type(g, key, "an integer");
    }
    REQUIRE(v >= 0, ERR_INTEGRITY, "%s: key %s: %lld, a number of 0 or more is wanted",
            gguf_path(g), key, (long long)v);
    *out = (uint64_t)v;
    return ERR_OK;
}

enum err gguf_u32(const struct gguf *g, const char *key, uint32_t *out, bool *found)
{
    uint64_t v = *out;
    TRY(gguf_u64(g, key, &v, found));
    REQUIRE(v <= UINT32_MAX, ERR_INTEGRITY, "%s: key %s: %llu is too large", gguf_path(g), key,
            (unsigned long long)v);
    *out = (uint32_t)v;
    return ERR_OK;
}

static float f32_at(const uint8_t *p)
{
    const uint32_t u = u32_at(p);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static double f64_at(const uint8_t *p)
{
    const uint64_t u = u64_at(p);
    double f;
    memcpy(&f, &u, sizeof f);
    return f;
}

enum err gguf_f32(const struct gguf *g, const char *key, float *out, bool *found)
{
    const struct kv *k = find_key(g, key);
    if (found != NULL) {
        *found = k != NULL;
    }
    if (k == NULL) {
        return ERR_OK;
    }
    if (k->type == GGUF_F32) {
        *out = f32_at(k->value);
    } else if (k->type == GGUF_F64) {
        *out = (float)f64_at(k->value);
    } else {
        return wrong_type(g, key, "a floating-point number");
    }
    return ERR_OK;
}

enum err gguf_bool(const struct gguf *g, const char *key, bool *out, bool *found)
{
    const struct kv *k = find_key(g, key);
    if (found != NULL) {
        *found = k != NULL;
    }
    if (k == NULL) {
        return ERR_OK;
    }
    if (k->type != GGUF_BOOL) {
        return wrong_type(g, key, "true or false");
    }
    *out = k->value[0] != 0;
    return ERR_OK;
}

enum err gguf_string(const struct gguf *g, const char *key, struct view *out, bool *found)
{
    const struct kv *k = find_key(g, key);
    if (found != NULL) {
        *found = k != NULL;
    }
    if (k == NULL) {
        return ERR_OK;
    }
    if (k->type != GGUF_STRING) {
        return wrong_type(g, key, "a string");
    }
    *out = (struct view){ (const char *)k->value + 8, k->n - 8 };
    return ERR_OK;
}

enum err gguf_array(const struct gguf *g, const char *key, struct gguf_array *out, bool *found)
{
    const struct kv *k = find_key(g, key);
    if (found != NULL) {
        *found = k != NULL;
    }
    if (k == NULL) {
        return ERR_OK;
    }
    if (k->type != GGUF_ARRAY) {
        return wrong_type(g, key, "an array");
    }
    *out = (struct gguf_array){ .type = (enum gguf_type)u32_at(k->value),
                                .n = u64_at(k->value + 4),
                                .bytes = k->value + 12 };
    return ERR_OK;
}

bool gguf_array_string(const struct gguf_array *a, struct gguf_string_iter *it, struct view *out)
{
    if (a->type != GGUF_STRING || it->i >= a->n) {
        return false;
    }
    const uint8_t *p = it->i == 0 ? a->bytes : it->at;
    *out = (struct view){ (const char *)p + 8, (size_t)u64_at(p) };
    it->at = p + 8 + out->n;
    it->i++;
    return true;
}

bool gguf_array_int(const struct gguf_array *a, uint64_t i, int64_t *out)
{
    return i < a->n && type_bytes(a->type) > 0 &&
           int_at(a->type, (const uint8_t *)a->bytes + i * type_bytes(a->type), out);
}

bool gguf_array_float(const struct gguf_array *a, uint64_t i, float *out)
{
    if (i >= a->n || (a->type != GGUF_F32 && a->type != GGUF_F64)) {
        return false;
    }
    const uint8_t *p = (const uint8_t *)a->bytes + i * type_bytes(a->type);
    *out = a->type == GGUF_F32 ? f32_at(p) : (float)f64_at(p);
    return true;
}

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
        buf_printf(out, "%g", type == GGUF_F32 ? (double)f32_at(p) : f64_at(p));
    } else if (type == GGUF_BOOL) {
        buf_add_str(out, p[0] != 0 ? "true" : "false");
    } else if (int_at(type, p, &v)) {
        buf_printf(out, "%lld", (long long)v);
    } else {
        buf_printf(out, "%llu", (unsigned long long)u64_at(p));
    }
}

void gguf_value_text(const struct gguf *g, size_t i, struct buf *out)
{
    const struct kv *k = &g->keys[i];
    if (k->type == GGUF_STRING) {
        utf8_clean(out, view_part((struct view){ (const char *)k->value + 8, k->n - 8 }, 0, 2000));
        return;
    }
    if (k->type != GGUF_ARRAY) {
        scalar_text(k->type, k->value, out);
        return;
    }
    const struct gguf_array a = { .type = (enum gguf_type)u32_at(k->value),
                                  .n = u64_at(k->value + 4),
                                  .bytes = k->value + 12 };
    struct gguf_string_iter it = { 0 };
    struct view s;
    buf_printf(out, "[%llu]", (unsigned long long)a.n);
    for (uint64_t e = 0; e < a.n && e < 4; e++) {
        buf_add_char(out, ' ');
        if (gguf_array_string(&a, &it, &s)) {
            utf8_clean(out, view_part(s, 0, 40));
        } else if (a.type != GGUF_STRING) {
            scalar_text(a.type, (const uint8_t *)a.bytes + e * type_bytes(a.type), out);
        }
    }
}

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
    const struct view v = view_of(name);
    for (size_t at = hash_mix(v.p, v.n, 0) & (g->n_slot - 1); g->by_name[at] != 0;
         at = (at + 1) & (g->n_slot - 1)) {
        const struct gguf_tensor *t = &g->tensors[g->by_name[at] - 1];
        if (view_eq(t->name, v)) {
            return t;
        }
    }
    return NULL;
}

enum err gguf_read(const struct gguf *g, const struct gguf_tensor *t, size_t at, void *to, size_t n)
{
    const struct part *p = &g->parts[t->i_file];
    REQUIRE(at <= t->bytes && n <= t->bytes - at, ERR_FAILED,
            "%s: tensor %.*s: reading beyond its end", p->path, (int)t->name.n, t->name.p);
    const enum err e = os_read_at(&p->file, to, n, t->offset + at);
    return e == ERR_OK ? e : err_at(e, "%s: tensor %.*s", p->path, (int)t->name.n, t->name.p);
}

enum err gguf_unchanged(const struct gguf *g)
{
    for (size_t i = 0; i < g->n_part; i++) {
        TRY(os_unchanged(&g->parts[i].file, g->parts[i].path));
    }
    return ERR_OK;
}
