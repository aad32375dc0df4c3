/* Class queues: order between classes, order inside one, bounds, and a random walk that is compared
 * with the plainest possible model of the same thing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/sched/class_queue.h"

enum { N_ITEMS = 40, N_CLASSES = 3 };

static uint32_t pop(struct class_queue *q)
{
    uint32_t item = class_queue_front(q);

    if (item != CLASS_QUEUE_NONE)
        assert_true(class_queue_remove(q, item));
    return item;
}

static void test_three_classes_in_order(void **state)
{
    (void)state;
    const uint32_t bounds[N_CLASSES] = {4, 4, 4};
    struct class_queue q;

    assert_int_equal(class_queue_init(&q, N_CLASSES, bounds, N_ITEMS), 0);
    assert_int_equal(class_queue_front(&q), CLASS_QUEUE_NONE);
    /* Pushed worst class first, so that order of arrival cannot be what is seen. */
    const uint32_t arrivals[][2] = {{2, 20}, {1, 10}, {2, 21}, {0, 0}, {1, 11}, {0, 1}};

    for (size_t i = 0; i < 6; i++)
        assert_int_equal(class_queue_push(&q, arrivals[i][0], arrivals[i][1]), CLASS_QUEUE_OK);
    const uint32_t expected[] = {0, 1, 10, 11, 20, 21};

    for (size_t i = 0; i < 6; i++)
        assert_int_equal(pop(&q), expected[i]);
    assert_int_equal(pop(&q), CLASS_QUEUE_NONE);
    class_queue_fini(&q);
}

static void test_bounds_are_per_class(void **state)
{
    (void)state;
    const uint32_t bounds[N_CLASSES] = {1, 2, 0};
    struct class_queue q;

    assert_int_equal(class_queue_init(&q, N_CLASSES, bounds, N_ITEMS), 0);
    assert_int_equal(class_queue_push(&q, 0, 0), CLASS_QUEUE_OK);
    assert_int_equal(class_queue_push(&q, 0, 1), CLASS_QUEUE_FULL);
    assert_int_equal(class_queue_push(&q, 1, 1), CLASS_QUEUE_OK);
    assert_int_equal(class_queue_push(&q, 1, 2), CLASS_QUEUE_OK);
    assert_int_equal(class_queue_push(&q, 1, 3), CLASS_QUEUE_FULL);
    assert_int_equal(class_queue_push(&q, 2, 3), CLASS_QUEUE_FULL);
    assert_int_equal(class_queue_length(&q, 0), 1);
    assert_int_equal(class_queue_length(&q, 1), 2);
    assert_int_equal(class_queue_length(&q, 2), 0);
    /* A refused item is in no queue: it can be pushed elsewhere once there is room. */
    assert_int_equal(pop(&q), 0);
    assert_int_equal(class_queue_push(&q, 0, 3), CLASS_QUEUE_OK);
    class_queue_fini(&q);
}

static void test_returned_item_goes_first_even_when_full(void **state)
{
    (void)state;
    const uint32_t bounds[N_CLASSES] = {2, 2, 2};
    struct class_queue q;

    assert_int_equal(class_queue_init(&q, N_CLASSES, bounds, N_ITEMS), 0);
    assert_int_equal(class_queue_push(&q, 1, 5), CLASS_QUEUE_OK);
    assert_int_equal(pop(&q), 5);
    assert_int_equal(class_queue_push(&q, 1, 6), CLASS_QUEUE_OK);
    assert_int_equal(class_queue_push(&q, 1, 7), CLASS_QUEUE_OK);
    class_queue_push_front(&q, 1, 5);
    assert_int_equal(class_queue_length(&q, 1), 3);
    assert_int_equal(class_queue_push(&q, 1, 8), CLASS_QUEUE_FULL);
    assert_int_equal(pop(&q), 5);
    assert_int_equal(pop(&q), 6);
    assert_int_equal(pop(&q), 7);
    class_queue_fini(&q);
}

