/* image - a model whose weights lie packed in its file (model/image.c)
 *
 *     "HPAK" | version u32 | tensors u64 | keys u64 | keys and tensors as in a GGUF file, offsets 0
 *     | zeros up to a multiple of GGUF_IMAGE_ALIGN | the arena that weights_load would fill
 *
 * Keys are the model's without split.*, behind two more: WEIGHTS_LAYOUT_KEY and one with the length
 * and SHA-256 of all before the arena (its own digits taken for zeros).
 * gguf_open, weights_bind and weights_load take such a file wherever they take a GGUF file. */
#ifndef HEARTH_IMAGE_H
#define HEARTH_IMAGE_H

#include "model/weights.h"

/* Gives the image of g, whose weights are bound, to `take`: pieces from front to back that end at
 * multiples of 2 MB, but for the last; so the page cache holds the file in pages of that size.
 * ERR_UNSUPPORTED when g is an image, ERR_MEMORY, and what reading and `take` give. */
enum err image_write(struct weights *w, const struct gguf *g, struct team *team, weights_take take,
                     void *arg) MUST_USE;
/* Bytes of the image, at most; for the disk's room and a progress bar. */
uint64_t image_bytes(const struct weights *w, const struct gguf *g);
/* Whether the file begins as an image of that layout (weights_layout) that this program reads, with
 * the header that was written. What is behind the header is not looked at. */
bool image_begins(const char *path, const char *layout);

#endif
