/* kern - speed of the kernels, beside what this machine can do
 *
 * Products, for each element type: one token and a few tokens against a matrix that does not fit
 * any cache (the limit is memory), and many tokens against a smaller one (the limit is the
 * multiplier). The machine's read rate and its rate of int8 operations are measured in the same
 * run, because on shared machines both change by the minute; the read rate, which changes most,
 * again before each figure that it limits. Each figure is the best of some runs.
 *
 *     build/bench/kern ISA THREADS [TYPE [TOKENS [COLUMNS]]]   products of one instruction set
 *     build/bench/kern ISA THREADS attention [HEAD]   attention of one, heads of HEAD dimensions
 *     build/bench/kern all [THREADS]                  everything, as tables for docs/SPEED.md
 *
 * Parts of a product come in the order in which the engine hands them out (struct kern_line).
 *
 * `all` takes one to two minutes. It goes through the instruction sets that this machine can run:
 * products of all types, attention over a cache that does not fit any cache of the processor (one
 * query: limited by memory) and with 16 queries that share the pages (limited by arithmetic), and
 * the vector functions on 4096 floats. The plain C form is slow on purpose; it gets smaller shapes.
 *
 * Weights are random bytes with sane scales, packed once for 64 rows and repeated: the kernels do
 * not look at values. Numbers that are changed in place are chosen so that they stay ordinary.
 *
 * Next: tests/checkkern.h. */
#include "checkkern.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/team.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_COL           4096  /* of weights where nothing else is asked for, and of vectors */
#define N_COL_MAX       32768 /* asked for; a multiple of COL_UNIT */
#define COL_UNIT        256   /* the greatest block of a type */
#define ROWS_MADE       64
#define BIG_MB          160 /* of weights or pages that are read once, at least */
#define ROW_LEAST_BYTES 512 /* bytes of a row where that many are read */
#define MANY_ROWS       2048
#define N_TOK_MAX       512
#define BEST_OF         3
#define MIN_RUN_US      30000
#define PEAK_N          200000
#define SMALL_N         100 /* some microseconds for 16 parts */
#define ROWS_MAX        96
#define HEAD            128 /* dimensions of an attention head */
#define FILL            0x2C /* bytes of memory and pages: ordinary numbers as float, half and int8 */

/* How much work one figure takes. */
struct load {
    size_t big_bytes; /* of weights or pages that are read once, at most */
    int32_t many_rows;
    int32_t many_tok;
    uint32_t peak_n;
};
static const struct load usual_load = { SIZE_MAX, MANY_ROWS, N_TOK_MAX, PEAK_N };
static const struct load scalar_load = { (size_t)1 << 20, 64, 16, PEAK_N / 100 };

struct bench {
    const struct kern_table *k;
    struct team *team;
    struct arena arena;
    struct tensor w;
    struct kern_act act;
    struct kern_line line;
    int32_t n_col; /* of weights */
    float *x;
    float *y;
    const float *memory; /* [far_mb << 18] */
    int far_mb;          /* what is far beyond caches */
    struct load load;
    double read_gb_s;
    double int8_gop_s;
    double f32_gop_s;
    double job_ns; /* what a short job takes beyond its work: bringing the threads together */
};

/* --- limits ---------------------------------------------------------------------------------- */

static _Atomic uint64_t total_ops;

static void count_peak(struct bench *b, uint64_t (*peak)(uint32_t n, uint32_t *sink), int n)
{
    uint32_t sink = 0;
    for (int i = 0; i < n; i++) {
        total_ops += peak(b->load.peak_n, &sink);
    }
}

static void peak_part(void *arg, int from, int to)
{
    struct bench *b = arg;
    count_peak(b, b->k->peak_int8, to - from);
}

static void peak_f32_part(void *arg, int from, int to)
{
    struct bench *b = arg;
    count_peak(b, b->k->peak_f32, to - from);
}

static void read_part(void *arg, int from, int to)
{
    struct bench *b = arg;
    const float *p = b->memory + ((size_t)from << 18);
    total_ops += b->k->read_all(p, (size_t)(to - from) << 18) & 1;
}

static void small_part(void *arg, int from, int to)
{
    struct bench *b = arg;
    uint32_t sink = 0;
    b->k->peak_int8((uint32_t)(to - from) * SMALL_N, &sink);
}

