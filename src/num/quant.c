/* quant - the element types of weight files and what their bytes mean
 *
 * Each quantized type is defined here (or, for the codebook types, in quant_iq.c) by one function:
 * the integer form of 32 weights, `struct quant_unit`. Decoding to floats is derived from it, in
 * the order of roundings that the reference decoder has: (d * sub) * q, then minus (dmin * min) or
 * plus m. So the products that kernels compute from integers and the floats that a person would
 * look at cannot disagree. The scalar kernel multiplies units; every other kernel must equal it bit
 * for bit.
 *
 * Rejected: a decoder and a unit function per type, written twice. The decoder was faster, but
 * decoding whole rows is needed for embedding look-ups only, and two truths drift apart.
 *
 * Largest |sum over 32 of sub * q * a| for |a| <= 127; below 2^24 = 16777216 it is exact in
 * float32:
 *
 *   type            q            sub         sum           type          q          sub       sum
 *   Q4_0         -8..7             1        32512          IQ1_S        -9..9       1         36576
 *   Q4_1          0..15            1        60960          IQ1_M        -9..9       1..15    548640
 *   Q5_0        -16..15            1        65024          IQ2_XXS      -43..43     1        174752
 *   Q5_1          0..31            1       125984          IQ2_XS IQ2_S -43..43     1..31   5417312
 *   Q8_0       -128..127           1       520192          IQ3_XXS      -62..62     1        251968
 *   Q2_K          0..3         0..15       182880          IQ3_S        -15..15     1         60960
 *   Q3_K         -4..3       -32..31       520192          IQ4_NL IQ4_XS -127..113  1        516128
 *   Q4_K          0..15            1        60960          TQ1_0        -1..1       1          4064
 *   Q5_K          0..31            1       125984          TQ2_0        -1..2       1          8128
 *   Q6_K        -32..31     -128..127    16646144          MXFP4        -12..12     1         48768
 *                                                          NVFP4 (half) -12..12     1         24384
 *                                                          Q1_0         -1..1       1          4064
 *   Minima: Q2_K 0..15, sum 60960.
 *
 * Types with one sub-scale a unit have it in d, and a minimum in m: d and dmin are half precision,
 * sub-scales and minima have 6 bits, so both products are exact, and a kernel multiplies less.
 *
 * Block layouts are GGUF's (ggml's block structures); tests/test_quant.c restates them as structs.
 *
 * Next: num/quant_iq.c, num/pack.c. */
#include "num/quant.h"

