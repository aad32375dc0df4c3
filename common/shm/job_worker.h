/* job_worker.h - the worker's side of a job table: find jobs, run them, return them.
 *
 * job_worker_next, _wait, _ack_epoch and _beat: one dispatching thread.  job_worker_complete: the
 * dispatching thread too; threads of a team report to it.  A job may be run twice (a worker died
 * and the next runs it again): it writes the same bytes to the same places.  Within one worker's
 * life each (slot, generation) is handed out once. */
#ifndef OMNI_COMMON_SHM_JOB_WORKER_H
#define OMNI_COMMON_SHM_JOB_WORKER_H

#include "common/shm/job_table.h"

struct job { /* a checked copy of the slot's first line */
    uint32_t slot, generation;
    uint32_t seq_idx, seq_gen;
    uint32_t layer, n_q, pos, ctx_len;
    uint64_t deadline_ns, posted_ns, sweep;
};

/* Next job to run: first from the scan (after attach or a lost hint), then from the ring.  False:
 * none now.  Stale and doubled hints are skipped and counted; a job whose fields are out of bounds
 * is completed with -EPROTO here. */
bool job_worker_next(struct job_table *t, struct job *job);

/* Is the job still wanted (its slot POSTED with that generation and epoch)?  One acquire load. */
bool job_worker_still_posted(const struct job_table *t, const struct job *job);

/* The output is written.  Publishes, in this order: times and status, DONE, done word,
 * announcement, wake.  JOB_STALE cannot hurt: the slot is left alone.  0 or -ESTALE. */
int job_worker_complete(struct job_table *t, const struct job *job, uint64_t start_ns,
                        uint64_t end_ns, int status);

/* Call when no thread touches a job of this table.  True: the engine had raised the epoch; it is
 * acknowledged now, and everything handed out before is void.  A new engine opens (perhaps makes
 * anew) arena and directory before it raises the epoch: attach again to what is not current any
 * more (segment_is_current) before acknowledging, or the next jobs go to the old memory. */
bool job_worker_ack_epoch(struct job_table *t);

/* Has the engine raised the epoch? Then stop taking jobs, let the running ones end, acknowledge. */
bool job_worker_epoch_raised(const struct job_table *t);

/* Has the engine said since the last call that jobs come soon? */
bool job_worker_roused(struct job_table *t);

/* Heartbeat: alive every worker_late_ms / 4 at least; progress whenever jobs advance. */
void job_worker_beat(struct job_table *t, uint64_t now_ns);
void job_worker_progress(struct job_table *t);

/* Sleeps until any table has a hint, a lost hint, a raised epoch or was roused, or until_ns; spins
 * before spin_until_ns (0 unless both ends own disjoint cores).  True: look. */
bool job_worker_wait(struct job_table *const *tables, uint32_t n, uint64_t spin_until_ns,
                     uint64_t until_ns);

#endif
