/* gemm_avx512 - products with packed weights on AVX-512 VNNI
 *
 * The words of gemm_body.h with one register for all 16 rows of a panel. A product is vpdpbusd: in
 * each of 16 lanes, four products of an unsigned with a signed byte are added to 32 bits. Nothing
 * saturates on the way, so codes of all widths are treated alike. The signed operand is four
 * activations broadcast straight from memory, which gemm_act.h lays out for it:
 *
 *     lane (row)   0               1               ...  15
 *     codes        w0 w1 w2 w3     w0 w1 w2 w3          w0 w1 w2 w3     4 columns of 16 rows
 *     activations  a0 a1 a2 a3     a0 a1 a2 a3          a0 a1 a2 a3     4 columns of a token
 *     sum          += w0 a0 + w1 a1 + w2 a2 + w3 a3, per lane
 *
 * Taking the activations from memory leaves, of 32 registers, eight for a unit's codes and 16 for
 * the sums of the tile's tokens, and the rest for scales. With many tokens (gemm_pair.h) 16 hold
 * the codes of two panels instead: activations are loaded to a register, for both, and sums wait in
 * memory.
 *
 * One instruction per inline asm: gcc 12 spills the accumulators of the plain intrinsic to the
 * stack, which costs half the speed (measured on Zen 5, 2026-11).
 *
 * Sources: num/quant.c for the formats, num/pack.c for the layout; Intel 64 and IA-32 Software
 * Developer's Manual, volume 2, for the instructions. Speed: docs/SPEED.md, Kernels.
 *
 * Next: gemm_neon.c. */
#define LANES_AVX512
#include "kern/gemm_act.h"

#define UNROLL      _Pragma("GCC unroll 32")
#define ROWS        LANES
#define TOGETHER    16 /* tokens whose sums stay in registers */
#define BYTE_OFFSET 128.0f
#define FOLD_OFFSET 124 /* of folded codes */
#define PANELS      KERN_PANELS

typedef __m512 rows;
typedef __m512i isums;

/* A unit of 16 rows in registers. */
struct unit {
    __m512i w[8]; /* codes: group g, byte 4 * row + t */
    rows d[2];    /* scales of the halves (equal but for NVFP4) */
    rows sub[2];  /* integer sub-scales */
    rows min[2];  /* integer minima */
    rows dmin;
    rows m;
};

INLINE rows r_set(float a)
{
    return _mm512_set1_ps(a);
}

/* One float in all lanes, loaded as an integer: Zen 5 makes two vector loads a cycle, which the
 * activations use up. asm, since the compiler would broadcast from memory. */
INLINE rows r_broadcast(const float *p)
{
    int32_t bits;
    __m512i x;
    memcpy(&bits, p, sizeof bits);
    __asm__("vpbroadcastd %1, %0" : "=v"(x) : "r"(bits));
    return _mm512_castsi512_ps(x);
}

INLINE rows r_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

INLINE void r_store(float *p, rows x)
{
    _mm512_storeu_ps(p, x);
}

INLINE rows r_add(rows x, rows y)
{
    return _mm512_add_ps(x, y);
}

INLINE rows r_mul(rows x, rows y)
{
    return _mm512_mul_ps(x, y);
}

INLINE rows r_fma(rows x, rows y, rows z)
{
    return _mm512_fmadd_ps(x, y, z);
}

INLINE rows r_fnma(rows x, rows y, rows z)
{
    return _mm512_fnmadd_ps(x, y, z);
}

INLINE rows r_halfs(const uint8_t *p, int s)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p + 2 * ROWS * s)));
}

INLINE rows r_bfloats(const uint8_t *p, int s)
{
    const __m256i h = _mm256_loadu_si256((const void *)(p + 2 * ROWS * s));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* 16 bytes, one a row. */
INLINE __m128i load16(const uint8_t *p, int s)
{
    return _mm_loadu_si128((const void *)(p + ROWS * s));
}

INLINE rows r_nibbles(const uint8_t *p, int s, int shift)
{
    const __m128i b = _mm_and_si128(_mm_srli_epi16(load16(p, s), shift), _mm_set1_epi8(15));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b));
}

INLINE rows r_signed(const uint8_t *p, int s)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(p, s)));
}

