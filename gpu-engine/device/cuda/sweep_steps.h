/* sweep_steps.h - small kernels around a sweep's modules: what begins it, what is sampled, time stamps.
 *
 * What differs from sweep to sweep is read from device memory, which one copy fills, so that a graph
 * captured once serves all.
 *
 * Must move: a few kilobytes at most; sweep_outputs 4 bytes per element of a row that is sampled. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_SWEEP_STEPS_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_SWEEP_STEPS_H
#include "gpu-engine/device/cuda/pick_step.h"
#include "gpu-engine/device/cuda/sampling.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SWEEP_BATCHES = 2 }; /* DEVICE_BATCHES */

/* An offloaded row that starts a token at layer 0. */
struct sweep_enter {
    struct cuda_job_owner owner;
    struct sampling_row sampling;
    uint32_t slot;
    uint32_t generation; /* of its first job */
};

/* Counts and limits of a sweep; device memory, filled by the host. */
struct sweep_head {
    uint64_t sweep;
    uint64_t wait_ns;  /* of all layers together */
    uint64_t clock_ns; /* as in rotary_write */
    uint32_t p;        /* rows returned, of all layers together */
    uint32_t n_rows;   /* of batch A before layer 0: common rows and those that enter */
    uint32_t n_enter, n_leave;
    uint32_t n_out[SWEEP_BATCHES]; /* sampled common rows */
};

/* One block: rows leave, rows enter, the sweep's counters begin. */
struct sweep_begin {
    const struct sweep_head *head;
    const struct sweep_enter *enter; /* [n_enter] */
    const uint32_t *leave;           /* [n_leave] slots */
    const uint64_t *arrival_ns;      /* of layer 0, from the sweep's start */
    struct pick_slot *slots;         /* [n_slots], as all below; unused without slots */
    struct cuda_job_owner *owner;
    uint32_t *generation;
    struct sampling_row *slot_sampling;
    struct pick_budget *budget;
    uint64_t *deadline_ns; /* of layer 0 */
    uint32_t *n_live;      /* rows of batch A */
    uint64_t *start_ns;
};

/* Rows whose token is drawn, side by side: a batch's common ones as the host lists them and, of batch
 * A, picked rows that got through the last layer, behind those of both batches.  Of a slot's rows its
 * last is sampled. */
struct sweep_outputs {
    uint16_t *out;            /* [outputs][width] */
    struct sampling_row *row; /* [outputs] */
    const uint16_t *in;       /* [rows of the batch][width] normed */
    const struct sweep_head *head;
    const uint32_t *out_row;            /* [n_out of the batch] its row in the batch */
    const struct sampling_row *out_how; /* [n_out of the batch] */
    /* Picked rows, of batch A; n_live NULL: none are. */
    const uint32_t *n_live, *n_common;
    const uint32_t *source; /* as in gather */
    const struct cuda_job_owner *owner;
    const struct sampling_row *slot_sampling;
    uint32_t *out_slot;  /* [picked outputs] */
    uint32_t *n_outputs; /* [groups] rows of each group_rows outputs that are there */
    uint64_t *stamp_ns;
    uint32_t batch;
    uint32_t outputs_max; /* of the batch: the grid */
    uint32_t groups, group_rows;
    uint32_t width; /* a multiple of 8 */
};

int sweep_begin(const struct sweep_begin *a, cuda_stream stream);
int sweep_outputs(const struct sweep_outputs *a, cuda_stream stream);
/* *at = the GPU's clock, in nanoseconds. */
int sweep_stamp(uint64_t *at, cuda_stream stream);

/* The same in plain C, times left out. */
void sweep_begin_ref(const struct sweep_begin *a);
void sweep_outputs_ref(const struct sweep_outputs *a);

#ifdef __cplusplus
}
#endif
#endif
