/* pressure - whether others eat the memory, and what follows
 *
 * The plan keeps hearth within what was free when it started. Other programs may grow later, and
 * then the kernel takes pages back wherever it can: everybody waits for it, at last it kills
 * somebody, and the largest process of a box with a model is the model's. Long before, the service
 * says so and takes nothing new, so that balancers go elsewhere and its own memory does not grow.
 *
 * Two figures are read together (base/psi.c): the share of the last 10 s in which all programs
 * stood still for want of memory ("full"), and what is left. Either alone is deceptive: a plan may
 * fill a box to its reserve, or a container to the last page, and all is well; and a box with
 * plenty of memory shows pressure when some other container meets its own limit. Of what is left
 * the image goes off that the weights are mapped from: the kernel calls those pages free, too, and
 * while it drops them each token reads them again.
 *
 *     state      entered when                        left when, for 10 s
 *     warned     scarce, and 5 % or more             roomy, or below 2.5 %   -> calm
 *     shedding   scarce, and 10 % or more,           roomy, or below 5 %     -> warned
 *                2 s or more after the warning
 *
 * Scarce: less than 1/16 is left, and less than 4 GiB; roomy: twice that. 10 % of standstill is
 * felt by everybody who waits for an answer, and far from what kills: systemd-oomd acts at 60 % for
 * 30 s. The average needs some 10 s to follow, so brief peaks pass unseen.
 *
 * The box and the cgroup with the least left of its limit are judged each by its own two figures; a
 * cgroup that the kernel tells no pressure of (version 1) is not judged, as its plan may fill it.
 * Where the kernel tells none of the box either, what is left decides: the reserve that every plan
 * leaves (base/pool.c) was not touched by hearth, so when half of it is gone others took it, and
 * below a quarter nothing new is taken.
 *
 * What is done while shedding: new requests are refused. Those that run or wait go on to their end,
 * since all that they need is held already: their places, cache and buffers were taken at start
 * (engine_open.c), and their bodies have been read. Ending them would free next to nothing.
 *
 * Loading a model reads gigabytes and may press by itself; the average forgets that in less than
 * PRESSURE_SETTLE_US.
 *
 * tests/test_pressure.c simulates days of it. Next: serve/server.c, which reads and tells. */
#include "serve/pressure.h"

#include "base/pool.h"

#include <stdio.h>

#define GIB         ((uint64_t)1 << 30)
#define SCARCE_PART 16
#define SCARCE_MOST (4 * GIB)
#define WARN_FULL   5.0  /* percent of standstill */
#define SHED_FULL   10.0 /* left at half of it, as the warning */

/* What a sample says. */
struct verdict {
    bool warns;
    bool sheds;
    bool keeps_warned;
    bool keeps_shedding;
};

static struct verdict judge_told(const struct psi_scope *s)
{
    const uint64_t part = s->limit_bytes / SCARCE_PART;
    const uint64_t scarce = part < SCARCE_MOST ? part : SCARCE_MOST;
    const double full = s->full_percent;
    const bool is_scarce = s->left_bytes < scarce;
    const bool is_roomy = s->left_bytes >= 2 * scarce;
    return (struct verdict){ .warns = is_scarce && full >= WARN_FULL,
                             .sheds = is_scarce && full >= SHED_FULL,
                             .keeps_warned = !is_roomy && full >= WARN_FULL / 2,
                             .keeps_shedding = !is_roomy && full >= SHED_FULL / 2 };
}

/* By what is left of the reserve. */
static struct verdict judge_untold(const struct psi_scope *s)
{
    const uint64_t reserve = pool_reserve(s->limit_bytes);
    return (struct verdict){ .warns = s->left_bytes < reserve / 2,
                             .sheds = s->left_bytes < reserve / 4,
                             .keeps_warned = s->left_bytes < reserve / 4 * 3,
                             .keeps_shedding = s->left_bytes < reserve / 2 };
}

