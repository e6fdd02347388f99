/* test_numerics - the statements of docs/NUMERICS.md, computed in plain loops and compared bit for
 * bit
 *
 * The kernels have a normative form of their own (kern/..._ref.c) and a test that all instruction
 * sets equal it. This test is the second opinion: the document's formulas, written down again from
 * the document, against every instruction set that runs here. It also measures the errors of the
 * elementary functions against long double and holds them to the bounds that the document states.
 */
#include "base/mem.h"
#include "kern/kern.h"
#include "num/fmath.h"
#include "num/pack.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct golden {
    enum quant_type type;
    int clear[2];
    uint64_t hash;
};

#include "quant_golden.h"

#define N_TYPE (sizeof golden / sizeof golden[0])

#define N_COL     512
#define N_ROW     18 /* a panel and a part of one */
#define N_TOK_MAX 9
#define LD        32
#define ROW_BYTES (4 * N_COL)

static struct arena arena;

static int open_arena(void **state)
{
    (void)state;
    return arena_open(&arena, 8u << 20, false) == ERR_OK ? 0 : -1;
}

static int close_arena(void **state)
{
    (void)state;
    arena_close(&arena);
    return 0;
}

/* Tables of all instruction sets that run here; NULL after the last. */
static const struct kern_table *table_at(int i)
{
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++) {
        const struct kern_table *t = kern_get((enum cpu_isa)isa);
        if (t != NULL && cpu_can((enum cpu_isa)isa) && i-- == 0) {
            return t;
        }
    }
    return NULL;
}

#define FOR_TABLES(k)                                                                              \
    const struct kern_table *k;                                                                    \
    for (int i_table = 0; (k = table_at(i_table)) != NULL; i_table++)

static uint64_t counter;