/* The float's own bits: exponents from 1 on, and two subnormals; see quant_iq.c. */
INLINE rows r_power2(const uint8_t *p, int s)
{
    const __m512i e = _mm512_cvtepu8_epi32(load16(p, s));
    const __mmask16 is_small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    return _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_small, normal, small));
}

/* As half precision the same bits have another bias, so 2^7 and the halving. */
INLINE rows r_e4m3(const uint8_t *p, int s)
{
    const __m256i b = _mm256_cvtepu8_epi16(load16(p, s));
    const __m256i is_nan = _mm256_cmpeq_epi16(b, _mm256_set1_epi16(0x7F));
    const __m256i half = _mm256_slli_epi16(_mm256_and_si256(b, _mm256_set1_epi16(0x7F)), 7);
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_andnot_si256(is_nan, half)),
                         _mm512_set1_ps(0x1p7f));
}

/* Nibbles and rests are picked out by a shift of its own in each lane; see pack.c for the
 * layout. */
INLINE __m512i sixes(const uint8_t *p, int n, int i)
{
    int32_t high;
    memcpy(&high, p + n / 2 + i / 4, sizeof high);
    const __m128i low = _mm_loadl_epi64((const void *)(p + i / 2));
    const __m512i pick = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m512i by4 = _mm512_set_epi32(28, 24, 20, 16, 12, 8, 4, 0, 28, 24, 20, 16, 12, 8, 4, 0);
    const __m512i by2 = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i l =
        _mm512_srlv_epi32(_mm512_permutexvar_epi32(pick, _mm512_castsi128_si512(low)), by4);
    const __m512i h = _mm512_srlv_epi32(_mm512_set1_epi32(high), by2);
    const __m512i l4 = _mm512_and_si512(l, _mm512_set1_epi32(15));
    const __m512i h2 = _mm512_and_si512(h, _mm512_set1_epi32(3));
    return _mm512_or_si512(l4, _mm512_slli_epi32(h2, 4));
}

INLINE rows r_sixes(const uint8_t *p, int n, int i)
{
    return _mm512_cvtepi32_ps(sixes(p, n, i));
}

/* One load gives two groups: a shift by 4 in 16-bit lanes moves neighbours' bits in, the mask takes
 * them off again. There is no shift of bytes. */
INLINE void nibbles(const uint8_t *p, int s, __m512i *w)
{
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL for (int j = 0; j < 4; j++)
    {
        const __m512i v = _mm512_loadu_si512(p + 64 * j + 4 * ROWS * s);
        w[2 * j] = _mm512_and_si512(v, low);
        w[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    }
}

INLINE void twos(const uint8_t *p, int s, __m512i *w)
{
    const __m512i low = _mm512_set1_epi8(3);
    UNROLL for (int g = 0; g < 8; g++)
    {
        const __m512i v = _mm512_loadu_si512(p + g / 4 * 64 + 4 * ROWS * s);
        w[g] = _mm512_and_si512(_mm512_srli_epi16(v, 2 * (g % 4)), low);
    }
}

INLINE void high_twos(const uint8_t *p, int s, __m512i *w)
{
    __m512i high[8];
    twos(p, s, high);
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = _mm512_or_si512(w[g], _mm512_slli_epi16(high[g], 4));
    }
}

INLINE void bytes(const uint8_t *p, int s, __m512i *w)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = _mm512_loadu_si512(p + 64 * g + 4 * ROWS * s);
    }
}

/* A plane of single bits is a mask register as it lies. */
INLINE void add_bits(const uint8_t *p, int s, __m512i *w, char value)
{
    const __m512i v = _mm512_set1_epi8(value);
    UNROLL for (int g = 0; g < 8; g++)
    {
        uint64_t m;
        memcpy(&m, p + 8 * g + ROWS / 2 * s, sizeof m);
        w[g] = _mm512_mask_add_epi8(w[g], m, w[g], v);
    }
}

INLINE __m512i none(void)
{
    return _mm512_setzero_si512();
}

