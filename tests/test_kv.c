/* test_kv - the paged cache: random growing, sharing, cutting, all invariants after every change (KV-1..KV-4) */
#include "engine/kv.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define N_SEQ 6
#define N_CTX 400

static struct arch small_arch(void)
{
    return (struct arch){ .n_layer = 2, .n_head = 4, .n_kv = 2, .hd_k = 32, .hd_v = 32 };
}

/* Marks a position of a sequence in all layers, to see later that it is still its own. */
static void mark(struct kv *kv, const struct kv_seq *s, int32_t pos, uint8_t value)
{
    for (int32_t i = 0; i < kv->n_layer; i++) {
        const struct back_kv l = kv_layer(kv, i);
        const size_t page = (size_t)s->page[pos / KERN_PAGE];
        const size_t slot = (size_t)(pos % KERN_PAGE);
        for (size_t h = 0; h < (size_t)l.n_kv; h++) {
            l.k[page * l.k_page + h * l.k_head + slot] = value;
            l.v[page * l.v_page + h * l.v_head + slot] = value;
        }
    }
}

static uint8_t marked(struct kv *kv, const struct kv_seq *s, int32_t pos)
{
    const struct back_kv l = kv_layer(kv, kv->n_layer - 1);
    const size_t last = (size_t)(l.n_kv - 1);
    return l.v[(size_t)s->page[pos / KERN_PAGE] * l.v_page + last * l.v_head +
               (size_t)(pos % KERN_PAGE)];
}

static void test_random(void **state)
{
    (void)state;
    const struct arch a = small_arch();
    struct arena arena;
    struct kv kv;
    struct kv_seq seq[N_SEQ];
    static uint8_t content[N_SEQ][N_CTX];
    const int32_t n_page = 40; /* fewer than all sequences together could take */
    size_t bytes = 0;
    assert_true(kv_bytes(&a, KERN_KV_F16, n_page, &bytes));
    assert_int_equal(arena_open(&arena, bytes + N_SEQ * 4096, false), ERR_OK);
    assert_int_equal(kv_init(&kv, &a, KERN_KV_F16, n_page, &arena), ERR_OK);
    assert_true(arena.used <= bytes);
    for (int i = 0; i < N_SEQ; i++) {
        assert_int_equal(kv_seq_init(&seq[i], N_CTX, &arena), ERR_OK);
    }
    uint32_t x = 12345;
    int n_refused = 0;
    int n_shared = 0;
    for (int round = 0; round < 20000; round++) {
        x = x * 1664525u + 1013904223u;
        const int i = (int)(x >> 8) % N_SEQ;
        const int k = (int)(x >> 16) % N_SEQ;
        const int32_t n = (int32_t)(x >> 12) % N_CTX;
        struct kv_seq *s = &seq[i];
        if ((x >> 28) < 9) {
            const int32_t from = s->n_tok;
            const int32_t to = from + n / 8 + 1;
            const int32_t need = kv_seq_need(&kv, s, to);
            const int32_t n_free = kv.n_free;
            if (kv_seq_grow(&kv, s, to)) {
                assert_int_equal(n_free - kv.n_free, need);
                for (int32_t p = from; p < to; p++) {
                    content[i][p] = (uint8_t)(x + (uint32_t)p);
                    mark(&kv, s, p, content[i][p]);
                }
            } else {
                assert_true(to > N_CTX || need > n_free);
                assert_int_equal(s->n_tok, from);
                n_refused++;
            }
        } else if ((x >> 28) < 13) {
            kv_seq_cut(&kv, s, n < s->n_tok ? n : 0);
        } else if (i != k) {
            kv_seq_cut(&kv, s, 0);
            kv_seq_share(&kv, s, &seq[k]);
            memcpy(content[i], content[k], sizeof content[i]);
            n_shared += seq[k].n_tok > 0;
        }
        kv_check(&kv, seq, N_SEQ);
        for (int32_t p = 0; p < s->n_tok; p += 7) {
            assert_int_equal(marked(&kv, s, p), content[i][p]);
        }
    }
    for (int i = 0; i < N_SEQ; i++) { /* nobody's positions were overwritten by somebody else */
        for (int32_t p = 0; p < seq[i].n_tok; p++) {
            assert_int_equal(marked(&kv, &seq[i], p), content[i][p]);
        }
        kv_seq_cut(&kv, &seq[i], 0);
    }
    assert_int_equal(kv.n_free, n_page);
    assert_true(n_refused > 20 && n_shared > 20);
    arena_close(&arena);
}

