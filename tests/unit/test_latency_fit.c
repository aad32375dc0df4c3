/* Fits find planted coefficients again, also under noise; staircases are measured where they rise.
 */
#include <math.h>
#include <string.h>

#include "common/sched/latency_fit.h"
#include "near.h"

static uint64_t seed;

static double noise(double share)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return 1 + share * (2.0 * (double)(seed >> 33) / (double)(UINT64_C(1) << 31) - 1);
}

/* ---- Fits ------------------------------------------------------------------------------------ */

/* decodes x contexts, as the profile takes them. */
static uint32_t fill(struct latency_sample *samples, const double coef[3], double share)
{
    static const double g[] = {1, 2, 4, 8, 16}, ctx[] = {32, 128, 256, 1024, 4096};
    uint32_t n = 0;

    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < 5; j++) {
            struct latency_sample *s = &samples[n++];
            *s = (struct latency_sample){.x = {g[i] * ctx[j], g[i], 1}};
            s->ns = (coef[0] * s->x[0] + coef[1] * s->x[1] + coef[2]) * noise(share);
        }
    }
    return n;
}

static void test_planted_coefficients_are_found(void **state)
{
    const double planted[3] = {38.5, 410, 1300};
    struct latency_sample samples[25];
    double coef[3];

    (void)state;
    latency_fit(samples, fill(samples, planted, 0), coef);
    for (int i = 0; i < 3; i++)
        assert_near(coef[i], planted[i], 1e-6 * planted[i]);
}

static void test_noise_moves_them_little(void **state)
{
    const double planted[3] = {38.5, 410, 1300};
    struct latency_sample samples[25];
    double coef[3];

    (void)state;
    for (seed = 1; seed < 50; seed += 7) {
        latency_fit(samples, fill(samples, planted, 0.05), coef);
        assert_near(coef[0], planted[0], 0.05 * planted[0]);
        assert_near(coef[1], planted[1], 0.6 * planted[1]); /* the smallest share */
        assert_near(coef[2], planted[2], 0.4 * planted[2]);
        for (int i = 0; i < 25; i++) {
            const double *x = samples[i].x;
            double fit = coef[0] * x[0] + coef[1] * x[1] + coef[2];
            assert_near(fit / samples[i].ns, 1, 0.12);
        }
    }
}

/* The unconstrained fit has a negative term; it is dropped and the rest is fitted again. */
static void test_no_coefficient_is_negative(void **state)
{
    const double planted[3] = {10, -0.5, 0};
    struct latency_sample samples[25];
    double coef[3];

    (void)state;
    latency_fit(samples, fill(samples, planted, 0), coef);
    assert_true(coef[0] > 9.9 && coef[0] < 10);
    assert_near(coef[1], 0, 0);
    assert_true(coef[2] >= 0);
}

static void test_terms_that_cannot_be_told_apart(void **state)
{
    struct latency_sample samples[4];
    double coef[3];

    (void)state;
    for (int i = 0; i < 4; i++) /* the second term repeats the first, the third is not there */
        samples[i] = (struct latency_sample){.x = {i + 1, 2 * (i + 1), 0}, .ns = 30.0 * (i + 1)};
    latency_fit(samples, 4, coef);
    assert_near(coef[0] + 2 * coef[1], 30, 1e-9);
    assert_near(coef[2], 0, 0);
    latency_fit(samples, 1, coef); /* one sample for three terms: its own line */
    assert_near(coef[0] + 2 * coef[1], 30, 1e-9);
    latency_fit(samples, 0, coef);
    for (int i = 0; i < 3; i++)
        assert_near(coef[i], 0, 0);
}

/* ---- Staircases ------------------------------------------------------------------------------ */

static void test_steps_are_kept_in_order(void **state)
{
    struct latency_stairs s = {.n = 0};

    (void)state;
    assert_true(latency_stairs_add(&s, 64, 3));
    assert_true(latency_stairs_add(&s, 1, 1));
    assert_true(latency_stairs_add(&s, 16, 2));
    assert_true(latency_stairs_add(&s, 16, 2.5)); /* measured again */
    assert_int_equal(s.n, 3);
    assert_true(s.rows[0] == 1 && s.rows[1] == 16 && s.rows[2] == 64);
    assert_near(s.ns[1], 2.5, 0);
    for (uint32_t i = 0; s.n < LATENCY_STEPS_MAX; i++)
        assert_true(latency_stairs_add(&s, 1000 + i, 9));
    assert_false(latency_stairs_add(&s, 500, 5));
    assert_int_equal(s.n, LATENCY_STEPS_MAX);
}

static void test_smoothing_ascends_and_keeps_the_mean(void **state)
{
    struct latency_stairs s = {.n = 6, .rows = {1, 2, 3, 4, 5, 6}, .ns = {10, 30, 20, 25, 50, 40}};
    const double expected[] = {10, 25, 25, 25, 45, 45};

    (void)state;
    latency_stairs_smooth(&s);
    for (int i = 0; i < 6; i++)
        assert_near(s.ns[i], expected[i], 1e-9);
}

/* A device whose rows come in tiles of 48. */
static double tiles(uint32_t rows)
{
    return 1000.0 * ((rows + 47) / 48) + rows;
}

/* Bisection ends, and what it interpolates is right to a tile's height. */
static void test_bisection_finds_the_tiles(void **state)
{
    struct latency_stairs s = {.n = 0};
    uint32_t rows, n = 2;

    (void)state;
    latency_stairs_add(&s, 1, tiles(1));
    latency_stairs_add(&s, 512, tiles(512));
    for (; (rows = latency_stairs_next(&s, 200)) != 0; n++) {
        assert_true(n < LATENCY_STEPS_MAX);
        assert_true(latency_stairs_add(&s, rows, tiles(rows)));
    }
    assert_int_equal(s.n, n); /* no row count twice */
    assert_in_range(n, 12, LATENCY_STEPS_MAX);
    for (rows = 1; rows <= 512; rows++)
        assert_near(latency_stairs_at(&s, rows), tiles(rows), 1000);
    double off = 0;
    for (rows = 1; rows <= 512; rows++)
        off += fabs(latency_stairs_at(&s, rows) / tiles(rows) - 1) / 512;
    assert_true(off < 0.06);
}

static void test_bisection_takes_the_largest_difference_first(void **state)
{
    const struct latency_stairs s = {.n = 4, .rows = {1, 16, 32, 64}, .ns = {100, 150, 400, 500}};

    (void)state;
    assert_int_equal(latency_stairs_next(&s, 10), 24);
    assert_int_equal(latency_stairs_next(&s, 250), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted_coefficients_are_found),
        cmocka_unit_test(test_noise_moves_them_little),
        cmocka_unit_test(test_no_coefficient_is_negative),
        cmocka_unit_test(test_terms_that_cannot_be_told_apart),
        cmocka_unit_test(test_steps_are_kept_in_order),
        cmocka_unit_test(test_smoothing_ascends_and_keeps_the_mean),
        cmocka_unit_test(test_bisection_finds_the_tiles),
        cmocka_unit_test(test_bisection_takes_the_largest_difference_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
