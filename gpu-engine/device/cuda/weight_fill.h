/* weight_fill.h - random weights, for shapes of which there is no file: a function of seed and place.
 *
 * Uniform in [-span, span); with span = sqrt(3 / n_in) a product keeps the size of its input.
 *
 * Must move: 2 bytes per value, written. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_WEIGHT_FILL_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_WEIGHT_FILL_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weight_fill {
    uint16_t *out; /* [n_values]; 16-byte aligned */
    uint64_t n_values;
    uint64_t first; /* place of out[0]: values of a seed and a place are the same in any launch */
    uint64_t seed;
    float span;
    uint32_t type; /* KV_TYPE_BF16 or KV_TYPE_F16 */
};

int weight_fill(const struct weight_fill *a, cuda_stream stream);
void weight_fill_ref(const struct weight_fill *a);

/* A 64-bit mixer (splitmix64's), then 24 bits of it, in [-1, 1): all steps are exact. */
static inline CUDA_HOST_DEVICE float weight_fill_unit(uint64_t seed, uint64_t at)
{
    uint64_t x = seed * UINT64_C(0x9E3779B97F4A7C15) + at;

    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    x ^= x >> 31;
    return (float)(int32_t)((uint32_t)(x >> 40) - 0x800000u) * 0x1p-23f;
}

#ifdef __cplusplus
}
#endif
#endif
