/* Dense products: exact to the bit over rows, positions, threads and instruction sets; right
 * against float64; all weight types; tails. */
#include <errno.h>
#include <float.h>
#include <math.h>

#include "common/compute/dense.h"
#include "common/model/weight_block.h"
#include "tests/bench/blas_ref.h"
#include "tests/unit/compute_common.h"

struct shape {
    uint32_t n, k;
};

/* Tails of panels and of k, one output, several k pieces, several units. */
static const struct shape shapes[] = {{1, 32}, {33, 64}, {64, 576}, {200, 288}, {31, 1600}};
/* Likewise for the types whose blocks are 256 long. */
static const struct shape k_shapes[] = {{1, 256}, {33, 512}, {200, 768}, {31, 1536}};
/* k of F32, F16 and BF16 need not be a multiple of a block. */
static const struct shape odd_shapes[] = {{1, 1}, {47, 5}, {70, 259}, {32, 513}};

static struct weight_view view_make(uint64_t *rng, enum weight_type type, struct shape s)
{
    struct weight_view v = {.type = type,
                            .n_slices = 1,
                            .n_rows = s.n,
                            .n_cols = s.k,
                            .row_bytes = weight_row_bytes(type, s.k),
                            .name = "test"};
    uint8_t *data = malloc(v.row_bytes * s.n);

    assert_non_null(data);
    v.slice_bytes = v.row_bytes * s.n;
    v.data = data;
    for (uint32_t i = 0; i < s.n; i++) {
        float *row = random_floats(rng, s.k);

        weight_quantize_row(type, row, s.k, data + i * v.row_bytes);
        free(row);
    }
    return v;
}

static void view_free(struct weight_view *v)
{
    free((void *)(uintptr_t)v->data);
}

static struct dense_matrix *matrix_make(enum isa isa, const struct weight_view *v)
{
    struct dense_matrix *m;

    assert_int_equal(dense_matrix_create(&m, isa, v), 0);
    assert_int_equal(dense_matrix_outputs(m), v->n_rows);
    assert_int_equal(dense_matrix_inputs(m), v->n_cols);
    return m;
}

/* The definition, element by element: what every kernel must give to the bit. */
static void product_chain(const struct weight_view *v, const float *x, uint32_t n_rows, float *y)
{
    float *w = malloc(v->n_cols * sizeof *w);

    assert_non_null(w);
    for (uint64_t n = 0; n < v->n_rows; n++) {
        weight_dequant_row_ref(v, n, w);
        for (uint32_t r = 0; r < n_rows; r++) {
            float acc = 0.0f;

            for (uint64_t k = 0; k < v->n_cols; k++)
                acc = fmaf(x[r * v->n_cols + k], w[k], acc);
            y[r * v->n_rows + n] = acc;
        }
    }
    free(w);
}

/* Error of a chain of k roundings: at most k * eps/2 * sum |x w|, to first order. */
static void assert_near_float64(const struct weight_view *v, const float *x, uint32_t n_rows,
                                const float *y)
{
    float *w = malloc(v->n_cols * sizeof *w);

    assert_non_null(w);
    for (uint64_t n = 0; n < v->n_rows; n++) {
        weight_dequant_row_ref(v, n, w);
        for (uint32_t r = 0; r < n_rows; r++) {
            double sum = 0, magnitude = 0, got = (double)y[r * v->n_rows + n];

            for (uint64_t k = 0; k < v->n_cols; k++) {
                double term = (double)x[r * v->n_cols + k] * (double)w[k];

                sum += term;
                magnitude += fabs(term);
            }
            assert_true(fabs(got - sum) <= (double)v->n_cols * FLT_EPSILON * magnitude);
        }
    }
    free(w);
}

static void check_shape(uint64_t *rng, enum weight_type type, struct shape s)
{
    static const uint32_t row_counts[] = {1, 2, 3, 5, 8, 9, 13, 25};
    struct weight_view v = view_make(rng, type, s);
    float *x = random_floats(rng, 25 * (size_t)s.k);
    float *expected = random_floats(rng, 25 * (size_t)s.n);
    float *y = random_floats(rng, 25 * (size_t)s.n);
    struct team *team;

    assert_int_equal(team_create(&team, 1, NULL, 0), 0);
    product_chain(&v, x, 25, expected);
    assert_near_float64(&v, x, 25, expected);
    for (enum isa isa = ISA_REF; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa))
            continue;
        struct dense_matrix *m = matrix_make(isa, &v);

        for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
            char what[96];

            snprintf(what, sizeof what, "%s %s n=%u k=%u rows=%u", isa_name(isa),
                     weight_type_name(type), s.n, s.k, row_counts[i]);
            dense_apply(team, m, x, s.k, row_counts[i], y, s.n, false);
            assert_same_bits(y, expected, (size_t)row_counts[i] * s.n, what);
        }
        dense_matrix_destroy(m);
    }
    team_destroy(team);
    free(x);
    free(y);
    free(expected);
    view_free(&v);
}

