/* depot - experts that are read from the packed image when a router has chosen them
 *
 * A mixture of experts reads a few of many for each token, others for each layer and token; so what
 * is worth keeping is what is asked for most, and that shows only while it answers. Each expert has
 * a score, how often passes asked for it, where older ones count less: heat halves in HALF passes.
 * The slot that is given up is the one with the least score of those that nobody waits for.
 *
 *     score = log2(heat) + last / HALF      which does not change while time passes
 *
 * A prompt asks for nearly all, one layer after the other, and would flush a cache that keeps what
 * was asked for last: of a cycle it gives up what comes next. Scores keep what they hold, and a
 * prompt's experts take turns in the slots that are worth least. While a prompt is computed the
 * next layer is read before its router has spoken, since that will want nearly all as well; an
 * answer's next layer is not guessed (docs/decisions/0011-layers-from-disk.md).
 *
 * A slot is empty, on its way, or here; and it may be wanted (by the layer that is computed, or the
 * next), fresh (read for that, and not left yet) or in use (its matrices are being multiplied). At
 * most a quarter is fresh, so that reading ahead does not push out what is worth most. What is
 * wanted is not given up as long as there is another one, but may be: then it is read once more
 * when its turn comes.
 *
 * Next: model/stream.c, who owns ring and slots; engine/decoder.c. */
#include "model/depot.h"

#include "base/os.h"

#include <assert.h>
#include <math.h>

#define HALF      16.0 /* passes */
#define FRESH_MAX 128  /* many enough for any disk */

enum state { EMPTY, COMING, HERE };

struct slot {
    int32_t key; /* of its expert: layer * n_expert + number; -1: none */
    enum state state;
    bool is_wanted;
    bool is_fresh;
    bool is_used;
    uint64_t ticket;
};

struct depot {
    struct weights *w;
    struct depot_shape shape;
    struct ring *ring;
    uint64_t file_at;
    uint8_t *base;
    int32_t n_slot;
    struct slot *slots;
    int32_t *slot_of; /* [n_layer * n_expert] or -1 */
    float *score;     /* likewise */
    float *heat;      /* at the pass `last` */
    uint32_t *last;
    uint32_t n_pass;
    int32_t i_layer; /* that was wanted last */
    int32_t wanted[ARCH_EXPERT_MAX];
    int32_t n_wanted;
    int32_t i_wanted; /* those before it are here, on their way, or were left */
    int32_t i_next;   /* of the next layer, likewise; n_expert: it is not read ahead */
    int32_t n_coming;
    int32_t n_fresh;
    uint64_t waited_us;
};

/* --- where they lie --------------------------------------------------------------------------- */

static struct weights_range range_of(const struct weights *w, int32_t i_layer, int32_t e)
{
    const size_t first = weights_expert_load(w, i_layer, e);
    return weights_range(w, first, first + WEIGHTS_EXPERT_LOADS, RING_ALIGN);
}

void depot_shape_of(const struct weights *w, int32_t n_layer, struct depot_shape *out)
{
    const size_t n_load = n_layer > 0 ? weights_layer_load(w, 1) - w->expert_load[0] : 0;
    *out = (struct depot_shape){ .n_layer = n_layer,
                                 .n_expert = (int32_t)(n_load / WEIGHTS_EXPERT_LOADS) };
    for (int32_t i = 0; i < n_layer; i++) {
        for (int32_t e = 0; e < out->n_expert; e++) {
            const size_t n = range_of(w, i, e).n;
            out->slot_bytes = n > out->slot_bytes ? n : out->slot_bytes;
            out->all_bytes += n;
        }
    }
}

/* Each table's block has a head of its own. */
size_t depot_bytes(const struct depot_shape *shape, int32_t n_slot)
{
    const size_t n = (size_t)shape->n_layer * (size_t)shape->n_expert;
    return sizeof(struct depot) + (size_t)n_slot * sizeof(struct slot) +
           n * (sizeof(int32_t) + 2 * sizeof(float) + sizeof(uint32_t)) + 6 * 64;
}

