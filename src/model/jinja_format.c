/* jinja_format - "..." % x and "...".format(x)
 *
 * Python has two little languages for putting values into text, and templates use both: "%.2f" % x
 * (or the filter format) and "{:>8}".format(x). They differ in how a place names its value, and
 * agree in what happens then: a sign, digits, a width, something to fill it with. That common part
 * is `struct field` and add_number / add_padded; the rest of this file is the two parsers.
 *
 * The text between places keeps its marks, a value brings its own, and what is made for it (fill,
 * digits) has the mark of the value (CH-2).
 *
 * A markup text as the format escapes what is put into it, as Markup of MarkupSafe does.
 *
 * Widths and precisions come from the template; what they cost goes through the budget before
 * anything is made. Not there: bytes, dates, and the rarely used type n with a locale (it prints as
 * d or g).
 *
 * Sources: Python 3.11 library reference, "printf-style String Formatting" and "Format
 * Specification Mini-Language". Next: jinja_op.c. */
#include "model/jinja_format.h"

#include "model/jinja_get.h"
#include "model/jinja_num.h"
#include "model/jinja_repr.h"

#include <stdio.h>
#include <string.h>

struct field {
    uint32_t fill;
    char align; /* < > ^ = or 0: as the type wants */
    char sign;  /* + - or blank, 0: only minus */
    bool is_alt;
    bool has_zero;
    int64_t width;
    char group;        /* , _ or 0 */
    int64_t precision; /* -1: not given */
    char type;         /* 0: none */
};

/* Characters; larger ones are refused before any memory is asked for. */
#define WIDTH_MAX 10000000

static enum err bad(struct jmem *m, const char *what)
{
    return JMEM_FAIL(m, ERR_FAILED, "format: %s", what);
}

/* --- the common part -------------------------------------------------------------------------- */

static void add_fill(struct jstr_out *o, uint32_t fill, int64_t n, bool is_trusted)
{
    for (int64_t i = 0; i < n && !o->is_failed; i++) {
        jstr_add_code(o, fill, is_trusted);
    }
}

static void add_padded(struct jstr_out *o, const struct jstr *s, const struct field *f, char align)
{
    const bool t = s->n > 0 ? jstr_trust_at(s, 0) : true;
    const int64_t pad = f->width > (int64_t)s->n_char ? f->width - (int64_t)s->n_char : 0;
    const int64_t left = align == '>' || align == '=' ? pad : align == '^' ? pad / 2 : 0;
    add_fill(o, f->fill, left, t);
    jstr_add(o, s);
    add_fill(o, f->fill, pad - left, t);
}

/* Text cut to the precision and padded. */
static enum err add_text(struct jstr_out *o, const struct jstr *s, const struct field *f)
{
    if (f->precision >= 0 && (uint64_t)f->precision < s->n_char) {
        s = jstr_part(o->m, s, 0, jstr_byte_of(s, (size_t)f->precision));
    }
    if (s == NULL) {
        return o->m->err;
    }
    add_padded(o, s, f, f->align != 0 ? f->align : '<');
    return o->is_failed ? o->m->err : ERR_OK;
}

/* The digits before the point with a mark between groups: of 3, or 4 in bases other than ten. */
static void add_grouped(struct jstr_out *o, const char *digits, const struct field *f, int base)
{
    const size_t n = strspn(digits, base == 16 ? "0123456789abcdefABCDEF" : "0123456789");
    const size_t each = base == 10 ? 3 : 4;
    for (size_t i = 0; i < n; i++) {
        if (f->group != 0 && i > 0 && (n - i) % each == 0) {
            const char mark[2] = { f->group, 0 };
            jstr_add_str(o, mark, true);
        }
        jstr_add_view(o, (struct view){ digits + i, 1 }, true);
    }
    jstr_add_str(o, digits + n, true);
}

static int base_of(char type)
{
    return type == 'b' ? 2 : type == 'o' ? 8 : (type | 0x20) == 'x' ? 16 : 10;
}

