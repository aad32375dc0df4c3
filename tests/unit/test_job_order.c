/* Which job is next: the rules one by one, then random traffic against a model that only sorts. */
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "common/sched/job_order.h"

enum { CAP = 64, NOW = 1000 };

static struct job_order order;

static int setup(void **state)
{
    (void)state;
    return job_order_init(&order, CAP);
}

static int teardown(void **state)
{
    (void)state;
    job_order_fini(&order);
    return 0;
}

/* Slots name the jobs in these tests. */
static void push(uint32_t slot, uint64_t deadline, uint64_t predicted, uint64_t posted)
{
    const struct job_order_item item = {
        .job = {.slot = slot, .deadline_ns = deadline, .posted_ns = posted},
        .predicted_ns = predicted};

    assert_true(job_order_push(&order, &item));
}

static uint32_t pop(uint64_t now)
{
    struct job_order_item item;

    assert_true(job_order_pop(&order, now, &item));
    return item.job.slot;
}

static void nearest_deadline_that_can_be_met_goes_first(void **state)
{
    (void)state;
    push(1, NOW + 300, 10, 1);
    push(2, NOW + 100, 10, 3);
    push(3, NOW + 200, 10, 2);
    assert_int_equal(pop(NOW), 2);
    assert_int_equal(pop(NOW), 3);
    assert_int_equal(pop(NOW), 1);
}

static void a_hopeless_job_waits_for_those_that_can_make_it(void **state)
{
    (void)state;
    push(1, NOW + 5, 10, 1); /* would be back 5 ns late */
    push(2, NOW + 900, 10, 9);
    push(3, NOW + 10, 10, 8); /* exactly in time */
    assert_int_equal(pop(NOW), 3);
    assert_int_equal(pop(NOW), 2);
    assert_int_equal(pop(NOW), 1);
}

static void the_rest_goes_oldest_first(void **state)
{
    (void)state;
    push(7, 0, 0, 4);
    push(3, 0, 0, 4); /* the same time: by slot */
    push(9, 0, 0, 2);
    assert_int_equal(pop(NOW), 9);
    assert_int_equal(pop(NOW), 3);
    assert_int_equal(pop(NOW), 7);
}

static void sweeps_of_two_engines_are_not_compared(void **state)
{
    const struct job_order_item of_old = {.job = {.slot = 1, .posted_ns = 100, .sweep = 1000000},
                                          .link = 0};
    const struct job_order_item of_young = {.job = {.slot = 2, .posted_ns = 200, .sweep = 3},
                                            .link = 1};

    (void)state;
    assert_true(job_order_push(&order, &of_young) && job_order_push(&order, &of_old));
    assert_int_equal(pop(NOW), 1);
    assert_int_equal(pop(NOW), 2);
}

static void a_deadline_that_passes_while_waiting_is_noticed(void **state)
{
    (void)state;
    push(1, NOW + 50, 10, 5);
    push(2, NOW + 500, 10, 6);
    push(3, 0, 10, 4);
    assert_int_equal(pop(NOW + 100), 2); /* job 1 is as late as job 3 by then, and younger */
    assert_int_equal(pop(NOW + 100), 3);
    assert_int_equal(pop(NOW + 100), 1);
}

static void full_refuses_and_empty_has_none(void **state)
{
    struct job_order_item item = {.link = 0};

    (void)state;
    assert_false(job_order_pop(&order, NOW, &item));
    for (uint32_t i = 0; i < CAP; i++)
        push(i, 0, 0, i);
    assert_false(job_order_push(&order, &item));
    assert_int_equal(pop(NOW), 0);
    assert_true(job_order_push(&order, &item));
}

static void dropping_a_link_leaves_the_others(void **state)
{
    struct job_order_item item;

    (void)state;
    for (uint32_t i = 0; i < 9; i++) {
        item = (struct job_order_item){.job = {.slot = i, .posted_ns = i}, .link = i % 3};
        assert_true(job_order_push(&order, &item));
    }
    job_order_drop_link(&order, 1);
    for (uint32_t i = 0; i < 9; i++) {
        if (i % 3 != 1)
            assert_int_equal(pop(NOW), i);
    }
    assert_false(job_order_pop(&order, NOW, &item));
}

/* ---- Shares ---------------------------------------------------------------------------------- */

