/* cmd_run - `hearth run`: chat in the terminal, or one answer
 *
 * With a PROMPT, or with text on standard input, there is one turn: the prompt first, then the
 * text, so that  `hearth run MODEL "Summarize:" < file`  does what it says. Otherwise a chat: lines
 * that begin with / are commands from the table below, all else goes to the model.
 *
 * Ctrl-C stops the answer, not the program: the handler only sets a flag, which the loop that waits
 * for events looks at. What was said until then stays in the conversation. At an empty prompt it
 * takes two of them to leave.
 *
 * A turn that fails, say because the context is full, is taken back as a whole; the conversation
 * stays as it was before.
 *
 * Models are not to be trusted with a terminal: what they say and how they are called goes there
 * without control characters; what they say goes as is into pipes and files.
 *
 * Only the public library is used for the engine's work. Next: cmd/cmd_bench.c. */
#include "cmd/cmd_run.h"

#include "base/buf.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/os.h"
#include "cmd/edit.h"
#include "cmd/nearest.h"
#include "cmd/open.h"
#include "cmd/talk.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX    ((size_t)16 << 20)
#define TEXT_COPIES 16 /* as read, in the conversation and its page, as JSON; twice as they grow */
#define CHAT_LEAST  ((size_t)65536) /* bytes of a conversation as JSON that the plan has room for */
#define CHAT_TOKEN  16 /* bytes for each token of the context: four times as many as usual */
#define POLL_US     50000

static volatile sig_atomic_t is_interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    is_interrupted = 1;
}

struct chat {
    const struct conf *c;
    struct open_model m;
    struct edit *edit; /* NULL: one turn */
    struct talk talk;
    struct buf answer;
    int32_t *ids;
    size_t n_id_max;
    size_t n_text_max;       /* bytes of a prompt, or of a conversation as JSON: in the plan */
    struct hearth_event end; /* of the last answer */
    bool is_terminal;        /* standard output */
    bool is_over;            /* /exit */
};

/* --- one turn --------------------------------------------------------------------------------- */

/* What to do about a prompt that is too long. */
static const char *advice(const struct chat *h)
{
    return h->edit == NULL ? "; --ctx N sets a larger one"
           : h->talk.system.n > 0
               ? ". The conversation is kept as it was; /clear begins a new one, "
                 "/system TEXT sets a shorter system message, --ctx N a larger "
                 "context"
               : ". The conversation is kept as it was; /clear begins a new one, "
                 "--ctx N sets a larger context";
}

/* How large the prompt is as the library gets it; what is no UTF-8 becomes three bytes each. */
static enum err measure(struct chat *h, struct view text)
{
    struct buf json;
    const struct talk_mark mark = talk_mark(&h->talk);
    if (h->c->is_raw) {
        h->n_text_max = utf8_valid(text) ? text.n : 3 * text.n;
        return ERR_OK;
    }
    buf_init(&json, 2 * TALK_MAX);
    talk_add(&h->talk, TALK_USER, text);
    const enum err e = talk_json(&h->talk, &json);
    talk_back(&h->talk, mark);
    h->n_text_max = json.n;
    buf_release(&json);
    return e;
}

static hearth_status make_tokens(struct chat *h, struct view text, size_t *n)
{
    const int32_t n_ctx = h->m.info.n_ctx;
    struct buf json;
    *n = h->n_id_max;
    hearth_status s;
    if (h->c->is_raw) {
        s = hearth_tokenize(h->m.model, text.p, text.n, HEARTH_ADD_SPECIAL, h->ids, n);
    } else {
        buf_init(&json, 2 * TALK_MAX);
        s = (hearth_status)talk_json(&h->talk, &json);
        if (s == HEARTH_OK && json.n > h->n_text_max) {
            s = (hearth_status)err_set(ERR_LIMIT,
                                       "with this text the conversation has %zu bytes, %zu are in "
                                       "the plan%s",
                                       json.n, h->n_text_max, advice(h));
        }
        s = s == HEARTH_OK ? hearth_chat_tokens(h->m.model, json.p, json.n, h->ids, n) : s;
        buf_release(&json);
    }
    if ((s == HEARTH_OK && *n >= (size_t)n_ctx) || (s == HEARTH_LIMIT && *n > h->n_id_max)) {
        return (hearth_status)err_set(
            ERR_LIMIT, "%s %zu tokens; the context holds %d, and one is needed for the answer%s",
            h->edit != NULL ? "with this text the conversation has" : "the prompt has", *n, n_ctx,
            advice(h));
    }
    return s;
}

