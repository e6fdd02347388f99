/* params - the body of a request, checked and taken apart
 *
 * One table names every field of OpenAI's chat and text completions, the extensions that other
 * local servers have made common (top_k, min_p, repeat_penalty ...), and the fields of /tokenize
 * and /detokenize. A row says who knows the field, what type and range it has and where it goes, or
 * names the function that reads it.
 *
 * A field that is not in the table is refused by name (PM-1): a client that asks for something must
 * not be answered as if it had not. For the same reason a field that hearth cannot honour yet
 * (tools, a JSON schema, images) is refused unless its value asks for nothing. Fields that only
 * label a request (user, metadata ...) are accepted and change nothing.
 *
 * Messages are written out again for the template, with two changes: content given as a list of
 * text parts becomes one text, and the role "developer" becomes "system", which is what it means to
 * models that know only the older name.
 *
 * Next: serve/prep.c makes tokens of it. */
#include "serve/params.h"

#include "base/js.h"
#include "base/mem.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define BIT(k)   (1u << PARAMS_##k)
#define GENERATE (BIT(CHAT) | BIT(COMPLETION))
#define EVERY    (GENERATE | BIT(TOKENIZE) | BIT(DETOKENIZE))

/* What a reader gets. */
struct reader {
    struct params *p;
    struct refusal *why;
    const struct js *root;
    const char *name; /* of the field */
    const struct js *value;
};

static enum err wrong(struct reader *r, const char *wanted)
{
    return refusal_set(r->why, 400, "invalid_type", r->name, "%s: %s is wanted", r->name, wanted);
}

static enum err unsupported(struct reader *r, const char *what)
{
    return refusal_set(r->why, 400, "unsupported", r->name, "%s: %s", r->name, what);
}

/* --- fields with a reader of their own -------------------------------------------------------- */

static enum err read_model(struct reader *r)
{
    const struct view v = js_string(r->value);
    if (js_type(r->value) != JS_STRING || memchr(v.p, '\0', v.n) != NULL) {
        return wrong(r, "the name of a model");
    }
    if (v.n >= sizeof r->p->model) {
        return wrong(r, "a name of at most 255 bytes");
    }
    memcpy(r->p->model, v.p, v.n);
    r->p->model[v.n] = '\0';
    return ERR_OK;
}

static enum err read_stream_options(struct reader *r)
{
    if (js_type(r->value) != JS_OBJECT) {
        return wrong(r, "an object");
    }
    struct js_iter it = { 0 };
    while (js_next(r->value, &it)) {
        const bool is_flag = js_type(it.value) == JS_BOOL || js_type(it.value) == JS_NULL;
        if (view_is(it.key, "include_usage") && is_flag) {
            r->p->has_usage = js_bool(it.value);
        } else if (!view_is(it.key, "include_obfuscation") || !is_flag) {
            return refusal_set(r->why, 400, "unsupported", r->name,
                               "stream_options: only include_usage (true or false) is known");
        }
    }
    return ERR_OK;
}

static enum err add_stop(struct reader *r, const struct js *v)
{
    struct hearth_request_params *q = &r->p->request;
    const struct view text = js_string(v);
    if (js_type(v) != JS_STRING || text.n == 0 || memchr(text.p, '\0', text.n) != NULL) {
        return wrong(r, "a text, or a list of texts, none of them empty");
    }
    if (q->n_stop == HEARTH_STOP_MAX || text.n > HEARTH_STOP_BYTES) {
        return refusal_set(r->why, 400, "limit_reached", r->name,
                           "stop: at most %d texts of at most %d bytes are taken", HEARTH_STOP_MAX,
                           HEARTH_STOP_BYTES);
    }
    char *to = r->p->stop_text[q->n_stop];
    memcpy(to, text.p, text.n);
    to[text.n] = '\0';
    r->p->stop[q->n_stop++] = to;
    return ERR_OK;
}

