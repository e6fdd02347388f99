/* test_sample - sampling: counters, filters against plain definitions, frequencies, penalties */
#include "engine/sample.h"
#include "num/fmath.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N 1000

static float logits[N];
static float raw[N];
static struct sample_cand cands[2 * N];
static int32_t counts[N];

static struct sample_params defaults(void)
{
    return (struct sample_params){ .temperature = 1.0f,
                                   .top_p = 1.0f,
                                   .typical_p = 1.0f,
                                   .repeat_penalty = 1.0f,
                                   .repeat_last_n = 64,
                                   .seed = 42,
                                   .n_logprob = -1 };
}

static void fill(uint32_t seed)
{
    for (int i = 0; i < N; i++) {
        seed = seed * 1664525u + 1013904223u;
        logits[i] = (float)(int32_t)seed / 2147483648.0f * 6.0f;
    }
}

static struct sample_input input(const struct sample_params *p, int32_t position)
{
    static const int32_t prompt[] = { 1, 2, 3 };
    static int32_t answer[4096];
    return (struct sample_input){ .params = p,
                                  .logits = logits,
                                  .n_vocab = N,
                                  .prompt = prompt,
                                  .n_prompt = 3,
                                  .answer = answer,
                                  .n_answer = position,
                                  .kern = kern_get(cpu_best()),
                                  .cands = cands,
                                  .raw = raw,
                                  .counts = counts };
}

static int32_t pick(const struct sample_params *p, uint32_t seed, int32_t position)
{
    struct sample_output out;
    fill(seed);
    const struct sample_input in = input(p, position);
    assert_true(sample_row(&in, &out));
    return out.token;
}

/* Philox 4x32-10 is a published function: its known answer for zero counters and key (Salmon et al. 2011) checks
 * the rounds; ours has a constant in the last counter, so only uniformity and independence are checked here. */
static void test_uniform(void **state)
{
    (void)state;
    double sum = 0.0;
    double square = 0.0;
    const int n = 200000;
    for (int i = 0; i < n; i++) {
        const double u = sample_uniform(7, 0, (uint32_t)i, 0);
        assert_true(u >= 0.0 && u < 1.0);
        sum += u;
        square += u * u;
    }
    assert_true(fabs(sum / n - 0.5) < 0.003);
    assert_true(fabs(square / n - 1.0 / 3.0) < 0.003);
    assert_true(sample_uniform(7, 0, 1, 0) != sample_uniform(8, 0, 1, 0));
    assert_true(sample_uniform(7, 0, 1, 0) != sample_uniform(7, 1, 1, 0));
    assert_true(sample_uniform(7, 0, 1, 0) != sample_uniform(7, 0, 1, 1));
    assert_true(sample_uniform(7, 0, 1, 0) == sample_uniform(7, 0, 1, 0));
}

static void test_greedy(void **state)
{
    (void)state;
    struct sample_params p = defaults();
    p.temperature = 0.0f;
    const int32_t best = pick(&p, 5, 0);
    fill(5);
    for (int i = 0; i < N; i++) {
        assert_true(logits[i] <= logits[best]);
    }
    p.n_bias = 1;
    p.bias[0] = (struct sample_bias){ best, -100.0f };
    assert_int_not_equal(pick(&p, 5, 0), best);
}

static int by_logit(const void *a, const void *b)
{
    const float x = logits[*(const int32_t *)a];
    const float y = logits[*(const int32_t *)b];
    return x != y ? (x < y) - (x > y) : *(const int32_t *)a - *(const int32_t *)b;
}

/* How many best tokens a filter keeps, by its definition in doubles. */
static int allowed(const struct sample_params *p, int32_t order[N])
{
    double w[N];
    double all = 0.0;
    for (int i = 0; i < N; i++) {
        order[i] = i;
    }
    qsort(order, N, sizeof order[0], by_logit);
    int n = p->top_k > 0 && p->top_k < N ? p->top_k : N;
    for (int i = 0; i < n; i++) {
        w[i] = exp((double)(logits[order[i]] - logits[order[0]]) / (double)p->temperature);
        all += w[i];
    }
    double s = 0.0;
    for (int i = 0; i < n; i++) {
        s += w[i];
        if (s >= (double)p->top_p * all - 1e-6) {
            n = i + 1;
        }
    }
    while (n > 1 && w[n - 1] < (double)p->min_p * 0.999999) {
        n--;
    }
    return n;
}

