/* gguf_tiny - a whole model of a few kilobytes, for tests (header only)
 *
 * A llama of a few layers, two if nothing else is asked for, with all weights positive and small, and a vocabulary of single letters: it
 * says nothing sensible, but opens and answers. It may have experts, in one tensor or apart. */
#ifndef HEARTH_TESTS_GGUF_TINY_H
#define HEARTH_TESTS_GGUF_TINY_H

#include "gguf_write.h"

#define TINY_EMBD  64
#define TINY_FF    96
#define TINY_VOCAB 40

/* What a model has; all zero but the first two is a dense one. */
struct tiny {
    struct view template;
    uint32_t n_layer;
    uint32_t n_vocab; /* 0: TINY_VOCAB */
    uint32_t n_expert, n_used;
    uint32_t n_told; /* experts that the key tells of; 0: n_expert */
    uint32_t n_odd;  /* experts that are more than those */
    bool is_apart;   /* a tensor for each expert */
    bool is_pushed;  /* the router says the same of all experts: the first ones get every token */
    bool is_hollow;  /* without layers */
    bool is_still;   /* layers add nothing to the residual stream */
    bool has_output; /* a matrix of its own, not that of the embeddings */
};

static inline void tiny_tensor(struct gguf_write *w, const char *name, uint64_t n_col,
                               uint64_t n_row, uint64_t *at)
{
    const uint32_t n_dim = n_row > 0 ? 2 : 1;
    const uint32_t type = 0; /* float */
    gguf_write_text(w, view_of(name));
    buf_add(&w->out, &n_dim, sizeof n_dim);
    buf_add(&w->out, &n_col, sizeof n_col);
    if (n_row > 0) {
        buf_add(&w->out, &n_row, sizeof n_row);
    }
    buf_add(&w->out, &type, sizeof type);
    buf_add(&w->out, at, sizeof *at);
    *at += n_col * (n_row > 0 ? n_row : 1) * sizeof(float);
    w->n_tensor++;
}

/* Experts side by side: the same bytes, whether they are one tensor or many. */
static inline void tiny_experts(struct gguf_write *w, const struct tiny *m, const char *part,
                                uint64_t n_col, uint64_t n_row, uint64_t *at)
{
    char name[96];
    const uint64_t n = m->n_expert + m->n_odd;
    for (uint32_t e = 0; e < n && m->is_apart; e++) {
        snprintf(name, sizeof name, "%s.%u.weight", part, e);
        tiny_tensor(w, name, n_col, n_row, at);
    }
    if (!m->is_apart) {
        const uint32_t n_dim = 3;
        const uint64_t dims[3] = { n_col, n_row, n };
        const uint32_t type = 0;
        snprintf(name, sizeof name, "%s_exps.weight", part);
        gguf_write_text(w, view_of(name));
        buf_add(&w->out, &n_dim, sizeof n_dim);
        buf_add(&w->out, dims, sizeof dims);
        buf_add(&w->out, &type, sizeof type);
        buf_add(&w->out, at, sizeof *at);
        *at += n_col * n_row * n * sizeof(float);
        w->n_tensor++;
    }
}

static inline uint32_t tiny_vocab(const struct tiny *m)
{
    return m->n_vocab > 0 ? m->n_vocab : TINY_VOCAB;
}

/* Letters, and behind them numbers. */
static inline void tiny_tokens(struct gguf_write *w, const struct tiny *m)
{
    const uint32_t n = tiny_vocab(m);
    gguf_write_array(w, "tokens", GGUF_STRING, n);
    for (uint32_t i = 0; i < n; i++) {
        char text[16] = { (char)('A' + (char)i) };
        if (i >= TINY_VOCAB) {
            snprintf(text, sizeof text, "%u", i);
        }
        gguf_write_text(w, view_of(text));
    }
    gguf_write_array(w, "scores", GGUF_F32, n);
    for (uint32_t i = 0; i < n; i++) {
        buf_add(&w->out, &(float){ 0.0f }, sizeof(float));
    }
}

