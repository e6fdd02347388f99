/* jinja_method - methods of text, dictionaries, lists and numbers
 *
 * A table of (type, name, parameters, function). What jinja_get.c knows by name and is not in this
 * table is refused by name when it is called.
 *
 * Text methods work on bytes wherever the answer is the same, because a part of valid UTF-8 found
 * as bytes starts and ends at characters; positions are turned into characters at the border.
 * Pieces share the bytes (and the marks of origin) of the whole.
 *
 * Sources: Python 3.11 library reference, "String Methods", "Mapping Types". Two details templates
 * rely on: split() without a separator drops empty pieces and white space at both ends, and
 * strip(chars) takes a set of characters, not a prefix.
 *
 * Rejected: encode (there are no bytes in templates), translate and maketrans (nobody uses them).
 * Next: jinja_test.c. */
#include "model/jinja_method.h"

#include "model/jinja_case.h"
#include "model/jinja_format.h"
#include "model/jinja_repr.h"

#include <math.h>
#include <string.h>

static const struct jstr *self_of(const struct jcall *c)
{
    return c->self.u.s;
}

static enum err put(struct jcall *c, const struct jstr *s, struct jv *out)
{
    return jv_put_str(c->m, s, out);
}

/* --- case, questions, padding ----------------------------------------------------------------- */

static enum err m_case(struct jcall *c, struct jv *out)
{
    static const struct {
        const char *name;
        enum jcase_map how;
    } maps[] = { { "upper", JCASE_UPPER },   { "lower", JCASE_LOWER },
                 { "title", JCASE_TITLE },   { "capitalize", JCASE_CAPITALIZE },
                 { "swapcase", JCASE_SWAP }, { "casefold", JCASE_FOLD } };
    size_t i = 0;
    while (strcmp(maps[i].name, c->name) != 0) {
        i++;
    }
    return put(c, jcase_map(c->m, self_of(c), maps[i].how), out);
}

static enum err m_is(struct jcall *c, struct jv *out)
{
    TRY(jmem_walk(c->m, self_of(c)->n * 4));
    *out = jv_bool(jcase_is(self_of(c), view_of(c->name + 2)));
    return ERR_OK;
}

const struct jstr *jmethod_pad(struct jmem *m, const struct jstr *s, int64_t width,
                               const struct jstr *fill, enum jstr_side side)
{
    if (width <= (int64_t)s->n_char) {
        return s;
    }
    const size_t pad = (size_t)width - s->n_char;
    size_t left = side == JSTR_LEFT ? pad : 0;
    if (side == JSTR_BOTH) {
        left = pad / 2 + (pad & (size_t)width & 1); /* where CPython puts the odd one */
    }
    struct jstr_out o;
    jstr_begin(&o, m);
    jstr_add_repeat(&o, fill, left);
    jstr_add(&o, s);
    jstr_add_repeat(&o, fill, pad - left);
    return jstr_end(&o, s->is_markup);
}

static enum err m_pad(struct jcall *c, struct jv *out)
{
    int64_t width = 0;
    const struct jstr *fill = NULL;
    TRY(jargs_int(c, 0, 0, &width));
    TRY(jargs_str(c, 1, &fill));
    fill = fill != NULL ? fill : jstr_over(c->m, VIEW(" "), true);
    if (fill == NULL || fill->n_char != 1) {
        return fill == NULL
                   ? c->m->err
                   : JMEM_FAIL(c->m, ERR_FAILED, "%s: fill with exactly one character", c->name);
    }
    /* ljust: the text stands left, the fill goes right */
    const enum jstr_side side = c->name[0] == 'l'   ? JSTR_RIGHT
                                : c->name[0] == 'r' ? JSTR_LEFT
                                                    : JSTR_BOTH;
    return put(c, jmethod_pad(c->m, self_of(c), width, fill, side), out);
}

