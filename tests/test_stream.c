/* test_stream - parts of layers that pass through slots are whole whenever they are computed
 *
 * Includes stream.c over a disk that the test owns: a read completes when the test wants it, in any
 * order, piece by piece, up to the moment somebody waits for it; some fail. The weights are tables of
 * random sizes, the file's bytes follow from their place. */
#define ring_open         disk_open
#define ring_close        disk_close
#define ring_start        disk_start
#define ring_wait         disk_wait
#define ring_wait_for     disk_wait_for
#define ring_drop         disk_drop
#define gguf_image_read   disk_image_read
#define gguf_image_at     disk_image_at
#define gguf_image_path   disk_image_path
#define gguf_unchanged    disk_unchanged
#define weights_check_vec disk_check_vec
#include "model/stream.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FILE_AT     ((uint64_t)1 << 20)
#define N_LAYER_MAX 40
#define N_PART_MAX  (N_LAYER_MAX * WEIGHTS_PARTS)
#define N_LOAD_MAX  (N_PART_MAX * 3 + 3)
#define N_READ_MAX  1024

struct read {
    uint64_t at;
    uint8_t *to;
    size_t n;
    size_t done;
    uint64_t ticket;
    bool is_dropped;
};

static struct world {
    struct weights w;
    struct weights_load loads[N_LOAD_MAX];
    struct tensor matrix[N_LOAD_MAX];
    struct weights_vec vec[N_LOAD_MAX];
    size_t part_load[N_PART_MAX + 1];
    size_t expert_load[N_LAYER_MAX]; /* where there are none, the next layer's first */
    struct read reads[N_READ_MAX];   /* on their way */
    int n_read;
    uint64_t n_ticket;
    uint64_t answered; /* tickets up to this one are over */
    int fault_in;      /* waits until one fails; 0: none */
    uint64_t read_bytes;
} world;

static int n_busy; /* of all worlds */

static uint32_t seed;

static uint32_t rnd(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)(at * 2654435761u >> 13);
}

/* --- the disk --------------------------------------------------------------------------------- */

enum err disk_open(struct ring **out, const char *path)
{
    assert_string_equal(path, "image");
    *out = (struct ring *)(void *)&world;
    return ERR_OK;
}

void disk_close(struct ring *r)
{
    (void)r;
    world.n_read = 0;
}

enum err disk_start(struct ring *r, uint64_t at, void *to, size_t n, uint64_t *ticket)
{
    (void)r;
    assert_true(world.n_read < N_READ_MAX && n > 0);
    assert_true(at % RING_ALIGN == 0 && n % RING_ALIGN == 0 && (uintptr_t)to % RING_ALIGN == 0);
    for (int i = 0; i < world.n_read; i++) { /* nobody writes where another read still may */
        const struct read *o = &world.reads[i];
        assert_true(o->is_dropped || (uint8_t *)to >= o->to + o->n || (uint8_t *)to + n <= o->to);
    }
    *ticket = ++world.n_ticket;
    world.reads[world.n_read++] = (struct read){ .at = at, .to = to, .n = n, .ticket = *ticket };
    world.read_bytes += n;
    return ERR_OK;
}

static void work(struct read *r, size_t n)
{
    for (; n > 0 && r->done < r->n; n--, r->done++) {
        r->to[r->done] = byte_at(r->at + r->done);
    }
}

static void forget(uint64_t ticket)
{
    int n = 0;
    for (int i = 0; i < world.n_read; i++) {
        if (world.reads[i].ticket > ticket) {
            world.reads[n++] = world.reads[i];
        }
    }
    world.n_read = n;
    world.answered = ticket > world.answered ? ticket : world.answered;
}

/* Reads go on: dropped ones first, as whatever is started later begins when they are over. */
static void go(void)
{
    int n = 0;
    bool has_dropped = false;
    for (int i = 0; i < world.n_read; i++) {
        struct read *r = &world.reads[i];
        if (r->is_dropped || !has_dropped) {
            work(r, rnd(9000));
        }
        has_dropped = has_dropped || (r->is_dropped && r->done < r->n);
        if (!r->is_dropped || r->done < r->n) {
            world.reads[n++] = *r;
        }
    }
    world.n_read = n;
}

