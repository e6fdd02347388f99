/* jinja_get - a.b, a[b] and a[b:c:d]
 *
 * In Jinja2 a.b asks for the attribute b and then for the key 'b'; a['b'] asks in the other order.
 * So message.items is the method of the dictionary even if the message has a key of that name,
 * which is why the names of all of Python's methods stand here, also of those that are not
 * implemented: calling one of those is an error that names it, and not a silent look at a key.
 *
 * Methods that would change a list or dictionary are hidden, as in the sandbox that transformers
 * uses: reaching for them gives an undefined value, calling that is an error.
 *
 * What is not there is undefined, also positions outside of a list. Only slices of things that have
 * no slices are errors.
 *
 * Names that begin with two underscores find nothing but keys: there are no Python objects behind
 * the values here, so there is nothing to reach (JG-1).
 *
 * Next: jinja_format.c, jinja_method.c. */
#include "model/jinja_get.h"

#include <string.h>

/* Names with a blank on each side. */
static const char *const attrs[JV_TYPES] = {
    [JV_STR] =
        " capitalize casefold center count encode endswith expandtabs find format format_map"
        " index isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric"
        " isprintable isspace istitle isupper join ljust lower lstrip maketrans partition"
        " removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split"
        " splitlines startswith strip swapcase title translate upper zfill ",
    [JV_LIST] = " append clear copy count extend index insert pop remove reverse sort ",
    [JV_TUPLE] = " count index ",
    [JV_DICT] = " clear copy fromkeys get items keys pop popitem setdefault update values ",
    [JV_RANGE] = " count index start step stop ",
    [JV_BOOL] =
        " as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag numerator"
        " real to_bytes ",
    [JV_INT] =
        " as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag numerator"
        " real to_bytes ",
    [JV_FLOAT] = " as_integer_ratio conjugate fromhex hex imag is_integer real ",
    [JV_CYCLER] = " current items next pos reset ",
    [JV_JOINER] = " sep used ",
};

static const char *const changing[JV_TYPES] = {
    [JV_LIST] = " append clear extend insert pop remove reverse sort ",
    [JV_DICT] = " clear pop popitem setdefault update ",
};

static bool is_listed(const char *words, const struct jstr *name)
{
    char key[32];
    if (words == NULL || name->n + 3 > sizeof(key)) {
        return false;
    }
    key[0] = ' ';
    memcpy(key + 1, name->p, name->n);
    key[name->n + 1] = ' ';
    key[name->n + 2] = 0;
    return memchr(name->p, ' ', name->n) == NULL && strstr(words, key) != NULL;
}

bool jget_has_attr(struct jv v, const struct jstr *name)
{
    if (v.type == JV_NAMESPACE) {
        return jdict_find(v.u.dict, jstr_view(name)) != NULL;
    }
    if (v.type == JV_TUPLE && v.sub == 1 && (jstr_is(name, "grouper") || jstr_is(name, "list"))) {
        return true;
    }
    return is_listed(attrs[v.type], name);
}

/* Attributes that are values and not methods; JV_MISSING for the others. */
static struct jv plain_attr(struct jv v, const struct jstr *name)
{
    if (v.type == JV_TUPLE) {
        return jstr_is(name, "grouper") ? v.u.list->item[0]
               : jstr_is(name, "list")  ? v.u.list->item[1]
                                        : (struct jv){ 0 };
    }
    if (v.type == JV_RANGE) {
        const struct jv_range *r = v.u.range;
        return jstr_is(name, "start")  ? jv_int(r->start)
               : jstr_is(name, "stop") ? jv_int(r->stop)
               : jstr_is(name, "step") ? jv_int(r->step)
                                       : (struct jv){ 0 };
    }
    if (v.type == JV_CYCLER) {
        return jstr_is(name, "current") ? v.u.cycler->items->item[v.u.cycler->at]
               : jstr_is(name, "items") ? jv_of_tuple(v.u.cycler->items)
               : jstr_is(name, "pos")   ? jv_int((int64_t)v.u.cycler->at)
                                        : (struct jv){ 0 };
    }
    if (v.type == JV_JOINER) {
        return jstr_is(name, "sep") ? v.u.joiner->separator : jv_bool(v.u.joiner->is_used);
    }
    if (jv_is_number(v)) {
        const bool is_self = jstr_is(name, "real") || jstr_is(name, "numerator");
        v.type = v.type == JV_BOOL ? JV_INT : v.type;
        return is_self                        ? v
               : jstr_is(name, "denominator") ? jv_int(1)
               : jstr_is(name, "imag")        ? (v.type == JV_FLOAT ? jv_float(0) : jv_int(0))
                                              : (struct jv){ 0 };
    }
    return (struct jv){ 0 };
}

