/* probe_logits - the `logits` probe: raw scores of a model for given tokens
 *
 * The neutral interface through which every correctness check drives the engine
 * (tests/fixtures/PROBE.md). It uses the engine's parts directly, without scheduler and sampler: a
 * case gets an empty cache of the size it asks for, its tokens are evaluated in the chunks it asks
 * for, and the scores after the wanted positions are written out. Hidden states of a chunk are
 * turned into scores a few rows at a time, so a long text with a large vocabulary needs no large
 * buffer.
 *
 * With `n_beside` the same tokens run as further sequences of the same steps: a check that company
 * in a batch changes no bit (docs/NUMERICS.md).
 *
 * Next: engine/decoder.h. */
#include "cmd/probe_logits.h"

#include "back/be_cpu.h"
#include "back/be_measure.h"
#include "base/js.h"
#include "base/lines.h"
#include "engine/decoder.h"
#include "model/weights.h"
#include "num/fmath.h"

#include <stdio.h>
#include <string.h>

#define LINE_MAX_BYTES (64u << 20)
#define CHUNK_MAX      512 /* larger chunks of a case are cut: results do not depend on it */
#define ROWS_AT_ONCE   16
#define BESIDE_MAX     31

struct probe {
    const struct probe_logits_params *p;
    struct gguf *gguf;
    struct arch arch;
    struct weights weights;
    struct arena model;
    struct arena context;
    struct arena step;
    struct team *team;
    FILE *out;
};

/* One case, parsed. */
struct job {
    const struct js *id;
    int32_t *tokens;
    int32_t n_tok;
    int32_t n_ctx;
    bool *is_wanted; /* [n_tok] */
    int32_t n_row;
    const struct js *chunks;
    bool has_stats;
};

static enum err load_model(struct probe *pr)
{
    TRY(gguf_open(&pr->gguf, pr->p->model_path));
    TRY(arch_read(&pr->arch, pr->gguf));
    TRY(weights_bind(&pr->weights, &pr->arch, pr->gguf));
    return weights_load(&pr->weights, pr->gguf, &pr->model, pr->team, NULL, NULL);
}

static enum err parse_positions(const struct js *c, struct job *j)
{
    const struct js *want = js_get(c, "positions");
    const bool is_all = view_is(js_string(want), "all");
    for (int32_t i = 0; i < j->n_tok; i++) {
        j->is_wanted[i] = is_all || (want == NULL && i == j->n_tok - 1);
    }
    for (size_t i = 0; i < js_count(want) && js_type(want) == JS_ARRAY; i++) {
        int64_t pos = js_int(js_at(want, i));
        pos = pos < 0 ? pos + j->n_tok : pos;
        REQUIRE(js_type(js_at(want, i)) == JS_INT && pos >= 0 && pos < j->n_tok, ERR_USAGE,
                "positions[%zu]: not a position of the %d tokens", i, j->n_tok);
        j->is_wanted[pos] = true;
    }
    for (int32_t i = 0; i < j->n_tok; i++) {
        j->n_row += j->is_wanted[i];
    }
    return ERR_OK;
}

static enum err parse_job(const struct js *c, const struct arch *a, struct job *j)
{
    const struct js *tokens = js_get(c, "tokens");
    const size_t n = js_type(tokens) == JS_ARRAY ? js_count(tokens) : 0;
    REQUIRE(n > 0 && n <= ARCH_CTX_MAX, ERR_USAGE, "tokens: a list of 1 to %d token ids is wanted",
            ARCH_CTX_MAX);
    j->n_tok = (int32_t)n;
    j->tokens = mem_alloc_array(n, sizeof j->tokens[0]);
    j->is_wanted = mem_alloc_array(n, sizeof j->is_wanted[0]);
    REQUIRE(j->tokens != NULL && j->is_wanted != NULL, ERR_MEMORY, "no memory for %zu tokens", n);
    for (size_t i = 0; i < n; i++) {
        const int64_t id = js_int(js_at(tokens, i));
        REQUIRE(js_type(js_at(tokens, i)) == JS_INT && id >= 0 && id < a->n_vocab, ERR_USAGE,
                "tokens[%zu]: not an id below %d", i, a->n_vocab);
        j->tokens[i] = (int32_t)id;
    }
    TRY(parse_positions(c, j));
    const int64_t ctx = js_int(js_get(c, "ctx"));
    REQUIRE(ctx >= 0 && ctx <= ARCH_CTX_MAX, ERR_USAGE, "ctx: 1 to %d is wanted", ARCH_CTX_MAX);
    j->n_ctx = ctx > j->n_tok ? (int32_t)ctx : j->n_tok;
    REQUIRE(!a->recipe->has_positions || j->n_tok <= a->n_ctx_train, ERR_LIMIT,
            "%d tokens; this family has positions for %d", j->n_tok, a->n_ctx_train);
    j->chunks = js_get(c, "chunks");
    j->has_stats = js_bool(js_get(c, "stats"));
    return ERR_OK;
}

