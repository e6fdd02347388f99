/* depot - experts that are read from the packed image when a router has chosen them
 * (model/depot.c)
 *
 * Some of a model's experts are in memory, in slots that the owner of the image gave; the others
 * are on the disk. A layer's router says which ones it wants: those that are here can be computed
 * at once, the others as they come. The owner's ring reads.
 * Owner thread: that of the forward pass.
 * DP-1  an expert is in one slot at most, and a slot has one expert at most.
 * DP-2  the matrices of an expert are set exactly while its slot has all its bytes.
 * DP-3  a slot that is in use is neither read into nor given to another expert.
 * DP-4  no memory is taken after depot_open.
 * DP-5  a guess is read only when all that is wanted has come or is on its way. */
#ifndef HEARTH_DEPOT_H
#define HEARTH_DEPOT_H

#include "base/ring.h"
#include "model/weights.h"

struct depot;

#define DEPOT_FLY_BYTES ((size_t)32 << 20) /* a prompt has in flight at most */
#define DEPOT_USE_MOST  4                  /* that are entered at once, so that reading goes on */

/* What the image has of them. */
struct depot_shape {
    int32_t n_layer;
    int32_t n_expert;  /* of a layer; 0: none */
    size_t slot_bytes; /* that the largest takes, however its bytes lie to RING_ALIGN */
    uint64_t all_bytes;
};
void depot_shape_of(const struct weights *w, int32_t n_layer, struct depot_shape *out);
size_t depot_bytes(const struct depot_shape *shape, int32_t n_slot); /* of tables, beside slots */
/* Of so many slots those that take turns while a prompt is computed, and keep nothing for the next
 * one: what is fresh, and about half as many that came before their layer began. */
int32_t depot_turns(int32_t n_slot);

/* slots[n_slot][slot_bytes], of memory that is there; w, ring and slots must outlive it. place 0 of
 * the arena is byte file_at of the ring's file. ERR_MEMORY. */
enum err depot_open(struct depot **out, struct weights *w, const struct depot_shape *shape,
                    struct ring *ring, uint64_t file_at, uint8_t *slots, int32_t n_slot) MUST_USE;
void depot_close(struct depot *x); /* nothing may be in flight; accepts NULL */

/* A pass begins. is_prompt: layers want most of their experts, and the first is read at once. */
void depot_begin(struct depot *x, bool is_prompt);
/* The layer wants ids[n], ascending: reading begins, and goes on with each call. What was wanted
 * or guessed before is not any more. */
void depot_want(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n);
/* Whether it is worth guessing what layer i_layer will want, the one after that which wanted last.
 * It is not in prompts, nor after an error, nor where guesses were wrong, but for a pass now and
 * then that tells whether they are. */
bool depot_is_curious(const struct depot *x, int32_t i_layer);
void depot_guess(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n); /* best first */
/* Waits until one of ids[n], n > 0, is here at least. Some that are stand first in ids then,
 * *n_here of them, and are in use until depot_leave. ERR_BUSY: none is yet; ask again, or want
 * something else. ERR_IO, ERR_INTEGRITY: none is in use. */
enum err depot_enter(struct depot *x, int32_t i_layer, int32_t *ids, int32_t n, uint64_t timeout_us,
                     int32_t *n_here) MUST_USE;
void depot_leave(struct depot *x, int32_t i_layer, const int32_t *ids, int32_t n);
/* Reading goes on, as with each other call: for whoever computes something else for long. */
void depot_move(struct depot *x);
/* The ring's tickets are void: what was on its way is lost. */
void depot_stop(struct depot *x);

/* So far. */
struct depot_count {
    uint64_t waited_us;  /* in depot_enter */
    uint64_t read_bytes; /* begun */
    uint64_t used_bytes; /* of these: of experts that were wanted */
    uint64_t n_guess;    /* that turned out right or wrong, read or not */
    uint64_t n_right;
};
const struct depot_count *depot_count(const struct depot *x);

#endif
