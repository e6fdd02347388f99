/* engine_open - the engine's memory, its start and its end
 *
 * Everything that requests will ever need is taken here, by the same code that counted it for the
 * plan: their places (prompt, events, text) in one arena, cache and tables in a second, the
 * workspace of a step in a third. From the thread's start on nothing is allocated (EN-1).
 *
 * Before the first request the engine checks itself, and a small model that guesses: two tokens
 * computed in one step must give exactly the scores that they give one after another, through one
 * layer of each kind that the model has. A kernel that breaks the numeric contract is found before
 * it answers anybody; a machine that miscomputes only where it does so in those layers.
 *
 * Next: engine.c, the thread. */
#include "engine/engine_int.h"

#include "base/event.h"
#include "base/os.h"

#include <math.h>
#include <string.h>

/* --- memory ----------------------------------------------------------------------------------- */

/* Takes everything but cache and workspace; the same code sizes and fills. */
static bool take_requests(struct engine *e, struct arena *a, int32_t n_vocab)
{
    const struct plan_config *c = &e->config;
    const size_t n_seq = (size_t)c->n_parallel;
    const size_t n_row = (size_t)(c->n_batch > GUESS_MAX ? c->n_batch : GUESS_MAX) + n_seq;
    const size_t vocab = back_ld(n_vocab);
    e->n_job = c->n_queue + c->n_parallel;
    struct job *jobs = arena_take(a, (size_t)e->n_job * sizeof jobs[0]);
    struct slot *slots = arena_take(a, n_seq * sizeof slots[0]);
    for (int32_t i = 0; i < e->n_job && jobs != NULL; i++) {
        int32_t *prompt = arena_take(a, (size_t)c->n_ctx * sizeof prompt[0]);
        char *text = arena_take(a, e->text_room);
        if (!a->is_counting) {
            jobs[i].prompt = prompt;
            jobs[i].text = text;
        }
    }
    for (size_t i = 0; i < n_seq && slots != NULL; i++) {
        struct guess guess;
        int32_t *text = arena_take(a, (size_t)c->n_ctx * sizeof text[0]);
        if (guess_init(&guess, c->n_ctx, a) != ERR_OK) {
            return false;
        }
        if (!a->is_counting) {
            slots[i].text = text;
            slots[i].guess = guess;
        }
    }
    e->jobs = jobs;
    e->slots = slots;
    e->bids = arena_take(a, n_seq * sizeof e->bids[0]);
    e->tokens = arena_take(a, n_row * sizeof e->tokens[0]);
    e->pos = arena_take(a, n_row * sizeof e->pos[0]);
    e->rows = arena_take(a, n_row * sizeof e->rows[0]);
    e->runs = arena_take(a, (n_seq + 1) * sizeof e->runs[0]);
    e->row = arena_take(a, vocab * sizeof e->row[0]);
    e->cands = arena_take(a, 2 * vocab * sizeof e->cands[0]);
    e->counts = arena_take(a, vocab * sizeof e->counts[0]);
    e->raw = arena_take(a, vocab * sizeof e->raw[0]);
    return e->raw != NULL;
}

/* What one step may bring at most: for each choice a token's text and the rest at its end; or all
 * guesses for one. */
static void size_text(struct engine *e, size_t piece_max)
{
    const size_t most =
        2 * ENGINE_CHOICE_MAX > GUESS_MAX + 2 ? 2 * ENGINE_CHOICE_MAX : GUESS_MAX + 2;
    e->piece_max = piece_max;
    e->text_room = most * emit_room_bytes(piece_max);
}

/* --- the check at start ----------------------------------------------------------------------- */

#define CHECK_ROWS (64 * TENSOR_PANEL_ROWS) /* of the output matrix, in the second step */

/* What the two steps share. */
struct check {
    struct engine *e;
    struct plan_context *x;
    bool only[ARCH_LAYER_MAX];
};

static bool is_like(const struct tensor *a, const struct tensor *b)
{
    return a->type == b->type && a->n_row == b->n_row && a->n_col == b->n_col;
}