static void fill_request(const struct conf *c, struct hearth_request_params *p)
{
    hearth_request_init(p);
    p->max_tokens = (int32_t)c->max_tokens;
    p->temperature = (float)c->temperature;
    p->top_k = (int32_t)c->top_k;
    p->top_p = (float)c->top_p;
    p->min_p = (float)c->min_p;
    p->ignore_eos = c->is_ignore_eos;
    p->seed = c->has_seed ? (uint64_t)c->seed : p->seed;
}

/* Text for a terminal: control characters other than newline and tab must not reach it. */
static void show_plain(FILE *to, struct view text)
{
    struct buf clean;
    buf_init(&clean, TEXT_MAX);
    utf8_plain(&clean, text, SIZE_MAX, true);
    fwrite(buf_str(&clean), 1, clean.n, to);
    buf_release(&clean);
}

/* While a terminal takes nothing (Ctrl-S) a write waits; Ctrl-C must not end it half done. */
static void hold_interrupts(int how)
{
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGINT);
    pthread_sigmask(how, &s, NULL);
}

static void show(const struct chat *h, const struct hearth_event *e)
{
    if (h->c->is_json || e->n_text == 0) {
        return;
    }
    hold_interrupts(SIG_BLOCK);
    if (h->is_terminal) {
        show_plain(stdout, (struct view){ e->text, e->n_text });
    } else {
        fwrite(e->text, 1, e->n_text, stdout);
    }
    fflush(stdout);
    hold_interrupts(SIG_UNBLOCK);
}

