/* prep - the thread that turns request bodies into tokens
 *
 * Takes an item, reads its body, checks the model's name, renders and tokenizes, hands it back. All
 * that can be slow for a hostile or merely long request happens here: parsing megabytes of JSON,
 * running a template, tokenizing a book. One thread is enough, since a prompt takes far longer to
 * compute than to tokenize; requests that need no preparation do not pass here.
 *
 * Short bodies go before long ones, since a book can take seconds and a question takes none. Each
 * byte of a body counts as AGE_US of waiting, so what came much later overtakes nobody (PR-2). A
 * client that left is noticed before each stage; the rest of its work is not done. Rejected: first
 * come, first served (a few books delay everybody), a second thread (twice the memory in the plan).
 *
 * A prompt that leaves no room for an answer is refused here with both numbers. It is never cut.
 * A template that looks at the content alone leaves tool calls out, or fails where there is none;
 * some show either. What a template makes of calls beside nothing, an empty text and a text is
 * tried with examples when the first such calls come, and calls that it leaves out are refused.
 *
 * What is ready holds ids and perhaps a reply until the loop thread takes it. When that has much to
 * do, many such could come together, and the plan has room for one: so nothing is begun before most
 * of it was taken (PR-3).
 *
 * Both queues and the list have room for every item that can exist: none of them can be full.
 *
 * Next: serve/job.c, which follows a request from here to its end. */
#include "serve/prep.h"

#include "base/event.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/team.h"

#include <stdio.h>
#include <string.h>

#define WAIT_US     1000000
#define AGE_US      10 /* several times what a byte takes */
#define EXAMPLE_MAX 65536

/* What the template makes of tool calls; unknown when it refuses the examples. */
enum calls { CALLS_UNTRIED, CALLS_UNKNOWN, CALLS_SHOWN, CALLS_DROPPED };

struct prep {
    struct hearth_model *model;
    const char *model_id;
    struct hearth_model_info info;
    enum calls calls[MESSAGES_BESIDE]; /* owner: the prep thread */
    struct queue *in;
    struct queue *done;
    struct prep_item **waiting; /* [n_waiting], room for all; owner: the prep thread */
    size_t n_waiting;
    struct thread *thread;
    int fd;
    struct cell is_closing;
    struct cell done_bytes; /* that items in `done` hold */
};

static enum err refuse(struct prep_item *i, hearth_status s, const char *param)
{
    return refusal_from(&i->why, (enum err)s, param);
}

static enum err check_model(const struct prep *p, struct prep_item *i)
{
    const char *name = i->params.model;
    return name[0] == '\0' || strcmp(name, p->model_id) == 0
               ? ERR_OK
               : refusal_set(&i->why, 404, "model_not_found", "model",
                             "model \"%.100s\" is not served here; this service has \"%s\"", name,
                             p->model_id);
}

static enum err too_long(const struct prep *p, struct prep_item *i, size_t n)
{
    return refusal_set(&i->why, 400, "context_length_exceeded",
                       i->kind == PARAMS_CHAT ? "messages" : "prompt",
                       "the prompt has %zu tokens and the context of this service %d, of which an "
                       "answer needs at least 1: shorten the prompt, or serve with a larger --ctx",
                       n, p->info.n_ctx);
}

static enum calls try_example(const struct hearth_model *model, const char *json)
{
    size_t n = EXAMPLE_MAX;
    char *text = mem_alloc(n + 1); /* zeroed: the text ends */
    const hearth_status s =
        text != NULL ? hearth_chat_text(model, json, strlen(json), text, &n) : HEARTH_MEMORY;
    const bool is_shown = s == HEARTH_OK && strstr(text, "example_call") != NULL;
    mem_free(text);
    return is_shown             ? CALLS_SHOWN
           : s == HEARTH_OK     ? CALLS_DROPPED
           : s == HEARTH_MEMORY ? CALLS_UNTRIED
                                : CALLS_UNKNOWN;
}

/* With an answer to the call, which some templates want, and without, since others refuse it; then
 * both behind a system message. CALLS_UNTRIED: no memory now. */
