/* test_pack - panels: their sizes, the way back, and the planes that kernels count on
 *
 * Packing moves bits and keeps all of them (PA-1), whatever they are: fields without meaning, such
 * as an index that no file has, must come back too. The plain C products read panels through the
 * way back (pack_block_back), so what the bits mean is checked by test_kern. Next: num/pack.h. */
#include "num/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_ROW 37 /* two panels and a part of one */
#define N_COL 768

static uint64_t word(uint64_t seed, uint64_t i)
{
    uint64_t z = (seed << 32) + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static size_t row_bytes(uint32_t type)
{
    size_t bytes = 0;
    assert_true(quant_bytes(type, N_COL, &bytes));
    return bytes;
}

/* The bytes of a panel, from rows back to back, into memory full of ones. */
static uint8_t *packed(struct tensor *t, uint32_t type, const uint8_t *rows)
{
    assert_true(pack_shape(type, N_ROW, N_COL, t));
    uint8_t *data = malloc(t->bytes);
    assert_non_null(data);
    memset(data, 0xFF, t->bytes);
    pack_rows(t, data, 16, rows + 16 * row_bytes(type), N_ROW - 16);
    pack_rows(t, data, 0, rows, 16);
    t->data = data;
    return data;
}

static void every_bit_comes_back(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < QUANT_TYPE_COUNT; type++) {
        const struct quant_info *q = quant_get(type);
        if (q->decode == NULL) {
            continue;
        }
        struct tensor t;
        const size_t each = row_bytes(type);
        uint8_t *rows = malloc(each * N_ROW);
        uint8_t *back = malloc(each);
        assert_non_null(rows);
        assert_non_null(back);
        for (size_t i = 0; i < each * N_ROW; i++) {
            rows[i] = (uint8_t)word(type, i);
        }
        uint8_t *data = packed(&t, type, rows);
        for (int32_t r = 0; r < N_ROW; r++) {
            pack_row_back(&t, r, back);
            if (memcmp(back, rows + (size_t)r * each, each) != 0) {
                fail_msg("%s: row %d does not come back", q->name, r);
            }
        }
        free(data);
        free(rows);
        free(back);
    }
}

/* A panel has the bits of its rows and no others: as many ones, none lost, none twice. */
static void bits_are_kept_one_by_one(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < QUANT_TYPE_COUNT; type++) {
        const struct quant_info *q = quant_get(type);
        if (q->decode == NULL || q->block == 1) {
            continue;
        }
        struct tensor t;
        const size_t each = row_bytes(type);
        uint8_t *rows = calloc(N_ROW, each);
        assert_non_null(rows);
        uint8_t *zero = packed(&t, type, rows);
        assert_int_equal(t.bytes, each * 48);
        for (size_t i = 0; i < 200; i++) {
            const size_t bit = word(type, i) % (8 * each * N_ROW);
            rows[bit / 8] = (uint8_t)(rows[bit / 8] ^ 1 << bit % 8);
            uint8_t *data = packed(&t, type, rows);
            int n = 0;
            for (size_t k = 0; k < t.bytes; k++) {
                n += __builtin_popcount(data[k] ^ zero[k]);
            }
            assert_int_equal(n, 1);
            free(data);
            rows[bit / 8] = 0;
        }
        free(zero);
        free(rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_comes_back),
        cmocka_unit_test(bits_are_kept_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
