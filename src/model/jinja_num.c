/* jinja_num - numbers of templates
 *
 * Integers are 64 bits wide here and unbounded in Python. A result that does not fit is refused
 * with ERR_UNSUPPORTED: silently wrapping, or falling over to floats, would print another prompt
 * than the one the model was trained on, and no real template needs such numbers.
 *
 * Division follows Python: / always gives a float, // rounds down, % has the sign of the right
 * side, and ** gives an integer for integers unless the exponent is negative. Booleans count as 0
 * and 1.
 *
 * round() works on the exact decimal value of the double: 2.675 is a little less than it looks, so
 * it rounds to 2.67, and 0.5 goes to 0 (ties to even). The C library prints doubles exactly, so
 * printing with the wanted number of digits and reading back is correct; negative digits are done
 * on the exact integer digits by hand.
 *
 * Sources: Python 3.11 language reference, section 6.7, and library reference, round().
 * Next: jinja_repr.c for the text of all values, jinja_op.c for operators on other types. */
#include "model/jinja_num.h"

#include "base/buf.h"
#include "base/js.h"
#include "model/jinja_lex.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void jnum_repr(double v, char out[JNUM_TEXT_MAX])
{
    struct buf b;
    buf_init(&b, JNUM_TEXT_MAX - 1);
    js_put_repr(&b, v);
    memcpy(out, buf_str(&b), b.n + 1);
    buf_release(&b);
}

enum err jnum_beyond(struct jmem *m)
{
    return JMEM_FAIL(m, ERR_UNSUPPORTED, "a whole number beyond 64 bits is not supported");
}

/* --- parsing ---------------------------------------------------------------------------------- */

/* The text without blanks at both ends. */
static struct view trimmed(const struct jstr *s)
{
    size_t from = 0;
    size_t to = s->n;
    while (from < to) {
        size_t n = 0;
        if (!jstr_is_space(jstr_read(s, from, &n))) {
            break;
        }
        from += n;
    }
    while (to > from) {
        const size_t at = jstr_before(s, to);
        size_t n = 0;
        if (!jstr_is_space(jstr_read(s, at, &n))) {
            break;
        }
        to = at;
    }
    return view_part(jstr_view(s), from, to - from);
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char low = (char)(c | 0x20);
    return low >= 'a' && low <= 'z' ? low - 'a' + 10 : 99;
}

/* Skips "0x", "0o", "0b" where the base allows it; *base 0 becomes what the prefix says. */
static size_t skip_prefix(struct view v, size_t at, int *base)
{
    int seen = 10;
    if (v.n - at > 2 && v.p[at] == '0') {
        const char c = (char)(v.p[at + 1] | 0x20);
        seen = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
    }
    if (*base == 0) {
        *base = seen;
    }
    if (seen == 10 || seen != *base) {
        return at;
    }
    return v.p[at + 2] == '_' ? at + 3 : at + 2;
}

enum err jnum_parse_int(struct jmem *m, const struct jstr *s, int base, bool *ok, int64_t *out)
{
    *ok = false;
    TRY(jmem_walk(m, s->n));
    const struct view v = trimmed(s);
    size_t at = 0;
    const bool is_negative = v.n > 0 && v.p[0] == '-';
    at += v.n > 0 && (v.p[0] == '-' || v.p[0] == '+');
    const int asked = base;
    at = skip_prefix(v, at, &base);
    bool is_beyond = false;
    bool has_digit = false;
    int64_t value = 0;
    const size_t first = at;
    for (; at < v.n; at++) {
        const int d = digit_value(v.p[at]);
        if (v.p[at] == '_' && has_digit && at + 1 < v.n && v.p[at - 1] != '_') {
            continue;
        }
        if (d >= base) {
            return ERR_OK;
        }
        has_digit = true;
        is_beyond |= __builtin_mul_overflow(value, (int64_t)base, &value);
        is_beyond |= __builtin_sub_overflow(value, (int64_t)d, &value); /* kept negative */
    }
    if (!has_digit || (asked == 0 && base == 10 && v.p[first] == '0' && value != 0)) {
        return ERR_OK;
    }
    if (is_beyond || (!is_negative && value == INT64_MIN)) {
        return jnum_beyond(m);
    }
    *ok = true;
    *out = is_negative ? value : -value;
    return ERR_OK;
}

