/* conf - one table of commands and options
 *
 * Help texts, the man page, completions and the parser are all made from the two tables below, so
 * they cannot disagree. An option belongs to a set of commands; giving it to another one is an
 * error that says which commands know it. Options may stand before or after the command and take
 * their value as the next word or after "=". Numbers are parsed strictly: digits only (and where it
 * fits a point and an exponent), no sign, no blank, a stated range.
 *
 * There are few options on purpose: whatever the program can decide itself has none. There are no
 * environment switches.
 *
 * Next: cmd/main.c. */
#include "cmd/conf.h"

#include "base/cpu.h"
#include "cmd/wrap.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIT(c)   (1u << CONF_##c)
#define MODELS   (BIT(RUN) | BIT(SERVE) | BIT(PLAN) | BIT(BENCH))
#define SAMPLING (BIT(RUN))
#define PROBES   (BIT(LOGITS) | BIT(TOKENIZE) | BIT(DETOKENIZE) | BIT(RENDER))
#define COMPUTES (MODELS | BIT(LOGITS))
#define ALL      ((1u << CONF_COMMAND_COUNT) - 1)

static const struct command {
    const char *name;
    const char *arguments;
    const char *what;
    const char *more;
    int n_min; /* positional arguments, at least */
    int n_max; /* and at most */
} commands[CONF_COMMAND_COUNT] = {
    [CONF_RUN] = { "run", "MODEL [PROMPT]",
                   "chat with a model in the terminal, or answer one prompt",
                   "Without PROMPT and on a terminal, a chat: an empty line is ignored, a line "
                   "ending in \\ goes on, "
                   "Ctrl-C stops the answer, Ctrl-D ends; what was typed is kept for the next time "
                   "in "
                   "~/.local/state/hearth/run-history. With PROMPT, or with text on standard "
                   "input, one answer.",
                   1, 2 },
    [CONF_SERVE] = { "serve", "--model MODEL", "serve a model: OpenAI-compatible API and web page",
                     "Answers at /v1/chat/completions, /v1/completions, /v1/models, /tokenize, "
                     "/detokenize, /healthz, /readyz, /metrics; the page is at /. SIGTERM ends it "
                     "after the running answers. Other limits: 32 KiB of headers within 10 s, a "
                     "body within 60 s (64 KiB in every 10 s), 75 s between requests, 30 s for a "
                     "client that takes nothing of its answer; 4096 messages, 64 levels of JSON, "
                     "8 choices, 16 stop texts of 256 bytes, 1024 biases. While other programs "
                     "eat the memory, new requests get 503 memory_pressure, and /readyz says so.",
                     0, 1 },
    [CONF_PLAN] = { "plan", "MODEL",
                    "say what a model takes on this box, whether it fits, and how fast it is",
                    "Reads only the file's header; speeds are predicted by trying memory and "
                    "kernels "
                    "for a second. Exit code 4 when it does not fit; then the nearest plans that "
                    "do "
                    "are told. What serve "
                    "takes more is told beside; run counts 24 MiB more and 16 bytes for each of "
                    "its prompt (100 where that has over 300 kB). A chat counts as a prompt of 64 "
                    "KiB, or of 16 bytes for each token of the context.",
                    1, 1 },
    [CONF_BENCH] = { "bench", "MODEL", "measure prompt and answer speed, and the box's limits",
                     "With --kernels or --limits no MODEL is needed. The context is as long as "
                     "depth, prompt "
                     "and answer need, unless --ctx says more. Measuring the limits takes 384 MiB "
                     "or "
                     "more for a moment, within --memory.",
                     0, 1 },
    [CONF_TUNE] = { "tune", "MODEL", "find the best settings for this box, and store them",
                    "Measures threads and the size of the pieces in which prompts are computed, in "
                    "under a minute; any model does of which a token reads 32 MiB or more. run, "
                    "serve, plan and bench use what is stored in "
                    "~/.local/state/hearth/tune-N.json, N being the number of logical processors "
                    "that may be used (affinity and quotas count); answers do not change by it. "
                    "Options have precedence; "
                    "remove the file to be without it.",
                    1, 1 },
    [CONF_DOCTOR] = { "doctor", "[MODEL]", "say what is wrong with this box, and what to type",
                      "Looks at memory and who has it, settings of the kernel, clocks, limits, the "
                      "model store and its disk; says of each what it costs and what to type, and "
                      "changes no setting. Reads up to 512 MiB of the store's largest file, or of "
                      "MODEL, for three seconds at most. Exit code 1 when something is wrong; "
                      "notes may be meant so, and what the kernel does not tell is unknown. Try: "
                      "hearth doctor; for a script: hearth doctor --json; another disk: hearth "
                      "doctor /mnt/models/some.gguf.",
                      0, 1 },
    [CONF_PULL] = { "pull", "NAME|FILE|FOLDER|URL", "put a model into the store",
                    "NAME is a known short name, or that of a model in the store, which is then "
                    "pulled from where it came; hearth list shows both. A file that the store has "
                    "is read, and replaced when it is damaged; a packed image likewise. The store "
                    "takes one change at a time: beside a pull, another pull or rm ends with "
                    "exit code 75.",
                    1, 1 },
    [CONF_LIST] = { "list", "", "list the models in the store and the known names", "", 0, 0 },
    [CONF_SHOW] = { "show", "MODEL", "show a model file's metadata and tensors", "", 1, 1 },
    [CONF_RM] = { "rm", "MODEL", "take a model out of the store", "", 1, 1 },
    [CONF_VERIFY] = { "verify", "[MODEL]", "read a model again and compare its checksum",
                      "Without MODEL: all of the store. Exit code 5 when a file is damaged or "
                      "is no model. A file outside the store of which no checksum is known is "
                      "\"unknown\" (ok: null in JSON) when it could be read and parsed, with exit "
                      "code 0.",
                      0, 1 },
    [CONF_LOGITS] = { "logits", "-m MODEL", "probe: raw scores for given tokens (JSON Lines)", "",
                      0, 0 },
    [CONF_TOKENIZE] = { "tokenize", "-m MODEL", "probe: text to token ids (JSON Lines)", "", 0, 0 },
    [CONF_DETOKENIZE] = { "detokenize", "-m MODEL", "probe: token ids to bytes (JSON Lines)", "", 0,
                          0 },
    [CONF_RENDER] = { "render", "-m MODEL|--template FILE",
                      "probe: render a chat template (JSON Lines)", "", 0, 0 },
    [CONF_DEQUANT] = { "dequant", "--type T --in F --out F",
                       "probe: blocks of an element type to float32", "", 0, 0 },
    [CONF_MAN] = { "man", "", "print the manual page (for man -l -)", "", 0, 0 },
    [CONF_COMPLETION] = { "completion", "bash|zsh|fish", "print shell completion", "", 1, 1 },
};

