/* test_quant - element types: decoding, unit form, half precision, sizes
 *
 * What a type's bytes mean is checked against hashes of what the reference decoder in the PyPI
 * package gguf makes of the same random blocks (quant_golden.h, written by
 * tests/tools/mk_quant_golden.py), bit for bit. The unit form, which the kernels multiply, is then
 * checked against decoding, and its sums against the bounds that make them exact in float32. The
 * structs below restate the layouts of ggml. */
#include "num/quant.h"

#include <assert.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct golden {
    enum quant_type type;
    int clear[2]; /* bytes of each block whose bit 6 is cleared, -1 = none */
    uint64_t hash;
};

#include "quant_golden.h"

#define N_GOLDEN   (sizeof golden / sizeof golden[0])
#define BYTES_MAX  512
#define VALUES_MAX 256

/* --- layouts, all in bytes, so that nothing depends on alignment --- */

struct block_q4_0 {
    uint8_t d[2], qs[16];
};
static_assert(sizeof(struct block_q4_0) == 18, "Q4_0");
struct block_q4_1 {
    uint8_t d[2], m[2], qs[16];
};
static_assert(sizeof(struct block_q4_1) == 20, "Q4_1");
struct block_q5_0 {
    uint8_t d[2], qh[4], qs[16];
};
static_assert(sizeof(struct block_q5_0) == 22, "Q5_0");
struct block_q5_1 {
    uint8_t d[2], m[2], qh[4], qs[16];
};
static_assert(sizeof(struct block_q5_1) == 24, "Q5_1");
struct block_q8_0 {
    uint8_t d[2], qs[32];
};
static_assert(sizeof(struct block_q8_0) == 34, "Q8_0");
struct block_q2_k {
    uint8_t scales[16], qs[64], d[2], dmin[2];
};
static_assert(sizeof(struct block_q2_k) == 84, "Q2_K");
struct block_q3_k {
    uint8_t hmask[32], qs[64], scales[12], d[2];
};
static_assert(sizeof(struct block_q3_k) == 110, "Q3_K");
struct block_q4_k {
    uint8_t d[2], dmin[2], scales[12], qs[128];
};
static_assert(sizeof(struct block_q4_k) == 144, "Q4_K");
struct block_q5_k {
    uint8_t d[2], dmin[2], scales[12], qh[32], qs[128];
};
static_assert(sizeof(struct block_q5_k) == 176, "Q5_K");
struct block_q6_k {
    uint8_t ql[128], qh[64], scales[16], d[2];
};
static_assert(sizeof(struct block_q6_k) == 210, "Q6_K");
struct block_iq2_xxs {
    uint8_t d[2], qs[64];
};
static_assert(sizeof(struct block_iq2_xxs) == 66, "IQ2_XXS");
struct block_iq2_xs {
    uint8_t d[2], qs[64], scales[8];
};
static_assert(sizeof(struct block_iq2_xs) == 74, "IQ2_XS");
struct block_iq2_s {
    uint8_t d[2], qs[32], signs[32], qh[8], scales[8];
};
static_assert(sizeof(struct block_iq2_s) == 82, "IQ2_S");
struct block_iq3_xxs {
    uint8_t d[2], qs[64], scales_and_signs[32];
};
static_assert(sizeof(struct block_iq3_xxs) == 98, "IQ3_XXS");
struct block_iq3_s {
    uint8_t d[2], qs[64], qh[8], signs[32], scales[4];
};
static_assert(sizeof(struct block_iq3_s) == 110, "IQ3_S");
struct block_iq1_s {
    uint8_t d[2], qs[32], qh[16];
};
static_assert(sizeof(struct block_iq1_s) == 50, "IQ1_S");
struct block_iq1_m {
    uint8_t qs[32], qh[16], scales[8];
};
static_assert(sizeof(struct block_iq1_m) == 56, "IQ1_M");
struct block_iq4_nl {
    uint8_t d[2], qs[16];
};
static_assert(sizeof(struct block_iq4_nl) == 18, "IQ4_NL");
struct block_iq4_xs {
    uint8_t d[2], scales_h[2], scales_l[4], qs[128];
};
static_assert(sizeof(struct block_iq4_xs) == 136, "IQ4_XS");
struct block_tq1_0 {
    uint8_t qs[48], qh[4], d[2];
};
static_assert(sizeof(struct block_tq1_0) == 54, "TQ1_0");
struct block_tq2_0 {
    uint8_t qs[64], d[2];
};
static_assert(sizeof(struct block_tq2_0) == 66, "TQ2_0");
struct block_mxfp4 {
    uint8_t e[1], qs[16];
};
static_assert(sizeof(struct block_mxfp4) == 17, "MXFP4");
struct block_nvfp4 {
    uint8_t d[4], qs[32];
};
static_assert(sizeof(struct block_nvfp4) == 36, "NVFP4");
struct block_q1_0 {
    uint8_t d[2], qs[16];
};
static_assert(sizeof(struct block_q1_0) == 18, "Q1_0");

