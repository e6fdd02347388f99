/* attn - the cache layout and attention over one span: the fill functions of the table
 * (kern/attn_*.c)
 *
 * Each overwrites the attention entries of a table that already holds the scalar ones. Those of an
 * architecture exist only in builds for it. */
#ifndef HEARTH_ATTN_H
#define HEARTH_ATTN_H

#include "kern/kern.h"

void attn_ref_fill(struct kern_table *t);
void attn_avx2_fill(struct kern_table *t);
/* has_dot: bf16 pages by the processor's dot product (AVX512_BF16), which must agree. */
void attn_avx512_fill(struct kern_table *t, bool has_dot);
/* Whether that instruction gives the bits of two multiply-adds in some thousand trials. Only where
 * the processor has it. */
bool attn_avx512_dot_agrees(void);
void attn_neon_fill(struct kern_table *t);

#endif
