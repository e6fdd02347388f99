/* tok_trie - the tokens that begin a text
 *
 *     a, ab, abc, b          0 -a-> 1 -b-> 3 -c-> 4          (2 is "b")
 *
 * A walk from node 0 along the text meets every token that the text begins with, shortest first, in
 * at most as many steps as the longest token has bytes, however many tokens there are. tok.c finds
 * special tokens so, tok_ugm.c the pieces that may cover a place.
 *
 * Nodes stand in level order: a node's children are neighbours, sorted by their byte, so that 9
 * bytes a node suffice and a vocabulary of 250,000 pieces is built by sorting each node's pieces by
 * one byte. Rejected: a double array (Aoe 1989) of our own, faster to walk and slower to build.
 *
 * Next: tok_bpe.c. */
#include "base/mem.h"
#include "model/tok_impl.h"

#include <string.h>

#define SMALL_SORT 24         /* pieces of a node that are sorted by insertion */
#define NODES_MAX  (8u << 20) /* 250,000 pieces need 2 million; 17 bytes each while it is built */

struct build {
    const struct tok *t;
    struct tok_trie *u;
    int32_t *ids;   /* [n] pieces in the order of the trie; scratch */
    int32_t *spare; /* likewise */
    uint32_t *lo;   /* [n_node] the node's part of ids */
    uint32_t *hi;   /* likewise */
};

/* Byte of a piece at a depth plus 1, 0 at its end. */
static uint32_t key_of(const struct build *b, int32_t id, uint32_t depth)
{
    const struct tok *t = b->t;
    return depth < t->piece.n[id] ? t->piece.bytes[t->piece.at[id] + depth] + 1u : 0;
}

/* Sorts ids[lo..hi) by their byte at a depth, equal ones stay in order. */
static void sort_part(struct build *b, uint32_t lo, uint32_t hi, uint32_t depth)
{
    if (hi - lo <= SMALL_SORT) {
        for (uint32_t i = lo + 1; i < hi; i++) {
            const int32_t id = b->ids[i];
            const uint32_t key = key_of(b, id, depth);
            uint32_t k = i;
            for (; k > lo && key_of(b, b->ids[k - 1], depth) > key; k--) {
                b->ids[k] = b->ids[k - 1];
            }
            b->ids[k] = id;
        }
        return;
    }
    uint32_t at[258] = { 0 };
    for (uint32_t i = lo; i < hi; i++) {
        at[key_of(b, b->ids[i], depth) + 1]++;
    }
    for (uint32_t i = 1; i < 258; i++) {
        at[i] += at[i - 1];
    }
    for (uint32_t i = lo; i < hi; i++) {
        b->spare[lo + at[key_of(b, b->ids[i], depth)]++] = b->ids[i];
    }
    memcpy(b->ids + lo, b->spare + lo, (size_t)(hi - lo) * sizeof b->ids[0]);
}

static void add_children(struct build *b, uint32_t node, uint32_t depth)
{
    struct tok_trie *u = b->u;
    const uint32_t hi = b->hi[node];
    uint32_t i = b->lo[node];
    sort_part(b, i, hi, depth);
    u->first[node] = u->n_node;
    u->id[node] = -1;
    for (; i < hi && key_of(b, b->ids[i], depth) == 0; i++) {
        u->id[node] = u->id[node] < 0 ? b->ids[i] : u->id[node]; /* of equal pieces the first */
    }
    while (i < hi) {
        const uint32_t key = key_of(b, b->ids[i], depth);
        const uint32_t child = u->n_node++;
        u->label[child] = (uint8_t)(key - 1);
        b->lo[child] = i;
        while (i < hi && key_of(b, b->ids[i], depth) == key) {
            i++;
        }
        b->hi[child] = i;
    }
}

static bool is_taken(const struct tok *t, int32_t id, uint32_t types)
{
    return t->type[id] < 32 && (types >> t->type[id] & 1) != 0 && t->piece.n[id] > 0;
}

/* Gives back what the guess of the number of nodes was too large by. */
static void shrink(struct tok_trie *u)
{
    uint32_t *first = mem_realloc(u->first, ((size_t)u->n_node + 1) * sizeof u->first[0]);
    u->first = first != NULL ? first : u->first;
    uint8_t *label = mem_realloc(u->label, u->n_node);
    u->label = label != NULL ? label : u->label;
    int32_t *id = mem_realloc(u->id, (size_t)u->n_node * sizeof u->id[0]);
    u->id = id != NULL ? id : u->id;
}

enum err tok_trie_open(struct tok_trie *u, const struct tok *t, uint32_t types, const char *path)
{
    size_t n = 0;
    size_t n_node = 1; /* at most one a byte */
    for (int32_t i = 0; i < t->n; i++) {
        n += is_taken(t, i, types);
        n_node += is_taken(t, i, types) ? t->piece.n[i] : 0;
    }
    REQUIRE(n_node <= NODES_MAX, ERR_LIMIT,
            "%s: the %zu tokens that are looked for in a text have %zu bytes; at most %u are taken",
            path, n, n_node - 1, NODES_MAX - 1);
    struct build b = { t, u, NULL, NULL, NULL, NULL };
    b.ids = mem_alloc_array(n + 1, sizeof b.ids[0]);
    b.spare = mem_alloc_array(n + 1, sizeof b.spare[0]);
    b.lo = mem_alloc_array(n_node, sizeof b.lo[0]);
    b.hi = mem_alloc_array(n_node, sizeof b.hi[0]);
    u->first = mem_alloc_array(n_node + 1, sizeof u->first[0]);
    u->label = mem_alloc(n_node);
    u->id = mem_alloc_array(n_node, sizeof u->id[0]);
    enum err e = ERR_OK;
    if (b.ids == NULL || b.spare == NULL || b.lo == NULL || b.hi == NULL || u->first == NULL ||
        u->label == NULL || u->id == NULL) {
        e = err_set(ERR_MEMORY, "%s: no memory for a vocabulary of %d pieces", path, t->n);
        goto out;
    }
    for (int32_t i = 0; i < t->n; i++) {
        if (is_taken(t, i, types)) {
            b.ids[b.hi[0]++] = i;
        }
    }
    u->n_node = 1;
    uint32_t depth = 0;
    uint32_t level_end = 1;
    for (uint32_t i = 0; i < u->n_node; i++) {
        if (i == level_end) {
            depth++;
            level_end = u->n_node;
        }
        add_children(&b, i, depth);
    }
    u->first[u->n_node] = u->n_node;
    shrink(u);
out:
    mem_free(b.ids);
    mem_free(b.spare);
    mem_free(b.lo);
    mem_free(b.hi);
    return e;
}

void tok_trie_close(struct tok_trie *u)
{
    mem_free(u->first);
    mem_free(u->label);
    mem_free(u->id);
}

int32_t tok_trie_longest(const struct tok_trie *u, struct view text, const uint8_t *marks)
{
    int32_t id = -1;
    uint32_t node = 0;
    for (size_t i = 0; i < text.n && (marks == NULL || marks[i] != 0); i++) {
        node = tok_trie_child(u, node, (uint8_t)text.p[i]);
        if (node == 0) {
            break;
        }
        id = u->id[node] >= 0 ? u->id[node] : id;
    }
    return id;
}
