/* refusal - why a request is not answered (serve/refusal.c)
 *
 * A refusal is a status, a type, an optional field name and code, and one line of text. It is made
 * where the reason is found and written where the answer goes: as a body, or into a stream. */
#ifndef HEARTH_REFUSAL_H
#define HEARTH_REFUSAL_H

#include "base/buf.h"
#include "base/err.h"
#include "base/js.h"

#include <stdint.h>

struct refusal {
    int status;       /* HTTP status; 0: nothing is refused */
    const char *code; /* static; NULL: none */
    char param[64];   /* the field it is about; "": none */
    char text[ERR_TEXT_MAX];
    uint64_t retry_ms; /* 0: says nothing about trying again */
    int is_final;      /* trying again would only repeat the work: clients are told so */
};

/* Fills `r`; printf format, made one clean line as by err_set. `param` and `code` may be NULL.
 * Returns ERR_USAGE, so that `return refusal_set(...)` reads well. */
enum err refusal_set(struct refusal *r, int status, const char *code, const char *param,
                     const char *fmt, ...) __attribute__((format(printf, 5, 6), cold));
/* The same from a failure of the library: status and code follow from `e`, the text is err_text. */
enum err refusal_from(struct refusal *r, enum err e, const char *param);

/* The same about a value of another type or range than is wanted. `where` names what has it: a
 * field, or a place in one. */
enum err refusal_mismatch(struct refusal *r, const char *code, const char *where,
                          const struct js *v, const char *wanted) __attribute__((cold));
const char *refusal_type(enum js_type type); /* as people say: "a whole number" */
#define REFUSAL_NUMBER_BYTES 40
const char *refusal_number(char out[REFUSAL_NUMBER_BYTES], double v); /* whole: plain digits */

/* {"error":{"message":...,"type":...,"param":...,"code":...}} */
void refusal_put(const struct refusal *r, struct buf *out);

#endif