enum kind { KIND_TEXT, KIND_INT, KIND_REAL, KIND_FLAG };

static const struct option {
    const char *name;
    const char *short_name;
    const char *value;
    const char *help;
    unsigned commands;
    enum kind kind;
    size_t at; /* in struct conf */
    double min;
    double max;
    double initial;
} options[] = {
#define O(field) offsetof(struct conf, field)
    { "model", "m", "MODEL", "model file, or a name in the store", PROBES | BIT(SERVE), KIND_TEXT,
      O(model), 0, 0, 0 },
    { "ctx", NULL, "N",
      "tokens a conversation may have (default 4096, or what the model was made for; serve takes "
      "less where that does not fit)",
      MODELS, KIND_INT, O(ctx), 2, 1 << 24, 0 },
    { "parallel", NULL, "N",
      "conversations generated at once (default: plan 1, serve 8 or what fits)",
      BIT(PLAN) | BIT(SERVE), KIND_INT, O(parallel), 1, 256, 0 },
    { "host", NULL, "H", "address to listen on; others than loopback need keys (default 127.0.0.1)",
      BIT(SERVE), KIND_TEXT, O(host), 0, 0, 0 },
    { "port", NULL, "P", "port to listen on; 0 = any free one (default 8080)", BIT(SERVE), KIND_INT,
      O(port), 0, 65535, 8080 },
    { "api-key-file", NULL, "F",
      "file with one API key (8 to 512 characters), or sha256:HEX of one, per line; # comments",
      BIT(SERVE), KIND_TEXT, O(key_file), 0, 0, 0 },
    { "queue", NULL, "N", "requests that may wait; more get 503 (default 64)", BIT(SERVE), KIND_INT,
      O(queue), 1, 4096, 64 },
    { "max-clients", NULL, "N", "open connections (default 256)", BIT(SERVE), KIND_INT,
      O(max_clients), 1, 4096, 256 },
    { "max-body", NULL, "MIB", "largest request body, in MiB (default 16)", BIT(SERVE), KIND_INT,
      O(max_body_mib), 1, 1024, 16 },
    { "grace", NULL, "S", "seconds for running answers when asked to end (default 30)", BIT(SERVE),
      KIND_INT, O(grace_s), 0, 86400, 30 },
    { "kv", NULL, "TYPE", "cache type: f16 (default), bf16, q8_0, f32", COMPUTES, KIND_TEXT, O(kv),
      0, 0, 0 },
    { "draft", NULL, "MODEL",
      "a small model of the same vocabulary that guesses tokens ahead; answers are the same",
      BIT(RUN) | BIT(SERVE) | BIT(PLAN), KIND_TEXT, O(draft), 0, 0, 0 },
    { "threads", NULL, "N", "threads that compute (default: one per core)", COMPUTES, KIND_INT,
      O(threads), 1, 256, 0 },
    { "isa", NULL, "NAME", "instruction set, for tests: " CPU_ISA_NAMES, COMPUTES, KIND_TEXT,
      O(isa), 0, 0, 0 },
    { "memory", NULL, "MIB", "most memory to use, in MiB (default: what is free)",
      MODELS | BIT(TUNE), KIND_INT, O(memory_mib), 1, 1 << 30, 0 },
    { "max-tokens", "n", "N", "most tokens of an answer (default: what the context leaves)",
      SAMPLING, KIND_INT, O(max_tokens), 1, 1 << 24, 0 },
    { "temp", NULL, "T", "temperature; 0 takes the best token (default 0.8)", SAMPLING, KIND_REAL,
      O(temperature), 0, 100, 0.8 },
    { "top-k", NULL, "N", "only the N best tokens; 0 = off (default 40)", SAMPLING, KIND_INT,
      O(top_k), 0, 1 << 24, 40 },
    { "top-p", NULL, "P", "only the best tokens with mass P; 1 = off (default 0.95)", SAMPLING,
      KIND_REAL, O(top_p), 1e-6, 1, 0.95 },
    { "min-p", NULL, "P",
      "only tokens with P of the best one's probability; 0 = off (default 0.05)", SAMPLING,
      KIND_REAL, O(min_p), 0, 1, 0.05 },
    { "seed", NULL, "S", "seed of the random numbers, 0 to 2^53 (default: random)", SAMPLING,
      KIND_INT, O(seed), 0, 9007199254740992.0, -1 },
    { "system", NULL, "TEXT", "system message", BIT(RUN), KIND_TEXT, O(system), 0, 0, 0 },
    { "raw", NULL, NULL, "no chat template: PROMPT is continued as it is", BIT(RUN), KIND_FLAG,
      O(is_raw), 0, 0, 0 },
    { "ignore-eos", NULL, NULL, "do not end where the model would", BIT(RUN), KIND_FLAG,
      O(is_ignore_eos), 0, 0, 0 },
    { "prefill", NULL, "N", "prompt tokens to measure (default 512)", BIT(BENCH), KIND_INT,
      O(prefill), 1, 1 << 24, 512 },
    { "decode", NULL, "N", "answer tokens to measure (default 64)", BIT(BENCH), KIND_INT, O(decode),
      1, 1 << 24, 64 },
    { "depth", NULL, "N", "tokens of context before both, made up (default 0)", BIT(BENCH),
      KIND_INT, O(depth), 0, 1 << 24, 0 },
    { "batch", NULL, "N", "conversations at once (default 1)", BIT(BENCH), KIND_INT, O(batch), 1,
      256, 1 },
    { "kernels", NULL, NULL, "print the kernels chosen for this machine", BIT(BENCH), KIND_FLAG,
      O(is_kernels), 0, 0, 0 },
    { "limits", NULL, NULL, "measure memory bandwidth and arithmetic peaks", BIT(BENCH), KIND_FLAG,
      O(is_limits), 0, 0, 0 },
    { "template", NULL, "FILE", "chat template", BIT(RENDER), KIND_TEXT, O(template_file), 0, 0,
      0 },
    { "beside", NULL, "N", "copies of each case computed in the same batch", BIT(LOGITS), KIND_INT,
      O(beside), 0, 31, 0 },
    { "out", "o", "FILE", "where the values go", BIT(LOGITS) | BIT(DEQUANT), KIND_TEXT, O(out), 0,
      0, 0 },
    { "in", NULL, "FILE", "blocks to decode", BIT(DEQUANT), KIND_TEXT, O(in), 0, 0, 0 },
    { "type", NULL, "T", "element type, as Q4_K", BIT(DEQUANT), KIND_TEXT, O(type), 0, 0, 0 },
    { "name", NULL, "NAME",
      "what the model is called in the store (default: as its file, or as the known model with its "
      "checksum)",
      BIT(PULL), KIND_TEXT, O(name), 0, 0, 0 },
    { "pack", NULL, NULL,
      "write a packed image beside it, anew when there is one, from which run and serve start "
      "several times as fast; it takes as much disk again",
      BIT(PULL), KIND_FLAG, O(is_packed), 0, 0, 0 },
    { "json", NULL, NULL, "machine-readable output",
      BIT(RUN) | BIT(PLAN) | BIT(BENCH) | BIT(TUNE) | BIT(DOCTOR) | BIT(PULL) | BIT(LIST) |
          BIT(SHOW) | BIT(RM) | BIT(VERIFY),
      KIND_FLAG, O(is_json), 0, 0, 0 },
    { "verbose", "v", NULL, "say more on standard error", ALL, KIND_FLAG, O(is_verbose), 0, 0, 0 },
#undef O
};
#define N_OPTION (sizeof options / sizeof options[0])

