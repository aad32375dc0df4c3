/* sampling.cu - see sampling.h.
 *
 * DESIGN.  Nothing is sorted.  Weights are positive floats, whose bits order as they do, so the weight at
 * which a head of the sorted list ends is found 8 bits at a time, from a histogram of those that fit so
 * far, by number (top-k) or by sum (top-p, and the draw itself).  Equal weights go by lower id, so a head
 * is a weight and how many of those that have it are in. */
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/cuda/sampling.h"

typedef unsigned long long u64; /* as atomicAdd has it */

enum { THREADS = 512, BINS = 256 };

/* A head of the list in descending order of weight. */
struct sampling_head {
    uint32_t bits;   /* weights above are in; of equal ones, all but `excess` */
    uint32_t excess; /* those with the highest ids */
    u64 sum;
};

/* Where a descent ended. */
struct sampling_place {
    uint32_t bits, n_above, n_at; /* n_at: of the head */
    u64 sum_above;
};

struct sampling_shared {
    u64 sums[BINS], thread_sums[THREADS];
    uint32_t counts[BINS], thread_counts[THREADS];
    float floats[32], values[32];
    uint32_t ids[32];
    struct sampling_place place;
    uint32_t token;
};

struct sampling_task { /* one row, as its block sees it */
    const float *logits;
    struct sampling_row how;
    uint32_t n_vocab;
    float max;
    struct sampling_shared *shared;
};

static __device__ __forceinline__ u64 fixed(float weight)
{
    return (u64)(weight * 0x1p44f);
}

/* How often `each` fits into x, at most n_max: by bits, because a division of 64 bits is a call, and a
 * call spills registers. */
static __device__ __forceinline__ uint32_t times(u64 x, u64 each, uint32_t n_max)
{
    uint32_t n = 0;
    for (uint32_t bit = 1u << 31; bit > 0; bit /= 2) {
        if ((n | bit) <= n_max && (n | bit) * each <= x)
            n |= bit;
    }
    return n;
}

/* Bits of token i's weight, 0 where it is no candidate. */
static __device__ __forceinline__ uint32_t weight_bits(const struct sampling_task &t, uint32_t i)
{
    const float w = expf((t.logits[i] - t.max) / t.how.temperature);
    return w < t.how.min_p || !(w > 0.0f) ? 0 : __float_as_uint(w);
}