static int32_t key_of(const struct depot *x, int32_t i_layer, int32_t e)
{
    return i_layer * x->shape.n_expert + e;
}

static void place(struct depot *x, int32_t i_slot, bool is_here)
{
    const int32_t i_layer = x->slots[i_slot].key / x->shape.n_expert;
    const int32_t e = x->slots[i_slot].key % x->shape.n_expert;
    const size_t first = weights_expert_load(x->w, i_layer, e);
    const uint8_t *base = x->base + (size_t)i_slot * x->shape.slot_bytes;
    const size_t at = range_of(x->w, i_layer, e).at;
    for (size_t i = first; i < first + WEIGHTS_EXPERT_LOADS; i++) {
        weights_place(x->w, i, is_here ? base + (x->w->loads[i].at - at) : NULL);
    }
}

/* --- opening ---------------------------------------------------------------------------------- */

enum err depot_open(struct depot **out, struct weights *w, const struct depot_shape *shape,
                    struct ring *ring, uint64_t file_at, uint8_t *slots, int32_t n_slot)
{
    const size_t n = (size_t)shape->n_layer * (size_t)shape->n_expert;
    struct depot *x = mem_alloc(sizeof *x);
    REQUIRE(x != NULL, ERR_MEMORY, "no memory for the table of experts");
    x->w = w;
    x->shape = *shape;
    x->ring = ring;
    x->file_at = file_at;
    x->base = slots;
    x->n_slot = n_slot;
    x->i_next = shape->n_expert;
    x->slots = mem_alloc_array((size_t)n_slot, sizeof x->slots[0]);
    x->slot_of = mem_alloc_array(n, sizeof x->slot_of[0]);
    x->score = mem_alloc_array(n, sizeof x->score[0]);
    x->heat = mem_alloc_array(n, sizeof x->heat[0]);
    x->last = mem_alloc_array(n, sizeof x->last[0]);
    if (x->slots == NULL || x->slot_of == NULL || x->score == NULL || x->heat == NULL ||
        x->last == NULL) {
        depot_close(x);
        return err_set(ERR_MEMORY, "no memory for the table of %zu experts", n);
    }
    for (int32_t i = 0; i < n_slot; i++) {
        x->slots[i].key = -1;
    }
    for (size_t i = 0; i < n; i++) {
        x->slot_of[i] = -1;
        x->score[i] = -INFINITY;
    }
    *out = x;
    return ERR_OK;
}

void depot_close(struct depot *x)
{
    if (x != NULL) {
        mem_free(x->slots);
        mem_free(x->slot_of);
        mem_free(x->score);
        mem_free(x->heat);
        mem_free(x->last);
        mem_free(x);
    }
}

/* --- slots ------------------------------------------------------------------------------------ */

int32_t depot_room(const struct depot *x)
{
    return x->n_slot < 8 ? 1 : x->n_slot / 4 < FRESH_MAX ? x->n_slot / 4 : FRESH_MAX;
}

static void depot_check(const struct depot *x)
{
    int32_t n_coming = 0;
    int32_t n_fresh = 0;
    for (int32_t i = 0; i < x->n_slot && ERR_IS_CHECKED; i++) {
        const struct slot *s = &x->slots[i];
        assert((s->key < 0) == (s->state == EMPTY));
        assert(s->key < 0 || x->slot_of[s->key] == i); /* DP-1 */
        assert(!s->is_used || s->state == HERE);       /* DP-3 */
        n_coming += s->state == COMING;
        n_fresh += s->is_fresh;
    }
    assert(!ERR_IS_CHECKED || (n_coming == x->n_coming && n_fresh == x->n_fresh));
    (void)n_coming;
    (void)n_fresh;
}