/* A number from its printed size: sign, prefix, fill, digits. */
static enum err add_number(struct jstr_out *o, const char *text, const char *prefix,
                           const struct field *f, bool is_trusted)
{
    struct jstr_out body;
    struct jstr_out head;
    const bool is_negative = text[0] == '-';
    const char plus[2] = { f->sign, 0 };
    jstr_begin(&head, o->m);
    jstr_add_str(&head, is_negative ? "-" : f->sign == '-' ? "" : plus, true);
    jstr_add_str(&head, prefix, true);
    const struct jstr *h = jstr_end(&head, false);
    jstr_begin(&body, o->m);
    add_grouped(&body, text + is_negative, f, base_of(f->type));
    const struct jstr *b = jstr_end(&body, false);
    if (h == NULL || b == NULL) {
        return o->m->err;
    }
    const int64_t n = (int64_t)(h->n_char + b->n_char);
    const int64_t pad = f->width > n ? f->width - n : 0;
    const char align = f->align != 0 ? f->align : f->has_zero ? '=' : '>';
    const int64_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    add_fill(o, f->fill, left, is_trusted);
    jstr_add_view(o, jstr_view(h), is_trusted);
    add_fill(o, f->fill, align == '=' ? pad : 0, is_trusted);
    jstr_add_view(o, jstr_view(b), is_trusted);
    add_fill(o, f->fill, align == '<' || align == '^' ? pad - left : 0, is_trusted);
    return o->is_failed ? o->m->err : ERR_OK;
}

static enum err add_int(struct jstr_out *o, struct jv v, const struct field *f)
{
    char text[JNUM_DIGITS_MAX + 1] = "-";
    const int base = base_of(f->type);
    (void)jnum_digits(v.u.i, base, f->type == 'X', text + 1);
    char prefix[3] = "";
    if (f->is_alt && base != 10) {
        prefix[0] = '0';
        prefix[1] = f->type;
    }
    const char *digits = v.u.i < 0 ? text : text + 1;
    if (f->precision <= 0 || f->precision <= (int64_t)strlen(text + 1)) {
        return add_number(o, digits, prefix, f, !v.is_data);
    }
    struct jstr_out wide; /* only printf style gets here: at least so many digits */
    jstr_begin(&wide, o->m);
    jstr_add_str(&wide, v.u.i < 0 ? "-" : "", true);
    add_fill(&wide, '0', f->precision - (int64_t)strlen(text + 1), true);
    jstr_add_view(&wide, (struct view){ text + 1, strlen(text + 1) + 1 }, true); /* with its 0 */
    const struct jstr *s = jstr_end(&wide, false);
    return s == NULL ? o->m->err : add_number(o, s->p, prefix, f, !v.is_data);
}

/* A float without a type letter: as repr, or with so many digits and always a point. */
static const char *print_plain(struct jmem *m, double v, int64_t precision)
{
    if (precision < 0) {
        char *text = jmem_take(m, JNUM_TEXT_MAX);
        if (text != NULL) {
            jnum_repr(v, text);
        }
        return text;
    }
    const int64_t digits = precision == 0 ? 1 : precision;
    const char *e = jnum_print(m, v, 'e', digits - 1, false);
    const char *g = jnum_print(m, v, 'g', digits, false);
    if (e == NULL || g == NULL || strpbrk(g, "en") != NULL) {
        return g; /* has an exponent already, or is inf or nan */
    }
    const char *mark = strchr(e, 'e');
    int power = 0;
    if (mark != NULL) {
        for (const char *p = mark + 2; *p != 0; p++) {
            power = power * 10 + (*p - '0');
        }
    }
    if (mark != NULL && mark[1] == '+' && power + 1 > digits - 1) {
        size_t n = (size_t)(mark - e);
        while (n > 1 && memchr(e, '.', n) != NULL && (e[n - 1] == '0' || e[n - 1] == '.')) {
            n--;
        }
        char *text = jmem_take(m, strlen(e) + 1);
        if (text != NULL) {
            memcpy(text, e, n);
            memcpy(text + n, mark, strlen(mark) + 1);
        }
        return text;
    }
    if (strchr(g, '.') != NULL) {
        return g;
    }
    char *text = jmem_take(m, strlen(g) + 3);
    if (text != NULL) {
        (void)snprintf(text, strlen(g) + 3, "%s.0", g);
    }
    return text;
}

