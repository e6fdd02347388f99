/* test_pressure - the kernel's figures of who waits for memory, and what a service makes of them
 *
 * The state machine runs over days of made up samples on a clock of its own: it never refuses while there is plenty, never before a
 * warning, never flaps faster than it may, and always comes back. */
#include "serve/pressure.h"

#include "base/pool.h"
#include "tree.h"

#define S   ((uint64_t)1000000)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

/* --- reading ---------------------------------------------------------------------------------- */

static void test_parse(void **state)
{
    (void)state;
    struct psi_scope s = { .left_bytes = 7 };
    assert_true(psi_parse("some avg10=12.34 avg60=1.00 avg300=0.50 total=5000\n"
                          "full avg10=5.06 avg60=0.10 avg300=0.05 total=123456789\n",
                          &s));
    assert_true(s.is_told && s.some_percent == 12.34 && s.full_percent == 5.06);
    assert_int_equal(s.full_us, 123456789);
    assert_int_equal(s.left_bytes, 7);
    assert_true(psi_parse("some avg10=100.00 total=1\nfull avg10=999 total=1", &s));
    assert_true(s.some_percent == 100.0 && s.full_percent == 100.0);
    assert_true(psi_parse("full avg10=0.5\nsome avg10=1", &s)); /* in any order */
    assert_true(s.full_percent == 0.5 && s.some_percent == 1.0 && s.full_us == 0);
    static const char *const bad[] = { "",
                                       "\n",
                                       "some avg10=1.00 total=5\n",
                                       "some avg10=1.00\nfull avg60=1.00\n",
                                       "some avg10=1.00\nfull \navg10=1.00\n",
                                       "some avg10=-1\nfull avg10=1\n",
                                       "some avg10=1\nfull avg10=nan\n",
                                       "some avg10=1\nfull avg10=99999\n",
                                       "somefull avg10=1\n",
                                       "Operation not supported\n" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct psi_scope t = { .full_percent = 3.0 };
        assert_false(psi_parse(bad[i], &t));
        assert_true(!t.is_told && t.full_percent == 3.0);
    }
}

static void test_read(void **state)
{
    (void)state;
    struct psi p;
    char path[300];
    snprintf(path, sizeof path, "%s/box", top);
    put("box/proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 1048576 kB\n");
    psi_read(&p, path); /* no pressure told, no cgroup */
    assert_false(p.box.is_told || p.group.is_told);
    assert_int_equal(p.box.left_bytes, GIB);
    assert_int_equal(p.box.limit_bytes, 16 * GIB);
    assert_true(p.group.left_bytes == UINT64_MAX && p.group.limit_bytes == UINT64_MAX);
    put("box/proc/pressure/memory", "some avg10=20.00 avg60=1.00 avg300=0.50 total=5000\n"
                                    "full avg10=15.50 avg60=0.10 avg300=0.05 total=4000\n");
    put("box/proc/self/cgroup", "0::/system.slice/hearth.service\n");
    put("box/sys/fs/cgroup/system.slice/hearth.service/memory.max", "8589934592\n");
    put("box/sys/fs/cgroup/system.slice/hearth.service/memory.current", "8053063680\n");
    put("box/sys/fs/cgroup/system.slice/hearth.service/memory.stat",
        "inactive_file 268435456\nactive_file 0\n");
    put("box/sys/fs/cgroup/system.slice/hearth.service/memory.pressure",
        "some avg10=1.50 avg60=1.00 avg300=0.50 total=50\n"
        "full avg10=0.25 avg60=0.10 avg300=0.05 total=40\n");
    psi_read(&p, path);
    assert_true(p.box.is_told && p.box.full_percent == 15.5 && p.box.full_us == 4000);
    assert_true(p.group.is_told && p.group.full_percent == 0.25 && p.group.some_percent == 1.5);
    assert_int_equal(p.group.limit_bytes, 8 * GIB);
    assert_int_equal(p.group.left_bytes, 768 * MIB);
    psi_read(&p, "/nowhere"); /* nothing is told */
    assert_true(p.box.left_bytes == UINT64_MAX && p.box.limit_bytes == UINT64_MAX);
}

/* --- deciding --------------------------------------------------------------------------------- */

