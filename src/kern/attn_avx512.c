/* attn_avx512 - the cache layout and attention over one span: AVX-512
 *
 * The text is attn_body.h, the words are lanes.h; this file only chooses the instruction set. See
 * there for how queries, pages and dimensions share loads, and attn_ref.c for what is computed, in
 * which order, and where it comes from. Speed: docs/SPEED.md, Kernels.
 *
 * One text for all sets was chosen over a file of intrinsics for each: equal bits then follow from
 * the words alone, and the tile sizes, the only thing that differs, are two constants of the body.
 *
 * Next: kern/kern_table.c. */
#include "kern/attn.h"

#define LANES_AVX512
#include "kern/attn_body.h"

void attn_avx512_fill(struct kern_table *t)
{
    attn_fill(t);
}
