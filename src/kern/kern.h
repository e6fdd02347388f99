/* kern - the arithmetic, one table of functions per instruction set (kern/kern_table.c)
 *
 * Every entry exists as plain C (gemm_ref.c, vec_ref.c, attn_ref.c), which is the normative form,
 * and as AVX2, AVX-512 and NEON versions with equal bits: docs/NUMERICS.md states the order of
 * every sum. No entry allocates, fails, locks or keeps state; any number of threads may call any of
 * them. Pointers into arenas are 64-byte aligned; vectors of activations have room to the next
 * multiple of 16 floats. Kernels assert only at this boundary.
 * KE-1  for every entry and every instruction set: the bits equal those of the scalar entry.
 * KE-2  an output element's bits do not depend on the other rows or tokens of the call. */
#ifndef HEARTH_KERN_H
#define HEARTH_KERN_H

#include "base/buf.h"
#include "base/cpu.h"
#include "num/pack.h"
#include "num/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- activations, prepared once per product (or once for several with the same input) ------------
 *
 * Against quantized weights: int8 in [-127, 127] per block of 32 columns, scale amax / 127 in
 * float32, plus the two half sums, interleaved in tiles of tokens as the kernels read them. Against
 * float weights: the float32 values, interleaved. The memory's layout is private to kern/gemm_*, as
 * is the order of a unit's columns for codebook types, whose halves have one scale or two. */
enum kern_act_kind {
    KERN_ACT_I8,
    KERN_ACT_BOOK,
    KERN_ACT_BOOK_HALVED,
    KERN_ACT_F32,
    KERN_ACT_COUNT,
};

#define KERN_TILE 16 /* tokens of a tile; the last one may have fewer */

struct kern_act {
    enum kern_act_kind kind;
    int32_t n_tok;
    int32_t n_col;
    uint8_t *data;       /* caller's, kern_act_bytes(), 64-byte aligned */
    const int32_t *rows; /* [n_tok] of x, one for each token; NULL: 0, 1 ... */
};

/* The form in which weights of a type want their activations. Any thread; cannot fail. */
enum kern_act_kind kern_act_kind_for(enum quant_type weight_type);
/* Bytes that kern_act.data needs for n_tok >= 1 tokens of n_col columns, the last tile filled
 * up. */
size_t kern_act_bytes(enum kern_act_kind kind, int32_t n_tok, int32_t n_col);
/* Tiles of n_tok tokens: the unit in which work is split. Any thread; cannot fail. */
int32_t kern_act_tiles(int32_t n_tok);
/* Tiles, at least 1, whose activations stay in a core's second-level cache while panels go by: a
 * part of more tiles reads them from farther away for each panel; parts of fewer read the weights
 * again for each of them. n_col: of a weight matrix (pack_shape). Any thread; cannot fail. */
int32_t kern_act_tiles_at_once(enum kern_act_kind kind, int32_t n_col);

/* Rows of panels [panel0, panel1), tokens of tiles [tile0, tile1). */
struct kern_part {
    int32_t panel0;
    int32_t panel1;
    int32_t tile0;
    int32_t tile1;
};

/* The first token beyond tiles [.., tile1) of n_tok tokens. */
static inline int32_t kern_tok_end(int32_t n_tok, int32_t tile1)
{
    return tile1 * KERN_TILE < n_tok ? tile1 * KERN_TILE : n_tok;
}

/* Panels that a kernel may multiply at once where tokens are many: one by itself takes it longer
 * than half of two, so that parts have a multiple of them, but for those that begin or end a
 * matrix. */
#define KERN_PANELS    2
#define KERN_PAIR_TOKS (2 * KERN_TILE) /* so many are many */

/* The work of a product (or of several with one input), in the order in which it is handed out: the
 * line of its panels, once for each block of tokens. A place is one panel times one block; behind a
 * line of an odd number of panels stands an empty one, but for the last block, so that each begins
 * at a multiple of KERN_PANELS. */
struct kern_line {
    int32_t n_panel;
    int32_t n_tile;
    int32_t n_block; /* of nearly equal numbers of tiles */
    int32_t n_place;
    int32_t grain; /* places to hand out together */
};

/* Places to hand out together, of n_place with up to n_tok tokens. Any thread; cannot fail. */
int32_t kern_line_grain(int32_t n_place, int32_t n_tok, int32_t n_worker);
/* For n_tok tokens whose blocks have at most `at_once` tiles (kern_act_tiles_at_once), and n_worker
 * workers. Up to 64 tokens are one block, since weights are the limit. Any thread; cannot fail. */
