/* wait.h - may a sweep wait at a layer, and until when: one set of rules for every device.
 *
 * DESIGN.  Waiting is funded (the engine says how long), and only for jobs that are about to return.
 * So each job gets a prediction when it is posted.  A worker takes the jobs of one flush before
 * others, for their deadlines are the nearest, but ends the job that it is at:
 *
 *   expected = flush + longest older job + jobs of the flush       on time until twice that
 *   a worker should have answered everything within all its jobs   on time until twice that
 *
 * A job is hoped for while it and its worker are on time and it is expected before the money is
 * spent.  A worker that is late stays so until it answers: what is posted to it meanwhile buys it no
 * time.  Late is an opinion about speed, not about life; the row is parked as ever.
 *
 * The book is the device's memory, one thread.  Nothing here sleeps or reads a clock. */
#ifndef OMNI_GPU_ENGINE_DEVICE_WAIT_H
#define OMNI_GPU_ENGINE_DEVICE_WAIT_H

#include <stdbool.h>

#include "gpu-engine/device/device.h"
#include "gpu-engine/device/pick.h"

struct wait_slot {
    uint64_t expected_ns; /* 0: posted, not flushed yet */
    uint64_t due_ns;
    uint64_t job_ns;
};

struct wait_worker {
    uint64_t due_ns;
    uint64_t fresh_ns; /* jobs posted since its last flush */
};

struct wait_book {
    uint32_t n_slots, slots_per_worker;
    struct wait_slot *slots;     /* [n_slots] */
    struct wait_worker *workers; /* [n_slots / slots_per_worker] */
};

/* 0 or -ENOMEM; a failed init is safe to fini. */
int wait_book_init(struct wait_book *b, uint32_t n_slots, uint32_t slots_per_worker);
void wait_book_fini(struct wait_book *b);

/* A job that reads that many KV bytes; 0: the worker's speed is not known, nobody waits for it. */
uint64_t wait_job_ns(const struct device_pace *pace, double kv_bytes);

/* A job was posted to the slot; all since the last flush were flushed now.  slots, done: as for
 * pick_rows, with the new jobs in them. */
void wait_posted(struct wait_book *b, uint32_t slot, uint64_t job_ns);
void wait_flushed(struct wait_book *b, const struct pick_slot *slots, const uint32_t *done,
                  uint64_t now_ns);

struct wait_ask {
    const struct wait_book *book;
    const struct pick_slot *slots;
    const uint32_t *done;
    uint32_t layer;
    uint32_t batches;        /* bit b: of batch b */
    uint64_t age_max;        /* as for pick_rows */
    uint32_t want;           /* jobs of the layer that are enough */
    uint64_t now_ns, end_ns; /* the money is spent at end_ns */
};

/* How long to sleep before asking again, at most until end_ns; now_ns: do not wait (any more). */
uint64_t wait_until(const struct wait_ask *ask);

#endif
