/* exchange_sim.h - attention workers in virtual time.
 *
 * DESIGN.  A worker runs one job at a time over all its cores: fixed cost plus KV bytes over its
 * bandwidth; which one is next is decided by job_order, as in the real worker.  Nothing runs ahead:
 * a worker decides at the moment it becomes free, among the jobs that have reached it by then, so
 * it is only advanced to the clock's device hand.  A remote worker's jobs and outputs pass its link
 * one after the other and are late by the hop.
 *
 * There is no payload and no arena memory.
 * One thread; nothing is allocated after create. */
#ifndef OMNI_GPU_ENGINE_DEVICE_SIM_EXCHANGE_SIM_H
#define OMNI_GPU_ENGINE_DEVICE_SIM_EXCHANGE_SIM_H

#include "common/kv/geometry.h"
#include "gpu-engine/device/sim/sim_timing.h"
#include "gpu-engine/exchange.h"

#define EXCHANGE_SIM_NEVER UINT64_MAX

/* Timing and geometry are copied, the clock is borrowed.  0 or -ENOMEM. */
int exchange_sim_create(struct exchange **out, const struct sim_timing *timing,
                        const struct kv_geometry *geometry, const struct sim_clock *clock,
                        uint32_t slots_per_worker);

/* When the next finished job becomes visible, or a job reaches an idle worker; NEVER: nothing is
 * under way. */
uint64_t exchange_sim_next_ns(struct exchange *x);

/* Time that the worker has spent on jobs so far, and their number. */
uint64_t exchange_sim_busy_ns(const struct exchange *x, uint32_t worker, uint64_t *n_jobs);

#endif