/* What the team computes. */
struct shared {
    team_part_fn fn;
    int n_item;
    int grain;
};

/* The least time of one team_share, over some series of at least MIN_RUN_US. */
static double best_us(struct team *team, struct shared work, void *arg)
{
    double best = 1e18;
    for (int i = 0; i < BEST_OF; i++) {
        int n = 0;
        const uint64_t t0 = os_now_us();
        uint64_t t = t0;
        while (t - t0 < MIN_RUN_US) {
            team_share(team, work.fn, arg, work.n_item, work.grain);
            t = os_now_us();
            n++;
        }
        const double us = (double)(t - t0) / n;
        best = us < best ? us : best;
    }
    return best;
}

/* Operations of 16 shares, by the nanosecond. */
static double peak_gop_s(struct bench *b, team_part_fn fn)
{
    const struct shared work = { fn, 16, 1 };
    total_ops = 0;
    team_share(b->team, fn, b, work.n_item, work.grain);
    const double ops = (double)total_ops;
    return ops / best_us(b->team, work, b) / 1e3;
}

/* Of weights or pages that are read once. */
static size_t big_bytes(const struct bench *b)
{
    const size_t far_bytes = (size_t)b->far_mb << 20;
    return b->load.big_bytes < far_bytes ? b->load.big_bytes : far_bytes;
}

static void measure_read(struct bench *b)
{
    const double us = best_us(b->team, (struct shared){ read_part, b->far_mb, 4 }, b);
    b->read_gb_s = (double)((size_t)b->far_mb << 20) / us / 1e3;
}

static void measure_limits(struct bench *b)
{
    b->int8_gop_s = peak_gop_s(b, peak_part);
    b->f32_gop_s = peak_gop_s(b, peak_f32_part);
    const double alone = best_us(b->team, (struct shared){ small_part, 16, 16 }, b);
    const double together = best_us(b->team, (struct shared){ small_part, 16, 1 }, b);
    b->job_ns = 1e3 * (together - alone / team_size(b->team));
    measure_read(b);
}

/* --- products -------------------------------------------------------------------------------- */

static void matmul_part(void *arg, int from, int to)
{
    struct bench *b = arg;
    struct kern_part p;
    while (kern_line_next(&b->line, &from, to, &p)) {
        b->k->matmul(&b->w, p, &b->act, b->y, (size_t)tensor_panels(&b->w) * 16);
    }
}

static void prepare_part(void *arg, int from, int to)
{
    struct bench *b = arg;
    b->k->act_prepare(&b->act, b->x, (size_t)b->n_col, from, to);
}

static void make_weights(struct bench *b, enum quant_type type, int32_t n_row)
{
    struct checkkern_rand r = { 7 };
    struct tensor made;
    size_t row = 0;
    if (!pack_shape(type, ROWS_MADE, b->n_col, &made) ||
        !pack_shape(type, n_row, b->n_col, &b->w) || !quant_bytes(type, (uint64_t)b->n_col, &row)) {
        exit(2);
    }
    uint8_t *rows = arena_take(&b->arena, row * ROWS_MADE);
    uint8_t *data = arena_take(&b->arena, b->w.bytes + 4096);
    checkkern_rows(&r, type, rows, (size_t)b->n_col * ROWS_MADE, false);
    made.data = data;
    pack_rows(&made, data, 0, rows, ROWS_MADE);
    for (size_t at = made.bytes; at < b->w.bytes; at += made.bytes) {
        const size_t left = b->w.bytes - at;
        memcpy(data + at, data, left < made.bytes ? left : made.bytes);
    }
    b->w.data = data;
}

/* What one measurement of a product gave. */
struct figures {
    double gb_s;
    double gop_s;
    double prepare_us;
};

static struct figures bench_tokens(struct bench *b, int32_t n_tok)
{
    const size_t mark = arena_mark(&b->arena);
    const enum kern_act_kind kind = kern_act_kind_for(b->w.type);
    b->act = (struct kern_act){ kind, n_tok, b->n_col, NULL };
    b->act.data = arena_take(&b->arena, kern_act_bytes(kind, n_tok, b->n_col));
    b->line = kern_line_of(tensor_panels(&b->w), n_tok, kern_act_tiles_at_once(kind, b->n_col),
                           team_size(b->team));
    const struct shared prepare = { prepare_part, kern_act_tiles(n_tok), 1 };
    const struct shared product = { matmul_part, b->line.n_place, b->line.grain };
    const double prepare_us = best_us(b->team, prepare, b);
    const double us = best_us(b->team, product, b);
    arena_rewind(&b->arena, mark);
    return (struct figures){ .gb_s = (double)b->w.bytes / us / 1e3,
                             .gop_s = 2.0 * n_tok * b->w.n_row * (double)b->n_col / us / 1e3,
                             .prepare_us = prepare_us };
}

