/* buf - views of bytes and bounded growing buffers
 *
 * Nearly all text in hearth passes through here: requests, answers, rendered templates, messages. A
 * view is a pointer and a length; a buf grows by doubling up to the maximum it was born with. An
 * addition that does not fit sets `is_full` and leaves the buffer as it was, so a function can add
 * twenty things and look once at the end (BU-2). One byte more than asked is always allocated and
 * zero, so that the text can be passed to C functions.
 *
 * UTF-8 is checked here and nowhere else: well-formed by the Unicode standard's table 3-7,
 * ill-formed parts counted as WHATWG's decoder and Python's 'replace' count them (maximal
 * subparts).
 *
 * Next: base/os.c. */
#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct view view_of(const char *zero_terminated)
{
    return (struct view){ zero_terminated, strlen(zero_terminated) };
}

bool view_eq(struct view a, struct view b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool view_is(struct view a, const char *zero_terminated)
{
    return view_eq(a, view_of(zero_terminated));
}

bool view_starts(struct view a, struct view prefix)
{
    return a.n >= prefix.n && (prefix.n == 0 || memcmp(a.p, prefix.p, prefix.n) == 0);
}

bool view_ends(struct view a, struct view suffix)
{
    return a.n >= suffix.n &&
           (suffix.n == 0 || memcmp(a.p + a.n - suffix.n, suffix.p, suffix.n) == 0);
}

struct view view_from(struct view a, size_t at)
{
    return view_part(a, at, a.n);
}

struct view view_part(struct view a, size_t at, size_t n)
{
    if (at >= a.n) {
        return (struct view){ a.p, 0 };
    }
    return (struct view){ a.p + at, n < a.n - at ? n : a.n - at };
}

size_t view_find(struct view a, struct view what, size_t from)
{
    if (from > a.n || what.n > a.n - from) {
        return SIZE_MAX;
    }
    if (what.n == 0) {
        return from;
    }
    const char *hit = memmem(a.p + from, a.n - from, what.p, what.n);
    return hit != NULL ? (size_t)(hit - a.p) : SIZE_MAX;
}

bool view_u64(struct view a, uint64_t *out)
{
    uint64_t v = 0;
    if (a.n == 0) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        const unsigned digit = (unsigned)(unsigned char)a.p[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, digit, &v)) {
            return false;
        }
    }
    *out = v;
    return true;
}

/* --- buf ----------------------------------------------------------------------------------- */

void buf_init(struct buf *b, size_t max_bytes)
{
    *b = (struct buf){ .max = max_bytes };
}

void buf_release(struct buf *b)
{
    mem_free(b->p);
    *b = (struct buf){ .max = b->max };
}

void buf_reset(struct buf *b)
{
    buf_cut(b, 0);
    b->is_full = b->lacks_memory = false;
}

/* Room for n more bytes and a final zero: doubles, up to the maximum. Once something did not fit,
 * nothing does any more: half a text with a later part behind it would be worse than none. */
static bool reserve(struct buf *b, size_t n)
{
    if (b->is_full || n > b->max - b->n) {
        b->is_full = true;
        return false;
    }
    if (b->p != NULL && n <= b->cap - b->n) {
        return true;
    }
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap - b->n < n) {
        cap = cap > b->max / 2 ? b->max : cap * 2;
        if (cap == b->max) {
            break;
        }
    }
    cap = cap > b->max ? b->max : cap;
    char *p = mem_realloc(b->p, cap + 1);
    if (p == NULL) {
        b->is_full = b->lacks_memory = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
    if (!reserve(b, n)) {
        return;
    }
    if (n > 0) {
        memcpy(b->p + b->n, bytes, n);
    }
    b->n += n;
    b->p[b->n] = '\0';
}

void buf_add_view(struct buf *b, struct view v)
{
    buf_add(b, v.p, v.n);
}

void buf_add_str(struct buf *b, const char *zero_terminated)
{
    buf_add(b, zero_terminated, strlen(zero_terminated));
}

void buf_add_word(struct buf *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_./:+,@%-";
    if (word[strspn(word, plain)] == '\0' && word[0] != '\0') {
        buf_add_str(out, word);
        return;
    }
    buf_add_char(out, '\'');
    for (const char *p = word; *p != '\0'; p++) {
        if (*p == '\'') {
            buf_add_str(out, "'\\''");
        } else {
            buf_add_char(out, *p);
        }
    }
    buf_add_char(out, '\'');
}

void buf_add_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_add_code(struct buf *b, uint32_t code_point)
{
    char bytes[4];
    buf_add(b, bytes, (size_t)utf8_put(code_point, bytes));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !reserve(b, (size_t)n)) {
        b->is_full = true;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}

