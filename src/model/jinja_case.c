/* jinja_case - upper and lower case and kinds of characters, as Python's str has them
 *
 * Python maps case with the full rules of Unicode: one character can become three (U+00DF becomes
 * SS, the ligature U+FB03 becomes FFI), title case is a case of its own, and a capital sigma at the
 * end of a word becomes a final sigma. utf8proc, behind unicode.h, has the one-to-one mappings;
 * what goes beyond them is the table below, all entries of SpecialCasing.txt that hold in every
 * language.
 *
 * The predicates follow Python's documentation of str: letters are the general categories L*,
 * digits Nd and the digits that are not decimal (superscripts, circled ones), printable is
 * everything but the categories "Other" and "Separator", with the exception of the blank.
 *
 * Each character of the result carries the mark of the one it came from (CH-2).
 *
 * Source: Unicode Character Database, UnicodeData.txt and SpecialCasing.txt; Python 3.11 library
 * reference, "String Methods". Next: jinja_lex.c. */
#include "model/jinja_case.h"

#include "model/unicode.h"

#include <string.h>

struct special {
    uint32_t from;
    uint32_t upper[3];
    uint32_t title[3];
};

/* Characters whose upper or title case is not one character, or not the one that UnicodeData.txt
 * names; sorted by `from`. Places that are not needed are 0. */
