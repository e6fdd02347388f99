/* probe_tokens - the `tokenize` and `detokenize` probes
 *
 * Tests compare the tokenizer with other programs through them: cases come in line by line as JSON,
 * answers go out line by line with the case's id, as tests/fixtures/PROBE.md has it. A case that
 * cannot be done is answered with "error", and the next one is read: one bad case of ten thousand
 * must not hide the others.
 *
 * Bytes that need not be UTF-8 travel as base64: a text to tokenize may, what tokens stand for
 * always does. Ids that are no int32_t become -1, which the tokenizer refuses.
 *
 * The vocabulary alone is loaded, not the weights: a vocabulary file without tensors will do.
 *
 * Next: model/tok.c. */
#include "cmd/probe_tokens.h"

#include "base/js.h"
#include "base/lines.h"
#include "base/mem.h"
#include "model/gguf.h"
#include "model/tok.h"

#include <stdio.h>
#include <string.h>

#define LINE_MAX_BYTES ((size_t)64 << 20)

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void put_base64(struct buf *out, struct view v)
{
    const uint8_t *p = (const uint8_t *)v.p;
    for (size_t i = 0; i < v.n; i += 3) {
        const size_t n = v.n - i < 3 ? v.n - i : 3;
        const uint32_t w =
            (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0u);
        for (size_t k = 0; k < 4; k++) {
            buf_add_char(out, k <= n ? alphabet[w >> (18 - 6 * k) & 63] : '=');
        }
    }
}

static enum err take_base64(struct view v, struct buf *out)
{
    uint32_t w = 0;
    int bits = 0;
    for (size_t i = 0; i < v.n && v.p[i] != '='; i++) {
        const char *at = v.p[i] != '\0' ? strchr(alphabet, v.p[i]) : NULL;
        REQUIRE(at != NULL, ERR_USAGE, "b64: byte %zu is not base64", i);
        w = w << 6 | (uint32_t)(at - alphabet);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            buf_add_char(out, (char)(w >> bits & 255));
        }
    }
    return buf_check(out, "b64");
}

/* The ids of a text in memory of their own; mostly a text has fewer tokens than bytes, but a
 * normalization may make it longer. */
static enum err encode(const struct tok *t, const struct js *c, struct view text,
                       struct tok_list *list)
{
    const struct js *add = js_get(c, "add_special");
    enum err e = ERR_LIMIT;
    list->cap = text.n + 16;
    for (int i = 0; i < 2 && e == ERR_LIMIT; i++) {
        list->cap = list->n > list->cap ? list->n : list->cap;
        list->n = 0;
        mem_free(list->ids);
        list->ids = mem_alloc_array(list->cap, sizeof list->ids[0]);
        REQUIRE(list->ids != NULL, ERR_MEMORY, "no memory for %zu tokens", list->cap);
        e = tok_encode(t, text, add == NULL || js_bool(add), js_bool(js_get(c, "parse_special")),
                       list);
    }
    return e;
}

static enum err tokenize(const struct tok *t, const struct js *c, struct buf *line)
{
    struct buf bytes;
    buf_init(&bytes, LINE_MAX_BYTES);
    const struct js *plain = js_get(c, "text");
    const struct js *coded = js_get(c, "b64");
    REQUIRE(js_type(coded != NULL ? coded : plain) == JS_STRING, ERR_USAGE,
            "\"text\" or \"b64\" is wanted, a string");
    struct view text = js_string(plain);
    enum err e = ERR_OK;
    if (coded != NULL) {
        e = take_base64(js_string(coded), &bytes);
        text = buf_view(&bytes);
    }
    struct tok_list list = { 0 };
    e = e == ERR_OK ? encode(t, c, text, &list) : e;
    if (e == ERR_OK) {
        buf_add_str(line, ", \"tokens\": [");
        for (size_t i = 0; i < list.n; i++) {
            buf_printf(line, "%s%d", i > 0 ? ", " : "", list.ids[i]);
        }
        buf_add_char(line, ']');
    }
    mem_free(list.ids);
    buf_release(&bytes);
    return e;
}

static enum err detokenize(const struct tok *t, const struct js *c, struct buf *line)
{
    const struct js *tokens = js_get(c, "tokens");
    REQUIRE(js_type(tokens) == JS_ARRAY, ERR_USAGE, "\"tokens\" is wanted, a list of ids");
    const size_t n = js_count(tokens);
    int32_t *ids = mem_alloc_array(n + 1, sizeof ids[0]);
    struct buf bytes;
    buf_init(&bytes, LINE_MAX_BYTES);
    enum err e = ids != NULL ? ERR_OK : err_set(ERR_MEMORY, "no memory for %zu tokens", n);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        const int64_t id = js_type(js_at(tokens, i)) == JS_INT ? js_int(js_at(tokens, i)) : -1;
        ids[i] = id >= 0 && id < INT32_MAX ? (int32_t)id : -1;
    }
    e = e == ERR_OK ? tok_decode(t, ids, n, js_bool(js_get(c, "special")), &bytes) : e;
    if (e == ERR_OK) {
        buf_add_str(line, ", \"b64\": \"");
        put_base64(line, buf_view(&bytes));
        buf_add_char(line, '"');
    }
    mem_free(ids);
    buf_release(&bytes);
    return e;
}

static void answer(const struct tok *t, struct view text, bool is_back, struct buf *line)
{
    struct js *c = NULL;
    buf_reset(line);
    enum err e = js_parse(text, 16, &c);
    buf_add_str(line, "{\"id\": ");
    js_put_value(line, js_get(c, "id"));
    e = e != ERR_OK ? e : is_back ? detokenize(t, c, line) : tokenize(t, c, line);
    if (e != ERR_OK) {
        buf_add_str(line, ", \"error\": ");
        js_put_string(line, view_of(err_text()), false);
    }
    buf_add_str(line, "}\n");
    js_close(c);
}

static enum err probe(const char *model_path, bool is_back)
{
    struct gguf *g = NULL;
    struct tok *t = NULL;
    enum err e = gguf_open(&g, model_path);
    e = e == ERR_OK ? tok_open(&t, g) : e;
    if (e == ERR_OK) {
        struct lines in;
        struct buf line;
        struct view text;
        bool has_line = false;
        lines_init(&in, 0, LINE_MAX_BYTES);
        buf_init(&line, LINE_MAX_BYTES * 4);
        while ((e = lines_next(&in, &text, &has_line)) == ERR_OK && has_line) {
            answer(t, text, is_back, &line);
            fwrite(line.p, 1, line.n, stdout);
            fflush(stdout);
        }
        lines_release(&in);
        buf_release(&line);
    }
    tok_close(t);
    gguf_close(g);
    return e;
}

enum err probe_tokenize(const char *model_path)
{
    return probe(model_path, false);
}

enum err probe_detokenize(const char *model_path)
{
    return probe(model_path, true);
}