/* All experts of a layer are alike. */
static bool has_like_experts(const struct weights_layer *a, const struct weights_layer *b)
{
    const struct weights_expert *x = a->expert;
    const struct weights_expert *y = b->expert;
    return a->router_b.n == b->router_b.n && a->expert_gate_b.n == b->expert_gate_b.n &&
           a->expert_up_b.n == b->expert_up_b.n && a->expert_down_b.n == b->expert_down_b.n &&
           is_like(&a->router, &b->router) && is_like(&a->shared_gate, &b->shared_gate) &&
           (x == NULL || (is_like(&x->gate, &y->gate) && is_like(&x->up, &y->up) &&
                          is_like(&x->down, &y->down)));
}

/* Whether two layers are computed by the same kernels on the same shapes. */
static bool is_same_kind(const struct plan_context *x, int32_t i, int32_t j)
{
    const struct arch_layer *ai = &x->decoder.arch->layer[i];
    const struct arch_layer *aj = &x->decoder.arch->layer[j];
    const struct weights_layer *a = &x->decoder.weights->layer[i];
    const struct weights_layer *b = &x->decoder.weights->layer[j];
    const bool has_same_vectors =
        a->q_b.n == b->q_b.n && a->k_b.n == b->k_b.n && a->v_b.n == b->v_b.n &&
        a->o_b.n == b->o_b.n && a->gate_b.n == b->gate_b.n && a->up_b.n == b->up_b.n &&
        a->down_b.n == b->down_b.n && a->attn_norm.b.n == b->attn_norm.b.n &&
        a->ffn_norm.b.n == b->ffn_norm.b.n;
    return ai->is_window == aj->is_window && ai->has_rope == aj->has_rope && has_same_vectors &&
           is_like(&a->q, &b->q) && is_like(&a->k, &b->k) && is_like(&a->v, &b->v) &&
           is_like(&a->o, &b->o) && is_like(&a->gate, &b->gate) && is_like(&a->up, &b->up) &&
           is_like(&a->down, &b->down) && has_like_experts(a, b);
}

/* The first layer of each kind. */
static void choose_layers(struct check *c)
{
    for (int32_t i = 0; i < c->x->decoder.arch->n_layer; i++) {
        bool is_new = true;
        for (int32_t j = 0; j < i && is_new; j++) {
            is_new = !c->only[j] || !is_same_kind(c->x, i, j);
        }
        c->only[i] = is_new;
    }
}

/* The scores of the first n_row tokens. */
static const float *score(const struct plan_context *x, const float *hidden, int32_t row,
                          int32_t n_row)
{
    struct decoder d = x->decoder;
    struct arch a = *d.arch;
    struct weights w = *d.weights;
    a.n_vocab = w.output.n_row = n_row;
    w.output.bytes = w.output.stride * (size_t)tensor_panels(&w.output);
    d.arch = &a;
    d.weights = &w;
    return decoder_logits(&d, hidden, &row, 1);
}

/* The scores of n_row tokens after the last of n tokens of sequence 0, computed from `pos0` on, by
 * the layers `only` or all; copied to `to`. */
static enum err check_step(const struct check *c, const bool *only, int32_t pos0, int32_t n,
                           float *to, int32_t n_row)
{
    struct engine *e = c->e;
    struct plan_context *x = c->x;
    struct kv_seq *seq = &x->seqs[0];
    const int32_t n_vocab = x->decoder.arch->n_vocab;
    const bool is_there = kv_seq_grow(&x->kv, seq, pos0 + n);
    REQUIRE(is_there, ERR_FAILED, "check at start: no pages");
    for (int32_t i = 0; i < n; i++) {
        const int32_t bos = tok_bos(e->parts.tok);
        e->tokens[i] = pos0 + i == 0 && bos >= 0 ? bos : (pos0 + i + 7) % n_vocab;
        e->pos[i] = pos0 + i;
    }
    e->runs[0] = (struct back_run){ .pages = seq->page, .n_tok = n, .pos0 = pos0 };
    const struct decoder_step step = {
        .tokens = e->tokens, .pos = e->pos, .n_tok = n, .runs = e->runs, .n_run = 1, .only = only
    };
    float *hidden = NULL;
    arena_rewind(&e->step, 0);
    TRY(decoder_forward(&x->decoder, &step, &hidden));
    memcpy(to, score(x, hidden, n - 1, n_row), (size_t)n_row * sizeof to[0]);
    return ERR_OK;
}

