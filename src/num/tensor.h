/* tensor - a weight matrix as kernels read it (header only) */
#ifndef HEARTH_TENSOR_H
#define HEARTH_TENSOR_H

#include "num/quant.h"

#include <stddef.h>
#include <stdint.h>

/* How the bytes lie. */
enum tensor_layout {
    TENSOR_ROWS,  /* as in the file: row after row of blocks */
    TENSOR_PANEL, /* panels of 16 interleaved rows, see num/pack.h; rows padded with zero weights */
};

#define TENSOR_PANEL_ROWS 16

/* y[n_row] = W[n_row][n_col] x[n_col]; GGUF's ne = { n_col, n_row }. */
struct tensor {
    const uint8_t *data; /* borrows from the model arena; NULL = absent */
    size_t bytes;        /* of all panels or rows */
    size_t stride;       /* bytes from one panel (TENSOR_PANEL) or row (TENSOR_ROWS) to the next */
    int32_t n_row;
    int32_t n_col;
    enum quant_type type;
    enum tensor_layout layout;
};

/* Panels of a matrix, the last one padded; for TENSOR_ROWS too, whose kernels work by 16 rows. */
static inline int tensor_panels(const struct tensor *t)
{
    return (t->n_row + TENSOR_PANEL_ROWS - 1) / TENSOR_PANEL_ROWS;
}

#endif
