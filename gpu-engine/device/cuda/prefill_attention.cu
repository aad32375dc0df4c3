/* prefill_attention.cu - see prefill_attention.h.
 *
 * DESIGN.  A block has query rows of one head, M groups of 16 a warp, and goes over tiles of 64 tokens (32
 * at head_dim 256), which all warps share in two stages: the next is fetched while one is used.  Blocks
 * with the most tokens come first, so that the short ones fill the end.
 * A warp reads a tile's 32 KiB from shared memory for its rows.  With one group of 16 that, not the tensor
 * cores, bounds it (256 cycles of reading for some 200 of mma.sync on an H100); with two it does not.  Two
 * groups make half as many blocks, so they are for launches that fill the card twice even so.
 * Scores are made for 32 tokens at a time, because registers do not hold those of more beside two groups'
 * outputs; with one group too, so that a row's bits are the same. */
#include "gpu-engine/device/cuda/attention.cuh"
#include "gpu-engine/device/cuda/prefill_attention.h"

enum { WARPS = 4, STAGES = 2, STEP = 32, GROUP = ATTENTION_ROWS };

/* Blocks of two groups: at least so many (two for each multiprocessor of an H100). */
static const uint64_t WIDE_BLOCKS_MIN = 264;

template <int D> struct prefill_form {
    static const int TILE = D > 128 ? 32 : 64;
};
template <int D, int TYPE> using prefill_stage = attention_tile<D, TYPE, prefill_form<D>::TILE>;

/* What the pair of rows of a lane sees; nothing where there is no such row. */
static __device__ __forceinline__ struct attention_seen_by
rows_of(const struct prefill_attention &a, const struct prefill_chunk &c, uint32_t group_row)
{
    struct attention_seen_by r = {{0, 0}, {0, 0}, a.n_sinks, 0.0f, 0.0f};
    seen_scale(r, a.scale, a.softcap);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint32_t row = group_row + threadIdx.x % 32 / 4 + 8 * h;
        r.end[h] = row < c.n_rows ? c.pos + row + 1 : 0;
        r.first[h] = a.window != 0 && r.end[h] > a.window ? r.end[h] - a.window : 0;
    }
    return r;
}

template <int D, int TYPE>
static __device__ __forceinline__ void rows_write(const struct prefill_attention &a,
                                                  const struct prefill_chunk &c, uint32_t group_row,
                                                  const float o[D / 8][4], const float sum[2])
{
    const uint32_t lane = threadIdx.x % 32, type = cuda_kv_row_type(&a.kv);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint32_t row = group_row + lane / 4 + 8 * h;
        const float total = row_sum(sum[h]);
        if (row >= c.n_rows)
            continue;
        uint16_t *out = a.out + ((size_t)(c.first_row + row) * a.n_heads + blockIdx.y) * D;
#pragma unroll
        for (int p = 0; p < D / 8; p++) {
            const struct output_pair pair = output_take<D, TYPE>(o, h, p);
            *(uint32_t *)(out + pair.at) =
                element_pair_as(type, pair.low / total, pair.high / total);
        }
    }
}

/* A tile of the block: each warp fetches 16 of its tokens, if there are so many. */
template <int D, int TYPE>
static __device__ __forceinline__ void stage_fetch(const struct prefill_attention &a,
                                                   const uint32_t *table, uint32_t token,
                                                   uint32_t to, prefill_stage<D, TYPE> *stage)
{
    const uint32_t head = blockIdx.y / (a.n_heads / a.kv.n_kv_heads);
    const uint32_t mine = threadIdx.x / 32 * ATTENTION_FETCH;
    if (mine < prefill_form<D>::TILE)
        tile_fetch<D, TYPE, prefill_form<D>::TILE>(a.kv, table, head, token + mine, to, stage,
                                                   mine);
}

/* Loads the warp's rows of q, and what they see. */
template <int D, int TYPE, int M>
static __device__ __forceinline__ void
rows_begin(attention_rows<D, M> &rows, const struct prefill_attention &a,
           const struct prefill_chunk &c, uint32_t warp_row, uint32_t *shared)
{
    rows.init();
#pragma unroll
    for (int m = 0; m < M; m++) {
        const uint32_t row = warp_row + m * GROUP;
        rows.seen[m] = rows_of(a, c, row);
        query_load<D, TYPE>(rows.q[m], shared + m * attention_place<D, M>::WORDS,
                            a.q + ((size_t)(c.first_row + row) * a.n_heads + blockIdx.y) * D,
                            (size_t)a.n_heads * D, row < c.n_rows ? c.n_rows - row : 0,
                            cuda_kv_row_type(&a.kv));
    }
}

