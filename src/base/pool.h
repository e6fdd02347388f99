/* pool - the memories of this box, one budget for each (base/pool.c)
 *
 * As the kernel tells them, never as drivers sum them up. Any thread; nothing is kept.
 * PO-1  a byte of memory belongs to one pool: what the firmware carved out for a GPU is not in the
 *       host's, and what a GPU may map of the host's is not in its own. */
#ifndef HEARTH_POOL_H
#define HEARTH_POOL_H

#include "base/claim.h"

#include <stdbool.h>
#include <stdint.h>

/* Of the memory that the kernel and its programs share. UINT64_MAX: not told, or no limit. */
struct pool_host {
    uint64_t total_bytes;     /* MemTotal */
    uint64_t kernel_bytes;    /* MemAvailable */
    bool is_hidden;           /* that cannot be read: it is what is wholly free */
    uint64_t cma_bytes;       /* of these, free in areas that drivers may claim back */
    uint64_t reserve_bytes;   /* left to the system */
    uint64_t other_bytes;     /* planned by other processes of hearth, not taken yet (claim.h) */
    uint64_t held_bytes;      /* by this process now: part of what it may have */
    uint64_t group_bytes;     /* what the cgroups leave, with what is held, less claims there */
    uint64_t address_bytes;   /* what the limit of addresses leaves (RLIMIT_AS), likewise */
    uint64_t data_bytes;      /* and that of data (RLIMIT_DATA) */
    uint64_t huge_bytes;      /* free in pools of huge pages: in none of these, hearth uses none */
    uint64_t locked_bytes;    /* what may be locked (RLIMIT_MEMLOCK); hearth locks nothing */
    uint64_t available_bytes; /* what a plan may take in all */
    const char *limit;        /* static text: what sets that limit */
    bool is_ulimit;           /* one that whoever started this process chose */
};

/* Of a GPU, which this build cannot use. */
struct pool_gpu {
    char name[16];        /* as in /sys/class/drm */
    bool is_told;         /* the kernel tells its memory */
    bool is_carved;       /* a part of the box's memory that the firmware took away from the host */
    uint64_t total_bytes; /* of its own */
    uint64_t free_bytes;
    uint64_t map_bytes; /* that it may map of what the host has available (GTT) */
    uint64_t gtt_bytes; /* of that, what the driver would allow in all; 0: not told */
    uint64_t ttm_bytes; /* and what the kernel's ttm module allows; 0: not told */
    const char *ttm;    /* static text: the module that sets it, "ttm" or AMD's own "amdttm" */
};

#define POOL_GPUS_MAX 8
struct pool {
    struct pool_host host;
    struct pool_gpu gpu[POOL_GPUS_MAX];
    int n_gpu;
};

/* `root` stands before /proc and /sys, NULL: this box. `claims`: folder of the plans of others,
 * NULL: this user's. image: that of the plan which is made, or NULL. What cannot be read counts as
 * not there. */
void pool_read(struct pool *p, const char *root, const char *claims,
               const struct claim_image *image);
/* The GPUs alone, beside p->host, which was read before. */
void pool_read_gpus(struct pool *p, const char *root);
/* What a plan leaves to the system on a box with so much memory. */
uint64_t pool_reserve(uint64_t total_bytes);
/* The host's pool of this box alone. */
void pool_read_host(struct pool_host *h, const struct claim_image *image);
/* What it gives, and as *limit_name static text that says what the limit is. */
uint64_t pool_available(const char **limit_name);

#endif
