/* jinja_lex - template text to tokens
 *
 * The language has two layers. Outside of tags everything is data up to the next "{{", "{%" or
 * "{#". Inside of tags it is a small expression language with names, numbers, strings and
 * operators. The end mark of a tag only counts where no bracket is open: {{ {'a': {}} }} is
 * one tag.
 *
 * White space around tags is where templates differ by a byte and models notice:
 *   {%- and -%}      take away all white space before and behind;
 *   trim_blocks      a line end right behind "%}" or "#}" goes, but not with "+%}" or "}}";
 *   lstrip_blocks    blanks between the line's start and "{%" or "{#" go, but not with "{%+";
 *   the text's end   loses one line end.
 * "Line's start" also means: the tag before ended with a line end that it swallowed.
 * Chat templates are made for an environment with both options on (transformers sets them so), and
 * this file knows no other.
 *
 * Checked against the lexer of Jinja2 3.1.6 (its regular expressions are the specification) with
 * the fixtures and with tests/test_chat.py.
 *
 * Rejected: cutting the text into an array of tokens first; the parser looks only one ahead.
 *
 * Next: jinja_parse.c. */
#include "model/jinja_lex.h"

#include "model/jinja_case.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BAD(lx, ...) JMEM_FAIL((lx)->m, ERR_INTEGRITY, __VA_ARGS__)

static bool starts(const struct jlex *lx, size_t at, const char *what)
{
    const size_t n = strlen(what);
    return at <= lx->src.n && lx->src.n - at >= n && memcmp(lx->src.p + at, what, n) == 0;
}

/* Byte behind the white space at `at`. */
static size_t skip_space(const struct jlex *lx, size_t at)
{
    while (at < lx->src.n) {
        uint32_t cp = 0;
        const int n = utf8_read(lx->src.p + at, lx->src.n - at, &cp);
        if (n == 0 || !jstr_is_space(cp)) {
            break;
        }
        at += (size_t)n;
    }
    return at;
}

static void go_to(struct jlex *lx, size_t at)
{
    for (size_t i = lx->at; i < at; i++) {
        lx->line += lx->src.p[i] == '\n';
    }
    lx->is_line_start = at > lx->at ? lx->src.p[at - 1] == '\n' : lx->is_line_start;
    lx->at = at;
}

enum err jlex_init(struct jlex *lx, struct jmem *m, struct view source)
{
    struct jstr_out o;
    jstr_begin(&o, m);
    size_t i = 0;
    while (i < source.n && !o.is_failed) {
        size_t n = 0;
        while (i + n < source.n && source.p[i + n] != '\r') {
            uint32_t cp = 0;
            const int k = utf8_read(source.p + i + n, source.n - i - n, &cp);
            if (k == 0) {
                break;
            }
            n += (size_t)k;
        }
        jstr_add_view(&o, view_part(source, i, n), true);
        i += n;
        if (i < source.n && source.p[i] == '\r') {
            jstr_add_view(&o, VIEW("\n"), true);
            i += i + 1 < source.n && source.p[i + 1] == '\n' ? 2 : 1;
        } else if (i < source.n) {
            jstr_add_code(&o, 0xfffd, true);
            i += utf8_bad(source.p + i, source.n - i);
        }
    }
    const struct jstr *s = jstr_end(&o, false);
    if (s == NULL) {
        return m->err;
    }
    const bool has_end = s->n > 0 && s->p[s->n - 1] == '\n';
    *lx = (struct jlex){ .m = m,
                         .src = { s->p, has_end ? s->n - 1 : s->n },
                         .line = 1,
                         .tag = JLEX_EOF,
                         .next = JLEX_EOF,
                         .is_line_start = true };
    return ERR_OK;
}

/* --- outside of tags -------------------------------------------------------------------------- */

