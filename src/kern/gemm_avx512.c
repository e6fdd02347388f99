/* gemm_avx512 - products with packed weights on AVX-512 VNNI
 *
 * One lane is one output row, so a panel of 16 rows needs no horizontal sums. For each unit of 32
 * columns a decode step turns the packed bits into eight registers of unsigned codes (group g: 4
 * columns of 16 rows) and the scales into registers of floats; then each token of the tile takes
 * eight vpdpbusd, whose second operand is four activations broadcast straight from memory. The
 * decode step is shared by up to 8 tokens.
 *
 * Codes are unsigned (value + offset), because vpdpbusd wants one unsigned side. The offset comes
 * off afterwards as offset * sum of the activations; all numbers are integers below 2^24, so this
 * is exact in float and the bits equal those of gemm_ref.c. Sub-scales are multiplied in float for
 * the same reason.
 *
 * One instruction per inline asm: gcc 12 spills the accumulators of the plain intrinsic to the
 * stack, which costs half the speed (measured on Zen 5, 2026-11, docs/SPEED.md). Weights are
 * prefetched 8 KB ahead.
 *
 * Types that stay in the file's rows (codebook types) are decoded by their scalar unit function
 * into the same registers; that step is slow, the products are not.
 *
 * Next: gemm_avx2.c. */
#define LANES_AVX512
#include "kern/lanes.h"

#include "kern/gemm.h"
#include "kern/gemm_act.h"
#include "kern/peak_body.h"

#define UNROLL         _Pragma("GCC unroll 16")
#define AHEAD          8192 /* bytes between the block that is read and the one that is fetched */
#define TOKENS_AT_ONCE 96   /* their activations should stay in the second-level cache */

/* A unit of 16 rows in registers. */
struct unit {
    __m512i w[8];  /* codes: group g, byte 4 * row + t */
    __m512 d[2];   /* scales of the halves (equal but for NVFP4) */
    __m512 sub[2]; /* integer sub-scales */
    __m512 min[2]; /* integer minima */
    __m512 dmin, m;
};

/* What a type needs beyond sum * d: chosen at compile time. */
enum form {
    FORM_PLAIN,    /* d */
    FORM_M,        /* d, m */
    FORM_SUB,      /* one sub-scale */
    FORM_SUB_MIN,  /* one sub-scale and minimum */
    FORM_SUB2,     /* two sub-scales */
    FORM_SUB2_MIN, /* two sub-scales and minima */
    FORM_HALVED,   /* two float scales */
};

INLINE void dot(__m512i *acc, __m512i w, const void *a)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*acc) : "v"(w), "m"(*(const int32_t *)a));
}

INLINE __m512 load_h(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

INLINE __m512 bytes_to_f(__m128i b)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b));
}

