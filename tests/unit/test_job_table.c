/* The slot table: a job's life, hints that lie, fencing, epochs. */
#include "shm_test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/process.h"
#include "common/shm/job_engine.h"
#include "common/shm/job_worker.h"

static const struct job_table_config config = {
    .n_slots = 4, .n_q_max = 2, .element = JOB_ELEMENT_F32};

struct pair {
    struct kv_geometry geometry;
    struct engine_page page;
    struct job_table engine, worker;
};

static void open_engine(struct pair *p, uint32_t epoch)
{
    struct error err;

    assert_int_equal(engine_page_open(&p->page, shm_test_dir, 0, &err), 0);
    assert_int_equal(job_table_open(&p->engine, shm_test_dir, 0, 0, &config, &p->geometry,
                                    SEGMENT_ANY_NODE, &err),
                     0);
    assert_true(job_engine_last_epoch(&p->engine) < epoch);
    job_engine_raise_epoch(&p->engine, epoch);
}

static void attach_worker(struct pair *p)
{
    struct error err;

    assert_int_equal(
        job_table_attach(&p->worker, shm_test_dir, 0, 0, &p->page.shared->done_bell, &err), 0);
}

static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof *p);

    assert_int_equal(shm_test_setup(NULL), 0);
    shm_test_geometry(&p->geometry, 1);
    open_engine(p, 1);
    assert_true(p->engine.created);
    assert_true(job_engine_epoch_settled(&p->engine)); /* no worker yet */
    job_engine_free_all(&p->engine);
    attach_worker(p);
    assert_false(job_worker_next(&p->worker, &(struct job){0})); /* the scan of the attach ends */
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;

    job_table_detach(&p->worker);
    job_table_detach(&p->engine);
    engine_page_detach(&p->page);
    free(p);
    return shm_test_teardown(NULL);
}

static struct job_desc desc_at(uint32_t layer, uint32_t pos)
{
    return (struct job_desc){.seq_idx = 5,
                             .seq_gen = 9,
                             .layer = layer,
                             .n_q = 2,
                             .pos = pos,
                             .ctx_len = pos + 2,
                             .deadline_ns = 111,
                             .posted_ns = 99,
                             .sweep = 7};
}

static uint32_t post(struct pair *p, uint32_t slot)
{
    struct job_desc d = desc_at(1, 40 + slot);
    uint32_t generation;

    assert_int_equal(job_engine_post(&p->engine, slot, &d, &generation), 0);
    return generation;
}

static void run_one(struct pair *p, uint32_t slot)
{
    struct job job;

    assert_true(job_worker_next(&p->worker, &job));
    assert_int_equal(job.slot, slot);
    ((float *)job_table_out(&p->worker, slot))[0] = 0.5f + (float)job.generation;
    assert_int_equal(job_worker_complete(&p->worker, &job, 10, 30, 0), 0);
}

static void one_job_there_and_back(void **state)
{
    struct pair *p = *state;
    struct job_times times;
    struct job job;
    uint32_t slots[4], gen;

    ((float *)job_table_q(&p->engine, 2))[0] = 1.25f;
    ((float *)job_table_v(&p->engine, 2))[3] = 2.5f;
    gen = post(p, 2);
    assert_int_equal(gen, 1);
    assert_int_equal(job_engine_take(&p->engine, 2, gen, NULL), JOB_NOT_DONE);
    assert_int_equal(
        job_engine_post(&p->engine, 2, &(struct job_desc){.n_q = 1, .ctx_len = 1}, NULL), -EBUSY);
    assert_true(job_worker_next(&p->worker, &job));
    assert_int_equal(job.slot, 2);
    assert_int_equal(job.pos, 42);
    assert_int_equal(job.ctx_len, 44);
    assert_int_equal(job.seq_gen, 9);
    assert_int_equal(job.deadline_ns, 111);
    assert_true(((float *)job_table_q(&p->worker, 2))[0] == 1.25f);
    assert_true(((float *)job_table_v(&p->worker, 2))[3] == 2.5f);
    assert_false(job_worker_next(&p->worker, &(struct job){0}));
    ((float *)job_table_out(&p->worker, 2))[0] = 7;
    assert_int_equal(job_engine_done_generation(&p->engine, 2), 0);
    assert_int_equal(job_worker_complete(&p->worker, &job, 10, 30, 0), 0);
    assert_int_equal(job_engine_done_generation(&p->engine, 2), gen);
    assert_int_equal(job_engine_poll(&p->engine, slots, 4), 1);
    assert_int_equal(slots[0], 2);
    assert_int_equal(job_engine_take(&p->engine, 2, gen, &times), JOB_OK);
    assert_int_equal(times.end_ns - times.start_ns, 20);
    assert_true(((float *)job_table_out(&p->engine, 2))[0] == 7);
    assert_int_equal(job_engine_take(&p->engine, 2, gen, NULL), JOB_STALE);
    assert_int_equal(job_worker_complete(&p->worker, &job, 0, 0, 0), -ESTALE);
    assert_int_equal(post(p, 2), 2);
}

