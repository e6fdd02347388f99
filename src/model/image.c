/* image - a model whose weights lie packed in its file
 *
 * Starting from a GGUF file means reading it, packing it, and touching as much new memory as it has
 * bytes; on a virtual machine the last alone may take seconds. An image holds the arena as it would
 * be after loading, so that it is mapped and that is all. Its header is that of a GGUF file under
 * another magic, written here and read by the reader that every file goes through; so keys,
 * tokenizer and shapes are checked as always, and there is no second parser.
 *
 * What the arena holds follows from names, shapes and types, which weights_bind lays out, and from
 * num/pack.c. Both are in one digest (weights_layout), so an image of another layout is refused
 * without anybody having to remember to raise a number (WE-3).
 *
 * The header is sealed: its second key has its length and SHA-256, which whoever takes an image
 * from the store compares at each start (some milliseconds). The weights behind it are as many
 * bytes as the model, so only verify and pull read those.
 *
 * Vectors lie as floats in the arena, so their type in the image is F32, whatever it was.
 *
 * Rejected: tensors with offsets (of a fused tensor the slots lie apart), and GGUF's own magic:
 * other readers would take panels for rows.
 *
 * Next: engine/decoder.c. */
#include "model/image.h"

#include "base/hash.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE      ((size_t)2 << 20)
#define HEADER_MAX ((size_t)GGUF_META_MAX_BYTES)
#define BEGIN_MAX  512
#define SEAL_KEY   "hearth.image.header"

/* Bytes gathered into whole pieces. */
struct pieces {
    uint8_t *bytes; /* [PIECE], owns */
    size_t n;
    weights_take take;
    void *arg;
};

static enum err add(void *arg, const uint8_t *bytes, size_t n)
{
    struct pieces *p = arg;
    while (n > 0) {
        const size_t part = n < PIECE - p->n ? n : PIECE - p->n;
        memcpy(p->bytes + p->n, bytes, part);
        p->n += part;
        bytes += part;
        n -= part;
        if (p->n == PIECE) {
            p->n = 0;
            TRY(p->take(p->arg, p->bytes, PIECE));
        }
    }
    return ERR_OK;
}

static void put_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof v);
}

static void put_u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof v);
}

static void put_text(struct buf *b, struct view v)
{
    put_u64(b, v.n);
    buf_add_view(b, v);
}

static void put_string(struct buf *b, const char *key, const char *value)
{
    put_text(b, view_of(key));
    put_u32(b, GGUF_STRING);
    put_text(b, view_of(value));
}

static void put_version(struct buf *b)
{
    buf_add_str(b, GGUF_IMAGE_MAGIC);
    put_u32(b, GGUF_IMAGE_VERSION);
}

/* The value that tells the header's bytes and digest: "%016zx." and 64 digits, those of the digest
 * being zeros while it is taken. */
#define SEAL_N       (16 + 1 + 64)
#define SEAL_ZEROS   "0000000000000000000000000000000000000000000000000000000000000000"
#define SEAL_HEX(at) ((at) + 17)

static void seal(char *header, size_t n, size_t at, char hex[65])
{
    char text[SEAL_N + 1];
    snprintf(text, sizeof text, "%016zx." SEAL_ZEROS, n);
    memcpy(header + at, text, SEAL_N);
    hash_sha256_of(header, n, hex);
}

/* What the image says in another way. */
static bool is_left_out(struct view key)
{
    return view_starts(key, VIEW("split.")) || view_starts(key, VIEW("hearth.image."));
}

static void put_begin(struct buf *b, const char *layout)
{
    put_string(b, WEIGHTS_LAYOUT_KEY, layout);
    put_string(b, SEAL_KEY, "0000000000000000." SEAL_ZEROS);
}

static void put_keys(struct buf *b, const struct gguf *g, const char *layout)
{
    uint64_t n = 2;
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        enum gguf_type type;
        n += !is_left_out(gguf_key(g, i, &type));
    }
    put_u64(b, n);
    put_begin(b, layout); /* where image_begins finds it */
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        enum gguf_type type;
        const struct view key = gguf_key(g, i, &type);
        if (!is_left_out(key)) {
            put_text(b, key);
            put_u32(b, type);
            buf_add_view(b, gguf_value(g, i));
        }
    }
}

static void put_tensor(struct buf *b, const struct weights_load *l)
{
    const struct gguf_tensor *t = l->from;
    put_text(b, t->name);
    put_u32(b, t->n_dim);
    for (uint32_t i = 0; i < t->n_dim; i++) {
        put_u64(b, t->dim[i]);
    }
    put_u32(b, l->matrix != NULL ? t->type : QUANT_F32);
    put_u64(b, 0);
}

/* What image_begins compares: the beginning up to the seal, whose place it gives. */
static size_t begin_of(struct buf *b, const char *layout)
{
    put_version(b);
    put_u64(b, 0);
    put_u64(b, 0);
    put_begin(b, layout);
    return b->n - SEAL_N;
}

