/* kv - the paged key/value cache (engine/kv.c)
 *
 * Memory: one part of an arena, sized by the plan, never grows.      Owner thread: engine.
 * A page holds KERN_PAGE positions of all layers. A sequence is a table of page numbers.
 * KV-1  n_free + n_used == n_page, always.
 * KV-2  a page is writable only while its reference count is 1.
 * KV-3  a page with zero references is in the free list exactly once.
 * KV-4  a sequence of n_tok positions has ceil(n_tok / KERN_PAGE) pages. */
#ifndef HEARTH_KV_H
#define HEARTH_KV_H

#include "back/backend.h"
#include "base/mem.h"
#include "model/arch.h"

#include <stdbool.h>
#include <stdint.h>

struct kv {
    enum kern_kv kind;
    int32_t n_layer;
    int32_t n_kv;
    int32_t hd_k;
    int32_t hd_v;
    size_t k_head;      /* bytes of one head of one page */
    size_t v_head;      /* likewise */
    size_t page_bytes;  /* of one page of one layer, all heads, K and V */
    size_t layer_bytes; /* all pages of one layer, K then V */
    uint8_t *pages;     /* [n_layer][K: n_kv][n_page], then V; borrows from the arena */
    int32_t n_page;
    int32_t *refs; /* [n_page] */
    int32_t *free; /* [n_page] stack of free pages */
    int32_t n_free;
};

/* One sequence's pages. */
struct kv_seq {
    int32_t *page; /* [page_max], in the arena */
    int32_t n_page;
    int32_t page_max;
    int32_t n_tok; /* positions written or reserved */
};

/* Bytes that kv_init takes from its arena for n_page pages; kv_seq_init's tables come on top.
 * false: no pages, or the size overflows. */
bool kv_bytes(const struct arch *a, enum kern_kv kind, int32_t n_page, size_t *out) MUST_USE;
/* Bytes of cache that one position takes, all layers. */
size_t kv_tok_bytes(const struct arch *a, enum kern_kv kind);

/* Takes the pool from the arena (counting arenas too). Errors: ERR_MEMORY. */
enum err kv_init(struct kv *kv, const struct arch *a, enum kern_kv kind, int32_t n_page,
                 struct arena *arena) MUST_USE;
/* An empty sequence with a page table for n_ctx positions, from the arena. Errors: ERR_MEMORY. */
enum err kv_seq_init(struct kv_seq *s, int32_t n_ctx, struct arena *arena) MUST_USE;

/* Makes room for positions up to n_tok; takes pages as needed, copies a shared last page before it
 * is written (KV-2). false when too few pages are free; nothing is taken then. */
bool kv_seq_grow(struct kv *kv, struct kv_seq *s, int32_t n_tok) MUST_USE;
/* Pages that growing to n_tok would take from the free list. */
int32_t kv_seq_need(const struct kv *kv, const struct kv_seq *s, int32_t n_tok);
/* Drops positions from n_tok on (0: all). */
void kv_seq_cut(struct kv *kv, struct kv_seq *s, int32_t n_tok);
/* `to` (empty) becomes a second reader of from's positions; no page is copied until one of them
 * writes. */
void kv_seq_share(struct kv *kv, struct kv_seq *to, const struct kv_seq *from);

/* For measuring: plausible numbers in the pages of positions up to n_tok, the same in each page. */
void kv_make_up(struct kv *kv, const struct kv_seq *s, int32_t n_tok, const struct kern_table *k);

/* The cache of one layer as operations read it; borrows, valid as long as the pool. */
struct back_kv kv_layer(const struct kv *kv, int32_t i_layer);
/* Walks everything and asserts KV-1..KV-4; seqs[n_seq] are all there are (checked builds). */
void kv_check(struct kv *kv, const struct kv_seq *seqs, int32_t n_seq);

#endif