/* Of 16 GiB, a share of them left. */
static struct psi box_of(double left_share, double full_percent)
{
    return (struct psi){ .box = { .is_told = true,
                                  .some_percent = full_percent,
                                  .full_percent = full_percent,
                                  .left_bytes = (uint64_t)(left_share * 16.0 * (double)GIB),
                                  .limit_bytes = 16 * GIB },
                         .group = { .left_bytes = UINT64_MAX, .limit_bytes = UINT64_MAX } };
}

/* The same sample for some seconds. */
static void feed(struct pressure *p, const struct psi *s, uint64_t *now, int n_s)
{
    for (int i = 0; i < n_s; i++) {
        *now += S;
        (void)pressure_step(p, s, *now);
    }
}

static void test_course(void **state)
{
    (void)state;
    struct pressure p;
    uint64_t now = 100 * S;
    const struct psi calm = box_of(0.5, 0.0);
    const struct psi rising = box_of(0.05, 6.0);
    const struct psi bad = box_of(0.03, 25.0);
    const struct psi between = box_of(0.08, 30.0); /* of memory: begins nothing, keeps all */
    const struct psi fading = box_of(0.03, 4.0);   /* of standstill */
    pressure_begin(&p, 0, now);
    feed(&p, &calm, &now, 40);
    assert_int_equal(p.state, PRESSURE_CALM);
    feed(&p, &between, &now, 40);
    assert_int_equal(p.state, PRESSURE_CALM);
    feed(&p, &rising, &now, 1);
    assert_int_equal(p.state, PRESSURE_WARNED);
    assert_int_equal(p.n_warning, 1);
    assert_non_null(strstr(p.text, "819 of 16384 MiB are left on this box"));
    assert_non_null(strstr(p.text, "6.0 % of the last 10 s"));
    feed(&p, &rising, &now, 60);
    assert_int_equal(p.state, PRESSURE_WARNED); /* 6 % never refuses anybody */
    feed(&p, &bad, &now, 1);
    assert_int_equal(p.state, PRESSURE_SHEDDING); /* the warning is old */
    feed(&p, &between, &now, 60);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    feed(&p, &fading, &now, 9);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    feed(&p, &fading, &now, 1);
    assert_int_equal(p.state, PRESSURE_WARNED); /* PS-2 */
    feed(&p, &fading, &now, 60);
    assert_int_equal(p.state, PRESSURE_WARNED); /* 4 % keeps the warning */
    feed(&p, &calm, &now, 9);
    assert_int_equal(p.state, PRESSURE_WARNED);
    feed(&p, &calm, &now, 1);
    assert_int_equal(p.state, PRESSURE_CALM);
    feed(&p, &bad, &now, 1);
    assert_int_equal(p.state, PRESSURE_WARNED); /* PS-1: a warning first */
    feed(&p, &bad, &now, 1);
    assert_int_equal(p.state, PRESSURE_WARNED);
    feed(&p, &bad, &now, 1);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    assert_int_equal(p.n_warning, 2);
    assert_int_equal(p.n_shedding, 2);
}

/* What loading left behind refuses nobody. */
static void test_settles(void **state)
{
    (void)state;
    struct pressure p;
    uint64_t now = 5 * S;
    const struct psi bad = box_of(0.03, 60.0);
    pressure_begin(&p, 0, now);
    feed(&p, &bad, &now, 29);
    assert_int_equal(p.state, PRESSURE_WARNED);
    feed(&p, &bad, &now, 1);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
}

/* A full box that is quiet, a busy one with room, a container that its plan fills: all is well. */
static void test_not_pressed(void **state)
{
    (void)state;
    struct pressure p;
    uint64_t now = 5 * S;
    struct psi s = box_of(0.001, 2.4);
    pressure_begin(&p, 0, now);
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_CALM);
    s = box_of(0.07, 100.0);
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_CALM);
    s = box_of(0.5, 100.0); /* others meet their limits; ours is full, by plan */
    s.group = (struct psi_scope){ .is_told = true, .left_bytes = 0, .limit_bytes = GIB };
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_CALM);
    s.group.is_told = false; /* version 1 */
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_CALM);
    s = box_of(0.5, 50.0); /* a large box: 5 GiB are less than 1/16, but not little */
    s.box.limit_bytes = 1024 * GIB;
    s.box.left_bytes = 5 * GIB;
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_CALM);
    s.box.left_bytes = UINT64_MAX; /* not told */
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_CALM);
}

