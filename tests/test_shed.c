/* test_shed - a service while others eat the memory: ready, refusing, ready again
 *
 * Serves a model of a few kilobytes over a made up tree of /proc and /sys, which changes under way. The clock is the real one and a
 * jump: what takes ten seconds of quiet is not waited for. */
#include "base/cell.h"
#include "base/log.h"
#include "base/team.h"
#include "gguf_tiny.h"
#include "serve/pressure.h"
#include "serve/server.h"
#include "tree.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_S 60 /* for what is waited for */

static struct cell jump_us;
static struct hearth_box *box;
static char model_path[64];

static uint64_t real_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static uint64_t now_us(void)
{
    return real_us() + cell_get(&jump_us);
}

/* Of 16 GiB so many MiB are left, and programs stand still for a share of the time. */
static void put_box(int left_mib, const char *full_percent)
{
    char text[256];
    snprintf(text, sizeof text, "MemTotal: 16777216 kB\nMemAvailable: %d kB\n", left_mib * 1024);
    put("proc/meminfo", text);
    snprintf(text, sizeof text,
             "some avg10=%s avg60=0.00 avg300=0.00 total=9\nfull avg10=%s avg60=0.00 avg300=0.00 "
             "total=8\n",
             full_percent, full_percent);
    put("proc/pressure/memory", text);
}

/* --- a client --------------------------------------------------------------------------------- */

static int port;

static int connect_to(void)
{
    const struct sockaddr_in to = { .sin_family = AF_INET,
                                    .sin_port = htons((uint16_t)port),
                                    .sin_addr = { htonl(INADDR_LOOPBACK) } };
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int small = 4096; /* so that who does not read is noticed */
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void send_to(int fd, const char *method, const char *path, const char *body)
{
    char text[1024];
    const int n = snprintf(text, sizeof text,
                           "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                           "Content-Length: %zu\r\n\r\n%s",
                           method, path, strlen(body), body);
    assert_int_equal(write(fd, text, (size_t)n), n);
}

/* All until the other side closes; the status. */
static int receive(int fd, struct buf *out)
{
    char piece[4096];
    ssize_t n = 1;
    buf_reset(out);
    while (n > 0) {
        n = read(fd, piece, sizeof piece);
        if (n > 0) {
            buf_add(out, piece, (size_t)n);
        }
    }
    close(fd);
    const char *text = buf_str(out);
    return strncmp(text, "HTTP/1.1 ", 9) == 0 ? (int)strtol(text + 9, NULL, 10) : -1;
}

static int ask(const char *method, const char *path, const char *body, struct buf *out)
{
    const int fd = connect_to();
    send_to(fd, method, path, body);
    return receive(fd, out);
}

/* Asks /readyz until that is in the answer. jump_s: of the clock, before each further try. */
static void wait_for(const char *part, uint64_t jump_s, struct buf *out)
{
    const uint64_t until = real_us() + LIMIT_S * 1000000ull;
    (void)ask("GET", "/readyz", "", out);
    while (strstr(buf_str(out), part) == NULL) {
        assert_true(real_us() < until);
        cell_add(&jump_us, jump_s * 1000000);
        (void)poll(NULL, 0, 20);
        (void)ask("GET", "/readyz", "", out);
    }
}

static void has(const struct buf *b, const char *part)
{
    if (strstr(buf_str((struct buf *)b), part) == NULL) {
        print_message("\"%s\" is not in:\n%s\n", part, buf_str((struct buf *)b));
        fail();
    }
}

/* --- the service ------------------------------------------------------------------------------ */

struct service {
    struct server *s;
    struct thread *thread;
    enum err result;
};

static void serve(void *arg)
{
    struct service *v = arg;
    v->result = server_run(v->s);
}

static void start(struct service *v)
{
    struct server_params p = { .host = "127.0.0.1",
                               .model_path = model_path,
                               .model_id = "tiny",
                               .box = box,
                               .n_client_max = 16,
                               .body_max_bytes = (uint64_t)1 << 20,
                               .grace_us = 1000000,
                               .psi_root = top };
    hearth_model_init(&p.model);
    p.model.n_ctx = 1024;
    p.model.n_parallel = 2;
    p.model.n_queue = 4;
    p.model.extra_bytes = server_extra_bytes(&p);
    assert_int_equal(hearth_plan_make(box, model_path, &p.model, &p.plan), HEARTH_OK);
    assert_int_equal(p.plan.mapped_bytes, 0);
    p.plan.mapped_bytes = 4096; /* as of an image */
    assert_int_equal(server_open(&v->s, &p), ERR_OK);
    port = server_port(v->s);
    assert_int_equal(thread_start(&v->thread, "serve", serve, v), ERR_OK);
}

static void end(struct service *v)
{
    server_stop(v->s);
    thread_join(v->thread);
    assert_int_equal(v->result, ERR_OK);
    server_close(v->s);
}

/* What the service says on standard error meanwhile. */
static int log_fd;
static int stderr_fd; /* where it goes else */

static void log_has(const char *part)
{
    char text[65536];
    const ssize_t n = pread(log_fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    if (strstr(text, part) == NULL) {
        print_message("\"%s\" is not in the log:\n%s\n", part, text);
        fail();
    }
}

#define COMPLETION "{\"prompt\":\"ABC\",\"max_tokens\":3,\"ignore_eos\":true}"
#define ENDLESS                                                                                    \
    "{\"prompt\":\"ABC\",\"max_tokens\":900,\"ignore_eos\":true,\"stream\":true,\"logprobs\":20}"

static void test_course(void **state)
{
    struct service v = { 0 };
    struct buf out;
    (void)state;
    buf_init(&out, (size_t)16 << 20);
    put_box(8000, "0.00");
    start(&v);
    wait_for("\"ready\"", 0, &out);
    assert_int_equal(ask("POST", "/v1/completions", COMPLETION, &out), 200);
    ask("GET", "/metrics", "", &out);
    has(&out, "\nhearth_memory_pressure_state 0.0\n");
    has(&out, "\nhearth_memory_pressure_ratio{of=\"box\",kind=\"full\"} 0");
    has(&out, "\nhearth_memory_left_bytes{of=\"box\"} 8388603904\n");
    cell_add(&jump_us, PRESSURE_SETTLE_US);
    wait_for("\"ready\"", 0, &out);
    /* a stream that runs when it begins, and one that waits behind it, are answered to their end */
    int streams[4];
    for (int i = 0; i < 4; i++) {
        streams[i] = connect_to();
        send_to(streams[i], "POST", "/v1/completions", ENDLESS);
    }
    const uint64_t until = real_us() + LIMIT_S * 1000000ull;
    do {
        assert_true(real_us() < until);
        ask("GET", "/metrics", "", &out);
    } while (strstr(buf_str(&out), "hearth_requests_total 5\n") == NULL);
    put_box(200, "34.50");
    wait_for("are left", 1, &out);
    has(&out, "503 Service Unavailable");
    has(&out, "\"not ready\"");
    has(&out, "200 of 16384 MiB are left on this box, and its programs stood still for 34.5 %");
    assert_int_equal(ask("GET", "/healthz", "", &out), 200);
    assert_int_equal(ask("GET", "/v1/models", "", &out), 200);
    static const char *const paths[] = { "/v1/completions", "/v1/chat/completions", "/tokenize",
                                         "/detokenize" };
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_int_equal(ask("POST", paths[i], COMPLETION, &out), 503);
        has(&out, "\"code\":\"memory_pressure\"");
        has(&out, "\"type\":\"overloaded_error\"");
        has(&out, "memory is short: 200 of 16384 MiB are left");
        has(&out, "Retry-After: 10\r\n");
    }
    ask("GET", "/metrics", "", &out);
    has(&out, "\nhearth_memory_pressure_state 2.0\n");
    has(&out, "\nhearth_memory_pressure_ratio{of=\"box\",kind=\"full\"} 0.345\n");
    has(&out, "\nhearth_requests_running 2.0\n");
    has(&out, "\nhearth_requests_queued 2.0\n");
    has(&out, "\nhearth_requests_shed_total 4\n");
    has(&out, "\nhearth_memory_warnings_total 1\n");
    has(&out, "\nhearth_memory_sheddings_total 1\n");
    has(&out, "\nhearth_ready 0.0\n");
    has(&out, "{path=\"/tokenize\",code=\"503\"} 1\n");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(receive(streams[i], &out), 200);
        has(&out, "\"finish_reason\":\"length\"");
        has(&out, "data: [DONE]");
    }
    put_box(6000, "30.00"); /* room is enough, whoever still waits */
    wait_for("\"ready\"", 4, &out);
    assert_int_equal(ask("POST", "/v1/completions", COMPLETION, &out), 200);
    ask("GET", "/metrics", "", &out);
    has(&out, "\nhearth_requests_shed_total 4\n");
    has(&out, "\nhearth_memory_sheddings_total 1\n");
    end(&v);
    log_has("memory gets short: 200 of 16384 MiB");
    log_has("memory is short, new requests are refused: 200 of 16384 MiB");
    log_has("memory is short no more, requests are taken again: 6000 of 16384 MiB");
    log_has("refused=503 code=memory_pressure");
    buf_release(&out);
}