struct kern_line kern_line_of(int32_t n_panel, int32_t n_tok, int32_t at_once, int32_t n_worker);
/* Takes from places [*from, to) those that lie in the block of *from, as a part; empty ones are
 * passed over. false: there are none. Any thread; cannot fail. */
bool kern_line_next(const struct kern_line *l, int32_t *from, int32_t to, struct kern_part *out);

/* --- activation functions --------------------------------------------------------------------- */
enum kern_fn {
    KERN_FN_SILU,
    KERN_FN_GELU_TANH, /* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), Hendrycks 2016 */
    KERN_FN_GELU_ERF,  /* 0.5 x (1 + erf(x / sqrt 2)) */
    KERN_FN_RELU,
    KERN_FN_RELU_SQR,
    KERN_FN_SWIGLU_CLAMPED, /* x = min(gate, 7): x / (1 + exp(-1.702 x)); the other factor is up,
                               within -7 .. 7, plus 1 (gpt-oss) */
    KERN_FN_COUNT,
};

/* --- rotary embedding ------------------------------------------------------------------------- */
enum kern_rope { KERN_ROPE_PAIRS, KERN_ROPE_HALVES }; /* (2i, 2i+1) or (i, i + n_rot/2) */

/* --- attention -----------------------------------------------------------------------------------
 *
 * Pages hold 16 consecutive positions of one kv head. K lies transposed, one lane per position:
 *   f32, f16:  k[hd][16]     q8_0: uint8 k[hd/4][16][4], q + 128, + f16 scale[hd/32][16]
 *   bf16:      k[hd/2][16][2]
 * V lies row by row, in q8_0 and bf16 pages two positions side by side:
 *   f32, f16:  v[16][hd]     q8_0: int8 v[hd/32][16/2][32][2] + f16 scale[hd/32][16]
 *   bf16:      v[16/2][hd][2]
 * (head dims of q8_0 pages are padded to multiples of 32 with zeros, an odd one of bf16
 * pages by one; exact bytes: kern_kv_k_bytes).
 * A span is 256 consecutive absolute positions starting at a multiple of 256, 16 pages; it is the
 * only unit in which attention is split and merged (docs/NUMERICS.md). */
enum kern_kv { KERN_KV_F16, KERN_KV_Q8_0, KERN_KV_F32, KERN_KV_BF16, KERN_KV_COUNT };

#define KERN_PAGE       16
#define KERN_SPAN       256
#define KERN_SPAN_PAGES (KERN_SPAN / KERN_PAGE)
#define KERN_QUERIES    16 /* most queries per attend_span call */
#define KERN_HEAD_MAX   512

/* Bytes of one page of keys, of values, of one head: a multiple of 64. Any thread; cannot fail. */
size_t kern_kv_k_bytes(enum kern_kv kv, int32_t head_dim);
size_t kern_kv_v_bytes(enum kern_kv kv, int32_t head_dim);
const char *kern_kv_name(enum kern_kv kv);               /* "f16", "q8_0", "f32", "bf16"; static */
bool kern_kv_parse(const char *name, enum kern_kv *out); /* any case; false: *out is untouched */

/* One span, one kv head, up to KERN_QUERIES queries that share the pages. */
struct kern_attend {
    enum kern_kv kv;
    int32_t hd_k; /* head dims; <= KERN_HEAD_MAX */
    int32_t hd_v;
    int32_t n_query;       /* 1..KERN_QUERIES */
    const float *const *q; /* q[i][hd_k] */
    const uint8_t *const
        *k_page; /* [KERN_SPAN_PAGES]; entries beyond the last visible one unread */
    const uint8_t *const *v_page;
    const uint8_t *const *k_ahead; /* [KERN_SPAN_PAGES] keys that are wanted next, for prefetching,
                                      or NULL; never read */
    int32_t pos0;                  /* first position of the span, a multiple of KERN_SPAN */
    const int32_t *lo; /* query i sees positions lo[i] <= p < hi[i]; at least one in the span */
    const int32_t *hi;
    float scale;       /* score = (q . k) * scale */
    float cap;         /* > 0: score = cap * tanh(score / cap) */
    float *m;          /* out: [n_query] maximum */
    float *s;          /* out: [n_query] sum of exp(score - m) */
    float *const *acc; /* out: acc[i][hd_v] = sum of exp(score - m) * v */
};

struct kern_table {
    enum cpu_isa isa;
    const char *name; /* e.g. "avx512 vnni" */