static uint64_t random_word(void)
{
    uint64_t z = ++counter * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* About normal: the sum of eight uniform numbers. */
static float random_float(void)
{
    float s = 0.0f;
    for (int i = 0; i < 8; i++) {
        s += (float)(random_word() >> 40) * 0x1p-24f - 0.5f;
    }
    return s;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static void check_bits(const struct kern_table *k, const char *what, float got, float want)
{
    if (bits_of(got) != bits_of(want)) {
        fail_msg("%s, %s: %.9g, the formula gives %.9g", k->name, what, (double)got, (double)want);
    }
}

/* --- products --- */

struct activation {
    int q[N_COL]; /* low parts */
    int high[N_COL];
    float d[N_COL / 32];
    int half[N_COL / 16];
};

static void quantize(const float *x, struct activation *a)
{
    float amax[N_COL / 32];
    float sum = 0.0f;
    for (int u = 0; u < N_COL / 32; u++) {
        amax[u] = 0.0f;
        for (int k = 0; k < 32; k++) {
            amax[u] = fmaxf(amax[u], fabsf(x[32 * u + k]));
        }
        sum += amax[u];
    }
    const float limit = 3.0f * (sum / (float)(N_COL / 32));
    for (int u = 0; u < N_COL / 32; u++) {
        float most = amax[u];
        if (most > limit) {
            most /= 64.0f;
            for (int k = 0; k < 32; k++) {
                const float size = fabsf(x[32 * u + k]);
                most = size <= limit ? fmaxf(most, size) : most;
            }
        }
        const float inverse = amax[u] >= 0x1p-100f ? 127.0f / most : 0.0f;
        a->d[u] = amax[u] >= 0x1p-100f ? most / 127.0f : 0.0f;
        a->half[2 * u] = a->half[2 * u + 1] = 0;
        for (int k = 0; k < 32; k++) {
            const int q = (int)rintf(x[32 * u + k] * inverse);
            const bool is_out = fabsf(x[32 * u + k]) > limit;
            a->high[32 * u + k] = is_out ? (int)rintf((float)q / 128.0f) : 0;
            a->q[32 * u + k] = q - 128 * a->high[32 * u + k];
            a->half[2 * u + k / 16] += q;
        }
    }
}

/* The steps of the high parts. */
static float product_high(enum quant_type type, const uint8_t *row, const struct activation *a,
                          float acc)
{
    for (int g = 0; g < 8; g++) {
        for (int u = 0; u < N_COL / 32; u++) {
            const int *h = &a->high[32 * u + 4 * g];
            struct quant_unit w;
            quant_get(type)->unit(row, (size_t)u, &w);
            const int8_t *q = &w.q[4 * g];
            const int s = q[0] * h[0] + q[1] * h[1] + q[2] * h[2] + q[3] * h[3];
            if (h[0] != 0 || h[1] != 0 || h[2] != 0 || h[3] != 0) {
                acc = fmaf((float)(w.sub[g / 4] * s), w.d[g / 4] * (128.0f * a->d[u]), acc);
            }
        }
    }
    return acc;
}

static float product_quantized(enum quant_type type, const uint8_t *row, const float *x)
{
    struct activation a;
    float acc = 0.0f;
    quantize(x, &a);
    for (int u = 0; u < N_COL / 32; u++) {
        struct quant_unit w;
        int s[2] = { 0, 0 };
        quant_get(type)->unit(row, (size_t)u, &w);
        for (int k = 0; k < 32; k++) {
            s[k / 16] += w.q[k] * a.q[32 * u + k];
        }
        const int *h = &a.half[2 * u];
        if (type == QUANT_NVFP4) {
            acc = fmaf((float)s[0], w.d[0] * a.d[u], acc);
            acc = fmaf((float)s[1], w.d[1] * a.d[u], acc);
            continue;
        }
        acc = fmaf((float)(w.sub[0] * s[0] + w.sub[1] * s[1]), w.d[0] * a.d[u], acc);
        if (type == QUANT_Q4_1 || type == QUANT_Q5_1 || type == QUANT_Q4_K || type == QUANT_Q5_K) {
            acc = fmaf(w.m, (float)(h[0] + h[1]) * a.d[u], acc);
        }
        if (type == QUANT_Q2_K) {
            acc = fmaf(-(float)(w.min[0] * h[0] + w.min[1] * h[1]), w.dmin * a.d[u], acc);
        }
    }
    return product_high(type, row, &a, acc);
}

static float product(enum quant_type type, const uint8_t *row, const float *x)
{
    if (quant_get(type)->unit != NULL) {
        return product_quantized(type, row, x);
    }
    float w[N_COL];
    float acc = 0.0f;
    quant_get(type)->decode(row, w, N_COL);
    for (int k = 0; k < N_COL; k++) {
        acc = fmaf(w[k], x[k], acc);
    }
    return acc;
}

static void random_rows(const struct golden *g, uint8_t *rows, size_t row_bytes)
{
    const size_t block = quant_get(g->type)->bytes;
    for (size_t i = 0; i < N_ROW * row_bytes; i++) {
        rows[i] = (uint8_t)(random_word() >> 32);
    }
    for (size_t b = 0; b < N_ROW * row_bytes; b += block) {
        for (int c = 0; c < 2; c++) {
            if (g->clear[c] >= 0) {
                rows[b + (size_t)g->clear[c]] &= 0xBF;
            }
        }
        if (g->type == QUANT_MXFP4) {
            rows[b] = (uint8_t)(100 + rows[b] % 40);
        }
    }
}

static void check_product(const struct golden *g, int32_t n_tok, const uint8_t *rows,
                          size_t row_bytes)
{
    struct tensor w;
    const size_t mark = arena_mark(&arena);
    assert_true(pack_shape(g->type, N_ROW, N_COL, &w));
    uint8_t *packed = arena_take(&arena, w.bytes);
    pack_rows(&w, packed, 0, rows, N_ROW);
    w.data = packed;
    float *x = arena_take(&arena, N_TOK_MAX * N_COL * sizeof x[0]);
    float *y = arena_take(&arena, N_TOK_MAX * LD * sizeof y[0]);
    for (int32_t i = 0; i < n_tok * N_COL; i++) {
        const int up = i % 97 == 5 ? i % 13 : 0; /* some stand out of their unit */
        x[i] = i / 32 % 7 == 3 ? 0.0f : ldexpf(random_float(), i / 32 % 5 * 8 - 16 + up);
    }
    struct kern_act act = { kern_act_kind_for(g->type), n_tok, N_COL, NULL };
    act.data = arena_take(&arena, kern_act_bytes(act.kind, n_tok, N_COL));
    assert_non_null(act.data);
    FOR_TABLES(k)
    {
        k->act_prepare(&act, x, N_COL, 0, kern_act_tiles(n_tok));
        k->matmul(&w, (struct kern_part){ 0, tensor_panels(&w), 0, kern_act_tiles(n_tok) }, &act, y,
                  LD);
        for (int32_t t = 0; t < n_tok; t++) {
            for (int32_t r = 0; r < N_ROW; r++) {
                check_bits(k, quant_get(g->type)->name, y[t * LD + r],
                           product(g->type, rows + (size_t)r * row_bytes, x + t * N_COL));
            }
        }
    }
    arena_rewind(&arena, mark);
}

static void products(void **state)
{
    (void)state;
    static uint8_t rows[N_ROW * ROW_BYTES];
    static const int32_t n_tok[] = { 1, 3, N_TOK_MAX };
    for (size_t i = 0; i < N_TYPE; i++) {
        size_t row_bytes = 0;
        assert_true(quant_bytes(golden[i].type, N_COL, &row_bytes));
        random_rows(&golden[i], rows, row_bytes);
        for (int j = 0; j < 3; j++) {
            check_product(&golden[i], n_tok[j], rows, row_bytes);
        }
    }
}

/* --- norms --- */

#define N_NORM 603 /* no multiple of 16 */

static float tree(const float lane[16])
{
    float v[16];
    memcpy(v, lane, sizeof v);
    for (int n = 8; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) {
            v[i] += v[i + n];
        }
    }
    return v[0];
}

static void check_norms(void)
{
    float x[N_NORM];
    float w[N_NORM];
    float b[N_NORM];
    float y[N_NORM + 16];
    float square[16] = { 0 };
    float plain[16] = { 0 };
    float centred[16] = { 0 };
    for (int i = 0; i < N_NORM; i++) {
        x[i] = 3.0f * random_float() + 0.25f;
        w[i] = random_float();
        b[i] = random_float();
        square[i % 16] = fmaf(x[i], x[i], square[i % 16]);
        plain[i % 16] += x[i];
    }
    const float r = 1.0f / sqrtf(tree(square) / (float)N_NORM + 1e-5f);
    const float mean = tree(plain) / (float)N_NORM;
    for (int i = 0; i < N_NORM; i++) {
        const float d = x[i] - mean;
        centred[i % 16] = fmaf(d, d, centred[i % 16]);
    }
    const float r2 = 1.0f / sqrtf(tree(centred) / (float)N_NORM + 1e-5f);
    FOR_TABLES(k)
    {
        k->norm_rms(y, x, w, 1e-5f, N_NORM);
        for (int i = 0; i < N_NORM; i++) {
            check_bits(k, "RMS norm", y[i], x[i] * r * w[i]);
        }
        k->norm_rms(y, x, NULL, 1e-5f, N_NORM);
        check_bits(k, "RMS norm without weight", y[7], x[7] * r);
        k->norm_layer(y, x, w, b, 1e-5f, N_NORM);
        for (int i = 0; i < N_NORM; i++) {
            check_bits(k, "LayerNorm", y[i], (x[i] - mean) * r2 * w[i] + b[i]);
        }
    }
}

static void norms(void **state)
{
    (void)state;
    for (int i = 0; i < 50;
         i++) { /* many: a sum that is off by one place often rounds to the same */
        check_norms();
    }
}

/* --- rotation --- */

static void rotations(void **state)
{
    (void)state;
    enum { HD = 80, ROT = 72, HEADS = 3 };
    float x[HEADS * HD];
    float c[ROT / 2];
    float s[ROT / 2];
    for (int i = 0; i < HEADS * HD; i++) {
        x[i] = random_float();
    }
    for (int i = 0; i < ROT / 2; i++) {
        c[i] = cosf((float)i);
        s[i] = sinf((float)i);
    }
    FOR_TABLES(k)
    {
        for (int kind = 0; kind < 2; kind++) {
            float y[HEADS * HD];
            memcpy(y, x, sizeof y);
            k->rope(kind == 0 ? KERN_ROPE_PAIRS : KERN_ROPE_HALVES, y, HEADS, HD, ROT, c, s);
            for (int j = 0; j < HEADS * ROT / 2; j++) {
                const int i = j % (ROT / 2);
                const int head = j / (ROT / 2) * HD;
                const int i0 = head + (kind == 0 ? 2 * i : i);
                const int i1 = head + (kind == 0 ? 2 * i + 1 : i + ROT / 2);
                check_bits(k, "rotation", y[i0], fmaf(x[i0], c[i], -(x[i1] * s[i])));
                check_bits(k, "rotation", y[i1], fmaf(x[i0], s[i], x[i1] * c[i]));
            }
            check_bits(k, "rotation beyond n_rot", y[ROT], x[ROT]);
        }
    }
}

/* --- attention --- */

#define HD_K 72 /* no multiple of 32 */
#define HD_V 40
#define CAP  5.0f

static float exp_of(const struct kern_table *k, float x)
{
    float y = x;
    k->exp_sum(&y, &x, 0.0f, 1);
    return y;
}

static float tanh_of(const struct kern_table *k, float x)
{
    k->soft_cap(&x, 1.0f, 1);
    return x;
}

/* Integers and scales per 32 of a vector; half: the scale is rounded to half precision first. */
static void quantize_head(const float *x, int n, bool is_half, float *q, float *d)
{
    for (int b = 0; b < n; b += 32) {
        const int m = n - b < 32 ? n - b : 32;
        float amax = 0.0f;
        for (int i = 0; i < m; i++) {
            amax = fmaxf(amax, fabsf(x[b + i]));
        }
        d[b / 32] = is_half ? quant_f16_to_f32(quant_f32_to_f16(amax / 127.0f)) : amax / 127.0f;
        for (int i = 0; i < m; i++) {
            const float v = is_half ? x[b + i] / d[b / 32] : x[b + i] * (127.0f / amax);
            q[b + i] = fminf(fmaxf(rintf(v), -127.0f), 127.0f);
        }
    }
}

/* To 8 significant bits, ties to even, by arithmetic: for numbers from 2^-50 on, smaller ones
 * are 0. */
static float near_bf16(float x)
{
    int e;
    const double part = frexp(x, &e);
    return fabsf(x) < 0x1p-50f ? 0.0f : (float)ldexp(rint(ldexp(part, 8)), e - 8);
}

/* exp(x) as 2^n times a polynomial, x <= 0. */
static float weight(const struct kern_table *k, enum kern_kv kv, float x)
{
    static const float of_bf16[] = { 0x1.C3F760p-5f, 0x1.F0DE1Ap-3f, 0x1.62F31Ap-1f,
                                     0x1.FFF692p-1f };
    static const float of_others[] = { 0x1.3997D6p-7f, 0x1.CA1440p-5f, 0x1.EC06DAp-3f,
                                       0x1.62E0DCp-1f, 0x1.FFFFE8p-1f };
    const float *c = kv == KERN_KV_BF16 ? of_bf16 : of_others;
    const int degree = kv == KERN_KV_BF16 ? 3 : 4;
    const float log2e = 0x1.715476p0f;
    const float n = rintf(x * log2e);
    const float f = fmaf(x, log2e, -n);
    float p = c[0];
    for (int i = 1; i <= degree; i++) {
        p = fmaf(p, f, c[i]);
    }
    p = n < -126.0f ? 0.0f : ldexpf(p, (int)n);
    return kv == KERN_KV_F32 ? exp_of(k, x) : kv == KERN_KV_BF16 ? near_bf16(p) : p;
}

static float score(enum kern_kv kv, const float *q, const float *key)
{
    float acc = 0.0f;
    float qi[HD_K];
    float ki[HD_K];
    float dq[3];
    float dk[3];
    if (kv == KERN_KV_BF16) {
        for (int i = 0; i < HD_K; i++) {
            const int d = i ^ 1; /* 1 0 3 2 ... */
            acc = fmaf(near_bf16(q[d]), near_bf16(key[d]), acc);
        }
        return acc;
    }
    if (kv != KERN_KV_Q8_0) {
        for (int d = 0; d < HD_K; d++) {
            const float x = kv == KERN_KV_F16 ? quant_f16_to_f32(quant_f32_to_f16(key[d])) : key[d];
            acc = fmaf(q[d], x, acc);
        }
        return acc;
    }
    quantize_head(q, HD_K, false, qi, dq);
    quantize_head(key, HD_K, true, ki, dk);
    for (int b = 0; b < HD_K; b += 32) {
        int s = 0;
        for (int d = b; d < HD_K && d < b + 32; d++) {
            s += (int)qi[d] * (int)ki[d];
        }
        acc = fmaf((float)s, dq[b / 32] * dk[b / 32], acc);
    }
    return acc;
}

struct span {
    float m, s, acc[HD_V];
};

struct cache {
    float k[KERN_SPAN][HD_K];
    float v[KERN_SPAN][HD_V];
};

static void values_float(enum kern_kv kv, const struct cache *c, const float *w, int lo, int hi,
                         float *acc)
{
    for (int p = lo; p < hi; p++) {
        for (int d = 0; d < HD_V; d++) {
            const float v = c->v[p][d];
            acc[d] =
                fmaf(w[p], kv == KERN_KV_F16 ? quant_f16_to_f32(quant_f32_to_f16(v)) : v, acc[d]);
        }
    }
}

static void values_bf16(const struct cache *c, const float *w, int lo, int hi, float *acc)
{
    for (int i = 0; i < KERN_SPAN; i++) {
        const int p = i ^ 1;
        for (int d = 0; d < HD_V && p >= lo && p < hi; d++) {
            acc[d] = fmaf(w[p], near_bf16(c->v[p][d]), acc[d]);
        }
    }
}

static void values_q8(const struct cache *c, const float *w, int lo, int hi, float *acc)
{
    static float q[KERN_SPAN][HD_V];
    static float d[KERN_SPAN][2];
    for (int p = lo; p < hi; p++) {
        quantize_head(c->v[p], HD_V, true, q[p], d[p]);
    }
    float most = 0.0f;
    for (int p = lo; p < hi; p++) {
        most = fmaxf(most, w[p] * fmaxf(d[p][0], d[p][1]));
    }
    for (int i = 0; i < HD_V; i++) {
        int64_t sum = 0;
        for (int p = lo; p < hi; p++) {
            const float u = rintf(w[p] * (32767.0f / most) * d[p][i / 32]);
            sum += (int64_t)u * (int64_t)q[p][i];
        }
        acc[i] = (float)sum * (most / 32767.0f);
    }
}

static void span_formula(const struct kern_table *k, enum kern_kv kv, const struct cache *c,
                         const float *q, int lo, int hi, struct span *out)
{
    float s[KERN_SPAN];
    float lane[16] = { 0 };
    *out = (struct span){ .m = -INFINITY };
    for (int p = lo; p < hi; p++) {
        s[p] = score(kv, q, c->k[p]) * 0.125f;
        s[p] = CAP * tanh_of(k, s[p] / CAP);
        out->m = fmaxf(out->m, s[p]);
    }
    for (int p = lo; p < hi; p++) {
        s[p] = weight(k, kv, s[p] - out->m);
        lane[p % 16] += s[p];
    }
    if (kv == KERN_KV_Q8_0) {
        values_q8(c, s, lo, hi, out->acc);
    } else if (kv == KERN_KV_BF16) {
        values_bf16(c, s, lo, hi, out->acc);
    } else {
        values_float(kv, c, s, lo, hi, out->acc);
    }
    out->s = tree(lane);
}

static void check_span(const struct kern_table *k, const char *what, const struct span *got,
                       const struct span *want)
{
    check_bits(k, what, got->m, want->m);
    check_bits(k, what, got->s, want->s);
    for (int d = 0; d < HD_V; d++) {
        check_bits(k, what, got->acc[d], want->acc[d]);
    }
}

#define N_QUERY 5

static void check_attention(const struct kern_table *k, enum kern_kv kv, const struct cache *c,
                            const float q[N_QUERY][HD_K])
{
    static const int32_t lo[N_QUERY] = { 0, 0, 37, 200, 255 };
    static const int32_t hi[N_QUERY] = { 256, 1, 131, 255, 256 };
    const size_t mark = arena_mark(&arena);
    const uint8_t *k_page[KERN_SPAN_PAGES];
    const uint8_t *v_page[KERN_SPAN_PAGES];
    struct span got[N_QUERY];
    struct span want[N_QUERY];
    const float *queries[N_QUERY];
    float m[N_QUERY];
    float s[N_QUERY];
    float *acc[N_QUERY];
    for (int page = 0; page < KERN_SPAN_PAGES; page++) {
        uint8_t *kp = arena_take(&arena, kern_kv_k_bytes(kv, HD_K));
        uint8_t *vp = arena_take(&arena, kern_kv_v_bytes(kv, HD_V));
        for (int slot = 0; slot < KERN_PAGE; slot++) {
            const int p = page * KERN_PAGE + slot;
            k->kv_put(kv, HD_K, HD_V, kp, vp, slot, c->k[p], c->v[p]);
        }
        k_page[page] = kp;
        v_page[page] = vp;
    }
    for (int i = 0; i < N_QUERY; i++) {
        queries[i] = q[i];
        acc[i] = got[i].acc;
        span_formula(k, kv, c, q[i], lo[i], hi[i], &want[i]);
    }
    const struct kern_attend a = { .kv = kv,
                                   .hd_k = HD_K,
                                   .hd_v = HD_V,
                                   .n_query = N_QUERY,
                                   .q = queries,
                                   .k_page = k_page,
                                   .v_page = v_page,
                                   .lo = lo,
                                   .hi = hi,
                                   .scale = 0.125f,
                                   .cap = CAP,
                                   .m = m,
                                   .s = s,
                                   .acc = acc };
    k->attend_span(&a);
    for (int i = 0; i < N_QUERY; i++) {
        got[i].m = m[i];
        got[i].s = s[i];
        check_span(k, kern_kv_name(kv), &got[i], &want[i]);
    }
    arena_rewind(&arena, mark);
}

static void attention(void **state)
{
    (void)state;
    static struct cache c;
    float q[N_QUERY][HD_K];
    for (int p = 0; p < KERN_SPAN; p++) {
        for (int d = 0; d < HD_K; d++) {
            c.k[p][d] = random_float();
        }
        for (int d = 0; d < HD_V; d++) {
            c.v[p][d] = random_float();
        }
    }
    for (int i = 0; i < N_QUERY * HD_K; i++) {
        q[i / HD_K][i % HD_K] = 4.0f * random_float();
    }
    FOR_TABLES(k)
    {
        for (int kv = 0; kv < KERN_KV_COUNT; kv++) {
            check_attention(k, (enum kern_kv)kv, &c, (const float(*)[HD_K])(const void *)q);
        }
    }
}

static void check_merging(void)
{
    struct span x = { .m = 1.5f + random_float(), .s = 3.25f + fabsf(random_float()) };
    struct span y = { .m = 1.5f + random_float(), .s = 3.25f + fabsf(random_float()) };
    for (int d = 0; d < HD_V; d++) {
        x.acc[d] = random_float();
        y.acc[d] = random_float();
    }
    FOR_TABLES(k)
    {
        for (int swap = 0; swap < 2; swap++) {
            const struct span *one = swap ? &y : &x;
            const struct span *two = swap ? &x : &y;
            const float most = fmaxf(x.m, y.m);
            const float a = exp_of(k, one->m - most);
            const float b = exp_of(k, two->m - most);
            struct span want = { .m = most, .s = fmaf(one->s, a, two->s * b) };
            struct span got = *one;
            for (int d = 0; d < HD_V; d++) {
                want.acc[d] = fmaf(one->acc[d], a, two->acc[d] * b);
            }
            k->attend_merge(&got.m, &got.s, got.acc, two->m, two->s, two->acc, HD_V);
            check_span(k, "merge", &got, &want);
        }
        float out[HD_V];
        k->attend_finish(out, x.m, x.s, x.acc, NULL, HD_V);
        check_bits(k, "finish", out[9], x.acc[9] / x.s);
        const float sinks[] = { 0.5f, 3.0f };
        for (int i = 0; i < 2; i++) {
            const float most = fmaxf(sinks[i], x.m);
            const float f = exp_of(k, x.m - most);
            const float s = fmaf(x.s, f, exp_of(k, sinks[i] - most));
            k->attend_finish(out, x.m, x.s, x.acc, &sinks[i], HD_V);
            check_bits(k, "finish with sink", out[9], x.acc[9] * f / s);
        }
    }
}

static void merging(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        check_merging();
    }
}