/* How much of src[from, to) stays in front of a tag with the given sign ('-', '+' or 0). */
static size_t strip_before(const struct jlex *lx, size_t from, size_t to, char sign, bool is_var)
{
    if (sign == '-') {
        while (to > from) {
            size_t at = to - 1;
            while (at > from && ((unsigned char)lx->src.p[at] & 0xc0u) == 0x80u) {
                at--;
            }
            uint32_t cp = 0;
            if (utf8_read(lx->src.p + at, to - at, &cp) == 0 || !jstr_is_space(cp)) {
                break;
            }
            to = at;
        }
        return to;
    }
    if (sign == '+' || is_var) {
        return to;
    }
    size_t line = to;
    while (line > from && lx->src.p[line - 1] != '\n') {
        line--;
    }
    if ((line > from || lx->is_line_start) && skip_space(lx, line) >= to) {
        return line;
    }
    return to;
}

/* Behind the end mark of a block or comment ("%}" or "#}") at `at`, or SIZE_MAX if none is there.
 */
static size_t block_end(const struct jlex *lx, size_t at, const char *mark)
{
    if (starts(lx, at, "+") && starts(lx, at + 1, mark)) {
        return at + 3;
    }
    if (starts(lx, at, "-") && starts(lx, at + 1, mark)) {
        return skip_space(lx, at + 3);
    }
    if (starts(lx, at, mark)) {
        return at + 2 + (starts(lx, at + 2, "\n") ? 1 : 0);
    }
    return SIZE_MAX;
}

/* Behind "{% raw %}" at `at`, or SIZE_MAX. */
static size_t raw_begin(const struct jlex *lx, size_t at)
{
    at += 2;
    if (starts(lx, at, "-") || starts(lx, at, "+")) {
        at++;
    }
    at = skip_space(lx, at);
    if (!starts(lx, at, "raw")) {
        return SIZE_MAX;
    }
    at = skip_space(lx, at + 3);
    if (starts(lx, at, "-%}")) {
        return skip_space(lx, at + 3);
    }
    return starts(lx, at, "%}") ? at + 2 : SIZE_MAX;
}

static enum err data_token(struct jlex *lx, size_t from, size_t to, struct jlex_token *out)
{
    out->type = JLEX_DATA;
    out->text = jstr_over(lx->m, view_part(lx->src, from, to - from), true);
    return out->text == NULL ? lx->m->err : ERR_OK;
}

/* The data of a raw block, which begins at lx->at, and past its end. */
static enum err raw_token(struct jlex *lx, struct jlex_token *out)
{
    for (size_t at = lx->at;; at++) {
        at = view_find(lx->src, VIEW("{%"), at);
        if (at == SIZE_MAX) {
            return BAD(lx, "line %u: a raw block does not end", lx->line);
        }
        char sign = 0;
        size_t end = at + 2;
        if (starts(lx, end, "-") || starts(lx, end, "+")) {
            sign = lx->src.p[end++];
        }
        end = skip_space(lx, end);
        if (!starts(lx, end, "endraw")) {
            continue;
        }
        end = block_end(lx, skip_space(lx, end + 6), "%}");
        if (end == SIZE_MAX) {
            continue;
        }
        const size_t from = lx->at;
        const size_t to = strip_before(lx, from, at, sign, false);
        go_to(lx, end);
        return data_token(lx, from, to, out);
    }
}

static enum err skip_comment(struct jlex *lx)
{
    size_t at = view_find(lx->src, VIEW("#}"), lx->at);
    if (at == SIZE_MAX) {
        return BAD(lx, "line %u: a comment does not end", lx->line);
    }
    if (at > lx->at && (lx->src.p[at - 1] == '-' || lx->src.p[at - 1] == '+')) {
        at--;
    }
    go_to(lx, block_end(lx, at, "#}"));
    return ERR_OK;
}

/* Byte of the next "{{", "{%" or "{#" at or behind `at`, or the end. */
static size_t find_tag(const struct jlex *lx, size_t at)
{
    for (; at + 1 < lx->src.n; at++) {
        const char *p = memchr(lx->src.p + at, '{', lx->src.n - at - 1);
        if (p == NULL) {
            break;
        }
        at = (size_t)(p - lx->src.p);
        if (p[1] == '{' || p[1] == '%' || p[1] == '#') {
            return at;
        }
    }
    return lx->src.n;
}