/* Odd and even bytes apart, since there is no product of bytes: (x * power % 256) * 3 / 256. */
INLINE __m512i trits(const uint8_t *p, int power, int s)
{
    const __m512i x = _mm512_loadu_si512(p + 4 * ROWS * s);
    const __m512i three = _mm512_set1_epi16(3);
    const __m512i low = _mm512_mullo_epi16(x, _mm512_set1_epi16((short)(power << 8)));
    const __m512i up = _mm512_mullo_epi16(_mm512_and_si512(x, _mm512_set1_epi16((short)0xFF00)),
                                          _mm512_set1_epi16((short)power));
    return _mm512_or_si512(_mm512_mulhi_epu16(low, three),
                           _mm512_slli_epi16(_mm512_mulhi_epu16(up, three), 8));
}

/* Each 128-bit part looks up in its own copy of the table; codes below 16 keep bit 7 clear, which
 * would ask for a zero. */
INLINE void look_up(__m512i *w, const int8_t table[16], char offset)
{
    const __m128i t = _mm_add_epi8(_mm_loadu_si128((const void *)table), _mm_set1_epi8(offset));
    const __m512i all = _mm512_broadcast_i32x4(t);
    UNROLL for (int g = 0; g < 8; g++)
    {
        w[g] = _mm512_shuffle_epi8(all, w[g]);
    }
}

#include "kern/books_avx512.h"

#include "kern/act_avx512.h"

INLINE void ready(struct unit *u, int max)
{
    (void)u; /* any codes of 8 bits will do */
    (void)max;
}

INLINE void dot(__m512i *acc, __m512i w, const void *a)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*acc) : "v"(w), "m"(*(const int32_t *)a));
}

INLINE isums i_set(int32_t a)
{
    return _mm512_set1_epi32(a);
}

INLINE rows i_float(isums x)
{
    return _mm512_cvtepi32_ps(x);
}

INLINE void add_dot(isums *sum, const struct unit *u, int max, int g, const int8_t *a)
{
    (void)max;
    dot(sum, u->w[g], a);
}

/* x * power / 8. */
INLINE __m512i eighths(__m512i x, int power)
{
    const int shift = __builtin_ctz((unsigned)power) - 3;
    return shift >= 0 ? _mm512_slli_epi32(x, (unsigned)shift)
                      : _mm512_srai_epi32(x, (unsigned)-shift);
}

/* x * offset / 8; offset: a power of two, or that of folded codes. */
INLINE __m512i times_eighths(__m512i x, int offset)
{
    return offset == FOLD_OFFSET ? _mm512_sub_epi32(eighths(x, 128), eighths(x, 4))
                                 : eighths(x, offset);
}

/* Where integer sums start. */
INLINE __m512i sum_start(const int32_t *n8, int offset)
{
    return offset != 0 ? times_eighths(_mm512_set1_epi32(*n8), offset) : none();
}

/* Two chains for a whole unit, since eight products in a row wait for each other longer than the
 * processor looks ahead (Zen 5). */
INLINE rows dots(const struct unit *u, int max, const uint8_t *q, int tile, int t, int g0, int g1,
                 const int32_t *n8, int offset)
{
    (void)max;
    __m512i s[2] = { sum_start(n8, offset), none() };
    UNROLL for (int g = g0; g < g1; g++)
    {
        dot(&s[g1 - g0 == 8 ? g % 2 : 0], u->w[g], q + (g * tile + t) * 4);
    }
    return _mm512_cvtepi32_ps(_mm512_add_epi32(s[0], s[1]));
}

/* The same for two units; activations are loaded once for both. */
INLINE void pair_dots(const struct unit *u, const uint8_t *q, int tile, int t, int g0, int g1,
                      const int32_t *n8, int offset, rows *to)
{
    const __m512i start = sum_start(n8, offset);
    __m512i s[2][2] = { { start, none() }, { start, none() } };
    UNROLL for (int g = g0; g < g1; g++)
    {
        const __m512i a = l_four_bytes(q + (g * tile + t) * 4);
        UNROLL for (int i = 0; i < 2; i++)
        {
            __asm__("vpdpbusd %2, %1, %0"
                    : "+v"(s[i][g1 - g0 == 8 ? g % 2 : 0])
                    : "v"(u[i].w[g]), "v"(a));
        }
    }
    UNROLL for (int i = 0; i < 2; i++)
    {
        to[i] = _mm512_cvtepi32_ps(_mm512_add_epi32(s[i][0], s[i][1]));
    }
}

/* --- sub-scales in the codes ------------------------------------------------------------------ */

