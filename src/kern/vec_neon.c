/* vec_neon - norms, activation functions, rotation, reductions: NEON
 *
 * The text is vec_body.h, the words are lanes.h; this file only chooses the instruction set. See
 * there for the order of sums, and vec_ref.c for what each function means, why it is written so and
 * where it comes from. Speed: docs/SPEED.md, Kernels.
 *
 * One text for all sets was chosen over a file of intrinsics for each: equal bits then follow from
 * the words alone, and the bodies are bound by memory or by division anyway, not by how well a
 * register's width is used.
 *
 * Next: kern/kern_table.c. */
#include "kern/vec.h"

#define LANES_NEON
#include "kern/vec_body.h"

void vec_neon_fill(struct kern_table *t)
{
    vec_fill(t);
}
