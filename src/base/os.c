/* os - files, clock, random numbers: the one seam to the operating system
 *
 * Reading goes through pread on a descriptor whose size, time and inode are remembered, so that a
 * file that changes or shrinks while it is read is an error with a name and never a signal. Writing
 * goes through a temporary file that is synced and renamed, so that a reader sees the old or the
 * new text and nothing between, also after a power cut.
 *
 * What tests want to own (clock, random numbers, pread) sits behind os_hook.
 *
 * Next: base/lines.c. */
#include "base/os.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define START_BYTES 16384 /* of a file of /proc or /sys: more than any that matters has */

static struct os_hooks hooks;

void os_hook(const struct os_hooks *h)
{
    hooks = h != NULL ? *h : (struct os_hooks){ 0 };
}

/* --- reading ------------------------------------------------------------------------------- */

static uint64_t mtime_of(const struct stat *st)
{
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

/* What open's errno says, and what to do where that is not plain. */
static enum err cannot_open(const char *path)
{
    const int why = errno;
    struct rlimit most = { 0 };
    REQUIRE(why != EMFILE || getrlimit(RLIMIT_NOFILE, &most) != 0, ERR_LIMIT,
            "%s: cannot open: one more open file is needed, and %llu are allowed here: raise the "
            "limit (ulimit -n %llu)",
            path, (unsigned long long)most.rlim_cur,
            most.rlim_cur < 64 ? 64ull : 2ull * most.rlim_cur);
    return err_set(why == ENOENT || why == ENOTDIR ? ERR_NOT_FOUND : ERR_IO, "%s: cannot open: %s",
                   path, strerror(why));
}

static enum err open_with(struct os_file *f, const char *path, int flags)
{
    /* a FIFO must not block us */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
    REQUIRE(fd >= 0 || flags == 0 || errno != EINVAL, ERR_UNSUPPORTED,
            "%s: its file system does not read past the page cache", path);
    if (fd < 0) {
        return cannot_open(path);
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(ERR_IO, "%s: not a regular file", path);
    }
    /* io_uring would take it for "never wait" and answer EAGAIN, or not know that reading blocks */
    (void)fcntl(fd, F_SETFL, flags);
    *f = (struct os_file){ .fd = fd,
                           .size = (uint64_t)st.st_size,
                           .mtime_ns = mtime_of(&st),
                           .inode = (uint64_t)st.st_ino,
                           .device = (uint64_t)st.st_dev };
    return ERR_OK;
}

enum err os_open(struct os_file *f, const char *path)
{
    return open_with(f, path, 0);
}

enum err os_open_direct(struct os_file *f, const char *path)
{
    return open_with(f, path, O_DIRECT);
}

void os_close(struct os_file *f)
{
    if (f->fd >= 0) {
        close(f->fd);
    }
    f->fd = -1;
}

long os_read_some(const struct os_file *f, void *to, size_t n, uint64_t at)
{
    const long got =
        hooks.pread != NULL ? hooks.pread(f->fd, to, n, at) : (long)pread(f->fd, to, n, (off_t)at);
    return got >= 0 ? got : -(long)errno;
}

long os_read_end(uint64_t at, size_t n, long got)
{
    return hooks.read_end != NULL ? hooks.read_end(at, n, got) : got;
}

void os_read_drop(const struct os_file *f, uint64_t at, size_t n)
{
    (void)posix_fadvise(f->fd, (off_t)at, (off_t)n, POSIX_FADV_DONTNEED);
}

enum err os_read_at(const struct os_file *f, void *to, size_t n, uint64_t at)
{
    char *p = to;
    while (n > 0) {
        const long got = os_read_some(f, p, n, at);
        if (got == -EINTR) {
            continue;
        }
        REQUIRE(got >= 0, ERR_IO, "reading %zu bytes at %llu: %s", n, (unsigned long long)at,
                strerror((int)-got));
        REQUIRE(got > 0, ERR_INTEGRITY,
                "the file ends at byte %llu, %zu bytes too early: it changed while it was read",
                (unsigned long long)at, n);
        p += got;
        n -= (size_t)got;
        at += (uint64_t)got;
    }
    return ERR_OK;
}

#define NOBODY_WRITES "while it was read; try again when nobody writes to it"

bool os_is_same(const struct os_file *f)
{
    struct stat st;
    return fstat(f->fd, &st) == 0 && (uint64_t)st.st_size == f->size &&
           mtime_of(&st) == f->mtime_ns;
}

enum err os_same(const struct os_file *f, const char *path)
{
    REQUIRE(os_is_same(f), ERR_INTEGRITY, "%s: the file changed " NOBODY_WRITES, path);
    return ERR_OK;
}

enum err os_unchanged(const struct os_file *f, const char *path)
{
    struct stat named;
    TRY(os_same(f, path));
    REQUIRE(stat(path, &named) == 0 && (uint64_t)named.st_ino == f->inode &&
                (uint64_t)named.st_dev == f->device,
            ERR_INTEGRITY, "%s: the file was replaced " NOBODY_WRITES, path);
    return ERR_OK;
}

enum err os_read_file(const char *path, struct buf *out)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO may have no writer */
    if (fd < 0) {
        return cannot_open(path);
    }
    (void)fcntl(fd, F_SETFL, 0);
    const size_t before = out->n;
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
    if (n < 0 || out->is_full) {
        buf_cut(out, before);
    }
    REQUIRE(n >= 0, ERR_IO, "%s: cannot read: %s", path, strerror(saved));
    return buf_check(out, path);
}