/* The values of hearth_status, which are the program's exit codes. */
static const struct {
    int code;
    const char *what;
} exits[] = {
    { 0, "success" },
    { 1, "failure" },
    { 2, "usage" },
    { 3, "not found" },
    { 4, "does not fit in memory" },
    { 5, "damaged data" },
    { 6, "not authorised" },
    { 7, "not reachable" },
    { 8, "refused by policy" },
    { 9, "input or output error" },
    { 10, "not supported" },
    { 11, "limit reached" },
    { 12, "cancelled" },
    { 75, "busy, try again" },
};
#define N_EXIT (sizeof exits / sizeof exits[0])

/* --- parsing ---------------------------------------------------------------------------------- */

/* Levenshtein distance of two short words, at most 32 letters each. */
static size_t distance(const char *a, const char *b)
{
    size_t row[33];
    const size_t n = strlen(b);
    if (strlen(a) > 32 || n > 32) {
        return 99;
    }
    for (size_t k = 0; k <= n; k++) {
        row[k] = k;
    }
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t corner = row[0];
        row[0] = i + 1;
        for (size_t k = 0; k < n; k++) {
            const size_t swap = corner + (a[i] != b[k]);
            const size_t longer = (row[k] < row[k + 1] ? row[k] : row[k + 1]) + 1;
            corner = row[k + 1];
            row[k + 1] = swap < longer ? swap : longer;
        }
    }
    return row[n];
}