static bool word_is(struct view v, const char *word)
{
    const size_t n = strlen(word);
    if (v.n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((v.p[i] | 0x20) != word[i]) {
            return false;
        }
    }
    return true;
}

bool jnum_parse_float(const struct jstr *s, double *out)
{
    char text[512];
    const struct view v = trimmed(s);
    const bool has_sign = v.n > 0 && (v.p[0] == '-' || v.p[0] == '+');
    const struct view word = view_from(v, has_sign ? 1 : 0);
    const double sign = has_sign && v.p[0] == '-' ? -1.0 : 1.0;
    if (word_is(word, "inf") || word_is(word, "infinity")) {
        *out = sign * HUGE_VAL;
        return true;
    }
    if (word_is(word, "nan")) {
        *out = (double)NAN;
        return true;
    }
    size_t n = 0;
    for (size_t i = 0; i < v.n; i++) {
        const char c = v.p[i];
        const bool is_digit = c >= '0' && c <= '9';
        if (c == '_') {
            const bool is_between = i > 0 && i + 1 < v.n && digit_value(v.p[i - 1]) < 10 &&
                                    digit_value(v.p[i + 1]) < 10;
            if (!is_between) {
                return false;
            }
            continue;
        }
        if ((!is_digit && strchr("+-.eE", c) == NULL) || c == 0 || n + 1 >= sizeof(text)) {
            return false;
        }
        text[n++] = c;
    }
    text[n] = 0;
    char *end = NULL;
    *out = strtod(text, &end);
    return n > 0 && *end == 0;
}

enum err jnum_to_int(struct jmem *m, double v, int64_t *out)
{
    if (!isfinite(v)) {
        return JMEM_FAIL(m, ERR_FAILED, "cannot convert %s to a whole number",
                         isnan(v) ? "nan" : "infinity");
    }
    const double whole = trunc(v);
    if (whole < -0x1p63 || whole >= 0x1p63) {
        return jnum_beyond(m);
    }
    *out = (int64_t)whole;
    return ERR_OK;
}

/* --- rounding --------------------------------------------------------------------------------- */

/* Rounds the decimal digits text[0..n) to n - drop digits and fills with zeros; ties to even. */
static void round_digits(char *text, size_t n, size_t drop)
{
    const size_t keep = n - drop;
    bool is_up = text[keep] > '5';
    if (text[keep] == '5') {
        for (size_t i = keep + 1; i < n && !is_up; i++) {
            is_up = text[i] != '0';
        }
        is_up = is_up || (keep > 0 && (text[keep - 1] - '0') % 2 == 1);
    }
    memset(text + keep, '0', drop);
    for (size_t i = keep; is_up && i-- > 0;) {
        is_up = text[i] == '9';
        text[i] = is_up ? '0' : (char)(text[i] + 1);
    }
}

double jnum_round(double v, int64_t digits)
{
    char text[800];
    if (!isfinite(v) || digits > 330) {
        return v;
    }
    if (digits < -310) {
        return v < 0 ? -0.0 : 0.0;
    }
    if (digits >= 0) {
        (void)snprintf(text, sizeof(text), "%.*f", (int)digits, v);
        return strtod(text, NULL);
    }
    /* The whole digits exactly, then a sticky one for what lies behind the point. */
    const double whole = trunc(fabs(v));
    const size_t drop = (size_t)-digits + 1;
    size_t n = 0;
    memset(text, '0', drop + 1);
    n = drop + 1;
    n += (size_t)snprintf(text + n, sizeof(text) - n, "%.0f", whole);
    text[n++] = whole < fabs(v) ? '1' : '0';
    text[n] = 0;
    round_digits(text, n, drop);
    text[n - 1] = 0;
    const double r = strtod(text, NULL);
    return v < 0 ? -r : r;
}