/* Zeros go behind a sign. */
static enum err m_zfill(struct jcall *c, struct jv *out)
{
    int64_t width = 0;
    const struct jstr *s = self_of(c);
    TRY(jargs_int(c, 0, 0, &width));
    if (width <= (int64_t)s->n_char) {
        return put(c, s, out);
    }
    const size_t sign = s->n > 0 && (s->p[0] == '-' || s->p[0] == '+') ? 1 : 0;
    const struct jstr *zero = jstr_over(c->m, VIEW("0"), true);
    if (zero == NULL) {
        return c->m->err;
    }
    struct jstr_out o;
    jstr_begin(&o, c->m);
    jstr_add_part(&o, s, 0, sign);
    jstr_add_repeat(&o, zero, (size_t)width - s->n_char);
    jstr_add_part(&o, s, sign, s->n - sign);
    return put(c, jstr_end(&o, s->is_markup), out);
}

static enum err m_expandtabs(struct jcall *c, struct jv *out)
{
    int64_t size = 8;
    const struct jstr *s = self_of(c);
    TRY(jargs_int(c, 0, 8, &size));
    const struct jstr *blank = jstr_over(c->m, VIEW(" "), true);
    if (blank == NULL) {
        return c->m->err;
    }
    struct jstr_out o;
    jstr_begin(&o, c->m);
    int64_t column = 0;
    for (size_t at = 0; at < s->n && !o.is_failed;) {
        size_t n = 0;
        const uint32_t cp = jstr_read(s, at, &n);
        if (cp == '\t') {
            const int64_t gap = size > 0 ? size - column % size : 0;
            jstr_add_repeat(&o, blank, (size_t)gap);
            column += gap;
        } else {
            jstr_add_part(&o, s, at, n);
            column = cp == '\n' || cp == '\r' ? 0 : column + 1;
        }
        at += n;
    }
    return put(c, jstr_end(&o, s->is_markup), out);
}

/* --- stripping and replacing ------------------------------------------------------------------ */

static enum err m_strip(struct jcall *c, struct jv *out)
{
    const struct jstr *chars = NULL;
    TRY(jargs_str(c, 0, &chars));
    const enum jstr_side side = c->name[0] == 'l'   ? JSTR_LEFT
                                : c->name[0] == 'r' ? JSTR_RIGHT
                                                    : JSTR_BOTH;
    return put(c, jstr_strip(c->m, self_of(c), chars, side), out);
}

static enum err want_str(const struct jcall *c, int i, const struct jstr **out)
{
    TRY(jargs_str(c, i, out));
    if (*out == NULL) {
        return JMEM_FAIL(c->m, ERR_FAILED, "%s: argument %d must be a string, not none", c->name,
                         i + 1);
    }
    return ERR_OK;
}

static enum err m_replace(struct jcall *c, struct jv *out)
{
    const struct jstr *old = NULL;
    const struct jstr *by = NULL;
    int64_t n = -1;
    TRY(want_str(c, 0, &old));
    TRY(want_str(c, 1, &by));
    TRY(jargs_int(c, 2, -1, &n));
    if (self_of(c)->is_markup && !by->is_markup) {
        by = jstr_escape(c->m, by);
    }
    return by == NULL
               ? c->m->err
               : put(c, jstr_replace(c->m, self_of(c), old, by, n < 0 ? SIZE_MAX : (size_t)n), out);
}

static enum err m_remove(struct jcall *c, struct jv *out)
{
    const struct jstr *s = self_of(c);
    const struct jstr *part = NULL;
    TRY(want_str(c, 0, &part));
    const bool is_prefix = strcmp(c->name, "removeprefix") == 0;
    const struct view v = jstr_view(s);
    TRY(jmem_walk(c->m, part->n));
    if (is_prefix && view_starts(v, jstr_view(part))) {
        return put(c, jstr_part(c->m, s, part->n, s->n - part->n), out);
    }
    if (!is_prefix && part->n > 0 && view_ends(v, jstr_view(part))) {
        return put(c, jstr_part(c->m, s, 0, s->n - part->n), out);
    }
    return put(c, s, out);
}

/* --- searching -------------------------------------------------------------------------------- */

/* Arguments i and i + 1 as a part [from, to) of the text in bytes; *ok = false when it lies
 * outside. */
