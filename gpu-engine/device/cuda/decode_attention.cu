/* decode_attention.cu - see decode_attention.h.
 *
 * DESIGN.  The warps of a block share a piece: warp w takes tiles of 16 tokens w, w + WARPS, ..., each
 * with a ring of STAGES tiles of its own in shared memory and its own running maximum, sum and output, so
 * no barrier stands in the loop and a warp that waits for memory holds up nobody.  A tile is 4 KiB of K
 * and of V at head_dim 128; with 4 warps of 3 stages a block has 64 KiB under way, which is more than the
 * 18 KiB per multiprocessor that 3.35 TB/s and 700 ns ask for.  At head_dim 256 a warp's tile is twice
 * that, and registers and shared memory allow 2 warps of 2 stages.
 * The rows of a warp's tile are the query heads of one KV head. */
#include "gpu-engine/device/cuda/attention.cuh"
#include "gpu-engine/device/cuda/decode_attention.h"

enum { TILE = ATTENTION_FETCH, ROWS = ATTENTION_ROWS, WARPS_MAX = 4 };

template <int D> struct decode_form {
    static const int WARPS = D > 128 ? 2 : WARPS_MAX;
    static const int STAGES = D > 128 ? 2 : 3;
};

/* One warp's ring. */
template <int D, int TYPE> struct decode_ring {
    attention_tile<D, TYPE, TILE> tile[decode_form<D>::STAGES];
};
/* What the warps leave for the merge; lies over the rings. */
template <int D> struct decode_left {
    float out[decode_form<D>::WARPS][ROWS][D];
    float max[decode_form<D>::WARPS][ROWS], sum[decode_form<D>::WARPS][ROWS];
};

/* Visible tokens of a sequence, and the pieces that hold them. */
struct decode_span {
    uint32_t first, end, sinks;      /* tokens first..end-1 and 0..sinks-1; sinks <= first */
    uint32_t split_sinks;            /* pieces below hold sinks; at most split_first */
    uint32_t split_first, split_end; /* pieces with the others; none for ctx_len 0 */
};

static __device__ __forceinline__ struct decode_span decode_span(const struct decode_attention &a,
                                                                 uint32_t ctx_len)
{
    struct decode_span s = {0, ctx_len, 0, 0, 0, 0};
    if (a.window != 0 && ctx_len > a.window)
        s.first = ctx_len - a.window;
    s.sinks = min(a.n_sinks, s.first);
    s.split_first = s.first / a.split_tokens;
    s.split_sinks = min((s.sinks + a.split_tokens - 1) / a.split_tokens, s.split_first);
    s.split_end = (ctx_len + a.split_tokens - 1) / a.split_tokens;
    return s;
}
static __device__ __forceinline__ uint32_t span_pieces(const struct decode_span &s)
{
    return s.split_sinks + s.split_end - s.split_first;
}
static __device__ __forceinline__ bool span_has(const struct decode_span &s, uint32_t piece)
{
    return piece < s.split_sinks || (piece >= s.split_first && piece < s.split_end);
}

template <int D, int TYPE>
static __device__ __forceinline__ void warp_leave(decode_left<D> *left, const float o[D / 8][4],
                                                  const float max[2], const float sum[2])
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float total = row_sum(sum[h]);
        if (lane % 4 == 0) {
            left->max[warp][row + 8 * h] = max[h];
            left->sum[warp][row + 8 * h] = total;
        }
#pragma unroll
        for (int p = 0; p < D / 8; p++) {
            const struct output_pair pair = output_take<D, TYPE>(o, h, p);
            *(float2 *)&left->out[warp][row + 8 * h][pair.at] = make_float2(pair.low, pair.high);
        }
    }
}

static __device__ __forceinline__ void out_write(const struct decode_attention &a, size_t at,
                                                 float y)
{
    const uint32_t type = cuda_kv_row_type(&a.kv);
    a.out[at] =
        type == KV_TYPE_BF16 ? element_round<KV_TYPE_BF16>(y) : element_round<KV_TYPE_F16>(y);
}

/* Adds the warps' parts in order; writes the output where the piece is the only one, else a part. */
template <int D>
static __device__ __forceinline__ void block_leave(const struct decode_attention &a,
                                                   const decode_left<D> *left, bool only)
{
    const int WARPS = decode_form<D>::WARPS;
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
            out_write(a, at * D + e, out / sum);
            continue;
        }
        float *part = a.partial + (at * n_splits + blockIdx.x) * (D + 2);
        part[2 + e] = out;
        if (e < 2)
            part[e] = e == 0 ? max : sum;
    }
}

/* What this warp does of the piece: its tiles through its ring. */
template <int D, int TYPE>
static __device__ __forceinline__ void
warp_attend(const struct decode_attention &a, const struct attention_range &range, uint32_t to,
            attention_rows<D, 1> &rows, decode_ring<D, TYPE> *ring)
{
    const int WARPS = decode_form<D>::WARPS, STAGES = decode_form<D>::STAGES;
    const uint32_t *table = a.kv.tables + (size_t)blockIdx.z * a.kv.table_stride;
    uint32_t fetched = threadIdx.x / 32;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++, fetched += WARPS) {
        if (fetched < range.n)
            tile_fetch<D, TYPE, TILE>(a.kv, table, blockIdx.y, range_token(range, fetched, TILE),
                                      to, &ring->tile[s], 0);
        cp_async_commit();
    }
    int stage = 0;
    for (uint32_t i = threadIdx.x / 32; i < range.n; i += WARPS, fetched += WARPS) {
        cp_async_wait<decode_form<D>::STAGES - 2>();
        __syncwarp(); /* the tile is there for all lanes; all have read the stage that is filled now */
        const int next = stage == 0 ? STAGES - 1 : stage - 1;
        if (fetched < range.n)
            tile_fetch<D, TYPE, TILE>(a.kv, table, blockIdx.y, range_token(range, fetched, TILE),
                                      to, &ring->tile[next], 0);
        cp_async_commit();
        tile_attend<D, TYPE, TILE, TILE, 1>(rows, &ring->tile[stage], 0,
                                            range_token(range, i, TILE));
        stage = stage == STAGES - 1 ? 0 : stage + 1;
    }
    cp_async_wait<0>();
}

