/* test_engine - how the ends of choices add up to the end of their request
 *
 * Includes the .c: a model that gives one choice scores and another none would have to be made for it; the
 * function that counts ends needs only the tables. */
#include "engine/engine.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct engine e;
static struct job job;
static struct slot slots[2];
static struct kv_seq seqs[2];

/* The two choices of a request end so, in this order; returns what its END says. */
static enum engine_finish end_both(enum engine_finish first, enum engine_finish second)
{
    int32_t i_job;
    int32_t i_seq;
    e = (struct engine){ .jobs = &job, .slots = slots, .n_job = 1, .x = { .seqs = seqs } };
    job = (struct job){ .state = JOB_ACTIVE, .n_open = 2, .n_prompt = 1 };
    sched_init(&e.sched, 2, 1, 1);
    assert_true(sched_submit(&e.sched, 0, 2, 1) && sched_admit(&e.sched, &i_job, &i_seq));
    end_choice(&e, 0, first);
    assert_int_equal(job.state, JOB_ACTIVE);
    end_choice(&e, 1, second);
    assert_int_equal(job.state, JOB_ENDED);
    assert_int_equal(job.n_event, 3);
    assert_int_equal(job.ring[0].event.finish, first);
    assert_int_equal(job.ring[1].event.finish, second);
    assert_int_equal(job.ring[2].event.kind, ENGINE_END);
    return job.ring[2].event.finish;
}

static void test_worst_end(void **state)
{
    (void)state;
    assert_int_equal(end_both(ENGINE_FINISH_ERROR, ENGINE_FINISH_STOP), ENGINE_FINISH_ERROR);
    assert_true(e.stats.n_failed == 1 && e.stats.n_done == 0);
    assert_int_equal(end_both(ENGINE_FINISH_STOP, ENGINE_FINISH_ERROR), ENGINE_FINISH_ERROR);
    assert_true(e.stats.n_failed == 1 && e.stats.n_done == 0);
    assert_int_equal(end_both(ENGINE_FINISH_LENGTH, ENGINE_FINISH_STOP), ENGINE_FINISH_LENGTH);
    assert_true(e.stats.n_failed == 0 && e.stats.n_done == 1);
    assert_int_equal(end_both(ENGINE_FINISH_STOP, ENGINE_FINISH_STOP), ENGINE_FINISH_STOP);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_worst_end) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
