/* test_depot - experts are whole whenever they are computed, whatever routers ask for and disks do
 *
 * Includes depot.c over a disk that the test owns, as test_stream.c does: reads end in any order, up
 * to the moment somebody waits; some fail. Layers, experts, slots and what is wanted are random. */
#define ring_start    disk_start
#define ring_wait_any disk_wait_any
#define ring_has      disk_has
#define ring_poll     disk_poll
#define ring_narrow   disk_narrow
#define ring_same     disk_same
#define os_now_us     disk_now_us
#include "model/depot.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FILE_AT      ((uint64_t)1 << 20)
#define N_LAYER_MAX  6
#define N_EXPERT_MAX 20
#define N_LOAD_MAX   (N_LAYER_MAX * (N_EXPERT_MAX * WEIGHTS_EXPERT_LOADS + 3))
#define N_READ_MAX   256
#define WAIT_US      5

struct read {
    uint64_t at;
    uint8_t *to;
    size_t n;
    size_t done;
    uint64_t ticket;
};

static struct world {
    struct weights w;
    struct weights_load loads[N_LOAD_MAX];
    struct tensor matrix[N_LOAD_MAX];
    size_t part_load[N_LAYER_MAX * WEIGHTS_PARTS + 1];
    size_t expert_load[N_LAYER_MAX];
    struct read reads[N_READ_MAX]; /* on their way */
    int n_read;
    uint64_t n_ticket;
    uint64_t n_void; /* tickets up to this one are */
    int fault_in;    /* waits until one fails; 0: none */
    bool may_change; /* now and then the file is another one, until somebody looks */
    bool is_changed;
    bool is_full; /* now and then it takes no more */
    bool is_slow; /* nothing ends but what is waited for, and of that the last */
    uint64_t n_started;
    const struct depot *guesser; /* that reads what is wanted before what is guessed (DP-5) */
} world;

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

/* It is read to its end all the same. */
static bool is_void(const struct read *r)
{
    return r->ticket <= world.n_void;
}

enum err disk_start(struct ring *r, uint64_t at, void *to, size_t n, uint64_t *ticket)
{
    (void)r;
    assert_true(world.n_read < N_READ_MAX && n > 0);
    assert_true(at % RING_ALIGN == 0 && n % RING_ALIGN == 0 && (uintptr_t)to % RING_ALIGN == 0);
    for (int i = 0; i < world.n_read; i++) { /* nobody writes where another read still may */
        const struct read *o = &world.reads[i];
        assert_true(is_void(o) || (uint8_t *)to >= o->to + o->n || (uint8_t *)to + n <= o->to);
    }
    const struct depot *d = world.guesser;
    if (d != NULL && d->n_guess > 0) {
        const size_t next =
            d->i_layer + 1 < d->shape.n_layer ? range_of(d->w, d->i_layer + 1, 0).at : SIZE_MAX / 2;
        assert_true(d->i_wanted == d->n_wanted || at - FILE_AT <= next);
    }
    if (world.is_full && rnd(50) == 0) {
        return err_set(ERR_BUSY, "no room now");
    }
    *ticket = ++world.n_ticket;
    world.reads[world.n_read++] = (struct read){ at, to, n, 0, *ticket };
    world.n_started++;
    return ERR_OK;
}

static void work(struct read *r, size_t n)
{
    for (; n > 0 && r->done < r->n; n--, r->done++) {
        r->to[r->done] = byte_at(r->at + r->done) ^ world.is_changed;
    }
}

/* What is whole is not on its way any more. */
static void sweep(void)
{
    int n = 0;
    for (int i = 0; i < world.n_read; i++) {
        if (world.reads[i].done < world.reads[i].n) {
            world.reads[n++] = world.reads[i];
        }
    }
    world.n_read = n;
}

/* Void ones, which are the first, before anything that was started later. */
static void work_some(void)
{
    bool has_void = false;
    for (int i = 0; i < world.n_read && !world.is_slow; i++) {
        struct read *r = &world.reads[i];
        if (is_void(r) || !has_void) {
            work(r, rnd(9000));
        }
        has_void = has_void || (is_void(r) && r->done < r->n);
    }
    sweep();
}

static void end_void(void)
{
    for (int i = 0; i < world.n_read && is_void(&world.reads[i]); i++) {
        work(&world.reads[i], SIZE_MAX);
    }
    sweep();
}