/* Each tensor once: by the slot that has its first row. */
static enum err put_header(struct buf *b, const struct weights *w, const struct gguf *g)
{
    char layout[65];
    char hex[65];
    struct buf begin;
    size_t n = 0;
    TRY(weights_layout(w, layout));
    put_version(b);
    put_u64(b, gguf_n_tensor(g));
    put_keys(b, g, layout);
    for (size_t i = 0; i < w->n_load; i++) {
        if (w->loads[i].row0 == 0) {
            put_tensor(b, &w->loads[i]);
            n++;
        }
    }
    REQUIRE(n == gguf_n_tensor(g), ERR_UNSUPPORTED, "%s: %zu tensors for %zu slots: no image of it",
            gguf_path(g), gguf_n_tensor(g), n);
    const size_t pad = mem_round(b->n, GGUF_IMAGE_ALIGN) - b->n;
    for (size_t i = 0; i < pad; i++) {
        buf_add_char(b, '\0');
    }
    TRY(buf_check(b, "header of the packed image"));
    buf_init(&begin, BEGIN_MAX);
    const size_t at = begin_of(&begin, layout);
    const enum err e = buf_check(&begin, "header of the packed image");
    buf_release(&begin);
    TRY(e);
    seal(b->p, b->n, at, hex);
    memcpy(b->p + SEAL_HEX(at), hex, 64);
    return ERR_OK;
}

/* The length that a header's seal claims; 0: none that can be. */
static size_t sealed_bytes(const char *value, uint64_t most)
{
    char text[17] = { 0 };
    char *end = NULL;
    memcpy(text, value, 16);
    const unsigned long long n = strtoull(text, &end, 16);
    const bool is_good = *end == '\0' && n % GGUF_IMAGE_ALIGN == 0 && n <= most && n <= HEADER_MAX;
    return is_good ? (size_t)n : 0;
}

/* Whether the header is the one that was sealed. */
static bool is_sealed(const struct os_file *f, const struct buf *begin, size_t at)
{
    const size_t counts_at = sizeof GGUF_IMAGE_MAGIC - 1 + sizeof(uint32_t);
    const size_t rest_at = counts_at + 2 * sizeof(uint64_t);
    char got[BEGIN_MAX];
    char hex[65];
    if (begin->n > f->size || os_read_at(f, got, begin->n, 0) != ERR_OK ||
        memcmp(got, begin->p, counts_at) != 0 ||
        memcmp(got + rest_at, begin->p + rest_at, at - rest_at) != 0) {
        return false;
    }
    const size_t n = sealed_bytes(got + at, f->size);
    char *header = n > begin->n ? mem_alloc(n) : NULL;
    bool is_same = header != NULL && os_read_at(f, header, n, 0) == ERR_OK;
    if (is_same) {
        seal(header, n, at, hex);
        is_same = memcmp(header + at, got + at, SEAL_HEX(0)) == 0 &&
                  memcmp(hex, got + SEAL_HEX(at), 64) == 0;
    }
    mem_free(header);
    return is_same;
}

bool image_begins(const char *path, const char *layout)
{
    struct os_file f = { .fd = -1 };
    struct buf begin;
    buf_init(&begin, BEGIN_MAX);
    const size_t at = begin_of(&begin, layout);
    const bool is_same = !begin.is_full && os_open(&f, path) == ERR_OK && is_sealed(&f, &begin, at);
    os_close(&f);
    buf_release(&begin);
    return is_same;
}

uint64_t image_bytes(const struct weights *w, const struct gguf *g)
{
    return w->arena_bytes + gguf_meta_bytes(g) + 2 * GGUF_IMAGE_ALIGN;
}

static enum err write_all(struct pieces *p, struct weights *w, const struct gguf *g,
                          struct team *team)
{
    struct buf header;
    buf_init(&header, HEADER_MAX);
    enum err e = put_header(&header, w, g);
    e = e == ERR_OK ? add(p, (const uint8_t *)header.p, header.n) : e;
    buf_release(&header);
    TRY(e);
    TRY(weights_pack(w, g, team, add, p));
    return p->n > 0 ? p->take(p->arg, p->bytes, p->n) : ERR_OK;
}

enum err image_write(struct weights *w, const struct gguf *g, struct team *team, weights_take take,
                     void *arg)
{
    struct pieces p = { .take = take, .arg = arg };
    REQUIRE(!gguf_is_image(g), ERR_UNSUPPORTED, "%s: this is a packed image already", gguf_path(g));
    p.bytes = mem_alloc(PIECE);
    REQUIRE(p.bytes != NULL, ERR_MEMORY, "%s: no memory for a packed image", gguf_path(g));
    const enum err e = write_all(&p, w, g, team);
    mem_free(p.bytes);
    return e;
}