/* Shows the answer as it comes. */
static hearth_status receive(struct chat *h, struct hearth_request *r)
{
    struct hearth_event e;
    bool is_cancelled = false;
    for (;;) {
        const hearth_status s = hearth_next(r, POLL_US, &e);
        if ((is_interrupted || ferror(stdout) != 0) && !is_cancelled) {
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
        show(h, &e);
        if (e.kind == HEARTH_EVENT_END) {
            h->end = e;
            return e.finish != HEARTH_FINISH_ERROR
                       ? HEARTH_OK
                       : (hearth_status)err_set(ERR_INTEGRITY, "%s: %s", h->c->model,
                                                e.error != NULL ? e.error : "the answer failed");
        }
    }
}

struct speed {
    double prefill_tok_s;
    double decode_tok_s;
};

static struct speed speed_of(const struct hearth_event *e)
{
    struct speed v = { 0.0, 0.0 };
    if (e->prefill_us > 0) {
        v.prefill_tok_s = 1e6 * e->n_prompt / (double)e->prefill_us;
    }
    if (e->decode_us > 0 && e->n_generated > 1) {
        v.decode_tok_s = 1e6 * (e->n_generated - 1) / (double)e->decode_us;
    }
    return v;
}

static const char *finish_name(enum hearth_finish f)
{
    static const char *const names[] = {
        "none", "stop", "length", "cancelled", "timeout", "error"
    };
    return names[f];
}

static enum err report_json(const struct chat *h)
{
    const struct hearth_event *e = &h->end;
    const struct speed v = speed_of(e);
    struct hearth_stats stats;
    struct buf b;
    hearth_model_get_stats(h->m.model, &stats);
    buf_init(&b, 8 * TEXT_MAX);
    buf_add_str(&b, "{\"version\": 1, \"text\": ");
    js_put_string(&b, buf_view(&h->answer), false);
    buf_printf(&b,
               ", \"finish\": \"%s\", \"prompt_tokens\": %d, \"generated_tokens\": %d, "
               "\"prefill_tok_s\": %.2f, "
               "\"decode_tok_s\": %.2f, \"first_token_ms\": %.1f, \"planned_bytes\": %llu, "
               "\"rss_peak_bytes\": %llu}\n",
               finish_name(e->finish), e->n_prompt, e->n_generated, v.prefill_tok_s, v.decode_tok_s,
               (double)(e->queue_us + e->prefill_us) / 1e3,
               (unsigned long long)stats.memory_planned_bytes,
               (unsigned long long)stats.rss_peak_bytes);
    const enum err e_full = buf_check(&b, "the answer as JSON");
    if (e_full == ERR_OK) {
        fwrite(b.p, 1, b.n, stdout);
    }
    buf_release(&b);
    return e_full;
}

/* Says why an answer ended early, where a person would wonder. */
static void remark(const struct chat *h)
{
    const struct hearth_event *e = &h->end;
    const bool is_context_full = e->n_prompt + e->n_generated >= h->m.info.n_ctx;
    if (e->finish == HEARTH_FINISH_LENGTH && is_context_full) {
        fprintf(stderr, "[cut: %d tokens of prompt and %d of answer fill the context of %d]\n",
                e->n_prompt, e->n_generated, h->m.info.n_ctx);
    } else if (e->finish == HEARTH_FINISH_LENGTH && h->edit != NULL) {
        fprintf(stderr, "[cut after %d tokens: --max-tokens]\n", e->n_generated);
    } else if (e->finish == HEARTH_FINISH_CANCELLED && is_interrupted) {
        fprintf(stderr, "[stopped]\n");
    }
    if (h->c->is_verbose) {
        const struct speed v = speed_of(e);
        fprintf(stderr, "[%d prompt tokens at %.1f tok/s, %d tokens at %.1f tok/s, %s]\n",
                e->n_prompt, v.prefill_tok_s, e->n_generated, v.decode_tok_s,
                finish_name(e->finish));
    }
}

static enum err report(const struct chat *h)
{
    const struct buf *a = &h->answer;
    const bool is_line_open = a->n == 0 || a->p[a->n - 1] != '\n';
    if (h->c->is_json) {
        TRY(report_json(h));
    } else if (is_line_open && (a->n > 0 || h->edit != NULL)) {
        fputs("\n", stdout);
    }
    fflush(stdout);
    if (!h->c->is_json) {
        remark(h);
    }
    return ERR_OK;
}

/* The user's text to an answer. */
static hearth_status turn(struct chat *h, struct view text)
{
    struct hearth_request_params p;
    struct hearth_request *r = NULL;
    size_t n = 0;
    const struct talk_mark mark = talk_mark(&h->talk);
    buf_reset(&h->answer);
    is_interrupted = 0;
    talk_add(&h->talk, TALK_USER, text);
    fill_request(h->c, &p);
    hearth_status s = make_tokens(h, text, &n);
    if (s == HEARTH_OK) {
        p.tokens = h->ids;
        p.n_token = n;
        s = hearth_submit(h->m.model, &p, &r);
    }
    s = s == HEARTH_OK ? receive(h, r) : s;
    if (s == HEARTH_OK && h->answer.lacks_memory) { /* what was shown is all there is of it */
        s = (hearth_status)buf_check(&h->answer, "the answer");
    }
    if (s == HEARTH_OK && h->answer.n > 0) {
        talk_add(&h->talk, TALK_ASSISTANT, buf_view(&h->answer));
    } else {
        talk_back(&h->talk, mark); /* the turn did not happen */
    }
    s = s == HEARTH_OK ? (hearth_status)report(h) : s;
    hearth_request_close(r);
    return s;
}

/* --- the commands of the chat ----------------------------------------------------------------- */

static void do_help(struct chat *h, struct view rest);

static void do_clear(struct chat *h, struct view rest)
{
    (void)rest;
    talk_forget(&h->talk);
    fprintf(edit_say(h->edit), "[a new conversation%s]\n",
            h->talk.system.n > 0 ? "; the system message stays" : "");
}

static void do_system(struct chat *h, struct view rest)
{
    if (h->c->is_raw) {
        fprintf(stderr, "hearth: a chat with --raw has no system message\n");
    } else if (rest.n > 0) {
        talk_system(&h->talk, rest);
        fprintf(edit_say(h->edit), "[the system message counts from the next turn on]\n");
    } else {
        fprintf(edit_say(h->edit), "%s\n",
                h->talk.system.n > 0 ? buf_str(&h->talk.system) : "[no system message]");
    }
}

static void do_save(struct chat *h, struct view rest)
{
    char *path = rest.n > 0 ? mem_strdup(rest.p, rest.n) : NULL;
    if (path == NULL) {
        fprintf(stderr, "hearth: /save needs a file name\n");
    } else if (talk_save(&h->talk, path) != ERR_OK) {
        fprintf(stderr, "hearth: %s\n", err_text());
    } else {
        fprintf(edit_say(h->edit), "[saved to %s]\n", path);
    }
    mem_free(path);
}

static void do_exit(struct chat *h, struct view rest)
{
    (void)rest;
    h->is_over = true;
}

static const struct command {
    const char *name;
    const char *argument;
    const char *what;
    void (*run)(struct chat *h, struct view rest);
} commands[] = {
    { "help", "", "this list", do_help },
    { "clear", "", "forget the conversation and begin a new one", do_clear },
    { "system", "TEXT", "set the system message; without TEXT, show it", do_system },
    { "save", "FILE", "write the conversation: JSON if FILE ends in .json, else Markdown",
      do_save },
    { "exit", "", "leave", do_exit },
};
#define N_COMMAND (sizeof commands / sizeof commands[0])

static void do_help(struct chat *h, struct view rest)
{
    FILE *say = edit_say(h->edit);
    (void)rest;
    for (size_t i = 0; i < N_COMMAND; i++) {
        fprintf(say, "  /%-7s%-6s %s\n", commands[i].name, commands[i].argument, commands[i].what);
    }
    fprintf(say,
            "A line that ends in \\ goes on with the next one; \"\"\" begins and ends a block; "
            "Alt-Enter makes a new line;\npasted text stays one message. Up and Down walk through "
            "earlier messages, Ctrl-R searches them.\nA message that begins with a blank is not "
            "kept there, and is never a command.\n"
            "Ctrl-C stops an answer; at an empty prompt, twice, it leaves. Ctrl-D leaves.\n");
}

/* Whether the text is a command: a slash, letters, then a blank or the end. A path is none. */
static bool split_command(struct view text, struct view *name, struct view *rest)
{
    size_t n = 1;
    if (!view_starts(text, VIEW("/"))) {
        return false;
    }
    while (n < text.n && (text.p[n] | 32) >= 'a' && (text.p[n] | 32) <= 'z') {
        n++;
    }
    if (n == 1 || (n < text.n && text.p[n] != ' ' && text.p[n] != '\n')) {
        return false;
    }
    *name = view_part(text, 1, n - 1);
    while (n < text.n && (text.p[n] == ' ' || text.p[n] == '\n')) {
        n++;
    }
    *rest = view_from(text, n);
    while (rest->n > 0 && rest->p[rest->n - 1] == ' ') {
        rest->n--;
    }
    return true;
}

/* --- the chat --------------------------------------------------------------------------------- */

static void take_text(struct chat *h, struct view text)
{
    struct view name = { NULL, 0 };
    struct view rest = { NULL, 0 };
    if (!split_command(text, &name, &rest)) {
        if (turn(h, text) != HEARTH_OK) {
            fprintf(stderr, "hearth: %s\n", hearth_error());
        }
        return;
    }
    for (size_t i = 0; i < N_COMMAND; i++) {
        if (view_is(name, commands[i].name)) {
            commands[i].run(h, rest);
            return;
        }
    }
    fprintf(stderr, "hearth: /%.*s is no command; /help lists them\n", (int)name.n, name.p);
}

static bool is_blank(const struct buf *text)
{
    return text->n == 0 || strspn(text->p, " \t\n") == text->n;
}

static int chat_loop(struct chat *h)
{
    struct buf text;
    enum edit_event what = EDIT_TEXT;
    enum err e = ERR_OK;
    bool is_leaving = false;
    FILE *say = edit_say(h->edit);
    buf_init(&text, h->n_text_max);
    show_plain(say, view_of(h->m.info.name[0] != '\0' ? h->m.info.name : h->m.info.arch));
    fprintf(say, ", %s, %d tokens of context. /help lists commands; Ctrl-C stops an answer.\n",
            h->m.info.type, h->m.info.n_ctx);
    while (!h->is_over) {
        e = edit_turn(h->edit, &text, &what);
        if (e != ERR_OK && e != ERR_LIMIT) {
            break;
        }
        if (e == ERR_LIMIT) {
            fprintf(stderr, "hearth: %s\n", err_text());
        } else if (what == EDIT_END || (what == EDIT_INTERRUPT && text.n == 0 && is_leaving)) {
            break;
        } else if (what == EDIT_INTERRUPT && text.n == 0) {
            fprintf(say, "[Ctrl-C again or Ctrl-D leaves]\n");
        } else if (what == EDIT_TEXT && !is_blank(&text)) {
            take_text(h, buf_view(&text));
        }
        is_leaving = e == ERR_OK && what == EDIT_INTERRUPT && text.n == 0;
    }
    if (what == EDIT_END) {
        fputs("\n", say);
    }
    buf_release(&text);
    return e == ERR_OK || e == ERR_LIMIT ? 0 : open_fail((hearth_status)e);
}

/* --- one answer ------------------------------------------------------------------------------- */

/* Whether standard input may bring text: a pipe or a file, not a terminal or a device. */
static bool has_input(void)
{
    struct stat st;
    return fstat(STDIN_FILENO, &st) == 0 &&
           (S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode));
}

