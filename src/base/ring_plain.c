/* ring_plain - without liburing: there is no io_uring
 *
 * Built where liburing is missing; base/ring.c then reads by base/ring_pread.c.
 *
 * Next: base/ring_pread.c. */
#include "base/ring_kind.h"

const struct ring_kind *ring_uring(void)
{
    return NULL;
}