static void sizes_of_blocks(void **state)
{
    (void)state;
    static const struct {
        enum quant_type type;
        const char *name;
        size_t elements, bytes;
    } expected[] = {
        { QUANT_Q4_0, "Q4_0", 32, sizeof(struct block_q4_0) },
        { QUANT_Q4_1, "Q4_1", 32, sizeof(struct block_q4_1) },
        { QUANT_Q5_0, "Q5_0", 32, sizeof(struct block_q5_0) },
        { QUANT_Q5_1, "Q5_1", 32, sizeof(struct block_q5_1) },
        { QUANT_Q8_0, "Q8_0", 32, sizeof(struct block_q8_0) },
        { QUANT_Q2_K, "Q2_K", 256, sizeof(struct block_q2_k) },
        { QUANT_Q3_K, "Q3_K", 256, sizeof(struct block_q3_k) },
        { QUANT_Q4_K, "Q4_K", 256, sizeof(struct block_q4_k) },
        { QUANT_Q5_K, "Q5_K", 256, sizeof(struct block_q5_k) },
        { QUANT_Q6_K, "Q6_K", 256, sizeof(struct block_q6_k) },
        { QUANT_IQ2_XXS, "IQ2_XXS", 256, sizeof(struct block_iq2_xxs) },
        { QUANT_IQ2_XS, "IQ2_XS", 256, sizeof(struct block_iq2_xs) },
        { QUANT_IQ2_S, "IQ2_S", 256, sizeof(struct block_iq2_s) },
        { QUANT_IQ3_XXS, "IQ3_XXS", 256, sizeof(struct block_iq3_xxs) },
        { QUANT_IQ3_S, "IQ3_S", 256, sizeof(struct block_iq3_s) },
        { QUANT_IQ1_S, "IQ1_S", 256, sizeof(struct block_iq1_s) },
        { QUANT_IQ1_M, "IQ1_M", 256, sizeof(struct block_iq1_m) },
        { QUANT_IQ4_NL, "IQ4_NL", 32, sizeof(struct block_iq4_nl) },
        { QUANT_IQ4_XS, "IQ4_XS", 256, sizeof(struct block_iq4_xs) },
        { QUANT_TQ1_0, "TQ1_0", 256, sizeof(struct block_tq1_0) },
        { QUANT_TQ2_0, "TQ2_0", 256, sizeof(struct block_tq2_0) },
        { QUANT_MXFP4, "MXFP4", 32, sizeof(struct block_mxfp4) },
        { QUANT_NVFP4, "NVFP4", 64, sizeof(struct block_nvfp4) },
        { QUANT_Q1_0, "Q1_0", 128, sizeof(struct block_q1_0) },
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const struct quant_info *q = quant_get(expected[i].type);
        assert_string_equal(q->name, expected[i].name);
        assert_int_equal(q->block, expected[i].elements);
        assert_int_equal(q->bytes, expected[i].bytes);
    }
}

/* --- random blocks --- */

