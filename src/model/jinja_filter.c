/* jinja_filter - filters by name, and those that work on sequences
 *
 * Eight filters of Jinja2 give an iterator and not a list: map, select, reject, selectattr,
 * rejectattr, unique, batch, slice (and items, and reverse of what is no text). That shows: an
 * iterator has no length, is always true, and can be gone through once; a test or filter inside of
 * it runs when its element is asked for. So they are iterators here, too: a `struct lazy` holds the
 * source and the arguments, and a function that makes the next element.
 *
 * Attributes are given as paths ("function.name", "0"), looked up with jget_path. Sorting, grouping
 * and searching the least or greatest ignore the case of text unless told otherwise.
 *
 * jfilter_call is also what map('name') uses, so filters can be applied by name at run time; an
 * unknown name is an error only when it is reached.
 *
 * Source: the list of builtin filters in the template designer documentation of Jinja2 3.1.
 * Next: jinja_global.c. */
#include "model/jinja_filter.h"

#include "model/jinja_case.h"
#include "model/jinja_ftext.h"
#include "model/jinja_get.h"
#include "model/jinja_lex.h"
#include "model/jinja_method.h"
#include "model/jinja_op.h"
#include "model/jinja_repr.h"
#include "model/jinja_test.h"

#include <string.h>

/* --- keys for sorting and comparing ----------------------------------------------------------- */

/* A text in lower case where case is to be ignored; other values as they are. */
static enum err fold(struct jmem *m, bool is_case_kept, struct jv *v)
{
    if (v->type != JV_STR || is_case_kept) {
        return ERR_OK;
    }
    return jv_put_str(m, jcase_map(m, v->u.s, JCASE_LOWER), v);
}

/* The value of an attribute path, folded. */
static enum err key_of(struct jmem *m, struct jv v, struct jv path, bool is_case_kept,
                       struct jv *out)
{
    TRY(jget_path(m, v, path, (struct jv){ 0 }, &v));
    TRY(fold(m, is_case_kept, &v));
    *out = v;
    return ERR_OK;
}

/* As key_of for "a,b.c": a list with one key per path. */
static enum err keys_of(struct jmem *m, struct jv v, struct jv paths, bool is_case_kept,
                        struct jv *out)
{
    struct jlist *l = jlist_new(m, 1);
    if (l == NULL) {
        return m->err;
    }
    struct jv key;
    if (paths.type != JV_STR) {
        TRY(key_of(m, v, paths, is_case_kept, &key));
        TRY(jlist_add(m, l, key));
        *out = jv_of_list(l);
        return ERR_OK;
    }
    const struct jstr *s = paths.u.s;
    size_t from = 0;
    for (bool is_last = false; !is_last;) {
        const size_t comma = view_find(jstr_view(s), VIEW(","), from);
        is_last = comma == SIZE_MAX;
        struct jv path;
        TRY(jv_put_str(m, jstr_part(m, s, from, (is_last ? s->n : comma) - from), &path));
        TRY(key_of(m, v, path, is_case_kept, &key));
        TRY(jlist_add(m, l, key));
        from = comma + 1;
    }
    *out = jv_of_list(l);
    return ERR_OK;
}

/* --- iterators -------------------------------------------------------------------------------- */

struct lazy {
    struct jgen g;
    struct jcall c; /* the filter call; c.self is the source */
    struct jiter it;
    bool is_started;
    struct jargs rest;       /* arguments for the filter or test that is applied */
    const struct jstr *name; /* of that, or NULL: none */
    struct jv path;
    struct jv otherwise;
    bool is_reject;
    struct jdict *seen;
    const struct jlist *list;
    size_t i;
    int64_t n;
};

static enum err new_lazy(struct jcall *c, jgen_fn next, struct lazy **lazy, struct jv *out)
{
    struct lazy *z = jmem_take(c->m, sizeof(*z));
    if (z == NULL) {
        return c->m->err;
    }
    z->g = (struct jgen){ .next = next, .type_name = "generator" };
    z->c = *c;
    *lazy = z;
    *out = (struct jv){ .type = JV_ITER, .u.gen = &z->g };
    return ERR_OK;
}

/* Begins with the source at the first call. Filters that ask `if value:` first find nothing in what
 * is false, even where it is no sequence. */
