#include "common/shm/peer.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/invariant.h"
#include "common/base/process.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_send_signal 424
#define SYS_pidfd_open        434
#endif

static const char *const state_names[] = {"absent", "alive", "late", "dead"};

const char *peer_state_name(enum peer_state state)
{
    return (unsigned)state < sizeof state_names / sizeof *state_names ? state_names[state] : "?";
}

void peer_init(struct peer *p, const struct peer_config *config)
{
    *p = (struct peer){.config = *config, .pidfd = -1};
}

static void close_pidfd(struct peer *p)
{
    if (p->pidfd >= 0)
        close(p->pidfd);
    p->pidfd = -1;
}

void peer_fini(struct peer *p)
{
    close_pidfd(p);
}

static void set_state(struct peer *p, enum peer_state state)
{
    /* From the row's state to the column's: absent, alive, late, dead. */
    static const bool allowed[4][4] = {[PEER_ABSENT] = {0, 1, 0, 1},
                                       [PEER_ALIVE] = {1, 0, 1, 1},
                                       [PEER_LATE] = {1, 1, 0, 1},
                                       [PEER_DEAD] = {1, 1, 0, 0}};

    if (state == p->state)
        return;
    invariant(allowed[p->state][state]);
    p->state = state;
    p->n_changes++;
}

/* A pidfd of exactly the process that announced itself, or -1: it has ended. */
static int open_pidfd(pid_t pid, uint64_t start_ticks)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    uint64_t ticks;

    /* Opened first, compared second: the pid cannot change hands unseen in between. */
    if (fd >= 0 && (process_start_ticks(pid, &ticks) != 0 || ticks != start_ticks)) {
        close(fd);
        return -1;
    }
    return fd;
}

void peer_bind(struct peer *p, pid_t pid, uint64_t start_ticks)
{
    if (pid == p->pid && (pid == 0 || start_ticks == p->start_ticks))
        return;
    close_pidfd(p);
    p->pid = pid;
    p->start_ticks = start_ticks;
    p->kill_sent = false;
    p->late_since_ns = 0;
    set_state(p, PEER_ABSENT);
    if (pid != 0)
        p->pidfd = open_pidfd(pid, start_ticks);
}

static enum peer_action step_late(struct peer *p, uint64_t now_ns)
{
    if (p->state != PEER_LATE)
        p->late_since_ns = now_ns;
    set_state(p, PEER_LATE);
    if (p->kill_sent || p->config.kill_ns == 0 || now_ns - p->late_since_ns < p->config.kill_ns)
        return PEER_ACTION_NONE;
    p->kill_sent = true;
    return PEER_ACTION_KILL;
}

enum peer_action peer_step(struct peer *p, const struct peer_observation *seen)
{
    bool beats = seen->heartbeat_ns + p->config.late_ns >= seen->now_ns;

    if (p->pid == 0) {
        set_state(p, PEER_ABSENT);
        return PEER_ACTION_NONE;
    }
    if (seen->exited || p->state == PEER_DEAD) { /* the dead do not come back */
        set_state(p, PEER_DEAD);
        return PEER_ACTION_NONE;
    }
    if (beats || p->state == PEER_ABSENT) { /* one just bound has beaten at attach */
        set_state(p, PEER_ALIVE);
        if (beats)
            return PEER_ACTION_NONE;
    }
    return step_late(p, seen->now_ns);
}

static bool has_exited(const struct peer *p)
{
    struct pollfd fd = {.fd = p->pidfd, .events = POLLIN};

    return p->pidfd < 0 || (poll(&fd, 1, 0) == 1 && (fd.revents & POLLIN) != 0);
}

enum peer_state peer_poll(struct peer *p, uint64_t now_ns, uint64_t heartbeat_ns)
{
    struct peer_observation seen = {
        .now_ns = now_ns, .heartbeat_ns = heartbeat_ns, .exited = p->pid != 0 && has_exited(p)};

    if (peer_step(p, &seen) == PEER_ACTION_KILL)
        syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
    return p->state;
}
