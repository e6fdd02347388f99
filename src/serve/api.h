/* api - which request gets which answer (serve/api.c)
 *
 * Owner: the loop thread. */
#ifndef HEARTH_API_H
#define HEARTH_API_H

#include "base/err.h"
#include "hearth.h"
#include "serve/http.h"
#include "serve/job.h"
#include "serve/keys.h"
#include "serve/metrics.h"
#include "serve/pressure.h"

#include <stdbool.h>

struct api {
    const struct keys *keys;    /* borrows; NULL: no key is needed */
    const char *model_id;       /* borrows */
    int32_t n_queue;            /* beyond, generation is refused before its body is read */
    struct http *http;          /* borrows; set after http_open */
    struct hearth_model *model; /* borrows; NULL while loading */
    struct jobs *jobs;          /* borrows; NULL while loading */
    struct hearth_model_info info;
    struct hearth_plan plan; /* of the memory */
    int64_t since_s;         /* of the model's loading */
    bool is_stopping;
    struct pressure pressure; /* of memory; the server looks */
    struct metrics metrics;
};

/* Calls for http_open; `a` must outlive the http. */
void api_calls(struct api *a, struct http_calls *out);
void api_set_model(struct api *a, struct hearth_model *model, struct jobs *jobs,
                   const struct hearth_plan *plan);

#endif
