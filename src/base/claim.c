/* claim - memory that hearth's processes have planned and not taken yet
 *
 * Between the plan of a model and the last byte of its weights lie seconds or minutes, in which the
 * kernel still calls that memory available: a second process that plans then would take it again,
 * and both would meet the OOM killer. So each process that loads a model puts its plan into a file
 * of its own: "process, its namespace, bytes, its image's: bytes, device, inode". What counts is
 * the plan less what the process holds by now, so that a model that has been read counts next to
 * nothing.
 *
 * What it holds. The kernel's figures (VmRSS) have three parts. Memory of its own and shared memory
 * (RssAnon, RssShmem) is gone from what the kernel calls available: that is held. Pages of files
 * (RssFile) are page cache, which the kernel goes on calling available although a model that reads
 * them for every token cannot be without. So a mapped image stays claimed as long as its process
 * lives; else a second model would be promised the same pages, and both would wait for the disk. In
 * a cgroup some of them are in the use: cgroup.c tells which.
 *
 * But pages are shared. Of processes that map the same image, one has it in its claim; and a
 * process that plans with this image itself has these pages in its own plan, so that they are in no
 * claim of others.
 *
 * The files lie in $XDG_RUNTIME_DIR/hearth, if that is this user's (su leaves another one's), else
 * in /tmp/hearth-UID, where anybody may have put something: the folder must be a folder, this
 * user's and closed to others, no link is followed, and a file is read to its first bytes only. A
 * service of the same user may lack the variable, so both folders are read.
 *
 * A file without a lock is that of a dead process and is removed. A living one never looks like
 * that, since its file gets its name after it was locked. One that was killed before has left a
 * file of a name with a dot, which goes when it is a minute old.
 *
 * Two that claim at the same time see each other if they look again after they claimed
 * (hearth_model_open does), so that memory is never given twice; in the worst case both refuse.
 *
 * Several models of one process count as the largest of their plans: a plan holds what the process
 * held when it was made. A process of another PID namespace (a container that shares the folder)
 * cannot be looked at, and counts whole.
 *
 * Rejected: a lock around plan and claim. A process that is stopped while it holds it would stop
 * all others.
 *
 * Next: base/pool.c. */
#include "base/claim.h"

#include "base/buf.h"
#include "base/figure.h"
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX      "plan-"
#define FILES_MAX   1024 /* of a folder, that are looked at */
#define CLAIM_BYTES 160  /* of a file */
#define UNNAMED_S   60

/* One process. */
struct other {
    uint64_t pid;
    uint64_t space; /* inode of its PID namespace */
    uint64_t bytes;
    struct claim_image image;
};