static struct read *read_of(uint64_t ticket)
{
    for (int i = 0; i < world.n_read; i++) {
        if (world.reads[i].ticket == ticket) {
            return &world.reads[i];
        }
    }
    return NULL;
}

static uint64_t now_us;

uint64_t disk_now_us(void)
{
    return now_us;
}

bool disk_has(const struct ring *r, uint64_t ticket)
{
    (void)r;
    assert_true(ticket > 0 && ticket <= world.n_ticket);
    return ticket > world.n_void && read_of(ticket) == NULL;
}

bool disk_poll(struct ring *r, uint64_t ticket)
{
    (void)r;
    world.is_changed = world.is_changed || (world.may_change && rnd(200) == 0);
    work_some();
    return ticket == 0;
}

void disk_narrow(struct ring *r, size_t most_bytes)
{
    (void)r;
    assert_true(most_bytes > 0);
}

/* When it was seen the file is put back, with its time. */
enum err disk_same(struct ring *r)
{
    (void)r;
    if (!world.is_changed) {
        return ERR_OK;
    }
    world.is_changed = false;
    world.n_void = world.n_ticket;
    return err_set(ERR_INTEGRITY, "it changed");
}

enum err disk_wait_any(struct ring *r, const uint64_t *tickets, int n, uint64_t timeout_us)
{
    (void)r;
    assert_true(n > 0 && timeout_us <= WAIT_US);
    for (int i = 0; i < n; i++) {
        assert_true(tickets[i] > world.n_void);
        if (read_of(tickets[i]) == NULL) {
            return disk_same(r);
        }
    }
    if (timeout_us == 0 || (!world.is_slow && rnd(4) == 0)) {
        now_us += timeout_us;
        return err_set(ERR_BUSY, "not yet");
    }
    now_us += 1 + rnd((uint32_t)timeout_us);
    if (world.fault_in > 0 && --world.fault_in == 0) {
        world.n_void = world.n_ticket; /* and still written */
        return err_set(ERR_IO, "a fault");
    }
    end_void();
    work(read_of(tickets[world.is_slow ? n - 1 : (int)rnd((uint32_t)n)]), SIZE_MAX);
    work_some();
    return disk_same(r);
}

/* --- weights ---------------------------------------------------------------------------------- */

static void add_load(size_t bytes)
{
    struct weights *w = &world.w;
    const size_t i = w->n_load++;
    w->loads[i] = (struct weights_load){ .matrix = &world.matrix[i], .at = w->arena_bytes };
    w->arena_bytes += bytes;
}

/* Layers with a dense part, then experts of equal sizes that begin anywhere. */
static void make_weights(int32_t n_layer, int32_t n_expert)
{
    memset(&world, 0, sizeof world);
    world.w.loads = world.loads;
    world.w.part_load = world.part_load;
    world.w.expert_load = world.expert_load;
    for (int32_t i = 0; i < n_layer; i++) {
        const size_t bytes = 64 * (size_t)(1 + rnd(60));
        world.part_load[i * WEIGHTS_PARTS] = world.w.n_load;
        for (uint32_t k = 0; k < rnd(3); k++) {
            add_load(64 * (size_t)(1 + rnd(40)));
        }
        world.expert_load[i] = world.w.n_load;
        for (int32_t k = 0; k < n_expert * WEIGHTS_EXPERT_LOADS; k++) {
            add_load(bytes);
        }
    }
    world.part_load[n_layer * WEIGHTS_PARTS] = world.w.n_load;
}

/* DP-2: all bytes of its three matrices. */
static void check_expert(int32_t i_layer, int32_t e)
{
    const size_t first = weights_expert_load(&world.w, i_layer, e);
    for (size_t i = first; i < first + WEIGHTS_EXPERT_LOADS; i++) {
        const struct weights_load *l = &world.loads[i];
        assert_non_null(l->matrix->data);
        for (size_t k = 0; k < weights_end(&world.w, i) - l->at; k++) {
            assert_int_equal(l->matrix->data[k], byte_at(FILE_AT + l->at + k));
        }
    }
}

static int32_t choose_ids(int32_t *ids, int32_t n_expert, uint32_t one_in)
{
    int32_t n = 0;
    for (int32_t e = 0; e < n_expert; e++) {
        if (rnd(one_in) == 0) {
            ids[n++] = e;
        }
    }
    return n;
}

