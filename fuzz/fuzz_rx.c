/* fuzz_rx - a pattern, a newline, and text that it is tried on at every place
 *
 * Matching is free to take time exponential in the pattern, because patterns are this program's own
 * (their time on hostile text is the tokenizer fuzzer's matter). So the text is cut to what the
 * pattern's repeats and alternatives allow for. Checked, besides bounds:
 *  - only what follows matters: a match at a place is the match of the rest alone;
 *  - (?:P), P|P and (?:P)? match what P matches. */
#include "fuzz.h"
#include "model/rx.h"

#include <string.h>

#define PATTERN_MAX ((size_t)400)
#define TEXT_MAX    ((size_t)4096)
#define WORK_MAX    20000.0

/* Ways to match n characters, from above: alternatives outside brackets add, all else multiplies.
 */
static double work_of(struct view p, double n)
{
    double all = 0.0;
    double one = 1.0;
    int depth = 0;
    for (size_t i = 0; i < p.n; i++) {
        const char c = p.p[i];
        const char before = i > 0 ? p.p[i - 1] : '(';
        if (c == '\\') {
            i++;
            const bool is_property = i < p.n && (p.p[i] == 'p' || p.p[i] == 'P');
            const size_t end = is_property ? view_find(p, VIEW("}"), i) : i;
            i = end == SIZE_MAX ? p.n : end;
        } else if (c == '|' && depth == 0) {
            all += one;
            one = 1.0;
        } else if (c == '*' || c == '+' || c == '{') {
            one *= n + 1.0;
        } else if (c == '|' || (c == '?' && before != '(')) {
            one *= 2.0;
        }
        depth += (c == '(') - (c == ')');
    }
    return all + one;
}

static struct rx *open_as(const char *before, struct view p, const char *after, struct view last)
{
    struct rx *r = NULL;
    struct buf b;
    buf_init(&b, 4 * PATTERN_MAX);
    buf_add_str(&b, before);
    buf_add_view(&b, p);
    buf_add_str(&b, after);
    buf_add_view(&b, last);
    const enum err e = rx_open(&r, buf_str(&b));
    if (e != ERR_OK) {
        demand_error(e);
        demand(e == ERR_UNSUPPORTED && r == NULL, "a pattern that is not understood");
    }
    buf_release(&b);
    return r;
}

static void check_text(const struct rx *r, struct rx *const like[3], struct view text)
{
    struct rx_char *c = mem_alloc_array(text.n + 1, sizeof c[0]);
    demand(c != NULL, "memory");
    const size_t n = rx_chars(text, c);
    demand(n <= text.n && c[n].at == text.n, "characters");
    for (size_t at = 0; at <= n; at++) {
        const size_t got = rx_match(r, c, n, at);
        demand(got <= n - at, "a match inside the text");
        demand(rx_match(r, c + at, n - at, 0) == got, "the rest alone gives the same match");
        for (int i = 0; i < 3; i++) {
            demand(like[i] == NULL || rx_match(like[i], c, n, at) == got,
                   "like patterns, like matches");
        }
    }
    mem_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const struct fuzz_run run = fuzz_begin();
    const struct view in = { (const char *)bytes, n };
    const size_t end = view_find(in, VIEW("\n"), 0);
    struct view pattern = view_part(in, 0, end == SIZE_MAX ? n : end);
    struct view text = end == SIZE_MAX ? VIEW("") : view_from(in, end + 1);
    if (pattern.n > PATTERN_MAX || n > TEXT_MAX || memchr(pattern.p, '\0', pattern.n) != NULL) {
        return 0;
    }
    struct rx *r = open_as("", pattern, "", VIEW(""));
    if (r != NULL) {
        struct rx *like[3] = { open_as("(?:", pattern, ")", VIEW("")),
                               open_as("", pattern, "|", pattern),
                               open_as("(?:", pattern, ")?", VIEW("")) };
        while (text.n > 0 && work_of(pattern, (double)text.n) * (double)text.n > WORK_MAX) {
            text.n /= 2;
        }
        if (work_of(pattern, (double)text.n) <= WORK_MAX) {
            check_text(r, like, text);
        }
        for (int i = 0; i < 3; i++) {
            rx_close(like[i]);
        }
    }
    rx_close(r);
    fuzz_end(run);
    return 0;
}
