/* be_time - the backend that tries each kind of operation and adds up its time
 *
 * How fast a model will be is decided by what this program's kernels do with its types and shapes
 * on this processor, and by the memory. A table of efficiencies would be of one machine. So each
 * operation of the forward pass is computed here, by be_cpu and all its workers, in milliseconds:
 *   - a product with few tokens on some panels that stay in the second-level caches, a product with
 *     many on as many as are worth a millisecond or two; twice as many tell what a panel costs,
 *     and so how long the whole matrix takes;
 *   - attention at its depth, up to FAR positions; from there on it grows with the positions;
 *   - the others as they are.
 * Operations of equal shape are tried once, so that layers beyond the first cost nothing.
 *
 * What many tokens' activations take on their way between caches is added at the memory's speed.
 * What it takes to read weights and pages from memory is joined to that: a core computes while it
 * fetches, but neither limit is reached where both are near: (a^p + m^p)^(1/p), p = JOIN. A step
 * reads at READ_SHARE of the best that memory gives, as it is not always at its best. Both were
 * chosen by answers of IQ2_XXS, Q4_0 and Q8_0 at two speeds of memory (docs/SPEED.md).
 *
 * A disk that reads ahead meanwhile has in flight what it reads in fly_us, and serves all of it
 * side by side, so that it comes together (docs/SPEED.md). An operation of u microseconds begins at
 * any moment of that time; if all has come before it ends the disk rests until then, as nobody asks
 * for more: u^2 / 2 fly_us on average, and of one that is longer than fly_us all but half of that.
 *
 * Numbers are made up: bytes 0x2C to 0x2F, which are ordinary as float, half, bf16 and int8; no
 * kernel looks at values. Operands are never written, and what is changed in place stays ordinary
 * as well.
 *
 * Rejected: a made up layer of the model, run as a whole: 0.9 GB in Q8_0 for 70B, on a box that may
 * not have it. And all weights at the same few addresses (a file mapped many times): seconds for
 * large models.
 *
 * Next: engine/predict.c. */
#include "back/be_time.h"

#include "base/os.h"
#include "num/pack.h"

#include <math.h>
#include <string.h>

#define JOIN        3.0
#define READ_SHARE  0.9   /* of the best that memory gives (docs/SPEED.md) */
#define SERIES_US   80    /* of one series of calls; the best counts */
#define SERIES      24    /* at most; short ones find a moment in which nothing else runs */
#define MOST_US     12000 /* of all of them, about */
#define CALLS_MOST  2000
#define CACHE_BYTES ((size_t)256 << 10) /* of weights, for each worker */
#define MANY_US     1500.0              /* a product with many tokens is to take */
#define TOKS_MOST   256                 /* of a product; more take as much longer */
#define TOKS_LEAST  32                  /* where the box is slow */
#define ROWS_MOST   512                 /* of other operations */
#define EXPERTS     4                   /* of those that are computed together; more as they */
#define FAR         2048                /* positions */
#define KV_BYTES    ((size_t)8 << 20)
#define RUNS_MOST   256

enum kind { KIND_PRODUCT = 1, KIND_ROWS, KIND_KV, KIND_ATTEND };

static struct be_time *self(struct back *b)
{
    return (struct be_time *)(void *)b;
}

/* --- trying ---------------------------------------------------------------------------------- */

typedef void (*try_fn)(struct be_time *t, const void *op);

static double series_us(struct be_time *t, try_fn fn, const void *op, int n)
{
    const uint64_t begin = os_now_us();
    for (int i = 0; i < n; i++) {
        fn(t, op);
    }
    return (double)(os_now_us() - begin) / n;
}

/* The least time of a call, of some series. The first call fills the caches. */
static double best_us(struct be_time *t, try_fn fn, const void *op)
{
    fn(t, op);
    const uint64_t begin = os_now_us();
    double best = series_us(t, fn, op, 1);
    const int n = best * CALLS_MOST > SERIES_US ? (int)(SERIES_US / best) + 1 : CALLS_MOST;
    for (int i = 0; i < SERIES && os_now_us() - begin < MOST_US; i++) {
        const double us = series_us(t, fn, op, n);
        best = us < best || i == 0 ? us : best;
    }
    return best;
}

/* What was tried before, or a free place whose us is negative; NULL: there is none. */
static struct be_time_try *try_at(struct be_time *t, const int32_t *key)
{
    for (int32_t i = 0; i < t->n_try; i++) {
        if (memcmp(t->tries[i].key, key, sizeof t->tries[i].key) == 0) {
            return &t->tries[i];
        }
    }
    if (t->n_try == BE_TIME_TRIES) {
        t->is_beyond = true;
        return NULL;
    }
    struct be_time_try *y = &t->tries[t->n_try++];
    memcpy(y->key, key, sizeof y->key);
    y->us = -1.0;
    return y;
}

