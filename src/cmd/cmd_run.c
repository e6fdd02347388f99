/* cmd_run - `hearth run`: chat in the terminal, or one answer
 *
 * A conversation is a JSON list of messages that grows by two with each turn; the model's template
 * renders all of it each time. With a PROMPT, or with text on standard input, there is one turn:
 * the prompt first, then the text, so that  `hearth run MODEL "Summarize:" < file`  does what it
 * says.
 *
 * Ctrl-C stops the answer, not the program: the handler only sets a flag, which the loop that waits
 * for events looks at. A second Ctrl-C at the prompt ends the program.
 *
 * Only the public library is used. Next: cmd/cmd_bench.c. */
#include "cmd/cmd_run.h"

#include "base/buf.h"
#include "base/js.h"
#include "base/lines.h"
#include "base/mem.h"
#include "base/os.h"
#include "cmd/open.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX ((size_t)16 << 20)
#define POLL_US  50000

static volatile sig_atomic_t is_interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    is_interrupted = 1;
}

struct chat {
    const struct conf *c;
    struct open_model m;
    struct buf messages; /* JSON objects, comma between */
    struct buf answer;
    int32_t *ids;
    size_t n_id_max;
    struct hearth_event end; /* of the last answer */
};

static void add_message(struct buf *messages, const char *role, struct view text)
{
    buf_add_str(messages, messages->n > 0 ? ", " : "");
    buf_printf(messages, "{\"role\": \"%s\", \"content\": ", role);
    js_put_string(messages, text, false);
    buf_add_char(messages, '}');
}

static hearth_status make_tokens(struct chat *h, struct view text, size_t *n)
{
    *n = h->n_id_max;
    if (h->c->is_raw) {
        return hearth_tokenize(h->m.model, text.p, text.n, HEARTH_ADD_SPECIAL, h->ids, n);
    }
    struct buf json;
    buf_init(&json, TEXT_MAX + 64);
    buf_printf(&json, "{\"messages\": [%s]}", buf_str(&h->messages));
    const hearth_status s = hearth_chat_tokens(h->m.model, json.p, json.n, h->ids, n);
    buf_release(&json);
    return s;
}

static void fill_request(const struct conf *c, struct hearth_request_params *p)
{
    hearth_request_init(p);
    p->max_tokens = (int32_t)c->max_tokens;
    p->temperature = (float)c->temperature;
    p->top_k = (int32_t)c->top_k;
    p->top_p = c->top_p > 0.0 ? (float)c->top_p : 1.0f;
    p->min_p = (float)c->min_p;
    p->ignore_eos = c->is_ignore_eos;
    p->seed = c->has_seed ? (uint64_t)c->seed : p->seed;
}

/* Prints the answer as it comes. */
static hearth_status receive(struct chat *h, struct hearth_request *r)
{
    struct hearth_event e;
    bool is_cancelled = false;
    for (;;) {
        const hearth_status s = hearth_next(r, POLL_US, &e);
        if (is_interrupted && !is_cancelled) {
            hearth_cancel(r);
            is_cancelled = true;
        }
        if (s == HEARTH_BUSY) {
            continue;
        }
        if (s != HEARTH_OK) {
            return s;
        }
        buf_add(&h->answer, e.text, e.n_text);
        if (!h->c->is_json && e.n_text > 0) {
            fwrite(e.text, 1, e.n_text, stdout);
            fflush(stdout);
        }
        if (e.kind == HEARTH_EVENT_END) {
            h->end = e;
            is_interrupted = 0;
            return HEARTH_OK;
        }
    }
}

static void report(const struct chat *h)
{
    const struct hearth_event *e = &h->end;
    const double prefill = e->prefill_us > 0 ? 1e6 * e->n_prompt / (double)e->prefill_us : 0.0;
    const double decode = e->decode_us > 0 && e->n_generated > 1
                              ? 1e6 * (e->n_generated - 1) / (double)e->decode_us
                              : 0.0;
    static const char *const finish[] = {
        "none", "stop", "length", "cancelled", "timeout", "error"
    };
    if (h->c->is_json) {
        struct buf b;
        struct hearth_stats stats;
        hearth_model_get_stats(h->m.model, &stats);
        buf_init(&b, TEXT_MAX);
        buf_add_str(&b, "{\"text\": ");
        js_put_string(&b, buf_view(&h->answer), false);
        buf_printf(&b,
                   ", \"finish\": \"%s\", \"prompt_tokens\": %d, \"generated_tokens\": %d, "
                   "\"prefill_tok_s\": %.2f, "
                   "\"decode_tok_s\": %.2f, \"first_token_ms\": %.1f, \"planned_bytes\": %llu, "
                   "\"rss_peak_bytes\": %llu}\n",
                   finish[e->finish], e->n_prompt, e->n_generated, prefill, decode,
                   (double)(e->queue_us + e->prefill_us) / 1e3,
                   (unsigned long long)stats.memory_planned_bytes,
                   (unsigned long long)stats.rss_peak_bytes);
        fwrite(b.p, 1, b.n, stdout);
        buf_release(&b);
    } else if (h->c->is_verbose) {
        fprintf(stderr, "[%d prompt tokens at %.1f tok/s, %d tokens at %.1f tok/s, %s]\n",
                e->n_prompt, prefill, e->n_generated, decode, finish[e->finish]);
    }
    fflush(stdout);
}