/* Scores that are no numbers come of weights that are none. */
static enum err check_scores(const float *row, int32_t n_vocab, const char *whose)
{
    for (int32_t i = 0; i < n_vocab; i++) {
        REQUIRE(isfinite(row[i]), ERR_INTEGRITY,
                "check at start%s: the score of token %d is not a finite number; the weights are "
                "damaged, which hearth verify MODEL may find",
                whose, i);
    }
    return ERR_OK;
}

/* The second of two tokens in one step, and then alone: equal bits are the contract (DE-1), and
 * unequal ones mean that a processor, its memory or a kernel is broken.
 *
 * All layers would mean to read all weights twice, which is most of a start; layers of one kind
 * run the same kernels on the same shapes, so one of each is computed. The scores of the first step
 * are all looked at, and with them each row of the output matrix; damage in another layer makes the
 * first answer fail (sample.c), as its scores go through all of them. A service must not call
 * itself ready before that, and nobody would see it in a model that guesses: there one token goes
 * through all layers. */
static enum err check_model(struct engine *e, struct plan_context *x, const char *whose)
{
    struct check c = { .e = e, .x = x };
    const int32_t n_own = x->decoder.arch->n_vocab;
    const int32_t n_vocab = n_own < e->parts.arch->n_vocab ? n_own : e->parts.arch->n_vocab;
    const int32_t n_row = n_vocab < CHECK_ROWS ? n_vocab : CHECK_ROWS;
    const int32_t n = e->config.n_ctx >= 2 && e->config.n_batch >= 2 ? 2 : 1;
    choose_layers(&c);
    if (e->config.checks_all || x == &e->draft.x) {
        TRY(check_step(&c, NULL, 0, 1, e->row, n_vocab));
        kv_seq_cut(&x->kv, &x->seqs[0], 0);
        TRY(check_scores(e->row, n_vocab, whose));
    }
    TRY(check_step(&c, c.only, 0, n, e->row, n_vocab));
    kv_seq_cut(&x->kv, &x->seqs[0], n - 1);
    TRY(check_step(&c, c.only, n - 1, 1, e->raw, n_row));
    kv_seq_cut(&x->kv, &x->seqs[0], 0);
    TRY(check_scores(e->row, n_vocab, whose));
    REQUIRE(memcmp(e->row, e->raw, (size_t)n_row * sizeof e->row[0]) == 0, ERR_FAILED,
            "check at start%s: two tokens at once give other scores than one alone; this machine "
            "or build miscomputes",
            whose);
    return ERR_OK;
}

enum err engine_check(struct engine *e)
{
    TRY(check_model(e, &e->x, ""));
    return e->parts.draft_arch != NULL ? check_model(e, &e->draft.x, " of the draft model")
                                       : ERR_OK;
}

/* --- opening and closing ---------------------------------------------------------------------- */

static void find_ends(struct engine *e)
{
    for (int32_t i = 0; i < tok_n_vocab(e->parts.tok); i++) {
        if (tok_is_end(e->parts.tok, i) && ALWAYS(e->n_end < ENDS_MAX)) {
            e->ends[e->n_end++] = i;
        }
    }
}

static size_t longest_piece(const struct tok *tok)
{
    size_t most = 256;
    for (int32_t i = 0; i < tok_n_vocab(tok); i++) {
        const size_t n = tok_piece(tok, i).n;
        most = n > most ? n : most;
    }
    return most;
}

enum err engine_request_bytes(const struct plan_config *c, const struct arch *a,
                              const struct tok *tok, uint64_t *out)
{
    struct engine e = { .config = *c };
    struct arena count;
    const size_t piece_max = longest_piece(tok);
    REQUIRE(emit_room_bytes(piece_max) <= ENGINE_TEXT_MAX, ERR_LIMIT,
            "the vocabulary has a piece of %zu bytes, which takes %zu as text; at most %d are "
            "supported",
            piece_max, emit_room_bytes(piece_max), ENGINE_TEXT_MAX);
    size_text(&e, piece_max);
    arena_open_counting(&count);
    REQUIRE(take_requests(&e, &count, a->n_vocab), ERR_LIMIT, "requests: sizes overflow");
    *out = count.peak + (uint64_t)c->n_parallel * emit_room_bytes(piece_max);
    return ERR_OK;
}

