/* quant_iq - units of the codebook, ternary and 4-bit float types
 *
 * The IQ types store groups of weights as indices into codebooks (quant_grid.c), with signs aside
 * and a small integer scale per 16 or 32 weights. All their fractions are powers of two, so that an
 * integer form exists for each: IQ2's scale d * (0.5 + s) / 4 is (d / 8) * (2 s + 1), IQ1's weight
 * (g +- 1/8) is (8 g +- 1) / 8. The ternary types pack five weights into a byte in base 3 (TQ1_0)
 * or four in base 4 (TQ2_0). MXFP4 and NVFP4 are 4-bit floats (E2M1, doubled to integers) under
 * power-of-two or E4M3 scales; NVFP4's two scales per unit are why struct quant_unit has two.
 *
 * Signs of IQ2_XXS, IQ2_XS and IQ3_XXS take seven bits; the eighth makes their number even.
 *
 * Sources: the reference decoder in the PyPI package gguf (quants.py); OCP Microscaling Formats 1.0
 * (2023) for E2M1 and E8M0. Next: num/pack.c. */
#include "num/quant.h"

#include "num/quant_grid.h"

#include <string.h>

static uint32_t u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const uint8_t *p)
{
    return u16(p) | u16(p + 2) << 16;
}

static float f16(const uint8_t *p)
{
    return quant_f16_to_f32((uint16_t)u16(p));
}

static void set_scale(struct quant_unit *u, float d, int sub0, int sub1)
{
    *u = (struct quant_unit){ .sub = { (int16_t)sub0, (int16_t)sub1 }, .d = { d, d } };
}

static const int8_t levels2[4] = { 8, 25, 43, 0 };
static const int8_t levels3[8] = { 4, 12, 20, 28, 36, 44, 52, 62 };

/* Seven sign bits and the eighth that makes their number even. */
static uint32_t signs7(uint32_t s)
{
    return s | (uint32_t)(__builtin_popcount(s) & 1) << 7;
}

/* A group of 8 weights of IQ2: 2 bits a code. */
static void group2(int8_t *q, uint16_t codes, uint32_t signs)
{
    for (int k = 0; k < 8; k++) {
        const int v = levels2[codes >> 2 * k & 3];
        q[k] = (int8_t)(signs >> k & 1 ? -v : v);
    }
}

/* A group of 4 weights of IQ3: 3 bits a code. */
static void group3(int8_t *q, uint16_t codes, const int8_t *levels, uint32_t signs)
{
    for (int k = 0; k < 4; k++) {
        const int v = levels[codes >> 3 * k & 7];
        q[k] = (int8_t)(signs >> k & 1 ? -v : v);
    }
}

/* f16 d; 8 units of { u8 index[4]; u32 aux }: four times 7 sign bits, 4 bits of scale on top. */
void quant_iq_iq2_xxs(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 66;
    const uint8_t *q = b + 2 + i % 8 * 8;
    const uint32_t aux = u32(q + 4);
    const int sub = (int)(2 * (aux >> 28) + 1);
    set_scale(u, f16(b) * 0.125f * (float)sub, 1, 1);
    for (int g = 0; g < 4; g++) {
        group2(u->q + 8 * g, quant_grid_iq2xxs[q[g]], signs7(aux >> 7 * g & 127));
    }
}

/* f16 d; u16 q[32]; u8 scales[8]. q: 9 bits of index, 7 sign bits. Scales: 4 bits per 16
 * weights. */
void quant_iq_iq2_xs(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 74;
    const uint8_t *q = b + 2 + i % 8 * 8;
    const int s = b[66 + i % 8];
    set_scale(u, f16(b) * 0.125f, 2 * (s & 15) + 1, 2 * (s >> 4) + 1);
    for (int g = 0; g < 4; g++) {
        const uint32_t code = u16(q + 2 * g);
        group2(u->q + 8 * g, quant_grid_iq2xs[code & 511], signs7(code >> 9));
    }
}

/* f16 d; u8 index[32]; u8 signs[32]; u8 high[8]; u8 scales[8]. Indices of 10 bits, all signs. */
void quant_iq_iq2_s(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 82;
    const size_t j = i % 8;
    const int s = b[74 + j];
    set_scale(u, f16(b) * 0.125f, 2 * (s & 15) + 1, 2 * (s >> 4) + 1);
    for (size_t g = 0; g < 4; g++) {
        const uint32_t index = b[2 + 4 * j + g] | (uint32_t)(b[66 + j] >> 2 * g & 3) << 8;
        group2(u->q + 8 * g, quant_grid_iq2s[index], b[34 + 4 * j + g]);
    }
}

