/* probe_gemm.cu - bf16 products through cuBLASLt: the rate at 8192^3, and how a layer of weights
 * streams at few rows (what a decode sweep does: bandwidth, not flops).
 *
 * The data are multiples of 1/128 in [-1, 1), exact in bf16, from the hash that the host also
 * computes; results are checked against sums in double.  fp32 accumulation over 8192 terms of size
 * about 1/3 and one rounding to bf16 (2^-9 relative): 1 % + 0.1 is generous for those and far below
 * what any wrong index, layout or stale buffer gives (results have a spread of about 30). */
#include "tests/gpu/cublaslt.h"
#include "tests/gpu/kernels.h"
#include "tests/gpu/probe.h"

#include <math.h>
#include <string.h>

enum { SIDE = 8192, CHECKS = 64, SEED_IN = 11, SEED_WEIGHT = 12 };

static const size_t WORKSPACE_BYTES = 64 * MIB;

static __host__ __device__ inline float bf16_value(uint32_t seed, uint32_t i)
{
    return (float)((int)(data_word(seed, i) >> 24) - 128) / 128.0f;
}

static __global__ void __launch_bounds__(256)
    fill_bf16_kernel(__nv_bfloat16 *out, size_t n, uint32_t seed)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        out[i] = __float2bfloat16(bf16_value(seed, (uint32_t)i));
}

/* Moves: writes 2 n bytes. */
static cudaError_t fill_bf16(__nv_bfloat16 *out, size_t n, uint32_t seed, cudaStream_t stream)
{
    fill_bf16_kernel<<<2048, 256, 0, stream>>>(out, n, seed);
    return cudaGetLastError();
}

struct gemm_work {
    struct lt *lt;
    struct lt_gemm *gemm;
    __nv_bfloat16 *out, *in, *weight;
    void *workspace;
    int candidate;
};

static cudaError_t gemm_launch(void *arg, unsigned, cudaStream_t stream)
{
    const struct gemm_work *w = (const struct gemm_work *)arg;
    return lt_gemm_launch(w->gemm, w->candidate, w->out, w->in, w->weight, stream);
}

/* Elements spread over the result, each against its dot product in double. */
static int gemm_check(struct probe *p, const struct gemm_work *w, int rows)
{
    for (uint32_t c = 0; c < CHECKS; c++) {
        const uint32_t row = data_word(3, c) % (uint32_t)rows, col = data_word(4, c) % SIDE;
        __nv_bfloat16 raw;
        double expected = 0.0;
        PROBE_TRY(p, cudaMemcpy(&raw, w->out + (size_t)row * SIDE + col, sizeof raw,
                                cudaMemcpyDeviceToHost));
        for (uint32_t k = 0; k < SIDE; k++)
            expected += (double)bf16_value(SEED_IN, row * SIDE + k) *
                        (double)bf16_value(SEED_WEIGHT, col * SIDE + k);
        const double found = (double)__bfloat162float(raw);
        if (!(fabs(found - expected) <= 0.01 * fabs(expected) + 0.1))
            return probe_fail(p, "row %u column %u: expected %.4f, found %.4f", row, col, expected,
                              found);
    }
    return 0;
}

/* The fastest candidate's median; the heuristic's first guess is not always it. */
static int gemm_best(struct probe *p, struct gemm_work *w, int rows, double *us)
{
    const size_t out_bytes = (size_t)rows * SIDE * sizeof *w->out;
    int n = 0, n_ran = 0;
    if (lt_gemm_create(&w->gemm, w->lt, rows, SIDE, SIDE, w->workspace, WORKSPACE_BYTES, &n, p->why,
                       sizeof p->why))
        return -1;
    *us = INFINITY;
    for (w->candidate = 0; w->candidate < n; w->candidate++) {
        double t;
        /* Poisoned, so that an element that nobody wrote is found (0xff.. is a NaN). */
        PROBE_TRY(p, cudaMemsetAsync(w->out, 0xff, out_bytes, p->stream));
        if (probe_time(p, {gemm_launch, w}, rows > 512 ? 3 : 10, 7, &t))
            continue; /* a candidate may be unsupported; all of them failing is the error */
        PROBE_TRY(p, cudaStreamSynchronize(p->stream));
        PROBE_DO(gemm_check(p, w, rows));
        *us = t < *us ? t : *us;
        n_ran++;
    }
    lt_gemm_destroy(w->gemm);
    w->gemm = NULL;
    return n_ran ? 0 : -1;
}

static int work_open(struct probe *p, struct gemm_work *w)
{
    const size_t n = (size_t)SIDE * SIDE;
    memset(w, 0, sizeof *w);
    if (p->free_bytes < 2 * GIB)
        return probe_fail(p, "less than 2 GiB of device memory are free");
    PROBE_DO(probe_device_alloc(p, (void **)&w->in, n * sizeof *w->in));
    PROBE_DO(probe_device_alloc(p, (void **)&w->weight, n * sizeof *w->weight));
    PROBE_DO(probe_device_alloc(p, (void **)&w->out, n * sizeof *w->out));
    PROBE_DO(probe_device_alloc(p, &w->workspace, WORKSPACE_BYTES));
    PROBE_TRY(p, fill_bf16(w->in, n, SEED_IN, p->stream));
    PROBE_TRY(p, fill_bf16(w->weight, n, SEED_WEIGHT, p->stream));
    /* Never closed: the part's process ends, and unloading the library buys nothing. */
    return lt_open(&w->lt, p->why, sizeof p->why);
}

static int measure_gemm(struct probe *p)
{
    struct gemm_work w;
    double us;
    PROBE_DO(work_open(p, &w));
    report_text(p->report, "cublaslt", "%s version %zu", lt_path(w.lt), lt_version(w.lt));
    PROBE_DO(gemm_best(p, &w, SIDE, &us));
    probe_number(p, 2.0 * SIDE * SIDE * (double)SIDE / us / 1e6, "gemm_bf16_tflops");
    return 0;
}

/* One weight of 128 MiB is beyond every L2 of today, so each launch reads it from memory. */
static int measure_rows(struct probe *p)
{
    static const int rows_list[] = {1, 8, 16, 64, 256, 512};
    struct gemm_work w;
    PROBE_DO(work_open(p, &w));
    for (int rows : rows_list) {
        double us;
        PROBE_DO(gemm_best(p, &w, rows, &us));
        probe_number(p, us, "gemm_rows%d_us", rows);
        probe_number(p, probe_gbps(2.0 * SIDE * (SIDE + 2.0 * rows), us), "gemm_rows%d_gbps", rows);
    }
    return 0;
}

static const struct probe_measurement measurements[] = {
    {"gemm_bf16_tflops", measure_gemm},
    {"gemm_rows", measure_rows},
};

const struct probe_part part_gemm = {"gemm", "bf16 products through cuBLASLt", 40, 2, measurements};
