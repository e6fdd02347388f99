/* gguf_head - the header of one GGUF file, read and checked
 *
 * A GGUF file is a header, a list of keys with typed values, a list of tensors (name, shape, type,
 * offset) and, from an aligned position on, the tensors' bytes. Everything before the data is read
 * into one growing buffer by bounded reads and walked with a cursor that knows how many bytes the
 * file has left; a count that claims more than could possibly follow is refused before anything is
 * allocated for it. Values are not copied: keys, strings and arrays are views into that buffer, and
 * since every byte is read once, what was checked is what is used.
 *
 * The buffer moves while it grows, so the lists hold offsets until the last byte is there.
 *
 *     "GGUF" | version u32 | tensors u64 | keys u64
 *     | for each key: name, type u32, value
 *     | for each tensor: name, dimensions u32, each u64, type u32, offset u64
 *     | padding to general.alignment | the tensors' bytes
 *     a string is its length as u64 and its bytes; an array is type u32, count u64, values
 *
 * Rejected: mapping the file (a mapped file that shrinks ends the process by SIGBUS; a read that
 * comes back short is an error with a name), checking values when they are asked for (every reader
 * would need an error path for a damaged file), and repairing what can be repaired (two readers
 * would see two models).
 *
 * A packed image begins in the same way, with the magic HPAK, its own version, and its weights from
 * a multiple of GGUF_IMAGE_ALIGN on.
 *
 * Every error names the file, the byte, the key or tensor, and the reason; names that come from the
 * file are quoted up to GGUF_SHOWN_MAX bytes, so that the reason is never cut off.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Next: model/gguf.c. */
#include "model/gguf_head.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define PIECE_MIN      ((size_t)256 * 1024) /* bytes of the first read; later ones double */
#define ALIGN_DEFAULT  32
#define ALIGN_MAX      ((int64_t)1 << 20)
#define KEY_MAX_BYTES  65535 /* the specification's limit */
#define NAME_MAX_BYTES 256   /* of a tensor; writers use at most 64 */

/* --- the cursor */

/* One file's header while it is read. */
struct cursor {
    struct gguf_head *head; /* borrows */
    size_t at;              /* next byte */
    size_t n_read;          /* of head->bytes */
    size_t cap;
    size_t budget_bytes; /* bytes that the header may have */
    int64_t align;
};

/* What to do about a file that is too short; an image is known by its first bytes. */
static const char *again(const struct gguf_head *h)
{
    return h->is_image        ? "make it again: hearth pull --pack MODEL"
           : h->file.size < 4 ? "download it again, or make it again if it is a packed image "
                                "(hearth pull --pack MODEL)"
                              : "download it again";
}

/* Reads on so that bytes [0, end) are there; end is within file and budget. */
static enum err read_more(struct cursor *c, size_t end)
{
    struct gguf_head *h = c->head;
    size_t upto = end > 2 * c->n_read ? end : 2 * c->n_read;
    upto = upto > PIECE_MIN ? upto : PIECE_MIN;
    upto = upto < c->budget_bytes ? upto : c->budget_bytes;
    upto = upto < h->file.size ? upto : (size_t)h->file.size;
    if (upto > c->cap) {
        uint8_t *bytes = mem_realloc(h->bytes, upto);
        REQUIRE(bytes != NULL, ERR_MEMORY, "%s: no memory for %zu bytes of metadata", h->shown,
                upto);
        h->bytes = bytes;
        c->cap = upto;
    }
    const enum err e = os_read_at(&h->file, h->bytes + c->n_read, upto - c->n_read, c->n_read);
    if (e != ERR_OK) {
        return err_at(e, "%s", h->shown);
    }
    c->n_read = upto;
    return ERR_OK;
}

/* Makes bytes [at, at + n) available. Pointers into head->bytes are invalid after it, so places are
 * kept as offsets until the header is complete. */
