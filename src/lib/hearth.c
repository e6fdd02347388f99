/* hearth - the public library over the engine
 *
 * A thin layer: it checks the sizes of parameter structs, turns public types into the engine's and
 * back, and owns what a model is made of (directory of the file, weights, tokenizer, template,
 * engine). What a default is stands in the header beside the field. Text and tokens have a file of
 * their own, lib/text.c.
 *
 * Opening a model is a straight line: read the directory, bind, plan, refuse if it does not fit,
 * load, start the engine. Everything is undone in reverse by hearth_model_close, which also serves
 * as the error path, so there is one list of what must be given back.
 *
 * The public status values are those of enum err (static_assert below), the public texts are
 * err_text.
 *
 * Next: include/hearth.h. */
#include "hearth.h"

#include "base/claim.h"
#include "base/cpu.h"
#include "base/log.h"
#include "base/os.h"
#include "base/ring.h"
#include "base/team.h"
#include "base/topo.h"
#include "engine/engine.h"
#include "engine/predict.h"
#include "engine/sched.h"
#include "kern/kern.h"
#include "lib/box.h"
#include "lib/hearth_int.h"
#include "lib/measure.h"
#include "lib/speed.h"
#include "model/chat.h"
#include "model/gguf.h"
#include "model/stream.h"
#include "model/tok.h"
#include "model/weights.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static_assert((int)HEARTH_BUSY == (int)ERR_BUSY && (int)HEARTH_LIMIT == (int)ERR_LIMIT &&
                  (int)HEARTH_CANCELLED == (int)ERR_CANCELLED &&
                  (int)HEARTH_UNSUPPORTED == (int)ERR_UNSUPPORTED,
              "public status values are those of enum err");
static_assert((int)HEARTH_FINISH_ERROR == (int)ENGINE_FINISH_ERROR &&
                  (int)HEARTH_EVENT_END == (int)ENGINE_END,
              "public event values are the engine's");
static_assert(HEARTH_LOGPROB_MAX == SAMPLE_TOP_MAX && HEARTH_BIAS_MAX == SAMPLE_BIAS_MAX &&
                  HEARTH_STOP_MAX == EMIT_STOP_MAX && HEARTH_STOP_BYTES == EMIT_STOP_BYTES &&
                  HEARTH_CHOICE_MAX == ENGINE_CHOICE_MAX &&
                  HEARTH_BATCH_BUCKETS == ENGINE_BATCH_BUCKETS,
              "public limits are the engine's");

#define THREADS_MAX 256

struct hearth_request {
    struct hearth_model *model;
    int32_t handle;
    struct engine_event event;
    struct hearth_bias top[SAMPLE_TOP_MAX];
    char text[ENGINE_TEXT_MAX];
};

const char *hearth_version(void)
{
    return HEARTH_VERSION;
}

const char *hearth_status_name(hearth_status status)
{
    return err_name((enum err)status);
}

const char *hearth_error(void)
{
    return err_text();
}

/* --- box -------------------------------------------------------------------------------------- */

void hearth_box_init(struct hearth_box_params *p)
{
    if (!hearth_is_missing(p, "hearth_box_init: parameters")) {
        *p = (struct hearth_box_params){ .size = sizeof *p };
    }
}

static enum err box_open(const struct hearth_box_params *p, struct hearth_box *b)
{
    REQUIRE(p->size == sizeof *p, ERR_USAGE,
            "hearth_box_params: size is %zu; was hearth_box_init called?", p->size);
    REQUIRE(p->n_thread >= 0 && p->n_thread <= THREADS_MAX, ERR_USAGE,
            "threads is %d, must lie in 0..%d", p->n_thread, THREADS_MAX);
    b->n_thread = p->n_thread > 0 ? p->n_thread : topo_threads();
    b->isa = cpu_best();
    b->memory_bytes = p->memory_bytes;
    if (p->isa != NULL) {
        REQUIRE(cpu_isa_parse(p->isa, &b->isa), ERR_USAGE,
                "instruction set \"%s\" is unknown (" CPU_ISA_NAMES ")", p->isa);
    }
    REQUIRE(cpu_can(b->isa) && kern_get(b->isa) != NULL, ERR_UNSUPPORTED,
            "this processor cannot run %s kernels", cpu_isa_name(b->isa));
    return ERR_OK;
}

hearth_status hearth_box_open(const struct hearth_box_params *p, struct hearth_box **box)
{
    struct hearth_box_params defaults;
    if (hearth_is_missing(box, "hearth_box_open: box")) {
        return HEARTH_USAGE;
    }
    if (p == NULL) {
        hearth_box_init(&defaults);
        p = &defaults;
    }
    struct hearth_box *b = mem_alloc(sizeof *b);
    const enum err e = b == NULL ? err_set(ERR_MEMORY, "no memory for a box") : box_open(p, b);
    if (e != ERR_OK) {
        mem_free(b);
        return (hearth_status)e;
    }
    *box = b;
    return HEARTH_OK;
}

