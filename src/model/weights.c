/* weights - tensor names bound to the slots of a model, and loaded
 *
 * Binding walks the recipe, not the file: for each slot it looks its tensor up by name, checks the
 * shape and writes one line into a list of loads. The list is then all that loading needs: workers
 * take loads from it one by one, read the rows in pieces of at most LOAD_PIECE bytes into their
 * scratch, and pack them into the arena. No tensor of the file ever lies in memory twice.
 *
 * Fused tensors are split by rows while loading: a slot then has a first row in the file's tensor.
 * That keeps the forward pass free of special cases and costs nothing, since rows are packed one
 * panel at a time anyway.
 *
 * Rejected: mapping the file. A file that is truncated while mapped ends the process by SIGBUS, and
 * the packed copy would stand beside the mapped pages.
 *
 * Next: engine/decoder.c uses the slots in the order in which they are bound here. */
#include "model/weights.h"

#include "base/cell.h"
#include "base/os.h"
#include "num/pack.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LOAD_PIECE    (4u << 20) /* bytes read at once */
#define LOAD_ROWS_MIN TENSOR_PANEL_ROWS

struct weights_load {
    const struct gguf_tensor *from; /* borrows from the gguf */
    int32_t row0;                   /* first row of the file's tensor */
    struct tensor *matrix;          /* either a matrix ... */
    struct weights_vec *vec;        /* ... or a vector */
    size_t at;                      /* place in the arena */
};

struct binder {
    struct weights *w;
    const struct arch *a;
    const struct gguf *g;
    bool *is_used; /* [n_tensor] */
    size_t n_load_max;
    char name[96];
};

/* One line of the list; its place in the arena is the sum of those before, each rounded up to
 * 64. */
static enum err add_load(struct binder *b, struct weights_load load, size_t bytes)
{
    struct weights *w = b->w;
    REQUIRE(w->n_load < b->n_load_max, ERR_LIMIT, "%s: more tensors than slots", gguf_path(b->g));
    size_t padded = 0;
    REQUIRE(mem_add(bytes, 64, &padded) && mem_add(w->arena_bytes, padded, &padded), ERR_LIMIT,
            "%s: the tensors' sizes overflow", gguf_path(b->g));
    load.at = w->arena_bytes;
    w->loads[w->n_load++] = load;
    w->arena_bytes += mem_round(bytes, 64);
    return ERR_OK;
}

/* The tensor called b->name, or NULL; marks it used. */
static const struct gguf_tensor *look_up(struct binder *b)
{
    const struct gguf_tensor *t = gguf_tensor_find(b->g, b->name);
    if (t != NULL) {
        b->is_used[t - gguf_tensor_at(b->g, 0)] = true;
    }
    return t;
}

static enum err missing(const struct binder *b)
{
    return err_set(ERR_INTEGRITY, "%s: tensor %s is missing; family \"%s\" needs it",
                   gguf_path(b->g), b->name, b->a->recipe->name);
}