/* A type's product: few tokens against a big matrix, many against a small one. */
static struct figures bench_product(struct bench *b, enum quant_type type, int32_t n_tok,
                                    bool is_big)
{
    const size_t mark = arena_mark(&b->arena);
    size_t row = 0;
    if (!quant_bytes(type, (uint64_t)b->n_col, &row)) {
        exit(2);
    }
    const size_t fit = big_bytes(b) / (row > ROW_LEAST_BYTES ? row : ROW_LEAST_BYTES);
    const int32_t big = fit > ROWS_MADE ? (int32_t)(fit / 16 * 16) : ROWS_MADE;
    make_weights(b, type, is_big || big < b->load.many_rows ? big : b->load.many_rows);
    const struct figures f = bench_tokens(b, n_tok);
    arena_rewind(&b->arena, mark);
    return f;
}

static void print_product(struct bench *b, enum quant_type type, int32_t n_tok)
{
    const struct figures f = bench_product(b, type, n_tok, n_tok <= 16);
    printf("%-8s %4d tokens: %7.1f GB/s (%3.0f %%) %7.1f GOP/s (%3.0f %%), prepare %6.1f ns per "
           "token and 32\n",
           quant_get(type)->name, n_tok, f.gb_s, 100.0 * f.gb_s / b->read_gb_s, f.gop_s,
           100.0 * f.gop_s / b->int8_gop_s, f.prepare_us * 1e3 / n_tok / (b->n_col / 32));
    fflush(stdout);
}

/* --- attention ------------------------------------------------------------------------------- */

/* All spans of the memory, n_query queries each; many queries come back to pages that lie in a
 * cache. */
struct attend_job {
    struct bench *b;
    enum kern_kv kv;
    int32_t head; /* dimensions, up to HEAD */
    int32_t n_query;
    int32_t n_span;
    size_t span_bytes;
};

static void attend_part(void *arg, int from, int to)
{
    const struct attend_job *j = arg;
    const size_t k_bytes = kern_kv_k_bytes(j->kv, j->head);
    const uint8_t *k_page[KERN_SPAN_PAGES];
    const uint8_t *v_page[KERN_SPAN_PAGES];
    const uint8_t *k_ahead[KERN_SPAN_PAGES];
    const float *q[KERN_QUERIES];
    float out[KERN_QUERIES][HEAD];
    float *acc[KERN_QUERIES];
    float m[KERN_QUERIES];
    float s[KERN_QUERIES];
    int32_t lo[KERN_QUERIES] = { 0 };
    int32_t hi[KERN_QUERIES];
    for (int i = 0; i < KERN_QUERIES; i++) {
        q[i] = j->b->x + (size_t)i * HEAD;
        acc[i] = out[i];
        hi[i] = KERN_SPAN;
    }
    for (int span = from; span < to; span++) {
        const uint8_t *p = (const uint8_t *)j->b->memory + (size_t)span * j->span_bytes;
        for (size_t i = 0; i < KERN_SPAN_PAGES; i++) {
            k_page[i] = p + i * k_bytes;
            k_ahead[i] = k_page[i] + (span + 1 < j->n_span ? j->span_bytes : 0);
            v_page[i] = p + (KERN_SPAN_PAGES + i) * k_bytes; /* as many bytes as a page of keys */
        }
        const struct kern_attend a = { .kv = j->kv,
                                       .hd_k = j->head,
                                       .hd_v = j->head,
                                       .n_query = j->n_query,
                                       .q = q,
                                       .k_page = k_page,
                                       .v_page = v_page,
                                       .k_ahead = k_ahead,
                                       .lo = lo,
                                       .hi = hi,
                                       .scale = 0.1f,
                                       .m = m,
                                       .s = s,
                                       .acc = acc };
        j->b->k->attend_span(&a);
    }
}

