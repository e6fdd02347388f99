/* fuzz_tok - texts through tokenizers, and hostile vocabularies
 *
 * Two kinds of input. One byte that chooses a vocabulary, one with flags, and a text: the
 * vocabularies are small and made here, one or more of each kind. Or '#' and a vocabulary in lines
 * (put_own), then the text. Checked:
 *  - ids lie in the vocabulary, their number does not depend on the room for them, and none is a
 *    control token unless special tokens are to be read (TO-1); text that no template wrote forms
 *    none either;
 *  - where the kind can spell every byte, decoding gives the text back (TO-2), ill-formed bytes as
 *    U+FFFD;
 *  - a stream gives the same text as decoding at once;
 *  - processor time (TO-3): some flags repeat the text up to 64 KB. */
#include "../tests/gguf_write.h"
#include "fuzz.h"
#include "model/tok.h"

#define TEXT_MAX ((size_t)64 << 10)

/* --- vocabularies ----------------------------------------------------------------------------- */

struct vocab {
    struct gguf_write w;
    struct buf pieces, scores, types, merges;
    uint32_t n, n_merge;
};

static void vocab_begin(struct vocab *v, const char *model)
{
    *v = (struct vocab){ 0 };
    gguf_write_begin(&v->w);
    buf_init(&v->pieces, 1 << 20);
    buf_init(&v->scores, 1 << 20);
    buf_init(&v->types, 1 << 20);
    buf_init(&v->merges, 1 << 20);
    gguf_write_string(&v->w, "general.architecture", VIEW("fuzz"));
    gguf_write_string(&v->w, "model", view_of(model));
}

static void add_string(struct buf *b, struct view s)
{
    const uint64_t n = s.n;
    buf_add(b, &n, sizeof n);
    buf_add_view(b, s);
}

static void add_piece(struct vocab *v, struct view piece, int32_t type, float score)
{
    add_string(&v->pieces, piece);
    buf_add(&v->types, &type, sizeof type);
    buf_add(&v->scores, &score, sizeof score);
    v->n++;
}

static void add_merge(struct vocab *v, struct view merge)
{
    add_string(&v->merges, merge);
    v->n_merge++;
}

/* A merge with its two pieces and what they make; of equal pieces the first counts. */
static void add_merge_of(struct vocab *v, struct view left, struct view right)
{
    char merge[TEXT_MAX + 1];
    memcpy(merge, left.p, left.n);
    memcpy(merge + left.n, right.p, right.n);
    add_piece(v, left, 1, 0.0f);
    add_piece(v, right, 1, 0.0f);
    add_piece(v, (struct view){ merge, left.n + right.n }, 1, 0.0f);
    merge[left.n] = ' ';
    memcpy(merge + left.n + 1, right.p, right.n);
    add_merge(v, (struct view){ merge, left.n + 1 + right.n });
}

/* NULL when the file or the vocabulary is refused. */
static struct tok *vocab_end(struct vocab *v)
{
    struct gguf *g = NULL;
    struct tok *t = NULL;
    gguf_write_array(&v->w, "tokens", GGUF_STRING, v->n);
    buf_add_view(&v->w.out, buf_view(&v->pieces));
    gguf_write_array(&v->w, "scores", GGUF_F32, v->n);
    buf_add_view(&v->w.out, buf_view(&v->scores));
    gguf_write_array(&v->w, "token_type", GGUF_I32, v->n);
    buf_add_view(&v->w.out, buf_view(&v->types));
    gguf_write_array(&v->w, "merges", GGUF_STRING, v->n_merge);
    buf_add_view(&v->w.out, buf_view(&v->merges));
    enum err e = gguf_write_open(&v->w, &g);
    e = e == ERR_OK ? tok_open(&t, g) : e;
    if (e != ERR_OK) {
        demand_error(e);
        demand(t == NULL, "no tokenizer after a failure");
    }
    gguf_close(g);
    buf_release(&v->pieces);
    buf_release(&v->scores);
    buf_release(&v->types);
    buf_release(&v->merges);
    return t;
}

/* The letters of byte-level vocabularies: printable bytes stand for themselves, the others for
 * U+0100 and up. */
