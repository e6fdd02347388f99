/* kv - the paged key/value cache
 *
 * The pool is cut into pages of 16 positions. A page number stands for the same place in every
 * layer, so a sequence needs one table for all of them, and sharing a prefix means sharing page
 * numbers with a count of readers. A layer holds the K pages of its first head, in the layout that
 * the attention kernel reads (kern.h), then those of the next, then V likewise. Pages are handed
 * out by rising numbers, so that whoever walks a head reads memory from end to end.
 *
 * A page that several sequences read must not be written. Only the last page of a sequence can be
 * partly filled, so only that one ever needs copying: kv_seq_grow does it when it first extends a
 * shared sequence.
 *
 *     layer 0   | K of head 0: page 0, 1, 2 ... | K of head 1 | ... | V of head 0 | ...
 *     layer 1   | the same
 *     sequence  page[] = { 7, 3, 12 }  means positions 0..15 in page 7, 16..31 in page 3, ...
 *
 * Rejected: a contiguous cache per sequence (memory for the longest context, whoever uses it), and
 * pages per layer (more tables, nothing gained while all layers keep all positions).
 *
 * Paged caches: Kwon et al. 2023 (PagedAttention). Invariants KV-1..KV-4 stand in kv.h. Next:
 * decoder.c writes and reads pages through back_run. */
#include "engine/kv.h"

#include <assert.h>
#include <string.h>

/* Bytes of the parts of a page, for the plan and for the pool alike. */
static void layout(struct kv *kv, const struct arch *a, enum kern_kv kind)
{
    kv->kind = kind;
    kv->n_layer = a->n_layer;
    kv->n_kv = a->n_kv;
    kv->hd_k = a->hd_k;
    kv->hd_v = a->hd_v;
    kv->k_head = kern_kv_k_bytes(kind, a->hd_k);
    kv->v_head = kern_kv_v_bytes(kind, a->hd_v);
    kv->page_bytes = (kv->k_head + kv->v_head) * (size_t)a->n_kv;
}

size_t kv_tok_bytes(const struct arch *a, enum kern_kv kind)
{
    struct kv kv = { 0 };
    layout(&kv, a, kind);
    return kv.page_bytes / KERN_PAGE * (size_t)a->n_layer;
}

bool kv_bytes(const struct arch *a, enum kern_kv kind, int32_t n_page, size_t *out)
{
    struct kv kv = { 0 };
    layout(&kv, a, kind);
    size_t pool = 0;
    const size_t table = n_page > 0 ? mem_round((size_t)n_page * sizeof kv.refs[0], 64) : 0;
    return n_page > 0 && mem_mul(kv.page_bytes, (size_t)n_page, &pool) &&
           mem_mul(pool, (size_t)a->n_layer, &pool) && pool < SIZE_MAX / 2 &&
           mem_add(mem_round(pool, 64), 2 * table, out);
}

enum err kv_init(struct kv *kv, const struct arch *a, enum kern_kv kind, int32_t n_page,
                 struct arena *arena)
{
    *kv = (struct kv){ 0 };
    size_t bytes = 0;
    REQUIRE(kv_bytes(a, kind, n_page, &bytes), ERR_MEMORY, "cache of %d pages: its size overflows",
            n_page);
    layout(kv, a, kind);
    kv->n_page = n_page;
    kv->layer_bytes = kv->page_bytes * (size_t)n_page;
    kv->pages = arena_take(arena, kv->layer_bytes * (size_t)a->n_layer);
    kv->refs = arena_take(arena, (size_t)n_page * sizeof kv->refs[0]);
    kv->free = arena_take(arena, (size_t)n_page * sizeof kv->free[0]);
    REQUIRE(kv->pages != NULL && kv->refs != NULL && kv->free != NULL, ERR_MEMORY,
            "cache of %d pages: the arena is too small", n_page);
    if (!arena->is_counting) {
        for (int32_t i = 0; i < n_page; i++) {
            kv->refs[i] = 0;
            kv->free[i] = n_page - 1 - i; /* lowest numbers are taken first */
        }
    }
    kv->n_free = n_page;
    return ERR_OK;
}

