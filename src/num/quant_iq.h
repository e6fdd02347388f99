/* quant_iq - units of the codebook, ternary and 4-bit float types (num/quant_iq.c)
 *
 * Each function gives unit i (32 weights) of a row in integer form; see struct quant_unit. Only
 * quant.c's table refers to them. Pure, any thread, cannot fail. */
#ifndef HEARTH_QUANT_IQ_H
#define HEARTH_QUANT_IQ_H

#include "num/quant.h"

void quant_iq_iq2_xxs(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq2_xs(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq2_s(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq3_xxs(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq3_s(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq1_s(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq1_m(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq4_nl(const void *row, size_t i, struct quant_unit *u);
void quant_iq_iq4_xs(const void *row, size_t i, struct quant_unit *u);
void quant_iq_tq1_0(const void *row, size_t i, struct quant_unit *u);
void quant_iq_tq2_0(const void *row, size_t i, struct quant_unit *u);
void quant_iq_mxfp4(const void *row, size_t i, struct quant_unit *u);
void quant_iq_nvfp4(const void *row, size_t i, struct quant_unit *u);
void quant_iq_q1_0(const void *row, size_t i, struct quant_unit *u);

#endif
