/* Real processes killed at every labelled step of a job's life: what is left is always good enough
 * for the next engine or worker to go on, and no job is lost, doubled or mixed up. */
#include "shm_test.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/process.h"
#include "common/shm/job_engine.h"
#include "common/shm/job_worker.h"

enum { N_SLOTS = 3, N_JOBS = 24 };

static const struct job_table_config config = {
    .n_slots = N_SLOTS, .n_q_max = 1, .element = JOB_ELEMENT_F32};

struct engine {
    struct kv_geometry geometry;
    struct engine_page page;
    struct job_table table;
};

static void engine_start(struct engine *e)
{
    struct error err;
    uint32_t epoch;

    shm_test_geometry(&e->geometry, 1);
    assert_int_equal(engine_page_open(&e->page, shm_test_dir, 0, &err), 0);
    assert_int_equal(job_table_open(&e->table, shm_test_dir, 0, 0, &config, &e->geometry, -1, &err),
                     0);
    epoch = job_engine_last_epoch(&e->table);
    if (engine_page_epoch(&e->page) > epoch)
        epoch = engine_page_epoch(&e->page);
    job_engine_raise_epoch(&e->table, epoch + 1);
    engine_page_enter(&e->page, epoch + 1, clock_now_ns());
}

static void engine_stop(struct engine *e)
{
    job_table_detach(&e->table);
    engine_page_detach(&e->page);
}

static float answer(float q, uint32_t generation)
{
    return q * 2 + (float)generation;
}

/* A worker's whole life: attaches, answers until it has answered n jobs. */
static void worker_body(void *arg)
{
    uint32_t n = *(uint32_t *)arg;
    struct engine_page page;
    struct job_table t, *tables = &t;
    struct job job;
    struct error err;

    if (engine_page_attach(&page, shm_test_dir, 0, &err) != 0 ||
        job_table_attach(&t, shm_test_dir, 0, 0, &page.shared->done_bell, &err) != 0)
        _exit(3);
    while (n > 0) {
        job_worker_ack_epoch(&t);
        if (!job_worker_next(&t, &job)) {
            job_worker_wait(&tables, 1, 0, clock_now_ns() + 10 * NS_PER_MS);
            continue;
        }
        const float *q = job_table_q(&t, job.slot);
        float *out = job_table_out(&t, job.slot);
        for (uint32_t i = 0; i < t.layout.out_width; i++)
            out[i] = answer(q[i], job.generation);
        n -= job_worker_complete(&t, &job, 1, 2, 0) == 0;
    }
    job_table_detach(&t);
}

static void post_one(struct engine *e, uint32_t slot, uint32_t *generation, float value)
{
    struct job_desc d = {.layer = 0, .n_q = 1, .pos = slot, .ctx_len = slot + 1};
    float *q = job_table_q(&e->table, slot);

    for (uint32_t i = 0; i < e->table.layout.q_width; i++)
        q[i] = value + (float)i;
    assert_int_equal(job_engine_post(&e->table, slot, &d, generation), 0);
}

static bool take_one(struct engine *e, uint32_t slot, uint32_t generation, float value)
{
    const float *out = job_table_out(&e->table, slot);

    if (job_engine_take(&e->table, slot, generation, NULL) != JOB_OK)
        return false;
    for (uint32_t i = 0; i < e->table.layout.out_width; i++)
        assert_true(out[i] == answer(value + (float)i, generation));
    return true;
}

static pid_t start_worker(const char *fault, uint32_t n_jobs)
{
    pid_t parent = getpid(), pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        if (process_die_with_parent(parent) != 0)
            _exit(4);
        fault_set(fault);
        worker_body(&n_jobs);
        _exit(0);
    }
    return pid;
}