/* Binds rows [row0, row0 + n_row) of tensor b->name, which must have n_row_all rows. */
static enum err bind_rows(struct binder *b, struct tensor *slot, int64_t n_row_all, int64_t row0,
                          int64_t n_row, int64_t n_col)
{
    const struct gguf_tensor *t = look_up(b);
    if (t == NULL) {
        return missing(b);
    }
    REQUIRE(t->n_dim <= 2 && t->dim[0] == (uint64_t)n_col && t->dim[1] == (uint64_t)n_row_all,
            ERR_INTEGRITY, "%s: tensor %s: shape %llu x %llu, expected %lld x %lld",
            gguf_path(b->g), b->name, (unsigned long long)t->dim[0], (unsigned long long)t->dim[1],
            (long long)n_col, (long long)n_row_all);
    REQUIRE(quant_get(t->type)->decode != NULL, ERR_UNSUPPORTED,
            "%s: tensor %s: element type %u cannot hold weights", gguf_path(b->g), b->name,
            t->type);
    REQUIRE(pack_shape(t->type, (int32_t)n_row, (int32_t)n_col, slot), ERR_INTEGRITY,
            "%s: tensor %s: rows of %lld do not divide into blocks of %s, or are too long",
            gguf_path(b->g), b->name, (long long)n_col, quant_get(t->type)->name);
    b->w->type_bytes[t->type] += t->bytes;
    size_t row_bytes = 0;
    if (!quant_bytes(t->type, (uint64_t)n_col, &row_bytes) ||
        !mem_mul(row_bytes, LOAD_ROWS_MIN, &row_bytes)) {
        return err_set(ERR_LIMIT, "%s: tensor %s: rows too long", gguf_path(b->g), b->name);
    }
    const size_t need = row_bytes > LOAD_PIECE ? row_bytes : LOAD_PIECE;
    b->w->scratch_bytes = need > b->w->scratch_bytes ? need : b->w->scratch_bytes;
    b->w->n_param += (uint64_t)n_row * (uint64_t)n_col;
    return add_load(b, (struct weights_load){ .from = t, .row0 = (int32_t)row0, .matrix = slot },
                    slot->bytes);
}

/* Elements [at, at + n) of a vector of n_all; of a float type, since a few numbers need no
 * packing. */
static enum err bind_vec(struct binder *b, struct weights_vec *slot, int64_t n_all, int64_t at,
                         int64_t n, bool is_optional)
{
    const struct gguf_tensor *t = look_up(b);
    if (t == NULL) {
        return is_optional ? ERR_OK : missing(b);
    }
    uint64_t n_elem = t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
    REQUIRE(n_elem == (uint64_t)n_all, ERR_INTEGRITY, "%s: tensor %s: %llu elements, expected %lld",
            gguf_path(b->g), b->name, (unsigned long long)n_elem, (long long)n_all);
    REQUIRE(quant_get(t->type)->decode != NULL && quant_get(t->type)->block == 1, ERR_UNSUPPORTED,
            "%s: tensor %s: a vector of type %s", gguf_path(b->g), b->name,
            quant_get(t->type)->name);
    slot->n = (int32_t)n;
    b->w->n_param += (uint64_t)n;
    const size_t room = ((size_t)n + 15) / 16 * 16 * sizeof(float);
    return add_load(b, (struct weights_load){ .from = t, .row0 = (int32_t)at, .vec = slot }, room);
}

static void name_global(struct binder *b, const char *what)
{
    snprintf(b->name, sizeof b->name, "%s", what);
}

static void name_layer(struct binder *b, int32_t i_layer, const char *what)
{
    snprintf(b->name, sizeof b->name, "blk.%d.%s", i_layer, what);
}

/* Looks without marking: to tell variants of a family apart. */
static bool has_name(const struct binder *b)
{
    return gguf_tensor_find(b->g, b->name) != NULL;
}

static enum err bind_norm(struct binder *b, int32_t i_layer, const char *what,
                          struct weights_norm *n)
{
    char part[48];
    snprintf(part, sizeof part, "%s.weight", what);
    name_layer(b, i_layer, part);
    TRY(bind_vec(b, &n->w, b->a->n_embd, 0, b->a->n_embd, false));
    snprintf(part, sizeof part, "%s.bias", what);
    name_layer(b, i_layer, part);
    return bind_vec(b, &n->b, b->a->n_embd, 0, b->a->n_embd, true);
}

/* A matrix with an optional bias, from a tensor of its own or from rows of a fused one. */
struct slot {
    struct tensor *matrix;
    struct weights_vec *bias;
    const char *name;
    int64_t n_row;
    int64_t n_col;
};

