/* kern_table - which functions serve this machine
 *
 * One program holds the kernels of every instruction set of its architecture. A table starts from
 * the scalar functions and is overwritten by those of one level; it is made once, at first use, and
 * never changes. Which levels exist is decided by the build's architecture, which of them may run
 * by cpu.h; only those are filled, since the fill functions use their level's instructions too.
 *
 * Small numbers about layouts that the layers above need (bytes of activations and pages, the order
 * of a product's parts) are here too, so that planning, running and measuring ask the same
 * function.
 *
 * Next: back/backend.h. */
#include "kern/kern.h"

#include "base/once.h"
#include "kern/attn.h"
#include "kern/gemm.h"
#include "kern/vec.h"

#define LANES_SCALAR
#include "kern/gemm_act.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

static struct kern_table tables[CPU_ISA_COUNT];
static struct kern_table early_avx512;
static bool has_dot; /* of bf16, with the bits of multiply-adds */
static struct once once = ONCE_INIT;

static void start(struct kern_table *t, enum cpu_isa isa, const char *name)
{
    t->isa = isa;
    t->name = name;
    gemm_ref_fill(t);
    vec_ref_fill(t);
    attn_ref_fill(t);
}

static void make_tables(void)
{
    start(&tables[CPU_SCALAR], CPU_SCALAR, "scalar");
#if defined(__x86_64__)
    start(&tables[CPU_AVX2], CPU_AVX2, "avx2");
    start(&tables[CPU_AVXVNNI], CPU_AVXVNNI, "avx vnni");
    start(&tables[CPU_AVX512], CPU_AVX512, "avx512 vnni");
    if (cpu_can(CPU_AVX2)) {
        gemm_avx2_fill(&tables[CPU_AVX2]);
        vec_avx2_fill(&tables[CPU_AVX2]);
        attn_avx2_fill(&tables[CPU_AVX2]);
    }
    if (cpu_can(CPU_AVXVNNI)) {
        gemm_avxvnni_fill(&tables[CPU_AVXVNNI]);
        vec_avx2_fill(&tables[CPU_AVXVNNI]);
        attn_avx2_fill(&tables[CPU_AVXVNNI]);
    }
    if (cpu_can(CPU_AVX512)) {
        vec_avx512_fill(&tables[CPU_AVX512]);
        early_avx512 = tables[CPU_AVX512];
        gemm_avx512_fill(&tables[CPU_AVX512], cpu_get()->has_avx512_vbmi);
        gemm_avx512_fill(&early_avx512, false);
        has_dot = cpu_get()->has_avx512_bf16 && attn_avx512_dot_agrees();
        attn_avx512_fill(&tables[CPU_AVX512], has_dot);
        attn_avx512_fill(&early_avx512, false);
    }
#elif defined(__aarch64__)
    start(&tables[CPU_NEON], CPU_NEON, "neon");
    gemm_neon_fill(&tables[CPU_NEON]);
    vec_neon_fill(&tables[CPU_NEON]);
    attn_neon_fill(&tables[CPU_NEON]);
    start(&tables[CPU_NEONDOT], CPU_NEONDOT, "neon dot products");
    if (cpu_can(CPU_NEONDOT)) {
        gemm_neondot_fill(&tables[CPU_NEONDOT]);
        vec_neon_fill(&tables[CPU_NEONDOT]);
        attn_neon_fill(&tables[CPU_NEONDOT]);
    }
    start(&tables[CPU_NEONI8MM], CPU_NEONI8MM, "neon matrix products");
    if (cpu_can(CPU_NEONI8MM)) {
        gemm_neoni8mm_fill(&tables[CPU_NEONI8MM]);
        vec_neon_fill(&tables[CPU_NEONI8MM]);
        attn_neon_fill(&tables[CPU_NEONI8MM]);
    }
#endif
}

const struct kern_table *kern_get(enum cpu_isa isa)
{
    once_run(&once, make_tables);
    return (unsigned)isa < CPU_ISA_COUNT && tables[isa].name != NULL ? &tables[isa] : NULL;
}

const struct kern_table *kern_get_early_avx512(void)
{
    once_run(&once, make_tables);
    return early_avx512.name != NULL ? &early_avx512 : NULL;
}

/* The level whose vectors and attention a level uses: some have products of their own only. */
static enum cpu_isa base_of(enum cpu_isa isa)
{
    return isa == CPU_AVXVNNI                          ? CPU_AVX2
           : isa == CPU_NEONDOT || isa == CPU_NEONI8MM ? CPU_NEON
                                                       : isa;
}

void kern_describe(const struct kern_table *t, struct buf *out)
{
    const struct cpu_info *c = cpu_get();
    const char *base = cpu_isa_name(base_of(t->isa));
    const char *why = t->isa == cpu_best() ? "best of this processor" : "chosen by option";
    buf_printf(out, "processor  %s\n", c->name);
    buf_printf(out, "products   %s: %s\n", t->name, why);
    if (t->isa == CPU_AVX512 && !c->has_avx512_vbmi) {
        buf_printf(out, "codebooks  avx2: this processor lacks AVX-512 VBMI\n");
    }
    buf_printf(out, "vectors    %s: %s\n", base, why);
    buf_printf(out, "attention  %s: %s\n", base, why);
    if (t->isa == CPU_AVX512) {
        buf_printf(out, "bf16 pages %s\n",
                   has_dot              ? "dot products of AVX512_BF16"
                   : c->has_avx512_bf16 ? "floats: AVX512_BF16 of this processor rounds differently"
                                        : "floats: this processor lacks AVX512_BF16");
    }
    for (int i = 0; i < CPU_ISA_COUNT; i++) {
        const bool is_built = kern_get((enum cpu_isa)i) != NULL;
        const bool can_run = is_built && cpu_can((enum cpu_isa)i);
        buf_printf(out, "available  %-8s %s\n", cpu_isa_name((enum cpu_isa)i),
                   can_run    ? "yes"
                   : is_built ? "no: this processor lacks it"
                              : "no: another architecture");
    }
}

