/* tok_impl - what the tokenizer's files share (header only, private to model/tok*) */
#ifndef HEARTH_TOK_IMPL_H
#define HEARTH_TOK_IMPL_H

#include "model/rx.h"
#include "model/tok.h"

#include <stdbool.h>
#include <stdint.h>

/* Token types of tokenizer.ggml.token_type. */
enum tok_type { TOK_NORMAL = 1, TOK_UNKNOWN, TOK_CONTROL, TOK_USER, TOK_UNUSED, TOK_BYTE };

#define TOK_PIECE_MAX 3584 /* bytes of one token's piece */
#define TOK_SPLIT_MAX 6    /* patterns applied one after the other */

enum tok_family { TOK_BPE, TOK_SPM, TOK_WPM, TOK_GEMMA_BPE, TOK_UGM };

/* The tokens of some types, to find those that begin a text (tok_trie.c). */
struct tok_trie {
    uint32_t *first; /* [n_node + 1] first child; the next node's first child ends them; owns */
    uint8_t *label;  /* [n_node] byte that leads to the node; owns */
    int32_t *id;     /* [n_node] token that ends here, of equal ones the first, -1 = none; owns */
    uint32_t n_node; /* node 0 is the empty text */
};

struct tok_ugm; /* trie, rules and scores of a unigram vocabulary */

/* An array of strings, in one piece; owns all. */
struct tok_strings {
    uint8_t *bytes; /* each string behind its 8-byte length, as in the file */
    uint32_t *at;   /* offset of its bytes */
    uint32_t *n;    /* their number */
};

struct tok {
    enum tok_family family;
    char kind[48];
    int32_t n;
    struct tok_strings piece; /* [n] */
    uint8_t *type;            /* [n]; owns */
    float *score;             /* [n] or NULL; owns */
    uint64_t seed;      /* random: no file can choose pieces that fall on one slot; order is kept */
    uint32_t *by_piece; /* hash table of id + 1; owns */
    size_t n_slot;
    struct tok_strings merge; /* [n_merge] */
    uint32_t *by_merge;       /* hash table of rank + 1; owns */
    size_t n_merge;
    size_t n_merge_slot;
    struct tok_trie control; /* special tokens of type TOK_CONTROL; owns */
    struct tok_trie added;   /* of type TOK_USER; owns */
    int32_t bos;
    int32_t eos;
    int32_t unk;
    int32_t cls;
    int32_t sep;
    bool adds_bos;
    bool adds_eos;
    bool adds_space;
    bool adds_sep;
    bool is_nfc;
    bool is_lower;
    bool is_stripped;
    bool ignores_merges;
    int32_t byte_id[256]; /* <0xXX> tokens, -1 = none */
    uint8_t *is_end;      /* [n]; owns */
    struct rx *split[TOK_SPLIT_MAX];
    int32_t n_split;
    struct tok_ugm *ugm; /* NULL but for TOK_UGM; owns */
};

struct view tok_piece_of(const struct tok *t, int32_t id);
int32_t tok_lookup(const struct tok *t, struct view piece);
/* The same for a piece that a text is cut into: never a control token (TO-1). */
int32_t tok_lookup_text(const struct tok *t, struct view piece);
/* Rank of merging a and b (both in the file's spelling), -1 = no merge. */
int32_t tok_merge_rank(const struct tok *t, struct view a, struct view b);
/* Counts, and stores while there is room. */
void tok_emit(struct tok_list *out, int32_t id);

/* Builds it of the tokens whose type has its bit in `types` and whose piece is not empty. t has its
 * pieces and types; path is for the text of ERR_MEMORY. */
enum err tok_trie_open(struct tok_trie *u, const struct tok *t, uint32_t types,
                       const char *path) MUST_USE;
void tok_trie_close(struct tok_trie *u); /* accepts a zeroed object */

/* Child of a node by its byte, 0 = none. */
static inline uint32_t tok_trie_child(const struct tok_trie *u, uint32_t node, uint8_t byte)
{
    uint32_t lo = u->first[node];
    uint32_t hi = u->first[node + 1];
    const uint32_t end = hi;
    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (u->label[mid] < byte) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < end && u->label[lo] == byte ? lo : 0;
}
/* The longest token that the text begins with, -1 if none. marks: NULL, or a byte for each of the
 * text's: 0 = no token may cover it. In steps: at most the bytes of the longest token. */
int32_t tok_trie_longest(const struct tok_trie *u, struct view text, const uint8_t *marks);

/* The families: text without special tokens in it, well-formed UTF-8. is_first: nothing came
 * before. */
enum err tok_bpe_open(struct tok *t, const struct gguf *g) MUST_USE;
enum err tok_bpe_encode(const struct tok *t, struct view text, struct tok_list *out) MUST_USE;
enum err tok_spm_encode(const struct tok *t, struct view text, bool is_first,
                        struct tok_list *out) MUST_USE;
enum err tok_wpm_encode(const struct tok *t, struct view text, struct tok_list *out) MUST_USE;
/* Finds added tokens itself, since they count in its normalization. */
enum err tok_ugm_open(struct tok *t, const struct gguf *g) MUST_USE;
void tok_ugm_close(struct tok_ugm *u); /* accepts NULL */
enum err tok_ugm_encode(const struct tok *t, struct view text, struct tok_list *out) MUST_USE;
bool tok_ugm_drops_blank(const struct tok *t); /* decoding drops a text's first blank */
/* Bytes of a byte-level piece. */
void tok_bpe_bytes(struct view piece, struct buf *out);

#endif
