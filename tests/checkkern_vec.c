/* checkkern_vec - norms, activation functions, rotation and reductions against the scalar entries
 *
 * Lengths cover every remainder of 16 and those of real models. Each entry is called as its header
 * allows: with and without weights, in place and not. The functions of one float are also walked
 * through all exponents. See checkkern.h for the data and what counts as equal.
 *
 * Next: checkkern_attn.c. */
#include "checkkern.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define N_MAX 5000

struct pair { /* one call's output, by both tables */
    float *want, *got;
};

struct run {
    const struct kern_table *ref, *t;
    uint64_t *hash;
    struct checkkern_rand rand;
    struct checkkern_buf in[4], out[2];
    int n_bad;
};

static float *input(struct run *c, int i, enum checkkern_kind kind, int32_t n)
{
    return checkkern_floats(&c->in[i], &c->rand, kind, n);
}

/* Two outputs that start as copies of from[n], for entries that work in place. */
static struct pair copies(struct run *c, const float *from, int32_t n)
{
    const size_t bytes = (size_t)n * sizeof from[0];
    const struct pair p = { checkkern_end(&c->out[0], bytes), checkkern_end(&c->out[1], bytes) };
    memcpy(p.want, from, bytes);
    memcpy(p.got, from, bytes);
    return p;
}

static void compare(struct run *c, const char *what, struct pair p, int32_t n)
{
    char text[96];
    snprintf(text, sizeof text, "%s: %s, n %d", c->t->name, what, n);
    c->n_bad += !checkkern_same(text, p.want, p.got, (size_t)n, c->hash);
}

static void check_norms(struct run *c, enum checkkern_kind kind, int32_t n)
{
    const float *x = input(c, 0, kind, n);
    const float *w = input(c, 1, kind, n);
    const float *b = input(c, 2, CHECKKERN_PLAIN, n);
    const float eps = kind == CHECKKERN_TINY ? 0.0f : 1e-5f;
    struct pair p = copies(c, b, n);
    c->ref->norm_rms(p.want, x, w, eps, n);
    c->t->norm_rms(p.got, x, w, eps, n);
    compare(c, "norm_rms", p, n);
    p = copies(c, x, n);
    c->ref->norm_rms(p.want, p.want, NULL, eps, n);
    c->t->norm_rms(p.got, p.got, NULL, eps, n);
    compare(c, "norm_rms in place, no weight", p, n);
    p = copies(c, w, n);
    c->ref->norm_layer(p.want, x, w, b, eps, n);
    c->t->norm_layer(p.got, x, w, b, eps, n);
    compare(c, "norm_layer", p, n);
    p = copies(c, x, n);
    c->ref->norm_layer(p.want, p.want, w, NULL, eps, n);
    c->t->norm_layer(p.got, p.got, w, NULL, eps, n);
    compare(c, "norm_layer in place, no bias", p, n);
    p = copies(c, w, n);
    c->ref->norm_layer(p.want, x, NULL, b, eps, n);
    c->t->norm_layer(p.got, x, NULL, b, eps, n);
    compare(c, "norm_layer, no weight", p, n);
}

static void check_glu(struct run *c, enum checkkern_kind kind, int32_t n)
{
    for (int fn = 0; fn < KERN_FN_COUNT; fn++) {
        const float *gate = input(c, 0, kind, n);
        const float *up = input(c, 1, kind, n);
        struct pair p = copies(c, up, n);
        c->ref->glu((enum kern_fn)fn, p.want, gate, NULL, n);
        c->t->glu((enum kern_fn)fn, p.got, gate, NULL, n);
        compare(c, "glu alone", p, n);
        p = copies(c, gate, n);
        c->ref->glu((enum kern_fn)fn, p.want, p.want, up, n);
        c->t->glu((enum kern_fn)fn, p.got, p.got, up, n);
        compare(c, "glu in the gate's place", p, n);
        p = copies(c, up, n);
        c->ref->glu((enum kern_fn)fn, p.want, gate, p.want, n);
        c->t->glu((enum kern_fn)fn, p.got, gate, p.got, n);
        compare(c, "glu in the other's place", p, n);
    }
}