bool conf_is_near(const char *word, const char *known)
{
    return distance(word, known) <= (strlen(word) > 3 ? 2 : 1);
}

static const struct option *find_option(const char *name, size_t n, bool is_short)
{
    for (size_t i = 0; i < N_OPTION; i++) {
        const char *known = is_short ? options[i].short_name : options[i].name;
        if (known != NULL && strlen(known) == n && memcmp(known, name, n) == 0) {
            return &options[i];
        }
    }
    return NULL;
}

/* Digits, perhaps with a point and an exponent; strtod alone takes signs, blanks, hex and names. */
static bool parse_real(const char *text, double *v)
{
    char *rest = NULL;
    if (text[0] == '\0' || strchr(".0123456789", text[0]) == NULL ||
        text[strspn(text, ".0123456789eE+-")] != '\0') {
        return false;
    }
    *v = strtod(text, &rest);
    return rest != text && *rest == '\0' && isfinite(*v);
}

static enum err set_value(struct conf *c, const struct option *o, const char *text)
{
    void *at = (char *)c + o->at;
    if (o->kind == KIND_TEXT) {
        REQUIRE(text[0] != '\0' || strcmp(o->value, "TEXT") == 0, ERR_USAGE,
                "--%s is empty: %s is wanted (%s)", o->name, o->value, o->help);
        memcpy(at, &text, sizeof text);
        return ERR_OK;
    }
    if (o->kind == KIND_INT) {
        uint64_t v = 0;
        REQUIRE(view_u64(view_of(text), &v) && v >= (uint64_t)o->min && v <= (uint64_t)o->max,
                ERR_USAGE, "--%s is \"%.40s\": a whole number from %.0f to %.0f is wanted", o->name,
                text, o->min, o->max);
        const int64_t value = (int64_t)v;
        memcpy(at, &value, sizeof value);
        return ERR_OK;
    }
    double v = 0.0;
    REQUIRE(parse_real(text, &v) && v >= o->min && v <= o->max, ERR_USAGE,
            "--%s is \"%.40s\": a number from %g to %g is wanted", o->name, text, o->min, o->max);
    memcpy(at, &v, sizeof v);
    return ERR_OK;
}

/* Options seen, to check against the command once it is known. */
struct parse {
    struct conf *c;
    int argc;
    int i;
    char **argv;
    bool is_seen[N_OPTION];
    const char *words[4]; /* positional: command first */
    int n_word;
    bool wants_help;
    bool wants_version;
};

/* The command of the line, also when it stands behind p->i; CONF_COMMAND_COUNT without. */
static int command_of(const struct parse *p)
{
    const char *const *words = p->n_word > 0 ? p->words : (const char *const *)p->argv + p->i;
    const int n = p->n_word > 0 ? 1 : p->argc - p->i;
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
            if (strcmp(words[i], commands[k].name) == 0) {
                return k;
            }
        }
    }
    return CONF_COMMAND_COUNT;
}

/* Proposes the command's option that it may have meant: a longer or a similar word. */
static enum err unknown_option(const struct parse *p, const char *word)
{
    char name[34];
    const char *text = word + strspn(word, "-");
    const int c = command_of(p);
    const struct option *best = NULL;
    size_t best_off = 99;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(text, "="), text);
    for (size_t i = 0; i < N_OPTION; i++) {
        const bool is_begun = strlen(name) > 1 && strncmp(options[i].name, name, strlen(name)) == 0;
        const size_t off = is_begun ? 0 : distance(name, options[i].name);
        const bool is_ours = c == CONF_COMMAND_COUNT || (options[i].commands & 1u << c) != 0;
        if (is_ours && off < best_off && (is_begun || conf_is_near(name, options[i].name))) {
            best = &options[i];
            best_off = off;
        }
    }
    if (best != NULL) {
        return err_set(ERR_USAGE, "option %.40s is unknown; did you mean --%s?", word, best->name);
    }
    REQUIRE(word[1] == '-' || find_option(text, 1, true) == NULL, ERR_USAGE,
            "option %.40s is unknown; did you mean -%c %.40s?", word, text[0], text + 1);
    return err_set(ERR_USAGE, "option %.40s is unknown; hearth %s%s--help lists them", word,
                   c < CONF_COMMAND_COUNT ? commands[c].name : "",
                   c < CONF_COMMAND_COUNT ? " " : "");
}

