/* vec - norms, activation functions, rotation, reductions: the fill functions of the table (kern/vec_*.c)
 *
 * Each overwrites the vector entries of a table that already holds the scalar ones. Those of an
 * architecture exist only in builds for it. */
#ifndef HEARTH_VEC_H
#define HEARTH_VEC_H

#include "kern/kern.h"

void vec_ref_fill(struct kern_table *t);
void vec_avx2_fill(struct kern_table *t);
void vec_avx512_fill(struct kern_table *t);
void vec_neon_fill(struct kern_table *t);

#endif
