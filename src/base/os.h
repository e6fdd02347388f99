/* os - files, clock, random numbers: the one seam to the operating system (base/os.c)
 *
 * Everything that reads a file, a clock or a random number goes through here, so that tests can
 * inject faults and own the time (struct os_hooks). All functions are safe from any thread. */
#ifndef HEARTH_OS_H
#define HEARTH_OS_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OS_PATH_BYTES 4200 /* room for a path and for a few words in front of it */

struct os_file {
    int fd;        /* -1 when closed */
    uint64_t size; /* bytes, at open */
    uint64_t mtime_ns;
    uint64_t inode;
    uint64_t device;
};

/* Opens a regular file for reading; ERR_NOT_FOUND, ERR_IO. `path` stays the caller's. */
enum err os_open(struct os_file *f, const char *path) MUST_USE;
/* The same past the page cache (O_DIRECT): places, lengths and memory must be aligned.
 * ERR_UNSUPPORTED where the file system does not do that. */
enum err os_open_direct(struct os_file *f, const char *path) MUST_USE;
void os_close(struct os_file *f); /* accepts fd == -1 */
/* Reads exactly n bytes at `at`. A short file is ERR_INTEGRITY: it shrank under us. */
enum err os_read_at(const struct os_file *f, void *to, size_t n, uint64_t at) MUST_USE;
/* One pread(2): bytes read, or -errno. */
long os_read_some(const struct os_file *f, void *to, size_t n, uint64_t at);
/* What a read that the kernel did by itself brought (bytes or -errno), as the hook has it. */
long os_read_end(uint64_t at, size_t n, long got);
/* Tells the page cache that [at, at + n) is not needed again. */
void os_read_drop(const struct os_file *f, uint64_t at, size_t n);
/* Whether size and mtime are those at open; sets no error. */
bool os_is_same(const struct os_file *f);
/* ERR_INTEGRITY when they are not: what was opened has changed. `path` is for the text. */
enum err os_same(const struct os_file *f, const char *path) MUST_USE;
/* ERR_INTEGRITY when size or mtime differ from those at open, or `path` now names another file. */
enum err os_unchanged(const struct os_file *f, const char *path) MUST_USE;
/* Whole file into `out` (its maximum bounds the size). */
enum err os_read_file(const char *path, struct buf *out) MUST_USE;
/* Writes a temporary file beside `path`, syncs it, renames it over `path`, syncs the folder. */
enum err os_write_file(const char *path, struct view text) MUST_USE;
enum err os_make_dirs(const char *path) MUST_USE; /* as mkdir -p, mode 0700 */
/* Whether files can be made in a folder: one without a name is made. ERR_IO. */
enum err os_can_make(const char *folder) MUST_USE;
/* The first bytes of a file, at most room - 1, and a 0 behind them; 0 when there are none or it
 * cannot be read. Takes no memory and sets no error: for small files of the kernel. */
size_t os_read_start(const char *path, char *to, size_t room);
bool os_exists(const char *path);
/* The number on the line of a text that begins with `key`; UINT64_MAX when there is none. */
uint64_t os_number_of(const char *text, const char *key);
uint64_t os_number_after(const char *path, const char *key); /* the same of a file's text */
/* The number with which a file begins; UINT64_MAX when it is absent or begins otherwise ("max").
 * `second` (may be NULL) gets the number that follows, 0 if none. */
uint64_t os_number_in(const char *folder, const char *name, uint64_t *second);

/* The word in brackets of a file that lists what could be chosen ("always [madvise] never");
 * false, and "" in to, where there is none or it does not fit. */
bool os_chosen(const char *path, char *to, size_t room);
/* How many bytes of [at, at + n) the page cache holds, at a multiple of the page's size; false
 * where the kernel does not tell this user. About 50 ns for each page of 4 KiB. */
bool os_cached_bytes(const struct os_file *f, uint64_t at, size_t n, uint64_t *out);

uint64_t os_now_us(void);           /* monotonic clock */
void os_sleep_us(uint64_t us);      /* or less, when a signal comes */
uint64_t os_cpu_us(void);           /* time that the cores gave all threads of this process */
int64_t os_wall_s(void);            /* seconds since 1970 */
void os_random(void *to, size_t n); /* from the kernel; never fails */
uint64_t os_rss_bytes(void);        /* VmRSS now */
void os_trim_heap(void);            /* gives back what was freed, so that VmRSS is what is held */
uint64_t os_rss_peak_bytes(void);   /* VmHWM */
/* What this process has now, as the kernel counts it; zeros where /proc is hidden. */
struct os_held {
    uint64_t own_bytes;   /* memory that no file stands behind */
    uint64_t file_bytes;  /* pages of files: the program and its libraries, as far as read in */
    uint64_t code_bytes;  /* code of these, read in or not */
    uint64_t table_bytes; /* page tables, which a cgroup counts too */
};
void os_held(struct os_held *out);
/* How many of the n bytes from `at` on lie in pages of 2 MB; a kernel before 6.7 counts whole
 * mappings, of which at most n is given. os_read_file's errors where /proc does not tell. */
enum err os_huge_bytes(const void *at, size_t n, uint64_t *out) MUST_USE;
/* Why new memory gets no such pages: static text, or NULL. */
const char *os_no_huge(void);
/* So much memory that caches hold little of it: four times those of the last level of all cores
 * that this process may use (/sys), but least_bytes..2 GiB. */
uint64_t os_beyond_caches(uint64_t least_bytes);
/* Whether standard error is the journal's socket (systemd sets JOURNAL_STREAM). */
bool os_stderr_is_journal(void);

/* XDG folders of hearth, without final slash: data ~/.local/share/hearth, cache, state. */
enum os_dir { OS_DIR_DATA, OS_DIR_CACHE, OS_DIR_STATE, OS_DIR_RUNTIME };
enum err os_dir(enum os_dir which, struct buf *out) MUST_USE;

/* Tests replace what they want to own; NULL members keep the real thing. */
struct os_hooks {
    uint64_t (*now_us)(void);
    uint64_t (*cpu_us)(void);
    int64_t (*wall_s)(void);
    void (*random)(void *to, size_t n);
    long (*pread)(int fd, void *to, size_t n, uint64_t at); /* as pread(2) */
    long (*read_end)(uint64_t at, size_t n, long got);      /* see os_read_end */
};
void os_hook(const struct os_hooks *hooks); /* keeps a copy; NULL resets */

#endif