/* Philox4x32-10, as in device/sampler.c: uniform in [0, 1), 53 bits. */
static __device__ __forceinline__ double uniform_of(uint64_t seed, uint64_t counter)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int i = 0; i < 10; i++) {
        const uint64_t a = UINT64_C(0xD2511F53) * c[0], b = UINT64_C(0xCD9E8D57) * c[2];
        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ key[0];
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ key[1];
        c[1] = (uint32_t)b;
        c[3] = (uint32_t)a;
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

/* ---- Best token ------------------------------------------------------------------------------------ */

static __device__ __forceinline__ void better(float &value, uint32_t &id, float v, uint32_t i)
{
    if (v > value || (v == value && i < id)) {
        value = v;
        id = i;
    }
}

/* Highest logit, lowest id among equals, in all threads; sets t.max. */
static __device__ __forceinline__ uint32_t best_token(struct sampling_task &t)
{
    float value = -INFINITY;
    uint32_t id = UINT32_MAX;
    for (uint32_t i = threadIdx.x; i < t.n_vocab; i += THREADS)
        better(value, id, t.logits[i], i);
    for (int bits = 16; bits > 0; bits /= 2) {
        const float v = __shfl_xor_sync(~0u, value, bits);
        const uint32_t i = __shfl_xor_sync(~0u, id, bits);
        better(value, id, v, i);
    }
    if (threadIdx.x % 32 == 0) {
        t.shared->values[threadIdx.x / 32] = value;
        t.shared->ids[threadIdx.x / 32] = id;
    }
    __syncthreads();
    for (uint32_t w = 0; w < THREADS / 32; w++)
        better(value, id, t.shared->values[w], t.shared->ids[w]);
    t.max = value;
    return id;
}

/* ---- Heads -------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void histogram(const struct sampling_task &t,
                                                 const struct sampling_head &head, uint32_t prefix,
                                                 int shift)
{
    struct sampling_shared *s = t.shared;
    __syncthreads();
    for (uint32_t b = threadIdx.x; b < BINS; b += THREADS) {
        s->counts[b] = 0;
        s->sums[b] = 0;
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < t.n_vocab; i += THREADS) {
        const uint32_t bits = weight_bits(t, i);
        if (bits == 0 || bits < head.bits || (shift < 24 && (bits ^ prefix) >> (shift + 8) != 0))
            continue;
        atomicAdd(&s->counts[bits >> shift & 0xff], 1u);
        atomicAdd(&s->sums[bits >> shift & 0xff], fixed(__uint_as_float(bits)));
    }
    __syncthreads();
    if (threadIdx.x == 0 && (shift == 24 || (head.bits ^ prefix) >> (shift + 8) == 0)) {
        s->counts[head.bits >> shift & 0xff] -= head.excess;
        s->sums[head.bits >> shift & 0xff] -= head.excess * fixed(__uint_as_float(head.bits));
    }
}

/* One thread: goes down the bins while the target lies further on; the last that has any, at most. */
static __device__ __forceinline__ void bins_walk(struct sampling_shared *s, int shift, uint32_t k,
                                                 u64 target)
{
    struct sampling_place &p = s->place;
    struct sampling_place found = p;
    uint32_t n = p.n_above;
    u64 sum = p.sum_above;
    for (int b = BINS - 1; b >= 0; b--) {
        if (s->counts[b] == 0)
            continue;
        found = {p.bits | (uint32_t)b << shift, n, s->counts[b], sum};
        n += s->counts[b];
        sum += s->sums[b];
        if (n >= k || sum > target)
            break;
    }
    p = found;
}

/* The weight at which number k of the head lies, or its sum passes target; whichever comes first. */
static __device__ struct sampling_place
descend(const struct sampling_task &t, const struct sampling_head &head, uint32_t k, u64 target)
{
    __syncthreads();
    if (threadIdx.x == 0)
        t.shared->place = {};
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        histogram(t, head, t.shared->place.bits, shift);
        if (threadIdx.x == 0)
            bins_walk(t.shared, shift, k, target);
    }
    __syncthreads();
    return t.shared->place;
}

/* The head that ends with the n-th of the equal weights at p. */
static __device__ __forceinline__ struct sampling_head
head_cut(const struct sampling_head &head, const struct sampling_place &p, uint32_t n)
{
    const uint32_t in = n < p.n_at ? (n > 0 ? n : 1) : p.n_at;
    const uint32_t had = p.bits == head.bits ? head.excess : 0;
    return {p.bits, had + p.n_at - in, p.sum_above + in * fixed(__uint_as_float(p.bits))};
}

static __device__ __forceinline__ struct sampling_head head_keep(const struct sampling_task &t,
                                                                 u64 total)
{
    struct sampling_head head = {0, 0, total};
    if (t.how.top_k > 0) {
        const struct sampling_place p = descend(t, head, t.how.top_k, ~(u64)0);
        head = head_cut(head, p, t.how.top_k - p.n_above);
    }
    if (t.how.top_p < 1.0f) {
        const u64 target = (u64)((double)t.how.top_p * (double)head.sum);
        const struct sampling_place p = descend(t, head, UINT32_MAX, target > 0 ? target - 1 : 0);
        const u64 each = fixed(__uint_as_float(p.bits));
        const u64 missing = target - min(target, p.sum_above);
        head = head_cut(head, p, times(missing + each - min(each, (u64)1), each, p.n_at));
    }
    return head;
}

/* ---- Draws ----------------------------------------------------------------------------------------------- */

/* Ids of this thread in scans by id: first..end-1. */
static __device__ __forceinline__ void ids_mine(const struct sampling_task &t, uint32_t *first,
                                                uint32_t *end)
{
    const uint32_t each = (t.n_vocab + THREADS - 1) / THREADS;
    *first = min(threadIdx.x * each, t.n_vocab);
    *end = min(*first + each, t.n_vocab);
}