static uint64_t pid_space(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* --- the folder ---------------------------------------------------------------------------- */

/* Where this user's plans lie; the second is the one that needs no environment. */
enum place { PLACE_USUAL, PLACE_PLAIN };

/* Whether the folder that is to hold ours is this user's. */
static bool is_own_parent(const char *path)
{
    char parent[CLAIM_PATH_BYTES];
    struct stat st;
    const char *cut = strrchr(path, '/');
    if (cut == NULL || (size_t)(cut - path) >= sizeof parent) {
        return false;
    }
    snprintf(parent, sizeof parent, "%.*s", (int)(cut - path), path);
    return stat(parent, &st) == 0 && st.st_uid == geteuid();
}

static enum err folder_name(enum place place, struct buf *out)
{
    const bool is_set = place == PLACE_USUAL && os_dir(OS_DIR_RUNTIME, out) == ERR_OK;
    if (!is_set || !is_own_parent(buf_str(out))) {
        buf_reset(out);
        buf_printf(out, "/tmp/hearth-%lu", (unsigned long)geteuid());
    }
    return buf_check(out, "folder of plans");
}

/* An open folder that nobody else can have put files into; `folder` NULL: that of `place`. */
static enum err open_folder(const char *folder, enum place place, bool may_make, int *fd,
                            struct buf *name)
{
    buf_reset(name);
    if (folder != NULL) {
        buf_add_str(name, folder);
    } else {
        TRY(folder_name(place, name));
    }
    const char *path = buf_str(name);
    REQUIRE(!may_make || mkdir(path, 0700) == 0 || errno == EEXIST, ERR_IO,
            "%s: cannot make folder: %s", path, strerror(errno));
    const int at = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    REQUIRE(at >= 0, ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    const bool is_ours = fstat(at, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 077) == 0;
    if (!is_ours) {
        close(at);
        return err_set(ERR_POLICY, "%s: belongs to another user, or is open to others: remove it",
                       path);
    }
    *fd = at;
    return ERR_OK;
}

/* --- one's own ----------------------------------------------------------------------------- */

static enum err write_claim(int fd, int at, const char *temp, const char *name,
                            const struct other *o)
{
    char text[CLAIM_BYTES];
    const int n = snprintf(text, sizeof text, "%llu %llu %llu %llu %llu %llu\n",
                           (unsigned long long)o->pid, (unsigned long long)o->space,
                           (unsigned long long)o->bytes, (unsigned long long)o->image.bytes,
                           (unsigned long long)o->image.device, (unsigned long long)o->image.inode);
    REQUIRE(flock(fd, LOCK_EX | LOCK_NB) == 0 && write(fd, text, (size_t)n) == n, ERR_IO,
            "%s: cannot write: %s", temp, strerror(errno));
    REQUIRE(renameat(at, temp, at, name) == 0, ERR_IO, "%s: cannot rename: %s", temp,
            strerror(errno));
    return ERR_OK;
}

/* In the folder `at`, which is called `folder`. */
static enum err put_claim(struct claim *c, int at, const char *folder, const struct other *o)
{
    char name[80];
    char temp[88];
    struct claim t = { .is_open = true };
    snprintf(name, sizeof name, PREFIX "%ld-%llu", (long)getpid(),
             (unsigned long long)os_now_us()); /* never one that a dead process had */
    snprintf(temp, sizeof temp, ".%s", name);
    const int n = snprintf(t.path, sizeof t.path, "%s/%s", folder, name);
    REQUIRE(n > 0 && (size_t)n < sizeof t.path, ERR_LIMIT, "%.64s...: path too long", folder);
    t.fd = openat(at, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    REQUIRE(t.fd >= 0, ERR_IO, "%s: cannot create: %s", t.path, strerror(errno));
    const enum err e = write_claim(t.fd, at, temp, name, o);
    if (e != ERR_OK) {
        unlinkat(at, temp, 0);
        close(t.fd);
        return e;
    }
    *c = t;
    return ERR_OK;
}

void claim_image_of(struct claim_image *out, const char *path, uint64_t bytes)
{
    struct stat st;
    *out = (struct claim_image){ 0 };
    if (stat(path, &st) == 0) {
        *out = (struct claim_image){ (uint64_t)st.st_dev, (uint64_t)st.st_ino, bytes };
    }
}

enum err claim_open(struct claim *c, const char *folder, uint64_t bytes,
                    const struct claim_image *image)
{
    struct buf name;
    int at = -1;
    struct other o = { .pid = (uint64_t)getpid(), .space = pid_space(), .bytes = bytes };
    if (image != NULL) {
        o.image = *image;
    }
    buf_init(&name, CLAIM_PATH_BYTES);
    enum err e = open_folder(folder, PLACE_USUAL, true, &at, &name);
    if (e == ERR_OK) {
        e = put_claim(c, at, buf_str(&name), &o);
        close(at);
    }
    buf_release(&name);
    return e;
}

void claim_close(struct claim *c)
{
    if (c->is_open) {
        unlink(c->path);
        close(c->fd);
    }
    *c = (struct claim){ 0 };
}

/* --- those of others ----------------------------------------------------------------------- */

/* One number and the blank after it. */
static bool take_number(const char **p, uint64_t *out)
{
    char *end = NULL;
    if (**p < '0' || **p > '9') {
        return false;
    }
    errno = 0;
    *out = strtoull(*p, &end, 10);
    *p = end + (*end == ' ');
    return errno == 0 && (*end == ' ' || *end == '\n');
}

/* Reads a file of the folder. false: of a dead process (then it is removed), or no claim. */
static bool read_claim(int at, const char *name, struct other *out)
{
    char text[CLAIM_BYTES] = "";
    struct stat st;
    const int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const bool is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    const bool is_dead = is_file && flock(fd, LOCK_SH | LOCK_NB) == 0;
    const ssize_t n = is_file && !is_dead ? read(fd, text, sizeof text - 1) : 0;
    if (is_dead) {
        unlinkat(at, name, 0);
    }
    close(fd);
    const char *p = text;
    *out = (struct other){ 0 };
    if (n <= 0 || !take_number(&p, &out->pid) || !take_number(&p, &out->space) ||
        !take_number(&p, &out->bytes) || out->bytes > FIGURE_MOST) {
        return false;
    }
    struct claim_image i;
    if (take_number(&p, &i.bytes) && take_number(&p, &i.device) && take_number(&p, &i.inode) &&
        i.bytes <= out->bytes) { /* those of older programs have none */
        out->image = i;
    }
    return true;
}

/* What a process left that was killed before its file had its name. */
static void drop_unnamed(int at, const char *name)
{
    struct stat st;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        os_wall_s() - (int64_t)st.st_mtim.tv_sec > UNNAMED_S) {
        unlinkat(at, name, 0);
    }
}

/* Adds all living processes but this one, each once, to n others; their new number. */
static int read_all(int at, struct other *all, int n, int n_max)
{
    DIR *d = fdopendir(at);
    const uint64_t self = (uint64_t)getpid();
    const uint64_t space = pid_space();
    if (d == NULL) {
        close(at);
        return n;
    }
    const struct dirent *e = readdir(d);
    for (int i = 0; i < FILES_MAX && e != NULL && n < n_max; i++, e = readdir(d)) {
        struct other o;
        if (strncmp(e->d_name, "." PREFIX, strlen("." PREFIX)) == 0) {
            drop_unnamed(dirfd(d), e->d_name);
        }
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0 ||
            !read_claim(dirfd(d), e->d_name, &o) || (o.pid == self && o.space == space)) {
            continue;
        }
        int k = 0;
        while (k < n && (all[k].pid != o.pid || all[k].space != o.space)) {
            k++;
        }
        if (k == n) {
            all[n++] = o;
        } else if (o.bytes > all[k].bytes) {
            all[k] = o;
        }
    }
    closedir(d);
    return n;
}

/* A figure of /proc in kB; UINT64_MAX: it is not told. */
static uint64_t status_bytes(const char *path, const char *key)
{
    return figure_bytes(os_number_after(path, key), 1024);
}

static void see(const char *root, struct cgroup_claim *c)
{
    char path[OS_PATH_BYTES];
    snprintf(path, sizeof path, "%s/proc/%llu/status", root, (unsigned long long)c->pid);
    const uint64_t anon = status_bytes(path, "RssAnon");
    const uint64_t shared = status_bytes(path, "RssShmem");
    const uint64_t file = status_bytes(path, "RssFile");
    const uint64_t all = status_bytes(path, "VmRSS");
    c->own_bytes = figure_known(anon) + figure_known(shared);
    c->file_bytes = figure_known(file);
    if (anon == UINT64_MAX && all != UINT64_MAX) { /* a kernel before 4.5 */
        c->own_bytes = all;
    }
}

/* Bytes that are in both plans. */
static uint64_t shared_by(const struct claim_image *a, const struct claim_image *b)
{
    const bool is_same = a->device == b->device && a->inode == b->inode;
    return !is_same ? 0 : a->bytes < b->bytes ? a->bytes : b->bytes;
}

void claim_others(const char *root, const char *folder, const struct claim_image *image,
                  struct claim_list *out)
{
    struct other all[CLAIM_OTHERS_MAX];
    struct buf name;
    int at = -1;
    int n = 0;
    *out = (struct claim_list){ 0 };
    buf_init(&name, CLAIM_PATH_BYTES);
    if (open_folder(folder, PLACE_USUAL, false, &at, &name) == ERR_OK) {
        n = read_all(at, all, 0, CLAIM_OTHERS_MAX);
    }
    if (folder == NULL && open_folder(NULL, PLACE_PLAIN, false, &at, &name) == ERR_OK) {
        n = read_all(at, all, n, CLAIM_OTHERS_MAX); /* the same one again changes nothing */
    }
    buf_release(&name);
    for (int i = 0; i < n; i++) {
        struct cgroup_claim c = { .pid = all[i].pid,
                                  .plan_bytes = all[i].bytes,
                                  .ours_bytes =
                                      image != NULL ? shared_by(image, &all[i].image) : 0 };
        c.shared_bytes = c.ours_bytes;
        for (int k = 0; k < i; k++) {
            const uint64_t shared = shared_by(&all[k].image, &all[i].image);
            c.shared_bytes = shared > c.shared_bytes ? shared : c.shared_bytes;
        }
        if (all[i].space == pid_space()) {
            see(root, &c);
            out->one[out->n++] = c;
        }
        out->bytes += figure_less(figure_less(c.plan_bytes, c.shared_bytes), c.own_bytes);
    }
}
