/* quant - the element types of weight files and what their bytes mean
 *
 * Each quantized type is defined here (or, for the codebook types, in quant_iq.c) by one function:
 * the integer form of 32 weights, `struct quant_unit`. Decoding to floats is derived from it, in
 * the order of roundings that the reference decoder has: (d * sub) * q, then minus (dmin * min) or
 * plus m. So the products that kernels compute from integers and the floats that a person would
 * look at cannot disagree. The scalar kernel multiplies units; every other kernel must equal it bit
 * for bit.
 *
 * Bounds of |sum over 32 of sub * q * a|, |a| <= 127 (must stay below 2^24 to be exact in float32):
 *   Q4_0 8*127*32 = 2^15.0    Q5_x 31*127*32    Q8_0 128*127*32 = 2^19     IQ4_NL 127*127*32
 *   Q2_K 15*3*127*32          Q3_K 32*4*127*32  Q4_K 63*15*127*32 = 2^21.9 Q5_K 63*31*127*32 =
 * 2^22.9 Q6_K 128*32*127*32 = 2^23.99                IQ4_XS 32*127*127*32 = 2^23.98 IQ2
 * 31*43*127*32 = 2^22.4                  IQ3 31*62*127*32 = 2^22.9  IQ1 15*9*127*32
 *
 * Block layouts are GGUF's (ggml's block structures); sizes are checked below.
 *
 * Next: num/quant_iq.c, num/pack.c. */
#include "num/quant.h"

#include "base/mem.h"
#include "num/quant_iq.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

float quant_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    const uint32_t exp = h >> 10 & 0x1F;
    const uint32_t man = h & 0x3FF;
    union {
        uint32_t u;
        float f;
    } x;
    if (exp == 0) { /* subnormal: man * 2^-24, exact */
        x.f = (float)man * 0x1p-24f;
        x.u |= sign;
    } else if (exp == 31) {
        x.u = sign | 0x7F800000u | man << 13 | (man != 0 ? 0x400000u : 0); /* NaNs come out quiet */
    } else {
        x.u = sign | (exp + 112) << 23 | man << 13;
    }
    return x.f;
}

uint16_t quant_f32_to_f16(float f)
{
    union {
        float f;
        uint32_t u;
    } x = { .f = f };
    const uint16_t sign = (uint16_t)(x.u >> 16 & 0x8000);
    const uint32_t a = x.u & 0x7FFFFFFF;
    if (a > 0x7F800000) {
        return (uint16_t)(sign | 0x7E00 | (a >> 13 & 0x1FF));
    }
    if (a >= 0x477FF000) { /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7C00);
    }
    if (a < 0x38800000) { /* subnormal or zero: add 0.5, whose last place is 2^-24; the sum rounds
                             to even */
        x.u = a;
        x.f += 0.5f;
        return (uint16_t)(sign | (x.u - 0x3F000000u));
    }
    const uint32_t odd = a >> 13 & 1;
    return (uint16_t)(sign | (a - 0x38000000 + 0xFFF + odd) >> 13);
}

static uint16_t u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static float f16(const uint8_t *p)
{
    return quant_f16_to_f32(u16(p));
}

static void set_scale(struct quant_unit *u, float d)
{
    u->d[0] = u->d[1] = d;
    u->sub[0] = u->sub[1] = 1;
    u->min[0] = u->min[1] = 0;
    u->dmin = 0.0f;
    u->m = 0.0f;
}

/* --- blocks of 32
 * --------------------------------------------------------------------------------------------- */

static void unit_q4_0(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 18;
    set_scale(u, f16(b));
    for (int k = 0; k < 16; k++) {
        u->q[k] = (int8_t)((b[2 + k] & 15) - 8);
        u->q[k + 16] = (int8_t)((b[2 + k] >> 4) - 8);
    }
}

static void unit_q4_1(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 20;
    set_scale(u, f16(b));
    u->m = f16(b + 2);
    for (int k = 0; k < 16; k++) {
        u->q[k] = (int8_t)(b[4 + k] & 15);
        u->q[k + 16] = (int8_t)(b[4 + k] >> 4);
    }
}

