/* Job table with both ends as threads of one process, on one mapping, so that the thread sanitizer
 * sees every access; both sleep whenever they have nothing to do, and the worker is replaced in the
 * middle of a job now and then. */
#include "shm_test.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/shm/directory.h"
#include "common/shm/job_engine.h"
#include "common/shm/job_worker.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { N_JOBS = 6000 };
#else
enum { N_JOBS = 40000 };
#endif

enum { N_SLOTS = 8, LIFE_JOBS = 700, WIDTH = 32 };

static const struct job_table_config config = {
    .n_slots = N_SLOTS, .n_q_max = 1, .element = JOB_ELEMENT_F32};

static struct engine_page page;
static struct job_table engine;
static _Atomic int engine_done;

/* The worker's handle, moved from its own mapping of the file onto the engine's. */
static void attach_on_same_mapping(struct job_table *t)
{
    struct error err;
    uint32_t head, tail;

    if (job_table_attach(t, shm_test_dir, 0, 0, &page.shared->done_bell, &err) != 0)
        abort();
    head = t->posted_ring.head;
    tail = t->posted_ring.tail;
    t->shared = engine.shared;
    t->slots = engine.slots;
    t->done = engine.done;
    if (ring_attach(&t->posted_ring, engine.segment.base + engine.layout.posted_ring_off,
                    engine.posted_ring.capacity) != 0 ||
        ring_attach(&t->done_ring, engine.segment.base + engine.layout.done_ring_off,
                    engine.done_ring.capacity) != 0)
        abort();
    t->posted_ring.head = head;
    t->posted_ring.tail = tail;
}

static bool serve(struct job_table *t, const struct job *job)
{
    const float *q = job_table_q(&engine, job->slot);
    float *out = job_table_out(&engine, job->slot);

    for (uint32_t i = 0; i < WIDTH; i++)
        out[i] = q[i] + (float)job->layer;
    return job_worker_complete(t, job, 1, 2, 0) == 0;
}

static void *worker_body(void *arg)
{
    struct job_table t, *tables = &t;
    uint32_t life = LIFE_JOBS;
    struct job job;

    (void)arg;
    attach_on_same_mapping(&t);
    while (!atomic_load(&engine_done)) {
        if (!job_worker_next(&t, &job)) {
            job_worker_beat(&t, clock_now_ns());
            job_worker_wait(&tables, 1, 0, clock_now_ns() + 20 * NS_PER_MS);
        } else if (--life == 0) { /* ends with the job in its hands; the next one finds it */
            job_table_detach(&t);
            attach_on_same_mapping(&t);
            life = LIFE_JOBS;
        } else if (!serve(&t, &job)) {
            abort();
        }
    }
    job_table_detach(&t);
    return NULL;
}

static void post(uint32_t slot, uint32_t n, uint32_t *generation)
{
    struct job_desc d = {.layer = n % 2, .n_q = 1, .pos = n, .ctx_len = n + 1};
    float *q = job_table_q(&engine, slot);

    for (uint32_t i = 0; i < WIDTH; i++)
        q[i] = (float)(n + i);
    assert_int_equal(job_engine_post(&engine, slot, &d, generation), 0);
}

static void check(uint32_t slot, uint32_t n)
{
    const float *out = job_table_out(&engine, slot);

    for (uint32_t i = 0; i < WIDTH; i++)
        assert_true(out[i] == (float)(n + i) + (float)(n % 2));
}

/* In turn: by announcement, by done word, by the slots themselves.  Each must order the output by
 * itself, so each is used alone. */
static uint32_t find_done(uint32_t round, uint32_t *slots, const uint32_t *generation,
                          const bool *out)
{
    uint32_t n = 0;

    if (round % 3 == 0)
        return job_engine_poll(&engine, slots, N_SLOTS);
    for (uint32_t s = 0; s < N_SLOTS; s++) {
        if (out[s] && (round % 3 == 2 || job_engine_done_generation(&engine, s) == generation[s]))
            slots[n++] = s;
    }
    return n;
}

