/* test_topo - cores of machines that are not here: descriptions that hwloc reads (TP-1, TP-2) */
#include "base/topo.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define TWO_SOCKETS "pack:2 [numa] core:8 pu:2"

/* False: this build has no hwloc. */
static bool can_read(struct topo *t, const char *text, const cpu_set_t *allowed)
{
    const enum err e = topo_read(t, text, allowed);
    assert_true(e == ERR_OK || e == ERR_UNSUPPORTED);
    if (e != ERR_OK) {
        skip();
    }
    return e == ERR_OK;
}

static void check_order(const struct topo *t)
{
    for (int32_t i = 0; i < t->n_core; i++) {
        for (int32_t k = 0; k < i; k++) {
            assert_int_not_equal(t->core[k].cpu, t->core[i].cpu);
        }
        if (i > 0) {
            const struct topo_core *a = &t->core[i - 1];
            const struct topo_core *b = &t->core[i];
            assert_true(a->kind < b->kind || (a->kind == b->kind && a->node <= b->node));
        }
    }
}

static void check_text(const struct topo *t, const char *want)
{
    struct buf out;
    buf_init(&out, 4096);
    topo_describe(t, &out);
    assert_string_equal(buf_str(&out), want);
    buf_release(&out);
}

static void test_sockets(void **state)
{
    (void)state;
    struct topo t;
    if (can_read(&t, TWO_SOCKETS, NULL)) {
        assert_int_equal(t.n_core, 16);
        assert_int_equal(t.n_node, 2);
        assert_int_equal(t.n_kind, 1);
        for (int32_t i = 0; i < 16; i++) {
            assert_int_equal(t.core[i].cpu, 2 * i); /* one of each core's two */
            assert_int_equal(t.core[i].node, i / 8);
        }
        check_text(&t, "16 cores, one logical processor of each; threads are bound to groups: "
                       "8 of kind 0 at node 0, 8 of kind 0 at node 1");
    }
}

/* What the process may not use is left out; of a core it may use in part, that part is used. */
static void test_mask(void **state)
{
    (void)state;
    struct topo t;
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    CPU_SET(1, &allowed);
    CPU_SET(6, &allowed);
    CPU_SET(7, &allowed);
    CPU_SET(20, &allowed);
    if (can_read(&t, TWO_SOCKETS, &allowed)) {
        assert_int_equal(t.n_core, 3);
        assert_int_equal(t.core[0].cpu, 1);
        assert_int_equal(t.core[1].cpu, 6);
        assert_int_equal(t.core[2].cpu, 20);
        assert_int_equal(t.n_node, 2);
        CPU_CLR(20, &allowed);
        assert_true(can_read(&t, TWO_SOCKETS, &allowed));
        assert_int_equal(t.n_node, 1);
        check_text(&t, "2 cores, one logical processor of each");
    }
    CPU_ZERO(&allowed);
    CPU_SET(900, &allowed);
    t.n_core = -7;
    assert_int_not_equal(topo_read(&t, TWO_SOCKETS, &allowed), ERR_OK);
    assert_int_equal(t.n_core, -7);
}

/* Processors [cpu, cpu + n) as hwloc writes sets of up to 32. */
static void put_core(struct buf *out, int cpu, int n, int *id)
{
    const uint32_t all = ((1u << n) - 1) << cpu;
    const char *set = "cpuset=\"0x%08x\" complete_cpuset=\"0x%08x\" nodeset=\"0x1\" "
                      "complete_nodeset=\"0x1\" gp_index=\"%d\">";
    buf_printf(out, "<object type=\"Core\" os_index=\"%d\" ", cpu);
    buf_printf(out, set, all, all, (*id)++);
    for (int i = 0; i < n; i++) {
        buf_printf(out, "<object type=\"PU\" os_index=\"%d\" ", cpu + i);
        buf_printf(out, set, 1u << (cpu + i), 1u << (cpu + i), (*id)++);
        buf_add_str(out, "</object>");
    }
    buf_add_str(out, "</object>");
}

