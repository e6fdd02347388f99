/* pack_iq - panels of the codebook types (num/pack_iq.c); only pack.c calls it
 *
 * A block of 16 rows is d[16] and eight units of pack_iq_unit_bytes. */
#ifndef HEARTH_PACK_IQ_H
#define HEARTH_PACK_IQ_H

#include "num/tensor.h"

/* Bytes of 16 rows of a unit; 0: no codebook type. */
size_t pack_iq_unit_bytes(uint32_t type);

/* Unit j of a block of 16 rows; b[r]: row r's block in the file. Writes all of the unit's bytes. */
void pack_iq_put(uint32_t type, uint8_t *to, const uint8_t *const b[TENSOR_PANEL_ROWS], int j);

/* The inverse for row r: or-s what unit j holds into its block b, whose bits are zero. */
void pack_iq_take(uint32_t type, const uint8_t *from, int r, uint8_t *b, int j);

#endif
