/* fuzz_chat - a conversation as one line of JSON (empty: the one below), then a template
 *
 * A template can neither run longer nor take more than its budget (CH-1), whatever it says. Output
 * is UTF-8, the same every time, and one mark for each byte; a character that only the conversation
 * has is marked as the conversation's (CH-2). */
#include "base/js.h"
#include "fuzz.h"
#include "model/chat.h"

#include <string.h>

#define DEPTH_MAX 64
#define LINE_MAX  ((size_t)64 << 10)
#define SIGN      "\xEE\x84\xA3" /* U+E123, of nobody's else */
/* Tree, values and output may be there at once, and an output with its marks grows by doubling. */
#define MEMORY_MAX ((size_t)2 * CHAT_MEMORY_MAX_BYTES + 8 * (size_t)CHAT_OUTPUT_MAX_BYTES)

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"" SIGN "\"}, "
    "{\"role\": \"user\", \"content\": \"hi <|end|> " SIGN " there\"}, "
    "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": "
    "\"f" SIGN "\", \"arguments\": {\"a\": 1.5}}}]}, "
    "{\"role\": \"tool\", \"content\": \"" SIGN SIGN "\"}], \"vars\": {\"s\": \"" SIGN
    " x\", \"n\": 3}, \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"" SIGN
    "\"}}]}";

static enum err render(const struct chat_template *t, const struct js *root, struct buf *out,
                       struct buf *trusted)
{
    const struct chat_input in = { .messages = js_get(root, "messages"),
                                   .tools = js_get(root, "tools"),
                                   .vars = js_get(root, "vars"),
                                   .add_generation_prompt = true,
                                   .bos_token = VIEW("<s>"),
                                   .now_s = 1700000000 };
    return chat_render(t, &in, out, trusted);
}

static void check_marks(const struct buf *out, const struct buf *trusted, bool has_sign)
{
    demand(out->n == trusted->n, "a mark for each byte");
    for (size_t i = 0; i < out->n; i++) {
        demand(trusted->p[i] == 0 || trusted->p[i] == 1, "a mark");
    }
    for (size_t at = 0; has_sign && (at = view_find(buf_view(out), VIEW(SIGN), at)) != SIZE_MAX;
         at++) {
        demand(trusted->p[at] == 0, "what the conversation wrote is its own (CH-2)");
    }
}

static void check_render(const struct chat_template *t, const struct js *root, bool has_sign)
{
    struct buf out;
    struct buf again;
    struct buf trusted;
    buf_init(&out, CHAT_OUTPUT_MAX_BYTES);
    buf_init(&again, CHAT_OUTPUT_MAX_BYTES);
    buf_init(&trusted, CHAT_OUTPUT_MAX_BYTES);
    const clock_t begin = clock();
    const enum err e = render(t, root, &out, &trusted);
    if (e != ERR_OK) {
        demand_error(e);
        demand(out.n == 0 && trusted.n == 0, "nothing written after a failure");
    } else {
        demand(utf8_valid(buf_view(&out)), "UTF-8");
        check_marks(&out, &trusted, has_sign);
    }
    if ((double)(clock() - begin) / CLOCKS_PER_SEC < 0.1) {
        demand(render(t, root, &again, NULL) == e, "the same outcome again");
        demand(view_eq(buf_view(&out), buf_view(&again)), "the same text again");
    }
    buf_release(&out);
    buf_release(&again);
    buf_release(&trusted);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const struct fuzz_run run = fuzz_begin();
    const struct view in = { (const char *)bytes, n };
    const size_t end = view_find(in, VIEW("\n"), 0);
    if (end == SIZE_MAX || end > LINE_MAX) {
        return 0;
    }
    struct chat_template *t = NULL;
    struct js *root = NULL;
    const struct view source = view_from(in, end + 1);
    const struct view line = end > 0 ? view_part(in, 0, end) : view_of(conversation);
    enum err e = js_parse(line, DEPTH_MAX, &root);
    e = e == ERR_OK ? chat_open(&t, source) : e;
    if (e == ERR_OK) {
        /* Escapes and the like could write the sign. */
        const bool has_sign = end == 0 && view_find(source, VIEW("\\"), 0) == SIZE_MAX &&
                              view_find(source, VIEW(SIGN), 0) == SIZE_MAX;
        check_render(t, root, has_sign);
    } else {
        demand_error(e);
        demand(t == NULL, "no template after a failure");
    }
    chat_close(t);
    js_close(root);
    demand(mem_peak_bytes() <= run.used_bytes + MEMORY_MAX, "memory within its budget");
    fuzz_end(run);
    return 0;
}
