/* http_frame - where a request ends, and whether all would agree about it (serve/http_frame.c)
 *
 * Caller's memory; any thread. */
#ifndef HEARTH_HTTP_FRAME_H
#define HEARTH_HTTP_FRAME_H

#include "base/buf.h"
#include "serve/refusal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_frame {
    const char *end;     /* of the header before; NULL: none yet */
    struct view block;   /* memory that all headers lie in; n == 0: not known */
    struct view version; /* "HTTP/1.1" */
    struct view length;  /* of the last such header */
    struct view coding;  /* likewise */
    struct view packing; /* of the body, where it is not "identity" */
    struct view expect;  /* where it is not "100-continue" */
    int n_length;
    int n_coding;
    int n_host;
    int n_origin;
    int n_key;
    bool is_bad; /* a character that no header may have, or bytes between headers */
};

/* One header after the other, as they came. */
void http_frame_header(struct http_frame *f, struct view name, struct view value);
/* After the last. True: *n_body is what the client announces, UINT64_MAX for a chunked body. False:
 * `why` has the refusal, and nothing that follows on the connection can be trusted. */
bool http_frame_check(struct http_frame *f, size_t body_max_bytes, uint64_t *n_body,
                      struct refusal *why);

#endif