static void check_elements(struct run *c, enum checkkern_kind kind, int32_t n)
{
    const float *y = input(c, 0, kind, n);
    const float *x = input(c, 1, kind, n);
    const float a = checkkern_float(&c->rand, CHECKKERN_PLAIN);
    struct pair p = copies(c, y, n);
    c->ref->add(p.want, x, n);
    c->t->add(p.got, x, n);
    compare(c, "add", p, n);
    p = copies(c, y, n);
    c->ref->add_scaled(p.want, x, a, n);
    c->t->add_scaled(p.got, x, a, n);
    compare(c, "add_scaled", p, n);
    p = copies(c, y, n);
    c->ref->mul(p.want, x, n);
    c->t->mul(p.got, x, n);
    compare(c, "mul", p, n);
    p = copies(c, y, n);
    c->ref->scale(p.want, a, n);
    c->t->scale(p.got, a, n);
    compare(c, "scale", p, n);
    p = copies(c, y, n);
    c->ref->soft_cap(p.want, 1.5f, n);
    c->t->soft_cap(p.got, 1.5f, n);
    compare(c, "soft_cap", p, n);
}

static void check_reductions(struct run *c, enum checkkern_kind kind, int32_t n)
{
    float *x = input(c, 0, kind, n);
    if (n > 3) { /* equals, so that "first" means something */
        x[n - 1] = x[n / 2];
        x[n / 3] = x[n / 2];
    }
    char text[96];
    snprintf(text, sizeof text, "%s: reductions, n %d", c->t->name, n);
    const float most = c->ref->max(x, n);
    float want[4] = { most, (float)c->ref->argmax(x, n) };
    float got[4] = { c->t->max(x, n), (float)c->t->argmax(x, n) };
    want[2] = c->ref->exp_sum(NULL, x, most, n);
    got[2] = c->t->exp_sum(NULL, x, most, n);
    const struct pair p = copies(c, x, n);
    want[3] = c->ref->exp_sum(p.want, p.want, most, n);
    got[3] = c->t->exp_sum(p.got, p.got, most, n);
    c->n_bad += !checkkern_same(text, want, got, 4, c->hash);
    compare(c, "exp_sum in place", p, n);
    if (c->t->max(x, n) > -INFINITY && c->t->max(x, n) != x[c->t->argmax(x, n)]) {
        printf("# %s: argmax of %d is not where the maximum is\n", c->t->name, n);
        c->n_bad++;
    }
}

static void check_rope(struct run *c, enum checkkern_kind kind)
{
    static const int32_t dims[][2] = { { 2, 2 },     { 8, 6 },    { 16, 16 },   { 32, 32 },
                                       { 64, 64 },   { 64, 16 },  { 80, 20 },   { 80, 80 },
                                       { 96, 72 },   { 100, 66 }, { 128, 128 }, { 128, 64 },
                                       { 256, 256 }, { 512, 510 } };
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        const int32_t hd = dims[i][0];
        const int32_t n_rot = dims[i][1];
        const int32_t n_head = 1 + checkkern_below(&c->rand, 4);
        const float *x = input(c, 0, kind, n_head * hd);
        const float *cos = input(c, 1, CHECKKERN_PLAIN, n_rot / 2);
        const float *sin = input(c, 2, CHECKKERN_TINY, n_rot / 2);
        for (int k = 0; k < 2; k++) {
            const enum kern_rope how = k == 0 ? KERN_ROPE_PAIRS : KERN_ROPE_HALVES;
            const struct pair p = copies(c, x, n_head * hd);
            c->ref->rope(how, p.want, n_head, hd, n_rot, cos, sin);
            c->t->rope(how, p.got, n_head, hd, n_rot, cos, sin);
            compare(c, k == 0 ? "rope of pairs" : "rope of halves", p, n_head * hd);
        }
    }
}