/* n bytes that are made up; NULL, and is_beyond: no room. */
static void *made(struct be_time *t, size_t n)
{
    uint8_t *p = n < BE_TIME_ROOM ? arena_take(&t->in, n) : NULL;
    t->is_beyond = t->is_beyond || p == NULL;
    uint32_t x = 12345;
    for (; p != NULL && t->n_made < t->in.used; t->n_made++) {
        x = x * 1664525u + 1013904223u;
        t->in.base[t->n_made] = (uint8_t)(0x2C | x >> 30);
    }
    return p;
}

/* Room for n bytes of results, and `more` that the operation will take itself. */
static void *result(struct be_time *t, size_t n, size_t more)
{
    const size_t mark = arena_mark(&t->out);
    uint8_t *p = n < BE_TIME_ROOM && more < BE_TIME_ROOM ? arena_take(&t->out, n) : NULL;
    const size_t end = arena_mark(&t->out);
    if (p != NULL && arena_take(&t->out, more + 64 * KERN_ACT_COUNT) != NULL) {
        arena_rewind(&t->out, end);
        return p;
    }
    arena_rewind(&t->out, mark);
    t->is_beyond = true;
    return NULL;
}

static void rewind_all(struct be_time *t)
{
    arena_rewind(&t->in, 0);
    arena_rewind(&t->out, 0);
}

/* An operation in n equal parts, between which the disk is looked at. */
static void add(struct be_time *t, double us, int32_t n)
{
    const double each = us / n;
    t->us += us;
    if (t->fly_us > 0.0) {
        t->rest_us +=
            n * (each < t->fly_us ? each * each / t->fly_us / 2.0 : each - t->fly_us / 2.0);
    }
}

static double joined_us(const struct be_time *t, double us, double bytes)
{
    const double read_us = bytes / t->read_gb_s / READ_SHARE / 1e3;
    return us > 0.0 || read_us > 0.0 ? pow(pow(us, JOIN) + pow(read_us, JOIN), 1.0 / JOIN) : 0.0;
}

static void count(struct be_time *t, double us, double bytes)
{
    add(t, joined_us(t, us, bytes), 1);
}

/* --- products -------------------------------------------------------------------------------- */

struct product {
    const struct back_out *out;
    int32_t n_out;
    int32_t n_tok;
    bool is_glu;
    enum kern_fn fn;
    int32_t n_expert; /* that compute so many tokens each; 0: not of experts */
};

struct product_try {
    struct back_out out[3];
    struct tensor w[3];
    struct back_expert expert[EXPERTS];
    const float *x;
    const struct product *p;
    int32_t n_tok;
};

/* How often it is computed at once; experts have the same weights then, so that they stay in the
 * caches. */
static int32_t at_once(const struct product *p)
{
    return p->n_expert == 0 ? 1 : p->n_expert < EXPERTS ? p->n_expert : EXPERTS;
}

static struct back_experts experts_of(const struct product_try *y)
{
    return (struct back_experts){ .expert = y->expert,
                                  .n = at_once(y->p),
                                  .n_out = y->p->n_out,
                                  .has_fn = y->p->is_glu,
                                  .fn = y->p->fn,
                                  .ldx = back_ld(y->w[0].n_col),
                                  .n_row_most = at_once(y->p) * y->n_tok };
}

static void product_run(struct be_time *t, const void *op)
{
    const struct product_try *y = op;
    const size_t ld = back_ld(y->w[0].n_col);
    struct back *b = &t->cpu.back;
    if (y->p->n_expert > 0) {
        const struct back_experts all = experts_of(y);
        b->op->experts(b, &all);
    } else if (y->p->is_glu) {
        b->op->matmul_glu(b, y->p->fn, y->out, y->p->n_out, y->x, ld, y->n_tok);
    } else {
        b->op->matmul(b, y->out, y->p->n_out, y->x, ld, y->n_tok);
    }
}

/* Panels of the line (be_cpu.c). */
static int32_t line_panels(const struct product *p)
{
    int32_t n = 0;
    for (int32_t i = 0; i < p->n_out; i++) {
        n = p->is_glu ? tensor_panels(p->out[i].w) : n + tensor_panels(p->out[i].w);
    }
    return n;
}

static double line_bytes(const struct product *p)
{
    double n = 0.0;
    for (int32_t i = 0; i < p->n_out; i++) {
        n += (double)p->out[i].w->bytes;
    }
    return n;
}

/* Results of y, or of each of its experts. One token's experts have the same input, until they
 * multiply their own results. */
