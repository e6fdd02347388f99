/* jinja_global - the functions every template has
 *
 * range, dict, namespace, cycler and joiner come from Jinja2; raise_exception and strftime_now are
 * what transformers adds for chat templates. lipsum (placeholder text) is refused by name.
 *
 * A namespace is the one thing a template can change: {% set ns.x = 1 %} works from inside of
 * loops, whose own variables are gone after each round.
 *
 * The clock is an input of the run (m->now_s, already local civil time), so a rendering can be
 * repeated. strftime goes through the C library in the C locale, as Python does; the codes for time
 * zones and microseconds, which the C library cannot know, are replaced before.
 *
 * Next: jinja_eval.c. */
#include "model/jinja_global.h"

#include "model/jinja_repr.h"

#include <string.h>
#include <time.h>

#define TIME_FORMAT_MAX 500 /* bytes */

static enum err g_range(struct jcall *c, struct jv *out)
{
    int64_t v[3] = { 0, 0, 1 };
    const size_t n_arg = c->args.pos->n;
    if (n_arg < 1) {
        return JMEM_FAIL(c->m, ERR_FAILED, "range wants 1 to 3 arguments");
    }
    TRY(jargs_int(c, 0, 0, &v[n_arg == 1 ? 1 : 0]));
    TRY(jargs_int(c, 1, v[1], &v[1]));
    TRY(jargs_int(c, 2, 1, &v[2]));
    if (v[2] == 0) {
        return JMEM_FAIL(c->m, ERR_FAILED, "range: the step must not be zero");
    }
    const bool is_up = v[2] > 0;
    const uint64_t gap = is_up ? (uint64_t)v[1] - (uint64_t)v[0] : (uint64_t)v[0] - (uint64_t)v[1];
    const uint64_t step = is_up ? (uint64_t)v[2] : -(uint64_t)v[2];
    const bool is_empty = is_up ? v[0] >= v[1] : v[0] <= v[1];
    const uint64_t n = is_empty ? 0 : (gap - 1) / step + 1;
    if (n > JV_RANGE_MAX) {
        return JMEM_FAIL(c->m, ERR_LIMIT, "range of %llu elements, %d are allowed",
                         (unsigned long long)n, JV_RANGE_MAX);
    }
    struct jv_range *r = jmem_take(c->m, sizeof(*r));
    if (r == NULL) {
        return c->m->err;
    }
    *r = (struct jv_range){ .start = v[0], .stop = v[1], .step = v[2], .n = (size_t)n };
    *out = (struct jv){ .type = JV_RANGE, .u.range = r };
    return ERR_OK;
}

static enum err add_pairs(struct jmem *m, struct jdict *d, struct jv from)
{
    const bool is_dict = from.type == JV_DICT;
    struct jiter it;
    bool has = true;
    if (is_dict) {
        from = (struct jv){ .type = JV_VIEW, .sub = JV_ITEMS, .u.dict = from.u.dict };
    }
    TRY(jiter_init(m, &it, from));
    while (has) {
        struct jv pair;
        struct jlist *two = NULL;
        TRY(jiter_next(m, &it, &pair, &has));
        if (!has) {
            break;
        }
        TRY(jv_collect(m, pair, &two));
        if (two->n != 2) {
            return JMEM_FAIL(m, ERR_FAILED, "dict wants pairs, found %zu elements", two->n);
        }
        TRY(jdict_set(m, d, two->item[0], two->item[1]));
    }
    return ERR_OK;
}

/* dict and namespace. */
static enum err g_dict(struct jcall *c, struct jv *out)
{
    struct jdict *d = jdict_new(c->m);
    if (d == NULL || c->args.pos->n > 1) {
        return d == NULL ? c->m->err
                         : JMEM_FAIL(c->m, ERR_FAILED, "%s wants at most one argument without name",
                                     c->name);
    }
    if (c->args.pos->n == 1) {
        TRY(add_pairs(c->m, d, c->args.pos->item[0]));
    }
    for (size_t i = 0; i < c->args.named->n; i++) {
        TRY(jdict_set(c->m, d, c->args.named->pair[i].key, c->args.named->pair[i].value));
    }
    *out = jv_of_dict(d);
    out->type = c->name[0] == 'n' ? JV_NAMESPACE : JV_DICT;
    return ERR_OK;
}

static enum err g_cycler(struct jcall *c, struct jv *out)
{
    struct jv_cycler *y = jmem_take(c->m, sizeof(*y));
    if (y == NULL || c->args.pos->n == 0) {
        return y == NULL ? c->m->err
                         : JMEM_FAIL(c->m, ERR_FAILED, "cycler wants at least one value");
    }
    y->items = c->args.pos;
    *out = (struct jv){ .type = JV_CYCLER, .u.cycler = y };
    return ERR_OK;
}