/* The bounds are the engine's; below the first, scores are divided by next to nothing. */
static enum err read_temperature(struct reader *r)
{
    const double v = js_real(r->value);
    const bool is_number = js_type(r->value) == JS_INT || js_type(r->value) == JS_REAL;
    if (!is_number || !(v == 0.0 || (v >= 1e-6 && v <= 100.0))) {
        return wrong(r, "0 (the best token) or a number from 1e-6 to 100");
    }
    r->p->request.temperature = (float)v;
    return ERR_OK;
}

static enum err read_seed(struct reader *r)
{
    r->p->request.seed = (uint64_t)js_int(r->value);
    return js_type(r->value) == JS_INT ? ERR_OK : wrong(r, "a whole number");
}

static enum err read_ignore_eos(struct reader *r)
{
    r->p->request.ignore_eos = js_bool(r->value);
    return js_type(r->value) == JS_BOOL ? ERR_OK : wrong(r, "true or false");
}

static enum err read_stop(struct reader *r)
{
    if (js_type(r->value) != JS_ARRAY) {
        return add_stop(r, r->value);
    }
    for (size_t i = 0; i < js_count(r->value); i++) {
        TRY(add_stop(r, js_at(r->value, i)));
    }
    return ERR_OK;
}

static enum err read_bias(struct reader *r)
{
    struct hearth_request_params *q = &r->p->request;
    if (js_type(r->value) != JS_OBJECT) {
        return wrong(r, "an object from token ids to numbers");
    }
    if (js_count(r->value) > HEARTH_BIAS_MAX) {
        return refusal_set(r->why, 400, "limit_reached", r->name,
                           "logit_bias: %zu entries, at most %d are taken", js_count(r->value),
                           HEARTH_BIAS_MAX);
    }
    struct js_iter it = { 0 };
    while (js_next(r->value, &it)) {
        uint64_t id = 0;
        const double bias = js_real(it.value);
        const bool is_number = js_type(it.value) == JS_INT || js_type(it.value) == JS_REAL;
        if (!view_u64(it.key, &id) || id > INT32_MAX || !is_number || bias < -100 || bias > 100) {
            return wrong(r, "token ids with numbers from -100 to 100");
        }
        r->p->bias[q->n_bias++] = (struct hearth_bias){ (int32_t)id, (float)bias };
    }
    return ERR_OK;
}

/* Chat says true or false and names the alternatives apart; completions say a number. */
static enum err read_logprobs(struct reader *r)
{
    const bool is_chat = r->p->kind == PARAMS_CHAT;
    const int64_t n = js_int(r->value);
    if (is_chat && js_type(r->value) == JS_BOOL) {
        r->p->has_logprobs = js_bool(r->value);
        return ERR_OK;
    }
    if (is_chat || js_type(r->value) != JS_INT || n < 0 || n > HEARTH_LOGPROB_MAX) {
        return wrong(r, is_chat ? "true or false" : "a whole number from 0 to 20");
    }
    r->p->has_logprobs = true;
    r->p->request.n_logprob = (int32_t)n;
    return ERR_OK;
}

static enum err read_ids(struct reader *r, const struct js *list)
{
    const size_t n = js_count(list);
    struct params *p = r->p;
    p->ids = mem_alloc_array(n + 1, sizeof p->ids[0]);
    if (p->ids == NULL) {
        return refusal_set(r->why, 503, "out_of_memory", r->name, "no memory for %zu tokens", n);
    }
    for (; p->n_id < n; p->n_id++) {
        const struct js *v = js_at(list, p->n_id);
        const int64_t id = js_int(v);
        if (js_type(v) != JS_INT || id < 0 || id > INT32_MAX) {
            return wrong(r, "a list of token ids (whole numbers)");
        }
        p->ids[p->n_id] = (int32_t)id;
    }
    return ERR_OK;
}

static enum err read_text(struct reader *r, const struct js *v)
{
    if (js_type(v) != JS_STRING) {
        return wrong(r, "a text");
    }
    if (r->p->text.n > 0) {
        return refusal_set(r->why, 400, "invalid_value", r->name, "%s: the text is given twice",
                           r->name);
    }
    buf_add_view(&r->p->text, js_string(v));
    return ERR_OK;
}

