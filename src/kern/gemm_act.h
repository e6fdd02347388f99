/* gemm_act - activations as the product kernels read them (header only, private to kern/)
 *
 * Tokens are taken in tiles of 16; the last one may be of 1, 2, 4 or 8 (gemm_tile) and is filled up
 * with zero tokens. Within a tile of T tokens, for each unit of 32 columns:
 *     int8  q[8][T][4]    group g of 4 columns, token t: the integers, or their low parts
 *     float d[T]          scale
 *     float a0[T], a1[T]  sums of the first and second 16 integers (exact)
 *     float m[T]          (a0 + a1) * d, for types with a constant
 *     int32 n8[3][T]      -8 times the sums of q: of the halves and of both, where sums of codes
 *                         with an offset start
 * so that one address with constant offsets reaches everything, and four columns of a token can be
 * broadcast by one instruction. Behind the units of the tile: struct act_side. For codebook types a
 * set may want a unit's integers in another order of columns (act_order_fn), for all types groups
 * of 8 columns, q[4][T][8]; all else is as before.
 *
 * A few channels of real models are tens of times greater than their neighbours, and a scale that
 * reaches them leaves the other 31 columns of their unit few steps. So what stands out of its row
 * is an integer q + 128 h of up to 14 bits, and the scale is that of the rest. The products of h
 * come behind those of all units, and only where some h is not 0, so that the loop over units pays
 * nothing for them. They are listed by group, because then only that group is decoded.
 *
 * Against float weights: float x[n_col][T].
 *
 * Include lanes.h (with its instruction set chosen) before this file. */
#ifndef HEARTH_GEMM_ACT_H
#define HEARTH_GEMM_ACT_H

#include "kern/kern.h"
#include "kern/lanes.h"

#include <assert.h>
#include <stddef.h>

#define UNIT          32
#define TILE_MAX      KERN_TILE
#define UNITS_AT_ONCE 16 /* being prepared */
#define HIGH_BITS     7  /* a high part is worth 128 */
#define HIGH          (1 << HIGH_BITS)
#define RANGE         64.0f /* at most so many times 127 */
#define STAND_OUT     3.0f  /* times the mean of the greatest values of the row's units */

/* High parts of one token in one group of columns. */
struct act_high {
    int8_t h[4]; /* first, so that it can be loaded as 16 bytes */
    float d;     /* 128 times the unit's scale */
    int32_t unit;
    int16_t token; /* of the tile */
    int16_t sum;   /* of h */
};
static_assert(sizeof(struct act_high) == 16, "loaded as 16 bytes");

/* Behind it: struct act_high [8][side_room()], of group g the first n[g], by units, then tokens. */
struct act_side {
    int32_t n[8];
};

INLINE size_t unit_bytes(int32_t tile)
{
    return (size_t)tile * (UNIT + 7 * sizeof(float));
}

/* Less than a third of a row's units exceed three times the mean. */
INLINE size_t side_room(int32_t tile, int32_t n_col)
{
    return (size_t)tile * (size_t)(n_col / UNIT / 3 + 1);
}

/* Tokens in tile i. 16 is what the registers of AVX-512 have room for; a smaller last tile spares
 * products with tokens that do not exist. */
INLINE int32_t gemm_tile(int32_t n_tok, int32_t i)
{
    const int32_t left = n_tok - i * TILE_MAX;
    return left <= 2 ? left : left <= 4 ? 4 : left <= 8 ? 8 : TILE_MAX;
}

/* What each panel reads of a tile. */
INLINE size_t gemm_read_bytes(enum kern_act_kind kind, int32_t tile, int32_t n_col)
{
    return kind != KERN_ACT_F32 ? unit_bytes(tile) * (size_t)(n_col / UNIT)
                                : (size_t)tile * (size_t)n_col * sizeof(float);
}

INLINE size_t gemm_tile_bytes(enum kern_act_kind kind, int32_t tile, int32_t n_col)
{
    const size_t side =
        sizeof(struct act_side) + 8 * side_room(tile, n_col) * sizeof(struct act_high);
    return gemm_read_bytes(kind, tile, n_col) + (kind != KERN_ACT_F32 ? side : 0);
}

