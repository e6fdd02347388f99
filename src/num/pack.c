/* pack - from the file's rows to the panels that kernels read
 *
 * A panel is 16 rows, one per vector lane. Its blocks hold the same fields as 16 blocks of the
 * file, in an order that suits the kernels: first each row's scales, then the weights' codes in
 * planes. The code of a weight is its stored bits as one unsigned number (Q4_0: 0..15, meaning code
 * - 8); what a code means is the kernel's business, so packing and unpacking are exact by
 * construction (PA-1).
 *
 * Planes, for each unit of 32 columns; a group g is 4 columns, and a byte or bit position (row, t)
 * stands for column 4 g + t of that row, rows first: byte 4 * row + t.
 *   low 4 bits   4 x 64 bytes   plane j: group 2 j in the low half of a byte, 2 j + 1 in the high
 *   low 2 bits   2 x 64 bytes   plane j: groups 4 j .. 4 j + 3, two bits each, lowest first
 *   bit          8 x 8 bytes    mask g, bit 4 * row + t
 *   2 high bits  as "low 2 bits"
 *   8 bits       8 x 64 bytes   plane g, the byte with its top bit turned (code = value + 128)
 *
 * Blocks (16 rows x 32 columns, or x 256 for the K types), in order:
 *   Q4_0  d[16]                     low 4            Q4_1  d[16] m[16]              low 4
 *   Q5_0  d[16]                     bit, low 4       Q5_1  d[16] m[16]              bit, low 4
 *   Q8_0  d[16]                     8 bits           IQ4_NL d[16]                   low 4
 *   MXFP4 e[16] (1 byte)            low 4
 *   Q2_K  d[16] dmin[16], 8 units of: scale bytes [2][16], low 2
 *   Q3_K  d[16], 8 units of: scales 6 bits [2][16] in 24 bytes, bit, low 2
 *   Q4_K  d[16] dmin[16], 8 units of: 6 bits, scale[16] minimum[16] in 24 bytes, low 4
 *   Q5_K  the same with bit before low 4
 *   Q6_K  d[16], 8 units of: scales [2][16] (1 byte), 2 high bits, low 4
 *   IQ4_XS d[16], 8 units of: scales 6 bits [16] in 12 bytes, low 4
 *   TQ2_0 d[16], 8 units of: low 2
 *   NVFP4 2 units of: scales [2][16] (1 byte), low 4
 *   Q1_0  d[16], 4 units of: bit
 *   TQ1_0 d[16], 13 x 64 bytes: bytes 4 p .. 4 p + 3 of each row's 52, rows first
 *   IQ1 IQ2 IQ3: d[16], 8 units that pack_iq.c draws
 *   F32 F16 BF16: column by column, 16 values.
 * 6-bit numbers x[n] lie as n low nibbles (byte i: x[2 i] low, x[2 i + 1] high), then n 2-bit
 * rests, four a byte.
 *
 * Next: num/pack_iq.c. */
#include "num/pack.h"

#include "base/mem.h"
#include "num/pack_iq.h"

#include <assert.h>
#include <string.h>

#define ROWS TENSOR_PANEL_ROWS

/* Which planes a type has, and the bytes of scales in front. */
struct shape {
    uint8_t head; /* bytes per row in front of a block: d, dmin, m, e */
    uint8_t unit; /* bytes per 16 rows in front of each unit */
    bool has_bit;
    bool has_high2;
    bool has_low2;
    bool has_low4;
    bool has_byte;
    bool is_book; /* units are pack_iq.c's */
};

