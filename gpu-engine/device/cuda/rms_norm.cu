/* rms_norm.cu - see rms_norm.h.  A block per row; the row stays in registers between the sum and the
 * product, so that each byte moves once. */
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/cuda/rms_norm.h"

enum { THREADS = 256, PIECE = 8, WIDTH_MAX = 16384 };

template <int TYPE>
static __device__ __forceinline__ void residual_add(float x[PIECE], float *residual,
                                                    const uint16_t *delta, uint32_t at)
{
    float4 *row = (float4 *)(residual + at);
    float4 low = row[0], high = row[1];
    if (delta != NULL) {
        float d[PIECE];
        element_unpack8<TYPE>(d, *(const uint4 *)(delta + at));
        low = make_float4(low.x + d[0], low.y + d[1], low.z + d[2], low.w + d[3]);
        high = make_float4(high.x + d[4], high.y + d[5], high.z + d[6], high.w + d[7]);
        row[0] = low;
        row[1] = high;
    }
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

/* PIECES: pieces of 8 elements per thread, at most. */
template <int TYPE, int PIECES>
static __global__ void __launch_bounds__(THREADS) rms_norm_kernel(const struct rms_norm a)
{
    const uint32_t row = blockIdx.x;
    float x[PIECES][PIECE], squares = 0.0f;
    if (a.rows.n_live != NULL && row >= *a.rows.n_live)
        return;
    float *residual = a.residual + (size_t)a.slots[row] * a.width;
    const uint16_t *delta = a.delta == NULL ? NULL : a.delta + (size_t)row * a.width;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const uint32_t at = (p * THREADS + threadIdx.x) * PIECE;
        if (at >= a.width)
            break;
        residual_add<TYPE>(x[p], residual, delta, at);
#pragma unroll
        for (int e = 0; e < PIECE; e++)
            squares += x[p][e] * x[p][e];
    }
    squares = block_sum(squares, (float *)shared_memory());
    const float factor = rsqrtf(squares / (float)a.width + a.epsilon);
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const uint32_t at = (p * THREADS + threadIdx.x) * PIECE;
        if (at >= a.width)
            break;
#pragma unroll
        for (int e = 0; e < PIECE; e++)
            x[p][e] *= factor * a.weight[at + e];
        *(uint4 *)(a.out + (size_t)row * a.width + at) = element_pack8<TYPE>(x[p]);
    }
}

template <int TYPE> static int rms_norm_launch(const struct rms_norm *a, cuda_stream stream)
{
    const uint32_t pieces = (a->width + THREADS * PIECE - 1) / (THREADS * PIECE);
    const size_t shared = 32 * sizeof(float);
    if (pieces <= 2)
        return launch(rms_norm_kernel<TYPE, 2>, dim3(a->rows.n), THREADS, shared, stream, *a);
    if (pieces <= 4)
        return launch(rms_norm_kernel<TYPE, 4>, dim3(a->rows.n), THREADS, shared, stream, *a);
    return launch(rms_norm_kernel<TYPE, 8>, dim3(a->rows.n), THREADS, shared, stream, *a);
}

int rms_norm(const struct rms_norm *a, cuda_stream stream)
{
    if (a->width % PIECE != 0 || a->width > WIDTH_MAX)
        return CUDA_NOT_SUPPORTED;
    if (a->rows.n == 0)
        return 0;
    return a->type == KV_TYPE_BF16 ? rms_norm_launch<KV_TYPE_BF16>(a, stream)
                                   : rms_norm_launch<KV_TYPE_F16>(a, stream);
}