INLINE void nibbles(const uint8_t *p, __m512i *w)
{
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL for (int j = 0; j < 4; j++)
    {
        const __m512i v = _mm512_loadu_si512(p + 64 * j);
        w[2 * j] = _mm512_and_si512(v, low);
        w[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    }
}

INLINE void twos(const uint8_t *p, __m512i *w)
{
    const __m512i low = _mm512_set1_epi8(3);
    UNROLL for (int j = 0; j < 2; j++)
    {
        const __m512i v = _mm512_loadu_si512(p + 64 * j);
        UNROLL for (int i = 0; i < 4; i++)
        {
            w[4 * j + i] = _mm512_and_si512(_mm512_srli_epi16(v, 2 * i), low);
        }
    }
}

INLINE void add_bits(const uint8_t *masks, __m512i *w, char value)
{
    const __m512i v = _mm512_set1_epi8(value);
    UNROLL for (int g = 0; g < 8; g++)
    {
        uint64_t m;
        memcpy(&m, masks + 8 * g, sizeof m);
        w[g] = _mm512_mask_add_epi8(w[g], m, w[g], v);
    }
}

/* 32 6-bit numbers in 24 bytes: the first and the second 16 as floats. */
INLINE void sixes(const uint8_t *p, __m512 *first, __m512 *second)
{
    const __m128i low = _mm_loadu_si128((const void *)p);
    const __m128i high = _mm_loadl_epi64((const void *)(p + 16));
    const __m128i m4 = _mm_set1_epi8(15);
    const __m128i even = _mm_and_si128(low, m4);
    const __m128i odd = _mm_and_si128(_mm_srli_epi16(low, 4), m4);
    /* two high bits of number i: byte i / 4, bits 2 * (i % 4) */
    const __m512i pick = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const __m512i shift = _mm512_set_epi32(6, 4, 2, 0, 6, 4, 2, 0, 6, 4, 2, 0, 6, 4, 2, 0);
    const __m512i three = _mm512_set1_epi32(3);
    const __m512i h32 = _mm512_cvtepu8_epi32(high);
    const __m512i h0 = _mm512_permutexvar_epi32(pick, h32);
    const __m512i h1 = _mm512_permutexvar_epi32(_mm512_add_epi32(pick, _mm512_set1_epi32(4)), h32);
    const __m512i l0 = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(even, odd));
    const __m512i l1 = _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(even, odd));
    const __m512i t0 = _mm512_and_si512(_mm512_srlv_epi32(h0, shift), three);
    const __m512i t1 = _mm512_and_si512(_mm512_srlv_epi32(h1, shift), three);
    *first = _mm512_cvtepi32_ps(_mm512_or_si512(l0, _mm512_slli_epi32(t0, 4)));
    *second = _mm512_cvtepi32_ps(_mm512_or_si512(l1, _mm512_slli_epi32(t1, 4)));
}

/* 16 6-bit numbers in 12 bytes, minus 32. */
INLINE __m512 sixes_less_32(const uint8_t *p)
{
    uint8_t room[24] = { 0 };
    memcpy(room, p, 8);
    memcpy(room + 16, p + 8, 4);
    __m512 first;
    __m512 second;
    sixes(room, &first, &second);
    return _mm512_sub_ps(first, _mm512_set1_ps(32.0f));
}

/* Codes looked up in a table of 16 bytes. */
INLINE void look_up(__m512i *w, const int8_t table[16], char offset)
{
    const __m128i t = _mm_add_epi8(_mm_loadu_si128((const void *)table), _mm_set1_epi8(offset));
    const __m512i all = _mm512_broadcast_i32x4(t);
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = _mm512_shuffle_epi8(all, w[g]);
    }
}

/* --- decode steps: block, unit within the block -> registers ---------------------------------- */

typedef void (*decode_fn)(const uint8_t *block, int j, struct unit *u);

INLINE void decode_q4_0(const uint8_t *b, int j, struct unit *u)
{
    (void)j;
    u->d[0] = load_h(b);
    nibbles(b + 32, u->w);
}

INLINE void decode_q4_1(const uint8_t *b, int j, struct unit *u)
{
    (void)j;
    u->d[0] = load_h(b);
    u->m = load_h(b + 32);
    nibbles(b + 64, u->w);
}

INLINE void decode_q5_0(const uint8_t *b, int j, struct unit *u)
{
    (void)j;
    u->d[0] = load_h(b);
    nibbles(b + 96, u->w);
    add_bits(b + 32, u->w, 16);
}

INLINE void decode_q5_1(const uint8_t *b, int j, struct unit *u)
{
    (void)j;
    u->d[0] = load_h(b);
    u->m = load_h(b + 32);
    nibbles(b + 128, u->w);
    add_bits(b + 64, u->w, 16);
}

INLINE void decode_q8_0(const uint8_t *b, int j, struct unit *u)
{
    (void)j;
    u->d[0] = load_h(b);
    UNROLL for (int g = 0; g < 8; g++)
    {
        u->w[g] = _mm512_loadu_si512(b + 32 + 64 * g);
    }
}

