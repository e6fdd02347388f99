/* refusal - why a request is not answered, in the shape that OpenAI's clients know
 *
 * Clients look at two things: the status decides which exception is raised and whether the client
 * tries again by itself (408, 409, 429 and 5xx are repeated twice), and "code" is what programs
 * compare. So the status follows one table, here, and the text is written for a person: what was
 * wanted, what was found, what to do.
 *
 * Texts quote what came from outside; err_set makes one clean line of them, so they go through it.
 *
 * Next: serve/params.c makes most of them. */
#include "serve/refusal.h"

#include "base/js.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum err refusal_set(struct refusal *r, int status, const char *code, const char *param,
                     const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)err_setv(ERR_USAGE, fmt, args);
    va_end(args);
    *r = (struct refusal){ .status = status, .code = code };
    snprintf(r->param, sizeof r->param, "%s", param != NULL ? param : "");
    snprintf(r->text, sizeof r->text, "%s", err_text());
    return ERR_USAGE;
}

const char *refusal_type(enum js_type type)
{
    static const char *const names[] = {
        [JS_NULL] = "null",        [JS_BOOL] = "true or false", [JS_INT] = "a whole number",
        [JS_REAL] = "a number",    [JS_STRING] = "a text",      [JS_ARRAY] = "a list",
        [JS_OBJECT] = "an object",
    };
    return names[type];
}

const char *refusal_number(char out[REFUSAL_NUMBER_BYTES], double v)
{
    const bool is_plain = v > -1e15 && v < 1e15 && v == (double)(int64_t)v;
    snprintf(out, REFUSAL_NUMBER_BYTES, is_plain ? "%.0f" : "%.9g", v);
    return out;
}

enum err refusal_mismatch(struct refusal *r, const char *code, const char *where,
                          const struct js *v, const char *wanted)
{
    const enum js_type type = js_type(v);
    const struct view text = js_string(v);
    char found[100];
    char number[REFUSAL_NUMBER_BYTES];
    if (type == JS_STRING) {
        snprintf(found, sizeof found, "\"%.*s\"", (int)(text.n < 40 ? text.n : 40), text.p);
    } else if (type == JS_BOOL) {
        snprintf(found, sizeof found, "%s", js_bool(v) ? "true" : "false");
    } else if (type == JS_INT) {
        snprintf(found, sizeof found, "%lld", (long long)js_int(v));
    } else if (type == JS_REAL) {
        snprintf(found, sizeof found, "%s", refusal_number(number, js_real(v)));
    } else {
        snprintf(found, sizeof found, "%s", refusal_type(type));
    }
    return refusal_set(r, 400, code, where, "%s: %s is wanted, found %s", where, wanted, found);
}

enum err refusal_from(struct refusal *r, enum err e, const char *param)
{
    static const struct {
        enum err e;
        int status;
        const char *code;
    } rows[] = {
        { ERR_USAGE, 400, "invalid_value" },     { ERR_LIMIT, 400, "limit_reached" },
        { ERR_UNSUPPORTED, 400, "unsupported" }, { ERR_NOT_FOUND, 404, "not_found" },
        { ERR_AUTH, 401, "invalid_api_key" },    { ERR_POLICY, 403, "forbidden" },
        { ERR_BUSY, 503, "queue_full" },         { ERR_MEMORY, 503, "out_of_memory" },
        { ERR_INTEGRITY, 400, "invalid_value" },
    };
    char line[ERR_TEXT_MAX];
    snprintf(line, sizeof line, "%s", err_text()[0] != '\0' ? err_text() : err_name(e));
    int status = 500;
    const char *code = "internal_error";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].e == e) {
            status = rows[i].status;
            code = rows[i].code;
        }
    }
    (void)refusal_set(r, status, code, param, "%s", line);
    r->retry_ms = status == 503 ? 1000 : 0;
    return ERR_USAGE;
}

static const char *type_of(const struct refusal *r)
{
    switch (r->status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    case 503: /* but for a file that was changed: waiting does not help */
        return strcmp(r->code, "model_changed") == 0 ? "server_error" : "overloaded_error";
    default:
        return r->status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static void put_or_null(struct buf *out, const char *text)
{
    if (text == NULL || text[0] == '\0') {
        buf_add_str(out, "null");
    } else {
        js_put_string(out, view_of(text), false);
    }
}

void refusal_put(const struct refusal *r, struct buf *out)
{
    buf_add_str(out, "{\"error\":{\"message\":");
    js_put_string(out, view_of(r->text), false);
    buf_printf(out, ",\"type\":\"%s\",\"param\":", type_of(r));
    put_or_null(out, r->param);
    buf_add_str(out, ",\"code\":");
    put_or_null(out, r->code);
    buf_add_str(out, "}}");
}
