/* jinja_mem - memory and budgets of one template run
 *
 * A chat template is a program from a model file, that is, from a stranger. What keeps it harmless
 * is not a list of forbidden things but four numbers: bytes, steps, depth, and the size of the
 * output (the last one is kept by jinja_exec.c). This file owns the first three.
 *
 * Memory is a chain of blocks that starts small, grows up to 1 MB and is given back whole. A run
 * of a real template takes a few hundred kilobytes; nothing it makes needs to be freed earlier, and
 * nothing can be freed twice. The price of a piece of memory includes steps in proportion to its
 * size, so a loop that only copies text runs out of steps as well.
 *
 * jmem_extend is what makes building a long text cheap: the newest piece grows in place as long as
 * nothing else was taken since.
 *
 * Rejected: a counting allocator with free per value (reference counts cost more than the memory),
 * and a signal or timer as the limit of time (not repeatable; steps are the same on every machine).
 *
 * Next: jinja_str.c, then jinja_lex.c. */
#include "model/jinja_mem.h"

#include "base/mem.h"

#define BLOCK_LEAST ((size_t)16 << 10) /* bytes */
#define BLOCK_MOST  ((size_t)1 << 20)
#define ALIGN_BYTES 8u

struct jmem_block {
    struct jmem_block *before;
    size_t n_bytes;
    _Alignas(ALIGN_BYTES) char data[];
};

void jmem_init(struct jmem *m, size_t bytes_max, uint64_t steps_max)
{
    *m = (struct jmem){ .bytes_max = bytes_max, .steps_max = steps_max };
}

void jmem_release(struct jmem *m)
{
    struct jmem_block *b = m->blocks;
    while (b != NULL) {
        struct jmem_block *before = b->before;
        mem_free(b);
        b = before;
    }
    *m = (struct jmem){ 0 };
}

/* Notes that bytes_max is too little for n_bytes more. */
static void *full(struct jmem *m, size_t n_bytes)
{
    const size_t all = n_bytes < SIZE_MAX - m->used_bytes ? m->used_bytes + n_bytes : SIZE_MAX;
    m->is_full = true;
    JMEM_FAIL(m, ERR_LIMIT, "%zu MB of memory are wanted, %zu MB are allowed", (all >> 20) + 1,
              m->bytes_max >> 20);
    return NULL;
}

/* A block is an eighth of those before, so that no more than that lies idle; where bytes_max or the
 * system leave less, a smaller one does. */
static bool add_block(struct jmem *m, size_t need)
{
    const size_t left = m->bytes_max - m->used_bytes;
    if (need > left) {
        return full(m, need) != NULL;
    }
    size_t n = m->used_bytes / 8;
    n = n < BLOCK_LEAST ? BLOCK_LEAST : n > BLOCK_MOST ? BLOCK_MOST : n;
    n = n > left ? left : n;
    n = n < need ? need : n;
    struct jmem_block *b = mem_alloc(sizeof(*b) + n);
    while (b == NULL && n > need) {
        n = n / 2 < need ? need : n / 2;
        b = mem_alloc(sizeof(*b) + n);
    }
    if (b == NULL) {
        JMEM_FAIL(m, ERR_MEMORY, "no memory for %zu bytes", n);
        return false;
    }
    b->before = m->blocks;
    b->n_bytes = n;
    m->blocks = b;
    m->at = b->data;
    m->left = n;
    m->used_bytes += n;
    return true;
}

void *jmem_take(struct jmem *m, size_t n_bytes)
{
    if (m->err != ERR_OK) {
        return NULL;
    }
    if (n_bytes > m->bytes_max) {
        return full(m, n_bytes);
    }
    m->err = jmem_step(m, 1 + n_bytes / JMEM_STEP_BYTES);
    if (m->err != ERR_OK) {
        return NULL;
    }
    size_t pad = (size_t)(-(uintptr_t)m->at) & (ALIGN_BYTES - 1);
    if (m->left < pad || m->left - pad < n_bytes || m->at == NULL) {
        if (!add_block(m, n_bytes == 0 ? 1 : n_bytes)) {
            return NULL;
        }
        pad = 0;
    }
    char *p = m->at + pad;
    m->at = p + n_bytes;
    m->left -= pad + n_bytes;
    return p;
}

void *jmem_take_array(struct jmem *m, size_t n, size_t each_bytes)
{
    size_t n_bytes = 0;
    if (!mem_mul(n, each_bytes, &n_bytes)) {
        return full(m, SIZE_MAX);
    }
    return jmem_take(m, n_bytes);
}

bool jmem_extend(struct jmem *m, const void *p, size_t n_old, size_t n_new)
{
    if ((const char *)p + n_old != m->at || n_new < n_old || n_new - n_old > m->left) {
        return false;
    }
    m->at += n_new - n_old;
    m->left -= n_new - n_old;
    return true;
}

void jmem_cut(struct jmem *m, const void *p, size_t n_old, size_t n_new)
{
    if (p != NULL && (const char *)p + n_old == m->at && n_new <= n_old) {
        m->at -= n_old - n_new;
        m->left += n_old - n_new;
    }
}

enum err jmem_step(struct jmem *m, uint64_t n)
{
    if (m->err != ERR_OK) {
        return m->err;
    }
    if (n > m->steps_max - m->steps) {
        return JMEM_FAIL(m, ERR_LIMIT, "still running after %llu steps, the most that is allowed",
                         (unsigned long long)m->steps_max);
    }
    m->steps += n;
    return ERR_OK;
}

enum err jmem_walk(struct jmem *m, size_t n_bytes)
{
    return jmem_step(m, n_bytes / JMEM_STEP_BYTES + 1);
}

enum err jmem_enter(struct jmem *m)
{
    if (m->depth >= JMEM_DEPTH_MAX) {
        return JMEM_FAIL(m, ERR_LIMIT, "nested deeper than %d levels", JMEM_DEPTH_MAX);
    }
    TRY(jmem_step(m, 1));
    m->depth++;
    return ERR_OK;
}

void jmem_leave(struct jmem *m)
{
    m->depth--;
}