enum err jnum_round_int(struct jmem *m, int64_t v, int64_t digits, int64_t *out)
{
    if (digits >= 0) {
        *out = v;
        return ERR_OK;
    }
    if (digits < -19) {
        *out = 0;
        return ERR_OK;
    }
    char text[64];
    memset(text, '0', 24);
    const uint64_t size = v < 0 ? -(uint64_t)v : (uint64_t)v;
    const int n = 24 + snprintf(text + 24, sizeof(text) - 24, "%llu", (unsigned long long)size);
    round_digits(text, (size_t)n, (size_t)-digits);
    const unsigned long long r = strtoull(text, NULL, 10);
    if (r > (unsigned long long)INT64_MAX) {
        return jnum_beyond(m);
    }
    *out = v < 0 ? -(int64_t)r : (int64_t)r;
    return ERR_OK;
}

/* --- printing --------------------------------------------------------------------------------- */

static const char *print_special(double v, char type)
{
    const bool is_upper = type == 'E' || type == 'F' || type == 'G';
    if (isnan(v)) {
        return is_upper ? "NAN" : type == '%' ? "nan%" : "nan";
    }
    if (type == '%') {
        return v < 0 ? "-inf%" : "inf%";
    }
    return v < 0 ? (is_upper ? "-INF" : "-inf") : (is_upper ? "INF" : "inf");
}

const char *jnum_print(struct jmem *m, double v, char type, int64_t precision, bool is_alt)
{
    static const struct {
        char type;
        const char *plain;
        const char *alt;
    } formats[] = { { 'e', "%.*e", "%#.*e" },
                    { 'E', "%.*E", "%#.*E" },
                    { 'g', "%.*g", "%#.*g" },
                    { 'G', "%.*G", "%#.*G" },
                    { 'f', "%.*f", "%#.*f" } };
    if (precision < 0 || precision > JNUM_PRECISION_MAX) {
        JMEM_FAIL(m, ERR_LIMIT, "a number with %lld digits, %d are allowed", (long long)precision,
                  JNUM_PRECISION_MAX);
        return NULL;
    }
    if (!isfinite(v)) {
        return print_special(v, type);
    }
    const size_t cap = (size_t)precision + 340;
    char *text = jmem_take(m, cap);
    if (text == NULL) {
        return NULL;
    }
    size_t i = 0;
    while (formats[i].type != type && formats[i].type != 'f') {
        i++;
    }
    const char *fmt = is_alt ? formats[i].alt : formats[i].plain;
    const int n = snprintf(text, cap, fmt, (int)precision, type == '%' ? v * 100 : v);
    if (type == '%' && (size_t)n + 1 < cap) {
        text[n] = '%';
        text[n + 1] = 0;
    }
    return text;
}

size_t jnum_digits(int64_t v, int base, bool is_upper, char out[JNUM_DIGITS_MAX])
{
    const char *const digits = is_upper ? "0123456789ABCDEF" : "0123456789abcdef";
    uint64_t x = v < 0 ? -(uint64_t)v : (uint64_t)v;
    char turned[JNUM_DIGITS_MAX];
    size_t n = 0;
    do {
        turned[n++] = digits[x % (uint64_t)base];
        x /= (uint64_t)base;
    } while (x > 0);
    for (size_t i = 0; i < n; i++) {
        out[i] = turned[n - 1 - i];
    }
    out[n] = 0;
    return n;
}

/* --- arithmetic ------------------------------------------------------------------------------- */

static enum err by_zero(struct jmem *m)
{
    return JMEM_FAIL(m, ERR_FAILED, "division by zero");
}

/* a ** b for b >= 0. */
static enum err int_power(struct jmem *m, int64_t a, int64_t b, int64_t *out)
{
    int64_t r = 1;
    while (b > 0) {
        if ((b & 1) != 0 && __builtin_mul_overflow(r, a, &r)) {
            return jnum_beyond(m);
        }
        b >>= 1;
        if (b > 0 && __builtin_mul_overflow(a, a, &a)) {
            return jnum_beyond(m);
        }
    }
    *out = r;
    return ERR_OK;
}