void hearth_box_close(struct hearth_box *box)
{
    mem_free(box);
}

size_t hearth_box_kernels(const struct hearth_box *box, char *out, size_t cap)
{
    struct buf text;
    if (hearth_is_missing(box, "hearth_box_kernels: box") ||
        hearth_is_missing(cap > 0 ? out : "", "hearth_box_kernels: out")) {
        return 0;
    }
    buf_init(&text, 65536);
    kern_describe(kern_get(box->isa), &text);
    buf_printf(&text, "threads    %d on ", box->n_thread);
    topo_describe(topo_get(), &text);
    buf_add_char(&text, '\n');
    const size_t n = text.n;
    if (cap > 0) {
        snprintf(out, cap, "%s", buf_str(&text));
    }
    buf_release(&text);
    return n;
}

hearth_status hearth_box_measure(struct hearth_box *box, struct hearth_limits *out)
{
    if (hearth_is_missing(box, "hearth_box_measure: box") ||
        hearth_is_missing(out, "hearth_box_measure: out")) {
        return HEARTH_USAGE;
    }
    return (hearth_status)measure_limits(kern_get(box->isa), box->n_thread, box->memory_bytes, out);
}

/* --- model: planning and opening -------------------------------------------------------------- */

void hearth_model_init(struct hearth_model_params *p)
{
    if (!hearth_is_missing(p, "hearth_model_init: parameters")) {
        *p = (struct hearth_model_params){ .size = sizeof *p };
    }
}

static enum err open_template(struct hearth_model *m)
{
    struct view source = { NULL, 0 };
    TRY(gguf_string(m->gguf, "tokenizer.chat_template", &source, &m->has_own_template));
    if (m->has_own_template) {
        const enum err e = chat_open(&m->chat, source);
        return e == ERR_OK
                   ? e
                   : err_at(e == ERR_MEMORY ? e : ERR_UNSUPPORTED, "the model's chat template");
    }
    return chat_open(&m->chat, view_of(chat_default(m->arch.recipe->name)));
}

static enum err check_rows(const struct tok *tok, const struct arch *a, const char *path)
{
    REQUIRE(tok_n_vocab(tok) <= a->n_vocab, ERR_INTEGRITY,
            "%s: the tokenizer has %d tokens, the embedding table %d rows", path, tok_n_vocab(tok),
            a->n_vocab);
    return ERR_OK;
}

/* Guesses are ids: they must mean the same to both. */
static enum err check_vocabulary(const struct tok *large, const struct tok *small, const char *path)
{
    REQUIRE(tok_n_vocab(large) == tok_n_vocab(small), ERR_USAGE,
            "draft model %s: its vocabulary has %d tokens, the model's %d; choose one of the same "
            "family",
            path, tok_n_vocab(small), tok_n_vocab(large));
    for (int32_t i = 0; i < tok_n_vocab(large); i++) {
        REQUIRE(view_eq(tok_piece(large, i), tok_piece(small, i)), ERR_USAGE,
                "draft model %s: token %d is another text than the model's; choose one of the same "
                "family",
                path, i);
    }
    return ERR_OK;
}

static enum err small_plan(struct small *s, const struct tok *large, const struct plan_config *c,
                           const char *path, uint64_t *header_bytes)
{
    struct tok *tok = NULL;
    const size_t held = mem_thread_bytes();
    TRY(gguf_open(&s->gguf, path));
    *header_bytes += mem_thread_bytes() - held;
    TRY(arch_read(&s->arch, s->gguf));
    TRY(weights_bind(&s->weights, &s->arch, s->gguf));
    REQUIRE(s->arch.n_ctx_train >= c->n_ctx, ERR_LIMIT,
            "draft model %s: it was made for %d tokens, the context has %d: choose a smaller one",
            path, s->arch.n_ctx_train, c->n_ctx);
    enum err e = tok_open(&tok, s->gguf);
    e = e == ERR_OK ? check_rows(tok, &s->arch, path) : e;
    e = e == ERR_OK ? check_vocabulary(large, tok, path) : e;
    tok_close(tok);
    return e;
}

/* Before loading, at whose end it must not have changed. */
static enum err image_open(const struct gguf *g, struct os_file *image, bool *has_image)
{
    if (gguf_is_image(g)) {
        TRY(os_open(image, gguf_image_path(g)));
        *has_image = true;
    }
    return ERR_OK;
}

static void image_close(struct os_file *image, bool has_image)
{
    if (has_image) {
        os_close(image);
    }
}

static enum err small_load(struct small *s, struct team *team)
{
    TRY(image_open(s->gguf, &s->image, &s->has_image));
    TRY(weights_load(&s->weights, s->gguf, &s->arena, team, NULL, NULL));
    gguf_close(s->gguf);
    s->gguf = NULL;
    return ERR_OK;
}