static enum err take_option(struct parse *p, const char *word)
{
    const bool is_short = word[1] != '-';
    const char *name = word + (is_short ? 1 : 2);
    const size_t n = strcspn(name, "=");
    const char *value = name[n] == '=' ? name + n + 1 : NULL;
    const struct view given = { name, n };
    const bool is_help = view_is(given, is_short ? "h" : "help");
    if (is_help || (!is_short && view_is(given, "version"))) {
        REQUIRE(value == NULL, ERR_USAGE, "%s%.*s takes no value", is_short ? "-" : "--", (int)n,
                name);
        p->wants_help = p->wants_help || is_help;
        p->wants_version = p->wants_version || !is_help;
        return ERR_OK;
    }
    const struct option *o = find_option(name, n, is_short);
    if (o == NULL) {
        return unknown_option(p, word);
    }
    p->is_seen[o - options] = true;
    if (o->kind == KIND_FLAG) {
        REQUIRE(value == NULL, ERR_USAGE, "--%s takes no value", o->name);
        const bool yes = true;
        memcpy((char *)p->c + o->at, &yes, sizeof yes);
        return ERR_OK;
    }
    if (value == NULL) {
        REQUIRE(p->i + 1 < p->argc, ERR_USAGE, "--%s needs a value: %s (%s)", o->name, o->value,
                o->help);
        value = p->argv[++p->i];
    }
    return set_value(p->c, o, value);
}

/* bench without MODEL measures the box alone, where these would do nothing. */
static enum err check_bench(const struct parse *p)
{
    static const char *const names[] = { "ctx", "kv", "prefill", "decode", "depth", "batch" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        REQUIRE(!p->is_seen[find_option(names[i], strlen(names[i]), false) - options], ERR_USAGE,
                "--%s needs a MODEL: --kernels and --limits are of the box alone", names[i]);
    }
    return ERR_OK;
}

static enum err check_options(const struct parse *p)
{
    const enum conf_command c = p->c->command;
    if (c == CONF_BENCH && p->c->model == NULL) {
        TRY(check_bench(p));
    }
    for (size_t i = 0; i < N_OPTION; i++) {
        if (!p->is_seen[i] || (options[i].commands & 1u << c) != 0) {
            continue;
        }
        char known[200] = "";
        for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
            if ((options[i].commands & 1u << k) != 0) {
                const size_t n = strlen(known);
                snprintf(known + n, sizeof known - n, " %s", commands[k].name);
            }
        }
        return err_set(ERR_USAGE, "--%s is no option of hearth %s; it belongs to:%s",
                       options[i].name, commands[c].name, known);
    }
    return ERR_OK;
}

static enum err take_command(struct parse *p)
{
    for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
        if (strcmp(p->words[0], commands[k].name) == 0) {
            p->c->command = (enum conf_command)k;
            return ERR_OK;
        }
    }
    int best = 0;
    for (int k = 1; k < CONF_COMMAND_COUNT; k++) {
        best = distance(p->words[0], commands[k].name) < distance(p->words[0], commands[best].name)
                   ? k
                   : best;
    }
    const bool is_near = conf_is_near(p->words[0], commands[best].name);
    return err_set(ERR_USAGE, "command \"%.40s\" is unknown; %s%s%s", p->words[0],
                   is_near ? "did you mean " : "hearth --help lists them",
                   is_near ? commands[best].name : "", is_near ? "?" : "");
}

static void set_defaults(struct conf *c)
{
    *c = (struct conf){ .host = "127.0.0.1" };
    for (size_t i = 0; i < N_OPTION; i++) {
        const int64_t whole = (int64_t)options[i].initial;
        if (options[i].kind == KIND_INT) {
            memcpy((char *)c + options[i].at, &whole, sizeof whole);
        } else if (options[i].kind == KIND_REAL) {
            memcpy((char *)c + options[i].at, &options[i].initial, sizeof options[i].initial);
        }
    }
}

static enum err take_words(struct parse *p)
{
    const struct command *cmd = &commands[p->c->command];
    const int n = p->n_word - 1;
    REQUIRE(n >= cmd->n_min && n <= cmd->n_max, ERR_USAGE,
            "%d argument%s given, the form is: hearth %s%s%s (hearth %s --help)", n,
            n == 1 ? "" : "s", cmd->name, cmd->arguments[0] != '\0' ? " " : "", cmd->arguments,
            cmd->name);
    if (n > 0) {
        REQUIRE(p->words[1][0] != '\0', ERR_USAGE, "hearth %s %s: the first argument is empty",
                cmd->name, cmd->arguments);
        REQUIRE(p->c->model == NULL, ERR_USAGE,
                "hearth %s: a model is given twice, --model %.100s and %.100s; give one", cmd->name,
                p->c->model, p->words[1]);
        p->c->model = p->words[1];
    }
    if (n > 1) {
        p->c->prompt = p->words[2];
    }
    p->c->has_seed = p->c->seed >= 0;
    return check_options(p);
}

static void help(enum conf_command c, struct buf *out);

enum err conf_parse(struct conf *c, int argc, char **argv, bool *is_done)
{
    struct parse p = { .c = c, .argc = argc, .argv = argv };
    bool is_words = false; /* after "--" */
    set_defaults(c);
    for (p.i = 1; p.i < argc; p.i++) {
        const char *word = argv[p.i];
        if (!is_words && strcmp(word, "--") == 0) {
            is_words = true;
        } else if (!is_words && word[0] == '-' && word[1] != '\0') {
            TRY(take_option(&p, word));
        } else {
            REQUIRE(p.n_word < 4, ERR_USAGE, "too many arguments: \"%.40s\"", word);
            p.words[p.n_word++] = word;
        }
    }
    struct buf text;
    buf_init(&text, 65536);
    *is_done = p.wants_version || p.wants_help || p.n_word == 0;
    enum err e = ERR_OK;
    if (p.n_word > 0) {
        e = take_command(&p);
    }
    if (e == ERR_OK && p.wants_version) {
        printf("hearth %s\n", HEARTH_VERSION);
    } else if (e == ERR_OK && *is_done) {
        help(p.n_word > 0 ? c->command : CONF_COMMAND_COUNT, &text);
        fputs(buf_str(&text), stdout);
    } else if (e == ERR_OK) {
        e = take_words(&p);
    }
    buf_release(&text);
    return e;
}

