/* fuzz_gguf - arbitrary bytes as a model file
 *
 * The bytes become an unnamed file (memfd), which is opened by its path under /proc, because the
 * reader takes a path. What opens is then walked completely: every key, every array element, every
 * tensor byte. A crash, a sanitizer report or a leak is a finding; so is an error
 * without a text, and a tensor range that cannot be read (GG-1).
 *
 * Of a packed image (magic HPAK) the header alone; what follows from it is test_image's.
 *
 * Seeds: fuzz/seeds/gguf, made by tests/tools/mutate_gguf.py --tiny. */
#include "fuzz.h"
#include "model/gguf.h"

#include <string.h>

static void walk_array(const struct gguf_array *a)
{
    struct gguf_string_iter it = { 0 };
    struct view s;
    uint64_t n = 0;
    volatile uint8_t last = 0;
    int64_t v = 0;
    float f = 0.0f;
    while (gguf_array_string(a, &it, &s)) {
        n++;
        demand(s.n <= GGUF_META_MAX_BYTES, "a string");
        last = s.n > 0 ? (uint8_t)s.p[s.n - 1] : last; /* touches the end */
    }
    demand(a->type != GGUF_STRING || n == a->n, "strings of an array");
    for (uint64_t i = 0; i <= a->n; i++) {
        const bool is_int = gguf_array_int(a, i, &v);
        const bool is_float = gguf_array_float(a, i, &f);
        demand(!(is_int && is_float) && !(i == a->n && (is_int || is_float)), "an element");
    }
}

static void walk_keys(const struct gguf *g)
{
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        enum gguf_type type;
        const struct view key = gguf_key(g, i, &type);
        char *name = mem_strdup(key.p, key.n);
        struct buf text;
        buf_init(&text, 1 << 16);
        gguf_value_text(g, i, &text);
        demand(utf8_valid(buf_view(&text)), "a value's text");
        buf_release(&text);
        uint32_t u = 0;
        float f = 0.0f;
        bool b = false;
        struct view s = { 0 };
        struct gguf_array a;
        const int n_ok =
            (gguf_u32(g, name, &u, NULL) == ERR_OK) + (gguf_f32(g, name, &f, NULL) == ERR_OK) +
            (gguf_bool(g, name, &b, NULL) == ERR_OK) + (gguf_string(g, name, &s, NULL) == ERR_OK);
        const bool is_known = strlen(name) == key.n; /* a name may hold a zero byte */
        demand(!is_known || gguf_has(g, name), "a key by its name");
        demand(!is_known || n_ok <= 1, "a value of two kinds");
        if (is_known && type == GGUF_ARRAY) {
            demand(gguf_array(g, name, &a, NULL) == ERR_OK, "an array");
            walk_array(&a);
        }
        mem_free(name);
    }
}

static void walk_tensors(const struct gguf *g)
{
    static uint8_t piece[65536];
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        char *name = mem_strdup(t->name.p, t->name.n);
        const struct gguf_tensor *found = gguf_tensor_find(g, name);
        demand(found == t || strlen(name) < t->name.n, "a tensor by its name");
        for (size_t at = 0; at < t->bytes; at += sizeof piece) {
            const size_t n = t->bytes - at < sizeof piece ? t->bytes - at : sizeof piece;
            demand(gguf_read(g, t, at, piece, n) == ERR_OK, "a tensor's bytes");
        }
        mem_free(name);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[FUZZ_PATH_MAX];
    const int fd = fuzz_file(bytes, n, path);
    const struct fuzz_run run = fuzz_begin();
    struct gguf *g = NULL;
    const enum err e = gguf_open(&g, path);
    if (e == ERR_OK) {
        walk_keys(g);
        if (!gguf_is_image(g)) { /* its directory has no ranges */
            walk_tensors(g);
        }
        demand(gguf_unchanged(g) == ERR_OK, "unchanged");
        gguf_close(g);
    } else {
        demand_error(e);
        demand(g == NULL, "no directory after a failure");
    }
    fuzz_end(run);
    close(fd);
    return 0;
}