static struct view letter(int byte, char out[4])
{
    uint32_t n = 0;
    for (int i = 0; i < byte; i++) {
        n += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
    }
    const bool is_plain =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return (struct view){ out, (size_t)utf8_put(is_plain ? (uint32_t)byte : 256 + n, out) };
}

#define BLANK "\xC4\xA0" /* the letter of the blank */

static struct tok *byte_level(const char *pre)
{
    static const char *const merges[] = { BLANK " t",
                                          "h e",
                                          BLANK "t he",
                                          "i n",
                                          "a a",
                                          "aa aa",
                                          BLANK " " BLANK,
                                          BLANK BLANK " " BLANK BLANK,
                                          "\xC3\x83 \xC2\xA9",
                                          "1 2",
                                          "12 3",
                                          "' s" };
    struct vocab v;
    vocab_begin(&v, "gpt2");
    gguf_write_string(&v.w, "pre", view_of(pre));
    for (int i = 0; i < 256; i++) {
        char out[4];
        add_piece(&v, letter(i, out), 1, 0.0f);
    }
    for (size_t i = 0; i < sizeof merges / sizeof merges[0]; i++) {
        char piece[32];
        const char *cut = strchr(merges[i], ' ');
        snprintf(piece, sizeof piece, "%.*s%s", (int)(cut - merges[i]), merges[i], cut + 1);
        add_piece(&v, view_of(piece), 1, 0.0f);
        add_merge(&v, view_of(merges[i]));
    }
    add_piece(&v, VIEW("<|end|>"), 3, 0.0f);
    add_piece(&v, VIEW("<|"), 3, 0.0f);
    add_piece(&v, VIEW("<u>"), 4, 0.0f);
    add_piece(&v, VIEW("\n\n\n"), 4, 0.0f);
    return vocab_end(&v);
}

/* SentencePiece's kinds: "llama" merges by score, "t5" searches the best sum, "gemma4" has ranked
 * merges. */
static struct tok *pieces_kind(const char *model, bool has_bytes, bool has_prefix)
{
    static const char *const pieces[] = { "\xE2\x96\x81",
                                          "\xE2\x96\x81t",
                                          "he",
                                          "\xE2\x96\x81the",
                                          "a",
                                          "aa",
                                          "aaaa",
                                          "b",
                                          "ab",
                                          "t",
                                          "h",
                                          "e",
                                          "\xE2\x96\x81\xE2\x96\x81",
                                          "\xC3\xA9",
                                          "\xE6\x97\xA5",
                                          "\xE6\x97\xA5\xE6\x9C\xAC",
                                          "\n",
                                          "12",
                                          "1",
                                          "2",
                                          "<",
                                          "|" };
    struct vocab v;
    vocab_begin(&v, model);
    gguf_write_u32(&v.w, "bos_token_id", 1);
    gguf_write_u32(&v.w, "eos_token_id", 2);
    gguf_write_u32(&v.w, "unknown_token_id", 0);
    gguf_write_bool(&v.w, "add_space_prefix", has_prefix);
    gguf_write_bool(&v.w, "remove_extra_whitespaces", has_prefix && !has_bytes);
    add_piece(&v, VIEW("<unk>"), 2, 0.0f);
    add_piece(&v, VIEW("<s>"), 3, 0.0f);
    add_piece(&v, VIEW("</s>"), 3, 0.0f);
    for (int i = 0; i < 256 && has_bytes; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        add_piece(&v, view_of(name), 6, 0.0f);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        add_piece(&v, view_of(pieces[i]), 1, -1.0f - (float)(i % 7));
    }
    add_piece(&v, VIEW("<u>"), 4, -1.0f);
    add_merge(&v, VIEW("h e"));
    add_merge(&v, VIEW("a a"));
    add_merge(&v, VIEW("aa aa"));
    add_merge(&v, VIEW("\xE2\x96\x81 t"));
    add_merge(&v, VIEW("\xE2\x96\x81t he"));
    return vocab_end(&v);
}