/* A worker that is always busy with jobs of 1 ms, in virtual time.  Each engine keeps `depth` jobs
 * waiting; those of engine 0 can make their deadlines, those of the others cannot. */
struct busy {
    uint32_t n_links, next_slot;
    uint32_t depth[3];
    uint32_t waiting[3];
    uint64_t now, ran_ns[3];
};

enum { JOB_NS = 1000000 };

static void busy_run(struct busy *b, uint32_t n_jobs)
{
    struct job_order_item item;

    memset(b->ran_ns, 0, sizeof b->ran_ns);
    for (uint32_t n = 0; n < n_jobs; n++) {
        for (uint32_t l = 0; l < b->n_links; l++) {
            for (; b->waiting[l] < b->depth[l]; b->waiting[l]++) {
                item = (struct job_order_item){.link = l, .predicted_ns = JOB_NS};
                item.job.slot = b->next_slot++;
                item.job.posted_ns = b->now;
                item.job.deadline_ns = l == 0 ? b->now + 100 * JOB_NS : b->now;
                assert_true(job_order_push(&order, &item));
            }
        }
        if (!job_order_pop(&order, b->now, &item)) {
            b->now += JOB_NS;
            continue;
        }
        b->waiting[item.link]--;
        b->ran_ns[item.link] += JOB_NS;
        job_order_charge(&order, item.link, b->now, b->now + JOB_NS);
        b->now += JOB_NS;
    }
}

static void start_shared(struct busy *b, const uint32_t *shares, uint32_t n)
{
    job_order_fini(&order);
    assert_int_equal(job_order_init_shared(&order, CAP, shares, n), 0);
    *b = (struct busy){.n_links = n, .now = NOW};
}

static void assert_part(const struct busy *b, uint32_t link, double part)
{
    uint64_t all = b->ran_ns[0] + b->ran_ns[1] + b->ran_ns[2];
    double seen = (double)b->ran_ns[link] / (double)all;

    if (seen < part - 0.03 || seen > part + 0.03)
        fail_msg("link %u had %.3f of the time, not %.3f", link, seen, part);
}

static void a_full_worker_is_shared_by_weight(void **state)
{
    struct busy b;

    (void)state;
    start_shared(&b, (const uint32_t[]){1, 1}, 2);
    b.depth[0] = b.depth[1] = 8;
    busy_run(&b, 4000); /* the last second fills */
    busy_run(&b, 2000);
    assert_part(&b, 0, 0.5);
    start_shared(&b, (const uint32_t[]){3, 1}, 2);
    b.depth[0] = b.depth[1] = 8;
    busy_run(&b, 4000); /* the last second fills */
    busy_run(&b, 2000);
    assert_part(&b, 0, 0.75);
    start_shared(&b, (const uint32_t[]){2, 1, 1}, 3);
    b.depth[0] = b.depth[1] = b.depth[2] = 8;
    busy_run(&b, 4000);
    busy_run(&b, 4000);
    assert_part(&b, 1, 0.25);
    assert_part(&b, 2, 0.25);
}

static void alone_an_engine_has_it_all_and_owes_a_second_of_it(void **state)
{
    struct busy b;

    (void)state;
    start_shared(&b, (const uint32_t[]){1, 1}, 2);
    b.depth[0] = 4;
    busy_run(&b, 5000);
    assert_int_equal(b.ran_ns[0], 5000ULL * JOB_NS);
    b.depth[1] = 4; /* engine 0 has had all of the last second: engine 1 goes first for a while */
    busy_run(&b, 300);
    assert_int_equal(b.ran_ns[0], 0);
    busy_run(&b, 1000);
    busy_run(&b, 1000); /* and no longer than that */
    assert_part(&b, 0, 0.5);
}

static void where_the_worker_is_not_full_deadlines_decide(void **state)
{
    struct busy b;
    struct job_order_item item = {.link = 1};

    (void)state;
    start_shared(&b, (const uint32_t[]){1, 1}, 2);
    for (uint32_t n = 0; n < 100; n++) { /* engine 0 alone uses two fifths of the time */
        b.now += 10 * JOB_NS;
        job_order_charge(&order, 0, b.now - 4 * JOB_NS, b.now);
    }
    item.job = (struct job){.slot = 1, .deadline_ns = b.now + 900};
    assert_true(job_order_push(&order, &item));
    item.link = 0;
    item.job = (struct job){.slot = 2, .deadline_ns = b.now + 100};
    assert_true(job_order_push(&order, &item));
    assert_int_equal(pop(b.now), 2);
    assert_int_equal(pop(b.now), 1);
}

