/* job_slots.h - the slots of the job table as kernels reach them: pinned host memory.
 *
 * The layout is common/shm/layout_jobs.h's, whose atomics C++ cannot include; job_slots_check.c holds
 * the two together.  A job on the GPU: payload by all threads of a block, barrier, then the slot's
 * first line and, last, its word by one thread, released to the system (R1: pairs with the worker's
 * acquire of the word).  A result: the worker writes its output, then the done word (release); the
 * pick step loads done words relaxed and has one fence before anything of the output is read (A1).
 * Host-written memory is never read through the cache that is not coherent (no const __restrict__, no
 * __ldg): a line of it may be older than the done word. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_JOB_SLOTS_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_JOB_SLOTS_H
#include <stdint.h>

#include "gpu-engine/device/cuda/cuda_kv.h"

enum { CUDA_SLOT_NONE = 0xffffffff, CUDA_SLOT_BYTES = 128, CUDA_JOB_POSTED = 1 };
enum { CUDA_SLOT_STATUS = 80 }; /* bytes to the worker's status: 0, or there is no output */

/* The first line of a job_slot, without its word. */
struct cuda_job_head {
    uint32_t seq_idx, seq_gen, layer, n_q, pos, ctx_len;
    uint64_t deadline_ns, posted_ns, sweep;
};

/* All workers' slots, one numbering: slot s is slot s % slots_per_worker of worker s / that. */
struct cuda_jobs {
    uint8_t *const *slots; /* [workers] struct job_slot[slots_per_worker] */
    uint8_t *const *in;    /* [workers] input payload */
    uint8_t *const *out;   /* [workers] output payload */
    uint32_t slots_per_worker;
    uint32_t in_stride, out_stride; /* bytes per slot */
    uint32_t k_off, v_off;          /* bytes from a slot's input to k, and to v; q is at 0 */
    uint32_t q_width, k_width, v_width, out_width; /* the table's row widths, elements */
    uint32_t epoch;                                /* of the engine; in the words */
};

/* What the device knows of the sequence in a slot; written when it enters. */
struct cuda_job_owner {
    uint32_t seq_idx, seq_gen;
    uint32_t pos, n_q;
};

static inline CUDA_HOST_DEVICE uint8_t *cuda_job_slot(const struct cuda_jobs *j, uint32_t slot)
{
    return j->slots[slot / j->slots_per_worker] +
           (size_t)(slot % j->slots_per_worker) * CUDA_SLOT_BYTES;
}
static inline CUDA_HOST_DEVICE uint8_t *cuda_job_in(const struct cuda_jobs *j, uint32_t slot)
{
    return j->in[slot / j->slots_per_worker] + (size_t)(slot % j->slots_per_worker) * j->in_stride;
}
static inline CUDA_HOST_DEVICE uint8_t *cuda_job_out(const struct cuda_jobs *j, uint32_t slot)
{
    return j->out[slot / j->slots_per_worker] +
           (size_t)(slot % j->slots_per_worker) * j->out_stride;
}
static inline CUDA_HOST_DEVICE uint64_t cuda_job_word(uint32_t generation, uint32_t epoch)
{
    return (uint64_t)generation << 32 | (uint64_t)(epoch & 0xffffffu) << 8 | CUDA_JOB_POSTED;
}

#endif
