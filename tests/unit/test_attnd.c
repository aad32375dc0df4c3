/* The attention worker against an engine's side made by the test: the same bytes as attention done
 * directly, whatever happens to either side in between. */
#include "tests/unit/attnd_fixture.h"

#include <string.h>

#include "common/base/clock.h"

static struct fixture_engine engine;
static struct fixture_worker worker;
static struct attnd local; /* a worker that ticks in the test's own thread */
static struct omni_config local_config;

static int setup(void **state)
{
    (void)state;
    memset(&engine, 0, sizeof engine);
    return shm_test_setup(NULL);
}

static int teardown(void **state)
{
    (void)state;
    fixture_engine_close(&engine);
    return shm_test_teardown(NULL);
}

static void open_engine(uint32_t n_groups)
{
    fixture_engine_open(&engine, 0, 1, n_groups, 0);
    fixture_engine_settle(&engine);
}

/* A worker in this thread, attached to all engines that are there. */
static void start_local(uint32_t n_engines)
{
    struct error err;

    fixture_config(&local_config, n_engines);
    assert_int_equal(attnd_init(&local, &local_config, 0, &err), 0);
    attnd_tick(&local);
}

static uint64_t counter(const _Atomic uint64_t *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

static bool is_attached(void *arg)
{
    return atomic_load(&((struct fixture_worker *)arg)->n_attached) > 0;
}

/* ---- Results --------------------------------------------------------------------------------- */

static void results_equal_attention_done_directly(void **state)
{
    const uint32_t lengths[4] = {1, 31, 64, 300};
    struct sequence_ref seq[4];

    (void)state;
    open_engine(1);
    for (uint32_t i = 0; i < 4; i++)
        seq[i] = fixture_sequence(&engine, lengths[i]);
    fixture_worker_start(&worker, 1);
    fixture_wait(is_attached, &worker, NULL); /* else the first round counts as run again */
    for (uint32_t round = 0; round < FIXTURE_QUERIES; round++) {
        for (uint32_t i = 0; i < 16; i++) /* all layers of all sequences at once */
            fixture_post(&engine, i, seq[i % 4], i / 4, lengths[i % 4], round + 1);
        job_engine_flush(&engine.table);
        for (uint32_t i = 0; i < 16; i++)
            fixture_take(&engine, i, NULL);
    }
    fixture_worker_join(&worker);
    assert_int_equal(counter(&engine.table.shared->jobs_done), 48);
    assert_int_equal(counter(&engine.table.shared->jobs_rerun), 0);
    assert_true(counter(&engine.table.shared->kv_bytes_read) > 0);
}

static void two_sequences_share_blocks(void **state)
{
    struct sequence_ref a, b;

    (void)state;
    open_engine(1);
    a = fixture_sequence(&engine, 70);
    b = fixture_sequence_sharing(&engine, 90, a, 64);
    fixture_worker_start(&worker, 1);
    for (uint32_t layer = 0; layer < 4; layer++) {
        fixture_post(&engine, 2 * layer, a, layer, 70, 1);
        fixture_post(&engine, 2 * layer + 1, b, layer, 90, 1);
    }
    job_engine_flush(&engine.table);
    for (uint32_t slot = 0; slot < 8; slot++)
        fixture_take(&engine, slot, NULL);
    fixture_worker_join(&worker);
}

static void half_of_the_layers_in_the_arena(void **state)
{
    struct sequence_ref seq;

    (void)state;
    open_engine(2);
    seq = fixture_sequence(&engine, 50);
    directory_set_state(&engine.directory, seq, 0, DIRECTORY_LEAVING);
    directory_set_state(&engine.directory, seq, 0, DIRECTORY_DEVICE);
    start_local(1);
    fixture_post(&engine, 0, seq, 2, 50, 1);
    fixture_post(&engine, 1, seq, 3, 50, 1);
    fixture_take(&engine, 0, &local);
    fixture_take(&engine, 1, &local);
    const struct job_desc gone = {.seq_idx = seq.idx,
                                  .seq_gen = seq.gen,
                                  .layer = 1, /* of the group that has left */
                                  .n_q = 1,
                                  .pos = 50,
                                  .ctx_len = 51};
    fixture_post_desc(&engine, 2, &gone);
    fixture_take_refused(&engine, 2, &local);
    attnd_shutdown(&local);
}

static void two_engines_share_one_worker(void **state)
{
    static struct fixture_engine second;
    struct sequence_ref a, b;

    (void)state;
    open_engine(1);
    fixture_engine_open(&second, 1, 1, 1, 1); /* of another geometry */
    fixture_engine_settle(&second);
    a = fixture_sequence(&engine, 100);
    b = fixture_sequence(&second, 200);
    fixture_worker_start(&worker, 2);
    for (uint32_t round = 0; round < 8; round++) {
        for (uint32_t layer = 0; layer < 4; layer++) {
            fixture_post(&engine, layer, a, layer, 100, 1);
            fixture_post(&second, layer, b, layer, 200, 2);
            job_engine_flush(&engine.table);
            job_engine_flush(&second.table);
        }
        for (uint32_t layer = 0; layer < 4; layer++) {
            fixture_take(&second, layer, NULL);
            fixture_take(&engine, layer, NULL);
        }
    }
    fixture_worker_join(&worker);
    assert_int_equal(counter(&engine.table.shared->jobs_done), 32);
    assert_int_equal(counter(&second.table.shared->jobs_done), 32);
    fixture_engine_close(&second);
}

/* ---- Order ----------------------------------------------------------------------------------- */

static void nearest_deadline_first_then_oldest(void **state)
{
    const uint32_t expected[4] = {2, 0, 1, 3};
    struct sequence_ref seq[4];
    uint64_t hour = 3600 * NS_PER_S, now = clock_now_ns();

    (void)state;
    open_engine(1);
    for (uint32_t i = 0; i < 4; i++)
        seq[i] = fixture_sequence(&engine, 40);
    start_local(1);
    const uint64_t deadlines[4] = {now + 2 * hour, 0, now + hour, 0};
    for (uint32_t i = 0; i < 4; i++) {
        engine.deadline_ns = deadlines[i];
        engine.sweep = i;
        fixture_post(&engine, i, seq[i], 0, 40, 1);
    }
    for (uint32_t n = 0; n < 4; n++) {
        local.links[0].bytes_per_ns = 1e-6; /* so slow that jobs are not run together */
        attnd_tick(&local);                 /* takes all, runs one */
        for (uint32_t k = 0; k < 4; k++)
            assert_int_equal(fixture_is_done(&engine, expected[k]), k <= n);
    }
    for (uint32_t i = 0; i < 4; i++)
        fixture_take(&engine, i, &local);
    attnd_shutdown(&local);
}

/* ---- Together -------------------------------------------------------------------------------- */

static uint64_t stat(enum attnd_stat i)
{
    return stats_get(&local.stats, i);
}

static void short_jobs_run_together(void **state)
{
    struct sequence_ref seq[4];

    (void)state;
    open_engine(1);
    for (uint32_t i = 0; i < 4; i++)
        seq[i] = fixture_sequence(&engine, 30 + 20 * i);
    start_local(1);
    local.links[0].bytes_per_ns = 1e3;
    for (uint32_t i = 0; i < FIXTURE_SLOTS; i++)
        fixture_post(&engine, i, seq[i % 4], i / 4, 30 + 20 * (i % 4), 1 + i % 2);
    attnd_tick(&local);
    for (uint32_t i = 0; i < FIXTURE_SLOTS; i++)
        assert_true(fixture_is_done(&engine, i));
    for (uint32_t i = 0; i < FIXTURE_SLOTS; i++)
        fixture_take(&engine, i, &local);
    assert_int_equal(stat(ATTND_STAT_RUNS), 1);
    assert_int_equal(stat(ATTND_STAT_JOBS), FIXTURE_SLOTS);
    attnd_shutdown(&local);
}

/* A prefix of 1,280 tokens, of which one span is read once for three jobs instead of three times;
 * not in the layers with windows (1 and 3), which end behind it.  The jobs come in between others,
 * and one of them asks more queries than its neighbours. */
static void a_common_prefix_is_read_once(void **state)
{
    struct sequence_ref seq[5];

    (void)state;
    open_engine(1);
    seq[0] = fixture_sequence(&engine, 1500);
    seq[1] = fixture_sequence(&engine, 100);
    seq[2] = fixture_sequence_sharing(&engine, 1290, seq[0], 1280);
    seq[3] = fixture_sequence_sharing(&engine, 1400, seq[0], 1280);
    seq[4] = fixture_sequence_sharing(&engine, 1300, seq[0], 1280);
    const uint32_t pos[5] = {1500, 100, 1290, 1400, 1300};
    start_local(1);
    for (uint32_t layer = 0; layer < 4; layer++) {
        uint64_t before = stat(ATTND_STAT_SHARED);

        local.links[0].bytes_per_ns = 1e3;
        for (uint32_t i = 0; i < 5; i++)
            fixture_post(&engine, i, seq[i], layer, pos[i], i == 3 ? 2 : 1);
        attnd_tick(&local);
        for (uint32_t i = 0; i < 5; i++)
            fixture_take(&engine, i, &local);
        assert_int_equal(stat(ATTND_STAT_SHARED) - before, layer % 2 == 0 ? 2 * 1024 : 0);
    }
    assert_int_equal(stat(ATTND_STAT_RUNS), 4);
    attnd_shutdown(&local);
}

/* Two jobs of 25 us each join while both are due in 60, not in 40; and an engine's rate that nobody
 * knows promises nothing. */
static void no_job_joins_that_would_make_another_late(void **state)
{
    uint64_t now = 1000 * NS_PER_S;
    struct sequence_ref seq[2];
    struct job jobs[2];
    struct link *l;

    (void)state;
    open_engine(1);
    for (uint32_t i = 0; i < 2; i++)
        seq[i] = fixture_sequence(&engine, 200);
    start_local(1);
    l = &local.links[0];
    for (uint32_t i = 0; i < 2; i++) {
        fixture_post(&engine, i, seq[i], 0, 200, 1);
        assert_true(job_worker_next(&l->table, &jobs[i]));
    }
    assert_int_equal(batch_add(l, &jobs[0], now, 0), BATCH_JOINED); /* the first always does */
    assert_int_equal(batch_add(l, &jobs[1], now, UINT64_MAX), BATCH_APART);
    l->bytes_per_ns = (double)link_job_bytes(l, &jobs[0]) / 25e3;
    assert_int_equal(batch_add(l, &jobs[1], now, now + 40 * NS_PER_US), BATCH_APART);
    assert_int_equal(batch_add(l, &jobs[1], now, now + 60 * NS_PER_US), BATCH_JOINED);
    batch_run(l, local.team);
    for (uint32_t i = 0; i < 2; i++)
        fixture_take(&engine, i, &local);
    attnd_shutdown(&local);
}

/* ---- Jobs that make no sense ----------------------------------------------------------------- */

enum bad_job {
    BAD_CTX_LEN,
    BAD_GENERATION,
    BAD_SEQUENCE,
    BAD_TOO_LONG,
    BAD_WORKER,
    BAD_BLOCK,
    N_BAD
};

static void spoil(enum bad_job what, struct sequence_ref seq, struct job_desc *d)
{
    const uint32_t outside[1] = {FIXTURE_BLOCKS};
    struct directory_table table;

    assert_int_equal(directory_table(&engine.directory, seq, 0, 50, &table), 0);
    switch (what) {
    case BAD_CTX_LEN:
        d->ctx_len++;
        break;
    case BAD_GENERATION:
        d->seq_gen++;
        break;
    case BAD_SEQUENCE:
        d->seq_idx = UINT32_MAX;
        break;
    case BAD_TOO_LONG:
        d->pos = 400;
        d->ctx_len = 401;
        break;
    case BAD_WORKER:
    case BAD_BLOCK:
        directory_set_state(&engine.directory, seq, 0, DIRECTORY_LEAVING);
        directory_set_state(&engine.directory, seq, 0, DIRECTORY_DEVICE);
        directory_set_state(&engine.directory, seq, 0, DIRECTORY_FILLING);
        directory_set_blocks(&engine.directory, seq, 0, what == BAD_WORKER,
                             what == BAD_WORKER ? table.blocks : outside, 1);
        directory_set_state(&engine.directory, seq, 0, DIRECTORY_RESIDENT);
        d->pos = 10;
        d->ctx_len = 11;
        break;
    case N_BAD:
        break;
    }
}

static void bad_fields_are_refused_and_nothing_is_written(void **state)
{
    struct sequence_ref good;

    (void)state;
    open_engine(1);
    good = fixture_sequence(&engine, 50);
    start_local(1);
    for (enum bad_job what = 0; what < N_BAD; what++) {
        struct sequence_ref seq = fixture_sequence(&engine, 50);
        struct job_desc desc = {
            .seq_idx = seq.idx, .seq_gen = seq.gen, .n_q = 1, .pos = 50, .ctx_len = 51};

        spoil(what, seq, &desc);
        fixture_post_desc(&engine, what, &desc);
        fixture_take_refused(&engine, what, &local);
        fixture_post(&engine, 15, good, what % 4, 50, 1); /* and it goes on */
        fixture_take(&engine, 15, &local);
    }
    attnd_shutdown(&local);
}

/* ---- Engines that come and go ---------------------------------------------------------------- */

static void a_raised_epoch_voids_what_was_taken(void **state)
{
    static struct fixture_engine next;
    struct sequence_ref seq;

    (void)state;
    open_engine(1);
    seq = fixture_sequence(&engine, 60);
    start_local(1);
    for (uint32_t slot = 0; slot < 3; slot++)
        fixture_post(&engine, slot, seq, slot, 60, 1);
    attnd_tick(&local); /* all three taken, one run */
    assert_int_equal(local.order.n, 2);
    fixture_engine_close(&engine); /* the engine dies, the next one takes over */
    fixture_engine_open(&next, 0, 2, 1, 0);
    assert_false(next.table.created);
    assert_false(job_engine_epoch_settled(&next.table));
    attnd_tick(&local);
    assert_true(job_engine_epoch_settled(&next.table));
    assert_int_equal(local.order.n, 0);
    fixture_engine_settle(&next);
    attnd_tick(&local);
    assert_int_equal(counter(&next.table.shared->jobs_done), 1);
    seq = fixture_sequence(&next, 60);
    for (uint32_t slot = 0; slot < 3; slot++)
        fixture_post(&next, slot, seq, slot, 60, 1);
    for (uint32_t slot = 0; slot < 3; slot++)
        fixture_take(&next, slot, &local);
    attnd_shutdown(&local);
    engine = next;
}

static void epochs_are_raised_under_load(void **state)
{
    struct sequence_ref seq;

    (void)state;
    open_engine(1);
    fixture_worker_start(&worker, 1);
    fixture_wait(is_attached, &worker, NULL);
    for (uint32_t epoch = 2; epoch < 22; epoch++) {
        seq = fixture_sequence(&engine, 90);
        for (uint32_t slot = 0; slot < 4; slot++)
            fixture_post(&engine, slot, seq, slot, 90, 1);
        job_engine_flush(&engine.table);
        if (epoch % 2 == 0) /* otherwise they are out when the engine dies */
            fixture_take(&engine, 3, NULL);
        fixture_engine_close(&engine);
        fixture_engine_open(&engine, 0, epoch, 1, 0);
        fixture_engine_settle(&engine);
        /* The old epoch's jobs may have written until it settled. */
        memcpy(engine.shadow, engine.arena.blocks,
               (size_t)FIXTURE_BLOCKS * engine.geometry.block_bytes);
    }
    seq = fixture_sequence(&engine, 90);
    fixture_post(&engine, 0, seq, 0, 90, 1);
    job_engine_flush(&engine.table);
    fixture_take(&engine, 0, NULL);
    fixture_worker_join(&worker);
}

static void replaced_segments_are_attached_anew(void **state)
{
    struct sequence_ref seq;

    (void)state;
    open_engine(1);
    fixture_worker_start(&worker, 1);
    seq = fixture_sequence(&engine, 33);
    fixture_post(&engine, 0, seq, 0, 33, 1);
    job_engine_flush(&engine.table);
    fixture_take(&engine, 0, NULL);
    fixture_engine_close(&engine);
    fixture_engine_open(&engine, 0, 2, 2, 1); /* another model: nothing fits, all is made anew */
    assert_true(engine.table.created);
    fixture_engine_settle(&engine); /* nobody serves the new table yet */
    seq = fixture_sequence(&engine, 150);
    for (uint32_t layer = 0; layer < 4; layer++)
        fixture_post(&engine, layer, seq, layer, 150, 2);
    job_engine_flush(&engine.table);
    for (uint32_t layer = 0; layer < 4; layer++)
        fixture_take(&engine, layer, NULL);
    fixture_worker_join(&worker);
}

static void an_engine_may_come_after_the_worker(void **state)
{
    struct sequence_ref seq;

    (void)state;
    fixture_worker_start(&worker, 1);
    clock_sleep_ns(20 * NS_PER_MS);
    assert_int_equal(atomic_load(&worker.n_attached), 0);
    open_engine(1);
    seq = fixture_sequence(&engine, 12);
    fixture_post(&engine, 5, seq, 1, 12, 1);
    job_engine_flush(&engine.table);
    fixture_take(&engine, 5, NULL);
    fixture_worker_join(&worker);
}

/* ---- Workers that come and go ---------------------------------------------------------------- */

static void child_serves_until_killed(void *arg)
{
    (void)arg;
    start_local(1);
    for (int i = 0; i < 50; i++)
        attnd_tick(&local);
}

/* A worker is killed at that step of its first job; the next one goes on.  n_found: workers that
 * found the job POSTED when they attached; the killed one is always among them. */
static void kill_and_go_on(const char *label, struct sequence_ref seq, uint64_t n_found)
{
    struct job_table_shared *s = engine.table.shared;
    uint64_t rerun_before = counter(&s->jobs_rerun);

    fixture_post(&engine, 4, seq, 2, 77, 2);
    job_engine_flush(&engine.table);
    assert_int_equal(shm_test_child(label, 1, child_serves_until_killed, NULL), 1);
    start_local(1);
    fixture_take(&engine, 4, &local);
    attnd_shutdown(&local);
    assert_int_equal(counter(&s->jobs_rerun) - rerun_before, n_found);
}

static void killed_at_every_step_the_next_goes_on(void **state)
{
    static const char *const before_done[] = {"worker.job", "worker.appended", "worker.attended",
                                              "job_worker.output"};
    static const char *const after_done[] = {"job_worker.done", "job_worker.done_word",
                                             "job_worker.announced", "job_worker.woken"};
    struct sequence_ref seq;

    (void)state;
    open_engine(1);
    seq = fixture_sequence(&engine, 77);
    for (uint32_t i = 0; i < 4; i++)
        kill_and_go_on(before_done[i], seq, 2);
    for (uint32_t i = 0; i < 4; i++)
        kill_and_go_on(after_done[i], seq, 1);
}

static void a_second_worker_stays_out(void **state)
{
    static struct attnd second;
    struct sequence_ref seq;
    struct error err;

    (void)state;
    open_engine(1);
    seq = fixture_sequence(&engine, 20);
    start_local(1);
    assert_int_equal(attnd_init(&second, &local_config, 0, &err), 0);
    attnd_tick(&second);
    assert_false(second.links[0].attached);
    fixture_post(&engine, 0, seq, 0, 20, 1);
    fixture_take(&engine, 0, &local);
    attnd_shutdown(&second);
    attnd_shutdown(&local);
}

/* ---- Idle ------------------------------------------------------------------------------------ */

static void an_idle_worker_beats_and_sleeps(void **state)
{
    uint64_t last, age;

    (void)state;
    open_engine(1);
    fixture_worker_start(&worker, 1);
    fixture_wait(is_attached, &worker, NULL);
    for (int i = 0; i < 10; i++) {
        clock_sleep_ns(100 * NS_PER_MS);
        last = counter(&engine.table.shared->alive_ns);
        age = clock_now_ns() - last;
        assert_true(age < 20 * worker.config.worker_late_ms * NS_PER_MS); /* machines are shared */
    }
    fixture_worker_join(&worker);
    assert_true(last > 0);
    assert_true(worker.cpu_seconds < 0.25); /* of more than one second; spinning would show */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(results_equal_attention_done_directly),
        TEST(two_sequences_share_blocks),
        TEST(half_of_the_layers_in_the_arena),
        TEST(two_engines_share_one_worker),
        TEST(nearest_deadline_first_then_oldest),
        TEST(short_jobs_run_together),
        TEST(a_common_prefix_is_read_once),
        TEST(no_job_joins_that_would_make_another_late),
        TEST(bad_fields_are_refused_and_nothing_is_written),
        TEST(a_raised_epoch_voids_what_was_taken),
        TEST(epochs_are_raised_under_load),
        TEST(replaced_segments_are_attached_anew),
        TEST(an_engine_may_come_after_the_worker),
        TEST(killed_at_every_step_the_next_goes_on),
        TEST(a_second_worker_stays_out),
        TEST(an_idle_worker_beats_and_sleeps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