/* A text, or token ids to be completed, or a list of one such. */
static enum err read_prompt(struct reader *r)
{
    const struct js *v = r->value;
    const enum js_type inner = js_type(js_at(v, 0));
    if (js_type(v) == JS_ARRAY && (inner == JS_STRING || inner == JS_ARRAY)) {
        if (js_count(v) > 1) {
            return unsupported(r, "several prompts in one request; send one request for each");
        }
        v = js_at(v, 0);
    }
    const bool may_be_ids = r->p->kind == PARAMS_COMPLETION;
    return js_type(v) == JS_ARRAY && may_be_ids ? read_ids(r, v) : read_text(r, v);
}

static enum err read_plain_text(struct reader *r)
{
    return read_text(r, r->value);
}

static enum err read_tokens(struct reader *r)
{
    return js_type(r->value) == JS_ARRAY ? read_ids(r, r->value) : wrong(r, "a list of token ids");
}

/* --- messages --------------------------------------------------------------------------------- */

/* Keys of a message. What no template looks at may be there as null: clients send answers back as
 * they came. */
static const struct {
    const char *name;
    bool is_used;
} message_keys[] = {
    { "role", true },           { "content", true },      { "name", true },
    { "tool_calls", true },     { "tool_call_id", true }, { "reasoning_content", true },
    { "refusal", false },       { "annotations", false }, { "audio", false },
    { "function_call", false },
};

static enum err refuse_key(struct reader *r, const char *where, struct view key, const char *code)
{
    char name[100];
    snprintf(name, sizeof name, "%s.%.*s", where, (int)(key.n < 40 ? key.n : 40), key.p);
    return refusal_set(r->why, 400, code, name, "field \"%s\" is not known here; take it out",
                       name);
}

static enum err check_message_key(struct reader *r, size_t i_message, const struct js_iter *it)
{
    char where[32];
    snprintf(where, sizeof where, "messages[%zu]", i_message);
    for (size_t k = 0; k < sizeof message_keys / sizeof message_keys[0]; k++) {
        if (view_is(it->key, message_keys[k].name)) {
            return message_keys[k].is_used || js_type(it->value) == JS_NULL
                       ? ERR_OK
                       : refuse_key(r, where, it->key, "unsupported");
        }
    }
    return refuse_key(r, where, it->key, "unknown_field");
}

/* A part has nothing beside its type and text. */
static enum err check_part(struct reader *r, const struct js *part, size_t i_message, size_t i)
{
    char where[64];
    struct js_iter it = { 0 };
    snprintf(where, sizeof where, "messages[%zu].content[%zu]", i_message, i);
    while (js_next(part, &it)) {
        if (!view_is(it.key, "type") && !view_is(it.key, "text")) {
            return refuse_key(r, where, it.key, "unknown_field");
        }
    }
    return ERR_OK;
}

/* A list of {"type": "text", "text": ...} as one text. */
static enum err put_parts(struct reader *r, const struct js *parts, size_t i_message)
{
    struct buf all;
    buf_init(&all, PARAMS_TEXT_MAX);
    for (size_t i = 0; i < js_count(parts); i++) {
        const struct js *part = js_at(parts, i);
        const struct view type = js_string(js_get(part, "type"));
        const struct js *text = js_get(part, "text");
        if (!view_is(type, "text") || js_type(text) != JS_STRING) {
            buf_release(&all);
            return refusal_set(r->why, 400, "unsupported", "messages",
                               "messages[%zu].content[%zu]: type \"%.*s\" is not supported, only "
                               "\"text\"",
                               i_message, i, (int)(type.n < 40 ? type.n : 40),
                               type.n > 0 ? type.p : "");
        }
        if (check_part(r, part, i_message, i) != ERR_OK) {
            buf_release(&all);
            return ERR_USAGE;
        }
        buf_add_view(&all, js_string(text));
    }
    js_put_string(&r->p->text, buf_view(&all), false);
    r->p->text.is_full = r->p->text.is_full || all.is_full;
    buf_release(&all);
    return ERR_OK;
}

