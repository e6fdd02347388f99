/* tok_wpm - WordPiece, as BERT uses it
 *
 * Text is normalized (decomposed, lower-cased, accents dropped, as the file asks), cut at white
 * space and around punctuation and Han characters, and each word is covered from the left by the
 * longest pieces that fit (Schuster & Nakajima 2012; Devlin et al. 2019). A word without cover, or
 * of more than 100 characters, is one unknown token. The file's pieces begin with U+2581 where a
 * word begins.
 *
 * Next: tok.c. */
#include "base/mem.h"
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <string.h>

#define WORD_CHARS_MAX 100

static bool is_han(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B820 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* Punctuation that came into Unicode after version 8, whose tables the reference tokenizer has. */
static bool is_newer(uint32_t c)
{
    static const struct {
        uint32_t lo;
        uint32_t hi;
    } rows[] = { { 0x061D, 0x061D },   { 0x0A76, 0x0A76 },   { 0x0C77, 0x0C77 },
                 { 0x0C84, 0x0C84 },   { 0x1B7D, 0x1B7E },   { 0x2E43, 0x2E5D },
                 { 0x10EAD, 0x10EAD }, { 0x10F55, 0x10F59 }, { 0x10F86, 0x10F89 },
                 { 0x1144B, 0x1145D }, { 0x11660, 0x1166C }, { 0x116B9, 0x116B9 },
                 { 0x1183B, 0x1183B }, { 0x11944, 0x11946 }, { 0x119E2, 0x119E2 },
                 { 0x11A3F, 0x11A46 }, { 0x11A9A, 0x11AA2 }, { 0x11B00, 0x11B09 },
                 { 0x11C41, 0x11C45 }, { 0x11C70, 0x11C71 }, { 0x11EF7, 0x11EF8 },
                 { 0x11F43, 0x11F4F }, { 0x11FFF, 0x11FFF }, { 0x12FF1, 0x12FF2 },
                 { 0x16E97, 0x16E9A }, { 0x1E95E, 0x1E95F }, { 0x1145A, 0x1145B } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (c >= rows[i].lo && c <= rows[i].hi) {
            return true;
        }
    }
    return false;
}

static bool is_punctuation(uint32_t c)
{
    const enum unicode_category k = unicode_category(c);
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
           (c >= 123 && c <= 126) || (k >= UNICODE_PC && k <= UNICODE_PO && !is_newer(c));
}

static bool is_dropped(uint32_t c)
{
    const enum unicode_category k = unicode_category(c);
    const bool is_blank = c == '\t' || c == '\n' || c == '\r';
    return c == 0 || c == 0xFFFD ||
           ((k == UNICODE_CC || k == UNICODE_CF || k == UNICODE_CN || k == UNICODE_CO) &&
            !is_blank);
}

/* word begins with U+2581, which is no character of the text. */
static void cover(const struct tok *t, struct view word, size_t n_char, struct tok_list *out)
{
    const size_t n_before = out->n;
    size_t at = 0;
    while (n_char <= WORD_CHARS_MAX && at < word.n) {
        size_t len = word.n - at;
        int32_t id = -1;
        for (; len > (at == 0 ? 3u : 0u); len--) {
            const struct view piece = view_part(word, at, len);
            const bool is_start = view_starts(piece, VIEW("\xE2\x96\x81"));
            id = is_start == (at == 0) ? tok_lookup_text(t, piece) : -1;
            if (id >= 0) {
                break;
            }
        }
        if (id < 0) {
            break;
        }
        tok_emit(out, id);
        at += len;
    }
    if (at < word.n) { /* no cover: its pieces are taken back */
        out->n = n_before;
        tok_emit(out, t->unk);
    }
}

/* A word being collected; of one that is too long the beginning. */
struct word {
    char text[3 + 4 * WORD_CHARS_MAX];
    size_t n;
    size_t n_char;
};

static void word_end(const struct tok *t, struct word *w, struct tok_list *out)
{
    if (w->n_char > 0) {
        cover(t, (struct view){ w->text, w->n }, w->n_char, out);
    }
    w->n = 0;
    w->n_char = 0;
}

static void word_add(struct word *w, uint32_t code)
{
    if (w->n_char == 0) {
        w->n = (size_t)utf8_put(0x2581, w->text);
    }
    w->n_char++;
    if (w->n_char <= WORD_CHARS_MAX) {
        w->n += (size_t)utf8_put(code, w->text + w->n);
    }
}

static enum err normalize(const struct tok *t, struct view text, struct buf *clean, struct buf *out)
{
    for (size_t at = 0; at < text.n;) {
        uint32_t code = 0;
        const int n = utf8_read(text.p + at, text.n - at, &code);
        at += n > 0 ? (size_t)n : 1;
        if (is_dropped(code)) {
            continue;
        }
        buf_add_code(clean, unicode_is_space(code) ? ' ' : code);
    }
    TRY(buf_check(clean, "text"));
    if (t->is_stripped) {
        return unicode_normalize(UNICODE_NFD, buf_view(clean), out);
    }
    buf_add_view(out, buf_view(clean));
    return buf_check(out, "text");
}

enum err tok_wpm_encode(const struct tok *t, struct view text, struct tok_list *out)
{
    struct buf clean;
    struct buf normal;
    struct word w;
    w.n = 0;
    w.n_char = 0;
    buf_init(&clean, 4 * text.n + 16);
    buf_init(&normal, 12 * text.n + 64);
    const enum err e = normalize(t, text, &clean, &normal);
    for (size_t at = 0; at < normal.n && e == ERR_OK;) {
        uint32_t code = 0;
        const int n = utf8_read(normal.p + at, normal.n - at, &code);
        at += n > 0 ? (size_t)n : 1;
        if (t->is_stripped && unicode_category(code) == UNICODE_MN) {
            continue;
        }
        code = t->is_lower ? unicode_lower(code) : code;
        if (unicode_is_space(code)) {
            word_end(t, &w, out);
        } else if (is_punctuation(code) || is_han(code)) {
            word_end(t, &w, out);
            word_add(&w, code);
            word_end(t, &w, out);
        } else {
            word_add(&w, code);
        }
    }
    word_end(t, &w, out);
    buf_release(&clean);
    buf_release(&normal);
    return e;
}
