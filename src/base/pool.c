/* pool - the memories of this box, one budget for each
 *
 * The host's pool. MemAvailable is what the kernel would give without swapping; swap never counts.
 * From it go
 *  - free CMA: areas lent to programs until a driver wants them back for its buffers, and then the
 *    pages must go elsewhere. On boxes with a GPU of their own that may be gigabytes;
 *  - a reserve of 1/64 of the memory, at least 64 MiB and at most 1 GiB. The kernel's own needs are
 *    not in MemAvailable (it leaves its watermarks out), so this is for what is yet to come: page
 *    tables of what is planned (1/512), stacks and sockets, and what other programs ask for;
 *  - what other processes of hearth planned and have not taken yet (claim.c);
 * and what this process holds already comes on top, since it is part of its plan; but not its pages
 * of files, which the kernel calls available still. Pages in pools of huge pages are in none of
 * these figures: they were taken out when the pool was made. They are told, as whoever wonders
 * where the memory went may find it there.
 *
 * The cgroups of this process may leave less. The system does not live in them, so no reserve goes
 * off there, and claims only of processes in the same ones or below (cgroup.c).
 *
 * So may limits of the process: of its addresses (RLIMIT_AS), of its data (RLIMIT_DATA). They count
 * what is mapped, not what is there, so a limit that leaves the plan is not always enough: glibc
 * reserves 64 MiB of addresses for each thread that takes memory. APART_BYTES are left for those;
 * where even that is too little, the message that memory was refused names the limit
 * (cmd/open.c). A mapped image is no data.
 *
 * GPUs. amdgpu tells its memory in sysfs. On a processor with graphics (an APU) it is what the
 * firmware carved out of the box's memory: MemTotal has no byte of it, so it is a pool of its own,
 * and a plan for the host cannot use it. GTT is the opposite: not memory, but how much of the
 * host's the GPU may map, so no pool (drivers that add both up promise 132 GiB of 128); it is
 * clamped by what the host really has. What tells an APU's from a card's memory are files that
 * amdgpu makes for cards only: the maker of the memory chips, the load of the memory, the bytes
 * over PCIe. NVIDIA's driver tells nothing here; its memory may be the host's (GB10), and is then
 * in the host's figures.
 *
 * Next: engine/plan.c. */
#include "base/pool.h"

#include "base/cgroup.h"
#include "base/figure.h"
#include "base/os.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define MIB           ((uint64_t)1 << 20)
#define RESERVE_PART  64
#define RESERVE_LEAST (64 * MIB)
#define RESERVE_MOST  (1024 * MIB)
#define APART_BYTES   (160 * MIB) /* of addresses: two heaps of glibc, slack of large mappings */
#define CARDS_MAX     64
#define VENDOR_AMD    0x1002
#define VENDOR_NVIDIA 0x10de

/* --- the host ------------------------------------------------------------------------------ */

/* Where /proc is hidden (a sandbox): what is wholly free, as the kernel tells that without a file.
 * It is less, as no page cache counts, but no invented 0. */
static const char *read_kernel(struct pool_host *h, const char *root)
{
    char path[OS_PATH_BYTES];
    struct sysinfo s = { 0 };
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    h->total_bytes = figure_bytes(os_number_after(path, "MemTotal"), 1024);
    h->kernel_bytes = figure_bytes(os_number_after(path, "MemAvailable"), 1024);
    h->cma_bytes = figure_known(figure_bytes(os_number_after(path, "CmaFree"), 1024));
    if (h->kernel_bytes != UINT64_MAX) {
        h->kernel_bytes = figure_least(h->kernel_bytes, h->total_bytes);
        return NULL;
    }
    const bool is_told = sysinfo(&s) == 0;
    h->is_hidden = true;
    h->kernel_bytes = is_told ? (uint64_t)s.freeram * s.mem_unit : 0;
    h->total_bytes = is_told ? (uint64_t)s.totalram * s.mem_unit : UINT64_MAX;
    return "free memory only: MemAvailable in /proc/meminfo cannot be read";
}

/* Pages that nobody has or was promised. The sizes are those of x86 and of 64-bit ARM. */
static uint64_t huge_free(const char *root)
{
    static const uint64_t sizes_kb[] = { 64, 2048, 32768, 524288, 1048576, 16777216 };
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof sizes_kb / sizeof sizes_kb[0]; i++) {
        char folder[OS_PATH_BYTES];
        snprintf(folder, sizeof folder, "%s/sys/kernel/mm/hugepages/hugepages-%llukB", root,
                 (unsigned long long)sizes_kb[i]);
        const uint64_t n_free = os_number_in(folder, "free_hugepages", NULL);
        const uint64_t n_promised = os_number_in(folder, "resv_hugepages", NULL);
        const uint64_t n = figure_less(figure_known(n_free), figure_known(n_promised));
        sum += figure_known(figure_bytes(n, sizes_kb[i] * 1024));
    }
    return sum;
}

