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
    { "F32", 0x8e78b3019eba4251 },       { "F16", 0x0883afbab2ef8e29 },
    { "Q4_0", 0xd0c1f280726a1b4c },      { "Q4_1", 0x78151c396b822e1a },
    { "Q5_0", 0xcde64c82d5f9b4d6 },      { "Q5_1", 0x06be3caeffb058cf },
    { "Q8_0", 0xfaa933b4d147ac47 },      { "Q2_K", 0x1ac6e3d3a491c05b },
    { "Q3_K", 0x0a84c928c8dfb2df },      { "Q4_K", 0x0463ba62d3f2d235 },
    { "Q5_K", 0xb27323f1a34c3d37 },      { "Q6_K", 0x640b1c8a08dc31c8 },
    { "IQ2_XXS", 0x557db19fa6d562e1 },   { "IQ2_XS", 0x0e6d2e1df765033d },
    { "IQ3_XXS", 0x4e82364ab18ae79b },   { "IQ1_S", 0x26f7d7c52dacd726 },
    { "IQ4_NL", 0x3f2de2a31a4f6385 },    { "IQ3_S", 0x9d7dbda2f188665f },
    { "IQ2_S", 0x147bba72bd19d393 },     { "IQ4_XS", 0x82598d759845be42 },
    { "IQ1_M", 0x593ee44d97044a62 },     { "BF16", 0xbe8f9b875cd273c7 },
    { "TQ1_0", 0x4436d3de25963c32 },     { "TQ2_0", 0xbadd2d7055539cc5 },
    { "MXFP4", 0xa6f4cc60c69f76f9 },     { "NVFP4", 0x715e5f3aa7620281 },
    { "Q1_0", 0xb637c0f906cabdc4 },      { "vectors", 0xb75ec50ef2922066 },
    { "attention", 0x172cc12630759cf9 },
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
    const struct kern_table *plain = kern_get_early_avx512();
    for (int part = 0; part < N_PART; part++) {
        uint64_t hash;
        if (plain != NULL && cpu_can(CPU_AVX512) && part_name(part) != NULL) {
            bool is_good = check_part(part, plain, &hash) == 0;
            is_good = is_stored(part_name(part), hash) && is_good;
            printf("%s %d - early avx512 %s\n", is_good ? "ok" : "not ok", ++n_test,
                   part_name(part));
            n_bad += !is_good;
        }
    }
    printf("1..%d\n", n_test);
    return n_bad != 0;
}
