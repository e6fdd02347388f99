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
 * was asked for last: of a cycle it gives up what comes next. So where a layer wants most of its
 * experts that counts when the pass is over, and of equal scores those stay that have the same
 * numbers in all layers: a prompt's experts take turns in few slots, the others keep theirs, and
 * each layer has as much to read as the next. While a prompt is computed the next layer is read
 * before its router has spoken, since that will want nearly all as well.
 *
 * An answer's next layer is guessed: its router, asked too early, names some (Eliseev and Mazur
 * 2023, "Fast inference of mixture-of-experts language models with offloading"). They are read, the
 * likeliest first, while the disk would rest, and only where half of what was named was right of
 * late. Experts of more than FLY_BYTES are not guessed: a wrong one would keep the disk for longer
 * than it rests. Nor is any after a read that failed: it may fail where nobody wants to read.
 *
 * What comes first is computed first, while the others come. A disk serves all that it was asked
 * for side by side, so that with many reads in flight the first comes hardly sooner than the last:
 * for answers there are few, and more for a prompt, between whose experts more time passes.
 *
 * A slot is empty, on its way, or here. It is held while it is on its way, wanted (by the layer
 * that is computed, or the next), guessed, or in use (its matrices are being multiplied); all
 * others are in a heap, the one that is worth least on top. At most an eighth is fresh, that is
 * read and not left yet, so that reading ahead does not push out what is worth most. What is wanted
 * is not given up as long as there is another one, but may be: then it is read once more when its
 * turn comes.
 *
 * What was read counts once the file is seen to be the same still (ring_same), before its first
 * use; what has not been used is given up with an error, since it may be of another file.
 *
 * Next: model/stream.c, who owns ring and slots; engine/decoder.c. */
#include "model/depot.h"

#include "base/os.h"

#include <assert.h>
#include <math.h>

#define HALF      16.0 /* passes */
#define FRESH_MAX 128  /* many enough for any disk */

/* In flight. */
#define FLY_BYTES ((size_t)4 << 20) /* for answers */

#define GUESS_SHARE  0.5        /* right: with fewer none is read */
#define GUESS_WEIGHT (1 / 64.0) /* of a layer in that share */
#define GUESS_EACH   16         /* passes, of which one finds out whether guesses are better now */

enum state { EMPTY, COMING, HERE };

struct slot {
    int32_t key; /* of its expert: layer * n_expert + number; -1: none */
    enum state state;
    bool is_held;
    bool is_wanted;
    bool is_guess;
    bool is_fresh;
    bool is_used;
    bool is_new; /* has not been used since it was read */
    int32_t at;  /* in `held`, or in `heap` */
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
    int32_t *heap; /* [n_slot] slots, of which heap[0] is worth least */
    int32_t *held; /* [n_slot] the others, in no order */
    int32_t n_heap;
    int32_t n_held;
    int32_t *slot_of; /* [n_layer * n_expert] or -1 */
    double *score;    /* likewise */
    float *heat;      /* at the pass `last` */
    uint32_t *last;
    int32_t *later; /* [n_later] keys that count when the pass is over */
    int32_t n_later;
    uint32_t n_pass;
    int32_t i_layer; /* that was wanted last */
    int32_t wanted[ARCH_EXPERT_MAX];
    int32_t n_wanted;
    int32_t i_wanted; /* those before it are here, on their way, or were left */
    int32_t i_next;   /* of the next layer, likewise; n_expert: it is not read ahead */
    bool is_prompt;
    bool has_failed;                /* a read has */
    int32_t guess[ARCH_EXPERT_MAX]; /* of the next layer */
    int32_t n_guess;
    int32_t i_guess; /* those before it are here or on their way */
    double right_share;
    int32_t n_coming;
    int32_t n_fresh;
    struct depot_count count;
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
    return sizeof(struct depot) + (size_t)n_slot * (sizeof(struct slot) + 2 * sizeof(int32_t)) +
           n * (2 * sizeof(int32_t) + sizeof(double) + sizeof(float) + sizeof(uint32_t)) + 9 * 64;
}