static void small_close(struct small *s)
{
    if (s != NULL) {
        arena_close(&s->arena);
        weights_release(&s->weights);
        gguf_close(s->gguf);
        image_close(&s->image, s->has_image);
        mem_free(s);
    }
}

/* That so many answers read for a token of each. */
static uint64_t disk_bytes(const struct stream_cut *c, int32_t n)
{
    return (uint64_t)(predict_read((double)c->pass_bytes, (double)c->piece_bytes, n) + 0.5);
}

/* What of the layers stays beside the rest of m's plan. false: nothing helps. */
static bool choose_cut(const struct hearth_model *m, const struct plan *p, struct stream_cut *cut)
{
    const uint64_t others = p->total_bytes - m->weights.arena_bytes + ring_bytes();
    const uint64_t most = p->available_bytes > others ? p->available_bytes - others : 0;
    return stream_choose(&m->weights, m->arch.n_layer, m->arch.n_expert_used, most, cut);
}

/* Tokens whose computing takes about as long as reading what a piece of a prompt reads. A token is
 * multiplied by all weights that it uses, but of experts a piece reads many more. */
static int32_t enough_tokens(const struct hearth_model *m, const struct plan_config *c)
{
    const struct stream_cut *cut = &c->cut;
    const double by_experts =
        (double)m->arch.n_layer * m->arch.n_expert_used * (double)cut->expert_bytes;
    const double used =
        cut->n_expert > 0 ? (double)cut->stay_bytes + by_experts : (double)m->weights.arena_bytes;
    return (int32_t)(BOX_BATCH_THREAD * c->n_worker * fmin((double)cut->piece_bytes / used, 1024));
}

/* Pieces of prompts for whose tokens reading the layers is not too much: many cores have computed a
 * usual one long before. They may not push out more of the weights than they are worth. */
static enum err choose_batch(const struct hearth_model *m, const struct plan_beside *beside,
                             struct plan_config *c)
{
    const int32_t n_enough = enough_tokens(m, c);
    int32_t n = c->n_ctx > c->n_batch ? c->n_batch : 0;
    while (n > 0 && n < c->n_ctx && n < BOX_BATCH_MOST && n < n_enough) {
        n *= 2;
    }
    for (; n > c->n_batch; n /= 2) {
        struct plan large;
        struct stream_cut cut;
        struct plan_config more = *c;
        more.n_batch = n < c->n_ctx ? n : c->n_ctx;
        more.cut = (struct stream_cut){ 0 };
        TRY(plan_make(&large, &m->arch, &m->weights, &more, beside));
        if (choose_cut(m, &large, &cut) && cut.pass_bytes <= c->cut.pass_bytes / 8 * 9) {
            more.cut = cut;
            *c = more;
        }
    }
    return ERR_OK;
}

/* The plan with layers on the disk, if that is what fits. */
static enum err plan_cut(struct hearth_model *m, const struct plan_beside *beside,
                         struct plan_config *c, bool has_batch)
{
    if (m->plan.fits) {
        return ERR_OK;
    }
    if (!choose_cut(m, &m->plan, &c->cut)) { /* then what the plan lacks is as little as can be */
        const bool may_cut =
            gguf_is_image(m->gguf) &&
            stream_choose_least(&m->weights, m->arch.n_layer, m->arch.n_expert_used, &c->cut) &&
            stream_bytes(&c->cut) + ring_bytes() < m->weights.arena_bytes;
        return may_cut ? plan_make(&m->plan, &m->arch, &m->weights, c, beside) : ERR_OK;
    }
    if (!gguf_is_image(m->gguf)) {
        m->packed_bytes =
            m->plan.total_bytes - m->weights.arena_bytes + ring_bytes() + stream_bytes(&c->cut);
        m->packed_disk_bytes = c->cut.pass_bytes;
        m->packed_piece_bytes = c->cut.piece_bytes;
        m->packed_parallel_bytes = disk_bytes(&c->cut, c->n_parallel);
        return ERR_OK;
    }
    TRY(has_batch ? ERR_OK : choose_batch(m, beside, c));
    return plan_make(&m->plan, &m->arch, &m->weights, c, beside);
}