/* --- texts made from the tables --------------------------------------------------------------- */

void conf_line(const struct conf *c, struct buf *out)
{
    struct conf usual;
    set_defaults(&usual);
    buf_printf(out, "hearth %s %s", commands[c->command].name, c->model[0] == '-' ? "./" : "");
    buf_add_word(out, c->model);
    for (const struct option *o = options + 1; o < options + N_OPTION; o++) { /* 0: the model */
        const char *at = (const char *)c + o->at;
        const char *text = NULL;
        int64_t n = 0;
        const size_t size = o->kind == KIND_TEXT ? sizeof text : sizeof n;
        if ((o->commands & 1u << c->command) == 0 || o->kind > KIND_INT ||
            memcmp(at, (const char *)&usual + o->at, size) == 0) {
            continue;
        }
        buf_printf(out, " --%s ", o->name);
        if (o->kind == KIND_TEXT) {
            memcpy(&text, at, size);
            buf_add_word(out, text);
        } else {
            memcpy(&n, at, size);
            buf_printf(out, "%lld", (long long)n);
        }
    }
}

static void option_line(const struct option *o, struct buf *out)
{
    char left[64];
    snprintf(left, sizeof left, "%s%s%s--%s%s%s", o->short_name != NULL ? "-" : "    ",
             o->short_name != NULL ? o->short_name : "", o->short_name != NULL ? ", " : "", o->name,
             o->value != NULL ? " " : "", o->value != NULL ? o->value : "");
    buf_printf(out, "  %-22s ", left);
    wrap_put(out, o->help, 25, 25, WRAP_WIDTH);
}

static void help_all(struct buf *out)
{
    char text[32];
    struct buf codes;
    buf_init(&codes, 1024);
    buf_add_str(out, "hearth - a private AI service on a box you own\n\nusage: hearth COMMAND "
                     "[OPTIONS]\n\ncommands\n");
    for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
        buf_printf(out, "  %-12s ", commands[k].name);
        wrap_put(out, commands[k].what, 15, 15, WRAP_WIDTH);
    }
    for (size_t i = 0; i < N_EXIT; i++) {
        snprintf(text, sizeof text, "%s%d ", i > 0 ? ", " : "", exits[i].code);
        buf_add_str(&codes, text);
        buf_add_str(&codes, exits[i].what);
    }
    buf_add_str(out, "\nexit codes\n  ");
    wrap_put(out, buf_str(&codes), 2, 2, WRAP_WIDTH);
    buf_add_str(
        out, "\nhearth COMMAND --help tells more; hearth --version the version.\n"
             "try: hearth pull smollm2:135m && hearth run smollm2:135m \"Why is the sky blue?\"\n");
    buf_release(&codes);
}

/* CONF_COMMAND_COUNT: the program's. */
static void help(enum conf_command c, struct buf *out)
{
    if (c == CONF_COMMAND_COUNT) {
        help_all(out);
        return;
    }
    buf_printf(out, "usage: hearth %s%s%s [OPTIONS]\n\n", commands[c].name,
               commands[c].arguments[0] != '\0' ? " " : "", commands[c].arguments);
    wrap_put(out, commands[c].what, 0, 0, WRAP_WIDTH);
    if (commands[c].more[0] != '\0') {
        buf_add_char(out, '\n');
        wrap_put(out, commands[c].more, 0, 0, WRAP_WIDTH);
    }
    buf_add_str(out, "\noptions\n");
    for (size_t i = 0; i < N_OPTION; i++) {
        if ((options[i].commands & 1u << c) != 0) {
            option_line(&options[i], out);
        }
    }
    buf_add_str(out, "  -h, --help             this text\n");
}

/* Text for roff: backslashes and hyphens are its own, and so is a point that begins a line. */
static void man_text(struct buf *out, const char *text)
{
    buf_add_str(out, text[0] == '.' || text[0] == '\'' ? "\\&" : "");
    for (; *text != '\0'; text++) {
        if (*text == '\\') {
            buf_add_str(out, "\\e");
        } else if (*text == '-') {
            buf_add_str(out, "\\-");
        } else {
            buf_add_char(out, *text);
        }
    }
}

/* "\fB--name\fR \fIvalue\fR" */
static void man_option(struct buf *out, const struct option *o)
{
    if (o->short_name != NULL) {
        buf_printf(out, "\\fB\\-%s\\fR, ", o->short_name);
    }
    buf_add_str(out, "\\fB");
    man_text(out, "--");
    man_text(out, o->name);
    buf_add_str(out, "\\fR");
    if (o->value != NULL) {
        buf_printf(out, " \\fI%s\\fR", o->value);
    }
    buf_add_char(out, '\n');
}

