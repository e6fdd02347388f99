/* jinja_ftext - filters on text and numbers
 *
 * A filter takes what stands before the bar as its first argument: x|trim('.') is trim(x, '.').
 * Those here make text or numbers of it; those that work on sequences are in jinja_filter.c.
 *
 * Most convert their input to text first, so 5|upper is "5" and an undefined value is the empty
 * text; `indent` and `truncate` do not, as in Jinja2.
 *
 * tojson is the one of transformers (chat_template_utils): ensure_ascii is off, nothing is escaped
 * for HTML, and the order of its parameters is ensure_ascii, indent, separators, sort_keys.
 *
 * pprint, random, urlize and wordwrap are known by name and refused: no template of our collection
 * uses them, and a random prompt is nothing anybody wants.
 *
 * Source: the list of builtin filters in the template designer documentation of Jinja2 3.1.
 * Next: jinja_filter.c. */
#include "model/jinja_ftext.h"

#include "model/jinja_case.h"
#include "model/jinja_format.h"
#include "model/jinja_lex.h"
#include "model/jinja_method.h"
#include "model/jinja_num.h"
#include "model/jinja_op.h"
#include "model/jinja_repr.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static enum err put(struct jcall *c, const struct jstr *s, struct jv *out)
{
    return jv_put_str(c->m, s, out);
}

/* The input as text (markup stays markup). */
static enum err text_of(struct jcall *c, const struct jstr **out)
{
    *out = jrepr_str(c->m, c->self);
    return *out == NULL ? c->m->err : ERR_OK;
}

/* --- case and padding ------------------------------------------------------------------------- */

static enum err f_case(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    TRY(text_of(c, &s));
    const enum jcase_map how = c->name[0] == 'u'   ? JCASE_UPPER
                               : c->name[0] == 'l' ? JCASE_LOWER
                                                   : JCASE_CAPITALIZE;
    return put(c, jcase_map(c->m, s, how), out);
}

static bool starts_word(uint32_t cp)
{
    return jstr_is_space(cp) || (cp < 0x80 && cp != 0 && strchr("-({[<", (int)cp) != NULL);
}

/* Unlike the method of this name: only white space and opening brackets separate words. */
static enum err f_title(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    struct jstr_out o;
    TRY(text_of(c, &s));
    jstr_begin(&o, c->m);
    size_t at = 0;
    while (at < s->n && !o.is_failed) {
        size_t n = 0;
        const size_t from = at;
        const bool is_gap = starts_word(jstr_read(s, at, &n));
        const size_t rest = at + n;
        while (at < s->n && starts_word(jstr_read(s, at, &n)) == is_gap) {
            at += n;
        }
        if (is_gap) {
            jstr_add_part(&o, s, from, at - from);
            continue;
        }
        const struct jstr *first = jstr_part(c->m, s, from, rest - from);
        const struct jstr *more = jstr_part(c->m, s, rest, at - rest);
        jstr_add(&o, first == NULL ? NULL : jcase_map(c->m, first, JCASE_UPPER));
        jstr_add(&o, more == NULL ? NULL : jcase_map(c->m, more, JCASE_LOWER));
    }
    return put(c, jstr_end(&o, false), out);
}

static enum err f_center(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    int64_t width = 0;
    TRY(text_of(c, &s));
    TRY(jargs_int(c, 0, 80, &width));
    const struct jstr *blank = jstr_over(c->m, VIEW(" "), true);
    return blank == NULL ? c->m->err : put(c, jmethod_pad(c->m, s, width, blank, JSTR_BOTH), out);
}

static enum err f_trim(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    const struct jstr *chars = NULL;
    TRY(text_of(c, &s));
    TRY(jargs_str(c, 0, &chars));
    return put(c, jstr_strip(c->m, s, chars, JSTR_BOTH), out);
}

static enum err f_string(struct jcall *c, struct jv *out)
{
    return put(c, jrepr_str(c->m, c->self), out);
}