static enum calls try_calls(const struct hearth_model *model, enum messages_beside beside)
{
    static const char *const contents[] = {
        [MESSAGES_NOTHING] = "null", [MESSAGES_EMPTY] = "\"\"", [MESSAGES_TEXT] = "\"c\""
    };
    static const char *const answers[] = {
        ", {\"role\": \"tool\", \"tool_call_id\": \"example01\", \"content\": \"b\"}", ""
    };
    static const char *const fronts[] = { "", "{\"role\": \"system\", \"content\": \"s\"}, " };
    enum calls calls = CALLS_UNKNOWN;
    for (int i = 0; i < 4 && calls == CALLS_UNKNOWN; i++) {
        char json[512];
        snprintf(
            json, sizeof json,
            "{\"messages\": [%s{\"role\": \"user\", \"content\": \"a\"}, {\"role\": "
            "\"assistant\", \"content\": %s, \"tool_calls\": [{\"id\": \"example01\", \"type\": "
            "\"function\", \"function\": {\"name\": \"example_call\", \"arguments\": {}}}]}%s]}",
            fronts[i / 2], contents[beside], answers[i % 2]);
        calls = try_example(model, json);
    }
    return calls;
}

/* Refuses tool calls of which the template makes this; ERR_OK when there are none. */
static enum err refuse_calls(struct prep *p, struct prep_item *i, enum calls what, const char *why)
{
    static const char *const beside[] = { [MESSAGES_NOTHING] = "without content",
                                          [MESSAGES_EMPTY] = "beside an empty content",
                                          [MESSAGES_TEXT] = "beside a content" };
    char line[ERR_TEXT_MAX];
    snprintf(line, sizeof line, "%s", why);
    for (int k = 0; k < MESSAGES_BESIDE; k++) {
        const char *place = i->params.calls.place[k];
        if (place[0] == '\0') {
            continue;
        }
        if (p->calls[k] == CALLS_UNTRIED) {
            p->calls[k] = try_calls(p->model, (enum messages_beside)k);
        }
        if (p->calls[k] == CALLS_UNTRIED) {
            return refusal_set(&i->why, 503, "out_of_memory", NULL,
                               "no memory to try tool calls with the chat template");
        }
        if (p->calls[k] == what) {
            return refusal_set(&i->why, 400, "unsupported", place,
                               "%s: tool calls %s: the chat template of this model has no words "
                               "for them (%s); take them out and send as content what they said",
                               place, beside[k], line);
        }
    }
    return ERR_OK;
}

static enum err take_room(struct prep_item *i, size_t n)
{
    i->ids = mem_alloc_array(n, sizeof i->ids[0]);
    i->n_room = n;
    return i->ids != NULL
               ? ERR_OK
               : refusal_set(&i->why, 503, "out_of_memory", NULL, "no memory for %zu tokens", n);
}

/* Text to ids in room for n_max; a larger count than room is reported in i->n_id with HEARTH_LIMIT.
 */
static hearth_status tokenize(const struct prep *p, struct prep_item *i, size_t n_max)
{
    const struct params *q = &i->params;
    const struct view text = buf_view(&q->text);
    i->n_id = n_max;
    if (i->kind == PARAMS_CHAT) {
        return hearth_chat_tokens(p->model, text.p, text.n, i->ids, &i->n_id);
    }
    const int flags =
        (q->adds_special ? HEARTH_ADD_SPECIAL : 0) | (q->parses_special ? HEARTH_PARSE_SPECIAL : 0);
    return hearth_tokenize(p->model, text.p != NULL ? text.p : "", text.n, flags, i->ids, &i->n_id);
}

static enum err make_prompt(struct prep *p, struct prep_item *i)
{
    const size_t n_max = (size_t)p->info.n_ctx - 1;
    const char *param = i->kind == PARAMS_CHAT ? "messages" : "prompt";
    if (i->params.ids != NULL) {
        i->n_id = i->params.n_id;
        i->ids = i->params.ids;
        i->n_room = i->n_id;
        i->params.ids = NULL;
    } else {
        TRY(refuse_calls(p, i, CALLS_DROPPED, "it leaves them out"));
        TRY(take_room(i, n_max));
        const hearth_status s = tokenize(p, i, n_max);
        if (s == HEARTH_FAILED) {
            TRY(refuse_calls(p, i, CALLS_UNKNOWN, hearth_error()));
        }
        if (s == HEARTH_FAILED && i->kind == PARAMS_CHAT) {
            return refuse(i, HEARTH_USAGE, param); /* the template has no words for such messages */
        }
        if (s != HEARTH_OK && !(s == HEARTH_LIMIT && i->n_id > n_max)) {
            return refuse(i, s, param);
        }
    }
    if (i->n_id > n_max) {
        return too_long(p, i, i->n_id);
    }
    for (size_t k = 0; k < i->n_id; k++) {
        if (i->ids[k] >= p->info.n_vocab) {
            return refusal_set(&i->why, 400, "invalid_value", param,
                               "token id %d at place %zu: the vocabulary has %d tokens", i->ids[k],
                               k, p->info.n_vocab);
        }
    }
    return i->n_id > 0 ? ERR_OK
                       : refusal_set(&i->why, 400, "invalid_value", param, "the prompt is empty");
}