static int32_t key_of(const struct depot *x, int32_t i_layer, int32_t e)
{
    return i_layer * x->shape.n_expert + e;
}

static struct weights_range range_of_key(const struct depot *x, int32_t key)
{
    return range_of(x->w, key / x->shape.n_expert, key % x->shape.n_expert);
}

static void place(struct depot *x, int32_t i_slot, bool is_here)
{
    const int32_t key = x->slots[i_slot].key;
    const size_t first =
        weights_expert_load(x->w, key / x->shape.n_expert, key % x->shape.n_expert);
    const uint8_t *base = x->base + (size_t)i_slot * x->shape.slot_bytes;
    const size_t at = range_of_key(x, key).at;
    for (size_t i = first; i < first + WEIGHTS_EXPERT_LOADS; i++) {
        weights_place(x->w, i, is_here ? base + (x->w->loads[i].at - at) : NULL);
    }
}

/* --- what is worth least ---------------------------------------------------------------------- */

/* Of equal scores: a fixed order that is the same in all layers, so that what stays is spread
 * evenly over them, and what is read as well. */
static uint32_t rank_of(const struct depot *x, int32_t key)
{
    return (uint32_t)(key % x->shape.n_expert) * 2654435769u;
}

static bool is_worse(const struct depot *x, int32_t a, int32_t b)
{
    const struct slot *s = &x->slots[a];
    const struct slot *t = &x->slots[b];
    if (s->state == EMPTY || t->state == EMPTY) {
        return t->state != EMPTY;
    }
    if (x->score[s->key] != x->score[t->key]) {
        return x->score[s->key] < x->score[t->key];
    }
    return rank_of(x, s->key) > rank_of(x, t->key);
}

static void heap_set(struct depot *x, int32_t at, int32_t i_slot)
{
    x->heap[at] = i_slot;
    x->slots[i_slot].at = at;
}

