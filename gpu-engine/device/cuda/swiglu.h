/* swiglu.h - silu(gate) * up, of one product that holds both.
 *
 * Must move, per row of w elements: gate and up 4w read, out 2w bytes written.  Must do: about 6w flops
 * (one exponential each). */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_SWIGLU_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_SWIGLU_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

struct swiglu {
    uint16_t *out;           /* [rows][width] */
    const uint16_t *gate_up; /* [rows][2 * width]: gate, then up */
    struct cuda_rows rows;
    uint32_t width; /* a multiple of 8 */
    uint32_t type;
};

int swiglu(const struct swiglu *a, cuda_stream stream);
void swiglu_ref(const struct swiglu *a);

#ifdef __cplusplus
}
#endif
#endif