/* Codes times their half's sub-scale, plus FOLD_OFFSET where they have a sign, still fit 8 bits for
 * these types. With many tokens that spares each of them a second integer sum and the product with
 * its sub-scale. Two codes are multiplied at once: a 16-bit lane c0 + 256 c1 times sub is
 * c0 sub + 256 c1 sub, and where both end in 0..255, whatever passed between them on the way is
 * undone. */

/* The low halves of 32-bit lanes, twice. */
INLINE __m512i twice16(__m512i x)
{
    return _mm512_mask_blend_epi16(0xAAAAAAAA, x, _mm512_slli_epi32(x, 16));
}

INLINE void decode_q2_k_folded(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 64 + 160 * j;
    u->d[0] = r_halfs(b, s);
    u->dmin = r_halfs(b + 32, s);
    twos(p + 32, s, u->w);
    UNROLL for (int h = 0; h < 2; h++)
    {
        const __m128i four = _mm_and_si128(load16(p + 16 * h, s), _mm_set1_epi8(15));
        const __m512i sub = twice16(_mm512_cvtepu8_epi32(four));
        u->min[h] = r_nibbles(p + 16 * h, s, 4);
        UNROLL for (int g = 4 * h; g < 4 * h + 4; g++)
        {
            u->w[g] = _mm512_mullo_epi16(u->w[g], sub);
        }
    }
}

/* (code - 4) * sub is -124..128. */
INLINE void decode_q3_k_folded(const uint8_t *b, int j, int s, struct unit *u)
{
    const uint8_t *p = b + 32 + 216 * j;
    u->d[0] = r_halfs(b, s);
    twos(p + 88, s, u->w);
    add_bits(p + 24, s, u->w, 4);
    UNROLL for (int h = 0; h < 2; h++)
    {
        const __m512i six = sixes(p, 32, LANES * h + ROWS * s);
        const __m512i sub = _mm512_sub_epi16(twice16(six), _mm512_set1_epi16(32));
        const __m512i less = _mm512_mullo_epi16(sub, _mm512_set1_epi16(257 * 4));
        const __m512i add = _mm512_sub_epi16(_mm512_set1_epi16(257 * FOLD_OFFSET), less);
        UNROLL for (int g = 4 * h; g < 4 * h + 4; g++)
        {
            u->w[g] = _mm512_add_epi16(_mm512_mullo_epi16(u->w[g], sub), add);
        }
    }
}

#include "kern/gemm_body.h"

/* 16 independent sums, so that neither latency nor loads limit it. */
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
            __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(acc[i]) : "v"(w), "v"(a));
        }
    }
    UNROLL for (int i = 1; i < 16; i++)
    {
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    }
    *sink += (uint32_t)_mm512_reduce_add_epi32(acc[0]);
    return (uint64_t)n * 16 * 64 * 2;
}

static void matmul_without_vbmi(const struct tensor *w, struct kern_part part,
                                const struct kern_act *a, float *y, size_t ldy)
{
    (panel_is_book(w->type) ? gemm_avx2_matmul : panel_matmul)(w, part, a, y, ldy);
}

static void prepare_with_vbmi(const struct kern_act *a, const float *x, size_t ldx, int32_t tile0,
                              int32_t tile1)
{
    gemm_act_prepare_as((struct act_how){ 4, book_sort, act_whole }, a, x, ldx, tile0, tile1);
}

/* Whose codebook types take AVX2's products, which know no other order. */
static void prepare_without_vbmi(const struct kern_act *a, const float *x, size_t ldx,
                                 int32_t tile0, int32_t tile1)
{
    struct kern_act plain = *a;
    plain.kind = a->kind == KERN_ACT_F32 ? KERN_ACT_F32 : KERN_ACT_I8;
    gemm_act_prepare_as((struct act_how){ 4, NULL, act_whole }, &plain, x, ldx, tile0, tile1);
}

void gemm_avx512_fill(struct kern_table *t, bool has_vbmi)
{
    body_fill(t);
    t->act_prepare = has_vbmi ? prepare_with_vbmi : prepare_without_vbmi;
    t->matmul = has_vbmi ? panel_matmul : matmul_without_vbmi;
    t->peak_int8 = gemm_avx512_peak_int8;
}
