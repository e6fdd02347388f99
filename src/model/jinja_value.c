/* jinja_value - what expressions of a template yield
 *
 * A value is 16 bytes: a type and a number or a pointer. The rules of equality, order and truth are
 * Python's: 1 == 1.0 == true (also as keys), lists and tuples compare element by element, text by
 * code points; what has no order is an error. A type that cannot be a key (list, dictionary) is
 * one, too.
 *
 * The undefined value remembers which name was missing, because it may be passed around for long
 * before somebody uses it: the message that names the variable is what a template's author needs.
 *
 * Dictionaries are arrays of pairs with a hash index on the side once they have more than eight.
 * Keys with equal hashes are compared one by one, and each comparison is a step of the budget, so a
 * message made to collide costs its sender an error.
 *
 * Data can be nested as deep as the reader of JSON allowed, and a template can build lists of lists
 * without end, so all recursion here counts down from JMEM_NEST_MAX. A short program can also make
 * a value that is small in memory and huge when walked ([x, x] of [x, x] ...); steps bound that.
 *
 * Rejected: reference counts (see jinja_mem.c), hash tables for lists of two keys, and integers
 * beyond 64 bits (jinja_num.c refuses results that need them).
 *
 * Next: jinja_repr.c. */
#include "model/jinja_value.h"

#include "base/hash.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define FEW_PAIRS 8u

static_assert(sizeof(struct jv) == 16, "values are passed by value");

/* --- making ----------------------------------------------------------------------------------- */

struct jv jv_none(void)
{
    return (struct jv){ .type = JV_NONE };
}

struct jv jv_bool(bool b)
{
    return (struct jv){ .type = JV_BOOL, .u.i = b };
}

struct jv jv_int(int64_t i)
{
    return (struct jv){ .type = JV_INT, .u.i = i };
}

struct jv jv_float(double f)
{
    return (struct jv){ .type = JV_FLOAT, .u.f = f };
}

struct jv jv_of_str(const struct jstr *s)
{
    return (struct jv){ .type = JV_STR, .u.s = s };
}

struct jv jv_of_list(const struct jlist *l)
{
    return (struct jv){ .type = JV_LIST, .u.list = l };
}

struct jv jv_of_tuple(const struct jlist *l)
{
    return (struct jv){ .type = JV_TUPLE, .u.list = l };
}

struct jv jv_of_dict(struct jdict *d)
{
    return (struct jv){ .type = JV_DICT, .u.dict = d };
}

struct jv jv_undefined(const struct jstr *name, enum jv_type owner)
{
    return (struct jv){ .type = JV_UNDEFINED, .sub = (uint8_t)owner, .u.s = name };
}

enum err jv_put_str(struct jmem *m, const struct jstr *s, struct jv *out)
{
    if (s == NULL) {
        return m->err;
    }
    *out = jv_of_str(s);
    return ERR_OK;
}

enum err jv_put_lit(struct jmem *m, const char *zero_terminated, struct jv *out)
{
    return jv_put_str(m, jstr_over(m, view_of(zero_terminated), true), out);
}

struct jlist *jlist_new(struct jmem *m, size_t cap)
{
    struct jlist *l = jmem_take(m, sizeof(*l));
    if (l == NULL) {
        return NULL;
    }
    l->item = jmem_take_array(m, cap, sizeof(struct jv));
    l->cap = cap;
    return l->item == NULL ? NULL : l;
}

enum err jlist_add(struct jmem *m, struct jlist *l, struct jv v)
{
    if (l->n == l->cap) {
        const size_t cap = l->cap < 4 ? 8 : l->cap * 2;
        struct jv *item = jmem_take_array(m, cap, sizeof(*item));
        if (item == NULL) {
            return m->err;
        }
        if (l->n > 0) {
            memcpy(item, l->item, l->n * sizeof(*item));
        }
        l->item = item;
        l->cap = cap;
    }
    l->item[l->n++] = v;
    return ERR_OK;
}

struct jdict *jdict_new(struct jmem *m)
{
    return jmem_take(m, sizeof(struct jdict));
}

/* --- equality and hashes ---------------------------------------------------------------------- */

static enum err too_deep(struct jmem *m)
{
    return JMEM_FAIL(m, ERR_LIMIT, "data nested deeper than %d levels", JMEM_NEST_MAX);
}

bool jv_is_int(struct jv v)
{
    return v.type == JV_INT || v.type == JV_BOOL;
}

