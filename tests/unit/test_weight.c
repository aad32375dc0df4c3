/* Weights: the values of every type against the `gguf` package (tests/golden/weights.json, made by
 * tests/tools/make_weights.py), views and their parts, and the encoder that tests use. */
#include "model_test.h"

#include "common/model/weight_block.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned nibble_of(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a' + 10);
}

/* The bytes that a string of the golden file spells. */
static unsigned char *from_hex(const json_t *text, size_t n)
{
    const char *hex = json_string_value(text);
    unsigned char *out = malloc(n);

    assert_non_null(out);
    assert_int_equal(strlen(hex), 2 * n);
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)(nibble_of(hex[2 * i]) << 4 | nibble_of(hex[2 * i + 1]));
    return out;
}

/* Value for value the same number; zeros may differ in sign. */
static void check_type(const json_t *golden)
{
    const uint32_t rows = (uint32_t)json_integer_value(json_object_get(golden, "rows"));
    const uint32_t cols = (uint32_t)json_integer_value(json_object_get(golden, "columns"));
    struct weight_view w = {.n_slices = 1, .n_rows = rows, .n_cols = cols};
    float *out = malloc(cols * sizeof(*out));
    unsigned char *blocks, *values;

    assert_true(weight_type_of_number(
        (uint32_t)json_integer_value(json_object_get(golden, "number")), &w.type));
    assert_string_equal(weight_type_name(w.type),
                        json_string_value(json_object_get(golden, "type")));
    w.row_bytes = weight_row_bytes(w.type, cols);
    blocks = from_hex(json_object_get(golden, "blocks"), w.row_bytes * rows);
    values = from_hex(json_object_get(golden, "values"), (size_t)rows * cols * 4);
    w.data = blocks;
    for (uint32_t r = 0; r < rows; r++) {
        const float *expected = (const float *)(const void *)values + (size_t)r * cols;

        weight_dequant_row_ref(&w, r, out);
        for (uint32_t i = 0; i < cols; i++)
            if (!(out[i] == expected[i]))
                fail_msg("%s row %u value %u: expected %a, found %a", weight_type_name(w.type), r,
                         i, (double)expected[i], (double)out[i]);
    }
    free(blocks);
    free(values);
    free(out);
}

static void test_values_equal_the_gguf_package(void **state)
{
    char path[PATH_BYTES];
    json_error_t error;
    const json_t *golden;
    size_t i;

    (void)state;
    snprintf(path, sizeof(path), "%s/tests/golden/weights.json", OMNI_SOURCE_DIR);
    json_t *root = json_load_file(path, 0, &error);

    assert_non_null(root);
    assert_int_equal(json_array_size(json_object_get(root, "types")), WEIGHT_TYPES);
    json_array_foreach(json_object_get(root, "types"), i, golden) check_type(golden);
    json_decref(root);
}

/* The six-bit scales of the K types, packed and unpacked. */
static void test_k_scales(void **state)
{
    uint8_t packed[12] = {0}, scale, minus;

    (void)state;
    for (uint32_t j = 0; j < 8; j++)
        weight_k_scale_set(packed, j, (uint8_t)(63 - 7 * j), (uint8_t)(5 + 8 * j));
    for (uint32_t j = 0; j < 8; j++) {
        weight_k_scale(packed, j, &scale, &minus);
        assert_int_equal(scale, 63 - 7 * j);
        assert_int_equal(minus, (5 + 8 * j) & 63);
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
    static const double bound[WEIGHT_TYPES] = {
        [WEIGHT_F32] = 0,
        [WEIGHT_F16] = 0x1p-11,
        [WEIGHT_BF16] = 0x1p-8,
        [WEIGHT_Q8_0] = 0.5 / 127 + 0x1p-10,
        [WEIGHT_Q4_0] = 0.5 / 7 + 0x1p-9,
        [WEIGHT_Q4_1] = 1.0 / 15 + 0x1p-9,
        [WEIGHT_Q5_0] = 0.5 / 15 + 0x1p-9,
        [WEIGHT_Q5_1] = 1.0 / 31 + 0x1p-9,
        [WEIGHT_Q4_K] = 1.0 / 15 + 1.0 / 63,
        [WEIGHT_Q5_K] = 1.0 / 31 + 1.0 / 63,
        [WEIGHT_Q6_K] = 0.5 / 31 + 1.0 / 127,
    };
    enum { N = WEIGHT_SUPER_BLOCK };
    float in[N], out[N];
    unsigned char row[N * 4];

    (void)state;
    fill(in, N);
    for (int type = 0; type < WEIGHT_TYPES; type++) {
        const struct weight_view w = {.type = (enum weight_type)type,
                                      .n_slices = 1,
                                      .n_rows = 1,
                                      .n_cols = N,
                                      .row_bytes = weight_row_bytes((enum weight_type)type, N),
                                      .data = row};
        double largest = 0;

        weight_quantize_row(w.type, in, N, row);
        weight_dequant_row_ref(&w, 0, out);
        for (int i = 0; i < N; i++)
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
    weight_dequant_block(WEIGHT_Q4_1, &q4, out);
    assert_true(out[0] == 0.5f && out[31] == 0.5f);
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        in[i] = 0;
    weight_quantize_row(WEIGHT_Q8_0, in, WEIGHT_BLOCK, &q8);
    weight_dequant_block(WEIGHT_Q8_0, &q8, out);
    assert_true(out[0] == 0 && out[31] == 0);
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(weight_row_bytes(WEIGHT_F32, 64), 256);
    assert_int_equal(weight_row_bytes(WEIGHT_F16, 64), 128);
    assert_int_equal(weight_row_bytes(WEIGHT_Q8_0, 64), 68);
    assert_int_equal(weight_row_bytes(WEIGHT_Q4_1, 64), 40);
    assert_int_equal(weight_row_bytes(WEIGHT_Q6_K, 512), 420);
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
        cmocka_unit_test(test_values_equal_the_gguf_package),
        cmocka_unit_test(test_k_scales),
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
