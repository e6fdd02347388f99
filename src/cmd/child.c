/* child - another program, run with a pipe from its standard output
 *
 * hearth fetches files through two helpers: its own hearth-fetch, the only program here that opens
 * a connection outwards, and pip, which knows the user's index, mirror and certificates. Both are
 * started without a shell, with an empty standard input, and with nothing of ours open but the
 * pipe; every descriptor of this program is close-on-exec. They die with this program, however it
 * ends: what they fetch is for nobody then, and the next pull would meet them in its folder. (That
 * is why they are forked here: posix_spawn has no word for it.)
 *
 * The end of the pipe is the end of the program: waiting for it with a time-out lets the caller
 * draw a progress bar meanwhile.
 *
 * Next: cmd/zip.c. */
#include "cmd/child.h"

#include "base/mem.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ERR_LOG_MAX ((size_t)1 << 20)

/* The environment with TMPDIR replaced; gives an array of borrowed strings but the last. */
static char **environment_with(char *temp)
{
    size_t n = 0;
    while (environ[n] != NULL) {
        n++;
    }
    char **all = mem_alloc_array(n + 2, sizeof all[0]);
    size_t used = 0;
    for (size_t i = 0; all != NULL && i < n; i++) {
        if (strncmp(environ[i], "TMPDIR=", 7) != 0) {
            all[used++] = environ[i];
        }
    }
    if (all != NULL) {
        all[used] = temp;
    }
    return all;
}

/* The new process, up to the moment when it becomes the program. Only what is safe between fork and
 * exec is called. A failure's errno goes through the pipe `failure`, which exec closes. */
static void become(const struct child *c, char *const *args, char **env, int out_end, int failure,
                   pid_t parent)
{
    const int in = open("/dev/null", O_RDONLY);
    const int log = open(c->err_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (in >= 0 && log >= 0 && dup2(in, STDIN_FILENO) >= 0 && dup2(out_end, STDOUT_FILENO) >= 0 &&
        dup2(log, STDERR_FILENO) >= 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0) {
        close(in);
        close(log);
        if (getppid() != parent) { /* it died before the line above */
            _exit(127);
        }
        execvpe(args[0], args, env);
    }
    const int code = errno;
    const ssize_t n = write(failure, &code, sizeof code);
    _exit(n == sizeof code ? 126 : 127);
}

static enum err spawn(struct child *c, const char *const *argv, char **env, int out_end)
{
    char *args[32];
    int ends[2];
    int code = 0;
    size_t n = 0;
    while (argv[n] != NULL && n + 1 < sizeof args / sizeof args[0]) {
        args[n] = (char *)(uintptr_t)argv[n]; /* the interface lacks a const */
        n++;
    }
    args[n] = NULL;
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0, ERR_IO, "no pipe: %s", strerror(errno));
    const pid_t parent = getpid();
    c->pid = fork();
    if (c->pid == 0) {
        become(c, args, env, out_end, ends[1], parent);
    }
    code = c->pid < 0 ? errno : 0;
    c->pid = c->pid < 0 ? 0 : c->pid;
    close(ends[1]);
    while (c->pid > 0 && read(ends[0], &code, sizeof code) < 0 && errno == EINTR) {
    }
    close(ends[0]);
    REQUIRE(code == 0, code == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot start %s: %s", argv[0],
            strerror(code));
    return ERR_OK;
}

enum err child_start(struct child *c, const char *const *argv, const char *temp_dir,
                     const char *err_path)
{
    *c = (struct child){ .out = -1 };
    char temp[OS_PATH_BYTES];
    int ends[2];
    snprintf(temp, sizeof temp, "TMPDIR=%s", temp_dir != NULL ? temp_dir : "");
    c->err_path = mem_strdup(err_path, strlen(err_path));
    char **env = temp_dir != NULL ? environment_with(temp) : environ;
    enum err e = ERR_OK;
    if (c->err_path == NULL || env == NULL) {
        e = err_set(ERR_MEMORY, "no memory to start %s", argv[0]);
    } else if (pipe2(ends, O_CLOEXEC) != 0) {
        e = err_set(ERR_IO, "no pipe: %s", strerror(errno));
    } else {
        e = spawn(c, argv, env, ends[1]);
        close(ends[1]);
        c->out = ends[0];
    }
    if (temp_dir != NULL) {
        mem_free(env);
    }
    if (e != ERR_OK) {
        int code = 0;
        child_finish(c, &code, NULL);
    }
    return e;
}

bool child_is_done(struct child *c, int timeout_ms)
{
    char piece[512];
    struct pollfd p = { .fd = c->out, .events = POLLIN };
    const int n = poll(&p, 1, timeout_ms);
    return n > 0 && read(c->out, piece, sizeof piece) <= 0;
}

/* The last line that is not empty. */
static void add_last_line(struct buf *to, struct view text)
{
    while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == ' ')) {
        text.n--;
    }
    size_t at = text.n;
    while (at > 0 && text.p[at - 1] != '\n') {
        at--;
    }
    utf8_clean(to, view_from(text, at));
}

void child_finish(struct child *c, int *exit_code, struct buf *last_line)
{
    int status = 0;
    if (c->out >= 0) {
        close(c->out);
    }
    while (c->pid > 0 && waitpid(c->pid, &status, 0) < 0 && errno == EINTR) {
    }
    *exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (c->err_path != NULL) {
        struct buf text;
        buf_init(&text, ERR_LOG_MAX);
        if (last_line != NULL && os_exists(c->err_path)) {
            const enum err e =
                os_read_file(c->err_path, &text); /* too long: its beginning serves */
            (void)e;
            add_last_line(last_line, buf_view(&text));
        }
        buf_release(&text);
        unlink(c->err_path);
    }
    mem_free(c->err_path);
    *c = (struct child){ .out = -1 };
}
