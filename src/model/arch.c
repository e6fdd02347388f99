/* arch - model families as rows of data
 *
 * One table, one row a family. A row says how a block is put together; the numbers come from the
 * file. The alternative, a builder function per family, was rejected: peers carry over 150 such
 * files whose median is 177 lines, nearly all of them the same (docs/decisions/0001-recipes.md).
 *
 * Sources of the rows: the families' published model code (Hugging Face transformers,
 * modeling_*.py) and, for names and keys, the GGUF specification. A family that has parts this
 * program lacks is listed too, with `rest` naming them, so that the refusal can say what is
 * missing.
 *
 * Numbers from the file are hostile until checked: every dimension has a maximum, every float must
 * be finite, a head count of 0 or a rotary dimension of 0 is an error and not an endless loop.
 *
 * Next: weights.c binds tensor names to the slots that a recipe asks for. */
#include "model/arch.h"

#include "num/fmath.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define RMS              .is_layer_norm = false
#define LAYERNORM        .is_layer_norm = true
#define ROPE_PAIRS       .has_rope = true, .rope = KERN_ROPE_PAIRS
#define ROPE_HALVES      .has_rope = true, .rope = KERN_ROPE_HALVES
#define GATED(f)         .is_gated = true, .fn = (f)
#define PLAIN(f)         .is_gated = false, .fn = (f)
#define MISSING(n, what) { .name = (n), .rest = (what) }

