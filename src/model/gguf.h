/* gguf - an untrusted model file turned into a checked directory (model/gguf.c)
 *
 * Versions 2 and 3, little-endian, one file or split files (NAME-00001-of-0000N.gguf).
 * Spec: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 * The file is read through bounded preads, so a file that shrinks is an error; of a packed image
 * the arena is mapped (gguf_map).
 * GG-1  after gguf_open every tensor's byte range lies inside its file, ranges do not overlap the
 *       header (a packed image's directory has no ranges), products of shape and type do not
 *       overflow, names are unique and valid UTF-8.
 * GG-2  memory is bounded by GGUF_META_MAX_BYTES and a small multiple of it, whatever counts the
 *       header claims: a count is compared with the bytes left before anything is allocated. */
#ifndef HEARTH_GGUF_H
#define HEARTH_GGUF_H

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "model/gguf_head.h" /* enum gguf_type, struct gguf_tensor and the limits */
#include "num/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GGUF_SPLIT_MAX  512
#define GGUF_SPLIT_TAIL 20 /* bytes of "-00001-of-00002.gguf" */

struct gguf;

/* Opens and checks the file (and its sibling parts when it is part 1 of a split model; another part
 * is an error that names part 1). Errors name file, tensor or key, byte and reason. */
enum err gguf_open(struct gguf **out, const char *path) MUST_USE;
void gguf_close(struct gguf *g); /* accepts NULL */
/* Whether a name ends as that of part *i of *n; else both are untouched. */
bool gguf_is_part(const char *path, uint64_t *i, uint64_t *n);
/* The end of such a name, with its 0, for part i of n, both from 1 and at most GGUF_SPLIT_MAX. */
void gguf_part_tail(size_t i, size_t n, char tail[GGUF_SPLIT_TAIL + 1]);

uint32_t gguf_version(const struct gguf *g);    /* 2 or 3 */
uint64_t gguf_file_bytes(const struct gguf *g); /* all parts */
const char *gguf_path(const struct gguf *g);
size_t gguf_n_part(const struct gguf *g);                   /* files */
const char *gguf_part_path(const struct gguf *g, size_t i); /* of file i */
uint64_t gguf_part_bytes(const struct gguf *g, size_t i);

/* --- metadata. `key` is the full key. Absent and of another type are told apart: absent leaves
 * *out untouched and sets *found (may be NULL) to false; another type is ERR_INTEGRITY. Integer
 * kinds convert to each other when the value fits; nothing else converts. */
bool gguf_has(const struct gguf *g, const char *key);
enum err gguf_u32(const struct gguf *g, const char *key, uint32_t *out, bool *found) MUST_USE;
enum err gguf_f32(const struct gguf *g, const char *key, float *out, bool *found) MUST_USE;
enum err gguf_bool(const struct gguf *g, const char *key, bool *out, bool *found) MUST_USE;
enum err gguf_string(const struct gguf *g, const char *key, struct view *out, bool *found) MUST_USE;

/* Arrays: count first, then elements. The strings' bytes borrow from g. */
struct gguf_array {
    enum gguf_type type; /* of the elements */
    uint64_t n;
    const void *bytes; /* packed little-endian elements; for strings use gguf_array_string */
};
enum err gguf_array(const struct gguf *g, const char *key, struct gguf_array *out,
                    bool *found) MUST_USE;
/* Walks the strings of an array: pass it = {0}; false at the end. */
struct gguf_string_iter {
    const uint8_t *at;
    uint64_t i;
};
bool gguf_array_string(const struct gguf_array *a, struct gguf_string_iter *it, struct view *out);
/* Element i of an integer, bool or float array as int64 / float; false when out of range or
 * kind. */
bool gguf_array_int(const struct gguf_array *a, uint64_t i, int64_t *out);
bool gguf_array_float(const struct gguf_array *a, uint64_t i, float *out);

/* For listings: key i of gguf_n_key, its type, and a short rendering of the value. */
size_t gguf_n_key(const struct gguf *g);
struct view gguf_key(const struct gguf *g, size_t i, enum gguf_type *type);
struct view gguf_value(const struct gguf *g, size_t i); /* its bytes as in the file */
uint64_t gguf_meta_bytes(const struct gguf *g);         /* of the headers of all parts */
void gguf_value_text(const struct gguf *g, size_t i,
                     struct buf *out); /* arrays: count and first few */

/* --- tensors ---------------------------------------------------------------------------------- */
size_t gguf_n_tensor(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g,
                                           const char *name); /* NULL if absent */
/* Reads bytes [at, at + n) of a tensor. ERR_INTEGRITY when the file changed since gguf_open. Any
 * thread, several at once. */
enum err gguf_read(const struct gguf *g, const struct gguf_tensor *t, size_t at, void *to,
                   size_t n) MUST_USE;
/* Whether the file is a packed image (model/image.h): its tensors have no bytes of their own, so
 * gguf_read refuses. */
bool gguf_is_image(const struct gguf *g);
uint64_t gguf_image_bytes(const struct gguf *g); /* behind the header; 0: none */
/* Reads some of these bytes, from `at` behind the header. ERR_IO, ERR_INTEGRITY. Any thread. */
enum err gguf_image_read(const struct gguf *g, uint64_t at, void *to, size_t n) MUST_USE;
uint64_t gguf_image_at(const struct gguf *g); /* where they begin in the file */
const char *gguf_image_path(const struct gguf *g);
/* Maps these bytes; the mapping outlives g. ERR_MEMORY. */
enum err gguf_map(const struct gguf *g, struct arena *a) MUST_USE;
/* ERR_INTEGRITY when any part's size, mtime or inode changed since gguf_open. */
enum err gguf_unchanged(const struct gguf *g) MUST_USE;

#endif
