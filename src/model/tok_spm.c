/* tok_spm - SentencePiece's byte-pair encoding
 *
 * Blanks become U+2581, text begins as single characters, and the neighbouring pair whose union is
 * the piece with the best score is merged until none is left (Kudo & Richardson 2018). What has no
 * piece falls back to byte tokens. Unlike tok_bpe.c there is no cutting beforehand, so the heap may
 * hold the whole text; time is n log n all the same.
 *
 *     " hello"  ->  _ h e l l o  ->  _ h e ll o  ->  _ he ll o  ->  _hello      (_ is U+2581)
 *
 * Symbols form a chain with links to both neighbours; a merge makes the left one longer and takes
 * the right one out. Pairs that the heap still holds of symbols that have changed are passed over
 * when they come up, which is cheaper than finding and removing them.
 *
 * Next: tok_wpm.c. */
#include "base/mem.h"
#include "model/tok_impl.h"

#include <string.h>

struct symbol {
    size_t at, n; /* bytes of the escaped text; n = 0: merged away */
    int32_t before, after;
};

struct work {
    struct view text;
    struct symbol *symbols;
    struct tok_pair *heap;
    size_t n_heap;
};

/* The pair (left, right) into the heap, when their union is a piece. */
static void consider(const struct tok *t, struct work *w, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) {
        return;
    }
    const struct symbol *l = &w->symbols[left];
    const size_t n = l->n + w->symbols[right].n;
    const int32_t id = tok_lookup(t, view_part(w->text, l->at, n));
    if (id >= 0 && t->type[id] != TOK_CONTROL) {
        const double cost = t->score != NULL ? -(double)t->score[id] : 0.0;
        tok_push(w->heap, &w->n_heap, (struct tok_pair){ cost, left, right, n });
    }
}

/* A symbol that is no piece becomes its bytes; without byte tokens, one unknown token. */
static void emit_symbol(const struct tok *t, struct view text, struct tok_list *out)
{
    const int32_t id = tok_lookup(t, text);
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

static void merge(const struct tok *t, struct work *w, struct tok_list *out)
{
    int32_t n = 0;
    for (size_t at = 0; at < w->text.n; n++) {
        uint32_t code;
        const int len = utf8_read(w->text.p + at, w->text.n - at, &code);
        w->symbols[n] = (struct symbol){ at, len > 0 ? (size_t)len : 1, n - 1, n + 1 };
        at += w->symbols[n].n;
    }
    if (n == 0) {
        return;
    }
    w->symbols[n - 1].after = -1;
    for (int32_t i = 1; i < n; i++) {
        consider(t, w, i - 1, i);
    }
    while (w->n_heap > 0) {
        const struct tok_pair c = tok_pop(w->heap, &w->n_heap);
        struct symbol *l = &w->symbols[c.left];
        struct symbol *r = &w->symbols[c.right];
        if (l->n == 0 || r->n == 0 || l->n + r->n != c.n || l->after != c.right) {
            continue;
        }
        l->n = c.n;
        r->n = 0;
        l->after = r->after;
        if (r->after >= 0) {
            w->symbols[r->after].before = c.left;
        }
        consider(t, w, l->before, c.left);
        consider(t, w, c.left, l->after);
    }
    for (int32_t i = 0; i >= 0; i = w->symbols[i].after) {
        emit_symbol(t, view_part(w->text, w->symbols[i].at, w->symbols[i].n), out);
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
    struct work w = { .text = buf_view(&escaped) };
    w.symbols = mem_alloc_array(escaped.n + 1, sizeof w.symbols[0]);
    w.heap = mem_alloc_array(3 * (escaped.n + 1), sizeof w.heap[0]);
    if (e == ERR_OK && (w.symbols == NULL || w.heap == NULL)) {
        e = err_set(ERR_MEMORY, "no memory to tokenize %zu bytes", text.n);
    }
    if (e == ERR_OK) {
        merge(t, &w, out);
    }
    mem_free(w.symbols);
    mem_free(w.heap);
    buf_release(&escaped);
    return e;
}
