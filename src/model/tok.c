/* tok - text to token ids and back
 *
 * This file has what all kinds of tokenizers share: the tables built from the model file, special
 * tokens in text, the tokens added at both ends, and decoding. The kinds differ in how plain text
 * becomes ids: tok_bpe.c, tok_spm.c, tok_wpm.c, tok_ugm.c.
 *
 * Tables are built for speed of opening: the file's string arrays are copied as they are, in one
 * piece, and a hash table of 32-bit indices points into them. A vocabulary of 262,144 pieces opens
 * in a few dozen milliseconds.
 *
 * Special tokens. Control tokens (type 3) can be formed by text only where the caller allows it
 * (parse_special, or bytes marked as the template's own); added tokens that are no control tokens
 * (type 4) always are. The longest one that is allowed wins. Each of the two sorts has a trie, so
 * that a million special tokens cost a place in a text no more than ten do.
 *
 * Invariants TO-1..TO-3 stand in tok.h. Next: model/chat.c. */
#include "model/tok.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/os.h"
#include "model/tok_impl.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX_BYTES ((size_t)256 << 20)
#define MERGES         "tokenizer.ggml.merges"
#define STRANGE_SHARE  10   /* at most one merge in so many may name what is no token */
#define STRANGE_LOOK   8192 /* merges that are looked at before all are */

struct view tok_piece_of(const struct tok *t, int32_t id)
{
    return (struct view){ (const char *)t->piece.bytes + t->piece.at[id], t->piece.n[id] };
}

int32_t tok_lookup(const struct tok *t, struct view piece)
{
    for (size_t at = hash_mix(piece.p, piece.n, t->seed) & (t->n_slot - 1); t->by_piece[at] != 0;
         at = (at + 1) & (t->n_slot - 1)) {
        const int32_t id = (int32_t)t->by_piece[at] - 1;
        if (t->piece.n[id] == piece.n &&
            memcmp(t->piece.bytes + t->piece.at[id], piece.p, piece.n) == 0) {
            return id;
        }
    }
    return -1;
}

int32_t tok_lookup_text(const struct tok *t, struct view piece)
{
    const int32_t id = tok_lookup(t, piece);
    return id >= 0 && t->type[id] != TOK_CONTROL ? id : -1;
}

static uint64_t pair_hash(const struct tok *t, struct view a, struct view b)
{
    return hash_mix(b.p, b.n, hash_mix(a.p, a.n, t->seed));
}

static struct view merge_of(const struct tok *t, size_t i)
{
    return (struct view){ (const char *)t->merge.bytes + t->merge.at[i], t->merge.n[i] };
}

