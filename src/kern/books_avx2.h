/* books_avx2 - codebooks by loads of whole groups (included by words_avx2.h)
 *
 * An entry is kept as the bytes of its levels, 8 or 4 of them, and each index costs one load: no
 * register holds a table of 256 entries. Two rows' entries meet in a register by a load of either
 * half; one shuffle of four rows' registers then gives the first halves of 8 rows, that is group 2
 * G, and another the second halves, 2 G + 1. Indices of more than 8 bits are put together for 32
 * groups at once and stored, to be read one by one.
 *
 * Levels come without signs; masks of signs become bytes of 1 and -1, which `ready` and `dots`
 * bring to the activation (gemm_avx2.c) or the level (gemm_avxvnni.c).
 *
 * Rejected: gathers, at 0.36 ns an entry of 4 bytes and 0.41 of 8 against 0.2 (Zen 4, 2026-11). */
#ifndef HEARTH_BOOKS_AVX2_H
#define HEARTH_BOOKS_AVX2_H

#include "kern/gemm_book.h"

struct book {
    const uint8_t *entry; /* 8 or 4 bytes each */
    int bits;
    int how;
    bool is_signed;
};

#define BOOK_TABLE(name, bits, n, levels) static _Alignas(64) uint8_t book_##name[1 << (bits)][n];
BOOKS(BOOK_TABLE)
#define BOOK_BITS(name, bits, n, levels)                                                           \
    BITS_##name = (bits), IS_SIGNED_##name = (levels) != LEVELS_IQ1,
enum { BOOKS(BOOK_BITS) };
#define BOOK(name, how) ((struct book){ book_##name[0], BITS_##name, how, IS_SIGNED_##name })

static void books_fill(void){
#define BOOK_FILL(name, bits, n, levels)                                                           \
    for (int i = 0; i < 1 << (bits); i++) {                                                        \
        book_expand(quant_grid_##name[i], n, levels, book_##name[i]);                              \
    }
    BOOKS(BOOK_FILL)
}

/* Indices of step s of a plane: 32 of them, as 16-bit numbers. */
INLINE
    void wide_indices(struct book b, const uint8_t *p, const uint8_t *high, int s, uint16_t to[32])
{
    const __m256i places = _mm256_set_epi16((short)0x8000, 0x4000, 0x2000, 0x1000, 0x800, 0x400,
                                            0x200, 0x100, 0x80, 0x40, 0x20, 0x10, 8, 4, 2, 1);
    UNROLL for (int h = 0; h < 2; h++)
    {
        const int at = 4 * ROWS * s + 16 * h;
        __m256i x = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(p + at)));
        if (b.how & BOOK_FREE) {
            const __m128i signs = _mm_loadu_si128((const void *)(high + at));
            const __m128i bit = _mm_and_si128(signs, _mm_set1_epi8(8));
            x = _mm256_or_si256(x, _mm256_slli_epi16(_mm256_cvtepu8_epi16(bit), 5));
        }
        const int bits = b.how & BOOK_FREE ? 8 : b.bits; /* the others in masks */
        UNROLL for (int bit = 8; bit < bits; bit++)
        {
            int16_t m;
            memcpy(&m, high + 8 * (bit - 8) + at / 8, sizeof m);
            const __m256i is_set =
                _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(m), places), places);
            x = _mm256_or_si256(x, _mm256_and_si256(is_set, _mm256_set1_epi16((short)(1 << bit))));
        }
        _mm256_storeu_si256((void *)(to + 16 * h), x);
    }
}

/* Entries of 8 bytes of two rows. */
INLINE __m128i two_rows(struct book b, size_t i, size_t j)
{
    const __m128i low = _mm_loadl_epi64((const void *)(b.entry + 8 * i));
    const __m128i both =
        _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(low), (const void *)(b.entry + 8 * j)));
    return both;
}

