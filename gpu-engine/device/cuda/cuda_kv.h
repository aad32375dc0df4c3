/* cuda_kv.h - where keys and values lie in the GPU's pool, and the element types of its kernels.
 *
 *   pool: block 0, block 1, ...                                 block_bytes each
 *     block = block_tokens tokens, all layers of a layer group, one behind the other:
 *       layer:  K [n_kv_heads][block_tokens][head_dim]          elements of 16 or 8 bits
 *               V [n_kv_heads][block_tokens][head_dim]
 *               8 bits: float scales of K [n_kv_heads][block_tokens], then of V
 *
 * So a block is one contiguous piece for the copy engine (a copy out moves whole blocks), and 16
 * tokens of one head of one layer are contiguous for attention (4 KiB of K at head_dim 128 and 16 bits),
 * each row ready for ldmatrix.  An 8-bit element is a whole number -127..127, to be multiplied by the
 * scale of its token and head (largest magnitude / 127), as in an arena.  An arena's block (common/kv/geometry.h) has as many bytes and other places
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
    uint64_t k_off, v_off; /* of the layer, from the block's start; multiples of 16, as all four */
    uint64_t k_scale_off, v_scale_off; /* KV_TYPE_I8 */
    uint32_t table_stride;
    uint32_t block_tokens; /* a multiple of KV_TILE_TOKENS */
    uint32_t n_kv_heads;
    uint32_t head_dim; /* of K and V alike: 64, 80, 96, 128 or 256 */
    uint32_t type;     /* KV_TYPE_F16, KV_TYPE_BF16 or KV_TYPE_I8 */
    uint32_t row_type; /* of q, k, v and outputs, F16 or BF16; 0: as type (not for I8) */
};

static inline CUDA_HOST_DEVICE uint32_t cuda_kv_row_type(const struct cuda_kv *kv)
{
    return kv->row_type != 0 ? kv->row_type : kv->type;
}

static inline CUDA_HOST_DEVICE uint32_t cuda_kv_element_bytes(uint32_t type)
{
    return type == KV_TYPE_I8 ? 1 : 2;
}

/* How many rows a launch covers, and how many of them are there: a graph is captured for a bucket of
 * rows, and the pick step says on the device how many came. */
struct cuda_rows {
    uint32_t n;
    const uint32_t *n_live; /* device word, or NULL: all n */
};

/* Fills offsets and sizes of a layer; pool, tables, table_stride and row_type are the caller's.  0, or
 * -ENOTSUP where the GPU's kernels do not cover the layer.  Its window, sinks and softcap are said to
 * attention at each launch. */
int cuda_kv_layer(struct cuda_kv *kv, const struct kv_geometry *g, uint32_t layer);

/* Bytes of a block: as many as the geometry's, so that pool and arena count alike. */
uint64_t cuda_kv_block_bytes(const struct kv_geometry *g);

/* Bytes from the pool's start to K (or V, by offset) of a head's token. */
static inline CUDA_HOST_DEVICE uint64_t cuda_kv_row(const struct cuda_kv *kv, uint64_t off,
                                                    uint32_t block, uint32_t head, uint32_t token)
{
    return block * kv->block_bytes + off +
           ((uint64_t)head * kv->block_tokens + token) * kv->head_dim *
               cuda_kv_element_bytes(kv->type);
}
/* The same to its scale; off: k_scale_off or v_scale_off. */
static inline CUDA_HOST_DEVICE uint64_t cuda_kv_scale(const struct cuda_kv *kv, uint64_t off,
                                                      uint32_t block, uint32_t head, uint32_t token)
{
    return block * kv->block_bytes + off + ((uint64_t)head * kv->block_tokens + token) * 4;
}

#endif