/* Directory, numbers, slots, tokenizer, template and plan: all that needs no weights. */
static enum err model_plan(struct hearth_model *m, const struct hearth_box *box, const char *path,
                           const struct hearth_model_params *p)
{
    struct plan_config c;
    REQUIRE(p->size == sizeof *p, ERR_USAGE,
            "hearth_model_params: size is %zu; was hearth_model_init called?", p->size);
    struct plan_beside beside = { .extra_bytes = p->extra_bytes, .limit_bytes = box->memory_bytes };
    plan_program(&beside, box->n_thread);
    const size_t held = mem_thread_bytes();
    m->held_before = mem_held_bytes();
    TRY(gguf_open(&m->gguf, path));
    beside.header_bytes = mem_thread_bytes() - held;
    TRY(arch_read(&m->arch, m->gguf));
    TRY(box_config(box, &m->arch, p, &c));
    TRY(weights_bind(&m->weights, &m->arch, m->gguf));
    if (gguf_is_image(m->gguf)) {
        claim_image_of(&beside.image, gguf_image_path(m->gguf), m->weights.arena_bytes);
    }
    const size_t with_tables = mem_thread_bytes();
    TRY(tok_open(&m->tok, m->gguf));
    beside.tokenizer_bytes = mem_thread_bytes() - with_tables;
    if (p->draft != NULL) {
        m->small = mem_alloc(sizeof *m->small);
        REQUIRE(m->small != NULL, ERR_MEMORY, "no memory for a draft model");
        TRY(small_plan(m->small, m->tok, &c, p->draft, &beside.header_bytes));
        beside.draft_arch = &m->small->arch;
        beside.draft_weights = &m->small->weights;
    }
    const size_t with_tok = mem_thread_bytes();
    beside.table_bytes = with_tok - held - beside.header_bytes - beside.tokenizer_bytes;
    TRY(open_template(m));
    beside.template_bytes = mem_thread_bytes() - with_tok;
    TRY(check_rows(m->tok, &m->arch, path));
    TRY(engine_request_bytes(&c, &m->arch, m->tok, &beside.request_bytes));
    TRY(plan_make(&m->plan, &m->arch, &m->weights, &c, &beside));
    if (!m->plan.fits && c.n_batch > BOX_BATCH) {
        c.n_batch = BOX_BATCH;
        TRY(plan_make(&m->plan, &m->arch, &m->weights, &c, &beside));
    }
    return plan_cut(m, &beside, &c, p->n_batch > 0);
}

/* What packing would make of a model that does not fit, and what to type. */
#define PACKING                                                                                    \
    ", or pack it, so that layers that do not fit are read from the disk for each step: "          \
    "hearth pull --pack "
#define AHEAD_BYTES 96 /* of text at most that callers put before a refusal */

static enum err refuse(const struct hearth_model *m, const char *packing)
{
    const struct plan *p = &m->plan;
    const bool has_draft = m->small != NULL;
    const double tenth = 1024.0 * 1024.0 / 10.0; /* of a MiB; never the same number twice */
    const bool helps_context = p->least_bytes < p->available_bytes;
    char own[48] = "";
    if (p->extra_bytes > 0) {
        snprintf(own, sizeof own, " (%.1f of them for itself)",
                 ceil((double)(p->total_bytes - p->extra_bytes) / tenth) / 10.0);
    }
    return err_set(
        ERR_MEMORY,
        "the model%s needs %.1f MiB%s with a context of %d tokens for %d at once, %.1f MiB "
        "are available (%s): choose %s%s%sa smaller %smodel%s%s",
        has_draft ? " with its draft model" : "", ceil((double)p->total_bytes / tenth) / 10.0, own,
        p->config.n_ctx, p->config.n_parallel, floor((double)p->available_bytes / tenth) / 10.0,
        p->available_from, helps_context ? "a smaller context" : "",
        helps_context && p->config.n_parallel > 1 ? ", fewer at once" : "",
        helps_context ? " or " : "", has_draft ? "or no draft " : "",
        p->is_own_limit ? ", or allow more" : "", packing);
}

/* Half of a path is no command: where it is too long to be told whole, it is not. */
static enum err refuse_if_too_large(const struct hearth_model *m)
{
    struct buf packing;
    if (m->plan.fits) {
        return ERR_OK;
    }
    if (m->packed_bytes == 0) {
        return refuse(m, "");
    }
    const char *path = gguf_path(m->gguf);
    buf_init(&packing, 2 * OS_PATH_BYTES);
    buf_add_str(&packing, path[0] == '-' ? PACKING "./" : PACKING);
    buf_add_word(&packing, path);
    enum err e = refuse(m, buf_str(&packing));
    if (strlen(err_text()) + AHEAD_BYTES >= ERR_TEXT_MAX) {
        e = refuse(m, PACKING "MODEL");
    }
    buf_release(&packing);
    return e;
}

/* Tells other processes what this one will take and looks again at what is left, so that two which
 * plan at the same time are not given the same memory. */
static enum err claim_plan(struct hearth_model *m)
{
    if (claim_open(&m->claim, NULL, m->plan.total_bytes, &m->plan.image) != ERR_OK) {
        log_event(LOG_WARN, "model", "msg=\"others do not learn what this process will take: %s\"",
                  err_text());
    }
    plan_look(&m->plan);
    return refuse_if_too_large(m);
}