static enum err bounds(const struct jcall *c, int i, size_t *from, size_t *to, bool *ok)
{
    const struct jstr *s = self_of(c);
    const int64_t n = (int64_t)s->n_char;
    int64_t a = 0;
    int64_t b = n;
    TRY(jargs_int(c, i, 0, &a));
    TRY(jargs_int(c, i + 1, n, &b));
    a = a < 0 ? (a + n < 0 ? 0 : a + n) : a;
    b = b < 0 ? (b + n < 0 ? 0 : b + n) : b > n ? n : b;
    *ok = a <= n && a <= b;
    if (*ok) {
        TRY(jmem_walk(c->m, s->n == s->n_char ? 0 : s->n)); /* ASCII: nothing is searched */
        *from = jstr_byte_of(s, (size_t)a);
        *to = jstr_byte_of(s, (size_t)b);
    }
    return ERR_OK;
}

static enum err m_find(struct jcall *c, struct jv *out)
{
    const struct jstr *part = NULL;
    size_t from = 0;
    size_t to = 0;
    size_t at = SIZE_MAX;
    bool ok = false;
    TRY(want_str(c, 0, &part));
    TRY(bounds(c, 1, &from, &to, &ok));
    const bool is_last = c->name[0] == 'r';
    if (ok) {
        TRY((is_last ? jstr_rfind : jstr_find)(c->m, self_of(c), part, from, to, &at));
    }
    if (at == SIZE_MAX && strstr(c->name, "index") != NULL) {
        return JMEM_FAIL(c->m, ERR_FAILED, "%s: substring not found", c->name);
    }
    *out = jv_int(at == SIZE_MAX ? -1 : (int64_t)jstr_char_of(self_of(c), at));
    return ERR_OK;
}

static enum err m_count(struct jcall *c, struct jv *out)
{
    const struct jstr *part = NULL;
    const struct jstr *s = self_of(c);
    size_t from = 0;
    size_t to = 0;
    bool ok = false;
    TRY(want_str(c, 0, &part));
    TRY(bounds(c, 1, &from, &to, &ok));
    int64_t n = 0;
    if (ok && part->n == 0) { /* the empty text is before each character and at the end */
        n = (int64_t)(jstr_char_of(s, to) - jstr_char_of(s, from)) + 1;
    }
    while (ok && part->n > 0) {
        size_t at = SIZE_MAX;
        TRY(jstr_find(c->m, s, part, from, to, &at));
        ok = at != SIZE_MAX;
        n += ok;
        from = at + part->n;
    }
    *out = jv_int(n);
    return ERR_OK;
}

static enum err m_affix(struct jcall *c, struct jv *out)
{
    const struct jstr *s = self_of(c);
    const bool is_start = c->name[0] == 's';
    struct jv what = c->arg[0];
    const struct jv *one = &what;
    size_t n = 1;
    size_t from = 0;
    size_t to = 0;
    bool ok = false;
    bool hit = false;
    if (what.type == JV_TUPLE) {
        one = what.u.list->item;
        n = what.u.list->n;
    }
    TRY(bounds(c, 1, &from, &to, &ok));
    const struct view part = view_part(jstr_view(s), from, ok ? to - from : 0);
    for (size_t i = 0; i < n && !hit; i++) {
        if (one[i].type != JV_STR) {
            return JMEM_FAIL(c->m, ERR_FAILED, "%s wants a string or a tuple of strings, not '%s'",
                             c->name, jv_type_name(one[i]));
        }
        const struct view affix = jstr_view(one[i].u.s);
        TRY(jmem_walk(c->m, affix.n));
        hit = ok && (is_start ? view_starts(part, affix) : view_ends(part, affix));
    }
    *out = jv_bool(hit);
    return ERR_OK;
}

/* --- cutting and joining ---------------------------------------------------------------------- */

static enum err add_piece(struct jmem *m, struct jlist *l, const struct jstr *s, size_t from,
                          size_t to)
{
    struct jv v;
    TRY(jv_put_str(m, jstr_part(m, s, from, to - from), &v));
    return jlist_add(m, l, v);
}

static void turn(struct jlist *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        const struct jv v = l->item[i];
        l->item[i] = l->item[l->n - 1 - i];
        l->item[l->n - 1 - i] = v;
    }
}

