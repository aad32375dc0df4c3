/* embedding.cu - see embedding.h. */
#include "gpu-engine/device/cuda/embedding.h"
#include "gpu-engine/device/cuda/ptx.cuh"

enum { THREADS = 128, PIECE = 8 };

static __device__ __forceinline__ uint32_t token_of(const struct embedding &a, uint32_t row)
{
    const uint32_t token = a.tokens[row];
    const uint32_t id =
        token & CUDA_TOKEN_PREVIOUS ? a.previous[token & ~CUDA_TOKEN_PREVIOUS] : token;
    return id < a.n_vocab ? id : 0;
}

/* A block per row. */
template <int TYPE>
static __global__ void __launch_bounds__(THREADS) embedding_kernel(const struct embedding a)
{
    const uint32_t row = blockIdx.x;
    if (a.rows.n_live != NULL && row >= *a.rows.n_live)
        return;
    const uint16_t *from = a.table + (size_t)token_of(a, row) * a.width;
    float *to = a.residual + (size_t)a.slots[row] * a.width;
    for (uint32_t at = threadIdx.x * PIECE; at < a.width; at += THREADS * PIECE) {
        float x[PIECE];
        element_unpack8<TYPE>(x, *(const uint4 *)(from + at));
        *(float4 *)(to + at) = make_float4(x[0], x[1], x[2], x[3]);
        *(float4 *)(to + at + 4) = make_float4(x[4], x[5], x[6], x[7]);
    }
}

int embedding(const struct embedding *a, cuda_stream stream)
{
    if (a->width % PIECE != 0)
        return CUDA_NOT_SUPPORTED;
    if (a->rows.n == 0)
        return 0;
    return a->type == KV_TYPE_BF16
               ? launch(embedding_kernel<KV_TYPE_BF16>, dim3(a->rows.n), THREADS, 0, stream, *a)
               : launch(embedding_kernel<KV_TYPE_F16>, dim3(a->rows.n), THREADS, 0, stream, *a);
}