static enum err bind_linear(struct binder *b, int32_t i_layer, const struct slot *s,
                            const char *fused, int64_t n_row_all, int64_t row0)
{
    char part[48];
    snprintf(part, sizeof part, "%s.weight", fused != NULL ? fused : s->name);
    name_layer(b, i_layer, part);
    TRY(bind_rows(b, s->matrix, fused != NULL ? n_row_all : s->n_row, row0, s->n_row, s->n_col));
    snprintf(part, sizeof part, "%s.bias", fused != NULL ? fused : s->name);
    name_layer(b, i_layer, part);
    return bind_vec(b, s->bias, fused != NULL ? n_row_all : s->n_row, row0, s->n_row, true);
}

/* Queries, keys and values: three tensors, or rows of one called attn_qkv:
 *     rows  0 .. nq queries | .. nq + nk keys | .. nq + nk + nv values  */
static enum err bind_attention(struct binder *b, int32_t i, struct weights_layer *l)
{
    const struct arch *a = b->a;
    const int64_t nq = (int64_t)a->n_head * a->hd_k;
    const int64_t nk = (int64_t)a->n_kv * a->hd_k;
    const int64_t nv = (int64_t)a->n_kv * a->hd_v;
    const struct slot q = { &l->q, &l->q_b, "attn_q", nq, a->n_embd };
    const struct slot k = { &l->k, &l->k_b, "attn_k", nk, a->n_embd };
    const struct slot v = { &l->v, &l->v_b, "attn_v", nv, a->n_embd };
    const struct slot o = { &l->o, &l->o_b, "attn_output", a->n_embd,
                            (int64_t)a->n_head * a->hd_v };
    name_layer(b, i, "attn_qkv.weight");
    const char *fused = has_name(b) ? "attn_qkv" : NULL;
    TRY(bind_linear(b, i, &q, fused, nq + nk + nv, 0));
    TRY(bind_linear(b, i, &k, fused, nq + nk + nv, fused != NULL ? nq : 0));
    TRY(bind_linear(b, i, &v, fused, nq + nk + nv, fused != NULL ? nq + nk : 0));
    TRY(bind_linear(b, i, &o, NULL, 0, 0));
    if (a->recipe->qk_norm != ARCH_QK_NONE) {
        const bool is_whole = a->recipe->qk_norm == ARCH_QK_WHOLE;
        name_layer(b, i, "attn_q_norm.weight");
        TRY(bind_vec(b, &l->q_norm, is_whole ? nq : a->hd_k, 0, is_whole ? nq : a->hd_k, false));
        name_layer(b, i, "attn_k_norm.weight");
        TRY(bind_vec(b, &l->k_norm, is_whole ? nk : a->hd_k, 0, is_whole ? nk : a->hd_k, false));
    }
    return ERR_OK;
}

/* Where ffn_gate is missing in a gated family, ffn_up holds both, gate first (Phi 3, GLM 4). */
static enum err bind_ffn(struct binder *b, int32_t i, struct weights_layer *l)
{
    const struct arch *a = b->a;
    const struct slot gate = { &l->gate, &l->gate_b, "ffn_gate", a->n_ff, a->n_embd };
    const struct slot up = { &l->up, &l->up_b, "ffn_up", a->n_ff, a->n_embd };
    const struct slot down = { &l->down, &l->down_b, "ffn_down", a->n_embd, a->n_ff };
    name_layer(b, i, "ffn_gate.weight");
    const bool is_fused = a->recipe->is_gated && !has_name(b);
    const int64_t n_all = 2 * (int64_t)a->n_ff;
    if (a->recipe->is_gated) {
        TRY(bind_linear(b, i, &gate, is_fused ? "ffn_up" : NULL, n_all, 0));
    }
    TRY(bind_linear(b, i, &up, is_fused ? "ffn_up" : NULL, n_all, is_fused ? a->n_ff : 0));
    return bind_linear(b, i, &down, NULL, 0, 0);
}

