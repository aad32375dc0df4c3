/* Being a process: run directory, ipc paths, locks, stop flag, parent's death, fault points. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/process.h"

static char base[64];

static int setup(void **state)
{
    (void)state;
    snprintf(base, sizeof base, "/tmp/omni-test-process-XXXXXX");
    return mkdtemp(base) == NULL;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", base);
    return system(command);
}

static void run_dir_is_private_under_any_umask(void **state)
{
    char below[128], dir[256];
    struct stat st;
    struct error err;
    mode_t old;

    (void)state;
    snprintf(below, sizeof below, "%s/run", base);
    old = umask(0);
    process_private_files();
    assert_int_equal(process_run_dir(below, "g", dir, sizeof dir, &err), 0);
    umask(old);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(process_run_dir(below, "g", dir, sizeof dir, &err), 0); /* once more */
    assert_int_equal(chmod(dir, 0770), 0);
    assert_int_equal(process_run_dir(below, "g", dir, sizeof dir, &err), -EPERM);
    setenv("XDG_RUNTIME_DIR", base, 1);
    assert_int_equal(process_run_dir("", "h", dir, sizeof dir, &err), 0);
    snprintf(below, sizeof below, "%s/omni/h", base);
    assert_string_equal(dir, below);
}

static void a_runtime_dir_that_is_not_there_is_not_used(void **state)
{
    char missing[128], dir[256], tmp[64];

    (void)state;
    snprintf(missing, sizeof missing, "%s/missing", base);
    snprintf(tmp, sizeof tmp, "/tmp/omni-%u", (unsigned)geteuid());
    setenv("XDG_RUNTIME_DIR", missing, 1);
    assert_int_equal(process_run_base("", dir, sizeof dir), 0);
    assert_string_equal(dir, tmp);
    assert_int_equal(access(missing, F_OK), -1);
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    assert_int_equal(process_run_base(NULL, dir, sizeof dir), 0);
    assert_string_equal(dir, tmp);
    unsetenv("XDG_RUNTIME_DIR");
    assert_int_equal(process_run_base("", dir, sizeof dir), 0);
    assert_string_equal(dir, tmp);
    assert_int_equal(process_run_base("/x", dir, sizeof dir), 0);
    assert_string_equal(dir, "/x");
    assert_int_equal(process_run_base("/x", dir, 2), -ENAMETOOLONG);
}

static void symbolic_links_are_refused(void **state)
{
    char link[128];
    struct error err;

    (void)state;
    snprintf(link, sizeof link, "%s/link", base);
    assert_int_equal(symlink("/tmp", link), 0);
    assert_int_equal(process_private_dir(link, &err), -ENOTDIR);
}

static void ipc_paths_are_bounded(void **state)
{
    char dir[128], out[160];
    struct error err;

    (void)state;
    memset(dir, 'd', sizeof dir);
    dir[PROCESS_IPC_PATH_MAX - 5] = '\0';
    assert_int_equal(process_ipc_address(dir, "sock", out, sizeof out, &err), 0); /* 107 exactly */
    assert_int_equal(strlen(out), 6 + PROCESS_IPC_PATH_MAX);
    assert_int_equal(process_ipc_address(dir, "socks", out, sizeof out, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.text, "run.dir"));
}

static void one_holder_per_lock(void **state)
{
    char expected[64];
    struct error err;
    int fd = process_lock(base, "router", &err);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(process_lock(base, "router", &err), -EBUSY);
    snprintf(expected, sizeof expected, "held by pid %d", (int)getpid());
    assert_non_null(strstr(err.text, expected));
    close(fd);
    fd = process_lock(base, "router", &err);
    assert_true(fd >= 0);
    close(fd);
}

static void signals_set_the_flag(void **state)
{
    struct pollfd p = {.events = POLLIN};
    int status;
    pid_t pid;

    (void)state;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        if (process_catch_stop(&p.fd) != 0 || process_stop_requested())
            _exit(1);
        raise(SIGPIPE);
        raise(SIGTERM);
        _exit(process_stop_requested() && poll(&p, 1, 1000) == 1 ? 0 : 2);
    }
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Grandparent (the test) kills the parent; the grandchild must be gone soon after. */
static void dies_with_its_parent(void **state)
{
    int fds[2], status;
    char byte;
    pid_t parent;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    fflush(NULL);
    parent = fork();
    if (parent == 0) {
        pid_t me = getpid();
        if (fork() == 0) {
            if (process_die_with_parent(me) != 0 || write(fds[1], "r", 1) != 1)
                _exit(1);
            for (;;)
                pause();
        }
        for (;;)
            pause();
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    kill(parent, SIGKILL);
    waitpid(parent, &status, 0);
    assert_int_equal(read(fds[0], &byte, 1), 0); /* end of file: the last writer is gone */
    close(fds[0]);
    assert_int_equal(process_die_with_parent(getppid() + 1), -ESRCH);
}

static void start_ticks_name_a_process(void **state)
{
    uint64_t mine, again, first;

    (void)state;
    assert_int_equal(process_start_ticks(getpid(), &mine), 0);
    assert_int_equal(process_start_ticks(getpid(), &again), 0);
    assert_int_equal(mine, again);
    assert_int_equal(process_start_ticks(1, &first), 0);
    assert_true(first < mine);
    assert_int_equal(process_start_ticks(0x3fffffff, &mine), -ESRCH);
}

#ifdef OMNI_FAULTS
static int child_status(const char *spec, int passes)
{
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        setenv("OMNI_FAULT", spec, 1);
        atomic_store(&fault_armed, 0); /* as in a fresh process */
        for (int i = 0; i < passes; i++)
            fault_point("a.step");
        _exit(0);
    }
    waitpid(pid, &status, WUNTRACED);
    if (WIFSTOPPED(status)) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return status;
}

static void fault_points_act_at_the_nth_pass(void **state)
{
    int status;

    (void)state;
    status = child_status("a.step", 1);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(child_status("a.step:3", 2), 0);
    status = child_status("b.step,a.step:3:exit", 3);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 70);
    assert_true(WIFSTOPPED(child_status("a.step:stop", 1)));
    assert_int_equal(child_status("other", 5), 0);
    assert_int_equal(child_status("", 5), 0);
}
#endif

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(run_dir_is_private_under_any_umask),
        TEST(a_runtime_dir_that_is_not_there_is_not_used),
        TEST(symbolic_links_are_refused),
        TEST(ipc_paths_are_bounded),
        TEST(one_holder_per_lock),
        TEST(signals_set_the_flag),
        TEST(dies_with_its_parent),
        TEST(start_ticks_name_a_process),
#ifdef OMNI_FAULTS
        TEST(fault_points_act_at_the_nth_pass),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
