/* test_claim - plans of other processes: alive, killed, of the same cgroup, and folders that nobody may trust */
#include "base/claim.h"
#include "tree.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64]; /* of plans */

/* Of the process as /proc below the tree shows it. */
static void put_process(pid_t pid, const char *status, const char *group)
{
    char name[64];
    snprintf(name, sizeof name, "proc/%d/status", (int)pid);
    put(name, status);
    snprintf(name, sizeof name, "proc/%d/cgroup", (int)pid);
    put(name, group);
}

/* A process that planned so much, twice if `second` is not 0, and waits to be killed. */
static pid_t planner(uint64_t first, uint64_t second)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        struct claim c = { 0 };
        struct claim d = { 0 };
        const bool is_made = claim_open(&c, folder, first) == ERR_OK &&
                             (second == 0 || claim_open(&d, folder, second) == ERR_OK);
        _exit(is_made && write(ready[1], "y", 1) == 1 && pause() == 0 ? 0 : 1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void kill_planner(pid_t child)
{
    int status = 0;
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
}

static struct claim_sum others(void)
{
    struct claim_sum sum;
    claim_others(top, folder, &sum);
    return sum;
}

static int n_files(void)
{
    char command[128];
    char text[32] = "";
    snprintf(command, sizeof command, "ls -A %s | wc -l", folder);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    pclose(f);
    return (int)strtol(text, NULL, 10);
}

static void test_others(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/a\n");
    const pid_t a = planner(5000000, 0);
    const pid_t b = planner(3000000, 4000000); /* the larger of two counts */
    put_process(a, "Name:\thearth\nVmRSS:\t    1000 kB\n", "0::/a\n");
    put_process(b, "Name:\thearth\nVmRSS:\t     100 kB\n", "0::/b\n");
    struct claim_sum s = others();
    assert_int_equal(s.bytes, 5000000 - 1024000 + 4000000 - 102400);
    assert_int_equal(s.group_bytes, 5000000 - 1024000);
    put_process(a, "Name:\thearth\nVmRSS:\t    9000 kB\n", "0::/a\n"); /* has all it planned */
    s = others();
    assert_int_equal(s.bytes, 4000000 - 102400);
    kill_planner(b);
    assert_int_equal(n_files(), 3);
    s = others();
    assert_int_equal(s.bytes, 0); /* CL-1 */
    assert_int_equal(n_files(), 1);
    put_process(a, "Name:\thearth\n", ""); /* what cannot be seen holds nothing */
    assert_int_equal(others().bytes, 5000000);
    kill_planner(a);
    assert_int_equal(others().bytes, 0);
    assert_int_equal(n_files(), 0);
}

static void test_own(void **state)
{
    (void)state;
    struct claim c = { 0 };
    claim_close(&c);
    assert_int_equal(claim_open(&c, folder, 1 << 30), ERR_OK);
    assert_int_equal(others().bytes, 0);
    assert_int_equal(n_files(), 1); /* looking at it does not take it for a dead one's */
    claim_close(&c);
    assert_int_equal(n_files(), 0);
}

/* Files of other kinds, and texts that are no plans. */
static void test_strange(void **state)
{
    (void)state;
    char path[128];
    const pid_t a = planner(7000, 0);
    static const char *const texts[] = {
        "", "x", "1", "1 2", "1 2 3", "-1 2 3\n", "1 2 99999999999999999999999\n", "1  2 3\n"
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        snprintf(path, sizeof path, "claims/plan-%zu", i);
        put(path, texts[i]);
    }
    snprintf(path, sizeof path, "%s/plan-pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    snprintf(path, sizeof path, "%s/plan-link", folder);
    assert_int_equal(symlink("/dev/zero", path), 0);
    snprintf(path, sizeof path, "%s/plan-folder", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    put("claims/else", "1 2 3\n");
    assert_int_equal(others().bytes, 7000);
    assert_int_equal(n_files(), 5); /* the plan, three of another kind, and what is none of ours */
    kill_planner(a);
}

static void test_folders(void **state)
{
    (void)state;
    char path[256];
    struct claim c = { 0 };
    struct claim_sum s;
    snprintf(path, sizeof path, "%s/link", top);
    assert_int_equal(symlink(folder, path), 0);
    assert_int_equal(claim_open(&c, path, 1), ERR_IO);
    snprintf(path, sizeof path, "%s/open", top);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(claim_open(&c, path, 1), ERR_POLICY);
    if (geteuid() == 0) {
        snprintf(path, sizeof path, "%s/foreign", top);
        assert_int_equal(mkdir(path, 0700), 0);
        assert_int_equal(chown(path, 12345, 12345), 0);
        assert_int_equal(claim_open(&c, path, 1), ERR_POLICY);
        claim_others("", path, &s);
        assert_int_equal(s.bytes, 0);
    }
    snprintf(path, sizeof path, "%s/not/there", top);
    assert_int_equal(claim_open(&c, path, 1), ERR_IO);
    assert_false(c.is_open);
    claim_others("", path, &s);
    assert_int_equal(s.bytes + s.group_bytes, 0);
}

static int setup(void **state)
{
    const int rc = tree_setup(state);
    snprintf(folder, sizeof folder, "%s/claims", top);
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_own),
        cmocka_unit_test(test_strange),
        cmocka_unit_test(test_folders),
    };
    return cmocka_run_group_tests(tests, setup, tree_teardown);
}
