/* test_guess - where guesses come from, and that they are made where they pay and nowhere else (GU-2)
 *
 * The search is compared with a plain twin. Whole answers are made on a box whose steps have known
 * costs, with noise and with busy minutes, on a clock of its own. Includes the .c for its hash and its
 * limits. */
#include "engine/guess.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define N_MAX 3000

static uint64_t seed;
static struct arena arena;
static struct guess g;
static int32_t text[N_MAX + GUESS_MAX];

static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static int open_tables(void **state)
{
    (void)state;
    assert_int_equal(arena_open(&arena, 1 << 20, false), ERR_OK);
    return guess_init(&g, N_MAX, &arena) == ERR_OK ? 0 : -1;
}

static int close_tables(void **state)
{
    (void)state;
    arena_close(&arena);
    return 0;
}

/* --- the search ------------------------------------------------------------------------------- */

/* The place behind the longest earlier text that ends like text[n], the latest of equal ones, among
 * the last CHAIN_MAX whose pair falls into the same slot; -1: none. */
static int32_t twin(int32_t n, int32_t *n_same)
{
    int32_t best = -1;
    int32_t seen = 0;
    *n_same = 1;
    for (int32_t i = n - 2; i > 0 && seen < CHAIN_MAX; i--) {
        if (slot_of(&g, text[i - 1], text[i]) != slot_of(&g, text[n - 2], text[n - 1])) {
            continue;
        }
        int32_t same = 0;
        while (same < SAME_MAX && same <= i && text[i - same] == text[n - 1 - same]) {
            same++;
        }
        seen++;
        if (same > *n_same) {
            *n_same = same;
            best = i + 1;
        }
    }
    return best;
}

static void test_search(void **state)
{
    (void)state;
    int n_right = 0;
    int n_skip = 0;
    for (uint32_t n_letter = 2; n_letter < 200; n_letter = n_letter * 3 / 2 + 1) {
        const int32_t n_begin = 1 + (int32_t)random_below(300);
        for (int32_t i = 0; i < 600; i++) {
            const bool repeats = i > 100 && random_below(8) > 0;
            text[i] = repeats ? text[i - 83] : (int32_t)random_below(n_letter) - 1;
        }
        guess_begin(&g, text, n_begin);
        int32_t same;
        assert_int_equal(g.at, n_begin > 1 ? twin(n_begin, &same) : -1);
        for (int32_t n = n_begin + 1; n <= 600; n++) {
            const int32_t before = g.at;
            const int32_t same_before = g.n_same;
            guess_next(&g, text, n);
            const int32_t found = twin(n, &same);
            if (before >= 0 && text[before] == text[n - 1]) { /* goes on */
                n_right++;
                assert_int_equal(g.at, before + 1);
                assert_int_equal(g.n_same, same_before < SAME_MAX ? same_before + 1 : SAME_MAX);
            } else if (found < 0 && before >= 0 && same_before > 0) { /* one more chance */
                n_skip++;
                assert_true(g.at == before + 1 && g.n_same == 0);
            } else {
                assert_int_equal(g.at, found);
                assert_int_equal(g.n_same, same);
            }
            assert_true(g.at < n);
        }
    }
    assert_true(n_right > 1000 && n_skip > 100);
}

/* A loop goes on past the end of what is known. */
static void test_loop(void **state)
{
    (void)state;
    const int32_t loop[] = { 7, 8, 9 };
    for (int32_t i = 0; i < 8; i++) {
        text[i] = loop[i % 3];
    }
    guess_begin(&g, text, 8);
    guess_write(&g, text, 8, GUESS_MAX);
    for (int32_t i = 8; i < 8 + GUESS_MAX; i++) {
        assert_int_equal(text[i], loop[i % 3]);
    }
}

/* The longest text of all is entered to its last place. */
static void test_longest(void **state)
{
    (void)state;
    memset(text, 0, sizeof text);
    guess_begin(&g, text, N_MAX - 1);
    guess_next(&g, text, N_MAX);
    assert_int_equal(g.n, N_MAX);
    guess_begin(&g, text, 1);
    assert_int_equal(g.at, -1);
    assert_true(guess_chance(&g, 0) == 0.0);
}

/* --- what pays -------------------------------------------------------------------------------- */

/* A box: a step takes `base` for all weights and `row` for the arithmetic of each row, whichever is
 * more, plus some of both. */
struct box {
    double base_us;
    double row_us;
    uint32_t noise;  /* percent */
    int32_t busy_at; /* from this token on, for 300, all takes three times as long */
};

static double step_us(const struct box *b, int32_t n_row, int32_t n)
{
    const double arithmetic = b->row_us * rows_of(size_of(n_row));
    const double us = (b->base_us > arithmetic ? b->base_us : arithmetic) + 0.2 * arithmetic;
    const bool is_busy = n >= b->busy_at && n < b->busy_at + 300;
    return us * (is_busy ? 3.0 : 1.0) * (1.0 + 0.01 * random_below(b->noise + 1));
}

/* The answer text[n_prompt..n_all) on that box; returns how many times faster it is than without
 * guesses. */
