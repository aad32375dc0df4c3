/* sampling.cuh - what the kernels of sampling share: scratch, weights, best entries.
 *
 * Scratch, for n_rows rows of n_slices slices:
 *   parts     [rows][slices] what a slice's survey found
 *   bins      [rows] weights by their upper bits: number and sum
 *   tops      [rows][slices][SAMPLING_TOP_MAX] best entries of a slice
 *   list      [rows][n_vocab] ids that may be drawn: slice s's begin at s * SAMPLING_SLICE
 *   adjusted  [rows][n_vocab] logits; counts [rows][n_vocab], all zero between launches */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_SAMPLING_CUH
#define OMNI_GPU_ENGINE_DEVICE_CUDA_SAMPLING_CUH
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/cuda/sampling.h"

typedef unsigned long long u64; /* as atomicAdd has it */

/* Weights are in (0, 1]: floats of at most 0x3f800000, told apart by exponent and 3 bits. */
enum { SAMPLING_BINS = 1024, SAMPLING_BIN_SHIFT = 20 };

struct sampling_part {
    float max; /* of the logits that are drawn from ... */
    uint32_t best;
    float norm_max, norm_sum; /* unmodified: sum of exp(logit - norm_max) */
    u64 weight;               /* fixed-point sum of weights */
    uint32_t n_listed, pad;
};

struct sampling_bins {
    u64 sums[SAMPLING_BINS];
    uint32_t counts[SAMPLING_BINS];
};

struct sampling_space {
    struct sampling_part *parts;
    struct sampling_bins *bins;
    struct sampling_top *tops; /* token and logit */
    uint32_t *list;
    float *adjusted;
    uint32_t *counts;
    uint32_t n_slices;
};

static __host__ __device__ inline uint32_t sampling_slices(uint32_t n_vocab)
{
    return (n_vocab + SAMPLING_SLICE - 1) / SAMPLING_SLICE;
}

/* Where the parts are, and in *bytes how long all are. */
static __host__ __device__ inline struct sampling_space
sampling_space(void *scratch, uint32_t n_rows, uint32_t n_vocab, uint32_t adjusts, size_t *bytes)
{
    struct sampling_space s = {};
    uintptr_t at = (uintptr_t)scratch; /* NULL: only the length is asked */
    const size_t n = n_rows, entries = n * n_vocab;
    s.n_slices = sampling_slices(n_vocab);
    s.parts = (struct sampling_part *)at;
    at += n * s.n_slices * sizeof *s.parts;
    s.bins = (struct sampling_bins *)at;
    at += n * sizeof *s.bins;
    s.tops = (struct sampling_top *)at;
    at += n * s.n_slices * SAMPLING_TOP_MAX * sizeof *s.tops;
    s.list = (uint32_t *)at;
    at += entries * sizeof *s.list;
    s.adjusted = (float *)at;
    at += adjusts ? entries * sizeof *s.adjusted : 0;
    s.counts = (uint32_t *)at;
    at += adjusts ? entries * sizeof *s.counts : 0;
    *bytes = at - (uintptr_t)scratch;
    return s;
}

static __device__ __forceinline__ struct sampling_space space_of(const struct sampling &a)
{
    size_t bytes;
    return sampling_space(a.scratch, a.scratch_rows != 0 ? a.scratch_rows : a.rows.n, a.n_vocab,
                          a.adjusts, &bytes);
}

/* What is drawn from: the row's own logits, or its adjusted ones. */
static __device__ __forceinline__ const float *
drawn_from(const struct sampling &a, const struct sampling_space &s, uint32_t row)
{
    const bool adjusted = a.adjusts && a.row[row].adjust != NULL;
    return (adjusted ? s.adjusted : a.logits) + (size_t)row * a.n_vocab;
}

static __device__ __forceinline__ bool row_is_there(const struct sampling &a, uint32_t row)
{
    return a.rows.n_live == NULL || row < *a.rows.n_live;
}

static __device__ __forceinline__ bool row_filters(const struct sampling_row &how)
{
    return how.top_k > 0 || how.top_p < 1.0f;
}

/* ---- Weights ---------------------------------------------------------------------------------------- */

static __device__ __forceinline__ u64 fixed(float weight)
{
    return (u64)(weight * 0x1p44f);
}

/* Bits of a logit's weight, 0 where it is no candidate. */
static __device__ __forceinline__ uint32_t weight_bits_of(const struct sampling_row &how, float max,
                                                          float logit)
{
    const float w = expf((logit - max) / how.temperature);
    return w < how.min_p || !(w > 0.0f) ? 0 : __float_as_uint(w);
}

/* ---- Best entry -------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void better(float &value, uint32_t &id, float v, uint32_t i)
{
    if (v > value || (v == value && i < id)) {
        value = v;
        id = i;
    }
}

/* The best of all threads' in each: highest value, lowest id among equals.  Shared: 32 of each, free again
 * after the caller's next barrier. */
static __device__ __forceinline__ void block_best(float &value, uint32_t &id, float *values,
                                                  uint32_t *ids)
{
    for (int bits = 16; bits > 0; bits /= 2) {
        const float v = __shfl_xor_sync(~0u, value, bits);
        const uint32_t i = __shfl_xor_sync(~0u, id, bits);
        better(value, id, v, i);
    }
    if (threadIdx.x % 32 == 0) {
        values[threadIdx.x / 32] = value;
        ids[threadIdx.x / 32] = id;
    }
    __syncthreads();
    for (uint32_t w = 0; w < blockDim.x / 32; w++)
        better(value, id, values[w], ids[w]);
}

/* ---- The launches, in order --------------------------------------------------------------------------- */

int sampling_adjust_launch(const struct sampling *a, cuda_stream stream);
int sampling_survey_launch(const struct sampling *a, cuda_stream stream);
int sampling_top_launch(const struct sampling *a, cuda_stream stream);

#endif