static void payloads_do_not_overlap(void **state)
{
    struct pair *p = *state;
    const struct job_table_layout *l = &p->engine.layout;
    uint8_t *end = (uint8_t *)job_table_out(&p->engine, 3) + l->n_q_max * l->out_width * 4;

    assert_int_equal(l->q_width, 32);
    assert_int_equal(l->k_width, 16);
    assert_int_equal(l->out_width, 32);
    assert_true(l->k_off >= l->n_q_max * l->q_width * 4);
    assert_true(l->v_off - l->k_off >= l->n_q_max * l->k_width * 4);
    assert_true((uint64_t)l->v_off + l->n_q_max * l->v_width * 4 <= l->in_stride);
    assert_true(l->out_off >= l->in_off + (uint64_t)l->n_slots * l->in_stride);
    assert_int_equal(l->out_off % SHM_PAGE, 0);
    assert_true(end <= p->engine.segment.base + p->engine.segment.bytes);
}

static void lying_hints_are_ignored(void **state)
{
    struct pair *p = *state;
    struct job job;
    uint32_t slots[4];

    ring_push(&p->engine.posted_ring, job_hint(1, 1));       /* FREE slot */
    ring_push(&p->engine.posted_ring, job_hint(4000000, 1)); /* no such slot */
    post(p, 0);
    ring_push(&p->engine.posted_ring, job_hint(0, 1));  /* doubled */
    ring_push(&p->engine.posted_ring, job_hint(0, 77)); /* another generation */
    run_one(p, 0);
    assert_false(job_worker_next(&p->worker, &job));
    assert_int_equal(atomic_load(&p->worker.shared->hints_stale), 4);
    ring_push(&p->worker.done_ring, job_hint(4000000, 1));
    ring_push(&p->worker.done_ring, job_hint(3, 1));
    assert_int_equal(job_engine_poll(&p->engine, slots, 4), 2);
    assert_int_equal(job_engine_take(&p->engine, slots[0], 1, NULL), JOB_OK);
    assert_int_equal(job_engine_take(&p->engine, slots[1], 1, NULL), JOB_STALE);
}

static void doubled_hint_does_not_start_a_job_twice(void **state)
{
    struct pair *p = *state;
    uint32_t gen = post(p, 0);
    struct job job;

    ring_push(&p->engine.posted_ring, job_hint(0, gen));
    assert_true(job_worker_next(&p->worker, &job)); /* a team computes it now */
    assert_false(job_worker_next(&p->worker, &job));
}

static void full_rings_lose_no_job(void **state)
{
    struct pair *p = *state;
    uint32_t slots[4], gen, lost;

    while (ring_push(&p->engine.posted_ring, job_hint(3, 99)))
        ;
    gen = post(p, 1);
    assert_int_equal(atomic_load(&p->engine.shared->post_overflows), 1);
    while (ring_push(&p->worker.done_ring, job_hint(9999, 0)))
        ;
    run_one(p, 1); /* found by scanning */
    lost = atomic_load(&p->engine.shared->done_overflow);
    assert_int_equal(lost, 1);
    assert_int_equal(job_engine_poll(&p->engine, slots, 4), 1);
    assert_int_equal(slots[0], 1);
    assert_int_equal(job_engine_take(&p->engine, 1, gen, NULL), JOB_OK);
}

static void bad_fields_come_back_as_failed(void **state)
{
    struct pair *p = *state;
    struct job_desc d = desc_at(2, 0); /* the model has two layers */
    struct job job;
    uint32_t gen;

    assert_int_equal(job_engine_post(&p->engine, 0, &d, NULL), -EINVAL);
    d = desc_at(0, 0);
    d.n_q = 3;
    assert_int_equal(job_engine_post(&p->engine, 0, &d, NULL), -EINVAL);
    d = desc_at(0, UINT32_MAX);
    assert_int_equal(job_engine_post(&p->engine, 0, &d, NULL), -EINVAL);
    gen = post(p, 0);
    p->engine.slots[0].n_q = 1000; /* as a damaged engine would */
    assert_false(job_worker_next(&p->worker, &job));
    assert_int_equal(job_engine_take(&p->engine, 0, gen, NULL), JOB_FAILED);
}