/* Half of 16 GiB is left by the kernel's count; an image is most of that, and cannot be dropped for nothing. */
static void test_image(void **state)
{
    (void)state;
    struct pressure p;
    uint64_t now = 5 * S;
    const uint64_t image = 15 * GIB / 2; /* of 8 GiB */
    struct psi s = box_of(0.5, 60.0);
    pressure_begin(&p, 0, now);
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_CALM);
    pressure_begin(&p, image, now);
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    assert_non_null(strstr(p.text, "512 of 16384 MiB are left on this box"));
    s.box.full_percent = 0.0; /* a plan that fills the box, and all is well */
    feed(&p, &s, &now, 30);
    assert_int_equal(p.state, PRESSURE_CALM);
    s.group = (struct psi_scope){
        .is_told = true, .full_percent = 60.0, .left_bytes = image, .limit_bytes = 9 * GIB
    };
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    assert_non_null(strstr(p.text, "0 of 9216 MiB are left to this cgroup"));
    s = box_of(0.3, 60.0); /* less than the image: some of it was dropped already */
    s.box.is_told = false;
    pressure_begin(&p, image, now);
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    s.box.left_bytes = s.box.limit_bytes = UINT64_MAX; /* not told */
    feed(&p, &s, &now, 30);
    assert_int_equal(p.state, PRESSURE_CALM);
}

static void test_group(void **state)
{
    (void)state;
    struct pressure p;
    uint64_t now = 5 * S;
    struct psi s = box_of(0.9, 0.0);
    s.group = (struct psi_scope){
        .is_told = true, .full_percent = 30.0, .left_bytes = 10 * MIB, .limit_bytes = GIB
    };
    pressure_begin(&p, 0, now);
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    assert_non_null(strstr(p.text, "10 of 1024 MiB are left to this cgroup"));
    s.group.full_percent = 0.0;
    s.group.left_bytes = 900 * MIB;
    s.box.full_percent = 22.0; /* others are worse off: what is told is still the cgroup's */
    feed(&p, &s, &now, 5);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    assert_non_null(strstr(
        p.text, "900 of 1024 MiB are left to this cgroup, and its programs stood still for 0.0 %"));
    feed(&p, &s, &now, 30);
    assert_int_equal(p.state, PRESSURE_CALM);
    assert_non_null(strstr(p.text, "to this cgroup"));
    s = box_of(0.01, 60.0); /* and of the box when that gets short */
    s.group.left_bytes = s.group.limit_bytes = UINT64_MAX;
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    assert_non_null(strstr(p.text, "on this box"));
}

/* Without the kernel's figures: half the reserve is gone (128 MiB of 16 GiB), three quarters of it. */
static void test_untold(void **state)
{
    (void)state;
    struct pressure p;
    uint64_t now = 5 * S;
    struct psi s = box_of(0.5, 0.0);
    s.box.is_told = false;
    assert_int_equal(pool_reserve(16 * GIB), 256 * MIB);
    pressure_begin(&p, 0, now);
    s.box.left_bytes = 256 * MIB; /* as a plan may leave it */
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_CALM);
    s.box.left_bytes = 127 * MIB;
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_WARNED);
    assert_null(strstr(p.text, "stood still"));
    s.box.left_bytes = 63 * MIB;
    feed(&p, &s, &now, 1);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    s.box.left_bytes = 127 * MIB;
    feed(&p, &s, &now, 100);
    assert_int_equal(p.state, PRESSURE_SHEDDING);
    s.box.left_bytes = 200 * MIB;
    feed(&p, &s, &now, 30);
    assert_int_equal(p.state, PRESSURE_CALM);
}

/* --- days of it ------------------------------------------------------------------------------- */

static uint64_t seed;

static uint32_t below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

/* Memory and standstill wander; at times they jump. */
static void wander(struct psi_scope *s)
{
    const uint64_t step = s->limit_bytes / 64;
    const uint64_t change = step * below(5);
    const bool falls = below(2) == 0;
    s->left_bytes = falls ? s->left_bytes - (change < s->left_bytes ? change : s->left_bytes)
                          : s->left_bytes + change;
    s->full_percent += ((double)below(2001) - 1000.0) / 200.0;
    if (below(50) == 0) {
        s->full_percent = (double)below(10001) / 100.0;
        s->left_bytes = s->limit_bytes / 100 * below(101);
    }
    s->left_bytes = s->left_bytes < s->limit_bytes ? s->left_bytes : s->limit_bytes;
    s->full_percent = s->full_percent < 0.0     ? 0.0
                      : s->full_percent > 100.0 ? 100.0
                                                : s->full_percent;
    s->is_told = below(1000) == 0 ? !s->is_told : s->is_told;
}

