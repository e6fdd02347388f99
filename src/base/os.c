/* os - files, clock, random numbers: the one seam to the operating system
 *
 * Reading goes through pread on a descriptor whose size, time and inode are remembered, so that a
 * file that changes or shrinks while it is read is an error with a name and never a signal. Writing
 * goes through a temporary file that is synced and renamed, so that a reader sees the old or the
 * new text and nothing between, also after a power cut.
 *
 * What tests want to own (clock, random numbers, pread) sits behind os_hook.
 *
 * Memory that may still be taken is the least of what the kernel thinks is available and what each
 * cgroup from ours up to the root leaves: in a container the first number alone is how estimates
 * end in the OOM killer.
 *
 * Next: base/lines.c. */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct os_hooks hooks;

void os_hook(const struct os_hooks *h)
{
    hooks = h != NULL ? *h : (struct os_hooks){ 0 };
}

/* --- reading
 * --------------------------------------------------------------------------------------------------
 */

static uint64_t mtime_of(const struct stat *st)
{
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

enum err os_open(struct os_file *f, const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block us */
    REQUIRE(fd >= 0, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
            "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(ERR_IO, "%s: not a regular file", path);
    }
    *f = (struct os_file){ .fd = fd,
                           .size = (uint64_t)st.st_size,
                           .mtime_ns = mtime_of(&st),
                           .inode = (uint64_t)st.st_ino,
                           .device = (uint64_t)st.st_dev };
    return ERR_OK;
}

void os_close(struct os_file *f)
{
    if (f->fd >= 0) {
        close(f->fd);
    }
    f->fd = -1;
}

enum err os_read_at(const struct os_file *f, void *to, size_t n, uint64_t at)
{
    char *p = to;
    while (n > 0) {
        const ssize_t got = hooks.pread != NULL ? (ssize_t)hooks.pread(f->fd, p, n, at)
                                                : pread(f->fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        REQUIRE(got >= 0, ERR_IO, "reading %zu bytes at %llu: %s", n, (unsigned long long)at,
                strerror(errno));
        REQUIRE(got > 0, ERR_INTEGRITY,
                "the file ends at byte %llu, %zu bytes too early: it changed while it was read",
                (unsigned long long)at, n);
        p += got;
        n -= (size_t)got;
        at += (uint64_t)got;
    }
    return ERR_OK;
}

enum err os_unchanged(const struct os_file *f, const char *path)
{
    struct stat st;
    REQUIRE(fstat(f->fd, &st) == 0, ERR_IO, "%s: %s", path, strerror(errno));
    REQUIRE((uint64_t)st.st_size == f->size && mtime_of(&st) == f->mtime_ns &&
                (uint64_t)st.st_ino == f->inode,
            ERR_INTEGRITY,
            "%s: the file changed while it was read; try again when nobody writes to it", path);
    return ERR_OK;
}

enum err os_read_file(const char *path, struct buf *out)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
            "%s: cannot open: %s", path, strerror(errno));
    char piece[16384];
    ssize_t n = 1;
    while (n > 0 && !out->is_full) {
        n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR) {
            n = 1;
        } else if (n > 0) {
            buf_add(out, piece, (size_t)n);
        }
    }
    const int saved = errno;
    close(fd);
    REQUIRE(n >= 0, ERR_IO, "%s: cannot read: %s", path, strerror(saved));
    return buf_check(out, path);
}

bool os_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* --- writing
 * --------------------------------------------------------------------------------------------------
 */