static const struct special specials[] = {
    { 0x00df, { 0x0053, 0x0053, 0 }, { 0x0053, 0x0073, 0 } },
    { 0x0149, { 0x02bc, 0x004e, 0 }, { 0x02bc, 0x004e, 0 } },
    { 0x01f0, { 0x004a, 0x030c, 0 }, { 0x004a, 0x030c, 0 } },
    { 0x0390, { 0x0399, 0x0308, 0x0301 }, { 0x0399, 0x0308, 0x0301 } },
    { 0x03b0, { 0x03a5, 0x0308, 0x0301 }, { 0x03a5, 0x0308, 0x0301 } },
    { 0x0587, { 0x0535, 0x0552, 0 }, { 0x0535, 0x0582, 0 } },
    { 0x1e96, { 0x0048, 0x0331, 0 }, { 0x0048, 0x0331, 0 } },
    { 0x1e97, { 0x0054, 0x0308, 0 }, { 0x0054, 0x0308, 0 } },
    { 0x1e98, { 0x0057, 0x030a, 0 }, { 0x0057, 0x030a, 0 } },
    { 0x1e99, { 0x0059, 0x030a, 0 }, { 0x0059, 0x030a, 0 } },
    { 0x1e9a, { 0x0041, 0x02be, 0 }, { 0x0041, 0x02be, 0 } },
    { 0x1f50, { 0x03a5, 0x0313, 0 }, { 0x03a5, 0x0313, 0 } },
    { 0x1f52, { 0x03a5, 0x0313, 0x0300 }, { 0x03a5, 0x0313, 0x0300 } },
    { 0x1f54, { 0x03a5, 0x0313, 0x0301 }, { 0x03a5, 0x0313, 0x0301 } },
    { 0x1f56, { 0x03a5, 0x0313, 0x0342 }, { 0x03a5, 0x0313, 0x0342 } },
    { 0x1f80, { 0x1f08, 0x0399, 0 }, { 0x1f88, 0, 0 } },
    { 0x1f81, { 0x1f09, 0x0399, 0 }, { 0x1f89, 0, 0 } },
    { 0x1f82, { 0x1f0a, 0x0399, 0 }, { 0x1f8a, 0, 0 } },
    { 0x1f83, { 0x1f0b, 0x0399, 0 }, { 0x1f8b, 0, 0 } },
    { 0x1f84, { 0x1f0c, 0x0399, 0 }, { 0x1f8c, 0, 0 } },
    { 0x1f85, { 0x1f0d, 0x0399, 0 }, { 0x1f8d, 0, 0 } },
    { 0x1f86, { 0x1f0e, 0x0399, 0 }, { 0x1f8e, 0, 0 } },
    { 0x1f87, { 0x1f0f, 0x0399, 0 }, { 0x1f8f, 0, 0 } },
    { 0x1f88, { 0x1f08, 0x0399, 0 }, { 0x1f88, 0, 0 } },
    { 0x1f89, { 0x1f09, 0x0399, 0 }, { 0x1f89, 0, 0 } },
    { 0x1f8a, { 0x1f0a, 0x0399, 0 }, { 0x1f8a, 0, 0 } },
    { 0x1f8b, { 0x1f0b, 0x0399, 0 }, { 0x1f8b, 0, 0 } },
    { 0x1f8c, { 0x1f0c, 0x0399, 0 }, { 0x1f8c, 0, 0 } },
    { 0x1f8d, { 0x1f0d, 0x0399, 0 }, { 0x1f8d, 0, 0 } },
    { 0x1f8e, { 0x1f0e, 0x0399, 0 }, { 0x1f8e, 0, 0 } },
    { 0x1f8f, { 0x1f0f, 0x0399, 0 }, { 0x1f8f, 0, 0 } },
    { 0x1f90, { 0x1f28, 0x0399, 0 }, { 0x1f98, 0, 0 } },
    { 0x1f91, { 0x1f29, 0x0399, 0 }, { 0x1f99, 0, 0 } },
    { 0x1f92, { 0x1f2a, 0x0399, 0 }, { 0x1f9a, 0, 0 } },
    { 0x1f93, { 0x1f2b, 0x0399, 0 }, { 0x1f9b, 0, 0 } },
    { 0x1f94, { 0x1f2c, 0x0399, 0 }, { 0x1f9c, 0, 0 } },
    { 0x1f95, { 0x1f2d, 0x0399, 0 }, { 0x1f9d, 0, 0 } },
    { 0x1f96, { 0x1f2e, 0x0399, 0 }, { 0x1f9e, 0, 0 } },
    { 0x1f97, { 0x1f2f, 0x0399, 0 }, { 0x1f9f, 0, 0 } },
    { 0x1f98, { 0x1f28, 0x0399, 0 }, { 0x1f98, 0, 0 } },
    { 0x1f99, { 0x1f29, 0x0399, 0 }, { 0x1f99, 0, 0 } },
    { 0x1f9a, { 0x1f2a, 0x0399, 0 }, { 0x1f9a, 0, 0 } },
    { 0x1f9b, { 0x1f2b, 0x0399, 0 }, { 0x1f9b, 0, 0 } },
    { 0x1f9c, { 0x1f2c, 0x0399, 0 }, { 0x1f9c, 0, 0 } },
    { 0x1f9d, { 0x1f2d, 0x0399, 0 }, { 0x1f9d, 0, 0 } },
    { 0x1f9e, { 0x1f2e, 0x0399, 0 }, { 0x1f9e, 0, 0 } },
    { 0x1f9f, { 0x1f2f, 0x0399, 0 }, { 0x1f9f, 0, 0 } },
    { 0x1fa0, { 0x1f68, 0x0399, 0 }, { 0x1fa8, 0, 0 } },
    { 0x1fa1, { 0x1f69, 0x0399, 0 }, { 0x1fa9, 0, 0 } },
    { 0x1fa2, { 0x1f6a, 0x0399, 0 }, { 0x1faa, 0, 0 } },
    { 0x1fa3, { 0x1f6b, 0x0399, 0 }, { 0x1fab, 0, 0 } },
    { 0x1fa4, { 0x1f6c, 0x0399, 0 }, { 0x1fac, 0, 0 } },
    { 0x1fa5, { 0x1f6d, 0x0399, 0 }, { 0x1fad, 0, 0 } },
    { 0x1fa6, { 0x1f6e, 0x0399, 0 }, { 0x1fae, 0, 0 } },
    { 0x1fa7, { 0x1f6f, 0x0399, 0 }, { 0x1faf, 0, 0 } },
    { 0x1fa8, { 0x1f68, 0x0399, 0 }, { 0x1fa8, 0, 0 } },
    { 0x1fa9, { 0x1f69, 0x0399, 0 }, { 0x1fa9, 0, 0 } },
    { 0x1faa, { 0x1f6a, 0x0399, 0 }, { 0x1faa, 0, 0 } },
    { 0x1fab, { 0x1f6b, 0x0399, 0 }, { 0x1fab, 0, 0 } },
    { 0x1fac, { 0x1f6c, 0x0399, 0 }, { 0x1fac, 0, 0 } },
    { 0x1fad, { 0x1f6d, 0x0399, 0 }, { 0x1fad, 0, 0 } },
    { 0x1fae, { 0x1f6e, 0x0399, 0 }, { 0x1fae, 0, 0 } },
    { 0x1faf, { 0x1f6f, 0x0399, 0 }, { 0x1faf, 0, 0 } },
    { 0x1fb2, { 0x1fba, 0x0399, 0 }, { 0x1fba, 0x0345, 0 } },
    { 0x1fb3, { 0x0391, 0x0399, 0 }, { 0x1fbc, 0, 0 } },
    { 0x1fb4, { 0x0386, 0x0399, 0 }, { 0x0386, 0x0345, 0 } },
    { 0x1fb6, { 0x0391, 0x0342, 0 }, { 0x0391, 0x0342, 0 } },
    { 0x1fb7, { 0x0391, 0x0342, 0x0399 }, { 0x0391, 0x0342, 0x0345 } },
    { 0x1fbc, { 0x0391, 0x0399, 0 }, { 0x1fbc, 0, 0 } },
    { 0x1fc2, { 0x1fca, 0x0399, 0 }, { 0x1fca, 0x0345, 0 } },
    { 0x1fc3, { 0x0397, 0x0399, 0 }, { 0x1fcc, 0, 0 } },
    { 0x1fc4, { 0x0389, 0x0399, 0 }, { 0x0389, 0x0345, 0 } },
    { 0x1fc6, { 0x0397, 0x0342, 0 }, { 0x0397, 0x0342, 0 } },
    { 0x1fc7, { 0x0397, 0x0342, 0x0399 }, { 0x0397, 0x0342, 0x0345 } },
    { 0x1fcc, { 0x0397, 0x0399, 0 }, { 0x1fcc, 0, 0 } },
    { 0x1fd2, { 0x0399, 0x0308, 0x0300 }, { 0x0399, 0x0308, 0x0300 } },
    { 0x1fd3, { 0x0399, 0x0308, 0x0301 }, { 0x0399, 0x0308, 0x0301 } },
    { 0x1fd6, { 0x0399, 0x0342, 0 }, { 0x0399, 0x0342, 0 } },
    { 0x1fd7, { 0x0399, 0x0308, 0x0342 }, { 0x0399, 0x0308, 0x0342 } },
    { 0x1fe2, { 0x03a5, 0x0308, 0x0300 }, { 0x03a5, 0x0308, 0x0300 } },
    { 0x1fe3, { 0x03a5, 0x0308, 0x0301 }, { 0x03a5, 0x0308, 0x0301 } },
    { 0x1fe4, { 0x03a1, 0x0313, 0 }, { 0x03a1, 0x0313, 0 } },
    { 0x1fe6, { 0x03a5, 0x0342, 0 }, { 0x03a5, 0x0342, 0 } },
    { 0x1fe7, { 0x03a5, 0x0308, 0x0342 }, { 0x03a5, 0x0308, 0x0342 } },
    { 0x1ff2, { 0x1ffa, 0x0399, 0 }, { 0x1ffa, 0x0345, 0 } },
    { 0x1ff3, { 0x03a9, 0x0399, 0 }, { 0x1ffc, 0, 0 } },
    { 0x1ff4, { 0x038f, 0x0399, 0 }, { 0x038f, 0x0345, 0 } },
    { 0x1ff6, { 0x03a9, 0x0342, 0 }, { 0x03a9, 0x0342, 0 } },
    { 0x1ff7, { 0x03a9, 0x0342, 0x0399 }, { 0x03a9, 0x0342, 0x0345 } },
    { 0x1ffc, { 0x03a9, 0x0399, 0 }, { 0x1ffc, 0, 0 } },
    { 0xfb00, { 0x0046, 0x0046, 0 }, { 0x0046, 0x0066, 0 } },
    { 0xfb01, { 0x0046, 0x0049, 0 }, { 0x0046, 0x0069, 0 } },
    { 0xfb02, { 0x0046, 0x004c, 0 }, { 0x0046, 0x006c, 0 } },
    { 0xfb03, { 0x0046, 0x0046, 0x0049 }, { 0x0046, 0x0066, 0x0069 } },
    { 0xfb04, { 0x0046, 0x0046, 0x004c }, { 0x0046, 0x0066, 0x006c } },
    { 0xfb05, { 0x0053, 0x0054, 0 }, { 0x0053, 0x0074, 0 } },
    { 0xfb06, { 0x0053, 0x0054, 0 }, { 0x0053, 0x0074, 0 } },
    { 0xfb13, { 0x0544, 0x0546, 0 }, { 0x0544, 0x0576, 0 } },
    { 0xfb14, { 0x0544, 0x0535, 0 }, { 0x0544, 0x0565, 0 } },
    { 0xfb15, { 0x0544, 0x053b, 0 }, { 0x0544, 0x056b, 0 } },
    { 0xfb16, { 0x054e, 0x0546, 0 }, { 0x054e, 0x0576, 0 } },
    { 0xfb17, { 0x0544, 0x053d, 0 }, { 0x0544, 0x056d, 0 } },
};