/* What a row does not name is 0: norms before, serial, no window, no norm of queries and keys. */
static const struct arch_recipe recipes[] = {
    { .name = "llama",
      RMS,
      ROPE_PAIRS,
      GATED(KERN_FN_SILU),
      .experts = ARCH_EXPERTS_BY_KEY, /* Mixtral */
      .is_route_normed = true },
    { .name = "mistral3", RMS, ROPE_PAIRS, GATED(KERN_FN_SILU) },
    { .name = "smollm3", RMS, ROPE_PAIRS, GATED(KERN_FN_SILU), .nope = ARCH_NOPE_PERIOD_4 },
    { .name = "qwen2", RMS, ROPE_HALVES, GATED(KERN_FN_SILU) },
    { .name = "qwen3", RMS, ROPE_HALVES, GATED(KERN_FN_SILU), .qk_norm = ARCH_QK_HEAD },
    { .name = "qwen2moe",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_SILU),
      .experts = ARCH_EXPERTS_ALWAYS,
      .has_shared_gate = true },
    { .name = "qwen3moe",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_SILU),
      .qk_norm = ARCH_QK_HEAD,
      .experts = ARCH_EXPERTS_ALWAYS,
      .is_route_normed = true },
    { .name = "gemma", RMS, ROPE_HALVES, GATED(KERN_FN_GELU_TANH), .is_embd_scaled = true },
    { .name = "gemma2",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_GELU_TANH),
      .is_embd_scaled = true,
      .norms = ARCH_NORMS_BOTH,
      .window = ARCH_WINDOW_PERIOD,
      .window_period = 2 },
    { .name = "gemma3",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_GELU_TANH),
      .is_embd_scaled = true,
      .norms = ARCH_NORMS_BOTH,
      .qk_norm = ARCH_QK_HEAD,
      .window = ARCH_WINDOW_PERIOD,
      .window_period = 6 },
    { .name = "phi3", RMS, ROPE_HALVES, GATED(KERN_FN_SILU), .window = ARCH_WINDOW_ALL },
    { .name = "olmo2",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_SILU),
      .norms = ARCH_NORMS_POST,
      .qk_norm = ARCH_QK_WHOLE,
      .window = ARCH_WINDOW_PERIOD,
      .window_period = 4 },
    { .name = "olmoe",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_SILU),
      .qk_norm = ARCH_QK_WHOLE,
      .experts = ARCH_EXPERTS_ALWAYS },
    { .name = "granite", RMS, ROPE_PAIRS, GATED(KERN_FN_SILU), .is_logit_divided = true },
    { .name = "granitemoe",
      RMS,
      ROPE_PAIRS,
      GATED(KERN_FN_SILU),
      .is_logit_divided = true,
      .experts = ARCH_EXPERTS_ALWAYS,
      .is_route_normed = true },
    { .name = "exaone4",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_SILU),
      .norms = ARCH_NORMS_POST,
      .qk_norm = ARCH_QK_HEAD,
      .window = ARCH_WINDOW_PERIOD,
      .window_period = 4,
      .nope = ARCH_NOPE_FULL_LAYERS },
    { .name = "glm4", RMS, ROPE_PAIRS, GATED(KERN_FN_SILU), .norms = ARCH_NORMS_BOTH },
    { .name = "seed_oss",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_SILU),
      .ffn_norm = "post_attention_norm" },
    { .name = "ernie4_5", RMS, ROPE_PAIRS, GATED(KERN_FN_SILU) },
    { .name = "hunyuan-dense",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_SILU),
      .qk_norm = ARCH_QK_HEAD_AFTER },
    { .name = "starcoder2", LAYERNORM, ROPE_HALVES, PLAIN(KERN_FN_GELU_TANH) },
    { .name = "stablelm", LAYERNORM, ROPE_HALVES, GATED(KERN_FN_SILU), .join = ARCH_JOIN_BY_KEY },
    { .name = "cohere2",
      LAYERNORM,
      ROPE_PAIRS,
      GATED(KERN_FN_SILU),
      .join = ARCH_JOIN_PARALLEL,
      .window = ARCH_WINDOW_PERIOD,
      .window_period = 4,
      .nope = ARCH_NOPE_FULL_LAYERS },
    { .name = "nemotron", LAYERNORM, ROPE_HALVES, PLAIN(KERN_FN_RELU_SQR) },
    { .name = "phi2",
      LAYERNORM,
      ROPE_HALVES,
      PLAIN(KERN_FN_GELU_TANH),
      .join = ARCH_JOIN_PARALLEL },
    { .name = "gptneox",
      LAYERNORM,
      ROPE_HALVES,
      PLAIN(KERN_FN_GELU_ERF),
      .join = ARCH_JOIN_BY_KEY },
    { .name = "falcon",
      LAYERNORM,
      ROPE_HALVES,
      PLAIN(KERN_FN_GELU_ERF),
      .join = ARCH_JOIN_PARALLEL_NORMED,
      .ffn_norm = "attn_norm_2" },
    { .name = "gpt2", LAYERNORM, PLAIN(KERN_FN_GELU_TANH), .has_positions = true },
    { .name = "gpt-oss",
      RMS,
      ROPE_HALVES,
      GATED(KERN_FN_SWIGLU_CLAMPED),
      .window = ARCH_WINDOW_PERIOD,
      .window_period = 2,
      .experts = ARCH_EXPERTS_ALWAYS,
      .is_route_normed = true,
      .has_sinks = true,
      .is_yarn_whole = true,
      .ffn_norm = "post_attention_norm" },

    MISSING("apertus", "its activation function xIELU"),
    MISSING("bloom", "attention with linear biases (ALiBi)"),
    MISSING("mpt", "attention with linear biases (ALiBi)"),
    MISSING("command-r", "its per-layer query and key LayerNorm"),
    MISSING("llama4", "chunked attention"),
    MISSING("deepseek2", "latent attention (MLA)"),
    MISSING("qwen3next", "gated delta-rule layers"),
    MISSING("qwen35", "gated delta-rule layers"),
    MISSING("lfm2", "short-convolution layers"),
    MISSING("mamba", "state-space layers"),
    MISSING("mamba2", "state-space layers"),
    MISSING("gemma4", "per-layer input embeddings"),
    MISSING("gemma3n", "per-layer input embeddings and alternating updates"),
    MISSING("bert", "encoder models (embeddings)"),
    MISSING("nomic-bert", "encoder models (embeddings)"),
};

