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
 * Next: serve/messages.c reads the messages of a chat, serve/prep.c makes tokens of all. */
#include "serve/params.h"

#include "base/js.h"
#include "base/mem.h"
#include "serve/messages.h"

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
    size_t n_body;    /* bytes */
    const char *name; /* of the field */
    const struct js *value;
};

static enum err wrong_type(struct reader *r, const char *wanted)
{
    return refusal_mismatch(r->why, "invalid_type", r->name, r->value, wanted);
}

static enum err wrong_value(struct reader *r, const char *wanted)
{
    return refusal_mismatch(r->why, "invalid_value", r->name, r->value, wanted);
}

static enum err want_type(struct reader *r, enum js_type type)
{
    return js_type(r->value) == type ? ERR_OK : wrong_type(r, refusal_type(type));
}

static bool is_number(const struct js *v)
{
    return js_type(v) == JS_INT || js_type(v) == JS_REAL;
}

static bool is_null(const struct js *v)
{
    return js_type(v) == JS_NULL;
}

/* A whole number, or a real that is one and exact: some clients write 5 as 5.0. */
static bool is_whole(const struct js *v, int64_t *out)
{
    const double real = js_real(v);
    const double exact_max = 9007199254740992.0; /* 2^53 */
    if (js_type(v) == JS_INT) {
        *out = js_int(v);
        return true;
    }
    if (js_type(v) != JS_REAL || !(real > -exact_max && real < exact_max)) {
        return false;
    }
    *out = (int64_t)real;
    return (double)*out == real;
}

/* The same about an element or a member: its place is written behind the field's name. */
static enum err mismatch_at(struct reader *r, const char *code, const char *place,
                            const struct js *v, const char *wanted)
{
    char where[100];
    snprintf(where, sizeof where, "%s%s", r->name, place);
    (void)refusal_mismatch(r->why, code, where, v, wanted);
    snprintf(r->why->param, sizeof r->why->param, "%s", r->name);
    return ERR_USAGE;
}

static enum err wrong_element(struct reader *r, size_t i, const struct js *v, const char *wanted)
{
    char place[32];
    snprintf(place, sizeof place, "[%zu]", i);
    return mismatch_at(r, "invalid_type", place, v, wanted);
}

static enum err unsupported(struct reader *r, const char *what)
{
    return refusal_set(r->why, 400, "unsupported", r->name, "%s: %s", r->name, what);
}

static enum err twice(struct reader *r, const char *one, const char *other)
{
    return refusal_set(r->why, 400, "invalid_value", r->name,
                       "%s and %s mean the same: only one of them is taken", one, other);
}

/* --- fields with a reader of their own -------------------------------------------------------- */

static enum err read_model(struct reader *r)
{
    const struct view v = js_string(r->value);
    TRY(want_type(r, JS_STRING));
    if (v.n >= sizeof r->p->model || (v.n > 0 && memchr(v.p, '\0', v.n) != NULL)) {
        return wrong_value(r, "a name of at most 255 bytes, none of them zero,");
    }
    memcpy(r->p->model, v.p, v.n);
    r->p->model[v.n] = '\0';
    return ERR_OK;
}

static enum err read_stream_options(struct reader *r)
{
    TRY(want_type(r, JS_OBJECT));
    struct js_iter it = { 0 };
    while (js_next(r->value, &it)) {
        char place[64];
        snprintf(place, sizeof place, ".%.*s", (int)(it.key.n < 40 ? it.key.n : 40), it.key.p);
        if (is_null(it.value)) {
            continue;
        }
        if (!view_is(it.key, "include_usage") && !view_is(it.key, "include_obfuscation")) {
            return refusal_set(r->why, 400, "unknown_field", r->name,
                               "field \"%s%s\" is not known here; take it out", r->name, place);
        }
        if (js_type(it.value) != JS_BOOL) {
            return mismatch_at(r, "invalid_type", place, it.value, refusal_type(JS_BOOL));
        }
        if (view_is(it.key, "include_usage")) {
            r->p->has_usage = js_bool(it.value);
        }
    }
    return ERR_OK;
}

