/* test_gpu_shim.c - the shim catches planted mistakes, and finds none where there is none.
 *
 * A race counts as caught when some order or landing gives an error or another result than the right
 * kernel's, which is computed here and not taken from the shim. */
#include "gpu-engine/device/cuda/element.h"
#include "tests/gpu/shim/planted.h"
#include "tests/gpu/shim/shim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { THREADS = 64, WORDS = 8 * THREADS, N_SCHEDULES = SHIM_ORDERS * SHIM_LANDINGS };

static uint32_t in[WORDS];

static void set_schedule(int i)
{
    shim_set_schedule((struct shim_schedule){.order = (enum shim_order)(i / SHIM_LANDINGS),
                                             .landing = (enum shim_landing)(i % SHIM_LANDINGS),
                                             .seed = 3});
}

static void expect(uint32_t *out, enum planted planted)
{
    for (uint32_t i = 0; i < WORDS; i++)
        in[i] = 1000 + i * i;
    for (uint32_t t = 0; t < THREADS; t++) {
        if (planted < PLANTED_DEADLOCK)
            out[t] = in[(t + 3) % THREADS] + 3;
        else if (planted < PLANTED_NO_WAIT)
            out[t] = in[t ^ 1];
        for (uint32_t i = 0; planted >= PLANTED_NO_WAIT && i < 4; i++) {
            uint32_t other = 4 * ((t + 1) % THREADS) + i;
            out[4 * t + i] = in[other] + in[4 * THREADS + other];
        }
    }
}

/* In how many schedules a mistake shows; the last error is left in shim_error(). */
static int n_caught(enum planted planted)
{
    int n = 0;

    for (int i = 0; i < N_SCHEDULES; i++) {
        uint32_t want[WORDS / 2] = {0}, out[WORDS / 2] = {0};
        expect(want, planted);
        set_schedule(i);
        n += planted_words(out, in, planted) != 0 || memcmp(out, want, sizeof want) != 0;
    }
    return n;
}

static void test_nothing_planted(void **state)
{
    (void)state;
    assert_int_equal(n_caught(PLANTED_NOTHING_BARRIER), 0);
    assert_int_equal(n_caught(PLANTED_NOTHING_COPY), 0);
}

#ifndef SHIM_TEST_TSAN /* there these are reported as races, which ends the program: see CMake */
static void test_missing_barriers(void **state)
{
    (void)state;
    assert_true(n_caught(PLANTED_NO_BARRIER) > 0);
    assert_true(n_caught(PLANTED_NO_SECOND_BARRIER) > 0);
}

static void test_missing_waits(void **state)
{
    (void)state;
    assert_true(n_caught(PLANTED_NO_WAIT) > 0);
    assert_true(n_caught(PLANTED_SHORT_WAIT) > 0);
    assert_true(n_caught(PLANTED_EARLY_STAGE) > 0);
}
#endif

static void test_copies_never_waited_for(void **state)
{
    (void)state;
    assert_int_equal(n_caught(PLANTED_NEVER_WAITED), N_SCHEDULES);
    assert_non_null(strstr(shim_error(), "never waited"));
}

static void test_deadlock_is_reported(void **state)
{
    (void)state;
    assert_int_equal(n_caught(PLANTED_DEADLOCK), N_SCHEDULES);
    assert_non_null(strstr(shim_error(), "deadlock"));
    assert_int_equal(n_caught(PLANTED_DIVERGED), N_SCHEDULES);
    assert_non_null(strstr(shim_error(), "different instructions"));
}

static void test_endless_wait_is_ended(void **state)
{
    uint32_t out[WORDS / 2], zeros[WORDS] = {0};
    (void)state;
    shim_set_schedule((struct shim_schedule){.limit_ms = 100});
    assert_int_not_equal(planted_words(out, zeros, PLANTED_ENDLESS), 0);
    assert_non_null(strstr(shim_error(), "limit"));
}

/* Whether a product of small integers, exact in bf16 and float, comes out right. */
static int product_is_right(enum planted planted)
{
    uint16_t a[16][16], b[8][16];
    float out[16][8], want[16][8] = {{0}};

    for (int i = 0; i < 16 * 16; i++)
        a[i / 16][i % 16] = element_from_float(KV_TYPE_BF16, (float)(i * 7 % 13 - 6));
    for (int i = 0; i < 8 * 16; i++)
        b[i / 16][i % 16] = element_from_float(KV_TYPE_BF16, (float)(i * 5 % 11 - 5));
    for (int i = 0; i < 16 * 8 * 16; i++)
        want[i / 128][i / 16 % 8] += element_to_float(KV_TYPE_BF16, a[i / 128][i % 16]) *
                                     element_to_float(KV_TYPE_BF16, b[i / 16 % 8][i % 16]);
    set_schedule(0);
    assert_int_equal(planted_product(&out[0][0], &a[0][0], &b[0][0], planted), 0);
    return memcmp(out, want, sizeof out) == 0;
}

static void test_register_layouts(void **state)
{
    (void)state;
    assert_true(product_is_right(PLANTED_NOTHING_PRODUCT));
    assert_false(product_is_right(PLANTED_LAYOUT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_planted),
#ifndef SHIM_TEST_TSAN
        cmocka_unit_test(test_missing_barriers),        cmocka_unit_test(test_missing_waits),
#endif
        cmocka_unit_test(test_copies_never_waited_for), cmocka_unit_test(test_deadlock_is_reported),
        cmocka_unit_test(test_endless_wait_is_ended),   cmocka_unit_test(test_register_layouts),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    shim_fini();
    return rc;
}