/* What one case runs on. */
struct session {
    struct kv kv;
    struct kv_seq *seqs; /* [1 + n_beside] */
    struct be_cpu cpu;
    struct decoder decoder;
    int32_t *pos;
    int32_t *tokens;
    struct back_run runs[1 + BESIDE_MAX];
    int32_t n_seq;
};

/* Takes the cache and tables of a session from an arena; the same code sizes and fills. */
static enum err session_build(struct session *s, struct probe *pr, const struct job *j,
                              struct back *back, struct arena *arena)
{
    const int32_t page_max = (j->n_ctx + KERN_PAGE - 1) / KERN_PAGE;
    s->n_seq = 1 + pr->p->n_beside;
    TRY(kv_init(&s->kv, &pr->arch, pr->p->kv, page_max * s->n_seq, arena));
    s->seqs = arena_take(arena, (size_t)s->n_seq * sizeof s->seqs[0]);
    s->pos = arena_take(arena, (size_t)s->n_seq * CHUNK_MAX * sizeof s->pos[0]);
    s->tokens = arena_take(arena, (size_t)s->n_seq * CHUNK_MAX * sizeof s->tokens[0]);
    REQUIRE(s->seqs != NULL && s->pos != NULL && s->tokens != NULL, ERR_MEMORY,
            "session: the arena is too small");
    for (int32_t i = 0; i < s->n_seq; i++) {
        struct kv_seq seq;
        TRY(kv_seq_init(&seq, j->n_ctx, arena));
        if (!arena->is_counting) {
            s->seqs[i] = seq;
        }
    }
    s->decoder =
        (struct decoder){ .arch = &pr->arch, .weights = &pr->weights, .kv = &s->kv, .back = back };
    return decoder_init(&s->decoder, j->n_ctx, arena);
}

/* The forward pass run dry at its largest: sizes the step arena. */
static enum err measure_step(struct probe *pr, const struct job *j, size_t *bytes)
{
    struct arena count;
    struct arena tables;
    struct be_measure m;
    struct session s = { 0 };
    arena_open_counting(&count);
    arena_open_counting(&tables);
    be_measure_init(&m, &count, team_size(pr->team));
    TRY(session_build(&s, pr, j, &m.back, &tables));
    const int32_t n = j->n_tok < CHUNK_MAX ? j->n_tok : CHUNK_MAX;
    for (int32_t i = 0; i < s.n_seq; i++) {
        s.runs[i] = (struct back_run){ .tok0 = i * n, .n_tok = n, .pos0 = j->n_ctx - n };
    }
    const struct decoder_step step = { .n_tok = n * s.n_seq, .runs = s.runs, .n_run = s.n_seq };
    float *hidden = NULL;
    TRY(decoder_forward(&s.decoder, &step, &hidden));
    decoder_logits(&s.decoder, hidden, NULL, ROWS_AT_ONCE);
    *bytes = count.peak;
    return ERR_OK;
}

static enum err session_open(struct session *s, struct probe *pr, const struct job *j)
{
    struct arena count;
    size_t step_bytes = 0;
    arena_open_counting(&count);
    struct session sizing = { 0 };
    TRY(session_build(&sizing, pr, j, NULL, &count));
    TRY(measure_step(pr, j, &step_bytes));
    TRY(arena_open(&pr->context, count.peak, false));
    TRY(arena_open(&pr->step, step_bytes, false));
    be_cpu_init(&s->cpu, &pr->step, pr->team, kern_get(pr->p->isa));
    return session_build(s, pr, j, &s->cpu.back, &pr->context);
}