struct depot_test {
    struct depot *d;
    struct arena memory;
    struct depot_shape shape;
    int32_t n_slot;
};

/* Any of the next layer's, in any order; half of them are wanted then, or fewer. */
static void guess_some(const struct depot_test *t, int32_t i_layer)
{
    int32_t ids[N_EXPERT_MAX];
    const int32_t n = choose_ids(ids, t->shape.n_expert, 3);
    for (int32_t i = n - 1; i > 0; i--) {
        const int32_t k = (int32_t)rnd((uint32_t)i + 1);
        const int32_t id = ids[i];
        ids[i] = ids[k];
        ids[k] = id;
    }
    if (rnd(4) > 0 && depot_is_curious(t->d, i_layer)) {
        depot_guess(t->d, i_layer, ids, n);
    }
}

/* A layer as the decoder computes it: what it wants in groups, of each what is here first. */
static enum err layer(const struct depot_test *t, int32_t i_layer, const int32_t *all,
                      int32_t n_all, bool may_end)
{
    depot_want(t->d, i_layer, all, n_all);
    if (may_end) {
        guess_some(t, i_layer + 1);
    }
    for (int32_t at = 0; at < n_all;) {
        int32_t ids[N_EXPERT_MAX];
        const int32_t n = 1 + (int32_t)rnd((uint32_t)(n_all - at));
        memcpy(ids, all + at, (size_t)n * sizeof ids[0]);
        for (int32_t k = 0, n_here = 0; k < n; k += n_here) {
            enum err e;
            for (;;) {
                const uint64_t begin_us = now_us;
                e = depot_enter(t->d, i_layer, ids + k, n - k, WAIT_US, &n_here);
                assert_true(now_us - begin_us <= WAIT_US); /* of all together, not of each */
                if (e != ERR_BUSY) {
                    break;
                }
                if (may_end && rnd(30) == 0) {
                    return ERR_CANCELLED; /* nobody wants it any more */
                }
            }
            TRY(e);
            assert_in_range(n_here, 1, n - k);
            work_some();
            for (int32_t i = k; i < k + n_here; i++) {
                check_expert(i_layer, ids[i]);
            }
            depot_leave(t->d, i_layer, ids + k, n_here);
            if (rnd(4) == 0) {
                depot_move(t->d);
            }
        }
        for (int32_t i = 0; i < n; i++) { /* each once */
            for (int32_t k = 0; k < i; k++) {
                assert_int_not_equal(ids[i], ids[k]);
            }
        }
        at += n;
    }
    return ERR_OK;
}

static void open_slots(struct depot_test *t, int32_t n_slot)
{
    t->n_slot = n_slot;
    assert_int_equal(arena_open(&t->memory, (size_t)n_slot * t->shape.slot_bytes, false), ERR_OK);
    assert_int_equal(depot_open(&t->d, &world.w, &t->shape, NULL, FILE_AT, t->memory.base, n_slot),
                     ERR_OK);
}

static void open_of(struct depot_test *t, int32_t n_layer, int32_t n_expert, int32_t n_slot)
{
    make_weights(n_layer, n_expert);
    depot_shape_of(&world.w, n_layer, &t->shape);
    assert_int_equal(t->shape.n_expert, n_expert);
    open_slots(t, n_slot);
}

static void open_some(struct depot_test *t)
{
    const int32_t n_layer = 1 + (int32_t)rnd(N_LAYER_MAX);
    const int32_t n_expert = 2 + (int32_t)rnd(N_EXPERT_MAX - 1);
    open_of(t, n_layer, n_expert, 1 + (int32_t)rnd((uint32_t)(n_layer * n_expert)));
}

static void close_all(struct depot_test *t)
{
    depot_close(t->d);
    arena_close(&t->memory);
}

