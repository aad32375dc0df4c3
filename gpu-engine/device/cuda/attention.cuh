/* attention.cuh - what a warp does with tiles of keys and values, for both attention kernels.
 *
 * A warp has 16 query rows. Scores: A = q (16 rows x 16 elements), B = K (16 elements x 8 tokens).
 * Output: A = weights (16 rows x 16 tokens), which already lie in the registers where A wants them,
 * B = V (16 tokens x 8 elements). Lane l holds rows l/4 and l/4 + 8: h = 0 and 1 below. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_ATTENTION_CUH
#define OMNI_GPU_ENGINE_DEVICE_CUDA_ATTENTION_CUH
#include "gpu-engine/device/cuda/cuda_kv.h"
#include "gpu-engine/device/cuda/ptx.cuh"

/* Tokens that a warp fetches together: they lie in one block of the pool. */
enum { ATTENTION_FETCH = 16, ATTENTION_ROWS = 16 };

/* Rows of 16-byte chunks, swizzled so that 8 rows of one column lie in 8 different bank groups. */
template <int D>
static __device__ __forceinline__ uint16_t *chunk_at(uint16_t (*tile)[D], int row, int chunk)
{
    return &tile[row][(chunk ^ (row & 7)) * 8];
}

/* Queues the copies of 16 tokens; those from `end` on become zeros, since 0 * garbage may be NaN. */
template <int D>
static __device__ __forceinline__ void tile_fetch(const struct cuda_kv &kv, const uint32_t *table,
                                                  uint32_t head, uint32_t token, uint32_t end,
                                                  uint16_t (*k)[D], uint16_t (*v)[D])
{
    const int lane = threadIdx.x % 32;
    const uint32_t block = token < end ? table[token / kv.block_tokens] : 0;
    const uint8_t *from = kv.pool + cuda_kv_row(&kv, 0, block, head, token % kv.block_tokens);
#pragma unroll
    for (int i = lane; i < ATTENTION_FETCH * D / 8; i += 32) {
        const int t = i / (D / 8), chunk = i % (D / 8);
        const bool valid = token + t < end;
        cp_async16(chunk_at<D>(k, t, chunk), from + kv.k_off + (size_t)i * 16, valid);
        cp_async16(chunk_at<D>(v, t, chunk), from + kv.v_off + (size_t)i * 16, valid);
    }
}

/* s[i] = q . k of tokens 8i..8i+7: element e is row h = e/2, token 8i + 2(l%4) + e%2. */
template <int D, int TYPE, int T>
static __device__ __forceinline__ void tile_scores(float s[T / 8][4], const uint32_t q[D / 16][4],
                                                   uint16_t (*k)[D])
{
    const int lane = threadIdx.x % 32, matrix = lane / 8, row = lane % 8 + matrix / 2 * 8;
#pragma unroll
    for (int i = 0; i < T / 8; i++)
        s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0f;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
#pragma unroll
        for (int j = 0; j < T / 16; j++) {
            uint32_t b[4];
            ldmatrix_x4(b, chunk_at<D>(k, 16 * j + row, 2 * kk + matrix % 2));
            mma<TYPE>(s[2 * j], q[kk], b);
            mma<TYPE>(s[2 * j + 1], q[kk], b + 2);
        }
    }
}

/* Hides tokens outside first[h]..end[h]-1 from row h, turns scores into weights, and returns in alpha
 * what the sums so far are to be multiplied by. */
template <int T>
static __device__ __forceinline__ void
tile_weights(float s[T / 8][4], uint32_t token, const uint32_t first[2], const uint32_t end[2],
             float scale_log2, float max[2], float sum[2], float alpha[2])
{
    const uint32_t mine = token + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = max[h];
#pragma unroll
        for (int i = 0; i < T / 4; i++) {
            float &x = s[i / 2][2 * h + i % 2];
            const uint32_t t = mine + 8 * (i / 2) + i % 2;
            x = t >= first[h] && t < end[h] ? x * scale_log2 : -INFINITY;
            top = fmaxf(top, x);
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        const float base = top == -INFINITY ? 0.0f : top; /* nothing visible yet */
        alpha[h] = exp2f(max[h] - base);
        max[h] = top;
        sum[h] *= alpha[h];
#pragma unroll
        for (int i = 0; i < T / 4; i++) {
            float &x = s[i / 2][2 * h + i % 2];
            x = exp2f(x - base);
            sum[h] += x;
        }
    }
}

template <int D, int TYPE, int T>
static __device__ __forceinline__ void tile_output(float o[D / 8][4], const float s[T / 8][4],
                                                   const float alpha[2], uint16_t (*v)[D])
{
    const int lane = threadIdx.x % 32, matrix = lane / 8, row = lane % 8 + matrix % 2 * 8;
#pragma unroll
    for (int i = 0; i < D / 2; i++)
        o[i / 4][i % 4] *= alpha[i % 4 / 2];
#pragma unroll
    for (int j = 0; j < T / 16; j++) {
        const float(*w)[4] = s + 2 * j;
        const uint32_t a[4] = {
            element_pair<TYPE>(w[0][0], w[0][1]), element_pair<TYPE>(w[0][2], w[0][3]),
            element_pair<TYPE>(w[1][0], w[1][1]), element_pair<TYPE>(w[1][2], w[1][3])};
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, chunk_at<D>(v, 16 * j + row, n + matrix / 2));
            mma<TYPE>(o[n], a, b);
            mma<TYPE>(o[n + 1], a, b + 2);
        }
    }
}

/* Rows from, from + stride, ...; those from n_rows on are zero. */
template <int D>
static __device__ __forceinline__ void query_load(uint32_t q[D / 16][4], const uint16_t *from,
                                                  size_t stride, uint32_t n_rows)
{
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t row = lane / 4 + 8 * (e % 2),
                           at = 16 * kk + 2 * (lane % 4) + 8 * (e / 2);
            q[kk][e] = row < n_rows ? *(const uint32_t *)(from + row * stride + at) : 0u;
        }
    }
}

/* The sum of a row over the four lanes that hold it. */
static __device__ __forceinline__ float row_sum(float sum)
{
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
}

#endif