static enum err need(struct cursor *c, size_t n, const char *what)
{
    const struct gguf_head *h = c->head;
    if (n <= c->n_read && c->at <= c->n_read - n) {
        return ERR_OK;
    }
    REQUIRE(n <= h->file.size && c->at <= h->file.size - n, ERR_INTEGRITY,
            "%s: byte %zu: %s needs %zu bytes, the file ends at %llu; %s", h->shown, c->at, what, n,
            (unsigned long long)h->file.size, again(h));
    REQUIRE(n <= c->budget_bytes && c->at <= c->budget_bytes - n, ERR_LIMIT,
            "%s: byte %zu: %s needs %zu bytes: the metadata is larger than %u MB", h->shown, c->at,
            what, n, GGUF_META_MAX_BYTES >> 20);
    return read_more(c, c->at + n);
}

static enum err read_u32(struct cursor *c, const char *what, uint32_t *out)
{
    TRY(need(c, 4, what));
    *out = gguf_head_u32(c->head->bytes + c->at);
    c->at += 4;
    return ERR_OK;
}

static enum err read_u64(struct cursor *c, const char *what, uint64_t *out)
{
    TRY(need(c, 8, what));
    *out = gguf_head_u64(c->head->bytes + c->at);
    c->at += 8;
    return ERR_OK;
}

/* A length and that many bytes; *at is where the bytes begin. */
static enum err read_string(struct cursor *c, const char *what, size_t max, size_t *at, size_t *n)
{
    uint64_t len = 0;
    TRY(read_u64(c, what, &len));
    const uint64_t left = c->head->file.size - c->at;
    REQUIRE(len <= left, ERR_INTEGRITY,
            "%s: byte %zu: %s: a string of %llu bytes, the file has %llu left", c->head->shown,
            c->at - 8, what, (unsigned long long)len, (unsigned long long)left);
    REQUIRE(len <= max, ERR_INTEGRITY,
            "%s: byte %zu: %s: a string of %llu bytes, at most %zu are possible", c->head->shown,
            c->at - 8, what, (unsigned long long)len, max);
    TRY(need(c, (size_t)len, what));
    *at = c->at;
    *n = (size_t)len;
    c->at += (size_t)len;
    return ERR_OK;
}

/* --- keys and values */

static const char *const type_names[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                          "bool", "string", "array", "u64", "i64", "f64" };

const char *gguf_head_type_name(enum gguf_type type)
{
    const size_t i = (size_t)type;
    return i < sizeof type_names / sizeof type_names[0] ? type_names[i] : "unknown";
}

size_t gguf_head_type_bytes(uint32_t type)
{
    static const uint8_t bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type < sizeof bytes ? bytes[type] : 0;
}

/* A truth value is one byte, 0 or 1. */
static enum err check_bools(const struct cursor *c, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t v = c->head->bytes[c->at + i];
        REQUIRE(v <= 1, ERR_INTEGRITY, "%s: byte %zu: key %s: a truth value of %u, not 0 or 1",
                c->head->shown, c->at + i, key, v);
    }
    return ERR_OK;
}

/* n values of fixed size in a row. */
static enum err skip_fixed(struct cursor *c, uint32_t type, size_t n, const char *key)
{
    const size_t bytes = n * gguf_head_type_bytes(type); /* at most what the file has left */
    TRY(need(c, bytes, key));
    if (type == GGUF_BOOL) {
        TRY(check_bools(c, n, key));
    }
    c->at += bytes;
    return ERR_OK;
}

/* Walks over an array, so that its end is known and everything in it is checked. No arrays of
 * arrays. */
static enum err skip_array(struct cursor *c, const char *key)
{
    uint32_t type = 0;
    uint64_t n = 0;
    TRY(read_u32(c, key, &type));
    TRY(read_u64(c, key, &n));
    const char *path = c->head->shown;
    REQUIRE(type != GGUF_ARRAY, ERR_UNSUPPORTED,
            "%s: byte %zu: key %s: arrays of arrays are not supported", path, c->at - 12, key);
    const size_t each = type == GGUF_STRING ? 8 : gguf_head_type_bytes(type);
    REQUIRE(each > 0, ERR_INTEGRITY, "%s: byte %zu: key %s: array of the unknown value type %u",
            path, c->at - 12, key, type);
    const uint64_t left = c->head->file.size - c->at;
    REQUIRE(n <= left / each, ERR_INTEGRITY,
            "%s: byte %zu: key %s: %llu elements, the file has %llu bytes left; %s", path,
            c->at - 8, key, (unsigned long long)n, (unsigned long long)left, again(c->head));
    if (type != GGUF_STRING) {
        return skip_fixed(c, type, (size_t)n, key);
    }
    for (uint64_t i = 0; i < n; i++) {
        size_t at;
        size_t len;
        TRY(read_string(c, key, GGUF_META_MAX_BYTES, &at, &len));
    }
    return ERR_OK;
}