enum err kv_seq_init(struct kv_seq *s, int32_t n_ctx, struct arena *arena)
{
    *s = (struct kv_seq){ .page_max = (n_ctx + KERN_PAGE - 1) / KERN_PAGE };
    s->page = arena_take(arena, (size_t)s->page_max * sizeof s->page[0]);
    REQUIRE(s->page != NULL, ERR_MEMORY, "page table of %d tokens: the arena is too small", n_ctx);
    return ERR_OK;
}

/* Callers have asked kv_seq_need first: there is one. */
static int32_t take_page(struct kv *kv)
{
    assert(kv->n_free > 0);
    const int32_t page = kv->free[--kv->n_free];
    assert(kv->refs[page] == 0); /* KV-3 */
    kv->refs[page] = 1;
    return page;
}

/* One reader less; the last one gives the page back. */
static void drop_page(struct kv *kv, int32_t page)
{
    assert(kv->refs[page] > 0);
    if (--kv->refs[page] == 0) {
        kv->free[kv->n_free++] = page;
    }
}

/* The last page is partly filled and has other readers: it must be copied before it is written. */
static bool is_last_shared(const struct kv *kv, const struct kv_seq *s)
{
    return s->n_tok % KERN_PAGE != 0 && kv->refs[s->page[s->n_page - 1]] > 1;
}

int32_t kv_seq_need(const struct kv *kv, const struct kv_seq *s, int32_t n_tok)
{
    if (n_tok <= s->n_tok) {
        return 0;
    }
    const int32_t n = (n_tok + KERN_PAGE - 1) / KERN_PAGE - s->n_page;
    return n + (is_last_shared(kv, s) ? 1 : 0);
}

/* One page, all heads, from one layer to the same or another one. */
static void copy_layer(const struct back_kv *to, int32_t to_page, const struct back_kv *from,
                       int32_t from_page)
{
    for (int32_t h = 0; h < to->n_kv; h++) {
        const size_t k = (size_t)h * to->k_head;
        const size_t v = (size_t)h * to->v_head;
        memcpy(to->k + k + (size_t)to_page * to->k_page,
               from->k + k + (size_t)from_page * from->k_page, to->k_page);
        memcpy(to->v + v + (size_t)to_page * to->v_page,
               from->v + v + (size_t)from_page * from->v_page, to->v_page);
    }
}

static void copy_page(struct kv *kv, int32_t to, int32_t from)
{
    for (int32_t i = 0; i < kv->n_layer; i++) {
        const struct back_kv l = kv_layer(kv, i);
        copy_layer(&l, to, &l, from);
    }
}

/* All checks come before the first page is taken, so a refusal changes nothing. */
bool kv_seq_grow(struct kv *kv, struct kv_seq *s, int32_t n_tok)
{
    if (n_tok <= s->n_tok) {
        return true;
    }
    if ((n_tok + KERN_PAGE - 1) / KERN_PAGE > s->page_max ||
        kv_seq_need(kv, s, n_tok) > kv->n_free) {
        return false;
    }
    if (is_last_shared(kv, s)) {
        const int32_t page = take_page(kv);
        copy_page(kv, page, s->page[s->n_page - 1]);
        drop_page(kv, s->page[s->n_page - 1]);
        s->page[s->n_page - 1] = page;
    }
    while (s->n_page * KERN_PAGE < n_tok) {
        s->page[s->n_page++] = take_page(kv);
    }
    s->n_tok = n_tok;
    return true;
}

void kv_seq_cut(struct kv *kv, struct kv_seq *s, int32_t n_tok)
{
    if (n_tok >= s->n_tok) {
        return;
    }
    const int32_t keep = (n_tok + KERN_PAGE - 1) / KERN_PAGE;
    while (s->n_page > keep) {
        drop_page(kv, s->page[--s->n_page]);
    }
    s->n_tok = n_tok;
}