static enum err start(struct lazy *z, bool is_guarded, bool *is_empty)
{
    *is_empty = false;
    if (!z->is_started && is_guarded && !jv_truth(z->c.self)) {
        *is_empty = true;
        return ERR_OK;
    }
    if (!z->is_started) {
        TRY(jiter_init(z->c.m, &z->it, z->c.self));
        z->is_started = true;
    }
    return ERR_OK;
}

/* The arguments behind the first n_skip positional ones. */
static enum err rest_args(struct jcall *c, size_t n_skip, struct jargs *out)
{
    struct jlist *l = jmem_take(c->m, sizeof(*l));
    if (l == NULL) {
        return c->m->err;
    }
    const size_t n = c->args.pos->n;
    if (n_skip < n) {
        *l = (struct jlist){ .item = c->args.pos->item + n_skip, .n = n - n_skip };
    }
    *out = (struct jargs){ .pos = l, .named = c->args.named };
    return ERR_OK;
}

static enum err next_map(struct jmem *m, struct jgen *g, struct jv *out, bool *has)
{
    struct lazy *z = (struct lazy *)g;
    bool is_empty = false;
    *has = false;
    TRY(start(z, true, &is_empty));
    struct jv v;
    if (!is_empty) {
        TRY(jiter_next(m, &z->it, &v, has));
    }
    if (!*has) {
        return ERR_OK;
    }
    if (z->name != NULL) {
        return jfilter_call(m, z->name, v, &z->rest, out);
    }
    return jget_path(m, v, z->path, z->otherwise, out);
}

static enum err f_map(struct jcall *c, struct jv *out)
{
    struct lazy *z = NULL;
    TRY(new_lazy(c, next_map, &z, out));
    const struct jv *path = jdict_find(c->args.named, VIEW("attribute"));
    if (c->args.pos->n == 0 && path != NULL) {
        const struct jv *otherwise = jdict_find(c->args.named, VIEW("default"));
        if (c->args.named->n > (otherwise != NULL ? 2u : 1u)) {
            return JMEM_FAIL(c->m, ERR_FAILED, "map: only attribute and default can be named");
        }
        z->path = *path;
        z->otherwise =
            otherwise != NULL && otherwise->type != JV_NONE ? *otherwise : (struct jv){ 0 };
        return ERR_OK;
    }
    if (c->args.pos->n == 0 || c->args.pos->item[0].type != JV_STR) {
        return JMEM_FAIL(c->m, ERR_FAILED, "map wants the name of a filter, or attribute=");
    }
    z->name = c->args.pos->item[0].u.s;
    return rest_args(c, 1, &z->rest);
}

static enum err next_select(struct jmem *m, struct jgen *g, struct jv *out, bool *has)
{
    struct lazy *z = (struct lazy *)g;
    bool is_empty = false;
    *has = false;
    TRY(start(z, true, &is_empty));
    while (!is_empty) {
        struct jv v;
        struct jv tested;
        bool is_true = false;
        TRY(jiter_next(m, &z->it, &v, has));
        if (!*has) {
            break;
        }
        TRY(jget_path(m, v, z->path, (struct jv){ 0 }, &tested));
        if (z->name != NULL) {
            TRY(jtest_call(m, z->name, tested, &z->rest, &is_true));
        } else {
            is_true = jv_truth(tested);
        }
        if (is_true != z->is_reject) {
            *out = v;
            return ERR_OK;
        }
    }
    return ERR_OK;
}

static enum err f_select(struct jcall *c, struct jv *out)
{
    struct lazy *z = NULL;
    TRY(new_lazy(c, next_select, &z, out));
    const bool with_attr = strstr(c->name, "attr") != NULL;
    const size_t off = with_attr ? 1 : 0;
    z->is_reject = c->name[0] == 'r';
    if (with_attr && c->args.pos->n == 0) {
        return JMEM_FAIL(c->m, ERR_FAILED, "%s wants the name of an attribute", c->name);
    }
    if (with_attr) {
        z->path = c->args.pos->item[0];
    }
    if (c->args.pos->n > off) {
        if (c->args.pos->item[off].type != JV_STR) {
            return JMEM_FAIL(c->m, ERR_FAILED, "%s wants the name of a test", c->name);
        }
        z->name = c->args.pos->item[off].u.s;
    }
    return rest_args(c, off + 1, &z->rest);
}