static const int8_t levels_iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113 };
static const int8_t levels_e2m1[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

INLINE void decode_iq4_nl(const uint8_t *b, int j, struct unit *u)
{
    decode_q4_0(b, j, u);
    look_up(u->w, levels_iq4, (char)128);
}

INLINE void decode_mxfp4(const uint8_t *b, int j, struct unit *u)
{
    (void)j;
    const __m512i e =
        _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)b)); /* 2^(e - 128), see quant_iq.c */
    const __mmask16 is_small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    u->d[0] = _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_small, normal, small));
    nibbles(b + 16, u->w);
    look_up(u->w, levels_e2m1, 12);
}

INLINE void decode_q2_k(const uint8_t *b, int j, struct unit *u)
{
    const uint8_t *p = b + 64 + 160 * j;
    const __m128i m4 = _mm_set1_epi8(15);
    u->d[0] = load_h(b);
    u->dmin = load_h(b + 32);
    UNROLL for (int h = 0; h < 2; h++)
    {
        const __m128i s = _mm_loadu_si128((const void *)(p + 16 * h));
        u->sub[h] = bytes_to_f(_mm_and_si128(s, m4));
        u->min[h] = bytes_to_f(_mm_and_si128(_mm_srli_epi16(s, 4), m4));
    }
    twos(p + 32, u->w);
}

INLINE void decode_q3_k(const uint8_t *b, int j, struct unit *u)
{
    const uint8_t *p = b + 32 + 216 * j;
    const __m512 off = _mm512_set1_ps(32.0f);
    u->d[0] = load_h(b);
    sixes(p, &u->sub[0], &u->sub[1]);
    u->sub[0] = _mm512_sub_ps(u->sub[0], off);
    u->sub[1] = _mm512_sub_ps(u->sub[1], off);
    twos(p + 88, u->w);
    add_bits(p + 24, u->w, 4);
}

INLINE void decode_q4_k(const uint8_t *b, int j, struct unit *u)
{
    const uint8_t *p = b + 64 + 280 * j;
    u->d[0] = load_h(b);
    u->dmin = load_h(b + 32);
    sixes(p, &u->sub[0], &u->min[0]);
    nibbles(p + 24, u->w);
}

INLINE void decode_q5_k(const uint8_t *b, int j, struct unit *u)
{
    const uint8_t *p = b + 64 + 344 * j;
    u->d[0] = load_h(b);
    u->dmin = load_h(b + 32);
    sixes(p, &u->sub[0], &u->min[0]);
    nibbles(p + 88, u->w);
    add_bits(p + 24, u->w, 16);
}

INLINE void decode_q6_k(const uint8_t *b, int j, struct unit *u)
{
    const uint8_t *p = b + 32 + 416 * j;
    u->d[0] = load_h(b);
    UNROLL for (int h = 0; h < 2; h++)
    {
        u->sub[h] =
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(p + 16 * h))));
    }
    __m512i high[8];
    twos(p + 32, high);
    nibbles(p + 160, u->w);
    UNROLL for (int g = 0; g < 8; g++)
    {
        u->w[g] = _mm512_or_si512(u->w[g], _mm512_slli_epi16(high[g], 4));
    }
}

INLINE void decode_iq4_xs(const uint8_t *b, int j, struct unit *u)
{
    const uint8_t *p = b + 32 + 268 * j;
    u->d[0] = load_h(b);
    u->sub[0] = sixes_less_32(p);
    nibbles(p + 12, u->w);
    look_up(u->w, levels_iq4, (char)128);
}

/* --- the product of one unit with one tile ---------------------------------------------------- */

/* Sum over groups [g0, g1) of code * activation for token t, less the offset, as exact floats. */
INLINE __m512 sum_of(const struct unit *u, const uint8_t *a, int tile, int t, int g0, int g1,
                     float offset, __m512 a_sum)
{
    __m512i s = _mm512_setzero_si512();
    UNROLL for (int g = g0; g < g1; g++)
    {
        dot(&s, u->w[g], a + (g * tile + t) * 4);
    }
    const __m512 f = _mm512_cvtepi32_ps(s);
    return offset != 0.0f ? _mm512_fnmadd_ps(_mm512_set1_ps(offset), a_sum, f) : f;
}