static enum err add_float(struct jstr_out *o, double v, const struct field *f, bool is_trusted)
{
    const char type = f->type == 'n' ? 'g' : f->type;
    int64_t precision = f->precision;
    if (precision < 0 && type != 0) {
        precision = 6;
    }
    if (precision == 0 && (type | 0x20) == 'g') {
        precision = 1;
    }
    const char *text = type == 0 ? print_plain(o->m, v, precision)
                                 : jnum_print(o->m, v, type, precision, f->is_alt);
    return text == NULL ? o->m->err : add_number(o, text, "", f, is_trusted);
}

static bool is_float_type(char type)
{
    return type != 0 && strchr("eEfFgG%", type) != NULL;
}

/* A character by number. */
static enum err add_char(struct jstr_out *o, struct jv v, const struct field *f)
{
    char text[4];
    const int n = v.u.i < 0 || v.u.i > 0x10ffff ? 0 : utf8_put((uint32_t)v.u.i, text);
    if (n == 0) {
        return bad(o->m, "%c wants the number of a character");
    }
    const struct jstr *s = jstr_copy(o->m, (struct view){ text, (size_t)n }, !v.is_data);
    return s == NULL ? o->m->err : add_text(o, s, f);
}

/* --- format specifications of {:...} ---------------------------------------------------------- */

static bool is_align(char c)
{
    return c == '<' || c == '>' || c == '^' || c == '=';
}

static enum err read_number(struct jmem *m, struct view v, size_t *at, int64_t *out)
{
    int64_t n = 0;
    while (*at < v.n && v.p[*at] >= '0' && v.p[*at] <= '9') {
        n = n * 10 + (v.p[(*at)++] - '0');
        if (n > WIDTH_MAX) {
            return JMEM_FAIL(m, ERR_LIMIT, "format: a width or precision of more than %d",
                             WIDTH_MAX);
        }
    }
    *out = n;
    return ERR_OK;
}

static enum err parse_spec(struct jmem *m, struct view v, struct field *f)
{
    size_t at = 0;
    uint32_t fill = ' ';
    const int n_fill = v.n > 0 ? utf8_read(v.p, v.n, &fill) : 0;
    *f = (struct field){ .fill = ' ', .precision = -1 };
    if (n_fill > 0 && (size_t)n_fill < v.n && is_align(v.p[n_fill])) {
        f->fill = fill;
        f->align = v.p[n_fill];
        at = (size_t)n_fill + 1;
    } else if (v.n > 0 && is_align(v.p[0])) {
        f->align = v.p[at++];
    }
    if (at < v.n && (v.p[at] == '+' || v.p[at] == '-' || v.p[at] == ' ')) {
        f->sign = v.p[at++];
    }
    if (at < v.n && v.p[at] == '#') {
        f->is_alt = true;
        at++;
    }
    if (at < v.n && v.p[at] == '0') {
        f->has_zero = true;
        f->fill = f->align == 0 ? '0' : f->fill;
        at++;
    }
    TRY(read_number(m, v, &at, &f->width));
    if (at < v.n && (v.p[at] == ',' || v.p[at] == '_')) {
        f->group = v.p[at++];
    }
    if (at < v.n && v.p[at] == '.') {
        at++;
        const size_t from = at;
        TRY(read_number(m, v, &at, &f->precision));
        if (at == from) {
            return bad(m, "precision missing behind the point");
        }
    }
    if (at < v.n) {
        f->type = v.p[at++];
    }
    return at == v.n ? ERR_OK : bad(m, "invalid format specification");
}

static enum err format_number(struct jstr_out *o, struct jv v, const struct field *f)
{
    if (v.type == JV_FLOAT || is_float_type(f->type)) {
        if (f->type != 0 && f->type != 'n' && !is_float_type(f->type)) {
            return bad(o->m, "this type letter is not for floats");
        }
        return add_float(o, v.type == JV_FLOAT ? v.u.f : (double)v.u.i, f, !v.is_data);
    }
    if (f->precision >= 0) {
        return bad(o->m, "a precision is not for whole numbers");
    }
    if (f->type == 'c') {
        return add_char(o, v, f);
    }
    if (f->type != 0 && strchr("bdoxXn", f->type) == NULL) {
        return bad(o->m, "this type letter is not for whole numbers");
    }
    return add_int(o, v, f);
}

