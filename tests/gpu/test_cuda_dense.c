/* test_cuda_dense.c - dense products against sums in double, through gemv and through a stand-in for
 * cuBLASLt, on the shim.
 *
 * Tolerance: a sum of n products in float is off by at most n units of 2^-24 of the sum of their sizes
 * (any order), and a 16-bit result once more by its rounding. */
#include "gpu-engine/device/cuda/cuda_dense.h"
#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/gemv.h"
#include "tests/gpu/shim/cublaslt_standin.h"
#include "tests/gpu/shim/runtime.h"
#include "tests/gpu/shim/shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS_MAX = 100 };

static uint32_t seed = 1;

static float uniform(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) * 0x1p-23f - 1.0f;
}

/* A matrix on the host and on the device. */
struct product {
    uint32_t type, n_out, n_in;
    uint16_t *w, *in, *bias16;
    float *bias;
    struct cuda_matrix matrix;
    uint16_t *device_in;
};

static void *to_device(const void *from, size_t bytes)
{
    void *out;

    assert_int_equal(cudaMalloc(&out, bytes), cudaSuccess);
    assert_int_equal(cudaMemcpy(out, from, bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return out;
}

static uint16_t *random_elements(uint32_t type, size_t n)
{
    uint16_t *out = malloc(n * sizeof *out);

    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        out[i] = element_from_float(type, uniform());
    return out;
}

static struct product product_make(uint32_t type, uint32_t n_out, uint32_t n_in, bool bias)
{
    struct product p = {.type = type, .n_out = n_out, .n_in = n_in};

    p.w = random_elements(type, (size_t)n_out * n_in);
    p.in = random_elements(type, (size_t)ROWS_MAX * n_in);
    p.bias16 = random_elements(type, n_out);
    p.bias = malloc(n_out * sizeof *p.bias);
    assert_non_null(p.bias);
    for (uint32_t o = 0; o < n_out; o++) /* both forms hold the same value */
        p.bias[o] = element_to_float(type, p.bias16[o]);
    p.matrix = (struct cuda_matrix){.w = to_device(p.w, (size_t)n_out * n_in * 2),
                                    .bias = bias ? to_device(p.bias, n_out * 4) : NULL,
                                    .bias16 = bias ? to_device(p.bias16, n_out * 2) : NULL,
                                    .n_out = n_out,
                                    .n_in = n_in};
    p.device_in = to_device(p.in, (size_t)ROWS_MAX * n_in * 2);
    return p;
}

static void product_free(struct product *p)
{
    (void)cudaFree((void *)p->matrix.w);
    (void)cudaFree((void *)p->matrix.bias);
    (void)cudaFree((void *)p->matrix.bias16);
    (void)cudaFree(p->device_in);
    free(p->w);
    free(p->in);
    free(p->bias);
    free(p->bias16);
}

/* Output `out` of a row in double, and in *size the sum of its terms' sizes. */
static double expected(const struct product *p, uint32_t row, uint32_t out, double *size)
{
    double sum = p->matrix.bias != NULL ? (double)p->bias[out] : 0.0;

    *size = fabs(sum);
    for (uint32_t k = 0; k < p->n_in; k++) {
        double x = (double)element_to_float(p->type, p->w[(size_t)out * p->n_in + k]) *
                   (double)element_to_float(p->type, p->in[(size_t)row * p->n_in + k]);
        sum += x;
        *size += fabs(x);
    }
    return sum;
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

/* silu(gate) * up and how far it may be off: each factor by its own error (silu's slope is below 1.1),
 * and, where gate and up are rounded before, by a rounding each. */
static double expected_swiglu(const struct product *p, uint32_t row, uint32_t out, double *error)
{
    double gate_size, up_size, unit = p->n_in * 0x1p-24, rounding = element_epsilon(p->type);
    double gate = expected(p, row, out, &gate_size);
    double up = expected(p, row, out + p->n_out / 2, &up_size);
    double gate_error = gate_size * unit + fabs(gate) * rounding;
    double up_error = up_size * unit + fabs(up) * rounding;

    *error = 1.1 * gate_error * (fabs(up) + up_error) + fabs(silu(gate)) * up_error;
    return silu(gate) * up;
}

static void compare(const struct product *p, enum cuda_dense_output output, uint32_t n_rows,
                    const void *got)
{
    uint32_t n_out = output == CUDA_DENSE_SWIGLU ? p->n_out / 2 : p->n_out;

    for (size_t i = 0; i < (size_t)n_rows * n_out; i++) {
        uint32_t row = (uint32_t)(i / n_out), out = (uint32_t)(i % n_out);
        double size, error, want;

        if (output == CUDA_DENSE_SWIGLU) {
            want = expected_swiglu(p, row, out, &error);
        } else {
            want = expected(p, row, out, &size);
            error = size * p->n_in * 0x1p-24;
        }
        double y = output == CUDA_DENSE_F32
                       ? (double)((const float *)got)[i]
                       : (double)element_to_float(p->type, ((const uint16_t *)got)[i]);
        if (output != CUDA_DENSE_F32)
            error += fabs(want) * element_epsilon(p->type) + 0x1p-24;
        if (!(fabs(y - want) <= error))
            fail_msg("rows %u, row %u, output %u: %.9g, expected %.9g within %.3g", n_rows, row,
                     out, y, want, error);
    }
}

static void run(struct cuda_dense *d, const struct product *p, enum cuda_dense_output output,
                uint32_t n_rows)
{
    size_t bytes = (size_t)n_rows * p->n_out * (output == CUDA_DENSE_F32 ? 4 : 2);
    void *memory, *device, *host = malloc(bytes);
    cudaStream_t stream;

    if (output == CUDA_DENSE_SWIGLU)
        bytes /= 2;
    assert_non_null(host);
    assert_int_equal(cudaMalloc(&memory, bytes + 16), cudaSuccess);
    device = (char *)memory + 16; /* no better aligned than is asked for */
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    const struct cuda_dense_job job = {.matrix = &p->matrix,
                                       .output = output,
                                       .n_rows = n_rows,
                                       .in = p->device_in,
                                       .out = device};
    assert_int_equal(cuda_dense_run(d, &job, stream), 0);
    if (cudaStreamSynchronize(stream) != cudaSuccess)
        fail_msg("%s %s", shim_runtime_error(), shim_error());
    assert_int_equal(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
    compare(p, output, n_rows, host);
    (void)cudaStreamDestroy(stream);
    (void)cudaFree(memory);
    free(host);
}

static struct cuda_dense *dense_make(uint32_t type)
{
    struct cuda_dense_options options = {
        .type = type, .rows_max = ROWS_MAX, .workspace_bytes = 1 << 16};
    struct cuda_dense *d;
    struct error err;

    if (cuda_dense_create(&d, &options, &err) != 0)
        fail_msg("%s", err.text);
    return d;
}

static void prepare(struct cuda_dense *d, const struct product *p, enum cuda_dense_output output)
{
    struct error err;

    if (cuda_dense_prepare(d, &p->matrix, output, &err) != 0)
        fail_msg("%s", err.text);
}

static struct cuda_dense_stats stats_of(const struct cuda_dense *d)
{
    struct cuda_dense_stats s;

    cuda_dense_stats(d, &s);
    return s;
}

static int setup(void **state)
{
    (void)state;
    shim_runtime_reset(5, 1);
    shim_set_schedule((struct shim_schedule){.order = SHIM_FORWARD, .landing = SHIM_LATE});
    return 0;
}

/* ---- Tests ---------------------------------------------------------------------------------------- */

/* 1 to 8 rows are gemv's, 9 and more the library's, whatever the shape's tails. */
static void test_rows_and_tails(void **state)
{
    static const struct {
        uint32_t type, n_out, n_in;
        bool bias;
    } shapes[] = {{KV_TYPE_BF16, 48, 64, false},
                  {KV_TYPE_F16, 33, 96, true},
                  {KV_TYPE_BF16, 5, 288, true},
                  {KV_TYPE_F16, 130, 32, false}};
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33, 64, 100};
    (void)state;

    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        struct cuda_dense *d = dense_make(shapes[s].type);
        struct product p =
            product_make(shapes[s].type, shapes[s].n_out, shapes[s].n_in, shapes[s].bias);

        prepare(d, &p, CUDA_DENSE_ROWS);
        prepare(d, &p, CUDA_DENSE_F32);
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
            struct cuda_dense_stats before = stats_of(d);
            run(d, &p, r % 2 ? CUDA_DENSE_F32 : CUDA_DENSE_ROWS, rows[r]);
            assert_int_equal(stats_of(d).n_gemv - before.n_gemv, rows[r] <= GEMV_ROWS_MAX);
            assert_int_equal(stats_of(d).n_lt - before.n_lt, rows[r] > GEMV_ROWS_MAX);
        }
        cuda_dense_destroy(d);
        product_free(&p);
    }
}

static void test_swiglu(void **state)
{
    static const uint32_t rows[] = {1, 5, 8, 9, 40};
    (void)state;

    for (uint32_t n_ff = 8; n_ff <= 52; n_ff += 22) {
        struct cuda_dense *d = dense_make(KV_TYPE_BF16);
        struct product p = product_make(KV_TYPE_BF16, 2 * n_ff, 64, n_ff == 30);

        prepare(d, &p, CUDA_DENSE_SWIGLU);
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
            if (n_ff % 8 == 0 || rows[r] <= GEMV_ROWS_MAX) /* swiglu's width, beyond gemv */
                run(d, &p, CUDA_DENSE_SWIGLU, rows[r]);
        }
        cuda_dense_destroy(d);
        product_free(&p);
    }
}