/* Grid: (tiles of rows, the last first; heads; chunks). */
template <int D, int TYPE, int M>
static __global__ void __launch_bounds__(WARPS * 32, 1)
    prefill_attention_kernel(const struct prefill_attention a)
{
    const int TILE = prefill_form<D>::TILE, ROWS = WARPS * M * GROUP;
    const struct prefill_chunk c = a.chunk[blockIdx.z];
    const uint32_t block_row = (gridDim.x - 1 - blockIdx.x) * ROWS;
    if (block_row >= c.n_rows)
        return;
    const uint32_t warp_row = block_row + threadIdx.x / 32 * M * GROUP;
    const uint32_t *table = a.kv.tables + (size_t)c.table * a.kv.table_stride;
    const uint32_t to = c.pos + min(block_row + (uint32_t)ROWS, c.n_rows);
    const uint32_t warp_end = warp_row < c.n_rows ? c.pos + warp_row + M * GROUP : 0;
    const uint32_t first_end = c.pos + block_row + 1;
    const uint32_t first = a.window != 0 && first_end > a.window ? first_end - a.window : 0;
    const struct attention_range range =
        attention_range(0, to, first, min(a.n_sinks, first), TILE, STEP);
    prefill_stage<D, TYPE> *stages = (prefill_stage<D, TYPE> *)shared_memory();
    attention_rows<D, M> rows;

    rows_begin<D, TYPE, M>(rows, a, c, warp_row,
                           (uint32_t *)(stages + STAGES) +
                               threadIdx.x / 32 * M * attention_place<D, M>::WORDS);
    stage_fetch<D, TYPE>(a, table, range_token(range, 0, TILE), to, stages);
    cp_async_commit();
    for (uint32_t i = 0; i < range.n; i++) {
        prefill_stage<D, TYPE> *now = stages + i % STAGES, *next = stages + (i + 1) % STAGES;
        const uint32_t token = range_token(range, i, TILE);
        if (i + 1 < range.n)
            stage_fetch<D, TYPE>(a, table, range_token(range, i + 1, TILE), to, next);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads(); /* the tile is there */
        for (int at = 0; at < TILE && token + at < warp_end; at += STEP)
            tile_attend<D, TYPE, prefill_form<D>::TILE, STEP, M>(rows, now, at, token + at);
        __syncthreads(); /* and read: its stage is the next to be filled */
    }
#pragma unroll
    for (int m = 0; m < M; m++)
        rows_write<D, TYPE>(a, c, warp_row + m * GROUP, rows.o[m], rows.sum[m]);
}

template <int D, int TYPE, int M>
static int prefill_launch(const struct prefill_attention *a, cuda_stream stream)
{
    const uint32_t ROWS = WARPS * M * GROUP;
    const dim3 grid((a->rows_max + ROWS - 1) / ROWS, a->n_heads, a->n_chunks);
    return launch(prefill_attention_kernel<D, TYPE, M>, grid, WARPS * 32,
                  STAGES * sizeof(prefill_stage<D, TYPE>) + WARPS * attention_place<D, M>::BYTES,
                  stream, *a);
}

template <int D, int TYPE>
static int prefill_groups(const struct prefill_attention *a, cuda_stream stream)
{
    const uint64_t rows = WARPS * 2 * GROUP, tiles = (a->rows_max + rows - 1) / rows;
    if constexpr (D == 64 || D == 128) {
        if (a->groups == 2 ||
            (a->groups == 0 && tiles * a->n_heads * a->n_chunks >= WIDE_BLOCKS_MIN))
            return prefill_launch<D, TYPE, 2>(a, stream);
    }
    return prefill_launch<D, TYPE, 1>(a, stream);
}

template <int D> static int prefill_width(const struct prefill_attention *a, cuda_stream stream)
{
    switch (a->kv.type) {
    case KV_TYPE_F16:
        return prefill_groups<D, KV_TYPE_F16>(a, stream);
    case KV_TYPE_BF16:
        return prefill_groups<D, KV_TYPE_BF16>(a, stream);
    case KV_TYPE_I8:
        return prefill_launch<D, KV_TYPE_I8, 1>(a, stream);
    default:
        return CUDA_NOT_SUPPORTED;
    }
}

int prefill_attention(const struct prefill_attention *a, cuda_stream stream)
{
    if (a->n_heads % a->kv.n_kv_heads != 0 || a->kv.block_tokens % ATTENTION_FETCH != 0 ||
        cuda_kv_row_type(&a->kv) == KV_TYPE_I8)
        return CUDA_NOT_SUPPORTED;
    if (a->n_chunks == 0 || a->rows_max == 0)
        return 0;
    switch (a->kv.head_dim) {
    case 64:
        return prefill_width<64>(a, stream);
    case 80:
        return prefill_width<80>(a, stream);
    case 96:
        return prefill_width<96>(a, stream);
    case 128:
        return prefill_width<128>(a, stream);
    case 256:
        return prefill_width<256>(a, stream);
    default:
        return CUDA_NOT_SUPPORTED;
    }
}
