/* predict - how fast a model will answer on this box, before anything is loaded
 *
 * As the plan is the forward pass run on a backend that counts, the prediction is the forward pass
 * run on one that tries each kind of operation for some milliseconds (back/be_time.c). Nothing of
 * the model is needed but its header.
 *
 * A prompt is computed in pieces, as the scheduler cuts it, the last of which has scores. What a
 * piece takes grows with the positions before it, by the same for each, so of those before the last
 * the first and the last stand for all. An answer's step is one token of each conversation, all
 * equally deep. What the engine does between two steps is the choice of the tokens, and STEP_US for
 * all else: laying out, text, events.
 *
 * Where layers are read from the disk, that goes on while others are computed, and ahead of them
 * into the next step (model/stream.c): a step takes as long as the longer of the two. Experts are
 * read when they are chosen, so a step of a few tokens takes the sum. Where most of a layer's are
 * wanted the next layer's are read ahead (model/depot.c), and again the longer of the two counts;
 * but the disk goes on only when it is looked at, and rests in between (back/be_time.c).
 *
 * Guessed tokens are left out: what they gain depends on the text.
 *
 * Next: lib/speed.c. */
#include "engine/predict.h"

#include <math.h>

#define PREDICT_RUNS 256  /* SCHED_SEQ_MAX */
#define STEP_US      15.0 /* of the engine, between two steps */

/* n_run sequences with n_tok tokens each, at pos0; scores for one each, or none. */
struct shape {
    int32_t n_run;
    int32_t n_tok;
    int32_t pos0;
    bool has_scores;
};

double predict_read(double one, double all, int32_t n)
{
    return all > one ? all * (1.0 - pow(1.0 - one / all, n)) : one;
}

/* A step's time with what it reads, of us microseconds without. */
static double with_disk(const struct predict *p, const struct be_time *t, int32_t n_tok, double us)
{
    const double disk_us = predict_read(p->disk_us, p->piece_disk_us, n_tok);
    if (p->is_late && disk_us <= p->piece_disk_us / 2.0) {
        return us + disk_us;
    }
    return fmax(us, disk_us + t->rest_us);
}

/* Microseconds of a step. */
static enum err step_us(struct plan_context *x, struct be_time *t, struct shape s,
                        const struct predict *p, double *us)
{
    struct back_run runs[PREDICT_RUNS];
    REQUIRE(s.n_run <= PREDICT_RUNS, ERR_LIMIT, "%d answers at once, %d can be predicted", s.n_run,
            PREDICT_RUNS);
    for (int32_t i = 0; i < s.n_run; i++) {
        runs[i] = (struct back_run){ .tok0 = i * s.n_tok, .n_tok = s.n_tok, .pos0 = s.pos0 };
    }
    const struct decoder_step step = { .n_tok = s.n_run * s.n_tok, .runs = runs, .n_run = s.n_run };
    const size_t mark = arena_mark(t->back.step);
    float *hidden = NULL;
    t->fly_us = p->fly_us;
    t->n_look = p->n_look;
    be_time_begin(t);
    TRY(decoder_forward(&x->decoder, &step, &hidden));
    if (s.has_scores) {
        decoder_logits(&x->decoder, hidden, NULL, s.n_run);
        t->us += be_time_choose_us(t, x->decoder.arch->n_vocab, s.n_run);
    }
    arena_rewind(t->back.step, mark);
    *us = with_disk(p, t, step.n_tok, t->us + STEP_US);
    REQUIRE(!t->is_beyond, ERR_LIMIT, "the model's operations are too large to be tried");
    REQUIRE(isfinite(*us) && *us > 0.0, ERR_LIMIT, "the box's memory or clock cannot be measured");
    return ERR_OK;
}

static enum err prompt_us(struct plan_context *x, struct be_time *t, int32_t n_batch,
                          const struct predict *p, double *us)
{
    const int32_t n_whole = (p->n_prompt - 1) / n_batch; /* before the last piece */
    const int32_t n_end = p->n_prompt - n_whole * n_batch;
    struct shape s = { 1, n_batch, p->n_depth, false };
    double first = 0.0;
    double last = 0.0;
    double end = 0.0;
    if (n_whole > 0) {
        TRY(step_us(x, t, s, p, &first));
        last = first;
    }
    if (n_whole > 1) {
        s.pos0 = p->n_depth + (n_whole - 1) * n_batch;
        TRY(step_us(x, t, s, p, &last));
    }
    s = (struct shape){ 1, n_end, p->n_depth + n_whole * n_batch, true };
    TRY(step_us(x, t, s, p, &end));
    *us = (first + last) / 2.0 * n_whole + end;
    return ERR_OK;
}

static enum err predict_one(struct plan_context *x, struct be_time *t, int32_t n_batch,
                            struct predict *p)
{
    double us = 0.0;
    p->prefill_tok_s = 0.0;
    p->decode_tok_s = 0.0;
    REQUIRE(p->n_prompt >= 0 && p->n_depth >= 0 && p->n_parallel >= 0 &&
                p->n_prompt <= ARCH_CTX_MAX && p->n_depth <= ARCH_CTX_MAX,
            ERR_USAGE, "a prompt of %d tokens behind %d, %d answers: cannot be predicted",
            p->n_prompt, p->n_depth, p->n_parallel);
    if (p->n_prompt > 0) {
        TRY(prompt_us(x, t, n_batch, p, &us));
        p->prefill_tok_s = 1e6 * p->n_prompt / us;
    }
    if (p->n_parallel > 0) {
        TRY(step_us(x, t, (struct shape){ p->n_parallel, 1, p->n_depth, true }, p, &us));
        p->decode_tok_s = 1e6 * p->n_parallel / us;
    }
    return ERR_OK;
}

enum err predict_speed(const struct arch *a, const struct weights *w, const struct plan_config *c,
                       struct be_time *t, struct predict *p, size_t n_p)
{
    struct arena context;
    struct plan_context x = { 0 };
    arena_open_counting(&context);
    TRY(plan_take(&x, a, w, c, &t->back, &context));
    for (size_t i = 0; i < n_p; i++) {
        struct predict one = p[i];
        TRY(predict_one(&x, t, c->n_batch, &one));
        p[i] = one;
    }
    return ERR_OK;
}