static struct figures bench_attend(struct bench *b, enum kern_kv kv, int32_t head, int32_t n_query)
{
    const size_t span = KERN_SPAN_PAGES * (kern_kv_k_bytes(kv, head) + kern_kv_v_bytes(kv, head));
    const size_t big = big_bytes(b);
    const size_t near = big < (size_t)4 << 20 ? big : (size_t)4 << 20;
    const size_t bytes = n_query == KERN_QUERIES ? near : big;
    struct attend_job j = { .b = b,
                            .kv = kv,
                            .head = head,
                            .n_query = n_query,
                            .n_span = (int32_t)(bytes / span),
                            .span_bytes = span };
    const double us = best_us(b->team, (struct shared){ attend_part, j.n_span, 1 }, &j);
    const double ops = 4.0 * n_query * KERN_SPAN * head; /* q . k and w * v, two each */
    return (struct figures){ .gb_s = (double)span * j.n_span / us / 1e3,
                             .gop_s = ops * j.n_span / us / 1e3 };
}

/* Queries 1, 4 and 16: an answer, an answer of a model that shares its keys, a prompt. */
static void bench_attention(struct bench *b, int32_t head)
{
    printf("head of %d: float %.0f GFLOP/s, int8 %.0f\n", head, b->f32_gop_s, b->int8_gop_s);
    for (int32_t n = 1; n <= KERN_QUERIES; n *= 4) {
        for (int kv = 0; kv < KERN_KV_COUNT; kv++) {
            measure_read(b);
            const struct figures f = bench_attend(b, (enum kern_kv)kv, head, n);
            printf("%-5s %2d queries  %5.1f GB/s (%3.0f %% of reading)  %5.1f GFLOP/s\n",
                   kern_kv_name((enum kern_kv)kv), n, f.gb_s, 100.0 * f.gb_s / b->read_gb_s,
                   f.gop_s);
        }
    }
}

/* --- vectors ---------------------------------------------------------------------------------- */

enum vec {
    VEC_NORM_RMS,
    VEC_NORM_LAYER,
    VEC_SILU,
    VEC_GELU_TANH,
    VEC_GELU_ERF,
    VEC_ADD,
    VEC_ADD_SCALED,
    VEC_MUL,
    VEC_SCALE,
    VEC_SOFT_CAP,
    VEC_ROPE_PAIRS,
    VEC_ROPE_HALVES,
    VEC_ARGMAX,
    VEC_MAX,
    VEC_EXP_SUM,
    VEC_MERGE,
    VEC_COUNT,
};
static const char *const vec_names[VEC_COUNT] = {
    "norm_rms",   "norm_layer", "glu silu", "glu gelu_tanh", "glu gelu_erf", "add",
    "add_scaled", "mul",        "scale",    "soft_cap",      "rope pairs",   "rope halves",
    "argmax",     "max",        "exp_sum",  "attend_merge"
};

/* x: input; y: output that nothing reads; z: changed in place; one: ones. All [N_COL]. */
static void vec_once(const struct kern_table *k, enum vec v, const float *x, float *y, float *z,
                     const float *one)
{
    float m = 0.0f;
    float s = 1.0f;
    switch (v) {
    case VEC_NORM_RMS:
        k->norm_rms(y, x, one, 1e-5f, N_COL);
        break;
    case VEC_NORM_LAYER:
        k->norm_layer(y, x, one, x, 1e-5f, N_COL);
        break;
    case VEC_SILU:
        k->glu(KERN_FN_SILU, y, x, one, N_COL);
        break;
    case VEC_GELU_TANH:
        k->glu(KERN_FN_GELU_TANH, y, x, one, N_COL);
        break;
    case VEC_GELU_ERF:
        k->glu(KERN_FN_GELU_ERF, y, x, one, N_COL);
        break;
    case VEC_ADD:
        k->add(z, x, N_COL);
        break;
    case VEC_ADD_SCALED:
        k->add_scaled(z, x, 0.5f, N_COL);
        break;
    case VEC_MUL:
        k->mul(z, one, N_COL);
        break;
    case VEC_SCALE:
        k->scale(z, 1.0f, N_COL);
        break;
    case VEC_SOFT_CAP:
        k->soft_cap(z, 30.0f, N_COL);
        break;
    case VEC_ROPE_PAIRS:
    case VEC_ROPE_HALVES: /* a quarter turn: cos 0, sin 1 */
        k->rope(v == VEC_ROPE_PAIRS ? KERN_ROPE_PAIRS : KERN_ROPE_HALVES, z, N_COL / HEAD, HEAD,
                HEAD, y, one);
        break;
    case VEC_ARGMAX:
        (void)k->argmax(x, N_COL);
        break;
    case VEC_MAX:
        (void)k->max(x, N_COL);
        break;
    case VEC_EXP_SUM:
        (void)k->exp_sum(y, x, 3.0f, N_COL);
        break;
    case VEC_MERGE:
        k->attend_merge(&m, &s, z, -1.0f, 1.0f, x, N_COL);
        break;
    case VEC_COUNT:
        break;
    }
}