/* --- elementary functions --- */

/* Where long double is wider than the processor's registers, the exact functions run in software; fewer
 * arguments then, the bits being the same everywhere (tests/test_kern.c). */
#define SPARSE (LDBL_MANT_DIG > 64 ? 41 : 1)

typedef long double (*exact_fn)(long double x);

static long double exact_silu(long double x)
{
    return x / (1 + expl(-x));
}

static long double exact_gelu_tanh(long double x)
{
    const long double u = 0.797884560802865355879892119868763737L * (x + 0.044715L * x * x * x);
    return x / (1 + expl(-2 * u));
}

static long double exact_gelu_erf(long double x)
{
    return 0.5L * x * erfcl(-x * 0.707106781186547524400844362104849039L);
}

/* Error in units of the last place that a number with `digits` bits has there. */
static double ulps(long double got, long double want, int digits, int least)
{
    int e;
    (void)frexpl(want, &e);
    return (double)(fabsl(got - want) / ldexpl(1.0L, (e > least ? e : least) - digits));
}

enum which { EXP, TANH, SILU, GELU_TANH, GELU_ERF };

static void evaluate(const struct kern_table *k, enum which which, float *y, const float *x,
                     int32_t n)
{
    memcpy(y, x, (size_t)n * sizeof y[0]);
    switch (which) {
    case EXP:
        k->exp_sum(y, x, 0.0f, n);
        break;
    case TANH:
        k->soft_cap(y, 1.0f, n);
        break;
    case SILU:
        k->glu(KERN_FN_SILU, y, x, NULL, n);
        break;
    case GELU_TANH:
        k->glu(KERN_FN_GELU_TANH, y, x, NULL, n);
        break;
    case GELU_ERF:
        k->glu(KERN_FN_GELU_ERF, y, x, NULL, n);
        break;
    }
}

