/* cuda_kv.h - where keys and values lie in the GPU's pool, and the element types of its kernels.
 *
 *   pool: block 0, block 1, ...                                 block_bytes each
 *     block = block_tokens tokens, all layers of a layer group, one behind the other:
 *       layer:  K [n_kv_heads][block_tokens][head_dim]
 *               V [n_kv_heads][block_tokens][head_dim]          16-bit elements
 *
 * So a block is one contiguous piece for the copy engine (a copy out moves whole blocks), and 16
 * tokens of one head of one layer are contiguous for attention (4 KiB of K at head_dim 128), each
 * row ready for ldmatrix.  An arena's block (common/kv/geometry.h) has as many bytes and other places
 * inside: who moves a block between staging and arena puts the elements in their order.
 *
 * Plain C, shared by the host's code and the kernels. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_KV_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_KV_H
#include <stddef.h>
#include <stdint.h>

#include "common/kv/geometry.h"

#ifdef __CUDACC__
#define CUDA_HOST_DEVICE __host__ __device__
#else
#define CUDA_HOST_DEVICE
#endif

/* What a launcher returns beyond cudaError_t's values: none of its kernels fits what was asked. */
enum { CUDA_NOT_SUPPORTED = 801 };

typedef struct CUstream_st *cuda_stream;

/* One layer of the pool, as a kernel sees it.  Device pointers; borrowed. */
struct cuda_kv {
    uint8_t *pool;
    const uint32_t *tables; /* block of position p of sequence s:
                               tables[s * table_stride + p / block_tokens] */
    uint64_t block_bytes;
    uint64_t k_off, v_off; /* of the layer, from the block's start; multiples of 16 */
    uint32_t table_stride;
    uint32_t block_tokens; /* a multiple of KV_TILE_TOKENS */
    uint32_t n_kv_heads;
    uint32_t head_dim; /* of K and V alike: 64 or 128 */
    uint32_t type;     /* KV_TYPE_F16 or KV_TYPE_BF16; also of q and of the outputs */
};

/* How many rows a launch covers, and how many of them are there: a graph is captured for a bucket of
 * rows, and the pick step says on the device how many came. */
struct cuda_rows {
    uint32_t n;
    const uint32_t *n_live; /* device word, or NULL: all n */
};

/* Fills offsets and sizes of a layer; pool, tables and table_stride are the caller's.  0, or -ENOTSUP
 * where the GPU's kernels do not cover the layer. */
int cuda_kv_layer(struct cuda_kv *kv, const struct kv_geometry *g, uint32_t layer);

/* Bytes of a block: as many as the geometry's, so that pool and arena count alike. */
uint64_t cuda_kv_block_bytes(const struct kv_geometry *g);

/* Bytes from the pool's start to K (or V, by offset) of a head's token. */
static inline CUDA_HOST_DEVICE uint64_t cuda_kv_row(const struct cuda_kv *kv, uint64_t off,
                                                    uint32_t block, uint32_t head, uint32_t token)
{
    return block * kv->block_bytes + off +
           ((uint64_t)head * kv->block_tokens + token) * kv->head_dim * 2;
}

#endif