/* Takes the data in front of the next tag and enters the tag. An empty text is no token. */
static enum err outside(struct jlex *lx, struct jlex_token *out)
{
    const size_t from = lx->at;
    const size_t tag = find_tag(lx, from);
    if (tag == lx->src.n) {
        go_to(lx, tag);
        return from == tag ? ERR_OK : data_token(lx, from, tag, out);
    }
    const char kind = lx->src.p[tag + 1];
    size_t end = tag + 2;
    char sign = 0;
    if (starts(lx, end, "-") || starts(lx, end, "+")) {
        sign = lx->src.p[end++];
    }
    const size_t to = strip_before(lx, from, tag, sign, kind == '{');
    const size_t raw = kind == '%' ? raw_begin(lx, tag) : SIZE_MAX;
    go_to(lx, raw != SIZE_MAX ? raw : end);
    if (raw != SIZE_MAX) {
        lx->next = JLEX_DATA;
    } else if (kind == '#') {
        TRY(skip_comment(lx));
    } else {
        lx->next = kind == '{' ? JLEX_VAR_BEGIN : JLEX_BLOCK_BEGIN;
    }
    return from == to ? ERR_OK : data_token(lx, from, to, out);
}

/* --- inside of tags --------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Behind a run of digits that may have single _ between them; `at` itself when there is none. */
static size_t skip_digits(const struct jlex *lx, size_t at)
{
    while (at < lx->src.n && is_digit(lx->src.p[at])) {
        at++;
        if (at + 1 < lx->src.n && lx->src.p[at] == '_' && is_digit(lx->src.p[at + 1])) {
            at++;
        }
    }
    return at;
}

/* The characters [from, to) without _ as a C string; false when longer than fits. */
static bool plain_digits(const struct jlex *lx, size_t from, size_t to, char out[400])
{
    size_t n = 0;
    for (size_t i = from; i < to; i++) {
        if (lx->src.p[i] != '_') {
            if (n + 1 >= 400) {
                return false;
            }
            out[n++] = lx->src.p[i];
        }
    }
    out[n] = 0;
    return true;
}

/* Behind a float at `at`, or `at` when there is none (a fraction or an exponent must be there). */
static size_t float_end(const struct jlex *lx, size_t at)
{
    if (at > 0 && lx->src.p[at - 1] == '.') {
        return at;
    }
    const size_t whole = skip_digits(lx, at);
    size_t end = whole;
    if (starts(lx, whole, ".") && skip_digits(lx, whole + 1) > whole + 1) {
        end = skip_digits(lx, whole + 1);
    }
    if (starts(lx, end, "e") || starts(lx, end, "E")) {
        size_t digits = end + 1;
        if (starts(lx, digits, "+") || starts(lx, digits, "-")) {
            digits++;
        }
        if (skip_digits(lx, digits) > digits) {
            end = skip_digits(lx, digits);
        }
    }
    return end > whole ? end : at;
}

/* Behind an integer at `at` and its base: 0x.., 0o.., 0b.., zeros, or a number without leading 0.
 */
static size_t int_end(const struct jlex *lx, size_t at, int *base)
{
    *base = 10;
    if (lx->src.p[at] != '0') {
        return skip_digits(lx, at);
    }
    const char kind = at + 1 < lx->src.n ? (char)(lx->src.p[at + 1] | 0x20) : 0;
    *base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
    size_t end = *base == 10 ? at : at + 2;
    for (size_t i = end; i < lx->src.n; i++) {
        const char c = lx->src.p[i];
        const char low = (char)(c | 0x20);
        const int digit = is_digit(c) ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : 99;
        if (digit < (*base == 10 ? 1 : *base)) {
            end = i + 1;
        } else if (c != '_' || (i > 0 && lx->src.p[i - 1] == '_')) {
            break;
        }
    }
    if (*base != 10 && end == at + 2) {
        *base = 10; /* "0x" without digits: a zero, then a name */
        return at + 1;
    }
    return end;
}

