/* edit_plain - one line from a terminal, without libedit
 *
 * Takes the place of edit_line.c in a build without libedit: lines come as the terminal itself
 * edits them, nothing can be recalled, and a pasted text of several lines is several turns. The
 * history file is kept all the same, so that a later build finds it.
 *
 * Next: cmd/edit.c. */
#include "cmd/edit_impl.h"

void edit_line_set_terminal(struct edit *e, bool is_editing)
{
    (void)e;
    (void)is_editing;
}

void edit_line_redraw(struct edit *e, bool is_shown)
{
    fputs(is_shown ? "" : e->prompt, e->say); /* what is typed is the terminal's */
    fflush(e->say);
}

void edit_line_enter(struct edit *e, const char *turn)
{
    (void)e;
    (void)turn;
}

enum err edit_line_open(struct edit *e)
{
    (void)e;
    return ERR_OK;
}

void edit_line_close(struct edit *e)
{
    (void)e;
}

enum err edit_line_read(struct edit *e, struct buf *line)
{
    return edit_plain_line(e, line);
}
