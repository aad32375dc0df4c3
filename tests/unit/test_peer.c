/* Peer: the rules in pure time, and the pidfd on real processes. */
#include "shm_test.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/process.h"
#include "common/shm/peer.h"

static const struct peer_config config = {.late_ns = 200, .kill_ns = 10000};

static enum peer_action see(struct peer *p, uint64_t now, uint64_t heartbeat, bool exited)
{
    struct peer_observation seen = {.now_ns = now, .heartbeat_ns = heartbeat, .exited = exited};

    return peer_step(p, &seen);
}

static void rules(void **state)
{
    struct peer p;

    (void)state;
    peer_init(&p, &config);
    see(&p, 1000, 0, false);
    assert_int_equal(p.state, PEER_ABSENT); /* nobody has announced himself */
    p.pid = 1;
    see(&p, 1000, 900, false);
    assert_int_equal(p.state, PEER_ALIVE);
    see(&p, 1100, 900, false);
    assert_int_equal(p.state, PEER_ALIVE); /* exactly late_ns old */
    assert_int_equal(see(&p, 1101, 900, false), PEER_ACTION_NONE);
    assert_int_equal(p.state, PEER_LATE);
    see(&p, 1150, 1140, false);
    assert_int_equal(p.state, PEER_ALIVE); /* it was only slow */
    see(&p, 2000, 1140, false);
    assert_int_equal(p.state, PEER_LATE);
    assert_int_equal(see(&p, 11999, 1140, false), PEER_ACTION_NONE);
    assert_int_equal(see(&p, 12000, 1140, false), PEER_ACTION_KILL);
    assert_int_equal(see(&p, 12001, 1140, false), PEER_ACTION_NONE); /* once */
    assert_int_equal(p.state, PEER_LATE);                            /* until the kernel says so */
    see(&p, 12002, 1140, true);
    assert_int_equal(p.state, PEER_DEAD);
    see(&p, 12003, 12003, false);
    assert_int_equal(p.state, PEER_DEAD); /* the dead do not come back */
    peer_fini(&p);
}

static void killing_can_be_off(void **state)
{
    struct peer p;

    (void)state;
    peer_init(&p, &(struct peer_config){.late_ns = 200, .kill_ns = 0});
    p.pid = 1;
    see(&p, 100, 100, false);
    assert_int_equal(see(&p, UINT64_C(1) << 60, 100, false), PEER_ACTION_NONE);
    assert_int_equal(p.state, PEER_LATE);
    peer_fini(&p);
}

static void follows_real_processes(void **state)
{
    struct peer p;
    uint64_t ticks;
    pid_t pid = fork();

    (void)state;
    if (pid == 0)
        for (;;)
            pause();
    assert_int_equal(process_start_ticks(pid, &ticks), 0);
    peer_init(&p, &config);
    peer_bind(&p, pid, ticks);
    assert_int_equal(peer_poll(&p, 1000, 1000), PEER_ALIVE);
    peer_bind(&p, pid, ticks); /* the same: nothing changes */
    assert_int_equal(p.state, PEER_ALIVE);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(peer_poll(&p, 1001, 1000), PEER_DEAD);
    assert_int_equal(process_start_ticks(pid, &ticks), -ESRCH);
    peer_bind(&p, 0, 0);
    assert_int_equal(p.state, PEER_ABSENT);
    peer_fini(&p);
}

/* A pid that was reused by another process must not count as the peer, and not be killed. */
static void reused_pid_is_dead(void **state)
{
    struct peer p;
    uint64_t ticks;

    (void)state;
    assert_int_equal(process_start_ticks(getpid(), &ticks), 0);
    peer_init(&p, &(struct peer_config){.late_ns = 1, .kill_ns = 1});
    peer_bind(&p, getpid(), ticks + 1); /* the announced process had another start time */
    assert_int_equal(peer_poll(&p, 1000, 0), PEER_DEAD);
    assert_int_equal(peer_poll(&p, 100000, 0), PEER_DEAD); /* we are still here: not killed */
    peer_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules),
        cmocka_unit_test(killing_can_be_off),
        cmocka_unit_test(follows_real_processes),
        cmocka_unit_test(reused_pid_is_dead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
