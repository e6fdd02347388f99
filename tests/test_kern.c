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
    { "Q4_0", 0x7cb5ebc7b9477746 },      { "Q4_1", 0x1a9fde45396dfbb6 },
    { "Q5_0", 0x9712cc331bfc69bd },      { "Q5_1", 0xca096f726ac4d9dc },
    { "Q8_0", 0xe04c535c51286d00 },      { "Q2_K", 0x4205e1ba4cd5c832 },
    { "Q3_K", 0x8575493ec7f73d05 },      { "Q4_K", 0xcc2b8db78fd15018 },
    { "Q5_K", 0x08a7c67314e53b00 },      { "Q6_K", 0x186d631d45d68d20 },
    { "IQ2_XXS", 0xc16c15509e0cf45c },   { "IQ2_XS", 0x574efc05154fdb3a },
    { "IQ3_XXS", 0x4d32822f00b8a2da },   { "IQ1_S", 0xbb9ed1ff845a0bee },
    { "IQ4_NL", 0xed7f5312eeb8e04b },    { "IQ3_S", 0x2209677501005e37 },
    { "IQ2_S", 0xbfb8af650d0ced8f },     { "IQ4_XS", 0x2a682ac56495bb84 },
    { "IQ1_M", 0x8c7a8206931e0ea4 },     { "BF16", 0xbe8f9b875cd273c7 },
    { "TQ1_0", 0xd32f72970b2f1d22 },     { "TQ2_0", 0xb594737a238f3ad4 },
    { "MXFP4", 0x629526cdeab37514 },     { "NVFP4", 0x8a27bda276754af0 },
    { "Q1_0", 0x9bfdc18c1669af9c },      { "vectors", 0xc8fdd0c7267be2fc },
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
