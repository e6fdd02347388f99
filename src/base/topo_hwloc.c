/* topo_hwloc - how cores lie, from hwloc
 *
 * hwloc knows cores, memory nodes and kinds of cores on all systems, and reads descriptions of
 * machines that are not here, which is how this is tested. Only cores, processors and memory nodes
 * are asked for: caches and devices would take longer than the two milliseconds of a small machine.
 *
 * A description is outside data: hwloc checks it, and whatever it names is bounded here.
 *
 * The only file that knows hwloc; base/topo_plain.c takes its place where hwloc is missing.
 * Next: base/topo.c. */
#include "base/topo.h"

#include "base/mem.h"

#include <hwloc.h>
#include <string.h>

#define ROOM_BYTES ((size_t)4 << 20) /* more than hwloc takes for a machine of two sockets */

/* Loaded; the caller destroys it. hwloc does not survive a refusal in the middle of its work, so it
 * begins only where there is memory. */
static enum err load(hwloc_topology_t *out, const char *text)
{
    hwloc_topology_t h;
    struct arena room = { 0 };
    TRY(arena_open(&room, ROOM_BYTES, false));
    arena_close(&room);
    REQUIRE(hwloc_topology_init(&h) == 0, ERR_MEMORY, "topology: no memory");
    hwloc_topology_set_all_types_filter(h, HWLOC_TYPE_FILTER_KEEP_NONE);
    /* memory nodes hang on these; without them hwloc gives a core the nodes of all */
    hwloc_topology_set_type_filter(h, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_type_filter(h, HWLOC_OBJ_GROUP, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
    hwloc_topology_set_type_filter(h, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
    int rc = 0;
    if (text != NULL) {
        rc = text[0] == '<' ? hwloc_topology_set_xmlbuffer(h, text, (int)strlen(text) + 1)
                            : hwloc_topology_set_synthetic(h, text);
    }
    rc = rc == 0 ? hwloc_topology_load(h) : rc;
    if (rc != 0) {
        hwloc_topology_destroy(h);
        return err_set(ERR_INTEGRITY, "topology: hwloc cannot read %s",
                       text != NULL ? "this description" : "this machine");
    }
    *out = h;
    return ERR_OK;
}

/* hwloc counts kinds from the slowest; without a known order all are one. */
static int32_t kind_of(hwloc_topology_t h, hwloc_const_cpuset_t set)
{
    int efficiency = -1;
    const int n = hwloc_cpukinds_get_nr(h, 0);
    const int i = hwloc_cpukinds_get_by_cpuset(h, set, 0);
    if (i < 0 || hwloc_cpukinds_get_info(h, (unsigned)i, NULL, &efficiency, NULL, NULL, 0) != 0 ||
        efficiency < 0) {
        return 0;
    }
    return n - 1 - efficiency;
}

enum err topo_scan(struct topo *out, const char *text, const cpu_set_t *allowed)
{
    hwloc_topology_t h;
    TRY(load(&h, text));
    const int depth = hwloc_get_type_or_below_depth(h, HWLOC_OBJ_CORE);
    const unsigned n = hwloc_get_nbobjs_by_depth(h, depth);
    for (unsigned i = 0; i < n && out->n_core < TOPO_MAX; i++) {
        const struct hwloc_obj *core = hwloc_get_obj_by_depth(h, depth, i);
        int cpu = hwloc_bitmap_first(core->cpuset);
        out->has_siblings = out->has_siblings || hwloc_bitmap_weight(core->cpuset) > 1;
        while (cpu >= 0 && allowed != NULL && (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, allowed))) {
            cpu = hwloc_bitmap_next(core->cpuset, cpu);
        }
        if (cpu >= 0) {
            const int node = hwloc_bitmap_first(core->nodeset);
            out->core[out->n_core++] = (struct topo_core){ .cpu = cpu,
                                                           .node = node >= 0 ? node : 0,
                                                           .kind = kind_of(h, core->cpuset) };
        }
    }
    hwloc_topology_destroy(h);
    return ERR_OK;
}

void topo_spread(void *p, size_t n_bytes)
{
    hwloc_topology_t h;
    if (topo_get()->n_node <= 1) {
        return;
    }
    if (load(&h, NULL) != ERR_OK) {
        return; /* it only costs speed */
    }
    hwloc_const_nodeset_t nodes = hwloc_topology_get_topology_nodeset(h);
    (void)hwloc_set_area_membind(h, p, n_bytes, nodes, HWLOC_MEMBIND_INTERLEAVE,
                                 HWLOC_MEMBIND_BYNODESET);
    hwloc_topology_destroy(h);
}