/* Low four bits and a word of fifth bits. */
static void fives(const uint8_t *high, const uint8_t *low, int offset, int8_t *q)
{
    const uint32_t h = (uint32_t)u16(high) | (uint32_t)u16(high + 2) << 16;
    for (int k = 0; k < 16; k++) {
        q[k] = (int8_t)((int)((low[k] & 15) | (h >> k & 1) << 4) - offset);
        q[k + 16] = (int8_t)((int)((low[k] >> 4) | (h >> (k + 16) & 1) << 4) - offset);
    }
}

static void unit_q5_0(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 22;
    set_scale(u, f16(b));
    fives(b + 2, b + 6, 16, u->q);
}

static void unit_q5_1(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 24;
    set_scale(u, f16(b));
    u->m = f16(b + 2);
    fives(b + 4, b + 8, 0, u->q);
}

static void unit_q8_0(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 34;
    set_scale(u, f16(b));
    memcpy(u->q, b + 2, 32);
}

/* --- K types: 256 weights, two f16 scales, integer sub-scales
 * ---------------------------------------------------- */

static void unit_q2_k(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 84;
    const size_t j = i % 8;
    set_scale(u, f16(b + 80));
    u->dmin = f16(b + 82);
    for (size_t h = 0; h < 2; h++) {
        u->sub[h] = b[2 * j + h] & 15;
        u->min[h] = b[2 * j + h] >> 4;
    }
    const uint8_t *q = b + 16 + j / 4 * 32;
    for (int k = 0; k < 32; k++) {
        u->q[k] = (int8_t)(q[k] >> 2 * (j % 4) & 3);
    }
}

static void unit_q3_k(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 110;
    const size_t j = i % 8;
    const uint8_t *scales = b + 96;
    set_scale(u, f16(b + 108));
    for (size_t h = 0; h < 2; h++) {
        const size_t s = 2 * j + h;
        const int low = scales[s % 8] >> (s / 8 * 4) & 15;
        const int high = scales[8 + s % 4] >> (s / 4 * 2) & 3;
        u->sub[h] = (int16_t)((low | high << 4) - 32);
    }
    const uint8_t *q = b + 32 + j / 4 * 32;
    for (int k = 0; k < 32; k++) {
        u->q[k] = (int8_t)((q[k] >> 2 * (j % 4) & 3) - (b[k] >> j & 1 ? 0 : 4));
    }
}

/* Sub-scale and minimum j of Q4_K and Q5_K: 6 bits each in 12 bytes. */
static void sixes(const uint8_t *s, size_t j, struct quant_unit *u)
{
    int sub = s[j % 4] & 63;
    int min = s[4 + j % 4] & 63;
    if (j >= 4) {
        sub = (s[8 + j % 4] & 15) | s[j % 4] >> 6 << 4;
        min = s[8 + j % 4] >> 4 | s[4 + j % 4] >> 6 << 4;
    }
    u->sub[0] = u->sub[1] = (int16_t)sub;
    u->min[0] = u->min[1] = (int16_t)min;
}

static void unit_q4_k(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 144;
    const size_t j = i % 8;
    set_scale(u, f16(b));
    u->dmin = f16(b + 2);
    sixes(b + 4, j, u);
    const uint8_t *q = b + 16 + j / 2 * 32;
    for (int k = 0; k < 32; k++) {
        u->q[k] = (int8_t)(q[k] >> 4 * (j % 2) & 15);
    }
}

static void unit_q5_k(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 176;
    const size_t j = i % 8;
    set_scale(u, f16(b));
    u->dmin = f16(b + 2);
    sixes(b + 4, j, u);
    const uint8_t *high = b + 16;
    const uint8_t *q = b + 48 + j / 2 * 32;
    for (int k = 0; k < 32; k++) {
        u->q[k] = (int8_t)((q[k] >> 4 * (j % 2) & 15) | (high[k] >> j & 1) << 4);
    }
}