static const struct arch_recipe *recipe_find(struct view name)
{
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        if (view_is(name, recipes[i].name)) {
            return &recipes[i];
        }
    }
    return NULL;
}

/* A metadata reader that remembers file and family, so that the table of numbers below stays
 * readable. */
struct reader {
    const struct gguf *g;
    const char *arch;
    char key[160];
};

static const char *key_of(struct reader *r, const char *suffix)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, suffix);
    return r->key;
}

/* Integer in [min, max]; absent keeps *out, which then must lie in the range too. */
static enum err read_int(struct reader *r, const char *suffix, int32_t min, int32_t max,
                         int32_t *out)
{
    uint32_t v = (uint32_t)*out;
    bool found = false;
    TRY(gguf_u32(r->g, key_of(r, suffix), &v, &found));
    REQUIRE(v >= (uint32_t)min && v <= (uint32_t)max, ERR_INTEGRITY,
            "%s: %s: %s is %u, must lie in %d..%d", gguf_path(r->g), r->key,
            found ? "the value" : "absent, and the default", v, min, max);
    *out = (int32_t)v;
    return ERR_OK;
}

/* A number in [min, max]; absent keeps *out. NaN fails every comparison, so it is asked for
 * first. */
static enum err read_float(struct reader *r, const char *suffix, double min, double max,
                           double *out)
{
    float v = (float)*out;
    bool found = false;
    TRY(gguf_f32(r->g, key_of(r, suffix), &v, &found));
    if (!found) {
        return ERR_OK;
    }
    REQUIRE(isfinite(v) && (double)v >= min && (double)v <= max, ERR_INTEGRITY,
            "%s: %s: the value is %g, must lie in %g..%g", gguf_path(r->g), r->key, (double)v, min,
            max);
    *out = (double)v;
    return ERR_OK;
}

static enum err read_floatf(struct reader *r, const char *suffix, double min, double max,
                            float *out)
{
    double v = (double)*out;
    TRY(read_float(r, suffix, min, max, &v));
    *out = (float)v;
    return ERR_OK;
}

/* head_count and friends may be arrays, one number a layer; only equal numbers are supported. */
static enum err read_int_or_array(struct reader *r, const char *suffix, int32_t max, int32_t *out)
{
    struct gguf_array a;
    bool found = false;
    const char *key = key_of(r, suffix);
    if (!gguf_has(r->g, key) || gguf_array(r->g, key, &a, &found) != ERR_OK || !found) {
        return read_int(r, suffix, 1, max, out);
    }
    int64_t first = 0;
    for (uint64_t i = 0; i < a.n; i++) {
        int64_t v = 0;
        REQUIRE(gguf_array_int(&a, i, &v) && v >= 1 && v <= max, ERR_INTEGRITY,
                "%s: %s[%llu]: not an integer in 1..%d", gguf_path(r->g), r->key,
                (unsigned long long)i, max);
        REQUIRE(i == 0 || v == first, ERR_UNSUPPORTED,
                "%s: %s: layers differ (%lld and %lld); such models are not supported yet",
                gguf_path(r->g), r->key, (long long)first, (long long)v);
        first = v;
    }
    REQUIRE(a.n > 0, ERR_INTEGRITY, "%s: %s: the list is empty", gguf_path(r->g), r->key);
    *out = (int32_t)first;
    return ERR_OK;
}

/* Dimensions, each against its maximum (AR-1); the vocabulary is as large as the embedding
 * matrix. */