static void test_every_isa_equals_the_definition(void **state)
{
    uint64_t rng = 1;

    (void)state;
    for (enum weight_type type = WEIGHT_F32; type < WEIGHT_Q4_K; type++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            check_shape(&rng, type, shapes[i]);
    for (enum weight_type type = WEIGHT_Q4_K; type < WEIGHT_TYPES; type++)
        for (size_t i = 0; i < sizeof k_shapes / sizeof k_shapes[0]; i++)
            check_shape(&rng, type, k_shapes[i]);
    for (enum weight_type type = WEIGHT_F32; type <= WEIGHT_BF16; type++)
        for (size_t i = 0; i < sizeof odd_shapes / sizeof odd_shapes[0]; i++)
            check_shape(&rng, type, odd_shapes[i]);
}

/* One row alone, then at every position of 1..64 rows, on a team of n_threads. */
static void check_positions(struct team *team, const struct dense_matrix *m, const float *row,
                            const float *alone, const float *filler)
{
    uint32_t n = dense_matrix_outputs(m), k = dense_matrix_inputs(m);
    float *x = malloc(64 * (size_t)k * sizeof *x), *y = malloc(64 * (size_t)n * sizeof *y);

    assert_non_null(x);
    assert_non_null(y);
    for (uint32_t rows = 1; rows <= 64; rows++) {
        for (uint32_t at = 0; at < rows; at++) {
            memcpy(x, filler, (size_t)rows * k * sizeof *x);
            memcpy(x + (size_t)at * k, row, k * sizeof *x);
            dense_apply(team, m, x, k, rows, y, n, false);
            assert_same_bits(y + (size_t)at * n, alone, n, "row position");
        }
    }
    free(x);
    free(y);
}

static void test_rows_and_positions(void **state)
{
    uint64_t rng = 2;

    (void)state;
    for (enum isa isa = ISA_AVX2; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa))
            continue;
        for (enum weight_type type = WEIGHT_F32; type < WEIGHT_TYPES; type++) {
            const struct shape s = {70, type < WEIGHT_Q4_K ? 96 : 256};
            struct weight_view v = view_make(&rng, type, s);
            struct dense_matrix *m = matrix_make(isa, &v);
            float *row = random_floats(&rng, s.k), *filler = random_floats(&rng, 64 * s.k);
            float *alone = random_floats(&rng, s.n);

            product_chain(&v, row, 1, alone);
            for (uint32_t n_threads = 1; n_threads <= 2; n_threads++) {
                struct team *team;

                assert_int_equal(team_create(&team, n_threads, NULL, 0), 0);
                check_positions(team, m, row, alone, filler);
                team_destroy(team);
            }
            free(row);
            free(filler);
            free(alone);
            dense_matrix_destroy(m);
            view_free(&v);
        }
    }
}

/* Any bytes but the block's f16 numbers at [from, from + n): what no quantiser would write. */
static void scramble(uint64_t *rng, struct weight_view *v, uint32_t from, uint32_t n)
{
    const uint32_t bytes = weight_block_bytes(v->type);
    uint8_t *data = (uint8_t *)(uintptr_t)v->data;

    for (uint64_t i = 0; i < v->row_bytes * v->n_rows; i++) {
        *rng = *rng * UINT64_C(6364136223846793005) + 1;
        if (i % bytes - from >= n)
            data[i] = (uint8_t)(*rng >> 56);
    }
}

