/* jinja_str - text values of templates
 *
 * A text is a run of UTF-8 bytes plus, for every byte, who wrote it: the template or the person (or
 * tool) whose message is being rendered. The tokenizer later turns only the template's own bytes
 * into control tokens, so a message that contains "<|im_end|>" stays words. Most texts have one
 * origin; they carry a single flag instead of an array of marks.
 *
 * Templates count in characters, so every text knows how many it has. When that equals the number
 * of bytes the text is ASCII and positions need no search.
 *
 * Searching forward uses memmem, which takes linear time on any input. Searching backward tries
 * each place; what it costs is charged to the step budget byte by byte, so a hostile pair of texts
 * ends in an error and not in a long wait.
 *
 * The builder (jstr_out) is how everything longer than a part of another text is made. It fails
 * quietly and once: see jinja_mem.c for where the limit comes from.
 *
 * Rejected: ropes (they make every other operation slower; building in place already makes
 * concatenation cheap), and marks as ranges (slices and replacements of ranges are where bugs
 * live).
 *
 * Next: jinja_case.c, then jinja_lex.c. */
#include "model/jinja_str.h"

#include <assert.h>
#include <string.h>

static size_t count_chars(const char *p, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        k += ((unsigned char)p[i] & 0xc0u) != 0x80u;
    }
    return k;
}