static struct tok *word_pieces(void)
{
    static const char *const pieces[] = { "\xE2\x96\x81the",
                                          "\xE2\x96\x81"
                                          "a",
                                          "a",
                                          "b",
                                          "\xE2\x96\x81"
                                          "b",
                                          "\xE2\x96\x81,",
                                          "\xE2\x96\x81\xE6\x97\xA5",
                                          "e",
                                          "he",
                                          "\xE2\x96\x81t",
                                          "\xE2\x96\x81"
                                          "1",
                                          "2" };
    struct vocab v;
    vocab_begin(&v, "bert");
    gguf_write_u32(&v.w, "unknown_token_id", 0);
    gguf_write_u32(&v.w, "cls_token_id", 1);
    gguf_write_u32(&v.w, "seperator_token_id", 2);
    add_piece(&v, VIEW("[UNK]"), 2, 0.0f);
    add_piece(&v, VIEW("[CLS]"), 3, 0.0f);
    add_piece(&v, VIEW("[SEP]"), 3, 0.0f);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        add_piece(&v, view_of(pieces[i]), 1, 0.0f);
    }
    return vocab_end(&v);
}

/* What decoding gives back. */
enum back {
    BACK_NOTHING,
    BACK_TEXT,
    BACK_BLANKS, /* U+2581 comes back as a blank */
};

struct opened {
    struct tok *t;
    enum back back;
    int32_t unknown; /* may be a control token in a vocabulary from outside; -1 = none */
};

#define N_FIXED 19

static const char *const pres[] = { "gpt-2",        "default",        "llama-bpe",   "stablelm2",
                                    "starcoder",    "viking",         "bloom",       "falcon",
                                    "deepseek-llm", "deepseek-coder", "deepseek-v3", "gpt-4o",
                                    "tekken",       "qwen2" };
#define N_PRE (sizeof pres / sizeof pres[0])

static struct opened *fixed_all(void)
{
    static struct opened all[N_FIXED];
    if (all[0].t == NULL) {
        int n = 0;
        for (size_t i = 0; i < N_PRE; i++) { /* the last composes characters */
            all[n++] = (struct opened){ byte_level(pres[i]),
                                        i + 1 < N_PRE ? BACK_TEXT : BACK_NOTHING, -1 };
        }
        all[n++] = (struct opened){ pieces_kind("llama", true, true), BACK_BLANKS, -1 };
        all[n++] = (struct opened){ pieces_kind("t5", true, false), BACK_BLANKS, -1 };
        all[n++] = (struct opened){ pieces_kind("t5", false, true), BACK_NOTHING, -1 };
        all[n++] = (struct opened){ pieces_kind("gemma4", true, false), BACK_BLANKS, -1 };
        all[n++] = (struct opened){ word_pieces(), BACK_NOTHING, -1 };
        demand(n == N_FIXED, "the number of vocabularies");
        for (int i = 0; i < n; i++) {
            demand(all[i].t != NULL, "a vocabulary made here");
        }
    }
    return all;
}

/* A vocabulary from outside, line by line. */
struct own {
    struct vocab v;
    struct view pre, rules;
    uint8_t flags;
};

/* The name, when it is one of those; else the one that its first byte chooses, so that most inputs
 * get as far as a text. After '?', any name. */
static struct view name_of(struct view s, const char *const *names, size_t n)
{
    if (s.n > 0 && s.p[0] == '?') {
        return view_from(s, 1);
    }
    for (size_t i = 0; i < n; i++) {
        if (view_is(s, names[i])) {
            return s;
        }
    }
    return view_of(names[s.n > 0 ? (uint8_t)s.p[0] % n : 0]);
}

static void put_line(struct own *o, char what, struct view rest)
{
    if (what >= '0' && what <= '9' && rest.n > 0) {
        const float score = -(float)(uint8_t)rest.p[0] / 16.0f;
        add_piece(&o->v, view_from(rest, 1), what - '0', score);
    } else if (what == 'm' && rest.n > 1) {
        const size_t cut = view_find(rest, VIEW(" "), 1);
        const bool is_cut = cut != SIZE_MAX && cut + 1 < rest.n;
        add_merge_of(&o->v, view_part(rest, 0, is_cut ? cut : 1),
                     view_from(rest, is_cut ? cut + 1 : 1));
    } else if (what == 'M') {
        add_merge(&o->v, rest);
    } else if (what == 'r') {
        o->rules = rest;
    } else if (what == 'p') {
        o->pre = rest;
    } else if (what == 'b' && rest.n > 0) {
        o->flags = (uint8_t)rest.p[0];
    }
}

