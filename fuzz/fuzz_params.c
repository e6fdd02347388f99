/* fuzz_params - one byte for the kind of request, then its body
 *
 * The body is freed before the result is looked at (PM-2). What is taken has all numbers in the
 * ranges that the library wants, and the same body with an unknown field more is refused (PM-1).
 * A conversation that is taken is JSON again and can be rendered with a template. A refusal is a
 * status, one line, and an answer that is JSON. */
#include "base/js.h"
#include "fuzz.h"
#include "model/chat.h"
#include "serve/messages.h"
#include "serve/params.h"

#include <string.h>

#define BODY_MAX ((size_t)1 << 20)

static void check_refusal(const struct refusal *why)
{
    struct js *root = NULL;
    struct buf out;
    buf_init(&out, (size_t)16 << 10);
    demand(why->status >= 400 && why->status < 600 && why->text[0] != '\0', "a refusal");
    demand(utf8_valid(view_of(why->text)), "a refusal's text");
    for (const char *p = why->text; *p != '\0'; p++) {
        demand((unsigned char)*p >= 0x20, "a refusal in one line");
    }
    refusal_put(why, &out);
    demand(js_parse(buf_view(&out), 2, &root) == ERR_OK, "a refusal as JSON");
    demand(js_count(js_get(root, "error")) >= 4, "an error in the form that clients know");
    js_close(root);
    buf_release(&out);
}

static void check_chat(struct view text)
{
    static struct chat_template *t;
    struct js *root = NULL;
    struct buf out;
    buf_init(&out, CHAT_OUTPUT_MAX_BYTES);
    demand(t != NULL || chat_open(&t, view_of(chat_default("llama"))) == ERR_OK, "a template");
    demand(js_parse(text, PARAMS_DEPTH_MAX, &root) == ERR_OK, "messages are JSON again");
    const struct js *messages = js_get(root, "messages");
    demand(js_count(messages) > 0 && js_count(messages) <= MESSAGES_MAX, "messages");
    for (size_t i = 0; i < js_count(messages); i++) {
        const enum js_type content = js_type(js_get(js_at(messages, i), "content"));
        demand(js_type(js_get(js_at(messages, i), "role")) == JS_STRING, "a role");
        demand(content == JS_STRING || content == JS_NULL, "a content");
    }
    const struct chat_input in = { .messages = messages, .vars = js_get(root, "template_vars") };
    const enum err e = chat_render(t, &in, &out, NULL);
    if (e != ERR_OK) {
        demand_error(e);
    }
    js_close(root);
    buf_release(&out);
}

static void check_numbers(const struct params *p)
{
    const struct hearth_request_params *q = &p->request;
    demand(q->n_choice >= 1 && q->n_choice <= HEARTH_CHOICE_MAX, "n");
    demand(q->max_tokens >= 0 && q->top_k >= 0 && q->repeat_last_n >= -1, "whole numbers");
    demand(q->temperature >= 0 && q->temperature <= 100 && q->repeat_penalty > 0, "temperature");
    demand(q->top_p >= 0 && q->top_p <= 1 && q->min_p >= 0 && q->min_p <= 1, "probabilities");
    demand(q->typical_p >= 0 && q->typical_p <= 1, "a probability");
    demand(q->n_logprob >= -1 && q->n_logprob <= HEARTH_LOGPROB_MAX, "logprobs");
    demand(q->n_stop <= HEARTH_STOP_MAX && q->n_bias <= HEARTH_BIAS_MAX, "stop and bias");
    for (size_t i = 0; i < q->n_stop; i++) {
        const size_t n = strlen(q->stop[i]);
        demand(n > 0 && n <= HEARTH_STOP_BYTES && utf8_valid(view_of(q->stop[i])), "a stop text");
    }
    for (size_t i = 0; i < q->n_bias; i++) {
        demand(q->bias[i].token >= 0 && q->bias[i].bias >= -100 && q->bias[i].bias <= 100, "bias");
    }
    for (size_t i = 0; i < p->n_id; i++) {
        demand(p->ids[i] >= 0, "a token id");
    }
    demand(strlen(p->model) < sizeof p->model && utf8_valid(view_of(p->model)), "a model's name");
}

/* The answer to a copy of the body, with `more` after its first bracket. */
static enum err read_copy(struct params *p, enum params_kind kind, struct view body,
                          const char *more, struct refusal *why)
{
    const size_t at = view_find(body, VIEW("{"), 0);
    struct buf copy;
    buf_init(&copy, 2 * BODY_MAX);
    buf_add_view(&copy, view_part(body, 0, at == SIZE_MAX ? body.n : at + 1));
    buf_add_str(&copy, more);
    buf_add_view(&copy, view_from(body, at == SIZE_MAX ? body.n : at + 1));
    *why = (struct refusal){ 0 };
    const enum err e = params_read(p, kind, buf_view(&copy), why);
    buf_release(&copy);
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct params p;
    static struct params other;
    if (n < 1 || n > BODY_MAX) {
        return 0;
    }
    const enum params_kind kind = (enum params_kind)(bytes[0] & 3);
    const struct view body = { (const char *)bytes + 1, n - 1 };
    struct refusal why;
    if (kind == PARAMS_CHAT) {
        check_chat(VIEW("{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}"));
    }
    const struct fuzz_run run = fuzz_begin();
    if (read_copy(&p, kind, body, "", &why) == ERR_OK) {
        check_numbers(&p);
        demand(utf8_valid(buf_view(&p.text)), "the text");
        demand(kind == PARAMS_CHAT || (p.text.n == 0 || p.ids == NULL), "text or ids");
        demand(kind != PARAMS_DETOKENIZE || p.ids != NULL, "ids");
        if (kind == PARAMS_CHAT) {
            check_chat(buf_view(&p.text));
        }
        params_release(&p);
        demand(read_copy(&other, kind, body, "\"zz\":1,", &why) != ERR_OK &&
                   strcmp(why.param, "zz") == 0,
               "a field that is not known is refused by its name (PM-1)");
        check_refusal(&why);
    } else {
        check_refusal(&why);
    }
    fuzz_end(run);
    return 0;
}