    /* --- products (gemm_*) --- */
    /* Prepares tiles [tile0, tile1) of x[n_tok][ldx]. */
    void (*act_prepare)(const struct kern_act *a, const float *x, size_t ldx, int32_t tile0,
                        int32_t tile1);
    /* y[t][r] = sum_k W[r][k] x[t][k] for the rows and tokens of the part; y's rows have room for
     * n_row rounded up to 16 (ldy floats apart). Walks the part by one panel or two. */
    void (*matmul)(const struct tensor *w, struct kern_part part, const struct kern_act *a,
                   float *y, size_t ldy);

    /* Multiplies and adds int8 in registers, n rounds; returns the operations done (a multiply and
     * an add count as two): the processor's peak, for `hearth bench --limits`. *sink receives
     * something. */
    uint64_t (*peak_int8)(uint32_t n, uint32_t *sink);

    /* --- vectors (vec_*) --- */
    uint64_t (*peak_f32)(uint32_t n,
                         uint32_t *sink); /* the same for fused multiply-adds of floats */
    /* The same for dot products of pairs of bf16; NULL where kernels know none. Whether this
     * processor has them is cpu_get()->has_avx512_bf16. */
    uint64_t (*peak_bf16)(uint32_t n, uint32_t *sink);
    /* Reads n floats (a multiple of 256) once, with prefetch; the value only keeps it from being
     * left out. */
    uint32_t (*read_all)(const float *p, size_t n);
    /* y = x / sqrt(mean(x^2) + eps) * w; w NULL = 1. y may be x. */
    void (*norm_rms)(float *y, const float *x, const float *w, float eps, int32_t n);
    /* y = (x - mean) / sqrt(var + eps) * w + b; w, b may be NULL. y may be x. */
    void (*norm_layer)(float *y, const float *x, const float *w, const float *b, float eps,
                       int32_t n);
    /* y = fn(gate) * up; up NULL: y = fn(gate). y may be gate or up. */
    void (*glu)(enum kern_fn fn, float *y, const float *gate, const float *up, int32_t n);
    void (*add)(float *y, const float *x, int32_t n);                 /* y = y + x */
    void (*add_scaled)(float *y, const float *x, float a, int32_t n); /* y = fma(a, x, y) */
    void (*mul)(float *y, const float *x, int32_t n);                 /* y = y * x */
    void (*scale)(float *y, float a, int32_t n);                      /* y = y * a */
    void (*soft_cap)(float *y, float cap, int32_t n);                 /* y = cap * tanh(y / cap) */
    /* Rotates the first n_rot values of each of n_head heads of hd floats, in place. cos, sin:
     * [n_rot/2]. */
    void (*rope)(enum kern_rope kind, float *x, int32_t n_head, int32_t hd, int32_t n_rot,
                 const float *cos, const float *sin);
    int32_t (*argmax)(const float *x, int32_t n); /* first of equals; NaN never wins */
    float (*max)(const float *x, int32_t n);
    /* y[i] = exp(x[i] - max); returns their sum in the fixed 16-lane order. y may be x or NULL. */
    float (*exp_sum)(float *y, const float *x, float max, int32_t n);

    /* --- attention (attn_*) --- */
    /* Writes position `slot` (0..15) of a page of one head. */
    void (*kv_put)(enum kern_kv kv, int32_t hd_k, int32_t hd_v, uint8_t *k_page, uint8_t *v_page,
                   int32_t slot, const float *k, const float *v);
    void (*attend_span)(const struct kern_attend *a);
    /* (m, s, acc) := merge of (m, s, acc) with (m2, s2, acc2), in this order. */
    void (*attend_merge)(float *m, float *s, float *acc, float m2, float s2, const float *acc2,
                         int32_t hd_v);
    /* y = acc / s, after an optional sink score joined the sum (sink: pointer or NULL). */
    void (*attend_finish)(float *y, float m, float s, const float *acc, const float *sink,
                          int32_t hd_v);
};

/* The table for a level; NULL when this program has none for it (another architecture). Made at
 * first use, static from then on. Whether the processor may run it is cpu_can's answer. Any
 * thread. */
const struct kern_table *kern_get(enum cpu_isa isa);
/* The table of AVX-512 as a processor without VBMI and BF16 has it: types with codebooks take
 * AVX2's products, bf16 pages multiply-adds of floats. For tests. NULL: another architecture. */
const struct kern_table *kern_get_early_avx512(void);
/* Lines for a person: what was picked for this machine and why, and which levels exist ("hearth
 * bench --kernels"). Appends to `out`. */
void kern_describe(const struct kern_table *t, struct buf *out);

#endif
