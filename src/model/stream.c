/* stream - weights that are read from the packed image whenever they are wanted
 *
 * A layer has four parts: attention, and the matrices gate, up and down (weights.h). A forward pass
 * needs each once, always in the same order, so what is wanted next is never a guess. Parts that do
 * not fit are numbered by passes: read k of n in pass p is number p * n + k, and goes to slot
 * number % n_slot. Numbers from `head` (wanted next, or being computed) up to `next` are read or on
 * their way:
 *
 *     number   ..  h-1 | h    h+1   h+2   h+3 |  ..
 *                done  | head                 | next = head + n_slot at most
 *
 * The last number of a pass is followed by the first of the next one, so the disk does not rest
 * between tokens. The parts that stay are spread between those that are read: while one of them is
 * computed the disk goes on, and few slots suffice. With four, gate and up are computed, and two
 * are on their way: a prompt whose computing takes as long as the disk waits for neither.
 *
 * The arena's order is that of use (WE-4), so a part is one range of the file, and one read. Reads
 * begin and end at RING_ALIGN; neighbours' bytes at both ends come along. Vectors stay: they are
 * small, and so each is checked once.
 *
 * Of the table of embeddings a step needs a row for each of its tokens. Where it is not the output
 * matrix as well, the panels with these rows are read when the step begins, some dozens at once;
 * they wait behind the parts that are on their way already, which is a hundredth of a step, and
 * the memory of the table holds some layers more.
 *
 * Rejected: mapping the image and leaving the choice to the kernel. It drops what was used longest
 * ago, which in a cycle is what is wanted next, and reads page by page while all threads wait.
 * Rejected: whole layers (one of a 70B model has 0.5 GB: slots took the room of two more).
 *
 * Next: engine/decoder.c. */
#include "model/stream.h"

#include "base/os.h"
#include "base/ring.h"

#include <assert.h>
#include <string.h>

#define SLOTS (STREAM_TOGETHER + 2)
#define ROWS  64 /* of the table of embeddings, read at once */
/* With fewer of all there is no plan: most of what a token reads would be given up for it. */
#define EXPERTS_LEAST 16

struct stream {
    struct weights *w;
    struct stream_cut cut;
    struct ring *ring;
    uint64_t file_at; /* of place 0 */
    struct arena stay;
    struct arena slots;  /* of layers, then of rows, then of experts */
    struct depot *depot; /* NULL: there are no experts */
    int32_t ids[ROWS];
    int32_t row_toks[ROWS]; /* whose rows are on their way */
    int32_t n_row;
    uint64_t row_ticket;
    int32_t *order;   /* [n_read] the parts that are read: i_layer * WEIGHTS_PARTS + part */
    int32_t *index;   /* [n_layer * WEIGHTS_PARTS] the reverse; -1: stays */
    uint64_t *ticket; /* [n_slot] of the ring */
    uint64_t head;
    uint64_t next;
    int32_t n_used; /* from head on */
    uint64_t waited_us;
    uint64_t read_bytes; /* without those of the depot, as used_bytes */
    uint64_t used_bytes;
};

static struct weights_range range_of(const struct weights *w, size_t first, size_t end)
{
    return weights_range(w, first, end, RING_ALIGN);
}

static bool is_empty(const struct weights *w, int32_t i_part) /* gate, in some families */
{
    return w->part_load[i_part] == w->part_load[i_part + 1];
}

/* Of one that is not empty. */
static struct weights_range part_range(const struct weights *w, int32_t i_part)
{
    return range_of(w, w->part_load[i_part], w->part_load[i_part + 1]);
}

/* Asked for all parts in their order, with credit 0 at first: one stays when what stays is with it
 * no more than its share of the bytes so far. By numbers of parts the sum would depend on which
 * sizes the count falls on. */
static bool stays(uint64_t *credit, uint64_t n_byte, int32_t share)
{
    *credit += n_byte * (uint64_t)share;
    const bool is_enough = *credit >= n_byte * STREAM_SHARES;
    *credit -= is_enough ? n_byte * STREAM_SHARES : 0;
    return is_enough;
}