/* Walks over one value of a type. */
static enum err skip_value(struct cursor *c, uint32_t type, const char *key)
{
    if (type == GGUF_ARRAY) {
        return skip_array(c, key);
    }
    if (type == GGUF_STRING) {
        size_t at;
        size_t n;
        return read_string(c, key, GGUF_META_MAX_BYTES, &at, &n);
    }
    REQUIRE(gguf_head_type_bytes(type) > 0, ERR_INTEGRITY,
            "%s: byte %zu: key %s has the unknown value type %u", c->head->shown, c->at - 4, key,
            type);
    return skip_fixed(c, type, 1, key);
}

bool gguf_head_int(enum gguf_type type, const uint8_t *p, int64_t *out)
{
    switch (type) {
    case GGUF_U8:
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
        *out = gguf_head_u32(p);
        return true;
    case GGUF_I32:
        *out = (int32_t)gguf_head_u32(p);
        return true;
    case GGUF_U64:
    case GGUF_I64:
        *out = (int64_t)gguf_head_u64(p);
        return true;
    default:
        return false;
    }
}

/* The few keys that concern the reader itself. */
static enum err note_key(struct cursor *c, struct view key, uint32_t type, size_t value_at)
{
    struct gguf_head *p = c->head;
    const struct {
        const char *name;
        int64_t *to;
        int64_t max;
    } rows[] = { { "general.alignment", &c->align, ALIGN_MAX },
                 { "split.no", &p->split_no, 65535 },
                 { "split.count", &p->split_count, 65535 },
                 { "split.tensors.count", &p->split_tensors, INT32_MAX } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t v = 0;
        if (!view_is(key, rows[i].name)) {
            continue;
        }
        REQUIRE(gguf_head_int((enum gguf_type)type, p->bytes + value_at, &v), ERR_INTEGRITY,
                "%s: byte %zu: key %s: an integer is wanted, the value is of type %s", p->shown,
                value_at, rows[i].name, gguf_head_type_name((enum gguf_type)type));
        REQUIRE(v >= 0 && v <= rows[i].max, ERR_INTEGRITY,
                "%s: byte %zu: key %s: %lld, 0..%lld is possible", p->shown, value_at, rows[i].name,
                (long long)v, (long long)rows[i].max);
        *rows[i].to = v;
    }
    return ERR_OK;
}

/* Offsets while reading, views after: need() may move the bytes. */
struct raw_key {
    size_t key_at;
    size_t key_n;
    size_t value_at;
    size_t value_n;
    uint32_t type;
};

static enum err read_key(struct cursor *c, struct raw_key *k)
{
    char name[GGUF_SHOWN_MAX + 1];
    TRY(read_string(c, "a key", KEY_MAX_BYTES, &k->key_at, &k->key_n));
    struct view key = { (const char *)c->head->bytes + k->key_at, k->key_n };
    REQUIRE(k->key_n > 0 && utf8_valid(key), ERR_INTEGRITY, "%s: byte %zu: a key that is %s",
            c->head->shown, k->key_at, k->key_n > 0 ? "no UTF-8" : "empty");
    snprintf(name, sizeof name, "%.*s", gguf_head_shown(key), key.p);
    TRY(read_u32(c, name, &k->type));
    k->value_at = c->at;
    TRY(skip_value(c, k->type, name));
    k->value_n = c->at - k->value_at;
    key.p = (const char *)c->head->bytes + k->key_at;
    return note_key(c, key, k->type, k->value_at);
}

/* --- tensors */

struct raw_tensor {
    size_t name_at;
    size_t name_n;
    size_t offset_at; /* where its offset stands, for errors */
    struct gguf_tensor t;
};