int32_t tok_merge_rank(const struct tok *t, struct view a, struct view b)
{
    if (t->n_merge == 0) {
        return -1;
    }
    for (size_t at = pair_hash(t, a, b) & (t->n_merge_slot - 1); t->by_merge[at] != 0;
         at = (at + 1) & (t->n_merge_slot - 1)) {
        const uint32_t i = t->by_merge[at] - 1;
        const char *m = (const char *)t->merge.bytes + t->merge.at[i];
        if (t->merge.n[i] == a.n + b.n + 1 && m[a.n] == ' ' && memcmp(m, a.p, a.n) == 0 &&
            memcmp(m + a.n + 1, b.p, b.n) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}

void tok_emit(struct tok_list *out, int32_t id)
{
    if (out->n < out->cap) {
        out->ids[out->n] = id;
    }
    out->n++;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Copies a string array. */
static enum err copy_strings(const struct gguf *g, const char *key, const struct gguf_array *a,
                             struct tok_strings *out)
{
    struct gguf_string_iter it = { 0 };
    struct view s = { NULL, 0 };
    const uint8_t *end = a->bytes;
    while (gguf_array_string(a, &it, &s)) {
        end = (const uint8_t *)s.p + s.n;
    }
    const size_t size = (size_t)(end - (const uint8_t *)a->bytes);
    REQUIRE(size < UINT32_MAX, ERR_LIMIT, "%s: key %s is too large", gguf_path(g), key);
    out->bytes = mem_alloc(size + 1);
    out->at = mem_alloc_array((size_t)a->n + 1, sizeof out->at[0]);
    out->n = mem_alloc_array((size_t)a->n + 1, sizeof out->n[0]);
    REQUIRE(out->bytes != NULL && out->at != NULL && out->n != NULL, ERR_MEMORY,
            "%s: no memory for %s", gguf_path(g), key);
    memcpy(out->bytes, a->bytes, size);
    it = (struct gguf_string_iter){ 0 };
    for (uint64_t i = 0; gguf_array_string(a, &it, &s); i++) {
        out->at[i] = (uint32_t)((const uint8_t *)s.p - (const uint8_t *)a->bytes);
        out->n[i] = (uint32_t)s.n;
    }
    return ERR_OK;
}

static size_t slots_for(size_t n)
{
    size_t slots = 64;
    while (slots < 2 * n) {
        slots *= 2;
    }
    return slots;
}

static enum err index_pieces(struct tok *t, const struct gguf *g)
{
    t->n_slot = slots_for((size_t)t->n);
    t->by_piece = mem_alloc_array(t->n_slot, sizeof t->by_piece[0]);
    REQUIRE(t->by_piece != NULL, ERR_MEMORY, "%s: no memory for the vocabulary", gguf_path(g));
    for (int32_t i = 0; i < t->n; i++) {
        const struct view p = tok_piece_of(t, i);
        size_t at = hash_mix(p.p, p.n, t->seed) & (t->n_slot - 1);
        while (t->by_piece[at] != 0 && !view_eq(tok_piece_of(t, (int32_t)t->by_piece[at] - 1), p)) {
            at = (at + 1) & (t->n_slot - 1);
        }
        if (t->by_piece[at] == 0) { /* of equal pieces the first counts */
            t->by_piece[at] = (uint32_t)i + 1;
        }
    }
    return ERR_OK;
}

/* Refuses a merge that can never be one: without a blank, or with nothing on a side of it. */
static enum err cut_merge(const struct gguf *g, size_t i, struct view m, struct view *a,
                          struct view *b)
{
    const size_t cut = view_find(m, VIEW(" "), 1); /* a piece may itself begin with a blank */
    REQUIRE(cut != SIZE_MAX && cut + 1 < m.n, ERR_INTEGRITY,
            "%s: key " MERGES ", entry %zu: two pieces with a blank between them are wanted, "
            "\"%.*s\" was found: the file is damaged or was converted wrongly",
            gguf_path(g), i, (int)(m.n > 64 ? 64 : m.n), m.p);
    *a = view_part(m, 0, cut);
    *b = view_from(m, cut + 1);
    return ERR_OK;
}

/* Whether both pieces and what they make are tokens. */
static bool is_merge_of_tokens(const struct tok *t, struct view a, struct view b)
{
    char whole[TOK_PIECE_MAX];
    if (a.n > sizeof whole || b.n > sizeof whole - a.n) {
        return false;
    }
    memcpy(whole, a.p, a.n);
    memcpy(whole + a.n, b.p, b.n);
    return tok_lookup(t, a) >= 0 && tok_lookup(t, b) >= 0 &&
           tok_lookup(t, (struct view){ whole, a.n + b.n }) >= 0;
}

/* How many of n merges are of what is no token; *first is the least of these. All of them, or, when
 * n is less, some from everywhere: multiples of the golden section, without their whole part. */
static size_t count_strange(const struct tok *t, size_t n, size_t *first)
{
    size_t n_strange = 0;
    *first = t->n_merge;
    for (size_t k = 0; k < n; k++) {
        const size_t i = n == t->n_merge
                             ? k
                             : (size_t)((uint32_t)(k * 2654435769u) * (uint64_t)t->n_merge >> 32);
        const struct view m = merge_of(t, i);
        const size_t cut = view_find(m, VIEW(" "), 1);
        if (!is_merge_of_tokens(t, view_part(m, 0, cut), view_from(m, cut + 1))) {
            n_strange++;
            *first = i < *first ? i : *first;
        }
    }
    return n_strange;
}

/* A vocabulary that somebody cut down may keep merges of the tokens it lost: they change nothing
 * but the cutting of rare words. A file whose merges belong to another vocabulary is refused. Three
 * look-ups for each of 280,000 merges took a fifth of opening; so some are looked at first, and all
 * where of these half as many are strange as are allowed. */
static enum err check_merges(const struct tok *t, const struct gguf *g)
{
    const size_t n = t->n_merge;
    size_t first = 0;
    if (n > STRANGE_LOOK &&
        count_strange(t, STRANGE_LOOK, &first) <= STRANGE_LOOK / STRANGE_SHARE / 2) {
        return ERR_OK;
    }
    const size_t n_strange = count_strange(t, n, &first);
    if (n_strange <= n / STRANGE_SHARE) {
        return ERR_OK;
    }
    const struct view m = merge_of(t, first);
    return err_set(ERR_INTEGRITY,
                   "%s: key " MERGES ", entry %zu: \"%.*s\" merges what the vocabulary does not "
                   "have, as do %zu of %zu entries: they belong to another vocabulary",
                   gguf_path(g), first, (int)(m.n > 64 ? 64 : m.n), m.p, n_strange, n);
}

static enum err index_merges(struct tok *t, const struct gguf *g)
{
    struct gguf_array a = { 0 };
    bool found = false;
    TRY(gguf_array(g, MERGES, &a, &found));
    REQUIRE(found && a.type == GGUF_STRING && a.n > 0 && a.n < UINT32_MAX / 2, ERR_INTEGRITY,
            "%s: key " MERGES " %s: a list of 1 or more strings is wanted; convert the model again",
            gguf_path(g),
            !found     ? "is missing"
            : a.n == 0 ? "is empty"
                       : "is something else");
    t->n_merge = (size_t)a.n;
    t->n_merge_slot = slots_for(t->n_merge);
    TRY(copy_strings(g, MERGES, &a, &t->merge));
    t->by_merge = mem_alloc_array(t->n_merge_slot, sizeof t->by_merge[0]);
    REQUIRE(t->by_merge != NULL, ERR_MEMORY, "%s: no memory for %zu merges", gguf_path(g),
            t->n_merge);
    for (size_t i = 0; i < t->n_merge; i++) {
        struct view l;
        struct view r;
        TRY(cut_merge(g, i, merge_of(t, i), &l, &r));
        size_t at = pair_hash(t, l, r) & (t->n_merge_slot - 1);
        while (t->by_merge[at] != 0 && !view_eq(merge_of(t, t->by_merge[at] - 1), merge_of(t, i))) {
            at = (at + 1) & (t->n_merge_slot - 1);
        }
        if (t->by_merge[at] == 0) { /* of equal merges the first counts */
            t->by_merge[at] = (uint32_t)i + 1;
        }
    }
    return check_merges(t, g);
}

/* "<0x0A>" and the like. */
static int byte_of_piece(struct view p)
{
    static const char digits[] = "0123456789ABCDEF";
    if (p.n != 6 || memcmp(p.p, "<0x", 3) != 0 || p.p[5] != '>') {
        return -1;
    }
    const char *a = strchr(digits, p.p[3]);
    const char *b = strchr(digits, p.p[4]);
    return a != NULL && b != NULL && *a != '\0' && *b != '\0'
               ? (int)((a - digits) * 16 + (b - digits))
               : -1;
}

static enum err read_types(struct tok *t, const struct gguf *g)
{
    struct gguf_array types = { 0 };
    struct gguf_array scores = { 0 };
    bool has_types = false;
    bool has_scores = false;
    TRY(gguf_array(g, "tokenizer.ggml.token_type", &types, &has_types));
    TRY(gguf_array(g, "tokenizer.ggml.scores", &scores, &has_scores));
    t->type = mem_alloc_array((size_t)t->n + 1, 1);
    t->is_end = mem_alloc_array((size_t)t->n + 1, 1);
    t->score = has_scores ? mem_alloc_array((size_t)t->n + 1, sizeof t->score[0]) : NULL;
    REQUIRE(t->type != NULL && t->is_end != NULL && (!has_scores || t->score != NULL), ERR_MEMORY,
            "%s: no memory for the vocabulary", gguf_path(g));
    for (int32_t i = 0; i < 256; i++) {
        t->byte_id[i] = -1;
    }
    for (int32_t i = 0; i < t->n; i++) {
        int64_t v = TOK_NORMAL;
        if (has_types && (!gguf_array_int(&types, (uint64_t)i, &v) || v < 0 || v > 255)) {
            v = TOK_NORMAL;
        }
        t->type[i] = (uint8_t)v;
        if (has_scores && !gguf_array_float(&scores, (uint64_t)i, &t->score[i])) {
            t->score[i] = 0.0f;
        }
        REQUIRE(t->piece.n[i] <= TOK_PIECE_MAX, ERR_LIMIT,
                "%s: token %d has %u bytes; at most %d are taken", gguf_path(g), i, t->piece.n[i],
                TOK_PIECE_MAX);
        const int b = byte_of_piece(tok_piece_of(t, i));
        if (b >= 0 && v != TOK_CONTROL && (v == TOK_BYTE || t->byte_id[b] < 0)) {
            t->byte_id[b] = i;
        }
    }
    return ERR_OK;
}

static enum err read_id(const struct tok *t, const struct gguf *g, const char *key, int32_t *out)
{
    uint32_t v = 0;
    bool found = false;
    TRY(gguf_u32(g, key, &v, &found));
    REQUIRE(!found || v < (uint32_t)t->n || v == UINT32_MAX, ERR_INTEGRITY,
            "%s: key %s: token %u, the vocabulary has %d", gguf_path(g), key, v, t->n);
    *out = found && v != UINT32_MAX ? (int32_t)v : *out;
    return ERR_OK;
}

/* Ends of turns that models are trained to write; names are published with the models. */
static void mark_ends(struct tok *t)
{
    static const char *const names[] = { "<|eot_id|>",
                                         "<|im_end|>",
                                         "<|end|>",
                                         "<end_of_turn>",
                                         "<|endoftext|>",
                                         "<|eom_id|>",
                                         "<EOT>",
                                         "<|return|>",
                                         "<|call|>",
                                         "<|user|>",
                                         "[EOS]",
                                         "</s>",
                                         "<|end_of_text|>",
                                         "<turn|>",
                                         "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
                                         "<|END_OF_TURN_TOKEN|>" };
    if (t->eos >= 0) {
        t->is_end[t->eos] = 1;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const int32_t id = tok_lookup(t, view_of(names[i]));
        if (id >= 0 && t->type[id] == TOK_CONTROL &&
            !(strcmp(names[i], "<|user|>") == 0 && id != t->eos)) {
            t->is_end[id] = 1;
        }
    }
}

/* Whether some word of a WordPiece vocabulary can have a token. */
static bool has_word_starts(const struct tok *t)
{
    for (int32_t i = 0; i < t->n; i++) {
        if (view_starts(tok_piece_of(t, i), VIEW("\xE2\x96\x81"))) {
            return true;
        }
    }
    return false;
}

static enum err read_ids(struct tok *t, const struct gguf *g)
{
    t->bos = t->eos = t->unk = t->cls = t->sep = -1;
    int32_t eot = -1;
    if (t->family == TOK_SPM) { /* defaults of the format */
        t->bos = t->n > 1 ? 1 : -1;
        t->eos = t->n > 2 ? 2 : -1;
        t->unk = 0;
    } else if (t->family == TOK_WPM) {
        t->bos = tok_lookup(t, VIEW("[CLS]"));
        t->unk = tok_lookup(t, VIEW("[UNK]"));
        t->sep = tok_lookup(t, VIEW("[SEP]"));
    } else if (t->family == TOK_UGM) {
        t->eos = t->n > 1 ? 1 : -1;
        t->unk = t->n > 2 ? 2 : -1;
    }
    TRY(read_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos));
    TRY(read_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos));
    TRY(read_id(t, g, "tokenizer.ggml.eot_token_id", &eot));
    TRY(read_id(t, g, "tokenizer.ggml.unknown_token_id", &t->unk));
    TRY(read_id(t, g, "tokenizer.ggml.cls_token_id", &t->bos));
    TRY(read_id(t, g, "tokenizer.ggml.seperator_token_id", &t->sep)); /* spelled so in the format */
    t->adds_bos = t->family == TOK_SPM || t->family == TOK_WPM;
    t->adds_eos = t->family == TOK_UGM;
    t->adds_space = t->family == TOK_SPM;
    TRY(gguf_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos, NULL));
    TRY(gguf_bool(g, "tokenizer.ggml.add_eos_token", &t->adds_eos, NULL));
    TRY(gguf_bool(g, "tokenizer.ggml.add_space_prefix", &t->adds_space, NULL));
    t->is_lower = t->is_stripped = t->family == TOK_WPM;
    TRY(gguf_bool(g, "tokenizer.ggml.normalizer.lowercase", &t->is_lower, NULL));
    TRY(gguf_bool(g, "tokenizer.ggml.normalizer.strip_accents", &t->is_stripped, NULL));
    REQUIRE(t->family != TOK_UGM || t->unk >= 0, ERR_INTEGRITY,
            "%s: a unigram vocabulary without unknown token", gguf_path(g));
    REQUIRE(t->family != TOK_WPM || (t->unk >= 0 && t->bos >= 0 && t->sep >= 0), ERR_INTEGRITY,
            "%s: tokenizer.ggml.model is bert (WordPiece), but the vocabulary has no token %s and "
            "no key tokenizer.ggml.%s_token_id names one",
            gguf_path(g),
            t->unk < 0   ? "[UNK]"
            : t->bos < 0 ? "[CLS]"
                         : "[SEP]",
            t->unk < 0   ? "unknown"
            : t->bos < 0 ? "cls"
                         : "seperator");
    REQUIRE(t->family != TOK_WPM || has_word_starts(t), ERR_INTEGRITY,
            "%s: key tokenizer.ggml.tokens: tokenizer.ggml.model is bert (WordPiece), but none of "
            "%d tokens begins a word (U+2581): every word would be unknown",
            gguf_path(g), t->n);
    mark_ends(t);
    if (eot >= 0) {
        t->is_end[eot] = 1;
    }
    return ERR_OK;
}