static void jobs_flow_between_threads(void **state)
{
    uint32_t generation[N_SLOTS] = {0}, number[N_SLOTS], slots[N_SLOTS];
    uint32_t posted = 0, taken = 0, round = 0;
    bool out[N_SLOTS] = {false};
    struct job_table *tables = &engine;
    struct kv_geometry g;
    struct error err;
    pthread_t thread;

    (void)state;
    shm_test_geometry(&g, 1);
    assert_int_equal(engine_page_open(&page, shm_test_dir, 0, &err), 0);
    assert_int_equal(
        job_table_open(&engine, shm_test_dir, 0, 0, &config, &g, SEGMENT_ANY_NODE, &err), 0);
    job_engine_raise_epoch(&engine, 1);
    job_engine_free_all(&engine);
    assert_int_equal(pthread_create(&thread, NULL, worker_body, NULL), 0);
    while (taken < N_JOBS) {
        struct bell_wait wait = {.until_ns = clock_now_ns() + 30 * NS_PER_S};
        uint32_t n;

        for (uint32_t s = 0; s < N_SLOTS && posted < N_JOBS; s++) {
            if (!out[s]) {
                number[s] = posted++;
                post(s, number[s], &generation[s]);
                out[s] = true;
            }
        }
        job_engine_flush(&engine);
        assert_true(job_engine_wait(&page, &tables, 1, &wait)); /* else a wake-up was lost */
        n = find_done(round++, slots, generation, out);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t s = slots[i];
            if (!out[s] || job_engine_take(&engine, s, generation[s], NULL) != JOB_OK)
                continue;
            check(s, number[s]);
            out[s] = false;
            taken++;
        }
    }
    atomic_store(&engine_done, 1);
    pthread_join(thread, NULL);
    assert_true(atomic_load(&engine.shared->attaches) >= N_JOBS / LIFE_JOBS);
    job_table_detach(&engine);
    engine_page_detach(&page);
}

/* ---- directory: the engine appends and commits while a worker reads what is committed
 * ------------ */

static struct directory directory;
static struct sequence_ref sequence;

static void *reader_body(void *arg)
{
    struct directory_table table;
    uint32_t c = 0;

    while (c < 190) {
        c = directory_committed(&directory, sequence);
        const uint32_t *log = directory_log(&directory, sequence);
        for (uint32_t pos = 0; pos <= c; pos++)
            *(bool *)arg &= log[pos] == 100 + pos;
        *(bool *)arg &= directory_table(&directory, sequence, 0, c, &table) == 0;
        for (uint32_t i = 0; i < table.n_blocks; i++)
            *(bool *)arg &= table.blocks[i] == i * 2;
    }
    return NULL;
}

static void readers_see_what_is_committed(void **state)
{
    const struct directory_config dc = {.n_entries = 2, .ctx_max = 200};
    uint32_t prompt[] = {100, 101, 102};
    struct sequence_info info = {.prompt = prompt, .prompt_len = 3};
    struct kv_geometry g;
    struct error err;
    pthread_t thread;
    bool all_right = true;

    (void)state;
    shm_test_geometry(&g, 1);
    assert_int_equal(directory_open(&directory, shm_test_dir, 0, &dc, &g, &err), 0);
    assert_int_equal(directory_acquire(&directory, &info, &sequence), 0);
    directory_log_token(&directory, sequence, 3, 103);
    directory_commit(&directory, sequence, 3);
    directory_set_state(&directory, sequence, 0, DIRECTORY_FILLING);
    directory_set_blocks(&directory, sequence, 0, 0, (uint32_t[]){0}, 1);
    directory_set_state(&directory, sequence, 0, DIRECTORY_RESIDENT);
    assert_int_equal(pthread_create(&thread, NULL, reader_body, &all_right), 0);
    for (uint32_t pos = 3; pos < 190; pos++) {
        if (pos % 32 == 0)
            directory_append_block(&directory, sequence, 0, pos / 32 * 2);
        directory_log_token(&directory, sequence, pos + 1, 101 + pos);
        directory_commit(&directory, sequence, pos + 1);
        if (pos % 8 == 0)
            sched_yield();
    }
    pthread_join(thread, NULL);
    assert_true(all_right);
    directory_detach(&directory);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, shm_test_setup, shm_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(jobs_flow_between_threads),
        TEST(readers_see_what_is_committed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
