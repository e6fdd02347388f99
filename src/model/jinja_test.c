/* jinja_test - what may stand behind `is`
 *
 * All tests of Jinja2 3.1 but `filter` and `test`, which jinja_eval.c answers because it knows both
 * tables. The names of operators (==, lt, greaterthan ...) are tests, too; the filters select and
 * reject take them by name.
 *
 * Some answers surprise: true is a number but no integer, a text and a dictionary are sequences,
 * the undefined value is a sequence and iterable (and empty), and a mapping is only a dictionary.
 *
 * Source: the list of builtin tests in the template designer documentation of Jinja2.
 * Next: jinja_ftext.c. */
#include "model/jinja_test.h"

#include "model/jinja_case.h"
#include "model/jinja_lex.h"
#include "model/jinja_op.h"
#include "model/jinja_repr.h"

#include <string.h>

static bool of_type(struct jv v, const char *name)
{
    static const struct {
        const char *name;
        enum jv_type type;
    } types[] = { { "undefined", JV_UNDEFINED }, { "none", JV_NONE },   { "boolean", JV_BOOL },
                  { "integer", JV_INT },         { "float", JV_FLOAT }, { "string", JV_STR },
                  { "mapping", JV_DICT } };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].name, name) == 0) {
            return v.type == types[i].type;
        }
    }
    return false;
}

static enum err t_type(struct jcall *c, bool *out)
{
    *out = of_type(c->self, c->name);
    return ERR_OK;
}

static enum err t_defined(struct jcall *c, bool *out)
{
    *out = c->self.type != JV_UNDEFINED;
    return ERR_OK;
}

static enum err t_truth(struct jcall *c, bool *out)
{
    *out = c->self.type == JV_BOOL && c->self.u.i == (c->name[0] == 't');
    return ERR_OK;
}

static enum err t_number(struct jcall *c, bool *out)
{
    *out = jv_is_number(c->self);
    return ERR_OK;
}

static enum err t_sequence(struct jcall *c, bool *out)
{
    const enum jv_type t = (enum jv_type)c->self.type;
    *out = t == JV_UNDEFINED || t == JV_STR || t == JV_LIST || t == JV_TUPLE || t == JV_DICT ||
           t == JV_RANGE;
    return ERR_OK;
}

static enum err t_iterable(struct jcall *c, bool *out)
{
    *out = jiter_can(c->self) || c->self.type == JV_LOOP;
    return ERR_OK;
}

static enum err t_callable(struct jcall *c, bool *out)
{
    const enum jv_type t = (enum jv_type)c->self.type;
    *out = t == JV_UNDEFINED || t == JV_METHOD || t == JV_FUNC || t == JV_MACRO || t == JV_LOOP ||
           t == JV_JOINER;
    return ERR_OK;
}

static enum err t_escaped(struct jcall *c, bool *out)
{
    *out = c->self.type == JV_STR && c->self.u.s->is_markup;
    return ERR_OK;
}

static enum err t_case(struct jcall *c, bool *out)
{
    const struct jstr *s = jrepr_str(c->m, c->self);
    if (s == NULL) {
        return c->m->err;
    }
    TRY(jmem_walk(c->m, s->n * 4));
    *out = jcase_is(s, view_of(c->name));
    return ERR_OK;
}

static enum err t_divisible(struct jcall *c, bool *out)
{
    struct jv by = c->arg[0];
    if (by.type == JV_MISSING) {
        by = jv_int(2);
    }
    struct jv rest;
    TRY(jop_binary(c->m, JLEX_MOD, c->self, by, &rest));
    const struct jv wanted = jv_int(c->name[0] == 'o' ? 1 : 0);
    return jv_eq(c->m, rest, wanted, out);
}

static enum err t_sameas(struct jcall *c, bool *out)
{
    *out = jv_same(c->self, c->arg[0]);
    return ERR_OK;
}

static enum err t_in(struct jcall *c, bool *out)
{
    return jv_contains(c->m, c->arg[0], c->self, out);
}

static enum err t_eq(struct jcall *c, bool *out)
{
    bool same = false;
    TRY(jv_eq(c->m, c->self, c->arg[0], &same));
    *out = same == (c->name[0] != '!' && strcmp(c->name, "ne") != 0);
    return ERR_OK;
}

static enum err t_order(struct jcall *c, bool *out)
{
    const bool is_less = c->name[0] == '<' || c->name[0] == 'l';
    const bool with_equal =
        strchr(c->name, '=') != NULL || strcmp(c->name, "le") == 0 || strcmp(c->name, "ge") == 0;
    const enum jv_order op = is_less ? (with_equal ? JV_LE : JV_LT) : (with_equal ? JV_GE : JV_GT);
    return jv_compare(c->m, c->self, c->arg[0], op, out);
}

static const struct test {
    const char *name;
    const char *spec;
    enum err (*fn)(struct jcall *c, bool *out);
} tests[] = {
    { "defined", "", t_defined },
    { "undefined", "", t_type },
    { "none", "", t_type },
    { "boolean", "", t_type },
    { "integer", "", t_type },
    { "float", "", t_type },
    { "string", "", t_type },
    { "mapping", "", t_type },
    { "true", "", t_truth },
    { "false", "", t_truth },
    { "number", "", t_number },
    { "sequence", "", t_sequence },
    { "iterable", "", t_iterable },
    { "callable", "", t_callable },
    { "escaped", "", t_escaped },
    { "lower", "", t_case },
    { "upper", "", t_case },
    { "odd", "", t_divisible },
    { "even", "", t_divisible },
    { "divisibleby", "num", t_divisible },
    { "sameas", "other", t_sameas },
    { "in", "seq", t_in },
    { "eq", "b", t_eq },
    { "equalto", "b", t_eq },
    { "==", "b", t_eq },
    { "ne", "b", t_eq },
    { "!=", "b", t_eq },
    { "lt", "b", t_order },
    { "lessthan", "b", t_order },
    { "<", "b", t_order },
    { "le", "b", t_order },
    { "<=", "b", t_order },
    { "gt", "b", t_order },
    { "greaterthan", "b", t_order },
    { ">", "b", t_order },
    { "ge", "b", t_order },
    { ">=", "b", t_order },
};

static const struct test *find(const struct jstr *name)
{
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (jstr_is(name, tests[i].name)) {
            return &tests[i];
        }
    }
    return NULL;
}

bool jtest_has(const struct jstr *name)
{
    return find(name) != NULL || jstr_is(name, "filter") || jstr_is(name, "test");
}

enum err jtest_call(struct jmem *m, const struct jstr *name, struct jv v, const struct jargs *args,
                    bool *out)
{
    const struct test *t = find(name);
    if (t == NULL) {
        return JMEM_FAIL(m, ERR_UNSUPPORTED, "there is no test named '%.*s'",
                         (int)(name->n < 60 ? name->n : 60), name->p);
    }
    struct jcall c = { .m = m, .name = t->name, .self = v, .args = *args };
    TRY(jargs_bind(&c, t->spec, t->spec[0] == 0 ? 0 : 1));
    return t->fn(&c, out);
}
