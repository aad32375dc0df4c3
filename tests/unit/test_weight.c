#include "model_test.h"

#include <math.h>
#include <stdlib.h>

static void test_q8_0_formula(void **state)
{
    struct weight_q8_0 b = {.d = float_to_half(0.3f)};
    float out[WEIGHT_BLOCK];

    (void)state;
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        b.q[i] = (int8_t)(i * 8 - 128);
    weight_dequant_q8_0(&b, out);
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        assert_true(out[i] == half_to_float(b.d) * (float)(i * 8 - 128));
}

/* Low nibbles first; product, then sum.  The product is exact, so kernels may fuse the two. */
static void test_q4_1_formula(void **state)
{
    struct weight_q4_1 b = {.d = float_to_half(0.1f), .m = float_to_half(-777.0f)};
    const float d = half_to_float(b.d), m = half_to_float(b.m);
    float out[WEIGHT_BLOCK];

    (void)state;
    for (int i = 0; i < WEIGHT_BLOCK / 2; i++)
        b.q[i] = (uint8_t)(i | (15 - i) << 4);
    weight_dequant_q4_1(&b, out);
    for (int i = 0; i < WEIGHT_BLOCK; i++) {
        const float q = (float)(i < 16 ? i : 31 - i);
        const volatile float product = d * q;

        assert_true(out[i] == product + m);
        assert_true(out[i] == fmaf(d, q, m));
    }
}

static void fill(float *x, size_t n)
{
    uint64_t s = 1;

    for (size_t i = 0; i < n; i++) {
        s = s * UINT64_C(6364136223846793005) + 1;
        x[i] = (float)(int32_t)(s >> 32) * 0x1p-31f;
    }
}

/* Encoding and decoding stays within half a step (and the rounding of the scale) of the input. */
static void test_quantize_error(void **state)
{
    static const double bound[WEIGHT_TYPES] = {0, 0x1p-11, 0.5 / 127 + 0x1p-10, 1.0 / 15 + 0x1p-9};
    float in[96], out[96];
    unsigned char row[96 * 4];

    (void)state;
    fill(in, 96);
    for (int type = 0; type < WEIGHT_TYPES; type++) {
        const struct weight_view w = {.type = (enum weight_type)type,
                                      .n_slices = 1,
                                      .n_rows = 1,
                                      .n_cols = 96,
                                      .row_bytes = weight_row_bytes((enum weight_type)type, 96),
                                      .data = row};
        double largest = 0;

        weight_quantize_row(w.type, in, 96, row);
        weight_dequant_row_ref(&w, 0, out);
        for (int i = 0; i < 96; i++)
            largest = fmax(largest, fabs((double)out[i] - (double)in[i]));
        assert_true(largest <= bound[type]);
    }
}

static void test_constant_blocks(void **state)
{
    float in[WEIGHT_BLOCK], out[WEIGHT_BLOCK];
    struct weight_q4_1 q4;
    struct weight_q8_0 q8;

    (void)state;
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        in[i] = 0.5f;
    weight_quantize_row(WEIGHT_Q4_1, in, WEIGHT_BLOCK, &q4);
    weight_dequant_q4_1(&q4, out);
    assert_true(out[0] == 0.5f && out[31] == 0.5f);
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        in[i] = 0;
    weight_quantize_row(WEIGHT_Q8_0, in, WEIGHT_BLOCK, &q8);
    weight_dequant_q8_0(&q8, out);
    assert_true(out[0] == 0 && out[31] == 0);
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(weight_row_bytes(WEIGHT_F32, 64), 256);
    assert_int_equal(weight_row_bytes(WEIGHT_F16, 64), 128);
    assert_int_equal(weight_row_bytes(WEIGHT_Q8_0, 64), 68);
    assert_int_equal(weight_row_bytes(WEIGHT_Q4_1, 64), 40);
    assert_string_equal(weight_type_name(WEIGHT_Q4_1), "Q4_1");
}

static void test_slices(void **state)
{
    float data[3][2][4], out[4];
    const struct weight_view w = {.type = WEIGHT_F32,
                                  .n_slices = 3,
                                  .n_rows = 2,
                                  .n_cols = 4,
                                  .row_bytes = 16,
                                  .slice_bytes = 32,
                                  .data = data};

    (void)state;
    for (int i = 0; i < 24; i++)
        ((float *)data)[i] = (float)i;
    for (uint32_t e = 0; e < 3; e++) {
        const struct weight_view s = weight_slice(&w, e);

        assert_int_equal(s.n_slices, 1);
        weight_dequant_row_ref(&s, 1, out);
        assert_true(out[0] == (float)(e * 8 + 4) && out[3] == (float)(e * 8 + 7));
    }
    assert_int_equal(weight_bytes(&w), sizeof(data));
}

/* Two ranks' shares of a quantised matrix, row for row. */
static void test_row_split(void **state)
{
    const struct model_random_options o = model_random_defaults();
    struct model *m = model_test_open_random(&o);
    const struct weight_view *w = &m->output;
    float whole[64], part[64];

    (void)state;
    for (uint64_t row = 0; row < w->n_rows; row++) {
        const uint64_t half = w->n_rows / 2, rank = row / half;
        const struct weight_view share = weight_rows(w, rank * half, half);

        weight_dequant_row_ref(w, row, whole);
        weight_dequant_row_ref(&share, row - rank * half, part);
        assert_memory_equal(whole, part, sizeof(whole));
    }
    model_close(m);
}

static struct model *open_typed(enum weight_type type)
{
    struct model_random_options o = model_random_defaults();

    o.mixed = false;
    o.type = type;
    o.embd_type = type;
    return model_test_open_random(&o);
}

/* One tensor as F32 and as Q8_0 view of two files: same shape, values apart by rounding alone, and
 * the consumer's code is the same. */
static void test_same_tensor_two_types(void **state)
{
    struct model *a = open_typed(WEIGHT_F32), *b = open_typed(WEIGHT_Q8_0);
    const struct weight_view *wa = &a->layers[1].attn_q, *wb = &b->layers[1].attn_q;
    float x[64], y[64];

    (void)state;
    assert_int_equal(wa->type, WEIGHT_F32);
    assert_int_equal(wb->type, WEIGHT_Q8_0);
    assert_int_equal(wa->n_rows, wb->n_rows);
    assert_int_equal(wa->n_cols, 64);
    for (uint64_t row = 0; row < wa->n_rows; row++) {
        float largest = 0;

        weight_dequant_row_ref(wa, row, x);
        weight_dequant_row_ref(wb, row, y);
        for (int i = 0; i < 64; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        for (int i = 0; i < 64; i++)
            assert_true(fabsf(x[i] - y[i]) <= largest / 127);
    }
    model_close(a);
    model_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_q8_0_formula),
        cmocka_unit_test(test_q4_1_formula),
        cmocka_unit_test(test_quantize_error),
        cmocka_unit_test(test_constant_blocks),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_same_tensor_two_types),
        cmocka_unit_test(test_row_split),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc;
}
