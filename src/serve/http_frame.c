/* http_frame - where a request ends, and whether all would agree about it
 *
 * A service may stand behind a proxy, and the two must agree where a request ends: if they do not,
 * one client can place the start of another's request (RFC 9112, section 11.2). The library that
 * parses for us is lenient, so its result is judged again here, from the headers alone:
 *   two lengths, a length beside a coding, any coding but "chunked" or one in HTTP/1.0, a length
 *   that is no plain number;
 *   names with other characters than a token has, which catches "Content-Length :" and a line
 *   that continues the request line;
 *   control characters in values;
 *   two headers named Host, Origin or Authorization: who may ask is decided by one of each;
 *   a packed body (Content-Encoding), which would be read as it came, and an expectation other
 *   than 100-continue.
 *
 * The library cuts a value at a zero byte, takes a line that begins with one for the empty line,
 * and looks away from continued lines. All of that leaves bytes behind in its memory, where headers
 * lie one after the other: between the end of a value and the next name there may be nothing but
 * what ends a line: two bytes, since a line that ends with LF alone ends elsewhere for a program
 * that wants CRLF (a zero byte in the place of the missing CR is not told from it). This is checked
 * where the memory is known; from 1.0 on the library itself refuses all of that.
 *
 * Rejected: parsing HTTP here (twice the surface), trusting the library's strict mode (0.9.75
 * checks the blank before the colon at a level that it then treats as lenient).
 *
 * Next: serve/http.c feeds it. */
#include "serve/http_frame.h"

#include <string.h>
#include <strings.h>

#define LENGTH_MAX 20 /* digits; more, if only zeros, are for programs with another idea of them */

static bool is_token(struct view name)
{
    for (size_t i = 0; i < name.n; i++) {
        const char c = name.p[i];
        const bool is_alnum =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_alnum && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL)) {
            return false;
        }
    }
    return name.n > 0;
}

static bool is_text(struct view value)
{
    for (size_t i = 0; i < value.n; i++) {
        const unsigned char c = (unsigned char)value.p[i];
        if ((c < ' ' && c != '\t') || c == 127) {
            return false;
        }
    }
    return true;
}

static bool is_same(struct view name, const char *wanted)
{
    return name.n == strlen(wanted) && strncasecmp(name.p, wanted, name.n) == 0;
}

static int shown(struct view v)
{
    return (int)(v.n < 64 ? v.n : 64);
}

static bool is_inside(const struct http_frame *f, const char *p)
{
    return (uintptr_t)p >= (uintptr_t)f->block.p &&
           (uintptr_t)p - (uintptr_t)f->block.p <= f->block.n;
}

/* From the last header up to `to` nothing but blanks and the ends of n_line lines, two bytes each,
 * which may be zero bytes by now. */
static bool is_gap(const struct http_frame *f, const char *to, int n_line)
{
    if (f->end == NULL) {
        return true;
    }
    if (!is_inside(f, to) || !is_inside(f, f->end) || to < f->end) {
        return false;
    }
    int n_end = 0;
    for (const char *p = f->end; p < to; p++) {
        const bool is_end = *p == '\0' || *p == (n_end % 2 == 0 ? '\r' : '\n');
        n_end += is_end;
        if (!is_end && (n_end > 0 || (*p != ' ' && *p != '\t'))) {
            return false;
        }
    }
    return n_end == 2 * n_line;
}

void http_frame_header(struct http_frame *f, struct view name, struct view value)
{
    f->is_bad = f->is_bad || !is_token(name) || !is_text(value);
    if (f->block.n > 0) {
        f->is_bad = f->is_bad || !is_inside(f, name.p) || !is_gap(f, name.p, 1);
        f->end = value.p + value.n;
    }
    if (is_same(name, "Content-Length")) {
        f->n_length++;
        f->length = value;
    } else if (is_same(name, "Transfer-Encoding")) {
        f->n_coding++;
        f->coding = value;
    } else if (is_same(name, "Host")) {
        f->n_host++;
    } else if (is_same(name, "Origin")) {
        f->n_origin++;
    } else if (is_same(name, "Authorization")) {
        f->n_key++;
    } else if (is_same(name, "Content-Encoding") && value.n > 0 && !is_same(value, "identity")) {
        f->packing = value;
    } else if (is_same(name, "Expect") && value.n > 0 && !is_same(value, "100-continue")) {
        f->expect = value;
    }
}

bool http_frame_check(struct http_frame *f, size_t body_max_bytes, uint64_t *n_body,
                      struct refusal *why)
{
    const char *code = "invalid_request";
    *why = (struct refusal){ 0 };
    *n_body = f->n_coding > 0 ? UINT64_MAX : 0;
    if (f->is_bad || (f->block.n > 0 && !is_gap(f, f->block.p + f->block.n, 2))) {
        (void)refusal_set(why, 400, code, NULL, "a header is malformed");
    } else if (f->n_host > 1 || f->n_origin > 1 || f->n_key > 1) {
        (void)refusal_set(why, 400, code, NULL, "there are several %s headers, one is wanted",
                          f->n_host > 1     ? "Host"
                          : f->n_origin > 1 ? "Origin"
                                            : "Authorization");
    } else if (f->n_length + f->n_coding > 1) {
        (void)refusal_set(why, 400, code, NULL, "the length of the body is stated more than once");
    } else if (f->n_coding > 0 && !view_is(f->version, "HTTP/1.1")) {
        (void)refusal_set(why, 400, code, NULL, "Transfer-Encoding needs HTTP/1.1");
    } else if (f->n_coding > 0 && !is_same(f->coding, "chunked")) {
        (void)refusal_set(why, 501, "unsupported", NULL,
                          "Transfer-Encoding \"%.*s\" is not supported, only chunked",
                          shown(f->coding), f->coding.p);
    } else if (f->n_length > 0 && (f->length.n > LENGTH_MAX || !view_u64(f->length, n_body))) {
        (void)refusal_set(why, 400, code, NULL, "Content-Length is no number");
    } else if (f->n_length > 0 && *n_body > body_max_bytes) {
        (void)refusal_set(why, 413, "body_too_large", NULL,
                          "the body has %llu bytes, at most %zu are taken",
                          (unsigned long long)*n_body, body_max_bytes);
    } else if (f->packing.n > 0 && *n_body > 0) {
        (void)refusal_set(why, 415, "unsupported", NULL,
                          "Content-Encoding \"%.*s\" is not supported: send the body as it is",
                          shown(f->packing), f->packing.p);
    } else if (f->expect.n > 0) {
        (void)refusal_set(why, 417, "unsupported", NULL,
                          "Expect \"%.*s\" is not supported, only 100-continue", shown(f->expect),
                          f->expect.p);
    }
    return why->status == 0;
}
