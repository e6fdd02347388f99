/* topo_plain - without hwloc: how cores lie is not known
 *
 * Built where hwloc is missing; base/topo.c then takes each allowed logical processor for a core.
 *
 * Next: base/topo.c. */
#include "base/topo.h"

enum err topo_scan(struct topo *out, const char *text, const cpu_set_t *allowed)
{
    (void)out, (void)text, (void)allowed;
    return err_set(ERR_UNSUPPORTED, "topology: this build has no hwloc");
}

void topo_spread(void *p, size_t n_bytes)
{
    (void)p, (void)n_bytes;
}