static enum err next_unique(struct jmem *m, struct jgen *g, struct jv *out, bool *has)
{
    struct lazy *z = (struct lazy *)g;
    bool is_empty = false;
    TRY(start(z, false, &is_empty));
    for (;;) {
        struct jv v;
        struct jv key;
        const struct jv *hit = NULL;
        TRY(jiter_next(m, &z->it, &v, has));
        if (!*has) {
            return ERR_OK;
        }
        TRY(key_of(m, v, z->c.arg[1], jargs_true(&z->c, 0, false), &key));
        TRY(jdict_get(m, z->seen, key, &hit));
        if (hit == NULL) {
            *out = v;
            return jdict_set(m, z->seen, key, jv_none());
        }
    }
}

static enum err f_unique(struct jcall *c, struct jv *out)
{
    struct lazy *z = NULL;
    TRY(new_lazy(c, next_unique, &z, out));
    z->seen = jdict_new(c->m);
    return z->seen == NULL ? c->m->err : ERR_OK;
}

/* Elements of a list one after the other. */
static enum err next_of_list(struct jmem *m, struct jgen *g, struct jv *out, bool *has)
{
    struct lazy *z = (struct lazy *)g;
    (void)m;
    *has = z->i < z->list->n;
    if (*has) {
        *out = z->list->item[z->i++];
    }
    return ERR_OK;
}

static enum err f_items(struct jcall *c, struct jv *out)
{
    static const struct jlist none = { 0 };
    struct lazy *z = NULL;
    if (c->self.type != JV_DICT && c->self.type != JV_UNDEFINED) {
        return JMEM_FAIL(c->m, ERR_FAILED, "items wants a dictionary, not '%s'",
                         jv_type_name(c->self));
    }
    TRY(new_lazy(c, next_of_list, &z, out));
    z->list = &none;
    if (c->self.type == JV_DICT) {
        struct jlist *l = NULL;
        const struct jv view = { .type = JV_VIEW, .sub = JV_ITEMS, .u.dict = c->self.u.dict };
        TRY(jv_collect(c->m, view, &l));
        z->list = l;
    }
    return ERR_OK;
}

static enum err f_reverse(struct jcall *c, struct jv *out)
{
    if (c->self.type == JV_STR) {
        const struct jv part[3] = { jv_none(), jv_none(), jv_int(-1) };
        return jget_slice(c->m, c->self, part, out);
    }
    struct lazy *z = NULL;
    struct jlist *l = NULL;
    TRY(jv_collect(c->m, c->self, &l));
    for (size_t i = 0; i < l->n / 2; i++) {
        const struct jv v = l->item[i];
        l->item[i] = l->item[l->n - 1 - i];
        l->item[l->n - 1 - i] = v;
    }
    if (c->self.type == JV_ITER) {
        *out = jv_of_list(l);
        return ERR_OK;
    }
    TRY(new_lazy(c, next_of_list, &z, out));
    z->g.type_name = "list_reverseiterator";
    z->list = l;
    return ERR_OK;
}

static enum err next_batch(struct jmem *m, struct jgen *g, struct jv *out, bool *has)
{
    struct lazy *z = (struct lazy *)g;
    bool is_empty = false;
    bool more = true;
    TRY(start(z, false, &is_empty));
    struct jlist *l = jlist_new(m, 0);
    if (l == NULL) {
        return m->err;
    }
    while (more && (int64_t)l->n < z->n) {
        struct jv v;
        TRY(jiter_next(m, &z->it, &v, &more));
        if (more) {
            TRY(jlist_add(m, l, v));
        }
    }
    *has = l->n > 0;
    while (*has && jargs_has(&z->c, 1) && (int64_t)l->n < z->n) {
        TRY(jlist_add(m, l, z->c.arg[1]));
    }
    if (*has) {
        *out = jv_of_list(l);
    }
    return ERR_OK;
}

