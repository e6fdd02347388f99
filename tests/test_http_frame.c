/* test_http_frame - which requests are refused for their framing
 *
 * The headers are laid out and taken apart as the library does it (`library` below): ends of lines
 * become zero bytes, a value ends at its first zero byte, a line that begins with a zero byte is
 * the last, one that begins with a blank is looked away from. What passes then must mean the same
 * to a strict reader of the same bytes. */
#include "serve/http_frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#define MOST 1000 /* bytes of a body */

struct judged {
    int status; /* 0: taken */
    uint64_t n_body;
};

/* Headers as they came, from the end of the request line on, to what http_frame says. `bytes` is
 * changed. */
static struct judged library(char *bytes, size_t n, const char *version, bool knows_memory)
{
    struct http_frame f = { .version = view_of(version) };
    size_t at = 2;
    size_t stop = 0;
    while (at < n) {
        const char *end = memchr(bytes + at, '\n', n - at);
        const size_t next = end != NULL ? (size_t)(end - bytes) + 1 : n;
        size_t eol = end != NULL ? next - 1 : n;
        eol -= eol > at && bytes[eol - 1] == '\r';
        if (eol == at || bytes[at] == '\0') {
            stop = next;
            break;
        }
        at = next;
    }
    f.block = (struct view){ bytes, knows_memory ? (stop > 0 ? stop : n) : 0 };
    f.end = knows_memory ? bytes : NULL;
    const size_t n_head = stop > 0 ? stop : n;
    for (at = 2; at < n_head;) {
        char *end = memchr(bytes + at, '\n', n_head - at);
        const size_t next = end != NULL ? (size_t)(end - bytes) + 1 : n_head;
        if (end != NULL) {
            *end = '\0';
            if (end > bytes + at && end[-1] == '\r') {
                end[-1] = '\0';
            }
        }
        char *line = bytes + at;
        const bool is_continued = at > 2 && (*line == ' ' || *line == '\t');
        at = next;
        if (*line == '\0' || is_continued) {
            continue;
        }
        char *colon = strchr(line, ':');
        if (colon == NULL) {
            return (struct judged){ .status = 400 };
        }
        const char *value = colon + 1 + strspn(colon + 1, " \t");
        http_frame_header(&f, (struct view){ line, (size_t)(colon - line) }, view_of(value));
    }
    struct refusal why;
    struct judged j = { 0 };
    const bool is_taken = http_frame_check(&f, MOST, &j.n_body, &why);
    assert_int_equal(is_taken, why.status == 0);
    assert_int_equal(is_taken, why.text[0] == '\0');
    j.status = why.status;
    return j;
}

static struct judged judge(const char *text, size_t n, const char *version, bool knows_memory)
{
    char bytes[512] = "\r\n"; /* of the request line; at the end one zero byte more than the text */
    assert_true(2 + n < sizeof bytes);
    memcpy(bytes + 2, text, n);
    return library(bytes, 2 + n, version, knows_memory);
}

