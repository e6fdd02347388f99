/* tok_merge - merging neighbouring symbols of a text, cheapest pair first (model/tok_merge.c)
 *
 * What the two byte-pair encodings share: tok_bpe.c prices a pair by the rank of its merge,
 * tok_spm.c by the score of the piece it makes. One thread per object. */
#ifndef HEARTH_TOK_MERGE_H
#define HEARTH_TOK_MERGE_H

#include "model/tok_impl.h"

/* A part of the text; the chain of symbols begins at 0. Small, since a text may be one word. */
struct tok_symbol {
    uint32_t at;    /* of its bytes in the text */
    uint32_t n;     /* bytes; 0: merged into the one before */
    int32_t before; /* neighbours, -1 = none */
    int32_t after;  /* likewise */
};

/* Whether a and b, which follow each other in the text, may become one, and what that costs. */
typedef bool (*tok_merge_fn)(const struct tok *t, struct view a, struct view b, int32_t *cost);

struct tok_merge {
    struct tok_symbol *symbols; /* owns */
    struct tok_pair *heap;      /* owns */
    size_t n_heap;
    struct view text;    /* of the run; borrows */
    const struct tok *t; /* borrows */
    tok_merge_fn may;
};

/* Takes the memory for texts of up to n_max characters, 48 bytes for each. ERR_MEMORY. */
enum err tok_merge_init(struct tok_merge *m, const struct tok *t, tok_merge_fn may,
                        size_t n_max) MUST_USE;
void tok_merge_release(struct tok_merge *m); /* accepts a zeroed object */

/* Cuts the text into characters (a byte that begins none counts as one) and merges until no pair
 * may. Returns the first symbol, -1 for an empty text; go on with `after`. n log n. */
int32_t tok_merge_run(struct tok_merge *m, struct view text);
struct view tok_merge_text(const struct tok_merge *m, int32_t i_symbol); /* borrows */

#endif
