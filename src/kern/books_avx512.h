/* books_avx512 - codebooks in registers, by AVX-512 VBMI (included by gemm_avx512.c)
 *
 * An entry of a codebook is 16 bits (12 for groups of 4), kept as two tables of bytes with the
 * codes of four weights each. vpermi2b looks up 64 indices at once in 128 bytes, so a plane of
 * indices takes two of them and a blend for each 256 entries and byte. A level with its sign is
 * then one look-up more: vpermb looks at six bits of a byte, and a byte of codes whose bits of
 * other weights are replaced by signs asks for two weights, by tables that differ in the bits they
 * heed.
 *
 *     index  (row, G)  ->  codes[index]  = codes of 4 of the 8 weights of group G     (vpermi2b)
 *     codes  (row, G), signs (row, G)  ->  two bytes with two codes and signs each    (vpternlogd)
 *     weight (row, G)  =   weights[bits 0..5] of weight t of group G, for each t      (vpermb)
 *
 * So a register holds weight t of four groups, not four neighbours, and activations are prepared in
 * the same order (`book_sort`). Where halves have sub-scales, a row's bytes change places first,
 * so that a register has columns of one half: of weight t of two groups and of their weight t + 4.
 * vgf2p8affineqb finds the eighth sign.
 *
 * Rejected: codes spread over four neighbours by vpmultishiftqb and signs by masks. Both share two
 * of four vector units with the dot products on Zen 4: 43 instead of 35 cycles for IQ2_XXS.
 * Gathers, two elements a cycle at best. Processors with AVX-512 VNNI but without VBMI and GFNI
 * (Cascade Lake) use the functions of gemm_avx2.c for these types. */
#ifndef HEARTH_BOOKS_AVX512_H
#define HEARTH_BOOKS_AVX512_H

#include "kern/gemm_book.h"

#define BOOK_TARGET __attribute__((target("avx512vbmi,gfni")))

/* Tables of a codebook. weights: of weight t of four, by six bits: its code and, at bit 4, 5, 0 or
 * 1, its sign. The codes of groups of 8 are 2 bits, in order, the third and fourth two places lower
 * by then; those of groups of 4 are 3 bits, the first two of each byte's (t, t + 2) below. */
struct book_tables {
    _Alignas(64) uint8_t codes[2][2048];
    uint8_t weights[4][64];
};

struct book {
    const struct book_tables *at;
    int bits;
    int how;
};

#define BOOK_BITS(name, bits, n, levels) BITS_##name = (bits),
enum { BOOKS(BOOK_BITS) };
#define BOOK_TABLES(name, bits, n, levels) static struct book_tables book_##name;
BOOKS(BOOK_TABLES)
#define BOOK(name, how) ((struct book){ &book_##name, BITS_##name, how })

/* The groups of activations that go with the bytes of a row, in either half of the registers, where
 * halves have sub-scales of their own (1) and where not. */
static const _Alignas(32) int32_t book_order[2][8] = { { 0, 2, 4, 6, 1, 3, 5, 7 },
                                                       { 0, 2, 1, 3, 4, 6, 5, 7 } };

static void book_fill(struct book_tables *b, const uint16_t *entry, int bits, int n,
                      uint64_t levels)
{
    static const uint8_t at8[4] = { 0, 2, 2, 4 };
    static const uint8_t at4[4] = { 0, 0, 3, 3 };
    static const uint8_t sign_at[4] = { 4, 5, 0, 1 };
    for (int i = 0; i < 1 << bits; i++) {
        const int e = entry[i];
        b->codes[0][i] = (uint8_t)(n == 8 ? e : (e & 7) | (e >> 6 & 7) << 3);
        b->codes[1][i] = (uint8_t)(n == 8 ? e >> 8 : (e >> 3 & 7) | (e >> 9 & 7) << 3);
    }
    for (int i = 0; i < 4 * 64; i++) {
        const int t = i / 64;
        const int code = n == 8 ? i >> at8[t] & 3 : i >> at4[t] & 7;
        const int level = levels >> 8 * code & 255;
        const bool is_minus = i >> sign_at[t] & 1;
        b->weights[t][i % 64] = (uint8_t)(levels == LEVELS_IQ1 ? level - 2 * is_minus
                                                               : 128 + (is_minus ? -level : level));
    }
}

static void books_fill(void){
#define BOOK_FILL(name, bits, n, levels)                                                           \
    book_fill(&book_##name, quant_grid_##name, bits, n, levels);
    BOOKS(BOOK_FILL)
}

/* codes[i] of 64 indices: bits 0..7 in i, the others at `high`. */
INLINE BOOK_TARGET __m512i codes_of(struct book b, int half, __m512i i, const uint8_t *high)
{
    const uint8_t *table = b.at->codes[half];
    const int bits = b.bits;
    const bool is_free = (b.how & BOOK_FREE) != 0;
    __m512i x[16];
    int n = 1 << (bits - 7);
    UNROLL for (int k = 0; k < n; k++)
    {
        x[k] = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128 * k), i,
                                        _mm512_load_si512(table + 128 * k + 64));
    }
    UNROLL for (int bit = 7; bit < bits; bit++)
    {
        const __mmask64 m =
            bit == 7  ? _mm512_movepi8_mask(i)
            : is_free ? _mm512_test_epi8_mask(_mm512_loadu_si512(high), _mm512_set1_epi8(8))
                      : u64_at(high + 8 * (bit - 8));
        n /= 2;
        UNROLL for (int k = 0; k < n; k++)
        {
            x[k] = _mm512_mask_blend_epi8(m, x[2 * k], x[2 * k + 1]);
        }
    }
    return x[0];
}