static bool is_little(const struct psi_scope *s)
{
    return s->left_bytes < s->limit_bytes / 16;
}

/* Has what counts as pressure, and so much of it; written down another way than in pressure.c. */
static bool presses(const struct psi_scope *s, double percent)
{
    return s->is_told ? s->full_percent >= percent && is_little(s)
                      : s->left_bytes < s->limit_bytes / 64;
}

struct watch {
    uint64_t shed_us;   /* the last time that it began */
    uint64_t warned_us; /* likewise */
    uint64_t n_shed, n_back;
};

/* One sample; what follows from it must be allowed. */
static void check_step(struct pressure *p, struct watch *w, const struct psi *s, uint64_t now)
{
    const enum pressure_state before = p->state;
    const bool has_changed = pressure_step(p, s, now);
    assert_true(has_changed == (p->state != before));
    const bool can_shed = presses(&s->box, 10.0) || (s->group.is_told && presses(&s->group, 10.0));
    if (p->state == PRESSURE_SHEDDING && before != PRESSURE_SHEDDING) {
        assert_true(before == PRESSURE_WARNED && can_shed);
        assert_true(now - w->warned_us >= PRESSURE_WARN_US);
        assert_true(now - p->begin_us >= PRESSURE_SETTLE_US);
        assert_true(w->n_shed == 0 || now - w->shed_us >= PRESSURE_EASE_US);
        w->shed_us = now;
        w->n_shed++;
    }
    if (p->state == PRESSURE_WARNED && before != PRESSURE_WARNED) {
        w->warned_us = now;
        w->n_back += before == PRESSURE_SHEDDING;
        assert_true(before != PRESSURE_SHEDDING || now - w->shed_us >= PRESSURE_EASE_US);
    }
    assert_true(before != PRESSURE_SHEDDING || p->state != PRESSURE_CALM);
}

static void simulate(uint64_t with, bool has_plenty)
{
    struct pressure p;
    struct watch w = { 0 };
    struct psi s = box_of(0.3, 1.0);
    uint64_t now = 77 * S;
    seed = with;
    s.group = (struct psi_scope){
        .is_told = true, .left_bytes = 2 * GIB, .limit_bytes = 4 * GIB, .full_percent = 2.0
    };
    pressure_begin(&p, 0, now);
    for (int i = 0; i < 200000; i++) { /* more than two days */
        now += below(100) == 0 ? below(60) * S : S / 2 + below((uint32_t)S);
        wander(&s.box);
        wander(&s.group);
        if (has_plenty) {
            s.box.left_bytes = s.box.left_bytes < 4 * GIB ? 4 * GIB : s.box.left_bytes;
            s.group.left_bytes = s.group.left_bytes < GIB ? GIB : s.group.left_bytes;
        }
        check_step(&p, &w, &s, now);
        assert_true(!has_plenty || p.state == PRESSURE_CALM);
        if (p.state == PRESSURE_SHEDDING && below(200) == 0) { /* from anywhere it comes back */
            struct psi good = box_of(0.5, 0.0);
            for (int k = 0; k < 21; k++) {
                now += S;
                check_step(&p, &w, &good, now);
            }
            assert_int_equal(p.state, PRESSURE_CALM);
        }
    }
    assert_int_equal(p.n_shedding, w.n_shed);
    assert_true(has_plenty ? w.n_shed == 0 : w.n_shed > 500 && w.n_back > 500);
}

static void test_days(void **state)
{
    (void)state;
    simulate(1, false);
    simulate(2, false);
    simulate(3, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),       cmocka_unit_test(test_read),
        cmocka_unit_test(test_course),      cmocka_unit_test(test_settles),
        cmocka_unit_test(test_not_pressed), cmocka_unit_test(test_group),
        cmocka_unit_test(test_untold),      cmocka_unit_test(test_days),
        cmocka_unit_test(test_image),
    };
    return cmocka_run_group_tests(tests, tree_setup, tree_teardown);
}