static void test_blocked_class_is_passed_over(void **state)
{
    (void)state;
    const uint32_t bounds[N_CLASSES] = {2, 2, 2};
    struct class_queue q;

    assert_int_equal(class_queue_init(&q, N_CLASSES, bounds, N_ITEMS), 0);
    assert_int_equal(class_queue_push(&q, 1, 1), CLASS_QUEUE_OK);
    assert_int_equal(class_queue_push(&q, 2, 2), CLASS_QUEUE_OK);
    class_queue_set_blocked(&q, 1, true);
    assert_int_equal(class_queue_front(&q), 2);
    class_queue_set_blocked(&q, 2, true);
    assert_int_equal(class_queue_front(&q), CLASS_QUEUE_NONE);
    class_queue_set_blocked(&q, 1, false);
    assert_int_equal(class_queue_front(&q), 1);
    class_queue_fini(&q);
}

/* ---- Tenants --------------------------------------------------------------------------------- */

/* While all have items waiting, what each got follows the weights within one item of each; who comes
 * back after a pause has saved nothing up. */
static void test_tenants_share_by_weight(void **state)
{
    (void)state;
    enum { TENANTS = 3, COST = 40 };
    static const uint32_t weights[TENANTS] = {1, 2, 5}, bounds[N_CLASSES] = {1000, 1000, 1000};
    uint32_t waiting[TENANTS] = {0}, tenant_of[N_ITEMS], n_free = N_ITEMS, free_items[N_ITEMS];
    double served[TENANTS] = {0};
    struct class_queue q;

    assert_int_equal(class_queue_init(&q, N_CLASSES, bounds, N_ITEMS), 0);
    class_queue_set_tenants(&q, TENANTS, weights);
    for (uint32_t i = 0; i < N_ITEMS; i++)
        free_items[i] = i;
    for (uint32_t round = 0; round < 4000; round++) {
        for (uint32_t t = round < 2000 ? 1 : 0; t < TENANTS; t++) { /* 0 comes in the middle */
            while (waiting[t] < 2) {
                uint32_t item = free_items[--n_free];
                tenant_of[item] = t;
                waiting[t]++;
                assert_int_equal(
                    class_queue_push_for(&q, 1, t, 1 + (item * 7 + round) % COST, item),
                    CLASS_QUEUE_OK);
            }
        }
        uint32_t item = class_queue_front(&q), t = tenant_of[item];
        assert_int_equal(class_queue_head(&q, 1, t), item);
        served[t] += q.links[item].cost;
        class_queue_serve(&q, item);
        waiting[t]--;
        free_items[n_free++] = item;
        if (round == 1999) {
            assert_true(served[1] / 2 - served[2] / 5 < COST &&
                        served[2] / 5 - served[1] / 2 < COST);
            memset(served, 0, sizeof served);
        }
        for (uint32_t k = 0; round > 2000 && k + 1 < TENANTS; k++) {
            double ahead = served[k] / weights[k] - served[k + 1] / weights[k + 1];
            assert_true(ahead < 2 * COST && -ahead < 2 * COST);
        }
    }
    class_queue_fini(&q);
}

/* A queue that one tenant has filled still takes the others' shares of the bound. */
static void test_no_tenant_fills_the_queue_for_the_others(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 3}, bounds[N_CLASSES] = {4, 4, 4};
    struct class_queue q;

    assert_int_equal(class_queue_init(&q, N_CLASSES, bounds, N_ITEMS), 0);
    class_queue_set_tenants(&q, 2, weights);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(class_queue_push_for(&q, 0, 0, 1, i), CLASS_QUEUE_OK);
    assert_int_equal(class_queue_push_for(&q, 0, 0, 1, 4), CLASS_QUEUE_FULL);
    for (uint32_t i = 4; i < 7; i++)
        assert_int_equal(class_queue_push_for(&q, 0, 1, 1, i), CLASS_QUEUE_OK);
    assert_int_equal(class_queue_push_for(&q, 0, 1, 1, 7), CLASS_QUEUE_FULL);
    class_queue_fini(&q);
}

/* An item that was sent back has cost nothing, and is its tenant's first again. */
static void test_what_comes_back_was_not_served(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1}, bounds[N_CLASSES] = {9, 9, 9};
    struct class_queue q;

    assert_int_equal(class_queue_init(&q, N_CLASSES, bounds, N_ITEMS), 0);
    class_queue_set_tenants(&q, 2, weights);
    for (uint32_t i = 0; i < 4; i++)
        class_queue_push_for(&q, 0, i % 2, 100, i);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(class_queue_front(&q), 0);
        class_queue_serve(&q, 0);
        assert_int_equal(class_queue_front(&q), 1); /* the other's turn */
        class_queue_push_front(&q, 0, 0);
    }
    assert_true(class_queue_remove(&q, 0)); /* cancelled: nothing was had either */
    assert_int_equal(class_queue_front(&q), 2);
    class_queue_fini(&q);
}