static void fill_plan(const struct plan *p, struct hearth_plan *out)
{
    static_assert((int)HEARTH_PLAN_PARTS >= (int)PLAN_PARTS, "room for all parts");
    *out = (struct hearth_plan){ .size = sizeof *out,
                                 .total_bytes = p->total_bytes,
                                 .available_bytes = p->available_bytes,
                                 .least_bytes = p->least_bytes,
                                 .available_from = p->available_from,
                                 .fits = p->fits,
                                 .n_ctx = p->config.n_ctx,
                                 .n_parallel = p->config.n_parallel,
                                 .n_batch = p->config.n_batch,
                                 .n_part = p->n_part,
                                 .step_read_bytes = p->step_read_bytes,
                                 .parallel_read_bytes = p->parallel_read_bytes,
                                 .token_kv_bytes = p->tok_kv_bytes,
                                 .window_kv_bytes = p->window_kv_bytes,
                                 .window = p->window,
                                 .mapped_bytes = p->image.bytes,
                                 .step_disk_bytes = p->config.cut.pass_bytes,
                                 .parallel_disk_bytes =
                                     disk_bytes(&p->config.cut, p->config.n_parallel),
                                 .piece_disk_bytes = p->config.cut.piece_bytes,
                                 .n_kept = p->config.cut.n_expert,
                                 .token_ops = p->tok_ops };
    for (int32_t i = 0; i < p->n_part; i++) {
        out->part[i].name = p->part[i].name;
        out->part[i].bytes = p->part[i].bytes;
    }
}

hearth_status hearth_plan_read(struct hearth_box *box, const char *path,
                               const struct hearth_model_params *p, struct hearth_plan *out,
                               struct pool_host *host)
{
    struct hearth_model_params defaults;
    if (hearth_is_missing(box, "hearth_plan_make: box") ||
        hearth_is_missing(path, "hearth_plan_make: path") ||
        hearth_is_missing(out, "hearth_plan_make: out")) {
        return HEARTH_USAGE;
    }
    if (p == NULL) {
        hearth_model_init(&defaults);
        p = &defaults;
    }
    struct hearth_model *m = mem_alloc(sizeof *m);
    const enum err e =
        m == NULL ? err_set(ERR_MEMORY, "no memory for a model") : model_plan(m, box, path, p);
    if (e == ERR_OK) {
        fill_plan(&m->plan, out);
        out->packed_bytes = m->packed_bytes;
        out->packed_disk_bytes = m->packed_disk_bytes;
        out->packed_piece_bytes = m->packed_piece_bytes;
        out->packed_parallel_bytes = m->packed_parallel_bytes;
        out->n_expert = m->arch.n_layer * m->arch.n_expert;
        if (host != NULL) {
            *host = m->plan.host;
        }
    }
    hearth_model_close(m);
    return (hearth_status)e;
}

hearth_status hearth_plan_make(struct hearth_box *box, const char *path,
                               const struct hearth_model_params *p, struct hearth_plan *out)
{
    return hearth_plan_read(box, path, p, out, NULL);
}

hearth_status hearth_predict(struct hearth_box *box, const char *path,
                             const struct hearth_model_params *p, struct hearth_speed *at,
                             size_t n_at)
{
    struct hearth_model_params defaults;
    if (hearth_is_missing(box, "hearth_predict: box") ||
        hearth_is_missing(path, "hearth_predict: path") ||
        hearth_is_missing(at, "hearth_predict: at")) {
        return HEARTH_USAGE;
    }
    if (p == NULL) {
        hearth_model_init(&defaults);
        p = &defaults;
    }
    if (p->size != sizeof *p) {
        return (hearth_status)err_set(
            ERR_USAGE, "hearth_model_params: size is %zu; was hearth_model_init called?", p->size);
    }
    return (hearth_status)speed_predict(box, path, p, at, n_at);
}

static void copy_name(char *to, size_t cap, struct view from)
{
    snprintf(to, cap, "%.*s", (int)(from.n < cap ? from.n : cap - 1), from.p != NULL ? from.p : "");
}

static enum err fill_info(struct hearth_model *m)
{
    struct hearth_model_info *i = &m->info;
    struct view name = { NULL, 0 };
    *i = (struct hearth_model_info){ .size = sizeof *i,
                                     .n_param = m->weights.n_param,
                                     .n_active = m->weights.n_active,
                                     .file_bytes = gguf_file_bytes(m->gguf),
                                     .n_vocab = m->arch.n_vocab,
                                     .n_layer = m->arch.n_layer,
                                     .n_embd = m->arch.n_embd,
                                     .n_ctx = m->plan.config.n_ctx,
                                     .n_ctx_train = m->arch.n_ctx_train,
                                     .bos = tok_bos(m->tok),
                                     .eos = tok_eos(m->tok),
                                     .has_template = m->has_own_template };
    TRY(gguf_string(m->gguf, "general.name", &name, NULL));
    copy_name(i->name, sizeof i->name, name);
    copy_name(i->arch, sizeof i->arch, view_of(m->arch.recipe->name));
    copy_name(i->tokenizer, sizeof i->tokenizer, view_of(tok_kind(m->tok)));
    int most = 0;
    for (int t = 0; t < QUANT_TYPE_COUNT; t++) {
        most = m->weights.type_bytes[t] > m->weights.type_bytes[most] ? t : most;
    }
    copy_name(i->type, sizeof i->type, view_of(quant_get((uint32_t)most)->name));
    return ERR_OK;
}