static void test_passes(void **state)
{
    (void)state;
    int n_fault = 0;
    int n_changed = 0;
    int n_whole = 0;
    for (int i = 0; i < 150; i++) {
        struct depot_test t;
        open_some(&t);
        world.is_full = true;
        world.guesser = t.d;
        world.may_change = rnd(3) == 0;
        for (int k = 0; k < 12; k++) {
            enum err e = ERR_OK;
            const uint32_t one_in = 1 + rnd(4); /* 1: as a prompt */
            world.fault_in = rnd(4) == 0 ? 1 + (int)rnd(12) : 0;
            depot_begin(t.d, one_in == 1);
            guess_some(&t, 0);
            for (int32_t l = 0; l < t.shape.n_layer && e == ERR_OK; l++) {
                int32_t ids[N_EXPERT_MAX];
                const int32_t n = choose_ids(ids, t.shape.n_expert, one_in);
                e = rnd(30) == 0 ? ERR_CANCELLED : layer(&t, l, ids, n, true);
            }
            n_fault += e == ERR_IO;
            n_changed += e == ERR_INTEGRITY;
            n_whole += e == ERR_OK;
        }
        close_all(&t);
    }
    assert_true(n_fault > 40 && n_changed > 40 && n_whole > 700);
}

static const int32_t all_ids[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

/* All layers want ids[n]. */
static void pass(const struct depot_test *t, const int32_t *ids, int32_t n)
{
    depot_begin(t->d, n > t->shape.n_expert / 2);
    for (int32_t l = 0; l < t->shape.n_layer; l++) {
        assert_int_equal(layer(t, l, ids, n, false), ERR_OK);
    }
}

/* Reads that one pass over all experts takes, when passes of tokens that ask for a few have shown
 * which are worth most; and that these are still here afterwards. */
static void test_keeps(void **state)
{
    (void)state;
    static const int32_t liked[] = { 1, 4, 5 };
    struct depot_test t;
    open_of(&t, 4, 16, 20);
    for (int k = 0; k < 20; k++) {
        pass(&t, liked, 3);
    }
    assert_int_equal(world.n_started, 12); /* each once */
    pass(&t, all_ids, 16);                 /* a prompt */
    assert_int_equal(world.n_started, 12 + 64 - 12);
    pass(&t, liked, 3);
    assert_int_equal(world.n_started, 12 + 64 - 12); /* it has pushed out none of them */
    close_all(&t);
}

/* Prompts alone: each reads what has no room and no more than the slots they take turns in, and
 * each layer about as much. */
static void test_prompts(void **state)
{
    (void)state;
    struct depot_test t;
    open_of(&t, 4, 16, 40);
    for (int k = 0; k < 4; k++) {
        const uint64_t before = world.n_started;
        depot_begin(t.d, true);
        for (int32_t l = 0; l < 4; l++) {
            const uint64_t n = world.n_started;
            assert_int_equal(layer(&t, l, all_ids, 16, false), ERR_OK);
            assert_true(k < 2 || world.n_started - n <= 16 - 40 / 4 + 5);
        }
        assert_in_range(world.n_started - before, 64 - 40, k == 0 ? 64 : 64 - 40 + 5 + 16);
    }
    close_all(&t);
}

static void test_one_slot(void **state)
{
    (void)state;
    struct depot_test t;
    open_of(&t, 3, 8, 1);
    pass(&t, all_ids, 8);
    assert_true(world.n_started >= 24);
    close_all(&t);
}

static void test_all_have_room(void **state)
{
    (void)state;
    static const int32_t liked[] = { 0, 3, 7 };
    struct depot_test t;
    open_of(&t, 3, 8, 24);
    pass(&t, all_ids, 8);
    assert_int_equal(world.n_started, 24);
    for (int k = 0; k < 5; k++) {
        const uint64_t waited_us = depot_count(t.d)->waited_us;
        pass(&t, k % 2 == 0 ? all_ids : liked, k % 2 == 0 ? 8 : 3);
        assert_int_equal(depot_count(t.d)->waited_us, waited_us);
    }
    assert_int_equal(world.n_started, 24);
    assert_int_equal(depot_count(t.d)->read_bytes, depot_count(t.d)->used_bytes);
    close_all(&t);
}

/* What comes first is computed first. */
static void test_order(void **state)
{
    (void)state;
    int32_t ids[] = { 1, 4, 6 };
    int32_t n_here = 0;
    struct depot_test t;
    open_of(&t, 2, 16, 32);
    world.is_slow = true;
    depot_begin(t.d, false);
    depot_want(t.d, 0, ids, 3);
    assert_int_equal(world.n_started, 3);
    assert_int_equal(depot_enter(t.d, 0, ids, 3, WAIT_US, &n_here), ERR_OK);
    assert_int_equal(n_here, 1);
    assert_int_equal(ids[0], 6);
    assert_int_equal(ids[1], 1);
    check_expert(0, 6);
    depot_leave(t.d, 0, ids, 1);
    assert_int_equal(depot_enter(t.d, 0, ids + 1, 2, WAIT_US, &n_here), ERR_OK);
    assert_int_equal(n_here, 1);
    assert_int_equal(ids[1], 4);
    depot_stop(t.d);
    close_all(&t);
}

/* One layer's experts, one after the other. */
static void compute(const struct depot_test *t, int32_t i_layer, const int32_t *all, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        int32_t id = all[i];
        int32_t n_here = 0;
        while (n_here == 0) {
            const enum err e = depot_enter(t->d, i_layer, &id, 1, WAIT_US, &n_here);
            assert_true(e == ERR_OK || e == ERR_BUSY);
        }
        check_expert(i_layer, id);
        depot_leave(t->d, i_layer, &id, 1);
    }
}

