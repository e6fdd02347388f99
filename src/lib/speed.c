/* speed - what a model's speed will be, for the public library
 *
 * Brings together what engine/predict.c needs: the file's header, the threads of the box, the room
 * in which operations are tried, and the speeds of the memory and of the disk, if that is read:
 * measured in a quarter of a second each, where the caller does not know them. All of it is given
 * back before returning; it must fit beside what the process holds, or nothing is predicted.
 *
 * Rejected: keeping what was tried for the next model. Types and shapes differ, and a machine that
 * is shared differs from minute to minute.
 *
 * Next: engine/predict.c. */
#include "lib/speed.h"

#include "base/mem.h"
#include "base/os.h"
#include "base/pool.h"
#include "base/team.h"
#include "engine/predict.h"
#include "lib/measure.h"
#include "model/depot.h"
#include "model/gguf.h"
#include "model/weights.h"

#include <math.h>

#define SPEED_BYTES (2 * BE_TIME_ROOM + ((uint64_t)4 << 20))
#define SPEED_ASKED 64

/* What a prediction holds; speed_close gives it back. */
struct speed {
    struct gguf *gguf;
    struct arch arch;
    struct weights weights;
    struct team *team;
    struct be_time *time;
};

static enum err speed_open(struct speed *s, const struct hearth_box *box, const char *path,
                           const struct hearth_model_params *p, struct plan_config *c)
{
    const char *from = NULL;
    uint64_t all = pool_available(&from);
    if (box->memory_bytes > 0 && box->memory_bytes < all) {
        all = box->memory_bytes;
        from = "the limit that was given";
    }
    const uint64_t need =
        os_rss_bytes() + SPEED_BYTES + (uint64_t)box->n_thread * BE_CPU_STACK_BYTES;
    REQUIRE(all >= need, ERR_MEMORY,
            "trying the kernels needs %llu MiB, %llu are available (%s): allow more",
            (unsigned long long)(need >> 20) + 1, (unsigned long long)all >> 20, from);
    TRY(gguf_open(&s->gguf, path));
    TRY(arch_read(&s->arch, s->gguf));
    TRY(box_config(box, &s->arch, p, c));
    TRY(weights_bind(&s->weights, &s->arch, s->gguf));
    s->time = mem_alloc(sizeof *s->time);
    REQUIRE(s->time != NULL, ERR_MEMORY, "no memory for trying the kernels");
    return team_open(&s->team, box->n_thread);
}

static void speed_close(struct speed *s)
{
    if (s->time != NULL) {
        be_time_release(s->time);
    }
    mem_free(s->time);
    team_close(s->team);
    weights_release(&s->weights);
    gguf_close(s->gguf);
}

static enum err run(struct speed *s, const struct hearth_box *box, const struct plan_config *c,
                    double read_gb_s, struct predict *all, size_t n)
{
    TRY(be_time_init(s->time, s->team, kern_get(box->isa), read_gb_s));
    return predict_speed(&s->arch, &s->weights, c, s->time, all, n);
}

/* What the caller does not know of memory and disk: first, while nothing else is held. */
static enum err measure_speeds(const struct hearth_box *box, const char *path,
                               const struct hearth_speed *at, size_t n_at, double *read_gb_s,
                               double *disk_gb_s, double *core_share)
{
    uint64_t disk_bytes = 0;
    for (size_t i = 0; i < n_at; i++) {
        disk_bytes = at[i].step_disk_bytes > disk_bytes ? at[i].step_disk_bytes : disk_bytes;
    }
    if (!(*read_gb_s > 0.0)) {
        TRY(measure_read(kern_get(box->isa), box->n_thread, box->memory_bytes, read_gb_s,
                         core_share));
    }
    if (disk_bytes > 0 && !(*disk_gb_s > 0.0)) {
        struct measure_disk disk;
        TRY(measure_disk(path, &disk));
        *disk_gb_s = disk.gb_s;
    }
    return ERR_OK;
}

enum err speed_predict(const struct hearth_box *box, const char *path,
                       const struct hearth_model_params *p, struct hearth_speed *at, size_t n_at)
{
    struct speed s = { 0 };
    struct predict all[SPEED_ASKED];
    struct plan_config c;
    REQUIRE(n_at >= 1 && n_at <= SPEED_ASKED, ERR_USAGE, "%zu speeds asked for, 1 to %d may be",
            n_at, SPEED_ASKED);
    double read_gb_s = at[0].read_gb_s;
    double disk_gb_s = at[0].disk_gb_s;
    double core_share = at[0].core_share;
    enum err e = measure_speeds(box, path, at, n_at, &read_gb_s, &disk_gb_s, &core_share);
    for (size_t i = 0; i < n_at; i++) {
        all[i] = (struct predict){ .n_prompt = at[i].n_prompt,
                                   .n_depth = at[i].n_depth,
                                   .n_parallel = at[i].n_parallel };
        if (at[i].step_disk_bytes > 0) {
            const double one = (double)at[i].step_disk_bytes;
            const double piece = fmax((double)at[i].piece_disk_bytes, one);
            all[i].disk_us = one / disk_gb_s / 1e3;
            all[i].piece_disk_us = piece / disk_gb_s / 1e3;
            all[i].is_late = piece > one; /* it depends on the tokens what is read: experts */
            all[i].fly_us = all[i].is_late ? (double)DEPOT_FLY_BYTES / disk_gb_s / 1e3 : 0.0;
            all[i].n_look = DEPOT_USE_MOST;
        }
    }
    e = e == ERR_OK ? speed_open(&s, box, path, p, &c) : e;
    e = e == ERR_OK ? run(&s, box, &c, read_gb_s, all, n_at) : e;
    for (size_t i = 0; i < n_at && e == ERR_OK; i++) {
        at[i].read_gb_s = read_gb_s;
        at[i].disk_gb_s = disk_gb_s;
        at[i].core_share = core_share;
        at[i].prefill_tok_s = all[i].prefill_tok_s;
        at[i].decode_tok_s = all[i].decode_tok_s;
    }
    speed_close(&s);
    return e;
}