static enum err f_default(struct jcall *c, struct jv *out)
{
    const bool is_empty =
        c->self.type == JV_UNDEFINED || (jargs_true(c, 1, false) && !jv_truth(c->self));
    if (!is_empty) {
        *out = c->self;
        return ERR_OK;
    }
    if (c->arg[0].type == JV_MISSING) {
        return jv_put_lit(c->m, "", out);
    }
    *out = c->arg[0];
    return ERR_OK;
}

static enum err f_replace(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    int64_t n = -1;
    TRY(text_of(c, &s));
    const struct jstr *old = jrepr_str(c->m, c->arg[0]);
    const struct jstr *by = jrepr_str(c->m, c->arg[1]);
    TRY(jargs_int(c, 2, -1, &n));
    s = jstr_as(c->m, s, false);
    if (s == NULL || old == NULL || by == NULL) {
        return c->m->err;
    }
    return put(c, jstr_replace(c->m, s, old, by, n < 0 ? SIZE_MAX : (size_t)n), out);
}

/* x|format(...) is x % (...) with positions, x % {...} with names. */
static enum err f_format(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    TRY(text_of(c, &s));
    if (c->args.pos->n > 0 && c->args.named->n > 0) {
        return JMEM_FAIL(c->m, ERR_FAILED, "format: give positions or names, not both");
    }
    struct jdict *named = jdict_new(c->m);
    if (named == NULL) {
        return c->m->err;
    }
    *named = *c->args.named;
    return jformat_percent(c->m, s, named->n > 0 ? jv_of_dict(named) : jv_of_tuple(c->args.pos),
                           out);
}

/* --- lines and words -------------------------------------------------------------------------- */

static enum err indent_text(struct jcall *c, const struct jstr **out)
{
    int64_t width = 4;
    if (c->arg[0].type == JV_STR) {
        *out = c->arg[0].u.s;
        return ERR_OK;
    }
    TRY(jargs_int(c, 0, 4, &width));
    const struct jstr *blank = jstr_over(c->m, VIEW(" "), true);
    if (blank == NULL) {
        return c->m->err;
    }
    struct jstr_out o;
    jstr_begin(&o, c->m);
    jstr_add_repeat(&o, blank, width < 0 ? 0 : (size_t)width);
    *out = jstr_end(&o, false);
    return *out == NULL ? c->m->err : ERR_OK;
}

/* As in Jinja2 a line end is put behind the text first, so that its last line counts even when it
 * is empty: "a\n" has two lines, and the second is indented when blank lines are. */
static enum err f_indent(struct jcall *c, struct jv *out)
{
    const struct jstr *by = NULL;
    struct jlist *lines = NULL;
    if (c->self.type != JV_STR) {
        return c->self.type == JV_UNDEFINED
                   ? jv_undefined_error(c->m, c->self)
                   : JMEM_FAIL(c->m, ERR_FAILED, "indent wants a string, not '%s'",
                               jv_type_name(c->self));
    }
    const struct jstr *s = c->self.u.s;
    const struct jstr *end = jstr_over(c->m, VIEW("\n"), true);
    TRY(indent_text(c, &by));
    const struct jstr *all = end == NULL ? NULL : jop_concat(c->m, jstr_as(c->m, s, false), end);
    if (all == NULL) {
        return c->m->err;
    }
    TRY(jmethod_lines(c->m, all, false, &lines));
    const bool with_blank = jargs_true(c, 2, false);
    struct jstr_out o;
    jstr_begin(&o, c->m);
    if (jargs_true(c, 1, false)) {
        jstr_add(&o, by);
    }
    for (size_t i = 0; i < lines->n && !o.is_failed; i++) {
        const struct jstr *line = lines->item[i].u.s;
        if (i > 0) {
            jstr_add(&o, end);
        }
        if (i > 0 && (with_blank || line->n > 0)) {
            jstr_add(&o, by);
        }
        jstr_add(&o, line);
    }
    return put(c, jstr_end(&o, s->is_markup), out);
}

