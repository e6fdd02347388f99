/* pack - from the file's rows to the panels that kernels read (num/pack.c)
 *
 * A panel holds 16 rows, one per vector lane, so that a product needs no horizontal sums. Within a
 * panel, unit after unit of 32 columns (256 for the K types' shared scales); the bytes per weight
 * are those of the file. pack.c's essay draws each type's layout; kern/gemm_* read them.
 * PA-1  unpack(pack(rows)) gives the file's bytes back, for every type (tests/test_pack.c).
 * PA-2  rows beyond n_row are packed from all-zero blocks, so they contribute 0. */
#ifndef HEARTH_PACK_H
#define HEARTH_PACK_H

#include "num/tensor.h"

#define PACK_ROW_MAX_BYTES (1 << 20) /* of one row in the file */

/* Layout used for a type, and the bytes of a whole matrix in it, rows padded to 16. false: not a
 * weight type, or n_col is no multiple of the block, or a row is longer than PACK_ROW_MAX_BYTES, or
 * overflow. */
bool pack_shape(uint32_t type, int32_t n_row, int32_t n_col, struct tensor *out) MUST_USE;

/* Packs file rows [row0, row0 + n_row_in) into t's memory `to` (the arena's address of t->data).
 * row0 is a multiple of 16, and so is n_row_in but in the last call of a matrix (row0 + n_row_in ==
 * t->n_row), which also writes the padding rows of its last panel; rows = n_row_in rows of the
 * file, back to back. Any thread, for different panels at the same time. */
void pack_rows(const struct tensor *t, uint8_t *to, int32_t row0, const void *rows,
               int32_t n_row_in);

/* The inverse for one block of one row (quant_info.bytes bytes). */
void pack_block_back(const struct tensor *t, int32_t row, size_t i_block, void *out);

/* The inverse: file bytes of one row (quant_bytes(type, n_col) bytes). */
void pack_row_back(const struct tensor *t, int32_t row, void *out);

/* One row as float32, exactly as quant_info.decode gives it: the embedding look-up.
 * scratch: at least one file row of bytes (quant_bytes), 64-byte aligned. */
void pack_row_f32(const struct tensor *t, int32_t row, float *out, void *scratch);

#endif