/* Floats by the nanosecond on one thread. */
static double bench_vec(struct bench *b, enum vec v)
{
    float *y = b->y;
    float *z = b->y + N_COL;
    float *one = b->y + 2 * N_COL;
    memset(y, 0, N_COL * sizeof y[0]);
    memcpy(z, b->x, N_COL * sizeof z[0]);
    for (int i = 0; i < N_COL; i++) {
        one[i] = 1.0f;
    }
    double best = 1e18;
    for (int i = 0; i < BEST_OF; i++) {
        int n = 0;
        const uint64_t t0 = os_now_us();
        uint64_t t = t0;
        while (t - t0 < MIN_RUN_US) {
            for (int k = 0; k < 16; k++) {
                vec_once(b->k, v, b->x, y, z, one);
            }
            t = os_now_us();
            n += 16;
        }
        const double us = (double)(t - t0) / n;
        best = us < best ? us : best;
    }
    return N_COL / best / 1e3;
}

/* --- one instruction set, or all -------------------------------------------------------------- */

static void bench_open(struct bench *b, const struct kern_table *t, int n_thread, int32_t n_col)
{
    const int far = (int)(os_beyond_caches((uint64_t)BIG_MB << 20) >> 20);
    const size_t far_bytes = (size_t)far << 20;
    const size_t x_bytes = (size_t)N_TOK_MAX * (size_t)n_col * sizeof(float);
    const size_t y_bytes = (size_t)16 * (far_bytes / ROW_LEAST_BYTES) * sizeof(float);
    /* rows that are made and one more, and activations: a float a column, as x; page borders */
    const size_t more_bytes = (size_t)(ROWS_MADE + 1) * (size_t)n_col * sizeof(float) + (8u << 20);
    *b = (struct bench){ .k = t,
                         .load = t->isa == CPU_SCALAR ? scalar_load : usual_load,
                         .far_mb = far,
                         .n_col = n_col };
    if (team_open(&b->team, n_thread) != ERR_OK ||
        arena_open(&b->arena, 2 * far_bytes + 2 * x_bytes + 2 * y_bytes + more_bytes, true) !=
            ERR_OK) {
        fprintf(stderr, "kern: %s\n", err_text());
        exit(2);
    }
    b->memory = arena_take(&b->arena, far_bytes);
    b->x = arena_take(&b->arena, x_bytes);
    b->y = arena_take(&b->arena, 2 * y_bytes);
    if (b->memory == NULL || b->x == NULL || b->y == NULL) {
        exit(2);
    }
    struct checkkern_rand r = { 1 };
    for (size_t i = 0; i < x_bytes / sizeof(float); i++) {
        b->x[i] = checkkern_float(&r, CHECKKERN_PLAIN);
    }
    memset((void *)(uintptr_t)b->memory, FILL, far_bytes);
    measure_limits(b);
}

static void bench_close(struct bench *b)
{
    team_close(b->team);
    arena_close(&b->arena);
}

static bool is_weight(uint32_t type)
{
    return quant_get(type)->decode != NULL;
}

