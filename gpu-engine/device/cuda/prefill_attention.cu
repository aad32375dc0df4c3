/* prefill_attention.cu - see prefill_attention.h.
 *
 * DESIGN.  A block has 64 query rows of one head, 16 a warp, and goes over tiles of 64 tokens, which all
 * warps share in two stages: the next is fetched while one is used.  Blocks with the most tokens come
 * first, so that the short ones fill the end.  A warp reads a tile's 32 KiB from shared memory for
 * 16 rows: on an H100 that, not the tensor cores, bounds this form at about half of mma.sync's rate. */
#include "gpu-engine/device/cuda/attention.cuh"
#include "gpu-engine/device/cuda/prefill_attention.h"

enum { WARPS = 4, STAGES = 2, TILE = 64, ROWS = WARPS * ATTENTION_ROWS };

template <int D> struct prefill_stage {
    uint16_t k[TILE][D];
    uint16_t v[TILE][D];
};

/* One row of the pair h of a lane: which tokens it sees; none where there is no such row. */
struct prefill_rows {
    uint32_t first[2], end[2];
};

static __device__ __forceinline__ struct prefill_rows
rows_of(const struct prefill_attention &a, const struct prefill_chunk &c, uint32_t warp_row)
{
    struct prefill_rows r;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint32_t row = warp_row + threadIdx.x % 32 / 4 + 8 * h;
        r.end[h] = row < c.n_rows ? c.pos + row + 1 : 0;
        r.first[h] = a.window != 0 && r.end[h] > a.window ? r.end[h] - a.window : 0;
    }
    return r;
}

template <int D, int TYPE>
static __device__ __forceinline__ void rows_write(const struct prefill_attention &a,
                                                  const struct prefill_chunk &c, uint32_t warp_row,
                                                  const float o[D / 8][4], const float sum[2])
{
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint32_t row = warp_row + lane / 4 + 8 * h;
        const float total = row_sum(sum[h]);
        if (row >= c.n_rows)
            continue;
        uint16_t *out = a.out + ((size_t)(c.first_row + row) * a.n_heads + blockIdx.y) * D;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *(uint32_t *)(out + 8 * n + 2 * (lane % 4)) =
                element_pair<TYPE>(o[n][2 * h] / total, o[n][2 * h + 1] / total);
    }
}

/* Grid: (tiles of 64 rows, the last first; heads; chunks). */
template <int D, int TYPE>
static __global__ void __launch_bounds__(WARPS * 32)
    prefill_attention_kernel(const struct prefill_attention a)
{
    const struct prefill_chunk c = a.chunk[blockIdx.z];
    const uint32_t block_row = (gridDim.x - 1 - blockIdx.x) * ROWS, warp = threadIdx.x / 32;
    if (block_row >= c.n_rows)
        return;
    const uint32_t warp_row = block_row + warp * ATTENTION_ROWS, mine = warp * ATTENTION_FETCH;
    const uint32_t head = blockIdx.y / (a.n_heads / a.kv.n_kv_heads);
    const uint32_t *table = a.kv.tables + (size_t)c.table * a.kv.table_stride;
    const uint32_t last = min(block_row + (uint32_t)ROWS, c.n_rows);
    const uint32_t to = c.pos + last, first_end = c.pos + block_row + 1;
    const uint32_t seen = a.window != 0 && first_end > a.window ? first_end - a.window : 0;
    const struct prefill_rows rows = rows_of(a, c, warp_row);
    const uint32_t warp_end = c.pos + warp_row + ATTENTION_ROWS;
    const float scale_log2 = a.scale * 1.44269504f;
    prefill_stage<D> *stages = (prefill_stage<D> *)shared_memory();
    uint32_t q[D / 16][4], token = seen / ATTENTION_FETCH * ATTENTION_FETCH;
    float o[D / 8][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {}, alpha[2];

    query_load<D>(q, a.q + ((size_t)(c.first_row + warp_row) * a.n_heads + blockIdx.y) * D,
                  (size_t)a.n_heads * D, warp_row < c.n_rows ? c.n_rows - warp_row : 0);
    tile_fetch<D>(a.kv, table, head, token + mine, to, stages[0].k + mine, stages[0].v + mine);
    cp_async_commit();
    for (int stage = 0; token < to; token += TILE, stage ^= 1) {
        prefill_stage<D> *now = stages + stage, *next = stages + (stage ^ 1);
        float s[TILE / 8][4];
        if (token + TILE < to)
            tile_fetch<D>(a.kv, table, head, token + TILE + mine, to, next->k + mine,
                          next->v + mine);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads(); /* the tile is there */
        if (token < warp_end) {
            tile_scores<D, TYPE, TILE>(s, q, now->k);
            tile_weights<TILE>(s, token, rows.first, rows.end, scale_log2, max, sum, alpha);
            tile_output<D, TYPE, TILE>(o, s, alpha, now->v);
        }
        __syncthreads(); /* and read: its stage is the next to be filled */
    }
    rows_write<D, TYPE>(a, c, warp_row, o, sum);
}

template <int D, int TYPE>
static int prefill_launch(const struct prefill_attention *a, cuda_stream stream)
{
    const dim3 grid((a->rows_max + ROWS - 1) / ROWS, a->n_heads, a->n_chunks);
    return launch(prefill_attention_kernel<D, TYPE>, grid, WARPS * 32,
                  STAGES * sizeof(prefill_stage<D>), stream, *a);
}

int prefill_attention(const struct prefill_attention *a, cuda_stream stream)
{
    const bool bf16 = a->kv.type == KV_TYPE_BF16;
    if (a->n_heads % a->kv.n_kv_heads != 0 || a->kv.block_tokens % ATTENTION_FETCH != 0)
        return CUDA_NOT_SUPPORTED;
    if (a->n_chunks == 0 || a->rows_max == 0)
        return 0;
    if ((bf16 || a->kv.type == KV_TYPE_F16) && a->kv.head_dim == 128)
        return bf16 ? prefill_launch<128, KV_TYPE_BF16>(a, stream)
                    : prefill_launch<128, KV_TYPE_F16>(a, stream);
    if ((bf16 || a->kv.type == KV_TYPE_F16) && a->kv.head_dim == 64)
        return bf16 ? prefill_launch<64, KV_TYPE_BF16>(a, stream)
                    : prefill_launch<64, KV_TYPE_F16>(a, stream);
    return CUDA_NOT_SUPPORTED;
}
