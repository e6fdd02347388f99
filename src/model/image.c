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
 * Vectors lie as floats in the arena, so their type in the image is F32, whatever it was.
 *
 * Rejected: tensors with offsets (of a fused tensor the slots lie apart), and GGUF's own magic:
 * other readers would take panels for rows.
 *
 * Next: engine/decoder.c. */
#include "model/image.h"

#include "base/os.h"

#include <string.h>

#define PIECE      ((size_t)2 << 20)
#define HEADER_MAX ((size_t)GGUF_META_MAX_BYTES)
#define BEGIN_MAX  256

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

/* What the image says in another way. */
static bool is_left_out(struct view key)
{
    return view_starts(key, VIEW("split.")) || view_starts(key, VIEW("hearth.image."));
}

static void put_keys(struct buf *b, const struct gguf *g, const char *layout)
{
    uint64_t n = 1;
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        enum gguf_type type;
        n += !is_left_out(gguf_key(g, i, &type));
    }
    put_u64(b, n);
    put_string(b, WEIGHTS_LAYOUT_KEY, layout); /* where image_begins finds it */
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

/* Each tensor once: by the slot that has its first row. */
static enum err put_header(struct buf *b, const struct weights *w, const struct gguf *g)
{
    char layout[65];
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
    return buf_check(b, "header of the packed image");
}

bool image_begins(const char *path, const char *layout)
{
    struct os_file f = { .fd = -1 };
    struct buf version;
    struct buf key;
    char got[BEGIN_MAX];
    buf_init(&version, BEGIN_MAX);
    buf_init(&key, BEGIN_MAX);
    put_version(&version);
    put_string(&key, WEIGHTS_LAYOUT_KEY, layout);
    const size_t key_at = version.n + 2 * sizeof(uint64_t); /* behind the two counts */
    const size_t n = key_at + key.n;
    const bool is_same = n <= sizeof got && os_open(&f, path) == ERR_OK && f.size >= n &&
                         os_read_at(&f, got, n, 0) == ERR_OK &&
                         memcmp(got, version.p, version.n) == 0 &&
                         memcmp(got + key_at, key.p, key.n) == 0;
    os_close(&f);
    buf_release(&version);
    buf_release(&key);
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
