/* fill - takes all that a model's plan has: every conversation at once, each to its context's end
 *
 * fill MODEL CTX KV PARALLEL BATCH THREADS MEMORY_BYTES DRAFT|-
 *
 * For test_memory.py, which runs it where the kernel or the allocator gives it no byte more than
 * planned: `hearth run` has one conversation, and `hearth serve` a plan for what clients may send.
 * MEMORY_BYTES 0: no limit of its own; "plan": only says what it needs. Prints the plan and the most that was resident, as JSON; ends with the library's status. */
#include "hearth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE_MAX 64
#define N_ANSWER    8 /* tokens, the last of which end the context */

static hearth_status submit(struct hearth_model *m, int32_t seed, struct hearth_request **out)
{
    struct hearth_model_info info;
    struct hearth_request_params p;
    hearth_model_get_info(m, &info);
    const int32_t n = info.n_ctx > 2 * N_ANSWER ? info.n_ctx - N_ANSWER : info.n_ctx / 2;
    int32_t *ids = malloc((size_t)n * sizeof ids[0]);
    if (ids == NULL) {
        fprintf(stderr, "fill: no memory for %d tokens\n", n);
        exit(1);
    }
    for (int32_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(((int64_t)i * 7 + (int64_t)seed * 31) % info.n_vocab);
    }
    hearth_request_init(&p);
    p.tokens = ids;
    p.n_token = (size_t)n;
    p.temperature = 0.0f;
    p.ignore_eos = 1;
    const hearth_status s = hearth_submit(m, &p, out);
    free(ids);
    return s;
}

/* Takes events of all in turn until each has ended. */
static hearth_status drain(struct hearth_request **r, int n)
{
    int n_open = n;
    while (n_open > 0) {
        for (int i = 0; i < n; i++) {
            struct hearth_event e = { 0 };
            const hearth_status s = hearth_next(r[i], 1000, &e);
            if (s == HEARTH_OK && e.kind == HEARTH_EVENT_END) {
                n_open--;
                if (e.finish != HEARTH_FINISH_LENGTH) {
                    fprintf(stderr, "fill: an answer ended with %d\n", (int)e.finish);
                    return HEARTH_FAILED;
                }
            } else if (s != HEARTH_OK && s != HEARTH_BUSY && s != HEARTH_NOT_FOUND) {
                return s;
            }
        }
    }
    return HEARTH_OK;
}

static hearth_status answer_all(struct hearth_model *m, int n)
{
    struct hearth_request *r[AT_ONCE_MAX] = { NULL };
    hearth_status s = HEARTH_OK;
    for (int i = 0; i < n && s == HEARTH_OK; i++) {
        s = submit(m, i, &r[i]);
    }
    s = s == HEARTH_OK ? drain(r, n) : s;
    for (int i = 0; i < n; i++) {
        hearth_request_close(r[i]);
    }
    return s;
}

static hearth_status say_plan(struct hearth_box *box, const char *path,
                              const struct hearth_model_params *p)
{
    struct hearth_plan plan = { .size = sizeof plan };
    const hearth_status s = hearth_plan_make(box, path, p, &plan);
    if (s != HEARTH_OK) {
        fprintf(stderr, "fill: %s\n", hearth_error());
        return s;
    }
    printf("{\"planned_bytes\": %llu", (unsigned long long)plan.total_bytes);
    for (int32_t i = 0; i < plan.n_part; i++) {
        printf(", \"%s\": %llu", plan.part[i].name, (unsigned long long)plan.part[i].bytes);
    }
    printf("}\n");
    return HEARTH_OK;
}

int main(int argc, char **argv)
{
    struct hearth_box_params bp;
    struct hearth_model_params mp;
    struct hearth_box *box = NULL;
    struct hearth_model *m = NULL;
    struct hearth_stats st = { .size = sizeof st };
    if (argc != 9 || atoi(argv[4]) > AT_ONCE_MAX) {
        fprintf(stderr, "usage: fill MODEL CTX KV PARALLEL BATCH THREADS MEMORY_BYTES DRAFT|-\n");
        return HEARTH_USAGE;
    }
    hearth_box_init(&bp);
    bp.n_thread = atoi(argv[6]);
    bp.memory_bytes = strtoull(argv[7], NULL, 10);
    hearth_model_init(&mp);
    mp.n_ctx = atoi(argv[2]);
    mp.kv = argv[3];
    mp.n_parallel = atoi(argv[4]);
    mp.n_batch = atoi(argv[5]);
    mp.draft = strcmp(argv[8], "-") == 0 ? NULL : argv[8];
    hearth_status s = hearth_box_open(&bp, &box);
    if (strcmp(argv[7], "plan") == 0) {
        s = s == HEARTH_OK ? say_plan(box, argv[1], &mp) : s;
        hearth_box_close(box);
        return (int)s;
    }
    s = s == HEARTH_OK ? hearth_model_open(box, argv[1], &mp, &m) : s;
    s = s == HEARTH_OK ? answer_all(m, mp.n_parallel) : s;
    if (s == HEARTH_OK) {
        hearth_model_get_stats(m, &st);
        printf("{\"planned_bytes\": %llu, \"rss_peak_bytes\": %llu}\n",
               (unsigned long long)st.memory_planned_bytes, (unsigned long long)st.rss_peak_bytes);
    } else {
        fprintf(stderr, "fill: %s\n", hearth_error());
    }
    hearth_model_close(m);
    hearth_box_close(box);
    return (int)s;
}
