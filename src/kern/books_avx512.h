/* books_avx512 - codebooks in registers, by AVX-512 VBMI (included by gemm_avx512.c)
 *
 * An entry of a codebook is 16 bits (12 for groups of 4), kept as two tables of bytes. vpermi2b
 * looks up 64 indices at once in 128 bytes, so a plane of indices takes two of them and a blend for
 * each 256 entries and byte. Then, for each group of 4 columns, vpmultishiftqb brings each weight's
 * code to the bottom of a byte of its own, and vpermb turns it into its level: it looks at six
 * bits, so the neighbours' codes above it are covered by repeating the levels.
 *
 *     index  (row, G)  ->  low[index]   = codes of t = 0..3 of group g = 2 G      (vpermi2b)
 *                          high[index]  = ... of g = 2 G + 1
 *     codes  (row, t)  <-  bits 8 G + 2 t .. of the row's 32 bits                 (vpmultishiftqb)
 *     level  (row, t)  =   levels[codes & 63]                                     (vpermb)
 *
 * A sign turns the level, offset by 128, over: 128 + x becomes 0 - (128 + x), under a mask.
 *
 * Rejected: gathers, two elements a cycle at best; tables of levels for each place in a group (the
 * activations would have to be arranged for it, and it takes twice the look-ups). Processors with
 * AVX-512 VNNI but without VBMI (Cascade Lake) use the functions of gemm_avx2.c for these types. */
#ifndef HEARTH_BOOKS_AVX512_H
#define HEARTH_BOOKS_AVX512_H

#include "kern/gemm_book.h"

#define BOOK_TARGET __attribute__((target("avx512vbmi")))

struct book {
    const uint8_t *half[2]; /* low and high bytes of the entries */
    int bits;
    uint64_t levels;
};

#define BOOK_TABLE(name, bits, n, levels) static _Alignas(64) uint8_t book_##name[2][1 << (bits)];
BOOKS(BOOK_TABLE)
#define BOOK(name, bits, levels) ((struct book){ { book_##name[0], book_##name[1] }, bits, levels })

static void books_fill(void){
#define BOOK_FILL(name, bits, n, levels)                                                           \
    for (int i = 0; i < 1 << (bits); i++) {                                                        \
        book_##name[0][i] = (uint8_t)quant_grid_##name[i];                                         \
        book_##name[1][i] = (uint8_t)(quant_grid_##name[i] >> 8);                                  \
    }
    BOOKS(BOOK_FILL)
}

/* table[i] of 64 indices: bits 0..7 in i, the others in masks `high`. */
INLINE BOOK_TARGET __m512i
    look_up_bytes(const uint8_t *table, int bits, __m512i i, const uint8_t *high)
{
    __m512i x[16];
    int n = 1 << (bits - 7);
    UNROLL for (int k = 0; k < n; k++)
    {
        x[k] = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128 * k), i,
                                        _mm512_load_si512(table + 128 * k + 64));
    }
    UNROLL for (int bit = 7; bit < bits; bit++)
    {
        const __mmask64 m = bit == 7 ? _mm512_movepi8_mask(i) : u64_at(high + 8 * (bit - 8));
        n /= 2;
        UNROLL for (int k = 0; k < n; k++)
        {
            x[k] = _mm512_mask_blend_epi8(m, x[2 * k], x[2 * k + 1]);
        }
    }
    return x[0];
}

/* Codes of `width` bits: that of (row, t) at bit `at` + width * t of the row's 32 bits. */
INLINE BOOK_TARGET __m512i levels_at(__m512i codes, int at, int width, __m512i levels)
{
    const uint64_t row = (uint64_t)at * 0x01010101u + (uint64_t)width * 0x03020100u;
    const __m512i from = _mm512_set1_epi64((int64_t)(row | (row + 0x20202020u) << 32));
    return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(from, codes), levels);
}

/* Levels as `dots` wants them: with the offset of signed bytes where signs follow. */
INLINE BOOK_TARGET __m512i levels_of(struct book b, bool is_signed)
{
    return _mm512_set1_epi64((int64_t)(b.levels ^ (is_signed ? 0x8080808080808080u : 0)));
}

/* Four groups of 8 weights, indices at p. */
INLINE BOOK_TARGET void groups8(struct book b, const uint8_t *p, const uint8_t *high, int s,
                                bool is_signed, __m512i *w)
{
    (void)s;
    const __m512i i = _mm512_loadu_si512(p);
    const __m512i low = look_up_bytes(b.half[0], b.bits, i, high);
    const __m512i up = look_up_bytes(b.half[1], b.bits, i, high);
    const __m512i levels = levels_of(b, is_signed);
    UNROLL for (int g = 0; g < 4; g++)
    {
        w[2 * g] = levels_at(low, 8 * g, 2, levels);
        w[2 * g + 1] = levels_at(up, 8 * g, 2, levels);
    }
}

/* Eight groups of 4 weights: interleaved, the two bytes of an entry are its 12 bits, and those of
 * two groups a row's 32. */
INLINE BOOK_TARGET void groups4(struct book b, const uint8_t *p, const uint8_t *high, int s,
                                __m512i *w)
{
    (void)s;
    const __m512i levels = levels_of(b, true);
    UNROLL for (int h = 0; h < 2; h++)
    {
        const __m512i i = _mm512_loadu_si512(p + 64 * h);
        const __m512i low = look_up_bytes(b.half[0], b.bits, i, high + 8 * h);
        const __m512i up = look_up_bytes(b.half[1], b.bits, i, high + 8 * h);
        const __m512i first = _mm512_unpacklo_epi8(low, up);
        const __m512i second = _mm512_unpackhi_epi8(low, up);
        w[4 * h] = levels_at(first, 0, 3, levels);
        w[4 * h + 1] = levels_at(first, 16, 3, levels);
        w[4 * h + 2] = levels_at(second, 0, 3, levels);
        w[4 * h + 3] = levels_at(second, 16, 3, levels);
    }
}

/* Signs: mask[g], bit 4 * row + t. */
INLINE void set_signs(const uint64_t mask[8], int s, struct unit *u)
{
    (void)s;
    UNROLL for (int g = 0; g < 8; g++)
    {
        u->w[g] = _mm512_mask_sub_epi8(u->w[g], mask[g], _mm512_setzero_si512(), u->w[g]);
    }
}

/* 2 n + 1 of 4-bit numbers, that of row r at bit 4 r. */
INLINE BOOK_TARGET rows r_odds(uint64_t four, int s)
{
    (void)s;
    const __m512i at =
        _mm512_set_epi32(60, 56, 52, 48, 44, 40, 36, 32, 28, 24, 20, 16, 12, 8, 4, 0);
    const __m512i n = _mm512_multishift_epi64_epi8(at, _mm512_set1_epi64((int64_t)four));
    const __m512i low = _mm512_and_si512(n, _mm512_set1_epi32(15));
    const __m512i twice = _mm512_add_epi32(low, low);
    return _mm512_cvtepi32_ps(_mm512_or_si512(twice, _mm512_set1_epi32(1)));
}

#endif