void kv_seq_share(struct kv *kv, struct kv_seq *to, const struct kv_seq *from)
{
    assert(to->n_page == 0 && to->page_max >= from->n_page);
    for (int32_t i = 0; i < from->n_page; i++) {
        to->page[i] = from->page[i];
        kv->refs[from->page[i]]++;
    }
    to->n_page = from->n_page;
    to->n_tok = from->n_tok;
}

/* All positions of a page, in the first layer; the other pages and layers get a copy. */
static void make_up_page(const struct back_kv *l, int32_t page, const struct kern_table *k)
{
    float x[2][KERN_HEAD_MAX];
    uint32_t seed = 1;
    for (int32_t i = 0; i < l->n_kv * KERN_PAGE; i++) {
        for (int32_t d = 0; d < 2 * KERN_HEAD_MAX; d++) {
            seed = seed * 1664525u + 1013904223u;
            const float odd = (float)(seed >> 16 | 1); /* so that none is 0 */
            x[d / KERN_HEAD_MAX][d % KERN_HEAD_MAX] = odd / 32768.0f - 1.0f;
        }
        const size_t head = (size_t)(i / KERN_PAGE);
        k->kv_put(l->kind, l->hd_k, l->hd_v, l->k + (size_t)page * l->k_page + head * l->k_head,
                  l->v + (size_t)page * l->v_page + head * l->v_head, i % KERN_PAGE, x[0], x[1]);
    }
}

void kv_make_up(struct kv *kv, const struct kv_seq *s, int32_t n_tok, const struct kern_table *k)
{
    const struct back_kv first = kv_layer(kv, 0);
    make_up_page(&first, s->page[0], k);
    for (int32_t i = 0; i < kv->n_layer; i++) {
        const struct back_kv l = kv_layer(kv, i);
        for (int32_t p = i == 0; p * KERN_PAGE < n_tok; p++) {
            copy_layer(&l, s->page[p], &first, s->page[0]);
        }
    }
}

struct back_kv kv_layer(const struct kv *kv, int32_t i_layer)
{
    uint8_t *const k = kv->pages + (size_t)i_layer * kv->layer_bytes;
    return (struct back_kv){ .kind = kv->kind,
                             .k = k,
                             .v = k + kv->k_head * (size_t)kv->n_kv * (size_t)kv->n_page,
                             .k_page = kv->k_head,
                             .v_page = kv->v_head,
                             .k_head = kv->k_head * (size_t)kv->n_page,
                             .v_head = kv->v_head * (size_t)kv->n_page,
                             .n_kv = kv->n_kv,
                             .hd_k = kv->hd_k,
                             .hd_v = kv->hd_v };
}

/* References counted over all pages must be the pages that sequences hold; a page that is free
 * twice is found by marking it in its own reference count. */
void kv_check(struct kv *kv, const struct kv_seq *seqs, int32_t n_seq)
{
    int64_t n_ref = 0;
    int32_t n_used = 0;
    for (int32_t i = 0; i < kv->n_page; i++) {
        assert(kv->refs[i] >= 0);
        n_ref += kv->refs[i];
        n_used += kv->refs[i] > 0;
    }
    assert(n_used + kv->n_free == kv->n_page); /* KV-1 */
    for (int32_t i = 0; i < kv->n_free; i++) {
        assert(kv->refs[kv->free[i]] == 0); /* KV-3 */
        kv->refs[kv->free[i]] = -1;         /* marked: met twice, it is found */
    }
    for (int32_t i = 0; i < kv->n_free; i++) {
        kv->refs[kv->free[i]] = 0;
    }
    for (int32_t i = 0; i < n_seq; i++) {
        assert(seqs[i].n_page == (seqs[i].n_tok + KERN_PAGE - 1) / KERN_PAGE); /* KV-4 */
        n_ref -= seqs[i].n_page;
    }
    assert(n_ref == 0);
    (void)n_ref;
    (void)n_used;
}
