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

        job_order_fini(&order);
        assert_int_equal(job_order_init(&order, CAP), 0);
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
        cmocka_unit_test_setup_teardown(random_traffic_equals_the_sorted_model, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