static bool take_results(struct be_time *t, struct product_try *y)
{
    const struct product *p = y->p;
    const size_t ldx = back_ld(p->out[0].w->n_col);
    for (int32_t e = 0; e < EXPERTS; e++) {
        const bool is_same = y->n_tok == 1 && p->is_glu;
        memcpy(y->expert[e].out, y->out, sizeof y->expert[e].out);
        y->expert[e].n_tok = y->n_tok;
        y->expert[e].x = y->x + (is_same ? 0 : (size_t)(e * y->n_tok) * ldx);
    }
    const struct back_experts all = experts_of(y);
    const size_t more =
        p->n_expert > 0 ? back_experts_bytes(&all) : back_matmul_bytes(y->out, p->n_out, y->n_tok);
    bool has_room = true;
    for (int32_t e = 0; e < at_once(p); e++) {
        for (int32_t i = 0; i < p->n_out && has_room; i++) {
            const size_t bytes = (size_t)y->n_tok * back_ld(y->w[i].n_row) * sizeof(float);
            float **to = p->n_expert > 0 ? &y->expert[e].out[i].y : &y->out[i].y;
            *to = result(t, bytes, more);
            has_room = *to != NULL;
        }
    }
    return has_room;
}

/* Microseconds for n_panel of the line's panels; negative: no room. */
static double panels_us(struct be_time *t, const struct product *p, int32_t n_panel, int32_t n_tok)
{
    struct product_try y = { .p = p, .n_tok = n_tok };
    const int32_t all = line_panels(p);
    bool has_room = true;
    rewind_all(t);
    y.x = made(t, (size_t)(at_once(p) * n_tok) * back_ld(p->out[0].w->n_col) * sizeof(float));
    for (int32_t i = 0; i < p->n_out && has_room; i++) {
        const struct tensor *w = p->out[i].w;
        const int64_t share = p->is_glu ? n_panel : (int64_t)tensor_panels(w) * n_panel / all;
        const int64_t n_row = (share > 0 ? share : 1) * TENSOR_PANEL_ROWS;
        has_room = y.x != NULL && pack_shape(w->type, n_row < w->n_row ? (int32_t)n_row : w->n_row,
                                             w->n_col, &y.w[i]);
        y.w[i].data = has_room ? made(t, y.w[i].bytes) : NULL;
        y.out[i] = (struct back_out){ .w = &y.w[i] };
        has_room = y.w[i].data != NULL;
    }
    has_room = has_room && take_results(t, &y);
    t->is_beyond = t->is_beyond || !has_room;
    return has_room ? best_us(t, product_run, &y) : -1.0;
}

/* Tokens of each that is computed at once, whose activations take half the room at most. */
static int32_t toks_that_fit(const struct product *p)
{
    const size_t each = (size_t)at_once(p) * back_ld(p->out[0].w->n_col) * sizeof(float);
    const size_t most = BE_TIME_ROOM / 2 / each;
    return most > TOKS_LEAST ? (int32_t)(most / KERN_TILE * KERN_TILE) : TOKS_LEAST;
}

/* Panels that are tried where there are more, and tokens. */
static int32_t panels_to_try(const struct be_time *t, const struct product *p, int32_t *n_tok)
{
    const int32_t n_worker = team_size(t->cpu.team);
    const double each = 2.0 * TENSOR_PANEL_ROWS * p->out[0].w->n_col * (p->is_glu ? p->n_out : 1);
    const double bytes = line_bytes(p) / line_panels(p);
    const int32_t least = 4 * n_worker;
    const int32_t fit = toks_that_fit(p) < TOKS_MOST ? toks_that_fit(p) : TOKS_MOST;
    *n_tok = *n_tok < fit ? *n_tok : fit;
    if (*n_tok > TOKS_LEAST && each * *n_tok * least / t->ops_us > 10.0 * MANY_US) {
        *n_tok = TOKS_LEAST;
    }
    const double by_time = MANY_US * t->ops_us / each / *n_tok;
    const double by_cache = (double)CACHE_BYTES * n_worker / bytes;
    const double n = fmin(by_time, by_cache * (*n_tok > KERN_PAIR_TOKS ? 4.0 : 1.0)) / at_once(p);
    const double room = (double)BE_TIME_ROOM / 4.0 / bytes;
    const double most = fmax(fmin(fmax(n, least), room), 2.0);
    return (int32_t)most / 2 * 2;
}

/* Of at_once(p) products. */
static double product_us(struct be_time *t, const struct product *p)
{
    int32_t n_tok = p->n_tok;
    const int32_t all = line_panels(p);
    const int32_t n = panels_to_try(t, p, &n_tok);
    const double times = (double)p->n_tok / n_tok;
    if (all <= n) {
        return panels_us(t, p, all, n_tok) * times;
    }
    const double half = panels_us(t, p, n / 2, n_tok);
    const double whole = panels_us(t, p, n, n_tok);
    const double each = (whole - half) / (n - n / 2);
    const double most = whole / n; /* what is not of the panels is not negative */
    return (whole + fmin(fmax(each, most / 2.0), most) * (all - n)) * times;
}