static enum err f_batch(struct jcall *c, struct jv *out)
{
    struct lazy *z = NULL;
    TRY(new_lazy(c, next_batch, &z, out));
    TRY(jargs_int(c, 0, 1, &z->n));
    return z->n > 0 ? ERR_OK : JMEM_FAIL(c->m, ERR_FAILED, "batch wants a size above zero");
}

static enum err next_slice(struct jmem *m, struct jgen *g, struct jv *out, bool *has)
{
    struct lazy *z = (struct lazy *)g;
    if (!z->is_started) {
        struct jlist *all = NULL;
        TRY(jv_collect(m, z->c.self, &all));
        z->list = all;
        z->is_started = true;
    }
    *has = (int64_t)z->i < z->n;
    if (!*has) {
        return ERR_OK;
    }
    const size_t each = z->list->n / (size_t)z->n;
    const size_t extra = z->list->n % (size_t)z->n;
    const size_t from = z->i * each + (z->i < extra ? z->i : extra);
    struct jlist *l = jlist_new(m, each + 1);
    if (l == NULL) {
        return m->err;
    }
    l->n = each + (z->i < extra ? 1 : 0);
    if (l->n > 0) {
        memcpy(l->item, z->list->item + from, l->n * sizeof(*l->item));
    }
    if (jargs_has(&z->c, 1) && z->i >= extra) {
        TRY(jlist_add(m, l, z->c.arg[1]));
    }
    z->i++;
    *out = jv_of_list(l);
    return ERR_OK;
}

static enum err f_slice(struct jcall *c, struct jv *out)
{
    struct lazy *z = NULL;
    TRY(new_lazy(c, next_slice, &z, out));
    TRY(jargs_int(c, 0, 1, &z->n));
    return z->n != 0 ? ERR_OK : JMEM_FAIL(c->m, ERR_FAILED, "division by zero");
}

/* --- from many to one ------------------------------------------------------------------------- */

static enum err f_length(struct jcall *c, struct jv *out)
{
    size_t n = 0;
    TRY(jv_len(c->m, c->self, &n));
    *out = jv_int((int64_t)n);
    return ERR_OK;
}

static enum err f_first(struct jcall *c, struct jv *out)
{
    struct jiter it;
    bool has = false;
    TRY(jiter_init(c->m, &it, c->self));
    TRY(jiter_next(c->m, &it, out, &has));
    if (!has) {
        *out = jv_undefined(NULL, JV_MISSING);
    }
    return ERR_OK;
}

static enum err f_last(struct jcall *c, struct jv *out)
{
    size_t n = 0;
    TRY(jv_len(c->m, c->self, &n));
    if (n == 0) {
        *out = jv_undefined(NULL, JV_MISSING);
        return ERR_OK;
    }
    if (c->self.type == JV_STR) {
        return jget_item(c->m, c->self, jv_int(-1), out);
    }
    return jv_at(c->m, c->self, n - 1, out);
}

static enum err f_list(struct jcall *c, struct jv *out)
{
    struct jlist *l = NULL;
    TRY(jv_collect(c->m, c->self, &l));
    *out = jv_of_list(l);
    return ERR_OK;
}

static enum err f_join(struct jcall *c, struct jv *out)
{
    const struct jstr *between = NULL;
    struct jlist *l = NULL;
    if (c->arg[0].type == JV_MISSING) {
        between = jstr_over(c->m, VIEW(""), true);
    } else {
        between = jrepr_str(c->m, c->arg[0]);
        between = between == NULL ? NULL : jstr_as(c->m, between, false);
    }
    if (between == NULL) {
        return c->m->err;
    }
    if (!jargs_has(c, 1)) {
        return jmethod_join(c->m, between, c->self, true, out);
    }
    TRY(jv_collect(c->m, c->self, &l));
    for (size_t i = 0; i < l->n; i++) {
        TRY(jget_path(c->m, l->item[i], c->arg[1], (struct jv){ 0 }, &l->item[i]));
    }
    return jmethod_join(c->m, between, jv_of_list(l), true, out);
}