/* format(v, spec) of Python. */
static enum err format_value(struct jstr_out *o, struct jv v, struct view spec)
{
    struct field f;
    if (spec.n == 0) {
        jstr_add(o, jrepr_str(o->m, v));
        return o->is_failed ? o->m->err : ERR_OK;
    }
    TRY(parse_spec(o->m, spec, &f));
    if (jv_is_number(v)) {
        return format_number(o, v, &f);
    }
    if (v.type != JV_STR) {
        return JMEM_FAIL(o->m, ERR_FAILED, "format: '%s' takes no format specification",
                         jv_type_name(v));
    }
    if ((f.type != 0 && f.type != 's') || f.sign != 0 || f.is_alt || f.group != 0 ||
        f.align == '=') {
        return bad(o->m, "this specification is not for strings");
    }
    return add_text(o, v.u.s, &f);
}

/* --- str.format ------------------------------------------------------------------------------- */

struct braces {
    struct jmem *m;
    const struct jargs *args;
    size_t n_auto; /* places without a number so far */
    bool is_numbered;
    bool is_markup;
};

static bool is_digits(struct view v)
{
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9') {
            return false;
        }
    }
    return v.n > 0;
}

/* The value a place begins with: by number, by name, or the next one. */
static enum err first_value(struct braces *b, struct view name, struct jv *out)
{
    if (name.n == 0 || is_digits(name)) {
        uint64_t i = b->n_auto;
        if (name.n == 0) {
            b->n_auto++;
        } else if (!view_u64(name, &i)) {
            i = UINT64_MAX;
        }
        b->is_numbered |= name.n > 0;
        if (b->is_numbered && b->n_auto > 0) {
            return bad(b->m, "places with and without numbers cannot be mixed");
        }
        if (i >= b->args->pos->n) {
            return bad(b->m, "a place has no argument");
        }
        *out = b->args->pos->item[i];
        return ERR_OK;
    }
    TRY(jmem_step(b->m, b->args->named->n / 4 + 1));
    const struct jv *hit = jdict_find(b->args->named, name);
    if (hit == NULL) {
        return JMEM_FAIL(b->m, ERR_FAILED, "format: no argument named '%.*s'",
                         (int)(name.n < 60 ? name.n : 60), name.p);
    }
    *out = *hit;
    return ERR_OK;
}

/* name.attr[item] ... */
static enum err field_value(struct braces *b, struct view name, struct jv *out)
{
    size_t at = 0;
    while (at < name.n && name.p[at] != '.' && name.p[at] != '[') {
        at++;
    }
    struct jv v;
    TRY(first_value(b, view_part(name, 0, at), &v));
    while (at < name.n) {
        const bool is_item = name.p[at] == '[';
        size_t end = ++at;
        while (end < name.n &&
               (is_item ? name.p[end] != ']' : name.p[end] != '.' && name.p[end] != '[')) {
            end++;
        }
        const struct view part = view_part(name, at, end - at);
        if (part.n == 0 || (is_item && end >= name.n)) {
            return bad(b->m, "empty or open attribute in a place");
        }
        uint64_t i = 0;
        const struct jstr *key = jstr_copy(b->m, part, true);
        if (key == NULL) {
            return b->m->err;
        }
        if (!is_item) {
            TRY(jget_attr(b->m, v, key, &v));
        } else {
            const bool is_number = is_digits(part) && view_u64(part, &i) && i <= INT64_MAX;
            TRY(jget_item(b->m, v, is_number ? jv_int((int64_t)i) : jv_of_str(key), &v));
        }
        at = is_item ? end + 1 : end;
    }
    *out = v;
    return ERR_OK;
}

static enum err format_into(struct braces *b, const struct jstr *fmt, struct view part, int nest,
                            struct jstr_out *o);

/* Byte in a place where its name ends: at ! or : outside of [ ], or at the end. */
static size_t name_end(struct view place)
{
    size_t end = 0;
    for (bool is_item = false; end < place.n; end++) {
        const char c = place.p[end];
        is_item = c == '[' || (is_item && c != ']');
        if (!is_item && (c == '!' || c == ':')) {
            break;
        }
    }
    return end;
}

