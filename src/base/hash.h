/* hash - SHA-256 and a fast table hash (base/hash.c; the only file that knows GnuTLS' hashes)
 *
 * Any thread; a running digest belongs to one. Digests cannot fail once opened: one that could not
 * be made is random, so that it equals nothing. */
#ifndef HEARTH_HASH_H
#define HEARTH_HASH_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct hash_sha256; /* a running digest */
/* Gives a digest of nothing so far. ERR_MEMORY, ERR_FAILED (GnuTLS has none). */
enum err hash_sha256_open(struct hash_sha256 **out) MUST_USE;
void hash_sha256_add(struct hash_sha256 *h, const void *bytes, size_t n);
/* Ends it: lower-case hex and 0. hex NULL: only released. Accepts NULL (hex stays as it is
 * then). */
void hash_sha256_close(struct hash_sha256 *h, char hex[65]);
/* The same of n bytes at once. */
void hash_sha256_of(const void *bytes, size_t n, char hex[65]);

/* Not for secrets: 64-bit mix of n bytes, the same on every machine. */
uint64_t hash_mix(const void *bytes, size_t n, uint64_t seed);
/* 1 when n bytes are equal, in a time that does not depend on them: for secrets. */
int hash_same(const void *a, const void *b, size_t n);

#endif