#define PAGES_LEAST ((size_t)64 << 20) /* bytes of weights for which their pages matter */

/* Small pages cost a tenth of the memory's speed: whoever reads the log learns of them, and why. */
static void tell_pages(const struct hearth_model *m)
{
    const size_t n = m->weights.arena_bytes;
    if (n < PAGES_LEAST || m->stream != NULL) {
        return;
    }
    uint64_t bytes = 0;
    if (os_huge_bytes(m->arena.base, n, &bytes) != ERR_OK) {
        log_event(LOG_WARN, "model", "msg=\"2 MB pages: unknown; %s\" packed=%d weights_bytes=%zu",
                  err_text(), gguf_is_image(m->gguf), n);
        return;
    }
    const int percent = (int)(bytes * 100 / n);
    const char *why = percent < 50 ? os_no_huge() : NULL;
    if (why == NULL && percent < 50) {
        why = m->arena.is_file ? "the file system of the packed image gives none"
                               : "free memory is in pieces";
    }
    log_event(why != NULL ? LOG_WARN : LOG_INFO, "model",
              "msg=\"2 MB pages: %d %% of the weights%s%s\" packed=%d weights_bytes=%zu", percent,
              why != NULL ? "; " : "", why != NULL ? why : "", gguf_is_image(m->gguf), n);
}

static enum err load_weights(struct hearth_model *m, const struct hearth_model_params *p)
{
    const struct stream_cut *c = &m->plan.config.cut;
    if (!stream_is_cut(c)) {
        return weights_load(&m->weights, m->gguf, &m->arena, m->team, p->progress, p->progress_arg);
    }
    if (c->n_expert > 0) {
        log_event(LOG_WARN, "model",
                  "msg=\"%d of %d experts have room in memory, the others are read from the disk "
                  "when they are chosen\" step_disk_bytes=%llu",
                  c->n_expert, m->arch.n_layer * m->arch.n_expert,
                  (unsigned long long)c->pass_bytes);
        return stream_open(&m->stream, &m->weights, m->gguf, c, m->team, p->progress,
                           p->progress_arg);
    }
    log_event(
        LOG_WARN, "model",
        "msg=\"%llu of %zu MiB of weights do not fit into memory and are read from the disk for "
        "each step\" step_disk_bytes=%llu",
        (unsigned long long)c->pass_bytes >> 20, m->weights.arena_bytes >> 20,
        (unsigned long long)c->pass_bytes);
    return stream_open(&m->stream, &m->weights, m->gguf, c, m->team, p->progress, p->progress_arg);
}

/* A limit that the owner has set is the allocator's too, from here on, and then every model needs
 * its grant. */
static void guard(struct hearth_model *m, const struct hearth_box *box)
{
    if (box->memory_bytes > 0 || mem_is_guarded()) {
        m->granted = (size_t)m->plan.taken_bytes;
        mem_grant(m->granted, m->held_before);
    }
}

static enum err model_open(struct hearth_model *m, const struct hearth_box *box, const char *path,
                           const struct hearth_model_params *p)
{
    TRY(model_plan(m, box, path, p));
    TRY(refuse_if_too_large(m));
    TRY(claim_plan(m));
    guard(m, box);
    TRY(fill_info(m));
    TRY(team_open(&m->team, box->n_thread));
    TRY(image_open(m->gguf, &m->image, &m->has_image));
    TRY(load_weights(m, p));
    tell_pages(m);
    gguf_close(m->gguf);
    m->gguf = NULL;
    const struct small *s = m->small;
    TRY(s != NULL ? small_load(m->small, m->team) : ERR_OK);
    const struct engine_parts parts = { .arch = &m->arch,
                                        .weights = &m->weights,
                                        .stream = m->stream,
                                        .image =
                                            m->has_image && m->stream == NULL ? &m->image : NULL,
                                        .tok = m->tok,
                                        .team = m->team,
                                        .kern = kern_get(box->isa),
                                        .draft_arch = s != NULL ? &s->arch : NULL,
                                        .draft_weights = s != NULL ? &s->weights : NULL,
                                        .draft_image =
                                            s != NULL && s->has_image ? &s->image : NULL };
    const enum err e = engine_open(&m->engine, &parts, &m->plan);
    return e == ERR_INTEGRITY ? err_at(e, "%s", path) : e;
}