static size_t vec_bytes(const struct weights *w, size_t i)
{
    return w->loads[i].vec != NULL ? weights_end(w, i) - w->loads[i].at : 0;
}

uint64_t stream_bytes(const struct stream_cut *c)
{
    return c->stay_bytes + (uint64_t)c->n_slot * c->slot_bytes + c->rows_bytes +
           (uint64_t)c->n_expert * c->expert_bytes + c->depot_bytes;
}

bool stream_is_cut(const struct stream_cut *c)
{
    return c->n_read > 0 || c->n_expert > 0;
}

/* A panel of the table, wherever it begins in the file. */
static size_t row_slot_bytes(const struct weights *w)
{
    return mem_round(w->embd.stride, RING_ALIGN) + RING_ALIGN;
}

/* The first load that stays. */
static size_t first_load(const struct stream_cut *c)
{
    return c->rows_bytes > 0 ? 1 : 0;
}

/* What stays whatever is chosen. */
static struct stream_cut cut_tables(const struct weights *w, int32_t n_layer)
{
    struct stream_cut c = { .n_layer = n_layer };
    const size_t rows = ROWS * row_slot_bytes(w);
    if (!w->is_tied && w->loads[0].matrix == &w->embd && w->embd.bytes > rows) {
        c.rows_bytes = rows;
    }
    c.stay_bytes = range_of(w, first_load(&c), weights_layer_load(w, 0)).n;
    return c;
}

static struct stream_cut cut_of(const struct weights *w, int32_t n_layer, int32_t share)
{
    struct stream_cut c = cut_tables(w, n_layer);
    uint64_t credit = 0;
    c.share = share;
    c.n_slot = SLOTS;
    for (int32_t i = 0; i < n_layer * WEIGHTS_PARTS; i++) {
        if (is_empty(w, i)) {
            continue;
        }
        const uint64_t n = part_range(w, i).n;
        if (stays(&credit, n, share)) {
            c.stay_bytes += n;
            continue;
        }
        c.n_read++;
        c.pass_bytes += n;
        c.slot_bytes = n > c.slot_bytes ? n : c.slot_bytes;
        for (size_t k = w->part_load[i]; k < w->part_load[i + 1]; k++) {
            c.stay_bytes += vec_bytes(w, k);
        }
    }
    c.piece_bytes = c.pass_bytes;
    return c;
}

/* All but the experts stays, and as many of these as there is room for; with `least`, as few as can
 * be whatever the room. */
static bool choose_experts(const struct weights *w, const struct depot_shape *d, int32_t n_used,
                           uint64_t most_bytes, bool least, struct stream_cut *out)
{
    struct stream_cut c = cut_tables(w, d->n_layer);
    const int32_t n_all = d->n_layer * d->n_expert;
    const uint64_t each = d->slot_bytes + depot_bytes(d, 1) - depot_bytes(d, 0);
    for (int32_t i = 0; i < d->n_layer; i++) {
        c.stay_bytes += range_of(w, weights_layer_load(w, i), w->expert_load[i]).n;
    }
    const uint64_t taken = stream_bytes(&c) + depot_bytes(d, 0);
    const uint64_t room = least                ? EXPERTS_LEAST
                          : most_bytes > taken ? (most_bytes - taken) / each
                                               : 0;
    if (room < EXPERTS_LEAST) {
        return false;
    }
    c.n_expert = room < (uint64_t)n_all ? (int32_t)room : n_all;
    c.expert_bytes = d->slot_bytes;
    c.depot_bytes = depot_bytes(d, c.n_expert);
    const double missing = (double)(n_all - c.n_expert) / n_all;
    const double turns = c.n_expert < n_all ? (double)depot_turns(c.n_expert) / n_all : 0.0;
    c.piece_bytes = (uint64_t)((missing + turns) * (double)d->all_bytes);
    c.pass_bytes = (uint64_t)(missing * (double)d->all_bytes * n_used / d->n_expert);
    *out = c;
    return true;
}