/* Where tile i begins. */
INLINE uint8_t *gemm_tile_at(const struct kern_act *a, int32_t i)
{
    return a->data + (size_t)i * gemm_tile_bytes(a->kind, TILE_MAX, a->n_col);
}

/* Of a tile that begins at `tile_at`. */
INLINE struct act_side *side_at(const uint8_t *tile_at, int32_t tile, int32_t n_col)
{
    return (struct act_side *)(void *)(tile_at + unit_bytes(tile) * (size_t)(n_col / UNIT));
}

INLINE struct act_high *high_at(const struct act_side *side, int g, int32_t tile, int32_t n_col)
{
    return (struct act_high *)(void *)(side + 1) + (size_t)g * side_room(tile, n_col);
}

/* A unit of one token. */
struct act_unit {
    int8_t q[UNIT];
    int8_t h[UNIT];  /* only where `groups` has a bit */
    uint32_t groups; /* with high parts */
};

INLINE lanes size_of(lanes x)
{
    return l_from_bits(il_and(l_bits(x), il_set(0x7FFFFFFF)));
}

/* Of the 32 floats of a unit, the greatest absolute value up to `limit`, at least amax / RANGE. */
INLINE float rest_amax(const float *x, float limit, float amax)
{
    const lanes zero = l_set(0.0f);
    const lanes a0 = size_of(l_load(x));
    const lanes a1 = size_of(l_load(x + LANES));
    const lanes l = l_set(limit);
    const float rest = l_amax(l_less(l, a0, zero, a0), l_less(l, a1, zero, a1));
    const float least = amax * (1.0f / RANGE);
    return rest > least ? rest : least;
}

/* Scales of n units of 32 floats from their greatest absolute values, those without what stands
 * out, and what to multiply with. Not finite: the scale carries it and the integers are 0, so that
 * the product is not finite either. */
INLINE void unit_scales(const float *amax, const float *rest, int32_t n, float *d, float *inverse)
{
    const lanes zero = l_set(0.0f);
    const lanes tiny = l_set(0x1p-100f);
    const lanes most = l_set(HUGE_VALF);
    const lanes c = l_set(127.0f);
    for (int32_t i = 0; i < n; i += LANES) {
        const lanes m = l_load(amax + i);
        const lanes r = l_load(rest + i);
        l_store(d + i, l_less(m, tiny, zero, l_less(m, most, l_div(r, c), m)));
        l_store(inverse + i, l_less(m, tiny, zero, l_less(m, most, l_div(c, r), zero)));
    }
}

/* One token's unit, by its factor: 32 floats to integers, v + 1.5 * 2^23 as a float. */
INLINE lanes to_integers(const float *x, float inverse)
{
    return l_add(l_mul(l_load(x), l_set(inverse)), l_set(0x1.8p23f)); /* ties to even */
}

INLINE ilanes integers_of(lanes t)
{
    return il_sub(l_bits(t), il_set(0x4B400000));
}

INLINE void quantize_unit(const float *x, float inverse, int8_t q[UNIT])
{
    for (int i = 0; i < UNIT; i += LANES) {
        /* |v| <= 127: x * (127 / amax) rounds to at most 127; factor 0: infinities and NaNs go */
        const ilanes v = integers_of(to_integers(x + i, inverse));
        il_store_i8(q + i, il_and(v, il_set(-(inverse != 0.0f))));
    }
}

/* The same where something stands out: what exceeds `limit` in two parts. */
INLINE void split_unit(const float *x, float inverse, float limit, struct act_unit *to)
{
    const lanes big = l_set(0x1.8p23f);
    to->groups = 0;
    for (int i = 0; i < UNIT; i += LANES) {
        const lanes v = l_sub(to_integers(x + i, inverse), big);
        const lanes part = l_sub(l_add(l_mul(v, l_set(1.0f / HIGH)), big), big);
        const lanes high = l_less(l_set(limit), size_of(l_load(x + i)), part, l_set(0.0f));
        const lanes low = l_fma(high, l_set(-HIGH), v);
        il_store_i8(to->h + i, integers_of(l_add(high, big)));
        il_store_i8(to->q + i, integers_of(l_add(low, big)));
    }
    for (int g = 0; g < 8; g++) {
        uint32_t four;
        memcpy(&four, to->h + 4 * g, sizeof four);
        to->groups |= (uint32_t)(four != 0) << g;
    }
}

