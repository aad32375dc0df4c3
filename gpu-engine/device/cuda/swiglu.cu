/* swiglu.cu - see swiglu.h. */
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/cuda/swiglu.h"

enum { THREADS = 128, PIECE = 8 };

/* Grid: (pieces of a row, rows); 8 elements a thread. */
template <int TYPE>
static __global__ void __launch_bounds__(THREADS) swiglu_kernel(const struct swiglu a)
{
    const uint32_t row = blockIdx.y, at = (blockIdx.x * THREADS + threadIdx.x) * PIECE;
    if (at >= a.width || (a.rows.n_live != NULL && row >= *a.rows.n_live))
        return;
    const uint16_t *from = a.gate_up + (size_t)row * 2 * a.width + at;
    float gate[PIECE], up[PIECE];
    element_unpack8<TYPE>(gate, *(const uint4 *)from);
    element_unpack8<TYPE>(up, *(const uint4 *)(from + a.width));
#pragma unroll
    for (int e = 0; e < PIECE; e++)
        gate[e] = gate[e] / (1.0f + expf(-gate[e])) * up[e];
    *(uint4 *)(a.out + (size_t)row * a.width + at) = element_pack8<TYPE>(gate);
}

int swiglu(const struct swiglu *a, cuda_stream stream)
{
    const dim3 grid((a->width + THREADS * PIECE - 1) / (THREADS * PIECE), a->rows.n);
    if (a->width % PIECE != 0)
        return CUDA_NOT_SUPPORTED;
    if (a->rows.n == 0)
        return 0;
    return a->type == KV_TYPE_BF16
               ? launch(swiglu_kernel<KV_TYPE_BF16>, grid, THREADS, 0, stream, *a)
               : launch(swiglu_kernel<KV_TYPE_F16>, grid, THREADS, 0, stream, *a);
}