/* The attribute of a value that has it. */
static enum err take_attr(struct jmem *m, struct jv v, const struct jstr *name, struct jv *out)
{
    if (v.type == JV_NAMESPACE) {
        const struct jv *hit = NULL;
        TRY(jdict_get(m, v.u.dict, jv_of_str(name), &hit));
        *out = hit != NULL ? *hit : jv_undefined(name, JV_NAMESPACE);
        return ERR_OK;
    }
    if (is_listed(changing[v.type], name)) {
        *out = jv_undefined(name, JV_TYPES);
        return ERR_OK;
    }
    const struct jv plain = plain_attr(v, name);
    if (plain.type != JV_MISSING) {
        *out = plain;
        return ERR_OK;
    }
    struct jv_method *method = jmem_take(m, sizeof(*method));
    if (method == NULL) {
        return m->err;
    }
    *method = (struct jv_method){ .self = v, .name = name };
    *out = (struct jv){ .type = JV_METHOD, .u.method = method };
    return ERR_OK;
}

enum err jget_attr(struct jmem *m, struct jv v, const struct jstr *name, struct jv *out)
{
    if (v.type == JV_UNDEFINED) {
        return jv_undefined_error(m, v);
    }
    if (jget_has_attr(v, name)) {
        return take_attr(m, v, name, out);
    }
    const struct jv *hit = NULL;
    if (v.type == JV_DICT) {
        TRY(jdict_get(m, v.u.dict, jv_of_str(name), &hit));
    }
    *out = hit != NULL ? *hit : jv_undefined(name, (enum jv_type)v.type);
    return ERR_OK;
}

/* Element i (negative: from the end) of something with a length; *has = false outside. */
static enum err at_position(struct jmem *m, struct jv v, int64_t i, bool *has, struct jv *out)
{
    size_t n = 0;
    TRY(jv_len(m, v, &n));
    i = i < 0 ? i + (int64_t)n : i;
    *has = i >= 0 && i < (int64_t)n;
    if (!*has) {
        return ERR_OK;
    }
    if (v.type != JV_STR) {
        return jv_at(m, v, (size_t)i, out);
    }
    TRY(jmem_walk(m, v.u.s->n == v.u.s->n_char ? 0 : v.u.s->n));
    const size_t at = jstr_byte_of(v.u.s, (size_t)i);
    size_t n_bytes = 0;
    (void)jstr_read(v.u.s, at, &n_bytes);
    return jv_put_str(m, jstr_part(m, v.u.s, at, n_bytes), out);
}

enum err jget_item(struct jmem *m, struct jv v, struct jv key, struct jv *out)
{
    if (v.type == JV_UNDEFINED) {
        return jv_undefined_error(m, v);
    }
    const bool is_row =
        v.type == JV_STR || v.type == JV_LIST || v.type == JV_TUPLE || v.type == JV_RANGE;
    if (is_row && jv_is_int(key)) {
        bool has = false;
        TRY(at_position(m, v, key.u.i, &has, out));
        if (has) {
            return ERR_OK;
        }
    }
    const bool is_key = key.type != JV_LIST && key.type != JV_DICT && key.type != JV_VIEW;
    if (v.type == JV_DICT && is_key) {
        const struct jv *hit = NULL;
        TRY(jdict_get(m, v.u.dict, key, &hit));
        if (hit != NULL) {
            *out = *hit;
            return ERR_OK;
        }
    }
    if (key.type == JV_STR && jget_has_attr(v, key.u.s)) {
        return take_attr(m, v, key.u.s, out);
    }
    *out = jv_undefined(key.type == JV_STR ? key.u.s : NULL, (enum jv_type)v.type);
    return ERR_OK;
}

