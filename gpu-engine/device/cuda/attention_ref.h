/* attention_ref.h - one query over a sequence's pages in plain C: what both attention kernels are
 * held against. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_ATTENTION_REF_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_ATTENTION_REF_H
#include "gpu-engine/device/cuda/cuda_kv.h"

/* out = attention of q over tokens first..end-1 of sequence seq, KV head `head`; sums in double. */
void attention_ref_query(const struct cuda_kv *kv, uint32_t seq, uint32_t head, uint32_t first,
                         uint32_t end, float scale, const uint16_t *q, uint16_t *out);

#endif
