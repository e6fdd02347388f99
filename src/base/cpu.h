/* cpu - what this machine's processor can do (base/cpu.c) */
#ifndef HEARTH_CPU_H
#define HEARTH_CPU_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* Instruction-set levels of the kernels, weakest first within an architecture. */
enum cpu_isa {
    CPU_SCALAR,
    CPU_AVX2,
    CPU_AVXVNNI,
    CPU_AVX512,
    CPU_NEON,
    CPU_NEONDOT,
    CPU_NEONI8MM,
    CPU_ISA_COUNT
};

/* Their names, for messages. */
#define CPU_ISA_NAMES "scalar, avx2, avxvnni, avx512, neon, neondot, neoni8mm"

#define CPU_L2_ASSUMED_BYTES ((size_t)512 << 10) /* where the processor does not tell */
/* The most that is believed: greater ones are often shared by several cores. */
#define CPU_L2_MAX_BYTES ((size_t)2 << 20)

struct cpu_info {
    bool has_avx2;     /* AVX2 + FMA + F16C */
    bool has_avx_vnni; /* and 256-bit vpdpbusd */
    bool has_avx512;   /* F, BW, DQ, VL */
    bool has_avx512_vnni;
    bool has_avx512_vbmi; /* and GFNI */
    bool has_avx512_bf16;
    bool has_neon;
    bool has_dotprod;         /* sdot: optional from ARMv8.2 on */
    bool has_i8mm;            /* smmla, and sdot with it */
    bool has_stream_prefetch; /* what is read in order comes sooner when nobody asks for it */
    size_t l2_bytes;          /* second-level cache of a core, at most CPU_L2_MAX_BYTES */
    int n_core; /* cores this process may run on (affinity and cgroup quota respected) */
    char name[64];
};

const struct cpu_info *cpu_get(void); /* detected once; any thread */
enum cpu_isa cpu_best(void);          /* best level whose kernels are built and may run here */
bool cpu_can(enum cpu_isa isa);       /* both its instructions and its registers */
const char *cpu_isa_name(enum cpu_isa isa); /* as --isa takes it, "scalar" for example */
bool cpu_isa_parse(const char *name, enum cpu_isa *out); /* any case; false: *out is untouched */
/* Tells the core that this thread waits in a loop: a few to some dozen ns that leave the core's
 * other half its resources. Any thread. */
void cpu_pause(void);

#endif