/* Activations of many tokens come from farther away than here, where the same few megabytes are
 * used again and again, and results go there: microseconds. */
static double move_us(const struct be_time *t, const struct product *p)
{
    double n = p->out[0].w->n_col;
    for (int32_t i = 0; i < p->n_out; i++) {
        n += p->out[i].w->n_row;
    }
    return p->n_tok > KERN_TILE ? n * p->n_tok * sizeof(float) / t->read_gb_s / 1e3 : 0.0;
}

/* How often the weights are read: once for each block of tokens (be_cpu.c). */
static int32_t blocks_of(const struct be_time *t, const struct product *p)
{
    int32_t at_once = kern_act_tiles(p->n_tok);
    for (int32_t i = 0; i < p->n_out; i++) {
        const struct tensor *w = p->out[i].w;
        const int32_t most = kern_act_tiles_at_once(kern_act_kind_for(w->type), w->n_col);
        at_once = most < at_once ? most : at_once;
    }
    return kern_line_of(line_panels(p), p->n_tok, at_once, team_size(t->cpu.team)).n_block;
}

/* Parts of it, between which the disk is looked at. */
static int32_t looks_at(const struct be_time *t, const struct product *p)
{
    return p->n_expert > 0 && t->n_look > 0 ? (p->n_expert + t->n_look - 1) / t->n_look : 1;
}

static void time_product(struct be_time *t, const struct product *p)
{
    int32_t key[BE_TIME_KEY] = { KIND_PRODUCT, p->n_out, p->n_tok, p->is_glu, (int32_t)p->fn };
    for (int32_t i = 0; i < p->n_out; i++) {
        key[5 + 3 * i] = p->out[i].w->n_row;
        key[6 + 3 * i] = p->out[i].w->n_col;
        key[7 + 3 * i] = (int32_t)p->out[i].w->type;
    }
    key[BE_TIME_KEY - 1] = p->n_expert > 0 ? at_once(p) : 0;
    struct be_time_try *y = try_at(t, key);
    if (y != NULL) {
        const double times = p->n_expert > 0 ? (double)p->n_expert : 1.0;
        y->us = y->us < 0.0 ? product_us(t, p) : y->us;
        const double us =
            joined_us(t, y->us * times / at_once(p), line_bytes(p) * blocks_of(t, p) * times);
        add(t, us + move_us(t, p) * times, looks_at(t, p));
    }
}

/* All as if each had as many tokens, which is how they were made up (back_route_evenly). */
static void time_experts(struct back *b, const struct back_experts *p)
{
    int32_t n_tok = 0;
    for (int32_t i = 0; i < p->n; i++) {
        n_tok += p->expert[i].n_tok;
    }
    time_product(self(b), &(struct product){ .out = p->expert[0].out,
                                             .n_out = p->n_out,
                                             .n_tok = (n_tok + p->n / 2) / p->n,
                                             .is_glu = p->has_fn,
                                             .fn = p->fn,
                                             .n_expert = p->n });
}

static void time_matmul(struct back *b, const struct back_out *out, int32_t n_out, const float *x,
                        size_t ldx, int32_t n_tok)
{
    (void)x, (void)ldx;
    time_product(self(b), &(struct product){ .out = out, .n_out = n_out, .n_tok = n_tok });
}

static void time_matmul_glu(struct back *b, enum kern_fn fn, const struct back_out *out,
                            int32_t n_out, const float *x, size_t ldx, int32_t n_tok)
{
    (void)x, (void)ldx;
    time_product(
        self(b),
        &(struct product){ .out = out, .n_out = n_out, .n_tok = n_tok, .is_glu = true, .fn = fn });
}

/* --- rows ------------------------------------------------------------------------------------ */

enum row_kind {
    ROW_EMBED,
    ROW_NORM,
    ROW_ANGLES,
    ROW_ROPE,
    ROW_ADD,
    ROW_SCALE,
    ROW_ROUTE,
    ROW_CHOOSE
};

struct row_op {
    enum row_kind kind;
    int32_t n_tok;
    int32_t n;       /* floats of a part */
    int32_t n_group; /* parts of a row */
    int32_t is;      /* of several ways */
    size_t ld;
    struct tensor table;
    struct back_angles angles;
    const float *x;
    const int32_t *ids;
    const double *freq;
    struct back_route *route;
    float *y;
};

