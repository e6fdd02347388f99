/* metrics - what the service counts, as Prometheus reads it (serve/metrics.c)
 *
 * Owner: the loop thread. Names follow Prometheus' rules (hearth_ prefix, base units), bucket edges
 * those of OpenTelemetry's conventions for generative AI. */
#ifndef HEARTH_METRICS_H
#define HEARTH_METRICS_H

#include "base/buf.h"
#include "hearth.h"
#include "serve/pressure.h"

#include <stdbool.h>
#include <stdint.h>

#define METRICS_BUCKETS 16
#define METRICS_PATHS   16 /* paths that are counted apart */
#define METRICS_CODES   20 /* status codes that are counted apart */

enum metrics_time {
    METRICS_FIRST_TOKEN, /* request to first token */
    METRICS_PER_TOKEN,   /* between tokens of one choice */
    METRICS_REQUEST,     /* request to end of the answer */
    METRICS_QUEUE,       /* whole request to its turn in the engine */
    METRICS_TIMES
};

struct metrics_histogram {
    uint64_t bucket[METRICS_BUCKETS + 1];
    uint64_t n;
    double sum_s;
};

struct metrics {
    struct metrics_histogram time[METRICS_TIMES];
    struct {
        const char *path; /* static text */
        struct {
            int status;
            uint64_t n;
        } code[METRICS_CODES];
    } http[METRICS_PATHS];
    uint64_t n_finish[8];   /* answers by enum hearth_finish */
    uint64_t n_client_gone; /* clients that left before their answer was whole */
    uint64_t n_broken;      /* requests under way when the service ended */
    uint64_t n_shed;        /* requests that were refused since memory was short */
};

void metrics_time(struct metrics *m, enum metrics_time which, uint64_t us);
/* path: static text of a route. */
void metrics_http(struct metrics *m, const char *path, int status);

/* What is read at the moment of the scrape. */
struct metrics_now {
    const char *model_id;             /* NULL while loading */
    const struct hearth_stats *stats; /* NULL while loading */
    const struct hearth_model_info *info;
    const struct hearth_plan *plan;
    const struct pressure *pressure; /* NULL while loading */
    int n_client;
    bool is_ready;
};
void metrics_put(const struct metrics *m, const struct metrics_now *now, struct buf *out);

#endif
