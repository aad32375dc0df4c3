/* The kernels around the dense products: widths with tails, absent rows, both types.
 *
 * Tolerance: the output's rounding, once more for a delta or a sum in another order; sums in float of n
 * terms are held to the terms' size. */
#include <math.h>
#include <string.h>

#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/embedding.h"
#include "gpu-engine/device/cuda/gemv.h"
#include "gpu-engine/device/cuda/rms_norm.h"
#include "gpu-engine/device/cuda/swiglu.h"
#include "tests/gpu/checks/checks.h"

enum { ROWS = 5, LIVE = 4, SLOTS = 9, VOCAB = 50 };

static const uint32_t TYPES[] = {KV_TYPE_BF16, KV_TYPE_F16};

/* A device word that says how many of ROWS are there, and slots in disorder. */
static int rows_make(struct check_run *r, struct cuda_rows *rows, const uint32_t **slots)
{
    static const uint32_t ORDER[ROWS] = {7, 0, 8, 3, 5};
    uint32_t *live, *at;

    CHECK_ALLOC(r, live, CHECK_POOL, 1);
    CHECK_ALLOC(r, at, CHECK_POOL, ROWS);
    *live = LIVE;
    memcpy(at, ORDER, sizeof ORDER);
    *rows = (struct cuda_rows){.n = ROWS, .n_live = live};
    *slots = at;
    return 0;
}

static int norm_shape(struct check_run *r, uint32_t width, uint32_t type, bool has_delta)
{
    struct rms_norm a = {.width = width, .type = type, .epsilon = 1e-5f}, want;
    size_t n = (size_t)ROWS * width, n_slots = (size_t)SLOTS * width;
    uint16_t *delta;
    float *weight;

    CHECK_DO(rows_make(r, &a.rows, &a.slots));
    CHECK_ALLOC(r, a.out, CHECK_POOL, n);
    CHECK_ALLOC(r, a.residual, CHECK_POOL, n_slots);
    CHECK_ALLOC(r, delta, CHECK_POOL, n);
    CHECK_ALLOC(r, weight, CHECK_POOL, width);
    check_fill_floats(r, a.residual, n_slots, 3.0f);
    check_fill(r, type, delta, n, 1.0f);
    check_fill_floats(r, weight, width, 2.0f);
    a.weight = weight;
    a.delta = has_delta ? delta : NULL;
    want = a;
    want.out = check_copy(r, a.out, n * sizeof *a.out);
    want.residual = check_copy(r, a.residual, n_slots * sizeof *a.residual);
    if (want.out == NULL || want.residual == NULL)
        return -1;
    rms_norm_ref(&want);
    CHECK_DO(check_wait(r, "rms_norm", rms_norm(&a, r->stream)));
    CHECK_DO(check_floats(r, "residual", a.residual, want.residual, n_slots, 1e-6, 1.0));
    return check_elements(r, "rms_norm", type, a.out, want.out, n, 2.1 * element_epsilon(type),
                          1e-3);
}

int check_rms_norm(struct check_run *r)
{
    static const uint32_t WIDTHS[] = {8, 576, 2056, 5120};

    for (size_t i = 0; i < sizeof WIDTHS / sizeof WIDTHS[0]; i++) {
        for (int t = 0; t < 2; t++)
            CHECK_DO(norm_shape(r, WIDTHS[i], TYPES[t], (i + (size_t)t) % 3 != 0));
    }
    return 0;
}

int check_swiglu(struct check_run *r)
{
    static const uint32_t WIDTHS[] = {8, 1536, 1032};

    for (size_t i = 0; i < 6; i++) {
        struct swiglu a = {.width = WIDTHS[i / 2], .type = TYPES[i % 2]}, want;
        size_t n = (size_t)ROWS * a.width;
        const uint32_t *slots;
        uint16_t *gate_up;

        CHECK_DO(rows_make(r, &a.rows, &slots));
        CHECK_ALLOC(r, a.out, CHECK_POOL, n);
        CHECK_ALLOC(r, gate_up, CHECK_POOL, 2 * n);
        check_fill(r, a.type, gate_up, 2 * n, 12.0f);
        a.gate_up = gate_up;
        want = a;
        if ((want.out = check_copy(r, a.out, n * sizeof *a.out)) == NULL)
            return -1;
        swiglu_ref(&want);
        CHECK_DO(check_wait(r, "swiglu", swiglu(&a, r->stream)));
        CHECK_DO(check_elements(r, "swiglu", a.type, a.out, want.out, n,
                                2.1 * element_epsilon(a.type), 1e-3));
    }
    return 0;
}

