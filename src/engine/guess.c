/* guess - which tokens may come next, and whether to compute them at once
 *
 * A step reads all weights whether it computes one token of an answer or several, so computing the
 * tokens that will probably follow beside the one that is certain costs little while memory is the
 * limit. Rows of scores are then sampled in order, each as it would have been alone, and go on
 * counting as long as the sampled token is the guessed one. Since a row's bits do not depend on its
 * step and random numbers belong to positions, the answer is the same to the bit; a wrong guess
 * costs its row, nothing else (Leviathan et al. 2023 accept by chance instead, and keep only the
 * distribution).
 *
 * Guesses are read from the sequence itself (Saxena 2023, "prompt lookup"): where its last tokens
 * stood before, what followed then may follow again. Answers that quote, edit or sum up their
 * prompt, and loops, repeat long parts of it.
 *
 *     place      0 1 2 3 4 5 6 7 8
 *     text       a b c d e x b c d      at = 4: the next will be e; n_same = 3
 *
 * Every place is entered under a hash of the pair of tokens that ends there; the places of one hash
 * form a chain, newest first. Of the first CHAIN_MAX the one with most agreeing tokens before it
 * wins. While guesses are right `at` just moves on; past the end it reads guesses as text, so that
 * a loop goes on. After a wrong one without a known pair, the place behind it gets one more chance,
 * as when a name was replaced.
 *
 * Every token is compared with its guess whether that was computed or not, so rates of success are
 * known without computing anything, and costs are learned from the steps that are made anyway. What
 * a step of another size would take is first taken from the speed of prompts (the limit of
 * arithmetic) on top of the step that is known (the limit of memory): more than the truth.
 *
 * Rejected: one fixed number of guesses (slower wherever they are wrong), a trial of guesses now
 * and then (costs where it brings nothing), and tables over all requests (one would see what others
 * wrote in the time its answer takes).
 *
 * Invariants GU-1 and GU-2 stand in guess.h; tests/test_guess.c has a plain twin of the search.
 * Next: engine.c. */
#include "engine/guess.h"

#include <assert.h>
#include <string.h>

#define CHAIN_MAX  16
#define SAME_MAX   32    /* tokens compared at most */
#define MEMORY     32.0f /* a rate is over about so many guesses */
#define CHANCE_MIN 0.02

/* --- places ----------------------------------------------------------------------------------- */

enum err guess_init(struct guess *g, int32_t n_max, struct arena *arena)
{
    *g = (struct guess){ .n_head = 256, .n_max = n_max, .at = -1 };
    while (g->n_head < n_max && g->n_head < 1 << 24) {
        g->n_head *= 2;
    }
    g->head = arena_take(arena, (size_t)g->n_head * sizeof g->head[0]);
    g->prev = arena_take(arena, (size_t)n_max * sizeof g->prev[0]);
    REQUIRE(g->head != NULL && g->prev != NULL, ERR_MEMORY,
            "guesses of %d tokens: the arena is too small", n_max);
    return ERR_OK;
}

static int32_t slot_of(const struct guess *g, int32_t a, int32_t b)
{
    const uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9E3779B97F4A7C15u;
    return (int32_t)(h >> 40) & (g->n_head - 1);
}

/* Enters place i, which must be the next. */
static void enter(struct guess *g, const int32_t *text, int32_t i)
{
    assert(i == g->n && i < g->n_max);
    g->prev[i] = -1;
    if (i > 0) {
        int32_t *head = &g->head[slot_of(g, text[i - 1], text[i])];
        g->prev[i] = *head;
        *head = i;
    }
    g->n++;
}

/* Tokens up to places a < b that agree. */
static int32_t count_same(const int32_t *text, int32_t a, int32_t b)
{
    int32_t n = 0;
    while (n < SAME_MAX && n <= a && text[a - n] == text[b - n]) {
        n++;
    }
    return n;
}

/* The best place to go on from the last one; at = -1 when its pair is new. */
static void find(struct guess *g, const int32_t *text)
{
    const int32_t last = g->n - 1;
    int32_t i = g->prev[last];
    g->at = -1;
    g->n_same = 1;
    for (int32_t k = 0; k < CHAIN_MAX && i >= 0; k++, i = g->prev[i]) {
        const int32_t n = count_same(text, i, last);
        if (n > g->n_same) {
            g->n_same = n;
            g->at = i + 1;
        }
    }
}

void guess_begin(struct guess *g, const int32_t *text, int32_t n)
{
    /* How often they are right before anything was seen, with the weight of a few. */
    static const float chance[GUESS_CLASSES] = { 0.15f, 0.15f, 0.3f, 0.5f, 0.7f, 0.85f };
    const float weight = 3.0f;
    for (int32_t i = 0; i < g->n_head; i++) {
        g->head[i] = -1;
    }
    for (int i = 0; i < GUESS_CLASSES; i++) {
        g->n_right[i] = weight * chance[i];
        g->n_all[i] = weight;
    }
    g->n = 0;
    while (g->n < n) {
        enter(g, text, g->n);
    }
    find(g, text);
}

/* 0..1, 2, 3..4, 5..8, 9..16, more */
static int class_of(int32_t n_same)
{
    int c = 0;
    while (c < GUESS_CLASSES - 1 && n_same > 1 << c) {
        c++;
    }
    return c;
}