static void next_worker_finds_posted_and_done(void **state)
{
    struct pair *p = *state;
    uint32_t slots[4], g0 = post(p, 0), g1 = post(p, 1);
    struct job job;

    run_one(p, 0);
    assert_int_equal(job_engine_poll(&p->engine, slots, 4),
                     1); /* seen, but the engine forgets it */
    job_table_detach(&p->worker);
    attach_worker(p);
    assert_true(job_worker_next(&p->worker, &job));
    assert_int_equal(job.slot, 1);
    assert_int_equal(atomic_load(&p->worker.shared->jobs_rerun), 1);
    assert_int_equal(job_worker_complete(&p->worker, &job, 0, 1, 0), 0);
    assert_false(job_worker_next(&p->worker, &job));
    assert_int_equal(job_engine_poll(&p->engine, slots, 4), 2); /* slot 0 announced again */
    assert_int_equal(job_engine_take(&p->engine, 0, g0, NULL), JOB_OK);
    assert_int_equal(job_engine_take(&p->engine, 1, g1, NULL), JOB_OK);
}

static void one_worker_per_table(void **state)
{
    struct pair *p = *state;
    struct job_table second;
    struct error err;

    assert_true(job_engine_worker_attached(&p->engine));
    assert_int_equal(
        job_table_attach(&second, shm_test_dir, 0, 0, &p->page.shared->done_bell, &err), -EBUSY);
    assert_non_null(strstr(err.text, "another worker serves it"));
    assert_int_equal(job_table_inspect(&second, shm_test_dir, 0, 0, &err), 0);
    assert_true(job_engine_worker_attached(&p->engine));
    job_table_detach(&second);
    job_table_detach(&p->worker);
    assert_false(job_engine_worker_attached(&p->engine));
}

static void one_engine_per_index(void **state)
{
    struct pair *p = *state;
    struct engine_page second;
    struct error err;

    engine_page_enter(&p->page, 1, clock_now_ns());
    assert_int_equal(engine_page_open(&second, shm_test_dir, 0, &err), -EBUSY);
    assert_non_null(strstr(err.text, "engine 0 runs already, as pid"));
}

static void nothing_is_reclaimed_while_a_worker_lives(void **state)
{
    struct pair *p = *state;
    uint32_t g0 = post(p, 0), g1 = post(p, 1);
    struct job job;

    assert_true(job_worker_next(&p->worker, &job)); /* it computes slot 0, and is stopped there */
    assert_false(job_engine_slot_reusable(&p->engine, 0));
    assert_int_equal(job_engine_reclaim_begin(&p->engine), -EBUSY);
    job_table_detach(&p->worker); /* dead */
    assert_int_equal(job_engine_reclaim_begin(&p->engine), 0);
    job_engine_reclaim(&p->engine, 0); /* cancelled; slot 1 stays for the next worker */
    job_engine_reclaim_end(&p->engine);
    assert_true(job_engine_slot_reusable(&p->engine, 0));
    assert_false(job_engine_slot_reusable(&p->engine, 1));
    assert_int_equal(job_engine_take(&p->engine, 0, g0, NULL), JOB_STALE);
    attach_worker(p);
    assert_int_equal(post(p, 0), g0 + 1);
    run_one(p, 0); /* its new job, by scan */
    run_one(p, 1);
    assert_int_equal(job_engine_take(&p->engine, 1, g1, NULL), JOB_OK);
    assert_int_equal(job_engine_take(&p->engine, 0, g0 + 1, NULL), JOB_OK);
}

static void new_engine_waits_for_the_acknowledgement(void **state)
{
    struct pair *p = *state;
    uint32_t gen = post(p, 3);
    struct job job;

    assert_true(job_worker_next(&p->worker, &job));
    job_table_detach(&p->engine);
    engine_page_detach(&p->page);
    open_engine(p, 2);
    assert_false(p->engine.created);
    assert_false(job_engine_epoch_settled(&p->engine)); /* it may still write slot 3 */
    assert_true(job_worker_epoch_raised(&p->worker));
    assert_int_equal(job_worker_complete(&p->worker, &job, 0, 1, 0), 0); /* harmless */
    p->worker.done_bell = &p->page.shared->done_bell;
    assert_true(job_worker_ack_epoch(&p->worker));
    assert_true(job_engine_epoch_settled(&p->engine));
    job_engine_free_all(&p->engine);
    assert_int_equal(job_engine_state(&p->engine, 3), JOB_FREE);
    assert_false(job_worker_next(&p->worker, &job));
    assert_int_equal(post(p, 3), gen + 1); /* generations go on */
    run_one(p, 3);
    assert_int_equal(job_engine_take(&p->engine, 3, gen + 1, NULL), JOB_OK);
}

