/* answer - events of the engine to what OpenAI's clients read
 *
 * One code for both forms. Each choice collects text and, where asked for, log probabilities. A
 * whole answer writes the collection at the end; a stream writes it after every event, as the
 * difference to what was written, and empties it. So the two cannot disagree (AN-1).
 *
 * A stream is Server-Sent Events: "data: {...}" and an empty line per chunk, "data: [DONE]" at the
 * end; with include_usage one more chunk without choices carries the numbers of tokens. A field of
 * our own, "timings", says how long waiting, prompt and answer took; clients that do not know it
 * ignore it.
 *
 * Texts are whole characters already (engine/emit). Single tokens need not be: in a chat their text
 * has U+FFFD where bytes are no character, and "bytes" has them exactly; completions, which know no
 * bytes and use tokens as keys, have them spelled (put_name).
 *
 * Format: OpenAI's API reference, "Chat completions" and "Completions", read in 2026-11.
 *
 * Next: serve/job.c sends it. */
#include "serve/answer.h"

#include "base/js.h"
#include "base/os.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define PIECE_MAX 1024 /* bytes of a token's text that are shown */

void answer_init(struct answer *a, const struct hearth_model *model, const char *model_id,
                 const struct params *p, const char *request_id, size_t max_bytes)
{
    *a = (struct answer){ .model = model,
                          .model_id = model_id,
                          .is_chat = p->kind == PARAMS_CHAT,
                          .is_stream = p->is_stream,
                          .has_usage = p->has_usage,
                          .has_logprobs = p->has_logprobs,
                          .n_choice = p->request.n_choice,
                          .created_s = os_wall_s() };
    const size_t skip = strncmp(request_id, "req_", 4) == 0 ? 4 : 0;
    snprintf(a->id, sizeof a->id, "%s%s", a->is_chat ? "chatcmpl-" : "cmpl-", request_id + skip);
    for (int32_t i = 0; i < a->n_choice; i++) {
        struct answer_choice *c = &a->choice[i];
        buf_init(&c->text, max_bytes);
        buf_init(&c->entries, max_bytes);
        buf_init(&c->tokens, max_bytes);
        buf_init(&c->logprobs, max_bytes);
        buf_init(&c->tops, max_bytes);
        buf_init(&c->offsets, max_bytes);
    }
}

void answer_release(struct answer *a)
{
    for (int32_t i = 0; i < a->n_choice; i++) {
        struct answer_choice *c = &a->choice[i];
        buf_release(&c->text);
        buf_release(&c->entries);
        buf_release(&c->tokens);
        buf_release(&c->logprobs);
        buf_release(&c->tops);
        buf_release(&c->offsets);
    }
    a->n_choice = 0;
}

size_t answer_bytes(const struct answer *a)
{
    size_t n = 0;
    for (int32_t i = 0; i < a->n_choice; i++) {
        const struct answer_choice *c = &a->choice[i];
        n += c->text.cap + c->entries.cap + c->tokens.cap + c->logprobs.cap + c->tops.cap +
             c->offsets.cap;
    }
    return n;
}

/* --- log probabilities ------------------------------------------------------------------------ */

/* The bytes of one token. Some tokenizers take a blank away from the beginning of a text, so the
 * token is shown behind itself: what comes after the first is the token as it is inside a text. */
static size_t piece_of(const struct answer *a, int32_t id, char out[2 * PIECE_MAX])
{
    const int32_t twice[2] = { id, id };
    size_t n_one = PIECE_MAX;
    size_t n_two = (size_t)2 * PIECE_MAX;
    if (hearth_detokenize(a->model, twice, 1, HEARTH_SHOW_SPECIAL, out, &n_one) != HEARTH_OK ||
        hearth_detokenize(a->model, twice, 2, HEARTH_SHOW_SPECIAL, out, &n_two) != HEARTH_OK) {
        return 0; /* longer than is shown */
    }
    memmove(out, out + n_one, n_two - n_one);
    return n_two - n_one;
}

static void put_clean(struct buf *out, struct view bytes)
{
    struct buf clean;
    buf_init(&clean, (size_t)8 * PIECE_MAX);
    utf8_clean(&clean, bytes);
    js_put_string(out, buf_view(&clean), false);
    buf_release(&clean);
}

static void put_logprob(struct buf *out, float v)
{
    js_put_real(out, isfinite(v) ? (double)v : -9999.0); /* what the API has for "impossible" */
}

/* "token": ..., "logprob": ..., "bytes": [...] */
static void put_token(const struct answer *a, int32_t id, float logprob, struct buf *out)
{
    char piece[2 * PIECE_MAX];
    const size_t n = piece_of(a, id, piece);
    buf_add_str(out, "\"token\":");
    put_clean(out, (struct view){ piece, n });
    buf_add_str(out, ",\"logprob\":");
    put_logprob(out, logprob);
    buf_add_str(out, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, i > 0 ? ",%d" : "%d", (unsigned char)piece[i]);
    }
    buf_add_char(out, ']');
}