static enum err read_family(struct tok *t, const struct gguf *g)
{
    static const struct {
        const char *name;
        const char *shown;
        enum tok_family family;
    } rows[] = { { "gpt2", "bpe", TOK_BPE },
                 { "llama", "spm", TOK_SPM },
                 { "bert", "wpm", TOK_WPM },
                 { "t5", "ugm", TOK_UGM },
                 { "gemma4", "bpe", TOK_GEMMA_BPE } };
    struct view model = { NULL, 0 };
    struct view pre = VIEW("");
    bool found = false;
    TRY(gguf_string(g, "tokenizer.ggml.model", &model, &found));
    REQUIRE(found, ERR_INTEGRITY, "%s: tokenizer.ggml.model is missing: the file has no tokenizer",
            gguf_path(g));
    TRY(gguf_string(g, "tokenizer.ggml.pre", &pre, NULL));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (view_is(model, rows[i].name)) {
            t->family = rows[i].family;
            snprintf(t->kind, sizeof t->kind, "%s %.*s", rows[i].shown,
                     (int)(pre.n < 32 ? pre.n : 32), pre.p);
            return ERR_OK;
        }
    }
    return err_set(
        ERR_UNSUPPORTED,
        "%s: tokenizer kind \"%.*s\" is not supported (gpt2, llama, bert, t5, gemma4 are)",
        gguf_path(g), (int)(model.n > 64 ? 64 : model.n), model.p);
}