hearth_status hearth_model_open(struct hearth_box *box, const char *path,
                                const struct hearth_model_params *p, struct hearth_model **model)
{
    struct hearth_model_params defaults;
    if (hearth_is_missing(box, "hearth_model_open: box") ||
        hearth_is_missing(path, "hearth_model_open: path") ||
        hearth_is_missing(model, "hearth_model_open: model")) {
        return HEARTH_USAGE;
    }
    if (p == NULL) {
        hearth_model_init(&defaults);
        p = &defaults;
    }
    struct hearth_model *m = mem_alloc(sizeof *m);
    const enum err e =
        m == NULL ? err_set(ERR_MEMORY, "no memory for a model") : model_open(m, box, path, p);
    if (e != ERR_OK) {
        hearth_model_close(m);
        return (hearth_status)e;
    }
    *model = m;
    return HEARTH_OK;
}

void hearth_model_close(struct hearth_model *model)
{
    if (model == NULL) {
        return;
    }
    engine_close(model->engine);
    stream_close(model->stream);
    team_close(model->team);
    small_close(model->small);
    arena_close(&model->arena);
    weights_release(&model->weights);
    chat_close(model->chat);
    tok_close(model->tok);
    gguf_close(model->gguf);
    image_close(&model->image, model->has_image);
    if (model->granted > 0) {
        mem_ungrant(model->granted);
    }
    claim_close(&model->claim);
    mem_free(model);
}

void hearth_model_get_info(const struct hearth_model *model, struct hearth_model_info *out)
{
    if (!hearth_is_missing(model, "hearth_model_get_info: model") &&
        !hearth_is_missing(out, "hearth_model_get_info: out")) {
        *out = model->info;
    }
}

/* --- requests --------------------------------------------------------------------------------- */

void hearth_request_init(struct hearth_request_params *p)
{
    uint64_t seed = 0;
    if (hearth_is_missing(p, "hearth_request_init: parameters")) {
        return;
    }
    os_random(&seed, sizeof seed);
    *p = (struct hearth_request_params){ .size = sizeof *p,
                                         .n_choice = 1,
                                         .temperature = 1.0f,
                                         .top_p = 1.0f,
                                         .typical_p = 1.0f,
                                         .repeat_penalty = 1.0f,
                                         .repeat_last_n = 64,
                                         .seed = seed,
                                         .n_logprob = -1 };
}

static enum err make_spec(const struct hearth_request_params *p, struct engine_spec *s)
{
    REQUIRE(p->size == sizeof *p, ERR_USAGE,
            "hearth_request_params: size is %zu; was hearth_request_init called?", p->size);
    REQUIRE(p->n_bias <= HEARTH_BIAS_MAX, ERR_USAGE,
            "logit_bias has %zu entries, at most %d are taken", p->n_bias, HEARTH_BIAS_MAX);
    REQUIRE(p->n_stop <= HEARTH_STOP_MAX, ERR_USAGE, "%zu stop texts, at most %d are taken",
            p->n_stop, HEARTH_STOP_MAX);
    REQUIRE((p->tokens != NULL || p->n_token == 0) && (p->bias != NULL || p->n_bias == 0) &&
                (p->stop != NULL || p->n_stop == 0),
            ERR_USAGE, "hearth_request_params: tokens, bias or stop is NULL, its number is not 0");
    *s = (struct engine_spec){
        .sample = { .temperature = p->temperature,
                    .top_k = p->top_k,
                    .top_p = p->top_p,
                    .min_p = p->min_p,
                    .typical_p = p->typical_p,
                    .repeat_penalty = p->repeat_penalty,
                    .presence_penalty = p->presence_penalty,
                    .frequency_penalty = p->frequency_penalty,
                    .repeat_last_n = p->repeat_last_n,
                    .seed = p->seed,
                    .n_logprob = p->n_logprob,
                    .n_bias = (int32_t)p->n_bias },
        .n_choice = p->n_choice,
        .max_tokens = p->max_tokens,
        .stops = { .n = (int32_t)p->n_stop },
        .is_eos_ignored = p->ignore_eos != 0,
        .shows_special = p->show_special != 0,
        .has_no_guesses = p->no_guesses != 0,
        .timeout_us = p->timeout_us,
        .n_made_up = p->n_made_up,
    };
    for (size_t i = 0; i < p->n_bias; i++) {
        s->sample.bias[i] = (struct sample_bias){ p->bias[i].token, p->bias[i].bias };
    }
    for (size_t i = 0; i < p->n_stop; i++) {
        REQUIRE(p->stop[i] != NULL, ERR_USAGE, "stop text %zu of %zu is NULL", i, p->n_stop);
        s->stops.text[i] = view_of(p->stop[i]);
    }
    return ERR_OK;
}