/* What a vocabulary of its kind cannot be without, and what the lines said of the whole. */
static struct opened own_end(struct own *o, struct view kind)
{
    struct vocab *v = &o->v;
    if (v->n == 0) {
        add_piece(v, VIEW("a"), 1, 0.0f);
    }
    if (view_is(kind, "bert")) {
        add_piece(v,
                  VIEW("\xE2\x96\x81"
                       "a"),
                  1, 0.0f);
        add_piece(v, VIEW("[UNK]"), 2, 0.0f);
        add_piece(v, VIEW("[CLS]"), 3, 0.0f);
        add_piece(v, VIEW("[SEP]"), 3, 0.0f);
    } else if (v->n_merge == 0) {
        add_merge_of(v, VIEW("a"), VIEW("b"));
    }
    gguf_write_string(&v->w, "pre", name_of(o->pre, pres, N_PRE));
    gguf_write_bool(&v->w, "add_space_prefix", (o->flags & 1) != 0);
    gguf_write_bool(&v->w, "remove_extra_whitespaces", (o->flags & 2) != 0);
    const uint32_t unknown = (uint32_t)(o->flags >> 2 & 3) % v->n;
    gguf_write_u32(&v->w, "unknown_token_id", unknown);
    if (o->rules.n > 0) {
        gguf_write_array(&v->w, "precompiled_charsmap", GGUF_U8, o->rules.n);
        buf_add_view(&v->w.out, o->rules);
    }
    return (struct opened){ vocab_end(v), BACK_NOTHING, (int32_t)unknown };
}

/* Lines up to one with "=": the first is the kind, others are one byte that says what they are
 * and the rest. A digit: a piece of that type, with a byte for its score; m: a merge, with its
 * pieces and what they make; M: a merge alone, as it stands; r: rules of t5 (their bytes,
 * without newline); p: the pre-tokenizer; b: flags. Returns where the text begins. */
static size_t put_own(struct view in, struct opened *out)
{
    static const char *const kinds[] = { "gpt2", "llama", "bert", "t5", "gemma4" };
    size_t at = view_find(in, VIEW("\n"), 0);
    if (at == SIZE_MAX || at > 32) {
        return in.n;
    }
    const struct view kind = name_of(view_part(in, 0, at), kinds, sizeof kinds / sizeof kinds[0]);
    char name[40];
    snprintf(name, sizeof name, "%.*s", (int)kind.n, kind.p);
    struct own o = { .pre = { NULL, 0 } };
    vocab_begin(&o.v, name);
    for (at++; at < in.n;) {
        const size_t end = view_find(in, VIEW("\n"), at);
        const struct view line = view_part(in, at, end == SIZE_MAX ? in.n - at : end - at);
        at += line.n + 1;
        if (line.n == 0 || line.p[0] == '=') {
            break;
        }
        put_line(&o, line.p[0], view_from(line, 1));
    }
    *out = own_end(&o, kind);
    return at < in.n ? at : in.n;
}

/* --- checks ----------------------------------------------------------------------------------- */

/* The text as it should come back: ill-formed parts replaced, and blanks where the kind has no
 * other sign. */
static void put_expected(struct view text, enum back back, struct buf *out)
{
    struct buf clean;
    buf_init(&clean, 3 * text.n + 16);
    utf8_clean(&clean, text);
    for (size_t i = 0; i < clean.n; i++) {
        if (back == BACK_BLANKS &&
            view_starts(view_from(buf_view(&clean), i), VIEW("\xE2\x96\x81"))) {
            buf_add_char(out, ' ');
            i += 2;
        } else {
            buf_add_char(out, clean.p[i]);
        }
    }
    buf_release(&clean);
}