static enum err build(struct tok *t, const struct gguf *g)
{
    struct gguf_array tokens = { 0 };
    bool found = false;
    TRY(read_family(t, g));
    TRY(gguf_array(g, "tokenizer.ggml.tokens", &tokens, &found));
    REQUIRE(
        found && tokens.type == GGUF_STRING && tokens.n > 0 && tokens.n < (1u << 24), ERR_INTEGRITY,
        "%s: key tokenizer.ggml.tokens: a list of 1 to 16777215 strings is wanted", gguf_path(g));
    t->n = (int32_t)tokens.n;
    TRY(copy_strings(g, "tokenizer.ggml.tokens", &tokens, &t->piece));
    TRY(index_pieces(t, g));
    TRY(read_types(t, g));
    TRY(tok_trie_open(&t->control, t, 1u << TOK_CONTROL, gguf_path(g)));
    TRY(tok_trie_open(&t->added, t, 1u << TOK_USER, gguf_path(g)));
    TRY(read_ids(t, g));
    if (t->family == TOK_BPE || t->family == TOK_GEMMA_BPE) {
        TRY(index_merges(t, g));
        return tok_bpe_open(t, g);
    }
    return t->family == TOK_UGM ? tok_ugm_open(t, g) : ERR_OK;
}

enum err tok_open(struct tok **out, const struct gguf *g)
{
    struct tok *t = mem_alloc(sizeof *t);
    REQUIRE(t != NULL, ERR_MEMORY, "%s: no memory for a tokenizer", gguf_path(g));
    os_random(&t->seed, sizeof t->seed);
    const enum err e = build(t, g);
    if (e != ERR_OK) {
        tok_close(t);
        return e;
    }
    *out = t;
    return ERR_OK;
}