INLINE __m256i join(__m128i low, __m128i high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* Signs of 8 rows: byte 4 * row + G, a one for a minus; bits in the order of pack_iq.c. */
struct signs {
    __m256i at;
};

INLINE struct signs signs8(const uint8_t *p, int s)
{
    return (struct signs){ plane(p, s) };
}

/* The eighth is the parity of seven bits, by that of either half of a byte. */
INLINE struct signs signs7(const uint8_t *p, int s)
{
    const __m256i odd =
        _mm256_broadcastsi128_si256(_mm_set_epi8(0, 8, 8, 0, 8, 0, 0, 8, 8, 0, 0, 8, 0, 8, 8, 0));
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i x = _mm256_andnot_si256(_mm256_set1_epi8(8), plane(p, s));
    const __m256i up = _mm256_and_si256(_mm256_srli_epi16(x, 4), low);
    const __m256i parity = _mm256_xor_si256(_mm256_shuffle_epi8(odd, _mm256_and_si256(x, low)),
                                            _mm256_shuffle_epi8(odd, up));
    return (struct signs){ _mm256_or_si256(x, parity) };
}

INLINE struct signs deltas(uint64_t mask, int s)
{
    const uint32_t bits = (uint32_t)(mask >> 4 * ROWS * s);
    return (struct signs){ bits_to_bytes((const uint8_t *)&bits) };
}

/* Signs of group g: where they are set, levels become negative, or lose 2. */
INLINE void set_signs(struct book b, struct signs signs, struct unit *u)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        const __m256i four = _mm256_set_epi32(12, 8, 4, 0, 12, 8, 4, 0);
        const __m256i at = _mm256_add_epi8(_mm256_mullo_epi32(four, _mm256_set1_epi32(0x01010101)),
                                           _mm256_set1_epi8((char)(g / 2)));
        const __m256i bit = _mm256_set1_epi32(g % 2 == 0 ? 0x02012010 : 0x08048040);
        const __m256i own = _mm256_and_si256(_mm256_shuffle_epi8(signs.at, at), bit);
        const __m256i is_set = _mm256_cmpeq_epi8(own, bit);
        if (b.is_signed) {
            u->sign[g] = _mm256_or_si256(is_set, _mm256_set1_epi8(1));
        } else {
            u->w[g] = _mm256_add_epi8(u->w[g], _mm256_and_si256(is_set, _mm256_set1_epi8(-2)));
        }
    }
}

/* Four groups of 8 weights, indices at p. */
INLINE void groups8(struct book b, const uint8_t *p, const uint8_t *high, struct signs signs, int s,
                    struct unit *u)
{
    uint16_t wide[32];
    if (b.bits > 8) {
        wide_indices(b, p, high, s, wide);
    }
    p += 4 * ROWS * s;
    UNROLL for (int g = 0; g < 4; g++)
    {
        size_t i[ROWS];
        UNROLL for (int r = 0; r < ROWS; r++)
        {
            i[r] = b.bits > 8 ? wide[4 * r + g] : p[4 * r + g];
        }
        const __m256 x =
            _mm256_castsi256_ps(join(two_rows(b, i[0], i[1]), two_rows(b, i[4], i[5])));
        const __m256 y =
            _mm256_castsi256_ps(join(two_rows(b, i[2], i[3]), two_rows(b, i[6], i[7])));
        u->w[2 * g] = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88));
        u->w[2 * g + 1] = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xDD));
    }
    set_signs(b, signs, u);
}

/* Entries of 4 bytes of four rows. */
INLINE __m128i four_rows(struct book b, const size_t i[4])
{
    __m128i x[4];
    UNROLL for (int r = 0; r < 4; r++)
    {
        int32_t entry;
        memcpy(&entry, b.entry + 4 * i[r], sizeof entry);
        x[r] = _mm_cvtsi32_si128(entry);
    }
    return _mm_unpacklo_epi64(_mm_unpacklo_epi32(x[0], x[1]), _mm_unpacklo_epi32(x[2], x[3]));
}

/* Eight groups of 4 weights, indices in two planes at p: of even and of odd groups. */
INLINE void groups4(struct book b, const uint8_t *p, const uint8_t *high, struct signs signs, int s,
                    struct unit *u)
{
    uint16_t wide[2][32];
    if (b.bits > 8) {
        wide_indices(b, p, high, s, wide[0]);
        wide_indices(b, p + 64, high + 8, s, wide[1]);
    }
    p += 4 * ROWS * s;
    UNROLL for (int g = 0; g < 8; g++)
    {
        size_t i[ROWS];
        UNROLL for (int r = 0; r < ROWS; r++)
        {
            const int at = 4 * r + g / 2;
            i[r] = b.bits > 8 ? wide[g % 2][at] : p[64 * (g % 2) + at];
        }
        u->w[g] = join(four_rows(b, i), four_rows(b, i + 4));
    }
    set_signs(b, signs, u);
}

/* 2 n + 1 of 4-bit numbers, that of row r at bit 4 r. */
INLINE rows r_odds(uint64_t four, int s)
{
    const __m256i by4 = _mm256_set_epi32(28, 24, 20, 16, 12, 8, 4, 0);
    const __m256i all = _mm256_set1_epi32((int32_t)(four >> 4 * ROWS * s));
    const __m256i n = _mm256_and_si256(_mm256_srlv_epi32(all, by4), _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_or_si256(_mm256_add_epi32(n, n), _mm256_set1_epi32(1)));
}

/* 4 times that, of the free bits of a plane of signs. */
INLINE rows r_free4(const uint8_t *p, int s)
{
    const __m256i eight = _mm256_and_si256(plane(p, s), _mm256_set1_epi8(8));
    const __m256i n = _mm256_madd_epi16(_mm256_maddubs_epi16(eight, _mm256_set1_epi32(0x08040201)),
                                        _mm256_set1_epi16(1));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(n, _mm256_set1_epi32(4)));
}

/* The activations stay as they are. */
INLINE void book_sort(bool is_halved, int8_t q[UNIT])
{
    (void)is_halved;
    (void)q;
}

#endif