INLINE __m512 token_step(const struct unit *u, enum form form, float offset, const uint8_t *a,
                         int tile, int t, __m512 acc)
{
    const float *d = (const float *)(const void *)(a + UNIT * tile);
    const __m512 da = _mm512_set1_ps(d[t]);
    const __m512 a0 = _mm512_set1_ps(d[tile + t]);
    const __m512 a1 = _mm512_set1_ps(d[2 * tile + t]);
    const __m512 scale = _mm512_mul_ps(u->d[0], da);
    if (form == FORM_HALVED) {
        acc = _mm512_fmadd_ps(sum_of(u, a, tile, t, 0, 4, offset, a0), scale, acc);
        return _mm512_fmadd_ps(sum_of(u, a, tile, t, 4, 8, offset, a1), _mm512_mul_ps(u->d[1], da),
                               acc);
    }
    if (form == FORM_SUB2 || form == FORM_SUB2_MIN) {
        const __m512 s0 = _mm512_mul_ps(sum_of(u, a, tile, t, 0, 4, offset, a0), u->sub[0]);
        const __m512 s = _mm512_fmadd_ps(sum_of(u, a, tile, t, 4, 8, offset, a1), u->sub[1], s0);
        acc = _mm512_fmadd_ps(s, scale, acc);
    } else {
        __m512 s = sum_of(u, a, tile, t, 0, 8, offset, _mm512_add_ps(a0, a1));
        s = form == FORM_SUB || form == FORM_SUB_MIN ? _mm512_mul_ps(s, u->sub[0]) : s;
        acc = _mm512_fmadd_ps(s, scale, acc);
    }
    if (form == FORM_M) {
        acc = _mm512_fmadd_ps(u->m, _mm512_mul_ps(_mm512_add_ps(a0, a1), da), acc);
    } else if (form == FORM_SUB_MIN) {
        const __m512 sum = _mm512_mul_ps(u->min[0], _mm512_add_ps(a0, a1));
        acc = _mm512_fnmadd_ps(sum, _mm512_mul_ps(u->dmin, da), acc);
    } else if (form == FORM_SUB2_MIN) {
        const __m512 sum = _mm512_fmadd_ps(u->min[1], a1, _mm512_mul_ps(u->min[0], a0));
        acc = _mm512_fnmadd_ps(sum, _mm512_mul_ps(u->dmin, da), acc);
    }
    return acc;
}

INLINE void store_tile(const __m512 *acc, int tile, int n, float *y, size_t ldy)
{
    UNROLL for (int t = 0; t < tile; t++)
    {
        if (t < n) {
            _mm512_storeu_ps(y + (size_t)t * ldy, acc[t]);
        }
    }
}

/* One panel times one tile; everything but the pointers is constant after inlining. */
INLINE void panel_tile(decode_fn decode, enum form form, float offset, int units, size_t block,
                       int tile, const uint8_t *w, int32_t n_block, const uint8_t *a, int n,
                       float *y, size_t ldy)
{
    __m512 acc[8];
    UNROLL for (int t = 0; t < tile; t++)
    {
        acc[t] = _mm512_setzero_ps();
    }
    for (int32_t i = 0; i < n_block; i++, w += block) {
        for (int j = 0; j < units; j++, a += UNIT_BYTES(tile)) {
            struct unit u;
            const uint8_t *ahead = w + (size_t)j * (block / (size_t)units) + AHEAD;
            UNROLL for (size_t p = 0; p < block / (size_t)units; p += 64)
            {
                _mm_prefetch((const char *)ahead + p, _MM_HINT_T0);
            }
            decode(w, j, &u);
            UNROLL for (int t = 0; t < tile; t++)
            {
                acc[t] = token_step(&u, form, offset, a, tile, t, acc[t]);
            }
        }
    }
    store_tile(acc, tile, n, y, ldy);
}