/* Dimensions and their product, which must not overflow; missing ones are 1. */
static enum err read_shape(struct cursor *c, struct gguf_tensor *t, const char *name,
                           uint64_t *n_elem)
{
    const char *path = c->head->shown;
    TRY(read_u32(c, name, &t->n_dim));
    REQUIRE(t->n_dim >= 1 && t->n_dim <= GGUF_DIM_MAX, ERR_INTEGRITY,
            "%s: byte %zu: tensor %s: %u dimensions, 1..%d are possible", path, c->at - 4, name,
            t->n_dim, GGUF_DIM_MAX);
    *n_elem = 1;
    for (uint32_t i = 0; i < GGUF_DIM_MAX; i++) {
        t->dim[i] = 1;
        if (i < t->n_dim) {
            TRY(read_u64(c, name, &t->dim[i]));
        }
        REQUIRE(t->dim[i] > 0, ERR_INTEGRITY, "%s: byte %zu: tensor %s: dimension %u is 0", path,
                c->at - 8, name, i);
        REQUIRE(!__builtin_mul_overflow(*n_elem, t->dim[i], n_elem) && *n_elem <= INT64_MAX,
                ERR_INTEGRITY, "%s: byte %zu: tensor %s: dimension %u is %llu: the size overflows",
                path, c->at - 8, name, i, (unsigned long long)t->dim[i]);
    }
    return ERR_OK;
}

static enum err read_tensor(struct cursor *c, struct raw_tensor *r)
{
    const char *path = c->head->shown;
    struct gguf_tensor *t = &r->t;
    char name[GGUF_SHOWN_MAX + 1];
    uint64_t n_elem = 1;
    TRY(read_string(c, "a tensor's name", NAME_MAX_BYTES, &r->name_at, &r->name_n));
    const struct view v = { (const char *)c->head->bytes + r->name_at, r->name_n };
    REQUIRE(v.n > 0 && utf8_valid(v), ERR_INTEGRITY, "%s: byte %zu: a tensor name that is %s", path,
            r->name_at, v.n > 0 ? "no UTF-8" : "empty");
    snprintf(name, sizeof name, "%.*s", gguf_head_shown(v), v.p);
    TRY(read_shape(c, t, name, &n_elem));
    TRY(read_u32(c, name, &t->type));
    r->offset_at = c->at;
    TRY(read_u64(c, name, &t->offset));
    const struct quant_info *q = quant_get(t->type);
    REQUIRE(q->block > 0, ERR_UNSUPPORTED, "%s: byte %zu: tensor %s: element type %u is not known",
            path, r->offset_at - 4, name, t->type);
    REQUIRE(q->decode != NULL, ERR_UNSUPPORTED,
            "%s: byte %zu: tensor %s: element type %s cannot hold weights", path, r->offset_at - 4,
            name, q->name);
    REQUIRE(t->dim[0] % q->block == 0, ERR_INTEGRITY,
            "%s: byte %zu: tensor %s: rows of %llu do not divide into %s blocks of %u", path,
            r->name_at + r->name_n + 4, name, (unsigned long long)t->dim[0], q->name, q->block);
    REQUIRE(quant_bytes(t->type, n_elem, &t->bytes), ERR_INTEGRITY,
            "%s: byte %zu: tensor %s: its size overflows", path, r->name_at + r->name_n, name);
    return ERR_OK;
}

/* Turns the offset within the data into one within the file. An image's directory has none: there
 * the weights lie slot by slot. */
static enum err check_range(const struct cursor *c, struct gguf_tensor *t, size_t offset_at)
{
    const struct gguf_head *h = c->head;
    const uint64_t data_at = h->data_at;
    REQUIRE(
        !h->is_image || t->offset == 0, ERR_INTEGRITY,
        "%s: byte %zu: tensor %.*s: an offset in a packed image, which has none; make it again: "
        "hearth pull --pack MODEL",
        h->shown, offset_at, gguf_head_shown(t->name), t->name.p);
    REQUIRE(t->offset % (uint64_t)c->align == 0, ERR_INTEGRITY,
            "%s: byte %zu: tensor %.*s: offset %llu is no multiple of the alignment %lld", h->shown,
            offset_at, gguf_head_shown(t->name), t->name.p, (unsigned long long)t->offset,
            (long long)c->align);
    const uint64_t room = h->file.size > data_at ? h->file.size - data_at : 0;
    REQUIRE(t->bytes <= room && t->offset <= room - t->bytes, ERR_INTEGRITY,
            "%s: byte %zu: tensor %.*s: needs %zu bytes at %llu of the data, which has %llu; "
            "%s",
            h->shown, offset_at, gguf_head_shown(t->name), t->name.p, t->bytes,
            (unsigned long long)t->offset, (unsigned long long)room, again(h));
    t->offset += data_at;
    return ERR_OK;
}

