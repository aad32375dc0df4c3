/* element.h - 16-bit elements on the host, for the references and tests of the CUDA kernels.
 *
 * Rounding is to nearest, ties to even, as the GPU's conversions do. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_ELEMENT_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_ELEMENT_H
#include "common/base/half.h"
#include "common/kv/geometry.h"

/* type: KV_TYPE_BF16, else f16. */
static inline float element_to_float(uint32_t type, uint16_t bits)
{
    return type == KV_TYPE_BF16 ? half_float_from_bits((uint32_t)bits << 16) : half_to_float(bits);
}

static inline uint16_t element_from_float(uint32_t type, float f)
{
    const uint32_t bits = half_bits_from_float(f);

    if (type != KV_TYPE_BF16)
        return float_to_half(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)half_round_shift(bits, 16);
}

/* Largest relative error of one rounding. */
static inline double element_epsilon(uint32_t type)
{
    return type == KV_TYPE_BF16 ? 0x1p-8 : 0x1p-11;
}

#endif