/* !r, !s or !a at byte *end of the place, if there; moves behind it. */
static enum err convert(struct braces *b, struct view place, size_t *end, struct jv *v)
{
    if (*end >= place.n || place.p[*end] != '!') {
        return ERR_OK;
    }
    const char kind = *end + 1 < place.n ? place.p[*end + 1] : 0;
    *end += 2;
    if ((kind != 'r' && kind != 's' && kind != 'a') || (*end < place.n && place.p[*end] != ':')) {
        return bad(b->m, "invalid conversion");
    }
    return jv_put_str(b->m,
                      kind == 'r'   ? jrepr_repr(b->m, *v)
                      : kind == 's' ? jrepr_str(b->m, *v)
                                    : jrepr_ascii(b->m, *v),
                      v);
}

/* One place, without its braces. */
static enum err add_place(struct braces *b, const struct jstr *fmt, struct view place, int nest,
                          struct jstr_out *o)
{
    size_t end = name_end(place);
    struct jv v;
    TRY(field_value(b, view_part(place, 0, end), &v));
    TRY(convert(b, place, &end, &v));
    const bool is_markup = v.type == JV_STR && v.u.s->is_markup;
    struct jstr_out spec;
    struct jstr_out text;
    jstr_begin(&spec, b->m);
    jstr_begin(&text, b->m);
    TRY(format_into(b, fmt, view_from(place, end + 1), nest - 1, &spec));
    const struct jstr *s = jstr_end(&spec, false);
    if (s == NULL) {
        return b->m->err;
    }
    TRY(format_value(b->is_markup ? &text : o, v, jstr_view(s)));
    if (b->is_markup) {
        const struct jstr *t = jstr_end(&text, is_markup);
        jstr_add(o, t == NULL || is_markup ? t : jstr_escape(b->m, t));
    }
    return o->is_failed ? b->m->err : ERR_OK;
}

/* Byte of the brace that closes the place which begins at `at`, or SIZE_MAX. */
static size_t close_of(struct view v, size_t at)
{
    int n_open = 1;
    bool is_item = false;
    for (; at < v.n; at++) {
        const char c = v.p[at];
        if (n_open == 1) {
            is_item = c == '[' || (is_item && c != ']');
        }
        n_open += c == '{' && !is_item;
        n_open -= c == '}' && !is_item;
        if (n_open == 0) {
            return at;
        }
    }
    return SIZE_MAX;
}

/* `part` of the text fmt with its places filled. */
static enum err format_into(struct braces *b, const struct jstr *fmt, struct view part, int nest,
                            struct jstr_out *o)
{
    if (nest <= 0) {
        return part.n == 0 ? ERR_OK : bad(b->m, "places nested too deeply");
    }
    size_t from = 0;
    for (size_t i = 0; i < part.n && !o->is_failed;) {
        const char c = part.p[i];
        if (c != '{' && c != '}') {
            i++;
            continue;
        }
        const size_t base = (size_t)(part.p - fmt->p);
        const bool is_double = i + 1 < part.n && part.p[i + 1] == c;
        jstr_add_part(o, fmt, base + from, i + (is_double ? 1 : 0) - from);
        if (is_double) {
            i += 2;
        } else if (c == '}') {
            return bad(b->m, "single '}' in the text");
        } else {
            const size_t end = close_of(part, i + 1);
            if (end == SIZE_MAX) {
                return bad(b->m, "'{' without '}'");
            }
            TRY(add_place(b, fmt, view_part(part, i + 1, end - i - 1), nest, o));
            i = end + 1;
        }
        from = i;
    }
    if (part.n > 0) {
        jstr_add_part(o, fmt, (size_t)(part.p - fmt->p) + from, part.n - from);
    }
    return o->is_failed ? b->m->err : ERR_OK;
}