/* Every bit of a block, negative scales included, against the definition. */
static void test_blocks_of_any_bytes(void **state)
{
    const struct shape s = {33, 512};
    uint64_t rng = 11;
    struct team *team;

    (void)state;
    assert_int_equal(team_create(&team, 1, NULL, 0), 0);
    for (enum weight_type type = WEIGHT_Q8_0; type < WEIGHT_TYPES; type++) {
        struct weight_view v = view_make(&rng, type, s);
        float *x = random_floats(&rng, 13 * s.k), *y = random_floats(&rng, 13 * s.n);
        float *expected = random_floats(&rng, 13 * s.n);

        scramble(&rng, &v, type == WEIGHT_Q6_K ? 208 : 0, type == WEIGHT_Q6_K ? 2 : 4);
        product_chain(&v, x, 13, expected);
        for (enum isa isa = ISA_REF; isa < ISA_COUNT; isa++) {
            if (!isa_supported(isa))
                continue;
            struct dense_matrix *m = matrix_make(isa, &v);

            for (uint32_t rows = 1; rows <= 13; rows += 12) {
                dense_apply(team, m, x, s.k, rows, y, s.n, false);
                assert_same_bits(y, expected, (size_t)rows * s.n, weight_type_name(type));
            }
            dense_matrix_destroy(m);
        }
        free(x);
        free(y);
        free(expected);
        view_free(&v);
    }
    team_destroy(team);
}

/* Three matrices of different types and shapes over one x, in one parallel region, accumulating
 * into strided y: equals three products, and touches nothing beside them. */
static void test_several_products_strided(void **state)
{
    enum { ROWS = 17, K = 320, LDY = 200, GUARD = 3 };
    const uint32_t outputs[3] = {65, 32, 190};
    const enum weight_type types[3] = {WEIGHT_Q4_1, WEIGHT_F32, WEIGHT_Q8_0};
    uint64_t rng = 3;
    float *x = random_floats(&rng, ROWS * (K + GUARD));
    float *first = random_floats(&rng, ROWS * LDY);
    struct team *team;
    struct dense_job jobs[3];
    struct weight_view views[3];
    enum isa isa;

    (void)state;
    assert_int_equal(isa_detect(&isa), 0);
    assert_int_equal(team_create(&team, 2, NULL, 0), 0);
    for (int i = 0; i < 3; i++) {
        views[i] = view_make(&rng, types[i], (struct shape){outputs[i], K});
        jobs[i] = (struct dense_job){.matrix = matrix_make(isa, &views[i]),
                                     .x = x,
                                     .ldx = K + GUARD,
                                     .ldy = LDY,
                                     .n_rows = ROWS,
                                     .accumulate = true};
        jobs[i].y = malloc(ROWS * LDY * sizeof(float));
        memcpy(jobs[i].y, first, ROWS * LDY * sizeof(float));
    }
    jobs[1].accumulate = false;
    dense_run(team, jobs, 3);
    for (int i = 0; i < 3; i++) {
        float *w = malloc(K * sizeof *w);

        for (uint32_t c = 0; c < LDY; c++) {
            if (c < outputs[i])
                weight_dequant_row_ref(&views[i], c, w);
            for (uint32_t r = 0; r < ROWS; r++) {
                float acc = c < outputs[i] && !jobs[i].accumulate ? 0.0f : first[r * LDY + c];

                for (uint32_t k = 0; k < K && c < outputs[i]; k++)
                    acc = fmaf(x[r * (K + GUARD) + k], w[k], acc);
                assert_same_bits(&jobs[i].y[r * LDY + c], &acc, 1, "strided product");
            }
        }
        free(w);
        free(jobs[i].y);
        dense_matrix_destroy((struct dense_matrix *)(uintptr_t)jobs[i].matrix);
        view_free(&views[i]);
    }
    dense_run(team, jobs, 0);
    team_destroy(team);
    free(x);
    free(first);
}

/* Plain OpenBLAS, an implementation that shares nothing with ours, keeps the same bound against
 * float64 on the same operands: the bound asks neither too much nor too little. */
static void test_against_openblas(void **state)
{
    const struct shape s = {130, 576};
    const uint32_t rows = 33;
    uint64_t rng = 7;
    struct weight_view v = view_make(&rng, WEIGHT_F32, s);
    float *x = random_floats(&rng, rows * s.k), *y = random_floats(&rng, rows * s.n);
    struct team *team;
    struct blas_ref blas;
    struct dense_matrix *m;
    enum isa isa;

    (void)state;
    assert_int_equal(isa_detect(&isa), 0);
    if (blas_ref_open(&blas, isa) != 0)
        skip();
    assert_int_equal(team_create(&team, 1, NULL, 0), 0);
    blas_ref_plain(&blas, v.data, s.n, s.k, x, rows, y);
    assert_near_float64(&v, x, rows, y);
    m = matrix_make(isa, &v);
    dense_apply(team, m, x, s.k, rows, y, s.n, false);
    assert_near_float64(&v, x, rows, y);
    blas_ref_close(&blas);
    dense_matrix_destroy(m);
    team_destroy(team);
    free(x);
    free(y);
    view_free(&v);
}