/* Grid: (pieces, KV heads, sequences). */
template <int D, int TYPE>
static __global__ void __launch_bounds__(decode_form<D>::WARPS * 32)
    decode_attention_kernel(const struct decode_attention a)
{
    const int WARPS = decode_form<D>::WARPS;
    const struct decode_span span = decode_span(a, a.ctx_len[blockIdx.z]);
    if (!span_has(span, blockIdx.x))
        return;
    const uint32_t group = a.n_heads / a.kv.n_kv_heads, begin = blockIdx.x * a.split_tokens;
    const uint32_t to = min(begin + a.split_tokens, span.end);
    const struct attention_range range =
        attention_range(begin, to, span.first, span.sinks, TILE, TILE);
    decode_ring<D, TYPE> *rings = (decode_ring<D, TYPE> *)shared_memory();
    attention_rows<D, 1> rows;

    rows.init();
    rows.seen[0] = {{span.first, span.first}, {to, to}, a.n_sinks, 0.0f, 0.0f};
    seen_scale(rows.seen[0], a.scale, a.softcap);
    query_load<D, TYPE>(
        rows.q[0], (uint32_t *)(rings + WARPS) + threadIdx.x / 32 * attention_place<D, 1>::WORDS,
        a.q + ((size_t)blockIdx.z * a.n_heads + blockIdx.y * group) * D, D, group,
        cuda_kv_row_type(&a.kv));
    warp_attend<D, TYPE>(a, range, to, rows, rings + threadIdx.x / 32);
    __syncthreads(); /* the rings are read: the warps' parts go over them */
    decode_left<D> *left = (decode_left<D> *)shared_memory();
    warp_leave<D, TYPE>(left, rows.o[0], rows.max[0], rows.sum[0]);
    __syncthreads();
    block_leave<D>(a, left, span_pieces(span) == 1);
}

/* Adds the pieces in ascending order.  Grid: (heads, sequences), a thread per element. */
template <int D>
static __global__ void __launch_bounds__((D + 31) / 32 * 32)
    decode_attention_merge_kernel(const struct decode_attention a, uint32_t n_splits)
{
    const struct decode_span span = decode_span(a, a.ctx_len[blockIdx.y]);
    const uint32_t n = span_pieces(span);
    if (n < 2 || threadIdx.x >= D)
        return;
    const size_t at = (size_t)blockIdx.y * a.n_heads + blockIdx.x;
    const float *part = a.partial + at * n_splits * (D + 2);
    float max = -INFINITY, sum = 0.0f, out = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t s = i < span.split_sinks ? i : i - span.split_sinks + span.split_first;
        max = fmaxf(max, part[(size_t)s * (D + 2)]);
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t s = i < span.split_sinks ? i : i - span.split_sinks + span.split_first;
        const float *p = part + (size_t)s * (D + 2);
        const float weight = exp2f(p[0] - max);
        sum += weight * p[1];
        out += weight * p[2 + threadIdx.x];
    }
    out_write(a, at * D + threadIdx.x, out / sum);
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
    const int WARPS = decode_form<D>::WARPS;
    const uint32_t n_splits = n_splits_of(a);
    const size_t rings = WARPS * (sizeof(decode_ring<D, TYPE>) + attention_place<D, 1>::BYTES);
    const size_t left = sizeof(decode_left<D>);
    const int rc =
        launch(decode_attention_kernel<D, TYPE>, dim3(n_splits, a->kv.n_kv_heads, a->n_seqs),
               WARPS * 32, rings > left ? rings : left, stream, *a);
    if (rc != 0 || n_splits == 1)
        return rc;
    return launch(decode_attention_merge_kernel<D>, dim3(a->n_heads, a->n_seqs), (D + 31) / 32 * 32,
                  0, stream, *a, n_splits);
}

template <int D> static int decode_width(const struct decode_attention *a, cuda_stream stream)
{
    switch (a->kv.type) {
    case KV_TYPE_F16:
        return decode_launch<D, KV_TYPE_F16>(a, stream);
    case KV_TYPE_BF16:
        return decode_launch<D, KV_TYPE_BF16>(a, stream);
    case KV_TYPE_I8:
        return decode_launch<D, KV_TYPE_I8>(a, stream);
    default:
        return CUDA_NOT_SUPPORTED;
    }
}

int decode_attention(const struct decode_attention *a, cuda_stream stream)
{
    if (a->n_heads % a->kv.n_kv_heads != 0 || a->n_heads / a->kv.n_kv_heads > ROWS ||
        a->split_tokens == 0 || a->split_tokens % (WARPS_MAX * TILE) != 0 ||
        a->kv.block_tokens % TILE != 0 || cuda_kv_row_type(&a->kv) == KV_TYPE_I8)
        return CUDA_NOT_SUPPORTED;
    if (a->n_seqs == 0 || a->ctx_max == 0)
        return 0;
    switch (a->kv.head_dim) {
    case 64:
        return decode_width<64>(a, stream);
    case 80:
        return decode_width<80>(a, stream);
    case 96:
        return decode_width<96>(a, stream);
    case 128:
        return decode_width<128>(a, stream);
    case 256:
        return decode_width<256>(a, stream);
    default:
        return CUDA_NOT_SUPPORTED;
    }
}
