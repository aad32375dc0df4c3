/* Row operations: right against float64 within a stated error, the same bits on every instruction
 * set, tails, ties, and the instruction set's own choice. */
#include <errno.h>
#include <math.h>

#include "common/compute/ops.h"
#include "tests/unit/compute_common.h"

static const uint32_t widths[] = {1, 7, 16, 17, 64, 576, 1531};

/* |got - want| <= bound * (1 + |want|). */
static void assert_close(const float *got, const double *want, uint32_t n, double bound)
{
    for (uint32_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= bound * (1.0 + fabs(want[i]))))
            fail_msg("element %u of %u: %.9g, expected %.9g", i, n, (double)got[i], want[i]);
}

/* Runs `apply` on every instruction set: equal bits, and close to `want`. */
typedef void apply_fn(enum isa isa, float *y, const float *a, const float *b, uint32_t n);

static void check(apply_fn *apply, const float *a, const float *b, uint32_t n, const double *want,
                  double bound)
{
    float *first = calloc(n, sizeof *first), *y = calloc(n, sizeof *y);

    assert_non_null(first);
    assert_non_null(y);
    apply(ISA_REF, first, a, b, n);
    assert_close(first, want, n, bound);
    for (enum isa isa = ISA_AVX2; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa))
            continue;
        apply(isa, y, a, b, n);
        assert_same_bits(y, first, n, isa_name(isa));
    }
    free(first);
    free(y);
}

static void apply_rmsnorm(enum isa isa, float *y, const float *a, const float *b, uint32_t n)
{
    ops_rmsnorm(isa, y, a, b, n, 1e-5f);
}

static void apply_silu_mul(enum isa isa, float *y, const float *a, const float *b, uint32_t n)
{
    ops_silu_mul(isa, y, a, b, n);
}

static void apply_add(enum isa isa, float *y, const float *a, const float *b, uint32_t n)
{
    memcpy(y, b, n * sizeof *y);
    ops_add(isa, y, a, n);
}

static void apply_softmax(enum isa isa, float *y, const float *a, const float *b, uint32_t n)
{
    (void)b;
    memcpy(y, a, n * sizeof *y);
    ops_softmax(isa, y, n);
}

/* The error bounds: a sum of n squares in 16 chains and a tree, then a handful of roundings; the
 * exponential is good to 2 ulp. */
static void check_width(uint64_t *rng, uint32_t n)
{
    float *a = random_floats(rng, n), *b = random_floats(rng, n);
    double *want = calloc(n, sizeof *want), squares = 0, sum = 0, top = -1e9;

    assert_non_null(want);
    for (uint32_t i = 0; i < n; i++) {
        a[i] *= 8.0f;
        squares += (double)a[i] * (double)a[i];
        top = fmax(top, (double)a[i]);
    }
    for (uint32_t i = 0; i < n; i++)
        want[i] = (double)a[i] / sqrt(squares / n + 1e-5) * (double)b[i];
    check(apply_rmsnorm, a, b, n, want, 2e-6);
    for (uint32_t i = 0; i < n; i++)
        want[i] = (double)a[i] / (1 + exp(-(double)a[i])) * (double)b[i];
    check(apply_silu_mul, a, b, n, want, 1e-6);
    for (uint32_t i = 0; i < n; i++)
        want[i] = (double)a[i] + (double)b[i];
    check(apply_add, a, b, n, want, 1e-7);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)a[i] - top);
    for (uint32_t i = 0; i < n; i++)
        want[i] = exp((double)a[i] - top) / sum;
    check(apply_softmax, a, b, n, want, 1e-6);
    free(a);
    free(b);
    free(want);
}

static void test_against_float64(void **state)
{
    uint64_t rng = 1;

    (void)state;
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        check_width(&rng, widths[i]);
}

/* An element's bits do not depend on the row's length behind it, except through the sums. */
static void test_silu_of_extremes(void **state)
{
    const float gate[6] = {-200.0f, -88.0f, 0.0f, 88.0f, 200.0f, -INFINITY};
    const float up[6] = {1, 1, 1, 1, 1, 1};
    float y[6];

    (void)state;
    for (enum isa isa = ISA_REF; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa))
            continue;
        ops_silu_mul(isa, y, gate, up, 6);
        assert_true(fabsf(y[0]) < 1e-30f && fabsf(y[1]) < 1e-30f);
        assert_true(y[2] == 0.0f && y[3] == 88.0f && y[4] == 200.0f);
        assert_false(y[5] > 0.0f); /* -inf / large: -inf, as -inf * sigmoid is undefined */
    }
}

static void test_norm_without_weight_in_place(void **state)
{
    uint64_t rng = 2;
    float *x = random_floats(&rng, 100), ones[100], y[100];

    (void)state;
    for (int i = 0; i < 100; i++)
        ones[i] = 1.0f;
    ops_rmsnorm(ISA_REF, y, x, ones, 100, 1e-6f);
    ops_rmsnorm(ISA_REF, x, x, NULL, 100, 1e-6f);
    assert_same_bits(x, y, 100, "in place");
    free(x);
}

