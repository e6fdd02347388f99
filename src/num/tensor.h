/* tensor - a weight matrix as kernels read it (header only) */
#ifndef HEARTH_TENSOR_H
#define HEARTH_TENSOR_H

#include "num/quant.h"

#include <stddef.h>
#include <stdint.h>

#define TENSOR_PANEL_ROWS 16

/* y[n_row] = W[n_row][n_col] x[n_col]; GGUF's ne = { n_col, n_row }. It lies in panels of 16
 * interleaved rows, see num/pack.h, the last one filled up with zero weights. */
struct tensor {
    const uint8_t *data; /* borrows from the model arena; NULL = absent */
    size_t bytes;        /* of all panels */
    size_t stride;       /* from one panel to the next */
    int32_t n_row;
    int32_t n_col;
    enum quant_type type;
};

static inline int tensor_panels(const struct tensor *t)
{
    return (t->n_row + TENSOR_PANEL_ROWS - 1) / TENSOR_PANEL_ROWS;
}

#endif