struct product {
    const struct tensor *w;
    const struct kern_act *a;
    float *y;
    size_t ldy;
    int32_t tile0, tile1; /* tiles of tokens */
};

INLINE void panel_run(decode_fn decode, enum form form, float offset, int units, size_t block,
                      const struct product *p, int32_t panel)
{
    const int32_t tile = gemm_tile(p->a->n_tok);
    const size_t bytes = gemm_tile_bytes(KERN_ACT_I8, tile, p->a->n_col);
    const uint8_t *w = p->w->data + (size_t)panel * p->w->stride;
    const int32_t n_block = p->w->n_col / (UNIT * units);
    for (int32_t i = p->tile0; i < p->tile1; i++) {
        const uint8_t *a = p->a->data + (size_t)i * bytes;
        const int32_t left = p->a->n_tok - i * tile;
        const int n = left < tile ? left : tile;
        float *y = p->y + (size_t)(i * tile) * p->ldy + (size_t)panel * LANES;
        if (tile == 8) {
            panel_tile(decode, form, offset, units, block, 8, w, n_block, a, n, y, p->ldy);
        } else if (tile == 4) {
            panel_tile(decode, form, offset, units, block, 4, w, n_block, a, n, y, p->ldy);
        } else if (tile == 2) {
            panel_tile(decode, form, offset, units, block, 2, w, n_block, a, n, y, p->ldy);
        } else {
            panel_tile(decode, form, offset, units, block, 1, w, n_block, a, n, y, p->ldy);
        }
    }
}

