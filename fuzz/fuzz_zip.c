/* fuzz_zip - arbitrary bytes as a zip archive, all members read
 *
 * The source is included, because the module belongs to the program and only its inside knows how
 * many members there are. A member gives what its entry says or fails (ZI-1), never more, in
 * memory that does not depend on its size. */
#include "../src/cmd/zip.c"

#include "fuzz.h"

#define READ_MAX   ((uint64_t)64 << 20) /* of all members together: deflate may grow by 1032 */
#define MEMORY_MAX (sizeof(struct reading) + ((size_t)1 << 16))

struct sink {
    uint64_t n, n_max, n_all;
    size_t used_bytes;
    uint32_t crc;
};

static enum err take(void *arg, const void *bytes, size_t n)
{
    struct sink *s = arg;
    s->n += n;
    s->n_all += n;
    s->crc = (uint32_t)crc32(s->crc, bytes, (uInt)n);
    demand(s->n <= s->n_max, "no more than announced");
    demand(mem_used_bytes() <= s->used_bytes + MEMORY_MAX, "little memory");
    return s->n_all <= READ_MAX ? ERR_OK : err_set(ERR_LIMIT, "enough for this input");
}

static void read_members(const struct zip *z, size_t n)
{
    struct sink s = { .used_bytes = mem_used_bytes() };
    demand(z->n_member <= n / ENTRY_BYTES, "no more members than fit");
    for (size_t i = 0; i < z->n_member && s.n_all <= READ_MAX; i++) {
        const struct member *m = &z->members[i];
        char *name = mem_strdup(m->name.p, m->name.n);
        uint64_t size = 0;
        const size_t found = zip_find(z, name, &size);
        demand(strlen(name) < m->name.n || (found <= i && size == z->members[found].bytes),
               "a member by its name");
        mem_free(name);
        s.n = 0;
        s.crc = 0;
        s.n_max = m->bytes;
        const enum err e = zip_read(z, i, take, &s);
        if (e == ERR_OK) {
            demand(s.n == m->bytes && s.crc == m->crc, "what the entry says");
        } else {
            demand_error(e);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[FUZZ_PATH_MAX];
    const int fd = fuzz_file(bytes, n, path);
    const struct fuzz_run run = fuzz_begin();
    struct zip *z = NULL;
    const enum err e = zip_open(&z, path);
    if (e == ERR_OK) {
        read_members(z, n);
    } else {
        demand_error(e);
        demand(z == NULL, "no archive after a failure");
    }
    zip_close(z);
    fuzz_end(run);
    close(fd);
    return 0;
}
