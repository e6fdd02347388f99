/* jinja_repr - values to text: str(), repr() and tojson
 *
 * Three printers over one tree of values. str() and repr() differ only for text itself: a text
 * prints bare as str() and quoted inside of a container. Quotes follow Python: single ones, unless
 * the text has single and no double ones. What is not printable is escaped.
 *
 * tojson is json.dumps with the defaults that transformers sets: nothing beyond ASCII is escaped,
 * keys keep their order, ", " and ": " between things (only "," at the end of lines when indented),
 * NaN and Infinity spelled out. What JSON cannot say (undefined, iterators, functions) is an error
 * as there.
 *
 * Every byte is marked with its origin (CH-2): text keeps its marks, escapes take the mark of the
 * character they stand for, and numbers and brackets that of the value they print.
 *
 * The depth of nesting is bounded by JMEM_NEST_MAX and every value is a step of the budget.
 * Next: jinja_get.c. */
#include "model/jinja_repr.h"

#include "model/jinja_case.h"
#include "model/jinja_num.h"

#include <math.h>
#include <stdio.h>

/* --- str and repr ----------------------------------------------------------------------------- */

struct printer {
    struct jstr_out o;
    bool is_ascii;
};

static void fail(struct jstr_out *o, enum err e)
{
    if (e != ERR_OK) {
        o->m->err = e;
        o->is_failed = true;
    }
}

/* Pays for one value and checks the depth. */
static bool begin_value(struct jstr_out *o, int nest)
{
    fail(o, jmem_step(o->m, 1));
    if (nest <= 0) {
        fail(o, JMEM_FAIL(o->m, ERR_LIMIT, "data nested deeper than %d levels", JMEM_NEST_MAX));
    }
    return !o->is_failed;
}

static void add_hex(struct jstr_out *o, const char *start, uint32_t v, int n_digits,
                    bool is_trusted)
{
    char text[16];
    (void)snprintf(text, sizeof(text), "%s%0*x", start, n_digits, (unsigned)v);
    jstr_add_str(o, text, is_trusted);
}

