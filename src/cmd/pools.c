/* pools - the memories of this box, as `hearth plan` shows them
 *
 * Where the available bytes come from, line by line, since "available" alone is what people do not
 * believe on a box with graphics in its processor: most of its memory may lie in the firmware's
 * carve-out, and then the host has little, whatever the box was sold with. What a GPU has is told
 * although this build computes on the processor, with what could be done about it.
 *
 * Rejected: one bar for all. A carve-out and a card's memory are no part of what is available.
 *
 * Next: base/pool.c. */
#include "cmd/pools.h"

#include <math.h>
#include <stdio.h>

static double mib(double bytes)
{
    return floor(bytes / (1048576.0 / 10.0)) / 10.0;
}

/* `sign`: as it counts in *sum, which is right as printed; "": not. */
static void put_row(struct buf *out, const char *name, const char *sign, uint64_t bytes,
                    const char *note, double *sum)
{
    char text[32];
    const double before = sum != NULL ? *sum : 0.0;
    const double after = before + (sign[0] == '-' ? -(double)bytes : (double)bytes);
    snprintf(text, sizeof text, "%s%.1f", sign, fabs(mib(after) - mib(before)));
    if (bytes != UINT64_MAX) {
        buf_printf(out, "    %-24s %10s MiB%s%s%s\n", name, text, note[0] != '\0' ? "  (" : "",
                   note, note[0] != '\0' ? ")" : "");
    }
    if (sum != NULL) {
        *sum = after;
    }
}

static void put_gpu(struct buf *out, const struct pool_gpu *g, uint64_t plan_bytes)
{
    char name[48];
    if (!g->is_told) {
        buf_printf(out, "    %s: its driver does not tell its memory; hearth does not use it\n",
                   g->name);
        return;
    }
    snprintf(name, sizeof name, "%s %s", g->name, g->is_carved ? "carve-out" : "own memory");
    put_row(out, name, "", g->total_bytes,
            g->is_carved ? "not the host's: the firmware's setup can make it smaller"
                         : "not the host's",
            NULL);
    put_row(out, "  of these free", "", g->free_bytes,
            plan_bytes <= g->free_bytes ? "the plan would fit, but hearth computes on the processor"
                                        : "less than the plan",
            NULL);
    put_row(out, "  may map of the host's", "", g->map_bytes, "GTT: no memory of its own", NULL);
}

void pools_put_text(struct buf *out, const struct pool *p, uint64_t plan_bytes)
{
    const struct pool_host *h = &p->host;
    double sum = 0.0;
    buf_add_str(out, "\nmemory of this box (swap does not count)\n");
    put_row(out, "total", "", h->total_bytes, "", NULL);
    put_row(out, "free or soon free", "", h->kernel_bytes, "MemAvailable", &sum);
    if (h->cma_bytes > 0) {
        put_row(out, "free CMA", "-", h->cma_bytes, "lent by drivers, who may want it back", &sum);
    }
    put_row(out, "reserve", "-", h->reserve_bytes, "for the system: 1/64, 64 MiB to 1 GiB", &sum);
    if (h->other_bytes > 0) {
        put_row(out, "other hearth processes", "-", h->other_bytes, "planned, not taken yet", &sum);
    }
    put_row(out, "held already", "+", h->held_bytes, "by this process, in its plan", &sum);
    put_row(out, "left by the cgroup", "", h->group_bytes, "with what is held", NULL);
    put_row(out, "left by ulimit -v", "", h->address_bytes, "of addresses, with what is held",
            NULL);
    put_row(out, "left by ulimit -d", "", h->data_bytes, "of data, with what is held", NULL);
    if (h->huge_bytes > 0) {
        put_row(out, "free huge pages", "", h->huge_bytes,
                "in pools for other programs: not counted", NULL);
    }
    for (int i = 0; i < p->n_gpu; i++) {
        put_gpu(out, &p->gpu[i], plan_bytes);
    }
}

/* null: not told, or no limit. */
static void put_bytes(struct buf *out, const char *before, const char *name, uint64_t bytes)
{
    buf_printf(out, "%s\"%s\": ", before, name);
    if (bytes == UINT64_MAX) {
        buf_add_str(out, "null");
    } else {
        buf_printf(out, "%llu", (unsigned long long)bytes);
    }
}

void pools_put_json(struct buf *out, const struct pool *p)
{
    put_bytes(out, "\"host\": {", "total_bytes", p->host.total_bytes);
    put_bytes(out, ", ", "kernel_bytes", p->host.kernel_bytes);
    put_bytes(out, ", ", "cma_free_bytes", p->host.cma_bytes);
    put_bytes(out, ", ", "reserve_bytes", p->host.reserve_bytes);
    put_bytes(out, ", ", "other_bytes", p->host.other_bytes);
    put_bytes(out, ", ", "held_bytes", p->host.held_bytes);
    put_bytes(out, ", ", "cgroup_bytes", p->host.group_bytes);
    put_bytes(out, ", ", "address_bytes", p->host.address_bytes);
    put_bytes(out, ", ", "data_bytes", p->host.data_bytes);
    put_bytes(out, ", ", "huge_free_bytes", p->host.huge_bytes);
    put_bytes(out, ", ", "locked_max_bytes", p->host.locked_bytes);
    buf_add_str(out, "}, \"gpus\": [");
    for (int i = 0; i < p->n_gpu; i++) {
        const struct pool_gpu *g = &p->gpu[i];
        buf_printf(out, "%s{\"name\": \"%s\", \"kind\": \"%s\"", i > 0 ? ", " : "", g->name,
                   !g->is_told    ? "unknown"
                   : g->is_carved ? "carve_out"
                                  : "own");
        put_bytes(out, ", ", "total_bytes", g->is_told ? g->total_bytes : UINT64_MAX);
        put_bytes(out, ", ", "free_bytes", g->is_told ? g->free_bytes : UINT64_MAX);
        put_bytes(out, ", ", "map_bytes", g->is_told ? g->map_bytes : UINT64_MAX);
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
}