/* Serves jobs with workers that die at `label`; each is followed by one that lives longer. */
static void serve_with_dying_workers(struct engine *e, const char *label)
{
    char fault[96];
    uint32_t generation[N_SLOTS], posted = 0, taken = 0, n_deaths = 0;
    float value[N_SLOTS];
    bool out[N_SLOTS] = {false};
    int status;
    pid_t pid;

    snprintf(fault, sizeof fault, "%s:1", label);
    pid = start_worker(fault, N_JOBS);
    while (taken < N_JOBS) {
        struct job_table *tables = &e->table;
        struct bell_wait wait = {.until_ns = clock_now_ns() + 5 * NS_PER_MS};
        uint32_t slots[N_SLOTS], n;

        for (uint32_t s = 0; s < N_SLOTS && posted < N_JOBS; s++) {
            if (out[s])
                continue;
            value[s] = (float)posted++;
            post_one(e, s, &generation[s], value[s]);
            out[s] = true;
        }
        job_engine_flush(&e->table);
        job_engine_wait(&e->page, &tables, 1, &wait);
        n = job_engine_poll(&e->table, slots, N_SLOTS);
        for (uint32_t i = 0; i < n; i++) {
            if (out[slots[i]] && take_one(e, slots[i], generation[slots[i]], value[slots[i]])) {
                out[slots[i]] = false;
                taken++;
            }
        }
        if (waitpid(pid, &status, WNOHANG) == pid && WIFSIGNALED(status)) {
            n_deaths++;
            snprintf(fault, sizeof fault, "%s:%u", label, n_deaths + 1);
            pid = start_worker(n_deaths < 4 ? fault : NULL, N_JOBS);
        }
    }
    assert_true(n_deaths >= 1);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

static void worker_killed_at_every_step(void **state)
{
    static const char *const labels[] = {
        "segment.attached",       "job_table.role_taken", "job_table.worker_announced",
        "job_table.ring_skipped", "job_worker.output",    "job_worker.done",
        "job_worker.done_word",   "job_worker.announced", "job_worker.woken"};
    struct engine e;

    (void)state;
    engine_start(&e);
    job_engine_free_all(&e.table);
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        serve_with_dying_workers(&e, labels[i]);
    engine_stop(&e);
}

/* An engine's life: starts, posts three jobs to a live worker, takes them, twice. */
static void engine_body(void *arg)
{
    struct engine e;
    uint32_t generation[N_SLOTS];

    (void)arg;
    engine_start(&e);
    while (!job_engine_epoch_settled(&e.table))
        clock_sleep_ns(NS_PER_MS);
    job_engine_free_all(&e.table);
    for (int round = 0; round < 2; round++) {
        for (uint32_t s = 0; s < N_SLOTS; s++)
            post_one(&e, s, &generation[s], (float)(s + 1));
        job_engine_flush(&e.table);
        for (uint32_t s = 0; s < N_SLOTS; s++) {
            while (!take_one(&e, s, generation[s], (float)(s + 1)))
                clock_sleep_ns(NS_PER_MS / 4);
        }
    }
    engine_stop(&e);
}

static void engine_killed_at_every_step(void **state)
{
    static const char *const labels[] = {"segment.attached",       "job_engine.epoch_raised",
                                         "job_engine.freed_one",   "job_engine.fields_written",
                                         "job_engine.posted",      "job_engine.hinted",
                                         "job_engine.before_free", "job_engine.taken"};
    struct engine first;
    pid_t worker;
    int status;

    (void)state;
    engine_start(&first); /* so that there is something to take over, and for a worker to attach */
    engine_stop(&first);
    worker = start_worker(NULL, UINT32_MAX);
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        unsigned n = 1;
        while (n <= 4 && shm_test_child(labels[i], n, engine_body, NULL) == 1)
            n++;
        assert_true(n > 1); /* the label exists and was hit */
        assert_int_equal(shm_test_child(NULL, 0, engine_body, NULL), 0); /* goes on, to the end */
    }
    assert_int_equal(waitpid(worker, &status, WNOHANG), 0); /* the one worker served them all */
    kill(worker, SIGKILL);
    waitpid(worker, &status, 0);
}