static void row_run(struct be_time *t, const void *op)
{
    const struct row_op *r = op;
    struct back *b = &t->cpu.back;
    const struct back_norm norm = { .is_layer = r->is != 0, .eps = 1e-5f, .w = r->x, .b = r->x };
    switch (r->kind) {
    case ROW_EMBED:
        b->op->embed(b, r->y, &r->table, r->ids, r->n_tok, 1.0f);
        break;
    case ROW_NORM:
        b->op->norm(b, r->y, r->x, r->ld, r->n_tok, r->n_group, r->n, &norm);
        break;
    case ROW_ANGLES:
        b->op->angles(b, r->y, r->y, r->ids, r->n_tok, r->freq, r->n, 1.0);
        break;
    case ROW_ROPE:
        b->op->rope(b, r->y, r->ld, r->n_tok, r->n_group, r->n, &r->angles);
        break;
    case ROW_ADD:
        b->op->add(b, r->y, r->x, r->is != 0 ? 1.0f : 0.5f, r->ld, r->n_tok, r->n);
        break;
    case ROW_SCALE:
        b->op->scale(b, r->y, r->is % 2 != 0 ? 0.9999f : 1.0f, r->is >= 2 ? 30.0f : 0.0f, r->ld,
                     r->n_tok, r->n);
        break;
    case ROW_ROUTE:
        b->op->route(b, r->route, r->y, r->n_tok);
        break;
    case ROW_CHOOSE:
        for (int32_t i = 0; i < r->n_tok; i++) {
            const int32_t best = t->cpu.kern->argmax(r->x, r->n);
            r->y[0] = t->cpu.kern->exp_sum(NULL, r->x, r->x[best], r->n);
        }
        break;
    }
}

/* Room for what a router says: of r->n experts, r->n_group each token's. */
static bool route_take(struct be_time *t, struct row_op *r)
{
    const size_t n = (size_t)r->n_tok * (size_t)r->n_group * sizeof(int32_t);
    r->route = result(t, sizeof *r->route, 0);
    int32_t *token = result(t, n, 0);
    int32_t *place = result(t, n, 0);
    float *weight = result(t, n, 0);
    if (r->route == NULL || token == NULL || place == NULL || weight == NULL) {
        return false;
    }
    *r->route = (struct back_route){ .n_expert = r->n,
                                     .n_used = r->n_group,
                                     .scale = 1.0f,
                                     .token = token,
                                     .place = place,
                                     .weight = weight };
    return true;
}

/* Operands of one table row or of all tokens, results of all. */
static bool row_take(struct be_time *t, struct row_op *r)
{
    const size_t rows = (size_t)r->n_tok * r->ld * sizeof(float);
    rewind_all(t);
    int32_t *ids = result(t, (size_t)r->n_tok * sizeof ids[0], 0);
    double *freq = result(t, ROWS_MOST * sizeof freq[0], 0);
    float *turn = result(t, rows, 0);
    r->y = result(t, rows, PACK_ROW_MAX_BYTES);
    r->x = made(t, rows);
    if (r->kind == ROW_ROUTE && !route_take(t, r)) {
        return false;
    }
    if (r->kind == ROW_EMBED && !pack_shape(r->table.type, TENSOR_PANEL_ROWS, r->n, &r->table)) {
        return false;
    }
    r->table.data = r->kind == ROW_EMBED ? made(t, r->table.bytes) : NULL;
    if (ids == NULL || freq == NULL || turn == NULL || r->y == NULL || r->x == NULL ||
        (r->kind == ROW_EMBED && r->table.data == NULL) || r->n > (int32_t)r->ld) {
        return false;
    }
    for (int32_t i = 0; i < r->n_tok; i++) {
        ids[i] = r->kind == ROW_EMBED ? i % TENSOR_PANEL_ROWS : i;
    }
    for (int32_t i = 0; i < ROWS_MOST; i++) {
        freq[i] = 1.0 / (1.0 + i);
    }
    for (size_t i = 0; i < rows / sizeof turn[0]; i++) {
        turn[i] = 0.7f; /* rotated by half of a right angle */
        r->y[i] = 0.25f;
    }
    r->ids = ids;
    r->freq = freq;
    r->angles.cos = turn;
    r->angles.sin = turn;
    return true;
}

