/* Claims of cpus: processes of one user see each other's, wherever their run folders are, and a claim
 * ends with its process. */
#include "cmocka_all.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/topology/claim.h"

/* Two cpus that this machine hardly has, and that two runs at once hardly share. */
static void choose(struct cpu_set *cpus)
{
    uint32_t cpu = TOPOLOGY_CPUS_MAX - 2 - (uint32_t)getpid() % 64 * 2;

    memset(cpus, 0, sizeof *cpus);
    cpu_set_add(cpus, cpu);
    cpu_set_add(cpus, cpu + 1);
}

/* Claims in a process of its own, with a run folder of its own; it says what claim_cpus returned, and
 * stays until its input ends. */
static pid_t claim_apart(const struct cpu_set *cpus, const char *run_dir, int *rc, pid_t *holder,
                         int *leave)
{
    int answer[2], wait_for[2];
    int said[2];

    assert_int_equal(pipe(answer), 0);
    assert_int_equal(pipe(wait_for), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct cpu_set taken;
        pid_t who = 0;
        char end;

        close(wait_for[1]);
        setenv("XDG_RUNTIME_DIR", run_dir, 1);
        said[0] = claim_cpus(cpus, &taken, &who);
        said[1] = (int)who;
        _exit(write(answer[1], said, sizeof said) == sizeof said && read(wait_for[0], &end, 1) == 0
                  ? 0
                  : 1);
    }
    close(answer[1]);
    close(wait_for[0]);
    assert_int_equal(read(answer[0], said, sizeof said), sizeof said);
    close(answer[0]);
    *rc = said[0];
    *holder = said[1];
    *leave = wait_for[1];
    return pid;
}

static void let_go(pid_t pid, int leave)
{
    int status;

    close(leave);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_run_folders_do_not_matter(void **state)
{
    struct cpu_set cpus;
    pid_t first, second, holder;
    int rc, leave_first, leave_second;

    (void)state;
    choose(&cpus);
    first = claim_apart(&cpus, "/dev/shm", &rc, &holder, &leave_first);
    assert_int_equal(rc, 0);
    second = claim_apart(&cpus, "/tmp", &rc, &holder, &leave_second);
    assert_int_equal(rc, 1);
    assert_int_equal(holder, first);
    let_go(second, leave_second);
    let_go(first, leave_first);
    second = claim_apart(&cpus, "/tmp", &rc, &holder, &leave_second);
    assert_int_equal(rc, 0);
    let_go(second, leave_second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_run_folders_do_not_matter)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