static inline void tiny_keys(struct gguf_write *w, const struct tiny *m)
{
    gguf_write_string(w, "general.architecture", VIEW("llama"));
    gguf_write_u32(w, "llama.block_count", m->n_layer);
    if (m->n_expert > 0) {
        gguf_write_u32(w, "llama.expert_count", m->n_told > 0 ? m->n_told : m->n_expert);
        gguf_write_u32(w, "llama.expert_used_count", m->n_used);
    }
    gguf_write_u32(w, "llama.embedding_length", TINY_EMBD);
    gguf_write_u32(w, "llama.context_length", 1024);
    gguf_write_u32(w, "llama.feed_forward_length", TINY_FF);
    gguf_write_u32(w, "llama.attention.head_count", 4);
    gguf_write_u32(w, "llama.attention.head_count_kv", 2);
    gguf_write_string(w, "tokenizer.chat_template", m->template);
    gguf_write_string(w, "model", VIEW("llama"));
    gguf_write_u32(w, "unknown_token_id", 0);
    tiny_tokens(w, m);
}

/* Returns the file's descriptor; the path leads to it. */
static inline int tiny_model_as(char path[64], const struct tiny *m)
{
    static const struct {
        const char *name;
        uint64_t n_col, n_row;
    } of_layer[] = {
        { "attn_norm", TINY_EMBD, 0 },          { "ffn_norm", TINY_EMBD, 0 },
        { "attn_q", TINY_EMBD, TINY_EMBD },     { "attn_k", TINY_EMBD, TINY_EMBD / 2 },
        { "attn_v", TINY_EMBD, TINY_EMBD / 2 }, { "attn_output", TINY_EMBD, TINY_EMBD },
        { "ffn_gate", TINY_EMBD, TINY_FF },     { "ffn_up", TINY_EMBD, TINY_FF },
        { "ffn_down", TINY_FF, TINY_EMBD }
    };
    struct gguf_write w;
    uint64_t at = 0;
    gguf_write_begin(&w);
    tiny_keys(&w, m);
    tiny_tensor(&w, "token_embd.weight", TINY_EMBD, tiny_vocab(m), &at);
    tiny_tensor(&w, "output_norm.weight", TINY_EMBD, 0, &at);
    if (m->has_output) {
        tiny_tensor(&w, "output.weight", TINY_EMBD, tiny_vocab(m), &at);
    }
    const uint64_t router_at = at;
    const uint32_t n_layer = m->is_hollow ? 0 : m->n_layer;
    for (uint32_t i = 0; i < n_layer && m->n_expert > 0; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", i);
        tiny_tensor(&w, name, TINY_EMBD, m->n_expert, &at);
    }
    const uint64_t router_end = at;
    uint64_t begin[sizeof of_layer / sizeof of_layer[0]];
    for (size_t i = 0; i < n_layer * sizeof of_layer / sizeof of_layer[0]; i++) {
        const size_t k = i / m->n_layer;
        const bool is_expert = m->n_expert > 0 && k >= 6;
        char name[64];
        begin[k] = i % m->n_layer == 0 ? at : begin[k];
        snprintf(name, sizeof name, "blk.%zu.%s%s", i % m->n_layer, of_layer[k].name,
                 is_expert ? "" : ".weight");
        if (is_expert) {
            tiny_experts(&w, m, name, of_layer[k].n_col, of_layer[k].n_row, &at);
        } else {
            tiny_tensor(&w, name, of_layer[k].n_col, of_layer[k].n_row, &at);
        }
    }
    while (w.out.n % 32 != 0) {
        buf_add_char(&w.out, 0);
    }
    for (uint64_t i = 0; i < at / sizeof(float); i++) {
        const uint64_t byte = i * sizeof(float);
        const bool is_router = byte >= router_at && byte < router_end;
        const bool is_out =
            m->is_still && ((byte >= begin[5] && byte < begin[6]) || byte >= begin[8]);
        float v = (float)(i * 2654435761u % 1021) / 4096.0f;
        v = is_router ? (m->is_pushed ? 0.0f : v - 0.125f) : v; /* of both signs: choices differ */
        v = is_out ? 0.0f : v;
        buf_add(&w.out, &v, sizeof v);
    }
    return gguf_write_end(&w, path);
}

static inline int tiny_model_of(char path[64], struct view template, uint32_t n_layer)
{
    return tiny_model_as(path, &(struct tiny){ .template = template, .n_layer = n_layer });
}

#define TINY_TEXT     "{% for m in messages %}{{ m.content ~ '\\n' }}{% endfor %}"
#define TINY_TEMPLATE VIEW(TINY_TEXT)

static inline int tiny_model(char path[64])
{
    return tiny_model_of(path, TINY_TEMPLATE, 2);
}

static inline int tiny_model_with(char path[64], struct view template)
{
    return tiny_model_of(path, template, 2);
}

#endif
