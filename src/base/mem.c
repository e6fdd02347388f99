/* mem - the only allocator of the tree
 *
 * Small objects come from the C library with a header in front that holds their size, so that live
 * bytes can be counted: the plan states them and tests see leaks. Large memory (weights, cache,
 * workspace) comes as arenas: one anonymous mapping each, aligned to 2 MB and offered to the kernel
 * as huge pages, which is worth 5-20 % of read bandwidth on the machines we measured.
 *
 * An arena may be opened with all pages touched: what the plan promised is then really there, and
 * no later access can meet a full machine. A counting arena has no memory; the dry run of the plan
 * uses it.
 *
 * What depends on data from outside, a template or a tokenizer's tables, runs behind a fence: the
 * thread's own count of bytes, so that a bound need not be proved for every way through (ME-3).
 *
 * Where the owner has set a limit, the plan is the guard's (ME-4): what would go beyond it is
 * refused like memory that the system has not, so that a plan that is wrong ends in a message and
 * not in somebody else's death. It does not see what libraries allocate; a cgroup does.
 *
 * After start the engine's threads are frozen: an allocation there is a mistake of ours. It ends
 * checked builds (ME-1).
 *
 * Next: base/buf.c. */
#include "base/mem.h"

#include "base/cell.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HEADER     16 /* bytes in front of each block: its size; keeps 16-byte alignment */
#define HUGE_PAGE  ((size_t)2 << 20)
#define SMALL_PAGE ((size_t)4096)
#define TAKE_ALIGN 64

#define POPULATE_READ  22 /* MADV_POPULATE_READ, Linux 5.14: older headers lack the name */
#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, too */

static struct cell used_bytes;
static struct cell peak_bytes;
static struct cell held_bytes;    /* used_bytes, and of arenas */
static struct cell granted_bytes; /* most that held_bytes may be; 0: there is no guard */
static pthread_mutex_t grants = PTHREAD_MUTEX_INITIALIZER;
static int n_grant; /* under the lock */
static _Thread_local size_t thread_bytes;
static _Thread_local bool is_thread_frozen;
static _Thread_local size_t fence_left = SIZE_MAX; /* bytes; SIZE_MAX: there is no fence */
static _Thread_local bool is_fence_met;

bool mem_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) {
        return false;
    }
    *out = r;
    return true;
}

bool mem_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) {
        return false;
    }
    *out = r;
    return true;
}

size_t mem_round(size_t x, size_t to)
{
    return (x + to - 1) & ~(to - 1);
}

/* ME-1: a thread that has frozen itself asked for memory all the same. */
static void note_frozen(void)
{
    (void)ALWAYS(!is_thread_frozen);
}

/* ME-3: takes n bytes from what the fence leaves; false when that is too little. */
static bool pass_fence(size_t n)
{
    if (n > fence_left) {
        is_fence_met = true;
        return false;
    }
    fence_left -= fence_left != SIZE_MAX ? n : 0;
    return true;
}

static void leave_fence(size_t n)
{
    fence_left += fence_left != SIZE_MAX ? n : 0;
}

bool mem_fence(size_t n_bytes)
{
    const bool was_met = is_fence_met;
    fence_left = n_bytes;
    is_fence_met = false;
    return was_met;
}

/* Takes n bytes from what is granted; false, and nothing is taken, when that is too little. Of two
 * threads that ask for the last bytes at once, both may be refused. */
static bool pass_guard(size_t n)
{
    cell_add(&held_bytes, n);
    const uint64_t most = cell_get(&granted_bytes);
    if (most == 0 || cell_get(&held_bytes) <= most) {
        return true;
    }
    cell_add(&held_bytes, 0 - (uint64_t)n);
    return false;
}

static void leave_guard(size_t n)
{
    cell_add(&held_bytes, 0 - (uint64_t)n);
}

void mem_grant(size_t n_bytes, size_t before)
{
    pthread_mutex_lock(&grants);
    cell_set(&granted_bytes, cell_get(&granted_bytes) + n_bytes + (n_grant == 0 ? before : 0));
    n_grant++;
    pthread_mutex_unlock(&grants);
}