bool stream_choose(const struct weights *w, int32_t n_layer, int32_t n_used, uint64_t most_bytes,
                   struct stream_cut *out)
{
    struct depot_shape d;
    depot_shape_of(w, n_layer, &d);
    if (d.n_expert > 0) {
        return choose_experts(w, &d, n_used, most_bytes, false, out);
    }
    const struct stream_cut least = cut_of(w, n_layer, 0);
    if (stream_bytes(&least) > most_bytes || least.n_read <= SLOTS) {
        return false;
    }
    /* what stays is less than its share by one part at most */
    const struct stream_cut tables = cut_tables(w, n_layer);
    const uint64_t room = most_bytes - stream_bytes(&tables) + least.slot_bytes;
    const uint64_t share = room / (least.pass_bytes / STREAM_SHARES + 1) + 1;
    for (int32_t i = share < STREAM_SHARES ? (int32_t)share : STREAM_SHARES - 1; i >= 0; i--) {
        const struct stream_cut c = cut_of(w, n_layer, i);
        if (stream_bytes(&c) <= most_bytes && c.n_read > SLOTS) {
            *out = c;
            return true;
        }
    }
    return false;
}

bool stream_choose_least(const struct weights *w, int32_t n_layer, int32_t n_used,
                         struct stream_cut *out)
{
    struct depot_shape d;
    depot_shape_of(w, n_layer, &d);
    if (d.n_expert > 0) {
        return choose_experts(w, &d, n_used, 0, true, out);
    }
    const struct stream_cut c = cut_of(w, n_layer, 0);
    if (c.n_read <= SLOTS) {
        return false;
    }
    *out = c;
    return true;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* What stays is read in ranges, one after the other; at most so many are on their way. */
#define STAY_FLIGHT 4

struct filling {
    struct stream *s;
    const struct gguf *g;
    uint64_t ticket[STAY_FLIGHT];
    uint64_t n_started;
    uint64_t done_bytes;
    void (*progress)(void *arg, double done);
    void *arg;
};

/* Reads loads [first, end), which lie side by side, and sets their slots. */
static enum err fill_range(struct filling *f, size_t first, size_t end)
{
    struct stream *s = f->s;
    if (first == end) {
        return ERR_OK;
    }
    const struct weights_range r = range_of(s->w, first, end);
    uint8_t *to = arena_take(&s->stay, r.n);
    uint64_t *ticket = &f->ticket[f->n_started % STAY_FLIGHT];
    REQUIRE(to != NULL, ERR_MEMORY, "%s: the arena is too small", gguf_image_path(f->g));
    if (f->n_started >= STAY_FLIGHT) {
        TRY(ring_wait(s->ring, *ticket));
    }
    TRY(ring_start(s->ring, s->file_at + r.at, to, r.n, ticket));
    f->n_started++;
    f->done_bytes += r.n;
    for (size_t i = first; i < end; i++) {
        weights_place(s->w, i, to + (s->w->loads[i].at - r.at));
    }
    if (f->progress != NULL) {
        f->progress(f->arg, (double)f->done_bytes / (double)s->stay.cap);
    }
    return ERR_OK;
}

/* The vectors of a part that is read, by themselves. */
static enum err fill_vectors(struct filling *f, int32_t i_part)
{
    struct stream *s = f->s;
    for (size_t i = s->w->part_load[i_part]; i < s->w->part_load[i_part + 1]; i++) {
        const size_t n = vec_bytes(s->w, i);
        uint8_t *to = n > 0 ? arena_take(&s->stay, n) : NULL;
        REQUIRE(n == 0 || to != NULL, ERR_MEMORY, "%s: the arena is too small",
                gguf_image_path(f->g));
        if (n > 0) {
            TRY(gguf_image_read(f->g, s->w->loads[i].at, to, n));
            weights_place(s->w, i, to);
        }
    }
    return ERR_OK;
}

static enum err fill_stay(struct filling *f)
{
    struct stream *s = f->s;
    const struct weights *w = s->w;
    const int32_t n_part = s->cut.n_layer * WEIGHTS_PARTS;
    TRY(fill_range(f, first_load(&s->cut), weights_layer_load(w, 0)));
    for (int32_t i = 0; i < s->cut.n_layer && s->cut.n_expert > 0; i++) {
        TRY(fill_range(f, weights_layer_load(w, i), w->expert_load[i]));
    }
    for (int32_t i = 0; i < n_part && s->cut.n_expert == 0; i++) {
        TRY(s->index[i] < 0 ? fill_range(f, w->part_load[i], w->part_load[i + 1]) : ERR_OK);
    }
    for (int32_t i = 0; i < n_part; i++) { /* small ones, which end at no border */
        TRY(s->index[i] >= 0 ? fill_vectors(f, i) : ERR_OK);
    }
    if (f->n_started > 0) {
        TRY(ring_wait(s->ring, f->ticket[(f->n_started - 1) % STAY_FLIGHT]));
    }
    for (size_t i = 0; i < w->n_load; i++) {
        TRY(w->loads[i].vec != NULL ? weights_check_vec(f->g, &w->loads[i], w->loads[i].vec->v)
                                    : ERR_OK);
    }
    return gguf_unchanged(f->g);
}

static enum err open_all(struct stream *s, struct filling *f, struct team *team)
{
    const struct stream_cut *c = &s->cut;
    const size_t n_all = (size_t)c->n_layer * WEIGHTS_PARTS;
    s->order = mem_alloc_array((size_t)c->n_read, sizeof s->order[0]);
    s->index = mem_alloc_array(n_all, sizeof s->index[0]);
    s->ticket = mem_alloc_array((size_t)c->n_slot, sizeof s->ticket[0]);
    REQUIRE((s->order != NULL || c->n_read == 0) && s->index != NULL &&
                (s->ticket != NULL || c->n_slot == 0),
            ERR_MEMORY, "%s: no memory for the tables of %d layers", gguf_image_path(f->g),
            c->n_layer);
    int32_t n = 0;
    uint64_t credit = 0;
    for (int32_t i = 0; i < (int32_t)n_all; i++) {
        s->index[i] = -1;
        if (c->n_read > 0 && !is_empty(s->w, i) &&
            !stays(&credit, part_range(s->w, i).n, c->share)) {
            s->index[i] = n;
            s->order[n++] = i;
        }
    }
    s->file_at = gguf_image_at(f->g);
    TRY(ring_open(&s->ring, gguf_image_path(f->g)));
    TRY(team_arena(team, &s->stay, (size_t)c->stay_bytes));
    TRY(team_arena(team, &s->slots, (size_t)(stream_bytes(c) - c->stay_bytes - c->depot_bytes)));
    if (c->n_expert > 0) {
        struct depot_shape d;
        depot_shape_of(s->w, c->n_layer, &d);
        TRY(depot_open(&s->depot, s->w, &d, s->ring, s->file_at, s->slots.base + c->rows_bytes,
                       c->n_expert));
    }
    return fill_stay(f);
}

enum err stream_open(struct stream **out, struct weights *w, const struct gguf *g,
                     const struct stream_cut *c, struct team *team,
                     void (*progress)(void *arg, double done), void *arg)
{
    struct stream *s = mem_alloc(sizeof *s);
    REQUIRE(s != NULL, ERR_MEMORY, "%s: no memory for its tables", gguf_image_path(g));
    struct filling f = { .s = s, .g = g, .progress = progress, .arg = arg };
    s->w = w;
    s->cut = *c;
    const enum err e = open_all(s, &f, team);
    if (e != ERR_OK) {
        stream_close(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

void stream_close(struct stream *s)
{
    if (s == NULL) {
        return;
    }
    ring_close(s->ring); /* first: reads end in the slots */
    depot_close(s->depot);
    arena_close(&s->slots);
    arena_close(&s->stay);
    mem_free(s->ticket);
    mem_free(s->index);
    mem_free(s->order);
    mem_free(s);
}

/* --- a pass ----------------------------------------------------------------------------------- */

static uint8_t *slot_of(const struct stream *s, uint64_t number)
{
    return s->slots.base + number % (uint64_t)s->cut.n_slot * s->cut.slot_bytes;
}

static int32_t part_of(const struct stream *s, uint64_t number)
{
    return s->order[number % (uint64_t)s->cut.n_read];
}

/* Until all slots are on their way. */
static enum err go_on(struct stream *s)
{
    while (s->next < s->head + (uint64_t)s->cut.n_slot) {
        const struct weights_range r = part_range(s->w, part_of(s, s->next));
        uint64_t *ticket = &s->ticket[s->next % (uint64_t)s->cut.n_slot];
        TRY(ring_start(s->ring, s->file_at + r.at, slot_of(s, s->next), r.n, ticket));
        s->read_bytes += r.n;
        s->next++;
    }
    return ERR_OK;
}

/* Nothing that was read is kept, and nothing that is on its way is wanted. */
static void stop(struct stream *s)
{
    ring_drop(s->ring);
    s->head = s->next;
    s->n_used = 0;
    s->n_row = 0;
    if (s->depot != NULL) {
        depot_stop(s->depot);
    }
}

/* Makes `head` the next number of that read: it is at hand, or all begins anew from there. */
static void seek(struct stream *s, uint64_t i_read)
{
    const uint64_t n_read = (uint64_t)s->cut.n_read;
    while (s->head < s->next && s->head % n_read != i_read) {
        s->head++;
    }
    if (s->head == s->next) {
        stop(s);
        s->head += (i_read + n_read - s->head % n_read) % n_read;
        s->next = s->head;
    }
}

/* The matrices of a number, which are in its slot, or nowhere. */
static void place_part(struct stream *s, uint64_t number, bool is_here)
{
    const int32_t i_part = part_of(s, number);
    const struct weights_range r = part_range(s->w, i_part);
    const uint8_t *slot = slot_of(s, number);
    for (size_t i = s->w->part_load[i_part]; i < s->w->part_load[i_part + 1]; i++) {
        if (s->w->loads[i].matrix != NULL) {
            weights_place(s->w, i, is_here ? slot + (s->w->loads[i].at - r.at) : NULL);
        }
    }
}

/* How many of these parts are read, side by side in that order, and the first of them. */
static int32_t reads_of(const struct stream *s, const struct stream_parts *p, uint64_t *i_read)
{
    int32_t n = 0;
    for (int32_t k = p->end - 1; k >= (int32_t)p->first; k--) {
        const int32_t i = s->index[p->i_layer * WEIGHTS_PARTS + k];
        if (i >= 0) {
            *i_read = (uint64_t)i;
            n++;
        }
    }
    return n;
}

/* A wait is one for all before it, too. */
static enum err wait_for(struct stream *s, uint64_t ticket, uint64_t timeout_us)
{
    const uint64_t begin = os_now_us();
    const enum err e = ring_wait_for(s->ring, ticket, timeout_us);
    s->waited_us += os_now_us() - begin;
    return e;
}

static enum err wait_number(struct stream *s, uint64_t number, uint64_t timeout_us)
{
    return wait_for(s, s->ticket[number % (uint64_t)s->cut.n_slot], timeout_us);
}

enum err stream_enter(struct stream *s, const struct stream_parts *p, uint64_t timeout_us)
{
    uint64_t i_read = 0;
    assert(p->end > (int32_t)p->first && p->end - (int32_t)p->first <= STREAM_TOGETHER);
    assert(s == NULL || s->n_used == 0);
    const int32_t n = s != NULL ? reads_of(s, p, &i_read) : 0;
    if (n == 0) {
        return ERR_OK;
    }
    if (s->head % (uint64_t)s->cut.n_read != i_read) {
        seek(s, i_read);
    }
    const uint64_t last = s->head + (uint64_t)n - 1;
    enum err e = ERR_OK;
    if (last >= s->next) { /* after some that were left out, whose slots are still read into */
        e = s->head < s->next ? wait_number(s, s->next - 1, timeout_us) : ERR_OK;
        e = e == ERR_OK ? go_on(s) : e;
    }
    e = e == ERR_OK ? wait_number(s, last, timeout_us) : e;
    if (e == ERR_BUSY) {
        return e;
    }
    if (e != ERR_OK) {
        stop(s);
        return e;
    }
    (void)go_on(s); /* what fails now fails again when it is wanted */
    for (s->n_used = 0; s->n_used < n; s->n_used++) {
        const uint64_t number = s->head + (uint64_t)s->n_used;
        place_part(s, number, true);
        s->used_bytes += part_range(s->w, part_of(s, number)).n;
    }
    return ERR_OK;
}

void stream_leave(struct stream *s)
{
    if (s == NULL || s->n_used == 0) {
        return;
    }
    for (; s->n_used > 0; s->n_used--) {
        place_part(s, s->head++, false);
    }
    (void)go_on(s);
}

/* --- embeddings ------------------------------------------------------------------------------- */

/* Where the panel with a token's row lies, and how far in its range it begins. */
static struct weights_range panel_range(const struct weights *w, int32_t token, size_t *skip)
{
    const size_t at = w->loads[0].at + (size_t)(token / TENSOR_PANEL_ROWS) * w->embd.stride;
    *skip = at % RING_ALIGN;
    return (struct weights_range){ at - *skip, mem_round(*skip + w->embd.stride, RING_ALIGN) };
}

/* Begins to read the panels with the rows of tokens[n], unless it has begun already. */
static enum err start_rows(struct stream *s, uint8_t *to, const int32_t *tokens, int32_t n)
{
    const size_t each = row_slot_bytes(s->w);
    size_t skip = 0;
    if (n == s->n_row && memcmp(s->row_toks, tokens, (size_t)n * sizeof tokens[0]) == 0) {
        return ERR_OK;
    }
    if (s->n_row > 0) { /* of a pass that was ended */
        stop(s);
    }
    for (int32_t i = 0; i < n; i++) {
        const struct weights_range r = panel_range(s->w, tokens[i], &skip);
        TRY(ring_start(s->ring, s->file_at + r.at, to + (size_t)i * each, r.n, &s->row_ticket));
        s->read_bytes += r.n;
        s->row_toks[i] = tokens[i];
        s->n_row = i + 1;
    }
    return ERR_OK;
}

enum err stream_rows(struct stream *s, const struct weights *w, const int32_t *tokens,
                     int32_t n_tok, uint64_t timeout_us, struct stream_rows *out)
{
    if (s == NULL || s->cut.rows_bytes == 0) {
        *out = (struct stream_rows){ w->embd, tokens, n_tok };
        return ERR_OK;
    }
    const int32_t n = n_tok < ROWS ? n_tok : ROWS;
    const size_t each = row_slot_bytes(w);
    uint8_t *to = s->slots.base + (size_t)s->cut.n_slot * s->cut.slot_bytes;
    enum err e = start_rows(s, to, tokens, n);
    e = e == ERR_OK ? wait_for(s, s->row_ticket, timeout_us) : e;
    if (e == ERR_BUSY && s->n_row == n) {
        return e;
    }
    if (e != ERR_OK) {
        stop(s);
        return e == ERR_BUSY ? err_set(ERR_IO, "%s", err_text()) : e;
    }
    for (int32_t i = 0; i < n; i++) {
        uint8_t *panel = to + (size_t)i * each;
        size_t skip = 0;
        s->used_bytes += panel_range(w, tokens[i], &skip).n;
        memmove(panel, panel + skip, w->embd.stride);
        s->ids[i] = i * TENSOR_PANEL_ROWS + tokens[i] % TENSOR_PANEL_ROWS;
    }
    s->n_row = 0;
    *out = (struct stream_rows){ w->embd, s->ids, n };
    out->table.data = to;
    out->table.stride = each;
    out->table.n_row = n * TENSOR_PANEL_ROWS;
    out->table.bytes = (size_t)n * each;
    return ERR_OK;
}

struct depot *stream_depot(struct stream *s)
{
    return s != NULL ? s->depot : NULL;
}

uint64_t stream_waited_us(const struct stream *s)
{
    const uint64_t own = s != NULL ? s->waited_us : 0;
    return s != NULL && s->depot != NULL ? own + depot_count(s->depot)->waited_us : own;
}

void stream_count(const struct stream *s, uint64_t *read_bytes, uint64_t *used_bytes)
{
    const struct depot_count none = { 0 };
    const struct depot_count *d = s != NULL && s->depot != NULL ? depot_count(s->depot) : &none;
    *read_bytes = d->read_bytes + (s != NULL ? s->read_bytes : 0);
    *used_bytes = d->used_bytes + (s != NULL ? s->used_bytes : 0);
}