/* A text that is longer by no more than the leeway stays whole. Anything that has a length passes
 * when it is short enough; only what is cut must be a text. */
static enum err f_truncate(struct jcall *c, struct jv *out)
{
    int64_t length = 255;
    int64_t leeway = 5;
    const struct jstr *end = NULL;
    TRY(jargs_int(c, 0, 255, &length));
    TRY(jargs_str(c, 2, &end));
    TRY(jargs_int(c, 3, 5, &leeway));
    end = end != NULL ? end : jstr_over(c->m, VIEW("..."), true);
    if (end == NULL) {
        return c->m->err;
    }
    if (length < (int64_t)end->n_char || leeway < 0) {
        return JMEM_FAIL(c->m, ERR_FAILED, "truncate: length or leeway too small");
    }
    size_t n = 0;
    TRY(jv_len(c->m, c->self, &n));
    if ((int64_t)n <= length || (int64_t)n - length <= leeway) {
        *out = c->self;
        return ERR_OK;
    }
    if (c->self.type != JV_STR) {
        return JMEM_FAIL(c->m, ERR_FAILED, "truncate wants a string, not '%s'",
                         jv_type_name(c->self));
    }
    const struct jstr *s = c->self.u.s;
    TRY(jmem_walk(c->m, s->n));
    size_t cut = jstr_byte_of(s, (size_t)length - end->n_char);
    if (!jargs_true(c, 1, false)) {
        const struct jstr *blank = jstr_over(c->m, VIEW(" "), true);
        size_t at = SIZE_MAX;
        TRY(blank == NULL ? c->m->err : jstr_rfind(c->m, s, blank, 0, cut, &at));
        cut = at != SIZE_MAX ? at : cut;
    }
    const struct jstr *head = jstr_part(c->m, s, 0, cut);
    return head == NULL ? c->m->err : put(c, jop_concat(c->m, head, end), out);
}

static enum err f_wordcount(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    int64_t n_words = 0;
    bool is_in = false;
    TRY(text_of(c, &s));
    TRY(jmem_walk(c->m, s->n * 4));
    for (size_t at = 0; at < s->n;) {
        size_t n = 0;
        const uint32_t cp = jstr_read(s, at, &n);
        const bool is_word = cp == '_' || jcase_is_alnum(cp);
        n_words += is_word && !is_in;
        is_in = is_word;
        at += n;
    }
    *out = jv_int(n_words);
    return ERR_OK;
}

/* --- HTML and URLs ---------------------------------------------------------------------------- */

static enum err f_safe(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    TRY(text_of(c, &s));
    return put(c, jstr_as(c->m, s, true), out);
}

static enum err f_escape(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    TRY(text_of(c, &s));
    const bool is_done = s->is_markup && c->name[0] == 'e';
    return put(c, is_done ? s : jstr_escape(c->m, s), out);
}

static void add_quoted(struct jstr_out *o, const struct jstr *s, bool for_query)
{
    for (size_t i = 0; i < s->n && !o->is_failed; i++) {
        const char c = s->p[i];
        const bool t = jstr_trust_at(s, i);
        char text[4] = { c, 0 };
        if (for_query && c == ' ') {
            text[0] = '+';
        } else if (((unsigned char)c >= 0x80 || !jcase_is_alnum((unsigned char)c)) &&
                   (c == 0 || strchr(for_query ? "_.-~" : "_.-~/", c) == NULL)) {
            (void)snprintf(text, sizeof(text), "%%%02X", (unsigned)(unsigned char)c);
        }
        jstr_add_str(o, text, t);
    }
}

static enum err add_query(struct jcall *c, struct jstr_out *o, struct jv pair)
{
    struct jlist *two = NULL;
    TRY(jv_collect(c->m, pair, &two));
    if (two->n != 2) {
        return JMEM_FAIL(c->m, ERR_FAILED, "urlencode wants pairs, found %zu elements", two->n);
    }
    const struct jstr *key = jrepr_str(c->m, two->item[0]);
    const struct jstr *value = jrepr_str(c->m, two->item[1]);
    if (key == NULL || value == NULL) {
        return c->m->err;
    }
    add_quoted(o, key, true);
    jstr_add_str(o, "=", true);
    add_quoted(o, value, true);
    return ERR_OK;
}

