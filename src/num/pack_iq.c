/* pack_iq - panels of the codebook types
 *
 * A unit of 32 weights has four indices of groups of 8 weights (IQ1, IQ2) or eight of groups of 4
 * (IQ3), signs (IQ2, IQ3) and small scales. Kernels look up the groups of 16 rows at once, so the
 * fields of 16 rows are spread over planes whose bits stand in the order of the lanes:
 *
 *   index   64 bytes: the low 8 bits, byte 4 * row + G. Groups of 4: one such plane of the groups
 *           2 G and one of the groups 2 G + 1
 *   high    one bit more of each index of a plane: 8 bytes, bit 4 * row + G
 *   signs   64 bytes, byte 4 * row + G: those of its weights 0 .. 7 at bits 4 5 0 1 6 7 2 3
 *   four    4 bits of each row: 8 bytes, bits 4 * row ..
 *
 * The types whose signs take seven bits for eight weights, so that the number of minus signs is
 * even, leave bit 3 of those bytes free. There lies a `four` of the type, bit G in byte G.
 *
 * Units of 16 rows, in order (d[16] stands in front of eight of them):
 *   IQ2_XXS  signs (free: scale), index
 *   IQ2_XS   four scale 0, four scale 1, signs (free: bit 8 of index i), index
 *   IQ2_S    four scale 0, four scale 1, high 8, high 9, signs, index
 *   IQ3_XXS  signs (free: scale), index, index
 *   IQ3_S    four scale, high 8, high 8 (of each plane), signs, index, index
 *   IQ1_S    high 8, 9, 10, four (scale, bit 3: sign of delta), index
 *   IQ1_M    four (scale 0, bit 3: bit 0 of scale 1), 2 bits of each row (the rest of scale 1),
 *            high 8, 9, 10, four (bit i: sign of delta of group i), index
 *
 * Next: kern/gemm_ref.c. */
#include "num/pack_iq.h"

#include <assert.h>
#include <string.h>

#define ROWS TENSOR_PANEL_ROWS

/* What stands in a unit of 16 rows. */
struct shape {
    uint8_t n_four;  /* of each row, in front: scales, bits of indices (groups of 8) */
    uint8_t n_high;  /* masks with bit 8 of the indices of each plane (groups of 4) */
    uint8_t n_index; /* 4: groups of 8 weights, 8: groups of 4 */
    bool has_two;    /* behind the first four: two bits of each row */
    bool has_signs;
};

static struct shape shape_of(uint32_t type)
{
    switch (type) {
    case QUANT_IQ2_XXS:
        return (struct shape){ .n_index = 4, .has_signs = true };
    case QUANT_IQ2_XS:
        return (struct shape){ .n_four = 2, .n_index = 4, .has_signs = true };
    case QUANT_IQ2_S:
        return (struct shape){ .n_four = 4, .n_index = 4, .has_signs = true };
    case QUANT_IQ3_XXS:
        return (struct shape){ .n_index = 8, .has_signs = true };
    case QUANT_IQ3_S:
        return (struct shape){ .n_four = 1, .n_high = 2, .n_index = 8, .has_signs = true };
    case QUANT_IQ1_S:
        return (struct shape){ .n_four = 4, .n_index = 4 };
    case QUANT_IQ1_M:
        return (struct shape){ .n_four = 5, .n_index = 4, .has_two = true };
    default:
        return (struct shape){ 0 };
    }
}

size_t pack_iq_unit_bytes(uint32_t type)
{
    const struct shape s = shape_of(type);
    return 8u * s.n_four + (s.has_two ? 4 : 0) + 8u * s.n_high + (s.has_signs ? 64 : 0) +
           16u * s.n_index;
}

/* The fields of one row's unit, in the order of the essay. */
struct fields {
    uint8_t four[5];
    uint8_t two;
    uint8_t high;    /* IQ3_S: bit g belongs to index g */
    uint8_t sign[4]; /* of 8 weights each, or 7 and what is put on the free place, the top bit */
    uint8_t index[8];
};

static uint32_t u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const uint8_t *p)
{
    return u16(p) | u16(p + 2) << 16;
}

/* Bit `i` of four numbers of `width` bits as one number of 4 bits. */
static uint8_t slice(uint32_t numbers, int width, int i)
{
    const uint32_t x = numbers >> i;
    return (uint8_t)((x & 1) | (x >> width & 1) << 1 | (x >> 2 * width & 1) << 2 |
                     (x >> 3 * width & 1) << 3);
}

/* The inverse: bit i of four numbers. */
static uint32_t unslice(uint8_t bits, int width, int i)
{
    const uint32_t b = bits;
    return ((b & 1) | (b >> 1 & 1) << width | (b >> 2 & 1) << 2 * width | (b >> 3 & 1) << 3 * width)
           << i;
}