static enum err f_sum(struct jcall *c, struct jv *out)
{
    struct jiter it;
    bool has = true;
    struct jv sum = c->arg[1].type == JV_MISSING ? jv_int(0) : c->arg[1];
    if (sum.type == JV_STR) {
        return JMEM_FAIL(c->m, ERR_FAILED, "sum does not add strings, use join");
    }
    TRY(jiter_init(c->m, &it, c->self));
    while (has) {
        struct jv v;
        TRY(jiter_next(c->m, &it, &v, &has));
        if (has) {
            TRY(jget_path(c->m, v, c->arg[0], (struct jv){ 0 }, &v));
            TRY(jop_binary(c->m, JLEX_ADD, sum, v, &sum));
        }
    }
    *out = sum;
    return ERR_OK;
}

static enum err f_extreme(struct jcall *c, struct jv *out)
{
    struct jiter it;
    bool has = true;
    struct jv best = jv_undefined(NULL, JV_MISSING);
    struct jv best_key = { 0 };
    const enum jv_order op = strcmp(c->name, "min") == 0 ? JV_LT : JV_GT;
    TRY(jiter_init(c->m, &it, c->self));
    while (has) {
        struct jv v;
        struct jv key;
        bool is_better = true;
        TRY(jiter_next(c->m, &it, &v, &has));
        if (!has) {
            break;
        }
        TRY(key_of(c->m, v, c->arg[1], jargs_true(c, 0, false), &key));
        if (best_key.type != JV_MISSING) {
            TRY(jv_compare(c->m, key, best_key, op, &is_better));
        }
        best = is_better ? v : best;
        best_key = is_better ? key : best_key;
    }
    *out = best;
    return ERR_OK;
}

/* --- order ------------------------------------------------------------------------------------ */

static enum err f_sort(struct jcall *c, struct jv *out)
{
    struct jlist *l = NULL;
    TRY(jv_collect(c->m, c->self, &l));
    struct jv *key = jmem_take_array(c->m, l->n, sizeof(*key));
    if (key == NULL) {
        return c->m->err;
    }
    for (size_t i = 0; i < l->n; i++) {
        TRY(keys_of(c->m, l->item[i], c->arg[2], jargs_true(c, 1, false), &key[i]));
    }
    TRY(jv_sort(c->m, key, l->item, l->n, jargs_true(c, 0, false)));
    *out = jv_of_list(l);
    return ERR_OK;
}

static enum err f_dictsort(struct jcall *c, struct jv *out)
{
    const struct jstr *by = NULL;
    struct jlist *l = NULL;
    TRY(jargs_str(c, 1, &by));
    const bool by_value = by != NULL && jstr_is(by, "value");
    if (c->self.type == JV_UNDEFINED) {
        return jv_undefined_error(c->m, c->self);
    }
    if (c->self.type != JV_DICT || (by != NULL && !by_value && !jstr_is(by, "key"))) {
        return JMEM_FAIL(c->m, ERR_FAILED, "dictsort wants a dictionary, and 'key' or 'value'");
    }
    TRY(jv_collect(c->m, (struct jv){ .type = JV_VIEW, .sub = JV_ITEMS, .u.dict = c->self.u.dict },
                   &l));
    struct jv *key = jmem_take_array(c->m, l->n, sizeof(*key));
    if (key == NULL) {
        return c->m->err;
    }
    for (size_t i = 0; i < l->n; i++) {
        key[i] = l->item[i].u.list->item[by_value ? 1 : 0];
        TRY(fold(c->m, jargs_true(c, 0, false), &key[i]));
    }
    TRY(jv_sort(c->m, key, l->item, l->n, jargs_true(c, 2, false)));
    l->is_data = c->self.u.dict->is_data;
    *out = jv_of_list(l);
    return ERR_OK;
}

/* One group as the pair (grouper, list). */
static enum err add_group(struct jmem *m, struct jlist *groups, struct jv key,
                          const struct jlist *of, const size_t span[2])
{
    struct jlist *pair = jlist_new(m, 2);
    struct jlist *members = jlist_new(m, span[1] - span[0]);
    if (pair == NULL || members == NULL) {
        return m->err;
    }
    members->n = span[1] - span[0];
    memcpy(members->item, of->item + span[0], members->n * sizeof(*members->item));
    pair->item[0] = key;
    pair->item[1] = jv_of_list(members);
    pair->n = 2;
    struct jv group = jv_of_tuple(pair);
    group.sub = 1;
    return jlist_add(m, groups, group);
}