/* Tokens of `r` that are tried: as many as there is room for. */
static void time_rows(struct be_time *t, struct row_op r)
{
    const size_t n_int = r.kind == ROW_ROUTE ? 3 * (size_t)r.n_group : 0;
    const size_t each = (3 * (r.ld + 16) + n_int) * sizeof(float);
    const size_t room = (BE_TIME_ROOM - 2 * PACK_ROW_MAX_BYTES) / each;
    const int32_t n_all = r.n_tok;
    r.n_tok = r.n_tok < ROWS_MOST ? r.n_tok : ROWS_MOST;
    r.n_tok = (size_t)r.n_tok < room ? r.n_tok : (int32_t)room;
    const int32_t key[BE_TIME_KEY] = { KIND_ROWS,      (int32_t)r.kind,
                                       n_all,          r.n,
                                       r.n_group,      r.is,
                                       (int32_t)r.ld,  (int32_t)r.table.type,
                                       r.angles.n_rot, (int32_t)r.angles.kind };
    struct be_time_try *y = try_at(t, key);
    if (y != NULL && y->us < 0.0) {
        const bool has_room = r.n_tok > 0 && row_take(t, &r);
        t->is_beyond = t->is_beyond || !has_room;
        y->us = has_room ? best_us(t, row_run, &r) * n_all / r.n_tok : 0.0;
    }
    count(t, y != NULL ? y->us : 0.0, 0.0);
}

static void time_embed(struct back *b, float *y, const struct tensor *table, const int32_t *ids,
                       int32_t n_tok, float scale)
{
    (void)y, (void)ids, (void)scale;
    time_rows(self(b), (struct row_op){ .kind = ROW_EMBED,
                                        .n_tok = n_tok,
                                        .n = table->n_col,
                                        .ld = back_ld(table->n_col),
                                        .table = *table });
}

static void time_norm(struct back *b, float *y, const float *x, size_t ld, int32_t n_tok,
                      int32_t n_group, int32_t n, const struct back_norm *p)
{
    (void)y, (void)x;
    time_rows(self(b), (struct row_op){ .kind = ROW_NORM,
                                        .n_tok = n_tok,
                                        .n = n,
                                        .n_group = n_group,
                                        .is = p->is_layer,
                                        .ld = ld });
}

static void time_angles(struct back *b, float *cos, float *sin, const int32_t *pos, int32_t n_tok,
                        const double *freq, int32_t n_half, double mscale)
{
    (void)cos, (void)sin, (void)pos, (void)freq, (void)mscale;
    self(b)->is_beyond = self(b)->is_beyond || n_half > ROWS_MOST;
    if (n_half > 0 && n_half <= ROWS_MOST) {
        time_rows(self(b), (struct row_op){
                               .kind = ROW_ANGLES, .n_tok = n_tok, .n = n_half, .ld = ROWS_MOST });
    }
}

static void time_rope(struct back *b, float *x, size_t ld, int32_t n_tok, int32_t n_head,
                      int32_t hd, const struct back_angles *angles)
{
    (void)x;
    time_rows(self(b),
              (struct row_op){ .kind = ROW_ROPE,
                               .n_tok = n_tok,
                               .n = hd,
                               .n_group = n_head,
                               .ld = ld,
                               .angles = { .n_rot = angles->n_rot, .kind = angles->kind } });
}

static void time_add(struct back *b, float *x, const float *y, float a, size_t ld, int32_t n_tok,
                     int32_t n)
{
    (void)x, (void)y;
    time_rows(self(b), (struct row_op){
                           .kind = ROW_ADD, .n_tok = n_tok, .n = n, .is = a == 1.0f, .ld = ld });
}

static void time_scale(struct back *b, float *x, float a, float cap, size_t ld, int32_t n_tok,
                       int32_t n)
{
    (void)x;
    const int32_t is = (a != 1.0f) + 2 * (cap > 0.0f);
    if (is > 0) {
        time_rows(self(b),
                  (struct row_op){ .kind = ROW_SCALE, .n_tok = n_tok, .n = n, .is = is, .ld = ld });
    }
}

static void time_route(struct back *b, struct back_route *r, float *logits, int32_t n_tok)
{
    (void)logits;
    back_route_evenly(r, n_tok);
    time_rows(self(b), (struct row_op){ .kind = ROW_ROUTE,
                                        .n_tok = n_tok,
                                        .n = r->n_expert,
                                        .n_group = r->n_used,
                                        .ld = back_ld(r->n_expert) });
}

#define PLACES 64 /* tried at once */

/* A sum for each place; so many at once that parts of different numbers are tried once. */
static void time_add_experts(struct back *b, float *y, const float *out, const struct back_route *r,
                             int32_t place0, int32_t place1, size_t ld, int32_t n_tok, int32_t n)
{
    (void)out, (void)r, (void)n_tok;
    const int32_t n_place = place1 - place0;
    const int32_t times = n_place > PLACES ? (n_place + PLACES - 1) / PLACES * PLACES : n_place;
    time_add(b, NULL, y, 0.5f, ld, times, n);
}

static void time_add_gated(struct back *b, float *x, const float *y, float *gate, size_t ld,
                           int32_t n_tok, int32_t n)
{
    (void)gate;
    time_add(b, x, y, 0.5f, ld, n_tok, n);
}

