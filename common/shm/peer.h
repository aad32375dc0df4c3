/* peer.h - is the process on the other side alive, late or dead?
 *
 * DESIGN.  Late is an opinion (its heartbeat is old), dead is a fact (the kernel says that the
 * process has ended: its pidfd is readable).  Late: no new jobs for it, its work waits, nothing is
 * reclaimed, for a stopped process that wakes up writes where it was writing.  Late for longer than
 * kill_ns: SIGKILL through the pidfd, and dead when the kernel says so.  A pid alone proves nothing
 * (they are reused): the pidfd counts only if the start time in /proc/<pid>/stat is the announced
 * one. peer_step is pure and holds the rules; peer_poll feeds it.  One thread. */
#ifndef OMNI_COMMON_SHM_PEER_H
#define OMNI_COMMON_SHM_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* ABSENT  no process has announced itself.                              -> ALIVE, DEAD
 * ALIVE   it beats: give it work.                                       -> LATE, DEAD
 * LATE    its heartbeat is older than late_ns: give it nothing more.    -> ALIVE, DEAD
 * DEAD    it has ended; what cancelled jobs held may be reclaimed.      -> ALIVE (another process)
 */
enum peer_state { PEER_ABSENT, PEER_ALIVE, PEER_LATE, PEER_DEAD };

struct peer_config {
    uint64_t late_ns;
    uint64_t kill_ns; /* 0 = never kill */
};

struct peer {
    struct peer_config config;
    enum peer_state state;
    pid_t pid; /* 0 = none */
    uint64_t start_ticks;
    int pidfd;
    bool kill_sent;
    uint64_t late_since_ns;
    uint64_t n_changes; /* of state */
};

struct peer_observation {
    uint64_t now_ns;
    uint64_t heartbeat_ns; /* last one written; may lie a little in the future of now_ns */
    bool exited;           /* pidfd readable, or the pid belongs to another process by now */
};

enum peer_action { PEER_ACTION_NONE, PEER_ACTION_KILL };

void peer_init(struct peer *p, const struct peer_config *config);
void peer_fini(struct peer *p);

/* Follows the process that announced itself; a change of (pid, start_ticks) replaces the old one.
 * pid 0 = nobody. */
void peer_bind(struct peer *p, pid_t pid, uint64_t start_ticks);

/* The rules: new state from what was seen, and whether it must be killed now. */
enum peer_action peer_step(struct peer *p, const struct peer_observation *seen);

/* Looks at the pidfd, steps, kills if told to.  Never blocks; one poll(2). */
enum peer_state peer_poll(struct peer *p, uint64_t now_ns, uint64_t heartbeat_ns);

const char *peer_state_name(enum peer_state state);

#endif