static const char *limit_of_box(const struct pool_host *h)
{
    return h->cma_bytes > 0 && h->other_bytes > 0
               ? "memory available on this box, less free CMA, what other hearth processes "
                 "planned, and a reserve"
           : h->cma_bytes > 0 ? "memory available on this box, less free CMA and a reserve"
           : h->other_bytes > 0
               ? "memory available on this box, less what other hearth processes planned, and a "
                 "reserve"
               : "memory available on this box, less a reserve";
}

/* What this process has, in bytes. */
struct own {
    uint64_t anon; /* no file stands behind it; all, where the kernel does not tell */
    uint64_t file; /* mapped pages of files, of which code at most */
    uint64_t code;
    uint64_t mapped; /* addresses */
    uint64_t data;   /* of these, private and writable */
};

static uint64_t status_bytes(const char *path, const char *key)
{
    return figure_bytes(os_number_after(path, key), 1024);
}

static void read_own(struct own *o, const char *root)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/proc/self/status", root);
    const uint64_t anon = status_bytes(path, "RssAnon");
    *o = (struct own){ .anon = anon != UINT64_MAX
                                   ? anon + figure_known(status_bytes(path, "RssShmem"))
                                   : figure_known(status_bytes(path, "VmRSS")),
                       .file = figure_known(status_bytes(path, "RssFile")),
                       .code = figure_known(status_bytes(path, "VmExe")) +
                               figure_known(status_bytes(path, "VmLib")),
                       .mapped = figure_known(status_bytes(path, "VmSize")),
                       .data = figure_known(status_bytes(path, "VmData")) };
}

/* Limits of the process: less what it has of them, but for memory, which is part of a plan. */
static void read_limits(struct pool_host *h, const char *root, const struct own *o,
                        const struct claim_image *image)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/proc/self/limits", root);
    h->locked_bytes = figure_bytes(os_number_after(path, "Max locked memory"), 1);
    h->address_bytes = figure_bytes(os_number_after(path, "Max address space"), 1);
    h->data_bytes = figure_bytes(os_number_after(path, "Max data size"), 1);
    if (h->address_bytes != UINT64_MAX) {
        h->address_bytes =
            figure_less(h->address_bytes, o->mapped + APART_BYTES) + o->anon + o->code;
    }
    if (h->data_bytes != UINT64_MAX) {
        h->data_bytes = figure_less(h->data_bytes, o->data) + o->anon + o->code +
                        (image != NULL ? image->bytes : 0);
    }
}

uint64_t pool_reserve(uint64_t total_bytes)
{
    const uint64_t part = total_bytes / RESERVE_PART;
    return part < RESERVE_LEAST ? RESERVE_LEAST : figure_least(part, RESERVE_MOST);
}

static void choose(struct pool_host *h, uint64_t bytes, const char *name)
{
    if (bytes < h->available_bytes) {
        h->available_bytes = bytes;
        h->limit = name;
    }
}

static void read_host(struct pool_host *h, const char *root, const char *claims,
                      const struct claim_image *image)
{
    struct claim_list others;
    struct own own;
    claim_others(root, claims, image, &others); /* first: what is taken meanwhile counts twice */
    const char *hidden = read_kernel(h, root);
    read_own(&own, root);
    read_limits(h, root, &own, image);
    h->held_bytes = own.anon;
    h->huge_bytes = huge_free(root);
    h->reserve_bytes = pool_reserve(figure_known(h->total_bytes));
    h->other_bytes = others.bytes;
    const uint64_t gone = h->cma_bytes + h->reserve_bytes + h->other_bytes;
    h->available_bytes =
        figure_least(figure_less(h->kernel_bytes, gone) + h->held_bytes, h->total_bytes);
    h->limit = hidden != NULL ? hidden : limit_of_box(h);
    const uint64_t code = figure_least(own.file, own.code);
    const struct cgroup_held held = { own.anon + code, own.file - code };
    const char *name = NULL;
    h->group_bytes = cgroup_memory(root, &held, others.one, others.n, &name);
    choose(h, h->group_bytes, name);
    const uint64_t box = h->available_bytes;
    choose(h, h->address_bytes, "the limit of addresses, which ulimit -v unlimited lifts");
    choose(h, h->data_bytes, "the limit of data, which ulimit -d unlimited lifts");
    h->is_ulimit = h->available_bytes < box;
}

