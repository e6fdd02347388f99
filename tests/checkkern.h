/* checkkern - every entry of a kernel table against the scalar one (tests/checkkern*.c)
 *
 * Each checkkern_* feeds generated data (ordinary numbers, wide ranges, zeros of both signs,
 * subnormals, infinities, NaN) to the entries of both tables and compares bits; a NaN equals any
 * NaN. Buffers end at a page that may not be touched, so reading or writing beyond a length ends
 * the program. Returns the number of calls that differ, each described on stdout as a TAP comment.
 *
 * *hash takes in every result of `t`, so that it can be compared with a stored one on machines that
 * lack an instruction set. Both tables may be the scalar one. */
#ifndef HEARTH_CHECKKERN_H
#define HEARTH_CHECKKERN_H

#include "kern/kern.h"

int checkkern_vec(const struct kern_table *ref, const struct kern_table *t, uint64_t *hash);
int checkkern_attn(const struct kern_table *ref, const struct kern_table *t, uint64_t *hash);
int checkkern_gemm(const struct kern_table *ref, const struct kern_table *t, enum quant_type type,
                   uint64_t *hash);

/* --- what the checks share (checkkern_data.c, _gemm.c) --------------------------------------- */

/* Kinds of generated numbers. */
enum checkkern_kind {
    CHECKKERN_PLAIN,    /* about -3 .. 3 */
    CHECKKERN_WIDE,     /* all exponents that do not overflow when squared and added */
    CHECKKERN_TINY,     /* subnormals and zeros of both signs among small numbers */
    CHECKKERN_SPECIAL,  /* infinities, NaN and the largest numbers among ordinary ones */
    CHECKKERN_OUTLIERS, /* plain, but for one in 50 that is up to 500 times greater */
    CHECKKERN_KINDS,
};

struct checkkern_rand {
    uint64_t state;
};
uint32_t checkkern_bits(struct checkkern_rand *r);
int32_t checkkern_below(struct checkkern_rand *r, int32_t n); /* 0 .. n - 1 */
float checkkern_float(struct checkkern_rand *r, enum checkkern_kind kind);
/* n weights of a type from random bits; scales have ordinary values unless is_wild. */
void checkkern_rows(struct checkkern_rand *r, enum quant_type type, uint8_t *to, size_t n,
                    bool is_wild);

/* Memory whose last byte is followed by a page without access. Never NULL: gives up the program. */
struct checkkern_buf {
    void *base;
    size_t mapped;
    size_t bytes; /* usable now */
};
void checkkern_open(struct checkkern_buf *b, size_t bytes_max);
void checkkern_close(struct checkkern_buf *b);
/* The last `bytes` bytes before the guard. */
void *checkkern_end(struct checkkern_buf *b, size_t bytes);
/* n floats of a kind before the guard. */
float *checkkern_floats(struct checkkern_buf *b, struct checkkern_rand *r, enum checkkern_kind kind,
                        int32_t n);

/* Equal bits, or both NaN, for all n; takes `got` into the hash (NaN as one value). Where they
 * differ, prints `what` and the first place. */
bool checkkern_same(const char *what, const float *want, const float *got, size_t n,
                    uint64_t *hash);

#endif