static void bench_table(const struct kern_table *t, int n_thread, const char *type_name,
                        int32_t n_tok, int32_t n_col)
{
    static const int32_t usual[] = { 1, 2, 4, 8, 16, 32, 64, 512 };
    struct bench b;
    bench_open(&b, t, n_thread, n_col);
    b.load = usual_load; /* whatever it takes: these shapes were asked for */
    printf("%s, %d threads\nlimits: int8 %.0f GOP/s, memory %.1f GB/s; a job costs %.0f ns\n",
           t->name, n_thread, b.int8_gop_s, b.read_gb_s, b.job_ns);
    if (type_name != NULL && strcmp(type_name, "attention") == 0) {
        bench_attention(&b, n_tok > 0 && n_tok < HEAD ? n_tok : HEAD);
    }
    for (uint32_t type = 0; type < QUANT_TYPE_COUNT; type++) {
        if (!is_weight(type) ||
            (type_name != NULL && strcmp(type_name, quant_get(type)->name) != 0)) {
            continue;
        }
        for (size_t i = 0; i < (n_tok > 0 ? 1 : sizeof usual / sizeof usual[0]); i++) {
            print_product(&b, (enum quant_type)type, n_tok > 0 ? n_tok : usual[i]);
        }
    }
    bench_close(&b);
}

/* What `all` prints: a cell for each row and instruction set. */
struct sheet {
    int n_isa;
    int n_row;
    int i_row;
    const struct kern_table *isa[CPU_ISA_COUNT];
    struct {
        const char *table; /* the heading of the table that the row belongs to */
        const char *name;
        char cell[CPU_ISA_COUNT][24];
    } row[ROWS_MAX];
};

/* The next row's figure of instruction set i_isa; limit > 0: also as percents of it. */
static void sheet_put(struct sheet *s, int i_isa, const char *table, const char *name, double value,
                      double limit)
{
    if (s->i_row >= ROWS_MAX) {
        exit(2);
    }
    char *cell = s->row[s->i_row].cell[i_isa];
    s->row[s->i_row].table = table;
    s->row[s->i_row].name = name;
    s->n_row = ++s->i_row;
    if (limit > 0.0) {
        snprintf(cell, sizeof s->row[0].cell[0], "%.3g (%.0f)", value, 100.0 * value / limit);
    } else {
        snprintf(cell, sizeof s->row[0].cell[0], "%.3g", value);
    }
}

static void sheet_products(struct sheet *s, int i_isa, struct bench *b)
{
    for (int is_big = 1; is_big >= 0; is_big--) {
        for (uint32_t type = 0; type < QUANT_TYPE_COUNT; type++) {
            if (!is_weight(type)) {
                continue;
            }
            if (is_big) {
                measure_read(b);
            }
            const struct figures f =
                bench_product(b, (enum quant_type)type, is_big ? 1 : b->load.many_tok, is_big != 0);
            const char *name = quant_get(type)->name;
            if (is_big) {
                sheet_put(s, i_isa, "Products, 1 token: weights read, GB/s (% of memory read)",
                          name, f.gb_s, b->read_gb_s);
            } else {
                sheet_put(s, i_isa, "Products, 512 tokens (scalar 16): GOP/s (% of int8)", name,
                          f.gop_s, b->int8_gop_s);
            }
        }
    }
}

static void sheet_fill(struct sheet *s, int i_isa, int n_thread)
{
    struct bench b;
    s->i_row = 0;
    bench_open(&b, s->isa[i_isa], n_thread, N_COL);
    sheet_put(s, i_isa, "Limits", "memory read, GB/s", b.read_gb_s, 0.0);
    sheet_put(s, i_isa, "Limits", "int8, GOP/s", b.int8_gop_s, 0.0);
    sheet_put(s, i_isa, "Limits", "float, GFLOP/s", b.f32_gop_s, 0.0);
    if (n_thread > 1) {
        sheet_put(s, i_isa, "Limits", "a job of 16 parts costs, ns", b.job_ns, 0.0);
    }
    sheet_products(s, i_isa, &b);
    for (int kv = 0; kv < KERN_KV_COUNT; kv++) {
        measure_read(&b);
        const struct figures f = bench_attend(&b, (enum kern_kv)kv, HEAD, 1);
        sheet_put(s, i_isa, "Attention, 1 query: pages read, GB/s (% of memory read)",
                  kern_kv_name((enum kern_kv)kv), f.gb_s, b.read_gb_s);
    }
    for (int kv = 0; kv < KERN_KV_COUNT; kv++) {
        const struct figures f = bench_attend(&b, (enum kern_kv)kv, HEAD, KERN_QUERIES);
        sheet_put(s, i_isa, "Attention, 16 queries: GFLOP/s (% of float)",
                  kern_kv_name((enum kern_kv)kv), f.gop_s, b.f32_gop_s);
    }
    for (int v = 0; v < VEC_COUNT; v++) {
        sheet_put(s, i_isa, "Vectors of 4096 in the first cache, one thread: floats/ns",
                  vec_names[v], bench_vec(&b, (enum vec)v), 0.0);
    }
    bench_close(&b);
}