static uint64_t word(uint64_t seed, uint64_t i)
{
    uint64_t z = (seed << 32) + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* n blocks; seed = type gives those of the golden file. */
static void random_blocks(const struct golden *g, uint64_t seed, int n, uint8_t *out)
{
    const size_t bytes = quant_get(g->type)->bytes;
    for (size_t i = 0; i < bytes * (size_t)n; i++) {
        out[i] = (uint8_t)(word(seed, i / 8) >> 8 * (i % 8));
    }
    for (int b = 0; b < n; b++) {
        for (int k = 0; k < 2; k++) {
            if (g->clear[k] >= 0) {
                out[(size_t)b * bytes + (size_t)g->clear[k]] &= 0xBF;
            }
        }
    }
}

static void decoding_equals_the_reference(void **state)
{
    (void)state;
    static uint8_t blocks[GOLDEN_BLOCKS * BYTES_MAX];
    static float values[GOLDEN_BLOCKS * VALUES_MAX];
    for (size_t i = 0; i < N_GOLDEN; i++) {
        const struct golden *g = &golden[i];
        const struct quant_info *q = quant_get(g->type);
        assert_true(q->bytes <= BYTES_MAX && q->block <= VALUES_MAX);
        random_blocks(g, g->type, GOLDEN_BLOCKS, blocks);
        const size_t n = (size_t)q->block * GOLDEN_BLOCKS;
        q->decode(blocks, values, n);
        uint64_t hash = 0xCBF29CE484222325u;
        for (size_t k = 0; k < n * sizeof values[0]; k++) {
            hash = (hash ^ ((const uint8_t *)values)[k]) * 0x100000001B3u;
        }
        if (hash != g->hash) {
            fail_msg("%s: decoded values differ from the reference", q->name);
        }
    }
}

static void types_are_complete(void **state)
{
    (void)state;
    size_t n = 0;
    for (uint32_t t = 0; t < QUANT_TYPE_COUNT; t++) {
        n += quant_get(t)->decode != NULL;
    }
    assert_int_equal(n, N_GOLDEN);
    for (size_t i = 0; i < N_GOLDEN; i++) {
        const bool is_float = quant_get(golden[i].type)->block == 1;
        assert_int_equal(quant_get(golden[i].type)->unit == NULL, is_float);
    }
}

/* --- the unit form --- */

static void check_unit(const char *name, const struct quant_unit *u, const float *values)
{
    for (int k = 0; k < 32; k++) {
        const int h = k / 16;
        const double scaled = (double)u->d[h] * u->sub[h] * u->q[k];
        const double offset = -(double)u->dmin * u->min[h] + (double)u->m;
        const double size = fabs(scaled) + fabs((double)u->dmin * u->min[h]) + fabs((double)u->m);
        if (!(fabs(scaled + offset - (double)values[k]) <= 1e-6 * size + 1e-45)) {
            fail_msg("%s: weight %d is %g, its unit says %g", name, k, (double)values[k],
                     scaled + offset);
        }
    }
}

/* The sums that must be exact in float32, at worst over all activations in [-127, 127]. */
static void check_bounds(const char *name, const struct quant_unit *u)
{
    int64_t sum = 0;
    int64_t min = 0;
    for (int k = 0; k < 32; k++) {
        const int64_t v = (int64_t)u->sub[k / 16] * u->q[k];
        sum += 127 * (v < 0 ? -v : v);
        min += 127 * (int64_t)(u->min[k / 16] < 0 ? -u->min[k / 16] : u->min[k / 16]);
    }
    if (sum >= 1 << 24 || min >= 1 << 24) {
        fail_msg("%s: sums of %lld and %lld do not fit in 24 bits", name, (long long)sum,
                 (long long)min);
    }
}

static void units_equal_decoding(void **state)
{
    (void)state;
    uint8_t blocks[4 * BYTES_MAX];
    float values[4 * VALUES_MAX];
    for (size_t i = 0; i < N_GOLDEN; i++) {
        const struct quant_info *q = quant_get(golden[i].type);
        for (uint64_t seed = 1000; q->unit != NULL && seed < 1250; seed++) {
            random_blocks(&golden[i], seed, 4, blocks);
            if (golden[i].type == QUANT_MXFP4) {
                blocks[0] = blocks[17] = blocks[34] = blocks[51] = (uint8_t)(seed % 251);
            }
            q->decode(blocks, values, 4 * (size_t)q->block);
            for (size_t k = 0; k < 4 * (size_t)q->block / 32; k++) {
                struct quant_unit u;
                q->unit(blocks, k, &u);
                check_unit(q->name, &u, values + 32 * k);
                check_bounds(q->name, &u);
            }
        }
    }
}

/* The flags by which kernels skip work say what units really have. */
static void flags_tell_what_units_have(void **state)
{
    (void)state;
    uint8_t blocks[4 * BYTES_MAX];
    for (size_t i = 0; i < N_GOLDEN; i++) {
        const struct quant_info *q = quant_get(golden[i].type);
        bool has_m = false;
        bool has_min = false;
        bool is_halved = false;
        random_blocks(&golden[i], 7, 4, blocks);
        for (size_t k = 0; q->unit != NULL && k < 4 * (size_t)q->block / 32; k++) {
            struct quant_unit u;
            q->unit(blocks, k, &u);
            has_m = has_m || u.m != 0.0f;
            has_min = has_min || u.min[0] != 0 || u.min[1] != 0;
            is_halved = is_halved || u.d[0] != u.d[1];
        }
        assert_int_equal(q->has_m, has_m);
        assert_int_equal(q->has_min, has_min);
        assert_int_equal(q->is_halved, is_halved);
    }
}

/* All scales of the two types whose scale is a small float: powers of two, and E4M3 without sign.
 */
static void small_float_scales(void **state)
{
    (void)state;
    struct quant_unit u;
    for (int e = 0; e < 256; e++) {
        struct block_mxfp4 b = { .e = { (uint8_t)e } };
        quant_get(QUANT_MXFP4)->unit(&b, 0, &u);
        assert_true((double)u.d[0] == ldexp(1.0, e - 128)); /* half of 2^(e - 127) */
    }
    for (int x = 0; x < 256; x++) {
        const uint8_t code = (uint8_t)x;
        struct block_nvfp4 b = { .d = { code, 0, 0, code } };
        const int exp = x >> 3 & 15;
        const double man = x & 7;
        double want = exp == 0 ? ldexp(man, -10) : ldexp(1.0 + man / 8.0, exp - 8);
        want = x == 0x7F ? 0.0 : want;
        quant_get(QUANT_NVFP4)->unit(&b, 0, &u);
        assert_true((double)u.d[0] == want && u.d[1] == 0.0f);
        quant_get(QUANT_NVFP4)->unit(&b, 1, &u);
        assert_true((double)u.d[1] == want && u.d[0] == 0.0f);
    }
}

/* Every field at every extreme: blocks of one repeated byte, and of two that alternate by fields.
 */
static void sums_stay_exact_at_the_extremes(void **state)
{
    (void)state;
    static const uint8_t extreme[] = { 0x00, 0xFF, 0x7F, 0x80, 0x0F, 0xF0, 0x55, 0xAA };
    const size_t n = sizeof extreme;
    uint8_t block[BYTES_MAX];
    for (size_t i = 0; i < N_GOLDEN; i++) {
        const struct quant_info *q = quant_get(golden[i].type);
        for (size_t c = 0; q->unit != NULL && c < n * n * q->bytes; c++) {
            const size_t border = c / (n * n);
            memset(block, extreme[c % n], border);
            memset(block + border, extreme[c / n % n], q->bytes - border);
            for (size_t k = 0; k < q->block / 32u; k++) {
                struct quant_unit u;
                q->unit(block, k, &u);
                check_bounds(q->name, &u);
            }
        }
    }
}

/* Largest sums reach what quant.c's essay says. */
static void largest_sums_are_as_documented(void **state)
{
    (void)state;
    struct quant_unit u;
    struct block_q6_k q6 = { .d = { 0 } };
    memset(q6.scales, 0x80, sizeof q6.scales); /* -128 */
    quant_get(QUANT_Q6_K)->unit(&q6, 0, &u);
    assert_int_equal(127 * 32 * u.sub[0] * u.q[0], 16646144);
    struct block_iq4_xs iq4 = { .d = { 0 } };
    quant_get(QUANT_IQ4_XS)->unit(&iq4, 0, &u);
    assert_int_equal(127 * 32 * u.sub[0] * u.q[0], -516128);
}

/* --- half precision --- */

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static void half_to_float_is_exact(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const int exp = (int)(h >> 10 & 31);
        const uint32_t man = h & 1023;
        const float f = quant_f16_to_f32((uint16_t)h);
        assert_int_equal(to_bits(f) >> 31, h >> 15);
        if (exp == 31) {
            assert_int_equal(isnan(f) != 0, man != 0);
            assert_int_equal(isinf(f) != 0, man == 0);
            /* a NaN comes out quiet with its payload */
            assert_int_equal(man == 0 || (to_bits(f) >> 13 & 1023) == (man | 512), 1);
        } else {
            const double value =
                exp == 0 ? ldexp((double)man, -24) : ldexp((double)(1024 + man), exp - 25);
            assert_true((double)fabsf(f) == value);
        }
    }
}

