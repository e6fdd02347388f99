/* sample - from scores to a token (engine/sample.c)
 *
 * Pure functions of their arguments: the same scores, history and counters give the same token on
 * every machine. Random numbers are counter-based: they depend on (seed, choice, position, draw)
 * alone, so an answer does not depend on the company a request had.
 * Any thread; the scratch of sample_input is the caller's. */
#ifndef HEARTH_SAMPLE_H
#define HEARTH_SAMPLE_H

#include "base/err.h"
#include "kern/kern.h"

#include <stdbool.h>
#include <stdint.h>

#define SAMPLE_BIAS_MAX 1024
#define SAMPLE_TOP_MAX  20

struct sample_bias {
    int32_t token;
    float bias;
};

struct sample_params {
    float temperature;    /* 0: the best token; else 1e-6..100, so that scores stay finite */
    int32_t top_k;        /* 0: off */
    float top_p;          /* 1: off */
    float min_p;          /* 0: off */
    float typical_p;      /* 1: off */
    float repeat_penalty; /* 0.01..100; 1: off */
    float presence_penalty;
    float frequency_penalty;
    int32_t repeat_last_n; /* -1: all */
    uint64_t seed;
    int32_t n_logprob; /* -1: none; else alternatives to report */
    int32_t n_bias;
    struct sample_bias bias[SAMPLE_BIAS_MAX];
};

/* ERR_USAGE naming the field when a value is outside its range (NaN included). */
enum err sample_check(const struct sample_params *p, int32_t n_vocab) MUST_USE;

/* A candidate during selection. */
struct sample_cand {
    float p; /* weight, not normalized */
    int32_t id;
};

struct sample_input {
    const struct sample_params *params;
    float *logits; /* [n_vocab], raw; changed by penalties and bias */
    int32_t n_vocab;
    const int32_t *prompt; /* [n_prompt] */
    int32_t n_prompt;
    const int32_t *answer; /* [n_answer] generated so far */
    int32_t n_answer;
    int32_t choice;
    const struct kern_table *kern;
    struct sample_cand *cands; /* [2 * n_vocab] scratch */
    float *raw;                /* [n_vocab] scratch, used when n_logprob >= 0 */
    int32_t *counts;           /* [n_vocab] scratch, all 0 before and after */
    const int32_t *banned;     /* [n_banned] tokens that may not come (ignore-eos) */
    int32_t n_banned;
    bool is_guess; /* nobody reads its log probabilities */
};

struct sample_output {
    int32_t token;
    float logprob; /* of the raw scores; 0 unless n_logprob >= 0 */
    int32_t n_top;
    struct sample_bias top[SAMPLE_TOP_MAX]; /* token and logprob of the raw scores, best first */
};

/* false when the scores hold nothing that can be chosen (all NaN or -inf): the model is broken. */
bool sample_row(const struct sample_input *in, struct sample_output *out) MUST_USE;

/* Philox 4x32-10 of four counters and a 64-bit key, as a double in [0, 1) with 53 bits. */
double sample_uniform(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw);

#endif
