/* conf - one table of commands and options: parsing, --help, man page and completion (cmd/conf.c)
 *
 * A row is an option: its name, what it takes, which commands know it, one line of help. Everything
 * that speaks about options is made from the rows. Owner: the main thread. */
#ifndef HEARTH_CONF_H
#define HEARTH_CONF_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum conf_command {
    CONF_RUN,
    CONF_SERVE,
    CONF_PLAN,
    CONF_BENCH,
    CONF_TUNE,
    CONF_DOCTOR,
    CONF_PULL,
    CONF_LIST,
    CONF_SHOW,
    CONF_RM,
    CONF_VERIFY,
    CONF_LOGITS,
    CONF_TOKENIZE,
    CONF_DETOKENIZE,
    CONF_RENDER,
    CONF_DEQUANT,
    CONF_MAN,
    CONF_COMPLETION,
    CONF_COMMAND_COUNT,
};

/* Every option's value, with its default set by conf_parse. */
struct conf {
    enum conf_command command;
    const char *model;  /* MODEL, positional or --model */
    const char *prompt; /* run: PROMPT; other commands: second positional */
    int64_t ctx;
    int64_t parallel;
    int64_t threads;
    int64_t max_tokens;
    int64_t top_k;
    double temperature;
    double top_p;
    double min_p;
    int64_t seed; /* -1: random */
    bool has_seed;
    const char *system;
    const char *template_file;
    const char *isa;
    const char *kv;
    const char *draft;
    const char *out;
    const char *in;
    const char *type;
    const char *name;
    const char *host;
    const char *key_file;
    int64_t port;
    int64_t queue;
    int64_t grace_s;
    int64_t max_clients;
    int64_t max_body_mib;
    int64_t prefill;
    int64_t decode;
    int64_t depth;
    int64_t batch;
    int64_t beside;
    int64_t memory_mib;
    bool is_json;
    bool is_packed;
    bool is_verbose;
    bool is_kernels;
    bool is_limits;
    bool is_raw;
    bool is_ignore_eos;
};

/* Parses argv; --help and --version print and return with *is_done set. ERR_USAGE with a text that
 * names the option, and the nearest known name when it is misspelt. */
enum err conf_parse(struct conf *c, int argc, char **argv, bool *is_done) MUST_USE;

/* Adds the command line, for a shell: MODEL, and options with whole numbers or texts that are not
 * as usual. */
void conf_line(const struct conf *c, struct buf *out);
bool conf_is_near(const char *word, const char *known); /* perhaps a misspelling of it */

void conf_man(struct buf *out); /* hearth(1) in roff with the man macros */
/* shell: "bash", "zsh" or "fish"; else ERR_USAGE. */
enum err conf_completion(const char *shell, struct buf *out) MUST_USE;

#endif