static void heap_up(struct depot *x, int32_t at)
{
    const int32_t i = x->heap[at];
    while (at > 0 && is_worse(x, i, x->heap[(at - 1) / 2])) {
        heap_set(x, at, x->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_set(x, at, i);
}

static void heap_down(struct depot *x, int32_t at)
{
    const int32_t i = x->heap[at];
    for (int32_t k = 2 * at + 1; k < x->n_heap; k = 2 * at + 1) {
        k += k + 1 < x->n_heap && is_worse(x, x->heap[k + 1], x->heap[k]);
        if (!is_worse(x, x->heap[k], i)) {
            break;
        }
        heap_set(x, at, x->heap[k]);
        at = k;
    }
    heap_set(x, at, i);
}

/* Out of the heap. */
static void hold(struct depot *x, int32_t i)
{
    struct slot *s = &x->slots[i];
    if (s->is_held) {
        return;
    }
    const int32_t at = s->at;
    const int32_t other = x->heap[--x->n_heap];
    if (other != i) {
        heap_set(x, at, other);
        heap_down(x, at);
        heap_up(x, x->slots[other].at);
    }
    s->is_held = true;
    s->at = x->n_held;
    x->held[x->n_held++] = i;
}

/* Into the heap: nobody cares for it. */
static void let_go(struct depot *x, int32_t i)
{
    struct slot *s = &x->slots[i];
    const int32_t other = x->held[--x->n_held];
    x->held[s->at] = other;
    x->slots[other].at = s->at;
    s->is_held = false;
    heap_set(x, x->n_heap++, i);
    heap_up(x, s->at);
}

/* Of an expert that is in no heap. */
static void count_use(struct depot *x, int32_t key)
{
    const double age = (double)(x->n_pass - x->last[key]);
    x->heat[key] = x->heat[key] * (float)exp2(-age / HALF) + 1.0f;
    x->last[key] = x->n_pass;
    x->score[key] = log2((double)x->heat[key]) + (double)x->n_pass / HALF;
}

static void count_later(struct depot *x)
{
    for (int32_t i = 0; i < x->n_later; i++) {
        count_use(x, x->later[i]);
    }
    for (int32_t at = x->n_heap / 2; at >= 0 && x->n_later > 0 && at < x->n_heap; at--) {
        heap_down(x, at);
    }
    x->n_later = 0;
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
    x->i_layer = -1;
    x->i_next = shape->n_expert;
    x->right_share = 1.0;
    x->slots = mem_alloc_array((size_t)n_slot, sizeof x->slots[0]);
    x->heap = mem_alloc_array((size_t)n_slot, sizeof x->heap[0]);
    x->held = mem_alloc_array((size_t)n_slot, sizeof x->held[0]);
    x->slot_of = mem_alloc_array(n, sizeof x->slot_of[0]);
    x->score = mem_alloc_array(n, sizeof x->score[0]);
    x->heat = mem_alloc_array(n, sizeof x->heat[0]);
    x->last = mem_alloc_array(n, sizeof x->last[0]);
    x->later = mem_alloc_array(n, sizeof x->later[0]);
    if (x->slots == NULL || x->heap == NULL || x->held == NULL || x->slot_of == NULL ||
        x->score == NULL || x->heat == NULL || x->last == NULL || x->later == NULL) {
        depot_close(x);
        return err_set(ERR_MEMORY, "no memory for the table of %zu experts", n);
    }
    for (int32_t i = 0; i < n_slot; i++) {
        x->slots[i].key = -1;
        heap_set(x, i, i);
    }
    x->n_heap = n_slot;
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
        mem_free(x->heap);
        mem_free(x->held);
        mem_free(x->slot_of);
        mem_free(x->score);
        mem_free(x->heat);
        mem_free(x->last);
        mem_free(x->later);
        mem_free(x);
    }
}

const struct depot_count *depot_count(const struct depot *x)
{
    return &x->count;
}

/* --- slots ------------------------------------------------------------------------------------ */

static void depot_check(const struct depot *x)
{
    int32_t n_coming = 0;
    int32_t n_fresh = 0;
    for (int32_t i = 0; i < x->n_slot && ERR_IS_CHECKED; i++) {
        const struct slot *s = &x->slots[i];
        assert((s->key < 0) == (s->state == EMPTY));
        assert(s->key < 0 || x->slot_of[s->key] == i); /* DP-1 */
        assert(!s->is_used || s->state == HERE);       /* DP-3 */
        assert((s->is_held ? x->held : x->heap)[s->at] == i);
        assert(s->is_held || (s->state != COMING && !s->is_wanted && !s->is_guess && !s->is_used));
        assert(s->is_held || s->at == 0 || !is_worse(x, i, x->heap[(s->at - 1) / 2]));
        n_coming += s->state == COMING;
        n_fresh += s->is_fresh;
    }
    assert(!ERR_IS_CHECKED || (n_coming == x->n_coming && n_fresh == x->n_fresh));
    assert(x->n_heap + x->n_held == x->n_slot);
    (void)n_coming;
    (void)n_fresh;
}

/* Its place in heap or list stays. */
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
    *s = (struct slot){ .key = -1, .is_held = s->is_held, .at = s->at };
}

/* Of those that are here and not in use, the one that is wanted last; -1: there is none. */
static int32_t last_wanted(const struct depot *x)
{
    int32_t last = -1;
    for (int32_t k = 0; k < x->n_held; k++) {
        const struct slot *s = &x->slots[x->held[k]];
        if (s->state == HERE && !s->is_used && (last < 0 || s->key > x->slots[last].key)) {
            last = x->held[k];
        }
    }
    return last;
}

/* Begins to read an expert; false: there is no slot for it, or the ring has no room. One that is
 * wanted is given up for it only when `takes_wanted`. */
static bool start(struct depot *x, int32_t key, bool takes_wanted)
{
    const int32_t i = x->n_heap > 0 ? x->heap[0] : takes_wanted ? last_wanted(x) : -1;
    if (i < 0) {
        return false;
    }
    empty_slot(x, i); /* which stays on top of the heap */
    if (x->slots[i].is_held) {
        let_go(x, i);
    }
    struct slot *s = &x->slots[i];
    const struct weights_range r = range_of_key(x, key);
    const enum err e = ring_start(x->ring, x->file_at + r.at,
                                  x->base + (size_t)i * x->shape.slot_bytes, r.n, &s->ticket);
    if (e != ERR_OK) {
        return false; /* tried again when it is waited for */
    }
    hold(x, i);
    s->key = key;
    s->state = COMING;
    s->is_fresh = true;
    s->is_new = true;
    x->slot_of[key] = i;
    x->n_coming++;
    x->n_fresh++;
    x->count.read_bytes += r.n;
    return true;
}

