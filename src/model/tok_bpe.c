/* tok_bpe - byte-level byte-pair encoding
 *
 * Text is cut by the pre-tokenizer's patterns, each cut's bytes are spelled in the 256 letters that
 * GPT-2 introduced (Radford et al. 2019: printable bytes stand for themselves, others are shifted
 * to U+0100...), and neighbours are merged, best rank first, until no merge applies (Sennrich et
 * al. 2016).
 *
 * Merges are looked up by the spelling of the pair in one hash table over the file's own strings,
 * so that building costs one pass and no pair of ids has to be resolved. Words are short, but a
 * hostile text may hold a word of megabytes, which tok_merge.c takes in n log n.
 *
 * Patterns: the published pre_tokenizer definitions of the models' tokenizer.json files; names are
 * those of tokenizer.ggml.pre. Next: tok_spm.c. */
#include "base/mem.h"
#include "model/tok_merge.h"
#include "model/unicode.h"

#include <string.h>

#define GPT2                                                                                       \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"                            \
    "|\\s+(?!\\S)|\\s+"
#define LLAMA3_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define LLAMA3_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER       "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER       "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define HEAD_ANY    "[^\\r\\n\\p{L}\\p{N}]?"
#define HAN         "[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xED\x9E\x9F-\xEF\xBF\xBF]+"
#define NOT_WORDY                                                                                  \
    " ?[^(\\s|.,!?\xE2\x80\xA6\xE3\x80\x82\xEF\xBC\x8C\xE3\x80\x81\xE0\xA5\xA4\xDB\x94\xD8\x8C)]+"