static void float_functions(void **state)
{
    (void)state;
    enum { PIECE = 1024, PIECES = 1000 / SPARSE };
    static const struct {
        const char *name;
        enum which which;
        exact_fn exact;
        double from, to, bound_ulp;
    } rows[] = {
        { "exp", EXP, expl, -87.3, 88.3, 1.1 },
        { "exp", EXP, expl, -20.0, 0.0, 1.1 },
        { "tanh", TANH, tanhl, -20.0, 20.0, 1.3 },
        { "tanh", TANH, tanhl, -0.01, 0.01, 1.3 },
        { "silu", SILU, exact_silu, -80.0, 80.0, 2.5 },
        { "silu", SILU, exact_silu, -20.0, 20.0, 2.5 },
        { "gelu_tanh", GELU_TANH, exact_gelu_tanh, -2.0, 20.0, 7.0 },
        { "gelu_tanh", GELU_TANH, exact_gelu_tanh, -10.0, -2.0, 200.0 },
        { "gelu_erf", GELU_ERF, exact_gelu_erf, -2.0, 20.0, 14.0 },
        { "gelu_erf", GELU_ERF, exact_gelu_erf, -13.0, -2.0, 200.0 },
    };
    const struct kern_table *k = kern_get(cpu_best());
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        double worst = 0.0;
        double worst_absolute = 0.0;
        for (int piece = 0; piece < PIECES; piece++) {
            float x[PIECE];
            float y[PIECE];
            for (int i = 0; i < PIECE; i++) {
                const double part = (double)(piece * PIECE + i) / (PIECE * PIECES);
                x[i] = (float)(rows[r].from + (rows[r].to - rows[r].from) * part);
            }
            evaluate(k, rows[r].which, y, x, PIECE);
            for (int i = 0; i < PIECE; i++) {
                const long double want = rows[r].exact((long double)x[i]);
                const double absolute = (double)fabsl((long double)y[i] - want);
                worst = fmax(worst, ulps((long double)y[i], want, 24, -125));
                worst_absolute = fmax(worst_absolute, absolute);
            }
        }
        print_message("# %-9s %6g .. %-5g %.2f ulp, %.2g absolute\n", rows[r].name, rows[r].from,
                      rows[r].to, worst, worst_absolute);
        if (!(worst <= rows[r].bound_ulp)) {
            fail_msg("%s: %g ulp, the bound is %g", rows[r].name, worst, rows[r].bound_ulp);
        }
    }
}

