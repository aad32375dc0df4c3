/* gemv.cu - see gemv.h.
 *
 * DESIGN.  A block makes 16 outputs; its 8 warps share n_in in steps of 32 and their sums are added in
 * order.  A product does not mind the order of its terms, so lane t of a row's four takes 8 adjacent
 * elements (16 bytes) where the tile wants pairs 2t and 2t + 8: both operands are permuted alike, and
 * the weights go from global memory to the tensor core without shared memory.  UNROLL steps are loaded
 * before the first is used: 128 bytes a lane, 32 KiB a block.
 * With swiglu a block makes 8 gates and the 8 ups that belong to them: rows 8..15 of its tile. */
#include "gpu-engine/device/cuda/gemv.h"
#include "gpu-engine/device/cuda/ptx.cuh"

enum { WARPS = 8, OUTPUTS = 16, STEP = 32, UNROLL = 4 };

/* What a lane loads of one step. */
struct gemv_step {
    uint4 w[2], x;
};

/* Step at element `at`; beyond n_in the activations are zero, and the weights some that are there. */
static __device__ __forceinline__ void step_load(struct gemv_step &s, const uint16_t *const w[2],
                                                 const uint16_t *x, uint32_t at, uint32_t n_in)
{
    const uint32_t there = at < n_in ? at : at % 32;
    s.w[0] = load_streamed16(w[0] + there);
    s.w[1] = load_streamed16(w[1] + there);
    s.x = x != NULL && at < n_in ? *(const uint4 *)(x + at) : make_uint4(0, 0, 0, 0);
}

template <int TYPE>
static __device__ __forceinline__ void step_multiply(float d[4], const struct gemv_step &s)
{
    const uint32_t a[2][4] = {{s.w[0].x, s.w[1].x, s.w[0].y, s.w[1].y},
                              {s.w[0].z, s.w[1].z, s.w[0].w, s.w[1].w}};
    const uint32_t b[2][2] = {{s.x.x, s.x.y}, {s.x.z, s.x.w}};
    mma<TYPE>(d, a[0], b[0]);
    mma<TYPE>(d, a[1], b[1]);
}

/* Output `out` of `n_out`, complete. */
template <int TYPE>
static __device__ __forceinline__ void output_write(const struct gemv &a, uint32_t n_out,
                                                    uint32_t out, uint32_t row, float y)
{
    const size_t at = (size_t)row * n_out + out;
    if (a.out != NULL)
        a.out[at] = element_round<TYPE>(y);
    if (a.out_f32 != NULL)
        a.out_f32[at] = y;
}

/* Row of W that row r (0..15) of a block's tile is; beyond the last, the last again, never written. */
static __device__ __forceinline__ uint32_t weight_row(const struct gemv &a, uint32_t r)
{
    const uint32_t half = a.n_out / 2, gate = blockIdx.x * (OUTPUTS / 2) + r % 8;
    if (a.swiglu)
        return min(gate, half - 1) + (r / 8) * half;
    return min(blockIdx.x * OUTPUTS + r, a.n_out - 1);
}

/* The warps' sums of row r of the tile, in order, and its bias. */
static __device__ __forceinline__ float
row_total(const struct gemv &a, float (*sums)[OUTPUTS][GEMV_ROWS_MAX], uint32_t r, uint32_t x_row)
{
    float y = 0.0f;
    for (int i = 0; i < WARPS; i++)
        y += sums[i][r][x_row];
    return a.bias != NULL ? y + a.bias[weight_row(a, r)] : y;
}

template <int TYPE>
static __device__ __forceinline__ void tile_write(const struct gemv &a,
                                                  float (*sums)[OUTPUTS][GEMV_ROWS_MAX])
{
    const uint32_t r = threadIdx.x / GEMV_ROWS_MAX, x_row = threadIdx.x % GEMV_ROWS_MAX;
    const uint32_t n_tile = a.swiglu ? OUTPUTS / 2 : OUTPUTS;
    const uint32_t n_out = a.swiglu ? a.n_out / 2 : a.n_out, out = blockIdx.x * n_tile + r;
    if (r >= n_tile || x_row >= a.n_rows || out >= n_out)
        return;
    float y = row_total(a, sums, r, x_row);
    if (a.swiglu)
        y = y / (1.0f + expf(-y)) * row_total(a, sums, r + OUTPUTS / 2, x_row);
    output_write<TYPE>(a, n_out, out, x_row, y);
}

/* Grid: groups of 16 outputs, or of 8 with swiglu. */
template <int TYPE>
static __global__ void __launch_bounds__(WARPS * 32) gemv_kernel(const struct gemv a)
{
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 4;
    const uint32_t mine = 8 * (lane % 4);
    const uint16_t *w[2], *x = row < a.n_rows ? a.x + (size_t)row * a.n_in : NULL;
    float d[4] = {},
          (*sums)[OUTPUTS][GEMV_ROWS_MAX] = (float(*)[OUTPUTS][GEMV_ROWS_MAX])shared_memory();
    for (int h = 0; h < 2; h++)
        w[h] = a.w + (size_t)weight_row(a, row + 8 * h) * a.n_in;
    for (uint32_t k = warp * STEP; k < a.n_in; k += WARPS * STEP * UNROLL) {
        struct gemv_step step[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            step_load(step[u], w, x, k + u * WARPS * STEP + mine, a.n_in);
        }
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            step_multiply<TYPE>(d, step[u]);
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
        sums[warp][row + 8 * (e / 2)][2 * (lane % 4) + e % 2] = d[e];
    __syncthreads();
    tile_write<TYPE>(a, sums);
}

int gemv(const struct gemv *a, cuda_stream stream)
{
    const uint32_t n_tile = a->swiglu ? OUTPUTS / 2 : OUTPUTS;
    const dim3 grid(((a->swiglu ? a->n_out / 2 : a->n_out) + n_tile - 1) / n_tile);
    const size_t shared = sizeof(float) * WARPS * OUTPUTS * GEMV_ROWS_MAX;
    if (a->n_rows > GEMV_ROWS_MAX || a->n_in % STEP != 0 || (a->swiglu && a->n_out % 2 != 0))
        return CUDA_NOT_SUPPORTED;
    if (a->n_rows == 0 || a->n_out == 0)
        return 0;
    return a->type == KV_TYPE_BF16
               ? launch(gemv_kernel<KV_TYPE_BF16>, grid, WARPS * 32, shared, stream, *a)
               : launch(gemv_kernel<KV_TYPE_F16>, grid, WARPS * 32, shared, stream, *a);
}
