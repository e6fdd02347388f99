/* edit - what a person types in a terminal, one turn at a time (cmd/edit.c)
 *
 * Line editing, history over sessions, several lines in one turn, pasted text, Ctrl-C, Ctrl-D and
 * Ctrl-Z. With libedit when the build has it and both ends are a terminal, plain lines otherwise.
 * Owner: the main thread; one at a time in a process, because signals belong to the process.
 *
 * ED-1  between calls the terminal is in the state in which it was found. */
#ifndef HEARTH_EDIT_H
#define HEARTH_EDIT_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdio.h>

#define EDIT_HISTORY_MAX 1000 /* turns kept */

struct edit;

enum edit_event {
    EDIT_TEXT,      /* a turn */
    EDIT_INTERRUPT, /* Ctrl-C; the text is what had been typed, none of it counts */
    EDIT_END,       /* Ctrl-D on an empty line, end of input, SIGTERM, SIGHUP; no text counts */
};

/* history_path: file of earlier turns (mode 0600, made when missing), borrowed for the call; NULL
 * keeps none. A history that cannot be read is told on standard error and not used. */
enum err edit_open(struct edit **e, const char *history_path) MUST_USE;
void edit_close(struct edit *e); /* accepts NULL */

/* Where prompts and remarks go: standard output when it is a terminal, else standard error. */
FILE *edit_say(const struct edit *e);

/* Reads a turn into `text` (initialised by the caller for the longest, emptied here), without its
 * last newline. A line that ends in a backslash goes on with the next one; """ begins a block that
 * ends with """.
 * Turns go into the history, except those that begin with a blank. ERR_IO, ERR_LIMIT. */
enum err edit_turn(struct edit *e, struct buf *text, enum edit_event *what) MUST_USE;

#endif