void disk_drop(struct ring *r)
{
    (void)r;
    for (int i = 0; i < world.n_read; i++) {
        world.reads[i].is_dropped = true;
    }
    world.answered = world.n_ticket;
}

enum err disk_wait(struct ring *r, uint64_t ticket)
{
    (void)r;
    assert_true(ticket <= world.n_ticket);
    while (world.n_read > 0 && world.reads[0].is_dropped) {
        go();
    }
    if (ticket > world.answered && world.fault_in > 0 && --world.fault_in == 0) {
        disk_drop(r); /* all are void, and still written */
        return err_set(ERR_IO, "a fault");
    }
    for (int i = 0; i < world.n_read; i++) {
        work(&world.reads[i], world.reads[i].ticket <= ticket ? SIZE_MAX : rnd(9000));
    }
    forget(ticket);
    return ERR_OK;
}

enum err disk_wait_for(struct ring *r, uint64_t ticket, uint64_t timeout_us)
{
    if (ticket > world.answered && rnd(4) == 0) {
        assert_true(timeout_us < UINT64_MAX);
        n_busy++;
        go();
        return err_set(ERR_BUSY, "not yet");
    }
    return disk_wait(r, ticket);
}

enum err disk_image_read(const struct gguf *g, uint64_t at, void *to, size_t n)
{
    (void)g;
    struct read r = { .at = FILE_AT + at, .to = to, .n = n };
    work(&r, n);
    return ERR_OK;
}

uint64_t disk_image_at(const struct gguf *g)
{
    (void)g;
    return FILE_AT;
}

const char *disk_image_path(const struct gguf *g)
{
    (void)g;
    return "image";
}

enum err disk_unchanged(const struct gguf *g)
{
    (void)g;
    return ERR_OK;
}

enum err disk_check_vec(const struct gguf *g, const struct weights_load *l, const float *v)
{
    (void)g;
    assert_ptr_equal(l->vec->v, v);
    return ERR_OK;
}

/* --- weights ---------------------------------------------------------------------------------- */

static void add_load(bool is_vec)
{
    struct weights *w = &world.w;
    const size_t i = w->n_load++;
    w->loads[i] = (struct weights_load){ .matrix = is_vec ? NULL : &world.matrix[i],
                                         .vec = is_vec ? &world.vec[i] : NULL,
                                         .at = w->arena_bytes };
    w->arena_bytes += 64 * (size_t)(1 + (is_vec ? rnd(4) : rnd(400)));
}

/* The table of embeddings, of panels that begin anywhere. */
static void add_table(void)
{
    struct tensor *t = &world.w.embd;
    t->stride = 64 * (size_t)(1 + rnd(100));
    t->n_row = TENSOR_PANEL_ROWS * (1 + (int32_t)rnd(300));
    t->bytes = t->stride * (size_t)tensor_panels(t);
    world.w.is_tied = rnd(4) == 0;
    world.loads[0] = (struct weights_load){ .matrix = t };
    world.w.arena_bytes = t->bytes;
    world.w.n_load = 1;
}

static void make_weights(int32_t n_layer)
{
    memset(&world, 0, sizeof world);
    world.w.loads = world.loads;
    world.w.part_load = world.part_load;
    world.w.expert_load = world.expert_load;
    add_table();
    for (uint32_t i = 0; i < rnd(3); i++) {
        add_load(i == 1);
    }
    const bool is_gated = rnd(3) > 0;
    for (int32_t i = 0; i < n_layer * WEIGHTS_PARTS; i++) {
        const bool is_empty = i % WEIGHTS_PARTS == WEIGHTS_GATE && !is_gated;
        world.part_load[i] = world.w.n_load;
        for (uint32_t k = 0; k < 1 + rnd(2) && !is_empty; k++) {
            add_load(rnd(3) == 0);
        }
        world.expert_load[i / WEIGHTS_PARTS] = world.w.n_load;
    }
    world.part_load[n_layer * WEIGHTS_PARTS] = world.w.n_load;
}

