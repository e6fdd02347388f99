/* hash - SHA-256 and a fast table hash
 *
 * SHA-256 (FIPS 180-4) names model files and stands for API keys; GnuTLS computes it with the
 * processor's own instructions where there are any. A digest that GnuTLS refuses to make becomes
 * random bytes: equal to nothing that is stored, so whatever depends on it fails closed.
 *
 * hash_mix is for tables: eight bytes at a time are mixed in by a 64 x 64 -> 128 bit product whose
 * halves are folded together (the step of wyhash, Wang Yi 2019). One multiplication per eight bytes
 * spreads every bit over the word. Who knows the seed can choose keys that collide, so tables of
 * names from a file (model/gguf.c, model/tok.c) take a random one; nobody walks them in the order
 * of their slots.
 *
 * Rejected: a SHA-256 of our own (slower without the instructions, and one more thing to prove).
 *
 * Next: base/js.c. */
#include "base/hash.h"

#include "base/mem.h"
#include "base/os.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>

struct hash_sha256 {
    gnutls_hash_hd_t state;
    bool is_failed;
};

/* In place of a digest that could not be made (GnuTLS refuses to work after a failed self-test).
 * Random bytes equal nothing that is stored: a model does not verify, a key does not open. */
static void no_digest(unsigned char raw[32])
{
    os_random(raw, 32);
}

enum err hash_sha256_open(struct hash_sha256 **out)
{
    struct hash_sha256 *h = mem_alloc(sizeof *h);
    REQUIRE(h != NULL, ERR_MEMORY, "no memory for a digest");
    const int rc = gnutls_hash_init(&h->state, GNUTLS_DIG_SHA256);
    if (rc < 0) {
        mem_free(h);
        return err_set(ERR_FAILED, "SHA-256 is not available: %s", gnutls_strerror(rc));
    }
    *out = h;
    return ERR_OK;
}

void hash_sha256_add(struct hash_sha256 *h, const void *bytes, size_t n)
{
    h->is_failed |= gnutls_hash(h->state, bytes, n) < 0;
}

static void to_hex(const unsigned char raw[32], char hex[65])
{
    for (int i = 0; i < 32; i++) {
        hex[2 * i] = "0123456789abcdef"[raw[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[raw[i] & 15];
    }
    hex[64] = '\0';
}

void hash_sha256_close(struct hash_sha256 *h, char hex[65])
{
    if (h == NULL) {
        return;
    }
    unsigned char raw[32];
    gnutls_hash_deinit(h->state, raw);
    if (h->is_failed) {
        no_digest(raw);
    }
    mem_free(h);
    if (hex != NULL) {
        to_hex(raw, hex);
    }
}

void hash_sha256_of(const void *bytes, size_t n, char hex[65])
{
    unsigned char raw[32];
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, n, raw) < 0) {
        no_digest(raw);
    }
    to_hex(raw, hex);
}

/* 64 x 64 -> 128 bit product, halves folded together. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    const wide p = (wide)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

uint64_t hash_mix(const void *bytes, size_t n, uint64_t seed)
{
    const unsigned char *p = bytes;
    uint64_t h = seed ^ 0x9E3779B97F4A7C15u ^ (uint64_t)n;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w = 0;
        for (int i = 7; i >= 0; i--) {
            w = w << 8 | p[i]; /* little-endian on every machine; compilers make one load of it */
        }
        h = fold(h ^ w, 0xD6E8FEB86659FD93u);
    }
    uint64_t w = 0;
    for (size_t i = n; i-- > 0;) {
        w = w << 8 | p[i];
    }
    return fold(h ^ w, 0xA0761D6478BD642Fu) ^ h;
}

int hash_same(const void *a, const void *b, size_t n)
{
    return gnutls_memcmp(a, b, n) == 0;
}
