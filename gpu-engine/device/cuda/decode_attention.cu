/* decode_attention.cu - see decode_attention.h.
 *
 * DESIGN.  Four warps share a piece: warp w takes tiles of 16 tokens w, w+4, ..., each with a ring of
 * STAGES tiles of its own in shared memory and its own running maximum, sum and output, so no barrier
 * stands in the loop and a warp that waits for memory holds up nobody.  A tile is 4 KiB of K and of V
 * at head_dim 128; with 3 stages a block has 64 KiB under way, which is more than the 18 KiB per
 * multiprocessor that 3.35 TB/s and 700 ns ask for.
 * The rows of a warp's tile are the query heads of one KV head. */
#include "gpu-engine/device/cuda/attention.cuh"
#include "gpu-engine/device/cuda/decode_attention.h"

enum { WARPS = 4, STAGES = 3, TILE = ATTENTION_FETCH, ROWS = ATTENTION_ROWS };

/* One warp's ring. */
template <int D> struct decode_ring {
    uint16_t k[STAGES][TILE][D];
    uint16_t v[STAGES][TILE][D];
};
/* What the warps leave for the merge; lies over the rings. */
template <int D> struct decode_left {
    float out[WARPS][ROWS][D];
    float max[WARPS][ROWS], sum[WARPS][ROWS];
};

/* Visible tokens of a sequence, and the pieces that hold them. */
struct decode_span {
    uint32_t first, end;             /* tokens */
    uint32_t split_first, split_end; /* pieces with visible tokens; none for ctx_len 0 */
};

static __host__ __device__ inline struct decode_span decode_span(uint32_t ctx_len, uint32_t window,
                                                                 uint32_t split_tokens)
{
    struct decode_span s = {0, ctx_len, 0, 0};
    if (window != 0 && ctx_len > window)
        s.first = ctx_len - window;
    s.split_first = s.first / split_tokens;
    s.split_end = (ctx_len + split_tokens - 1) / split_tokens;
    return s;
}

template <int D>
static __device__ __forceinline__ void warp_leave(decode_left<D> *left, const float o[D / 8][4],
                                                  const float max[2], const float sum[2])
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 4, at = 2 * (lane % 4);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float total = row_sum(sum[h]);
        if (lane % 4 == 0) {
            left->max[warp][row + 8 * h] = max[h];
            left->sum[warp][row + 8 * h] = total;
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *(float2 *)&left->out[warp][row + 8 * h][8 * n + at] =
                make_float2(o[n][2 * h], o[n][2 * h + 1]);
    }
}

/* Adds the warps' parts in order; writes the output where the piece is the only one, else a part. */
template <int D, int TYPE>
static __device__ __forceinline__ void block_leave(const struct decode_attention &a,
                                                   const decode_left<D> *left, bool only)
{
    const uint32_t group = a.n_heads / a.kv.n_kv_heads, head = blockIdx.y * group;
    const uint32_t n_splits = gridDim.x;
    for (uint32_t i = threadIdx.x; i < group * D; i += blockDim.x) {
        const uint32_t row = i / D, e = i % D;
        float max = -INFINITY, sum = 0.0f, out = 0.0f;
        for (int w = 0; w < WARPS; w++)
            max = fmaxf(max, left->max[w][row]);
        for (int w = 0; w < WARPS; w++) {
            const float weight = exp2f(left->max[w][row] - max);
            sum += weight * left->sum[w][row];
            out += weight * left->out[w][row][e];
        }
        const size_t at = (size_t)blockIdx.z * a.n_heads + head + row;
        if (only) {
            a.out[at * D + e] = element_round<TYPE>(out / sum);
            continue;
        }
        float *part = a.partial + (at * n_splits + blockIdx.x) * (D + 2);
        part[2 + e] = out;
        if (e < 2)
            part[e] = e == 0 ? max : sum;
    }
}