static enum err bind_layer(struct binder *b, int32_t i, struct weights_layer *l)
{
    const struct arch_recipe *r = b->a->recipe;
    if (r->norms != ARCH_NORMS_POST) {
        /* Falcon 40B has a norm of its own for attention, attn_norm_2; attn_norm is then the other
         * part's. */
        name_layer(b, i, "attn_norm_2.weight");
        const bool is_second = r->join == ARCH_JOIN_PARALLEL_NORMED && has_name(b);
        TRY(bind_norm(b, i, is_second ? "attn_norm_2" : "attn_norm", &l->attn_norm));
        if (is_second) {
            TRY(bind_norm(b, i, "attn_norm", &l->ffn_norm));
        } else if (b->a->join != ARCH_JOIN_PARALLEL && r->join != ARCH_JOIN_PARALLEL_NORMED) {
            TRY(bind_norm(b, i, r->ffn_norm != NULL ? r->ffn_norm : "ffn_norm", &l->ffn_norm));
        }
    }
    TRY(bind_attention(b, i, l));
    if (r->norms != ARCH_NORMS_PRE) {
        TRY(bind_norm(b, i, "post_attention_norm", &l->attn_post_norm));
        TRY(bind_norm(b, i, "post_ffw_norm", &l->ffn_post_norm));
    }
    return bind_ffn(b, i, l);
}

static enum err bind_rope(struct binder *b)
{
    struct weights *w = b->w;
    const int64_t n = b->a->n_rot / 2;
    static const char *const names[] = { "rope_freqs.weight", "rope_factors_long.weight",
                                         "rope_factors_short.weight" };
    struct weights_vec *const slots[] = { &w->rope_factors, &w->rope_factors_long,
                                          &w->rope_factors_short };
    for (int i = 0; i < 3; i++) {
        name_global(b, names[i]);
        TRY(bind_vec(b, slots[i], n, 0, n, true));
    }
    REQUIRE((w->rope_factors_long.n > 0) == (w->rope_factors_short.n > 0), ERR_INTEGRITY,
            "%s: of rope_factors_long and rope_factors_short only one is there", gguf_path(b->g));
    return ERR_OK;
}

static enum err bind_globals(struct binder *b)
{
    struct weights *w = b->w;
    const struct arch *a = b->a;
    name_global(b, "token_embd.weight");
    TRY(bind_rows(b, &w->embd, a->n_vocab, 0, a->n_vocab, a->n_embd));
    name_global(b, "output_norm.weight");
    TRY(bind_vec(b, &w->output_norm.w, a->n_embd, 0, a->n_embd, false));
    name_global(b, "output_norm.bias");
    TRY(bind_vec(b, &w->output_norm.b, a->n_embd, 0, a->n_embd, true));
    name_global(b, "output.weight");
    if (has_name(b)) {
        TRY(bind_rows(b, &w->output, a->n_vocab, 0, a->n_vocab, a->n_embd));
    } else {
        w->output = w->embd;
        w->is_tied = true;
    }
    name_global(b, "output.bias");
    TRY(bind_vec(b, &w->output_b, a->n_vocab, 0, a->n_vocab, true));
    if (a->recipe->has_positions) {
        name_global(b, "position_embd.weight");
        TRY(bind_rows(b, &w->position, a->n_ctx_train, 0, a->n_ctx_train, a->n_embd));
    }
    return bind_rope(b);
}