static enum err number_token(struct jlex *lx, struct jlex_token *out)
{
    char text[400];
    const size_t from = lx->at;
    size_t end = float_end(lx, from);
    if (end > from) {
        if (!plain_digits(lx, from, end, text)) {
            return BAD(lx, "line %u: a number of more than 399 digits", lx->line);
        }
        out->type = JLEX_FLOAT;
        out->f = strtod(text, NULL);
        lx->at = end;
        return ERR_OK;
    }
    int base = 10;
    end = int_end(lx, from, &base);
    const size_t digits = base == 10 ? from : from + 2;
    errno = 0;
    if (!plain_digits(lx, digits, end, text)) {
        errno = ERANGE;
    } else {
        out->i = strtoll(text, NULL, base);
    }
    if (errno != 0) {
        return JMEM_FAIL(lx->m, ERR_UNSUPPORTED,
                         "line %u: a whole number beyond 64 bits is not supported", lx->line);
    }
    out->type = JLEX_INT;
    lx->at = end;
    return ERR_OK;
}

static enum err name_token(struct jlex *lx, struct jlex_token *out)
{
    size_t at = lx->at;
    while (at < lx->src.n) {
        uint32_t cp = 0;
        const int n = utf8_read(lx->src.p + at, lx->src.n - at, &cp);
        if (n == 0 || (cp != '_' && !jcase_is_alnum(cp))) {
            break;
        }
        at += (size_t)n;
    }
    if (at == lx->at) {
        return BAD(lx, "line %u: unexpected character \"%.*s\"", lx->line,
                   (int)(lx->src.n - at < 4 ? lx->src.n - at : 4), lx->src.p + at);
    }
    out->type = JLEX_NAME;
    out->text = jstr_over(lx->m, view_part(lx->src, lx->at, at - lx->at), true);
    lx->at = at;
    return out->text == NULL ? lx->m->err : ERR_OK;
}

/* Value of n hexadecimal digits at `at`, or UINT32_MAX. */
static uint32_t hex_value(const struct jlex *lx, size_t at, size_t n)
{
    uint32_t v = 0;
    for (size_t i = at; i < at + n; i++) {
        const char c = i < lx->src.n ? lx->src.p[i] : 0;
        const char low = (char)(c | 0x20);
        if (is_digit(c)) {
            v = v * 16 + (uint32_t)(c - '0');
        } else if (low >= 'a' && low <= 'f') {
            v = v * 16 + (uint32_t)(low - 'a' + 10);
        } else {
            return UINT32_MAX;
        }
    }
    return v;
}

/* Python: what is not ASCII behind a backslash is spelled out, because it is escaped first. */
static void add_odd_escape(struct jstr_out *o, uint32_t cp)
{
    char text[12];
    const char *fmt = cp < 0x100 ? "x%02x" : cp < 0x10000 ? "u%04x" : "U%08x";
    size_t n = 0;
    text[n++] = '\\';
    const int digits = cp < 0x100 ? 2 : cp < 0x10000 ? 4 : 8;
    text[n++] = fmt[0];
    for (int k = digits - 1; k >= 0; k--) {
        text[n++] = "0123456789abcdef"[(cp >> (4 * k)) & 15u];
    }
    jstr_add_view(o, (struct view){ text, n }, true);
}

