/* batch.h - the jobs of one engine that the team computes in one run.
 *
 * A run of the team costs a hand-over to every thread and a wait for the last one; short jobs run
 * together pay for it once, and fill all threads without a barrier between them.  Jobs whose
 * sequences share blocks (a common prefix) gain more: the shared part is read once for all of them.
 * All results of a batch become visible at its end, so it is bounded in time, and no job joins that
 * would make another one late.
 *
 * Part of a link; dispatching thread only. */
#ifndef OMNI_CPU_ATTND_BATCH_H
#define OMNI_CPU_ATTND_BATCH_H

#include <stdint.h>

#include "common/compute/attention.h"
#include "common/shm/job_worker.h"
#include "cpu-attnd/payload.h"

enum { BATCH_JOBS_MAX = 16 };

struct link;

struct batch {
    uint32_t n;
    struct job jobs[BATCH_JOBS_MAX];
    struct attn_job attn[BATCH_JOBS_MAX]; /* of the same jobs; those that share stand together */
    uint64_t bytes;                       /* of KV that they read */
    uint64_t tokens_shared;               /* of KV that need not be read again */
    uint32_t *blocks;       /* [BATCH_JOBS_MAX][directory.blocks_max] ids, copied and checked */
    struct payload payload; /* rows of as many jobs, where the slots have no floats */
};

enum batch_join {
    BATCH_JOINED,
    BATCH_GONE, /* nobody wants it any more, or it made no sense and was completed with an error */
    BATCH_APART /* it would take too long, or there is no room */
};

/* Tries to add the job.  The first one always fits; others only if all are predicted to end by
 * until_ns, which the caller derives from the deadlines. */
enum batch_join batch_add(struct link *l, const struct job *job, uint64_t now_ns,
                          uint64_t until_ns);

/* Appends the jobs' k and v to the arena, attends, publishes; empties the batch. */
void batch_run(struct link *l, struct team *team);

#endif
