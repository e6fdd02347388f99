/* facts - what the kernel says of this box, as far as models care (base/facts.c)
 *
 * FA-1  what cannot be read is told as that: UINT64_MAX, or an empty text. Nothing is assumed. */
#ifndef HEARTH_FACTS_H
#define HEARTH_FACTS_H

#include "base/claim.h"
#include "base/cpu.h"
#include "base/pool.h"
#include "base/psi.h"

#include <stdbool.h>
#include <stdint.h>

#define FACTS_TOP     3
#define FACTS_UNKNOWN UINT64_MAX

/* A process that holds much memory. */
struct facts_process {
    uint64_t pid;
    char name[32];  /* as it calls itself: from outside */
    uint64_t bytes; /* VmRSS */
};

struct facts_memory {
    uint64_t lost_bytes; /* of MemTotal, that no process, no cache and no table of the kernel has */
    uint64_t cma_total_bytes; /* set aside for drivers, which lend it */
    uint64_t limit_bytes;     /* the least memory limit of the cgroups; UINT64_MAX: none */
    const char *limit_name;   /* static text: which it is; NULL: none */
    uint64_t swap_bytes;
    uint64_t swap_free_bytes;
    uint64_t swap_limit_bytes; /* of the cgroups; UINT64_MAX: none */
    char swap_on[40];          /* the first place of it */
    uint64_t swappiness;
    uint64_t overcommit;
    uint64_t commit_bytes; /* CommitLimit */
    uint64_t committed_bytes;
    char huge[16]; /* transparent huge pages: "madvise" */
    char defrag[24];
    struct psi psi;
    struct claim_list others;            /* hearth's processes with a plan */
    struct facts_process top[FACTS_TOP]; /* the largest first */
    int n_top;
};

struct facts_cpu {
    uint64_t n_present; /* logical processors */
    uint64_t n_online;
    uint64_t n_allowed; /* that this process may use (affinity, cpuset) */
    uint64_t n_granted; /* as a cgroup's quota; UINT64_MAX: no limit */
    uint64_t n_node;    /* of memory */
    uint64_t zone_reclaim;
    uint64_t balancing; /* NUMA balancing */
    uint64_t smt;       /* cores compute as two or more: 1, 0 */
    bool is_smt_off;    /* they could, and somebody switched it off */
    char governor[16];  /* the slowest of all cores */
    char driver[24];    /* of the clock */
    char preference[24];
    uint64_t clock_khz;     /* what cores may reach, of the core that is held back most */
    uint64_t clock_max_khz; /* and what they could */
    uint64_t boost;         /* cpufreq/boost */
    uint64_t no_turbo;      /* intel_pstate/no_turbo */
    char profile[24];       /* platform_profile */
    uint64_t heat_mc;       /* thousandths of a degree, of its place nearest to a limit */
    uint64_t heat_limit_mc; /* from which on the clock is lowered; UINT64_MAX: not told */
    uint64_t n_throttled;   /* times since the start (Intel) */
    uint64_t undervoltage;  /* a Raspberry Pi's power supply gives too little: 1, 0 */
    struct psi_scope load;  /* how long programs waited for a core, its percentages alone */
    enum cpu_isa isa;       /* CPU_ISA_COUNT: not asked */
};

/* The store and its disk: measured here, in no tree (cmd/disk.h). */
struct facts_disk {
    bool is_asked;
    char fault[256];   /* why the store cannot be opened */
    char refused[256]; /* why pull cannot write there */
    bool is_missing;   /* it is not there yet */
    char store[256];   /* its folder, where it is or would be */
    uint64_t room_bytes;
    uint64_t n_model;
    uint64_t n_broken;     /* models that lack a file, or have one that is no more what it was */
    char broken[128];      /* the first of them */
    char broken_why[80];   /* what its packed image "is"; "": a file of the model itself is gone */
    uint64_t bytes;        /* of its models' files that are there */
    uint64_t looked_bytes; /* of these, that were looked for in the page cache */
    uint64_t cached_bytes; /* and found there */
    char file[160];        /* that was read; "" none: `why` says it */
    char why[160];
    uint64_t file_bytes;
    uint64_t read_bytes;
    uint64_t other_bytes; /* read and written meanwhile by others; 0 where it is not told */
    double gb_s;
    bool is_direct; /* past the page cache */
    bool is_uring;
};

struct facts {
    struct pool pool;
    struct facts_memory memory;
    struct facts_cpu cpu;
    struct facts_disk disk;
    char kernel[64]; /* its release */
    unsigned kernel_major;
    unsigned kernel_minor;
    char container[16]; /* "docker", "podman", "container"; "" none found */
    bool is_virtual;
    bool has_limits;       /* /proc/self/limits could be read */
    uint64_t files;        /* open ones that may be asked for (hard limit); UINT64_MAX: no limit */
    uint64_t threads;      /* that a user may have (ulimit -u), for whom it counts; likewise */
    uint64_t threads_left; /* in the cgroup; UINT64_MAX: no limit */
    uint64_t uring_off;    /* kernel.io_uring_disabled */
};

/* `root` stands before /proc and /sys, "" for this box, whose instruction set is told too.
 * `claims`: folder of the plans of others, NULL: this user's. Takes some ms and no memory. */
void facts_read(struct facts *f, const char *root, const char *claims);

#endif
