/* checkkern_attn - the cache layout and attention over a span against the scalar entries
 *
 * Each case writes a span's visible positions with both tables into pages that held random bytes
 * before (a freed page holds anything, NaN patterns included), compares the pages byte for byte,
 * then computes the span with both and compares maximum, sum and weighted values of every query.
 * Pages that no query sees are pointers into memory without access rights. Cases go through all
 * types of pages, head dims of real models and odd ones, 1 to 16 queries, ranges as in decoding,
 * in a prompt (each query sees one position more) and in a sliding window.
 *
 * Next: checkkern_gemm.c. */
#include "checkkern.h"

#include <stdio.h>
#include <string.h>

#define DIM_MAX KERN_HEAD_MAX

struct side { /* memory of one table */
    struct checkkern_buf k[KERN_SPAN_PAGES], v[KERN_SPAN_PAGES], acc[KERN_QUERIES];
    float m[KERN_QUERIES], s[KERN_QUERIES];
};

struct run {
    const struct kern_table *ref, *t;
    uint64_t *hash;
    struct checkkern_rand rand;
    struct side want, got;
    struct checkkern_buf q[KERN_QUERIES], in[2];
    int n_bad;
};

struct shape {
    enum kern_kv kv;
    enum checkkern_kind kind;
    int32_t hd_k, hd_v, n_query;
    int32_t pos0, first, end; /* positions [first, end) of the span are seen by some query */
    int32_t lo[KERN_QUERIES], hi[KERN_QUERIES];
    float cap;
    char text[128];
};

static void side_open(struct side *s)
{
    for (int i = 0; i < KERN_SPAN_PAGES; i++) {
        checkkern_open(&s->k[i], kern_kv_k_bytes(KERN_KV_F32, DIM_MAX));
        checkkern_open(&s->v[i], kern_kv_v_bytes(KERN_KV_F32, DIM_MAX));
    }
    for (int i = 0; i < KERN_QUERIES; i++) {
        checkkern_open(&s->acc[i], DIM_MAX * sizeof(float));
    }
}

static void side_close(struct side *s)
{
    for (int i = 0; i < KERN_SPAN_PAGES; i++) {
        checkkern_close(&s->k[i]);
        checkkern_close(&s->v[i]);
    }
    for (int i = 0; i < KERN_QUERIES; i++) {
        checkkern_close(&s->acc[i]);
    }
}

/* Who sees what: 0 all alike, 1 one position more each, 2 a window that slides as well. */
static void choose_ranges(struct run *c, struct shape *h, int how)
{
    const int32_t group = 1 + checkkern_below(&c->rand, 4);
    const int32_t steps = how == 0 ? 0 : (h->n_query - 1) / group;
    const int32_t base = 1 + checkkern_below(&c->rand, KERN_SPAN - steps);
    const int32_t window = 1 + checkkern_below(&c->rand, KERN_SPAN);
    h->pos0 = KERN_SPAN * checkkern_below(&c->rand, 5);
    h->first = KERN_SPAN;
    h->end = 0;
    for (int32_t i = 0; i < h->n_query; i++) {
        const int32_t hi = how == 0 ? base : base + i / group;
        const int32_t lo = how == 2 && hi > window ? hi - window : 0;
        h->lo[i] = h->pos0 + lo;
        h->hi[i] = h->pos0 + hi;
        h->first = lo < h->first ? lo : h->first;
        h->end = hi > h->end ? hi : h->end;
    }
}

static void fill_bytes(struct run *c, uint8_t *want, uint8_t *got, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        want[i] = (uint8_t)checkkern_bits(&c->rand);
    }
    memcpy(got, want, n);
}

static void compare_bytes(struct run *c, const struct shape *h, const uint8_t *want,
                          const uint8_t *got, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        *c->hash = (*c->hash ^ got[i]) * 0x100000001B3u;
    }
    for (size_t i = 0; i < n; i++) {
        if (want[i] != got[i]) {
            printf("# %s: kv_put, byte %zu of %zu is %d, should be %d\n", h->text, i, n, got[i],
                   want[i]);
            c->n_bad++;
            return;
        }
    }
}

struct pages {
    const uint8_t *k[KERN_SPAN_PAGES], *v[KERN_SPAN_PAGES];
};