static void unit_q6_k(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 210;
    const size_t j = i % 8;
    set_scale(u, f16(b + 208));
    u->sub[0] = (int8_t)b[192 + 2 * j];
    u->sub[1] = (int8_t)b[193 + 2 * j];
    const uint8_t *low = b + j / 4 * 64 + j % 2 * 32;
    const uint8_t *high = b + 128 + j / 4 * 32;
    for (int k = 0; k < 32; k++) {
        const int l = low[k] >> (j % 4 / 2 * 4) & 15;
        const int h = high[k] >> 2 * (j % 4) & 3;
        u->q[k] = (int8_t)((l | h << 4) - 32);
    }
}

/* --- from units to floats
 * ------------------------------------------------------------------------------------------ */

static void decode_unit(const struct quant_unit *u, float *out)
{
    for (int h = 0; h < 2; h++) {
        const float scale = u->d[h] * (float)u->sub[h];
        const float offset = u->dmin * (float)u->min[h];
        for (int k = 16 * h; k < 16 * h + 16; k++) {
            out[k] = scale * (float)u->q[k] - offset + u->m;
        }
    }
}

static void decode_units(quant_unit_fn unit, const void *blocks, float *out, size_t n)
{
    struct quant_unit u;
    for (size_t i = 0; i < n / 32; i++) {
        unit(blocks, i, &u);
        decode_unit(&u, out + 32 * i);
    }
}

#define DECODE(name)                                                                               \
    static void decode_##name(const void *blocks, float *out, size_t n)                            \
    {                                                                                              \
        decode_units(unit_##name, blocks, out, n);                                                 \
    }
#define DECODE_IQ(name)                                                                            \
    static void decode_##name(const void *blocks, float *out, size_t n)                            \
    {                                                                                              \
        decode_units(quant_iq_##name, blocks, out, n);                                             \
    }
DECODE(q4_0)
DECODE(q4_1)
DECODE(q5_0)
DECODE(q5_1)
DECODE(q8_0)
DECODE(q2_k)
DECODE(q3_k)
DECODE(q4_k)
DECODE(q5_k)
DECODE(q6_k)
DECODE_IQ(iq2_xxs)
DECODE_IQ(iq2_xs)
DECODE_IQ(iq2_s)
DECODE_IQ(iq3_xxs)
DECODE_IQ(iq3_s)
DECODE_IQ(iq1_s)
DECODE_IQ(iq1_m)
DECODE_IQ(iq4_nl)
DECODE_IQ(iq4_xs)
DECODE_IQ(tq1_0)
DECODE_IQ(tq2_0)
DECODE_IQ(mxfp4)
DECODE_IQ(nvfp4)
DECODE_IQ(q1_0)

static void decode_f32(const void *blocks, float *out, size_t n)
{
    memcpy(out, blocks, n * sizeof out[0]);
}

static void decode_f16(const void *blocks, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = f16((const uint8_t *)blocks + 2 * i);
    }
}

static void decode_bf16(const void *blocks, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = quant_bf16_to_f32(u16((const uint8_t *)blocks + 2 * i));
    }
}

/* --- the table
 * ---------------------------------------------------------------------------------------------------------
 */

