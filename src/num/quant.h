/* quant - the element types of weight files and what their bytes mean (num/quant.c, quant_iq.c)
 *
 * The scalar decoders here define each format. Numbers are GGUF's type ids, see
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and ggml's block structures.
 * Decoding is exact: integer fields times scales in float32, in the order the reference uses. */
#ifndef HEARTH_QUANT_H
#define HEARTH_QUANT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum quant_type { /* values are GGUF's */
                  QUANT_F32 = 0,
                  QUANT_F16 = 1,
                  QUANT_Q4_0 = 2,
                  QUANT_Q4_1 = 3,
                  QUANT_Q5_0 = 6,
                  QUANT_Q5_1 = 7,
                  QUANT_Q8_0 = 8,
                  QUANT_Q8_1 = 9,
                  QUANT_Q2_K = 10,
                  QUANT_Q3_K = 11,
                  QUANT_Q4_K = 12,
                  QUANT_Q5_K = 13,
                  QUANT_Q6_K = 14,
                  QUANT_Q8_K = 15,
                  QUANT_IQ2_XXS = 16,
                  QUANT_IQ2_XS = 17,
                  QUANT_IQ3_XXS = 18,
                  QUANT_IQ1_S = 19,
                  QUANT_IQ4_NL = 20,
                  QUANT_IQ3_S = 21,
                  QUANT_IQ2_S = 22,
                  QUANT_IQ4_XS = 23,
                  QUANT_I8 = 24,
                  QUANT_I16 = 25,
                  QUANT_I32 = 26,
                  QUANT_I64 = 27,
                  QUANT_F64 = 28,
                  QUANT_IQ1_M = 29,
                  QUANT_BF16 = 30,
                  QUANT_TQ1_0 = 34,
                  QUANT_TQ2_0 = 35,
                  QUANT_MXFP4 = 39,
                  QUANT_NVFP4 = 40,
                  QUANT_Q1_0 = 41,
                  QUANT_TYPE_COUNT = 48, /* exclusive upper bound of known ids */
};

/* Decodes n elements (a multiple of the block) into out[n]; bytes beyond are not touched. */
typedef void (*quant_decode_fn)(const void *blocks, float *out, size_t n);

/* One block of 32 weights in integer form, the unit of the numeric contract (docs/NUMERICS.md).
 * With h the half (0: the first 16):
 *   value[i] = d[h] * sub[h] * q[i] - dmin * min[h] + m
 * d[0] == d[1] but for NVFP4, whose halves have scales of their own. The bounds of quant.c's essay
 * keep |sum of sub * q * a| below 2^24 for |a| <= 127, so that it is exact in float32. */
struct quant_unit {
    int8_t q[32];
    int16_t sub[2]; /* integer sub-scales (1 where the type has none, or one a unit: then in d) */
    int16_t min[2]; /* integer minima (0 where the type has none, or one a unit: then in m) */
    float d[2];
    float dmin; /* scale of the minima */
    float m;    /* added constant (Q4_1, Q5_1, Q4_K, Q5_K), else 0 */
};

/* Unit i_unit (32 weights) of a row. */
typedef void (*quant_unit_fn)(const void *row, size_t i_unit, struct quant_unit *out);

struct quant_info {
    const char *name;       /* "Q4_K"; NULL for a hole in the table */
    uint16_t block;         /* elements per block; 0 = unknown type */
    uint16_t bytes;         /* bytes per block */
    quant_decode_fn decode; /* NULL for integer and internal types that are no weights */
    quant_unit_fn unit;     /* NULL for F32, F16, BF16 */
    bool has_m;             /* units have a float constant */
    bool has_min;           /* units have integer minima */
    bool is_halved;         /* the halves of a unit have scales of their own */
};

/* What the 16 codes of the 4-bit types stand for: IQ4's levels as ggml fixed them, and E2M1 (OCP
 * Microscaling Formats 1.0, 2023), doubled so that 0.5 and 1.5 are integers. In the header, because
 * kernels look them up in a register that the compiler fills. */
static const int8_t quant_levels_iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                             1,    13,   25,  38,  53,  69,  89,  113 };
static const int8_t quant_levels_e2m1[16] = { 0, 1,  2,  3,  4,  6,  8,  12,
                                              0, -1, -2, -3, -4, -6, -8, -12 };

/* Never NULL: unknown ids give an entry with block == 0. */
const struct quant_info *quant_get(uint32_t type);
bool quant_parse(const char *name, enum quant_type *out); /* any case; false: *out is untouched */

/* Bytes of n elements; false when the type is unknown, n no multiple of the block, or overflow. */
bool quant_bytes(uint32_t type, uint64_t n, size_t *out) MUST_USE;

/* Units of the codebook, ternary and 4-bit float types (num/quant_iq.c); only the table refers to
 * them. */
void quant_iq_iq2_xxs(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq2_xs(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq2_s(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq3_xxs(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq3_s(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq1_s(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq1_m(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq4_nl(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq4_xs(const void *row, size_t i, struct quant_unit *u);
void quant_iq_tq1_0(const void *row, size_t i, struct quant_unit *u);
void quant_iq_tq2_0(const void *row, size_t i, struct quant_unit *u);
void quant_iq_mxfp4(const void *row, size_t i, struct quant_unit *u);
void quant_iq_nvfp4(const void *row, size_t i, struct quant_unit *u);
void quant_iq_q1_0(const void *row, size_t i, struct quant_unit *u);

/* Half precision: exact, and to the nearest, ties to even. A NaN stays one: its sign and payload
 * are kept as far as they fit and it comes out quiet, which is what processors do. */
float quant_f16_to_f32(uint16_t h);
uint16_t quant_f32_to_f16(float f);
static inline float quant_bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } x = { .u = (uint32_t)h << 16 };
    return x.f;
}
/* To the nearest, ties to even; a NaN stays one and comes out quiet. */
static inline uint16_t quant_f32_to_bf16(float f)
{
    union {
        float f;
        uint32_t u;
    } x = { .f = f };
    return (uint16_t)(f == f ? (x.u + 0x7FFF + (x.u >> 16 & 1)) >> 16 : x.u >> 16 | 0x40);
}

#endif