/* The bounds are the engine's; below the first, scores are divided by next to nothing. */
static enum err read_temperature(struct reader *r)
{
    const double v = js_real(r->value);
    if (!is_number(r->value)) {
        return wrong_type(r, refusal_type(JS_REAL));
    }
    if (!(v == 0.0 || (v >= 1e-6 && v <= 100.0))) {
        return wrong_value(r, "0 (the best token) or a number from 1e-6 to 100");
    }
    r->p->request.temperature = (float)v;
    return ERR_OK;
}

static enum err read_seed(struct reader *r)
{
    int64_t seed = 0;
    if (!is_whole(r->value, &seed)) {
        return wrong_type(r, "a whole number from -2^63 to 2^63 - 1, beyond 2^53 without point or "
                             "exponent");
    }
    r->p->request.seed = (uint64_t)seed;
    return ERR_OK;
}

static enum err read_ignore_eos(struct reader *r)
{
    r->p->request.ignore_eos = js_bool(r->value);
    return want_type(r, JS_BOOL);
}

static enum err add_stop(struct reader *r, const char *place, const struct js *v)
{
    struct hearth_request_params *q = &r->p->request;
    const struct view text = js_string(v);
    if (js_type(v) != JS_STRING) {
        return mismatch_at(r, "invalid_type", place, v,
                           place[0] != '\0' ? refusal_type(JS_STRING)
                                            : "a text or a list of texts");
    }
    if (text.n == 0 || memchr(text.p, '\0', text.n) != NULL) {
        return mismatch_at(r, "invalid_value", place, v,
                           "a text that is not empty and has no zero character");
    }
    if (text.n > HEARTH_STOP_BYTES) {
        return refusal_set(r->why, 400, "limit_reached", r->name,
                           "stop%s: a text of %zu bytes, at most %d are taken", place, text.n,
                           HEARTH_STOP_BYTES);
    }
    char *to = r->p->stop_text[q->n_stop];
    memcpy(to, text.p, text.n);
    to[text.n] = '\0';
    r->p->stop[q->n_stop++] = to;
    return ERR_OK;
}