/* Whether an expert is in a slot or on its way. */
static bool has_slot(const struct depot *x, int32_t key)
{
    return x->slot_of[key] >= 0;
}

/* An expert that is wanted by this layer or the next: it is kept, or begun. */
static bool want(struct depot *x, int32_t key, bool takes_wanted)
{
    const bool has = has_slot(x, key) || start(x, key, takes_wanted);
    if (has) {
        hold(x, x->slot_of[key]);
        x->slots[x->slot_of[key]].is_wanted = true;
    }
    return has;
}

static int32_t fresh_most(int32_t n_slot)
{
    return n_slot < 16 ? 1 : n_slot / 8 < FRESH_MAX ? n_slot / 8 : FRESH_MAX;
}

int32_t depot_turns(int32_t n_slot)
{
    return fresh_most(n_slot) + fresh_most(n_slot) / 2;
}

/* Of the next layer, as long as little is on its way: what is wanted then would wait for it. */
static void go_on_guessing(struct depot *x, int32_t most)
{
    bool has_room = x->right_share >= GUESS_SHARE;
    while (has_room && x->i_guess < x->n_guess && x->n_fresh < most &&
           (size_t)x->n_coming * x->shape.slot_bytes < FLY_BYTES) {
        const int32_t key = key_of(x, x->i_layer + 1, x->guess[x->i_guess]);
        has_room = has_slot(x, key) || start(x, key, false);
        if (has_room) {
            hold(x, x->slot_of[key]);
            x->slots[x->slot_of[key]].is_guess = true;
            x->i_guess++;
        }
    }
}

/* What the layer wants, in its order, then of the next one what may be read ahead. */
static void go_on(struct depot *x)
{
    const int32_t most = fresh_most(x->n_slot);
    bool has_room = true;
    while (has_room && x->i_wanted < x->n_wanted && x->n_fresh < most) {
        has_room = want(x, key_of(x, x->i_layer, x->wanted[x->i_wanted]), false);
        x->i_wanted += has_room;
    }
    while (has_room && x->i_wanted == x->n_wanted && x->i_next < x->shape.n_expert &&
           x->n_fresh < most) {
        has_room = want(x, key_of(x, x->i_layer + 1, x->i_next), false);
        x->i_next += has_room;
    }
    if (has_room) {
        go_on_guessing(x, most);
    }
    depot_check(x);
}

/* --- a layer ---------------------------------------------------------------------------------- */

/* Of the guesses, how many are of ids[n], which their layer wants. */
static void judge(struct depot *x, const int32_t *ids, int32_t n)
{
    int32_t n_right = 0;
    for (int32_t i = 0; i < x->n_guess; i++) {
        int32_t k = 0;
        while (k < n && ids[k] != x->guess[i]) {
            k++;
        }
        n_right += k < n;
    }
    if (x->n_guess > 0 && n > 0) {
        x->right_share += GUESS_WEIGHT * ((double)n_right / x->n_guess - x->right_share);
        x->count.n_guess += (uint64_t)x->n_guess;
        x->count.n_right += (uint64_t)n_right;
    }
}

/* What is here and neither wanted nor guessed. */
static void let_idle_go(struct depot *x)
{
    for (int32_t k = x->n_held - 1; k >= 0; k--) {
        const struct slot *s = &x->slots[x->held[k]];
        if (s->state == HERE && !s->is_wanted && !s->is_guess) {
            let_go(x, x->held[k]);
        }
    }
}

static void forget(struct slot *s)
{
    s->is_wanted = s->is_guess = s->is_used = s->is_fresh = false;
}