/* Everything that the recipe asks for, then the question what the file has beyond it. */
static enum err bind_all(struct binder *b)
{
    TRY(bind_globals(b));
    for (int32_t i = 0; i < b->a->n_layer; i++) {
        TRY(bind_layer(b, i, &b->w->layer[i]));
    }
    for (size_t i = 0; i < gguf_n_tensor(b->g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(b->g, i);
        REQUIRE(b->is_used[i], ERR_UNSUPPORTED,
                "%s: tensor %.*s has no place in family \"%s\" as this version knows it",
                gguf_path(b->g), (int)(t->name.n > 64 ? 64 : t->name.n), t->name.p,
                b->a->recipe->name);
    }
    return ERR_OK;
}

enum err weights_bind(struct weights *w, const struct arch *a, const struct gguf *g)
{
    *w = (struct weights){ 0 };
    struct binder b = { .w = w, .a = a, .g = g };
    /* at most: 30 slots a layer and 12 global ones */
    b.n_load_max = (size_t)a->n_layer * 30 + 12;
    w->layer = mem_alloc_array((size_t)a->n_layer, sizeof w->layer[0]);
    w->loads = mem_alloc_array(b.n_load_max, sizeof w->loads[0]);
    b.is_used = mem_alloc_array(gguf_n_tensor(g), sizeof b.is_used[0]);
    enum err e = ERR_OK;
    if (w->layer == NULL || w->loads == NULL || b.is_used == NULL) {
        e = err_set(ERR_MEMORY, "%s: no memory for the tables of %d layers", gguf_path(g),
                    a->n_layer);
    } else {
        e = bind_all(&b);
    }
    mem_free(b.is_used);
    if (e != ERR_OK) {
        weights_release(w);
    }
    return e;
}

void weights_release(struct weights *w)
{
    mem_free(w->layer);
    mem_free(w->loads);
    *w = (struct weights){ 0 };
}

/* --- loading ---------------------------------------------------------------------------------- */

struct loader {
    struct weights *w;
    const struct gguf *g;
    uint8_t *base;     /* of the arena's part */
    uint8_t *scratch;  /* [n_worker][scratch_bytes] */
    struct lock *lock; /* guards the next two */
    size_t next_load;
    int32_t next_row; /* of that load */
    struct cell bytes_done;
    struct cell is_failed;
    enum err error; /* guarded by lock: the first failure */
    char text[ERR_TEXT_MAX];
    void (*progress)(void *arg, double done);
    void *progress_arg;
};

/* One piece of work: some rows of one load. */
struct piece {
    const struct weights_load *load;
    int32_t row0;
    int32_t n_row;
};

static size_t load_row_bytes(const struct weights_load *l)
{
    size_t n = 0;
    const bool is_ok = quant_bytes(l->from->type, (uint64_t)l->matrix->n_col, &n);
    return ALWAYS(is_ok) ? n : 0;
}

/* The next rows of the list, at most LOAD_PIECE bytes and a multiple of 16 rows, so that no two
 * workers write into one panel. After a failure there are none. */
static bool take_piece(struct loader *ld, struct piece *p)
{
    lock_take(ld->lock);
    bool is_there = false;
    while (!is_there && ld->next_load < ld->w->n_load && cell_get(&ld->is_failed) == 0) {
        const struct weights_load *l = &ld->w->loads[ld->next_load];
        const int32_t n_row = l->matrix != NULL ? l->matrix->n_row : 1;
        int32_t n = 1;
        if (l->matrix != NULL) {
            n = (int32_t)(LOAD_PIECE / load_row_bytes(l)) / LOAD_ROWS_MIN * LOAD_ROWS_MIN;
            n = n < LOAD_ROWS_MIN ? LOAD_ROWS_MIN : n;
        }
        n = n < n_row - ld->next_row ? n : n_row - ld->next_row;
        *p = (struct piece){ .load = l, .row0 = ld->next_row, .n_row = n };
        is_there = n > 0;
        ld->next_row += n;
        if (ld->next_row >= n_row) {
            ld->next_load++;
            ld->next_row = 0;
        }
    }
    lock_drop(ld->lock);
    return is_there;
}

static enum err load_matrix(struct loader *ld, const struct piece *p, uint8_t *scratch)
{
    const struct weights_load *l = p->load;
    const size_t row_bytes = load_row_bytes(l);
    const size_t n = row_bytes * (size_t)p->n_row;
    const size_t from = row_bytes * ((size_t)l->row0 + (size_t)p->row0);
    TRY(gguf_read(ld->g, l->from, from, scratch, n));
    pack_rows(l->matrix, ld->base + l->at, p->row0, scratch, p->n_row);
    cell_add(&ld->bytes_done, n);
    return ERR_OK;
}

/* Vectors are norms, biases and factors: one number that is not finite spoils every answer, so each
 * is looked at. The matrices' turn comes when the engine checks itself. */
static enum err load_vec(struct loader *ld, const struct weights_load *l, uint8_t *scratch)
{
    const struct quant_info *q = quant_get(l->from->type);
    float *const to = (float *)(void *)(ld->base + l->at);
    const size_t step = LOAD_PIECE / 8;
    for (size_t at = 0; at < (size_t)l->vec->n; at += step) {
        const size_t n = (size_t)l->vec->n - at < step ? (size_t)l->vec->n - at : step;
        TRY(gguf_read(ld->g, l->from, ((size_t)l->row0 + at) * q->bytes, scratch, n * q->bytes));
        q->decode(scratch, to + at, n);
    }
    for (int32_t i = 0; i < l->vec->n; i++) {
        REQUIRE(isfinite(to[i]), ERR_INTEGRITY,
                "%s: tensor %.*s: element %d is not a finite number", gguf_path(ld->g),
                (int)l->from->name.n, l->from->name.p, i);
    }
    return ERR_OK;
}

static void load_worker(void *arg, int i_worker)
{
    struct loader *ld = arg;
    uint8_t *scratch = ld->scratch + (size_t)i_worker * ld->w->scratch_bytes;
    struct piece p;
    double total = (double)ld->w->arena_bytes + 1.0;
    while (take_piece(ld, &p)) {
        const enum err e =
            p.load->matrix != NULL ? load_matrix(ld, &p, scratch) : load_vec(ld, p.load, scratch);
        if (e != ERR_OK) {
            lock_take(ld->lock);
            if (ld->error == ERR_OK) {
                ld->error = e;
                snprintf(ld->text, sizeof ld->text, "%s", err_text());
            }
            lock_drop(ld->lock);
            cell_set(&ld->is_failed, 1);
        }
        if (i_worker == 0 && ld->progress != NULL) {
            const double done = (double)cell_get(&ld->bytes_done) / total;
            ld->progress(ld->progress_arg, done < 1.0 ? done : 1.0);
        }
    }
}

enum err weights_load(struct weights *w, const struct gguf *g, struct arena *arena,
                      struct team *team, void (*progress)(void *arg, double done), void *arg)
{
    struct loader ld = { .w = w, .g = g, .progress = progress, .progress_arg = arg };
    struct arena scratch = { 0 };
    ld.base = arena_take(arena, w->arena_bytes);
    REQUIRE(ld.base != NULL, ERR_MEMORY, "%s: the weights need %zu bytes, the arena has %zu left",
            gguf_path(g), w->arena_bytes, arena->cap - arena->used);
    TRY(lock_open(&ld.lock));
    const size_t n_worker = (size_t)team_size(team);
    enum err e = arena_open(&scratch, n_worker * w->scratch_bytes, false);
    if (e == ERR_OK) {
        ld.scratch = arena_take(&scratch, n_worker * w->scratch_bytes);
        team_run(team, load_worker, &ld);
        /* a file that changed while it was read gives a mixture of two models */
        e = ld.error != ERR_OK ? err_set(ld.error, "%s", ld.text) : gguf_unchanged(g);
    }
    arena_close(&scratch);
    lock_close(ld.lock);
    TRY(e);
    for (size_t i = 0; i < w->n_load; i++) {
        const struct weights_load *l = &w->loads[i];
        if (l->matrix != NULL) {
            l->matrix->data = ld.base + l->at;
        } else {
            l->vec->v = (const float *)(const void *)(ld.base + l->at);
        }
    }
    if (w->is_tied) {
        w->output = w->embd;
    }
    if (progress != NULL) {
        progress(arg, 1.0);
    }
    return ERR_OK;
}