static void man_commands(struct buf *out)
{
    for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
        buf_printf(out, ".TP\n\\fBhearth %s\\fR%s", commands[k].name,
                   commands[k].arguments[0] != '\0' ? " " : "");
        man_text(out, commands[k].arguments);
        buf_add_char(out, '\n');
        man_text(out, commands[k].what);
        buf_add_str(out, ".\n");
        if (commands[k].more[0] != '\0') {
            man_text(out, commands[k].more);
            buf_add_char(out, '\n');
        }
    }
}

static void man_options(struct buf *out)
{
    for (size_t i = 0; i < N_OPTION; i++) {
        const struct option *o = &options[i];
        buf_add_str(out, ".TP\n");
        man_option(out, o);
        man_text(out, o->help);
        buf_add_str(out, ".\n");
        if (o->commands == ALL) {
            buf_add_str(out, "For all commands.\n");
            continue;
        }
        const char *mark = "For";
        for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
            if ((o->commands & 1u << k) != 0) {
                buf_printf(out, "%s \\fB%s\\fR", mark, commands[k].name);
                mark = ",";
            }
        }
        buf_add_str(out, ".\n");
    }
}

void conf_man(struct buf *out)
{
    buf_add_str(out, ".TH HEARTH 1 \"\" \"hearth " HEARTH_VERSION "\"\n.SH NAME\nhearth \\- a "
                     "private AI service on a box you own\n.SH SYNOPSIS\n.B hearth\n"
                     "COMMAND [ARGUMENTS] [OPTIONS]\n.SH COMMANDS\n");
    man_commands(out);
    buf_add_str(out, ".SH OPTIONS\nOptions stand before or after the command; a value follows as "
                     "the next word or after \"=\".\n");
    man_options(out);
    buf_add_str(out, ".SH EXIT STATUS\n");
    for (size_t i = 0; i < N_EXIT; i++) {
        buf_printf(out, ".TP\n.B %d\n%s\n", exits[i].code, exits[i].what);
    }
    buf_add_str(
        out,
        ".SH FILES\n.TP\n.I ~/.local/share/hearth\nthe models and their index "
        "($XDG_DATA_HOME)\n.TP\n.I ~/.local/state/hearth/run\\-history\nwhat was "
        "typed in hearth run ($XDG_STATE_HOME)\n.TP\n.I ~/.local/state/hearth/tune\\-N.json\nwhat "
        "hearth tune found best ($XDG_STATE_HOME)\n");
}

/* --- completion ------------------------------------------------------------------------------- */

/* The first words of `hearth list`: of models that are here, and of known ones that are not. */
#define NAMES_HERE  "list 2>/dev/null | sed -n '/ not here; /d; /^unfinished:/d; s/ .*//p'"
#define NAMES_KNOWN "list 2>/dev/null | sed -n '/ not here; /s/ .*//p'"

/* What a command's arguments are, for completion: "models", "known" or NULL. */
static const char *names_for(const struct command *c)
{
    return strstr(c->arguments, "-m MODEL") != NULL || strstr(c->arguments, "--model") != NULL
               ? NULL
           : strstr(c->arguments, "MODEL") != NULL ? "models"
           : strstr(c->arguments, "NAME") != NULL  ? "known"
                                                   : NULL;
}

static bool is_model_option(const struct option *o)
{
    return o->value != NULL && strcmp(o->value, "MODEL") == 0;
}

/* Text inside '...' of a shell; a quote becomes `quote`, characters of `marks` get a backslash. */
static void put_quoted(struct buf *out, const char *text, const char *quote, const char *marks)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            buf_add_str(out, quote);
            continue;
        }
        if (strchr(marks, *text) != NULL) {
            buf_add_char(out, '\\');
        }
        buf_add_char(out, *text);
    }
}

static void complete_fish(struct buf *out)
{
    buf_add_str(out, "function __hearth_models\n  hearth " NAMES_HERE "\nend\n"
                     "function __hearth_known\n  hearth " NAMES_KNOWN "\nend\n");
    for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
        const char *names = names_for(&commands[k]);
        if (names != NULL) {
            buf_printf(out,
                       "complete -c hearth -n '__fish_seen_subcommand_from %s' -a "
                       "'(__hearth_%s)'\n",
                       commands[k].name, names);
        }
        buf_printf(out, "complete -c hearth -n __fish_use_subcommand -a %s -d '", commands[k].name);
        put_quoted(out, commands[k].what, "\\'", "\\");
        buf_add_str(out, "'\n");
    }
    for (size_t i = 0; i < N_OPTION; i++) {
        const struct option *o = &options[i];
        buf_add_str(out, "complete -c hearth -n '__fish_seen_subcommand_from");
        for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
            buf_printf(out, "%s%s", (o->commands & 1u << k) != 0 ? " " : "",
                       (o->commands & 1u << k) != 0 ? commands[k].name : "");
        }
        buf_printf(out, "' -l %s", o->name);
        if (o->short_name != NULL) {
            buf_printf(out, " -s %s", o->short_name);
        }
        buf_add_str(out, is_model_option(o) ? " -a '(__hearth_models)'" : "");
        buf_add_str(out, o->value != NULL ? " -r -d '" : " -d '");
        put_quoted(out, o->help, "\\'", "\\");
        buf_add_str(out, "'\n");
    }
}

