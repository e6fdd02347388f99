/* test_image - a packed image holds what loading its GGUF file gives, and nothing else is taken for one
 *
 * An image is made of the small model of gguf_tiny.h and opened as a file without a name: whole, with
 * single fields changed, cut, and with random bytes changed, many times. Includes engine.c for an
 * engine without a thread. */
#include "engine/engine.c"
#include "engine/engine_open.c"
#include "engine/engine_step.c"

#include "model/image.h"
#include "model_tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define N_MUTANT 3000

static struct model tiny;
static struct buf image;

static enum err gather(void *arg, const uint8_t *bytes, size_t n)
{
    struct buf *b = arg;
    assert_int_equal(b->n % ((size_t)2 << 20), 0); /* pieces end at whole 2 MB */
    buf_add(b, bytes, n);
    return buf_check(b, "image");
}

static int make(void **state)
{
    (void)state;
    buf_init(&image, (size_t)16 << 20);
    assert_int_equal(model_open(&tiny, NULL, 3), ERR_OK);
    assert_int_equal(image_write(&tiny.weights, tiny.gguf, tiny.team, gather, &image), ERR_OK);
    assert_true(image.n <= image_bytes(&tiny.weights, tiny.gguf));
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    model_close(&tiny);
    buf_release(&image);
    return 0;
}

/* Opens bytes as a model; closes it again when that fails. */
static enum err open_bytes(struct model *m, const char *bytes, size_t n)
{
    char path[64];
    const int fd = memfd_create("image", MFD_CLOEXEC);
    assert_true(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const enum err e = model_open(m, path, 2);
    m->fd = fd;
    if (e != ERR_OK) {
        assert_true(err_text()[0] != '\0');
        model_close(m);
    }
    return e;
}

/* Opens the image with `n` bytes at `at` changed; the failure's text has `want`. */
static void check_refused(size_t at, const char *bytes, size_t n, enum err want, const char *text)
{
    struct model m;
    char old[64];
    memcpy(old, image.p + at, n);
    memcpy(image.p + at, bytes, n);
    const enum err e = open_bytes(&m, image.p, image.n);
    memcpy(image.p + at, old, n);
    assert_int_equal(e, want);
    if (strstr(err_text(), text) == NULL) {
        fail_msg("%s", err_text());
    }
}

static size_t place_of(const char *text)
{
    const size_t at = view_find(buf_view(&image), view_of(text), 0);
    assert_true(at != SIZE_MAX);
    return at;
}

/* The arena's bytes, each slot, and the plan are those of the GGUF file. */
static void test_same(void **state)
{
    struct model m;
    (void)state;
    assert_int_equal(open_bytes(&m, image.p, image.n), ERR_OK);
    assert_true(gguf_is_image(m.gguf) && !gguf_is_image(tiny.gguf));
    assert_int_equal(m.arena.peak, tiny.weights.arena_bytes);
    assert_int_equal(m.weights.scratch_bytes, 0);
    assert_memory_equal(m.arena.base, tiny.arena.base, tiny.weights.arena_bytes);
    assert_int_equal(m.weights.n_param, tiny.weights.n_param);
    for (int i = 0; i < 2; i++) {
        const struct weights_layer *a = &m.weights.layer[i];
        const struct weights_layer *b = &tiny.weights.layer[i];
        assert_int_equal(a->down.data - m.arena.base, b->down.data - tiny.arena.base);
        assert_int_equal((const uint8_t *)a->ffn_norm.w.v - m.arena.base,
                         (const uint8_t *)b->ffn_norm.w.v - tiny.arena.base);
    }
    assert_int_equal(image_write(&m.weights, m.gguf, m.team, gather, &image), ERR_UNSUPPORTED);
    model_close(&m);
}

/* Both ways to open a model take what the plan says, and answer alike. */
static void test_plan(void **state)
{
    struct model m;
    struct plan plan[2];
    struct engine *e[2];
    const struct plan_config c = {
        .n_ctx = 32, .n_parallel = 1, .n_queue = 1, .n_batch = 32, .n_worker = 2
    };
    (void)state;
    assert_int_equal(open_bytes(&m, image.p, image.n), ERR_OK);
    assert_int_equal(engine_bare(&e[0], &m, &c, &plan[0]), ERR_OK);
    assert_int_equal(engine_bare(&e[1], &tiny, &c, &plan[1]), ERR_OK);
    assert_string_equal(plan[0].part[0].name, "weights");
    assert_int_equal(plan[0].part[0].bytes, m.arena.mapped);
    assert_int_equal(plan[1].part[0].bytes, m.arena.mapped);
    assert_memory_equal(e[0]->row, e[1]->row, TINY_VOCAB * sizeof(float));
    engine_close(e[0]);
    engine_close(e[1]);
    model_close(&m);
}

static void test_refused(void **state)
{
    struct model m;
    (void)state;
    const size_t data = image.n - tiny.weights.arena_bytes;
    assert_int_equal(data % GGUF_IMAGE_ALIGN, 0);
    check_refused(0, "GGUF", 4, ERR_INTEGRITY, "output_norm");
    check_refused(4, "\1", 1, ERR_UNSUPPORTED, "pull --pack");
    const size_t digest = place_of(WEIGHTS_LAYOUT_KEY) + strlen(WEIGHTS_LAYOUT_KEY) + 4 + 8;
    check_refused(digest + 5, "x", 1, ERR_UNSUPPORTED, "pull --pack");
    check_refused(place_of("hearth.image.l"), "x", 1, ERR_UNSUPPORTED, "pull --pack");
    /* the name of a tensor and the length of its vector: the offset stands behind the type */
    const size_t tensor = place_of("output_norm.weight") + strlen("output_norm.weight");
    check_refused(tensor + 4 + 8 + 4, "\40", 1, ERR_INTEGRITY, "offset");
    assert_int_equal(open_bytes(&m, image.p, image.n - 64), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "pull --pack"));
    assert_int_equal(open_bytes(&m, image.p, data), ERR_INTEGRITY);
    buf_add(&image, (char[64]){ 0 }, 64);
    assert_int_equal(open_bytes(&m, image.p, image.n), ERR_INTEGRITY);
    assert_non_null(strstr(err_text(), "pull --pack"));
    buf_cut(&image, image.n - 64);
    /* a norm's element that is no number */
    const float *v = tiny.weights.output_norm.w.v;
    check_refused(data + (size_t)((const uint8_t *)v - tiny.arena.base), "\377\377\377\377", 4,
                  ERR_INTEGRITY, "finite");
}

