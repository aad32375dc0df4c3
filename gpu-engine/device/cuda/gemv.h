/* gemv.h - y = x W^T + bias for up to 8 rows: products that the reading of the weights bounds.
 *
 * Library products leave a third of the bandwidth at one row.  Here the weights are the 16 rows of an
 * m16n8k16 tile and the activations its 8 columns, so 8 rows cost what 1 does, and the tensor cores
 * leave the multiprocessor time to keep loads under way.
 *
 * With swiglu, W is [gate; up] of n_out / 2 rows each, and what comes out is silu(gate) * up, before it is
 * rounded: a kernel and a trip through memory less.
 *
 * Must move: 2 * n_out * n_in bytes of weights, once (x and y are small).
 * Must do:   2 * n_out * n_in * rows flops. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_GEMV_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_GEMV_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GEMV_ROWS_MAX = 8 };

struct gemv {
    uint16_t *out;     /* [rows][n_out], or NULL; [rows][n_out / 2] with swiglu, as out_f32 */
    float *out_f32;    /* [rows][n_out], or NULL: logits, for example */
    const uint16_t *x; /* [rows][n_in] */
    const uint16_t *w; /* [n_out][n_in] */
    const float *bias; /* [n_out], or NULL */
    uint32_t n_rows;   /* at most GEMV_ROWS_MAX */
    uint32_t n_out;    /* any; even with swiglu */
    uint32_t n_in;     /* a multiple of 32 */
    uint32_t type;     /* of out, x, w */
    uint32_t swiglu;   /* 0 or 1 */
};

int gemv(const struct gemv *a, cuda_stream stream);
void gemv_ref(const struct gemv *a);

#ifdef __cplusplus
}
#endif
#endif