enum err jformat_braces(struct jmem *m, const struct jstr *fmt, const struct jargs *args,
                        struct jv *out)
{
    struct braces b = { .m = m, .args = args, .is_markup = fmt->is_markup };
    struct jstr_out o;
    jstr_begin(&o, m);
    TRY(jmem_walk(m, fmt->n));
    TRY(format_into(&b, fmt, jstr_view(fmt), 3, &o));
    return jv_put_str(m, jstr_end(&o, fmt->is_markup), out);
}

/* --- printf style ----------------------------------------------------------------------------- */

struct percent {
    struct jmem *m;
    struct jv args;
    size_t n_used; /* of a tuple, or of the one value */
    bool is_markup;
};

static enum err next_arg(struct percent *p, struct jv *out)
{
    const size_t n = p->args.type == JV_TUPLE ? p->args.u.list->n : 1;
    if (p->n_used >= n) {
        return bad(p->m, "not enough arguments for the text");
    }
    *out = p->args.type == JV_TUPLE ? p->args.u.list->item[p->n_used] : p->args;
    p->n_used++;
    return ERR_OK;
}

/* A width or precision: digits, or * for an argument. */
static enum err percent_number(struct percent *p, struct view v, size_t *at, int64_t *out)
{
    if (*at < v.n && v.p[*at] == '*') {
        struct jv arg;
        (*at)++;
        TRY(next_arg(p, &arg));
        if (!jv_is_int(arg)) {
            return bad(p->m, "* wants a whole number");
        }
        if (arg.u.i > WIDTH_MAX || arg.u.i < -WIDTH_MAX) {
            return JMEM_FAIL(p->m, ERR_LIMIT, "format: a width of more than %d", WIDTH_MAX);
        }
        *out = arg.u.i;
        return ERR_OK;
    }
    return read_number(p->m, v, at, out);
}

/* %(name): looks the value up. */
static enum err percent_key(struct percent *p, struct view v, size_t *at, struct jv *out)
{
    const size_t from = *at + 1;
    int n_open = 1;
    size_t end = from;
    for (; end < v.n; end++) {
        n_open += v.p[end] == '(';
        n_open -= v.p[end] == ')';
        if (n_open == 0) {
            break;
        }
    }
    if (end >= v.n || p->args.type != JV_DICT) {
        return bad(p->m, "%(name) wants a closing bracket and a dictionary");
    }
    TRY(jmem_step(p->m, p->args.u.dict->n / 4 + 1));
    const struct jv *hit = jdict_find(p->args.u.dict, view_part(v, from, end - from));
    if (hit == NULL) {
        return bad(p->m, "the dictionary lacks a key of the text");
    }
    *out = *hit;
    *at = end + 1;
    return ERR_OK;
}

static enum err percent_flags(struct percent *p, struct view v, size_t *at, struct field *f)
{
    for (; *at < v.n && strchr("-+ #0", v.p[*at]) != NULL && v.p[*at] != 0; (*at)++) {
        const char c = v.p[*at];
        f->align = c == '-' ? '<' : f->align;
        f->is_alt |= c == '#';
        f->has_zero |= c == '0';
        f->sign = c == '+' || (c == ' ' && f->sign == 0) ? c : f->sign;
    }
    TRY(percent_number(p, v, at, &f->width));
    if (f->width < 0) {
        f->align = '<';
        f->width = -f->width;
    }
    if (*at < v.n && v.p[*at] == '.') {
        (*at)++;
        TRY(percent_number(p, v, at, &f->precision));
        f->precision = f->precision < 0 ? 0 : f->precision;
    }
    while (*at < v.n && (v.p[*at] == 'h' || v.p[*at] == 'l' || v.p[*at] == 'L')) {
        (*at)++;
    }
    return ERR_OK;
}

static enum err percent_text(struct percent *p, struct jv v, const struct field *f,
                             struct jstr_out *o)
{
    const bool is_safe = v.type == JV_STR && v.u.s->is_markup && f->type == 's';
    const struct jstr *s = f->type == 's'   ? jrepr_str(p->m, v)
                           : f->type == 'r' ? jrepr_repr(p->m, v)
                                            : jrepr_ascii(p->m, v);
    if (s != NULL && p->is_markup && !is_safe) {
        s = jstr_escape(p->m, s);
    }
    struct field g = *f;
    g.align = g.align == 0 ? '>' : g.align;
    return s == NULL ? p->m->err : add_text(o, s, &g);
}

