/* main - the hearth program: from a command line to one of its commands
 *
 * Nothing happens here but choosing, and a look at the standard streams before and after. Before:
 * those that are closed are filled, lest a file that is opened later gets their number. After: what
 * could not be written to standard output (a full disk) is a failure like any other, while a reader
 * that went away ends the program by SIGPIPE.
 *
 * Where a command takes MODEL, it is resolved here, so that a file and a name in the store are the
 * same to all of them. Exit codes are the status values of include/hearth.h; `hearth man` lists
 * them, and a failure is one line on standard error.
 *
 * Commands of people use the public library or the store; the probes reach below it, for tests.
 *
 * Next: cmd/conf.c has the tables, cmd/cmd_*.c the commands. */
#include "base/cpu.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/team.h"
#include "base/topo.h"
#include "cmd/cmd_bench.h"
#include "cmd/cmd_doctor.h"
#include "cmd/cmd_plan.h"
#include "cmd/cmd_run.h"
#include "cmd/cmd_serve.h"
#include "cmd/cmd_tune.h"
#include "cmd/conf.h"
#include "cmd/open.h"
#include "cmd/probe_dequant.h"
#include "cmd/probe_logits.h"
#include "cmd/probe_render.h"
#include "cmd/probe_tokens.h"
#include "cmd/store.h"
#include "cmd/store_pull.h"
#include "cmd/store_show.h"
#include "kern/kern.h"
#include "model/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int fail(enum err e)
{
    return open_fail((hearth_status)e);
}

static int status(enum err e)
{
    return e == ERR_OK ? 0 : fail(e);
}

static int usage(const char *what)
{
    return fail(err_set(ERR_USAGE, "%s", what));
}

static int run_logits(const struct conf *c, const char *path)
{
    struct probe_logits_params p = { .model_path = path,
                                     .out_path = c->out,
                                     .kv = KERN_KV_F16,
                                     .isa = cpu_best(),
                                     .n_thread =
                                         c->threads > 0 ? (int32_t)c->threads : topo_threads(),
                                     .n_beside = (int32_t)c->beside };
    if (c->kv != NULL && !kern_kv_parse(c->kv, &p.kv)) {
        return usage("--kv: f16, bf16, q8_0 or f32 is wanted");
    }
    if (c->isa != NULL && !cpu_isa_parse(c->isa, &p.isa)) {
        return usage("--isa: one of " CPU_ISA_NAMES " is wanted");
    }
    if (!cpu_can(p.isa) || kern_get(p.isa) == NULL) {
        return fail(
            err_set(ERR_UNSUPPORTED, "this processor cannot run %s kernels", cpu_isa_name(p.isa)));
    }
    return status(probe_logits(&p));
}

/* The template of a model. */
static int run_render(const char *path)
{
    struct gguf *g = NULL;
    struct view source = { NULL, 0 };
    enum err e = gguf_open(&g, path);
    e = e == ERR_OK ? gguf_string(g, "tokenizer.chat_template", &source, NULL) : e;
    const int code = e == ERR_OK ? probe_render(NULL, source) : fail(e);
    gguf_close(g);
    return code;
}

static int run_dequant(const struct conf *c)
{
    if (c->type == NULL || c->in == NULL || c->out == NULL) {
        return usage("dequant needs --type T --in FILE --out FILE");
    }
    return probe_dequant(c->type, c->in, c->out);
}

static int print_made(const struct conf *c)
{
    struct buf text;
    enum err e = ERR_OK;
    buf_init(&text, 1 << 20);
    if (c->command == CONF_MAN) {
        conf_man(&text);
    } else {
        e = conf_completion(c->model, &text);
    }
    fputs(buf_str(&text), stdout);
    buf_release(&text);
    return e == ERR_OK ? 0 : fail(e);
}

/* What a bus error says, made before one can come. owner: the main thread, then the handler */
static char bus_text[OS_PATH_BYTES + 200] = "hearth: a file was shortened, or cannot be read any "
                                            "more\n";

/* draft: NULL without. */
static void name_in_bus_error(const char *model, const char *draft)
{
    struct buf plain; /* a name may have control characters, and this goes to a terminal */
    buf_init(&plain, OS_PATH_BYTES);
    utf8_plain(&plain, view_of(model), SIZE_MAX, false);
    if (draft != NULL) {
        buf_add_str(&plain, " or ");
        utf8_plain(&plain, view_of(draft), SIZE_MAX, false);
    }
    snprintf(bus_text, sizeof bus_text,
             "hearth: %s: its file was shortened, or cannot be read any more; hearth verify tells "
             "what is damaged\n",
             buf_str(&plain));
    buf_release(&plain);
}

/* Errors say a name of the store as the user does. has_use: see store_resolve. */
static enum err resolve(const char *model, bool has_use, struct buf *path)
{
    TRY(store_resolve(model, has_use, path));
    if (!store_is_file(model)) {
        open_name(buf_str(path), model);
    }
    return ERR_OK;
}