static enum err read_input(struct buf *text)
{
    char piece[16384];
    ssize_t n = 1;
    while (n != 0 && !text->is_full) {
        n = read(STDIN_FILENO, piece, sizeof piece);
        REQUIRE(n >= 0 || errno == EINTR, ERR_IO, "cannot read standard input: %s",
                strerror(errno));
        buf_add(text, piece, n > 0 ? (size_t)n : 0);
    }
    return buf_check(text, "the text on standard input");
}

/* PROMPT and standard input, in this order. */
static enum err gather(const struct conf *c, struct buf *text)
{
    if (c->prompt != NULL) {
        buf_add_str(text, c->prompt);
        TRY(buf_check(text, "the prompt"));
    }
    if (has_input()) {
        struct buf piped;
        buf_init(&piped, TEXT_MAX);
        const enum err e = read_input(&piped);
        if (e == ERR_OK && piped.n > 0) {
            buf_add_str(text, text->n > 0 ? "\n\n" : "");
            buf_add_view(text, buf_view(&piped));
        }
        buf_release(&piped);
        TRY(e);
    }
    REQUIRE(text->n > 0, ERR_USAGE, "the prompt is empty");
    return buf_check(text, "the prompt");
}

static int one_turn(struct chat *h, struct view prompt)
{
    const hearth_status s = turn(h, prompt);
    if (s != HEARTH_OK) {
        return open_fail(s);
    }
    return h->end.finish == HEARTH_FINISH_CANCELLED ? (int)HEARTH_CANCELLED : 0;
}

