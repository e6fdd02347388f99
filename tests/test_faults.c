/* test_faults - memory, threads and descriptors that are refused, one after the other
 *
 * What `hearth run` and `hearth serve` do to begin and to answer once is done again and again, and
 * each time the next request to the system is refused. Every time the result must be an error with
 * a text of one line, and everything taken must be given back: memory, mappings, descriptors,
 * threads.
 *
 * Includes the files that ask the system, under names of functions that may refuse. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

static _Atomic long n_left;     /* requests until one is refused; 0: none is */
static _Atomic size_t n_mapped; /* bytes of mappings */

static bool refuses(int why)
{
    errno = why;
    return atomic_load(&n_left) > 0 && atomic_fetch_sub(&n_left, 1) == 1;
}

static void *map_counted(void *at, size_t n, int may, int flags, int fd, off_t from)
{
    void *p = refuses(ENOMEM) ? MAP_FAILED : mmap(at, n, may, flags, fd, from);
    atomic_fetch_add(&n_mapped, p != MAP_FAILED ? n : 0);
    return p;
}

static int unmap_counted(void *p, size_t n)
{
    atomic_fetch_sub(&n_mapped, n);
    return munmap(p, n);
}

#define calloc(n, each)     (refuses(ENOMEM) ? NULL : calloc(n, each))
#define realloc(p, n)       (refuses(ENOMEM) ? NULL : realloc(p, n))
#define mmap(...)           map_counted(__VA_ARGS__)
#define munmap(...)         unmap_counted(__VA_ARGS__)
#define madvise(...)        (refuses(ENOMEM) ? -1 : madvise(__VA_ARGS__))
#define eventfd(...)        (refuses(EMFILE) ? -1 : eventfd(__VA_ARGS__))
#define pthread_create(...) (refuses(EAGAIN) ? EAGAIN : pthread_create(__VA_ARGS__))
#include "base/event.c"
#include "base/mem.c"
#include "base/team.c"

#include "gguf_tiny.h"
#include "hearth.h"
#include "serve/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static char path[64]; /* of the model */

/* As `hearth run` with a prompt. */
static int run_once(void)
{
    struct hearth_box *box = NULL;
    struct hearth_model *m = NULL;
    struct hearth_request *r = NULL;
    struct hearth_request_params p;
    struct hearth_event e = { 0 };
    struct hearth_box_params bp;
    int32_t ids[64];
    size_t n = 64;
    hearth_box_init(&bp);
    bp.n_thread = 2;
    static const char chat[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"A\"}]}";
    hearth_status s = hearth_box_open(&bp, &box);
    s = s == HEARTH_OK ? hearth_model_open(box, path, NULL, &m) : s;
    s = s == HEARTH_OK ? hearth_chat_tokens(m, chat, sizeof chat - 1, ids, &n) : s;
    hearth_request_init(&p);
    p.tokens = ids;
    p.n_token = n;
    p.max_tokens = 2;
    s = s == HEARTH_OK ? hearth_submit(m, &p, &r) : s;
    while (s == HEARTH_OK && e.kind != HEARTH_EVENT_END) {
        s = hearth_next(r, 10000000, &e);
    }
    hearth_request_close(r);
    hearth_model_close(m);
    hearth_box_close(box);
    return (int)s;
}

static void stop_when_ready(void *arg, struct server *s, int is_ready)
{
    (void)arg;
    if (is_ready) {
        server_stop(s);
    }
}

/* As `hearth serve`, until the model is there. */
static int serve_once(void)
{
    struct hearth_box *box = NULL;
    struct hearth_box_params bp;
    hearth_box_init(&bp);
    bp.n_thread = 2;
    hearth_status s = hearth_box_open(&bp, &box);
    if (s != HEARTH_OK) {
        return (int)s;
    }
    struct server *server = NULL;
    struct server_params p = { .host = "127.0.0.1",
                               .model_path = path,
                               .model_id = "tiny",
                               .box = box,
                               .n_client_max = 4,
                               .body_max_bytes = 1 << 20,
                               .report = stop_when_ready };
    hearth_model_init(&p.model);
    p.model.extra_bytes = server_extra_bytes(&p);
    enum err e = server_open(&server, &p);
    e = e == ERR_OK ? server_run(server) : e;
    server_close(server);
    hearth_box_close(box);
    return (int)e;
}

static size_t count_in(const char *folder)
{
    size_t n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    while (readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n;
}

struct held {
    size_t bytes, mapped, files, threads;
};

static struct held held_now(void)
{
    return (struct held){ mem_used_bytes(), atomic_load(&n_mapped), count_in("/proc/self/fd"),
                          count_in("/proc/self/task") };
}

static size_t n_alone; /* threads while none of ours runs */

/* A thread that was joined may stand in /proc a moment longer. */
static void check_held(struct held before, long n)
{
    struct held now = held_now();
    for (int i = 0; i < 100000 && now.threads > before.threads; i++) {
        sched_yield();
        now = held_now();
    }
    if (memcmp(&now, &before, sizeof now) != 0) {
        print_error("request %ld: held before and after: bytes %zu %zu, mapped %zu %zu, files %zu "
                    "%zu, threads %zu %zu\n",
                    n, before.bytes, now.bytes, before.mapped, now.mapped, before.files, now.files,
                    before.threads, now.threads);
        fail();
    }
}

/* A few refusals change nothing: of large pages, and of buffers for what /proc and cgroups say. */
static void refuse_each(int (*once)(void))
{
    long n_survived = 0;
    assert_int_equal(once(), 0);
    n_alone = SIZE_MAX;
    for (int i = 0; i < 2000; i++) { /* sanitizers have a thread of their own from now on */
        const size_t n = count_in("/proc/self/task");
        n_alone = n < n_alone ? n : n_alone;
        sched_yield();
    }
    for (long n = 1;; n++) {
        struct held before = held_now();
        before.threads = n_alone;
        atomic_store(&n_left, n);
        const int status = once();
        const bool was_refused = atomic_load(&n_left) == 0;
        atomic_store(&n_left, 0);
        const char *text = status != 0 ? hearth_error() : "";
        const bool is_told = (status == HEARTH_MEMORY || status == HEARTH_IO) && text[0] != '\0' &&
                             strchr(text, '\n') == NULL;
        n_survived += was_refused && status == 0;
        if (status != 0 && !(was_refused && is_told)) {
            print_error("request %ld: status %d, \"%s\"\n", n, status, text);
            fail();
        }
        check_held(before, n);
        if (!was_refused) {
            print_message("# %ld requests, %ld survived\n", n - 1, n_survived);
            assert_true(n - 1 > 40 && n_survived < n / 4);
            return;
        }
    }
}

static void test_run(void **state)
{
    (void)state;
    refuse_each(run_once);
}

static void test_serve(void **state)
{
    (void)state;
    refuse_each(serve_once);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_run), cmocka_unit_test(test_serve) };
    const int fd = tiny_model(path);
    const int n_bad = cmocka_run_group_tests(tests, NULL, NULL);
    close(fd);
    return n_bad;
}
