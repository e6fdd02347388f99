/* edit_impl - what the files of the line editor share (header only, private to cmd/edit*)
 *
 * edit.c owns the turn: signals, bytes, history file. One of two files reads a single line for it:
 * edit_line.c with libedit, edit_plain.c where the build has none (meson.build chooses). */
#ifndef HEARTH_EDIT_IMPL_H
#define HEARTH_EDIT_IMPL_H

#include "cmd/edit.h"

#include <stddef.h>

struct editline; /* libedit's */
struct history;

/* owner: the main thread */
struct edit {
    int wake; /* set by the signal handler */
    unsigned char in[4096];
    size_t at; /* in[at..n] are read and not yet used */
    size_t n;
    bool is_end;
    bool is_interrupted;
    FILE *say;
    const char *prompt; /* static */
    char *history_path; /* owns; NULL: not kept */
    char *history_folder;
    size_t n_stored; /* turns in the file, as far as this session knows */

    /* edit_line.c's */
    bool is_paste_marked;
    struct editline *el; /* NULL: plain lines */
    struct history *history;
};

/* --- edit.c --- */

/* Waits for a byte. false at the end of input (is_end) and after Ctrl-C (is_interrupted). */
bool edit_next_byte(struct edit *e, unsigned char *c);
/* A line without any editing, up to its newline, which is not added. ERR_LIMIT. */
enum err edit_plain_line(struct edit *e, struct buf *line) MUST_USE;

/* --- edit_line.c or edit_plain.c --- */

/* ERR_MEMORY. Where standard input or output is no terminal, lines are plain. */
enum err edit_line_open(struct edit *e) MUST_USE;
void edit_line_close(struct edit *e); /* also after edit_line_open failed */
/* Appends what is typed up to the newline, or up to Ctrl-C (is_interrupted). ERR_LIMIT. */
enum err edit_line_read(struct edit *e, struct buf *line) MUST_USE;
/* The terminal as editing needs it, or as it was found (ED-1). */
void edit_line_set_terminal(struct edit *e, bool is_editing);
/* Shows prompt and line again; is_shown: in place of those that stand above, in a window of another
 * size. */
void edit_line_redraw(struct edit *e, bool is_shown);
/* A turn that can be recalled from now on. */
void edit_line_enter(struct edit *e, const char *turn);

#endif