static void test_argmax_and_top_k(void **state)
{
    const float x[8] = {1, 5, NAN, 5, -2, 7, 7, 0}, nans[3] = {NAN, NAN, NAN};
    const uint32_t order[8] = {5, 6, 1, 3, 0, 7, 4, 2};
    uint32_t idx[8];

    (void)state;
    assert_int_equal(ops_argmax(x, 8), 5);
    assert_int_equal(ops_argmax(x, 5), 1);
    assert_int_equal(ops_argmax(x + 2, 2), 1);
    assert_int_equal(ops_argmax(nans, 3), 0);
    for (uint32_t k = 0; k <= 8; k++) {
        ops_top_k(x, 8, k, idx);
        for (uint32_t i = 0; i < k; i++)
            assert_int_equal(idx[i], order[i]);
    }
    ops_top_k(nans, 3, 2, idx);
    assert_int_equal(idx[0], 0);
    assert_int_equal(idx[1], 1);
}

/* Against complex rotation in double; both styles; elements beyond n_dims stay. */
static void check_rope(enum rope_pairing style, uint32_t n_dims, uint32_t head_dim, uint32_t pos)
{
    enum { HEADS = 3 };
    uint64_t rng = 3;
    float *x = random_floats(&rng, HEADS * head_dim), *y = random_floats(&rng, HEADS * head_dim);
    float angles[ROPE_DIMS_MAX];
    struct rope rope;

    assert_int_equal(rope_init(&rope, style, n_dims, 10000.0, 1.0, NULL), 0);
    rope_angles(&rope, pos, angles);
    memcpy(y, x, HEADS * head_dim * sizeof *x);
    rope_apply(&rope, angles, y, HEADS, head_dim);
    for (uint32_t h = 0; h < HEADS; h++) {
        for (uint32_t i = 0; i < n_dims / 2; i++) {
            uint32_t a = h * head_dim + (style == ROPE_PAIRS ? 2 * i : i);
            uint32_t b = a + (style == ROPE_PAIRS ? 1 : n_dims / 2);
            double t = pos * pow(10000.0, -2.0 * i / n_dims);
            double want[2] = {(double)x[a] * cos(t) - (double)x[b] * sin(t),
                              (double)x[a] * sin(t) + (double)x[b] * cos(t)};
            float got[2] = {y[a], y[b]};

            assert_close(got, want, 2, 5e-7);
        }
        assert_same_bits(y + h * head_dim + n_dims, x + h * head_dim + n_dims, head_dim - n_dims,
                         "elements that are not rotated");
    }
    free(x);
    free(y);
}

static void test_rope(void **state)
{
    struct rope rope;
    float factors[2] = {1.0f, 4.0f};

    (void)state;
    for (uint32_t pos = 0; pos < 100000; pos = pos * 7 + 1) {
        check_rope(ROPE_PAIRS, 64, 64, pos);
        check_rope(ROPE_HALVES, 64, 64, pos);
        check_rope(ROPE_PAIRS, 6, 8, pos);
        check_rope(ROPE_HALVES, 24, 80, pos);
    }
    assert_int_equal(rope_init(&rope, ROPE_PAIRS, 4, 100.0, 0.5, factors), 0);
    assert_true(rope.inv_freq[0] == 0.5 && fabs(rope.inv_freq[1] - 0.5 * 0.1 / 4) < 1e-12);
    assert_int_equal(rope_init(&rope, ROPE_PAIRS, 3, 100.0, 1, NULL), -EINVAL);
    assert_int_equal(rope_init(&rope, ROPE_PAIRS, 0, 100.0, 1, NULL), -EINVAL);
    assert_int_equal(rope_init(&rope, ROPE_PAIRS, ROPE_DIMS_MAX + 2, 100.0, 1, NULL), -EINVAL);
    assert_int_equal(rope_init(&rope, ROPE_PAIRS, 4, NAN, 1, NULL), -EINVAL);
    assert_int_equal(rope_init(&rope, ROPE_PAIRS, 4, 100, 0, NULL), -EINVAL);
}

static void test_isa_choice(void **state)
{
    enum isa isa, best = isa_best();
    struct error why;

    (void)state;
    assert_true(isa_supported(best) && best != ISA_AMX && best != ISA_AVX512FP16);
    assert_int_equal(unsetenv("OMNI_ISA"), 0);
    assert_int_equal(isa_detect(&isa), 0);
    assert_int_equal(isa, best);
    for (enum isa i = ISA_REF; i < ISA_COUNT; i++) {
        assert_int_equal(setenv("OMNI_ISA", isa_name(i), 1), 0);
        assert_int_equal(isa_detect(&isa), isa_supported(i) ? 0 : -ENOTSUP);
        assert_int_equal(isa, isa_supported(i) ? i : best);
    }
    setenv("OMNI_ISA", "sse9", 1);
    assert_int_equal(isa_detect(&isa), -EINVAL);
    assert_int_equal(isa_explain(-EINVAL, &why), -EINVAL);
    assert_non_null(strstr(why.text, "OMNI_ISA=sse9"));
    assert_non_null(strstr(why.text, isa_name(best)));
    unsetenv("OMNI_ISA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_float64),
        cmocka_unit_test(test_silu_of_extremes),
        cmocka_unit_test(test_norm_without_weight_in_place),
        cmocka_unit_test(test_argmax_and_top_k),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_isa_choice),
    };

    return cmocka_run_group_tests_name("ops", tests, NULL, NULL);
}
