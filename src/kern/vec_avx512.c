/* vec_avx512 - norms, activation functions, rotation, reductions: AVX-512
 *
 * The text is vec_body.h, the words are lanes.h; this file only chooses the instruction set. See there for
 * the idea, the order of sums and the sources.
 *
 * Next: kern/kern_table.c. */
#include "kern/vec.h"

#define LANES_AVX512
#include "kern/vec_body.h"

void vec_avx512_fill(struct kern_table *t)
{
    vec_fill(t);
}
