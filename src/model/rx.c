/* rx - the small regular expressions of pre-tokenizers
 *
 * Every tokenizer cuts text by a published pattern before it merges; the patterns are few and
 * simple: rows of sets with repeats, under alternatives. A pattern becomes a tree of nodes;
 * matching walks it with a continuation, so a repeat gives back characters when what follows does
 * not match. Repeats are of single characters (or of a group at most once), so the walk's depth is
 * bounded by the pattern, never by the text.
 *
 * A set is a mask of general categories plus white space plus ranges, possibly negated: three words
 * and a short list. Case-insensitive groups compare lower-cased letters.
 *
 * Rejected: PCRE (its JIT needs memory that is writable and executable), and std-like engines that
 * recurse on the text.
 *
 * Next: model/tok.c. */
#include "model/rx.h"

#include "base/mem.h"
#include "model/unicode.h"

#include <stdbool.h>
#include <string.h>

#define NODE_MAX  256
#define RANGE_MAX 512
#define SPACE_BIT (1u << 31)
#define MANY      0x7FFFFFFF
#define DEPTH_MAX 16

enum kind { SET, GROUP, LOOK, END };

struct range {
    uint32_t lo;
    uint32_t hi;
};

struct node {
    enum kind kind;
    int32_t min;   /* repeats, at least */
    int32_t max;   /* and at most */
    uint32_t bits; /* SET: categories and white space */
    int32_t range0;
    int32_t n_range;
    bool is_negated; /* SET: outside; LOOK: must not follow */
    bool is_case_free;
    int32_t child; /* GROUP: first alternative's node; LOOK: its set */
    int32_t next;  /* following node of the sequence, -1 = end */
    int32_t other; /* first node of a sequence: first node of the next alternative, -1 = none */
};

struct rx {
    struct node node[NODE_MAX];
    struct range range[RANGE_MAX];
    int32_t n_node;
    int32_t n_range;
    int32_t top;
};

size_t rx_chars(struct view text, struct rx_char *c)
{
    size_t n = 0;
    size_t at = 0;
    while (at < text.n) {
        uint32_t code = 0xFFFD;
        int len = utf8_read(text.p + at, text.n - at, &code);
        len = len > 0 ? len : 1;
        c[n].code = code;
        c[n].at = (uint32_t)at;
        c[n].bits = 1u << unicode_category(code) | (unicode_is_space(code) ? SPACE_BIT : 0);
        n++;
        at += (size_t)len;
    }
    c[n] = (struct rx_char){ .at = (uint32_t)text.n };
    return n;
}

/* --- compiling -------------------------------------------------------------------------------- */

struct parser {
    struct rx *r;
    const char *p; /* rest of the pattern */
    const char *all;
    bool is_case_free;
};

static enum err wrong(const struct parser *p, const char *what)
{
    return err_set(ERR_UNSUPPORTED, "pattern \"%.80s\": at \"%.20s\": %s", p->all, p->p, what);
}

static enum err add_node(struct parser *p, enum kind kind, int32_t *out)
{
    if (p->r->n_node == NODE_MAX) {
        return wrong(p, "too long");
    }
    p->r->node[p->r->n_node] = (struct node){ .kind = kind,
                                              .min = 1,
                                              .max = 1,
                                              .child = -1,
                                              .next = -1,
                                              .other = -1,
                                              .range0 = p->r->n_range,
                                              .is_case_free = p->is_case_free };
    *out = p->r->n_node++;
    return ERR_OK;
}

/* One more range of code points of a set. */
static enum err add_range(struct parser *p, struct node *n, uint32_t lo, uint32_t hi)
{
    if (p->r->n_range == RANGE_MAX) {
        return wrong(p, "too many ranges");
    }
    p->r->range[p->r->n_range++] = (struct range){ lo, hi };
    n->n_range++;
    return ERR_OK;
}

/* \p{L}, \p{Lu}, \p{N} ... : the categories' bits. */
static enum err property(struct parser *p, uint32_t *bits)
{
    static const char names[] = "CnLuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCo";
    const char *end = strchr(p->p, '}');
    if (p->p[0] != '{' || end == NULL || end - p->p < 2 || end - p->p > 3) {
        return wrong(p, "unknown property");
    }
    const size_t n = (size_t)(end - p->p) - 1;
    *bits = 0;
    for (size_t i = 0; i < sizeof names - 1; i += 2) {
        if (memcmp(names + i, p->p + 1, n) == 0) {
            *bits |= 1u << (i / 2);
        }
    }
    if (*bits == 0) {
        return wrong(p, "unknown property");
    }
    p->p = end + 1;
    return ERR_OK;
}

/* One character of the pattern as a code point; 0 at its end, which stays the end. */
static uint32_t take_code(struct parser *p)
{
    uint32_t code = 0;
    const int n = utf8_read(p->p, strlen(p->p), &code);
    p->p += n > 0 ? n : *p->p != '\0';
    return code;
}