static const struct quant_info table[QUANT_TYPE_COUNT] = {
    [QUANT_F32] = { "F32", 1, 4, decode_f32, NULL },
    [QUANT_F16] = { "F16", 1, 2, decode_f16, NULL },
    [QUANT_BF16] = { "BF16", 1, 2, decode_bf16, NULL },
    [QUANT_Q4_0] = { "Q4_0", 32, 18, decode_q4_0, unit_q4_0 },
    [QUANT_Q4_1] = { "Q4_1", 32, 20, decode_q4_1, unit_q4_1 },
    [QUANT_Q5_0] = { "Q5_0", 32, 22, decode_q5_0, unit_q5_0 },
    [QUANT_Q5_1] = { "Q5_1", 32, 24, decode_q5_1, unit_q5_1 },
    [QUANT_Q8_0] = { "Q8_0", 32, 34, decode_q8_0, unit_q8_0 },
    [QUANT_Q2_K] = { "Q2_K", 256, 84, decode_q2_k, unit_q2_k },
    [QUANT_Q3_K] = { "Q3_K", 256, 110, decode_q3_k, unit_q3_k },
    [QUANT_Q4_K] = { "Q4_K", 256, 144, decode_q4_k, unit_q4_k },
    [QUANT_Q5_K] = { "Q5_K", 256, 176, decode_q5_k, unit_q5_k },
    [QUANT_Q6_K] = { "Q6_K", 256, 210, decode_q6_k, unit_q6_k },
    [QUANT_IQ2_XXS] = { "IQ2_XXS", 256, 66, decode_iq2_xxs, quant_iq_iq2_xxs },
    [QUANT_IQ2_XS] = { "IQ2_XS", 256, 74, decode_iq2_xs, quant_iq_iq2_xs },
    [QUANT_IQ2_S] = { "IQ2_S", 256, 82, decode_iq2_s, quant_iq_iq2_s },
    [QUANT_IQ3_XXS] = { "IQ3_XXS", 256, 98, decode_iq3_xxs, quant_iq_iq3_xxs },
    [QUANT_IQ3_S] = { "IQ3_S", 256, 110, decode_iq3_s, quant_iq_iq3_s },
    [QUANT_IQ1_S] = { "IQ1_S", 256, 50, decode_iq1_s, quant_iq_iq1_s },
    [QUANT_IQ1_M] = { "IQ1_M", 256, 56, decode_iq1_m, quant_iq_iq1_m },
    [QUANT_IQ4_NL] = { "IQ4_NL", 32, 18, decode_iq4_nl, quant_iq_iq4_nl },
    [QUANT_IQ4_XS] = { "IQ4_XS", 256, 136, decode_iq4_xs, quant_iq_iq4_xs },
    [QUANT_TQ1_0] = { "TQ1_0", 256, 54, decode_tq1_0, quant_iq_tq1_0 },
    [QUANT_TQ2_0] = { "TQ2_0", 256, 66, decode_tq2_0, quant_iq_tq2_0 },
    [QUANT_MXFP4] = { "MXFP4", 32, 17, decode_mxfp4, quant_iq_mxfp4 },
    [QUANT_NVFP4] = { "NVFP4", 64, 36, decode_nvfp4, quant_iq_nvfp4 },
    [QUANT_Q1_0] = { "Q1_0", 128, 18, decode_q1_0, quant_iq_q1_0 },
    /* stored in files, but no weights */
    [QUANT_Q8_1] = { "Q8_1", 32, 36, NULL, NULL },
    [QUANT_Q8_K] = { "Q8_K", 256, 292, NULL, NULL },
    [QUANT_I8] = { "I8", 1, 1, NULL, NULL },
    [QUANT_I16] = { "I16", 1, 2, NULL, NULL },
    [QUANT_I32] = { "I32", 1, 4, NULL, NULL },
    [QUANT_I64] = { "I64", 1, 8, NULL, NULL },
    [QUANT_F64] = { "F64", 1, 8, NULL, NULL },
};

const struct quant_info *quant_get(uint32_t type)
{
    static const struct quant_info unknown;
    return type < QUANT_TYPE_COUNT ? &table[type] : &unknown;
}

bool quant_parse(const char *name, enum quant_type *out)
{
    for (int i = 0; i < QUANT_TYPE_COUNT; i++) {
        if (table[i].name != NULL && strcasecmp(name, table[i].name) == 0) {
            *out = (enum quant_type)i;
            return true;
        }
    }
    return false;
}

bool quant_bytes(uint32_t type, uint64_t n, size_t *out)
{
    const struct quant_info *q = quant_get(type);
    if (q->block == 0 || n % q->block != 0 || n / q->block > SIZE_MAX) {
        return false;
    }
    return mem_mul((size_t)(n / q->block), q->bytes, out);
}