/* ---- Against the model ----------------------------------------------------------------------- */

struct model {
    struct job_order_item items[CAP];
    uint32_t n;
};

static uint64_t model_now;

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* The whole rule as one sort key: late?, deadline if not late, time, slot. */
static int compare_items(const void *pa, const void *pb)
{
    const struct job_order_item *a = pa, *b = pb;
    bool a_late = a->job.deadline_ns < model_now + a->predicted_ns;
    bool b_late = b->job.deadline_ns < model_now + b->predicted_ns;
    int c = (int)a_late - (int)b_late;

    if (c == 0 && !a_late)
        c = compare_u64(a->job.deadline_ns, b->job.deadline_ns);
    if (c == 0)
        c = compare_u64(a->job.posted_ns, b->job.posted_ns);
    return c != 0 ? c : compare_u64(a->job.slot, b->job.slot);
}

static struct job_order_item model_pop(struct model *m, uint64_t now)
{
    struct job_order_item first;

    model_now = now;
    qsort(m->items, m->n, sizeof m->items[0], compare_items);
    first = m->items[0];
    m->n--;
    memmove(m->items, m->items + 1, m->n * sizeof m->items[0]);
    return first;
}

static void model_drop(struct model *m, uint32_t link)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n; i++) {
        if (m->items[i].link != link)
            m->items[n++] = m->items[i];
    }
    m->n = n;
}

static uint32_t below(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525U + 1013904223U;
    return (*seed >> 8) % n;
}

/* Few values per field, so that ties are frequent; the slot alone is unique. */
static struct job_order_item random_item(uint32_t *seed, uint32_t slot, uint64_t now)
{
    return (struct job_order_item){.job = {.slot = slot,
                                           .deadline_ns = now + 10 * below(seed, 12),
                                           .posted_ns = now - below(seed, 6),
                                           .sweep = below(seed, 6)},
                                   .link = below(seed, 4),
                                   .predicted_ns = 10 * below(seed, 8)};
}

static void random_step(struct model *m, uint32_t *seed, uint32_t step, uint64_t now)
{
    uint32_t what = below(seed, 40);
    struct job_order_item item;

    if (what == 0) {
        uint32_t link = below(seed, 4);
        job_order_drop_link(&order, link);
        model_drop(m, link);
    } else if (what < 22) {
        item = random_item(seed, step, now);
        assert_int_equal(job_order_push(&order, &item), m->n < CAP);
        if (m->n < CAP)
            m->items[m->n++] = item;
    } else {
        assert_int_equal(job_order_pop(&order, now, &item), m->n > 0);
        if (m->n > 0)
            assert_int_equal(item.job.slot, model_pop(m, now).job.slot);
    }
    assert_int_equal(order.n, m->n);
}

static void random_traffic_equals_the_sorted_model(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 20; round++) {
        struct model m = {.n = 0};
        uint32_t seed = round + 1;
        uint64_t now = NOW;

        /* Shares that nobody has used change nothing. */
        job_order_fini(&order);
        if (round % 2 == 0)
            assert_int_equal(job_order_init(&order, CAP), 0);
        else
            assert_int_equal(job_order_init_shared(&order, CAP, (const uint32_t[]){1, 2, 3, 4}, 4),
                             0);
        for (uint32_t step = 0; step < 2000; step++) {
            now += below(&seed, 15);
            random_step(&m, &seed, step, now);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nearest_deadline_that_can_be_met_goes_first, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_hopeless_job_waits_for_those_that_can_make_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_rest_goes_oldest_first, setup, teardown),
        cmocka_unit_test_setup_teardown(sweeps_of_two_engines_are_not_compared, setup, teardown),
        cmocka_unit_test_setup_teardown(a_deadline_that_passes_while_waiting_is_noticed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(full_refuses_and_empty_has_none, setup, teardown),
        cmocka_unit_test_setup_teardown(dropping_a_link_leaves_the_others, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_worker_is_shared_by_weight, setup, teardown),
        cmocka_unit_test_setup_teardown(alone_an_engine_has_it_all_and_owes_a_second_of_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(where_the_worker_is_not_full_deadlines_decide, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(random_traffic_equals_the_sorted_model, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