/* The extreme values of the quantised types, and rows that are not numbers beside rows that are. */
static void test_extremes(void **state)
{
    uint64_t rng = 4;
    struct weight_view v = view_make(&rng, WEIGHT_Q4_1, (struct shape){40, 64});
    struct weight_q4_1 *b = (struct weight_q4_1 *)(uintptr_t)v.data;
    float *x = random_floats(&rng, 16 * 64), expected[16 * 40], y[16 * 40];
    struct team *team;

    (void)state;
    b[0].d = 0x7bff; /* 65504 */
    b[0].m = 0xfbff;
    b[1].d = 1; /* the smallest subnormal */
    b[1].m = 0x8001;
    b[2].d = 0x3c01;
    b[2].m = 0x0400;
    for (int i = 0; i < 64; i++) {
        x[64 + i] = NAN;
        x[128 + i] = INFINITY;
        x[192 + i] = FLT_MIN / 4;
    }
    assert_int_equal(team_create(&team, 1, NULL, 0), 0);
    product_chain(&v, x, 16, expected);
    for (enum isa isa = ISA_REF; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa))
            continue;
        struct dense_matrix *m = matrix_make(isa, &v);

        for (uint32_t rows = 4; rows <= 16; rows += 12) {
            dense_apply(team, m, x, 64, rows, y, 40, false);
            assert_same_bits(y, expected, 40, "row 0");
            for (int i = 40; i < 120; i++)
                assert_true(isnan(y[i]) || isinf(y[i]));
            assert_same_bits(y + 120, expected + 120, (rows - 3) * 40, "rows behind NaN");
        }
        dense_matrix_destroy(m);
    }
    team_destroy(team);
    free(x);
    view_free(&v);
}

static void test_refusals(void **state)
{
    uint64_t rng = 5;
    struct weight_view v = view_make(&rng, WEIGHT_Q8_0, (struct shape){4, 64}), bad;
    struct dense_matrix *m;

    (void)state;
    bad = v;
    bad.n_cols = 40;
    assert_int_equal(dense_matrix_create(&m, ISA_REF, &bad), -EINVAL);
    assert_null(m);
    bad = v;
    bad.type = WEIGHT_TYPES;
    assert_int_equal(dense_matrix_create(&m, ISA_REF, &bad), -EINVAL);
    bad = v;
    bad.n_rows = 0;
    assert_int_equal(dense_matrix_create(&m, ISA_REF, &bad), -EINVAL);
    bad = v;
    bad.row_bytes--;
    assert_int_equal(dense_matrix_create(&m, ISA_REF, &bad), -EINVAL);
    bad = v;
    bad.n_cols = UINT64_C(1) << 40;
    assert_int_equal(dense_matrix_create(&m, ISA_REF, &bad), -EINVAL);
    assert_int_equal(dense_matrix_create(&m, ISA_COUNT, &v), -EINVAL);
    dense_matrix_destroy(NULL);
    view_free(&v);
}

/* Packed matrices keep the bits per weight of their type, but for the byte scales of Q4_K, Q5_K. */
static void test_packed_size(void **state)
{
    const double bits[WEIGHT_TYPES] = {32, 16, 16, 8.5, 4.5, 5, 5.5, 6, 4.625, 5.625, 6.5625};
    uint64_t rng = 6;

    (void)state;
    for (enum weight_type type = WEIGHT_F32; type < WEIGHT_TYPES; type++) {
        struct weight_view v = view_make(&rng, type, (struct shape){64, 512});
        struct dense_matrix *m = matrix_make(ISA_REF, &v);

        assert_true((double)dense_matrix_bytes(m) * 8 == bits[type] * 64 * 512);
        dense_matrix_destroy(m);
        view_free(&v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_isa_equals_the_definition),
        cmocka_unit_test(test_rows_and_positions),
        cmocka_unit_test(test_blocks_of_any_bytes),
        cmocka_unit_test(test_several_products_strided),
        cmocka_unit_test(test_against_openblas),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_packed_size),
    };

    return cmocka_run_group_tests_name("dense", tests, NULL, NULL);
}
