/* job_order.h - which job next: deadline first while it can be met, else oldest first.
 *
 * DESIGN.  A job carries the time at which the engine's sweep reaches the output projection that
 * it feeds.  Back by then, its row rides along in that sweep; missed, it waits for the next visit
 * and an hour more or less is the same.  So among the jobs that can still make their deadline the
 * nearest goes first, and the rest, which have nothing to lose, go oldest first.  A job that can
 * make it may overtake one that cannot, but a job becomes one that cannot, and old, by waiting:
 * when no deadline can be met the oldest runs, and every sweep leaves such a gap.
 *
 * Several engines have shares of the worker's time.  Deadlines decide among them too, but an engine
 * that has had more than its share of the last second lets the jobs of others go first, late ones
 * too, until it has not.  Of time and not of what was used: where the worker is not full nobody has
 * had too much, and alone an engine may have it all.
 *
 * Two heaps per engine.  A job begins among the hopeful, by deadline, and goes over to the late, by age, when
 * it comes to the top and cannot make it any more; time never goes back, so it never returns.  A
 * hopeless job deeper in the first heap does no harm: somebody above it still can make it.
 *
 * Attention workers use it, and the simulator's.  Storage for a fixed number of jobs; push and pop
 * take the logarithm of it.  One thread. */
#ifndef OMNI_COMMON_SCHED_JOB_ORDER_H
#define OMNI_COMMON_SCHED_JOB_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/shm/job_worker.h"

struct job_order_item {
    struct job job;
    uint32_t link;         /* which engine's */
    uint64_t predicted_ns; /* time that it will take */
};

/* Which item, and what it is sorted by. */
struct job_order_entry {
    uint64_t key;       /* deadline of the hopeful, time of posting of the late */
    uint64_t posted_ns; /* ties: older first, then the lower slot */
    uint32_t slot, item;
};

struct job_order_heap {
    struct job_order_entry *entries;
    uint32_t n;
};

struct job_order_link { /* one engine's */
    struct job_order_heap hopeful, late;
    double part; /* of the worker's time that is its own, 0..1 */
    double used; /* part of the last second that its jobs ran, the past fading away */
};

struct job_order {
    struct job_order_item *items;
    uint32_t *free; /* [cap - n] unused items, a stack */
    struct job_order_link *links;
    uint32_t n_links, n, cap;
    uint64_t used_ns; /* up to when `used` holds */
};

/* For jobs of any links, which have no shares.  0 or -ENOMEM; a failed init is safe to fini. */
int job_order_init(struct job_order *o, uint32_t cap);

/* For jobs of links 0..n_links-1, with weights > 0 of their shares. */
int job_order_init_shared(struct job_order *o, uint32_t cap, const uint32_t *shares,
                          uint32_t n_links);
void job_order_fini(struct job_order *o);

/* False: full. */
bool job_order_push(struct job_order *o, const struct job_order_item *item);

/* Takes the next job out; false: there is none.  now_ns never goes back between calls. */
bool job_order_pop(struct job_order *o, uint64_t now_ns, struct job_order_item *out);

/* A job of the link ran from start_ns to end_ns; it counts against the link's share. */
void job_order_charge(struct job_order *o, uint32_t link, uint64_t start_ns, uint64_t end_ns);

/* Forgets all jobs of a link (its engine has a new epoch, or is gone). */
void job_order_drop_link(struct job_order *o, uint32_t link);

#endif