#define PANEL(name, form, offset, units, block)                                                    \
    static void panel_##name(const struct product *p, int32_t panel)                               \
    {                                                                                              \
        panel_run(decode_##name, form, offset, units, block, p, panel);                            \
    }
PANEL(q4_0, FORM_PLAIN, 8.0f, 1, 16 * 18)
PANEL(q4_1, FORM_M, 0.0f, 1, 16 * 20)
PANEL(q5_0, FORM_PLAIN, 16.0f, 1, 16 * 22)
PANEL(q5_1, FORM_M, 0.0f, 1, 16 * 24)
PANEL(q8_0, FORM_PLAIN, 128.0f, 1, 16 * 34)
PANEL(iq4_nl, FORM_PLAIN, 128.0f, 1, 16 * 18)
PANEL(mxfp4, FORM_PLAIN, 12.0f, 1, 16 * 17)
PANEL(q2_k, FORM_SUB2_MIN, 0.0f, 8, 16 * 84)
PANEL(q3_k, FORM_SUB2, 4.0f, 8, 16 * 110)
PANEL(q4_k, FORM_SUB_MIN, 0.0f, 8, 16 * 144)
PANEL(q5_k, FORM_SUB_MIN, 0.0f, 8, 16 * 176)
PANEL(q6_k, FORM_SUB2, 32.0f, 8, 16 * 210)
PANEL(iq4_xs, FORM_SUB, 128.0f, 8, 16 * 136)

/* --- rows of the file: scalar decode, vector products ----------------------------------------- */

/* Unit i of 16 rows through the type's scalar decoder; codes get offset 128. */
static void decode_rows(const struct tensor *w, int32_t panel, int32_t i, struct unit *u)
{
    _Alignas(64) uint8_t code[8][64];
    _Alignas(64) float f[4][LANES];
    const quant_unit_fn unit = quant_get(w->type)->unit;
    for (int r = 0; r < LANES; r++) {
        struct quant_unit q = { 0 };
        const int32_t row = panel * LANES + r;
        if (row < w->n_row) {
            unit(w->data + (size_t)row * w->stride, (size_t)i, &q);
        }
        for (int h = 0; h < 2; h++) {
            f[h][r] = q.d[h];
            f[2 + h][r] = (float)q.sub[h];
        }
        for (int g = 0; g < 8; g++) {
            for (int t = 0; t < 4; t++) {
                code[g][4 * r + t] = (uint8_t)(q.q[4 * g + t] + 128);
            }
        }
    }
    for (int g = 0; g < 8; g++) {
        u->w[g] = _mm512_load_si512(code[g]);
    }
    for (int h = 0; h < 2; h++) {
        u->d[h] = _mm512_load_ps(f[h]);
        u->sub[h] = _mm512_load_ps(f[2 + h]);
    }
}

static void panel_rows(const struct product *p, int32_t panel)
{
    const int32_t tile = gemm_tile(p->a->n_tok);
    const size_t bytes = gemm_tile_bytes(KERN_ACT_I8, tile, p->a->n_col);
    const bool is_halved = quant_get(p->w->type)->is_halved;
    for (int32_t tok = p->tile0 * tile; tok < p->a->n_tok && tok < p->tile1 * tile; tok++) {
        _mm512_storeu_ps(p->y + (size_t)tok * p->ldy + (size_t)panel * LANES, _mm512_setzero_ps());
    }
    for (int32_t i = 0; i < p->w->n_col / UNIT; i++) {
        struct unit u;
        decode_rows(p->w, panel, i, &u);
        for (int32_t tok = p->tile0 * tile; tok < p->a->n_tok && tok < p->tile1 * tile; tok++) {
            const uint8_t *a =
                p->a->data + (size_t)(tok / tile) * bytes + (size_t)i * UNIT_BYTES(tile);
            float *y = p->y + (size_t)tok * p->ldy + (size_t)panel * LANES;
            const __m512 acc = _mm512_loadu_ps(y);
            const __m512 sum = is_halved
                                   ? token_step(&u, FORM_HALVED, 128.0f, a, tile, tok % tile, acc)
                                   : token_step(&u, FORM_SUB2, 128.0f, a, tile, tok % tile, acc);
            _mm512_storeu_ps(y, sum);
        }
    }
}

/* --- float weights ---------------------------------------------------------------------------- */

INLINE __m512 load_weight(enum quant_type type, const uint8_t *p)
{
    if (type == QUANT_F32) {
        return _mm512_loadu_ps(p);
    }
    const __m256i h = _mm256_loadu_si256((const void *)p);
    if (type == QUANT_F16) {
        return _mm512_cvtph_ps(h);
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE void float_tile(enum quant_type type, size_t each, int tile, const uint8_t *w, int32_t n_col,
                       const float *x, int n, float *y, size_t ldy)
{
    __m512 acc[8];
    UNROLL for (int t = 0; t < tile; t++)
    {
        acc[t] = _mm512_setzero_ps();
    }
    for (int32_t k = 0; k < n_col; k++, w += LANES * each, x += tile) {
        _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
        const __m512 v = load_weight(type, w);
        UNROLL for (int t = 0; t < tile; t++)
        {
            acc[t] = _mm512_fmadd_ps(v, _mm512_set1_ps(x[t]), acc[t]);
        }
    }
    store_tile(acc, tile, n, y, ldy);
}

INLINE void float_panel(enum quant_type type, size_t each, const struct product *p, int32_t panel)
{
    const int32_t tile = gemm_tile(p->a->n_tok);
    const uint8_t *w = p->w->data + (size_t)panel * p->w->stride;
    for (int32_t i = p->tile0; i < p->tile1; i++) {
        const float *x =
            (const float *)(const void *)(p->a->data + (size_t)i * gemm_tile_bytes(KERN_ACT_F32,
                                                                                   tile,
                                                                                   p->a->n_col));
        const int32_t left = p->a->n_tok - i * tile;
        const int n = left < tile ? left : tile;
        float *y = p->y + (size_t)(i * tile) * p->ldy + (size_t)panel * LANES;
        if (tile == 8) {
            float_tile(type, each, 8, w, p->w->n_col, x, n, y, p->ldy);
        } else if (tile == 4) {
            float_tile(type, each, 4, w, p->w->n_col, x, n, y, p->ldy);
        } else if (tile == 2) {
            float_tile(type, each, 2, w, p->w->n_col, x, n, y, p->ldy);
        } else {
            float_tile(type, each, 1, w, p->w->n_col, x, n, y, p->ldy);
        }
    }
}

static void panel_f32(const struct product *p, int32_t panel)
{
    float_panel(QUANT_F32, 4, p, panel);
}

static void panel_f16(const struct product *p, int32_t panel)
{
    float_panel(QUANT_F16, 2, p, panel);
}

static void panel_bf16(const struct product *p, int32_t panel)
{
    float_panel(QUANT_BF16, 2, p, panel);
}

/* --- the entry -------------------------------------------------------------------------------- */

typedef void (*panel_fn)(const struct product *p, int32_t panel);

static panel_fn panel_for(enum quant_type type)
{
    switch (type) {
    case QUANT_F32:
        return panel_f32;
    case QUANT_F16:
        return panel_f16;
    case QUANT_BF16:
        return panel_bf16;
    case QUANT_Q4_0:
        return panel_q4_0;
    case QUANT_Q4_1:
        return panel_q4_1;
    case QUANT_Q5_0:
        return panel_q5_0;
    case QUANT_Q5_1:
        return panel_q5_1;
    case QUANT_Q8_0:
        return panel_q8_0;
    case QUANT_IQ4_NL:
        return panel_iq4_nl;
    case QUANT_MXFP4:
        return panel_mxfp4;
    case QUANT_Q2_K:
        return panel_q2_k;
    case QUANT_Q3_K:
        return panel_q3_k;
    case QUANT_Q4_K:
        return panel_q4_k;
    case QUANT_Q5_K:
        return panel_q5_k;
    case QUANT_Q6_K:
        return panel_q6_k;
    case QUANT_IQ4_XS:
        return panel_iq4_xs;
    default:
        return panel_rows;
    }
}

/* Tokens in blocks whose activations stay in cache, panels inside, so that weights are read once a
 * block. */
static void gemm_avx512_matmul(const struct tensor *w, int32_t panel0, int32_t panel1,
                               const struct kern_act *a, float *y, size_t ldy)
{
    const panel_fn panel = panel_for(w->type);
    const int32_t tile = gemm_tile(a->n_tok);
    const int32_t n_tile = (a->n_tok + tile - 1) / tile;
    const int32_t at_once = TOKENS_AT_ONCE / tile;
    for (int32_t t = 0; t < n_tile; t += at_once) {
        const struct product p = { .w = w,
                                   .a = a,
                                   .y = y,
                                   .ldy = ldy,
                                   .tile0 = t,
                                   .tile1 = t + at_once < n_tile ? t + at_once : n_tile };
        for (int32_t i = panel0; i < panel1; i++) {
            panel(&p, i);
        }
    }
}

static uint64_t gemm_avx512_peak_int8(uint32_t n, uint32_t *sink)
{
    __m512i acc[16];
    const __m512i w = _mm512_set1_epi8(3);
    int32_t four = 0x01010101;
    UNROLL for (int i = 0; i < 16; i++)
    {
        acc[i] = _mm512_setzero_si512();
    }
    const __m512i a = _mm512_set1_epi32(four);
    for (uint32_t k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < 16; i++)
        {
            __asm__("vpdpbusd %2, %1, %0" : "+v"(acc[i]) : "v"(w), "v"(a));
        }
    }
    UNROLL for (int i = 1; i < 16; i++)
    {
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    }
    *sink += (uint32_t)_mm512_reduce_add_epi32(acc[0]);
    return (uint64_t)n * 16 * 64 * 2;
}

void gemm_avx512_fill(struct kern_table *t)
{
    peak_fill(t);
    t->peak_int8 = gemm_avx512_peak_int8;
    t->act_prepare = gemm_act_prepare;
    t->matmul = gemm_avx512_matmul;
}