/* Every algorithm is asked for before the first run, once a shape and bucket, and found afterwards. */
static void test_cache(void **state)
{
    struct cuda_dense *d = dense_make(KV_TYPE_BF16);
    struct product a = product_make(KV_TYPE_BF16, 32, 64, false);
    struct product b = product_make(KV_TYPE_BF16, 32, 64, false);
    struct product c = product_make(KV_TYPE_BF16, 64, 32, false);
    const uint32_t buckets = 4; /* 16, 32, 64, 128 for 100 rows */
    (void)state;

    prepare(d, &a, CUDA_DENSE_ROWS);
    assert_int_equal(stats_of(d).n_asked, buckets);
    prepare(d, &b, CUDA_DENSE_ROWS);
    assert_int_equal(stats_of(d).n_asked, buckets);
    prepare(d, &c, CUDA_DENSE_ROWS);
    assert_int_equal(stats_of(d).n_asked, 2 * buckets);
    prepare(d, &c, CUDA_DENSE_F32);
    assert_int_equal(stats_of(d).n_asked, 3 * buckets);
    for (uint32_t n = 9; n <= ROWS_MAX; n += 13) {
        run(d, &a, CUDA_DENSE_ROWS, n);
        run(d, &b, CUDA_DENSE_ROWS, n);
        run(d, &c, CUDA_DENSE_F32, n);
    }
    assert_int_equal(stats_of(d).n_asked, 3 * buckets);
    assert_int_equal(stats_of(d).n_hits, stats_of(d).n_lt);
    assert_int_equal(cuda_dense_bucket(9), 16);
    assert_int_equal(cuda_dense_bucket(16), 16);
    assert_int_equal(cuda_dense_bucket(17), 32);
    assert_int_equal(cuda_dense_bucket(100), 128);
    cuda_dense_destroy(d);
    product_free(&a);
    product_free(&b);
    product_free(&c);
}