/* One turn: the user's text to an answer. */
static hearth_status turn(struct chat *h, struct view text)
{
    struct hearth_request_params p;
    struct hearth_request *r = NULL;
    size_t n = 0;
    const size_t mark = h->messages.n;
    buf_reset(&h->answer);
    add_message(&h->messages, "user", text);
    fill_request(h->c, &p);
    hearth_status s = make_tokens(h, text, &n);
    if (s == HEARTH_OK) {
        p.tokens = h->ids;
        p.n_token = n;
        s = hearth_submit(h->m.model, &p, &r);
    }
    s = s == HEARTH_OK ? receive(h, r) : s;
    hearth_request_close(r);
    if (s != HEARTH_OK) {
        buf_cut(&h->messages, mark); /* the turn did not happen */
        return s;
    }
    add_message(&h->messages, "assistant", buf_view(&h->answer));
    if (!h->c->is_json && h->answer.n > 0 && h->answer.p[h->answer.n - 1] != '\n') {
        fputs("\n", stdout);
    }
    report(h);
    return HEARTH_OK;
}

/* Lines until one does not end in a backslash. false at the end of input. */
static bool read_turn(struct lines *in, struct buf *text)
{
    struct view line;
    bool has_line = false;
    buf_reset(text);
    fputs("> ", stdout);
    fflush(stdout);
    while (lines_next(in, &line, &has_line) == ERR_OK && has_line) {
        const bool goes_on = view_ends(line, VIEW("\\"));
        buf_add_view(text, view_part(line, 0, line.n - goes_on));
        if (!goes_on) {
            return true;
        }
        buf_add_char(text, '\n');
        fputs("  ", stdout);
        fflush(stdout);
    }
    return text->n > 0;
}

static int chat_loop(struct chat *h)
{
    struct lines in;
    struct buf text;
    lines_init(&in, STDIN_FILENO, TEXT_MAX);
    buf_init(&text, TEXT_MAX);
    printf("%s, %s, %d tokens of context. A line ending in \\ goes on, Ctrl-C stops an answer, "
           "Ctrl-D ends.\n",
           h->m.info.name[0] != '\0' ? h->m.info.name : h->m.info.arch, h->m.info.type,
           h->m.info.n_ctx);
    while (read_turn(&in, &text)) {
        if (text.n > 0 && turn(h, buf_view(&text)) != HEARTH_OK) {
            fprintf(stderr, "hearth: %s\n", hearth_error());
        }
        is_interrupted = 0;
    }
    fputs("\n", stdout);
    lines_release(&in);
    buf_release(&text);
    return 0;
}

/* PROMPT and standard input, in this order. */
static enum err gather(const struct conf *c, struct buf *text)
{
    if (c->prompt != NULL) {
        buf_add_str(text, c->prompt);
    }
    if (!isatty(STDIN_FILENO) &&
        (c->prompt == NULL || c->prompt[0] == '\0' || lseek(STDIN_FILENO, 0, SEEK_CUR) >= 0)) {
        struct buf piped;
        buf_init(&piped, TEXT_MAX);
        enum err e = os_read_file("/dev/stdin", &piped);
        if (e == ERR_OK && piped.n > 0) {
            buf_add_str(text, text->n > 0 ? "\n\n" : "");
            buf_add_view(text, buf_view(&piped));
        }
        buf_release(&piped);
        TRY(e);
    }
    return buf_check(text, "the prompt");
}

static int one_turn(struct chat *h)
{
    struct buf text;
    buf_init(&text, TEXT_MAX);
    enum err e = gather(h->c, &text);
    if (e == ERR_OK && text.n == 0) {
        e = err_set(ERR_USAGE, "the prompt is empty");
    }
    const hearth_status s = e == ERR_OK ? turn(h, buf_view(&text)) : (hearth_status)e;
    buf_release(&text);
    return s == HEARTH_OK ? 0 : open_fail(s);
}

int cmd_run(const struct conf *c, const char *path)
{
    struct chat h = { .c = c };
    const struct sigaction act = { .sa_handler = on_interrupt };
    hearth_status s = open_all(c, path, &h.m);
    if (s != HEARTH_OK) {
        open_close(&h.m);
        return open_fail(s);
    }
    buf_init(&h.messages, TEXT_MAX);
    buf_init(&h.answer, TEXT_MAX);
    h.n_id_max = (size_t)h.m.info.n_ctx + 1;
    h.ids = mem_alloc_array(h.n_id_max, sizeof h.ids[0]);
    int code = (int)HEARTH_MEMORY;
    if (h.ids != NULL) {
        if (c->system != NULL) {
            add_message(&h.messages, "system", view_of(c->system));
        }
        sigaction(SIGINT, &act, NULL);
        const bool is_chat = c->prompt == NULL && isatty(STDIN_FILENO);
        code = is_chat ? chat_loop(&h) : one_turn(&h);
    }
    mem_free(h.ids);
    buf_release(&h.messages);
    buf_release(&h.answer);
    open_close(&h.m);
    return code;
}