/* ln of the sum of exp of a row, in double and index order. */
static double log_sum_exp(const float *x, int32_t n)
{
    double max = (double)x[0];
    for (int32_t i = 1; i < n; i++) {
        max = (double)x[i] > max ? (double)x[i] : max;
    }
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) {
        sum += fmath_exp((double)x[i] - max);
    }
    return max + fmath_log(sum);
}

struct answer {
    struct buf nll;
    struct buf argmax;
};

static enum err take_row(struct probe *pr, const struct job *j, int32_t pos, const float *row,
                         struct answer *a)
{
    const int32_t n_vocab = pr->arch.n_vocab;
    if (j->is_wanted[pos] && pr->out != NULL) {
        REQUIRE(fwrite(row, sizeof row[0], (size_t)n_vocab, pr->out) == (size_t)n_vocab, ERR_IO,
                "%s: cannot write", pr->p->out_path);
    }
    if (j->has_stats) {
        const struct kern_table *k = kern_get(pr->p->isa);
        buf_printf(&a->argmax, "%s%d", pos > 0 ? ", " : "", k->argmax(row, n_vocab));
        if (pos + 1 < j->n_tok) {
            buf_add_str(&a->nll, pos > 0 ? ", " : "");
            js_put_real(&a->nll, log_sum_exp(row, n_vocab) - (double)row[j->tokens[pos + 1]]);
        }
    }
    return ERR_OK;
}

/* One evaluated chunk of a case: tokens at..at+n of each copy. */
struct chunk {
    const float *hidden; /* [n_seq][n][ld] */
    int32_t at;
    int32_t n;
};

/* Scores of a chunk, ROWS_AT_ONCE rows at a time; then of every copy, which must be
 * equal. */
static enum err take_chunk(struct probe *pr, const struct job *j, struct session *s,
                           const struct chunk *c, struct answer *a)
{
    const size_t ld = back_ld(pr->arch.n_vocab);
    const size_t row_bytes = back_ld(pr->arch.n_embd) * sizeof(float);
    for (int32_t i = 1; i < s->n_seq; i++) {
        const float *copy = c->hidden + (size_t)i * (size_t)c->n * back_ld(pr->arch.n_embd);
        REQUIRE(memcmp(copy, c->hidden, row_bytes * (size_t)c->n) == 0, ERR_FAILED,
                "copy %d in the batch differs from the case itself at tokens %d..%d", i, c->at,
                c->at + c->n);
    }
    for (int32_t t = 0; t < c->n;) {
        int32_t rows[ROWS_AT_ONCE];
        int32_t n_row = 0;
        for (; t < c->n && n_row < ROWS_AT_ONCE; t++) {
            if (j->has_stats || j->is_wanted[c->at + t]) {
                rows[n_row++] = t;
            }
        }
        const size_t mark = arena_mark(&pr->step);
        const float *logits =
            n_row > 0 ? decoder_logits(&s->decoder, c->hidden, rows, n_row) : NULL;
        for (int32_t r = 0; r < n_row; r++) {
            TRY(take_row(pr, j, c->at + rows[r], logits + (size_t)r * ld, a));
        }
        arena_rewind(&pr->step, mark);
    }
    return ERR_OK;
}

static enum err run_chunk(struct probe *pr, const struct job *j, struct session *s, int32_t at,
                          int32_t n, struct answer *a)
{
    for (int32_t i = 0; i < s->n_seq; i++) {
        const bool is_there = kv_seq_grow(&s->kv, &s->seqs[i], at + n);
        REQUIRE(is_there, ERR_MEMORY, "the cache has no page left at token %d", at + n);
        s->runs[i] =
            (struct back_run){ .pages = s->seqs[i].page, .tok0 = i * n, .n_tok = n, .pos0 = at };
        for (int32_t t = 0; t < n; t++) {
            s->tokens[i * n + t] = j->tokens[at + t];
            s->pos[i * n + t] = at + t;
        }
    }
    const struct decoder_step step = { .tokens = s->tokens,
                                       .pos = s->pos,
                                       .n_tok = n * s->n_seq,
                                       .runs = s->runs,
                                       .n_run = s->n_seq };
    const size_t mark = arena_mark(&pr->step);
    float *hidden = NULL;
    TRY(decoder_forward(&s->decoder, &step, &hidden));
    const struct chunk c = { hidden, at, n };
    TRY(take_chunk(pr, j, s, &c, a));
    arena_rewind(&pr->step, mark);
    return ERR_OK;
}

