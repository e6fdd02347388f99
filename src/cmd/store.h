/* store - the models on this box: blobs named by their SHA-256 and an index (cmd/store.c,
 * cmd/store_blob.c)
 *
 *   DATA/hearth.db                  the index: names, digests, sizes, sources, licences
 *   DATA/models/blobs/sha256-HEX    files, read-only, one copy whatever they are called
 *   DATA/models/sets/HEX/           links with the names that split models need
 *   DATA/models/partial/            what is being fetched
 *
 * DATA is the XDG data folder (os_dir). Owner: one thread.
 * ST-1  a file in blobs/ has the digest of its name: it was hashed while it was written, synced and
 *       then renamed. Only a fault of the disk can change that, and store_hash finds it.
 * ST-2  a model in the index has all its blobs, and they opened as a model.
 * ST-3  a blob without a model exists during a pull or rm, or until the next one when it was killed
 *       (partial/orphan-HEX names it), or after a power cut or the loss of the index. */
#ifndef HEARTH_STORE_H
#define HEARTH_STORE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/os.h"
#include "cmd/progress.h"

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define STORE_NAME_MAX   128
#define STORE_PART_MAX   512
#define STORE_TREE_DEPTH 8      /* folders below the partial folder */
#define STORE_NEW        "new-" /* begins the name of a blob that is being written */

struct store;

struct store_file {
    char digest[65];
    uint64_t bytes;
    char title[256]; /* what the file was called */
};

struct store_model {
    char name[STORE_NAME_MAX];
    char source[OS_PATH_BYTES]; /* "pypi:...", "https://...", "file:///..." */
    char licence[160];          /* "unknown" when nobody said */
    int64_t time_s;             /* when it came, seconds since 1970 */
    uint64_t bytes;             /* of all files, without the image */
    struct buf provenance;      /* JSON object, one line; owns */
    struct store_file *files;   /* [n_blob], owns; parts in order, then the packed image */
    size_t n_file;
    size_t n_blob; /* n_file, or one more with an image, titled GENERATION.LAYOUT (weights.h) */
};
void store_model_clear(struct store_model *m); /* accepts a zeroed object */

/* Path of a model: `model` itself when such a file exists, else the file of that name in the store
 * ("smollm2:135m"; "smollm2" when only one model begins so); with has_use its packed image when
 * store_has_image, and one line to standard error when not. Added to *path. ERR_NOT_FOUND says what
 * to do. */
enum err store_resolve(const char *model, bool has_use, struct buf *path) MUST_USE;
/* The same of a model that was found: its GGUF file, or part 1 of it. */
enum err store_path(struct store *st, const struct store_model *m, struct buf *path) MUST_USE;
bool store_is_file(const char *model); /* whether such a file exists; a folder is none */

/* Makes the folders and the index; where nothing can be written, a store to read, perhaps empty. */
enum err store_open(struct store **out) MUST_USE;
void store_close(struct store *st); /* accepts NULL */
/* Keeps other processes from changing the store; ERR_BUSY when one does. Until store_close. Clears
 * away what a pull or rm left that was killed, and downloads that nobody went on with for a week.
 */
enum err store_lock(struct store *st) MUST_USE;
/* ERR_IO, with what to do, unless pull can write all that it writes. */
enum err store_check(const struct store *st) MUST_USE;
bool store_is_busy(const struct store *st); /* whether another process has that lock */
/* Halves of downloads, which wait to be resumed, and what killed processes were writing. */
size_t store_unfinished(const struct store *st, uint64_t *bytes);
const char *store_partial(const struct store *st); /* the folder for unfinished files */
void store_remove_tree(const char *folder);        /* a folder of ours with all that is in it */
/* Bytes of all files below a folder; folders deeper than STORE_TREE_DEPTH are not looked at. */
uint64_t store_tree_bytes(const char *folder);

/* The entries of a folder, without "." and ".." and what cannot be looked at. A folder that cannot
 * be opened has none. Go on until false: that closes it. */
struct store_walk {
    const char *folder; /* borrows */
    DIR *dir;
    char path[OS_PATH_BYTES]; /* of the entry */
    struct view name;         /* valid until the next one */
    struct stat s;            /* of the entry itself, links are not followed */
};
void store_walk_open(struct store_walk *w, const char *folder);
bool store_walk_next(struct store_walk *w);