static void float_to_half_is_the_inverse(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const bool is_nan = (h >> 10 & 31) == 31 && (h & 1023) != 0;
        const uint32_t want = is_nan ? h | 512 : h;
        assert_int_equal(quant_f32_to_f16(quant_f16_to_f32((uint16_t)h)), want);
    }
    /* payload bits that do not fit must not turn a NaN into an infinity */
    assert_int_equal(quant_f32_to_f16(from_bits(0x7F800001)), 0x7E00);
    assert_int_equal(quant_f32_to_f16(from_bits(0xFFC00001)), 0xFE00);
}

/* Rounding is monotonic, so it is right everywhere if it is right around each midpoint between two
 * neighbours: the midpoint itself goes to the even one, the floats next to it to the nearer one. */
static void float_to_half_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7C00; h++) {
        const double low = (double)quant_f16_to_f32((uint16_t)h);
        const double high = h == 0x7BFF ? 65536.0 : (double)quant_f16_to_f32((uint16_t)(h + 1));
        const float middle = (float)(0.5 * (low + high));
        assert_true((double)middle == 0.5 * (low + high));
        for (uint32_t sign = 0; sign < 2; sign++) {
            const uint32_t bits = to_bits(middle) | sign << 31;
            const uint32_t s = sign << 15;
            assert_int_equal(quant_f32_to_f16(from_bits(bits)), s | (h + (h & 1)));
            assert_int_equal(quant_f32_to_f16(from_bits(bits - 1)), s | h);
            assert_int_equal(quant_f32_to_f16(from_bits(bits + 1)), s | (h + 1));
        }
    }
    assert_int_equal(quant_f32_to_f16(from_bits(1)), 0); /* the smallest subnormal float */
    assert_int_equal(quant_f32_to_f16(3e38f), 0x7C00);
    assert_int_equal(quant_f32_to_f16(-INFINITY), 0xFC00);
}