#include "base/mem.h"

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
    if (a < 0x38800000) {
        /* subnormal or zero: add 0.5, whose last place is 2^-24, so that the sum rounds to even */
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

/* --- blocks of 32 ----------------------------------------------------------------------------- */

/* Layouts are written as structs without padding. Q4_0: f16 d; u8 q[16]. Byte k holds weight k in
 * its low half and weight k + 16 in its high one. */
static void unit_q4_0(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 18;
    set_scale(u, f16(b));
    for (int k = 0; k < 16; k++) {
        u->q[k] = (int8_t)((b[2 + k] & 15) - 8);
        u->q[k + 16] = (int8_t)((b[2 + k] >> 4) - 8);
    }
}

/* Q4_1: f16 d, m; u8 q[16]. */
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

/* Low four bits as in Q4_0, and a word whose bit k is the fifth bit of weight k. */
static void fives(const uint8_t *high, const uint8_t *low, int offset, int8_t *q)
{
    const uint32_t h = (uint32_t)u16(high) | (uint32_t)u16(high + 2) << 16;
    for (int k = 0; k < 16; k++) {
        q[k] = (int8_t)((int)((low[k] & 15) | (h >> k & 1) << 4) - offset);
        q[k + 16] = (int8_t)((int)((low[k] >> 4) | (h >> (k + 16) & 1) << 4) - offset);
    }
}

/* Q5_0: f16 d; u32 high; u8 q[16]. */
static void unit_q5_0(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 22;
    set_scale(u, f16(b));
    fives(b + 2, b + 6, 16, u->q);
}

/* Q5_1: f16 d, m; u32 high; u8 q[16]. */
static void unit_q5_1(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 24;
    set_scale(u, f16(b));
    u->m = f16(b + 2);
    fives(b + 4, b + 8, 0, u->q);
}

/* Q8_0: f16 d; i8 q[32]. */
static void unit_q8_0(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 34;
    set_scale(u, f16(b));
    memcpy(u->q, b + 2, 32);
}

/* --- K types: 256 weights, one or two f16 scales, integer sub-scales -------------------------- */

/* Units are j = 0..7. Codes lie across: Q2_K's byte k of 32 holds weight k of four units, two bits
 * each, so that one load and four shifts give four units.
 * Q2_K: u8 scales[16]; u8 q[64]; f16 d, dmin. A scale byte: sub-scale low, minimum high. */
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

/* Q3_K: u8 high[32]; u8 q[64]; u8 scales[12]; f16 d. Bit j of high[k] is the third bit of weight k
 * of unit j; the value is the code less 4. Sub-scale s: a nibble of byte s % 8, and two bits of
 * byte 8 + s % 4. */
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

/* Sub-scale and minimum j of Q4_K and Q5_K, 6 bits each in 12 bytes behind f16 d, dmin:
 *   bytes 0..3    bits 0..5 sub-scale j         bits 6, 7 high bits of sub-scale j + 4
 *   bytes 4..7    bits 0..5 minimum j           bits 6, 7 high bits of minimum j + 4
 *   bytes 8..11   low half: sub-scale j + 4     high half: minimum j + 4  */
/* A unit has one of each, so they go into its scale and its constant, which is exact. */
static void sixes(const uint8_t *s, size_t j, struct quant_unit *u)
{
    int sub = s[j % 4] & 63;
    int min = s[4 + j % 4] & 63;
    if (j >= 4) {
        sub = (s[8 + j % 4] & 15) | s[j % 4] >> 6 << 4;
        min = s[8 + j % 4] >> 4 | s[4 + j % 4] >> 6 << 4;
    }
    set_scale(u, f16(s - 4) * (float)sub);
    u->m = -(f16(s - 2) * (float)min);
}

/* Q4_K: f16 d, dmin; u8 scales[12]; u8 q[128]. 32 bytes hold two units, in low and high halves. */
static void unit_q4_k(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 144;
    const size_t j = i % 8;
    sixes(b + 4, j, u);
    const uint8_t *q = b + 16 + j / 2 * 32;
    for (int k = 0; k < 32; k++) {
        u->q[k] = (int8_t)(q[k] >> 4 * (j % 2) & 15);
    }
}

/* Q5_K: f16 d, dmin; u8 scales[12]; u8 high[32]; u8 q[128]. Bit j of high[k]: fifth bit, unit j. */
static void unit_q5_k(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 176;
    const size_t j = i % 8;
    sixes(b + 4, j, u);
    const uint8_t *high = b + 16;
    const uint8_t *q = b + 48 + j / 2 * 32;
    for (int k = 0; k < 32; k++) {
        u->q[k] = (int8_t)((q[k] >> 4 * (j % 2) & 15) | (high[k] >> j & 1) << 4);
    }
}

/* Q6_K: u8 low[128]; u8 high[64]; i8 scales[16]; f16 d. Four units share 64 bytes of low halves and
 * 32 bytes of two high bits each. */
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

/* --- from units to floats --------------------------------------------------------------------- */

/* What a value has besides its scale: nothing, an integer minimum, a float constant, or a scale for
 * each half of the unit. A type without offset must not add zero: -0 would become +0. */
enum form { FORM_PLAIN, FORM_MIN, FORM_M, FORM_HALVES };

/* The products are float32 and each rounds, in the reference decoder's order. */
static void decode_units(quant_unit_fn unit, enum form form, const void *row, float *out, size_t n)
{
    for (size_t i = 0; i < n / 32; i++) {
        struct quant_unit u;
        unit(row, i, &u);
        for (int k = 0; k < 32; k++) {
            const int h = k / 16;
            const float x = u.d[h] * (float)u.sub[h] * (float)u.q[k];
            float *to = &out[32 * i + (size_t)k];
            if (form == FORM_MIN) {
                *to = x - u.dmin * (float)u.min[h];
            } else if (form == FORM_M) {
                *to = x + u.m;
            } else {
                *to = x;
            }
        }
    }
}

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

/* --- the table -------------------------------------------------------------------------------- */

/* X(name, elements per block, bytes per block, form, unit) */
#define QUANTIZED(X)                                                                               \
    X(Q4_0, 32, 18, FORM_PLAIN, unit_q4_0)                                                         \
    X(Q4_1, 32, 20, FORM_M, unit_q4_1)                                                             \
    X(Q5_0, 32, 22, FORM_PLAIN, unit_q5_0)                                                         \
    X(Q5_1, 32, 24, FORM_M, unit_q5_1)                                                             \
    X(Q8_0, 32, 34, FORM_PLAIN, unit_q8_0)                                                         \
    X(Q2_K, 256, 84, FORM_MIN, unit_q2_k)                                                          \
    X(Q3_K, 256, 110, FORM_PLAIN, unit_q3_k)                                                       \
    X(Q4_K, 256, 144, FORM_M, unit_q4_k)                                                           \
    X(Q5_K, 256, 176, FORM_M, unit_q5_k)                                                           \
    X(Q6_K, 256, 210, FORM_PLAIN, unit_q6_k)                                                       \
    X(IQ2_XXS, 256, 66, FORM_PLAIN, quant_iq_iq2_xxs)                                              \
    X(IQ2_XS, 256, 74, FORM_PLAIN, quant_iq_iq2_xs)                                                \
    X(IQ2_S, 256, 82, FORM_PLAIN, quant_iq_iq2_s)                                                  \
    X(IQ3_XXS, 256, 98, FORM_PLAIN, quant_iq_iq3_xxs)                                              \
    X(IQ3_S, 256, 110, FORM_PLAIN, quant_iq_iq3_s)                                                 \
    X(IQ1_S, 256, 50, FORM_PLAIN, quant_iq_iq1_s)                                                  \
    X(IQ1_M, 256, 56, FORM_PLAIN, quant_iq_iq1_m)                                                  \
    X(IQ4_NL, 32, 18, FORM_PLAIN, quant_iq_iq4_nl)                                                 \
    X(IQ4_XS, 256, 136, FORM_PLAIN, quant_iq_iq4_xs)                                               \
    X(TQ1_0, 256, 54, FORM_PLAIN, quant_iq_tq1_0)                                                  \
    X(TQ2_0, 256, 66, FORM_PLAIN, quant_iq_tq2_0)                                                  \
    X(MXFP4, 32, 17, FORM_PLAIN, quant_iq_mxfp4)                                                   \
    X(NVFP4, 64, 36, FORM_HALVES, quant_iq_nvfp4)                                                  \
    X(Q1_0, 128, 18, FORM_PLAIN, quant_iq_q1_0)

#define DECODER(name, block, bytes, form, unit)                                                    \
    static void decode_##name(const void *blocks, float *out, size_t n)                            \
    {                                                                                              \
        decode_units(unit, form, blocks, out, n);                                                  \
    }
QUANTIZED(DECODER)

#define ENTRY(name, block, bytes, form, unit)                                                      \
    [QUANT_##name] = { #name,                                                                      \
                       block,                                                                      \
                       bytes,                                                                      \
                       decode_##name,                                                              \
                       unit,                                                                       \
                       form == FORM_M,                                                             \
                       form == FORM_MIN,                                                           \
                       form == FORM_HALVES },

static const struct quant_info table[QUANT_TYPE_COUNT] = {
    [QUANT_F32] = { "F32", 1, 4, decode_f32, NULL },
    [QUANT_F16] = { "F16", 1, 2, decode_f16, NULL },
    [QUANT_BF16] = { "BF16", 1, 2, decode_bf16, NULL },
    /* stored in files, but no weights */
    [QUANT_Q8_1] = { "Q8_1", 32, 36, NULL, NULL },
    [QUANT_Q8_K] = { "Q8_K", 256, 292, NULL, NULL },
    [QUANT_I8] = { "I8", 1, 1, NULL, NULL },
    [QUANT_I16] = { "I16", 1, 2, NULL, NULL },
    [QUANT_I32] = { "I32", 1, 4, NULL, NULL },
    [QUANT_I64] = { "I64", 1, 8, NULL, NULL },
    [QUANT_F64] = { "F64", 1, 8, NULL, NULL },
    QUANTIZED(ENTRY)
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