static enum err percent_int(struct percent *p, struct jv v, struct field *f, struct jstr_out *o)
{
    if (v.type == JV_FLOAT && strchr("diu", f->type) != NULL) {
        int64_t i = 0;
        TRY(jnum_to_int(p->m, v.u.f, &i));
        v = (struct jv){ .type = JV_INT, .is_data = v.is_data, .u.i = i };
    }
    if (!jv_is_int(v)) {
        return JMEM_FAIL(p->m, ERR_FAILED, "format: %%%c wants a number, not '%s'", f->type,
                         jv_type_name(v));
    }
    f->type = f->type == 'i' || f->type == 'u' ? 'd' : f->type;
    return add_int(o, v, f);
}

static enum err percent_value(struct percent *p, struct jv v, struct field *f, struct jstr_out *o)
{
    if (v.type == JV_UNDEFINED && strchr("sra", f->type) == NULL) {
        return jv_undefined_error(p->m, v);
    }
    if (strchr("sra", f->type) != NULL) {
        return percent_text(p, v, f, o);
    }
    if (f->has_zero && f->align == 0) {
        f->fill = '0';
    }
    if (f->type == 'c') {
        f->align = f->align == 0 ? '>' : f->align;
        f->fill = ' ';
        if (v.type == JV_STR && v.u.s->n_char == 1) {
            return add_text(o, v.u.s, f);
        }
        return jv_is_int(v) ? add_char(o, v, f) : bad(p->m, "%c wants a character or its number");
    }
    if (strchr("diuxXo", f->type) != NULL) {
        return percent_int(p, v, f, o);
    }
    if (!jv_is_number(v)) {
        return JMEM_FAIL(p->m, ERR_FAILED, "format: %%%c wants a number, not '%s'", f->type,
                         jv_type_name(v));
    }
    return add_float(o, v.type == JV_FLOAT ? v.u.f : (double)v.u.i, f, !v.is_data);
}

/* One conversion, whose % is at `at`; moves at behind it. */
static enum err percent_place(struct percent *p, struct view v, size_t *at, struct jstr_out *o)
{
    struct field f = { .fill = ' ', .precision = -1 };
    struct jv arg = { 0 };
    (*at)++;
    if (*at < v.n && v.p[*at] == '(') {
        TRY(percent_key(p, v, at, &arg));
    }
    TRY(percent_flags(p, v, at, &f));
    if (*at >= v.n) {
        return bad(p->m, "the text ends within a conversion");
    }
    f.type = v.p[(*at)++];
    if (f.type == '%') {
        jstr_add_str(o, "%", true);
        return ERR_OK;
    }
    if (f.type == 0 || strchr("sradiuxXoceEfFgG", f.type) == NULL) {
        return JMEM_FAIL(p->m, ERR_FAILED, "format: unknown conversion '%%%c'", f.type);
    }
    if (arg.type == JV_MISSING) {
        TRY(next_arg(p, &arg));
    }
    return percent_value(p, arg, &f, o);
}

enum err jformat_percent(struct jmem *m, const struct jstr *fmt, struct jv args, struct jv *out)
{
    struct percent p = { .m = m, .args = args, .is_markup = fmt->is_markup };
    const struct view v = jstr_view(fmt);
    struct jstr_out o;
    jstr_begin(&o, m);
    TRY(jmem_walk(m, fmt->n));
    for (size_t at = 0; at < v.n && !o.is_failed;) {
        const char *hit = memchr(v.p + at, '%', v.n - at);
        const size_t end = hit == NULL ? v.n : (size_t)(hit - v.p);
        jstr_add_part(&o, fmt, at, end - at);
        at = end;
        if (at < v.n) {
            TRY(percent_place(&p, v, &at, &o));
        }
    }
    const bool is_single = args.type == JV_STR || args.type == JV_NONE || jv_is_number(args);
    if ((args.type == JV_TUPLE && p.n_used < args.u.list->n) || (is_single && p.n_used == 0)) {
        return bad(m, "not all arguments are used by the text");
    }
    return jv_put_str(m, jstr_end(&o, fmt->is_markup), out);
}