/* What needs a model's path: MODEL is a file or a name in the store. */
static int run_model(const struct conf *c)
{
    if (c->model == NULL) {
        return c->command == CONF_BENCH    ? cmd_bench(c, NULL)
               : c->command == CONF_DOCTOR ? cmd_doctor(c, NULL)
               : c->command == CONF_SERVE  ? usage("serve needs --model MODEL")
               : c->command == CONF_RENDER ? usage("render needs --template FILE or -m MODEL")
                                           : usage("the probe needs -m MODEL");
    }
    struct buf path;
    struct buf draft;
    struct conf own = *c;
    buf_init(&path, 8192);
    buf_init(&draft, 8192);
    enum err e = resolve(c->model, c->command != CONF_SHOW, &path);
    if (e == ERR_OK && c->draft != NULL) {
        e = resolve(c->draft, true, &draft);
        own.draft = buf_str(&draft);
    }
    name_in_bus_error(c->model, c->draft);
    c = &own;
    int code = 0;
    if (e != ERR_OK) {
        code = fail(e);
    } else if (c->command == CONF_RUN) {
        code = cmd_run(c, buf_str(&path));
    } else if (c->command == CONF_SERVE) {
        code = cmd_serve(c, buf_str(&path));
    } else if (c->command == CONF_PLAN) {
        code = cmd_plan(c, buf_str(&path));
    } else if (c->command == CONF_BENCH) {
        code = cmd_bench(c, buf_str(&path));
    } else if (c->command == CONF_TUNE) {
        code = cmd_tune(c, buf_str(&path));
    } else if (c->command == CONF_DOCTOR) {
        code = cmd_doctor(c, buf_str(&path));
    } else if (c->command == CONF_SHOW) { /* the GGUF file, not the image that is made of it */
        code = status(store_cmd_show(c->model, buf_str(&path), c->is_json));
    } else if (c->command == CONF_LOGITS) {
        code = run_logits(c, buf_str(&path));
    } else if (c->command == CONF_RENDER) {
        code = run_render(buf_str(&path));
    } else if (c->command == CONF_TOKENIZE) {
        code = status(probe_tokenize(buf_str(&path)));
    } else {
        code = status(probe_detokenize(buf_str(&path)));
    }
    buf_release(&path);
    buf_release(&draft);
    return code;
}

static int run(const struct conf *c)
{
    switch (c->command) {
    case CONF_RUN:
    case CONF_SERVE:
    case CONF_PLAN:
    case CONF_BENCH:
    case CONF_TUNE:
    case CONF_DOCTOR:
    case CONF_SHOW:
    case CONF_LOGITS:
    case CONF_TOKENIZE:
    case CONF_DETOKENIZE:
        return run_model(c);
    case CONF_PULL:
        return status(store_cmd_pull(c->model, c->name, c->is_packed, c->is_json));
    case CONF_LIST:
        return status(store_cmd_list(c->is_json));
    case CONF_RM:
        return status(store_cmd_rm(c->model, c->is_json));
    case CONF_VERIFY:
        return status(store_cmd_verify(c->model, c->is_json));
    case CONF_RENDER:
        return c->template_file != NULL ? probe_render(c->template_file, (struct view){ NULL, 0 })
                                        : run_model(c);
    case CONF_DEQUANT:
        return run_dequant(c);
    case CONF_MAN:
    case CONF_COMPLETION:
        return print_made(c);
    case CONF_COMMAND_COUNT:
        break;
    }
    return usage("no such command");
}

/* A standard stream that was closed must not become the number of a file that is opened later: what
 * is printed would be written into it. Read only, so that writing still fails. */
static void fill_standard_streams(void)
{
    int fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO) {
        fd = open("/dev/null", O_RDONLY);
    }
    close(fd);
}

/* A packed image is mapped: when somebody shortens its file, or the disk fails, reading it comes to
 * this. Requests end then, since the file is torn; the service does not. */
static void on_bus_error(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)context;
    if (mem_mend(info->si_addr)) {
        return;
    }
    const ssize_t n = write(STDERR_FILENO, bus_text, strlen(bus_text));
    (void)n;
    _exit(ERR_IO);
}

/* A limit below what the program's other threads get is refused by name: a stack that ends on the
 * way would end the program without a word. */
static enum err check_stack(void)
{
    struct rlimit r;
    REQUIRE(getrlimit(RLIMIT_STACK, &r) != 0 || r.rlim_cur >= TEAM_STACK_BYTES, ERR_LIMIT,
            "the stack may grow to %llu KiB here, %u are needed: raise the limit (ulimit -s %u)",
            (unsigned long long)r.rlim_cur >> 10, TEAM_STACK_BYTES >> 10, TEAM_STACK_BYTES >> 10);
    return ERR_OK;
}

int main(int argc, char **argv)
{
    fill_standard_streams();
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a failed write, not a death */
    (void)sigaction(
        SIGBUS, &(struct sigaction){ .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO }, NULL);
    struct conf c;
    bool is_done = false;
    enum err e = check_stack();
    e = e == ERR_OK ? conf_parse(&c, argc, argv, &is_done) : e;
    if (e != ERR_OK) {
        return fail(e);
    }
    log_level_set(c.is_verbose ? LOG_INFO : LOG_WARN);
    const int code = is_done ? 0 : run(&c);
    if ((fflush(stdout) != 0 || ferror(stdout) != 0) && (code == 0 || code == ERR_CANCELLED)) {
        return fail(err_set(ERR_IO, "cannot write to standard output: %s",
                            errno != 0 ? strerror(errno) : "the disk may be full"));
    }
    return code;
}
