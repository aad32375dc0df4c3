/* spawn.c - see spawn.h. */
#include "tests/gpu/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* 127, as a shell says it: the program could not be started. */
static void child_exec(const char *const argv[], int stdout_fd, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* the parent died before prctl took effect */
        _exit(127);
    if (stdout_fd >= 0 && dup2(stdout_fd, STDOUT_FILENO) < 0)
        _exit(127);
    /* execv takes char *const * for historical reasons and changes nothing. */
    execv("/proc/self/exe", (char *const *)(void *)argv);
    _exit(127);
}

static struct spawn_result child_wait(pid_t pid, int limit_ms)
{
    const struct timespec nap = {0, 2 * 1000 * 1000};
    struct timespec start, now;
    int status = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        const pid_t gone = waitpid(pid, &status, WNOHANG);
        if (gone < 0 && errno != EINTR)
            return (struct spawn_result){SPAWN_FAILED, -errno};
        if (gone == pid)
            break;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 >
            limit_ms) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return (struct spawn_result){SPAWN_TIMEOUT, limit_ms};
        }
        nanosleep(&nap, NULL);
    }
    if (WIFSIGNALED(status))
        return (struct spawn_result){SPAWN_SIGNALED, WTERMSIG(status)};
    return (struct spawn_result){SPAWN_EXITED, WEXITSTATUS(status)};
}

/* The child is gone, so everything it wrote is in the pipe and read never blocks for long. */
static void pipe_drain(int fd, char *out, size_t out_bytes)
{
    size_t n = 0;
    ssize_t got = 0;
    while (n + 1 < out_bytes && (got = read(fd, out + n, out_bytes - 1 - n)) > 0)
        n += (size_t)got;
    out[n] = '\0';
}

struct spawn_result spawn_self(const char *const argv[], int limit_ms, char *out, size_t out_bytes)
{
    int fds[2] = {-1, -1};
    const pid_t parent = getpid();
    if (out && pipe2(fds, O_CLOEXEC) < 0)
        return (struct spawn_result){SPAWN_FAILED, -errno};
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0)
        child_exec(argv, fds[1], parent);
    const int fork_errno = errno;
    if (fds[1] >= 0)
        close(fds[1]);
    const struct spawn_result result =
        pid < 0 ? (struct spawn_result){SPAWN_FAILED, -fork_errno} : child_wait(pid, limit_ms);
    if (out) {
        pipe_drain(fds[0], out, out_bytes);
        close(fds[0]);
    }
    return result;
}

void spawn_describe(struct spawn_result result, char *text, size_t bytes)
{
    switch (result.outcome) {
    case SPAWN_EXITED:
        snprintf(text, bytes, "exit status %d", result.detail);
        break;
    case SPAWN_SIGNALED:
        snprintf(text, bytes, "killed by signal %d", result.detail);
        break;
    case SPAWN_TIMEOUT:
        snprintf(text, bytes, "stopped after %d ms", result.detail);
        break;
    case SPAWN_FAILED:
        snprintf(text, bytes, "not started, errno %d", -result.detail);
        break;
    }
}