/* Byte behind the run of (non-)space that starts at `at`. */
static size_t skip_forward(const struct jstr *s, size_t at, bool is_space)
{
    while (at < s->n) {
        size_t n = 0;
        if (jstr_is_space(jstr_read(s, at, &n)) != is_space) {
            break;
        }
        at += n;
    }
    return at;
}

static size_t skip_back(const struct jstr *s, size_t at, bool is_space)
{
    while (at > 0) {
        size_t n = 0;
        const size_t before = jstr_before(s, at);
        if (jstr_is_space(jstr_read(s, before, &n)) != is_space) {
            break;
        }
        at = before;
    }
    return at;
}

/* After n_max cuts the rest stays whole, up to the text's end but without the blanks before it. */
static enum err split_space(struct jmem *m, const struct jstr *s, size_t n_max, struct jlist *l)
{
    size_t at = skip_forward(s, 0, true);
    for (; at < s->n && l->n < n_max; at = skip_forward(s, at, true)) {
        const size_t end = skip_forward(s, at, false);
        TRY(add_piece(m, l, s, at, end));
        at = end;
    }
    return at < s->n ? add_piece(m, l, s, at, s->n) : ERR_OK;
}

/* As split_space from the end: the pieces come last first and are turned round. */
static enum err rsplit_space(struct jmem *m, const struct jstr *s, size_t n_max, struct jlist *l)
{
    size_t at = skip_back(s, s->n, true);
    for (; at > 0 && l->n < n_max; at = skip_back(s, at, true)) {
        const size_t from = skip_back(s, at, false);
        TRY(add_piece(m, l, s, from, at));
        at = from;
    }
    TRY(at > 0 ? add_piece(m, l, s, 0, at) : ERR_OK);
    turn(l);
    return ERR_OK;
}

static enum err split_at(struct jmem *m, const struct jstr *s, const struct jstr *by, size_t n_max,
                         struct jlist *l)
{
    size_t from = 0;
    while (l->n < n_max) {
        size_t at = SIZE_MAX;
        TRY(jstr_find(m, s, by, from, s->n, &at));
        if (at == SIZE_MAX) {
            break;
        }
        TRY(add_piece(m, l, s, from, at));
        from = at + by->n;
    }
    return add_piece(m, l, s, from, s->n);
}

static enum err rsplit_at(struct jmem *m, const struct jstr *s, const struct jstr *by, size_t n_max,
                          struct jlist *l)
{
    size_t to = s->n;
    while (l->n < n_max) {
        size_t at = SIZE_MAX;
        TRY(jstr_rfind(m, s, by, 0, to, &at));
        if (at == SIZE_MAX) {
            break;
        }
        TRY(add_piece(m, l, s, at + by->n, to));
        to = at;
    }
    TRY(add_piece(m, l, s, 0, to));
    turn(l);
    return ERR_OK;
}

static enum err m_split(struct jcall *c, struct jv *out)
{
    const struct jstr *by = NULL;
    int64_t n = -1;
    TRY(jargs_str(c, 0, &by));
    TRY(jargs_int(c, 1, -1, &n));
    if (by != NULL && by->n == 0) {
        return JMEM_FAIL(c->m, ERR_FAILED, "%s: empty separator", c->name);
    }
    const size_t n_max = n < 0 ? SIZE_MAX : (size_t)n;
    const bool is_right = c->name[0] == 'r';
    struct jlist *l = jlist_new(c->m, 0);
    if (l == NULL) {
        return c->m->err;
    }
    if (by == NULL) {
        TRY(jmem_walk(c->m, self_of(c)->n));
        TRY((is_right ? rsplit_space : split_space)(c->m, self_of(c), n_max, l));
    } else {
        TRY((is_right ? rsplit_at : split_at)(c->m, self_of(c), by, n_max, l));
    }
    *out = jv_of_list(l);
    return ERR_OK;
}