static void check_back(const struct tok *t, const struct tok_list *l, struct view text,
                       enum back back)
{
    struct buf out;
    struct buf want;
    struct buf all;
    struct buf stream;
    struct tok_stream s = { 0 };
    const size_t max = (size_t)4 << 20;
    buf_init(&out, max);
    buf_init(&want, max);
    buf_init(&all, max);
    buf_init(&stream, max);
    demand(tok_decode(t, l->ids, l->n, false, &out) == ERR_OK, "decoding what was encoded");
    if (back > BACK_NOTHING) {
        put_expected(text, back, &want);
        demand(view_eq(buf_view(&out), buf_view(&want)), "the text comes back");
    }
    for (size_t i = 0; i < l->n; i++) {
        const size_t n_before = stream.n;
        tok_stream_put(t, &s, l->ids[i], false, &stream);
        demand(utf8_valid(view_from(buf_view(&stream), n_before)), "a stream's text");
    }
    tok_stream_end(&s, &stream);
    utf8_clean(&all, buf_view(&out));
    const bool is_cut = stream.n == all.n + 1 && stream.p[0] == ' '; /* the blank in front */
    demand(view_eq(view_from(buf_view(&stream), is_cut), buf_view(&all)),
           "a stream's text is the text");
    buf_release(&out);
    buf_release(&want);
    buf_release(&all);
    buf_release(&stream);
}

/* Whether a text may not give this id. */
static bool is_forged(const struct opened *f, int32_t id)
{
    return id != f->unknown && tok_is_control(f->t, id);
}

static void check_text(const struct opened *f, struct view text, uint8_t flags)
{
    const struct tok *t = f->t;
    const enum back back = f->back;
    const bool parse = (flags & 16) != 0;
    const bool add = (flags & 32) != 0;
    struct tok_list l = { .cap = 16 * text.n + 64 };
    l.ids = mem_alloc_array(l.cap, sizeof l.ids[0]);
    demand(l.ids != NULL, "memory");
    enum err e = tok_encode(t, text, add, parse, &l);
    demand(e == ERR_OK || e == ERR_LIMIT, "encoding");
    demand(e == ERR_OK || back <= BACK_NOTHING, "no limit in plain vocabularies");
    if (e == ERR_OK) {
        for (size_t i = 0; i < l.n; i++) {
            demand(l.ids[i] >= 0 && l.ids[i] < tok_n_vocab(t), "an id");
            demand(parse || add || !is_forged(f, l.ids[i]), "no control token from text (TO-1)");
        }
        struct tok_list none = { NULL, 0, 0 };
        demand(tok_encode(t, text, add, parse, &none) == (l.n > 0 ? ERR_LIMIT : ERR_OK) &&
                   none.n == l.n,
               "the number of tokens without room for them");
        check_back(t, &l, text, (parse || add) && back > BACK_NOTHING ? BACK_NOTHING : back);
    }
    if (utf8_valid(text)) { /* a user's text inside a template */
        uint8_t *marks = mem_alloc(text.n + 1);
        l.n = 0;
        e = tok_encode_marked(t, text, marks, &l);
        demand(e == ERR_OK || e == ERR_LIMIT, "encoding marked text");
        for (size_t i = 0; i < l.n && e == ERR_OK; i++) {
            demand(!is_forged(f, l.ids[i]), "no control token from a user's text");
        }
        mem_free(marks);
    }
    mem_free(l.ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct opened *all = fixed_all();
    const struct fuzz_run run = fuzz_begin();
    const struct view in = { (const char *)bytes, n };
    if (n < 2 || n > TEXT_MAX) {
        return 0;
    }
    if (bytes[0] == '#') {
        struct opened own = { 0 };
        const size_t at = put_own(view_from(in, 1), &own);
        if (own.t != NULL) {
            check_text(&own, view_from(in, at + 1), bytes[n - 1]);
        }
        tok_close(own.t);
    } else {
        const struct opened *f = &all[bytes[0] % N_FIXED];
        const size_t times = bytes[1] >> 6 == 3 ? (size_t)1 << (bytes[1] & 15) : 1;
        struct buf text;
        buf_init(&text, TEXT_MAX);
        for (size_t i = 0; i < times && text.n + n - 2 <= TEXT_MAX; i++) {
            buf_add(&text, bytes + 2, n - 2);
        }
        check_text(f, buf_view(&text), bytes[1]);
        buf_release(&text);
    }
    fuzz_end(run);
    return 0;
}
