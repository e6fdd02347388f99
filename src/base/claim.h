/* claim - memory that hearth's processes have planned and not taken yet (base/claim.c)
 *
 * Whoever loads a model says in a file how much it will take, and holds a lock on it.
 * CL-1  a claim counts as long as its process lives: the kernel gives the lock back, also of one
 *       that was killed. */
#ifndef HEARTH_CLAIM_H
#define HEARTH_CLAIM_H

#include "base/cgroup.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define CLAIM_PATH_BYTES 512

struct claim {
    int fd; /* holds the lock */
    bool is_open;
    char path[CLAIM_PATH_BYTES];
};

/* The file whose pages a plan maps, as a packed image's: processes that map the same one share
 * them. All 0: none. */
struct claim_image {
    uint64_t device;
    uint64_t inode;
    uint64_t bytes; /* of the plan */
};
/* n bytes of the file with this name; none when it is not there. */
void claim_image_of(struct claim_image *out, const char *path, uint64_t bytes);

/* This process will hold `bytes` in all, those of an image with them, if there is one (else NULL).
 * folder NULL: that of this user, made when it is not there. ERR_IO or ERR_POLICY (the folder is a
 * link, or another's); nothing is claimed then. */
enum err claim_open(struct claim *c, const char *folder, uint64_t bytes,
                    const struct claim_image *image) MUST_USE;
void claim_close(struct claim *c); /* accepts a zeroed object */

#define CLAIM_OTHERS_MAX 64 /* processes that count */
/* What other processes planned. */
struct claim_list {
    uint64_t bytes;                            /* and do not hold yet, all of them */
    struct cgroup_claim one[CLAIM_OTHERS_MAX]; /* those that can be seen here */
    int n;
};
/* `root` stands before /proc, "" for this box. A folder that is not there, or cannot be trusted,
 * holds no claims. image: that of this process's plan, whose pages are nobody's claim; or NULL. */
void claim_others(const char *root, const char *folder, const struct claim_image *image,
                  struct claim_list *out);

#endif