enum err jmethod_lines(struct jmem *m, const struct jstr *s, bool with_ends, struct jlist **out)
{
    struct jlist *l = jlist_new(m, 0);
    if (l == NULL) {
        return m->err;
    }
    TRY(jmem_walk(m, s->n));
    size_t from = 0;
    for (size_t at = 0; at < s->n;) {
        size_t n = 0;
        const uint32_t cp = jstr_read(s, at, &n);
        size_t next = at + n;
        if (!jstr_is_line_end(cp)) {
            at = next;
            continue;
        }
        next += cp == '\r' && next < s->n && s->p[next] == '\n';
        TRY(add_piece(m, l, s, from, with_ends ? next : at));
        from = next;
        at = next;
    }
    if (from < s->n) {
        TRY(add_piece(m, l, s, from, s->n));
    }
    *out = l;
    return ERR_OK;
}

static enum err m_splitlines(struct jcall *c, struct jv *out)
{
    struct jlist *l = NULL;
    TRY(jmethod_lines(c->m, self_of(c), jargs_true(c, 0, false), &l));
    *out = jv_of_list(l);
    return ERR_OK;
}

static enum err m_partition(struct jcall *c, struct jv *out)
{
    const struct jstr *s = self_of(c);
    const struct jstr *by = NULL;
    const bool is_right = c->name[0] == 'r';
    TRY(want_str(c, 0, &by));
    if (by->n == 0) {
        return JMEM_FAIL(c->m, ERR_FAILED, "%s: empty separator", c->name);
    }
    size_t at = SIZE_MAX;
    TRY((is_right ? jstr_rfind : jstr_find)(c->m, s, by, 0, s->n, &at));
    const bool has = at != SIZE_MAX;
    /* not there: all of the text first, or last when looked for from the right */
    const size_t a = has ? at : is_right ? 0 : s->n;
    const size_t b = has ? at + by->n : is_right ? 0 : s->n;
    struct jlist *l = jlist_new(c->m, 3);
    if (l == NULL) {
        return c->m->err;
    }
    TRY(add_piece(c->m, l, s, 0, a));
    TRY(add_piece(c->m, l, s, a, b));
    TRY(add_piece(c->m, l, s, b, s->n));
    *out = jv_of_tuple(l);
    return ERR_OK;
}

/* A markup text between the parts escapes those that are plain, as Markup.join does. */
enum err jmethod_join(struct jmem *m, const struct jstr *between, struct jv parts, bool is_any,
                      struct jv *out)
{
    struct jstr_out o;
    struct jiter it;
    bool has = true;
    jstr_begin(&o, m);
    TRY(jiter_init(m, &it, parts));
    for (size_t i = 0; has && !o.is_failed; i++) {
        struct jv v;
        TRY(jiter_next(m, &it, &v, &has));
        if (!has) {
            break;
        }
        if (v.type != JV_STR && !is_any) {
            return JMEM_FAIL(m, ERR_FAILED, "join: element %zu must be a string, not '%s'", i,
                             jv_type_name(v));
        }
        const struct jstr *s = jrepr_str(m, v);
        if (i > 0) {
            jstr_add(&o, between);
        }
        const bool is_raw = s != NULL && between->is_markup && !s->is_markup;
        jstr_add(&o, is_raw ? jstr_escape(m, s) : s);
    }
    return jv_put_str(m, jstr_end(&o, between->is_markup), out);
}

static enum err m_join(struct jcall *c, struct jv *out)
{
    return jmethod_join(c->m, self_of(c), c->arg[0], false, out);
}

static enum err m_format(struct jcall *c, struct jv *out)
{
    return jformat_braces(c->m, self_of(c), &c->args, out);
}

/* format(**mapping): a dictionary without positions. */
static enum err m_format_map(struct jcall *c, struct jv *out)
{
    static const struct jlist none = { 0 };
    if (c->arg[0].type != JV_DICT) {
        return JMEM_FAIL(c->m, ERR_FAILED, "format_map wants a dictionary");
    }
    const struct jargs args = { .pos = &none, .named = c->arg[0].u.dict };
    return jformat_braces(c->m, self_of(c), &args, out);
}

/* --- dictionaries, lists, numbers, cyclers ---------------------------------------------------- */

static enum err m_get(struct jcall *c, struct jv *out)
{
    const struct jv *hit = NULL;
    TRY(jdict_get(c->m, c->self.u.dict, c->arg[0], &hit));
    *out = hit != NULL ? *hit : c->arg[1].type != JV_MISSING ? c->arg[1] : jv_none();
    return ERR_OK;
}

