/* The thread team: every thread runs every function once, results are visible, idle means idle. */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/compute/team.h"
#include "tests/unit/compute_common.h"

enum { THREADS = 4, ROUNDS = 3000 };

struct work {
    uint32_t ran[THREADS]; /* plain: each thread writes its own, the caller reads after the run */
    uint32_t input;
    uint64_t sum[THREADS];
    _Atomic uint32_t next;
};

static void work_fn(void *ctx, uint32_t thread_idx)
{
    struct work *w = ctx;

    w->ran[thread_idx]++;
    for (;;) {
        uint32_t i = atomic_fetch_add_explicit(&w->next, 1, memory_order_relaxed);

        if (i >= 100)
            return;
        w->sum[thread_idx] += i * w->input;
    }
}

static void run_rounds(uint32_t n_threads, uint32_t spin_us, uint32_t rounds)
{
    struct team *team;
    struct work w = {.input = 0};
    uint64_t expected = 0, sum = 0;

    assert_int_equal(team_create(&team, n_threads, NULL, spin_us), 0);
    assert_int_equal(team_n_threads(team), n_threads);
    for (uint32_t i = 0; i < rounds; i++) {
        w.input = i;
        atomic_store(&w.next, 0);
        team_run(team, work_fn, &w);
        expected += 4950ULL * i;
        if (i % 512 == 0) /* lets the workers fall asleep now and then */
            clock_sleep_ns(NS_PER_MS);
    }
    for (uint32_t i = 0; i < n_threads; i++) {
        assert_int_equal(w.ran[i], rounds);
        sum += w.sum[i];
    }
    assert_int_equal(sum, expected);
    team_destroy(team);
}

static void test_stress_spinning(void **state)
{
    (void)state;
    run_rounds(2, 20, ROUNDS);
    run_rounds(THREADS, 20, ROUNDS / 4);
}

static void test_stress_sleeping(void **state)
{
    (void)state;
    run_rounds(2, 0, ROUNDS);
    run_rounds(THREADS, 0, ROUNDS);
}

static void test_one_thread_is_a_call(void **state)
{
    (void)state;
    run_rounds(1, 0, 100);
}

static void test_bounds(void **state)
{
    struct team *team;
    int no_cpu = -1;

    (void)state;
    assert_int_equal(team_create(&team, 0, NULL, 0), -EINVAL);
    assert_null(team);
    assert_int_equal(team_create(&team, TEAM_THREADS_MAX + 1, NULL, 0), -EINVAL);
    assert_int_equal(team_create(&team, 1, &no_cpu, 0), -EINVAL);
    team_destroy(NULL);
}

static void where_fn(void *ctx, uint32_t thread_idx)
{
    int *cpu = ctx;

    cpu[thread_idx] = sched_getcpu();
}

static void test_pinning(void **state)
{
    cpu_set_t before;
    int cpus[2], at[2], n = 0;
    struct team *team;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
        if (CPU_ISSET((size_t)i, &before))
            cpus[n++] = i;
    if (n < 2)
        skip();
    assert_int_equal(team_create(&team, 2, cpus, 0), 0);
    for (int i = 0; i < 20; i++) {
        team_run(team, where_fn, at);
        assert_int_equal(at[0], cpus[0]);
        assert_int_equal(at[1], cpus[1]);
    }
    team_destroy(team);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static uint64_t process_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* 200 ms without work, after a run: 1 % of a core would be 2 ms; spinning workers would use 600. */
static void test_idle_uses_no_cpu(void **state)
{
    struct team *team;
    struct work w = {.input = 1};
    uint64_t before;

    (void)state;
    assert_int_equal(team_create(&team, THREADS, NULL, 50), 0);
    team_run(team, work_fn, &w);
    clock_sleep_ns(20 * NS_PER_MS);
    before = process_cpu_ns();
    clock_sleep_ns(200 * NS_PER_MS);
    assert_true(process_cpu_ns() - before < 2 * NS_PER_MS);
    team_destroy(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stress_spinning),
        cmocka_unit_test(test_stress_sleeping),
        cmocka_unit_test(test_one_thread_is_a_call),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_pinning),
        cmocka_unit_test(test_idle_uses_no_cpu),
    };

    return cmocka_run_group_tests_name("team", tests, NULL, NULL);
}