static void add_entry(const struct answer *a, struct answer_choice *c, const struct hearth_event *e)
{
    struct buf *out = &c->entries;
    buf_add_str(out, out->n > 0 ? ",{" : "{");
    put_token(a, e->token, e->logprob, out);
    buf_add_str(out, ",\"top_logprobs\":[");
    for (int32_t i = 0; i < e->n_top; i++) {
        buf_add_str(out, i > 0 ? ",{" : "{");
        put_token(a, e->top[i].token, e->top[i].bias, out);
        buf_add_char(out, '}');
    }
    buf_add_str(out, "]}");
}

/* The token as OpenAI's completions name it: what is no text is spelled, so that parts of
 * characters can be told apart. A backslash is spelled too: no other bytes look the same, though
 * a token whose own text is of this form would. */
static void put_name(const struct answer *a, int32_t id, struct buf *out)
{
    char piece[2 * PIECE_MAX];
    const struct view v = { piece, piece_of(a, id, piece) };
    if (utf8_valid(v)) {
        js_put_string(out, v, false);
        return;
    }
    struct buf name;
    buf_init(&name, (size_t)8 * PIECE_MAX + 8);
    buf_add_str(&name, "bytes:");
    for (size_t i = 0; i < v.n; i++) {
        const unsigned char c = (unsigned char)v.p[i];
        buf_printf(&name, c < ' ' || c > '~' || c == '\\' ? "\\x%02x" : "%c", c);
    }
    js_put_string(out, buf_view(&name), false);
    buf_release(&name);
}

/* An object has a key once: of tokens with the same text the best, which comes first, stays. */
static void add_tops(const struct answer *a, struct buf *out, const struct hearth_event *e)
{
    struct {
        size_t at;
        size_t n;
    } key[HEARTH_LOGPROB_MAX];
    int32_t n_key = 0;
    buf_add_char(out, '{');
    for (int32_t i = 0; i < e->n_top && n_key < HEARTH_LOGPROB_MAX; i++) {
        const size_t begin = out->n;
        bool is_known = false;
        buf_add_str(out, n_key > 0 ? "," : "");
        const size_t at = out->n;
        put_name(a, e->top[i].token, out);
        const struct view all = buf_view(out);
        for (int32_t k = 0; k < n_key; k++) {
            is_known |= view_eq(view_part(all, key[k].at, key[k].n), view_from(all, at));
        }
        if (is_known) {
            buf_cut(out, begin);
            continue;
        }
        key[n_key].at = at;
        key[n_key++].n = out->n - at;
        buf_add_char(out, ':');
        put_logprob(out, e->top[i].bias);
    }
    buf_add_char(out, '}');
}

static void add_lists(const struct answer *a, struct answer_choice *c, const struct hearth_event *e)
{
    const char *comma = c->tokens.n > 0 ? "," : "";
    buf_add_str(&c->tokens, comma);
    put_name(a, e->token, &c->tokens);
    buf_add_str(&c->logprobs, comma);
    put_logprob(&c->logprobs, e->logprob);
    buf_printf(&c->offsets, "%s%zu", comma, c->n_char);
    buf_add_str(&c->tops, comma);
    add_tops(a, &c->tops, e);
}

static size_t count_chars(const char *p, size_t n)
{
    size_t n_char = 0;
    for (size_t i = 0; i < n; i++) {
        n_char += ((unsigned char)p[i] & 0xc0) != 0x80;
    }
    return n_char;
}

static void put_logprobs(const struct answer *a, const struct answer_choice *c, struct buf *out)
{
    if (!a->has_logprobs || (a->is_stream && c->entries.n + c->tokens.n == 0)) {
        buf_add_str(out, ",\"logprobs\":null");
    } else if (a->is_chat) {
        buf_printf(out, ",\"logprobs\":{\"content\":[");
        buf_add_view(out, buf_view(&c->entries));
        buf_add_str(out, "],\"refusal\":null}");
    } else {
        buf_add_str(out, ",\"logprobs\":{\"tokens\":[");
        buf_add_view(out, buf_view(&c->tokens));
        buf_add_str(out, "],\"token_logprobs\":[");
        buf_add_view(out, buf_view(&c->logprobs));
        buf_add_str(out, "],\"top_logprobs\":[");
        buf_add_view(out, buf_view(&c->tops));
        buf_add_str(out, "],\"text_offset\":[");
        buf_add_view(out, buf_view(&c->offsets));
        buf_add_str(out, "]}");
    }
}

/* --- bodies and chunks ------------------------------------------------------------------------ */

static void put_head(const struct answer *a, struct buf *out)
{
    const char *object = !a->is_chat    ? "text_completion"
                         : a->is_stream ? "chat.completion.chunk"
                                        : "chat.completion";
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", a->id, object,
               (long long)a->created_s);
    js_put_string(out, view_of(a->model_id), false);
    buf_printf(out, ",\"system_fingerprint\":\"hearth-%s\"", hearth_version());
}

