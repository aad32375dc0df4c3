/* rms_norm.h - adds what a module produced to the residual stream, and norms it for the next.
 *
 * Residuals are f32, indexed by slot, and never move: a common row has a slot for the sweep, an
 * offloaded row keeps its own from layer to layer while its attention is out.
 *
 * Must move, per row of w elements: delta 2w, residual 4w read and 4w written, out 2w bytes.
 * Must do: 4w flops. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_RMS_NORM_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_RMS_NORM_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

struct rms_norm {
    uint16_t *out;         /* [rows][width] */
    float *residual;       /* [slots][width] */
    const uint16_t *delta; /* [rows][width], or NULL: nothing is added or written back */
    const uint32_t *slots; /* [rows] residual slot of each row; no slot twice */
    const float *weight;   /* [width] */
    struct cuda_rows rows;
    uint32_t width; /* a multiple of 8, at most 16,384 */
    uint32_t type;  /* of out and delta */
    float epsilon;
};

int rms_norm(const struct rms_norm *a, cuda_stream stream);
void rms_norm_ref(const struct rms_norm *a);

#ifdef __cplusplus
}
#endif
#endif