static enum err read_shape(struct arch *a, struct reader *r)
{
    TRY(read_int(r, "block_count", 1, ARCH_LAYER_MAX, &a->n_layer));
    TRY(read_int(r, "embedding_length", 1, ARCH_EMBD_MAX, &a->n_embd));
    TRY(read_int(r, "context_length", 2, ARCH_CTX_MAX, &a->n_ctx_train));
    TRY(read_int_or_array(r, "feed_forward_length", ARCH_FF_MAX, &a->n_ff));
    TRY(read_int_or_array(r, "attention.head_count", ARCH_HEAD_COUNT_MAX, &a->n_head));
    a->n_kv = a->n_head;
    TRY(read_int_or_array(r, "attention.head_count_kv", ARCH_HEAD_COUNT_MAX, &a->n_kv));
    REQUIRE(a->n_head % a->n_kv == 0, ERR_INTEGRITY,
            "%s: %d heads cannot share %d key heads evenly", gguf_path(r->g), a->n_head, a->n_kv);
    a->hd_k = a->n_embd / a->n_head;
    TRY(read_int(r, "attention.key_length", 1, KERN_HEAD_MAX, &a->hd_k));
    a->hd_v = a->hd_k;
    TRY(read_int(r, "attention.value_length", 1, KERN_HEAD_MAX, &a->hd_v));
    a->n_rot = a->recipe->has_rope ? a->hd_k : 0;
    if (a->recipe->has_rope) {
        TRY(read_int(r, "rope.dimension_count", 2, a->hd_k, &a->n_rot));
        REQUIRE(a->n_rot % 2 == 0, ERR_INTEGRITY, "%s: rope.dimension_count is odd (%d)",
                gguf_path(r->g), a->n_rot);
    }
    const struct gguf_tensor *embd = gguf_tensor_find(r->g, "token_embd.weight");
    REQUIRE(embd != NULL, ERR_INTEGRITY, "%s: tensor token_embd.weight is missing",
            gguf_path(r->g));
    REQUIRE(embd->n_dim == 2 && embd->dim[1] <= ARCH_VOCAB_MAX, ERR_INTEGRITY,
            "%s: tensor token_embd.weight: %llu rows; the vocabulary may have %d at most",
            gguf_path(r->g), (unsigned long long)embd->dim[1], ARCH_VOCAB_MAX);
    a->n_vocab = (int32_t)embd->dim[1];
    return ERR_OK;
}

/* Experts (AR-2). Which of them a token uses is decided by a softmax over all; other ways of
 * choosing, as by groups, are other models. */
static enum err read_experts(struct arch *a, struct reader *r)
{
    const struct arch_recipe *recipe = a->recipe;
    const int32_t least = recipe->experts == ARCH_EXPERTS_ALWAYS ? 1 : 0;
    int32_t gating = 1; /* softmax */
    int32_t n_group = 1;
    int32_t n_dense = 0;
    TRY(read_int(r, "expert_count", least, ARCH_EXPERT_MAX, &a->n_expert));
    if (a->n_expert == 0) {
        return ERR_OK;
    }
    REQUIRE(recipe->experts != ARCH_EXPERTS_NONE, ERR_UNSUPPORTED,
            "%s: family \"%s\" with %d experts is not supported yet: mixture of experts missing",
            gguf_path(r->g), recipe->name, a->n_expert);
    REQUIRE(a->n_expert <= ARCH_EXPERTS_MAX / a->n_layer, ERR_LIMIT,
            "%s: %d layers with %d experts each; at most %d experts are supported", gguf_path(r->g),
            a->n_layer, a->n_expert, ARCH_EXPERTS_MAX);
    TRY(read_int(r, "expert_used_count", 1, a->n_expert, &a->n_expert_used));
    a->n_ff_exp = a->n_ff;
    TRY(read_int(r, "expert_feed_forward_length", 1, ARCH_FF_MAX, &a->n_ff_exp));
    a->n_ff_shared = recipe->has_shared_gate ? a->n_ff : 0;
    TRY(read_int(r, "expert_shared_feed_forward_length", 0, ARCH_FF_MAX, &a->n_ff_shared));
    a->is_route_normed = recipe->is_route_normed;
    TRY(gguf_bool(r->g, key_of(r, "expert_weights_norm"), &a->is_route_normed, NULL));
    a->expert_scale = 1.0f;
    TRY(read_floatf(r, "expert_weights_scale", 0, 1e6, &a->expert_scale));
    a->expert_scale = a->expert_scale == 0.0f ? 1.0f : a->expert_scale;
    TRY(read_int(r, "expert_gating_func", 0, INT32_MAX, &gating));
    TRY(read_int(r, "expert_group_count", 0, INT32_MAX, &n_group));
    TRY(read_int(r, "leading_dense_block_count", 0, INT32_MAX, &n_dense));
    REQUIRE(gating <= 1 && n_group <= 1 && n_dense == 0, ERR_UNSUPPORTED,
            "%s: experts chosen by function %d in %d groups, after %d dense layers: not supported "
            "yet; a softmax over all experts of all layers is",
            gguf_path(r->g), gating, n_group, n_dense);
    return ERR_OK;
}

