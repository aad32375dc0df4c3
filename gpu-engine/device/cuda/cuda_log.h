/* cuda_log.h - what a sweep leaves behind: times, tokens, picks.  The kernels write it into device
 * memory; one copy at the sweep's end brings it to pinned memory, where the engine thread replays it.
 *
 *   start, head, end | stamps [layers] | tokens, logprobs [outputs] | n_outputs [groups] |
 *   picks [layers] | out_slot [returned] | picked [layers][returned] |
 *   top [outputs][SAMPLING_TOP_MAX]
 *
 * A sweep without offloaded rows, or without alternatives, needs no copy of what only these have.  Times are the GPU's clock. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_LOG_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_LOG_H

#include "gpu-engine/device/cuda/pick_step.h"
#include "gpu-engine/device/cuda/sampling.h"

/* Of a layer; those of batch B are 0 in a sweep with one batch. */
enum cuda_stamp {
    CUDA_STAMP_JOBS, /* jobs are out */
    CUDA_STAMP_PROJ, /* before the pick and the output projection */
    CUDA_STAMP_B_BEGIN,
    CUDA_STAMP_B_ATTENDED,
    CUDA_STAMP_B_END,
    CUDA_STAMPS
};

struct cuda_log {
    uint64_t *start_ns, *head_ns, *end_ns;
    uint64_t *stamp; /* [layers][CUDA_STAMPS] */
    uint32_t *tokens;
    float *logprobs;
    uint32_t *n_outputs;
    size_t plain_bytes; /* up to here */
    struct pick_log *pick;
    uint32_t *out_slot;
    uint32_t *picked;     /* [layers][returned_max] */
    size_t offload_bytes; /* up to here */
    struct sampling_top *top;
    size_t bytes;
};

struct cuda_log_sizes {
    uint32_t n_layers, outputs_max, groups, returned_max;
};

/* Places a log at base (256-byte aligned). */
void cuda_log_place(struct cuda_log *log, void *base, const struct cuda_log_sizes *sizes);

#endif