/* Some rows of a step are nothing beside its products. */
static void time_gather(struct back *b, float *y, const float *x, const int32_t *rows,
                        int32_t n_row, size_t ld)
{
    (void)b, (void)y, (void)x, (void)rows, (void)n_row, (void)ld;
}

/* --- attention ------------------------------------------------------------------------------- */

struct attend_op {
    struct back_attend p;
    const float *x;
    float *y;
    bool is_write;
};

static void attend_run(struct be_time *t, const void *op)
{
    const struct attend_op *a = op;
    struct back *b = &t->cpu.back;
    if (a->is_write) {
        b->op->kv_write(b, &a->p, a->x, a->x);
    } else {
        b->op->attend(b, &a->p, a->y, a->x);
    }
}

/* Pages that fit into what is taken for a cache. */
static int32_t pages_most(const struct back_kv *kv)
{
    return (int32_t)(KV_BYTES / ((kv->k_page + kv->v_page) * (size_t)kv->n_kv)) + 1;
}

/* A cache of a few pages, which all positions share in turn, and runs as those of p, beginning at
 * pos0. Written pages are results, and each run's own: workers may not meet there. */
static bool attend_take(struct be_time *t, struct attend_op *a, struct back_run *runs,
                        int32_t n_tok, int32_t pos0)
{
    struct back_kv *kv = &a->p.kv;
    const size_t page = (kv->k_page + kv->v_page) * (size_t)kv->n_kv;
    const int32_t n_need = (pos0 + n_tok + KERN_PAGE - 1) / KERN_PAGE;
    const int32_t n_fit = pages_most(kv);
    const int32_t n_set = a->is_write ? a->p.n_run : 1;
    const int32_t n_page = a->is_write || n_need < n_fit ? n_need * n_set : n_fit;
    const size_t rows = (size_t)n_tok * (size_t)a->p.n_run * sizeof(float);
    const size_t q = rows * back_ld(a->p.n_head * (kv->hd_k > kv->hd_v ? kv->hd_k : kv->hd_v));
    rewind_all(t);
    int32_t *pages = result(t, (size_t)n_need * (size_t)n_set * sizeof pages[0], 0);
    a->x = made(t, q);
    uint8_t *pool =
        a->is_write ? result(t, page * (size_t)n_page, 0) : made(t, page * (size_t)n_page);
    a->y = result(t, q, back_attend_worst_bytes(&a->p, team_size(t->cpu.team)));
    if (pages == NULL || a->x == NULL || pool == NULL || a->y == NULL) {
        return false;
    }
    for (int32_t i = 0; i < n_need * n_set; i++) {
        pages[i] = i % n_page;
    }
    for (int32_t i = 0; i < a->p.n_run; i++) {
        runs[i] = (struct back_run){ .pages = pages + (a->is_write ? i * n_need : 0),
                                     .tok0 = i * n_tok,
                                     .n_tok = n_tok,
                                     .pos0 = pos0 };
    }
    kv->k = pool;
    kv->k_head = kv->k_page * (size_t)n_page;
    kv->v = pool + kv->k_head * (size_t)kv->n_kv;
    kv->v_head = kv->v_page * (size_t)n_page;
    a->p.runs = runs;
    a->p.n_tok = n_tok * a->p.n_run;
    a->p.sinks = NULL;
    return true;
}

/* Negative: no room. */
static double attend_us(struct be_time *t, const struct back_attend *p, bool is_write,
                        int32_t n_tok, int32_t pos0)
{
    struct back_run runs[RUNS_MOST];
    struct attend_op a = { .p = *p, .is_write = is_write };
    const bool has_room = p->n_run <= RUNS_MOST && attend_take(t, &a, runs, n_tok, pos0);
    t->is_beyond = t->is_beyond || !has_room;
    return has_room ? best_us(t, attend_run, &a) : -1.0;
}

/* Attention grows by the same for each position beyond FAR, and not at all beyond a window. */
static double attend_at_us(struct be_time *t, const struct back_attend *p, int32_t n_tok,
                           int32_t pos0)
{
    const int32_t seen =
        p->window > 0 && p->window + KERN_SPAN < pos0 ? p->window + KERN_SPAN : pos0;
    if (seen <= FAR) {
        return attend_us(t, p, false, n_tok, seen);
    }
    const double half = attend_us(t, p, false, n_tok, FAR / 2);
    const double whole = attend_us(t, p, false, n_tok, FAR);
    const double more = whole > half ? (whole - half) / (FAR / 2) : 0.0;
    return whole + more * (seen - FAR);
}

