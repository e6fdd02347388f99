/* edit - what a person types in a terminal, one turn at a time
 *
 * One line comes from edit_line.c, where libedit draws it and keeps the keys, or from edit_plain.c;
 * everything else is here, because it must also hold without libedit: bytes come in through one
 * function, which waits for the terminal and for signals at once. Signal handlers only set a flag
 * and wake that wait, so nothing happens at a place where it must not. libedit's own signal
 * handling is off: it sends signals to the whole process group, that is, also to the script that
 * started us.
 *
 * The history is a file of JSON strings, one turn a line, to which each session appends. It is cut
 * to the newest EDIT_HISTORY_MAX turns when it is opened and closed. Both are done with the file's
 * folder locked (the file itself is replaced by the cut), so two sessions at once lose nothing.
 * Turns beyond ENTRY_MAX bytes and those that begin with a blank are not kept.
 *
 * Rejected: libedit's history file (the last session to end overwrites what others wrote, and older
 * versions make it readable for everybody).
 *
 * Next: cmd/talk.c. */
#include "cmd/edit_impl.h"

#include "base/event.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENTRY_MAX ((size_t)8192)     /* bytes of a turn that is kept */
#define FILE_MAX  ((size_t)64 << 20) /* bytes of a history file that is read */

/* --- signals ---------------------------------------------------------------------------------- */

static const int caught[] = { SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH };
#define N_CAUGHT (sizeof caught / sizeof caught[0])
static volatile sig_atomic_t is_seen[N_CAUGHT];
static volatile sig_atomic_t wake_fd = -1;

static void on_signal(int sig)
{
    const int saved = errno;
    for (size_t i = 0; i < N_CAUGHT; i++) {
        if (caught[i] == sig) {
            is_seen[i] = 1;
        }
    }
    event_set((int)wake_fd);
    errno = saved;
}

static bool take_seen(int sig)
{
    for (size_t i = 0; i < N_CAUGHT; i++) {
        if (caught[i] == sig && is_seen[i]) {
            is_seen[i] = 0;
            return true;
        }
    }
    return false;
}

static void catch_signals(struct edit *e, struct sigaction old[N_CAUGHT])
{
    struct sigaction act = { .sa_handler = on_signal };
    sigemptyset(&act.sa_mask);
    wake_fd = e->wake;
    for (size_t i = 0; i < N_CAUGHT; i++) {
        is_seen[i] = 0;
        sigaction(caught[i], &act, &old[i]);
    }
}

static void restore_signals(const struct sigaction old[N_CAUGHT])
{
    for (size_t i = 0; i < N_CAUGHT; i++) {
        sigaction(caught[i], &old[i], NULL);
    }
    wake_fd = -1;
}

/* --- bytes ------------------------------------------------------------------------------------ */

/* Ctrl-Z: the shell gets its terminal back in order. */
static void suspend(struct edit *e)
{
    const struct sigaction usual = { .sa_handler = SIG_DFL };
    struct sigaction ours;
    edit_line_set_terminal(e, false);
    sigaction(SIGTSTP, &usual, &ours);
    raise(SIGTSTP); /* does nothing where no shell could let it go on */
    sigaction(SIGTSTP, &ours, NULL);
    edit_line_set_terminal(e, true);
    edit_line_redraw(e, false);
}

/* Looks at what the signals said; false when the line is over. */
static bool take_signals(struct edit *e)
{
    event_clear(e->wake);
    e->is_interrupted = take_seen(SIGINT) || e->is_interrupted;
    const bool is_gone = take_seen(SIGTERM) || take_seen(SIGHUP);
    e->is_end = is_gone || e->is_end;
    if (take_seen(SIGTSTP)) {
        suspend(e);
    }
    if (take_seen(SIGWINCH)) {
        edit_line_redraw(e, true);
    }
    return !e->is_interrupted && !is_gone;
}

/* Waits for a byte. false at the end of input and after Ctrl-C. */
bool edit_next_byte(struct edit *e, unsigned char *c)
{
    while (e->at == e->n) {
        struct pollfd p[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
                               { .fd = e->wake, .events = POLLIN } };
        if (e->is_end || e->is_interrupted) {
            return false;
        }
        if (poll(p, 2, -1) < 0 && errno != EINTR) {
            e->is_end = true;
        } else if (p[1].revents != 0) {
            if (!take_signals(e)) {
                return false;
            }
        } else if (p[0].revents != 0) {
            const ssize_t n = read(STDIN_FILENO, e->in, sizeof e->in);
            e->at = 0;
            e->n = n > 0 ? (size_t)n : 0;
            e->is_end = n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN);
        }
    }
    *c = e->in[e->at++];
    return true;
}

/* --- the history file ------------------------------------------------------------------------- */

