/* test_kern - every table of kernels against the plain C one, and plain C against stored results
 *
 * The checks (checkkern_*.c) compare an instruction set's table with the scalar one bit by bit and
 * take all results into a hash. The hashes below are those of the scalar table: a machine that
 * lacks an instruction set, or an emulator that does, still checks the arithmetic that all share.
 * An instruction set that cannot run here is reported as skipped, by name.
 *
 * When the arithmetic is changed on purpose, or a type is added, `test_kern --hashes` prints the
 * rows anew; docs/NUMERICS.md then needs the same change.
 *
 * This program prints TAP itself and needs nothing above kern/, so it also runs where the libraries
 * of the other tests are missing. Next: checkkern.h. */
#include "checkkern.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct stored {
    const char *part;
    uint64_t hash;
};

static const struct stored stored[] = {
    { "F32", 0x8571e8a1b8edd96f },       { "F16", 0xf376f10103bd4e2e },
    { "Q4_0", 0x3568a3788cd88d1a },      { "Q4_1", 0x8d7ee1e701844b14 },
    { "Q5_0", 0x228b9cb302c3bcb2 },      { "Q5_1", 0x5e7f4392637ae95c },
    { "Q8_0", 0x4021cd0c31095ad4 },      { "Q2_K", 0x66c918334d45af4a },
    { "Q3_K", 0x202530349963df10 },      { "Q4_K", 0x19c202bf59d7128e },
    { "Q5_K", 0xa69ba7aa9dca0ef3 },      { "Q6_K", 0x6cdde8274fda8596 },
    { "IQ2_XXS", 0xa495c1349168ff5b },   { "IQ2_XS", 0x8cb904cacdeb3903 },
    { "IQ3_XXS", 0x35c0d1718878db9d },   { "IQ1_S", 0xe0905b5d2b4b9378 },
    { "IQ4_NL", 0x7fa622ebd8a6d880 },    { "IQ3_S", 0x97fee6168eb38bd7 },
    { "IQ2_S", 0x4c44ea65b1e40ad9 },     { "IQ4_XS", 0x53f0977a5cda54f5 },
    { "IQ1_M", 0xea21fee2681cb919 },     { "BF16", 0x9a9b3353000c90f8 },
    { "TQ1_0", 0x2317228acabd271e },     { "TQ2_0", 0xd56bb9e390d2400c },
    { "MXFP4", 0x7237fc6b3e4bac01 },     { "NVFP4", 0x509aebf2bfd30fd9 },
    { "Q1_0", 0xe5779e17857985d1 },      { "vectors", 0xa819adc9a025c2cc },
    { "attention", 0x6bbaa85b40ddbba6 },
};

#define N_STORED (sizeof stored / sizeof stored[0])

/* Parts of a table: vectors, attention, products of each type. */
#define PART_VEC  QUANT_TYPE_COUNT
#define PART_ATTN (QUANT_TYPE_COUNT + 1)
#define N_PART    (QUANT_TYPE_COUNT + 2)

/* NULL: there is no such type. */
static const char *part_name(int part)
{
    if (part >= PART_VEC) {
        return part == PART_VEC ? "vectors" : "attention";
    }
    return quant_get((uint32_t)part)->decode != NULL ? quant_get((uint32_t)part)->name : NULL;
}

static int check_part(int part, const struct kern_table *t, uint64_t *hash)
{
    const struct kern_table *ref = kern_get(CPU_SCALAR);
    *hash = 0xCBF29CE484222325u; /* FNV's start */
    if (part >= PART_VEC) {
        return (part == PART_VEC ? checkkern_vec : checkkern_attn)(ref, t, hash);
    }
    return checkkern_gemm(ref, t, (enum quant_type)part, hash);
}

static bool is_stored(const char *part, uint64_t hash)
{
    for (size_t i = 0; i < N_STORED; i++) {
        if (strcmp(stored[i].part, part) == 0) {
            if (stored[i].hash != hash) {
                printf("# %s: hash of all results is %016" PRIx64 ", stored is %016" PRIx64 "\n",
                       part, hash, stored[i].hash);
            }
            return stored[i].hash == hash;
        }
    }
    printf("# %s: no stored hash; --hashes prints it\n", part);
    return false;
}

static void print_hashes(void)
{
    for (int part = 0; part < N_PART; part++) {
        uint64_t hash;
        if (part_name(part) != NULL && check_part(part, kern_get(CPU_SCALAR), &hash) == 0) {
            printf("    { \"%s\", 0x%016" PRIx64 " },\n", part_name(part), hash);
        }
    }
}

int main(int argc, char **argv)
{
    int n_test = 0;
    int n_bad = 0;
    if (argc == 2 && strcmp(argv[1], "--hashes") == 0) {
        print_hashes();
        return 0;
    }
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++) {
        const struct kern_table *t = kern_get((enum cpu_isa)isa);
        const char *name = cpu_isa_name((enum cpu_isa)isa);
        if (t == NULL || !cpu_can((enum cpu_isa)isa)) {
            printf("ok %d - %s # SKIP %s\n", ++n_test, name,
                   t == NULL ? "another architecture" : "this processor lacks it");
            continue;
        }
        for (int part = 0; part < N_PART; part++) {
            uint64_t hash;
            if (part_name(part) == NULL) {
                continue;
            }
            bool is_good = check_part(part, t, &hash) == 0;
            is_good = is_stored(part_name(part), hash) && is_good;
            printf("%s %d - %s %s\n", is_good ? "ok" : "not ok", ++n_test, name, part_name(part));
            fflush(stdout);
            n_bad += !is_good;
        }
    }
    const struct kern_table *plain = kern_get_without_vbmi();
    for (int part = 0; part < PART_VEC; part++) {
        uint64_t hash;
        if (plain != NULL && cpu_can(CPU_AVX512) && part_name(part) != NULL) {
            bool is_good = check_part(part, plain, &hash) == 0;
            is_good = is_stored(part_name(part), hash) && is_good;
            printf("%s %d - avx512 without vbmi %s\n", is_good ? "ok" : "not ok", ++n_test,
                   part_name(part));
            n_bad += !is_good;
        }
    }
    printf("1..%d\n", n_test);
    return n_bad != 0;
}
