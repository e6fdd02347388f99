/* tok_spm - SentencePiece's byte-pair encoding
 *
 * Blanks become U+2581, text begins as single characters, and the neighbouring pair whose union is
 * the piece with the best score is merged until none is left (Kudo & Richardson 2018). What has no
 * piece falls back to byte tokens. Unlike tok_bpe.c there is no cutting beforehand, so the heap may
 * hold the whole text; time is n log n all the same (tok_merge.c).
 *
 * Next: tok_wpm.c. */
#include "model/tok_merge.h"

#include <string.h>

/* A whole number in the order of the floats (IEEE 754: below zero the bits run backwards); 0.0f - x
 * has no negative zero. */
static int32_t cost_of(float score)
{
    const float cost = 0.0f - score;
    int32_t bits;
    memcpy(&bits, &cost, sizeof bits);
    return bits < 0 ? bits ^ INT32_MAX : bits;
}

/* The union is a piece; the better its score, the sooner. */
static bool may_merge(const struct tok *t, struct view a, struct view b, int32_t *cost)
{
    const int32_t id = tok_lookup_text(t, (struct view){ a.p, a.n + b.n });
    if (id < 0) {
        return false;
    }
    *cost = t->score != NULL ? cost_of(t->score[id]) : 0;
    return true;
}

/* A symbol that is no piece becomes its bytes; without byte tokens, one unknown token. */
static void emit_symbol(const struct tok *t, struct view text, struct tok_list *out)
{
    const int32_t id = tok_lookup_text(t, text);
    if (id >= 0) {
        tok_emit(out, id);
        return;
    }
    for (size_t i = 0; i < text.n; i++) {
        const int32_t byte = t->byte_id[(uint8_t)text.p[i]];
        if (byte >= 0) {
            tok_emit(out, byte);
        } else {
            if (t->unk >= 0) {
                tok_emit(out, t->unk);
            }
            return;
        }
    }
}

enum err tok_spm_encode(const struct tok *t, struct view text, bool is_first, struct tok_list *out)
{
    struct buf escaped;
    buf_init(&escaped, 3 * text.n + 16);
    if (t->adds_space && is_first && text.n > 0) {
        buf_add(&escaped, "\xE2\x96\x81", 3);
    }
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == ' ') {
            buf_add(&escaped, "\xE2\x96\x81", 3);
        } else {
            buf_add_char(&escaped, text.p[i]);
        }
    }
    enum err e = buf_check(&escaped, "text");
    struct tok_merge m = { 0 };
    e = e == ERR_OK ? tok_merge_init(&m, t, may_merge, text.n + 1) : e;
    if (e == ERR_OK) {
        for (int32_t i = tok_merge_run(&m, buf_view(&escaped)); i >= 0; i = m.symbols[i].after) {
            emit_symbol(t, tok_merge_text(&m, i), out);
        }
    }
    tok_merge_release(&m);
    buf_release(&escaped);
    return e;
}