/* Start of the line before the one that begins at `at`. */
static size_t line_before(struct view text, size_t at)
{
    at -= at > 0;
    while (at > 0 && text.p[at - 1] != '\n') {
        at--;
    }
    return at;
}

/* Reads the file; *text begins at the oldest turn to keep, *is_long says that older ones exist. */
static enum err load(const struct edit *e, struct buf *all, struct view *text, bool *is_long)
{
    TRY(os_read_file(e->history_path, all));
    *text = buf_view(all);
    size_t at = text->n;
    for (size_t i = 0; i < EDIT_HISTORY_MAX && at > 0; i++) {
        at = line_before(*text, at);
    }
    *is_long = at > 0;
    *text = view_from(*text, at);
    return ERR_OK;
}

/* A line of the file to a turn; what is no JSON string is passed over. */
static void enter_line(struct edit *e, struct view line)
{
    struct js *v = NULL;
    if (js_parse(line, 1, &v) == ERR_OK && js_type(v) == JS_STRING) {
        const struct view s = js_string(v);
        char *turn = s.n > 0 && memchr(s.p, '\0', s.n) == NULL ? mem_strdup(s.p, s.n) : NULL;
        if (turn != NULL) {
            edit_line_enter(e, turn);
        }
        mem_free(turn);
    }
    js_close(v);
}

