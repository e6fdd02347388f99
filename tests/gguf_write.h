/* gguf_write - small model files in memory, for tests and fuzzers (header only)
 *
 * Version 3 (spec: see model/gguf.h). A key is added by one call; a name without a dot is one of
 * the tokenizer's. Whoever has tensors appends them and counts them. What was written is then opened
 * through an unnamed file, as the reader takes a path.
 */
#ifndef HEARTH_TESTS_GGUF_WRITE_H
#define HEARTH_TESTS_GGUF_WRITE_H

#include "base/buf.h"
#include "model/gguf.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct gguf_write {
    struct buf out; /* whole file */
    uint64_t n_tensor, n_key;
};

static inline void gguf_write_begin(struct gguf_write *w)
{
    const uint32_t head[6] = { 0x46554747, 3 }; /* magic, version, tensors, keys */
    buf_init(&w->out, (size_t)64 << 20);
    buf_add(&w->out, head, sizeof head);
    w->n_tensor = w->n_key = 0;
}

static inline void gguf_write_text(struct gguf_write *w, struct view text)
{
    const uint64_t n = text.n;
    buf_add(&w->out, &n, sizeof n);
    buf_add_view(&w->out, text);
}

static inline void gguf_write_key(struct gguf_write *w, const char *name, uint32_t type)
{
    char key[96];
    snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
    gguf_write_text(w, view_of(strchr(name, '.') != NULL ? name : key));
    buf_add(&w->out, &type, sizeof type);
    w->n_key++;
}

static inline void gguf_write_string(struct gguf_write *w, const char *name, struct view text)
{
    gguf_write_key(w, name, GGUF_STRING);
    gguf_write_text(w, text);
}

static inline void gguf_write_u32(struct gguf_write *w, const char *name, uint32_t v)
{
    gguf_write_key(w, name, GGUF_U32);
    buf_add(&w->out, &v, sizeof v);
}

static inline void gguf_write_bool(struct gguf_write *w, const char *name, bool v)
{
    gguf_write_key(w, name, GGUF_BOOL);
    buf_add_char(&w->out, v ? 1 : 0);
}

/* The head of an array; its elements follow. */
static inline void gguf_write_array(struct gguf_write *w, const char *name, uint32_t type,
                                    uint64_t n)
{
    gguf_write_key(w, name, GGUF_ARRAY);
    buf_add(&w->out, &type, sizeof type);
    buf_add(&w->out, &n, sizeof n);
}

/* Ends what was written: an unnamed file, and a path that leads to it until the descriptor is closed;
 * below 0: there is none. */
static inline int gguf_write_end(struct gguf_write *w, char path[64])
{
    memcpy(w->out.p + 8, &w->n_tensor, sizeof w->n_tensor);
    memcpy(w->out.p + 16, &w->n_key, sizeof w->n_key);
    int fd = memfd_create("model", MFD_CLOEXEC);
    if (fd >= 0 && write(fd, w->out.p, w->out.n) != (ssize_t)w->out.n) {
        close(fd);
        fd = -1;
    }
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    buf_release(&w->out);
    return fd;
}

/* Opens what was written and ends it; enough for whoever reads no tensors. */
static inline enum err gguf_write_open(struct gguf_write *w, struct gguf **g)
{
    char path[64];
    const int fd = gguf_write_end(w, path);
    const enum err e = fd >= 0 ? gguf_open(g, path) : err_set(ERR_IO, "memfd");
    if (fd >= 0) {
        close(fd);
    }
    return e;
}

#endif