/* One escape sequence, whose backslash is at `at`; gives the byte behind it. */
static enum err escape(struct jlex *lx, size_t at, struct jstr_out *o, size_t *end)
{
    static const char from[] = "\\'\"abfnrtv";
    static const char to[] = "\\'\"\a\b\f\n\r\t\v";
    const char c = lx->src.p[at + 1];
    const char *hit = c != 0 ? strchr(from, c) : NULL;
    *end = at + 2;
    if (hit != NULL) {
        jstr_add_code(o, (uint32_t)to[hit - from], true);
    } else if (c == '\n') {
        return ERR_OK; /* the line goes on */
    } else if (c >= '0' && c <= '7') {
        uint32_t v = 0;
        size_t i = at + 1;
        for (; i < at + 4 && i < lx->src.n && lx->src.p[i] >= '0' && lx->src.p[i] <= '7'; i++) {
            v = v * 8 + (uint32_t)(lx->src.p[i] - '0');
        }
        jstr_add_code(o, v, true);
        *end = i;
    } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        const uint32_t v = hex_value(lx, at + 2, n);
        if (v > 0x10ffff) {
            return BAD(lx, "line %u: \\%c wants %zu hexadecimal digits of a character", lx->line, c,
                       n);
        }
        jstr_add_code(o, v, true);
        *end = at + 2 + n;
    } else if (c == 'N') {
        return JMEM_FAIL(lx->m, ERR_UNSUPPORTED, "line %u: \\N{name} in strings is not supported",
                         lx->line);
    } else {
        uint32_t cp = 0;
        const int n = utf8_read(lx->src.p + at + 1, lx->src.n - at - 1, &cp);
        if (cp < 0x80) {
            jstr_add_view(o, view_part(lx->src, at, 2), true);
        } else {
            add_odd_escape(o, cp);
        }
        *end = at + 1 + (size_t)n;
    }
    return ERR_OK;
}

static enum err string_token(struct jlex *lx, struct jlex_token *out)
{
    const char quote = lx->src.p[lx->at];
    size_t end = lx->at + 1;
    bool has_escape = false;
    while (end < lx->src.n && lx->src.p[end] != quote) {
        has_escape |= lx->src.p[end] == '\\';
        end += lx->src.p[end] == '\\' ? 2 : 1;
    }
    if (end >= lx->src.n) {
        return BAD(lx, "line %u: a string does not end", lx->line);
    }
    const size_t from = lx->at + 1;
    out->type = JLEX_STRING;
    if (!has_escape) {
        out->text = jstr_over(lx->m, view_part(lx->src, from, end - from), true);
    } else {
        struct jstr_out o;
        jstr_begin(&o, lx->m);
        for (size_t i = from; i < end;) {
            const size_t slash = view_find(view_part(lx->src, 0, end), VIEW("\\"), i);
            const size_t to = slash == SIZE_MAX ? end : slash;
            jstr_add_view(&o, view_part(lx->src, i, to - i), true);
            i = to;
            if (to < end) {
                TRY(escape(lx, to, &o, &i));
            }
        }
        out->text = jstr_end(&o, false);
    }
    go_to(lx, end + 1);
    return out->text == NULL ? lx->m->err : ERR_OK;
}

static const struct {
    const char *text;
    enum jlex_type type;
} operators[] = { /* longer ones first */
                  { "//", JLEX_FLOORDIV }, { "**", JLEX_POW },     { "==", JLEX_EQ },
                  { "!=", JLEX_NE },       { ">=", JLEX_GE },      { "<=", JLEX_LE },
                  { "+", JLEX_ADD },       { "-", JLEX_SUB },      { "/", JLEX_DIV },
                  { "*", JLEX_MUL },       { "%", JLEX_MOD },      { "~", JLEX_TILDE },
                  { "[", JLEX_LBRACKET },  { "]", JLEX_RBRACKET }, { "(", JLEX_LPAREN },
                  { ")", JLEX_RPAREN },    { "{", JLEX_LBRACE },   { "}", JLEX_RBRACE },
                  { ">", JLEX_GT },        { "<", JLEX_LT },       { "=", JLEX_ASSIGN },
                  { ".", JLEX_DOT },       { ":", JLEX_COLON },    { "|", JLEX_PIPE },
                  { ",", JLEX_COMMA },     { ";", JLEX_SEMICOLON }
};