/* An algorithm that refuses a number of rows below its bucket's: one more question, then a hit. */
static void test_algorithm_refuses(void **state)
{
    struct cuda_dense *d = dense_make(KV_TYPE_F16);
    struct product p = product_make(KV_TYPE_F16, 24, 32, true);
    void *library = dlopen(getenv("OMNI_CUBLASLT"), RTLD_NOW);
    cublaslt_standin_refuse_fn *refuse;
    void *symbol = library == NULL ? NULL : dlsym(library, "cublaslt_standin_refuse");
    (void)state;

    assert_non_null(symbol);
    memcpy(&refuse, &symbol, sizeof symbol);
    prepare(d, &p, CUDA_DENSE_ROWS);
    struct cuda_dense_stats before = stats_of(d);
    refuse(1); /* fewer rows than it was asked for at */
    run(d, &p, CUDA_DENSE_ROWS, 20);
    assert_int_equal(stats_of(d).n_asked, before.n_asked + 1);
    assert_int_equal(stats_of(d).n_hits, before.n_hits);
    run(d, &p, CUDA_DENSE_ROWS, 20);
    assert_int_equal(stats_of(d).n_asked, before.n_asked + 1);
    assert_int_equal(stats_of(d).n_hits, before.n_hits + 1);
    refuse(0);
    (void)dlclose(library);
    cuda_dense_destroy(d);
    product_free(&p);
}

