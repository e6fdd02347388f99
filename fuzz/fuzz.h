/* fuzz - what the fuzzers share (header only)
 *
 * Each fuzz_NAME.c has one LLVMFuzzerTestOneInput and is linked either with libFuzzer or with
 * driver.c, which runs stored inputs. A finding is a crash, a sanitizer's report, a leak, too much
 * processor time, or a demand that does not hold. */
#ifndef HEARTH_FUZZ_H
#define HEARTH_FUZZ_H

#include "base/err.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* Processor time an input may take, with sanitizers on a slow machine; what is right takes far
 * less. */
#define FUZZ_SECONDS_MAX 10.0

static inline void demand(bool is_true, const char *what)
{
    if (!is_true) {
        fprintf(stderr, "demand: %s (last error: %s)\n", what, err_text());
        abort();
    }
}

/* A failure has a text of one line, and one of the codes of err.h. */
static inline void demand_error(enum err e)
{
    demand(e != ERR_OK, "a failure's code");
    demand(err_text()[0] != '\0', "a failure's text");
    for (const char *p = err_text(); *p != '\0'; p++) {
        demand((unsigned char)*p >= 0x20, "a failure's text in one line");
    }
}

struct fuzz_run {
    size_t used_bytes;
    clock_t begin;
};

static inline struct fuzz_run fuzz_begin(void)
{
    return (struct fuzz_run){ mem_used_bytes(), clock() };
}

static inline void fuzz_end(struct fuzz_run r)
{
    demand(mem_used_bytes() == r.used_bytes, "no leak");
    demand((double)(clock() - r.begin) / CLOCKS_PER_SEC < FUZZ_SECONDS_MAX,
           "little processor time");
}

#define FUZZ_PATH_MAX 64

/* The bytes as a file without a name, and a path that opens it until the descriptor is closed. */
static inline int fuzz_file(const uint8_t *bytes, size_t n, char path[FUZZ_PATH_MAX])
{
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    demand(fd >= 0 && write(fd, bytes, n) == (ssize_t)n && fchmod(fd, 0600) == 0, "memfd");
    snprintf(path, FUZZ_PATH_MAX, "/proc/self/fd/%d", fd);
    return fd;
}

#endif