size_t os_read_start(const char *path, char *to, size_t room)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t n = 0;
    for (ssize_t got = 1; fd >= 0 && got != 0 && n + 1 < room;) {
        got = read(fd, to + n, room - 1 - n);
        if (got > 0) {
            n += (size_t)got;
        } else if (got < 0 && errno != EINTR) {
            got = 0;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    to[n] = '\0';
    return n;
}

bool os_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* --- writing ------------------------------------------------------------------------------- */

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

/* A reader sees the old file or the new one, whole, also after a power cut: the bytes are on the
 * disk before the name points to them. */
enum err os_write_file(const char *path, struct view text)
{
    char temp[4096];
    /* a thread's id, so that two writers of one path do not share the temporary file */
    const int n = snprintf(temp, sizeof temp, "%s.new-%ld", path, (long)gettid());
    REQUIRE(n > 0 && (size_t)n < sizeof temp, ERR_USAGE, "%.64s...: path too long", path);
    const int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
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

enum err os_can_make(const char *folder)
{
    const int fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    const bool is_unknown = fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR); /* not so there */
    if (fd >= 0) {
        close(fd);
    }
    REQUIRE(fd >= 0 || (is_unknown && faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) == 0),
            ERR_IO, "%s: cannot write: %s", folder, strerror(errno));
    return ERR_OK;
}

/* --- clock and random numbers -------------------------------------------------------------- */

void os_sleep_us(uint64_t us)
{
    const struct timespec ts = { (time_t)(us / 1000000), (long)(us % 1000000 * 1000) };
    (void)nanosleep(&ts, NULL);
}

uint64_t os_now_us(void)
{
    if (hooks.now_us != NULL) {
        return hooks.now_us();
    }
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

uint64_t os_cpu_us(void)
{
    if (hooks.cpu_us != NULL) {
        return hooks.cpu_us();
    }
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
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
        const ssize_t got = getrandom(p, n, 0); /* blocks only until seeded after boot */
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        } else if (got < 0 && errno != EINTR) {
            abort(); /* Linux has the call since 3.17; with guessable keys nobody may go on */
        }
    }
}

/* --- memory -------------------------------------------------------------------------------- */

uint64_t os_number_of(const char *text, const char *key)
{
    const size_t n = strlen(key);
    uint64_t v = UINT64_MAX;
    for (const char *line = text; line != NULL && v == UINT64_MAX;) {
        if (strncmp(line, key, n) == 0 && (line[n] == ' ' || line[n] == ':')) {
            const char *at = line + n + 1 + strspn(line + n + 1, " \t");
            v = *at >= '0' && *at <= '9' ? strtoull(at, NULL, 10) : v;
        }
        const char *end = strchr(line, '\n');
        line = end != NULL ? end + 1 : NULL;
    }
    return v;
}

uint64_t os_number_after(const char *path, const char *key)
{
    char text[START_BYTES];
    return os_read_start(path, text, sizeof text) > 0 ? os_number_of(text, key) : UINT64_MAX;
}

/* The same for lines of kB, in bytes; 0 when absent. */
static uint64_t kb_after(const char *path, const char *key)
{
    const uint64_t v = os_number_after(path, key);
    return v == UINT64_MAX ? 0 : v * 1024;
}

static uint64_t kb_in_text(const char *text, const char *key)
{
    const uint64_t v = os_number_of(text, key);
    return v == UINT64_MAX ? 0 : v * 1024;
}

uint64_t os_rss_bytes(void)
{
    return kb_after("/proc/self/status", "VmRSS");
}

