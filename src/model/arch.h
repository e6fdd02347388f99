/* arch - model families as rows of data, and the checked numbers of one model (model/arch.c)
 *
 * A family is a recipe: which norms, which rotary kind, which activation, what is optional.
 * Everything that differs between two models of a family comes from the file's metadata and is
 * checked here, once; later code relies on it and never reads metadata itself.
 *
 * AR-1  every dimension is > 0 and at most its ARCH_*_MAX; n_head is a multiple of n_kv; n_rot is
 *       even and <= hd_k; products of dimensions fit int32_t.
 * AR-2  0 < n_expert_used <= n_expert <= ARCH_EXPERT_MAX, or all that has to do with experts is 0;
 *       all layers together have at most ARCH_EXPERTS_MAX. */
#ifndef HEARTH_ARCH_H
#define HEARTH_ARCH_H

#include "base/err.h"
#include "kern/kern.h"
#include "model/gguf.h"

#include <stdbool.h>
#include <stdint.h>

#define ARCH_LAYER_MAX      512
#define ARCH_EMBD_MAX       65536
#define ARCH_FF_MAX         262144
#define ARCH_HEAD_COUNT_MAX 1024
#define ARCH_VOCAB_MAX      (1 << 21)
#define ARCH_CTX_MAX        (1 << 24)
#define ARCH_EXPERT_MAX     512   /* of a layer */
#define ARCH_EXPERTS_MAX    65536 /* of all layers */

/* Where a block normalizes. */
enum arch_norms {
    ARCH_NORMS_PRE,  /* before attention and before the feed-forward part */
    ARCH_NORMS_POST, /* only after each, before the sum (OLMo 2, EXAONE 4) */
    ARCH_NORMS_BOTH, /* before and after each (Gemma 2, GLM 4) */
};

/* How a block's two parts are joined. */
enum arch_join {
    ARCH_JOIN_SERIAL,          /* x += attn(norm(x)); x += ffn(norm(x)) */
    ARCH_JOIN_PARALLEL,        /* h = norm(x); x += attn(h) + ffn(h) */
    ARCH_JOIN_PARALLEL_NORMED, /* x += attn(norm1(x)) + ffn(norm2(x)) */
    ARCH_JOIN_BY_KEY, /* use_parallel_residual decides between SERIAL and PARALLEL_NORMED */
};

enum arch_qk_norm {
    ARCH_QK_NONE,
    ARCH_QK_HEAD,       /* each head, before the rotation */
    ARCH_QK_WHOLE,      /* all heads as one vector, before the rotation */
    ARCH_QK_HEAD_AFTER, /* each head, after the rotation */
};

/* Which layers see only a window of positions, when the file does not say so itself. */
enum arch_window {
    ARCH_WINDOW_NONE,
    ARCH_WINDOW_ALL,    /* every layer, where the file gives a window (Phi 3) */
    ARCH_WINDOW_PERIOD, /* all but each window_period-th layer */
};

/* Whether the feed-forward part is several, of which a router chooses some for each token. */
enum arch_experts { ARCH_EXPERTS_NONE, ARCH_EXPERTS_BY_KEY, ARCH_EXPERTS_ALWAYS };

/* Which layers are not rotated. */
enum arch_nope { ARCH_NOPE_NONE, ARCH_NOPE_PERIOD_4, ARCH_NOPE_FULL_LAYERS };

struct arch_recipe {
    const char *name;   /* general.architecture */
    bool is_layer_norm; /* else RMS */
    enum arch_norms norms;
    enum arch_join join;
    bool has_rope;
    enum kern_rope rope;
    enum arch_qk_norm qk_norm;
    enum kern_fn fn;
    bool is_gated;         /* ffn = down(fn(gate) * up), else down(fn(up)) */
    bool is_embd_scaled;   /* embeddings times sqrt(n_embd) */
    bool is_logit_divided; /* logit_scale divides (Granite), else multiplies (Cohere) */
    bool has_positions;    /* learned position embeddings (GPT-2) */
    enum arch_window window;
    int window_period;
    enum arch_nope nope;
    enum arch_experts experts;
    bool is_route_normed; /* the weights of a token's experts sum to 1; a key may say otherwise */
    bool has_shared_gate; /* the shared expert's result times sigmoid(gate . x) */
    bool has_sinks;       /* a score of each head that has no value */
    bool is_yarn_whole;   /* YaRN: in layers with a window too, and without rounding its range */
    const char *ffn_norm; /* tensor name if not "ffn_norm"; for PARALLEL_NORMED the second norm */
    const char *rest;     /* what the family has beyond this program; NULL = supported */
};

struct arch_layer {
    bool is_window;
    bool has_rope;
};

/* The checked numbers of one model. Plain data, copied freely. */
struct arch {
    const struct arch_recipe *recipe; /* static */
    int32_t n_layer;
    int32_t n_embd;
    int32_t n_ff;
    int32_t n_expert; /* 0: none, the layers are dense */
    int32_t n_expert_used;
    int32_t n_ff_exp;    /* of one expert */
    int32_t n_ff_shared; /* of the expert that all tokens use; 0: there is none */
    bool is_route_normed;
    float expert_scale; /* of the weights of a token's experts */
    int32_t n_head;
    int32_t n_kv;
    int32_t hd_k;
    int32_t hd_v;
    int32_t n_rot;
    int32_t n_vocab;
    int32_t n_ctx_train;
    enum arch_join join;
    float eps;
    float embd_scale; /* of the scales 1 is none */
    float residual_scale;
    float attn_scale;
    float logit_scale; /* multiplies */
    float cap_attn;    /* 0 = none */
    float cap_final;   /* 0 = none */
    int32_t window;    /* positions seen, 0 = all */
    struct arch_layer layer[ARCH_LAYER_MAX];

    /* rotary angles: position * base^(-2i/n_rot), scaled */
    double rope_base;
    double rope_base_window; /* window layers may have their own base */
    double rope_factor;      /* linear or YaRN factor, 1 = none; window layers: none */
    bool is_yarn;
    double yarn_orig_ctx;
    double yarn_beta_fast;
    double yarn_beta_slow;
    double yarn_log_mul;
    double rope_attn_factor; /* multiplies cos and sin */
    int32_t rope_orig_ctx;   /* longer contexts use the long factors (Phi 3), 0 = n.a. */
};

/* Reads and checks. ERR_UNSUPPORTED names the family and what is missing. */
enum err arch_read(struct arch *a, const struct gguf *g) MUST_USE;

/* Angular frequencies [n_rot/2] of full or window layers. factors: [n_rot/2] divisors or NULL.
 * *mscale multiplies cos and sin. */
void arch_rope_freqs(const struct arch *a, bool is_window, const float *factors, double *freq,
                     double *mscale);

#endif
