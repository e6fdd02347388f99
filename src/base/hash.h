/* hash - SHA-256 and a fast table hash (base/hash.c; the only file that knows GnuTLS' hashes) */
#ifndef HEARTH_HASH_H
#define HEARTH_HASH_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct hash_sha256; /* a running digest */
enum err hash_sha256_open(struct hash_sha256 **out) MUST_USE;
void hash_sha256_add(struct hash_sha256 *h, const void *bytes, size_t n);
void hash_sha256_close(struct hash_sha256 *h,
                       char hex[65]); /* lower-case hex and 0; hex may be NULL */
void hash_sha256_of(const void *bytes, size_t n, char hex[65]);

/* Not for secrets: 64-bit mix of n bytes, the same on every machine. */
uint64_t hash_mix(const void *bytes, size_t n, uint64_t seed);
/* Compares in constant time. */
int hash_same(const void *a, const void *b, size_t n);

#endif