static enum err read_stop(struct reader *r)
{
    const size_t n = js_count(r->value);
    if (js_type(r->value) != JS_ARRAY) {
        return add_stop(r, "", r->value);
    }
    if (n > HEARTH_STOP_MAX) {
        return refusal_set(r->why, 400, "limit_reached", r->name,
                           "stop: %zu texts, at most %d are taken", n, HEARTH_STOP_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        char place[32];
        snprintf(place, sizeof place, "[%zu]", i);
        TRY(add_stop(r, place, js_at(r->value, i)));
    }
    return ERR_OK;
}

static enum err read_bias(struct reader *r)
{
    struct hearth_request_params *q = &r->p->request;
    TRY(want_type(r, JS_OBJECT));
    if (js_count(r->value) > HEARTH_BIAS_MAX) {
        return refusal_set(r->why, 400, "limit_reached", r->name,
                           "logit_bias: %zu entries, at most %d are taken", js_count(r->value),
                           HEARTH_BIAS_MAX);
    }
    struct js_iter it = { 0 };
    while (js_next(r->value, &it)) {
        uint64_t id = 0;
        char place[64];
        const double bias = js_real(it.value);
        const int n_shown = (int)(it.key.n < 40 ? it.key.n : 40);
        if (is_null(it.value)) {
            continue;
        }
        const bool has_one_form = it.key.n <= 1 || it.key.p[0] != '0'; /* no token is named twice */
        if (!view_u64(it.key, &id) || id > INT32_MAX || !has_one_form) {
            return refusal_set(r->why, 400, "invalid_value", r->name,
                               "logit_bias: token ids (whole numbers as texts, without a zero "
                               "before them) are wanted as keys, found \"%.*s\"",
                               n_shown, it.key.p);
        }
        snprintf(place, sizeof place, "[\"%.*s\"]", n_shown, it.key.p);
        if (!is_number(it.value)) {
            return mismatch_at(r, "invalid_type", place, it.value, refusal_type(JS_REAL));
        }
        if (!(bias >= -100 && bias <= 100)) {
            return mismatch_at(r, "invalid_value", place, it.value, "a number from -100 to 100");
        }
        r->p->bias[q->n_bias++] = (struct hearth_bias){ (int32_t)id, (float)bias };
    }
    return ERR_OK;
}

/* Chat says true or false and names the alternatives apart; completions say a number. */
static enum err read_logprobs(struct reader *r)
{
    int64_t n = 0;
    if (r->p->kind == PARAMS_CHAT) {
        r->p->has_logprobs = js_bool(r->value);
        return want_type(r, JS_BOOL);
    }
    if (!is_whole(r->value, &n)) {
        return wrong_type(r, refusal_type(JS_INT));
    }
    if (n < 0 || n > HEARTH_LOGPROB_MAX) {
        return wrong_value(r, "a whole number from 0 to 20");
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
        int64_t id = 0;
        if (!is_whole(v, &id) || id < 0 || id > INT32_MAX) {
            return wrong_element(r, p->n_id, v, "a token id (a whole number)");
        }
        p->ids[p->n_id] = (int32_t)id;
    }
    return ERR_OK;
}

static enum err read_text(struct reader *r, const struct js *v)
{
    if (js_type(v) != JS_STRING) {
        return refusal_mismatch(r->why, "invalid_type", r->name, v,
                                r->p->kind == PARAMS_COMPLETION ? "a text or a list of token ids"
                                                                : "a text");
    }
    if (r->p->has_text) {
        return refusal_set(r->why, 400, "invalid_value", r->name, "%s: the text is given twice",
                           r->name);
    }
    r->p->has_text = true;
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
    TRY(want_type(r, JS_ARRAY));
    return read_ids(r, r->value);
}

/* --- chat ------------------------------------------------------------------------------------- */

static enum err read_messages(struct reader *r)
{
    TRY(want_type(r, JS_ARRAY));
    r->p->has_text = true;
    return messages_put(r->value, &r->p->text, &r->p->calls, r->why); /* check_together closes it */
}

static enum err read_vars(struct reader *r)
{
    const bool is_twice = js_type(js_get(r->root, "template_vars")) != JS_NULL &&
                          js_type(js_get(r->root, "chat_template_kwargs")) != JS_NULL;
    TRY(want_type(r, JS_OBJECT));
    for (int i = 0; i < 2; i++) {
        const char *own = i == 0 ? "messages" : "tools";
        if (!is_null(js_get(r->value, own))) {
            return refusal_set(r->why, 400, "invalid_value", r->name,
                               "%s: %s is a field of its own and no variable of the template",
                               r->name, own);
        }
    }
    return is_twice ? twice(r, "template_vars", "chat_template_kwargs") : ERR_OK;
}

/* --- fields that are accepted only while they ask for nothing --------------------------------- */

static enum err read_format(struct reader *r)
{
    const struct js *type = js_get(r->value, "type");
    TRY(want_type(r, JS_OBJECT));
    if (js_type(type) != JS_STRING) {
        return mismatch_at(r, js_type(type) == JS_NULL ? "missing_field" : "invalid_type", ".type",
                           type, refusal_type(JS_STRING));
    }
    return view_is(js_string(type), "text")
               ? ERR_OK
               : unsupported(r, "only {\"type\": \"text\"} is supported: answers cannot be held to "
                                "a schema yet");
}

static enum err read_tools(struct reader *r)
{
    const struct js *choice = js_get(r->root, "tool_choice");
    TRY(want_type(r, JS_ARRAY));
    for (size_t i = 0; i < js_count(r->value); i++) {
        if (js_type(js_at(r->value, i)) != JS_OBJECT) {
            return wrong_element(r, i, js_at(r->value, i), refusal_type(JS_OBJECT));
        }
    }
    return js_count(r->value) == 0 || view_is(js_string(choice), "none")
               ? ERR_OK
               : unsupported(r, "tool calls are not supported yet");
}

static enum err read_tool_choice(struct reader *r)
{
    const struct view v = js_string(r->value);
    if (js_type(r->value) != JS_STRING && js_type(r->value) != JS_OBJECT) {
        return wrong_type(r, "a text or an object");
    }
    return view_is(v, "none") || view_is(v, "auto") ? ERR_OK
                                                    : unsupported(r, "tool calls are not "
                                                                     "supported yet");
}

static enum err read_modalities(struct reader *r)
{
    const bool is_text = js_count(r->value) == 1 && view_is(js_string(js_at(r->value, 0)), "text");
    TRY(want_type(r, JS_ARRAY));
    for (size_t i = 0; i < js_count(r->value); i++) {
        if (js_type(js_at(r->value, i)) != JS_STRING) {
            return wrong_element(r, i, js_at(r->value, i), refusal_type(JS_STRING));
        }
    }
    return is_text ? ERR_OK : unsupported(r, "only [\"text\"] is supported");
}

static enum err read_metadata(struct reader *r)
{
    struct js_iter it = { 0 };
    TRY(want_type(r, JS_OBJECT));
    while (js_next(r->value, &it)) {
        char place[64];
        snprintf(place, sizeof place, ".%.*s", (int)(it.key.n < 40 ? it.key.n : 40), it.key.p);
        if (js_type(it.value) != JS_STRING && !is_null(it.value)) {
            return mismatch_at(r, "invalid_type", place, it.value, refusal_type(JS_STRING));
        }
    }
    return ERR_OK;
}

/* --- the table -------------------------------------------------------------------------------- */

enum kind { KIND_READ, KIND_INT, KIND_REAL, KIND_FLAG, KIND_LABEL };

static const struct field {
    const char *name;
    unsigned kinds; /* of bodies that may have it */
    enum kind kind;
    enum err (*read)(struct reader *r); /* KIND_READ */
    size_t at;                          /* int32_t, float or bool in struct params */
    double min;
    double max;
    enum js_type type;   /* KIND_LABEL: it changes nothing, but must be of this type */
    const char *neutral; /* the only value (as JSON) that is honoured; NULL: all are */
} fields[] = {
#define R(name, kinds, fn) { name, kinds, KIND_READ, fn, 0, 0, 0, JS_NULL, NULL }
#define I(name, kinds, field, min, max)                                                            \
    { name, kinds, KIND_INT, NULL, offsetof(struct params, request.field), min, max, JS_INT, NULL }
#define F(name, kinds, field, min, max)                                                            \
    {                                                                                              \
        name, kinds, KIND_REAL, NULL, offsetof(struct params, request.field),                      \
        min,  max,   JS_REAL,   NULL                                                               \
    }
#define B(name, kinds, field)                                                                      \
    { name, kinds, KIND_FLAG, NULL, offsetof(struct params, field), 0, 0, JS_BOOL, NULL }
#define L(name, kinds, type, neutral) { name, kinds, KIND_LABEL, NULL, 0, 0, 0, type, neutral }
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
    L("audio", BIT(CHAT), JS_OBJECT, ""),
    L("prediction", BIT(CHAT), JS_OBJECT, ""),
    L("web_search_options", BIT(CHAT), JS_OBJECT, ""),
    L("reasoning_effort", BIT(CHAT), JS_STRING, ""),
    L("verbosity", BIT(CHAT), JS_STRING, ""),
    L("echo", BIT(COMPLETION), JS_BOOL, "false"),
    L("suffix", BIT(COMPLETION), JS_STRING, "\"\""),
    L("best_of", BIT(COMPLETION), JS_INT, "1"),
    L("user", GENERATE, JS_STRING, NULL),
    R("metadata", GENERATE, read_metadata),
    L("store", GENERATE, JS_BOOL, "false"),
    L("service_tier", GENERATE, JS_STRING, NULL),
    L("safety_identifier", GENERATE, JS_STRING, NULL),
    L("prompt_cache_key", GENERATE, JS_STRING, NULL),
    L("prompt_cache_retention", GENERATE, JS_STRING, NULL),
    L("parallel_tool_calls", BIT(CHAT), JS_BOOL, NULL), /* without tools it has no meaning */
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
#undef L
};
#define N_FIELD (sizeof fields / sizeof fields[0])

static enum err read_label(struct reader *r, const struct field *f)
{
    struct buf json;
    int64_t whole = 0;
    const bool is_int = f->type == JS_INT && is_whole(r->value, &whole);
    if (!is_int) {
        TRY(want_type(r, f->type));
    }
    if (f->neutral == NULL) {
        return ERR_OK;
    }
    buf_init(&json, 64);
    if (is_int) {
        buf_printf(&json, "%lld", (long long)whole);
    } else {
        js_put_value(&json, r->value);
    }
    const bool is_neutral = view_is(buf_view(&json), f->neutral) && !json.is_full;
    buf_release(&json);
    return is_neutral ? ERR_OK : unsupported(r, "this is not supported");
}

/* Another name for the same thing, given too. */
static const struct field *find_twin(const struct reader *r, const struct field *f)
{
    for (size_t i = 0; i < N_FIELD; i++) {
        const struct field *o = &fields[i];
        if (o != f && o->kind == f->kind && o->at == f->at && (o->kinds & 1u << r->p->kind) != 0 &&
            js_type(js_get(r->root, o->name)) != JS_NULL) {
            return o;
        }
    }
    return NULL;
}

static enum err read_number(struct reader *r, const struct field *f)
{
    char *at = (char *)r->p + f->at;
    const double v = js_real(r->value);
    char min[REFUSAL_NUMBER_BYTES];
    char max[REFUSAL_NUMBER_BYTES];
    char wanted[2 * REFUSAL_NUMBER_BYTES + 40];
    int64_t n = 0;
    if (f->kind == KIND_INT ? !is_whole(r->value, &n) : !is_number(r->value)) {
        return wrong_type(r, refusal_type(f->type));
    }
    if (!(v >= f->min && v <= f->max)) {
        snprintf(wanted, sizeof wanted, "%s from %s to %s", refusal_type(f->type),
                 refusal_number(min, f->min), refusal_number(max, f->max));
        return wrong_value(r, wanted);
    }
    const int32_t whole = (int32_t)v;
    const float real = (float)v;
    memcpy(at, f->kind == KIND_INT ? (const void *)&whole : (const void *)&real, 4);
    return ERR_OK;
}

static enum err read_field(struct reader *r, const struct field *f)
{
    if (f->kind == KIND_READ) {
        return f->read(r);
    }
    if (f->kind == KIND_LABEL) {
        return read_label(r, f);
    }
    const struct field *twin = find_twin(r, f);
    if (twin != NULL) {
        return twice(r, f->name, twin->name);
    }
    if (f->kind == KIND_FLAG) {
        const bool yes = js_bool(r->value);
        memcpy((char *)r->p + f->at, &yes, sizeof yes);
        return want_type(r, JS_BOOL);
    }
    return read_number(r, f);
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
        if (is_null(it.value)) {
            continue;
        }
        if (f == NULL) {
            return refusal_set(r->why, 400, "unknown_field", name,
                               "field \"%s\" is not known here; take it out", name);
        }
        r->name = f->name;
        r->value = it.value;
        TRY(read_field(r, f));
    }
    return ERR_OK;
}

/* What the fields mean together. */
static enum err check_together(struct reader *r)
{
    struct params *p = r->p;
    static const char *const needed[] = { "messages", "prompt", "content", "tokens" };
    const char *large = needed[p->kind];
    if (!p->has_text && p->ids == NULL) {
        return refusal_set(r->why, 400, "missing_field", needed[p->kind], "%s is missing",
                           needed[p->kind]);
    }
    if (p->kind == PARAMS_CHAT) {
        const char *name =
            is_null(js_get(r->root, "template_vars")) ? "chat_template_kwargs" : "template_vars";
        const struct js *vars = js_get(r->root, name);
        if (!is_null(vars)) {
            large = p->text.is_full ? large : name;
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
        return refusal_set(
            r->why, 400, "limit_reached", large,
            "%s: the body of %zu bytes has more than %zu of this%s, which is the most, whatever "
            "--max-body says",
            large, r->n_body, p->text.max,
            large == needed[p->kind] ? "" : ", together with the messages");
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
    r->n_body = body.n;
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
