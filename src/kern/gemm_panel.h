/* gemm_panel - from a product to the panel function of its type (included by the gemm_*body.h)
 *
 * What does not depend on the instruction set: the forms that types have, and which function serves
 * which type. The including file defines before it BOOK_TARGET, where functions that read codebooks
 * need an attribute, and PANELS, where they take more than one at once; afterwards a panel_NAME for
 * each type. */
#ifndef HEARTH_GEMM_PANEL_H
#define HEARTH_GEMM_PANEL_H

#include "kern/gemm_act.h"

#ifndef BOOK_TARGET
#define BOOK_TARGET
#endif
#ifndef PANELS
#define PANELS 1 /* that a panel function takes at once */
#endif

/* What a type needs beyond sum * d: chosen at compile time. */
enum form {
    FORM_PLAIN,    /* d */
    FORM_M,        /* d, m */
    FORM_MIN,      /* two minima */
    FORM_SUB2,     /* two sub-scales */
    FORM_SUB2_MIN, /* two sub-scales and minima */
    FORM_HALVED,   /* two float scales */
};

/* What a call of `matmul` works on. */
struct product {
    const struct tensor *w;
    const struct kern_act *a;
    float *y;
    size_t ldy;
    struct kern_part part;
    int32_t tok_end; /* the first token beyond the part's tiles */
};

/* Panels [panel, panel + PANELS), as far as the part reaches, times the part's tokens. */
typedef void (*panel_fn)(const struct product *p, int32_t panel);

/* Types by where their decode steps stand: X(enum, name of its function). */
#define PLANE_TYPES(X)                                                                             \
    X(F32, f32)                                                                                    \
    X(F16, f16)                                                                                    \
    X(BF16, bf16)                                                                                  \
    X(Q4_0, q4_0)                                                                                  \
    X(Q4_1, q4_1)                                                                                  \
    X(Q5_0, q5_0)                                                                                  \
    X(Q5_1, q5_1)                                                                                  \
    X(Q8_0, q8_0)                                                                                  \
    X(IQ4_NL, iq4_nl)                                                                              \
    X(MXFP4, mxfp4)                                                                                \
    X(Q2_K, q2_k)                                                                                  \
    X(Q3_K, q3_k)                                                                                  \
    X(Q4_K, q4_k)                                                                                  \
    X(Q5_K, q5_k)                                                                                  \
    X(Q6_K, q6_k)                                                                                  \
    X(IQ4_XS, iq4_xs)                                                                              \
    X(TQ1_0, tq1_0)                                                                                \
    X(TQ2_0, tq2_0)                                                                                \
    X(NVFP4, nvfp4)                                                                                \
    X(Q1_0, q1_0)
#define BOOK_TYPES(X)                                                                              \
    X(IQ2_XXS, iq2_xxs)                                                                            \
    X(IQ2_XS, iq2_xs)                                                                              \
    X(IQ2_S, iq2_s)                                                                                \
    X(IQ3_XXS, iq3_xxs)                                                                            \
    X(IQ3_S, iq3_s)                                                                                \
    X(IQ1_S, iq1_s)                                                                                \
    X(IQ1_M, iq1_m)

#define PLANE_DECLARE(type, name) static void panel_##name(const struct product *p, int32_t panel);
#define BOOK_DECLARE(type, name)                                                                   \
    static BOOK_TARGET void panel_##name(const struct product *p, int32_t panel);
PLANE_TYPES(PLANE_DECLARE)
BOOK_TYPES(BOOK_DECLARE)

static bool __attribute__((unused)) panel_is_book(enum quant_type type)
{
#define BOOK_ROW(type, name) [QUANT_##type] = true,
    static const bool is_book[QUANT_TYPE_COUNT] = { BOOK_TYPES(BOOK_ROW) };
    return is_book[type];
}

static panel_fn panel_for(enum quant_type type)
{
#define PANEL_ROW(type, name) [QUANT_##type] = panel_##name,
    static const panel_fn fns[QUANT_TYPE_COUNT] = { PLANE_TYPES(PANEL_ROW) BOOK_TYPES(PANEL_ROW) };
    return fns[type];
}

/* The matmul entry of the table, see kern.h. */
static void panel_matmul(const struct tensor *w, struct kern_part part, const struct kern_act *a,
                         float *y, size_t ldy)
{
    const panel_fn panel = panel_for(w->type);
    const struct product p = { w, a, y, ldy, part, kern_tok_end(a->n_tok, part.tile1) };
    for (int32_t i = part.panel0; i < part.panel1; i += PANELS) {
        panel(&p, i);
    }
}

#endif
