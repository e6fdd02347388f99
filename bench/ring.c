/* ring - speed of reading a file past the page cache: base/ring.c beside one read after the other
 *
 *     build/bench/ring FILE [MIB [ROUNDS]]   MIB of FILE (1024) by each way, in turns
 *
 * The ways: one pread of 16 MiB after the other, which is what `dd iflag=direct bs=16M` does, into
 * pages of 2 MiB, which dd's are not; a ring by io_uring; a ring by threads. A ring is used as
 * someone does who streams layers: LAYER bytes are in flight while the LAYER before is waited for.
 * The last figures are of an owner who computes: it starts LAYER bytes, counts for as long as they
 * should take, and then waits; a queue that moves on without it leaves nearly nothing to wait for.
 *
 * Each way reads the next part of the file, so that no cache between here and the disk has seen it
 * lately; the whole file should be larger than such caches. Nothing is written.
 *
 * Next: docs/decisions/0010-streaming-reads.md. */
#include "base/mem.h"
#include "base/os.h"
#include "base/ring_kind.h"

#include <stdio.h>
#include <stdlib.h>

#define LAYER    ((size_t)256 << 20)
#define ONE_READ ((size_t)16 << 20)

struct bench {
    const char *path;
    struct arena memory; /* 2 LAYER */
    uint64_t n_file;     /* whole layers in it */
    uint64_t i_next;     /* layer */
};

static bool is_well(enum err e)
{
    if (e != ERR_OK) {
        fprintf(stderr, "ring: %s\n", err_text());
    }
    return e == ERR_OK;
}

static uint64_t next_place(struct bench *b)
{
    return b->i_next++ % b->n_file * LAYER;
}

static enum err read_plain(struct bench *b, uint64_t n_layer)
{
    struct os_file f;
    TRY(os_open_direct(&f, b->path));
    enum err e = ERR_OK;
    for (uint64_t i = 0; i < n_layer && e == ERR_OK; i++) {
        const uint64_t at = next_place(b);
        for (size_t k = 0; k < LAYER && e == ERR_OK; k += ONE_READ) {
            e = os_read_at(&f, b->memory.base, ONE_READ, at + k);
        }
    }
    os_close(&f);
    return e;
}

static enum err stream(struct bench *b, struct ring *r, uint64_t n_layer)
{
    uint64_t last = 0;
    for (uint64_t i = 0; i < n_layer; i++) {
        uint64_t next = 0;
        TRY(ring_start(r, next_place(b), b->memory.base + i % 2 * LAYER, LAYER, &next));
        TRY(ring_wait(r, last));
        last = next;
    }
    return ring_wait(r, last);
}

/* Starts a layer, computes for us, waits. */
static enum err compute(struct bench *b, struct ring *r, uint64_t us)
{
    uint64_t ticket = 0;
    const uint64_t from_us = os_now_us();
    TRY(ring_start(r, next_place(b), b->memory.base, LAYER, &ticket));
    const uint64_t started_us = os_now_us();
    for (volatile uint64_t n = 0; os_now_us() - from_us < us;) {
        for (int i = 0; i < 100000; i++) {
            n = n + 1;
        }
    }
    const uint64_t waits_us = os_now_us();
    TRY(ring_wait(r, ticket));
    printf("    %.0f ms computed, %.1f before that to start %zu MiB, %.1f after that to wait\n",
           (double)us / 1e3, (double)(started_us - from_us) / 1e3, LAYER >> 20,
           (double)(os_now_us() - waits_us) / 1e3);
    return ERR_OK;
}

static void say(const char *how, uint64_t n_layer, uint64_t from_us)
{
    printf("%-28s %6.3f GB/s\n", how,
           (double)(n_layer * LAYER) / 1e3 / (double)(os_now_us() - from_us));
}

static enum err by_ring(struct bench *b, const struct ring_kind *kind, uint64_t n_layer)
{
    struct ring *r = NULL;
    TRY(ring_open_as(&r, b->path, kind, true));
    uint64_t from_us = os_now_us();
    enum err e = stream(b, r, n_layer);
    const uint64_t layer_us = (os_now_us() - from_us) / n_layer;
    if (e == ERR_OK) {
        say(ring_how(r), n_layer, from_us);
        e = compute(b, r, layer_us * 5 / 4);
    }
    ring_close(r);
    return e;
}

static enum err round_of_all(struct bench *b, uint64_t n_layer)
{
    const uint64_t from_us = os_now_us();
    TRY(read_plain(b, n_layer));
    say("one pread after the other", n_layer, from_us);
    if (ring_uring() != NULL) {
        TRY(by_ring(b, ring_uring(), n_layer));
    }
    return by_ring(b, ring_pread(), n_layer);
}

int main(int argc, char **argv)
{
    const unsigned long mib = argc > 2 ? strtoul(argv[2], NULL, 10) : 1024;
    const unsigned long n_round = argc > 3 ? strtoul(argv[3], NULL, 10) : 3;
    const uint64_t n_layer = mib / (LAYER >> 20);
    if (argc < 2 || argc > 4 || n_layer == 0 || n_round == 0) {
        fprintf(stderr, "usage: ring FILE [MIB, %zu at least [ROUNDS]]\n", LAYER >> 20);
        return 2;
    }
    struct bench b = { .path = argv[1] };
    struct os_file f;
    if (!is_well(os_open(&f, b.path))) {
        return 1;
    }
    b.n_file = f.size / LAYER;
    os_close(&f);
    if (b.n_file == 0) {
        fprintf(stderr, "ring: %s: it has less than %zu MiB\n", b.path, LAYER >> 20);
        return 1;
    }
    enum err e = arena_open(&b.memory, 2 * LAYER, true);
    for (unsigned long i = 0; i < n_round && e == ERR_OK; i++) {
        e = round_of_all(&b, n_layer);
    }
    arena_close(&b.memory);
    return is_well(e) ? 0 : 1;
}
