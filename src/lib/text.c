/* text - what the public library does with text and tokens
 *
 * Tokenizing and rendering work for callers' threads, beside the engine's, and take what memory a
 * text needs: a fence bounds it, so that neither a hostile text nor a hostile template takes more
 * than the header says (HEARTH_TEXT_BYTES).
 *
 * Next: model/tok.c and model/chat.c. */
#include "base/js.h"
#include "base/os.h"
#include "lib/hearth_int.h"

#include <string.h>

#define JSON_DEPTH  64
#define DECODED_MAX ((size_t)16 << 20) /* bytes of a text out of tokens */

/* What all functions of this section need; without room, no place to write to. */
static bool is_text_missing(const struct hearth_model *m, const void *in, const void *out,
                            const size_t *n)
{
    return hearth_is_missing(m, "the model") ||
           hearth_is_missing(in, "the text, ids or JSON to be read") ||
           hearth_is_missing(n, "the place of the number, n,") ||
           hearth_is_missing(*n > 0 ? out : "", "the room for the result");
}

/* What a text takes while it is prepared depends on tables of the file; here it has an end. */
static void begin_text(size_t n_text)
{
    (void)mem_fence(n_text > SIZE_MAX / 128 ? SIZE_MAX : HEARTH_TEXT_BYTES(n_text));
}

static hearth_status end_text(enum err e, size_t n_text, bool is_chat)
{
    if (mem_fence(SIZE_MAX) && e != ERR_OK) {
        const size_t tenths = HEARTH_TEXT_BYTES(n_text) / 1024 * 10 / 1024; /* of a MiB */
        e = err_set(ERR_LIMIT,
                    "a %s of %zu bytes as %s takes more than %zu.%zu MiB while it is prepared, the "
                    "most that is allowed: shorten it%s",
                    is_chat ? "conversation" : "text", n_text, is_chat ? "JSON" : "UTF-8",
                    tenths / 10, tenths % 10,
                    is_chat ? ", or take a model whose chat template needs less" : "");
    }
    return (hearth_status)e;
}

hearth_status hearth_tokenize(const struct hearth_model *model, const char *text, size_t n_text,
                              int flags, int32_t *ids, size_t *n)
{
    if (is_text_missing(model, n_text > 0 ? text : "", ids, n)) {
        return HEARTH_USAGE;
    }
    const struct view v = { text, n_text };
    struct tok_list list = { .ids = ids, .cap = *n };
    /* a byte that is no UTF-8 becomes three */
    const size_t n_clean = n_text > SIZE_MAX / 3 || utf8_valid(v) ? n_text : 3 * n_text;
    begin_text(n_clean);
    const enum err e = tok_encode(model->tok, v, (flags & HEARTH_ADD_SPECIAL) != 0,
                                  (flags & HEARTH_PARSE_SPECIAL) != 0, &list);
    if (e == ERR_OK || (e == ERR_LIMIT && list.n > *n)) {
        *n = list.n;
    }
    return end_text(e, n_clean, false);
}

/* Copies a result out, or says how much room it needs. */
static enum err give_text(const struct buf *b, char *out, size_t *n)
{
    const size_t room = *n;
    *n = b->n;
    REQUIRE(b->n <= room, ERR_LIMIT, "the text has %zu bytes, there is room for %zu", b->n, room);
    if (b->n > 0) {
        memcpy(out, b->p, b->n);
    }
    return ERR_OK;
}

hearth_status hearth_detokenize(const struct hearth_model *model, const int32_t *ids, size_t n_ids,
                                int flags, char *out, size_t *n)
{
    struct buf b;
    if (is_text_missing(model, n_ids > 0 ? (const void *)ids : "", out, n)) {
        return HEARTH_USAGE;
    }
    buf_init(&b, DECODED_MAX);
    enum err e = tok_decode(model->tok, ids, n_ids, (flags & HEARTH_SHOW_SPECIAL) != 0, &b);
    e = e == ERR_OK ? buf_check(&b, "text") : e;
    e = e == ERR_OK ? give_text(&b, out, n) : e;
    buf_release(&b);
    return (hearth_status)e;
}

static struct view piece_or_none(const struct tok *t, int32_t id)
{
    return id >= 0 ? tok_piece(t, id) : (struct view){ NULL, 0 };
}