static enum err f_groupby(struct jcall *c, struct jv *out)
{
    struct jlist *l = NULL;
    struct jlist *groups = jlist_new(c->m, 0);
    const bool is_case_kept = jargs_true(c, 2, false);
    const struct jv otherwise = jargs_has(c, 1) ? c->arg[1] : (struct jv){ 0 };
    TRY(jv_collect(c->m, c->self, &l));
    struct jv *key = jmem_take_array(c->m, l->n, sizeof(*key));
    if (key == NULL || groups == NULL) {
        return c->m->err;
    }
    for (size_t i = 0; i < l->n; i++) {
        TRY(jget_path(c->m, l->item[i], c->arg[0], otherwise, &key[i]));
        TRY(fold(c->m, is_case_kept, &key[i]));
    }
    TRY(jv_sort(c->m, key, l->item, l->n, false));
    for (size_t from = 0; from < l->n;) {
        size_t to = from + 1;
        for (bool same = true; to < l->n && same; to += same) {
            TRY(jv_eq(c->m, key[from], key[to], &same));
        }
        struct jv shown = key[from];
        if (!is_case_kept) {
            TRY(jget_path(c->m, l->item[from], c->arg[0], otherwise, &shown));
        }
        TRY(add_group(c->m, groups, shown, l, (const size_t[2]){ from, to }));
        from = to;
    }
    *out = jv_of_list(groups);
    return ERR_OK;
}

static enum err f_attr(struct jcall *c, struct jv *out)
{
    const struct jstr *name = NULL;
    TRY(jargs_str(c, 0, &name));
    if (name == NULL) {
        return JMEM_FAIL(c->m, ERR_FAILED, "attr wants a name");
    }
    if (c->self.type != JV_UNDEFINED && !jget_has_attr(c->self, name)) {
        *out = jv_undefined(name, (enum jv_type)c->self.type);
        return ERR_OK;
    }
    return jget_attr(c->m, c->self, name, out);
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct jfilter filters[] = {
    { "attr", "name", 1, f_attr },
    { "batch", "linecount fill_with", 1, f_batch },
    { "count", "", 0, f_length },
    { "dictsort", "case_sensitive by reverse", 0, f_dictsort },
    { "first", "", 0, f_first },
    { "groupby", "attribute default case_sensitive", 1, f_groupby },
    { "items", "", 0, f_items },
    { "join", "d attribute", 0, f_join },
    { "last", "", 0, f_last },
    { "length", "", 0, f_length },
    { "list", "", 0, f_list },
    { "map", "*", 0, f_map },
    { "max", "case_sensitive attribute", 0, f_extreme },
    { "min", "case_sensitive attribute", 0, f_extreme },
    { "reject", "*", 0, f_select },
    { "rejectattr", "*", 0, f_select },
    { "reverse", "", 0, f_reverse },
    { "select", "*", 0, f_select },
    { "selectattr", "*", 0, f_select },
    { "slice", "slices fill_with", 1, f_slice },
    { "sort", "reverse case_sensitive attribute", 0, f_sort },
    { "sum", "attribute start", 0, f_sum },
    { "unique", "case_sensitive attribute", 0, f_unique },
};

static const struct jfilter *find(const struct jstr *name)
{
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        if (jstr_is(name, filters[i].name)) {
            return &filters[i];
        }
    }
    return jftext_find(name);
}

bool jfilter_has(const struct jstr *name)
{
    return find(name) != NULL;
}

enum err jfilter_call(struct jmem *m, const struct jstr *name, struct jv v,
                      const struct jargs *args, struct jv *out)
{
    const struct jfilter *f = find(name);
    const int n = (int)(name->n < 60 ? name->n : 60);
    if (f == NULL || f->fn == NULL) {
        return JMEM_FAIL(m, ERR_UNSUPPORTED,
                         f == NULL ? "there is no filter named '%.*s'"
                                   : "the filter '%.*s' is not supported",
                         n, name->p);
    }
    struct jcall c = { .m = m, .name = f->name, .self = v, .args = *args };
    TRY(jargs_bind(&c, f->spec, f->n_required));
    TRY(jmem_enter(m));
    const enum err e = f->fn(&c, out);
    jmem_leave(m);
    return e;
}