static enum err f_urlencode(struct jcall *c, struct jv *out)
{
    struct jstr_out o;
    jstr_begin(&o, c->m);
    struct jv v = c->self;
    if (v.type == JV_STR || !jiter_can(v)) {
        const struct jstr *s = NULL;
        TRY(text_of(c, &s));
        add_quoted(&o, s, false);
        return put(c, jstr_end(&o, false), out);
    }
    if (v.type == JV_DICT) {
        v = (struct jv){ .type = JV_VIEW, .sub = JV_ITEMS, .u.dict = v.u.dict };
    }
    struct jiter it;
    bool has = true;
    TRY(jiter_init(c->m, &it, v));
    for (size_t i = 0; has; i++) {
        struct jv pair;
        TRY(jiter_next(c->m, &it, &pair, &has));
        if (has) {
            jstr_add_str(&o, i > 0 ? "&" : "", true);
            TRY(add_query(c, &o, pair));
        }
    }
    return put(c, jstr_end(&o, false), out);
}

/* The text without <...> and comments. A "<" that nothing closes stays, with all behind it. */
static enum err without_tags(struct jmem *m, const struct jstr *s, const struct jstr **out)
{
    const struct jstr *open = jstr_over(m, VIEW("<"), true);
    const struct jstr *close = jstr_over(m, VIEW(">"), true);
    const struct jstr *comment_end = jstr_over(m, VIEW("-->"), true);
    if (open == NULL || close == NULL || comment_end == NULL) {
        return m->err;
    }
    struct jstr_out o;
    jstr_begin(&o, m);
    size_t from = 0;
    for (;;) {
        size_t at = SIZE_MAX;
        size_t end = SIZE_MAX;
        TRY(jstr_find(m, s, open, from, s->n, &at));
        if (at != SIZE_MAX) {
            const bool is_comment = view_starts(view_from(jstr_view(s), at), VIEW("<!--"));
            const struct jstr *what = is_comment ? comment_end : close;
            TRY(jstr_find(m, s, what, is_comment ? at + 4 : at, s->n, &end));
            end = end == SIZE_MAX ? end : end + what->n;
        }
        if (end == SIZE_MAX) {
            break;
        }
        jstr_add_part(&o, s, from, at - from);
        from = end;
    }
    jstr_add_part(&o, s, from, s->n - from);
    *out = jstr_end(&o, false);
    return *out == NULL ? m->err : ERR_OK;
}

/* The character an entity "&...;" at byte `at` stands for, and its length; 0 when it is none. */
static uint32_t entity(const struct jstr *s, size_t at, size_t *n)
{
    static const struct {
        const char *name;
        uint32_t cp;
    } names[] = { { "&amp;", '&' },  { "&lt;", '<' },    { "&gt;", '>' },
                  { "&quot;", '"' }, { "&apos;", '\'' }, { "&nbsp;", 0xa0 } };
    const struct view v = view_from(jstr_view(s), at);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (view_starts(v, view_of(names[i].name))) {
            *n = strlen(names[i].name);
            return names[i].cp;
        }
    }
    if (!view_starts(v, VIEW("&#"))) {
        return 0;
    }
    const bool is_hex = v.n > 2 && (v.p[2] | 0x20) == 'x';
    size_t i = is_hex ? 3 : 2;
    uint32_t cp = 0;
    const size_t first = i;
    for (; i < v.n && i < first + 7; i++) { /* 7: beyond U+10FFFF, within 32 bits */
        const char c = v.p[i];
        const char low = (char)(c | 0x20);
        if (c >= '0' && c <= '9') {
            cp = cp * (is_hex ? 16 : 10) + (uint32_t)(c - '0');
        } else if (is_hex && low >= 'a' && low <= 'f') {
            cp = cp * 16 + (uint32_t)(low - 'a' + 10);
        } else {
            break;
        }
    }
    *n = i + (i < v.n && v.p[i] == ';' ? 1 : 0);
    return i == first ? 0 : cp > 0x10ffff || cp == 0 ? 0xfffd : cp;
}