/* The keys of a conversation and their kinds; null is as good as absent. */
static enum err check_keys(const struct js *root)
{
    static const struct {
        const char *name;
        enum js_type type;
        const char *kind;
    } keys[] = { { "messages", JS_ARRAY, "a list" },
                 { "tools", JS_ARRAY, "a list" },
                 { "add_generation_prompt", JS_BOOL, "true or false" },
                 { "template_vars", JS_OBJECT, "an object" } };
    const size_t n_key = sizeof keys / sizeof keys[0];
    struct js_iter it = { 0 };
    REQUIRE(js_type(root) == JS_OBJECT, ERR_USAGE, "a conversation is an object with \"messages\"");
    while (js_next(root, &it)) {
        size_t i = 0;
        while (i < n_key && !view_is(it.key, keys[i].name)) {
            i++;
        }
        REQUIRE(i < n_key, ERR_USAGE,
                "\"%.*s\" is no key of a conversation: messages, tools, add_generation_prompt and "
                "template_vars are taken",
                it.key.n < 64 ? (int)it.key.n : 64, it.key.p);
        REQUIRE(js_type(it.value) == keys[i].type || js_type(it.value) == JS_NULL, ERR_USAGE,
                "%s: %s is wanted", keys[i].name, keys[i].kind);
    }
    const struct js *vars = js_get(root, "template_vars");
    REQUIRE(js_type(js_get(vars, "messages")) == JS_NULL &&
                js_type(js_get(vars, "tools")) == JS_NULL,
            ERR_USAGE, "template_vars: messages and tools are keys of their own");
    const struct js *messages = js_get(root, "messages");
    const size_t n = js_count(messages);
    REQUIRE(n > 0, ERR_USAGE, "messages: a list of at least one message is wanted");
    for (size_t i = 0; i < n; i++) {
        REQUIRE(js_type(js_at(messages, i)) == JS_OBJECT, ERR_USAGE,
                "messages[%zu]: an object is wanted", i);
    }
    return ERR_OK;
}

/* NULL for null. */
static const struct js *get(const struct js *root, const char *key)
{
    const struct js *v = js_get(root, key);
    return js_type(v) != JS_NULL ? v : NULL;
}

static enum err render(const struct hearth_model *m, const char *json, size_t n_json,
                       struct buf *text, struct buf *trusted)
{
    struct js *root = NULL;
    TRY(js_parse((struct view){ json, n_json }, JSON_DEPTH, &root));
    const struct js *add = get(root, "add_generation_prompt");
    const struct chat_input in = {
        .messages = get(root, "messages"),
        .tools = get(root, "tools"),
        .vars = get(root, "template_vars"),
        .add_generation_prompt = add == NULL || js_bool(add),
        .bos_token = piece_or_none(m->tok, tok_bos(m->tok)),
        .eos_token = piece_or_none(m->tok, tok_eos(m->tok)),
        .now_s = os_wall_s(),
    };
    enum err e = check_keys(root);
    e = e == ERR_OK ? chat_render(m->chat, &in, text, trusted) : e;
    js_close(root);
    return e;
}

hearth_status hearth_chat_text(const struct hearth_model *model, const char *json, size_t n_json,
                               char *out, size_t *n)
{
    struct buf text;
    if (is_text_missing(model, json, out, n)) {
        return HEARTH_USAGE;
    }
    buf_init(&text, CHAT_OUTPUT_MAX_BYTES);
    begin_text(n_json);
    enum err e = render(model, json, n_json, &text, NULL);
    e = e == ERR_OK ? give_text(&text, out, n) : e;
    buf_release(&text);
    return end_text(e, n_json, true);
}

/* Templates often begin with the token that the tokenizer would add too: it is never doubled, since
 * nothing is added to a rendered template; when the template did not write it, it is put in front.
 */
static enum err chat_tokens(const struct hearth_model *m, const struct buf *text,
                            const struct buf *trusted, struct tok_list *list)
{
    const enum err e = tok_encode_marked(m->tok, buf_view(text), (const uint8_t *)trusted->p, list);
    const int32_t bos = tok_bos(m->tok);
    if ((e != ERR_OK && e != ERR_LIMIT) || !tok_adds_bos(m->tok) || bos < 0) {
        return e;
    }
    if (list->n > 0 && list->cap > 0 && list->ids[0] == bos) {
        return e;
    }
    if (e == ERR_OK && list->n < list->cap) {
        memmove(list->ids + 1, list->ids, list->n * sizeof list->ids[0]);
        list->ids[0] = bos;
    }
    list->n++;
    return list->n <= list->cap
               ? e
               : err_set(ERR_LIMIT, "the conversation has %zu tokens, there is room for %zu",
                         list->n, list->cap);
}

hearth_status hearth_chat_tokens(const struct hearth_model *model, const char *json, size_t n_json,
                                 int32_t *ids, size_t *n)
{
    if (is_text_missing(model, json, ids, n)) {
        return HEARTH_USAGE;
    }
    struct buf text;
    struct buf trusted;
    buf_init(&text, CHAT_OUTPUT_MAX_BYTES);
    buf_init(&trusted, CHAT_OUTPUT_MAX_BYTES);
    struct tok_list list = { .ids = ids, .cap = *n };
    begin_text(n_json);
    enum err e = render(model, json, n_json, &text, &trusted);
    e = e == ERR_OK ? chat_tokens(model, &text, &trusted, &list) : e;
    if (e == ERR_OK || (e == ERR_LIMIT && list.n > *n)) {
        *n = list.n;
    }
    buf_release(&text);
    buf_release(&trusted);
    return end_text(e, n_json, true);
}