/* A kernel that tells no pressure: said once, and what is left decides. */
static void test_untold(void **state)
{
    struct service v = { 0 };
    struct buf out;
    char path[128];
    (void)state;
    buf_init(&out, (size_t)1 << 20);
    put_box(8000, "0.00");
    snprintf(path, sizeof path, "%s/proc/pressure/memory", top);
    assert_int_equal(unlink(path), 0);
    start(&v);
    wait_for("\"ready\"", 0, &out);
    put("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 20480 kB\n");
    cell_add(&jump_us, PRESSURE_SETTLE_US);
    wait_for("are left", 1, &out);
    has(&out, "20 of 16384 MiB are left on this box\"");
    ask("GET", "/metrics", "", &out);
    assert_null(strstr(buf_str(&out), "hearth_memory_pressure_ratio{of"));
    put("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 2048000 kB\n");
    wait_for("\"ready\"", 4, &out);
    end(&v);
    log_has("does not tell whether programs wait for memory");
    buf_release(&out);
}

static int setup(void **state)
{
    static const struct os_hooks hooks = { .now_us = now_us };
    char path[128];
    if (tree_setup(state) != 0 || hearth_box_open(NULL, &box) != HEARTH_OK) {
        return -1;
    }
    (void)tiny_model(model_path);
    os_hook(&hooks);
    log_level_set(LOG_INFO);
    snprintf(path, sizeof path, "%s/log", top);
    log_fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    stderr_fd = dup(STDERR_FILENO);
    return log_fd >= 0 && stderr_fd >= 0 ? 0 : -1;
}

static int hide_log(void **state)
{
    (void)state;
    return dup2(log_fd, STDERR_FILENO) == STDERR_FILENO ? 0 : -1;
}

static int show_log(void **state)
{
    (void)state;
    return dup2(stderr_fd, STDERR_FILENO) == STDERR_FILENO ? 0 : -1;
}

static int teardown(void **state)
{
    hearth_box_close(box);
    return tree_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_course, hide_log, show_log),
        cmocka_unit_test_setup_teardown(test_untold, hide_log, show_log),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
