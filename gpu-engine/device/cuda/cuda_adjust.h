/* cuda_adjust.h - what changes the logits of a row before its token is drawn, where the GPU reads it.
 *
 * An area of pinned memory holds one row's adjustments: the description, biases, stop tokens and the
 * log, which the kernels read over the host link.  Common rows have areas of the sweep's, filled anew
 * each time; an offloaded row has its slot's, filled when it enters.  The log is copied where a penalty
 * reads it, up to the position that is drawn.
 *
 * Sweeps in which some row has adjustments are plain launches: graphs carry none of their kernels. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_ADJUST_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_ADJUST_H

#include "gpu-engine/device/cuda/sampling.h"
#include "gpu-engine/device/device.h"

enum { CUDA_ADJUST_BIASES_MAX = 256, CUDA_ADJUST_STOPS_MAX = 64 }; /* as many as the engine takes */

struct cuda_areas {
    uint8_t *here;   /* pinned */
    uint8_t *device; /* the same, as the GPU reaches it */
};

struct cuda_adjusts {
    size_t area_bytes;
    struct cuda_areas rows;  /* [CUDA_SWEEP_BUFFERS][seqs_max] */
    struct cuda_areas slots; /* [n_slots] */
};

/* 0 or -errno. */
int cuda_adjusts_open(struct device *d);

/* 0, or -ENOTSUP: more biases or stops than an area holds. */
int cuda_adjust_check(const struct device_sampling *how);

/* How the token of position pos is drawn, with its adjustments in area i of these. */
struct sampling_row cuda_adjust_row(const struct device *d, const struct cuda_areas *areas,
                                    size_t i, const struct device_sampling *how, uint32_t pos);

#endif
