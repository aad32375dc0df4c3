/* decode_attention.h - attention of decode rows over the paged pool: one query token per sequence.
 *
 * A sequence's context is cut at multiples of split_tokens; each piece is a block of its own for each
 * KV head, and the pieces are merged in ascending order.  Cuts depend on positions alone, so a row's
 * bits depend on its own context and not on the batch.
 *
 * Must move: 2 * head_dim * n_kv_heads elements per visible token (K and V; 8 bits: and 8 bytes of scales
 *            per KV head), beside which q, out and the partial results (4 * head_dim * n_heads per piece, written and read) are small.
 * Must do:   4 * head_dim * n_heads flops per visible token, on tensor cores: the query heads of a KV
 *            head are the rows of one m16n8k16 tile (padded to 16), so group size costs nothing. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_DECODE_ATTENTION_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_DECODE_ATTENTION_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

struct decode_attention {
    uint16_t *out;     /* [n_seqs][n_heads * head_dim] */
    const uint16_t *q; /* likewise, rotated */
    float *partial;    /* scratch: decode_attention_scratch() bytes */
    const uint32_t
        *ctx_len;      /* [n_seqs] visible tokens, this one included; 0: the row is not there */
    struct cuda_kv kv; /* table s belongs to row s */
    uint32_t n_seqs;
    uint32_t n_heads;      /* at most 16 per KV head */
    uint32_t ctx_max;      /* no ctx_len is above it: the size of the grid */
    uint32_t split_tokens; /* a multiple of 64 */
    uint32_t window;       /* the last so many tokens are visible; 0 = all */
    uint32_t n_sinks;      /* and the first so many */
    float scale;
    float softcap; /* scores become softcap * tanh(score / softcap); 0 = as they are */
};

/* Bytes of scratch for any launch with these n_seqs, n_heads, ctx_max, split_tokens. */
size_t decode_attention_scratch(const struct decode_attention *a);

/* Queues; 0, a cudaError_t, or CUDA_NOT_SUPPORTED. */
int decode_attention(const struct decode_attention *a, cuda_stream stream);

/* The same in plain C, sums in double; all pointers in host memory. */
void decode_attention_ref(const struct decode_attention *a);

#ifdef __cplusplus
}
#endif
#endif