/* f16 d; u8 index[64]; u32 aux[8], as IQ2_XXS has them; a set of 7 signs serves two groups. */
void quant_iq_iq3_xxs(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 98;
    const size_t j = i % 8;
    const uint32_t aux = u32(b + 66 + 4 * j);
    const int sub = (int)(2 * (aux >> 28) + 1);
    set_scale(u, f16(b) * 0.25f * (float)sub, 1, 1);
    for (size_t g = 0; g < 8; g++) {
        const uint32_t signs = signs7(aux >> 7 * (g / 2) & 127) >> 4 * (g % 2);
        group3(u->q + 4 * g, quant_grid_iq3xxs[b[2 + 8 * j + g]], levels3, signs);
    }
}

/* f16 d; u8 index[64]; u8 high[8]; u8 signs[32]; u8 scales[4]. Indices of 9 bits. */
void quant_iq_iq3_s(const void *row, size_t i, struct quant_unit *u)
{
    static const int8_t levels[8] = { 1, 3, 5, 7, 9, 11, 13, 15 };
    const uint8_t *b = (const uint8_t *)row + i / 8 * 110;
    const size_t j = i % 8;
    const int s = 2 * (b[106 + j / 2] >> 4 * (j % 2) & 15) + 1;
    set_scale(u, f16(b) * (float)s, 1, 1);
    for (size_t g = 0; g < 8; g++) {
        const uint32_t index = b[2 + 8 * j + g] | (uint32_t)(b[66 + j] >> g & 1) << 8;
        group3(u->q + 4 * g, quant_grid_iq3s[index], levels,
               (uint32_t)b[74 + 4 * j + g / 2] >> 4 * (g % 2));
    }
}

/* 8 g + delta for 8 codes of 2 bits, g = code - 1. */
static void group1(int8_t *q, uint16_t codes, int delta)
{
    for (int k = 0; k < 8; k++) {
        q[k] = (int8_t)(8 * ((codes >> 2 * k & 3) - 1) + delta);
    }
}

/* f16 d; u8 index[32]; u16 h[8]: four times 3 high bits of an index, 3 bits of scale, delta's
 * sign. */
void quant_iq_iq1_s(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 50;
    const size_t j = i % 8;
    const uint32_t h = u16(b + 34 + 2 * j);
    const int sub = (int)(2 * (h >> 12 & 7) + 1);
    set_scale(u, f16(b) * 0.125f * (float)sub, 1, 1);
    for (size_t g = 0; g < 4; g++) {
        const uint32_t index = b[2 + 4 * j + g] | (h >> 3 * g & 7) << 8;
        group1(u->q + 8 * g, quant_grid_iq1s[index], h & 0x8000 ? -1 : 1);
    }
}

/* u8 index[32]; u8 high[16]; u16 scales[4]. A half of `high`: 3 bits of index, the sign of delta.
 * The four top halves of `scales` are the f16 d, the other 12 bits four scales of 3 bits. */
void quant_iq_iq1_m(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 56;
    const size_t j = i % 8;
    const uint8_t *s = b + 48;
    const uint32_t d =
        u16(s) >> 12 | (u16(s + 2) >> 12) << 4 | (u16(s + 4) >> 12) << 8 | (u16(s + 6) >> 12) << 12;
    const uint32_t subs = u16(s + j / 2 * 2) >> 6 * (j % 2);
    set_scale(u, quant_f16_to_f32((uint16_t)d) * 0.125f, (int)(2 * (subs & 7) + 1),
              (int)(2 * (subs >> 3 & 7) + 1));
    for (size_t g = 0; g < 4; g++) {
        const uint32_t h = (uint32_t)b[32 + 2 * j + g / 2] >> 4 * (g % 2);
        group1(u->q + 8 * g, quant_grid_iq1s[b[4 * j + g] | (h & 7) << 8], h & 8 ? -1 : 1);
    }
}

/* 16 bytes: weight k in the low half, k + 16 in the high one. */
static void fours(int8_t *q, const uint8_t *p, const int8_t *levels)
{
    for (int k = 0; k < 16; k++) {
        q[k] = levels[p[k] & 15];
        q[k + 16] = levels[p[k] >> 4];
    }
}