/* Factors of the forward pass: epsilon, scales, caps, and how a block's parts are joined. */
static enum err read_scales(struct arch *a, struct reader *r)
{
    const struct arch_recipe *recipe = a->recipe;
    a->eps = 1e-5f;
    TRY(read_floatf(r,
                    recipe->is_layer_norm ? "attention.layer_norm_epsilon"
                                          : "attention.layer_norm_rms_epsilon",
                    0, 1, &a->eps));
    a->embd_scale = recipe->is_embd_scaled ? sqrtf((float)a->n_embd) : 1.0f;
    TRY(read_floatf(r, "embedding_scale", -1e6, 1e6, &a->embd_scale));
    a->residual_scale = 1.0f;
    TRY(read_floatf(r, "residual_scale", -1e6, 1e6, &a->residual_scale));
    a->attn_scale = 0.0f;
    TRY(read_floatf(r, "attention.scale", 0, 1e6, &a->attn_scale));
    if (a->attn_scale == 0.0f) {
        /* The 27B models of Gemma 2 and 3 divide by the width per head, not by the key length;
         * their files do not say so, the published configurations (46 and 62 layers) do. */
        const bool is_27b = (strcmp(recipe->name, "gemma2") == 0 && a->n_layer == 46) ||
                            (strcmp(recipe->name, "gemma3") == 0 && a->n_layer == 62);
        a->attn_scale = 1.0f / sqrtf((float)(is_27b ? a->n_embd / a->n_head : a->hd_k));
    }
    a->logit_scale = 1.0f;
    TRY(read_floatf(r, "logit_scale", 0, 1e6, &a->logit_scale));
    if (a->logit_scale == 0.0f) {
        a->logit_scale = 1.0f;
    }
    if (recipe->is_logit_divided) {
        a->logit_scale = 1.0f / a->logit_scale;
    }
    const bool is_gemma2 = strcmp(recipe->name, "gemma2") == 0;
    a->cap_attn = is_gemma2 ? 50.0f : 0.0f;
    a->cap_final = is_gemma2 ? 30.0f : 0.0f;
    TRY(read_floatf(r, "attn_logit_softcapping", 0, 1e6, &a->cap_attn));
    TRY(read_floatf(r, "final_logit_softcapping", 0, 1e6, &a->cap_final));
    a->join = recipe->join;
    if (a->join == ARCH_JOIN_BY_KEY) {
        bool is_parallel = strcmp(recipe->name, "gptneox") == 0;
        TRY(gguf_bool(r->g, key_of(r, "use_parallel_residual"), &is_parallel, NULL));
        a->join = is_parallel ? ARCH_JOIN_PARALLEL_NORMED : ARCH_JOIN_SERIAL;
        /* StableLM with a parallel block has one norm for both parts. */
        if (is_parallel && gguf_tensor_find(r->g, "blk.0.ffn_norm.weight") == NULL) {
            a->join = ARCH_JOIN_PARALLEL;
        }
    }
    return ERR_OK;
}