/* What stands after a backslash: adds it to the set. *is_outside: the class is a complement (\S,
 * \P). */
static enum err escape(struct parser *p, struct node *n, bool *is_outside)
{
    const char c = *p->p;
    uint32_t bits = 0;
    *is_outside = c == 'S' || c == 'P' || c == 'D';
    switch (c) {
    case 's':
    case 'S':
        n->bits |= SPACE_BIT;
        p->p++;
        return ERR_OK;
    case 'd':
    case 'D':
        n->bits |= 1u << UNICODE_ND;
        p->p++;
        return ERR_OK;
    case 'p':
    case 'P':
        p->p++;
        TRY(property(p, &bits));
        n->bits |= bits;
        return ERR_OK;
    case 'r':
    case 'n':
    case 't':
        p->p++;
        return add_range(p, n,
                         c == 'r'   ? 13
                         : c == 'n' ? 10
                                    : 9,
                         c == 'r'   ? 13
                         : c == 'n' ? 10
                                    : 9);
    case '\0':
        return wrong(p, "ends in a backslash");
    default: {
        const uint32_t code = take_code(p);
        return add_range(p, n, code, code);
    }
    }
}

static enum err set(struct parser *p, struct node *n)
{
    bool is_outside = false;
    if (*p->p == '^') {
        n->is_negated = true;
        p->p++;
    }
    while (*p->p != ']') {
        if (*p->p == '\0') {
            return wrong(p, "a set without end");
        }
        if (*p->p == '\\' && strchr("sSdDpPrnt", p->p[1]) != NULL) {
            p->p++;
            TRY(escape(p, n, &is_outside));
            if (is_outside) {
                return wrong(p, "a complement inside a set");
            }
            continue;
        }
        p->p += *p->p == '\\';
        const uint32_t lo = take_code(p);
        uint32_t hi = lo;
        if (p->p[0] == '-' && p->p[1] != ']' && p->p[1] != '\0') {
            p->p++;
            p->p += *p->p == '\\';
            hi = take_code(p);
        }
        TRY(add_range(p, n, lo, hi));
    }
    p->p++;
    return ERR_OK;
}

static enum err quantifier(struct parser *p, struct node *n)
{
    if (*p->p == '?' || *p->p == '*' || *p->p == '+') {
        n->min = *p->p == '+' ? 1 : 0;
        n->max = *p->p == '?' ? 1 : MANY;
        p->p++;
    } else if (*p->p == '{') {
        int32_t v[2] = { 0, -1 };
        int i = 0;
        for (p->p++; *p->p != '}'; p->p++) {
            if (*p->p == ',') {
                i = 1;
                v[1] = MANY;
            } else if (*p->p >= '0' && *p->p <= '9') {
                v[i] = (v[i] < 0 || v[i] == MANY ? 0 : v[i]) * 10 + (*p->p - '0');
            }
            if (*p->p == '\0' || v[0] > 1000 || (v[1] > 1000 && v[1] != MANY)) {
                return wrong(p, "bad count");
            }
        }
        p->p++;
        n->min = v[0];
        n->max = i == 0 ? v[0] : v[1];
    }
    if (*p->p == '+') { /* possessive: these patterns never need to give back there */
        p->p++;
    }
    return ERR_OK;
}

static enum err alternatives(struct parser *p, int depth, int32_t *out);

static enum err group(struct parser *p, int depth, int32_t node)
{
    const bool was_free = p->is_case_free;
    int32_t child = -1;
    if (strncmp(p->p, "?!", 2) == 0 || strncmp(p->p, "?=", 2) == 0) {
        p->r->node[node].kind = LOOK;
        p->r->node[node].is_negated = p->p[1] == '!';
        p->p += 2;
    } else if (strncmp(p->p, "?i:", 3) == 0) {
        p->is_case_free = true;
        p->p += 3;
    } else if (strncmp(p->p, "?:", 2) == 0) {
        p->p += 2;
    }
    TRY(alternatives(p, depth + 1, &child));
    if (*p->p != ')') {
        return wrong(p, "a group without end");
    }
    p->p++;
    p->is_case_free = was_free;
    p->r->node[node].child = child;
    return ERR_OK;
}

static enum err atom(struct parser *p, int depth, int32_t *out)
{
    const char c = *p->p++;
    bool is_outside = false;
    TRY(add_node(p, c == '(' ? GROUP : c == '$' ? END : SET, out));
    struct node *n = &p->r->node[*out];
    if (c == '(') {
        TRY(group(p, depth, *out));
    } else if (c == '[') {
        TRY(set(p, n));
    } else if (c == '\\') {
        TRY(escape(p, n, &is_outside));
        n->is_negated = is_outside;
    } else if (c != '$') {
        p->p--;
        const uint32_t code = take_code(p);
        TRY(add_range(p, n, code, code));
    }
    TRY(quantifier(p, &p->r->node[*out]));
    if (p->r->node[*out].kind == GROUP && p->r->node[*out].max > 1) {
        return wrong(p, "a repeated group");
    }
    return ERR_OK;
}