hearth_status hearth_submit(struct hearth_model *model, const struct hearth_request_params *p,
                            struct hearth_request **request)
{
    if (hearth_is_missing(model, "hearth_submit: model") ||
        hearth_is_missing(p, "hearth_submit: parameters") ||
        hearth_is_missing(request, "hearth_submit: request")) {
        return HEARTH_USAGE;
    }
    struct hearth_request *r = mem_alloc(sizeof *r);
    struct engine_spec *spec = mem_alloc(sizeof *spec);
    enum err e = r == NULL || spec == NULL ? err_set(ERR_MEMORY, "no memory for a request")
                                           : make_spec(p, spec);
    if (e == ERR_OK) {
        r->model = model;
        e = engine_submit(model->engine, spec, p->tokens, p->n_token, &r->handle);
    }
    mem_free(spec);
    if (e != ERR_OK) {
        mem_free(r);
        return (hearth_status)e;
    }
    *request = r;
    return HEARTH_OK;
}

#define NO_NUMBERS                                                                                 \
    "the scores are not numbers: the weights are damaged, which hearth verify MODEL may find, or " \
    "this machine miscomputes"

#define UNREAD "the weights could not be read, or their file was changed, as the log tells"

hearth_status hearth_next(struct hearth_request *request, uint64_t timeout_us,
                          struct hearth_event *out)
{
    struct hearth_request *r = request;
    if (hearth_is_missing(r, "hearth_next: request") ||
        hearth_is_missing(out, "hearth_next: out")) {
        return HEARTH_USAGE;
    }
    const enum err e = engine_next(r->model->engine, r->handle, timeout_us, &r->event, r->text);
    if (e != ERR_OK) {
        return (hearth_status)e;
    }
    for (int32_t i = 0; i < r->event.n_top; i++) {
        r->top[i] = (struct hearth_bias){ r->event.top[i].token, r->event.top[i].bias };
    }
    const struct engine_event *v = &r->event;
    *out = (struct hearth_event){
        .size = sizeof *out,
        .kind = (enum hearth_event_kind)v->kind,
        .choice = v->choice,
        .text = r->text,
        .n_text = v->n_text,
        .token = v->token,
        .logprob = v->logprob,
        .n_top = v->n_top,
        .top = r->top,
        .finish = (enum hearth_finish)v->finish,
        .n_prompt = v->n_prompt,
        .n_generated = v->n_generated,
        .queue_us = v->queue_us,
        .prefill_us = v->prefill_us,
        .decode_us = v->decode_us,
        .error = v->finish != ENGINE_FINISH_ERROR ? NULL
                 : v->is_unread                   ? UNREAD
                                                  : NO_NUMBERS,
    };
    return HEARTH_OK;
}

void hearth_cancel(struct hearth_request *request)
{
    if (!hearth_is_missing(request, "hearth_cancel: request")) {
        engine_cancel(request->model->engine, request->handle);
    }
}

void hearth_request_close(struct hearth_request *request)
{
    if (request != NULL) {
        engine_drop(request->model->engine, request->handle);
        mem_free(request);
    }
}

int hearth_fd(struct hearth_model *model)
{
    return hearth_is_missing(model, "hearth_fd: model") ? -1 : engine_fd(model->engine);
}

void hearth_fd_clear(struct hearth_model *model)
{
    if (!hearth_is_missing(model, "hearth_fd_clear: model")) {
        engine_fd_clear(model->engine);
    }
}

/* Files that are in use. */
static bool are_same(const struct hearth_model *m)
{
    const struct small *s = m->small;
    return !mem_is_torn() && (!m->has_image || os_is_same(&m->image)) &&
           (s == NULL || !s->has_image || os_is_same(&s->image));
}

void hearth_model_get_stats(const struct hearth_model *model, struct hearth_stats *out)
{
    struct engine_stats s;
    if (hearth_is_missing(model, "hearth_model_get_stats: model") ||
        hearth_is_missing(out, "hearth_model_get_stats: out")) {
        return;
    }
    engine_get_stats(model->engine, &s);
    const uint64_t now = os_now_us();
    *out = (struct hearth_stats){
        .size = sizeof *out,
        .is_ready = s.is_ready && are_same(model),
        .heartbeat_age_us = now > s.heartbeat_us ? now - s.heartbeat_us : 0,
        .n_running = s.n_running,
        .n_queued = s.n_queued,
        .n_request = s.n_request,
        .n_done = s.n_done,
        .n_cancelled = s.n_cancelled,
        .n_refused = s.n_refused,
        .n_failed = s.n_failed,
        .n_prompt_token = s.n_prompt_tok,
        .n_generated_token = s.n_generated_tok,
        .n_step = s.n_step,
        .n_step_abandoned = s.n_abandoned,
        .n_guessed_token = s.n_guessed,
        .n_accepted_token = s.n_accepted,
        .kv_pages = s.kv_pages,
        .kv_pages_used = s.kv_pages_used,
        .memory_planned_bytes = model->plan.total_bytes,
        .rss_peak_bytes = os_rss_peak_bytes(),
        .disk_read_bytes = s.disk_read_bytes,
        .disk_used_bytes = s.disk_used_bytes,
    };
    memcpy(out->step_batch, s.step_batch, sizeof out->step_batch);
}