/* A run is captured like any kernel, and replayed over other inputs. */
static void test_capture(void **state)
{
    struct cuda_dense *d = dense_make(KV_TYPE_BF16);
    struct product p = product_make(KV_TYPE_BF16, 16, 32, true);
    const uint32_t n_rows = 20;
    uint16_t *host = malloc((size_t)n_rows * 16 * 2), *device;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    (void)state;

    prepare(d, &p, CUDA_DENSE_ROWS);
    assert_int_equal(cudaMalloc((void **)&device, (size_t)n_rows * 16 * 2), cudaSuccess);
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    const struct cuda_dense_job job = {.matrix = &p.matrix,
                                       .output = CUDA_DENSE_ROWS,
                                       .n_rows = n_rows,
                                       .in = p.device_in,
                                       .out = device};
    assert_int_equal(cuda_dense_run(d, &job, stream), 0);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < (size_t)ROWS_MAX * p.n_in; k++)
            p.in[k] = element_from_float(p.type, uniform());
        assert_int_equal(
            cudaMemcpy(p.device_in, p.in, (size_t)ROWS_MAX * p.n_in * 2, cudaMemcpyHostToDevice),
            cudaSuccess);
        assert_int_equal(cudaGraphLaunch(exec, stream), cudaSuccess);
        assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
        assert_int_equal(cudaMemcpy(host, device, (size_t)n_rows * 16 * 2, cudaMemcpyDeviceToHost),
                         cudaSuccess);
        compare(&p, CUDA_DENSE_ROWS, n_rows, host);
    }
    (void)cudaGraphExecDestroy(exec);
    (void)cudaGraphDestroy(graph);
    (void)cudaStreamDestroy(stream);
    (void)cudaFree(device);
    free(host);
    cuda_dense_destroy(d);
    product_free(&p);
}

static void test_refusals(void **state)
{
    struct cuda_dense *d = dense_make(KV_TYPE_BF16);
    struct product p = product_make(KV_TYPE_BF16, 16, 32, false);
    struct product odd = product_make(KV_TYPE_BF16, 16, 36, false);
    struct cuda_dense_job job = {
        .matrix = &p.matrix, .n_rows = ROWS_MAX + 1, .in = p.device_in, .out = p.device_in};
    struct error err;
    (void)state;

    assert_int_equal(cuda_dense_run(d, &job, NULL), CUDA_NOT_SUPPORTED);
    job.n_rows = 20; /* nothing was prepared */
    assert_int_equal(cuda_dense_run(d, &job, NULL), CUDA_NOT_SUPPORTED);
    job.n_rows = 0;
    assert_int_equal(cuda_dense_run(d, &job, NULL), 0);
    assert_int_equal(cuda_dense_prepare(d, &odd.matrix, CUDA_DENSE_ROWS, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "16 x 36"));
    cuda_dense_destroy(d);
    product_free(&p);
    product_free(&odd);
    assert_int_equal(shim_runtime_n_live(), 0);
}

/* Without the library a sentence says which, and how to name one. */
static void test_no_library(void **state)
{
    struct cuda_dense_options options = {.type = KV_TYPE_BF16, .rows_max = 16};
    char *was = strdup(getenv("OMNI_CUBLASLT"));
    struct cuda_dense *d = NULL;
    struct error err;
    (void)state;

    assert_int_equal(setenv("OMNI_CUBLASLT", "/nowhere/libcublasLt.so", 1), 0);
    assert_int_equal(cuda_dense_create(&d, &options, &err), -ENOENT);
    assert_non_null(strstr(err.text, "OMNI_CUBLASLT = /nowhere/libcublasLt.so"));
    assert_int_equal(setenv("OMNI_CUBLASLT", "libm.so.6", 1), 0);
    assert_int_equal(cuda_dense_create(&d, &options, &err), -ENOENT);
    assert_non_null(strstr(err.text, "has no cublasLtCreate"));
    assert_int_equal(setenv("OMNI_CUBLASLT", was, 1), 0);
    shim_runtime_fail("cudaMalloc", cudaErrorMemoryAllocation);
    assert_int_equal(cuda_dense_create(&d, &options, &err), -ENOMEM);
    free(was);
    assert_int_equal(shim_runtime_n_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_rows_and_tails, setup),
        cmocka_unit_test_setup(test_swiglu, setup),
        cmocka_unit_test_setup(test_cache, setup),
        cmocka_unit_test_setup(test_algorithm_refuses, setup),
        cmocka_unit_test_setup(test_capture, setup),
        cmocka_unit_test_setup(test_refusals, setup),
        cmocka_unit_test_setup(test_no_library, setup),
    };

    if (getenv("OMNI_CUBLASLT") == NULL) {
        fprintf(stderr, "OMNI_CUBLASLT names the stand-in: run by ctest\n");
        return 77;
    }
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    shim_fini();
    return rc;
}