/* f16 d; u8 q[16]. */
void quant_iq_iq4_nl(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 18;
    set_scale(u, f16(b), 1, 1);
    fours(u->q, b + 2, quant_levels_iq4);
}

/* f16 d; u16 high; u8 low[4]; u8 q[128]. Scale j: a half of low[j / 2], two bits of `high`. */
void quant_iq_iq4_xs(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 136;
    const size_t j = i % 8;
    const int low = b[4 + j / 2] >> 4 * (j % 2) & 15;
    const int high = (int)(u16(b + 2) >> 2 * j & 3);
    const int sub = (low | high << 4) - 32;
    set_scale(u, f16(b) * (float)sub, 1, 1);
    fours(u->q, b + 8 + 16 * j, quant_levels_iq4);
}

/* Ternary digit `place` (0 the most significant) of a byte that holds five in base 3, scaled to
 * 256: multiplying by 3^place moves it to the top (the byte overflows), by 3 once more reads it
 * off. */
static int8_t trit(uint8_t byte, int place)
{
    static const uint8_t powers[5] = { 1, 3, 9, 27, 81 };
    const uint8_t shifted = (uint8_t)(byte * powers[place]);
    return (int8_t)((shifted * 3 >> 8) - 1);
}

/* u8 q[48], five weights a byte; u8 rest[4], four a byte; f16 d. */
void quant_iq_tq1_0(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 54;
    const int j = (int)(i % 8);
    set_scale(u, f16(b + 52), 1, 1);
    for (int k = 0; k < 32; k++) {
        const int at = 32 * j + k; /* 160 weights in 32 bytes, 80 in 16 bytes, 16 in 4 bytes */
        if (at < 160) {
            u->q[k] = trit(b[at % 32], at / 32);
        } else if (at < 240) {
            u->q[k] = trit(b[32 + (at - 160) % 16], (at - 160) / 16);
        } else {
            u->q[k] = trit(b[48 + (at - 240) % 4], (at - 240) / 4);
        }
    }
}

/* u8 q[64], two bits a weight, across four units; f16 d. */
void quant_iq_tq2_0(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 8 * 66;
    const size_t j = i % 8;
    set_scale(u, f16(b + 64), 1, 1);
    for (int k = 0; k < 32; k++) {
        u->q[k] = (int8_t)((b[j / 4 * 32 + (size_t)k] >> 2 * (j % 4) & 3) - 1);
    }
}

/* E8M0, halved because the E2M1 levels are doubled: 2^(x - 128), down to subnormals. */
static float e8m0_half(uint8_t x)
{
    const uint32_t bits = x < 2 ? 0x00200000u << x : (uint32_t)(x - 1) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* u8 e; u8 q[16]. */
void quant_iq_mxfp4(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i * 17;
    set_scale(u, e8m0_half(b[0]), 1, 1);
    fours(u->q, b + 1, quant_levels_e2m1);
}

/* Unsigned E4M3 (bias 7), halved; 0 and 0x7F stand for zero. */
static float ue4m3_half(uint8_t x)
{
    const int exp = x >> 3 & 15;
    const int man = x & 7;
    if (x == 0 || x == 0x7F) {
        return 0.0f;
    }
    return exp == 0 ? (float)man * 0x1p-10f : (float)((8 + man) << exp) * 0x1p-11f;
}

/* u8 scales[4], one per 16 weights; u8 q[32]: 8 bytes per 16 weights, k low and k + 8 high. */
void quant_iq_nvfp4(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 2 * 36;
    const size_t j = i % 2;
    set_scale(u, 0.0f, 1, 1);
    for (size_t h = 0; h < 2; h++) {
        u->d[h] = ue4m3_half(b[2 * j + h]);
        const uint8_t *q = b + 4 + 8 * (2 * j + h);
        for (size_t k = 0; k < 8; k++) {
            u->q[16 * h + k] = quant_levels_e2m1[q[k] & 15];
            u->q[16 * h + k + 8] = quant_levels_e2m1[q[k] >> 4];
        }
    }
}

/* f16 d; u8 bits[16]. */
void quant_iq_q1_0(const void *row, size_t i, struct quant_unit *u)
{
    const uint8_t *b = (const uint8_t *)row + i / 4 * 18;
    const uint32_t bits = u32(b + 2 + 4 * (i % 4));
    set_scale(u, f16(b), 1, 1);
    for (int k = 0; k < 32; k++) {
        u->q[k] = bits >> k & 1 ? 1 : -1;
    }
}