static enum err write_all(int fd, struct view text, const char *path)
{
    while (text.n > 0) {
        const ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        REQUIRE(n > 0, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
        text = view_from(text, (size_t)n);
    }
    REQUIRE(fsync(fd) == 0, ERR_IO, "%s: cannot sync: %s", path, strerror(errno));
    return ERR_OK;
}

/* Makes the rename itself durable. */
static enum err sync_folder(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    const size_t n = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    REQUIRE(n < sizeof folder, ERR_USAGE, "%.64s...: path too long", path);
    snprintf(folder, sizeof folder, "%.*s", n > 0 ? (int)n : 1, n > 0 ? path : ".");
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(fd >= 0, ERR_IO, "%s: %s", folder, strerror(errno));
    const int rc = fsync(fd);
    close(fd);
    REQUIRE(rc == 0 || errno == EINVAL, ERR_IO, "%s: cannot sync: %s", folder, strerror(errno));
    return ERR_OK;
}

enum err os_write_file(const char *path, struct view text)
{
    char temp[4096];
    const int n = snprintf(temp, sizeof temp, "%s.new-%ld", path, (long)getpid());
    REQUIRE(n > 0 && (size_t)n < sizeof temp, ERR_USAGE, "%.64s...: path too long", path);
    const int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0, ERR_IO, "%s: cannot create: %s", temp, strerror(errno));
    enum err e = write_all(fd, text, temp);
    close(fd);
    if (e == ERR_OK && rename(temp, path) != 0) {
        e = err_set(ERR_IO, "%s: cannot rename to %s: %s", temp, path, strerror(errno));
    }
    if (e != ERR_OK) {
        unlink(temp);
        return e;
    }
    return sync_folder(path);
}

enum err os_make_dirs(const char *path)
{
    char part[4096];
    const size_t n = strlen(path);
    REQUIRE(n > 0 && n < sizeof part, ERR_USAGE, "folder name of %zu bytes", n);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        memcpy(part, path, i);
        part[i] = '\0';
        REQUIRE(mkdir(part, 0700) == 0 || errno == EEXIST, ERR_IO, "%s: cannot make folder: %s",
                part, strerror(errno));
    }
    struct stat st;
    REQUIRE(stat(path, &st) == 0 && S_ISDIR(st.st_mode), ERR_IO, "%s: exists and is no folder",
            path);
    return ERR_OK;
}

/* --- clock and random numbers
 * ----------------------------------------------------------------------------------- */

