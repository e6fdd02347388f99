/* err - status codes and the text that goes with them (base/err.c)
 *
 * A function that can fail returns `enum err`, leaves its outputs untouched on failure and puts one
 * line for a person into a per-thread buffer: what was wanted, where, what was found, what to do.
 * ER-1  the text is that of the thread's last failure; a success leaves it as it is.
 * ER-2  the text is one line of printable UTF-8: bytes from outside are escaped when it is made. */
#ifndef HEARTH_ERR_H
#define HEARTH_ERR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Values are stable: they are the status codes of the public library and of the exit code table. */
enum err {
    ERR_OK = 0,
    ERR_FAILED = 1,       /* anything without a better name */
    ERR_USAGE = 2,        /* arguments or request fields make no sense */
    ERR_NOT_FOUND = 3,    /* model, file or object does not exist */
    ERR_MEMORY = 4,       /* does not fit; the text has both numbers */
    ERR_INTEGRITY = 5,    /* damaged or hostile data, checksum mismatch */
    ERR_AUTH = 6,         /* not authorised */
    ERR_NET = 7,          /* other side unreachable */
    ERR_POLICY = 8,       /* refused by a rule of this box */
    ERR_IO = 9,           /* the operating system said no */
    ERR_UNSUPPORTED = 10, /* well-formed, but hearth cannot do it; the text names what is missing */
    ERR_LIMIT = 11,       /* a stated limit was reached; the text has both numbers */
    ERR_CANCELLED = 12,   /* somebody asked to stop */
    ERR_BUSY = 75,        /* full right now, try again */
};

#define ERR_TEXT_MAX 640 /* bytes incl. the final 0; longer texts are cut at a character */

/* Sets the thread's text (printf format, bytes below 0x20 and ill-formed UTF-8 are escaped) and
 * returns `e`, so that `return err_set(ERR_IO, "...")` reads well. */
enum err err_set(enum err e, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
enum err err_setv(enum err e, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0), cold));

/* Puts "prefix: " in front of the thread's text and returns `e`; used on the way up. */
enum err err_at(enum err e, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/* The text of the thread's last failure, "" if none; borrowed until the thread's next err_set. */
const char *err_text(void);

/* A code point that moves a cursor, ends a line or turns the direction of writing. Text from
 * outside reaches a terminal without such ones; each place has its own way to show that one was
 * there. */
bool err_is_hidden(unsigned code_point);

/* Short constant name of a code, e.g. "does not fit in memory"; never NULL. */
const char *err_name(enum err e);

#define MUST_USE __attribute__((warn_unused_result))

/* Forwards a failure. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        const enum err try_err_ = (call);                                                          \
        if (try_err_ != ERR_OK) {                                                                  \
            return try_err_;                                                                       \
        }                                                                                          \
    } while (0)

/* Checks input; a failed check is an error with a text, never an abort. */
#define REQUIRE(cond, code, ...)                                                                   \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            return err_set((code), __VA_ARGS__);                                                   \
        }                                                                                          \
    } while (0)

/* A belief: true in a correct program, and handled all the same. Aborts in checked builds
 * (HEARTH_CHECKED), returns the condition in others:  if (!ALWAYS(p)) { return ...; } */
#define ALWAYS(cond) ((cond) ? 1 : err_belief(#cond, __FILE__, __LINE__))
#define NEVER(cond)  (!ALWAYS(!(cond)))
/* Walk over a module's tables at every change of state (noun_check). */
#define ERR_IS_CHECKED HEARTH_CHECKED
/* For ALWAYS and NEVER alone: aborts in checked builds, else 0. */
int err_belief(const char *what, const char *file, int line) __attribute__((cold));

#endif
