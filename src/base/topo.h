/* topo - which cores a team uses and how they lie (base/topo.c; base/topo_hwloc.c asks hwloc)
 *
 * TP-1  no two entries of core[] are one core, and each may be used by this process.
 * TP-2  cores of one group (node and kind) are neighbours in core[], fast kinds first. */
#ifndef HEARTH_TOPO_H
#define HEARTH_TOPO_H

#include "base/buf.h"
#include "base/err.h"

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOPO_MAX 256 /* more threads than this help no model we know */

struct topo_core {
    int32_t cpu;  /* the first of its logical processors that this process may use */
    int32_t node; /* of memory; the system's number */
    int32_t kind; /* 0: the fastest cores there are, 1: slower ones, ... */
};

struct topo {
    int32_t n_core;
    int32_t n_node;    /* those with a core in core[] */
    int32_t n_kind;    /* likewise */
    bool has_siblings; /* some core has more than one logical processor */
    struct topo_core core[TOPO_MAX];
};

/* This machine's, as far as this process may use it (affinity, cgroup). Read once; any thread. */
const struct topo *topo_get(void);

/* Threads that compute, where nobody asked for a number: one a core of this machine, but no more
 * than the cgroup's share of processor time, rounded up. Any thread. */
int32_t topo_threads(void);
int32_t topo_threads_of(const struct topo *t, uint32_t n_granted);
/* How many of these have a core of the fastest kind. Any thread. */
int32_t topo_fast(void);
int32_t topo_fast_of(const struct topo *t, int32_t n_thread);

/* Reads a machine. text: hwloc's XML or its short form ("pack:2 core:8 pu:2"), NULL: this one.
 * allowed: logical processors that may be used, NULL: all. ERR_UNSUPPORTED without hwloc,
 * ERR_INTEGRITY, ERR_MEMORY. */
enum err topo_read(struct topo *out, const char *text, const cpu_set_t *allowed) MUST_USE;

/* Binds the calling thread to the cores of core[i]'s group, one logical processor of each; does
 * nothing where all cores are alike. A system that refuses is not an error: it only costs speed. */
void topo_bind(const struct topo *t, int32_t i);

/* Pages of [p, p + n_bytes) that nobody touched yet will come from all memory nodes in turn. Does
 * nothing on a machine with one node. */
void topo_spread(void *p, size_t n_bytes);

/* A line for a person, without its name. Appends to `out`. */
void topo_describe(const struct topo *t, struct buf *out);

/* --- between topo.c and topo_hwloc.c or topo_plain.c ------------------------------------------ */

/* Fills core[] in any order, n_core and has_siblings; errors as topo_read. */
enum err topo_scan(struct topo *out, const char *text, const cpu_set_t *allowed) MUST_USE;

#endif