static void empty_slot(struct depot *x, int32_t i)
{
    struct slot *s = &x->slots[i];
    if (s->state == HERE) {
        place(x, i, false);
    }
    x->n_coming -= s->state == COMING;
    x->n_fresh -= s->is_fresh;
    if (s->key >= 0) {
        x->slot_of[s->key] = -1;
    }
    *s = (struct slot){ .key = -1 };
}

/* The slot that is worth least: empty, or here and not in use; one that is wanted only when
 * `takes_wanted`. -1: there is none. */
static int32_t worst_slot(const struct depot *x, bool takes_wanted)
{
    int32_t worst = -1;
    for (int32_t i = 0; i < x->n_slot; i++) {
        const struct slot *s = &x->slots[i];
        if (s->state == EMPTY) {
            return i;
        }
        if (s->state == HERE && !s->is_used && (takes_wanted || !s->is_wanted) &&
            (worst < 0 || x->score[s->key] < x->score[x->slots[worst].key])) {
            worst = i;
        }
    }
    return worst;
}

/* Begins to read an expert; false: there is no slot for it, or the ring has no room. */
static bool start(struct depot *x, int32_t key, bool takes_wanted)
{
    const int32_t i = worst_slot(x, takes_wanted);
    if (i < 0) {
        return false;
    }
    empty_slot(x, i);
    struct slot *s = &x->slots[i];
    const struct weights_range r = range_of(x->w, key / x->shape.n_expert, key % x->shape.n_expert);
    const enum err e = ring_start(x->ring, x->file_at + r.at,
                                  x->base + (size_t)i * x->shape.slot_bytes, r.n, &s->ticket);
    if (e != ERR_OK) {
        return false; /* tried again when it is waited for */
    }
    s->key = key;
    s->state = COMING;
    s->is_wanted = true;
    s->is_fresh = true;
    x->slot_of[key] = i;
    x->n_coming++;
    x->n_fresh++;
    return true;
}

/* Whether an expert is in a slot or on its way. */
static bool has_slot(const struct depot *x, int32_t key)
{
    return x->slot_of[key] >= 0;
}

/* What the layer wants, in its order, then of the next one what may be read ahead. */
static void go_on(struct depot *x)
{
    const int32_t most = depot_room(x);
    bool has_room = true;
    while (has_room && x->i_wanted < x->n_wanted && x->n_fresh < most) {
        const int32_t key = key_of(x, x->i_layer, x->wanted[x->i_wanted]);
        has_room = has_slot(x, key) || start(x, key, false);
        x->i_wanted += has_room;
    }
    while (has_room && x->i_wanted == x->n_wanted && x->i_next < x->shape.n_expert &&
           x->n_fresh < most) {
        const int32_t key = key_of(x, x->i_layer + 1, x->i_next);
        has_room = has_slot(x, key) || start(x, key, false);
        x->i_next += has_room;
    }
    depot_check(x);
}

/* --- a layer ---------------------------------------------------------------------------------- */

static void count_use(struct depot *x, int32_t key)
{
    const double age = (double)(x->n_pass - x->last[key]);
    x->heat[key] = x->heat[key] * (float)exp2(-age / HALF) + 1.0f;
    x->last[key] = x->n_pass;
    x->score[key] = log2f(x->heat[key]) + (float)((double)x->n_pass / HALF);
}

void depot_want(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n)
{
    x->n_pass += i_layer <= x->i_layer;
    x->i_layer = i_layer;
    x->n_wanted = n;
    x->i_wanted = 0;
    for (int32_t i = 0; i < x->n_slot; i++) {
        x->slots[i].is_wanted = false;
        x->slots[i].is_used = false;
        x->slots[i].is_fresh = false;
    }
    x->n_fresh = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t key = key_of(x, i_layer, ids[i]);
        x->wanted[i] = ids[i];
        count_use(x, key);
        if (has_slot(x, key)) {
            struct slot *s = &x->slots[x->slot_of[key]];
            s->is_wanted = true;
            s->is_fresh = s->state == COMING;
            x->n_fresh += s->is_fresh;
        }
    }
    const bool is_prompt = n > x->shape.n_expert / 2 && i_layer + 1 < x->shape.n_layer;
    x->i_next = is_prompt ? 0 : x->shape.n_expert;
    go_on(x);
}