static void start_and_stop(void *arg)
{
    struct engine e;

    (void)arg;
    engine_start(&e);
    engine_stop(&e);
}

static void engine_killed_while_it_creates(void **state)
{
    static const char *const labels[] = {"segment.created", "segment.allocated", "segment.header",
                                         "segment.ready", "segment.published"};
    struct engine e;
    uint32_t removed, left, generation;
    struct error err;

    (void)state;
    for (unsigned i = 0; i < 10; i++) { /* n = 1: the engine's page, 2: the job table */
        assert_int_equal(shm_test_child(labels[i / 2], i % 2 + 1, start_and_stop, NULL), 1);
        engine_start(&e);
        assert_true(job_engine_epoch_settled(&e.table));
        job_engine_free_all(&e.table);
        post_one(&e, 0, &generation, 1);
        assert_int_equal(generation, 1);
        assert_int_equal(segment_unlink_stale(shm_test_dir, &removed, &left, &err), 0);
        assert_int_equal(left, 2);
        engine_stop(&e);
        assert_int_equal(segment_unlink_stale(shm_test_dir, &removed, &left, &err), 0);
        assert_int_equal(left, 0);
        assert_int_equal(segment_dir_prepare(shm_test_dir, &err), 0);
    }
}

/* Regression: a stopped worker that woke after its slot was given away overwrote the new owner's.
 */
static void stopped_worker_overwrites_nothing(void **state)
{
    struct engine e;
    uint32_t generation;
    int status;
    pid_t pid;

    (void)state;
    engine_start(&e);
    job_engine_free_all(&e.table);
    pid = start_worker("job_worker.output:1:stop", 1);
    post_one(&e, 0, &generation, 5);
    job_engine_flush(&e.table);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    /* Cancelled, timed out, whatever: the slot is not free and cannot be made so. */
    assert_false(job_engine_slot_reusable(&e.table, 0));
    assert_int_equal(job_engine_reclaim_begin(&e.table), -EBUSY);
    assert_int_equal(job_engine_post(&e.table, 0, &(struct job_desc){.n_q = 1, .ctx_len = 1}, NULL),
                     -EBUSY);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(job_engine_reclaim_begin(&e.table), 0);
    job_engine_reclaim(&e.table, 0);
    job_engine_reclaim_end(&e.table);
    assert_true(job_engine_slot_reusable(&e.table, 0));
    engine_stop(&e);
}

/* Late, then killed through its pidfd, then dead; the next process is another peer. */
static void late_worker_is_killed(void **state)
{
    const struct peer_config times = {.late_ns = 20 * NS_PER_MS, .kill_ns = 60 * NS_PER_MS};
    struct engine e;
    struct peer peer;
    uint64_t start = clock_now_ns();
    bool was_late = false;
    int status;
    pid_t pid;

    (void)state;
    engine_start(&e);
    job_engine_free_all(&e.table);
    peer_init(&peer, &times);
    assert_int_equal(job_engine_poll_peer(&e.table, &peer, clock_now_ns()), PEER_ABSENT);
    pid = start_worker("job_table.ring_skipped:1:stop", 1);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    while (job_engine_poll_peer(&e.table, &peer, clock_now_ns()) != PEER_DEAD) {
        was_late |= peer.state == PEER_LATE;
        assert_true(clock_now_ns() - start < 10 * NS_PER_S);
        clock_sleep_ns(NS_PER_MS);
        if (peer.kill_sent)
            waitpid(pid, &status,
                    0); /* reaped, and its pid free for others: the pidfd still knows */
    }
    assert_true(was_late && WIFSIGNALED(status));
    assert_false(job_engine_worker_attached(&e.table));
    peer_fini(&peer);
    engine_stop(&e);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, shm_test_setup, shm_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(worker_killed_at_every_step),    TEST(engine_killed_at_every_step),
        TEST(engine_killed_while_it_creates), TEST(stopped_worker_overwrites_nothing),
        TEST(late_worker_is_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
