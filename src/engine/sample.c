/* sample - from scores to a token
 *
 * The order of the steps is fixed and documented in docs/NUMERICS.md, section Sampling:
 *   penalties -> bias -> temperature -> top-k -> typical -> top-p -> min-p -> draw.
 * Scores are multiplied by 1 / temperature, weights are exp(score - max) in float32 by our own exp;
 * sums over candidates run in double in a fixed order, so that a draw gives the same token on every
 * machine.
 *
 * Filters need the candidates best first, but sorting a vocabulary of 262,144 for every token would
 * cost more than a small model's forward pass. So only what a filter can keep is sorted: of top-k
 * the best k, of min-p those of enough weight. Of top-p nobody knows how many it needs: first come
 * those within a factor 2^-12 of the best, and only if their weight is too small, all of them.
 * Without filters no sort happens at all: the draw walks the vocabulary in order.
 *
 * Random numbers are Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
 * 3"): a function of counters, no state to save, restore or share.
 *
 * Next: engine/sched.c. */
#include "engine/sample.h"

#include "num/fmath.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define BLOCK       256      /* weights that one look at their greatest can pass over */
#define NEAR_WEIGHT 0x1p-12f /* of the first round of candidates, relative to the best */

double sample_uniform(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw)
{
    uint32_t c[4] = { position, choice, draw,
                      0x68656172u }; /* the last: a constant of this program */
    uint32_t k0 = (uint32_t)seed;
    uint32_t k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        const uint64_t a = (uint64_t)0xD2511F53u * c[0];
        const uint64_t b = (uint64_t)0xCD9E8D57u * c[2];
        const uint32_t n[4] = { (uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b,
                                (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a };
        memcpy(c, n, sizeof c);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

enum err sample_check(const struct sample_params *p, int32_t n_vocab)
{
    REQUIRE(p->temperature == 0.0f || (p->temperature >= 1e-6f && p->temperature <= 100.0f),
            ERR_USAGE, "temperature is %g, must be 0 (the best token) or lie in 1e-6..100",
            (double)p->temperature);
    REQUIRE(p->top_k >= 0, ERR_USAGE, "top_k is %d, must be 0 (off) or more", p->top_k);
    REQUIRE(p->top_p > 0.0f && p->top_p <= 1.0f, ERR_USAGE,
            "top_p is %g, must lie above 0 and up to 1", (double)p->top_p);
    REQUIRE(p->min_p >= 0.0f && p->min_p <= 1.0f, ERR_USAGE, "min_p is %g, must lie in 0..1",
            (double)p->min_p);
    REQUIRE(p->typical_p > 0.0f && p->typical_p <= 1.0f, ERR_USAGE,
            "typical_p is %g, must lie above 0 and up to 1", (double)p->typical_p);
    REQUIRE(p->repeat_penalty >= 0.01f && p->repeat_penalty <= 100.0f, ERR_USAGE,
            "repeat_penalty is %g, must lie in 0.01..100", (double)p->repeat_penalty);
    REQUIRE(fabsf(p->presence_penalty) <= 100.0f, ERR_USAGE,
            "presence_penalty is %g, must lie in -100..100", (double)p->presence_penalty);
    REQUIRE(fabsf(p->frequency_penalty) <= 100.0f, ERR_USAGE,
            "frequency_penalty is %g, must lie in -100..100", (double)p->frequency_penalty);
    REQUIRE(p->repeat_last_n >= -1, ERR_USAGE, "repeat_last_n is %d, must be -1 (all) or more",
            p->repeat_last_n);
    REQUIRE(p->n_logprob >= -1 && p->n_logprob <= SAMPLE_TOP_MAX, ERR_USAGE,
            "top_logprobs is %d, must lie in 0..%d", p->n_logprob, SAMPLE_TOP_MAX);
    REQUIRE(p->n_bias >= 0 && p->n_bias <= SAMPLE_BIAS_MAX, ERR_USAGE,
            "logit_bias has %d entries, at most %d are taken", p->n_bias, SAMPLE_BIAS_MAX);
    for (int32_t i = 0; i < p->n_bias; i++) {
        REQUIRE(p->bias[i].token >= 0 && p->bias[i].token < n_vocab, ERR_USAGE,
                "logit_bias: token %d, the vocabulary has %d", p->bias[i].token, n_vocab);
        REQUIRE(fabsf(p->bias[i].bias) <= 1e4f, ERR_USAGE,
                "logit_bias of token %d is %g, must lie in -10000..10000", p->bias[i].token,
                (double)p->bias[i].bias);
    }
    return ERR_OK;
}

/* --- scores ----------------------------------------------------------------------------------- */

/* Repetition (Keskar et al. 2019): each token among the last n of prompt and answer once. */
static void penalize_repeats(const struct sample_input *in)
{
    const struct sample_params *p = in->params;
    if (p->repeat_penalty == 1.0f) {
        return;
    }
    const int32_t n_all = in->n_prompt + in->n_answer;
    const int32_t from =
        p->repeat_last_n < 0 || p->repeat_last_n > n_all ? 0 : n_all - p->repeat_last_n;
    for (int pass = 0; pass < 2; pass++) { /* first apply and mark, then unmark */
        for (int32_t i = from; i < n_all; i++) {
            const int32_t id = i < in->n_prompt ? in->prompt[i] : in->answer[i - in->n_prompt];
            float *l = &in->logits[id];
            if (pass == 0 && in->counts[id] == 0) {
                *l = *l > 0.0f ? *l / p->repeat_penalty : *l * p->repeat_penalty;
            }
            in->counts[id] = pass == 0;
        }
    }
}

/* Presence and frequency, as the OpenAI API defines them: over the answer's tokens. */
static void penalize_counts(const struct sample_input *in)
{
    const struct sample_params *p = in->params;
    if (p->presence_penalty == 0.0f && p->frequency_penalty == 0.0f) {
        return;
    }
    for (int32_t i = 0; i < in->n_answer; i++) {
        in->counts[in->answer[i]]++;
    }
    for (int32_t i = 0; i < in->n_answer; i++) {
        const int32_t id = in->answer[i];
        if (in->counts[id] > 0) {
            in->logits[id] -= p->presence_penalty + p->frequency_penalty * (float)in->counts[id];
            in->counts[id] = 0;
        }
    }
}

/* Order as docs/NUMERICS.md states it (Sampling, 1 to 3). */
static void adjust(const struct sample_input *in)
{
    penalize_repeats(in);
    penalize_counts(in);
    for (int32_t i = 0; i < in->params->n_bias; i++) {
        in->logits[in->params->bias[i].token] += in->params->bias[i].bias;
    }
    for (int32_t i = 0; i < in->n_banned; i++) {
        in->logits[in->banned[i]] = -INFINITY;
    }
}

/* --- candidates ------------------------------------------------------------------------------- */

/* Better first; equal weights by smaller id: a total order, so every sort gives the same result. */
static bool is_before(struct sample_cand a, struct sample_cand b)
{
    return a.p > b.p || (a.p == b.p && a.id < b.id);
}

/* Byte i of a weight's bits, the greatest first: positive floats and their bits have one order. */
static uint32_t digit(struct sample_cand c, int i)
{
    uint32_t bits;
    memcpy(&bits, &c.p, sizeof bits);
    return ~bits >> 8 * i & 255;
}

/* Best first; equal weights stay in the order that they have. Radix sort: its time depends on the
 * number alone. c has room for n more behind the first n. */
static void sort(struct sample_cand *c, int32_t n)
{
    int32_t at[4][256] = { 0 };
    for (int32_t i = 0; i < n; i++) {
        for (int k = 0; k < 4; k++) {
            at[k][digit(c[i], k)]++;
        }
    }
    struct sample_cand *from = c;
    struct sample_cand *to = c + n;
    for (int k = 0; k < 4; k++) { /* an even number of times: they end where they began */
        int32_t before = 0;
        for (int d = 0; d < 256; d++) {
            const int32_t here = at[k][d];
            at[k][d] = before;
            before += here;
        }
        for (int32_t i = 0; i < n; i++) {
            to[at[k][digit(from[i], k)]++] = from[i];
        }
        struct sample_cand *t = from;
        from = to;
        to = t;
    }
}

/* Collects candidates of at least the weight `least`, above 0: the `most` best of them, best first.
 * When enough others have come all are sorted and the worst dropped, which raises the weight that
 * later ones need; whole blocks do not have it. */
static int32_t collect(const struct sample_input *in, const float *weights, float least,
                       int32_t most)
{
    int32_t n = 0;
    float bar = least > 0.0f ? least : FLT_TRUE_MIN;
    for (int32_t from = 0; from < in->n_vocab; from += BLOCK) {
        const int32_t to = in->n_vocab - from < BLOCK ? in->n_vocab : from + BLOCK;
        if (in->kern->max(weights + from, to - from) < bar) {
            continue;
        }
        for (int32_t i = from; i < to; i++) {
            if (weights[i] >= bar) {
                in->cands[n++] = (struct sample_cand){ weights[i], i };
            }
            if ((n - BLOCK) / 2 >= most) {
                sort(in->cands, n);
                n = most;
                bar = nextafterf(in->cands[n - 1].p, INFINITY);
            }
        }
    }
    sort(in->cands, n);
    return n < most ? n : most;
}

/* In double and in the order given, like every sum of weights here. */
static double sum(const struct sample_cand *c, int32_t n)
{
    double s = 0.0;
    for (int32_t i = 0; i < n; i++) {
        s += (double)c[i].p;
    }
    return s;
}

/* Typical sampling (Meister et al. 2022): keeps those whose surprise is nearest to the entropy,
 * until their mass reaches p; then restores the order by weight. */
static int32_t keep_typical(struct sample_cand *c, int32_t n, float p)
{
    const double all = sum(c, n);
    double entropy = 0.0;
    for (int32_t i = 0; i < n; i++) {
        const double q = (double)c[i].p / all;
        entropy -= q * fmath_log(q);
    }
    /* The deviation is not monotone in the rank but rises on both sides of the entropy: two
     * fingers. */
    int32_t hi = 0;
    while (hi < n && -fmath_log((double)c[hi].p / all) < entropy) {
        hi++;
    }
    int32_t lo = hi - 1;
    double mass = 0.0;
    while (mass < (double)p * all && (lo >= 0 || hi < n)) {
        const double d_lo = lo >= 0 ? entropy + fmath_log((double)c[lo].p / all) : INFINITY;
        const double d_hi = hi < n ? -fmath_log((double)c[hi].p / all) - entropy : INFINITY;
        mass += (double)(d_lo <= d_hi ? c[lo--].p : c[hi++].p);
    }
    memmove(c, c + lo + 1, (size_t)(hi - lo - 1) * sizeof c[0]);
    return hi - lo - 1;
}

/* Smallest number of best candidates whose mass reaches p of `all`; n + 1 when they do not suffice.
 */
static int32_t count_top_p(const struct sample_cand *c, int32_t n, double all, float p)
{
    double s = 0.0;
    for (int32_t i = 0; i < n; i++) {
        s += (double)c[i].p;
        if (s >= (double)p * all) {
            return i + 1;
        }
    }
    return n + 1;
}

static bool is_cut_by_k(const struct sample_input *in)
{
    return in->params->top_k > 0 && in->params->top_k < in->n_vocab;
}

/* Candidates among which are all that pass the filters, best first. `all` is the weight of the
 * whole vocabulary. */
static int32_t gather(const struct sample_input *in, const float *weights, double all)
{
    const struct sample_params *p = in->params;
    if (is_cut_by_k(in)) {
        return collect(in, weights, 0.0f, p->top_k);
    }
    if (p->typical_p < 1.0f) {
        return collect(in, weights, 0.0f, in->n_vocab);
    }
    const float least = p->min_p * in->kern->max(weights, in->n_vocab);
    if (p->top_p < 1.0f && least < NEAR_WEIGHT) {
        const int32_t n = collect(in, weights, NEAR_WEIGHT, in->n_vocab);
        if (count_top_p(in->cands, n, all, p->top_p) <= n) {
            return n;
        }
    }
    return collect(in, weights, least, in->n_vocab);
}

/* Candidates that pass all filters, best first. */
static int32_t filter(const struct sample_input *in, const float *weights, double all)
{
    const struct sample_params *p = in->params;
    int32_t n = gather(in, weights, all);
    double mass = is_cut_by_k(in) ? sum(in->cands, n) : all;
    if (p->typical_p < 1.0f) {
        n = keep_typical(in->cands, n, p->typical_p);
        mass = sum(in->cands, n);
    }
    if (p->top_p < 1.0f) {
        const int32_t keep = count_top_p(in->cands, n, mass, p->top_p);
        n = keep < n ? keep : n;
    }
    while (n > 1 && in->cands[n - 1].p < p->min_p * in->cands[0].p) {
        n--;
    }
    return n;
}

/* --- drawing ---------------------------------------------------------------------------------- */

/* The first whose running sum exceeds u * sum; rounding can leave none, then the last. */
static int32_t draw_from(const struct sample_cand *c, int32_t n, double u)
{
    const double at = u * sum(c, n);
    double s = 0.0;
    for (int32_t i = 0; i < n; i++) {
        s += (double)c[i].p;
        if (at < s) {
            return c[i].id;
        }
    }
    return c[n - 1].id;
}

/* Without filters: walks the vocabulary in order. */
static int32_t draw_plain(const float *weights, int32_t n, double all, double u)
{
    const double at = u * all;
    double s = 0.0;
    int32_t last = -1;
    for (int32_t i = 0; i < n; i++) {
        if (weights[i] > 0.0f) {
            s += (double)weights[i];
            last = i;
            if (at < s) {
                return i;
            }
        }
    }
    return last;
}

/* The maximum is taken again after scaling: exp's arguments are then 0 and below. */
static bool draw(const struct sample_input *in, int32_t *token)
{
    const struct sample_params *p = in->params;
    const float max = in->kern->max(in->logits, in->n_vocab);
    if (!isfinite(max)) {
        return false;
    }
    /* Scores become weights in place. */
    in->kern->scale(in->logits, 1.0f / p->temperature, in->n_vocab);
    const float best = in->kern->max(in->logits, in->n_vocab);
    if (!isfinite(in->kern->exp_sum(in->logits, in->logits, best, in->n_vocab))) {
        return false;
    }
    double all = 0.0; /* among k nobody asks for it, and one addition waits for the other */
    for (int32_t i = 0; i < in->n_vocab && !is_cut_by_k(in); i++) {
        all += (double)in->logits[i];
    }
    const uint32_t position = (uint32_t)(in->n_prompt + in->n_answer);
    const double u = sample_uniform(p->seed, (uint32_t)in->choice, position, 0);
    const bool is_plain =
        !is_cut_by_k(in) && p->top_p >= 1.0f && p->min_p <= 0.0f && p->typical_p >= 1.0f;
    *token = is_plain ? draw_plain(in->logits, in->n_vocab, all, u)
                      : draw_from(in->cands, filter(in, in->logits, all), u);
    return *token >= 0;
}

/* The best n_logprob tokens of the raw scores. */
static void report(const struct sample_input *in, struct sample_output *out, float *max,
                   double *lse)
{
    *max = in->kern->max(in->logits, in->n_vocab);
    *lse = fmath_log((double)in->kern->exp_sum(NULL, in->logits, *max, in->n_vocab));
    struct sample_cand best[SAMPLE_TOP_MAX];
    int32_t n = 0;
    for (int32_t i = 0; i < in->n_vocab && in->params->n_logprob > 0; i++) {
        const struct sample_cand c = { in->logits[i], i };
        if (n == in->params->n_logprob && !is_before(c, best[n - 1])) {
            continue;
        }
        int32_t at = n < in->params->n_logprob ? n++ : n - 1;
        for (; at > 0 && is_before(c, best[at - 1]); at--) {
            best[at] = best[at - 1];
        }
        best[at] = c;
    }
    out->n_top = n;
    for (int32_t i = 0; i < n; i++) {
        out->top[i] =
            (struct sample_bias){ best[i].id, (float)((double)(best[i].p - *max) - *lse) };
    }
}

/* Reported probabilities are those of the raw scores, so they are taken before anything changes
 * them. */
bool sample_row(const struct sample_input *in, struct sample_output *out)
{
    *out = (struct sample_output){ .token = -1 };
    const bool has_report = in->params->n_logprob >= 0 && !in->is_guess;
    float max = 0.0f;
    double lse = 0.0;
    if (has_report) {
        report(in, out, &max, &lse);
        memcpy(in->raw, in->logits, (size_t)in->n_vocab * sizeof in->raw[0]);
    }
    adjust(in);
    if (in->params->temperature == 0.0f) {
        out->token = in->kern->argmax(in->logits, in->n_vocab);
        if (out->token < 0 || !isfinite(in->logits[out->token])) {
            return false;
        }
    } else if (!draw(in, &out->token)) {
        return false;
    }
    if (has_report) {
        out->logprob = (float)((double)(in->raw[out->token] - max) - lse);
    }
    return true;
}