void tok_close(struct tok *t)
{
    if (t == NULL) {
        return;
    }
    void *const owned[] = { t->piece.bytes, t->piece.at, t->piece.n,     t->type,
                            t->score,       t->by_piece, t->merge.bytes, t->merge.at,
                            t->merge.n,     t->by_merge, t->is_end };
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        mem_free(owned[i]);
    }
    for (int32_t i = 0; i < t->n_split; i++) {
        rx_close(t->split[i]);
    }
    tok_trie_close(&t->control);
    tok_trie_close(&t->added);
    tok_ugm_close(t->ugm);
    mem_free(t);
}

/* --- encoding --------------------------------------------------------------------------------- */

/* The longest special token that may be formed at text[at], of equal ones the first, -1 if none.
 * trusted: NULL or a byte per byte of text. */
static int32_t special_at(const struct tok *t, struct view text, size_t at, bool parse,
                          const uint8_t *trusted)
{
    const struct view rest = view_from(text, at);
    const int32_t c =
        parse ? tok_trie_longest(&t->control, rest, trusted != NULL ? trusted + at : NULL) : -1;
    const int32_t a = t->family != TOK_UGM ? tok_trie_longest(&t->added, rest, NULL) : -1;
    if (c < 0 || a < 0) {
        return c >= 0 ? c : a;
    }
    return t->piece.n[c] > t->piece.n[a] || (t->piece.n[c] == t->piece.n[a] && c < a) ? c : a;
}