/* Four times 7 signs, 4 bits on top: one of them goes above each 7. */
static void signs_get(uint32_t aux, uint8_t sign[4])
{
    for (int g = 0; g < 4; g++) {
        sign[g] = (uint8_t)((aux >> 7 * g & 127) | (aux >> (28 + g) & 1) << 7);
    }
}

static uint32_t signs_set(const uint8_t sign[4])
{
    uint32_t aux = 0;
    for (int g = 0; g < 4; g++) {
        aux |= (uint32_t)(sign[g] & 127) << 7 * g | (uint32_t)(sign[g] >> 7) << (28 + g);
    }
    return aux;
}

/* Unit j of block b; quant_iq.c says where the fields lie in the file. */
static void fields_get(uint32_t type, const uint8_t *b, int j, struct fields *f)
{
    uint32_t h = 0;
    switch (type) {
    case QUANT_IQ2_XXS:
        memcpy(f->index, b + 2 + 8 * j, 4);
        signs_get(u32(b + 6 + 8 * j), f->sign);
        break;
    case QUANT_IQ2_XS:
        f->four[0] = b[66 + j] & 15;
        f->four[1] = b[66 + j] >> 4;
        for (int g = 0; g < 4; g++) {
            const uint32_t code = u16(b + 2 + 8 * j + 2 * g);
            f->index[g] = (uint8_t)code;
            f->sign[g] = (uint8_t)(code >> 9 | (code >> 8 & 1) << 7);
        }
        break;
    case QUANT_IQ2_S:
        f->four[0] = b[74 + j] & 15;
        f->four[1] = b[74 + j] >> 4;
        f->four[2] = slice(b[66 + j], 2, 0);
        f->four[3] = slice(b[66 + j], 2, 1);
        memcpy(f->sign, b + 34 + 4 * j, 4);
        memcpy(f->index, b + 2 + 4 * j, 4);
        break;
    case QUANT_IQ3_XXS:
        memcpy(f->index, b + 2 + 8 * j, 8);
        signs_get(u32(b + 66 + 4 * j), f->sign);
        break;
    case QUANT_IQ3_S:
        f->four[0] = b[106 + j / 2] >> 4 * (j % 2) & 15;
        f->high = b[66 + j];
        memcpy(f->sign, b + 74 + 4 * j, 4);
        memcpy(f->index, b + 2 + 8 * j, 8);
        break;
    case QUANT_IQ1_S:
        h = u16(b + 34 + 2 * j);
        for (int i = 0; i < 3; i++) {
            f->four[i] = slice(h, 3, i);
        }
        f->four[3] = (uint8_t)(h >> 12);
        memcpy(f->index, b + 2 + 4 * j, 4);
        break;
    case QUANT_IQ1_M:
        h = u16(b + 48 + j / 2 * 2) >> 6 * (j % 2);
        f->four[0] = h & 15;
        f->two = h >> 4 & 3;
        for (int i = 0; i < 4; i++) {
            f->four[1 + i] = slice(u16(b + 32 + 2 * j), 4, i);
        }
        memcpy(f->index, b + 4 * j, 4);
        break;
    default:
        break;
    }
}

static void or_byte(uint8_t *p, uint32_t bits)
{
    *p = (uint8_t)(*p | bits);
}

static void or_u16(uint8_t *p, uint32_t bits)
{
    or_byte(p, bits & 255);
    or_byte(p + 1, bits >> 8);
}

static void or_u32(uint8_t *p, uint32_t bits)
{
    or_u16(p, bits & 65535);
    or_u16(p + 2, bits >> 16);
}

/* The inverse, by or-ing into a block whose bits are zero. */
static void fields_set(uint32_t type, uint8_t *b, int j, const struct fields *f)
{
    switch (type) {
    case QUANT_IQ2_XXS:
        memcpy(b + 2 + 8 * j, f->index, 4);
        or_u32(b + 6 + 8 * j, signs_set(f->sign));
        break;
    case QUANT_IQ2_XS:
        or_byte(b + 66 + j, f->four[0] | f->four[1] << 4);
        for (int g = 0; g < 4; g++) {
            or_u16(b + 2 + 8 * j + 2 * g, f->index[g] | (uint32_t)(f->sign[g] >> 7) << 8 |
                                              (uint32_t)(f->sign[g] & 127) << 9);
        }
        break;
    case QUANT_IQ2_S:
        or_byte(b + 74 + j, f->four[0] | f->four[1] << 4);
        or_byte(b + 66 + j, unslice(f->four[2], 2, 0) | unslice(f->four[3], 2, 1));
        memcpy(b + 34 + 4 * j, f->sign, 4);
        memcpy(b + 2 + 4 * j, f->index, 4);
        break;
    case QUANT_IQ3_XXS:
        memcpy(b + 2 + 8 * j, f->index, 8);
        or_u32(b + 66 + 4 * j, signs_set(f->sign));
        break;
    case QUANT_IQ3_S:
        or_byte(b + 106 + j / 2, (uint32_t)f->four[0] << 4 * (j % 2));
        b[66 + j] = f->high;
        memcpy(b + 74 + 4 * j, f->sign, 4);
        memcpy(b + 2 + 8 * j, f->index, 8);
        break;
    case QUANT_IQ1_S:
        for (int i = 0; i < 3; i++) {
            or_u16(b + 34 + 2 * j, unslice(f->four[i], 3, i));
        }
        or_u16(b + 34 + 2 * j, (uint32_t)f->four[3] << 12);
        memcpy(b + 2 + 4 * j, f->index, 4);
        break;
    case QUANT_IQ1_M:
        or_u16(b + 48 + j / 2 * 2, (f->four[0] | (uint32_t)f->two << 4) << 6 * (j % 2));
        for (int i = 0; i < 4; i++) {
            or_u16(b + 32 + 2 * j, unslice(f->four[1 + i], 4, i));
        }
        memcpy(b + 4 * j, f->index, 4);
        break;
    default:
        break;
    }
}