static enum err put_content(struct reader *r, const struct js *m, size_t i)
{
    const struct js *content = js_get(m, "content");
    const bool may_lack = js_get(m, "tool_calls") != NULL;
    if (js_type(content) == JS_ARRAY) {
        return put_parts(r, content, i);
    }
    if (js_type(content) != JS_STRING && !(js_type(content) == JS_NULL && may_lack)) {
        return refusal_set(r->why, 400, "invalid_type", "messages",
                           "messages[%zu].content: a text is wanted", i);
    }
    js_put_value(&r->p->text, content);
    return ERR_OK;
}

static enum err put_message(struct reader *r, const struct js *m, size_t i)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool", "developer" };
    struct view role = js_string(js_get(m, "role"));
    struct buf *out = &r->p->text;
    bool is_known = false;
    for (size_t k = 0; k < sizeof roles / sizeof roles[0]; k++) {
        is_known = is_known || view_is(role, roles[k]);
    }
    if (!is_known) {
        return refusal_set(r->why, 400, "invalid_value", "messages",
                           "messages[%zu].role: \"%.*s\" is none of system, developer, user, "
                           "assistant, tool",
                           i, (int)(role.n < 40 ? role.n : 40), role.n > 0 ? role.p : "");
    }
    role = view_is(role, "developer") ? VIEW("system") : role;
    buf_add_str(out, i > 0 ? ", {\"role\": " : "{\"role\": ");
    js_put_string(out, role, false);
    buf_add_str(out, ", \"content\": ");
    TRY(put_content(r, m, i));
    struct js_iter it = { 0 };
    while (js_next(m, &it)) {
        TRY(check_message_key(r, i, &it));
        if (!view_is(it.key, "role") && !view_is(it.key, "content") &&
            js_type(it.value) != JS_NULL) {
            buf_add_str(out, ", ");
            js_put_string(out, it.key, false);
            buf_add_str(out, ": ");
            js_put_value(out, it.value);
        }
    }
    buf_add_char(out, '}');
    return ERR_OK;
}

static enum err read_messages(struct reader *r)
{
    const size_t n = js_count(r->value);
    if (js_type(r->value) != JS_ARRAY || n == 0) {
        return wrong(r, "a list of at least one message");
    }
    if (n > PARAMS_MESSAGES_MAX) {
        return refusal_set(r->why, 400, "limit_reached", r->name,
                           "messages: %zu messages, at most %d are taken", n, PARAMS_MESSAGES_MAX);
    }
    buf_add_str(&r->p->text, "{\"messages\": [");
    for (size_t i = 0; i < n; i++) {
        if (js_type(js_at(r->value, i)) != JS_OBJECT) {
            return wrong(r, "a list of objects");
        }
        TRY(put_message(r, js_at(r->value, i), i));
    }
    buf_add_char(&r->p->text, ']');
    return ERR_OK; /* params_read closes the object */
}

static enum err read_vars(struct reader *r)
{
    return js_type(r->value) == JS_OBJECT ? ERR_OK : wrong(r, "an object");
}

/* --- fields that are accepted only while they ask for nothing --------------------------------- */

static enum err read_format(struct reader *r)
{
    const struct view type = js_string(js_get(r->value, "type"));
    return view_is(type, "text")
               ? ERR_OK
               : unsupported(r, "only {\"type\": \"text\"} is supported: answers cannot be held to "
                                "a schema yet");
}

static enum err read_tools(struct reader *r)
{
    const struct js *choice = js_get(r->root, "tool_choice");
    if (js_type(r->value) != JS_ARRAY) {
        return wrong(r, "a list");
    }
    return js_count(r->value) == 0 || view_is(js_string(choice), "none")
               ? ERR_OK
               : unsupported(r, "tool calls are not supported yet");
}

