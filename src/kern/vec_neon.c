/* vec_neon - norms, activation functions, rotation, reductions: NEON
 *
 * The text is vec_body.h, the words are lanes.h; this file only chooses the instruction set. See there for
 * the idea, the order of sums and the sources.
 *
 * Next: kern/kern_table.c. */
#include "kern/vec.h"

#define LANES_NEON
#include "kern/vec_body.h"

void vec_neon_fill(struct kern_table *t)
{
    vec_fill(t);
}
