/* fuzz_keys - arbitrary bytes as a file of API keys
 *
 * A file that is taken opens with exactly the keys that its lines hold, by a second reading here;
 * what is no key of the file does not open. */
#include "fuzz.h"
#include "serve/keys.h"

#include <string.h>
#include <strings.h>

static struct view trimmed(struct view v)
{
    while (v.n > 0 && strchr(" \t", v.p[0]) != NULL && v.p[0] != '\0') {
        v = view_from(v, 1);
    }
    while (v.n > 0 && strchr(" \t\r", v.p[v.n - 1]) != NULL && v.p[v.n - 1] != '\0') {
        v.n--;
    }
    return v;
}

static void check_lines(const struct keys *k, struct view text)
{
    size_t n = 0;
    for (size_t at = 0; at < text.n;) {
        const size_t end = view_find(text, VIEW("\n"), at);
        const struct view line = trimmed(view_part(text, at, end == SIZE_MAX ? text.n : end - at));
        at = end == SIZE_MAX ? text.n : end + 1;
        if (line.n == 0 || line.p[0] == '#') {
            continue;
        }
        n++;
        if (line.n >= 7 && strncasecmp(line.p, "sha256:", 7) == 0) {
            demand(line.n == 7 + 64, "a digest's length");
            continue;
        }
        demand(line.n >= KEYS_BYTES_MIN && line.n <= KEYS_BYTES_MAX, "a key's length");
        demand(keys_check(k, line), "a key of the file opens");
    }
    demand(n == keys_count(k) && n > 0 && n <= KEYS_MAX, "as many keys as lines");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[FUZZ_PATH_MAX];
    const struct view text = { (const char *)bytes, n };
    const int fd = fuzz_file(bytes, n, path);
    const struct fuzz_run run = fuzz_begin();
    struct keys *k = NULL;
    const enum err e = keys_open(&k, path);
    if (e == ERR_OK) {
        check_lines(k, text);
        demand(!keys_check(k, VIEW("")) && !keys_check(k, VIEW("no key of \n any file")),
               "what is no key does not open");
    } else {
        demand_error(e);
        demand(k == NULL, "no keys after a failure");
    }
    keys_close(k);
    fuzz_end(run);
    close(fd);
    return 0;
}