static enum err take_memory(struct engine *e, const struct plan *plan)
{
    uint64_t bytes = 0;
    TRY(engine_request_bytes(&e->config, e->parts.arch, e->parts.tok, &bytes));
    size_text(e, longest_piece(e->parts.tok));
    bytes -= (uint64_t)e->config.n_parallel * emit_room_bytes(e->piece_max); /* beside the arena */
    TRY(arena_open(&e->requests, (size_t)bytes, true));
    REQUIRE(take_requests(e, &e->requests, e->parts.arch->n_vocab), ERR_MEMORY,
            "requests: the arena is too small");
    TRY(team_arena(e->parts.team, &e->context, plan->context_bytes));
    TRY(team_arena(e->parts.team, &e->step, plan->step_bytes));
    be_cpu_init(&e->cpu, &e->step, e->parts.team, e->parts.kern);
    TRY(plan_take(&e->x, e->parts.arch, e->parts.weights, &e->config, &e->cpu.back, &e->context));
    e->x.decoder.stream = e->parts.stream;
    if (e->parts.draft_arch != NULL) {
        TRY(team_arena(e->parts.team, &e->draft_context, plan->draft_bytes));
        TRY(draft_init(&e->draft, e->parts.draft_arch, e->parts.draft_weights, &e->config,
                       &e->cpu.back, &e->draft_context));
    }
    for (int32_t i = 0; i < e->config.n_parallel; i++) {
        TRY(emit_init(&e->slots[i].emit, e->piece_max));
    }
    return ERR_OK;
}

/* All but the thread. */
static enum err prepare(struct engine *e, const struct plan *plan)
{
    REQUIRE(e->config.n_parallel >= 1 && e->config.n_parallel <= SCHED_SEQ_MAX &&
                e->config.n_queue >= 1 && e->config.n_queue <= SCHED_QUEUE_MAX &&
                e->config.n_ctx >= 2 && e->config.n_batch >= 1,
            ERR_USAGE,
            "parallel must lie in 1..%d, queue in 1..%d, ctx be 2 or more, batch 1 or more",
            SCHED_SEQ_MAX, SCHED_QUEUE_MAX);
    TRY(event_open(&e->fd));
    TRY(lock_open(&e->lock));
    TRY(take_memory(e, plan));
    find_ends(e);
    sched_init(&e->sched, e->config.n_parallel, e->config.n_queue, e->config.n_batch);
    return ERR_OK;
}

static enum err start(struct engine *e, const struct plan *plan)
{
    TRY(prepare(e, plan));
    TRY(thread_start(&e->thread, "engine", engine_thread, e));
    lock_take(e->lock);
    while (!e->has_started) {
        (void)lock_wait(e->lock, IDLE_US);
    }
    lock_drop(e->lock);
    return e->start_error == ERR_OK ? ERR_OK : err_set(e->start_error, "%s", e->start_text);
}

enum err engine_open(struct engine **out, const struct engine_parts *parts, const struct plan *plan)
{
    struct engine *e = mem_alloc(sizeof *e);
    REQUIRE(e != NULL, ERR_MEMORY, "no memory for the engine's tables");
    e->parts = *parts;
    e->config = plan->config;
    e->fd = -1;
    const enum err err = start(e, plan);
    if (err != ERR_OK) {
        engine_close(e);
        return err;
    }
    *out = e;
    return ERR_OK;
}

void engine_close(struct engine *e)
{
    if (e == NULL) {
        return;
    }
    if (e->thread != NULL) {
        lock_take(e->lock);
        e->is_closing = true;
        lock_wake(e->lock);
        lock_drop(e->lock);
        thread_join(e->thread);
    }
    for (int32_t i = 0; e->slots != NULL && e->requests.base != NULL && i < e->config.n_parallel;
         i++) {
        emit_release(&e->slots[i].emit);
    }
    arena_close(&e->requests);
    arena_close(&e->context);
    arena_close(&e->draft_context);
    arena_close(&e->step);
    if (e->lock != NULL) {
        lock_close(e->lock);
    }
    event_close(e->fd);
    mem_free(e);
}