static enum err read_tool_choice(struct reader *r)
{
    const struct view v = js_string(r->value);
    return view_is(v, "none") || view_is(v, "auto") ? ERR_OK
                                                    : unsupported(r, "tool calls are not "
                                                                     "supported yet");
}

static enum err read_modalities(struct reader *r)
{
    const bool is_text = js_count(r->value) == 1 && view_is(js_string(js_at(r->value, 0)), "text");
    return is_text ? ERR_OK : unsupported(r, "only [\"text\"] is supported");
}

static enum err read_neutral(struct reader *r)
{
    const struct js *v = r->value;
    const bool is_neutral = (js_type(v) == JS_BOOL && !js_bool(v)) ||
                            (js_type(v) == JS_STRING && js_string(v).n == 0) ||
                            (js_type(v) == JS_INT && js_int(v) == 1);
    return is_neutral ? ERR_OK : unsupported(r, "this is not supported");
}

static enum err read_label(struct reader *r)
{
    (void)r; /* only labels the request */
    return ERR_OK;
}

/* --- the table -------------------------------------------------------------------------------- */

enum kind { KIND_READ, KIND_INT, KIND_REAL, KIND_FLAG };

static const struct field {
    const char *name;
    unsigned kinds; /* of bodies that may have it */
    enum kind kind;
    enum err (*read)(struct reader *r); /* KIND_READ */
    size_t at;                          /* int32_t, float or bool in struct params */
    double min, max;
} fields[] = {
#define R(name, kinds, fn) { name, kinds, KIND_READ, fn, 0, 0, 0 }
#define I(name, kinds, field, min, max)                                                            \
    { name, kinds, KIND_INT, NULL, offsetof(struct params, request.field), min, max }
#define F(name, kinds, field, min, max)                                                            \
    { name, kinds, KIND_REAL, NULL, offsetof(struct params, request.field), min, max }
#define B(name, kinds, field) { name, kinds, KIND_FLAG, NULL, offsetof(struct params, field), 0, 0 }
    R("model", EVERY, read_model),
    R("messages", BIT(CHAT), read_messages),
    R("prompt", BIT(COMPLETION) | BIT(TOKENIZE), read_prompt),
    B("stream", GENERATE, is_stream),
    R("stream_options", GENERATE, read_stream_options),
    I("max_tokens", GENERATE, max_tokens, 1, 1 << 24),
    I("max_completion_tokens", BIT(CHAT), max_tokens, 1, 1 << 24),
    I("n", GENERATE, n_choice, 1, HEARTH_CHOICE_MAX),
    R("temperature", GENERATE, read_temperature),
    F("top_p", GENERATE, top_p, 1e-6, 1),
    I("top_k", GENERATE, top_k, 0, 1 << 24),
    F("min_p", GENERATE, min_p, 0, 1),
    F("typical_p", GENERATE, typical_p, 1e-6, 1),
    F("repeat_penalty", GENERATE, repeat_penalty, 0.01, 10),
    F("repetition_penalty", GENERATE, repeat_penalty, 0.01, 10),
    I("repeat_last_n", GENERATE, repeat_last_n, -1, 1 << 24),
    F("presence_penalty", GENERATE, presence_penalty, -2, 2),
    F("frequency_penalty", GENERATE, frequency_penalty, -2, 2),
    R("stop", GENERATE, read_stop),
    R("logit_bias", GENERATE, read_bias),
    R("logprobs", GENERATE, read_logprobs),
    I("top_logprobs", BIT(CHAT), n_logprob, 0, HEARTH_LOGPROB_MAX),
    R("seed", GENERATE, read_seed),
    R("ignore_eos", GENERATE, read_ignore_eos),
    R("template_vars", BIT(CHAT), read_vars),
    R("chat_template_kwargs", BIT(CHAT), read_vars),
    R("response_format", BIT(CHAT), read_format),
    R("tools", BIT(CHAT), read_tools),
    R("tool_choice", BIT(CHAT), read_tool_choice),
    R("modalities", BIT(CHAT), read_modalities),
    R("functions", BIT(CHAT), read_tools),
    R("function_call", BIT(CHAT), read_tool_choice),
    R("audio", BIT(CHAT), read_neutral),
    R("prediction", BIT(CHAT), read_neutral),
    R("web_search_options", BIT(CHAT), read_neutral),
    R("reasoning_effort", BIT(CHAT), read_neutral),
    R("verbosity", BIT(CHAT), read_neutral),
    R("echo", BIT(COMPLETION), read_neutral),
    R("suffix", BIT(COMPLETION), read_neutral),
    R("best_of", BIT(COMPLETION), read_neutral),
    R("user", GENERATE, read_label),
    R("metadata", BIT(CHAT), read_label),
    R("store", BIT(CHAT), read_neutral),
    R("service_tier", BIT(CHAT), read_label),
    R("safety_identifier", BIT(CHAT), read_label),
    R("prompt_cache_key", BIT(CHAT), read_label),
    R("prompt_cache_retention", BIT(CHAT), read_label),
    R("parallel_tool_calls", BIT(CHAT), read_label), /* without tools it has no meaning */
    R("content", BIT(TOKENIZE), read_plain_text),
    R("text", BIT(TOKENIZE), read_plain_text),
    B("add_special", BIT(COMPLETION) | BIT(TOKENIZE), adds_special),
    B("add_special_tokens", BIT(COMPLETION) | BIT(TOKENIZE), adds_special),
    B("parse_special", BIT(COMPLETION) | BIT(TOKENIZE), parses_special),
    R("tokens", BIT(DETOKENIZE), read_tokens),
#undef R
#undef I
#undef F
#undef B
};
#define N_FIELD (sizeof fields / sizeof fields[0])

