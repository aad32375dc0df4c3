/* cuda_place.h - a KV block as the GPU's pool has it (cuda_kv.h) into an arena's block, and back
 * (common/kv/geometry.h).  The same bytes in other places, so what goes out and comes back is bit for
 * bit what it was.
 *
 *   K  pool: token by token; arena: panels of 32 tokens, element by element (pairs for bf16, int8)
 *   V  pool: token by token; arena: the same for f16, pairs of tokens for bf16, int8
 *   scales of int8: token by token in both
 *
 * Must move: each byte read and written once.  Any thread. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_PLACE_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_PLACE_H

#include "gpu-engine/device/cuda/cuda_kv.h"

/* layers: [geometry->n_layers] places in the pool's block; one layer group. */
void cuda_place_out(const struct kv_geometry *g, const struct cuda_kv *layers, uint8_t *arena,
                    const uint8_t *pool);
void cuda_place_in(const struct kv_geometry *g, const struct cuda_kv *layers, uint8_t *pool,
                   const uint8_t *arena);

#endif
