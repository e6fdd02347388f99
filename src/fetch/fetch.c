/* hearth-fetch - one file from an https address, resumed where an earlier try ended
 *
 *   hearth-fetch URL FILE VALIDATOR
 *
 * The only program of hearth that opens a connection outwards; `hearth pull` starts it, `hearth
 * serve` never does, and neither links libcurl. It appends to FILE and tells its parent on standard
 * output, line by line:
 *
 *   validator TEXT    the server's ETag or date; the parent gives it back when it resumes
 *   total N           size of the whole file
 *   at N              bytes in FILE now
 *   done N            finished; exit code 0
 *   error CODE TEXT   failed; CODE is one of enum err's values, also the exit code
 *
 * A file is resumed (Range) only when the server says that it is still the same one: it is asked
 * (If-Range with VALIDATOR), and its answer must carry that validator; else it begins again from
 * the front. A cut connection and an overloaded server
 * are tried again some times, an address that does not exist or a refused certificate is not.
 *
 * Only https, also after redirects; plain http is allowed to the loopback addresses, for tests and
 * for a mirror on the same box. Certificates are checked against the system's list, always. Nothing
 * is sent but the request: no cookies, no account files, no machine names.
 *
 * Stands alone: it shares no code with hearth, so that what can connect stays small. */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* As in src/base/err.h. */
enum code {
    CODE_OK = 0,
    CODE_USAGE = 2,
    CODE_NOT_FOUND = 3,
    CODE_INTEGRITY = 5,
    CODE_AUTH = 6,
    CODE_NET = 7,
    CODE_IO = 9,
    CODE_LIMIT = 11,
    CODE_AGAIN = 100, /* worth another try; never leaves this file */
};

#define TRIES_MAX     6   /* without a byte of progress */
#define TRIES_ALL     100 /* in all */
#define WAIT_FIRST_MS 200
#define CONNECT_S     30
#define STALL_S       60
#define BYTES_MAX     ((uint64_t)1 << 42) /* no model file is larger than 4 TB */
#define REPORT_MS     100
#define VALIDATOR_MAX 200

struct fetch {
    const char *url;
    int fd;
    uint64_t n;           /* bytes in the file */
    uint64_t total;       /* of the whole file; 0 = not known */
    uint64_t reported_ms; /* when the parent last heard */
    long status;          /* of the response that is coming in */
    bool is_begun;        /* its headers were looked at */
    bool has_range;       /* Content-Range was read */
    uint64_t range_at;
    uint64_t range_total;
    uint64_t length;
    char validator[VALIDATOR_MAX];
    char new_etag[VALIDATOR_MAX];
    char new_date[VALIDATOR_MAX];
    char location[300]; /* where the last redirect led; printable */
    enum code failure;
    char text[400]; /* of the failure */
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Remembers why it failed; the first reason counts. */
static enum code fail(struct fetch *f, enum code code, const char *what, const char *detail)
{
    if (f->failure == CODE_OK) {
        f->failure = code;
        snprintf(f->text, sizeof f->text, "%s%s%s", what, detail[0] != '\0' ? ": " : "", detail);
    }
    return f->failure;
}

/* Lines for the parent. If it is gone there is nobody to fetch for. */
static void say(const char *word, uint64_t n)
{
    if (printf("%s %llu\n", word, (unsigned long long)n) < 0 || fflush(stdout) != 0) {
        exit(CODE_IO);
    }
}

static void say_at(struct fetch *f, bool always)
{
    const uint64_t now = now_ms();
    if (always || now - f->reported_ms >= REPORT_MS) {
        f->reported_ms = now;
        say("at", f->n);
    }
}

/* --- headers */

/* A number at *p, which moves behind it; false when there is none or it overflows. */
static bool number(const char **p, uint64_t *out)
{
    uint64_t v = 0;
    const char *begin = *p;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        if (v > BYTES_MAX) {
            return false;
        }
        v = v * 10 + (uint64_t)(**p - '0');
    }
    *out = v;
    return *p > begin;
}

