/* attn_tile - what the steps of attention over a span share (header only, part of attn_body.h)
 *
 * Up to TILE queries are taken at once: their range of positions, themselves, their scores and then
 * weights. attn_body.h says what happens to them, attn_bf16.h what is special about bf16 pages. */
#ifndef HEARTH_ATTN_TILE_H
#define HEARTH_ATTN_TILE_H

#include "kern/gemm_act.h"

#if defined(LANES_AVX512)
#define TILE    8
#define CHAINS  16
#define WEIGHED 4 /* queries whose weights are made side by side */
#else
#define TILE    4
#define CHAINS  4
#define WEIGHED 1
#endif

#define PAGES_MAX  4 /* side by side */
#define GROUPS_MAX 8
#define SPLIT_MAX  4 /* sums of a query's values side by side, in q8_0 pages */
#define NOINLINE   __attribute__((noinline, unused))
#define UNROLL     _Pragma("GCC unroll 16")
#define BLOCK      UNIT /* dimensions under one scale in q8_0 pages: the rule of activations */
#define BLOCK_PAGE (BLOCK * KERN_PAGE) /* bytes of a block's numbers in a page */
#define BLOCKS_MAX (KERN_HEAD_MAX / BLOCK)
#define ROW        (KERN_SPAN + LANES)     /* of scores; not a power of two: cache sets */
#define Q_ROW      (KERN_HEAD_MAX + LANES) /* of queries */

/* How pages are computed with; bf16 in two ways with equal bits. Always a constant. */
enum form { FORM_F16, FORM_Q8_0, FORM_F32, FORM_BF16, FORM_DOT };

INLINE int32_t blocks_of(int32_t hd)
{
    return (hd + BLOCK - 1) / BLOCK;
}

struct tile {
    const struct kern_attend *a;
    int32_t i0; /* queries [i0, i0 + n) of the call */
    int32_t n;
    int32_t n_full; /* n rounded up to 1, 2, 4, 8: places beyond n repeat the last query */
    int32_t page0;  /* pages that some query sees part of */
    int32_t page1;
    int32_t lo[TILE];
    int32_t hi[TILE];
    float *acc[TILE]; /* results; places beyond n point to spare memory */
    union {
        _Alignas(64) float q[TILE][Q_ROW];
        struct {                           /* q8_0 */
            float *v_scale;                /* [blocks of V][KERN_SPAN] */
            float *v_most;                 /* [KERN_SPAN] the greatest scale of each position */
            float d[TILE][BLOCKS_MAX];     /* scales of the query's blocks */
            int32_t sum[TILE][BLOCKS_MAX]; /* of their integers */
            float step[TILE];              /* one unit of u times one of V */
            float inverse[TILE];
            int8_t q[TILE][KERN_HEAD_MAX];
            int16_t u[TILE][KERN_SPAN]; /* weights of the present block of V */
        } i8;
        struct { /* FORM_DOT */
            _Alignas(64) uint16_t q[TILE][KERN_HEAD_MAX];
            _Alignas(64) uint16_t u[TILE][KERN_SPAN]; /* weights */
        } pair;
    };
    _Alignas(64) float w[TILE][ROW]; /* scores, then weights */
};

/* exp(x) for n weights, x <= 0: 2^k times a polynomial. Degree 3 is within 2^-13, 4 within 2^-18.
 * See weight_of in attn_ref.c. Step by step for all n, since each step waits for the one before. */
INLINE void l_exp_weights(lanes *x, int n, int degree)
{
    static const float of3[] = { 0x1.C3F760p-5f, 0x1.F0DE1Ap-3f, 0x1.62F31Ap-1f, 0x1.FFF692p-1f };
    static const float of4[] = { 0x1.3997D6p-7f, 0x1.CA1440p-5f, 0x1.EC06DAp-3f, 0x1.62E0DCp-1f,
                                 0x1.FFFFE8p-1f };
    const float *factor = degree == 3 ? of3 : of4;
    const lanes log2_e = l_set(0x1.715476p0f);
    const lanes big = l_set(0x1.8000FEp23f);
    lanes t[TILE];
    lanes f[TILE];
    UNROLL for (int j = 0; j < n; j++)
    {
        x[j] = l_max(l_set(-88.0f), x[j]);
    }
    UNROLL for (int j = 0; j < n; j++)
    {
        t[j] = l_fma(x[j], log2_e, big);
    }
    UNROLL for (int j = 0; j < n; j++)
    {
        f[j] = l_sub(big, t[j]);
        t[j] = l_power2(t[j]); /* k = -127 gives 0 */
    }
    UNROLL for (int j = 0; j < n; j++)
    {
        f[j] = l_fma(x[j], log2_e, f[j]);
        x[j] = l_set(factor[0]);
    }
    UNROLL for (int i = 1; i <= degree; i++)
    {
        UNROLL for (int j = 0; j < n; j++)
        {
            x[j] = l_fma(x[j], f[j], l_set(factor[i]));
        }
    }
    UNROLL for (int j = 0; j < n; j++)
    {
        x[j] = l_mul(x[j], t[j]);
    }
}

/* Functions of one form that are not worth a copy for each number of queries. */
struct form_fns {
    void (*weigh)(struct tile *t);
    void (*value_one)(const struct tile *t, int32_t i, int32_t from, int32_t to);
};

/* Some of a tile's queries and the positions that all of them see. */
struct share {
    const struct tile *t;
    int32_t i0;   /* first of the queries */
    int32_t from; /* positions */
    int32_t to;
};

#endif
