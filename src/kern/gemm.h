/* gemm - products with packed weights: the fill functions of the table (kern/gemm_*.c)
 *
 * Each overwrites the product entries of a table that already holds the scalar ones. Those of an
 * architecture exist only in builds for it. */
#ifndef HEARTH_GEMM_H
#define HEARTH_GEMM_H

#include "kern/kern.h"

/* gemm_avx2's product, for sets that lack something it can do without. */
void gemm_avx2_matmul(const struct tensor *w, struct kern_part part, const struct kern_act *a,
                      float *y, size_t ldy);

void gemm_ref_fill(struct kern_table *t);
void gemm_avx2_fill(struct kern_table *t);
void gemm_avxvnni_fill(struct kern_table *t);
void gemm_avx512_fill(struct kern_table *t, bool has_vbmi);
void gemm_neon_fill(struct kern_table *t);
void gemm_neondot_fill(struct kern_table *t);
void gemm_neoni8mm_fill(struct kern_table *t);

#endif