static void special_values(void **state)
{
    (void)state;
    FOR_TABLES(k)
    {
        check_bits(k, "exp(-inf)", exp_of(k, -INFINITY), 0.0f);
        check_bits(k, "exp(-100)", exp_of(k, -100.0f), 0.0f);
        check_bits(k, "exp(inf)", exp_of(k, INFINITY), INFINITY);
        check_bits(k, "exp(0)", exp_of(k, 0.0f), 1.0f);
        assert_true(isnan(exp_of(k, NAN)));
        assert_true(isnan(tanh_of(k, NAN)));
        check_bits(k, "tanh(inf)", tanh_of(k, INFINITY), 1.0f);
        check_bits(k, "tanh(-inf)", tanh_of(k, -INFINITY), -1.0f);
    }
}

static void double_functions(void **state)
{
    (void)state;
    double worst[5] = { 0 };
    for (int i = 0; i < 1000000; i += SPARSE) {
        const double part = i / 1e6;
        double x = 1400.0 * part - 700.0;
        worst[0] = fmax(worst[0], ulps(fmath_exp(x), expl(x), 53, -1021));
        x = i % 2 ? ldexp(1.0 + part, i % 2000 - 1000) : 0.5 + 1.5 * part;
        if (x != 1.0) {
            worst[1] = fmax(worst[1], ulps(fmath_log(x), logl(x), 53, -1021));
        }
        double s;
        double c;
        x = 1e6 * part * part * part;
        fmath_sincos(x, &s, &c);
        worst[2] = fmax(worst[2], ulps(s, sinl(x), 53, -1021));
        worst[3] = fmax(worst[3], ulps(c, cosl(x), 53, -1021));
        x = -2.0 * part;
        worst[4] = fmax(worst[4], ulps(fmath_pow(5e5, x), powl(5e5L, x), 53, -1021));
    }
    print_message("# double: exp %.2f, log %.2f, sin %.2f, cos %.2f, pow %.2f ulp\n", worst[0],
                  worst[1], worst[2], worst[3], worst[4]);
    assert_true(worst[0] <= 1.0);
    assert_true(worst[1] <= 1.0);
    assert_true(worst[2] <= 1.0);
    assert_true(worst[3] <= 1.0);
    assert_true(worst[4] <= 27.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),        cmocka_unit_test(norms),
        cmocka_unit_test(rotations),       cmocka_unit_test(attention),
        cmocka_unit_test(merging),         cmocka_unit_test(special_values),
        cmocka_unit_test(float_functions), cmocka_unit_test(double_functions),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
