/* kern - speed of the products, beside what this machine can do
 *
 * For each element type: one token and a few tokens against a matrix that does not fit any cache
 * (the limit is memory), and many tokens against a smaller one (the limit is the multiplier). The
 * machine's read rate and its rate of int8 operations are measured in the same run, because on
 * shared machines both change by the minute. Each figure is the best of some runs.
 *
 * Weights are random bytes with sane scales, packed once for 64 rows and repeated: the kernels do
 * not look at values.
 *
 *     ninja -C build bench/kern && build/bench/kern ISA THREADS [TYPE [TOKENS]]
 *
 * Next: tests/checkkern.h. */
#include "checkkern.h"

#include "base/mem.h"
#include "base/os.h"
#include "base/team.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_COL      4096
#define ROWS_MADE  64
#define BIG_BYTES  ((size_t)160 << 20)
#define MANY_ROWS  2048
#define N_TOK_MAX  512
#define BEST_OF    3
#define MIN_RUN_US 30000
#define PEAK_N     200000

struct bench {
    const struct kern_table *k;
    struct team *team;
    struct arena arena;
    struct tensor w;
    struct kern_act act;
    float *x, *y;
    const float *memory;
    double read_gb_s, int8_gop_s;
};

/* --- limits ---------------------------------------------------------------------------------- */

static _Atomic uint64_t total_ops;

static void peak_worker(void *arg, int i_worker)
{
    (void)i_worker;
    struct bench *b = arg;
    uint32_t sink = 0;
    int from;
    int to;
    while (team_chunk(b->team, 16, 1, &from, &to)) {
        total_ops += b->k->peak_int8(PEAK_N, &sink);
    }
}

static void read_worker(void *arg, int i_worker)
{
    (void)i_worker;
    struct bench *b = arg;
    int from;
    int to;
    while (team_chunk(b->team, 160, 4, &from, &to)) {
        const float *p = b->memory + ((size_t)from << 18);
        total_ops += b->k->read_all(p, (size_t)(to - from) << 18) & 1;
    }
}

static double best_us(struct bench *b, team_fn fn)
{
    double best = 1e18;
    for (int i = 0; i < BEST_OF; i++) {
        int n = 0;
        const uint64_t t0 = os_now_us();
        uint64_t t = t0;
        while (t - t0 < MIN_RUN_US) {
            team_chunk_reset(b->team);
            team_run(b->team, fn, b);
            t = os_now_us();
            n++;
        }
        const double us = (double)(t - t0) / n;
        best = us < best ? us : best;
    }
    return best;
}

static void measure_limits(struct bench *b)
{
    total_ops = 0;
    team_chunk_reset(b->team);
    team_run(b->team, peak_worker, b);
    const double ops = (double)total_ops;
    b->int8_gop_s = ops / best_us(b, peak_worker) / 1e3;
    b->read_gb_s = (double)BIG_BYTES / best_us(b, read_worker) / 1e3;
    printf("limits: int8 %.0f GOP/s, memory %.1f GB/s\n", b->int8_gop_s, b->read_gb_s);
}

/* --- products -------------------------------------------------------------------------------- */

static void matmul_worker(void *arg, int i_worker)
{
    (void)i_worker;
    struct bench *b = arg;
    const int n = tensor_panels(&b->w);
    int from;
    int to;
    while (team_chunk(b->team, n, n / (8 * team_size(b->team)) + 1, &from, &to)) {
        b->k->matmul(&b->w, from, to, &b->act, b->y, (size_t)tensor_panels(&b->w) * 16);
    }
}

static void prepare_worker(void *arg, int i_worker)
{
    (void)i_worker;
    struct bench *b = arg;
    int from;
    int to;
    while (team_chunk(b->team, kern_act_tiles(b->act.n_tok), 1, &from, &to)) {
        b->k->act_prepare(&b->act, b->x, N_COL, from, to);
    }
}

static void make_weights(struct bench *b, enum quant_type type, int32_t n_row)
{
    struct checkkern_rand r = { 7 };
    struct tensor made;
    size_t row = 0;
    if (!pack_shape(type, ROWS_MADE, N_COL, &made) || !pack_shape(type, n_row, N_COL, &b->w) ||
        !quant_bytes(type, N_COL, &row)) {
        exit(2);
    }
    uint8_t *rows = arena_take(&b->arena, row * ROWS_MADE);
    uint8_t *data = arena_take(&b->arena, b->w.bytes + 4096);
    checkkern_rows(&r, type, rows, (size_t)N_COL * ROWS_MADE, false);
    made.data = data;
    pack_rows(&made, data, 0, rows, ROWS_MADE);
    for (size_t at = made.bytes; at < b->w.bytes; at += made.bytes) {
        const size_t left = b->w.bytes - at;
        memcpy(data + at, data, left < made.bytes ? left : made.bytes);
    }
    b->w.data = data;
}