/* Grid: (pieces, KV heads, sequences). */
template <int D, int TYPE>
static __global__ void __launch_bounds__(WARPS * 32)
    decode_attention_kernel(const struct decode_attention a)
{
    const struct decode_span span = decode_span(a.ctx_len[blockIdx.z], a.window, a.split_tokens);
    if (blockIdx.x < span.split_first || blockIdx.x >= span.split_end)
        return;
    const uint32_t warp = threadIdx.x / 32, group = a.n_heads / a.kv.n_kv_heads;
    const uint32_t *table = a.kv.tables + (size_t)blockIdx.z * a.kv.table_stride;
    const uint32_t from = max(blockIdx.x * a.split_tokens, span.first / TILE * TILE);
    const uint32_t to = min((blockIdx.x + 1) * a.split_tokens, span.end);
    const uint32_t first[2] = {span.first, span.first}, end[2] = {to, to};
    const float scale_log2 = a.scale * 1.44269504f;
    decode_ring<D> *ring = (decode_ring<D> *)shared_memory() + warp;
    uint32_t q[D / 16][4];
    float o[D / 8][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {}, alpha[2];

    query_load<D>(q, a.q + ((size_t)blockIdx.z * a.n_heads + blockIdx.y * group) * D, D, group);
    uint32_t fetched = from + warp * TILE;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++, fetched += WARPS * TILE) {
        if (fetched < to)
            tile_fetch<D>(a.kv, table, blockIdx.y, fetched, to, ring->k[s], ring->v[s]);
        cp_async_commit();
    }
    int stage = 0;
    for (uint32_t token = from + warp * TILE; token < to; token += WARPS * TILE) {
        float s[2][4];
        cp_async_wait<STAGES - 2>();
        __syncwarp(); /* the tile is there for all lanes; all have read the stage that is filled now */
        const int next = stage == 0 ? STAGES - 1 : stage - 1;
        if (fetched < to)
            tile_fetch<D>(a.kv, table, blockIdx.y, fetched, to, ring->k[next], ring->v[next]);
        cp_async_commit();
        fetched += WARPS * TILE;
        tile_scores<D, TYPE, TILE>(s, q, ring->k[stage]);
        tile_weights<TILE>(s, token, first, end, scale_log2, max, sum, alpha);
        tile_output<D, TYPE, TILE>(o, s, alpha, ring->v[stage]);
        stage = stage == STAGES - 1 ? 0 : stage + 1;
    }
    cp_async_wait<0>();
    __syncthreads(); /* the rings are read: the warps' parts go over them */
    decode_left<D> *left = (decode_left<D> *)shared_memory();
    warp_leave<D>(left, o, max, sum);
    __syncthreads();
    block_leave<D, TYPE>(a, left, span.split_end - span.split_first == 1);
}

/* Adds the pieces in ascending order.  Grid: (heads, sequences), D threads. */
template <int D, int TYPE>
static __global__ void __launch_bounds__(D)
    decode_attention_merge_kernel(const struct decode_attention a, uint32_t n_splits)
{
    const struct decode_span span = decode_span(a.ctx_len[blockIdx.y], a.window, a.split_tokens);
    if (span.split_end - span.split_first < 2)
        return;
    const size_t at = (size_t)blockIdx.y * a.n_heads + blockIdx.x;
    const float *part = a.partial + at * n_splits * (D + 2);
    float max = -INFINITY, sum = 0.0f, out = 0.0f;
    for (uint32_t s = span.split_first; s < span.split_end; s++)
        max = fmaxf(max, part[(size_t)s * (D + 2)]);
    for (uint32_t s = span.split_first; s < span.split_end; s++) {
        const float *p = part + (size_t)s * (D + 2);
        const float weight = exp2f(p[0] - max);
        sum += weight * p[1];
        out += weight * p[2 + threadIdx.x];
    }
    a.out[at * D + threadIdx.x] = element_round<TYPE>(out / sum);
}

static uint32_t n_splits_of(const struct decode_attention *a)
{
    return (a->ctx_max + a->split_tokens - 1) / a->split_tokens;
}

size_t decode_attention_scratch(const struct decode_attention *a)
{
    return (size_t)a->n_seqs * a->n_heads * n_splits_of(a) * (a->kv.head_dim + 2) * sizeof(float);
}

template <int D, int TYPE>
static int decode_launch(const struct decode_attention *a, cuda_stream stream)
{
    const uint32_t n_splits = n_splits_of(a);
    const size_t rings = WARPS * sizeof(decode_ring<D>), left = sizeof(decode_left<D>);
    const int rc =
        launch(decode_attention_kernel<D, TYPE>, dim3(n_splits, a->kv.n_kv_heads, a->n_seqs),
               WARPS * 32, rings > left ? rings : left, stream, *a);
    if (rc != 0 || n_splits == 1)
        return rc;
    return launch(decode_attention_merge_kernel<D, TYPE>, dim3(a->n_heads, a->n_seqs), D, 0, stream,
                  *a, n_splits);
}

int decode_attention(const struct decode_attention *a, cuda_stream stream)
{
    if (a->n_heads % a->kv.n_kv_heads != 0 || a->n_heads / a->kv.n_kv_heads > ROWS ||
        a->split_tokens == 0 || a->split_tokens % (WARPS * TILE) != 0 ||
        a->kv.block_tokens % TILE != 0)
        return CUDA_NOT_SUPPORTED;
    if (a->n_seqs == 0 || a->ctx_max == 0)
        return 0;
    const bool bf16 = a->kv.type == KV_TYPE_BF16;
    if ((bf16 || a->kv.type == KV_TYPE_F16) && a->kv.head_dim == 128)
        return bf16 ? decode_launch<128, KV_TYPE_BF16>(a, stream)
                    : decode_launch<128, KV_TYPE_F16>(a, stream);
    if ((bf16 || a->kv.type == KV_TYPE_F16) && a->kv.head_dim == 64)
        return bf16 ? decode_launch<64, KV_TYPE_BF16>(a, stream)
                    : decode_launch<64, KV_TYPE_F16>(a, stream);
    return CUDA_NOT_SUPPORTED;
}