/* Number n (from 0, by id) of the tokens with this weight. */
static __device__ __forceinline__ void draw_equal(const struct sampling_task &t, uint32_t bits,
                                                  uint32_t n)
{
    uint32_t first, end, before = 0, mine = 0;
    ids_mine(t, &first, &end);
    for (uint32_t i = first; i < end; i++)
        mine += weight_bits(t, i) == bits;
    t.shared->thread_counts[threadIdx.x] = mine;
    __syncthreads();
    for (uint32_t i = 0; i < threadIdx.x; i++)
        before += t.shared->thread_counts[i];
    for (uint32_t i = first; i < end && n >= before && n < before + mine; i++) {
        if (weight_bits(t, i) == bits && n == before++) {
            t.shared->token = i;
            break;
        }
    }
}

/* Without filters the CPU goes through the ids from the highest down: so does this. */
static __device__ __forceinline__ void draw_by_id(const struct sampling_task &t, u64 target)
{
    uint32_t first, end;
    u64 after = 0;
    ids_mine(t, &first, &end);
    for (uint32_t i = threadIdx.x + 1; i < THREADS; i++)
        after += t.shared->thread_sums[i];
    if (target < after || target >= after + t.shared->thread_sums[threadIdx.x])
        return;
    for (uint32_t i = end; i-- > first;) {
        after += fixed(__uint_as_float(weight_bits(t, i)));
        if (after > target) {
            t.shared->token = i;
            break;
        }
    }
}

static __device__ __forceinline__ u64 total_weight(const struct sampling_task &t)
{
    uint32_t first, end;
    u64 sum = 0;
    ids_mine(t, &first, &end);
    for (uint32_t i = first; i < end; i++)
        sum += fixed(__uint_as_float(weight_bits(t, i)));
    t.shared->thread_sums[threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    for (uint32_t i = 0; i < THREADS; i++)
        sum += t.shared->thread_sums[i];
    return sum;
}

static __device__ __forceinline__ void draw(const struct sampling_task &t)
{
    const double u = uniform_of(t.how.seed, t.how.pos);
    const u64 total = total_weight(t);
    if (t.how.top_k == 0 && !(t.how.top_p < 1.0f)) {
        draw_by_id(t, (u64)(u * (double)total));
        return;
    }
    const struct sampling_head head = head_keep(t, total);
    const u64 target = (u64)(u * (double)head.sum);
    const struct sampling_place p = descend(t, head, UINT32_MAX, target);
    const u64 each = fixed(__uint_as_float(p.bits));
    const uint32_t n = each == 0 ? 0 : times(target - min(target, p.sum_above), each, p.n_at - 1);
    draw_equal(t, p.bits, n);
}

/* A block per row. */
static __global__ void __launch_bounds__(THREADS, 1) sampling_kernel(const struct sampling a)
{
    const uint32_t row = blockIdx.x;
    if (a.rows.n_live != NULL && row >= *a.rows.n_live)
        return;
    struct sampling_task t = {a.logits + (size_t)row * a.n_vocab, a.row[row], a.n_vocab, 0.0f,
                              (struct sampling_shared *)shared_memory()};
    const uint32_t best = best_token(t);
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < t.n_vocab; i += THREADS)
        sum += expf(t.logits[i] - t.max);
    sum = block_sum(sum, t.shared->floats);
    if (threadIdx.x == 0)
        t.shared->token = best;
    __syncthreads();
    if (t.how.temperature > 0.0f)
        draw(t);
    __syncthreads();
    if (threadIdx.x == 0) {
        const uint32_t token = t.shared->token;
        a.tokens[row] = token;
        a.logprobs[row] = t.logits[token] - t.max - logf(sum);
    }
}

int sampling(const struct sampling *a, cuda_stream stream)
{
    if (a->rows.n == 0)
        return 0;
    return launch(sampling_kernel, dim3(a->rows.n), THREADS, sizeof(struct sampling_shared), stream,
                  *a);
}
