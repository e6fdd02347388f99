/* pool - memory that this process may have (base/pool.c) */
#ifndef HEARTH_POOL_H
#define HEARTH_POOL_H

#include <stdint.h>

/* Memory this process may have, what it holds already (os_rss_bytes) included: the least of
 * MemAvailable and what its cgroups (v1 and v2, all ancestors) leave, and never more than their
 * limits; *limit_name (may be NULL) gets static text that says which. Without /proc/meminfo free
 * memory takes the place of MemAvailable, and the text says so. */
uint64_t pool_available(const char **limit_name);

#endif
