/* Running accuracy: mean and quantile of the last 1,024, against sorting them. */
#include <stdlib.h>
#include <string.h>

#include "common/sched/accuracy.h"
#include "near.h"

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x < y) - (x > y);
}

static void test_nothing_yet(void **state)
{
    static struct accuracy a;

    (void)state;
    assert_near(accuracy_mean(&a), 0, 0);
    assert_near(accuracy_reached_by(&a, 0.9), 0, 0);
}

static void test_what_ninety_percent_reach(void **state)
{
    static struct accuracy a;

    (void)state;
    for (int i = 1; i <= 10; i++)
        accuracy_add(&a, 0.1 * i);
    assert_near(accuracy_mean(&a), 0.55, 0.001);
    assert_near(accuracy_reached_by(&a, 0.9), 0.2, 0.0011);
    assert_near(accuracy_reached_by(&a, 0.1), 1, 0.0011);
    accuracy_add(&a, -3); /* cut to 0 */
    accuracy_add(&a, 7);  /* cut to 1 */
    assert_near(accuracy_mean(&a), 6.5 / 12, 0.001);
}

/* Three windows full of values that drift: only the last window counts. */
static void test_only_the_window_counts(void **state)
{
    static struct accuracy a;
    static double last[ACCURACY_WINDOW];
    double sum = 0;

    (void)state;
    for (uint32_t i = 0; i < 3 * ACCURACY_WINDOW; i++) {
        double value = (double)(i * 7919 % 1000) / 1000 * (1 + i / 1500) / 3;
        last[i % ACCURACY_WINDOW] = value;
        accuracy_add(&a, value);
    }
    for (uint32_t i = 0; i < ACCURACY_WINDOW; i++)
        sum += last[i];
    qsort(last, ACCURACY_WINDOW, sizeof *last, descending);
    assert_int_equal(a.n, ACCURACY_WINDOW);
    assert_near(accuracy_mean(&a), sum / ACCURACY_WINDOW, 0.0011);
    assert_near(accuracy_reached_by(&a, 0.9), last[ACCURACY_WINDOW * 9 / 10], 0.002);
    assert_near(accuracy_reached_by(&a, 0.5), last[ACCURACY_WINDOW / 2], 0.002);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_yet),
        cmocka_unit_test(test_what_ninety_percent_reach),
        cmocka_unit_test(test_only_the_window_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