static void check_filter(const struct sample_params *p)
{
    int32_t order[N];
    bool is_seen[N] = { false };
    fill(9);
    const int n = allowed(p, order);
    for (int i = 0; i < 3000; i++) {
        const int32_t t = pick(p, 9, i);
        bool is_allowed = false;
        for (int k = 0; k < n + 1 && k < N; k++) { /* one more: the border may round either way */
            is_allowed = is_allowed || order[k] == t;
        }
        assert_true(is_allowed);
        is_seen[t] = true;
    }
    int n_seen = 0;
    for (int i = 0; i < N; i++) {
        n_seen += is_seen[i];
    }
    assert_true(n > 40 || n_seen >= n - 1); /* small sets are seen whole */
}

static void test_filters(void **state)
{
    (void)state;
    struct sample_params p = defaults();
    p.top_k = 5;
    check_filter(&p);
    p.top_k = 0;
    p.top_p = 0.05f;
    check_filter(&p);
    p.top_p = 0.9f;
    check_filter(&p);
    p.top_p = 1.0f;
    p.min_p = 0.5f;
    check_filter(&p);
    p.temperature = 0.2f;
    p.top_k = 40;
    p.top_p = 0.95f;
    p.min_p = 0.05f;
    check_filter(&p);
    p.temperature = 50.0f; /* nearly flat: the first round of candidates does not suffice */
    p.top_k = 900;
    p.min_p = 0.0f;
    check_filter(&p);
}

/* Weights of the twin below; equal ones by smaller id. */
static float weights[N];

static int by_weight(const void *a, const void *b)
{
    const float x = weights[*(const int32_t *)a];
    const float y = weights[*(const int32_t *)b];
    return x != y ? (x < y) - (x > y) : *(const int32_t *)a - *(const int32_t *)b;
}

static double weight_of(const int32_t *order, int n)
{
    double s = 0.0;
    for (int i = 0; i < n; i++) {
        s += (double)weights[order[i]];
    }
    return s;
}

/* The token that docs/NUMERICS.md (Sampling, 4 to 6) demands, all of the vocabulary sorted. */
static int32_t twin(const struct sample_params *p, int32_t position)
{
    const struct kern_table *k = kern_get(CPU_SCALAR);
    int32_t order[N];
    for (int i = 0; i < N; i++) {
        order[i] = i;
        weights[i] = logits[i] * (1.0f / p->temperature);
    }
    k->exp_sum(weights, weights, k->max(weights, N), N);
    const double u = sample_uniform(p->seed, 0, (uint32_t)position, 0);
    int n = 0;
    const double all = weight_of(order, N);
    if (p->top_k == 0 && p->top_p >= 1.0f && p->min_p <= 0.0f) {
        while (n < N - 1 && !(u * all < weight_of(order, n + 1))) {
            n++;
        }
        return n;
    }
    qsort(order, N, sizeof order[0], by_weight);
    for (n = N; weights[order[n - 1]] <= 0.0f;) {
        n--;
    }
    n = p->top_k > 0 && p->top_k < n ? p->top_k : n;
    const double mass = p->top_k > 0 ? weight_of(order, n) : all;
    int keep = 1;
    while (p->top_p < 1.0f && keep < n && weight_of(order, keep) < (double)p->top_p * mass) {
        keep++;
    }
    n = p->top_p < 1.0f ? keep : n;
    while (n > 1 && weights[order[n - 1]] < p->min_p * weights[order[0]]) {
        n--;
    }
    const double at = u * weight_of(order, n);
    int i = 0;
    while (i < n - 1 && !(at < weight_of(order, i + 1))) {
        i++;
    }
    return order[i];
}

/* Scores in any order, better ones first or last, and few different ones. */
static void fill_as(int shape)
{
    fill((uint32_t)shape);
    for (int i = 0; i < N; i++) {
        const float rising = (float)i / 100.0f;
        logits[i] = shape % 4 == 1   ? rising
                    : shape % 4 == 2 ? -rising
                    : shape % 4 == 3 ? rintf(logits[i])
                                     : logits[i];
    }
}

static void test_twin(void **state)
{
    (void)state;
    static const int32_t top_k[] = { 0, 1, 2, 40, 300, N - 1 };
    static const float top_p[] = { 1.0f, 0.95f, 0.3f };
    static const float min_p[] = { 0.0f, 0.05f, 1e-5f };
    static const float temperature[] = { 0.1f, 1.0f, 50.0f };
    struct sample_params p = defaults();
    struct sample_output out;
    for (int i = 0; i < 6 * 3 * 3 * 3 * 4; i++) {
        p.top_k = top_k[i % 6];
        p.top_p = top_p[i / 6 % 3];
        p.min_p = min_p[i / 18 % 3];
        p.temperature = temperature[i / 54 % 3];
        fill_as(i / 162);
        const int32_t token = twin(&p, i);
        const struct sample_input in = input(&p, i - 3);
        assert_true(sample_row(&in, &out));
        assert_int_equal(out.token, token);
    }
}