void os_trim_heap(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

uint64_t os_rss_peak_bytes(void)
{
    return kb_after("/proc/self/status", "VmHWM");
}

void os_held(struct os_held *out)
{
    char t[START_BYTES];
    (void)os_read_start("/proc/self/status", t, sizeof t);
    *out = (struct os_held){ .own_bytes = kb_in_text(t, "RssAnon") + kb_in_text(t, "RssShmem"),
                             .file_bytes = kb_in_text(t, "RssFile"),
                             .code_bytes = kb_in_text(t, "VmExe") + kb_in_text(t, "VmLib"),
                             .table_bytes = kb_in_text(t, "VmPTE") };
}

uint64_t os_number_in(const char *folder, const char *name, uint64_t *second)
{
    char path[OS_PATH_BYTES];
    char text[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    uint64_t v = UINT64_MAX;
    if (os_read_start(path, text, sizeof text) > 0 && text[0] >= '0' && text[0] <= '9') {
        char *rest = NULL;
        v = strtoull(text, &rest, 10);
        if (second != NULL) {
            *second = strtoull(rest, NULL, 10);
        }
    }
    return v;
}

#define CACHE_MAX_KB     ((uint64_t)4 << 20) /* a greater one is no figure */
#define BEYOND_CACHES    4
#define BEYOND_MAX_BYTES ((uint64_t)2 << 30)

/* The third-level cache of each of the cores, else the second, once for all that share it: those
 * whose lists begin with the same core. */
static uint64_t caches_below(const char *top, const cpu_set_t *cores)
{
    char folder[256];
    bool seen[CPU_SETSIZE] = { false };
    uint64_t sum = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        uint64_t kb = UINT64_MAX;
        for (int i = 3; i >= 2 && kb == UINT64_MAX && CPU_ISSET(cpu, cores); i--) {
            snprintf(folder, sizeof folder, "%s/cpu%d/cache/index%d", top, cpu, i);
            kb = os_number_in(folder, "size", NULL);
        }
        const uint64_t first =
            kb < CACHE_MAX_KB ? os_number_in(folder, "shared_cpu_list", NULL) : UINT64_MAX;
        if (first < CPU_SETSIZE && !seen[first]) {
            seen[first] = true;
            sum += kb * 1024;
        }
    }
    return sum;
}

uint64_t os_beyond_caches(uint64_t least_bytes)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    const bool knows = sched_getaffinity(0, sizeof cores, &cores) == 0;
    const uint64_t caches = knows ? caches_below("/sys/devices/system/cpu", &cores) : 0;
    const uint64_t far = BEYOND_CACHES * caches >> 20 << 20;
    const uint64_t most = far < BEYOND_MAX_BYTES ? far : BEYOND_MAX_BYTES;
    return most > least_bytes ? most : least_bytes;
}

/* --- pages of 2 MB ------------------------------------------------------------------------- */

/* PAGEMAP_SCAN, Linux 6.7: older headers lack it. */
struct huge_range {
    uint64_t begin;
    uint64_t end;
    uint64_t categories;
};
struct huge_scan {
    uint64_t size;
    uint64_t flags;
    uint64_t begin;
    uint64_t end;
    uint64_t walk_end; /* how far it came */
    uint64_t ranges;   /* address of */
    uint64_t n_range;
    uint64_t max_pages;
    uint64_t inverted;
    uint64_t all_of;
    uint64_t any_of;
    uint64_t wanted; /* categories that tell ranges apart */
};
static_assert(sizeof(struct huge_range) == 24 && sizeof(struct huge_scan) == 96,
              "these are the kernel's");
#define HUGE_SCAN   _IOWR('f', 16, struct huge_scan)
#define HUGE_IS     (1u << 6)
#define HUGE_RANGES 64

/* Takes some 0.1 ms for a GB. false: the kernel does not know it, or /proc is closed to us. */
static bool scan_huge(uintptr_t from, size_t n, uint64_t *out)
{
    struct huge_range r[HUGE_RANGES];
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct huge_scan s = { .size = sizeof s,
                           .begin = from / page * page,
                           .end = (from + n + page - 1) / page * page,
                           .ranges = (uintptr_t)r,
                           .n_range = HUGE_RANGES,
                           .all_of = HUGE_IS,
                           .wanted = HUGE_IS };
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t bytes = 0;
    bool is_known = fd >= 0;
    while (is_known && s.begin < s.end) {
        const int k = ioctl(fd, HUGE_SCAN, &s);
        is_known = k >= 0 && s.walk_end > s.begin;
        for (int i = 0; i < k; i++) {
            bytes += r[i].end - r[i].begin;
        }
        s.begin = s.walk_end;
    }
    if (fd >= 0) {
        close(fd);
    }
    *out = is_known ? bytes : *out;
    return is_known;
}

/* Lines of /proc/self/smaps: "from-to flags ..." begins a mapping, "Name:  n kB" says more. Visits
 * each small page of the whole process: 20 ms for 400 MB of them. */