/* What only the model can tell about the other fields. */
static enum err check_bias(const struct prep *p, struct prep_item *i)
{
    for (size_t k = 0; k < i->params.request.n_bias; k++) {
        if (i->params.bias[k].token >= p->info.n_vocab) {
            return refusal_set(&i->why, 400, "invalid_value", "logit_bias",
                               "logit_bias: token id %d; the vocabulary has %d tokens",
                               i->params.bias[k].token, p->info.n_vocab);
        }
    }
    return ERR_OK;
}

/* /tokenize: any length, so the room follows the text: no token is shorter than nothing, and few
 * texts have more tokens than bytes. */
static enum err reply_tokens(const struct prep *p, struct prep_item *i)
{
    const size_t n_max = i->params.text.n + 16;
    TRY(take_room(i, n_max));
    const hearth_status s = tokenize(p, i, n_max);
    if (s != HEARTH_OK) {
        return refuse(i, s, "content");
    }
    buf_printf(&i->reply, "{\"tokens\":[");
    for (size_t k = 0; k < i->n_id; k++) {
        buf_printf(&i->reply, k > 0 ? ",%d" : "%d", i->ids[k]);
    }
    buf_printf(&i->reply, "],\"count\":%zu,\"max_model_len\":%d}", i->n_id, p->info.n_ctx);
    return ERR_OK;
}

static enum err reply_text(const struct prep *p, struct prep_item *i)
{
    struct params *q = &i->params;
    size_t n = 0;
    hearth_status s = hearth_detokenize(p->model, q->ids, q->n_id, HEARTH_SHOW_SPECIAL, NULL, &n);
    if (s != HEARTH_OK && s != HEARTH_LIMIT) {
        return refuse(i, s, "tokens");
    }
    char *text = mem_alloc(n + 1);
    struct buf clean;
    buf_init(&clean, PREP_REPLY_MAX);
    s = text == NULL ? HEARTH_MEMORY
                     : hearth_detokenize(p->model, q->ids, q->n_id, HEARTH_SHOW_SPECIAL, text, &n);
    if (s == HEARTH_OK) {
        utf8_clean(&clean, (struct view){ text, n });
        buf_add_str(&i->reply, "{\"content\":");
        js_put_string(&i->reply, buf_view(&clean), false);
        buf_add_char(&i->reply, '}');
    }
    buf_release(&clean);
    mem_free(text);
    return s == HEARTH_OK ? ERR_OK : refuse(i, s, "tokens");
}

/* A client that says no more may have left, or wait for a stream: known when the body was read. */
static bool is_unwanted(const struct prep_item *i, bool is_read)
{
    const uint64_t client = cell_get(&i->client);
    return client == PREP_CLIENT_GONE ||
           (client == PREP_CLIENT_HALF_CLOSED && is_read && !i->params.is_stream);
}

static void work(struct prep *p, struct prep_item *i)
{
    if (is_unwanted(i, false) ||
        params_read(&i->params, i->kind, buf_view(&i->body), &i->why) != ERR_OK) {
        return;
    }
    buf_release(&i->body);
    enum err e = check_model(p, i);
    if (is_unwanted(i, true)) {
        return;
    }
    if (e == ERR_OK && i->kind == PARAMS_TOKENIZE) {
        e = reply_tokens(p, i);
    } else if (e == ERR_OK && i->kind == PARAMS_DETOKENIZE) {
        e = reply_text(p, i);
    } else if (e == ERR_OK) {
        e = check_bias(p, i);
        e = e == ERR_OK ? make_prompt(p, i) : e;
    }
    if (e == ERR_OK && i->reply.is_full) {
        (void)refusal_set(&i->why, 400, "limit_reached", NULL, "the answer has more than %zu bytes",
                          i->reply.max);
    }
    buf_release(&i->params.text);
}