/* For a text of n bytes, beside the model. */
static uint64_t text_bytes(size_t n)
{
    return HEARTH_TEXT_BYTES(n) + TEXT_COPIES * n;
}

static hearth_status open_chat(struct chat *h, const char *path)
{
    const struct sigaction act = { .sa_handler = on_interrupt };
    const size_t n = h->n_text_max;
    hearth_status s = open_all(h->c, path, text_bytes(n), &h->m);
    if (s != HEARTH_OK) {
        return s == HEARTH_MEMORY && n > CHAT_LEAST
                   ? (hearth_status)err_at(ERR_MEMORY, "with %s of %zu bytes",
                                           h->edit != NULL ? "a conversation" : "a prompt", n)
                   : s;
    }
    h->n_id_max = (size_t)h->m.info.n_ctx + 1;
    h->ids = mem_alloc_array(h->n_id_max, sizeof h->ids[0]);
    if (h->ids == NULL) {
        return (hearth_status)err_set(ERR_MEMORY, "no memory for %zu tokens", h->n_id_max);
    }
    sigaction(SIGINT, &act, NULL);
    return HEARTH_OK;
}

/* The history of earlier sessions; without a home folder there is none. */
static enum err open_edit(struct edit **e)
{
    struct buf path;
    buf_init(&path, 4096);
    const bool has_folder = os_dir(OS_DIR_STATE, &path) == ERR_OK;
    buf_add_str(&path, "/run-history");
    const enum err err = edit_open(e, has_folder && !path.is_full ? buf_str(&path) : NULL);
    buf_release(&path);
    return err;
}

