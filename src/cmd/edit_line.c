/* edit_line - one line from a terminal, with libedit
 *
 * libedit draws the line and keeps the keys; the bytes it reads come from edit_next_byte, which
 * also hears of signals. A paste comes between two marks that the terminal sends when it was asked
 * to (bracketed paste): the first is bound to a function that takes everything up to the second as
 * text, so that a newline in it does not send the turn and a control character does nothing.
 *
 * What libedit says of Ctrl-C and of the end of input is not enough to tell them apart; is_end and
 * is_interrupted of struct edit are.
 *
 * Rejected: libedit's own signal handling, see edit.c.
 *
 * Next: cmd/edit.c. */
#include "cmd/edit_impl.h"

#include "base/mem.h"

#include <histedit.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#define PASTE_MAX ((size_t)1 << 20) /* bytes */

static void mark_pastes(const struct edit *e, bool is_on)
{
    if (e->is_paste_marked) {
        fputs(is_on ? "\033[?2004h" : "\033[?2004l", stdout);
        fflush(stdout);
    }
}

void edit_line_set_terminal(struct edit *e, bool is_editing)
{
    if (e->el != NULL) {
        mark_pastes(e, is_editing);
        el_set(e->el, EL_PREP_TERM, is_editing ? 1 : 0);
    }
}

/* Rows of the screen between the prompt and the cursor. */
static int rows_above(const struct edit *e, int n_col)
{
    const LineInfoW *line = el_wline(e->el);
    int n_row = 0;
    int col = (int)strlen(e->prompt);
    for (const wchar_t *c = line->buffer; c < line->cursor; c++) {
        const int n = *c == L'\t' ? 8 - col % 8 : wcwidth(*c) >= 0 ? wcwidth(*c) : 2; /* "^X" */
        const bool is_next = *c == L'\n' || col + n > n_col;
        n_row += is_next;
        col = *c == L'\n' ? 0 : is_next ? n : col + n;
    }
    return n_row + (col == n_col);
}

/* Most terminals have broken the rows anew for their new width; one that has not loses rows above
 * when the line needs more rows than before. */
void edit_line_redraw(struct edit *e, bool is_shown)
{
    int n_col = 0;
    if (e->el == NULL) { /* what is typed is the terminal's */
        fputs(is_shown ? "" : e->prompt, e->say);
        fflush(e->say);
        return;
    }
    el_resize(e->el);
    if (is_shown && e->is_paste_marked && el_get(e->el, EL_GETTC, "co", &n_col) == 0 && n_col > 0) {
        const int n_row = rows_above(e, n_col);
        if (n_row > 0) {
            printf("\033[%dA", n_row);
        }
        fputs("\r\033[J", stdout);
    }
    el_set(e->el, EL_REFRESH);
}

void edit_line_enter(struct edit *e, const char *turn)
{
    HistEvent ev;
    if (e->history != NULL) {
        history(e->history, &ev, H_ENTER, turn);
    }
}

static struct edit *edit_of(EditLine *el)
{
    void *e = NULL;
    el_get(el, EL_CLIENTDATA, &e);
    return e;
}

/* One character for libedit: 1, 0 at the end, -1 after Ctrl-C. */
static int next_char(EditLine *el, wchar_t *out)
{
    struct edit *e = edit_of(el);
    char bytes[4];
    unsigned char c = 0;
    if (!edit_next_byte(e, &c)) {
        return e->is_interrupted ? -1 : 0;
    }
    const size_t want = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
    uint32_t code = 0;
    bytes[0] = (char)c;
    size_t n = 1;
    while (n < want && edit_next_byte(e, &c)) {
        if ((c & 0xC0) != 0x80) {
            e->at--; /* the character was cut short, this byte begins the next one */
            break;
        }
        bytes[n++] = (char)c;
    }
    *out = utf8_read(bytes, n, &code) > 0 ? (wchar_t)code : (wchar_t)0xFFFD;
    return 1;
}

static char *show_prompt(EditLine *el)
{
    return (char *)(uintptr_t)edit_of(el)->prompt; /* the interface lacks a const */
}

/* Bytes up to the closing mark, which is looked for apart from them: it also ends a paste that does
 * not fit. */
static void take_paste(struct edit *e, struct buf *raw)
{
    static const char mark[] = "\033[201~";
    unsigned char c = 0;
    for (size_t n_seen = 0; mark[n_seen] != '\0' && edit_next_byte(e, &c);) {
        if (c == (unsigned char)mark[n_seen]) {
            n_seen++;
            continue;
        }
        buf_add(raw, mark, n_seen); /* it was none */
        n_seen = c == (unsigned char)mark[0];
        if (n_seen == 0) {
            buf_add_char(raw, c == '\r' ? '\n' : (char)c);
        }
    }
}