/* The beginning tells an image of the same layout from everything else. */
static void test_begins(void **state)
{
    char path[64];
    char layout[65];
    char other[65];
    (void)state;
    const int fd = memfd_create("image", MFD_CLOEXEC);
    assert_true(fd >= 0 && write(fd, image.p, image.n) == (ssize_t)image.n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    assert_int_equal(weights_layout(&tiny.weights, layout), ERR_OK);
    memcpy(other, layout, sizeof other);
    other[63] ^= 1;
    assert_true(image_begins(path, layout));
    assert_false(image_begins(path, other));
    assert_false(image_begins("/no/such/file", layout));
    const off_t end = (off_t)place_of("output_norm.weight") + 40;
    for (off_t at = 0; at < end; at += at < 400 ? 1 : 61) { /* each byte of the header counts */
        const char bad = (char)(image.p[at] ^ 1);
        assert_int_equal(pwrite(fd, &bad, 1, at), 1);
        assert_false(image_begins(path, layout));
        assert_int_equal(pwrite(fd, image.p + at, 1, at), 1);
    }
    assert_int_equal(pwrite(fd, "x", 1, (off_t)image.n - 1), 1); /* what is behind it does not */
    assert_true(image_begins(path, layout));
    for (off_t n = end; n > 0; n = n * 2 / 3) {
        assert_int_equal(ftruncate(fd, n), 0);
        assert_false(image_begins(path, layout));
    }
    close(fd);
}

/* Whatever stands in the header: refused with a text, or a model of the same size. */
static void test_mutants(void **state)
{
    const size_t header = place_of("output_norm.weight") + 512;
    uint32_t random = 1;
    int n_open = 0;
    (void)state;
    for (int i = 0; i < N_MUTANT; i++) {
        struct model m;
        char old[64];
        random = random * 1664525u + 1013904223u;
        const size_t at = (random >> 4) % header;
        memcpy(old, image.p + at, 1);
        image.p[at] = (char)(image.p[at] ^ (char)(1u << random % 8));
        if (open_bytes(&m, image.p, image.n) == ERR_OK) {
            assert_int_equal(m.weights.arena_bytes, tiny.weights.arena_bytes);
            model_close(&m);
            n_open++;
        }
        memcpy(image.p + at, old, 1);
    }
    assert_in_range(n_open, 1, N_MUTANT - 1);
}

/* Panels of another layout, or slots in another order, give another digest. */
static void test_layout(void **state)
{
    char a[65];
    char b[65];
    (void)state;
    struct weights_load *l = &tiny.weights.loads[3];
    assert_int_equal(weights_layout(&tiny.weights, a), ERR_OK);
    l->at += 64;
    assert_int_equal(weights_layout(&tiny.weights, b), ERR_OK);
    l->at -= 64;
    assert_string_not_equal(a, b);
    const uint64_t bytes = tiny.weights.type_bytes[QUANT_Q4_0];
    tiny.weights.type_bytes[QUANT_Q4_0] = 1; /* another type's panels count */
    assert_int_equal(weights_layout(&tiny.weights, b), ERR_OK);
    tiny.weights.type_bytes[QUANT_Q4_0] = bytes;
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),    cmocka_unit_test(test_plan),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_mutants),
        cmocka_unit_test(test_layout),  cmocka_unit_test(test_begins),
    };
    return cmocka_run_group_tests_name("image", tests, make, unmake);
}
