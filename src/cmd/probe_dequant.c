/* probe_dequant - the `dequant` probe: blocks of one element type to float32
 *
 * Reads a file of raw blocks in pieces of at most 32 KB, decodes each with the decoder that every
 * other part uses, and writes little-endian floats. A file that ends within a block is an error,
 * and so are the integer types, which hold no weights. The output is only created once the input is
 * known to be good; memory does not depend on the size of the file.
 *
 * The byte order is the machine's: like the rest of the program this is for little-endian ones.
 *
 * Next: num/quant.c. */
#include "cmd/probe_dequant.h"

#include "base/err.h"
#include "base/os.h"
#include "num/quant.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PIECE_BYTES  (32 * 1024)
#define PIECE_VALUES (32 * 1024)

static enum err decode_to(FILE *out, const struct os_file *in, const struct quant_info *q)
{
    uint8_t raw[PIECE_BYTES];
    float values[PIECE_VALUES];
    const uint64_t by_bytes = PIECE_BYTES / q->bytes;
    const uint64_t by_values = PIECE_VALUES / q->block;
    const uint64_t most = by_bytes < by_values ? by_bytes : by_values;
    for (uint64_t at = 0; at < in->size;) {
        const uint64_t left = (in->size - at) / q->bytes;
        const size_t n = (size_t)(left < most ? left : most);
        TRY(os_read_at(in, raw, n * q->bytes, at));
        q->decode(raw, values, n * q->block);
        REQUIRE(fwrite(values, sizeof values[0], n * q->block, out) == n * q->block, ERR_IO,
                "cannot write after %llu bytes of input; is the disk full?",
                (unsigned long long)at);
        at += n * q->bytes;
    }
    return ERR_OK;
}

static enum err decode_file(const struct os_file *in, const struct quant_info *q,
                            const char *in_path, const char *out_path)
{
    REQUIRE(in->size % q->bytes == 0, ERR_INTEGRITY,
            "%s: %llu bytes are no whole number of %s blocks of %u bytes; is --type right?",
            in_path, (unsigned long long)in->size, q->name, q->bytes);
    FILE *out = fopen(out_path, "wb");
    REQUIRE(out != NULL, ERR_IO, "%s: cannot be created: %s", out_path, strerror(errno));
    enum err e = decode_to(out, in, q);
    if (fclose(out) != 0 && e == ERR_OK) {
        e = err_set(ERR_IO, "%s: cannot be written: %s", out_path, strerror(errno));
    }
    return e;
}

static enum err run(const char *type, const char *in_path, const char *out_path)
{
    enum quant_type t;
    REQUIRE(quant_parse(type, &t) && quant_get(t)->decode != NULL, ERR_USAGE,
            "--type \"%s\" is no type of weights; F16, Q4_0 or Q4_K would be", type);
    struct os_file in;
    TRY(os_open(&in, in_path));
    const enum err e = decode_file(&in, quant_get(t), in_path, out_path);
    os_close(&in);
    return e;
}

int probe_dequant(const char *type, const char *in_path, const char *out_path)
{
    const enum err e = run(type, in_path, out_path);
    if (e != ERR_OK) {
        fprintf(stderr, "hearth: %s\n", err_text());
    }
    return (int)e;
}
