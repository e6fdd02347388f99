/* server - the service: network, model and their life (serve/server.c)
 *
 * Owner: the thread that calls server_run, which becomes the loop thread. */
#ifndef HEARTH_SERVER_H
#define HEARTH_SERVER_H

#include "base/err.h"
#include "hearth.h"

#include <stdbool.h>
#include <stdint.h>

struct server;

struct server_params {
    const char *host;
    int port;             /* 0: any free one */
    const char *key_file; /* NULL: no keys */
    const char *model_path;
    const char *model_id;
    struct hearth_box *box;
    struct hearth_model_params model; /* its progress is called on the loading thread */
    struct hearth_plan plan;          /* of that model, for /metrics */
    int n_client_max;                 /* connections */
    uint64_t body_max_bytes;
    uint64_t grace_us;    /* for running answers after server_stop */
    const char *psi_root; /* stands before /proc and /sys where pressure is read; NULL: this box */
    /* Called on the loop thread: once when the port is bound (is_ready 0), once when the model
     * answers (1). */
    void (*report)(void *arg, struct server *s, int is_ready);
    void *report_arg;
};

/* What the service takes beside the model at most, for model.extra_bytes. */
uint64_t server_extra_bytes(const struct server_params *p);
/* Binds the port and starts loading the model on a thread of its own. All strings are borrowed. */
enum err server_open(struct server **out, const struct server_params *p) MUST_USE;
/* Serves until server_stop. Returns why it ended: ERR_OK, or what loading or the loop failed with.
 */
enum err server_run(struct server *s) MUST_USE;
/* Ends server_run after what runs has finished, or after the grace time. Safe in signal handlers
 * and on any thread. */
void server_stop(struct server *s);
void server_close(struct server *s); /* accepts NULL; waits for a model that is being loaded */
/* Whether the model is still being loaded, which cannot be cut short: who does not want to wait
 * ends the process, and frees nothing before. */
bool server_is_loading(const struct server *s);

int server_port(const struct server *s);
const struct hearth_model *server_model(const struct server *s); /* NULL while loading */

#endif