/* What a chat's text may have: known before the model is opened, as the plan counts for it. */
static size_t chat_bytes(const struct conf *c)
{
    const size_t n = (size_t)c->ctx * CHAT_TOKEN;
    return n > CHAT_LEAST ? n : CHAT_LEAST;
}

uint64_t cmd_run_extra_bytes(const struct conf *c)
{
    return text_bytes(chat_bytes(c));
}

static void fill_near(const struct conf *c, bool is_tried, struct hearth_model_params *p)
{
    (void)is_tried;
    open_params(c, p);
    p->extra_bytes = cmd_run_extra_bytes(c);
}

/* What would fit, behind a refusal. */
static void tell_nearest(const struct chat *h, const char *path)
{
    struct hearth_model_params p;
    struct hearth_plan plan;
    fill_near(h->c, true, &p);
    if (h->m.box != NULL && hearth_plan_make(h->m.box, path, &p, &plan) == HEARTH_OK &&
        !plan.fits) {
        nearest_tell(h->m.box, h->c, path, &plan, fill_near);
    }
}

static enum err check_options(const struct conf *c)
{
    REQUIRE(!c->is_raw || c->system == NULL, ERR_USAGE,
            "--raw continues a text without a chat template, where --system has no place; leave "
            "one of them out");
    return ERR_OK;
}

int cmd_run(const struct conf *c, const char *path)
{
    struct chat h = { .c = c, .is_terminal = isatty(STDOUT_FILENO) };
    struct buf prompt;
    const bool is_chat = c->prompt == NULL && isatty(STDIN_FILENO);
    buf_init(&prompt, TEXT_MAX);
    buf_init(&h.answer, TEXT_MAX);
    talk_init(&h.talk);
    if (c->system != NULL) {
        talk_system(&h.talk, view_of(c->system));
    }
    enum err e = check_options(c);
    if (e == ERR_OK && is_chat) {
        h.n_text_max = chat_bytes(c);
        e = open_edit(&h.edit);
    } else if (e == ERR_OK) {
        e = gather(c, &prompt);
        e = e == ERR_OK ? measure(&h, buf_view(&prompt)) : e;
    }
    hearth_status s = (hearth_status)e;
    s = s == HEARTH_OK ? open_chat(&h, path) : s;
    int code = 0;
    if (s != HEARTH_OK) {
        code = open_fail(s);
        if (s == HEARTH_MEMORY) {
            tell_nearest(&h, path);
        }
    } else {
        code = is_chat ? chat_loop(&h) : one_turn(&h, buf_view(&prompt));
    }
    mem_free(h.ids);
    open_close(&h.m);
    edit_close(h.edit);
    talk_release(&h.talk);
    buf_release(&h.answer);
    buf_release(&prompt);
    return code;
}