static struct shape shape_of(uint32_t type)
{
    switch (type) {
    case QUANT_Q4_0:
    case QUANT_IQ4_NL:
        return (struct shape){ .head = 2, .has_low4 = true };
    case QUANT_MXFP4:
        return (struct shape){ .head = 1, .has_low4 = true };
    case QUANT_Q4_1:
        return (struct shape){ .head = 4, .has_low4 = true };
    case QUANT_Q5_0:
        return (struct shape){ .head = 2, .has_bit = true, .has_low4 = true };
    case QUANT_Q5_1:
        return (struct shape){ .head = 4, .has_bit = true, .has_low4 = true };
    case QUANT_Q8_0:
        return (struct shape){ .head = 2, .has_byte = true };
    case QUANT_Q2_K:
        return (struct shape){ .head = 4, .unit = 32, .has_low2 = true };
    case QUANT_Q3_K:
        return (struct shape){ .head = 2, .unit = 24, .has_bit = true, .has_low2 = true };
    case QUANT_Q4_K:
        return (struct shape){ .head = 4, .unit = 24, .has_low4 = true };
    case QUANT_Q5_K:
        return (struct shape){ .head = 4, .unit = 24, .has_bit = true, .has_low4 = true };
    case QUANT_Q6_K:
        return (struct shape){ .head = 2, .unit = 32, .has_high2 = true, .has_low4 = true };
    case QUANT_IQ4_XS:
        return (struct shape){ .head = 2, .unit = 12, .has_low4 = true };
    case QUANT_TQ2_0:
        return (struct shape){ .head = 2, .has_low2 = true };
    case QUANT_NVFP4:
        return (struct shape){ .unit = 32, .has_low4 = true };
    case QUANT_Q1_0:
        return (struct shape){ .head = 2, .has_bit = true };
    case QUANT_TQ1_0:
        return (struct shape){ .head = 2 };
    default:
        return pack_iq_unit_bytes(type) == 0 ? (struct shape){ 0 }
                                             : (struct shape){ .head = 2, .is_book = true };
    }
}

/* Float types have panels without planes: column by column, 16 values. */
static bool is_float(uint32_t type)
{
    return type == QUANT_F32 || type == QUANT_F16 || type == QUANT_BF16;
}

bool pack_shape(uint32_t type, int32_t n_row, int32_t n_col, struct tensor *out)
{
    size_t row = 0;
    size_t bytes = 0;
    if (quant_get(type)->decode == NULL || n_row <= 0 || n_col <= 0 ||
        !quant_bytes(type, (uint64_t)n_col, &row)) {
        return false;
    }
    const size_t n_panel = ((size_t)n_row + ROWS - 1) / ROWS;
    if (row > PACK_ROW_MAX_BYTES || !mem_mul(row, n_panel * ROWS, &bytes)) {
        return false;
    }
    *out = (struct tensor){ .bytes = bytes,
                            .stride = row * ROWS,
                            .n_row = n_row,
                            .n_col = n_col,
                            .type = (enum quant_type)type };
    return true;
}

/* --- codes of a block of the file, in column order -------------------------------------------- */

/* Sub-scale bits of Q4_K and Q5_K (index 0..15: scale j, then minimum j) and of Q3_K (0..15), 6
 * bits each. */
static int six_get(const uint8_t *s, bool is_q3, int i)
{
    if (is_q3) {
        return (s[i % 8] >> (i / 8 * 4) & 15) | (s[8 + i % 4] >> (i / 4 * 2) & 3) << 4;
    }
    const int j = i / 2;
    const uint8_t *low = s + 4 * (i % 2); /* scales in bytes 0..3, minima in 4..7 */
    if (j < 4) {
        return low[j] & 63;
    }
    return (s[8 + j % 4] >> 4 * (i % 2) & 15) | low[j % 4] >> 6 << 4;
}

/* The inverse; s must be zero where nothing was set yet. */
static void six_set(uint8_t *s, bool is_q3, int i, int v)
{
    if (is_q3) {
        s[i % 8] = (uint8_t)(s[i % 8] | (v & 15) << (i / 8 * 4));
        s[8 + i % 4] = (uint8_t)(s[8 + i % 4] | (v >> 4) << (i / 4 * 2));
        return;
    }
    const int j = i / 2;
    uint8_t *low = s + 4 * (i % 2);
    if (j < 4) {
        low[j] = (uint8_t)(low[j] | v);
    } else {
        s[8 + j % 4] = (uint8_t)(s[8 + j % 4] | (v & 15) << 4 * (i % 2));
        low[j % 4] = (uint8_t)(low[j % 4] | v >> 4 << 6);
    }
}

