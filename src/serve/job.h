/* job - the life of a request that needs the model (serve/job.c)
 *
 * Owner: the loop thread.
 * JO-1  a job belongs to at most one http request; when either ends, neither keeps a pointer to the
 *       other.
 * JO-2  a job whose client left is cancelled at once. */
#ifndef HEARTH_JOB_H
#define HEARTH_JOB_H

#include "base/err.h"
#include "hearth.h"
#include "serve/budget.h"
#include "serve/http.h"
#include "serve/loop.h"
#include "serve/metrics.h"
#include "serve/params.h"
#include "serve/refusal.h"

#include <stdint.h>

struct jobs;

#define JOB_ANSWER_PART 4 /* a whole answer takes 1/4 of the budget at most */

struct jobs_parts { /* all borrowed */
    struct loop *loop;
    struct hearth_model *model;
    const char *model_id;
    struct metrics *metrics;
    struct budget *budget;
};

/* n_max: jobs under way at most. */
enum err jobs_open(struct jobs **out, const struct jobs_parts *parts, int n_max) MUST_USE;
void jobs_close(struct jobs *j);       /* cancels all; no http request may have one; accepts NULL */
int jobs_count(const struct jobs *j);  /* NULL counts as none */
int jobs_n_prep(const struct jobs *j); /* of these, not yet with the engine; so does NULL */

/* The whole request is here: answers it now or later. */
void jobs_start(struct jobs *j, struct http_req *r, enum params_kind kind);
void jobs_half_closed(struct jobs *j, struct http_req *r); /* its client says no more, or left */
void jobs_drained(struct jobs *j, struct http_req *r);     /* the client took what was sent */
void jobs_gone(struct jobs *j, struct http_req *r);        /* the http request is over */
void jobs_run(struct jobs *j, uint64_t now_us); /* what is due; about once a second is enough */
/* Ends all with this reason: an answer that has not begun becomes a refusal, a stream ends with it.
 */
void jobs_break(struct jobs *j, const struct refusal *why);

/* Replies with a refusal, and with the headers that tell clients when to come again. */
void job_refuse(struct http_req *r, const struct refusal *why);

#endif
