/* fuzz_http_frame - headers of a request as lines, judged twice
 *
 * One byte of flags, then lines; the end of the request line is set before them, and an empty
 * line behind. What stands here in place of the HTTP library cuts a line at its first colon,
 * drops blanks around the value, ends the value at a zero byte and looks away from lines without
 * a colon, as lenient libraries do. What the module lets pass is then judged again, from the
 * lines: one length or one coding, nothing that the library did not see, no line that ends with
 * LF alone (unless there is a zero byte, which may pass for the missing CR). */
#include "fuzz.h"
#include "serve/http_frame.h"

#include <string.h>
#include <strings.h>

#define BODY_MAX   ((size_t)1 << 20)
#define HAS_BLOCK  1
#define IS_VERSION 2

struct seen {
    int n_length, n_coding, n_host, n_origin, n_key, n_hidden, n_bare;
    bool is_odd;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\0';
}

static bool is_name(struct view name, struct view wanted)
{
    return name.n == wanted.n && strncasecmp(name.p, wanted.p, name.n) == 0;
}

static void give_line(struct http_frame *f, struct seen *s, struct view line)
{
    const size_t colon = view_find(line, VIEW(":"), 0);
    if (colon == SIZE_MAX) {
        for (size_t i = 0; i < line.n; i++) {
            s->n_hidden += !is_blank(line.p[i]);
        }
        return;
    }
    const struct view name = view_part(line, 0, colon);
    struct view value = view_from(line, colon + 1);
    while (value.n > 0 && (value.p[0] == ' ' || value.p[0] == '\t')) {
        value = view_from(value, 1);
    }
    const size_t zero = view_find(value, (struct view){ "", 1 }, 0);
    for (size_t i = zero; i < value.n; i++) {
        s->n_hidden += !is_blank(value.p[i]);
    }
    value.n = zero < value.n ? zero : value.n;
    while (value.n > 0 && is_blank(value.p[value.n - 1])) {
        value.n--;
    }
    s->n_length += is_name(name, VIEW("content-length"));
    s->n_coding += is_name(name, VIEW("transfer-encoding"));
    s->n_host += is_name(name, VIEW("host"));
    s->n_origin += is_name(name, VIEW("origin"));
    s->n_key += is_name(name, VIEW("authorization"));
    for (size_t i = 0; i < name.n; i++) {
        s->is_odd = s->is_odd || name.p[i] <= ' ' || name.p[i] == 127;
    }
    for (size_t i = 0; i < value.n; i++) {
        s->is_odd = s->is_odd || ((unsigned char)value.p[i] < ' ' && value.p[i] != '\t');
    }
    s->is_odd = s->is_odd || name.n == 0;
    http_frame_header(f, name, value);
}

/* Up to the end of the first line that is empty or begins with a zero byte. */
static struct view head_of(struct view all)
{
    size_t at = 2;
    while (at < all.n) {
        const size_t found = view_find(all, VIEW("\n"), at);
        const size_t end = found == SIZE_MAX ? all.n : found + 1;
        if (all.p[at] == '\n' || all.p[at] == '\0' || (all.p[at] == '\r' && end == at + 2)) {
            return view_part(all, 0, end);
        }
        at = end;
    }
    return all;
}

static void check_taken(const struct http_frame *f, const struct seen *s, uint64_t n_body)
{
    demand(!s->is_odd && s->n_length + s->n_coding <= 1, "what passes");
    demand(s->n_host <= 1 && s->n_origin <= 1 && s->n_key <= 1, "who asks");
    demand(f->block.n == 0 || s->n_hidden == 0, "nothing that the library did not see");
    demand(f->block.n == 0 || s->n_bare == 0, "no LF alone");
    demand(s->n_coding == 0 || (n_body == UINT64_MAX && view_is(f->version, "HTTP/1.1")), "coding");
    if (s->n_length == 1) {
        uint64_t v = 0;
        demand(f->length.n > 0 && f->length.n < 21, "a length has digits");
        for (size_t i = 0; i < f->length.n; i++) {
            demand(f->length.p[i] >= '0' && f->length.p[i] <= '9', "a length has digits only");
            v = v * 10 + (uint64_t)(f->length.p[i] - '0');
        }
        demand(v == n_body && v <= BODY_MAX, "the length");
    }
    demand(s->n_length + s->n_coding > 0 || n_body == 0, "no body");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 1) {
        return 0;
    }
    const struct fuzz_run run = fuzz_begin();
    struct buf copy;
    buf_init(&copy, n + 4);
    buf_add_str(&copy, "\r\n");
    buf_add(&copy, (const char *)bytes + 1, n - 1);
    buf_add_str(&copy, "\r\n");
    const struct view all = head_of(buf_view(&copy));
    const bool has_zero = all.n > 0 && memchr(all.p, '\0', all.n) != NULL;
    struct http_frame f = { .end = (bytes[0] & HAS_BLOCK) != 0 ? all.p : NULL,
                            .block = (bytes[0] & HAS_BLOCK) != 0 ? all : VIEW(""),
                            .version = (bytes[0] & IS_VERSION) != 0 ? VIEW("HTTP/1.1")
                                                                    : VIEW("HTTP/1.0") };
    struct seen s = { 0 };
    struct refusal why;
    uint64_t n_body = 0;
    for (size_t at = 2; at < all.n;) {
        const size_t end = view_find(all, VIEW("\n"), at);
        s.n_bare += end != SIZE_MAX && all.p[end - 1] != '\r' && !has_zero;
        give_line(&f, &s, view_part(all, at, end == SIZE_MAX ? all.n : end - at));
        at = end == SIZE_MAX ? all.n : end + 1;
    }
    if (http_frame_check(&f, BODY_MAX, &n_body, &why)) {
        check_taken(&f, &s, n_body);
    } else {
        demand(why.status == 400 || why.status == 413 || why.status == 415 || why.status == 417 ||
                   why.status == 501,
               "a refusal");
        demand(why.text[0] != '\0' && utf8_valid(view_of(why.text)), "a refusal's text");
    }
    buf_release(&copy);
    fuzz_end(run);
    return 0;
}
