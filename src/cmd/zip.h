/* zip - members of a zip archive, read with bounds (cmd/zip.c; the only file that knows zlib)
 *
 * Stored and deflated members of archives below 4 GB, as Python wheels are.
 * ZI-1  no member gives more bytes than its entry says, and its CRC-32 was checked at its end. */
#ifndef HEARTH_ZIP_H
#define HEARTH_ZIP_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct zip;

/* Opens the archive and reads its directory. ERR_INTEGRITY names the byte. */
enum err zip_open(struct zip **out, const char *path) MUST_USE;
void zip_close(struct zip *z); /* accepts NULL */

/* Index of the member called `name`, or SIZE_MAX; *bytes (may be NULL) gets its unpacked size. */
size_t zip_find(const struct zip *z, const char *name, uint64_t *bytes);

/* Gets the unpacked bytes piece by piece; a failure ends the reading and is returned. */
typedef enum err (*zip_sink_fn)(void *arg, const void *bytes, size_t n);
enum err zip_read(const struct zip *z, size_t i, zip_sink_fn sink, void *arg) MUST_USE;

#endif
