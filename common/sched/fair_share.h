/* fair_share.h - start-time fair queueing between tenants, by weight.
 *
 * Everybody has a virtual time that grows with what was served to it, divided by its weight; the
 * one that is furthest behind is next.  Who comes back after a pause begins at the present virtual
 * time: nobody saves up.  So over any time in which two tenants both want something, what they got
 * differs from the ratio of their weights by no more than one request of each (Goyal, Vin, Cheng:
 * Start-time Fair Queueing, SIGCOMM 1996).
 *
 * Used by the router's queues and by the engine's order of latency-sensitive prompts.  Cost is in
 * tokens of prompt and output.  Plain data, pure functions. */
#ifndef OMNI_COMMON_SCHED_FAIR_SHARE_H
#define OMNI_COMMON_SCHED_FAIR_SHARE_H

#include <stdint.h>

#include "common/sched/scheduler_state.h"

enum { FAIR_TENANTS_MAX = 32 };

struct fair_share {
    uint32_t n; /* tenants; 0 or 1: nothing to share */
    double weight[FAIR_TENANTS_MAX];
    double finish[FAIR_TENANTS_MAX]; /* virtual time up to which it has been served */
    double now;
};

/* Weights above 0; n <= FAIR_TENANTS_MAX. */
void fair_share_init(struct fair_share *f, uint32_t n, const uint32_t *weights);

/* Virtual time at which the tenant's next request would begin: the smallest is next. */
double fair_share_start(const struct fair_share *f, uint32_t tenant);

/* The tenant got cost tokens; a negative cost takes back what was counted and did not happen. */
void fair_share_charge(struct fair_share *f, uint32_t tenant, double cost);

/* Time goes on to the start of whoever is furthest behind among those that want something (bit i:
 * tenant i). */
void fair_share_advance(struct fair_share *f, uint32_t wanting);

/* Sets the rank of the latency-sensitive prompts in which they are to be computed: tenants by their
 * shares, within one by due time.  Where one tenant has all of them ranks are 0: by due time. */
void fair_share_rank(const struct fair_share *f, struct sched_seq *seqs, uint32_t n_seqs);

#endif
