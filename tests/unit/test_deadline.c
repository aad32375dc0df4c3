/* The deadline of a job follows how late its sweep is. */
#include "gpu-engine/device/deadline.h"
#include "tests/unit/cmocka_all.h"

static const uint64_t arrival[4] = {10, 30, 50, 70}, own[4] = {5, 25, 45, 65};

static void test_without_a_projection_it_is_the_prediction(void **state)
{
    (void)state;
    const struct device_layer_log layer[4] = {{.proj_ns = 0}};

    for (uint32_t l = 0; l < 4; l++)
        assert_int_equal(deadline_ns(1000, layer, arrival, arrival, l), 1000 + arrival[l]);
}

static void test_a_late_sweep_moves_it_back_an_early_one_forth(void **state)
{
    (void)state;
    const struct device_layer_log late[4] = {{.proj_ns = 1013}, {.proj_ns = 1037}},
                                  early[4] = {{.proj_ns = 1009}, {.proj_ns = 1026}};

    assert_int_equal(deadline_ns(1000, late, arrival, arrival, 0), 1010);
    assert_int_equal(deadline_ns(1000, late, arrival, arrival, 1), 1033);
    assert_int_equal(deadline_ns(1000, late, arrival, arrival, 2), 1057);
    assert_int_equal(deadline_ns(1000, early, arrival, arrival, 2), 1046);
}

/* Batch B posts jobs of a layer before A's projection of the one before is reached. */
static void test_the_last_projection_reached_counts(void **state)
{
    (void)state;
    const struct device_layer_log layer[4] = {{.proj_ns = 1013}, {.proj_ns = 1037}};

    assert_int_equal(deadline_ns(1000, layer, arrival, own, 3), 1000 + 65 + 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_projection_it_is_the_prediction),
        cmocka_unit_test(test_a_late_sweep_moves_it_back_an_early_one_forth),
        cmocka_unit_test(test_the_last_projection_reached_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