static enum err g_joiner(struct jcall *c, struct jv *out)
{
    struct jv_joiner *j = jmem_take(c->m, sizeof(*j));
    if (j == NULL) {
        return c->m->err;
    }
    if (c->arg[0].type != JV_MISSING) {
        j->separator = c->arg[0];
    } else {
        TRY(jv_put_lit(c->m, ", ", &j->separator));
    }
    *out = (struct jv){ .type = JV_JOINER, .u.joiner = j };
    return ERR_OK;
}

static enum err g_raise(struct jcall *c, struct jv *out)
{
    (void)out;
    const struct jstr *s = jrepr_str(c->m, c->arg[0]);
    if (s == NULL) {
        return c->m->err;
    }
    return JMEM_FAIL(c->m, ERR_USAGE, "%.*s", (int)(s->n < ERR_TEXT_MAX ? s->n : ERR_TEXT_MAX),
                     s->p);
}

/* The format without the codes for microseconds (zero here) and time zones (none). */
static bool plain_format(const struct jstr *s, char out[TIME_FORMAT_MAX + 8])
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (n + 6 > TIME_FORMAT_MAX || s->p[i] == 0) {
            return false;
        }
        const char next = s->p[i] == '%' && i + 1 < s->n ? s->p[i + 1] : 0;
        if (next == 'f') {
            memcpy(out + n, "000000", 6);
            n += 6;
            i++;
        } else if (next == 'z' || next == 'Z') {
            i++;
        } else {
            out[n++] = s->p[i];
            if (next != 0) {
                out[n++] = next;
                i++;
            }
        }
    }
    out[n++] = '.'; /* tells an empty result from one that does not fit */
    out[n] = 0;
    return true;
}

static enum err g_strftime(struct jcall *c, struct jv *out)
{
    char fmt[TIME_FORMAT_MAX + 8];
    const struct jstr *s = NULL;
    struct tm tm;
    TRY(jargs_str(c, 0, &s));
    if (s == NULL || !plain_format(s, fmt)) {
        return JMEM_FAIL(c->m, ERR_FAILED, "strftime_now wants a format of at most %d bytes",
                         TIME_FORMAT_MAX - 6);
    }
    const time_t now = (time_t)c->m->now_s;
    const size_t cap = TIME_FORMAT_MAX * 32;
    char *text = jmem_take(c->m, cap);
    if (text == NULL || gmtime_r(&now, &tm) == NULL) {
        return text == NULL ? c->m->err : JMEM_FAIL(c->m, ERR_FAILED, "strftime_now: no such time");
    }
    const size_t n = strftime(text, cap, fmt, &tm);
    if (n == 0) {
        return JMEM_FAIL(c->m, ERR_LIMIT, "strftime_now: more than %zu bytes", cap);
    }
    struct view v = { text, n - 1 };
    if (!utf8_valid(v)) {
        v = VIEW("");
    }
    return jv_put_str(c->m, jstr_over(c->m, v, s->n == 0 || jstr_trust_at(s, 0)), out);
}

static const struct {
    const char *name;
    const char *spec;
    int n_required;
    enum err (*fn)(struct jcall *c, struct jv *out);
} globals[] = {
    { "range", "start stop step", 1, g_range },
    { "dict", "*", 0, g_dict },
    { "namespace", "*", 0, g_dict },
    { "cycler", "*", 0, g_cycler },
    { "joiner", "sep", 0, g_joiner },
    { "raise_exception", "message", 1, g_raise },
    { "strftime_now", "format", 1, g_strftime },
    { "lipsum", NULL, 0, NULL },
};

enum err jglobal_define(struct jmem *m, struct jdict *vars)
{
    for (size_t i = 0; i < sizeof(globals) / sizeof(globals[0]); i++) {
        struct jv name;
        TRY(jv_put_lit(m, globals[i].name, &name));
        TRY(jdict_set(m, vars, name, (struct jv){ .type = JV_FUNC, .sub = (uint8_t)i }));
    }
    return ERR_OK;
}

enum err jglobal_call(struct jmem *m, struct jv func, const struct jargs *args, struct jv *out)
{
    if (globals[func.sub].fn == NULL) {
        return JMEM_FAIL(m, ERR_UNSUPPORTED, "the function '%s' is not supported",
                         globals[func.sub].name);
    }
    struct jcall c = { .m = m, .name = globals[func.sub].name, .args = *args };
    TRY(jargs_bind(&c, globals[func.sub].spec, globals[func.sub].n_required));
    return globals[func.sub].fn(&c, out);
}