static double speed_up(const struct box *b, int32_t n_prompt, int32_t n_all)
{
    struct guess_cost cost = { 0 };
    static int32_t own[N_MAX + GUESS_MAX];
    double with = 0.0;
    double without = 0.0;
    int32_t n = n_prompt + 1;
    memcpy(own, text, (size_t)n * sizeof own[0]);
    guess_begin(&g, own, n);
    while (n < n_all) {
        struct guess_bid bid = { .guess = &g, .most = n_all - n - 1 };
        bid.most = bid.most < GUESS_MAX ? bid.most : GUESS_MAX;
        guess_share(&cost, &bid, 1, b->row_us);
        assert_in_range(bid.n, 0, bid.most);
        guess_write(&g, own, n, bid.n);
        const double us = step_us(b, 1 + bid.n, n);
        guess_timed(&cost, 1 + bid.n, us, b->row_us);
        with += us;
        bool is_right = true;
        for (int32_t i = 0; i <= bid.n && is_right; i++) {
            is_right = i < bid.n && own[n] == text[n];
            without += step_us(b, 1, n);
            own[n] = text[n];
            guess_next(&g, own, ++n);
        }
    }
    return without / with;
}

static const struct box boxes[] = {
    { 20000, 2000, 5, N_MAX }, /* memory is the limit up to ten rows */
    { 4000, 1500, 20, N_MAX },
    { 5000, 5000, 5, N_MAX }, /* arithmetic is the limit: nothing can be won */
    { 20000, 2000, 10, 1200 },
};
#define N_BOX (sizeof boxes / sizeof boxes[0])

/* Text that repeats nothing, or a little by chance. */
static void test_costs_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_BOX; i++) {
        for (uint32_t n_letter = 30; n_letter <= 3000; n_letter *= 10) {
            for (int32_t k = 0; k < N_MAX; k++) {
                text[k] = (int32_t)random_below(n_letter);
            }
            const double ratio = speed_up(&boxes[i], 500, N_MAX);
            if (ratio < 0.985) {
                print_error("box %zu, %u letters: %.3f\n", i, n_letter, ratio);
                fail();
            }
        }
    }
}

/* The prompt written again, with a word replaced, added or left out here and there. */
static void test_edit(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_BOX; i++) {
        int32_t n = 1000;
        int32_t from = 0;
        for (int32_t k = 0; k < n; k++) {
            text[k] = (int32_t)random_below(2000);
        }
        while (n < 2000) {
            const uint32_t edit = random_below(100);
            from += edit == 0 ? 3 : 1;
            text[n++] = edit <= 3 ? (int32_t)random_below(2000) : text[from % 1000];
        }
        const double ratio = speed_up(&boxes[i], 1000, n);
        const double least = boxes[i].row_us >= boxes[i].base_us ? 0.985 : 2.0;
        if (ratio < least) {
            print_error("box %zu: %.3f\n", i, ratio);
            fail();
        }
    }
}

/* Guesses of one step go to whoever will use them, never beyond the limits. */
static void test_share(void **state)
{
    (void)state;
    struct guess_bid bids[40];
    struct guess good = g;
    struct guess bad = g;
    good.at = bad.at = 0;
    good.n_same = bad.n_same = SAME_MAX;
    for (int i = 0; i < GUESS_CLASSES; i++) {
        good.n_all[i] = bad.n_all[i] = 10.0f;
        good.n_right[i] = 9.9f;
        bad.n_right[i] = 0.1f;
    }
    struct guess_cost cost = { 0 };
    for (int32_t n = 1; n <= 40; n++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < n; i++) {
            bids[i] =
                (struct guess_bid){ .guess = i % 2 > 0 ? &bad : &good, .most = i == 2 ? 3 : 15 };
        }
        guess_share(&cost, bids, n, 1.0);
        for (int32_t i = 0; i < n; i++) {
            assert_true(bids[i].n <= bids[i].most && (i % 2 == 0 || bids[i].n == 0));
            sum += bids[i].n;
        }
        assert_int_equal(sum,
                         cost.scale_us > 0.0 ? GUESS_MAX : 0); /* nothing known: nothing tried */
        guess_timed(&cost, n, 1000.0, 1.0);
    }
    guess_share(&cost, bids, 0, 1.0); /* nobody answers */
}

/* One step that was held up does not stop guesses for good, and many that were do not either. */
static void test_held_up(void **state)
{
    (void)state;
    struct guess_cost cost = { 0 };
    for (int i = 0; i < 40; i++) {
        guess_timed(&cost, 1, 20000.0, 2000.0);
        guess_timed(&cost, 8, 25000.0, 2000.0);
    }
    const double usual = guess_us(&cost, 8, 2000.0) / guess_us(&cost, 1, 2000.0);
    guess_timed(&cost, 8, 1e9, 2000.0);
    assert_true(guess_us(&cost, 8, 2000.0) / guess_us(&cost, 1, 2000.0) < 1.2 * usual);
    for (int i = 0; i < 5; i++) {
        guess_timed(&cost, 8, 100000.0, 2000.0);
    }
    for (int i = 0; i < 40; i++) {
        guess_timed(&cost, 1, 20000.0, 2000.0);
    }
    assert_true(guess_us(&cost, 8, 2000.0) / guess_us(&cost, 1, 2000.0) < 4.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search),  cmocka_unit_test(test_loop),
        cmocka_unit_test(test_longest), cmocka_unit_test(test_costs_nothing),
        cmocka_unit_test(test_edit),    cmocka_unit_test(test_share),
        cmocka_unit_test(test_held_up),
    };
    return cmocka_run_group_tests(tests, open_tables, close_tables);
}
