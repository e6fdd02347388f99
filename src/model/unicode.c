/* unicode - categories, case and normal forms of code points
 *
 * A thin coat over utf8proc. Tokenizers and templates depend on these tables more than one would
 * think: a model was trained on what its tokenizer's library took for a letter, so the tables must
 * be real ones and not ASCII with exceptions.
 *
 * White space is the White_Space property (PropList.txt), which is neither the category Zs nor what
 * C's isspace takes.
 *
 * Next: model/rx.c. */
#include "model/unicode.h"

#include <stdlib.h>
#include <utf8proc.h>

enum unicode_category unicode_category(uint32_t code)
{
    const utf8proc_category_t c =
        utf8proc_category((utf8proc_int32_t)code); /* the same order as ours */
    return (enum unicode_category)c;
}

bool unicode_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

uint32_t unicode_upper(uint32_t code)
{
    return (uint32_t)utf8proc_toupper((utf8proc_int32_t)code);
}

uint32_t unicode_lower(uint32_t code)
{
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
}

uint32_t unicode_title(uint32_t code)
{
    return (uint32_t)utf8proc_totitle((utf8proc_int32_t)code);
}

enum err unicode_normalize(enum unicode_form form, struct view text, struct buf *out)
{
    static const unsigned options[] = { UTF8PROC_STABLE | UTF8PROC_COMPOSE,
                                        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
                                        UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT };
    if (text.n == 0) {
        return ERR_OK;
    }
    utf8proc_uint8_t *result = NULL;
    const utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text.p, (utf8proc_ssize_t)text.n, &result,
                     (utf8proc_option_t)options[form]);
    REQUIRE(n != UTF8PROC_ERROR_NOMEM, ERR_MEMORY, "no memory to normalize %zu bytes", text.n);
    REQUIRE(n >= 0, ERR_USAGE, "cannot normalize: %s", utf8proc_errmsg(n));
    buf_add(out, result, (size_t)n);
    free(result); /* utf8proc's own allocation */
    return buf_check(out, "normalized text");
}
