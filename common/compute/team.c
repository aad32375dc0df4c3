/* DESIGN
 *
 * A run is announced by a new epoch and is over when n_pending is zero.
 *
 *   caller                                   worker
 *   fn, ctx, n_pending := run
 *   epoch += 1              (E1) ----------> epoch != last seen            (E2)
 *   n_asleep > 0: wake epoch (S1)            before sleeping: n_asleep += 1 (S2), wait on epoch
 *   fn(ctx, 0)                               fn(ctx, i)
 *   n_pending == 0          (P2) <---------- n_pending -= 1                (P1)
 *   before sleeping: caller_asleep := 1 (C1) last one: caller_asleep? wake (C2)
 *
 * E1/E2 are release/acquire for fn and ctx, P1/P2 for what fn wrote.  E1 then S1 against S2 then
 * the kernel's comparison of epoch is the store-then-load pattern, hence sequentially consistent:
 * either the caller sees the sleeper, or the sleeper sees the new epoch.  The same holds for C1 and
 * P1/C2. n_pending cannot reach the next run early: the next run starts after this one ended. */
#include "common/compute/team.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"

struct member {
    struct team *team;
    pthread_t thread;
    uint32_t idx;
};

struct team {
    /* written by the caller, read by the workers */
    _Alignas(64) _Atomic uint32_t epoch;
    _Atomic bool stop;
    team_fn *fn;
    void *ctx;
    /* written by the workers */
    _Alignas(64) _Atomic uint32_t n_pending;
    _Atomic uint32_t n_asleep;
    _Atomic uint32_t caller_asleep;
    /* constant after creation */
    _Alignas(64) uint32_t n_threads;
    uint32_t n_started;
    uint64_t spin_ns;
    struct member member[];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* Waits for *word != value for at most spin_ns.  True if it changed. */
static bool spin_while(_Atomic uint32_t *word, uint32_t value, uint64_t spin_ns)
{
    uint64_t end = 0;

    for (uint32_t i = 0;; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value) /* E2, P2 */
            return true;
        if (i % 64 == 0) { /* a clock read costs as much as a dozen polls */
            uint64_t now = clock_now_ns();

            end = end == 0 ? now + spin_ns : end;
            if (now >= end)
                return false;
        }
        __builtin_ia32_pause();
    }
}

static void worker_wait(struct team *team, uint32_t seen)
{
    if (spin_while(&team->epoch, seen, team->spin_ns))
        return;
    atomic_fetch_add(&team->n_asleep, 1); /* S2 */
    while (atomic_load(&team->epoch) == seen)
        futex_wait(&team->epoch, seen);
    atomic_fetch_sub(&team->n_asleep, 1);
}

static void *worker_main(void *arg)
{
    struct member *m = arg;
    struct team *team = m->team;

    for (uint32_t seen = 0;; seen++) {
        worker_wait(team, seen);
        if (atomic_load_explicit(&team->stop, memory_order_relaxed)) /* ordered by E1/E2 */
            return NULL;
        team->fn(team->ctx, m->idx);
        if (atomic_fetch_sub(&team->n_pending, 1) == 1 &&
            atomic_load(&team->caller_asleep)) /* C2 */
            futex_wake(&team->n_pending, 1);
    }
}

static void team_announce(struct team *team)
{
    atomic_fetch_add(&team->epoch, 1);    /* E1 */
    if (atomic_load(&team->n_asleep) > 0) /* S1 */
        futex_wake(&team->epoch, INT_MAX);
}

/* Workers finish in any order; n_pending counts down, so the caller waits on each value it sees. */
static void team_await(struct team *team)
{
    uint64_t end = clock_now_ns() + team->spin_ns;
    uint32_t left;

    while ((left = atomic_load(&team->n_pending)) != 0) {
        uint64_t now = clock_now_ns();

        if (now < end) {
            spin_while(&team->n_pending, left, end - now);
            continue;
        }
        atomic_store(&team->caller_asleep, 1); /* C1 */
        left = atomic_load(&team->n_pending);
        if (left != 0)
            futex_wait(&team->n_pending, left);
        atomic_store(&team->caller_asleep, 0);
    }
}

void team_run(struct team *team, team_fn *fn, void *ctx)
{
    if (team->n_threads == 1) {
        fn(ctx, 0);
        return;
    }
    team->fn = fn;
    team->ctx = ctx;
    atomic_store_explicit(&team->n_pending, team->n_threads - 1, memory_order_relaxed); /* by E1 */
    team_announce(team);
    fn(ctx, 0);
    team_await(team);
}

uint32_t team_n_threads(const struct team *team)
{
    return team->n_threads;
}

static int pin_thread(pthread_t thread, int cpu)
{
    cpu_set_t set;

    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return -EINVAL;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    return -pthread_setaffinity_np(thread, sizeof set, &set);
}

static int member_start(struct team *team, uint32_t idx, const int *cpus)
{
    struct member *m = &team->member[idx];
    int error = 0;

    m->team = team;
    m->idx = idx;
    if (idx == 0) {
        m->thread = pthread_self();
    } else {
        error = -pthread_create(&m->thread, NULL, worker_main, m);
        if (error == 0)
            team->n_started++;
    }
    return error == 0 && cpus != NULL ? pin_thread(m->thread, cpus[idx]) : error;
}

int team_create(struct team **out, uint32_t n_threads, const int *cpus, uint32_t spin_us)
{
    struct team *team;
    size_t bytes = sizeof *team + n_threads * sizeof team->member[0];
    int error = 0;

    *out = NULL;
    if (n_threads == 0 || n_threads > TEAM_THREADS_MAX)
        return -EINVAL;
    team = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (team == NULL)
        return -ENOMEM;
    atomic_init(&team->epoch, 0);
    atomic_init(&team->stop, false);
    atomic_init(&team->n_pending, 0);
    atomic_init(&team->n_asleep, 0);
    atomic_init(&team->caller_asleep, 0);
    team->fn = NULL;
    team->ctx = NULL;
    team->n_threads = n_threads;
    team->n_started = 0;
    team->spin_ns = spin_us * NS_PER_US;
    for (uint32_t i = 0; i < n_threads && error == 0; i++)
        error = member_start(team, i, cpus);
    if (error != 0) {
        team_destroy(team);
        return error;
    }
    *out = team;
    return 0;
}

void team_destroy(struct team *team)
{
    if (team == NULL)
        return;
    atomic_store_explicit(&team->stop, true, memory_order_relaxed); /* published by E1 */
    team_announce(team);
    for (uint32_t i = 1; i <= team->n_started; i++)
        invariant(pthread_join(team->member[i].thread, NULL) == 0);
    free(team);
}