static const struct pre {
    const char *names; /* separated by blanks */
    const char *pattern[TOK_SPLIT_MAX];
    bool is_nfc;
    bool ignores_merges;
} pres[] = {
    { "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de mellum modern-bert roberta-bpe "
      "jais olmo trillion granite-docling",
      { GPT2 },
      false,
      false },
    { "default",
      { "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" },
      false,
      false },
    { "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx smaug-bpe "
      "chatglm-bpe glm4",
      { LLAMA3_HEAD "\\p{N}{1,3}" LLAMA3_TAIL },
      false,
      true },
    { "qwen2 deepseek-r1-qwen kormo megrez", { LLAMA3_HEAD "\\p{N}" LLAMA3_TAIL }, true, false },
    { "stablelm2", { LLAMA3_HEAD "\\p{N}" LLAMA3_TAIL }, false, false },
    { "qwen35",
      { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
        "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
        "\\s+(?!\\S)|\\s+" },
      false,
      false },
    { "starcoder refact command-r smollm codeshell exaone minerva-7b",
      { "\\p{N}", GPT2 },
      false,
      false },
    { "viking", { NOT_WORDY, "\\p{N}" }, false, false },
    { "bloom poro-chat gpt3-finnish", { NOT_WORDY }, false, false },
    { "mpt", { GPT2 }, false, false },
    { "falcon", { "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]" }, false, false },
    { "deepseek-llm",
      { "[\\r\\n]",
        "\\s?[A-Za-z\xC2\xB5\xC3\x80-\xC3\x96\xC3\x98-\xC3\xB6\xC3\xB8-\xC6\xBA\xC6\xBC-"
        "\xC6\xBF\xC7\x84-\xCA\x93\xCA\x95-\xCA\xAF"
        "\xCD\xB0-\xCD\xB3\xCD\xB6\xCD\xB7\xCD\xBB-\xCD\xBD\xCD\xBF\xCE\x86\xCE\x88-"
        "\xCE\x8A\xCE\x8C\xCE\x8E-\xCE\xA1\xCE\xA3-\xCF\xB5"
        "\xCF\xB7-\xD2\x81\xD2\x8A-\xD4\xAF\xD4\xB1-\xD5\x96\xE1\x82\xA0-\xE1\x83\x85\xE1\x8E\xA0-"
        "\xE1\x8F\xB5\xE1\x8F\xB8-\xE1\x8F\xBD"
        "\xE1\xB2\x90-\xE1\xB2\xBA\xE1\xB2\xBD-\xE1\xB2\xBF\xE1\xB4\x80-\xE1\xB4\xAB\xE1\xB5\xAB-"
        "\xE1\xB5\xB7\xE1\xB5\xB9-\xE1\xB6\x9A"
        "\xE1\xB8\x80-\xE1\xBC\x95\xE1\xBC\x98-\xE1\xBC\x9D\xE1\xBC\xA0-\xE1\xBD\x85\xE1\xBD\x88-"
        "\xE1\xBD\x8D\xE1\xBD\x90-\xE1\xBD\x97"
        "\xE1\xBD\x99\xE1\xBD\x9B\xE1\xBD\x9D\xE1\xBD\x9F-\xE1\xBD\xBD\xE1\xBE\x80-"
        "\xE1\xBE\xB4\xE1\xBE\xB6-\xE1\xBE\xBC\xE1\xBE\xBE"
        "\xE1\xBF\x82-\xE1\xBF\x84\xE1\xBF\x86-\xE1\xBF\x8C\xE1\xBF\x90-\xE1\xBF\x93\xE1\xBF\x96-"
        "\xE1\xBF\x9B\xE1\xBF\xA0-\xE1\xBF\xAC"
        "\xE1\xBF\xB2-\xE1\xBF\xB4\xE1\xBF\xB6-\xE1\xBF\xBC\xE2\x84\x82\xE2\x84\x87\xE2\x84\x8A-"
        "\xE2\x84\x93\xE2\x84\x95\xE2\x84\x99-\xE2\x84\x9D"
        "\xE2\x84\xA4\xE2\x84\xA6\xE2\x84\xA8\xE2\x84\xAA-\xE2\x84\xAD\xE2\x84\xAF-"
        "\xE2\x84\xB4\xE2\x84\xB9\xE2\x84\xBC-\xE2\x84\xBF"
        "\xE2\x85\x85-\xE2\x85\x89\xE2\x85\x8E\xE2\x86\x83\xE2\x86\x84\xE2\xB0\x80-"
        "\xE2\xB1\xBB\xE2\xB1\xBE-\xE2\xB3\xA4\xE2\xB3\xAB-\xE2\xB3\xAE"
        "\xE2\xB3\xB2\xE2\xB3\xB3\xEA\x99\x80-\xEA\x99\xAD\xEA\x9A\x80-\xEA\x9A\x9B\xEA\x9C\xA2-"
        "\xEA\x9D\xAF\xEA\x9D\xB1-\xEA\x9E\x87"
        "\xEA\x9E\x8B-\xEA\x9E\x8E\xEA\xAD\xB0-\xEA\xAE\xBF\xEF\xAC\x80-\xEF\xAC\x86\xEF\xAC\x93-"
        "\xEF\xAC\x97\xEF\xBC\xA1-\xEF\xBC\xBA"
        "\xEF\xBD\x81-\xEF\xBD\x9A\xF0\x90\x90\x80-\xF0\x90\x91\x8F\xF0\x90\x92\xB0-"
        "\xF0\x90\x93\x93\xF0\x90\x93\x98-\xF0\x90\x93\xBB"
        "\xF0\x90\xB2\x80-\xF0\x90\xB2\xB2\xF0\x90\xB3\x80-\xF0\x90\xB3\xB2\xF0\x91\xA2\xA0-"
        "\xF0\x91\xA3\x9F\xF0\x9E\xA4\x80-\xF0\x9E\xA5\x83]+",
        "\\s?[!-/"
        ":-~\xEF\xBC\x81-\xEF\xBC\x8F\xEF\xBC\x9A-\xEF\xBD\x9E\xE2\x80\x98-"
        "\xE2\x80\x9F\xE3\x80\x80-\xE3\x80\x82]+",
        "\\s+$", HAN, "\\p{N}+" },
      false,
      false },
    { "deepseek-coder", { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN, "\\p{N}" }, false, false },
    { "deepseek-v3 hunyuan-dense",
      { "\\p{N}{1,3}",
        "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+",
        "[!\"#$%&'()*+,\\-./"
        ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
        "?[\\p{P}\\p{S}]+[\\r\\n]*|"
        "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" },
      false,
      false },
    { "gpt-4o llama4 kanana2 talkie",
      { HEAD_ANY UPPER
        "*" LOWER "+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" HEAD_ANY UPPER "+" LOWER
        "*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" },
      false,
      false },
    { "tekken",
      { HEAD_ANY UPPER "*" LOWER "+|" HEAD_ANY UPPER "+" LOWER
                       "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" },
      false,
      true },
};

/* Whether `name` is one of the words. */
static bool has_word(const char *words, struct view name)
{
    for (const char *p = words; *p != '\0';) {
        const size_t n = strcspn(p, " ");
        if (view_eq((struct view){ p, n }, name)) {
            return true;
        }
        p += n + (p[n] == ' ');
    }
    return false;
}