/* Random bytes, then the visible positions through kv_put of each table. */
static void write_pages(struct run *c, const struct shape *h, struct pages *want, struct pages *got)
{
    const size_t k_bytes = kern_kv_k_bytes(h->kv, h->hd_k);
    const size_t v_bytes = kern_kv_v_bytes(h->kv, h->hd_v);
    for (int32_t p = 0; p < KERN_SPAN_PAGES; p++) {
        const uint8_t *guard = (const uint8_t *)c->in[0].base + c->in[0].bytes;
        want->k[p] = want->v[p] = got->k[p] = got->v[p] = guard;
        const int32_t from = p * KERN_PAGE > h->first ? p * KERN_PAGE : h->first;
        const int32_t to = (p + 1) * KERN_PAGE < h->end ? (p + 1) * KERN_PAGE : h->end;
        if (from >= to) {
            continue;
        }
        uint8_t *k[2] = { checkkern_end(&c->want.k[p], k_bytes),
                          checkkern_end(&c->got.k[p], k_bytes) };
        uint8_t *v[2] = { checkkern_end(&c->want.v[p], v_bytes),
                          checkkern_end(&c->got.v[p], v_bytes) };
        fill_bytes(c, k[0], k[1], k_bytes);
        fill_bytes(c, v[0], v[1], v_bytes);
        for (int32_t pos = from; pos < to; pos++) {
            const float *kx = checkkern_floats(&c->in[0], &c->rand, h->kind, h->hd_k);
            const float *vx = checkkern_floats(&c->in[1], &c->rand, h->kind, h->hd_v);
            c->ref->kv_put(h->kv, h->hd_k, h->hd_v, k[0], v[0], pos % KERN_PAGE, kx, vx);
            c->t->kv_put(h->kv, h->hd_k, h->hd_v, k[1], v[1], pos % KERN_PAGE, kx, vx);
        }
        compare_bytes(c, h, k[0], k[1], k_bytes);
        compare_bytes(c, h, v[0], v[1], v_bytes);
        want->k[p] = k[0];
        want->v[p] = v[0];
        got->k[p] = k[1];
        got->v[p] = v[1];
    }
}

static void attend(const struct kern_table *t, const struct shape *h, const struct pages *p,
                   const float *const *q, struct side *s)
{
    float *acc[KERN_QUERIES];
    for (int32_t i = 0; i < h->n_query; i++) {
        acc[i] = checkkern_end(&s->acc[i], (size_t)h->hd_v * sizeof(float));
        memset(acc[i], 0xFF, (size_t)h->hd_v * sizeof(float));
    }
    const struct kern_attend a = { .kv = h->kv,
                                   .hd_k = h->hd_k,
                                   .hd_v = h->hd_v,
                                   .n_query = h->n_query,
                                   .q = q,
                                   .k_page = p->k,
                                   .v_page = p->v,
                                   .pos0 = h->pos0,
                                   .lo = h->lo,
                                   .hi = h->hi,
                                   .scale = 0.125f,
                                   .cap = h->cap,
                                   .m = s->m,
                                   .s = s->s,
                                   .acc = acc };
    t->attend_span(&a);
}

static void check_span(struct run *c, struct shape *h, int how)
{
    struct pages want;
    struct pages got;
    const float *q[KERN_QUERIES];
    choose_ranges(c, h, how);
    snprintf(h->text, sizeof h->text, "%s: %s, head %d/%d, %d queries, range %d, data %d",
             c->t->name, kern_kv_name(h->kv), h->hd_k, h->hd_v, h->n_query, how, (int)h->kind);
    write_pages(c, h, &want, &got);
    for (int32_t i = 0; i < h->n_query; i++) {
        q[i] = checkkern_floats(&c->q[i], &c->rand, h->kind, h->hd_k);
    }
    attend(c->ref, h, &want, q, &c->want);
    attend(c->t, h, &got, q, &c->got);
    bool is_same = checkkern_same(h->text, c->want.m, c->got.m, (size_t)h->n_query, c->hash);
    is_same &= checkkern_same(h->text, c->want.s, c->got.s, (size_t)h->n_query, c->hash);
    for (int32_t i = 0; i < h->n_query; i++) {
        const size_t bytes = (size_t)h->hd_v * sizeof(float);
        is_same &= checkkern_same(h->text, checkkern_end(&c->want.acc[i], bytes),
                                  checkkern_end(&c->got.acc[i], bytes), (size_t)h->hd_v, c->hash);
    }
    c->n_bad += !is_same;
}