/* The pasted text with plain newlines and without control characters; ERR_LIMIT. */
static enum err read_paste(struct edit *e, struct buf *out)
{
    struct buf raw;
    buf_init(&raw, PASTE_MAX);
    take_paste(e, &raw);
    struct buf clean;
    buf_init(&clean, 3 * PASTE_MAX);
    utf8_clean(&clean, buf_view(&raw));
    for (size_t i = 0; i < clean.n; i++) {
        const unsigned char b = (unsigned char)clean.p[i];
        if (b >= 0x20 ? b != 0x7F : b == '\n' || b == '\t') {
            buf_add_char(out, clean.p[i]);
        }
    }
    if (out->n > 0 && out->p[out->n - 1] == '\n') {
        buf_cut(out, out->n - 1);
    }
    const enum err err = buf_check(&raw, "the pasted text");
    buf_release(&clean);
    buf_release(&raw);
    return err;
}

static unsigned char on_paste(EditLine *el, int key)
{
    struct edit *e = edit_of(el);
    struct buf text;
    (void)key;
    buf_init(&text, 3 * PASTE_MAX);
    enum err err = read_paste(e, &text);
    if (err == ERR_OK && text.n > 0 && el_insertstr(el, buf_str(&text)) != 0) {
        err = err_set(ERR_MEMORY, "no memory for the pasted text");
    }
    buf_release(&text);
    if (err != ERR_OK) {
        fprintf(e->say, "\n[not taken: %s]\n", err_text());
        edit_line_redraw(e, false);
    }
    return err == ERR_OK ? CC_REFRESH : CC_NORM;
}

static unsigned char on_newline(EditLine *el, int key)
{
    (void)key;
    return el_insertstr(el, "\n") == 0 ? CC_REFRESH : CC_ERROR;
}

static void bind_keys(EditLine *el)
{
    static const char *const keys[][2] = {
        { "\033[200~", "hearth-paste" },  { "\033\n", "hearth-newline" },
        { "\033\r", "hearth-newline" },   { "\033[1;5C", "em-next-word" },
        { "\033[1;5D", "ed-prev-word" },  { "\033[3~", "ed-delete-next-char" },
        { "\033[H", "ed-move-to-beg" },   { "\033[F", "ed-move-to-end" },
        { "\022", "em-inc-search-prev" }, /* Ctrl-R */
    };
    el_set(el, EL_ADDFN, "hearth-paste", "take pasted text as it is", on_paste);
    el_set(el, EL_ADDFN, "hearth-newline", "a new line within the turn", on_newline);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        el_set(el, EL_BIND, keys[i][0], keys[i][1], NULL);
    }
}

enum err edit_line_open(struct edit *e)
{
    const char *terminal = NULL;
    HistEvent ev;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        return ERR_OK;
    }
    setlocale(LC_CTYPE, "C.UTF-8"); /* libedit counts columns with it */
    e->el = el_init("hearth", stdin, stdout, stderr);
    e->history = history_init();
    REQUIRE(e->el != NULL && e->history != NULL, ERR_MEMORY, "no memory for line editing");
    history(e->history, &ev, H_SETSIZE, EDIT_HISTORY_MAX);
    history(e->history, &ev, H_SETUNIQUE, 1);
    el_set(e->el, EL_CLIENTDATA, e);
    el_set(e->el, EL_SIGNAL, 0);
    el_set(e->el, EL_EDITOR, "emacs");
    el_set(e->el, EL_HIST, history, e->history);
    el_set(e->el, EL_GETCFN, next_char);
    el_set(e->el, EL_PROMPT, show_prompt);
    bind_keys(e->el);
    el_source(e->el, NULL); /* ~/.editrc, the user's own keys */
    e->is_paste_marked = el_get(e->el, EL_TERMINAL, &terminal) == 0 && terminal != NULL &&
                         strcmp(terminal, "dumb") != 0;
    return ERR_OK;
}

void edit_line_close(struct edit *e)
{
    if (e->el != NULL) {
        el_end(e->el);
    }
    if (e->history != NULL) {
        history_end(e->history);
    }
}

enum err edit_line_read(struct edit *e, struct buf *line)
{
    if (e->el == NULL) {
        return edit_plain_line(e, line);
    }
    int n = 0;
    edit_line_set_terminal(e, true); /* el_gets does so only after the prompt is seen */
    const char *got = el_gets(e->el, &n);
    mark_pastes(e, false);
    if (got == NULL && e->is_interrupted) {
        const LineInfo *info = el_line(e->el);
        got = info->buffer;
        n = (int)(info->lastchar - info->buffer);
        buf_add(line, got, (size_t)n);
        fputs("\n", stdout);
    } else if (got == NULL || n <= 0) {
        e->is_end = true;
    } else {
        buf_add(line, got, (size_t)n);
        if (got[n - 1] == '\n') {
            buf_cut(line, line->n - 1);
        }
    }
    return buf_check(line, "the line");
}
