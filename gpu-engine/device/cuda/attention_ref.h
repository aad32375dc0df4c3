/* attention_ref.h - one query over a sequence's pages in plain C: what both attention kernels are
 * held against. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_ATTENTION_REF_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_ATTENTION_REF_H
#include "gpu-engine/device/cuda/cuda_kv.h"

/* Tokens first..end-1 are visible, and those below n_sinks. */
struct attention_seen {
    uint32_t first, end, n_sinks;
    float scale, softcap;
};

/* out = attention of q over what it sees of sequence seq, KV head `head`; sums in double. */
void attention_ref_query(const struct cuda_kv *kv, uint32_t seq, uint32_t head,
                         const struct attention_seen *seen, const uint16_t *q, uint16_t *out);

#endif
