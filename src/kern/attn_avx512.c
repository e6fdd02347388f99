/* attn_avx512 - the cache layout and attention over one span: AVX-512
 *
 * The text is attn_body.h, the words are lanes.h; this file only chooses the instruction set. See there for
 * the idea, the order of sums and the sources.
 *
 * Next: kern/kern_table.c. */
#include "kern/attn.h"

#define LANES_AVX512
#include "kern/attn_body.h"

void attn_avx512_fill(struct kern_table *t)
{
    attn_fill(t);
}