bool jv_is_number(struct jv v)
{
    return jv_is_int(v) || v.type == JV_FLOAT;
}

static long double number_of(struct jv v)
{
    return v.type == JV_FLOAT ? (long double)v.u.f : (long double)v.u.i;
}

static enum err hash_of(struct jmem *m, struct jv v, int nest, uint64_t *out)
{
    uint64_t h = (uint64_t)v.type;
    switch ((enum jv_type)v.type) {
    case JV_STR:
        TRY(jmem_walk(m, v.u.s->n));
        *out = hash_mix(v.u.s->p, v.u.s->n, JV_STR);
        return ERR_OK;
    case JV_FLOAT:
        if (v.u.f != floor(v.u.f) || fabs(v.u.f) >= 9e18) {
            *out = hash_mix(&v.u.f, sizeof(v.u.f), JV_FLOAT);
            return ERR_OK;
        }
        v.u.i = (int64_t)v.u.f;
        *out = hash_mix(&v.u.i, sizeof(v.u.i), JV_INT);
        return ERR_OK;
    case JV_INT:
    case JV_BOOL:
        *out = hash_mix(&v.u.i, sizeof(v.u.i), JV_INT);
        return ERR_OK;
    case JV_TUPLE:
        if (nest <= 0) {
            return too_deep(m);
        }
        for (size_t i = 0; i < v.u.list->n; i++) {
            uint64_t one = 0;
            TRY(jmem_step(m, 1));
            TRY(hash_of(m, v.u.list->item[i], nest - 1, &one));
            h = hash_mix(&one, sizeof(one), h);
        }
        *out = h;
        return ERR_OK;
    case JV_LIST:
    case JV_DICT:
    case JV_VIEW:
        return JMEM_FAIL(m, ERR_FAILED, "unhashable type: '%s'", jv_type_name(v));
    case JV_NONE:
    case JV_UNDEFINED:
        *out = hash_mix(&h, sizeof(h), 0);
        return ERR_OK;
    default:
        *out = hash_mix(&v.u, sizeof(v.u), h);
        return ERR_OK;
    }
}

static enum err eq(struct jmem *m, struct jv a, struct jv b, int nest, bool *out);

static enum err eq_lists(struct jmem *m, const struct jlist *a, const struct jlist *b, int nest,
                         bool *out)
{
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++) {
        TRY(eq(m, a->item[i], b->item[i], nest, &same));
    }
    *out = same;
    return ERR_OK;
}

static enum err eq_dicts(struct jmem *m, const struct jdict *a, const struct jdict *b, int nest,
                         bool *out)
{
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++) {
        const struct jv *other = NULL;
        TRY(jdict_get(m, b, a->pair[i].key, &other));
        same = other != NULL;
        if (same) {
            TRY(eq(m, a->pair[i].value, *other, nest, &same));
        }
    }
    *out = same;
    return ERR_OK;
}