static enum err open_splits(struct tok *t, const char *const *patterns)
{
    for (int i = 0; i < TOK_SPLIT_MAX && patterns[i] != NULL; i++) {
        TRY(rx_open(&t->split[t->n_split], patterns[i]));
        t->n_split++;
    }
    return ERR_OK;
}

enum err tok_bpe_open(struct tok *t, const struct gguf *g)
{
    struct view name = VIEW("default");
    if (t->family ==
        TOK_GEMMA_BPE) { /* SentencePiece spelling, merged by rank, cut at line ends only */
        static const char *const lines[TOK_SPLIT_MAX] = { "[^\\n]+|[\\n]+" };
        return open_splits(t, lines);
    }
    TRY(gguf_string(g, "tokenizer.ggml.pre", &name, NULL));
    for (size_t i = 0; i < sizeof pres / sizeof pres[0]; i++) {
        if (has_word(pres[i].names, name)) {
            t->is_nfc = pres[i].is_nfc;
            t->ignores_merges = pres[i].ignores_merges;
            return open_splits(t, pres[i].pattern);
        }
    }
    return err_set(ERR_UNSUPPORTED, "%s: pre-tokenizer \"%.*s\" is not known to this version",
                   gguf_path(g), (int)(name.n > 64 ? 64 : name.n), name.p);
}

/* --- the 256 letters -------------------------------------------------------------------------- */