/* Waits until no other session appends or cuts; Ctrl-C ends the wait. Closing *fd unlocks. */
static enum err lock_history(const struct edit *e, int *fd)
{
    *fd = open(e->history_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(*fd >= 0 && flock(*fd, LOCK_EX) == 0, ERR_IO, "%s: cannot lock it: %s",
            e->history_folder, strerror(errno));
    return ERR_OK;
}

static void unlock_history(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

/* Cuts the file to its newest turns; with is_used they can be recalled, too. */
static enum err tidy(struct edit *e, bool is_used)
{
    struct buf all;
    struct view text = { NULL, 0 };
    bool is_long = false;
    buf_init(&all, FILE_MAX);
    int lock = -1;
    enum err err = lock_history(e, &lock);
    err = err == ERR_OK ? load(e, &all, &text, &is_long) : err;
    e->n_stored = 0;
    for (struct view rest = text; err == ERR_OK && rest.n > 0;) {
        const size_t end = view_find(rest, VIEW("\n"), 0);
        if (is_used) {
            enter_line(e, view_part(rest, 0, end));
        }
        rest = end < rest.n ? view_from(rest, end + 1) : view_from(rest, rest.n);
        e->n_stored++;
    }
    if (err == ERR_OK && is_long) {
        err = os_write_file(e->history_path, text);
    }
    unlock_history(lock);
    buf_release(&all);
    return err;
}

static void no_history(struct edit *e, const char *why)
{
    fprintf(stderr, "hearth: no history is kept: %s\n", why);
    mem_free(e->history_path);
    e->history_path = NULL;
}

static void open_history(struct edit *e, const char *path)
{
    const char *slash = strrchr(path, '/');
    const size_t n = slash != NULL && slash > path ? (size_t)(slash - path) : 1;
    e->history_path = mem_strdup(path, strlen(path));
    e->history_folder = mem_strdup(slash != NULL ? path : ".", n);
    enum err err = e->history_path == NULL || e->history_folder == NULL
                       ? err_set(ERR_MEMORY, "%s: no memory to read it", path)
                       : ERR_OK;
    err = err == ERR_OK ? os_make_dirs(e->history_folder) : err;
    err = err == ERR_OK && os_exists(path) ? tidy(e, true) : err;
    if (err != ERR_OK) {
        no_history(e, err_text());
    }
}

/* Adds a line to the open file, or nothing. */
static enum err write_line(const char *path, int fd, struct view line)
{
    struct stat st;
    REQUIRE(fd >= 0 && fchmod(fd, 0600) == 0 && fstat(fd, &st) == 0, ERR_IO,
            "%s: cannot open it: %s", path, strerror(errno));
    const ssize_t n = write(fd, line.p, line.n);
    REQUIRE(n >= 0, ERR_IO, "%s: cannot write to it: %s", path, strerror(errno));
    REQUIRE((size_t)n == line.n, ERR_IO, "%s: %zd of %zu bytes were written, the disk is full%s",
            path, n, line.n, ftruncate(fd, st.st_size) == 0 ? "" : "; its last line is damaged");
    return ERR_OK;
}

static enum err append(const struct edit *e, struct view turn)
{
    struct buf line;
    int lock = -1;
    buf_init(&line, 8 * ENTRY_MAX);
    js_put_string(&line, turn, false);
    buf_add_char(&line, '\n');
    enum err err = buf_check(&line, "a line of the history");
    err = err == ERR_OK ? lock_history(e, &lock) : err;
    if (err == ERR_OK) {
        const int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
        const int fd = open(e->history_path, flags, 0600);
        err = write_line(e->history_path, fd, buf_view(&line));
        if (fd >= 0) {
            close(fd);
        }
    }
    unlock_history(lock);
    buf_release(&line);
    return err;
}

static void remember(struct edit *e, const struct buf *turn)
{
    const bool is_kept = turn->n > 0 && turn->n <= ENTRY_MAX && turn->p[0] != ' ' &&
                         turn->p[0] != '\t' && memchr(turn->p, '\0', turn->n) == NULL;
    if (is_kept) {
        edit_line_enter(e, turn->p);
    }
    if (is_kept && e->history_path != NULL) {
        if (append(e, buf_view(turn)) != ERR_OK) {
            no_history(e, err_text());
        }
        e->n_stored++;
    }
}

/* --- plain lines ------------------------------------------------------------------------------ */

enum err edit_plain_line(struct edit *e, struct buf *line)
{
    unsigned char c = 0;
    fputs(e->prompt, e->say);
    fflush(e->say);
    while (edit_next_byte(e, &c) && c != '\n') {
        buf_add_char(line, (char)c);
    }
    return buf_check(line, "the line");
}

/* --- turns ------------------------------------------------------------------------------------ */

enum err edit_open(struct edit **out, const char *history_path)
{
    struct edit *e = mem_alloc(sizeof *e);
    REQUIRE(e != NULL, ERR_MEMORY, "no memory for line editing");
    e->wake = -1;
    e->prompt = "";
    e->say = isatty(STDOUT_FILENO) ? stdout : stderr;
    enum err err = event_open(&e->wake);
    err = err == ERR_OK ? edit_line_open(e) : err;
    if (err != ERR_OK) {
        edit_close(e);
        return err;
    }
    if (history_path != NULL) {
        open_history(e, history_path);
    }
    *out = e;
    return ERR_OK;
}

void edit_close(struct edit *e)
{
    if (e == NULL) {
        return;
    }
    if (e->history_path != NULL && e->n_stored > EDIT_HISTORY_MAX && tidy(e, false) != ERR_OK) {
        no_history(e, err_text());
    }
    edit_line_close(e);
    event_close(e->wake);
    mem_free(e->history_path);
    mem_free(e->history_folder);
    mem_free(e);
}

FILE *edit_say(const struct edit *e)
{
    return e->say;
}

/* What a line says about the next one. */
enum more { MORE_NONE, MORE_LINE, MORE_BLOCK };

/* Adds a line to the turn; `more` is what the lines before asked for. */
static enum more add_line(struct buf *text, struct view line, enum more more)
{
    if (more == MORE_NONE && view_starts(line, VIEW("\"\"\""))) {
        more = MORE_BLOCK;
        line = view_from(line, 3);
        if (line.n == 0) {
            return more; /* nothing stands after the marks: the text begins below */
        }
    }
    if (more == MORE_BLOCK) {
        const bool is_last = view_ends(line, VIEW("\"\"\""));
        buf_add_view(text, view_part(line, 0, line.n - (is_last ? 3 : 0)));
        if (!is_last) {
            buf_add_char(text, '\n');
        } else if (line.n == 3 && text->n > 0 && text->p[text->n - 1] == '\n') {
            buf_cut(text, text->n - 1); /* the closing marks stand alone */
        }
        return is_last ? MORE_NONE : MORE_BLOCK;
    }
    const bool goes_on = view_ends(line, VIEW("\\"));
    buf_add_view(text, view_part(line, 0, line.n - goes_on));
    buf_add_str(text, goes_on ? "\n" : "");
    return goes_on ? MORE_LINE : MORE_NONE;
}

static enum err read_turn(struct edit *e, struct buf *text)
{
    struct buf line;
    enum more more = MORE_NONE;
    enum err err = ERR_OK;
    buf_init(&line, text->max);
    e->prompt = "> ";
    do {
        buf_reset(&line);
        err = edit_line_read(e, &line);
        if (err == ERR_OK && (line.n > 0 || !e->is_end)) {
            more = add_line(text, buf_view(&line), more);
        }
        e->prompt = "  ";
    } while (err == ERR_OK && more != MORE_NONE && !e->is_end && !e->is_interrupted);
    buf_release(&line);
    return err == ERR_OK ? buf_check(text, "the turn") : err;
}

enum err edit_turn(struct edit *e, struct buf *text, enum edit_event *what)
{
    struct sigaction old[N_CAUGHT];
    buf_reset(text);
    e->is_interrupted = false;
    catch_signals(e, old);
    const enum err err = read_turn(e, text);
    restore_signals(old);
    TRY(err);
    if (e->is_end) { /* the turn is not finished, whatever its text is */
        *what = EDIT_END;
    } else if (e->is_interrupted) {
        *what = EDIT_INTERRUPT;
    } else {
        *what = EDIT_TEXT;
        remember(e, text);
    }
    return ERR_OK;
}