/* --- slices ----------------------------------------------------------------------------------- */

struct span {
    int64_t start;
    int64_t stop;
    int64_t step;
    size_t n;      /* elements taken */
    int64_t asked; /* the step before it was cut to the length */
};

static enum err slice_bound(struct jmem *m, struct jv v, int64_t otherwise, int64_t *out)
{
    if (v.type == JV_UNDEFINED || (v.type != JV_NONE && !jv_is_int(v))) {
        return JMEM_FAIL(m, ERR_FAILED, "slices want whole numbers or none, not '%s'",
                         jv_type_name(v));
    }
    *out = v.type == JV_NONE ? otherwise : v.u.i;
    return ERR_OK;
}

/* A bound brought into what the length allows. */
static int64_t clip(int64_t i, int64_t n, int64_t step)
{
    const int64_t low = step < 0 ? -1 : 0;
    const int64_t high = step < 0 ? n - 1 : n;
    if (i < 0) {
        i += n;
        return i < 0 ? low : i;
    }
    return i > high ? high : i;
}

static enum err make_span(struct jmem *m, const struct jv part[3], size_t n_all, struct span *s)
{
    const int64_t n = (int64_t)n_all;
    TRY(slice_bound(m, part[2], 1, &s->step));
    if (s->step == 0) {
        return JMEM_FAIL(m, ERR_FAILED, "slice step cannot be zero");
    }
    s->asked = s->step;
    s->step = s->step < -n - 1 ? -n - 1 : s->step > n + 1 ? n + 1 : s->step;
    TRY(slice_bound(m, part[0], s->step < 0 ? INT64_MAX : 0, &s->start));
    s->start = clip(s->start, n, s->step);
    if (part[1].type == JV_NONE) {
        s->stop = s->step < 0 ? -1 : n;
    } else {
        TRY(slice_bound(m, part[1], 0, &s->stop));
        s->stop = clip(s->stop, n, s->step);
    }
    const int64_t gap = s->step < 0 ? s->start - s->stop : s->stop - s->start;
    const int64_t size = s->step < 0 ? -s->step : s->step;
    s->n = gap <= 0 ? 0 : (size_t)((gap + size - 1) / size);
    return ERR_OK;
}

static enum err slice_text(struct jmem *m, const struct jstr *s, const struct span *span,
                           struct jv *out)
{
    TRY(jmem_walk(m, s->n));
    if (span->n == 0) {
        return jv_put_str(m, jstr_part(m, s, 0, 0), out);
    }
    if (span->step == 1) {
        const size_t from = jstr_byte_of(s, (size_t)span->start);
        const size_t to = jstr_byte_of(s, (size_t)span->stop);
        return jv_put_str(m, jstr_part(m, s, from, to - from), out);
    }
    size_t *at = NULL;
    if (s->n != s->n_char) {
        at = jmem_take_array(m, s->n_char + 1, sizeof(*at));
        if (at == NULL) {
            return m->err;
        }
        size_t byte = 0;
        for (size_t i = 0; i < s->n_char; i++) {
            size_t n = 0;
            at[i] = byte;
            (void)jstr_read(s, byte, &n);
            byte += n;
        }
        at[s->n_char] = s->n;
    }
    struct jstr_out o;
    jstr_begin(&o, m);
    for (size_t k = 0; k < span->n; k++) {
        const size_t i = (size_t)(span->start + (int64_t)k * span->step);
        const size_t from = at == NULL ? i : at[i];
        jstr_add_part(&o, s, from, at == NULL ? 1 : at[i + 1] - from);
    }
    return jv_put_str(m, jstr_end(&o, s->is_markup), out);
}