uint64_t os_now_us(void)
{
    if (hooks.now_us != NULL) {
        return hooks.now_us();
    }
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

int64_t os_wall_s(void)
{
    return hooks.wall_s != NULL ? hooks.wall_s() : (int64_t)time(NULL);
}

void os_random(void *to, size_t n)
{
    if (hooks.random != NULL) {
        hooks.random(to, n);
        return;
    }
    for (char *p = to; n > 0;) {
        const ssize_t got =
            getrandom(p, n, 0); /* blocks only before the first seeding after boot */
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
}

/* --- memory
 * ------------------------------------------------------------------------------------------------------
 */

/* The number after `key` in a text of "key   number kB" lines, in bytes; UINT64_MAX when absent. */
static uint64_t kb_after(const char *text, const char *key)
{
    const char *p = strstr(text, key);
    if (p == NULL) {
        return UINT64_MAX;
    }
    p += strlen(key);
    while (*p == ' ' || *p == '\t' || *p == ':') {
        p++;
    }
    return strtoull(p, NULL, 10) * 1024;
}

static uint64_t from_file(const char *path, const char *key)
{
    struct buf text;
    buf_init(&text, 65536);
    uint64_t v = UINT64_MAX;
    if (os_read_file(path, &text) == ERR_OK) {
        v = kb_after(buf_str(&text), key);
    }
    buf_release(&text);
    return v;
}

uint64_t os_rss_bytes(void)
{
    const uint64_t v = from_file("/proc/self/status", "VmRSS");
    return v == UINT64_MAX ? 0 : v;
}

uint64_t os_rss_peak_bytes(void)
{
    const uint64_t v = from_file("/proc/self/status", "VmHWM");
    return v == UINT64_MAX ? 0 : v;
}

uint64_t os_memory_total(void)
{
    const uint64_t v = from_file("/proc/meminfo", "MemTotal");
    return v == UINT64_MAX ? 0 : v;
}

/* A file with one plain number; UINT64_MAX when absent or "max". */
static uint64_t number_in(const char *path)
{
    struct buf text;
    buf_init(&text, 4096);
    uint64_t v = UINT64_MAX;
    if (os_read_file(path, &text) == ERR_OK && text.n > 0 && text.p[0] >= '0' && text.p[0] <= '9') {
        v = strtoull(text.p, NULL, 10);
    }
    buf_release(&text);
    return v;
}

/* What one cgroup folder leaves; page cache that can be dropped counts as free. */
static uint64_t group_left(const char *folder, const char *limit_file, const char *usage_file)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", folder, limit_file);
    const uint64_t limit = number_in(path);
    if (limit == UINT64_MAX || limit > UINT64_MAX / 4) {
        return UINT64_MAX;
    }
    snprintf(path, sizeof path, "%s/%s", folder, usage_file);
    const uint64_t usage = number_in(path);
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    struct buf text;
    buf_init(&text, 65536);
    uint64_t cache = 0;
    if (os_read_file(path, &text) == ERR_OK) {
        const uint64_t kb = kb_after(buf_str(&text), "inactive_file ");
        cache = kb == UINT64_MAX ? 0 : kb / 1024; /* these files count bytes */
    }
    buf_release(&text);
    const uint64_t used = usage == UINT64_MAX || usage < cache ? 0 : usage - cache;
    return used < limit ? limit - used : 0;
}

/* The least that the cgroup `path` under `root` and its ancestors leave. */
static uint64_t groups_left(const char *root, const char *group, const char *limit_file,
                            const char *usage_file)
{
    char folder[4200];
    snprintf(folder, sizeof folder, "%s%s", root, group);
    uint64_t least = UINT64_MAX;
    for (;;) {
        const uint64_t left = group_left(folder, limit_file, usage_file);
        least = left < least ? left : least;
        char *slash = strrchr(folder, '/');
        if (slash == NULL || strlen(folder) <= strlen(root)) {
            return least;
        }
        *slash = '\0';
    }
}

static uint64_t cgroup_left(void)
{
    struct buf text;
    buf_init(&text, 65536);
    uint64_t least = UINT64_MAX;
    if (os_read_file("/proc/self/cgroup", &text) == ERR_OK) {
        for (char *line = text.p; line != NULL && *line != '\0';) {
            char *end = strchr(line, '\n');
            if (end != NULL) {
                *end = '\0';
            }
            const char *v2 = strncmp(line, "0::", 3) == 0 ? line + 3 : NULL;
            const char *v1 = strstr(line, ":memory:");
            uint64_t left = UINT64_MAX;
            if (v2 != NULL) {
                left = groups_left("/sys/fs/cgroup", v2, "memory.max", "memory.current");
            } else if (v1 != NULL) {
                left = groups_left("/sys/fs/cgroup/memory", v1 + 8, "memory.limit_in_bytes",
                                   "memory.usage_in_bytes");
            }
            least = left < least ? left : least;
            line = end != NULL ? end + 1 : NULL;
        }
    }
    buf_release(&text);
    return least;
}

uint64_t os_memory_available(const char **limit_name)
{
    const uint64_t box = from_file("/proc/meminfo", "MemAvailable");
    const uint64_t group = cgroup_left();
    if (limit_name != NULL) {
        *limit_name = group < box ? "the cgroup's memory limit" : "memory available on this box";
    }
    return group < box ? group : box == UINT64_MAX ? 0 : box;
}

/* --- folders
 * -------------------------------------------------------------------------------------------------------
 */

/* The XDG base directory variables and HOME are the only environment that hearth reads. */
static const char *environment(const char *name)
{
    const char *v = secure_getenv(name);
    return v != NULL && v[0] == '/' ? v : NULL;
}

enum err os_dir(enum os_dir which, struct buf *out)
{
    static const struct {
        const char *variable, *below_home;
    } rows[] = { { "XDG_DATA_HOME", "/.local/share" },
                 { "XDG_CACHE_HOME", "/.cache" },
                 { "XDG_STATE_HOME", "/.local/state" },
                 { "XDG_RUNTIME_DIR", NULL } };
    const char *base = environment(rows[which].variable);
    const char *home = environment("HOME");
    if (base != NULL) {
        buf_add_str(out, base);
    } else {
        REQUIRE(home != NULL && rows[which].below_home != NULL, ERR_NOT_FOUND,
                "neither %s nor HOME is set: no place for hearth's files", rows[which].variable);
        buf_add_str(out, home);
        buf_add_str(out, rows[which].below_home);
    }
    buf_add_str(out, "/hearth");
    return buf_check(out, "folder name");
}