bool prep_is_before(const struct prep_item *a, const struct prep_item *b)
{
    return a->came_us + AGE_US * (uint64_t)a->body.n < b->came_us + AGE_US * (uint64_t)b->body.n;
}

/* Who is next: one whose client left, to be rid of it, else by prep_is_before. NULL: nobody, or not
 * yet (PR-3). */
static struct prep_item *next_item(struct prep *p)
{
    size_t best = 0;
    while (queue_pop(p->in, &p->waiting[p->n_waiting])) {
        p->n_waiting++;
    }
    if (p->n_waiting == 0 || cell_get(&p->done_bytes) > PREP_DONE_MAX) {
        return NULL;
    }
    for (size_t k = 0; k < p->n_waiting; k++) {
        if (is_unwanted(p->waiting[k], false)) {
            best = k;
            break;
        }
        best = prep_is_before(p->waiting[k], p->waiting[best]) ? k : best;
    }
    struct prep_item *i = p->waiting[best];
    p->waiting[best] = p->waiting[--p->n_waiting];
    return i;
}

static size_t held_by(const struct prep_item *i)
{
    return (i->ids != NULL ? i->n_room * sizeof i->ids[0] : 0) + i->reply.cap + i->body.cap +
           (i->params.ids != NULL ? i->params.n_id * sizeof i->ids[0] : 0);
}

static void run(void *arg)
{
    struct prep *p = arg;
    while (cell_get(&p->is_closing) == 0) {
        struct prep_item *i = next_item(p);
        if (i == NULL) {
            (void)queue_wait(p->in, WAIT_US);
            continue;
        }
        work(p, i);
        i->n_held = held_by(i);
        cell_add(&p->done_bytes, i->n_held);
        (void)ALWAYS(queue_push(p->done, &i));
        event_set(p->fd);
    }
}

enum err prep_open(struct prep **out, struct hearth_model *model, const char *model_id,
                   size_t n_max)
{
    struct prep *p = mem_alloc(sizeof *p);
    REQUIRE(p != NULL, ERR_MEMORY, "no memory for the preparation of requests");
    *p = (struct prep){ .model = model, .model_id = model_id, .fd = -1 };
    p->info.size = sizeof p->info;
    hearth_model_get_info(model, &p->info);
    p->waiting = mem_alloc_array(n_max + 1, sizeof(struct prep_item *)); /* one to pop into */
    enum err e = p->waiting != NULL ? queue_open(&p->in, n_max, sizeof(struct prep_item *))
                                    : err_set(ERR_MEMORY, "no memory for %zu requests", n_max);
    e = e == ERR_OK ? queue_open(&p->done, n_max, sizeof(struct prep_item *)) : e;
    e = e == ERR_OK ? event_open(&p->fd) : e;
    e = e == ERR_OK ? thread_start(&p->thread, "prep", run, p) : e;
    if (e != ERR_OK) {
        prep_close(p);
        return e;
    }
    *out = p;
    return ERR_OK;
}

void prep_close(struct prep *p)
{
    if (p == NULL) {
        return;
    }
    cell_set(&p->is_closing, 1);
    if (p->in != NULL) {
        queue_wake(p->in);
    }
    thread_join(p->thread);
    queue_close(p->in);
    queue_close(p->done);
    event_close(p->fd);
    mem_free(p->waiting);
    mem_free(p);
}

int prep_fd(const struct prep *p)
{
    return p->fd;
}

bool prep_push(struct prep *p, struct prep_item *item)
{
    return queue_push(p->in, &item);
}

struct prep_item *prep_pop(struct prep *p)
{
    struct prep_item *i = NULL;
    if (!queue_pop(p->done, &i)) {
        event_clear(p->fd);
        if (!queue_pop(p->done, &i)) { /* one that came before the clearing */
            return NULL;
        }
    }
    /* in one step: the thread may add to it at any time, and find it full */
    if (cell_add(&p->done_bytes, 0 - (uint64_t)i->n_held) > PREP_DONE_MAX) {
        queue_wake(p->in);
    }
    return i;
}

void prep_item_init(struct prep_item *i, enum params_kind kind)
{
    memset(i, 0, sizeof *i);
    i->kind = kind;
    buf_init(&i->reply, PREP_REPLY_MAX);
}

void prep_item_release(struct prep_item *i)
{
    buf_release(&i->body);
    buf_release(&i->reply);
    params_release(&i->params);
    mem_free(i->ids);
}
