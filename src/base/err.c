/* err - status codes and the text that goes with them
 *
 * A failure is a code for the program and one line for a person. The line lives in a buffer of the
 * thread, so that no function has to pass one along and no path allocates. Whoever sets it says
 * what was wanted, where, what was found and what to do; whoever forwards it may put the place in
 * front (err_at).
 *
 * Texts often quote what came from outside (a key of a file, a field of a request). Such bytes may
 * hold control characters or be no UTF-8 at all; they are escaped here, once, so that no message
 * can move a terminal's cursor or break a log line (ER-2).
 *
 * Rejected: an error object passed by pointer through every call (noise in every signature), and
 * errno style codes without text (the reader of "-22" has to find the source).
 *
 * Next: base/buf.c. */
#include "base/err.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char text[ERR_TEXT_MAX];

/* Length of the well-formed UTF-8 sequence at p[0..n), 0 if there is none. */
static size_t sequence(const unsigned char *p, size_t n)
{
    const size_t want = p[0] < 0x80   ? 1
                        : p[0] < 0xC2 ? 0
                        : p[0] < 0xE0 ? 2
                        : p[0] < 0xF0 ? 3
                        : p[0] < 0xF5 ? 4
                                      : 0;
    if (want == 0 || want > n) {
        return 0;
    }
    for (size_t i = 1; i < want; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    const int is_long = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xF0 && p[1] < 0x90);
    const int is_outside = (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF4 && p[1] > 0x8F);
    return is_long || is_outside ? 0 : want;
}

bool err_is_hidden(unsigned code)
{
    static const unsigned short ranges[][2] = { { 0, 0x1F },        { 0x7F, 0x9F },
                                                { 0x061C, 0x061C }, { 0x200E, 0x200F },
                                                { 0x2028, 0x202E }, { 0x2066, 0x2069 } };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (code >= ranges[i][0] && code <= ranges[i][1]) {
            return true;
        }
    }
    return false;
}

/* The same of a well-formed sequence; those of four bytes hide nothing. */
static bool is_hidden(const unsigned char *p, size_t n)
{
    const unsigned code = n == 1   ? p[0]
                          : n == 2 ? (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu)
                                   : (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    return n < 4 && err_is_hidden(code);
}

/* Copies raw to text, escaping what must not reach a terminal; cuts at a whole character. */
static void clean(const char *raw)
{
    size_t used = 0;
    size_t left = strlen(raw);
    for (const unsigned char *p = (const unsigned char *)raw; left > 0;) {
        const size_t n = sequence(p, left);
        const size_t n_escape = n == 0 ? 1 : is_hidden(p, n) ? n : 0;
        const size_t need = n_escape > 0 ? 4 * n_escape : n;
        if (used + need >= sizeof text) {
            break;
        }
        for (size_t i = 0; i < n_escape; i++) {
            snprintf(text + used + 4 * i, 5, "\\x%02x", p[i]);
        }
        if (n_escape == 0) {
            memcpy(text + used, p, n);
        }
        used += need;
        p += n > 0 ? n : 1;
        left -= n > 0 ? n : 1;
    }
    text[used] = '\0';
}

enum err err_setv(enum err e, const char *fmt, va_list ap)
{
    char raw[2 * ERR_TEXT_MAX];
    vsnprintf(raw, sizeof raw, fmt, ap);
    clean(raw);
    return e;
}

enum err err_set(enum err e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)err_setv(e, fmt, ap);
    va_end(ap);
    return e;
}

enum err err_at(enum err e, const char *fmt, ...)
{
    char raw[2 * ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(raw, ERR_TEXT_MAX, fmt, ap);
    va_end(ap);
    const size_t used = n < 0 ? 0 : n < ERR_TEXT_MAX ? (size_t)n : ERR_TEXT_MAX - 1;
    snprintf(raw + used, sizeof raw - used, ": %s", text);
    clean(raw);
    return e;
}

const char *err_text(void)
{
    return text;
}

const char *err_name(enum err e)
{
    switch (e) {
    case ERR_OK:
        return "ok";
    case ERR_FAILED:
        return "failed";
    case ERR_USAGE:
        return "usage";
    case ERR_NOT_FOUND:
        return "not found";
    case ERR_MEMORY:
        return "does not fit in memory";
    case ERR_INTEGRITY:
        return "damaged data";
    case ERR_AUTH:
        return "not authorised";
    case ERR_NET:
        return "not reachable";
    case ERR_POLICY:
        return "refused by policy";
    case ERR_IO:
        return "input or output error";
    case ERR_UNSUPPORTED:
        return "not supported";
    case ERR_LIMIT:
        return "limit reached";
    case ERR_CANCELLED:
        return "cancelled";
    case ERR_BUSY:
        return "busy";
    }
    return "unknown status";
}

int err_belief(const char *what, const char *file, int line)
{
    if (ERR_IS_CHECKED) {
        fprintf(stderr, "hearth: belief broken: %s (%s:%d)\n", what, file, line);
        abort();
    }
    return 0;
}
