/* figure - numbers that the kernel tells, or does not (header only)
 *
 * UINT64_MAX stands for "not told" (os_number_of and its like return it), so sums and differences
 * of such numbers need care. Safe from any thread. */
#ifndef HEARTH_FIGURE_H
#define HEARTH_FIGURE_H

#include <stdint.h>

#define FIGURE_MOST ((uint64_t)1 << 52) /* bytes; what is greater is no figure */

/* n, or 0 when it is not told */
static inline uint64_t figure_known(uint64_t n)
{
    return n != UINT64_MAX ? n : 0;
}

/* n units of so many bytes, in bytes; UINT64_MAX when it is not told, or no figure */
static inline uint64_t figure_bytes(uint64_t n, uint64_t each)
{
    return n <= FIGURE_MOST / each ? n * each : UINT64_MAX;
}

/* a less b, at least 0 */
static inline uint64_t figure_less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* the lesser: the one that is told, where only one is */
static inline uint64_t figure_least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

#endif