void guess_next(struct guess *g, const int32_t *text, int32_t n)
{
    assert(n == g->n + 1);
    const int32_t at = g->at;
    const bool is_right = at >= 0 && text[at] == text[n - 1];
    const bool may_skip = at >= 0 && g->n_same > 0;
    if (at >= 0) {
        const int c = class_of(g->n_same);
        g->n_right[c] = g->n_right[c] * (1.0f - 1.0f / MEMORY) + (is_right ? 1.0f : 0.0f);
        g->n_all[c] = g->n_all[c] * (1.0f - 1.0f / MEMORY) + 1.0f;
    }
    enter(g, text, n - 1);
    if (is_right) {
        g->at++;
        g->n_same += g->n_same < SAME_MAX;
        return;
    }
    find(g, text);
    if (g->at < 0 && may_skip) {
        g->at = at + 1;
        g->n_same = 0;
    }
}

void guess_write(const struct guess *g, int32_t *text, int32_t n, int32_t k)
{
    assert(k == 0 || (g->at >= 0 && g->at < n));
    for (int32_t i = 0; i < k; i++) {
        text[n + i] = text[g->at + i];
    }
}

double guess_chance(const struct guess *g, int32_t k)
{
    const int c = class_of(g->n_same + k);
    return g->at >= 0 ? (double)g->n_right[c] / (double)g->n_all[c] : 0.0;
}

/* --- costs ------------------------------------------------------------------------------------ */

/* Products take tokens in tiles of these sizes (kern/gemm_act.h). */
static int size_of(int32_t n_row)
{
    const int i = n_row <= 2 ? (int)n_row - 1 : n_row <= 4 ? 2 : 2 + (int)(n_row + 7) / 8;
    return i < GUESS_SIZES ? i : GUESS_SIZES - 1;
}

static int32_t rows_of(int size)
{
    return size < 3 ? 1 << size : 8 * (size - 2);
}

/* Sizes never measured: the largest below that was, and the price of the rows between. */
double guess_us(const struct guess_cost *c, int32_t n_row, double row_us)
{
    const int size = size_of(n_row);
    int known = size;
    while (known >= 0 && c->shape[known] <= 0.0) {
        known--;
    }
    if (known < 0) {
        for (known = size; known < GUESS_SIZES && c->shape[known] <= 0.0; known++) {
        }
        return known < GUESS_SIZES ? c->scale_us * c->shape[known] : 0.0;
    }
    const double us = c->scale_us * c->shape[known];
    const double each = row_us > 0.0 ? row_us : us / 2.0 / rows_of(known);
    return us + each * (rows_of(size) - rows_of(known));
}

/* All sizes become slower or faster together with the one that was seen, by a quarter of what it
 * says, so that those seen long ago do not stay behind when the box gets busy or the context long;
 * the size itself by an eighth more. Nothing that happens once moves them far. */
void guess_timed(struct guess_cost *c, int32_t n_row, double us, double row_us)
{
    const int size = size_of(n_row);
    const double planned = guess_us(c, n_row, row_us);
    us = us > 1.0 ? us : 1.0;
    if (planned <= 0.0) {
        c->scale_us = us;
        c->shape[size] = 1.0;
        return;
    }
    const double ratio = us < planned / 2.0 ? 0.5 : us > 2.0 * planned ? 2.0 : us / planned;
    if (c->shape[size] <= 0.0) {
        c->shape[size] = planned * ratio / c->scale_us;
        return;
    }
    c->scale_us *= 1.0 + (ratio - 1.0) / 4.0;
    c->shape[size] *= 1.0 + (ratio - 1.0) / 8.0;
}

static struct guess_bid *most_promising(struct guess_bid *bids, int32_t n_bid)
{
    struct guess_bid *best = &bids[0];
    for (int32_t i = 1; i < n_bid; i++) {
        best = bids[i].chance > best->chance ? &bids[i] : best;
    }
    return best;
}

/* The most promising guess first, whoever's it is; then as many of them as make most tokens per
 * second. */
void guess_share(const struct guess_cost *c, struct guess_bid *bids, int32_t n_bid, double row_us)
{
    int32_t picked[GUESS_MAX];
    int32_t n_picked = 0;
    int32_t n_best = 0;
    for (int32_t i = 0; i < n_bid; i++) {
        bids[i].n = 0;
        bids[i].chance = bids[i].most > 0 ? guess_chance(bids[i].guess, 0) : 0.0;
    }
    const double us = n_bid > 0 ? guess_us(c, n_bid, row_us) : 0.0;
    double best = us > 0.0 ? GUESS_GAIN_MIN * n_bid / us : 0.0;
    double n_tok = n_bid;
    while (us > 0.0 && n_picked < GUESS_MAX) {
        struct guess_bid *b = most_promising(bids, n_bid);
        if (b->chance < CHANCE_MIN) {
            break;
        }
        picked[n_picked++] = (int32_t)(b - bids);
        n_tok += b->chance;
        b->n++;
        b->chance = b->n < b->most ? b->chance * guess_chance(b->guess, b->n) : 0.0;
        const double rate = n_tok / guess_us(c, n_bid + n_picked, row_us);
        if (rate > best) {
            best = rate;
            n_best = n_picked;
        }
    }
    while (n_picked > n_best) {
        bids[picked[--n_picked]].n--;
    }
}
