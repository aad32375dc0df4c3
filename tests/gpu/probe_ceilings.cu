/* probe_ceilings.cu - device memory: copy and read-only bandwidth.
 *
 * The larger of the two is the bandwidth that every kernel of the project is held against.  Buffers
 * are far beyond any L2 (2 GiB against 50-60 MB), data is random, results are checked. */
#include "tests/gpu/kernels.h"
#include "tests/gpu/probe.h"

struct copy_work {
    uint4 *out, *in;
    uint32_t *sum;
    size_t n16;
    int n_blocks;
};

static cudaError_t memcpy_launch(void *arg, unsigned, cudaStream_t stream)
{
    const struct copy_work *w = (const struct copy_work *)arg;
    return cudaMemcpyAsync(w->out, w->in, w->n16 * 16, cudaMemcpyDeviceToDevice, stream);
}

static cudaError_t copy_launch(void *arg, unsigned, cudaStream_t stream)
{
    const struct copy_work *w = (const struct copy_work *)arg;
    return copy16(w->out, w->in, w->n16, w->n_blocks, stream);
}

static cudaError_t read_launch(void *arg, unsigned, cudaStream_t stream)
{
    const struct copy_work *w = (const struct copy_work *)arg;
    return read_xor(w->sum, w->in, w->n16, w->n_blocks, stream);
}

static int sum_of(struct probe *p, const struct copy_work *w, const uint4 *data, size_t n16,
                  uint32_t *sum)
{
    PROBE_TRY(p, cudaMemsetAsync(w->sum, 0, sizeof *sum, p->stream));
    PROBE_TRY(p, read_xor(w->sum, data, n16, w->n_blocks, p->stream));
    PROBE_TRY(p, cudaMemcpyAsync(sum, w->sum, sizeof *sum, cudaMemcpyDeviceToHost, p->stream));
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    return 0;
}

/* The reading kernel against the host, over a length that leaves tails in every loop. */
static int read_check(struct probe *p, const struct copy_work *w)
{
    const size_t n16 = (size_t)8 * w->n_blocks * 256 + 8 * 256 + 77;
    uint32_t found = 0, expected = 0;
    for (uint32_t i = 0; i < 4 * n16; i++)
        expected ^= data_word(1, i);
    PROBE_DO(sum_of(p, w, w->in, n16, &found));
    return found == expected
               ? 0
               : probe_fail(p, "read_xor: expected %08x, found %08x", expected, found);
}

static int buffers(struct probe *p, struct copy_work *w, int n_buffers)
{
    const size_t bytes = probe_fit(p, 2 * GIB, 3);
    w->n16 = bytes / 16;
    w->n_blocks = 8 * p->n_sm;
    PROBE_DO(probe_device_alloc(p, (void **)&w->sum, 256));
    PROBE_DO(probe_device_alloc(p, (void **)&w->in, bytes));
    PROBE_TRY(p, fill(w->in, w->n16, 1, p->stream));
    if (n_buffers == 2) {
        PROBE_DO(probe_device_alloc(p, (void **)&w->out, bytes));
        PROBE_TRY(p, cudaMemsetAsync(w->out, 0xa5, bytes, p->stream));
    }
    return 0;
}

/* The best grid of three, each the median of 9: residency differs per architecture. */
static int best_grid(struct probe *p, struct copy_work *w, struct probe_work work, double *us)
{
    static const int per_sm[] = {4, 8, 16};
    *us = 0.0;
    for (int g : per_sm) {
        double t;
        w->n_blocks = g * p->n_sm;
        PROBE_DO(probe_time(p, work, 2, 9, &t));
        *us = *us == 0.0 || t < *us ? t : *us;
    }
    return 0;
}

static int measure_copy(struct probe *p)
{
    struct copy_work w = {};
    uint32_t sum_in = 0, sum_out = 0;
    double memcpy_us, kernel_us;
    PROBE_DO(buffers(p, &w, 2));
    PROBE_DO(read_check(p, &w));
    PROBE_DO(best_grid(p, &w, {copy_launch, &w}, &kernel_us));
    PROBE_DO(sum_of(p, &w, w.in, w.n16, &sum_in));
    PROBE_DO(sum_of(p, &w, w.out, w.n16, &sum_out));
    if (sum_in != sum_out)
        return probe_fail(p, "copy16: checksum %08x became %08x", sum_in, sum_out);
    PROBE_DO(probe_time(p, {memcpy_launch, &w}, 2, 9, &memcpy_us));
    /* Bytes read plus bytes written. */
    const double bytes = 32.0 * (double)w.n16;
    probe_number(p, probe_gbps(bytes, kernel_us), "copy_kernel_gbps");
    probe_number(p, probe_gbps(bytes, memcpy_us), "copy_memcpy_gbps");
    probe_number(p, probe_gbps(bytes, kernel_us < memcpy_us ? kernel_us : memcpy_us), "copy_gbps");
    return 0;
}

static int measure_read(struct probe *p)
{
    struct copy_work w = {};
    double us;
    PROBE_DO(buffers(p, &w, 1));
    PROBE_DO(read_check(p, &w));
    PROBE_DO(best_grid(p, &w, {read_launch, &w}, &us));
    probe_number(p, probe_gbps(16.0 * (double)w.n16, us), "read_gbps");
    return 0;
}

static const struct probe_measurement measurements[] = {
    {"copy_gbps", measure_copy},
    {"read_gbps", measure_read},
};

const struct probe_part part_ceilings = {"ceilings", "device memory: copy and read bandwidth", 30,
                                         2, measurements};
