/* keys - the API keys that may use this service
 *
 * A key is a random token, so a plain SHA-256 of it is enough to keep: there is no dictionary to
 * try. A presented key is hashed and compared with every digest, each in constant time and without
 * leaving the loop early, so that neither the place of a key in the file nor its first letters can
 * be measured from outside (KY-1).
 *
 * Short keys are refused at start, since they can be guessed.
 *
 * Next: serve/api.c asks before anything else. */
#include "serve/keys.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define HEX            64
#define FILE_MAX_BYTES ((size_t)KEYS_MAX * (KEYS_BYTES_MAX + 80))

struct keys {
    size_t n;
    char hex[KEYS_MAX][HEX + 1];
};

static struct view trimmed(struct view v)
{
    while (v.n > 0 && (v.p[0] == ' ' || v.p[0] == '\t')) {
        v = view_from(v, 1);
    }
    while (v.n > 0 && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t' || v.p[v.n - 1] == '\r')) {
        v.n--;
    }
    return v;
}

static enum err add_digest(struct keys *k, struct view hex, size_t i_line)
{
    bool is_hex = hex.n == HEX;
    for (size_t i = 0; is_hex && i < HEX; i++) {
        is_hex = isxdigit((unsigned char)hex.p[i]);
        k->hex[k->n][i] = (char)tolower((unsigned char)hex.p[i]);
    }
    REQUIRE(is_hex, ERR_USAGE, "line %zu: sha256: wants %d hexadecimal digits", i_line, HEX);
    k->hex[k->n++][HEX] = '\0';
    return ERR_OK;
}

static enum err add_line(struct keys *k, struct view line, size_t i_line)
{
    line = trimmed(line);
    if (line.n == 0 || line.p[0] == '#') {
        return ERR_OK;
    }
    REQUIRE(k->n < KEYS_MAX, ERR_LIMIT, "line %zu: more than %d keys", i_line, KEYS_MAX);
    if (line.n >= 7 && strncasecmp(line.p, "sha256:", 7) == 0) {
        return add_digest(k, view_from(line, 7), i_line);
    }
    for (size_t i = 0; i < line.n; i++) {
        REQUIRE(line.p[i] > ' ' && line.p[i] < 127, ERR_USAGE,
                "line %zu: a key has printable characters without blanks only", i_line);
    }
    REQUIRE(line.n >= KEYS_BYTES_MIN && line.n <= KEYS_BYTES_MAX, ERR_USAGE,
            "line %zu: a key has %d to %d characters, this one %zu; 'openssl rand -hex 24' "
            "makes one",
            i_line, KEYS_BYTES_MIN, KEYS_BYTES_MAX, line.n);
    hash_sha256_of(line.p, line.n, k->hex[k->n++]);
    return ERR_OK;
}

static enum err add_all(struct keys *k, struct view text)
{
    size_t i_line = 1;
    for (size_t at = 0; at < text.n; i_line++) {
        const size_t end = view_find(text, VIEW("\n"), at);
        const size_t stop = end == SIZE_MAX ? text.n : end;
        TRY(add_line(k, view_part(text, at, stop - at), i_line));
        at = stop + 1;
    }
    REQUIRE(k->n > 0, ERR_USAGE, "it holds no key");
    return ERR_OK;
}

static void warn_if_open(const char *path)
{
    struct stat s;
    if (stat(path, &s) == 0 && (s.st_mode & 077) != 0) {
        log_event(LOG_WARN, "keys", "msg=\"others may read the key file; chmod 600\" path=\"%s\"",
                  path);
    }
}

enum err keys_open(struct keys **out, const char *path)
{
    struct buf text;
    buf_init(&text, FILE_MAX_BYTES);
    struct keys *k = mem_alloc(sizeof *k);
    enum err e = k != NULL ? ERR_OK : err_set(ERR_MEMORY, "no memory for API keys");
    e = e == ERR_OK ? os_read_file(path, &text) : e;
    const bool is_read = e == ERR_OK;
    e = is_read ? add_all(k, buf_view(&text)) : e;
    if (text.p != NULL) {
        memset(text.p, 0, text.n);
    }
    buf_release(&text);
    if (e != ERR_OK) {
        mem_free(k);
        return is_read ? err_at(e, "API key file %s", path) : err_at(e, "API key file");
    }
    warn_if_open(path);
    *out = k;
    return ERR_OK;
}

void keys_close(struct keys *k)
{
    mem_free(k);
}

size_t keys_count(const struct keys *k)
{
    return k != NULL ? k->n : 0;
}

bool keys_check(const struct keys *k, struct view presented)
{
    char hex[HEX + 1];
    if (presented.n == 0 || presented.n > KEYS_BYTES_MAX) {
        return false;
    }
    hash_sha256_of(presented.p, presented.n, hex);
    int n_same = 0;
    for (size_t i = 0; i < k->n; i++) {
        n_same += hash_same(hex, k->hex[i], HEX) != 0;
    }
    return n_same > 0;
}