/* What is left of tags is often blanks: runs of them count once, those at both ends not at all. */
static enum err f_striptags(struct jcall *c, struct jv *out)
{
    const struct jstr *s = NULL;
    TRY(text_of(c, &s));
    TRY(without_tags(c->m, s, &s));
    struct jstr_out o;
    jstr_begin(&o, c->m);
    bool is_gap = false;
    for (size_t at = 0; at < s->n && !o.is_failed;) {
        size_t n = 0;
        uint32_t cp = jstr_read(s, at, &n);
        if (jstr_is_space(cp)) {
            is_gap = o.n > 0;
            at += n;
            continue;
        }
        jstr_add_str(&o, is_gap ? " " : "", jstr_trust_at(s, at));
        is_gap = false;
        if (cp == '&') {
            const uint32_t named = entity(s, at, &n);
            cp = named != 0 ? named : cp;
        }
        jstr_add_code(&o, cp, jstr_trust_at(s, at));
        at += n;
    }
    return put(c, jstr_end(&o, false), out);
}

static enum err f_xmlattr(struct jcall *c, struct jv *out)
{
    if (c->self.type != JV_DICT) {
        return JMEM_FAIL(c->m, ERR_FAILED, "xmlattr wants a dictionary, not '%s'",
                         jv_type_name(c->self));
    }
    struct jstr_out o;
    jstr_begin(&o, c->m);
    const struct jdict *d = c->self.u.dict;
    bool is_first = !jargs_true(c, 0, true);
    for (size_t i = 0; i < d->n && !o.is_failed; i++) {
        const struct jv value = d->pair[i].value;
        if (value.type == JV_NONE || value.type == JV_UNDEFINED) {
            continue;
        }
        if (d->pair[i].key.type != JV_STR) {
            return JMEM_FAIL(c->m, ERR_FAILED, "xmlattr: a name must be a string, not '%s'",
                             jv_type_name(d->pair[i].key));
        }
        const struct jstr *key = d->pair[i].key.u.s;
        const struct jstr *text = jrepr_str(c->m, value);
        if (text == NULL) {
            return c->m->err;
        }
        for (size_t k = 0; k < key->n; k++) {
            if (key->p[k] != 0 && strchr(" \t\n\r\f\v/>=", key->p[k]) != NULL) {
                return JMEM_FAIL(c->m, ERR_FAILED, "xmlattr: invalid character in a name");
            }
        }
        jstr_add_str(&o, is_first ? "" : " ", true);
        is_first = false;
        jstr_add(&o, key->is_markup ? key : jstr_escape(c->m, key));
        jstr_add_str(&o, "=\"", true);
        jstr_add(&o, text->is_markup ? text : jstr_escape(c->m, text));
        jstr_add_str(&o, "\"", true);
    }
    return put(c, jstr_end(&o, false), out);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static enum err f_tojson(struct jcall *c, struct jv *out)
{
    struct jrepr_json how = { .is_ascii = jargs_true(c, 0, false),
                              .is_sorted = jargs_true(c, 3, false) };
    if (c->arg[1].type == JV_STR) {
        how.indent = c->arg[1].u.s;
    } else if (jargs_has(c, 1)) {
        int64_t n = 0;
        struct jstr_out o;
        const struct jstr *blank = jstr_over(c->m, VIEW(" "), true);
        TRY(jargs_int(c, 1, 0, &n));
        TRY(blank == NULL ? c->m->err : ERR_OK);
        jstr_begin(&o, c->m);
        jstr_add_repeat(&o, blank, n < 0 ? 0 : (size_t)n);
        how.indent = jstr_end(&o, false);
        TRY(how.indent == NULL ? c->m->err : ERR_OK);
    }
    how.item_end = jstr_over(c->m, how.indent != NULL ? VIEW(",") : VIEW(", "), true);
    how.key_end = jstr_over(c->m, VIEW(": "), true);
    if (how.item_end == NULL || how.key_end == NULL) {
        return c->m->err;
    }
    if (jargs_has(c, 2)) {
        struct jlist *two = NULL;
        TRY(jv_collect(c->m, c->arg[2], &two));
        if (two->n != 2 || two->item[0].type != JV_STR || two->item[1].type != JV_STR) {
            return JMEM_FAIL(c->m, ERR_FAILED, "tojson: separators must be two strings");
        }
        how.item_end = two->item[0].u.s;
        how.key_end = two->item[1].u.s;
    }
    return put(c, jrepr_json(c->m, c->self, &how), out);
}

/* --- numbers ---------------------------------------------------------------------------------- */

static enum err f_abs(struct jcall *c, struct jv *out)
{
    const struct jv v = c->self; /* of any type: jop_sign refuses those without sign */
    const bool is_negative = v.type == JV_FLOAT ? signbit(v.u.f) != 0 : jv_is_int(v) && v.u.i < 0;
    return jop_sign(c->m, v, is_negative, out);
}

/* A text is read as a whole number of that base, else as a decimal fraction that is cut; what is
 * neither gives the default. */
static enum err f_int(struct jcall *c, struct jv *out)
{
    const struct jv v = c->self;
    int64_t base = 10;
    int64_t i = 0;
    double f = 0;
    bool ok = false;
    TRY(jargs_int(c, 1, 10, &base));
    if (v.type == JV_UNDEFINED) {
        return jv_undefined_error(c->m, v);
    }
    if (v.type == JV_STR) {
        if (base == 0 || (base >= 2 && base <= 36)) {
            TRY(jnum_parse_int(c->m, v.u.s, (int)base, &ok, &i));
        }
        if (!ok && jnum_parse_float(v.u.s, &f) && isfinite(f)) {
            TRY(jnum_to_int(c->m, f, &i));
            ok = true;
        }
    } else if (v.type == JV_FLOAT && !isnan(v.u.f)) {
        TRY(jnum_to_int(c->m, v.u.f, &i));
        ok = true;
    } else if (jv_is_int(v)) {
        i = v.u.i;
        ok = true;
    }
    *out = ok || c->arg[0].type == JV_MISSING ? jv_int(i) : c->arg[0];
    return ERR_OK;
}

static enum err f_float(struct jcall *c, struct jv *out)
{
    const struct jv v = c->self;
    double f = 0;
    bool ok = true;
    if (v.type == JV_UNDEFINED) {
        return jv_undefined_error(c->m, v);
    }
    if (v.type == JV_STR) {
        ok = jnum_parse_float(v.u.s, &f);
    } else if (jv_is_number(v)) {
        f = v.type == JV_FLOAT ? v.u.f : (double)v.u.i;
    } else {
        ok = false;
    }
    *out = ok ? jv_float(f) : c->arg[0].type == JV_MISSING ? jv_float(0) : c->arg[0];
    return ERR_OK;
}

static enum err f_round(struct jcall *c, struct jv *out)
{
    int64_t digits = 0;
    const struct jstr *method = NULL;
    const struct jv v = c->self;
    TRY(jargs_int(c, 0, 0, &digits));
    TRY(jargs_str(c, 1, &method));
    const bool is_common = method == NULL || jstr_is(method, "common");
    const bool is_ceil = !is_common && jstr_is(method, "ceil");
    if (!is_common && !is_ceil && !jstr_is(method, "floor")) {
        return JMEM_FAIL(c->m, ERR_FAILED, "round: method must be common, ceil or floor");
    }
    if (!jv_is_number(v)) {
        return v.type == JV_UNDEFINED
                   ? jv_undefined_error(c->m, v)
                   : JMEM_FAIL(c->m, ERR_FAILED, "round wants a number, not '%s'", jv_type_name(v));
    }
    if (is_common) {
        if (v.type == JV_FLOAT) {
            *out = jv_float(jnum_round(v.u.f, digits));
            return ERR_OK;
        }
        *out = jv_int(0);
        return jnum_round_int(c->m, v.u.i, digits, &out->u.i);
    }
    struct jv scale; /* ceil and floor work on x * 10**digits, also with its errors of rounding */
    struct jv x;
    int64_t whole = 0;
    TRY(jnum_binary(c->m, JLEX_POW, jv_int(10), jv_int(digits), &scale));
    TRY(jnum_binary(c->m, JLEX_MUL, v, scale, &x));
    if (x.type == JV_FLOAT) {
        TRY(jnum_to_int(c->m, is_ceil ? ceil(x.u.f) : floor(x.u.f), &whole));
        x = jv_int(whole);
    }
    return jnum_binary(c->m, JLEX_DIV, x, scale, out);
}

/* `unit` is one step above the unit shown, as in Jinja2; in the end it is divided out again. */
static enum err f_filesize(struct jcall *c, struct jv *out)
{
    static const char *const units[2][8] = {
        { "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB" },
        { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB" },
    };
    char text[400];
    double size = 0;
    const bool is_binary = jargs_true(c, 0, false);
    const double base = is_binary ? 1024 : 1000;
    if (jv_is_number(c->self)) {
        size = c->self.type == JV_FLOAT ? c->self.u.f : (double)c->self.u.i;
    } else if (c->self.type != JV_STR || !jnum_parse_float(c->self.u.s, &size)) {
        return JMEM_FAIL(c->m, ERR_FAILED, "filesizeformat wants a number");
    }
    double unit = base * base;
    int i = 0;
    while (i < 7 && !(size < unit)) {
        unit *= base;
        i++;
    }
    if (size == 1) {
        (void)snprintf(text, sizeof(text), "1 Byte");
    } else if (size < base) {
        (void)snprintf(text, sizeof(text), "%.0f Bytes", trunc(size) + 0.0);
    } else {
        (void)snprintf(text, sizeof(text), "%.1f %s", base * size / unit, units[is_binary][i]);
    }
    return put(c, jstr_copy(c->m, view_of(text), true), out);
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct jfilter filters[] = {
    { "abs", "", 0, f_abs },
    { "capitalize", "", 0, f_case },
    { "center", "width", 0, f_center },
    { "d", "default_value boolean", 0, f_default },
    { "default", "default_value boolean", 0, f_default },
    { "e", "", 0, f_escape },
    { "escape", "", 0, f_escape },
    { "filesizeformat", "binary", 0, f_filesize },
    { "float", "default", 0, f_float },
    { "forceescape", "", 0, f_escape },
    { "format", "*", 0, f_format },
    { "indent", "width first blank", 0, f_indent },
    { "int", "default base", 0, f_int },
    { "lower", "", 0, f_case },
    { "replace", "old new count", 2, f_replace },
    { "round", "precision method", 0, f_round },
    { "safe", "", 0, f_safe },
    { "string", "", 0, f_string },
    { "striptags", "", 0, f_striptags },
    { "title", "", 0, f_title },
    { "tojson", "ensure_ascii indent separators sort_keys", 0, f_tojson },
    { "trim", "chars", 0, f_trim },
    { "truncate", "length killwords end leeway", 0, f_truncate },
    { "upper", "", 0, f_case },
    { "urlencode", "", 0, f_urlencode },
    { "wordcount", "", 0, f_wordcount },
    { "xmlattr", "autospace", 0, f_xmlattr },
    { "pprint", NULL, 0, NULL },
    { "random", NULL, 0, NULL },
    { "urlize", NULL, 0, NULL },
    { "wordwrap", NULL, 0, NULL },
};

const struct jfilter *jftext_find(const struct jstr *name)
{
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        if (jstr_is(name, filters[i].name)) {
            return &filters[i];
        }
    }
    return NULL;
}