/* Base and scaling of the rotary angles. Names of kinds are those of GGUF's rope.scaling.type. */
static enum err read_rope(struct arch *a, struct reader *r)
{
    a->rope_base = 10000.0;
    TRY(read_float(r, "rope.freq_base", 1.0, 1e12, &a->rope_base));
    a->rope_base_window = strcmp(a->recipe->name, "gemma3") == 0 ? 10000.0 : a->rope_base;
    TRY(read_float(r, "rope.freq_base_swa", 1.0, 1e12, &a->rope_base_window));
    a->rope_factor = 1.0;
    a->rope_attn_factor = 1.0;
    TRY(read_float(r, "rope.scaling.attn_factor", 1e-3, 1e3, &a->rope_attn_factor));
    TRY(read_int(r, "rope.scaling.original_context_length", 0, ARCH_CTX_MAX, &a->rope_orig_ctx));
    struct view kind = VIEW("none");
    bool found = false;
    TRY(gguf_string(r->g, key_of(r, "rope.scaling.type"), &kind, &found));
    if (!found) {
        TRY(read_float(r, "rope.scale_linear", 1e-3, 1e6, &a->rope_factor)); /* an old name */
        return ERR_OK;
    }
    if (view_is(kind, "none")) {
        return ERR_OK;
    }
    TRY(read_float(r, "rope.scaling.factor", 1e-3, 1e6, &a->rope_factor));
    if (view_is(kind, "yarn")) {
        a->is_yarn = true;
        a->yarn_orig_ctx = a->rope_orig_ctx > 0 ? (double)a->rope_orig_ctx : (double)a->n_ctx_train;
        a->yarn_beta_fast = 32.0;
        a->yarn_beta_slow = 1.0;
        TRY(read_float(r, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, &a->yarn_beta_fast));
        TRY(read_float(r, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, &a->yarn_beta_slow));
    } else if (view_is(kind, "longrope")) {
        a->rope_factor = 1.0;
    } else {
        REQUIRE(
            view_is(kind, "linear"), ERR_UNSUPPORTED,
            "%s: %s: rotary scaling \"%.*s\" is not supported (none, linear, yarn, longrope are)",
            gguf_path(r->g), r->key, (int)(kind.n > 32 ? 32 : kind.n), kind.p);
    }
    return ERR_OK;
}

/* Layer by layer: a list in the file wins, then a period in the file, then the family's. */
static enum err read_windows(struct arch *a, struct reader *r)
{
    const struct arch_recipe *recipe = a->recipe;
    if (recipe->window != ARCH_WINDOW_NONE) {
        TRY(read_int(r, "attention.sliding_window", 0, ARCH_CTX_MAX, &a->window));
    }
    struct gguf_array pattern = { 0 };
    bool has_pattern = false;
    int32_t period = recipe->window_period;
    if (a->window > 0 && gguf_has(r->g, key_of(r, "attention.sliding_window_pattern"))) {
        if (gguf_array(r->g, r->key, &pattern, &has_pattern) != ERR_OK) {
            has_pattern = false;
            TRY(read_int(r, "attention.sliding_window_pattern", 1, ARCH_LAYER_MAX, &period));
        }
        REQUIRE(!has_pattern || pattern.n >= (uint64_t)a->n_layer, ERR_INTEGRITY,
                "%s: %s: %llu entries for %d layers", gguf_path(r->g), r->key,
                (unsigned long long)pattern.n, a->n_layer);
    }
    for (int32_t i = 0; i < a->n_layer; i++) {
        struct arch_layer *l = &a->layer[i];
        int64_t v = 0;
        if (a->window == 0) {
            l->is_window = false;
        } else if (has_pattern) {
            REQUIRE(gguf_array_int(&pattern, (uint64_t)i, &v), ERR_INTEGRITY,
                    "%s: %s[%d]: not a truth value", gguf_path(r->g), r->key, i);
            l->is_window = v != 0;
        } else {
            l->is_window = recipe->window == ARCH_WINDOW_ALL || (i + 1) % period != 0;
        }
        l->has_rope = recipe->has_rope;
        if (recipe->nope == ARCH_NOPE_PERIOD_4) {
            l->has_rope = (i + 1) % 4 != 0;
        } else if (recipe->nope == ARCH_NOPE_FULL_LAYERS && a->window > 0) {
            l->has_rope = l->is_window;
        }
    }
    return ERR_OK;
}

