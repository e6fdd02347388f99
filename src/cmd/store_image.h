/* store_image - packed images of models in the store (cmd/store_image.c) */
#ifndef HEARTH_STORE_IMAGE_H
#define HEARTH_STORE_IMAGE_H

#include "cmd/store.h"

/* Makes the packed image of a model that is in the store, in the place of one that is there, and
 * notes it in the index and in m. The store is locked. ERR_INTEGRITY when a file of the model is
 * damaged, ERR_MEMORY, ERR_IO (no room on the disk), and what the model's files give. */
enum err store_pack(struct store *st, struct store_model *m) MUST_USE;

#endif
