/* refuse - a library to preload: one request for memory of the whole process is refused
 *
 * The one that REFUSE_AT numbers, counted from the first line of main on, by whichever thread and
 * library; 0: none. How many there were is written to the file that REFUSE_COUNT names. What runs
 * before main (the loader, constructors of libraries) gets what it asks for, and so does hwloc,
 * which ends by SIGSEGV when it is refused anything: hearth asks for more than it takes before.
 *
 * Only for the GNU C library, whose allocator has names of its own to go on with.
 * test_faults.c refuses what hearth itself asks for, and can see what is given back; this also
 * refuses what its libraries ask for, in the real program. For test_memory.py. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t each);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

typedef int (*main_fn)(int argc, char **argv, char **env);
typedef int (*start_fn)(main_fn fn, int argc, char **argv, void (*init)(void), void (*fini)(void),
                        void (*rtld_fini)(void), void *stack_end);

static _Atomic bool is_counting;
static _Thread_local bool is_in_hwloc;
static _Atomic long n_asked;
static long refuse_at;
static main_fn real_main;

static bool refuses(void)
{
    if (!atomic_load(&is_counting) || is_in_hwloc ||
        atomic_fetch_add(&n_asked, 1) + 1 != refuse_at) {
        return false;
    }
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n)
{
    return refuses() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t each)
{
    return refuses() ? NULL : __libc_calloc(n, each);
}

void *realloc(void *p, size_t n)
{
    return refuses() ? NULL : __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    return refuses() ? NULL : __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    void *p = refuses() ? NULL : __libc_memalign(align, n);
    *out = p != NULL ? p : *out;
    return p != NULL ? 0 : ENOMEM;
}

void *mmap(void *at, size_t n, int may, int flags, int fd, off_t from)
{
    return refuses() ? MAP_FAILED : (void *)syscall(SYS_mmap, at, n, may, flags, fd, from);
}

/* --- hwloc ---------------------------------------------------------------------------------- */

static int with_topology(const char *name, void *topology)
{
    int (*fn)(void *) = NULL;
    is_in_hwloc = true;
    *(void **)&fn = dlsym(RTLD_NEXT, name);
    const int rc = fn(topology);
    is_in_hwloc = false;
    return rc;
}

int hwloc_topology_init(void *topology);
int hwloc_topology_init(void *topology)
{
    return with_topology("hwloc_topology_init", topology);
}

int hwloc_topology_load(void *topology);
int hwloc_topology_load(void *topology)
{
    return with_topology("hwloc_topology_load", topology);
}

/* --- counting ------------------------------------------------------------------------------- */

static void tell(void)
{
    atomic_store(&is_counting, false);
    const char *path = getenv("REFUSE_COUNT");
    const int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
    if (fd >= 0) {
        (void)!dprintf(fd, "%ld\n", atomic_load(&n_asked));
        close(fd);
    }
}

static int counted_main(int argc, char **argv, char **env)
{
    const char *at = getenv("REFUSE_AT");
    refuse_at = at != NULL ? atol(at) : 0;
    atexit(tell);
    atomic_store(&is_counting, true);
    return real_main(argc, argv, env);
}

int __libc_start_main(main_fn fn, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end);
int __libc_start_main(main_fn fn, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end)
{
    start_fn start = NULL;
    *(void **)&start = dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = fn;
    return start(counted_main, argc, argv, init, fini, rtld_fini, stack_end);
}