/* Keeps the stack of open brackets. */
static enum err count_bracket(struct jlex *lx, enum jlex_type type)
{
    if (type == JLEX_LPAREN || type == JLEX_LBRACE || type == JLEX_LBRACKET) {
        if (lx->n_open >= JLEX_NEST_MAX) {
            return JMEM_FAIL(lx->m, ERR_LIMIT, "line %u: more than %d brackets are open", lx->line,
                             JLEX_NEST_MAX);
        }
        lx->open[lx->n_open++] = (char)type;
    } else if (type == JLEX_RPAREN || type == JLEX_RBRACE || type == JLEX_RBRACKET) {
        const int want = type == JLEX_RPAREN   ? JLEX_LPAREN
                         : type == JLEX_RBRACE ? JLEX_LBRACE
                                               : JLEX_LBRACKET;
        if (lx->n_open == 0 || lx->open[lx->n_open - 1] != (char)want) {
            return BAD(lx, "line %u: unexpected '%s'", lx->line, jlex_name(type));
        }
        lx->n_open--;
    }
    return ERR_OK;
}

static enum err operator_token(struct jlex *lx, struct jlex_token *out)
{
    for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
        if (starts(lx, lx->at, operators[i].text)) {
            out->type = operators[i].type;
            lx->at += strlen(operators[i].text);
            return count_bracket(lx, out->type);
        }
    }
    return name_token(lx, out);
}

static enum err inside(struct jlex *lx, struct jlex_token *out)
{
    go_to(lx, skip_space(lx, lx->at));
    out->line = lx->line;
    if (lx->at >= lx->src.n) {
        return ERR_OK;
    }
    if (lx->n_open == 0) {
        size_t end = SIZE_MAX;
        if (lx->tag == JLEX_BLOCK_BEGIN) {
            end = block_end(lx, lx->at, "%}");
            out->type = JLEX_BLOCK_END;
        } else if (starts(lx, lx->at, "-}}")) {
            end = skip_space(lx, lx->at + 3);
        } else if (starts(lx, lx->at, "}}")) {
            end = lx->at + 2;
        }
        if (end != SIZE_MAX) {
            out->type = lx->tag == JLEX_BLOCK_BEGIN ? JLEX_BLOCK_END : JLEX_VAR_END;
            lx->tag = JLEX_EOF;
            go_to(lx, end);
            return ERR_OK;
        }
    }
    const char c = lx->src.p[lx->at];
    if (is_digit(c)) {
        return number_token(lx, out);
    }
    if (c == '\'' || c == '"') {
        return string_token(lx, out);
    }
    return operator_token(lx, out);
}

enum err jlex_next(struct jlex *lx, struct jlex_token *out)
{
    *out = (struct jlex_token){ .type = JLEX_EOF, .line = lx->line };
    while (out->type == JLEX_EOF) {
        if (lx->next == JLEX_DATA) {
            lx->next = JLEX_EOF;
            TRY(raw_token(lx, out));
        } else if (lx->next != JLEX_EOF) {
            out->type = lx->next;
            lx->tag = lx->next;
            lx->next = JLEX_EOF;
        } else if (lx->at >= lx->src.n) {
            break;
        } else if (lx->tag != JLEX_EOF) {
            TRY(inside(lx, out));
        } else {
            out->line = lx->line;
            TRY(outside(lx, out));
        }
    }
    return ERR_OK;
}

const char *jlex_name(enum jlex_type type)
{
    static const char *const other[] = {
        [JLEX_EOF] = "end of template",
        [JLEX_DATA] = "text",
        [JLEX_BLOCK_BEGIN] = "begin of a tag",
        [JLEX_BLOCK_END] = "end of the tag",
        [JLEX_VAR_BEGIN] = "{{",
        [JLEX_VAR_END] = "}}",
        [JLEX_NAME] = "a name",
        [JLEX_STRING] = "a string",
        [JLEX_INT] = "a whole number",
        [JLEX_FLOAT] = "a number",
    };
    for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
        if (operators[i].type == type) {
            return operators[i].text;
        }
    }
    return type < sizeof(other) / sizeof(other[0]) ? other[type] : "?";
}
