/* probe_render - the `render` probe
 *
 * One JSON object a line comes in: a conversation and, if it wants, a template of its own; one goes
 * out: the text, or the error. It is how tests/fixtures/check/check_templates.py compares this
 * program with Jinja2, byte by byte. Nothing here is part of the server.
 *
 * The template of the command line is opened once, by the first case that needs it; its failure is
 * the answer to each such case, so that cases with their own template still run.
 *
 * Next: model/chat.h. */
#include "cmd/probe_render.h"

#include "base/js.h"
#include "base/lines.h"
#include "base/os.h"
#include "model/chat.h"

#include <stdio.h>

#define LINE_MAX_BYTES (64u << 20)
#define DEPTH_MAX      200

struct probe {
    const char *file;
    struct view text;
    struct chat_template *shared; /* of the command line, once opened */
    struct buf source;
};

/* The digits of `t` at `at`, n of them, as a number; -1 when they are not there. */
static int64_t digits(struct view t, size_t at, size_t n)
{
    uint64_t v = 0;
    return view_u64(view_part(t, at, n), &v) && t.n >= at + n ? (int64_t)v : -1;
}

/* "YYYY-MM-DDThh:mm:ss" as seconds since 1970; 0 when it is not there. */
static enum err read_time(const struct js *v, int64_t *out)
{
    const struct view t = js_string(v);
    *out = 0;
    if (js_type(v) == JS_NULL) {
        return ERR_OK;
    }
    const int64_t y = digits(t, 0, 4);
    const int64_t mo = digits(t, 5, 2);
    const int64_t d = digits(t, 8, 2);
    const int64_t h = digits(t, 11, 2);
    const int64_t mi = digits(t, 14, 2);
    const int64_t s = digits(t, 17, 2);
    REQUIRE(y >= 0 && mo >= 1 && mo <= 12 && d >= 1 && h >= 0 && mi >= 0 && s >= 0, ERR_USAGE,
            "now: wants YYYY-MM-DDThh:mm:ss");
    /* Days from a year that begins in March: the leap day is the last one. */
    const int64_t year = mo <= 2 ? y - 1 : y;
    const int64_t month = (mo + 9) % 12;
    const int64_t days =
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + d - 1 - 719468;
    *out = ((days * 24 + h) * 60 + mi) * 60 + s;
    return ERR_OK;
}

static enum err shared_template(struct probe *p)
{
    if (p->shared != NULL) {
        return ERR_OK;
    }
    if (p->file != NULL && p->source.n == 0) {
        TRY(os_read_file(p->file, &p->source));
        p->text = buf_view(&p->source);
    }
    return chat_open(&p->shared, p->text);
}

static enum err render_case(struct probe *p, const struct js *c, struct buf *out)
{
    struct chat_template *own = NULL;
    const struct js *text = js_get(c, "template");
    const struct js *bos = js_get(c, "bos_token");
    const struct js *eos = js_get(c, "eos_token");
    const struct js *tools = js_get(c, "tools");
    struct chat_input in = { .messages = js_get(c, "messages"),
                             .tools = js_type(tools) == JS_NULL ? NULL : tools,
                             .vars = js_get(c, "vars"),
                             .add_generation_prompt = js_bool(js_get(c, "add_generation_prompt")),
                             .bos_token = js_string(bos),
                             .eos_token = js_string(eos) };
    TRY(read_time(js_get(c, "now"), &in.now_s));
    if (js_type(text) == JS_STRING) {
        TRY(chat_open(&own, js_string(text)));
    } else {
        TRY(shared_template(p));
    }
    const enum err e = chat_render(own != NULL ? own : p->shared, &in, out, NULL);
    chat_close(own);
    return e;
}

static void answer(struct probe *p, struct view line, struct buf *out)
{
    struct js *c = NULL;
    struct buf text;
    buf_init(&text, CHAT_OUTPUT_MAX_BYTES);
    enum err e = js_parse(line, DEPTH_MAX, &c);
    if (e == ERR_OK) {
        e = render_case(p, c, &text);
    }
    buf_add_str(out, "{\"id\": ");
    js_put_value(out, js_get(c, "id"));
    buf_add_str(out, e == ERR_OK ? ", \"text\": " : ", \"error\": ");
    js_put_string(out, e == ERR_OK ? buf_view(&text) : view_of(err_text()), false);
    buf_add_str(out, "}\n");
    buf_release(&text);
    js_close(c);
}

int probe_render(const char *template_file, struct view template_text)
{
    struct probe p = { .file = template_file, .text = template_text };
    struct lines in;
    struct buf out;
    lines_init(&in, 0, LINE_MAX_BYTES);
    buf_init(&p.source, CHAT_TEMPLATE_MAX_BYTES);
    buf_init(&out, 8 * (size_t)CHAT_OUTPUT_MAX_BYTES);
    enum err e = ERR_OK;
    for (bool has_line = true; e == ERR_OK && has_line;) {
        struct view line = { 0 };
        e = lines_next(&in, &line, &has_line);
        if (e == ERR_OK && has_line && line.n > 0) {
            buf_reset(&out);
            answer(&p, line, &out);
            (void)fwrite(buf_str(&out), 1, out.n, stdout);
            (void)fflush(stdout);
        }
    }
    if (e != ERR_OK) {
        (void)fprintf(stderr, "hearth: %s\n", err_text());
    }
    chat_close(p.shared);
    buf_release(&p.source);
    buf_release(&out);
    lines_release(&in);
    return (int)e;
}
