/* kernels.h - the data-moving kernels that several parts time, and the data they move.
 *
 * Every word is a function of (seed, index) that host and device compute alike, so that what
 * arrived can be checked without a copy of what was sent, and no rate is measured on zeros (which
 * some links and memories move faster).  Launchers queue and return the launch error; "moves" is
 * the least traffic that the launch must cause, and the figure its rate is computed from. */
#ifndef OMNI_TESTS_GPU_KERNELS_H
#define OMNI_TESTS_GPU_KERNELS_H
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

/* A 32-bit mixer (lowbias32 of H. Wang's hash prospector): word i of the data called seed. */
static __host__ __device__ inline uint32_t data_word(uint32_t seed, uint32_t i)
{
    uint32_t x = i + seed * 0x9e3779b9u;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

/* Fills n16 pieces of 16 bytes with data_word(seed, 4i..4i+3).  Moves: writes 16 n16 bytes. */
cudaError_t fill(uint4 *out, size_t n16, uint32_t seed, cudaStream_t stream);

/* *out ^= all words of in (the caller zeroes it).  Moves: reads 16 n16 bytes. */
cudaError_t read_xor(uint32_t *out, const uint4 *in, size_t n16, int n_blocks, cudaStream_t stream);

/* out = in; either may be pinned host memory.  Moves: reads and writes 16 n16 bytes each. */
cudaError_t copy16(uint4 *out, const uint4 *in, size_t n16, int n_blocks, cudaStream_t stream);

/* n_rows rows of row16 pieces, row r at r * out_stride16 and r * in_stride16, a block per row: job
 * payloads between dense rows and slots.  Moves: reads and writes 16 row16 n_rows bytes each. */
cudaError_t copy_rows(uint4 *out, size_t out_stride16, const uint4 *in, size_t in_stride16,
                      int row16, int n_rows, cudaStream_t stream);

/* Nothing at all.  Moves: nothing. */
cudaError_t empty(cudaStream_t stream);

#endif
