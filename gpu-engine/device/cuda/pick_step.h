/* pick_step.h - when a sweep reaches a layer's output projection: which finished jobs join its batch.
 *
 * One block: it reads the workers' done words, takes what pick_rows (device/pick.h, the function of all
 * devices) takes, and leaves on the device what the next kernels need: the rows' slots, what they post
 * next, how many rows are live.  What it did goes to pinned memory, and the engine replays it.
 *
 * Only this step may wait: until `want` rows of the layer are back or wait_ns are over, by the GPU's
 * clock, whatever the workers do.
 *
 * Must move: 4 bytes per slot and look over the host link (done words), 32 bytes per slot on the
 * device. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_PICK_STEP_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_PICK_STEP_H
#include "gpu-engine/device/cuda/rotary_write.h"
#include "gpu-engine/device/pick.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PICK_STEP_SLOTS_MAX = 4096, PICK_STEP_ROWS_MAX = 512 };

/* What the host asks for, and may change between replays of a graph; pinned or device memory. */
struct pick_ask {
    uint64_t sweep;
    uint64_t age_max;
    uint32_t n_common; /* rows that the batch has: picked ones come behind them */
    uint32_t p_max;    /* rows; at most PICK_STEP_ROWS_MAX, and what the batch has room for */
    uint32_t want, wait_ns;
    uint32_t batches;
};

/* What a sweep may still spend over all its layers; device memory. */
struct pick_budget {
    uint64_t wait_ns;
    uint32_t p; /* rows */
};

/* What the engine replays; pinned.  n_picked is written last, released: R2, pairs with the engine's
 * acquire. */
struct pick_log {
    uint64_t proj_ns, waited_ns;
    uint32_t n_ridden, n_rows;
    uint32_t n_picked; /* PICK_LOG_NONE until the step is over */
};
#define PICK_LOG_NONE   UINT32_MAX
#define PICK_LOG_FAILED UINT32_C(0x80000000) /* | slot: its worker could not compute the job */

struct pick_step {
    struct pick_slot *slots;            /* [n_slots] the device's own; changed by what is picked */
    const uint32_t *const *done;        /* [workers] done words, pinned; workers' slots in a row */
    const struct cuda_job_owner *owner; /* [n_slots] */
    const struct pick_ask *ask;
    struct pick_budget *budget; /* or NULL: ask alone bounds */
    struct pick_log *log;
    uint32_t *picked;   /* [PICK_STEP_ROWS_MAX, or the largest p_max] slots, the log's as well */
    uint32_t *n_live;   /* rows of the batch from here on: n_common + picked rows */
    uint32_t *row_slot; /* [n_common + ...] residual row of each picked row */
    struct rotary_row *row; /* [n_common + ...] what QKV of the next layer does with them */
    uint32_t *source;       /* [picked rows] slot << 8 | which of its rows: for the gather */
    uint32_t *generation;   /* [n_slots] of the next job */
    /* The next layer's deadline, which moves with how late the sweep is: now + arrival[1] -
     * arrival[0] + clock_ns; NULL, and no arrivals: not wanted. */
    uint64_t *deadline_ns;
    const uint64_t *arrival_ns;      /* [2] predicted arrivals at this layer and at the next */
    const uint64_t *clock_ns;        /* as in rotary_write */
    const uint8_t *const *job_slots; /* [workers] as in cuda_jobs: the workers' statuses */
    uint32_t slots_per_worker, n_slots;
    uint32_t layer;
    uint32_t is_last; /* of the layers: picked rows leave, and post nothing more */
    uint32_t n_q_max; /* residual rows per slot: row q of slot s is residual_first + s*n_q_max+q */
    uint32_t residual_first;
};

int pick_step(const struct pick_step *a, cuda_stream stream);
/* The same without waiting, and without times in the log. */
void pick_step_ref(const struct pick_step *a);

#ifdef __cplusplus
}
#endif
#endif