static bool is_right(size_t i)
{
    const struct weights_load *l = &world.loads[i];
    const uint8_t *p = l->matrix != NULL ? l->matrix->data : (const uint8_t *)l->vec->v;
    bool is_same = p != NULL;
    for (size_t k = 0; is_same && k < weights_end(&world.w, i) - l->at; k++) {
        is_same = p[k] == byte_at(FILE_AT + l->at + k);
    }
    return is_same;
}

static void check_range(size_t first, size_t end)
{
    for (size_t i = first; i < end; i++) {
        assert_true(is_right(i));
    }
}

/* Rows of some tokens: each id names a row of the bytes that the token has in the file. */
static enum err take_rows(struct stream *s, bool may_end)
{
    int32_t tokens[150];
    const int32_t n = 1 + (int32_t)rnd(150);
    const struct tensor *t = &world.w.embd;
    struct stream_rows rows = { .n = 0 };
    const uint64_t before = world.read_bytes;
    for (int32_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)rnd((uint32_t)t->n_row);
    }
    for (int32_t at = 0; at < n; at += rows.n) {
        enum err e;
        while ((e = stream_rows(s, &world.w, tokens + at, n - at, 1, &rows)) == ERR_BUSY) {
            if (may_end && rnd(10) == 0) {
                return e; /* nobody wants it any more */
            }
        }
        TRY(e);
        assert_true(rows.n >= 1 && rows.n <= n - at);
        for (int32_t i = 0; i < rows.n; i++) {
            const int32_t token = tokens[at + i];
            const uint8_t *panel =
                rows.table.data + (size_t)(rows.ids[i] / TENSOR_PANEL_ROWS) * rows.table.stride;
            const uint64_t from = FILE_AT + (uint64_t)(token / TENSOR_PANEL_ROWS) * t->stride;
            assert_int_equal(rows.ids[i] % TENSOR_PANEL_ROWS, token % TENSOR_PANEL_ROWS);
            assert_true(rows.ids[i] < rows.table.n_row);
            for (size_t k = 0; k < t->stride; k++) {
                assert_int_equal(panel[k], byte_at(from + k));
            }
        }
    }
    world.read_bytes = before; /* layers alone are counted */
    return ERR_OK;
}

/* Parts that are used together. */
static enum err use_parts(struct stream *s, const struct stream_parts *p, bool may_end)
{
    enum err e;
    while ((e = stream_enter(s, p, 1)) == ERR_BUSY) {
        if (may_end && rnd(20) == 0) {
            return e; /* nobody wants it any more */
        }
    }
    TRY(e);
    go();
    const size_t *load = world.part_load + (size_t)p->i_layer * WEIGHTS_PARTS;
    check_range(load[p->first], load[p->end]);
    stream_leave(s);
    return ERR_OK;
}

/* A pass over all layers or some, perhaps left early; what was on its way goes on meanwhile. */
static enum err pass(struct stream *s, int32_t n_layer, int32_t n_left_out, int32_t end)
{
    TRY(take_rows(s, end < n_layer));
    for (int32_t i = 0; i < end; i++) {
        if (n_left_out > 0 && rnd((uint32_t)n_layer) < (uint32_t)n_left_out) {
            continue;
        }
        static const int32_t borders[] = { WEIGHTS_ATTN, WEIGHTS_GATE, WEIGHTS_DOWN,
                                           WEIGHTS_PARTS };
        for (int k = 0; k < 3; k++) {
            const struct stream_parts p = { i, (enum weights_part)borders[k], borders[k + 1] };
            if (n_left_out > 0 && rnd(10) == 0) {
                continue;
            }
            TRY(use_parts(s, &p, end < n_layer));
        }
    }
    return ERR_OK;
}

