/* weights - tensor names bound to the slots of a model, and loaded
 *
 * Binding walks the recipe, not the file: for each slot it looks its tensor up by name, checks the
 * shape and writes one line into a list of loads. The list is then all that loading needs: workers
 * take loads from it one by one, read the rows in pieces of at most LOAD_PIECE bytes into their
 * scratch, and pack them into the arena. No tensor of the file ever lies in memory twice.
 *
 * Fused tensors are split by rows while loading: a slot then has a first row in the file's tensor.
 * That keeps the forward pass free of special cases and costs nothing, since rows are packed one
 * panel at a time anyway. Experts, which files have as one tensor of all of them, are split alike.
 *
 * A packed image is mapped instead: nothing is read twice and no new memory is touched, which is
 * most of a start (docs/decisions/0004-packed-images.md).
 *
 * Rejected: mapping a GGUF file. A file that is truncated while mapped ends the process by SIGBUS,
 * and the packed copy would stand beside the mapped pages.
 *
 * Next: engine/decoder.c uses the slots in the order in which they are bound here. */
#include "model/weights.h"

#include "base/cell.h"
#include "base/hash.h"
#include "base/topo.h"
#include "num/pack.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define LOAD_PIECE    (4u << 20) /* bytes read at once */
#define LOAD_ROWS_MIN TENSOR_PANEL_ROWS
#define TOUCH_BYTES   ((size_t)16 << 20) /* of an image, at once */
#define TOUCH_ROUND   16                 /* of these, by the whole team, then progress is told */
#define PACK_BYTES    ((size_t)64 << 20) /* slots packed at once */
#define SAMPLE_COLS   256                /* a multiple of every type's block */
#define SAMPLE_BYTES  (TENSOR_PANEL_ROWS * SAMPLE_COLS * 8)

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

/* What a worker reads of a tensor at once: all of it, or a piece, or the least rows. */
static void need_scratch(struct binder *b, const struct gguf_tensor *t, size_t least)
{
    const size_t piece = t->bytes < LOAD_PIECE ? (size_t)t->bytes : LOAD_PIECE;
    const size_t need = mem_round(least > piece ? least : piece, 64); /* workers' lie in a row */
    b->w->scratch_bytes = need > b->w->scratch_bytes ? need : b->w->scratch_bytes;
}

/* The tensor b->name: n_part matrices of n_row rows. */
static enum err find_matrix(struct binder *b, int64_t n_part, int64_t n_row, int64_t n_col,
                            const struct gguf_tensor **out)
{
    const struct gguf_tensor *t = look_up(b);
    if (t == NULL) {
        return missing(b);
    }
    REQUIRE(t->n_dim <= 3 && t->dim[0] == (uint64_t)n_col && t->dim[1] == (uint64_t)n_row &&
                t->dim[2] == (uint64_t)n_part,
            ERR_INTEGRITY, "%s: tensor %s: shape %llu x %llu x %llu, expected %lld x %lld x %lld",
            gguf_path(b->g), b->name, (unsigned long long)t->dim[0], (unsigned long long)t->dim[1],
            (unsigned long long)t->dim[2], (long long)n_col, (long long)n_row, (long long)n_part);
    REQUIRE(quant_get(t->type)->decode != NULL, ERR_UNSUPPORTED,
            "%s: tensor %s: element type %u cannot hold weights", gguf_path(b->g), b->name,
            t->type);
    *out = t;
    return ERR_OK;
}

/* Rows [row0, row0 + n_row) of all that t has. */
static enum err add_rows(struct binder *b, struct tensor *slot, const struct gguf_tensor *t,
                         int64_t row0, int64_t n_row)
{
    const uint64_t n_col = t->dim[0];
    REQUIRE(pack_shape(t->type, (int32_t)n_row, (int32_t)n_col, slot), ERR_INTEGRITY,
            "%s: tensor %s: rows of %llu do not divide into blocks of %s, or are too long",
            gguf_path(b->g), b->name, (unsigned long long)n_col, quant_get(t->type)->name);
    size_t row_bytes = 0;
    size_t least = 0;
    if (!quant_bytes(t->type, n_col, &row_bytes) || !mem_mul(row_bytes, LOAD_ROWS_MIN, &least)) {
        return err_set(ERR_LIMIT, "%s: tensor %s: rows too long", gguf_path(b->g), b->name);
    }
    need_scratch(b, t, least);
    b->w->type_bytes[t->type] += (uint64_t)n_row * row_bytes;
    b->w->n_param += (uint64_t)n_row * n_col;
    return add_load(b, (struct weights_load){ .from = t, .row0 = (int32_t)row0, .matrix = slot },
                    slot->bytes);
}