static void test_frequencies(void **state)
{
    (void)state;
    struct sample_params p = defaults();
    p.top_k = 3;
    int32_t order[N];
    int seen[3] = { 0 };
    const int n = 4000;
    fill(9);
    (void)allowed(&p, order);
    double w[3];
    double all = 0.0;
    for (int i = 0; i < 3; i++) {
        w[i] = exp((double)logits[order[i]]);
        all += w[i];
    }
    for (int i = 0; i < n; i++) {
        const int32_t t = pick(&p, 9, i);
        for (int k = 0; k < 3; k++) {
            seen[k] += order[k] == t;
        }
    }
    for (int k = 0; k < 3; k++) {
        assert_true(fabs(seen[k] / (double)n - w[k] / all) < 0.035);
    }
}

static void test_logprobs(void **state)
{
    (void)state;
    struct sample_params p = defaults();
    struct sample_output out;
    p.n_logprob = 4;
    p.temperature = 0.7f;
    fill(3);
    double all = 0.0;
    for (int i = 0; i < N; i++) {
        all += exp((double)logits[i]);
    }
    float before[N];
    memcpy(before, logits, sizeof before);
    struct sample_input in = input(&p, 0);
    assert_true(sample_row(&in, &out));
    assert_true(fabs((double)out.logprob - ((double)before[out.token] - log(all))) < 1e-5);
    assert_int_equal(out.n_top, 4);
    for (int i = 0; i < 4; i++) {
        assert_true(fabs((double)out.top[i].bias - ((double)before[out.top[i].token] - log(all))) <
                    1e-5);
        assert_true(i == 0 || out.top[i].bias <= out.top[i - 1].bias);
    }
    const int32_t token = out.token; /* a guess is the same token, and no log probabilities */
    memcpy(logits, before, sizeof before);
    in.is_guess = true;
    in.raw = NULL;
    assert_true(sample_row(&in, &out));
    assert_true(out.token == token && out.n_top == 0);
}

static void test_penalties(void **state)
{
    (void)state;
    struct sample_params p = defaults();
    p.temperature = 0.0f;
    const int32_t best = pick(&p, 5, 0);
    int32_t answer[2] = { best, best };
    struct sample_output out;
    for (int kind = 0; kind < 3; kind++) {
        p = defaults();
        p.temperature = 0.0f;
        p.repeat_penalty = kind == 0 ? 5.0f : 1.0f;
        p.presence_penalty = kind == 1 ? 10.0f : 0.0f;
        p.frequency_penalty = kind == 2 ? 5.0f : 0.0f;
        fill(5);
        struct sample_input in = input(&p, 2);
        in.answer = answer;
        assert_true(sample_row(&in, &out));
        assert_int_not_equal(out.token, best);
        for (int i = 0; i < N; i++) {
            assert_int_equal(counts[i], 0); /* left as it was found */
        }
    }
}

/* The least values that are taken keep large scores finite. */
static void test_least(void **state)
{
    (void)state;
    struct sample_params p = defaults();
    struct sample_output out;
    p.temperature = 1e-6f;
    p.repeat_penalty = 0.01f;
    assert_int_equal(sample_check(&p, N), ERR_OK);
    for (int i = 0; i < N; i++) {
        logits[i] = i == 7 ? 1e5f : -1e5f;
    }
    const struct sample_input in = input(&p, 0);
    assert_true(sample_row(&in, &out));
    assert_int_equal(out.token, 7);
}

static void test_bad(void **state)
{
    (void)state;
    struct sample_params p = defaults();
    struct sample_output out;
    assert_int_equal(sample_check(&p, N), ERR_OK);
    p.temperature = NAN;
    assert_int_equal(sample_check(&p, N), ERR_USAGE);
    p.temperature = 1e-20f;
    assert_int_equal(sample_check(&p, N), ERR_USAGE);
    p = defaults();
    p.repeat_penalty = 1e-30f;
    assert_int_equal(sample_check(&p, N), ERR_USAGE);
    p = defaults();
    p.top_p = 0.0f;
    assert_int_equal(sample_check(&p, N), ERR_USAGE);
    p = defaults();
    p.n_bias = 1;
    p.bias[0].token = N;
    assert_int_equal(sample_check(&p, N), ERR_USAGE);
    p = defaults();
    for (int i = 0; i < N; i++) {
        logits[i] = NAN;
    }
    const struct sample_input in = input(&p, 0);
    assert_false(sample_row(&in, &out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform),     cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_filters),     cmocka_unit_test(test_twin),
        cmocka_unit_test(test_frequencies), cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_penalties),   cmocka_unit_test(test_least),
        cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