static enum err read_field(struct reader *r, const struct field *f)
{
    char *at = (char *)r->p + f->at;
    const enum js_type type = js_type(r->value);
    char wanted[96];
    if (f->kind == KIND_READ) {
        return f->read(r);
    }
    if (f->kind == KIND_FLAG) {
        const bool yes = js_bool(r->value);
        memcpy(at, &yes, sizeof yes);
        return type == JS_BOOL ? ERR_OK : wrong(r, "true or false");
    }
    const double v = js_real(r->value);
    const bool is_number = type == JS_INT || (type == JS_REAL && f->kind == KIND_REAL);
    if (!is_number || !(v >= f->min && v <= f->max)) {
        snprintf(wanted, sizeof wanted, "a %s from %g to %g",
                 f->kind == KIND_INT ? "whole number" : "number", f->min, f->max);
        return wrong(r, wanted);
    }
    const int32_t whole = (int32_t)v;
    const float real = (float)v;
    memcpy(at, f->kind == KIND_INT ? (const void *)&whole : (const void *)&real, 4);
    return ERR_OK;
}

static const struct field *find_field(struct view name, enum params_kind kind)
{
    for (size_t i = 0; i < N_FIELD; i++) {
        if (view_is(name, fields[i].name) && (fields[i].kinds & 1u << kind) != 0) {
            return &fields[i];
        }
    }
    return NULL;
}

static enum err read_fields(struct reader *r)
{
    struct js_iter it = { 0 };
    while (js_next(r->root, &it)) {
        const struct field *f = find_field(it.key, r->p->kind);
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)(it.key.n < 60 ? it.key.n : 60), it.key.p);
        if (f == NULL) {
            return refusal_set(r->why, 400, "unknown_field", name,
                               "field \"%s\" is not known here; take it out", name);
        }
        r->name = f->name;
        r->value = it.value;
        if (js_type(it.value) != JS_NULL) {
            TRY(read_field(r, f));
        }
    }
    return ERR_OK;
}

