/* tok_ugm - SentencePiece's unigram model, as T5 and XLM-R use it
 *
 * Text is first normalized with the file's own rules, then cut into the pieces whose scores (log
 * probabilities) have the largest sum (Kudo 2018, section 3.2; Viterbi 1967).
 *
 * Rules. tokenizer.ggml.precompiled_charsmap is what SentencePiece stores in its model: a length, a
 * double array (Aoe 1989; layout of darts-clone: a unit of 32 bits holds label, leaf bit and offset
 * to its children) and the replacements, each ended by a zero byte. The longest rule at a place
 * wins. The array comes from outside, so that every index is checked, a walk ends after RULE_MAX
 * bytes, and a rule whose replacement does not begin at a character is no rule. Blanks then become
 * U+2581; the file says whether one goes in front and whether runs of them count once.
 *
 * Search. The pieces that begin at a place come from a trie (tok_trie.c). For each place the best
 * sum of a cover that ends there is kept. Where no piece seen so far reaches further than the
 * current place, all covers meet: the ids up to there are final, are given out, and the table
 * begins anew, so that memory stays small however long the text is. Sums go on from the text's
 * beginning in double precision, as in the tokenizers library, so that covers of equal score are
 * told apart by the same rounding. A character without piece costs UNKNOWN_PENALTY below the worst
 * score and becomes byte tokens where the vocabulary has all 256, else one unknown token a run.
 *
 * Added tokens (type 4) are found before normalization and are kept as they are; they score better
 * than any cover of theirs by other pieces. Next: tok.c. */
#include "base/mem.h"
#include "model/tok_impl.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define RULE_MAX        256 /* bytes a rule may replace */
#define GROWTH_MAX      16  /* normalized bytes for a byte of text; NFKC's worst character has 13 */
#define UNKNOWN_PENALTY 10.0 /* below the worst score, as in SentencePiece */

static const struct view blank = { "\xE2\x96\x81", 3 };

struct tok_ugm {
    struct tok_trie trie; /* of the pieces that are searched */
    uint32_t *unit;       /* [n_unit] double array of the rules; owns */
    size_t n_unit;
    char *rule_text; /* [n_rule_text] replacements, each ended by 0; owns */
    size_t n_rule_text;
    double unknown_score;
    double best_score; /* of normal pieces */
    bool is_trimmed;   /* runs of blanks count once, those at both ends not at all */
    bool has_bytes;    /* all 256 byte tokens are there */
};

/* --- opening ---------------------------------------------------------------------------------- */

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static enum err read_rules(struct tok_ugm *u, const struct gguf *g)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    struct gguf_array a = { 0 };
    bool found = false;
    TRY(gguf_array(g, key, &a, &found));
    if (!found || a.n == 0) {
        return ERR_OK;
    }
    REQUIRE(a.type == GGUF_U8 || a.type == GGUF_I8, ERR_INTEGRITY,
            "%s: key %s: a list of bytes is wanted", gguf_path(g), key);
    const uint8_t *p = a.bytes;
    const size_t n = a.n >= 4 ? u32_at(p) : 0;
    REQUIRE(a.n > 4 && n % 4 == 0 && n > 0 && n < a.n - 4, ERR_INTEGRITY,
            "%s: key %s: %zu bytes, of which the rules' table claims %zu", gguf_path(g), key,
            (size_t)a.n, n);
    const struct view texts = { (const char *)p + 4 + n, (size_t)a.n - 4 - n };
    REQUIRE(utf8_valid(texts), ERR_INTEGRITY, "%s: key %s: its texts are no UTF-8", gguf_path(g),
            key);
    u->n_unit = n / 4;
    u->unit = mem_alloc_array(u->n_unit, sizeof u->unit[0]);
    u->rule_text = mem_strdup(texts.p, texts.n);
    REQUIRE(u->unit != NULL && u->rule_text != NULL, ERR_MEMORY, "%s: no memory for %s",
            gguf_path(g), key);
    u->n_rule_text = texts.n;
    for (size_t i = 0; i < u->n_unit; i++) {
        u->unit[i] = u32_at(p + 4 + 4 * i);
    }
    return ERR_OK;
}

static enum err read_scores(const struct tok *t, struct tok_ugm *u, const char *path)
{
    double worst = FLT_MAX;
    u->best_score = (double)FLT_MIN;
    u->has_bytes = true;
    REQUIRE(t->score != NULL, ERR_INTEGRITY, "%s: a unigram vocabulary without scores", path);
    for (int32_t i = 0; i < t->n; i++) {
        const double s = (double)t->score[i];
        REQUIRE(isfinite(s), ERR_INTEGRITY, "%s: token %d: its score is no number", path, i);
        if (t->type[i] == TOK_NORMAL) {
            worst = s < worst ? s : worst;
            u->best_score = s > u->best_score ? s : u->best_score;
        }
    }
    for (int32_t i = 0; i < 256; i++) {
        u->has_bytes = u->has_bytes && t->byte_id[i] >= 0 && t->type[t->byte_id[i]] == TOK_BYTE;
    }
    u->unknown_score = worst - UNKNOWN_PENALTY;
    return ERR_OK;
}