static enum err m_view(struct jcall *c, struct jv *out)
{
    const enum jv_view kind = c->name[0] == 'k'   ? JV_KEYS
                              : c->name[0] == 'v' ? JV_VALUES
                                                  : JV_ITEMS;
    *out = (struct jv){ .type = JV_VIEW, .sub = (uint8_t)kind, .u.dict = c->self.u.dict };
    return ERR_OK;
}

/* copy(): nothing in a template changes a list or dictionary, so the value is its own copy. */
static enum err m_self(struct jcall *c, struct jv *out)
{
    *out = c->self;
    return ERR_OK;
}

static enum err m_row_count(struct jcall *c, struct jv *out)
{
    size_t n = 0;
    int64_t hits = 0;
    TRY(jv_len(c->m, c->self, &n));
    for (size_t i = 0; i < n; i++) {
        struct jv v;
        bool same = false;
        TRY(jv_at(c->m, c->self, i, &v));
        TRY(jv_eq(c->m, v, c->arg[0], &same));
        hits += same;
    }
    *out = jv_int(hits);
    return ERR_OK;
}

static enum err m_row_index(struct jcall *c, struct jv *out)
{
    size_t len = 0;
    int64_t from = 0;
    int64_t to = 0;
    TRY(jv_len(c->m, c->self, &len));
    const int64_t n = (int64_t)len;
    TRY(jargs_int(c, 1, 0, &from));
    TRY(jargs_int(c, 2, n, &to));
    from = from < 0 ? (from + n < 0 ? 0 : from + n) : from;
    to = to < 0 ? to + n : to > n ? n : to;
    for (int64_t i = from; i < to; i++) {
        struct jv v;
        bool same = false;
        TRY(jv_at(c->m, c->self, (size_t)i, &v));
        TRY(jv_eq(c->m, v, c->arg[0], &same));
        if (same) {
            *out = jv_int(i);
            return ERR_OK;
        }
    }
    return JMEM_FAIL(c->m, ERR_FAILED, "index: the value is not there");
}

/* Of the size without the sign, as Python counts; the negation is done unsigned, since the smallest
 * number has no positive counterpart. */
static enum err m_bits(struct jcall *c, struct jv *out)
{
    const int64_t i = c->self.u.i;
    const uint64_t size = i < 0 ? -(uint64_t)i : (uint64_t)i;
    const bool is_length = strcmp(c->name, "bit_length") == 0;
    *out = jv_int(size == 0   ? 0
                  : is_length ? 64 - __builtin_clzll(size)
                              : __builtin_popcountll(size));
    return ERR_OK;
}

static enum err m_conjugate(struct jcall *c, struct jv *out)
{
    *out = c->self;
    out->type = c->self.type == JV_BOOL ? JV_INT : c->self.type; /* true.conjugate() is 1 */
    return ERR_OK;
}

static enum err m_is_integer(struct jcall *c, struct jv *out)
{
    *out = jv_bool(isfinite(c->self.u.f) && c->self.u.f == floor(c->self.u.f));
    return ERR_OK;
}

static enum err m_next(struct jcall *c, struct jv *out)
{
    struct jv_cycler *y = c->self.u.cycler;
    *out = y->items->item[y->at];
    y->at = (y->at + 1) % y->items->n;
    return ERR_OK;
}