enum err arch_read(struct arch *a, const struct gguf *g)
{
    struct view name = { NULL, 0 };
    bool found = false;
    TRY(gguf_string(g, "general.architecture", &name, &found));
    REQUIRE(found, ERR_INTEGRITY, "%s: general.architecture is missing; not a language model?",
            gguf_path(g));
    const struct arch_recipe *recipe = recipe_find(name);
    REQUIRE(recipe != NULL, ERR_UNSUPPORTED, "%s: family \"%.*s\" is not known to this version",
            gguf_path(g), (int)(name.n > 64 ? 64 : name.n), name.p);
    REQUIRE(recipe->rest == NULL, ERR_UNSUPPORTED,
            "%s: family \"%s\" is not supported yet: %s missing", gguf_path(g), recipe->name,
            recipe->rest);
    static const struct arch empty;
    struct arch t = empty;
    t.recipe = recipe;
    struct reader r = { .g = g, .arch = recipe->name };
    TRY(read_shape(&t, &r));
    TRY(read_experts(&t, &r));
    TRY(read_scales(&t, &r));
    if (recipe->has_rope) {
        TRY(read_rope(&t, &r));
    }
    TRY(read_windows(&t, &r));
    *a = t;
    return ERR_OK;
}

/* YaRN (Peng et al. 2023, section 3.2): dimension where a wavelength makes `rotations` turns. */
static double yarn_dim(const struct arch *a, double rotations, double base)
{
    const double two_pi = 6.283185307179586;
    return (double)a->n_rot * fmath_log(a->yarn_orig_ctx / (rotations * two_pi)) /
           (2.0 * fmath_log(base));
}

void arch_rope_freqs(const struct arch *a, bool is_window, const float *factors, double *freq,
                     double *mscale)
{
    const double base = is_window ? a->rope_base_window : a->rope_base;
    /* Scaling stretches full attention; layers with a window see only near positions and keep
     * theirs (Gemma 3, OLMo 3), but for gpt-oss. */
    const bool is_whole = a->recipe->is_yarn_whole;
    const bool is_scaled = !is_window || is_whole;
    const double factor = is_scaled ? a->rope_factor : 1.0;
    const bool is_yarn = a->is_yarn && is_scaled;
    *mscale = is_scaled ? a->rope_attn_factor : 1.0;
    if (is_yarn) {
        *mscale *= 1.0 + 0.1 * fmath_log(factor > 1.0 ? factor : 1.0);
    }
    double low = is_yarn ? yarn_dim(a, a->yarn_beta_fast, base) : 0.0;
    double high = is_yarn ? yarn_dim(a, a->yarn_beta_slow, base) : 0.0;
    low = is_whole ? low : floor(low);
    high = is_whole ? high : ceil(high);
    const double lo = low < 0.0 ? 0.0 : low;
    const double hi = high > (double)(a->n_rot - 1) ? (double)(a->n_rot - 1) : high;
    for (int32_t i = 0; i < a->n_rot / 2; i++) {
        double f = fmath_pow(base, -2.0 * (double)i / (double)a->n_rot);
        if (factors != NULL) {
            f /= (double)factors[i];
        }
        if (is_yarn) {
            /* fast pairs keep their frequency, slow ones are stretched, between them a ramp */
            double ramp = ((double)i - lo) / (hi - lo > 1e-3 ? hi - lo : 1e-3);
            ramp = ramp < 0.0 ? 0.0 : ramp > 1.0 ? 1.0 : ramp;
            f = f * (1.0 - ramp) + f / factor * ramp;
        } else {
            f /= factor;
        }
        freq[i] = f;
    }
}