void buf_cut(struct buf *b, size_t n)
{
    if (n < b->n) {
        b->n = n;
        b->p[n] = '\0';
    }
}

struct view buf_view(const struct buf *b)
{
    return (struct view){ b->p, b->n };
}

const char *buf_str(const struct buf *b)
{
    return b->p != NULL ? b->p : "";
}

enum err buf_check(const struct buf *b, const char *what)
{
    REQUIRE(!b->is_full || !b->lacks_memory, ERR_MEMORY, "no memory for %s", what);
    REQUIRE(!b->is_full, ERR_LIMIT, "%s is larger than the %zu bytes allowed", what, b->max);
    return ERR_OK;
}

/* --- UTF-8 (Unicode 15, table 3-7) --------------------------------------------------------- */

/* Bytes the sequence that begins with c should have (0: c cannot begin one), and the range of its
 * second: after E0 and F0 no overlong forms, after ED no surrogates, after F4 nothing above
 * U+10FFFF. C0, C1 and F5..FF begin nothing. */
static int lead(unsigned char c, unsigned char *lo, unsigned char *hi)
{
    *lo = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    *hi = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    return c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
}

/* Bytes of the well-formed beginning at p: the whole length when complete. */
static size_t good_bytes(const unsigned char *p, size_t n, int *want)
{
    unsigned char lo;
    unsigned char hi;
    *want = lead(p[0], &lo, &hi);
    size_t i = 1;
    while (i < (size_t)*want && i < n) {
        const bool is_ok = i == 1 ? p[i] >= lo && p[i] <= hi : (p[i] & 0xC0) == 0x80;
        if (!is_ok) {
            break;
        }
        i++;
    }
    return i;
}

int utf8_read(const char *p, size_t n, uint32_t *code_point)
{
    static const unsigned char mask[5] = { 0, 0x7F, 0x1F, 0x0F, 0x07 };
    const unsigned char *u = (const unsigned char *)p;
    if (n == 0) {
        return 0;
    }
    int want;
    const size_t have = good_bytes(u, n, &want);
    if (want == 0 || have < (size_t)want) {
        return 0;
    }
    uint32_t c = u[0] & mask[want];
    for (int i = 1; i < want; i++) {
        c = c << 6 | (u[i] & 0x3Fu);
    }
    *code_point = c;
    return want;
}

/* What good_bytes has of a sequence that breaks off is what one U+FFFD stands for. */
size_t utf8_bad(const char *p, size_t n)
{
    int want;
    return good_bytes((const unsigned char *)p, n, &want);
}

void utf8_clean(struct buf *out, struct view v)
{
    if (v.n == 0) {
        return;
    }
    size_t from = 0; /* of the well-formed stretch not yet added */
    size_t at = 0;
    while (at < v.n) {
        uint32_t code;
        const int n = utf8_read(v.p + at, v.n - at, &code);
        if (n > 0) {
            at += (size_t)n;
            continue;
        }
        buf_add(out, v.p + from, at - from);
        buf_add(out, "\xEF\xBF\xBD", 3);
        at += utf8_bad(v.p + at, v.n - at);
        from = at;
    }
    buf_add(out, v.p + from, at - from);
}

void utf8_plain(struct buf *out, struct view v, size_t n_max, bool is_text)
{
    size_t at = 0;
    for (size_t n = 0; at < v.n && n < n_max; n++) {
        uint32_t code = 0;
        const int len = utf8_read(v.p + at, v.n - at, &code);
        const size_t n_byte = len > 0 ? (size_t)len : utf8_bad(v.p + at, v.n - at);
        if (len == 0) {
            buf_add_code(out, 0xFFFD);
        } else if (!err_is_hidden(code) || (is_text && (code == '\n' || code == '\t'))) {
            buf_add(out, v.p + at, n_byte);
        } else if (code == '\n') {
            buf_add_str(out, "\\n");
        } else if (!is_text || code != '\r') {
            buf_printf(out, code < 0x100 ? "\\x%02x" : "\\u%04x", code);
        }
        at += n_byte;
    }
    buf_add_str(out, at < v.n ? "..." : "");
}

bool utf8_valid(struct view v)
{
    for (size_t at = 0; at < v.n;) {
        uint32_t code;
        const int n = utf8_read(v.p + at, v.n - at, &code);
        if (n == 0) {
            return false;
        }
        at += (size_t)n;
    }
    return true;
}

int utf8_put(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000 && (c < 0xD800 || c > 0xDFFF)) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    if (c >= 0x10000 && c < 0x110000) {
        out[0] = (char)(0xF0 | c >> 18);
        out[1] = (char)(0x80 | (c >> 12 & 0x3F));
        out[2] = (char)(0x80 | (c >> 6 & 0x3F));
        out[3] = (char)(0x80 | (c & 0x3F));
        return 4;
    }
    return 0;
}
