/* sampling_adjust.cu - logits changed before a token is drawn: what device/sampler_adjust.c does, in the
 * same order.  A block per row; rows without adjustments end at once.  Counts are made anew from the log
 * for each token, and are zero again afterwards. */
#include "gpu-engine/device/cuda/sampling.cuh"

enum { THREADS = 1024 };

static const uint32_t COUNT_SEEN = 0x80000000u; /* it is in the log, maybe in the prompt alone */

static __device__ __forceinline__ float penalised(const struct sampling_adjust &how, float logit,
                                                  uint32_t n_output)
{
    logit = logit > 0.0f ? logit / how.repetition : logit * how.repetition;
    if (n_output > 0)
        logit -= how.presence + __fmul_rn(how.frequency, (float)n_output); /* as the CPU rounds */
    return logit;
}

/* All threads; ids beyond the vocabulary, which no log should have, do not count. */
static __device__ __forceinline__ void penalise(const struct sampling_adjust &how, float *adjusted,
                                                uint32_t *counts, uint32_t n, uint32_t n_vocab)
{
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        if (how.log[i] >= n_vocab)
            continue;
        atomicOr(&counts[how.log[i]], COUNT_SEEN);
        if (i >= how.n_prompt)
            atomicAdd(&counts[how.log[i]], 1u);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        const uint32_t id = how.log[i];
        const uint32_t count = id < n_vocab ? atomicExch(&counts[id], 0u) : 0;
        if (count != 0) /* the first to come: each id once */
            adjusted[id] = penalised(how, adjusted[id], count & ~COUNT_SEEN);
    }
    __syncthreads();
}

/* A bias may name a token twice: the thread that owns the token adds both, in order. */
static __device__ __forceinline__ void
bias_and_stop(const struct sampling_adjust &how, float *adjusted, uint32_t pos, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < how.n_biases; i++) {
        const struct sampling_bias b = how.biases[i];
        if (b.token % THREADS == threadIdx.x && b.token < n_vocab)
            adjusted[b.token] += b.bias;
    }
    __syncthreads();
    if (pos - how.n_prompt >= how.min_tokens)
        return;
    for (uint32_t i = threadIdx.x; i < how.n_stops; i += THREADS) {
        if (how.stops[i] < n_vocab)
            adjusted[how.stops[i]] = -INFINITY;
    }
}

static __global__ void __launch_bounds__(THREADS) sampling_adjust_kernel(const struct sampling a)
{
    const uint32_t row = blockIdx.x;
    if (!row_is_there(a, row) || a.row[row].adjust == NULL)
        return;
    const struct sampling_space s = space_of(a);
    const struct sampling_adjust how = *a.row[row].adjust;
    const float *logits = a.logits + (size_t)row * a.n_vocab;
    float *adjusted = s.adjusted + (size_t)row * a.n_vocab;
    for (uint32_t i = threadIdx.x; i < a.n_vocab; i += THREADS)
        adjusted[i] = logits[i];
    __syncthreads();
    if (how.repetition != 1.0f || how.presence != 0.0f || how.frequency != 0.0f)
        penalise(how, adjusted, s.counts + (size_t)row * a.n_vocab, a.row[row].pos, a.n_vocab);
    bias_and_stop(how, adjusted, a.row[row].pos, a.n_vocab);
}

int sampling_adjust_launch(const struct sampling *a, cuda_stream stream)
{
    return launch(sampling_adjust_kernel, dim3(a->rows.n), THREADS, 0, stream, *a);
}