static void sheet_print(const struct sheet *s, int n_thread)
{
    char day[16] = "";
    const time_t now = (time_t)os_wall_s();
    strftime(day, sizeof day, "%Y-%m-%d", gmtime(&now));
    printf("%s, %s, %d thread%s, compiler %s\n", day, cpu_get()->name, n_thread,
           n_thread == 1 ? "" : "s", __VERSION__);
    for (int i = 0; i < s->n_row; i++) {
        if (i == 0 || strcmp(s->row[i].table, s->row[i - 1].table) != 0) {
            printf("\n| %s |", s->row[i].table);
            for (int k = 0; k < s->n_isa; k++) {
                printf(" %s |", cpu_isa_name(s->isa[k]->isa));
            }
            printf("\n|---|");
            for (int k = 0; k < s->n_isa; k++) {
                printf("---:|");
            }
            printf("\n");
        }
        printf("| %s |", s->row[i].name);
        for (int k = 0; k < s->n_isa; k++) {
            printf(" %s |", s->row[i].cell[k]);
        }
        printf("\n");
    }
}

static int all(int n_thread)
{
    static struct sheet s;
    for (int i = 0; i < CPU_ISA_COUNT; i++) {
        if (kern_get((enum cpu_isa)i) != NULL && cpu_can((enum cpu_isa)i)) {
            s.isa[s.n_isa++] = kern_get((enum cpu_isa)i);
        }
    }
    for (int i = 0; i < s.n_isa; i++) {
        sheet_fill(&s, i, n_thread);
    }
    sheet_print(&s, n_thread);
    return 0;
}

/* Of an argument that may be absent; -1 when it is no whole number above zero. */
static int number(int argc, char **argv, int i, int absent)
{
    if (i >= argc) {
        return absent;
    }
    char *end;
    const long n = strtol(argv[i], &end, 10);
    return *end != '\0' || n < 1 || n > INT_MAX ? -1 : (int)n;
}

/* Whether there is something to measure by that name. */
static bool is_known(const char *name)
{
    for (uint32_t type = 0; type < QUANT_TYPE_COUNT; type++) {
        if (is_weight(type) && strcmp(name, quant_get(type)->name) == 0) {
            return true;
        }
    }
    return strcmp(name, "attention") == 0;
}

int main(int argc, char **argv)
{
    enum cpu_isa isa;
    const bool is_all = argc > 1 && argc <= 3 && strcmp(argv[1], "all") == 0;
    const char *name = argc > 3 ? argv[3] : NULL;
    const int n_thread = number(argc, argv, 2, is_all ? 1 : 0);
    const int n_tok = number(argc, argv, 4, 0);
    const int n_col = number(argc, argv, 5, N_COL);
    if (is_all && n_thread >= 1) {
        return all(n_thread);
    }
    if (n_thread < 1 || argc > 6 || n_tok < 0 || n_tok > N_TOK_MAX || n_col < COL_UNIT ||
        n_col > N_COL_MAX || n_col % COL_UNIT != 0 || !cpu_isa_parse(argv[1], &isa)) {
        fprintf(stderr,
                "usage: kern ISA THREADS [TYPE [TOKENS, up to %d "
                "[COLUMNS, a multiple of %d up to %d]]]\n"
                "       kern ISA THREADS attention [HEAD, up to %d]\n"
                "       kern all [THREADS]\n"
                "ISA: one of " CPU_ISA_NAMES "\n",
                N_TOK_MAX, COL_UNIT, N_COL_MAX, HEAD);
        return 2;
    }
    if (kern_get(isa) == NULL || !cpu_can(isa)) {
        fprintf(stderr, "kern: this machine cannot run %s\n", argv[1]);
        return 10;
    }
    if (name != NULL && (!is_known(name) || (strcmp(name, "attention") == 0 && n_tok > HEAD))) {
        fprintf(stderr,
                "kern: \"%s\": a type of weights is wanted, as Q4_0, or attention of a head of 1 "
                "to %d\n",
                name, HEAD);
        return 2;
    }
    bench_table(kern_get(isa), n_thread, name, n_tok, n_col);
    return 0;
}