/* What the fields mean together. */
static enum err check_together(struct reader *r)
{
    struct params *p = r->p;
    static const char *const needed[] = { "messages", "prompt", "content", "tokens" };
    const bool has_text = p->text.n > 0 || js_type(js_get(r->root, "prompt")) == JS_STRING ||
                          js_type(js_get(r->root, "content")) == JS_STRING ||
                          js_type(js_get(r->root, "text")) == JS_STRING;
    if ((has_text || js_type(js_at(js_get(r->root, "prompt"), 0)) == JS_STRING) ==
        (p->ids != NULL)) {
        return refusal_set(r->why, 400, "missing_field", needed[p->kind], "%s is missing",
                           needed[p->kind]);
    }
    if (p->kind == PARAMS_CHAT) {
        const struct js *vars = js_get(r->root, "template_vars");
        vars = js_type(vars) == JS_OBJECT ? vars : js_get(r->root, "chat_template_kwargs");
        if (js_type(vars) == JS_OBJECT) {
            buf_add_str(&p->text, ", \"template_vars\": ");
            js_put_value(&p->text, vars);
        }
        buf_add_char(&p->text, '}');
        if (p->request.n_logprob >= 0 && !p->has_logprobs) {
            return refusal_set(r->why, 400, "invalid_value", "top_logprobs",
                               "top_logprobs needs logprobs: true");
        }
        p->request.n_logprob += p->has_logprobs && p->request.n_logprob < 0;
    }
    if (p->text.is_full) {
        return refusal_set(r->why, 400, "limit_reached", needed[p->kind], "%s: more than %zu bytes",
                           needed[p->kind], p->text.max);
    }
    return ERR_OK;
}

/* What a body's tree takes at most, without its texts: a few bytes of text can be a hundred bytes
 * in memory. An upper bound for jansson 2.14 on 64 bits: an empty object 320, an array 192, a value
 * 64, a text or key 128. 0 for what js_parse refuses as too deep. */
static size_t tree_bytes(struct view body)
{
    size_t n = 0;
    size_t depth = 0;
    bool is_string = false;
    for (size_t i = 0; i < body.n && depth <= PARAMS_DEPTH_MAX; i++) {
        const char c = body.p[i];
        if (is_string) {
            i += c == '\\';
            is_string = c != '"';
            continue;
        }
        is_string = c == '"';
        depth += c == '{' || c == '[';
        depth -= (c == '}' || c == ']') && depth > 0;
        n += c == '{' ? 320 : c == '[' ? 192 : c == ',' ? 64 : c == '"' ? 128 : 0;
    }
    return depth <= PARAMS_DEPTH_MAX ? n : 0;
}

static enum err read_body(struct reader *r, struct view body)
{
    if (tree_bytes(body) > PARAMS_TREE_MAX) {
        return refusal_set(r->why, 400, "limit_reached", NULL,
                           "the body has too many values: they would take more than %zu MiB",
                           PARAMS_TREE_MAX >> 20);
    }
    struct js *root = NULL;
    if (js_parse(body, PARAMS_DEPTH_MAX, &root) != ERR_OK) {
        char line[ERR_TEXT_MAX];
        snprintf(line, sizeof line, "%s", err_text());
        return refusal_set(r->why, 400, "invalid_json", NULL, "the body is no JSON object: %s",
                           line);
    }
    r->root = root;
    enum err e = js_type(root) == JS_OBJECT
                     ? read_fields(r)
                     : refusal_set(r->why, 400, "invalid_json", NULL, "the body is no JSON object");
    e = e == ERR_OK ? check_together(r) : e;
    js_close(root);
    return e;
}

enum err params_read(struct params *p, enum params_kind kind, struct view body, struct refusal *why)
{
    struct reader r = { .p = p, .why = why };
    *p = (struct params){ .kind = kind, .adds_special = true };
    hearth_request_init(&p->request);
    buf_init(&p->text, PARAMS_TEXT_MAX);
    const enum err e = read_body(&r, body);
    p->request.bias = p->bias;
    p->request.stop = p->stop;
    if (e != ERR_OK) {
        params_release(p);
    }
    return e;
}

void params_release(struct params *p)
{
    buf_release(&p->text);
    mem_free(p->ids);
    p->ids = NULL;
    p->n_id = 0;
}