/* Signs of four of the eight weights of each group: bits 4, 5, 0 and 1 of its byte. */
struct signs {
    __m512i of[2];
};

INLINE BOOK_TARGET struct signs signs8(const uint8_t *p, int s)
{
    (void)s;
    const __m512i x = _mm512_loadu_si512(p);
    return (struct signs){ { x, _mm512_srli_epi16(x, 2) } };
}

/* The other four signs by a product of bits: byte 7 - i of the matrix says which bits of a byte are
 * added to bit i; the last one is the parity of all but the free bit. */
INLINE BOOK_TARGET struct signs signs7(const uint8_t *p, int s)
{
    (void)s;
    const __m512i x = _mm512_loadu_si512(p);
    const __m512i matrix = _mm512_set1_epi64(0x04F7000040800000);
    return (struct signs){ { x, _mm512_gf2p8affine_epi64_epi8(x, matrix, 0) } };
}

INLINE struct signs deltas(uint64_t mask, int s)
{
    (void)s;
    const __m512i x = _mm512_movm_epi8(mask);
    return (struct signs){ { x, x } };
}

/* Bits of x where the mask has ones, else those of y. */
INLINE __m512i mix(int8_t mask, __m512i x, __m512i y)
{
    return _mm512_ternarylogic_epi32(y, x, _mm512_set1_epi8(mask), 0xD8);
}

INLINE BOOK_TARGET __m512i weights_of(struct book b, int t, __m512i x)
{
    return _mm512_permutexvar_epi8(x, _mm512_load_si512(b.at->weights[t]));
}

/* Four weights of each group from a byte of codes. */
INLINE BOOK_TARGET void quarter8(struct book b, __m512i codes, __m512i signs, __m512i *w)
{
    const __m512i low = mix(0x30, signs, codes);
    const __m512i up = mix(0x03, signs, _mm512_srli_epi16(codes, 2));
    w[0] = weights_of(b, 0, low);
    w[1] = weights_of(b, 1, low);
    w[2] = weights_of(b, 2, up);
    w[3] = weights_of(b, 3, up);
}

/* Of the rows' words of x and y the even ones, or the odd ones. */
INLINE __m512i words(__m512i x, __m512i y, int is_odd)
{
    return _mm512_mask_blend_epi16(0xAAAAAAAA, is_odd ? _mm512_srli_epi32(x, 16) : x,
                                   is_odd ? y : _mm512_slli_epi32(y, 16));
}

INLINE BOOK_TARGET void groups8(struct book b, const uint8_t *p, const uint8_t *high,
                                struct signs signs, int s, struct unit *u)
{
    (void)s;
    const __m512i i = _mm512_loadu_si512(p);
    const __m512i low = codes_of(b, 0, i, high);
    const __m512i up = codes_of(b, 1, i, high);
    const __m512i *of = signs.of;
    if (b.how & BOOK_HALVED) {
        quarter8(b, words(low, up, 0), words(of[0], of[1], 0), u->w);
        quarter8(b, words(low, up, 1), words(of[0], of[1], 1), u->w + 4);
    } else {
        quarter8(b, low, of[0], u->w);
        quarter8(b, up, of[1], u->w + 4);
    }
}

/* The two bytes of an entry have the codes of its weights 0 and 2, and 1 and 3. */
INLINE BOOK_TARGET void groups4(struct book b, const uint8_t *p, const uint8_t *high,
                                struct signs signs, int s, struct unit *u)
{
    (void)s;
    UNROLL for (int k = 0; k < 2; k++)
    {
        const __m512i i = _mm512_loadu_si512(p + 64 * k);
        const __m512i even = codes_of(b, 0, i, high + 8 * k);
        const __m512i odd = codes_of(b, 1, i, high + 8 * k);
        u->w[4 * k] = weights_of(b, 0, mix(0x38, signs.of[k], even));
        u->w[4 * k + 1] = weights_of(b, 1, mix(0x38, signs.of[k], odd));
        u->w[4 * k + 2] = weights_of(b, 2, mix(0x07, signs.of[k], even));
        u->w[4 * k + 3] = weights_of(b, 3, mix(0x07, signs.of[k], odd));
    }
}

/* 2 n + 1 of 4-bit numbers, that of row r at bit 4 r: taken from one bit lower. */
INLINE BOOK_TARGET rows r_odds(uint64_t four, int s)
{
    (void)s;
    const __m512i at =
        _mm512_set_epi32(59, 55, 51, 47, 43, 39, 35, 31, 27, 23, 19, 15, 11, 7, 3, 63);
    const __m512i n = _mm512_multishift_epi64_epi8(at, _mm512_set1_epi64((int64_t)four));
    return _mm512_cvtepi32_ps(
        _mm512_ternarylogic_epi32(n, _mm512_set1_epi32(0x1E), _mm512_set1_epi32(1), 0xEA));
}

/* The sum of the free bits, 8 each, by a dot product. */
INLINE BOOK_TARGET rows r_free4(const uint8_t *p, int s)
{
    (void)s;
    const __m512i eight = _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(8));
    return _mm512_cvtepi32_ps(
        _mm512_dpbusd_epi32(_mm512_set1_epi32(4), eight, _mm512_set1_epi32(0x08040201)));
}

/* A unit's integers in the order of the weights: dword t of a half gets weight t of four groups. */
INLINE void book_sort(bool is_halved, int8_t q[UNIT])
{
    const __m256i turn = _mm256_broadcastsi128_si256(
        _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0));
    const __m256i at = _mm256_load_si256((const void *)book_order[is_halved]);
    const __m256i x = _mm256_permutexvar_epi32(at, _mm256_loadu_si256((const void *)q));
    _mm256_storeu_si256((void *)q, _mm256_shuffle_epi8(x, turn));
}

#endif