enum err tok_ugm_open(struct tok *t, const struct gguf *g)
{
    struct tok_ugm *u = mem_alloc(sizeof *u);
    REQUIRE(u != NULL, ERR_MEMORY, "%s: no memory for a tokenizer", gguf_path(g));
    t->ugm = u; /* tok_close ends it whatever happens next */
    TRY(gguf_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &u->is_trimmed, NULL));
    TRY(read_scores(t, u, gguf_path(g)));
    TRY(read_rules(u, g));
    return tok_trie_open(&u->trie, t, 1u << TOK_NORMAL | 1u << TOK_USER, gguf_path(g));
}

void tok_ugm_close(struct tok_ugm *u)
{
    if (u == NULL) {
        return;
    }
    tok_trie_close(&u->trie);
    mem_free(u->unit);
    mem_free(u->rule_text);
    mem_free(u);
}

bool tok_ugm_drops_blank(const struct tok *t)
{
    return t->adds_space || t->ugm->is_trimmed;
}

/* --- normalization ---------------------------------------------------------------------------- */

/* Replacement by its place in the texts; false when it is no text. */
static bool replacement(const struct tok_ugm *u, uint32_t at, struct view *out)
{
    if (at >= u->n_rule_text || ((uint8_t)u->rule_text[at] & 0xC0) == 0x80) {
        return false;
    }
    *out = (struct view){ u->rule_text + at, strnlen(u->rule_text + at, u->n_rule_text - at) };
    return true;
}

/* Bytes that the longest rule at the text's start replaces, 0 = none. */
static size_t rule_at(const struct tok_ugm *u, struct view text, struct view *out)
{
    size_t found = 0;
    uint32_t at = 0;
    if (u->n_unit == 0) {
        return 0;
    }
    uint32_t unit = u->unit[0];
    const size_t n = text.n < RULE_MAX ? text.n : RULE_MAX;
    for (size_t i = 0; i < n; i++) {
        const uint32_t byte = (uint8_t)text.p[i];
        at ^= (unit >> 10) << ((unit & 0x200) >> 6) ^ byte;
        if (at >= u->n_unit || (u->unit[at] & 0x800000FF) != byte) {
            break;
        }
        unit = u->unit[at];
        const uint32_t leaf = at ^ (unit >> 10) << ((unit & 0x200) >> 6);
        if ((unit & 0x100) != 0 && leaf < u->n_unit &&
            replacement(u, u->unit[leaf] & 0x7FFFFFFF, out)) {
            found = i + 1;
        }
    }
    return found;
}

/* What stands for the text's first bytes: an added token, a replacement or one character. Returns
 * the number of bytes it stands for. */
static size_t next_part(const struct tok *t, struct view text, struct view *out)
{
    const int32_t added = tok_trie_longest(&t->added, text, NULL);
    if (added >= 0) {
        *out = view_part(text, 0, t->piece.n[added]);
        return out->n;
    }
    const size_t n = rule_at(t->ugm, text, out);
    if (n > 0) {
        return n;
    }
    uint32_t code = 0;
    const int n_char = utf8_read(text.p, text.n, &code);
    *out = view_part(text, 0, n_char > 0 ? (size_t)n_char : 1);
    return out->n;
}

static void normalize(const struct tok *t, struct view text, struct buf *out)
{
    const bool is_trimmed = t->ugm->is_trimmed;
    bool after_blank = is_trimmed;
    bool is_begun = false;
    for (size_t at = 0; at < text.n && !out->is_full;) {
        struct view part = { NULL, 0 };
        at += next_part(t, view_from(text, at), &part);
        if (is_trimmed && !is_begun && view_is(part, " ")) {
            continue; /* before anything else, also before the blank in front */
        }
        if (!is_begun && t->adds_space) {
            buf_add_view(out, blank);
        }
        is_begun = true;
        while (after_blank && part.n > 0 && part.p[0] == ' ') {
            part = view_from(part, 1);
        }
        for (size_t i = 0; i < part.n; i++) {
            if (part.p[i] == ' ') {
                buf_add_view(out, blank);
            } else {
                buf_add_char(out, part.p[i]);
            }
        }
        after_blank = part.n == 0 ? after_blank : is_trimmed && part.p[part.n - 1] == ' ';
    }
    while (is_trimmed && view_ends(buf_view(out), blank)) {
        buf_cut(out, out->n - blank.n);
    }
}

/* --- search ----------------------------------------------------------------------------------- */

#define NOWHERE UINT32_MAX

struct step {      /* the best cover that ends at a place */
    double score;  /* of the text from its beginning */
    uint32_t from; /* where its last piece begins, relative to the table's first place */
    int32_t id;    /* that piece, -1 = a character without one */
};