/* What was guessed is begun before it is wanted, and not read again. */
static void test_guess(void **state)
{
    (void)state;
    static const int32_t first[] = { 1, 4 };
    int32_t guesses[] = { 3, 2, 7, 0 };
    static const int32_t second[] = { 2, 3, 5 };
    struct depot_test t;
    open_of(&t, 3, 16, 24);
    for (int k = 0; k < 3; k++) { /* all slots are worth something */
        pass(&t, all_ids + 8, 8);
    }
    world.n_started = 0;
    depot_begin(t.d, false);
    assert_true(depot_is_curious(t.d, 0));
    assert_false(depot_is_curious(t.d, 1));
    depot_want(t.d, 0, first, 2);
    assert_int_equal(world.n_started, 2);
    assert_true(depot_is_curious(t.d, 1));
    for (int32_t e = 8; e < 16; e++) { /* that which would be given up first */
        const int32_t a = t.d->slot_of[16 + guesses[3]];
        const int32_t b = t.d->slot_of[16 + e];
        guesses[3] = b >= 0 && (a < 0 || is_worse(t.d, b, a)) ? e : guesses[3];
    }
    assert_true(t.d->slot_of[16 + guesses[3]] >= 0);
    depot_guess(t.d, 1, guesses, 4);
    while (t.d->n_coming > 0) {
        depot_move(t.d);
    }
    assert_int_equal(world.n_started, 2 + 1); /* an eighth of the slots */
    compute(&t, 0, first, 2);
    assert_int_equal(world.n_started, 2 + 3);
    assert_true(t.d->slot_of[16 + guesses[3]] >= 0);
    depot_want(t.d, 1, second, 3);
    compute(&t, 1, second, 3);
    assert_int_equal(world.n_started, 2 + 3 + 1);
    assert_int_equal(depot_count(t.d)->n_guess, 4);
    assert_int_equal(depot_count(t.d)->n_right, 2);
    depot_begin(t.d, false);
    depot_want(t.d, 0, first, 2);
    depot_guess(t.d, 1, guesses, 3);
    depot_want(t.d, 2, first, 2); /* layer 1 was left out */
    assert_int_equal(depot_count(t.d)->n_guess, 4);
    close_all(&t);
}

/* A prompt's next layer is read anyway; what is left of a pass that was ended is not. */
static void test_guess_not(void **state)
{
    (void)state;
    static const int32_t first[] = { 1, 4 };
    for (int32_t n_slot = 20; n_slot <= 48; n_slot += 28) { /* 48: all are here */
        struct depot_test t;
        open_of(&t, 3, 16, n_slot);
        pass(&t, all_ids, 16);
        depot_begin(t.d, true);
        assert_false(depot_is_curious(t.d, 0));
        depot_want(t.d, 0, all_ids, 16);
        assert_false(depot_is_curious(t.d, 1));
        close_all(&t);
    }
    struct depot_test t;
    open_of(&t, 3, 16, 20);
    depot_begin(t.d, false);
    depot_want(t.d, 0, first, 2);
    depot_guess(t.d, 1, all_ids, 8);
    world.n_void = world.n_ticket;
    depot_stop(t.d);
    const uint64_t n_started = world.n_started;
    depot_move(t.d);
    assert_int_equal(world.n_started, n_started);
    depot_begin(t.d, false);
    assert_true(depot_is_curious(t.d, 0));
    depot_want(t.d, 0, first, 2);
    world.fault_in = 1;
    int32_t ids[] = { 1, 4 };
    int32_t n_here = 0;
    world.is_slow = true;
    assert_int_equal(depot_enter(t.d, 0, ids, 2, WAIT_US, &n_here), ERR_IO);
    depot_begin(t.d, false);
    assert_false(depot_is_curious(t.d, 0)); /* what failed may have been a guess */
    close_all(&t);
}