static bool is_limited(const struct psi_scope *s)
{
    return s->left_bytes != UINT64_MAX && s->limit_bytes != UINT64_MAX;
}

static struct verdict judge_box(const struct psi *s)
{
    const struct verdict none = { 0 };
    return !is_limited(&s->box) ? none
           : s->box.is_told     ? judge_told(&s->box)
                                : judge_untold(&s->box);
}

static struct verdict judge_group(const struct psi *s)
{
    const struct verdict none = { 0 };
    return is_limited(&s->group) && s->group.is_told ? judge_told(&s->group) : none;
}

static struct verdict judge(const struct psi *s)
{
    const struct verdict b = judge_box(s);
    const struct verdict g = judge_group(s);
    return (struct verdict){ .warns = b.warns || g.warns,
                             .sheds = b.sheds || g.sheds,
                             .keeps_warned = b.keeps_warned || g.keeps_warned,
                             .keeps_shedding = b.keeps_shedding || g.keeps_shedding };
}

static bool is_loud(struct verdict v)
{
    return v.keeps_warned || v.warns;
}

/* Of the scope that is judged the worse: the cgroup where both are alike, as it is the closer one.
 * When nothing is short any more, of the one that was: the other's figures explain nothing. */
static void say(struct pressure *p)
{
    const struct psi *s = &p->last;
    p->is_group =
        is_loud(judge_group(s)) || (p->is_group && is_limited(&s->group) && !is_loud(judge_box(s)));
    const struct psi_scope *x = p->is_group ? &s->group : &s->box;
    const double mib = 1048576.0;
    int n = snprintf(p->text, sizeof p->text, "%.0f of %.0f MiB are left %s",
                     is_limited(x) ? (double)x->left_bytes / mib : 0.0,
                     is_limited(x) ? (double)x->limit_bytes / mib : 0.0,
                     p->is_group ? "to this cgroup" : "on this box");
    if (x->is_told) {
        snprintf(p->text + n, sizeof p->text - (size_t)n,
                 ", and its programs stood still for %.1f %% of the last 10 s, waiting for memory",
                 x->full_percent);
    }
}

void pressure_begin(struct pressure *p, uint64_t image_bytes, uint64_t now_us)
{
    *p = (struct pressure){
        .image_bytes = image_bytes, .begin_us = now_us, .loud_us = now_us, .hard_us = now_us
    };
}

static void leave_image(struct psi_scope *s, uint64_t image_bytes)
{
    if (s->left_bytes != UINT64_MAX) {
        s->left_bytes = s->left_bytes > image_bytes ? s->left_bytes - image_bytes : 0;
    }
}

bool pressure_step(struct pressure *p, const struct psi *sample, uint64_t now_us)
{
    const enum pressure_state before = p->state;
    p->last = *sample;
    leave_image(&p->last.box, p->image_bytes);
    leave_image(&p->last.group, p->image_bytes);
    const struct verdict v = judge(&p->last);
    p->loud_us = v.keeps_warned || v.warns ? now_us : p->loud_us;
    p->hard_us = v.keeps_shedding || v.sheds ? now_us : p->hard_us;
    if (p->state == PRESSURE_CALM && v.warns) {
        p->state = PRESSURE_WARNED;
        p->warned_us = now_us;
        p->n_warning++;
    } else if (p->state == PRESSURE_WARNED && v.sheds &&
               now_us - p->warned_us >= PRESSURE_WARN_US &&
               now_us - p->begin_us >= PRESSURE_SETTLE_US) {
        p->state = PRESSURE_SHEDDING;
        p->n_shedding++;
    } else if (p->state == PRESSURE_SHEDDING && now_us - p->hard_us >= PRESSURE_EASE_US) {
        p->state = PRESSURE_WARNED;
        p->warned_us = now_us;
        p->loud_us = now_us;
    } else if (p->state == PRESSURE_WARNED && now_us - p->loud_us >= PRESSURE_EASE_US) {
        p->state = PRESSURE_CALM;
    }
    say(p);
    return p->state != before;
}