struct search {
    const struct tok *t;
    struct view text;
    struct tok_list *out;
    struct step *steps; /* [cap]; place base + i of the text */
    size_t base;
    size_t cap;
    size_t n;     /* places in use */
    size_t reach; /* no piece seen so far ends behind this place */
    bool after_unknown;
    bool is_out_of_memory;
};

static void propose(struct search *s, size_t from, size_t to, double score, int32_t id)
{
    const size_t i = to - s->base;
    if (i >= s->cap) {
        const size_t cap = 2 * i + 64;
        struct step *more = mem_realloc(s->steps, cap * sizeof s->steps[0]);
        if (more == NULL) {
            s->is_out_of_memory = true;
            return;
        }
        s->steps = more;
        s->cap = cap;
    }
    for (; s->n <= i; s->n++) {
        s->steps[s->n] = (struct step){ 0.0, NOWHERE, -1 };
    }
    const double sum = score + s->steps[from - s->base].score;
    if (s->steps[i].from == NOWHERE || sum > s->steps[i].score) {
        s->steps[i] = (struct step){ sum, (uint32_t)(from - s->base), id };
    }
    s->reach = to > s->reach ? to : s->reach;
}

static void emit_piece(struct search *s, size_t from, size_t to, int32_t id)
{
    const struct tok *t = s->t;
    if (id >= 0) {
        tok_emit(s->out, id);
    } else if (t->ugm->has_bytes) {
        for (size_t i = from; i < to; i++) {
            tok_emit(s->out, t->byte_id[(uint8_t)s->text.p[i]]);
        }
    } else if (!s->after_unknown) {
        tok_emit(s->out, t->unk);
    }
    s->after_unknown = id < 0;
}

/* Gives out the best cover up to `at`, where all covers meet, and begins a new table there. */
static void give_out(struct search *s, size_t at)
{
    const double score = s->steps[at - s->base].score;
    uint32_t next = NOWHERE;
    for (uint32_t i = (uint32_t)(at - s->base); i > 0;) { /* turns the links round */
        const uint32_t from = s->steps[i].from;
        s->steps[i].from = next;
        next = i;
        i = from;
    }
    for (uint32_t from = 0; next != NOWHERE;) {
        emit_piece(s, s->base + from, s->base + next, s->steps[next].id);
        from = next;
        next = s->steps[next].from;
    }
    s->base = at;
    s->n = 1;
    s->steps[0] = (struct step){ score, NOWHERE, -1 };
}

/* Proposes all pieces that begin at a place; returns the length of the character there. */
static size_t propose_all(struct search *s, size_t at)
{
    const struct tok *t = s->t;
    const struct tok_ugm *u = t->ugm;
    uint32_t code = 0;
    const int n = utf8_read(s->text.p + at, s->text.n - at, &code);
    const size_t n_char = n > 0 ? (size_t)n : 1;
    bool has_single = false;
    uint32_t node = 0;
    for (size_t to = at; to < s->text.n;) {
        node = tok_trie_child(&u->trie, node, (uint8_t)s->text.p[to]);
        if (node == 0) {
            break;
        }
        to++;
        const int32_t id = u->trie.id[node];
        if (id >= 0) {
            const double score = t->type[id] == TOK_USER ? (double)(to - at) * u->best_score - 0.1
                                                         : (double)t->score[id];
            propose(s, at, to, score, id);
            has_single = has_single || to - at == n_char;
        }
    }
    if (!has_single) {
        propose(s, at, at + n_char, u->unknown_score, -1);
    }
    return n_char;
}

enum err tok_ugm_encode(const struct tok *t, struct view text, struct tok_list *out)
{
    struct buf plain;
    buf_init(&plain, GROWTH_MAX * text.n + 64);
    normalize(t, text, &plain);
    struct search s = { .t = t, .text = buf_view(&plain), .out = out, .cap = 256, .n = 1 };
    s.steps = mem_alloc_array(s.cap, sizeof s.steps[0]);
    s.is_out_of_memory = s.steps == NULL;
    enum err e = buf_check(&plain, "normalized text");
    if (e == ERR_OK && plain.n >= UINT32_MAX) {
        e = err_set(ERR_LIMIT, "a normalized text of %zu bytes; at most %u are taken", plain.n,
                    UINT32_MAX - 1);
    }
    for (size_t at = 0; at < s.text.n && e == ERR_OK && !s.is_out_of_memory;) {
        at += propose_all(&s, at);
        if (at >= s.reach && !s.is_out_of_memory) {
            give_out(&s, at);
        }
    }
    if (e == ERR_OK && s.is_out_of_memory) {
        e = err_set(ERR_MEMORY, "no memory to tokenize %zu bytes", text.n);
    }
    mem_free(s.steps);
    buf_release(&plain);
    return e;
}