static void complete_zsh(struct buf *out)
{
    buf_add_str(out, "#compdef hearth\n_hearth_models() {\n  compadd -- $(hearth " NAMES_HERE
                     ")\n  _files\n}\n_hearth_known() {\n  compadd -- $(hearth " NAMES_KNOWN
                     ")\n  _files\n}\n_hearth() {\n  local -a all\n  all=(\n");
    for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
        buf_printf(out, "    '%s:", commands[k].name);
        put_quoted(out, commands[k].what, "'\\''", ":\\");
        buf_add_str(out, "'\n");
    }
    buf_add_str(out, "  )\n  if (( CURRENT == 2 )); then\n    _describe command all\n    return\n"
                     "  fi\n  local c=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $c in\n");
    for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
        buf_printf(out, "  %s) _arguments", commands[k].name);
        for (size_t i = 0; i < N_OPTION; i++) {
            if ((options[i].commands & 1u << k) != 0) {
                buf_printf(out, " \\\n    '--%s[", options[i].name);
                put_quoted(out, options[i].help, "'\\''", "[]\\");
                buf_printf(out, "]%s%s%s'", options[i].value != NULL ? ":" : "",
                           options[i].value != NULL ? options[i].value : "",
                           is_model_option(&options[i]) ? ":_hearth_models"
                           : options[i].value != NULL   ? ":_files"
                                                        : "");
            }
        }
        const char *names = names_for(&commands[k]);
        buf_printf(out, " \\\n    '*:%s:_%s%s' ;;\n", names != NULL ? "model" : "file",
                   names != NULL ? "hearth_" : "files", names != NULL ? names : "");
    }
    buf_add_str(out, "  esac\n}\n_hearth \"$@\"\n");
}

/* Bash splits words at ":" and "=", which stand in names and before values: the line is split at
 * blanks instead, and what bash has already is cut off the answers. */
static void complete_bash(struct buf *out)
{
    buf_add_str(out, "_hearth() {\n  local line=${COMP_LINE:0:COMP_POINT} o m w prev head\n"
                     "  local -a words\n  read -ra words <<< \"$line\"\n"
                     "  [[ $line == *[[:blank:]] ]] && words+=('')\n"
                     "  w=${words[-1]} prev=${words[-2]}\n"
                     "  [[ $w == --*=* ]] && prev=${w%%=*} w=${w#*=}\n"
                     "  case ${words[1]} in\n");
    for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
        const char *names = names_for(&commands[k]);
        buf_printf(out, "  %s) m=%s o=\"--help", commands[k].name, names != NULL ? names : "");
        for (size_t i = 0; i < N_OPTION; i++) {
            if ((options[i].commands & 1u << k) != 0) {
                buf_printf(out, " --%s", options[i].name);
            }
        }
        buf_add_str(out, "\" ;;\n");
    }
    buf_add_str(out, "  *) [[ $w == -* ]] && o='--help --version' || o=\"");
    for (int k = 0; k < CONF_COMMAND_COUNT; k++) {
        buf_printf(out, " %s", commands[k].name);
    }
    buf_add_str(out, "\" ;;\n  esac\n  case $prev in\n  --model|-m) m=models ;;\n  ");
    const char *mark = "";
    for (size_t i = 0; i < N_OPTION; i++) { /* their values are left to bash, which offers files */
        const struct option *t = &options[i];
        if (t->value != NULL && !is_model_option(t)) {
            buf_printf(out, "%s--%s", mark, t->name);
            mark = "|";
            buf_printf(out, t->short_name != NULL ? "|-%s" : "%s",
                       t->short_name != NULL ? t->short_name : "");
        }
    }
    buf_add_str(out, ") m= o= ;;\n  esac\n"
                     "  [[ -n $m && $w != -* ]] && case $m in\n"
                     "  models) o=$(\"${words[0]}\" " NAMES_HERE ") ;;\n"
                     "  known) o=$(\"${words[0]}\" " NAMES_KNOWN ") ;;\n  esac\n"
                     "  COMPREPLY=($(compgen -W \"$o\" -- \"$w\"))\n"
                     "  head=${w%\"${w##*:}\"}\n  COMPREPLY=(\"${COMPREPLY[@]#\"$head\"}\")\n"
                     "  [[ -n $m && $w != -* ]] || return\n"
                     "  mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- \"$w\")\n"
                     "  compopt -o filenames 2>/dev/null\n"
                     "}\ncomplete -o default -F _hearth hearth\n");
}

enum err conf_completion(const char *shell, struct buf *out)
{
    static const struct {
        const char *shell;
        void (*make)(struct buf *out);
    } makers[] = { { "bash", complete_bash }, { "zsh", complete_zsh }, { "fish", complete_fish } };
    for (size_t i = 0; i < sizeof makers / sizeof makers[0]; i++) {
        if (strcmp(makers[i].shell, shell) == 0) {
            makers[i].make(out);
            return ERR_OK;
        }
    }
    return err_set(ERR_USAGE, "completion for \"%.40s\": bash, zsh or fish is wanted", shell);
}