/* Nothing is wanted, guessed or in use. */
static void forget_all(struct depot *x)
{
    for (int32_t k = 0; k < x->n_held; k++) {
        forget(&x->slots[x->held[k]]);
    }
    x->n_fresh = 0;
    x->n_guess = 0;
    x->i_guess = 0;
}

/* Begins what is wanted and, of a prompt, what the next layer will want. */
static void read_ahead(struct depot *x, bool is_prompt)
{
    x->is_prompt = is_prompt;
    x->i_next = is_prompt && x->i_layer + 1 < x->shape.n_layer ? 0 : x->shape.n_expert;
    ring_narrow(x->ring, is_prompt ? DEPOT_FLY_BYTES : FLY_BYTES);
    go_on(x);
}

void depot_begin(struct depot *x, bool is_prompt)
{
    x->n_pass++;
    count_later(x);
    x->i_layer = -1;
    x->n_wanted = 0;
    x->i_wanted = 0;
    forget_all(x);
    let_idle_go(x);
    read_ahead(x, is_prompt);
}

void depot_move(struct depot *x)
{
    (void)ring_poll(x->ring, 0);
    for (int32_t k = x->n_held - 1; k >= 0 && x->n_coming > 0; k--) {
        const int32_t i = x->held[k];
        struct slot *s = &x->slots[i];
        if (s->state == COMING && ring_has(x->ring, s->ticket)) {
            s->state = HERE;
            x->n_coming--;
            place(x, i, true);
        }
    }
    let_idle_go(x);
    go_on(x);
}

void depot_want(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n)
{
    const bool is_prompt = n > x->shape.n_expert / 2;
    judge(x, ids, i_layer == x->i_layer + 1 ? n : 0);
    x->i_layer = i_layer;
    x->n_wanted = n;
    x->i_wanted = 0;
    forget_all(x);
    for (int32_t i = 0; i < n; i++) {
        const int32_t key = key_of(x, i_layer, ids[i]);
        x->wanted[i] = ids[i];
        if (has_slot(x, key)) {
            hold(x, x->slot_of[key]);
            struct slot *s = &x->slots[x->slot_of[key]];
            s->is_wanted = true;
            s->is_fresh = s->state == COMING;
            x->n_fresh += s->is_fresh;
        }
        if (is_prompt) {
            x->later[x->n_later++] = key;
        } else {
            count_use(x, key);
        }
    }
    let_idle_go(x);
    read_ahead(x, is_prompt);
}

bool depot_is_curious(const struct depot *x, int32_t i_layer)
{
    return i_layer < x->shape.n_layer && i_layer == x->i_layer + 1 && !x->is_prompt &&
           !x->has_failed && x->shape.slot_bytes <= FLY_BYTES &&
           (x->right_share >= GUESS_SHARE || x->n_pass % GUESS_EACH == 0);
}

void depot_guess(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n)
{
    assert(i_layer == x->i_layer + 1);
    x->n_guess = n;
    x->i_guess = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t key = key_of(x, i_layer, ids[i]);
        x->guess[i] = ids[i];
        if (has_slot(x, key)) {
            hold(x, x->slot_of[key]);
            x->slots[x->slot_of[key]].is_guess = true;
        }
    }
    go_on(x);
}

void depot_stop(struct depot *x)
{
    for (int32_t k = x->n_held - 1; k >= 0; k--) {
        const int32_t i = x->held[k];
        struct slot *s = &x->slots[i];
        if (s->state == COMING) {
            empty_slot(x, i);
        }
        forget(s);
        let_go(x, i);
    }
    x->n_fresh = 0;
    for (int32_t i = 0; i < x->n_slot; i++) {
        if (x->slots[i].is_new) {
            empty_slot(x, i);
        }
    }
    for (int32_t at = x->n_heap / 2; at >= 0; at--) {
        heap_down(x, at);
    }
    x->n_wanted = 0;
    x->i_wanted = 0;
    x->n_guess = 0;
    x->i_guess = 0;
    x->i_next = x->shape.n_expert;
    depot_check(x);
}

