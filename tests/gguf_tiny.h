/* gguf_tiny - a whole model of a few kilobytes, for tests (header only)
 *
 * A llama of a few layers, two if nothing else is asked for, with all weights positive and small, and a vocabulary of single letters: it
 * says nothing sensible, but opens and answers. */
#ifndef HEARTH_TESTS_GGUF_TINY_H
#define HEARTH_TESTS_GGUF_TINY_H

#include "gguf_write.h"

#define TINY_EMBD  64
#define TINY_FF    96
#define TINY_VOCAB 40

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

static inline void tiny_keys(struct gguf_write *w, struct view template, uint32_t n_layer)
{
    gguf_write_string(w, "general.architecture", VIEW("llama"));
    gguf_write_u32(w, "llama.block_count", n_layer);
    gguf_write_u32(w, "llama.embedding_length", TINY_EMBD);
    gguf_write_u32(w, "llama.context_length", 1024);
    gguf_write_u32(w, "llama.feed_forward_length", TINY_FF);
    gguf_write_u32(w, "llama.attention.head_count", 4);
    gguf_write_u32(w, "llama.attention.head_count_kv", 2);
    gguf_write_string(w, "tokenizer.chat_template", template);
    gguf_write_string(w, "model", VIEW("llama"));
    gguf_write_u32(w, "unknown_token_id", 0);
    gguf_write_array(w, "tokens", GGUF_STRING, TINY_VOCAB);
    for (char i = 0; i < TINY_VOCAB; i++) {
        gguf_write_text(w, (struct view){ &(char){ (char)('A' + i) }, 1 });
    }
    gguf_write_array(w, "scores", GGUF_F32, TINY_VOCAB);
    for (int i = 0; i < TINY_VOCAB; i++) {
        buf_add(&w->out, &(float){ 0.0f }, sizeof(float));
    }
}

/* Returns the file's descriptor; the path leads to it. */
static inline int tiny_model_of(char path[64], struct view template, uint32_t n_layer)
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
    tiny_keys(&w, template, n_layer);
    tiny_tensor(&w, "token_embd.weight", TINY_EMBD, TINY_VOCAB, &at);
    tiny_tensor(&w, "output_norm.weight", TINY_EMBD, 0, &at);
    for (size_t i = 0; i < n_layer * sizeof of_layer / sizeof of_layer[0]; i++) {
        const size_t k = i / n_layer;
        char name[64];
        snprintf(name, sizeof name, "blk.%zu.%s.weight", i % n_layer, of_layer[k].name);
        tiny_tensor(&w, name, of_layer[k].n_col, of_layer[k].n_row, &at);
    }
    while (w.out.n % 32 != 0) {
        buf_add_char(&w.out, 0);
    }
    for (uint64_t i = 0; i < at / sizeof(float); i++) {
        buf_add(&w.out, &(float){ (float)(i * 2654435761u % 1021) / 4096.0f }, sizeof(float));
    }
    return gguf_write_end(&w, path);
}

#define TINY_TEMPLATE VIEW("{% for m in messages %}{{ m.content ~ '\\n' }}{% endfor %}")

static inline int tiny_model(char path[64])
{
    return tiny_model_of(path, TINY_TEMPLATE, 2);
}

static inline int tiny_model_with(char path[64], struct view template)
{
    return tiny_model_of(path, template, 2);
}

#endif