/* The model: an array per class. */
struct plain {
    uint32_t n[N_CLASSES], items[N_CLASSES][N_ITEMS];
};

static void plain_insert(struct plain *p, uint32_t c, uint32_t at, uint32_t item)
{
    memmove(&p->items[c][at + 1], &p->items[c][at], (p->n[c] - at) * sizeof(uint32_t));
    p->items[c][at] = item;
    p->n[c]++;
}

static bool plain_remove(struct plain *p, uint32_t item)
{
    for (uint32_t c = 0; c < N_CLASSES; c++) {
        for (uint32_t i = 0; i < p->n[c]; i++) {
            if (p->items[c][i] != item)
                continue;
            p->n[c]--;
            memmove(&p->items[c][i], &p->items[c][i + 1], (p->n[c] - i) * sizeof(uint32_t));
            return true;
        }
    }
    return false;
}

static uint32_t plain_front(const struct plain *p)
{
    for (uint32_t c = 0; c < N_CLASSES; c++) {
        if (p->n[c] > 0)
            return p->items[c][0];
    }
    return CLASS_QUEUE_NONE;
}

static void test_random_walk_equals_model(void **state)
{
    (void)state;
    const uint32_t bounds[N_CLASSES] = {8, 12, 10};
    struct class_queue q;
    struct plain model = {0};
    uint32_t seed = 7;

    assert_int_equal(class_queue_init(&q, N_CLASSES, bounds, N_ITEMS), 0);
    for (int step = 0; step < 20000; step++) {
        seed = seed * 1664525u + 1013904223u;
        const uint32_t item = (seed >> 8) % N_ITEMS;
        const uint32_t c = (seed >> 20) % N_CLASSES;
        const uint32_t verb = (seed >> 24) % 4;

        if (verb == 3) {
            assert_int_equal(class_queue_remove(&q, item), plain_remove(&model, item));
        } else {
            /* Move the item: it may wait once only. */
            class_queue_remove(&q, item);
            plain_remove(&model, item);
            if (verb == 2 && model.n[c] < bounds[c]) {
                class_queue_push_front(&q, c, item);
                plain_insert(&model, c, 0, item);
            } else if (class_queue_push(&q, c, item) == CLASS_QUEUE_OK) {
                assert_true(model.n[c] < bounds[c]);
                plain_insert(&model, c, model.n[c], item);
            } else {
                assert_int_equal(model.n[c], bounds[c]);
            }
        }
        for (uint32_t k = 0; k < N_CLASSES; k++)
            assert_int_equal(class_queue_length(&q, k), model.n[k]);
        assert_int_equal(class_queue_front(&q), plain_front(&model));
    }
    while (plain_front(&model) != CLASS_QUEUE_NONE) {
        assert_int_equal(class_queue_front(&q), plain_front(&model));
        plain_remove(&model, pop(&q));
    }
    assert_int_equal(class_queue_front(&q), CLASS_QUEUE_NONE);
    class_queue_fini(&q);
}

static void test_bad_sizes_are_refused(void **state)
{
    (void)state;
    const uint32_t bounds[CLASS_QUEUE_CLASSES_MAX + 1] = {0};
    struct class_queue q;

    assert_int_equal(class_queue_init(&q, 0, bounds, 1), -EINVAL);
    assert_int_equal(class_queue_init(&q, CLASS_QUEUE_CLASSES_MAX + 1, bounds, 1), -EINVAL);
    assert_int_equal(class_queue_init(&q, 1, bounds, 0), -EINVAL);
    class_queue_fini(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_classes_in_order),
        cmocka_unit_test(test_bounds_are_per_class),
        cmocka_unit_test(test_returned_item_goes_first_even_when_full),
        cmocka_unit_test(test_blocked_class_is_passed_over),
        cmocka_unit_test(test_random_walk_equals_model),
        cmocka_unit_test(test_tenants_share_by_weight),
        cmocka_unit_test(test_no_tenant_fills_the_queue_for_the_others),
        cmocka_unit_test(test_what_comes_back_was_not_served),
        cmocka_unit_test(test_bad_sizes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
