/* test_claim - plans of other processes: alive, killed, with mapped images, and folders that nobody may trust */
#include "base/claim.h"
#include "tree.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64]; /* of plans */

/* Of the process as /proc below the tree shows it. */
static void put_process(pid_t pid, const char *status)
{
    char name[64];
    snprintf(name, sizeof name, "proc/%d/status", (int)pid);
    put(name, status);
}

/* A process that planned so much, twice if `second` is not 0, and waits to be killed. */
static pid_t planner_of(uint64_t first, uint64_t second, const struct claim_image *image)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        struct claim c = { 0 };
        struct claim d = { 0 };
        const bool is_made = claim_open(&c, folder, first, image) == ERR_OK &&
                             (second == 0 || claim_open(&d, folder, second, NULL) == ERR_OK);
        _exit(is_made && write(ready[1], "y", 1) == 1 && pause() == 0 ? 0 : 1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static pid_t planner(uint64_t first, uint64_t second)
{
    return planner_of(first, second, NULL);
}

static void kill_planner(pid_t child)
{
    int status = 0;
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
}

static struct claim_list others(void)
{
    struct claim_list list;
    claim_others(top, folder, NULL, &list);
    return list;
}

static const struct cgroup_claim *find(const struct claim_list *l, pid_t pid)
{
    for (int i = 0; i < l->n; i++) {
        if (l->one[i].pid == (uint64_t)pid) {
            return &l->one[i];
        }
    }
    fail();
    return NULL;
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
    const pid_t a = planner(5000000, 0);
    const pid_t b = planner(3000000, 4000000); /* the larger of two counts */
    put_process(a, "Name:\thearth\nVmRSS:\t    1000 kB\n");
    put_process(b, "Name:\thearth\nVmRSS:\t     100 kB\n");
    struct claim_list s = others();
    assert_int_equal(s.bytes, 5000000 - 1024000 + 4000000 - 102400);
    assert_int_equal(s.n, 2);
    assert_int_equal(find(&s, a)->plan_bytes, 5000000);
    assert_int_equal(find(&s, a)->own_bytes, 1024000);
    assert_int_equal(find(&s, b)->plan_bytes, 4000000);
    put_process(a, "Name:\thearth\nVmRSS:\t    9000 kB\n"); /* has all it planned */
    s = others();
    assert_int_equal(s.bytes, 4000000 - 102400);
    kill_planner(b);
    assert_int_equal(n_files(), 3);
    s = others();
    assert_int_equal(s.bytes, 0); /* CL-1 */
    assert_int_equal(n_files(), 1);
    put_process(a, "Name:\thearth\n"); /* what cannot be seen holds nothing */
    assert_int_equal(others().bytes, 5000000);
    kill_planner(a);
    assert_int_equal(others().bytes, 0);
    assert_int_equal(n_files(), 0);
}

/* Pages of files stay claimed, as the kernel calls them available; those of one image once. */
static void test_images(void **state)
{
    (void)state;
    const struct claim_image x = { 1, 10, 3000000 };
    const struct claim_image y = { 1, 11, 3000000 };
    const struct claim_image z = { 2, 10, 3000000 };
    const pid_t a = planner_of(5000000, 0, &x);
    const pid_t b = planner_of(4000000, 0, &x);
    put_process(a, "RssAnon:\t 500 kB\nRssFile:\t 2900 kB\nRssShmem:\t 100 kB\nVmRSS:\t 3500 kB\n");
    put_process(b, "RssAnon:\t 0 kB\nRssFile:\t 2900 kB\nRssShmem:\t 0 kB\nVmRSS:\t 2900 kB\n");
    struct claim_list s = others();
    assert_int_equal(s.bytes, 5000000 - 600 * 1024 + 4000000 - 3000000);
    assert_int_equal(find(&s, a)->own_bytes, 600 * 1024);
    assert_int_equal(find(&s, a)->file_bytes, 2900 * 1024);
    assert_int_equal(find(&s, a)->shared_bytes + find(&s, b)->shared_bytes, 3000000);
    claim_others(top, folder, &x, &s); /* this process plans with the same image */
    assert_int_equal(s.bytes, 5000000 - 3000000 - 600 * 1024 + 4000000 - 3000000);
    assert_int_equal(find(&s, a)->ours_bytes, 3000000);
    assert_int_equal(find(&s, b)->ours_bytes, 3000000);
    claim_others(top, folder, &y, &s); /* or with another file */
    assert_int_equal(s.bytes, 5000000 - 600 * 1024 + 4000000 - 3000000);
    claim_others(top, folder, &z, &s); /* or the same number on another device */
    assert_int_equal(s.bytes, 5000000 - 600 * 1024 + 4000000 - 3000000);
    assert_int_equal(find(&s, a)->ours_bytes + find(&s, b)->ours_bytes, 0);
    kill_planner(a);
    kill_planner(b);
}

/* A file's identity, and none. */
static void test_image_of(void **state)
{
    (void)state;
    char path[128];
    struct stat st;
    struct claim_image i;
    put("model", "x");
    snprintf(path, sizeof path, "%s/model", top);
    assert_int_equal(stat(path, &st), 0);
    claim_image_of(&i, path, 7);
    assert_true(i.device == st.st_dev && i.inode == st.st_ino && i.bytes == 7);
    claim_image_of(&i, "/nowhere/at/all", 7);
    assert_int_equal(i.device + i.inode + i.bytes, 0);
}

static void test_own(void **state)
{
    (void)state;
    struct claim c = { 0 };
    claim_close(&c);
    assert_int_equal(claim_open(&c, folder, 1 << 30, NULL), ERR_OK);
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
    int held[sizeof texts / sizeof texts[0]];
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        snprintf(path, sizeof path, "claims/plan-%zu", i);
        put(path, texts[i]);
        snprintf(path, sizeof path, "%s/plan-%zu", folder, i);
        held[i] = open(path, O_RDONLY); /* as of a living process: else it is removed unread */
        assert_int_equal(flock(held[i], LOCK_EX | LOCK_NB), 0);
    }
    put("claims/.plan-old", "1 2 3\n");
    put("claims/.plan-new", "1 2 3\n");
    snprintf(path, sizeof path, "%s/.plan-old", folder);
    const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1000000 } };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    snprintf(path, sizeof path, "%s/plan-pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    snprintf(path, sizeof path, "%s/plan-link", folder);
    assert_int_equal(symlink("/dev/zero", path), 0);
    snprintf(path, sizeof path, "%s/plan-folder", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    put("claims/else", "1 2 3\n");
    assert_int_equal(others().bytes, 7000);
    const int n_text = (int)(sizeof texts / sizeof texts[0]);
    /* the plan, texts, three of another kind, what is none of ours, and one that gets its name yet */
    assert_int_equal(n_files(), 1 + n_text + 3 + 1 + 1);
    for (int i = 0; i < n_text; i++) {
        close(held[i]);
    }
    assert_int_equal(others().bytes, 7000);
    assert_int_equal(n_files(), 1 + 3 + 1 + 1); /* nobody holds them any more */
    snprintf(path, sizeof path, "%s/.plan-new", folder);
    unlink(path);
    kill_planner(a);
}

static void test_folders(void **state)
{
    (void)state;
    char path[256];
    struct claim c = { 0 };
    struct claim_list s;
    snprintf(path, sizeof path, "%s/link", top);
    assert_int_equal(symlink(folder, path), 0);
    assert_int_equal(claim_open(&c, path, 1, NULL), ERR_IO);
    snprintf(path, sizeof path, "%s/open", top);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(claim_open(&c, path, 1, NULL), ERR_POLICY);
    if (geteuid() == 0) {
        snprintf(path, sizeof path, "%s/foreign", top);
        assert_int_equal(mkdir(path, 0700), 0);
        assert_int_equal(chown(path, 12345, 12345), 0);
        assert_int_equal(claim_open(&c, path, 1, NULL), ERR_POLICY);
        claim_others("", path, NULL, &s);
        assert_int_equal(s.bytes, 0);
    }
    snprintf(path, sizeof path, "%s/not/there", top);
    assert_int_equal(claim_open(&c, path, 1, NULL), ERR_IO);
    assert_false(c.is_open);
    claim_others("", path, NULL, &s);
    assert_int_equal(s.bytes + (uint64_t)s.n, 0);
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
        cmocka_unit_test(test_others),   cmocka_unit_test(test_images),
        cmocka_unit_test(test_image_of), cmocka_unit_test(test_own),
        cmocka_unit_test(test_strange),  cmocka_unit_test(test_folders),
    };
    return cmocka_run_group_tests(tests, setup, tree_teardown);
}
