/* jinja_args - arguments of calls and their binding to parameters
 *
 * Every built-in of the template language says in one string which parameters it has, in Python's
 * order and under Python's names, so that x|indent(2, true) and x|indent(width=2, first=true) mean
 * the same. Too many arguments, unknown names and double ones are errors here, once, and not in a
 * hundred functions.
 *
 * Rejected: a description of types in the same string. Most built-ins take anything and convert it,
 * and the few that do not say so better themselves.
 *
 * The macros of a template bind their arguments in jinja_exec.c, where defaults can be expressions.
 * Next: jinja_get.c. */
#include "model/jinja_args.h"

#include <string.h>

/* Word i of a list of words, empty when there are fewer. */
static struct view word(const char *spec, int i)
{
    const char *p = spec;
    for (; i > 0; i--) {
        p = strchr(p, ' ');
        if (p == NULL) {
            return VIEW("");
        }
        p++;
    }
    return (struct view){ p, strcspn(p, " ") };
}

static int count_words(const char *spec)
{
    int n = spec[0] != 0;
    for (const char *p = spec; *p != 0; p++) {
        n += *p == ' ';
    }
    return n;
}

enum err jargs_bind(struct jcall *c, const char *spec, int n_required)
{
    if (spec[0] == '*') {
        return ERR_OK;
    }
    const int n = count_words(spec);
    if (c->args.pos->n > (size_t)n) {
        return JMEM_FAIL(c->m, ERR_FAILED, "%s takes at most %d arguments, %zu are given", c->name,
                         n, c->args.pos->n);
    }
    for (size_t i = 0; i < c->args.pos->n; i++) {
        c->arg[i] = c->args.pos->item[i];
    }
    for (size_t k = 0; k < c->args.named->n; k++) {
        const struct view key = jstr_view(c->args.named->pair[k].key.u.s);
        int i = 0;
        while (i < n && !view_eq(word(spec, i), key)) {
            i++;
        }
        if (i == n || c->arg[i].type != JV_MISSING) {
            return JMEM_FAIL(c->m, ERR_FAILED, "%s: the argument '%.*s' is %s", c->name,
                             (int)(key.n < 60 ? key.n : 60), key.p,
                             i == n ? "not known" : "given twice");
        }
        c->arg[i] = c->args.named->pair[k].value;
    }
    for (int i = 0; i < n_required; i++) {
        if (c->arg[i].type == JV_MISSING) {
            const struct view v = word(spec, i);
            return JMEM_FAIL(c->m, ERR_FAILED, "%s: the argument '%.*s' is missing", c->name,
                             (int)v.n, v.p);
        }
    }
    return ERR_OK;
}

static enum err wrong(const struct jcall *c, int i, const char *wanted)
{
    if (c->arg[i].type == JV_UNDEFINED) {
        return jv_undefined_error(c->m, c->arg[i]);
    }
    return JMEM_FAIL(c->m, ERR_FAILED, "%s: argument %d must be %s, not '%s'", c->name, i + 1,
                     wanted, jv_type_name(c->arg[i]));
}

enum err jargs_int(const struct jcall *c, int i, int64_t otherwise, int64_t *out)
{
    if (!jargs_has(c, i)) {
        *out = otherwise;
        return ERR_OK;
    }
    if (!jv_is_int(c->arg[i])) {
        return wrong(c, i, "a whole number");
    }
    *out = c->arg[i].u.i;
    return ERR_OK;
}

enum err jargs_str(const struct jcall *c, int i, const struct jstr **out)
{
    if (!jargs_has(c, i)) {
        *out = NULL;
        return ERR_OK;
    }
    if (c->arg[i].type != JV_STR) {
        return wrong(c, i, "a string");
    }
    *out = c->arg[i].u.s;
    return ERR_OK;
}

bool jargs_true(const struct jcall *c, int i, bool otherwise)
{
    return c->arg[i].type == JV_MISSING ? otherwise : jv_truth(c->arg[i]);
}

bool jargs_has(const struct jcall *c, int i)
{
    return c->arg[i].type != JV_MISSING && c->arg[i].type != JV_NONE;
}