static void put_finish(enum hearth_finish f, struct buf *out)
{
    switch (f) {
    case HEARTH_FINISH_STOP:
        buf_add_str(out, ",\"finish_reason\":\"stop\"");
        break;
    case HEARTH_FINISH_LENGTH:
    case HEARTH_FINISH_TIMEOUT: /* cut by a limit; clients know no other word for it */
        buf_add_str(out, ",\"finish_reason\":\"length\"");
        break;
    default:
        buf_add_str(out, ",\"finish_reason\":null");
    }
}

static void put_usage(const struct hearth_event *e, struct buf *out)
{
    buf_printf(out,
               ",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d},"
               "\"timings\":{\"queue_ms\":%.3f,\"prompt_ms\":%.3f,\"prompt_n\":%d,"
               "\"predicted_ms\":%.3f,\"predicted_n\":%d}",
               e->n_prompt, e->n_generated, e->n_prompt + e->n_generated, (double)e->queue_us / 1e3,
               (double)e->prefill_us / 1e3, e->n_prompt, (double)e->decode_us / 1e3,
               e->n_generated);
}

/* One element of "choices". */
static void put_choice(const struct answer *a, const struct answer_choice *c, struct buf *out)
{
    buf_printf(out, "{\"index\":%d", (int)(c - a->choice));
    if (!a->is_chat) {
        buf_add_str(out, ",\"text\":");
        js_put_string(out, buf_view(&c->text), false);
    } else if (!a->is_stream) {
        buf_add_str(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
        js_put_string(out, buf_view(&c->text), false);
        buf_add_str(out, ",\"refusal\":null}");
    } else {
        buf_add_str(out, ",\"delta\":{");
        buf_add_str(out, c->has_begun ? "" : "\"role\":\"assistant\"");
        if (c->text.n > 0 || !c->has_begun || c->entries.n > 0) {
            buf_add_str(out, c->has_begun ? "\"content\":" : ",\"content\":");
            js_put_string(out, buf_view(&c->text), false);
        }
        buf_add_char(out, '}');
    }
    put_logprobs(a, c, out);
    put_finish(c->finish, out);
    buf_add_char(out, '}');
}

static void put_chunk(const struct answer *a, struct answer_choice *c, struct buf *out)
{
    buf_add_str(out, "data: ");
    put_head(a, out);
    buf_add_str(out, ",\"choices\":[");
    put_choice(a, c, out);
    buf_add_str(out, a->has_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
    c->has_begun = true;
    buf_reset(&c->text);
    buf_reset(&c->entries);
    buf_reset(&c->tokens);
    buf_reset(&c->logprobs);
    buf_reset(&c->tops);
    buf_reset(&c->offsets);
}

static void put_end(const struct answer *a, const struct hearth_event *e, struct buf *out)
{
    if (!a->is_stream) {
        put_head(a, out);
        buf_add_str(out, ",\"choices\":[");
        for (int32_t i = 0; i < a->n_choice; i++) {
            buf_add_str(out, i > 0 ? "," : "");
            put_choice(a, &a->choice[i], out);
        }
        buf_add_char(out, ']');
        put_usage(e, out);
        buf_add_char(out, '}');
        return;
    }
    if (a->has_usage) {
        buf_add_str(out, "data: ");
        put_head(a, out);
        buf_add_str(out, ",\"choices\":[]");
        put_usage(e, out);
        buf_add_str(out, "}\n\n");
    }
    buf_add_str(out, "data: [DONE]\n\n");
}

static bool is_full(const struct answer_choice *c)
{
    return c->text.is_full || c->entries.is_full || c->tokens.is_full || c->logprobs.is_full ||
           c->tops.is_full || c->offsets.is_full;
}

bool answer_take(struct answer *a, const struct hearth_event *e, struct buf *out)
{
    if (e->kind == HEARTH_EVENT_END) {
        put_end(a, e, out);
        return !out->is_full;
    }
    if (NEVER(e->choice < 0 || e->choice >= a->n_choice)) {
        return false;
    }
    struct answer_choice *c = &a->choice[e->choice];
    buf_add(&c->text, e->text, e->n_text);
    if (a->has_logprobs && e->token >= 0 && e->kind == HEARTH_EVENT_TOKEN) {
        if (a->is_chat) {
            add_entry(a, c, e);
        } else {
            add_lists(a, c, e);
        }
    }
    if (is_full(c)) {
        return false;
    }
    c->n_char += count_chars(e->text, e->n_text);
    if (e->kind == HEARTH_EVENT_CHOICE_END) {
        c->finish = e->finish;
    }
    const bool has_news = c->text.n > 0 || c->entries.n > 0 || c->tokens.n > 0 ||
                          e->kind == HEARTH_EVENT_CHOICE_END || !c->has_begun;
    if (a->is_stream && has_news) {
        put_chunk(a, c, out);
    }
    return !out->is_full;
}

void answer_break(const struct answer *a, const struct refusal *why, struct buf *out)
{
    (void)a;
    buf_add_str(out, "data: ");
    refusal_put(why, out);
    buf_add_str(out, "\n\ndata: [DONE]\n\n");
}