static bool is_printable(uint32_t b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

/* Byte to letter: those that are not printable count up from U+0100. */
static uint32_t letter_of(uint8_t b)
{
    uint32_t n = 0;
    if (is_printable(b)) {
        return b;
    }
    for (uint32_t i = 0; i < b; i++) {
        n += !is_printable(i);
    }
    return 0x100 + n;
}

/* The inverse; -1: no letter of a byte. */
static int byte_of(uint32_t letter)
{
    for (int b = 0; b < 256 && letter >= 0x100; b++) {
        if (!is_printable((uint32_t)b) && letter_of((uint8_t)b) == letter) {
            return b;
        }
    }
    return letter < 0x100 && is_printable(letter) ? (int)letter : -1;
}

void tok_bpe_bytes(struct view piece, struct buf *out)
{
    for (size_t at = 0; at < piece.n;) {
        uint32_t code = 0;
        const int n = utf8_read(piece.p + at, piece.n - at, &code);
        const int b = n > 0 ? byte_of(code) : -1;
        if (b >= 0) {
            buf_add_char(out, (char)b);
        } else {
            buf_add(out, piece.p + at, n > 0 ? (size_t)n : 1);
        }
        at += n > 0 ? (size_t)n : 1;
    }
}

/* --- merging ---------------------------------------------------------------------------------- */

/* One call's working memory. */
struct work {
    struct rx_char *chars;
    uint32_t *cuts;  /* ends of the pieces, in characters */
    uint32_t *cuts2; /* likewise */
    struct buf spelled;
    struct tok_merge merge;
};

/* The file's list of merges, earlier ones first. */
static bool may_merge(const struct tok *t, struct view a, struct view b, int32_t *cost)
{
    const int32_t rank = tok_merge_rank(t, a, b);
    *cost = rank;
    return rank >= 0;
}

static void emit_symbol(const struct tok *t, struct view text, struct tok_list *out)
{
    const int32_t id = tok_lookup_text(t, text);
    if (id >= 0) {
        tok_emit(out, id);
        return;
    }
    for (size_t at = 0; at < text.n;) { /* no such piece: letter by letter, then byte by byte */
        uint32_t code;
        const int n = utf8_read(text.p + at, text.n - at, &code);
        const int32_t one = tok_lookup_text(t, view_part(text, at, n > 0 ? (size_t)n : 1));
        for (int i = 0; one < 0 && i < n; i++) {
            const int32_t byte = t->byte_id[(uint8_t)text.p[at + (size_t)i]];
            if (byte >= 0) {
                tok_emit(
                    out,
                    byte); /* a vocabulary that lacks the letter drops it, as its makers' does */
            }
        }
        if (one >= 0) {
            tok_emit(out, one);
        }
        at += n > 0 ? (size_t)n : 1;
    }
}

/* Merges one spelled word. */
static void merge_word(const struct tok *t, struct work *w, struct view word, struct tok_list *out)
{
    if (t->ignores_merges || word.n <= 2) {
        const int32_t id = tok_lookup(t, word);
        if (id >= 0 && t->type[id] == TOK_NORMAL) {
            tok_emit(out, id);
            return;
        }
    }
    const struct tok_merge *m = &w->merge;
    for (int32_t i = tok_merge_run(&w->merge, word); i >= 0; i = m->symbols[i].after) {
        emit_symbol(t, tok_merge_text(m, i), out);
    }
}

/* --- cutting ---------------------------------------------------------------------------------- */

/* Cuts each piece of cuts (ends in characters) by one pattern: matches and the gaps between them.
 */
static size_t cut(const struct rx *rx, const struct rx_char *c, const uint32_t *cuts, size_t n_cut,
                  uint32_t *out)
{
    size_t n = 0;
    uint32_t from = 0;
    for (size_t i = 0; i < n_cut; i++) {
        uint32_t gap = from;
        for (uint32_t at = from; at < cuts[i];) {
            const size_t len = rx_match(rx, c, cuts[i], at);
            if (len == 0) {
                at++;
                continue;
            }
            if (gap < at) {
                out[n++] = at;
            }
            at += (uint32_t)len;
            out[n++] = at;
            gap = at;
        }
        if (gap < cuts[i]) {
            out[n++] = cuts[i];
        }
        from = cuts[i];
    }
    return n;
}

/* As the vocabulary spells its pieces: bytes as letters; those of Gemma are the text itself with
 * U+2581 for a blank. */
static void spell(const struct tok *t, struct view piece, struct buf *out)
{
    buf_reset(out);
    if (t->family == TOK_GEMMA_BPE) {
        for (size_t i = 0; i < piece.n; i++) {
            if (piece.p[i] == ' ') {
                buf_add(out, "\xE2\x96\x81", 3);
            } else {
                buf_add_char(out, piece.p[i]);
            }
        }
        return;
    }
    for (size_t i = 0; i < piece.n; i++) {
        buf_add_code(out, letter_of((uint8_t)piece.p[i]));
    }
}

static enum err encode_with(const struct tok *t, struct view text, struct work *w,
                            struct tok_list *out)
{
    const size_t n = rx_chars(text, w->chars);
    size_t n_cut = n > 0;
    w->cuts[0] = (uint32_t)n;
    for (int32_t i = 0; i < t->n_split; i++) {
        n_cut = cut(t->split[i], w->chars, w->cuts, n_cut, w->cuts2);
        uint32_t *swap = w->cuts;
        w->cuts = w->cuts2;
        w->cuts2 = swap;
    }
    uint32_t from = 0;
    for (size_t i = 0; i < n_cut; i++) {
        const uint32_t a = w->chars[from].at;
        spell(t, view_part(text, a, w->chars[w->cuts[i]].at - a), &w->spelled);
        TRY(buf_check(&w->spelled, "a word"));
        merge_word(t, w, buf_view(&w->spelled), out);
        from = w->cuts[i];
    }
    return ERR_OK;
}

enum err tok_bpe_encode(const struct tok *t, struct view text, struct tok_list *out)
{
    struct work w = { 0 };
    struct buf normal;
    buf_init(&normal, 4 * text.n + 64);
    enum err e = ERR_OK;
    if (t->is_nfc) {
        e = unicode_normalize(UNICODE_NFC, text, &normal);
        text = buf_view(&normal);
    }
    const size_t n = text.n + 1;
    buf_init(&w.spelled, 4 * n);
    w.chars = mem_alloc_array(n, sizeof w.chars[0]);
    w.cuts = mem_alloc_array(n, sizeof w.cuts[0]);
    w.cuts2 = mem_alloc_array(n, sizeof w.cuts2[0]);
    if (e == ERR_OK && (w.chars == NULL || w.cuts == NULL || w.cuts2 == NULL)) {
        e = err_set(ERR_MEMORY, "no memory to tokenize %zu bytes", text.n);
    }
    e = e == ERR_OK ? tok_merge_init(&w.merge, t, may_merge, n) : e;
    e = e == ERR_OK && text.n > 0 ? encode_with(t, text, &w, out) : e;
    mem_free(w.chars);
    mem_free(w.cuts);
    mem_free(w.cuts2);
    tok_merge_release(&w.merge);
    buf_release(&w.spelled);
    buf_release(&normal);
    return e;
}