/* Binds rows [row0, row0 + n_row) of tensor b->name, which must have n_row_all rows. */
static enum err bind_rows(struct binder *b, struct tensor *slot, int64_t n_row_all, int64_t row0,
                          int64_t n_row, int64_t n_col)
{
    const struct gguf_tensor *t = NULL;
    TRY(find_matrix(b, 1, n_row_all, n_col, &t));
    return add_rows(b, slot, t, row0, n_row);
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
    need_scratch(b, t, 0);
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
    if (a->recipe->has_sinks) {
        name_layer(b, i, "attn_sinks.weight");
        TRY(bind_vec(b, &l->sinks, a->n_head, 0, a->n_head, false));
    }
    if (a->recipe->qk_norm != ARCH_QK_NONE) {
        const bool is_whole = a->recipe->qk_norm == ARCH_QK_WHOLE;
        name_layer(b, i, "attn_q_norm.weight");
        TRY(bind_vec(b, &l->q_norm, is_whole ? nq : a->hd_k, 0, is_whole ? nq : a->hd_k, false));
        name_layer(b, i, "attn_k_norm.weight");
        TRY(bind_vec(b, &l->k_norm, is_whole ? nk : a->hd_k, 0, is_whole ? nk : a->hd_k, false));
    }
    return ERR_OK;
}

/* Of layer i; parts after it begin here too until they say otherwise. */
static void begin_part(struct binder *b, int32_t i, enum weights_part part)
{
    for (int32_t k = (int32_t)part; k < WEIGHTS_PARTS; k++) {
        b->w->part_load[i * WEIGHTS_PARTS + k] = b->w->n_load;
    }
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
    begin_part(b, i, WEIGHTS_GATE);
    if (a->recipe->is_gated) {
        TRY(bind_linear(b, i, &gate, is_fused ? "ffn_up" : NULL, n_all, 0));
    }
    begin_part(b, i, WEIGHTS_UP);
    TRY(bind_linear(b, i, &up, is_fused ? "ffn_up" : NULL, n_all, is_fused ? a->n_ff : 0));
    begin_part(b, i, WEIGHTS_DOWN);
    return bind_linear(b, i, &down, NULL, 0, 0);
}

/* A matrix of every expert: tensors NAME_exps with one part an expert, or (files of 2023)
 * NAME.0, NAME.1 ... */
struct expert_slot {
    const char *name;
    size_t at; /* of the slot in weights_expert */
    int64_t n_row;
    int64_t n_col;
};

static enum err bind_expert(struct binder *b, int32_t i, int32_t e, const struct expert_slot *s,
                            struct tensor *slot)
{
    char part[48];
    const struct gguf_tensor *t = NULL;
    snprintf(part, sizeof part, "%s_exps.weight", s->name);
    name_layer(b, i, part);
    if (has_name(b)) {
        TRY(find_matrix(b, b->a->n_expert, s->n_row, s->n_col, &t));
        return add_rows(b, slot, t, (int64_t)e * s->n_row, s->n_row);
    }
    snprintf(part, sizeof part, "%s.%d.weight", s->name, e);
    name_layer(b, i, part);
    return bind_rows(b, slot, s->n_row, 0, s->n_row, s->n_col);
}

static enum err bind_expert_biases(struct binder *b, int32_t i, struct weights_layer *l)
{
    const struct arch *a = b->a;
    const struct {
        const char *name;
        struct weights_vec *slot;
        int64_t n;
    } vecs[] = {
        { "ffn_gate_inp.bias", &l->router_b, a->n_expert },
        { "ffn_gate_exps.bias", &l->expert_gate_b, (int64_t)a->n_expert * a->n_ff_exp },
        { "ffn_up_exps.bias", &l->expert_up_b, (int64_t)a->n_expert * a->n_ff_exp },
        { "ffn_down_exps.bias", &l->expert_down_b, (int64_t)a->n_expert * a->n_embd },
    };
    for (size_t k = 0; k < sizeof vecs / sizeof vecs[0]; k++) {
        name_layer(b, i, vecs[k].name);
        TRY(bind_vec(b, vecs[k].slot, vecs[k].n, 0, vecs[k].n, true));
    }
    return ERR_OK;
}