/* --- planes ----------------------------------------------------------------------------------- */

/* Signs in the order of the panel, of 4 times 8 weights: the pairs of bits change their places. */
static uint32_t signs_turned(uint32_t s)
{
    return (s & 0x03030303u) << 4 | (s >> 2 & 0x03030303u) | (s & 0x30303030u) << 2 |
           (s >> 4 & 0x0C0C0C0Cu);
}

static uint32_t signs_back(uint32_t s)
{
    return (s >> 4 & 0x03030303u) | (s & 0x03030303u) << 2 | (s >> 2 & 0x30303030u) |
           (s & 0x0C0C0C0Cu) << 4;
}

static void indices_put(int n_index, uint8_t *to, const struct fields *f)
{
    if (n_index == 4) {
        memcpy(to, f->index, 4);
        return;
    }
    for (int g = 0; g < 8; g++) {
        to[64 * (g % 2) + g / 2] = f->index[g];
    }
}

void pack_iq_put(uint32_t type, uint8_t *to, const uint8_t *const b[ROWS], int j)
{
    struct fields f[ROWS];
    const struct shape s = shape_of(type);
    for (int r = 0; r < ROWS; r++) {
        fields_get(type, b[r], j, &f[r]);
    }
    for (int i = 0; i < s.n_four; i++) {
        for (int r = 0; r < ROWS; r += 2) {
            *to++ = (uint8_t)(f[r].four[i] | f[r + 1].four[i] << 4);
        }
        for (int r = 0; r < ROWS && i == 0 && s.has_two; r += 4) {
            *to++ = (uint8_t)(f[r].two | f[r + 1].two << 2 | f[r + 2].two << 4 | f[r + 3].two << 6);
        }
    }
    if (s.n_high > 0) {
        uint64_t mask[2] = { 0, 0 };
        for (int r = 0; r < ROWS; r++) {
            for (int g = 0; g < 8; g++) {
                mask[g % 2] |= (uint64_t)(f[r].high >> g & 1) << (4 * r + g / 2);
            }
        }
        memcpy(to, mask, sizeof mask);
        to += sizeof mask;
    }
    for (int r = 0; r < ROWS && s.has_signs; r++) {
        const uint32_t sign = signs_turned(u32(f[r].sign));
        memcpy(to + 4 * r, &sign, sizeof sign);
    }
    to += s.has_signs ? 64 : 0;
    for (int r = 0; r < ROWS; r++) {
        indices_put(s.n_index, to + 4 * r, &f[r]);
    }
}

void pack_iq_take(uint32_t type, const uint8_t *from, int r, uint8_t *b, int j)
{
    struct fields f = { { 0 } };
    const struct shape s = shape_of(type);
    for (int i = 0; i < s.n_four; i++) {
        f.four[i] = from[r / 2] >> 4 * (r % 2) & 15;
        from += 8;
        if (i == 0 && s.has_two) {
            f.two = from[r / 4] >> 2 * (r % 4) & 3;
            from += 4;
        }
    }
    for (int g = 0; g < 8 && s.n_high > 0; g++) {
        or_byte(&f.high, (uint32_t)(from[8 * (g % 2) + r / 2] >> (4 * (r % 2) + g / 2) & 1) << g);
    }
    from += 8 * s.n_high;
    if (s.has_signs) {
        const uint32_t sign = signs_back(u32(from + 4 * r));
        memcpy(f.sign, &sign, sizeof sign);
        from += 64;
    }
    for (int g = 0; g < s.n_index; g++) {
        f.index[g] = from[4 * r + (s.n_index == 4 ? g : 64 * (g % 2) + g / 2)];
    }
    fields_set(type, b, j, &f);
}
