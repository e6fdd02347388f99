/* keys - the API keys that may use this service (serve/keys.c)
 *
 * Only digests are kept. Owner: the loop thread.
 * KY-1  the time of keys_check depends on the number of keys, not on their content. */
#ifndef HEARTH_KEYS_H
#define HEARTH_KEYS_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define KEYS_MAX       1024
#define KEYS_BYTES_MIN 8
#define KEYS_BYTES_MAX 512

struct keys;

/* Reads a file: one key per line; blank lines and lines that begin with # are skipped; a line
 * "sha256:HEX" is the digest of a key. ERR_NOT_FOUND, ERR_IO, ERR_USAGE (names the line). */
enum err keys_open(struct keys **out, const char *path) MUST_USE;
void keys_close(struct keys *k);         /* accepts NULL */
size_t keys_count(const struct keys *k); /* NULL counts as 0 */
bool keys_check(const struct keys *k, struct view presented);

#endif
