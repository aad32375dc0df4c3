/* weight_fill.cu - see weight_fill.h. */
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/cuda/weight_fill.h"

enum { THREADS = 256, PIECE = 8 };

static const uint64_t BLOCKS_MAX = 16384;

/* Pieces of 8 values, a grid's length apart. */
template <int TYPE>
static __global__ void __launch_bounds__(THREADS) weight_fill_kernel(const struct weight_fill a)
{
    const uint64_t step = (uint64_t)gridDim.x * THREADS * PIECE;
    for (uint64_t i = ((uint64_t)blockIdx.x * THREADS + threadIdx.x) * PIECE; i < a.n_values;
         i += step) {
        float x[PIECE];
#pragma unroll
        for (int e = 0; e < PIECE; e++)
            x[e] = weight_fill_unit(a.seed, a.first + i + e) * a.span;
        if (i + PIECE <= a.n_values) {
            *(uint4 *)(a.out + i) = element_pack8<TYPE>(x);
            continue;
        }
        for (uint32_t e = 0; i + e < a.n_values; e++)
            a.out[i + e] = element_round<TYPE>(x[e]);
    }
}

int weight_fill(const struct weight_fill *a, cuda_stream stream)
{
    const uint64_t blocks = (a->n_values + THREADS * PIECE - 1) / (THREADS * PIECE);
    const dim3 grid((unsigned)(blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX));
    if (a->n_values == 0)
        return 0;
    return a->type == KV_TYPE_BF16
               ? launch(weight_fill_kernel<KV_TYPE_BF16>, grid, THREADS, 0, stream, *a)
               : launch(weight_fill_kernel<KV_TYPE_F16>, grid, THREADS, 0, stream, *a);
}
