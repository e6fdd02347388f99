/* checkkern_data - generated numbers, guarded memory and comparison for the kernel checks
 *
 * The numbers come from a counter through a mixing function (Steele et al. 2014, SplitMix64), so
 * that a check gives the same data on every machine and its results can be kept as a hash.
 *
 * Guarded memory is a mapping whose last page has no access rights; a buffer is placed so that it
 * ends where that page begins. A kernel that reads one float too many dies there, which is found
 * without a sanitizer and under an emulator as well.
 *
 * Next: checkkern_vec.c, checkkern_attn.c. */
#include "checkkern.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint32_t checkkern_bits(struct checkkern_rand *r)
{
    r->state += 0x9E3779B97F4A7C15u;
    uint64_t z = r->state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

int32_t checkkern_below(struct checkkern_rand *r, int32_t n)
{
    return (int32_t)(checkkern_bits(r) % (uint32_t)n);
}

static float plain(struct checkkern_rand *r)
{
    float sum = 0.0f; /* of three: roughly normal */
    for (int i = 0; i < 3; i++) {
        sum += (float)(int32_t)checkkern_bits(r) * 0x1p-31f;
    }
    return sum;
}

/* A random significand and sign under exponent 2^e. */
static float with_exponent(struct checkkern_rand *r, int e)
{
    const float x = 1.0f + (float)(checkkern_bits(r) >> 9) * 0x1p-23f;
    return ldexpf(checkkern_bits(r) & 1 ? -x : x, e);
}

float checkkern_float(struct checkkern_rand *r, enum checkkern_kind kind)
{
    static const float special[] = { INFINITY,         -INFINITY, NAN,   0x1.FFFFFEp127f,
                                     -0x1.FFFFFEp127f, 0.0f,      -0.0f, 1e9f };
    const int32_t pick = checkkern_below(r, 16);
    switch (kind) {
    case CHECKKERN_WIDE:
        return with_exponent(r, checkkern_below(r, 110) - 60);
    case CHECKKERN_TINY:
        if (pick < 3) {
            return pick == 0 ? 0.0f : -0.0f;
        }
        return pick < 8 ? with_exponent(r, -127 - checkkern_below(r, 20)) : plain(r) * 0x1p-100f;
    case CHECKKERN_SPECIAL:
        return pick == 0 ? special[checkkern_below(r, 8)] : plain(r);
    case CHECKKERN_OUTLIERS:
        return checkkern_below(r, 50) == 0 ? plain(r) * (float)(4 << checkkern_below(r, 8))
                                           : plain(r);
    default:
        return plain(r);
    }
}

void checkkern_open(struct checkkern_buf *b, size_t bytes_max)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    b->mapped = (bytes_max + page - 1) / page * page + page;
    b->base = mmap(NULL, b->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->base == MAP_FAILED ||
        mprotect((char *)b->base + b->mapped - page, page, PROT_NONE) != 0) {
        perror("checkkern: mmap");
        exit(2);
    }
    b->bytes = b->mapped - page;
}

void checkkern_close(struct checkkern_buf *b)
{
    munmap(b->base, b->mapped);
    b->base = NULL;
}

void *checkkern_end(struct checkkern_buf *b, size_t bytes)
{
    if (bytes > b->bytes) {
        fprintf(stderr, "checkkern: buffer of %zu bytes asked for %zu\n", b->bytes, bytes);
        exit(2);
    }
    return (char *)b->base + b->bytes - bytes;
}

float *checkkern_floats(struct checkkern_buf *b, struct checkkern_rand *r, enum checkkern_kind kind,
                        int32_t n)
{
    float *x = checkkern_end(b, (size_t)n * sizeof x[0]);
    for (int32_t i = 0; i < n; i++) {
        x[i] = checkkern_float(r, kind);
    }
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return x != x ? 0x7FC00000 : u;
}

bool checkkern_same(const char *what, const float *want, const float *got, size_t n, uint64_t *hash)
{
    bool is_same = true;
    for (size_t i = 0; i < n; i++) {
        const uint32_t g = bits_of(got[i]);
        *hash = (*hash ^ g) * 0x100000001B3u; /* FNV-1a, by words */
        if (is_same && g != bits_of(want[i])) {
            printf("# %s: element %zu of %zu is %a, should be %a\n", what, i, n, (double)got[i],
                   (double)want[i]);
            is_same = false;
        }
    }
    return is_same;
}