static void jobs_of_a_dead_epoch_are_not_run(void **state)
{
    struct pair *p = *state;
    struct job job;

    post(p, 0);
    job_table_detach(&p->worker);
    job_table_detach(&p->engine);
    engine_page_detach(&p->page);
    open_engine(p, 2); /* raised, not yet freed */
    attach_worker(p);
    assert_false(job_worker_next(&p->worker, &job));
    assert_true(job_engine_epoch_settled(&p->engine)); /* it read the new epoch at attach */
    job_engine_free_all(&p->engine);
    post(p, 0);
    run_one(p, 0);
}

static void other_widths_make_a_new_table(void **state)
{
    struct pair *p = *state;
    struct job_table_config wider = config;
    struct error err;

    job_table_detach(&p->engine);
    wider.n_slots = 8;
    assert_int_equal(job_table_open(&p->engine, shm_test_dir, 0, 0, &wider, &p->geometry,
                                    SEGMENT_ANY_NODE, &err),
                     0);
    assert_true(p->engine.created);
    assert_non_null(strstr(p->engine.replaced.text, "expected"));
    assert_non_null(strstr(p->engine.replaced.text, "found"));
    assert_false(segment_is_current(&p->worker.segment)); /* the worker sees it and attaches anew */
    job_table_detach(&p->worker);
    job_engine_raise_epoch(&p->engine, 1);
    attach_worker(p);
    assert_int_equal(p->worker.layout.n_slots, 8);
}

static void waits_end_in_time(void **state)
{
    struct pair *p = *state;
    struct job_table *worker = &p->worker, *engine = &p->engine;
    struct bell_wait wait = {.until_ns = 0};
    struct job job;
    uint64_t start;

    while (job_worker_next(&p->worker, &job)) /* ends the scan */
        ;
    start = clock_now_ns();
    assert_false(job_worker_wait(&worker, 1, 0, start + 20 * NS_PER_MS));
    assert_true(clock_now_ns() - start >= 20 * NS_PER_MS);
    wait.until_ns = clock_now_ns() + 5 * NS_PER_MS;
    assert_false(job_engine_wait(&p->page, &engine, 1, &wait));
    post(p, 0);
    assert_true(job_worker_wait(&worker, 1, 0, FUTEX_NO_DEADLINE));
    run_one(p, 0);
    wait.until_ns = FUTEX_NO_DEADLINE;
    assert_true(job_engine_wait(&p->page, &engine, 1, &wait));
}

static void layout_is_bounded(void **state)
{
    struct pair *p = *state;
    struct job_table_layout l;
    struct job_table_config c = config;

    c.n_slots = 0;
    assert_int_equal(job_table_layout(&l, &c, &p->geometry), -EINVAL);
    c.n_slots = JOB_SLOTS_MAX + 1;
    assert_int_equal(job_table_layout(&l, &c, &p->geometry), -EINVAL);
    c = config;
    c.n_q_max = JOB_QUERIES_MAX + 1;
    assert_int_equal(job_table_layout(&l, &c, &p->geometry), -EINVAL);
    c = config;
    c.element = 9;
    assert_int_equal(job_table_layout(&l, &c, &p->geometry), -EINVAL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_job_there_and_back),
        TEST(payloads_do_not_overlap),
        TEST(lying_hints_are_ignored),
        TEST(doubled_hint_does_not_start_a_job_twice),
        TEST(full_rings_lose_no_job),
        TEST(bad_fields_come_back_as_failed),
        TEST(next_worker_finds_posted_and_done),
        TEST(one_worker_per_table),
        TEST(one_engine_per_index),
        TEST(nothing_is_reclaimed_while_a_worker_lives),
        TEST(new_engine_waits_for_the_acknowledgement),
        TEST(jobs_of_a_dead_epoch_are_not_run),
        TEST(other_widths_make_a_new_table),
        TEST(waits_end_in_time),
        TEST(layout_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
