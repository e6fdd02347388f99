/* claim - memory that hearth's processes have planned and not taken yet (base/claim.c)
 *
 * Whoever loads a model says in a file how much it will take, and holds a lock on it.
 * CL-1  a claim counts as long as its process lives: the kernel gives the lock back, also of one
 *       that was killed. */
#ifndef HEARTH_CLAIM_H
#define HEARTH_CLAIM_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define CLAIM_PATH_BYTES 512

struct claim {
    int fd; /* holds the lock */
    bool is_open;
    char path[CLAIM_PATH_BYTES];
};

/* This process will hold `bytes` in all. folder NULL: that of this user, made when it is not there.
 * ERR_IO or ERR_POLICY (the folder is a link, or another's); nothing is claimed then. */
enum err claim_open(struct claim *c, const char *folder, uint64_t bytes) MUST_USE;
void claim_close(struct claim *c); /* accepts a zeroed object */

/* What other processes planned and do not hold yet. */
struct claim_sum {
    uint64_t bytes;       /* of all */
    uint64_t group_bytes; /* of these, of processes in the cgroups of this one */
};
/* `root` stands before /proc, "" for this box. A folder that is not there, or cannot be trusted,
 * holds no claims. */
void claim_others(const char *root, const char *folder, struct claim_sum *out);

#endif
