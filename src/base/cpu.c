/* cpu - what this machine's processor can do
 *
 * Detected once, from the processor itself (cpuid) and the system (which registers it saves, which
 * cores this process may use, how much of them its cgroup grants). Kernels are chosen by this at
 * run time from one program; a build never assumes more than the architecture's baseline. How many
 * tokens a product takes at once goes by the size of a core's second-level cache.
 *
 * Detection asks for exactly what the kernels' own compiler flags promise (meson.build): a kernel
 * built with an instruction that the processor lacks would end in a signal, not in an error.
 *
 * Preprocessor conditions on the architecture stand here and in kern/ (kern_table.c, lanes.h) only.
 *
 * Next: kern/kern_table.c chooses by it. */
#include "base/cpu.h"

#include "base/cgroup.h"
#include "base/once.h"

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define CORES_MAX 256 /* more threads than this help no model we know */

static struct cpu_info info;
static struct once once = ONCE_INIT;

#if defined(__x86_64__)
/* Register states that the system saves on a context switch (XCR0). */
static uint64_t saved_states(void)
{
    uint32_t lo;
    uint32_t hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

#define CACHES_MAX 8 /* of a core */

/* What a leaf that lists caches says of the second level, 0 where it does not: Intel's leaf 4 and
 * AMD's 0x8000001D have one form (ways, partitions, bytes of a line, sets, all less 1). */
static size_t l2_listed(uint32_t leaf)
{
    uint32_t a;
    uint32_t b;
    uint32_t sets;
    uint32_t d;
    for (uint32_t i = 0; i < CACHES_MAX; i++) {
        if (!__get_cpuid_count(leaf, i, &a, &b, &sets, &d) || (a & 31) == 0) {
            return 0;
        }
        if ((a >> 5 & 7) == 2) {
            const size_t line = (size_t)((b & 4095) + 1) * ((b >> 12 & 1023) + 1);
            return line * ((b >> 22) + 1) * ((size_t)sets + 1);
        }
    }
    return 0;
}

static void detect_isa(struct cpu_info *c)
{
    uint32_t a;
    uint32_t b;
    uint32_t cx;
    uint32_t d;
    uint32_t name[12] = { 0 };
    for (uint32_t i = 0; i < 3; i++) {
        __get_cpuid(0x80000002u + i, &name[4 * i], &name[4 * i + 1], &name[4 * i + 2],
                    &name[4 * i + 3]);
    }
    snprintf(c->name, sizeof c->name, "%.48s", (const char *)name);
    const size_t l2 = l2_listed(4);
    c->l2_bytes = l2 != 0 ? l2 : l2_listed(0x8000001D);
    if (!__get_cpuid(1, &a, &b, &cx, &d) || !(cx & bit_OSXSAVE)) {
        return;
    }
    const uint32_t family = (a >> 8 & 15) + (a >> 20 & 255);
    const uint64_t saved = saved_states();
    const bool has_ymm = (saved & 0x6) == 0x6;
    const bool has_zmm = (saved & 0xE6) == 0xE6;
    const bool has_fma = (cx & bit_FMA) && (cx & bit_F16C);
    uint32_t b7;
    uint32_t c7;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d)) {
        return;
    }
    c->has_avx2 = has_ymm && has_fma && (b7 & bit_AVX2);
    const uint32_t need = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    c->has_avx512 = has_zmm && c->has_avx2 && (b7 & need) == need;
    c->has_avx512_vnni = c->has_avx512 && (c7 & bit_AVX512VNNI);
    c->has_avx512_vbmi = c->has_avx512 && (c7 & bit_AVX512VBMI) && (c7 & bit_GFNI);
    c->has_stream_prefetch = c->has_avx512 && family == 0x19; /* Zen 4 (docs/SPEED.md) */
    uint32_t a71;
    if (__get_cpuid_count(7, 1, &a71, &b, &cx, &d)) {
        c->has_avx_vnni = c->has_avx2 && (a71 & (1u << 4));
        c->has_avx512_bf16 = c->has_avx512 && (a71 & (1u << 5));
    }
}
#elif defined(__aarch64__)
static void detect_isa(struct cpu_info *c)
{
    const unsigned long caps = getauxval(AT_HWCAP);
    c->has_neon = (caps & HWCAP_ASIMD) != 0;
    c->has_dotprod = (caps & HWCAP_ASIMDDP) != 0;
    c->has_i8mm = c->has_dotprod && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
    snprintf(c->name, sizeof c->name, "aarch64");
}
#else
static void detect_isa(struct cpu_info *c)
{
    snprintf(c->name, sizeof c->name, "unknown");
}
#endif

void cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void detect(void)
{
    detect_isa(&info);
    const size_t l2 = info.l2_bytes != 0 ? info.l2_bytes : CPU_L2_ASSUMED_BYTES;
    info.l2_bytes = l2 < CPU_L2_MAX_BYTES ? l2 : CPU_L2_MAX_BYTES;
    cpu_set_t set;
    CPU_ZERO(&set);
    info.n_core = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                              : (int)sysconf(_SC_NPROCESSORS_ONLN);
    const uint32_t granted = cgroup_cores("");
    info.n_core = (uint32_t)info.n_core < granted ? info.n_core : (int)granted;
    info.n_core = info.n_core < 1 ? 1 : info.n_core > CORES_MAX ? CORES_MAX : info.n_core;
}

const struct cpu_info *cpu_get(void)
{
    once_run(&once, detect);
    return &info;
}

bool cpu_can(enum cpu_isa isa)
{
    const struct cpu_info *c = cpu_get();
    switch (isa) {
    case CPU_SCALAR:
        return true;
    case CPU_AVX2:
        return c->has_avx2;
    case CPU_AVXVNNI:
        return c->has_avx_vnni;
    case CPU_AVX512:
        return c->has_avx512_vnni;
    case CPU_NEON:
        return c->has_neon;
    case CPU_NEONDOT:
        return c->has_neon && c->has_dotprod;
    case CPU_NEONI8MM:
        return c->has_neon && c->has_i8mm;
    case CPU_ISA_COUNT:
        break;
    }
    return false;
}

enum cpu_isa cpu_best(void)
{
    static const enum cpu_isa order[] = { CPU_AVX512,   CPU_AVXVNNI, CPU_AVX2,
                                          CPU_NEONI8MM, CPU_NEONDOT, CPU_NEON };
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        if (cpu_can(order[i])) {
            return order[i];
        }
    }
    return CPU_SCALAR;
}

static const char *const names[CPU_ISA_COUNT] = { "scalar", "avx2",    "avxvnni", "avx512",
                                                  "neon",   "neondot", "neoni8mm" };

const char *cpu_isa_name(enum cpu_isa isa)
{
    return (unsigned)isa < CPU_ISA_COUNT ? names[isa] : "unknown";
}

bool cpu_isa_parse(const char *name, enum cpu_isa *out)
{
    for (int i = 0; i < CPU_ISA_COUNT; i++) {
        if (strcasecmp(name, names[i]) == 0) {
            *out = (enum cpu_isa)i;
            return true;
        }
    }
    return false;
}