/* The router, what all tokens share, then one expert after the other (WE-4). */
static enum err bind_experts(struct binder *b, int32_t i, struct weights_layer *l)
{
    const struct arch *a = b->a;
    const struct expert_slot slots[WEIGHTS_EXPERT_LOADS] = {
        { "ffn_gate", offsetof(struct weights_expert, gate), a->n_ff_exp, a->n_embd },
        { "ffn_up", offsetof(struct weights_expert, up), a->n_ff_exp, a->n_embd },
        { "ffn_down", offsetof(struct weights_expert, down), a->n_embd, a->n_ff_exp },
    };
    name_layer(b, i, "ffn_gate_inp.weight");
    TRY(bind_rows(b, &l->router, a->n_expert, 0, a->n_expert, a->n_embd));
    if (a->recipe->has_shared_gate && a->n_ff_shared > 0) {
        name_layer(b, i, "ffn_gate_inp_shexp.weight");
        TRY(bind_rows(b, &l->shared_gate, 1, 0, 1, a->n_embd));
    }
    if (a->n_ff_shared > 0) {
        name_layer(b, i, "ffn_gate_shexp.weight");
        TRY(bind_rows(b, &l->gate, a->n_ff_shared, 0, a->n_ff_shared, a->n_embd));
        name_layer(b, i, "ffn_up_shexp.weight");
        TRY(bind_rows(b, &l->up, a->n_ff_shared, 0, a->n_ff_shared, a->n_embd));
        name_layer(b, i, "ffn_down_shexp.weight");
        TRY(bind_rows(b, &l->down, a->n_embd, 0, a->n_embd, a->n_ff_shared));
    }
    TRY(bind_expert_biases(b, i, l));
    l->expert = b->w->expert + (size_t)i * (size_t)a->n_expert;
    b->w->expert_load[i] = b->w->n_load;
    for (int32_t e = 0; e < a->n_expert; e++) {
        for (int k = 0; k < WEIGHTS_EXPERT_LOADS; k++) {
            struct tensor *to = (void *)((uint8_t *)&l->expert[e] + slots[k].at);
            const struct tensor *first = (void *)((uint8_t *)&l->expert[0] + slots[k].at);
            TRY(bind_expert(b, i, e, &slots[k], to));
            REQUIRE(to->type == first->type, ERR_UNSUPPORTED,
                    "%s: tensor %s: type %s, but expert 0's is %s; such models are not supported",
                    gguf_path(b->g), b->name, quant_get(to->type)->name,
                    quant_get(first->type)->name);
        }
    }
    return ERR_OK;
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
    if (b->a->n_expert > 0) {
        return bind_experts(b, i, l);
    }
    TRY(bind_ffn(b, i, l));
    b->w->expert_load[i] = b->w->n_load;
    return ERR_OK;
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

/* Parameters of the experts that a token does not use. */
static uint64_t n_idle(const struct arch *a)
{
    const uint64_t one = WEIGHTS_EXPERT_LOADS * (uint64_t)a->n_embd * (uint64_t)a->n_ff_exp;
    return one * (uint64_t)(a->n_expert - a->n_expert_used) * (uint64_t)a->n_layer;
}

/* Everything that the recipe asks for, then the question what the file has beyond it. */
static enum err bind_all(struct binder *b)
{
    TRY(bind_globals(b));
    for (int32_t i = 0; i < b->a->n_layer; i++) {
        begin_part(b, i, WEIGHTS_ATTN);
        TRY(bind_layer(b, i, &b->w->layer[i]));
    }
    b->w->part_load[b->a->n_layer * WEIGHTS_PARTS] = b->w->n_load;
    b->w->n_active = b->w->n_param - n_idle(b->a);
    for (size_t i = 0; i < gguf_n_tensor(b->g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(b->g, i);
        REQUIRE(b->is_used[i], ERR_UNSUPPORTED,
                "%s: tensor %.*s has no place in family \"%s\" as this version knows it",
                gguf_path(b->g), (int)(t->name.n > 64 ? 64 : t->name.n), t->name.p,
                b->a->recipe->name);
    }
    return ERR_OK;
}

/* WE-3. */
static enum err check_image(const struct weights *w, const struct gguf *g)
{
    char hex[65];
    struct view made = { NULL, 0 };
    TRY(gguf_string(g, WEIGHTS_LAYOUT_KEY, &made, NULL));
    TRY(weights_layout(w, hex));
    REQUIRE(view_eq(made, view_of(hex)), ERR_UNSUPPORTED,
            "%s: a packed image with another layout than this hearth's; make it again: hearth pull "
            "--pack MODEL",
            gguf_path(g));
    REQUIRE(gguf_image_bytes(g) == w->arena_bytes, ERR_INTEGRITY,
            "%s: the packed image has %llu bytes of weights, %zu are needed; make it again: hearth "
            "pull --pack MODEL",
            gguf_path(g), (unsigned long long)gguf_image_bytes(g), w->arena_bytes);
    return ERR_OK;
}

enum err weights_bind(struct weights *w, const struct arch *a, const struct gguf *g)
{
    *w = (struct weights){ 0 };
    struct binder b = { .w = w, .a = a, .g = g };
    const size_t n_expert = (size_t)a->n_layer * (size_t)a->n_expert;
    /* at most: 37 slots a layer and 12 global ones, and those of experts */
    b.n_load_max = (size_t)a->n_layer * 37 + 12 + n_expert * WEIGHTS_EXPERT_LOADS;
    w->layer = mem_alloc_array((size_t)a->n_layer, sizeof w->layer[0]);
    w->loads = mem_alloc_array(b.n_load_max, sizeof w->loads[0]);
    w->part_load = mem_alloc_array((size_t)a->n_layer * WEIGHTS_PARTS + 1, sizeof w->part_load[0]);
    w->expert_load = mem_alloc_array((size_t)a->n_layer, sizeof w->expert_load[0]);
    w->expert = n_expert > 0 ? mem_alloc_array(n_expert, sizeof w->expert[0]) : NULL;
    b.is_used = mem_alloc_array(gguf_n_tensor(g), sizeof b.is_used[0]);
    enum err e = ERR_OK;
    if (w->layer == NULL || w->loads == NULL || w->part_load == NULL || w->expert_load == NULL ||
        (w->expert == NULL && n_expert > 0) || b.is_used == NULL) {
        e = err_set(ERR_MEMORY, "%s: no memory for the tables of %d layers", gguf_path(g),
                    a->n_layer);
    } else {
        e = bind_all(&b);
    }
    if (e == ERR_OK && gguf_is_image(g)) {
        e = check_image(w, g);
        w->scratch_bytes = 0;
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
    mem_free(w->part_load);
    mem_free(w->expert_load);
    mem_free(w->expert);
    *w = (struct weights){ 0 };
}

/* --- layout ----------------------------------------------------------------------------------- */

/* One panel of a type, of rows whose bytes are all different in a way that repeats late. */
static void add_sample(struct hash_sha256 *h, uint32_t type)
{
    struct tensor t;
    uint8_t rows[SAMPLE_BYTES];
    uint8_t panel[SAMPLE_BYTES];
    if (!ALWAYS(pack_shape(type, TENSOR_PANEL_ROWS, SAMPLE_COLS, &t) && t.bytes <= sizeof rows)) {
        return;
    }
    for (uint32_t i = 0; i < t.bytes; i++) {
        rows[i] = (uint8_t)(i * 2654435761u >> 24);
    }
    pack_rows(&t, panel, 0, rows, TENSOR_PANEL_ROWS);
    hash_sha256_add(h, panel, t.bytes);
}

/* Raise the number when slots are bound in another order: images of before are then passed over; a
 * forgotten one lets WE-3 refuse them. */
enum err weights_generation(char hex[65])
{
    struct hash_sha256 *h = NULL;
    TRY(hash_sha256_open(&h));
    hash_sha256_add(h, "1", 1);
    for (uint32_t t = 0; t < QUANT_TYPE_COUNT; t++) {
        if (quant_get(t)->decode != NULL) {
            add_sample(h, t);
        }
    }
    hash_sha256_close(h, hex);
    return ERR_OK;
}

static void add_load_line(struct hash_sha256 *h, const struct weights_load *l)
{
    char line[512];
    const struct tensor *m = l->matrix;
    const int n =
        snprintf(line, sizeof line, "%.*s %d: %d x %d of %d at %zu\n", (int)l->from->name.n,
                 l->from->name.p, l->row0, m != NULL ? m->n_row : l->vec->n,
                 m != NULL ? m->n_col : 1, m != NULL ? (int)m->type : QUANT_F32, l->at);
    hash_sha256_add(h, line, (size_t)n);
}

enum err weights_layout(const struct weights *w, char hex[65])
{
    struct hash_sha256 *h = NULL;
    TRY(hash_sha256_open(&h));
    for (uint32_t t = 0; t < QUANT_TYPE_COUNT; t++) {
        if (w->type_bytes[t] > 0) {
            add_sample(h, t);
        }
    }
    for (size_t i = 0; i < w->n_load; i++) {
        add_load_line(h, &w->loads[i]);
    }
    hash_sha256_close(h, hex);
    return ERR_OK;
}

/* --- loading ---------------------------------------------------------------------------------- */

struct loader {
    struct weights *w;
    const struct gguf *g;
    uint8_t *base;     /* where the first load goes */
    size_t at;         /* the first load's place */
    size_t end;        /* behind the last load */
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
    while (!is_there && ld->next_load < ld->end && cell_get(&ld->is_failed) == 0) {
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
    pack_rows(l->matrix, ld->base + (l->at - ld->at), p->row0, scratch, p->n_row);
    cell_add(&ld->bytes_done, n);
    return ERR_OK;
}

/* One number that is not finite spoils every answer. The matrices' turn comes when the engine
 * checks itself, or with the first answer (engine_open.c). */
enum err weights_check_vec(const struct gguf *g, const struct weights_load *l, const float *v)
{
    for (int32_t i = 0; i < l->vec->n; i++) {
        REQUIRE(isfinite(v[i]), ERR_INTEGRITY, "%s: tensor %.*s: element %d is not a finite number",
                gguf_path(g), (int)l->from->name.n, l->from->name.p, i);
    }
    return ERR_OK;
}

static enum err load_vec(struct loader *ld, const struct weights_load *l, uint8_t *scratch)
{
    const struct quant_info *q = quant_get(l->from->type);
    float *const to = (float *)(void *)(ld->base + (l->at - ld->at));
    const size_t step = LOAD_PIECE / 8;
    for (size_t at = 0; at < (size_t)l->vec->n; at += step) {
        const size_t n = (size_t)l->vec->n - at < step ? (size_t)l->vec->n - at : step;
        TRY(gguf_read(ld->g, l->from, ((size_t)l->row0 + at) * q->bytes, scratch, n * q->bytes));
        q->decode(scratch, to + at, n);
    }
    return weights_check_vec(ld->g, l, to);
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

/* Loads [first, end) to `base`, by the whole team. */
static enum err load_range(struct loader *ld, struct team *team, size_t first, size_t end)
{
    struct weights *w = ld->w;
    struct arena scratch = { 0 };
    const size_t n_worker = (size_t)team_size(team);
    ld->at = w->loads[first].at;
    ld->next_load = first;
    ld->end = end;
    TRY(lock_open(&ld->lock));
    enum err e = arena_open(&scratch, n_worker * w->scratch_bytes, false);
    if (e == ERR_OK) {
        ld->scratch = arena_take(&scratch, n_worker * w->scratch_bytes);
        team_run(team, load_worker, ld);
        e = ld->error != ERR_OK ? err_set(ld->error, "%s", ld->text) : ERR_OK;
    }
    arena_close(&scratch);
    lock_close(ld->lock);
    return e;
}

/* Pages of an image, which the team faults in: those that the page cache has are only mapped. */
struct mapping {
    const struct arena *arena;
    size_t at; /* of item 0 */
    struct cell n_failed;
};

static void map_part(void *arg, int from, int to)
{
    struct mapping *m = arg;
    for (int i = from; i < to; i++) {
        const size_t at = m->at + (size_t)i * TOUCH_BYTES;
        cell_add(&m->n_failed, arena_touch(m->arena, at, TOUCH_BYTES) != ERR_OK);
    }
}

static enum err map_image(const struct weights *w, const struct gguf *g, struct arena *arena,
                          struct team *team, void (*progress)(void *arg, double done), void *arg)
{
    struct mapping m = { .arena = arena };
    TRY(gguf_map(g, arena));
    for (; m.at < arena->cap; m.at += TOUCH_ROUND * TOUCH_BYTES) {
        if (progress != NULL) {
            progress(arg, (double)m.at / (double)arena->cap);
        }
        team_share(team, map_part, &m, TOUCH_ROUND, 1);
    }
    if (cell_get(&m.n_failed) != 0) { /* again, for the reason, which the workers could not tell */
        const enum err e = arena_touch(arena, 0, arena->cap);
        TRY(e == ERR_OK ? e : err_at(e, "%s: the packed image", gguf_path(g)));
        return err_set(ERR_IO, "%s: the packed image could not be read for a moment; try again",
                       gguf_path(g));
    }
    for (size_t i = 0; i < w->n_load; i++) {
        const struct weights_load *l = &w->loads[i];
        if (l->vec != NULL) {
            TRY(weights_check_vec(g, l, (const float *)(const void *)(arena->base + l->at)));
        }
    }
    return ERR_OK;
}

static enum err fill_arena(struct loader *ld, struct arena *arena, struct team *team)
{
    TRY(arena_open(arena, ld->w->arena_bytes, false));
    topo_spread(arena->base, arena->cap);
    ld->base = arena_take(arena, ld->w->arena_bytes);
    REQUIRE(ld->base != NULL, ERR_MEMORY, "%s: the arena is too small", gguf_path(ld->g));
    return load_range(ld, team, 0, ld->w->n_load);
}

struct weights_range weights_range(const struct weights *w, size_t first, size_t end, size_t to)
{
    const size_t begin = first < w->n_load ? w->loads[first].at : w->arena_bytes;
    const size_t at = begin / to * to;
    return (struct weights_range){ at, mem_round(end > 0 ? weights_end(w, end - 1) : 0, to) - at };
}

void weights_place(struct weights *w, size_t i, const uint8_t *at)
{
    const struct weights_load *l = &w->loads[i];
    if (l->matrix != NULL) {
        l->matrix->data = at;
    } else {
        l->vec->v = (const float *)(const void *)at;
    }
    if (w->is_tied && l->matrix == &w->embd) {
        w->output = w->embd;
    }
}

enum err weights_load(struct weights *w, const struct gguf *g, struct arena *arena,
                      struct team *team, void (*progress)(void *arg, double done), void *arg)
{
    if (gguf_is_image(g)) {
        TRY(map_image(w, g, arena, team, progress, arg));
    } else {
        struct loader ld = { .w = w, .g = g, .progress = progress, .progress_arg = arg };
        TRY(fill_arena(&ld, arena, team));
    }
    /* a file that changed while it was read gives a mixture of two models */
    TRY(gguf_unchanged(g));
    for (size_t i = 0; i < w->n_load; i++) {
        weights_place(w, i, arena->base + w->loads[i].at);
    }
    if (progress != NULL) {
        progress(arg, 1.0);
    }
    return ERR_OK;
}

size_t weights_end(const struct weights *w, size_t i)
{
    return i + 1 < w->n_load ? w->loads[i + 1].at : w->arena_bytes;
}

enum err weights_pack(struct weights *w, const struct gguf *g, struct team *team, weights_take take,
                      void *arg)
{
    struct arena arena = { 0 };
    size_t most = 0;
    for (size_t i = 0; i < w->n_load; i++) {
        const size_t n = weights_end(w, i) - w->loads[i].at;
        most = n > most ? n : most;
    }
    TRY(arena_open(&arena, most > PACK_BYTES ? most : PACK_BYTES, false));
    enum err e = ERR_OK;
    for (size_t i = 0; i < w->n_load && e == ERR_OK;) {
        struct loader ld = { .w = w, .g = g, .base = arena.base };
        const size_t first = i;
        const size_t at = w->loads[first].at;
        do {
            i++;
        } while (i < w->n_load && weights_end(w, i) - at <= arena.cap);
        memset(arena.base, 0, weights_end(w, i - 1) - at); /* the padding */
        e = load_range(&ld, team, first, i);
        e = e == ERR_OK ? take(arg, arena.base, weights_end(w, i - 1) - at) : e;
    }
    arena_close(&arena);
    TRY(e);
    return gguf_unchanged(g);
}
