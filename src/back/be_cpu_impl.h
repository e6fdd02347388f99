/* be_cpu_impl - what the files of be_cpu share (header only, private to back/be_cpu*) */
#ifndef HEARTH_BE_CPU_IMPL_H
#define HEARTH_BE_CPU_IMPL_H

#include "back/be_cpu.h"

static inline struct be_cpu *be_cpu_self(struct back *b)
{
    return (struct be_cpu *)(void *)b;
}

/* Work on rows [from, to) of an operation's arguments. */
typedef void (*be_cpu_rows_fn)(const void *args, const struct kern_table *k, int32_t from,
                               int32_t to);
/* All rows, shared out where that pays. n_float: floats of work per row, to decide it. */
void be_cpu_rows(struct be_cpu *c, be_cpu_rows_fn fn, const void *args, int32_t n_row,
                 size_t n_float);

/* Operations of backend.h (back/be_cpu_experts.c). */
void be_cpu_route(struct back *b, struct back_route *r, float *logits, int32_t n_tok);
void be_cpu_add_experts(struct back *b, float *y, const float *out, const struct back_route *r,
                        int32_t place0, int32_t place1, size_t ld, int32_t n_tok, int32_t n);
void be_cpu_add_gated(struct back *b, float *x, const float *y, float *gate, size_t ld,
                      int32_t n_tok, int32_t n);

#endif
