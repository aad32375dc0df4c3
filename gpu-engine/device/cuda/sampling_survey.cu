/* sampling_survey.cu - a row's logits by slices, many blocks a row, in three kernels:
 *
 *   survey   each slice's best entry, and its part of the norm
 *   weigh    now that the row's best is known: weights by bins, and each slice's sum
 *   list     from the bins, the least weight that may still be drawn; the ids of those above, in order
 *
 * The last two do nothing for greedy rows, the last nothing for rows without top-k and top-p. */
#include "gpu-engine/device/cuda/sampling.cuh"

enum { THREADS = 256, EACH = SAMPLING_SLICE / THREADS };

/* A slice of a row, as its block sees it. */
struct slice {
    uint32_t row, at, first, end; /* at: which of the row's */
    struct sampling_part *part;
};

static __device__ __forceinline__ struct slice slice_of(const struct sampling &a,
                                                        const struct sampling_space &s)
{
    struct slice x = {blockIdx.y, blockIdx.x, blockIdx.x * SAMPLING_SLICE, 0, NULL};
    x.end = min(x.first + (uint32_t)SAMPLING_SLICE, a.n_vocab);
    x.part = s.parts + (size_t)x.row * s.n_slices + x.at;
    return x;
}

/* Highest logit that is drawn from, in all of a row. */
static __device__ __forceinline__ float row_max(const struct sampling_space &s, uint32_t row)
{
    float max = -INFINITY;
    for (uint32_t i = 0; i < s.n_slices; i++)
        max = fmaxf(max, s.parts[(size_t)row * s.n_slices + i].max);
    return max;
}

/* ---- Survey ------------------------------------------------------------------------------------------ */

struct survey_shared {
    float values[32], sums[32];
    uint32_t ids[32];
};

static __global__ void __launch_bounds__(THREADS) sampling_survey_kernel(const struct sampling a)
{
    const struct sampling_space s = space_of(a);
    const struct slice x = slice_of(a, s);
    if (!row_is_there(a, x.row))
        return;
    survey_shared *shared = (survey_shared *)shared_memory();
    const float *from = drawn_from(a, s, x.row), *plain = a.logits + (size_t)x.row * a.n_vocab;
    float value = -INFINITY, norm = -INFINITY, sum = 0.0f;
    uint32_t id = UINT32_MAX, norm_id = UINT32_MAX;
    for (uint32_t i = x.first + threadIdx.x; i < x.end; i += THREADS) {
        better(value, id, from[i], i);
        better(norm, norm_id, plain[i], i);
    }
    block_best(value, id, shared->values, shared->ids);
    __syncthreads();
    block_best(norm, norm_id, shared->values, shared->ids);
    const float base = norm == -INFINITY ? 0.0f : norm;
    for (uint32_t i = x.first + threadIdx.x; i < x.end; i += THREADS)
        sum += expf(plain[i] - base);
    sum = block_sum(sum, shared->sums);
    if (threadIdx.x == 0)
        *x.part = {value, id, base, sum, 0, 0, 0};
    struct sampling_bins *bins =
        s.bins + x.row; /* the row's first block clears them for the next */
    for (uint32_t b = threadIdx.x; x.at == 0 && b < SAMPLING_BINS; b += THREADS) {
        bins->counts[b] = 0;
        bins->sums[b] = 0;
    }
}

/* ---- Weigh ------------------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) sampling_weigh_kernel(const struct sampling a)
{
    const struct sampling_space s = space_of(a);
    const struct slice x = slice_of(a, s);
    if (!row_is_there(a, x.row) || !(a.row[x.row].temperature > 0.0f))
        return;
    struct sampling_bins *mine = (struct sampling_bins *)shared_memory(), *all = s.bins + x.row;
    const struct sampling_row how = a.row[x.row];
    const float *from = drawn_from(a, s, x.row), max = row_max(s, x.row);
    for (uint32_t b = threadIdx.x; b < SAMPLING_BINS; b += THREADS) {
        mine->counts[b] = 0;
        mine->sums[b] = 0;
    }
    __syncthreads();
    for (uint32_t i = x.first + threadIdx.x; i < x.end; i += THREADS) {
        const uint32_t bits = weight_bits_of(how, max, from[i]);
        if (bits == 0)
            continue;
        atomicAdd(&mine->counts[bits >> SAMPLING_BIN_SHIFT], 1u);
        atomicAdd(&mine->sums[bits >> SAMPLING_BIN_SHIFT], fixed(__uint_as_float(bits)));
    }
    __syncthreads();
    for (uint32_t b = threadIdx.x; b < SAMPLING_BINS; b += THREADS) {
        if (mine->counts[b] == 0)
            continue;
        atomicAdd(&all->counts[b], mine->counts[b]);
        atomicAdd(&all->sums[b], mine->sums[b]);
        atomicAdd(&x.part->weight, mine->sums[b]);
    }
}

/* ---- List -------------------------------------------------------------------------------------------- */

struct list_shared {
    u64 sums[THREADS];
    uint32_t counts[THREADS];
    uint32_t bin_k, bin_p;
};