/* The 32 codes of a unit as four words of eight, the first in the lowest byte. Packing is most of
 * the time between starting and the first token, so this direction works on words; the other one,
 * which is rare, works on bytes and checks it (PA-1). */
struct codes {
    uint64_t w[4];
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words hold bytes lowest first");

#define EACH_BYTE 0x0101010101010101u

static uint64_t word_at(const uint8_t *p)
{
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* Eight bits to the lowest bit of eight bytes: byte i keeps bit i alone, adding 127 carries it into
 * bit 7 where it was set, and that comes down. */
static uint64_t spread(uint8_t bits)
{
    const uint64_t each = bits * EACH_BYTE & 0x8040201008040201u;
    return (each + 0x7f * EACH_BYTE) >> 7 & EACH_BYTE;
}

/* 16 bytes: low halves are weights 0..15, high halves 16..31. */
static struct codes halves(const uint8_t *p)
{
    const uint64_t m = 15 * EACH_BYTE;
    const uint64_t a = word_at(p);
    const uint64_t b = word_at(p + 8);
    return (struct codes){ { a & m, b & m, a >> 4 & m, b >> 4 & m } };
}

/* n_bit bits of each of 32 bytes, moved to `up`. */
static struct codes bits_of(const uint8_t *p, int shift, int n_bit, int up)
{
    const uint64_t m = ((1u << n_bit) - 1) * EACH_BYTE;
    struct codes c;
    for (int i = 0; i < 4; i++) {
        c.w[i] = (word_at(p + 8 * i) >> shift & m) << up;
    }
    return c;
}

static struct codes both(struct codes a, struct codes b)
{
    for (int i = 0; i < 4; i++) {
        a.w[i] |= b.w[i];
    }
    return a;
}

/* 32 bits at p as the fifth bit. */
static struct codes fifth(const uint8_t *p)
{
    return (struct codes){ { spread(p[0]) << 4, spread(p[1]) << 4, spread(p[2]) << 4,
                             spread(p[3]) << 4 } };
}

/* Codes of unit j of a block. */
static struct codes codes_get(uint32_t type, const uint8_t *b, int j)
{
    switch (type) {
    case QUANT_Q4_0:
    case QUANT_IQ4_NL:
        return halves(b + 2);
    case QUANT_MXFP4:
        return halves(b + 1);
    case QUANT_Q4_1:
        return halves(b + 4);
    case QUANT_Q5_0:
        return both(halves(b + 6), fifth(b + 2));
    case QUANT_Q5_1:
        return both(halves(b + 8), fifth(b + 4));
    case QUANT_Q8_0: {
        struct codes c = bits_of(b + 2, 0, 8, 0);
        for (int i = 0; i < 4; i++) {
            c.w[i] ^= 0x80 * EACH_BYTE;
        }
        return c;
    }
    case QUANT_Q2_K:
        return bits_of(b + 16 + j / 4 * 32, 2 * (j % 4), 2, 0);
    case QUANT_Q3_K:
        return both(bits_of(b + 32 + j / 4 * 32, 2 * (j % 4), 2, 0), bits_of(b, j, 1, 2));
    case QUANT_Q4_K:
        return bits_of(b + 16 + j / 2 * 32, 4 * (j % 2), 4, 0);
    case QUANT_Q5_K:
        return both(bits_of(b + 48 + j / 2 * 32, 4 * (j % 2), 4, 0), bits_of(b + 16, j, 1, 4));
    case QUANT_Q6_K:
        return both(bits_of(b + j / 4 * 64 + j % 2 * 32, j % 4 / 2 * 4, 4, 0),
                    bits_of(b + 128 + j / 4 * 32, 2 * (j % 4), 2, 4));
    case QUANT_IQ4_XS:
        return halves(b + 8 + 16 * j);
    case QUANT_TQ2_0:
        return bits_of(b + j / 4 * 32, 2 * (j % 4), 2, 0);
    case QUANT_NVFP4: { /* halves are of 8 and 8 */
        const struct codes c = halves(b + 4 + 16 * j);
        return (struct codes){ { c.w[0], c.w[2], c.w[1], c.w[3] } };
    }
    case QUANT_Q1_0:
        return (struct codes){ { spread(b[2 + 4 * j]), spread(b[3 + 4 * j]), spread(b[4 + 4 * j]),
                                 spread(b[5 + 4 * j]) } };
    default:
        return (struct codes){ { 0 } };
    }
}

static void or_into(uint8_t *byte, int bits)
{
    *byte = (uint8_t)(*byte | bits);
}

/* The inverse, by or-ing into a block whose code bits are zero. */
static void codes_set(uint32_t type, uint8_t *b, int j, const uint8_t code[32])
{
    for (int k = 0; k < 32; k++) {
        const int c = code[k];
        const int h = 4 * (k >> 4);
        const int l = k & 15;
        switch (type) {
        case QUANT_Q4_0:
        case QUANT_IQ4_NL:
            or_into(&b[2 + l], c << h);
            break;
        case QUANT_MXFP4:
            or_into(&b[1 + l], c << h);
            break;
        case QUANT_Q4_1:
            or_into(&b[4 + l], c << h);
            break;
        case QUANT_Q5_0:
            or_into(&b[6 + l], (c & 15) << h);
            or_into(&b[2 + k / 8], (c >> 4) << k % 8);
            break;
        case QUANT_Q5_1:
            or_into(&b[8 + l], (c & 15) << h);
            or_into(&b[4 + k / 8], (c >> 4) << k % 8);
            break;
        case QUANT_Q8_0:
            b[2 + k] = (uint8_t)(c ^ 0x80);
            break;
        case QUANT_Q2_K:
            or_into(&b[16 + j / 4 * 32 + k], c << 2 * (j % 4));
            break;
        case QUANT_Q3_K:
            or_into(&b[32 + j / 4 * 32 + k], (c & 3) << 2 * (j % 4));
            or_into(&b[k], (c >> 2) << j);
            break;
        case QUANT_Q4_K:
            or_into(&b[16 + j / 2 * 32 + k], c << 4 * (j % 2));
            break;
        case QUANT_Q5_K:
            or_into(&b[48 + j / 2 * 32 + k], (c & 15) << 4 * (j % 2));
            or_into(&b[16 + k], (c >> 4) << j);
            break;
        case QUANT_Q6_K:
            or_into(&b[j / 4 * 64 + j % 2 * 32 + k], (c & 15) << (j % 4 / 2 * 4));
            or_into(&b[128 + j / 4 * 32 + k], (c >> 4) << 2 * (j % 4));
            break;
        case QUANT_IQ4_XS:
            or_into(&b[8 + 16 * j + l], c << h);
            break;
        case QUANT_TQ2_0:
            or_into(&b[j / 4 * 32 + k], c << 2 * (j % 4));
            break;
        case QUANT_NVFP4:
            or_into(&b[4 + 16 * j + k / 16 * 8 + k % 8], c << 4 * (k / 8 % 2));
            break;
        case QUANT_Q1_0:
            or_into(&b[2 + 4 * j + k / 8], c << k % 8);
            break;
        default:
            break;
        }
    }
}

/* --- scales ----------------------------------------------------------------------------------- */

/* Where a block of the file keeps its head (d, dmin): in the order of the panel. */
static size_t head_at(uint32_t type)
{
    switch (type) {
    case QUANT_Q2_K:
        return 80;
    case QUANT_Q3_K:
        return 108;
    case QUANT_Q6_K:
        return 208;
    case QUANT_TQ1_0:
        return 52;
    case QUANT_TQ2_0:
        return 64;
    default:
        return 0;
    }
}

/* The head of a block of the file. IQ1_M keeps its d in the top four bits of four words. */
static void head_get(uint32_t type, const struct shape *s, const uint8_t *b, uint8_t head[4])
{
    if (type == QUANT_IQ1_M) {
        head[0] = (uint8_t)(b[49] >> 4 | (b[51] & 0xF0));
        head[1] = (uint8_t)(b[53] >> 4 | (b[55] & 0xF0));
        return;
    }
    memcpy(head, b + head_at(type), s->head);
}

/* The inverse; the block's bits must be zero. */
static void head_set(uint32_t type, const struct shape *s, const uint8_t head[4], uint8_t *b)
{
    if (type == QUANT_IQ1_M) {
        b[49] = (uint8_t)(head[0] << 4);
        b[51] = head[0] & 0xF0;
        b[53] = (uint8_t)(head[1] << 4);
        b[55] = head[1] & 0xF0;
        return;
    }
    memcpy(b + head_at(type), head, s->head);
}

/* 6-bit number i of n in packed form. */
static void six_put(uint8_t *p, int n, int i, int v)
{
    p[i / 2] = (uint8_t)(p[i / 2] | (v & 15) << 4 * (i % 2));
    p[n / 2 + i / 4] = (uint8_t)(p[n / 2 + i / 4] | (v >> 4) << 2 * (i % 4));
}

static int six_take(const uint8_t *p, int n, int i)
{
    return (p[i / 2] >> 4 * (i % 2) & 15) | (p[n / 2 + i / 4] >> 2 * (i % 4) & 3) << 4;
}

/* Sub-scales of row r, unit j into the 16 rows' bytes at `to` (zeroed before row 0). Row r's pair
 * stands at numbers r and 16 + r: first all scales (or first halves), then all minima (or second
 * halves). */
static void subs_put(uint32_t type, const uint8_t *b, int j, int r, uint8_t *to)
{
    switch (type) {
    case QUANT_Q2_K:
    case QUANT_NVFP4:
        to[r] = b[2 * j];
        to[16 + r] = b[2 * j + 1];
        break;
    case QUANT_Q6_K:
        to[r] = b[192 + 2 * j];
        to[16 + r] = b[193 + 2 * j];
        break;
    case QUANT_Q3_K:
        six_put(to, 32, r, six_get(b + 96, true, 2 * j));
        six_put(to, 32, 16 + r, six_get(b + 96, true, 2 * j + 1));
        break;
    case QUANT_Q4_K:
    case QUANT_Q5_K:
        six_put(to, 32, r, six_get(b + 4, false, 2 * j));
        six_put(to, 32, 16 + r, six_get(b + 4, false, 2 * j + 1));
        break;
    case QUANT_IQ4_XS:
        six_put(to, 16, r,
                (b[4 + j / 2] >> 4 * (j % 2) & 15) | (b[2 + j / 4] >> 2 * (j % 4) & 3) << 4);
        break;
    default:
        break;
    }
}

/* The inverse; b's bits must be zero. */
static void subs_take(uint32_t type, const uint8_t *from, int j, int r, uint8_t *b)
{
    int v;
    switch (type) {
    case QUANT_Q2_K:
    case QUANT_NVFP4:
        b[2 * j] = from[r];
        b[2 * j + 1] = from[16 + r];
        break;
    case QUANT_Q6_K:
        b[192 + 2 * j] = from[r];
        b[193 + 2 * j] = from[16 + r];
        break;
    case QUANT_Q3_K:
        six_set(b + 96, true, 2 * j, six_take(from, 32, r));
        six_set(b + 96, true, 2 * j + 1, six_take(from, 32, 16 + r));
        break;
    case QUANT_Q4_K:
    case QUANT_Q5_K:
        six_set(b + 4, false, 2 * j, six_take(from, 32, r));
        six_set(b + 4, false, 2 * j + 1, six_take(from, 32, 16 + r));
        break;
    case QUANT_IQ4_XS:
        v = six_take(from, 16, r);
        b[4 + j / 2] = (uint8_t)(b[4 + j / 2] | (v & 15) << 4 * (j % 2));
        b[2 + j / 4] = (uint8_t)(b[2 + j / 4] | (v >> 4) << 2 * (j % 4));
        break;
    default:
        break;
    }
}

/* --- planes ----------------------------------------------------------------------------------- */

/* Bytes of 16 rows of a unit: its scales and each plane that the type has. */
static size_t unit_bytes(const struct shape *s)
{
    return (size_t)s->unit + (s->has_bit ? 64 : 0) + (s->has_high2 ? 128 : 0) +
           (s->has_low2 ? 128 : 0) + (s->has_low4 ? 256 : 0) + (s->has_byte ? 512 : 0);
}

/* Group g (four columns) of the codes. */
static uint32_t group(const struct codes *c, int g)
{
    return (uint32_t)(c->w[g / 2] >> 32 * (g % 2));
}

/* Row r into a plane of two bits: groups 4 j .. 4 j + 3 share the four bytes of row r in part j. */
static void plane2_put(uint8_t *p, int r, const struct codes *c, int shift)
{
    for (int j = 0; j < 2; j++) {
        uint32_t v = 0;
        for (int g = 0; g < 4; g++) {
            v |= (group(c, 4 * j + g) >> shift & 0x03030303u) << 2 * g;
        }
        memcpy(p + 64 * j + 4 * r, &v, sizeof v);
    }
}

static int plane2_take(const uint8_t *p, int r, int k)
{
    return p[k / 16 * 64 + 4 * r + k % 4] >> 2 * (k / 4 % 4) & 3;
}

/* Where the plane of single bits goes in a code: above the others. */
static int bit_place(const struct shape *s)
{
    return s->has_low4 ? 4 : s->has_low2 ? 2 : 0;
}

/* Row r's codes into the planes at `to` (zeroed before row 0). */
static void planes_put(const struct shape *s, uint8_t *to, int r, const struct codes *c)
{
    if (s->has_bit) {
        const int shift = bit_place(s);
        for (int g = 0; g < 8; g++) { /* bit `shift` of four bytes to four neighbouring bits */
            const uint64_t one = group(c, g) >> shift & 0x01010101u;
            uint8_t *p = to + 8 * g + r / 2;
            *p = (uint8_t)(*p | (one * 0x01020408u >> 24 & 15) << 4 * (r % 2));
        }
        to += 64;
    }
    if (s->has_high2) {
        plane2_put(to, r, c, 4);
        to += 128;
    }
    if (s->has_low2) {
        plane2_put(to, r, c, 0);
    }
    if (s->has_low4) {
        for (int j = 0; j < 4; j++) {
            const uint64_t low = c->w[j] & 15 * EACH_BYTE;
            const uint32_t v = (uint32_t)(low | low >> 28);
            memcpy(to + 64 * j + 4 * r, &v, sizeof v);
        }
    }
    if (s->has_byte) {
        for (int g = 0; g < 8; g++) {
            const uint32_t v = group(c, g);
            memcpy(to + 64 * g + 4 * r, &v, sizeof v);
        }
    }
}

/* The inverse: the 32 codes of row r. */
static void planes_take(const struct shape *s, const uint8_t *from, int r, uint8_t code[32])
{
    const uint8_t *bits = from;
    from += s->has_bit ? 64 : 0;
    const uint8_t *high2 = from;
    from += s->has_high2 ? 128 : 0;
    for (int k = 0; k < 32; k++) {
        int c = 0;
        if (s->has_low2) {
            c = plane2_take(from, r, k);
        } else if (s->has_low4) {
            c = from[k / 8 * 64 + 4 * r + k % 4] >> 4 * (k / 4 % 2) & 15;
        } else if (s->has_byte) {
            c = from[k / 4 * 64 + 4 * r + k % 4];
        }
        if (s->has_bit) {
            const int bit = 4 * r + k % 4;
            c |= (bits[k / 4 * 8 + bit / 8] >> bit % 8 & 1) << bit_place(s);
        }
        if (s->has_high2) {
            c |= plane2_take(high2, r, k) << 4;
        }
        code[k] = (uint8_t)c;
    }
}

/* --- rows and panels -------------------------------------------------------------------------- */

/* The units of 16 blocks b: what follows their heads. */
static void pack_units(uint32_t type, const struct shape *s, uint8_t *to,
                       const uint8_t *const b[ROWS])
{
    const int n_unit = quant_get(type)->block / 32;
    const size_t each = unit_bytes(s);
    memset(to, 0, each * (size_t)n_unit);
    for (int r = 0; r < ROWS; r++) {
        for (int j = 0; j < n_unit; j++) {
            uint8_t *unit = to + each * (size_t)j;
            const struct codes c = codes_get(type, b[r], j);
            subs_put(type, b[r], j, r, unit);
            planes_put(s, unit + s->unit, r, &c);
        }
    }
}

/* One block of 16 rows; `at` is its place in each row of the file. */
static void pack_block(uint32_t type, const struct shape *s, uint8_t *to,
                       const uint8_t *const row[ROWS], size_t at)
{
    const uint8_t *b[ROWS];
    for (int r = 0; r < ROWS; r++) {
        uint8_t head[4];
        b[r] = row[r] + at;
        head_get(type, s, b[r], head);
        for (int i = 0; i < s->head; i++) { /* field by field: d of all rows, then dmin or m */
            const int field = i / 2 * 2;
            const int width = s->head == 1 ? 1 : 2;
            to[field * ROWS + r * width + i % 2] = head[i];
        }
    }
    to += (size_t)s->head * ROWS;
    if (s->is_book) {
        for (int j = 0; j < 8; j++, to += pack_iq_unit_bytes(type)) {
            pack_iq_put(type, to, b, j);
        }
    } else if (type == QUANT_TQ1_0) {
        for (int p = 0; p < 13 * ROWS; p++) {
            memcpy(to + 4 * p, b[p % ROWS] + p / ROWS * 4, 4);
        }
    } else {
        pack_units(type, s, to, b);
    }
}

static void pack_blocks(uint32_t type, const struct tensor *t, uint8_t *to,
                        const uint8_t *const row[ROWS])
{
    const struct quant_info *q = quant_get(type);
    const struct shape s = shape_of(type);
    for (size_t i = 0; i < (size_t)t->n_col / q->block; i++) {
        pack_block(type, &s, to + i * q->bytes * ROWS, row, i * q->bytes);
    }
}

/* Column by column; of `each` bytes. */
static void pack_floats(size_t each, const struct tensor *t, uint8_t *to,
                        const uint8_t *const row[ROWS])
{
    for (size_t k = 0; k < (size_t)t->n_col; k++) {
        for (size_t r = 0; r < ROWS; r++) {
            memcpy(to + (k * ROWS + r) * each, row[r] + k * each, each);
        }
    }
}

/* With everything inlined and the type a constant, no decision is left in a loop: two to four times
 * as fast. */
__attribute__((flatten)) static void pack_panel(const struct tensor *t, uint8_t *to,
                                                const uint8_t *const row[ROWS])
{
    switch (t->type) {
    case QUANT_F32:
        pack_floats(4, t, to, row);
        break;
    case QUANT_F16:
    case QUANT_BF16:
        pack_floats(2, t, to, row);
        break;
    case QUANT_Q4_0:
    case QUANT_IQ4_NL:
        pack_blocks(QUANT_Q4_0, t, to, row);
        break;
    case QUANT_Q4_1:
        pack_blocks(QUANT_Q4_1, t, to, row);
        break;
    case QUANT_Q5_0:
        pack_blocks(QUANT_Q5_0, t, to, row);
        break;
    case QUANT_Q5_1:
        pack_blocks(QUANT_Q5_1, t, to, row);
        break;
    case QUANT_Q8_0:
        pack_blocks(QUANT_Q8_0, t, to, row);
        break;
    case QUANT_Q2_K:
        pack_blocks(QUANT_Q2_K, t, to, row);
        break;
    case QUANT_Q3_K:
        pack_blocks(QUANT_Q3_K, t, to, row);
        break;
    case QUANT_Q4_K:
        pack_blocks(QUANT_Q4_K, t, to, row);
        break;
    case QUANT_Q5_K:
        pack_blocks(QUANT_Q5_K, t, to, row);
        break;
    case QUANT_Q6_K:
        pack_blocks(QUANT_Q6_K, t, to, row);
        break;
    case QUANT_IQ4_XS:
        pack_blocks(QUANT_IQ4_XS, t, to, row);
        break;
    default:
        pack_blocks(t->type, t, to, row);
        break;
    }
}

static const uint8_t zeros[PACK_ROW_MAX_BYTES]; /* a row of zero weights, for padding */

void pack_rows(const struct tensor *t, uint8_t *to, int32_t row0, const void *rows,
               int32_t n_row_in)
{
    const uint8_t *from = rows;
    size_t row_bytes = 0;
    const bool is_ok = quant_bytes(t->type, (uint64_t)t->n_col, &row_bytes);
    assert(is_ok && row0 % ROWS == 0 && row_bytes <= sizeof zeros);
    (void)is_ok;
    for (int32_t r = 0; r < n_row_in; r += ROWS) {
        const uint8_t *row[ROWS];
        for (int i = 0; i < ROWS; i++) {
            row[i] = r + i < n_row_in ? from + (size_t)(r + i) * row_bytes : zeros;
        }
        pack_panel(t, to + (size_t)((row0 + r) / ROWS) * t->stride, row);
    }
}

/* Row r of a packed block, back to the bytes of the file. */
static void unpack_block(uint32_t type, const struct shape *s, const uint8_t *from, int r,
                         uint8_t *b)
{
    const int n_unit = quant_get(type)->block / 32;
    const size_t each = s->is_book ? pack_iq_unit_bytes(type) : unit_bytes(s);
    uint8_t head[4] = { 0 };
    memset(b, 0, quant_get(type)->bytes);
    for (int i = 0; i < s->head; i++) {
        const int field = i / 2 * 2;
        const int width = s->head == 1 ? 1 : 2;
        head[i] = from[field * ROWS + r * width + i % 2];
    }
    head_set(type, s, head, b);
    from += (size_t)s->head * ROWS;
    for (int p = 0; p < 13 && type == QUANT_TQ1_0; p++) {
        memcpy(b + 4 * p, from + 64 * p + 4 * r, 4);
    }
    for (int j = 0; j < n_unit && type != QUANT_TQ1_0; j++) {
        uint8_t code[32];
        const uint8_t *unit = from + each * (size_t)j;
        if (s->is_book) {
            pack_iq_take(type, unit, r, b, j);
            continue;
        }
        subs_take(type, unit, j, r, b);
        planes_take(s, unit + s->unit, r, code);
        codes_set(type, b, j, code);
    }
}

void pack_block_back(const struct tensor *t, int32_t row, size_t i_block, void *out)
{
    const struct quant_info *q = quant_get(t->type);
    const uint8_t *panel = t->data + (size_t)(row / ROWS) * t->stride;
    if (is_float(t->type)) {
        memcpy(out, panel + (i_block * ROWS + (size_t)(row % ROWS)) * q->bytes, q->bytes);
        return;
    }
    const struct shape s = shape_of(t->type);
    unpack_block(t->type, &s, panel + i_block * q->bytes * ROWS, row % ROWS, out);
}

void pack_row_back(const struct tensor *t, int32_t row, void *out)
{
    const struct quant_info *q = quant_get(t->type);
    for (size_t i = 0; i < (size_t)t->n_col / q->block; i++) {
        pack_block_back(t, row, i, (uint8_t *)out + i * q->bytes);
    }
}

void pack_row_f32(const struct tensor *t, int32_t row, float *out, void *scratch)
{
    pack_row_back(t, row, scratch);
    quant_get(t->type)->decode(scratch, out, (size_t)t->n_col);
}
