/* half.h against the definition, and against F16C where the machine has it. */
#include "model_test.h"

#include "common/base/half.h"

#include <math.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

static uint32_t bits(float f)
{
    return half_bits_from_float(f);
}

/* The value by the formula of the standard, in double, which holds all of them. */
static double by_definition(uint16_t h)
{
    const int exponent = (h >> 10) & 0x1f, mantissa = h & 0x3ff;
    const double sign = h & 0x8000 ? -1 : 1;

    if (exponent == 0x1f)
        return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, -24);
    return sign * ldexp(1024 + mantissa, exponent - 25);
}

static void test_all_halves(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float f = half_to_float((uint16_t)h);
        const double expected = by_definition((uint16_t)h);

        if (isnan(expected))
            assert_true(isnan(f));
        else
            assert_true((double)f == expected && !signbit(f) == !signbit(expected));
        /* Going back is exact; a signalling NaN becomes quiet. */
        assert_int_equal(float_to_half(f), isnan(expected) ? (h | 0x200) : h);
    }
}

/* Between each two neighbours: below, at and above the middle; ties go to the even one. */
static void test_rounding(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7bff; h++) {
        const double low = by_definition(h), high = by_definition((uint16_t)(h + 1));
        const float middle = (float)((low + high) / 2);

        assert_int_equal(float_to_half(nextafterf(middle, 0)), h);
        assert_int_equal(float_to_half(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(float_to_half(middle), h % 2 ? h + 1 : h);
        assert_int_equal(float_to_half(-middle), (h % 2 ? h + 1 : h) | 0x8000);
    }
    assert_int_equal(float_to_half(65519.996f), 0x7bff);
    assert_int_equal(float_to_half(65520.0f), 0x7c00);
    assert_int_equal(float_to_half(1e30f), 0x7c00);
    assert_int_equal(float_to_half(-INFINITY), 0xfc00);
    assert_int_equal(float_to_half(0x1p-25f), 0);
    assert_int_equal(float_to_half(1e-30f), 0);
}

#if defined(__x86_64__)
__attribute__((target("f16c"))) static void compare_f16c(void)
{
    for (uint32_t h = 0; h < 0x10000; h++)
        assert_int_equal(bits(half_to_float((uint16_t)h)), bits(_cvtsh_ss((uint16_t)h)));
    /* Every 97th float: all exponents, many mantissas, NaNs too. */
    for (uint64_t b = 0; b <= UINT32_MAX; b += 97) {
        const float f = half_float_from_bits((uint32_t)b);

        if (float_to_half(f) != (uint16_t)_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT))
            fail_msg("%08x: %04x", (unsigned)b, float_to_half(f));
    }
}
#endif

static void test_f16c(void **state)
{
    (void)state;
#if defined(__x86_64__)
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C))
        skip();
    compare_f16c();
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_halves),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_f16c),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