static void bench_tokens(struct bench *b, int32_t n_tok)
{
    const size_t mark = arena_mark(&b->arena);
    const enum kern_act_kind kind = kern_act_kind_for(b->w.type);
    b->act = (struct kern_act){ kind, n_tok, N_COL, NULL };
    b->act.data = arena_take(&b->arena, kern_act_bytes(kind, n_tok, N_COL));
    const double prepare_us = best_us(b, prepare_worker);
    const double us = best_us(b, matmul_worker);
    const double gop = 2.0 * n_tok * b->w.n_row * (double)N_COL / us / 1e3;
    const double gb = (double)b->w.bytes / us / 1e3;
    printf("%-8s %4d tokens: %7.1f GB/s (%3.0f %%) %7.1f GOP/s (%3.0f %%), prepare %6.1f ns per "
           "token and 32\n",
           quant_get(b->w.type)->name, n_tok, gb, 100.0 * gb / b->read_gb_s, gop,
           100.0 * gop / b->int8_gop_s, prepare_us * 1e3 / n_tok / (N_COL / 32));
    fflush(stdout);
    arena_rewind(&b->arena, mark);
}

static void bench_type(struct bench *b, enum quant_type type, const int32_t *n_tok, int n)
{
    for (int i = 0; i < n; i++) {
        const size_t mark = arena_mark(&b->arena);
        size_t row = 0;
        if (!quant_bytes(type, N_COL, &row)) {
            return;
        }
        const int32_t big = (int32_t)(BIG_BYTES / row) / 16 * 16;
        make_weights(b, type, n_tok[i] <= 16 ? big : MANY_ROWS);
        bench_tokens(b, n_tok[i]);
        arena_rewind(&b->arena, mark);
    }
}

static void bench_table(const struct kern_table *t, int n_thread, const char *type_name,
                        int32_t n_tok)
{
    static const int32_t usual[] = { 1, 2, 4, 8, 16, 32, 64, 512 };
    struct bench b = { .k = t };
    /* 1.6 MB of random rows at most, twice the weights' copies, activations and results */
    const size_t y_bytes = (size_t)16 * (BIG_BYTES / 512) * sizeof(float);
    if (team_open(&b.team, n_thread) != ERR_OK ||
        arena_open(&b.arena, 2 * BIG_BYTES + 3 * y_bytes, true) != ERR_OK) {
        exit(2);
    }
    b.memory = arena_take(&b.arena, BIG_BYTES);
    b.x = arena_take(&b.arena, (size_t)N_TOK_MAX * N_COL * sizeof(float));
    b.y = arena_take(&b.arena, 2 * y_bytes);
    if (b.memory == NULL || b.x == NULL || b.y == NULL) {
        exit(2);
    }
    struct checkkern_rand r = { 1 };
    for (size_t i = 0; i < (size_t)N_TOK_MAX * N_COL; i++) {
        b.x[i] = checkkern_float(&r, CHECKKERN_PLAIN);
    }
    memset((void *)(uintptr_t)b.memory, 1, BIG_BYTES);
    printf("%s, %d threads\n", t->name, n_thread);
    measure_limits(&b);
    for (uint32_t type = 0; type < QUANT_TYPE_COUNT; type++) {
        const struct quant_info *q = quant_get(type);
        if (q->decode == NULL || (type_name != NULL && strcmp(type_name, q->name) != 0)) {
            continue;
        }
        bench_type(&b, (enum quant_type)type, n_tok > 0 ? &n_tok : usual,
                   n_tok > 0 ? 1 : (int)(sizeof usual / sizeof usual[0]));
    }
    team_close(b.team);
    arena_close(&b.arena);
}

int main(int argc, char **argv)
{
    enum cpu_isa isa;
    const int n_thread = argc > 2 ? atoi(argv[2]) : 0;
    const int n_tok = argc > 4 ? atoi(argv[4]) : 0;
    if (n_thread < 1 || argc > 5 || n_tok < 0 || n_tok > N_TOK_MAX ||
        !cpu_isa_parse(argv[1], &isa)) {
        fprintf(stderr, "usage: kern scalar|avx2|avx512|neon THREADS [TYPE [TOKENS, up to %d]]\n",
                N_TOK_MAX);
        return 2;
    }
    if (kern_get(isa) == NULL || !cpu_can(isa)) {
        fprintf(stderr, "kern: this machine cannot run %s\n", argv[1]);
        return 10;
    }
    bench_table(kern_get(isa), n_thread, argc > 3 ? argv[3] : NULL, n_tok);
    return 0;
}