/* DP-5: nothing that is wanted waits for a guess. */
static void test_guess_waits(void **state)
{
    (void)state;
    static const int32_t first[] = { 1, 4 };
    static const int32_t guesses[] = { 9 };
    struct depot_test t;
    open_of(&t, 2, 16, 8); /* so few slots that one is read at a time */
    world.is_slow = true;
    depot_begin(t.d, false);
    depot_want(t.d, 0, first, 2);
    depot_guess(t.d, 1, guesses, 1);
    assert_int_equal(world.n_started, 1);
    compute(&t, 0, first, 1);
    assert_int_equal(world.n_started, 2);
    assert_int_equal(t.d->slots[t.d->slot_of[4]].state, COMING);
    assert_false(has_slot(t.d, 16 + 9));
    compute(&t, 0, first + 1, 1);
    assert_true(has_slot(t.d, 16 + 9));
    depot_stop(t.d);
    close_all(&t);
}

/* Experts larger than what may be in flight. */
static void test_guess_large(void **state)
{
    (void)state;
    struct depot_test t;
    make_weights(2, 4);
    depot_shape_of(&world.w, 2, &t.shape);
    t.shape.slot_bytes = FLY_BYTES + RING_ALIGN;
    open_slots(&t, 32);
    depot_begin(t.d, false);
    assert_false(depot_is_curious(t.d, 0));
    t.d->shape.slot_bytes = FLY_BYTES / 4 * 3; /* one beside one that is wanted, no more */
    depot_want(t.d, 0, all_ids, 1);
    depot_guess(t.d, 1, all_ids, 4);
    assert_int_equal(world.n_started, 2);
    depot_stop(t.d);
    close_all(&t);
}

/* Passes in which layer 1 wants `wanted` where `named` was guessed; how many of them asked. */
static int guess_passes(const struct depot_test *t, int n_pass, int32_t named, int32_t wanted)
{
    static const int32_t first = 3;
    int n_asked = 0;
    for (int k = 0; k < n_pass; k++) {
        depot_begin(t->d, false);
        depot_want(t->d, 0, &first, 1);
        if (depot_is_curious(t->d, 1)) {
            depot_guess(t->d, 1, &named, 1);
            n_asked++;
        }
        compute(t, 0, &first, 1);
        depot_want(t->d, 1, &wanted, 1);
        compute(t, 1, &wanted, 1);
    }
    return n_asked;
}

/* Where guesses are wrong they are not read, and asked for now and then only, until they are right
 * again. */
static void test_guess_wrong(void **state)
{
    (void)state;
    struct depot_test t;
    open_of(&t, 2, 16, 16);
    assert_int_equal(guess_passes(&t, 40, 8, 9), 40);
    assert_true(t.d->right_share > GUESS_SHARE);
    guess_passes(&t, 20, 8, 9);
    assert_true(t.d->right_share < GUESS_SHARE);
    assert_int_equal(guess_passes(&t, 10 * GUESS_EACH, 8, 9), 10);
    const uint64_t n_started = world.n_started;
    assert_int_equal(guess_passes(&t, GUESS_EACH, 7, 9), 1);
    assert_int_equal(world.n_started, n_started);
    assert_true(guess_passes(&t, 40 * GUESS_EACH, 9, 9) > 8 * GUESS_EACH);
    close_all(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_passes),        cmocka_unit_test(test_keeps),
        cmocka_unit_test(test_prompts),       cmocka_unit_test(test_one_slot),
        cmocka_unit_test(test_all_have_room), cmocka_unit_test(test_order),
        cmocka_unit_test(test_guess),         cmocka_unit_test(test_guess_waits),
        cmocka_unit_test(test_guess_large),   cmocka_unit_test(test_guess_wrong),
        cmocka_unit_test(test_guess_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
