/* exchange.h - how the engine and its device see the attention workers.
 *
 * Post a job, see that it is done, read its output, move KV blocks, ask whether a worker lives.
 * The first implementation is shared memory (exchange_shm.c); exchange_delay.c wraps another one
 * and holds results back, to force riding and parking in tests; remote workers come later.
 *
 * A slot is the fixed place of one offloaded row: slot = worker * slots_per_worker + i.  Its
 * generation grows by one with every job.
 *
 * Device threads, one at a time: payload, post to take.  Engine thread: all others. */
#ifndef OMNI_GPU_ENGINE_EXCHANGE_H
#define OMNI_GPU_ENGINE_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>

struct exchange;
struct exchange_memory;

/* Where a slot's payload lies; fp32 rows.  q, k, v are the engine's to write while the slot is
 * free, out is the worker's to write while it is posted. */
struct exchange_payload {
    float *q, *k, *v;
    const float *out;
    uint32_t q_stride, k_stride, v_stride, out_stride; /* elements between the rows of n_q > 1 */
};

struct exchange_job {
    uint32_t slot;
    uint32_t seq_idx, seq_generation; /* entry of the sequence directory */
    uint32_t layer;
    uint32_t n_q;
    uint32_t pos;         /* of the first query; context after the job = pos + n_q */
    uint64_t deadline_ns; /* when the sweep is predicted to reach the output projection */
    uint64_t sweep;       /* that posts it */
};

enum exchange_peer {
    EXCHANGE_PEER_ABSENT,
    EXCHANGE_PEER_ALIVE,
    EXCHANGE_PEER_LATE,
    EXCHANGE_PEER_DEAD
};

/* A sleep of the device thread: until enough() says so, or until_ns. */
struct exchange_wait {
    bool (*enough)(void *arg); /* polls done words by itself; called often */
    void *arg;
    uint64_t spin_until_ns; /* as in bell.h: 0 unless device and workers own disjoint cores */
    uint64_t until_ns;
};

struct exchange_ops {
    const char *name;
    void (*payload)(struct exchange *x, uint32_t slot, struct exchange_payload *out);
    /* Publishes the job whose payload is written.  0, or -EIO: the slot is not as we left it, a peer
     * broke the protocol; nothing was posted. */
    int (*post)(struct exchange *x, const struct exchange_job *job, uint32_t *generation);
    /* For a device that posts by itself (exchange_memory.h); NULL: it cannot.  announce: a hint for a
     * job whose slot says POSTED already; late or doubled ones do no harm. */
    void (*announce)(struct exchange *x, uint32_t slot, uint32_t generation);
    void (*memory)(struct exchange *x, uint32_t worker, struct exchange_memory *out);
    uint32_t (*generation)(struct exchange *x, uint32_t slot); /* of its last job, by its word */
    /* Wakes the workers that were posted to since the last flush. */
    void (*flush)(struct exchange *x);
    /* The sweep that begins will post to this worker: it wakes ahead of the first job.  NULL: its
     * workers need no waking. */
    void (*rouse)(struct exchange *x, uint32_t worker);
    /* Refreshes done[slot] = generation of the last finished job of each slot, for all slots;
     * what is seen here was published by the worker with release: its output may be read. */
    void (*poll_done)(struct exchange *x, uint32_t *done);
    /* Sleeps; workers wake it.  NULL: nothing here would, exchange_await looks from time to time. */
    void (*await)(struct exchange *x, const struct exchange_wait *wait);
    /* The output was copied out of the slot: DONE -> FREE.  0, or -EIO: the worker could not
     * compute the job, so what was copied is no output. */
    int (*take)(struct exchange *x, uint32_t slot, uint32_t generation);
    /* KV moves in two steps: the device between its KV and staging, the exchange between staging
     * and the arena.  staging: memory for arena block `block`, where the device's copies start or
     * end.  copy_out, copy_in: the second step, for blocks whose staging is filled (out) or wanted
     * (in).  1: it is done (staging is the arena itself); 0: under way, copy_done(*ticket) says 1
     * when it has ended. */
    void *(*staging)(struct exchange *x, uint32_t worker, uint32_t block);
    int (*copy_out)(struct exchange *x, uint32_t worker, const uint32_t *blocks, uint32_t n,
                    uint64_t *ticket);
    int (*copy_in)(struct exchange *x, uint32_t worker, const uint32_t *blocks, uint32_t n,
                   uint64_t *ticket);
    int (*copy_done)(struct exchange *x, uint64_t ticket);
    enum exchange_peer (*peer)(struct exchange *x, uint32_t worker);
    /* Its process, 0 while there is none.  NULL: workers here are no processes. */
    uint32_t (*peer_pid)(struct exchange *x, uint32_t worker);
    /* KV bytes a second that its jobs read, as the worker measures them; 0 before the first.
     * NULL: not known here. */
    uint64_t (*read_rate)(struct exchange *x, uint32_t worker);
    /* Time from posting a job to a worker that has none until it begins: waking, mostly.  Median of
     * the last ones; 0 before the first.  NULL: not known here. */
    uint64_t (*start_ns)(struct exchange *x, uint32_t worker);
    /* Voids whatever job the slot holds, if nobody can touch it any more: 1 = the slot, and what
     * its job named, may change owner; 0 = its worker still has it.  No sweep may be in flight. */
    int (*slot_release)(struct exchange *x, uint32_t slot);
    /* Blocks of a worker's arena. */
    uint32_t (*n_blocks)(struct exchange *x, uint32_t worker);
    /* Owner tag of an arena block, for looking in: seq_generation 0 = nobody. */
    void (*set_owner)(struct exchange *x, uint32_t worker, uint32_t block, uint32_t seq_idx,
                      uint32_t seq_generation);
    /* Heartbeat of the engine (progress: sweeps), and a look at all workers: who lives, who is
     * late, who must be killed. */
    void (*beat)(struct exchange *x, uint64_t now_ns, uint64_t progress);
    /* Forgets what workers have announced: done words say what is finished. */
    void (*drain)(struct exchange *x);
    void (*destroy)(struct exchange *x);
};

struct exchange {
    const struct exchange_ops *ops;
    uint32_t n_workers;
    uint32_t slots_per_worker;
    uint32_t n_q_max;
    uint32_t poll_us; /* 0: workers wake a sleeping engine; else it looks so often by itself */
};

static inline uint64_t exchange_read_rate(struct exchange *x, uint32_t worker)
{
    return x->ops->read_rate ? x->ops->read_rate(x, worker) : 0;
}

static inline uint64_t exchange_start_ns(struct exchange *x, uint32_t worker)
{
    return x->ops->start_ns ? x->ops->start_ns(x, worker) : 0;
}

static inline uint32_t exchange_peer_pid(struct exchange *x, uint32_t worker)
{
    return x->ops->peer_pid ? x->ops->peer_pid(x, worker) : 0;
}

static inline void exchange_rouse(struct exchange *x, uint32_t worker)
{
    if (x->ops->rouse)
        x->ops->rouse(x, worker);
}

/* exchange.c */
void exchange_await(struct exchange *x, const struct exchange_wait *wait);

static inline uint32_t exchange_n_slots(const struct exchange *x)
{
    return x->n_workers * x->slots_per_worker;
}

#endif
