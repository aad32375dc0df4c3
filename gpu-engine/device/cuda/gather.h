/* gather.h - the results of the picked jobs, from their slots into the batch's rows.
 *
 * Must move, per row of out_width elements: 2 bytes each, read over the host link and written. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_GATHER_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_GATHER_H
#include "gpu-engine/device/cuda/job_slots.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gather {
    uint16_t *out;          /* [rows][width]: attention outputs; written from row n_common on */
    const uint32_t *source; /* [picked rows] slot << 8 | row, of the pick step */
    const uint32_t *n_live; /* rows of the batch, of the pick step */
    const uint32_t *n_common;
    struct cuda_jobs jobs;
    uint32_t rows_max; /* picked rows at most: the grid */
    uint32_t width;    /* elements; a multiple of 8, at most jobs.out_width */
};

int gather(const struct gather *a, cuda_stream stream);
void gather_ref(const struct gather *a);

#ifdef __cplusplus
}
#endif
#endif