/* Whether kv_check ends a process that looks at this. */
static bool is_found(struct kv *kv, const struct kv_seq *seq, int32_t n_seq)
{
    const pid_t child = fork();
    int how = 0;
    if (child == 0) {
        close(STDERR_FILENO); /* the text of the assert */
        kv_check(kv, seq, n_seq);
        _exit(0);
    }
    assert_true(child > 0 && waitpid(child, &how, 0) == child);
    return WIFSIGNALED(how) && WTERMSIG(how) == SIGABRT;
}

static void test_check(void **state)
{
    (void)state;
    const struct arch a = small_arch();
    struct arena arena;
    struct kv kv;
    struct kv_seq seq;
    size_t bytes = 0;
    assert_true(kv_bytes(&a, KERN_KV_F16, 8, &bytes));
    assert_int_equal(arena_open(&arena, bytes + 4096, false), ERR_OK);
    assert_int_equal(kv_init(&kv, &a, KERN_KV_F16, 8, &arena), ERR_OK);
    assert_int_equal(kv_seq_init(&seq, N_CTX, &arena), ERR_OK);
    assert_true(kv_seq_grow(&kv, &seq, 2 * KERN_PAGE));
    assert_false(is_found(&kv, &seq, 1));
    const int32_t page = kv.free[1];
    kv.free[1] = kv.free[0]; /* KV-3: one page twice, another never */
    assert_true(is_found(&kv, &seq, 1));
    kv.free[1] = page;
    kv.n_free--; /* KV-1 */
    assert_true(is_found(&kv, &seq, 1));
    kv.n_free++;
    seq.n_tok = KERN_PAGE; /* KV-4 */
    assert_true(is_found(&kv, &seq, 1));
    arena_close(&arena);
}

static void test_sizes(void **state)
{
    (void)state;
    struct arch a = small_arch();
    size_t bytes = 0;
    assert_false(kv_bytes(&a, KERN_KV_F16, 0, &bytes));
    a.n_layer = ARCH_LAYER_MAX;
    a.n_kv = ARCH_HEAD_COUNT_MAX;
    a.hd_k = a.hd_v = KERN_HEAD_MAX;
    assert_true(kv_bytes(&a, KERN_KV_F32, 1000, &bytes));
    assert_false(kv_bytes(&a, KERN_KV_F32, INT32_MAX, &bytes) && bytes < (size_t)1 << 50);
}

/* Made-up positions have numbers of their own in every layer; pages behind them stay as they are. */
static void test_made_up(void **state)
{
    (void)state;
    const struct arch a = small_arch();
    struct arena arena;
    struct kv kv;
    struct kv_seq s;
    assert_int_equal(arena_open(&arena, 1 << 20, false), ERR_OK);
    assert_int_equal(kv_init(&kv, &a, KERN_KV_F16, 4, &arena), ERR_OK);
    assert_int_equal(kv_seq_init(&s, 64, &arena), ERR_OK);
    memset(kv.pages, 0, kv.layer_bytes * 2);
    assert_true(kv_seq_grow(&kv, &s, 64));
    kv_make_up(&kv, &s, 40, kern_get(CPU_SCALAR));
    for (int32_t i = 0; i < 2; i++) {
        const struct back_kv l = kv_layer(&kv, i);
        for (int32_t p = 0; p < 4; p++) {
            const uint16_t *k =
                (const uint16_t *)(const void *)(l.k + (size_t)s.page[p] * l.k_page);
            const uint16_t *v =
                (const uint16_t *)(const void *)(l.v + (size_t)s.page[p] * l.v_page);
            for (size_t at = 0; at < l.k_page / 2; at++) {
                assert_true((k[at] != 0) == (p < 3));
                assert_true((v[at] != 0) == (p < 3));
                assert_true((k[at] & 0x7FFF) <= 0x3C00); /* 1 */
            }
        }
    }
    arena_close(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random), cmocka_unit_test(test_check),
                                        cmocka_unit_test(test_sizes),
                                        cmocka_unit_test(test_made_up) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
