/* jinja_op - the operators + - * / // % ** and signs on values of any type
 *
 * Numbers go to jinja_num.c. For the rest Python has a short list: text, lists and tuples can be
 * added to their like and multiplied by whole numbers, and "%" after a text is formatting.
 * Everything else is an error that names both types, which is the message a template's author gets
 * when a message has no content and the template adds it to a text.
 *
 * A text that went through the filter `safe` or `escape` is markup: adding a plain text to it
 * escapes that text, in both orders. Nobody wants this in prompts, but templates do say x|safe, and
 * equal output includes it.
 *
 * Next: jinja_method.c. */
#include "model/jinja_op.h"

#include "model/jinja_format.h"
#include "model/jinja_num.h"

#include <string.h>

const struct jstr *jop_concat(struct jmem *m, const struct jstr *a, const struct jstr *b)
{
    const bool is_markup = a->is_markup || b->is_markup;
    struct jstr_out o;
    jstr_begin(&o, m);
    jstr_add(&o, is_markup && !a->is_markup ? jstr_escape(m, a) : a);
    jstr_add(&o, is_markup && !b->is_markup ? jstr_escape(m, b) : b);
    return jstr_end(&o, is_markup);
}

static enum err join_lists(struct jmem *m, struct jv a, struct jv b, struct jv *out)
{
    const struct jlist *x = a.u.list;
    const struct jlist *y = b.u.list;
    struct jlist *l = jlist_new(m, x->n + y->n);
    if (l == NULL) {
        return m->err;
    }
    if (x->n > 0) {
        memcpy(l->item, x->item, x->n * sizeof(*l->item));
    }
    if (y->n > 0) {
        memcpy(l->item + x->n, y->item, y->n * sizeof(*l->item));
    }
    l->n = x->n + y->n;
    l->is_data = x->is_data && y->is_data;
    *out = a.type == JV_LIST ? jv_of_list(l) : jv_of_tuple(l);
    return ERR_OK;
}

static enum err repeat(struct jmem *m, struct jv v, int64_t times, struct jv *out)
{
    const size_t n = times < 0 ? 0 : (size_t)times;
    if (v.type == JV_STR) {
        struct jstr_out o;
        jstr_begin(&o, m);
        jstr_add_repeat(&o, v.u.s, n);
        return jv_put_str(m, jstr_end(&o, v.u.s->is_markup), out);
    }
    const struct jlist *from = v.u.list;
    if (from->n > 0 && n > m->bytes_max / sizeof(struct jv) / from->n) {
        return JMEM_FAIL(m, ERR_LIMIT, "%zu times a list of %zu elements does not fit", n, from->n);
    }
    struct jlist *l = jlist_new(m, from->n * n);
    if (l == NULL) {
        return m->err;
    }
    for (size_t i = 0; i < n && from->n > 0; i++) {
        memcpy(l->item + i * from->n, from->item, from->n * sizeof(*l->item));
    }
    l->n = from->n * n;
    l->is_data = from->is_data;
    *out = v.type == JV_LIST ? jv_of_list(l) : jv_of_tuple(l);
    return ERR_OK;
}

static bool is_row(struct jv v)
{
    return v.type == JV_STR || v.type == JV_LIST || v.type == JV_TUPLE;
}

enum err jop_binary(struct jmem *m, enum jlex_type op, struct jv a, struct jv b, struct jv *out)
{
    if (jv_is_number(a) && jv_is_number(b)) {
        return jnum_binary(m, (int)op, a, b, out);
    }
    if (op == JLEX_ADD && a.type == JV_STR && b.type == JV_STR) {
        return jv_put_str(m, jop_concat(m, a.u.s, b.u.s), out);
    }
    if (op == JLEX_ADD && a.type == b.type && is_row(a)) {
        return join_lists(m, a, b, out);
    }
    if (op == JLEX_MUL && is_row(a) && jv_is_int(b)) {
        return repeat(m, a, b.u.i, out);
    }
    if (op == JLEX_MUL && is_row(b) && jv_is_int(a)) {
        return repeat(m, b, a.u.i, out);
    }
    if (op == JLEX_MOD && a.type == JV_STR) {
        return jformat_percent(m, a.u.s, b, out);
    }
    if (a.type == JV_UNDEFINED || b.type == JV_UNDEFINED) {
        return jv_undefined_error(m, a.type == JV_UNDEFINED ? a : b);
    }
    return JMEM_FAIL(m, ERR_FAILED, "'%s' does not work between '%s' and '%s'", jlex_name(op),
                     jv_type_name(a), jv_type_name(b));
}

enum err jop_sign(struct jmem *m, struct jv v, bool is_negative, struct jv *out)
{
    if (v.type == JV_UNDEFINED) {
        return jv_undefined_error(m, v);
    }
    if (!jv_is_number(v)) {
        return JMEM_FAIL(m, ERR_FAILED, "a sign does not work on '%s'", jv_type_name(v));
    }
    if (v.type == JV_FLOAT) {
        v.u.f = is_negative ? -v.u.f : v.u.f;
    } else {
        v.type = JV_INT;
        if (is_negative && __builtin_sub_overflow((int64_t)0, v.u.i, &v.u.i)) {
            return jnum_beyond(m);
        }
    }
    *out = v;
    return ERR_OK;
}