static enum err int_divide(struct jmem *m, int op, int64_t a, int64_t b, int64_t *out)
{
    if (b == 0) {
        return by_zero(m);
    }
    if (b == -1) {
        if (op == JLEX_MOD) {
            *out = 0;
            return ERR_OK;
        }
        return __builtin_sub_overflow((int64_t)0, a, out) ? jnum_beyond(m) : ERR_OK;
    }
    int64_t q = a / b;
    int64_t r = a % b;
    if (r != 0 && (r < 0) != (b < 0)) {
        q--;
        r += b;
    }
    *out = op == JLEX_MOD ? r : q;
    return ERR_OK;
}

static enum err int_binary(struct jmem *m, int op, int64_t a, int64_t b, int64_t *out)
{
    bool is_beyond = false;
    switch (op) {
    case JLEX_ADD:
        is_beyond = __builtin_add_overflow(a, b, out);
        break;
    case JLEX_SUB:
        is_beyond = __builtin_sub_overflow(a, b, out);
        break;
    case JLEX_MUL:
        is_beyond = __builtin_mul_overflow(a, b, out);
        break;
    case JLEX_POW:
        return int_power(m, a, b, out);
    default:
        return int_divide(m, op, a, b, out);
    }
    return is_beyond ? jnum_beyond(m) : ERR_OK;
}

static enum err float_power(struct jmem *m, double a, double b, double *out)
{
    if (a == 0 && b < 0) {
        return JMEM_FAIL(m, ERR_FAILED, "0.0 cannot be raised to a negative power");
    }
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b)) {
        return JMEM_FAIL(m, ERR_UNSUPPORTED, "a complex number is not supported");
    }
    const double r = pow(a, b);
    if (isinf(r) && isfinite(a) && isfinite(b)) {
        return JMEM_FAIL(m, ERR_FAILED, "numerical result out of range");
    }
    *out = r;
    return ERR_OK;
}

static enum err float_divide(struct jmem *m, int op, double a, double b, double *out)
{
    if (b == 0) {
        return by_zero(m);
    }
    double r = fmod(a, b);
    double q = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0)) {
        r += b;
        q -= 1;
    } else if (r == 0) {
        r = copysign(0.0, b);
    }
    if (op == JLEX_MOD) {
        *out = r;
        return ERR_OK;
    }
    double whole = floor(q);
    if (q - whole > 0.5) {
        whole += 1;
    }
    *out = q == 0 ? copysign(0.0, a / b) : whole;
    return ERR_OK;
}

static enum err float_binary(struct jmem *m, int op, double a, double b, double *out)
{
    switch (op) {
    case JLEX_ADD:
        *out = a + b;
        return ERR_OK;
    case JLEX_SUB:
        *out = a - b;
        return ERR_OK;
    case JLEX_MUL:
        *out = a * b;
        return ERR_OK;
    case JLEX_DIV:
        if (b == 0) {
            return by_zero(m);
        }
        *out = a / b;
        return ERR_OK;
    case JLEX_POW:
        return float_power(m, a, b, out);
    default:
        return float_divide(m, op, a, b, out);
    }
}

enum err jnum_binary(struct jmem *m, int op, struct jv a, struct jv b, struct jv *out)
{
    struct jv r = { 0 };
    const bool is_int =
        jv_is_int(a) && jv_is_int(b) && op != JLEX_DIV && !(op == JLEX_POW && b.u.i < 0);
    if (is_int) {
        r = jv_int(0);
        TRY(int_binary(m, op, a.u.i, b.u.i, &r.u.i));
    } else {
        const double x = a.type == JV_FLOAT ? a.u.f : (double)a.u.i;
        const double y = b.type == JV_FLOAT ? b.u.f : (double)b.u.i;
        r = jv_float(0);
        TRY(float_binary(m, op, x, y, &r.u.f));
    }
    r.is_data = a.is_data || b.is_data;
    *out = r;
    return ERR_OK;
}
