/* topo - which cores a team uses and how they lie
 *
 * A team has one thread a core: two logical processors of a core share its multipliers, and the
 * products of one thread keep them busy. Where cores differ in speed or memory is in several nodes,
 * each thread is bound to a group of like cores, fast kinds first, so that the share of work that
 * it keeps (team.c) stays beside its memory; within the group the system chooses, because it knows
 * who else runs. Where all cores are alike nothing is bound: two programs that each bind to the
 * first cores would fight for them.
 *
 * Weights and caches are read by all threads, page by page from all nodes in turn (topo_spread).
 * Rejected for now: panels on the node of the threads that read them. Helpers of slow workers would
 * read across nodes anyway, and it needs a machine to measure on; all of this was tested with
 * made-up machines only (tests/test_topo.c).
 *
 * Without hwloc (topo_plain.c), and where it fails, each allowed logical processor counts as a core
 * of one node.
 *
 * Next: base/team.c. */
#include "base/topo.h"

#include "base/cpu.h"
#include "base/once.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static bool is_same_group(const struct topo_core *a, const struct topo_core *b)
{
    return a->node == b->node && a->kind == b->kind;
}

/* By kind, node, processor (TP-2). */
static int compare(const void *va, const void *vb)
{
    const struct topo_core *a = va;
    const struct topo_core *b = vb;
    if (a->kind != b->kind) {
        return a->kind < b->kind ? -1 : 1;
    }
    if (a->node != b->node) {
        return a->node < b->node ? -1 : 1;
    }
    return a->cpu < b->cpu ? -1 : a->cpu > b->cpu;
}

static int32_t count(const struct topo *t, bool of_nodes)
{
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_core; i++) {
        bool is_new = true;
        for (int32_t k = 0; k < i && is_new; k++) {
            is_new =
                of_nodes ? t->core[k].node != t->core[i].node : t->core[k].kind != t->core[i].kind;
        }
        n += is_new;
    }
    return n;
}

static void finish(struct topo *t)
{
    qsort(t->core, (size_t)t->n_core, sizeof t->core[0], compare);
    t->n_node = count(t, true);
    t->n_kind = count(t, false);
}

enum err topo_read(struct topo *out, const char *text, const cpu_set_t *allowed)
{
    struct topo t = { 0 };
    TRY(topo_scan(&t, text, allowed));
    REQUIRE(t.n_core > 0, ERR_INTEGRITY, "topology: no core may be used");
    finish(&t);
    *out = t;
    return ERR_OK;
}

static struct topo machine;
static struct once once = ONCE_INIT;

static void read_machine(void)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    const bool has_mask = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
    if (topo_read(&machine, NULL, has_mask ? &allowed : NULL) == ERR_OK) {
        return;
    }
    machine = (struct topo){ 0 };
    for (int cpu = 0; cpu < CPU_SETSIZE && machine.n_core < TOPO_MAX && has_mask; cpu++) {
        if (CPU_ISSET(cpu, &allowed)) {
            machine.core[machine.n_core++] = (struct topo_core){ .cpu = cpu };
        }
    }
    machine.n_core = machine.n_core > 0 ? machine.n_core : 1;
    finish(&machine);
}

const struct topo *topo_get(void)
{
    once_run(&once, read_machine);
    return &machine;
}

int32_t topo_threads(void)
{
    return topo_threads_of(topo_get(), (uint32_t)cpu_get()->n_core);
}

int32_t topo_threads_of(const struct topo *t, uint32_t n_granted)
{
    const uint32_t n = (uint32_t)t->n_core < n_granted ? (uint32_t)t->n_core : n_granted;
    return n > 0 ? (int32_t)n : 1;
}

int32_t topo_fast(void)
{
    return topo_fast_of(topo_get(), topo_threads());
}

int32_t topo_fast_of(const struct topo *t, int32_t n_thread)
{
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_core && n < n_thread; i++) {
        n += t->core[i].kind == 0;
    }
    return n;
}

void topo_bind(const struct topo *t, int32_t i)
{
    if (i >= t->n_core || (t->n_node == 1 && t->n_kind == 1)) {
        return;
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int32_t k = 0; k < t->n_core; k++) {
        if (is_same_group(&t->core[k], &t->core[i]) && t->core[k].cpu < CPU_SETSIZE) {
            CPU_SET(t->core[k].cpu, &set);
        }
    }
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

void topo_describe(const struct topo *t, struct buf *out)
{
    buf_printf(out, "%d core%s", t->n_core, t->n_core > 1 ? "s" : "");
    if (t->has_siblings) {
        buf_add_str(out, ", one logical processor of each");
    }
    if (t->n_node == 1 && t->n_kind == 1) {
        return;
    }
    buf_add_str(out, "; threads are bound to groups:");
    for (int32_t i = 0; i < t->n_core;) {
        int32_t n = 1;
        while (i + n < t->n_core && is_same_group(&t->core[i], &t->core[i + n])) {
            n++;
        }
        buf_printf(out, "%s %d of kind %d at node %d", i > 0 ? "," : "", n, t->core[i].kind,
                   t->core[i].node);
        i += n;
    }
}