static enum err encode_plain(const struct tok *t, struct view text, bool is_first,
                             struct tok_list *out)
{
    switch (t->family) {
    case TOK_SPM:
        return tok_spm_encode(t, text, is_first, out);
    case TOK_WPM:
        return tok_wpm_encode(t, text, out);
    case TOK_UGM:
        return tok_ugm_encode(t, text, out);
    case TOK_BPE:
    case TOK_GEMMA_BPE:
        break;
    }
    return tok_bpe_encode(t, text, out);
}

static enum err encode_all(const struct tok *t, struct view text, bool parse,
                           const uint8_t *trusted, struct tok_list *out)
{
    size_t from = 0;
    bool is_first = true;
    for (size_t at = 0; at < text.n;) {
        const int32_t id = special_at(t, text, at, parse, trusted);
        if (id < 0) {
            at++;
            continue;
        }
        if (at > from) {
            TRY(encode_plain(t, view_part(text, from, at - from), is_first, out));
        }
        tok_emit(out, id);
        at += t->piece.n[id];
        from = at;
        is_first = t->type[id] ==
                   TOK_CONTROL; /* SentencePiece puts its blank after a control token again */
    }
    if (from < text.n) {
        TRY(encode_plain(t, view_from(text, from), is_first, out));
    }
    return ERR_OK;
}

