/* weights - tensor names bound to the slots of a model, and loaded (model/weights.c)
 *
 * weights_bind checks every shape against the recipe and decides each tensor's place in the arena;
 * weights_load reads and packs them, in parallel, straight into it. Between the two the planner
 * knows every byte. A tensor that no slot asks for is an error: it would mean computing something
 * else than the model's authors did.
 *
 * A packed image (model/image.h) has the arena's bytes already: it is bound in the same way, and
 * loading maps them.
 *
 * WE-1  after weights_bind all slots a layer's forward pass reads are set or legitimately NULL.
 * WE-2  a fused tensor of the file (attn_qkv, ffn_up of gated families) is split here; the forward
 *       pass never sees one. Each expert has slots of its own, whether the file has one tensor of
 *       all of them or one of each.
 * WE-3  an image is bound only if its slots, their places and the layout of its types' panels are
 *       those of this program.
 * WE-4  a layer's loads are its dense parts in the order of their use, then its experts in theirs,
 *       each with WEIGHTS_EXPERT_LOADS matrices: a part, or an expert, is one range of the arena,
 *       and of an image. */
#ifndef HEARTH_WEIGHTS_H
#define HEARTH_WEIGHTS_H

#include "base/mem.h"
#include "base/team.h"
#include "model/arch.h"
#include "model/gguf.h"
#include "num/tensor.h"

struct weights_vec {
    const float *v; /* [n] in the model arena; NULL = absent */
    int32_t n;
};

struct weights_norm {
    struct weights_vec w;
    struct weights_vec b;
};

/* One of the experts of a layer. All of a layer have the same shapes and types. */
struct weights_expert {
    struct tensor gate; /* [n_ff_exp][n_embd] */
    struct tensor up;   /* [n_ff_exp][n_embd] */
    struct tensor down; /* [n_embd][n_ff_exp] */
};
#define WEIGHTS_EXPERT_LOADS 3

struct weights_layer {
    struct weights_norm attn_norm; /* norms before are absent for ARCH_NORMS_POST */
    struct weights_norm ffn_norm;
    struct weights_norm attn_post_norm; /* after */
    struct weights_norm ffn_post_norm;
    struct weights_vec q_norm;
    struct weights_vec k_norm;
    struct weights_vec sinks; /* [n_head] */
    struct tensor q;          /* [n_head * hd_k][n_embd] */
    struct tensor k;          /* [n_kv * hd_k][n_embd] */
    struct tensor v;          /* [n_kv * hd_v][n_embd] */
    struct tensor o;          /* [n_embd][n_head * hd_v] */
    struct weights_vec q_b;
    struct weights_vec k_b;
    struct weights_vec v_b;
    struct weights_vec o_b;
    struct tensor gate; /* [n_ff][n_embd]; absent if not gated */
    struct tensor up;   /* [n_ff][n_embd] */
    struct tensor down; /* [n_embd][n_ff] */
    struct weights_vec gate_b;
    struct weights_vec up_b;
    struct weights_vec down_b;
    /* Where there are experts: gate, up and down are those of the shared one, with n_ff_shared rows
     * or columns; absent where there is none. */
    struct tensor router;             /* [n_expert][n_embd] */
    struct weights_vec router_b;      /* [n_expert] */
    struct weights_vec expert_gate_b; /* [n_expert][n_ff_exp] */
    struct weights_vec expert_up_b;   /* likewise */
    struct weights_vec expert_down_b; /* [n_expert][n_embd] */
    struct tensor shared_gate;        /* [1][n_embd] */
    struct weights_expert *expert;    /* [n_expert]; borrows from weights */
};

/* Of a layer without experts. The first has all that is in no other. */
enum weights_part { WEIGHTS_ATTN, WEIGHTS_GATE, WEIGHTS_UP, WEIGHTS_DOWN };
#define WEIGHTS_PARTS 4

/* One slot's bytes in the file and in the arena; for weights.c and image.c. */
struct weights_load {
    const struct gguf_tensor *from; /* borrows from the gguf */
    int32_t row0;                   /* first row, or element, of the file's tensor */
    struct tensor *matrix;          /* either a matrix ... */
    struct weights_vec *vec;        /* ... or a vector */
    size_t at;                      /* place in the arena */
};

