/* test_kern_table - the sizes that plans and backends ask the kernels' table for
 *
 * How many tiles of activations stay in a core's cache, against the layout that kern/gemm_act.h
 * states. The order of a product's parts: each panel meets each tile once, however the line is cut
 * into chunks. */
#include "kern/kern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* What the panels of one tile of n_col columns read. */
static size_t read_bytes(enum kern_act_kind kind, int32_t n_col)
{
    const size_t per_col = kind == KERN_ACT_F32 ? sizeof(float) : 1;
    const size_t per_unit = kind == KERN_ACT_F32 ? 0 : 7 * sizeof(float);
    return KERN_TILE * ((size_t)n_col * per_col + (size_t)(n_col / 32) * per_unit);
}

static void test_at_once(void **state)
{
    (void)state;
    const size_t share = cpu_get()->l2_bytes / 2;
    for (int kind = 0; kind < KERN_ACT_COUNT; kind++) {
        int32_t last = INT32_MAX;
        for (int32_t n_col = 32; n_col <= 65536; n_col += 32) {
            const int32_t n = kern_act_tiles_at_once((enum kern_act_kind)kind, n_col);
            const size_t each = read_bytes((enum kern_act_kind)kind, n_col);
            assert_in_range(n, 1, last);
            assert_true(n == 1 || (size_t)n * each <= share);
            assert_true((size_t)(n + 1) * each > share);
            last = n;
        }
    }
    assert_true(kern_act_tiles_at_once(KERN_ACT_F32, 1) >= 1);
}

#define PANELS_MAX 90
#define TILES_MAX  40
#define FEW_TOKS   64

static int32_t lesser(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* The line in chunks of `grain` places. */
static void check_line(const struct kern_line *l, int32_t at_once, int32_t grain)
{
    uint8_t n_seen[PANELS_MAX][TILES_MAX] = { { 0 } };
    int32_t least = l->n_tile;
    int32_t most = 1;
    int32_t n_lone = 0;
    for (int32_t chunk = 0; chunk < l->n_place; chunk += grain) {
        int32_t from = chunk;
        struct kern_part p;
        while (kern_line_next(l, &from, lesser(chunk + grain, l->n_place), &p)) {
            assert_true(0 <= p.panel0 && p.panel0 < p.panel1 && p.panel1 <= l->n_panel);
            n_lone += (p.panel1 - p.panel0) % KERN_PANELS != 0 && p.panel1 < l->n_panel;
            assert_true(0 <= p.tile0 && p.tile0 < p.tile1 && p.tile1 <= l->n_tile);
            const int32_t n = p.tile1 - p.tile0;
            least = lesser(least, n);
            most = most > n ? most : n;
            for (int32_t i = p.panel0; i < p.panel1; i++) {
                for (int32_t t = p.tile0; t < p.tile1; t++) {
                    n_seen[i][t]++;
                }
            }
        }
        assert_true(from >= lesser(chunk + grain, l->n_place));
    }
    assert_true(n_lone == 0 || grain % KERN_PANELS != 0);
    if (l->n_tile <= FEW_TOKS / KERN_TILE) {
        assert_int_equal(least, l->n_tile); /* weights are read once */
    } else {
        const int32_t n_block = (l->n_tile + at_once - 1) / at_once;
        assert_int_equal(most, (l->n_tile + n_block - 1) / n_block);
        assert_int_equal(least, l->n_tile / n_block); /* no block is a rest */
    }
    for (int32_t i = 0; i < l->n_panel; i++) {
        for (int32_t t = 0; t < l->n_tile; t++) {
            assert_int_equal(n_seen[i][t], 1);
        }
    }
}

static void test_line(void **state)
{
    (void)state;
    const int32_t panels[] = { 1, 2, 3, 21, 36, PANELS_MAX };
    const int32_t toks[] = { 1, 16, 31, 32, 64, 65, 80, 130, 512, TILES_MAX * KERN_TILE };
    for (size_t i = 0; i < sizeof panels / sizeof panels[0]; i++) {
        for (size_t k = 0; k < sizeof toks / sizeof toks[0]; k++) {
            for (int32_t at_once = 1; at_once <= TILES_MAX + 1; at_once += 3) {
                for (int32_t n_worker = 1; n_worker <= 64; n_worker *= 4) {
                    const struct kern_line l = kern_line_of(panels[i], toks[k], at_once, n_worker);
                    assert_int_equal(l.n_panel, panels[i]);
                    assert_int_equal(l.n_tile, kern_act_tiles(toks[k]));
                    assert_true(toks[k] < 2 * KERN_TILE || l.grain % KERN_PANELS == 0);
                    check_line(&l, at_once, l.grain);
                    check_line(&l, at_once, l.n_place);
                    check_line(&l, at_once, 7);
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_at_once),
                                        cmocka_unit_test(test_line) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