/* Writing of so many runs and tokens as fit, for all of them. Negative: no room. */
static double write_us(struct be_time *t, const struct back_attend *p, int32_t n_tok)
{
    struct back_attend some = *p;
    const int32_t most = pages_most(&p->kv);
    const int32_t n = n_tok < most * KERN_PAGE ? n_tok : most * KERN_PAGE;
    const int32_t n_run = most / ((n + KERN_PAGE - 1) / KERN_PAGE);
    some.n_run = n_run < p->n_run ? n_run : p->n_run;
    const double us = attend_us(t, &some, true, n, 0);
    return us < 0.0 ? us : us * n_tok / n * p->n_run / some.n_run;
}

/* All runs of a step are as the first. */
static void time_attention(struct be_time *t, const struct back_attend *p, bool is_write)
{
    const struct back_run *r = &p->runs[0];
    const int32_t n_tok = r->n_tok < ROWS_MOST ? r->n_tok : ROWS_MOST;
    const int32_t pos0 = is_write ? 0 : r->pos0 + (r->n_tok - n_tok) / 2;
    const int32_t key[BE_TIME_KEY] = { is_write ? KIND_KV : KIND_ATTEND,
                                       (int32_t)p->kv.kind,
                                       p->n_run,
                                       r->n_tok,
                                       pos0,
                                       p->n_head,
                                       p->kv.n_kv,
                                       p->kv.hd_k,
                                       p->kv.hd_v,
                                       p->window,
                                       p->cap > 0.0f };
    struct be_time_try *y = try_at(t, key);
    if (y == NULL) {
        return;
    }
    if (y->us < 0.0) {
        const double us = is_write ? write_us(t, p, n_tok) : attend_at_us(t, p, n_tok, pos0);
        y->us = us < 0.0 ? 0.0 : us * r->n_tok / n_tok;
    }
    const int32_t n_pos = r->pos0 + r->n_tok;
    const int32_t seen = p->window > 0 && p->window < n_pos ? p->window : n_pos;
    const double each = (double)(p->kv.k_page + p->kv.v_page) * p->kv.n_kv / KERN_PAGE;
    count(t, y->us, is_write ? 0.0 : each * seen * p->n_run);
}

static void time_kv_write(struct back *b, const struct back_attend *p, const float *k,
                          const float *v)
{
    (void)k, (void)v;
    time_attention(self(b), p, true);
}

static void time_attend(struct back *b, const struct back_attend *p, float *y, const float *q)
{
    (void)y, (void)q;
    time_attention(self(b), p, false);
}

static const struct back_ops ops = {
    .embed = time_embed,
    .norm = time_norm,
    .matmul = time_matmul,
    .matmul_glu = time_matmul_glu,
    .angles = time_angles,
    .rope = time_rope,
    .kv_write = time_kv_write,
    .attend = time_attend,
    .add = time_add,
    .scale = time_scale,
    .route = time_route,
    .experts = time_experts,
    .add_experts = time_add_experts,
    .add_gated = time_add_gated,
    .gather = time_gather,
};

double be_time_choose_us(struct be_time *t, int32_t n_vocab, int32_t n_row)
{
    const double before = t->us;
    const double rest = t->rest_us;
    time_rows(
        t, (struct row_op){ .kind = ROW_CHOOSE, .n_tok = 1, .n = n_vocab, .ld = back_ld(n_vocab) });
    const double us = (t->us - before) * n_row;
    t->us = before;
    t->rest_us = rest;
    return us;
}

void be_time_begin(struct be_time *t)
{
    t->us = 0.0;
    t->rest_us = 0.0;
}

/* Of one worker, times their number: only how much to try depends on it. */
static void guess_speed(struct be_time *t)
{
    uint32_t sink = 0;
    const uint64_t begin = os_now_us();
    const uint64_t ops_done = t->cpu.kern->peak_int8(10000, &sink);
    const double us = (double)(os_now_us() - begin) + 1.0;
    t->ops_us = 0.5 * (double)ops_done / us * team_size(t->cpu.team);
}

enum err be_time_init(struct be_time *t, struct team *team, const struct kern_table *kern,
                      double read_gb_s)
{
    *t = (struct be_time){ .back = { .op = &ops, .step = &t->count }, .read_gb_s = read_gb_s };
    arena_open_counting(&t->count);
    TRY(arena_open(&t->in, BE_TIME_ROOM, false));
    const enum err e = arena_open(&t->out, BE_TIME_ROOM, false);
    if (e != ERR_OK) {
        arena_close(&t->in);
        return e;
    }
    be_cpu_init(&t->cpu, &t->out, team, kern);
    guess_speed(t);
    return ERR_OK;
}

void be_time_release(struct be_time *t)
{
    arena_close(&t->in);
    arena_close(&t->out);
}