/* Scale and sums of token t of a tile's unit, to what follows its integers. */
INLINE void put_sums(uint8_t *to, int32_t tile, int32_t t, const struct act_unit *from, float scale)
{
    int32_t sum[2];
    int32_t high[2] = { 0, 0 };
    l_sums_i8(from->q, sum);
    if (from->groups != 0) {
        l_sums_i8(from->h, high);
    }
    float *d = (float *)(void *)to + t;
    d[0] = scale;
    d[tile] = (float)(sum[0] + HIGH * high[0]);
    d[2 * tile] = (float)(sum[1] + HIGH * high[1]);
    d[3 * tile] = (d[tile] + d[2 * tile]) * scale;
    int32_t *n8 = (int32_t *)(void *)(d + 4 * tile);
    n8[0] = -8 * sum[0];
    n8[tile] = -8 * sum[1];
    n8[2 * tile] = n8[0] + n8[tile];
}

/* Lists the high parts of token t in unit u. */
INLINE void put_high(struct act_side *side, int32_t tile, int32_t n_col, int32_t t, int32_t u,
                     const struct act_unit *from, float scale)
{
    for (uint32_t left = from->groups; left != 0; left &= left - 1) {
        const int g = __builtin_ctz(left);
        const int8_t *h = from->h + 4 * g;
        high_at(side, g, tile, n_col)[side->n[g]++] =
            (struct act_high){ .h = { h[0], h[1], h[2], h[3] },
                               .d = (float)HIGH * scale,
                               .unit = u,
                               .token = (int16_t)t,
                               .sum = (int16_t)(h[0] + h[1] + h[2] + h[3]) };
    }
}

/* Puts a unit's integers in the order of a codebook type's columns. */
typedef void (*act_order_fn)(bool is_halved, int8_t q[UNIT]);

/* A tile being prepared. */
struct act_tile {
    uint8_t *to;
    int32_t n; /* tokens */
    int32_t n_col;
    enum kern_act_kind kind;
    act_order_fn order;       /* of codebook types; NULL: as they are */
    int32_t group;            /* columns of a group */
    const float *x[TILE_MAX]; /* NULL: a token that only fills the tile up */
    float limit[TILE_MAX];    /* beyond it a value stands out */
};

/* The greatest values of the units wait where their scales will be. */
INLINE void tile_limits(struct act_tile *p)
{
    const int32_t n_unit = p->n_col / UNIT;
    for (int32_t t = 0; t < p->n; t++) {
        float sum = 0.0f;
        for (int32_t u = 0; u < n_unit; u++) {
            const float *from = p->x[t] != NULL ? p->x[t] + (size_t)u * UNIT : NULL;
            const float amax = from != NULL ? l_amax(l_load(from), l_load(from + LANES)) : 0.0f;
            ((float *)(void *)(p->to + (size_t)u * unit_bytes(p->n) + UNIT * p->n))[t] = amax;
            sum += amax;
        }
        p->limit[t] = STAND_OUT * (sum / (float)n_unit);
    }
}

/* The integers of a unit's tokens. They were stored in halves, and a wide load that comes too soon
 * would wait for them, so this is the last step. */
INLINE void put_integers(const struct act_tile *p, uint8_t *to, struct act_unit *from)
{
    for (int32_t t = 0; t < p->n; t++) {
        if (p->order != NULL && p->kind != KERN_ACT_I8) {
            p->order(p->kind == KERN_ACT_BOOK_HALVED, from[t].q);
        }
        for (int32_t k = 0; k < UNIT; k += p->group) {
            memcpy(to + k * p->n + p->group * t, from[t].q + k, (size_t)p->group);
        }
    }
}

/* n units from u0 on. Divisions are made for 16 scales at once, and long after their operands were
 * stored. */