/* SentencePiece spells blanks as U+2581, so that character in a text is a blank; its added tokens
 * stand with plain blanks in the file. Turned into blanks before special tokens are looked for. */
static enum err encode_blanks(const struct tok *t, struct view text, bool parse,
                              const uint8_t *trusted, struct tok_list *out)
{
    const struct view mark = VIEW("\xE2\x96\x81");
    if (t->family != TOK_SPM || view_find(text, mark, 0) == SIZE_MAX) {
        return encode_all(t, text, parse, trusted, out);
    }
    char *plain = mem_alloc(text.n);
    uint8_t *marks = mem_alloc(text.n);
    enum err e = plain != NULL && marks != NULL
                     ? ERR_OK
                     : err_set(ERR_MEMORY, "no memory for %zu bytes", text.n);
    size_t n = 0;
    for (size_t i = 0; i < text.n && e == ERR_OK; i++, n++) {
        const bool is_mark = view_starts(view_from(text, i), mark);
        plain[n] = is_mark ? ' ' : text.p[i];
        marks[n] = trusted != NULL ? trusted[i] : 1;
        i += is_mark ? mark.n - 1 : 0;
    }
    e = e == ERR_OK ? encode_all(t, (struct view){ plain, n }, parse, marks, out) : e;
    mem_free(plain);
    mem_free(marks);
    return e;
}

static enum err check_room(const struct tok_list *out)
{
    REQUIRE(out->n <= out->cap, ERR_LIMIT, "the text has %zu tokens, there is room for %zu", out->n,
            out->cap);
    return ERR_OK;
}

enum err tok_encode(const struct tok *t, struct view text, bool add_special, bool parse_special,
                    struct tok_list *out)
{
    struct buf clean;
    REQUIRE(text.n <= TEXT_MAX_BYTES, ERR_LIMIT, "a text of %zu bytes; at most %zu are taken",
            text.n, TEXT_MAX_BYTES);
    buf_init(&clean, 3 * text.n + 16);
    if (add_special && t->adds_bos && t->bos >= 0) {
        tok_emit(out, t->bos);
    }
    enum err e = ERR_OK;
    if (!utf8_valid(text)) {
        utf8_clean(&clean, text);
        e = buf_check(&clean, "text");
        text = buf_view(&clean);
    }
    e = e == ERR_OK ? encode_blanks(t, text, parse_special, NULL, out) : e;
    const int32_t last = t->family == TOK_WPM ? t->sep : t->eos;
    if (add_special && (t->adds_eos || t->family == TOK_WPM) && last >= 0) {
        tok_emit(out, last);
    }
    buf_release(&clean);
    return e == ERR_OK ? check_room(out) : e;
}

enum err tok_encode_marked(const struct tok *t, struct view text, const uint8_t *trusted,
                           struct tok_list *out)
{
    REQUIRE(text.n <= TEXT_MAX_BYTES, ERR_LIMIT, "a text of %zu bytes; at most %zu are taken",
            text.n, TEXT_MAX_BYTES);
    REQUIRE(utf8_valid(text), ERR_USAGE, "rendered text that is no UTF-8");
    TRY(encode_blanks(t, text, true, trusted, out));
    return check_room(out);
}

/* --- decoding --------------------------------------------------------------------------------- */

/* Bytes of one token as it stands in the middle of a text. */
static void token_bytes(const struct tok *t, int32_t id, bool special, struct buf *out)
{
    const struct view p = tok_piece_of(t, id);
    if (t->type[id] == TOK_CONTROL || t->type[id] == TOK_UNKNOWN) {
        if (special) {
            buf_add_view(out, p);
        }
        return;
    }
    const int b = t->type[id] == TOK_BYTE ? byte_of_piece(p) : -1;
    if (b >= 0) {
        buf_add_char(out, (char)b);
    } else if (t->type[id] == TOK_USER && t->family != TOK_UGM) {
        buf_add_view(out, p);
    } else if (t->family == TOK_BPE) {
        tok_bpe_bytes(p, out);
    } else {
        for (size_t i = 0; i < p.n; i++) { /* U+2581 is a blank */
            if (p.n - i >= 3 && memcmp(p.p + i, "\xE2\x96\x81", 3) == 0) {
                buf_add_char(out, ' ');
                i += 2;
            } else {
                buf_add_char(out, p.p[i]);
            }
        }
    }
}

