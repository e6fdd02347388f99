/* talk - a conversation as `hearth run` keeps it
 *
 * Each message is kept twice: as the JSON that the model's template renders anew in every turn, and
 * as Markdown for /save. Both only ever grow at the end, so that a turn that failed is taken back
 * by cutting them to where they were. The system message stands apart, because a person may change
 * it in the middle; it counts from the next turn on.
 *
 * All three have TALK_MAX as their limit. What goes beyond it is seen when the conversation is
 * rendered, so that it is an error of that turn, which is then taken back. /save writes over no
 * file: a conversation is quickly named like something that one wants to keep.
 *
 * Next: cmd/cmd_run.c. */
#include "cmd/talk.h"

#include "base/js.h"
#include "base/os.h"

void talk_init(struct talk *t)
{
    buf_init(&t->system, TALK_MAX);
    buf_init(&t->messages, TALK_MAX);
    buf_init(&t->page, TALK_MAX);
}

void talk_release(struct talk *t)
{
    buf_release(&t->system);
    buf_release(&t->messages);
    buf_release(&t->page);
}

void talk_forget(struct talk *t)
{
    buf_reset(&t->messages);
    buf_reset(&t->page);
}

void talk_system(struct talk *t, struct view text)
{
    buf_reset(&t->system);
    buf_add_view(&t->system, text);
}

static void put_message(struct buf *out, const char *role, struct view text)
{
    buf_printf(out, "{\"role\": \"%s\", \"content\": ", role);
    js_put_string(out, text, false);
    buf_add_char(out, '}');
}

static void put_page(struct buf *out, const char *title, struct view text)
{
    buf_printf(out, "%s## %s\n\n", out->n > 0 ? "\n" : "", title);
    buf_add_view(out, text);
    buf_add_str(out, view_ends(text, VIEW("\n")) ? "" : "\n");
}

void talk_add(struct talk *t, enum talk_role role, struct view text)
{
    buf_add_str(&t->messages, t->messages.n > 0 ? ", " : "");
    put_message(&t->messages, role == TALK_USER ? "user" : "assistant", text);
    put_page(&t->page, role == TALK_USER ? "User" : "Assistant", text);
}

struct talk_mark talk_mark(const struct talk *t)
{
    return (struct talk_mark){ .messages = t->messages.n, .page = t->page.n };
}

void talk_back(struct talk *t, struct talk_mark mark)
{
    buf_cut(&t->messages, mark.messages);
    buf_cut(&t->page, mark.page);
    t->messages.is_full = false;
    t->page.is_full = false;
}

enum err talk_json(const struct talk *t, struct buf *out)
{
    TRY(buf_check(&t->messages, "the conversation"));
    TRY(buf_check(&t->page, "the conversation"));
    buf_add_str(out, "{\"messages\": [");
    if (t->system.n > 0) {
        put_message(out, "system", buf_view(&t->system));
        buf_add_str(out, t->messages.n > 0 ? ", " : "");
    }
    buf_add_view(out, buf_view(&t->messages));
    buf_add_str(out, "]}");
    return buf_check(out, "the conversation");
}

enum err talk_save(const struct talk *t, const char *path)
{
    struct buf text;
    enum err e = ERR_OK;
    REQUIRE(!os_exists(path), ERR_USAGE, "%.200s exists; choose another name", path);
    buf_init(&text, 3 * TALK_MAX);
    if (view_ends(view_of(path), VIEW(".json"))) {
        e = talk_json(t, &text);
        buf_add_char(&text, '\n');
    } else {
        if (t->system.n > 0) {
            put_page(&text, "System", buf_view(&t->system));
            buf_add_str(&text, t->page.n > 0 ? "\n" : "");
        }
        buf_add_view(&text, buf_view(&t->page));
    }
    e = e == ERR_OK ? buf_check(&text, "the conversation") : e;
    e = e == ERR_OK ? os_write_file(path, buf_view(&text)) : e;
    buf_release(&text);
    return e;
}
