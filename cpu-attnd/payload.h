/* payload.h - rows of a job as attention takes them: floats.
 *
 * A GPU writes q, k, v in the KV's 16-bit type and reads the output so: half the bytes over its link.
 * Their rows are widened before the team runs and the output is rounded behind it, to nearest, ties to
 * even.  Where the table has floats, attention works on the slot itself and nothing here is used.
 *
 * Part of a link; dispatching thread only. */
#ifndef OMNI_CPU_ATTND_PAYLOAD_H
#define OMNI_CPU_ATTND_PAYLOAD_H

#include <stdbool.h>

#include "common/compute/attention.h"
#include "common/shm/job_table.h"

/* Rows of so many jobs beside the slots; memory NULL: the table has floats. */
struct payload {
    float *memory;
    size_t stride; /* floats of a job: q, k, v, out */
    size_t k_at, v_at, out_at;
};

/* 0 or -ENOMEM; a failed init is safe to fini. */
int payload_init(struct payload *p, const struct job_table_layout *layout, uint32_t n_jobs);
void payload_fini(struct payload *p);

/* Where attention finds q and leaves the output of the job that has place i, < n_jobs. */
void payload_place(const struct payload *p, const struct job_table *t, uint32_t slot, uint32_t i,
                   struct attn_job *attn);

/* Before the run: q is widened, k and v go to the arena. */
void payload_take(const struct payload *p, const struct job_table *t, uint32_t slot,
                  const struct attn_job *attn);
/* Behind it: the output goes to the slot. */
void payload_give(const struct payload *p, const struct job_table *t, uint32_t slot,
                  const struct attn_job *attn);

#endif