/* 16 efficiency cores first (processors 0..15), then 8 fast ones with two processors each. */
static void test_hybrid(void **state)
{
    (void)state;
    struct topo t;
    struct buf out;
    int id = 3;
    const char *all = "cpuset=\"0xffffffff\" complete_cpuset=\"0xffffffff\" nodeset=\"0x1\" "
                      "complete_nodeset=\"0x1\"";
    buf_init(&out, 65536);
    buf_printf(
        &out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
        "<topology version=\"2.0\"><object type=\"Machine\" os_index=\"0\" %s "
        "allowed_cpuset=\"0xffffffff\" allowed_nodeset=\"0x1\" gp_index=\"1\">"
        "<object type=\"NUMANode\" os_index=\"0\" %s gp_index=\"2\" local_memory=\"1048576\">"
        "</object>",
        all, all);
    for (int i = 0; i < 16; i++) {
        put_core(&out, i, 1, &id);
    }
    for (int i = 0; i < 8; i++) {
        put_core(&out, 16 + 2 * i, 2, &id);
    }
    buf_add_str(&out, "</object><cpukind cpuset=\"0x0000ffff\" forced_efficiency=\"0\"></cpukind>"
                      "<cpukind cpuset=\"0xffff0000\" forced_efficiency=\"1\"></cpukind>"
                      "</topology>");
    if (can_read(&t, buf_str(&out), NULL)) {
        assert_int_equal(t.n_core, 24);
        assert_int_equal(t.n_kind, 2);
        assert_int_equal(topo_fast_of(&t, 24), 8);
        assert_int_equal(topo_fast_of(&t, 6), 6);
        check_order(&t);
        for (int32_t i = 0; i < 8; i++) { /* the fast ones first, one processor of each */
            assert_int_equal(t.core[i].cpu, 16 + 2 * i);
        }
        for (int32_t i = 8; i < 24; i++) {
            assert_int_equal(t.core[i].cpu, i - 8);
        }
    }
    buf_release(&out);
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int32_t n_core;
        int32_t n_node;
    } shapes[] = { { "pu:1", 1, 1 },
                   { "core:3 pu:1", 3, 1 },
                   { "pack:4 [numa] core:2 pu:4", 8, 4 },
                   { "numa:8 core:4 pu:1", 32, 8 },
                   { "pack:2 group:4 [numa] core:3 pu:2", 24, 8 },
                   { "pack:1 core:500 pu:2", TOPO_MAX, 1 } };
    struct topo t;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (can_read(&t, shapes[i].text, NULL)) {
            assert_int_equal(t.n_core, shapes[i].n_core);
            assert_int_equal(t.n_node, shapes[i].n_node);
            check_order(&t);
        }
    }
    assert_int_not_equal(topo_read(&t, "no machine", NULL), ERR_OK);
    assert_int_not_equal(topo_read(&t, "<?xml version=\"1.0\"?><topology>", NULL), ERR_OK);
}

static void test_here(void **state)
{
    (void)state;
    const struct topo *t = topo_get();
    assert_in_range(t->n_core, 1, TOPO_MAX);
    check_order(t);
    assert_int_equal(topo_threads_of(t, UINT32_MAX), t->n_core);
    assert_int_equal(topo_threads_of(t, 1),
                     1); /* a group with half a processor's time: rounded up */
    assert_int_equal(topo_threads_of(t, 0), 1);
    struct topo big = { .n_core = 64 };
    assert_int_equal(topo_threads_of(&big, 2), 2); /* 1.5 processors' time */
}

struct bound {
    const struct topo *topo;
    int32_t i;
    cpu_set_t set;
};

static void *bind(void *arg)
{
    struct bound *b = arg;
    topo_bind(b->topo, b->i);
    CPU_ZERO(&b->set);
    sched_getaffinity(0, sizeof b->set, &b->set);
    return NULL;
}

static cpu_set_t set_after(const struct topo *topo, int32_t i)
{
    struct bound b = { .topo = topo, .i = i };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, bind, &b), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return b.set;
}

/* Two processors of this machine as two nodes, as two kinds, and as one group. */
static void test_bind(void **state)
{
    (void)state;
    cpu_set_t mine;
    struct topo t = { .n_core = 2, .n_node = 2, .n_kind = 1 };
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    int n = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++) {
        if (CPU_ISSET(cpu, &mine)) {
            t.core[n] = (struct topo_core){ .cpu = cpu, .node = n };
            n++;
        }
    }
    if (n < 2) {
        skip();
    }
    for (int i = 0; i < 2; i++) {
        const cpu_set_t set = set_after(&t, i);
        assert_int_equal(CPU_COUNT(&set), 1);
        assert_true(CPU_ISSET(t.core[i].cpu, &set));
    }
    t.n_node = 1;
    t.core[1].node = 0;
    cpu_set_t set = set_after(&t, 1); /* all alike: left alone */
    assert_true(CPU_EQUAL(&set, &mine));
    t.n_kind = 2;
    t.core[1].kind = 1;
    set = set_after(&t, 1);
    assert_int_equal(CPU_COUNT(&set), 1);
    set = set_after(&t, 2); /* more workers than cores */
    assert_true(CPU_EQUAL(&set, &mine));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sockets), cmocka_unit_test(test_mask), cmocka_unit_test(test_hybrid),
        cmocka_unit_test(test_shapes),  cmocka_unit_test(test_here), cmocka_unit_test(test_bind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