/* --- GPUs ---------------------------------------------------------------------------------- */

/* A hexadecimal number such as 0x1002; 0 when there is none. */
static unsigned long vendor_of(const char *folder)
{
    char path[OS_PATH_BYTES];
    char text[32];
    snprintf(path, sizeof path, "%s/vendor", folder);
    return os_read_start(path, text, sizeof text) > 0 ? strtoul(text, NULL, 16) : 0;
}

/* Whether amdgpu made one of the files that only cards have. Older kernels tell the maker of an
 * APU's chips too: "unknown". */
static bool is_card(const char *folder)
{
    char path[OS_PATH_BYTES];
    char text[32];
    snprintf(path, sizeof path, "%s/mem_info_vram_vendor", folder);
    const bool has_maker =
        os_read_start(path, text, sizeof text) > 0 && strncmp(text, "unknown", 7) != 0;
    snprintf(path, sizeof path, "%s/mem_busy_percent", folder);
    const bool has_load = os_exists(path);
    snprintf(path, sizeof path, "%s/pcie_bw", folder);
    return has_maker || has_load || os_exists(path);
}

/* Drivers that AMD ships beside the kernel's bring a module of their own in the place of ttm. */
static uint64_t read_ttm(const char *root, const char *module)
{
    char parameters[OS_PATH_BYTES];
    snprintf(parameters, sizeof parameters, "%s/sys/module/%s/parameters", root, module);
    return figure_bytes(os_number_in(parameters, "pages_limit", NULL),
                        (uint64_t)sysconf(_SC_PAGESIZE));
}

static void read_amd(struct pool_gpu *g, const char *root, const char *folder,
                     const struct pool_host *host)
{
    const uint64_t total = figure_bytes(os_number_in(folder, "mem_info_vram_total", NULL), 1);
    const uint64_t used = figure_bytes(os_number_in(folder, "mem_info_vram_used", NULL), 1);
    const uint64_t map = figure_bytes(os_number_in(folder, "mem_info_gtt_total", NULL), 1);
    const uint64_t mapped = figure_bytes(os_number_in(folder, "mem_info_gtt_used", NULL), 1);
    uint64_t pages = read_ttm(root, "amdttm");
    g->ttm = pages != UINT64_MAX ? "amdttm" : "ttm";
    pages = pages != UINT64_MAX ? pages : read_ttm(root, "ttm");
    g->is_told = total != UINT64_MAX;
    g->is_carved = !is_card(folder);
    g->total_bytes = figure_known(total);
    g->free_bytes = figure_less(figure_known(total), figure_known(used));
    g->gtt_bytes = figure_known(map);
    g->ttm_bytes = figure_known(pages);
    const uint64_t most = figure_less(figure_least(figure_known(map), pages), figure_known(mapped));
    g->map_bytes = figure_least(most, host->available_bytes);
}

void pool_read_gpus(struct pool *p, const char *root)
{
    root = root != NULL ? root : "";
    p->n_gpu = 0;
    for (int i = 0; i < CARDS_MAX && p->n_gpu < POOL_GPUS_MAX; i++) {
        char folder[OS_PATH_BYTES / 2];
        snprintf(folder, sizeof folder, "%s/sys/class/drm/card%d/device", root, i);
        const unsigned long vendor = vendor_of(folder);
        if (vendor != VENDOR_AMD && vendor != VENDOR_NVIDIA) {
            continue;
        }
        struct pool_gpu *g = &p->gpu[p->n_gpu++];
        snprintf(g->name, sizeof g->name, "card%d", i);
        if (vendor == VENDOR_AMD) {
            read_amd(g, root, folder, &p->host);
        }
    }
}

void pool_read(struct pool *p, const char *root, const char *claims,
               const struct claim_image *image)
{
    *p = (struct pool){ 0 };
    read_host(&p->host, root != NULL ? root : "", claims, image);
    pool_read_gpus(p, root);
}

void pool_read_host(struct pool_host *h, const struct claim_image *image)
{
    read_host(h, "", NULL, image);
}

uint64_t pool_available(const char **limit_name)
{
    struct pool_host h;
    pool_read_host(&h, NULL);
    *limit_name = h.limit;
    return h.available_bytes;
}
