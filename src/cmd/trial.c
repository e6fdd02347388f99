/* trial - requests that are made to be timed
 *
 * Their text does not matter and repeats from run to run: tokens from a fixed sequence, the most
 * probable answer, no end before its length, and nothing guessed. An interrupt ends the program as
 * it does any other; it is only told what became of the work.
 *
 * Next: cmd/cmd_bench.c. */
#include "cmd/trial.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static const char *interrupted; /* owner: the main thread, before signals come */
static bool has_bar;

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
        return; /* nobody is left to be told */
    }
}

static void on_interrupt(int sig)
{
    say(has_bar ? "\r\x1b[K" : "");
    say(interrupted);
    raise(sig); /* as usual, since the action was for once */
}

void trial_interruptible(const char *line)
{
    const struct sigaction act = { .sa_handler = line != NULL ? on_interrupt : SIG_DFL,
                                   .sa_flags = (int)SA_RESETHAND };
    struct sigaction old;
    interrupted = line != NULL ? line : interrupted;
    has_bar = isatty(STDERR_FILENO) == 1;
    if (sigaction(SIGINT, NULL, &old) == 0 &&
        old.sa_handler != SIG_IGN) { /* as of a shell's background jobs */
        sigaction(SIGINT, &act, NULL);
    }
}

void trial_tokens(int32_t *ids, int64_t n, int32_t n_vocab, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1;
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = (int32_t)((x >> 8) % (uint32_t)n_vocab);
    }
}

hearth_status trial_drain(struct hearth_request *r, struct progress *bar, double done,
                          struct hearth_event *e)
{
    hearth_status s;
    do {
        s = hearth_next(r, 200000, e);
        progress_share(bar, done);
    } while (s == HEARTH_BUSY || (s == HEARTH_OK && e->kind != HEARTH_EVENT_END));
    return s;
}

hearth_status trial_submit(struct hearth_model *m, const int32_t *ids, int64_t n, int64_t n_made_up,
                           int64_t n_answer, struct hearth_request **r)
{
    struct hearth_request_params p;
    hearth_request_init(&p);
    p.tokens = ids;
    p.n_token = (size_t)n;
    p.max_tokens = (int32_t)n_answer;
    p.temperature = 0.0f;
    p.ignore_eos = 1;
    p.n_made_up = (int32_t)n_made_up;
    p.no_guesses = 1;
    return hearth_submit(m, &p, r);
}
