/* probe_dequant - the `dequant` probe: blocks of one element type to float32
 *
 * Reads a file of raw blocks, decodes a few hundred at a time with the decoder that every other part uses,
 * and writes little-endian floats. A file that ends within a block is an error.
 *
 * Next: num/quant.c. */
#include "cmd/probe_dequant.h"

#include "base/err.h"
#include "base/os.h"
#include "num/quant.h"

#include <stdio.h>

#define BLOCKS_AT_ONCE 64
#define BLOCK_MAX 256
#define BYTES_MAX 512

static enum err decode_file(const struct quant_info *q, const char *in_path, FILE *out)
{
    uint8_t raw[BLOCKS_AT_ONCE * BYTES_MAX];
    float values[BLOCKS_AT_ONCE * BLOCK_MAX];
    struct os_file in;
    TRY(os_open(&in, in_path));
    enum err e = in.size % q->bytes == 0
                     ? ERR_OK
                     : err_set(ERR_INTEGRITY, "%s: %llu bytes are no whole number of %s blocks (%u bytes each)", in_path,
                               (unsigned long long)in.size, q->name, q->bytes);
    for (uint64_t at = 0; at < in.size && e == ERR_OK;) {
        const uint64_t left = (in.size - at) / q->bytes;
        const size_t n = left < BLOCKS_AT_ONCE ? (size_t)left : BLOCKS_AT_ONCE;
        e = os_read_at(&in, raw, n * q->bytes, at);
        if (e == ERR_OK) {
            q->decode(raw, values, n * q->block);
            if (fwrite(values, sizeof values[0], n * q->block, out) != n * q->block) {
                e = err_set(ERR_IO, "cannot write");
            }
        }
        at += n * q->bytes;
    }
    os_close(&in);
    return e;
}

static enum err run(const char *type, const char *in_path, const char *out_path)
{
    enum quant_type t;
    REQUIRE(quant_parse(type, &t) && quant_get(t)->decode != NULL, ERR_USAGE, "element type \"%s\" is unknown", type);
    FILE *out = fopen(out_path, "wb");
    REQUIRE(out != NULL, ERR_IO, "%s: cannot be written", out_path);
    enum err e = decode_file(quant_get(t), in_path, out);
    if (fclose(out) != 0 && e == ERR_OK) {
        e = err_set(ERR_IO, "%s: cannot be written", out_path);
    }
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