void mem_ungrant(size_t n_bytes)
{
    pthread_mutex_lock(&grants);
    n_grant--;
    cell_set(&granted_bytes, n_grant == 0 ? 0 : cell_get(&granted_bytes) - n_bytes);
    pthread_mutex_unlock(&grants);
}

bool mem_is_guarded(void)
{
    return cell_get(&granted_bytes) != 0;
}

size_t mem_held_bytes(void)
{
    return (size_t)cell_get(&held_bytes);
}

/* The peak may miss a short overlap of two threads; it is a figure for people. */
static void count(size_t n, size_t old)
{
    cell_add(&used_bytes, n - old);
    thread_bytes += n - old;
    const uint64_t now = cell_get(&used_bytes);
    if (now > cell_get(&peak_bytes)) {
        cell_set(&peak_bytes, now);
    }
}

/* A block is  | size | 8 bytes unused | what the caller gets ... |. */
static size_t size_of(const void *p)
{
    size_t n;
    memcpy(&n, (const char *)p - HEADER, sizeof n);
    return n;
}

static void *with_header(char *block, size_t n)
{
    memcpy(block, &n, sizeof n);
    return block + HEADER;
}

void *mem_alloc(size_t n_bytes)
{
    note_frozen();
    if (n_bytes == 0 || n_bytes > SIZE_MAX - HEADER) {
        return NULL;
    }
    if (!pass_fence(n_bytes)) {
        return NULL;
    }
    if (!pass_guard(n_bytes)) {
        leave_fence(n_bytes);
        return NULL;
    }
    char *block = calloc(1, n_bytes + HEADER);
    if (block == NULL) {
        leave_fence(n_bytes);
        leave_guard(n_bytes);
        return NULL;
    }
    count(n_bytes, 0);
    return with_header(block, n_bytes);
}

void *mem_alloc_array(size_t n, size_t each_bytes)
{
    size_t bytes = 0;
    return mem_mul(n, each_bytes, &bytes) ? mem_alloc(bytes) : NULL;
}

/* The count changes by the difference; unsigned arithmetic lets it fall, too. */
void *mem_realloc(void *p, size_t n_bytes)
{
    if (p == NULL) {
        return mem_alloc(n_bytes);
    }
    note_frozen();
    if (n_bytes == 0 || n_bytes > SIZE_MAX - HEADER) {
        return NULL;
    }
    const size_t old = size_of(p);
    const size_t more = n_bytes > old ? n_bytes - old : 0;
    if (!pass_fence(more)) {
        return NULL;
    }
    if (!pass_guard(more)) {
        leave_fence(more);
        return NULL;
    }
    char *block = realloc((char *)p - HEADER, n_bytes + HEADER);
    if (block == NULL) {
        leave_fence(more);
        leave_guard(more);
        return NULL;
    }
    leave_fence(n_bytes < old ? old - n_bytes : 0);
    leave_guard(n_bytes < old ? old - n_bytes : 0);
    count(n_bytes, old);
    return with_header(block, n_bytes);
}

void mem_free(void *p)
{
    if (p != NULL) {
        count(0, size_of(p));
        leave_fence(size_of(p));
        leave_guard(size_of(p));
        free((char *)p - HEADER);
    }
}

char *mem_strdup(const char *s, size_t n)
{
    char *copy = n < SIZE_MAX ? mem_alloc(n + 1) : NULL;
    if (copy != NULL && n > 0) {
        memcpy(copy, s, n);
    }
    return copy;
}

size_t mem_thread_bytes(void)
{
    return thread_bytes;
}

size_t mem_used_bytes(void)
{
    return (size_t)cell_get(&used_bytes);
}

size_t mem_peak_bytes(void)
{
    return (size_t)cell_get(&peak_bytes);
}

void mem_freeze(bool is_frozen)
{
    is_thread_frozen = is_frozen;
}

/* --- arenas -------------------------------------------------------------------------------- */

/* Faults in n bytes of whole pages; 0 or an errno. A kernel before 5.14 does not know the advice:
 * there, one write a page. It must not undo what another thread writes at the same moment, hence an
 * atomic operation that changes nothing (relaxed: it orders nothing). */