const struct jstr *jstr_over(struct jmem *m, struct view bytes, bool is_trusted)
{
    struct jstr *s = jmem_take(m, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    *s = (struct jstr){ .p = bytes.n == 0 ? "" : bytes.p,
                        .n = bytes.n,
                        .n_char = count_chars(bytes.p, bytes.n),
                        .is_trusted = is_trusted };
    return s;
}

const struct jstr *jstr_copy(struct jmem *m, struct view bytes, bool is_trusted)
{
    char *p = jmem_take(m, bytes.n);
    if (p == NULL) {
        return NULL;
    }
    if (bytes.n > 0) {
        memcpy(p, bytes.p, bytes.n);
    }
    return jstr_over(m, (struct view){ p, bytes.n }, is_trusted);
}

const struct jstr *jstr_part(struct jmem *m, const struct jstr *s, size_t at, size_t n)
{
    assert(at <= s->n && n <= s->n - at);
    if (n == s->n) {
        return s;
    }
    m->err = jmem_walk(m, s->n == s->n_char ? 0 : n);
    struct jstr *part = m->err != ERR_OK ? NULL : jmem_take(m, sizeof(*part));
    if (part == NULL) {
        return NULL;
    }
    *part = *s;
    part->p = s->p + at;
    part->mark = s->mark == NULL ? NULL : s->mark + at;
    part->n = n;
    part->n_char = s->n == s->n_char ? n : count_chars(part->p, n);
    return part;
}

const struct jstr *jstr_as(struct jmem *m, const struct jstr *s, bool is_markup)
{
    if (s->is_markup == is_markup) {
        return s;
    }
    struct jstr *twin = jmem_take(m, sizeof(*twin));
    if (twin == NULL) {
        return NULL;
    }
    *twin = *s;
    twin->is_markup = is_markup;
    return twin;
}

struct view jstr_view(const struct jstr *s)
{
    return (struct view){ s->p, s->n };
}

bool jstr_is(const struct jstr *s, const char *zero_terminated)
{
    return view_is(jstr_view(s), zero_terminated);
}

bool jstr_eq(const struct jstr *a, const struct jstr *b)
{
    return a->n == b->n && (a->p == b->p || memcmp(a->p, b->p, a->n) == 0);
}

int jstr_cmp(const struct jstr *a, const struct jstr *b)
{
    const int c = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    if (c != 0) {
        return c;
    }
    return a->n < b->n ? -1 : a->n > b->n;
}

bool jstr_trust_at(const struct jstr *s, size_t at)
{
    return s->mark == NULL ? s->is_trusted : s->mark[at] != 0;
}

size_t jstr_byte_of(const struct jstr *s, size_t i_char)
{
    if (i_char >= s->n_char) {
        return s->n;
    }
    if (s->n_char == s->n) {
        return i_char;
    }
    size_t at = 0;
    for (size_t seen = 0; at < s->n; at++) {
        if (((unsigned char)s->p[at] & 0xc0u) != 0x80u && seen++ == i_char) {
            break;
        }
    }
    return at;
}

size_t jstr_char_of(const struct jstr *s, size_t at)
{
    return s->n_char == s->n ? at : count_chars(s->p, at);
}

uint32_t jstr_read(const struct jstr *s, size_t at, size_t *n_bytes)
{
    assert(at < s->n);
    uint32_t cp = 0xfffd;
    const int n = utf8_read(s->p + at, s->n - at, &cp);
    *n_bytes = n > 0 ? (size_t)n : 1;
    return cp;
}

size_t jstr_before(const struct jstr *s, size_t at)
{
    assert(at > 0 && at <= s->n);
    do {
        at--;
    } while (at > 0 && ((unsigned char)s->p[at] & 0xc0u) == 0x80u);
    return at;
}

enum err jstr_find(struct jmem *m, const struct jstr *s, const struct jstr *what, size_t from,
                   size_t to, size_t *at)
{
    *at = SIZE_MAX;
    if (from > to || to > s->n || what->n > to - from) {
        return ERR_OK;
    }
    if (what->n == 0) {
        *at = from;
        return ERR_OK;
    }
    const char *hit = what->n == 1 ? memchr(s->p + from, what->p[0], to - from)
                                   : memmem(s->p + from, to - from, what->p, what->n);
    if (hit != NULL) {
        *at = (size_t)(hit - s->p);
    }
    return jmem_walk(m, hit != NULL ? *at - from + what->n : to - from);
}

enum err jstr_rfind(struct jmem *m, const struct jstr *s, const struct jstr *what, size_t from,
                    size_t to, size_t *at)
{
    *at = SIZE_MAX;
    if (from > to || to > s->n || what->n > to - from) {
        return ERR_OK;
    }
    TRY(jmem_walk(m, to - from));
    for (size_t i = to - what->n + 1; i-- > from;) {
        if (what->n == 0) {
            *at = i;
            return ERR_OK;
        }
        if (s->p[i] != what->p[0]) {
            continue;
        }
        TRY(jmem_walk(m, what->n));
        if (memcmp(s->p + i, what->p, what->n) == 0) {
            *at = i;
            return ERR_OK;
        }
    }
    return ERR_OK;
}

bool jstr_is_space(uint32_t c)
{
    if (c < 0x80) {
        return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
    }
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool jstr_is_line_end(uint32_t c)
{
    return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

static bool is_stripped(const struct jstr *chars, const char *p, size_t n, uint32_t cp)
{
    if (chars == NULL) {
        return jstr_is_space(cp);
    }
    return memmem(chars->p, chars->n, p, n) != NULL;
}

const struct jstr *jstr_strip(struct jmem *m, const struct jstr *s, const struct jstr *chars,
                              enum jstr_side side)
{
    size_t from = 0;
    size_t to = s->n;
    while ((side & JSTR_LEFT) != 0 && from < to) {
        size_t n = 0;
        const uint32_t cp = jstr_read(s, from, &n);
        if (!is_stripped(chars, s->p + from, n, cp)) {
            break;
        }
        from += n;
    }
    while ((side & JSTR_RIGHT) != 0 && from < to) {
        const size_t at = jstr_before(s, to);
        size_t n = 0;
        const uint32_t cp = jstr_read(s, at, &n);
        if (!is_stripped(chars, s->p + at, n, cp)) {
            break;
        }
        to = at;
    }
    const size_t each = chars == NULL ? 1 : chars->n / 8 + 1;
    m->err = jmem_step(m, (uint64_t)(from + (s->n - to)) / 8 * each + 1);
    return m->err != ERR_OK ? NULL : jstr_part(m, s, from, to - from);
}

/* Python puts the replacement between all characters when the old text is empty. */
static const struct jstr *replace_empty(struct jmem *m, const struct jstr *s, const struct jstr *by,
                                        size_t n_max)
{
    struct jstr_out o;
    jstr_begin(&o, m);
    size_t at = 0;
    for (size_t k = 0; k < n_max; k++) {
        jstr_add(&o, by);
        if (at >= s->n || o.is_failed) {
            break;
        }
        size_t n = 0;
        (void)jstr_read(s, at, &n);
        jstr_add_part(&o, s, at, n);
        at += n;
    }
    jstr_add_part(&o, s, at, s->n - at);
    return jstr_end(&o, s->is_markup);
}

const struct jstr *jstr_replace(struct jmem *m, const struct jstr *s, const struct jstr *old,
                                const struct jstr *by, size_t n_max)
{
    if (n_max == 0) {
        return s;
    }
    if (old->n == 0) {
        return replace_empty(m, s, by, n_max);
    }
    struct jstr_out o;
    jstr_begin(&o, m);
    size_t from = 0;
    size_t n_done = 0;
    while (n_done < n_max && !o.is_failed) {
        size_t at = SIZE_MAX;
        m->err = jstr_find(m, s, old, from, s->n, &at);
        if (m->err != ERR_OK) {
            return NULL;
        }
        if (at == SIZE_MAX) {
            break;
        }
        jstr_add_part(&o, s, from, at - from);
        jstr_add(&o, by);
        from = at + old->n;
        n_done++;
    }
    if (n_done == 0) {
        return s;
    }
    jstr_add_part(&o, s, from, s->n - from);
    return jstr_end(&o, s->is_markup);
}

const struct jstr *jstr_escape(struct jmem *m, const struct jstr *s)
{
    m->err = jmem_walk(m, s->n);
    if (m->err != ERR_OK) {
        return NULL;
    }
    struct jstr_out o;
    jstr_begin(&o, m);
    size_t from = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *by = NULL;
        switch (s->p[i]) {
        case '&':
            by = "&amp;";
            break;
        case '<':
            by = "&lt;";
            break;
        case '>':
            by = "&gt;";
            break;
        case '\'':
            by = "&#39;";
            break;
        case '"':
            by = "&#34;";
            break;
        default:
            continue;
        }
        jstr_add_part(&o, s, from, i - from);
        jstr_add_str(&o, by, jstr_trust_at(s, i));
        from = i + 1;
    }
    if (from == 0) {
        return jstr_as(m, s, true);
    }
    jstr_add_part(&o, s, from, s->n - from);
    return jstr_end(&o, true);
}

/* --- building --------------------------------------------------------------------------------- */

void jstr_begin(struct jstr_out *o, struct jmem *m)
{
    *o = (struct jstr_out){ .m = m };
}

/* Makes room for n more bytes and for their marks; false when o has failed. */
static bool make_room(struct jstr_out *o, size_t n)
{
    if (o->is_failed || n <= o->cap - o->n) {
        return !o->is_failed;
    }
    size_t cap = o->cap < 64 ? 64 : o->cap * 2;
    if (n > o->m->bytes_max || o->n > o->m->bytes_max) {
        JMEM_FAIL(o->m, ERR_LIMIT, "a text of %zu + %zu bytes, %zu are allowed", o->n, n,
                  o->m->bytes_max);
        o->is_failed = true;
        return false;
    }
    if (cap < o->n + n) {
        cap = o->n + n;
    }
    if (o->mark == NULL && o->p != NULL && jmem_extend(o->m, o->p, o->cap, cap)) {
        o->m->err = jmem_walk(o->m, cap - o->cap);
        o->is_failed = o->m->err != ERR_OK;
        o->cap = cap;
        return !o->is_failed;
    }
    uint8_t *mark = o->mark == NULL ? NULL : jmem_take(o->m, cap);
    char *p = o->mark != NULL && mark == NULL ? NULL : jmem_take(o->m, cap);
    if (p == NULL) {
        o->is_failed = true;
        return false;
    }
    if (o->n > 0) {
        memcpy(p, o->p, o->n);
    }
    if (mark != NULL) {
        memcpy(mark, o->mark, o->n);
    }
    o->p = p;
    o->mark = mark;
    o->cap = cap;
    return true;
}

/* Called before bytes with the given marks are added: decides whether an array is needed now. */
static bool make_marks(struct jstr_out *o, const uint8_t *mark, bool is_trusted)
{
    if (o->mark != NULL) {
        return true;
    }
    if (mark == NULL && (o->n == 0 || is_trusted == o->is_trusted)) {
        o->is_trusted = is_trusted;
        return true;
    }
    o->mark = jmem_take(o->m, o->cap);
    if (o->mark == NULL) {
        o->is_failed = true;
        return false;
    }
    memset(o->mark, o->is_trusted ? 1 : 0, o->n);
    return true;
}

static void add_bytes(struct jstr_out *o, struct view v, const uint8_t *mark, bool is_trusted)
{
    if (v.n == 0 || !make_room(o, v.n) || !make_marks(o, mark, is_trusted)) {
        return;
    }
    memcpy(o->p + o->n, v.p, v.n);
    if (o->mark != NULL && mark != NULL) {
        memcpy(o->mark + o->n, mark, v.n);
    } else if (o->mark != NULL) {
        memset(o->mark + o->n, is_trusted ? 1 : 0, v.n);
    }
    o->n += v.n;
}

void jstr_add_part(struct jstr_out *o, const struct jstr *s, size_t at, size_t n)
{
    add_bytes(o, (struct view){ s->p + at, n }, s->mark == NULL ? NULL : s->mark + at,
              s->is_trusted);
}

void jstr_add(struct jstr_out *o, const struct jstr *s)
{
    if (s == NULL) {
        o->is_failed = true;
        return;
    }
    jstr_add_part(o, s, 0, s->n);
}

void jstr_add_view(struct jstr_out *o, struct view bytes, bool is_trusted)
{
    add_bytes(o, bytes, NULL, is_trusted);
}

void jstr_add_str(struct jstr_out *o, const char *zero_terminated, bool is_trusted)
{
    add_bytes(o, view_of(zero_terminated), NULL, is_trusted);
}

void jstr_add_code(struct jstr_out *o, uint32_t code_point, bool is_trusted)
{
    char c[4];
    int n = utf8_put(code_point, c);
    if (n == 0) {
        n = utf8_put(0xfffd, c);
    }
    add_bytes(o, (struct view){ c, (size_t)n }, NULL, is_trusted);
}

void jstr_add_repeat(struct jstr_out *o, const struct jstr *s, size_t n_times)
{
    if (s->n == 0 || n_times == 0) {
        return;
    }
    if (n_times > o->m->bytes_max / s->n) {
        JMEM_FAIL(o->m, ERR_LIMIT, "%zu times a text of %zu bytes, %zu bytes are allowed", n_times,
                  s->n, o->m->bytes_max);
        o->is_failed = true;
        return;
    }
    if (!make_room(o, s->n * n_times) || !make_marks(o, s->mark, s->is_trusted)) {
        return;
    }
    /* The first copy, then what is there already, twice as much each time. */
    const size_t from = o->n;
    const size_t end = from + s->n * n_times;
    jstr_add(o, s);
    while (o->n < end) {
        const size_t have = o->n - from;
        const size_t n = have < end - o->n ? have : end - o->n;
        memcpy(o->p + o->n, o->p + from, n);
        if (o->mark != NULL) {
            memcpy(o->mark + o->n, o->mark + from, n);
        }
        o->n += n;
    }
}

const struct jstr *jstr_end(struct jstr_out *o, bool is_markup)
{
    if (o->is_failed) {
        return NULL;
    }
    const char *p = o->p;
    const size_t n = o->n;
    jmem_cut(o->m, o->mark, o->cap, n); /* one of the two is the newest, or neither */
    jmem_cut(o->m, p, o->cap, n);
    struct jstr *s = jmem_take(o->m, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    *s = (struct jstr){ .p = n == 0 ? "" : p,
                        .mark = n == 0 ? NULL : o->mark,
                        .n = n,
                        .n_char = count_chars(p, n),
                        .is_trusted = n == 0 || o->is_trusted,
                        .is_markup = is_markup };
    return s;
}
