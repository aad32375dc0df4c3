/* embedding.h - rows of the embedding table into the residual stream, f32.
 *
 * A token id may be the previous sweep's: `token_previous | i` stands for its output i, which lies on
 * the device, so that the next sweep is queued before the host has seen a token.
 *
 * Must move, per row of w elements: 2w read, 4w bytes written. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_EMBEDDING_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_EMBEDDING_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_TOKEN_PREVIOUS UINT32_C(0x80000000) /* DEVICE_TOKEN_PREVIOUS */

struct embedding {
    float *residual;          /* [slots][width] */
    const uint16_t *table;    /* [n_vocab][width] */
    const uint32_t *tokens;   /* [rows] ids, or CUDA_TOKEN_PREVIOUS | index */
    const uint32_t *previous; /* tokens of the previous sweep */
    const uint32_t *slots;    /* [rows] */
    struct cuda_rows rows;
    uint32_t width;   /* a multiple of 8 */
    uint32_t n_vocab; /* an id beyond is taken for 0: a kernel cannot refuse */
    uint32_t type;    /* of the table */
};

int embedding(const struct embedding *a, cuda_stream stream);
void embedding_ref(const struct embedding *a);

#ifdef __cplusplus
}
#endif
#endif
