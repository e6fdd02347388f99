/* vec - norms, activation functions, rotation, reductions: the fill functions of the table
 * (kern/vec_*.c)
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

/* The normative elementary functions of one float; all instruction sets equal them bit for bit.
 * Any thread, cannot fail, NaN stays NaN. Errors against the exact result are in docs/NUMERICS.md.
 * exp(x): at most 1 ulp; 0 below -87.68, subnormal down to there, infinity from 88.38. */
float vec_ref_exp(float x);
/* exp(x + tail), |tail| far below |x|: for arguments that are known beyond float precision. */
float vec_ref_exp_tail(float x, float tail);
float vec_ref_tanh(float x);
float vec_ref_fn(enum kern_fn fn, float x); /* the activation functions */

/* Sum of 16 lanes by the fixed tree; lane[] is used up. */
float vec_ref_tree(float lane[16]);

#endif