enum { BINS_EACH = SAMPLING_BINS / THREADS };

/* This thread's bins, from the highest down, and in *n, *sum what lies in higher ones. */
static __device__ __forceinline__ void bins_above(const struct sampling_bins *bins,
                                                  list_shared *shared, uint32_t *n, u64 *sum)
{
    u64 mine = 0;
    uint32_t count = 0;
    for (int i = 0; i < BINS_EACH; i++) {
        const uint32_t b = SAMPLING_BINS - 1 - (threadIdx.x * BINS_EACH + i);
        mine += bins->sums[b];
        count += bins->counts[b];
    }
    shared->sums[threadIdx.x] = mine;
    shared->counts[threadIdx.x] = count;
    for (uint32_t by = 1; by < THREADS; by *= 2) { /* an inclusive scan */
        __syncthreads();
        const bool has = threadIdx.x >= by;
        const u64 other = has ? shared->sums[threadIdx.x - by] : 0;
        const uint32_t others = has ? shared->counts[threadIdx.x - by] : 0;
        __syncthreads();
        shared->sums[threadIdx.x] += other;
        shared->counts[threadIdx.x] += others;
    }
    __syncthreads();
    *n = shared->counts[threadIdx.x] - count;
    *sum = shared->sums[threadIdx.x] - mine;
}

/* The lowest bin that may hold a token of the head: with top-k the one in which number top_k lies (all
 * above count for top-p, whose share is of what top-k leaves); where there are fewer, or without top-k,
 * the one in which the share top_p is reached. */
static __device__ __forceinline__ uint32_t least_bin(const struct sampling_row &how,
                                                     const struct sampling_bins *bins,
                                                     list_shared *shared)
{
    uint32_t n;
    u64 sum;
    if (threadIdx.x == 0) {
        shared->bin_k = UINT32_MAX; /* none: fewer than top_k */
        shared->bin_p = 0;
    }
    bins_above(bins, shared, &n, &sum);
    const double target = (double)how.top_p * (double)shared->sums[THREADS - 1];
    for (int i = 0; i < BINS_EACH; i++) {
        const uint32_t b = SAMPLING_BINS - 1 - (threadIdx.x * BINS_EACH + i);
        const uint32_t count = bins->counts[b];
        const u64 upto = sum + bins->sums[b];
        if (how.top_k > 0 && n < how.top_k && n + count >= how.top_k)
            shared->bin_k = b;
        if (how.top_p < 1.0f && count > 0 && (double)sum <= target && (double)upto > target)
            shared->bin_p = b;
        n += count;
        sum = upto;
    }
    __syncthreads();
    return shared->bin_k != UINT32_MAX ? shared->bin_k : shared->bin_p;
}

/* Ids of the slice whose weights are in bin `least` or above, in order. */
static __device__ __forceinline__ void ids_list(const struct sampling &a,
                                                const struct sampling_space &s,
                                                const struct slice &x, uint32_t least,
                                                list_shared *shared)
{
    const struct sampling_row how = a.row[x.row];
    const float *from = drawn_from(a, s, x.row), max = row_max(s, x.row);
    uint32_t *list = s.list + (size_t)x.row * a.n_vocab + x.first, kept = 0, at = 0;
    const uint32_t first =
        x.first + threadIdx.x * EACH; /* 16 in a row, so that ids stay in order */
    for (uint32_t i = 0; i < EACH && first + i < x.end; i++) {
        const uint32_t bits = weight_bits_of(how, max, from[first + i]);
        kept |= (uint32_t)(bits != 0 && bits >> SAMPLING_BIN_SHIFT >= least) << i;
    }
    __syncthreads();
    shared->counts[threadIdx.x] = (uint32_t)__popc(kept);
    __syncthreads();
    for (uint32_t t = 0; t < threadIdx.x; t++)
        at += shared->counts[t];
    for (uint32_t i = 0; i < EACH; i++) {
        if (kept >> i & 1)
            list[at++] = first + i;
    }
    if (threadIdx.x == THREADS - 1)
        x.part->n_listed = at;
}

static __global__ void __launch_bounds__(THREADS) sampling_list_kernel(const struct sampling a)
{
    const struct sampling_space s = space_of(a);
    const struct slice x = slice_of(a, s);
    if (!row_is_there(a, x.row) || !(a.row[x.row].temperature > 0.0f) || !row_filters(a.row[x.row]))
        return;
    list_shared *shared = (list_shared *)shared_memory();
    ids_list(a, s, x, least_bin(a.row[x.row], s.bins + x.row, shared), shared);
}

int sampling_survey_launch(const struct sampling *a, cuda_stream stream)
{
    const dim3 grid(sampling_slices(a->n_vocab), a->rows.n);
    int rc = launch(sampling_survey_kernel, grid, THREADS, sizeof(survey_shared), stream, *a);
    if (rc == 0)
        rc = launch(sampling_weigh_kernel, grid, THREADS, sizeof(struct sampling_bins), stream, *a);
    if (rc == 0)
        rc = launch(sampling_list_kernel, grid, THREADS, sizeof(list_shared), stream, *a);
    return rc;
}