static bool eq_ranges(const struct jv_range *a, const struct jv_range *b)
{
    return a->n == b->n &&
           (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

static enum err eq(struct jmem *m, struct jv a, struct jv b, int nest, bool *out)
{
    TRY(jmem_step(m, 1));
    if (jv_is_number(a) && jv_is_number(b)) {
        *out = number_of(a) == number_of(b);
        return ERR_OK;
    }
    if (a.type != b.type) {
        *out = false;
        return ERR_OK;
    }
    if (nest <= 0) {
        return too_deep(m);
    }
    switch ((enum jv_type)a.type) {
    case JV_STR:
        *out = jstr_eq(a.u.s, b.u.s);
        return a.u.s->n == b.u.s->n ? jmem_walk(m, a.u.s->n) : ERR_OK;
    case JV_LIST:
    case JV_TUPLE:
        return eq_lists(m, a.u.list, b.u.list, nest - 1, out);
    case JV_DICT:
        return eq_dicts(m, a.u.dict, b.u.dict, nest - 1, out);
    case JV_RANGE:
        *out = eq_ranges(a.u.range, b.u.range);
        return ERR_OK;
    case JV_NONE:
    case JV_UNDEFINED:
        *out = true;
        return ERR_OK;
    default:
        *out = jv_same(a, b);
        return ERR_OK;
    }
}

enum err jv_eq(struct jmem *m, struct jv a, struct jv b, bool *out)
{
    return eq(m, a, b, JMEM_NEST_MAX, out);
}

bool jv_same(struct jv a, struct jv b)
{
    if (a.type != b.type) {
        return false;
    }
    if (a.type == JV_NONE) {
        return true;
    }
    if (a.type == JV_STR) {
        return a.u.s == b.u.s || (a.u.s->is_markup == b.u.s->is_markup && jstr_eq(a.u.s, b.u.s));
    }
    if (a.type == JV_FLOAT) {
        return a.u.f == b.u.f;
    }
    return a.u.i == b.u.i && a.sub == b.sub;
}

/* --- dictionaries ----------------------------------------------------------------------------- */

/* Position of the key, or SIZE_MAX; *free_at (may be NULL) is the place of its index entry. */
static enum err find_pair(struct jmem *m, const struct jdict *d, struct jv key, uint64_t hash,
                          size_t *at, size_t *free_at)
{
    *at = SIZE_MAX;
    if (d->n_index == 0) {
        for (size_t i = 0; i < d->n; i++) {
            bool same = false;
            if (d->pair[i].hash == hash) {
                TRY(eq(m, d->pair[i].key, key, JMEM_NEST_MAX, &same));
            }
            if (same) {
                *at = i;
                return ERR_OK;
            }
        }
        return ERR_OK;
    }
    size_t i = (size_t)hash & (d->n_index - 1);
    for (; d->index[i] != 0; i = (i + 1) & (d->n_index - 1)) {
        const size_t pos = d->index[i] - 1;
        bool same = false;
        TRY(jmem_step(m, 1));
        if (d->pair[pos].hash == hash) {
            TRY(eq(m, d->pair[pos].key, key, JMEM_NEST_MAX, &same));
        }
        if (same) {
            *at = pos;
            break;
        }
    }
    if (free_at != NULL) {
        *free_at = i;
    }
    return ERR_OK;
}

static enum err grow_dict(struct jmem *m, struct jdict *d)
{
    const size_t cap = d->cap == 0 ? 2 : d->cap * 2;
    if (cap > UINT32_MAX / 4) {
        return JMEM_FAIL(m, ERR_LIMIT, "a dictionary of more than %zu keys", d->n);
    }
    struct jv_pair *pair = jmem_take_array(m, cap, sizeof(*pair));
    if (pair == NULL) {
        return m->err;
    }
    if (d->n > 0) {
        memcpy(pair, d->pair, d->n * sizeof(*pair));
    }
    if (cap > FEW_PAIRS) {
        const size_t n_index = cap * 2;
        uint32_t *index = jmem_take_array(m, n_index, sizeof(*index));
        if (index == NULL) {
            return m->err;
        }
        for (size_t i = 0; i < d->n; i++) {
            size_t at = (size_t)pair[i].hash & (n_index - 1);
            while (index[at] != 0) {
                TRY(jmem_step(m, 1));
                at = (at + 1) & (n_index - 1);
            }
            index[at] = (uint32_t)(i + 1);
        }
        d->index = index;
        d->n_index = n_index;
    }
    d->pair = pair;
    d->cap = cap;
    return ERR_OK;
}

enum err jdict_set(struct jmem *m, struct jdict *d, struct jv key, struct jv value)
{
    uint64_t hash = 0;
    size_t at = SIZE_MAX;
    size_t free_at = 0;
    TRY(hash_of(m, key, JMEM_NEST_MAX, &hash));
    TRY(find_pair(m, d, key, hash, &at, &free_at));
    if (at != SIZE_MAX) {
        d->pair[at].value = value;
        return ERR_OK;
    }
    if (d->n == d->cap) {
        TRY(grow_dict(m, d));
        TRY(find_pair(m, d, key, hash, &at, &free_at));
    }
    d->pair[d->n] = (struct jv_pair){ .key = key, .value = value, .hash = hash };
    d->n++;
    if (d->n_index != 0) {
        d->index[free_at] = (uint32_t)d->n;
    }
    return ERR_OK;
}

enum err jdict_get(struct jmem *m, const struct jdict *d, struct jv key, const struct jv **out)
{
    uint64_t hash = 0;
    size_t at = SIZE_MAX;
    TRY(hash_of(m, key, JMEM_NEST_MAX, &hash));
    TRY(find_pair(m, d, key, hash, &at, NULL));
    *out = at == SIZE_MAX ? NULL : &d->pair[at].value;
    return ERR_OK;
}

const struct jv *jdict_find(const struct jdict *d, struct view name)
{
    for (size_t i = 0; i < d->n; i++) {
        if (d->pair[i].key.type == JV_STR && view_eq(jstr_view(d->pair[i].key.u.s), name)) {
            return &d->pair[i].value;
        }
    }
    return NULL;
}

/* --- asking ----------------------------------------------------------------------------------- */

static const char *const type_names[JV_TYPES] = {
    [JV_MISSING] = "nothing", [JV_UNDEFINED] = "Undefined",
    [JV_NONE] = "NoneType",   [JV_BOOL] = "bool",
    [JV_INT] = "int",         [JV_FLOAT] = "float",
    [JV_STR] = "str",         [JV_LIST] = "list",
    [JV_TUPLE] = "tuple",     [JV_DICT] = "dict",
    [JV_VIEW] = "dict_items", [JV_RANGE] = "range",
    [JV_ITER] = "generator",  [JV_NAMESPACE] = "Namespace",
    [JV_METHOD] = "method",   [JV_FUNC] = "function",
    [JV_MACRO] = "Macro",     [JV_LOOP] = "LoopContext",
    [JV_CYCLER] = "Cycler",   [JV_JOINER] = "Joiner",
};

const char *jv_type_name(struct jv v)
{
    if (v.type == JV_VIEW && v.sub != JV_ITEMS) {
        return v.sub == JV_KEYS ? "dict_keys" : "dict_values";
    }
    if (v.type == JV_STR && v.u.s->is_markup) {
        return "Markup";
    }
    return v.type == JV_ITER ? v.u.gen->type_name : type_names[v.type];
}

bool jv_truth(struct jv v)
{
    switch ((enum jv_type)v.type) {
    case JV_MISSING:
    case JV_UNDEFINED:
    case JV_NONE:
        return false;
    case JV_BOOL:
    case JV_INT:
        return v.u.i != 0;
    case JV_FLOAT:
        return v.u.f != 0;
    case JV_STR:
        return v.u.s->n > 0;
    case JV_LIST:
    case JV_TUPLE:
        return v.u.list->n > 0;
    case JV_DICT:
    case JV_VIEW:
        return v.u.dict->n > 0;
    case JV_RANGE:
        return v.u.range->n > 0;
    default:
        return true;
    }
}

enum err jv_undefined_error(struct jmem *m, struct jv v)
{
    const struct jstr *s = v.u.s;
    const int n = s == NULL ? 0 : (int)(s->n < 100 ? s->n : 100);
    if (s == NULL) {
        return JMEM_FAIL(m, ERR_FAILED, "a value that is not there is used");
    }
    if (v.sub == JV_TYPES) {
        return JMEM_FAIL(m, ERR_FAILED, "'%.*s' would change its object, templates may not", n,
                         s->p);
    }
    if (v.sub == JV_MISSING) {
        return JMEM_FAIL(m, ERR_FAILED, "'%.*s' is undefined", n, s->p);
    }
    return JMEM_FAIL(m, ERR_FAILED, "'%s' object has no attribute '%.*s'", type_names[v.sub], n,
                     s->p);
}

enum err jv_len(struct jmem *m, struct jv v, size_t *out)
{
    switch ((enum jv_type)v.type) {
    case JV_UNDEFINED:
        *out = 0;
        return ERR_OK;
    case JV_STR:
        *out = v.u.s->n_char;
        return ERR_OK;
    case JV_LIST:
    case JV_TUPLE:
        *out = v.u.list->n;
        return ERR_OK;
    case JV_DICT:
    case JV_VIEW:
        *out = v.u.dict->n;
        return ERR_OK;
    case JV_RANGE:
        *out = v.u.range->n;
        return ERR_OK;
    default:
        return JMEM_FAIL(m, ERR_FAILED, "object of type '%s' has no length", jv_type_name(v));
    }
}

static bool ordered(long double a, long double b, enum jv_order op)
{
    switch (op) {
    case JV_LT:
        return a < b;
    case JV_LE:
        return a <= b;
    case JV_GT:
        return a > b;
    default:
        return a >= b;
    }
}

static enum err compare(struct jmem *m, struct jv a, struct jv b, enum jv_order op, int nest,
                        bool *out)
{
    static const char *const sign[] = { "<", "<=", ">", ">=" };
    TRY(jmem_step(m, 1));
    if (jv_is_number(a) && jv_is_number(b)) {
        *out = ordered(number_of(a), number_of(b), op);
        return ERR_OK;
    }
    if (a.type == JV_STR && b.type == JV_STR) {
        *out = ordered(jstr_cmp(a.u.s, b.u.s), 0, op);
        return jmem_walk(m, a.u.s->n < b.u.s->n ? a.u.s->n : b.u.s->n);
    }
    if (a.type != b.type || (a.type != JV_LIST && a.type != JV_TUPLE)) {
        if (a.type == JV_UNDEFINED || b.type == JV_UNDEFINED) {
            return jv_undefined_error(m, a.type == JV_UNDEFINED ? a : b);
        }
        return JMEM_FAIL(m, ERR_FAILED, "'%s' has no order between '%s' and '%s'", sign[op],
                         jv_type_name(a), jv_type_name(b));
    }
    if (nest <= 0) {
        return too_deep(m);
    }
    const struct jlist *x = a.u.list;
    const struct jlist *y = b.u.list;
    for (size_t i = 0; i < x->n && i < y->n; i++) {
        bool same = false;
        TRY(eq(m, x->item[i], y->item[i], nest - 1, &same));
        if (!same) {
            return compare(m, x->item[i], y->item[i], op, nest - 1, out);
        }
    }
    *out = ordered((long double)x->n, (long double)y->n, op);
    return ERR_OK;
}

enum err jv_compare(struct jmem *m, struct jv a, struct jv b, enum jv_order op, bool *out)
{
    return compare(m, a, b, op, JMEM_NEST_MAX, out);
}

static bool range_has(const struct jv_range *r, struct jv item)
{
    if (!jv_is_number(item) || r->n == 0) {
        return false;
    }
    const long double x = number_of(item);
    const long double last = (long double)r->start + (long double)(r->n - 1) * (long double)r->step;
    const long double low = r->step > 0 ? (long double)r->start : last;
    const long double high = r->step > 0 ? last : (long double)r->start;
    if (!(x >= low && x <= high) || x != floorl(x)) {
        return false;
    }
    return fmodl(x - (long double)r->start, (long double)r->step) == 0;
}

enum err jv_contains(struct jmem *m, struct jv container, struct jv item, bool *out)
{
    const bool is_keys =
        container.type == JV_DICT || (container.type == JV_VIEW && container.sub == JV_KEYS);
    if (container.type == JV_STR) {
        if (item.type != JV_STR) {
            return JMEM_FAIL(m, ERR_FAILED, "'in <string>' wants a string at the left, not %s",
                             jv_type_name(item));
        }
        size_t at = 0;
        TRY(jstr_find(m, container.u.s, item.u.s, 0, container.u.s->n, &at));
        *out = at != SIZE_MAX;
        return ERR_OK;
    }
    if (is_keys) {
        const struct jv *hit = NULL;
        TRY(jdict_get(m, container.u.dict, item, &hit));
        *out = hit != NULL;
        return ERR_OK;
    }
    if (container.type == JV_RANGE) {
        *out = range_has(container.u.range, item);
        return ERR_OK;
    }
    if (!jiter_can(container)) {
        return JMEM_FAIL(m, ERR_FAILED, "argument of type '%s' is not iterable",
                         jv_type_name(container));
    }
    struct jiter it;
    struct jv one;
    bool has = true;
    bool same = false;
    TRY(jiter_init(m, &it, container));
    while (has && !same) {
        TRY(jiter_next(m, &it, &one, &has));
        if (has) {
            TRY(jv_eq(m, one, item, &same));
        }
    }
    *out = same;
    return ERR_OK;
}

/* --- going through ---------------------------------------------------------------------------- */

bool jiter_can(struct jv v)
{
    return v.type == JV_UNDEFINED || (v.type >= JV_STR && v.type <= JV_ITER);
}

enum err jiter_init(struct jmem *m, struct jiter *it, struct jv v)
{
    if (!jiter_can(v)) {
        return JMEM_FAIL(m, ERR_FAILED, "'%s' object is not iterable", jv_type_name(v));
    }
    *it = (struct jiter){ .of = v };
    return ERR_OK;
}

static enum err view_item(struct jmem *m, struct jv v, size_t i, struct jv *out)
{
    const struct jv_pair *p = &v.u.dict->pair[i];
    if (v.type == JV_DICT || v.sub == JV_KEYS) {
        *out = p->key;
        return ERR_OK;
    }
    if (v.sub == JV_VALUES) {
        *out = p->value;
        return ERR_OK;
    }
    struct jlist *l = jlist_new(m, 2);
    if (l == NULL) {
        return m->err;
    }
    l->is_data = v.u.dict->is_data;
    l->item[0] = p->key;
    l->item[1] = p->value;
    l->n = 2;
    *out = jv_of_tuple(l);
    return ERR_OK;
}

enum err jv_at(struct jmem *m, struct jv v, size_t i, struct jv *out)
{
    if (v.type == JV_RANGE) {
        *out = jv_int(v.u.range->start + (int64_t)i * v.u.range->step);
        return ERR_OK;
    }
    if (v.type == JV_LIST || v.type == JV_TUPLE) {
        *out = v.u.list->item[i];
        return ERR_OK;
    }
    return view_item(m, v, i, out);
}

static enum err next_char(struct jmem *m, struct jiter *it, struct jv *out)
{
    const struct jstr *s = it->of.u.s;
    size_t n = 0;
    (void)jstr_read(s, it->at, &n);
    const struct jstr *one = jstr_part(m, s, it->at, n);
    it->at += n;
    return jv_put_str(m, one == NULL ? NULL : jstr_as(m, one, false), out);
}

enum err jiter_next(struct jmem *m, struct jiter *it, struct jv *out, bool *has)
{
    TRY(jmem_step(m, 1));
    if (it->of.type == JV_ITER) { /* iterators over iterators nest */
        TRY(jmem_enter(m));
        const enum err e = it->of.u.gen->next(m, it->of.u.gen, out, has);
        jmem_leave(m);
        return e;
    }
    if (it->of.type == JV_STR) {
        *has = it->at < it->of.u.s->n;
        return *has ? next_char(m, it, out) : ERR_OK;
    }
    size_t n = 0;
    TRY(jv_len(m, it->of, &n));
    *has = it->i < n;
    return *has ? jv_at(m, it->of, it->i++, out) : ERR_OK;
}

enum err jv_collect(struct jmem *m, struct jv v, struct jlist **out)
{
    struct jiter it;
    TRY(jiter_init(m, &it, v));
    struct jlist *l = jlist_new(m, 0);
    if (l == NULL) {
        return m->err;
    }
    if (v.type == JV_LIST || v.type == JV_TUPLE) {
        l->is_data = v.u.list->is_data;
    }
    for (;;) {
        struct jv one;
        bool has = false;
        TRY(jiter_next(m, &it, &one, &has));
        if (!has) {
            break;
        }
        TRY(jlist_add(m, l, one));
    }
    *out = l;
    return ERR_OK;
}

/* --- sorting ---------------------------------------------------------------------------------- */

struct sort_pair {
    struct jv key;
    struct jv value;
};

/* Merges the sorted runs [a, mid) and [mid, end) of `from` into `to`. */
static enum err merge(struct jmem *m, const struct sort_pair *from, struct sort_pair *to,
                      const size_t bound[3], enum jv_order before)
{
    size_t i = bound[0];
    size_t j = bound[1];
    for (size_t k = bound[0]; k < bound[2]; k++) {
        bool is_second = i >= bound[1];
        if (!is_second && j < bound[2]) {
            TRY(jv_compare(m, from[j].key, from[i].key, before, &is_second));
        }
        to[k] = is_second ? from[j++] : from[i++];
    }
    return ERR_OK;
}

enum err jv_sort(struct jmem *m, struct jv *key, struct jv *value, size_t n, bool is_reverse)
{
    struct sort_pair *from = jmem_take_array(m, n, sizeof(*from));
    struct sort_pair *to = jmem_take_array(m, n, sizeof(*to));
    if (from == NULL || to == NULL) {
        return m->err;
    }
    for (size_t i = 0; i < n; i++) {
        from[i] = (struct sort_pair){ key[i], value[i] };
    }
    for (size_t run = 1; run < n; run *= 2) {
        for (size_t a = 0; a < n; a += 2 * run) {
            const size_t mid = n - a > run ? a + run : n;
            const size_t end = n - a > 2 * run ? a + 2 * run : n;
            const size_t bound[3] = { a, mid, end };
            TRY(merge(m, from, to, bound, is_reverse ? JV_GT : JV_LT));
        }
        struct sort_pair *other = from;
        from = to;
        to = other;
    }
    for (size_t i = 0; i < n; i++) {
        key[i] = from[i].key;
        value[i] = from[i].value;
    }
    return ERR_OK;
}