int check_embedding(struct check_run *r)
{
    static const uint32_t TOKENS[ROWS] = {49, CUDA_TOKEN_PREVIOUS | 2, VOCAB, 0, 3};

    for (int t = 0; t < 2; t++) {
        struct embedding a = {.width = 1096, .n_vocab = VOCAB, .type = TYPES[t]}, want;
        size_t n = (size_t)SLOTS * a.width, n_table = (size_t)VOCAB * a.width;
        uint32_t *tokens, *previous;
        uint16_t *table;

        CHECK_DO(rows_make(r, &a.rows, &a.slots));
        CHECK_ALLOC(r, a.residual, CHECK_POOL, n);
        CHECK_ALLOC(r, table, CHECK_POOL, n_table);
        CHECK_ALLOC(r, tokens, CHECK_POOL, ROWS);
        CHECK_ALLOC(r, previous, CHECK_POOL, 3);
        memcpy(tokens, TOKENS, sizeof TOKENS);
        previous[2] = 17;
        check_fill(r, a.type, table, n_table, 1.0f);
        a.table = table;
        a.tokens = tokens;
        a.previous = previous;
        want = a;
        if ((want.residual = check_copy(r, a.residual, n * sizeof *a.residual)) == NULL)
            return -1;
        embedding_ref(&want);
        CHECK_DO(check_wait(r, "embedding", embedding(&a, r->stream)));
        CHECK_DO(check_bytes(r, "embedding", a.residual, want.residual, n * sizeof *a.residual));
    }
    return 0;
}

static int gemv_shape(struct check_run *r, uint32_t n_rows, uint32_t n_out, uint32_t n_in,
                      uint32_t type, uint32_t swiglu)
{
    struct gemv a = {
        .n_rows = n_rows, .n_out = n_out, .n_in = n_in, .type = type, .swiglu = swiglu};
    struct gemv want;
    size_t n = (size_t)n_rows * (swiglu ? n_out / 2 : n_out);
    double floor = sqrt(n_in);
    uint16_t *x, *w;
    float *bias;

    CHECK_ALLOC(r, a.out, CHECK_POOL, n);
    CHECK_ALLOC(r, a.out_f32, CHECK_POOL, n);
    CHECK_ALLOC(r, x, CHECK_POOL, (size_t)n_rows * n_in);
    CHECK_ALLOC(r, w, CHECK_POOL, (size_t)n_out * n_in);
    CHECK_ALLOC(r, bias, CHECK_POOL, n_out);
    check_fill(r, type, x, (size_t)n_rows * n_in, 1.0f);
    check_fill(r, type, w, (size_t)n_out * n_in, 1.0f);
    check_fill_floats(r, bias, n_out, 1.0f);
    a.x = x;
    a.w = w;
    a.bias = n_rows % 2 ? bias : NULL;
    want = a;
    want.out = check_copy(r, a.out, n * sizeof *a.out);
    want.out_f32 = check_copy(r, a.out_f32, n * sizeof *a.out_f32);
    if (want.out == NULL || want.out_f32 == NULL)
        return -1;
    gemv_ref(&want);
    CHECK_DO(check_wait(r, "gemv", gemv(&a, r->stream)));
    /* n_in terms of at most 1, each addition off by half a unit of the sum so far; with swiglu two such
     * sums, multiplied. */
    CHECK_DO(check_floats(r, "gemv, f32", a.out_f32, want.out_f32, n, 1e-6,
                          swiglu ? floor * floor : floor));
    return check_elements(r, "gemv", type, a.out, want.out, n, 2.1 * element_epsilon(type), 0.1);
}

int check_gemv(struct check_run *r)
{
    CHECK_DO(gemv_shape(r, 1, 16, 32, KV_TYPE_BF16, 0));
    CHECK_DO(gemv_shape(r, 8, 50, 1056, KV_TYPE_BF16, 0));
    CHECK_DO(gemv_shape(r, 3, 33, 576, KV_TYPE_F16, 0));
    CHECK_DO(gemv_shape(r, 5, 7, 2048, KV_TYPE_F16, 0));
    CHECK_DO(gemv_shape(r, 7, 16, 1024, KV_TYPE_BF16, 0));
    CHECK_DO(gemv_shape(r, 1, 16, 96, KV_TYPE_BF16, 1));
    CHECK_DO(gemv_shape(r, 8, 22, 288, KV_TYPE_F16, 1));
    return gemv_shape(r, 5, 54, 64, KV_TYPE_BF16, 1);
}
