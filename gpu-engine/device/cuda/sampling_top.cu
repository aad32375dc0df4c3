/* sampling_top.cu - the best entries of each slice, for alternatives told with a token: a block a slice,
 * 16 logits a thread in registers, and the best of all taken n times.  The draw merges the slices'. */
#include "gpu-engine/device/cuda/sampling.cuh"

enum { THREADS = 256, EACH = SAMPLING_SLICE / THREADS };

struct top_shared {
    float values[2][32];
    uint32_t ids[2][32];
};

static __global__ void __launch_bounds__(THREADS) sampling_top_kernel(const struct sampling a)
{
    const uint32_t row = blockIdx.y, first = blockIdx.x * SAMPLING_SLICE;
    if (!row_is_there(a, row) || a.row[row].n_top == 0)
        return;
    const struct sampling_space s = space_of(a);
    const float *logits = a.logits + (size_t)row * a.n_vocab;
    struct sampling_top *out = s.tops + ((size_t)row * s.n_slices + blockIdx.x) * SAMPLING_TOP_MAX;
    top_shared *shared = (top_shared *)shared_memory();
    float x[EACH];
    uint32_t left = 0; /* those of x that are there and not taken */
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const uint32_t id = first + threadIdx.x + i * THREADS;
        x[i] = id < a.n_vocab ? logits[id] : 0.0f;
        left |= (uint32_t)(id < a.n_vocab) << i;
    }
    for (uint32_t n = 0; n < SAMPLING_TOP_MAX; n++) {
        float value = -INFINITY;
        uint32_t id = UINT32_MAX;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            if (left >> i & 1)
                better(value, id, x[i], first + threadIdx.x + i * THREADS);
        }
        block_best(value, id, shared->values[n % 2], shared->ids[n % 2]);
        if (threadIdx.x == 0)
            out[n] = {id, value}; /* UINT32_MAX: no more */
        if (id != UINT32_MAX && (id - first) % THREADS == threadIdx.x)
            left &= ~(1u << (id - first) / THREADS);
    }
}

int sampling_top_launch(const struct sampling *a, cuda_stream stream)
{
    return launch(sampling_top_kernel, dim3(sampling_slices(a->n_vocab), a->rows.n), THREADS,
                  sizeof(top_shared), stream, *a);
}