static void test_rows(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        const char *version;
        int status;
        uint64_t n_body;
    } rows[] = {
#define ROW(text, version, status, n_body) { text, sizeof text - 1, version, status, n_body }
#define OK(text, n_body)                   ROW(text "\r\n\r\n", "HTTP/1.1", 0, n_body)
#define BAD(text, status)                  ROW(text "\r\n\r\n", "HTTP/1.1", status, 0)
        OK("Host: a", 0),
        OK("Host: a\r\nX:\r\nY: \t \r\nZ: \xc3\xa9\tb ", 0),
        OK("Host: a\r\nOrigin: a\r\nAuthorization: a", 0),
        OK("content-length: 5", 5),
        OK("Expect: 100-Continue\r\nContent-Length: 5", 5),
        OK("Content-Encoding: gzip", 0),
        OK("Content-Encoding:\r\ncontent-encoding: Identity\r\nContent-Length: 5", 5),
        OK("Content-Length: 1000", 1000),
        OK("Transfer-Encoding: chunked", UINT64_MAX),
        OK("TRANSFER-ENCODING: Chunked", UINT64_MAX),
        OK("Content-Length-X: 7\r\nX-Content-Length: 8\r\nHos: t", 0),
        ROW("Content-Length: 5\r\n\r\n", "HTTP/1.0", 0, 5),
        ROW("Transfer-Encoding: chunked\r\n\r\n", "HTTP/1.0", 400, 0),
        BAD("Content-Length: 1001", 413),
        BAD("Content-Length: 18446744073709551615", 413),
        BAD("Content-Length: 18446744073709551616", 400),
        BAD("Content-Length:", 400),
        BAD("Content-Length: 000000000000000000005", 400),
        BAD("Content-Length: -1", 400),
        BAD("Content-Length: +1", 400),
        BAD("Content-Length: 0x1", 400),
        BAD("Content-Length: 1.0", 400),
        BAD("Content-Length: 5, 5", 400),
        BAD("Content-Length: 5 5", 400),
        BAD("Content-Length: 5\r\nContent-Length: 5", 400),
        BAD("Content-Length: 5\r\nContent-Length: 6", 400),
        BAD("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        BAD("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        BAD("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        BAD("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", 400),
        BAD("Transfer-Encoding: identity", 501),
        BAD("Transfer-Encoding: gzip, chunked", 501),
        BAD("Transfer-Encoding: chunked, chunked", 501),
        BAD("Transfer-Encoding: xchunked", 501),
        BAD("Transfer-Encoding:", 501),
        BAD("Transfer-Encoding: \x0b"
            "chunked",
            400),
        BAD("Content-Length : 5", 400),
        BAD("Transfer-Encoding\t: chunked", 400),
        BAD(" Content-Length: 5", 400),
        BAD("\tX: a", 400),
        BAD(": a", 400),
        BAD("X(y): a", 400),
        BAD("X\xe9: a", 400),
        BAD("X\"y: a", 400),
        BAD("X: a\rTransfer-Encoding: chunked", 400),
        BAD("X: a\x01", 400),
        BAD("X: a\x7f", 400),
        BAD("Host: a\r\nHost: a", 400),
        BAD("Host: a\r\nhost: b", 400),
        BAD("Origin: a\r\norigin: a", 400),
        BAD("Content-Length: 5\r\nContent-Encoding: gzip", 415),
        BAD("Content-Encoding: identity, br\r\nTransfer-Encoding: chunked", 415),
        BAD("Content-Encoding: br\r\nContent-Encoding: identity\r\nContent-Length: 5", 415),
        BAD("Content-Length: 1001\r\nContent-Encoding: gzip", 413),
        BAD("Expect: x", 417),
        BAD("Expect: 100-continue, x", 417),
        BAD("Expect: 100-continue\r\nexpect: x\r\nExpect: 100-continue", 417),
        BAD("Authorization: a\r\nX: a\r\nAuthorization: b", 400),
        BAD("X: a\0b\r\nY: c", 400),
        BAD("X: a\r\n\0b\r\nY: c", 400),
        BAD("X: a\r\n\0\r\nY: c", 400),
        BAD("X: a\0\0\0", 400),
        BAD("Y: c\r\nX: a\0b", 400),
        BAD("Content-Length: 5\0"
            "6",
            400),
        BAD("X: a\r\n b\r\nY: c", 400),
        BAD("Host: a\nX: b", 400),
        ROW("X: a\n\r\n", "HTTP/1.1", 400, 0),
        ROW("X: a\r\n\n", "HTTP/1.1", 400, 0),
        ROW("X: a\n\n", "HTTP/1.1", 400, 0),
        ROW("\n", "HTTP/1.1", 400, 0),
        ROW("\r\n", "HTTP/1.1", 0, 0),
        BAD("Y: c\r\nX: a\r\n b", 400),
        BAD("Content-Length: 5\r\n 6", 400),
#undef ROW
#undef OK
#undef BAD
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct judged j = judge(rows[i].text, rows[i].n, rows[i].version, true);
        if (j.status != rows[i].status || (j.status == 0 && j.n_body != rows[i].n_body)) {
            fail_msg("%s: status %d, want %d; body %llu", rows[i].text, j.status, rows[i].status,
                     (unsigned long long)j.n_body);
        }
    }
}

/* A header that does not lie in the memory, as a library makes of a continued line. */
static void test_elsewhere(void **state)
{
    (void)state;
    const char *block = "HTTP/1.1\0\0X: a\0\0 b\0\0\0\0";
    for (int i = 0; i < 3; i++) {
        struct http_frame f = { .version = VIEW("HTTP/1.1"),
                                .block = { block, 23 },
                                .end = block + 8 };
        struct refusal why;
        uint64_t n_body;
        http_frame_header(&f, i == 1 ? VIEW("X") : (struct view){ block + 10, 1 },
                          i == 2 ? VIEW("a b") : (struct view){ block + 13, i == 0 ? 5 : 1 });
        assert_false(http_frame_check(&f, MOST, &n_body, &why));
        assert_int_equal(why.status, 400);
    }
}

/* Where the memory is not known, only what lies between headers is missed. */
static void test_without_memory(void **state)
{
    (void)state;
    assert_int_equal(judge("X: a\0b\r\nY: c\r\n\r\n", 17, "HTTP/1.1", false).status, 0);
    assert_int_equal(judge("Content-Length : 5\r\n\r\n", 22, "HTTP/1.1", false).status, 400);
    const struct judged j = judge("Content-Length: 5\r\n\r\n", 21, "HTTP/1.1", false);
    assert_int_equal(j.status, 0);
    assert_int_equal(j.n_body, 5);
}

/* --- against a strict reader ------------------------------------------------------------------ */

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

/* RFC 9112, section 5, without the leave to be lenient. False: malformed or ambiguous. Zero bytes
 * at the very end of a line are passed over: in the library's memory they look like its own. */
static bool strict(const char *p, size_t n, uint64_t *n_body)
{
    int n_length = 0;
    int n_coding = 0;
    *n_body = 0;
    for (size_t at = 0; at < n;) {
        size_t end = at;
        while (end < n && p[end] != '\n') {
            end++;
        }
        if (end < n && (end == at || p[end - 1] != '\r')) {
            return false;
        }
        size_t stop = end < n && p[end - 1] == '\r' ? end - 1 : end;
        while (stop > at && p[stop - 1] == '\0') {
            stop--;
        }
        if (stop == at) {
            break;
        }
        size_t colon = at;
        while (colon < stop && p[colon] != ':') {
            if (!is_one_of(p[colon],
                           "-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
                return false;
            }
            colon++;
        }
        if (colon == stop || colon == at) {
            return false;
        }
        size_t from = colon + 1;
        for (size_t i = from; i < stop; i++) {
            if ((unsigned char)p[i] < ' ' && p[i] != '\t') {
                return false;
            }
        }
        while (from < stop && is_one_of(p[from], " \t")) {
            from++;
        }
        if (colon - at == 14 && strncasecmp(p + at, "Content-Length", 14) == 0) {
            n_length++;
            if (!view_u64((struct view){ p + from, stop - from }, n_body)) {
                return false;
            }
        }
        if (colon - at == 17 && strncasecmp(p + at, "Transfer-Encoding", 17) == 0) {
            n_coding++;
            *n_body = UINT64_MAX;
            if (stop - from != 7 || strncasecmp(p + from, "chunked", 7) != 0) {
                return false;
            }
        }
        at = end + 1;
    }
    return n_length + n_coding <= 1;
}

/* A zero byte may pass for the CR that is missing before an LF. */
static bool is_unknowable(const char *p, size_t n)
{
    bool is_bare = false;
    for (size_t i = 0; i < n; i++) {
        is_bare = is_bare || (p[i] == '\n' && (i == 0 || p[i - 1] != '\r'));
    }
    return is_bare && memchr(p, '\0', n) != NULL;
}

static void test_random(void **state)
{
    (void)state;
#define PART(text) { text, sizeof text - 1 }
    static const struct view parts[] = {
        PART("Content-Length"),
        PART("Content-Length: 5\r\n"),
        PART("Transfer-Encoding"),
        PART("Transfer-Encoding: chunked\r\n"),
        PART("X: a\r\n"),
        PART("X"),
        PART(":"),
        PART(": "),
        PART("5"),
        PART("7"),
        PART("chunked"),
        PART("\r\n"),
        PART("\r\n"),
        PART("\r\n"),
        PART("\n"),
        PART("\r"),
        PART(" "),
        PART("\t"),
        PART("\0"),
        PART(","),
        PART("\r\n\r\n"),
    };
#undef PART
    uint64_t seed = 1;
    int n_taken = 0;
    for (int i = 0; i < 300000; i++) {
        char text[300];
        size_t n = 0;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        for (unsigned k = 0; k < 2 + (seed >> 60); k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            const struct view v = parts[(seed >> 33) % (sizeof parts / sizeof parts[0])];
            if (n + v.n + 4 <= sizeof text) {
                memcpy(text + n, v.p, v.n);
                n += v.n;
            }
        }
        memcpy(text + n, "\r\n\r\n", 4);
        n += 4;
        const struct judged j = judge(text, n, "HTTP/1.1", true);
        uint64_t n_body = 0;
        if (j.status == 0 && !is_unknowable(text, n)) {
            n_taken++;
            if (!strict(text, n, &n_body) || n_body != j.n_body) {
                fail_msg("text %d: %zu bytes, %llu of body, strictly %llu", i, n,
                         (unsigned long long)j.n_body, (unsigned long long)n_body);
            }
        }
    }
    assert_true(n_taken > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_elsewhere),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
