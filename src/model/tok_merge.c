/* tok_merge - merging neighbouring symbols of a text, cheapest pair first
 *
 *     h e l l o  ->  h e ll o  ->  he ll o  ->  hell o  ->  hello
 *
 * Symbols form a chain with links to both neighbours; a merge makes the left one longer and takes
 * the right one out. Each merge takes one pair out of a heap and puts at most two in, so n
 * characters, which are n - 1 pairs and as many merges, need room for 2 n pairs, and the time is
 * n log n even for a text of megabytes without a blank.
 *
 * Pairs that the heap still holds of symbols that have changed are passed over when they come up:
 * their length is no longer that of the two. Finding and removing them would cost more.
 *
 * Of pairs that cost the same the left one comes first, as the reference tokenizers have it.
 *
 * Next: tok_bpe.c, tok_spm.c. */
#include "model/tok_merge.h"

#include "base/mem.h"

#include <assert.h>

/* Neighbours that may be merged. */
struct tok_pair {
    int32_t cost;
    int32_t left;
    int32_t right;
    uint32_t n; /* bytes of both when it was made: outdated when they differ */
};
static_assert(sizeof(struct tok_symbol) + 2 * sizeof(struct tok_pair) == 48, "as the header says");

static bool is_before(struct tok_pair a, struct tok_pair b)
{
    return a.cost < b.cost || (a.cost == b.cost && a.left < b.left);
}

static void push(struct tok_merge *m, struct tok_pair p)
{
    size_t i = m->n_heap++;
    while (i > 0 && is_before(p, m->heap[(i - 1) / 2])) {
        m->heap[i] = m->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->heap[i] = p;
}

static struct tok_pair pop(struct tok_merge *m)
{
    struct tok_pair *heap = m->heap;
    const struct tok_pair top = heap[0];
    const struct tok_pair last = heap[--m->n_heap];
    size_t i = 0;
    for (size_t k = 1; k < m->n_heap; k = 2 * i + 1) {
        k += k + 1 < m->n_heap && is_before(heap[k + 1], heap[k]);
        if (!is_before(heap[k], last)) {
            break;
        }
        heap[i] = heap[k];
        i = k;
    }
    heap[i] = last;
    return top;
}

static void consider(struct tok_merge *m, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) {
        return;
    }
    const struct view a = tok_merge_text(m, left);
    const struct view b = tok_merge_text(m, right);
    int32_t cost = 0;
    if (m->may(m->t, a, b, &cost)) {
        push(m, (struct tok_pair){ cost, left, right, (uint32_t)(a.n + b.n) });
    }
}

enum err tok_merge_init(struct tok_merge *m, const struct tok *t, tok_merge_fn may, size_t n_max)
{
    *m = (struct tok_merge){ .t = t, .may = may };
    m->symbols = mem_alloc_array(n_max + 1, sizeof m->symbols[0]);
    m->heap = mem_alloc_array(2 * (n_max + 1), sizeof m->heap[0]);
    REQUIRE(m->symbols != NULL && m->heap != NULL, ERR_MEMORY,
            "no memory to tokenize %zu characters", n_max);
    return ERR_OK;
}

void tok_merge_release(struct tok_merge *m)
{
    mem_free(m->symbols);
    mem_free(m->heap);
    *m = (struct tok_merge){ 0 };
}

struct view tok_merge_text(const struct tok_merge *m, int32_t i_symbol)
{
    return view_part(m->text, m->symbols[i_symbol].at, m->symbols[i_symbol].n);
}

/* The text as a chain of characters; returns their number. */
static int32_t cut(struct tok_merge *m, struct view text)
{
    int32_t n = 0;
    for (size_t at = 0; at < text.n; n++) {
        uint32_t code;
        const int len = utf8_read(text.p + at, text.n - at, &code);
        const size_t bytes = len > 0 ? (size_t)len : 1;
        m->symbols[n] = (struct tok_symbol){ (uint32_t)at, (uint32_t)bytes, n - 1, n + 1 };
        at += bytes;
    }
    if (n > 0) {
        m->symbols[n - 1].after = -1;
    }
    return n;
}

int32_t tok_merge_run(struct tok_merge *m, struct view text)
{
    const int32_t n = cut(m, text);
    m->text = text;
    m->n_heap = 0;
    for (int32_t i = 1; i < n; i++) {
        consider(m, i - 1, i);
    }
    while (m->n_heap > 0) {
        const struct tok_pair c = pop(m);
        struct tok_symbol *l = &m->symbols[c.left];
        struct tok_symbol *r = &m->symbols[c.right];
        if (l->n == 0 || r->n == 0 || l->n + r->n != c.n || l->after != c.right) {
            continue;
        }
        l->n = c.n;
        r->n = 0;
        l->after = r->after;
        if (r->after >= 0) {
            m->symbols[r->after].before = c.left;
        }
        consider(m, l->before, c.left);
        consider(m, c.left, l->after);
    }
    return n > 0 ? 0 : -1;
}