/* Puts what is here of ids[n] in front, DEPOT_USE_MOST of it; they are in use. */
static int32_t use_here(struct depot *x, int32_t i_layer, int32_t *ids, int32_t n)
{
    int32_t later[ARCH_EXPERT_MAX];
    int32_t n_here = 0;
    int32_t n_later = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t key = key_of(x, i_layer, ids[i]);
        struct slot *s = has_slot(x, key) ? &x->slots[x->slot_of[key]] : NULL;
        if (s == NULL || s->state != HERE || n_here == DEPOT_USE_MOST) {
            later[n_later++] = ids[i];
            continue;
        }
        hold(x, x->slot_of[key]);
        s->is_used = true;
        ids[n_here++] = ids[i];
    }
    for (int32_t i = 0; i < n_later; i++) {
        ids[n_here + i] = later[i];
    }
    return n_here;
}

/* Whether experts that are here have the file's bytes. */
static enum err trust(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n)
{
    bool has_new = false;
    for (int32_t k = 0; k < n; k++) {
        has_new = has_new || x->slots[x->slot_of[key_of(x, i_layer, ids[k])]].is_new;
    }
    TRY(has_new ? ring_same(x->ring) : ERR_OK);
    for (int32_t k = 0; k < n; k++) {
        const int32_t key = key_of(x, i_layer, ids[k]);
        struct slot *s = &x->slots[x->slot_of[key]];
        x->count.used_bytes += s->is_new ? range_of_key(x, key).n : 0;
        s->is_new = false;
    }
    return ERR_OK;
}

/* Tickets of those that are on their way, of ids[n] or, with n 0, of all. */
static int tickets_of(const struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n,
                      uint64_t *tickets)
{
    int n_ticket = 0;
    for (int32_t k = 0; k < (n > 0 ? n : x->n_held) && n_ticket < ARCH_EXPERT_MAX; k++) {
        const int32_t i = n > 0 ? x->slot_of[key_of(x, i_layer, ids[k])] : x->held[k];
        if (i >= 0 && x->slots[i].state == COMING) {
            tickets[n_ticket++] = x->slots[i].ticket;
        }
    }
    return n_ticket;
}

/* Until something comes of ids[n]; or of anything, if that makes room for the first of them. */
static enum err wait_some(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n,
                          uint64_t timeout_us)
{
    uint64_t tickets[ARCH_EXPERT_MAX];
    int n_ticket = tickets_of(x, i_layer, ids, n, tickets);
    if (n_ticket == 0 && want(x, key_of(x, i_layer, ids[0]), true)) {
        n_ticket = tickets_of(x, i_layer, ids, 1, tickets);
    }
    n_ticket = n_ticket > 0 ? n_ticket : tickets_of(x, i_layer, ids, 0, tickets);
    REQUIRE(n_ticket > 0, ERR_IO, "an expert cannot be read: %s", err_text());
    const uint64_t begin = os_now_us();
    const enum err e = ring_wait_any(x->ring, tickets, n_ticket, timeout_us);
    x->count.waited_us += os_now_us() - begin;
    return e;
}

enum err depot_enter(struct depot *x, int32_t i_layer, int32_t *ids, int32_t n, uint64_t timeout_us,
                     int32_t *n_here)
{
    const uint64_t end = os_now_us() + timeout_us;
    enum err e = ERR_OK;
    *n_here = 0;
    while (e == ERR_OK) {
        depot_move(x);
        *n_here = use_here(x, i_layer, ids, n);
        if (*n_here > 0) {
            e = trust(x, i_layer, ids, *n_here);
            break;
        }
        const uint64_t now = os_now_us();
        e = wait_some(x, i_layer, ids, n, now < end ? end - now : 0);
    }
    if (e != ERR_OK && e != ERR_BUSY) {
        x->has_failed = true;
        depot_stop(x);
    }
    depot_check(x);
    return e;
}

void depot_leave(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n)
{
    for (int32_t k = 0; k < n; k++) {
        const int32_t i = x->slot_of[key_of(x, i_layer, ids[k])];
        struct slot *s = &x->slots[i];
        x->n_fresh -= s->is_fresh;
        forget(s);
        let_go(x, i);
    }
    depot_move(x);
}