struct weights {
    struct tensor embd;     /* [n_vocab][n_embd] */
    struct tensor output;   /* [n_vocab][n_embd]; the same memory as embd when tied */
    struct tensor position; /* [n_ctx_train][n_embd], GPT-2 */
    struct weights_vec output_b;
    struct weights_norm output_norm;
    struct weights_vec rope_factors; /* [n_rot/2] */
    struct weights_vec rope_factors_long;
    struct weights_vec rope_factors_short;
    struct weights_layer *layer;   /* [n_layer], owns */
    struct weights_expert *expert; /* [n_layer][n_expert], owns; NULL where there are none */

    struct weights_load *loads; /* [n_load], owns; in the order of their places */
    size_t n_load;
    size_t *part_load;   /* [n_layer * WEIGHTS_PARTS + 1] loads: each part's first, and n_load; of a
                             layer with experts the last part has all; owns */
    size_t *expert_load; /* [n_layer] loads: the first of each layer's expert 0 (WE-4); where there
                             are no experts, the next layer's first; owns */
    size_t arena_bytes;  /* what weights_load will take from its arena, exactly */
    size_t scratch_bytes; /* per worker while loading; 0 for an image */
    bool is_tied;         /* output is embd */
    uint64_t n_param;
    uint64_t n_active; /* of these that one token uses: all, or those of so many experts */
    uint64_t type_bytes[QUANT_TYPE_COUNT]; /* bytes by element type, for listings */
};

/* Allocates the layer and load tables (mem_alloc). Errors name the tensor, expected and found. */
enum err weights_bind(struct weights *w, const struct arch *a, const struct gguf *g) MUST_USE;
/* Opens the arena (zeroed; the caller closes it, also after a failure) with arena_bytes and fills
 * it, or maps the image. progress may be NULL; it is called on the caller's thread with 0..1. */
enum err weights_load(struct weights *w, const struct gguf *g, struct arena *arena,
                      struct team *team, void (*progress)(void *arg, double done),
                      void *arg) MUST_USE;
static inline size_t weights_layer_load(const struct weights *w, int32_t i_layer)
{
    return w->part_load[i_layer * WEIGHTS_PARTS];
}
/* The first of the WEIGHTS_EXPERT_LOADS loads of an expert. */
static inline size_t weights_expert_load(const struct weights *w, int32_t i_layer, int32_t i_expert)
{
    return w->expert_load[i_layer] + (size_t)i_expert * WEIGHTS_EXPERT_LOADS;
}
/* For stream.c: where load i ends in the arena, with its padding; its slot is set to bytes that lie
 * at `at` (NULL: nowhere); a vector's numbers are looked at (ERR_INTEGRITY). */
size_t weights_end(const struct weights *w, size_t i);
/* Bytes of loads [first, end), which lie side by side, as whole blocks of `to`: neighbours' bytes
 * at both ends come along. The place is that of weights_load.at. */
struct weights_range {
    size_t at;
    size_t n;
};
struct weights_range weights_range(const struct weights *w, size_t first, size_t end, size_t align);
void weights_place(struct weights *w, size_t i, const uint8_t *at);
enum err weights_check_vec(const struct gguf *g, const struct weights_load *l,
                           const float *v) MUST_USE;
/* What weights_load would put into the arena, in pieces from front to back, padding included: at
 * most 64 MiB or one slot at a time. ERR_MEMORY, and what reading and `take` give. */
typedef enum err (*weights_take)(void *arg, const uint8_t *bytes, size_t n);
enum err weights_pack(struct weights *w, const struct gguf *g, struct team *team, weights_take take,
                      void *arg) MUST_USE;
/* SHA-256 of what decides the arena's bytes beside the file: slots, places, and the panels that
 * num/pack.c makes of sample rows of each type that the model has. */
enum err weights_layout(const struct weights *w, char hex[65]) MUST_USE;
/* The same for whatever model: of another program's image it can be told without opening it. */
enum err weights_generation(char hex[65]) MUST_USE;
#define WEIGHTS_LAYOUT_KEY "hearth.image.layout" /* of an image: the digest above */
void weights_release(struct weights *w);         /* accepts a zeroed object */

#endif
