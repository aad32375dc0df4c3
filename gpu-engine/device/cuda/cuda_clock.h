/* cuda_clock.h - the GPU's clock (%globaltimer) against the engine's (CLOCK_MONOTONIC).
 *
 * Both count nanoseconds from origins of their own, and drift against each other by what the system's
 * time is corrected.  An offset is measured at open, from a kernel that stamps between two looks at the
 * clock; it is as good as half the shortest of these spans.  Afterwards each sweep says more: it cannot
 * begin before it was submitted, nor end after its end was seen.  An offset that contradicts is moved as
 * far as it must.
 *
 * Engine thread. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_CLOCK_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_CLOCK_H

#include <stdint.h>

#include "gpu-engine/device/cuda/cuda_kv.h"

struct cuda_clock {
    uint64_t offset_ns; /* engine's - GPU's, modulo 2^64 */
    uint64_t error_ns;  /* of the measurement at open, at most */
};

/* word: pinned, 8 bytes, as the GPU reaches it.  0 or -errno. */
int cuda_clock_measure(struct cuda_clock *c, uint64_t *word, cuda_stream stream);

/* A sweep's start and end by the GPU, between two times of the engine's. */
void cuda_clock_bound(struct cuda_clock *c, uint64_t submitted_ns, uint64_t start_gpu_ns,
                      uint64_t end_gpu_ns, uint64_t seen_ns);

static inline uint64_t cuda_clock_of(const struct cuda_clock *c, uint64_t gpu_ns)
{
    return gpu_ns + c->offset_ns;
}

#endif