static enum err run_job(struct probe *pr, const struct job *j, struct answer *a)
{
    struct session s = { 0 };
    TRY(session_open(&s, pr, j));
    size_t i_chunk = 0;
    for (int32_t at = 0; at < j->n_tok;) {
        int64_t n = CHUNK_MAX;
        if (js_type(j->chunks) == JS_ARRAY && i_chunk < js_count(j->chunks)) {
            n = js_int(js_at(j->chunks, i_chunk++));
            REQUIRE(n > 0 && n <= ARCH_CTX_MAX, ERR_USAGE, "chunks[%zu]: not a number from 1 to %d",
                    i_chunk - 1, ARCH_CTX_MAX);
        }
        const int64_t end = at + n < j->n_tok ? at + n : j->n_tok;
        while (at < end) {
            const int32_t piece = end - at < CHUNK_MAX ? (int32_t)(end - at) : CHUNK_MAX;
            TRY(run_chunk(pr, j, &s, at, piece, a));
            at += piece;
        }
    }
    return ERR_OK;
}

static void answer_line(struct probe *pr, const struct js *c, struct buf *line)
{
    struct job j = { .id = js_get(c, "id") };
    struct answer a;
    buf_init(&a.nll, LINE_MAX_BYTES);
    buf_init(&a.argmax, LINE_MAX_BYTES);
    buf_reset(line);
    buf_add_str(line, "{\"id\": ");
    js_put_value(line, j.id);
    enum err e = parse_job(c, &pr->arch, &j);
    e = e == ERR_OK ? run_job(pr, &j, &a) : e;
    if (e == ERR_OK) {
        buf_printf(line, ", \"n_vocab\": %d, \"rows\": %d", pr->arch.n_vocab, j.n_row);
        if (j.has_stats) {
            buf_printf(line, ", \"nll\": [%s], \"argmax\": [%s]", buf_str(&a.nll),
                       buf_str(&a.argmax));
        }
    } else {
        buf_add_str(line, ", \"error\": ");
        js_put_string(line, view_of(err_text()), false);
    }
    buf_add_str(line, "}\n");
    arena_close(&pr->context);
    arena_close(&pr->step);
    buf_release(&a.nll);
    buf_release(&a.argmax);
    mem_free(j.tokens);
    mem_free(j.is_wanted);
}

static enum err run_cases(struct probe *pr)
{
    struct buf line;
    buf_init(&line, LINE_MAX_BYTES * 3);
    struct lines in;
    struct view text;
    bool has_line = false;
    lines_init(&in, 0, LINE_MAX_BYTES);
    enum err e = lines_next(&in, &text, &has_line);
    while (e == ERR_OK && has_line) {
        struct js *c = NULL;
        if (js_parse(text, 16, &c) != ERR_OK) {
            printf("{\"id\": null, \"error\": \"not a JSON object on this line\"}\n");
        } else {
            answer_line(pr, c, &line);
            fwrite(line.p, 1, line.n, stdout);
        }
        fflush(stdout);
        js_close(c);
        e = lines_next(&in, &text, &has_line);
    }
    lines_release(&in);
    buf_release(&line);
    return e;
}

enum err probe_logits(const struct probe_logits_params *p)
{
    struct probe pr = { .p = p };
    enum err e = ERR_OK;
    if (p->n_beside < 0 || p->n_beside > BESIDE_MAX) {
        e = err_set(ERR_USAGE, "at most %d copies can run beside a case", BESIDE_MAX);
    }
    e = e == ERR_OK ? team_open(&pr.team, p->n_thread) : e;
    e = e == ERR_OK ? load_model(&pr) : e;
    if (e == ERR_OK && p->out_path != NULL) {
        pr.out = fopen(p->out_path, "wb");
        e = pr.out != NULL ? ERR_OK : err_set(ERR_IO, "%s: cannot be written", p->out_path);
    }
    e = e == ERR_OK ? run_cases(&pr) : e;
    if (pr.out != NULL && fclose(pr.out) != 0 && e == ERR_OK) {
        e = err_set(ERR_IO, "%s: cannot be written", p->out_path);
    }
    arena_close(&pr.model);
    weights_release(&pr.weights);
    gguf_close(pr.gguf);
    team_close(pr.team);
    return e;
}
