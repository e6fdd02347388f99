/* tok - text to token ids and back, as the model's own tokenizer does it (model/tok*.c)
 *
 * Kinds: byte-level BPE with the pre-tokenizer that the file names, SentencePiece (llama),
 * WordPiece (bert), Unigram (t5). All tables are built once from the file; encoding and decoding
 * allocate only from the caller's buffers and a scratch that belongs to the call.
 * TO-1  without `parse_special` no text can produce a control token, unless the file makes one the
 *       unknown token.
 * TO-2  decode(encode(text)) == text for byte-level vocabularies, for every byte string.
 * TO-3  time is O(n log n) in the text's bytes, whatever the text. */
#ifndef HEARTH_TOK_H
#define HEARTH_TOK_H

#include "base/buf.h"
#include "base/err.h"
#include "model/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tok; /* immutable after opening: any number of threads may use it */

/* Builds the tables. An unknown tokenizer.ggml.model or .pre is ERR_UNSUPPORTED and named. Keeps no
 * reference to g. */
enum err tok_open(struct tok **out, const struct gguf *g) MUST_USE;
void tok_close(struct tok *t); /* accepts NULL */

struct tok_list {
    int32_t *ids; /* caller's memory */
    size_t n;
    size_t cap;
};

/* Appends the ids of `text` (need not be UTF-8: each maximal ill-formed part counts as U+FFFD).
 * add_special: what the file asks for (bos, eos, cls, sep). ERR_LIMIT when cap does not suffice; n
 * then holds the number needed if the whole text was seen, else cap. */
enum err tok_encode(const struct tok *t, struct view text, bool add_special, bool parse_special,
                    struct tok_list *out) MUST_USE;

/* As tok_encode without add_special, for rendered templates: only byte ranges marked as the
 * template's own may form special tokens; what a user typed may not. trusted[i] != 0 marks byte i
 * as the template's. NULL trusts all. */
enum err tok_encode_marked(const struct tok *t, struct view text, const uint8_t *trusted,
                           struct tok_list *out) MUST_USE;

/* Appends the bytes of the ids, nothing cleaned up (but the leading blank that SentencePiece
 * added). special: also control tokens' names. Unknown ids are ERR_USAGE. */
enum err tok_decode(const struct tok *t, const int32_t *ids, size_t n, bool special,
                    struct buf *out) MUST_USE;

/* Streaming: feeds one id, appends only whole characters; what is cut waits in the state. */
struct tok_stream {
    uint8_t pending[16]; /* bytes of an unfinished character */
    uint8_t n_pending;
    bool is_started; /* first token seen (SentencePiece drops its leading blank) */
};
void tok_stream_put(const struct tok *t, struct tok_stream *s, int32_t id, bool special,
                    struct buf *out);
void tok_stream_end(struct tok_stream *s,
                    struct buf *out); /* the rest, ill-formed parts as U+FFFD */

int32_t tok_n_vocab(const struct tok *t); /* ids are 0 .. n - 1 */
int32_t tok_bos(const struct tok *t);     /* -1 when absent; same for the rest */
int32_t tok_eos(const struct tok *t);
bool tok_adds_bos(const struct tok *t);
bool tok_is_end(const struct tok *t, int32_t id);       /* eos, eot, eom and the known turn ends */
bool tok_is_control(const struct tok *t, int32_t id);   /* what tests of TO-1 ask */
struct view tok_piece(const struct tok *t, int32_t id); /* as stored; borrows from t */
const char *tok_kind(const struct tok *t);              /* "bpe smollm", "spm", "wpm", "ugm" */

#endif