static int populate(uint8_t *from, size_t n)
{
    if (madvise(from, n, POPULATE_WRITE) == 0) {
        return 0;
    }
    if (errno != EINVAL) {
        return errno;
    }
    for (size_t i = 0; i < n; i += SMALL_PAGE) {
        (void)__atomic_fetch_or(from + i, 0, __ATOMIC_RELAXED);
    }
    return 0;
}

static enum err refused(size_t n_bytes, int why)
{
    return err_set(ERR_MEMORY, "the system cannot provide %zu MiB of memory now: %s",
                   mem_round(n_bytes, 1 << 20) >> 20, strerror(why));
}

/* Pages are taken now and not one by one in the middle of an answer. Where memory is short the
 * kernel may still kill rather than refuse: that there is enough is the plan's matter. */
enum err arena_touch(const struct arena *a, size_t at, size_t n_bytes)
{
    if (a->is_counting || n_bytes == 0 || at >= a->cap) {
        return ERR_OK;
    }
    const size_t end = n_bytes < a->cap - at ? at + n_bytes : a->cap;
    const size_t from = at & ~(SMALL_PAGE - 1);
    if (a->is_file) { /* a kernel that does not know the advice: pages come when they are read */
        const int rc = madvise(a->base + from, mem_round(end - from, SMALL_PAGE), POPULATE_READ);
        REQUIRE(rc == 0 || errno == EINVAL, ERR_IO,
                "bytes %zu to %zu of the file cannot be read: %s", from, end, strerror(errno));
        return ERR_OK;
    }
    const int why = populate(a->base + from, mem_round(end - from, SMALL_PAGE));
    return why == 0 ? ERR_OK : refused(end - from, why);
}

/* Large arenas begin at a 2 MB border, so that the kernel can back them with pages of that size: a
 * table entry then covers 512 times as much, and walking weights misses the TLB as much less
 * often. */