/* --- sizes ------------------------------------------------------------------------------------ */

enum kern_act_kind kern_act_kind_for(enum quant_type weight_type)
{
    switch (weight_type) {
    case QUANT_IQ1_S:
    case QUANT_IQ2_XXS:
    case QUANT_IQ3_XXS:
    case QUANT_IQ3_S:
        return KERN_ACT_BOOK;
    case QUANT_IQ1_M:
    case QUANT_IQ2_XS:
    case QUANT_IQ2_S:
        return KERN_ACT_BOOK_HALVED;
    default:
        return quant_get(weight_type)->unit != NULL ? KERN_ACT_I8 : KERN_ACT_F32;
    }
}

int32_t kern_act_tiles(int32_t n_tok)
{
    return (n_tok + KERN_TILE - 1) / KERN_TILE;
}

/* Half of the cache: the other half is for the weights that pass through and for results. */
int32_t kern_act_tiles_at_once(enum kern_act_kind kind, int32_t n_col)
{
    assert(n_col >= UNIT || kind == KERN_ACT_F32);
    const size_t n = cpu_get()->l2_bytes / 2 / gemm_read_bytes(kind, KERN_TILE, n_col);
    return n > 1 ? (int32_t)n : 1;
}

size_t kern_act_bytes(enum kern_act_kind kind, int32_t n_tok, int32_t n_col)
{
    const int32_t last = kern_act_tiles(n_tok) - 1;
    return (size_t)last * gemm_tile_bytes(kind, KERN_TILE, n_col) +
           gemm_tile_bytes(kind, gemm_tile(n_tok, last), n_col) + 64;
}

static int32_t pairs_up(int32_t n)
{
    return (n + KERN_PANELS - 1) / KERN_PANELS * KERN_PANELS;
}

#define FEW_TOKS 64 /* up to here products wait for weights, not for activations */

/* Parts that are small against the whole even out; with few tokens they must also outweigh the
 * handing out. Few tokens have no use for pairs. */
int32_t kern_line_grain(int32_t n_place, int32_t n_tok, int32_t n_worker)
{
    const int32_t n_part = (n_tok <= FEW_TOKS ? 8 : 32) * n_worker;
    const int32_t grain = n_place / n_part + 1;
    return n_tok >= KERN_PAIR_TOKS ? pairs_up(grain) : grain;
}

struct kern_line kern_line_of(int32_t n_panel, int32_t n_tok, int32_t at_once, int32_t n_worker)
{
    const int32_t n_tile = kern_act_tiles(n_tok);
    const int32_t n_block = n_tok <= FEW_TOKS ? 1 : (n_tile + at_once - 1) / at_once;
    const int32_t line = pairs_up(n_panel);
    assert(n_tile <= INT16_MAX && n_block <= INT32_MAX / line); /* of results 2 TB */
    const int32_t n_place = (n_block - 1) * line + n_panel;
    return (struct kern_line){ n_panel, n_tile, n_block, n_place,
                               kern_line_grain(n_place, n_tok, n_worker) };
}

bool kern_line_next(const struct kern_line *l, int32_t *from, int32_t to, struct kern_part *out)
{
    const int32_t line = pairs_up(l->n_panel);
    while (*from < to) {
        const int32_t block = *from / line;
        const int32_t p0 = *from % line;
        const int32_t p1 = to - *from < line - p0 ? p0 + to - *from : line;
        *from += p1 - p0;
        if (p0 < l->n_panel) {
            *out = (struct kern_part){ p0, p1 < l->n_panel ? p1 : l->n_panel,
                                       block * l->n_tile / l->n_block,
                                       (block + 1) * l->n_tile / l->n_block };
            return true;
        }
    }
    return false;
}

static const char *const kv_names[KERN_KV_COUNT] = { "f16", "q8_0", "f32", "bf16" };

const char *kern_kv_name(enum kern_kv kv)
{
    return kv_names[kv];
}

bool kern_kv_parse(const char *name, enum kern_kv *out)
{
    for (int i = 0; i < KERN_KV_COUNT; i++) {
        if (strcasecmp(name, kv_names[i]) == 0) {
            *out = (enum kern_kv)i;
            return true;
        }
    }
    return false;
}

static size_t page_bytes(enum kern_kv kv, int32_t head_dim)
{
    const size_t hd = (size_t)head_dim;
    const size_t blocks = (hd + 31) / 32;
    size_t bytes = hd * KERN_PAGE * 4;
    if (kv == KERN_KV_F16) {
        bytes = hd * KERN_PAGE * 2;
    } else if (kv == KERN_KV_BF16) {
        bytes = (hd + 1) / 2 * 2 * KERN_PAGE * 2;
    } else if (kv == KERN_KV_Q8_0) {
        bytes = blocks * KERN_PAGE * (32 + 2);
    }
    return (bytes + 63) / 64 * 64;
}

size_t kern_kv_k_bytes(enum kern_kv kv, int32_t head_dim)
{
    return page_bytes(kv, head_dim);
}

size_t kern_kv_v_bytes(enum kern_kv kv, int32_t head_dim)
{
    return page_bytes(kv, head_dim);
}