static enum err sequence(struct parser *p, int depth, int32_t *out)
{
    int32_t last = -1;
    *out = -1;
    while (*p->p != '\0' && *p->p != '|' && *p->p != ')') {
        int32_t n = -1;
        TRY(atom(p, depth, &n));
        if (last < 0) {
            *out = n;
        } else {
            p->r->node[last].next = n;
        }
        last = n;
    }
    return *out >= 0 ? ERR_OK : wrong(p, "an empty alternative");
}

/* Depth is that of the pattern's brackets; patterns come from this program, not from outside. */
static enum err alternatives(struct parser *p, int depth, int32_t *out)
{
    if (depth > DEPTH_MAX) {
        return wrong(p, "nested too deep");
    }
    int32_t last = -1;
    for (;;) {
        int32_t n = -1;
        TRY(sequence(p, depth, &n));
        if (last < 0) {
            *out = n;
        } else {
            p->r->node[last].other = n;
        }
        last = n;
        if (*p->p != '|') {
            return ERR_OK;
        }
        p->p++;
    }
}

enum err rx_open(struct rx **out, const char *pattern)
{
    struct rx *r = mem_alloc(sizeof *r);
    REQUIRE(r != NULL, ERR_MEMORY, "no memory for a pattern");
    struct parser p = { .r = r, .p = pattern, .all = pattern };
    enum err e = alternatives(&p, 0, &r->top);
    if (e == ERR_OK && *p.p != '\0') {
        e = wrong(&p, "a bracket too many");
    }
    if (e != ERR_OK) {
        rx_close(r);
        return e;
    }
    *out = r;
    return ERR_OK;
}

void rx_close(struct rx *r)
{
    mem_free(r);
}

/* --- matching --------------------------------------------------------------------------------- */

struct text {
    const struct rx *r;
    const struct rx_char *c;
    size_t n;
};

/* Where to go on after a sequence: the node after the group, and that group's own continuation. */
struct after {
    int32_t node;
    const struct after *outer;
};

static bool in_set(const struct rx *r, const struct node *n, const struct rx_char *c)
{
    bool is_in = (c->bits & n->bits) != 0;
    const uint32_t code = n->is_case_free ? unicode_lower(c->code) : c->code;
    for (int32_t i = 0; i < n->n_range && !is_in; i++) {
        is_in = code >= r->range[n->range0 + i].lo && code <= r->range[n->range0 + i].hi;
    }
    return is_in != n->is_negated;
}

static bool match_from(const struct text *t, int32_t node, size_t at, const struct after *after,
                       size_t *end);

static bool match_after(const struct text *t, size_t at, const struct after *after, size_t *end)
{
    if (after == NULL) {
        *end = at;
        return true;
    }
    return after->node >= 0 ? match_from(t, after->node, at, after->outer, end)
                            : match_after(t, at, after->outer, end);
}

/* A set with a quantifier: takes as many as fit, then gives back one by one until the rest
 * matches. */
static bool match_set(const struct text *t, const struct node *n, size_t at,
                      const struct after *after, size_t *end)
{
    const size_t most = n->max == MANY ? t->n : (size_t)n->max;
    size_t k = 0;
    while (k < most && at + k < t->n && in_set(t->r, n, &t->c[at + k])) {
        k++;
    }
    const struct after next = { n->next, after };
    for (size_t m = k + 1; m-- > (size_t)n->min;) {
        if (match_after(t, at + m, &next, end)) {
            return true;
        }
    }
    return false;
}

/* Alternatives from left to right; the first that leads to a match wins. */
static bool match_any(const struct text *t, int32_t first, size_t at, const struct after *after,
                      size_t *end)
{
    for (int32_t i = first; i >= 0; i = t->r->node[i].other) {
        if (match_from(t, i, at, after, end)) {
            return true;
        }
    }
    return false;
}

/* Recursion follows the pattern's nodes, never the text. */
static bool match_from(const struct text *t, int32_t node, size_t at, const struct after *after,
                       size_t *end)
{
    const struct node *n = &t->r->node[node];
    const struct after next = { n->next, after };
    size_t ignored;
    switch (n->kind) {
    case SET:
        return match_set(t, n, at, after, end);
    case GROUP:
        return match_any(t, n->child, at, &next, end) ||
               (n->min == 0 && match_after(t, at, &next, end));
    case LOOK:
        return match_any(t, n->child, at, NULL, &ignored) != n->is_negated &&
               match_after(t, at, &next, end);
    case END:
        return at == t->n && match_after(t, at, &next, end);
    }
    return false;
}

size_t rx_match(const struct rx *r, const struct rx_char *c, size_t n, size_t at)
{
    const struct text t = { r, c, n };
    size_t end = at;
    return match_any(&t, r->top, at, NULL, &end) ? end - at : 0;
}
