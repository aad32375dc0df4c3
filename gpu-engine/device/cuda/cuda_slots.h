/* cuda_slots.h - the workers' slots as the CUDA device uses them, the host's side.
 *
 * The slot table is the truth, and the GPU writes it: payload, line, word, over the host link, into
 * pinned shared memory.  What it cannot do is ring: the hint in a worker's ring and the futex wake come
 * from a thread here.  While a sweep with offloaded rows is in flight it looks at `posted`, one dense
 * pinned word per slot that the GPU writes behind the slot's own, and announces what is new: a hint
 * that comes late or twice is a stale hint, which a worker ignores; one that is lost is found by a
 * worker that scans the slots.  Between looks that found nothing it sleeps LOOK_US, or spins where the
 * engine owns its cores; between such sweeps it sleeps until the next.
 *
 * The mirror is what the host knows of the rows' state, by the logs that it has replayed.  Engine
 * thread, but for what the header of a field says. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_SLOTS_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_SLOTS_H

#include <pthread.h>
#include <stdbool.h>

#include "gpu-engine/device/cuda/job_slots.h"
#include "gpu-engine/device/device.h"
#include "gpu-engine/device/pick.h"
#include "gpu-engine/exchange.h"

struct cuda_slot {
    struct pick_slot state;
    uint32_t n_ridden, n_parked; /* jobs of the token in work */
    int error;                   /* of one of these jobs */
    bool adjusts;                /* its token's logits are changed, or ... */
    uint32_t n_top;              /* ... so many alternatives told */
};

struct cuda_slots {
    struct exchange *exchange; /* NULL: no offloading, and all else is empty */
    uint32_t n_slots, n_workers, spin_us;
    struct cuda_slot *mirror; /* [n_slots] */
    uint32_t *done;           /* [n_slots] scratch of a look */
    uint32_t n_jobs_out;
    uint32_t n_adjusts;                /* rows whose job is out, and that have adjustments */
    void *registered[64];              /* [workers] what was pinned */
    struct cuda_jobs jobs;             /* for the kernels; its arrays are device_words */
    const uint32_t *const *done_words; /* [workers] on the GPU, as all three of jobs */

    /* shared with the hint thread, under lock; posted is the GPU's to write */
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_mutex_t exchange_lock; /* announcing and taking are one side of the exchange */
    uint32_t *posted;              /* [n_slots] pinned */
    uint32_t *posted_device;       /* the same, as the GPU reaches it */
    uint32_t *announced;           /* [n_slots] hint thread's */
    uint32_t n_in_flight;          /* sweeps that may post */
    bool stopping, thread_up;
    pthread_t thread;
};

struct device;

/* Pins the workers' slots and starts the thread.  0, -ENOTSUP (an exchange that cannot be reached, or
 * another type of payload), -errno.  A failed open is safe to close. */
int cuda_slots_open(struct device *d);
void cuda_slots_close(struct device *d);

/* A sweep that may post is in flight, or has ended. */
void cuda_slots_sweep_begins(struct cuda_slots *s);
void cuda_slots_sweep_ended(struct cuda_slots *s);

/* Generation of the slot's next job; the slot is free. */
uint32_t cuda_slots_next_generation(struct cuda_slots *s, uint32_t slot);

void cuda_slots_leave(struct cuda_slots *s, uint32_t slot);
void cuda_slots_enter(struct cuda_slots *s, const struct device_enter *e, uint32_t generation,
                      uint64_t sweep);

/* The log says that the slot was picked at layer l; returns whether it rode along. */
bool cuda_slots_picked(struct cuda_slots *s, uint32_t slot, uint64_t sweep, bool failed,
                       bool is_last);

uint32_t cuda_slots_n_returned(struct cuda_slots *s, struct device_offloaded *rows);

#endif