/* "bytes 100-199/1000" or "bytes *(slash)1000" */
static void read_range(struct fetch *f, const char *p)
{
    uint64_t last = 0;
    if (strncasecmp(p, "bytes ", 6) != 0) {
        return;
    }
    p += 6;
    if (*p == '*') {
        p++;
    } else if (!number(&p, &f->range_at) || *p++ != '-' || !number(&p, &last)) {
        return;
    }
    f->has_range = *p++ == '/' && number(&p, &f->range_total);
}

static bool is_header(const char *line, const char *name, const char **value)
{
    const size_t n = strlen(name);
    if (strncasecmp(line, name, n) != 0 || line[n] != ':') {
        return false;
    }
    *value = line + n + 1;
    while (**value == ' ' || **value == '\t') {
        (*value)++;
    }
    return true;
}

static size_t on_header(char *bytes, size_t each, size_t n, void *arg)
{
    struct fetch *f = arg;
    char line[512];
    const char *v = NULL;
    const size_t all = each * n;
    size_t len = all < sizeof line - 1 ? all : sizeof line - 1;
    memcpy(line, bytes, len);
    while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n')) {
        len--;
    }
    line[len] = '\0';
    if (strncmp(line, "HTTP/", 5) == 0) { /* a new response: the last one was a redirect */
        f->has_range = false;
        f->length = 0;
        f->new_etag[0] = f->new_date[0] = '\0';
    } else if (is_header(line, "Content-Range", &v)) {
        read_range(f, v);
    } else if (is_header(line, "Content-Length", &v)) {
        uint64_t length = 0;
        f->length = number(&v, &length) ? length : 0;
    } else if (is_header(line, "ETag", &v) && v[0] == '"') { /* weak ones cannot be compared */
        snprintf(f->new_etag, sizeof f->new_etag, "%.199s", v);
    } else if (is_header(line, "Last-Modified", &v)) {
        snprintf(f->new_date, sizeof f->new_date, "%.199s", v);
    } else if (is_header(line, "Location", &v)) {
        snprintf(f->location, sizeof f->location, "%.299s", v);
        for (char *c = f->location; *c != '\0'; c++) {
            *c = *c >= ' ' && *c <= '~' ? *c : '?';
        }
    }
    return all;
}

/* --- the body */

static enum code begin_again(struct fetch *f)
{
    if (ftruncate(f->fd, 0) != 0 || lseek(f->fd, 0, SEEK_SET) != 0) {
        return fail(f, CODE_IO, "cannot empty the file", strerror(errno));
    }
    f->n = 0;
    return CODE_OK;
}

static enum code check_room(struct fetch *f)
{
    struct statvfs v;
    char text[128];
    if (f->total > BYTES_MAX) {
        return fail(f, CODE_LIMIT, "the server announces more than 4 TB", "");
    }
    if (fstatvfs(f->fd, &v) != 0 || f->total <= f->n) {
        return CODE_OK;
    }
    const uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
    if (f->total - f->n <= room) {
        return CODE_OK;
    }
    snprintf(text, sizeof text, "%llu bytes are needed, %llu are left",
             (unsigned long long)(f->total - f->n), (unsigned long long)room);
    return fail(f, CODE_IO, "the disk is too small", text);
}

/* Whether the response is of the file that FILE began with. If-Range asks the server for that, but
 * caches and simple servers answer with a range of whatever is there now. */
static bool is_same_file(const struct fetch *f)
{
    const char *now = f->validator[0] == '"' ? f->new_etag : f->new_date;
    return f->validator[0] != '\0' && strcmp(f->validator, now) == 0;
}

/* Looks at the status before the first byte is written. */
static enum code begin_body(struct fetch *f, CURL *curl)
{
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &f->status);
    f->is_begun = true;
    if (f->status == 206) {
        if (!f->has_range || f->range_at != f->n) {
            return fail(f, CODE_INTEGRITY, "the server sent another range than asked for", "");
        }
        if (f->n > 0 && !is_same_file(f)) {
            snprintf(f->text, sizeof f->text, "the file changed while it was fetched");
            return begin_again(f) == CODE_OK ? CODE_AGAIN : f->failure;
        }
        f->total = f->range_total;
    } else if (f->status == 200) {
        if (begin_again(f) != CODE_OK) {
            return f->failure;
        }
        f->total = f->length;
    } else {
        return CODE_OK; /* an error page, which is not written */
    }
    const char *validator = f->new_etag[0] != '\0' ? f->new_etag : f->new_date;
    snprintf(f->validator, sizeof f->validator, "%s", validator);
    if (printf("validator %s\n", f->validator) < 0) {
        exit(CODE_IO);
    }
    say("total", f->total);
    return check_room(f);
}

