/* job_engine.h - the engine's side of a job table: post, notice, take back, fence.
 *
 * One thread of the engine at a time per table.  Nothing here blocks except job_engine_wait. */
#ifndef OMNI_COMMON_SHM_JOB_ENGINE_H
#define OMNI_COMMON_SHM_JOB_ENGINE_H

#include "common/shm/job_table.h"
#include "common/shm/peer.h"

struct job_desc {
    uint32_t seq_idx, seq_gen;
    uint32_t layer;
    uint32_t n_q; /* 1..n_q_max */
    uint32_t pos;
    uint32_t ctx_len;
    uint64_t deadline_ns;
    uint64_t posted_ns;
    uint64_t sweep;
};

enum job_outcome {
    JOB_OK,       /* it was DONE and is FREE now */
    JOB_NOT_DONE, /* still POSTED */
    JOB_FAILED,   /* as JOB_OK, but the worker could not compute it: no output */
    JOB_STALE     /* the slot holds no job of that generation */
};

/* A new engine, once all its segments are open: epoch must be higher than job_engine_last_epoch of
 * every table it opened.  The worker is rung, so that it acknowledges at once. */
uint32_t job_engine_last_epoch(const struct job_table *t);
void job_engine_raise_epoch(struct job_table *t, uint32_t epoch);

/* Has the worker acknowledged the raised epoch, or is there none?  Only then free_all, which also
 * starts both rings' use by this engine. */
bool job_engine_epoch_settled(const struct job_table *t);
void job_engine_free_all(struct job_table *t);

/* FREE -> POSTED under the next generation, which is returned in *generation (NULL allowed).  The
 * caller has written q, k, v.  The worker is not woken: job_engine_flush, once for many.
 * -EBUSY: the slot is not FREE; -EINVAL: desc is out of the table's bounds. */
int job_engine_post(struct job_table *t, uint32_t slot, const struct job_desc *desc,
                    uint32_t *generation);

/* A hint for a job that somebody else has posted in the slot: a device that writes slots by itself,
 * with job_engine_post's order of writes. */
void job_engine_announce(struct job_table *t, uint32_t slot, uint32_t generation);

/* Wakes the worker if it sleeps. */
void job_engine_flush(struct job_table *t);

/* Jobs come soon: wakes the worker ahead of the first, so that its window is not spent on waking
 * (a futex wake-up takes about as long as the attention of a few decodes). */
void job_engine_rouse(struct job_table *t);

/* Generation of the slot's last finished job; acquire: its output is visible. */
static inline uint32_t job_engine_done_generation(const struct job_table *t, uint32_t slot)
{
    return atomic_load_explicit(&t->done[slot], memory_order_acquire);
}

/* State of the slot now (acquire). */
static inline enum job_state job_engine_state(const struct job_table *t, uint32_t slot)
{
    return job_word_state(atomic_load_explicit(&t->slots[slot].word, memory_order_acquire));
}

/* DONE -> FREE for the job of that generation.  The output stays readable until the next post.
 * times (NULL allowed) gets the worker's start and end. */
struct job_times {
    uint64_t start_ns, end_ns;
};
enum job_outcome job_engine_take(struct job_table *t, uint32_t slot, uint32_t generation,
                                 struct job_times *times);

/* Announced slots, at most n; doubled and stale announcements may be among them (job_engine_take
 * sorts them out).  After a lost announcement it scans the slots instead. */
uint32_t job_engine_poll(struct job_table *t, uint32_t *slots, uint32_t n);

/* Sleeps until any of the tables has an announcement, or until_ns.  True: there is one.  All tables
 * share the bell of the engine's page.  also (NULL allowed) is a further reason to wake, for which
 * somebody rings the bell.  spin_until_ns as in bell.h. */
bool job_engine_wait(struct engine_page *page, struct job_table *const *tables, uint32_t n,
                     const struct bell_wait *also_and_times);

/* Binds peer to the worker that the table names now, looks at it and at its heartbeat; kills it
 * when it has been late for too long (peer.h).  For deciding who gets work; never for reclaiming.
 */
enum peer_state job_engine_poll_peer(const struct job_table *t, struct peer *peer, uint64_t now_ns);

/* Is a worker attached?  The kernel's answer (its role lock), not a heartbeat's. */
bool job_engine_worker_attached(const struct job_table *t);

/* May what this slot's job named (slot, residual, blocks) be used again?  Only FREE. */
static inline bool job_engine_slot_reusable(const struct job_table *t, uint32_t slot)
{
    return job_engine_state(t, slot) == JOB_FREE;
}

/* Reclaims what cancelled jobs held at a dead worker: begin takes the worker's role, -EBUSY if a
 * worker (the old or already the next) is attached: its jobs come back by themselves.  Between
 * begin and end, job_engine_reclaim turns POSTED or DONE into FREE; all other slots stay for the
 * next worker.  Keep it short: a worker that attaches meanwhile retries. */
int job_engine_reclaim_begin(struct job_table *t);
void job_engine_reclaim(struct job_table *t, uint32_t slot);
void job_engine_reclaim_end(struct job_table *t);

#endif