static bool is_here(const struct depot *x, int32_t key)
{
    return has_slot(x, key) && x->slots[x->slot_of[key]].state == HERE;
}

int32_t depot_sort(const struct depot *x, int32_t i_layer, int32_t *ids, int32_t n)
{
    int32_t later[ARCH_EXPERT_MAX];
    int32_t n_here = 0;
    int32_t n_later = 0;
    for (int32_t i = 0; i < n; i++) {
        if (is_here(x, key_of(x, i_layer, ids[i]))) {
            ids[n_here++] = ids[i];
        } else {
            later[n_later++] = ids[i];
        }
    }
    for (int32_t i = 0; i < n_later; i++) {
        ids[n_here + i] = later[i];
    }
    return n_here;
}

/* All whose tickets are answered by then are here. */
static void arrive(struct depot *x, uint64_t ticket)
{
    for (int32_t i = 0; i < x->n_slot; i++) {
        struct slot *s = &x->slots[i];
        if (s->state == COMING && s->ticket <= ticket) {
            s->state = HERE;
            x->n_coming--;
            place(x, i, true);
        }
    }
}

void depot_stop(struct depot *x)
{
    for (int32_t i = 0; i < x->n_slot; i++) {
        x->slots[i].is_used = false;
        if (x->slots[i].state == COMING) {
            empty_slot(x, i);
        }
    }
    x->n_wanted = 0;
    x->i_wanted = 0;
    x->i_next = x->shape.n_expert;
    depot_check(x);
}

static enum err wait_for(struct depot *x, uint64_t ticket, uint64_t timeout_us)
{
    const uint64_t begin = os_now_us();
    const enum err e = ring_wait_for(x->ring, ticket, timeout_us);
    x->waited_us += os_now_us() - begin;
    TRY(e);
    arrive(x, ticket);
    return ERR_OK;
}

/* The last that is on its way. */
static uint64_t last_ticket(const struct depot *x)
{
    uint64_t last = 0;
    for (int32_t i = 0; i < x->n_slot; i++) {
        const struct slot *s = &x->slots[i];
        last = s->state == COMING && s->ticket > last ? s->ticket : last;
    }
    return last;
}

static enum err enter_one(struct depot *x, int32_t key, uint64_t timeout_us)
{
    if (!has_slot(x, key) && !start(x, key, true)) {
        TRY(wait_for(x, last_ticket(x), timeout_us)); /* then there is a slot to be given up */
        REQUIRE(start(x, key, true), ERR_IO, "an expert cannot be read: %s", err_text());
    }
    struct slot *s = &x->slots[x->slot_of[key]];
    if (s->state == COMING) {
        TRY(wait_for(x, s->ticket, timeout_us));
    }
    s->is_used = true;
    return ERR_OK;
}

enum err depot_enter(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n,
                     uint64_t timeout_us)
{
    const uint64_t end = os_now_us() + timeout_us; /* of the wait for all together */
    enum err e = ERR_OK;
    for (int32_t i = 0; i < n && e == ERR_OK; i++) {
        const uint64_t now = os_now_us();
        e = enter_one(x, key_of(x, i_layer, ids[i]), now < end ? end - now : 0);
    }
    if (e != ERR_OK && e != ERR_BUSY) {
        depot_stop(x);
    }
    depot_check(x);
    return e;
}

uint64_t depot_waited_us(const struct depot *x)
{
    return x->waited_us;
}

void depot_leave(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        struct slot *s = &x->slots[x->slot_of[key_of(x, i_layer, ids[i])]];
        x->n_fresh -= s->is_fresh;
        s->is_used = false;
        s->is_wanted = false;
        s->is_fresh = false;
    }
    go_on(x);
}