static void bfloat_is_the_upper_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        assert_int_equal(to_bits(quant_bf16_to_f32((uint16_t)h)), h << 16);
    }
}

/* --- names and sizes --- */

static void names_parse_without_case(void **state)
{
    (void)state;
    enum quant_type t = QUANT_F32;
    assert_true(quant_parse("q4_k", &t));
    assert_int_equal(t, QUANT_Q4_K);
    assert_true(quant_parse("Iq2_XxS", &t));
    assert_int_equal(t, QUANT_IQ2_XXS);
    static const char *const wrong[] = { "", "Q4", "Q4_K_M", "Q4_K ", " F16", "F", "Q9_0" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(quant_parse(wrong[i], &t));
        assert_int_equal(t, QUANT_IQ2_XXS);
    }
    for (uint32_t i = 0; i < QUANT_TYPE_COUNT; i++) {
        if (quant_get(i)->name != NULL) {
            assert_true(quant_parse(quant_get(i)->name, &t));
            assert_int_equal(t, i);
        }
    }
}

static void sizes_are_checked(void **state)
{
    (void)state;
    size_t bytes = 77;
    assert_true(quant_bytes(QUANT_Q4_K, 0, &bytes));
    assert_int_equal(bytes, 0);
    assert_true(quant_bytes(QUANT_Q4_K, 512, &bytes));
    assert_int_equal(bytes, 288);
    bytes = 77;
    assert_false(quant_bytes(QUANT_Q4_K, 255, &bytes));
    assert_false(quant_bytes(QUANT_Q4_K, 257, &bytes));
    assert_false(quant_bytes(9999, 256, &bytes));
    assert_false(quant_bytes(UINT32_MAX, 0, &bytes));
    assert_false(quant_bytes(QUANT_TYPE_COUNT, 0, &bytes));
    assert_false(quant_bytes(4, 32, &bytes)); /* a hole: retired ids stay unknown */
    for (uint32_t t = 0; t < QUANT_TYPE_COUNT; t++) {
        const struct quant_info *q = quant_get(t);
        if (q->block == 0) {
            continue;
        }
        /* blocks whose bytes just fit into size_t and into the 64 bits of n, and one more */
        const uint64_t most_bytes = SIZE_MAX / q->bytes;
        const uint64_t most_elements = UINT64_MAX / q->block;
        const uint64_t most = most_bytes < most_elements ? most_bytes : most_elements;
        assert_true(quant_bytes(t, most * q->block, &bytes));
        assert_true(bytes == (size_t)most * q->bytes);
        bytes = 77;
        if (most < most_elements) {
            assert_false(quant_bytes(t, (most + 1) * q->block, &bytes));
        }
        if (q->bytes > q->block) {
            assert_false(quant_bytes(t, UINT64_MAX / q->block * q->block, &bytes));
        }
        assert_int_equal(bytes, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_of_blocks),
        cmocka_unit_test(types_are_complete),
        cmocka_unit_test(decoding_equals_the_reference),
        cmocka_unit_test(units_equal_decoding),
        cmocka_unit_test(flags_tell_what_units_have),
        cmocka_unit_test(small_float_scales),
        cmocka_unit_test(sums_stay_exact_at_the_extremes),
        cmocka_unit_test(largest_sums_are_as_documented),
        cmocka_unit_test(half_to_float_is_exact),
        cmocka_unit_test(float_to_half_is_the_inverse),
        cmocka_unit_test(float_to_half_rounds_to_nearest_even),
        cmocka_unit_test(bfloat_is_the_upper_half),
        cmocka_unit_test(names_parse_without_case),
        cmocka_unit_test(sizes_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