/* --- one file */

static enum err read_image_version(struct cursor *c, uint32_t *version)
{
    c->at = 4;
    c->head->is_image = true;
    TRY(read_u32(c, "the version", version));
    REQUIRE(*version == GGUF_IMAGE_VERSION, ERR_UNSUPPORTED,
            "%s: byte 4: a packed image of version %u, this hearth reads %d; make it again: hearth "
            "pull --pack MODEL",
            c->head->shown, *version, GGUF_IMAGE_VERSION);
    *version = 3; /* of the lists that follow */
    return ERR_OK;
}

static enum err read_version(struct cursor *c, uint32_t *version)
{
    const struct gguf_head *p = c->head;
    TRY(need(c, 4, "the header"));
    if (memcmp(p->bytes, GGUF_IMAGE_MAGIC, 4) == 0) {
        return read_image_version(c, version);
    }
    REQUIRE(memcmp(p->bytes, "GGUF", 4) == 0, ERR_INTEGRITY,
            "%s: byte 0: not a GGUF file (it begins with %02x %02x %02x %02x)", p->shown,
            p->bytes[0], p->bytes[1], p->bytes[2], p->bytes[3]);
    c->at = 4;
    TRY(read_u32(c, "the version", version));
    REQUIRE((*version & 0xFFFF) != 0 || *version == 0, ERR_UNSUPPORTED,
            "%s: byte 4: a big-endian GGUF file; convert it to little-endian", p->shown);
    REQUIRE(*version != 1, ERR_UNSUPPORTED,
            "%s: byte 4: GGUF version 1, which nobody writes any more; convert the model again",
            p->shown);
    REQUIRE(*version == 2 || *version == 3, ERR_UNSUPPORTED,
            "%s: byte 4: GGUF version %u; versions 2 and 3 are supported", p->shown, *version);
    return ERR_OK;
}

/* Both counts against what the rest of the file could hold at most. */
static enum err read_counts(struct cursor *c, uint64_t *n_tensor, uint64_t *n_key)
{
    const struct gguf_head *p = c->head;
    TRY(read_u64(c, "the tensor count", n_tensor));
    TRY(read_u64(c, "the key count", n_key));
    REQUIRE(*n_tensor <= GGUF_TENSOR_MAX, ERR_LIMIT, "%s: byte 8: %llu tensors, at most %d",
            p->shown, (unsigned long long)*n_tensor, GGUF_TENSOR_MAX);
    REQUIRE(*n_key <= GGUF_KEY_MAX, ERR_LIMIT, "%s: byte 16: %llu keys, at most %d", p->shown,
            (unsigned long long)*n_key, GGUF_KEY_MAX);
    /* the shortest tensor entry takes 33 bytes, the shortest key 14 */
    REQUIRE(*n_tensor * 33 + *n_key * 14 <= p->file.size - c->at, ERR_INTEGRITY,
            "%s: byte 8: %llu tensors and %llu keys do not fit into a file of %llu bytes; %s",
            p->shown, (unsigned long long)*n_tensor, (unsigned long long)*n_key,
            (unsigned long long)p->file.size, again(p));
    return ERR_OK;
}

/* Keys and tensors while the bytes they point into may still move. */
struct lists {
    struct raw_key *keys;       /* [n_key], owns */
    struct raw_tensor *tensors; /* [n_tensor], owns */
    size_t n_key;
    size_t n_tensor;
};

