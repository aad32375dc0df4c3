/* planted.cu - kernels with one mistake each, and their right form, for test_gpu_shim.c. */
#include "gpu-engine/device/cuda/ptx.cuh"
#include "tests/gpu/shim/planted.h"

enum { THREADS = 64 };

/* Every thread writes its word and reads its neighbour's, round after round. */
static __global__ void neighbour_kernel(uint32_t *out, const uint32_t *in, enum planted planted)
{
    uint32_t *shared = (uint32_t *)shared_memory(), value = in[threadIdx.x];
    for (int round = 0; round < 3; round++) {
        shared[threadIdx.x] = value;
        if (planted != PLANTED_NO_BARRIER)
            __syncthreads();
        value = shared[(threadIdx.x + 1) % THREADS] + 1;
        if (planted != PLANTED_NO_SECOND_BARRIER)
            __syncthreads();
    }
    out[threadIdx.x] = value;
}

/* Copies 16 bytes a thread through shared memory, twice with one stage each, and reads a neighbour's. */
static __global__ void copy_kernel(uint32_t *out, const uint32_t *in, enum planted planted)
{
    uint32_t(*stage)[4 * THREADS] = (uint32_t(*)[4 * THREADS]) shared_memory();
    const uint32_t mine = 4 * threadIdx.x, other = 4 * ((threadIdx.x + 1) % THREADS);
    cp_async16(stage[0] + mine, in + mine, true);
    cp_async_commit();
    cp_async16(stage[1] + mine, in + 4 * THREADS + mine, true);
    cp_async_commit();
    if (planted == PLANTED_NO_WAIT)
        cp_async_wait<2>();
    else if (planted == PLANTED_SHORT_WAIT)
        cp_async_wait<1>();
    else
        cp_async_wait<0>();
    __syncthreads();
    if (planted == PLANTED_EARLY_STAGE) /* filled again while a neighbour has yet to read it */
        cp_async16(stage[0] + mine, in + 4 * THREADS + mine, true);
    for (int i = 0; i < 4; i++)
        out[mine + i] = stage[0][other + i] + stage[1][other + i];
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    if (planted == PLANTED_NEVER_WAITED)
        cp_async16(stage[0] + mine, in, true);
}

/* out[16][8] = a[16][16] b[8][16]^T by one warp; wrong: b's two halves of k the other way round. */
static __global__ void product_kernel(float *out, const uint16_t *a, const uint16_t *b,
                                      enum planted planted)
{
    uint16_t(*shared)[16] = (uint16_t(*)[16])shared_memory();
    const uint32_t lane = threadIdx.x, matrix = lane / 8, row = lane % 8;
    uint32_t ra[4], rb[4];
    float d[4] = {};
    for (uint32_t i = lane; i < 16 * 16; i += 32)
        shared[i / 16][i % 16] = a[i];
    for (uint32_t i = lane; i < 8 * 16; i += 32)
        shared[16 + i / 16][i % 16] = b[i];
    __syncwarp();
    ldmatrix_x4(ra, &shared[row + 8 * (matrix % 2)][8 * (matrix / 2)]);
    const uint32_t half = planted == PLANTED_LAYOUT ? 1 - matrix % 2 : matrix % 2;
    ldmatrix_x4(rb, &shared[16 + row][8 * half]);
    mma<KV_TYPE_BF16>(d, ra, rb);
    for (int e = 0; e < 4; e++)
        out[(lane / 4 + 8 * (e / 2)) * 8 + 2 * (lane % 4) + e % 2] = d[e];
}

/* Threads that do not all reach the barrier, or meet at different instructions, or spin for ever. */
static __global__ void meeting_kernel(uint32_t *out, const uint32_t *in, enum planted planted)
{
    if (planted == PLANTED_DEADLOCK && threadIdx.x == 3)
        return;
    if (planted == PLANTED_DIVERGED && threadIdx.x == 3)
        out[3] = __ballot_sync(~0u, 1);
    while (planted == PLANTED_ENDLESS && load_relaxed_sys(in) == 0)
        __nanosleep(100);
    const uint32_t other = __shfl_xor_sync(~0u, in[threadIdx.x], 1);
    __syncthreads();
    out[threadIdx.x] = other;
}

int planted_words(uint32_t *out, const uint32_t *in, enum planted planted)
{
    if (planted >= PLANTED_DEADLOCK && planted <= PLANTED_ENDLESS)
        return launch(meeting_kernel, dim3(1), THREADS, 0, NULL, out, in, planted);
    if (planted >= PLANTED_NO_WAIT)
        return launch(copy_kernel, dim3(1), THREADS, 32 * THREADS, NULL, out, in, planted);
    return launch(neighbour_kernel, dim3(1), THREADS, 4 * THREADS, NULL, out, in, planted);
}

int planted_product(float *out, const uint16_t *a, const uint16_t *b, enum planted planted)
{
    return launch(product_kernel, dim3(1), 32, 24 * 16 * 2, NULL, out, a, b, planted);
}