static void add_escaped(struct printer *p, uint32_t cp, char quote, bool is_trusted)
{
    struct jstr_out *o = &p->o;
    if (cp == '\\' || cp == (uint32_t)quote) {
        jstr_add_str(o, "\\", is_trusted);
        jstr_add_code(o, cp, is_trusted);
    } else if (cp == '\n' || cp == '\r' || cp == '\t') {
        jstr_add_str(o, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t", is_trusted);
    } else if (cp < 0x100) {
        add_hex(o, "\\x", cp, 2, is_trusted);
    } else if (cp < 0x10000) {
        add_hex(o, "\\u", cp, 4, is_trusted);
    } else {
        add_hex(o, "\\U", cp, 8, is_trusted);
    }
}

/* Runs that need no escape are added as parts of s and so keep their marks; is_trusted marks the
 * quotes. */
static void add_quoted(struct printer *p, const struct jstr *s, bool is_trusted)
{
    struct jstr_out *o = &p->o;
    bool has_single = false;
    bool has_double = false;
    for (size_t i = 0; i < s->n; i++) {
        has_single |= s->p[i] == '\'';
        has_double |= s->p[i] == '"';
    }
    const char quote = has_single && !has_double ? '"' : '\'';
    const char marks[2] = { quote, 0 };
    jstr_add_str(o, s->is_markup ? "Markup(" : "", is_trusted);
    jstr_add_str(o, marks, is_trusted);
    size_t from = 0;
    for (size_t i = 0; i < s->n && !o->is_failed;) {
        size_t n = 0;
        const uint32_t cp = jstr_read(s, i, &n);
        const bool is_plain = cp != '\\' && cp != (uint32_t)quote && cp >= 0x20 && cp != 0x7f &&
                              (cp < 0x80 || (!p->is_ascii && jcase_is_printable(cp)));
        if (!is_plain) {
            jstr_add_part(o, s, from, i - from);
            add_escaped(p, cp, quote, jstr_trust_at(s, i));
            from = i + n;
        }
        i += n;
    }
    jstr_add_part(o, s, from, s->n - from);
    jstr_add_str(o, marks, is_trusted);
    jstr_add_str(o, s->is_markup ? ")" : "", is_trusted);
}

static void add_repr(struct printer *p, struct jv v, int nest);

static void add_items(struct printer *p, const struct jlist *l, const char *ends, int nest)
{
    const bool t = !l->is_data;
    const char open[2] = { ends[0], 0 };
    jstr_add_str(&p->o, open, t);
    for (size_t i = 0; i < l->n && !p->o.is_failed; i++) {
        jstr_add_str(&p->o, i > 0 ? ", " : "", t);
        add_repr(p, l->item[i], nest - 1);
    }
    jstr_add_str(&p->o, ends[0] == '(' && l->n == 1 ? "," : "", t); /* (1,) is a tuple, (1) not */
    jstr_add_str(&p->o, ends + 1, t);
}

static void add_pairs(struct printer *p, const struct jdict *d, int nest)
{
    const bool t = !d->is_data;
    jstr_add_str(&p->o, "{", t);
    for (size_t i = 0; i < d->n && !p->o.is_failed; i++) {
        jstr_add_str(&p->o, i > 0 ? ", " : "", t);
        add_repr(p, d->pair[i].key, nest - 1);
        jstr_add_str(&p->o, ": ", t);
        add_repr(p, d->pair[i].value, nest - 1);
    }
    jstr_add_str(&p->o, "}", t);
}

/* dict_keys([...]): the brackets belong to the dictionary it looks at. */
static void add_view(struct printer *p, struct jv v, int nest)
{
    struct jlist *l = NULL;
    const enum err e = jv_collect(p->o.m, v, &l);
    if (e != ERR_OK) {
        fail(&p->o, e);
        return;
    }
    l->is_data = v.u.dict->is_data;
    jstr_add_str(&p->o, jv_type_name(v), !l->is_data);
    jstr_add_str(&p->o, "(", !l->is_data);
    add_items(p, l, "[]", nest - 1);
    jstr_add_str(&p->o, ")", !l->is_data);
}

static void add_number(struct jstr_out *o, struct jv v)
{
    char text[JNUM_TEXT_MAX];
    if (v.type == JV_FLOAT) {
        jnum_repr(v.u.f, text);
    } else {
        (void)snprintf(text, sizeof(text), "%lld", (long long)v.u.i);
    }
    jstr_add_str(o, text, !v.is_data);
}

/* A range can only be made by the template, so its text is trusted. */
static void add_range(struct jstr_out *o, const struct jv_range *r)
{
    char text[96];
    (void)snprintf(text, sizeof(text),
                   r->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
                   (long long)r->start, (long long)r->stop, (long long)r->step);
    jstr_add_str(o, text, true);
}

/* Things that Python shows with an address. */
static void add_object(struct printer *p, struct jv v, int nest)
{
    jstr_add_str(&p->o, v.type == JV_NAMESPACE ? "<Namespace " : "<", true);
    if (v.type == JV_NAMESPACE) {
        add_pairs(p, v.u.dict, nest - 1);
    } else if (v.type == JV_MACRO) {
        jstr_add_str(&p->o, v.u.macro->name == NULL ? "Macro anonymous" : "Macro ", true);
        if (v.u.macro->name != NULL) {
            add_quoted(p, v.u.macro->name, true);
        }
    } else {
        jstr_add_str(&p->o, jv_type_name(v), true);
        jstr_add_str(&p->o, " object", true);
    }
    jstr_add_str(&p->o, ">", true);
}

static void add_repr(struct printer *p, struct jv v, int nest)
{
    if (!begin_value(&p->o, nest)) {
        return;
    }
    switch ((enum jv_type)v.type) {
    case JV_UNDEFINED:
        jstr_add_str(&p->o, "Undefined", true);
        break;
    case JV_NONE:
        jstr_add_str(&p->o, "None", !v.is_data);
        break;
    case JV_BOOL:
        jstr_add_str(&p->o, v.u.i != 0 ? "True" : "False", !v.is_data);
        break;
    case JV_INT:
    case JV_FLOAT:
        add_number(&p->o, v);
        break;
    case JV_STR:
        add_quoted(p, v.u.s, v.u.s->n > 0 ? jstr_trust_at(v.u.s, 0) : true);
        break;
    case JV_LIST:
        add_items(p, v.u.list, "[]", nest);
        break;
    case JV_TUPLE:
        add_items(p, v.u.list, "()", nest);
        break;
    case JV_DICT:
        add_pairs(p, v.u.dict, nest);
        break;
    case JV_VIEW:
        add_view(p, v, nest);
        break;
    case JV_RANGE:
        add_range(&p->o, v.u.range);
        break;
    default:
        add_object(p, v, nest);
        break;
    }
}

const struct jstr *jrepr_repr(struct jmem *m, struct jv v)
{
    struct printer p = { .is_ascii = false };
    jstr_begin(&p.o, m);
    add_repr(&p, v, JMEM_NEST_MAX);
    return jstr_end(&p.o, false);
}

const struct jstr *jrepr_ascii(struct jmem *m, struct jv v)
{
    struct printer p = { .is_ascii = true };
    jstr_begin(&p.o, m);
    add_repr(&p, v, JMEM_NEST_MAX);
    return jstr_end(&p.o, false);
}

const struct jstr *jrepr_str(struct jmem *m, struct jv v)
{
    if (v.type == JV_STR) {
        return v.u.s;
    }
    if (v.type == JV_UNDEFINED) {
        return jstr_over(m, VIEW(""), true);
    }
    return jrepr_repr(m, v);
}

/* --- JSON ------------------------------------------------------------------------------------- */

struct json {
    struct jstr_out o;
    const struct jrepr_json *how;
    int level;
};

/* \u has room for 16 bits: a character beyond is written as its two surrogates of UTF-16. */
static void json_char(struct json *j, uint32_t cp, bool t)
{
    static const char from[] = "\"\\\n\r\t\f\b";
    static const char to[] = "\"\\nrtfb";
    for (int i = 0; cp < 0x80 && from[i] != 0; i++) {
        if (cp == (uint32_t)from[i]) {
            jstr_add_str(&j->o, "\\", t);
            jstr_add_code(&j->o, (uint32_t)to[i], t);
            return;
        }
    }
    if (cp >= 0x10000) {
        add_hex(&j->o, "\\u", 0xd800 + ((cp - 0x10000) >> 10), 4, t);
        cp = 0xdc00 + ((cp - 0x10000) & 0x3ff);
    }
    add_hex(&j->o, "\\u", cp, 4, t);
}

static void json_string(struct json *j, const struct jstr *s)
{
    jstr_add_str(&j->o, "\"", s->n > 0 ? jstr_trust_at(s, 0) : true);
    size_t from = 0;
    for (size_t i = 0; i < s->n && !j->o.is_failed;) {
        size_t n = 0;
        const uint32_t cp = jstr_read(s, i, &n);
        if (cp < 0x20 || cp == '"' || cp == '\\' || (j->how->is_ascii && cp >= 0x7f)) {
            jstr_add_part(&j->o, s, from, i - from);
            json_char(j, cp, jstr_trust_at(s, i));
            from = i + n;
        }
        i += n;
    }
    jstr_add_part(&j->o, s, from, s->n - from);
    jstr_add_str(&j->o, "\"", s->n > 0 ? jstr_trust_at(s, s->n - 1) : true);
}

/* A new line at the level reached; nothing when all is on one line. */
static void json_line(struct json *j, bool t)
{
    if (j->how->indent != NULL) {
        jstr_add_str(&j->o, "\n", t);
        for (int i = 0; i < j->level; i++) {
            jstr_add_view(&j->o, jstr_view(j->how->indent), t);
        }
    }
}

static void json_value(struct json *j, struct jv v, int nest);

/* What stands before element i; the text between elements is the caller's wish, its mark the
 * list's. */
static void json_before(struct json *j, size_t i, bool t)
{
    if (i > 0) {
        jstr_add_view(&j->o, jstr_view(j->how->item_end), t);
    }
    json_line(j, t);
}

static void json_list(struct json *j, const struct jlist *l, int nest)
{
    const bool t = !l->is_data;
    jstr_add_str(&j->o, "[", t);
    j->level++;
    for (size_t i = 0; i < l->n && !j->o.is_failed; i++) {
        json_before(j, i, t);
        json_value(j, l->item[i], nest - 1);
    }
    j->level--;
    if (l->n > 0) {
        json_line(j, t);
    }
    jstr_add_str(&j->o, "]", t);
}

static void json_scalar(struct json *j, struct jv v)
{
    const bool t = !v.is_data;
    if (v.type == JV_NONE) {
        jstr_add_str(&j->o, "null", t);
    } else if (v.type == JV_BOOL) {
        jstr_add_str(&j->o, v.u.i != 0 ? "true" : "false", t);
    } else if (v.type == JV_FLOAT && !isfinite(v.u.f)) {
        jstr_add_str(&j->o, isnan(v.u.f) ? "NaN" : v.u.f < 0 ? "-Infinity" : "Infinity", t);
    } else {
        add_number(&j->o, v);
    }
}

/* JSON has text as keys only; json.dumps writes numbers, true, false and null as text. */
static void json_key(struct json *j, struct jv key)
{
    if (key.type == JV_STR) {
        json_string(j, key.u.s);
    } else if (key.type == JV_NONE || jv_is_number(key)) {
        jstr_add_str(&j->o, "\"", !key.is_data);
        json_scalar(j, key);
        jstr_add_str(&j->o, "\"", !key.is_data);
    } else {
        fail(&j->o, JMEM_FAIL(j->o.m, ERR_FAILED, "tojson: a key of type '%s'", jv_type_name(key)));
    }
}

/* Copies, since the dictionary itself keeps the order in which it was filled. */
static enum err sort_pairs(struct jmem *m, const struct jdict *d, struct jv **key,
                           struct jv **value)
{
    *key = jmem_take_array(m, d->n, sizeof(struct jv));
    *value = jmem_take_array(m, d->n, sizeof(struct jv));
    if (*key == NULL || *value == NULL) {
        return m->err;
    }
    for (size_t i = 0; i < d->n; i++) {
        (*key)[i] = d->pair[i].key;
        (*value)[i] = d->pair[i].value;
    }
    return jv_sort(m, *key, *value, d->n, false);
}

static void json_dict(struct json *j, const struct jdict *d, int nest)
{
    const bool t = !d->is_data;
    struct jv *key = NULL;
    struct jv *value = NULL;
    if (j->how->is_sorted) {
        fail(&j->o, sort_pairs(j->o.m, d, &key, &value));
    }
    jstr_add_str(&j->o, "{", t);
    j->level++;
    for (size_t i = 0; i < d->n && !j->o.is_failed; i++) {
        json_before(j, i, t);
        json_key(j, key != NULL ? key[i] : d->pair[i].key);
        jstr_add_view(&j->o, jstr_view(j->how->key_end), t);
        json_value(j, value != NULL ? value[i] : d->pair[i].value, nest - 1);
    }
    j->level--;
    if (d->n > 0) {
        json_line(j, t);
    }
    jstr_add_str(&j->o, "}", t);
}

static void json_value(struct json *j, struct jv v, int nest)
{
    if (!begin_value(&j->o, nest)) {
        return;
    }
    switch ((enum jv_type)v.type) {
    case JV_STR:
        json_string(j, v.u.s);
        break;
    case JV_NONE:
    case JV_BOOL:
    case JV_INT:
    case JV_FLOAT:
        json_scalar(j, v);
        break;
    case JV_LIST:
    case JV_TUPLE:
        json_list(j, v.u.list, nest);
        break;
    case JV_DICT:
        json_dict(j, v.u.dict, nest);
        break;
    default:
        fail(&j->o, JMEM_FAIL(j->o.m, ERR_FAILED, "tojson: an object of type '%s' has no JSON",
                              jv_type_name(v)));
        break;
    }
}

const struct jstr *jrepr_json(struct jmem *m, struct jv v, const struct jrepr_json *how)
{
    struct json j = { .how = how };
    jstr_begin(&j.o, m);
    json_value(&j, v, JMEM_NEST_MAX);
    return jstr_end(&j.o, false);
}