static enum err read_lists(struct cursor *c, struct lists *l)
{
    const char *path = c->head->shown;
    l->keys = mem_alloc_array(l->n_key + 1, sizeof l->keys[0]);
    l->tensors = mem_alloc_array(l->n_tensor + 1, sizeof l->tensors[0]);
    REQUIRE(l->keys != NULL && l->tensors != NULL, ERR_MEMORY,
            "%s: no memory for lists of %zu keys and %zu tensors", path, l->n_key, l->n_tensor);
    for (size_t i = 0; i < l->n_key; i++) {
        TRY(read_key(c, &l->keys[i]));
    }
    REQUIRE(c->align >= 8 && (c->align & (c->align - 1)) == 0, ERR_INTEGRITY,
            "%s: key general.alignment: %lld, must be a power of two in 8..%lld", path,
            (long long)c->align, (long long)ALIGN_MAX);
    for (size_t i = 0; i < l->n_tensor; i++) {
        TRY(read_tensor(c, &l->tensors[i]));
    }
    return ERR_OK;
}

/* The buffer is complete: offsets become views and stay valid. */
static enum err keep_lists(struct cursor *c, const struct lists *l)
{
    struct gguf_head *h = c->head;
    uint8_t *bytes = mem_realloc(h->bytes, c->at); /* what was read beyond the header goes */
    h->bytes = bytes != NULL ? bytes : h->bytes;
    h->n_bytes = c->at;
    const char *text = (const char *)h->bytes;
    h->data_at = mem_round(c->at, h->is_image ? GGUF_IMAGE_ALIGN : (size_t)c->align);
    h->keys = mem_alloc_array(l->n_key + 1, sizeof h->keys[0]);
    h->tensors = mem_alloc_array(l->n_tensor + 1, sizeof h->tensors[0]);
    REQUIRE(h->keys != NULL && h->tensors != NULL, ERR_MEMORY,
            "%s: no memory for %zu keys and %zu tensors", h->shown, l->n_key, l->n_tensor);
    for (; h->n_key < l->n_key; h->n_key++) {
        const struct raw_key *k = &l->keys[h->n_key];
        h->keys[h->n_key] = (struct gguf_kv){ .key = { text + k->key_at, k->key_n },
                                              .type = (enum gguf_type)k->type,
                                              .value = h->bytes + k->value_at,
                                              .n = k->value_n };
    }
    for (; h->n_tensor < l->n_tensor; h->n_tensor++) {
        const struct raw_tensor *r = &l->tensors[h->n_tensor];
        struct gguf_tensor *t = &h->tensors[h->n_tensor];
        *t = r->t;
        t->name = (struct view){ text + r->name_at, r->name_n };
        TRY(check_range(c, t, r->offset_at));
    }
    return ERR_OK;
}

void gguf_head_show_path(char shown[GGUF_SHOWN_MAX + 4], const char *path)
{
    const size_t n = strlen(path);
    if (n <= GGUF_SHOWN_MAX) {
        memcpy(shown, path, n + 1);
    } else {
        snprintf(shown, GGUF_SHOWN_MAX + 4, "...%s", path + n - GGUF_SHOWN_MAX);
    }
}

int gguf_head_shown(struct view name)
{
    return (int)(name.n < GGUF_SHOWN_MAX ? name.n : GGUF_SHOWN_MAX);
}

enum err gguf_head_open(struct gguf_head *h, const char *path, size_t budget_bytes)
{
    *h =
        (struct gguf_head){ .file.fd = -1, .split_no = -1, .split_count = -1, .split_tensors = -1 };
    gguf_head_show_path(h->shown, path);
    h->path = mem_strdup(path, strlen(path));
    REQUIRE(h->path != NULL, ERR_MEMORY, "%s: no memory", h->shown);
    TRY(os_open(&h->file, path));
    struct cursor c = { .head = h, .budget_bytes = budget_bytes, .align = ALIGN_DEFAULT };
    struct lists l = { 0 };
    uint64_t n_tensor = 0;
    uint64_t n_key = 0;
    TRY(read_version(&c, &h->version));
    TRY(read_counts(&c, &n_tensor, &n_key));
    l.n_tensor = (size_t)n_tensor;
    l.n_key = (size_t)n_key;
    enum err e = read_lists(&c, &l);
    e = e == ERR_OK ? keep_lists(&c, &l) : e;
    mem_free(l.keys);
    mem_free(l.tensors);
    return e;
}

void gguf_head_close(struct gguf_head *h)
{
    os_close(&h->file);
    mem_free(h->path);
    mem_free(h->bytes);
    mem_free(h->keys);
    mem_free(h->tensors);
    *h = (struct gguf_head){ .file.fd = -1 };
}