struct body {
    struct fetch *f;
    CURL *curl;
};

static size_t on_body(char *bytes, size_t each, size_t n, void *arg)
{
    const struct body *b = arg;
    struct fetch *f = b->f;
    const size_t all = each * n;
    if (!f->is_begun && begin_body(f, b->curl) != CODE_OK) {
        return 0;
    }
    if (f->status != 200 && f->status != 206) {
        return all;
    }
    if (all > BYTES_MAX - f->n || (f->total > 0 && all > f->total - f->n)) {
        fail(f, CODE_INTEGRITY, "the server sends more than it announced", "");
        return 0;
    }
    for (size_t done = 0; done < all;) {
        const ssize_t got = write(f->fd, bytes + done, all - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            const int saved = errno;
            if (saved == ENOSPC && begin_again(f) == CODE_OK) { /* others need the room, too */
                fail(f, CODE_IO, "cannot write, the disk is full; what had come was removed", "");
            }
            fail(f, CODE_IO, "cannot write", strerror(saved));
            return 0;
        }
        done += (size_t)got;
        f->n += (size_t)got;
    }
    say_at(f, false);
    return all;
}

/* --- one try, and several */

/* What a response that is no success means. */
static enum code judge_status(struct fetch *f)
{
    char text[64];
    snprintf(text, sizeof text, "the server answered %ld", f->status);
    snprintf(f->text, sizeof f->text, "%s", text); /* should it be worth another try */
    switch (f->status) {
    case 401:
    case 403:
        return fail(f, CODE_AUTH, text, "it wants to know who asks");
    case 404:
    case 410:
        return fail(f, CODE_NOT_FOUND, text, "there is no such file");
    case 416: /* the range begins behind the end: either all is there, or the file is another one */
        if (f->has_range && f->range_total == f->n && f->n > 0 &&
            ((f->new_etag[0] == '\0' && f->new_date[0] == '\0') || is_same_file(f))) {
            f->total = f->n;
            return CODE_OK;
        }
        return begin_again(f) == CODE_OK ? CODE_AGAIN : f->failure;
    case 408:
    case 425:
    case 429:
        return CODE_AGAIN;
    default:
        return f->status >= 500 ? CODE_AGAIN : fail(f, CODE_NET, text, "");
    }
}

static enum code judge(struct fetch *f, CURL *curl, CURLcode rc, const char *detail)
{
    if (f->failure != CODE_OK) {
        return f->failure;
    }
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &f->status);
    switch (rc) {
    case CURLE_OK:
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return fail(f, CODE_NET, "the server's certificate is not trusted", detail);
    case CURLE_UNSUPPORTED_PROTOCOL:
        if (f->location[0] != '\0') {
            return fail(f, CODE_USAGE, "a redirect may lead to https only, it leads to",
                        f->location);
        }
        return fail(f, CODE_USAGE, "only https is allowed (plain http on loopback only)", detail);
    case CURLE_URL_MALFORMAT:
        return fail(f, CODE_USAGE, "not an address", detail);
    case CURLE_TOO_MANY_REDIRECTS:
        return fail(f, CODE_NET, "too many redirects", "");
    case CURLE_WRITE_ERROR: /* begin_body wants another try and said why */
        return CODE_AGAIN;
    default:
        snprintf(f->text, sizeof f->text, "%s",
                 detail[0] != '\0' ? detail : curl_easy_strerror(rc));
        return CODE_AGAIN;
    }
    if (f->status != 200 && f->status != 206) {
        return judge_status(f);
    }
    const enum code begun = f->is_begun ? CODE_OK : begin_body(f, curl); /* an empty file */
    if (begun != CODE_OK) {
        return begun;
    }
    if (f->total > 0 && f->n != f->total) {
        snprintf(f->text, sizeof f->text, "the connection ended after %llu of %llu bytes",
                 (unsigned long long)f->n, (unsigned long long)f->total);
        return CODE_AGAIN;
    }
    return CODE_OK;
}