/* The blank that encoding put in front of the first word. */
static void drop_first_blank(const struct tok *t, struct buf *out, size_t from)
{
    const bool drops = t->family == TOK_WPM || (t->family == TOK_SPM && t->adds_space) ||
                       (t->family == TOK_UGM && tok_ugm_drops_blank(t));
    if (drops && out->n > from && out->p[from] == ' ') {
        memmove(out->p + from, out->p + from + 1, out->n - from - 1);
        buf_cut(out, out->n - 1);
    }
}

enum err tok_decode(const struct tok *t, const int32_t *ids, size_t n, bool special,
                    struct buf *out)
{
    bool is_first = true;
    for (size_t i = 0; i < n; i++) {
        REQUIRE(ids[i] >= 0 && ids[i] < t->n, ERR_USAGE, "token %d, the vocabulary has %d", ids[i],
                t->n);
        const size_t from = out->n;
        token_bytes(t, ids[i], special, out);
        if (is_first && t->type[ids[i]] != TOK_CONTROL) {
            drop_first_blank(t, out, from);
            is_first = false;
        }
    }
    return buf_check(out, "text");
}

/* Bytes at the end of p[0..n) that begin a character which is not complete. */
static size_t cut_bytes(const char *p, size_t n)
{
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        const unsigned char c = (unsigned char)p[n - k];
        const size_t want = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : c >= 0x80 ? 0 : 1;
        if (want > 0) {
            return want > k ? k : 0;
        }
    }
    return 0;
}

void tok_stream_put(const struct tok *t, struct tok_stream *s, int32_t id, bool special,
                    struct buf *out)
{
    if (id < 0 || id >= t->n) {
        return;
    }
    const size_t from = out->n;
    buf_add(out, s->pending, s->n_pending);
    token_bytes(t, id, special, out);
    s->is_started = true;
    const size_t cut = cut_bytes(out->p + from, out->n - from);
    /* only a beginning that can still become a character waits */
    s->n_pending = 0;
    if (cut > 0 && utf8_bad(out->p + out->n - cut, cut) == cut) {
        memcpy(s->pending, out->p + out->n - cut, cut);
        s->n_pending = (uint8_t)cut;
        buf_cut(out, out->n - cut);
    }
    const size_t n = out->n - from;
    const struct view fresh = { n > 0 ? out->p + from : NULL, n };
    if (n > 0 && !utf8_valid(fresh)) { /* rewritten from a copy; nothing is allocated here */
        char copy[TOK_PIECE_MAX + sizeof s->pending];
        memcpy(copy, fresh.p, n);
        buf_cut(out, from);
        utf8_clean(out, (struct view){ copy, n });
    }
}

void tok_stream_end(struct tok_stream *s, struct buf *out)
{
    if (s->n_pending > 0) {
        utf8_clean(out, (struct view){ (const char *)s->pending, s->n_pending });
        s->n_pending = 0;
    }
}

/* --- questions -------------------------------------------------------------------------------- */

int32_t tok_n_vocab(const struct tok *t)
{
    return t->n;
}

int32_t tok_bos(const struct tok *t)
{
    return t->bos;
}

int32_t tok_eos(const struct tok *t)
{
    return t->eos;
}

bool tok_adds_bos(const struct tok *t)
{
    return t->adds_bos;
}

bool tok_is_end(const struct tok *t, int32_t id)
{
    return id >= 0 && id < t->n && t->is_end[id] != 0;
}

bool tok_is_control(const struct tok *t, int32_t id)
{
    return id >= 0 && id < t->n && t->type[id] == TOK_CONTROL;
}

struct view tok_piece(const struct tok *t, int32_t id)
{
    return id >= 0 && id < t->n ? tok_piece_of(t, id) : (struct view){ NULL, 0 };
}

const char *tok_kind(const struct tok *t)
{
    return t->kind;
}
