/* Funded waits, by hand: who is hoped for, until when, and who is late. */
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/device/wait.h"

enum { SLOTS = 8, WORKERS = 2, PER_WORKER = SLOTS / WORKERS, LAYER = 3, FOR_EVER = 1000000 };

static struct wait_book book;
static struct pick_slot slots[SLOTS];
static uint32_t done[SLOTS];

static int setup(void **state)
{
    (void)state;
    memset(slots, 0, sizeof slots);
    memset(done, 0, sizeof done);
    return wait_book_init(&book, SLOTS, PER_WORKER);
}

static int teardown(void **state)
{
    (void)state;
    wait_book_fini(&book);
    return 0;
}

static void post(uint32_t slot, uint32_t layer, uint64_t job_ns)
{
    slots[slot] = (struct pick_slot){.generation = slots[slot].generation + 1,
                                     .layer = layer,
                                     .age = 5,
                                     .state = PICK_SLOT_POSTED,
                                     .n_q = 1,
                                     .batch = slot % 2};
    wait_posted(&book, slot, job_ns);
}

static void flush(uint64_t now)
{
    wait_flushed(&book, slots, done, now);
}

static void answer(uint32_t slot)
{
    done[slot] = slots[slot].generation;
}

static uint64_t until(uint64_t now, uint64_t end, uint32_t want)
{
    const struct wait_ask ask = {.book = &book,
                                 .slots = slots,
                                 .done = done,
                                 .layer = LAYER,
                                 .batches = PICK_ANY_BATCH,
                                 .age_max = UINT64_MAX,
                                 .want = want,
                                 .now_ns = now,
                                 .end_ns = end};

    return wait_until(&ask);
}

static void a_job_is_waited_for_until_twice_its_time(void **state)
{
    (void)state;
    post(0, LAYER, 100);
    flush(1000);
    assert_int_equal(until(1010, FOR_EVER, 1), 1200);
    assert_int_equal(until(1010, 1150, 1), 1150); /* the money ends first */
    assert_int_equal(until(1010, 1099, 1), 1010); /* too little for it: not spent at all */
    assert_int_equal(until(1201, FOR_EVER, 1), 1201);
    answer(0);
    assert_int_equal(until(1010, FOR_EVER, 1), 1010);
}

static void jobs_of_a_flush_are_expected_together(void **state)
{
    (void)state;
    post(0, LAYER, 100);
    post(1, LAYER, 50);
    post(PER_WORKER, LAYER, 10); /* another worker's */
    flush(1000);
    assert_int_equal(until(1000, 1149, 3), 1020); /* the other worker alone is in time */
    assert_int_equal(until(1000, FOR_EVER, 3), 1300);
    answer(0);
    answer(PER_WORKER);
    assert_int_equal(until(1000, FOR_EVER, 3), 1300);
    assert_int_equal(until(1000, FOR_EVER, 2), 1000); /* enough */
}

static void an_older_job_is_ended_first(void **state)
{
    (void)state;
    post(0, LAYER + 1, 400);
    post(1, LAYER + 1, 300);
    flush(1000);
    post(2, LAYER, 100);
    flush(1010);
    assert_int_equal(until(1010, FOR_EVER, 1), 1010 + 2 * (400 + 100));
    assert_int_equal(until(1010, 1509, 1), 1010);
}

static void a_late_worker_buys_no_time_with_new_jobs(void **state)
{
    (void)state;
    post(0, LAYER + 1, 100);
    flush(1000);
    post(1, LAYER, 100);
    flush(1201);
    assert_int_equal(until(1201, FOR_EVER, 1), 1201);
    answer(0); /* and so it is not late any more, for what is posted from then on */
    answer(1);
    post(1, LAYER, 100);
    flush(1300);
    assert_int_equal(until(1300, FOR_EVER, 1), 1500);
}

static void only_the_layer_the_batch_and_the_age_count(void **state)
{
    struct wait_ask ask = {.book = &book,
                           .slots = slots,
                           .done = done,
                           .layer = LAYER,
                           .batches = 1,
                           .age_max = UINT64_MAX,
                           .want = 1,
                           .now_ns = 1000,
                           .end_ns = FOR_EVER};

    (void)state;
    post(1, LAYER, 100); /* batch 1 */
    post(2, LAYER + 1, 100);
    flush(1000);
    assert_int_equal(wait_until(&ask), 1000);
    ask.batches = 2;
    assert_int_equal(wait_until(&ask), 1400);
    ask.age_max = 4;
    assert_int_equal(wait_until(&ask), 1000);
}

static void nobody_waits_for_what_is_not_predicted(void **state)
{
    const struct device_pace unknown = {.fixed_ns = 100},
                             known = {.fixed_ns = 100, .ns_per_byte = 2};

    (void)state;
    assert_int_equal(wait_job_ns(&unknown, 50), 0);
    assert_int_equal(wait_job_ns(&known, 50), 200);
    post(0, LAYER, wait_job_ns(&unknown, 50));
    flush(1000);
    assert_int_equal(until(1001, FOR_EVER, 1), 1001);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_job_is_waited_for_until_twice_its_time),
        TEST(jobs_of_a_flush_are_expected_together),
        TEST(an_older_job_is_ended_first),
        TEST(a_late_worker_buys_no_time_with_new_jobs),
        TEST(only_the_layer_the_batch_and_the_age_count),
        TEST(nobody_waits_for_what_is_not_predicted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