static enum err open_mapping(struct arena *a, size_t cap_bytes, bool touch)
{
    const bool is_large = cap_bytes >= 2 * HUGE_PAGE;
    const size_t slack = is_large ? HUGE_PAGE : 0;
    REQUIRE(cap_bytes < SIZE_MAX / 2, ERR_MEMORY,
            "%zu bytes of memory in one piece: the address space holds at most %zu", cap_bytes,
            SIZE_MAX / 2);
    const size_t cap = mem_round(cap_bytes > 0 ? cap_bytes : 1, SMALL_PAGE);
    uint8_t *map = mmap(NULL, cap + slack, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(map != MAP_FAILED, ERR_MEMORY, "the system refuses %zu MiB of memory: %s",
            mem_round(cap, 1 << 20) >> 20, strerror(errno));
    uint8_t *base = map;
    bool is_huge = false;
    if (is_large) { /* give back what lies before and behind the aligned part */
        base = (uint8_t *)mem_round((size_t)map, HUGE_PAGE);
        if (base > map) {
            munmap(map, (size_t)(base - map));
        }
        if (slack > (size_t)(base - map)) {
            munmap(base + cap, slack - (size_t)(base - map));
        }
        is_huge = madvise(base, cap, MADV_HUGEPAGE) == 0;
    }
    const int why = touch ? populate(base, cap) : 0;
    if (why != 0) {
        munmap(base, cap);
        return refused(cap, why);
    }
    *a = (struct arena){ .base = base, .cap = cap, .mapped = cap, .is_huge = is_huge };
    return ERR_OK;
}

enum err arena_open(struct arena *a, size_t cap_bytes, bool touch)
{
    note_frozen();
    const size_t n =
        mem_round(cap_bytes > 0 && cap_bytes < SIZE_MAX / 2 ? cap_bytes : 1, SMALL_PAGE);
    REQUIRE(pass_guard(n), ERR_MEMORY, "%zu MiB of memory are more than the plan has left of %zu",
            mem_round(n, 1 << 20) >> 20, (size_t)cell_get(&granted_bytes) >> 20);
    const enum err e = open_mapping(a, cap_bytes, touch);
    if (e != ERR_OK) {
        leave_guard(n);
    }
    return e;
}

/* --- files that are mapped -------------------------------------------------------------------- */

#define FILES_MAX 16 /* more are not mended */

static struct {
    struct cell base; /* 0: free */
    struct cell n;
} files[FILES_MAX];
static struct cell is_torn;

static void note_file(const uint8_t *base, size_t n)
{
    for (int i = 0; i < FILES_MAX; i++) {
        if (cell_get(&files[i].base) == 0) {
            cell_set(&files[i].n, n);
            cell_set(&files[i].base, (uint64_t)(uintptr_t)base);
            return;
        }
    }
}

static void forget_file(const uint8_t *base)
{
    for (int i = 0; i < FILES_MAX; i++) {
        if (cell_get(&files[i].base) == (uint64_t)(uintptr_t)base) {
            cell_set(&files[i].base, 0);
        }
    }
}

/* 2 MB at once, so that not each page takes a signal. */
bool mem_mend(const void *at)
{
    const int before = errno;
    const uint64_t place = (uint64_t)(uintptr_t)at;
    bool is_mended = false;
    for (int i = 0; i < FILES_MAX && !is_mended; i++) {
        const uint64_t base = cell_get(&files[i].base);
        const uint64_t end = base + cell_get(&files[i].n);
        if (base == 0 || place < base || place >= end) {
            continue;
        }
        const uint64_t chunk = place / HUGE_PAGE * HUGE_PAGE;
        const uint64_t from = chunk > base ? chunk : base;
        const uint64_t to = chunk + HUGE_PAGE < end ? chunk + HUGE_PAGE : end;
        cell_set(&is_torn, 1);
        is_mended = mmap((void *)(uintptr_t)from, to - from, PROT_READ,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
    }
    errno = before;
    return is_mended;
}

bool mem_is_torn(void)
{
    return cell_get(&is_torn) != 0;
}

/* The file's pages in the page cache are of 2 MB where it was written or read so (ext4, XFS): the
 * advice makes reading do that, and the kernel's choice of address lets them be mapped as such. */
enum err arena_open_file(struct arena *a, int fd, uint64_t at, size_t n_bytes)
{
    note_frozen();
    uint8_t *map = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, fd, (off_t)at);
    REQUIRE(map != MAP_FAILED, ERR_MEMORY, "the system refuses to map %zu MiB of a file: %s",
            mem_round(n_bytes, 1 << 20) >> 20, strerror(errno));
    const bool is_huge = n_bytes >= 2 * HUGE_PAGE && madvise(map, n_bytes, MADV_HUGEPAGE) == 0;
    *a = (struct arena){ .base = map,
                         .cap = n_bytes,
                         .used = n_bytes,
                         .peak = n_bytes,
                         .mapped = n_bytes,
                         .is_huge = is_huge,
                         .is_file = true };
    note_file(map, n_bytes);
    return ERR_OK;
}

void arena_open_counting(struct arena *a)
{
    *a = (struct arena){ .is_counting = true };
}

void arena_close(struct arena *a)
{
    if (a->base != NULL && !a->is_counting) {
        if (a->is_file) {
            forget_file(a->base);
        }
        munmap(a->base, a->mapped);
        leave_guard(a->is_file ? 0 : a->mapped);
    }
    *a = (struct arena){ 0 };
}

/* A counting arena gives the same address every time: the dry run asks for buffers as the real one
 * does, and nobody may look into them. */
void *arena_take(struct arena *a, size_t n_bytes)
{
    static _Alignas(TAKE_ALIGN) uint8_t nothing[TAKE_ALIGN]; /* what a counting arena gives out */
    if (n_bytes > SIZE_MAX / 2 || a->used > SIZE_MAX / 2) {
        return NULL;
    }
    const size_t n = mem_round(n_bytes, TAKE_ALIGN);
    if (!a->is_counting && n > a->cap - a->used) {
        return NULL;
    }
    void *p = a->is_counting ? nothing : a->base + a->used;
    a->used += n;
    a->peak = a->used > a->peak ? a->used : a->peak;
    return p;
}

size_t arena_mark(const struct arena *a)
{
    return a->used;
}

void arena_rewind(struct arena *a, size_t mark)
{
    if (ALWAYS(mark <= a->used)) {
        a->used = mark;
    }
}
