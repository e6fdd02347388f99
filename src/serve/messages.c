/* messages - the messages of a chat, checked and written out again for the template
 *
 * Two things change: content given as a list of text parts becomes one text, and the role
 * "developer" becomes "system", which is what it means to models that know only the older name.
 *
 * A message has the keys that templates know, and those that an answer of this service has, so that
 * clients can send answers back as they came. Any other key is refused by its place, such as
 * messages[2].images: what a client sends must not be left out without a word (PM-1). The order of
 * keys stays, since some templates write a message's calls out as they are.
 *
 * Rejected: giving messages to the template as they came (templates fail in words of their own on
 * what they do not expect, or leave it out).
 *
 * Next: serve/prep.c renders them. */
#include "serve/messages.h"

#include <stdbool.h>
#include <stdio.h>

struct writer {
    struct buf *out;
    struct refusal *why;
    struct messages_calls *calls;
};

/* Keys of a message. What no template looks at may be there as null (and has this type here) or as
 * an empty list, and is dropped: clients send answers back as they came. */
static const struct message_key {
    const char *name;
    enum js_type type;
    bool has_reader; /* of its own, which checks its type */
} message_keys[] = {
    { "role", JS_STRING, true },          { "content", JS_STRING, true },
    { "name", JS_STRING, false },         { "tool_calls", JS_ARRAY, false },
    { "tool_call_id", JS_STRING, false }, { "reasoning_content", JS_STRING, false },
    { "refusal", JS_NULL, false },        { "annotations", JS_NULL, false },
    { "audio", JS_NULL, false },          { "function_call", JS_NULL, false },
};
#define N_MESSAGE_KEY (sizeof message_keys / sizeof message_keys[0])

#define WHERE_BYTES 80

static enum err missing(struct writer *w, const char *where, const char *name, const char *wanted)
{
    char place[WHERE_BYTES + 24];
    snprintf(place, sizeof place, "%s.%s", where, name);
    return refusal_set(w->why, 400, "missing_field", place, "%s is missing: %s is wanted", place,
                       wanted);
}

static enum err refuse_member(struct writer *w, const char *code, const char *where,
                              const char *name, const struct js *v, const char *wanted)
{
    char place[WHERE_BYTES + 24];
    snprintf(place, sizeof place, "%s.%s", where, name);
    return refusal_mismatch(w->why, code, place, v, wanted);
}

/* The member must be there and of this type. */
static enum err want_member(struct writer *w, const char *where, const struct js *object,
                            const char *name, enum js_type type)
{
    const struct js *v = js_get(object, name);
    if (js_type(v) == JS_NULL) {
        return missing(w, where, name, refusal_type(type));
    }
    return js_type(v) == type
               ? ERR_OK
               : refuse_member(w, "invalid_type", where, name, v, refusal_type(type));
}

static enum err refuse_key(struct writer *w, const char *where, struct view key, const char *code)
{
    char name[WHERE_BYTES + 48];
    snprintf(name, sizeof name, "%s.%.*s", where, (int)(key.n < 40 ? key.n : 40), key.p);
    return refusal_set(w->why, 400, code, name, "field \"%s\" is not known here; take it out",
                       name);
}

/* Calls that an answer made: templates show the name of each function. */
static enum err check_calls(struct writer *w, const char *message, const struct js *calls)
{
    for (size_t i = 0; i < js_count(calls); i++) {
        char where[WHERE_BYTES];
        const struct js *call = js_at(calls, i);
        snprintf(where, sizeof where, "%.30s.tool_calls[%zu]", message, i);
        if (js_type(call) != JS_OBJECT) {
            return refusal_mismatch(w->why, "invalid_type", where, call, refusal_type(JS_OBJECT));
        }
        TRY(want_member(w, where, call, "function", JS_OBJECT));
        snprintf(where, sizeof where, "%.30s.tool_calls[%zu].function", message, i);
        TRY(want_member(w, where, js_get(call, "function"), "name", JS_STRING));
    }
    return ERR_OK;
}

static const struct message_key *find_message_key(struct view name)
{
    for (size_t k = 0; k < N_MESSAGE_KEY; k++) {
        if (view_is(name, message_keys[k].name)) {
            return &message_keys[k];
        }
    }
    return NULL;
}

static enum err check_message_key(struct writer *w, const char *where, const struct js_iter *it)
{
    const struct message_key *k = find_message_key(it->key);
    const enum js_type type = js_type(it->value);
    const bool is_empty = type == JS_ARRAY && js_count(it->value) == 0;
    if (type == JS_NULL) {
        return ERR_OK;
    }
    if (k == NULL) {
        return refuse_key(w, where, it->key, "unknown_field");
    }
    if (k->type == JS_NULL) {
        return is_empty ? ERR_OK : refuse_key(w, where, it->key, "unsupported");
    }
    if (k->has_reader) {
        return ERR_OK;
    }
    if (type != k->type) {
        return refuse_member(w, "invalid_type", where, k->name, it->value, refusal_type(k->type));
    }
    return type == JS_ARRAY ? check_calls(w, where, it->value) : ERR_OK;
}

/* {"type": "text", "text": ...} and nothing else. */
static enum err check_part(struct writer *w, const char *where, const struct js *part)
{
    const struct js *type = js_get(part, "type");
    if (js_type(part) != JS_OBJECT) {
        return refusal_mismatch(w->why, "invalid_type", where, part, refusal_type(JS_OBJECT));
    }
    TRY(want_member(w, where, part, "type", JS_STRING));
    if (!view_is(js_string(type), "text")) {
        return refuse_member(w, "unsupported", where, "type", type,
                             "\"text\", the only kind that is supported,");
    }
    TRY(want_member(w, where, part, "text", JS_STRING));
    struct js_iter it = { 0 };
    while (js_next(part, &it)) {
        if (!view_is(it.key, "type") && !view_is(it.key, "text") && js_type(it.value) != JS_NULL) {
            return refuse_key(w, where, it.key, "unknown_field");
        }
    }
    return ERR_OK;
}

