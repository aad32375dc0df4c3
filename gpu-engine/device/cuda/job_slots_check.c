/* job_slots_check.c - job_slots.h and the shared layout say the same. */
#include "gpu-engine/device/cuda/job_slots.h"

#include <stddef.h>

#include "common/shm/layout_jobs.h"

#define SAME_PLACE(field)                                                                          \
    static_assert(offsetof(struct job_slot, field) ==                                              \
                      sizeof(uint64_t) + offsetof(struct cuda_job_head, field),                    \
                  #field)

static_assert(sizeof(struct job_slot) == CUDA_SLOT_BYTES, "job_slot");
static_assert(offsetof(struct job_slot, word) == 0, "word");
static_assert((int)JOB_POSTED == (int)CUDA_JOB_POSTED, "POSTED");
static_assert(offsetof(struct job_slot, status) == CUDA_SLOT_STATUS, "status");
SAME_PLACE(seq_idx);
SAME_PLACE(seq_gen);
SAME_PLACE(layer);
SAME_PLACE(n_q);
SAME_PLACE(pos);
SAME_PLACE(ctx_len);
SAME_PLACE(deadline_ns);
SAME_PLACE(posted_ns);
SAME_PLACE(sweep);