/* Every exponent and sign, a few significands each: the branches and borders of the functions. */
static void check_all_exponents(struct run *c)
{
    float *x = checkkern_end(&c->in[0], 8 * 512 * sizeof x[0]);
    for (uint32_t e = 0; e < 512; e++) {
        for (int i = 0; i < 8; i++) {
            const uint32_t u = (e << 23) | (i == 0   ? 0
                                            : i == 1 ? 0x7FFFFF
                                                     : checkkern_bits(&c->rand) >> 9);
            memcpy(&x[e * 8 + (uint32_t)i], &u, sizeof u);
        }
    }
    for (int fn = 0; fn < KERN_FN_COUNT; fn++) {
        const struct pair p = copies(c, x, 8 * 512);
        c->ref->glu((enum kern_fn)fn, p.want, x, NULL, 8 * 512);
        c->t->glu((enum kern_fn)fn, p.got, x, NULL, 8 * 512);
        compare(c, "activation function, all exponents", p, 8 * 512);
    }
    struct pair p = copies(c, x, 8 * 512);
    c->ref->soft_cap(p.want, 1.0f, 8 * 512);
    c->t->soft_cap(p.got, 1.0f, 8 * 512);
    compare(c, "tanh, all exponents", p, 8 * 512);
    p = copies(c, x, 8 * 512);
    c->ref->exp_sum(p.want, x, 0.0f, 8 * 512);
    c->t->exp_sum(p.got, x, 0.0f, 8 * 512);
    compare(c, "exp, all exponents", p, 8 * 512);
}

/* argmax where everything is hidden, equal, or not a number. */
static void check_argmax(struct run *c)
{
    static const float fill[] = { -INFINITY, NAN, 0.0f, INFINITY };
    for (size_t k = 0; k < sizeof fill / sizeof fill[0]; k++) {
        for (int32_t n = 1; n < N_MAX; n = n * 3 + 1) {
            float *x = checkkern_end(&c->in[0], (size_t)n * sizeof x[0]);
            for (int32_t i = 0; i < n; i++) {
                x[i] = fill[k];
            }
            x[0] = (n & 1) != 0 ? NAN : x[0];
            const int32_t want = c->ref->argmax(x, n);
            const int32_t got = c->t->argmax(x, n);
            *c->hash = (*c->hash ^ (uint64_t)got) * 0x100000001B3u;
            if (want != got) {
                printf("# %s: argmax of %d times %g is %d, should be %d\n", c->t->name, n,
                       (double)fill[k], got, want);
                c->n_bad++;
            }
        }
    }
}

int checkkern_vec(const struct kern_table *ref, const struct kern_table *t, uint64_t *hash)
{
    static const int32_t extra[] = { 48, 64, 80, 100, 127, 576, 1000, 1536, 2049, 4097 };
    struct run c = { .ref = ref, .t = t, .hash = hash, .rand = { 1 } };
    for (int i = 0; i < 4; i++) {
        checkkern_open(&c.in[i], N_MAX * sizeof(float));
    }
    checkkern_open(&c.out[0], N_MAX * sizeof(float));
    checkkern_open(&c.out[1], N_MAX * sizeof(float));
    for (int kind = 0; kind < CHECKKERN_KINDS; kind++) {
        for (int32_t i = 0; i < 34 + (int32_t)(sizeof extra / sizeof extra[0]); i++) {
            const int32_t n = i < 34 ? i + 1 : extra[i - 34];
            check_norms(&c, (enum checkkern_kind)kind, n);
            check_glu(&c, (enum checkkern_kind)kind, n);
            check_elements(&c, (enum checkkern_kind)kind, n);
            check_reductions(&c, (enum checkkern_kind)kind, n);
        }
        check_rope(&c, (enum checkkern_kind)kind);
    }
    check_all_exponents(&c);
    check_argmax(&c);
    for (int i = 0; i < 4; i++) {
        checkkern_close(&c.in[i]);
    }
    checkkern_close(&c.out[0]);
    checkkern_close(&c.out[1]);
    return c.n_bad;
}