/* Plain http is for this machine only. */
static bool is_loopback(const char *url)
{
    char *host = NULL;
    CURLU *u = curl_url();
    bool is_own = false;
    if (u != NULL && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK) {
        is_own = strcmp(host, "127.0.0.1") == 0 || strcmp(host, "[::1]") == 0 ||
                 strcmp(host, "localhost") == 0;
    }
    curl_free(host);
    curl_url_cleanup(u);
    return is_own;
}

static void set_options(struct fetch *f, CURL *curl, struct body *body, char *detail)
{
    curl_easy_setopt(curl, CURLOPT_URL, f->url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, is_loopback(f->url) ? "https,http" : "https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 5L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "hearth-fetch/1");
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, f);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
}

static enum code try_once(struct fetch *f)
{
    char detail[CURL_ERROR_SIZE] = "";
    char range[32];
    char condition[VALIDATOR_MAX + 16];
    struct curl_slist *headers = NULL;
    CURL *curl = curl_easy_init();
    struct body body = { f, curl };
    if (curl == NULL) {
        return fail(f, CODE_IO, "libcurl does not start", "");
    }
    f->is_begun = f->has_range = false;
    f->location[0] = '\0';
    set_options(f, curl, &body, detail);
    if (f->n > 0 && f->validator[0] == '\0' && begin_again(f) != CODE_OK) {
        curl_easy_cleanup(curl);
        return f->failure;
    }
    if (f->n > 0) {
        snprintf(range, sizeof range, "%llu-", (unsigned long long)f->n);
        snprintf(condition, sizeof condition, "If-Range: %s", f->validator);
        headers = curl_slist_append(NULL, condition);
        curl_easy_setopt(curl, CURLOPT_RANGE, range);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    }
    const CURLcode rc = curl_easy_perform(curl);
    const enum code code = judge(f, curl, rc, detail);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return code;
}

static enum code fetch(struct fetch *f)
{
    enum code code = CODE_AGAIN;
    uint64_t wait_ms = WAIT_FIRST_MS;
    int n_idle = 0;
    for (int i = 0; i < TRIES_ALL && n_idle < TRIES_MAX && code == CODE_AGAIN; i++) {
        if (i > 0) {
            say_at(f, true);
            const struct timespec t = { (time_t)(wait_ms / 1000),
                                        (long)(wait_ms % 1000) * 1000000 };
            nanosleep(&t, NULL);
            wait_ms *= 2;
        }
        const uint64_t before = f->n;
        code = try_once(f);
        n_idle++;
        if (f->n > before) { /* it moves: patience begins anew */
            n_idle = 0;
            wait_ms = WAIT_FIRST_MS;
        }
    }
    if (code == CODE_AGAIN) {
        char last[sizeof f->text];
        snprintf(last, sizeof last, "%s", f->text);
        snprintf(f->text, sizeof f->text, "given up after several tries%s%.300s",
                 last[0] != '\0' ? ": " : "", last);
        return CODE_NET;
    }
    return code;
}

int main(int argc, char **argv)
{
    static struct fetch f;
    struct stat st;
    if (argc != 4) {
        fprintf(stderr, "usage: hearth-fetch URL FILE VALIDATOR\n");
        return CODE_USAGE;
    }
    f.url = argv[1];
    snprintf(f.validator, sizeof f.validator, "%s", argv[3]);
    f.fd = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (f.fd < 0 || fstat(f.fd, &st) != 0) {
        printf("error %d %s: %s\n", CODE_IO, argv[2], strerror(errno));
        return CODE_IO;
    }
    f.n = (uint64_t)st.st_size;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        printf("error %d libcurl does not start\n", CODE_IO);
        return CODE_IO;
    }
    enum code code = fetch(&f);
    if (code == CODE_OK && (fsync(f.fd) != 0 || close(f.fd) != 0)) {
        code = fail(&f, CODE_IO, "cannot sync", strerror(errno));
    }
    curl_global_cleanup();
    if (code != CODE_OK) {
        printf("error %d %s\n", code, f.text);
        return (int)code;
    }
    say_at(&f, true);
    say("done", f.n);
    return 0;
}
