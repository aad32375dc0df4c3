/* prefill_attention.h - causal attention of chunks: many query tokens of a sequence, which see its
 * earlier tokens (the paged prefix) and those of the chunk before them.  The chunk's own k and v are in
 * the pool already.
 *
 * Must do:   4 * head_dim * n_heads flops per (query, visible token) pair, on tensor cores.
 * Must move: q and out, 4 * head_dim * n_heads bytes per row; K and V, 4 * head_dim * n_kv_heads per
 *            token, again for each 64 or 128 query rows and each head of a group (from L2, mostly).
 * Scores are made for 32 tokens at a time, from multiples of 32 on: a row depends on its position and on what
 * it sees, not on the chunk or the block that it is in. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_PREFILL_ATTENTION_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_PREFILL_ATTENTION_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

struct prefill_chunk {
    uint32_t first_row; /* of q and out */
    uint32_t n_rows;
    uint32_t pos; /* of the first row */
    uint32_t table;
};

struct prefill_attention {
    uint16_t *out;                     /* [rows][n_heads * head_dim] */
    const uint16_t *q;                 /* likewise, rotated */
    const struct prefill_chunk *chunk; /* [n_chunks] */
    struct cuda_kv kv;
    uint32_t n_chunks;
    uint32_t rows_max; /* no chunk has more rows: the size of the grid */
    uint32_t n_heads;
    uint32_t window;  /* 0 = all */
    uint32_t n_sinks; /* and the first so many */
    float scale;
    float softcap; /* as in decode_attention.h */
    uint32_t
        groups; /* of 16 rows a warp: 1, or 2 where that is built (head_dim 64 and 128, 16 bits); 0: by
                        the number of blocks */
};

int prefill_attention(const struct prefill_attention *a, cuda_stream stream);
void prefill_attention_ref(const struct prefill_attention *a);

#ifdef __cplusplus
}
#endif
#endif