INLINE void prepare_units(const struct act_tile *p, int32_t u0, int32_t n)
{
    const int32_t tile = p->n;
    const float *limit = p->limit;
    const float *const *x = p->x;
    struct act_side *side = side_at(p->to, tile, p->n_col);
    float amax[UNITS_AT_ONCE * TILE_MAX + LANES] = { 0 };
    float rest[UNITS_AT_ONCE * TILE_MAX + LANES] = { 0 };
    float scale[UNITS_AT_ONCE * TILE_MAX + LANES];
    float inverse[UNITS_AT_ONCE * TILE_MAX + LANES];
    for (int32_t u = 0; u < n; u++) {
        const uint8_t *at = p->to + (size_t)(u0 + u) * unit_bytes(tile) + UNIT * tile;
        memcpy(amax + u * tile, at, (size_t)tile * sizeof amax[0]);
        for (int32_t t = 0; t < tile; t++) {
            const int32_t i = u * tile + t;
            rest[i] = amax[i] > limit[t] && amax[i] < HUGE_VALF
                          ? rest_amax(x[t] + (size_t)(u0 + u) * UNIT, limit[t], amax[i])
                          : amax[i];
        }
    }
    unit_scales(amax, rest, n * tile, scale, inverse);
    for (int32_t u = 0; u < n; u++) {
        uint8_t *to = p->to + (size_t)(u0 + u) * unit_bytes(tile);
        struct act_unit units[TILE_MAX];
        for (int32_t t = 0; t < tile; t++) {
            const int32_t i = u * tile + t;
            const float *from = x[t] != NULL ? x[t] + (size_t)(u0 + u) * UNIT : NULL;
            struct act_unit *unit = &units[t];
            *unit = (struct act_unit){ .groups = 0 };
            if (from != NULL && inverse[i] != 0.0f && amax[i] > limit[t]) {
                split_unit(from, inverse[i], limit[t], unit);
                put_high(side, tile, p->n_col, t, u0 + u, unit, scale[i]);
            } else if (from != NULL) {
                quantize_unit(from, inverse[i], unit->q);
            }
            put_sums(to + UNIT * tile, tile, t, unit, scale[i]);
        }
        put_integers(p, to, units);
    }
}

INLINE void prepare_i8(struct act_tile *p)
{
    const int32_t n_unit = p->n_col / UNIT;
    tile_limits(p);
    *side_at(p->to, p->n, p->n_col) = (struct act_side){ .n = { 0 } };
    for (int32_t u = 0; u < n_unit; u += UNITS_AT_ONCE) {
        prepare_units(p, u, n_unit - u < UNITS_AT_ONCE ? n_unit - u : UNITS_AT_ONCE);
    }
}

INLINE void prepare_f32(const struct act_tile *p)
{
    float *to = (float *)(void *)p->to;
    for (int32_t t = 0; t < p->n; t++) {
        for (int32_t k = 0; k < p->n_col; k++) {
            to[(size_t)k * (size_t)p->n + (size_t)t] = p->x[t] != NULL ? p->x[t][k] : 0.0f;
        }
    }
}

/* What sets may do in their own way: columns of a group, 4 or 8; or NULL: an order for codebook
 * types, and a tile of 16 tokens, with the bits of prepare_i8. */
struct act_how {
    int32_t group;
    act_order_fn order;
    void (*whole)(struct act_tile *p);
};

/* The act_prepare entry of the table, see kern.h. */
INLINE void gemm_act_prepare_as(struct act_how how, const struct kern_act *a, const float *x,
                                size_t ldx, int32_t tile0, int32_t tile1)
{
    for (int32_t i = tile0; i < tile1; i++) {
        struct act_tile p = { .to = gemm_tile_at(a, i),
                              .n = gemm_tile(a->n_tok, i),
                              .n_col = a->n_col,
                              .kind = a->kind,
                              .group = how.group,
                              .order = how.order };
        for (int32_t t = 0; t < p.n; t++) {
            const int32_t tok = i * TILE_MAX + t;
            const bool is_there = tok < a->n_tok;
            const int32_t row = is_there && a->rows != NULL ? a->rows[tok] : tok;
            p.x[t] = is_there ? x + (size_t)row * ldx : NULL;
        }
        if (a->kind == KERN_ACT_F32) {
            prepare_f32(&p);
        } else if (how.whole != NULL && i * TILE_MAX + TILE_MAX <= a->n_tok) {
            how.whole(&p);
        } else {
            prepare_i8(&p);
        }
    }
}

static void __attribute__((unused)) gemm_act_prepare(const struct kern_act *a, const float *x,
                                                     size_t ldx, int32_t tile0, int32_t tile1)
{
    gemm_act_prepare_as((struct act_how){ 4, NULL, NULL }, a, x, ldx, tile0, tile1);
}

#endif