static enum err read_huge(uintptr_t from, size_t n, uint64_t *out)
{
    struct buf text;
    buf_init(&text, (size_t)4 << 20);
    uint64_t bytes = 0;
    bool is_ours = false;
    const enum err e = os_read_file("/proc/self/smaps", &text);
    const char *line = e == ERR_OK ? buf_str(&text) : NULL;
    while (line != NULL) {
        char *rest = NULL;
        const uintptr_t begin = strtoull(line, &rest, 16);
        if (rest > line && *rest == '-') {
            is_ours = begin < from + n && strtoull(rest + 1, NULL, 16) > from;
        } else if (is_ours && (strncmp(line, "AnonHugePages:", 14) == 0 ||
                               strncmp(line, "FilePmdMapped:", 14) == 0)) {
            bytes += strtoull(line + 14, NULL, 10) * 1024;
        }
        const char *end = strchr(line, '\n');
        line = end != NULL ? end + 1 : NULL;
    }
    buf_release(&text);
    *out = e == ERR_OK ? bytes : *out;
    return e;
}

enum err os_huge_bytes(const void *at, size_t n, uint64_t *out)
{
    uint64_t bytes = 0;
    if (!scan_huge((uintptr_t)at, n, &bytes)) {
        TRY(read_huge((uintptr_t)at, n, &bytes));
    }
    *out = bytes < n ? bytes : n;
    return ERR_OK;
}

bool os_chosen(const char *path, char *to, size_t room)
{
    char text[512];
    (void)os_read_start(path, text, sizeof text);
    const char *from = strchr(text, '[');
    const size_t n = from != NULL ? strcspn(from + 1, "]\n") : 0;
    const bool is_there = n > 0 && n < room && from[1 + n] == ']';
    snprintf(to, room, "%.*s", is_there ? (int)n : 0, is_there ? from + 1 : "");
    return is_there;
}

const char *os_no_huge(void)
{
    char word[32];
    const bool is_read =
        os_chosen("/sys/kernel/mm/transparent_hugepage/enabled", word, sizeof word);
    return !is_read ? "this kernel has none, or hides /sys"
           : strcmp(word, "never") == 0
               ? "switched off in /sys/kernel/mm/transparent_hugepage/enabled"
               : NULL;
}

/* --- the page cache ------------------------------------------------------------------------ */

#define CACHED_PART ((size_t)64 << 20) /* looked at by one call */

/* mincore(2) tells of others' files that all is there: only its owner, and root, are told. */
bool os_cached_bytes(const struct os_file *f, uint64_t at, size_t n, uint64_t *out)
{
    unsigned char there[CACHED_PART / 4096];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct stat st;
    uint64_t sum = 0;
    bool is_told = fstat(f->fd, &st) == 0 && (geteuid() == 0 || st.st_uid == geteuid()) &&
                   at % page == 0 && at <= f->size && n <= f->size - at;
    for (size_t done = 0; done < n && is_told; done += CACHED_PART) {
        const size_t part = n - done < CACHED_PART ? n - done : CACHED_PART;
        void *p = mmap(NULL, part, PROT_READ, MAP_SHARED, f->fd, (off_t)(at + done));
        is_told = p != MAP_FAILED && mincore(p, part, there) == 0;
        for (size_t i = 0; i * page < part && is_told; i++) {
            const size_t rest = part - i * page;
            sum += (there[i] & 1) == 0 ? 0 : rest < page ? rest : page;
        }
        if (p != MAP_FAILED) {
            munmap(p, part);
        }
    }
    *out = is_told ? sum : *out;
    return is_told;
}

/* --- folders ------------------------------------------------------------------------------- */

/* The XDG base directory variables, HOME and JOURNAL_STREAM (below) are the only environment that
 * hearth reads here. */
static const char *environment(const char *name)
{
    const char *v = secure_getenv(name);
    return v != NULL && v[0] == '/' ? v : NULL;
}

enum err os_dir(enum os_dir which, struct buf *out)
{
    static const struct {
        const char *variable;
        const char *below_home;
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
                "%s%s is not set to an absolute path: no place for hearth's files; export it",
                rows[which].variable, rows[which].below_home != NULL ? " or HOME" : "");
        buf_add_str(out, home);
        buf_add_str(out, rows[which].below_home);
    }
    buf_add_str(out, "/hearth");
    return buf_check(out, "folder name");
}

bool os_stderr_is_journal(void)
{
    const char *v = secure_getenv("JOURNAL_STREAM"); /* "device:inode" */
    struct stat st;
    if (v == NULL || fstat(STDERR_FILENO, &st) != 0) {
        return false;
    }
    char *rest = NULL;
    const unsigned long device = strtoul(v, &rest, 10);
    return *rest == ':' && st.st_dev == device && st.st_ino == strtoul(rest + 1, NULL, 10);
}