static void test_choose(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        const int32_t n_layer = 1 + (int32_t)rnd(N_LAYER_MAX);
        struct stream_cut c = { 0 };
        struct stream_cut more = { 0 };
        make_weights(n_layer);
        const uint64_t most = rnd((uint32_t)world.w.arena_bytes + 100000);
        if (!stream_choose(&world.w, n_layer, 0, most, &c)) {
            assert_int_equal(c.n_layer, 0);
            assert_false(stream_choose(&world.w, n_layer, 0, most / 2, &c));
            continue;
        }
        assert_true(stream_bytes(&c) <= most && c.n_read > c.n_slot);
        const uint64_t table = c.rows_bytes > 0 ? world.w.embd.bytes : 0;
        assert_true(table == 0 || !world.w.is_tied);
        assert_true(table + c.stay_bytes + c.pass_bytes >= world.w.arena_bytes);
        assert_true(stream_choose(&world.w, n_layer, 0, most * 2, &more));
        assert_true(more.share >= c.share);
        for (int32_t k = c.share + 1; k < STREAM_SHARES; k++) { /* no more would have fitted */
            const struct stream_cut less = cut_of(&world.w, n_layer, k);
            assert_true(stream_bytes(&less) > most || less.n_read <= SLOTS);
        }
    }
}

static struct stream *open_some(struct team *team, int32_t n_layer, struct stream_cut *c)
{
    struct stream *s = NULL;
    make_weights(n_layer);
    do {
        *c = cut_of(&world.w, n_layer, (int32_t)rnd(STREAM_SHARES));
    } while (c->n_read <= SLOTS);
    assert_int_equal(stream_open(&s, &world.w, NULL, c, team, NULL, NULL), ERR_OK);
    assert_true(s->stay.used <= c->stay_bytes);
    check_range(first_load(c), world.part_load[0]);
    return s;
}

/* LS-1 under whatever order of reads, layers left out, passes left early, and faults. */
static void test_passes(void **state)
{
    (void)state;
    struct team *team = NULL;
    int n_fault = 0;
    int n_whole = 0;
    assert_int_equal(team_open(&team, 2), ERR_OK);
    for (int i = 0; i < 60; i++) {
        const int32_t n_layer = 2 + (int32_t)rnd(N_LAYER_MAX - 1);
        struct stream_cut c;
        struct stream *s = open_some(team, n_layer, &c);
        for (int k = 0; k < 12; k++) {
            const bool is_whole = rnd(2) == 0;
            world.fault_in = rnd(3) == 0 ? 1 + (int)rnd(40) : 0;
            const enum err e = pass(s, n_layer, is_whole ? 0 : (int32_t)rnd((uint32_t)n_layer),
                                    is_whole ? n_layer : (int32_t)rnd((uint32_t)n_layer + 1));
            n_fault += e != ERR_OK && e != ERR_BUSY;
            n_whole += e == ERR_OK && is_whole;
            check_range(first_load(&c), world.part_load[0]);
        }
        stream_close(s);
    }
    assert_true(n_fault > 20 && n_whole > 100 && n_busy > 100);
    team_close(team);
}

/* Whole passes read each part that does not stay once, and no more than the slots ahead. */
static void test_reads_once(void **state)
{
    (void)state;
    struct team *team = NULL;
    struct stream_cut c;
    assert_int_equal(team_open(&team, 1), ERR_OK);
    struct stream *s = open_some(team, 30, &c);
    assert_int_equal(pass(s, 30, 0, 30), ERR_OK);
    const uint64_t before = world.read_bytes;
    uint64_t read[2];
    uint64_t used[2];
    stream_count(s, &read[0], &used[0]);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pass(s, 30, 0, 30), ERR_OK);
    }
    stream_count(s, &read[1], &used[1]);
    assert_int_equal(world.read_bytes - before, 5 * c.pass_bytes);
    assert_int_equal(read[1] - read[0], 5 * c.pass_bytes);
    assert_int_equal(used[1] - used[0], 5 * c.pass_bytes);
    assert_true(read[0] > used[0]); /* what is ahead */
    stream_close(s);
    team_close(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choose),
        cmocka_unit_test(test_passes),
        cmocka_unit_test(test_reads_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
