/* Predicted arrivals: exact for a sweep like the last ones, and following a change. */
#include "cmocka_all.h"
#include "common/sched/arrival.h"

enum { N_LAYERS = 3, START = 1000, HEAD = 50, DENSE = 20 };

/* A sweep: HEAD, then per layer `attention` and DENSE. */
static void observe(struct arrival_model *m, uint64_t attention, uint64_t kv_tokens)
{
    struct arrival_layer layers[N_LAYERS];
    uint64_t at = START + HEAD;

    for (uint32_t l = 0; l < N_LAYERS; l++) {
        layers[l].jobs_ns = at;
        layers[l].proj_ns = at + attention;
        at += attention + DENSE;
    }
    arrival_observe(m, START, layers, kv_tokens);
}

static void assert_predicts(const struct arrival_model *m, uint64_t kv_tokens, uint64_t attention)
{
    uint64_t arrival[N_LAYERS], at = HEAD;

    arrival_predict(m, kv_tokens, arrival);
    for (uint32_t l = 0; l < N_LAYERS; l++) {
        at += attention;
        assert_in_range(arrival[l] + 1, at, at + 2); /* rounding */
        at += DENSE;
    }
}

static void test_nothing_is_known_at_first(void **state)
{
    (void)state;
    struct arrival_model m;
    uint64_t arrival[N_LAYERS] = {1, 1, 1};

    arrival_init(&m, N_LAYERS);
    arrival_predict(&m, 1000, arrival);
    for (uint32_t l = 0; l < N_LAYERS; l++)
        assert_int_equal(arrival[l], 0);
}

static void test_a_steady_load_is_predicted(void **state)
{
    (void)state;
    struct arrival_model m;

    arrival_init(&m, N_LAYERS);
    for (int i = 0; i < 5; i++)
        observe(&m, 100, 10);
    assert_predicts(&m, 10, 100);
}

static void test_attention_grows_with_the_context(void **state)
{
    (void)state;
    struct arrival_model m;

    arrival_init(&m, N_LAYERS);
    observe(&m, 100, 10);
    for (int i = 0; i < 100; i++)
        observe(&m, 100 + 2 * 1000, 1000); /* two per KV token */
    assert_predicts(&m, 1000, 2100);
    assert_predicts(&m, 500, 1100);
}

static void test_a_change_is_followed_and_one_slow_sweep_is_not(void **state)
{
    (void)state;
    struct arrival_model m;
    uint64_t arrival[N_LAYERS];

    arrival_init(&m, N_LAYERS);
    for (int i = 0; i < 5; i++)
        observe(&m, 100, 10);
    observe(&m, 900, 10);
    arrival_predict(&m, 10, arrival);
    assert_in_range(arrival[0], HEAD + 100, HEAD + 300);
    for (int i = 0; i < 60; i++)
        observe(&m, 900, 10);
    assert_predicts(&m, 10, 900);
}

static void test_clocks_that_run_backwards_cost_nothing(void **state)
{
    (void)state;
    const struct arrival_layer layers[N_LAYERS] = {{500, 400}, {300, 200}, {100, 50}};
    struct arrival_model m;
    uint64_t arrival[N_LAYERS];

    arrival_init(&m, N_LAYERS);
    arrival_observe(&m, START, layers, 0);
    arrival_predict(&m, 0, arrival);
    assert_int_equal(arrival[N_LAYERS - 1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_known_at_first),
        cmocka_unit_test(test_a_steady_load_is_predicted),
        cmocka_unit_test(test_attention_grows_with_the_context),
        cmocka_unit_test(test_a_change_is_followed_and_one_slow_sweep_is_not),
        cmocka_unit_test(test_clocks_that_run_backwards_cost_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