static const struct special *find_special(uint32_t cp)
{
    size_t low = 0;
    size_t high = sizeof(specials) / sizeof(specials[0]);
    while (low < high) {
        const size_t mid = (low + high) / 2;
        if (specials[mid].from == cp) {
            return &specials[mid];
        }
        if (specials[mid].from < cp) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

/* --- kinds of characters ---------------------------------------------------------------------- */

static bool is_in(uint32_t cp, const uint32_t (*range)[2], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (cp >= range[i][0] && cp <= range[i][1]) {
            return true;
        }
    }
    return false;
}

static bool is_letter(uint32_t cp)
{
    const enum unicode_category c = unicode_category(cp);
    return c >= UNICODE_LU && c <= UNICODE_LO;
}

static bool is_number(uint32_t cp)
{
    const enum unicode_category c = unicode_category(cp);
    return c >= UNICODE_ND && c <= UNICODE_NO;
}

/* Digits that are no decimal ones. */
static bool is_odd_digit(uint32_t cp)
{
    static const uint32_t range[][2] = {
        { 0xb2, 0xb3 },       { 0xb9, 0xb9 },       { 0x1369, 0x1371 },   { 0x19da, 0x19da },
        { 0x2070, 0x2070 },   { 0x2074, 0x2079 },   { 0x2080, 0x2089 },   { 0x2460, 0x2468 },
        { 0x2474, 0x247c },   { 0x2488, 0x2490 },   { 0x24ea, 0x24ea },   { 0x24f5, 0x24fd },
        { 0x24ff, 0x24ff },   { 0x2776, 0x277e },   { 0x2780, 0x2788 },   { 0x278a, 0x2792 },
        { 0x10a40, 0x10a43 }, { 0x10e60, 0x10e68 }, { 0x11052, 0x1105a }, { 0x1f100, 0x1f10a },
    };
    return is_in(cp, range, sizeof(range) / sizeof(range[0]));
}

bool jcase_is_alnum(uint32_t cp)
{
    if (cp < 0x80) {
        return (cp >= '0' && cp <= '9') || ((cp | 0x20) >= 'a' && (cp | 0x20) <= 'z');
    }
    return is_letter(cp) || is_number(cp);
}

/* The categories from ZS on in unicode.h are the separators and the rest of "Other". */
bool jcase_is_printable(uint32_t cp)
{
    if (cp < 0x7f) {
        return cp >= ' ';
    }
    const enum unicode_category c = unicode_category(cp);
    return !(c == UNICODE_CN || c >= UNICODE_ZS);
}

/* Letters that have case without a counterpart, beyond Lu, Ll and Lt (Other_Lowercase). */
static bool is_odd_lower(uint32_t cp)
{
    static const uint32_t range[][2] = {
        { 0xaa, 0xaa },       { 0xba, 0xba },       { 0x2b0, 0x2b8 },     { 0x2c0, 0x2c1 },
        { 0x2e0, 0x2e4 },     { 0x345, 0x345 },     { 0x37a, 0x37a },     { 0x1d2c, 0x1d6a },
        { 0x1d78, 0x1d78 },   { 0x1d9b, 0x1dbf },   { 0x2071, 0x2071 },   { 0x207f, 0x207f },
        { 0x2090, 0x209c },   { 0x2170, 0x217f },   { 0x24d0, 0x24e9 },   { 0x2c7c, 0x2c7d },
        { 0xa69c, 0xa69d },   { 0xa770, 0xa770 },   { 0xa7f8, 0xa7f9 },   { 0xab5c, 0xab5f },
        { 0x10780, 0x10780 }, { 0x10783, 0x10785 }, { 0x10787, 0x107b0 }, { 0x107b2, 0x107ba },
    };
    return is_in(cp, range, sizeof(range) / sizeof(range[0]));
}

static bool is_lower(uint32_t cp)
{
    return unicode_category(cp) == UNICODE_LL || is_odd_lower(cp);
}

/* Beyond Lu: Roman numerals and letters in circles, squares and black (Other_Uppercase). */
static bool is_upper(uint32_t cp)
{
    return unicode_category(cp) == UNICODE_LU || (cp >= 0x2160 && cp <= 0x216f) ||
           (cp >= 0x24b6 && cp <= 0x24cf) || (cp >= 0x1f130 && cp <= 0x1f149) ||
           (cp >= 0x1f150 && cp <= 0x1f169) || (cp >= 0x1f170 && cp <= 0x1f189);
}

static bool is_title(uint32_t cp)
{
    return unicode_category(cp) == UNICODE_LT;
}

static bool is_cased(uint32_t cp)
{
    return is_lower(cp) || is_upper(cp) || is_title(cp);
}

/* Characters that do not end a word when the form of a sigma is chosen. */
static bool is_case_ignorable(uint32_t cp)
{
    static const uint32_t range[][2] = {
        { 0x27, 0x27 },     { 0x2e, 0x2e },     { 0x3a, 0x3a },     { 0xb7, 0xb7 },
        { 0x387, 0x387 },   { 0x55f, 0x55f },   { 0x5f4, 0x5f4 },   { 0x2018, 0x2019 },
        { 0x2024, 0x2024 }, { 0x2027, 0x2027 }, { 0xfe13, 0xfe13 }, { 0xfe52, 0xfe52 },
        { 0xfe55, 0xfe55 }, { 0xff07, 0xff07 }, { 0xff0e, 0xff0e }, { 0xff1a, 0xff1a },
    };
    const enum unicode_category c = unicode_category(cp);
    return c == UNICODE_MN || c == UNICODE_ME || c == UNICODE_CF || c == UNICODE_LM ||
           c == UNICODE_SK || is_in(cp, range, sizeof(range) / sizeof(range[0]));
}

/* --- mapping ---------------------------------------------------------------------------------- */

static void put(const uint32_t from[3], uint32_t out[4])
{
    memcpy(out, from, 3 * sizeof(*out));
    out[3] = 0;
}

static void put_one(uint32_t cp, uint32_t out[4])
{
    out[0] = cp;
    out[1] = 0;
}

static void to_upper(uint32_t cp, uint32_t out[4])
{
    const struct special *s = cp < 0x80 ? NULL : find_special(cp);
    if (s != NULL) {
        put(s->upper, out);
    } else {
        put_one(unicode_upper(cp), out);
    }
}

static void to_title(uint32_t cp, uint32_t out[4])
{
    const struct special *s = cp < 0x80 ? NULL : find_special(cp);
    if (s != NULL) {
        put(s->title, out);
    } else {
        put_one(unicode_title(cp), out);
    }
}

/* Whether the sigma at byte `at` ends a word. */
static bool is_final_sigma(const struct jstr *s, size_t at)
{
    size_t n = 0;
    bool is_behind_letter = false;
    for (size_t i = at; i > 0;) {
        i = jstr_before(s, i);
        const uint32_t cp = jstr_read(s, i, &n);
        if (!is_case_ignorable(cp)) {
            is_behind_letter = is_cased(cp);
            break;
        }
    }
    if (!is_behind_letter) {
        return false;
    }
    for (size_t i = at + 2; i < s->n; i += n) { /* the sigma has two bytes */
        const uint32_t cp = jstr_read(s, i, &n);
        if (!is_case_ignorable(cp)) {
            return !is_cased(cp);
        }
    }
    return true;
}

static void to_lower(const struct jstr *s, size_t at, uint32_t cp, uint32_t out[4])
{
    if (cp == 0x130) {
        const uint32_t dotted[3] = { 0x69, 0x307, 0 };
        put(dotted, out);
    } else if (cp == 0x3a3) {
        put_one(is_final_sigma(s, at) ? 0x3c2 : 0x3c3, out);
    } else {
        put_one(unicode_lower(cp), out);
    }
}

/* Folding is the lower case of the upper case, which brings together what has one upper case (sigma
 * and final sigma). The exceptions: letters that fold to themselves although their upper case has
 * another lower case, and Cherokee, whose small letters fold to capitals. */
static void to_fold(uint32_t cp, uint32_t out[4])
{
    if (cp == 0x131 || (cp >= 0x13a0 && cp <= 0x13f5)) {
        put_one(cp, out);
        return;
    }
    if (cp == 0x130) {
        const uint32_t dotted[3] = { 0x69, 0x307, 0 };
        put(dotted, out);
        return;
    }
    if (cp == 0x1e9e) {
        const uint32_t sharp[3] = { 0x73, 0x73, 0 };
        put(sharp, out);
        return;
    }
    to_upper(cp, out);
    const bool is_cherokee = (cp >= 0x13f8 && cp <= 0x13fd) || (cp >= 0xab70 && cp <= 0xabbf);
    for (int i = 0; i < 3 && out[i] != 0 && !is_cherokee; i++) {
        out[i] = unicode_lower(out[i]);
    }
}

/* The character at byte `at` under a mapping; is_start: nothing cased stands right before it. */
static void map_one(const struct jstr *s, size_t at, enum jcase_map how, bool is_start,
                    uint32_t out[4])
{
    size_t n = 0;
    const uint32_t cp = jstr_read(s, at, &n);
    switch (how) {
    case JCASE_UPPER:
        to_upper(cp, out);
        break;
    case JCASE_LOWER:
        to_lower(s, at, cp, out);
        break;
    case JCASE_TITLE:
    case JCASE_CAPITALIZE:
        if (is_start) {
            to_title(cp, out);
        } else {
            to_lower(s, at, cp, out);
        }
        break;
    case JCASE_SWAP:
        if (is_upper(cp)) {
            to_lower(s, at, cp, out);
        } else if (is_lower(cp)) {
            to_upper(cp, out);
        } else {
            put_one(cp, out);
        }
        break;
    case JCASE_FOLD:
        to_fold(cp, out);
        break;
    }
}

const struct jstr *jcase_map(struct jmem *m, const struct jstr *s, enum jcase_map how)
{
    m->err = jmem_walk(m, s->n * 4);
    if (m->err != ERR_OK) {
        return NULL;
    }
    struct jstr_out o;
    jstr_begin(&o, m);
    bool is_start = true;
    for (size_t at = 0; at < s->n && !o.is_failed;) {
        uint32_t to[4] = { 0 };
        size_t n = 0;
        const uint32_t cp = jstr_read(s, at, &n);
        map_one(s, at, how, is_start, to);
        for (int i = 0; to[i] != 0 || i == 0; i++) { /* a first 0 is the character 0 itself */
            jstr_add_code(&o, to[i], jstr_trust_at(s, at));
        }
        is_start = how == JCASE_TITLE && !is_cased(cp);
        at += n;
    }
    return jstr_end(&o, s->is_markup);
}

/* --- questions -------------------------------------------------------------------------------- */

static bool is_decimal(uint32_t cp)
{
    return unicode_category(cp) == UNICODE_ND;
}

static bool is_digit(uint32_t cp)
{
    return is_decimal(cp) || is_odd_digit(cp);
}

static bool is_ascii(uint32_t cp)
{
    return cp < 0x80;
}

static bool all(const struct jstr *s, bool (*is)(uint32_t cp))
{
    for (size_t at = 0; at < s->n;) {
        size_t n = 0;
        if (!is(jstr_read(s, at, &n))) {
            return false;
        }
        at += n;
    }
    return true;
}

/* Some cased letter, and none of the other case. */
static bool all_of_case(const struct jstr *s, bool want_upper)
{
    bool has = false;
    for (size_t at = 0; at < s->n;) {
        size_t n = 0;
        const uint32_t cp = jstr_read(s, at, &n);
        if (is_title(cp) || (want_upper ? is_lower(cp) : is_upper(cp))) {
            return false;
        }
        has |= want_upper ? is_upper(cp) : is_lower(cp);
        at += n;
    }
    return has;
}

static bool is_title_text(const struct jstr *s)
{
    bool has = false;
    bool was_cased = false;
    for (size_t at = 0; at < s->n;) {
        size_t n = 0;
        const uint32_t cp = jstr_read(s, at, &n);
        const bool is_big = is_upper(cp) || is_title(cp);
        if (is_big ? was_cased : is_lower(cp) && !was_cased) {
            return false;
        }
        was_cased = is_big || is_lower(cp);
        has |= was_cased;
        at += n;
    }
    return has;
}

static bool is_identifier(const struct jstr *s)
{
    for (size_t at = 0; at < s->n;) {
        size_t n = 0;
        const uint32_t cp = jstr_read(s, at, &n);
        const enum unicode_category c = unicode_category(cp);
        const bool is_start = cp == '_' || is_letter(cp) || c == UNICODE_NL;
        const bool is_more =
            c == UNICODE_ND || c == UNICODE_MN || c == UNICODE_MC || c == UNICODE_PC;
        if (!is_start && (at == 0 || !is_more)) {
            return false;
        }
        at += n;
    }
    return s->n > 0;
}

bool jcase_is(const struct jstr *s, struct view name)
{
    static const struct {
        const char *name;
        bool (*is)(uint32_t cp);
    } each[] = {
        { "alpha", is_letter },    { "alnum", jcase_is_alnum },
        { "decimal", is_decimal }, { "digit", is_digit },
        { "numeric", is_number },  { "space", jstr_is_space },
        { "ascii", is_ascii },     { "printable", jcase_is_printable },
    };
    for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
        if (view_is(name, each[i].name)) {
            /* of no characters all are ASCII and printable, as Python says; the others want one */
            const bool is_empty_fine = each[i].is == is_ascii || each[i].is == jcase_is_printable;
            return s->n == 0 ? is_empty_fine : all(s, each[i].is);
        }
    }
    if (view_is(name, "upper") || view_is(name, "lower")) {
        return all_of_case(s, view_is(name, "upper"));
    }
    if (view_is(name, "title")) {
        return is_title_text(s);
    }
    return view_is(name, "identifier") && is_identifier(s);
}
