/* exchange_shm.h - the exchange over shared memory: the engine's segments and its workers' state.
 *
 * Owns the engine page, one job table and one KV arena per worker, and the sequence directory; it
 * creates them, or takes over those that a predecessor left, under a raised epoch.  The engine
 * keeps the books (which block and slot is whose); this file moves bytes and knows who lives. */
#ifndef OMNI_GPU_ENGINE_EXCHANGE_SHM_H
#define OMNI_GPU_ENGINE_EXCHANGE_SHM_H

#include "common/base/error.h"
#include "common/sched/latency.h"
#include "common/shm/arena.h"
#include "common/shm/directory.h"
#include "common/shm/job_engine.h"
#include "common/shm/peer.h"
#include "gpu-engine/exchange.h"

enum { EXCHANGE_WORKERS_MAX = 16 };

struct exchange_shm_config {
    const char *dir; /* of the group's segments, prepared */
    uint32_t engine_idx;
    uint32_t n_workers; /* 0: no offloading, the directory alone */
    uint32_t slots_per_worker;
    uint32_t n_q_max;
    enum job_element element;       /* of the payload: what the device reads and writes */
    uint64_t arena_bytes;           /* per worker */
    int node[EXCHANGE_WORKERS_MAX]; /* NUMA node of each arena, SEGMENT_ANY_NODE */
    uint32_t n_sequences;           /* directory entries */
    uint32_t context_max;
    uint64_t late_ns, kill_ns;  /* of a worker, see peer.h */
    uint64_t settle_timeout_ns; /* longest wait for workers of an older epoch */
    const struct kv_geometry *geometry;
};

/* How soon a worker begins; device thread, but for what is published. */
struct exchange_start {
    uint32_t n_out; /* jobs posted and not taken */
    uint32_t alone; /* slot of the job that was posted when there was none; EXCHANGE_NO_SLOT */
    uint64_t posted_ns;
    struct latency_window window;
    _Atomic uint64_t median_ns;
};

#define EXCHANGE_NO_SLOT UINT32_MAX

struct exchange_shm {
    struct exchange base; /* first: a struct exchange * is this */
    struct engine_page page;
    struct directory directory;
    struct job_table tables[EXCHANGE_WORKERS_MAX];
    struct arena arenas[EXCHANGE_WORKERS_MAX];
    struct peer peers[EXCHANGE_WORKERS_MAX];
    struct exchange_start starts[EXCHANGE_WORKERS_MAX];
    uint32_t to_flush; /* bit w: jobs were posted to worker w since the last flush */
    uint32_t epoch;
};

/* 0, or -errno with *err: no space, a foreign segment, -EBUSY (another engine of this index runs),
 * -ETIMEDOUT (a worker of an older epoch neither acknowledged nor died). */
int exchange_shm_create(struct exchange_shm **out, const struct exchange_shm_config *config,
                        struct error *err);

/* Looks at all workers: heartbeats, deaths; kills the hopelessly late. */
void exchange_shm_poll_peers(struct exchange_shm *x, uint64_t now_ns);

/* True if a worker has announced a finished job that nobody looked at yet; cheap, for bell_sleep.
 */
bool exchange_shm_announced(struct exchange_shm *x);

#endif