static void check_merge(struct run *c, enum checkkern_kind kind, int32_t hd)
{
    const float *acc2 = checkkern_floats(&c->in[0], &c->rand, kind, hd);
    float *acc[2];
    float m[2];
    float s[2];
    const size_t bytes = (size_t)hd * sizeof acc2[0];
    acc[0] = checkkern_end(&c->want.acc[0], bytes);
    acc[1] = checkkern_end(&c->got.acc[0], bytes);
    memcpy(acc[0], checkkern_floats(&c->in[1], &c->rand, kind, hd), bytes);
    memcpy(acc[1], acc[0], bytes);
    m[0] = m[1] = checkkern_float(&c->rand, kind) * 20.0f;
    s[0] = s[1] = 1.0f + checkkern_float(&c->rand, CHECKKERN_PLAIN);
    const float m2 = checkkern_float(&c->rand, kind) * 20.0f;
    const float sink = checkkern_float(&c->rand, kind) * 20.0f;
    char text[96];
    snprintf(text, sizeof text, "%s: attend_merge and _finish, head %d, data %d", c->t->name, hd,
             (int)kind);
    c->ref->attend_merge(&m[0], &s[0], acc[0], m2, 1.5f, acc2, hd);
    c->t->attend_merge(&m[1], &s[1], acc[1], m2, 1.5f, acc2, hd);
    bool is_same = checkkern_same(text, &m[0], &m[1], 1, c->hash);
    is_same &= checkkern_same(text, &s[0], &s[1], 1, c->hash);
    is_same &= checkkern_same(text, acc[0], acc[1], (size_t)hd, c->hash);
    float *y[2] = { checkkern_end(&c->want.acc[1], bytes), checkkern_end(&c->got.acc[1], bytes) };
    for (int i = 0; i < 2; i++) {
        c->ref->attend_finish(y[0], m[0], s[0], acc[0], i == 0 ? &sink : NULL, hd);
        c->t->attend_finish(y[1], m[1], s[1], acc[1], i == 0 ? &sink : NULL, hd);
        is_same &= checkkern_same(text, y[0], y[1], (size_t)hd, c->hash);
    }
    c->n_bad += !is_same;
}

int checkkern_attn(const struct kern_table *ref, const struct kern_table *t, uint64_t *hash)
{
    static const int32_t dims[][2] = { { 16, 16 },   { 32, 32 },   { 48, 48 },   { 64, 64 },
                                       { 80, 80 },   { 96, 96 },   { 112, 112 }, { 128, 128 },
                                       { 160, 160 }, { 192, 128 }, { 256, 256 }, { 4, 4 },
                                       { 20, 36 },   { 100, 72 },  { 512, 8 },   { 2, 512 } };
    static struct run c; /* too large for a stack */
    c = (struct run){ .ref = ref, .t = t, .hash = hash, .rand = { 2 } };
    side_open(&c.want);
    side_open(&c.got);
    for (int i = 0; i < KERN_QUERIES; i++) {
        checkkern_open(&c.q[i], DIM_MAX * sizeof(float));
    }
    checkkern_open(&c.in[0], DIM_MAX * sizeof(float));
    checkkern_open(&c.in[1], DIM_MAX * sizeof(float));
    int32_t n_query = 0;
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        for (int kv = 0; kv < KERN_KV_COUNT; kv++) {
            for (int i = 0; i < 7; i++) { /* 7 and 3 types of range: every n meets every type */
                struct shape h = { .kv = (enum kern_kv)kv,
                                   .kind = i < 5 ? CHECKKERN_PLAIN : (enum checkkern_kind)(i - 3),
                                   .hd_k = dims[d][0],
                                   .hd_v = dims[d][1],
                                   .n_query = n_query + 1,
                                   .cap = i == 3 ? 2.0f : 0.0f };
                check_span(&c, &h, i % 3);
                n_query = (n_query + 3) % KERN_QUERIES;
            }
        }
        for (int kind = 0; kind < CHECKKERN_KINDS; kind++) {
            check_merge(&c, (enum checkkern_kind)kind, dims[d][1]);
        }
    }
    side_close(&c.want);
    side_close(&c.got);
    for (int i = 0; i < KERN_QUERIES; i++) {
        checkkern_close(&c.q[i]);
    }
    checkkern_close(&c.in[0]);
    checkkern_close(&c.in[1]);
    return c.n_bad;
}