static enum err slice_range(struct jmem *m, const struct jv_range *r, const struct span *span,
                            struct jv *out)
{
    struct jv_range *part = jmem_take(m, sizeof(*part));
    if (part == NULL) {
        return m->err;
    }
    /* Ends that nobody reaches may lie beyond 64 bits; they wrap and only show when printed. */
    const uint64_t start = (uint64_t)r->start;
    const uint64_t step = (uint64_t)r->step;
    *part = (struct jv_range){ .start = (int64_t)(start + (uint64_t)span->start * step),
                               .stop = (int64_t)(start + (uint64_t)span->stop * step),
                               .step = (int64_t)(step * (uint64_t)span->asked),
                               .n = span->n };
    *out = (struct jv){ .type = JV_RANGE, .u.range = part };
    return ERR_OK;
}

enum err jget_slice(struct jmem *m, struct jv v, const struct jv part[3], struct jv *out)
{
    if (v.type == JV_UNDEFINED) {
        return jv_undefined_error(m, v);
    }
    if (v.type != JV_STR && v.type != JV_LIST && v.type != JV_TUPLE && v.type != JV_RANGE) {
        return JMEM_FAIL(m, ERR_FAILED, "'%s' object cannot be sliced", jv_type_name(v));
    }
    size_t n = 0;
    struct span span = { 0 };
    TRY(jv_len(m, v, &n));
    TRY(make_span(m, part, n, &span));
    if (v.type == JV_STR) {
        return slice_text(m, v.u.s, &span, out);
    }
    if (v.type == JV_RANGE) {
        return slice_range(m, v.u.range, &span, out);
    }
    struct jlist *l = jlist_new(m, span.n);
    if (l == NULL) {
        return m->err;
    }
    l->is_data = v.u.list->is_data;
    for (size_t k = 0; k < span.n; k++) {
        l->item[k] = v.u.list->item[span.start + (int64_t)k * span.step];
    }
    l->n = span.n;
    *out = v.type == JV_LIST ? jv_of_list(l) : jv_of_tuple(l);
    return ERR_OK;
}

/* --- paths of filters ------------------------------------------------------------------------- */

/* One step of a path; digits are a position. */
static enum err path_step(struct jmem *m, struct jv v, const struct jstr *part, struct jv *out)
{
    int64_t i = 0;
    bool is_number = part->n > 0 && part->n < 19;
    for (size_t k = 0; k < part->n && is_number; k++) {
        is_number = part->p[k] >= '0' && part->p[k] <= '9';
        i = i * 10 + (part->p[k] - '0');
    }
    return jget_item(m, v, is_number ? jv_int(i) : jv_of_str(part), out);
}

enum err jget_path(struct jmem *m, struct jv v, struct jv path, struct jv otherwise, struct jv *out)
{
    if (path.type == JV_NONE || path.type == JV_MISSING) {
        *out = v;
        return ERR_OK;
    }
    if (path.type != JV_STR) {
        TRY(jget_item(m, v, path, &v));
        *out = v.type == JV_UNDEFINED && otherwise.type != JV_MISSING ? otherwise : v;
        return ERR_OK;
    }
    const struct jstr *s = path.u.s;
    size_t from = 0;
    for (bool is_last = false; !is_last;) {
        const size_t dot = view_find(jstr_view(s), VIEW("."), from);
        is_last = dot == SIZE_MAX;
        const struct jstr *part = jstr_part(m, s, from, (is_last ? s->n : dot) - from);
        if (part == NULL) {
            return m->err;
        }
        TRY(path_step(m, v, part, &v));
        if (v.type == JV_UNDEFINED && otherwise.type != JV_MISSING) {
            v = otherwise;
        }
        from = dot + 1;
    }
    *out = v;
    return ERR_OK;
}