static enum err m_reset(struct jcall *c, struct jv *out)
{
    c->self.u.cycler->at = 0;
    *out = jv_none();
    return ERR_OK;
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct method {
    const char
        *types; /* letters: s text, d dictionary, l list, t tuple, r range, i int, f float, c */
    const char *name;
    const char *spec;
    int n_required;
    enum err (*fn)(struct jcall *c, struct jv *out);
} methods[] = {
    { "s", "capitalize", "", 0, m_case },
    { "s", "casefold", "", 0, m_case },
    { "s", "center", "width fillchar", 1, m_pad },
    { "s", "count", "sub start end", 1, m_count },
    { "s", "endswith", "suffix start end", 1, m_affix },
    { "s", "expandtabs", "tabsize", 0, m_expandtabs },
    { "s", "find", "sub start end", 1, m_find },
    { "s", "format", "*", 0, m_format },
    { "s", "format_map", "mapping", 1, m_format_map },
    { "s", "index", "sub start end", 1, m_find },
    { "s", "isalnum", "", 0, m_is },
    { "s", "isalpha", "", 0, m_is },
    { "s", "isascii", "", 0, m_is },
    { "s", "isdecimal", "", 0, m_is },
    { "s", "isdigit", "", 0, m_is },
    { "s", "isidentifier", "", 0, m_is },
    { "s", "islower", "", 0, m_is },
    { "s", "isnumeric", "", 0, m_is },
    { "s", "isprintable", "", 0, m_is },
    { "s", "isspace", "", 0, m_is },
    { "s", "istitle", "", 0, m_is },
    { "s", "isupper", "", 0, m_is },
    { "s", "join", "iterable", 1, m_join },
    { "s", "ljust", "width fillchar", 1, m_pad },
    { "s", "lower", "", 0, m_case },
    { "s", "lstrip", "chars", 0, m_strip },
    { "s", "partition", "sep", 1, m_partition },
    { "s", "removeprefix", "prefix", 1, m_remove },
    { "s", "removesuffix", "suffix", 1, m_remove },
    { "s", "replace", "old new count", 2, m_replace },
    { "s", "rfind", "sub start end", 1, m_find },
    { "s", "rindex", "sub start end", 1, m_find },
    { "s", "rjust", "width fillchar", 1, m_pad },
    { "s", "rpartition", "sep", 1, m_partition },
    { "s", "rsplit", "sep maxsplit", 0, m_split },
    { "s", "rstrip", "chars", 0, m_strip },
    { "s", "split", "sep maxsplit", 0, m_split },
    { "s", "splitlines", "keepends", 0, m_splitlines },
    { "s", "startswith", "prefix start end", 1, m_affix },
    { "s", "strip", "chars", 0, m_strip },
    { "s", "swapcase", "", 0, m_case },
    { "s", "title", "", 0, m_case },
    { "s", "upper", "", 0, m_case },
    { "s", "zfill", "width", 1, m_zfill },
    { "d", "get", "key default", 1, m_get },
    { "d", "keys", "", 0, m_view },
    { "d", "values", "", 0, m_view },
    { "d", "items", "", 0, m_view },
    { "dl", "copy", "", 0, m_self },
    { "ltr", "count", "value", 1, m_row_count },
    { "ltr", "index", "value start stop", 1, m_row_index },
    { "i", "bit_length", "", 0, m_bits },
    { "i", "bit_count", "", 0, m_bits },
    { "if", "conjugate", "", 0, m_conjugate },
    { "f", "is_integer", "", 0, m_is_integer },
    { "c", "next", "", 0, m_next },
    { "c", "reset", "", 0, m_reset },
};

/* 0: a type without methods. */
static char letter_of(struct jv v)
{
    static const char letters[JV_TYPES] = {
        [JV_STR] = 's',  [JV_DICT] = 'd', [JV_LIST] = 'l',  [JV_TUPLE] = 't',  [JV_RANGE] = 'r',
        [JV_BOOL] = 'i', [JV_INT] = 'i',  [JV_FLOAT] = 'f', [JV_CYCLER] = 'c',
    };
    return letters[v.type];
}

enum err jmethod_call(struct jmem *m, const struct jv_method *method, const struct jargs *args,
                      struct jv *out)
{
    const char letter = letter_of(method->self);
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]) && letter != 0; i++) {
        const struct method *x = &methods[i];
        if (strchr(x->types, letter) != NULL && jstr_is(method->name, x->name)) {
            struct jcall c = { .m = m, .name = x->name, .self = method->self, .args = *args };
            TRY(jargs_bind(&c, x->spec, x->n_required));
            return x->fn(&c, out);
        }
    }
    return JMEM_FAIL(m, ERR_UNSUPPORTED, "the method '%.*s' of '%s' is not supported",
                     (int)(method->name->n < 60 ? method->name->n : 60), method->name->p,
                     jv_type_name(method->self));
}