static void note_calls(struct writer *w, const char *where, const struct js *m,
                       enum messages_beside beside)
{
    char *place = w->calls->place[beside];
    if (js_count(js_get(m, "tool_calls")) > 0 && place[0] == '\0') {
        snprintf(place, MESSAGES_PLACE_BYTES, "%.31s", where);
    }
}

/* A list of text parts as one text. */
static enum err put_parts(struct writer *w, const char *message, const struct js *m)
{
    const struct js *parts = js_get(m, "content");
    struct buf all;
    enum err e = ERR_OK;
    buf_init(&all, w->out->max);
    for (size_t i = 0; i < js_count(parts) && e == ERR_OK; i++) {
        char where[WHERE_BYTES];
        snprintf(where, sizeof where, "%.30s.content[%zu]", message, i);
        e = check_part(w, where, js_at(parts, i));
        buf_add_view(&all, js_string(js_get(js_at(parts, i), "text")));
    }
    js_put_string(w->out, buf_view(&all), false);
    note_calls(w, message, m, all.n > 0 ? MESSAGES_TEXT : MESSAGES_EMPTY);
    w->out->is_full = w->out->is_full || all.is_full;
    buf_release(&all);
    return e;
}

static enum err put_content(struct writer *w, const char *where, const struct js *m)
{
    const struct js *content = js_get(m, "content");
    const bool is_answer = view_is(js_string(js_get(m, "role")), "assistant");
    const bool may_lack = is_answer && js_count(js_get(m, "tool_calls")) > 0;
    if (js_type(content) == JS_ARRAY) {
        return put_parts(w, where, m);
    }
    if (js_type(content) == JS_NULL && !may_lack) {
        return missing(w, where, "content", is_answer ? "a text, or tool_calls," : "a text");
    }
    if (js_type(content) != JS_STRING && js_type(content) != JS_NULL) {
        return refuse_member(w, "invalid_type", where, "content", content,
                             "a text or a list of text parts");
    }
    note_calls(w, where, m,
               js_type(content) == JS_NULL ? MESSAGES_NOTHING
               : js_string(content).n == 0 ? MESSAGES_EMPTY
                                           : MESSAGES_TEXT);
    js_put_value(w->out, content);
    return ERR_OK;
}

static enum err check_role(struct writer *w, const char *where, const struct js *m)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool", "developer" };
    static const char *const wanted = "system, developer, user, assistant or tool";
    const struct js *role = js_get(m, "role");
    if (js_type(role) == JS_NULL) {
        return missing(w, where, "role", wanted);
    }
    TRY(want_member(w, where, m, "role", JS_STRING));
    for (size_t k = 0; k < sizeof roles / sizeof roles[0]; k++) {
        if (view_is(js_string(role), roles[k])) {
            return ERR_OK;
        }
    }
    return refuse_member(w, "invalid_value", where, "role", role, wanted);
}

static enum err put_message(struct writer *w, const char *where, const struct js *m)
{
    struct buf *out = w->out;
    TRY(check_role(w, where, m));
    const struct view role = js_string(js_get(m, "role"));
    buf_add_str(out, "{\"role\": ");
    js_put_string(out, view_is(role, "developer") ? VIEW("system") : role, false);
    buf_add_str(out, ", \"content\": ");
    struct js_iter it = { 0 };
    while (js_next(m, &it)) {
        TRY(check_message_key(w, where, &it));
    }
    TRY(put_content(w, where, m));
    if (js_count(js_get(m, "tool_calls")) > 0 && !view_is(role, "assistant")) {
        return refuse_member(w, "invalid_value", where, "tool_calls", js_get(m, "role"),
                             "the role assistant, which alone calls tools,");
    }
    it = (struct js_iter){ 0 };
    while (js_next(m, &it)) {
        const struct message_key *k = find_message_key(it.key);
        if (k != NULL && !k->has_reader && k->type != JS_NULL && js_type(it.value) != JS_NULL) {
            buf_add_str(out, ", ");
            js_put_string(out, it.key, false);
            buf_add_str(out, ": ");
            js_put_value(out, it.value);
        }
    }
    buf_add_char(out, '}');
    return ERR_OK;
}

enum err messages_put(const struct js *list, struct buf *out, struct messages_calls *calls,
                      struct refusal *why)
{
    struct writer w = { .out = out, .why = why, .calls = calls };
    const size_t n = js_count(list);
    if (n == 0) {
        return refusal_set(why, 400, "invalid_value", "messages",
                           "messages: at least one message is wanted, found an empty list");
    }
    if (n > MESSAGES_MAX) {
        return refusal_set(why, 400, "limit_reached", "messages",
                           "messages: %zu messages, at most %d are taken", n, MESSAGES_MAX);
    }
    buf_add_str(out, "{\"messages\": [");
    for (size_t i = 0; i < n; i++) {
        char where[WHERE_BYTES];
        snprintf(where, sizeof where, "messages[%zu]", i);
        if (js_type(js_at(list, i)) != JS_OBJECT) {
            return refusal_mismatch(why, "invalid_type", where, js_at(list, i),
                                    refusal_type(JS_OBJECT));
        }
        buf_add_str(out, i > 0 ? ", " : "");
        TRY(put_message(&w, where, js_at(list, i)));
    }
    buf_add_char(out, ']');
    return ERR_OK;
}