/* --- the index */

/* ERR_NOT_FOUND when there is no such model. m must be zeroed; clear it. */
enum err store_find(struct store *st, const char *name, struct store_model *m) MUST_USE;
/* The first model behind `name` in the order of names; *found is false behind the last. Walking so,
 * a model that goes meanwhile hides no other one. */
enum err store_after(struct store *st, const char *name, struct store_model *m,
                     bool *found) MUST_USE;
/* ERR_USAGE when the model's name is taken: by a known model with other contents, or by one that is
 * here with other files from another source. An empty digest is other contents. */
enum err store_check_name(struct store *st, const struct store_model *m) MUST_USE;
/* Whether its packed image is there and begins as one that this program takes; *why (static) when
 * not, NULL when it has none. */
bool store_has_image(const struct store *st, const struct store_model *m, const char **why);
/* Packed images of all models that have this file go: they may have been made of its damage. Said
 * on standard error. */
enum err store_drop_images(struct store *st, const char *digest) MUST_USE;
/* Adds the model, or puts it in the place of one of that name. Its blobs must be there and open as
 * a model and the name must be free (else they go again); an empty licence is filled in from the
 * file. The image of the same files is kept. Blobs that no model has any more are removed. */
enum err store_put(struct store *st, struct store_model *m) MUST_USE;
/* name: a model's, or "sha256-HEX" for a blob that no model has. */
enum err store_remove(struct store *st, const char *name, uint64_t *freed_bytes) MUST_USE;
/* Every blob that no model has: those of a pull that goes on, or of an index that was lost. */
typedef void store_unnamed_fn(void *arg, const struct store_file *f);
enum err store_unnamed(struct store *st, store_unnamed_fn *fn, void *arg) MUST_USE;
/* Letters, digits and . _ - : only, at most 100, beginning with a letter or digit. */
bool store_name_is_good(const char *name);

/* --- blobs */

bool store_has_blob(const struct store *st, const struct store_file *f); /* there, of that size */
void store_blob_path(const struct store *st, const char *digest, struct buf *out);
/* Notes that a file may soon be without a model: before the step. A process that is killed there
 * leaves it to whoever locks the store next (ST-3). */
void store_note_orphan(const struct store *st, const char *digest);
/* Reads a file to its end; hex gets the SHA-256. Progress may be NULL. */
enum err store_hash(const char *path, struct progress *p, char hex[65]) MUST_USE;
/* The same for a blob, with a bar that is called `shown`. */
enum err store_hash_blob(const struct store *st, const struct store_file *f, const char *shown,
                         char hex[65]) MUST_USE;
/* Whether a blob is there and has the digest of its name; reads it. */
bool store_is_sound(const struct store *st, const struct store_file *f);

/* A blob being written. */
struct store_writer {
    struct store *st; /* borrows */
    int fd;           /* -1 when closed */
    bool is_image; /* made of another blob: whether it takes a damaged one's place is no matter */
    struct hash_sha256 *hash;
    uint64_t n;
    char path[OS_PATH_BYTES];
};
/* What a folder's disk has left for this user; false when its file system does not say. */
bool store_room(const char *folder, uint64_t *bytes);
/* Begins a blob of about `bytes`; ERR_IO when the disk has no room for it. */
enum err store_begin(struct store_writer *w, struct store *st, uint64_t bytes) MUST_USE;
enum err store_write(struct store_writer *w, const void *bytes, size_t n) MUST_USE;
/* Syncs, checks, renames. f gets digest and size; with want (may be NULL) another digest is
 * ERR_INTEGRITY and nothing is kept. f->title names the file in errors. */
enum err store_finish(struct store_writer *w, const char *want, struct store_file *f) MUST_USE;
void store_drop(struct store_writer *w); /* forgets it; accepts a finished or zeroed one */
/* The same for a finished file in the partial folder, which is moved. */
enum err store_adopt(struct store *st, const char *path, const char *want, struct progress *p,
                     struct store_file *f) MUST_USE;

#endif
